"""The project's own targets in a result: how far each is met or missed, with the interval of its ratio."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks import metrics
from benchmarks.page.rows import Rows
from benchmarks.page.svg import Drawing, Log, ground, group, line, tag, text
from benchmarks.summary import ratio, spread

Json = dict[str, Any]

_LEAST, _MOST = 0.05, 20.0
"""A ratio beyond these stands at the edge of the drawing."""


@dataclass(frozen=True, slots=True)
class Held:
    """A target against one way of running rawstream. The interval is of the ratios round by round."""

    ours: str
    value: float
    low: float
    high: float
    met: bool
    sure: bool
    """Whether the whole interval says the same, and is one to trust."""

    @property
    def mark(self) -> str:
        """A sign for it, since colour alone tells some nothing."""
        return "✓" if self.met else "✗"


@dataclass(frozen=True, slots=True)
class Goal:
    """A target, with each way of running rawstream that is held against it."""

    workload: str
    metric: str
    variant: str
    against: str
    """Whom the ratio is to; nothing where the metric itself is limited."""
    wanted: float
    at_least: bool
    held: tuple[Held, ...]

    @property
    def met(self) -> bool:
        """Whether all ways of running meet it."""
        return all(each.met for each in self.held)

    @property
    def name(self) -> str:
        """What is held."""
        variant = f" ({self.variant})" if self.variant else ""
        return f"{self.workload}{variant}: {metrics.name(self.metric)}"

    @property
    def wish(self) -> str:
        """What is wanted, in words."""
        most = "at least" if self.at_least else "at most"
        if self.against:
            return f"wanted: {most} {self.wanted:g}× {self.against}"
        return f"wanted: {most} {metrics.show(self.metric, self.wanted)}"

    def show(self, value: float) -> str:
        """A value that is held against it."""
        return metrics.times(value) if self.against else metrics.show(self.metric, value)

    def distance(self, value: float) -> float:
        """1 where the target is just met, more where it is missed, less where there is room."""
        over, under = (self.wanted, value) if self.at_least else (value, self.wanted)
        return min(max(over / under, _LEAST), _MOST) if under > 0 else _MOST


def goals(result: Json) -> list[Goal]:
    """The targets of a result, in its order; the ways of running rawstream share one."""
    found: dict[tuple[str, str, str, str, float, bool], list[Json]] = {}
    for target in result["targets"]:
        variant = _variant(result, target)
        key = (target["workload"], target["metric"], variant, target["against"], target["wanted"], target["at_least"])
        found.setdefault(key, []).append(target)
    return [Goal(*key, held=tuple(_held(result, each) for each in same)) for key, same in found.items()]


def _variant(result: Json, target: Json) -> str:
    entry = _entry(result, target["workload"], target["ours"])
    return str(entry["variant"]) if entry else ""


def _entry(result: Json, workload: str, title: str) -> Json | None:
    contenders = result["workloads"].get(workload, {}).get("contenders", {})
    return next((entry for entry in contenders.values() if entry["title"] == title and "samples" in entry), None)


def _held(result: Json, target: Json) -> Held:
    ours, theirs = (_entry(result, target["workload"], target[key]) for key in ("ours", "against"))
    low = high = target["ratio"]
    if ours is not None:
        values = _values(ours, target["metric"])
        found = ratio(values, _values(theirs, target["metric"])) if theirs else spread(values)
        if found is not None:
            low, high = min(found.low, low), max(found.high, high)
    return Held(target["ours"], target["ratio"], low, high, target["met"], target["sure"])


def _values(entry: Mapping[str, Any], metric: str) -> list[float]:
    return [sample[metric] for sample in entry["samples"] if metric in sample]


def draw(found: Sequence[Goal], narrow: bool) -> Drawing:
    """How far each target is met or missed, by ratios: left of the line is met, and the line is the target."""
    place = Rows(len(found), narrow, top=30, wide_height=44, names=390, beside=150)
    drawing = place.drawing()
    far = [goal.distance(value) for goal in found for each in goal.held for value in (each.low, each.high)]
    x = Log(min([*far, 0.5]) / 1.1, max([*far, 2.0]) * 1.1, place.left, place.right)
    zone = {"x": place.left, "y": place.top, "width": x(1) - place.left, "height": place.bottom - place.top}
    drawing.add(tag("rect", class_="zone", **zone))
    drawing.add(*ground(x, place.top, place.bottom, lambda value: f"{value:g}", 4 if narrow else 6))
    drawing.add(line(x(1), 8, x(1), place.bottom, "limit"))
    for number, goal in enumerate(found):
        drawing.add(*_names(place, number, goal))
        drawing.add(*_marks(place, number, goal, x))
    drawing.add(text("◀ met", x(1) - 7, 18, "good", "end"), text("missed ▶", x(1) + 7, 18, "bad"))
    return drawing


def _names(place: Rows, number: int, goal: Goal) -> Iterator[str]:
    y = place.middle(number)
    yield line(place.left, y, place.right, y, "row")
    if place.narrow:
        yield text(goal.name, place.left, y - 34, "mine halo")
        yield text(goal.wish, place.left, y - 20, "soft small halo")
    else:
        yield text(goal.name, place.left - 10, y - 2, "mine", "end")
        yield text(goal.wish, place.left - 10, y + 13, "soft small", "end")


def _marks(place: Rows, number: int, goal: Goal, x: Log) -> Iterator[str]:
    middle, apart = place.middle(number), 14
    for n, each in enumerate(goal.held):
        y = middle + (n - (len(goal.held) - 1) / 2) * apart
        low, high = sorted((x(goal.distance(each.low)), x(goal.distance(each.high))))
        at = x(goal.distance(each.value))
        parts = [line(low, y, high, y, "range"), tag("circle", cx=at, cy=y, r=4.5, class_="dot")]
        words = f"{loop(each.ours)} {goal.show(each.value)} {each.mark}"
        if not place.narrow:
            parts.append(text(words, place.width - 4, y + 4, "good value" if each.met else "bad value", "end"))
        state = ("met" if each.met else "missed") + ("" if each.sure else " unsure")
        yield group(parts, state, f"{goal.name}: {words}")


def loop(title: str) -> str:
    """How rawstream is run, in a word."""
    return "uvloop" if "uvloop" in title else "asyncio"
