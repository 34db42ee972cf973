"""`slow`: 1,000 subscribers of one channel, 100 of which read nothing.

20 events a second of 4 KB each, so the kernel's buffers of who reads nothing are full soon and the server must do
something with what comes then. First all 1,000 read; then 100 of them leave, and 100 come that read nothing but their
head. Both halves are of one run of one server, and so a ratio between them says what the slow ones cost the others.

Measured:

* latency of the others from the `POST` to their `read`: p50, p99, with the slow ones and without, and p99's ratio
* their latency from the time when the event was *due*, p99: a publish that had to wait for the last one counts
* memory of the server (RSS) over time; by how much it grew for each of the slow ones, beyond what it grew by without
  them (a log that is kept grows, too): in all, and in the second half, when their buffers have long been full. An event
  that waits for many may be kept once, so a server that keeps all shows little in a short time; but it shows.
* how many of the slow ones the server has cut
"""

import time
from dataclasses import dataclass, field

from benchmarks.answer import WrongAnswer
from benchmarks.channel import check_channel, check_delivered
from benchmarks.process import Server, Window
from benchmarks.settings import Settings
from benchmarks.subscribers import Subscribers
from benchmarks.summary import curve, percentile
from benchmarks.workload import Column, Contender, Sample, Workload, alone


def check(server: Server, contender: Contender, settings: Settings) -> None:
    """Large events, too, come as they were published."""
    check_channel(server, contender, settings, settings.slow_event_bytes)


@dataclass(slots=True)
class _Part:
    """What one part of a turn gave: latencies sorted (µs), and the memory over time (ns, bytes)."""

    latencies: list[float] = field(default_factory=list)
    memory: list[tuple[int, int]] = field(default_factory=list)
    due: list[float] = field(default_factory=list)
    """The same latencies, from the times when the events were due."""
    common: dict[str, float] = field(default_factory=dict)
    """What every workload tells."""

    @property
    def late_growth(self) -> int:
        """How many bytes of memory came in its second half."""
        return self.memory[-1][1] - self.memory[len(self.memory) // 2][1]

    @property
    def growth(self) -> int:
        """How many bytes of memory came in all."""
        return self.memory[-1][1] - self.memory[0][1]


def measure(server: Server, contender: Contender, settings: Settings) -> Sample:
    """All read; then some do not."""
    stalled = settings.slow_stalled
    with Subscribers(server.port, size=settings.slow_event_bytes) as crowd:
        crowd.join(settings.slow_subscribers, settings.timeout)
        for _ in range(3):
            crowd.publish()
            crowd.settle(settings.timeout)
        without = _publish(server, crowd, settings)
        crowd.leave(stalled)
        crowd.join_stalled(stalled, settings.timeout)
        with_slow = _publish(server, crowd, settings)
        cut = crowd.cut_off()
        check_delivered(crowd)
    start = with_slow.memory[0][0]
    p99, p99_without = percentile(with_slow.latencies, 0.99), percentile(without.latencies, 0.99)
    return Sample(
        metrics={
            "others_p50_us": percentile(with_slow.latencies, 0.5),
            "others_p99_us": p99,
            "intended_p99_us": percentile(with_slow.due, 0.99),
            "without_p50_us": percentile(without.latencies, 0.5),
            "without_p99_us": p99_without,
            "others_p99_ratio": p99 / p99_without,
            "held_per_slow_bytes": (with_slow.growth - without.growth) / stalled,
            "growth_per_slow_bytes": (with_slow.late_growth - without.late_growth) / stalled,
            "memory_bytes": with_slow.memory[-1][1],
            "memory_without_bytes": without.memory[-1][1],
            "cut": cut,
            **with_slow.common,
        },
        curves={"others": curve(with_slow.latencies), "without": curve(without.latencies)},
        timeline=[(round((at - start) / 1e6, 1), memory) for at, memory in with_slow.memory],
    )


def _publish(server: Server, crowd: Subscribers, settings: Settings) -> _Part:
    part = _Part()

    def look() -> None:
        part.memory.append((time.monotonic_ns(), server.resident_bytes()))

    with Window(server, settings.server_core) as window:
        stamps = crowd.publish_every(settings.slow_interval, settings.slow_seconds, look)
        crowd.settle(settings.timeout)
        look()
    arrivals = crowd.arrivals
    part.latencies = sorted((arrived - stamp) / 1e3 for stamp in stamps for arrived in arrivals[stamp])
    part.due = sorted((arrived - due) / 1e3 for stamp, due in stamps.items() for arrived in arrivals[stamp])
    part.common = window.metrics(max(len(part.latencies), 1))
    if not part.latencies:
        raise WrongAnswer("no event came in the time of the measurement")
    return part


SLOW = Workload(
    name="slow",
    title="slow: 1,000 subscribers, 100 of which read nothing; 20 events of 4 KB a second",
    contenders=alone,
    check=check,
    measure=measure,
    unit="delivery",
    columns=(
        Column("others_p99_us", "others' p99 µs", ratio=True),
        Column("without_p99_us", "without slow ones"),
        Column("others_p99_ratio", "ratio", digits=2),
        Column("others_p50_us", "others' p50 µs"),
        Column("held_per_slow_bytes", "held/slow one"),
        Column("growth_per_slow_bytes", "growing/slow one"),
        Column("memory_bytes", "memory MiB", scale=2**-20, digits=1),
        Column("memory_without_bytes", "without", scale=2**-20, digits=1),
        Column("cut", "cut"),
        Column("reader_busy", "reader busy %", scale=100),
    ),
)
