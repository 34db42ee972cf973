"""The life of a connection over real sockets: requests in their order, failures, and clients that go away."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import gc
import logging
import re
import socket
import weakref
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
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

from rawstream import Event, Every, Limits, Request, Response, Router, Stream, Timeouts, errors
from rawstream.formats import Format, Text

SSE = "text/event-stream"
NDJSON = "application/x-ndjson"
EMPTY = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
FAILED = b"500 Internal Server Error\n"
FAILED_HEAD = (
    b"HTTP/1.1 500 Internal Server Error\r\nContent-Type: text/plain; charset=utf-8\r\nVary: Accept\r\n"
    b"Content-Length: 26\r\n\r\n"
)


async def empty(request: Request) -> Response:
    return Response()


async def path(request: Request) -> Response:
    return Response.text(request.path)


async def now() -> None:
    """Wait, but only as long as it takes to come back."""
    await asyncio.sleep(0)


async def answer(peer: Peer, expected: bytes) -> None:
    """The next response is a text, `expected`."""
    head, body = await peer.response()
    assert body == expected, head


# -- what a handler may be ---------------------------------------------------------------------------------------------


async def coroutine(request: Request) -> Response:
    return Response.text("said")


async def coroutine_with_stream(request: Request) -> Stream:
    return Stream(generator(request), format="text")


async def generator(request: Request) -> AsyncIterator[str]:
    yield "said"


async def coroutine_with_generator(request: Request) -> AsyncIterator[str]:
    return generator(request)


def plain(request: Request) -> Response:
    return Response.text("said")


class Callables:
    async def __call__(self, request: Request) -> Response:
        return Response.text("said")

    async def method(self, request: Request) -> AsyncIterator[str]:
        yield "said"


async def with_option(option: str, request: Request) -> Response:
    return Response.text(option)


class Counter:
    """An async iterator that is no generator."""

    def __init__(self) -> None:
        self.left = ["sa", "id"]

    def __aiter__(self) -> Counter:
        return self

    async def __anext__(self) -> str:
        if not self.left:
            raise StopAsyncIteration
        return self.left.pop(0)


async def coroutine_with_iterator(request: Request) -> Counter:
    return Counter()


async def coroutine_with_bare_iterator(request: Request) -> AsyncIterable[str]:
    """`async for` asks no more of an iterator than its `__anext__`."""

    class Bare:
        __anext__ = Counter.__anext__
        left = ["sa", "id"]  # noqa: RUF012

    class Items:
        def __aiter__(self) -> AsyncIterator[str]:
            return Bare()  # type: ignore[return-value]

    return Items()


class Pipe(Counter):
    """Something to iterate over that can be called as well, for another purpose."""

    def __call__(self, request: Request) -> Pipe:
        return self

    def __aiter__(self) -> Pipe:
        self.left = ["sa", "id"]
        return self


async def coroutine_with_callable_iterator(request: Request) -> Pipe:
    return Pipe()


def routed() -> Router:
    router = Router()
    router.get("/")(coroutine)
    return router


@pytest.mark.parametrize(
    "handler",
    [
        coroutine,
        coroutine_with_stream,
        generator,
        coroutine_with_generator,
        coroutine_with_iterator,
        coroutine_with_bare_iterator,
        coroutine_with_callable_iterator,
        Pipe(),
        plain,
        Callables(),
        Callables().method,
        functools.partial(with_option, "said"),
        functools.partial(generator),
        routed(),
    ],
    ids=[
        "coroutine",
        "coroutine that returns a stream",
        "generator",
        "coroutine that returns a generator",
        "coroutine that returns an iterator",
        "coroutine that returns what gives a bare iterator",
        "coroutine that returns an iterator that can be called",
        "iterator that can be called, and returns itself",
        "plain function",
        "callable object",
        "method",
        "partial of a coroutine",
        "partial of a generator",
        "router",
    ],
)
async def test_a_handler_is_whatever_gives_an_answer(serving: Serving, handler: Any) -> None:
    peer = await (await serving(handler)).ask(get(accept="text/plain"))
    assert (await peer.head()).startswith(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\n")
    assert (await peer.until(b"said"))[-4:] == b"said"


@pytest.mark.parametrize(("value", "kind"), [(None, "NoneType"), ("text", "str"), ({"a": 1}, "dict"), (b"", "bytes")])
async def test_any_other_answer_is_a_500_and_the_log_says_what_would_be_right(
    serving: Serving, failures: Failures, value: object, kind: str
) -> None:
    async def handler(request: Request) -> object:
        return value

    peer = await (await serving(handler)).ask(get("/a"))
    assert await peer.response() == (FAILED_HEAD, FAILED)
    failure = failures.take()
    assert isinstance(failure, errors.AnswerError)
    assert str(failure) == (
        "a handler returns a Response or a Stream, or is an async generator that yields items; "
        f"for GET /a it returned {kind}"
    )


@pytest.mark.parametrize(
    "fields",
    [
        [("X-Injected", "a\r\nSet-Cookie: b")],
        [("X-Injected", "a\nb")],
        [("X-Injected", "a\0b")],
        [("X Space", "a")],
        [("X-Wide", "这")],
        [("这", "a")],
        [("X-Number", 1)],
        ["no pair"],
    ],
)
@pytest.mark.parametrize("streamed", [True, False])
async def test_fields_that_http_does_not_allow_are_a_500(
    serving: Serving, failures: Failures, fields: Any, streamed: bool
) -> None:
    async def handler(request: Request) -> Any:
        return Stream(generator(request), headers=fields) if streamed else Response(200, fields)

    peer = await (await serving(handler)).ask(get())
    assert await peer.response() == (FAILED_HEAD, FAILED)
    failures.take()
    await peer.send(get())
    assert await peer.response() == (FAILED_HEAD, FAILED)
    failures.take()


async def test_a_stream_takes_no_framing_of_its_own(serving: Serving, failures: Failures) -> None:
    async def handler(request: Request) -> Stream:
        return Stream(generator(request), headers={"Content-Length": "4"})

    peer = await (await serving(handler)).ask(get())
    assert await peer.response() == (FAILED_HEAD, FAILED)
    assert "chooses its own framing" in str(failures.take())


# -- what is sent ------------------------------------------------------------------------------------------------------


async def test_items_that_are_ready_together_share_a_chunk(serving: Serving) -> None:
    async def handler(request: Request) -> AsyncIterator[int]:
        yield 1
        yield 2
        await now()
        yield 3
        yield 4
        await now()

    peer = await (await serving(handler)).ask(get())
    assert await peer.head() == JSON_HEAD
    await peer.expect(chunk(b"[1,2") + chunk(b",3,4") + chunk(b"]") + LAST_CHUNK)


async def test_an_end_that_was_not_waited_for_shares_the_last_chunk(serving: Serving) -> None:
    async def handler(request: Request) -> AsyncIterator[int]:
        yield 1
        yield 2

    peer = await (await serving(handler)).ask(get())
    assert await peer.piece() == JSON_HEAD + chunk(b"[1,2]") + LAST_CHUNK


@pytest.mark.parametrize(
    ("accept", "head", "body"),
    [
        ("application/json", JSON_HEAD, chunk(b"[]")),
        (NDJSON, NDJSON_HEAD, b""),
        ("text/plain", TEXT_HEAD, b""),
        (SSE, SSE_HEAD, chunk(b"event: stream-end\ndata: {}\nid: stream-end\n\n")),
    ],
)
async def test_an_empty_stream_is_complete(serving: Serving, accept: str, head: bytes, body: bytes) -> None:
    async def handler(request: Request) -> AsyncIterator[int]:
        return
        yield

    peer = await (await serving(handler)).ask(get(accept=accept))
    assert await peer.piece() == head + body + LAST_CHUNK


async def test_each_item_can_have_its_own_chunk(serving: Serving) -> None:
    async def items() -> AsyncIterator[str]:
        yield "a"
        yield "b"

    async def handler(request: Request) -> Stream:
        return Stream(items(), flush="item")

    peer = await (await serving(handler)).ask(get(accept="text/plain"))
    assert await peer.head() == TEXT_HEAD
    await peer.expect(chunk(b"a") + chunk(b"b") + LAST_CHUNK)


async def test_items_can_be_gathered_by_size(serving: Serving) -> None:
    async def items() -> AsyncIterator[str]:
        for _ in range(5):
            yield "ab"
            await now()

    async def handler(request: Request) -> Stream:
        return Stream(items(), flush=Every(bytes=4, seconds=60))

    peer = await (await serving(handler)).ask(get(accept="text/plain"))
    assert await peer.head() == TEXT_HEAD
    await peer.expect(chunk(b"abab") + chunk(b"abab") + chunk(b"ab") + LAST_CHUNK)


async def test_items_can_be_gathered_for_a_time(serving: Serving, clock: Clock) -> None:
    gate = asyncio.Event()

    async def items() -> AsyncIterator[str]:
        yield "a"
        await now()
        yield "b"
        await gate.wait()

    async def handler(request: Request) -> Stream:
        return Stream(items(), flush=Every(bytes=100, seconds=0.25))

    peer = await (await serving(handler)).ask(get(accept="text/plain"))
    await clock.advance(0.125)
    assert peer.here() == b""
    await clock.advance(0.125)
    assert await peer.piece() == TEXT_HEAD + chunk(b"ab")
    gate.set()
    assert await peer.piece() == LAST_CHUNK


async def test_a_fixed_format_does_not_vary_by_accept(serving: Serving) -> None:
    async def handler(request: Request) -> Stream:
        return Stream(generator(request), format="ndjson")

    peer = await (await serving(handler)).ask(get(accept=SSE))
    assert await peer.head() == NDJSON_HEAD.replace(b"Vary: Accept\r\n", b"")
    await peer.expect(chunk(b'"said"\n') + LAST_CHUNK)


async def test_a_streams_own_fields_replace_the_defaults(serving: Serving) -> None:
    async def handler(request: Request) -> Stream:
        return Stream(generator(request), headers=[("VARY", "Cookie"), ("x-accel-buffering", "yes")])

    peer = await (await serving(handler)).ask(get(accept=SSE))
    assert await peer.head() == (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-store, no-transform\r\n"
        b"VARY: Cookie\r\nx-accel-buffering: yes\r\nTransfer-Encoding: chunked\r\n\r\n"
    )


async def test_a_date_of_the_handlers_own_is_the_only_one(serving: Serving) -> None:
    date = "Sun, 06 Nov 1994 08:49:37 GMT"

    async def handler(request: Request) -> Any:
        fields = {"date": date}
        return Stream(generator(request), headers=fields) if request.path == "/stream" else Response(200, fields)

    peer = await (await serving(handler)).ask(get() + get("/stream"))
    for _ in range(2):
        head = await peer.until(b"\r\n\r\n")
        assert head.lower().count(b"\r\ndate:") == 1
        assert date.encode() in head


async def test_raw_bytes_have_their_format(serving: Serving) -> None:
    async def items() -> AsyncIterator[bytes]:
        yield b"\0\xff"

    async def handler(request: Request) -> Stream:
        return Stream(items(), format="bytes")

    peer = await (await serving(handler)).ask(get())
    assert await peer.head() == (
        b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    await peer.expect(chunk(b"\0\xff") + LAST_CHUNK)


async def test_empty_pieces_make_no_chunk(serving: Serving) -> None:
    """An empty chunk would end the body."""

    async def items() -> AsyncIterator[bytes]:
        yield b""
        await now()
        yield b"x"
        await now()
        yield b""

    async def handler(request: Request) -> Stream:
        return Stream(items(), format="bytes", flush="item")

    peer = await (await serving(handler)).ask(get())
    await peer.head()
    await peer.expect(chunk(b"x") + LAST_CHUNK)


async def test_a_stream_can_have_another_status(serving: Serving) -> None:
    async def handler(request: Request) -> Stream:
        return Stream(generator(request), status=202, format="text")

    peer = await (await serving(handler)).ask(get())
    assert (await peer.head()).startswith(b"HTTP/1.1 202 Accepted\r\n")
    await peer.expect(chunk(b"said") + LAST_CHUNK)


async def test_what_the_client_cannot_accept_is_406_and_the_generator_does_not_start(serving: Serving) -> None:
    steps = Steps()

    async def handler(request: Request) -> AsyncIterator[str]:
        steps("started")
        yield "x"

    peer = await (await serving(handler)).ask(get(accept="image/png"))
    head, body = await peer.response()
    assert head.startswith(b"HTTP/1.1 406 Not Acceptable\r\n")
    assert body == (
        b"406 Not Acceptable: this can be sent as application/json, application/x-ndjson, application/jsonl, "
        b"text/event-stream, text/plain\n"
    )
    assert steps.done == []


async def test_an_event_of_ones_own_is_sent_in_order_of_its_fields(serving: Serving) -> None:
    async def handler(request: Request) -> AsyncIterator[Event]:
        yield Event({"n": 1}, event="tick", id="7", retry=2000)
        await now()

    peer = await (await serving(handler)).ask(get(accept=SSE))
    assert await peer.head() == SSE_HEAD
    await peer.expect(chunk(b'event: tick\ndata: {"n":1}\nid: 7\nretry: 2000\n\n'))


# -- HEAD, and answers without a body ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("accept", "head"), [(None, JSON_HEAD), (SSE, SSE_HEAD)])
async def test_head_gets_the_head_alone_and_never_starts_the_generator(
    serving: Serving, accept: str | None, head: bytes
) -> None:
    steps = Steps()

    async def items() -> AsyncIterator[str]:
        steps("started")
        yield "x"

    iterators: list[Any] = []

    async def handler(request: Request) -> Stream:
        iterators.append(items())
        return Stream(iterators[-1])

    served = await serving(handler)
    peer = await served.ask(request("/", *([f"Accept: {accept}"] if accept else []), method="HEAD"))
    assert await peer.head() == head
    await peer.send(request(method="HEAD", version="1.1"))
    assert await peer.head() == JSON_HEAD
    assert peer.here() == b""
    assert steps.done == []
    for iterator in iterators:  # closed, although it never started
        with pytest.raises(StopAsyncIteration):
            await anext(iterator)


async def test_head_of_a_response_tells_the_length_alone(serving: Serving) -> None:
    peer = await (await serving(coroutine)).ask(request(method="HEAD"))
    assert await peer.head() == (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 4\r\n\r\n"
    )
    await settle()
    assert peer.here() == b""


@pytest.mark.parametrize("status", [204, 304])
async def test_a_stream_whose_status_has_no_body_is_not_started(serving: Serving, status: int) -> None:
    steps = Steps()

    async def items() -> AsyncIterator[str]:
        steps("started")
        yield "x"

    async def handler(request: Request) -> Stream:
        return Stream(items(), status=status)

    peer = await (await serving(handler)).ask(get())
    assert (await peer.head()).startswith(b"HTTP/1.1 %d " % status)
    await peer.send(get())
    assert (await peer.head()).startswith(b"HTTP/1.1 %d " % status)
    assert steps.done == []


async def test_a_204_has_no_length(serving: Serving) -> None:
    async def handler(request: Request) -> Response:
        return Response(204)

    peer = await (await serving(handler)).ask(get() + get())
    assert await peer.head() == b"HTTP/1.1 204 No Content\r\n\r\n"
    assert await peer.head() == b"HTTP/1.1 204 No Content\r\n\r\n"


async def test_who_comes_back_with_the_end_of_a_stream_gets_204_and_the_handler_does_not_run(serving: Serving) -> None:
    """EventSource reconnects after a stream's end, and would run it for ever."""
    steps = Steps()

    async def handler(request: Request) -> AsyncIterator[str]:
        steps("ran")
        yield "x"

    peer = await (await serving(handler)).ask(get("/", SSE, "Last-Event-ID: stream-end"))
    assert await peer.head() == b"HTTP/1.1 204 No Content\r\n\r\n"
    assert steps.done == []
    await peer.send(get("/", SSE, "Last-Event-ID: 17"))
    assert await peer.head() == SSE_HEAD
    assert steps.done == ["ran"]


