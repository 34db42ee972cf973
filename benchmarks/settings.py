"""How long and how often: the only place where a run's sizes stand.

All workloads with all peers have to end within half an hour: three rounds of each, and five of all but those that open
ten thousand connections again and again. That gives a turn a few seconds. What a short turn cannot show (a rare stall)
five short ones show no worse than five long ones.
"""

from dataclasses import dataclass, replace

EVENT_BYTES = 26
"""Length of each event: `data: `, a stamp of 18 digits in nanoseconds, an empty line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The sizes of one run. Times are in seconds."""

    rounds: int = 5
    """Of fewer, a ratio has no interval to trust (`summary`)."""
    count_calls: bool = True
    """Whether each peer has one more turn, in which its system calls are counted."""
    server_core: int = 0
    load_core: int = 1

    paced_readers: int = 200
    paced_interval: float = 0.02
    paced_warmup: float = 0.3
    paced_seconds: float = 1.2

    burst_events: int = 200_000
    burst_warmup: int = 10_000
    burst_seconds: float = 1.0
    """Who has not sent all by then is measured by what came until then."""

    first_connections: int = 200
    first_warmup: int = 25
    short_connections: int = 32
    short_warmup: float = 0.2
    short_seconds: float = 0.6

    flush_groups: int = 50
    flush_size: int = 10
    flush_wait: float = 0.01

    fanout_subscribers: int = 1_000
    fanout_interval: float = 0.05
    fanout_seconds: float = 1.0
    fanout_fast_seconds: float = 0.4
    many_subscribers: int = 15_000
    many_interval: float = 0.5
    many_seconds: float = 1.5
    many_fast_seconds: float = 0.4
    publish_interval: float = 0.005
    probe_interval: float = 0.01

    idle_connections: int = 10_000
    idle_seconds: float = 1.0

    slow_subscribers: int = 1_000
    slow_stalled: int = 100
    slow_interval: float = 0.05
    slow_seconds: float = 2.2
    slow_event_bytes: int = 4_096
    """Large enough that the kernel's buffers of who reads nothing are full within a second or two."""

    timeout: float = 30.0
    """An answer that takes longer than this has failed."""

    def counting(self) -> "Settings":
        """The sizes of a turn that counts system calls: short, and so little that a server keeps up under strace."""
        return replace(
            self,
            paced_readers=min(self.paced_readers, 20),
            paced_seconds=min(self.paced_seconds, 0.5),
            burst_events=min(self.burst_events, 20_000),
            burst_warmup=min(self.burst_warmup, 500),
            burst_seconds=min(self.burst_seconds, 1.0),
            first_connections=min(self.first_connections, 20),
            first_warmup=min(self.first_warmup, 2),
            short_seconds=min(self.short_seconds, 0.3),
            fanout_subscribers=min(self.fanout_subscribers, 100),
            fanout_seconds=min(self.fanout_seconds, 0.5),
            fanout_fast_seconds=min(self.fanout_fast_seconds, 0.1),
        )


QUICK = Settings(
    rounds=1,
    count_calls=False,
    paced_warmup=0.2,
    paced_seconds=0.6,
    burst_events=40_000,
    burst_warmup=2_000,
    burst_seconds=0.3,
    first_connections=60,
    first_warmup=10,
    short_warmup=0.05,
    short_seconds=0.25,
    fanout_seconds=0.5,
    fanout_fast_seconds=0.2,
    many_subscribers=1_500,
    many_interval=0.25,
    many_seconds=0.5,
    many_fast_seconds=0.2,
    idle_connections=1_500,
    idle_seconds=0.5,
    slow_seconds=1.6,
)
"""One round of short samples: each command ends within a minute. For a look, not for quoting."""
