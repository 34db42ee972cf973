"""The client with servers that are not ours: uvicorn, aiohttp, Node and nginx, each as it is usually run."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from support import Serving, absent, until

from rawstream import Event, Request, events, fetch
from rawstream.errors import IncompleteResponse, StatusError

pytestmark = pytest.mark.either_loop  # each is tested on one of our loops: theirs is what matters

UVICORN = """
import asyncio, sys, uvicorn

async def app(scope, receive, send):
    assert scope["type"] == "http"
    kinds = {"/array": b"application/json", "/cut": b"application/json", "/lines": b"application/x-ndjson"}
    kind = kinds.get(scope["path"], b"text/event-stream")
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]})
    parts = {"/array": [b"[1", b",2", b"]"], "/cut": [b"[1,", None], "/lines": [b"1\\n", b"2\\n"]}
    for part in parts.get(scope["path"], [b"data: 1\\n\\n", b"data: 2\\n\\n"]):
        if part is None:
            await asyncio.sleep(0.05)
            raise RuntimeError("on purpose")
        await send({"type": "http.response.body", "body": part, "more_body": True})
        await asyncio.sleep(0.01)
    await send({"type": "http.response.body"})

config = uvicorn.Config(app, lifespan="off", log_level="critical", http=sys.argv[2], loop=sys.argv[3])
uvicorn.Server(config).run(sockets=[__import__("socket").socket(fileno=int(sys.argv[1]))])
"""

AIOHTTP = """
import asyncio, socket, sys
from aiohttp import web

async def handler(request):
    kinds = {"/array": "application/json", "/cut": "application/json", "/lines": "application/x-ndjson"}
    parts = {"/array": [b"[1", b",2", b"]"], "/cut": [b"[1,", None], "/lines": [b"1\\n", b"2\\n"]}
    response = web.StreamResponse(headers={"Content-Type": kinds.get(request.path, "text/event-stream")})
    if "gzip" in request.headers.get("Accept-Encoding", ""):
        response.enable_compression()
    await response.prepare(request)
    for part in parts.get(request.path, [b"data: 1\\n\\n", b"data: 2\\n\\n"]):
        if part is None:
            request.transport.close()
            return response
        await response.write(part)
        await asyncio.sleep(0.01)
    return response

