"""The counts, and the access log: what is told of each request, and that nothing in it can be forged."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
from collections.abc import AsyncIterator, Iterator
from datetime import datetime
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import (
    LAST_CHUNK,
    TEXT_HEAD,
    Clock,
    Failures,
    Peer,
    Serving,
    chunk,
    get,
    in_background,
    request,
    settle,
    until,
)

from rawstream import Limits, Request, Response, Stream, Timeouts, observe
from rawstream.errors import HTTPError, LocalError
from rawstream.fields import Headers
from rawstream.messages import RequestHead
from rawstream.observe import Record

steady = settings(
    derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)


class Lines(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@pytest.fixture(autouse=True)
def _from_nothing(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The counts belong to the process; a test begins at zero."""
    monkeypatch.setattr(observe, "counts", observe.Counts())
    monkeypatch.setattr(observe, "open_streams", set())
    monkeypatch.setattr(observe, "_told", {})
    yield
    observe.access_log("common")


@pytest.fixture
def log() -> Iterator[Lines]:
    logger, lines = logging.getLogger("rawstream.access"), Lines()
    before = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(lines)
    yield lines
    logger.removeHandler(lines)
    logger.setLevel(before)


class NoBody:
    trailers = Headers()

    async def read(self) -> bytes:
        return b""


def asked(
    method: str = "GET",
    target: str = "/",
    fields: dict[str, str] | None = None,
    name: str = "a1-7",
    version: str = "1.1",
) -> Request:
    """A request as the connection makes it."""
    head = RequestHead(method, target, target, "", Headers((fields or {}).items()), version)
    return Request(head, ("192.0.2.7", 4711), name, asyncio.Event(), NoBody())


def record(of: Request | None = None, **told: Any) -> Record:
    """What the connection knows of it in the end; it took a second and a half."""
    told = {"status": 200, "outcome": "complete", "client": ("192.0.2.7", 4711), "sent": 1234} | told
    return Record(of, time.monotonic() - 1.5, **told)


class Line:
    """A transport that has sent something, for somebody else."""

    def __init__(self, sent: int = 0) -> None:
        self.sent = sent
        self.writable = True


# -- counts ------------------------------------------------------------------------------------------------------------


def test_a_value_is_counted_below_the_first_bound_that_it_does_not_pass() -> None:
    histogram = observe.Histogram((0.1, 1.0))
    for value in (0.0, 0.1, 0.125, 0.5, 1.0, 400.0):
        histogram.add(value)
    assert histogram.buckets == [2, 3, 1]
    assert histogram.sum == pytest.approx(401.725)


def test_connections_are_counted_while_they_are_open_and_for_good() -> None:
    for _ in range(3):
        observe.connected()
    observe.disconnected()
    assert (observe.counts.connections, observe.counts.accepted) == (2, 3)


@pytest.mark.parametrize("reason", ["connections", "connections_per_client", "streams", "head"])
def test_refusals_are_counted_by_their_reason(reason: observe.Reason) -> None:
    observe.refused(reason)
    assert {name: number for name, number in observe.counts.refused.items() if number} == {reason: 1}


def test_a_producers_wait_for_its_reader_is_measured() -> None:
    observe.paused(0.75)
    assert observe.counts.write_stall.sum == 0.75
    assert sum(observe.counts.write_stall.buckets) == 1


@pytest.mark.parametrize(
    ("method", "status", "kind"),
    [
        ("GET", 200, ("GET", "2xx")),
        ("POST", 404, ("POST", "4xx")),
        ("HEAD", 599, ("HEAD", "5xx")),
        ("GET", 0, ("GET", "none")),
        ("get", 200, ("other", "2xx")),
        ("X-9f3", 405, ("other", "4xx")),
    ],
)
def test_requests_are_counted_by_method_and_class_of_status(method: str, status: int, kind: tuple[str, str]) -> None:
    for _ in range(2):
        story = record(asked(method), status=status)
        observe.began(story)
        observe.ended(story)
    assert observe.counts.requests == {kind: 2}


def test_a_client_that_invents_methods_does_not_make_the_counts_grow() -> None:
    for number in range(1000):
        story = record(asked(f"M{number}"))
        observe.began(story)
        observe.ended(story)
    assert observe.counts.requests == {("other", "2xx"): 1000}


