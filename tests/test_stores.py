"""The contract of a store, sentence by sentence, held against each of them, and each against a plain model."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stores import KINDS, LONG, Heard, Model, Stores, appended, everything, in_memory, state
from support import in_background

from rawstream.channels.log import END, ERROR, KEY_SECONDS, ORPHAN_SECONDS, START, Entry, Id, Retention, State, Store
from rawstream.errors import ChannelEnded, StoreUnavailable

pytestmark = pytest.mark.either_loop


@pytest.fixture(params=KINDS)
async def stores(request: pytest.FixtureRequest, orderly: None) -> AsyncIterator[Stores]:
    """Stores of one kind. When they are closed, none has left a thread behind (and `orderly` finds tasks)."""
    threads = {*threading.enumerate()}
    redis = request.getfixturevalue("redis_server").url if request.param == "redis" else ""
    with in_memory() as directory:
        stores = Stores(request.param, directory, redis)
        yield stores
        await stores.end()
    assert {*threading.enumerate()} <= threads


@pytest.fixture
async def store(stores: Stores) -> Store:
    """An empty one."""
    return await stores.open()


def numbers(entries: list[Entry]) -> list[int]:
    return [entry.id.n for entry in entries]


# -- ids -------------------------------------------------------------------------------------------------------------


async def test_an_id_has_the_time_and_counts_from_one(stores: Stores, store: Store) -> None:
    start = stores.clock.ms
    assert await store.append("a", "1") == Id(start, 1)
    stores.clock.now += 2.5
    assert await store.append("a", "2") == Id(start + 2500, 2)
    stores.clock.now += 0.0009
    assert await store.append("a", "3") == Id(start + 2500, 3)


async def test_each_log_counts_its_own(stores: Stores, store: Store) -> None:
    await appended(store, "a", "1", "2")
    assert await store.append("b", "1") == Id(stores.clock.ms, 1)
    assert await store.append("a", "3") == Id(stores.clock.ms, 3)


async def test_ids_grow_while_the_clock_stands_still(stores: Stores, store: Store) -> None:
    entries = await appended(store, "a", *"12345")
    assert [entry.id for entry in entries] == [Id(stores.clock.ms, n) for n in range(1, 6)]


async def test_the_time_of_an_id_never_falls(stores: Stores, store: Store) -> None:
    first = await store.append("a", "1")
    stores.clock.now -= 3600
    assert await store.append("a", "2") == Id(first.ms, 2)
    stores.clock.now += 3600.5
    assert await store.append("a", "3") == Id(first.ms + 500, 3)


async def test_appends_at_once_are_numbered_without_holes(store: Store) -> None:
    ids = await asyncio.gather(*(store.append("a", str(number)) for number in range(50)))
    assert sorted(each.n for each in ids) == [*range(1, 51)]
    entries = await everything(store, "a")
    assert numbers(entries) == [*range(1, 51)]
    assert {entry.id: entry.data for entry in entries} == {each: str(number) for number, each in enumerate(ids)}


async def test_appends_at_once_to_many_logs_are_numbered_in_each(store: Store) -> None:
    await asyncio.gather(*(store.append(f"log{number % 5}", "0") for number in range(50)))
    for number in range(5):
        assert numbers(await everything(store, f"log{number}")) == [*range(1, 11)]


# -- read ------------------------------------------------------------------------------------------------------------


async def test_entries_are_read_as_they_were_appended(store: Store) -> None:
    first = await store.append("a", '{"x": 1}', "news")
    second = await store.append("a", "2")
    assert await everything(store, "a") == [Entry(first, "news", '{"x": 1}'), Entry(second, None, "2")]


async def test_a_read_begins_after_its_cursor_and_ends_at_its_limit(store: Store) -> None:
    entries = await appended(store, "a", *"123456789")
    for index, entry in enumerate(entries, 1):
        assert await store.read("a", entry.id, 100) == entries[index:]
        assert await store.read("a", entry.id, 3) == entries[index : index + 3]
    assert await store.read("a", START, 1) == entries[:1]
    assert await store.read("a", START, 9) == entries


async def test_pages_make_up_the_log(stores: Stores, store: Store) -> None:
    entries = []
    for number in range(60):
        stores.clock.now += (number % 3) / 1000
        entries += await appended(store, "a", str(number))
    read: list[Entry] = []
    while page := await store.read("a", read[-1].id if read else START, 7):
        assert len(page) == min(7, 60 - len(read))
        read += page
    assert read == entries


async def test_a_log_that_is_not_there_has_no_entries_and_no_state(store: Store) -> None:
    assert await everything(store, "a") == []
    assert await store.state("a") is None
    assert await store.names() == [], "to look is not to make"


async def test_the_newest_are_read_in_their_order(store: Store) -> None:
    assert await store.newest("a", 1) == []
    entries = await appended(store, "a", *"12345")
    for count in (1, 2, 4, 5):
        assert await store.newest("a", count) == entries[-count:]
    assert await store.newest("a", 100) == entries
    await store.trim("a", entries[3].id)
    assert await store.newest("a", 3) == entries[3:]
    await store.trim("a", Id(entries[4].id.ms + 1, 0))
    assert await store.newest("a", 1) == []
    assert await store.names() == ["a"]


async def test_nothing_is_ahead_of_the_log(store: Store) -> None:
    last = (await appended(store, "a", "1", "2"))[-1].id
    for after in (last, Id(last.ms, last.n + 1), Id(last.ms + 1, 1), Id(999_999_999_999_999, 999_999_999_999_999)):
        assert await store.read("a", after, 10) == []


async def test_a_cursor_of_another_log_stands_where_its_time_does(stores: Stores, store: Store) -> None:
    """Ids are in the order of `ms`, then of `n`: so from a log that was before this one all of it is read."""
    entries = await appended(store, "a", "1", "2")
    stores.clock.now += 1
    entries += await appended(store, "a", "3", "4")
    early, late = entries[0].id.ms, entries[-1].id.ms
    cases = [
        (Id(early - 1, 3), 0), (Id(early - 1, 999_999), 0), (Id(1, 0), 0), (Id(0, 999_999_999_999_999), 0),
        (Id(early, 0), 0), (Id(early, 3), 2), (Id(early + 1, 1), 2), (Id(late - 1, 4), 2),
        (Id(late, 0), 2), (Id(late, 2), 2), (Id(late, 9), 4), (Id(late + 1, 0), 4),
    ]  # fmt: skip
    for after, count in cases:
        assert await store.read("a", after, 10) == entries[count:], after


TEXTS = [
    "", "null", '"é 这是 🎉"', "it's \"quoted\" \\ `; DROP TABLE entries; --", "a\0b", "\0", "line\nline\r\nline", "\r",
    "%s {} ?", " leading and trailing ", "\u2028\ufeff", "123", "é", "e\u0301", "K", "k",
]  # fmt: skip


async def test_any_text_comes_back_as_it_was(store: Store) -> None:
    """As data, as the name of an event, and as a key: no two of these are the same one."""
    entries = [Entry(await store.append("a", text, text, key=text), text, text) for text in TEXTS]
    assert numbers(entries) == [*range(1, len(TEXTS) + 1)]
    assert await everything(store, "a") == entries
    assert [await store.append("a", "again", key=text) for text in TEXTS] == [entry.id for entry in entries]


async def test_large_data_comes_back_whole(store: Store) -> None:
    data = json.dumps("é这" * 200_000, ensure_ascii=False)
    entries = await appended(store, "a", data, "1", data)
    assert await everything(store, "a") == entries


async def test_an_entry_of_an_empty_event_is_no_message(store: Store) -> None:
    await store.append("a", "1", "")
    await store.append("a", "2", None)
    assert [entry.event for entry in await everything(store, "a")] == ["", None]


# -- state, names, remove --------------------------------------------------------------------------------------------


async def test_a_state_tells_of_what_is_held(store: Store) -> None:
    entries = await appended(store, "a", "1", "2", "3")
    assert await store.state("a") == State(entries[0].id, entries[2].id, 3, first=entries[0].id.ms)


async def test_a_state_tells_the_time_of_the_first_entry_though_it_is_not_held(stores: Stores, store: Store) -> None:
    began = stores.clock.ms
    entries = await appended(store, "a", "1", "2")
    stores.clock.now += 5
    entries += await appended(store, "a", "3")
    assert (await state(store, "a")).first == began
    await store.trim("a", entries[2].id)
    assert await store.state("a") == State(entries[2].id, entries[2].id, 1, first=began)
    await store.remove("a")
    stores.clock.now += 5
    await appended(store, "a", "1")
    assert (await state(store, "a")).first == began + 10_000, "of this log, not of the one before"
    await store.begin("run", "token", LONG)
    assert (await state(store, "run")).first is None
    stores.clock.now += 5
    await store.end("run", END, "1", ttl=LONG)
    assert (await state(store, "run")).first == began + 15_000


async def test_names_are_sorted_and_each_is_there_once(store: Store) -> None:
    for name in ("b", "a", "é:这~-@.", "B", "a", "a.b", "b" * 128):
        await store.append(name, "1")
    await store.begin("run", "token", LONG)
    assert await store.names() == sorted(["b", "a", "é:这~-@.", "B", "a.b", "b" * 128, "run"])


async def test_a_removed_log_is_gone_and_its_name_begins_again(stores: Stores, store: Store) -> None:
    await store.append("a", "1", key="k")
    await store.attend("a")
    await store.append("b", "1")
    await store.remove("a")
    assert await store.state("a") is None
    assert await everything(store, "a") == []
    assert await store.names() == ["b"]
    again = await store.append("a", "2", key="k")
    assert again == Id(stores.clock.ms, 1)
    assert await everything(store, "a") == [Entry(again, None, "2")]
    assert await store.state("a") == State(again, again, 1, first=again.ms)


async def test_an_ended_run_that_is_removed_may_begin_again(store: Store) -> None:
    assert await store.begin("a", "first", LONG)
    assert await store.end("a", END, "1", ttl=LONG)
    await store.remove("a")
    assert await store.begin("a", "second", LONG)
    assert (await store.append("a", "1", token="second")).n == 1
    assert not (await state(store, "a")).ended


async def test_what_is_not_there_is_neither_removed_nor_trimmed(store: Store) -> None:
    await store.remove("a")
    await store.trim("a", Id(1, 1))
    await store.attend("a")
    assert await store.renew("a", "token", LONG) is None
    assert await store.names() == []


# -- retention -------------------------------------------------------------------------------------------------------


async def test_the_newest_entries_are_held(stores: Stores) -> None:
    """On Redis at least so many, and not many more: `MAXLEN ~` drops whole nodes, of a hundred entries each."""
    store = await stores.open(Retention(entries=3))
    entries = await appended(store, "a", *map(str, range(10 if stores.by_hand else 250)))
    held = await everything(store, "a")
    assert held == entries[-len(held) :]
    assert len(held) == 3 if stores.by_hand else 3 <= len(held) <= 203
    assert await store.state("a") == State(held[0].id, entries[-1].id, len(held), first=entries[0].id.ms)


async def test_as_many_bytes_are_held_as_may_be(stores: Stores) -> None:
    if not stores.by_hand:
        pytest.skip("Redis counts no bytes")
    store = await stores.open(Retention(bytes=10))
    entries = await appended(store, "a", "1234", "123", "123")
    assert await everything(store, "a") == entries
    entries += await appended(store, "a", "1")
    assert await everything(store, "a") == entries[1:]
    entries += await appended(store, "a", "这这")
    assert await everything(store, "a") == entries[2:], "a character is as long as its UTF-8"
    entries += await appended(store, "a", "x" * 11)
    assert await everything(store, "a") == entries[-1:], "the newest is held, however large it is"
    entries += await appended(store, "a", "12345", "12345")
    assert await everything(store, "a") == entries[-2:]


async def test_what_is_trimmed_frees_its_bytes(stores: Stores) -> None:
    store = await stores.open(Retention(bytes=10))
    entries = await appended(store, "a", "12345", "12345")
    await store.trim("a", entries[1].id)
    entries += await appended(store, "a", "12345")
    assert await everything(store, "a") == entries[1:]


async def test_entries_are_held_until_they_are_too_old(stores: Stores) -> None:
    if not stores.by_hand:
        pytest.skip("Redis trims by age now and then: see test_redis")
    store = await stores.open(Retention(age=10.0))
    entries = await appended(store, "a", "1")
    stores.clock.now += 4
    entries += await appended(store, "a", "2", "3")
    stores.clock.now += 4
    assert await everything(store, "a") == entries
    stores.clock.now += 4
    assert await store.newest("a", 9) == entries[1:], "also if nothing is appended"
    assert await everything(store, "a") == entries[1:]
    assert await store.state("a") == State(entries[1].id, entries[2].id, 2, first=entries[0].id.ms)
    stores.clock.now += 100
    newest = entries[2].id
    assert await store.state("a") == State(newest, newest, 1, first=entries[0].id.ms), "the newest is held"
    assert await everything(store, "a") == entries[2:]
    entries += await appended(store, "a", "4")
    assert await everything(store, "a") == entries[3:]


async def test_an_end_is_held_like_any_other_entry(stores: Stores) -> None:
    store = await stores.open(Retention(entries=1))
    await store.append("a", "1")
    await store.end("a", END, "2", ttl=LONG)
    assert (await everything(store, "a"))[-1].ends


async def test_entries_before_an_id_are_trimmed(store: Store) -> None:
    entries = await appended(store, "a", *"12345")
    await store.trim("a", entries[2].id)
    assert await everything(store, "a") == entries[2:]
    assert await store.read("a", entries[0].id, 1) == entries[2:3]
    assert await store.state("a") == State(entries[2].id, entries[4].id, 3, first=entries[0].id.ms)
    for before in (START, entries[1].id, Id(entries[2].id.ms - 1, 999)):
        await store.trim("a", before)
    assert await everything(store, "a") == entries[2:]


async def test_a_log_that_is_trimmed_to_nothing_goes_on_with_its_numbers(stores: Stores, store: Store) -> None:
    last = (await appended(store, "a", "1", "2"))[-1].id
    await store.trim("a", Id(last.ms, last.n + 1))
    assert await everything(store, "a") == []
    assert await store.state("a") == State(None, last, 0, first=last.ms)
    assert await store.names() == ["a"]
    entries = await appended(store, "a", "3")
    assert await everything(store, "a") == entries
    assert (await state(store, "a")).last == Id(stores.clock.ms, 3)


async def test_a_trimmed_end_is_an_end(store: Store) -> None:
    await store.append("a", "1")
    await store.end("a", END, "2", ttl=LONG)
    last = (await state(store, "a")).last
    await store.trim("a", Id(last.ms + 1, 0))
    assert await store.state("a") == State(None, last, 0, ended=True, first=last.ms)
    with pytest.raises(ChannelEnded):
        await store.append("a", "3")


# -- keys ------------------------------------------------------------------------------------------------------------


async def test_a_repeated_key_returns_the_first_id_and_appends_nothing(stores: Stores, store: Store) -> None:
    first = await store.append("a", "1", key="k")
    await store.append("a", "2")
    stores.clock.now += 1
    assert await store.append("a", "3", "other", key="k") == first
    assert [entry.data for entry in await everything(store, "a")] == ["1", "2"]
    assert (await store.append("a", "4")).n == 3


async def test_a_key_is_known_to_its_log_alone(store: Store) -> None:
    await store.append("a", "1", key="k")
    assert (await store.append("b", "2", key="k")).n == 1
    assert (await store.append("a", "3", key="K")).n == 2
    assert (await store.append("a", "4", key="")).n == 3
    assert (await store.append("a", "5", key="")).n == 3
    assert (await store.append("a", "6")).n == 4


async def test_names_and_keys_do_not_run_into_each_other(store: Store) -> None:
    pairs = [("a", "b:c"), ("a:b", "c"), ("a:b:c", ""), ("a", ":b:c"), ("a:", "b:c"), ("a", "a"), ("a:a", "a")]
    for name, key in pairs:
        data = f"{name} {key}"
        entry = Entry(await store.append(name, data, key=key), None, data)
        assert (await everything(store, name))[-1] == entry
        assert (await store.append(name, "again", key=key)) == entry.id
    assert await store.names() == sorted({name for name, _ in pairs})
    await store.remove("a")
    assert await store.names() == sorted({name for name, _ in pairs} - {"a"})
    assert numbers(await everything(store, "a:b")) == [1]


async def test_one_key_at_once_appends_once(store: Store) -> None:
    ids = await asyncio.gather(*(store.append("a", str(number), key="k") for number in range(50)))
    assert {*ids} == {entry.id for entry in await everything(store, "a")}
    assert len({*ids}) == 1


async def test_a_key_is_remembered_for_its_time(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = KEY_SECONDS if stores.by_hand else stores.short
    monkeypatch.setattr(stores.module(), "KEY_SECONDS", seconds)
    store = await stores.open()
    await store.append("a", "1", key="k")
    if stores.by_hand:
        await stores.passes(seconds - 1)
        assert (await store.append("a", "2", key="k")).n == 1
        await stores.passes(2)
    else:
        await stores.passes(seconds * 2)
    assert (await store.append("a", "3", key="k")).n == 2, "its time began with its first use"
    if stores.by_hand:
        assert (await store.append("a", "4", key="k")).n == 2, "and begins again"


async def test_a_key_is_remembered_longer_than_its_entry(stores: Stores, store: Store) -> None:
    first = await store.append("a", "1", key="k")
    await store.trim("a", Id(first.ms, 2))
    assert await store.append("a", "2", key="k") == first


async def test_a_key_is_remembered_after_the_end(store: Store) -> None:
    first = await store.append("a", "1", key="k")
    await store.end("a", END, "2", ttl=LONG)
    assert await store.append("a", "3", key="k") == first
    with pytest.raises(ChannelEnded):
        await store.append("a", "4", key="other")
    with pytest.raises(ChannelEnded):
        await store.append("a", "5", key="other")
    assert numbers(await everything(store, "a")) == [1, 2]


# -- end -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("event", [END, ERROR])
async def test_an_end_is_the_last_entry(stores: Stores, store: Store, event: str) -> None:
    first = await store.append("a", "1")
    assert await store.end("a", event, "2", ttl=LONG)
    end = Entry(Id(stores.clock.ms, 2), event, "2")
    assert await everything(store, "a") == [Entry(first, None, "1"), end]
    assert await store.state("a") == State(first, end.id, 2, ended=True, first=first.ms)
    with pytest.raises(ChannelEnded):
        await store.append("a", "3")
    assert not await store.end("a", END, "4", ttl=LONG)
    assert (await state(store, "a")).last == end.id


async def test_what_is_not_there_is_not_ended(store: Store) -> None:
    assert not await store.end("a", END, "1", ttl=LONG)
    assert not await store.end("a", END, "1", token="token", ttl=LONG)
    assert not await store.end("a", END, "1", overdue=True, ttl=LONG)
    assert await store.names() == []


async def test_one_of_many_ends_wins(store: Store) -> None:
    await store.begin("a", "token", LONG)
    ways: list[dict[str, Any]] = [{}, {"token": "token"}]
    ended = await asyncio.gather(
        *(store.end("a", ERROR, str(number), ttl=LONG, **ways[number % 2]) for number in range(20))
    )
    assert sum(ended) == 1
    entries = await everything(store, "a")
    assert [(entry.id.n, entry.data) for entry in entries] == [(1, str(ended.index(True)))]


async def test_nothing_comes_after_an_end_that_came_among_appends(store: Store) -> None:
    async def append(number: int) -> Id | None:
        try:
            return await store.append("a", str(number))
        except ChannelEnded:
            return None

    await store.append("a", "first")
    before = [in_background(append(number)) for number in range(20)]
    ending = in_background(store.end("a", END, "end", ttl=LONG))
    after = [in_background(append(number)) for number in range(20)]
    ids = await asyncio.gather(*before, *after)
    assert await ending
    entries = await everything(store, "a")
    assert [entry.ends for entry in entries] == [False] * (len(entries) - 1) + [True]
    assert numbers(entries) == [*range(1, len(entries) + 1)]
    assert {entry.id for entry in entries[1:-1]} == {*ids} - {None}


async def test_an_ended_log_is_removed_when_its_time_is_over(stores: Stores, store: Store) -> None:
    await store.append("a", "1", key="k")
    await store.append("b", "1")
    await store.append("c", "1")
    await store.end("a", END, "2", ttl=stores.short)
    await store.end("c", END, "2", ttl=LONG)
    await stores.passes(stores.short * 1.5)
    assert await store.names() == ["b", "c"]
    assert await store.state("a") is None
    assert await everything(store, "a") == []
    assert not await store.end("a", END, "3", ttl=LONG)
    assert await store.append("a", "4", key="k") == Id(stores.clock.ms, 1)
    assert await everything(store, "c") != []


async def test_a_name_that_began_again_does_not_end_with_the_log_before(stores: Stores, store: Store) -> None:
    await store.append("a", "1")
    await store.end("a", END, "2", ttl=stores.short)
    await store.remove("a")
    stores.clock.now += 0.001
    entries = await appended(store, "a", "3")
    await stores.passes(stores.short * 1.5)
    assert await everything(store, "a") == entries


# -- runs ------------------------------------------------------------------------------------------------------------


async def test_a_run_begins_with_an_empty_log_of_its_own(store: Store) -> None:
    assert await store.begin("a", "token", LONG)
    begun = await state(store, "a")
    assert begun.lease is not None
    assert LONG - 60 < begun.lease <= LONG
    assert dataclasses.replace(begun, lease=None) == State(None, START, 0)
    assert await store.names() == ["a"]
    assert await everything(store, "a") == []


async def test_a_run_does_not_begin_where_a_log_is(store: Store) -> None:
    await store.append("a", "1")
    assert not await store.begin("a", "token", LONG)
    assert (await state(store, "a")).lease is None
    assert await store.begin("b", "token", LONG)
    assert not await store.begin("b", "token", LONG), "not for its owner either"
    await store.end("b", END, "1", ttl=LONG)
    assert not await store.begin("b", "other", LONG), "nor after its end"
    with pytest.raises(ChannelEnded):
        await store.append("b", "2", token="other")


async def test_of_many_at_once_one_begins(store: Store) -> None:
    begun = await asyncio.gather(*(store.begin("a", f"token{number}", LONG) for number in range(20)))
    assert sum(begun) == 1
    for number in range(20):
        if begun[number]:
            await store.append("a", "1", token=f"token{number}")
        else:
            with pytest.raises(ChannelEnded):
                await store.append("a", "1", token=f"token{number}")
    assert numbers(await everything(store, "a")) == [1]


async def test_the_log_of_a_run_takes_entries_from_its_owner_alone(store: Store) -> None:
    await store.begin("a", "token", LONG)
    for token in (None, "other", ""):
        with pytest.raises(ChannelEnded):
            await store.append("a", "1", token=token)
        with pytest.raises(ChannelEnded):
            await store.append("a", "1", token=token, key="k")
    assert await store.append("a", "2", token="token", key="k") == (await state(store, "a")).last
    assert [entry.data for entry in await everything(store, "a")] == ["2"]
    await store.end("a", END, "3", ttl=LONG)
    with pytest.raises(ChannelEnded):
        await store.append("a", "4", token="token")


async def test_a_run_has_no_other_log_than_that_which_it_began(store: Store) -> None:
    """A run whose log was removed learns of it, and makes no channel of its name."""
    await store.append("a", "1")
    with pytest.raises(ChannelEnded):
        await store.append("a", "2", token="token")
    await store.begin("b", "token", LONG)
    await store.remove("b")
    with pytest.raises(ChannelEnded):
        await store.append("b", "1", token="token")
    assert await store.names() == ["a"]


async def test_an_owner_ends_its_own_run_alone(store: Store) -> None:
    await store.begin("a", "token", LONG)
    await store.append("b", "1")
    assert not await store.end("a", END, "1", token="other", ttl=LONG)
    assert not await store.end("b", END, "1", token="token", ttl=LONG)
    assert await store.end("a", END, "2", token="token", ttl=LONG)
    assert not await store.end("a", END, "3", token="token", ttl=LONG)
    assert [entry.data for entry in await everything(store, "a")] == ["2"]
    assert numbers(await everything(store, "b")) == [1]


async def test_a_run_may_be_ended_by_who_is_not_its_owner(stores: Stores, store: Store) -> None:
    await store.begin("a", "token", LONG)
    assert await store.end("a", END, "1", ttl=LONG)
    end = Id(stores.clock.ms, 1)
    assert await store.state("a") == State(end, end, 1, ended=True, first=end.ms)


async def test_a_run_is_ended_as_overdue_only_if_its_lease_has_run_out(stores: Stores, store: Store) -> None:
    await store.append("channel", "1")
    await store.begin("alive", "token", LONG)
    await store.begin("dead", "token", stores.short)
    await stores.passes(stores.short * 1.5)
    assert not await store.end("channel", ERROR, "1", overdue=True, ttl=LONG)
    assert not await store.end("alive", ERROR, "1", overdue=True, ttl=LONG)
    lease = (await state(store, "dead")).lease
    assert lease is not None
    assert lease < 0
    ended = await asyncio.gather(*(store.end("dead", ERROR, "1", overdue=True, ttl=LONG) for _ in range(10)))
    assert sum(ended) == 1
    assert (await state(store, "dead")).lease is None, "it has ended"
    assert numbers(await everything(store, "dead")) == [1]


async def test_an_overdue_run_is_ended_for_its_owner_alone_if_that_is_asked_for_too(
    stores: Stores, store: Store
) -> None:
    await store.begin("a", "token", stores.short)
    await stores.passes(stores.short * 1.5)
    assert not await store.end("a", ERROR, "1", token="other", overdue=True, ttl=LONG)
    assert await store.end("a", ERROR, "1", token="token", overdue=True, ttl=LONG)


async def test_an_overdue_run_that_has_not_been_ended_goes_on(stores: Stores, store: Store) -> None:
    await store.begin("a", "token", stores.short)
    await stores.passes(stores.short * 1.5)
    assert (await store.append("a", "1", token="token")).n == 1
    renewed = await store.renew("a", "token", LONG)
    assert renewed is not None
    assert renewed.lease is not None
    assert renewed.lease > 0
    assert not await store.end("a", ERROR, "1", overdue=True, ttl=LONG)


async def test_a_lease_is_renewed_by_its_owner_alone(stores: Stores, store: Store) -> None:
    await store.begin("a", "token", stores.short)
    told = await store.renew("a", "other", LONG)
    assert told is not None
    assert told.lease is not None
    assert told.lease <= stores.short
    told = await store.renew("a", "token", LONG)
    assert told is not None
    assert told.lease is not None
    assert LONG - 60 < told.lease <= LONG
    await store.append("b", "1")
    assert await store.renew("b", "token", LONG) == await store.state("b")
    assert (await state(store, "b")).lease is None


async def test_an_ended_run_is_not_renewed(store: Store) -> None:
    """Nor does its owner mistake it for alive: it is told of the end, by whomever it came."""
    await store.begin("a", "token", LONG)
    await store.end("a", END, "1", ttl=LONG)
    told = await store.renew("a", "token", LONG)
    assert told == await store.state("a")
    assert told is not None
    assert told.ended
    assert told.lease is None


async def test_renewing_does_not_keep_an_ended_run(stores: Stores, store: Store) -> None:
    await store.begin("a", "token", LONG)
    await store.end("a", END, "1", ttl=stores.short)
    await store.renew("a", "token", LONG)
    await stores.passes(stores.short * 1.5)
    assert await store.renew("a", "token", LONG) is None


async def test_a_run_whose_lease_ran_out_long_ago_is_removed_as_if_it_had_ended(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if nobody ever asks for it: its names tell, and a store in memory has room again."""
    store = await stores.open(Retention(logs=4))
    for name in ("dead", "silent", "alive"):
        assert await store.begin(name, "token", stores.short)
    await store.append("dead", "1", token="token", key="k")
    await store.renew("alive", "token", 10 * LONG)
    last = await store.append("alive", "1", token="token")
    await store.append("channel", "1")
    orphaned = ORPHAN_SECONDS if stores.by_hand else stores.short
    monkeypatch.setattr(stores.module(), "ORPHAN_SECONDS", orphaned)
    for name in ("dead", "silent"):
        await store.renew(name, "token", stores.short)
    if stores.by_hand:
        await stores.passes(orphaned + stores.short - 1)
        assert (await state(store, "dead")).entries == 1
        await stores.passes(2)
    else:
        await stores.passes(orphaned + stores.short * 1.5)
    assert await store.names() == ["alive", "channel"]
    assert await store.state("dead") is await store.state("silent") is None
    assert await everything(store, "dead") == []
    assert not await store.end("dead", ERROR, "1", overdue=True, ttl=LONG)
    assert await store.renew("dead", "token", LONG) is None
    with pytest.raises(ChannelEnded):
        await store.append("dead", "2", token="token")
    assert await store.append("new", "1") == Id(stores.clock.ms, 1)
    assert await store.begin("dead", "other", LONG)
    assert await store.append("dead", "3", token="other", key="k") == Id(stores.clock.ms, 1)
    assert (await state(store, "alive")).last == last
    if stores.by_hand:
        await stores.passes(10 * LONG)
        assert await store.names() == ["channel", "new"], "its time comes, too"


