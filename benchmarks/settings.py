"""How long and how often: the only place where a run's sizes stand."""

from dataclasses import dataclass

EVENT_BYTES = 26
"""Length of each event: `data: `, a stamp of 18 digits in nanoseconds, an empty line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The sizes of one run. Times are in seconds."""

    rounds: int = 3
    server_core: int = 0
    load_core: int = 1

    paced_readers: int = 200
    paced_interval: float = 0.02
    paced_warmup: float = 0.5
    paced_seconds: float = 4.0

    burst_events: int = 200_000
    burst_warmup: int = 20_000

    first_connections: int = 400
    first_warmup: int = 40
    short_connections: int = 32
    short_warmup: float = 0.3
    short_seconds: float = 2.0

    flush_groups: int = 100
    flush_size: int = 10
    flush_wait: float = 0.01

    timeout: float = 30.0
    """An answer that takes longer than this has failed."""


QUICK = Settings(
    rounds=1,
    paced_warmup=0.3,
    paced_seconds=1.2,
    burst_events=100_000,
    burst_warmup=10_000,
    first_connections=120,
    first_warmup=20,
    short_warmup=0.1,
    short_seconds=0.5,
    flush_groups=60,
)
"""One round of short samples: within a minute for each command. For a look, not for quoting."""
