"""A whole run: the server started, warmed up, visited, left alone, and asked what is left."""

import asyncio
import json
import os
import sys
import time
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.answer import WrongAnswer
from benchmarks.machine import machine, missing, versions
from benchmarks.process import Server
from benchmarks.progress import Progress
from benchmarks.report import FORMAT, Json
from benchmarks.soak.client import Client, get
from benchmarks.soak.clients import KINDS, Kind
from benchmarks.soak.report import failures, tables

HELP = "good, bad, slow and vanishing clients at once for minutes: is every answer right, and is nothing left?"
PINNED = True

SECONDS = 600.0
QUICK_SECONDS = 30.0
LOOPS = ("asyncio", "uvloop")

_STEPS = 10
"""In so many parts the time of visits is shown, and the memory looked at."""

_PATIENCE = 30.0
"""Seconds for one visit, far beyond every deadline of the server: then it hangs."""

_PAUSE = 0.02
_PAUSE_OF_WHO_WAITS_FOR_NOTHING = 0.25
"""Seconds between two visits of the same client. Who vanishes waits for no answer, and would come faster than any
server could serve: what is tested here is not how much it takes, but what is left."""

_AT_REST = 10.0
"""Seconds within which everything must have ended once all clients have left."""


@dataclass(slots=True)
class Tally:
    """What the visits came to."""

    outcomes: dict[str, Counter[str]] = field(default_factory=lambda: {kind.name: Counter() for kind in KINDS})
    wrong: dict[str, Counter[str]] = field(default_factory=lambda: {kind.name: Counter() for kind in KINDS})

    def total(self) -> int:
        """How many visits there were."""
        return sum(sum(counter.values()) for part in (self.outcomes, self.wrong) for counter in part.values())

    def as_json(self) -> Json:
        """Each kind of client with its outcomes, and with what was wrong."""
        return {
            kind.name: {"group": kind.group, "outcomes": self.outcomes[kind.name], "wrong": self.wrong[kind.name]}
            for kind in KINDS
        }


async def visit(kind: Kind, port: int, tally: Tally) -> None:
    """One visit of a client."""
    try:
        async with asyncio.timeout(_PATIENCE):
            tally.outcomes[kind.name][await kind.visit(port)] += 1
    except WrongAnswer as exc:
        tally.wrong[kind.name][str(exc)] += 1
    except TimeoutError:
        tally.wrong[kind.name][f"hung for {_PATIENCE:.0f} s"] += 1
    except (OSError, ValueError) as exc:
        tally.wrong[kind.name][f"{type(exc).__name__}: {exc}"[:100]] += 1


async def visits(port: int, seconds: float, tally: Tally, kinds: Sequence[Kind] = KINDS) -> None:
    """Let all kinds of clients come again and again; those who are there when the time is over stay to their end."""
    until = time.monotonic() + seconds

    async def come_again(kind: Kind) -> None:
        pause = _PAUSE_OF_WHO_WAITS_FOR_NOTHING if kind.group == "vanishing" else _PAUSE
        while time.monotonic() < until:
            await visit(kind, port, tally)
            await asyncio.sleep(pause)

    async with asyncio.TaskGroup() as group:
        for kind in kinds:
            for _ in range(kind.at_once):
                group.create_task(come_again(kind))


async def state(port: int) -> Json:
    """What the server has open and holds."""
    async with asyncio.timeout(_PATIENCE):
        with await Client.connect(port) as client:
            await client.send(get("/state"))
            found: Json = json.loads((await client.answer()).body)
    return found


def left_over(now: Json, fresh: Json) -> Json:
    """What `now` is open beyond what was on a server that nobody had visited."""
    return {
        "tasks": dict(Counter(now["tasks"]) - Counter(fresh["tasks"])),
        "generators": now["generators"],
        "sockets": now["sockets"] - fresh["sockets"],
    }


async def at_rest(port: int, fresh: Json) -> Json:
    """The server's state once nothing is open any more, or after `_AT_REST` seconds."""
    until = time.monotonic() + _AT_REST
    while True:
        now = await state(port)
        left = left_over(now, fresh)
        if not any(left.values()) or time.monotonic() > until:
            return {**now, "left": left}
        await asyncio.sleep(0.2)


async def soak(port: int, seconds: float, name: str, progress: Progress) -> Json:
    """Warm up, visit and leave one server; what was seen."""
    fresh = await state(port)
    warm_up = min(max(seconds / 4, 2.0), 60.0)
    progress.step(f"{name}: warming up")
    await visits(port, warm_up, Tally())
    began = await at_rest(port, fresh)
    tally = Tally()
    under_load: list[Json] = []
    task = asyncio.ensure_future(visits(port, seconds - warm_up, tally))
    for n in range(_STEPS):
        progress.step(f"{name}: {tally.total()} visits, {sum(map(Counter.total, tally.wrong.values()))} wrong")
        await asyncio.wait([task], timeout=(seconds - warm_up) / _STEPS)
        if n < _STEPS - 1:
            under_load.append(await state(port))
    progress.step(f"{name}: the last leave")
    await task
    return {
        "warm_up_seconds": warm_up,
        "seconds": seconds - warm_up,
        "clients": tally.as_json(),
        "began": began,
        "under_load": under_load,
        "ended": await at_rest(port, fresh),
    }


def soak_loop(loop: str, seconds: float, options: Namespace, progress: Progress) -> Json:
    """A server on this event loop, from its start to its end."""
    with Server("benchmarks.soak.server", ("--loop", loop), options.server_core) as server:
        found = asyncio.run(soak(server.port, seconds, loop, progress))
        return {**found, "peak_memory_bytes": server.peak_bytes(), "last_error": server.last_error()}


def add_options(parser: ArgumentParser) -> None:
    """The options of the command that are its own."""
    parser.add_argument("--seconds", type=_seconds, metavar="N", help=f"of clients in all ({SECONDS:.0f})")
    parser.add_argument("--quick", action="store_true", help=f"the same as --seconds {QUICK_SECONDS:.0f}")
    parser.add_argument("--loop", choices=LOOPS, help="only on this event loop (both, one after the other)")


def _seconds(text: str) -> float:
    if not text.isdecimal() or int(text) < 8:
        raise ArgumentTypeError(f"{text!r} is not a number of seconds of at least 8")
    return float(text)


def main(options: Namespace) -> int:
    """Run the command; gives the exit status."""
    loops = [options.loop] if options.loop else [loop for loop in LOOPS if loop == "asyncio" or not missing([loop])]
    seconds = options.seconds or (QUICK_SECONDS if options.quick else SECONDS)
    result: Json = {
        "format": FORMAT,
        "command": "soak",
        "began": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": versions(),
        "loops": {},
    }
    progress = Progress(len(loops) * (_STEPS + 2), sys.stderr)
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {options.load_core})
    try:
        for loop in loops:
            result["loops"][loop] = soak_loop(loop, seconds / len(loops), options, progress)
    finally:
        os.sched_setaffinity(0, allowed)
        progress.close()
    result["failures"] = failures(result)
    path: Path = options.output / "soak.json"
    path.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(tables(result))
    print(f"\nWritten: {path}")
    return 1 if result["failures"] else 0
