"""Our client, reading the servers that people have: uvicorn with Starlette, aiohttp, Node's http, nginx before one.

All of them serve the same paths. Where a body waits, it goes on when `/go` is asked for, so that a piece is known to
have been read before the next one was sent. With our own server the client has its tests in test_client.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import shutil
import socket
import zlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Literal

import aiohttp.web
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from support import absent
from test_proxies import nginx

from rawstream import Backoff, Event, errors, events, fetch
from rawstream.fields import Headers

pytestmark = pytest.mark.either_loop  # each is tested on one of our loops: theirs is what matters

THIS = "这是".encode()
PIECES = [b"one ", THIS[:1], THIS[1:], b"[\n"]
"""One of them ends in the middle of a character."""

WHOLE = [b"[1", b",2", b"]"]
"""What is sent without waiting."""

EVENTS = ["retry: 1\nid: 1\ndata: one\n\n", "id: 2\nevent: tick\ndata: two\ndata: lines\n\n", "id: 3\ndata: 三\n\n"]
"""After the second the connection is cut; the third is for who comes back with the id 2."""


class Broken(Exception):
    """What a body raises that shall end without its end."""


class Script:
    """What each server of Python's does."""

    def __init__(self) -> None:
        self._go = asyncio.Event()
        self.resumed: list[str | None] = []
        """The Last-Event-ID of each request for `/events`."""

    def go(self) -> None:
        """Let a body that waits go on."""
        self._go.set()

    async def _wait(self) -> None:
        await self._go.wait()
        self._go.clear()

    def answer(self, path: str, last_event_id: str | None) -> tuple[int, dict[str, str], AsyncIterator[bytes]]:
        """Status, header fields and body."""
        if path == "/go":
            self.go()
        if path != "/events":
            headers = {"/gzip": {"Content-Encoding": "gzip"}, "/lines": {"Content-Type": "application/x-ndjson"}}
            json = {"Content-Type": "application/json"}
            return 200, {**headers.get(path, json), "X-Accel-Buffering": "no"}, self._body(path)
        self.resumed.append(last_event_id)
        kind = {"Content-Type": "text/event-stream", "X-Accel-Buffering": "no"}
        return (204 if last_event_id == "3" else 200), kind, self._events(last_event_id)

    async def _body(self, path: str) -> AsyncIterator[bytes]:
        if path == "/pieces":
            for piece in PIECES:
                yield piece
                await self._wait()
        elif path == "/gzip":
            compressor = zlib.compressobj(wbits=31)
            for piece in PIECES:
                yield compressor.compress(piece) + compressor.flush(zlib.Z_SYNC_FLUSH)
                await self._wait()
            yield compressor.flush()
        elif path == "/array":
            yield b'["\xe8'
            await self._wait()
            yield b'\xbf\x99", {"n": 1.5'
            await self._wait()
            yield b"}]"
        elif path == "/lines":
            yield b'"\xe8'
            await self._wait()
            yield b'\xbf\x99"\n{"n": 1.5'
            await self._wait()
            yield b"}\n"
        elif path == "/whole":
            for piece in WHOLE:
                yield piece
        elif path == "/cut":
            yield b"some"
            await self._wait()
            raise Broken

    async def _events(self, last_event_id: str | None) -> AsyncIterator[bytes]:
        if last_event_id is None:
            yield EVENTS[0].encode()
            yield EVENTS[1].encode()
            await self._wait()
            raise Broken
        if last_event_id == "2":
            yield EVENTS[2].encode()


# -- the servers -------------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def on_uvicorn(http: Literal["h11", "httptools"], directory: Path) -> AsyncIterator[int]:
    script = Script()

    async def answer(request: Request) -> Response:
        status, headers, body = script.answer(request.url.path, request.headers.get("last-event-id"))
        return Response(status_code=204) if status == 204 else StreamingResponse(body, status, headers)

    app = Starlette(routes=[Route("/{path:path}", answer)])
    config = uvicorn.Config(app, http=http, log_level="critical", lifespan="off", ws="none")
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        task = asyncio.create_task(server.serve([listening]))
        try:
            yield listening.getsockname()[1]
        finally:
            server.should_exit = True
            await task


