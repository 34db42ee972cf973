"""aiohttp's own server, with `StreamResponse` and `write`: https://docs.aiohttp.org/en/stable/web_reference.html

Run by `AppRunner` and `SockSite`, without access log. `--loop uvloop` is what its docs advise for speed. `--gzip` is
`enable_compression`, which has no flush: it keeps events back.
"""

import argparse
import asyncio
import time

from aiohttp import web

from benchmarks.peers.common import (
    BACKLOG,
    Lateness,
    announce,
    arguments,
    listening_socket,
    loop_factory,
    number,
    seconds,
    server_context,
    set_nagle,
)

COMPRESSED = web.AppKey("COMPRESSED", bool)


def stamp() -> bytes:
    """One event, yielded now."""
    return b"data: %018d\n\n" % time.monotonic_ns()


async def start(request: web.Request) -> web.StreamResponse:
    """An answer that streams events, begun."""
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
    if request.app[COMPRESSED]:
        response.enable_compression()
    await response.prepare(request)
    return response


async def paced(request: web.Request) -> web.StreamResponse:
    """An event each interval."""
    events, interval = number(request.query, "events"), seconds(request.query, "interval")
    response = await start(request)
    begin = time.monotonic()
    for n in range(events):
        if (wait := begin + n * interval - time.monotonic()) > 0:
            await asyncio.sleep(wait)
        await response.write(stamp())
    return response


async def burst(request: web.Request) -> web.StreamResponse:
    """Events with no wait between."""
    events = number(request.query, "events")
    response = await start(request)
    for _ in range(events):
        await response.write(stamp())
    return response


async def first(request: web.Request) -> web.StreamResponse:
    """One event at once, another 1 ms later."""
    response = await start(request)
    await response.write(stamp())
    await asyncio.sleep(0.001)
    await response.write(stamp())
    return response


async def flush(request: web.Request) -> web.StreamResponse:
    """Groups of events, a wait after each group."""
    query = request.query
    groups, size, wait = number(query, "groups"), number(query, "size"), seconds(query, "wait")
    response = await start(request)
    set_nagle(query["nagle"] == "1")
    for _ in range(groups):
        for _ in range(size):
            await response.write(stamp())
        await asyncio.sleep(wait)
    return response


async def short(request: web.Request) -> web.Response:
    """A short answer."""
    return web.Response(text="ok")


lateness = Lateness()
queues: set[asyncio.Queue[bytes]] = set()
"""One for each subscriber of the channel."""


async def fanout(request: web.Request) -> web.StreamResponse:
    """Subscribe to the channel."""
    queue: asyncio.Queue[bytes] = asyncio.Queue()
    queues.add(queue)
    try:
        response = await start(request)
        await response.write(b": subscribed\n\n")  # the head leaves with the first bytes of the body
        while True:
            await response.write(await queue.get())
    finally:
        queues.discard(queue)


async def publish(request: web.Request) -> web.Response:
    """Publish the body."""
    event = b"data: %b\n\n" % await request.read()
    for queue in queues:
        queue.put_nowait(event)
    return web.Response(status=204)


async def idle(request: web.Request) -> web.StreamResponse:
    """One event at once, and then nothing."""
    response = await start(request)
    await response.write(stamp())
    await asyncio.Event().wait()
    return response


async def lag(request: web.Request) -> web.Response:
    """How late the loop has been since this was last asked for."""
    return web.Response(text=lateness.text())


async def serve(options: argparse.Namespace) -> None:
    """Serve until the process is ended."""
    app = web.Application()
    app[COMPRESSED] = options.gzip
    app.add_routes(
        [
            web.get("/paced", paced),
            web.get("/burst", burst),
            web.get("/first", first),
            web.get("/flush", flush),
            web.get("/short", short),
            web.get("/fanout", fanout),
            web.post("/publish", publish),
            web.get("/idle", idle),
            web.get("/lag", lag),
        ]
    )
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    sock = listening_socket()
    await web.SockSite(runner, sock, ssl_context=server_context(options), backlog=BACKLOG).start()
    announce(sock.getsockname()[1])
    await asyncio.Event().wait()


if __name__ == "__main__":
    given = arguments().parse_args()
    with asyncio.Runner(loop_factory=loop_factory(given.loop)) as main:
        main.run(serve(given))
