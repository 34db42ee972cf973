"""The probe against small servers: what it asks, and what it makes of streams that nobody stamped."""

from __future__ import annotations

import asyncio
import math
import random
import re
import ssl
import zlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from itertools import accumulate, count
from pathlib import Path

import pytest
import trustme
from culprits import listening

from rawstream.probe import ways
from rawstream.probe.arrivals import Mark, Piece, Recording
from rawstream.probe.conclusion import Conclusion, conclude
from rawstream.probe.findings import seconds
from rawstream.probe.hunt import Hunt
from rawstream.probe.measure import Asker, Limits, Unreachable
from rawstream.probe.report import text
from rawstream.probe.ways import Way
from rawstream.terminal import Style

# The client is at home on both loops, which its own tests show: these take seconds.
pytestmark = pytest.mark.either_loop

Steps = Callable[[bytes], AsyncIterator[bytes]]
"""The pieces of a body, given the head of the request."""

HEAD = "HTTP/1.1 200 OK\r\nContent-Type: {}\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n{}\r\n"
SHORT = 0.1  # seconds: so that a busy machine does not make one pause of two


def events(content_type: str = "text/event-stream", more: str = "") -> str:
    return HEAD.format(content_type, more)


class Origin:
    """A server that answers each request with a head and the pieces of a body, each a chunk; it notes the requests."""

    def __init__(
        self, steps: Steps, head: str | Callable[[bytes], str] = "", ends: bool = True, framed: bool = True
    ) -> None:
        self.steps, self.head, self.ends, self.framed = steps, head or events(), ends, framed
        self.asked: list[bytes] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = await reader.readuntil(b"\r\n\r\n")
        self.asked.append(asked)
        head = self.head if isinstance(self.head, str) else self.head(asked)
        writer.write(head.encode())
        async for piece in self.steps(asked):
            writer.write(b"%x\r\n%b\r\n" % (len(piece), piece) if self.framed else piece)
            await writer.drain()
        writer.write(b"0\r\n\r\n" if self.ends and self.framed else b"")
        await writer.drain()

    async def probed(self, seconds: float = 1.2, **options: float) -> tuple[Conclusion, Hunt]:
        async with listening(self) as port:
            hunt = Hunt(Asker(f"http://127.0.0.1:{port}/stream"), seconds, **options)  # type: ignore[arg-type]
            await asyncio.create_task(hunt.run())
            return conclude(hunt.cases), hunt


def event(number: int) -> bytes:
    return b"id: %d\ndata: something of about this length\n\n" % number


async def steady(asked: bytes) -> AsyncIterator[bytes]:
    for number in range(7):
        yield event(number)
        await asyncio.sleep(SHORT)


async def endless(asked: bytes) -> AsyncIterator[bytes]:
    number = 0
    while True:
        yield event(number)
        number += 1
        await asyncio.sleep(SHORT)


async def gathered(asked: bytes) -> AsyncIterator[bytes]:
    yield b"".join([piece async for piece in steady(asked)])


def zipped(flush: bool) -> tuple[Steps, Callable[[bytes], str]]:
    """A stream that is compressed for who asks for it."""

    async def steps(asked: bytes) -> AsyncIterator[bytes]:
        pack = zlib.compressobj(wbits=31)
        async for piece in steady(asked):
            if b"gzip" not in asked:
                yield piece
            elif packed := pack.compress(piece) + (pack.flush(zlib.Z_SYNC_FLUSH) if flush else b""):
                yield packed
        if b"gzip" in asked:
            yield pack.flush()

    return steps, lambda asked: events(more="Content-Encoding: gzip\r\n") if b"gzip" in asked else events()


async def nothing(asked: bytes) -> AsyncIterator[bytes]:
    return
    yield b""


async def silence(asked: bytes) -> AsyncIterator[bytes]:
    yield event(1)
    await asyncio.sleep(60)