async def test_a_page_of_a_listed_origin_may_see_that_there_is_nothing_more(serving: Serving) -> None:
    asked = get("/", SSE, "Last-Event-ID: stream-end", "Origin: https://example.org")
    peer = await (await serving(empty, allowed_origins=["https://example.org"])).ask(asked)
    head = await peer.head()
    assert head.startswith(b"HTTP/1.1 204 No Content\r\n")
    assert b"Access-Control-Allow-Origin: https://example.org\r\n" in head
    peer = await (await serving(empty)).ask(asked)
    assert await peer.head() == b"HTTP/1.1 204 No Content\r\n\r\n"


async def test_what_is_no_get_is_done_whatever_its_last_event_id(serving: Serving) -> None:
    peer = await (await serving(empty)).ask(get("/", "Last-Event-ID: stream-end").replace(b"GET", b"POST", 1))
    await peer.expect_head(EMPTY)


# -- failures ----------------------------------------------------------------------------------------------------------


async def fails_at_once(request: Request) -> Response:
    raise ZeroDivisionError("secret")


async def fails_before_its_first_item(request: Request) -> AsyncIterator[str]:
    raise ZeroDivisionError("secret")
    yield "x"


def fails_in_a_plain_call(request: Request) -> Response:
    raise ZeroDivisionError("secret")


