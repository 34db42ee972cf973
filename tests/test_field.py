"""What people who stream over HTTP ran into, with other servers and libraries: each seen not to happen here.

A docstring begins with the symptom, in the words in which it was collected.
"""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import zlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from subscribers import Subscriber, ready
from support import (
    LAST_CHUNK,
    NDJSON_HEAD,
    SSE_HEAD,
    TEXT_HEAD,
    Clock,
    Failures,
    Peer,
    Served,
    Serving,
    Steps,
    chunk,
    get,
    settle,
    until,
)

from rawstream import Event, Hub, Request, Response, Stream, Timeouts

SSE = "text/event-stream"
BEAT = chunk(b":\n\n")


def waiting(steps: Steps) -> Callable[[Request], AsyncIterator[str]]:
    """A handler whose streams give "x" and wait; `steps` has what becomes of them."""

    async def handler(request: Request) -> AsyncIterator[str]:
        try:
            yield "x"
            steps("waits")
            await asyncio.get_running_loop().create_future()
        finally:
            steps("finally")

    return handler


async def gone(served: Served) -> None:
    await until(lambda: served.server.connections == 0)


async def test_shutdown_does_not_hang_on_open_event_streams(serving: Serving, clock: Clock) -> None:
    """shutdown and reload hang on open SSE connections."""
    steps = Steps()
    served = await serving(waiting(steps), timeouts=Timeouts(grace=3))
    peers = [await served.ask(get(accept=SSE)) for _ in range(3)]
    await steps.reach(*["waits"] * 3)
    draining = served.server.close()
    await clock.advance(3.25)
    await draining
    assert steps.done == ["waits"] * 3 + ["finally"] * 3
    for peer in peers:
        assert b"event: stream-closing\n" in await peer.rest()


async def test_a_stream_can_say_goodbye_when_the_server_closes(serving: Serving) -> None:
    """streams die too early on SIGTERM, no chance to say goodbye."""

    async def handler(request: Request) -> AsyncIterator[str]:
        yield "working"
        await request.closing.wait()
        for _ in range(10):
            await asyncio.sleep(0)
        yield "goodbye"

    served = await serving(handler)
    peer = await served.ask(get(accept="text/plain"))
    assert await peer.head() == TEXT_HEAD
    await peer.expect(chunk(b"working"))
    await served.server.close()
    assert await peer.rest() == chunk(b"goodbye") + LAST_CHUNK


async def test_a_stream_takes_one_task_and_leaves_none(serving: Serving) -> None:
    """one polling watcher leaked per connection, dead in days."""
    steps = Steps()
    served = await serving(waiting(steps))
    before = len(asyncio.all_tasks())
    peers = [await served.ask(get(accept=SSE)) for _ in range(20)]
    await steps.reach(*["waits"] * 20)
    assert len(asyncio.all_tasks()) == before + 20
    for peer in peers:
        peer.close()
    await steps.reach(*["waits"] * 20, *["finally"] * 20)
    await gone(served)
    assert len(asyncio.all_tasks()) == before


async def test_a_client_that_stops_reading_hangs_neither_items_nor_heartbeats(serving: Serving, clock: Clock) -> None:
    """a client that stops reading hangs the sender; pings hang too."""
    steps = Steps()

    async def items() -> AsyncIterator[str]:
        try:
            yield "x" * 8_000_000
            await asyncio.get_running_loop().create_future()
        finally:
            steps("finally")

    async def handler(request: Request) -> Stream:
        return Stream(items(), format="sse", heartbeat=1)

    served = await serving(handler, timeouts=Timeouts(write_stall=6))
    peer = await served.connect(receive_buffer=16384)
    await peer.send(get())
    await peer.until(b"\r\n\r\n")
    await clock.advance(5.75)
    assert steps.done == []
    await clock.advance(3)
    assert steps.done == ["finally"]
    assert served.server.connections == 0


@pytest.mark.parametrize("leave", [Peer.reset, Peer.close])
async def test_who_waits_for_a_slow_reader_is_woken_when_it_leaves(
    serving: Serving, leave: Callable[[Peer], None]
) -> None:
    """`drain()` waits for ever after a disconnect."""
    steps = Steps()

    async def items() -> AsyncIterator[bytes]:
        try:
            while True:
                yield bytes(1_000_000)
        finally:
            steps("finally")

    async def handler(request: Request) -> Stream:
        return Stream(items(), format="bytes")

    served = await serving(handler)
    peer = await served.connect(receive_buffer=16384)
    await peer.send(get())
    await peer.until(b"\r\n\r\n")
    await settle()
    assert steps.done == []
    leave(peer)
    await steps.reach("finally")