# One test for all of these: they sleep at the same time.
async def test_streams_that_nobody_stamped_are_judged_by_how_they_come() -> None:
    flushed, held = zipped(True), zipped(False)
    origins = {
        "steady": (Origin(steady), "streams"),
        "endless": (Origin(endless), "streams"),
        "until the close": (
            Origin(steady, "HTTP/1.0 200 OK\r\nContent-Type: text/event-stream\r\n\r\n", framed=False),
            "streams",
        ),
        "gzip that flushes": (Origin(*flushed), "streams"),
        "gzip that does not": (
            Origin(*held),
            "held until the end where it is compressed (gzip), and streams where it is not",
        ),
        "at the end": (Origin(gathered), "held until the end"),
        "never": (Origin(silence), "brought 1 event at once, then nothing"),
        "empty": (Origin(nothing), "ended after"),
        "a document": (Origin(gathered, events("text/html")), "is no stream: "),
    }
    found = await asyncio.gather(*(origin.probed() for origin, _ in origins.values()))
    for (name, (_, words)), (conclusion, _) in zip(origins.items(), found, strict=True):
        assert conclusion.line.startswith(words), name
        assert conclusion.inferred == (conclusion.kind in ("streams", "held")), name
        assert conclusion.culprit is None or conclusion.culprit.name == "unknown", name


async def test_the_ways_differ_as_they_should() -> None:
    origin = Origin(steady)
    _, hunt = await origin.probed(0.3)
    assert [case.way.name for case in hunt.cases] == ["events", "events (gzip)", "any type", "HTTP/1.0"]
    first, browser, any_type, old, back = origin.asked
    assert b"\r\nAccept: text/event-stream\r\n" in first
    assert b"Accept-Encoding" not in first
    assert b"\r\nAccept-Encoding: gzip, deflate, br, zstd\r\n" in browser
    assert b"\r\nAccept: */*\r\n" in any_type
    assert old.startswith(b"GET /stream HTTP/1.0\r\n")
    assert b"\r\nLast-Event-ID: 0\r\n" in back
    assert hunt.resumed == "does not work: after id 0 came 0"


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ("404 Not Found", "answered 404 Not Found"),
        (
            "301 Moved Permanently\r\nLocation: /x",
            "answered 301 Moved Permanently: it leads to http://a/x, so probe that",
        ),
        ("500 Oops", "answered 500 Internal Server Error"),
    ],
)
async def test_a_refusal_is_asked_for_once(status: str, words: str) -> None:
    origin = Origin(nothing, f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n", framed=False)
    conclusion, _ = await origin.probed()
    line = re.sub(r"127\.0\.0\.1:\d+", "a", conclusion.line)
    assert (conclusion.kind, line, conclusion.exit) == ("failed", words, 2)
    assert len(origin.asked) == 1


async def test_where_only_post_is_allowed_it_asks_by_post() -> None:
    def head(asked: bytes) -> str:
        if asked.startswith(b"POST"):
            return events()
        return "HTTP/1.1 405 Method Not Allowed\r\nAllow: POST\r\nContent-Length: 0\r\n\r\n"

    async def steps(asked: bytes) -> AsyncIterator[bytes]:
        if asked.startswith(b"POST"):
            async for piece in steady(asked):
                yield piece

    origin = Origin(steps, head)
    conclusion, hunt = await origin.probed()
    assert conclusion.kind == "streams"
    assert [case.way.name for case in hunt.cases] == ["POST"]
    assert re.match(rb"POST (?s:.*)\r\nLast-Event-ID: 0\r\n", origin.asked[-1]), "as it was asked before"


async def test_where_no_events_are_acceptable_it_takes_any_type() -> None:
    def head(asked: bytes) -> str:
        return events("text/plain") if b"*/*" in asked else "HTTP/1.1 406 No\r\nContent-Length: 0\r\n\r\n"

    async def steps(asked: bytes) -> AsyncIterator[bytes]:
        if b"*/*" in asked:
            async for piece in steady(asked):
                yield piece

    conclusion, _ = await Origin(steps, head).probed()
    assert conclusion.kind == "streams"


async def test_nobody_is_there() -> None:
    async with listening(Origin(nothing)) as port:
        pass
    with pytest.raises(Unreachable, match="no connection"):
        await Hunt(Asker(f"http://127.0.0.1:{port}/")).run()


async def test_a_certificate_that_is_not_trusted_is_told_with_what_would_trust_it() -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("localhost").configure_cert(context)
    async with await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0, ssl=context) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(
            Unreachable, match=r"^no TLS with localhost .*; --cacert FILE trusts .* -k any certificate$"
        ):
            await Hunt(Asker(f"https://localhost:{port}/")).run()


