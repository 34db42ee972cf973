"""Turns outcomes into the JSON that is kept, and the JSON into tables for the terminal.

Tables and plots are made from the JSON alone, so that a kept result can be shown again.
"""

import re
import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from benchmarks import metrics
from benchmarks.noise import LIMITS, reader_limited
from benchmarks.settings import Settings
from benchmarks.summary import confidence, median_curve, ratio, spread
from benchmarks.targets import verdicts
from benchmarks.turns import Entry, Outcome

FORMAT = 2
"""Changes when a reader of the JSON has to change."""

ENOUGH_ROUNDS = 3
"""Below that there is no spread to speak of."""

Json = dict[str, Any]


def build(command: str, outcomes: Sequence[Outcome], settings: Settings, about: Mapping[str, object]) -> Json:
    """The whole result of a run as a JSON object; `about` holds machine, versions, times."""
    return {
        "format": FORMAT,
        "command": command,
        **about,
        "settings": asdict(settings),
        "noise_limits": dict(LIMITS),
        "workloads": {outcome.workload.name: _workload(outcome) for outcome in outcomes},
        "targets": [found.as_json() for found in verdicts(outcomes)],
    }


def _workload(outcome: Outcome) -> Json:
    base = baseline(outcome.measured)
    return {
        "title": outcome.workload.title,
        "unit": outcome.workload.unit,
        "columns": [asdict(column) for column in outcome.workload.columns],
        "baseline": base.contender.name if base else None,
        "syscalls_missing": outcome.syscalls_missing,
        "contenders": {entry.contender.name: _entry(entry, base) for entry in outcome.entries},
    }


def baseline(entries: Sequence[Entry]) -> Entry | None:
    """What ratios are made against: the first contender of rawstream, else the first that is there."""
    ours = [entry for entry in entries if entry.contender.peer.is_ours]
    return next(iter([*ours, *entries]), None)


def _entry(entry: Entry, base: Entry | None) -> Json:
    found: Json = {
        "title": entry.contender.title,
        "peer": entry.contender.peer.name,
        "variant": entry.contender.variant,
        "state": entry.state,
    }
    if not entry.samples or base is None:
        return {**found, "reason": entry.reason}
    first = entry.samples[0]
    metrics = {name: [sample.metrics[name] for sample in entry.samples] for name in first.metrics}
    summary = {name: spread(values).as_json() for name, values in metrics.items()}
    ratios = {
        name: ratio(values, [sample.metrics[name] for sample in base.samples])
        for name, values in metrics.items()
        if name in base.samples[0].metrics
    }
    return {
        **found,
        "samples": [sample.metrics for sample in entry.samples],
        "noisy": [list(sample.noisy) for sample in entry.samples],
        "reader_limited": reader_limited({name: each["median"] for name, each in summary.items()}),
        "summary": summary,
        "ratios": {name: value.as_json() for name, value in ratios.items() if value},
        "syscalls": entry.syscalls.as_json() if entry.syscalls else None,
        "curves": {
            name: [[share, round(value, 3)] for share, value in median_curve([s.curves[name] for s in entry.samples])]
            for name in first.curves
        },
        "timeline": [list(point) for point in first.timeline],
        "histogram": [sum(counts) for counts in zip(*(sample.histogram for sample in entry.samples), strict=True)],
    }


def tables(result: Json) -> str:
    """The result for the terminal: a table a workload, then the targets and what is to be said about the run."""
    parts = [_table(part) for part in result["workloads"].values()]
    if result["targets"]:
        heading = "Targets (in a noisy run: don't trust a verdict)" if noise(result)[0] else "Targets"
        parts.append("\n".join([heading, *(f"  {target['text']}" for target in result["targets"])]))
    parts.append("\n".join(notes(result)))
    return "\n\n".join(parts)


def _table(part: Json) -> str:
    rows = [["", *(column["heading"] for column in part["columns"])]]
    absent = []
    for contender in part["contenders"].values():
        if measured(contender):
            rows.append([contender["title"], *(_cell(column, contender) for column in part["columns"])])
        else:
            why = f"{contender['state']} ({contender['reason']})" if contender["reason"] else "no turn yet"
            absent.append(f"  {contender['title']}: {why}")
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    ]
    return "\n".join([part["title"], "─" * len(lines[0]), *(line.rstrip() for line in lines), *absent])


def measured(contender: Json) -> bool:
    """Whether a contender has figures: it takes part, and has had a turn."""
    return contender["state"] == "measured" and "samples" in contender


def cell(column: Json, value: float) -> str:
    """A value as its column shows it: scaled, and with its number of digits."""
    return f"{value * column['scale']:,.{column['digits']}f}"


def times(ratio: Json) -> str:
    """How many times rawstream's a figure is; a `~` says that the rounds do not agree which of the two is more."""
    differs = ratio["rounds"] >= ENOUGH_ROUNDS and not ratio["low"] <= 1 <= ratio["high"]
    return f"{'' if differs or ratio['median'] == 1 else '~'}{metrics.times(ratio['median'])}"


