"""Where a reader goes on in a log, and what it is told to miss: over a memory store whose clock is moved by hand."""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Awaitable, Callable

import pytest
from stores import WallClock, appended, state
from unsteady import Staged, away

from rawstream.channels.cursor import EARLIEST, After, Gap, Place, _back, locate, position
from rawstream.channels.log import END, START, Entry, Id, Retention, State
from rawstream.channels.memory import MemoryStore
from rawstream.errors import BadEventId, LocalError, StoreUnavailable

pytestmark = pytest.mark.either_loop

BEGAN = 1_700_000_000_000


class Log:
    """A log `x` whose entry `n` was appended at BEGAN + 10 n ms."""

    def __init__(self, retention: Retention | None = None) -> None:
        self.clock = WallClock()
        self.store = Staged(retention)
        self.store._now = self.clock

    async def opened(self) -> Log:
        await self.store.open()
        return self

    async def grow(self, count: int) -> list[Entry]:
        found = []
        for _ in range(count):
            self.clock.now += 0.01
            found += await appended(self.store, "x", '"data"')
        return found

    async def end(self) -> None:
        self.clock.now += 0.01
        assert await self.store.end("x", END, "{}", ttl=60)

    async def locate(self, after: After | str) -> Place:
        return await locate(self.store, "x", after, await self.store.state("x"))  # type: ignore[arg-type]


async def back(log: Log, count: int) -> Place:
    return await _back(log.store, "x", count, await log.store.state("x") or State(None, START, 0))


def id_of(n: int) -> Id:
    return Id(BEGAN + 10 * n, n)


@pytest.fixture
async def log() -> Log:
    return await Log().opened()


# -- what a reader may say -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("after", [None, "earliest", Id(5, 7), START])
def test_a_position_stays_one(after: Id | str | None) -> None:
    assert position(after) == after


def test_a_position_is_read_from_its_text() -> None:
    assert position("1700000000000-42") == Id(1_700_000_000_000, 42)


@pytest.mark.parametrize("text", ["", "5", "x", "5-", "-5", "5-7-9", "5-7\n", " 5-7", "٥-7", "1" * 16 + "-1", "latest"])
def test_a_malformed_id_is_refused(text: str) -> None:
    with pytest.raises(BadEventId) as raised:
        position(text)
    assert raised.value.status == 400


@pytest.mark.parametrize("after", [7, b"5-7", ("5", "7"), (5, 7), True])
def test_what_is_no_position_at_all_is_a_mistake_of_the_program(after: object) -> None:
    with pytest.raises(LocalError):
        position(after)


# -- a log that is not there, or empty -------------------------------------------------------------------------------


@pytest.mark.parametrize("after", [None, EARLIEST])
async def test_a_log_that_is_not_there_begins_with_what_comes(log: Log, after: str | None) -> None:
    assert await log.locate(after) == Place(START)


async def test_who_has_seen_a_log_that_is_not_there_is_told(log: Log) -> None:
    assert await log.locate(Id(5, 7)) == Place(START, Gap(Id(5, 7), START, None))
    assert await log.locate(START) == Place(START)


# -- new readers -----------------------------------------------------------------------------------------------------


async def test_who_says_nothing_begins_with_what_comes_next(log: Log) -> None:
    await log.grow(3)
    assert await log.locate(None) == Place(id_of(3))


async def test_the_earliest_is_before_the_oldest_that_is_held(log: Log) -> None:
    entries = await log.grow(5)
    assert await log.store.read("x", (await log.locate(EARLIEST)).id, 9) == entries
    await log.store.trim("x", id_of(3))
    place = await log.locate(EARLIEST)
    assert place.gap is None
    assert await log.store.read("x", place.id, 9) == entries[2:]


async def test_the_earliest_of_a_log_that_holds_nothing_is_what_comes_next(log: Log) -> None:
    await log.grow(3)
    await log.store.trim("x", id_of(9))
    assert await log.locate(EARLIEST) == Place(id_of(3))


async def test_who_comes_when_all_is_over_is_told_the_end(log: Log) -> None:
    await log.grow(3)
    await log.end()
    place = await log.locate(None)
    assert (place.gap, place.over) == (None, False)
    assert await log.store.read("x", place.id, 9) == [Entry(id_of(4), END, "{}")]


# -- readers that come back ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 4])
async def test_who_has_seen_an_entry_that_is_held_goes_on_after_it(log: Log, n: int) -> None:
    await log.grow(5)
    assert await log.locate(id_of(n)) == Place(id_of(n))


async def test_who_has_seen_the_newest_goes_on_after_it(log: Log) -> None:
    await log.grow(5)
    assert await log.locate(id_of(5)) == Place(id_of(5))


async def test_who_has_seen_nothing_begins_with_the_first(log: Log) -> None:
    entries = await log.grow(5)
    place = await log.locate(START)
    assert place.gap is None
    assert await log.store.read("x", place.id, 9) == entries


