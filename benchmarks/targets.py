"""The project's own targets, held against a run: ratios between contenders of that run, and a few plain limits."""

import operator
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.summary import CONFIDENCE, ratio
from benchmarks.turns import Entry, Outcome
from benchmarks.workloads.idle import HANDLER

Median = Callable[[str, str], float]
"""Gives the median of a metric (first) of a contender (second)."""


@dataclass(frozen=True, slots=True)
class Target:
    """`metric` of `ours` over the best of `theirs` must be at most (or, with `at_least`, at least) `wanted`.

    With `plain`, it is the metric itself that must.
    """

    workload: str
    metric: str
    wanted: float
    at_least: bool = False
    theirs: tuple[str, ...] = ()
    """Names of the peers to compare with; none means all of them but the floors."""
    best_at: tuple[str, bool] | None = None
    """What makes a peer the best, if it is another metric: its name, and whether more is better."""
    variant: str = ""
    """Which of a workload's variants is held against it."""
    plain: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """A target in one run."""

    target: Target
    ours: str
    against: str
    """The title of the best of the others; nothing for a plain limit, whose `ratio` is the metric itself."""
    ratio: float
    met: bool
    low: float
    high: float
    """The interval of the ratio (`summary`); of a plain limit, the range of the metric."""
    sure: bool
    """Whether the whole interval says the same, and is one to trust."""

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
            "low": self.low,
            "high": self.high,
            "sure": self.sure,
        }

    def text(self) -> str:
        """One line for people."""
        sign = "≥" if self.target.at_least else "≤"
        mark = "met   " if self.met else "MISSED"
        if self.target.plain:
            value = f"{self.ratio:,.{0 if self.ratio >= 100 else 2}f}"
            return (
                f"{mark} {self.target.workload}: {self.target.metric} of {self.ours} is {value}"
                f" (wanted {sign} {self.target.wanted:,g})"
            )
        return (
            f"{mark} {self.target.workload}: {self.target.metric} of {self.ours} is {self.ratio:.2f} × {self.against}"
            f" (wanted {sign} {self.target.wanted:g} ×)"
        )


_PYTHON = (
    "aiohttp", "aiohttp-uvloop", "uvicorn", "uvicorn-h11", "fastapi", "sse-starlette", "hypercorn", "granian",
)  # fmt: skip
_OTHERS = ("nchan", "go", "node")
_FLOORS = ("floor-c", "floor")

TARGETS = (
    Target("burst", "events_per_s", 2.0, at_least=True),
    # "At a quarter of its latency": of the same peer, the one with the most events a second.
    Target("burst", "latency_p50_us", 0.25, best_at=("events_per_s", True)),
    Target("paced", "cpu_per_chunk_us", 1.0, theirs=_PYTHON),
    Target("paced", "cpu_per_chunk_us", 0.9, theirs=("aiohttp", "aiohttp-uvloop")),
    Target("paced", "latency_p50_us", 1.0, theirs=("go",)),
    Target("first", "requests_per_s", 1.2, at_least=True, theirs=("uvicorn-h11",)),
    *(
        Target(workload, "cpu_per_delivery_us", wanted, theirs=theirs)
        for workload in ("fanout", "fanout-many")
        for wanted, theirs in ((1.5, _FLOORS), (1.0, _OTHERS), (0.5, _PYTHON))
    ),
    # A broadcast that holds the loop starves `accept`, and everybody else's timers.
    Target("fanout-many", "lag_p99_us", 10_000, plain=True),
    Target("fanout-many", "fast_lag_p99_us", 10_000, plain=True),
    Target("idle", "memory_per_connection_bytes", 8 * 1024, plain=True),
    Target("idle", "memory_per_connection_bytes", 12 * 1024, variant=HANDLER, plain=True),
    Target("slow", "others_p99_ratio", 1.2, plain=True),
    # Not 0: memory comes in pages. In that time 240 KB wait for each of them.
    Target("slow", "growth_per_slow_bytes", 4 * 1024, plain=True),
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
    same = [entry for entry in entries if entry.contender.variant == target.variant]
    theirs = [entry for entry in same if _takes_part(target, entry)]
    if not theirs and not target.plain:
        return []
    compare = operator.ge if target.at_least else operator.le
    found = []
    for entry in same:
        if entry.contender.peer.name in ("rawstream", "rawstream-uvloop"):
            values, best = _values(target.metric, entry), None if target.plain else _best(target, theirs)
            held = ratio(values, [1.0] * len(values) if best is None else _values(target.metric, best))
            if held is None:
                continue  # the best of the others is 0: nothing to divide by
            met = compare(held.median, target.wanted)
            agrees = met == compare(held.low, target.wanted) == compare(held.high, target.wanted)
            found.append(
                Verdict(
                    target,
                    entry.contender.title,
                    "" if best is None else best.contender.title,
                    held.median,
                    met,
                    held.low,
                    held.high,
                    agrees and held.confidence >= CONFIDENCE,
                )
            )
    return found


def _takes_part(target: Target, entry: Entry) -> bool:
    peer = entry.contender.peer
    return peer.name in target.theirs if target.theirs else not (peer.is_ours or peer.is_floor)


def _best(target: Target, entries: Sequence[Entry]) -> Entry:
    metric, more = target.best_at or (target.metric, target.at_least)
    return (max if more else min)(entries, key=lambda entry: _median(metric, entry))


def _values(metric: str, entry: Entry) -> list[float]:
    return [sample.metrics[metric] for sample in entry.samples]


def _median(metric: str, entry: Entry) -> float:
    return statistics.median(_values(metric, entry))