async def test_what_is_broken_off_is_judged_by_what_came() -> None:
    """As by Ctrl-C: here once five events have come."""
    origin = Origin(endless)
    async with listening(origin) as port:
        hunt = Hunt(Asker(f"http://127.0.0.1:{port}/"), 60.0)
        task = asyncio.create_task(hunt.run())
        came = asyncio.Event()
        hunt.watch = lambda recorder: came.set() if len(recorder.pieces) > 4 else None
        await came.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    hunt.break_off()
    conclusion = conclude(hunt.cases)
    assert (conclusion.kind, len(hunt.cases)) == ("streams", 1)
    assert hunt.cases[0].recording.ending == "stopped"


async def test_a_cut_in_a_silence_of_which_it_was_asked() -> None:
    async def steps(asked: bytes) -> AsyncIterator[bytes]:
        for number in range(3):
            yield event(number)
            await asyncio.sleep(SHORT)
        await asyncio.sleep(0.7)

    conclusion, _ = await Origin(steps, ends=False).probed(3.0)
    assert conclusion.kind == "cut"
    assert conclusion.notes == ("the origin itself may have broken it off",)


async def test_a_silence_that_never_came_is_not_said_to_be_borne() -> None:
    (streams, talks), (_, rests) = await asyncio.gather(
        Origin(steady).probed(0.3, idle=60), Origin(silence).probed(0.3, idle=0.2)
    )
    assert streams.line == "streams"
    told = text("http://a/", talks.cases, streams, "", Style())
    assert "\ncannot tell idle for 60 s: was never silent for longer than " in told
    assert re.fullmatch(r"was left alone for .* of silence", rests.cases[-1].finding.words)


