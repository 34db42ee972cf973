"""`flush`: what reaches the reader when.

One reader; the handler yields groups of 10 events with no wait within a group and 10 ms between groups. rawstream
takes part with each of its flush policies (before each wait, each item, gathered on purpose), and everybody with
Nagle's algorithm off (as all servers set it) and on.

Measured:

* events a chunk, chunks a read: who gathers, the server or the kernel
* bytes a segment: what the server gave the kernel in one write, as long as Nagle is off and no write is over 64 KB
* reads a group: 1 is a group that arrives whole
* latency from `yield` to the return of the `recv`: p50, p99
* the gaps between reads, as a histogram
"""

import itertools
import time
from collections import Counter
from collections.abc import Sequence

from benchmarks.answer import Event, check_events, parse
from benchmarks.load import Load, ask, segments_in
from benchmarks.peers import Peer
from benchmarks.process import Server, Window
from benchmarks.settings import Settings
from benchmarks.summary import curve, histogram, percentile
from benchmarks.workload import Column, Contender, Sample, Workload

GAP_EDGES_US = (10, 30, 100, 300, 1_000, 3_000, 10_000, 30_000, 100_000)
"""The edges of the gap histogram, in microseconds: three a decade, from below one write to above a delayed ACK."""

_POLICIES = {"wait": "before wait", "item": "each item", "every": "Every 16 KiB or 5 ms"}


def contenders(peer: Peer) -> Sequence[Contender]:
    """Each policy (rawstream only) with Nagle off and on; off only for rawstream's second loop."""
    policies = {f"&policy={key}": name for key, name in _POLICIES.items()} if peer.is_ours else {"": ""}
    return [
        Contender(peer, f"&nagle={nagle}{query}", ", ".join(filter(None, [name, "Nagle" if nagle else ""])))
        for nagle in ((0,) if peer.name == "rawstream-uvloop" else (0, 1))
        for query, name in policies.items()
    ]


def path(contender: Contender, groups: int, size: int, wait: float) -> str:
    """The path that asks for groups of events."""
    return f"/flush?groups={groups}&size={size}&wait={wait}{contender.query}"


def check(server: Server, contender: Contender, settings: Settings) -> None:
    """Three groups, which also warm the server up."""
    _, answer, _ = ask(server.port, path(contender, 3, settings.flush_size, 0.001), settings.timeout)
    check_events(answer, 3 * settings.flush_size)


def measure(server: Server, contender: Contender, settings: Settings) -> Sample:
    """Read the groups, and see how they came."""
    groups, size, wait = settings.flush_groups, settings.flush_size, settings.flush_wait
    with Load() as load:
        with Window(server, settings.server_core) as window:
            reader = load.ask(server.port, path(contender, groups, size, wait))
            load.run(time.monotonic_ns() + int((settings.timeout + groups * wait) * 1e9))
        segments = segments_in(reader.sock)
    answer = parse(reader.reads)
    events = check_events(answer, groups * size)
    latencies = sorted(event.latency / 1e3 for event in events)
    times = [read.arrived / 1e3 for read in reader.reads]
    received = sum(len(read.data) for read in reader.reads)
    return Sample(
        metrics={
            "events_per_chunk": len(events) / len(answer.chunks),
            "chunks_per_read": len(answer.chunks) / len(reader.reads),
            "reads_per_group": len(reader.reads) / groups,
            "segment_bytes": received / segments if segments else 0.0,
            "latency_p50_us": percentile(latencies, 0.5),
            "latency_p99_us": percentile(latencies, 0.99),
            "cpu_per_event_us": window.used.server / len(events) / 1e3,
            **window.metrics(len(events)),
        },
        curves={"latency": curve(latencies)},
        timeline=_timeline(_typical([events[at : at + size] for at in range(0, len(events), size)])),
        histogram=histogram(
            [later - earlier for earlier, later in itertools.pairwise(times)],
            GAP_EDGES_US,
        ),
    )


def _typical(groups: Sequence[Sequence[Event]]) -> Sequence[Event]:
    """The group that took the median time from its first yield to its last read."""
    ordered = sorted(groups, key=lambda group: group[-1].arrived - group[0].stamped)
    return ordered[len(ordered) // 2]


def _timeline(events: Sequence[Event]) -> list[tuple[float, int]]:
    """The yields (0) and the reads (how many events each brought) of one group, in ms since the first yield."""
    start = events[0].stamped
    reads = Counter(event.arrived for event in events)
    yields = [(event.stamped, 0) for event in events]
    return [(round((at - start) / 1e6, 4), count) for at, count in [*yields, *reads.items()]]


FLUSH = Workload(
    name="flush",
    title="flush: groups of 10 events, 10 ms between groups",
    contenders=contenders,
    check=check,
    measure=measure,
    unit="event",
    columns=(
        Column("events_per_chunk", "events/chunk", digits=1),
        Column("chunks_per_read", "chunks/read", digits=1),
        Column("segment_bytes", "bytes/write"),
        Column("reads_per_group", "reads/group", digits=1),
        Column("latency_p50_us", "p50 µs", ratio=True),
        Column("latency_p99_us", "p99 µs"),
        Column("cpu_per_event_us", "CPU/event µs", digits=1, ratio=True),
    ),
)
