"""Runs: a generator's items in a log, whoever reads it; and its end, however it ends, told to all who come."""

from __future__ import annotations

import asyncio
import gc
import random
import signal
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hubs import KINDS, Hubs, counting, endless, told, url
from processes import ROOT
from redis_server import RedisServer, running_redis
from stores import WallClock, in_memory
from support import Clock, Failures, Serving, Steps, get, in_background, settle, until
from unsteady import Staged, Unsteady, away, hub_of

from rawstream import Event, Hub, Request, errors
from rawstream.channels import Run, runs
from rawstream.channels import hub as hub_module
from rawstream.channels.memory import MemoryStore
from rawstream.errors import BadName, ChannelEnded, LocalError, NotFound, StoreUnavailable

pytestmark = [pytest.mark.usefixtures("orderly"), pytest.mark.either_loop]

STOPPED = ("stream-end", {"stopped": True})
END: tuple[str, dict[str, Any]] = ("stream-end", {})
GONE = ("stream-error", {"status": 500, "error": "the process that ran it is gone"})
FAILED = ("stream-error", {"status": 500, "error": "Internal Server Error"})


@pytest.fixture(params=KINDS)
async def hubs(request: pytest.FixtureRequest, orderly: None) -> AsyncIterator[Hubs]:
    """Of each kind."""
    redis = request.getfixturevalue("redis_server").url if request.param == "redis" else ""
    with in_memory() as directory:
        hubs = Hubs(url(request.param, directory, redis))
        yield hubs
        await hubs.close()


@pytest.fixture
async def apart(redis_server: RedisServer, orderly: None) -> AsyncIterator[Hubs]:
    """As of several processes."""
    hubs = Hubs(redis_server.url)
    yield hubs
    await hubs.close()


@pytest.fixture
async def hub(orderly: None) -> AsyncIterator[Hub]:
    async with Hub() as hub:
        yield hub


@pytest.fixture
def short_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (runs, hub_module):
        monkeypatch.setattr(module, "LEASE", 0.3)


class Work:
    """A generator that does as it is told, and tells when it is closed."""

    def __init__(self, *items: Any) -> None:
        self.steps = Steps()
        self.go_on = asyncio.Event()
        self._items = items

    async def run(self) -> AsyncIterator[Any]:
        self.steps("begun")
        try:
            for item in self._items:
                yield item
            await self.go_on.wait()
        finally:
            self.steps("closing")
            await asyncio.sleep(0)
            self.steps("closed")


def failed(failures: Failures, id: str) -> BaseException:
    """The one failure of a run that was logged."""
    (record,) = failures.records
    failures.records.clear()
    assert record.getMessage() == f"run {id} failed"
    assert record.exc_info is not None
    assert record.exc_info[1] is not None
    return record.exc_info[1]


async def reached(run: Run, last: Any) -> str:
    """The id of the event with this data, once it is there."""
    async for event in run.read():
        if event.data == last:
            assert event.id is not None
            return event.id
    raise AssertionError("it has ended")


# -- what is in the log ------------------------------------------------------------------------------------------------


async def test_the_items_of_a_run_are_the_events_of_its_log(hubs: Hubs) -> None:
    hub = await hubs()
    items = ["text", 1, None, {"a": [1.5, "ä"]}, Event("named", event="word"), Event([1], event="list"), "two\nlines"]
    run = await hub.run(counting(*items), "job")
    assert run.id == "job"
    assert await told(run) == [
        (None, "text"), (None, 1), (None, None), (None, {"a": [1.5, "ä"]}), ("word", "named"), ("list", [1]),
        (None, "two\nlines"), END,
    ]  # fmt: skip


async def test_a_run_without_items_is_its_end(hubs: Hubs) -> None:
    hub = await hubs()
    assert await told(await hub.run(counting())) == [END]


async def test_an_event_without_data_is_none(hub: Hub) -> None:
    assert await told(await hub.run(counting(1, Event(None, comment="nothing"), 2))) == [(None, 1), (None, 2), END]


async def test_a_run_without_an_id_gets_one_that_nobody_guesses(hub: Hub) -> None:
    first, second = await hub.run(counting()), await hub.run(counting())
    assert first.id != second.id
    assert len(first.id) == len(second.id) == 32


