"""Listening sockets, the connections they bring, and an orderly end.

A server owns its sockets, its connections' tasks and, if it is told to, the signals; nothing of a single request.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Generator, Sequence
from ssl import SSLContext
from types import TracebackType
from typing import Any

from . import observe, sockets
from .config import Limits, Timeouts
from .connection import Connection
from .deadlines import Deadlines
from .errors import LocalError
from .messages import Handler
from .transport import Transport

log = logging.getLogger("rawstream")

_STUBBORN = 2.0  # seconds for which generators may clean up after they were cancelled
_BACKLOG = 4096  # connections that may wait for accept; the kernel caps it at net.core.somaxconn (4096 on Linux)

# Since Python 3.13 asyncio removes a Unix socket's file when it stops listening, also one that is only inherited.
_KEEP_FILE: dict[str, Any] = {"cleanup_socket": False} if sys.version_info >= (3, 13) else {}


class Server:
    """A running server. Made by `serve`.

    `closing` is set when it begins to close; every request has it too.
    """

    def __init__(self, handler: Handler, limits: Limits, timeouts: Timeouts) -> None:
        self._handler = handler
        self._limits = limits
        self._timeouts = timeouts
        self._loop = asyncio.get_running_loop()
        self._deadlines = Deadlines(self._loop)
        self._connections: dict[Transport, tuple[Connection, asyncio.Task[None]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()  # a connection's task may outlive it by a generator's clean-up
        self._listeners: list[asyncio.Server] = []
        self._sockets: list[socket.socket] = []
        self._unix: tuple[str, tuple[int, int]] | None = None  # the socket file that is ours, to be removed
        self._signals: tuple[signal.Signals, ...] = ()
        self._all_gone: asyncio.Event = asyncio.Event()
        self._all_gone.set()
        self._draining: asyncio.Task[None] | None = None
        self._closed: asyncio.Future[None] = self._loop.create_future()
        self.closing = asyncio.Event()

    @property
    def addresses(self) -> list[tuple[str, int] | str]:
        """Where it listens: `(host, port)` pairs, and paths of Unix sockets."""
        names = [sock.getsockname() for sock in self._sockets if sock.fileno() != -1]
        return [name if isinstance(name, str) else (name[0], name[1]) for name in names]

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._connections)

    @property
    def busy(self) -> int:
        """How many of them have a request under way."""
        return sum(not connection.idle for connection, _ in self._connections.values())

    def close(self) -> asyncio.Task[None]:
        """Begin to close: stop accepting, close idle connections, tell streams, wait for `Timeouts.grace`, cut.

        Returns at once; awaiting what it returns, or `wait_closed`, waits for the end. Calling it again cuts at once.
        """
        self.begin_closing()
        assert self._draining is not None
        return self._draining

    def begin_closing(self) -> None:
        """`close`, with nothing to wait for."""
        if self._draining is None:
            self.closing.set()
            for listener in self._listeners:
                listener.close()
            # Now and not in the task: a stream that `closing` wakes shall have been told before it ends.
            for connection, _ in list(self._connections.values()):
                connection.begin_closing()
            self._draining = self._loop.create_task(self._drain(), name="rawstream: close")
        else:
            self._cut()

    async def wait_closed(self) -> None:
        """Wait until the server is closed. Cancelling this stops the waiting only."""
        await asyncio.shield(self._closed)

    # -- from here on for `serve` ------------------------------------------------------------------------------------

    async def listen(self, listening: list[socket.socket], ssl: SSLContext | None) -> None:
        """Accept connections from these sockets, which become the server's."""
        self._sockets = listening
        deadlines: dict[str, Any] = {}
        if ssl is not None:
            shutdown = max(self._timeouts.linger, 0.1)
            deadlines = {"ssl_handshake_timeout": self._timeouts.head, "ssl_shutdown_timeout": shutdown}
        for sock in listening:
            sockets.tune(sock, self._timeouts.write_stall)
            if sock.family == getattr(socket, "AF_UNIX", None):
                listener: asyncio.Server = await self._loop.create_unix_server(
                    self._accept, sock=sock, ssl=ssl, backlog=_BACKLOG, **deadlines, **_KEEP_FILE
                )
            else:
                listener = await self._loop.create_server(
                    self._accept, sock=sock, ssl=ssl, backlog=_BACKLOG, **deadlines
                )
            self._listeners.append(listener)

    def abandon(self) -> None:
        """Let go of what was taken: it cannot be listened on."""
        for listener in self._listeners:
            listener.close()
        for sock in self._sockets:
            sock.close()
        self._remove_unix()

    def own_unix(self, path: str) -> None:
        """Remove the socket file at `path` in the end, if it is still the one that is there now."""
        status = os.stat(path)
        self._unix = path, (status.st_dev, status.st_ino)

    def own_signals(self) -> None:
        """Let SIGINT and SIGTERM close the server, until it is closed."""
        self._signals = (signal.SIGINT, signal.SIGTERM)
        for number in self._signals:
            self._loop.add_signal_handler(number, self.begin_closing)

    def _accept(self) -> asyncio.Protocol:
        return observe.tapped(
            Transport(self._limits, self._timeouts, self._deadlines, self._connected, self._disconnected)
        )

    def _connected(self, transport: Transport) -> None:
        connection = Connection(
            transport, self._handler, self._limits, self._timeouts, self._deadlines, self.closing
        )  # fmt: skip
        task = self._loop.create_task(connection.run())
        self._connections[transport] = connection, task
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        self._all_gone.clear()
        if self.closing.is_set():
            connection.begin_closing()

    def _disconnected(self, transport: Transport) -> None:
        del self._connections[transport]
        self._look_whether_all_are_gone()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._look_whether_all_are_gone()
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a connection failed in rawstream itself", exc_info=error)

    def _look_whether_all_are_gone(self) -> None:
        if not self._connections and not self._tasks:
            self._all_gone.set()

    async def _drain(self) -> None:
        if not await self._until_all_gone(self._timeouts.grace):
            self._cut()
            if not await self._until_all_gone(_STUBBORN):
                log.error("%d handlers do not end although they were cancelled; they are left behind", len(self._tasks))
        self._deadlines.close()
        self._remove_unix()
        for number in self._signals:
            self._loop.remove_signal_handler(number)
        self._closed.set_result(None)

    async def _until_all_gone(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._all_gone.wait()
        except TimeoutError:
            return False
        return True

    def _cut(self) -> None:
        for task in self._tasks:
            task.cancel()  # its generator may now clean up, and then it aborts its connection
        for transport, (_, task) in list(self._connections.items()):
            if task.done():
                transport.abort()  # its last bytes are still on their way, but there is no more time

    def _remove_unix(self) -> None:
        if self._unix is not None:
            path, identity = self._unix
            with contextlib.suppress(FileNotFoundError):
                status = os.stat(path)
                if (status.st_dev, status.st_ino) == identity:
                    os.unlink(path)


class serve:  # it reads as a function: `await serve(...)`, `async with serve(...)`
    """Serve `handler`: `async with serve(handler, port=8000) as server:`, or `server = await serve(handler)`.

    host, port: where to listen; port 0 takes a free one; several hosts may be given as a list.
    unix: the path of a Unix socket, instead. fd: the number of an inherited listening socket, instead.
    ssl: a server-side SSLContext, for HTTPS.
    limits, timeouts: see `Limits` and `Timeouts`.
    signals: let SIGINT and SIGTERM close the server; a second one cuts what is still open.

    Leaving the `async with` block, also by an exception or by cancelling, closes the server and waits for it.
    Raises OSError if the address cannot be had, LocalError for arguments that do not go together.
    """

    def __init__(
        self,
        handler: Handler,
        host: str | Sequence[str] | None = "127.0.0.1",
        port: int = 8000,
        *,
        unix: str | os.PathLike[str] | None = None,
        fd: int | None = None,
        ssl: SSLContext | None = None,
        limits: Limits | None = None,
        timeouts: Timeouts | None = None,
        signals: bool = False,
    ) -> None:
        if not callable(handler):
            raise LocalError(f"a handler is a function or a Router, not {type(handler).__name__}")
        if unix is not None and fd is not None:
            raise LocalError("serve() takes unix= or fd=, not both")
        self._handler = handler
        self._host = host
        self._port = port
        self._unix = None if unix is None else os.fspath(unix)
        self._fd = fd
        self._ssl = ssl
        self._limits = limits or Limits()
        self._timeouts = timeouts or Timeouts()
        self._signals = signals

    def __await__(self) -> Generator[Any, None, Server]:
        return self._start().__await__()

    async def __aenter__(self) -> Server:
        self._server = await self._start()
        return self._server

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        server = self._server
        if not server.closing.is_set():
            server.begin_closing()
        try:
            await server.wait_closed()
        except asyncio.CancelledError:
            server.begin_closing()  # cancelled again while draining: no more patience
            await server.wait_closed()
            raise

    async def _start(self) -> Server:
        server = Server(self._handler, self._limits, self._timeouts)
        listening = await self._open()
        if self._unix is not None:
            server.own_unix(self._unix)
        try:
            await server.listen(listening, self._ssl)
            if self._signals:
                server.own_signals()
        except BaseException:
            server.abandon()
            raise
        return server

    async def _open(self) -> list[socket.socket]:
        if self._fd is not None:
            return [sockets.inherited(self._fd)]
        if self._unix is not None:
            return [sockets.bound_unix(self._unix)]
        hosts = [self._host] if self._host is None or isinstance(self._host, str) else list(self._host)
        return await sockets.bound(hosts, self._port)
