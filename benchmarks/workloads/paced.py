"""`paced`: 200 readers, each with its own stream, an event every 20 ms. `paced-tls` and `paced-gzip`: the same under
TLS, and compressed with gzip so that each event can be decoded when it comes.

Each generator sleeps until its next intended time (the first event's time plus n x 20 ms) by `asyncio.sleep`. Readers
connect one after the other over one interval, as independent readers would, so the events are spread over it.

Measured in a window that begins when all streams have run for a while and ends before any ends:

* latency from `yield` (the stamp in the event) to the return of the `recv` that brought it: p50, p99, p99.9. It is what
  the server adds.
* latency from the *intended* time to the same moment. The late wake-up of the generator counts here, so a server that
  falls behind can't hide it by stamping late (coordinated omission); and so does the grain of a loop's timers. What is
  due by the end of the window and has not come counts with the time that it is overdue by then.
* CPU time of the server for each event
* delivered: the events that came, over those that were due in the window. Where this is less than all, the server
  cannot keep up: its latency then says how long the run was, and its CPU time for each event still counts.
* of gzip: bytes on the wire for each event of 26 bytes, framing included

Under TLS, server and reader agree on a cipher suite by themselves, and the reader verifies no certificate; handshakes
are over before the window. What reading costs the reader is more than for a plain stream: `reader busy` shows it.
A server that holds events back is found by the check: most of its events come after the next one is due. That is a
result (aiohttp's compression has no flush, so it holds back until a buffer is full), and no latency to be compared.
What is timed is checked, too: no stream may end, and no event may be of another kind, come twice or out of order. One
that is left out can't be told from one that is late: each event after it then counts as an interval late.
"""

import time
from collections.abc import Sequence
from functools import partial

from benchmarks.answer import (
    Event,
    HeldBack,
    Read,
    WrongAnswer,
    check_arrival,
    check_begun,
    check_events,
    parse,
)  # fmt: skip
from benchmarks.load import PLAIN, Load, Transfer
from benchmarks.peers import Peer
from benchmarks.process import Server, Window
from benchmarks.settings import Settings
from benchmarks.summary import curve, percentile
from benchmarks.workload import Column, Contender, Sample, Workload

_READ_BYTES = 4096
"""Enough for any read of a paced stream; a larger buffer costs the reader time for each read."""
_RECORD_BYTES = 16_384
"""The same under TLS, whose records come whole."""
_CHECKED = 8
_CHECK_INTERVAL = 0.02
_TRIES = 3  # a machine that is busy holds events back, too


def contenders(transfer: Transfer, peer: Peer) -> Sequence[Contender]:
    """Each peer, as it serves this way."""
    return (Contender(peer, transfer=transfer),)


def path(events: int, interval: float) -> str:
    """The path that asks for a paced stream."""
    return f"/paced?events={events}&interval={interval}"


def check(server: Server, contender: Contender, settings: Settings) -> None:
    """Some events, one by one: the right bytes, each before the next is due. One try in three has to be in time."""
    for left in reversed(range(_TRIES)):
        with _load(contender) as load:
            reader = load.ask(server.port, path(_CHECKED, _CHECK_INTERVAL))
            load.run(time.monotonic_ns() + int(settings.timeout * 1e9))
        events = check_events(parse(reader.reads), _CHECKED, contender.transfer.coding)
        try:
            check_arrival(events, _CHECK_INTERVAL)
        except HeldBack:
            if not left:
                raise
        else:
            break


def measure(server: Server, contender: Contender, settings: Settings) -> Sample:
    """Open all streams, let them run, and measure in the window."""
    interval = settings.paced_interval
    # The streams run on past the window, so that none ends within it, however long it takes to open them.
    lasts = settings.paced_warmup + settings.paced_seconds + settings.timeout
    target = path(int(lasts / interval), interval)
    with _load(contender) as load:
        _connect(load, server.port, target, settings.paced_readers, interval)
        load.run(time.monotonic_ns() + int(settings.paced_warmup * 1e9))
        with Window(server, settings.server_core) as window:
            load.run(window.began + int(settings.paced_seconds * 1e9))
        answers = [reader.reads for reader in load.readers]
        ended = sum(reader.ended for reader in load.readers)
    if ended:
        raise WrongAnswer(f"{ended} of {len(answers)} streams ended in the middle of the measurement")
    streams = [_events(reads, contender.transfer.coding) for reads in answers]
    sample = _summarise(streams, window, interval)
    if contender.transfer.gzip:
        sample.metrics["bytes_per_event"] = _bytes_per_event(answers, streams)
    return sample


