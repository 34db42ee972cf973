"""gzip in Chromium: fetch and EventSource both see each event while the stream is still open."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from rawstream import Request, Router, Stream

from .conftest import Hosting, OpenPage

pytestmark = pytest.mark.asyncio(loop_scope="session")

# What the page tells: first the coding that it was sent, then each piece of text as it comes.
FETCH = """async () => {
  const response = await fetch("/events", { headers: { Accept: "text/event-stream" } });
  await tell(response.headers.get("content-encoding"));
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  for (let piece; !(piece = await reader.read()).done; ) await tell(piece.value);
}"""
EVENTS = """() => new Promise((resolve) => {
  const events = new EventSource("/events");
  events.onopen = () => tell("open");
  events.onmessage = (event) => tell(event.data);
  events.addEventListener("stream-end", () => { events.close(); resolve(); });
})"""


@pytest.fixture
def seen(router: Router) -> asyncio.Event:
    """Set it, and /events goes on: it sends the next event only when the page has told of the last."""
    seen = asyncio.Event()

    async def items() -> AsyncIterator[str]:
        for number in range(5):
            yield f"这是 {number}"
            await seen.wait()
            seen.clear()

    @router.get("/events")
    async def events(request: Request) -> Stream:
        assert "gzip" in request.headers["accept-encoding"]
        return Stream(items(), gzip=True)

    return seen


async def test_fetch_reads_each_event_while_the_stream_is_open(
    router: Router, seen: asyncio.Event, hosting: Hosting, open_page: OpenPage
) -> None:
    told: asyncio.Queue[str] = asyncio.Queue()
    page = await open_page(await hosting(router))
    await page.expose_function("tell", told.put_nowait)
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        group.create_task(page.evaluate(FETCH))
        assert await told.get() == "gzip"
        for number in range(5):
            assert await told.get() == f"data: 这是 {number}\n\n"
            seen.set()
        assert await told.get() == "event: stream-end\ndata: {}\nid: stream-end\n\n"
    assert told.empty()


async def test_eventsource_gets_each_event_while_the_stream_is_open(
    router: Router, seen: asyncio.Event, hosting: Hosting, open_page: OpenPage
) -> None:
    told: asyncio.Queue[str] = asyncio.Queue()
    page = await open_page(await hosting(router))
    await page.expose_function("tell", told.put_nowait)
    async with asyncio.timeout(20), page.expect_response("**/events") as answer, asyncio.TaskGroup() as group:
        group.create_task(page.evaluate(EVENTS))
        assert await told.get() == "open"
        for number in range(5):
            assert await told.get() == f"这是 {number}"
            seen.set()
    assert (await (await answer.value).all_headers())["content-encoding"] == "gzip"
    assert told.empty()
