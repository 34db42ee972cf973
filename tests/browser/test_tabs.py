"""Many tabs: what a browser makes of more streams than it has connections for, and the ways out of docs/proxies.md."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import trustme
from playwright.async_api import Page
from support import PATIENCE
from test_proxies import nginx, shown, with_certificate

from rawstream import Event, Request, Response, Router, Stream

from .conftest import Hosting, OpenPage

pytestmark = pytest.mark.asyncio(loop_scope="session")


class Clock:
    """A page, the streams that it opens, and what becomes of them."""

    def __init__(self, script: str) -> None:
        self.opened = self.closed = 0
        self._changed = asyncio.Event()
        self.router = Router()
        self.router.get("/")(self.page)
        self.router.get("/clock")(self.clock)
        self._page = f"<!doctype html><link rel=icon href=data:,><script>{script}</script>".encode()
        self._ticks: list[asyncio.Queue[str]] = []

    async def reach(self, opened: int, closed: int = 0) -> None:
        """Wait until so many streams were opened and closed, in whatever order."""
        async with asyncio.timeout(PATIENCE):
            while (self.opened, self.closed) != (opened, closed):
                self._changed.clear()
                await self._changed.wait()

    def tick(self, time: str) -> None:
        """Tell all readers the time."""
        for ticks in self._ticks:
            ticks.put_nowait(time)

    async def page(self, request: Request) -> Response:
        return Response(200, [("Content-Type", "text/html; charset=utf-8")], self._page)

    async def clock(self, request: Request) -> Stream:
        return Stream(self._times(), format="sse", heartbeat=None)

    async def _times(self) -> AsyncIterator[Event | str]:
        ticks = asyncio.Queue[str]()
        self._ticks.append(ticks)
        self.opened += 1
        self._changed.set()
        try:
            yield Event(None, comment="open")
            while True:
                yield await ticks.get()
        finally:
            self._ticks.remove(ticks)
            self.closed += 1
            self._changed.set()


MANY = """
    const open = count => { sources = Array.from({ length: count }, () => new EventSource("/clock")); };
    const isOpen = source => source.readyState === EventSource.OPEN;
    let sources;
"""


async def are_open(page: Page, count: int) -> None:
    """Wait until the page has so many streams that are open."""
    await page.wait_for_function(f"sources.filter(isOpen).length === {count}")


async def test_a_seventh_stream_waits_for_one_of_six_to_end(hosting: Hosting, open_page: OpenPage) -> None:
    """the seventh tab hangs (six connections a host in HTTP/1.1)."""
    clock = Clock(MANY)
    url = await hosting(clock.router)
    page = await open_page(url)
    await page.evaluate("open(7)")
    await clock.reach(6)
    await are_open(page, 6)
    # By another name the server is another host, with six connections of its own. So what is asked for after the
    # seventh stream is answered before it.
    await page.evaluate("url => fetch(url, { mode: 'no-cors' })", url.replace("127.0.0.1", "localhost"))
    await are_open(page, 6)
    assert clock.opened == 6
    await page.evaluate("sources.find(isOpen).close()")
    await clock.reach(7, 1)
    await are_open(page, 6)


async def test_with_http_2_at_the_proxy_no_stream_waits(hosting: Hosting, open_page: OpenPage, tmp_path: Path) -> None:
    """the seventh tab hangs (six connections a host in HTTP/1.1). Documented, with the ways out: HTTP/2 at the proxy.

    Without a comment, nginx would show the browser no head of the streams, which have no heartbeat here.
    """
    clock = Clock(MANY)
    port = urlsplit(await hosting(clock.router)).port
    assert port is not None
    with nginx(port, tmp_path, with_certificate(trustme.CA(), tmp_path)) as front:
        page = await open_page(f"https://127.0.0.1:{front}/", ignore_https_errors=True)
        assert await page.evaluate("performance.getEntriesByType('navigation')[0].nextHopProtocol") == "h2"
        await page.evaluate("open(8)")
        await clock.reach(8)
        await are_open(page, 8)
        await page.evaluate("sources.find(isOpen).close()")
        await clock.reach(8, 1)
        await page.close()
        await clock.reach(8, 8)


async def test_one_tab_can_read_for_all(hosting: Hosting, open_page: OpenPage) -> None:
    """the seventh tab hangs (six connections a host in HTTP/1.1). Documented: one tab sharing by BroadcastChannel."""
    [script] = shown("js")
    clock = Clock(f"const times = []; const show = time => times.push(time);\n{script}")
    url = await hosting(clock.router)
    first = await open_page(url)
    await clock.reach(1)
    others = [await first.context.new_page() for _ in range(7)]
    for page in others:
        await page.goto(url)
    clock.tick("noon")
    for page in [first, *others]:
        await page.wait_for_function("times.join() === 'noon'")
    assert (clock.opened, clock.closed) == (1, 0)
    await first.close()
    await clock.reach(2, 1)
    clock.tick("one")
    for page in others:
        await page.wait_for_function("times.join() === 'noon,one'")