def _load(contender: Contender) -> Load:
    size = _RECORD_BYTES if contender.transfer.tls else _READ_BYTES
    return Load(read_bytes=size, transfer=contender.transfer)


def _connect(load: Load, port: int, target: str, readers: int, interval: float) -> None:
    """Open the streams, spread over one interval."""
    start = time.monotonic_ns()
    for n in range(readers):
        load.run(start + int(n * interval / readers * 1e9))
        load.ask(port, target)


def _events(reads: Sequence[Read], coding: str) -> list[Event]:
    """The events of one stream; none when a server that cannot keep up has not come to it yet."""
    return check_begun(parse(reads), coding) if reads else []


def _bytes_per_event(answers: Sequence[Sequence[Read]], streams: Sequence[Sequence[Event]]) -> float:
    """Of all that came behind the first read, which has the head."""
    received = sum(len(read.data) for reads in answers for read in reads[1:])
    return received / sum(len(events) for events in streams)


def _summarise(streams: Sequence[Sequence[Event]], window: Window, interval: float) -> Sample:
    latencies: list[float] = []
    intended: list[float] = []
    step, span = interval * 1e9, window.span
    for events in streams:
        for n, event in enumerate(events):
            if event.arrived in span:
                latencies.append(event.latency / 1e3)
                intended.append((event.arrived - events[0].stamped - n * step) / 1e3)
        intended += _overdue(events, span.stop, step)
    if not latencies:
        raise WrongAnswer("no event came in the time of the measurement")
    due = len(streams) * len(span) / step
    shown = [event for event in streams[0] if event.arrived in span][:50]
    start = shown[0].stamped if shown else 0
    return Sample(
        metrics={
            **_percentiles("latency", latencies),
            **_percentiles("intended", intended),
            "cpu_per_chunk_us": window.used.server / len(latencies) / 1e3,
            "delivered": len(latencies) / due,
            "chunks": len(latencies),
            **window.metrics(len(latencies)),
        },
        curves={"latency": curve(latencies), "intended": curve(intended)},
        timeline=[(round((event.arrived - start) / 1e6, 4), 1) for event in shown],
        calls=window.used.calls,
        units=len(latencies),
    )


def _overdue(events: Sequence[Event], now: int, step: float) -> list[float]:
    """Of one stream: by how many microseconds each event is late that was due `now` (nanoseconds) and has not come."""
    if not events:
        return []  # nobody knows when its first was due
    first = events[0].stamped
    came = sum(event.arrived < now for event in events)
    due = int((now - first) / step) + 1
    return [(now - first - n * step) / 1e3 for n in range(came, due)]


def _percentiles(name: str, values: list[float]) -> dict[str, float]:
    values.sort()
    shares = {"p50": 0.5, "p99": 0.99, "p999": 0.999}
    return {f"{name}_{label}_us": percentile(values, share) for label, share in shares.items()}


_COLUMNS = (
    Column("cpu_per_chunk_us", "CPU/chunk µs", digits=1, ratio=True),
    Column("latency_p50_us", "p50 µs", ratio=True),
    Column("latency_p99_us", "p99 µs"),
    Column("latency_p999_us", "p99.9 µs"),
    Column("intended_p50_us", "late p50 µs"),
    Column("intended_p99_us", "late p99 µs"),
    Column("delivered", "delivered %", scale=100, digits=1),
    Column("reader_busy", "reader busy %", scale=100),
)
"""\"late" is the latency against the intended time."""


def _workload(name: str, title: str, transfer: Transfer, *more: Column) -> Workload:
    return Workload(
        name=name,
        title=f"{title}: 200 readers, an event every 20 ms",
        contenders=partial(contenders, transfer),
        check=check,
        measure=measure,
        columns=(*_COLUMNS, *more),
        unit="chunk",
        counts_calls=True,
    )


PACED = _workload("paced", "paced", PLAIN)
PACED_TLS = _workload("paced-tls", "paced, under TLS", Transfer(tls=True))
PACED_GZIP = _workload(
    "paced-gzip", "paced, with gzip", Transfer(gzip=True), Column("bytes_per_event", "bytes/event", digits=1)
)