async def test_it_asks_on_a_unix_socket_whatever_host_the_url_names(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    origin = Origin(nothing, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", framed=False)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await origin(reader, writer)
        writer.close()

    async with await asyncio.start_unix_server(serve, path):
        hunt = Hunt(Asker("http://app.example/stream", uds=path))
        await hunt.run()
    assert conclude(hunt.cases).line == "answered 404 Not Found"
    assert b"\r\nHost: app.example\r\n" in origin.asked[0]


# -- our handler, behind somebody whose doing is calculated ------------------------------------------------------------

Hold = Callable[[list[float]], list[float]]
"""When what comes, given when it was sent, in seconds since the request."""


@dataclass(frozen=True)
class Calculated(Asker):
    """What our handler would send, and what would come of it: all periods and phases, in no time."""

    hold: Hold = list
    late: Callable[[], float] = lambda: 0.0
    """Seconds for which the machine stands still at the end."""

    async def ask(self, way: Way, limits: Limits) -> Recording:
        told = way.settings
        number, interval = int(told.get("count", 16)), float(told.get("interval", 0.1))
        size = int(told.get("size", 160)) + 14
        sent = [place * interval + random.uniform(0.0005, 0.002) for place in range(number)]
        came = [max(pair) for pair in zip(sent, self.hold(sent), strict=True)]
        end = sent[-1] + 0.001 + self.late()  # which brings what is left
        came = [time if time < sent[-1] else end for time in accumulate(came, max)]
        marks = [
            Mark(place + 1, number, *times, (place + 1) * size)
            for place, times in enumerate(zip(sent, came, strict=True))
        ]
        pieces = [Piece(time, size, size, 1) for time in came]
        assert came[-1] < limits.seconds
        return Recording(200, head_at=0.0, pieces=tuple(pieces), marks=tuple(marks), ended_at=came[-1])


async def calculated(hold: Hold, late: Callable[[], float] = lambda: 0.0) -> Conclusion:
    hunt = Hunt(Calculated("http://x/probe", hold=hold, late=late))
    await hunt.run()
    return conclude(hunt.cases)


def by_the_clock(period: float, phase: float) -> Hold:
    """A clock that ticks `phase` seconds after the request for the first time."""
    return lambda sent: [phase + period * max(math.ceil((time - phase) / period), 0) for time in sent]


@pytest.mark.parametrize("period", [0.25, 0.3, 0.33, 0.36, 0.4, 0.44, 0.5, 0.6, 0.8, 1.0, 1.2, 1.45, 1.7, 2.0, 2.4])
async def test_a_clock_is_told_with_its_period_and_in_all_ways_alike(period: float) -> None:
    """One that begins to tick with the answer."""
    random.seed(period)
    for _ in range(5):
        conclusion = await calculated(by_the_clock(period, period + 0.003))
        assert conclusion.line == f"arrives in batches, one each {seconds(period)}, of whatever has gathered"
        assert conclusion.culprit is not None
        assert conclusion.culprit.name == "unknown"


@pytest.mark.parametrize("period", [0.25, 0.29, 0.3, 0.36, 0.37, 0.4, 0.44, 0.5, 0.6, 0.8, 1.0, 1.2])
async def test_a_clock_that_ticks_for_all_is_told_whenever_one_asks(period: float) -> None:
    random.seed(period)
    for _ in range(10):
        conclusion = await calculated(lambda sent: by_the_clock(period, random.uniform(0, period))(sent))
        assert conclusion.kind == "batches"
        assert " not for " not in conclusion.line


def standing_still(sent: list[float]) -> list[float]:
    """On a machine that stands still again and again: for most of the time, and for a quarter of it when it is asked to
    send slowly."""
    times: list[tuple[float, float]] = []
    wakes, usual = 0.0, 1.0 if is_slow(sent) else 0.13
    while not times or wakes < sent[-1]:
        start = wakes + usual * random.uniform(0.6, 1.4)
        times.append((start, wakes := start + random.uniform(0.1, 0.33)))
    return [next((end for start, end in times if start <= time < end), time) for time in sent]


def is_slow(sent: list[float]) -> bool:
    return sent[1] - sent[0] > 0.2


def corked(sent: list[float]) -> list[float]:
    """Linux lets go after 0.2 s of what HAProxy says is not all."""
    came, flushed = [], -1.0
    for time in sent:
        flushed = flushed if time <= flushed else time + 0.2
        came.append(flushed + random.uniform(0, 0.004))
    return came


def unlucky(sent: list[float]) -> list[float]:
    """On a machine as busy as that, on which once in a while what is sent slowly comes as if by a clock."""
    is_slow, period = sent[1] - sent[0] > 0.2, random.uniform(0.3, 0.6)
    return by_the_clock(period, period)(sent) if is_slow and random.random() < 0.15 else standing_still(sent)


@pytest.mark.parametrize("hold", [list, standing_still, corked])
async def test_a_busy_machine_and_a_short_wait_for_more_are_nobodys_fault(hold: Hold) -> None:
    random.seed(1)
    for _ in range(15):
        conclusion = await calculated(hold)
        assert (conclusion.line, conclusion.exit) == ("streams", 0)
        assert any("HAProxy" in note for note in conclusion.notes) or hold is not corked


def one_behind(sent: list[float]) -> list[float]:
    """Each comes when the next one is sent."""
    return [*sent[1:], sent[-1]]


async def test_who_is_one_chunk_behind_is_found_though_the_last_chunk_is_late() -> None:
    """It is the chunk by which is seen how late the others are."""
    random.seed(1)
    for _ in range(15):
        conclusion = await calculated(one_behind, late=lambda: random.uniform(0.02, 0.06))
        assert (conclusion.line, conclusion.exit) == ("arrives one chunk late: each waits for the next one", 1)


async def test_what_comes_in_batches_once_and_not_when_it_is_asked_for_again_is_chance() -> None:
    """As on a line that loses packets, where what is sent slowly comes unevenly."""
    asked = count()

    def hold(sent: list[float]) -> list[float]:
        if is_slow(sent):
            return [time + 0.25 * (place % 2) for place, time in enumerate(sent)]
        return by_the_clock(0.5, 0.5)(sent) if next(asked) == 2 else sent

    conclusion = await calculated(hold)
    assert (conclusion.line, conclusion.exit) == ("streams", 0)


async def test_what_comes_in_batches_each_time_counts_though_most_ways_stream() -> None:
    class Compressor(Calculated):
        async def ask(self, way: Way, limits: Limits) -> Recording:
            hold = by_the_clock(0.5, 0.5) if ways.BROWSER in way.headers else self.hold
            return await Calculated(self.url, hold=hold).ask(way, limits)

    hunt = Hunt(Compressor("http://x/probe"))
    await hunt.run()
    line = "arrives in batches, one each 0.5 s, of whatever has gathered for events (gzip) and text (gzip), not for "
    assert conclude(hunt.cases).line.startswith(line)


async def test_most_of_the_ways_decide_for_all() -> None:
    """What came in batches in all of them, and in one alone when it was sent slowly, was chance."""
    asked = count()

    def hold(sent: list[float]) -> list[float]:
        return sent if is_slow(sent) and next(asked) != 2 else by_the_clock(0.28, 0.28)(sent)

    conclusion = await calculated(hold)
    assert (conclusion.line, conclusion.exit) == ("streams", 0)
    assert next(asked) == len(ways.STAMPED) + 1
