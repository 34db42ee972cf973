"""Connections whose TLS handshake is under way: counted and bounded as others are, timed, and gone when they fail."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import socket
import ssl
from collections.abc import AsyncIterator, Callable

import pytest
import trustme
from support import LAST_CHUNK, Clock, Failures, Peer, Served, Serving, Steps, TlsPeer, chunk, get, settle, until

from rawstream import Limits, Request, Response, Timeouts, observe

pytestmark = pytest.mark.usefixtures("orderly")

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
TOLD = 2 + 16  # connections beyond a limit of 20 that could be told so: see Admission


async def empty(request: Request) -> Response:
    return Response()


class Secure:
    """A server's context, and its clients'."""

    def __init__(self) -> None:
        authority = trustme.CA()
        self.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert("127.0.0.1").configure_cert(self.context)
        self.trusting, self.trusting_1_2 = ssl.create_default_context(), ssl.create_default_context()
        for context in (self.trusting, self.trusting_1_2):
            authority.configure_trust(context)
        self.trusting_1_2.maximum_version = ssl.TLSVersion.TLSv1_2


@pytest.fixture(scope="module")
def secure() -> Secure:
    return Secure()


@pytest.fixture
def refused() -> Callable[[], dict[str, int]]:
    """How many were refused since the test began."""
    before = dict(observe.counts.refused)
    return lambda: {
        reason: count - before[reason] for reason, count in observe.counts.refused.items() if count > before[reason]
    }


async def crowd(served: Served, size: int) -> list[Peer]:
    """So many clients that connect and say nothing."""
    return [await served.connect() for _ in range(size)]


def is_cut(peer: Peer) -> bool:
    """It is cut already, or else open."""
    with contextlib.suppress(BlockingIOError):
        try:
            return peer.sock.recv(1, socket.MSG_PEEK) == b""
        except ConnectionResetError:
            return True
    return False


def still_open(peers: list[Peer]) -> list[Peer]:
    return [peer for peer in peers if not is_cut(peer)]


def handshakes() -> int:
    """How many are under way in this process."""
    return sum("handshake" in task.get_name() for task in asyncio.all_tasks())


def files() -> int:
    return len(os.listdir("/proc/self/fd"))


async def is_served(served: Served, secure: Secure) -> None:
    peer = await served.connect_tls(secure.trusting)
    await peer.send(get())
    await peer.expect_head(OK)
    peer.close()


# -- counted -----------------------------------------------------------------------------------------------------------


async def test_of_a_crowd_that_says_nothing_no_more_stay_than_there_is_room_for(
    serving: Serving, secure: Secure, refused: Callable[[], dict[str, int]]
) -> None:
    served = await serving(
        empty, ssl=secure.context, limits=Limits(connections=20), timeouts=Timeouts(head=3_600, grace=60)
    )
    await is_served(served, secure)  # libuv opens a file with its first connection
    await until(lambda: served.server.connections == 0)
    opened, connections = files(), observe.counts.connections
    peers = await crowd(served, 200)
    await until(lambda: sum(refused().values()) == 200 - 20 - TOLD)
    assert refused() == {"connections": 200 - 20 - TOLD}
    assert len(still_open(peers)) == 20 + TOLD
    assert observe.counts.connections - connections == 20 + TOLD
    assert handshakes() == 20 + TOLD
    for peer in peers:
        peer.close()
    await until(lambda: files() == opened)
    assert handshakes() == 0
    assert observe.counts.connections == connections
    await is_served(served, secure)


async def test_a_crowd_that_took_all_room_loses_it_in_the_time_of_a_head(serving: Serving, secure: Secure) -> None:
    served = await serving(
        empty, ssl=secure.context, limits=Limits(connections=20), timeouts=Timeouts(head=0.3, grace=60)
    )
    for peer in await crowd(served, 200):
        await peer.rest()
    await until(lambda: handshakes() == 0)
    await is_served(served, secure)


async def test_who_comes_while_all_room_is_taken_by_handshakes_is_told_so(serving: Serving, secure: Secure) -> None:
    served = await serving(empty, ssl=secure.context, limits=Limits(connections=2))
    silent = await crowd(served, 2)
    peer = await served.connect_tls(secure.trusting)
    assert (await peer.head()).startswith(b"HTTP/1.1 503 ")
    for one in silent:
        one.close()
    await until(lambda: handshakes() == 0)
    peer.close()
    await until(lambda: served.server.connections == 0)
    await is_served(served, secure)


async def test_a_client_has_no_more_handshakes_than_connections(
    serving: Serving, secure: Secure, refused: Callable[[], dict[str, int]]
) -> None:
    served = await serving(empty, ssl=secure.context, limits=Limits(connections_per_client=3))
    first = await served.connect_tls(secure.trusting)
    peers = await crowd(served, 10)
    await until(lambda: sum(refused().values()) == 8)
    assert refused() == {"connections_per_client": 8}
    left = still_open(peers)
    assert len(left) == 2
    await first.send(get())
    await first.expect_head(OK)
    left[0].reset()
    await until(lambda: handshakes() == 1)
    await is_served(served, secure)


async def test_many_clients_of_a_trusted_proxy_are_not_one(serving: Serving, secure: Secure) -> None:
    served = await serving(
        empty, ssl=secure.context, limits=Limits(connections_per_client=1), trusted_proxies=["127.0.0.1"]
    )
    await crowd(served, 5)
    await is_served(served, secure)


async def test_a_connection_counts_once_from_its_handshake_to_its_end(serving: Serving, secure: Secure) -> None:
    connections, accepted = observe.counts.connections, observe.counts.accepted
    served = await serving(empty, ssl=secure.context, limits=Limits(connections=1))
    for number in range(1, 4):
        peer = await served.connect_tls(secure.trusting)
        await peer.send(get())
        await peer.expect_head(OK)
        assert (observe.counts.connections, observe.counts.accepted) == (connections + 1, accepted + number)
        peer.close()
        await until(lambda: served.server.connections == 0)
        assert observe.counts.connections == connections


async def test_on_a_unix_socket_too(serving: Serving, secure: Secure, tmp_path: object) -> None:
    name = os.path.relpath(f"{tmp_path}/a.sock")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(name)
        served = await serving(empty, ssl=secure.context, limits=Limits(connections=1), sockets=[sock])
        silent = await served.connect()
        await until(lambda: handshakes() == 1)
        silent.close()
        await until(lambda: handshakes() == 0)
        peer = await served.connect_tls(secure.trusting)
        await peer.send(get())
        await peer.expect_head(OK)


# -- failed ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "said",
    [
        b"",
        get(),
        b"\x00" * 10_000,
        b"\x16\x03\x01",
        b"\x16\x03\x01\xff\xff" + b"\xff" * 70_000,
        b"\x15\x03\x03\x00\x02\x02\x28",
        b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10",
    ],
    ids=["nothing", "plain HTTP", "zeros", "a little", "a huge record", "an alert", "SSL 2"],
)
async def test_a_failed_handshake_leaves_nothing_and_nothing_is_logged(
    said: bytes, serving: Serving, secure: Secure, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    asyncio.get_running_loop().slow_callback_duration = 60  # else a warning on a busy machine
    served = await serving(empty, ssl=secure.context, limits=Limits(connections=1))
    for leave in (Peer.finish, Peer.close, Peer.reset):
        peer = await served.connect()
        await until(lambda: handshakes() == 1)
        with contextlib.suppress(OSError):  # it may have been cut
            await peer.send_until_stalled(said)
            leave(peer)
        await until(lambda: handshakes() == 0)
    await is_served(served, secure)
    assert not caplog.records


async def test_a_client_that_trusts_us_not_leaves_nothing(serving: Serving, secure: Secure) -> None:
    served = await serving(empty, ssl=secure.context, limits=Limits(connections=1))
    with pytest.raises(ssl.SSLCertVerificationError):
        await served.connect_tls(ssl.create_default_context())
    await served.end()
    assert handshakes() == 0


async def test_a_handshake_that_comes_byte_by_byte_has_the_same_time(serving: Serving, secure: Secure) -> None:
    served = await serving(empty, ssl=secure.context, timeouts=Timeouts(head=0.3, grace=60))
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        secure.trusting.wrap_bio(incoming, outgoing, server_hostname="127.0.0.1").do_handshake()
    peer = await served.connect()
    await peer.send(outgoing.read(100))
    await until(lambda: handshakes() == 1)
    with contextlib.suppress(ConnectionError):
        while not is_cut(peer):
            if outgoing.pending > 1:
                await peer.send(outgoing.read(1))
            await asyncio.sleep(0)
    await until(lambda: handshakes() == 0)


# -- what comes with the handshake's end -------------------------------------------------------------------------------


class Eager(TlsPeer):
    """A client that sends `data` in one piece with the end of its handshake."""

    async def ask(self, *data: bytes, finish: bool = False) -> None:
        while True:
            try:
                self._tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                await self._flush()
                self._received.write(await self._loop.sock_recv(self.sock, 16384))
        for piece in data:
            self._tls.write(piece)
        if finish:
            with contextlib.suppress(ssl.SSLWantReadError):
                self._tls.unwrap()
        await self._flush()


@pytest.mark.parametrize("version", ["trusting", "trusting_1_2"], ids=["TLS 1.3", "TLS 1.2"])
async def test_a_request_that_comes_with_the_last_of_the_handshake_is_answered(
    version: str, serving: Serving, secure: Secure
) -> None:
    """It is in the segment of the client's Finished, and may be long, and more than one."""
    body = os.urandom(50_000)

    async def handler(request: Request) -> Response:
        return Response(200, (), await request.body())

    served = await serving(handler, ssl=secure.context)
    post = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s"
    for _ in range(50):
        peer = Eager((await served.connect()).sock, getattr(secure, version))
        await peer.ask(post % (3, b"one"), post % (len(body), body), post % (5, b"three"))
        assert [(await peer.response())[1] for _ in range(3)] == [b"one", body, b"three"]
        peer.close()


