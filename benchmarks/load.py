"""Reads streams as cheaply as Python can: one thread, epoll, and nothing but `recv` and a clock in the loop.

What was read is kept with its time and taken apart later (`answer`). `reader_cost` measures this reader itself, so
that a report can say what part of a figure is the reader's.
"""

import select
import socket
import ssl
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import cycle
from typing import Self

from benchmarks.answer import AnswerParser, Read, WrongAnswer

Clock = Callable[[], int]
"""Gives the time in nanoseconds."""

HOST = "127.0.0.1"
_READ_BYTES = 65_536
_VARIANTS = 100  # of a request
# The last chunk, with the end of the chunk or head before it. No payload of a workload holds a CR, so this is the end.
_LAST_CHUNK = b"\r\n0\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Transfer:
    """How an answer travels: as it is, under TLS, or compressed with gzip."""

    tls: bool = False
    gzip: bool = False

    @property
    def arguments(self) -> tuple[str, ...]:
        """What tells a peer to serve this way."""
        return (*(["--tls"] if self.tls else []), *(["--gzip"] if self.gzip else []))

    @property
    def coding(self) -> str:
        """The Content-Encoding that is wanted."""
        return "gzip" if self.gzip else ""


PLAIN = Transfer()


def request(path: str, coding: str = "", number: int | None = None) -> bytes:
    """The bytes that ask for a stream of events at `path`, in a content coding if one is given.

    `number`: in a field of its own, which makes one request another, and means nothing to a server.
    """
    accept = f"Accept-Encoding: {coding}\r\n" if coding else ""
    also = "" if number is None else f"X-Number: {number:03}\r\n"
    return f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\nAccept: text/event-stream\r\n{accept}{also}\r\n".encode("ascii")


@dataclass(slots=True, eq=False)
class Reader:
    """One connection that reads one answer."""

    sock: socket.socket
    asked: int
    reads: list[Read] = field(default_factory=list)
    ended: bool = False

    def is_last(self, data: bytes) -> bool:
        """Whether the answer ends with `data`, which is already the last of `reads`."""
        if len(data) < len(_LAST_CHUNK):
            data = b"".join(read.data for read in self.reads[-len(_LAST_CHUNK) :])
        return data.endswith(_LAST_CHUNK)


class Load:
    """Many readers in one epoll loop. Use it as a context manager; leaving it closes the connections.

    Under TLS, one `recv` gives at most one record, and OpenSSL reads no further than its end: what follows still makes
    the socket readable. So `read_bytes` must be at least the 16 KiB that a record may have.
    """

    def __init__(
        self, clock: Clock = time.monotonic_ns, read_bytes: int = _READ_BYTES, transfer: Transfer = PLAIN
    ) -> None:
        self.readers: list[Reader] = []
        self._clock = clock
        self._read_bytes = read_bytes
        self._coding = transfer.coding
        self._context = client_context() if transfer.tls else None
        self._by_fd: dict[int, Reader] = {}
        self._epoll = select.epoll()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for reader in self.readers:
            reader.sock.close()
        self._epoll.close()

    def ask(self, port: int, path: str) -> Reader:
        """Connect and send a request; its answer is read by `turn` and `run`."""
        sock = socket.create_connection((HOST, port))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._context is not None:
            sock = self._context.wrap_socket(sock)
        sock.sendall(request(path, self._coding))
        return self.add(sock)

    def add(self, sock: socket.socket) -> Reader:
        """Read from a connection on which the request was already sent."""
        sock.setblocking(False)
        reader = Reader(sock, self._clock())
        self.readers.append(reader)
        self._by_fd[sock.fileno()] = reader
        self._epoll.register(sock, select.EPOLLIN)
        return reader

    def turn(self, seconds: float) -> None:
        """Wait up to `seconds` for something to read, and read once from each connection that has it."""
        clock, by_fd, size = self._clock, self._by_fd, self._read_bytes
        for fd, _ in self._epoll.poll(seconds):
            reader = by_fd[fd]
            try:
                data = reader.sock.recv(size)
            except ssl.SSLWantReadError:
                continue  # a record that is for TLS itself
            except (ConnectionError, ssl.SSLError):
                data = b""
            now = clock()
            if data:
                reader.reads.append(Read(now, data))
                if not reader.is_last(data):
                    continue
            reader.ended = True
            self._epoll.unregister(fd)
            del by_fd[fd]

    def run(self, until: int) -> None:
        """Read until all answers have ended or the clock shows `until` (nanoseconds)."""
        while self._by_fd and (left := until - self._clock()) > 0:
            self.turn(left / 1e9)


