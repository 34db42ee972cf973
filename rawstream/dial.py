"""One connection of the client: made, read from and closed. It never parses."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import socket
import ssl
import time
from collections import deque
from typing import Any

from .config import Limits, Timeouts
from .deadlines import Deadlines
from .errors import ConnectFailed, Disconnected
from .inbox import Inbox
from .outgoing import Target
from .transport import Transport

_LIMITS = Limits(held=256 * 1024)  # a read from the socket may bring so much: less, and each would pause the reading
_TIMEOUTS = Timeouts()  # of which only `write_stall` counts here
_FOREVER = 1e9  # seconds
_FAREWELL = 1.0  # seconds for what we still have to send
# Seconds for TLS: our word of the end leaves at once, and nobody need wait for the answer (RFC 8446 section 6.1).
_TLS_FAREWELL = 0.01


@functools.cache
def _trusting_the_systems_authorities() -> ssl.SSLContext:
    """Certificates and names are checked. Made once: reading the authorities takes 20 ms."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


class _Reads(Inbox):
    """Gives out what has come as it was read from the socket, one read at a time, and says when that was."""

    __slots__ = ("_reads", "_size", "when")

    def add(self, data: bytes) -> None:
        self._reads.append((time.monotonic(), data))
        self._size += len(data)

    def take(self, lines: float = 0) -> bytes:
        self.when, data = self._reads.popleft() if self._reads else (time.monotonic(), b"")
        self._size -= len(data)
        return data

    def clear(self) -> None:
        self._reads: deque[tuple[float, bytes]] = deque()
        self._size = 0
        self.when = 0.0
        """When what was taken last had been read, by `time.monotonic()`."""


class _Ear(Transport):
    """A transport that knows when what came, and whether the peer ended its side properly."""

    __slots__ = ("finished", "reads")

    def __init__(self, deadlines: Deadlines, line: Line) -> None:
        super().__init__(_LIMITS, _TIMEOUTS, deadlines, line.connected, line.lost)
        self._inbox = self.reads = _Reads()
        self.finished = False

    def eof_received(self) -> bool:
        stays = super().eof_received()
        reset = self._transport.is_closing()
        self.finished = not (reset or _is_ragged(self._transport.get_extra_info("ssl_object")))
        return stays


def _is_ragged(tls: ssl.SSLObject | None) -> bool:
    """Whether the connection ended without TLS having said so: anybody on the way could have cut it."""
    try:
        return tls is not None and bool(tls.read(1))  # b"" is a proper end
    except ssl.SSLZeroReturnError:
        return False
    except ssl.SSLError:
        return True


class Line:
    """A connection to a server. Whoever opens it closes it, whatever happens."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self._deadlines = Deadlines(loop)
        self._transport = _Ear(self._deadlines, self)
        self._lost: asyncio.Future[None] = loop.create_future()
        self._is_open = False
        self.peer: tuple[str, int] | None = None
        """The server's address and port; None on a Unix socket."""

    def connected(self, transport: Transport) -> None:
        """Called by the transport when it is there."""
        self._is_open = True
        self.peer = transport.client

    def lost(self, transport: Transport) -> None:
        """Called by the transport when it is gone for good."""
        self._is_open = False
        if not self._lost.done():
            self._lost.set_result(None)

    async def open(
        self, target: Target, uds: str | None, context: ssl.SSLContext | None, seconds: float | None
    ) -> None:
        """Connect, and shake hands where it is https. Raises ConnectFailed."""
        loop = asyncio.get_running_loop()
        options: dict[str, Any] = {}
        if target.tls:
            options["ssl"] = context or _trusting_the_systems_authorities()
            options["server_hostname"] = target.host.partition("%")[0]
            options["ssl_shutdown_timeout"] = _TLS_FAREWELL
            options["ssl_handshake_timeout"] = seconds or _FOREVER
        where = uds or f"{target.host} port {target.port}"
        try:
            async with asyncio.timeout(seconds):
                if uds is not None:
                    await loop.create_unix_connection(lambda: self._transport, uds, **options)
                else:
                    # Its addresses one after the other: asyncio's `happy_eyeballs_delay` leaks sockets when cancelled.
                    await loop.create_connection(lambda: self._transport, target.host, target.port, **options)
        except BaseException as exc:
            self._is_open = False  # the loop closes what it had begun; uvloop does not tell of it
            if isinstance(exc, OSError | UnicodeError):  # the latter: a name that DNS cannot have
                raise self._explained(exc, where, seconds) from exc
            raise

    @staticmethod
    def _explained(exc: OSError | UnicodeError, where: str, seconds: float | None) -> ConnectFailed:
        match exc:
            case TimeoutError() if exc.errno is None:  # else it is the kernel's
                return ConnectFailed(f"no connection to {where} within {seconds} s (ClientTimeouts.connect)")
            case ssl.SSLError(reason="WRONG_VERSION_NUMBER"):
                return ConnectFailed(f"no TLS with {where}: what answers there speaks none (http://, perhaps)")
            case ssl.SSLError():
                return ConnectFailed(f"no TLS with {where}: {getattr(exc, 'verify_message', '') or exc.reason or exc}")
            case OSError(errno=int(number)) if not isinstance(exc, socket.gaierror):
                return ConnectFailed(f"no connection to {where}: {os.strerror(number)}")  # asyncio says it in its way
            case _:
                return ConnectFailed(f"no connection to {where}: {getattr(exc, 'strerror', '') or exc}")

    def write(self, data: bytes) -> None:
        """Send `data`, as far as the server takes it now; the rest follows by itself."""
        self._transport.write(data)

    async def read(self, seconds: float | None) -> tuple[float, bytes]:
        """When something was read from the socket, and what; b"" at the proper end.

        Raises ReadTimeout after `seconds` of nothing, and Disconnected. Cancelling loses nothing.
        """
        transport = self._transport
        data = b""
        with contextlib.suppress(Disconnected):  # under TLS nothing stays of a connection that was properly ended
            data = await transport.read(seconds or _FOREVER)
        if not data and not transport.finished:
            raise Disconnected("the connection was lost")
        return transport.reads.when, data

    def abort(self) -> None:
        """Reset the connection at once."""
        if self._is_open:
            self._transport.abort()
        self._deadlines.close()

    async def close(self, properly: bool) -> None:
        """Close, and wait until nothing is left; not `properly`: at once, by a reset."""
        try:
            if self._is_open and properly:
                self._transport.close()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_FAREWELL):
                        await asyncio.shield(self._lost)
        finally:
            self.abort()
        if self._is_open:
            await asyncio.shield(self._lost)
