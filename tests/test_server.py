"""Listening, closing in order, signals, Unix sockets, inherited sockets and TLS."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import re
import signal
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, Literal

import pytest
import trustme
from support import (
    LAST_CHUNK,
    SSE_HEAD,
    TEXT_HEAD,
    Clock,
    Failures,
    Peer,
    Served,
    Serving,
    Steps,
    TlsPeer,
    chunk,
    get,
    in_background,
    settle,
    until,
)

from rawstream import Limits, Request, Response, Server, Stream, Timeouts, errors, serve

pytestmark = pytest.mark.usefixtures("orderly")

EMPTY = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
SSE = "text/event-stream"


async def empty(request: Request) -> Response:
    return Response()


class Endless:
    """A handler whose streams give "x" and then wait until they are cancelled; `steps` has what became of them."""

    def __init__(self) -> None:
        self.steps = Steps()

    async def __call__(self, request: Request) -> Stream:
        return Stream(self.items(), format="text")

    async def items(self) -> AsyncIterator[str]:
        try:
            yield "x"
            self.steps("waits")
            await asyncio.get_running_loop().create_future()
        finally:
            self.steps("finally")


async def open_stream(server: Server) -> Peer:
    """A client of Endless that has got its first item."""
    peer = await Peer.connect(server.addresses[0])
    await peer.send(get())
    await peer.until(chunk(b"x"))
    return peer


async def ended(server: Server) -> None:
    """Nobody can connect any more, and nothing is left."""
    assert server.addresses == []
    assert server.connections == 0
    await server.wait_closed()


# -- listening ---------------------------------------------------------------------------------------------------------


async def test_it_tells_where_it_listens_and_how_many_connections_are_open(serving: Serving) -> None:
    served = await serving(empty)
    [(host, port)] = served.server.addresses
    assert host == "127.0.0.1"
    assert port > 0
    assert served.server.connections == 0
    peer = await served.ask(get())
    await peer.expect_head(EMPTY)
    other = await served.ask(get())
    await other.expect_head(EMPTY)
    assert served.server.connections == 2
    peer.close()
    await until(lambda: served.server.connections == 1)


async def test_it_can_be_awaited_and_closed() -> None:
    server = await serve(empty, port=0)
    assert len(server.addresses) == 1
    assert await server.close() is None
    await ended(server)


async def test_leaving_the_block_closes_it() -> None:
    async with serve(empty, port=0) as server:
        address = server.addresses[0]
    await ended(server)
    with pytest.raises(ConnectionRefusedError):
        await Peer.connect(address)


async def test_leaving_the_block_by_an_exception_closes_it_and_lets_it_through() -> None:
    with pytest.raises(ZeroDivisionError):
        async with serve(empty, port=0) as server:
            raise ZeroDivisionError
    await ended(server)


@pytest.mark.parametrize(("host", "name"), [("::1", "::1"), ("localhost", None)])
async def test_other_hosts(host: str, name: str | None) -> None:
    async with serve(empty, host, 0) as server:
        if name is not None:
            assert [address[0] for address in server.addresses] == [name]
        assert len({address[1] for address in server.addresses}) == 1
        for address in server.addresses:
            assert not isinstance(address, str)
            peer = await Peer.connect(address)
            await peer.send(get())
            await peer.expect_head(EMPTY)
            peer.close()


async def test_several_hosts() -> None:
    async with serve(empty, ["127.0.0.1", "127.0.0.2"], 0) as server:
        hosts = [address[0] for address in server.addresses]
        assert hosts == ["127.0.0.1", "127.0.0.2"]
        for address in server.addresses:
            peer = await Peer.connect(address)
            await peer.send(get())
            await peer.expect_head(EMPTY)
            peer.close()


async def test_a_port_in_use_is_an_os_error(serving: Serving) -> None:
    served = await serving(empty)
    with pytest.raises(OSError) as raised:
        await serve(empty, port=served.server.addresses[0][1])
    assert raised.value.errno == errno.EADDRINUSE


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])
async def test_what_cannot_be_listened_on_leaves_nothing_open(
    tls: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    context = server_context(trustme.CA()) if tls else None
    tcp, unix, closed = socket.socket(), socket.socket(socket.AF_UNIX), socket.socket()
    tcp.bind(("127.0.0.1", 0))
    unix.bind("a.sock")
    closed.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        await serve(empty, sockets=[tcp, unix, closed], unix="a.sock", ssl=context)
    await settle()
    assert (tcp.fileno(), unix.fileno()) == (-1, -1)
    assert not Path("a.sock").exists()


def test_what_is_no_context_for_tls_is_refused() -> None:
    no_context: Any = True
    with pytest.raises(errors.LocalError, match="ssl= is an SSLContext, not bool"):
        serve(empty, ssl=no_context)


async def test_signals_that_cannot_be_taken_leave_nothing_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the main thread takes signals."""
    with pytest.raises((ValueError, RuntimeError)):
        await asyncio.to_thread(asyncio.run, serve(empty, port=0, signals=True)._start())


