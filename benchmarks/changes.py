"""What changed between two results, and what is gone. No I/O; `compare` is the command that shows it.

A figure has changed, for better or worse, when its median moved past the threshold and every round of one run is beyond
every round of the other. Rounds that differ by chance alone are rarely dealt like that: with five rounds each, one time
in 252 (`summary.luck`). It has to be less than one time in a hundred, so three rounds, or four of each, can't tell.
What moved past the threshold and is not known to have changed is `unsure`, and so is what has no ratio, since it was or
became nothing.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks import metrics, report
from benchmarks.page.looks import is_ours
from benchmarks.summary import Spread, luck, spread
from benchmarks.targets import TARGETS

Json = dict[str, Any]

VERDICTS = ("better", "worse", "unsure", "unchanged")

_LUCK = 0.01
"""How often rounds may be this far apart by chance, and count as apart."""

_TARGETED = {(target.workload, target.metric) for target in TARGETS}
_KEEPING_UP = {"delivered", "published"}
"""All of what is due, where a server keeps up."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is compared; none means all, and of metrics those in the tables."""

    workloads: Sequence[str] = ()
    peers: Sequence[str] = ()
    metrics: Sequence[str] = ()
    threshold: float = 0.1
    """What is too little to be called a change (0.1 is 10 %)."""
    relative_to: str | None = None
    """A contender over whose figures each is taken."""

    def has(self, workload: str, peer: str) -> bool:
        """Whether a peer is compared in a workload."""
        return (not self.workloads or workload in self.workloads) and (not self.peers or peer in self.peers)

    def decides(self, change: "Change") -> bool:
        """Whether a change is one to fail for.

        Of hundreds of figures one gets worse by chance in every third comparison. So it takes one of rawstream that the
        project's targets are held against, or that was asked for by its name: they are few. And rawstream has to keep
        up, which never fails by chance.
        """
        known = (change.workload, change.metric) in _TARGETED or change.metric in _KEEPING_UP
        return change.verdict == "worse" and is_ours(change.peer) and (known or bool(self.metrics))


@dataclass(frozen=True, slots=True)
class Change:
    """A metric of a contender in both results; `times` is after over before, and `verdict` what to think of it."""

    workload: str
    contender: str
    peer: str
    metric: str
    before: Spread
    after: Spread
    times: float
    verdict: str
    enough: bool
    """Whether there are rounds enough to tell."""
    relative: bool = False
    """Whether the figures are ratios to another contender."""


@dataclass(frozen=True, slots=True)
class Gone:
    """What was measured before, and is not after: one contender in a workload, or all."""

    words: str
    peers: list[str] = field(default_factory=list)

    @property
    def ours(self) -> bool:
        """Whether rawstream is among them."""
        return any(map(is_ours, self.peers))


def changes(before: Json, after: Json, wanted: Wanted) -> Iterator[Change]:
    """All figures that stand in both results, in the order of the second."""
    for workload, part in after["workloads"].items():
        earlier = before["workloads"].get(workload, {"contenders": {}})
        for name, entry in part["contenders"].items():
            other = earlier["contenders"].get(name)
            if not (wanted.has(workload, entry["peer"]) and _measured(other) and _measured(entry)):
                continue
            for metric in wanted.metrics or _metrics(part):
                old = _values(earlier, other, metric, wanted.relative_to)
                new = _values(part, entry, metric, wanted.relative_to)
                if old and new:
                    yield _change(workload, entry, metric, old, new, wanted)


def gone(before: Json, after: Json, wanted: Wanted) -> Iterator[Gone]:
    """What was measured before, and is not after; a workload that is missing altogether is told once."""
    for workload, part in before["workloads"].items():
        had = {
            name: entry
            for name, entry in part["contenders"].items()
            if _measured(entry) and wanted.has(workload, entry["peer"])
        }
        later = after["workloads"].get(workload)
        if later is None:
            if had:
                yield Gone(f"{workload}: all of it", [entry["peer"] for entry in had.values()])
            continue
        for name, entry in had.items():
            now = later["contenders"].get(name)
            if not _measured(now):
                yield Gone(f"{workload}: {entry['title']} ({_why(now)})", [entry["peer"]])


def _measured(entry: Json | None) -> bool:
    return entry is not None and report.measured(entry)


def _why(entry: Json | None) -> str:
    """Why a contender has no figures."""
    if entry is None:
        return "did not take part"
    return f"{entry['state']}: {entry['reason']}" if entry.get("reason") else "had no turn"


def _metrics(part: Json) -> list[str]:
    found = (column["metric"] for column in part["columns"])
    return [metric for metric in found if metrics.is_of_the_server(metric)]


def _values(part: Json, entry: Json, metric: str, relative_to: str | None) -> list[float]:
    """A metric of each round, perhaps over that of another contender in the same round; none if it is not there."""
    found = [sample[metric] for sample in entry["samples"] if metric in sample]
    if relative_to is None:
        return found
    base = part["contenders"].get(relative_to)
    if not _measured(base) or entry is base:
        return []
    others = [sample.get(metric, 0.0) for sample in base["samples"]]
    return [value / other for value, other in zip(found, others, strict=False) if other]


def _change(
    workload: str, entry: Json, metric: str, old: Sequence[float], new: Sequence[float], wanted: Wanted
) -> Change:
    before, after = spread(old), spread(new)
    enough = luck(len(old), len(new)) <= _LUCK
    apart = before.high < after.low or after.high < before.low
    times = after.median / before.median if before.median > 0 and after.median > 0 else math.nan
    if before.median == after.median or abs(times - 1) <= wanted.threshold:
        verdict = "unchanged"
    elif enough and apart and not math.isnan(times):
        verdict = "better" if (times > 1) == metrics.more_is_better(metric) else "worse"
    else:
        verdict = "unsure"
    relative = wanted.relative_to is not None
    return Change(workload, entry["title"], entry["peer"], metric, before, after, times, verdict, enough, relative)
