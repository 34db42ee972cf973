"""The panels that read with fetch: the typed-out answer, buffered beside flushed, big data push."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
from playwright.async_api import Page, expect

from rawstream import Request, Router, Stream, errors

from .conftest import Hosting, OpenPage, Raw

pytestmark = pytest.mark.asyncio(loop_scope="session")

TEXT = "这是一个完整的测试数据；为了测试IAsyncEnumerable<T>的使用"
FORMATS = {
    "json": (json.dumps([*TEXT], ensure_ascii=False, separators=(",", ":")), "application/json; charset=utf-8"),
    "ndjson": ("".join(f'"{c}"\n' for c in TEXT), "application/x-ndjson"),
    "sse": (
        "".join(f"data: {c}\n\n" for c in TEXT) + "event: stream-end\nid: stream-end\ndata: {}\n\n",
        "text/event-stream",
    ),
    "text": (TEXT, "text/plain; charset=utf-8"),
}


async def start(page: Page, panel: str, **settings: str) -> None:
    """Fill in a panel's settings and press its first button."""
    for name, value in settings.items():
        if name == "format":
            await page.locator(f"#{panel} label:has([value={value}])").click()
        else:
            await page.fill(f"#{panel} [name={name}]", value)
    await page.click(f"#{panel} .primary")


async def state(page: Page, panel: str, state: str, says: str | re.Pattern[str] = "") -> None:
    """Wait until a panel's status is `state`, then look at what it says."""
    status = page.locator(f"#{panel} .status")
    await expect(status).to_have_attribute("data-state", state)
    await expect(status).to_contain_text(says)


async def figures(page: Page, panel: str, plot: int = 0) -> dict[str, str]:
    """The figures below a plot, by name, with plain spaces."""
    return (
        await page.locator(f"#{panel} .plot")
        .nth(plot)
        .evaluate(
            """(plot) => Object.fromEntries([...plot.querySelectorAll("dd")].map((dd) =>
             [dd.dataset.figure, dd.textContent.replaceAll("\\u00a0", " ")]))"""
        )
    )


def milliseconds(text: str) -> float:
    """A time as the page writes it: < 0.1 ms, 12 ms, 1.50 s."""
    number, unit = text.removeprefix("< ").split()
    return float(number.replace(",", "")) * (1000 if unit == "s" else 1)


async def curve(page: Page, panel: str, plot: int = 0) -> dict[str, int]:
    """How many steps, dots and ticks a plot has drawn, and how much of its height the curve takes (in percent)."""
    return (
        await page.locator(f"#{panel} .plot")
        .nth(plot)
        .evaluate(
            """(plot) => {
          const path = (name) => plot.querySelector(`path.${name}`);
          const count = (name, letter) => (path(name).getAttribute("d") ?? "").split(letter).length - 1;
          const curve = path("steps").getBoundingClientRect();
          const whole = plot.querySelector("svg").getBoundingClientRect();
          return {
            steps: count("steps", "V"), dots: count("dots", "M"), ticks: count("rug", "M"), gaps: count("gaps", "M"),
            height: Math.round((100 * curve.height) / whole.height),
            width: Math.round((100 * curve.width) / whole.width),
          };
        }"""
        )
    )


@pytest.mark.parametrize("format", FORMATS)
async def test_answer_is_typed_out(format: str, demo: str, open_page: OpenPage) -> None:
    """In each format: the text, the bytes as they are on the wire, the figures, the plot, a finished status."""
    body = FORMATS[format][0]
    page = await open_page(demo)
    await start(page, "typed", delay="0.01", format=format)
    await state(page, "typed", "done")
    await expect(page.locator("#typed .answer")).to_have_text(TEXT)
    shown = await figures(page, "typed")
    assert shown["bytes"] == f"{len(body.encode())} B"
    assert 3 <= int(shown["chunks"]) <= len(TEXT) + 2, "not all at once (a busy machine gathers a few)"
    assert 0 < milliseconds(shown["first-byte"]) < 5000
    assert 0 < milliseconds(shown["p50"]) <= milliseconds(shown["p99"]) < 5000
    items = len(TEXT) if format != "text" else r"\d+"
    await state(page, "typed", "done", re.compile(rf"^Complete: {items} items, {len(body.encode())}.B in "))
    drawn = await curve(page, "typed")
    assert 3 <= drawn["ticks"] == drawn["dots"] <= int(shown["chunks"])
    assert drawn["height"] > 50
    assert drawn["width"] > 90
    await expect(page.locator("#typed figcaption")).to_contain_text(f"{shown['chunks']} arrivals")


