"""Drawings with a line for each contender: distributions of latency, growth over time, cost against connections.

The name of each line stands at its end, moved up or down where names would collide, with a thin line that leads there.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.page.looks import look
from benchmarks.page.rows import NARROW, WIDE
from benchmarks.page.svg import Drawing, Linear, Scale, group, line, path, side, spread_out, tag, text

Json = dict[str, Any]
Points = Sequence[tuple[float, float]]

SHARES = (0.5, 0.9, 0.99, 0.999, 0.9999)
"""The percentiles that stand on the axis of a distribution."""

_LEAST_SHARE = 0.5
_MOST_SHARE = 0.99991


@dataclass(frozen=True, slots=True)
class Series:
    """One line: its name, whose it is, and its points (x, y)."""

    name: str
    peer: str
    points: Points
    ranges: Sequence[tuple[float, float]] = ()
    """The lowest and the highest value at each point, which are then marked."""
    dashed: bool = False


@dataclass(frozen=True, slots=True)
class Frame:
    """The room of a drawing with lines: the axes stand at `left` and `bottom`, names right of `right`."""

    narrow: bool
    height: float
    names: float

    @property
    def width(self) -> float:
        """Of the whole drawing."""
        return NARROW if self.narrow else WIDE

    @property
    def left(self) -> float:
        """Where the lines begin."""
        return 52 if self.narrow else 64

    @property
    def right(self) -> float:
        """Where the lines end."""
        return self.width - self.names

    @property
    def top(self) -> float:
        """Where they may rise to."""
        return 14

    @property
    def bottom(self) -> float:
        """Where the axis stands."""
        return self.height - 44


def frame(series: Sequence[Series], narrow: bool, height: float = 380) -> Frame:
    """The room for these lines: as high as their names need, and as wide as the longest of them."""
    longest = max((len(each.name) for each in series), default=0)
    names = min(longest * 7.4 + 34, 158 if narrow else 356)
    return Frame(narrow, max(height, 15.0 * len(series) + 60), names)


def draw(
    series: Sequence[Series],
    room: Frame,
    x: Scale,
    y: Scale,
    show: Callable[[float], str],
    below: Sequence[tuple[float, str]],
    words: str,
    steps: bool = False,
) -> Drawing:
    """All lines; `below` are the ticks of the horizontal axis, `words` its name, `show` writes those of the other."""
    drawing = Drawing(room.width, room.height)
    drawing.add(*side(y, room.left, room.right, show))
    taken = 0.0
    for at, tick in below:
        drawing.add(line(x(at), room.top, x(at), room.bottom, "grid"))
        half = len(tick) * 3.2
        if x(at) - half > taken:
            drawing.add(text(tick, x(at), room.bottom + 16, "tick", "middle"))
            taken = x(at) + half + 4
    drawing.add(text(words, (room.left + room.right) / 2, room.height - 8, "axis", "middle"))
    ends = [y(each.points[-1][1]) for each in series]
    places = spread_out(ends, 15, room.top, room.bottom)
    # What is ours is drawn last, on top of all others.
    order = sorted(range(len(series)), key=lambda n: "ours" in look(series[n].peer))
    for n in order:
        drawing.add(_one(series[n], room, x, y, places[n], steps))
    return drawing


def _one(series: Series, room: Frame, x: Scale, y: Scale, place: float, steps: bool) -> str:
    points = [(x(at), y(value)) for at, value in series.points]
    end = points[-1]
    parts = [path(points, "curve", steps)]
    if series.ranges:
        parts += [
            line(at, y(low), at, y(high), "range") for (at, _), (low, high) in zip(points, series.ranges, strict=True)
        ]
        parts += [tag("circle", cx=at, cy=value, r=3.5, class_="dot") for at, value in points]
    corner = room.right + 6
    lead = [end, (room.right, end[1]), (corner + 8, place), (corner + 14, place)]
    parts.append(path(lead, "leader"))
    mine = "mine" if "ours" in look(series.peer) else ""
    name = _short(series.name, room)
    parts.append(text(name, corner + 17, place + 4, mine))
    extra = " dashed" if series.dashed and "dashed" not in look(series.peer) else ""
    return group(parts, f"series {look(series.peer)}{extra}", series.name)


def _short(name: str, room: Frame) -> str:
    most = int((room.names - 24) / 7.4)
    return name if len(name) <= most else name[: most - 1].rstrip(" ,(") + "…"


def tail(share: float) -> float:
    """Where a percentile stands on an axis that gives each further nine the same room."""
    return -math.log10(1 - min(share, _MOST_SHARE))


def beyond(points: Points) -> list[tuple[float, float]]:
    """The part of a distribution that such an axis shows, as points on it.

    It ends with its highest value: of 100 events there is no slowest in 1,000, and the line shall not tell of one.
    """
    shown = [(tail(share), value) for share, value in points if _LEAST_SHARE <= share <= _MOST_SHARE]
    highest = next((n for n, (_, value) in enumerate(shown) if value == shown[-1][1]), 0)
    return shown[: max(highest + 1, 2)]


def percentiles(room: Frame, series: Sequence[Series]) -> tuple[Scale, list[tuple[float, str]]]:
    """The axis of distributions, as long as the longest of them, and its ticks."""
    end = max(*(each.points[-1][0] for each in series), tail(0.9))
    shares = SHARES if end > tail(0.995) else (0.5, 0.75, 0.9, 0.95, 0.99)
    ticks = [(tail(share), f"{share * 100:g}" if room.narrow else f"{share * 100:g}%") for share in shares]
    return Linear(tail(_LEAST_SHARE), end, room.left, room.right), [tick for tick in ticks if tick[0] <= end]
