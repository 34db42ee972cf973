"""What is asked of a peer beside its streams: to publish an event, and to answer something short meanwhile."""

import re
import select
import socket
import struct
import time

from benchmarks.answer import WrongAnswer
from benchmarks.load import HOST, request

STAMP_BYTES = 18

_READ_BYTES = 65_536
_CONNECTIONS_PER_ADDRESS = 5_000  # of loopback sources: ports never run short, whatever else waits in TIME_WAIT
_IP_BIND_ADDRESS_NO_PORT = 24  # linux/in.h: the port is chosen by connect, which knows which are free for the target
_CONNECT_SECONDS = 30.0  # as long as a full backlog may take
_AT_ONCE = 200  # short requests that have not been answered yet: no peer's backlog runs over


def numbered(stamp: int, size: int = STAMP_BYTES) -> bytes:
    """The text of an event: its stamp in 18 digits, padded to `size` bytes."""
    return (b"%018d" % stamp).ljust(size, b".")


def connect(port: int, number: int = 0, receive: int | None = None) -> socket.socket:
    """A connection from the loopback address that suits the `number` of this client; `receive` is its buffer's size."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if receive is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # Closed by a reset: 15,000 connections in TIME_WAIT would be in the way of the next turn.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
        sock.bind((f"127.0.0.{1 + number // _CONNECTIONS_PER_ADDRESS}", 0))
        sock.settimeout(_CONNECT_SECONDS)
        sock.connect((HOST, port))
        sock.settimeout(None)
    except BaseException:
        sock.close()
        raise
    return sock


class Publisher:
    """One kept connection that publishes, one event at a time."""

    def __init__(self, port: int, size: int = STAMP_BYTES, path: str = "/publish") -> None:
        self.sock = connect(port)
        self._size = size
        fields = f"Host: {HOST}\r\nContent-Type: text/plain\r\nContent-Length: {size}\r\n"
        self._head = f"POST {path} HTTP/1.1\r\n{fields}\r\n".encode("ascii")
        self._answer = b""
        self.waiting = False
        """An answer is due."""

    def publish(self) -> int:
        """Ask for an event to be published; gives its stamp."""
        stamp = time.monotonic_ns()
        self.sock.send(self._head + numbered(stamp, self._size))
        self.waiting = True
        return stamp

    def feed(self, data: bytes) -> None:
        """Take a piece of the answer."""
        if not data:
            raise WrongAnswer("the publisher's connection was closed")
        self._answer += data
        head, end, rest = self._answer.partition(b"\r\n\r\n")
        if not end:
            return
        if not head.startswith(b"HTTP/1.1 2"):
            raise WrongAnswer(f"publishing was answered {self._answer[:80]!r}")
        length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
        chunked = re.search(rb"(?i)\r\ntransfer-encoding: *chunked", head)
        if rest.endswith(b"0\r\n\r\n") if chunked else len(rest) >= (int(length[1]) if length else 0):
            self._answer = b""
            self.waiting = False


class Probe:
    """Short requests from outside, each on a connection of its own: how long accept and answer take meanwhile."""

    def __init__(self, port: int, interval: float) -> None:
        self.times: list[int] = []
        self._port = port
        self._interval = int(interval * 1e9)
        self._next = 0
        self._epoll = select.epoll()
        self._asked: dict[int, tuple[socket.socket, int]] = {}

    def look(self, now: int) -> None:
        """Read the answers that are there, and ask again when it is time."""
        for fd, _ in self._epoll.poll(0):
            sock, asked = self._asked.pop(fd)
            self.times.append(time.monotonic_ns() - asked)
            with sock:
                if not sock.recv(_READ_BYTES).startswith(b"HTTP/1.1 200"):
                    raise WrongAnswer("a short request was not answered 200 while events were fanned out")
        if now >= self._next:
            self._next = now + self._interval
            if len(self._asked) < _AT_ONCE:
                asked = time.monotonic_ns()
                sock = connect(self._port)
                sock.send(request("/short"))
                self._asked[sock.fileno()] = sock, asked
                self._epoll.register(sock, select.EPOLLIN)

    def close(self) -> None:
        """Drop what is under way, which counts with the time that it has taken so far."""
        now = time.monotonic_ns()
        for sock, asked in self._asked.values():
            self.times.append(now - asked)
            sock.close()
        self._asked.clear()
        self._epoll.close()
