"""Proxies that hold a stream back, and proxies that do not: real ones, and small ones that do one thing exactly."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import io
import os
import re
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route
from support import absent

import rawstream

# -- nginx and HAProxy ---------------------------------------------------------------------------------------------

_NGINX = """
daemon off; worker_processes 1; pid {directory}/pid; error_log {directory}/log info; {user}
events {{}}
http {{
    access_log off;
    client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy; fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi; scgi_temp_path {directory}/scgi;
    server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://127.0.0.1:{behind}; {site} }} }}
}}
"""
_HAPROXY = """
global
    maxconn 100
defaults
    mode http
    timeout connect 10s
    timeout client 60s
    timeout server 60s
frontend front
    bind fd@{descriptor}
    {site}
    default_backend back
backend back
    server one 127.0.0.1:{behind}
"""


def _program(name: str) -> str:
    found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if found is None:
        absent(f"{name} is not installed: `make system-packages` installs it")
    return found


@contextlib.contextmanager
def _running(command: list[str], listening: socket.socket, **environment: str) -> Iterator[int]:
    """A program that inherits a listening socket: its port is free, and who connects before it is up waits for it."""
    port = int(listening.getsockname()[1])
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **environment},
        pass_fds=[listening.fileno()],
    )
    listening.close()
    try:
        yield port
        assert process.poll() is None, f"{command[0]} has ended: {command}"
    finally:
        process.terminate()
        process.wait(10)


@contextlib.contextmanager
def nginx(behind: int, directory: Path, site: str) -> Iterator[int]:
    """A running nginx; `site` stands in its `location`."""
    program = _program("nginx")
    directory.mkdir()
    listening = socket.create_server(("127.0.0.1", 0))
    port = listening.getsockname()[1]
    user = "user root;" if os.geteuid() == 0 else ""
    text = _NGINX.format(directory=directory, port=port, behind=behind, site=site, user=user)
    (directory / "conf").write_text(text)
    command = [program, "-p", str(directory), "-c", str(directory / "conf"), "-e", str(directory / "log")]
    # It takes the socket for one of the nginx that it replaces.
    with _running(command, listening, NGINX=f"{listening.fileno()};") as port:
        yield port


@contextlib.contextmanager
def haproxy(behind: int, directory: Path, site: str) -> Iterator[int]:
    """A running HAProxy; `site` stands in its `frontend`."""
    program = _program("haproxy")
    directory.mkdir()
    listening = socket.create_server(("127.0.0.1", 0))
    (directory / "conf").write_text(_HAPROXY.format(descriptor=listening.fileno(), behind=behind, site=site))
    with _running([program, "-db", "-f", str(directory / "conf")], listening) as port:
        yield port


# -- Starlette -----------------------------------------------------------------------------------------------------


class OldGZip:
    """Compresses as Starlette's GZipMiddleware did before 1.5: nothing is flushed, so zlib gathers."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        buffer = io.BytesIO()
        packed = gzip.GzipFile(mode="wb", fileobj=buffer, compresslevel=9)

        async def pack(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"].append((b"content-encoding", b"gzip"))
            else:
                packed.write(message.get("body", b""))
                if not message.get("more_body"):
                    packed.close()
                message["body"] = buffer.getvalue()
                buffer.seek(0)
                buffer.truncate()
            await send(message)

        asked = dict(scope.get("headers", ())).get(b"accept-encoding", b"")
        with packed:
            await self._app(scope, receive, pack if b"gzip" in asked else send)


@contextlib.asynccontextmanager
async def starlette(behind: int, *middleware: Middleware) -> AsyncIterator[int]:
    """A Starlette application under uvicorn, which streams what the server behind streams."""

    async def forward(request: Request) -> StreamingResponse:
        kept = [(name, request.headers[name]) for name in ("accept", "last-event-id") if name in request.headers]
        fetching = rawstream.fetch(
            f"http://127.0.0.1:{behind}{request.url.path}?{request.url.query}", method=request.method, headers=kept
        )
        response = await fetching.__aenter__()

        async def body() -> AsyncIterator[bytes]:
            try:
                async for chunk in response.chunks():
                    yield chunk
            finally:
                await fetching.__aexit__(None, None, None)

        return StreamingResponse(body(), media_type=response.content_type)

    app = Starlette(routes=[Route("/{path:path}", forward, methods=["GET", "POST"])], middleware=middleware)
    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, log_level="error", lifespan="off", ws="none", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    served = asyncio.create_task(server.serve([listening]))
    try:
        yield listening.getsockname()[1]
    finally:
        server.should_exit = True
        await served
        listening.close()


def todays_gzip() -> Middleware:
    """What is installed."""
    return Middleware(GZipMiddleware, minimum_size=1)


def old_gzip() -> Middleware:
    return Middleware(OldGZip)


# -- small ones ----------------------------------------------------------------------------------------------------

Pass = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
"""Moves what a server sends to a client, each in its own way."""


@contextlib.asynccontextmanager
async def listening(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[int]:
    """A server of a coroutine a connection, each of which is ended with it."""
    tasks = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                await serve(reader, writer)
        except asyncio.CancelledError:
            pass  # asyncio's streams would tell of it
        finally:
            tasks.discard(task)
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in [*tasks]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()


@contextlib.asynccontextmanager
async def relay(behind: int, move: Pass) -> AsyncIterator[int]:
    """A proxy that knows nothing of HTTP; what comes back it moves as it is told."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back, out = await asyncio.open_connection("127.0.0.1", behind)

        async def ask() -> None:
            with contextlib.suppress(ConnectionError):
                while (data := await reader.read(65536)) and not out.is_closing():
                    out.write(data)

        asking = asyncio.create_task(ask())
        try:
            await move(back, writer)
            with contextlib.suppress(ConnectionError):
                await writer.drain()
        finally:
            asking.cancel()
            out.close()

    async with listening(serve) as port:
        yield port


def batches(size: int) -> Pass:
    """Bytes in pieces of exactly this size."""

    async def move(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readuntil(b"\r\n\r\n"))
        held = b""
        while data := await reader.read(65536):
            held += data
            while len(held) >= size:
                writer.write(held[:size])
                held = held[size:]
        writer.write(held)

    return move


def by_the_clock(seconds: float) -> Pass:
    """Whatever has come, each so many seconds."""

    async def move(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        held = [await reader.readuntil(b"\r\n\r\n")]

        async def tick() -> None:
            while True:
                await asyncio.sleep(seconds)
                writer.write(b"".join(held))
                held.clear()

        ticking = asyncio.create_task(tick())
        while data := await reader.read(65536):
            held.append(data)
        ticking.cancel()
        writer.write(b"".join(held))

    return move


async def one_behind(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Each piece when the next one comes."""
    writer.write(await reader.readuntil(b"\r\n\r\n"))
    held = b""
    while data := await reader.read(65536):
        writer.write(held)
        held = data
    writer.write(held)


async def whole(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """All of it, at the end."""
    writer.write(await reader.read(-1))


def far(seconds: float) -> Pass:
    """Everything late, and all by the same time."""

    async def move(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        while data := await reader.read(65536):
            loop.call_later(seconds, writer.write, data)
        await asyncio.sleep(seconds)

    return move


def impatient(seconds: float) -> Pass:
    """A connection on which nothing comes for so long is cut."""

    async def move(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(TimeoutError):
            while True:
                async with asyncio.timeout(seconds):
                    data = await reader.read(65536)
                if not data:
                    return
                writer.write(data)

    return move


async def nameless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Without the fields that tell who was there."""
    head = await reader.readuntil(b"\r\n\r\n")
    writer.write(re.sub(rb"(?im)^(?:server|via|x-[a-z-]*):.*\r\n", b"", head))
    while data := await reader.read(65536):
        writer.write(data)
