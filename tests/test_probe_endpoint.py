"""The handler for probes: chunks that say when they were sent."""

from __future__ import annotations

import json
import re
import zlib
from typing import Any

import pytest
from support import Clock, Peer, Serving, get, request

from rawstream import Router
from rawstream.probe import handler
from rawstream.probe.endpoint import Schedule

FAST = "/probe?count=3&interval=0"


def router() -> Router:
    made = Router()
    made.get("/probe")(handler)
    made.post("/probe")(handler)
    return made


async def answer(peer: Peer) -> tuple[bytes, list[dict[str, Any]]]:
    """The head, and the stamps of the body."""
    head = await peer.head()
    body = await peer.rest()
    return head, [json.loads(found) for found in re.findall(rb'\{"rawstream-probe":.*\}', body)]


async def asked(
    serving: Serving, target: str, accept: str | None = None, *fields: str
) -> tuple[bytes, list[dict[str, Any]]]:
    return await answer(await (await serving(router())).ask(get(target, accept, "Connection: close", *fields)))


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        (None, "text/plain; charset=utf-8"),
        ("*/*", "text/plain; charset=utf-8"),
        ("text/event-stream", "text/event-stream"),
        ("application/x-ndjson", "application/x-ndjson"),
    ],
)
async def test_accept_chooses_the_type_and_each_chunk_is_stamped(
    serving: Serving, accept: str | None, content_type: str
) -> None:
    head, stamps = await asked(serving, FAST, accept)
    assert f"\r\nContent-Type: {content_type}\r\n".encode() in head
    assert [(stamp["rawstream-probe"], stamp["of"]) for stamp in stamps] == [(1, 3), (2, 3), (3, 3)]
    times = [stamp["after"] for stamp in stamps]
    assert times == sorted(times)
    assert stamps[2]["monotonic"] - stamps[0]["monotonic"] == pytest.approx(times[2] - times[0], abs=1e-4)
    assert {"wall", "pad"} <= stamps[0].keys()


async def test_no_field_keeps_a_proxy_from_holding_it_back_unasked(serving: Serving) -> None:
    head, _ = await asked(serving, FAST, "text/event-stream")
    assert b"X-Accel-Buffering" not in head
    assert b"Cache-Control" not in head
    head, stamps = await asked(serving, FAST + "&accel=no&transform=no", "text/event-stream")
    assert b"\r\nX-Accel-Buffering: no\r\n" in head
    assert b"\r\nCache-Control: no-transform\r\n" in head
    assert stamps[0]["set"] == {
        "Content-Type": "text/event-stream",
        "Vary": "Accept",
        "X-Accel-Buffering": "no",
        "Cache-Control": "no-transform",
    }


async def test_the_first_chunk_tells_what_came_of_the_request_but_no_secret(serving: Serving) -> None:
    _, stamps = await asked(serving, FAST, None, "Via: 1.1 here", "Cookie: secret")
    assert stamps[0]["got"] == {
        "version": "1.1",
        "method": "GET",
        "fields": ["connection", "cookie", "host", "via"],
        "via": "1.1 here",
        "connection": "close",
    }
    assert "got" not in stamps[1]


async def test_post_is_answered_alike(serving: Serving) -> None:
    peer = await (await serving(router())).ask(request(FAST, "Connection: close", method="POST", body=b"x"))
    _, stamps = await answer(peer)
    assert len(stamps) == 3


async def test_a_client_that_comes_back_gets_the_rest(serving: Serving) -> None:
    _, stamps = await asked(serving, FAST, "text/event-stream", "Last-Event-ID: 2")
    assert [stamp["rawstream-probe"] for stamp in stamps] == [3]


@pytest.mark.parametrize("last", ["stuff", "-1", "٣", "9" * 50])
async def test_an_id_of_somebody_elses_begins_anew(serving: Serving, last: str) -> None:
    served = await serving(router())
    field = f"Last-Event-ID: {last}".encode().decode("latin-1")
    _, stamps = await answer(await served.ask(get(FAST, "text/event-stream", "Connection: close", field)))
    assert len(stamps) == 3


async def test_chunks_come_at_their_time_and_the_last_after_the_silence(serving: Serving, clock: Clock) -> None:
    peer = await (await serving(router())).ask(get("/probe?count=3&interval=0.25&idle=2", "text/plain"))
    await peer.until(b'"rawstream-probe":1')
    await peer.until(b"\n\r\n")
    await clock.advance(0.25)
    await peer.until(b'"rawstream-probe":2')
    await peer.until(b"\n\r\n")
    assert peer.here() == b""


async def test_silence_is_filled_with_heartbeats_if_asked(serving: Serving, clock: Clock) -> None:
    peer = await (await serving(router())).ask(get("/probe?count=2&idle=9&heartbeat=1", "text/event-stream"))
    await peer.until(b"id: 1\n\n\r\n")
    await clock.advance(1.5)
    await peer.expect(b"3\r\n:\n\n\r\n")


@pytest.mark.parametrize(("fill", "shrinks"), [("same", True), ("random", False)])
async def test_a_chunk_is_as_large_as_was_asked_and_shrinks_or_not(serving: Serving, fill: str, shrinks: bool) -> None:
    peer = await (await serving(router())).ask(
        get(f"/probe?count=1&size=4000&fill={fill}", "text/plain", "Connection: close", version="1.0")
    )
    await peer.head()
    body = await peer.rest()
    assert len(body) == 4000
    assert (len(zlib.compress(body)) < 1000) == shrinks


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("count=0", "count is a whole number from 1 to 10000, not '0'"),
        ("count=1.5", "count is a whole number from 1 to 10000, not '1.5'"),
        ("interval=11", "interval is a number from 0 to 10, not '11'"),
        ("interval=nan", "interval is a number from 0 to 10, not 'nan'"),
        ("size=65537", "size is a whole number from 0 to 65536, not '65537'"),
        ("size=1_0", "size is a whole number from 0 to 65536, not '1_0'"),
        ("idle=-1", "idle is a number from 0 to 3600, not '-1'"),
        ("heartbeat=61", "heartbeat is a number from 0 to 60, not '61'"),
        ("fill=holes", "fill is 'same' or 'random', not 'holes'"),
        ("accel=yes", "accel is '' or 'no', not 'yes'"),
    ],
)
async def test_wrong_settings_are_a_400_that_says_what_is_right(serving: Serving, query: str, words: str) -> None:
    peer = await (await serving(router())).ask(get(f"/probe?{query}"))
    head, body = await peer.response()
    assert head.startswith(b"HTTP/1.1 400 ")
    assert body.decode() == f"400 Bad Request: {words}\n"


async def test_other_types_are_406(serving: Serving) -> None:
    peer = await (await serving(router())).ask(get("/probe", "image/png"))
    assert (await peer.head()).startswith(b"HTTP/1.1 406 ")


async def test_it_ends_when_the_server_closes(serving: Serving) -> None:
    served = await serving(router())
    peer = await served.ask(get("/probe?interval=10", "text/plain"))
    await peer.until(b'"rawstream-probe":1')
    served.server.begin_closing()
    await peer.rest()
    assert peer.ending == "end"


def test_what_it_does_not_know_in_a_query_is_left_alone() -> None:
    assert Schedule.read({"fresh": "1", "count": "7"}) == Schedule(count=7)
