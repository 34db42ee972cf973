"""What several test modules share: a raw client, a loop whose clock is moved by hand, a server that is looked after."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import socket
import struct
import threading
from collections.abc import Callable, Coroutine, Generator, Iterator
from ssl import MemoryBIO, SSLContext, SSLWantReadError
from typing import Any, NoReturn

import pytest

from rawstream import Server, Timeouts, serve
from rawstream.messages import Handler

PATIENCE = 120.0
"""Seconds of real time after which a test that waits in vain is cancelled."""

_DATE = re.compile(rb"Date: (?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d [A-Z][a-z][a-z] \d{4} \d\d:\d\d:\d\d GMT\r\n")

_REQUEST_ID = re.compile(rb"X-Request-Id: [0-9a-f]{6}-\d+\r\n")

JSON_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=utf-8\r\nVary: Accept\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)
NDJSON_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nVary: Accept\r\nTransfer-Encoding: chunked\r\n\r\n"
)
TEXT_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nVary: Accept\r\nTransfer-Encoding: chunked\r\n\r\n"
)
SSE_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nVary: Accept\r\n"
    b"Cache-Control: no-store, no-transform\r\nX-Accel-Buffering: no\r\nTransfer-Encoding: chunked\r\n\r\n"
)
"""The heads of streams whose format the client chose, without their Date."""

LAST_CHUNK = b"0\r\n\r\n"


def absent(what: str) -> NoReturn:
    """Something that a test needs is not here. On a build machine that is a failure, elsewhere a reason to skip."""
    if os.environ.get("CI"):
        pytest.fail(what)
    pytest.skip(what)


def chunk(payload: bytes) -> bytes:
    """One chunk of the chunked coding."""
    return b"%x\r\n%b\r\n" % (len(payload), payload)


def request(target: str = "/", *fields: str, method: str = "GET", version: str = "1.1", body: bytes = b"") -> bytes:
    """The bytes of a request; `fields` are lines such as "Accept: text/plain"."""
    lines = [f"{method} {target} HTTP/{version}", "Host: test", *fields]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "".join(line + "\r\n" for line in [*lines, ""]).encode("latin-1") + body


def get(target: str = "/", accept: str | None = None, *fields: str, version: str = "1.1") -> bytes:
    """The bytes of a GET that accepts `accept`."""
    return request(target, *([] if accept is None else [f"Accept: {accept}"]), *fields, version=version)


class Peer:
    """A client that sends and reads exact bytes on a bare socket."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.ending = ""
        """How the server ended the connection, once that was read: "end" (FIN) or "reset" (RST)."""
        self._loop = asyncio.get_running_loop()
        self._held = b""

    @classmethod
    async def connect(
        cls, address: tuple[str, int] | str, receive_buffer: int | None = None, send_buffer: int | None = None
    ) -> Peer:
        """A connection to `address`; small buffers make the kernel hold little."""
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        if ":" in address[0]:
            family = socket.AF_INET6
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.setblocking(False)
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        if send_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
        try:
            await asyncio.get_running_loop().sock_connect(sock, address)
        except BaseException:
            sock.close()
            raise
        return cls(sock)

    async def send(self, data: bytes) -> None:
        await self._loop.sock_sendall(self.sock, data)

    async def send_until_stalled(self, data: bytes) -> int:
        """Send as much of `data` as the server takes; how much that was."""
        sent = stalls = 0
        while stalls < 3 and sent < len(data):
            try:
                sent += self.sock.send(data[sent : sent + 65536])
                stalls = 0
            except BlockingIOError:
                stalls += 1
                await settle()
        return sent

    async def piece(self) -> bytes:
        """What one write of the server brought, without a Date."""
        assert not self._held
        await self._more()
        data, self._held = self._held, b""
        return _REQUEST_ID.sub(b"", _DATE.sub(b"", data))

    async def _more(self) -> bool:
        if self.ending:
            return False
        try:
            data = await self._loop.sock_recv(self.sock, 65536)
        except (ConnectionResetError, BrokenPipeError):
            self.ending = "reset"
            return False
        self._held += data
        if not data:
            self.ending = "end"
        return bool(data)

    async def expect(self, expected: bytes) -> None:
        """Read exactly these bytes."""
        while len(self._held) < len(expected) and expected.startswith(self._held):
            if not await self._more():
                break
        got, self._held = self._held[: len(expected)], self._held[len(expected) :]
        assert got == expected, f"then {self.ending or 'still open'}"

    async def until(self, mark: bytes) -> bytes:
        """Everything up to and with `mark`."""
        while mark not in self._held:
            assert await self._more(), f"no {mark!r} but {self.ending} after {self._held!r}"
        before, _, self._held = self._held.partition(mark)
        return before + mark

    async def head(self) -> bytes:
        """A response's head without its Date, which every response has once, and without the id of a failed request."""
        head = await self.until(b"\r\n\r\n")
        rest, dates = _DATE.subn(b"", head)
        assert dates == 1, head
        return _REQUEST_ID.sub(b"", rest)

    async def expect_head(self, expected: bytes) -> None:
        """A response's head is `expected`, but for its Date."""
        assert await self.head() == expected

    async def response(self) -> tuple[bytes, bytes]:
        """A response's head, and its body of Content-Length bytes."""
        head = await self.head()
        length = re.search(rb"\r\nContent-Length: (\d+)\r\n", head)
        assert length is not None, head
        size = int(length[1])
        while len(self._held) < size:
            assert await self._more(), f"{self.ending} after {self._held!r}"
        body, self._held = self._held[:size], self._held[size:]
        return head, body

    async def rest(self) -> bytes:
        """Everything until the end of the connection; `ending` then tells how it ended."""
        while await self._more():
            pass
        data, self._held = self._held, b""
        return data

    def here(self) -> bytes:
        """What has come already, without waiting. Loopback delivers in the call that sends."""
        data, self._held = self._held, b""
        try:
            while piece := self.sock.recv(65536):
                data += piece
        except BlockingIOError:
            pass
        return data

    def finish(self) -> None:
        """End our side (FIN), and go on reading."""
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Vanish with a RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def close(self) -> None:
        self.sock.close()


