"""Starlette's `StreamingResponse`, for the servers that run ASGI: https://www.starlette.io/responses/#streamingresponse"""

import asyncio
import time
from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from benchmarks.peers.common import Lateness, number, seconds, set_nagle


def stamp() -> bytes:
    """One event, yielded now."""
    return b"data: %018d\n\n" % time.monotonic_ns()


def stream(events: AsyncIterator[bytes]) -> StreamingResponse:
    """An answer that streams events."""
    return StreamingResponse(events, media_type="text/event-stream", headers={"Cache-Control": "no-store"})


async def paced(request: Request) -> StreamingResponse:
    """An event each interval."""
    events, interval = number(request.query_params, "events"), seconds(request.query_params, "interval")

    async def generate() -> AsyncIterator[bytes]:
        start = time.monotonic()
        for n in range(events):
            if (wait := start + n * interval - time.monotonic()) > 0:
                await asyncio.sleep(wait)
            yield stamp()

    return stream(generate())


async def burst(request: Request) -> StreamingResponse:
    """Events with no wait between."""
    events = number(request.query_params, "events")

    async def generate() -> AsyncIterator[bytes]:
        for _ in range(events):
            yield stamp()

    return stream(generate())


async def first(request: Request) -> StreamingResponse:
    """One event at once, another 1 ms later."""

    async def generate() -> AsyncIterator[bytes]:
        yield stamp()
        await asyncio.sleep(0.001)
        yield stamp()

    return stream(generate())


async def flush(request: Request) -> StreamingResponse:
    """Groups of events, a wait after each group."""
    query = request.query_params
    groups, size, wait = number(query, "groups"), number(query, "size"), seconds(query, "wait")

    async def generate() -> AsyncIterator[bytes]:
        set_nagle(query["nagle"] == "1")
        for _ in range(groups):
            for _ in range(size):
                yield stamp()
            await asyncio.sleep(wait)

    return stream(generate())


async def short(request: Request) -> PlainTextResponse:
    """A short answer."""
    return PlainTextResponse("ok")


lateness = Lateness()
queues: set[asyncio.Queue[bytes]] = set()
"""One for each subscriber of the channel."""


async def fanout(request: Request) -> StreamingResponse:
    """Subscribe to the channel."""

    async def generate() -> AsyncIterator[bytes]:
        queue: asyncio.Queue[bytes] = asyncio.Queue()
        queues.add(queue)
        try:
            yield b": subscribed\n\n"  # so that nobody has the head who is not in `queues` yet
            while True:
                yield await queue.get()
        finally:
            queues.discard(queue)

    return stream(generate())


async def publish(request: Request) -> Response:
    """Publish the body."""
    event = b"data: %b\n\n" % await request.body()
    for queue in queues:
        queue.put_nowait(event)
    return Response(status_code=204)


async def idle(request: Request) -> StreamingResponse:
    """One event at once, and then nothing."""

    async def generate() -> AsyncIterator[bytes]:
        yield stamp()
        await asyncio.Event().wait()

    return stream(generate())


async def lag(request: Request) -> PlainTextResponse:
    """How late the loop has been since this was last asked for."""
    return PlainTextResponse(lateness.text())


app = Starlette(
    routes=[
        Route("/paced", paced),
        Route("/burst", burst),
        Route("/first", first),
        Route("/flush", flush),
        Route("/short", short),
        Route("/fanout", fanout),
        Route("/publish", publish, methods=["POST"]),
        Route("/idle", idle),
        Route("/lag", lag),
    ],
)
compressed = GZipMiddleware(app, exclude_content_types=())
"""The same behind Starlette's own middleware, told to compress streams of events too; it flushes each item."""