async def test_a_run_that_was_ended_for_its_owner_can_be_read_for_the_time_that_is_given(stores: Stores) -> None:
    if not stores.by_hand:
        pytest.skip("test_redis looks at the times that its keys have")
    store = await stores.open()
    await store.begin("a", "token", stores.short)
    await stores.passes(stores.short + ORPHAN_SECONDS - 1)
    assert await store.end("a", ERROR, "1", overdue=True, ttl=LONG)
    await stores.passes(LONG - 1)
    assert numbers(await everything(store, "a")) == [1]
    await stores.passes(1)
    assert await store.state("a") is None


async def test_a_state_tells_when_there_last_were_readers(stores: Stores, store: Store) -> None:
    await store.append("a", "1")
    assert (await state(store, "a")).read is None
    await store.attend("a")
    await stores.passes(stores.short)
    read = (await state(store, "a")).read
    assert read is not None
    assert read >= stores.short * 0.9
    assert not stores.by_hand or read == pytest.approx(stores.short, abs=0.01)
    await store.attend("a")
    if stores.by_hand:
        assert (await state(store, "a")).read == pytest.approx(0, abs=0.01)
    assert numbers(await everything(store, "a")) == [1]


# -- follow ----------------------------------------------------------------------------------------------------------


async def test_what_is_appended_from_then_on_is_delivered_once_and_in_order(store: Store) -> None:
    before = await appended(store, "a", "1", "2")
    heard = Heard()
    assert await store.follow("a", heard) == before[-1].id
    first = await store.append("a", "3", "news")
    entries = [Entry(first, "news", "3"), *await appended(store, "a", *map(str, range(4, 20)))]
    await heard.reach(entries)
    assert entries == (await everything(store, "a"))[2:]