def test_a_request_is_under_way_from_its_head_to_its_end() -> None:
    stories = [record(asked()), record(asked())]
    for story in stories:
        observe.began(story)
    assert observe.counts.under_way == 2
    observe.ended(stories[0])
    assert observe.counts.under_way == 1


def test_a_refused_head_was_never_under_way() -> None:
    observe.ended(record(status=400, outcome="refused"))
    assert observe.counts.under_way == 0
    assert observe.counts.requests == {("other", "4xx"): 1}
    assert observe.counts.sent == 1234
    assert sum(observe.counts.request_seconds.buckets) == 0, "it took no time, and is not to better the others'"


def test_what_is_sent_is_read_from_where_it_is_written_less_what_was_sent_before() -> None:
    line = Line(sent=100)
    story = record(asked(), writer=line, sent=0)
    observe.began(story)
    assert story.sent_so_far == 0
    line.sent += 17
    assert story.sent_so_far == 17
    observe.ended(story)
    line.sent += 1000  # for the next request
    assert (story.sent, observe.counts.sent) == (17, 17)


def test_a_stream_is_open_from_its_beginning_to_its_end() -> None:
    story = record(asked(), outcome="client gone")
    observe.began(story)
    assert observe.open_streams == set()
    observe.streams(story)
    assert observe.open_streams == {story}
    assert story.streaming
    observe.first_chunk(story)
    story.chunks += 3
    assert story.first == pytest.approx(time.monotonic(), abs=10)
    assert sum(observe.counts.first_chunk.buckets) == 1, "who streams for ever is counted too"
    observe.ended(story)
    assert observe.open_streams == set()
    assert observe.counts.chunks == 3
    assert {how: number for how, number in observe.counts.streams_ended.items() if number} == {"client gone": 1}
    assert sum(observe.counts.first_chunk.buckets) == 1


@pytest.mark.parametrize("streaming", [True, False])
def test_streams_and_other_answers_are_not_timed_together(streaming: bool) -> None:
    story = record(asked())
    observe.began(story)
    if streaming:
        observe.streams(story)
    observe.ended(story)
    timed, other = observe.counts.stream_seconds, observe.counts.request_seconds
    if not streaming:
        timed, other = other, timed
    assert (sum(timed.buckets), sum(other.buckets)) == (1, 0)
    assert timed.sum >= 1.5


# -- the access log ----------------------------------------------------------------------------------------------------


@pytest.fixture
def noon(monkeypatch: pytest.MonkeyPatch) -> None:
    """7 March 2026, 12:05:09 in a zone an hour and a half east of Greenwich; a second and a half is over."""
    moment = time.struct_time((2026, 3, 7, 12, 5, 9, 5, 66, 0), {"tm_gmtoff": 5400, "tm_zone": "TEST"})
    clock = SimpleNamespace(localtime=lambda: moment, strftime=time.strftime, monotonic=lambda: 101.5)
    monkeypatch.setattr(observe, "time", clock)
    utc = SimpleNamespace(now=lambda zone: datetime(2026, 3, 7, 10, 35, 9, 86_000, tzinfo=zone))
    monkeypatch.setattr(observe, "datetime", utc)


def test_a_request_is_a_line_in_the_common_log_format_and_what_became_of_it(log: Lines, noon: None) -> None:
    story = Record(asked("POST", "/stream?a=b"), 100.0, 200, sent=1234, outcome="complete", client=("192.0.2.7", 4711))
    observe.ended(story)
    assert log.lines == [
        '192.0.2.7 - - [07/Mar/2026:12:05:09 +0130] "POST /stream?a=b HTTP/1.1" 200 1234 1.500s complete a1-7'
    ]


def test_a_request_is_an_object_on_a_line_of_its_own(log: Lines, noon: None) -> None:
    fields = {"User-Agent": 'curl "8"', "Referer": "https://example.org/"}
    story = Record(asked("POST", "/a?b", fields), 100.0, 404, sent=99, outcome="complete", client=("192.0.2.7", 4711))
    observe.access_log("json")
    observe.ended(story)
    assert log.lines == [
        '{"time": "2026-03-07T10:35:09.086Z", "client": "192.0.2.7", "method": "POST", "target": "/a?b", '
        '"version": "1.1", "status": 404, "bytes": 99, "duration": 1.5, "ended": "complete", "id": "a1-7", '
        '"user_agent": "curl \\"8\\"", "referer": "https://example.org/"}'
    ]