async def test_a_hundred_at_once(serving: Serving, secure: Secure) -> None:
    async def handler(request: Request) -> AsyncIterator[str]:
        yield request.path

    served = await serving(handler, ssl=secure.context)

    async def one(number: int) -> None:
        peer = Eager((await served.connect()).sock, secure.trusting)
        await peer.ask(get(f"/{number}", accept="text/plain"))
        await peer.head()
        assert await peer.until(LAST_CHUNK) == chunk(f"/{number}".encode()) + LAST_CHUNK
        peer.close()

    await asyncio.gather(*map(one, range(100)))


async def test_who_asks_and_ends_with_its_handshake_leaves_nothing(serving: Serving, secure: Secure) -> None:
    """TLS has no half-closed connections."""
    served = await serving(empty, ssl=secure.context, limits=Limits(connections=1))
    for _ in range(20):
        peer = Eager((await served.connect()).sock, secure.trusting)
        await peer.ask(get(), finish=True)
        await Peer(peer.sock).rest()
        peer.close()
        await until(lambda: handshakes() == served.server.connections == 0)
    await is_served(served, secure)


async def test_a_connection_under_tls_is_set_up_for_streams_and_known_by_its_address(
    serving: Serving, secure: Secure
) -> None:
    clients: list[tuple[str, int] | None] = []

    async def handler(request: Request) -> Response:
        clients.append(request.client)
        return Response()

    served = await serving(handler, ssl=secure.context)
    peer = await served.connect_tls(secure.trusting)
    await peer.send(get())
    await peer.expect_head(OK)
    assert clients == [peer.sock.getsockname()]
    (transport,) = served.server._connections
    sock = transport._transport.get_extra_info("socket")
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT) == 16384
    assert transport.tls


