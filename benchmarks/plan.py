"""How long a run is expected to take.

Each turn is expected to take what its sizes say, and what starting a server and reading its answers cost on top. It is
to be told before anything was measured; from the second round on, it is known what a round takes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.progress import in_words
from benchmarks.settings import Settings
from benchmarks.turns import Outcome, counting_turns
from benchmarks.workload import Workload

_START = 0.5  # seconds: a server starts, is checked, and is ended; the machine is looked at
_OPENING = 0.0005  # seconds to open a connection and see that it is served
COUNTING = 1.4  # seconds of a turn that counts system calls, which is short everywhere


def turn_seconds(workload: Workload, settings: Settings) -> float:
    """What a turn of a workload takes, about: the mean of all who take part."""
    s = settings
    paced = s.paced_warmup + s.paced_seconds + 0.2
    publishing = 50 * s.publish_interval + 0.3
    known = {
        "paced": paced,
        "paced-tls": paced + 0.5,
        "paced-gzip": paced,
        "burst": min(s.burst_events * 8e-6, s.burst_seconds) + 0.3,
        "first": s.first_connections * 0.001 + s.short_warmup + 2 * s.short_seconds + 0.1,
        "flush": s.flush_groups * (s.flush_wait + 0.001),
        "fanout": publishing + s.fanout_subscribers * _OPENING + 1.5 * s.fanout_seconds + 2 * s.fanout_fast_seconds,
        "fanout-many": publishing + s.many_subscribers * _OPENING + 1.5 * s.many_seconds + 2 * s.many_fast_seconds,
        "idle": s.idle_connections * _OPENING + s.idle_seconds + 0.6,
        "slow": s.slow_subscribers * _OPENING + 2 * s.slow_seconds + 0.2,
        "scale": s.paced_warmup + s.paced_seconds / 2 + 0.5 * s.idle_connections * _OPENING + 0.3,
    }
    return _START + known.get(workload.name, 3.0)


@dataclass(frozen=True, slots=True)
class Plan:
    """What will be run: the workloads with who takes part, and the seconds (if limited) in which all has to end."""

    outcomes: Sequence[Outcome]
    settings: Settings
    limit: float | None = None

    def round_seconds(self, outcome: Outcome) -> float:
        """What a round of a workload takes."""
        return len(outcome.racing) * turn_seconds(outcome.workload, self.settings)

    def counting_turns(self, outcome: Outcome) -> int:
        """The turns of a workload that count system calls."""
        return counting_turns(outcome, self.settings)

    @property
    def counting_seconds(self) -> float:
        """What counting system calls takes, of all workloads."""
        return COUNTING * sum(map(self.counting_turns, self.outcomes))

    @property
    def turns(self) -> int:
        """How many turns there are, if there is time for all rounds."""
        timed = self.settings.rounds * sum(len(outcome.racing) for outcome in self.outcomes)
        return timed + sum(map(self.counting_turns, self.outcomes))

    @property
    def seconds(self) -> float:
        """What all rounds take, however long that is."""
        return self.settings.rounds * sum(map(self.round_seconds, self.outcomes)) + self.counting_seconds

    def text(self) -> str:
        """For people, before it begins."""
        rounds = f"{self.settings.rounds} {'round' if self.settings.rounds == 1 else 'rounds'}"
        if self.limit is not None and self.seconds > self.limit:
            head = f"This takes {in_words(self.limit)}: as many rounds as there is time for, up to {rounds}, each of"
        else:
            head = f"This takes about {in_words(self.seconds)}: {rounds}, each of"
        names = [outcome.workload.name for outcome in self.outcomes]
        width = max(map(len, names), default=0)
        lines = [
            f"  {name.ljust(width)}  {len(outcome.racing):3} contenders, {in_words(self.round_seconds(outcome))}"
            for name, outcome in zip(names, self.outcomes, strict=True)
        ]
        if self.counting_seconds:
            lines.append(f"and turns that count system calls, {in_words(self.counting_seconds)}")
        return "\n".join([head, *lines])
