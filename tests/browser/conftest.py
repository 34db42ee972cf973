"""The real Chromium, the real demo server, and servers that misbehave on purpose.

All of it lives in one event loop, the session's: Playwright's async API, the servers that a test starts for itself,
and the tests (each module marks itself with loop_scope="session"). The sync API would not do: it keeps a loop running
in the main thread, and every async test of the project would fail after it.

Nothing here sleeps. A test waits for what the page shows, or for what the page tells through a function of the test's.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
from playwright.async_api import Browser, ConsoleMessage, Error, Page, async_playwright, expect
from support import absent

from rawstream import Hub, Request, Response, Router, serve

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "demo.html"
# No sandbox: in a container we are root. The others keep the browser from asking the network for anything of its own.
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run"]
FLAGS += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
# For each window Chromium makes ready two more pages, which are to unfold below the address bar when somebody types
# there: a third of the processor time of all tests. The last --disable-features counts, so Playwright's are here again.
FLAGS += [
    "--disable-features=WebUIOmniboxPopup,WebUIOmniboxAimPopup,PreloadTopChromeWebUI,"
    "AvoidUnnecessaryBeforeUnloadCheckSync,DestroyProfileOnBrowserClose,HttpsUpgrades,HttpsFirstBalancedModeAutoEnable,"
    "LensOverlay,MediaRouter,PaintHolding,ThirdPartyStoragePartitioning,AvoidCorsURLLoaderRestartOnRedirect,"
    "OptimizationHints,NetworkTimeServiceQuerying,AimEnabled,PreconnectToSearch"
]
REBOUND = "rebound.example"  # a stranger's name that leads here
FLAGS += [f"--host-resolver-rules=MAP {REBOUND} 127.0.0.1"]

OpenPage = Callable[..., Awaitable[Page]]
Hosting = Callable[..., Awaitable[str]]
Reply = Callable[[str, asyncio.StreamWriter], Awaitable[None]]
Raw = Callable[[dict[str, Reply]], Awaitable[str]]
Lines = Callable[[str], Awaitable[tuple["Line", str]]]


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Once is enough here: what is tested is the page, and both loops have their tests elsewhere."""
    return {"asyncio": asyncio.new_event_loop}


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    """Debian's Chromium. On a build machine its absence is a failure, elsewhere a reason to skip."""
    chromium = shutil.which("chromium")
    if chromium is None:
        absent("chromium is not installed: `make system-packages` installs it")
    expect.set_options(timeout=60_000)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield browser
        await browser.close()


@pytest.fixture(scope="module")
def demo() -> Iterator[str]:
    """The address of `python -m rawstream --port 0`, a process of its own, as a user starts it."""
    command = [sys.executable, "-m", "rawstream", "--port", "0"]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        line = process.stderr.readline()  # rawstream 0.1.0 listening on http://127.0.0.1:43210 (asyncio)
        try:
            assert " listening on " in line, line + process.stderr.read()
            yield line.partition(" listening on ")[2].split()[0]
        finally:
            process.terminate()
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                raise


@pytest.fixture
def router() -> Router:
    """A router that serves the page; a test adds the stream it wants to see."""
    router = Router()

    @router.get("/")
    async def page(request: Request) -> Response:
        return Response(200, [("Content-Type", "text/html; charset=utf-8")], PAGE.read_bytes())

    @router.get("/healthz")
    async def healthz(request: Request) -> Response:
        return Response.text("ok\n")

    return router


@pytest_asyncio.fixture(loop_scope="session")
async def hosting() -> AsyncIterator[Hosting]:
    """`await hosting(handler)` serves it until the test ends, and returns its address. Options are those of `serve`."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(handler: Any, **options: Any) -> str:
            server = await stack.enter_async_context(serve(handler, port=0, **options))
            stack.callback(server.close)
            host, port = server.addresses[0]
            return f"http://{host}:{port}"

        yield start


@pytest_asyncio.fixture(loop_scope="session")
async def raw() -> AsyncIterator[Raw]:
    """`await raw({"GET /clock": reply})`: a bare socket server, for bytes that rawstream would never send.

    Each request gets `await reply(head, writer)`, and then its connection is closed. The page itself is served too.
    """
    servers = []

    async def start(replies: dict[str, Reply]) -> str:
        async def page(head: str, writer: asyncio.StreamWriter) -> None:
            body = PAGE.read_bytes()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

        async def healthz(head: str, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")

        async def none(head: str, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                what = head.partition(" HTTP/")[0].partition("?")[0]
                await ({"GET /": page, "GET /healthz": healthz} | replies).get(what, none)(head, writer)
                await writer.drain()
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

        server = await asyncio.start_server(connected, "127.0.0.1", 0)
        servers.append(server)
        host, port = server.sockets[0].getsockname()
        return f"http://{host}:{port}"

    yield start
    for server in servers:
        server.close()
        await server.wait_closed()


class Line:
    """A network's way to a server, of which no more is left at times than a port that is listened to."""

    def __init__(self, server: str) -> None:
        self._port = urlsplit(server).port
        self._ends: set[asyncio.StreamWriter] = set()

    async def join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry what comes from either side to the other."""
        try:
            back, there = await asyncio.open_connection("127.0.0.1", self._port)
        except OSError:
            writer.close()
            return
        async with asyncio.TaskGroup() as both:
            both.create_task(self._carry(reader, there))
            both.create_task(self._carry(back, writer))

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._ends.add(writer)
        try:
            with contextlib.suppress(ConnectionError):
                while data := await reader.read(65536):
                    writer.write(data)
                    await writer.drain()
        finally:
            self._ends.discard(writer)
            writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    def cut(self) -> None:
        """End all connections, with a reset."""
        for writer in self._ends:
            writer.transport.abort()


@pytest_asyncio.fixture(loop_scope="session")
async def line() -> AsyncIterator[Lines]:
    """`await line(address)`: a line to this server, and the address at which it begins."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(server: str) -> tuple[Line, str]:
            line = Line(server)
            listening = await stack.enter_async_context(await asyncio.start_server(line.join, "127.0.0.1", 0))
            stack.callback(line.cut)
            host, port = listening.sockets[0].getsockname()
            return line, f"http://{host}:{port}"

        yield start


@pytest_asyncio.fixture(loop_scope="session")
async def hub() -> AsyncIterator[Hub]:
    """Channels in memory. It is to be asked for before `hosting`, so that it outlives the server."""
    async with Hub() as hub:
        yield hub


@pytest_asyncio.fixture(loop_scope="session")
async def open_page(browser: Browser, hosting: Hosting, raw: Raw) -> AsyncIterator[OpenPage]:
    """`await open_page(address)`: a page in a context of its own, in English unless `locale` says otherwise.

    What a page writes to the console as an error, or throws, fails the test; `expect_errors=True` is for tests of
    failures, where Chromium itself reports what it could not load. (Asks for the servers so that it ends before them.)
    """
    problems: list[str] = []
    contexts = []

    async def start(url: str, *, expect_errors: bool = False, **options: Any) -> Page:
        context = await browser.new_context(**({"locale": "en-US", "color_scheme": "light"} | options))
        contexts.append(context)
        context.set_default_timeout(60_000)
        page = await context.new_page()

        def console(message: ConsoleMessage) -> None:
            if message.type in ("error", "warning") and not expect_errors:
                problems.append(message.text)

        def thrown(error: Error) -> None:
            problems.append(str(error))

        page.on("console", console)
        page.on("pageerror", thrown)
        await page.goto(url)
        return page

    yield start
    for context in contexts:
        await context.close()
    assert problems == []
