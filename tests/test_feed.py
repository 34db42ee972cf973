"""Subscribers over real sockets: written to on the spot, left behind without a cost, and never without a word."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from subscribers import NDJSON, SSE, Subscriber, Told, account, keeping_up, ready
from support import (
    LAST_CHUNK,
    Clock,
    Peer,
    Served,
    Serving,
    chunk,
    get,
    in_background,
    request,
    settle,
    until,
)
from unsteady import Staged, Unsteady, away, hub_of

from rawstream import Hub, observe, sse
from rawstream.channels import Channel
from rawstream.channels.channel import HEARTBEAT
from rawstream.channels.cursor import After
from rawstream.channels.feed import Feed
from rawstream.channels.log import Entry, Id, Retention
from rawstream.channels.slices import SLICE, Slices
from rawstream.channels.tail import BYTES, ENTRIES, PIECE
from rawstream.errors import StoreUnavailable
from rawstream.framing import Frame
from rawstream.sink import Way

pytestmark = pytest.mark.usefixtures("orderly")

MANY = 300


@pytest.fixture
async def served(serving: Serving, news: Channel) -> Served:
    """A server of which each client gets `news.subscribe()`."""
    return await serving(news.subscribe())


async def sent() -> None:
    """uvloop may keep what is written to the end of the loop's turn."""
    if type(asyncio.get_running_loop()).__module__.startswith("uvloop"):
        await settle()


def waiting(served: Served) -> int:
    """Bytes in the write buffers of all connections."""
    return sum(transport._transport.get_write_buffer_size() for transport in served.server._connections)


async def stopped(served: Served, channel: Channel, *fields: str) -> Subscriber:
    """A subscriber that takes what its small buffer holds, and reads no more."""
    before = keeping_up(channel)
    reader = await Subscriber.of(served, "/", *fields, receive_buffer=16384)
    await ready(channel, before + 1)
    return reader


async def fill(channel: Channel, until_left: int = 0, size: int = 8_000) -> list[str]:
    """Publish until no more than so many subscribers keep up."""
    ids = []
    while keeping_up(channel) > until_left:
        ids.append(await channel.publish(["x" * size]))
        await settle()
        assert len(ids) < 2_000
    return ids


# -- at the head -----------------------------------------------------------------------------------------------------


async def test_who_keeps_up_is_written_to_on_the_spot(served: Served, news: Channel) -> None:
    readers = [await Subscriber.of(served, "/", f"Accept: {accept}") for accept in (SSE, NDJSON, SSE)]
    await ready(news, 3)
    for reader in readers:
        reader.here()
    for n in range(20):
        id = await news.publish(n)
        await sent()
        assert [reader.here() for reader in readers] == [[Told(id, "message", n)]] * 3


async def test_each_event_is_a_chunk_of_its_own_when_they_come_one_by_one(served: Served, news: Channel) -> None:
    peer = await served.ask(get())
    await peer.head()
    await peer.expect(chunk(b":\n\n"))
    await ready(news)
    for n in range(3):
        id = await news.publish(n)
        await peer.expect(chunk(f"data: {n}\nid: {id}\n\n".encode()))


