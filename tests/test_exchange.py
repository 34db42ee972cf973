"""The two directions of an exchange over real sockets: a request's body, and a stream's head, heartbeats and ends."""

from __future__ import annotations

import asyncio
import itertools
import re
import socket
import zlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from support import (
    JSON_HEAD,
    LAST_CHUNK,
    NDJSON_HEAD,
    SSE_HEAD,
    TEXT_HEAD,
    Clock,
    Failures,
    Peer,
    Serving,
    Steps,
    chunk,
    get,
    request,
    settle,
)

from rawstream import Every, Limits, Request, Response, Stream, Timeouts, errors, exchange, observe
from rawstream.inbox import LINES
from rawstream.turns import Turns

SSE = "text/event-stream"
BEAT = chunk(b":\n\n")
STREAM_END = chunk(b"event: stream-end\ndata: {}\nid: stream-end\n\n")


def post(body: bytes = b"", *fields: str) -> bytes:
    return request("/", *fields, method="POST", body=body)


def chunked_post(*fields: str) -> bytes:
    return request("/", "Transfer-Encoding: chunked", *fields, method="POST")


async def echo(request: Request) -> Response:
    return Response(200, (), await request.body())


# -- bodies ------------------------------------------------------------------------------------------------------------


async def test_a_request_without_a_body_has_an_empty_one(serving: Serving) -> None:
    peer = await (await serving(echo)).ask(get())
    assert await peer.response() == (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b"")


async def test_a_body_with_a_length_arrives_in_the_segment_of_its_head(serving: Serving) -> None:
    peer = await (await serving(echo)).ask(post(b"hello"))
    assert (await peer.response())[1] == b"hello"


async def test_a_body_arrives_byte_by_byte(serving: Serving) -> None:
    peer = await (await serving(echo)).connect()
    for byte in post(b"hello"):
        await peer.send(bytes([byte]))
        await settle()
    assert (await peer.response())[1] == b"hello"


async def test_a_chunked_body_is_put_together(serving: Serving) -> None:
    peer = await (await serving(echo)).ask(chunked_post() + chunk(b"hel") + chunk(b"lo") + LAST_CHUNK)
    assert (await peer.response())[1] == b"hello"


async def test_the_body_can_be_asked_for_again(serving: Serving) -> None:
    async def handler(request: Request) -> Response:
        return Response(200, (), await request.body() + await request.body())

    peer = await (await serving(handler)).ask(post(b"ab"))
    assert (await peer.response())[1] == b"abab"


async def test_trailers_are_there_once_the_body_was_read(serving: Serving) -> None:
    async def handler(request: Request) -> Response:
        before = len(request.trailers)
        await request.body()
        return Response.json([before, request.trailers.pairs])

    served = await serving(handler)
    peer = await served.ask(chunked_post() + chunk(b"x") + b"0\r\nDigest: abc\r\n\r\n")
    assert (await peer.response())[1] == b'[0,[["Digest","abc"]]]'


async def test_a_body_is_streamed_to_the_handler_as_it_comes(serving: Serving) -> None:
    steps = Steps()

    async def handler(request: Request) -> Response:
        async for piece in request.stream():
            steps(piece)
        return Response()

    peer = await (await serving(handler)).ask(chunked_post() + chunk(b"one"))
    await steps.reach(b"one")
    await peer.send(chunk(b"two"))
    await steps.reach(b"one", b"two")
    await peer.send(LAST_CHUNK)
    await peer.response()


async def test_a_body_can_be_answered_while_it_comes(serving: Serving) -> None:
    async def handler(request: Request) -> AsyncIterator[str]:
        async for piece in request.stream():
            yield piece.decode().upper()

    peer = await (await serving(handler)).ask(chunked_post("Accept: text/plain") + chunk(b"one"))
    assert await peer.head() == TEXT_HEAD
    await peer.expect(chunk(b"ONE"))
    await peer.send(chunk(b"two"))
    await peer.expect(chunk(b"TWO"))
    await peer.send(LAST_CHUNK)
    await peer.expect(LAST_CHUNK)
    await peer.send(get())
    assert await peer.head() == JSON_HEAD


@pytest.mark.parametrize("attackers", [1, 5])
async def test_bodies_in_tiny_chunks_keep_others_waiting_for_one_piece_of_one_of_them(
    serving: Serving, monkeypatch: pytest.MonkeyPatch, attackers: int
) -> None:
    """Each chunk costs h11 some 10 µs: parsed in one go, a few hundred kilobytes of them would hold the loop."""
    time = itertools.count()  # a second passes each time that somebody looks
    monkeypatch.setattr(Turns.of(asyncio.get_running_loop()), "_clock", lambda: next(time))
    read = 0
    in_a_turn = [0]
    all_here, ended = asyncio.Event(), asyncio.Event()

    def turn() -> None:
        in_a_turn.append(0)
        if not ended.is_set():
            asyncio.get_running_loop().call_soon(turn)

    async def handler(request: Request) -> Response:
        nonlocal read
        await all_here.wait()
        async for piece in request.stream():
            in_a_turn[-1] += len(piece)
            read += len(piece)
        return Response()

    served = await serving(handler)
    body = chunk(b"x") * 2_000
    peers = [await served.ask(chunked_post() + body + LAST_CHUNK) for _ in range(attackers)]
    await settle()
    all_here.set()
    turn()
    for peer in peers:
        await peer.response()
    ended.set()
    assert read == attackers * 2_000
    a_piece = LINES / 2 + 1  # a chunk has two lines
    first, second = sorted(in_a_turn, reverse=True)[:2]
    assert first <= attackers * 2 * a_piece, "each begins, with what came with the head and a piece"
    assert second <= 2 * a_piece


