"""`fetch`: what is asked, what comes, and what is left behind when it goes wrong or is left early."""

from __future__ import annotations

import asyncio
import base64
import functools
import gc
import gzip
import json
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trustme
from canned import CHUNKED, LAST, Canned, MakeCanned, Step, Then, answer, body_of
from support import Clock, Failures, Serving, Steps, get, in_background, settle

from rawstream import ClientLimits, ClientTimeouts, Event, Request, Response, Stream, fetch
from rawstream.client import ClientResponse
from rawstream.errors import (
    BadResponse,
    ConnectFailed,
    ContentError,
    FetchError,
    HTTPError,
    IncompleteResponse,
    ItemTooLarge,
    LocalError,
    RawstreamError,
    Redirected,
    ResponseTimeout,
    StatusError,
    StreamFailed,
)
from rawstream.fields import Headers
from rawstream.outgoing import parse
from rawstream.sse import Decoder

pytestmark = pytest.mark.usefixtures("orderly")


async def count(request: Request) -> AsyncIterator[Any]:
    for n in range(3):
        await asyncio.sleep(0)
        yield {"n": n}


# -- what is asked -----------------------------------------------------------------------------------------------------


async def test_a_request_says_little(canned: MakeCanned) -> None:
    server = canned(answer())
    async with fetch(f"{server.url}/a/b?c=d#e") as response:
        assert (response.status, response.reason, response.http_version) == (200, "OK", "1.1")
        assert response.url == f"{server.url}/a/b?c=d"
        assert response.peer == ("127.0.0.1", server.port)
    assert server.requests == [
        f"GET /a/b?c=d HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nUser-Agent: rawstream\r\nAccept: */*\r\n"
        "Connection: close\r\n\r\n".encode()
    ]


@pytest.mark.either_loop
@pytest.mark.parametrize(
    ("options", "first", "fields", "body"),
    [
        ({"json": {"a": "是"}}, b"POST / HTTP/1.1", [b"Content-Type: application/json"], '{"a":"是"}'.encode()),
        ({"json": None, "method": "PUT"}, b"PUT / HTTP/1.1", [b"Content-Type: application/json"], b"null"),
        ({"data": "是"}, b"POST / HTTP/1.1", [b"Content-Type: text/plain; charset=utf-8"], "是".encode()),
        ({"data": b"\0"}, b"POST / HTTP/1.1", [b"Content-Length: 1"], b"\0"),
        ({"data": b""}, b"POST / HTTP/1.1", [b"Content-Length: 0"], b""),
        ({"json": 1, "headers": {"content-type": "x/y"}}, b"POST / HTTP/1.1", [b"content-type: x/y"], b"1"),
        ({"headers": [("A", "1"), ("A", "2")]}, b"GET / HTTP/1.1", [b"A: 1", b"A: 2"], b""),
        ({"headers": {"host": "b", "accept": "c"}}, b"GET / HTTP/1.1", [b"host: b", b"accept: c"], b""),
        ({"http_version": "1.0"}, b"GET / HTTP/1.0", [], b""),
        ({"method": "DELETE"}, b"DELETE / HTTP/1.1", [], b""),
    ],
)
async def test_a_request_as_it_is_told(
    canned: MakeCanned, options: dict[str, Any], first: bytes, fields: list[bytes], body: bytes
) -> None:
    server = canned(answer())
    async with fetch(server.url, **options):
        pass
    head, _, rest = server.requests[0].partition(b"\r\n\r\n")
    line, *lines = head.split(b"\r\n")
    assert (line, rest) == (first, body)
    assert {*fields} <= {*lines}
    names = [each.partition(b":")[0].lower() for each in lines]
    assert len(names) == len({*names}) + (b"a" in names)


@pytest.mark.either_loop
@pytest.mark.parametrize(
    ("inside", "sent"),
    [("me:secret@", "me:secret"), ("m%40e:%E6%98%AF@", "m@e:是"), ("me@", "me:"), (":@", ":")],
)
async def test_a_name_in_the_url_is_sent_as_basic_and_shown_nowhere(canned: MakeCanned, inside: str, sent: str) -> None:
    server = canned(answer(status="403 Forbidden"))
    with pytest.raises(StatusError) as raised:
        async with fetch(server.url.replace("//", "//" + inside)):
            pass
    assert b"Authorization: Basic " + base64.b64encode(sent.encode()) + b"\r\n" in server.requests[0]
    assert "@" not in str(raised.value)


@pytest.mark.either_loop
@pytest.mark.parametrize(
    ("path", "target"),
    [("", "/"), ("?a", "/?a"), ("/是?é", "/%E6%98%AF?%C3%A9"), ("/%20//../a;b=c", "/%20//../a;b=c"), ("#x", "/")],
)
async def test_paths(canned: MakeCanned, path: str, target: str) -> None:
    server = canned(answer())
    async with fetch(server.url + path):
        pass
    assert server.requests[0].split()[1] == target.encode()