async def test_characters_appear_while_the_stream_runs(router: Router, hosting: Hosting, open_page: OpenPage) -> None:
    """Half of the answer is on the page while the server still waits for leave to send the rest."""
    go_on = asyncio.Event()

    @router.post("/stream")
    async def stream(request: Request) -> AsyncIterator[str]:
        yield "半"
        await go_on.wait()
        yield "全"

    page = await open_page(await hosting(router))
    await start(page, "typed")
    await expect(page.locator("#typed .answer")).to_have_text("半")
    await state(page, "typed", "busy", "Streaming: HTTP 200, application/json")
    await expect(page.locator("#typed .answer")).to_have_attribute("aria-busy", "true")
    go_on.set()
    await state(page, "typed", "done", "Complete: 2 items")
    await expect(page.locator("#typed .answer")).to_have_text("半全")
    await expect(page.locator("#typed .answer")).to_have_attribute("aria-busy", "false")


async def test_settings_reach_the_server(demo: str, open_page: OpenPage) -> None:
    page = await open_page(demo)
    await start(page, "typed", text="ab ", delay="0", repeat="3")
    await state(page, "typed", "done", "Complete: 9 items")
    assert await page.locator("#typed .answer").text_content() == "ab ab ab "


async def test_long_answers_keep_their_end(demo: str, open_page: OpenPage) -> None:
    """50,000 characters came, the last 20,000 are kept."""
    page = await open_page(demo)
    await start(page, "typed", text="0123456789" * 5, delay="0", repeat="1000")
    await state(page, "typed", "done", "Complete: 50,000 items")
    assert await page.locator("#typed .answer").text_content() == "0123456789" * 2000


async def test_stop_and_start_again(router: Router, hosting: Hosting, open_page: OpenPage) -> None:
    """Stop ends the generator on the server; Start during a run replaces that run."""
    closed: asyncio.Queue[int] = asyncio.Queue()
    runs = 0

    @router.post("/stream")
    async def stream(request: Request) -> AsyncIterator[str]:
        nonlocal runs
        runs += 1
        number = runs
        try:
            yield f"run {number}"
            await asyncio.Event().wait()
        finally:
            closed.put_nowait(number)

    page = await open_page(await hosting(router))
    stop = page.locator("#typed .stop")
    await expect(stop).to_be_disabled()
    await start(page, "typed")
    await expect(page.locator("#typed .answer")).to_have_text("run 1")
    await start(page, "typed")
    assert await closed.get() == 1
    await expect(page.locator("#typed .answer")).to_have_text("run 2")
    await state(page, "typed", "busy")
    await stop.click()
    await state(page, "typed", "idle", "Stopped by you")
    assert await closed.get() == 2
    await expect(stop).to_be_disabled()
    await expect(page.locator("#typed .primary")).to_be_focused()


@pytest.mark.parametrize("format", ["json", "sse"])
async def test_wrong_settings_show_the_words_of_the_server(format: str, demo: str, open_page: OpenPage) -> None:
    """The same, whether the refusal is a line or, where JSON is asked for, JSON too."""
    page = await open_page(demo, expect_errors=True)
    await start(page, "typed", text="x" * 100_001, format=format)
    words = "The server answered: 400 text is a string of at most 100000 characters"
    await state(page, "typed", "failed", words)
    await start(page, "typed", text="x", delay="0")
    await state(page, "typed", "done")


