"""A channel: what may be published, who hears of it, and in what order."""

from __future__ import annotations

import asyncio
import json
import random
from typing import Any

import pytest
from support import Clock, Failures, in_background, settle, until
from unsteady import Staged, Unsteady, away, hub_of

from rawstream import Event, Hub
from rawstream.channels import Channel
from rawstream.channels.channel import EVENT, HEARTBEAT, TTL
from rawstream.channels.cursor import PAGE
from rawstream.channels.log import START, Entry, Id, Store
from rawstream.channels.slices import SLICE, Slices
from rawstream.channels.tail import Tail
from rawstream.errors import ChannelEnded, EventError, EventTooLarge, ItemError, NotFound, StoreUnavailable

pytestmark = pytest.mark.usefixtures("orderly")


class Listener:
    """A member of a channel that writes down what it is told."""

    def __init__(self, name: str = "", heard: list[str] | None = None) -> None:
        self.name = name
        self.heard: list[str] = [] if heard is None else heard
        self.tail: Tail | None = None

    async def join(self, channel: Channel, subscriber: bool = True) -> Listener:
        self.tail = await channel.join(self, subscriber)
        return self

    def advance(self) -> None:
        assert self.tail is not None
        self.heard.append(f"{self.name}{self.tail.last.n}")

    def beat(self) -> None:
        self.heard.append(f"{self.name}beat")

    def doubt(self) -> None:
        self.heard.append(f"{self.name}doubt")

    def finish(self) -> None:
        self.heard.append(f"{self.name}finish")


async def held(store: Store, name: str = "news") -> list[Entry]:
    return await store.read(name, START, 10_000)


# -- publishing ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", ["text", "", "two\nlines", 7, 1.5, None, True, [1, {"a": "这"}], {}], ids=repr)
async def test_what_is_published_is_in_the_log_as_json(store: Staged, news: Channel, data: Any) -> None:
    id = await news.publish(data)
    (entry,) = await held(store)
    assert str(entry.id) == id
    assert entry.event is None
    assert json.loads(entry.data) == data
    assert "\n" not in entry.data


async def test_an_event_may_have_a_name(store: Staged, news: Channel) -> None:
    await news.publish(1, event="tick")
    await news.publish(2, "名")
    assert [entry.event for entry in await held(store)] == ["tick", "名"]


async def test_ids_are_numbered_without_holes(news: Channel) -> None:
    ids = [Id.parse(await news.publish(n)) for n in range(5)]
    assert [id.n for id in ids] == [1, 2, 3, 4, 5]
    assert ids == sorted(ids)


@pytest.mark.parametrize("data", [object(), b"bytes", float("nan"), {1: object()}, "\ud800", 10**5000], ids=type)
async def test_what_json_cannot_hold_is_refused(store: Staged, news: Channel, data: Any) -> None:
    with pytest.raises(ItemError):
        await news.publish(data)
    assert await held(store) == []


@pytest.mark.parametrize("event", ["stream-", "stream-end", "a\nb", "a\r", 7, "x" * 257], ids=repr)
async def test_a_name_that_cannot_be_is_refused(store: Staged, news: Channel, event: Any) -> None:
    with pytest.raises(EventError):
        await news.publish(1, event)
    assert await held(store) == []


async def test_an_event_is_not_published_as_one(store: Staged, news: Channel) -> None:
    """It may have an id, and the log gives its own."""
    with pytest.raises(ItemError):
        await news.publish(Event("x", None, "5-7"))
    assert await held(store) == []


async def test_a_name_that_utf_8_cannot_carry_is_refused(store: Staged, news: Channel) -> None:
    """It could not be sent to anybody, and would be in the log for ever."""
    with pytest.raises((EventError, ItemError)):
        await news.publish(1, "\ud800")
    assert await held(store) == []


@pytest.mark.parametrize("key", ["", "x" * 257, 7, b"key", "\ud800"], ids=ascii)
async def test_a_key_that_cannot_be_is_refused(store: Staged, news: Channel, key: Any) -> None:
    with pytest.raises(EventError, match="a key is"):
        await news.publish(1, key=key)
    assert await held(store) == []


async def test_a_key_is_published_once(store: Staged, news: Channel) -> None:
    first = await news.publish(1, key="k")
    assert await news.publish(2, key="k") == first
    assert await news.publish(3, key="x" * 256) != first
    assert [entry.data for entry in await held(store)] == ["1", "3"]


async def test_an_event_has_a_largest_size(news: Channel) -> None:
    await news.publish("x" * (EVENT - 3))  # and two quotes, and the line's end
    with pytest.raises(EventTooLarge) as raised:
        await news.publish("x" * EVENT)
    assert raised.value.status == 413