async def test_a_body_that_is_quickly_taken_goes_on_in_the_same_turn(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Giving way is for who takes long, by the clock: a large body would come as slowly as the loop turns."""
    monkeypatch.setattr(Turns.of(asyncio.get_running_loop()), "_clock", lambda: 1000.0)
    pieces = 0

    async def handler(request: Request) -> Response:
        nonlocal pieces
        await all_here.wait()
        body = request.stream()
        assert await anext(body)  # what came with the head
        while True:
            step = anext(body, b"").__await__()
            try:
                next(step)
            except StopIteration as done:
                if not done.value:
                    return Response()
                pieces += 1
            else:
                raise AssertionError("it waits")

    all_here = asyncio.Event()
    served = await serving(handler, limits=Limits(held=200_000))
    peer = await served.ask(post(b"x" * 100_000))
    await settle()
    all_here.set()
    assert (await peer.response())[0].startswith(b"HTTP/1.1 200")
    assert pieces >= 3


async def test_a_body_of_less_data_than_framing_is_refused(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "_FRAMING", 4_000)
    served = await serving(echo)
    for count, accepted in ((900, True), (1_400, False)):  # each has a byte of data and five of framing
        peer = await served.ask(chunked_post())
        await settle()
        await peer.send(chunk(b"x") * count)
        if accepted:
            await peer.send(LAST_CHUNK)
            assert (await peer.response())[1] == b"x" * count
        else:
            head, body = await peer.response()
            assert head.startswith(b"HTTP/1.1 400 Bad Request\r\n")
            assert b"\r\nConnection: close\r\n" in head
            assert body == b"400 Bad Request: a chunked body is more than its framing\n"


@pytest.mark.parametrize("size", [5, 100])
async def test_a_body_of_as_much_data_as_framing_is_not(
    serving: Serving, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(exchange, "_FRAMING", 100)
    peer = await (await serving(echo)).ask(chunked_post())
    await settle()
    await peer.send(chunk(b"x" * size) * 1_000 + LAST_CHUNK)
    assert (await peer.response())[1] == b"x" * size * 1_000


async def test_a_chunk_of_a_byte_now_and_then_is_no_attack() -> None:
    """Somebody who types for an hour, ten times a second."""
    assert 10 * 3600 * len(chunk(b"x")) < exchange._FRAMING + 2 * 10 * 3600


async def test_a_body_that_is_here_and_was_not_read_hides_no_loss(serving: Serving) -> None:
    """What comes behind it is a next request's: it is dropped when it gets too much, and the loss is seen."""
    steps = Steps()

    async def handler(request: Request) -> AsyncIterator[str]:
        try:
            yield "x"
            steps("waits")
            await asyncio.Event().wait()
        finally:
            steps("finally")

    peer = await (await serving(handler)).ask(post(b"0123456789"))
    await steps.reach("waits")
    await peer.send(b"x" * 40_000)
    peer.close()
    await steps.reach("waits", "finally")


async def test_a_client_waits_while_the_handler_does_not_read(serving: Serving) -> None:
    """Little is held: the kernel's buffers fill, and the client's sends stall."""
    body = b"x" * 4_000_000
    read = asyncio.Event()
    seen = 0

    async def handler(request: Request) -> Response:
        nonlocal seen
        await read.wait()
        async for piece in request.stream():
            seen += len(piece)
        return Response()

    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)  # what is accepted inherits it
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    served = await serving(handler, fd=listener.detach(), limits=Limits(held=4096))
    peer = await served.connect(send_buffer=16384)
    await peer.send(post(body)[: -len(body)])
    sent = await peer.send_until_stalled(body)
    assert sent < 1_000_000
    read.set()
    await peer.send(body[sent:])
    await peer.response()
    assert seen == len(body)


async def test_a_declared_body_that_is_too_large_is_refused_before_it_comes(serving: Serving) -> None:
    served = await serving(echo, limits=Limits(body=5))
    peer = await served.ask(request("/", "Content-Length: 6", method="POST"))
    head, body = await peer.response()
    assert head == (
        b"HTTP/1.1 413 Content Too Large\r\nContent-Type: text/plain; charset=utf-8\r\nVary: Accept\r\n"
        b"Connection: close\r\nContent-Length: 65\r\n\r\n"
    )
    assert body == b"413 Content Too Large: a request's body has at most 5 bytes here\n"
    peer.finish()
    assert await peer.rest() == b""


async def test_a_body_as_large_as_is_allowed_is_taken(serving: Serving) -> None:
    served = await serving(echo, limits=Limits(body=5))
    peer = await served.ask(post(b"12345"))
    assert (await peer.response())[1] == b"12345"
    await peer.send(chunked_post() + chunk(b"123") + chunk(b"45") + LAST_CHUNK)
    assert (await peer.response())[1] == b"12345"


async def test_a_chunked_body_is_refused_when_it_gets_too_large(serving: Serving) -> None:
    served = await serving(echo, limits=Limits(body=5))
    peer = await served.ask(chunked_post() + chunk(b"123") + chunk(b"456"))
    assert (await peer.head()).startswith(b"HTTP/1.1 413 ")
    assert (await peer.rest()).endswith(b"a request's body has at most 5 bytes here\n")
    assert peer.ending == "end"


@pytest.mark.parametrize("declared", [True, False])
async def test_the_refusal_reaches_a_client_that_goes_on_sending(serving: Serving, declared: bool) -> None:
    """Closing with bytes unread would reset the connection, and the refusal would be lost."""
    served = await serving(echo, limits=Limits(body=100_000))
    peer = await served.connect()
    await peer.send(request("/", "Content-Length: 5000000", method="POST") if declared else chunked_post())
    data = chunk(b"x" * 50_000)
    for _ in range(60):
        await peer.send(data)
    assert (await peer.head()).startswith(b"HTTP/1.1 413 ")
    for _ in range(10):
        await peer.send(data)
    assert (await peer.rest()).endswith(b"a request's body has at most 100000 bytes here\n")
    assert peer.ending == "end"


