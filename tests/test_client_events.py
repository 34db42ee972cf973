"""`events`: a stream of events that goes on over cuts, refusals and ends, and knows when it is over."""

from __future__ import annotations

import asyncio
import email.utils
import gc
import random
import re
import time
import zlib
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from canned import CHUNKED, LAST, Canned, MakeCanned, Then, answer, body_of
from support import Clock, Serving, in_background, settle, until

from rawstream import Backoff, ClientLimits, ClientTimeouts, Event, Hub, Request, Router, Timeouts, events, serve
from rawstream.client import EventSource
from rawstream.errors import BadResponse, ContentError, GaveUp, ItemTooLarge, LocalError, Redirected, StatusError
from rawstream.messages import Handler

pytestmark = pytest.mark.usefixtures("orderly")

NO_CONTENT = b"HTTP/1.1 204 No Content\r\n\r\n"
EXACTLY = Backoff(jitter=0)


def stream(*parts: bytes, ended: bool = True) -> bytes:
    """An event stream; else it is cut."""
    return CHUNKED + b"".join(map(body_of, parts)) + LAST * ended


class Following:
    """A source that is read by a task, at the times that a clock moved by hand tells."""

    def __init__(self, source: EventSource, clock: Clock) -> None:
        self.seen: list[tuple[float, Any]] = []
        """What came, and after how many seconds."""
        self._clock = clock
        self._began = clock.time()
        self._task = in_background(self._follow(source))

    async def _follow(self, source: EventSource) -> None:
        async with source:
            async for event in source:
                self.seen.append((self._clock.time() - self._began, event.data))

    async def end(self, patience: float = 300) -> BaseException | None:
        """Let time pass until it is over; what it raised."""
        latest = self._clock.time() + patience
        while not self._task.done() and self._clock.time() < latest:
            await self._clock.advance(0.125)
            for _ in range(3):
                await settle()
        assert self._task.done()
        return self._task.exception()

    def cancel(self) -> None:
        self._task.cancel()


def ids(server: Canned) -> list[str | None]:
    """The Last-Event-ID of each request."""
    found = [re.search(rb"\r\nLast-Event-ID: ([^\r]*)\r\n", request) for request in server.requests]
    return [match[1].decode() if match else None for match in found]


# -- going on ----------------------------------------------------------------------------------------------------------


async def test_a_stream_goes_on_behind_its_last_event_over_ends_and_cuts(clock: Clock, canned: MakeCanned) -> None:
    server = canned(
        stream(b"id: 1\ndata: a\n\n"),
        stream(b"id: 2\ndata: b\n\n", ended=False),
        (stream(b"id: 3\ndata: c\n\nda", ended=False), Then.RESET),
        stream(b"data: d\n\n"),
        NO_CONTENT,
    )
    source = events(server.url, backoff=EXACTLY)
    following = Following(source, clock)
    assert await following.end() is None
    assert [data for _, data in following.seen] == ["a", "b", "c", "d"]
    assert ids(server) == [None, "1", "2", "3", "3"]
    assert source.last_event_id == "3"


async def test_what_is_asked(clock: Clock, canned: MakeCanned) -> None:
    server = canned(NO_CONTENT)
    async with events(server.url, last_event_id="是", headers={"X": "y"}, json={"a": 1}) as source:
        assert [event async for event in source] == []
    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    assert body == b'{"a":1}'
    assert {b"POST / HTTP/1.1", b"Accept: text/event-stream", b"Cache-Control: no-store", b"X: y",
            "Last-Event-ID: 是".encode()} <= {*head.split(b"\r\n")}  # fmt: skip


async def test_it_waits_as_long_as_the_server_says(clock: Clock, canned: MakeCanned) -> None:
    """`retry` holds until another comes; it counts also where no event comes with it. Less than 0.5 s is 0.5 s."""
    server = canned(
        stream(b"data: a\n\n"),
        stream(b"retry: 5000\n\n"),
        stream(b"data: b\n\n"),
        stream(b"retry: 0\ndata: c\n\n"),
        *[stream(b"data: d\n\n")] * 8,
        NO_CONTENT,
    )
    following = Following(events(server.url, backoff=EXACTLY), clock)
    assert await following.end() is None
    assert [data for _, data in following.seen] == ["a", "b", "c", *"dddddddd"]
    times = [at for at, _ in following.seen]
    assert times[1] == pytest.approx(6, abs=0.5)
    assert times[2] == pytest.approx(11, abs=0.5)
    assert all(later - earlier >= 0.5 for earlier, later in pairwise(times[2:]))
    assert times[-1] < 11 + 8 * 1.5


