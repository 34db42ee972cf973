"""The counts in Prometheus' text format, as its own parsers read it."""

from __future__ import annotations

import asyncio
import importlib
import os
import re
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

import pytest
from prometheus_client import REGISTRY, Counter, parser
from prometheus_client.core import Metric
from prometheus_client.openmetrics import parser as openmetrics_parser
from support import TEXT_HEAD, Failures, Serving, chunk, get, request, until

from rawstream import Limits, Request, Response, Router, metrics, observe
from rawstream.fields import Headers
from rawstream.messages import RequestHead
from rawstream.observe import Record

OPENMETRICS = "application/openmetrics-text; version=1.0.0"
PARSERS: dict[str, Callable[[str], Iterable[Metric]]] = {
    "": parser.text_string_to_metric_families,
    OPENMETRICS: openmetrics_parser.text_string_to_metric_families,
}

Labels = frozenset[tuple[str, str]]


@pytest.fixture(autouse=True)
def _from_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The counts belong to the process; a test begins at zero."""
    monkeypatch.setattr(observe, "counts", observe.Counts())
    monkeypatch.setattr(observe, "open_streams", set())


class NoBody:
    trailers = Headers()

    async def read(self) -> bytes:
        return b""


def asking(accept: str | None = None) -> Request:
    """A scrape."""
    fields = Headers([] if accept is None else [("Accept", accept)])
    return Request(RequestHead("GET", "/metrics", "/metrics", "", fields, "1.1"), None, "1", asyncio.Event(), NoBody())


def body_of(answer: Response) -> str:
    assert isinstance(answer.body, bytes)
    return answer.body.decode()


async def families(accept: str = "") -> dict[str, Metric]:
    """What a scrape brings, by name."""
    answer = await metrics.metrics(asking(accept))
    return {family.name: family for family in PARSERS[accept](body_of(answer))}


async def samples() -> dict[tuple[str, Labels], float]:
    """What it brings, by name and labels."""
    found = (await families()).values()
    return {(one.name, frozenset(one.labels.items())): one.value for family in found for one in family.samples}


class Samples:
    """`await Samples.now()`, and then `samples("name", label="value")`."""

    def __init__(self, values: dict[tuple[str, Labels], float]) -> None:
        self.values = values

    @classmethod
    async def now(cls) -> Samples:
        return cls(await samples())

    def __call__(self, name: str, **labels: str) -> float:
        return self.values["rawstream_" + name, frozenset(labels.items())]

    def nonzero(self, name: str) -> dict[tuple[str, ...], float]:
        """The samples of this name that are not 0, by the values of their labels."""
        return {
            tuple(value for _, value in sorted(labels)): number
            for (full, labels), number in self.values.items()
            if full == "rawstream_" + name and number
        }


class Line:
    """A transport, as far as it is looked at."""

    def __init__(self, sent: int = 0, writable: bool = True) -> None:
        self.sent = sent
        self.writable = writable


def story(*, stream: bool = False, line: Line | None = None, **told: Any) -> Record:
    """A request that has begun."""
    record = Record(asking(), time.monotonic(), 200, writer=line or Line(), **told)
    observe.began(record)
    if stream:
        observe.streams(record)
    return record


# -- the text ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("accept", PARSERS)
async def test_prometheus_own_parser_reads_it(accept: str) -> None:
    """OpenMetrics' is the strict one: names, units, types, the order of buckets, the end mark."""
    for stream in (False, True):
        record = story(stream=stream)
        observe.ended(record)
    found = await families(accept)
    types = {name.removeprefix("rawstream_"): family.type for name, family in found.items()}
    assert {name.removesuffix("_total") for name in types} == {
        "process" if accept else "process_info", "connections", "accepted_connections", "refused", "requests_open",
        "requests", "request_seconds", "streams", "streams_paused", "streams_ended", "stream_seconds",
        "first_chunk_seconds", "write_stall_seconds", "stream_chunks", "sent_bytes",
    }  # fmt: skip
    gauges = {name for name, kind in types.items() if kind == "gauge"} - {"process_info"}
    assert gauges == {"connections", "requests_open", "streams", "streams_paused"}
    seconds = {name for name, kind in types.items() if kind == "histogram"}
    assert seconds == {"request_seconds", "stream_seconds", "first_chunk_seconds", "write_stall_seconds"}
    assert all(family.documentation.endswith(".") for family in found.values())


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        (None, "text/plain; version=0.0.4; charset=utf-8"),
        ("*/*", "text/plain; version=0.0.4; charset=utf-8"),
        ("text/plain;version=0.0.4", "text/plain; version=0.0.4; charset=utf-8"),
        (OPENMETRICS, "application/openmetrics-text; version=1.0.0; charset=utf-8"),
        (
            f"{OPENMETRICS};q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            "application/openmetrics-text; version=1.0.0",
        ),
    ],
)
async def test_the_scrapers_accept_chooses_the_format(accept: str | None, content_type: str) -> None:
    answer = await metrics.metrics(asking(accept))
    fields = Headers(answer.headers)  # type: ignore[arg-type]
    assert fields["content-type"].startswith(content_type)
    assert (fields["vary"], fields["cache-control"]) == ("Accept", "no-store")
    assert body_of(answer).endswith("# EOF\n") == content_type.startswith("application/openmetrics-text")