async def test_a_refusal_is_not_drawn(router: Router, hosting: Hosting, open_page: OpenPage) -> None:
    """No axes, no figures, no rest of an earlier run: a plot shows streams."""
    refused = False

    @router.post("/stream")
    @router.get("/bulk")
    async def stream(request: Request) -> AsyncIterator[str]:
        if refused:
            raise errors.HTTPError(503, "later")
        yield "a"

    page = await open_page(await hosting(router), expect_errors=True)
    panels = {"typed": 1, "compare": 2, "bulk": 1}
    for panel in panels:
        await start(page, panel)
        await state(page, panel, "done")
    refused = True
    for panel, plots in panels.items():
        await start(page, panel)
        await state(page, panel, "failed", "The server answered: 503 ")
        for plot in range(plots):
            caption = page.locator(f"#{panel} figcaption").nth(plot)
            await expect(caption).to_have_text("Nothing to draw: no stream came.")
            assert {*(await figures(page, panel, plot)).values()} == {"–"}
            drawn = page.locator(f"#{panel} .plot").nth(plot).locator("path[d], text")
            assert await drawn.count() == 0
        await expect(page.locator(f"#{panel} [aria-busy=true]")).to_have_count(0)
    assert {*await page.locator("#bulk > .figures dd").all_text_contents()} == {"–"}
    refused = False
    await start(page, "typed")
    await state(page, "typed", "done")
    assert (await curve(page, "typed"))["ticks"] == 1


# -- numbers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("panel", "name", "typed", "says"),
    [
        ("typed", "delay", "10.5", "“Seconds each” takes a number from 0 to 10"),
        ("typed", "delay", "-1", "“Seconds each” takes a number from 0 to 10"),
        ("typed", "delay", "1e", "“Seconds each” takes a number from 0 to 10"),
        ("typed", "repeat", "0", "“Repeat” takes a whole number from 1 to 1,000"),
        ("typed", "repeat", "1.5", "“Repeat” takes a whole number from 1 to 1,000"),
        ("compare", "delay", "99", "“Seconds each” takes a number from 0 to 10"),
        ("events", "delay", "99", "“Seconds each” takes a number from 0 to 10"),
        ("bulk", "rows", "10000001", "“Rows” takes a whole number from 1 to 10,000,000"),
    ],
)
async def test_a_wrong_number_is_said_and_nothing_is_asked(
    panel: str, name: str, typed: str, says: str, demo: str, open_page: OpenPage
) -> None:
    page = await open_page(demo)
    field = page.locator(f"#{panel} [name={name}]")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    await field.fill("")
    await field.press_sequentially(typed)
    await page.click(f"#{panel} .primary")
    await state(page, panel, "failed", says)
    await expect(field).to_be_focused()
    await expect(field).to_have_attribute("aria-invalid", "true")
    await expect(page.locator(f"#{panel} .stop")).to_be_disabled()
    assert asked == []
    await field.fill("1")
    await expect(field).not_to_have_attribute("aria-invalid", "true")


async def test_a_wrong_number_is_said_in_the_language_of_the_page(demo: str, open_page: OpenPage) -> None:
    page = await open_page(demo)
    await start(page, "typed", repeat="0")
    await page.get_by_role("button", name="中文").click()
    await state(page, "typed", "failed", "“重复次数”应为 1 到 1,000 之间的整数")


async def test_a_wrong_number_ends_the_run_before_it(demo: str, open_page: OpenPage) -> None:
    """What the status line says is about what was asked for last."""
    page = await open_page(demo)
    await start(page, "typed", delay="10")
    await state(page, "typed", "busy", "Streaming")
    await start(page, "typed", delay="11")
    await state(page, "typed", "failed", "“Seconds each”")
    await expect(page.locator("#typed .answer")).to_have_attribute("aria-busy", "false")
    await expect(page.locator("#typed .stop")).to_be_disabled()


