"""`paced`: 200 readers, each with its own stream, an event every 20 ms.

Each generator sleeps until its next intended time (the first event's time plus n x 20 ms) by `asyncio.sleep`. Readers
connect one after the other over one interval, as independent readers would, so the events are spread over it.

Measured in a window that begins when all streams have run for a while and ends before any ends:

* latency from `yield` (the stamp in the event) to the return of the `recv` that brought it: p50, p99, p99.9
* latency from the *intended* time to the same moment: a server that falls behind can't hide it by stamping late
* CPU time of the server for each event
* delivered: the events that came, over those that were due in the window
"""

import time
from collections.abc import Sequence

from benchmarks.answer import Event, Read, WrongAnswer, check_events, check_head, events_of, parse
from benchmarks.load import Load, ask
from benchmarks.process import Server, usage
from benchmarks.settings import Settings
from benchmarks.summary import curve, percentile
from benchmarks.workload import Column, Contender, Sample, Workload, alone

_READ_BYTES = 4096
"""Enough for any read of a paced stream; a larger buffer costs the reader time for each read."""


def path(events: int, interval: float) -> str:
    """The path that asks for a paced stream."""
    return f"/paced?events={events}&interval={interval}"


def check(server: Server, contender: Contender, settings: Settings) -> None:
    """Five events, one by one."""
    _, answer, _ = ask(server.port, path(5, 0.002), settings.timeout)
    check_events(answer, 5)


def measure(server: Server, contender: Contender, settings: Settings) -> Sample:
    """Open all streams, let them run, and measure in the window."""
    interval = settings.paced_interval
    lasts = interval + settings.paced_warmup + settings.paced_seconds
    # The streams run on past the window, so that none ends within it.
    target = path(int(2 * lasts / interval) + 1, interval)
    with Load(read_bytes=_READ_BYTES) as load:
        _connect(load, server.port, target, settings.paced_readers, interval)
        load.run(time.monotonic_ns() + int(settings.paced_warmup * 1e9))
        before = usage(server, settings.server_core)
        load.run(before.wall + int(settings.paced_seconds * 1e9))
        used = usage(server, settings.server_core) - before
        streams = [_events(reader.reads) for reader in load.readers]
    window = range(before.wall, before.wall + used.wall)
    return _summarise(streams, window, interval, used.server, used.shares())


def _connect(load: Load, port: int, target: str, readers: int, interval: float) -> None:
    """Open the streams, spread over one interval."""
    start = time.monotonic_ns()
    for n in range(readers):
        load.run(start + int(n * interval / readers * 1e9))
        load.ask(port, target)


def _events(reads: Sequence[Read]) -> list[Event]:
    answer = parse(reads)
    check_head(answer)
    return events_of(answer).events


def _summarise(
    streams: Sequence[Sequence[Event]], window: range, interval: float, cpu: int, shares: dict[str, float]
) -> Sample:
    latencies: list[float] = []
    intended: list[float] = []
    step = interval * 1e9
    for events in streams:
        for n, event in enumerate(events):
            if event.arrived in window:
                latencies.append(event.latency / 1e3)
                intended.append((event.arrived - events[0].stamped - n * step) / 1e3)
    if not latencies:
        raise WrongAnswer("no event came in the time of the measurement")
    due = len(streams) * len(window) / step
    shown = [event for event in streams[0] if event.arrived in window][:50]
    start = shown[0].stamped if shown else 0
    return Sample(
        metrics={
            **_percentiles("latency", latencies),
            **_percentiles("intended", intended),
            "cpu_per_chunk_us": cpu / len(latencies) / 1e3,
            "delivered": len(latencies) / due,
            "chunks": len(latencies),
            **shares,
        },
        curves={"latency": curve(latencies), "intended": curve(intended)},
        timeline=[(round((event.arrived - start) / 1e6, 4), 1) for event in shown],
    )


def _percentiles(name: str, values: list[float]) -> dict[str, float]:
    values.sort()
    shares = {"p50": 0.5, "p99": 0.99, "p999": 0.999}
    return {f"{name}_{label}_us": percentile(values, share) for label, share in shares.items()}


PACED = Workload(
    name="paced",
    title="paced: 200 readers, an event every 20 ms",
    contenders=alone,
    check=check,
    measure=measure,
    columns=(
        Column("cpu_per_chunk_us", "CPU/chunk µs", digits=1, ratio=True),
        Column("latency_p50_us", "p50 µs", ratio=True),
        Column("latency_p99_us", "p99 µs"),
        Column("latency_p999_us", "p99.9 µs"),
        Column("intended_p50_us", "late p50 µs"),
        Column("intended_p99_us", "late p99 µs"),
        Column("delivered", "delivered %", scale=100, digits=1),
    ),
)
"""The workload; "late" is the latency against the intended time."""