async def test_an_iterator_that_is_no_generator_will_do(hub: Hub) -> None:
    class Countdown:
        def __init__(self) -> None:
            self._left = 3

        def __aiter__(self) -> Countdown:
            return self

        async def __anext__(self) -> int:
            if not self._left:
                raise StopAsyncIteration
            self._left -= 1
            return self._left

    assert await told(await hub.run(Countdown())) == [(None, 2), (None, 1), (None, 0), END]


async def test_a_run_is_read_from_any_place_at_any_time(hubs: Hubs) -> None:
    hub = await hubs()
    work = Work(*range(5))
    run = await hub.run(work.run(), "job")
    third = [event.id async for event in _first(run.read(), 3)][2]
    early, late, next_ = (in_background(told(run, after)) for after in ("earliest", third, None))
    await until(lambda: run.channel.subscribers == 3)
    await reached(run, 4)
    work.go_on.set()
    assert await early == [*((None, n) for n in range(5)), END]
    assert await late == [(None, 3), (None, 4), END]
    assert (await next_)[-1] == END
    assert await told(await hub.find("job")) == await early
    assert await told(run, third) == await late
    assert await told(run, None) == [END]


async def _first(reader: AsyncIterator[Event], count: int) -> AsyncIterator[Event]:
    async for event in reader:
        yield event
        count -= 1
        if not count:
            break


async def test_another_process_reads_the_same(apart: Hubs) -> None:
    here, there = await apart(), await apart()
    work = Work(1, 2)
    run = await here.run(work.run(), "job")
    reader = in_background(told(await there.find("job")))
    await reached(await there.find("job"), 2)
    work.go_on.set()
    assert await reader == await told(run) == [(None, 1), (None, 2), END]


async def test_a_client_reads_a_run_to_its_end_and_is_told_not_to_come_back(hub: Hub, serving: Serving) -> None:
    async def follow(request: Request) -> Any:
        return (await hub.find("job")).subscribe()

    await hub.run(counting("a"), "job")
    events = [event async for event in (await hub.find("job")).read()]
    served = await serving(follow)
    peer = await served.ask(get("/"))
    assert b"200 OK" in await peer.head()
    body = await peer.until(b"0\r\n\r\n")
    assert f"data: a\nid: {events[0].id}\n\n".encode() in body
    assert f"event: stream-end\ndata: {{}}\nid: {events[1].id}\n\n".encode() in body
    again = await served.ask(get("/", None, f"Last-Event-ID: {events[1].id}"))
    assert b"204 No Content" in await again.head()
    after = await served.ask(get("/", "application/x-ndjson", f"Last-Event-ID: {events[0].id}"))
    await after.head()
    assert b'"event":"stream-end"' in await after.until(b"0\r\n\r\n")


# -- how it ends -------------------------------------------------------------------------------------------------------


async def test_an_error_is_told_without_its_details_which_are_logged_once(hubs: Hubs, failures: Failures) -> None:
    async def breaks() -> AsyncIterator[Any]:
        yield 1
        raise ValueError("a secret")

    hub = await hubs()
    run = await hub.run(breaks(), "job")
    assert await told(run) == [(None, 1), FAILED]
    assert str(failed(failures, "job")) == "a secret"
    await run.wait_closed()
    assert await told(run) == [(None, 1), FAILED]


async def test_an_error_for_the_client_is_told_to_it(hub: Hub, failures: Failures) -> None:
    async def breaks() -> AsyncIterator[Any]:
        yield 1
        raise errors.HTTPError(409, "the file is in use")

    run = await hub.run(breaks(), "job")
    assert await told(run) == [(None, 1), ("stream-error", {"status": 409, "error": "the file is in use"})]
    assert isinstance(failed(failures, "job"), errors.HTTPError)


async def test_an_error_before_the_first_item_is_one(hub: Hub, failures: Failures) -> None:
    async def breaks() -> AsyncIterator[Any]:
        if breaks:
            raise OSError("disk")
        yield

    assert await told(await hub.run(breaks(), "job")) == [FAILED]
    assert isinstance(failed(failures, "job"), OSError)


