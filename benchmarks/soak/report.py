"""What a soak came to: what is wrong with it, and tables for the terminal. Both are made from the JSON alone."""

from collections import Counter
from collections.abc import Iterator

from benchmarks.report import Json

GROWTH = 0.05
"""The share by which memory and objects may have grown from the end of the warm-up to the end."""

_GROUPS = {
    "good": "answered right to the last byte",
    "bad": "refused, and nothing behind them served",
    "slow": "cut by the deadline that is theirs",
    "vanishing": "leave nothing behind",
}


def failures(result: Json) -> list[str]:
    """Everything that a run must not have, each in a line; none if it passed."""
    return [f"{loop}: {line}" for loop, part in result["loops"].items() for line in _failures(part)]


def _failures(part: Json) -> Iterator[str]:
    for name, client in part["clients"].items():
        for what, count in client["wrong"].items():
            yield f"{count} × {client['group']} client ({name}): {what}"
        if not client["outcomes"] and not client["wrong"]:
            yield f"no {client['group']} client came ({name})"
    for name in ("memory_bytes", "objects"):
        began, ended = part["began"][name], part["ended"][name]
        if ended > began * (1 + GROWTH):
            yield f"{name} grew from {began:,} to {ended:,}, by {ended / began - 1:.1%} (allowed: {GROWTH:.0%})"
    for when in ("began", "ended"):
        for kind, left in part[when]["left"].items():
            if left:
                yield f"{kind} left after all clients had ({'the warm-up' if when == 'began' else 'the end'}): {left}"
    if part["ended"]["smuggled"]:
        yield f"{part['ended']['smuggled']} smuggled requests were served"
    if part["last_error"]:
        yield f"the server logged: {part['last_error']}"


def tables(result: Json) -> str:
    """The result for the terminal."""
    parts = [_table(loop, part) for loop, part in result["loops"].items()]
    parts.append(_memory(result["loops"]))
    verdict = ["FAILED", *(f"  {line}" for line in result["failures"])] if result["failures"] else ["Passed."]
    installed = ", ".join(f"{name} {version}" for name, version in result["versions"].items() if version)
    verdict.append(f"{installed}; {result['machine']['processor']}, {result['machine']['cores']} cores.")
    return "\n\n".join([*parts, "\n".join(verdict)])


def _table(loop: str, part: Json) -> str:
    rows = [["", "visits", "wrong", "outcomes"]]
    for group, promise in _GROUPS.items():
        rows.append([f"{group}: {promise}", "", "", ""])
        for name, client in part["clients"].items():
            if client["group"] == group:
                outcomes, wrong = Counter(client["outcomes"]), sum(client["wrong"].values())
                told = ", ".join(f"{count} {outcome}" for outcome, count in outcomes.most_common())
                rows.append([f"  {name}", str(outcomes.total() + wrong), str(wrong), told])
    title = f"soak: {loop}, {part['seconds']:.0f} s after {part['warm_up_seconds']:.0f} s of warm-up"
    return _lines(title, rows, 3)


def _memory(loops: Json) -> str:
    rows = [["", "warmed up", "most under load", "at the end", "", "left open: tasks, generators, sockets"]]
    for loop, part in loops.items():
        left = part["ended"]["left"]
        opened = f"{sum(left['tasks'].values())}, {sum(left['generators'].values())}, {left['sockets']}"
        for name, unit, title in (("memory_bytes", 1e6, "memory, MB"), ("objects", 1, "objects")):
            began, ended = part["began"][name], part["ended"][name]
            most = max((state[name] for state in part["under_load"]), default=began)
            figures = [f"{value / unit:,.{1 if unit > 1 else 0}f}" for value in (began, most, ended)]
            rows.append([f"{loop}: {title}", *figures, f"{ended / began - 1:+.1%}", opened if unit > 1 else ""])
    return _lines("at rest, when all clients have left", rows, 5)


def _lines(title: str, rows: list[list[str]], numbers: int) -> str:
    """A table; the columns after the first are set to the right, up to that of this number."""
    widths = [max(len(row[n]) for row in rows if row[1:] != [""] * (len(row) - 1) or n) for n in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if 0 < n < numbers else cell.ljust(width)
            for n, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join([title, "─" * max(map(len, lines)), *lines])