@pytest.mark.parametrize("handler", [None, "module:handler", 1])
def test_a_handler_that_cannot_be_called_is_refused(handler: Any) -> None:
    with pytest.raises(errors.LocalError, match=f"a handler is a function or a Router, not {type(handler).__name__}"):
        serve(handler)


def test_a_unix_socket_and_a_descriptor_together_are_refused() -> None:
    with pytest.raises(errors.LocalError, match="not both"):
        serve(empty, unix="a.sock", fd=3)


async def test_accepted_sockets_are_set_up_for_streams(serving: Serving) -> None:
    served = await serving(empty, timeouts=Timeouts(write_stall=7.5, grace=60))
    peer = await served.ask(get())
    await peer.expect_head(EMPTY)
    [transport] = served.server._connections
    descriptor = os.dup(transport._transport.get_extra_info("socket").fileno())
    with socket.socket(fileno=descriptor) as accepted:
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT) == 16384
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 7500


async def test_a_failure_of_our_own_is_logged_and_costs_one_connection(
    serving: Serving, failures: Failures, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Odd(Exception):
        """What nobody thought of."""

    async def fail(self: object) -> None:
        raise Odd

    served = await serving(empty)
    with monkeypatch.context() as broken:
        broken.setattr("rawstream.connection.Connection._finish", fail)
        peer = await served.ask(get("/", None, "Connection: close"))
        await peer.expect_head(EMPTY.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    assert await peer.rest() == b""
    assert peer.ending == "reset"
    record = failures.records.pop()
    assert record.getMessage() == "a connection failed in rawstream itself"
    assert record.exc_info is not None
    assert record.exc_info[0] is Odd
    await (await served.ask(get())).expect_head(EMPTY)


async def test_it_tells_how_many_connections_are_busy(serving: Serving) -> None:
    steps, gate = Steps(), asyncio.Event()

    async def handler(request: Request) -> Response:
        steps(served.server.busy)
        if request.path == "/waits":
            await gate.wait()
        return Response()

    served = await serving(handler)
    idle = await served.ask(get())
    await idle.expect_head(EMPTY)
    peer = await served.ask(get("/waits"))
    await steps.reach(1, 1)
    assert (served.server.connections, served.server.busy) == (2, 1)
    gate.set()
    await peer.expect_head(EMPTY)
    await settle()
    assert (served.server.connections, served.server.busy) == (2, 0)


# -- closing -----------------------------------------------------------------------------------------------------------


async def test_closing_refuses_new_connections_and_ends_idle_ones_at_once(serving: Serving) -> None:
    served = await serving(empty)
    address = served.server.addresses[0]
    used = await served.ask(get())
    await used.expect_head(EMPTY)
    fresh = await served.connect()
    await until(lambda: served.server.connections == 2)
    served.server.close()
    assert served.server.closing.is_set()
    assert await used.rest() == b""
    assert await fresh.rest() == b""
    assert (used.ending, fresh.ending) == ("end", "end")
    with pytest.raises(ConnectionRefusedError):
        await Peer.connect(address)
    await served.server.wait_closed()


async def test_requests_see_that_the_server_closes(serving: Serving) -> None:
    steps = Steps()

    async def handler(request: Request) -> Response:
        assert not request.closing.is_set()
        steps("waits")
        await request.closing.wait()
        return Response()

    served = await serving(handler)
    peer = await served.ask(get())
    await steps.reach("waits")
    served.server.close()
    assert (await peer.head()).startswith(b"HTTP/1.1 200 OK\r\n")
    await served.server.wait_closed()


@pytest.mark.parametrize("head", [None, "item"])
async def test_a_stream_whose_head_leaves_only_then_is_told_first(
    serving: Serving, head: Literal["item"] | None
) -> None:
    steps = Steps()

    async def items(request: Request) -> AsyncIterator[str]:
        if head == "item":
            steps("waits")
            await request.closing.wait()
        yield "x"

    async def handler(request: Request) -> Stream:
        if head is None:
            steps("waits")
            await request.closing.wait()
        return Stream(items(request), format="sse", head=head)

    served = await serving(handler)
    peer = await served.ask(get())
    await steps.reach("waits")
    served.server.close()
    assert (await peer.head()).startswith(b"HTTP/1.1 200 OK\r\n")
    told = await peer.rest()
    assert re.fullmatch(
        rb"[0-9a-f]+\r\nevent: stream-closing\ndata: {}\nretry: [1-5][0-9]{3}\n\n\r\n9\r\ndata: x\n\n\r\n0\r\n\r\n",
        told,
    )
    await served.server.wait_closed()


async def test_an_open_stream_has_the_grace_time_and_is_then_cut(serving: Serving, clock: Clock) -> None:
    endless = Endless()
    served = await serving(endless, timeouts=Timeouts(grace=5))
    peer = await open_stream(served.server)
    draining = served.server.close()
    await clock.advance(4.875)
    assert endless.steps.done == ["waits"]
    await clock.advance(0.25)
    assert endless.steps.done == ["waits", "finally"]
    await draining
    assert await peer.rest() == b""
    assert peer.ending == "reset"
    peer.close()


async def test_without_grace_open_streams_are_cut_at_once(serving: Serving) -> None:
    endless = Endless()
    served = await serving(endless, timeouts=Timeouts(grace=0))
    peer = await open_stream(served.server)
    await served.server.close()
    assert endless.steps.done == ["waits", "finally"]
    peer.close()


async def test_closing_is_over_when_the_last_stream_ends(serving: Serving) -> None:
    steps = Steps()

    async def handler(request: Request) -> AsyncIterator[str]:
        yield "x"
        await request.closing.wait()
        steps("says goodbye")
        yield "goodbye"

    served = await serving(handler)
    peer = await served.ask(get(accept="text/plain"))
    assert await peer.head() == TEXT_HEAD
    await peer.expect(chunk(b"x"))
    await served.server.close()
    assert steps.done == ["says goodbye"]
    assert await peer.rest() == chunk(b"goodbye") + LAST_CHUNK


async def test_closing_a_second_time_cuts(serving: Serving) -> None:
    endless = Endless()
    served = await serving(endless)
    peer = await open_stream(served.server)
    served.server.close()
    await settle()
    assert endless.steps.done == ["waits"]
    await served.server.close()
    assert endless.steps.done == ["waits", "finally"]
    peer.close()


async def test_closing_again_when_it_is_closed_does_nothing() -> None:
    server = await serve(empty, port=0)
    await server.close()
    await server.close()
    server.begin_closing()
    await ended(server)


async def test_closing_cuts_an_answer_that_nobody_takes(serving: Serving, clock: Clock) -> None:
    """Its handler is done, its bytes are still on their way."""

    async def handler(request: Request) -> Response:
        return Response(200, {"Connection": "close"}, bytes(8_000_000))

    served = await serving(handler, timeouts=Timeouts(grace=2), limits=Limits(high_water=10_000_000))
    peer = await served.connect(receive_buffer=16384)
    await peer.send(get())
    await peer.head()
    draining = served.server.close()
    await clock.advance(3)
    await draining


async def test_an_answer_is_written_out_before_the_connection_closes(serving: Serving) -> None:
    async def handler(request: Request) -> Response:
        return Response(200, {"Connection": "close"}, bytes(3_000_000))

    served = await serving(handler)
    peer = await served.connect(receive_buffer=16384)
    await peer.send(get())
    await peer.head()
    draining = served.server.close()
    assert await peer.rest() == bytes(3_000_000)
    assert peer.ending == "end"
    await draining


async def test_closing_waits_for_the_clean_up_after_clients_that_are_gone(serving: Serving) -> None:
    steps, gate = Steps(), asyncio.Event()

    async def handler(request: Request) -> AsyncIterator[str]:
        try:
            yield "x"
            await asyncio.get_running_loop().create_future()
        finally:
            steps("cleans up")
            await gate.wait()
            steps("has cleaned up")

    served = await serving(handler)
    peer = await served.ask(get(accept="text/plain"))
    await peer.until(chunk(b"x"))
    peer.reset()
    await steps.reach("cleans up")
    draining = served.server.close()
    await settle()
    assert not draining.done()
    gate.set()
    await draining
    assert steps.done == ["cleans up", "has cleaned up"]


async def test_a_handler_that_does_not_end_is_left_behind_and_the_log_says_so(
    serving: Serving, failures: Failures, clock: Clock
) -> None:
    steps, gate = Steps(), asyncio.Event()

    async def handler(request: Request) -> Response:
        steps("waits")
        while not gate.is_set():
            try:
                await gate.wait()
            except asyncio.CancelledError:
                steps("ignores it")
        steps("ends")
        return Response()

    served = await serving(handler, timeouts=Timeouts(grace=1))
    await served.ask(get())
    await steps.reach("waits")
    draining = served.server.close()
    await clock.advance(4)
    await draining
    record = failures.records.pop()
    assert record.getMessage() == "handlers that do not end although they were cancelled: 1; left behind"
    assert served.server.left_behind == 1
    assert served.server.connections == 0
    gate.set()
    await until(lambda: steps.done[-1] == "ends")


async def test_cancelling_the_closing_cuts_and_keeps_nobody_waiting(serving: Serving) -> None:
    endless = Endless()
    served = await serving(endless)
    peer = await open_stream(served.server)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(served.server.close(), 0.01)
    await served.server.wait_closed()
    await endless.steps.reach("waits", "finally")
    assert await peer.rest() == b""
    peer.close()


async def cancel(closing: asyncio.Future[None]) -> None:
    closing.cancel()


async def wait_no_time(closing: asyncio.Future[None]) -> None:
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(closing, 0)


async def time_out(closing: asyncio.Future[None]) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await closing


@pytest.mark.parametrize("give_up", [cancel, wait_no_time, time_out])
async def test_cancelling_the_closing_before_it_has_begun_cuts_too(
    serving: Serving, give_up: Callable[[asyncio.Future[None]], Awaitable[None]]
) -> None:
    endless = Endless()
    served = await serving(endless)
    peer = await open_stream(served.server)
    await give_up(served.server.close())
    await served.server.wait_closed()
    assert endless.steps.done == ["waits", "finally"]
    assert served.server.left_behind == 0
    await ended(served.server)
    peer.close()


async def test_what_fails_while_it_closes_keeps_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: object) -> None:
        raise ZeroDivisionError

    server = await serve(empty, port=0)
    monkeypatch.setattr("rawstream.listening.Listening.remove_file", fail)
    with pytest.raises(ZeroDivisionError):
        await server.close()
    await server.wait_closed()


async def test_everyone_who_waits_is_told_that_it_is_closed() -> None:
    server = await serve(empty, port=0)
    waiting = [in_background(server.wait_closed()) for _ in range(2)]
    await settle()
    assert not any(task.done() for task in waiting)
    server.close()
    await asyncio.gather(*waiting)


async def test_who_stops_waiting_does_not_stop_the_closing(serving: Serving) -> None:
    endless = Endless()
    served = await serving(endless)
    peer = await open_stream(served.server)
    served.server.close()
    waiting = in_background(served.server.wait_closed())
    await settle()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert served.server.connections == 1
    peer.close()
    await served.server.wait_closed()


async def test_cancelling_the_block_drains(serving: Serving) -> None:
    steps = Steps()

    async def handler(request: Request) -> AsyncIterator[str]:
        yield "x"
        await request.closing.wait()
        yield "goodbye"

    async def main() -> None:
        async with serve(handler, port=0, timeouts=Timeouts(grace=60)) as server:
            steps(server)
            await asyncio.get_running_loop().create_future()

    task = in_background(main())
    await until(lambda: bool(steps.done))
    server = steps.done[0]
    peer = await Peer.connect(server.addresses[0])
    await peer.send(get(accept="text/plain"))
    assert await peer.head() == TEXT_HEAD
    await peer.expect(chunk(b"x"))
    task.cancel()
    assert await peer.rest() == chunk(b"goodbye") + LAST_CHUNK
    with pytest.raises(asyncio.CancelledError):
        await task
    await ended(server)
    peer.close()


async def test_cancelling_the_block_again_cuts() -> None:
    endless, servers = Endless(), []

    async def main() -> None:
        async with serve(endless, port=0, timeouts=Timeouts(grace=60)) as server:
            servers.append(server)
            await asyncio.get_running_loop().create_future()

    task = in_background(main())
    await until(lambda: bool(servers))
    peer = await open_stream(servers[0])
    task.cancel()
    await settle()
    assert endless.steps.done == ["waits"]
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert endless.steps.done == ["waits", "finally"]
    await ended(servers[0])
    peer.close()


async def test_leaving_the_block_after_close_does_not_cut() -> None:
    async def handler(request: Request) -> AsyncIterator[str]:
        yield "x"
        await request.closing.wait()
        yield "goodbye"

    async with serve(handler, port=0, timeouts=Timeouts(grace=60)) as server:
        peer = await Peer.connect(server.addresses[0])
        await peer.send(get(accept="text/plain"))
        await peer.until(chunk(b"x"))
        server.close()
    assert await peer.rest() == chunk(b"goodbye") + LAST_CHUNK
    peer.close()


async def test_a_connection_that_arrives_while_it_closes_is_ended_at_once(serving: Serving) -> None:
    """Here its TLS handshake was under way."""
    authority = trustme.CA()
    steps = Steps()

    async def handler(request: Request) -> AsyncIterator[str]:
        yield "x"
        steps("waits")
        await gate.wait()

    gate = asyncio.Event()
    served = await serving(handler, ssl=server_context(authority))
    streaming = await served.connect_tls(client_context(authority))
    await streaming.send(get())
    await steps.reach("waits")
    late = await served.connect()
    await settle()
    served.server.close()
    peer = TlsPeer(late.sock, client_context(authority))
    await peer.handshake()
    assert await peer.rest() == b""
    gate.set()
    await streaming.rest()
    await served.server.wait_closed()


# -- signals -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_closes_it_and_a_second_one_cuts(number: int) -> None:
    endless = Endless()
    server = await serve(endless, port=0, signals=True, timeouts=Timeouts(grace=60))
    peer = await open_stream(server)
    os.kill(os.getpid(), number)
    await server.closing.wait()
    await settle()
    assert endless.steps.done == ["waits"]
    os.kill(os.getpid(), number)
    await server.wait_closed()
    assert endless.steps.done == ["waits", "finally"]
    peer.close()


async def test_signals_are_given_back_when_it_is_closed() -> None:
    before = signal.getsignal(signal.SIGTERM)
    async with serve(empty, port=0, signals=True):
        pass
    assert signal.getsignal(signal.SIGTERM) == before


async def test_signals_are_the_programs_unless_it_gives_them(serving: Serving) -> None:
    steps = Steps()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, lambda: steps("the program's"))
    served = await serving(empty)
    os.kill(os.getpid(), signal.SIGTERM)
    await steps.reach("the program's")
    assert not served.server.closing.is_set()
    loop.remove_signal_handler(signal.SIGTERM)


