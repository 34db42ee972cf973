"""The figures of a result as tables: HTML for the page, and Markdown for a README."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from benchmarks import metrics, report
from benchmarks.page.looks import is_floor, is_ours, look
from benchmarks.page.svg import tag
from benchmarks.page.verdict import Goal, Held, loop

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Headline:
    """A column of the overview: the one figure of a workload that says most."""

    workload: str
    metric: str
    words: str


HEADLINES = (
    Headline("paced", "cpu_per_chunk_us", "CPU per chunk"),
    Headline("paced", "latency_p50_us", "p50"),
    Headline("paced", "latency_p99_us", "p99"),
    Headline("burst", "events_per_s", "events"),
    Headline("burst", "latency_p50_us", "p50"),
    Headline("fanout", "cpu_per_delivery_us", "CPU per delivery"),
    Headline("idle", "memory_per_connection_bytes", "memory per stream"),
    Headline("first", "first_p50_us", "first chunk"),
    Headline("first", "requests_per_s", "requests"),
)


def _overview(result: Json) -> tuple[list[Headline], list[tuple[str, str, list[float | None]]]]:
    """The columns that were measured, and (peer, title, values) of each contender without a variant, ours first."""
    parts = result["workloads"]
    columns = [each for each in HEADLINES if each.workload in parts and _is_measured(each, parts[each.workload])]
    found: dict[str, tuple[str, str, list[float | None]]] = {}
    for number, column in enumerate(columns):
        for entry in parts[column.workload]["contenders"].values():
            summary = entry.get("summary", {}).get(column.metric)
            if summary and not entry["variant"]:
                row = found.setdefault(entry["peer"], (entry["peer"], entry["title"], [None] * len(columns)))
                row[2][number] = summary["median"]
    rows = sorted(found.values(), key=lambda row: (not is_floor(row[0]), not is_ours(row[0])))
    return columns, rows


def _is_measured(column: Headline, part: Json) -> bool:
    """Whether any contender without a variant has this figure."""
    contenders = part["contenders"].values()
    return any(column.metric in entry.get("summary", {}) and not entry["variant"] for entry in contenders)


def _best(rows: Sequence[tuple[str, str, list[float | None]]], number: int, metric: str) -> float | None:
    values = [row[2][number] for row in rows if not is_floor(row[0])]
    known = [value for value in values if value is not None]
    return (max if metrics.more_is_better(metric) else min)(known, default=None)


def overview(result: Json) -> str:
    """A row for each server and a column for each headline, as HTML; nothing where there are none."""
    columns, rows = _overview(result)
    if not columns or not rows:
        return ""
    head = [
        tag("th", ""),
        *(tag("th", f"<code>{escape(each.workload)}</code> {escape(each.words)}") for each in columns),
    ]
    lines = [_row("th", head)]
    best = [_best(rows, number, column.metric) for number, column in enumerate(columns)]
    for peer, title, values in rows:
        cells = [tag("th", escape(title), scope="row")]
        for value, column, top in zip(values, columns, best, strict=False):
            shown = metrics.show(column.metric, value) if value is not None else "–"
            cells.append(
                tag("td", tag("b", shown) if value is not None and value == top and not is_floor(peer) else shown)
            )
        lines.append(_row("tr", cells, look(peer)))
    return _table(lines)


def markdown(result: Json) -> str:
    """The same for a README. The best server of each column is in bold, and so is rawstream's name."""
    columns, rows = _overview(result)
    best = [_best(rows, number, column.metric) for number, column in enumerate(columns)]
    lines = ["| | " + " | ".join(f"`{each.workload}` {each.words}" for each in columns) + " |"]
    lines.append("|---|" + "---:|" * len(columns))
    for peer, title, values in rows:
        cells = [f"**{title}**" if is_ours(peer) else title]
        for value, column, top in zip(values, columns, best, strict=False):
            shown = metrics.show(column.metric, value) if value is not None else "–"
            cells.append(f"**{shown}**" if value is not None and value == top and not is_floor(peer) else shown)
        lines.append("| " + " | ".join(cells) + " |")
    lines.append("")
    lines.append(
        f"Medians of {report.rounds_in_words(result)}; {result['machine']['processor']}, CPython "
        f"{result['versions'].get('python', '?')}, {result.get('began', '')[:10]}."
    )
    return "\n".join(lines) + "\n"