@pytest.mark.parametrize(
    "item",
    [
        b"bytes", object(), {1, 2}, float("nan"), "\ud800", Event("x", id="5"), Event(b"bytes"),
        Event("x", event="stream-end"), "x" * (256 * 1024 + 1),
    ],
    ids=["bytes", "object", "set", "nan", "surrogate", "event with an id", "event of bytes", "control event", "large"],
)  # fmt: skip
async def test_an_item_that_cannot_be_appended_is_an_error(hub: Hub, failures: Failures, item: Any) -> None:
    steps = Steps()

    async def work() -> AsyncIterator[Any]:
        try:
            yield 1
            yield item
            yield 2
        finally:
            steps("closed")

    *before, (event, data) = await told(await hub.run(work(), "job"))
    assert before == [(None, 1)]
    assert event == "stream-error"
    assert data["status"] in (413, 500)
    assert isinstance(failed(failures, "job"), errors.RawstreamError)
    assert steps.done == ["closed"]


async def test_stop_ends_it_and_waits_until_it_is_closed(hubs: Hubs) -> None:
    hub = await hubs()
    work = Work(1)
    run = await hub.run(work.run(), "job")
    reader = in_background(told(run))
    await reached(run, 1)
    await (await hub.find("job")).stop()
    assert work.steps.done == ["begun", "closing", "closed"]
    await run.stop()
    assert await reader == await told(run) == [(None, 1), STOPPED]
    assert hub.owners == {}


async def test_stop_after_the_end_changes_nothing(hubs: Hubs) -> None:
    hub = await hubs()
    run = await hub.run(counting(1), "job")
    assert await told(run) == [(None, 1), END]
    await run.stop()
    assert await told(run) == [(None, 1), END]


async def test_stop_in_another_process_closes_the_generator_here(apart: Hubs) -> None:
    here, there = await apart(), await apart()
    work = Work(1)
    run = await here.run(work.run(), "job")
    await reached(await there.find("job"), 1)
    await (await there.find("job")).stop()
    await work.steps.reach("begun", "closing", "closed")
    await run.wait_closed()
    assert await told(run) == [(None, 1), STOPPED]


async def test_a_run_that_is_stopped_before_it_began_is_closed_at_once(hubs: Hubs) -> None:
    hub = await hubs()
    work = Work()
    run = await hub.run(work.run(), "job")
    async with asyncio.timeout(10):
        await run.stop()
    assert work.steps.done in ([], ["begun", "closing", "closed"])
    assert await told(run) == [STOPPED]


async def test_a_run_that_another_process_stops_before_it_is_followed_is_closed(apart: Hubs, short_lease: None) -> None:
    here, there = await apart(), await apart()
    work = Work()
    run = await here.run(work.run(), "job")
    # As if it came between the log's beginning and its following: the task of the run has not begun yet.
    await (await there.find("job")).stop()
    async with asyncio.timeout(10):
        await until(lambda: not here.owners)
    assert await told(run) == [STOPPED]


async def test_a_generator_that_swallows_cancellation_is_left_behind_and_then_cannot_go_on(
    clock: Clock, hub: Hub, failures: Failures
) -> None:
    steps, go_on = Steps(), asyncio.Event()

    async def stubborn() -> AsyncIterator[Any]:
        yield 1
        while not go_on.is_set():
            try:
                await go_on.wait()
            except asyncio.CancelledError:
                steps("swallowed")
        yield 2
        steps("never")

    run = await hub.run(stubborn(), "job")
    await reached(run, 1)
    stopping = in_background(run.stop())
    await steps.reach("swallowed")
    await clock.advance(9)
    assert not stopping.done()
    await clock.advance(2)
    await stopping
    assert failures.records.pop().getMessage() == "run job has not ended 10 s after it was told to; left behind"
    go_on.set()
    await until(lambda: not hub.owners)
    assert steps.done == ["swallowed"]
    assert await told(run) == [(None, 1), STOPPED]


async def test_a_generator_that_yields_when_it_is_stopped_is_closed_all_the_same(hubs: Hubs) -> None:
    steps = Steps()
    hub = await hubs()

    async def stubborn() -> AsyncIterator[Any]:
        yield 1
        for _ in range(5):
            try:
                await asyncio.get_running_loop().create_future()
            except asyncio.CancelledError:
                yield "not yet"
        steps("never")

    run = await hub.run(stubborn(), "job")
    await reached(run, 1)
    async with asyncio.timeout(10):
        await run.stop()
    assert await told(run) == [(None, 1), STOPPED]
    assert steps.done == []


