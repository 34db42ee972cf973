"""The sockets that a server listens on: from their first connection to the last, and the file of a Unix socket."""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
from collections.abc import Callable, Sequence
from typing import Any

from . import sockets

log = logging.getLogger("rawstream")

_AT_ONCE = 32  # connections that are accepted in a turn: asyncio's "backlog", which is not only the kernel's
_OUT_OF_FILES = 1.0  # seconds until the next try then; asyncio's own figure (ACCEPT_RETRY_DELAY)
# Since Python 3.13 asyncio removes a Unix socket's file when it stops listening, also one that is only inherited.
_KEEP_FILE: dict[str, Any] = {"cleanup_socket": False} if sys.version_info >= (3, 13) else {}


class Listening:
    """Listens on `listening`, which become its own.

    accept: makes a protocol for each connection.
    take: takes each connection's socket and its peer's address instead, where more is to be done first.
    unix: the path of a socket file that is to be removed in the end, if it is still the one that is there now.
    """

    def __init__(
        self,
        listening: Sequence[socket.socket],
        accept: Callable[[], asyncio.Protocol],
        take: Callable[[socket.socket, Any], None] | None = None,
        unix: str | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._sockets = listening
        self._accept = accept
        self._take = take
        self._servers: list[asyncio.Server] = []
        self._accepting: set[socket.socket] = set()  # those from which we accept ourselves
        self._file = None if unix is None else sockets.SocketFile(unix)

    @property
    def addresses(self) -> list[tuple[str, int] | str]:
        """Where: `(host, port)` pairs, and paths of Unix sockets."""
        names = [sock.getsockname() for sock in self._sockets if sock.fileno() != -1]
        return [name if isinstance(name, str) else (name[0], name[1]) for name in names]

    async def start(self, write_stall: float) -> None:
        """Accept from now on. Raises what asyncio raises, and then lets go of everything."""
        try:
            for sock in self._sockets:
                sockets.tune(sock, write_stall)
                if self._take is None:
                    await self._serve(sock)
                    sock.listen(sockets.BACKLOG)
                else:
                    sock.listen(sockets.BACKLOG)
                    sock.setblocking(False)
                    self._loop.add_reader(sock, self._take_some, sock, self._take)
                    self._accepting.add(sock)
        except BaseException:
            self._stop_reading()
            for server in self._servers:
                server.close()
            for sock in self._sockets:
                sock.close()
            self.remove_file()
            raise

    async def _serve(self, sock: socket.socket) -> None:
        if sock.family == getattr(socket, "AF_UNIX", None):
            server = await self._loop.create_unix_server(self._accept, sock=sock, backlog=_AT_ONCE, **_KEEP_FILE)
        else:
            server = await self._loop.create_server(self._accept, sock=sock, backlog=_AT_ONCE)
        self._servers.append(server)

    def _take_some(self, sock: socket.socket, take: Callable[[socket.socket, Any], None]) -> None:
        for _ in range(_AT_ONCE):
            try:
                connection, address = sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as exc:  # out of files or memory: it would be readable again at once
                log.error("no connection can be accepted for now: %s", exc)
                self._loop.remove_reader(sock)
                self._loop.call_later(_OUT_OF_FILES, self._read_again, sock, take)
                return
            take(connection, address)

    def _read_again(self, sock: socket.socket, take: Callable[[socket.socket, Any], None]) -> None:
        if sock in self._accepting:
            self._loop.add_reader(sock, self._take_some, sock, take)

    def _stop_reading(self) -> None:
        while self._accepting:
            sock = self._accepting.pop()
            self._loop.remove_reader(sock)
            sock.close()

    def stop(self) -> None:
        """Accept no more."""
        self._stop_reading()
        for server in self._servers:
            if isinstance(self._loop, asyncio.SelectorEventLoop):
                # It hands a connection that it has accepted over in its next turn, and drops it if the server is
                # closed by then.
                for sock in server.sockets:
                    self._loop.remove_reader(sock)
                self._loop.call_soon(server.close)
            else:
                server.close()

    def remove_file(self) -> None:
        """Remove the socket file, if it is ours."""
        if self._file is not None:
            self._file.remove()
