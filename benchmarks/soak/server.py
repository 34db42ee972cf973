"""The server that is soaked: a handler for each kind of client, and `/state`, which says what is open and held.

It runs in a process of its own and prints `PORT n` when it listens. Its deadlines are short, so that a run of half a
minute sees them strike many times.
"""

import asyncio
import contextlib
import ctypes
import gc
import hashlib
import os
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import Any

from benchmarks.peers.common import announce, arguments, loop_factory, number
from rawstream import Event, Request, Response, Router, Stream, Timeouts, serve

TIMEOUTS = Timeouts(head=2, body=2, keep_alive=2, write_stall=2, grace=2, linger=0.5)
"""Each of them cuts somebody in every run."""

PIECE = bytes(range(256)) * 256
"""64 KiB, of which `/flood` has no end: more than the kernel and the server hold for a reader."""

PAUSE = 0.002
"""Seconds between two events of `/events`."""

router = Router()
_open: Counter[str] = Counter()
_smuggled: list[str] = []


@contextlib.contextmanager
def _counted(name: str) -> Iterator[None]:
    """Counts what is open by what has begun and has not run its own `finally`."""
    _open[name] += 1
    try:
        yield
    finally:
        _open[name] -= 1


@router.get("/events")
async def events(request: Request) -> AsyncIterator[Event]:
    """So many events, with a wait after each."""
    with _counted("events"):
        for n in range(number(request.query, "n")):
            yield Event(n, id=str(n))
            await asyncio.sleep(PAUSE)


@router.get("/items")
async def items(request: Request) -> AsyncIterator[int]:
    """So many numbers, with no wait between."""
    with _counted("items"):
        for n in range(number(request.query, "n")):
            yield n


@router.get("/flood")
async def flood(request: Request) -> Stream:
    """Bytes as fast as they are taken: `pieces` of 64 KiB, or without an end."""
    return Stream(_flood(int(request.query.get("pieces", "-1"))), format="bytes")


async def _flood(pieces: int) -> AsyncIterator[bytes]:
    with _counted("flood"):
        while pieces:
            yield PIECE
            pieces -= 1


@router.get("/number/{n}")
async def numbered(request: Request) -> Response:
    """A short answer that says which request it belongs to."""
    return Response.text(request.params["n"])


@router.post("/digest")
async def digest(request: Request) -> Response:
    """The SHA-256 of what was uploaded."""
    found = hashlib.sha256()
    with _counted("digest"):
        async for piece in request.stream():
            found.update(piece)
    return Response.text(found.hexdigest())


@router.get("/wait")
async def wait(request: Request) -> Response:
    """No answer: whoever asks is to leave before."""
    with _counted("wait"):
        await request.closing.wait()
    return Response.text("closing")


@router.get("/smuggled")
@router.post("/smuggled")
async def smuggled(request: Request) -> Response:
    """What only comes here inside or behind a request that is to be refused."""
    _smuggled.append(request.id)
    return Response.text("smuggled")


@router.get("/state")
async def state(request: Request) -> Response:
    """What is open and held now; this request's own task, generator and connection are in it."""
    return Response.json(_measure())


def _measure() -> dict[str, Any]:
    gc.collect()
    _give_back()
    with open("/proc/self/statm", encoding="ascii") as file:
        resident = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return {
        "memory_bytes": resident,
        "objects": len(gc.get_objects()),
        "tasks": Counter(task.get_coro().__qualname__ for task in asyncio.all_tasks()),  # type: ignore[union-attr]
        "generators": +_open,
        "sockets": _sockets(),
        "smuggled": len(_smuggled),
    }


def _give_back() -> None:
    """Return to the system what the allocator keeps for later: what is then resident is in use."""
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)


def _sockets() -> int:
    """How many sockets the process has open."""
    count = 0
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the listing itself, which is closed by now
            count += os.readlink(f"/proc/self/fd/{name}").startswith("socket:")
    return count


async def run() -> None:
    """Serve until the process is ended."""
    async with serve(router, port=0, timeouts=TIMEOUTS) as server:
        announce(int(server.addresses[0][1]))
        await server.wait_closed()


if __name__ == "__main__":
    options = arguments().parse_args()
    with asyncio.Runner(loop_factory=loop_factory(options.loop)) as main:
        main.run(run())