def test_a_streams_object_tells_its_first_chunk_and_how_many_there_were(log: Lines, noon: None) -> None:
    story = Record(asked(), 100.0, 200, True, 100.0625, 12, 345, "stalled", ("192.0.2.7", 4711))
    observe.access_log("json")
    observe.ended(story)
    told = json.loads(log.lines[0])
    assert (told["first_chunk"], told["chunks"], told["ended"]) == (0.0625, 12, "stalled")
    assert (told["user_agent"], told["referer"]) == (None, None)


def test_a_stream_that_sent_nothing_has_no_first_chunk(log: Lines) -> None:
    observe.access_log("json")
    observe.ended(record(asked(), streaming=True))
    told = json.loads(log.lines[0])
    assert (told["first_chunk"], told["chunks"]) == (None, 0)


@pytest.mark.parametrize(
    ("month", "name"),
    [*enumerate(["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"], 1)],
)
def test_the_months_are_english_in_every_locale(
    log: Lines, monkeypatch: pytest.MonkeyPatch, month: int, name: str
) -> None:
    moment = time.struct_time((2026, month, 1, 0, 0, 0, 0, 1, 0), {"tm_gmtoff": 0, "tm_zone": "UTC"})
    clock = SimpleNamespace(localtime=lambda: moment, strftime=time.strftime, monotonic=time.monotonic)
    monkeypatch.setattr(observe, "time", clock)
    observe.ended(record(asked()))
    assert log.lines[0].startswith(f"192.0.2.7 - - [01/{name}/2026:00:00:00 +0000] ")


def test_the_time_is_the_local_time(log: Lines) -> None:
    observe.ended(record(asked(), sent=0))
    stamp = r"\[\d\d/[A-Z][a-z][a-z]/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\]"
    assert re.fullmatch(rf'192\.0\.2\.7 - - {stamp} "GET / HTTP/1\.1" 200 0 \d+\.\d{{3}}s complete a1-7', log.lines[0])


