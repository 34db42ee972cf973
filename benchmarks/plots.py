"""Draws a kept result: distributions of latency, bars of costs, time lines, gaps between reads. Needs matplotlib."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from benchmarks.workloads.flush import GAP_EDGES_US

Json = dict[str, Any]

# One colour a server, one dash a loop or variant: what belongs together looks alike, also without colour.
_LOOKS: dict[str, tuple[str, str]] = {
    "floor": ("#8a8f98", ":"),
    "rawstream": ("#d7263d", "-"),
    "rawstream-uvloop": ("#d7263d", "--"),
    "rawstream-h11send": ("#f28c9a", "-."),
    "uvicorn": ("#1b6ca8", "--"),
    "uvicorn-h11": ("#1b6ca8", "-"),
    "aiohttp": ("#2a9d5c", "-"),
    "aiohttp-uvloop": ("#2a9d5c", "--"),
    "floor-c": ("#8a8f98", ":"),
    "sse-starlette": ("#7fb2dc", "--"),
    "node": ("#8a7a00", "-"),
    "go": ("#00a0b0", "-"),
    "nchan": ("#6a4c93", "-"),
}
_OTHER = ("#30343b", "-")

_LEAST_US = 10.0
"""The left end of a scale of latencies, in microseconds: no read comes sooner after its `send`."""

_DISC_EVENTS = 12
"""A disc grows up to this number of events, so that it stays within its row."""

_STYLE: Json = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.grid": True,
    "grid.color": "#e4e6ea",
    "axes.axisbelow": True,
    "legend.frameon": False,
    "svg.hashsalt": "rawstream",
}


def draw(result: Json, directory: Path, suffix: str = "svg") -> list[Path]:
    """Draw every plot of a result into `directory`; gives the files."""
    written = []
    with plt.rc_context(_STYLE):  # type: ignore[arg-type, unused-ignore]
        for name, figure in _figures(result):
            path = directory / f"{name}.{suffix}"
            figure.savefig(path, dpi=110, bbox_inches="tight", metadata={"Date": None} if suffix == "svg" else None)
            plt.close(figure)
            written.append(path)
    return written


_YIELD = ("latency", "latency from yield to read")
_INTENDED = ("intended", "from the intended time to read (uvloop's timers may wake early)")
_FIRST = ("first", "latency from publishing to the first subscriber's read")
_LAST = ("last", "… to the last subscriber's read")
_ALL_READ = ("without", "latency from publishing to read, when all read")
_OTHERS = ("others", "… of the others, when some read nothing")
_CONNECT = ("first", "latency from connect to the first event read")


def _figures(result: Json) -> Iterator[tuple[str, Figure]]:
    workloads = result["workloads"]
    if paced := _measured(workloads.get("paced")):
        yield "paced-latency", _distributions(paced, [_YIELD, _INTENDED], workloads["paced"]["title"])
        yield "paced-timeline", _arrivals_of_one(paced, result["settings"])
    if burst := _measured(workloads.get("burst")):
        yield "burst-latency", _distributions(burst, [_YIELD], workloads["burst"]["title"])
        yield "burst-timeline", _arrivals(burst)
    if first := _measured(workloads.get("first")):
        yield "first-latency", _distributions(first, [_CONNECT], "first: time to the first chunk")
    if flush := _measured(workloads.get("flush")):
        yield "flush-timeline", _groups(flush)
        yield "flush-gaps", _gaps(flush)
    yield from _channel_figures(workloads)


def _channel_figures(workloads: Json) -> Iterator[tuple[str, Figure]]:
    for name in ("fanout", "fanout-many"):
        if fanout := _measured(workloads.get(name)):
            costs = {"cpu_per_delivery_us": "steady", "fast_cpu_per_delivery_us": "as fast as it goes"}
            yield f"{name}-cpu", _bars(fanout, costs, "µs of CPU time for each delivery", workloads[name]["title"])
            yield f"{name}-latency", _distributions(fanout, [_FIRST, _LAST], workloads[name]["title"])
    if idle := _measured(workloads.get("idle")):
        memory = {"memory_per_connection_bytes": ""}
        yield "idle-memory", _bars(idle, memory, "KB of the server's memory for each", workloads["idle"]["title"], 1e-3)
    if slow := _measured(workloads.get("slow")):
        yield "slow-latency", _distributions(slow, [_ALL_READ, _OTHERS], workloads["slow"]["title"])
        yield "slow-memory", _memory(slow)


def _measured(part: Json | None) -> list[Json]:
    return [entry for entry in part["contenders"].values() if entry["state"] == "measured"] if part else []


def _look(entry: Json) -> dict[str, Any]:
    color, dash = _LOOKS.get(entry["peer"], _OTHER)
    if entry["peer"] == "floor" and entry["variant"]:
        dash = "-."
    ours = entry["peer"].startswith("rawstream")
    return {"color": color, "linestyle": dash, "linewidth": 2.2 if ours else 1.5, "zorder": 3 if ours else 2}


def _time(us: float, _position: object = None) -> str:
    """A time in the unit that suits it."""
    for unit, size in (("s", 1e6), ("ms", 1e3), ("µs", 1.0)):
        if us >= size:
            return f"{us / size:g} {unit}"
    return f"{us * 1e3:g} ns"


def _time_axis(axes: Axes) -> None:
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(numticks=12))
    axes.xaxis.set_major_formatter(FuncFormatter(_time))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _distributions(entries: list[Json], curves: list[tuple[str, str]], title: str) -> Figure:
    """A panel a curve: the share of the events that came within a time."""
    figure, panels = plt.subplots(1, len(curves), figsize=(5.2 * len(curves) + 2.4, 4.4), sharey=True, squeeze=False)
    for axes, (name, label) in zip(panels[0], curves, strict=True):
        for entry in entries:
            points = [(max(value, _LEAST_US), share) for share, value in entry["curves"][name]]
            axes.step(*zip(*points, strict=True), where="post", label=entry["title"], **_look(entry))
        _time_axis(axes)
        axes.set_xlim(left=_LEAST_US)
        axes.set_xlabel(label)
        axes.set_ylim(0, 1.01)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{share:.0%}"))
    panels[0][0].set_ylabel("share of the events within that time")
    panels[0][0].set_title(f"{title}\nfurther left is better", fontweight="bold")
    panels[0][-1].legend(loc="center left", bbox_to_anchor=(1.02, 0.5))
    return figure


def _rows(entries: list[Json], height: float) -> tuple[Figure, Axes]:
    """A plot with one named row for each entry, the first on top."""
    figure, axes = plt.subplots(figsize=(10, 1.3 + height * len(entries)))
    axes.set_yticks(range(len(entries)), [entry["title"] for entry in entries])
    axes.set_ylim(len(entries) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    return figure, axes


def _bars(entries: list[Json], metrics: dict[str, str], label: str, title: str, scale: float = 1.0) -> Figure:
    """A row for each entry, with a bar for each metric; a legend if there are several."""
    figure, axes = _rows(entries, 0.42)
    height = 0.8 / len(metrics)
    for number, (metric, name) in enumerate(metrics.items()):
        for row, entry in enumerate(entries):
            found = entry["summary"][metric]
            at, value = row + (number - (len(metrics) - 1) / 2) * height, found["median"] * scale
            axes.barh(at, value, height * 0.9, color=_look(entry)["color"], alpha=1 - 0.5 * number)
            low, high = value - found["low"] * scale, found["high"] * scale - value
            axes.errorbar(value, at, xerr=[[low], [high]], color="#30343b", linewidth=0.8)
            text = f"{value:.1f} {name}".rstrip()
            axes.annotate(
                text, (found["high"] * scale, at), (4, 0), textcoords="offset points", va="center", fontsize=8
            )
    axes.set_xlim(left=0)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel(label)
    axes.set_title(f"{title}\nshorter is better", fontweight="bold")
    return figure


def _memory(entries: list[Json]) -> Figure:
    """The memory of each server over time, against where it began."""
    figure, axes = plt.subplots(figsize=(8.6, 4.4))
    for entry in entries:
        start = entry["timeline"][0][1]
        points = [(at / 1e3, (memory - start) / 2**20) for at, memory in entry["timeline"]]
        axes.plot(*zip(*points, strict=True), label=entry["title"], **_look(entry))
    axes.set_xlim(left=0)
    axes.set_xlabel("seconds since the slow ones came")
    axes.set_ylabel("MiB more than then")
    axes.set_title("slow: the server's memory while some read nothing\nflatter is better", fontweight="bold")
    axes.legend(loc="center left", bbox_to_anchor=(1.02, 0.5))
    return figure


def _arrivals_of_one(entries: list[Json], settings: Json) -> Figure:
    """One reader's chunks against the time; the grid stands where they are due."""
    interval = settings["paced_interval"] * 1e3
    figure, axes = _rows(entries, 0.42)
    for row, entry in enumerate(entries):
        times = [at for at, _ in entry["timeline"]]
        axes.plot(times, [row] * len(times), "|", markersize=13, markeredgewidth=1.6, color=_look(entry)["color"])
    last = max((entry["timeline"][-1][0] for entry in entries if entry["timeline"]), default=0)
    axes.set_xticks([n * interval for n in range(0, int(last / interval) + 2, max(int(last / interval / 12), 1))])
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("ms since the first yield shown")
    axes.set_title(f"paced: when the chunks of one of {settings['paced_readers']} readers arrived", fontweight="bold")
    return figure