async def test_a_generator_that_fails_when_it_is_stopped_is_logged(hubs: Hubs, failures: Failures) -> None:
    hub = await hubs()

    async def breaks() -> AsyncIterator[Any]:
        try:
            yield 1
            await asyncio.get_running_loop().create_future()
        finally:
            raise ValueError("in finally")

    run = await hub.run(breaks(), "job")
    await reached(run, 1)
    await run.stop()
    assert str(failed(failures, "job")) == "in finally"
    assert await told(run) == [(None, 1), STOPPED]


async def test_a_generator_that_never_yields_can_be_stopped(hubs: Hubs) -> None:
    hub = await hubs()
    work = Work()
    run = await hub.run(work.run(), "job")
    await work.steps.reach("begun")
    await run.stop()
    assert work.steps.done == ["begun", "closing", "closed"]
    assert await told(run) == [STOPPED]


async def test_a_generator_that_never_waits_leaves_the_loop_to_others_and_can_be_stopped(hubs: Hubs) -> None:
    hub, steps = await hubs("?entries=100"), Steps()

    async def busy() -> AsyncIterator[Any]:
        n = 0
        try:
            while True:
                yield n
                n += 1
        finally:
            steps("closed")

    run = await hub.run(busy(), "job")
    await reached(run, 50)
    await run.stop()
    assert steps.done == ["closed"]
    assert (await told(run))[-1] == STOPPED


async def test_timeouts_and_task_groups_go_across_the_yields_of_a_run(hubs: Hubs) -> None:
    hub, forever = await hubs(), asyncio.Event()

    async def grouped() -> AsyncIterator[Any]:
        try:
            async with asyncio.TaskGroup() as group:
                child = group.create_task(asyncio.sleep(0, "child"))
                yield "in a group"
                yield await child
                raise KeyError("from within")
        except* KeyError:
            yield "caught"
        try:
            async with asyncio.timeout(0.01):
                yield "in time"
                await forever.wait()
        except TimeoutError:
            yield "late"

    run = await hub.run(grouped())
    assert await told(run) == [(None, each) for each in ("in a group", "child", "caught", "in time", "late")] + [END]


async def test_a_generator_that_awaits_cancellation_of_its_own_is_not_stopped_by_it(hub: Hub) -> None:
    async def cancels() -> AsyncIterator[Any]:
        task = asyncio.create_task(asyncio.sleep(1000))
        await asyncio.sleep(0)
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            yield "it was"

    assert await told(await hub.run(cancels())) == [(None, "it was"), END]


# -- who has this id ---------------------------------------------------------------------------------------------------


async def test_a_run_of_a_known_id_is_attached_to_at_work_and_after(hubs: Hubs) -> None:
    hub = await hubs()
    first, second, third = Work(1), Work(2), Work(3)
    run = await hub.run(first.run(), "job")
    await reached(run, 1)
    generator = second.run()
    same = await hub.run(generator, "job")
    with pytest.raises(StopAsyncIteration):
        await anext(generator)
    await same.stop()
    assert first.steps.done == ["begun", "closing", "closed"]
    again = await hub.run(third.run(), "job")
    assert await told(again) == [(None, 1), STOPPED]
    assert second.steps.done == third.steps.done == []


async def test_the_one_that_begins_a_run_is_told_so(hubs: Hubs) -> None:
    hub = await hubs()
    same = await asyncio.gather(*(hub.run(endless(1), "job") for _ in range(5)))
    assert [run.begun for run in same].count(True) == 1
    assert not (await hub.find("job")).begun
    await same[0].stop()
    assert not (await hub.run(counting(1), "job")).begun, "it has ended, and is attached to"


async def test_of_many_who_begin_it_at_once_in_two_processes_one_does(apart: Hubs) -> None:
    places = await apart(), await apart()
    works = [Work(n) for n in range(10)]
    same = await asyncio.gather(*(places[n % 2].run(work.run(), "job") for n, work in enumerate(works)))
    data = [await anext(run.read()) for run in same]
    assert len({event.id for event in data}) == 1
    await until(lambda: sum(work.steps.done == ["begun"] for work in works) == 1)
    assert len([*places[0].owners, *places[1].owners]) == 1
    await same[0].stop()


