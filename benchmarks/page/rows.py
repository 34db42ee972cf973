"""Drawings with a row for each contender: what each needs, when its chunks came, what lay between them.

Each is drawn for a wide page, with the names beside the rows, or for a narrow one, with the names above them.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.metrics import duration
from benchmarks.page.looks import is_ours, look
from benchmarks.page.svg import Drawing, Scale, ground, group, line, scale_for, tag, text
from benchmarks.summary import Spread

Json = dict[str, Any]

WIDE, NARROW = 820, 350
_LEAST_US = 10.0
"""The left end of a scale of times by ratios, in microseconds: no read comes sooner after its `send`."""
_LETTER = 7.4
"""Pixels of a letter, in the weight of rawstream's names."""
_DISC_EVENTS = 12
"""A disc grows up to this number of events, so that it stays within its row."""


@dataclass(frozen=True, slots=True)
class Row:
    """One contender in a drawing of values: what its rounds gave, and what stands behind that."""

    name: str
    peer: str
    found: Spread
    words: str
    ratio: str = ""


@dataclass(frozen=True, slots=True)
class Rows:
    """Where rows stand: `left` to `right` is for what is drawn, and each row is `height` pixels."""

    count: int
    narrow: bool
    top: float = 24
    wide_height: float = 23
    names: float = 282
    """Pixels for the names, on a wide page."""
    beside: float = 132
    """And for what stands behind each row,"""
    last: float = 4
    """of which the ratio, or the margin, has so many."""

    @property
    def width(self) -> float:
        """Of the whole drawing."""
        return NARROW if self.narrow else WIDE

    @property
    def height(self) -> float:
        """Of a row."""
        return self.wide_height + 19 if self.narrow else self.wide_height

    @property
    def left(self) -> float:
        """Where the axis begins."""
        return 10 if self.narrow else self.names

    @property
    def right(self) -> float:
        """Where the axis ends."""
        return self.width - (14 if self.narrow else self.beside)

    @property
    def bottom(self) -> float:
        """Where the last row ends."""
        return self.top + self.count * self.height

    def middle(self, number: int) -> float:
        """The height of a row's line."""
        return self.top + number * self.height + (self.height - 11 if self.narrow else self.height / 2)

    def drawing(self, below: float = 26) -> Drawing:
        """An empty drawing of this size."""
        return Drawing(self.width, self.bottom + below)

    def named(self, number: int, name: str, mine: bool, words: str = "", ratio: str = "") -> Iterator[str]:
        """A row's line and its name; behind it, or above, a value and its ratio to rawstream's."""
        at = self.middle(number)
        yield line(self.left, at, self.right, at, "row")
        weight = ("mine " if mine else "") + ("halo" if self.narrow else "")
        above = at - 15 if self.narrow else at + 4
        yield text(
            name, self.left if self.narrow else self.left - 10, above, weight.strip(), "start" if self.narrow else "end"
        )
        if words:
            yield text(words, self.width - self.last, above, f"value {weight}".strip(), "end")
        if ratio:
            yield text(ratio, self.width - 4, above, "value soft halo", "end")


def dots(
    rows: Sequence[Row],
    limits: Sequence[tuple[float, str]],
    show: Callable[[float], str],
    *,
    log: bool,
    narrow: bool,
    grain: float = 1.0,
) -> Drawing:
    """A dot at the median of each, with the quartiles (thick) and the range (thin); `limits` are lines across all."""
    longest = max(len(row.ratio) for row in rows)
    last = max(58, 12 + _LETTER * longest) if longest else 4
    names = room([row.name for row in rows])
    place = Rows(len(rows), narrow, top=10 + 14 * max(len(limits), 1), names=names, beside=74 + last, last=last)
    drawing = place.drawing()
    values = [value for row in rows for value in (row.found.low, row.found.high)] + [value for value, _ in limits]
    x = scale_for(values, log, place.left, place.right, grain=grain)
    drawing.add(*ground(x, place.top, place.bottom, show, 4 if narrow else 7))
    for number, (value, words) in enumerate(limits):
        at, y = x(value), 14 * (number + 1)
        drawing.add(line(at, y - 8, at, place.bottom, "limit"))
        end = at > (place.left + place.right) / 2
        drawing.add(text(words, at + (-5 if end else 5), y, "soft halo", "end" if end else "start"))
    for number, row in enumerate(rows):
        drawing.add(*place.named(number, row.name, is_ours(row.peer), row.words, row.ratio))
        drawing.add(_five(x, place.middle(number), row, not log))
    return drawing


def _five(x: Scale, y: float, row: Row, from_zero: bool) -> str:
    parts = []
    if from_zero:
        parts.append(tag("rect", x=x(0), y=y - 5, width=max(x(row.found.median) - x(0), 0), height=10, class_="bar"))
    parts.append(line(x(row.found.low), y, x(row.found.high), y, "range"))
    if row.found.quartile3 > row.found.quartile1:
        parts.append(line(x(row.found.quartile1), y, x(row.found.quartile3), y, "quartiles"))
    parts.append(tag("circle", cx=x(row.found.median), cy=y, r=4, class_="dot"))
    return group(parts, look(row.peer), f"{row.name}: {row.words} {row.ratio}".rstrip())


