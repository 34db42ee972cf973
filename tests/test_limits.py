"""What a server takes on at once, and for how long: attacked over real sockets, while others go on being served."""

from __future__ import annotations

import asyncio
import logging
import re
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from subprocess import PIPE
from typing import Any

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
    chunk,
    get,
    in_background,
    request,
    settle,
    until,
)

from rawstream import Every, Limits, Request, Response, Stream, Timeouts, observe
from rawstream.transport import Transport


@pytest.fixture(autouse=True)
def _counted_from_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The counts belong to the process, and so does when a refusal was last told."""
    monkeypatch.setattr(observe, "counts", observe.Counts())
    monkeypatch.setattr(observe, "_told", {})


SSE = "text/event-stream"
NDJSON = "application/x-ndjson"


async def path(request: Request) -> Response:
    return Response.text(request.path)


async def echo(request: Request) -> Response:
    return Response.text(str(len(await request.body())))


async def served_as_ever(served: Served, target: str = "/ok") -> None:
    """Somebody else comes, asks for `target`, and gets it."""
    peer = await served.ask(get(target))
    assert (await peer.response())[1] == target.encode()
    peer.close()


async def busy_refusal(peer: Peer) -> None:
    """The answer is 503, says when to come back, and the connection ends properly."""
    head, _ = await peer.response()
    assert head.startswith(b"HTTP/1.1 503 Service Unavailable\r\n"), head
    assert b"\r\nConnection: close\r\n" in head
    [after] = [line for line in head.split(b"\r\n") if line.startswith(b"Retry-After: ")]
    assert 1 <= int(after.partition(b": ")[2]) <= 60
    assert await peer.rest() == b""
    assert peer.ending == "end"


async def connections(served: Served, count: int) -> None:
    await until(lambda: served.server.connections == count)


class Claims:
    """A handler whose streams give "x" and wait; it counts what they claimed, released, and how many were closed."""

    def __init__(self) -> None:
        self.claimed = self.released = self.closed = 0
        self.gate = asyncio.Event()

    async def __call__(self, request: Request) -> Stream | Response:
        return Response.text("/ok") if request.path == "/ok" else Stream(self.Items(self))

    class Items:
        """An async generator, as seen from outside, that tells of its closing also if it never started."""

        def __init__(self, claims: Claims) -> None:
            self._claims = claims
            self._inner = self._items()

        async def _items(self) -> AsyncIterator[str]:
            self._claims.claimed += 1
            try:
                yield "x"
                await self._claims.gate.wait()
            finally:
                self._claims.released += 1

        def __aiter__(self) -> Claims.Items:
            return self

        async def __anext__(self) -> str:
            return await anext(self._inner)

        async def aclose(self) -> None:
            self._claims.closed += 1
            await self._inner.aclose()  # type: ignore[attr-defined]  # it is a generator


# -- connections -------------------------------------------------------------------------------------------------------


async def test_a_connection_too_many_is_told_when_to_come_back_and_the_next_is_served_when_one_has_left(
    serving: Serving,
) -> None:
    served = await serving(path, limits=Limits(connections=3), timeouts=Timeouts(linger=0.05, grace=60))
    peers = [await served.ask(get(f"/{number}")) for number in range(3)]
    for peer in peers:
        await peer.response()
    for _ in range(3):
        await busy_refusal(await served.connect())
    for number, peer in enumerate(peers):  # who was here first is not disturbed
        await peer.send(get(f"/again/{number}"))
        assert (await peer.response())[1] == b"/again/%d" % number
    peers[1].close()
    await connections(served, 2)
    await served_as_ever(served)


async def test_a_request_that_was_sent_before_the_refusal_does_not_hinder_it(serving: Serving) -> None:
    """Closing with bytes unread would make the kernel reset the connection, and the refusal would be lost."""
    served = await serving(path, limits=Limits(connections=1))
    await (await served.ask(get())).response()
    peer = await served.ask(request("/", method="POST", body=bytes(5_000)))
    head, _ = await peer.response()
    assert head.startswith(b"HTTP/1.1 503 ")
    peer.finish()
    assert await peer.rest() == b""
    assert peer.ending == "end"


async def test_a_crowd_that_is_refused_does_not_stay(serving: Serving) -> None:
    """A refused client that neither reads nor leaves takes a place only for a moment, and no place of others."""
    asyncio.get_running_loop().set_debug(False)  # its checks cost more than what is tested
    served = await serving(path, limits=Limits(connections=5), timeouts=Timeouts(linger=0.1, grace=60))
    guests = [await served.ask(get()) for _ in range(4)]
    for guest in guests:
        await guest.response()
    inside = await served.ask(get())
    await inside.response()
    crowd = [await served.connect() for _ in range(150)]
    await settle()
    inside.close()
    for peer in crowd:
        await peer.rest()
    await connections(served, 4)
    await served_as_ever(served)


async def test_connections_of_one_client_are_counted_and_others_are_not_kept_out(serving: Serving) -> None:
    served = await serving(
        path, "::", limits=Limits(connections_per_client=2), timeouts=Timeouts(linger=0.05, grace=60)
    )
    port = served.server.addresses[0][1]
    peers = [await Peer.connect(("::1", port)) for _ in range(2)]
    for peer in peers:
        await peer.send(get())
        await peer.response()
    third = await Peer.connect(("::1", port))
    await busy_refusal(third)
    peers[0].close()
    await connections(served, 1)
    fourth = await Peer.connect(("::1", port))
    await fourth.send(get())
    assert (await fourth.response())[1] == b"/"
    for peer in (peers[1], third, fourth):
        peer.close()


async def test_connections_by_a_trusted_proxy_are_not_counted_as_one_clients(serving: Serving) -> None:
    """Behind it are many; whoever comes by another way is one as ever."""
    served = await serving(path, limits=Limits(connections_per_client=1), trusted_proxies=["127.0.0.2"])

    async def connect(source: str) -> Peer:
        sock = socket.socket()
        sock.setblocking(False)
        sock.bind((source, 0))  # all of 127/8 is this machine
        await asyncio.get_running_loop().sock_connect(sock, served.server.addresses[0])
        return Peer(sock)

    peers = [await connect("127.0.0.2") for _ in range(5)]
    for number, peer in enumerate(peers):
        await peer.send(get(f"/{number}"))
        assert (await peer.response())[1] == b"/%d" % number
    for peer in peers:
        peer.close()
    await connections(served, 0)
    await (await served.ask(get())).response()
    await busy_refusal(await served.connect())


async def test_two_addresses_are_two_clients(serving: Serving) -> None:
    served = await serving(path, limits=Limits(connections_per_client=1))
    await (await served.ask(get())).response()
    await busy_refusal(await served.connect())
    sock = socket.socket()
    sock.setblocking(False)
    sock.bind(("127.0.0.2", 0))  # all of 127/8 is this machine
    await asyncio.get_running_loop().sock_connect(sock, served.server.addresses[0])
    other = Peer(sock)
    await other.send(get())
    assert (await other.response())[1] == b"/"
    other.close()


async def test_the_last_request_that_a_connection_may_have_says_so(serving: Serving) -> None:
    served = await serving(path, limits=Limits(requests=3))
    peer = await served.ask(get("/1"))
    for target in (b"/1", b"/2"):
        head, body = await peer.response()
        assert body == target
        assert b"\r\nConnection: close\r\n" not in head
        await peer.send(get("/2" if target == b"/1" else "/3"))
    head, body = await peer.response()
    assert body == b"/3"
    assert b"\r\nConnection: close\r\n" in head
    assert await peer.rest() == b""
    assert peer.ending == "end"
    await served_as_ever(served)


async def test_requests_beyond_the_last_of_a_connection_are_not_begun(serving: Serving) -> None:
    """They were sent at once; who sees `Connection: close` knows that the others may be sent again (RFC 9112 9.3.1)."""
    steps = Steps()

    async def handler(request: Request) -> Response:
        steps(request.path)
        return Response.text(request.path)

    peer = await (await serving(handler, limits=Limits(requests=2))).ask(get("/1") + get("/2") + get("/3") + get("/4"))
    assert b"Connection: close" not in (await peer.response())[0]
    assert b"\r\nConnection: close\r\n" in (await peer.response())[0]
    assert await peer.rest() == b""
    assert steps.done == ["/1", "/2"]


async def test_a_stream_can_be_the_last_answer_too(serving: Serving) -> None:
    async def handler(request: Request) -> AsyncIterator[str]:
        yield "x"

    peer = await (await serving(handler, limits=Limits(requests=1))).ask(get(accept="text/plain"))
    assert b"\r\nConnection: close\r\n" in await peer.head()
    assert await peer.rest() == chunk(b"x") + LAST_CHUNK
    assert peer.ending == "end"


# -- streams -----------------------------------------------------------------------------------------------------------


async def test_a_stream_too_many_is_refused_before_its_generator_starts_which_is_closed(serving: Serving) -> None:
    claims = Claims()
    served = await serving(claims, limits=Limits(streams=2))
    peers = [await served.ask(get(accept=SSE)) for _ in range(2)]
    for peer in peers:
        await peer.until(b"data: x\n\n")
    late = await served.ask(get(accept=SSE))
    head, _ = await late.response()
    assert head.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
    assert b"\r\nRetry-After: " in head
    assert (claims.claimed, claims.closed) == (2, 1)
    await served_as_ever(served)  # short answers are no streams
    peers[0].reset()
    await until(lambda: claims.released == 1)
    await late.send(get(accept=SSE))  # the refusal did not cost its connection
    await late.until(b"data: x\n\n")
    claims.gate.set()
    for peer in (peers[1], late):
        await peer.until(LAST_CHUNK)
    assert (claims.claimed, claims.released, claims.closed) == (3, 3, 4)


@pytest.mark.parametrize(
    "refused",
    [request("/", method="HEAD"), get(accept="image/png")],
    ids=["HEAD", "not acceptable"],
)
async def test_what_starts_no_stream_takes_no_streams_place(serving: Serving, refused: bytes) -> None:
    claims = Claims()
    served = await serving(claims, limits=Limits(streams=1))
    for _ in range(5):
        await (await served.ask(refused)).head()
    peer = await served.ask(get(accept=SSE))
    await peer.until(b"data: x\n\n")
    assert claims.claimed == 1
    claims.gate.set()
    await peer.until(LAST_CHUNK)


async def test_a_stream_that_failed_gives_its_place_back(serving: Serving, failures: Failures) -> None:
    async def handler(request: Request) -> AsyncIterator[str]:
        if request.path == "/at once":
            raise ZeroDivisionError
        yield "x"
        if request.path == "/later":
            await asyncio.sleep(0)
            raise ZeroDivisionError

    served = await serving(handler, limits=Limits(streams=1), timeouts=Timeouts(linger=0, grace=60))
    for target in ("/at%20once", "/later", "/at%20once", "/later"):
        await (await served.ask(get(target, "text/plain", "Connection: close"))).rest()
        assert isinstance(failures.take(), ZeroDivisionError)
    peer = await served.ask(get("/", "text/plain"))
    assert await peer.head() == TEXT_HEAD


# -- what a request may have -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (get("/" + "x" * 99), b"200"),  # 100 bytes: as long as may be
        (get("/" + "x" * 100), b"414"),
        (get("/?" + "x" * 99), b"414"),  # the query belongs to the target
        (get("/", None, *(f"X-{n}: y" for n in range(19))), b"200"),  # and Host
        (get("/", None, *(f"X-{n}: y" for n in range(20))), b"431"),
        (get("/", None, "X: " + "y" * 1000), b"431"),
        (b"GET / HTTP/1.1\r\nHost: test\r\nX: " + b"y" * 2000, b"431"),  # it is not waited for the end of the line
        (b"GET /" + b"x" * 2000, b"4"),  # 414 or 431: what it would have become is not known
        (request("/echo", method="POST", body=b"x" * 50), b"200"),
        (request("/echo", method="POST", body=b"x" * 51), b"413"),
        (request("/echo", "Transfer-Encoding: chunked", method="POST") + chunk(b"x" * 50) + LAST_CHUNK, b"200"),
        (request("/echo", "Transfer-Encoding: chunked", method="POST") + chunk(b"x" * 25) * 2 + chunk(b"x"), b"413"),
        (request("/echo", "Transfer-Encoding: chunked", method="POST") + chunk(b"x") * 51, b"413"),
    ],
)
async def test_a_request_beyond_a_limit_is_refused_and_others_are_served(
    serving: Serving, data: bytes, status: bytes
) -> None:
    async def handler(request: Request) -> Response:
        return await (echo if request.path == "/echo" else path)(request)

    served = await serving(handler, limits=Limits(target=100, head=800, headers=20, body=50))
    peer = await served.ask(data)
    head, _ = await peer.response()
    assert head.startswith(b"HTTP/1.1 " + status), head
    if b"\r\nConnection: close\r\n" not in head:  # it has all been read, and a next request can follow
        assert status in (b"200", b"413")
        await peer.send(get("/again"))
        assert (await peer.response())[1] == b"/again"
    else:
        assert status != b"200"
        peer.finish()
        assert await peer.rest() == b""
        assert peer.ending == "end"
    await served_as_ever(served)


async def test_a_body_that_is_nearly_all_framing_is_refused(serving: Serving) -> None:
    """A chunk of one byte may carry an extension of kilobytes, which nobody reads and no limit of the body counts."""
    served = await serving(echo, limits=Limits(body=1_000_000))
    peer = await served.ask(request("/", "Transfer-Encoding: chunked", method="POST"))
    sent = 0
    padded = b"1;" + b"x" * 8_000 + b"\r\nx\r\n"
    while sent < 4_000_000 and not peer.here().startswith(b"HTTP/1.1 4"):
        try:
            await peer.send(padded)
        except (BrokenPipeError, ConnectionResetError):
            break
        await settle()
        sent += len(padded)
    assert sent < 2_000_000


async def test_a_body_in_small_chunks_is_no_attack(serving: Serving) -> None:
    """Some clients send a chunk a line; framing that is as large as the data is theirs to choose."""
    peer = await (await serving(echo)).ask(request("/", "Transfer-Encoding: chunked", method="POST"))
    for _ in range(20):
        await peer.send(chunk(b"a few bytes") * 500)
    await peer.send(LAST_CHUNK)
    assert (await peer.response())[1] == b"110000"


async def test_what_is_sent_ahead_of_a_stream_is_held_to_its_limit_and_then_dropped(serving: Serving) -> None:
    steps, gate = Steps(), asyncio.Event()

    async def handler(request: Request) -> AsyncIterator[str]:
        steps(request.path)
        yield "x"
        await gate.wait()

    served = await serving(handler, limits=Limits(held=4_000))
    peer = await served.ask(get("/first", "text/plain"))
    assert await peer.head() == TEXT_HEAD
    ahead = get("/ahead", "text/plain") * 20_000
    assert await peer.send_until_stalled(ahead) == len(ahead)  # it is taken, so that a loss would be noticed
    await settle()
    [transport] = served.server._connections
    assert len(transport._inbox) <= 4_000
    gate.set()
    assert (await peer.rest()).endswith(LAST_CHUNK)
    assert steps.done == ["/first"]


@pytest.mark.parametrize("count", [1, 3_000])
async def test_requests_sent_ahead_are_all_answered_where_no_handler_waits(serving: Serving, count: int) -> None:
    served = await serving(path)
    peer = await served.connect()
    sending = in_background(peer.send(get("/a") * count + get("/last", None, "Connection: close")))
    data = await peer.rest()
    await sending
    assert data.count(b"HTTP/1.1 200 OK\r\n") == count + 1
    assert data.endswith(b"/last")
    assert peer.ending == "end"
    assert observe.counts.refused["pipelined"] == 0


async def test_requests_that_were_dropped_while_one_was_answered_are_told_of(
    serving: Serving, caplog: pytest.LogCaptureFixture
) -> None:
    gate = asyncio.Event()

    async def handler(request: Request) -> Response:
        await gate.wait()
        return Response.text(request.path)

    served = await serving(handler, limits=Limits(held=4_000))
    peer = await served.ask(get("/first"))
    await settle()
    await peer.send_until_stalled(get("/ahead") * 1_000)
    await settle()
    gate.set()
    head, body = await peer.response()
    assert b"\r\nConnection: close\r\n" in head
    assert body == b"/first"
    assert await peer.rest() == b""
    assert peer.ending == "end"
    assert observe.counts.refused["pipelined"] == 1
    [line] = [record.getMessage() for record in caplog.records if record.name == "rawstream"]
    assert line.startswith("requests were dropped: a client sent more of them ahead of their turn than Limits.held")


# -- time for a whole request, and for a stream's first item -----------------------------------------------------------

BRIEF = [Timeouts(request=5, linger=0), Timeouts(first_item=5, linger=0)]


@pytest.mark.parametrize("timeouts", [Timeouts(request=5)], ids=["request"])
async def test_an_answer_that_takes_too_long_is_a_503_and_its_handler_is_cancelled(
    serving: Serving, clock: Clock, timeouts: Timeouts
) -> None:
    steps = Steps()

    async def handler(request: Request) -> Response:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            steps("finally")
        raise AssertionError

    peer = await (await serving(handler, timeouts=timeouts)).ask(get())
    await clock.advance(4.75)
    assert steps.done == []
    assert peer.here() == b""
    await clock.advance(0.75)
    assert steps.done == ["finally"]
    head, _ = await peer.response()
    assert head.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
    assert b"\r\nRetry-After: 5\r\n" in head


@pytest.mark.parametrize("timeouts", BRIEF, ids=["request", "first item"])
async def test_a_stream_whose_first_item_does_not_come_in_time_is_a_503_before_its_head(
    serving: Serving, clock: Clock, timeouts: Timeouts
) -> None:
    steps = Steps()

    async def items() -> AsyncIterator[str]:
        try:
            await asyncio.get_running_loop().create_future()
            yield "x"
        finally:
            steps("finally")

    async def handler(request: Request) -> Stream:
        return Stream(items(), format="text", head="item")

    peer = await (await serving(handler, timeouts=timeouts)).ask(get())
    await clock.advance(4.75)
    assert steps.done == []
    await clock.advance(0.75)
    assert steps.done == ["finally"]
    head, _ = await peer.response()
    assert head.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
    assert b"\r\nRetry-After: 5\r\n" in head


@pytest.mark.parametrize("timeouts", BRIEF, ids=["request", "first item"])
async def test_a_stream_whose_first_item_does_not_come_in_time_is_told_and_cut_after_its_head(
    serving: Serving, clock: Clock, timeouts: Timeouts
) -> None:
    steps = Steps()

    async def handler(request: Request) -> AsyncIterator[str]:
        try:
            await asyncio.get_running_loop().create_future()
            yield "x"
        finally:
            steps("finally")

    peer = await (await serving(handler, timeouts=timeouts)).ask(get(accept=SSE))
    assert await peer.head() == SSE_HEAD
    await clock.advance(4.75)
    assert steps.done == []
    await clock.advance(0.75)
    assert steps.done == ["finally"]
    told = await peer.rest()
    assert b'event: stream-error\ndata: {"status":503' in told
    assert not told.endswith(LAST_CHUNK)


async def test_a_stream_that_lasts_too_long_is_told_and_cut(serving: Serving, clock: Clock) -> None:
    """Although it gives item after item."""
    steps = Steps()

    async def handler(request: Request) -> AsyncIterator[int]:
        try:
            for number in range(1_000):
                yield number
                await asyncio.sleep(1)
        finally:
            steps("finally")

    peer = await (await serving(handler, timeouts=Timeouts(request=5, linger=0))).ask(get(accept=NDJSON))
    await clock.advance(5.5)
    assert steps.done == ["finally"]
    told = await peer.rest()
    assert chunk(b"4\n") in told
    assert b'{"stream-error":{"status":503' in told
    assert not told.endswith(LAST_CHUNK)


async def test_after_its_first_item_a_stream_may_be_silent_as_long_as_it_likes(serving: Serving, clock: Clock) -> None:
    async def handler(request: Request) -> AsyncIterator[str]:
        await asyncio.sleep(4)
        yield "x"
        await asyncio.sleep(30)
        yield "y"

    peer = await (await serving(handler, timeouts=Timeouts(first_item=5))).ask(get(accept="text/plain"))
    await clock.advance(36)
    assert await peer.head() == TEXT_HEAD
    await peer.expect(chunk(b"x") + chunk(b"y") + LAST_CHUNK)


async def test_a_first_item_that_was_ready_and_is_held_back_counts(serving: Serving, clock: Clock) -> None:
    """What the generator gave in time was given in time, whenever the flush policy lets it leave."""

    async def items() -> AsyncIterator[str]:
        yield "x"
        await asyncio.sleep(20)
        yield "y"

    async def handler(request: Request) -> Stream:
        return Stream(items(), flush=Every(bytes=1_000_000, seconds=4))

    peer = await (await serving(handler, timeouts=Timeouts(first_item=2))).ask(get(accept="text/plain"))
    await clock.advance(25)
    assert await peer.head() == TEXT_HEAD
    assert await peer.until(LAST_CHUNK) == chunk(b"x") + chunk(b"y") + LAST_CHUNK


async def test_a_heartbeat_is_no_first_item(serving: Serving, clock: Clock) -> None:
    async def items() -> AsyncIterator[str]:
        await asyncio.get_running_loop().create_future()
        yield "x"

    async def handler(request: Request) -> Stream:
        return Stream(items(), format="sse", heartbeat=1)

    peer = await (await serving(handler, timeouts=Timeouts(first_item=5, linger=0))).ask(get())
    await clock.advance(6)
    told = await peer.rest()
    assert told.count(chunk(b":\n\n")) >= 3
    assert b"event: stream-error\n" in told


async def test_each_request_of_a_connection_has_its_own_time(serving: Serving, clock: Clock) -> None:
    async def handler(request: Request) -> Response:
        await asyncio.sleep(3)
        return Response.text(request.path)

    peer = await (await serving(handler, timeouts=Timeouts(request=5))).ask(get("/1") + get("/2") + get("/3"))
    await clock.advance(9.5)
    for target in (b"/1", b"/2", b"/3"):
        assert (await peer.response())[1] == target
    await clock.advance(20)  # an idle connection has no request under way
    await peer.send(get("/4"))
    await clock.advance(3.25)
    assert (await peer.response())[1] == b"/4"


async def test_a_request_that_took_too_long_does_not_cost_the_next_its_answer(serving: Serving, clock: Clock) -> None:
    async def handler(request: Request) -> Response:
        if request.path == "/slow":
            await asyncio.get_running_loop().create_future()
        return Response.text(request.path)

    peer = await (await serving(handler, timeouts=Timeouts(request=5))).ask(get("/slow") + get("/next"))
    await clock.advance(5.5)
    assert (await peer.response())[0].startswith(b"HTTP/1.1 503 ")
    assert (await peer.response())[1] == b"/next"


async def test_a_body_that_trickles_in_has_the_time_of_its_request(serving: Serving, clock: Clock) -> None:
    """Each of its bytes comes in time."""
    served = await serving(echo, timeouts=Timeouts(body=2, request=10, linger=0))
    peer = await served.ask(request("/", "Content-Length: 1000", method="POST"))
    for _ in range(12):
        await clock.advance(1)
        if await peer.send_until_stalled(b"x") == 0 or served.server.connections == 0:
            break
    head = await peer.head()
    assert head.startswith((b"HTTP/1.1 503 ", b"HTTP/1.1 408 "))
    await peer.rest()
    assert served.server.connections == 0


async def test_an_answer_that_its_reader_takes_too_slowly_is_cut_at_the_requests_end(
    serving: Serving, clock: Clock
) -> None:
    """It always takes a little, so it never counts as stalled."""

    async def items() -> AsyncIterator[bytes]:
        while True:
            yield bytes(10_000)

    async def handler(request: Request) -> Stream:
        return Stream(items(), format="bytes")

    served = await serving(handler, timeouts=Timeouts(write_stall=5, request=12, linger=0))
    peer = await served.connect(receive_buffer=16384)
    await peer.send(get())
    await peer.until(b"\r\n\r\n")
    for _ in range(11):
        await clock.advance(1)
        for _ in range(20):
            await peer.until(bytes(5_000))
    assert served.server.connections == 1
    await clock.advance(6)  # and what had been written by then is under the deadline of every write
    await until(lambda: served.server.connections == 0)


async def test_a_clean_up_after_the_time_is_over_is_waited_for(serving: Serving, clock: Clock) -> None:
    steps = Steps()

    async def handler(request: Request) -> Response:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            await asyncio.sleep(1)
            steps("cleaned up")
        raise AssertionError

    peer = await (await serving(handler, timeouts=Timeouts(request=5))).ask(get())
    await clock.advance(7)
    assert steps.done == ["cleaned up"]
    assert (await peer.response())[0].startswith(b"HTTP/1.1 503 ")


async def test_a_handler_that_ignores_that_its_time_is_over_may_still_answer(serving: Serving, clock: Clock) -> None:
    """It caught the cancellation, as `asyncio.shield` and `suppress` do; nothing hangs and nothing is said twice."""

    async def handler(request: Request) -> Response:
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            return Response.text("/ok")
        raise AssertionError

    served = await serving(handler, timeouts=Timeouts(request=5))
    peer = await served.ask(get())
    await clock.advance(6)
    head, _ = await peer.response()
    assert head.startswith((b"HTTP/1.1 503 ", b"HTTP/1.1 200 "))
    again = await served.ask(get())
    await clock.advance(6)
    assert (await again.response())[0] == head


async def test_a_client_that_leaves_when_its_time_is_over_is_only_gone(serving: Serving, clock: Clock) -> None:
    steps = Steps()

    async def handler(request: Request) -> AsyncIterator[str]:
        try:
            await asyncio.get_running_loop().create_future()
            yield "x"
        finally:
            await asyncio.sleep(1)
            steps("cleaned up")

    served = await serving(handler, timeouts=Timeouts(request=5))
    peer = await served.ask(get(accept=SSE))
    assert await peer.head() == SSE_HEAD
    await clock.advance(5.5)  # it cleans up
    peer.reset()
    await clock.advance(2)
    assert steps.done == ["cleaned up"]
    assert served.server.connections == 0


class Deaf:
    """Handlers that go on after they were told that their time is over."""

    def __init__(self) -> None:
        self.over = asyncio.Event()

    async def wait(self) -> None:
        """Wait, and swallow what would end it."""
        while not self.over.is_set():
            try:
                await self.over.wait()
            except asyncio.CancelledError:
                pass

    async def waits(self, request: Request) -> Response:
        """It never answers."""
        await self.wait()
        return Response()

    async def answers_with_a_stream(self, request: Request) -> Stream:
        """It swallows once, and then answers with a stream that has no end."""
        try:
            await self.over.wait()
        except asyncio.CancelledError:
            pass
        return Stream(self._stream(), format="text")

    async def _stream(self) -> AsyncIterator[str]:
        while not self.over.is_set():
            yield "x"
            await self._half_a_second()

    async def streams_on(self, request: Request) -> AsyncIterator[str]:
        """It yields on."""
        while not self.over.is_set():
            try:
                yield "x"
                await self._half_a_second()
            except asyncio.CancelledError:
                pass

    async def _half_a_second(self) -> None:
        try:
            async with asyncio.timeout(0.5):
                await self.over.wait()
        except TimeoutError:
            pass


@pytest.fixture
def deaf(serving: Serving) -> Iterator[Deaf]:
    deaf = Deaf()
    yield deaf
    deaf.over.set()


@pytest.mark.parametrize("kind", [Deaf.waits, Deaf.answers_with_a_stream, Deaf.streams_on])
async def test_a_handler_that_goes_on_after_its_time_loses_its_connection_in_the_end(
    serving: Serving, failures: Failures, clock: Clock, deaf: Deaf, kind: Any
) -> None:
    async def handler(request: Request) -> Any:
        if request.path == "/ok":
            return Response.text("/ok")
        answer = kind(deaf, request)
        return answer if hasattr(answer, "__aiter__") else await answer

    served = await serving(handler, timeouts=Timeouts(request=5, clean_up=3, linger=0, grace=60))
    peer = await served.ask(get())
    await clock.advance(15)
    told = [record.getMessage() for record in failures.records]
    failures.records.clear()
    assert served.server.connections == 0, "its client hangs on"
    assert not (await peer.rest()).endswith(LAST_CHUNK)
    assert 1 <= len(told) <= 2, told
    await served_as_ever(served)


# -- large answers -----------------------------------------------------------------------------------------------------

LARGE = bytes(range(250)) * 16_000
PIECE = 64 * 1024  # bytes of a body that are handed over at once


async def large(request: Request) -> Response:
    return Response(200, (), LARGE)


async def stalled(serving: Serving, count: int, **options: Any) -> tuple[Served, list[Peer]]:
    """A server and clients with small buffers in the kernel, who asked for something large and do not read it."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16384)
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    served = await serving(large, fd=listener.detach(), **options)
    peers = [await served.connect(receive_buffer=16384) for _ in range(count)]
    for peer in peers:
        await peer.send(get())
    for peer in peers:
        assert (await peer.head()).endswith(b"Content-Length: 4000000\r\n\r\n")
    await settle()
    return served, peers