async def test_what_is_not_there_is_not_found(hubs: Hubs) -> None:
    hub = await hubs()
    with pytest.raises(NotFound) as caught:
        await hub.find("nothing")
    assert caught.value.status == 404


@pytest.mark.parametrize(
    ("name", "seconds"),
    [(name, each) for name in ("ttl", "linger") for each in ("x", 0, -1, True, float("nan"), float("inf"), 1e10)]
    + [("ttl", None)],
)
async def test_seconds_that_cannot_be_are_refused_and_the_generator_closed(
    store: Staged, name: str, seconds: Any
) -> None:
    """When it ends it would be too late: there would be no end."""
    async with hub_of(store) as hub:
        generator = counting(1)
        with pytest.raises(LocalError, match=f"a run's {name} is a number of seconds, above 0 .*, not {seconds!r}"):
            await hub.run(generator, "job", **{name: seconds})
        with pytest.raises(StopAsyncIteration):
            await anext(generator)
        assert await store.names() == []


async def test_the_longest_times_will_do(hubs: Hubs) -> None:
    run = await (await hubs()).run(counting(1), ttl=1e9, linger=1e9)
    assert await told(run) == [(None, 1), END]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: counting, "function: call it, and give what it returns"), (lambda: [1], "list"),
        (lambda: None, "NoneType"), (lambda: asyncio.sleep(0), "coroutine"),
    ],
)  # fmt: skip
async def test_what_is_no_async_iterator_is_refused_at_once(store: Staged, make: Callable[[], Any], said: str) -> None:
    """And a coroutine is closed, so that Python does not warn of it too."""
    async with hub_of(store) as hub:
        with pytest.raises(LocalError, match=rf"a run takes an async iterator .*, not {said}$"):
            await hub.run(make(), "job")
        gc.collect()
        assert await store.names() == []


@pytest.mark.parametrize("id", ["", "a/b", ".hidden", "a" * 129, "a b", 5])
async def test_an_id_that_cannot_be_is_refused_and_the_generator_closed(hub: Hub, id: Any) -> None:
    with pytest.raises(BadName):
        await hub.find(id)
    generator = Work(1).run()
    with pytest.raises(BadName):
        await hub.run(generator, id)
    with pytest.raises(StopAsyncIteration):
        await anext(generator)


async def test_nobody_else_publishes_to_a_run(hubs: Hubs) -> None:
    hub = await hubs()
    run = await hub.run(Work(1).run(), "job")
    await reached(run, 1)
    for moment in ("at work", "ended"):
        with pytest.raises(ChannelEnded) as caught:
            await run.channel.publish("mine", key=moment)
        assert caught.value.status == 409
        await run.stop()
    assert await told(run) == [(None, 1), STOPPED]


async def test_a_run_is_no_channel(hubs: Hubs) -> None:
    hub = await hubs()
    run = await hub.run(counting(1), "job")
    assert await told(run) == [(None, 1), END]
    await hub.channel("job").publish("mine")
    assert await told(run) == [(None, 1), END]
    assert await hub.channels() == ["job"]


async def test_a_run_is_removed_after_its_time_and_its_id_is_free_again(orderly: None) -> None:
    wall = WallClock()
    async with hub_of(MemoryStore(now=wall)) as hub:
        run = await hub.run(counting(1), "job", ttl=60)
        assert await told(run) == [(None, 1), END]
        wall.now += 59
        assert await told(await hub.find("job")) == [(None, 1), END]
        wall.now += 2
        with pytest.raises(NotFound):
            await hub.find("job")
        with pytest.raises(NotFound):
            await told(run)
        assert await told(await hub.run(counting(2), "job")) == [(None, 2), END]


async def found(hub: Hub) -> Run:
    return await hub.find("job")


async def attached(hub: Hub) -> Run:
    return await hub.run(counting(2), "job", ttl=1)


