"""Which pictures a workload has: made from the JSON of a result, each for a wide and for a narrow page."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks import metrics, report
from benchmarks.page import lines, rows
from benchmarks.page.looks import is_floor
from benchmarks.page.svg import Drawing, Linear, scale_for
from benchmarks.summary import spread
from benchmarks.workloads.flush import GAP_EDGES_US

Json = dict[str, Any]

_RATIO_FOR_LOG = 25
"""Where the largest value is more than this many times the least, a scale by ratios shows both."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A drawing in two widths, with what it is called and how it is read."""

    name: str
    title: str
    note: str
    wide: Drawing
    narrow: Drawing


def measured(part: Json) -> list[Json]:
    """The contenders of a workload that have figures."""
    return [entry for entry in part["contenders"].values() if report.measured(entry)]


@dataclass(frozen=True, slots=True)
class Dots:
    """A row for each contender: a metric, sorted, with the floor as a line."""

    metric: str
    title: str = ""
    nagle: bool = True
    """Whether contenders with Nagle's algorithm are shown."""

    def draw(self, workload: str, part: Json) -> Iterator[Picture]:
        """The picture, unless nobody has the metric."""
        found = [entry for entry in measured(part) if self.metric in entry["summary"]]
        found = [entry for entry in found if self.nagle or not _has_nagle(entry)]
        floors = [entry for entry in found if is_floor(entry["peer"])]
        entries = [entry for entry in found if not is_floor(entry["peer"])]
        if not entries:
            return
        more = metrics.more_is_better(self.metric)
        entries.sort(key=lambda entry: _median(entry, self.metric), reverse=more)
        values = [_median(entry, self.metric) for entry in [*entries, *floors]]
        log = _far_apart(values)
        note = f"Further {'right' if more else 'left'} is better." + (" The scale is by ratios." if log else "")

        grain = metrics.grain(self.metric, max(values))

        def show(value: float) -> str:
            return metrics.show(self.metric, value)

        def drawing(narrow: bool) -> Drawing:
            found = [self._row(entry, narrow) for entry in entries]
            limits = [
                (_median(floor, self.metric), _floor(floor, show(_median(floor, self.metric)))) for floor in floors
            ]
            return rows.dots(found, limits, show, log=log, narrow=narrow, grain=grain)

        title = self.title or _capital(metrics.name(self.metric))
        yield Picture(f"{workload}-{_slug(self.metric)}", title, note, drawing(False), drawing(True))

    def _row(self, entry: Json, narrow: bool) -> rows.Row:
        found = spread([sample[self.metric] for sample in entry["samples"] if self.metric in sample])
        words, ratio = metrics.show(self.metric, found.median), ""
        times = entry["ratios"].get(self.metric)
        if times and times["low"] > 0:  # of what can be less than 0 there are no ratios to speak of
            ratio = report.times(times)
        return rows.Row(rows.named(entry, narrow), entry["peer"], found, words, ratio)


@dataclass(frozen=True, slots=True)
class Percentiles:
    """A line for each contender: how long how large a share of the events took at most."""

    curve: str
    title: str

    def draw(self, workload: str, part: Json) -> Iterator[Picture]:
        """The picture, unless nobody has the curve."""
        entries = [entry for entry in measured(part) if entry["curves"].get(self.curve)]
        if not entries:
            return

        def drawing(narrow: bool) -> Drawing:
            series = [
                lines.Series(rows.named(entry, narrow), entry["peer"], lines.beyond(entry["curves"][self.curve]))
                for entry in entries
            ]
            room = lines.frame(series, narrow)
            x, ticks = lines.percentiles(room, series)
            values = [value for each in series for _, value in each.points]
            y = scale_for(values, True, room.bottom, room.top, least=1.0)
            return lines.draw(series, room, x, y, metrics.duration, ticks, "percentile of the events")

        note = "Lower is better. Each step on the axis is another nine, as far as there are events enough to tell."
        yield Picture(f"{workload}-{self.curve}", self.title, note, drawing(False), drawing(True))