@pytest.mark.parametrize("handler", [fails_at_once, fails_before_its_first_item, fails_in_a_plain_call])
@pytest.mark.parametrize("accept", ["application/json", NDJSON, SSE, "text/plain"])
async def test_a_failure_before_the_head_is_a_short_500_in_every_format_and_the_log_has_the_rest(
    serving: Serving, failures: Failures, handler: Any, accept: str
) -> None:
    peer = await (await serving(handler)).ask(get("/path?q", accept))
    head, body = await peer.response()
    if accept == "application/json":
        assert head.startswith(
            b"HTTP/1.1 500 Internal Server Error\r\nContent-Type: application/json; charset=utf-8\r\n"
        )
        assert body == b'{"status":500,"error":"Internal Server Error"}\n'
    else:
        assert (head, body) == (FAILED_HEAD, FAILED)
    [record] = failures.records
    assert re.fullmatch(r"[0-9a-f]{6}-\d+ GET /path\?q failed", record.getMessage())
    failure = failures.take()
    assert isinstance(failure, ZeroDivisionError)
    assert str(failure) == "secret"
    await peer.send(get())
    assert await peer.response() == (FAILED_HEAD, FAILED)
    failures.take()


async def test_a_json_stream_can_fail_with_a_status_although_it_waited_first(
    serving: Serving, failures: Failures
) -> None:
    async def handler(request: Request) -> AsyncIterator[str]:
        await now()
        raise ZeroDivisionError
        yield "x"

    peer = await (await serving(handler)).ask(get())
    assert await peer.response() == (FAILED_HEAD, FAILED)
    failures.take()


async def test_an_sse_stream_that_waited_first_has_sent_its_head_and_tells_in_band(
    serving: Serving, failures: Failures
) -> None:
    async def handler(request: Request) -> AsyncIterator[str]:
        await now()
        raise ZeroDivisionError
        yield "x"

    peer = await (await serving(handler, timeouts=Timeouts(linger=0))).ask(get(accept=SSE))
    assert await peer.head() == SSE_HEAD
    told = b'event: stream-error\ndata: {"status":500,"error":"Internal Server Error"}\n\n'
    assert await peer.rest() == chunk(told)
    failures.take()


async def test_items_that_have_not_left_give_way_to_the_500(serving: Serving, failures: Failures) -> None:
    async def handler(request: Request) -> AsyncIterator[str]:
        yield "x"
        raise ZeroDivisionError

    peer = await (await serving(handler)).ask(get())
    assert await peer.response() == (FAILED_HEAD, FAILED)
    failures.take()


async def test_a_first_item_that_cannot_be_sent_is_a_500(serving: Serving, failures: Failures) -> None:
    async def handler(request: Request) -> AsyncIterator[Any]:
        yield object()

    peer = await (await serving(handler)).ask(get())
    assert await peer.response() == (FAILED_HEAD, FAILED)
    assert str(failures.take()) == "item 0 (object) cannot be sent as JSON: object is not a JSON type"


@pytest.mark.parametrize(
    ("accept", "kind", "body"),
    [
        ("application/json", b"application/json", b'{"status":401,"error":"who are you?"}\n'),
        ("text/plain;q=0.9, application/json", b"application/json", b'{"status":401,"error":"who are you?"}\n'),
        (f"application/json;q=0.5, {SSE}", b"application/json", b'{"status":401,"error":"who are you?"}\n'),
        (NDJSON, b"text/plain", b"401 Unauthorized: who are you?\n"),
        (SSE, b"text/plain", b"401 Unauthorized: who are you?\n"),
        ("text/plain", b"text/plain", b"401 Unauthorized: who are you?\n"),
        ("text/plain, application/json;q=0.9", b"text/plain", b"401 Unauthorized: who are you?\n"),
        ("*/*", b"text/plain", b"401 Unauthorized: who are you?\n"),
    ],
)
@pytest.mark.parametrize("streamed", [True, False])
async def test_an_http_error_is_its_status_detail_and_fields_and_no_failure_of_ours(
    serving: Serving, accept: str, kind: bytes, body: bytes, streamed: bool
) -> None:
    async def items(request: Request) -> AsyncIterator[str]:
        raise errors.HTTPError(401, "who are you?", [("WWW-Authenticate", "Bearer")])
        yield "x"

    async def other(request: Request) -> Response:
        raise errors.HTTPError(401, "who are you?", [("WWW-Authenticate", "Bearer")])

    peer = await (await serving(items if streamed else other)).ask(get(accept=accept))
    assert await peer.response() == (
        b"HTTP/1.1 401 Unauthorized\r\nContent-Type: %b; charset=utf-8\r\nWWW-Authenticate: Bearer\r\n"
        b"Vary: Accept\r\nContent-Length: %d\r\n\r\n" % (kind, len(body)),
        body,
    )


@pytest.mark.parametrize("fields", [[("X-Injected", "a\r\nb")], [("X-Number", 1)], ["no pair"]])
async def test_an_http_error_whose_fields_cannot_be_sent_is_a_500(
    serving: Serving, failures: Failures, fields: Any
) -> None:
    async def handler(request: Request) -> Response:
        raise errors.HTTPError(401, "who are you?", fields)

    peer = await (await serving(handler)).ask(get())
    assert await peer.response() == (FAILED_HEAD, FAILED)
    assert isinstance(failures.take(), ValueError | TypeError)
    await peer.send(get())
    assert await peer.response() == (FAILED_HEAD, FAILED)
    failures.take()


async def test_a_detail_that_utf_8_cannot_carry_is_still_told(serving: Serving) -> None:
    async def handler(request: Request) -> Response:
        raise errors.HTTPError(404, f"no user {await request.json()}")

    peer = await (await serving(handler)).ask(request("/", method="POST", body=b'"\\ud800"'))
    await answer(peer, b"404 Not Found: no user ?\n")


@pytest.mark.parametrize("detail", [{"field": "name"}, ValueError("why"), b"why"])
@pytest.mark.parametrize("streamed", [True, False])
async def test_an_http_error_whose_detail_is_no_text_is_a_500(
    serving: Serving, failures: Failures, detail: Any, streamed: bool
) -> None:
    async def items(request: Request) -> AsyncIterator[str]:
        raise errors.HTTPError(422, detail)
        yield "x"

    async def other(request: Request) -> Response:
        raise errors.HTTPError(422, detail)

    peer = await (await serving(items if streamed else other)).ask(get())
    assert await peer.response() == (FAILED_HEAD, FAILED)
    assert "detail is a str" in str(failures.take())