async def test_a_log_may_be_followed_before_it_is_there(store: Store) -> None:
    heard = Heard()
    assert await store.follow("a", heard) == START
    assert await store.names() == [], "to follow is not to make"
    entries = await appended(store, "a", "1", "2")
    await heard.reach(entries)


async def test_a_run_may_be_followed_before_its_first_entry(store: Store) -> None:
    heard = Heard()
    await store.begin("a", "token", LONG)
    assert await store.follow("a", heard) == START
    await store.append("a", "1", token="token")
    await store.end("a", END, "2", token="token", ttl=LONG)
    await heard.reach(await everything(store, "a"))
    assert heard.entries[-1].ends


async def test_who_follows_a_trimmed_log_is_told_its_last_id(store: Store) -> None:
    last = (await appended(store, "a", "1", "2"))[-1].id
    await store.trim("a", Id(last.ms + 1, 0))
    heard = Heard()
    assert await store.follow("a", heard) == last
    await heard.reach(await appended(store, "a", "3"))


async def test_an_end_is_delivered_and_nothing_that_was_refused(store: Store) -> None:
    heard = Heard()
    await store.follow("a", heard)
    await store.append("a", "1", key="k")
    await store.append("a", "2", key="k")
    await store.end("a", ERROR, "3", ttl=LONG)
    await store.end("a", END, "4", ttl=LONG)
    with pytest.raises(ChannelEnded):
        await store.append("a", "5")
    await heard.reach(await everything(store, "a"))
    assert [(entry.event, entry.data) for entry in heard.entries] == [(None, "1"), (ERROR, "3")]