def test_the_time_of_an_object_is_in_utc(log: Lines) -> None:
    observe.access_log("json")
    observe.ended(record(asked()))
    told = json.loads(log.lines[0])["time"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", told)
    assert abs(datetime.fromisoformat(told).timestamp() - time.time()) < 60


@pytest.mark.parametrize("form", ["common", "json"])
def test_who_comes_by_a_unix_socket_has_no_address(log: Lines, form: Any) -> None:
    observe.access_log(form)
    observe.ended(record(asked(), client=None))
    assert log.lines[0].startswith("unix - - [") or json.loads(log.lines[0])["client"] == "unix"


def test_a_request_that_was_not_answered_has_no_status(log: Lines) -> None:
    for form in ("common", "json"):
        observe.access_log(form)  # type: ignore[arg-type]
        observe.ended(record(asked(), status=0, sent=0, outcome="client gone"))
    assert re.search(r'"GET / HTTP/1\.1" - 0 \d+\.\d{3}s client gone a1-7$', log.lines[0])
    assert json.loads(log.lines[1])["status"] is None


def test_a_head_that_is_no_request_is_logged_too(log: Lines) -> None:
    for form in ("common", "json"):
        observe.access_log(form)  # type: ignore[arg-type]
        observe.ended(record(status=431, outcome="refused", id="a1-8"))
    assert re.search(r'\] "-" 431 1234 \d+\.\d{3}s refused a1-8$', log.lines[0])
    told = json.loads(log.lines[1])
    assert (told["client"], told["status"], told["ended"]) == ("192.0.2.7", 431, "refused")
    assert told["id"] == "a1-8"
    assert {told[name] for name in ("method", "target", "version", "user_agent", "referer")} == {None}


def test_nothing_is_logged_while_the_access_log_is_off(log: Lines) -> None:
    logging.getLogger("rawstream.access").setLevel(logging.WARNING)
    observe.ended(record(asked()))
    assert log.lines == []


def test_a_format_that_there_is_not_is_refused() -> None:
    with pytest.raises(LocalError, match='"common" or "json", not \'combined\''):
        observe.access_log("combined")  # type: ignore[arg-type]


# -- nobody can forge a line -------------------------------------------------------------------------------------------

COMMON = re.compile(
    r'(?P<client>[!-~]+) - - \[[^\]"]+\] "(?P<line>(?:[ !#-\[\]-~]|\\[ -~])*)" (?P<status>\d{3}) (?P<sent>\d+) '
    r"\d+\.\d{3}s (?P<ended>complete|refused) (?P<id>[!-~]*)"
)

anything = st.text(max_size=30) | st.text(alphabet=' "\\\n\r\t\x00\x1b\x7f\x85\u2028\u202e[]{},:-é', max_size=12)


def unescaped(text: str) -> str:
    return text.encode("ascii").decode("unicode_escape")


def logged(form: Any, story: Record) -> str:
    """The line for it."""
    logger, lines = logging.getLogger("rawstream.access"), Lines()
    logger.setLevel(logging.INFO)
    logger.addHandler(lines)
    observe.access_log(form)
    try:
        observe.ended(story)
    finally:
        logger.removeHandler(lines)
        logger.setLevel(logging.NOTSET)
    [line] = lines.lines
    return line


@steady
@given(method=anything, target=anything, version=anything, name=anything, client=anything)
def test_whatever_the_fields_hold_a_common_line_is_one_line_and_holds_exactly_them(
    method: str, target: str, version: str, name: str, client: str
) -> None:
    line = logged("common", record(asked(method, target, name=name, version=version), client=(client or "-", 1)))
    assert line.isascii()
    assert line.isprintable()
    found = COMMON.fullmatch(line)
    assert found is not None, line
    assert unescaped(found["line"]) == f"{method} {target} HTTP/{version}"
    assert unescaped(found["id"]) == name
    assert unescaped(found["client"]) == (client or "-")
    assert (found["status"], found["sent"]) == ("200", "1234")


@steady
@given(method=anything, target=anything, agent=anything, referer=anything, name=anything, client=anything)
def test_whatever_the_fields_hold_an_object_is_one_line_and_holds_exactly_them(
    method: str, target: str, agent: str, referer: str, name: str, client: str
) -> None:
    fields = {"user-agent": agent, "referer": referer}
    line = logged("json", record(asked(method, target, fields, name), client=(client, 1)))
    assert line.isascii()
    assert line.isprintable()
    told = json.loads(line)
    assert (told["method"], told["target"], told["id"], told["client"]) == (method, target, name, client)
    assert (told["user_agent"], told["referer"]) == (agent, referer)
    assert (told["status"], told["bytes"], told["ended"]) == (200, 1234, "complete")


@pytest.mark.parametrize("form", ["common", "json"])
async def test_bytes_from_a_socket_cannot_forge_a_line(serving: Serving, log: Lines, form: Any) -> None:
    """Whatever is let through as a target, as a user agent or as a referer, and whatever is refused."""

    async def handler(request: Request) -> Response:
        return Response.text("x")

    observe.access_log(form)
    served = await serving(handler)
    attacks = [
        request('/"%0d%0a', 'User-Agent: x" 200 1\\', 'Referer: {"a":"\\u000a"}'),
        request("/\\x0a\\", "User-Agent: \x1b[31mred\x85\xa0\xff", "Referer: \x7f\x9b"),
        request("/a", "User-Agent: a\tb", "Referer: \x08"),
        request("/\x85\x1b[2J"),
        request("/a\nb"),
        request("/", method='G"ET'),
        b'\x00\x1b]0;title\x07"\n\r\n\r\n',
    ]
    for number, attack in enumerate(attacks, 1):
        peer = await served.ask(attack)
        await peer.head()
        peer.close()
        await until(lambda number=number: len(log.lines) >= number)  # type: ignore[misc]
    assert len(log.lines) == len(attacks)
    for line in log.lines:
        assert line.isascii()
        assert line.isprintable()
        if form == "json":
            assert json.loads(line)["client"] == "127.0.0.1"
        else:
            assert COMMON.fullmatch(line)


# -- a log handler that raises -----------------------------------------------------------------------------------------


class Broken(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        raise ZeroDivisionError("the program's own handler")


@pytest.fixture
def broken(log: Lines) -> Iterator[None]:
    handler = Broken()
    logging.getLogger("rawstream.access").addHandler(handler)
    yield
    logging.getLogger("rawstream.access").removeHandler(handler)


async def test_a_log_handler_that_raises_hurts_no_request(
    serving: Serving, broken: None, capsys: pytest.CaptureFixture[str]
) -> None:
    async def handler(request: Request) -> AsyncIterator[str]:
        yield "x"

    peer = await (await serving(handler)).ask(get(accept="text/plain") * 2)
    for _ in range(2):
        await peer.expect_head(TEXT_HEAD)
        await peer.expect(chunk(b"x") + LAST_CHUNK)
    await until(lambda: not observe.open_streams)
    assert observe.counts.streams_ended["complete"] == 2
    assert capsys.readouterr().err.count("ZeroDivisionError: the program's own handler") == 2


def test_as_with_logging_itself_its_failure_can_be_kept_quiet(
    broken: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(logging, "raiseExceptions", False)
    observe.ended(record(asked()))
    assert capsys.readouterr().err == ""


def test_a_process_without_stderr_keeps_quiet(
    broken: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stderr", None)
    observe.ended(record(asked()))
    assert capsys.readouterr().out == ""


# -- what a server tells -----------------------------------------------------------------------------------------------


def ends() -> dict[str, int]:
    """How streams have ended."""
    return {how: number for how, number in observe.counts.streams_ended.items() if number}


def tail(line: str) -> str:
    """A line from the request's on, without what differs from run to run."""
    line = line[line.index('"') :]
    return re.sub(r" (\d+) \d+\.\d{3}s (.*) \S+$", r" BYTES SECONDS \2", line)


async def endless(request: Request) -> AsyncIterator[str]:
    yield "x"
    await asyncio.get_running_loop().create_future()


async def opened(peer: Peer, number: int = 1) -> Record:
    """The stream that the peer has just been sent the beginning of."""
    await peer.expect_head(TEXT_HEAD)
    await peer.expect(chunk(b"x"))
    await until(lambda: len(observe.open_streams) == number)
    return next(iter(observe.open_streams))


async def test_a_stream_that_comes_to_its_end(serving: Serving, log: Lines) -> None:
    async def handler(request: Request) -> AsyncIterator[str]:
        for _ in range(3):
            yield "abc"
            await asyncio.sleep(0)

    served = await serving(handler)
    peer = await served.ask(request("/a?b", "Accept: text/plain", "Connection: close"))
    raw = await peer.until(b"\r\n\r\n") + await peer.rest()
    assert raw.endswith(chunk(b"abc") * 3 + LAST_CHUNK)
    await until(lambda: log.lines != [])
    assert tail(log.lines[0]) == '"GET /a?b HTTP/1.1" 200 BYTES SECONDS complete'
    assert f" {len(raw)} " in log.lines[0]
    counts = observe.counts
    assert (counts.requests, ends()) == ({("GET", "2xx"): 1}, {"complete": 1})
    assert (counts.chunks, counts.sent, counts.under_way) == (3, len(raw), 0)
    assert sum(counts.first_chunk.buckets) == sum(counts.stream_seconds.buckets) == 1
    assert observe.open_streams == set()


async def test_a_stream_that_is_there_all_at_once(serving: Serving) -> None:
    """It leaves in one write, head and end included."""

    async def handler(request: Request) -> AsyncIterator[str]:
        yield "abc"

    peer = await (await serving(handler)).ask(get(accept="text/plain"))
    await peer.expect_head(TEXT_HEAD)
    await peer.expect(chunk(b"abc") + LAST_CHUNK)
    await until(lambda: observe.counts.under_way == 0)
    assert (observe.counts.chunks, ends()) == (1, {"complete": 1})
    assert sum(observe.counts.first_chunk.buckets) == 1


async def test_an_open_stream_shows_what_it_has_sent_so_far(serving: Serving) -> None:
    go_on = asyncio.Event()

    async def handler(request: Request) -> AsyncIterator[str]:
        yield "x"
        await go_on.wait()
        yield "abc"
        await asyncio.get_running_loop().create_future()

    peer = await (await serving(handler)).ask(get("/a", accept="text/plain"))
    story = await opened(peer)
    before = story.sent_so_far
    assert (story.chunks_so_far, story.status, observe.counts.under_way) == (1, 200, 1)
    assert before > len(TEXT_HEAD)
    assert story.request is not None
    assert story.request.path == "/a"
    assert story.client == peer.sock.getsockname()
    go_on.set()
    await peer.expect(chunk(b"abc"))
    assert (story.chunks_so_far, story.sent_so_far) == (2, before + len(chunk(b"abc")))
    assert sum(observe.counts.first_chunk.buckets) == 1


async def test_a_stream_whose_client_goes(serving: Serving, log: Lines) -> None:
    peer = await (await serving(endless)).ask(get(accept="text/plain"))
    await opened(peer)
    peer.reset()
    await until(lambda: log.lines != [])
    assert tail(log.lines[0]) == '"GET / HTTP/1.1" 200 BYTES SECONDS client gone'
    assert ends() == {"client gone": 1}
    await until(lambda: observe.counts.connections == 0)


async def test_a_client_that_goes_before_it_is_answered(serving: Serving, log: Lines) -> None:
    called = asyncio.Event()

    async def handler(request: Request) -> Response:
        called.set()
        await asyncio.get_running_loop().create_future()
        return Response()

    peer = await (await serving(handler)).ask(get())
    await called.wait()
    peer.reset()
    await until(lambda: log.lines != [])
    assert tail(log.lines[0]) == '"GET / HTTP/1.1" - BYTES SECONDS client gone'
    assert observe.counts.requests == {("GET", "none"): 1}
    assert observe.counts.sent == 0


@pytest.mark.parametrize("error", [ZeroDivisionError(), HTTPError(409, "no more")])
async def test_a_stream_that_breaks_off(serving: Serving, log: Lines, failures: Failures, error: Exception) -> None:
    async def handler(request: Request) -> AsyncIterator[str]:
        yield "x"
        await asyncio.sleep(0)
        raise error

    peer = await (await serving(handler)).ask(get(accept="text/plain"))
    await peer.rest()
    await until(lambda: log.lines != [])
    assert tail(log.lines[0]) == '"GET / HTTP/1.1" 200 BYTES SECONDS error'
    assert ends() == {"error": 1}
    failures.records.clear()


async def test_a_stream_that_fails_before_its_head_is_answered_with_a_status(
    serving: Serving, log: Lines, failures: Failures
) -> None:
    async def handler(request: Request) -> AsyncIterator[str]:
        raise ZeroDivisionError
        yield

    peer = await (await serving(handler)).ask(get(accept="text/plain"))
    await peer.response()
    await until(lambda: log.lines != [])
    assert tail(log.lines[0]) == '"GET / HTTP/1.1" 500 BYTES SECONDS error'
    assert (ends(), observe.counts.requests) == ({"error": 1}, {("GET", "5xx"): 1})
    assert isinstance(failures.take(), ZeroDivisionError)


async def test_an_answer_that_a_handler_raises_is_complete(serving: Serving, log: Lines) -> None:
    async def handler(request: Request) -> Response:
        raise HTTPError(409, "not now")

    peer = await (await serving(handler)).ask(get())
    await peer.response()
    await until(lambda: log.lines != [])
    assert tail(log.lines[0]) == '"GET / HTTP/1.1" 409 BYTES SECONDS complete'
    assert (ends(), observe.counts.requests) == ({}, {("GET", "4xx"): 1})
    assert sum(observe.counts.request_seconds.buckets) == 1


async def test_a_stream_that_the_servers_end_cuts(serving: Serving, log: Lines) -> None:
    served = await serving(endless)
    peer = await served.ask(get(accept="text/plain"))
    await opened(peer)
    served.server.close()
    await served.server.close()
    assert tail(log.lines[0]) == '"GET / HTTP/1.1" 200 BYTES SECONDS cancelled'
    assert ends() == {"cancelled": 1}


async def test_a_stream_that_nobody_had_a_reason_to_cancel_has_failed_and_the_log_says_what_may_have_done_it(
    serving: Serving, log: Lines, failures: Failures, clock: Clock
) -> None:
    """Its reader is behind: the time-out arrives at the outer generator's `yield`, and the inner one hears nothing."""

    async def inner() -> AsyncIterator[str]:
        async with asyncio.timeout(5):
            while True:
                yield "x" * 1_000_000

    async def handler(request: Request) -> AsyncIterator[str]:
        async for item in inner():
            yield item

    peer = await (await serving(handler)).connect(receive_buffer=16384)
    await peer.send(get(accept="text/plain"))
    await peer.until(b"\r\n\r\n")
    await clock.advance(6)
    assert tail(log.lines[0]) == '"GET / HTTP/1.1" 200 BYTES SECONDS error'
    assert ends() == {"error": 1}
    failure = failures.take()
    assert "PEP 789" in str(failure)
    assert isinstance(failure.__cause__, asyncio.CancelledError)
    await peer.rest()
    assert peer.ending == "reset"


async def test_a_stream_too_many(serving: Serving, log: Lines) -> None:
    served = await serving(endless, limits=Limits(streams=1))
    first = await served.ask(get(accept="text/plain"))
    await opened(first)
    second = await served.ask(get("/second", accept="text/plain"))
    await second.response()
    await until(lambda: log.lines != [])
    assert tail(log.lines[0]) == '"GET /second HTTP/1.1" 503 BYTES SECONDS refused'
    assert observe.counts.refused["streams"] == 1
    assert (ends(), len(observe.open_streams)) == ({}, 1)


@pytest.mark.parametrize(
    ("sent", "status"),
    [(b"GET / HTTP/1.1\r\n\r\n", 400), (b"GET / HTTP/3.0\r\nHost: x\r\n\r\n", 505), (request("/" + "a" * 9000), 414)],
)
async def test_a_head_that_is_refused(serving: Serving, log: Lines, sent: bytes, status: int) -> None:
    peer = await (await serving(endless)).ask(sent)
    raw = await peer.until(b"\r\n\r\n") + await peer.rest()
    await until(lambda: log.lines != [])
    [name] = re.findall(r"\r\nX-Request-Id: ([0-9a-f]{6}-\d+)\r\n", raw.decode())
    told = rf'127\.0\.0\.1 - - \[[^\]]+\] "[^"]*" {status} {len(raw)} \d+\.\d{{3}}s refused {name}'
    assert re.fullmatch(told, log.lines[0])
    assert observe.counts.refused["head"] == 1
    assert (observe.counts.under_way, observe.counts.sent) == (0, len(raw))


async def test_a_refused_heads_line_has_the_id_of_its_answer_in_json_too(serving: Serving, log: Lines) -> None:
    observe.access_log("json")
    peer = await (await serving(endless)).ask(b"GET / HTTP/1.1\r\n\r\n")
    raw = await peer.until(b"\r\n\r\n")
    await until(lambda: log.lines != [])
    name = json.loads(log.lines[0])["id"]
    assert re.fullmatch(r"[0-9a-f]{6}-\d+", name)
    assert f"\r\nX-Request-Id: {name}\r\n".encode() in raw


async def test_a_refused_heads_line_says_why_in_json(serving: Serving, log: Lines) -> None:
    observe.access_log("json")
    peer = await (await serving(endless)).ask(b"GET / HTTP/1.1\r\n\r\n")
    await peer.head()
    await until(lambda: log.lines != [])
    entry = json.loads(log.lines[0])
    assert (entry["reason"], entry["ended"]) == ("a request has a Host field", "refused")


async def test_a_head_that_stopped_coming_took_as_long_as_it_did(serving: Serving, log: Lines, clock: Clock) -> None:
    observe.access_log("json")
    peer = await (await serving(endless, timeouts=Timeouts(head=5))).ask(b"GET / HTT")
    await settle()
    began = time.monotonic()
    await until(lambda: time.monotonic() > began + 0.005)
    await clock.advance(5.5)
    assert b" 408 " in await peer.head()
    await until(lambda: log.lines != [])
    assert json.loads(log.lines[0])["duration"] >= 0.005


@pytest.mark.parametrize(
    ("line", "common", "told"),
    [
        ("", "-", None),
        ("GET /a HTTP/3.0", "GET /a HTTP/3.0", "GET /a HTTP/3.0"),
        ('\x16\x03 "\n', '\\x16\\x03 \\"\\n', '\x16\x03 "\n'),
    ],
)
def test_the_first_line_of_what_never_became_a_request(log: Lines, line: str, common: str, told: str | None) -> None:
    for form in ("common", "json"):
        observe.access_log(form)  # type: ignore[arg-type]
        observe.ended(Record(None, time.monotonic(), 400, outcome="refused", line=line, reason="no"))
    assert f' "{common}" 400 0 ' in log.lines[0]
    assert json.loads(log.lines[1])["line"] == told


def test_what_an_operator_could_change_is_told_but_not_more_than_each_ten_seconds(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(observe, "time", SimpleNamespace(monotonic=lambda: now))
    for _ in range(100):
        observe.refused("connections")
        observe.refused("streams")
        observe.refused("head")  # the client's own fault, and the access log has it
    now += 9.9
    observe.refused("connections")
    now += 0.1
    observe.refused("connections")
    full = "connections are refused: there are as many as Limits.connections, or open files, allow"
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", f"{full} (1 until now)"),
        ("WARNING", "streams are refused: there are as many as Limits.streams allows (1 until now)"),
        ("WARNING", f"{full} (102 until now)"),
    ]


async def test_a_connection_too_many(serving: Serving, log: Lines) -> None:
    served = await serving(endless, limits=Limits(connections=1))
    first = await served.connect()
    await until(lambda: observe.counts.connections == 1)
    second = await served.connect()
    assert b" 503 " in await second.head()
    await until(lambda: log.lines != [])
    assert tail(log.lines[0]) == '"-" 503 BYTES SECONDS refused'
    assert observe.counts.refused["connections"] == 1
    second.close()
    first.close()
    await until(lambda: observe.counts.connections == 0)
    assert observe.counts.accepted == 2


async def test_a_request_that_takes_too_long(serving: Serving, log: Lines, clock: Clock) -> None:
    async def handler(request: Request) -> Response:
        await asyncio.get_running_loop().create_future()
        return Response()

    served = await serving(handler, timeouts=Timeouts(request=5, grace=60))
    peer = await served.ask(get())
    await clock.advance(6)
    await peer.response()
    await until(lambda: log.lines != [])
    assert tail(log.lines[0]) == '"GET / HTTP/1.1" 503 BYTES SECONDS timeout'


async def test_a_stream_whose_first_item_takes_too_long(serving: Serving, log: Lines, clock: Clock) -> None:
    async def handler(request: Request) -> AsyncIterator[str]:
        await asyncio.get_running_loop().create_future()
        yield "x"

    served = await serving(handler, timeouts=Timeouts(first_item=5, grace=60))
    peer = await served.ask(get(accept="text/event-stream"))
    await clock.advance(6)
    await peer.until(b"event: stream-error")
    await until(lambda: log.lines != [])
    assert tail(log.lines[0]) == '"GET / HTTP/1.1" 200 BYTES SECONDS timeout'
    assert ends() == {"timeout": 1}


async def flood(request: Request) -> AsyncIterator[bytes]:
    while True:
        yield bytes(65536)


async def test_a_reader_that_takes_nothing(serving: Serving, log: Lines, clock: Clock) -> None:
    async def handler(request: Request) -> Stream:
        return Stream(flood(request), format="bytes")

    served = await serving(handler, timeouts=Timeouts(write_stall=5, grace=60))
    peer = await served.connect(receive_buffer=4096)
    await peer.send(get())
    await until(lambda: any(story.writer is not None and not story.writer.writable for story in observe.open_streams))
    await clock.advance(20)
    assert tail(log.lines[0]) == '"GET / HTTP/1.1" 200 BYTES SECONDS stalled'
    assert ends() == {"stalled": 1}
    assert sum(observe.counts.write_stall.buckets) >= 1


async def test_a_wait_for_a_slow_reader_is_measured_when_it_is_over(serving: Serving) -> None:
    async def handler(request: Request) -> Stream:
        return Stream(flood(request), format="bytes")

    served = await serving(handler)
    peer = await served.connect(receive_buffer=4096)
    await peer.send(get())
    await until(lambda: any(story.writer is not None and not story.writer.writable for story in observe.open_streams))
    waits = sum(observe.counts.write_stall.buckets)
    reading = in_background(peer.rest())
    await until(lambda: sum(observe.counts.write_stall.buckets) > waits)
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