def arrivals(entries: Sequence[Json], interval: float, narrow: bool) -> Drawing:
    """When the chunks of one reader came, a mark each; the grid stands each `interval` ms, where they are due."""
    place = Rows(len(entries), narrow, top=8, beside=16, names=room([entry["title"] for entry in entries]))
    drawing = place.drawing(42)
    last = max((entry["timeline"][-1][0] for entry in entries if entry["timeline"]), default=0) or interval
    last = min(last, interval * (6 if narrow else 16))
    x = scale_for([last], False, place.left, place.right)
    count = int(last / interval) + 1
    for n in range(count):
        at = x(n * interval)
        drawing.add(line(at, place.top, at, place.bottom, "grid"))
        if n % (2 if narrow else 4) == 0:
            drawing.add(text(duration(n * interval * 1e3) if n else "0", at, place.bottom + 15, "tick", "middle"))
    for number, entry in enumerate(entries):
        y = place.middle(number)
        drawing.add(*place.named(number, named(entry, narrow), is_ours(entry["peer"])))
        marks = [
            line(x(at), y - 6, x(at), y + 6, "came") for at, _ in entry["timeline"] if -0.5 <= at <= last + interval / 2
        ]
        drawing.add(group(marks, look(entry["peer"])))
    middle = (place.left + place.right) / 2
    drawing.add(text("time since the first yield shown", middle, place.bottom + 34, "axis", "middle"))
    return drawing


def groups(entries: Sequence[Json], narrow: bool) -> Drawing:
    """One group of events of each: yields as marks, reads as discs as large as what they brought."""
    place = Rows(
        len(entries), narrow, top=8, wide_height=27, beside=16, names=room([entry["title"] for entry in entries])
    )
    drawing = place.drawing(42)
    # On a scale by ratios nothing is at 0: the first yield stands at the left edge.
    times = [max(at * 1e3, _LEAST_US) for entry in entries for at, _ in entry["timeline"]]
    x = scale_for([*times, _LEAST_US], True, place.left, place.right)
    drawing.add(*ground(x, place.top, place.bottom, duration, 4 if narrow else 8))
    for number, entry in enumerate(entries):
        y = place.middle(number)
        drawing.add(*place.named(number, named(entry, narrow), is_ours(entry["peer"])))
        points = [(x(max(at * 1e3, _LEAST_US)), count) for at, count in entry["timeline"]]
        parts = [line(at, y - 11, at, y - 4, "yielded") for at, count in points if not count]
        for at, count in points:
            if count:
                radius = 2.4 * min(count, _DISC_EVENTS) ** 0.5
                parts.append(tag("circle", cx=at, cy=y + 3, r=radius, class_="brought"))
            if count > 2:
                parts.append(text(f"{count}", at, y + 6.5, "small", "middle"))
        drawing.add(group(parts, look(entry["peer"])))
    middle = (place.left + place.right) / 2
    drawing.add(text("time since the first yield of the group", middle, place.bottom + 34, "axis", "middle"))
    return drawing


def shares(entries: Sequence[Json], edges: Sequence[float], narrow: bool) -> Drawing:
    """The share of the gaps between reads in each range, a row for each."""
    place = Rows(len(entries), narrow, top=8, beside=16, names=room([entry["title"] for entry in entries]))
    drawing = place.drawing(42)
    columns = len(edges) + 1
    width = (place.right - place.left) / columns
    for number, entry in enumerate(entries):
        y = place.middle(number)
        drawing.add(*place.named(number, named(entry, narrow), is_ours(entry["peer"])))
        total = max(sum(entry["histogram"]), 1)
        for column, count in enumerate(entry["histogram"]):
            if (share := count / total) < 0.01:
                continue
            at = place.left + column * width
            # The words stand over the colour, so it never gets too dark (or, at night, too light) for them.
            cell = tag(
                "rect", x=at + 1, y=y - 9, width=width - 2, height=18, class_="cell", opacity=0.08 + 0.42 * share
            )
            words = f"{share * 100:.0f}" if narrow else f"{share:.0%}"
            drawing.add(cell, text(words, at + width / 2, y + 4, "value small", "middle"))
    for n, edge in enumerate(edges):
        at = place.left + (n + 1) * width
        drawing.add(line(at, place.top, at, place.bottom + 3, "grid"))
        if not narrow or n % 2 == 0:
            drawing.add(text(duration(edge), at, place.bottom + 15, "tick", "middle"))
    middle = (place.left + place.right) / 2
    drawing.add(text("gap from one read to the next", middle, place.bottom + 34, "axis", "middle"))
    return drawing


def room(names: Sequence[str]) -> float:
    """The pixels that the longest of these names needs beside its row."""
    return min(max(max(map(len, names), default=0) * _LETTER + 20, 180), 400)


def named(entry: Json, narrow: bool) -> str:
    """What a row or a line is called."""
    if not narrow:
        return str(entry["title"])
    return f"{entry['peer']}, {entry['variant']}" if entry["variant"] else str(entry["peer"])