async def test_each_follower_hears_of_its_own_log(store: Store) -> None:
    first, second = Heard(), Heard()
    await store.follow("a", first)
    await store.follow("b", second)
    for number in range(10):
        await store.append("ab"[number % 2], str(number))
        await store.append("c", str(number))
    await first.reach(await everything(store, "a"))
    await second.reach(await everything(store, "b"))


async def test_who_unfollowed_hears_nothing_more(store: Store) -> None:
    """What it hears is compared when a follower of another log has heard of what was appended later."""
    gone, stays = Heard(), Heard()
    await store.follow("a", gone)
    await store.follow("b", stays)
    entries = await appended(store, "a", "1")
    await gone.reach(entries)
    store.unfollow("a")
    await store.append("a", "2")
    await stays.reach(await appended(store, "b", "1"))
    again = Heard()
    assert (await store.follow("a", again)).n == 2
    await again.reach(await appended(store, "a", "3"))
    assert gone.entries == entries
    store.unfollow("nobody follows this")


async def test_a_log_may_be_unfollowed_and_followed_again_and_again(store: Store) -> None:
    for number in range(10):
        heard = Heard()
        assert (await store.follow("a", heard)).n == number
        await heard.reach(await appended(store, "a", str(number)))
        store.unfollow("a")


async def test_a_follower_may_unfollow_when_it_is_told(store: Store) -> None:
    told: list[list[Entry]] = []
    stays = Heard()

    def leave(entries: list[Entry]) -> None:
        told.append(entries)
        store.unfollow("a")

    await store.follow("a", leave)
    await store.follow("b", stays)
    await appended(store, "a", "1")
    entries = await appended(store, "b", "1")
    await asyncio.gather(*(store.append(name, str(number)) for number in range(10) for name in "ab"))
    await stays.reach(await everything(store, "b"))
    assert stays.entries[:1] == entries
    again = Heard()
    last = await store.follow("a", again)
    await again.reach(await appended(store, "a", "2"))
    assert last.n == 11
    assert len(told) == 1, "it may be told more than one entry at once, but is not told again"
    assert numbers(told[0]) == [*range(1, len(told[0]) + 1)]