async def test_a_size_is_counted_in_bytes_and_chosen_by_the_hub() -> None:
    async with Hub(event_size=20) as hub:
        await hub.channel("news").publish("这" * 5)
        with pytest.raises(EventTooLarge):
            await hub.channel("news").publish("这" * 7)


async def test_a_store_that_cannot_be_reached_is_told() -> None:
    store = Staged()
    async with hub_of(store) as hub:
        await store.close()
        with pytest.raises(StoreUnavailable):
            await hub.channel("news").publish(1)


# -- the end ---------------------------------------------------------------------------------------------------------


async def test_a_closed_channel_takes_nothing_more(store: Staged, news: Channel) -> None:
    await news.publish(1)
    await news.close()
    with pytest.raises(ChannelEnded) as raised:
        await news.publish(2)
    assert raised.value.status == 409
    await news.close()
    assert [(entry.event, entry.data) for entry in await held(store)] == [(None, "1"), ("stream-end", "{}")]


async def test_a_closed_channel_can_be_read_for_an_hour(hub: Hub) -> None:
    now = 1_700_000_000.0
    hub._store._now = lambda: now  # type: ignore[attr-defined]
    news = hub.channel("news")
    await news.publish(1)
    await news.close()
    now += TTL - 1
    state = await news.state()
    assert state is not None
    assert (state.ended, state.entries) == (True, 2)
    now += 2
    assert await news.state() is None
    assert Id.parse(await news.publish("anew")).n == 1


async def test_a_channel_that_nothing_was_published_to_has_no_state(news: Channel) -> None:
    assert await news.state() is None
    await news.close()
    assert await news.state() is None
    await news.publish(1)
    state = await news.state()
    assert state is not None
    assert (state.entries, state.ended) == (1, False)


# -- members ---------------------------------------------------------------------------------------------------------


async def test_all_members_are_told_on_the_spot(news: Channel) -> None:
    listener = await Listener().join(news)
    await news.publish(1)
    await news.publish(2)
    assert listener.heard == ["1", "2"]
    news.leave(listener)


async def test_all_are_told_in_the_order_of_their_coming(news: Channel) -> None:
    heard: list[str] = []
    listeners = [await Listener(name, heard).join(news) for name in "abc"]
    await news.publish(1)
    assert heard == ["a1", "b1", "c1"]
    for listener in listeners:
        news.leave(listener)


async def test_subscribers_are_counted_once_and_others_not(news: Channel) -> None:
    one = await Listener().join(news)
    await one.join(news)
    owner = await Listener().join(news, subscriber=False)
    assert news.subscribers == 1
    news.leave(owner)
    assert news.subscribers == 1
    news.leave(one)
    news.leave(one)
    assert news.subscribers == 0
    assert not news._members


async def test_a_channel_is_followed_while_it_has_members(store: Staged, news: Channel) -> None:
    one, two = await Listener().join(news), await Listener().join(news)
    assert store.calls["follow"] == 1
    news.leave(one)
    assert "news" in store._followers
    news.leave(two)
    assert "news" not in store._followers
    await news.publish(1)
    assert one.heard == two.heard == []
    three = await Listener().join(news)
    assert store.calls["follow"] == 2
    await news.publish(2)
    assert three.heard == ["2"]
    news.leave(three)


async def test_those_who_come_together_are_followed_for_once(store: Staged, news: Channel) -> None:
    store.before("follow", lambda: asyncio.sleep(0))
    listeners = await asyncio.gather(*(Listener().join(news) for _ in range(10)))
    assert store.calls["follow"] == 1
    assert len({id(listener.tail) for listener in listeners}) == 1
    for listener in listeners:
        news.leave(listener)


async def test_what_is_delivered_while_it_joins_is_in_its_tail(store: Staged, news: Channel) -> None:
    await news.publish(1)
    store.after("follow", lambda: news.publish(2))
    listener = await Listener().join(news)
    assert listener.tail is not None
    assert [entry.data for entry in listener.tail.after(1)] == ["2"]
    news.leave(listener)


async def test_what_is_delivered_and_counted_twice_is_there_once(store: Staged, news: Channel) -> None:
    """A store may deliver an entry that it says was the last before it began to."""
    follow = store.follow

    async def early(name: str, deliver: Any) -> Id:
        await follow(name, deliver)
        await news.publish(1)
        await news.publish(2)
        return (await held(store))[0].id

    store.follow = early  # type: ignore[method-assign]
    listener = await Listener().join(news)
    assert listener.tail is not None
    assert [entry.data for entry in listener.tail.after(1)] == ["2"]
    assert "doubt" not in listener.heard
    news.leave(listener)


async def test_a_store_that_cannot_be_followed_is_asked_by_the_next(store: Staged, news: Channel) -> None:
    store.before("follow", away)
    one, two = Listener(), Listener()
    with pytest.raises(StoreUnavailable):
        await one.join(news)
    assert "news" not in store._followers
    await two.join(news)
    await one.join(news)
    assert news.subscribers == 2
    news.leave(one)
    news.leave(two)
    assert news.subscribers == 0