@pytest.mark.parametrize("get", [found, attached])
async def test_whoever_stops_a_run_it_can_be_read_as_long_as_was_said_when_it_began(
    orderly: None, get: Callable[[Hub], Awaitable[Run]]
) -> None:
    wall = WallClock()
    async with hub_of(MemoryStore(now=wall)) as hub:
        await hub.run(endless(), "job", ttl=60)
        run = await get(hub)
        assert not run.begun
        await run.stop()
        wall.now += 59
        await hub.find("job")
        wall.now += 2
        with pytest.raises(NotFound):
            await hub.find("job")


# -- nobody reads it ---------------------------------------------------------------------------------------------------


async def test_a_run_that_nobody_reads_for_long_is_stopped(clock: Clock, hub: Hub) -> None:
    work = Work(1)
    run = await hub.run(work.run(), "job", linger=10)
    await clock.advance(9)
    assert work.steps.done == ["begun"]
    reader = in_background(told(run))
    await clock.advance(15)
    assert work.steps.done == ["begun"]
    reader.cancel()
    await clock.advance(9)
    assert work.steps.done == ["begun"]
    second = in_background(told(run))
    await clock.advance(5)
    second.cancel()
    await clock.advance(9.5)
    assert work.steps.done == ["begun"]
    await clock.advance(1)
    assert work.steps.done == ["begun", "closing", "closed"]
    assert await told(run) == [(None, 1), STOPPED]


async def test_a_run_that_does_not_linger_works_for_nobody(clock: Clock, hub: Hub) -> None:
    work = Work(1)
    run = await hub.run(work.run(), "job")
    await clock.advance(100)
    assert work.steps.done == ["begun"]
    await run.stop()


async def test_a_short_linger_stops_it_soon_after_its_last_reader(hubs: Hubs, short_lease: None) -> None:
    hub, work = await hubs(), Work(1)
    run = await hub.run(work.run(), "job", linger=0.05)
    reader = run.read()
    await anext(reader)
    await reader.aclose()  # type: ignore[attr-defined]
    await work.steps.reach("begun", "closing", "closed")


async def test_a_store_that_is_away_when_nobody_reads_is_asked_again(clock: Clock) -> None:
    work, store = Work(1), Staged()
    async with hub_of(store) as hub:
        await hub.run(work.run(), "job", linger=10)
        store.before("state", away)
        await clock.advance(10)
        assert work.steps.done == ["begun"]
        await clock.advance(15)
        assert work.steps.done == ["begun", "closing", "closed"]


async def test_readers_in_another_process_keep_a_run_at_work(apart: Hubs, short_lease: None) -> None:
    here, there = await apart(), await apart()
    work = Work(1)
    await here.run(work.run(), "job", linger=0.05)
    reader = in_background(told(await there.find("job")))
    beats = there.channel("beats")  # as a clock: what takes longer than the lease, by what Redis says of time
    await until(lambda: (there._channels["run/job"]).subscribers == 1)
    for _ in range(8):
        await beats.publish(1)
        await asyncio.sleep(0.1)
    assert work.steps.done == ["begun"]
    reader.cancel()
    await work.steps.reach("begun", "closing", "closed")


async def test_readers_of_a_run_that_its_store_has_forgotten_are_told(clock: Clock) -> None:
    """As after a Redis was away for longer than it holds a run without a word of its owner."""
    store = Staged()
    async with hub_of(store) as hub:
        work = Work(1)
        run = await hub.run(work.run(), "job")
        await reached(run, 1)
        seen: list[Any] = []

        async def read() -> None:
            async for event in run.read():
                seen.append(event.data)  # noqa: PERF401 - each as it comes

        reading = in_background(read())
        await until(lambda: seen == [1])
        await settle()
        await store.remove("run/job")
        await clock.advance(runs.LEASE)
        with pytest.raises(NotFound):
            await reading
        await work.steps.reach("begun", "closing", "closed")


# -- its process is gone -----------------------------------------------------------------------------------------------

OWNER = """
    import asyncio, sys
    from rawstream import Hub
    from rawstream.channels import hub as hub_module, runs

    hub_module.LEASE = runs.LEASE = 0.5

    async def main():
        hub = Hub(sys.argv[1])

        async def work():
            try:
                n = 0
                while True:
                    yield n
                    n += 1
                    await asyncio.sleep({pause})
            finally:
                await hub.channel("obituary").publish("closed")

        await hub.run(work(), "job")
        await asyncio.sleep(60)

    asyncio.run(main())
"""