async def test_nothing_is_lost_or_comes_twice_where_following_begins_among_appends(store: Store) -> None:
    heard = Heard()
    await store.append("a", "first")
    appends = [in_background(store.append("a", str(number))) for number in range(40)]
    following = in_background(store.follow("a", heard))
    appends += [in_background(store.append("a", str(number))) for number in range(40, 80)]
    last = await following
    appends += [in_background(store.append("a", str(number))) for number in range(80, 120)]
    await asyncio.gather(*appends)
    entries = await everything(store, "a")
    assert numbers(entries) == [*range(1, 122)]
    await heard.reach([entry for entry in entries if entry.id > last])
    assert len(heard.entries) >= 40


async def test_many_logs_are_followed_while_all_of_them_grow(store: Store) -> None:
    heard = {f"log{number}": Heard() for number in range(20)}
    appends = [in_background(store.append(name, "0")) for name in heard for _ in range(3)]
    lasts = await asyncio.gather(*(store.follow(name, each) for name, each in heard.items()))
    appends += [in_background(store.append(name, "1")) for name in heard for _ in range(3)]
    await asyncio.gather(*appends)
    for last, (name, each) in zip(lasts, heard.items(), strict=True):
        await each.reach(await store.read(name, last, 100))
        assert numbers(await everything(store, name)) == [*range(1, 7)]


