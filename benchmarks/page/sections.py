"""What each workload is in words, and which pictures tell it. A workload that is not named here gets plain ones."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from benchmarks import metrics
from benchmarks.page.pictures import Beats, Calls, Curves, Dots, Flushes, Growth, Percentiles, Picture
from benchmarks.workloads.scale import RATE

Json = dict[str, Any]


class Kind(Protocol):
    """What makes pictures of a workload's figures."""

    def draw(self, workload: str, part: Json) -> Iterator[Picture]: ...


@dataclass(frozen=True, slots=True)
class Section:
    """A workload's heading, what it measures in a sentence or two (with the run's sizes in it), and its pictures."""

    heading: str
    words: str
    kinds: tuple[Kind, ...]


_PACED = (
    Dots("cpu_per_chunk_us"),
    Percentiles("latency", "Latency from yield to read"),
    Percentiles("intended", "Lateness: from the time at which the event was meant to come"),
)
_COST = Dots("cpu_per_delivery_us", "CPU time for each delivery, at the steady rate")
_TO_FIRST = "Latency from publishing to the first subscriber's read"
_TO_LAST = "Latency from publishing to the last subscriber's read"
_AS_FAST_AS_IT_GOES = (
    Dots("fast_cpu_per_delivery_us", "CPU time for each delivery, as fast as it goes"),
    Dots("lag_p99_us", "Lag of the server's loop at the steady rate, p99"),
    Dots("answer_p99_us", "A short request while events go out as fast as they can, p99"),
)
_WHO_WAITS = (
    "Steeper is better. A step is a pile of events that came with one read; "
    "who takes much longer than others is shown as far as there is room."
)