async def test_who_is_cancelled_while_it_joins_lets_the_others_join(store: Staged, news: Channel) -> None:
    never = asyncio.Event()
    store.after("follow", never.wait)
    one, two = Listener(), Listener()
    joining = [in_background(listener.join(news)) for listener in (one, two)]
    await until(lambda: store.calls["follow"] == 1)
    joining[0].cancel()
    with pytest.raises(asyncio.CancelledError):
        await joining[0]
    news.leave(one)
    await joining[1]
    assert store.calls["follow"] == 2
    await news.publish(1)
    assert two.heard == ["1"]
    news.leave(two)


async def test_a_hole_in_what_is_delivered_makes_all_members_doubt(store: Staged, news: Channel) -> None:
    await news.publish(1)
    listener = await Listener().join(news)
    await store.remove("news")
    await news.publish("anew")
    assert listener.heard == ["doubt", "1"]
    news.leave(listener)


async def test_all_members_are_let_go_when_the_hub_closes(store: Staged) -> None:
    hub = hub_of(store)
    news = hub.channel("news")
    listeners = [await Listener().join(news) for _ in range(3)]
    await hub.close()
    assert [listener.heard for listener in listeners] == [["finish"]] * 3
    for listener in listeners:
        news.leave(listener)


# -- fan-out in slices -----------------------------------------------------------------------------------------------


async def test_a_member_that_fails_is_let_go_and_the_others_are_told(failures: Failures, news: Channel) -> None:
    heard: list[str] = []
    listeners = [await Listener(name, heard).join(news) for name in "abc"]
    listeners[1].tail = None
    await news.publish(1)
    assert heard == ["a1", "bfinish", "c1"]
    (record,) = failures.records
    assert "news" in record.getMessage()
    failures.records.clear()
    for listener in listeners:
        news.leave(listener)


class Slow(Listener):
    """A member to whom a write takes as long as a slice, by the hub's clock."""

    now = 0.0

    def advance(self) -> None:
        super().advance()
        Slow.now += SLICE


@pytest.fixture
def slow(hub: Hub) -> None:
    Slow.now = 0.0
    hub.slices = Slices(lambda: Slow.now)


async def test_a_long_fan_out_lets_the_loop_turn(slow: None, news: Channel) -> None:
    heard: list[str] = []
    listeners = [await Slow(f"{n}:", heard).join(news) for n in range(40)]
    await news.publish(1)
    assert 0 < len(heard) < 40
    asyncio.get_running_loop().call_soon(heard.append, "other")
    await settle()
    await settle()
    await settle()
    await settle()
    assert heard.index("other") < 39
    assert [each for each in heard if each != "other"] == [f"{n}:1" for n in range(40)]
    for listener in listeners:
        news.leave(listener)


async def test_publishing_in_a_loop_lets_the_readers_keep_up(slow: None, news: Channel) -> None:
    """Each `publish` lets one slice of the pending fan-out happen."""
    listeners = [await Slow().join(news) for _ in range(40)]
    turns = 0

    def turn() -> None:
        nonlocal turns
        turns += 1
        asyncio.get_running_loop().call_soon(turn) if turns < 1000 else None

    turn()
    for n in range(20):
        before = turns
        await news.publish(n)
        assert turns > before or n == 0
    await until(lambda: all(listener.heard[-1:] == ["20"] for listener in listeners))
    for listener in listeners:
        news.leave(listener)


async def test_what_comes_while_a_fan_out_is_under_way_is_told_after_it(slow: None, news: Channel) -> None:
    listeners = [await Slow().join(news) for _ in range(40)]
    await news.publish(1)
    await news.publish(2)
    await until(lambda: all(listener.heard[-1:] == ["2"] for listener in listeners))
    for listener in listeners:
        news.leave(listener)


async def test_who_comes_when_all_others_have_left_a_fan_out_is_told(slow: None, news: Channel) -> None:
    listeners = [await Slow().join(news) for _ in range(40)]
    await news.publish(1)
    for listener in listeners:
        news.leave(listener)
    one = await Listener().join(news)
    await news.publish(2)
    await settle()
    assert one.heard == ["2"]
    news.leave(one)


async def test_two_channels_have_their_slices_in_turn(slow: None, hub: Hub) -> None:
    heard: list[str] = []
    a, b = hub.channel("a"), hub.channel("b")
    members = [(channel, await Slow(channel.name, heard).join(channel)) for channel in (a, b) for _ in range(60)]
    await a.publish(1)
    await b.publish(1)
    await until(lambda: len(heard) == 120)
    assert heard != ["a1"] * 60 + ["b1"] * 60
    assert heard.index("b1") < 60
    for channel, member in members:
        channel.leave(member)


