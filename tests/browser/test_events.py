"""EventSource: the panel of the page, and a page that knows nothing of rawstream."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Page, expect

from rawstream import Event, Request, Response, Router, Stream, errors

from .conftest import Hosting, OpenPage, Raw

pytestmark = pytest.mark.asyncio(loop_scope="session")

TEXT = "这是一个完整的测试数据；为了测试IAsyncEnumerable<T>的使用"


async def log(page: Page) -> list[tuple[str, str]]:
    """The panel's log without the times: (kind, text)."""
    rows = await page.locator("#events .log li").evaluate_all(
        "(rows) => rows.map((row) => [...row.children].slice(1).map((cell) => cell.textContent))"
    )
    return [tuple(row) for row in rows]


async def shows(page: Page, figure: str, value: str | re.Pattern[str]) -> None:
    await expect(page.locator(f"#events [data-figure={figure}]")).to_have_text(value)


async def status(page: Page, state: str, says: str) -> None:
    await expect(page.locator("#events .status")).to_have_attribute("data-state", state)
    await expect(page.locator("#events .status")).to_contain_text(says)


async def choose(page: Page, source: str) -> None:
    await page.locator(f"#events label:has([value={source}])").click()


async def test_messages_and_the_named_end(demo: str, open_page: OpenPage) -> None:
    page = await open_page(demo)
    await page.fill("#events [name=delay]", "0.01")
    await page.click("#events .primary")
    await status(page, "done", "stream-end")
    await expect(page.locator("#events .answer")).to_have_text(TEXT)
    lines = await log(page)
    assert lines[0][0] == "open"
    assert [text for kind, text in lines if kind == "message"] == list(TEXT)
    assert [kind for kind, _ in lines[-2:]] == ["stream-end", "close"]
    await shows(page, "readyState", "2 CLOSED")
    await shows(page, "lastEventId", "stream-end")
    await shows(page, "reopened", "0")
    await shows(page, "data-events", str(len(TEXT) + 1))
    await shows(page, "data-bytes", f"{len(TEXT.encode()) + 2}\xa0B")
    ticks = await page.locator("#events .rug").evaluate("(path) => path.getAttribute('d').split('M').length - 1")
    assert ticks >= 3


async def test_clock_ticks_with_ids_until_close(demo: str, open_page: OpenPage) -> None:
    page = await open_page(demo)
    await choose(page, "clock")
    await page.click("#events .primary")
    await shows(page, "readyState", "1 OPEN")
    await shows(page, "lastEventId", re.compile(r"^([2-9]|\d{2,})$"))  # one a second: the second may be gone already
    await page.get_by_role("button", name="close()").click()
    await status(page, "idle", "Closed by the page")
    await shows(page, "readyState", "2 CLOSED")
    kinds = [kind for kind, _ in await log(page)]
    assert kinds[:3] == ["open", "tick", "tick"]
    assert kinds[-1] == "close"
    await expect(page.locator("#events .primary")).to_be_focused()


async def test_close_ends_the_generator(router: Router, hosting: Hosting, open_page: OpenPage) -> None:
    closed = asyncio.Event()

    @router.get("/clock")
    async def clock(request: Request) -> AsyncIterator[Event]:
        try:
            yield Event({"n": 1}, event="tick", id="1")
            await asyncio.Event().wait()
        finally:
            closed.set()

    page = await open_page(await hosting(router))
    await choose(page, "clock")
    await page.click("#events .primary")
    await shows(page, "lastEventId", "1")
    await page.click("#events .stop")
    await closed.wait()


