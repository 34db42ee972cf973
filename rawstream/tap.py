"""The wire log: every byte that passes between a client and us, for a person to read.

It is a logger, `rawstream.wire`, and is on if that is at DEBUG when a connection comes. Then a tap stands between
asyncio's transport and our protocol, which know nothing of it; else it costs one look at the level.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from typing import Any, cast

from .observe import tell

wire = logging.getLogger("rawstream.wire")
_LINE = re.compile(r"[^\n]*\n|[^\n]+")
_START = time.monotonic()  # all connections' times count from here, so that they can be compared


def tapped(protocol: asyncio.Protocol) -> asyncio.Protocol:
    """`protocol`, or if the wire log is on, one that stands in front of it and logs every byte in and out."""
    return _Tap(protocol) if wire.isEnabledFor(logging.DEBUG) else protocol


class _Tap(asyncio.Protocol):
    """Passes everything on between asyncio's transport and a protocol. Under TLS it sees what is inside."""

    _count = 0

    def __init__(self, protocol: asyncio.Protocol) -> None:
        self._protocol = protocol
        _Tap._count += 1
        self._name = f"#{_Tap._count}"

    def log(self, arrow: str, what: str, data: bytes = b"") -> None:
        """One line for what happened, and below it the bytes, a line for each of theirs."""
        lines = "".join("\n    " + line for line in readable(data))
        tell(wire, logging.DEBUG, f"{time.monotonic() - _START:9.6f} {self._name} {arrow} {what}{lines}")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        peer = transport.get_extra_info("peername")
        self.log("---", f"connected from {peer[0]}:{peer[1]}" if isinstance(peer, tuple) else "connected")
        # It is a transport in all that a protocol calls on it; the rest is passed through.
        self._protocol.connection_made(cast(asyncio.Transport, _TappedTransport.on(transport, self)))

    def data_received(self, data: bytes) -> None:
        self.log("-->", f"received {len(data)} B", data)
        self._protocol.data_received(data)

    def eof_received(self) -> bool | None:
        self.log("-->", "the client ended its side")
        return self._protocol.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self.log("---", f"lost: {exc}" if exc else "closed")
        self._protocol.connection_lost(exc)

    def pause_writing(self) -> None:
        self.log("---", "the client is slow: paused")
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        self.log("---", "the client caught up: resumed")
        self._protocol.resume_writing()


class _TappedTransport(asyncio.Transport):
    """A transport that logs what is written to it, and passes every call on."""

    _inner: Any
    _tap: _Tap

    @classmethod
    def on(cls, transport: asyncio.BaseTransport, tap: _Tap) -> _TappedTransport:
        """Stand in front of `transport`."""
        self = cls()
        self._inner, self._tap = transport, tap
        return self

    def write(self, data: Any) -> None:
        self._tap.log("<--", f"sent {len(data)} B", bytes(data))
        self._inner.write(data)

    def write_eof(self) -> None:
        self._tap.log("<--", "ended our side")
        self._inner.write_eof()

    def abort(self) -> None:
        self._tap.log("<--", "cut")
        self._inner.abort()

    def close(self) -> None:
        self._inner.close()

    def is_closing(self) -> bool:
        return bool(self._inner.is_closing())

    def can_write_eof(self) -> bool:
        return bool(self._inner.can_write_eof())

    def pause_reading(self) -> None:
        self._inner.pause_reading()

    def resume_reading(self) -> None:
        self._inner.resume_reading()

    def get_write_buffer_size(self) -> int:
        return int(self._inner.get_write_buffer_size())

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._inner.set_write_buffer_limits(high, low)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._inner.get_extra_info(name, default)


def readable(data: bytes) -> list[str]:
    """`data` for a person, line by line: UTF-8 as text; line ends, other control characters and odd bytes escaped."""
    text = data.decode("utf-8", "backslashreplace")
    return [_escaped(line) for line in _LINE.findall(text)]


def _escaped(line: str) -> str:
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        for character in line
    )
