"""uvicorn with sse-starlette's `EventSourceResponse`: https://github.com/sysid/sse-starlette#usage

Run as `starlette_uvicorn` is at its best: httptools and uvloop. Its pings come every 15 s, as it has them. In the
streams of handlers its lines end in LF, so that its events are as long as everybody's.
"""

import asyncio
import time
from collections.abc import AsyncIterator

from sse_starlette import EventSourceResponse
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from benchmarks.peers.common import Lateness, arguments, number, seconds
from benchmarks.peers.uvicorn_server import serve

lateness = Lateness()
queues: set[asyncio.Queue[str]] = set()
"""One for each subscriber of the channel."""


def stamp() -> dict[str, str]:
    """One event, yielded now."""
    return {"data": f"{time.monotonic_ns():018d}"}


async def paced(request: Request) -> EventSourceResponse:
    """An event each interval."""
    events, interval = number(request.query_params, "events"), seconds(request.query_params, "interval")

    async def generate() -> AsyncIterator[dict[str, str]]:
        start = time.monotonic()
        for n in range(events):
            if (wait := start + n * interval - time.monotonic()) > 0:
                await asyncio.sleep(wait)
            yield stamp()

    return EventSourceResponse(generate(), sep="\n")


async def burst(request: Request) -> EventSourceResponse:
    """Events with no wait between."""
    events = number(request.query_params, "events")

    async def generate() -> AsyncIterator[dict[str, str]]:
        for _ in range(events):
            yield stamp()

    return EventSourceResponse(generate(), sep="\n")


async def fanout(request: Request) -> EventSourceResponse:
    """Subscribe to the channel."""

    async def generate() -> AsyncIterator[dict[str, str]]:
        queue: asyncio.Queue[str] = asyncio.Queue()
        queues.add(queue)
        try:
            yield {"comment": "subscribed"}  # so that nobody has the head who is not in `queues` yet
            while True:
                yield {"data": await queue.get()}
        finally:
            queues.discard(queue)

    return EventSourceResponse(generate())


async def publish(request: Request) -> Response:
    """Publish the body."""
    data = (await request.body()).decode()
    for queue in queues:
        queue.put_nowait(data)
    return Response(status_code=204)


async def idle(request: Request) -> EventSourceResponse:
    """One event at once, and then nothing."""

    async def generate() -> AsyncIterator[dict[str, str]]:
        yield stamp()
        await asyncio.Event().wait()

    return EventSourceResponse(generate())


async def short(request: Request) -> PlainTextResponse:
    """A short answer."""
    return PlainTextResponse("ok")


async def lag(request: Request) -> PlainTextResponse:
    """How late the loop has been since this was last asked for."""
    return PlainTextResponse(lateness.text())


app = Starlette(
    routes=[
        Route("/paced", paced),
        Route("/burst", burst),
        Route("/fanout", fanout),
        Route("/publish", publish, methods=["POST"]),
        Route("/idle", idle),
        Route("/short", short),
        Route("/lag", lag),
    ],
)


if __name__ == "__main__":
    parser = arguments()
    parser.set_defaults(http="httptools", loop="uvloop")
    serve(app, parser.parse_args())