@pytest.mark.either_loop
@pytest.mark.parametrize(
    ("url", "host", "where"),
    [
        ("http://EXAMPLE.com", "example.com", ("example.com", 80)),
        ("http://example.com:80/", "example.com", ("example.com", 80)),
        ("https://example.com:443", "example.com", ("example.com", 443)),
        ("http://example.com:443", "example.com:443", ("example.com", 443)),
        ("http://[::1]:8000/", "[::1]:8000", ("::1", 8000)),
        ("http://[fe80::1%25eth0]/", "[fe80::1]", ("fe80::1%eth0", 80)),
        ("http://bücher.example/", "xn--bcher-kva.example", ("xn--bcher-kva.example", 80)),
    ],
)
async def test_hosts(url: str, host: str, where: tuple[str, int]) -> None:
    target = parse(url)
    assert (target.authority, (target.host, target.port)) == (host, where)


@pytest.mark.either_loop
@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("", "begins with http"),
        ("localhost:8000", "begins with http"),
        ("ftp://a/", "begins with http"),
        ("http://", "has a host"),
        ("http:///a", "has a host"),
        ("http://a b/", "cannot hold ' '"),
        ("http://a/b c", "percent-encode"),
        ("http://a/\r\nX: y", "cannot hold"),
        ("http://a/\t", "cannot hold"),
        ("http://a\\b/", "cannot hold"),
        ("http://a:b/", "no URL"),
        ("http://a:99999/", "no URL"),
        ("http://a:0/", "a port is 1 to 65535"),
        ("http://[::1/", "no URL"),
        ("http://" + "é" * 70 + "/", "no URL"),
        (b"http://a/", "a URL is a str"),
    ],
)
async def test_a_url_that_is_none(url: Any, why: str) -> None:
    with pytest.raises(LocalError, match=why):
        fetch(url)


@pytest.mark.either_loop
@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"headers": {"A": "b\r\nC: d"}}, "cannot be sent"),
        ({"headers": {"A": "b\0"}}, "cannot be sent"),
        ({"headers": {"A b": "c"}}, "cannot be sent"),
        ({"headers": {"A": "是"}}, "cannot be sent"),
        ({"headers": {"A": 1}}, "cannot be sent"),
        ({"headers": 1}, "headers are pairs"),
        ({"headers": ["a"]}, "headers are pairs"),
        ({"headers": {"content-length": "1"}}, "content-length is not the caller's"),
        ({"headers": {"Transfer-Encoding": "chunked"}}, "not the caller's"),
        ({"headers": {"Connection": "keep-alive"}}, "not the caller's"),
        ({"method": "GET /x"}, "cannot be sent"),
        ({"method": "A\r\nB"}, "cannot be sent"),
        ({"json": 1, "data": b""}, "not both"),
        ({"json": {1, 2}}, "json cannot be sent"),
        ({"json": float("nan")}, "json cannot be sent"),
        ({"json": "\ud800"}, "json cannot be sent"),
        ({"data": "\ud800"}, "data cannot be sent"),
        ({"data": {"a": 1}}, "data is bytes or str"),
        ({"http_version": "2"}, "http_version is"),
        ({"ssl": True}, "ssl is an ssl.SSLContext"),
    ],
)
async def test_what_cannot_be_sent_is_told_before_anything_is(options: dict[str, Any], why: str) -> None:
    with pytest.raises(LocalError, match=why):
        fetch("http://127.0.0.1:1/", **options)


@pytest.mark.parametrize(("name", "value"), [("connect", 0), ("head", "1"), ("idle", float("nan")), ("idle", True)])
def test_timeouts_are_checked(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"^ClientTimeouts\.{name} is a number of seconds above 0, or None, not"):
        ClientTimeouts(**{name: value})