async def test_a_detail_that_utf_8_cannot_carry_is_told_in_a_stream_too(serving: Serving) -> None:
    async def handler(request: Request) -> AsyncIterator[str]:
        await now()
        yield "x"
        raise errors.HTTPError(404, "no file caf\udce9")

    peer = await (await serving(handler, timeouts=Timeouts(linger=0))).ask(get(accept=SSE))
    assert await peer.head() == SSE_HEAD
    told = b'event: stream-error\ndata: {"status":404,"error":"no file caf?"}\n\n'
    assert await peer.rest() == chunk(b"data: x\n\n" + told)


@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_an_encoder_of_ones_own_that_cannot_tell_the_error_loses_no_item_and_completes_no_stream(
    serving: Serving, failures: Failures, version: str
) -> None:
    class Encoder(Text):
        def error(self, status: int, message: str) -> bytes:
            raise LookupError(message)

    async def items() -> AsyncIterator[str]:
        yield "x"
        await now()
        yield "y"
        raise ZeroDivisionError

    async def handler(request: Request) -> Stream:
        return Stream(items(), format=Format("own", "text/plain", Encoder), head="suspend")

    peer = await (await serving(handler)).ask(get(version=version))
    await peer.head()
    assert await peer.rest() == (b"xy" if version == "1.0" else chunk(b"x") + chunk(b"y"))
    assert version == "1.1" or peer.ending == "reset"
    assert isinstance(failures.take(), ZeroDivisionError)
    assert isinstance(failures.take(), LookupError)


class Panic(BaseException):
    """As PyO3 raises it for a panic in Rust."""


@pytest.mark.parametrize("kind", [Panic, SystemExit, GeneratorExit])
@pytest.mark.parametrize("streamed", [True, False])
async def test_what_a_handler_raises_that_is_no_exception_is_a_500_and_the_server_goes_on(
    serving: Serving, failures: Failures, kind: type[BaseException], streamed: bool
) -> None:
    """One bad request ends no process, as a `sys.exit` in some library would."""

    async def items(request: Request) -> AsyncIterator[str]:
        raise kind("why")
        yield "x"

    async def other(request: Request) -> Response:
        raise kind("why")

    served = await serving(items if streamed else other)
    peer = await served.ask(get())
    for _ in range(2):
        assert await peer.response() == (FAILED_HEAD, FAILED)
        assert isinstance(failures.take().__cause__, kind)
        await peer.send(get())
    assert await peer.response() == (FAILED_HEAD, FAILED)
    failures.take()


@pytest.mark.parametrize("kind", [Panic, SystemExit])
async def test_it_is_told_in_a_stream_too(serving: Serving, failures: Failures, kind: type[BaseException]) -> None:
    async def handler(request: Request) -> AsyncIterator[str]:
        yield "x"
        await now()
        raise kind("why")

    peer = await (await serving(handler, timeouts=Timeouts(linger=0))).ask(get(accept=NDJSON))
    await peer.head()
    told = b'{"stream-error":{"status":500,"error":"Internal Server Error"}}\n'
    assert await peer.rest() == chunk(b'"x"\n') + chunk(told)
    assert isinstance(failures.take().__cause__, kind)


@pytest.mark.parametrize("kind", [Panic, SystemExit])
async def test_it_ends_nothing_in_a_clean_up_either(
    serving: Serving, failures: Failures, kind: type[BaseException]
) -> None:
    class Iterator(Counter):
        async def aclose(self) -> None:
            raise kind("why")

    async def handler(request: Request) -> Iterator | Response:
        return Iterator() if request.path == "/" else Response()

    served = await serving(handler)
    peer = await served.ask(get(accept="text/plain"))
    assert await peer.head() == TEXT_HEAD
    assert await peer.rest() == chunk(b"said") + LAST_CHUNK
    assert isinstance(failures.take().__cause__, kind)
    await (await served.ask(get("/other"))).expect_head(EMPTY)


async def test_a_connection_of_the_handlers_own_that_was_lost_is_a_500(serving: Serving, failures: Failures) -> None:
    """To somebody else: the client is there, and waits."""

    async def handler(request: Request) -> Response:
        raise errors.Disconnected("the database is gone")

    peer = await (await serving(handler)).ask(get())
    assert await peer.response() == (FAILED_HEAD, FAILED)
    assert isinstance(failures.take().__cause__, errors.Disconnected)


async def test_a_cancelled_error_of_the_handlers_own_is_a_500(serving: Serving, failures: Failures) -> None:
    async def handler(request: Request) -> Response:
        raise asyncio.CancelledError

    peer = await (await serving(handler)).ask(get())
    assert await peer.response() == (FAILED_HEAD, FAILED)
    assert "nobody had cancelled it" in str(failures.take())


async def test_a_failure_while_the_generator_is_closed_after_its_end_cuts_nothing_that_was_complete(
    serving: Serving, failures: Failures
) -> None:
    class Iterator(Counter):
        async def aclose(self) -> None:
            raise ZeroDivisionError

    async def handler(request: Request) -> Iterator:
        return Iterator()

    peer = await (await serving(handler)).ask(get(accept="text/plain"))
    assert await peer.head() == TEXT_HEAD
    assert await peer.rest() == chunk(b"said") + LAST_CHUNK
    assert isinstance(failures.take(), ZeroDivisionError)


async def test_a_failure_while_a_vanished_clients_generator_is_closed_is_logged(
    serving: Serving, failures: Failures
) -> None:
    steps = Steps()

    async def handler(request: Request) -> AsyncIterator[str]:
        try:
            yield "x"
            await asyncio.get_running_loop().create_future()
        finally:
            steps("finally")
            raise ZeroDivisionError

    peer = await (await serving(handler)).ask(get(accept=SSE))
    assert await peer.head() == SSE_HEAD
    peer.reset()
    await steps.reach("finally")
    await settle()
    assert isinstance(failures.take(), ZeroDivisionError)


# -- no request --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"hello\r\n\r\n", b"400 Bad Request"),
        (b"GET / HTTP/1.1\r\n\r\n", b"400 Bad Request"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", b"400 Bad Request"),
        (b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", b"400 Bad Request"),
        (b"GET http://user@test/ HTTP/1.1\r\nHost: test\r\n\r\n", b"400 Bad Request"),
        (b"GET / HTTP/2.0\r\nHost: test\r\n\r\n", b"505 HTTP Version Not Supported"),
        (b"CONNECT test:80 HTTP/1.1\r\nHost: test\r\n\r\n", b"501 Not Implemented"),
        (b"POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: gzip\r\n\r\n", b"400 Bad Request"),
        (
            b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"400 Bad Request",
        ),
        (
            b"GET / HTTP/1.1\r\nHost: test\r\nX: " + b"x" * 17_000 + b"\r\n\r\n",
            b"431 Request Header Fields Too Large",
        ),
        (b"GET / HTTP/1.1\r\nHost: test\r\n" + b"X: y\r\n" * 100 + b"\r\n", b"431 Request Header Fields Too Large"),
    ],
)
async def test_what_is_no_request_is_refused_and_the_connection_closed(
    serving: Serving, data: bytes, status: bytes
) -> None:
    steps = Steps()

    async def handler(request: Request) -> Response:
        steps("ran")
        return Response()

    peer = await (await serving(handler)).ask(data)
    head, body = await peer.response()
    assert head.startswith(
        b"HTTP/1.1 " + status + b"\r\nContent-Type: text/plain; charset=utf-8\r\nVary: Accept\r\nConnection: close\r\n"
    )
    assert body.startswith(status + b": ")
    assert await peer.rest() == b""
    assert peer.ending == "end"
    assert steps.done == []


async def test_an_empty_line_before_a_request_is_skipped(serving: Serving) -> None:
    peer = await (await serving(path)).ask(b"\r\n" + get("/a") + b"\r\n\r\n" + get("/b"))
    await answer(peer, b"/a")
    await answer(peer, b"/b")


# -- several requests on one connection --------------------------------------------------------------------------------


async def test_a_connection_is_used_again(serving: Serving) -> None:
    peer = await (await serving(empty)).connect()
    for _ in range(3):
        await peer.send(get())
        await peer.expect_head(EMPTY)