@contextmanager
def owner(redis: RedisServer, pause: float) -> Iterator[subprocess.Popen[bytes]]:
    """A process that owns the run "job"."""
    program = textwrap.dedent(OWNER.format(pause=pause))
    with subprocess.Popen([sys.executable, "-c", program, redis.url], cwd=ROOT) as process:
        try:
            yield process
        finally:
            process.kill()


async def begun(hub: Hub) -> Run:
    """The run "job", once it is there."""
    while True:
        try:
            run = await hub.find("job")
        except NotFound:
            await asyncio.sleep(0.01)
        else:
            await reached(run, 0)
            return run


async def test_readers_are_told_when_the_process_of_a_run_is_killed(
    apart: Hubs, redis_server: RedisServer, short_lease: None
) -> None:
    hub, other = await apart(), await apart()
    with owner(redis_server, 1000.0) as process:
        run = await begun(hub)
        readers = [in_background(told(each)) for each in (run, await other.find("job"))]
        await asyncio.sleep(1)  # longer than its lease: it renews it
        assert not any(reader.done() for reader in readers)
        process.kill()
        for reader in readers:
            assert await reader == [(None, 0), GONE]
    assert await told(await hub.find("job")) == [(None, 0), GONE]


async def test_who_comes_after_the_process_of_a_run_was_killed_is_told(
    apart: Hubs, redis_server: RedisServer, short_lease: None
) -> None:
    hub = await apart()
    with owner(redis_server, 1000.0) as process:
        await begun(hub)
        process.kill()
        process.wait()
    assert await told(await hub.find("job")) == [(None, 0), GONE]


async def test_an_owner_that_comes_back_too_late_is_cancelled(
    apart: Hubs, redis_server: RedisServer, short_lease: None
) -> None:
    hub = await apart()
    obituary = hub.channel("obituary").read("earliest")
    with owner(redis_server, 0.05) as process:
        run = await begun(hub)
        process.send_signal(signal.SIGSTOP)
        events = await told(run)
        assert events[-1] == GONE
        process.send_signal(signal.SIGCONT)
        assert (await anext(obituary)).data == "closed"
        assert await told(run) == events
    await obituary.aclose()  # type: ignore[attr-defined]


