"""The sockets that a server listens on: from their first connection to the last, and the file of a Unix socket."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Callable, Sequence
from ssl import SSLContext
from typing import Any

from . import sockets
from .config import Timeouts

_AT_ONCE = 32  # connections that asyncio accepts in a turn: its "backlog", which is not only the kernel's
# Since Python 3.13 asyncio removes a Unix socket's file when it stops listening, also one that is only inherited.
_KEEP_FILE: dict[str, Any] = {"cleanup_socket": False} if sys.version_info >= (3, 13) else {}


class Listening:
    """Listens on `listening`, which become its own, and makes a protocol with `accept` for each connection.

    unix: the path of a socket file that is to be removed in the end, if it is still the one that is there now.
    """

    def __init__(
        self, listening: Sequence[socket.socket], accept: Callable[[], asyncio.Protocol], unix: str | None = None
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._sockets = listening
        self._accept = accept
        self._servers: list[asyncio.Server] = []
        self._file = None if unix is None else sockets.SocketFile(unix)

    @property
    def addresses(self) -> list[tuple[str, int] | str]:
        """Where: `(host, port)` pairs, and paths of Unix sockets."""
        names = [sock.getsockname() for sock in self._sockets if sock.fileno() != -1]
        return [name if isinstance(name, str) else (name[0], name[1]) for name in names]

    async def start(self, ssl: SSLContext | None, timeouts: Timeouts) -> None:
        """Accept from now on. Raises what asyncio raises, and then lets go of everything."""
        deadlines: dict[str, Any] = {}
        if ssl is not None:
            shutdown = max(timeouts.linger, 0.1)
            deadlines = {"ssl_handshake_timeout": timeouts.head, "ssl_shutdown_timeout": shutdown}
        try:
            for sock in self._sockets:
                sockets.tune(sock, timeouts.write_stall)
                options: dict[str, Any] = {"sock": sock, "ssl": ssl, "backlog": _AT_ONCE, **deadlines}
                if sock.family == getattr(socket, "AF_UNIX", None):
                    server = await self._loop.create_unix_server(self._accept, **options, **_KEEP_FILE)
                else:
                    server = await self._loop.create_server(self._accept, **options)
                self._servers.append(server)
                sock.listen(sockets.BACKLOG)
        except BaseException:
            for server in self._servers:
                server.close()
            for sock in self._sockets:
                sock.close()
            self.remove_file()
            raise

    def stop(self) -> None:
        """Accept no more."""
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