def of_goals(goals: Sequence[Goal]) -> str:
    """A row for each target: what is wanted, and value and interval of each way of running."""
    loops = list(dict.fromkeys(loop(each.ours) for goal in goals for each in goal.held))
    lines = [_row("th", [tag("th", words) for words in ("target", "wanted", *loops)])]
    for goal in goals:
        held = {loop(each.ours): each for each in goal.held}
        against = f" <span>÷ {escape(goal.against)}</span>" if goal.against else ""
        wanted = f"{'≥' if goal.at_least else '≤'} {goal.show(goal.wanted)}"
        cells = [tag("th", escape(goal.name) + against, scope="row"), tag("td", wanted)]
        cells += [_verdict(goal, held[name]) if name in held else tag("td", "–") for name in loops]
        lines.append(_row("tr", cells))
    return _table(lines)


def _verdict(goal: Goal, each: Held) -> str:
    words = f"{each.mark} {goal.show(each.value)} <span>({goal.show(each.low)}–{goal.show(each.high)})</span>"
    return tag("td", words, class_="good" if each.met else "bad")


def of_workload(part: Json, result: Json) -> str:
    """Every figure of a workload: the medians, with range and ratio where a column is compared; then who is absent."""
    shown = [entry for entry in part["contenders"].values() if report.measured(entry)]
    columns = [column for column in part["columns"] if any(column["metric"] in entry["summary"] for entry in shown)]
    lines = [
        _row("th", [tag("th", ""), *(tag("th", escape(column["heading"])) for column in columns), tag("th", "noisy")])
    ]
    for entry in shown:
        cells = [tag("th", escape(entry["title"]), scope="row"), *(_cell(column, entry) for column in columns)]
        lines.append(_row("tr", [*cells, _noisy(entry)], look(entry["peer"])))
    table = _table(lines) if shown else ""
    absent = [entry for entry in part["contenders"].values() if entry not in shown]
    return table + _absent(absent, part)


def _cell(column: Json, entry: Json) -> str:
    spread = entry["summary"].get(column["metric"])
    if spread is None:
        return tag("td", "–")

    def show(value: float) -> str:
        return f"{value * column['scale']:,.{column['digits']}f}"

    words = show(spread["median"])
    if column["ratio"]:
        if spread["low"] != spread["high"]:
            words += f" <span>({show(spread['low'])}–{show(spread['high'])})</span>"
        if found := entry["ratios"].get(column["metric"]):
            words += f" <i>{metrics.times(found['median'])}</i>"
    return tag("td", words)


def _noisy(entry: Json) -> str:
    disturbed = [", ".join(reasons) for reasons in entry.get("noisy", []) if reasons]
    if not disturbed:
        return tag("td", "–")
    return tag("td", f"{len(disturbed)}/{len(entry['samples'])}", title="; ".join(dict.fromkeys(disturbed)))


_STATES = {
    "missing": "not installed here",
    "failed": "did not start",
    "wrong": "gave a wrong answer, and is not timed",
    "held back": "held its events back, and is not timed",
    "cannot": "has no such thing",
}


def _absent(entries: Sequence[Json], part: Json) -> str:
    found = [
        tag("li", f"{tag('b', escape(entry['title']))} {_STATES.get(entry['state'], entry['state'])}: "
            f"{escape(entry.get('reason') or 'no turn yet')}")
        for entry in entries
    ]  # fmt: skip
    if part.get("syscalls_missing"):
        found.append(tag("li", escape(f"System calls were not counted: {part['syscalls_missing']}")))
    return tag("ul", "".join(found), class_="absent") if found else ""


def of_facts(title: str, facts: Mapping[str, object]) -> str:
    """Names and values."""
    lines = [
        tag("tr", tag("th", escape(key.replace("_", " "))) + tag("td", escape(str(value))))
        for key, value in facts.items()
    ]
    return tag("div", tag("h3", escape(title)) + tag("table", "".join(lines), class_="facts"))


def _row(kind: str, cells: Sequence[str], class_: str = "") -> str:
    row = tag("tr", "".join(cells), class_=class_ or None)
    return tag("thead", row) if kind == "th" else row


def _table(lines: Sequence[str]) -> str:
    # It can be scrolled with the keyboard, too.
    return tag(
        "div", tag("table", "\n".join(lines)), class_="scroll", tabindex="0", role="region", aria_label="Figures"
    )