@dataclass(frozen=True, slots=True)
class Growth:
    """A line for each contender over time: events that have come, or memory beyond the first."""

    title: str
    note: str
    memory: bool = False

    def draw(self, workload: str, part: Json) -> Iterator[Picture]:
        """The picture."""
        entries = [entry for entry in measured(part) if entry["timeline"]]
        if not entries:
            return

        last = self._last(entries)
        entries.sort(key=lambda entry: float(entry["timeline"][-1][0]))

        def drawing(narrow: bool) -> Drawing:
            series = [
                lines.Series(rows.named(entry, narrow), entry["peer"], self._points(entry["timeline"], last))
                for entry in entries
            ]
            room = lines.frame(series, narrow)
            x = Linear(0, last, room.left, room.right)
            values = [value for each in series for _, value in each.points]
            grain = metrics.grain("_bytes", max(values)) if self.memory else 1
            y = scale_for(values, False, room.bottom, room.top, grain=grain)
            ticks = [(at, metrics.duration(at * 1e3) if at else "0") for at in x.ticks(3 if narrow else 6)]
            show = metrics.size if self.memory else metrics.thousands
            return lines.draw(series, room, x, y, show, ticks, "time", steps=not self.memory)

        name = f"{workload}-{'memory' if self.memory else 'arrivals'}"
        yield Picture(name, self.title, self.note, drawing(False), drawing(True))

    def _last(self, entries: Sequence[Json]) -> float:
        """The right end: where all have ended, or before that where few are left that take much longer."""
        ends = sorted(float(entry["timeline"][-1][0]) for entry in entries)
        return (ends[-1] if self.memory else min(ends[-1], 3 * ends[len(ends) // 3])) or 1.0

    def _points(self, timeline: Sequence[Sequence[float]], last: float) -> list[tuple[float, float]]:
        if self.memory:
            return [(at, memory - timeline[0][1]) for at, memory in timeline]
        points, total = [(0.0, 0.0)], 0.0
        for at, count in timeline:
            if at > last:
                break
            total += count
            points.append((at, total))
        return points


@dataclass(frozen=True, slots=True)
class Beats:
    """When the chunks of one reader came, a row for each contender."""

    title: str
    note: str
    interval_ms: float

    def draw(self, workload: str, part: Json) -> Iterator[Picture]:
        """The picture."""
        if entries := [entry for entry in measured(part) if entry["timeline"]]:
            wide, narrow = (rows.arrivals(entries, self.interval_ms, narrow) for narrow in (False, True))
            yield Picture(f"{workload}-timeline", self.title, self.note, wide, narrow)


@dataclass(frozen=True, slots=True)
class Flushes:
    """What reaches the reader when, and what lies between two reads."""

    def draw(self, workload: str, part: Json) -> Iterator[Picture]:
        """Both pictures, and both once more with Nagle's algorithm."""
        for nagle in (False, True):
            end = ", with Nagle's algorithm" if nagle else ""
            entries = [entry for entry in measured(part) if entry["timeline"] and _has_nagle(entry) == nagle]
            if not entries:
                continue
            suffix = "-nagle" if nagle else ""
            yield Picture(
                f"{workload}-timeline{suffix}",
                f"A typical group of events: what is yielded, and what reaches the reader when{end}",
                "Marks: yields. Discs: reads, with the number of events that each brought. The scale is by ratios.",
                rows.groups(entries, False),
                rows.groups(entries, True),
            )
            edges = GAP_EDGES_US
            yield Picture(
                f"{workload}-gaps{suffix}",
                f"Gaps between reads{end}",
                "The share (in %) in each range. 10 ms is the wait between two groups, 40 ms a delayed ACK.",
                rows.shares(entries, edges, False),
                rows.shares(entries, edges, True),
            )


@dataclass(frozen=True, slots=True)
class Curves:
    """A metric against the number of connections, a line for each way of running; both scales by ratios."""

    metric: str
    title: str
    note: str

    def draw(self, workload: str, part: Json) -> Iterator[Picture]:
        """The picture, where there are at least two sizes."""
        found: dict[tuple[str, str], list[tuple[float, float, float, float]]] = {}
        for entry in measured(part):
            summary = entry["summary"]
            if self.metric in summary and summary[self.metric]["median"] > 0:
                key = entry["peer"], entry["variant"].partition(", ")[2]
                values = (summary[self.metric][each] for each in ("median", "low", "high"))
                found.setdefault(key, []).append((summary["connections"]["median"], *values))
        lined = {key: sorted(points) for key, points in found.items() if len(points) > 1}
        if not lined:
            return

        def drawing(narrow: bool) -> Drawing:
            series = [
                lines.Series(
                    f"{_loop(peer)}, {variant}",
                    f"{_hue(variant)}{peer}",
                    [(x, median) for x, median, _, _ in points],
                    [(low, high) for _, _, low, high in points],
                    "uvloop" in peer,
                )
                for (peer, variant), points in lined.items()
            ]
            room = lines.frame(series, narrow, 320)
            xs = sorted({x for each in series for x, _ in each.points})
            x = scale_for(xs, True, room.left, room.right)
            values = [value for each in series for pair in each.ranges for value in pair]
            y = scale_for(values, True, room.bottom, room.top, grain=metrics.grain(self.metric, max(values)))
            ticks = [(at, metrics.thousands(at)) for at in xs]
            return lines.draw(series, room, x, y, lambda value: metrics.show(self.metric, value), ticks, "connections")

        yield Picture(f"{workload}-{_slug(self.metric)}", self.title, self.note, drawing(False), drawing(True))


@dataclass(frozen=True, slots=True)
class Calls:
    """How many system calls each contender needs for a chunk, an event, a delivery."""

    def draw(self, workload: str, part: Json) -> Iterator[Picture]:
        """The picture, if they were counted."""
        entries = [entry for entry in measured(part) if entry.get("syscalls")]
        if not entries:
            return
        entries.sort(key=lambda entry: float(entry["syscalls"]["per_unit"]))
        log = _far_apart([entry["syscalls"]["per_unit"] for entry in entries])

        def drawing(narrow: bool) -> Drawing:
            found = []
            for entry in entries:
                count = entry["syscalls"]["per_unit"]
                words = metrics.digits(count)
                found.append(rows.Row(rows.named(entry, narrow), entry["peer"], spread([count]), words, _most(entry)))
            return rows.dots(found, [], metrics.digits, log=log, narrow=narrow)

        unit = part.get("unit", "event")
        note = "With the one that is made most. Counted in a turn of its own that is not timed. Further left is better."
        yield Picture(f"{workload}-syscalls", f"System calls for each {unit}", note, drawing(False), drawing(True))


def _has_nagle(entry: Json) -> bool:
    return str(entry["variant"]).endswith("Nagle")


def _most(entry: Json) -> str:
    """The system call that is made most."""
    return next(iter(entry["syscalls"]["by_name"]), "")


def _far_apart(values: Sequence[float]) -> bool:
    return min(values) > 0 and max(values) / min(values) > _RATIO_FOR_LOG


def _median(entry: Json, metric: str) -> float:
    return float(entry["summary"][metric]["median"])


def _floor(entry: Json, value: str) -> str:
    return f"{entry['title']}: {value}"


def _slug(metric: str) -> str:
    return metric.replace("_", "-")


def _capital(words: str) -> str:
    return words[:1].upper() + words[1:]


def _loop(peer: str) -> str:
    return "uvloop" if peer.endswith("-uvloop") else "asyncio"


def _hue(variant: str) -> str:
    """Where rawstream is alone, what tells lines apart is the number of workers."""
    return "" if variant.startswith("1 ") else "go-"