class TlsPeer(Peer):
    """The same under TLS. It takes from its socket no more than it is asked for."""

    def __init__(self, sock: socket.socket, context: SSLContext) -> None:
        super().__init__(sock)
        self._received, self._to_send = MemoryBIO(), MemoryBIO()
        self._tls = context.wrap_bio(self._received, self._to_send, server_hostname="127.0.0.1")

    async def handshake(self) -> None:
        """Come to terms with the server."""
        while True:
            try:
                self._tls.do_handshake()
                break
            except SSLWantReadError:
                await self._flush()
                self._received.write(await self._loop.sock_recv(self.sock, 16384))
        await self._flush()

    async def _flush(self) -> None:
        await super().send(self._to_send.read())

    async def send(self, data: bytes) -> None:
        self._tls.write(data)
        await self._flush()

    async def _more(self) -> bool:
        while not self.ending:
            try:
                data = self._tls.read(16384)
            except SSLWantReadError:
                try:
                    received = await self._loop.sock_recv(self.sock, 16384)
                except ConnectionResetError:
                    self.ending = "reset"
                else:
                    self._received.write(received)
                    if not received:
                        self.ending = "end"  # without a word from TLS
            else:
                self._held += data
                if data:
                    return True
                self.ending = "end"  # told by TLS itself (close_notify), which is answered likewise
                with contextlib.suppress(SSLWantReadError, OSError):
                    self._tls.unwrap()
                with contextlib.suppress(OSError):
                    await self._flush()
        return False


class ByHandLoop(asyncio.SelectorEventLoop):
    """asyncio's loop, but time passes only when a test says so. Sockets work as ever."""

    def __init__(self) -> None:
        self.now = 1000.0
        super().__init__()

    def time(self) -> float:
        return self.now


class Clock:
    """Moves the time of a ByHandLoop."""

    def __init__(self, loop: ByHandLoop) -> None:
        self._loop = loop

    def time(self) -> float:
        """Seconds; a test begins at 1000."""
        return self._loop.time()

    def set(self, now: float) -> None:
        """Let it be `now`, before anything that is due has happened."""
        self._loop.now = now

    async def advance(self, seconds: float) -> None:
        """Let `seconds` pass in steps of an eighth of a second, and all that is due happen at its time."""
        until = self._loop.now + seconds
        await settle()
        while self._loop.now < until:
            self._loop.now = min(until, self._loop.now + 0.125)
            await settle()


