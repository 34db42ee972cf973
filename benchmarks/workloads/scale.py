"""`scale`: what a chunk costs with 1, 10, 100, 1,000 and 10,000 connections, with one worker and with two.

The connections share 5,000 events a second: with 1,000 of them each has one every 200 ms. So the same work is done in
every turn, only spread over more connections, and the cost of a chunk can be compared from the first to the last.
rawstream runs as its command line runs it, and no other server takes part: this is to see where a curve bends. Two
workers share the listening socket, and have a core each, none of which is the load's; so they need three. They run
asyncio's loop only, to keep a whole run short.

Measured in a window of its own, as in `paced`:

* CPU time of all processes of the server for each chunk
* latency from `yield` to the `read`: p50, p99
* memory (RSS) of the processes that serve, and, from 100 connections on, by how much it grew for each
* chunks each time that the server wakes up: over its voluntary context switches, of which an event loop makes one when
  it has nothing left to do. It tells how much of the cost of waking up each chunk bears.
* chunks a read: a loop's timers have a grain of 1 ms, so a single stream of 5,000 events a second yields them in fives
* with two workers, the share of the connections that the busier one has by its CPU time
"""

import os
import time
from collections.abc import Sequence
from dataclasses import replace

from benchmarks.answer import WrongAnswer, check_begun, parse
from benchmarks.load import Load, ask, request
from benchmarks.peers import Peer
from benchmarks.process import Server, Window, cpu_ns, resident_bytes
from benchmarks.requests import connect
from benchmarks.settings import Settings
from benchmarks.subscribers import possible
from benchmarks.summary import curve, percentile
from benchmarks.workload import Column, Contender, Sample, Workload
from benchmarks.workloads import paced

RATE = 5_000
"""Events a second, of all connections together: a sixth of what one core can do, so nothing queues."""

SIZES = (1, 10, 100, 1_000, 10_000)
"""Connections."""

_ENOUGH = 100
"""From so many connections on, memory (which comes in pages) is divided by them."""

_AT_ONCE = 200  # streams that have been asked for and not begun: no backlog runs over
_READ_BYTES = 4096
_CORES = os.sched_getaffinity(0)  # of this process, before it holds itself on one of them

PEERS = (
    Peer(
        "rawstream",
        "rawstream",
        "benchmarks.peers.rawstream_workers",
        ("--loop", "asyncio"),
        ("rawstream", "h11"),
        frozenset({"scale"}),
    ),
    Peer(
        "rawstream-uvloop",
        "rawstream, uvloop",
        "benchmarks.peers.rawstream_workers",
        ("--loop", "uvloop"),
        ("rawstream", "h11", "uvloop"),
        frozenset({"scale"}),
    ),
)
"""Who takes part; what they run differs from the other workloads."""


def contenders(peer: Peer) -> Sequence[Contender]:
    """Each size with one worker; and with two on asyncio's loop, where each can have a core and a connection."""
    two = len(_CORES) > 2 and "asyncio" in peer.arguments
    return [
        Contender(
            replace(peer, arguments=(*peer.arguments, "--workers", str(workers))),
            f"{size},{workers}",
            f"{_count(size, 'connection')}, {_count(workers, 'worker')}",
        )
        for workers in ((1, 2) if two else (1,))
        for size in SIZES
        if size >= workers
    ]


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def check(server: Server, contender: Contender, settings: Settings) -> None:
    """The events are right, and all workers serve; each goes to its core."""
    paced.check(server, contender, settings)
    _, count = _sizes(contender, settings)
    for worker, core in zip(_workers(server, count, settings), _cores(settings, count), strict=True):
        os.sched_setaffinity(worker, {core})


