"""SVG written by hand: elements, scales, ticks, and labels that make room for each other. Knows nothing of results.

Nothing here has a colour. Elements have classes, and a style sheet (`looks`) gives those their colours in light, in
dark and on paper; so one drawing serves the page, where it stands inline, and a file of its own.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Protocol

Number = int | float


def tag(name: str, content: str | None = None, /, **attributes: Number | str | None) -> str:
    """One element. `class_` is the attribute `class`, `stroke_width` is `stroke-width`; None leaves one out."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{_value(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    return f"<{name}{written}/>" if content is None else f"<{name}{written}>{content}</{name}>"


def _value(value: Number | str) -> str:
    return escape(value) if isinstance(value, str) else f"{round(value, 2):g}"


def text(content: str, x: Number, y: Number, class_: str = "", anchor: str = "start") -> str:
    """Words, with their base line at `y`."""
    return tag(
        "text",
        escape(content, quote=False),
        x=x,
        y=y,
        class_=class_ or None,
        text_anchor=None if anchor == "start" else anchor,
    )


def line(x1: Number, y1: Number, x2: Number, y2: Number, class_: str) -> str:
    """A straight line."""
    return tag("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def path(points: Sequence[tuple[float, float]], class_: str, steps: bool = False) -> str:
    """A line through points; with `steps` it stays on each level until the next point."""
    first, *rest = points
    words = [f"M{_at(first)}"]
    for (x, y), (_, before) in zip(rest, points, strict=False):
        if steps and y != before:
            words.append(f"H{_short(x)}V{_short(y)}")
        else:
            words.append(f"L{_at((x, y))}")
    return tag("path", d="".join(words), class_=class_)


def _at(point: tuple[float, float]) -> str:
    return f"{_short(point[0])} {_short(point[1])}"


def _short(value: float) -> str:
    return f"{round(value, 1):g}"


def group(elements: Sequence[str], class_: str, title: str = "") -> str:
    """Elements that belong together; `title` is what a pointer over them shows."""
    return tag("g", (tag("title", escape(title)) if title else "") + "".join(elements), class_=class_)


@dataclass(slots=True)
class Drawing:
    """A drawing of a size in pixels, and what is in it."""

    width: float
    height: float
    parts: list[str] = field(default_factory=list)

    def add(self, *parts: str) -> None:
        """Put something on top of what is there."""
        self.parts += parts

    def svg(self, label: str, class_: str = "", style: str = "", title: Sequence[str] = ()) -> str:
        """The whole element. `label` is what is read out for it.

        With `style` and `title` it can stand alone, in a file: with its own style sheet, and lines of text above it.
        """
        above = 22 * len(title) + 10 if title else 0
        size = f"0 {-above} {self.width:g} {self.height + above:g}"
        words = [text(words, 8, 20 * n + 14 - above, "heading" if n == 0 else "note") for n, words in enumerate(title)]
        ground = [tag("rect", x=0, y=-above, width=self.width, height=self.height + above, class_="ground")]
        content = "".join(
            [tag("style", style) if style else "", *(ground if style else ()), *words, *self.parts],
        )
        return tag(
            "svg",
            content,
            xmlns="http://www.w3.org/2000/svg" if style else None,
            viewBox=size,
            width=self.width,
            height=self.height + above,
            class_=class_ or None,
            role="img",
            aria_label=label,
        )


class Scale(Protocol):
    """Where a value stands, in pixels, and where the ticks of its axis are."""

    def __call__(self, value: float) -> float: ...

    def ticks(self, most: int = 6) -> list[float]: ...


@dataclass(frozen=True, slots=True)
class Linear:
    """The values from `low` to `high`, evenly from pixel `start` to pixel `end`."""

    low: float
    high: float
    start: float
    end: float
    grain: float = 1.0
    """What counts as 1 where round values are looked for: 1024 for a scale in KiB."""

    def __call__(self, value: float) -> float:
        """The pixel of a value, at the nearest end for one that lies outside."""
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self, most: int = 6) -> list[float]:
        """Round values: 1, 2 or 5 times a power of ten apart, `most` of them or fewer."""
        rough = (self.high - self.low) / most / self.grain
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(times * power for times in (1, 2, 5, 10) if times * power >= rough * (1 - 1e-9))
        step *= self.grain
        first = math.ceil(self.low / step - 1e-9)
        return [n * step for n in range(first, math.floor(self.high / step + 1e-9) + 1)]