@pytest.mark.parametrize(
    "accept",
    [
        "text/plain;version=abc",
        "application/openmetrics-text;version=x.0",
        "application/openmetrics-text;version=" + "9" * 6000,
        "application/openmetrics-text;version=1.1.\xe9",
        ",;=,version",
    ],
)
async def test_an_accept_that_makes_no_sense_is_answered_all_the_same(serving: Serving, accept: str) -> None:
    """prometheus-client's releases differ in what they make of it, and some put the version that they read back out."""
    peer = await (await serving(metrics.metrics)).ask(request("/metrics", "Accept: " + accept))
    head, body = await peer.response()
    assert re.match(
        rb"HTTP/1\.1 200 OK\r\nContent-Type: (text/plain|application/openmetrics-text); version=[01]\.", head
    )
    assert head.isascii()
    assert b"\nrawstream_connections 1.0\n" in body


async def test_the_same_counts_make_the_same_text() -> None:
    first = body_of(await metrics.metrics(asking()))
    assert first == body_of(await metrics.metrics(asking()))


# -- the values --------------------------------------------------------------------------------------------------------


async def test_whose_counts_they_are() -> None:
    assert (await Samples.now())("process_info", pid=str(os.getpid())) == 1


async def test_what_cannot_happen_often_is_there_before_it_has_happened() -> None:
    """A series that begins at 1 has no rate."""
    found = await Samples.now()
    for reason in ("connections", "connections_per_client", "streams", "head"):
        assert found("refused_total", reason=reason) == 0
    for how in ("complete", "client gone", "stalled", "timeout", "cancelled", "error"):
        assert found("streams_ended_total", how=how) == 0


async def test_connections_and_refusals() -> None:
    for _ in range(3):
        observe.connected()
    observe.disconnected()
    observe.refused("streams")
    found = await Samples.now()
    assert (found("connections"), found("accepted_connections_total")) == (2, 3)
    assert found.nonzero("refused_total") == {("streams",): 1}


async def test_requests_by_method_and_class_of_status() -> None:
    records = [story() for _ in range(3)]
    records[0].status = 404
    for record in records[:2]:
        observe.ended(record)
    found = await Samples.now()
    assert found.nonzero("requests_total") == {("GET", "4xx"): 1, ("GET", "2xx"): 1}
    assert found("requests_open") == 1


async def test_a_histograms_buckets_count_all_that_lies_below() -> None:
    for seconds in (0.0005, 0.001, 0.02, 0.3, 45.0):
        observe.paused(seconds)
    found = await Samples.now()
    below = {"0.001": 2, "0.01": 2, "0.025": 3, "0.5": 4, "30.0": 4, "+Inf": 5}
    assert {bound: found("write_stall_seconds_bucket", le=bound) for bound in below} == below
    assert found("write_stall_seconds_count") == 5
    assert found("write_stall_seconds_sum") == pytest.approx(45.3215)


async def test_open_streams_are_counted_as_they_are_now() -> None:
    line = Line(sent=1000)
    record = story(stream=True, line=line)
    story(stream=True)
    story(stream=True, line=Line(writable=False))
    observe.first_chunk(record)
    record.chunks += 2
    line.sent += 50
    found = await Samples.now()
    assert (found("streams"), found("streams_paused")) == (3, 1)
    assert (found("stream_chunks_total"), found("sent_bytes_total")) == (2, 50)
    assert found("first_chunk_seconds_count") == 1
    assert found("stream_seconds_count") == 0


