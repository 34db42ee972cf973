"""`python -m benchmarks compare A.json B.json`: what changed from one kept result to another.

`changes` has the rules. Two runs are never on the same machine, not even on the same one: `--relative-to floor` divides
each figure, round by round, by that of a contender that took part in both, so that what slowed down everybody is no
change.

Exit status: 0; 1 if a figure that decides got worse for rawstream (`Wanted.decides`), or if something of rawstream that
was measured before was not after: it failed, it answered wrongly, or it did not take part; 2 for files that can't be
read, or have nothing in common.
"""

import argparse
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks import kept, metrics, report
from benchmarks.changes import VERDICTS, Change, Gone, Wanted, changes, gone
from benchmarks.options import names
from benchmarks.page.looks import is_ours
from benchmarks.summary import Spread

Json = dict[str, Any]

HELP = "what changed between two kept results; exits 1 if rawstream got worse or is gone"

_DESCRIPTION = """\
Compares two kept results. A figure is better or worse when its median moved past the threshold and every round of one
run is beyond every round of the other, with five rounds each (or four and five): by chance alone that is one time in
252. Exits 1 if rawstream got worse in a figure that the project's targets name (or --metrics), if it no longer delivers
all that is due, or if something of it that was measured before was not after.
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of this command."""
    parser.description = _DESCRIPTION
    parser.add_argument("before", type=Path, metavar="A.json", help="the result before")
    parser.add_argument("after", type=Path, metavar="B.json", help="the result after")
    parser.add_argument(
        "--threshold", type=_percent, default=0.1, metavar="10%", help="what is too little to be called a change (10%%)"
    )
    parser.add_argument("--workloads", type=names, default=[], metavar="A,B", help="only these workloads")
    parser.add_argument(
        "--metrics",
        type=names,
        default=[],
        metavar="A,B",
        help="only these metrics, which then decide (all in the tables)",
    )
    parser.add_argument(
        "--peers", type=names, default=[], metavar="A,B", help="only these peers (all; rawstream decides)"
    )
    parser.add_argument("--relative-to", metavar="PEER", help="compare ratios to this peer, as in: floor")
    parser.add_argument("--all", action="store_true", help="show what has not changed, too")


def _percent(text: str) -> float:
    try:
        found = float(text.removesuffix("%")) / 100
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a percentage like 10%") from None
    if not 0 <= found < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a percentage of at least 0")
    if 0 < found < 0.01 and not text.endswith("%"):
        raise argparse.ArgumentTypeError(
            f"{text!r} is less than 1 %: write {text}% if that is meant, else {found * 1e4:g}%"
        )
    return found


def main(options: argparse.Namespace) -> int:
    """Compare; gives the exit status."""
    try:
        before, after = kept.read(options.before), kept.read(options.after)
    except kept.Unreadable as exc:
        print(exc, file=sys.stderr)
        return 2
    wanted = Wanted(options.workloads, options.peers, options.metrics, options.threshold, options.relative_to)
    found, lost = list(changes(before, after, wanted)), list(gone(before, after, wanted))
    if wrong := _unknown(before, after, wanted) or _nothing(before, after, options, found, lost):
        print(wrong, file=sys.stderr)
        return 2
    for line in [*warnings(before, after), *_too_few(found)]:
        print(f"Careful: {line}", file=sys.stderr)
    for each in lost:
        print(f"Gone: {each.words}")
    print(table(found, options.all))
    counts = {verdict: sum(change.verdict == verdict for change in found) for verdict in VERDICTS}
    print(", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count))
    return _status(found, lost, wanted)


def _status(found: Sequence[Change], lost: Sequence[Gone], wanted: Wanted) -> int:
    """Say what it comes to for rawstream; gives the exit status."""
    worse = [change for change in found if change.verdict == "worse" and is_ours(change.peer)]
    decisive = [change for change in worse if wanted.decides(change)]
    if decisive:
        print(f"rawstream got worse in {len(decisive)} of the figures that decide.")
    elif worse:
        print(f"rawstream got worse in {len(worse)} of its figures; none decides, and of so many some do by chance.")
    missed = any(each.ours for each in lost)
    if missed:
        print("Something of rawstream is gone. (--workloads and --peers say what is to be compared.)")
    return 1 if decisive or missed else 0


def _unknown(before: Json, after: Json, wanted: Wanted) -> str:
    """The first name that is asked for and stands in neither result, in a line."""
    parts = [part for result in (before, after) for part in result["workloads"].values()]
    entries = [entry for part in parts for entry in part["contenders"].values()]
    known = {
        "workload": (wanted.workloads, {*before["workloads"], *after["workloads"]}),
        "peer": (wanted.peers, {entry["peer"] for entry in entries}),
        "metric": (wanted.metrics, {name for entry in entries for each in entry.get("samples", ()) for name in each}),
    }
    for what, (asked, there) in known.items():
        for name in asked:
            if name not in there:
                return f"no {what} {name!r} in either result; there are: {', '.join(sorted(there))}"
    return ""


def _nothing(
    before: Json, after: Json, options: argparse.Namespace, found: Sequence[Change], lost: Sequence[Gone]
) -> str:
    """That the two have nothing in common, in a line, if so."""
    if found or (lost and before["workloads"].keys() & after["workloads"].keys()):
        return ""
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
        if "interrupted" in result:
            yield f"the run {which} was interrupted {result['interrupted']}"


def _too_few(found: Sequence[Change]) -> Iterator[str]:
    """Where there are not enough rounds to call anything changed."""
    if few := list(dict.fromkeys(change.workload for change in found if not change.enough)):
        yield f"not enough rounds to tell in {', '.join(few)}: it takes five before and after, or four of one of them"


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
