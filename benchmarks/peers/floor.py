"""The floor: one loop that calls `send` with a ready frame. No server: what the kernel alone costs.

It understands just enough of a request to know which workload is meant. `/burst?gather=N` gathers `N` bytes for each
`send`; without it each event is a `send` of its own, as in the other workloads. `--tls` is OpenSSL's own `send` on each
socket, `--gzip` zlib's own compressor for each stream.
"""

import heapq
import itertools
import select
import socket
import ssl
import time
import zlib
from collections.abc import Iterator

from benchmarks.peers.common import announce, arguments, listening_socket, server_context, set_nagle

_HEAD = (
    b"HTTP/1.1 200 OK\r\n"
    b"Content-Type: text/event-stream\r\n"
    b"Cache-Control: no-store\r\n"
    b"Transfer-Encoding: chunked\r\n"
    b"\r\n"
)
_SHORT = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 2\r\n\r\nok"
_LAST_CHUNK = b"0\r\n\r\n"

Step = float | None
"""When a stream goes on, in seconds of the monotonic clock."""


def frame() -> bytes:
    """A chunk with one stamped event."""
    return b"1a\r\ndata: %018d\n\n\r\n" % time.monotonic_ns()


def paced(sock: socket.socket, events: int, interval: float) -> Iterator[float]:
    """Send an event each `interval` seconds. Yields when it wants to go on."""
    start = time.monotonic()
    sock.send(_HEAD + frame())
    for n in range(1, events):
        yield start + n * interval
        sock.send(frame())
    sock.send(_LAST_CHUNK)


def paced_gzip(sock: socket.socket, events: int, interval: float) -> Iterator[float]:
    """The same, compressed: each event with a sync flush."""
    compressor = zlib.compressobj(wbits=31)
    head = _HEAD.replace(b"\r\n\r\n", b"\r\nContent-Encoding: gzip\r\n\r\n")
    start = time.monotonic()
    for n in range(events):
        if n:
            yield start + n * interval
        payload = compressor.compress(b"data: %018d\n\n" % time.monotonic_ns()) + compressor.flush(zlib.Z_SYNC_FLUSH)
        sock.send((b"" if n else head) + b"%x\r\n%b\r\n" % (len(payload), payload))
    payload = compressor.flush()
    sock.send(b"%x\r\n%b\r\n" % (len(payload), payload) + _LAST_CHUNK)


def burst(sock: socket.socket, events: int, gather: int) -> Iterator[float]:
    """Send all events at once, each by itself or `gather` bytes together."""
    sock.setblocking(True)
    sock.sendall(_HEAD)
    send, now = sock.sendall, time.monotonic_ns
    if not gather:
        for _ in range(events):
            send(b"1a\r\ndata: %018d\n\n\r\n" % now())
    else:
        size = gather // 26
        for start in range(0, events, size):
            payload = b"".join([b"data: %018d\n\n" % now() for _ in range(min(size, events - start))])
            send(b"%x\r\n%b\r\n" % (len(payload), payload))
    send(_LAST_CHUNK)
    sock.setblocking(False)
    yield from ()


def first(sock: socket.socket) -> Iterator[float]:
    """Send one event with the head, another 1 ms later."""
    sock.send(_HEAD + frame())
    yield time.monotonic() + 0.001
    sock.send(frame() + _LAST_CHUNK)


def flush(sock: socket.socket, groups: int, size: int, wait: float) -> Iterator[float]:
    """Send groups of events, each event by itself."""
    sock.send(_HEAD)
    for _ in range(groups):
        for _ in range(size):
            sock.send(frame())
        yield time.monotonic() + wait
    sock.send(_LAST_CHUNK)


def answer(sock: socket.socket, target: str, zipped: bool) -> Iterator[float]:
    """The stream that a request asks for."""
    path, _, query = target.partition("?")
    given = dict(pair.split("=") for pair in query.split("&") if pair)
    match path:
        case "/paced":
            return (paced_gzip if zipped else paced)(sock, int(given["events"]), float(given["interval"]))
        case "/burst":
            return burst(sock, int(given["events"]), int(given.get("gather", "0")))
        case "/first":
            return first(sock)
        case "/flush":
            set_nagle(given["nagle"] == "1")
            return flush(sock, int(given["groups"]), int(given["size"]), float(given["wait"]))
        case _:
            raise ValueError(f"no workload at {path}")


def publish(sock: socket.socket, data: bytes, subscribers: set[socket.socket]) -> None:
    """Send the body of a request to each subscriber; what a socket does not take is lost."""
    body = data.partition(b"\r\n\r\n")[2]
    event = b"%x\r\ndata: %b\n\n\r\n" % (len(body) + 8, body)
    for subscriber in subscribers:
        try:
            subscriber.send(event)
        except OSError:
            pass
    sock.send(b"HTTP/1.1 204 No Content\r\n\r\n")


def main() -> None:
    """Serve until the process is ended."""
    options = arguments().parse_args()
    context = server_context(options)
    listener = listening_socket()
    epoll = select.epoll()
    epoll.register(listener, select.EPOLLIN)
    announce(listener.getsockname()[1])
    connections: dict[int, socket.socket] = {}
    subscribers: set[socket.socket] = set()
    due: list[tuple[float, int, int, Iterator[float]]] = []
    order = itertools.count()

    def close(fd: int) -> None:
        epoll.unregister(fd)
        subscribers.discard(connections[fd])
        connections.pop(fd).close()

    def step(fd: int, stream: Iterator[float]) -> None:
        try:
            heapq.heappush(due, (next(stream), next(order), fd, stream))
        except (StopIteration, OSError):
            pass

    while True:
        left = max(due[0][0] - time.monotonic(), 0) if due else None
        for fd, _ in epoll.poll(left):
            if fd == listener.fileno():
                sock, _ = listener.accept()
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if context is not None:
                    sock = context.wrap_socket(sock, server_side=True)
                sock.setblocking(False)
                connections[sock.fileno()] = sock
                epoll.register(sock, select.EPOLLIN)
                continue
            sock = connections[fd]
            try:
                data = sock.recv(65_536)
            except ssl.SSLWantReadError:
                continue
            except (ConnectionError, ssl.SSLError):
                data = b""
            if not data:
                close(fd)
            elif data.startswith(b"GET /short "):
                sock.send(_SHORT)
            elif data.startswith(b"GET /fanout "):
                sock.send(_HEAD)
                subscribers.add(sock)
            elif data.startswith(b"POST /publish "):
                publish(sock, data, subscribers)
            else:
                step(fd, answer(sock, data.split(b" ", 2)[1].decode("ascii"), options.gzip))
        now = time.monotonic()
        while due and due[0][0] <= now:
            _, _, fd, stream = heapq.heappop(due)
            if fd in connections:
                step(fd, stream)


if __name__ == "__main__":
    main()
