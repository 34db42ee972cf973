"""Readers in Python: each event once and in order, or the word that it is missing."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, cast

import pytest
from support import Failures, Serving, get, in_background, settle, until
from unsteady import Staged, Unsteady, away, hub_of

from rawstream import Hub, Request
from rawstream.channels import Channel
from rawstream.channels.log import Id
from rawstream.channels.tail import ENTRIES
from rawstream.errors import BadEventId, LocalError, StoreUnavailable, Unavailable
from rawstream.sse import Event

pytestmark = [pytest.mark.usefixtures("orderly"), pytest.mark.either_loop]


@pytest.fixture
async def hub() -> AsyncIterator[Hub]:
    async with Hub() as hub:
        yield hub
        await settle()


@pytest.fixture
async def news(hub: Hub) -> Channel:
    return hub.channel("news")


async def published(channel: Channel, *data: Any) -> list[str]:
    return [await channel.publish(each) for each in data]


async def take(reader: AsyncIterator[Event], count: int) -> list[Event]:
    return [await anext(reader) for _ in range(count)]


async def datas(reader: AsyncIterator[Event]) -> list[Any]:
    return [event.data async for event in reader]


async def closed(reader: AsyncIterator[Event]) -> None:
    await cast(AsyncGenerator[Event, None], reader).aclose()


async def begun(channel: Channel, reader: AsyncIterator[Event]) -> asyncio.Task[Event]:
    """A reader that waits for its first event."""
    readers = channel.subscribers

    async def first() -> Event:
        return await anext(reader)

    task = in_background(first())
    await until(lambda: channel.subscribers == readers + 1)
    await settle()
    return task


# -- what it reads ---------------------------------------------------------------------------------------------------


async def test_a_reader_gets_what_comes_next(news: Channel) -> None:
    await news.publish("before")
    reader = news.read()
    first = await begun(news, reader)
    id = await news.publish({"a": [1]}, event="tick")
    assert await first == Event({"a": [1]}, "tick", id)
    id = await news.publish("text")
    assert await anext(reader) == Event("text", None, id)
    await closed(reader)


async def test_a_reader_gets_all_that_is_held_and_then_what_comes(news: Channel) -> None:
    ids = await published(news, 0, 1, 2)
    reader = news.read("earliest")
    assert await take(reader, 3) == [Event(n, None, id) for n, id in enumerate(ids)]
    ids += await published(news, 3)
    assert await anext(reader) == Event(3, None, ids[3])
    await closed(reader)


async def test_a_reader_goes_on_after_what_it_has_seen(news: Channel) -> None:
    ids = await published(news, *range(5))
    await news.close()
    assert await datas(news.read(ids[2])) == [3, 4, {}]
    assert await datas(news.read(Id.parse(ids[2]))) == [3, 4, {}]


async def test_a_reader_ends_with_its_channel(news: Channel) -> None:
    reader = news.read()
    first = await begun(news, reader)
    await news.publish(1)
    await news.close()
    assert (await first).data == 1
    last = await anext(reader)
    assert (last.event, last.data) == ("stream-end", {})
    assert [event async for event in reader] == []
    assert news.subscribers == 0
    assert await datas(news.read(last.id)) == [], "and who has seen the end needs nothing more"
    assert await datas(news.read()) == [{}], "but who comes later gets it"


@pytest.mark.parametrize("after", ["5", "stream-end", ""])
async def test_a_malformed_id_is_refused_at_once(news: Channel, after: str) -> None:
    with pytest.raises(BadEventId):
        news.read(after)


async def test_what_is_no_id_is_refused_at_once(news: Channel) -> None:
    with pytest.raises(LocalError):
        news.read(5)


async def test_two_readers_get_the_same(news: Channel) -> None:
    readers = [news.read() for _ in range(2)]
    firsts = [await begun(news, reader) for reader in readers]
    await published(news, 1, 2)
    await news.close()
    for first, reader in zip(firsts, readers, strict=True):
        assert [(await first).data, *await datas(reader)] == [1, 2, {}]


async def test_a_log_longer_than_a_page_is_read_through(news: Channel) -> None:
    await published(news, *range(450))
    await news.close()
    assert await datas(news.read("earliest")) == [*range(450), {}]


# -- leaving ---------------------------------------------------------------------------------------------------------


async def test_a_reader_counts_while_it_reads(news: Channel) -> None:
    await news.publish(1)
    reader = news.read("earliest")
    assert news.subscribers == 0
    await anext(reader)
    assert news.subscribers == 1
    await closed(reader)
    assert news.subscribers == 0
    assert not news._members


async def test_break_leaves_the_channel(news: Channel) -> None:
    await published(news, 1, 2)
    async for event in news.read("earliest"):
        assert event.data == 1
        break
    await settle()
    assert news.subscribers == 0
    assert not news._members


async def test_a_cancelled_reader_leaves_the_channel(news: Channel) -> None:
    task = await begun(news, news.read())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert news.subscribers == 0


async def test_a_reader_that_is_cancelled_while_it_joins_leaves_the_channel() -> None:
    store, never = Staged(), asyncio.Event()
    store.before("follow", never.wait)
    async with hub_of(store) as hub:
        news = hub.channel("news")
        task = await begun(news, news.read())
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert news.subscribers == 0


async def test_a_reader_whose_hub_closes_is_told_that_this_is_not_the_end(hub: Hub, news: Channel) -> None:
    """And it is no failure of the store: who tries again after such would open the hub again."""
    waiting = await begun(news, news.read())
    await hub.close()
    with pytest.raises(Unavailable, match="the hub was closed") as raised:
        await waiting
    assert not isinstance(raised.value, StoreUnavailable)
    assert raised.value.status == 503
    assert news.subscribers == 0


async def test_what_a_reader_was_about_to_take_comes_before_the_word_that_the_hub_was_closed(
    hub: Hub, news: Channel
) -> None:
    await published(news, 1, 2)
    reader = news.read("earliest")
    assert (await anext(reader)).data == 1
    await hub.close()
    assert (await anext(reader)).data == 2
    with pytest.raises(Unavailable):
        await anext(reader)
    assert news.subscribers == 0


async def test_what_is_made_of_a_channel_is_not_told_as_complete_when_the_hub_closes(
    hub: Hub, news: Channel, serving: Serving, failures: Failures
) -> None:
    """An EventSource would never come back after `stream-end`."""

    async def shout(request: Request) -> AsyncIterator[Any]:
        async for event in news.read():
            yield event.data.upper()

    served = await serving(shout)
    peer = await served.ask(get("/", "text/event-stream"))
    await peer.head()
    await until(lambda: news.subscribers == 1)
    await news.publish("text")
    assert b"data: TEXT\n\n" in await peer.until(b"TEXT\n\n")
    await hub.close()
    assert b"event: stream-error\n" in await peer.until(b"503")
    failures.records.clear()


# -- a slow reader ---------------------------------------------------------------------------------------------------


async def test_a_reader_that_takes_its_time_goes_on_from_the_log(news: Channel) -> None:
    reader = news.read()
    first = await begun(news, reader)
    await news.publish(0)
    assert (await first).data == 0
    await published(news, *range(1, 2 * ENTRIES))
    await news.close()
    assert await datas(reader) == [*range(1, 2 * ENTRIES), {}]


async def test_a_reader_that_falls_behind_the_log_is_told_how_far() -> None:
    async with Hub("memory:?entries=10") as hub:
        news = hub.channel("news")
        reader = news.read()
        first = await begun(news, reader)
        ids = await published(news, 0)
        assert (await first).data == 0
        await published(news, *range(1, 2 * ENTRIES))
        gap = await anext(reader)
        missing = 2 * ENTRIES - 11
        assert (gap.event, gap.data) == ("stream-gap", {"missing": missing, "after": ids[0]})
        assert [event.data for event in await take(reader, 10)] == [*range(2 * ENTRIES - 10, 2 * ENTRIES)]
        await closed(reader)


async def test_a_reader_of_the_latest_skips_to_it(hub: Hub) -> None:
    price = hub.channel("price", behind="latest")
    await published(price, 1, 2, 3)
    reader = price.read()
    assert (await anext(reader)).data == 3, "who comes new gets the newest at once"
    await published(price, 4, 5, 6)
    assert (await anext(reader)).data == 6
    await closed(reader)


async def test_the_end_of_a_gap_is_where_a_reader_goes_on(news: Channel) -> None:
    reader = news.read("5-7")
    gap = await begun(news, reader)
    event = await gap
    assert (event.event, event.data, event.id) == ("stream-gap", {"missing": None, "after": "5-7"}, "0-0")
    await closed(reader)
    await news.publish(1)
    reader = news.read(event.id)
    assert (await anext(reader)).data == 1
    await closed(reader)


# -- a store that is not always there --------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["follow", "state", "read"])
async def test_a_store_that_cannot_be_reached_is_told_and_nothing_is_lost(method: str) -> None:
    store = Staged()
    async with hub_of(store) as hub:
        news = hub.channel("news")
        ids = await published(news, *range(5))
        store.before(method, away)
        with pytest.raises(StoreUnavailable):
            await anext(news.read(ids[1]))
        assert news.subscribers == 0
        assert not news._members
        reader = news.read(ids[1])
        assert [event.data for event in await take(reader, 3)] == [2, 3, 4]
        await closed(reader)


async def test_a_log_that_begins_anew_is_told_and_read_from_its_start() -> None:
    store = Staged()
    async with hub_of(store) as hub:
        news = hub.channel("news")
        await published(news, 0, 1, 2)
        reader = news.read("earliest")
        await take(reader, 3)
        await store.remove("news")
        await published(news, "a", "b", "c")
        assert (await anext(reader)).event == "stream-gap"
        assert [event.data for event in await take(reader, 3)] == ["a", "b", "c"]
        await closed(reader)


@pytest.mark.parametrize(("method", "calls_before"), [("state", 0), ("read", 0), ("read", 1)])
@pytest.mark.parametrize("moment", ["before", "after"])
async def test_a_log_that_begins_anew_while_it_is_read_is_told(method: str, calls_before: int, moment: str) -> None:
    """What was found in the old log does not count in the new one."""
    store = Staged()
    async with hub_of(store) as hub:
        news = hub.channel("news")
        ids = await published(news, *range(6))

        async def anew() -> None:
            await store.remove("news")
            await published(news, "a", "b", "c")

        reader = news.read(ids[3])
        getattr(store, moment)(method, *[lambda: None] * calls_before, anew)
        got = [event.data for event in await take(reader, 4)]
        if "a" not in got:
            got += [event.data for event in await take(reader, 2)]
        assert got[-3:] == ["a", "b", "c"]
        assert got[-4] == {"missing": None, "after": ids[5] if 5 in got else ids[3]}
        await closed(reader)


@pytest.mark.parametrize("seed", range(12))
async def test_far_away_and_unsteady_nothing_is_lost_without_a_word(seed: int) -> None:
    """Readers come, go on after failures, and see each event once and in order, or how many they missed."""
    asyncio.get_running_loop().set_debug(False)
    dice = random.Random(seed)
    total = 150
    store = Unsteady(dice, failures=0.03, losses=dice.choice([0.0, 0.2]), entries=dice.choice([20, 10_000]))
    async with hub_of(store) as hub:
        news = hub.channel("news")
        readers = [in_background(read_through(news, dice)) for _ in range(6)]
        for n in range(total):
            await publish_surely(news, n + 1)
            if dice.random() < 0.1:
                await asyncio.sleep(0)
        await end_surely(news)
        for seen in [await reader for reader in readers]:
            account(seen, total)
        assert news.subscribers == 0


async def publish_surely(channel: Channel, n: int) -> None:
    while True:
        try:
            await channel.publish(n, key=str(n))
        except StoreUnavailable:
            continue
        return


async def end_surely(channel: Channel) -> None:
    while True:
        try:
            await channel.close()
        except StoreUnavailable:
            continue
        return


async def read_through(channel: Channel, dice: random.Random) -> list[Event]:
    """All that a reader sees which begins at some time, and now and then comes back."""
    for _ in range(dice.randrange(200)):
        await asyncio.sleep(0)
    after = dice.choice([None, "earliest"])
    seen: list[Event] = []
    while not (seen and seen[-1].event == "stream-end"):
        reader = channel.read(after)
        try:
            async for event in reader:
                seen.append(event)
                after = event.id
                if dice.random() < 0.05:
                    break
                for _ in range(dice.choice([0, 0, 0, 30])):
                    await asyncio.sleep(0)
        except StoreUnavailable:
            pass
        await closed(reader)
    return seen


def account(seen: list[Event], total: int) -> None:
    """Each event is the next one, or those between them were told to be missing."""
    number: int | None = None
    for event in seen:
        assert event.id is not None
        if event.event == "stream-gap":
            number = Id.parse(event.data["after"]).n if number is None else number
            assert event.data["missing"] > 0
            number += event.data["missing"]
            assert number == Id.parse(event.id).n
            continue
        number = Id.parse(event.id).n if number is None else number + 1
        assert Id.parse(event.id).n == number
        assert event.data == (number if number <= total else {})
    assert number == total + 1, "the end"