async def test_who_has_seen_the_end_is_over(log: Log) -> None:
    await log.grow(3)
    await log.end()
    assert await log.locate(id_of(4)) == Place(id_of(4), over=True)
    assert await log.locate(id_of(3)) == Place(id_of(3))


@pytest.mark.parametrize("n", range(9))
@pytest.mark.parametrize("ended", [False, True])
async def test_what_was_trimmed_is_counted(log: Log, n: int, ended: bool) -> None:
    entries = await log.grow(9)
    if ended:
        await log.end()
    await log.store.trim("x", id_of(6))
    after = id_of(n) if n else START
    place = await log.locate(after)
    if n < 5:
        assert place.gap is not None
        assert place.gap == Gap(after, place.id, 5 - n)
    else:
        assert place.gap is None
    assert (await log.store.read("x", place.id, 9))[0] == entries[max(5, n)]


async def test_of_a_log_that_holds_nothing_all_is_counted(log: Log) -> None:
    await log.grow(5)
    await log.store.trim("x", id_of(9))
    assert await log.locate(id_of(2)) == Place(id_of(5), Gap(id_of(2), id_of(5), 3))
    assert await log.locate(id_of(5)) == Place(id_of(5))


async def test_what_is_too_old_is_counted() -> None:
    log = await Log(Retention(age=60)).opened()
    await log.grow(5)
    log.clock.now += 100
    place = await log.locate(id_of(2))
    assert place.gap == Gap(id_of(2), place.id, 2), "the newest is held in any case"
    assert [entry.id.n for entry in await log.store.read("x", place.id, 9)] == [5]


async def test_who_comes_back_right_after_the_gap_is_not_told_again(log: Log) -> None:
    await log.grow(9)
    await log.store.trim("x", id_of(6))
    gap = (await log.locate(id_of(2))).gap
    assert gap is not None
    again = await log.locate(position(str(gap.entry.id)))
    assert again.gap is None
    assert [entry.id.n for entry in await log.store.read("x", again.id, 9)] == [6, 7, 8, 9]


async def test_who_comes_back_after_the_gap_is_told_what_was_trimmed_since(log: Log) -> None:
    await log.grow(9)
    await log.store.trim("x", id_of(6))
    gap = (await log.locate(id_of(2))).gap
    assert gap is not None
    await log.store.trim("x", id_of(9))
    again = (await log.locate(gap.entry.id)).gap
    assert again is not None
    assert again.missing == 3


def test_a_gap_is_told_as_an_entry_with_the_place_behind_it() -> None:
    entry = Gap(Id(5, 7), Id(9, 11), 4).entry
    assert (entry.id, entry.event, entry.ends) == (Id(9, 11), "stream-gap", False)
    assert entry.data == '{"missing":4,"after":"5-7"}'
    assert json.loads(Gap(Id(5, 7), Id(9, 11), None).entry.data)["missing"] is None


# -- readers of another log ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "after",
    [
        Id(BEGAN + 99, 10),  # ahead
        Id(BEGAN + 10_000, 700),
        Id(5, 10),
        Id(BEGAN + 99, 9),  # as many entries, but another time
        Id(BEGAN + 39, 4),  # held under another time
        Id(BEGAN + 41, 4),
        Id(BEGAN - 5000, 4),
        Id(BEGAN + 10_000, 4),
        Id(BEGAN + 35, 2),  # trimmed, but later than what is held
        Id(BEGAN + 10_000, 1),
    ],
    ids=str,
)
async def test_who_has_seen_another_log_is_told_so_and_begins_with_the_oldest(log: Log, after: Id) -> None:
    entries = await log.grow(9)
    await log.store.trim("x", id_of(3))
    place = await log.locate(after)
    assert place.gap == Gap(after, place.id, None)
    assert not place.over
    assert await log.store.read("x", place.id, 9) == entries[2:]
    assert (await log.locate(place.gap.entry.id)).gap is None, "who comes back is not told again"


async def test_who_has_seen_another_log_s_end_is_not_over(log: Log) -> None:
    await log.grow(3)
    await log.end()
    place = await log.locate(Id(5, 4))
    assert place.gap is not None
    assert not place.over


@pytest.mark.parametrize(
    "after", [Id(BEGAN - 5000, 0), Id(BEGAN - 5000, 2), Id(BEGAN + 9, 1), Id(BEGAN + 9, 4)], ids=str
)
async def test_what_was_seen_before_the_log_began_is_not_counted(log: Log, after: Id) -> None:
    """A store that forgets has begun anew, and holds little: its numbers say nothing to who comes from before."""
    entries = await log.grow(9)
    await log.store.trim("x", id_of(8))
    place = await log.locate(after)
    assert place.gap == Gap(after, place.id, None)
    assert await log.store.read("x", place.id, 9) == entries[7:]
    assert await log.locate(START) == Place(place.id, Gap(START, place.id, 7)), "who has seen nothing misses all of it"
    assert (await log.locate(id_of(1))).gap == Gap(id_of(1), place.id, 6)