async def test_large_entries_and_many_of_them_are_delivered(store: Store) -> None:
    heard = Heard()
    await store.follow("a", heard)
    await asyncio.gather(*(store.append("a", "x" * 100_000) for _ in range(30)))
    await heard.reach(await everything(store, "a"))


async def test_a_follower_hears_of_entries_that_are_no_longer_held(stores: Stores) -> None:
    """Redis may drop what its follower has not read yet: that is seen by the numbers, and test_redis has it."""
    if not stores.by_hand:
        pytest.skip("who reads Redis slower than it is trimmed sees a gap in the numbers")
    store = await stores.open(Retention(entries=1))
    heard = Heard()
    await store.follow("a", heard)
    await heard.reach(await appended(store, "a", *"12345"))


async def test_who_follows_a_name_follows_the_next_log_of_it_too(stores: Stores, store: Store) -> None:
    heard = Heard()
    await store.follow("a", heard)
    entries = await appended(store, "a", "1", "2")
    await heard.reach(entries)
    await store.remove("a")
    stores.clock.now += 1
    entries += await appended(store, "a", "3")
    assert numbers(entries) == [1, 2, 1]
    await heard.reach(entries)


# -- cancelling ------------------------------------------------------------------------------------------------------


async def test_cancelled_appends_leave_no_hole_and_spoil_no_other(store: Store) -> None:
    """Each of them was done or not; the rest is as if they had not been."""
    for turns in (0, 1, 3, 10):
        await cancel_appends(store, turns)
        await store.remove("a")


