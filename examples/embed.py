"""A program of its own, with a loop, tasks and signals, which also lets others watch what it does.

It shows a server as a guest. The program runs without it; the server leaves its signals alone (`signals=False`), and
is opened and closed in the program's own order. By Ctrl-C or SIGTERM: no new work, the work in hand is finished, those
who watch are told that this was all, the server closes, and the hub. Nobody sees half of it.

    $ python embed.py --port 8000 &
    $ curl -s localhost:8000/
    $ curl -sN localhost:8000/work
"""

import argparse
import asyncio
import hashlib
import itertools
import os
import signal
import sys

from rawstream import Hub, Response, Router, serve

WORKERS = 3


class Mill:
    """The program as it was: it has blocks of random bytes hashed, and counts them."""

    def __init__(self, report):
        self.report = report  # a coroutine function, told of each piece of work
        self.queue = asyncio.Queue(maxsize=10)
        self.done = 0

    async def feed(self, stop):
        for number in itertools.count(1):
            if stop.is_set():
                break
            await self.queue.put(number)
        for _ in range(WORKERS):
            await self.queue.put(None)

    async def work(self, name):
        while (number := await self.queue.get()) is not None:
            await asyncio.sleep(0.1)
            digest = hashlib.sha256(os.urandom(65536)).hexdigest()
            self.done += 1
            await self.report({"worker": name, "block": number, "sha256": digest[:8]})

    async def run(self, stop):
        async with asyncio.TaskGroup() as group:
            group.create_task(self.feed(stop))
            for name in range(1, WORKERS + 1):
                group.create_task(self.work(name))


def routes(mill, channel):
    """What others may see of it."""
    router = Router()

    @router.get("/")
    async def state(request):
        return Response.json({"done": mill.done, "waiting": mill.queue.qsize()})

    @router.get("/work")
    async def watch(request):
        return channel.subscribe(replay=3)  # the last three, and then what comes

    return router


async def main(port):
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with Hub() as hub:
        channel = hub.channel("work")
        mill = Mill(channel.publish)
        async with serve(routes(mill, channel), port=port) as server:
            print("embed.py listening on http://{}:{} (Ctrl-C ends it)".format(*server.addresses[0]), file=sys.stderr)
            await mill.run(stop)
            await channel.close()


if __name__ == "__main__":
    options = argparse.ArgumentParser(description="Hash blocks, and let others watch.")
    options.add_argument("--port", type=int, default=8000)
    asyncio.run(main(**vars(options.parse_args())))
