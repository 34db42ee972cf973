"""Part 1 of the page's script, called as someone who copied it would: parsers, and fetchAsStream over real sockets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page

from rawstream import Event, Request, Response, Router, Stream

from .conftest import Hosting, OpenPage, Raw

pytestmark = pytest.mark.asyncio(loop_scope="session")

# What a parser yields for a text in pieces of each size; a failure comes after what was yielded before it.
PARSE = """([type, text, sizes]) => sizes.map((size) => {
  const [parser, items] = [rawstream.parserFor(type), []];
  try {
    for (let i = 0; i < text.length; i += size) {
      for (const item of parser.push(text.slice(i, i + size))) items.push(item);
    }
    for (const item of parser.end()) items.push(item);
  } catch (error) { items.push({ failure: error.kind, status: error.status }); }
  return items;
})"""
# What fetchAsStream yields; each chunk is told to the test, which lets the server go on.
FETCH = """async ([url, init]) => {
  const items = [];
  try {
    const onChunk = (bytes) => window.took?.(bytes.length);
    for await (const item of rawstream.fetchAsStream(url, { ...init, onChunk })) items.push(item);
  } catch (error) { items.push({ failure: error.kind ?? error.name, status: error.status, message: error.message }); }
  return items;
}"""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def page(browser: Browser, demo: str) -> AsyncIterator[Page]:
    """One page for all tests that only call a function of it."""
    page = await browser.new_page()
    await page.goto(demo)
    yield page
    await page.close()


def event(data: str, event: str = "message", id: str = "") -> dict[str, str]:
    return {"event": event, "data": data, "id": id}


FORMAT = {"failure": "format", "status": None}
JSON, LINES, SSE = "application/json; charset=utf-8", "application/x-ndjson", "text/event-stream"
CASES: dict[str, tuple[str, str, list[Any]]] = {
    "json: empty array": (JSON, "[]", []),
    "json: empty array with spaces": (JSON, " \n[ ]\r\n", []),
    "json: strings with brackets, quotes and backslashes": (JSON, r'["a]","\"","\\","[{"]', ["a]", '"', "\\", "[{"]),
    "json: numbers and words": (JSON, "[1, -2.5e3 ,true,\nnull\t,false]", [1, -2500, True, None, False]),
    "json: nested": (JSON, '[[1,[2]],{"a":["]"],"b":{}},[]]', [[1, [2]], {"a": ["]"], "b": {}}, []]),
    "json: escapes and Chinese": (JSON, '["\\u8fd9","这","\\ud83d\\ude00"]', ["这", "这", "😀"]),
    "json: cut before the end": (JSON, '["a","b"', ["a", "b", FORMAT]),
    "json: cut within an item": (JSON, '["a","b', ["a", FORMAT]),
    "json: nothing at all": (JSON, "", [FORMAT]),
    "json: no array": (JSON, '{"a":1}', [FORMAT]),
    "json: comma before the end": (JSON, "[1,]", [1, FORMAT]),
    "json: comma first": (JSON, "[,1]", [FORMAT]),
    "json: no comma between": (JSON, '["a" "b"]', ["a", FORMAT]),
    "json: more after the end": (JSON, "[1]2", [1, FORMAT]),
    "json: a second end": (JSON, "[1]]", [1, FORMAT]),
    "json: wrong bracket inside": (JSON, "[{]]", [FORMAT]),
    "json: not a word": (JSON, "[nul]", [FORMAT]),
    "lines: \\n, \\r\\n, empty lines": (LINES, '1\n"a"\r\n\n\r\n{"b":null}\n', [1, "a", {"b": None}]),
    "lines: the last without its end": (LINES, '1\n"这"', [1, "这"]),
    "lines: null and false are items": (LINES, "null\nfalse\n", [None, False]),
    "lines: a failure in band": (
        LINES,
        '1\n{"stream-error":{"status":500,"error":"no"}}\n2\n',
        [1, {"failure": "stream", "status": 500}],
    ),
    "lines: not JSON": (LINES, "1\nx\n2\n", [1, FORMAT]),
    "sse: the stock ticker of the WHATWG text": (SSE, "data: YHOO\ndata: +2\ndata: 10\n\n", [event("YHOO\n+2\n10")]),
    "sse: comment, id, id reset, space kept": (
        SSE,
        ": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n",
        [event("first event", id="1"), event("second event"), event(" third event")],
    ),
    "sse: empty data, and an unfinished event": (SSE, "data\n\ndata\ndata\n\ndata:", [event(""), event("\n")]),
    "sse: one space after the colon is dropped": (SSE, "data:test\n\ndata: test\n\n", [event("test"), event("test")]),
    "sse: each line end": (SSE, "data: a\r\rdata: b\n\ndata: c\r\n\r\ndata: d\r\n\n", [*map(event, "abcd")]),
    "sse: a name without data is forgotten": (SSE, "event: x\n\ndata: a\n\n", [event("a")]),
    "sse: the id outlives its event": (
        SSE,
        "id: 7\n\ndata: a\n\ndata: b\n\n",
        [event("a", id="7"), event("b", id="7")],
    ),
    "sse: an id with NUL is ignored": (SSE, "id: 1\nid: 2\0\ndata: a\n\n", [event("a", id="1")]),
    "sse: unknown fields are ignored": (SSE, "retry: 10\nfoo: bar\n data: b\ndata: a\n\n", [event("a")]),
    "sse: names": (SSE, "event: tick\ndata: 1\n\ndata: 2\n\n", [event("1", "tick"), event("2")]),
    "sse: the end is no item": (SSE, "data: a\n\nevent: stream-end\nid: stream-end\ndata: {}\n\n", [event("a")]),
    "sse: a failure in band": (
        SSE,
        'data: a\n\nevent: stream-error\ndata: {"status":500,"error":"no"}\n\n',
        [event("a"), {"failure": "stream", "status": 500}],
    ),
}


@pytest.mark.parametrize("name", CASES)
async def test_parser_yields_the_same_however_the_text_is_cut(page: Page, name: str) -> None:
    type, text, expected = CASES[name]
    sizes = [1, 2, 3, len(text) or 1]
    assert await page.evaluate(PARSE, [type, text, sizes]) == [expected] * len(sizes)


async def test_an_item_comes_with_its_own_last_character(page: Page) -> None:
    """The reason for not waiting for the comma: a character every half second must not be half a second late."""
    counts = await page.evaluate("""() => {
      const parser = rawstream.parserFor("application/json");
      return ['["a"', ',{"b":1', '}', ',2', ',', '[]', ']'].map((text) => [...parser.push(text)].length);
    }""")
    assert counts == [1, 0, 1, 0, 1, 1, 0]


async def test_unknown_content_type_is_a_failure_of_format(page: Page) -> None:
    assert (
        await page.evaluate("""() => { try { rawstream.parserFor("image/png"); } catch (e) { return e.kind; } }""")
        == "format"
    )


async def test_parsers_do_work_in_proportion_to_the_text(page: Page) -> None:
    """One item of 3 MB in pieces of ten characters: copying what is held each time would take hours, not seconds."""
    for type, before, after in ((JSON, '["', '"]'), (LINES, '"', '"\n'), (SSE, "data: ", "\n\n")):
        size = await page.evaluate(
            """([type, before, after]) => {
              const [parser, items] = [rawstream.parserFor(type), []];
              const pieces = [before, ...Array(300_000).fill("0123456789"), after];
              for (const text of pieces) items.push(...parser.push(text));
              return (items[0].data ?? items[0]).length;
            }""",
            [type, before, after],
        )
        assert size == 3_000_000


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        (b'["\xe8\xbf\x99"', '["这"'),
        (b"data: a\r\n\r\n", "data: a\\r\\n\\r\\n"),
        (b"\xbf\x99,\xe8\xbf", "\\xBF\\x99,\\xE8\\xBF"),
        (b"\x00\t\\\x7f", "\\x00\\t\\\\\\x7F"),
        ("\ufeff😀".encode(), "\ufeff😀"),
        (b"\xf0\x9f\x98\xc0a", "\\xF0\\x9F\\x98\\xC0a"),
    ],
)
async def test_bytes_are_shown_readably(page: Page, data: bytes, shown: str) -> None:
    assert await page.evaluate("(bytes) => rawstream.escapeBytes(new Uint8Array(bytes))", list(data)) == shown


async def test_meter_measures_in_bounded_memory(page: Page) -> None:
    """200,000 chunks, a gap of 10 ms but each hundredth of 200 ms: exact counts, percentiles within 2 %."""
    got = await page.evaluate("""() => {
      const meter = new rawstream.Meter(1000);
      let now = 1000 + 30;
      for (let i = 0; i < 200_000; i++, now += i % 100 === 0 ? 200 : 10) meter.add(7, now);
      meter.end(now);
      const { chunks, bytes, first, kept, longest } = meter;
      return { chunks, bytes, first, kept, gaps: longest.length, longest: longest[0].to - longest[0].from,
               p50: meter.quantile(0.5), p98: meter.quantile(0.98), p995: meter.quantile(0.995),
               last: meter.totals[kept - 1] };
    }""")
    assert (got["chunks"], got["bytes"], got["first"]) == (200_000, 1_400_000, 30)
    assert got["kept"] <= 2048
    assert got["gaps"] == 5
    assert got["longest"] == pytest.approx(200)
    assert got["p50"] == pytest.approx(10, rel=0.02)
    assert got["p98"] == pytest.approx(10, rel=0.02)
    assert got["p995"] == pytest.approx(200, rel=0.02)
    assert got["last"] == pytest.approx(1_400_000, rel=0.01)


async def test_no_percentile_is_longer_than_the_longest_gap(page: Page) -> None:
    """Gaps that differ by less than a bucket is wide, so that some are in the lower half of theirs."""
    above = await page.evaluate("""() => [...Array(50).keys()].map((i) => 500 + i).filter((gap) => {
      const meter = new rawstream.Meter(0);
      for (const now of [0, gap, 2 * gap]) meter.add(1, now);
      return meter.quantile(0.5) > gap || meter.quantile(0.99) > gap;
    })""")
    assert above == []


async def test_meter_without_gaps_has_no_percentiles(page: Page) -> None:
    assert await page.evaluate("() => new rawstream.Meter().quantile(0.5)") is None
    assert await page.evaluate("() => { const m = new rawstream.Meter(); m.add(1); return m.quantile(0.99); }") is None


TEXT = "\ufeff这是é😀\r\n"
BODIES = {
    "application/json": ('["这","é😀","\\n"]', ["这", "é😀", "\n"]),
    "application/x-ndjson": ('"这"\r\n"é😀"\r\n', ["这", "é😀"]),
    "text/event-stream": ("\ufeffdata: 这\r\ndata: é\r\n\r\ndata: 😀\r\r", [event("这\né"), event("😀")]),
    "text/plain": (TEXT, TEXT[1:]),
}


@pytest.mark.parametrize("type", BODIES)
async def test_character_cut_between_chunks(type: str, router: Router, hosting: Hosting, open_page: OpenPage) -> None:
    """Each byte is a chunk of its own: the server sends the next one when the page has told that it took the last."""
    text, expected = BODIES[type]
    taken: asyncio.Queue[int] = asyncio.Queue()

    async def single_bytes() -> AsyncIterator[bytes]:
        for value in text.encode():
            yield bytes([value])
            assert await taken.get() == 1

    @router.get("/cut")
    async def cut(request: Request) -> Stream:
        return Stream(single_bytes(), format="bytes", headers=[("Content-Type", type)])

    page = await open_page(await hosting(router))
    await page.expose_function("took", taken.put_nowait)
    items = await page.evaluate(FETCH, ["/cut", {}])
    assert ("".join(items) if type == "text/plain" else items) == expected


async def test_leaving_the_loop_closes_the_generator_on_the_server(
    router: Router, hosting: Hosting, open_page: OpenPage
) -> None:
    closed = asyncio.Event()

    @router.get("/endless")
    async def endless(request: Request) -> AsyncIterator[str]:
        try:
            yield "a"
            await asyncio.Event().wait()
        finally:
            closed.set()

    page = await open_page(await hosting(router))
    await page.evaluate("""async () => { for await (const item of rawstream.fetchAsStream("/endless")) break; }""")
    async with asyncio.timeout(10):
        await closed.wait()


async def test_abort_ends_the_loop_and_closes_the_generator(
    router: Router, hosting: Hosting, open_page: OpenPage
) -> None:
    closed = asyncio.Event()

    @router.get("/endless")
    async def endless(request: Request) -> AsyncIterator[str]:
        try:
            yield "a"
            yield "b"
            await asyncio.Event().wait()
        finally:
            closed.set()

    page = await open_page(await hosting(router))
    told = await page.evaluate("""async () => {
      const [control, items] = [new AbortController(), []];
      try {
        for await (const item of rawstream.fetchAsStream("/endless", { signal: control.signal })) {
          items.push(item);
          control.abort();
        }
      } catch (error) { return [items, error.name]; }
    }""")
    assert told == [["a"], "AbortError"], "b came in the same chunk, but after Stop nothing more is yielded"
    async with asyncio.timeout(10):
        await closed.wait()


async def test_error_status_carries_the_text_of_the_server(
    router: Router, hosting: Hosting, open_page: OpenPage
) -> None:
    @router.get("/teapot")
    async def teapot(request: Request) -> Response:
        return Response(418, [("Content-Type", "text/plain; charset=utf-8")], "418 我是茶壶\n".encode())

    page = await open_page(await hosting(router), expect_errors=True)
    failure = {"failure": "http", "status": 418, "message": "418 我是茶壶"}
    assert await page.evaluate(FETCH, ["/teapot", {}]) == [failure]


@pytest.mark.parametrize(("accept", "first"), [("application/x-ndjson", "a"), ("text/event-stream", event("a"))])
async def test_what_is_told_in_band_is_not_lost_in_the_cut(
    accept: str, first: object, router: Router, hosting: Hosting, open_page: OpenPage
) -> None:
    """Chromium drops bytes that it has not handed over when it learns of a cut: the server may not cut at once."""
    taken: asyncio.Queue[int] = asyncio.Queue()

    @router.get("/fails")
    async def fails(request: Request) -> AsyncIterator[str]:
        yield "a"
        await taken.get()
        raise ValueError("no more")

    page = await open_page(await hosting(router), expect_errors=True)
    await page.expose_function("took", taken.put_nowait)
    told = {"failure": "stream", "status": 500, "message": "Internal Server Error"}
    for _ in range(10):
        assert await page.evaluate(FETCH, ["/fails", {"headers": {"Accept": accept}}]) == [first, told]
        while not taken.empty():
            taken.get_nowait()


@pytest.mark.parametrize("accept", ["application/json", "text/plain"])
async def test_failure_without_a_place_in_band_is_a_cut(
    accept: str, router: Router, hosting: Hosting, open_page: OpenPage
) -> None:
    taken = asyncio.Event()

    @router.get("/fails")
    async def fails(request: Request) -> AsyncIterator[str]:
        yield "a"
        await taken.wait()
        raise ValueError("no more")

    page = await open_page(await hosting(router), expect_errors=True)
    await page.expose_function("took", lambda size: taken.set())
    item, failure = await page.evaluate(FETCH, ["/fails", {"headers": {"Accept": accept}}])
    assert item == "a"
    assert failure["failure"] == "cut"


async def test_no_answer_is_unreachable(raw: Raw, open_page: OpenPage) -> None:
    async def hang_up(head: str, writer: asyncio.StreamWriter) -> None:
        """Closes the connection without a byte."""

    page = await open_page(await raw({"GET /nothing": hang_up}), expect_errors=True)
    [failure] = await page.evaluate(FETCH, ["/nothing", {}])
    assert failure["failure"] == "unreachable"


async def test_no_content_is_an_empty_stream(router: Router, hosting: Hosting, open_page: OpenPage) -> None:
    @router.get("/none")
    async def none(request: Request) -> Response:
        return Response(204)

    page = await open_page(await hosting(router))
    assert await page.evaluate(FETCH, ["/none", {}]) == []


async def test_post_body_reaches_the_server(router: Router, hosting: Hosting, open_page: OpenPage) -> None:
    @router.post("/echo")
    async def echo(request: Request) -> AsyncIterator[object]:
        yield await request.json()

    page = await open_page(await hosting(router))
    sent = {"text": "这", "n": [1, None]}
    assert await page.evaluate(FETCH, ["/echo", {"method": "POST", "body": json.dumps(sent)}]) == [sent]


async def test_event_fields_come_through(router: Router, hosting: Hosting, open_page: OpenPage) -> None:
    @router.get("/events")
    async def events(request: Request) -> AsyncIterator[Event]:
        yield Event("a\nb", event="tick", id="1")
        yield Event("c")

    page = await open_page(await hosting(router))
    items = await page.evaluate(FETCH, ["/events", {"headers": {"Accept": "text/event-stream"}}])
    assert items == [event("a\nb", "tick", "1"), event("c", id="1")]