async def cancel_appends(store: Store, turns: int) -> None:
    """A third of those that run, when the loop has turned so often."""
    heard = Heard()
    await store.follow("a", heard)
    appends = [in_background(store.append("a", str(number))) for number in range(30)]
    for _ in range(turns):
        await asyncio.sleep(0)
    for append in appends[::3]:
        append.cancel()
    outcomes = await asyncio.gather(*appends, return_exceptions=True)
    last = Entry(await store.append("a", "last"), None, "last")
    entries = await everything(store, "a")
    assert entries[-1] == last
    assert numbers(entries) == [*range(1, len(entries) + 1)]
    data = {entry.id: entry.data for entry in entries}
    for number, outcome in enumerate(outcomes):
        if isinstance(outcome, asyncio.CancelledError):
            assert number % 3 == 0
        else:
            assert isinstance(outcome, Id)
            assert data[outcome] == str(number)
    assert len({*data.values()}) == len(entries)
    await heard.reach(entries)
    store.unfollow("a")


async def test_who_is_cancelled_while_it_begins_to_follow_may_follow_again(store: Store) -> None:
    for turns in range(6):
        following = in_background(store.follow("a", Heard()))
        for _ in range(turns):
            await asyncio.sleep(0)
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        store.unfollow("a")
        heard = Heard()
        last = await store.follow("a", heard)
        await heard.reach(await appended(store, "a", "1", "2"))
        assert heard.entries[0].id.n == last.n + 1
        store.unfollow("a")


# -- open and close --------------------------------------------------------------------------------------------------


async def test_a_closed_store_delivers_nothing(stores: Stores) -> None:
    store = await stores.open(place="shared")
    heard, later = Heard(), Heard()
    await store.follow("a", heard)
    entries = await appended(store, "a", "1")
    await heard.reach(entries)
    await stores.close(store)
    other = await stores.open(place="shared")
    await other.follow("a", later)
    await later.reach(await appended(other, "a", "2"))
    assert heard.entries == entries


async def test_a_closed_store_takes_nothing(stores: Stores) -> None:
    store = await stores.open()
    await store.append("a", "1", key="k")
    await stores.close(store)
    for key in (None, "k"):
        with pytest.raises(StoreUnavailable):
            await store.append("a", "2", key=key)
    with pytest.raises(StoreUnavailable):
        await store.begin("b", "token", LONG)


async def test_a_store_closes_while_it_is_followed_and_written_to(stores: Stores) -> None:
    """What was on its way was done, or is refused; nothing waits for ever. And nothing is delivered afterwards."""
    store = await stores.open()
    heard = Heard()
    await store.follow("a", heard)
    appends = [in_background(store.append("a", str(number), key=str(number))) for number in range(20)]
    await asyncio.sleep(0)
    await stores.close(store)
    count = len(heard.entries)
    for outcome in await asyncio.gather(*appends, return_exceptions=True):
        assert isinstance(outcome, Id | StoreUnavailable), outcome
    await asyncio.sleep(0)
    assert len(heard.entries) == count
    assert numbers(heard.entries) == [*range(1, count + 1)]


async def test_a_log_outlives_its_store_unless_it_is_one_in_memory(stores: Stores) -> None:
    first = await stores.open(place="shared")
    entries = await appended(first, "a", "1", "这")
    key = await first.append("a", "3", key="k")
    await first.end("b", END, "1", ttl=LONG)
    await first.append("c", "1")
    await first.end("c", END, "2", ttl=stores.short)
    await stores.close(first)
    await stores.passes(stores.short * 1.5)
    second = await stores.open(place="shared")
    if stores.kind == "memory":
        assert await second.names() == []
        return
    assert await second.names() == ["a"]
    assert (await everything(second, "a"))[:2] == entries
    assert await second.append("a", "4", key="k") == key
    assert (await second.append("a", "5")).n == 4