async def test_who_comes_back_sooner_of_its_own_accord_may_do_so_for_the_server_too(
    clock: Clock, canned: MakeCanned
) -> None:
    server = canned(*[stream(b"retry: 0\ndata: a\n\n")] * 100, NO_CONTENT)
    following = Following(events(server.url, backoff=Backoff(first=0, jitter=0)), clock)
    assert await following.end() is None
    assert following.seen[-1][0] < 100 * 0.5


async def test_ids_are_as_the_standard_has_them(clock: Clock, canned: MakeCanned) -> None:
    """One with NUL is ignored, one of an event without data counts, and an empty one takes it back."""
    server = canned(
        stream(b"id: 1\ndata: a\n\n"),
        stream(b"id: x\0y\ndata: b\n\n"),
        stream(b"id: 2\n\n"),
        stream(b"id\ndata: c\n\n"),
        stream(b"id: 3\ndata: d\n\n"),
        stream(b"id\n\n"),
        NO_CONTENT,
    )
    assert await Following(events(server.url, backoff=EXACTLY), clock).end() is None
    assert ids(server) == [None, "1", "1", "2", None, "3", None]


async def test_spaces_around_an_id_do_not_come_back(clock: Clock, canned: MakeCanned) -> None:
    """A field's value has none there."""
    server = canned(stream(b"id:  41 \ndata: a\n\n"), stream(b"id:   \ndata: b\n\n"), NO_CONTENT)
    source = events(server.url, backoff=EXACTLY)
    assert await Following(source, clock).end() is None
    assert ids(server) == [None, "41", None]


async def test_an_id_that_cannot_be_sent_back_is_the_servers_fault(clock: Clock, canned: MakeCanned) -> None:
    server = canned(stream(b"id: 1\x01\ndata: a\n\n"))
    following = Following(events(server.url, backoff=EXACTLY), clock)
    error = await following.end()
    assert [data for _, data in following.seen] == ["a"]
    assert isinstance(error, ContentError)
    assert str(error) == r"the id of an event cannot be sent back: '1\x01'"


async def test_the_id_is_that_of_the_event_that_was_given_out(canned: MakeCanned) -> None:
    server = canned((stream(b"id: 1\ndata: a\n\nid: 2\ndata: b\n\n", ended=False), Then.STAY))
    async with events(server.url) as source:
        seen = []
        async for event in source:
            seen.append((event.id, source.last_event_id))
            if len(seen) == 2:
                break
    assert seen == [("1", "1"), ("2", "2")]


# -- refusals ----------------------------------------------------------------------------------------------------------


async def test_a_refusal_that_may_pass_is_tried_again_later_and_later(clock: Clock, canned: MakeCanned) -> None:
    server = canned(*[answer(b"busy", status="503 x")] * 4, stream(b"data: a\n\n"), answer(status="502 x"), NO_CONTENT)
    following = Following(events(server.url, backoff=Backoff(longest=3, jitter=0)), clock)
    assert await following.end() is None
    [(at, _)] = following.seen
    assert at == pytest.approx(1 + 2 + 3 + 3, abs=1)


@pytest.mark.parametrize("wish", ["20", "date"])
async def test_retry_after_is_heeded(clock: Clock, canned: MakeCanned, wish: str) -> None:
    if wish == "date":
        wish = email.utils.formatdate(time.time() + 20, usegmt=True)
    server = canned(answer(b"", f"Retry-After: {wish}", status="429 x"), stream(b"data: a\n\n"), NO_CONTENT)
    following = Following(events(server.url, backoff=EXACTLY), clock)
    assert await following.end() is None
    assert following.seen[0][0] == pytest.approx(20, abs=2)


@pytest.mark.parametrize("wish", ["", "soon", "-5", "1e9", "Thu, 01 Jan 1970 00:00:00 GMT", "٣"])
async def test_a_retry_after_that_says_nothing_is_none(clock: Clock, canned: MakeCanned, wish: str) -> None:
    head = f"HTTP/1.1 503 x\r\nRetry-After: {wish}\r\nContent-Length: 0\r\n\r\n".encode()
    following = Following(events(canned(head, NO_CONTENT).url, backoff=EXACTLY), clock)
    assert await following.end(5) is None


async def test_it_gives_up_and_says_why(clock: Clock, canned: MakeCanned) -> None:
    server = canned(answer(b"busy", status="503 x"))
    error = await Following(events(server.url, backoff=Backoff(attempts=3, jitter=0)), clock).end()
    assert isinstance(error, GaveUp)
    assert str(error) == (
        f"3 attempts in a row to follow {server.url} brought nothing, at last: 503 x from {server.url}/: busy"
    )
    assert isinstance(error.__cause__, StatusError)
    assert len(server.requests) == 3