class TestShared:
    @pytest.fixture(autouse=True)
    def shadow(self) -> None:
        """None: it gives each connection a framing of its own."""

    async def test_an_event_is_encoded_once_for_all(
        self, served: Served, news: Channel, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        encoded: list[sse.Event] = []

        def encode(event: sse.Event) -> bytes:
            encoded.append(event)
            return original(event)

        original = sse.encode
        monkeypatch.setattr(sse, "encode", encode)
        peers = [await served.ask(get(accept=accept)) for accept in [SSE] * 20 + [NDJSON] * 20]
        await ready(news, 40)
        await news.publish({"a": 1}, "tick")
        await sent()
        got = [(await peer.until(b'{"a":1}') + peer.here()).rpartition(b"\r\n\r\n")[2] for peer in peers]
        assert len(encoded) == 1
        assert len(set(got[:20])) == len(set(got[20:])) == 1
        assert b"event: tick" in got[0]

    async def test_a_client_of_http_1_0_gets_the_same_without_chunks(self, served: Served, news: Channel) -> None:
        reader = await Subscriber.of(served, version="1.0")
        assert "transfer-encoding" not in reader.headers
        await ready(news)
        await news.publish(1)
        await news.close()
        assert [told.data for told in await reader.until_end()] == [1, {}]
        assert reader.body.startswith(b":\n\ndata: 1\n")
        assert reader.peer.ending == "end"


async def test_a_client_of_http_1_0_is_served_until_its_connection_ends(served: Served, news: Channel) -> None:
    peer = await served.ask(get(version="1.0"))
    await peer.head()
    await peer.expect(b":\n\n")
    await ready(news)
    id = await news.publish(1)
    await peer.expect(f"data: 1\nid: {id}\n\n".encode())
    await news.close()
    assert (await peer.rest()).startswith(b"event: stream-end\n")
    assert peer.ending == "end"


async def test_subscribers_are_counted(served: Served, news: Channel) -> None:
    assert news.subscribers == 0
    readers = [await Subscriber.of(served) for _ in range(3)]
    await ready(news, 3)
    assert news.subscribers == 3
    readers[0].peer.close()
    await until(lambda: news.subscribers == 2)
    readers[1].peer.reset()
    await until(lambda: news.subscribers == 1)
    readers[2].peer.finish()
    await until(lambda: news.subscribers == 0)
    assert not news._members


# -- left behind -----------------------------------------------------------------------------------------------------


async def test_who_stops_reading_is_left_behind_and_holds_nothing(served: Served, news: Channel) -> None:
    reader, other = await stopped(served, news), await Subscriber.of(served)
    await ready(news, 2)
    ids, taken = [], 0
    for n in range(250):
        ids.append(await news.publish(["x" * 8_000]))
        await other.take(1)
        assert waiting(served) <= 16 * 1024 + PIECE + 1024
        taken = n if keeping_up(news) == 2 else taken
    assert keeping_up(news) == 1, "the other one"
    assert taken < 100
    reader.widen()
    assert [told.id for told in await reader.take(250)] == ids
    await ready(news, 2)
    id = await news.publish(["on the spot"])
    assert [told.id for told in await reader.take(1)] == [id]


@pytest.mark.parametrize("accept", [SSE, NDJSON])
async def test_who_is_behind_goes_on_from_the_tail(served: Served, store: Staged, news: Channel, accept: str) -> None:
    reader = await stopped(served, news, f"Accept: {accept}")
    ids = await fill(news)
    ids += [await news.publish(n) for n in range(20)]
    reads = store.calls["read"]
    assert [told.id for told in await reader.take(len(ids))] == ids
    assert store.calls["read"] == reads, "the log was not asked"


async def test_who_is_behind_the_tail_goes_on_from_the_log(served: Served, store: Staged, news: Channel) -> None:
    reader = await stopped(served, news)
    ids = await fill(news)
    ids += [await news.publish(n) for n in range(2 * ENTRIES)]
    assert [told.id for told in await reader.take(len(ids))] == ids
    assert store.calls["read"] > 0
    await ready(news)
    assert [told.id for told in await reader.take(0)] == []


async def test_who_stops_in_the_midst_of_the_log_holds_nothing(served: Served, news: Channel) -> None:
    ids = [await news.publish(["x" * 8_000]) for _ in range(3 * BYTES // 8_000)]
    reader = await Subscriber.of(served, "/?last_event_id=earliest", receive_buffer=16384)
    await until(lambda: waiting(served) > 0)
    await settle()
    assert 0 < waiting(served) <= 16 * 1024 + PIECE + 9 * 1024
    reader.widen()
    assert [told.id for told in await reader.take(len(ids))] == ids


class TestBounded:
    @pytest.fixture
    async def store(self) -> Staged:
        """A store that holds ten entries of a channel."""
        return Staged(Retention(entries=10))

    async def test_who_falls_behind_the_log_is_told_how_far(self, served: Served, news: Channel) -> None:
        reader = await stopped(served, news)
        ids = await fill(news)
        ids += [await news.publish(n) for n in range(2 * ENTRIES)]
        told: list[Told] = []
        while not told or told[-1].id != ids[-1]:
            told += await reader.take(1)
        (gap,) = [each for each in told if each.event == "stream-gap"]
        before, after = told[: told.index(gap)], told[told.index(gap) + 1 :]
        assert [each.id for each in before] == ids[: len(before)]
        assert [each.id for each in after] == ids[-10:]
        assert gap.data == {"missing": len(ids) - 10 - len(before), "after": before[-1].id}
        again = await Subscriber.of(served, "/", f"Last-Event-ID: {gap.id}")
        assert "stream-gap" not in again.headers
        assert [each.id for each in await again.take(10)] == ids[-10:]

    async def test_who_falls_behind_the_log_is_cut_where_that_was_asked_for(
        self, served: Served, hub: Hub, news: Channel
    ) -> None:
        hub.channel("news", behind="cut")
        reader = await stopped(served, news)
        ids = await fill(news)
        ids += [await news.publish(n) for n in range(2 * ENTRIES)]
        told = await reader.until_end()
        assert not reader.ended
        assert reader.peer.ending == "reset"
        assert [each.id for each in told] == ids[: len(told)]
        assert news.subscribers == 0
        again = await Subscriber.of(served, "/", f"Last-Event-ID: {told[-1].id if told else ids[0]}")
        assert again.status == 200, "and may come back"
        assert [each.event for each in await again.take(11)] == ["stream-gap"] + ["message"] * 10

    async def test_what_is_trimmed_while_it_is_read_is_told(self, served: Served, store: Staged, news: Channel) -> None:
        ids = [await news.publish(n) for n in range(10)]

        async def more() -> None:
            ids.extend([await news.publish(n) for n in range(5)])

        store.before("read", more)
        reader = await Subscriber.of(served, "/?last_event_id=earliest")
        gap, *rest = await reader.take(11)
        assert gap.data["missing"] == 5
        assert [told.id for told in rest] == ids[-10:]


async def test_of_the_latest_who_is_behind_skips_to_the_newest(served: Served, hub: Hub, news: Channel) -> None:
    hub.channel("news", behind="latest")
    reader = await stopped(served, news)
    ids = await fill(news)
    ids += [await news.publish(n) for n in range(100)]
    told: list[Told] = []
    while not told or told[-1].id != ids[-1]:
        told += await reader.take(1)
    assert len(told) <= len(ids) - 99
    assert all(each.event == "message" for each in told)
    assert [each.id for each in told] == sorted({each.id for each in told}, key=Id.parse)
    await ready(news)


async def test_of_the_latest_a_new_subscriber_gets_the_newest_at_once(served: Served, hub: Hub, news: Channel) -> None:
    hub.channel("news", behind="latest")
    for n in range(5):
        await news.publish(n)
    assert await (await Subscriber.of(served)).data(1) == [4]
    assert await (await Subscriber.of(served, "/?last_event_id=earliest")).data(1) == [4]
    reader = await Subscriber.of(served, "/?last_event_id=5-99")
    assert "stream-gap" not in reader.headers
    assert await reader.data(1) == [4]
    await ready(news, 3)
    await news.publish(5)
    assert await reader.data(1) == [5]


async def test_what_becomes_of_who_is_behind_may_be_chosen_while_it_is_read(
    served: Served, hub: Hub, news: Channel
) -> None:
    reader = await stopped(served, news)
    ids = await fill(news)
    hub.channel("news", behind="latest")
    ids += [await news.publish(n) for n in range(100)]
    told: list[Told] = []
    while not told or told[-1].id != ids[-1]:
        told += await reader.take(1)
    assert len(told) <= len(ids) - 99


# -- the end ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("accept", [SSE, NDJSON])
async def test_the_end_of_a_channel_is_told_and_the_answer_ends(served: Served, news: Channel, accept: str) -> None:
    reader = await Subscriber.of(served, "/", f"Accept: {accept}")
    await ready(news)
    await news.publish(1)
    await news.close()
    assert [(told.event, told.data) for told in await reader.until_end()] == [("message", 1), ("stream-end", {})]
    assert reader.ended
    assert not reader.peer.ending, "the connection stays"
    assert news.subscribers == 0


async def test_who_is_behind_gets_all_before_the_end(served: Served, news: Channel) -> None:
    reader = await stopped(served, news)
    ids = await fill(news)
    ids += [await news.publish(n) for n in range(2 * ENTRIES)]
    await news.close()
    told = await reader.until_end()
    assert [each.id for each in told[:-1]] == ids
    assert told[-1].event == "stream-end"
    assert reader.ended


@pytest.mark.parametrize("accept", [SSE, NDJSON])
async def test_a_server_that_closes_tells_its_subscribers_and_ends_at_once(
    served: Served, news: Channel, accept: str
) -> None:
    readers = [await Subscriber.of(served, "/", f"Accept: {accept}") for _ in range(5)]
    await ready(news, 5)
    await news.publish(1)
    served.server.begin_closing()  # with a minute of grace, for which no test waits
    for reader in readers:
        told = await reader.until_end()
        assert reader.ended
        if accept == SSE:
            assert [each.event for each in told] == ["message", "stream-closing"]
            assert reader.retry is not None
            assert 1_000 <= reader.retry <= 5_000
        else:
            assert [each.event for each in told] == ["message"]
    await served.server.wait_closed()
    assert news.subscribers == 0


async def test_nobody_is_told_that_the_server_closes_who_was_told_that_the_log_has_ended(
    served: Served, news: Channel
) -> None:
    readers = [await Subscriber.of(served) for _ in range(3)]
    await ready(news, 3)
    await news.publish(1)
    await news.close()
    served.server.begin_closing()  # before a reader's connection had a turn
    for reader in readers:
        told = await reader.until_end()
        assert [each.event for each in told] == ["message", "stream-end"]
        assert reader.ended
        assert reader.retry is None


async def test_who_comes_while_the_server_closes_is_told_so(served: Served, news: Channel) -> None:
    id = await news.publish(1)
    peer = await served.connect()
    await peer.send(request()[:-2])
    await settle()
    served.server.begin_closing()
    await peer.send(f"Last-Event-ID: {id}\r\n\r\n".encode())
    rest = await peer.rest()
    assert b"event: stream-closing\n" in rest
    assert rest.endswith(LAST_CHUNK)


async def test_a_hub_that_closes_ends_its_streams(served: Served, hub: Hub, news: Channel) -> None:
    reader, behind = await Subscriber.of(served), await stopped(served, news)
    await ready(news, 2)
    await fill(news, until_left=1)
    await reader.take(1)
    await hub.close()
    await reader.until_end()
    await behind.until_end()
    assert reader.ended
    assert behind.ended
    assert news.subscribers == 0


@pytest.mark.usefixtures("many_files")
async def test_a_channel_with_hundreds_of_subscribers_is_closed(served: Served, news: Channel) -> None:
    asyncio.get_running_loop().set_debug(False)
    peers = []
    for _ in range(MANY):
        peers.append(await served.connect())
        await peers[-1].send(get())
    await ready(news, MANY)
    await news.publish(1)
    await news.close()
    for peer in peers:
        data = await peer.until(b"\r\n" + LAST_CHUNK)
        assert data.count(b"data: 1\n") == data.count(b"event: stream-end\n") == 1
    await until(lambda: news.subscribers == 0)
    assert not news._members


@pytest.mark.asyncio(loop_factories=["uvloop"])
async def test_a_thousand_connection_resets_leave_nothing_behind(served: Served, store: Staged, news: Channel) -> None:
    store._retention = Retention(entries=10)
    loop, dice = asyncio.get_running_loop(), random.Random(20261122)
    loop.set_debug(False)
    gc.collect()
    tasks, files = len(asyncio.all_tasks()), len(os.listdir("/proc/self/fd"))
    stop = False

    async def publish() -> None:
        while not stop:
            await news.publish(["x" * 100])
            await asyncio.sleep(0)

    publishing = in_background(publish())
    for _ in range(20):
        peers = [await Peer.connect(served.server.addresses[0], receive_buffer=4096) for _ in range(50)]
        for peer in peers:
            await peer.send(get(dice.choice(["/", "/?last_event_id=earliest"])))
        for peer in peers:
            for _ in range(dice.randrange(3)):
                await asyncio.sleep(0)
            peer.reset()
    stop = True
    await publishing
    await until(lambda: not served.server.connections and not news.subscribers)
    await settle()
    assert not news._members
    assert len(asyncio.all_tasks()) == tasks
    assert len(os.listdir("/proc/self/fd")) == files


# -- what an operator sees -------------------------------------------------------------------------------------------


async def test_a_subscription_is_counted_and_logged(
    served: Served, news: Channel, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(observe, "counts", observe.Counts())
    monkeypatch.setattr(observe, "_line", observe._json)
    caplog.set_level(logging.INFO, "rawstream.access")
    reader = await Subscriber.of(served)
    await ready(news)
    (record,) = observe.open_streams
    assert (record.chunks_so_far, record.first) == (0, None), "a comment is none"
    for n in range(3):
        await news.publish(n)
    assert record.chunks_so_far == 3
    assert record.first is not None
    await news.close()
    await reader.until_end()
    await until(lambda: bool(caplog.messages))
    line = json.loads(caplog.messages[-1])
    assert (line["status"], line["chunks"], line["ended"]) == (200, 4, "complete")
    assert line["first_chunk"] is not None
    assert observe.counts.chunks == 4
    assert observe.counts.streams_ended["complete"] == 1
    assert sum(observe.counts.first_chunk.buckets) == 1


async def test_a_subscriber_that_goes_is_logged(
    served: Served, news: Channel, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "rawstream.access")
    (await stopped(served, news)).peer.reset()
    await until(lambda: bool(caplog.messages))
    assert "s client gone " in caplog.messages[-1]


async def test_who_is_in_the_midst_of_the_log_when_patience_ends_is_logged_as_cancelled(
    served: Served, news: Channel, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "rawstream.access")
    for _ in range(3 * BYTES // 8_000):
        await news.publish(["x" * 8_000])
    reader = await Subscriber.of(served, "/?last_event_id=earliest", receive_buffer=16384)
    await until(lambda: waiting(served) > 0)
    served.server.begin_closing()
    served.server.begin_closing()  # no more patience
    await served.server.wait_closed()
    assert "s cancelled " in caplog.messages[-1]
    await reader.until_end()
    assert not reader.ended
    assert news.subscribers == 0


# -- heartbeats ------------------------------------------------------------------------------------------------------


async def test_a_silent_channel_s_subscribers_hear_a_comment(clock: Clock, served: Served, news: Channel) -> None:
    peer, lines = await served.ask(get()), await served.ask(get(accept=NDJSON))
    await ready(news, 2)
    await settle()
    peer.here()
    lines.here()
    await clock.advance(16)
    assert peer.here() == chunk(b":\n\n")
    assert lines.here() == b"", "which JSON lines have not"
    await clock.advance(15)
    assert peer.here() == chunk(b":\n\n")


async def test_who_comes_while_the_store_is_away_hears_comments(
    clock: Clock, served: Served, store: Staged, news: Channel
) -> None:
    store.before("follow", *[away] * 1000)
    peer = await served.ask(get())
    await until(lambda: store.calls["follow"] >= 1)
    await settle()
    assert peer.here().endswith(chunk(b":\n\n"))
    await clock.advance(16)
    assert peer.here().startswith(chunk(b":\n\n"))


# -- a store that is away, or another --------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["follow", "state", "read"])
async def test_a_store_that_is_away_is_asked_again_after_a_while(
    clock: Clock, served: Served, store: Staged, news: Channel, method: str
) -> None:
    """Not at once, and again and again: thousands would."""
    for n in range(5):
        await news.publish(n)
    store.before("state", away)  # as it is when the stream begins
    store.before(method, *[away] * (4 if method == "state" else 3))
    reader = await Subscriber.of(served, "/?last_event_id=earliest")
    await settle()
    first = store.calls[method]
    await settle()
    assert store.calls[method] == first <= 2
    await clock.advance(0.9)
    assert store.calls[method] == first
    await clock.advance(8)
    assert [told.data for told in reader.here()] == [0, 1, 2, 3, 4]


async def test_who_keeps_up_keeps_its_connection_while_the_store_is_away(
    clock: Clock, served: Served, store: Staged, news: Channel
) -> None:
    reader = await Subscriber.of(served)
    await ready(news)
    for method in ("state", "read", "follow"):
        store.before(method, *[away] * 100)
    await clock.advance(40)
    assert not reader.peer.ending
    await news.publish(1)
    await settle()
    assert [told.data for told in reader.here()] == [1]


async def test_a_log_that_begins_anew_is_told_and_sent_from_its_start(
    served: Served, store: Staged, news: Channel
) -> None:
    ids = [await news.publish(n) for n in range(3)]
    reader = await Subscriber.of(served, "/?last_event_id=earliest")
    await reader.take(3)
    await ready(news)
    await store.remove("news")
    for n in range(100, 106):
        await news.publish(n)
    gap, *rest = await reader.data(7)
    assert gap == {"missing": None, "after": ids[2]}
    assert rest == [*range(100, 106)]


@pytest.mark.parametrize("method", ["state", "follow", "read"])
@pytest.mark.parametrize("moment", ["before", "after"])
async def test_a_log_that_begins_anew_while_it_is_read_is_told(
    served: Served, store: Staged, news: Channel, method: str, moment: str
) -> None:
    """What was found in the old log does not count in the new one."""
    ids = [await news.publish(n) for n in range(6)]
    store.before("state", away)  # so that it is looked up when it has joined, too

    async def anew() -> None:
        await store.remove("news")
        for n in range(100, 103):
            await news.publish(n)

    getattr(store, moment)(method, anew)
    reader = await Subscriber.of(served, "/?last_event_id=earliest")
    got = []
    while 102 not in got:
        got += await reader.data(1)
    assert got[-3:] == [100, 101, 102]
    old = [each for each in got if each in range(6)]
    assert old == [*range(len(old))]
    if old:
        assert got[len(old)] == {"missing": None, "after": ids[len(old) - 1]}


# -- each event once, in order, or the word that it is missing -------------------------------------------------------


@pytest.mark.parametrize("far", [False, True], ids=["here", "far away"])
@pytest.mark.parametrize("seed", range(2))
async def test_joining_while_publishing_at_full_speed_loses_nothing(serving: Serving, seed: int, far: bool) -> None:
    asyncio.get_running_loop().set_debug(False)
    dice, total = random.Random(seed), 300
    store = Unsteady(dice, losses=dice.choice([0.0, 0.1])) if far else Staged()
    async with hub_of(store) as hub:
        news = hub.channel("news")
        served = await serving(news.subscribe())

        async def read() -> list[Told]:
            for _ in range(dice.randrange(600 if far else 300)):
                await asyncio.sleep(0)
            target = dice.choice(["/", "/?last_event_id=earliest"])
            told: list[Told] = []
            while not told or told[-1].event != "stream-end":
                fields = [f"Last-Event-ID: {told[-1].id}"] if told else []
                fields.append(f"Accept: {dice.choice([SSE, NDJSON])}")
                reader = await Subscriber.of(served, target, *fields, receive_buffer=dice.choice([None, 4096]))
                if dice.random() < 0.5:
                    told += await reader.until_end()
                else:
                    while dice.random() > 0.01 and not (told and told[-1].event == "stream-end"):
                        told += await reader.take(1)
                reader.peer.close()
            return told

        readers = [in_background(read()) for _ in range(12)]
        for n in range(total):
            await news.publish({"n": n + 1, "pad": "x" * dice.choice([1, 100, 3000])})
        await news.close()
        for reader in readers:
            told = await reader
            first, last = account(told)
            assert last == total + 1
            assert [each.data["n"] for each in told[:-1]] == [*range(first, total + 1)], "none was missing"


class PipeEnd:
    """Where a feed writes its pieces."""

    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe

    def write(self, data: bytes) -> bool:
        return self._pipe.take(data)


class Pipe:
    """A sink that takes so many bytes, and then no more until they are read."""

    now = 0.0
    """By a clock of its own, in whose time each write takes a slice."""

    def __init__(self, room: int) -> None:
        self._room = room
        self._held = 0
        self._call: Callable[[], None] | None = None
        self._drained = asyncio.Event()
        self.framing: Frame = bytes
        self.lines: list[Told] = []
        self.beats = 0

    def write(self, payload: bytes) -> bool:
        assert payload == b""
        return self.writable

    def beat(self) -> None:
        self.beats += 1
        Pipe.now += SLICE

    def first_chunk(self) -> None:
        assert not self.lines

    def way(self) -> Way:
        return self.framing, PipeEnd(self)

    def take(self, frame: bytes) -> bool:
        self.lines += [Told(**json.loads(line)) for line in frame.splitlines()]
        self._held += len(frame)
        Pipe.now += SLICE
        return self.writable

    @property
    def writable(self) -> bool:
        return self._held < self._room

    def when_writable(self, call: Callable[[], None] | None) -> None:
        self._call = call

    async def drain(self) -> None:
        while not self.writable:
            self._drained.clear()
            await self._drained.wait()

    def read(self) -> None:
        """The reader takes all that there is."""
        behind, self._held = not self.writable, 0
        self._drained.set()
        if behind and self._call is not None:
            self._call()


async def crowd(hub: Hub, channel: Channel) -> tuple[list[Pipe], list[asyncio.Task[None]]]:
    """Subscribers to whom a write takes a slice each, and what they do."""
    hub.slices = Slices(lambda: Pipe.now)
    pipes = [Pipe(5000) for _ in range(40)]
    tasks = [in_background(Feed(channel, True, None).__pump__(pipe).run()) for pipe in pipes]
    await ready(channel, 40)
    return pipes, tasks


async def test_who_leaves_while_a_fan_out_is_under_way_is_written_nothing(hub: Hub, news: Channel) -> None:
    pipes, tasks = await crowd(hub, news)
    await news.publish(1)
    assert pipes[0].lines
    assert not pipes[30].lines
    for task in tasks[30:]:
        task.cancel()
    await until(lambda: bool(pipes[29].lines))
    await settle()
    assert [len(pipe.lines) for pipe in pipes] == [1] * 30 + [0] * 10
    await hub.close()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_who_leaves_while_the_others_hear_a_beat_hears_none(clock: Clock, hub: Hub, news: Channel) -> None:
    pipes, tasks = await crowd(hub, news)
    await clock.advance(HEARTBEAT)
    assert (pipes[0].beats, pipes[30].beats) == (2, 1), "one as it began"
    for task in tasks[30:]:
        task.cancel()
    await clock.advance(5)
    assert [pipe.beats for pipe in pipes] == [2] * 30 + [1] * 10
    await hub.close()
    await asyncio.gather(*tasks, return_exceptions=True)


async def surely(act: Callable[[], Awaitable[Any]]) -> None:
    while True:
        try:
            await act()
        except StoreUnavailable:
            continue
        return


@pytest.mark.parametrize("seed", range(8))
async def test_far_away_and_unsteady_nothing_is_lost_without_a_word(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Readers of any speed, a store that fails, forgets and delivers late: each event once, in order, or counted."""
    asyncio.get_running_loop().set_debug(False)
    monkeypatch.setattr("rawstream.channels.feed._AGAIN", 0.0)
    dice, total = random.Random(seed), 300
    store = Unsteady(
        dice, failures=dice.choice([0.0, 0.05]), losses=dice.choice([0.0, 0.2]), entries=dice.choice([30, 9999])
    )
    async with hub_of(store) as hub:
        news = hub.channel("news")
        monkeypatch.setattr("rawstream.channels.tail.ENTRIES", dice.choice([5, 1000]))

        async def read() -> list[Told]:
            for _ in range(dice.randrange(300)):
                await asyncio.sleep(0)
            pipe = Pipe(dice.choice([1, 50, 5000]))
            place: After = "earliest" if dice.random() < 0.5 else None
            feed = Feed(news, True, place)
            task = in_background(feed.__pump__(pipe).run())
            while not task.done():
                for _ in range(dice.choice([0, 1, 20])):
                    await asyncio.sleep(0)
                pipe.read()
                await asyncio.sleep(0)
            await task
            return pipe.lines

        readers = [in_background(read()) for _ in range(8)]
        for n in range(total):
            await surely(lambda n=n: news.publish(n + 1, key=str(n)))  # type: ignore[misc]
        await surely(news.close)
        for reader in readers:
            told = await reader
            assert account(told)[1] == total + 1
            assert all(each.data == Id.parse(each.id).n for each in told if each.event == "message")
        assert news.subscribers == 0


# -- what the connection may ask of it -------------------------------------------------------------------------------


async def test_a_feed_has_no_items_of_its_own(news: Channel) -> None:
    feed = Feed(news, False, None)
    assert [item async for item in feed] == []
    assert feed.encode("x") == feed.take() == feed.end() == b""
    await feed.aclose()


async def test_a_failure_is_told_in_the_stream(clock: Clock, serving: Serving, hub: Hub, store: Staged) -> None:
    """A run that is not there any more when its reader has to be looked up."""

    async def numbers() -> AsyncIterator[int]:
        yield 1
        await asyncio.Event().wait()

    run = await hub.run(numbers(), "job")
    served = await serving(run.subscribe())
    reader = await Subscriber.of(served)
    await reader.take(1)
    await ready(run.channel)
    await store.remove("run/job")
    store._followers["run/job"]([Entry(Id(5, 50), None, "1")])
    rest = in_background(reader.until_end())
    await clock.advance(2)  # for which a connection that is cut lets its client read
    (told,) = await rest
    assert (told.event, told.data["status"]) == ("stream-error", 404)
    assert not reader.ended