# -- heartbeats ------------------------------------------------------------------------------------------------------


async def test_members_hear_a_beat_in_silence(clock: Clock, news: Channel) -> None:
    listener = await Listener().join(news)
    await clock.advance(HEARTBEAT - 1)
    assert listener.heard == []
    await clock.advance(1)
    assert listener.heard == ["beat"]
    await clock.advance(HEARTBEAT)
    assert listener.heard == ["beat", "beat"]
    news.leave(listener)
    await clock.advance(2 * HEARTBEAT)
    assert listener.heard == ["beat", "beat"]


async def test_an_event_puts_off_the_beat(clock: Clock, news: Channel) -> None:
    listener = await Listener().join(news)
    await clock.advance(HEARTBEAT - 1)
    await news.publish(1)
    await clock.advance(HEARTBEAT - 1)
    assert listener.heard == ["1"]
    await clock.advance(1)
    assert listener.heard == ["1", "beat"]
    news.leave(listener)


# -- where readers go on ---------------------------------------------------------------------------------------------


async def test_a_page_of_the_log_is_what_comes_next(news: Channel) -> None:
    ids = [Id.parse(await news.publish(n)) for n in range(PAGE + 5)]
    assert [entry.id for entry in await news.page(ids[1])] == ids[2 : PAGE + 2]
    assert await news.page(ids[-1]) == []


async def test_a_reader_that_has_seen_nothing_may_be_given_some(news: Channel) -> None:
    ids = [Id.parse(await news.publish(n)) for n in range(5)]
    assert (await news.locate(None)).id == ids[-1]
    assert (await news.locate(2)).id == ids[2]
    assert (await news.locate("earliest")).id.n == 0
    assert (await news.locate(ids[1])).id == ids[1]


@pytest.mark.parametrize("after", [None, "earliest", Id(1, 1), Id(5, 99)])
async def test_of_the_latest_everybody_gets_the_newest(hub: Hub, after: Any) -> None:
    price = hub.channel("price", behind="latest")
    for n in range(5):
        await price.publish(n)
    place = await price.locate(after)
    assert (place.id.n, place.gap, place.over) == (4, None, False)


async def test_of_the_latest_who_has_seen_the_newest_gets_what_comes(hub: Hub) -> None:
    price = hub.channel("price", behind="latest")
    id = Id.parse(await price.publish(1))
    assert (await price.locate(id)).id == id
    await price.close()
    state = await price.state()
    assert state is not None
    assert (await price.locate(state.last)).over


# -- runs ------------------------------------------------------------------------------------------------------------


async def test_what_a_run_needs_is_done_while_it_has_readers(hub: Hub) -> None:
    attended: list[str] = []

    async def attend(store: Store, channel: Channel) -> None:
        attended.append(channel.log)
        try:
            await asyncio.Event().wait()
        finally:
            attended.append("over")

    job = Channel(hub, "job", attend=attend)
    assert job.log == "run/job"
    one, two = await Listener().join(job), await Listener().join(job)
    await settle()
    assert attended == ["run/job"]
    job.leave(one)
    await settle()
    assert attended == ["run/job"]
    job.leave(two)
    await settle()
    assert attended == ["run/job", "over"]


async def test_a_run_that_is_not_there_is_not_found(hub: Hub) -> None:
    async def attend(store: Store, channel: Channel) -> None: ...

    with pytest.raises(NotFound):
        await Channel(hub, "job", attend=attend).locate(None)


async def test_a_run_s_owner_is_told_of_its_first_reader_and_its_last(news: Channel) -> None:
    told: list[int] = []
    owner = await Listener().join(news, subscriber=False)
    news.read_by = told.append
    one, two = await Listener().join(news), await Listener().join(news)
    news.leave(one)
    news.leave(two)
    await one.join(news)
    news.leave(one)
    assert told == [1, 0, 1, 0]
    news.leave(owner)


# -- a store that is far away ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
async def test_members_that_come_and_go_leave_nothing_behind(seed: int) -> None:

    dice = random.Random(seed)
    store = Unsteady(dice, failures=0.1)
    async with hub_of(store) as hub:
        news = hub.channel("news")

        async def visit() -> None:
            for _ in range(10):
                listener = Listener()
                try:
                    async with asyncio.timeout(0 if dice.random() < 0.2 else None):
                        await listener.join(news)
                        for _ in range(dice.randrange(5)):
                            await asyncio.sleep(0)
                except (StoreUnavailable, TimeoutError):
                    pass
                finally:
                    news.leave(listener)

        await asyncio.gather(*(visit() for _ in range(8)))
        assert news.subscribers == 0
        assert not news._members
        assert not store._followers