async def test_a_handler_may_catch_that_a_body_is_too_large(serving: Serving) -> None:
    async def handler(request: Request) -> Response:
        try:
            await request.body()
        except errors.BodyTooLarge:
            return Response.text("smaller, please", 422)
        raise AssertionError

    peer = await (await serving(handler, limits=Limits(body=5))).ask(
        request("/", "Transfer-Encoding: chunked", method="POST") + chunk(b"123456") + LAST_CHUNK
    )
    head, body = await peer.response()
    assert body == b"smaller, please"
    assert b"Connection: close" not in head  # it was here as a whole, and is skipped


async def test_a_body_whose_length_is_too_large_meets_no_handler(serving: Serving) -> None:
    async def handler(request: Request) -> Response:
        raise AssertionError

    peer = await (await serving(handler, limits=Limits(body=5))).ask(post(b"123456"))
    head, body = await peer.response()
    assert head.startswith(b"HTTP/1.1 413 ")
    assert body == b"413 Content Too Large: a request's body has at most 5 bytes here\n"


async def test_a_length_beyond_all_numbers_is_no_failure_of_ours(serving: Serving) -> None:
    peer = await (await serving(echo)).ask(request("/", "Content-Length: " + "9" * 5000, method="POST"))
    assert re.match(rb"HTTP/1.1 4\d\d ", await peer.head())
    peer.close()


async def test_a_body_that_stops_coming_is_answered_408(serving: Serving, clock: Clock) -> None:
    served = await serving(echo, timeouts=Timeouts(body=30))
    peer = await served.ask(post(b"12345")[:-1])
    await clock.advance(29.875)
    assert peer.here() == b""
    await clock.advance(0.5)
    assert (await peer.head()).startswith(b"HTTP/1.1 408 Request Timeout\r\n")
    assert (await peer.rest()) == b"408 Request Timeout: nothing came in time\n"


async def test_each_piece_of_a_body_has_the_whole_time(serving: Serving, clock: Clock) -> None:
    served = await serving(echo, timeouts=Timeouts(body=30))
    peer = await served.ask(request("/", "Content-Length: 3", method="POST"))
    for byte in (b"a", b"b", b"c"):
        await clock.advance(29)
        await peer.send(byte)
    assert (await peer.response())[1] == b"abc"


async def test_a_body_that_the_client_ends_too_early_is_answered_400(serving: Serving) -> None:
    peer = await (await serving(echo)).ask(post(b"12345")[:-1])
    peer.finish()
    assert (await peer.head()).startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert await peer.rest() == b"400 Bad Request: the connection ended before the message did\n"


async def test_a_client_that_vanishes_in_its_body_is_told_to_the_handler_alone(serving: Serving) -> None:
    steps = Steps()

    async def handler(request: Request) -> Response:
        steps("asked")
        try:
            return Response(200, (), await request.body())
        except BaseException as exc:
            steps(type(exc))
            raise

    peer = await (await serving(handler)).ask(post(b"12345")[:-1])
    await steps.reach("asked")
    peer.reset()
    await steps.reach("asked", asyncio.CancelledError)


async def test_a_chunk_that_is_none_is_answered_400(serving: Serving) -> None:
    peer = await (await serving(echo)).ask(chunked_post() + chunk(b"fine"))
    await settle()
    await peer.send(b"not a chunk\r\n")
    assert (await peer.head()).startswith(b"HTTP/1.1 400 Bad Request\r\n")


async def test_a_chunk_that_is_none_in_the_first_segment_is_answered_400(serving: Serving) -> None:
    peer = await (await serving(echo)).ask(chunked_post() + b"not a chunk\r\n")
    assert (await peer.head()).startswith(b"HTTP/1.1 400 Bad Request\r\n")


async def test_a_body_error_that_comes_after_the_answer_was_chosen_does_not_hinder_it(serving: Serving) -> None:
    """RFC 9112 leaves it open; h11 would raise on the way out."""

    async def handler(request: Request) -> Response:
        return Response.text("unread")

    peer = await (await serving(handler)).ask(chunked_post() + chunk(b"fine") + b"not a chunk\r\n")
    head, body = await peer.response()
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"Connection: close\r\n" in head
    assert body == b"unread"


# -- Expect: 100-continue ----------------------------------------------------------------------------------------------