def _arrivals(entries: list[Json]) -> Figure:
    """How many events had arrived at which time."""
    figure, axes = plt.subplots(figsize=(8.6, 4.4))
    for entry in entries:
        total, points = 0, [(0.0, 0.0)]
        for at, count in entry["timeline"]:
            total += count
            points.append((at, total / 1e3))
        axes.step(*zip(*points, strict=True), where="post", label=entry["title"], **_look(entry))
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("ms since the first yield")
    axes.set_ylabel("thousand events read")
    axes.set_title("burst: events that have arrived\nsteeper is better", fontweight="bold")
    axes.legend(loc="center left", bbox_to_anchor=(1.02, 0.5))
    return figure


def _groups(entries: list[Json]) -> Figure:
    """One group of each: yields as ticks, reads as discs as large as what they brought."""
    figure, axes = _rows(entries, 0.46)
    for row, entry in enumerate(entries):
        # On a scale by ratios nothing is at 0: the first yield stands at the left edge.
        points = [(max(at * 1e3, _LEAST_US), count) for at, count in entry["timeline"]]
        yields = [at for at, count in points if not count]
        reads = [(at, count) for at, count in points if count]
        axes.plot(yields, [row - 0.2] * len(yields), "|", markersize=6, color="#30343b", markeredgewidth=0.8)
        axes.scatter(
            [at for at, _ in reads],
            [row + 0.13] * len(reads),
            s=[18 * min(count, _DISC_EVENTS) for _, count in reads],
            color=_look(entry)["color"],
            alpha=0.55,
            linewidths=0,
        )
        for at, count in reads:
            if count > 2:
                axes.annotate(str(count), (at, row + 0.13), ha="center", va="center", fontsize=7)
    _time_axis(axes)
    axes.set_xlim(left=_LEAST_US * 0.8)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("time since the first yield of the group")
    axes.set_title(
        "flush: what reaches the reader when (a typical group of 10 events)\n"
        "ticks: yields; discs: reads, with the number of events each brought",
        fontweight="bold",
    )
    return figure


def _gaps(entries: list[Json]) -> Figure:
    """The share of the gaps between reads in each range, a row a contender."""
    figure, axes = _rows(entries, 0.36)
    shares = [[count / max(sum(entry["histogram"]), 1) for count in entry["histogram"]] for entry in entries]
    axes.pcolormesh(shares, cmap="Blues", vmin=0, vmax=1)
    for row, line in enumerate(shares):
        for column, share in enumerate(line):
            if share >= 0.005:
                color = "white" if share > 0.6 else "black"
                axes.text(column + 0.5, row + 0.5, f"{share:.0%}", ha="center", va="center", fontsize=8, color=color)
    axes.set_yticks([row + 0.5 for row in range(len(entries))], [entry["title"] for entry in entries])
    axes.set_ylim(len(entries), 0)
    axes.set_xticks(range(1, len(GAP_EDGES_US) + 1), [_time(edge) for edge in GAP_EDGES_US])
    axes.grid(visible=False)
    axes.set_xlabel("gap from one read to the next")
    axes.set_title("flush: gaps between reads (10 ms is the wait between two groups)", fontweight="bold")
    return figure