async def test_requests_of_one_segment_are_answered_in_their_order(serving: Serving) -> None:
    served = await serving(path)
    peer = await served.ask(get("/a") + request("/b", method="POST", body=b"body") + get("/c"))
    await answer(peer, b"/a")
    await answer(peer, b"/b")
    await answer(peer, b"/c")


class Vague:
    """A value that cannot be compared, such as an array."""

    def __eq__(self, other: object) -> bool:
        raise TypeError

    __hash__ = None  # type: ignore[assignment]


NOBODY, PROGRAM = Vague(), Vague()


class Context:
    """A handler whose requests see and set context variables: one that nobody sets else, and one that the program set.

    `steps` has what each saw: its user, and the variable of the program.
    """

    def __init__(self) -> None:
        self.steps = Steps()
        self._user: contextvars.ContextVar[object] = contextvars.ContextVar("user", default=NOBODY)
        self._level: contextvars.ContextVar[object] = contextvars.ContextVar("level", default=None)
        self._level.set(PROGRAM)

    def _use(self, which: str) -> None:
        self.steps((self._user.get() is NOBODY, self._level.get() is PROGRAM))
        if which != "level":
            self._user.set(Vague())
        if which != "user":
            self._level.set(Vague())

    async def response(self, request: Request) -> Response:
        self._use(request.path[1:])
        return Response()

    async def generator(self, request: Request) -> AsyncIterator[str]:
        yield ""
        await now()
        self._use(request.path[1:])


@pytest.mark.parametrize("how", ["response", "generator"])
@pytest.mark.parametrize("which", ["user", "level", "both"])
async def test_a_request_does_not_see_the_context_variables_of_the_one_before_it(
    serving: Serving, how: str, which: str
) -> None:
    """Behind a proxy they may be of two users."""
    context = Context()
    peer = await (await serving(getattr(context, how))).connect()
    for seen in range(3):
        await peer.send(get(f"/{which}", "text/plain"))
        await peer.until(LAST_CHUNK if how == "generator" else EMPTY[-4:])
        await until(lambda least=seen: len(context.steps.done) > least)  # type: ignore[misc]
    await peer.send(get(f"/{which}") * 3)
    await context.steps.reach(*[(True, True)] * 6)


async def test_a_connection_whose_requests_set_context_variables_is_kept_and_closed_as_any_other(
    serving: Serving, clock: Clock
) -> None:
    served = await serving(Context().response, timeouts=Timeouts(keep_alive=5, head=60, grace=60))
    for _ in range(2):
        peer = await served.ask(get("/user"))
        await peer.expect_head(EMPTY)
        await clock.advance(4.5)
        assert (served.server.connections, served.server.busy) == (1, 0)
        await peer.send(get("/user"))
        await peer.expect_head(EMPTY)
        await clock.advance(6)
        assert await peer.rest() == b""
        assert peer.ending == "end"
    peer = await served.ask(get("/user"))
    await peer.expect_head(EMPTY)
    closing = served.server.close()
    await clock.advance(0.5)
    assert closing.done()
    assert await peer.rest() == b""
    assert peer.ending == "end"


async def test_requests_that_set_no_context_variables_share_a_task(serving: Serving) -> None:
    tasks = set()
    name: contextvars.ContextVar[str] = contextvars.ContextVar("name")

    async def handler(request: Request) -> Response:
        tasks.add(asyncio.current_task())
        token = name.set("for a while")
        await now()
        name.reset(token)
        return Response()

    peer = await (await serving(handler)).ask(get() * 3)
    for _ in range(3):
        await peer.expect_head(EMPTY)
    assert len(tasks) == 1


async def test_a_next_request_waits_while_a_stream_runs(serving: Serving) -> None:
    steps, gate = Steps(), asyncio.Event()

    async def handler(request: Request) -> AsyncIterator[str]:
        steps(request.path)
        yield request.path
        if request.path == "/a":
            await gate.wait()

    peer = await (await serving(handler)).ask(get("/a", "text/plain"))
    assert await peer.head() == TEXT_HEAD
    await peer.expect(chunk(b"/a"))
    await peer.send(get("/b", "text/plain"))
    await settle()
    assert steps.done == ["/a"]
    gate.set()
    await peer.expect(LAST_CHUNK)
    assert await peer.head() == TEXT_HEAD
    await peer.expect(chunk(b"/b") + LAST_CHUNK)
    assert steps.done == ["/a", "/b"]


async def test_a_next_request_that_came_with_the_first_waits_too(serving: Serving) -> None:
    gate = asyncio.Event()

    async def handler(request: Request) -> AsyncIterator[str]:
        yield request.path
        await gate.wait()

    peer = await (await serving(handler)).ask(get("/a", "text/plain") + get("/b", "text/plain")[:20])
    assert await peer.head() == TEXT_HEAD
    await peer.expect(chunk(b"/a"))
    await settle()
    assert peer.here() == b""
    await peer.send(get("/b", "text/plain")[20:])
    gate.set()
    await peer.expect(LAST_CHUNK)
    assert await peer.head() == TEXT_HEAD
    await peer.expect(chunk(b"/b") + LAST_CHUNK)


async def test_more_than_is_held_is_dropped_and_the_connection_closes_after_the_response(serving: Serving) -> None:
    steps, gate = Steps(), asyncio.Event()

    async def handler(request: Request) -> AsyncIterator[str]:
        steps(request.path)
        yield "x"
        await gate.wait()
        yield "y"

    served = await serving(handler, limits=Limits(held=1000))
    peer = await served.ask(get("/a", "text/plain"))
    assert await peer.head() == TEXT_HEAD
    await peer.expect(chunk(b"x"))
    for _ in range(100):
        await peer.send(get("/b") * 100)
    await settle()
    gate.set()
    await peer.expect(chunk(b"y") + LAST_CHUNK)
    assert await peer.rest() == b""
    assert steps.done == ["/a"]


@pytest.mark.parametrize("leave", [Peer.reset, Peer.finish], ids=["reset", "end"])
async def test_a_client_that_sent_too_much_is_still_noticed_when_it_leaves(
    serving: Serving, leave: Callable[[Peer], None]
) -> None:
    steps = Steps()

    async def handler(request: Request) -> AsyncIterator[str]:
        try:
            yield "x"
            await asyncio.get_running_loop().create_future()
        finally:
            steps("finally")

    served = await serving(handler, limits=Limits(held=1000))
    peer = await served.ask(get("/a", "text/plain"))
    assert await peer.head() == TEXT_HEAD
    for _ in range(100):
        await peer.send(get("/b") * 100)
    leave(peer)
    await steps.reach("finally")


async def test_connection_close_is_granted(serving: Serving) -> None:
    peer = await (await serving(empty)).ask(get("/", None, "Connection: close") + get())
    assert await peer.head() == b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    assert await peer.rest() == b""


async def test_connection_close_is_granted_to_a_stream(serving: Serving) -> None:
    peer = await (await serving(generator)).ask(get("/", "text/plain", "Connection: close"))
    assert b"\r\nConnection: close\r\n" in await peer.head()
    assert await peer.rest() == chunk(b"said") + LAST_CHUNK


async def test_a_handler_may_close_the_connection(serving: Serving) -> None:
    async def handler(request: Request) -> Response:
        return Response(200, {"Connection": "close"})

    peer = await (await serving(handler)).ask(get() + get())
    assert await peer.head() == b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    assert await peer.rest() == b""


async def test_http_1_0_gets_its_answer_and_a_close(serving: Serving) -> None:
    peer = await (await serving(coroutine)).ask(b"GET / HTTP/1.0\r\n\r\n")
    assert await peer.head() == (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 4\r\nConnection: close\r\n\r\n"
    )
    assert await peer.rest() == b"said"


async def test_a_stream_to_http_1_0_is_not_chunked_and_ends_with_the_connection(serving: Serving) -> None:
    async def handler(request: Request) -> AsyncIterator[str]:
        yield "a"
        await now()
        yield "b"
        await now()

    peer = await (await serving(handler)).ask(get(version="1.0"))
    assert await peer.head() == JSON_HEAD.replace(b"Transfer-Encoding: chunked", b"Connection: close")
    assert await peer.rest() == b'["a","b"]'
    assert peer.ending == "end"


