"""The long job of the page: it works on whoever watches, and each who comes sees where it is."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Page, expect
from support import PATIENCE

from rawstream import Event, Hub, Request, Router
from rawstream.channels.http import add_jobs
from rawstream.demo import build

from .conftest import PAGE, Hosting, Lines, OpenPage

pytestmark = pytest.mark.asyncio(loop_scope="session")


class Work:
    """A job of ten steps, each of which waits for the test; and what becomes of it."""

    def __init__(self) -> None:
        self.steps: asyncio.Queue[Exception | None] = asyncio.Queue()
        self.begun = 0
        self.closed = asyncio.Event()

    async def start(self, request: Request) -> AsyncIterator[Event]:
        return self.run()

    async def run(self) -> AsyncIterator[Event]:
        self.begun += 1
        try:
            for step in range(1, 11):
                if (failure := await self.steps.get()) is not None:
                    raise failure
                yield Event({"step": step, "of": 10, "percent": 10 * step}, event="progress")
            yield Event({"steps": 10}, event="result")
        finally:
            self.closed.set()

    def go_on(self, steps: int) -> None:
        for _ in range(steps):
            self.steps.put_nowait(None)


@pytest.fixture
def work(hub: Hub, router: Router) -> Work:
    """What `router` starts as a job."""
    work = Work()
    add_jobs(router, hub, work.start)
    return work


async def start(page: Page) -> None:
    await page.click("#job .primary")
    await expect(page.locator("#job .status")).to_contain_text("at work on the server")


async def is_at(page: Page, step: int) -> None:
    await expect(page.locator("#job [data-figure=step]")).to_have_text(f"{step} / 10")
    await expect(page.locator("#job [data-figure=percent]")).to_have_text(f"{10 * step}\xa0%")
    await expect(page.locator("#job progress")).to_have_js_property("value", step / 10)
    await expect(page.locator("#job [data-figure=missing]")).to_have_text("0")


async def ended(page: Page, state: str, says: str) -> None:
    await expect(page.locator("#job .status")).to_contain_text(says)
    await expect(page.locator("#job .status")).to_have_attribute("data-state", state)
    await expect(page.locator("#job .stop")).to_be_disabled()


async def test_progress_to_the_end(work: Work, router: Router, hosting: Hosting, open_page: OpenPage) -> None:
    page = await open_page(await hosting(router))
    await start(page)
    work.go_on(3)
    await is_at(page, 3)
    work.go_on(7)
    await ended(page, "done", "Complete: 10 steps")
    await is_at(page, 10)
    await expect(page.locator("#job [data-figure=received]")).to_have_text("12")  # the result and the end, too


async def test_the_job_of_the_demo(demo: str, open_page: OpenPage) -> None:
    page = await open_page(demo)
    await page.fill("#job [name=steps]", "5")
    await page.fill("#job [name=delay]", "0.01")
    await page.click("#job .primary")
    await ended(page, "done", "Complete: 5 steps")


async def test_reloaded_in_the_middle_it_goes_on(
    work: Work, router: Router, hosting: Hosting, open_page: OpenPage
) -> None:
    """Nothing is begun again: its id is in the address."""
    page = await open_page(await hosting(router))
    await start(page)
    work.go_on(4)
    await is_at(page, 4)
    assert re.search(r"#job=[0-9a-f]+$", page.url)
    await page.reload()
    await is_at(page, 4)
    await page.goto("about:blank")
    work.go_on(2)
    await page.go_back()
    await is_at(page, 6)
    work.go_on(4)
    await ended(page, "done", "Complete: 10 steps")
    assert work.begun == 1


async def test_a_second_tab_sees_the_same(work: Work, router: Router, hosting: Hosting, open_page: OpenPage) -> None:
    first = await open_page(await hosting(router))
    await start(first)
    work.go_on(2)
    await is_at(first, 2)
    async with first.context.expect_page() as opened:
        await first.get_by_role("link", name="Watch this job in a second tab").click()
    second = await opened.value
    for page in (first, second):
        await is_at(page, 2)
    work.go_on(1)
    for page in (first, second):
        await is_at(page, 3)
    await second.get_by_role("button", name="Stop").and_(second.locator("#job .stop")).click()
    for page in (first, second):
        await ended(page, "idle", "Stopped at step 3 of 10")
    assert work.begun == 1


async def test_stop_ends_the_generator(work: Work, router: Router, hosting: Hosting, open_page: OpenPage) -> None:
    page = await open_page(await hosting(router))
    await start(page)
    work.go_on(1)
    await is_at(page, 1)
    await page.click("#job .stop")
    await ended(page, "idle", "Stopped at step 1 of 10")
    await expect(page.locator("#job .primary")).to_be_focused()
    async with asyncio.timeout(PATIENCE):
        await work.closed.wait()
    await page.reload()
    await ended(page, "idle", "Stopped at step 1 of 10")


async def test_an_error_is_shown_to_who_comes_late_too(
    work: Work, router: Router, hosting: Hosting, open_page: OpenPage, caplog: pytest.LogCaptureFixture
) -> None:
    page = await open_page(await hosting(router))
    await start(page)
    work.go_on(2)
    work.steps.put_nowait(OSError("no space left"))
    await ended(page, "failed", "The server broke the stream off")
    await page.reload()
    await ended(page, "failed", "The server broke the stream off")
    await is_at(page, 2)
    assert work.begun == 1
    caplog.clear()


async def test_after_the_end_nobody_asks_again(
    work: Work, router: Router, hosting: Hosting, open_page: OpenPage
) -> None:
    """The page closes; and a page that does not is told 204, which tells its EventSource to stay away."""
    page = await open_page(await hosting(router))
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if "/jobs/" in request.url else None)
    await start(page)
    work.go_on(10)
    await ended(page, "done", "Complete")
    assert len(asked) == 1
    last = await page.evaluate("""async () => {
      const source = new EventSource(`/jobs/${location.hash.slice(5)}`);
      let last = "";
      source.addEventListener("stream-end", (event) => { last = event.lastEventId; });
      await new Promise((resolve) => source.addEventListener("error", () => {
        if (source.readyState === EventSource.CLOSED) resolve();
      }));
      return last;
    }""")
    assert last.endswith("-12")
    assert len(asked) == 3, "the first time, and the one that is answered 204"


async def test_the_connection_lost_the_browser_goes_on(
    work: Work, router: Router, hosting: Hosting, line: Lines, open_page: OpenPage
) -> None:
    """Also when a network that is gone for a while keeps it from the server."""
    network, url = await line(await hosting(router))
    page = await open_page(url, expect_errors=True)
    await start(page)
    work.go_on(2)
    await is_at(page, 2)
    await page.context.set_offline(True)
    network.cut()
    await expect(page.locator("#job .status")).to_contain_text("reconnects by itself")
    work.go_on(5)
    await page.context.set_offline(False)
    await is_at(page, 7)
    await expect(page.locator("#job [data-figure=received]")).to_have_text("7")
    await expect(page.locator("#job [data-figure=reconnects]")).to_have_text("1")


async def test_a_job_that_is_not_there_any_more(demo: str, open_page: OpenPage) -> None:
    page = await open_page(f"{demo}#job=gone", expect_errors=True)
    await ended(page, "failed", "The server answered: 404 there is no run gone")


async def test_starting_again_leaves_the_first(
    work: Work, router: Router, hosting: Hosting, open_page: OpenPage
) -> None:
    """Another job, another address; back in the history is the first, and before it none."""
    page = await open_page(await hosting(router))
    await start(page)
    first = page.url
    await page.click("#job .primary")
    await page.wait_for_function("(first) => location.href !== first", arg=first)
    assert work.begun == 2
    await page.go_back()
    assert page.url == first
    await expect(page.locator("#job .status")).to_contain_text("at work on the server")
    await page.go_back()
    await expect(page.locator("#job .status")).to_have_text("Ready")
    await expect(page.locator("#job .stop")).to_be_disabled()


async def test_from_disk(demo: str, open_page: OpenPage) -> None:
    """With the origin "null": preflights for POST and DELETE, and the id in the address of a file."""
    page = await open_page(f"{PAGE.as_uri()}?server={demo}")
    await start(page)
    await page.reload()
    await page.click("#job .stop")
    await ended(page, "idle", "Stopped at step")


async def test_its_settings_are_checked(demo: str, open_page: OpenPage) -> None:
    page = await open_page(demo)
    await page.fill("#job [name=steps]", "1001")
    await page.click("#job .primary")
    await expect(page.locator("#job .status")).to_have_text("“Steps” takes a whole number from 1 to 1,000")


async def test_without_the_token_it_is_neither_started_nor_stopped(
    hub: Hub, hosting: Hosting, open_page: OpenPage
) -> None:
    page = await open_page(await hosting(build(hub, publish_token="p")), expect_errors=True)
    await page.click("#job .primary")
    await expect(page.locator("#job .status")).to_contain_text("The server answered: 401 this needs a token")
    await page.get_by_label("Token to publish").fill("p")
    await page.get_by_role("button", name="Use").click()
    await start(page)
    await page.reload()  # the token is forgotten
    await page.click("#job .stop")
    await expect(page.locator("#job .status")).to_contain_text("The server answered: 401")
    await expect(page.locator("#job .stop")).to_be_enabled()


async def test_progress_is_named_and_silent(work: Work, router: Router, hosting: Hosting, open_page: OpenPage) -> None:
    page = await open_page(await hosting(router))
    await expect(page.get_by_role("progressbar", name="Progress of the job")).to_be_hidden()
    await start(page)
    await expect(page.get_by_role("progressbar", name="Progress of the job")).to_be_visible()
    await page.evaluate("""() => {
      window.said = [];
      const status = document.querySelector("#job .status");
      new MutationObserver(() => said.push(status.textContent)).observe(status, { childList: true, subtree: true });
    }""")
    work.go_on(10)
    await ended(page, "done", "Complete")
    assert len(await page.evaluate("() => said")) == 1