def ended(caplog: pytest.LogCaptureFixture) -> list[tuple[int, str]]:
    """What the access log says of the requests that ended: how many bytes were sent, and how it ended."""
    lines = [record.getMessage() for record in caplog.records if record.name == "rawstream.access"]
    found = [re.search(r'" 200 (\d+) [0-9.]+s ([a-z ]+) \S+$', line) for line in lines]
    return [(int(match[1]), match[2]) for match in found if match is not None]


async def test_a_large_answer_waits_for_its_reader_and_little_of_it_is_held(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[int] = []
    write = Transport.write

    def watched(self: Transport, data: bytes | memoryview) -> bool:
        writable = write(self, data)
        held.append(self._transport.get_write_buffer_size())
        return writable

    monkeypatch.setattr(Transport, "write", watched)
    served, peers = await stalled(serving, 10, limits=Limits(high_water=20_000))
    assert served.server.busy == 10
    for peer in peers[:3]:
        await peer.expect(LARGE)
        await peer.send(request(method="HEAD") + get("/", None, "Connection: close"))
        assert (await peer.head()).endswith(b"Content-Length: 4000000\r\n\r\n")
        assert (await peer.head()).endswith(b"Content-Length: 4000000\r\nConnection: close\r\n\r\n")
        assert await peer.rest() == LARGE
        assert peer.ending == "end"
    assert served.server.busy == 7
    assert 20_000 < max(held) <= 20_000 + PIECE


async def test_who_takes_nothing_of_a_large_answer_is_cut_and_the_log_says_why(
    serving: Serving, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "rawstream.access")
    served, [silent, reader] = await stalled(serving, 2, timeouts=Timeouts(write_stall=8, grace=60))
    for position in range(0, 1_000_000, 100_000):
        await reader.expect(LARGE[position : position + 100_000])
        await clock.advance(1.5)
    assert served.server.connections == 1
    [(sent, how)] = ended(caplog)
    assert how == "stalled"
    assert sent < 1_000_000
    assert len(await silent.rest()) < sent
    assert silent.ending == "reset"
    await reader.expect(LARGE[1_000_000:])
    await clock.advance(1)
    [_, (sent, how)] = ended(caplog)
    assert how == "complete"
    assert len(LARGE) < sent < len(LARGE) + 200


async def test_who_leaves_in_the_midst_of_a_large_answer_ends_it(
    serving: Serving, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "rawstream.access")
    served, [peer] = await stalled(serving, 1)
    peer.reset()
    await connections(served, 0)
    await until(lambda: bool(ended(caplog)))
    [(sent, how)] = ended(caplog)
    assert how == "client gone"
    assert sent < 1_000_000


async def test_who_ends_its_sending_side_still_gets_all_of_a_large_answer(serving: Serving) -> None:
    _, [peer] = await stalled(serving, 1)
    peer.finish()
    await settle()
    assert await peer.rest() == LARGE
    assert peer.ending == "end"


async def test_a_large_answer_that_is_taken_too_slowly_is_cut_at_the_requests_end(
    serving: Serving, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "rawstream.access")
    served, [peer] = await stalled(serving, 1, timeouts=Timeouts(write_stall=5, request=12, grace=60))
    for position in range(0, 1_100_000, 100_000):
        assert ended(caplog) == []
        await peer.expect(LARGE[position : position + 100_000])
        await clock.advance(1)
    await clock.advance(2)
    [(_, how)] = ended(caplog)
    assert how == "timeout"
    assert len(await peer.rest()) < 1_000_000
    await connections(served, 0)


async def test_a_server_that_closes_sends_the_rest_of_a_large_answer_and_cuts_who_does_not_take_it(
    serving: Serving, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "rawstream.access")
    served, [silent, reader] = await stalled(serving, 2, timeouts=Timeouts(grace=5))
    served.server.begin_closing()
    await reader.expect(LARGE)
    await clock.advance(4)
    assert await reader.rest() == b""
    assert reader.ending == "end"
    assert served.server.connections == 1
    await clock.advance(2)
    assert served.server.connections == 0
    assert [how for _, how in ended(caplog)] == ["complete", "cancelled"]
    assert len(await silent.rest()) < 1_000_000


# -- a crowd of slow clients -------------------------------------------------------------------------------------------


async def crowd(served: Served, count: int) -> list[Peer]:
    peers = [await served.connect() for _ in range(count)]
    await connections(served, count)
    return peers


@pytest.mark.usefixtures("many_files")
async def test_a_thousand_clients_that_send_a_byte_now_and_then_are_cut_while_others_are_served(
    serving: Serving, clock: Clock
) -> None:
    asyncio.get_running_loop().set_debug(False)  # its checks cost more than what is tested
    served = await serving(path, timeouts=Timeouts(head=10, linger=0.5, grace=60))
    peers = await crowd(served, 1_000)
    head = get("/slow", None, "X-Slow: " + "x" * 100)
    for second in range(9):
        for peer in peers:
            peer.sock.send(head[second : second + 1])
        clock.set(clock.time() + 1)
        await served_as_ever(served)
    assert served.server.connections >= 1_000
    for _ in range(8):
        clock.set(clock.time() + 0.5)
        await settle()
    await served_as_ever(served)
    for peer in peers:
        assert peer.here().startswith(b"HTTP/1.1 408 ")
    await connections(served, 0)


@pytest.mark.usefixtures("many_files")
async def test_slow_clients_that_took_every_place_lose_it_and_others_are_served(serving: Serving, clock: Clock) -> None:
    asyncio.get_running_loop().set_debug(False)
    served = await serving(path, limits=Limits(connections=200), timeouts=Timeouts(head=10, linger=0.5, grace=60))
    peers = await crowd(served, 200)
    for peer in peers:
        await peer.send(b"G")
    late = await served.connect()
    assert (await late.head()).startswith(b"HTTP/1.1 503 ")
    for _ in range(24):
        clock.set(clock.time() + 0.5)
        await settle()
    await connections(served, 0)
    await served_as_ever(served)


_FEW_FILES = """
import asyncio, resource, sys
from rawstream import Response, Timeouts, serve

async def handler(request):
    return Response.text("/ok")

async def main():
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200))
    async with serve(handler, port=0, timeouts=Timeouts(linger=0.1)) as server:
        print(server.addresses[0][1], flush=True)
        await asyncio.to_thread(sys.stdin.read)

asyncio.run(main())
"""


def test_a_crowd_that_fills_the_open_files_leaves_the_server_alive() -> None:
    """However many connections are allowed: no more are taken than the process may have files, and that is told."""
    process = subprocess.Popen([sys.executable, "-c", _FEW_FILES], stdin=PIPE, stdout=PIPE, stderr=PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        address = ("127.0.0.1", int(process.stdout.readline()))

        def ask() -> tuple[socket.socket, bytes]:
            sock = socket.socket()
            sock.settimeout(60)
            try:
                sock.connect(address)
                sock.sendall(get())
                return sock, sock.recv(1_000)[:12]
            except ConnectionError:  # there are too many even to be told that there is no room
                return sock, b""

        answers = [ask() for _ in range(300)]
        statuses = [answer for _, answer in answers]
        assert statuses[:100] == [b"HTTP/1.1 200"] * 100
        assert set(statuses[100:]) <= {b"HTTP/1.1 200", b"HTTP/1.1 503", b""}
        assert b"HTTP/1.1 503" in statuses
        for sock, _ in answers:
            sock.close()
        sock, status = ask()
        while status != b"HTTP/1.1 200":  # it has to hear of it first that they left
            sock.close()
            sock, status = ask()
        sock.close()
    finally:
        _, told = process.communicate("", timeout=60)
    assert process.returncode == 0
    full = "connections are refused: there are as many as Limits.connections, or open files, allow"
    assert told == f"{full} (1 until now)\n"


_FEW_FILES_TLS = """
import asyncio, resource, ssl, sys
import uvloop
from rawstream import Response, Timeouts, serve

async def handler(request):
    return Response.text("/ok")

async def main():
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(sys.argv[1])
    async with serve(handler, port=0, ssl=context, timeouts=Timeouts(head=1, linger=0.1)) as server:
        print(server.addresses[0][1], flush=True)
        await asyncio.to_thread(sys.stdin.read)

LOOP.run(main())
"""


def _served(address: tuple[str, int], context: ssl.SSLContext) -> bool:
    try:
        with (
            socket.create_connection(address, timeout=60) as sock,
            context.wrap_socket(sock, server_hostname="127.0.0.1") as tls,
        ):
            tls.sendall(get())
            return tls.recv(1_000).startswith(b"HTTP/1.1 200 ")
    except (ConnectionError, ssl.SSLEOFError):
        return False


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_crowd_that_does_not_do_its_tls_handshake_keeps_others_out_no_longer_than_it_may(
    loop: str, tmp_path: Path
) -> None:
    """A connection counts once its handshake is done, so that these can take every file that the process may open."""
    authority, certificate = trustme.CA(), tmp_path / "certificate.pem"
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(certificate))
    context = ssl.create_default_context()
    authority.configure_trust(context)
    program = [sys.executable, "-c", _FEW_FILES_TLS.replace("LOOP", loop), str(certificate)]
    process = subprocess.Popen(program, stdin=PIPE, stdout=PIPE, stderr=PIPE, text=True)
    assert process.stdout is not None
    crowd: list[socket.socket] = []
    try:
        address = ("127.0.0.1", int(process.stdout.readline()))
        for _ in range(300):
            crowd.append(socket.socket())
            crowd[-1].settimeout(60)
            crowd[-1].connect(address)
        began = time.monotonic()
        while not _served(address, context):  # uvloop's way with too many files is to cut who comes
            assert time.monotonic() - began < 10
    finally:
        _, told = process.communicate("", timeout=60)
        for one in crowd:
            one.close()
    assert process.returncode == 0
    assert len(told) < 200_000