@dataclass(frozen=True, slots=True)
class Log:
    """The same by ratios: from `low` (above 0) to `high`."""

    low: float
    high: float
    start: float
    end: float
    grain: float = 1.0

    def __call__(self, value: float) -> float:
        """The pixel of a value, at the nearest end for one that lies outside."""
        share = math.log(min(max(value, self.low), self.high) / self.low) / math.log(self.high / self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self, most: int = 6) -> list[float]:
        """Powers of ten; with 2 and 5 times of them (or 3), or only some of them, as there is room."""
        low, high = self.low / self.grain, self.high / self.grain
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        found: list[float] = []
        for times in ((1.0, 2.0, 5.0), (1.0, 3.0), (1.0,)):
            found = [factor * 10.0**power for power in decades for factor in times]
            found = [tick * self.grain for tick in found if low * 0.999 <= tick <= high * 1.001]
            if len(found) < 4 and times[1:2] == (2.0,):
                # Less than a decade: round values evenly apart say more.
                return [tick for tick in Linear(self.low, self.high, 0, 1, self.grain).ticks(most) if tick > 0]
            if len(found) <= most:
                return found
        return found[:: math.ceil(len(found) / most)]


def scale_for(
    values: Sequence[float], log: bool, start: float, end: float, *, least: float = 0.0, grain: float = 1.0
) -> Scale:
    """A scale for all of `values`, with a little room; one that is not by ratios begins at 0.

    `least` is the lowest value that a scale by ratios shows, for values that may be 0.
    """
    high = max(max(values, default=1.0), 1e-12)
    if not log:
        return Linear(min(0.0, *values) if values else 0.0, high * 1.04, start, end, grain)
    positive = [value for value in values if value > 0] or [1.0]
    low = max(min(positive), least, high * 1e-12)
    high = max(high, low * 2)
    return Log(low / 1.12, high * 1.12, start, end, grain)


def spread_out(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Places near those `wanted`, but at least `gap` apart and between `low` and `high`, in the same order.

    Where there is no room for that, the gap is smaller. What has to move moves together: neighbours that push each
    other form a block, whose middle is the middle of what its members want.
    """
    if not wanted:
        return []
    gap = min(gap, (high - low) / max(len(wanted) - 1, 1))
    order = sorted(range(len(wanted)), key=lambda n: wanted[n])
    blocks: list[tuple[list[int], float]] = []  # members, and where the first of them stands
    for n in order:
        members, start = [n], wanted[n]
        while True:
            start = min(max(start, low), high - gap * (len(members) - 1))
            if not blocks or blocks[-1][1] + gap * len(blocks[-1][0]) <= start + 1e-9:
                break
            before, _ = blocks.pop()
            members = before + members
            start = sum(wanted[each] - place * gap for place, each in enumerate(members)) / len(members)
        blocks.append((members, start))
    places = [0.0] * len(wanted)
    for members, start in blocks:
        for place, each in enumerate(members):
            places[each] = start + place * gap
    return places


def ground(x: Scale, top: float, bottom: float, show: Callable[[float], str], most: int = 6) -> list[str]:
    """The grid lines of a horizontal axis, with what stands below each."""
    found, taken = [], -math.inf
    for tick in x.ticks(most):
        at, words = x(tick), show(tick)
        found.append(line(at, top, at, bottom, "grid"))
        half = len(words) * 3.2
        middle = max(at, half)
        if middle - half > taken:
            found.append(text(words, middle, bottom + 15, "tick", "middle"))
            taken = middle + half + 4
    return found


def side(y: Scale, left: float, right: float, show: Callable[[float], str], most: int = 7) -> list[str]:
    """The grid lines of a vertical axis, with what stands left of each."""
    found = []
    for tick in y.ticks(most):
        found.append(line(left, y(tick), right, y(tick), "grid"))
        found.append(text(show(tick), left - 6, y(tick) + 4, "tick", "end"))
    return found
