"""Bytes that have come and were not read yet, and how many of them are given out at once. No I/O."""

from __future__ import annotations

_PIECE = 16 * 1024  # bytes given out at once ...
LINES = 64  # ... and lines, for it is these that cost: as many of tiny chunks take h11 half a millisecond


class Inbox:
    """Takes what comes, however it comes, and gives it out in pieces that are quickly parsed. Its length: its bytes."""

    __slots__ = ("_block", "_parts", "_place", "_size")

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Drop all of it."""
        self._parts: list[bytes] = []
        self._block = b""  # what was given out in part, up to `_place`
        self._place = self._size = 0

    def __len__(self) -> int:
        return self._size

    def add(self, data: bytes) -> None:
        """This has come."""
        self._parts.append(data)
        self._size += len(data)

    def take(self, lines: float = LINES) -> bytes:
        """The next piece, with at most so many ends of `lines` (math.inf: any); b"" if there is none."""
        if not self._block:
            self._block = b"".join(self._parts)
            self._parts.clear()
        piece = self._block[self._place : self._place + _PIECE]
        while piece.count(b"\r\n") > lines:
            piece = piece[: len(piece) // 2]
        self._place += len(piece)
        self._size -= len(piece)
        if self._place == len(self._block):
            self._block, self._place = b"", 0  # it is not held: the loop's buffers have room for far more than has come
        return piece