async def test_nobody_there_is_a_refusal_that_may_pass(clock: Clock, canned: MakeCanned) -> None:
    server = canned(NO_CONTENT)
    await server.close()
    error = await Following(events(server.url, backoff=Backoff(attempts=2, jitter=0)), clock).end()
    assert isinstance(error, GaveUp)
    assert "no connection to 127.0.0.1" in str(error)


@pytest.mark.parametrize("nothing", ["cut", "ended", "comments", "retry", "no stream"])
async def test_what_brings_no_event_is_a_failure(clock: Clock, canned: MakeCanned, nothing: str) -> None:
    """Whatever else comes of it; one event is enough to begin to count anew."""
    answers = {
        "cut": stream(ended=False),
        "ended": stream(),
        "comments": stream(b":\n\n", b":\n\n"),
        "retry": stream(b"retry: 1000\n\n"),
        "no stream": CHUNKED + b"no chunk\r\n",
    }
    empty, something = answers[nothing], stream(b"data: a\n\n", ended=False)
    backoff = Backoff(attempts=2, jitter=0)
    followed = Following(events(canned(empty, something, empty, something, NO_CONTENT).url, backoff=backoff), clock)
    assert await followed.end() is None
    assert len(followed.seen) == 2
    server = canned(something, empty)
    error = await Following(events(server.url, backoff=backoff), clock).end()
    assert isinstance(error, GaveUp)
    assert re.search(
        "2 attempts in a row .* brought nothing, at last: (a response without|the connection|.*chunk)", str(error)
    )
    assert len(server.requests) == 3


@pytest.mark.parametrize("stands", [25, 35])
async def test_a_connection_that_stood_for_half_a_minute_is_no_failure(
    clock: Clock, canned: MakeCanned, stands: int
) -> None:
    """There may be no news."""
    ends = [asyncio.Event() for _ in range(4)]
    server = canned(*[(stream(b":\n\n", ended=False), end) for end in ends], NO_CONTENT)
    following = Following(events(server.url, backoff=Backoff(attempts=3, jitter=0)), clock)
    for number, end in enumerate(ends[: 4 if stands > 30 else 3]):
        for _ in range(100):
            await clock.advance(0.125)
            if len(server.requests) > number:
                break
        await clock.advance(stands)
        end.set()
    assert isinstance(await following.end(), GaveUp) == (stands < 30)


async def test_damage_in_the_midst_of_a_stream_is_a_cut(clock: Clock, canned: MakeCanned) -> None:
    server = canned(
        stream(b"id: 1\ndata: a\n\n", ended=False) + b"no chunk\r\n",
        (stream(b"id: 2\ndata: b\n\n", ended=False) + b"3\r\ntoo long\r\n", Then.STAY),
        stream(b"data: c\n\n"),
        NO_CONTENT,
    )
    following = Following(events(server.url, backoff=EXACTLY), clock)
    assert await following.end() is None
    assert [data for _, data in following.seen] == ["a", "b", "c"]
    assert ids(server) == [None, "1", "2", "2"]


async def test_a_compressed_stream_that_ends_too_soon_is_a_cut(clock: Clock, canned: MakeCanned) -> None:
    pack = zlib.compressobj(wbits=31)
    cut = pack.compress(b"id: 1\ndata: a\n\n") + pack.flush(zlib.Z_SYNC_FLUSH)
    zipped = answer(cut, "Content-Encoding: gzip", kind="text/event-stream")
    server = canned(zipped, stream(b"data: b\n\n"), NO_CONTENT)
    following = Following(events(server.url, backoff=EXACTLY, headers={"Accept-Encoding": "gzip"}), clock)
    assert await following.end() is None
    assert [data for _, data in following.seen] == ["a", "b"]
    assert ids(server) == [None, "1", "1"]


async def test_who_speaks_no_http_is_not_asked_again(canned: MakeCanned) -> None:
    server = canned(b"SSH-2.0-x\r\n\r\n")
    with pytest.raises(BadResponse):
        await anext(events(server.url))
    assert len(server.requests) == 1


async def test_silence_is_a_cut(clock: Clock, canned: MakeCanned) -> None:
    server = canned((stream(b"id: 1\ndata: a\n\n", ended=False), Then.STAY), NO_CONTENT)
    following = Following(events(server.url, backoff=EXACTLY, timeouts=ClientTimeouts(idle=20)), clock)
    assert await following.end() is None
    assert ids(server) == [None, "1"]
    await server.noticed.wait()