@pytest.mark.parametrize("value", [0, 1.5, None, True])
def test_limits_are_checked(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^ClientLimits\.item is a positive whole number of bytes, not"):
        ClientLimits(item=value)


# -- what comes --------------------------------------------------------------------------------------------------------

ACCEPTS = ["application/json", "application/x-ndjson", "application/jsonl", "text/event-stream"]


@pytest.mark.parametrize("accept", ACCEPTS)
async def test_items_in_each_format_of_our_own_server(serving: Serving, accept: str) -> None:
    served = await serving(count)
    host, port = served.server.addresses[0]
    async with fetch(f"http://{host}:{port}/", headers={"Accept": accept}) as response:
        assert response.content_type == accept
        items = [item async for item in response.items()]
    assert [json.loads(item) if isinstance(item, str) else item for item in items] == [{"n": n} for n in range(3)]


async def test_an_item_is_here_before_the_next_is_made(serving: Serving) -> None:
    gates = [asyncio.Event() for _ in range(4)]

    async def handler(request: Request) -> AsyncIterator[Any]:
        for n, gate in enumerate(gates):
            yield {"n": n}
            await gate.wait()

    served = await serving(handler)
    host, port = served.server.addresses[0]
    for accept in ACCEPTS:
        async with fetch(f"http://{host}:{port}/", headers={"Accept": accept}) as response:
            items = response.items()
            for gate in gates:
                await anext(items)
                gate.set()
            with pytest.raises(StopAsyncIteration):
                await anext(items)
        for gate in gates:
            gate.clear()


async def test_chunks_are_those_that_were_sent(canned: MakeCanned) -> None:
    parts = [b"a", b"bc", b"d" * 1000, b"e"]
    server = canned(CHUNKED + b"".join(map(body_of, parts)) + b"0\r\nX: y\r\n\r\n")
    async with fetch(server.url) as response:
        assert response.trailers == Headers()
        assert [chunk async for chunk in response.chunks()] == parts
        assert response.trailers == Headers([("X", "y")])
    async with fetch(server.url) as response:
        arrivals = [arrival async for arrival in response.arrivals()]
        assert [piece for arrival in arrivals for piece in arrival.pieces] == parts
        assert sum(arrival.received for arrival in arrivals) == response.received
        assert all(arrival.chunked for arrival in arrivals)
        assert response.began <= response.connected <= response.head_at <= arrivals[0].time <= time.monotonic()


async def test_each_read_from_the_socket_is_told_of_when_it_was(canned: MakeCanned) -> None:
    """Also of those that came before somebody asked."""
    gates = [asyncio.Event(), asyncio.Event()]
    server = canned((CHUNKED, gates[0], b"3\r\nab", gates[1], b"c\r\n" + LAST))
    async with fetch(server.url) as response:
        arrivals = response.arrivals()
        gates[0].set()
        first = await anext(arrivals)
        assert (first.pieces, first.continues, first.unfinished, first.received) == ([b"ab"], False, True, 5)
        between = time.monotonic()
        assert response.head_at <= first.time <= between
        gates[1].set()
        second = await anext(arrivals)
        assert (second.pieces, second.continues, second.unfinished, second.received) == ([b"c"], True, False, 8)
        assert second.time >= between
        assert [arrival async for arrival in arrivals] == []


async def test_many_bytes_keep_their_order_and_their_number(canned: MakeCanned) -> None:
    body = bytes(range(256)) * 8192
    server = canned(answer(body))
    async with fetch(server.url) as response:
        found = [arrival async for arrival in response.arrivals()]
        assert b"".join(piece for arrival in found for piece in arrival.pieces) == body
        assert sum(arrival.received for arrival in found) == len(body)
        assert not any(arrival.chunked for arrival in found)


async def test_text_lines_and_body(canned: MakeCanned) -> None:
    text = "é是\r\n😀\nend"
    server = canned(answer(text.encode()), answer(text.encode()), answer(text.encode()),
                    answer("é".encode("latin-1"), kind='text/plain; x=y; Charset="ISO-8859-1"'))  # fmt: skip
    async with fetch(server.url) as response:
        assert "".join([part async for part in response.text()]) == text
    async with fetch(server.url) as response:
        assert [line async for line in response.lines()] == ["é是", "😀", "end"]
    async with fetch(server.url) as response:
        assert await response.body() == text.encode()
    async with fetch(server.url) as response:
        assert [part async for part in response.text()] == ["é"]


async def test_events_of_all_kinds_and_what_only_the_decoder_knows(canned: MakeCanned) -> None:
    data = b"id: 1\nretry: 20\n\ndata: a\n\nevent: stream-end\nid: stream-end\ndata: {}\n\n"
    server = canned(CHUNKED + body_of(data) + LAST)
    async with fetch(server.url) as response:
        decoder = Decoder()
        assert [event async for event in response.events(decoder)] == [
            Event("a"), Event("{}", "stream-end", "stream-end"),
        ]  # fmt: skip
        assert decoder.retry == 20


async def test_gzip_is_undone_as_it_arrives_and_not_for_arrivals(serving: Serving) -> None:
    gate = asyncio.Event()

    async def handler(request: Request) -> Stream:
        async def items() -> AsyncIterator[str]:
            yield "one"
            await gate.wait()
            yield "two"

        return Stream(items(), format="ndjson", gzip=True)

    served = await serving(handler)
    host, port = served.server.addresses[0]
    for way in ("chunks", "arrivals"):
        gate.clear()
        async with fetch(f"http://{host}:{port}/", headers={"Accept-Encoding": "gzip"}) as response:
            assert response.headers["content-encoding"] == "gzip"
            if way == "chunks":
                chunks = response.chunks()
                assert await anext(chunks) == b'"one"\n'
                gate.set()
                assert [chunk async for chunk in chunks] == [b'"two"\n']
            else:
                gate.set()
                pieces = [piece async for arrival in response.arrivals() for piece in arrival.pieces]
                assert gzip.decompress(b"".join(pieces)) == b'"one"\n"two"\n'


async def test_a_body_that_ends_before_its_coding_does_is_told(canned: MakeCanned) -> None:
    packed = gzip.compress(b"hello" * 100)
    for body, error in ((packed[:-4], IncompleteResponse), (packed + b"junk", ContentError)):
        async with fetch(canned(answer(body, "Content-Encoding: gzip")).url) as response:
            chunks = response.chunks()
            assert await anext(chunks) == b"hello" * 100
            for _ in range(2):
                with pytest.raises(error):
                    await anext(chunks)


async def test_behind_a_fault_nothing_is_given_out_and_no_end_looks_like_a_proper_one(canned: MakeCanned) -> None:
    server = canned(answer(b"1\nbad\n3\n", kind="application/x-ndjson"))
    async with fetch(server.url) as response:
        items = response.items()
        assert await anext(items) == 1
        for _ in range(3):
            with pytest.raises(ContentError, match="is not JSON"):
                await anext(items)


async def test_a_strange_content_encoding_is_an_error_and_the_bytes_can_still_be_had(canned: MakeCanned) -> None:
    server = canned(answer(b"x", "Content-Encoding: br"))
    async with fetch(server.url) as response:
        for way in (response.chunks, response.text, response.lines):
            with pytest.raises(ContentError, match=r"'br'.*arrivals"):
                way()
        assert [arrival.pieces async for arrival in response.arrivals()] == [[b"x"]]


@pytest.mark.either_loop
@pytest.mark.parametrize(
    ("kind", "body", "items"),
    [
        ("application/json", b"[1,2]", [1, 2]),
        ("Application/Problem+JSON; charset=utf-8", b'{"a":1}', [{"a": 1}]),
        ("application/jsonl", b"1\n2", [1, 2]),
        ("text/event-stream; charset=utf-8", b"data: 1\n\n", ["1"]),
    ],
)
async def test_the_content_type_says_what_items_are(
    canned: MakeCanned, kind: str, body: bytes, items: list[Any]
) -> None:
    async with fetch(canned(answer(body, kind=kind)).url) as response:
        assert [item async for item in response.items()] == items


async def test_what_has_no_items_says_so(canned: MakeCanned) -> None:
    server = canned(answer(b"x", kind="text/html"), b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx",
                    b"HTTP/1.1 204 No Content\r\n\r\n")  # fmt: skip
    async with fetch(server.url) as response:
        with pytest.raises(ContentError, match=r"text/html has no items: read it by chunks\(\), text\(\) or lines\(\)"):
            response.items()
        with pytest.raises(ContentError, match="no events"):
            response.events()
        assert await response.body() == b"x"
    async with fetch(server.url) as response:
        with pytest.raises(ContentError, match="a response without Content-Type has no items"):
            response.items()
    async with fetch(server.url) as response:
        assert [item async for item in response.items()] == []


async def test_limits(canned: MakeCanned) -> None:
    limits = ClientLimits(item=10)
    lines = answer(b"short\n" + b"x" * 11)
    server = canned(lines, lines, answer(b"[1," + b'"' + b"x" * 11, kind="application/json"))
    async with fetch(server.url, limits=limits) as response:
        with pytest.raises(ItemTooLarge, match="a line of the response has more than 10 bytes"):
            [line async for line in response.lines()]
    async with fetch(server.url, limits=limits) as response:
        with pytest.raises(ItemTooLarge, match="the body has more than 10 bytes"):
            await response.body()
    async with fetch(server.url, limits=limits) as response:
        with pytest.raises(ItemTooLarge, match="item 1 of the response has more than 10 bytes"):
            [item async for item in response.items()]
    server = canned(answer(b"", "X: " + "y" * 100_000))
    with pytest.raises(BadResponse, match="the response's head has more than 200 bytes"):
        async with fetch(server.url, limits=ClientLimits(head=200)):
            pass


WAYS: list[Callable[[ClientResponse], Any]] = [
    ClientResponse.arrivals, ClientResponse.chunks, ClientResponse.text, ClientResponse.lines, ClientResponse.items,
    ClientResponse.body,
]  # fmt: skip


async def take(way: Callable[[ClientResponse], Any], response: ClientResponse) -> Any:
    found = way(response)
    if isinstance(found, Awaitable):
        return await found
    return [each async for each in found]


@pytest.mark.either_loop
@pytest.mark.parametrize("way", WAYS)
async def test_a_body_is_read_once(canned: MakeCanned, way: Callable[[ClientResponse], Any]) -> None:
    async with fetch(canned(answer(b"1", kind="application/json")).url) as response:
        assert await take(way, response)
        with pytest.raises(LocalError, match=rf"read by {way.__name__}\(\) already"):
            await response.body()


async def test_a_fetch_is_one_request_and_a_response_ends_with_its_block(canned: MakeCanned) -> None:
    once = fetch(canned(answer(b"x")).url)
    async with once as response:
        chunks = response.chunks()
    with pytest.raises(LocalError, match="closed"):
        await anext(chunks)
    with pytest.raises(LocalError, match="call fetch again"):
        async with once:
            pass


# -- statuses ----------------------------------------------------------------------------------------------------------


async def test_a_status_that_is_no_success_is_raised_with_what_is_said_to_it(serving: Serving) -> None:
    async def handler(request: Request) -> Response:
        return Response.text("no such\nthing" + "!" * 10_000, 404, {"X": "y"})

    served = await serving(handler)
    host, port = served.server.addresses[0]
    url = f"http://{host}:{port}/a"
    with pytest.raises(StatusError) as raised:
        async with fetch(url):
            pytest.fail("it does not begin")
    error = raised.value
    assert (error.status, error.reason, error.headers["x"], len(error.body)) == (404, "Not Found", "y", 4096)
    assert str(error).startswith(f"404 Not Found from {url}: no such thing!!!")
    assert len(str(error)) < 300
    async with fetch(url, check=False) as response:
        assert (response.status, len(await response.body())) == (404, 10_013)


async def test_the_reason_for_a_status_is_not_waited_for_without_end(clock: Clock, canned: MakeCanned) -> None:
    head = b"HTTP/1.1 500 \r\n\r\n"
    server = canned((head + b"why", Then.STAY))

    async def ask() -> StatusError:
        with pytest.raises(StatusError) as raised:
            async with fetch(server.url):
                pass
        return raised.value

    asking = in_background(ask())
    await clock.advance(3)
    error = await asking
    assert error.body == b"why"
    assert str(error) == f"500 Internal Server Error from {server.url}/: why"


@pytest.mark.either_loop
@pytest.mark.parametrize(
    ("location", "target"),
    [("http://other/b", "http://other/b"), ("/b?c", "{url}/b?c"), ("b", "{url}/a/b"), ("//x/", "http://x/")],
)
async def test_a_redirect_is_an_error_that_names_its_target(canned: MakeCanned, location: str, target: str) -> None:
    server = canned(answer(b"moved", f"Location: {location}", status="302 Found"))
    with pytest.raises(Redirected) as raised:
        async with fetch(server.url + "/a/"):
            pass
    target = target.format(url=server.url)
    assert (raised.value.location, raised.value.status, raised.value.body) == (target, 302, b"moved")
    assert target in str(raised.value)
    assert len(server.requests) == 1


async def test_a_location_that_is_no_url_is_no_target(canned: MakeCanned) -> None:
    with pytest.raises(StatusError, match=r"^302 Found") as raised:
        async with fetch(canned(answer(b"", "Location: http://[x", status="302 Found")).url):
            pass
    assert type(raised.value) is StatusError


async def test_a_304_names_no_target(canned: MakeCanned) -> None:
    with pytest.raises(StatusError, match=r"^304 Not Modified") as raised:
        async with fetch(canned(b"HTTP/1.1 304 Not Modified\r\n\r\n").url):
            pass
    assert type(raised.value) is StatusError


# -- cut, or complete --------------------------------------------------------------------------------------------------

BEGUN = CHUNKED.replace(b"text/event-stream", b"application/json")
CUTS: dict[str, tuple[Step, ...]] = {
    "chunks, then the end": (BEGUN + body_of(b"[1,"),),
    "within a chunk": (BEGUN + b"5\r\n[1,",),
    "within a size": (BEGUN + body_of(b"[1,") + b"1",),
    "before the last line": (BEGUN + body_of(b"[1,") + b"0\r\n",),
    "chunks, then a reset": (BEGUN + body_of(b"[1,"), Then.RESET),
    "a length, then the end": (answer(b"[1,2]", kind="application/json")[:-2],),
    "a length, then a reset": (answer(b"[1,2]", kind="application/json")[:-2], Then.RESET),
    "no length, then a reset": (b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n[1,", Then.RESET),
}


@pytest.mark.parametrize("name", CUTS)
@pytest.mark.parametrize(
    "way", [ClientResponse.arrivals, ClientResponse.text, ClientResponse.items, ClientResponse.body]
)
async def test_a_body_that_is_cut_does_not_end_silently(
    canned: MakeCanned, name: str, way: Callable[[ClientResponse], Any]
) -> None:
    with pytest.raises(IncompleteResponse):
        async with fetch(canned(CUTS[name]).url) as response:
            await take(way, response)


async def test_what_came_before_the_cut_is_given_out(canned: MakeCanned) -> None:
    """(After a reset the kernel may have dropped it.)"""
    for name in ("chunks, then the end", "within a chunk", "a length, then the end"):
        async with fetch(canned(CUTS[name]).url) as response:
            items = response.items()
            assert await anext(items) == 1
            for _ in range(2):
                with pytest.raises(IncompleteResponse):
                    await anext(items)


async def test_without_length_or_chunks_the_proper_end_is_the_end(canned: MakeCanned) -> None:
    async with fetch(canned(b"HTTP/1.0 200 OK\r\n\r\nall of it").url, http_version="1.0") as response:
        assert (await response.body(), response.http_version) == (b"all of it", "1.0")


async def test_bytes_that_are_no_http_are_the_servers_mistake(canned: MakeCanned) -> None:
    server = canned(b"SSH-2.0-x\r\n\r\n", (BEGUN + body_of(b"[1,") + b"xyz\r\n", Then.STAY))
    with pytest.raises(BadResponse):
        async with fetch(server.url):
            pass
    async with fetch(server.url) as response:
        items = response.items()
        assert await anext(items) == 1
        with pytest.raises(BadResponse):
            await anext(items)


def relay(url: str, steps: Steps) -> Callable[[Request], AsyncIterator[str]]:
    """A handler that passes on what another server sends."""

    async def handler(request: Request) -> AsyncIterator[str]:
        steps("asked")
        try:
            async with fetch(url, data=await request.body()) as response:
                async for text in response.text():
                    yield text
        except FetchError as exc:
            steps(type(exc))
            raise HTTPError(502, "the other server failed") from exc

    return handler


@pytest.mark.parametrize(
    ("answers", "error"),
    [
        ((answer(status="503 Service Unavailable"),), StatusError),
        ((b"SSH-2.0-x\r\n\r\n",), BadResponse),
        ((Then.RESET,), IncompleteResponse),
        ((answer(b"", "Content-Encoding: br"),), ContentError),
    ],
)
async def test_who_passes_on_a_stream_that_fails_tells_it_by_one_class(
    canned: MakeCanned, serving: Serving, answers: tuple[Step, ...], error: type[FetchError]
) -> None:
    steps = Steps()
    served = await serving(relay(canned(answers).url, steps))
    peer = await served.ask(get())
    assert (await peer.head()).startswith(b"HTTP/1.1 502 ")
    assert steps.done == ["asked", error]


async def test_who_passes_on_a_stream_does_not_take_its_own_peer_for_the_other_server(
    canned: MakeCanned, serving: Serving
) -> None:
    steps = Steps()
    served = await serving(relay(canned(answer()).url, steps))
    peer = await served.ask(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    await steps.reach("asked")
    await peer.send(b"no chunk\r\n")
    assert (await peer.head()).startswith(b"HTTP/1.1 400 ")
    assert steps.done == ["asked"]


@pytest.mark.parametrize("steps", [(b"",), (b"HTTP/1.1 200",), (Then.RESET,)])
async def test_no_answer_at_all(canned: MakeCanned, steps: tuple[Step, ...]) -> None:
    with pytest.raises(IncompleteResponse, match=r"closed the connection without an answer \(it speaks TLS, perhaps"):
        async with fetch(canned(steps).url):
            pass


@pytest.mark.parametrize("accept", ["application/x-ndjson", "text/event-stream", "application/json"])
async def test_a_stream_of_ours_that_fails_is_told_apart(serving: Serving, failures: Failures, accept: str) -> None:
    async def handler(request: Request) -> AsyncIterator[Any]:
        yield "one"
        await asyncio.sleep(0)
        raise RuntimeError("secret")

    served = await serving(handler)
    host, port = served.server.addresses[0]
    async with fetch(f"http://{host}:{port}/", headers={"Accept": accept}) as response:
        items = response.items()
        assert await anext(items) == "one"
        with pytest.raises(IncompleteResponse if accept == "application/json" else StreamFailed) as raised:
            await anext(items)
        assert isinstance(raised.value, IncompleteResponse) or raised.value.status == 500
    assert str(failures.take()) == "secret"


# -- connections -------------------------------------------------------------------------------------------------------


async def test_nobody_listens_and_unknown_names(canned: MakeCanned) -> None:
    server = canned(answer())
    await server.close()
    with pytest.raises(ConnectFailed, match=rf"no connection to 127.0.0.1 port {server.port}: ") as raised:
        async with fetch(server.url):
            pass
    assert isinstance(raised.value.__cause__, OSError)
    with pytest.raises(ConnectFailed, match="no connection to"):
        async with fetch("http://" + "a" * 64 + ".invalid/"):
            pass


async def test_of_the_addresses_of_a_name_the_first_that_answers_is_taken(
    clock: Clock, canned: MakeCanned, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for `localhost`, which may be ::1 first, where a server listens on 127.0.0.1 alone. (asyncio's look-up.)"""
    server, nobody = canned(answer(b"x")), canned()
    await nobody.close()
    found = [
        (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", nobody.port, 0, 0)),
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", server.port)),
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    async with fetch(f"http://localhost:{server.port}/") as response:
        assert await response.body() == b"x"
        assert response.peer == ("127.0.0.1", server.port)


async def test_a_unix_socket(serving: Serving, tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    await serving(count, host=None, unix=path)
    async with fetch("http://some.host/", uds=path) as response:
        assert [item async for item in response.items()] == [{"n": n} for n in range(3)]
        assert response.peer is None
    with pytest.raises(ConnectFailed, match="nowhere"):
        async with fetch("http://some.host/", uds=str(tmp_path / "nowhere")):
            pass


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@functools.cache
def contexts(authority: trustme.CA, *names: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(server)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(client)
    return server, client


async def test_https(serving: Serving, authority: trustme.CA) -> None:
    theirs, ours = contexts(authority, "localhost")
    served = await serving(count, ssl=theirs)
    port = served.server.addresses[0][1]
    async with fetch(f"https://localhost:{port}/", ssl=ours) as response:
        assert [item async for item in response.items()] == [{"n": n} for n in range(3)]
    async with fetch(f"https://localhost:{port}/", ssl=ours) as response:
        async for _ in response.items():
            break
    with pytest.raises(ConnectFailed, match=r"no TLS with localhost .*: .*certificate"):
        async with fetch(f"https://localhost:{port}/"):
            pass


async def test_a_certificate_is_for_a_name(serving: Serving, authority: trustme.CA) -> None:
    theirs, ours = contexts(authority, "elsewhere.example")
    served = await serving(count, ssl=theirs)
    with pytest.raises(ConnectFailed, match=r"no TLS with 127.0.0.1 .*: .*not valid for"):
        async with fetch(f"https://127.0.0.1:{served.server.addresses[0][1]}/", ssl=ours):
            pass


async def test_who_speaks_tls_alone_is_asked_without(serving: Serving, authority: trustme.CA) -> None:
    theirs, _ = contexts(authority, "localhost")
    served = await serving(count, ssl=theirs)
    with pytest.raises(IncompleteResponse, match=r"without an answer \(it speaks TLS, perhaps: https://\)$"):
        async with fetch(f"http://127.0.0.1:{served.server.addresses[0][1]}/"):
            pass


async def test_what_speaks_no_tls(canned: MakeCanned) -> None:
    server = canned(answer(status="400 Bad Request"))
    with pytest.raises(ConnectFailed, match=r"no TLS with .*: what answers there speaks none \(http://, perhaps\)$"):
        async with fetch(server.url.replace("http", "https")):
            pass


@pytest.mark.parametrize("properly", [True, False])
async def test_under_tls_an_end_without_a_word_is_a_cut(authority: trustme.CA, properly: bool) -> None:
    """Where nothing but the end of the connection tells the body's (RFC 9112 section 9.8)."""
    theirs, ours = contexts(authority, "127.0.0.1")

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.0 200 OK\r\n\r\nall?")
        await writer.drain()
        if properly:
            writer.close()
            await writer.wait_closed()
        else:
            gone.append(writer)
            writer.transport.abort()

    gone: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=theirs)
    port = server.sockets[0].getsockname()[1]
    async with fetch(f"https://127.0.0.1:{port}/", ssl=ours) as response:
        if properly:
            assert await response.body() == b"all?"
        else:
            with pytest.raises(IncompleteResponse):
                await response.body()
    server.close()
    await server.wait_closed()
    await settle()


async def test_nobody_waits_for_tls_to_say_goodbye(clock: Clock, authority: trustme.CA) -> None:
    """We say it (close_notify), and then end the connection, without a reset; a server need not answer it."""
    theirs, ours = contexts(authority, "127.0.0.1")
    told: list[Any] = []
    over = asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received, to_send = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = theirs.wrap_bio(received, to_send, server_side=True)

        async def do(what: Callable[[], Any]) -> Any:
            while True:
                try:
                    return what()
                except ssl.SSLWantReadError:
                    writer.write(to_send.read())
                    data = await reader.read(65536)
                    received.write(data) if data else received.write_eof()

        await do(tls.do_handshake)
        await do(lambda: tls.read(65536))
        tls.write(answer(b"all"))
        writer.write(to_send.read())
        told.append(await do(lambda: tls.read(1)))  # b"": by TLS's word; a mere end would raise
        told.append(await reader.read())  # a reset would raise
        writer.close()
        over.set()

    async def ask() -> None:
        async with fetch(f"https://127.0.0.1:{port}/", ssl=ours) as response:
            assert await response.body() == b"all"
            asked.set()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    port, asked = server.sockets[0].getsockname()[1], asyncio.Event()
    asking = in_background(ask())
    await asked.wait()
    await clock.advance(0.125)
    await asyncio.wait([asking], timeout=0)
    assert asking.done()
    await over.wait()
    assert told == [b"", b""]
    server.close()
    await server.wait_closed()


# -- deadlines ---------------------------------------------------------------------------------------------------------


async def failing(url: str, timeouts: ClientTimeouts) -> RawstreamError:
    with pytest.raises(RawstreamError) as raised:
        async with fetch(url, timeouts=timeouts) as response:
            await response.body()
    return raised.value


async def test_a_head_that_does_not_come_in_time(clock: Clock, canned: MakeCanned) -> None:
    server = canned((b"HTTP/1.1 200 OK\r\n", Then.STAY))
    asking = in_background(failing(server.url, ClientTimeouts(head=5)))
    await clock.advance(4)
    assert not asking.done()
    await clock.advance(2)
    error = await asking
    assert isinstance(error, ResponseTimeout)
    assert str(error) == "no head of a response came within 5 s (ClientTimeouts.head)"
    await server.noticed.wait()


async def test_a_body_that_does_not_go_on(clock: Clock, canned: MakeCanned) -> None:
    more = asyncio.Event()
    server = canned((CHUNKED, more, body_of(b"a"), Then.STAY))
    asking = in_background(failing(server.url, ClientTimeouts(idle=5)))
    await clock.advance(4)
    more.set()
    await clock.advance(4)
    assert not asking.done()
    await clock.advance(2)
    error = await asking
    assert isinstance(error, ResponseTimeout)
    assert str(error) == "nothing more of the response came within 5 s (ClientTimeouts.idle)"
    await server.noticed.wait()


async def test_a_connection_that_is_not_made_in_time(clock: Clock, canned: MakeCanned) -> None:
    """TLS with one who does not answer."""
    silent = Canned((Then.STAY,))
    asking = in_background(failing(f"https://127.0.0.1:{silent.port}", ClientTimeouts(connect=5)))
    await clock.advance(6)
    error = await asking
    assert isinstance(error, ConnectFailed)
    assert str(error) == f"no connection to 127.0.0.1 port {silent.port} within 5 s (ClientTimeouts.connect)"
    await silent.close()


async def test_none_waits_without_end(clock: Clock, canned: MakeCanned) -> None:
    head, body = asyncio.Event(), asyncio.Event()
    server = canned((head, CHUNKED, body, body_of(b"a") + LAST))
    timeouts = ClientTimeouts(connect=None, head=None, idle=None)

    async def ask() -> bytes:
        async with fetch(server.url, timeouts=timeouts) as response:
            return await response.body()

    asking = in_background(ask())
    for gate in (head, body):
        await clock.advance(70)
        gate.set()
    assert await asking == b"a"


# -- leaving early -----------------------------------------------------------------------------------------------------


async def test_leaving_early_closes_the_connection_at_once(canned: MakeCanned) -> None:
    server = canned((CHUNKED + body_of(b"a"), Then.STAY))
    async with fetch(server.url) as response:
        async for _ in response.chunks():
            break
    await server.noticed.wait()
    async with fetch(server.url):
        pass
    with pytest.raises(ZeroDivisionError):
        async with fetch(server.url):
            raise ZeroDivisionError


async def test_a_handler_of_ours_is_cancelled_when_its_reader_leaves(serving: Serving) -> None:
    ended = asyncio.Event()

    async def handler(request: Request) -> AsyncIterator[int]:
        try:
            while True:
                yield 1
                await asyncio.sleep(0.001)
        finally:
            ended.set()

    served = await serving(handler)
    host, port = served.server.addresses[0]
    async with fetch(f"http://{host}:{port}/") as response:
        async for _ in response.chunks():
            break
    await ended.wait()


@pytest.mark.parametrize("turns", [*range(8), 40])
@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_cancelling_leaves_nothing_wherever_it_comes(
    serving: Serving, authority: trustme.CA, scheme: str, turns: int
) -> None:
    """That nothing is left, neither task nor socket, `orderly` and the warnings see to."""

    async def handler(request: Request) -> AsyncIterator[int]:
        yield 1
        await asyncio.Event().wait()

    theirs, ours = contexts(authority, "127.0.0.1")
    served = await serving(handler, ssl=theirs if scheme == "https" else None)
    url = f"{scheme}://127.0.0.1:{served.server.addresses[0][1]}/"

    async def ask() -> None:
        async with fetch(url, ssl=ours) as response:
            async for _ in response.chunks():
                pass

    asking = in_background(ask())
    for _ in range(turns):
        await asyncio.sleep(0)
    asking.cancel()
    await asyncio.wait([asking])
    assert asking.cancelled()
    await settle()
    gc.collect()


async def test_cancelling_the_wait_for_a_piece_loses_none(canned: MakeCanned) -> None:
    more = asyncio.Event()
    server = canned((CHUNKED + body_of(b"a"), more, body_of(b"b") + LAST))
    async with fetch(server.url) as response:
        chunks = response.chunks()
        assert await anext(chunks) == b"a"
        waiting = in_background(anext(chunks))  # type: ignore[arg-type]
        await settle()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        more.set()
        assert [chunk async for chunk in chunks] == [b"b"]


async def test_a_slow_reader_makes_the_server_wait(serving: Serving) -> None:
    sent = 0

    async def handler(request: Request) -> Stream:
        async def items() -> AsyncIterator[bytes]:
            nonlocal sent
            while True:
                yield bytes(65536)
                sent += 65536

        return Stream(items(), format="bytes")

    served = await serving(handler)
    host, port = served.server.addresses[0]
    async with fetch(f"http://{host}:{port}/") as response:
        chunks = response.chunks()
        await anext(chunks)
        before = -1
        while sent != before:
            before = sent
            await settle()
        assert sent < 16 * 1024 * 1024, "the rest waits in the server"
        while sent < before + 1024 * 1024:
            await anext(chunks)
