"""What pages of docs/ say of browsers, and the scripts that they show for them."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import Page

from rawstream import Request, Response, Router, Stream

from .conftest import Hosting, OpenPage
from .test_tabs import MANY, Clock, are_open

pytestmark = pytest.mark.asyncio(loop_scope="session")

DOCS = Path(__file__).parents[2] / "docs"


def scripts(page: Path) -> list[str]:
    return re.findall(r"^```js\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


IN_PAGE, IN_WORKER = scripts(DOCS / "explanation" / "six-connections.md")
IN_TUTORIAL = [script for page in sorted((DOCS / "tutorial").glob("*.md")) for script in scripts(page)]


async def test_behind_six_streams_all_else_waits_without_an_error(hosting: Hosting, open_page: OpenPage) -> None:
    clock = Clock(MANY + "let answered = false, errors = 0;")
    url = await hosting(clock.router)
    page = await open_page(url)
    await page.evaluate("open(6)")
    await are_open(page, 6)
    await page.evaluate("""() => {
        fetch("/").then(() => { answered = true; });
        sources.push(new EventSource("/clock"));
        sources[6].onerror = () => errors++;
    }""")
    # By another name it is another host, with six connections of its own: it answers after the others were asked.
    await page.evaluate("url => fetch(url, { mode: 'no-cors' })", url.replace("127.0.0.1", "localhost"))
    assert await page.evaluate("[answered, errors, sources[6].readyState]") == [False, 0, 0]
    await page.evaluate("sources[0].close()")
    await page.wait_for_function("answered")
    await are_open(page, 6)  # the seventh is among them
    assert await page.evaluate("[errors, sources[6].readyState]") == [0, 1]


async def test_a_shared_worker_reads_for_all_tabs_and_ends_with_the_last(hosting: Hosting, open_page: OpenPage) -> None:
    clock = Clock(f"const times = []; const show = time => times.push(time);\n{IN_PAGE}")

    async def worker(request: Request) -> Response:
        return Response(200, [("Content-Type", "text/javascript")], IN_WORKER.encode())

    async def hears(page: Page, time: str) -> None:
        """The worker does not tell that it knows a new tab: so the time is told until the tab has it."""
        while time not in await page.evaluate("times"):
            clock.tick(time)

    clock.router.get("/worker.js")(worker)
    url = await hosting(clock.router)
    first = await open_page(url)
    await clock.reach(1)
    others = [await first.context.new_page() for _ in range(7)]
    for page in others:
        await page.goto(url)
    for page in [first, *others]:
        await hears(page, "noon")
    await first.close()
    for page in others:
        await hears(page, "one")
    assert (clock.opened, clock.closed) == (1, 0)
    for page in others:
        await page.close()
    await clock.reach(1, 1)


@pytest.mark.parametrize("script", sorted(set(IN_TUTORIAL)))
async def test_the_tutorial_s_line_reads_events(hosting: Hosting, open_page: OpenPage, script: str) -> None:
    async def blank(request: Request) -> Response:
        return Response(200, [("Content-Type", "text/html")], b"<!doctype html><link rel=icon href=data:,>")

    async def words() -> AsyncIterator[str]:
        yield "word"

    async def events(request: Request) -> Stream:
        return Stream(words(), format="sse")

    router = Router()
    router.get("/")(blank)
    router.get("/events")(events)
    page = await open_page(await hosting(router))
    async with page.expect_console_message() as told:
        await page.evaluate(f"() => {{ {script} }}")
    assert (await told.value).text == "word"