def measure(server: Server, contender: Contender, settings: Settings) -> Sample:
    """Open all streams, let them run, and measure in the window."""
    size, count = _sizes(contender, settings)
    workers = _workers(server, count, settings)
    interval = size / RATE
    empty = sum(map(resident_bytes, workers))
    with Load(read_bytes=_READ_BYTES) as load:
        _connect(load, server.port, size, interval, settings.timeout)
        load.run(time.monotonic_ns() + int(settings.paced_warmup * 1e9))
        busy = [cpu_ns(worker) for worker in workers]
        with Window(server, settings.server_core) as window:
            # Half as long as `paced`: there are many turns, with enough chunks in each. But every stream has one.
            load.run(window.began + int(max(settings.paced_seconds / 2, interval) * 1e9))
        busy = [cpu_ns(worker) - before for worker, before in zip(workers, busy, strict=True)]
        full = sum(map(resident_bytes, workers))
        answers = [reader.reads for reader in load.readers]
    latencies, reads = [], 0
    for stream in answers:
        latencies += [event.latency / 1e3 for event in check_begun(parse(stream)) if event.arrived in window.span]
        reads += sum(read.arrived in window.span for read in stream)
    if not latencies:
        raise WrongAnswer("no event came in the time of the measurement")
    latencies.sort()
    common = window.metrics(len(latencies))
    grown = {"memory_per_connection_bytes": (full - empty) / size} if size >= _ENOUGH else {}
    woken = common.get("voluntary_switches", 0.0)
    return Sample(
        metrics={
            "cpu_per_chunk_us": window.used.server / len(latencies) / 1e3,
            "latency_p50_us": percentile(latencies, 0.5),
            "latency_p99_us": percentile(latencies, 0.99),
            "memory_bytes": full,
            **grown,
            "chunks_per_wakeup": 1 / woken if woken else float(len(latencies)),
            "chunks_per_read": len(latencies) / reads,
            "busiest_share": max(busy) / max(sum(busy), 1),
            "delivered": len(latencies) / (RATE * window.used.wall / 1e9),
            "connections": size,
            "workers": count,
            **common,
        },
        curves={"latency": curve(latencies)},
        calls=window.used.calls,
        units=len(latencies),
    )


def _sizes(contender: Contender, settings: Settings) -> tuple[int, int]:
    """Connections, as far as they are to be had, and workers."""
    size, workers = map(int, contender.query.split(","))
    return possible(min(size, settings.idle_connections)), workers


def _cores(settings: Settings, count: int) -> list[int]:
    """A core for each worker, the server's first; none is the load's."""
    others = sorted(_CORES - {settings.server_core, settings.load_core})
    return [settings.server_core, *others][:count]


def _workers(server: Server, count: int, settings: Settings) -> list[int]:
    """The processes that serve: each request may come to another one, so it is asked until all have answered."""
    found: set[int] = set()
    until = time.monotonic() + settings.timeout
    while len(found) < count:
        _, answer, _ = ask(server.port, "/worker", settings.timeout)
        if answer.status != 200:
            raise WrongAnswer(f"/worker answered {answer.status} instead of 200")
        if not answer.body.isdigit():
            raise WrongAnswer(f"/worker answered {answer.body[:40]!r} instead of the number of a process")
        found.add(int(answer.body))
        if time.monotonic() > until:
            raise WrongAnswer(f"only {len(found)} of {count} workers answered in {settings.timeout:.0f} s")
    return sorted(found)


def _connect(load: Load, port: int, size: int, interval: float, timeout: float) -> None:
    """Open the streams, spread over one interval if connecting is as fast as that, and wait until all have begun."""
    # Longer than any measurement: no stream ends by itself.
    message = request(paced.path(max(int(600 / interval), 10), interval))
    start = time.monotonic_ns()
    begun = 0
    for n in range(size):
        load.run(start + int(n * interval / size * 1e9))
        begun = _wait(load, begun, n - _AT_ONCE, timeout)
        sock = connect(port, n)
        sock.sendall(message)
        load.add(sock)
    _wait(load, begun, size, timeout)


def _wait(load: Load, begun: int, wanted: int, timeout: float) -> int:
    """Read until the first so many streams have begun; gives how many have."""
    until = time.monotonic() + timeout
    while True:
        while begun < len(load.readers) and load.readers[begun].reads:
            begun += 1
        if begun >= wanted:
            return begun
        if time.monotonic() > until:
            raise WrongAnswer(f"{begun} of {len(load.readers)} streams have begun in {timeout:.0f} s")
        load.turn(0.01)


SCALE = Workload(
    name="scale",
    title="scale: 5,000 events a second, from 1 to 10,000 connections, with 1 and 2 workers",
    contenders=contenders,
    check=check,
    measure=measure,
    columns=(
        Column("connections", "connections"),
        Column("workers", "workers"),
        Column("cpu_per_chunk_us", "CPU/chunk µs", digits=1, ratio=True),
        Column("latency_p50_us", "p50 µs"),
        Column("latency_p99_us", "p99 µs"),
        Column("memory_bytes", "memory MiB", scale=2**-20, digits=1),
        Column("memory_per_connection_bytes", "bytes/connection"),
        Column("chunks_per_wakeup", "chunks/wake-up", digits=2),
        Column("chunks_per_read", "chunks/read", digits=2),
        Column("busiest_share", "busier worker %", scale=100),
        Column("delivered", "delivered %", scale=100, digits=1),
    ),
)