# -- closing -----------------------------------------------------------------------------------------------------------


async def test_closing_waits_for_handshakes_no_longer_than_the_grace_time(serving: Serving, secure: Secure) -> None:
    served = await serving(empty, ssl=secure.context, timeouts=Timeouts(grace=0.2, head=3_600))
    peers = await crowd(served, 20)
    await until(lambda: handshakes() == 20)
    async with asyncio.timeout(60):
        await served.server.close()
    assert handshakes() == 0
    assert still_open(peers) == []


async def test_the_time_for_handshakes_counts_into_the_grace_time(
    serving: Serving, secure: Secure, clock: Clock
) -> None:
    async def handler(request: Request) -> AsyncIterator[str]:
        try:
            yield "x"
            await asyncio.get_running_loop().create_future()
        finally:
            steps("closed")

    steps = Steps()
    served = await serving(handler, ssl=secure.context, timeouts=Timeouts(grace=3, head=3_600))
    streaming = await served.connect_tls(secure.trusting)
    await streaming.send(get(accept="text/plain"))
    await streaming.until(chunk(b"x"))
    (silent,) = await crowd(served, 1)
    await until(lambda: handshakes() == 1)
    closing = served.server.close()
    await clock.advance(0.875)
    assert still_open([silent]) == [silent]
    await clock.advance(0.25)
    assert still_open([silent]) == []
    await clock.advance(1.75)
    assert steps.done == []
    await clock.advance(0.25)
    assert steps.done == ["closed"]
    await closing


