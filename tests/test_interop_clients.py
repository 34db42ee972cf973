"""Our server, read by the clients that people have: curl, httpx, aiohttp, Node's fetch, eventsource, OpenAI's SDK.

Each client is an async generator of the body's decoded pieces, which raises Cut when the client says that the body
broke off, and whose aclose() leaves the stream as a user of that client would. Chromium's tests are in tests/browser.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import subprocess
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import pytest
from support import Failures, Served, Serving, Steps, absent

from rawstream import Event, Request, Stream, Timeouts

pytestmark = pytest.mark.either_loop  # each is tested on one of our loops: theirs is what matters

SSE = "text/event-stream"


class Cut(Exception):
    """A client says that the body did not come to its end."""


def program(name: str) -> str:
    """Where this program is. On a build machine its absence is a failure, elsewhere a reason to skip."""
    return shutil.which(name) or absent(f"{name} is not installed: `make system-packages` installs it")


# -- the clients -------------------------------------------------------------------------------------------------------

Client = Callable[[str, str], AsyncGenerator[bytes]]
"""What reads a URL, and accepts this."""


async def _printed(
    command: Sequence[str], cut: int, leave: Callable[[asyncio.subprocess.Process], None]
) -> AsyncGenerator[bytes]:
    """What a command prints, as it comes; status `cut` says that the body broke off."""
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        while piece := await process.stdout.read(65536):
            yield piece
        status = await process.wait()
        if status == cut:
            raise Cut
        assert status == 0
    finally:
        leave(process)
        await process.wait()
        process.stdin.close()


def _terminate(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.terminate()


async def read_by_curl(url: str, accept: str) -> AsyncGenerator[bytes]:
    command = [program("curl"), "-sN", "--noproxy", "*", "--compressed", "-H", f"Accept: {accept}", url]
    partial_file = 18
    async with contextlib.aclosing(_printed(command, partial_file, _terminate)) as pieces:
        async for piece in pieces:
            yield piece


FETCH = """
const [url, accept] = process.argv.slice(1);
const abort = new AbortController();
process.stdin.on("end", () => abort.abort()).resume().unref();
try {
    const { body } = await fetch(url, { headers: { accept }, signal: abort.signal });
    for await (const piece of body) {
        process.stdout.write(piece);
    }
} catch (error) {
    process.exitCode = error.name === "AbortError" ? 0 : 18;
}
"""


async def read_by_node(url: str, accept: str) -> AsyncGenerator[bytes]:
    def leave(process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None
        process.stdin.close()

    command = [program("node"), "--input-type=module", "--eval", FETCH, url, accept]
    async with contextlib.aclosing(_printed(command, 18, leave)) as pieces:
        async for piece in pieces:
            yield piece


async def read_by_httpx(url: str, accept: str) -> AsyncGenerator[bytes]:
    async with (
        httpx.AsyncClient(trust_env=False, timeout=None) as client,
        client.stream("GET", url, headers={"Accept": accept}) as response,
    ):
        try:
            async for piece in response.aiter_bytes():
                yield piece
        except httpx.RemoteProtocolError as exc:
            raise Cut from exc


async def read_by_aiohttp(url: str, accept: str) -> AsyncGenerator[bytes]:
    async with aiohttp.ClientSession() as session, session.get(url, headers={"Accept": accept}) as response:
        try:
            async for piece in response.content.iter_any():
                yield piece
        except aiohttp.ClientPayloadError as exc:
            raise Cut from exc


CLIENTS: dict[str, Client] = {
    "curl": read_by_curl,
    "node": read_by_node,
    "httpx": read_by_httpx,
    "aiohttp": read_by_aiohttp,
}

every_client = pytest.mark.parametrize("client", CLIENTS.values(), ids=CLIENTS)


class Reading:
    """What a client reads, of which exactly this or that is expected."""

    def __init__(self, pieces: AsyncGenerator[bytes]) -> None:
        self._pieces = pieces
        self._held = b""

    async def expect(self, expected: bytes) -> None:
        """Read these bytes."""
        while len(self._held) < len(expected) and expected.startswith(self._held):
            self._held += await anext(self._pieces)
        got, self._held = self._held[: len(expected)], self._held[len(expected) :]
        assert got == expected

    async def end(self) -> None:
        """There is no more, and nothing broke off."""
        assert self._held == b""
        assert [piece async for piece in self._pieces] == []

    async def cut(self) -> None:
        """There is no more, since it broke off."""
        with pytest.raises(Cut):
            await self.end()


@contextlib.asynccontextmanager
async def reading(client: Client, served: Served, accept: str) -> AsyncIterator[Reading]:
    async with contextlib.aclosing(client(url_of(served), accept)) as pieces:
        yield Reading(pieces)


def url_of(served: Served, path: str = "/") -> str:
    host, port = served.server.addresses[0]
    return f"http://{host}:{port}{path}"


# -- what they read ----------------------------------------------------------------------------------------------------

TEXTS = ["这是", "two\nlines"]

ON_THE_WIRE = {
    "application/json": ['["这是"', ',"two\\nlines"', "]"],
    "application/x-ndjson": ['"这是"\n', '"two\\nlines"\n', ""],
    SSE: [
        "data: 这是\nid: 1\n\n",
        "data: two\ndata: lines\nid: 2\n\n",
        "event: stream-end\ndata: {}\nid: stream-end\n\n",
    ],
    "text/plain": ["这是", "two\nlines", ""],
}
"""What each item is in each format, and what its end is."""


class Paced:
    """A handler whose items come when the ones before were seen; it then ends, or fails."""

    def __init__(self, failure: Exception | None = None, **options: Any) -> None:
        self.steps = Steps()
        self._seen = asyncio.Event()
        self._failure, self._options = failure, options

    def seen(self) -> None:
        """Let it go on."""
        self._seen.set()

    async def handler(self, request: Request) -> Stream:
        self.takes_gzip = "gzip" in request.headers.get("accept-encoding", "")
        return Stream(self._items(), **self._options)

    async def _items(self) -> AsyncIterator[Event]:
        try:
            for number, text in enumerate(TEXTS, 1):
                yield Event(text, id=str(number))
                await self._seen.wait()
                self._seen.clear()
            if self._failure is not None:
                raise self._failure
        finally:
            self.steps("closed")


@every_client
@pytest.mark.parametrize("accept", ON_THE_WIRE)
async def test_each_item_is_read_while_the_generator_waits(serving: Serving, client: Client, accept: str) -> None:
    """Text also shows that gzip holds nothing back."""
    *items, end = ON_THE_WIRE[accept]
    paced = Paced(gzip=accept == "text/plain")
    async with reading(client, await serving(paced.handler), accept) as body:
        for item in items:
            await body.expect(item.encode())
            paced.seen()
        await body.expect(end.encode())
        await body.end()
    await paced.steps.reach("closed")
    assert paced.takes_gzip, "each of them does, so that this was about gzip where it could be"


@every_client
async def test_a_client_that_leaves_ends_the_generator(serving: Serving, client: Client) -> None:
    paced = Paced()
    async with reading(client, await serving(paced.handler), SSE) as body:
        await body.expect(ON_THE_WIRE[SSE][0].encode())
    await paced.steps.reach("closed")


@every_client
@pytest.mark.parametrize("accept", ["application/json", SSE])
async def test_a_failure_on_the_way_is_an_error_for_the_client(
    serving: Serving, client: Client, accept: str, failures: Failures
) -> None:
    """After what was sent before, and after what the format can say about it."""
    paced = Paced(failure=RuntimeError("boom"))
    served = await serving(paced.handler, timeouts=Timeouts(linger=0, grace=60))
    async with reading(client, served, accept) as body:
        for item in ON_THE_WIRE[accept][:-1]:
            await body.expect(item.encode())
            paced.seen()
        if accept == SSE:
            await body.expect(b'event: stream-error\ndata: {"status":500,"error":"Internal Server Error"}\n\n')
        await body.cut()
    assert str(failures.take()) == "boom"


# -- npm's eventsource -------------------------------------------------------------------------------------------------

EVENT_SOURCE = """
import { EventSource } from "eventsource";
const source = new EventSource(process.argv[1]);
const tell = (...what) => console.log(JSON.stringify(what));
source.onopen = () => tell("open");
source.onerror = ({ code }) => tell("error", source.readyState, code ?? null);
for (const name of ["message", "tick", "stream-end"]) {
    source.addEventListener(name, ({ type, data, lastEventId }) => tell(type, data, lastEventId));
}
process.stdin.on("end", () => source.close()).resume();
"""


@pytest.fixture(scope="session")
def npm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory in which Node finds `eventsource`."""
    directory = tmp_path_factory.mktemp("npm")
    install = [program("npm"), "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(directory)]
    done = subprocess.run([*install, "eventsource@4"], capture_output=True, text=True, timeout=120, check=False)
    if done.returncode != 0:
        absent(f"npm cannot install eventsource: {done.stderr}")
    return directory


class Source:
    """An EventSource in Node, and what it tells."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def expect(self, *told: Any) -> None:
        """Its next event."""
        assert self._process.stdout is not None
        assert json.loads(await self._process.stdout.readline()) == [*told]

    def close(self) -> None:
        """`source.close()`."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    async def end(self) -> None:
        """It has told all, and keeps Node running no longer."""
        self.close()
        assert self._process.stdout is not None
        assert await self._process.stdout.read() == b""
        assert await self._process.wait() == 0


@contextlib.asynccontextmanager
async def event_source(directory: Path, served: Served) -> AsyncIterator[Source]:
    process = await asyncio.create_subprocess_exec(
        program("node"), "--input-type=module", "--eval", EVENT_SOURCE, url_of(served),
        cwd=directory, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    source = Source(process)
    try:
        yield source
    finally:
        source.close()
        await process.wait()


CONNECTING, CLOSED = 0, 2


async def test_eventsource_comes_back_after_a_cut_with_the_last_id_and_stops_at_the_end(
    serving: Serving, npm: Path, failures: Failures
) -> None:
    asked: list[str | None] = []
    seen = asyncio.Event()

    async def handler(request: Request) -> AsyncIterator[Event]:
        asked.append(request.last_event_id)
        if request.last_event_id is None:
            yield Event("one", id="1", retry=1)
            yield Event("two\nlines", event="tick", id="2")
            await seen.wait()
            raise RuntimeError("boom")
        yield Event("三", id="3")

    served = await serving(handler, timeouts=Timeouts(linger=0, grace=60))
    async with event_source(npm, served) as source:
        await source.expect("open")
        await source.expect("message", "one", "1")
        await source.expect("tick", "two\nlines", "2")
        seen.set()
        await source.expect("error", CONNECTING, None)
        await source.expect("open")
        await source.expect("message", "三", "3")
        await source.expect("stream-end", "{}", "stream-end")
        await source.expect("error", CONNECTING, None)
        await source.expect("error", CLOSED, 204)
        await source.end()
    assert asked == [None, "2"], "its third request was answered before the handler: 204"
    assert str(failures.take()) == "boom"


async def test_eventsource_that_is_closed_ends_the_generator(serving: Serving, npm: Path) -> None:
    paced = Paced()
    async with event_source(npm, await serving(paced.handler)) as source:
        await source.expect("open")
        await source.expect("message", "这是", "1")
        source.close()
        await paced.steps.reach("closed")
        await source.end()


# -- OpenAI's SDK ------------------------------------------------------------------------------------------------------


def completion(text: str) -> dict[str, Any]:
    """A piece of an answer, as OpenAI's API sends it."""
    return {"id": "c", "object": "chat.completion.chunk", "created": 0, "model": "m",
            "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]}  # fmt: skip


class Model(Paced):
    """The same handler with a server-sent event for each piece: the SDK accepts JSON, and means these."""

    async def _items(self) -> AsyncIterator[Any]:
        async with contextlib.aclosing(super()._items()) as events:  # type: ignore[type-var]
            async for event in events:
                yield completion(event.data)
        yield "[DONE]"


# At "[DONE]" the SDK leaves its generators to the garbage collector, whose way to close them breaks in uvloop's debug
# mode on Python 3.13.
untidy = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@contextlib.asynccontextmanager
async def chat(served: Served) -> AsyncIterator[Any]:
    import openai  # takes its second

    async with (
        openai.AsyncOpenAI(
            base_url=url_of(served, "/v1"), api_key="none", max_retries=0,
            http_client=openai.DefaultAsyncHttpxClient(trust_env=False),
        ) as client,
        await client.chat.completions.create(model="m", messages=[], stream=True) as stream,
    ):  # fmt: skip
        yield stream


@untidy
async def test_openais_sdk_reads_each_piece_while_the_generator_waits(serving: Serving) -> None:
    model = Model(format="sse")
    async with chat(await serving(model.handler)) as stream:
        for text in TEXTS:
            assert (await anext(stream)).choices[0].delta.content == text
            model.seen()
        assert [piece async for piece in stream] == []
    await model.steps.reach("closed")


@untidy
async def test_openais_sdk_that_leaves_ends_the_generator(serving: Serving) -> None:
    model = Model(format="sse")
    async with chat(await serving(model.handler)) as stream:
        await anext(stream)
    await model.steps.reach("closed")


@untidy
async def test_openais_sdk_raises_what_our_stream_error_says(serving: Serving, failures: Failures) -> None:
    import openai

    model = Model(format="sse", failure=RuntimeError("boom"))
    served = await serving(model.handler, timeouts=Timeouts(linger=0, grace=60))
    async with chat(served) as stream:
        for text in TEXTS:
            assert (await anext(stream)).choices[0].delta.content == text
            model.seen()
        with pytest.raises(openai.APIError) as raised:
            await anext(stream)
        assert raised.value.body == "Internal Server Error"
    assert str(failures.take()) == "boom"