app = web.Application()
app.router.add_get("/{path:.*}", handler)
web.run_app(app, sock=socket.socket(fileno=int(sys.argv[1])), print=None)
"""

NODE = """
const parts = {"/array": ["[1", ",2", "]"], "/cut": ["[1,", null], "/lines": ["1\\n", "2\\n"]};
const kinds = {"/array": "application/json", "/cut": "application/json", "/lines": "application/x-ndjson"};
require("http").createServer(async (request, response) => {
    response.setHeader("Content-Type", kinds[request.url] || "text/event-stream");
    if (request.httpVersion == "1.1") response.setHeader("Trailer", "X");
    for (const part of parts[request.url] || ["data: 1\\n\\n", "data: 2\\n\\n"]) {
        if (part === null) { response.destroy(); return; }
        response.write(part);
        await new Promise(done => setTimeout(done, 10));
    }
    if (request.httpVersion == "1.1") response.addTrailers({"X": "y"});
    response.end();
}).listen({fd: Number(process.argv.at(-1))});
"""

NGINX = """
daemon off;
worker_processes 1;
master_process off;
pid {directory}/nginx.pid;
error_log {directory}/error.log;
events {{}}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    types {{ application/json json; }}
    server {{
        listen unix:{directory}/s;
        location = /file.json {{ root {directory}; gzip on; gzip_types application/json; gzip_min_length 1; }}
        location = /moved {{ return 301 /elsewhere; }}
        location / {{ proxy_pass http://127.0.0.1:{port}; proxy_http_version 1.1; proxy_buffering off; }}
    }}
}}
"""

COMMANDS = {
    "uvicorn, h11": [sys.executable, "-c", UVICORN, "{fd}", "h11", "asyncio"],
    "uvicorn, httptools": [sys.executable, "-c", UVICORN, "{fd}", "httptools", "uvloop"],
    "aiohttp": [sys.executable, "-c", AIOHTTP, "{fd}"],
    "node": ["node", "-e", NODE, "--", "{fd}"],
}


@contextlib.contextmanager
def running(command: list[str], *descriptors: int) -> Iterator[None]:
    process = subprocess.Popen(command, pass_fds=descriptors, stdin=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module", params=COMMANDS)
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    """A server that inherits a socket on which we listen already: nobody waits for it to be ready."""
    program = COMMANDS[request.param][0]
    if shutil.which(program) is None:
        absent(f"{program} is not installed")
    with socket.create_server(("127.0.0.1", 0)) as sock:
        host, port = sock.getsockname()
        with running(
            [part.replace("{fd}", str(sock.fileno())) if part == "{fd}" else part for part in COMMANDS[request.param]],
            sock.fileno(),
        ):
            yield f"http://{host}:{port}"


async def test_its_streams_are_read(orderly: None, url: str) -> None:
    for path, kind, items in (
        ("/array", "application/json", [1, 2]),
        ("/lines", "application/x-ndjson", [1, 2]),
        ("/events", "text/event-stream", ["1", "2"]),
    ):
        async with fetch(url + path) as response:
            assert response.content_type == kind
            assert [item async for item in response.items()] == items
    async with fetch(url + "/array") as response:
        assert [chunk async for chunk in response.chunks()] == [b"[1", b",2", b"]"]
    async with fetch(url + "/array", http_version="1.0") as response:
        assert await response.body() == b"[1,2]"


async def test_its_cut_streams_are_told_apart(orderly: None, url: str) -> None:
    async with fetch(url + "/cut") as response:
        items = response.items()
        assert await anext(items) == 1
        with pytest.raises(IncompleteResponse):
            await anext(items)


async def test_its_events_are_followed(orderly: None, url: str) -> None:
    seen: list[Event] = []
    async with events(url + "/events") as source:
        async for event in source:
            seen.append(event)
            if len(seen) == 2:
                break
    assert seen == [Event("1"), Event("2")]


async def test_aiohttps_compression_is_undone(orderly: None, url: str, request: pytest.FixtureRequest) -> None:
    """The others have none of their own: then the body comes as it is."""
    async with fetch(url + "/array", headers={"Accept-Encoding": "deflate, gzip"}) as response:
        assert ("content-encoding" in response.headers) == (request.node.callspec.params["url"] == "aiohttp")
        assert [item async for item in response.items()] == [1, 2]


# -- nginx -------------------------------------------------------------------------------------------------------------


@pytest.fixture
async def nginx(serving: Serving, tmp_path: Path) -> AsyncIterator[str]:
    """Before a server of ours, on a Unix socket; its path."""
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if program is None:
        absent("nginx is not installed")

    async def handler(request: Request) -> AsyncIterator[int]:
        for n in range(3):
            yield n
            await asyncio.sleep(0.01)

    served = await serving(handler)
    path = str(tmp_path / "s")
    (tmp_path / "nginx.conf").write_text(NGINX.format(directory=tmp_path, port=served.server.addresses[0][1]))
    (tmp_path / "file.json").write_text("[" + "1," * 10_000 + "2]")
    with running([program, "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf"), "-e", str(tmp_path / "error.log")]):
        await until(lambda: os.path.exists(path))
        yield path


async def test_nginx(nginx: str) -> None:
    async with fetch("http://a/file.json", uds=nginx) as response:
        assert "content-encoding" not in response.headers
        assert len([item async for item in response.items()]) == 10_001
    async with fetch("http://a/file.json", uds=nginx, headers={"Accept-Encoding": "gzip"}) as response:
        assert response.headers["content-encoding"] == "gzip"
        assert len([item async for item in response.items()]) == 10_001
    async with fetch("http://a/", uds=nginx, headers={"Accept": "application/x-ndjson"}) as response:
        assert [item async for item in response.items()] == [0, 1, 2]
    with pytest.raises(StatusError, match=r"^301 Moved Permanently .*/elsewhere"):
        async with fetch("http://a/moved", uds=nginx):
            pass