async def test_a_disconnect_reaches_the_upstream_within_the_requests_own_task(serving: Serving) -> None:
    """a disconnect never reaches the upstream; the body iterator is not closed; a GPU slot is held.

    Or the generator was closed in another task, where context variables and cancel scopes are not those of the request.
    """
    steps = Steps()
    name: contextvars.ContextVar[str] = contextvars.ContextVar("name")

    async def upstream() -> AsyncIterator[str]:
        name.set("upstream")
        task = asyncio.current_task()
        try:
            async with asyncio.timeout(60):
                yield "token"
                steps("waits")
                await asyncio.get_running_loop().create_future()
        finally:
            steps("slot is free")
            assert asyncio.current_task() is task
            assert name.get() == "upstream"

    async def handler(request: Request) -> AsyncIterator[str]:
        async for token in upstream():
            yield token

    served = await serving(handler)
    peer = await served.ask(get(accept=SSE))
    await steps.reach("waits")
    peer.reset()
    await steps.reach("waits", "slot is free")


async def test_a_place_upstream_is_free_for_the_next_as_soon_as_its_client_has_left(serving: Serving) -> None:
    """a disconnect never reaches the upstream; the body iterator is not closed; a GPU slot is held.

    It was held until the process ended.
    """
    slot = asyncio.Semaphore(1)

    async def handler(request: Request) -> AsyncIterator[str]:
        async with slot:
            yield "token"
            await asyncio.get_running_loop().create_future()

    served = await serving(handler)
    for leave in (Peer.reset, Peer.close, Peer.finish) * 3:
        peer = await served.ask(get(accept=SSE))
        await peer.until(b"data: token\n\n")
        assert slot.locked()
        leave(peer)
    peer = await served.ask(get(accept=SSE))
    await peer.until(b"data: token\n\n")


async def test_a_thousand_readers_that_come_and_go_leave_no_watcher_behind(serving: Serving) -> None:
    """one polling watcher leaked per connection, dead in days."""
    steps = Steps()
    loop = asyncio.get_running_loop()
    loop.set_debug(False)  # its checks cost more than what is tested
    served = await serving(waiting(steps))
    before = len(asyncio.all_tasks())
    for _ in range(20):
        peers = [await served.ask(get(accept=SSE)) for _ in range(50)]
        steps.done.clear()
        for peer in peers:
            await peer.until(b"data: x\n\n")
            peer.close()
        await until(lambda: steps.done.count("finally") == 50)
    await gone(served)
    assert len(asyncio.all_tasks()) == before
    buckets = served.server._service.deadlines._buckets.values()
    assert sum(len(bucket) for bucket, _ in buckets) == 0  # nothing is due for those who have left


async def test_a_generator_that_never_started_is_closed_and_had_claimed_nothing(serving: Serving) -> None:
    """a generator that never started never runs its `finally`. What was claimed for it stayed claimed."""
    steps = Steps()

    async def items() -> AsyncIterator[str]:
        steps("claimed")
        try:
            yield "x"
        finally:
            steps("released")

    iterators: list[Any] = []

    async def handler(request: Request) -> Stream:
        iterators.append(items())
        return Stream(iterators[-1])

    served = await serving(handler)
    peer = await served.ask(b"HEAD / HTTP/1.1\r\nHost: test\r\n\r\n")
    await peer.head()
    peer = await served.ask(get(accept="image/png"))
    assert (await peer.head()).startswith(b"HTTP/1.1 406 ")
    assert steps.done == []
    for iterator in iterators:
        with pytest.raises(StopAsyncIteration):
            await anext(iterator)


async def test_an_endless_generator_that_never_waits_does_not_block_the_others(serving: Serving) -> None:
    """an endless generator that never waits blocks the loop."""
    steps = Steps()

    async def handler(request: Request) -> Any:
        if request.path == "/healthz":
            return Response.text("ok")
        return endless()

    async def endless() -> AsyncIterator[int]:
        try:
            while True:
                yield 0
        finally:
            steps("finally")

    served = await serving(handler)
    peer = await served.ask(get("/endless"))
    await peer.head()
    other = await served.ask(get("/healthz"))
    assert (await other.response())[1] == b"ok"
    peer.reset()
    await steps.reach("finally")