@pytest.mark.parametrize("status", ["400 x", "401 x", "404 x", "410 x", "501 x", "201 Created", "206 x"])
async def test_another_status_ends_it(canned: MakeCanned, status: str) -> None:
    server = canned(answer(b"no", status=status, kind="text/event-stream"))
    with pytest.raises(StatusError, match=f"^{status}"):
        async for _ in events(server.url):
            pass
    assert len(server.requests) == 1


async def test_a_redirect_and_a_wrong_type_end_it(canned: MakeCanned) -> None:
    server = canned(answer(b"", "Location: /b", status="301 x"), answer(b"x", kind="text/html"))
    with pytest.raises(Redirected, match="/b"):
        async for _ in events(server.url):
            pass
    with pytest.raises(ContentError, match="text/html has no events"):
        async for _ in events(server.url):
            pass


async def test_an_event_that_is_too_large_ends_it(canned: MakeCanned) -> None:
    server = canned((stream(b"data: " + b"x" * 100, ended=False), Then.STAY))
    source = events(server.url, limits=ClientLimits(item=50))
    with pytest.raises(ItemTooLarge):
        await anext(source)
    with pytest.raises(StopAsyncIteration):
        await anext(source)
    await server.noticed.wait()


async def test_wrong_arguments_are_told_at_once() -> None:
    for wrong in ({"url": "nowhere"}, {"headers": 1}, {"headers": {"A": "\r\n"}}, {"last_event_id": "a\nb"}):
        with pytest.raises(LocalError):
            events(**{"url": "http://127.0.0.1/", **wrong})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "value"),
    [("first", -1), ("longest", "1"), ("jitter", float("nan")), ("attempts", 0), ("attempts", 1.5), ("attempts", True)],
)
def test_a_backoff_is_checked(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"^Backoff\.{name} is a "):
        Backoff(**{name: value})


def test_delays_double_up_to_the_longest_and_jitter_only_adds() -> None:
    exact = Backoff(first=1, longest=30, jitter=0)
    assert [exact.delay(1, failures) for failures in (0, 1, 2, 3, 5, 6, 100_000)] == [1, 1, 2, 4, 16, 30, 30]
    assert [exact.delay(60, failures) for failures in (0, 1, 9)] == [60, 60, 60], "the server's wish is never cut short"
    assert [exact.delay(0, failures) for failures in (0, 1, 2, 9)] == [0, 0.5, 1, 30], "from 0 nothing would double"
    random.seed(1)
    delays = [Backoff(jitter=0.5).delay(10, 0) for _ in range(100)]
    assert 10 <= min(delays) < 11
    assert 14 < max(delays) <= 15


# -- the end -----------------------------------------------------------------------------------------------------------


async def test_our_end_is_the_end(canned: MakeCanned) -> None:
    """Without asking once more. It is given out, as every event is."""
    server = canned((stream(b"data: a\n\nevent: stream-end\nid: stream-end\ndata: {}\n\n", ended=False), Then.STAY))
    async with events(server.url) as source:
        assert [event.event async for event in source] == [None, "stream-end"]
        assert source.last_event_id == "stream-end"
    assert len(server.requests) == 1
    await server.noticed.wait()


async def test_a_generator_of_ours_is_followed_to_its_end(serving: Serving) -> None:
    async def handler(request: Request) -> AsyncIterator[Any]:
        for n in range(3):
            yield Event(n, id=str(n))

    served = await serving(handler)
    host, port = served.server.addresses[0]
    async with events(f"http://{host}:{port}/") as source:
        assert [event.data async for event in source] == ["0", "1", "2", "{}"]
    async with events(f"http://{host}:{port}/", last_event_id="stream-end") as source:
        assert [event async for event in source] == [], "which is answered with 204"