# -- Unix sockets, inherited sockets -----------------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A short path: a Unix socket's has 107 bytes at most."""
    monkeypatch.chdir(tmp_path)
    return "a.sock"


async def exchange(server: Server) -> None:
    """One request and its answer."""
    peer = await Peer.connect(server.addresses[0])
    await peer.send(get())
    await peer.expect_head(EMPTY)
    peer.close()


async def test_a_unix_socket_is_served_and_its_file_removed(path: str) -> None:
    clients: list[Any] = []

    async def handler(request: Request) -> Response:
        clients.append(request.client)
        return Response()

    async with serve(handler, unix=path) as server:
        assert server.addresses == [path]
        await exchange(server)
    assert not Path(path).exists()
    assert clients == [None]


async def test_a_path_object_is_a_path_too(path: str) -> None:
    async with serve(empty, unix=Path(path)) as server:
        assert server.addresses == [path]


async def test_a_vanished_client_of_a_unix_socket_is_noticed(path: str) -> None:
    endless = Endless()
    async with serve(endless, unix=path) as server:
        peer = await open_stream(server)
        peer.close()
        await endless.steps.reach("waits", "finally")


async def test_the_file_of_a_server_that_was_killed_is_replaced(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(path)
        killed.listen()
    async with serve(empty, unix=path) as server:
        await exchange(server)
    assert not Path(path).exists()


async def test_a_file_that_another_server_put_there_meanwhile_is_left(path: str) -> None:
    async with serve(empty, unix=path):
        Path(path).unlink()
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(path)
    assert Path(path).is_socket()


async def test_a_file_that_is_gone_already_is_no_trouble(path: str) -> None:
    async with serve(empty, unix=path):
        Path(path).unlink()


async def test_a_file_that_cannot_be_removed_is_logged_and_keeps_nobody_waiting(
    path: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Privileges that were needed to bind there have been given up, for example."""
    os.mkdir("place")
    async with serve(empty, unix=f"place/{path}") as server:
        os.unlink(f"place/{path}")
        os.rmdir("place")
        Path("place").touch()
        await server.close()
    (record,) = caplog.records
    assert (
        record.getMessage() == f"the socket file {os.path.abspath(f'place/{path}')} cannot be removed: Not a directory"
    )
    assert record.levelname == "WARNING"


async def test_a_unix_socket_that_is_served_already_is_an_os_error(path: str) -> None:
    async with serve(empty, unix=path) as server:
        with pytest.raises(OSError) as raised:
            await serve(empty, unix=path)
        assert raised.value.errno == errno.EADDRINUSE
        await exchange(server)


async def test_an_inherited_socket_is_served(serving: Serving) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    address = listener.getsockname()
    async with serve(empty, fd=listener.detach()) as server:
        assert server.addresses == [address]
        await exchange(server)


async def test_the_file_of_an_inherited_unix_socket_stays(path: str) -> None:
    """It belongs to who made it, and serves the next server: a restart loses no connection."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        for _ in range(2):
            async with serve(empty, fd=os.dup(listener.fileno())) as server:
                assert server.addresses == [path]
                await exchange(server)
            assert Path(path).is_socket()


async def test_a_descriptor_that_is_no_listening_socket_is_refused() -> None:
    with pytest.raises(OSError, match="file descriptor 9999 is not an open socket"):
        await serve(empty, fd=9999)


# -- TLS ---------------------------------------------------------------------------------------------------------------


def server_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


def client_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


Secure = Callable[..., Any]


@pytest.fixture
def secure(serving: Serving, authority: trustme.CA) -> Secure:
    async def start(handler: Any, **options: Any) -> Served:
        return await serving(handler, ssl=server_context(authority), **options)

    return start


async def test_a_stream_flushes_under_tls_as_in_plain(secure: Secure, authority: trustme.CA) -> None:
    gates = [asyncio.Event(), asyncio.Event()]

    async def handler(request: Request) -> AsyncIterator[str]:
        for gate in gates:
            yield "x"
            await gate.wait()

    peer = await (await secure(handler)).connect_tls(client_context(authority))
    await peer.send(get(accept=SSE))
    assert await peer.head() == SSE_HEAD
    await peer.expect(chunk(b"data: x\n\n"))
    gates[0].set()
    await peer.expect(chunk(b"data: x\n\n"))
    gates[1].set()
    await peer.expect(chunk(b"event: stream-end\ndata: {}\nid: stream-end\n\n") + LAST_CHUNK)
    await peer.send(get(accept=SSE))
    assert await peer.head() == SSE_HEAD


@pytest.mark.parametrize("leave", [Peer.reset, Peer.close, Peer.finish], ids=["reset", "close", "end of sending"])
async def test_a_vanished_client_is_noticed_under_tls(
    secure: Secure, authority: trustme.CA, leave: Callable[[Peer], None]
) -> None:
    endless = Endless()
    peer = await (await secure(endless)).connect_tls(client_context(authority))
    await peer.send(get())
    await peer.until(chunk(b"x"))
    await endless.steps.reach("waits")
    leave(peer)
    await endless.steps.reach("waits", "finally")


async def test_a_producer_waits_for_its_reader_under_tls(secure: Secure, authority: trustme.CA) -> None:
    steps = Steps()

    async def items() -> AsyncIterator[bytes]:
        while True:
            yield bytes(10_000)
            steps("item")

    async def handler(request: Request) -> Stream:
        return Stream(items(), format="bytes")

    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16384)
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    served = await secure(handler, fd=listener.detach(), limits=Limits(high_water=20_000))
    peer = await served.connect_tls(client_context(authority), receive_buffer=16384)
    await peer.send(get())
    await peer.until(b"\r\n\r\n")
    count = -1
    while count != len(steps.done):
        count = len(steps.done)
        await settle()
    # asyncio's and uvloop's own buffer of 64 KiB below TLS comes on top of what is held in plain.
    assert count * 10_000 < 350_000
    while len(steps.done) == count:
        await peer.until(bytes(5_000))


async def test_a_reader_that_takes_nothing_is_cut_under_tls(secure: Secure, authority: trustme.CA) -> None:
    endless = Endless()

    async def handler(request: Request) -> Stream:
        return Stream(flood(endless.steps), format="bytes")

    async def flood(steps: Steps) -> AsyncIterator[bytes]:
        try:
            while True:
                yield bytes(100_000)
        finally:
            steps("finally")

    served = await secure(handler, timeouts=Timeouts(write_stall=0.1, grace=60))
    peer = await served.connect_tls(client_context(authority), receive_buffer=16384)
    await peer.send(get())
    await peer.until(b"\r\n\r\n")
    await endless.steps.reach("finally")
    await until(lambda: served.server.connections == 0)


async def test_a_tls_handshake_has_the_time_of_a_head(secure: Secure) -> None:
    served = await secure(empty, timeouts=Timeouts(head=0.1))
    reader, writer = await asyncio.open_connection(*served.server.addresses[0])
    assert await reader.read() == b""
    writer.close()
    await writer.wait_closed()


async def test_closing_ends_an_idle_tls_connection_properly(secure: Secure, authority: trustme.CA) -> None:
    served = await secure(empty)
    peer = await served.connect_tls(client_context(authority))
    await peer.send(get())
    await peer.expect_head(EMPTY)
    served.server.close()
    assert await peer.rest() == b""
    assert peer.ending == "end"


async def test_who_speaks_plain_to_tls_is_cut_and_nothing_is_logged_as_a_failure(
    secure: Secure, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    asyncio.get_running_loop().slow_callback_duration = 60  # else a warning on a busy machine
    served = await secure(empty)
    peer = await served.ask(get())
    await peer.rest()
    assert not caplog.records
    assert served.server.connections == 0


async def test_an_idle_tls_connection_that_both_sides_close_is_closed_once(
    secure: Secure, authority: trustme.CA
) -> None:
    """asyncio's TLS transport breaks when it is closed twice."""
    served = await secure(empty)
    peer = await served.connect_tls(client_context(authority))
    await peer.send(get())
    await peer.expect_head(EMPTY)
    peer.finish()
    served.server.close()
    await peer.rest()
    await served.server.wait_closed()


async def test_a_body_refused_under_tls(secure: Secure, authority: trustme.CA) -> None:
    async def handler(request: Request) -> Response:
        return Response(200, (), await request.body())

    served = await secure(handler, limits=Limits(body=5))
    peer = await served.connect_tls(client_context(authority))
    await peer.send(b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 6\r\n\r\n")
    assert (await peer.head()).startswith(b"HTTP/1.1 413 ")
    await peer.until(b"at most 5 bytes here\n")
    peer.close()
