"""Turns outcomes into the JSON that is kept, and the JSON into tables for the terminal.

Tables and plots are made from the JSON alone, so that a kept result can be shown again.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from benchmarks.settings import Settings
from benchmarks.summary import median_curve, ratio, spread
from benchmarks.targets import verdicts
from benchmarks.turns import Entry, Outcome
from benchmarks.workload import Column, Workload

FORMAT = 1
"""Changes when a reader of the JSON has to change."""

NOISY = 0.05
"""A sample is noisy when others took more than this share of the server's core."""

Json = dict[str, Any]


def build(command: str, outcomes: Sequence[Outcome], settings: Settings, about: Mapping[str, object]) -> Json:
    """The whole result of a run as a JSON object; `about` holds machine, versions, times."""
    return {
        "format": FORMAT,
        "command": command,
        **about,
        "settings": asdict(settings),
        "workloads": {outcome.workload.name: _workload(outcome) for outcome in outcomes},
        "targets": [found.as_json() for found in verdicts(outcomes)],
    }


def _workload(outcome: Outcome) -> Json:
    base = baseline(outcome.measured)
    return {
        "title": outcome.workload.title,
        "baseline": base.contender.name if base else None,
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
    ratios = {
        name: ratio(values, [sample.metrics[name] for sample in base.samples])
        for name, values in metrics.items()
        if name in base.samples[0].metrics
    }
    return {
        **found,
        "samples": [sample.metrics for sample in entry.samples],
        "summary": {name: spread(values).as_json() for name, values in metrics.items()},
        "ratios": {name: value.as_json() for name, value in ratios.items() if value},
        "curves": {
            name: [[share, round(value, 3)] for share, value in median_curve([s.curves[name] for s in entry.samples])]
            for name in first.curves
        },
        "timeline": [list(point) for point in first.timeline],
        "histogram": [sum(counts) for counts in zip(*(sample.histogram for sample in entry.samples), strict=True)],
    }


def tables(result: Json, workloads: Sequence[Workload]) -> str:
    """The result for the terminal: a table a workload, then the targets and what is to be said about the run."""
    parts = [_table(workload, result["workloads"][workload.name]) for workload in workloads]
    if result["targets"]:
        heading = "Targets (in a noisy run: don't trust a verdict)" if noise(result)[0] else "Targets"
        parts.append("\n".join([heading, *(f"  {target['text']}" for target in result["targets"])]))
    parts.append("\n".join(_notes(result)))
    return "\n\n".join(parts)


def _table(workload: Workload, part: Json) -> str:
    rows = [["", *(column.heading for column in workload.columns)]]
    absent = []
    for contender in part["contenders"].values():
        if contender["state"] == "measured":
            rows.append([contender["title"], *(_cell(column, contender) for column in workload.columns)])
        else:
            absent.append(f"  {contender['title']}: {contender['state']} ({contender['reason']})")
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    ]
    return "\n".join([workload.title, "─" * len(lines[0]), *(line.rstrip() for line in lines), *absent])


def _cell(column: Column, contender: Json) -> str:
    summary = contender["summary"].get(column.metric)
    if summary is None:
        return "–"  # not every server lets itself be asked
    text = column.text(summary["median"])
    if column.ratio:
        spread_text = f"{column.text(summary['low'])}–{column.text(summary['high'])}"
        found = contender["ratios"].get(column.metric)
        times = f"{found['median']:.2f}×" if found else "–"
        text = f"{text} ({spread_text}) {times.rjust(6)}"
    return text


def _notes(result: Json) -> list[str]:
    rounds = result["settings"]["rounds"]
    installed = ", ".join(f"{name} {version}" for name, version in result["versions"].items() if version)
    notes = [
        f"{installed}; {result['machine']['processor']}, {result['machine']['cores']} cores.",
        f"{rounds} rounds; medians, (lowest–highest), × rawstream; "
        f"the reader itself: {result['reader']['read_us']:.1f} µs a read, echo {result['reader']['echo_us']:.0f} µs.",
    ]
    if result["settings"]["server_core"] == result["settings"]["load_core"]:
        notes.append("Server and load shared a core: nothing here is a server's own speed.")
    if rounds < 3:
        notes.append("Fewer than 3 rounds: good for a look, not for quoting.")
    noisy, total = noise(result)
    if noisy:
        notes.append(
            f"Noisy: in {noisy} of {total} samples others took more than {NOISY:.0%} of the server's core. "
            "Don't quote small differences."
        )
    if limited := _where(result, "reader_busy", lambda share: share > 0.9):
        notes.append(f"The reader was busy all the time, and may be the limit, for: {limited}.")
    if limited := _where(result, "fast_server_busy", lambda share: share < 0.85):
        notes.append(f"The server could have gone faster than its reader (or others on their cores) let it: {limited}.")
    return notes


def _where(result: Json, metric: str, holds: Callable[[float], bool]) -> str:
    """Those contenders for whose median of a metric this holds."""
    return "; ".join(
        f"{contender['title']} ({name})"
        for name, part in result["workloads"].items()
        for contender in part["contenders"].values()
        if contender["state"] == "measured"
        and (found := contender["summary"].get(metric)) is not None
        and holds(found["median"])
    )


def noise(result: Json) -> tuple[int, int]:
    """How many samples were noisy, of how many."""
    shares = [
        sample["noise"]
        for part in result["workloads"].values()
        for contender in part["contenders"].values()
        for sample in contender.get("samples", ())
    ]
    return sum(share > NOISY for share in shares), len(shares)
