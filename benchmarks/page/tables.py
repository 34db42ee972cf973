"""The figures of a result as tables: HTML for the page, and Markdown for a README."""

from collections.abc import Callable, Iterator, Mapping, Sequence
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
    Headline("paced", "intended_p99_us", "late p99"),
    Headline("burst", "events_per_s", "events"),
    Headline("burst", "latency_p50_us", "p50"),
    Headline("fanout", "cpu_per_delivery_us", "CPU per delivery"),
    Headline("idle", "memory_per_connection_bytes", "memory per stream"),
    Headline("first", "first_p50_us", "first chunk"),
    Headline("first", "requests_per_s", "requests"),
    Headline("first", "varied_per_s", "each another"),
)


@dataclass(slots=True)
class _Row:
    """A contender without a variant: its figure in each column, and in which of them it fell behind."""

    peer: str
    title: str
    values: list[float | None]
    behind: set[int]

    def competes(self, number: int) -> bool:
        """Whether it can be the best of a column."""
        return self.values[number] is not None and number not in self.behind and not is_floor(self.peer)


_KEEPS_UP = 0.99
"""Who delivers less than this share of what was due has fallen behind: its figures are of another amount of work."""


def _overview(result: Json) -> tuple[list[Headline], list[_Row]]:
    """The columns that were measured, and a row for each contender without a variant, ours first."""
    parts = result["workloads"]
    columns = [each for each in HEADLINES if each.workload in parts and _is_measured(each, parts[each.workload])]
    found: dict[str, _Row] = {}
    for number, column in enumerate(columns):
        for entry in parts[column.workload]["contenders"].values():
            summary = entry.get("summary", {})
            if column.metric in summary and not entry["variant"]:
                row = found.setdefault(entry["peer"], _Row(entry["peer"], entry["title"], [None] * len(columns), set()))
                row.values[number] = summary[column.metric]["median"]
                if _delivered(entry) < _KEEPS_UP:
                    row.behind.add(number)
    return columns, sorted(found.values(), key=lambda row: (not is_floor(row.peer), not is_ours(row.peer)))


def _delivered(entry: Json) -> float:
    """Which share of what was due a contender has delivered, where that is counted."""
    return float(entry["summary"].get("delivered", {"median": 1.0})["median"])


def _is_measured(column: Headline, part: Json) -> bool:
    """Whether any contender without a variant has this figure."""
    contenders = part["contenders"].values()
    return any(column.metric in entry.get("summary", {}) and not entry["variant"] for entry in contenders)


def _cells(columns: Sequence[Headline], rows: Sequence[_Row], bold: Callable[[str], str]) -> Iterator[list[str]]:
    """What stands in each row: the best server of each column in bold, and a dagger where one has fallen behind."""
    best = [_best(rows, number, column.metric) for number, column in enumerate(columns)]
    for row in rows:
        cells = []
        for number, (column, value) in enumerate(zip(columns, row.values, strict=True)):
            shown = "–" if value is None else metrics.show(column.metric, value) + " †" * (number in row.behind)
            cells.append(bold(shown) if row.competes(number) and value == best[number] else shown)
        yield cells


def _best(rows: Sequence[_Row], number: int, metric: str) -> float | None:
    values = [row.values[number] for row in rows if row.competes(number)]
    known = [value for value in values if value is not None]
    return (max if metrics.more_is_better(metric) else min)(known, default=None)


def overview(result: Json) -> str:
    """A row for each server and a column for each headline, as HTML; nothing where there are none."""
    columns, rows = _overview(result)
    if not columns or not rows:
        return ""
    head = [tag("th", f"<code>{escape(each.workload)}</code> {escape(each.words)}") for each in columns]
    lines = [_row("th", [tag("th", ""), *head])]
    for row, cells in zip(rows, _cells(columns, rows, lambda shown: tag("b", shown)), strict=True):
        name = tag("th", escape(row.title), scope="row")
        lines.append(_row("tr", [name, *(tag("td", cell) for cell in cells)], look(row.peer)))
    return _table(lines)


def markdown(result: Json) -> str:
    """The same for a README, with what is to be said of it below. rawstream's name is in bold, too."""
    columns, rows = _overview(result)
    lines = ["| | " + " | ".join(f"`{each.workload}` {each.words}" for each in columns) + " |"]
    lines.append("|---|" + "---:|" * len(columns))
    for row, cells in zip(rows, _cells(columns, rows, lambda shown: f"**{shown}**"), strict=True):
        lines.append("| " + " | ".join([f"**{row.title}**" if is_ours(row.peer) else row.title, *cells]) + " |")
    about = (
        f"Medians of {report.rounds_in_words(result)}; {result['machine']['processor']}, CPython "
        f"{result['versions'].get('python', '?')}, {result.get('began', '')[:10]}."
    )
    return "\n\n".join(["\n".join(lines), about, *legend(result)]) + "\n"


def legend(result: Json) -> list[str]:
    """How the overview is to be read, who has fallen behind, and who is not in it though it should be: in Markdown."""
    columns, _ = _overview(result)
    parts = {column.workload: result["workloads"][column.workload]["contenders"].values() for column in columns}
    found = []
    if "paced" in parts:
        found.append("Of `paced`, p50 is from `yield` to `read`, and late p99 from the time at which an event was due.")
    behind = [
        f"{entry['title']} {_delivered(entry):.0%} (`{workload}`)"
        for workload, entries in parts.items()
        for entry in entries
        if report.measured(entry) and _delivered(entry) < _KEEPS_UP
    ]
    if behind:
        found.append(f"† did not deliver all that was due: {', '.join(behind)}.")
    absent: dict[str, list[str]] = {}
    for workload, entries in parts.items():
        for entry in entries:
            if not report.measured(entry) and entry["state"] != "cannot":
                why = f"{entry['state']}: {entry['reason']}" if entry.get("reason") else "no turn yet"
                absent.setdefault(f"{entry['title']} ({why})", []).append(f"`{workload}`")
    if absent:
        found.append(
            "Not measured: " + "; ".join(f"{who} in {', '.join(where)}" for who, where in absent.items()) + "."
        )
    return found


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
            words += f" <i>{report.times(found)}</i>"
    return tag("td", words)


def _noisy(entry: Json) -> str:
    disturbed = [", ".join(reasons) for reasons in entry.get("noisy", []) if reasons]
    if not disturbed:
        return tag("td", "–")
    return tag("td", f"{len(disturbed)}/{len(entry['samples'])}", title="; ".join(dict.fromkeys(disturbed)))


_STATES = {
    "missing": "is missing",
    "failed": "failed",
    "ended": "ended by itself",
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
