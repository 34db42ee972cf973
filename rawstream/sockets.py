"""Sockets to listen on: bound, inherited, and tuned for streams."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
import stat
import struct
from collections.abc import Sequence
from typing import Any

from .errors import LocalError

log = logging.getLogger("rawstream")

_NOTSENT_LOWAT = 16 * 1024  # bytes the kernel takes and has not sent yet; without it a stopped reader swallowed 3.9 MB
BACKLOG = 4096  # connections that may wait for accept; the kernel caps it at net.core.somaxconn (4096 on Linux)
_FOR_ALL = 0o666  # the mode of a socket file
_FIRST_ACTIVATED = 3  # SD_LISTEN_FDS_START, behind stdin, stdout and stderr


def inherited(fd: int) -> socket.socket:
    """The listening socket of descriptor `fd`, which from now on no program that is started here inherits.

    Raises OSError or LocalError, and then leaves the descriptor open.
    """
    try:
        sock = socket.socket(fileno=fd)
        if sock.type == socket.SOCK_STREAM and sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            sock.set_inheritable(False)
            return sock
        sock.detach()
    except OSError as exc:
        raise OSError(exc.errno, f"file descriptor {fd} is not an open socket") from exc
    raise LocalError(f"file descriptor {fd} is not a listening stream socket")


def activated() -> list[int]:
    """The descriptors that systemd hands over (sd_listen_fds(3)). What tells of them is gone from the environment
    then, for they are not meant for what is started here.
    """
    process, count = os.environ.pop("LISTEN_PID", ""), os.environ.pop("LISTEN_FDS", "")
    os.environ.pop("LISTEN_FDNAMES", None)
    if process != str(os.getpid()) or not count.isascii() or not count.isdigit():
        return []
    return [*range(_FIRST_ACTIVATED, _FIRST_ACTIVATED + int(count))]


class SocketFile:
    """The file that a Unix socket was just bound to, to be removed in the end if it is still the same."""

    def __init__(self, path: str) -> None:
        self._path = os.path.abspath(path)
        status = os.stat(path)
        self._identity = status.st_dev, status.st_ino
        # Linux gives a file's number to the next one at once, unless the old one is held.
        self._held = os.open(path, os.O_PATH) if hasattr(os, "O_PATH") else -1

    def remove(self) -> None:
        """Remove it, unless another server has put its own in its place. May be called again."""
        try:
            status = os.stat(self._path)
            if self._identity == (status.st_dev, status.st_ino):
                os.unlink(self._path)
        except FileNotFoundError:
            pass
        except OSError as exc:  # privileges were given up, perhaps
            log.warning("the socket file %s cannot be removed: %s", self._path, exc.strerror)
        self._identity = -1, -1
        if self._held >= 0:
            os.close(self._held)
            self._held = -1


def bound_unix(path: str) -> socket.socket:
    """A socket bound to `path`, where the file of a server that is gone may be in the way. Raises OSError.

    Everybody may connect who may enter its directory: a proxy is another user. uvicorn has that too.
    """
    if _is_stale(path):
        os.unlink(path)
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.bind(path)
        os.chmod(path, _FOR_ALL)
    except OSError:
        sock.close()
        raise
    return sock


def _is_stale(path: str) -> bool:
    """There is a socket file, but nobody listens. Raises FileExistsError for a file of another kind."""
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            raise FileExistsError(errno.EEXIST, "there is a file that is no socket")
    except FileNotFoundError:
        return False
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return True
        except OSError:
            pass
    return False


async def bound(hosts: Sequence[str | None], port: int) -> list[socket.socket]:
    """A socket for each address of each host (None, "": all of this machine), on the same port; not listening yet.

    port: 0 takes one that is free. An address that this machine does not have is left out, unless there is no other.
    Raises OSError, and then leaves nothing open; so does cancelling it.
    """
    loop = asyncio.get_running_loop()
    sockets: list[socket.socket] = []
    absent: OSError | None = None
    try:
        for host in hosts:
            for family, kind, proto, _, address in await loop.getaddrinfo(
                host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            ):
                try:
                    sock = _bound_tcp(family, kind, proto, (address[0], port, *address[2:]))
                except OSError as exc:
                    if exc.errno != errno.EADDRNOTAVAIL:
                        raise
                    absent = exc  # a name may have addresses that this machine does not have (::1, often)
                else:
                    sockets.append(sock)
                    port = sock.getsockname()[1]
        if not sockets and absent is not None:
            raise absent
    except BaseException:
        for sock in sockets:
            sock.close()
        raise
    return sockets


def _bound_tcp(family: int, kind: int, proto: int, address: tuple[Any, ...]) -> socket.socket:
    sock = socket.socket(family, kind, proto)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
    except BaseException:
        sock.close()
        raise
    return sock


def listen(sockets: Sequence[socket.socket], write_stall: float) -> None:
    """Tune them (`write_stall` in seconds) and listen, or raise OSError and close them."""
    try:
        for sock in sockets:
            tune(sock, write_stall)
            sock.listen(BACKLOG)
    except OSError:
        for sock in sockets:
            sock.close()
        raise


def tune(sock: socket.socket, write_stall: float) -> None:
    """Options that accepted connections inherit, where the platform has them; `write_stall` in seconds."""
    if sock.family == getattr(socket, "AF_UNIX", None):
        return
    if hasattr(socket, "TCP_NOTSENT_LOWAT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _NOTSENT_LOWAT)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        # RFC 5482: the kernel gives up on bytes that stay unacknowledged for so long; in milliseconds.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(write_stall * 1000))


def was_reset(sock: socket.socket | None) -> bool:
    """Whether an "end" is a reset, for which uvloop before 0.23 takes one that comes with the last bytes."""
    try:
        return sock is not None and bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
    except (OSError, ValueError):
        return False  # it is closed already


def reset_when_closed(sock: socket.socket | None) -> None:
    """Let closing reset the connection, and drop what waits to be sent in the kernel."""
    if sock is not None and sock.family != getattr(socket, "AF_UNIX", None):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