def client_context() -> ssl.SSLContext:
    """What the readers connect with: any certificate will do. They don't verify it, which is not what is measured."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def ask(port: int, path: str, timeout: float, clock: Clock = time.monotonic_ns) -> tuple[int, AnswerParser, list[Read]]:
    """Connect, ask, read one whole answer and close, all blocking.

    Gives the time before connecting (nanoseconds), the answer and the reads it took. Raises `WrongAnswer` when nothing
    comes for `timeout` seconds.
    """
    parser, reads = AnswerParser(), []
    message = request(path)
    started = clock()
    with socket.socket() as sock:
        # The kernel's own time-out: Python's would make a second system call of every read.
        seconds, rest = divmod(timeout, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", int(seconds), int(rest * 1e6)))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.connect((HOST, port))
        sock.sendall(message)
        while not parser.complete:
            try:
                data = sock.recv(_READ_BYTES)
            except BlockingIOError:
                raise WrongAnswer(f"nothing came for {timeout:.0f} s") from None
            read = Read(clock(), data)
            if not data:
                raise WrongAnswer("the connection was closed before the end of the answer")
            reads.append(read)
            parser.feed(read)
    return started, parser, reads


@dataclass(slots=True)
class Exchanges:
    """What `keep_asking` saw: how long it took in all, and how long each answer took (nanoseconds)."""

    wall: int
    answers: list[int]


def keep_asking(
    port: int, path: str, connections: int, seconds: float, length: int, same: bool = True,
    clock: Clock = time.monotonic_ns,
) -> Exchanges:  # fmt: skip
    """Ask for `path` again and again on kept connections, each with one request at a time.

    All are the `same`, or each differs from the one before it on its connection. `length` is the answer's length in
    bytes, head included; an answer that differs raises `WrongAnswer`.
    """
    messages = [request(path)] if same else [request(path, number=number) for number in range(_VARIANTS)]
    socks = [socket.create_connection((HOST, port)) for _ in range(connections)]
    epoll = select.epoll()
    try:
        asked: dict[int, int] = {}
        missing: dict[int, int] = {}
        by_fd = {sock.fileno(): sock for sock in socks}
        turns = {fd: cycle(messages) for fd in by_fd}
        answers: list[int] = []
        for fd, sock in by_fd.items():
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            epoll.register(fd, select.EPOLLIN)
        started = now = clock()
        for fd, sock in by_fd.items():
            asked[fd], missing[fd] = clock(), length
            sock.sendall(next(turns[fd]))
        until = started + int(seconds * 1e9)
        while now < until:
            for fd, _ in epoll.poll((until - now) / 1e9):
                data = by_fd[fd].recv(_READ_BYTES)
                now = clock()
                if missing[fd] == length and not data.startswith(b"HTTP/1.1 200 "):
                    raise WrongAnswer(f"the kept connection answered {data[:40]!r}")
                missing[fd] -= len(data)
                if missing[fd] < 0:
                    raise WrongAnswer(f"an answer of more than {length} bytes")
                if missing[fd] == 0:
                    answers.append(now - asked[fd])
                    asked[fd], missing[fd] = now, length
                    by_fd[fd].send(next(turns[fd]))
            now = clock()
        return Exchanges(now - started, answers)
    finally:
        epoll.close()
        for sock in socks:
            sock.close()


def answer_length(port: int, path: str, timeout: float) -> int:
    """The length in bytes of the whole answer, head included."""
    _, _, reads = ask(port, path, timeout)
    return sum(len(read.data) for read in reads)


def segments_in(sock: socket.socket) -> int:
    """How many TCP segments with data have arrived (`tcpi_data_segs_in`), 0 where the system does not count them."""
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
    # struct tcp_info: 8 bytes, 24 words of 32 bits, 4 of 64, then segs_out, segs_in, notsent, min_rtt, data_segs_in.
    offset = 8 + 24 * 4 + 4 * 8 + 4 * 4
    return int(struct.unpack_from("=I", info, offset)[0]) if len(info) >= offset + 4 else 0


def reader_cost(connections: int = 100, turns: int = 100) -> dict[str, float]:
    """What the reader itself costs, in microseconds, with no server there.

    `read_us` is its CPU time for one small read; `echo_us` the median time from before a `send` of its own to the end
    of the `recv` that reads it: no latency below this can be measured.
    """
    frame = b"1a\r\ndata: 000000000000000000\n\n\r\n"
    with socket.create_server((HOST, 0)) as listener, Load() as load:
        ends: list[socket.socket] = []
        try:
            for _ in range(connections):
                load.add(socket.create_connection(listener.getsockname()))
                end, _ = listener.accept()
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                ends.append(end)
            used = 0
            for _ in range(turns):
                for end in ends:
                    end.send(frame)
                before = time.process_time_ns()
                load.turn(1)
                used += time.process_time_ns() - before
            reads = sum(len(reader.reads) for reader in load.readers)
            echoes = []
            for _ in range(turns * 10):
                before = time.monotonic_ns()
                ends[0].send(frame)
                load.turn(1)
                echoes.append(load.readers[0].reads[-1].arrived - before)
        finally:
            for end in ends:
                end.close()
    return {"read_us": used / reads / 1e3, "echo_us": sorted(echoes)[len(echoes) // 2] / 1e3}