@contextlib.asynccontextmanager
async def on_aiohttp(directory: Path) -> AsyncIterator[int]:
    script = Script()

    async def answer(request: aiohttp.web.Request) -> aiohttp.web.StreamResponse:
        status, headers, body = script.answer(request.path, request.headers.get("Last-Event-ID"))
        response = aiohttp.web.StreamResponse(status=status, headers=headers)
        if request.headers.get("Accept-Encoding") == "deflate":
            response.enable_compression()
        await response.prepare(request)
        try:
            async for piece in body:
                await response.write(piece)
        except Broken:
            assert request.transport is not None
            request.transport.close()
        return response

    app = aiohttp.web.Application()
    app.router.add_get("/{path:.*}", answer)
    runner = aiohttp.web.AppRunner(app, access_log=None)
    await runner.setup()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        await aiohttp.web.SockSite(runner, listening).start()
        try:
            yield listening.getsockname()[1]
        finally:
            await runner.cleanup()


@contextlib.asynccontextmanager
async def behind_nginx(directory: Path) -> AsyncIterator[int]:
    async with on_aiohttp(directory) as port:
        with nginx(port, directory) as proxy:
            yield proxy


NODE = r"""
import { createServer } from "node:http";
import { constants, createGzip } from "node:zlib";
const { pieces, whole, events } = JSON.parse(process.argv[1]);
let go = () => {};
const waited = () => new Promise((resolve) => { go = resolve; });
const bytes = (text) => Buffer.from(text, "latin1");
async function* each(texts) {
    for (const text of texts) {
        yield bytes(text);
        await waited();
    }
}
const bodies = {
    "/go": async function* () { go(); },
    "/pieces": () => each(pieces),
    "/gzip": () => each(pieces),
    "/array": () => each(['["\xe8', '\xbf\x99", {"n": 1.5', "}]"]),
    "/lines": () => each(['"\xe8', '\xbf\x99"\n{"n": 1.5', "}\n"]),
    "/whole": async function* () { yield* whole.map(bytes); },
    "/cut": async function* () { yield* each(["some"]); throw new Error(); },
    "/events": async function* (last) {
        if (!last) {
            yield bytes(events[0]);
            yield* each([events[1]]);
            throw new Error();
        }
        yield bytes(events[2]);
    },
};
const types = { "/events": "text/event-stream", "/lines": "application/x-ndjson" };
createServer(async (request, response) => {
    const last = request.headers["last-event-id"];
    const gzip = request.url === "/gzip" && createGzip({ flush: constants.Z_SYNC_FLUSH });
    gzip && gzip.pipe(response);
    response.statusCode = last === "3" ? 204 : 200;
    response.setHeader("Content-Type", types[request.url] ?? "application/json");
    gzip && response.setHeader("Content-Encoding", "gzip");
    const trails = request.url === "/whole" && request.httpVersion === "1.1";
    trails && response.setHeader("Trailer", "X");
    try {
        for await (const piece of last === "3" ? [] : bodies[request.url](last)) {
            (gzip || response).write(piece);
        }
        trails && response.addTrailers({ X: "y" });
        (gzip || response).end();
    } catch {
        response.destroy();
    }
}).listen(0, "127.0.0.1", function () { console.log(this.address().port); });
process.stdin.on("end", () => process.exit()).resume();
"""


