"""What a peer that is behind has not taken yet, and whether it takes any of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from .deadlines import Deadline, Deadlines


class Backlog:
    """The bytes that the loop's transport was given to send. A stall is that none of those it holds leaves it for
    `seconds`; then `stalled` is called, once. It is looked for four times as often."""

    __slots__ = ("_deadlines", "_given", "_left", "_left_at", "_look_at", "_loop", "_seconds", "_stalled", "_transport")

    def __init__(
        self, transport: asyncio.Transport, deadlines: Deadlines, seconds: float, stalled: Callable[[], None]
    ) -> None:
        self._transport, self._deadlines = transport, deadlines
        self._seconds, self._stalled = seconds, stalled
        self._loop = asyncio.get_running_loop()
        self._given = 0
        self._left = 0  # how many of them had left when that was last looked at ...
        self._left_at = 0.0  # ... and found to have grown
        self._look_at: Deadline | None = None

    def add(self, data: bytes | memoryview) -> None:
        """Let the transport send this, behind what it holds."""
        if self._look_at is None:  # then all that it was given before has left
            self._left, self._left_at = self._given, self._loop.time()
            self._look_later()
        self._given += len(data)
        self._transport.write(data)

    def forget(self) -> bool:
        """Look no more. Returns whether there was something to look after, as far as is known."""
        look_at, self._look_at = self._look_at, None
        if look_at is not None:
            look_at.cancel()
        return look_at is not None

    def _look_later(self) -> None:
        self._look_at = self._deadlines.after(self._seconds / 4, self._look)

    def _look(self) -> None:
        self._look_at = None
        waiting = self._transport.get_write_buffer_size()
        if not waiting:
            return
        now, left = self._loop.time(), self._given - waiting
        if left > self._left:
            self._left, self._left_at = left, now
        elif now - self._left_at >= self._seconds:
            self._stalled()
            return
        self._look_later()
