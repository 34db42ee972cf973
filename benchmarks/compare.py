"""`python -m benchmarks compare A.json B.json`: what changed from one kept result to another.

A figure has changed when its median moved past the threshold, for better or worse, and further than the rounds of
either run were apart: with five rounds or more the middle halves of both (their inter-quartile ranges) must not
overlap, with three or four all of their values. Fewer rounds show no spread, so they decide nothing. A figure that
moved past the threshold but not beyond the spread is `unsure`: more rounds would tell.

Two runs are never on the same machine, not even on the same one: `--relative-to floor` divides each figure, round by
round, by that of a contender that took part in both, so that what slowed down everybody is no change.

Exit status: 0; 1 if anything of rawstream got worse; 2 for files that can't be read, or have nothing in common.
"""

import argparse
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks import metrics, report
from benchmarks.page.looks import is_ours
from benchmarks.summary import Spread, spread

Json = dict[str, Any]

HELP = "what changed between two kept results; exits 1 if rawstream got worse"

_QUARTILES_FROM = 5
"""Rounds from which on a quartile is more than the second highest value."""


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
    relative: bool = False
    """Whether the figures are ratios to another contender."""

    @property
    def ours(self) -> bool:
        """Whether it is rawstream's."""
        return is_ours(self.peer)


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of this command."""
    parser.add_argument("before", type=Path, metavar="A.json", help="the result before")
    parser.add_argument("after", type=Path, metavar="B.json", help="the result after")
    parser.add_argument(
        "--threshold", type=_percent, default=0.1, metavar="10%", help="what is too little to be called a change (10%%)"
    )
    parser.add_argument("--workloads", type=_names, metavar="A,B", help="only these workloads")
    parser.add_argument("--metrics", type=_names, metavar="A,B", help="only these metrics (those in the tables)")
    parser.add_argument("--peers", type=_names, metavar="A,B", help="only these peers (all; rawstream decides)")
    parser.add_argument("--relative-to", metavar="PEER", help="compare ratios to this peer, as in: floor")
    parser.add_argument("--all", action="store_true", help="show what has not changed, too")


def _names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def _percent(text: str) -> float:
    try:
        found = float(text.removesuffix("%")) / 100
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a percentage like 10%") from None
    if not 0 <= found < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a percentage of at least 0")
    return found


def main(options: argparse.Namespace) -> int:
    """Compare; gives the exit status."""
    try:
        before, after = report.read(options.before), report.read(options.after)
    except report.Unreadable as exc:
        print(exc, file=sys.stderr)
        return 2
    found = [change for change in changes(before, after, options) if _wanted(change, options)]
    if not found:
        print(_nothing(before, after, options), file=sys.stderr)
        return 2
    for line in warnings(before, after):
        print(f"Careful: {line}", file=sys.stderr)
    print(table(found, options.all))
    worse = [change for change in found if change.ours and change.verdict == "worse"]
    counts = {verdict: sum(change.verdict == verdict for change in found) for verdict in _VERDICTS}
    print(", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count))
    if worse:
        print(f"rawstream got worse in {len(worse)} of its figures.")
    return 1 if worse else 0


_VERDICTS = ("better", "worse", "unsure", "unchanged")


def changes(before: Json, after: Json, options: argparse.Namespace) -> Iterator[Change]:
    """All figures that stand in both results, in the order of the second."""
    for workload, part in after["workloads"].items():
        earlier = before["workloads"].get(workload, {"contenders": {}})
        for name, entry in part["contenders"].items():
            other = earlier["contenders"].get(name)
            if other is None or not (report.measured(entry) and report.measured(other)):
                continue
            for metric in options.metrics or _metrics(part):
                old = values(earlier, other, metric, options.relative_to)
                new = values(part, entry, metric, options.relative_to)
                if old and new:
                    change = _change(workload, entry, metric, old, new, options.threshold)
                    yield replace(change, relative=options.relative_to is not None)


def _metrics(part: Json) -> list[str]:
    found = (column["metric"] for column in part["columns"])
    return [metric for metric in found if metrics.is_of_the_server(metric)]


def values(part: Json, entry: Json, metric: str, relative_to: str | None) -> list[float]:
    """A metric of each round, perhaps over that of another contender in the same round; none if it is not there."""
    found = [sample[metric] for sample in entry["samples"] if metric in sample]
    if relative_to is None:
        return found
    base = part["contenders"].get(relative_to)
    if base is None or not report.measured(base) or entry is base:
        return []
    others = [sample.get(metric, 0.0) for sample in base["samples"]]
    return [value / other for value, other in zip(found, others, strict=False) if other]


def _change(
    workload: str, entry: Json, metric: str, old: Sequence[float], new: Sequence[float], threshold: float
) -> Change:
    before, after = spread(old), spread(new)
    times = after.median / before.median if before.median > 0 and after.median >= 0 else math.nan
    verdict = "unchanged"
    # What is not above 0 has no ratio: memory that did not grow, say. The targets have limits for such figures.
    if not math.isnan(times) and abs(times - 1) > threshold:
        better = (times > 1) == metrics.more_is_better(metric)
        sure = _apart(before, after, min(len(old), len(new)))
        verdict = ("better" if better else "worse") if sure else "unsure"
    return Change(workload, entry["title"], entry["peer"], metric, before, after, times, verdict)


def _apart(one: Spread, other: Spread, rounds: int) -> bool:
    """Whether two spreads don't overlap, as far as their rounds can tell."""
    if rounds < report.ENOUGH_ROUNDS:
        return False
    if rounds < _QUARTILES_FROM:
        return one.high < other.low or other.high < one.low
    return one.quartile3 < other.quartile1 or other.quartile3 < one.quartile1