SECTIONS = {
    "paced": Section(
        "Many streams with an event now and then",
        "{paced_readers:,} readers have a stream each, with an event of 26 bytes every {paced_interval_ms:g} ms: "
        "what does a chunk cost that travels alone, and how long is it on its way from `yield` to the reader's `read`?",
        (
            *_PACED,
            Beats(
                "When the chunks of one of the readers came",
                "Each mark is a read; the grid stands where they are due.",
                20,
            ),
        ),
    ),
    "paced-tls": Section(
        "The same over TLS",
        "The workload `paced`, encrypted: what TLS adds to each chunk, and to its way.",
        _PACED,
    ),
    "paced-gzip": Section(
        "The same with gzip",
        "The workload `paced`, compressed and flushed after each event. Who cannot flush, and so holds events back "
        "until a buffer is full, is named below the figures and not timed: a stream of events has to flow.",
        _PACED,
    ),
    "burst": Section(
        "One stream, as fast as it goes",
        "One reader and {burst_events:,} events of 26 bytes with no wait between: how fast do they come, and how "
        "old are they when they are read? The second floor is what the kernel needs when 16 KiB go out at once.",
        (
            Dots("events_per_s"),
            Dots("latency_p50_us", "Latency from yield to read, p50"),
            Percentiles("latency", "Latency from yield to read"),
            Growth("Events that have come", _WHO_WAITS),
            Dots("peak_memory_bytes", "Peak memory of the server, with its interpreter and all modules"),
        ),
    ),
    "first": Section(
        "The first chunk, and short requests",
        "{first_connections:,} connections one after the other: how long from `connect` to the first event? Then "
        "{short_connections} kept connections that ask for a short answer as often as they can: with the same request "
        "each time, and with another each time.",
        (
            Dots("first_p50_us", "Time from connecting to the first event, p50"),
            Percentiles("first", "Time from connecting to the first event"),
            Dots("requests_per_s"),
            Dots("varied_per_s"),
        ),
    ),
    "flush": Section(
        "What reaches the reader when",
        "Groups of {flush_size} events with no wait within a group and {flush_wait_ms:g} ms between groups: who "
        "gathers, and who waits? Each with Nagle's algorithm off, as all servers set it, and on.",
        (
            Flushes(),
            Dots("latency_p50_us", "Latency from yield to read, p50", nagle=False),
            Dots("cpu_per_event_us", nagle=False),
        ),
    ),
    "fanout": Section(
        "One event to {fanout_subscribers:,} subscribers",
        "A channel with {fanout_subscribers:,} subscribers gets an event every {fanout_interval_ms:g} ms, and later as "
        "fast as it can send them: what does a delivery cost, and when has it reached the first and the last of them?",
        (_COST, Percentiles("first", _TO_FIRST), Percentiles("last", _TO_LAST), *_AS_FAST_AS_IT_GOES),
    ),
    "fanout-many": Section(
        "One event to {many_subscribers:,} subscribers",
        "The same with {many_subscribers:,} subscribers and an event every {many_interval_ms:g} ms. A broadcast that "
        "holds the loop delays everything else: lag and short requests show by how much.",
        # A few events only: they have no percentiles.
        (
            _COST,
            Dots("first_p50_us", _TO_FIRST + ", p50"),
            Dots("last_p50_us", _TO_LAST + ", p50"),
            *_AS_FAST_AS_IT_GOES,
        ),
    ),
    "idle": Section(
        "Streams that say nothing",
        "{idle_connections:,} open streams: what does each hold in the server's memory? Subscribers of a channel, and "
        "streams whose handler has sent one event and waits.",
        (
            Dots("memory_per_connection_bytes", "Memory of the server for each stream"),
            Dots("cpu_per_opening_us", "CPU time of the server to open each"),
        ),
    ),
    "slow": Section(
        "Readers that do not read",
        "{slow_subscribers:,} subscribers of a channel, {slow_stalled} of which read nothing: what do they cost the "
        "others, and what does the server hold for them?",
        (
            Percentiles("without", "Latency when all read"),
            Percentiles("others", "Latency of the others when some read nothing"),
            Growth(
                "Memory of the server since the slow ones came",
                "Flatter is better: a line that keeps rising ends in a server without memory.",
                memory=True,
            ),
            Dots("held_per_slow_bytes", "Memory held for each of those that read nothing"),
        ),
    ),
    "scale": Section(
        "Cost against the number of connections",
        "From 1 to 10,000 streams that share {rate:,} events a second, on one worker and on two (a core each): "
        "more connections mean the same work, spread over more of them. rawstream only.",
        (
            Curves("cpu_per_chunk_us", "CPU time for each chunk", "Flat is ideal. Both scales are by ratios."),
            Curves("latency_p50_us", "Latency from yield to read, p50", "Lower is better."),
            Curves("latency_p99_us", "Latency from yield to read, p99", "Lower is better."),
            Curves(
                "memory_bytes", "Memory of the server", "The flat part is the interpreter; then each stream counts."
            ),
            Curves(
                "chunks_per_wakeup",
                "Chunks each time the server wakes up",
                "They share what waking up costs; with two workers, half as many share it.",
            ),
        ),
    ),
}


def section(name: str, part: Json) -> Section:
    """What is to be said of a workload."""
    if found := SECTIONS.get(name):
        return found
    compared = [column["metric"] for column in part["columns"] if column["ratio"]]
    return Section(part["title"], part["title"], tuple(Dots(metric, metrics.name(metric)) for metric in compared))


def pictures(name: str, part: Json) -> list[Picture]:
    """All pictures of a workload for which there are figures; the system calls come last."""
    kinds = (*section(name, part).kinds, Calls())
    return [picture for kind in kinds for picture in kind.draw(name, part)]


def words(template: str, settings: Json) -> str:
    """A text with the run's sizes in it."""
    in_ms = {f"{key}_ms": value * 1e3 for key, value in settings.items() if isinstance(value, float)}
    return template.format_map(_Sizes(settings | in_ms | {"rate": RATE}))


class _Sizes(dict[str, Any]):
    """A size that a result does not know is left out, rather than the page."""

    def __missing__(self, key: str) -> "_Unknown":
        return _Unknown()


class _Unknown:
    def __format__(self, _: str) -> str:
        return "…"