async def test_a_channel_is_followed_over_a_restart_of_its_server(
    serving: Serving, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server that closes says `stream-closing` with a `retry`; the next one on its port goes on behind the last."""
    monkeypatch.setattr("rawstream.exchange.random.randint", lambda least, most: 0)  # the milliseconds of `retry`
    store = f"sqlite:///{tmp_path}/log.db"

    def router(hub: Hub) -> Handler:
        router = Router()

        @router.get("/")
        async def follow(request: Request) -> Any:
            return hub.channel("a").subscribe()

        return router

    seen: list[Any] = []
    steps: asyncio.Queue[Any] = asyncio.Queue()

    async def follow(url: str) -> None:
        async with events(url, backoff=Backoff(first=0, jitter=0, attempts=None)) as source:
            async for event in source:
                steps.put_nowait(event.event or event.data)

    async with Hub(store) as hub:
        served = await serving(router(hub), timeouts=Timeouts(grace=0))
        host, port = served.server.addresses[0]
        following = in_background(follow(f"http://{host}:{port}/"))
        await until(lambda: hub.channel("a").subscribers > 0)
        await hub.channel("a").publish("one")
        seen.append(await steps.get())
        await served.end()
    seen.append(await steps.get())
    async with Hub(store) as hub:
        await hub.channel("a").publish("two")
        async with serve(router(hub), host, port):
            seen.append(await steps.get())
            following.cancel()
            with pytest.raises(asyncio.CancelledError):
                await following
    assert seen == ["one", "stream-closing", "two"]


# -- leaving -----------------------------------------------------------------------------------------------------------


async def test_leaving_closes_the_connection(canned: MakeCanned) -> None:
    server = canned((stream(b"data: a\n\n", ended=False), Then.STAY))
    async with events(server.url) as source:
        assert (await anext(source)).data == "a"
    await server.noticed.wait()
    with pytest.raises(StopAsyncIteration):
        await anext(source)


async def test_a_source_that_is_dropped_closes_its_connection(canned: MakeCanned) -> None:
    server = canned((stream(b"data: a\n\n", ended=False), Then.STAY))
    async for event in events(server.url):
        assert event.data == "a"
        break
    gc.collect()
    await server.noticed.wait()


async def test_who_waits_for_short_times_only_gets_there_by_one_request(canned: MakeCanned) -> None:
    """The attempt to connect goes on between the waits."""
    answers = asyncio.Event()
    server = canned((answers, stream(b"data: a\n\n", ended=False), Then.STAY))
    async with events(server.url) as source:
        for _ in range(3):
            waiting = in_background(anext(source))  # type: ignore[arg-type]
            await until(lambda: len(server.requests) > 0)
            waiting.cancel()
            await asyncio.wait([waiting])
        answers.set()
        assert (await anext(source)).data == "a"
    assert len(server.requests) == 1


@pytest.mark.parametrize("how", ["closed", "dropped"])
async def test_an_attempt_that_nobody_waits_for_ends_with_its_source(canned: MakeCanned, how: str) -> None:
    server = canned((Then.STAY,))
    source = events(server.url)
    waiting = in_background(anext(source))  # type: ignore[arg-type]
    await until(lambda: len(server.requests) > 0)
    waiting.cancel()
    await asyncio.wait([waiting])
    if how == "closed":
        await source.close()
    del waiting, source
    gc.collect()
    await server.noticed.wait()


async def test_a_connection_that_nobody_waits_for_is_closed_with_its_source(canned: MakeCanned) -> None:
    """It was made after the last wait had been cancelled."""
    answers = asyncio.Event()
    server = canned((answers, stream(ended=False), Then.STAY))
    source = events(server.url)
    waiting = in_background(anext(source))  # type: ignore[arg-type]
    await until(lambda: len(server.requests) > 0)
    waiting.cancel()
    await asyncio.wait([waiting])
    answers.set()
    await until(lambda: source._attempt is not None and source._attempt.done())
    await source.close()
    await server.noticed.wait()


async def test_closing_ends_the_wait_of_another_task_be_it_connected_or_not(canned: MakeCanned) -> None:
    server = canned((Then.STAY,), (stream(ended=False), Then.STAY))
    for requests in (1, 2):
        source = events(server.url)
        waiting = in_background(anext(source, None))
        await until(lambda requests=requests: len(server.requests) == requests)  # type: ignore[misc]
        await source.close()
        assert await waiting is None


async def test_cancelling_loses_nothing(clock: Clock, canned: MakeCanned) -> None:
    """Be it while connecting, between two connections or while waiting for an event."""
    more = asyncio.Event()
    server = canned(stream(b"id: 1\ndata: a\n\n"), (stream(b"id: 2\ndata: b\n\n", ended=False), more,
                    body_of(b"id: 3\ndata: c\n\n"), Then.STAY))  # fmt: skip
    async with events(server.url, backoff=EXACTLY) as source:
        seen = []
        for turn in range(60):
            waiting = in_background(anext(source))  # type: ignore[arg-type]
            for _ in range(turn):
                await asyncio.sleep(0)
            await clock.advance(0.125)
            if waiting.done():
                seen.append(waiting.result().data)
            waiting.cancel()
            await asyncio.wait([waiting])
            if len(seen) == 2:
                more.set()
            if len(seen) == 3:
                break
        assert seen == ["a", "b", "c"]