async def test_a_client_may_end_its_side_between_two_requests(serving: Serving) -> None:
    peer = await (await serving(empty)).ask(get())
    await peer.expect_head(EMPTY)
    peer.finish()
    assert await peer.rest() == b""
    assert peer.ending == "end"


async def test_a_client_may_vanish_between_two_requests(serving: Serving) -> None:
    served = await serving(empty)
    peer = await served.ask(get())
    await peer.expect_head(EMPTY)
    peer.reset()
    await no_connections(served)


async def no_connections(served: Served) -> None:
    await until(lambda: served.server.connections == 0)


async def test_a_body_that_a_short_answer_left_unread_is_skipped_where_it_is_here(serving: Serving) -> None:
    peer = await (await serving(empty)).ask(request("/", method="POST", body=b"unread") + get())
    await peer.expect_head(EMPTY)
    await peer.expect_head(EMPTY)


async def test_a_body_that_a_stream_left_unread_is_skipped_where_it_is_here(serving: Serving) -> None:
    served = await serving(generator)
    peer = await served.ask(request("/", "Accept: text/plain", method="POST", body=b"unread"))
    assert await peer.head() == TEXT_HEAD
    await peer.expect(chunk(b"said") + LAST_CHUNK)
    await peer.send(get(accept="text/plain"))
    assert await peer.head() == TEXT_HEAD


async def test_a_body_that_is_not_here_is_not_waited_for_and_the_connection_closes(serving: Serving) -> None:
    served = await serving(empty)
    peer = await served.ask(request("/", "Content-Length: 1000", method="POST"))
    assert await peer.head() == b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    await peer.send(b"x" * 500)
    assert await peer.rest() == b""
    assert peer.ending == "end"


# -- the body belongs to its request, and to one reader ----------------------------------------------------------------


async def test_a_request_that_is_kept_reads_no_other_requests_body(serving: Serving) -> None:
    """Its own has ended with its answer."""
    steps = Steps()

    async def later(request: Request) -> None:
        await answered.wait()
        with pytest.raises(errors.LocalError, match="the request is answered"):
            await request.body()
        steps("told")

    async def handler(request: Request) -> Response:
        if request.path == "/first":
            tasks.append(in_background(later(request)))
            return Response()
        answered.set()
        await steps.reach("told")
        return Response(200, (), await request.body())

    answered, tasks = asyncio.Event(), list[asyncio.Task[None]]()
    peer = await (await serving(handler)).ask(get("/first"))
    await peer.response()
    await peer.send(request("/", method="POST", body=b"of the second")[:-5])
    await steps.reach("told")
    await peer.send(b"econd")
    assert (await peer.response())[1] == b"of the second"
    await tasks[0]


async def test_what_was_read_in_time_can_be_had_later(serving: Serving) -> None:
    kept: list[Request] = []

    async def handler(request: Request) -> Response:
        kept.append(request)
        await request.body()
        return Response()

    served = await serving(handler)
    peer = await served.ask(request("/", method="POST", body=b"read"))
    await peer.response()
    assert await kept[0].body() == b"read"
    with pytest.raises(errors.LocalError, match="the request is answered"):
        await anext(kept[0].stream())


async def test_who_reads_on_when_the_request_is_answered_is_told(serving: Serving) -> None:
    tasks: list[asyncio.Task[bytes]] = []

    async def handler(request: Request) -> Response:
        tasks.append(in_background(request.body()))
        await settle()
        return Response()

    served = await serving(handler)
    peer = await served.ask(request("/", method="POST", body=b"incomplete")[:-3])
    await peer.response()
    with pytest.raises(errors.LocalError, match="the request is answered"):
        await tasks[0]
    assert tasks[0].cancelling() == 0
    peer.finish()
    assert await peer.rest() == b""
    await until(lambda: served.server.connections == 0)


async def test_a_request_that_is_kept_keeps_no_connection(serving: Serving) -> None:
    kept: list[Request] = []

    async def handler(request: Request) -> Response:
        kept.append(request)
        return Response()

    served = await serving(handler)
    peer = await served.ask(get())
    await peer.response()
    (transport,) = map(weakref.ref, served.server._connections)
    peer.close()
    await until(lambda: served.server.connections == 0)
    await settle()
    gc.collect()
    assert transport() is None


async def test_of_two_readers_of_a_body_the_second_is_refused(serving: Serving, failures: Failures) -> None:
    async def handler(request: Request) -> Response:
        await asyncio.gather(request.body(), request.body())
        raise AssertionError

    peer = await (await serving(handler)).ask(request("/", method="POST", body=b"incomplete")[:-3])
    head, _ = await peer.response()
    assert head.startswith(b"HTTP/1.1 500 ")
    assert "another task reads this body" in str(failures.take())


@pytest.mark.parametrize("kind", [errors.ReadTimeout, errors.BodyTooLarge, errors.ProtocolError])
async def test_a_remote_error_of_the_handlers_own_is_its_failure(
    serving: Serving, failures: Failures, kind: type[errors.RemoteError]
) -> None:
    """Of a request that it sent itself, say: who asked it has done nothing wrong."""

    async def handler(request: Request) -> Response:
        raise kind("secret")

    peer = await (await serving(handler)).ask(get())
    assert await peer.response() == (FAILED_HEAD, FAILED)
    assert isinstance(failures.take().__cause__, kind)


# -- a client that goes away -------------------------------------------------------------------------------------------

leaving = pytest.mark.parametrize(
    "leave", [Peer.reset, Peer.close, Peer.finish], ids=["reset", "close", "end of sending"]
)


@leaving
@pytest.mark.parametrize("accept", ["application/json", SSE])
async def test_a_client_that_leaves_an_idle_stream_closes_its_generator_in_the_requests_own_task(
    serving: Serving, leave: Callable[[Peer], None], accept: str
) -> None:
    steps = Steps()

    async def handler(request: Request) -> AsyncIterator[str]:
        task = asyncio.current_task()
        try:
            yield "x"
            steps("waits")
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            steps("cancelled")
            raise
        finally:
            await now()
            assert asyncio.current_task() is task
            steps("finally")

    served = await serving(handler)
    peer = await served.ask(get(accept=accept))
    await peer.head()
    await steps.reach("waits")
    leave(peer)
    await steps.reach("waits", "cancelled", "finally")
    await no_connections(served)


@leaving
async def test_a_client_that_leaves_a_busy_stream_closes_its_generator(
    serving: Serving, leave: Callable[[Peer], None]
) -> None:
    """It never waits: it is told at its `yield`."""
    steps = Steps()

    async def handler(request: Request) -> AsyncIterator[str]:
        try:
            while True:
                yield "x" * 1000
        except BaseException as exc:
            steps(type(exc))
            raise
        finally:
            steps("finally")

    served = await serving(handler)
    peer = await served.ask(get(accept="text/plain"))
    assert await peer.head() == TEXT_HEAD
    leave(peer)
    await until(lambda: "finally" in steps.done)
    assert steps.done[0] in (asyncio.CancelledError, errors.Disconnected)
    peer.close()
    await no_connections(served)


@leaving
async def test_a_client_that_leaves_a_stream_held_by_its_slowness_closes_the_generator(
    serving: Serving, leave: Callable[[Peer], None]
) -> None:
    steps = Steps()

    async def items() -> AsyncIterator[bytes]:
        try:
            while True:
                yield bytes(1_000_000)
        finally:
            steps("finally")

    async def handler(request: Request) -> Stream:
        return Stream(items(), format="bytes")

    served = await serving(handler)
    peer = await served.connect(receive_buffer=16384)
    await peer.send(get())
    await peer.head()
    await settle()
    assert steps.done == []
    leave(peer)
    await steps.reach("finally")
    peer.close()


@leaving
async def test_a_generator_that_has_not_given_anything_yet_is_closed_too(
    serving: Serving, leave: Callable[[Peer], None]
) -> None:
    steps = Steps()

    async def handler(request: Request) -> AsyncIterator[str]:
        try:
            steps("waits")
            await asyncio.get_running_loop().create_future()
            yield "x"
        finally:
            steps("finally")

    peer = await (await serving(handler)).ask(get())
    await steps.reach("waits")
    leave(peer)
    await steps.reach("waits", "finally")


