"""The project's own targets, held against a run: each a ratio between contenders of that run."""

import operator
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.turns import Entry, Outcome

Median = Callable[[str, str], float]
"""Gives the median of a metric (first) of a contender (second)."""


@dataclass(frozen=True, slots=True)
class Target:
    """`metric` of `ours` over the best of `theirs` must be at most (or, with `at_least`, at least) `wanted`."""

    workload: str
    metric: str
    wanted: float
    at_least: bool = False
    theirs: tuple[str, ...] = ()
    """Names of the peers to compare with; none means all of them."""
    best_at: tuple[str, bool] | None = None
    """What makes a peer the best, if it is another metric: its name, and whether more is better."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """A target in one run."""

    target: Target
    ours: str
    against: str
    ratio: float
    met: bool

    def as_json(self) -> dict[str, object]:
        """The same as a JSON object."""
        target = self.target
        return {
            "text": self.text(),
            "workload": target.workload,
            "metric": target.metric,
            "wanted": target.wanted,
            "at_least": target.at_least,
            "ours": self.ours,
            "against": self.against,
            "ratio": self.ratio,
            "met": self.met,
        }

    def text(self) -> str:
        """One line for people."""
        sign = "≥" if self.target.at_least else "≤"
        mark = "met   " if self.met else "MISSED"
        return (
            f"{mark} {self.target.workload}: {self.target.metric} of {self.ours} is {self.ratio:.2f} × {self.against}"
            f" (wanted {sign} {self.target.wanted:g} ×)"
        )


TARGETS = (
    Target("burst", "events_per_s", 2.0, at_least=True),
    # "At a quarter of its latency": of the same peer, the one with the most events a second.
    Target("burst", "latency_p50_us", 0.25, best_at=("events_per_s", True)),
    Target("paced", "cpu_per_chunk_us", 1.0),
    Target("paced", "cpu_per_chunk_us", 0.9, theirs=("aiohttp", "aiohttp-uvloop")),
    Target("paced", "latency_p50_us", 1.0),
    Target("first", "requests_per_s", 1.2, at_least=True, theirs=("uvicorn-h11",)),
)


def verdicts(outcomes: Sequence[Outcome]) -> list[Verdict]:
    """Hold each target against the run; what was not measured has no verdict."""
    found: list[Verdict] = []
    for outcome in outcomes:
        for target in TARGETS:
            if target.workload == outcome.workload.name:
                found += _verdicts(target, outcome.measured)
    return found


def _verdicts(target: Target, entries: Sequence[Entry]) -> list[Verdict]:
    theirs = [
        entry
        for entry in entries
        if not entry.contender.peer.is_ours
        and not entry.contender.peer.is_floor
        and (not target.theirs or entry.contender.peer.name in target.theirs)
    ]
    if not theirs:
        return []
    best = _best(target, theirs)
    compare = operator.ge if target.at_least else operator.le
    found = []
    for entry in entries:
        if entry.contender.name in ("rawstream", "rawstream-uvloop"):
            ratio = _median(target.metric, entry) / _median(target.metric, best)
            met = compare(ratio, target.wanted)
            found.append(Verdict(target, entry.contender.title, best.contender.title, ratio, met))
    return found


def _best(target: Target, entries: Sequence[Entry]) -> Entry:
    metric, more = target.best_at or (target.metric, target.at_least)
    return (max if more else min)(entries, key=lambda entry: _median(metric, entry))


def _median(metric: str, entry: Entry) -> float:
    return statistics.median(sample.metrics[metric] for sample in entry.samples)