async def test_what_is_left_empty_says_its_default_and_sends_it(
    router: Router, hosting: Hosting, open_page: OpenPage
) -> None:
    asked: list[Any] = []

    @router.post("/stream")
    async def stream(request: Request) -> AsyncIterator[str]:
        asked.append(await request.json())
        yield "a"

    @router.get("/stream")
    @router.get("/bulk")
    async def by_query(request: Request) -> AsyncIterator[str]:
        asked.append(request.head.query)
        yield "a"

    page = await open_page(await hosting(router))
    fields = page.locator(".panel .field input")
    await expect(page.locator("#compare [name=delay]")).to_have_attribute("placeholder", "default 0.1")
    for index in range(await fields.count()):
        await fields.nth(index).fill("")
    shown = await fields.evaluate_all("(all) => all.map((each) => each.placeholder)")
    streams, channels = (TEXT, "0.5", "1", "0.1", "0.2"), ("news", "Hello, 世界", "1", "1", "20", "0.5")
    assert shown == [f"default {value}" for value in (*streams, *channels, "100,000")]
    for panel in ("typed", "compare", "events", "bulk"):
        await start(page, panel)
        await state(page, panel, "done")
    asked[1:3] = sorted(asked[1:3], key=lambda settings: settings["buffer"])  # sent at the same time
    assert asked == [
        {"text": TEXT, "delay": 0.5, "repeat": 1},
        {"delay": 0.1, "buffer": 0},
        {"delay": 0.1, "buffer": 1048576},
        "delay=0.2",
        "rows=100000",
    ]
    await page.get_by_role("button", name="中文").click()
    await expect(page.locator("#compare [name=delay]")).to_have_attribute("placeholder", "默认 0.1")


