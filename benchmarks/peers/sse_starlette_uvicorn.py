"""uvicorn with sse-starlette's `EventSourceResponse`: https://github.com/sysid/sse-starlette#usage

Run as `starlette_uvicorn` is at its best: httptools and uvloop. Its pings come every 15 s, as it has them.
"""

import asyncio
import time
from collections.abc import AsyncIterator

import uvicorn
from sse_starlette import EventSourceResponse
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from benchmarks.peers.common import BACKLOG, Lateness, announce, listening_socket

lateness = Lateness()
queues: set[asyncio.Queue[str]] = set()
"""One for each subscriber of the channel."""


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
        yield {"data": f"{time.monotonic_ns():018d}"}
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
        Route("/fanout", fanout),
        Route("/publish", publish, methods=["POST"]),
        Route("/idle", idle),
        Route("/short", short),
        Route("/lag", lag),
    ],
)


def main() -> None:
    """Serve until the process is ended."""
    config = uvicorn.Config(app, http="httptools", loop="uvloop", access_log=False, log_level="error", backlog=BACKLOG)
    with listening_socket() as sock:
        announce(sock.getsockname()[1])
        uvicorn.Server(config).run(sockets=[sock])


if __name__ == "__main__":
    main()