async def test_reconnect_is_seen(raw: Raw, open_page: OpenPage) -> None:
    """The server cuts after each tick; the page shows error and reopen, the server gets the last id."""
    asked: list[str | None] = []
    seen = [asyncio.Event() for _ in range(3)]  # Chromium drops what it has not told yet when the connection is cut

    async def clock(head: str, writer: asyncio.StreamWriter) -> None:
        found = re.search(r"last-event-id: (\S+)", head, re.IGNORECASE)
        asked.append(found and found[1])
        number = len(asked)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        tick = b'event: tick\r\nretry: 20\r\nid: %d\r\ndata: {"n": %d}\r\n\r\n' % (number, number)
        writer.write(b"%x\r\n%s\r\n" % (len(tick), tick))
        await writer.drain()
        await seen[number - 1].wait()

    page = await open_page(await raw({"GET /clock": clock}), expect_errors=True)
    await choose(page, "clock")
    await page.click("#events .primary")
    for number in (1, 2):
        await shows(page, "lastEventId", str(number))
        seen[number - 1].set()
    await shows(page, "lastEventId", "3")
    await shows(page, "readyState", "1 OPEN")
    await shows(page, "reopened", "2")
    lines = await log(page)
    assert [kind for kind, _ in lines] == ["open", "tick", "error", "open", "tick", "error", "open", "tick"]
    assert "reconnects" in lines[2][1]
    assert lines[3][1] == "reopened; sent Last-Event-ID: 1"
    assert lines[6][1] == "reopened; sent Last-Event-ID: 2"
    assert asked == [None, "1", "2"]
    await page.click("#events .stop")
    seen[2].set()
    await status(page, "idle", "Closed")


async def test_unclosed_end_is_answered_with_204(router: Router, hosting: Hosting, open_page: OpenPage) -> None:
    """Without close() the browser asks again, is told 204, and stays away; the log shows it."""
    runs = 0

    @router.get("/stream")
    async def stream(request: Request) -> AsyncIterator[Event]:
        nonlocal runs
        runs += 1
        yield Event("一", retry=20)

    page = await open_page(await hosting(router))
    await page.get_by_role("checkbox", name="close() at stream-end").uncheck()
    await page.click("#events .primary")
    await status(page, "done", "the server answered 204")
    assert runs == 1
    assert [kind for kind, _ in await log(page)] == ["open", "message", "stream-end", "error", "error"]
    await shows(page, "readyState", "2 CLOSED")


async def test_finished_stream_is_not_run_again(router: Router, hosting: Hosting, open_page: OpenPage) -> None:
    """The plainest page there is: `new EventSource(url)`, no listener for the end, no close()."""
    runs, asked = 0, []

    async def events() -> AsyncIterator[Event]:
        nonlocal runs
        runs += 1
        yield Event("once", retry=20)

    @router.get("/plain")
    async def plain(request: Request) -> Response:
        script = (
            "window.got = []; window.source = new EventSource('/news'); source.onmessage = (e) => got.push(e.data);"
        )
        body = f"<!doctype html><link rel=icon href=data:,><script>{script}</script>".encode()
        return Response(200, [("Content-Type", "text/html; charset=utf-8")], body)

    @router.get("/news")
    async def news(request: Request) -> Stream:
        asked.append(request.last_event_id)
        return Stream(events(), format="sse")

    page = await open_page(f"{await hosting(router)}/plain")
    await page.wait_for_function("() => source.readyState === EventSource.CLOSED")
    assert runs == 1
    assert await page.evaluate("() => got") == ["once"]
    assert asked == [None], "the 204 comes before the handler"


async def test_error_in_band_closes_the_stream(raw: Raw, open_page: OpenPage) -> None:
    """The panel calls close(), or the browser would come back and run what failed again."""
    shown = asyncio.Event()
    told = b'retry: 20\nevent: stream-error\ndata: {"status":500,"error":"No more"}\n\n'
    runs = 0

    async def stream(head: str, writer: asyncio.StreamWriter) -> None:
        nonlocal runs
        runs += 1
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        writer.write(b"%x\r\n%s\r\n" % (len(told), told))
        await writer.drain()
        await shown.wait()

    page = await open_page(await raw({"GET /stream": stream}), expect_errors=True)
    await page.click("#events .primary")
    await status(page, "failed", "The server broke the stream off: No more (500)")
    shown.set()
    await shows(page, "readyState", "2 CLOSED")
    assert runs == 1
    assert await log(page) == [
        ("open", "HTTP 200, the stream is open"),
        ("stream-error", '{"status":500,"error":"No more"}'),
    ]