async def test_a_handler_is_told_of_a_disconnect_without_asking_for_it(serving: Serving) -> None:
    """handlers are no longer told of a disconnect."""
    steps = Steps()

    async def handler(request: Request) -> Response:
        steps("waits")
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            steps("cancelled")
            raise
        raise AssertionError

    served = await serving(handler)
    peer = await served.ask(get())
    await steps.reach("waits")
    peer.reset()
    await steps.reach("waits", "cancelled")


async def test_the_clean_up_runs_while_the_stream_is_idle_and_may_itself_wait(serving: Serving) -> None:
    """cleanup not run after cancelling. Or only with the next write."""
    steps = Steps()

    async def handler(request: Request) -> AsyncIterator[str]:
        try:
            yield "x"
            steps("waits")
            await asyncio.get_running_loop().create_future()
        finally:
            await asyncio.sleep(0)
            steps("cleaned up")

    served = await serving(handler)
    peer = await served.ask(get(accept=SSE))
    await steps.reach("waits")
    peer.close()
    await steps.reach("waits", "cleaned up")


async def test_proxies_are_told_not_to_gather_or_compress(serving: Serving) -> None:
    """ "works locally, arrives all at once in production"."""
    peer = await (await serving(waiting(Steps()))).ask(get("/", SSE, "Accept-Encoding: gzip, br"))
    head = await peer.head()
    assert b"\r\nX-Accel-Buffering: no\r\n" in head
    assert b"\r\nCache-Control: no-store, no-transform\r\n" in head
    assert b"Content-Encoding" not in head
    await peer.expect(chunk(b"data: x\n\n"))


async def test_heartbeats_come_from_before_the_first_event(serving: Serving, clock: Clock) -> None:
    """proxies cut at 50 to 120 s of silence before the first token."""
    first = asyncio.Event()

    async def handler(request: Request) -> AsyncIterator[str]:
        await first.wait()
        yield "token"

    peer = await (await serving(handler)).ask(get(accept=SSE))
    assert await peer.head() == SSE_HEAD
    for _ in range(3):
        await clock.advance(15.5)
        assert peer.here() == BEAT
    first.set()
    assert (await peer.until(b"\n\n")).endswith(b"\r\ndata: token\n\n")


async def test_the_head_comes_within_a_second_although_the_first_item_does_not(serving: Serving, clock: Clock) -> None:
    """proxies cut at 50 to 120 s of silence before the first token.

    Where a format has no heartbeats, the head is what can be sent.
    """

    async def handler(request: Request) -> AsyncIterator[str]:
        await asyncio.get_running_loop().create_future()
        yield "token"

    peer = await (await serving(handler)).ask(get(accept="application/x-ndjson"))
    await clock.advance(1.25)
    assert await peer.head() == NDJSON_HEAD


async def decoded(peer: Peer, decoder: Any) -> bytes:
    """What the next chunk is, once it is decompressed."""
    size = int(await peer.until(b"\r\n"), 16)
    while len(peer._held) < size + 2:
        assert await peer._more()
    data, peer._held = peer._held[:size], peer._held[size + 2 :]
    return bytes(decoder.decompress(data))


@pytest.mark.parametrize(
    ("form", "item"), [("sse", b"data: %s\n\n"), ("ndjson", b'"%s"\n'), ("text", b"%s")], ids=["sse", "ndjson", "text"]
)
async def test_each_item_can_be_read_when_it_is_sent_although_it_is_compressed(
    serving: Serving, form: str, item: bytes
) -> None:
    """compression holds the stream back. Until its buffer was full, or until the end."""
    asked = asyncio.Queue[str]()

    async def items() -> AsyncIterator[str]:
        while word := await asked.get():
            yield word

    async def handler(request: Request) -> Stream:
        return Stream(items(), format=form, gzip=True)

    peer = await (await serving(handler)).ask(get("/", None, "Accept-Encoding: gzip, br"))
    decoder = zlib.decompressobj(31)
    for number, word in enumerate(["this", "is", "read", "at", "once"]):
        asked.put_nowait(word)
        if number == 0:
            head = await peer.head()
            assert b"\r\nContent-Encoding: gzip\r\n" in head
            assert b"\r\nVary: Accept-Encoding\r\n" in head
        assert await decoded(peer, decoder) == item % word.encode()
    asked.put_nowait("")
    while not decoder.eof:
        await decoded(peer, decoder)
    await peer.expect(LAST_CHUNK)