def _wanted(change: Change, options: argparse.Namespace) -> bool:
    return (options.peers is None or change.peer in options.peers) and (
        options.workloads is None or change.workload in options.workloads
    )


def _nothing(before: Json, after: Json, options: argparse.Namespace) -> str:
    asked = [
        f"--{name.replace('_', '-')} {value if isinstance(value, str) else ','.join(value)}"
        for name in ("workloads", "metrics", "peers", "relative_to")
        if (value := getattr(options, name))
    ]
    one, other = (", ".join(each["workloads"]) or "nothing" for each in (before, after))
    return (
        f"Nothing to compare{' with ' + ' '.join(asked) if asked else ''}: "
        f"{options.before} has {one}; {options.after} has {other}"
    )


_CONDITIONS: tuple[tuple[str, str, set[str]], ...] = (
    ("machine", "machine", {"load_average"}),
    ("versions", "versions", set()),
    ("sizes", "settings", {"rounds", "server_core", "load_core", "count_calls"}),
)
"""Under what a run was made: what it is called, where it stands in a result, and what of it is no matter."""


def warnings(before: Json, after: Json) -> Iterator[str]:
    """What speaks against comparing these two."""
    for what, part, ignored in _CONDITIONS:
        if found := _differences(before[part], after[part], ignored):
            yield f"other {what}: {found}"
    for which, result in (("before", before), ("after", after)):
        noisy, total = report.noise(result)
        if noisy:
            yield f"the run {which} was noisy in {noisy} of {total} samples"
        if report.rounds_of(result)[0] < report.ENOUGH_ROUNDS:
            yield f"the run {which} has fewer than {report.ENOUGH_ROUNDS} rounds, which decide nothing"
        if "interrupted" in result:
            yield f"the run {which} was interrupted {result['interrupted']}"


def _differences(before: Json, after: Json, ignored: set[str]) -> str:
    """What stands in both, or in one of them, and is not the same."""
    keys = [key for key in sorted({*before, *after} - ignored) if before.get(key) != after.get(key)]
    return ", ".join(f"{key} {_known(before.get(key))} → {_known(after.get(key))}" for key in keys)


def _known(value: object) -> object:
    return "none" if value is None else value


def table(found: Sequence[Change], everything: bool) -> str:
    """A line for each change, below the name of its workload; with `everything`, for what has not changed, too."""
    shown = [change for change in found if everything or change.verdict != "unchanged"]
    if not shown:
        return "No figure has changed past the threshold."
    rows = [
        (change.contender, metrics.name(change.metric), *_figures(change), _loud(change.verdict)) for change in shown
    ]
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    lines: list[str] = []
    now = ""
    for change, (who, what, *figures, verdict) in zip(shown, rows, strict=True):
        if change.workload != now:
            now = change.workload
            lines += ["", now, "─" * len(now)]
        right = [cell.rjust(width) for cell, width in zip(figures, widths[2:-1], strict=True)]
        lines.append("  ".join([who.ljust(widths[0]), what.ljust(widths[1]), *right, verdict]))
    return "\n".join(lines[1:]) + "\n"


def _loud(verdict: str) -> str:
    return verdict.upper() if verdict == "worse" else verdict


def _figures(change: Change) -> tuple[str, str, str]:
    percent = "–" if math.isnan(change.times) else f"{change.times - 1:+.1%}"
    return _shown(change, change.before), f"→ {_shown(change, change.after)}", percent


def _shown(change: Change, values: Spread) -> str:
    def show(value: float) -> str:
        return metrics.times(value) if change.relative else metrics.show(change.metric, value)

    return f"{show(values.median)} ({show(values.low)}–{show(values.high)})"