async def test_error_status_is_final(router: Router, hosting: Hosting, open_page: OpenPage) -> None:
    """EventSource tells a script nothing of a 400; the page says that, the log shows the end, the plot is empty."""

    @router.get("/stream")
    async def stream(request: Request) -> Response:
        raise errors.HTTPError(400)

    page = await open_page(await hosting(router), expect_errors=True)
    await page.click("#events .primary")
    await status(page, "failed", "EventSource gave up")
    assert [kind for kind, _ in await log(page)] == ["error"]
    await expect(page.locator("#events figcaption")).to_have_text("Nothing to draw: no stream came.")
    assert await page.locator("#events .plot path[d]").count() == 0


async def test_what_came_before_the_end_stays_drawn(raw: Raw, open_page: OpenPage) -> None:
    """The stream was good; only when the browser comes back is it refused."""
    runs = 0

    async def clock(head: str, writer: asyncio.StreamWriter) -> None:
        nonlocal runs
        runs += 1
        if runs == 1:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
            writer.write(b'event: tick\nretry: 20\nid: 1\ndata: {"n": 1}\n\n')
        else:
            writer.write(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")

    page = await open_page(await raw({"GET /clock": clock}), expect_errors=True)
    await choose(page, "clock")
    await page.click("#events .primary")
    await status(page, "failed", "EventSource gave up")
    await expect(page.locator("#events figcaption")).to_contain_text("One arrival")


async def test_words_of_the_server_are_shown_as_they_are(router: Router, hosting: Hosting, open_page: OpenPage) -> None:
    """Also those that the page has a meaning of its own for."""

    @router.get("/stream")
    async def stream(request: Request) -> AsyncIterator[str]:
        for word in ("text", "constructor", "log-open", "`a` {0}"):
            yield word

    page = await open_page(await hosting(router))
    await page.click("#events .primary")
    await status(page, "done", "stream-end")
    said = [text for kind, text in await log(page) if kind == "message"]
    assert said == ["text", "constructor", "log-open", "`a` {0}"]


async def test_the_clock_has_its_own_pace(demo: str, open_page: OpenPage) -> None:
    """A setting without effect cannot be set; and what is wrong in it does not matter."""
    page = await open_page(demo)
    delay = page.locator("#events [name=delay]")
    await expect(delay).to_be_enabled()
    await delay.fill("99")
    await choose(page, "clock")
    await expect(delay).to_be_disabled()
    await page.click("#events .primary")
    await status(page, "busy", "/clock")
    await page.click("#events .stop")
    await choose(page, "stream")
    await expect(delay).to_be_enabled()


async def test_opening_again_replaces_the_stream(router: Router, hosting: Hosting, open_page: OpenPage) -> None:
    closed: asyncio.Queue[str] = asyncio.Queue()

    async def endless(name: str) -> AsyncIterator[Event]:
        try:
            yield Event({"n": 1}, event="tick", id=name)
            await asyncio.Event().wait()
        finally:
            closed.put_nowait(name)

    @router.get("/stream")
    async def stream(request: Request) -> Stream:
        return Stream(endless("s"), format="sse")

    @router.get("/clock")
    async def clock(request: Request) -> Stream:
        return Stream(endless("c"), format="sse")

    page = await open_page(await hosting(router))
    await page.click("#events .primary")
    await shows(page, "lastEventId", "s")
    await choose(page, "clock")
    await page.click("#events .primary")
    assert await closed.get() == "s"
    await shows(page, "lastEventId", "c")
    assert [kind for kind, _ in await log(page)] == ["open", "tick"]


async def test_log_is_bounded(router: Router, hosting: Hosting, open_page: OpenPage) -> None:
    @router.get("/stream")
    async def stream(request: Request) -> AsyncIterator[str]:
        for number in range(500):
            yield str(number)

    page = await open_page(await hosting(router))
    await page.click("#events .primary")
    await status(page, "done", "stream-end")
    lines = await log(page)
    assert len(lines) == 200
    assert lines[-3] == ("message", "499")
