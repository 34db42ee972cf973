"""Undoing a response's Content-Encoding as it arrives (RFC 9110 section 8.4). Only zlib's arithmetic; no I/O.

What a few bytes unpack to may be a thousand times as large: it comes in pieces, each of which is made when the one
before was taken, so that nobody needs memory for all of it.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from typing import Protocol

from .errors import ContentError, IncompleteResponse

_PIECE = 64 * 1024  # bytes that are unpacked at once
_GZIP = 16 + zlib.MAX_WBITS
_RAW = -zlib.MAX_WBITS
_MAGIC = b"\x1f\x8b"  # RFC 1952 section 2.3.1: so a member begins


class Unpack(Protocol):
    """Undoes one Content-Encoding."""

    def feed(self, data: bytes) -> Iterable[bytes]:
        """What the next bytes unpack to: take all of it before the next ones. Raises ContentError."""

    def end(self) -> None:
        """The body has ended. Raises IncompleteResponse if something is missing."""


class Identity(Unpack):
    """No coding at all."""

    def feed(self, data: bytes) -> Iterable[bytes]:
        return (data,)

    def end(self) -> None:
        pass


class Inflate(Unpack):
    """gzip (RFC 1952; several members, one behind the other, are one text) and deflate (RFC 1950, or bare RFC 1951,
    which some servers send for it). What follows and is no other member is an error: browsers drop it, and with it a
    member that was damaged."""

    def __init__(self, coding: str) -> None:
        self._coding = coding
        self._zlib = None if coding == "deflate" else zlib.decompressobj(_GZIP)
        self._first = b""  # of deflate, until it is known which
        self._begun = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        self._begun = self._begun or bool(data)
        if self._zlib is None:
            self._first = data = self._first + data
            if len(data) < 2:
                return
            # RFC 1950 section 2.2: the method is 8, and the first two bytes are a multiple of 31.
            wrapped = data[0] & 0x0F == 8 and int.from_bytes(data[:2], "big") % 31 == 0
            self._zlib = zlib.decompressobj(zlib.MAX_WBITS if wrapped else _RAW)
        piece = b""
        while data or len(piece) == _PIECE:  # then zlib may hold more
            if self._zlib.eof:
                if not data:
                    return
                if self._coding == "deflate" or not _MAGIC.startswith(data[:2]):
                    raise ContentError(f"the response has bytes behind the end of its {self._coding}")
                self._zlib = zlib.decompressobj(_GZIP)
            try:
                piece = self._zlib.decompress(data, _PIECE)
            except zlib.error as exc:
                raise ContentError(f"the response is not the {self._coding} that it says it is: {exc}") from exc
            data = self._zlib.unconsumed_tail or self._zlib.unused_data
            if piece:
                yield piece

    def end(self) -> None:
        if self._begun and (self._zlib is None or not self._zlib.eof):
            raise IncompleteResponse(f"the response ends before its {self._coding} does")


def unpack(content_encoding: str) -> Unpack:
    """What undoes this Content-Encoding. Raises ContentError for one that we do not know, and for two in a row."""
    codings = [coding.strip() for coding in content_encoding.lower().split(",")]
    match [coding for coding in codings if coding not in ("", "identity")]:
        case []:
            return Identity()
        case ["gzip" | "x-gzip" | "deflate" as coding]:
            return Inflate(coding)
    raise ContentError(
        f"the response has the Content-Encoding {content_encoding[:40]!r}, of which we know gzip and deflate: "
        "ask for none (no Accept-Encoding), or take the bytes as they are, with arrivals()"
    )