async def test_a_store_in_memory_refuses_more_logs_than_it_may_hold(stores: Stores) -> None:
    """Those that outlive their process may hold any number."""
    store = await stores.open(Retention(logs=2))
    await store.append("a", "1")
    await store.begin("b", "token", LONG)
    if stores.kind != "memory":
        await store.append("c", "1")
        return
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            await store.append("c", "1")
        with pytest.raises(StoreUnavailable):
            await store.begin("c", "token", LONG)
    assert (await store.append("a", "2")).n == 2
    await store.end("a", END, "3", ttl=stores.short)
    await stores.passes(stores.short * 1.5)
    assert (await store.append("c", "1")).n == 1, "what is over makes room"
    await store.remove("c")
    assert await store.begin("d", "token", LONG)


# -- the model -------------------------------------------------------------------------------------------------------

NAMES = st.sampled_from(["a", "b"])
TOKENS = st.sampled_from([None, None, "mine", "yours"])
OWNERS = st.sampled_from(["mine", "yours"])
DATA = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
CURSORS = st.tuples(st.integers(0, 40), st.sampled_from([0, 0, 0, -1, 1]), st.sampled_from([0, 0, 0, -1, 1]))

KEYS = st.sampled_from([None, None, None, "k", "q"])
ENDS = st.sampled_from([END, ERROR])

APPEND = st.tuples(st.just("append"), NAMES, DATA, st.none() | DATA, KEYS, TOKENS)
OVERDUE = st.sampled_from([False, False, True])
TIMELESS = [
    APPEND,
    APPEND,  # twice: most steps are appends
    st.tuples(st.just("end"), NAMES, ENDS, DATA, TOKENS, OVERDUE, st.just(75.0)),
    st.tuples(st.just("read"), NAMES, CURSORS, st.integers(1, 6)),
    st.tuples(st.just("newest"), NAMES, st.integers(1, 6)),
    st.tuples(st.just("state"), NAMES),
    st.tuples(st.just("names")),
    st.tuples(st.just("trim"), NAMES, CURSORS),
    st.tuples(st.just("remove"), NAMES),
    st.tuples(st.just("begin"), NAMES, OWNERS, st.just(30.0)),
    st.tuples(st.just("renew"), NAMES, OWNERS, st.just(30.0)),
    st.tuples(st.just("attend"), NAMES),
    st.tuples(st.just("passes"), st.sampled_from([0.004, 0.001])),
]
# No sum of these comes near a lease, a time to live, an age or the time of a key: at those, stores may differ.
TIMES = st.tuples(st.just("passes"), st.sampled_from([0.004, -0.004, 49.0, 700.0]))

STEADY = settings(
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


async def told(store: Store, method: str, arguments: tuple[Any, ...]) -> Any:
    """What `store` answers to a step of the model."""
    if method == "append":
        name, data, event, key, token = arguments
        return await store.append(name, data, event, key=key, token=token)
    if method == "end":
        name, event, data, token, overdue, ttl = arguments
        return await store.end(name, event, data, token=token, overdue=overdue, ttl=ttl)
    return await getattr(store, method)(*arguments)


def comparable(answer: Any, exact: bool) -> Any:
    """A store that measures time by its own clock is asked only whether a lease has run out."""
    if isinstance(answer, State):
        lease, read = answer.lease, answer.read
        return dataclasses.replace(
            answer,
            lease=lease if lease is None else round(lease, 1) if exact else float(lease > 0),
            read=read if read is None else round(read, 1) if exact else 0.0,
        )
    return answer


async def follow_model(stores: Stores, retention: Retention, steps: list[tuple[Any, ...]]) -> None:
    """Take the steps with a store and with the model; both answer alike, and followers hear all that was appended."""
    store, model = await stores.open(retention), Model(retention, stores.clock)
    heard = {name: Heard() for name in "ab"}
    for name, each in heard.items():
        await store.follow(name, each)
    for method, *drawn in steps:
        known = [START, *(entry.id for entries in model.history.values() for entry in entries)]
        arguments: list[Any] = []
        for argument in drawn:
            if isinstance(argument, tuple):
                index, ms, n = argument
                found = known[index % len(known)]
                argument = Id(max(0, found.ms + ms), max(0, found.n + n))
            arguments.append(argument)
        if method == "passes":
            stores.clock.now += arguments[0]
            continue
        if method in ("trim", "remove"):  # Redis delivers no more what is gone before its follower read it
            await all_heard(heard, model)
        try:
            expected = getattr(model, method)(*arguments)
        except ChannelEnded:
            with pytest.raises(ChannelEnded):
                await told(store, method, tuple(arguments))
        else:
            answer = await told(store, method, tuple(arguments))
            assert comparable(answer, stores.by_hand) == comparable(expected, stores.by_hand), (method, *arguments)
        if method == "remove":
            stores.clock.now += 0.01  # two logs of one name are told apart by their time
    await all_heard(heard, model)
    await stores.close(store)


async def all_heard(heard: dict[str, Heard], model: Model) -> None:
    for name, each in heard.items():
        await each.reach(model.history.get(name, []))


@given(steps=st.lists(st.one_of(*TIMELESS, TIMES, TIMES), max_size=40))
@settings(STEADY, max_examples=40)
async def test_a_store_does_what_the_model_does(stores: Stores, steps: list[tuple[Any, ...]]) -> None:
    if not stores.by_hand:
        pytest.skip("Redis has its own time, and holds more: the test below has it")
    await follow_model(stores, Retention(entries=5, bytes=60, age=300.0), steps)


@given(steps=st.lists(st.one_of(*TIMELESS), max_size=40))
@settings(STEADY, max_examples=15)
async def test_a_store_that_drops_nothing_does_what_the_model_does(
    stores: Stores, steps: list[tuple[Any, ...]]
) -> None:
    await follow_model(stores, Retention(), steps)
