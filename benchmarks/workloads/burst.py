"""`burst`: one reader, 200,000 events of 26 bytes with no wait between.

Measured from the request to the end of the answer, or for a second: some peers would take half a minute.

* events a second
* latency of each event from `yield` to the return of the `recv` that brought its last byte: p50, p99
* CPU time of the server for each event
* the reads that the reader needed, and the chunks in them
* the server's peak memory (VmHWM), with the interpreter and all its modules

No event has an intended time here: each is due as soon as the one before it is taken.

The floor takes part twice: with a `send` for each event, and with a `send` for each 16 KiB, which is what a server
that gathers is to be held against.
"""

from collections.abc import Sequence

from benchmarks.answer import AnswerParser, Event, WrongAnswer, check_begun, check_events, parse
from benchmarks.load import Load, ask
from benchmarks.peers import Peer
from benchmarks.process import Server, Window
from benchmarks.settings import Settings
from benchmarks.summary import curve, percentile
from benchmarks.workload import Column, Contender, Sample, Workload

_POINTS = 400
"""Points of the time line: as many as a plot can show."""


def contenders(peer: Peer) -> Sequence[Contender]:
    """Each peer, and the floor once more with gathered sends."""
    plain = Contender(peer)
    return (plain, Contender(peer, "&gather=16384", "16 KiB a send")) if peer.is_floor else (plain,)


def path(contender: Contender, events: int) -> str:
    """The path that asks for a burst."""
    return f"/burst?events={events}{contender.query}"


def check(server: Server, contender: Contender, settings: Settings) -> None:
    """A short burst, which also warms the server up."""
    _, answer, _ = ask(server.port, path(contender, settings.burst_warmup), settings.timeout)
    check_events(answer, settings.burst_warmup)


def measure(server: Server, contender: Contender, settings: Settings) -> Sample:
    """Ask, read to the end, and count."""
    with Load() as load, Window(server, settings.server_core) as window:
        reader = load.ask(server.port, path(contender, settings.burst_events))
        load.run(window.began + int(settings.burst_seconds * 1e9))
    answer = parse(reader.reads)
    events = check_events(answer, settings.burst_events) if reader.ended else _begun(answer)
    latencies = sorted(event.latency / 1e3 for event in events)
    seconds = (events[-1].arrived - reader.asked) / 1e9
    return Sample(
        metrics={
            "events_per_s": len(events) / seconds,
            "latency_p50_us": percentile(latencies, 0.5),
            "latency_p99_us": percentile(latencies, 0.99),
            "cpu_per_event_us": window.used.server / len(events) / 1e3,
            "reads": len(reader.reads),
            "chunks": len(answer.chunks),
            **window.metrics(len(events)),
        },
        curves={"latency": curve(latencies)},
        timeline=_timeline(events),
        calls=window.used.calls,
        units=len(events),
    )


def _begun(answer: AnswerParser) -> list[Event]:
    """The events of an answer that was left before its end."""
    events = check_begun(answer)
    if not events:
        raise WrongAnswer("no event came in the time of the measurement")
    return events


def _timeline(events: Sequence[Event]) -> list[tuple[float, int]]:
    """When which share of the events had arrived: (ms since the first yield, events since the last point)."""
    step = max(len(events) // _POINTS, 1)
    start = events[0].stamped
    return [(round((event.arrived - start) / 1e6, 4), step) for event in events[step - 1 :: step]]


BURST = Workload(
    name="burst",
    title="burst: one reader, events of 26 bytes with no wait between",
    contenders=contenders,
    check=check,
    measure=measure,
    unit="event",
    counts_calls=True,
    columns=(
        Column("events_per_s", "events/s", ratio=True),
        Column("latency_p50_us", "p50 µs", ratio=True),
        Column("latency_p99_us", "p99 µs"),
        Column("cpu_per_event_us", "CPU/event µs", digits=2),
        Column("chunks", "chunks"),
        Column("reads", "reads"),
        Column("peak_memory_bytes", "peak MiB", scale=2**-20, digits=1),
        Column("reader_busy", "reader busy %", scale=100),
    ),
)