async def settle() -> None:
    """Let everything happen that can happen without the passing of time."""
    for _ in range(10):
        await asyncio.sleep(0)


async def forever() -> None:
    """Wait for what never comes."""
    await asyncio.get_running_loop().create_future()


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop turn until it is so."""
    while not condition():  # noqa: ASYNC110 - what is waited for has no event, and no time need pass
        await asyncio.sleep(0)


class Wait:
    """`await Wait(x)` hands `x` to whoever drives, and gives what the driver sends."""

    def __init__(self, hands_up: Any) -> None:
        self._hands_up = hands_up

    def __await__(self) -> Generator[Any, Any, Any]:
        return (yield self._hands_up)


class Failures(logging.Handler):
    """The errors that rawstream logged. A test takes those that it expects; others fail it."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def take(self) -> BaseException:
        """The exception of the next failed request."""
        record = self.records.pop(0)
        assert record.msg == "%s %s %s failed", record.getMessage()
        assert record.exc_info is not None
        assert record.exc_info[1] is not None
        return record.exc_info[1]


@contextlib.contextmanager
def watchdog() -> Iterator[None]:
    """Cancel whatever still runs each PATIENCE. It has a thread: the loop's own clock may be one moved by hand."""
    loop = asyncio.get_running_loop()

    def cancel() -> None:
        for task in asyncio.all_tasks(loop):
            task.print_stack()
            task.cancel("the test waited in vain")

    over = threading.Event()

    def watch() -> None:
        while not over.wait(PATIENCE):
            loop.call_soon_threadsafe(cancel)

    thread = threading.Thread(target=watch, name="watchdog")
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


class Served:
    """A server under test, and its clients."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._peers: list[Peer] = []

    async def connect(self, receive_buffer: int | None = None, send_buffer: int | None = None) -> Peer:
        """A client of it."""
        peer = await Peer.connect(self.server.addresses[0], receive_buffer, send_buffer)
        self._peers.append(peer)
        return peer

    async def connect_tls(self, context: SSLContext, receive_buffer: int | None = None) -> TlsPeer:
        """A client of it that speaks TLS."""
        peer = TlsPeer((await self.connect(receive_buffer)).sock, context)
        await peer.handshake()
        return peer

    async def ask(self, data: bytes) -> Peer:
        """A client that has sent `data`."""
        peer = await self.connect()
        await peer.send(data)
        return peer

    async def end(self) -> None:
        """Close it. Without its clients nothing may keep it from closing at once."""
        for peer in self._peers:
            peer.close()
        if not self.server.closing.is_set():
            self.server.begin_closing()
        await self.server.wait_closed()
        assert self.server.connections == 0


class Serving:
    """`await serving(handler)`: a server on a free port of the loopback address."""

    def __init__(self) -> None:
        self._served: list[Served] = []

    async def __call__(
        self,
        handler: Handler,
        host: str | None = "127.0.0.1",
        timeouts: Timeouts | None = None,
        ssl: SSLContext | None = None,
        **options: Any,
    ) -> Served:
        # A grace that no test waits for: what holds a server open is found by the watchdog.
        server = await serve(handler, host, 0, timeouts=timeouts or Timeouts(grace=60), ssl=ssl, **options)
        self._served.append(Served(server))
        return self._served[-1]

    async def end(self) -> None:
        for served in self._served:
            await served.end()


class Steps:
    """What happened, in its order, and a way to wait for the next of it."""

    def __init__(self) -> None:
        self.done: list[Any] = []
        self._changed = asyncio.Event()

    def __call__(self, step: Any) -> None:
        self.done.append(step)
        self._changed.set()

    async def reach(self, *steps: Any) -> None:
        """Wait until exactly these happened."""
        while self.done[: len(steps)] != [*steps] and len(self.done) < len(steps):
            self._changed.clear()
            await self._changed.wait()
        assert self.done == [*steps]


def in_background(coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    """A task for it, which the test has to await."""
    return asyncio.get_running_loop().create_task(coroutine)
