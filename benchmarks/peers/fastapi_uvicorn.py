"""uvicorn with FastAPI's server-sent events: https://fastapi.tiangolo.com/tutorial/server-sent-events/

A path operation that yields, with `response_class=EventSourceResponse`. It yields `ServerSentEvent(raw_data=...)`, for
plain values would be encoded as JSON. Run as `starlette_uvicorn` is at its best: httptools and uvloop.
"""

import asyncio
import time
from collections.abc import AsyncIterable

from fastapi import FastAPI
from fastapi.responses import PlainTextResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent

from benchmarks.peers.common import arguments
from benchmarks.peers.uvicorn_server import serve

app = FastAPI()


def stamp() -> ServerSentEvent:
    """One event, yielded now."""
    return ServerSentEvent(raw_data=f"{time.monotonic_ns():018d}")


@app.get("/paced", response_class=EventSourceResponse)
async def paced(events: int, interval: float) -> AsyncIterable[ServerSentEvent]:
    """An event each interval."""
    start = time.monotonic()
    for n in range(events):
        if (wait := start + n * interval - time.monotonic()) > 0:
            await asyncio.sleep(wait)
        yield stamp()


@app.get("/burst", response_class=EventSourceResponse)
async def burst(events: int) -> AsyncIterable[ServerSentEvent]:
    """Events with no wait between."""
    for _ in range(events):
        yield stamp()


@app.get("/first", response_class=EventSourceResponse)
async def first() -> AsyncIterable[ServerSentEvent]:
    """One event at once, another 1 ms later."""
    yield stamp()
    await asyncio.sleep(0.001)
    yield stamp()


@app.get("/short", response_class=PlainTextResponse)
async def short() -> str:
    """A short answer."""
    return "ok"


if __name__ == "__main__":
    parser = arguments()
    parser.set_defaults(http="httptools", loop="uvloop")
    serve(app, parser.parse_args())