async def test_closing_again_cuts_them_at_once(
    serving: Serving, secure: Secure, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rawstream.handshake._LAST", 3_600)
    served = await serving(empty, ssl=secure.context, timeouts=Timeouts(grace=3_600, head=3_600))
    peers = await crowd(served, 20)
    await until(lambda: handshakes() == 20)
    served.server.begin_closing()
    await settle()
    assert len(still_open(peers)) == 20
    await served.server.close()
    assert still_open(peers) == []


async def test_one_that_has_just_come_is_cut_too(
    serving: Serving, secure: Secure, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its handshake has hardly begun."""
    monkeypatch.setattr("rawstream.handshake._LAST", 3_600)
    served = await serving(empty, ssl=secure.context, timeouts=Timeouts(grace=3_600, head=3_600))
    peer = await served.connect()
    await until(lambda: handshakes() == 1)
    served.server.begin_closing()
    await served.server.close()
    assert is_cut(peer)


async def test_nothing_is_kept_of_handshakes_that_failed(serving: Serving, secure: Secure) -> None:
    served = await serving(empty, ssl=secure.context)

    async def some() -> int:
        for _ in range(50):
            (await served.connect()).close()
        await until(lambda: handshakes() == 0)
        await settle()
        gc.collect()
        return sum(type(one).__name__ in {"Transport", "SSLProtocol", "Task"} for one in gc.get_objects())

    before = await some()
    assert await some() <= before
    assert not served.server._admission._places


# -- out of files ------------------------------------------------------------------------------------------------------


class Full(socket.socket):
    """A listening socket of a process that may open no more files, so many times."""

    times = 1

    def accept(self) -> tuple[socket.socket, object]:
        if self.times:
            self.times -= 1
            raise OSError(24, "Too many open files")
        return super().accept()


async def test_who_comes_when_no_file_may_be_opened_is_taken_later(
    serving: Serving, secure: Secure, monkeypatch: pytest.MonkeyPatch, failures: Failures
) -> None:
    monkeypatch.setattr("rawstream.listening._OUT_OF_FILES", 0.01)
    sock = Full()
    sock.bind(("127.0.0.1", 0))
    served = await serving(empty, ssl=secure.context, sockets=[sock])
    await is_served(served, secure)
    assert (
        failures.records.pop().getMessage() == "no connection can be accepted for now: [Errno 24] Too many open files"
    )