async def test_a_heartbeat_can_be_read_when_it_is_sent_although_it_is_compressed(
    serving: Serving, clock: Clock
) -> None:
    """compression holds the stream back. Pings too, and proxies cut the connection."""

    async def items() -> AsyncIterator[str]:
        yield "x"
        await asyncio.get_running_loop().create_future()

    async def handler(request: Request) -> Stream:
        return Stream(items(), format="sse", gzip=True)

    peer = await (await serving(handler)).ask(get("/", None, "Accept-Encoding: gzip"))
    decoder = zlib.decompressobj(31)
    await peer.head()
    assert await decoded(peer, decoder) == b"data: x\n\n"
    await clock.advance(15.5)
    assert await decoded(peer, decoder) == b":\n\n"


@pytest.mark.parametrize("accepts", [[], ["Accept-Encoding: br"], ["Accept-Encoding: gzip;q=0, identity"]])
async def test_who_does_not_accept_compression_does_not_get_it(serving: Serving, accepts: list[str]) -> None:
    """A stream was compressed for everybody, or for nobody."""

    async def handler(request: Request) -> Stream:
        return Stream(waiting(Steps())(request), format="text", gzip=True)

    peer = await (await serving(handler)).ask(get("/", None, *accepts))
    head = await peer.head()
    assert b"Content-Encoding" not in head
    assert b"\r\nVary: Accept-Encoding\r\n" in head
    await peer.expect(chunk(b"x"))


async def test_a_compressed_stream_that_breaks_off_can_be_told_from_one_that_is_complete(
    serving: Serving, failures: Failures
) -> None:
    """ "incomplete chunked read" in mid-stream, no reason given.

    Here the reason is told, and the compressed text has no end either.
    """

    async def items() -> AsyncIterator[str]:
        yield "x"
        await asyncio.sleep(0)
        raise ConnectionError("the upstream is gone")

    async def handler(request: Request) -> Stream:
        return Stream(items(), format="ndjson", gzip=True)

    served = await serving(handler, timeouts=Timeouts(linger=0))
    peer = await served.ask(get("/", None, "Accept-Encoding: gzip"))
    decoder = zlib.decompressobj(31)
    await peer.head()
    assert await decoded(peer, decoder) == b'"x"\n'
    assert b"stream-error" in await decoded(peer, decoder)
    assert not decoder.eof
    assert await peer.rest() == b""
    assert str(failures.take()) == "the upstream is gone"


async def test_a_cookie_reaches_the_handler_of_an_event_stream(serving: Serving) -> None:
    """EventSource cannot set headers. What it sends by itself are cookies."""

    async def handler(request: Request) -> AsyncIterator[str]:
        yield request.headers["cookie"]

    peer = await (await serving(handler)).ask(get("/", SSE, "Cookie: session=1; theme=dark"))
    await peer.until(b"data: session=1; theme=dark\n\n")


async def test_no_reader_is_left_on_a_server_that_is_replaced(serving: Serving) -> None:
    """a reload leaves frozen subscribers. They stayed on the old process."""

    async def handler(request: Request) -> AsyncIterator[str]:
        yield "x"
        await request.closing.wait()

    served = await serving(handler)
    peers = [await served.ask(get(accept=SSE)) for _ in range(3)]
    for peer in peers:
        await peer.until(b"data: x\n\n\r\n")
    await served.server.close()
    for peer in peers:
        told = await peer.rest()
        assert b"event: stream-closing\n" in told
        assert b"stream-end" not in told  # so EventSource comes back
        assert peer.ending == "end"


async def test_a_failure_in_mid_stream_is_told_before_the_cut(serving: Serving, failures: Failures) -> None:
    """ "incomplete chunked read" in mid-stream, no reason given."""

    async def handler(request: Request) -> AsyncIterator[str]:
        yield "x"
        await asyncio.sleep(0)
        raise ConnectionError("the upstream is gone")

    served = await serving(handler, timeouts=Timeouts(linger=0))
    peer = await served.ask(get(accept="application/x-ndjson"))
    assert await peer.head() == NDJSON_HEAD
    told = b'{"stream-error":{"status":500,"error":"Internal Server Error"}}\n'
    assert await peer.rest() == chunk(b'"x"\n') + chunk(told)
    assert str(failures.take()) == "the upstream is gone"