async def test_who_was_told_of_a_log_before_this_one_is_told_that_it_is_another(log: Log) -> None:
    """Its place is before the first entry, which is held: but what was lost is not of this log."""
    await log.grow(3)
    before = Id(BEGAN - 5000, 0)
    assert (await log.locate(before)).gap == Gap(before, Id(BEGAN + 10, 0), None)
    assert (await log.locate(Id(BEGAN + 10, 0))).gap is None


async def test_a_log_whose_beginning_is_not_known_is_taken_for_that_which_was_seen(log: Log) -> None:
    await log.grow(9)
    await log.store.trim("x", id_of(8))
    known = await state(log.store, "x")
    after = Id(BEGAN - 5000, 2)
    place = await locate(log.store, "x", after, dataclasses.replace(known, first=None))
    assert place.gap == Gap(after, place.id, 5)


# -- a log that changes while it is looked at ------------------------------------------------------------------------


@pytest.mark.parametrize("first", [5, 6, 7, 9])
@pytest.mark.parametrize("moment", ["before", "after"])
async def test_what_is_trimmed_between_two_looks_is_counted(log: Log, first: int, moment: str) -> None:
    """The reader has seen 4; while it is looked for, all before `first` goes."""
    entries = await log.grow(9)
    getattr(log.store, moment)("read", lambda: log.store.trim("x", id_of(first)))
    place = await log.locate(id_of(4))
    if moment == "after":  # it was found, and the next look will tell
        assert place == Place(id_of(4))
        place = await log.locate(place.id)
    assert (place.gap.missing if place.gap else 0) == first - 5
    assert (await log.store.read("x", place.id, 9))[0] == entries[first - 1]


async def test_a_log_that_is_trimmed_at_each_look_is_found_all_the_same(log: Log) -> None:
    await log.grow(99)
    steps: list[Callable[[], Awaitable[None]]] = [
        lambda n=n: log.store.trim("x", id_of(n))  # type: ignore[misc]
        for n in range(40, 60)
    ]
    log.store.before("read", *steps)
    log.store.before("state", *steps)
    place = await log.locate(id_of(39))
    assert place.id.n >= 39
    assert (place.gap.missing if place.gap else 0) == place.id.n - 39


async def test_a_log_that_is_removed_between_two_looks_begins_anew(log: Log) -> None:
    await log.grow(9)
    log.store.before("read", lambda: log.store.remove("x"))
    assert await log.locate(id_of(4)) == Place(START, Gap(id_of(4), START, None))


@pytest.mark.parametrize("method", ["read", "state"])
async def test_a_store_that_cannot_be_reached_is_told(log: Log, method: str) -> None:
    await log.grow(9)
    seen = await state(log.store, "x")
    log.store.before(method, away)
    log.store.before("read", lambda: log.store.trim("x", id_of(6)))
    with pytest.raises(StoreUnavailable):
        await locate(log.store, "x", id_of(4), seen)


# -- so many back ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "first"), [(1, 5), (3, 3), (5, 1), (99, 1)])
async def test_so_many_entries_back(log: Log, count: int, first: int) -> None:
    entries = await log.grow(5)
    place = await back(log, count)
    assert (place.gap, place.over) == (None, False)
    assert await log.store.read("x", place.id, 99) == entries[first - 1 :]


async def test_back_from_an_end_includes_it(log: Log) -> None:
    await log.grow(5)
    await log.end()
    place = await back(log, 2)
    assert [entry.id.n for entry in await log.store.read("x", place.id, 99)] == [5, 6]


async def test_back_in_a_log_that_holds_nothing_is_what_comes_next(log: Log) -> None:
    assert await back(log, 3) == Place(START)
    await log.grow(3)
    await log.store.trim("x", id_of(9))
    assert await back(log, 3) == Place(id_of(3))


# -- anything --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
async def test_what_is_read_and_what_is_missing_add_up(seed: int) -> None:
    """However a log has grown and was trimmed, whoever has seen one of its entries gets each after it, or the count."""
    dice = random.Random(seed)
    for _ in range(5):
        await some_log_adds_up(dice)


async def some_log_adds_up(dice: random.Random) -> None:
    clock = WallClock()
    store = MemoryStore(Retention(entries=dice.randrange(1, 20)), now=clock)
    await store.open()
    seen = []
    for _ in range(dice.randrange(1, 60)):
        clock.now += dice.choice([0.0, 0.0, 0.001, 5.0, -1.0])
        seen.append(await store.append("x", "1"))
    if dice.random() < 0.5:
        await store.trim("x", dice.choice(seen))
    for after in [START, *seen]:
        place = await locate(store, "x", after, await store.state("x"))
        entries = await store.read("x", place.id, 1000)
        missing = 0 if place.gap is None else place.gap.missing
        assert missing is not None
        assert [entry.id for entry in entries] == seen[after.n + missing :]
