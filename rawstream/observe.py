"""What a person can see of a running server: the access log, and every byte that passes.

Both are loggers, and are switched on as loggers are: `rawstream.access` at INFO gives a line for each request,
`rawstream.wire` at DEBUG prints what is received and sent. While they are off they cost one look at their level.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from typing import Any, cast

from .messages import Request

access = logging.getLogger("rawstream.access")
wire = logging.getLogger("rawstream.wire")
_LINE = re.compile(r"[^\n]*\n|[^\n]+")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def served(request: Request, status: int, sent: int, seconds: float, outcome: str) -> None:
    """Log a request in the common log format, and after it how long it took and how it ended.

    sent: bytes, head and framing included. outcome: "complete", or why it was not.
    """
    if not access.isEnabledFor(logging.INFO):
        return
    host = request.client[0] if request.client else "unix"
    now = time.localtime()
    # The month is written by hand: %b would follow the locale, which this format does not.
    stamp = f"{now.tm_mday:02}/{_MONTHS[now.tm_mon - 1]}/{now.tm_year}:" + time.strftime("%H:%M:%S %z", now)
    line = f"{request.method} {_printable(request.head.target)} HTTP/{request.http_version}"
    access.info('%s - - [%s] "%s" %s %d %.3fs %s', host, stamp, line, status or "-", sent, seconds, outcome)


def _printable(target: str) -> str:
    """A target cannot hold control characters or spaces, but it can hold a quote."""
    return target.replace("\\", "\\\\").replace('"', '\\"')


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
        self._began = time.monotonic()

    def log(self, arrow: str, what: str, data: bytes = b"") -> None:
        """One line for what happened, and below it the bytes, a line for each of theirs."""
        lines = "".join("\n    " + line for line in readable(data))
        wire.debug("%9.6f %s %s %s%s", time.monotonic() - self._began, self._name, arrow, what, lines)

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