def _cell(column: Json, contender: Json) -> str:
    summary = contender["summary"].get(column["metric"])
    if summary is None:
        return "–"  # not every server lets itself be asked
    text = cell(column, summary["median"])
    if column["ratio"]:
        found = contender["ratios"].get(column["metric"])
        compared = times(found) if found else "–"
        text = f"{text} ({cell(column, summary['low'])}–{cell(column, summary['high'])}) {compared.rjust(6)}"
    return text


def notes(result: Json) -> list[str]:
    """What has to be known to read the figures: versions, rounds, and whatever speaks against trusting them."""
    installed = ", ".join(f"{name} {version}" for name, version in result["versions"].items() if version)
    found = [
        f"{installed}; {result['machine']['processor']}, {result['machine']['cores']} cores.",
        f"{rounds_in_words(result)}; medians, (lowest–highest), × rawstream (~: the rounds "
        f"do not agree which is more); {_trust(result)}"
        f"the reader itself: {result['reader']['read_us']:.1f} µs a read, echo {result['reader']['echo_us']:.0f} µs.",
    ]
    if interrupted := result.get("interrupted"):
        found.append(f"Interrupted: {interrupted}")
    if result["settings"]["server_core"] == result["settings"]["load_core"]:
        found.append("Server and load shared a core: nothing here is a server's own speed.")
    if few := few_rounds(result):
        found.append(few)
    noisy, total = noise(result)
    if noisy:
        reasons = "; ".join(f"{count} × {reason}" for reason, count in _reasons(result).most_common(3))
        found.append(f"Noisy: {noisy} of {total} samples ({reasons}). Don't quote small differences.")
    if slow := _slow_cores(result):
        found.append(slow)
    if limited := _where(result, lambda contender: contender["reader_limited"]):
        found.append(f"The reader was busy all the time, and may be the limit, for: {limited}.")
    if limited := _where(result, _could_go_faster):
        found.append(f"The server could have gone faster than its reader (or others on their cores) let it: {limited}.")
    return found


def _trust(result: Json) -> str:
    fewest, most = (f"{confidence(count):.0%}" for count in rounds_of(result))
    span = most if fewest == most else f"{fewest} to {most}"
    return f"the interval of a ratio holds the true one with {span}; "


def _slow_cores(result: Json) -> str:
    """A warning where the cores were mostly slower than they can be: no ratio shows it, since all had to bear it."""
    took = [
        sample["calibration_us"]
        for part in result["workloads"].values()
        for contender in part["contenders"].values()
        for sample in contender.get("samples", ())
        if "calibration_us" in sample
    ]
    slower = statistics.median(took) / min(took) if took else 1.0
    if slower < LIMITS["calibration_apart"]:
        return ""
    return f"The cores were mostly {slower:.1f} times slower than at their best: another run may have quicker ones."


def _could_go_faster(contender: Json) -> bool:
    found = contender["summary"].get("fast_server_busy")
    return found is not None and found["median"] < 0.85


def _where(result: Json, holds: Callable[[Json], bool]) -> str:
    """Those contenders for which this holds."""
    return "; ".join(
        f"{contender['title']} ({name})"
        for name, part in result["workloads"].items()
        for contender in part["contenders"].values()
        if measured(contender) and holds(contender)
    )


def _reasons(result: Json) -> Counter[str]:
    """Why samples were noisy, without the figures in it."""
    return Counter(
        re.sub(r"[\d.,]+%?", "…", reason)
        for part in result["workloads"].values()
        for contender in part["contenders"].values()
        for reasons in contender.get("noisy", ())
        for reason in reasons
    )


def noise(result: Json) -> tuple[int, int]:
    """How many samples were noisy, of how many."""
    samples = [
        reasons
        for part in result["workloads"].values()
        for contender in part["contenders"].values()
        for reasons in contender.get("noisy", ())
    ]
    return sum(map(bool, samples)), len(samples)


def rounds_of(result: Json) -> tuple[int, int]:
    """The fewest and the most rounds that a workload has had."""
    counts = [count for count in map(_rounds, result["workloads"].values()) if count] or [0]
    return min(counts), max(counts)


def few_rounds(result: Json) -> str:
    """A warning where workloads have had too few rounds to be quoted; nothing where all have had enough."""
    few = [name for name in result["workloads"] if 0 < _rounds(result["workloads"][name]) < ENOUGH_ROUNDS]
    if not few:
        return ""
    where = "" if len(few) == len(result["workloads"]) else f" of {', '.join(few)}"
    return f"Fewer than {ENOUGH_ROUNDS} rounds{where}: good for a look, not for quoting."


def _rounds(part: Json) -> int:
    return max((len(each["samples"]) for each in part["contenders"].values() if measured(each)), default=0)


def rounds_in_words(result: Json) -> str:
    """The same for people."""
    fewest, most = rounds_of(result)
    span = f"{fewest} to {most}" if fewest < most else f"{most}"
    return f"{span} {'round' if most == 1 else 'rounds'}"
