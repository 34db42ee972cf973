"""The TLS handshakes under way: each from its connection's first moment on, in its time, until it ends or is cut.

A server of asyncio's own tells of a connection when its handshake is done, and never of one that failed.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from ssl import SSLContext
from typing import Any

from .config import Timeouts

_LAST = 1.0  # seconds for those under way when the server closes
_NOTICED = 0.2  # seconds in which a handshake that was cut notices


class Handshakes:
    """Those of one server, whose certificate is in `context`. One that fails is nobody's error, and nothing is said."""

    def __init__(self, context: SSLContext, timeouts: Timeouts) -> None:
        self._loop = asyncio.get_running_loop()
        self._options: dict[str, Any] = {
            "ssl": context,
            "ssl_handshake_timeout": timeouts.head,
            "ssl_shutdown_timeout": max(timeouts.linger, 0.1),
        }
        self._under_way: dict[asyncio.Task[None], socket.socket] = {}

    def begin(self, sock: socket.socket, protocol: asyncio.Protocol, over: Callable[[], None]) -> None:
        """Shake hands on `sock`, for `protocol`, which is connected then; call `over` when it is, or never will be."""
        task = self._loop.create_task(self._shake(sock, protocol, over), name="rawstream: TLS handshake")
        self._under_way[task] = sock
        task.add_done_callback(self._under_way.pop)

    async def _shake(self, sock: socket.socket, protocol: asyncio.Protocol, over: Callable[[], None]) -> None:
        try:
            with contextlib.suppress(OSError):  # an SSLError is one too
                await self._loop.connect_accepted_socket(lambda: protocol, sock, **self._options)
        finally:
            over()

    async def end(self, grace: float) -> None:
        """No more will begin: give those under way a moment, of no more than `grace` seconds, and cut the others."""
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=min(_LAST, grace))
            self.cut()
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=_NOTICED)

    def cut(self) -> None:
        """Cut those under way."""
        for sock in self._under_way.values():
            with contextlib.suppress(OSError):
                # They fail by what they read. Cancelled before their first turn, asyncio's would go on all the same.
                sock.shutdown(socket.SHUT_RDWR)