@pytest.mark.parametrize("format", FORMATS)
async def test_cut_in_mid_stream_is_shown(format: str, raw: Raw, open_page: OpenPage) -> None:
    """What came stays; and in no format does the end of the connection pass for the end of the answer."""
    cut = asyncio.Event()
    first = {"json": '["早"', "ndjson": '"早"\n', "sse": "data: 早\n\n", "text": "早"}[format].encode()

    async def stream(head: str, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\n" % FORMATS[format][1].encode())
        writer.write(b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n" % (len(first), first))
        await writer.drain()
        await cut.wait()

    page = await open_page(await raw({"POST /stream": stream}), expect_errors=True)
    await start(page, "typed", format=format)
    await expect(page.locator("#typed .answer")).to_have_text("早")
    cut.set()
    await state(page, "typed", "failed", "Cut in mid-stream")
    await expect(page.locator("#typed .answer")).to_have_text("早")
    assert (await figures(page, "typed"))["bytes"] == f"{len(first)} B"


@pytest.mark.parametrize(
    ("format", "told"),
    [
        ("ndjson", b'{"stream-error":{"status":503,"error":"No more"}}\n'),
        ("sse", b'event: stream-error\ndata: {"status":503,"error":"No more"}\n\n'),
    ],
)
async def test_failure_in_band_is_shown(format: str, told: bytes, raw: Raw, open_page: OpenPage) -> None:
    shown = asyncio.Event()

    async def stream(head: str, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\n" % FORMATS[format][1].encode())
        writer.write(b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n" % (len(told), told))
        await writer.drain()
        await shown.wait()

    page = await open_page(await raw({"POST /stream": stream}), expect_errors=True)
    await start(page, "typed", format=format)
    await state(page, "typed", "failed", "The server broke the stream off: No more (503)")
    shown.set()


@pytest.mark.parametrize("format", ["ndjson", "sse"])
async def test_failure_in_band_is_seen_before_the_cut(
    format: str, router: Router, hosting: Hosting, open_page: OpenPage
) -> None:
    """A page that paints learns of a cut before it is given the last bytes, and loses them: the server has to wait."""
    fail: asyncio.Queue[None] = asyncio.Queue()

    @router.post("/stream")
    async def stream(request: Request) -> AsyncIterator[str]:
        yield "早"
        await fail.get()
        raise RuntimeError("too late for a 500")

    page = await open_page(await hosting(router), expect_errors=True)
    for _ in range(5):
        await start(page, "typed", format=format)
        await state(page, "typed", "busy")
        await expect(page.locator("#typed .answer")).to_have_text("早")
        fail.put_nowait(None)
        await state(page, "typed", "failed", "The server broke the stream off: Internal Server Error (500)")


async def test_body_that_breaks_its_promise_is_shown(raw: Raw, open_page: OpenPage) -> None:
    async def html(head: str, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 2\r\n\r\nhi")

    page = await open_page(await raw({"POST /stream": html}))
    await start(page, "typed")
    await state(page, "typed", "failed", 'Not what its Content-Type promised: no parser for Content-Type "text/html"')


async def test_show_the_bytes(router: Router, hosting: Hosting, open_page: OpenPage) -> None:
    """Chunks of one byte: the half characters are visible, and the answer is whole all the same."""
    taken: asyncio.Queue[None] = asyncio.Queue()

    async def single_bytes() -> AsyncIterator[bytes]:
        for value in '"é"\r\n'.encode():
            yield bytes([value])
            await taken.get()

    @router.post("/stream")
    async def stream(request: Request) -> Stream:
        return Stream(single_bytes(), format="bytes", headers=[("Content-Type", "application/x-ndjson")])

    page = await open_page(await hosting(router))
    rows = page.locator("#bytes li")
    await expect(page.locator("#bytes")).to_be_hidden()
    await page.get_by_role("switch", name="Show the bytes").check()
    await start(page, "typed", format="ndjson")
    for count in range(1, 7):
        await expect(rows).to_have_count(count)
        taken.put_nowait(None)
    await state(page, "typed", "done", "Complete: 1 item, ")
    await expect(page.locator("#typed .answer")).to_have_text("é")
    cells = await rows.evaluate_all(
        "(rows) => rows.map((row) => [...row.children].slice(1).map((cell) => cell.textContent))"
    )
    assert cells == [["1\xa0B", shown] for shown in ('"', "\\xC3", "\\xA9", '"', "\\r", "\\n")]


async def test_list_of_bytes_is_bounded(demo: str, open_page: OpenPage) -> None:
    page = await open_page(demo)
    await start(page, "typed", text="abcdefghij" * 60, delay="0.002")
    await state(page, "typed", "done")
    chunks = int((await figures(page, "typed"))["chunks"])
    await expect(page.locator("#bytes li")).to_have_count(min(chunks, 200))


async def test_buffered_beside_flushed(demo: str, open_page: OpenPage) -> None:
    """While one side types, the other has nothing; then it has everything, in one lump. Both plots share their axes."""
    page = await open_page(demo)
    await start(page, "compare", delay="0.03")
    await page.wait_for_function("""() => {
      const [flushed, buffered] = [...document.querySelectorAll("#compare .answer")].map((each) => each.textContent);
      return flushed.length > 5 && buffered === "";
    }""")
    await state(page, "compare", "done", re.compile("First byte: flushed after .* buffered after"))
    for answer in await page.locator("#compare .answer").all():
        await expect(answer).to_have_text(TEXT)
    flushed, buffered = await figures(page, "compare", 0), await figures(page, "compare", 1)
    assert int(flushed["chunks"]) >= 3
    assert int(buffered["chunks"]) <= 2
    assert flushed["bytes"] == buffered["bytes"] == f"{len(TEXT.encode())} B"
    assert milliseconds(buffered["first-byte"]) > 0.03 * 1000 * (len(TEXT) - 1)
    assert milliseconds(buffered["first-byte"]) > milliseconds(flushed["first-byte"])
    axes = await page.locator("#compare .plot").evaluate_all(
        """(plots) => plots.map((plot) => [...plot.querySelectorAll("text:not([text-anchor=middle])")]
             .map((text) => [text.textContent, text.getAttribute("x"), text.getAttribute("y")].join()))"""
    )
    assert axes[0] == axes[1]
    assert len(axes[0]) >= 4
    assert (await curve(page, "compare", 0))["steps"] > (await curve(page, "compare", 1))["steps"]
    assert (await curve(page, "compare", 1))["gaps"] == 1, "the wait for the first byte is shaded"


async def test_one_side_failing_stops_the_other(router: Router, hosting: Hosting, open_page: OpenPage) -> None:
    closed = asyncio.Event()
    fail = asyncio.Event()

    @router.post("/stream")
    async def stream(request: Request) -> AsyncIterator[str]:
        buffered = (await request.json())["buffer"] > 0
        try:
            yield "a"
            await (fail if buffered else asyncio.Event()).wait()
            raise RuntimeError("the buffered side fails")
        finally:
            if not buffered:
                closed.set()

    page = await open_page(await hosting(router), expect_errors=True)
    await start(page, "compare")
    for answer in await page.locator("#compare .answer").all():
        await expect(answer).to_have_text("a")
    fail.set()
    await state(page, "compare", "failed", "Cut in mid-stream")
    await closed.wait()
    await expect(page.locator("#compare .answer[aria-busy=true]")).to_have_count(0)


@pytest.mark.parametrize("format", ["json", "sse"])
async def test_bulk_counts_rows(format: str, demo: str, open_page: OpenPage) -> None:
    page = await open_page(demo)
    await start(page, "bulk", rows="20000", format=format)
    await state(page, "bulk", "done")
    show = page.locator("#bulk > .figures dd")
    rows, rate, megabytes, elapsed = (text.replace(",", "") for text in await show.all_text_contents())
    assert rows == "20000"
    assert float(rate) > 1000
    assert float(megabytes) > 0
    assert float(rate) == pytest.approx(20000 / milliseconds(elapsed) * 1000, rel=0.2)
    assert await page.locator("#bulk progress").evaluate("(bar) => bar.value") == 1
    drawn = await curve(page, "bulk")
    assert drawn["steps"] >= 1
    assert drawn["height"] > 50
    shown = await figures(page, "bulk")
    assert shown["bytes"].endswith(" kB") or shown["bytes"].endswith(" MB")


async def test_bulk_shows_progress_and_stops(router: Router, hosting: Hosting, open_page: OpenPage) -> None:
    closed = asyncio.Event()

    @router.get("/bulk")
    async def bulk(request: Request) -> AsyncIterator[dict[str, int]]:
        try:
            for row in range(250):
                yield {"row": row}
            await asyncio.Event().wait()
        finally:
            closed.set()

    page = await open_page(await hosting(router))
    await start(page, "bulk", rows="1000")
    await page.wait_for_function("() => document.querySelector('#bulk progress').value === 0.25")
    await page.click("#bulk .stop")
    await state(page, "bulk", "idle", "Stopped by you")
    await closed.wait()
    assert await page.locator("#bulk > .figures dd").first.text_content() == "250"


async def test_million_rows_do_not_freeze_the_page(demo: str, open_page: OpenPage) -> None:
    """Frames go on being painted, and Stop is heard, while rows arrive as fast as they can be read."""
    page = await open_page(demo)
    await page.evaluate("""() => {
      let last = performance.now();
      window.worst = 0;
      requestAnimationFrame(function frame() {
        const now = performance.now();
        window.worst = Math.max(window.worst, now - last);
        last = now;
        requestAnimationFrame(frame);
      });
    }""")
    await start(page, "bulk", rows="1000000")
    await page.wait_for_function("() => document.querySelector('#bulk progress').value >= 0.3")
    await page.click("#bulk .stop")
    await state(page, "bulk", "idle", "Stopped by you")
    assert await page.evaluate("() => window.worst") < 1000
    assert await page.locator("#bulk .plot path.steps").evaluate("(path) => path.getAttribute('d').length") < 100_000