@contextlib.asynccontextmanager
async def on_node(directory: Path) -> AsyncIterator[int]:
    node = shutil.which("node") or absent("node is not installed: `make system-packages` installs it")
    as_characters = {
        "pieces": [piece.decode("latin-1") for piece in PIECES],
        "whole": [piece.decode("latin-1") for piece in WHOLE],
        "events": [event.encode().decode("latin-1") for event in EVENTS],
    }
    process = await asyncio.create_subprocess_exec(
        node, "--input-type=module", "--eval", NODE, json.dumps(as_characters),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield int(await process.stdout.readline())
    finally:
        process.stdin.close()
        assert await process.wait() == 0


SERVERS = {
    "uvicorn, h11": functools.partial(on_uvicorn, "h11"),
    "uvicorn, httptools": functools.partial(on_uvicorn, "httptools"),
    "aiohttp": on_aiohttp,
    "node": on_node,
    "nginx": behind_nginx,
}


@pytest.fixture(params=SERVERS)
async def server(request: pytest.FixtureRequest, orderly: None, tmp_path: Path) -> AsyncIterator[str]:
    """Where each of them serves."""
    async with SERVERS[request.param](tmp_path) as port:
        yield f"http://127.0.0.1:{port}"


async def go(server: str) -> None:
    """Let a body that waits go on."""
    async with fetch(f"{server}/go") as response:
        await response.body()


# -- what our client makes of them -------------------------------------------------------------------------------------


async def test_each_chunk_is_given_when_it_comes_and_as_it_came(server: str) -> None:
    async with fetch(f"{server}/pieces") as response:
        chunks = response.chunks()
        for piece in PIECES:
            assert await anext(chunks) == piece
            await go(server)
        assert [chunk async for chunk in chunks] == []


async def test_gzip_is_undone_piece_by_piece(server: str) -> None:
    async with fetch(f"{server}/gzip", headers=[("Accept-Encoding", "gzip")]) as response:
        assert response.headers.get("content-encoding") == "gzip"
        chunks = response.chunks()
        for piece in PIECES:
            assert await anext(chunks) == piece
            await go(server)
        assert [chunk async for chunk in chunks] == []


@pytest.mark.parametrize("path", ["/array", "/lines"])
async def test_an_item_is_given_when_it_is_whole(server: str, path: str) -> None:
    async with fetch(f"{server}{path}") as response:
        items = response.items()
        first = asyncio.ensure_future(anext(items))
        await go(server)
        assert await first == "这"
        rest = asyncio.ensure_future(anext(items))
        await go(server)
        assert await rest == {"n": 1.5}
        await go(server)
        assert [item async for item in items] == []


async def test_a_body_that_is_cut_is_an_error_after_what_came(server: str) -> None:
    async with fetch(f"{server}/cut") as response:
        chunks = response.chunks()
        assert await anext(chunks) == b"some"
        await go(server)
        with pytest.raises(errors.IncompleteResponse):
            await anext(chunks)


async def test_the_data_of_events_are_items_up_to_the_cut(server: str) -> None:
    async with fetch(f"{server}/events") as response:
        assert response.content_type == "text/event-stream"
        items = response.items()
        assert [await anext(items), await anext(items)] == ["one", "two\nlines"]
        await go(server)
        with pytest.raises(errors.IncompleteResponse):
            await anext(items)


async def test_http_1_0_has_no_chunks_and_1_1_may_have_trailers(server: str, request: pytest.FixtureRequest) -> None:
    for version, trailers in (("1.0", Headers()), ("1.1", Headers([("X", "y")]))):
        async with fetch(f"{server}/whole", http_version=version) as response:
            assert await response.body() == b"[1,2]"
            if request.node.callspec.params["server"] == "node":
                assert response.trailers == trailers


async def test_aiohttps_own_compression_is_undone(server: str, request: pytest.FixtureRequest) -> None:
    """The others have none: then the body comes as it is."""
    compresses = request.node.callspec.params["server"] in ("aiohttp", "nginx")
    async with fetch(f"{server}/whole", headers={"Accept-Encoding": "deflate"}) as response:
        assert response.headers.get("content-encoding") == ("deflate" if compresses else None)
        assert [item async for item in response.items()] == [1, 2]


async def test_events_go_on_after_a_cut_with_the_one_after_the_last(server: str) -> None:
    """And end where the server says that there are no more: 204."""
    async with events(f"{server}/events", backoff=Backoff(first=0, jitter=0)) as stream:
        assert await anext(stream) == Event("one", id="1", retry=1)
        assert await anext(stream) == Event("two\nlines", event="tick", id="2")
        await go(server)
        assert await anext(stream) == Event("三", id="3")
        assert [event async for event in stream] == []


FILES = """
upstream nobody { server 127.0.0.1:8000; }
server {
    listen 8080;
    types { application/json json; }
    location = /file.json { root %s; gzip on; gzip_types application/json; gzip_min_length 1; }
    location = /moved { return 301 /elsewhere; }
}
"""


async def test_nginx_alone_with_a_file_and_a_redirect(orderly: None, tmp_path: Path) -> None:
    (tmp_path / "file.json").write_text("[" + "1," * 10_000 + "2]")
    with nginx(1, tmp_path, FILES % tmp_path) as port:
        for coding in ("identity", "gzip"):
            async with fetch(f"http://127.0.0.1:{port}/file.json", headers={"Accept-Encoding": coding}) as response:
                assert response.headers.get("content-encoding", "identity") == coding
                assert [item async for item in response.items()] == [1] * 10_000 + [2]
        with pytest.raises(errors.Redirected, match=r"^301 Moved Permanently ") as raised:
            async with fetch(f"http://127.0.0.1:{port}/moved"):
                pass
        assert raised.value.location.endswith("/elsewhere")