async def test_runs_whose_process_died_with_its_store_are_ended_when_that_opens(tmp_path: Path) -> None:
    place = f"sqlite:///{tmp_path}/hub.db"
    program = """
    import asyncio, os, sys
    from rawstream import Hub

    async def work():
        yield 1
        await asyncio.sleep(60)

    async def main():
        run = await Hub(sys.argv[1]).run(work(), "job")
        async for event in run.read():
            os._exit(9)

    asyncio.run(main())
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program), place], cwd=ROOT, timeout=60)
    assert done.returncode == 9
    async with Hub(place) as hub:
        assert await told(await hub.find("job")) == [(None, 1), GONE]


# -- the store is away -------------------------------------------------------------------------------------------------


async def test_a_store_that_is_away_when_a_run_begins_its_work_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "_AGAIN", 0.0)
    store = Staged()
    store.before("follow", away, away)
    async with hub_of(store) as hub:
        run = await hub.run(counting(1, 2), "job")
        await run.wait_closed()
        assert await told(run) == [(None, 1), (None, 2), END]


class Followed(Unsteady):
    """It can be followed at once."""

    follow = MemoryStore.follow


@pytest.mark.parametrize("seed", range(5))
async def test_an_unsteady_store_loses_and_doubles_nothing(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    monkeypatch.setattr(runs, "_AGAIN", 0.0)
    async with hub_of(Followed(random.Random(seed), failures=0.3)) as hub:
        run = await hub.run(counting(*range(100)), "job")
        await run.wait_closed()
        seen: list[Any] = []
        after = "earliest"
        over = False
        while not over:
            try:
                async for event in run.read(after):
                    seen.append(event.data)
                    over = event.event is not None
                    assert event.id is not None
                    after = event.id
            except StoreUnavailable:
                pass
        assert seen == [*range(100), {}]


async def test_a_run_goes_on_when_its_redis_is_back(orderly: None) -> None:
    with running_redis() as redis:
        hub, go_on = Hub(redis.url), asyncio.Event()

        async def work() -> AsyncIterator[Any]:
            for n in range(50):
                yield n
            await go_on.wait()
            for n in range(50, 100):
                yield n

        async with hub:
            run = await hub.run(work(), "job")
            reader = in_background(told(run))
            await reached(run, 49)
            redis.kill()
            go_on.set()
            await settle()
            await asyncio.to_thread(redis.start)
            assert await reader == [*((None, n) for n in range(100)), END]


class Endless(MemoryStore):
    """Its first ends cannot be recorded."""

    def __init__(self, failures: int) -> None:
        super().__init__()
        self._left = failures

    async def end(self, *arguments: Any, **named: Any) -> bool:
        self._left -= 1
        if self._left >= 0:
            raise StoreUnavailable
        return await super().end(*arguments, **named)


async def test_an_end_is_recorded_when_the_store_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "_AGAIN", 0.0)
    async with hub_of(Endless(3)) as hub:
        run = await hub.run(counting(1), "job")
        await run.wait_closed()
        assert await told(run) == [(None, 1), END]


async def test_a_hub_that_closes_does_not_wait_for_a_store_that_is_away(failures: Failures) -> None:
    async with hub_of(Endless(1)) as hub:
        await reached(await hub.run(Work(1).run(), "job"), 1)
    assert failures.records.pop().getMessage().startswith("the end of run job cannot be recorded: ")


# -- the hub closes ----------------------------------------------------------------------------------------------------


async def test_a_hub_that_closes_ends_its_runs_and_tells_their_readers_why(tmp_path: Path) -> None:
    place, work = f"sqlite:///{tmp_path}/hub.db", Work(1)
    async with Hub(place) as hub:
        run = await hub.run(work.run(), "job")
        await reached(run, 1)
    assert work.steps.done == ["begun", "closing", "closed"]
    async with Hub(place) as hub:
        *before, end = await told(await hub.find("job"))
        assert before == [(None, 1)]
        assert end == ("stream-error", {"status": 503, "error": "the server that ran it has closed"})


async def test_a_hub_that_closes_ends_a_run_that_has_not_begun(tmp_path: Path) -> None:
    place, generator = f"sqlite:///{tmp_path}/hub.db", Work(1).run()
    async with Hub(place) as hub:
        await hub.run(generator, "job")
    with pytest.raises(StopAsyncIteration):
        await anext(generator)
    async with Hub(place) as hub:
        ((event, data),) = await told(await hub.find("job"))
        assert event == "stream-error"
        assert data["status"] == 503


@pytest.mark.parametrize("turns", range(6))
async def test_a_beginning_that_is_cancelled_leaves_no_run_that_nobody_works_on(
    hubs: Hubs, short_lease: None, turns: int
) -> None:
    hub = await hubs()
    work = Work(1)
    beginning = in_background(hub.run(work.run(), "job"))
    for _ in range(turns):
        await asyncio.sleep(0)
    beginning.cancel()
    try:
        await beginning
    except asyncio.CancelledError:
        await asyncio.sleep(0.1)  # what was on its way may have been done
        assert work.steps.done == []
        try:
            run = await hub.find("job")
        except NotFound:
            return
        async with asyncio.timeout(10):
            assert (await told(run))[-1][0] == "stream-error"
    else:
        await (await hub.find("job")).stop()


# -- many of them ------------------------------------------------------------------------------------------------------


async def test_many_short_runs_leave_nothing_behind(orderly: None) -> None:
    wall, before = WallClock(), len(asyncio.all_tasks())
    store = MemoryStore(now=wall)
    asyncio.get_running_loop().set_debug(False)  # which notes where each task was made: ten times as long
    async with hub_of(store) as hub:
        for index in range(2_000):
            run = await hub.run(counting(1, 2), str(index), ttl=10, linger=1000)
            wall.now += 0.1
            await run.wait_closed()
            del run
        await settle()
        assert len(asyncio.all_tasks()) == before
        assert hub.owners == {}
        gc.collect()
        assert len(hub._channels) == 0
        assert len(await store.names()) <= 101
        wall.now += 11
        assert await store.names() == []