async def test_continue_is_said_when_the_body_is_first_read_and_not_earlier(serving: Serving) -> None:
    steps, read = Steps(), asyncio.Event()

    async def handler(request: Request) -> Response:
        steps("asked")
        await read.wait()
        return await echo(request)

    served = await serving(handler)
    peer = await served.ask(request("/", "Expect: 100-continue", "Content-Length: 5", method="POST"))
    await steps.reach("asked")
    await settle()
    assert peer.here() == b""
    read.set()
    await peer.expect(b"HTTP/1.1 100 Continue\r\n\r\n")
    await peer.send(b"he")
    await settle()
    await peer.send(b"llo")
    assert await peer.response() == (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", b"hello")


async def test_continue_is_never_said_when_the_body_is_not_read(serving: Serving) -> None:
    async def handler(request: Request) -> Response:
        return Response.text("no, thanks", 403)

    served = await serving(handler)
    peer = await served.ask(request("/", "Expect: 100-continue", "Content-Length: 5", method="POST"))
    assert await peer.response() == (
        b"HTTP/1.1 403 Forbidden\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n"
        b"Content-Length: 10\r\n\r\n",
        b"no, thanks",
    )
    peer.finish()
    assert await peer.rest() == b""


async def test_continue_is_not_said_to_a_client_that_has_begun_its_body(serving: Serving) -> None:
    served = await serving(echo)
    peer = await served.ask(request("/", "Expect: 100-continue", method="POST", body=b"hello"))
    assert (await peer.response())[1] == b"hello"


async def test_continue_is_not_said_when_the_body_is_too_large(serving: Serving) -> None:
    served = await serving(echo, limits=Limits(body=5))
    peer = await served.ask(request("/", "Expect: 100-continue", "Content-Length: 6", method="POST"))
    assert (await peer.head()).startswith(b"HTTP/1.1 413 ")


# -- when the head of a stream leaves ----------------------------------------------------------------------------------


def after(gate: asyncio.Event, **options: Any) -> Any:
    """A handler whose stream gives one item after `gate`."""

    async def items() -> AsyncIterator[str]:
        await gate.wait()
        yield "x"

    async def handler(request: Request) -> Stream:
        return Stream(items(), **options)

    return handler


async def test_an_sse_head_leaves_when_the_generator_first_waits(serving: Serving) -> None:
    gate = asyncio.Event()
    peer = await (await serving(after(gate))).ask(get(accept=SSE))
    assert await peer.piece() == SSE_HEAD
    gate.set()
    assert await peer.piece() == chunk(b"data: x\n\nevent: stream-end\ndata: {}\nid: stream-end\n\n") + LAST_CHUNK


async def test_an_sse_head_leaves_together_with_items_that_are_ready(serving: Serving) -> None:
    gate = asyncio.Event()

    async def handler(request: Request) -> AsyncIterator[str]:
        yield "a"
        yield "b"
        await gate.wait()

    peer = await (await serving(handler)).ask(get(accept=SSE))
    assert await peer.piece() == SSE_HEAD + chunk(b"data: a\n\ndata: b\n\n")
    gate.set()
    assert await peer.piece() == STREAM_END + LAST_CHUNK


@pytest.mark.parametrize(
    ("accept", "head", "first"),
    [
        ("application/json", JSON_HEAD, chunk(b'["x"]')),
        ("application/x-ndjson", NDJSON_HEAD, chunk(b'"x"\n')),
        ("text/plain", TEXT_HEAD, chunk(b"x")),
    ],
)
async def test_other_heads_wait_for_the_first_item(
    serving: Serving, clock: Clock, accept: str, head: bytes, first: bytes
) -> None:
    gate = asyncio.Event()
    peer = await (await serving(after(gate))).ask(get(accept=accept))
    await clock.advance(0.875)
    assert peer.here() == b""
    gate.set()
    assert await peer.piece() == head + first + LAST_CHUNK


async def test_other_heads_wait_for_a_second_at_most(serving: Serving, clock: Clock) -> None:
    gate = asyncio.Event()
    peer = await (await serving(after(gate))).ask(get())
    await clock.advance(0.875)
    assert peer.here() == b""
    await clock.advance(0.125)
    assert await peer.piece() == JSON_HEAD
    await clock.advance(10)
    assert peer.here() == b""
    gate.set()
    assert await peer.piece() == chunk(b'["x"]') + LAST_CHUNK


async def test_the_wait_for_the_first_item_counts_from_the_first_time_that_the_generator_waits(
    serving: Serving, clock: Clock
) -> None:
    steps, gates = Steps(), [asyncio.Event(), asyncio.Event()]

    async def handler(request: Request) -> AsyncIterator[str]:
        for gate in gates:
            await gate.wait()
            steps("on")
        yield "x"

    peer = await (await serving(handler)).ask(get())
    await clock.advance(0.5)
    gates[0].set()
    await steps.reach("on")
    await clock.advance(0.5)
    assert await peer.piece() == JSON_HEAD
    gates[1].set()
    assert await peer.piece() == chunk(b'["x"]') + LAST_CHUNK


async def test_a_head_can_wait_so_many_seconds(serving: Serving, clock: Clock) -> None:
    gate = asyncio.Event()
    peer = await (await serving(after(gate, head=3))).ask(get(accept=SSE))
    await clock.advance(2.875)
    assert peer.here() == b""
    await clock.advance(0.125)
    assert await peer.piece() == SSE_HEAD
    gate.set()


async def test_a_head_can_wait_for_the_first_item_however_long(serving: Serving, clock: Clock) -> None:
    gate = asyncio.Event()
    peer = await (await serving(after(gate, head="item"))).ask(get(accept=SSE))
    await clock.advance(20)
    assert peer.here() == b""
    gate.set()
    body = chunk(b"data: x\n\nevent: stream-end\ndata: {}\nid: stream-end\n\n")
    assert await peer.piece() == SSE_HEAD + body + LAST_CHUNK


async def test_a_json_head_can_leave_when_the_generator_first_waits(serving: Serving) -> None:
    gate = asyncio.Event()
    peer = await (await serving(after(gate, head="suspend"))).ask(get())
    assert await peer.piece() == JSON_HEAD
    gate.set()
    assert await peer.piece() == chunk(b'["x"]') + LAST_CHUNK


async def test_a_first_item_in_time_leaves_no_second_head(serving: Serving, clock: Clock) -> None:
    gates = [asyncio.Event(), asyncio.Event()]

    async def handler(request: Request) -> AsyncIterator[str]:
        for gate in gates:
            await gate.wait()
            yield "x"

    peer = await (await serving(handler)).ask(get())
    await clock.advance(0.5)
    gates[0].set()
    assert await peer.piece() == JSON_HEAD + chunk(b'["x"')
    await clock.advance(5)
    assert peer.here() == b""
    gates[1].set()
    assert await peer.piece() == chunk(b',"x"]') + LAST_CHUNK


# -- heartbeats --------------------------------------------------------------------------------------------------------


async def test_a_silent_sse_stream_beats_from_before_its_first_event(serving: Serving, clock: Clock) -> None:
    gate = asyncio.Event()
    peer = await (await serving(after(gate))).ask(get(accept=SSE))
    assert await peer.head() == SSE_HEAD
    await clock.advance(14.875)
    assert peer.here() == b""
    await clock.advance(0.75)
    assert peer.here() == BEAT
    await clock.advance(14.25)
    assert peer.here() == b""
    await clock.advance(1.25)
    assert peer.here() == BEAT
    gate.set()


async def test_an_event_puts_the_heartbeat_off(serving: Serving, clock: Clock) -> None:
    items: asyncio.Queue[str] = asyncio.Queue()

    async def follow() -> AsyncIterator[str]:
        while item := await items.get():
            yield item

    async def handler(request: Request) -> Stream:
        return Stream(follow(), heartbeat=4)

    peer = await (await serving(handler)).ask(get(accept=SSE))
    assert await peer.head() == SSE_HEAD
    for _ in range(10):
        await clock.advance(1.875)
        items.put_nowait("x")
        await peer.expect(chunk(b"data: x\n\n"))
    await clock.advance(1.875)
    assert peer.here() == b""
    await clock.advance(2.625)  # a heartbeat in all, and what timers are late at most
    assert peer.here() == BEAT
    items.put_nowait("")
    await peer.expect(STREAM_END + LAST_CHUNK)


@pytest.mark.parametrize(("accept", "heartbeat"), [(SSE, None), ("application/json", 1.0), ("text/plain", 1.0)])
async def test_no_heartbeat_where_none_is_wanted_or_the_format_has_none(
    serving: Serving, clock: Clock, accept: str, heartbeat: float | None
) -> None:
    gate = asyncio.Event()
    peer = await (await serving(after(gate, heartbeat=heartbeat))).ask(get(accept=accept))
    await clock.advance(1)
    await peer.head()
    await clock.advance(20)
    assert peer.here() == b""
    gate.set()


async def test_no_heartbeat_is_added_to_what_a_slow_reader_has_not_taken(serving: Serving, clock: Clock) -> None:
    steps, gate = Steps(), asyncio.Event()

    async def items() -> AsyncIterator[str]:
        yield "x" * 8_000_000
        steps("on")
        await gate.wait()

    async def handler(request: Request) -> Stream:
        return Stream(items(), heartbeat=2)

    peer = await (await serving(handler)).connect(receive_buffer=16384)
    await peer.send(get(accept=SSE))
    assert await peer.head() == SSE_HEAD
    await clock.advance(20)
    assert steps.done == []  # the producer is held
    await peer.until(b"\n\n\r\n")
    await steps.reach("on")
    assert peer.here() == b""
    await clock.advance(2.5)
    assert peer.here() == BEAT
    gate.set()


# -- compressed --------------------------------------------------------------------------------------------------------


GZIP = "Accept-Encoding: gzip"


def compressed(head: bytes) -> bytes:
    """What a head becomes."""
    return head.replace(b"Transfer-Encoding", b"Vary: Accept-Encoding\r\nContent-Encoding: gzip\r\nTransfer-Encoding")


class Decoder:
    """Reads a compressed body chunk by chunk."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._inflate = zlib.decompressobj(31)

    async def chunk(self) -> bytes:
        """What can be decoded when the next chunk is here."""
        size = int(await self._peer.until(b"\r\n"), 16)
        data = await self._peer.until(b"\r\n")
        while len(data) < size + 2:
            data += await self._peer.until(b"\r\n")
        return self._inflate.decompress(data[:-2])

    @property
    def complete(self) -> bool:
        return self._inflate.eof


async def test_each_piece_of_a_compressed_stream_can_be_read_when_it_is_here(serving: Serving) -> None:
    gates = [asyncio.Event(), asyncio.Event()]

    async def items() -> AsyncIterator[str]:
        yield "a"
        await gates[0].wait()
        yield "b"
        await gates[1].wait()
        yield "c"

    async def handler(request: Request) -> Stream:
        return Stream(items(), gzip=True)

    peer = await (await serving(handler)).ask(get("/", SSE, GZIP))
    assert await peer.head() == compressed(SSE_HEAD)
    decoder = Decoder(peer)
    assert await decoder.chunk() == b"data: a\n\n"
    gates[0].set()
    assert await decoder.chunk() == b"data: b\n\n"
    gates[1].set()
    assert await decoder.chunk() == b"data: c\n\nevent: stream-end\ndata: {}\nid: stream-end\n\n"
    assert decoder.complete
    await peer.expect(LAST_CHUNK)


async def test_a_compressed_head_that_leaves_alone_takes_no_chunk_along(serving: Serving) -> None:
    gate = asyncio.Event()
    peer = await (await serving(after(gate, gzip=True))).ask(get("/", SSE, GZIP))
    assert await peer.piece() == compressed(SSE_HEAD)
    gate.set()
    decoder = Decoder(peer)
    assert (await decoder.chunk()).startswith(b"data: x\n\n")
    assert decoder.complete


async def test_a_compressed_stream_that_never_waits_is_one_chunk(serving: Serving) -> None:
    async def items() -> AsyncIterator[str]:
        yield "x"

    async def handler(request: Request) -> Stream:
        return Stream(items(), gzip=True)

    peer = await (await serving(handler)).ask(get("/", "text/plain", GZIP))
    assert await peer.head() == compressed(TEXT_HEAD)
    decoder = Decoder(peer)
    assert await decoder.chunk() == b"x"
    assert decoder.complete
    await peer.expect(LAST_CHUNK)


async def test_an_empty_compressed_stream_is_a_whole_one(serving: Serving) -> None:
    async def items() -> AsyncIterator[str]:
        for item in ():
            yield item

    async def handler(request: Request) -> Stream:
        return Stream(items(), gzip=True)

    peer = await (await serving(handler)).ask(get("/", "text/plain", GZIP))
    assert await peer.head() == compressed(TEXT_HEAD)
    decoder = Decoder(peer)
    assert await decoder.chunk() == b""
    assert decoder.complete
    await peer.expect(LAST_CHUNK)


async def test_a_heartbeat_of_a_compressed_stream_is_compressed_too(serving: Serving, clock: Clock) -> None:
    gate = asyncio.Event()
    peer = await (await serving(after(gate, gzip=True))).ask(get("/", SSE, GZIP))
    assert await peer.head() == compressed(SSE_HEAD)
    await clock.advance(15.5)
    decoder = Decoder(peer)
    assert await decoder.chunk() == b":\n\n"
    gate.set()
    assert (await decoder.chunk()).startswith(b"data: x\n\n")
    assert decoder.complete


async def test_the_readers_of_a_compressed_stream_are_told_that_the_server_closes(serving: Serving) -> None:
    async def items(request: Request) -> AsyncIterator[str]:
        await request.closing.wait()
        yield "goodbye"

    async def handler(request: Request) -> Stream:
        return Stream(items(request), gzip=True)

    served = await serving(handler)
    peer = await served.ask(get("/", SSE, GZIP))
    assert await peer.head() == compressed(SSE_HEAD)
    served.server.close()
    decoder = Decoder(peer)
    assert (await decoder.chunk()).startswith(b"event: stream-closing\n")
    assert await decoder.chunk() == b"data: goodbye\n\n"
    assert decoder.complete


async def test_who_comes_while_the_server_closes_is_told_so_first_in_a_compressed_stream_too(serving: Serving) -> None:
    go_on = asyncio.Event()

    async def items() -> AsyncIterator[str]:
        yield "x"

    async def handler(request: Request) -> Stream:
        await go_on.wait()
        return Stream(items(), gzip=True)

    served = await serving(handler)
    peer = await served.ask(get("/", SSE, GZIP))
    await settle()
    served.server.close()
    go_on.set()
    assert b"Content-Encoding: gzip\r\n" in await peer.head()
    decoder = Decoder(peer)
    told = await decoder.chunk() + await decoder.chunk()
    assert re.fullmatch(rb"event: stream-closing\ndata: \{\}\nretry: \d{4}\n\ndata: x\n\n", told)
    assert decoder.complete


async def test_a_compressed_stream_that_breaks_off_is_told_why_and_has_no_end(
    serving: Serving, failures: Failures
) -> None:
    async def handler(request: Request) -> Stream:
        return Stream(broken(request), gzip=True)

    peer = await (await serving(handler, timeouts=AT_ONCE)).ask(get("/", SSE, GZIP))
    assert await peer.head() == compressed(SSE_HEAD)
    decoder = Decoder(peer)
    assert await decoder.chunk() == b"data: x\n\n"
    assert await decoder.chunk() == b"data: y\n\nevent: stream-error\ndata: " + ERROR + b"\n\n"
    assert not decoder.complete
    assert await peer.rest() == b""
    assert isinstance(failures.take(), ZeroDivisionError)


async def test_to_http_1_0_a_compressed_stream_ends_with_its_connection(serving: Serving) -> None:
    async def items() -> AsyncIterator[str]:
        yield "x"
        await asyncio.sleep(0)
        yield "y"

    async def handler(request: Request) -> Stream:
        return Stream(items(), gzip=True)

    peer = await (await serving(handler)).ask(get("/", "text/plain", GZIP, version="1.0"))
    await peer.head()
    inflate = zlib.decompressobj(31)
    assert inflate.decompress(await peer.rest()) == b"xy"
    assert inflate.eof


# -- what an operator is shown -----------------------------------------------------------------------------------------


async def test_each_write_of_a_stream_is_a_chunk_and_heartbeats_are_none(serving: Serving, clock: Clock) -> None:
    gates = [asyncio.Event(), asyncio.Event()]

    async def items() -> AsyncIterator[str]:
        await gates[0].wait()
        yield "a"
        yield "b"
        await gates[1].wait()
        yield "c"

    async def handler(request: Request) -> Stream:
        return Stream(items(), format="sse")

    firsts = sum(observe.counts.first_chunk.buckets)
    peer = await (await serving(handler)).ask(get())
    await peer.head()
    [record] = observe.open_streams
    await clock.advance(16)
    assert await peer.piece() == BEAT
    assert (record.chunks_so_far, record.first) == (0, None)
    gates[0].set()
    await peer.piece()
    assert record.chunks_so_far == 1
    assert record.first is not None
    first = record.first
    gates[1].set()
    await peer.expect(chunk(b"data: c\n\nevent: stream-end\ndata: {}\nid: stream-end\n\n") + LAST_CHUNK)
    assert (record.chunks_so_far, record.first) == (2, first)
    assert sum(observe.counts.first_chunk.buckets) == firsts + 1


async def test_items_that_come_one_by_one_are_counted_as_they_leave(serving: Serving) -> None:
    gates: asyncio.Queue[str] = asyncio.Queue()

    async def handler(request: Request) -> AsyncIterator[str]:
        while item := await gates.get():
            yield item

    peer = await (await serving(handler)).ask(get(accept="text/event-stream"))
    await peer.head()
    [record] = observe.open_streams
    for number, item in enumerate("abcdef"):
        assert record.chunks_so_far == number
        gates.put_nowait(item)
        await peer.expect(chunk(b"data: %b\n\n" % item.encode()))
    gates.put_nowait("")
    await peer.expect(chunk(b"event: stream-end\ndata: {}\nid: stream-end\n\n") + LAST_CHUNK)
    await settle()
    assert record.chunks == 7
    await peer.send(get(accept="text/event-stream"))
    await peer.head()
    assert record.chunks_so_far == 7, "what the connection writes for others is not counted"


async def test_a_stream_that_never_waits_is_one_chunk(serving: Serving) -> None:
    async def handler(request: Request) -> AsyncIterator[str]:
        yield "a"
        yield "b"

    chunks, firsts = observe.counts.chunks, sum(observe.counts.first_chunk.buckets)
    peer = await (await serving(handler)).ask(get())
    await peer.until(LAST_CHUNK)
    await settle()
    assert observe.counts.chunks == chunks + 1
    assert sum(observe.counts.first_chunk.buckets) == firsts + 1


async def test_a_stream_of_nothing_has_no_chunk(serving: Serving) -> None:
    async def handler(request: Request) -> AsyncIterator[str]:
        for item in ():
            yield item

    chunks, firsts = observe.counts.chunks, sum(observe.counts.first_chunk.buckets)
    peer = await (await serving(handler)).ask(get(accept="text/plain"))
    await peer.until(LAST_CHUNK)
    await settle()
    assert (observe.counts.chunks, sum(observe.counts.first_chunk.buckets)) == (chunks, firsts)


async def test_how_long_a_producer_waits_for_its_reader_is_told_each_time_that_it_does(serving: Serving) -> None:
    steps = Steps()

    async def handler(request: Request) -> AsyncIterator[str]:
        yield "x"
        await asyncio.sleep(0)
        steps("before")
        yield "x" * 8_000_000
        steps("after")

    waits = sum(observe.counts.write_stall.buckets)
    peer = await (await serving(handler)).connect(receive_buffer=16384)
    await peer.send(get(accept="text/plain"))
    await steps.reach("before")
    await settle()
    assert steps.done == ["before"]
    assert sum(observe.counts.write_stall.buckets) == waits
    await peer.until(LAST_CHUNK)
    assert steps.done == ["before", "after"]
    assert sum(observe.counts.write_stall.buckets) == waits + 1


async def test_a_wait_that_ends_with_the_loss_of_the_reader_is_told_too(serving: Serving) -> None:
    steps = Steps()

    async def handler(request: Request) -> AsyncIterator[str]:
        try:
            yield "x" * 8_000_000
        finally:
            steps("finally")

    waits = sum(observe.counts.write_stall.buckets)
    peer = await (await serving(handler)).connect(receive_buffer=16384)
    await peer.send(get(accept="text/plain"))
    await peer.head()
    peer.reset()
    await steps.reach("finally")
    assert sum(observe.counts.write_stall.buckets) == waits + 1


async def test_held_items_leave_as_one_chunk(serving: Serving, clock: Clock) -> None:
    gate = asyncio.Event()

    async def items() -> AsyncIterator[str]:
        for item in "abc":
            yield item
            await asyncio.sleep(0)
        await gate.wait()

    async def handler(request: Request) -> Stream:
        return Stream(items(), format="text", flush=Every(seconds=1))

    peer = await (await serving(handler)).ask(get())
    await clock.advance(1)
    await peer.head()
    await peer.expect(chunk(b"abc"))
    [record] = observe.open_streams
    assert record.chunks_so_far == 1
    gate.set()
    await peer.expect(LAST_CHUNK)


# -- closing -----------------------------------------------------------------------------------------------------------


async def test_an_sse_reader_is_told_that_the_server_closes_and_not_that_its_stream_ended(serving: Serving) -> None:
    """With `stream-end` EventSource would never come back."""

    async def handler(request: Request) -> AsyncIterator[str]:
        yield "x"
        await request.closing.wait()
        yield "goodbye"

    served = await serving(handler)
    peer = await served.ask(get(accept=SSE))
    assert await peer.head() == SSE_HEAD
    await peer.expect(chunk(b"data: x\n\n"))
    served.server.close()
    told = await peer.until(b"\n\n\r\n")
    match = re.fullmatch(rb"2c\r\nevent: stream-closing\ndata: \{\}\nretry: (\d{4})\n\n\r\n", told)
    assert match is not None, told
    assert 1000 <= int(match[1]) <= 5000
    await peer.expect(chunk(b"data: goodbye\n\n") + LAST_CHUNK)
    assert await peer.rest() == b""


async def test_readers_are_sent_back_at_different_times(serving: Serving) -> None:
    async def handler(request: Request) -> AsyncIterator[str]:
        yield "x"
        await request.closing.wait()

    served = await serving(handler)
    peers = [await served.ask(get(accept=SSE)) for _ in range(20)]
    for peer in peers:
        await peer.until(b"data: x\n\n\r\n")
    served.server.close()
    assert len({await peer.rest() for peer in peers}) > 1


@pytest.mark.parametrize(
    ("accept", "head", "all_of_it"),
    [
        ("application/json", JSON_HEAD, chunk(b'["x"') + chunk(b"]")),
        ("application/x-ndjson", NDJSON_HEAD, chunk(b'"x"\n')),
        ("text/plain", TEXT_HEAD, chunk(b"x")),
    ],
)
async def test_other_formats_have_no_way_to_tell_and_end_properly(
    serving: Serving, accept: str, head: bytes, all_of_it: bytes
) -> None:
    async def handler(request: Request) -> AsyncIterator[str]:
        yield "x"
        await request.closing.wait()

    served = await serving(handler)
    peer = await served.ask(get(accept=accept))
    assert await peer.head() == head
    await peer.until(b"x")
    served.server.close()
    assert all_of_it.endswith((await peer.rest()).removesuffix(LAST_CHUNK))
    assert peer.ending == "end"


async def test_a_stream_whose_head_has_not_left_is_not_told(serving: Serving) -> None:
    async def items(request: Request) -> AsyncIterator[str]:
        await request.closing.wait()
        yield "x"

    async def handler(request: Request) -> Stream:
        return Stream(items(request), head="item", format="text")

    served = await serving(handler)
    peer = await served.ask(get())
    await settle()
    served.server.close()
    head = await peer.head()
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert await peer.rest() == chunk(b"x") + LAST_CHUNK


# -- breaking off ------------------------------------------------------------------------------------------------------


AT_ONCE = Timeouts(linger=0, grace=60)


async def broken(request: Request) -> AsyncIterator[str]:
    yield "x"
    await asyncio.sleep(0)
    yield "y"
    raise ZeroDivisionError


ERROR = b'{"status":500,"error":"Internal Server Error"}'


@pytest.mark.parametrize(
    ("accept", "head", "body"),
    [
        (
            SSE,
            SSE_HEAD,
            chunk(b"data: x\n\n") + chunk(b"data: y\n\nevent: stream-error\ndata: " + ERROR + b"\n\n"),
        ),
        (
            "application/x-ndjson",
            NDJSON_HEAD,
            chunk(b'"x"\n') + chunk(b'"y"\n{"stream-error":' + ERROR + b"}\n"),
        ),
        ("application/json", JSON_HEAD, chunk(b'["x"') + chunk(b',"y"')),
        ("text/plain", TEXT_HEAD, chunk(b"x") + chunk(b"y")),
    ],
)
async def test_a_failure_after_the_head_is_told_where_the_format_can_and_cut_without_the_last_chunk(
    serving: Serving, failures: Failures, accept: str, head: bytes, body: bytes
) -> None:
    peer = await (await serving(broken, timeouts=AT_ONCE)).ask(get(accept=accept))
    assert await peer.head() == head
    assert await peer.rest() == body
    assert isinstance(failures.take(), ZeroDivisionError)


async def test_to_http_1_0_a_close_would_be_a_proper_end_so_the_connection_is_reset(
    serving: Serving, failures: Failures
) -> None:
    peer = await (await serving(broken, timeouts=AT_ONCE)).ask(get(accept=SSE, version="1.0"))
    assert await peer.head() == SSE_HEAD.replace(b"Transfer-Encoding: chunked", b"Connection: close")
    assert await peer.rest() == b"data: x\n\ndata: y\n\nevent: stream-error\ndata: " + ERROR + b"\n\n"
    assert peer.ending == "reset"
    assert isinstance(failures.take(), ZeroDivisionError)


async def test_an_item_that_cannot_be_sent_breaks_the_stream_off_and_names_itself_in_the_log(
    serving: Serving, failures: Failures
) -> None:
    async def handler(request: Request) -> AsyncIterator[object]:
        yield "fine"
        await asyncio.sleep(0)
        yield {1, 2}

    peer = await (await serving(handler, timeouts=AT_ONCE)).ask(get(accept="application/x-ndjson"))
    assert await peer.head() == NDJSON_HEAD
    assert await peer.rest() == chunk(b'"fine"\n') + chunk(b'{"stream-error":' + ERROR + b"}\n")
    failure = failures.take()
    assert isinstance(failure, errors.ItemError)
    assert str(failure) == "item 1 (set) cannot be sent as JSON: set is not a JSON type"


async def test_an_http_error_after_the_head_is_told_with_its_status_and_detail(serving: Serving) -> None:
    async def handler(request: Request) -> AsyncIterator[str]:
        yield "x"
        await asyncio.sleep(0)
        raise errors.HTTPError(402, "out of credit")

    peer = await (await serving(handler, timeouts=AT_ONCE)).ask(get(accept="application/x-ndjson"))
    assert await peer.head() == NDJSON_HEAD
    told = b'{"stream-error":{"status":402,"error":"out of credit"}}\n'
    assert await peer.rest() == chunk(b'"x"\n') + chunk(told)


async def test_who_is_told_has_a_second_to_read_it_before_the_connection_ends(
    serving: Serving, failures: Failures, clock: Clock
) -> None:
    """When a browser learns of the end, it drops what its page has not read yet."""
    served = await serving(broken)
    peer = await served.ask(get(accept=SSE))
    await peer.until(ERROR + b"\n\n\r\n")
    failures.take()
    await clock.advance(0.875)
    assert peer.here() == b""
    assert served.server.connections == 1
    await clock.advance(0.5)
    assert await peer.rest() == b""
    assert served.server.connections == 0


async def test_who_has_read_it_and_leaves_is_not_waited_for(serving: Serving, failures: Failures, clock: Clock) -> None:
    served = await serving(broken)
    peer = await served.ask(get(accept=SSE))
    await peer.until(ERROR + b"\n\n\r\n")
    failures.take()
    peer.finish()
    assert await peer.rest() == b""


async def test_where_the_format_cannot_tell_nothing_is_waited_for(
    serving: Serving, failures: Failures, clock: Clock
) -> None:
    peer = await (await serving(broken)).ask(get())
    assert await peer.head() == JSON_HEAD
    assert await peer.rest() == chunk(b'["x"') + chunk(b',"y"')
    failures.take()
