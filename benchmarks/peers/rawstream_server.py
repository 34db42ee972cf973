"""rawstream: handlers are async generators, and the items are strings.

`--h11-send` sends each chunk of a stream through `h11.Connection.send` instead of the frame that `rawstream.wire`
makes of it: that shows what the frame saves. The bytes are the same.
"""

import argparse
import asyncio
import time
from collections.abc import AsyncIterator
from typing import Literal

import h11

from benchmarks.peers.common import (
    Lateness,
    announce,
    arguments,
    loop_factory,
    number,
    seconds,
    server_context,
    set_nagle,
)
from rawstream import Every, Hub, Request, Response, Router, Stream, serve
from rawstream.channels.subscription import Subscription
from rawstream.framing import Frame
from rawstream.wire import ServerWire

router = Router()
lateness = Lateness()
hub = Hub("memory:")
channel = hub.channel("news")
silence = asyncio.Event()
"""Never set."""

POLICIES: dict[str, Literal["item"] | Every | None] = {
    "wait": None,
    "item": "item",
    "every": Every(bytes=16_384, seconds=0.005),
}
"""The flush policies of `/flush?policy=`: before each wait (the default), each item, gathered on purpose."""


def stamp() -> str:
    """What makes an event of 26 bytes, yielded now; `zfill` takes half the time of `:018d`."""
    return str(time.monotonic_ns()).zfill(18)


async def paced(request: Request) -> AsyncIterator[str]:
    """An event each interval."""
    events, interval = number(request.query, "events"), seconds(request.query, "interval")
    start = time.monotonic()
    for n in range(events):
        if (wait := start + n * interval - time.monotonic()) > 0:
            await asyncio.sleep(wait)
        yield stamp()


async def paced_gzip(request: Request) -> Stream:
    """The same, compressed."""
    return Stream(paced(request), gzip=True)


@router.get("/burst")
async def burst(request: Request) -> AsyncIterator[str]:
    """Events with no wait between."""
    for _ in range(number(request.query, "events")):
        yield stamp()


@router.get("/first")
async def first(request: Request) -> AsyncIterator[str]:
    """One event at once, another 1 ms later."""
    yield stamp()
    await asyncio.sleep(0.001)
    yield stamp()


@router.get("/flush")
async def flush(request: Request) -> Stream:
    """Groups of events, a wait after each group."""
    query = request.query
    groups, size, wait = number(query, "groups"), number(query, "size"), seconds(query, "wait")

    async def generate() -> AsyncIterator[str]:
        set_nagle(query["nagle"] == "1")
        for _ in range(groups):
            for _ in range(size):
                yield stamp()
            await asyncio.sleep(wait)

    return Stream(generate(), format="sse", flush=POLICIES[query.get("policy", "wait")])


@router.get("/short")
async def short(request: Request) -> Response:
    """A short answer."""
    return Response.text("ok")


@router.get("/fanout")
async def fanout(request: Request) -> Subscription:
    """Subscribe to the channel."""
    return channel.subscribe()


@router.post("/publish")
async def publish(request: Request) -> Response:
    """Publish the body."""
    await channel.publish(await request.text())
    return Response(204)


@router.get("/idle")
async def idle(request: Request) -> AsyncIterator[str]:
    """One event at once, and then nothing."""
    yield stamp()
    await silence.wait()


@router.get("/lag")
async def lag(request: Request) -> Response:
    """How late the loop has been since this was last asked for."""
    return Response.text(lateness.text())


def send_through_h11() -> None:
    """Let h11 send each chunk from now on, as a server would that knows no `frame`."""
    start = ServerWire.start

    def start_and_send(wire: ServerWire, head: h11.Response) -> tuple[bytes, Frame]:
        data, _ = start(wire, head)
        send = wire._h11.send  # where else: it is what `frame` stands in for
        return data, lambda payload: send(h11.Data(data=payload)) if payload else b""

    setattr(ServerWire, "start", start_and_send)  # noqa: B010 -- mypy lets nobody assign to a method


async def run(options: argparse.Namespace) -> None:
    """Serve until the process is ended."""
    router.get("/paced")(paced_gzip if options.gzip else paced)
    async with hub, serve(router, host="127.0.0.1", port=0, ssl=server_context(options)) as server:
        announce(int(server.addresses[0][1]))
        await server.wait_closed()


if __name__ == "__main__":
    parser = arguments()
    parser.add_argument("--h11-send", action="store_true")
    options = parser.parse_args()
    if options.h11_send:
        send_through_h11()
    with asyncio.Runner(loop_factory=loop_factory(options.loop)) as main:
        main.run(run(options))