async def test_a_generator_that_never_started_is_closed_too(serving: Serving) -> None:
    """The client left while the handler, which nothing could cancel, made its stream."""
    steps = Steps()
    iterators: list[Any] = []

    async def items() -> AsyncIterator[str]:
        steps("started")
        yield "x"

    async def handler(request: Request) -> Stream:
        steps("handler")
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            steps("ignores it")
        iterators.append(items())
        return Stream(iterators[0])

    served = await serving(handler)
    peer = await served.ask(get())
    await steps.reach("handler")
    peer.reset()
    await steps.reach("handler", "ignores it")
    await no_connections(served)
    with pytest.raises(StopAsyncIteration):
        await anext(iterators[0])
    assert steps.done == ["handler", "ignores it"]


async def test_a_generator_that_its_client_left_before_it_started_is_closed(serving: Serving) -> None:
    iterators: list[Any] = []
    steps = Steps()

    async def items() -> AsyncIterator[str]:
        steps("started")
        yield "x"

    async def handler(request: Request) -> Stream:
        iterators.append(items())
        return Stream(iterators[0])

    served = await serving(handler)
    peer = await served.connect()
    await settle()
    await peer.send(get())
    peer.finish()
    await no_connections(served)
    if not steps.done:  # one segment brought both
        with pytest.raises(StopAsyncIteration):
            await anext(iterators[0])


async def test_a_coroutine_is_cancelled_when_its_client_vanishes(serving: Serving) -> None:
    steps = Steps()

    async def handler(request: Request) -> Response:
        steps("waits")
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            steps("finally")
        raise AssertionError

    served = await serving(handler)
    peer = await served.ask(get())
    await steps.reach("waits")
    peer.reset()
    await steps.reach("waits", "finally")
    await no_connections(served)


async def test_a_short_answer_reaches_a_client_that_ended_its_sending(serving: Serving) -> None:
    gate = asyncio.Event()

    async def handler(request: Request) -> Response:
        await gate.wait()
        return Response.text("still here")

    peer = await (await serving(handler)).ask(get())
    peer.finish()
    await settle()
    gate.set()
    await answer(peer, b"still here")
    assert await peer.rest() == b""
    assert peer.ending == "end"


async def test_requests_sent_before_the_end_of_sending_are_all_answered(serving: Serving) -> None:
    peer = await (await serving(path)).ask(get("/a") + get("/b"))
    peer.finish()
    await answer(peer, b"/a")
    await answer(peer, b"/b")
    assert await peer.rest() == b""


async def test_an_iterator_that_cannot_be_closed_is_left(serving: Serving) -> None:
    steps = Steps()

    class Endless:
        def __aiter__(self) -> Endless:
            return self

        async def __anext__(self) -> str:
            steps("waits")
            await asyncio.get_running_loop().create_future()
            raise AssertionError

    async def handler(request: Request) -> Endless:
        return Endless()

    served = await serving(handler)
    peer = await served.ask(get())
    await steps.reach("waits")
    peer.reset()
    await no_connections(served)


# -- time --------------------------------------------------------------------------------------------------------------


async def test_a_silent_connection_is_closed_without_a_word(serving: Serving, clock: Clock) -> None:
    served = await serving(empty, timeouts=Timeouts(head=10))
    peer = await served.connect()
    await clock.advance(9.875)
    assert served.server.connections == 1
    await clock.advance(0.5)
    assert await peer.rest() == b""
    assert peer.ending == "end"


async def test_a_head_that_stops_coming_is_answered_408(serving: Serving, clock: Clock) -> None:
    served = await serving(empty, timeouts=Timeouts(head=10, linger=1))
    peer = await served.connect()
    await clock.advance(9)
    await peer.send(get()[:10])
    await clock.advance(9.75)
    assert peer.here() == b""
    await clock.advance(0.5)
    assert (await peer.head()).startswith(b"HTTP/1.1 408 Request Timeout\r\n")
    assert await peer.rest() == b"408 Request Timeout: nothing came in time\n"
    await clock.advance(2)  # it does not end its side; we do not wait for ever
    assert served.server.connections == 0


async def test_a_head_that_comes_byte_by_byte_has_the_same_time(serving: Serving, clock: Clock) -> None:
    served = await serving(empty, timeouts=Timeouts(head=10))
    peer = await served.connect()
    for byte in get("/" + "x" * 100)[:40]:
        await peer.send(bytes([byte]))
        await clock.advance(0.25)
    await clock.advance(0.5)
    assert (await peer.head()).startswith(b"HTTP/1.1 408 ")


async def test_an_idle_connection_is_kept_for_so_long(serving: Serving, clock: Clock) -> None:
    served = await serving(empty, timeouts=Timeouts(head=5, keep_alive=20))
    peer = await served.ask(get())
    await peer.expect_head(EMPTY)
    await clock.advance(19.875)
    await peer.send(get())
    await peer.expect_head(EMPTY)
    await clock.advance(19.875)
    assert served.server.connections == 1
    await clock.advance(0.5)
    assert await peer.rest() == b""
    assert peer.ending == "end"


async def test_the_head_of_a_next_request_has_the_time_of_a_head(serving: Serving, clock: Clock) -> None:
    served = await serving(empty, timeouts=Timeouts(head=5, keep_alive=60))
    peer = await served.ask(get())
    await peer.expect_head(EMPTY)
    await clock.advance(20)
    await peer.send(get()[:10])
    await clock.advance(5.5)
    assert (await peer.head()).startswith(b"HTTP/1.1 408 ")


async def test_a_next_request_that_has_begun_with_the_last_has_the_time_of_a_head(
    serving: Serving, clock: Clock
) -> None:
    served = await serving(empty, timeouts=Timeouts(head=5, keep_alive=60))
    peer = await served.ask(get() + get()[:10])
    await peer.expect_head(EMPTY)
    await clock.advance(5.5)
    assert (await peer.head()).startswith(b"HTTP/1.1 408 ")


async def test_a_handler_and_a_silent_stream_may_take_any_time(serving: Serving, clock: Clock) -> None:
    gate = asyncio.Event()

    async def handler(request: Request) -> Response:
        await gate.wait()
        return Response()

    brief = Timeouts(head=1, body=1, keep_alive=1, write_stall=1)
    peer = await (await serving(handler, timeouts=brief)).ask(get())
    await clock.advance(10)
    gate.set()
    await peer.expect_head(EMPTY)


# -- a slow reader -----------------------------------------------------------------------------------------------------


def endless(steps: Steps, size: int = 10_000) -> Callable[[Request], Awaitable[Stream]]:
    """A handler that streams as fast as it may; `steps` counts the items, and has what it ended with."""

    async def items() -> AsyncIterator[bytes]:
        try:
            while True:
                yield bytes(size)
                steps("item")
        finally:
            steps("finally")

    async def handler(request: Request) -> Stream:
        return Stream(items(), format="bytes")

    return handler