async def test_a_stream_can_send_comments_of_its_own(serving: Serving) -> None:
    """no comments in .NET 10's SSE results, so no heartbeat."""

    async def handler(request: Request) -> AsyncIterator[Event]:
        yield Event(None, comment="still thinking")
        await asyncio.sleep(0)

    peer = await (await serving(handler)).ask(get(accept=SSE))
    assert await peer.head() == SSE_HEAD
    await peer.expect(chunk(b": still thinking\n\n"))


# -- channels and runs -------------------------------------------------------------------------------------------------


async def test_what_is_published_between_replay_and_live_is_not_lost(serving: Serving) -> None:
    """events lost between replay and live; an unknown id never catches up."""
    async with Hub() as hub:
        news = hub.channel("news")
        first = await news.publish(0)
        served = await serving(lambda request: news.subscribe()(request))
        for number in range(1, 300):  # more than a page, and on while it is read
            await news.publish(number)
        reader = await Subscriber.of(served, "/", f"Last-Event-ID: {first}", f"Accept: {SSE}")
        for number in range(300, 320):
            await news.publish(number)
        assert await reader.data(319) == [*range(1, 320)]


async def test_an_unknown_id_is_told_and_catches_up(serving: Serving) -> None:
    """events lost between replay and live; an unknown id never catches up."""
    async with Hub() as hub:
        news = hub.channel("news")
        await news.publish(0)
        served = await serving(lambda request: news.subscribe()(request))
        reader = await Subscriber.of(served, "/", "Last-Event-ID: 1700000000000-4711", f"Accept: {SSE}")
        assert reader.headers["stream-gap"] == "unknown"
        gap, old = await reader.take(2)
        assert (gap.event, gap.data["missing"], old.data) == ("stream-gap", None, 0)


async def test_a_run_can_be_resumed_and_stopped_and_its_end_is_never_lost(serving: Serving) -> None:
    """resume and stop exclude each other; a lost end hangs the reader; 91 MB replayed in one message."""
    closed = asyncio.Event()

    async def answer() -> AsyncIterator[int]:
        try:
            for number in itertools.count():
                yield number
                await asyncio.sleep(0)
        finally:
            closed.set()

    async with Hub() as hub:
        run = await hub.run(answer())
        served = await serving(lambda request: run.subscribe()(request))
        first = await Subscriber.of(served, "/", f"Accept: {SSE}")
        told = await first.take(3)
        first.peer.reset()
        again = await Subscriber.of(served, "/", f"Accept: {SSE}", f"Last-Event-ID: {told[-1].id}")
        assert await again.data(2) == [3, 4]
        await run.stop()
        assert closed.is_set()
        *_, end = await again.until_end()
        assert (end.event, end.data, again.ended) == ("stream-end", {"stopped": True}, True)
        late = await Subscriber.of(served, "/", f"Accept: {SSE}", f"Last-Event-ID: {end.id}")
        assert late.status == 204


async def test_a_generation_is_in_the_store_and_not_in_its_producer(tmp_path: Path) -> None:
    """the buffer lives only in the producer's memory."""

    async def answer() -> AsyncIterator[int]:
        yield 1
        yield 2

    url = f"sqlite:///{tmp_path}/runs.db"
    async with Hub(url) as hub:
        run = await hub.run(answer(), id="a")
        await run.wait_closed()
    async with Hub(url) as another:
        assert [event.data async for event in (await another.find("a")).read()] == [1, 2, {}]


async def test_subscribers_of_a_server_that_closes_are_let_go_at_once(serving: Serving) -> None:
    """a reload leaves frozen subscribers. A new process had the channel, and they heard nothing of it."""
    async with Hub() as hub:
        news = hub.channel("news")
        served = await serving(lambda request: news.subscribe()(request), timeouts=Timeouts(grace=60))
        readers = [await Subscriber.of(served, "/", f"Accept: {SSE}") for _ in range(3)]
        await ready(news, 3)
        await served.server.close()
        for reader in readers:
            (told,) = await reader.until_end()
            assert told.event == "stream-closing"
            assert reader.retry is not None
            assert reader.ended