async def test_when_a_stream_ends_nothing_that_was_counted_is_lost_or_counted_twice() -> None:
    line = Line()
    record = story(stream=True, line=line, outcome="complete")
    record.chunks, line.sent = 7, 700
    before = await Samples.now()
    observe.ended(record)
    after = await Samples.now()
    for name in ("stream_chunks_total", "sent_bytes_total"):
        assert before(name) == after(name)
    assert (before("streams"), after("streams")) == (1, 0)
    assert after.nonzero("streams_ended_total") == {("complete",): 1}
    assert (after("stream_seconds_count"), after("request_seconds_count")) == (1, 0)


# -- the registry ------------------------------------------------------------------------------------------------------


async def test_the_global_registry_is_left_alone() -> None:
    assert [family.name for family in REGISTRY.collect() if family.name.startswith("rawstream")] == []
    assert "python_gc" not in body_of(await metrics.metrics(asking()))


async def test_what_a_program_registers_itself_comes_along() -> None:
    mine = Counter("answers", "What my program has answered.", registry=metrics.registry)
    try:
        mine.inc(42)
        assert "\nanswers_total 42.0\n" in body_of(await metrics.metrics(asking()))
    finally:
        metrics.registry.unregister(mine)


def test_without_prometheus_client_the_import_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    monkeypatch.delitem(sys.modules, "rawstream.metrics")
    with pytest.raises(ImportError, match="pip install prometheus-client"):
        importlib.import_module("rawstream.metrics")


# -- as a server's route -----------------------------------------------------------------------------------------------


async def test_a_servers_streams_show_while_they_run_and_how_they_ended(serving: Serving, failures: Failures) -> None:
    """One is complete, one breaks off, one loses its client, one is refused, one is cut by the server's end."""
    router = Router()
    router.get("/metrics")(metrics.metrics)

    @router.get("/{end}")
    async def stream(request: Request) -> AsyncIterator[str]:
        yield "x"
        await asyncio.sleep(0)
        if request.params["end"] == "broken":
            raise ZeroDivisionError
        if request.params["end"] == "endless":
            await asyncio.get_running_loop().create_future()

    served = await serving(router, limits=Limits(streams=2))

    async def scrape() -> Samples:
        peer = await served.ask(request("/metrics", "Connection: close"))
        _, body = await peer.response()
        peer.close()
        found = parser.text_string_to_metric_families(body.decode())
        return Samples(
            {(one.name, frozenset(one.labels.items())): one.value for family in found for one in family.samples}
        )

    for target in ("/complete", "/broken"):
        peer = await served.ask(get(target, "text/plain", "Connection: close"))
        await peer.rest()
    await until(lambda: not observe.open_streams)
    assert isinstance(failures.take(), ZeroDivisionError)

    goes, stays = await served.ask(get("/endless", "text/plain")), await served.ask(get("/endless", "text/plain"))
    for peer in (goes, stays):
        await peer.expect_head(TEXT_HEAD)
        await peer.expect(chunk(b"x"))
    refused = await served.ask(get("/endless", "text/plain"))
    head, _ = await refused.response()
    assert head.startswith(b"HTTP/1.1 503 ")
    refused.close()

    found = await scrape()
    assert (found("streams"), found("stream_chunks_total"), found("first_chunk_seconds_count")) == (2, 4, 4)
    assert found("requests_open") == 3, "the scrape itself is one"
    assert found.nonzero("refused_total") == {("streams",): 1}
    assert found.nonzero("streams_ended_total") == {("complete",): 1, ("error",): 1}
    assert found.nonzero("requests_total") == {("GET", "2xx"): 2, ("GET", "5xx"): 1}
    assert found("sent_bytes_total") > 4 * len(TEXT_HEAD)

    goes.reset()
    await until(lambda: len(observe.open_streams) == 1)
    found = await scrape()
    assert found.nonzero("streams_ended_total") == {("complete",): 1, ("error",): 1, ("client gone",): 1}

    served.server.close()
    await served.server.close()
    ended = (await Samples.now()).nonzero("streams_ended_total")
    assert ended == {("complete",): 1, ("error",): 1, ("client gone",): 1, ("cancelled",): 1}