async def small(serving: Serving, handler: Any, **options: Any) -> tuple[Served, Peer]:
    """A server and a client with small buffers in the kernel."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16384)
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    served = await serving(handler, fd=listener.detach(), **options)
    peer = await served.connect(receive_buffer=16384)
    return served, peer


async def until_still(steps: Steps) -> int:
    """How many steps were done when no more are."""
    count = -1
    while count != len(steps.done):
        count = len(steps.done)
        await settle()
    return count


async def test_a_producer_waits_for_its_reader_and_little_is_held(serving: Serving) -> None:
    steps = Steps()
    served, peer = await small(serving, endless(steps), limits=Limits(high_water=20_000))
    await peer.send(get())
    await peer.until(b"\r\n\r\n")
    items = await until_still(steps)
    assert items * 10_000 < 250_000  # the kernel's buffers and ours: a producer that did not wait would have no end
    [transport] = served.server._connections
    assert transport._transport.get_write_buffer_size() <= 20_000 + 2 * 10_014  # the mark, and the write that passed it
    for _ in range(5):
        await peer.until(bytes(5_000))
    while len(steps.done) == items:
        await peer.until(bytes(5_000))
    assert set(steps.done) == {"item"}


async def test_a_reader_that_takes_nothing_is_cut(serving: Serving) -> None:
    steps = Steps()
    served, peer = await small(serving, endless(steps), timeouts=Timeouts(write_stall=0.1))
    await peer.send(get())
    await peer.until(b"\r\n\r\n")
    await until(lambda: "finally" in steps.done)
    await no_connections(served)
    await peer.rest()
    assert peer.ending == "reset"


async def test_heartbeats_do_not_keep_a_reader_that_takes_nothing(serving: Serving, clock: Clock) -> None:
    steps = Steps()

    async def items() -> AsyncIterator[str]:
        try:
            yield "x" * 4_000_000
            await asyncio.get_running_loop().create_future()
        finally:
            steps("finally")

    async def handler(request: Request) -> Stream:
        return Stream(items(), format="sse", heartbeat=1)

    served, peer = await small(serving, handler, timeouts=Timeouts(write_stall=8))
    await peer.send(get())
    await peer.until(b"\r\n\r\n")
    await clock.advance(7.75)
    assert steps.done == []
    await clock.advance(4)
    assert steps.done == ["finally"]
    assert served.server.connections == 0


async def test_a_large_answer_to_a_reader_that_takes_nothing_is_cut(serving: Serving, clock: Clock) -> None:
    async def handler(request: Request) -> Response:
        return Response(200, (), bytes(4_000_000))

    served, peer = await small(serving, handler, timeouts=Timeouts(write_stall=8))
    await peer.send(get())
    await peer.until(b"\r\n\r\n")
    await clock.advance(7.75)
    assert served.server.connections == 1
    await clock.advance(4)
    assert served.server.connections == 0


async def test_a_slow_reader_that_takes_a_little_gets_all_of_it(serving: Serving, clock: Clock) -> None:
    async def handler(request: Request) -> Response:
        return Response(200, (), bytes(1_000_000))

    served, peer = await small(serving, handler, timeouts=Timeouts(write_stall=8))
    await peer.send(get())
    head = await peer.head()
    assert head.endswith(b"Content-Length: 1000000\r\n\r\n")
    left = 1_000_000
    while left:
        await clock.advance(3)
        await peer.expect(bytes(min(left, 100_000)))
        left -= min(left, 100_000)
    assert served.server.connections == 1


async def test_a_next_request_waits_until_the_last_answer_has_been_taken(serving: Serving) -> None:
    steps = Steps()

    async def handler(request: Request) -> Response:
        steps(request.path)
        return Response(200, (), bytes(1_000_000))

    _, peer = await small(serving, handler)
    await peer.send(get("/a") + get("/b"))
    await peer.head()
    await settle()
    assert steps.done == ["/a"]
    await peer.expect(bytes(1_000_000))
    await peer.head()
    assert steps.done == ["/a", "/b"]


# -- closing -----------------------------------------------------------------------------------------------------------


async def test_an_answer_given_while_the_server_closes_says_so(serving: Serving) -> None:
    async def handler(request: Request) -> Response:
        steps("waits")
        await request.closing.wait()
        return Response.text("goodbye")

    steps = Steps()
    served = await serving(handler)
    peer = await served.ask(get())
    await steps.reach("waits")
    served.server.close()
    head, body = await peer.response()
    assert b"\r\nConnection: close\r\n" in head
    assert body == b"goodbye"
    assert await peer.rest() == b""
    assert peer.ending == "end"


async def test_a_request_that_waits_behind_another_is_not_begun_while_the_server_closes(serving: Serving) -> None:
    steps = Steps()

    async def handler(request: Request) -> Response:
        steps(request.path)
        await request.closing.wait()
        return Response.text(request.path)

    served = await serving(handler)
    peer = await served.ask(get("/a") + get("/b"))
    await steps.reach("/a")
    served.server.close()
    await answer(peer, b"/a")
    assert await peer.rest() == b""
    assert steps.done == ["/a"]


async def test_the_second_close_cuts_what_is_still_open_and_the_log_tells(
    serving: Serving, caplog: pytest.LogCaptureFixture
) -> None:
    steps = Steps()

    async def handler(request: Request) -> AsyncIterator[str]:
        try:
            yield "x"
            await asyncio.get_running_loop().create_future()
        finally:
            steps("finally")

    caplog.set_level(logging.INFO, "rawstream.access")
    served = await serving(handler)
    peer = await served.ask(get(accept="text/plain"))
    assert await peer.head() == TEXT_HEAD
    await peer.expect(chunk(b"x"))
    served.server.close()
    await settle()
    assert steps.done == []
    await served.server.close()
    assert steps.done == ["finally"]
    await peer.rest()
    assert peer.ending == "reset"
    assert re.search(r"s cancelled [0-9a-f]{6}-\d+$", caplog.messages[0])


@pytest.mark.parametrize(
    ("accept", "body"),
    [
        ("application/json", b'{"status":400,"error":"'),
        ("text/plain", b"400 Bad Request: "),
        ("application/json;q=0.1, text/plain", b"400 Bad Request: "),
    ],
)
async def test_a_refused_head_is_told_in_json_to_who_asks_for_it(serving: Serving, accept: str, body: bytes) -> None:
    peer = await (await serving(empty)).ask(f"GET / HTTP/1.1\r\nAccept: {accept}\r\n\r\n".encode())  # no Host
    assert (await peer.response())[1].startswith(body)


async def test_what_is_no_head_at_all_is_told_in_text(serving: Serving) -> None:
    peer = await (await serving(empty)).ask(b"\x16\x03\x01 accept: application/json\r\n\r\n")
    assert (await peer.response())[1].startswith(b"400 Bad Request: ")


# -- the access log ----------------------------------------------------------------------------------------------------


async def test_the_log_has_a_line_for_each_request_with_its_status_and_how_it_ended(
    serving: Serving, failures: Failures, caplog: pytest.LogCaptureFixture
) -> None:
    async def handler(request: Request) -> AsyncIterator[str]:
        if request.path == "/fails":
            raise ZeroDivisionError
        yield "x"
        await now()
        if request.path == "/breaks":
            raise ZeroDivisionError
        if request.path == "/waits":
            await asyncio.get_running_loop().create_future()

    caplog.set_level(logging.INFO, "rawstream.access")
    served = await serving(handler)

    async def log_of(target: str, leave: bool = False) -> str:
        peer = await served.ask(get(target, "text/plain"))
        await peer.head()
        if leave:
            peer.reset()
        while not caplog.messages:
            await now()
        [line] = [message for message in caplog.messages if "GET" in message and "failed" not in message]
        caplog.clear()
        line = re.sub(r" [0-9a-f]{6}-\d+$", " ID", line)
        return re.sub(r"\[[^]]+\]", "[then]", re.sub(r" \d+ \d\.\d{3}s ", " BYTES SECONDS ", line))

    assert await log_of("/a?b") == '127.0.0.1 - - [then] "GET /a?b HTTP/1.1" 200 BYTES SECONDS complete ID'
    assert await log_of("/waits", leave=True) == (
        '127.0.0.1 - - [then] "GET /waits HTTP/1.1" 200 BYTES SECONDS client gone ID'
    )
    assert await log_of("/breaks") == '127.0.0.1 - - [then] "GET /breaks HTTP/1.1" 200 BYTES SECONDS error ID'
    assert await log_of("/fails") == '127.0.0.1 - - [then] "GET /fails HTTP/1.1" 500 BYTES SECONDS error ID'
    failures.records.clear()


async def test_a_request_knows_its_client_and_has_a_name_of_its_own(serving: Serving) -> None:
    seen: list[Request] = []

    async def handler(request: Request) -> Response:
        seen.append(request)
        return Response()

    peer = await (await serving(handler)).ask(get() + get())
    await peer.head()
    await peer.head()
    assert seen[0].client == peer.sock.getsockname()
    assert seen[0].id != seen[1].id
    assert seen[0].http_version == "1.1"
