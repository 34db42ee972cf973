"""Listening sockets, the connections they bring, and an orderly end.

A server owns its sockets, its connections' tasks and, if it is told to, the signals; nothing of a single request.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Coroutine, Generator, Sequence
from dataclasses import replace
from functools import partial
from ssl import SSLContext
from types import TracebackType
from typing import Any

from . import observe, sockets, tap
from .access import Access, is_loopback
from .admission import Admission
from .config import Limits, Timeouts
from .connection import Connection
from .deadlines import Deadlines
from .errors import LocalError
from .handshake import Handshakes
from .listening import Listening
from .messages import Handler
from .service import Service
from .transport import Transport

log = logging.getLogger("rawstream")

_STUBBORN = 0.7  # seconds for which generators may clean up after they were cancelled
_LAST_WORDS = 0.2  # seconds for the last of them to notice that their connections are gone
_HANDED_OVER = 3  # turns of the loop in which a connection that was accepted comes to us


class Server:
    """A running server. Made by `serve`.

    `closing` is set when it begins to close; every request has it too.
    """

    def __init__(self, handler: Handler, limits: Limits, timeouts: Timeouts, access: Access) -> None:
        self._loop = asyncio.get_running_loop()
        self._service = Service(handler, limits, timeouts, Deadlines(self._loop), access)
        self._admission = Admission(limits)
        self._connections: dict[Transport, Connection] = {}
        self._tasks: set[asyncio.Task[bool]] = set()  # a connection's task may outlive it by a generator's clean-up
        self._listening: Listening | None = None
        self._signals: tuple[signal.Signals, ...] = ()
        self._all_gone: asyncio.Event = asyncio.Event()
        self._all_gone.set()
        self._over = asyncio.Event()  # the time of grace, by a second `close`
        self._draining: asyncio.Task[None] | None = None
        self._closed: asyncio.Future[None] = self._loop.create_future()
        self.closing = self._service.closing
        self._handshakes: Handshakes | None = None  # under TLS
        self._coming: dict[Transport, observe.Reason | None] = {}  # they shake hands, and why in vain
        self.left_behind = 0
        """Once it is closed: handlers that did not end although they were cancelled."""

    @property
    def addresses(self) -> list[tuple[str, int] | str]:
        """Where it listens: `(host, port)` pairs, and paths of Unix sockets."""
        return self._listening.addresses if self._listening is not None else []

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._connections)

    @property
    def busy(self) -> int:
        """How many of them have a request under way."""
        return sum(not connection.idle for connection in self._connections.values())

    def close(self) -> asyncio.Future[None]:
        """Begin to close: stop accepting, close idle connections, tell streams, wait for `Timeouts.grace`, cut.

        Returns at once; awaiting what it returns, or `wait_closed`, waits for the end. Calling it again cuts at once,
        and so does cancelling what it returns.
        """
        self.begin_closing()
        assert self._draining is not None
        end = asyncio.shield(self._draining)
        end.add_done_callback(lambda end: self.begin_closing() if end.cancelled() else None)
        return end

    def begin_closing(self) -> None:
        """`close`, with nothing to wait for."""
        if self._draining is None:
            self.closing.set()
            if self._listening is not None:
                self._listening.stop()
            # Now and not in the task: a stream that `closing` wakes shall have been told before it ends.
            for connection in list(self._connections.values()):
                connection.begin_closing()
            self._draining = self._loop.create_task(self._drain(), name="rawstream: close")
        else:
            self._over.set()
            if self._handshakes is not None:
                self._handshakes.cut()

    async def wait_closed(self) -> None:
        """Wait until the server is closed. Cancelling this stops the waiting only."""
        await asyncio.shield(self._closed)

    # -- from here on for `serve` ------------------------------------------------------------------------------------

    async def listen(self, listening: list[socket.socket], unix: str | None, ssl: SSLContext | None) -> None:
        """Accept connections from these sockets, which become the server's; `unix` is the file of one."""
        take = None
        if ssl is not None:
            self._handshakes = Handshakes(ssl, self._service.timeouts)
            take = partial(self._shake_hands, self._handshakes)
        self._listening = Listening(listening, lambda: tap.tapped(self._transport()), take, unix)
        await self._listening.start(self._service.timeouts.write_stall)

    def own_signals(self) -> None:
        """Let SIGINT and SIGTERM close the server, until it is closed."""
        self._signals = (signal.SIGINT, signal.SIGTERM)
        for number in self._signals:
            self._loop.add_signal_handler(number, self.begin_closing)

    def _transport(self) -> Transport:
        service = self._service
        return Transport(service.limits, service.timeouts, service.deadlines, self._connected, self._disconnected)

    def _shake_hands(self, handshakes: Handshakes, sock: socket.socket, address: Any) -> None:
        """A connection has come, and counts. Who has too many is cut: they can be told nothing, and might never go."""
        transport = self._transport()
        reason = self._enter(transport, (address[0], address[1]) if isinstance(address, tuple) else None)
        if reason is not None and (reason == "connections_per_client" or self._admission.overrun):
            observe.refused(reason)
            self._leave(transport)
            sock.close()
        else:
            self._coming[transport] = reason
            handshakes.begin(sock, tap.tapped(transport), partial(self._shaken, transport))

    def _shaken(self, transport: Transport) -> None:
        if transport in self._coming:  # in vain
            del self._coming[transport]
            self._leave(transport)

    def _connected(self, transport: Transport) -> None:
        reason = self._coming.pop(transport) if transport in self._coming else self._enter(transport, transport.client)
        connection = self._connections[transport] = Connection(transport, self._service)
        self._all_gone.clear()
        task = self._begin(connection, connection.run() if reason is None else connection.turn_away(reason))
        if reason is not None and self._admission.overrun:
            observe.refused(reason)
            task.cancel()
            transport.abort()
        elif self.closing.is_set():
            connection.begin_closing()

    def _begin(self, connection: Connection, life: Coroutine[Any, Any, bool]) -> asyncio.Task[bool]:
        task = connection.task = self._loop.create_task(life, name="connection")
        self._tasks.add(task)
        task.add_done_callback(partial(self._ended, connection))
        return task

    def _disconnected(self, transport: Transport) -> None:
        self._leave(transport)
        del self._connections[transport]
        self._look_whether_all_are_gone()

    def _enter(self, transport: Transport, client: tuple[str, int] | None) -> observe.Reason | None:
        observe.connected()
        # By a trusted proxy come many clients: `connections_per_client` is not for it.
        return self._admission.enter(transport, None if self._service.access.trusts(client) else client)

    def _leave(self, transport: Transport) -> None:
        observe.disconnected()
        self._admission.leave(transport)

    def _ended(self, connection: Connection, task: asyncio.Task[bool]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a connection failed in rawstream itself", exc_info=error)
        elif not task.cancelled() and task.result():
            _ = self._begin(connection, connection.run())  # in the context of this callback: it was accepted in it
        self._look_whether_all_are_gone()

    def _look_whether_all_are_gone(self) -> None:
        if not self._connections and not self._tasks:
            self._all_gone.set()

    async def _drain(self) -> None:
        try:
            await self._let_end()
        finally:
            self._closed.set_result(None)  # first: whatever else fails, nobody shall wait for ever
            self._service.deadlines.close()
            for number in self._signals:
                self._loop.remove_signal_handler(number)
            self.left_behind = len(self._tasks)
            if self._listening is not None:
                self._listening.remove_file()
        if self._tasks:
            log.error("handlers that do not end although they were cancelled: %d; left behind", self.left_behind)

    async def _let_end(self) -> None:
        until = self._loop.time() + (grace := self._service.timeouts.grace)
        for _ in range(_HANDED_OVER):
            await asyncio.sleep(0)
        if self._handshakes is not None:
            await self._handshakes.end(grace)
        if not await self._until_all_gone(until - self._loop.time(), self._over):
            self._cut()
            if not await self._until_all_gone(_STUBBORN):
                for transport in list(self._connections):
                    transport.abort()  # a generator that goes on in spite of all learns that nobody is there
                await self._until_all_gone(_LAST_WORDS)

    async def _until_all_gone(self, seconds: float, *or_else: asyncio.Event) -> bool:
        waits = {self._loop.create_task(event.wait()) for event in (self._all_gone, *or_else)}
        try:
            await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        return self._all_gone.is_set()

    def _cut(self) -> None:
        if self._handshakes is not None:
            self._handshakes.cut()
        for task in self._tasks:
            task.cancel()  # its generator may now clean up, and then it aborts its connection
        for transport, connection in list(self._connections.items()):
            if connection.task is not None and connection.task.done():
                transport.abort()  # its last bytes are still on their way, but there is no more time


class serve:  # it reads as a function: `await serve(...)`, `async with serve(...)`
    """Serve `handler`: `async with serve(handler, port=8000) as server:`, or `server = await serve(handler)`.

    host, port: where to listen; port 0 takes a free one; several hosts may be given as a list.
    unix: the path of a Unix socket, instead. fd: the number of an inherited listening socket, instead.
    ssl: a server-side SSLContext, for HTTPS.
    limits, timeouts: see `Limits` and `Timeouts`.
    signals: let SIGINT and SIGTERM close the server; a second one cuts what is still open.
    sockets: listening sockets that somebody else made, instead of all these; they become the server's.
    allowed_hosts: the names in `Host` that are answered, without ports; "*.example.org" has its subdomains; others
        get 421. None: where all addresses are loopback, only names that DNS cannot give to a stranger; else any.
    allowed_origins: origins ("https://app.example") whose pages may read the answers and send unsafe requests; pages
        of others, but for the server's own, get 403 for methods other than GET, HEAD and OPTIONS.
    trusted_proxies: addresses and networks, or "unix", whose X-Forwarded-For and -Proto are believed.

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
        sockets: Sequence[socket.socket] | None = None,
        allowed_hosts: Sequence[str] | None = None,
        allowed_origins: Sequence[str] = (),
        trusted_proxies: Sequence[str] = (),
    ) -> None:
        if not callable(handler):
            raise LocalError(f"a handler is a function or a Router, not {type(handler).__name__}")
        if unix is not None and fd is not None:
            raise LocalError("serve() takes unix= or fd=, not both")
        if not isinstance(ssl, SSLContext | None):
            raise LocalError(f"ssl= is an SSLContext, not {type(ssl).__name__}")
        self._handler, self._host, self._port, self._fd = handler, host, port, fd
        self._unix = None if unix is None else os.fspath(unix)
        self._ssl, self._signals, self._sockets = ssl, signals, sockets
        self._limits, self._timeouts = limits or Limits(), timeouts or Timeouts()
        self._any_host, self._access = allowed_hosts is None, Access.of(allowed_hosts, allowed_origins, trusted_proxies)

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
        listening = await self._open()
        access = self._access
        if self._any_host and all(is_loopback(sock.getsockname()) for sock in listening):
            access = replace(access, hosts="loopback")
        server = Server(self._handler, self._limits, self._timeouts, access)
        await server.listen(listening, self._unix, self._ssl)
        try:
            if self._signals:
                server.own_signals()
        except BaseException:  # signals belong to the main thread
            await server.close()
            raise
        return server

    async def _open(self) -> list[socket.socket]:
        if self._sockets is not None:
            return list(self._sockets)
        if self._fd is not None:
            return [sockets.inherited(self._fd)]
        if self._unix is not None:
            return [sockets.bound_unix(self._unix)]
        hosts = [self._host] if self._host is None or isinstance(self._host, str) else list(self._host)
        return await sockets.bound(hosts, self._port)
