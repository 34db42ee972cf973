"""Every generator is closed, whatever happened, and those that will not end keep nobody else waiting."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import random
import sys
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from types import AsyncGeneratorType
from typing import Any

import pytest
from support import (
    LAST_CHUNK,
    SSE_HEAD,
    Clock,
    Failures,
    Peer,
    Served,
    Serving,
    Steps,
    chunk,
    get,
    request,
    settle,
    until,
)

from rawstream import Limits, Request, Response, Stream, Timeouts, errors, observe

SSE = "text/event-stream"


async def gone(served: Served) -> None:
    await until(lambda: served.server.connections == 0)


async def served_as_ever(served: Served) -> None:
    peer = await served.ask(get("/ok"))
    assert (await peer.response())[1] == b"/ok"
    peer.close()


def streaming(items: Callable[[], AsyncIterator[Any]], **options: Any) -> Callable[[Request], Awaitable[Any]]:
    """A handler that streams `items()`, and answers /ok."""

    async def handler(request: Request) -> Stream | Response:
        if request.path == "/ok":
            return Response.text("/ok")
        return Stream(items(), **{"format": "text", **options})

    return handler


# -- whatever ends a stream --------------------------------------------------------------------------------------------


async def at_its_end(served: Served, peer: Peer, clock: Clock, gate: asyncio.Event) -> None:
    gate.set()


async def by_disconnect(served: Served, peer: Peer, clock: Clock, gate: asyncio.Event) -> None:
    peer.reset()


async def by_the_end_of_sending(served: Served, peer: Peer, clock: Clock, gate: asyncio.Event) -> None:
    peer.finish()


async def by_timeout(served: Served, peer: Peer, clock: Clock, gate: asyncio.Event) -> None:
    await clock.advance(31)


async def by_shutdown(served: Served, peer: Peer, clock: Clock, gate: asyncio.Event) -> None:
    served.server.begin_closing()
    await clock.advance(4)


async def by_a_second_close(served: Served, peer: Peer, clock: Clock, gate: asyncio.Event) -> None:
    served.server.begin_closing()
    served.server.begin_closing()


ENDS = [at_its_end, by_disconnect, by_the_end_of_sending, by_timeout, by_shutdown, by_a_second_close]


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("items", [0, 1, 3], ids=["before the first item", "after one", "after some"])
async def test_a_waiting_generator_is_closed_once_and_within_its_task(
    serving: Serving, clock: Clock, end: Callable[..., Awaitable[None]], items: int
) -> None:
    steps, gate = Steps(), asyncio.Event()
    tasks: list[asyncio.Task[Any] | None] = []

    async def generator() -> AsyncIterator[str]:
        tasks.append(asyncio.current_task())
        try:
            for _ in range(items):
                yield "x"
            steps("waits")
            await gate.wait()
        finally:
            await asyncio.sleep(0)
            tasks.append(asyncio.current_task())
            steps("closed")

    served = await serving(streaming(generator), timeouts=Timeouts(grace=3, request=30, linger=0.5))
    peer = await served.ask(get())
    await steps.reach("waits")
    await end(served, peer, clock, gate)
    await steps.reach("waits", "closed")
    assert tasks[0] is tasks[1]
    await clock.advance(1)


@pytest.mark.parametrize("end", ENDS[1:])
async def test_a_generator_held_by_its_reader_is_closed(
    serving: Serving, clock: Clock, end: Callable[..., Awaitable[None]]
) -> None:
    steps = Steps()

    async def generator() -> AsyncIterator[bytes]:
        try:
            while True:
                yield bytes(1_000_000)
        finally:
            steps("closed")

    served = await serving(
        streaming(generator, format="bytes"), timeouts=Timeouts(grace=3, request=30, write_stall=60, linger=0.5)
    )
    peer = await served.connect(receive_buffer=16384)
    await peer.send(get())
    await peer.until(b"\r\n\r\n")
    await settle()
    assert steps.done == []
    await end(served, peer, clock, asyncio.Event())
    await steps.reach("closed")
    await clock.advance(1)


@pytest.mark.parametrize("before", [0, 1], ids=["first", "later"])
async def test_a_generator_whose_item_cannot_be_sent_is_closed_within_its_task(
    serving: Serving, failures: Failures, before: int
) -> None:
    """It stands at its `yield`, where no cancellation reaches it."""
    steps = Steps()
    tasks: list[asyncio.Task[Any] | None] = []

    async def items() -> AsyncIterator[Any]:
        tasks.append(asyncio.current_task())
        try:
            for _ in range(before):
                yield "x"
                await asyncio.sleep(0)
            yield object()
        finally:
            await asyncio.sleep(0)
            tasks.append(asyncio.current_task())
            steps("closed")

    kept: list[AsyncIterator[Any]] = []  # so that it is not the collector that closes it

    def make() -> AsyncIterator[Any]:
        kept.append(items())
        return kept[0]

    served = await serving(streaming(make, format="ndjson"), timeouts=Timeouts(linger=0, grace=60))
    peer = await served.ask(get("/", None, "Connection: close"))
    assert not (await peer.rest()).endswith(LAST_CHUNK)
    await steps.reach("closed")
    assert tasks[0] is tasks[1]
    assert isinstance(failures.take(), errors.ItemError)


async def test_a_handler_that_waits_for_a_body_is_cancelled_by_every_end(serving: Serving, clock: Clock) -> None:
    steps = Steps()

    async def handler(request: Request) -> Response:
        steps("reads")
        try:
            await request.body()
        finally:
            steps("over")
        return Response()

    served = await serving(handler, timeouts=Timeouts(grace=1))
    await served.ask(request("/", "Content-Length: 10", method="POST"))
    await steps.reach("reads")
    draining = served.server.close()
    await clock.advance(1.5)
    await draining
    assert steps.done == ["reads", "over"]


# -- generators that will not end --------------------------------------------------------------------------------------


Kind = Callable[["Stubborn"], AsyncIterator[str]]


class Stubborn:
    """Generators that will not end before the test lets them; `turns` counts what they do meanwhile."""

    def __init__(self) -> None:
        self.over = asyncio.Event()
        self.turns = 0
        self.steps = Steps()
        self.made: list[AsyncIterator[str]] = []  # kept: Python complains of what will not end when it is collected

    def make(self, kind: Kind) -> AsyncIterator[str]:
        self.made.append(kind(self))
        return self.made[-1]

    async def wait(self) -> None:
        """For ever; a real program would wait for something that does not come."""
        await self.over.wait()

    async def swallows_and_yields(self) -> AsyncIterator[str]:
        """It yields on whatever it is told, and never waits."""
        while not self.over.is_set():
            try:
                self.turns += 1
                yield "x"
            except BaseException:
                if self.over.is_set():
                    raise

    async def swallows_waits_and_yields(self) -> AsyncIterator[str]:
        """It yields and waits on whatever it is told."""
        while not self.over.is_set():
            try:
                self.turns += 1
                yield "x"
                await self.wait()
            except BaseException:
                if self.over.is_set():
                    raise

    async def swallows_and_waits(self) -> AsyncIterator[str]:
        """It waits on whatever it is told, and never comes back."""
        yield "x"
        while not self.over.is_set():
            try:
                self.turns += 1
                await self.wait()
            except BaseException:
                pass

    async def yields_once_more(self) -> AsyncIterator[str]:
        """It has one more item for whoever closes it."""
        try:
            yield "x"
            await self.wait()
        finally:
            self.steps("once more")
            yield "y"

    async def waits_in_finally(self) -> AsyncIterator[str]:
        """Its clean-up waits for what does not come."""
        try:
            yield "x"
            await self.wait()
        finally:
            self.steps("finally")
            await self.wait()

    async def waits_twice_in_finally(self) -> AsyncIterator[str]:
        """So does the clean-up of its clean-up."""
        try:
            yield "x"
            await self.wait()
        finally:
            try:
                await self.wait()
            finally:
                await self.wait()

    async def raises_in_finally(self) -> AsyncIterator[str]:
        """Its clean-up fails."""
        try:
            yield "x"
            await self.wait()
        finally:
            raise ZeroDivisionError("in finally")


KINDS = [
    Stubborn.swallows_and_yields,
    Stubborn.swallows_waits_and_yields,
    Stubborn.swallows_and_waits,
    Stubborn.yields_once_more,
    Stubborn.waits_in_finally,
    Stubborn.waits_twice_in_finally,
    Stubborn.raises_in_finally,
]
EXPECTED = {  # how many words it takes in the log, where that is not one
    Stubborn.yields_once_more: {0},
    Stubborn.swallows_waits_and_yields: {1, 2},  # that it does not end, and that it ignored its `aclose()`
}


@pytest.fixture
def stubborn(orderly: None) -> Any:
    stubborn = Stubborn()
    yield stubborn
    stubborn.over.set()


async def opened(serving: Serving, stubborn: Stubborn, kind: Kind, **options: Any) -> tuple[Served, Peer]:
    served = await serving(streaming(lambda: stubborn.make(kind)), **options)
    peer = await served.connect(receive_buffer=16384)
    await peer.send(get())
    await peer.until(chunk(b"x") if kind is not Stubborn.swallows_and_yields else b"x")
    await settle()
    return served, peer


@pytest.mark.parametrize("kind", KINDS)
async def test_a_generator_that_will_not_end_is_told_of_once_and_the_server_goes_on(
    serving: Serving, failures: Failures, clock: Clock, stubborn: Stubborn, kind: Kind
) -> None:
    served, peer = await opened(serving, stubborn, kind, timeouts=Timeouts(clean_up=5, grace=60))
    peer.reset()
    await gone(served)
    await served_as_ever(served)
    await clock.advance(12)
    turns = stubborn.turns
    await clock.advance(12)
    assert stubborn.turns == turns, "it still keeps the loop busy"
    told = [record.getMessage() for record in failures.records]
    failures.records.clear()
    assert len(told) in EXPECTED.get(kind, {1}), told
    await served_as_ever(served)
    stubborn.over.set()
    await settle()
    assert failures.records == []


@pytest.mark.parametrize("kind", KINDS)
async def test_closing_ends_in_its_time_although_a_generator_will_not(
    serving: Serving, failures: Failures, clock: Clock, stubborn: Stubborn, kind: Kind
) -> None:
    served, peer = await opened(serving, stubborn, kind, timeouts=Timeouts(clean_up=5, grace=3))
    draining = served.server.close()
    began = clock.time()
    while not draining.done():
        await clock.advance(0.125)
        assert clock.time() - began < 3 + 2 + 1
    assert served.server.connections == 0, "its reader hangs on"
    await peer.rest()
    assert peer.ending
    turns = stubborn.turns
    await clock.advance(5)
    assert stubborn.turns == turns, "it still keeps the loop busy"
    told = [record.getMessage() for record in failures.records]
    failures.records.clear()
    assert len(told) <= 2, told  # that it is left behind, and what it fails with


@pytest.mark.parametrize("how", ["closed again", "cancelled"])
@pytest.mark.parametrize("kind", KINDS)
async def test_a_second_close_ends_in_two_seconds_although_a_generator_will_not(
    serving: Serving, failures: Failures, clock: Clock, stubborn: Stubborn, kind: Kind, how: str
) -> None:
    served, peer = await opened(serving, stubborn, kind, timeouts=Timeouts(grace=60))
    closing = served.server.close()
    await settle()
    _ = served.server.close() if how == "closed again" else closing.cancel()
    await clock.advance(3)
    assert served.server.left_behind == sum("left behind" in record.getMessage() for record in failures.records)
    failures.records.clear()
    await served.server.wait_closed()
    assert served.server.connections == 0
    await peer.rest()


async def test_a_coroutine_that_will_not_end_is_told_of_once_too(
    serving: Serving, failures: Failures, clock: Clock, stubborn: Stubborn
) -> None:
    async def handler(request: Request) -> Response:
        if request.path == "/ok":
            return Response.text("/ok")
        while not stubborn.over.is_set():
            try:
                stubborn.turns += 1
                await stubborn.wait()
            except asyncio.CancelledError:
                pass
        return Response()

    served = await serving(handler, timeouts=Timeouts(clean_up=5, grace=60))
    peer = await served.ask(get())
    await until(lambda: stubborn.turns == 1)
    peer.reset()
    await clock.advance(20)
    told = [record.getMessage() for record in failures.records]
    failures.records.clear()
    assert len(told) == 1
    assert stubborn.turns == 3  # begun, told, told again
    await served_as_ever(served)


async def test_a_handler_that_swallowed_a_cancellation_learns_that_its_client_is_gone(
    serving: Serving, failures: Failures, clock: Clock
) -> None:
    """As libraries did before there was `uncancel`: its task seems to be cancelled for ever."""
    steps = Steps()

    async def handler(request: Request) -> Response:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0)
        try:
            steps("goes on")
            await asyncio.get_running_loop().create_future()
        finally:
            steps("ends")
        raise AssertionError

    served = await serving(handler, timeouts=Timeouts(clean_up=5, grace=60))
    peer = await served.ask(get())
    await steps.reach("goes on")
    peer.reset()
    await clock.advance(4.5)
    assert steps.done == ["goes on"]
    await clock.advance(1)
    assert steps.done == ["goes on", "ends"]
    assert served.server.connections == 0
    assert "has not ended 5 s after it was told to" in failures.records.pop().getMessage()
    await clock.advance(1)
    assert not any(bucket for bucket, _ in served.server._service.deadlines._buckets.values())


async def test_a_clean_up_that_waits_too_long_is_cancelled_and_its_own_finally_runs(
    serving: Serving, failures: Failures, clock: Clock
) -> None:
    steps = Steps()

    async def items() -> AsyncIterator[str]:
        try:
            yield "x"
            await asyncio.get_running_loop().create_future()
        finally:
            try:
                steps("closes the upstream")
                await asyncio.get_running_loop().create_future()
            finally:
                steps("gave up")

    served = await serving(streaming(items), timeouts=Timeouts(clean_up=5, grace=60))
    peer = await served.ask(get())
    await peer.until(chunk(b"x"))
    peer.reset()
    await clock.advance(4.75)
    assert steps.done == ["closes the upstream"]
    assert failures.records == []
    await clock.advance(1)
    assert steps.done == ["closes the upstream", "gave up"]
    assert len(failures.records) == 1
    failures.records.clear()


async def test_a_clean_up_within_its_time_is_not_disturbed_and_nothing_is_said(serving: Serving, clock: Clock) -> None:
    steps = Steps()

    async def items() -> AsyncIterator[str]:
        try:
            yield "x"
            await asyncio.get_running_loop().create_future()
        finally:
            await asyncio.sleep(4)
            steps("cleaned up")

    served = await serving(streaming(items), timeouts=Timeouts(clean_up=5, grace=60))
    peer = await served.ask(get())
    await peer.until(chunk(b"x"))
    peer.reset()
    await clock.advance(4.5)
    assert steps.done == ["cleaned up"]


async def test_a_clean_up_after_a_stream_that_was_complete_keeps_its_connection_only_so_long(
    serving: Serving, failures: Failures, clock: Clock, stubborn: Stubborn
) -> None:
    """The last chunk has left, and the reader is content; but the next request waits behind the generator's end."""

    class Items:
        def __init__(self) -> None:
            self._left = 1

        def __aiter__(self) -> Items:
            return self

        async def __anext__(self) -> str:
            if not self._left:
                raise StopAsyncIteration
            self._left -= 1
            return "x"

        async def aclose(self) -> None:
            await stubborn.wait()

    served = await serving(streaming(Items), timeouts=Timeouts(clean_up=5, grace=60))
    peer = await served.ask(get())
    await peer.until(LAST_CHUNK)
    await clock.advance(8)
    peer.close()
    await clock.advance(8)
    assert served.server.connections == 0
    assert len(failures.records) == 1
    failures.records.clear()


async def test_a_generator_that_fails_before_its_first_item_and_in_its_clean_up_is_a_500(
    serving: Serving, failures: Failures
) -> None:
    async def items() -> AsyncIterator[str]:
        try:
            raise LookupError
            yield "x"
        finally:
            raise ZeroDivisionError

    served = await serving(streaming(items))
    peer = await served.ask(get())
    assert (await peer.head()).startswith(b"HTTP/1.1 500 ")
    failed = failures.take()
    assert isinstance(failed, ZeroDivisionError)
    assert isinstance(failed.__context__, LookupError)
    await served_as_ever(served)


async def test_a_disconnect_during_the_generators_own_timeout_is_not_lost(serving: Serving, clock: Clock) -> None:
    """The task is being cancelled already, by `asyncio.timeout`, whose scope has something to clean up."""
    steps, cleaned = Steps(), asyncio.Event()

    async def items() -> AsyncIterator[str]:
        try:
            yield "x"
            try:
                async with asyncio.timeout(1):
                    try:
                        await asyncio.get_running_loop().create_future()
                    finally:
                        steps("cleans up")
                        await cleaned.wait()
            except TimeoutError:
                steps("goes on")
            await asyncio.get_running_loop().create_future()
        finally:
            steps("closed")

    served = await serving(streaming(items))
    peer = await served.ask(get())
    await peer.until(chunk(b"x"))
    await clock.advance(1.25)
    await steps.reach("cleans up")
    peer.reset()
    await gone(served)
    assert steps.done == ["cleans up"]
    cleaned.set()
    await clock.advance(2)
    assert steps.done in (["cleans up", "goes on", "closed"], ["cleans up", "closed"])


async def test_a_generator_may_hold_a_task_group_across_its_end(serving: Serving) -> None:
    """Its tasks end with it."""
    steps = Steps()

    async def part() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            steps("part")

    async def items() -> AsyncIterator[str]:
        async with asyncio.TaskGroup() as group:
            group.create_task(part())
            group.create_task(part())
            yield "x"
            steps("waits")
            await asyncio.get_running_loop().create_future()

    served = await serving(streaming(items))
    peer = await served.ask(get())
    await steps.reach("waits")
    peer.reset()
    await steps.reach("waits", "part", "part")
    await gone(served)


# -- many at random ----------------------------------------------------------------------------------------------------


class Upstream:
    """A handler whose streams claim something, give items at random moments, and count what is left of them."""

    def __init__(self, dice: random.Random) -> None:
        self.dice = dice
        self.opened = 0
        self.claimed = 0
        self.disturbed = 0  # clean-ups that were cancelled, although it was a cancellation that had begun them

    async def __call__(self, request: Request) -> Stream:
        self.opened += 1
        size = self.dice.choice([1, 100, 40_000])
        form = self.dice.choice(["sse", "text", "ndjson"])
        return Stream(self.items(size), format=form, head="suspend", heartbeat=self.dice.choice([None, 0.01, 15.0]))

    async def items(self, size: int) -> AsyncIterator[str]:
        if self.dice.random() < 0.1:
            await asyncio.sleep(0)
        self.claimed += 1
        told = False
        try:
            for _ in range(self.dice.randrange(12)):
                yield "x" * size
                if self.dice.random() < 0.7:
                    await asyncio.sleep(0)
            if self.dice.random() < 0.5:
                await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            told = True
            raise
        finally:
            try:
                if self.dice.random() < 0.3:
                    await asyncio.sleep(0)
            except asyncio.CancelledError:
                self.disturbed += told
                raise
            finally:
                self.claimed -= 1


async def open_and_kill(served: Served, dice: random.Random) -> None:
    """One client that leaves at any moment, in any way."""
    peer = await Peer.connect(served.server.addresses[0], receive_buffer=dice.choice([None, 4096]))
    try:
        data = get("/")
        cut = dice.choice([0, 10, len(data), len(data), len(data), len(data)])
        await peer.send(data[:cut])
        for _ in range(dice.randrange(6)):
            await asyncio.sleep(0)
        if cut == len(data) and dice.random() < 0.5:
            await peer._more()
    finally:
        match dice.randrange(3):
            case 0:
                peer.reset()
            case 1:
                peer.close()
            case _:
                peer.finish()
                await asyncio.sleep(0)
                peer.close()


def generators() -> int:
    """How many of the generators of `Upstream` there are."""
    code = Upstream.items.__code__
    return sum(1 for thing in gc.get_objects() if type(thing) is AsyncGeneratorType and thing.ag_code is code)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


async def test_thousands_of_streams_killed_at_random_leave_nothing_behind(serving: Serving) -> None:
    asyncio.get_running_loop().set_debug(False)
    dice = random.Random(20261122)
    upstream = Upstream(dice)
    served = await serving(upstream, timeouts=Timeouts(grace=60, linger=0))

    async def round_of(count: int) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(count):
                group.create_task(open_and_kill(served, dice))
        await gone(served)
        await until(lambda: not served.server._tasks)
        await settle()
        gc.collect()

    await round_of(100)  # whatever is made once, is made now
    tasks, files = len(asyncio.all_tasks()), descriptors()
    blocks = sys.getallocatedblocks()
    for _ in range(19):
        await round_of(100)
    grown = sys.getallocatedblocks() - blocks
    assert upstream.opened > 800
    assert (upstream.claimed, upstream.disturbed) == (0, 0)
    assert generators() == 0
    assert len(asyncio.all_tasks()) == tasks
    assert descriptors() == files
    assert grown < 6_000  # pieces of memory: a stream that is left over has 40 of them, and the loop keeps some too


async def test_thousands_of_streams_on_kept_connections_leave_nothing_behind(serving: Serving) -> None:
    """The same without a disconnect: what one request leaves would add up on its connection."""
    asyncio.get_running_loop().set_debug(False)

    async def items() -> AsyncIterator[str]:
        yield "x"
        await asyncio.sleep(0)

    served = await serving(streaming(items, format="sse"), limits=Limits(requests=10_000))
    peers = [await served.connect() for _ in range(10)]

    async def ask(peer: Peer, times: int) -> None:
        for _ in range(times):
            await peer.send(get())
            assert await peer.head() == SSE_HEAD.replace(b"Vary: Accept\r\n", b"")
            await peer.until(LAST_CHUNK)

    async def ask_all(times: int) -> None:
        await asyncio.gather(*(ask(peer, times) for peer in peers))
        gc.collect()

    await ask_all(10)
    blocks = sys.getallocatedblocks()
    await ask_all(60)
    assert sys.getallocatedblocks() - blocks < 600  # less than one for each stream
    assert len(served.server._service.deadlines._buckets) < 200


async def test_whatever_became_of_a_stream_it_is_no_longer_counted(
    serving: Serving, failures: Failures, clock: Clock
) -> None:
    async def handler(request: Request) -> AsyncIterator[str]:
        if request.path == "/fails":
            raise ZeroDivisionError
        yield "x"
        if request.path == "/breaks":
            await asyncio.sleep(0)
            raise ZeroDivisionError
        if request.path == "/waits":
            await asyncio.get_running_loop().create_future()

    before = observe.counts.under_way, len(observe.open_streams)
    served = await serving(
        handler,
        timeouts=Timeouts(first_item=2, request=5, head=5, keep_alive=5, linger=0, grace=60),
        limits=Limits(streams=2),
    )
    asked = [
        get("/fails"),
        get("/breaks", SSE),
        get("/waits", SSE),
        get("/waits"),
        get("/"),
        get("/", "image/png"),
        get("/waits")[:20],
        request("/", method="HEAD"),
        b"nonsense\r\n\r\n",
    ]
    for number in range(4 * len(asked)):
        peer = await served.ask(asked[number % len(asked)])
        await settle()
        if number % 4 == 3:
            peer.reset()
    await clock.advance(12)
    assert (observe.counts.under_way, len(observe.open_streams)) == before
    assert (served.server._service.streams, served.server.connections) == (0, 0)
    assert all(isinstance(failures.take(), ZeroDivisionError) for _ in range(len(failures.records)))


# -- what a refusal leaves ---------------------------------------------------------------------------------------------


async def test_thousands_of_refusals_leave_nothing_behind(serving: Serving) -> None:
    asyncio.get_running_loop().set_debug(False)

    async def items() -> AsyncIterator[str]:
        yield "x"

    served = await serving(streaming(items), limits=Limits(connections=5), timeouts=Timeouts(linger=0.05, grace=60))
    bad = [b"nonsense\r\n\r\n", get("/" + "x" * 9_000), get("/", None, "X: " + "y" * 20_000), b"G"]

    async def refused(number: int) -> None:
        peer = await Peer.connect(served.server.addresses[0])
        try:
            await peer.send(bad[number % len(bad)])
            await asyncio.sleep(0)
        except OSError:  # the refusal of a connection too many may come first
            pass
        finally:
            peer.close()

    async def round_of(count: int) -> None:
        await asyncio.gather(*(refused(number) for number in range(count)))
        await gone(served)
        await until(lambda: not served.server._tasks)
        gc.collect()

    # What is kept for later, such as the last 128 heads, has to be full before anything is counted.
    blocks = 0
    for _ in range(30):
        await round_of(40)
        before, blocks = blocks, sys.getallocatedblocks()
        if abs(blocks - before) < 100:
            break
    files = descriptors()
    for _ in range(12):
        await round_of(40)
    grown = sys.getallocatedblocks() - blocks
    assert descriptors() == files
    assert len(served.server._tasks) == 0
    assert grown < 3_000  # pieces of memory: a connection that is left over has 40 of them
    await served_as_ever(served)


class Large:
    """What a generator may hold in a local variable."""


@pytest.mark.parametrize("end", [by_disconnect, by_the_end_of_sending])
@pytest.mark.parametrize("full", [True, False], ids=["held by its reader", "waiting"])
async def test_what_a_generator_held_goes_with_its_reader_and_not_at_the_next_collection(
    serving: Serving, end: Callable[..., Awaitable[None]], full: bool
) -> None:
    steps, gate = Steps(), asyncio.Event()
    held: list[weakref.ref[Large]] = []

    async def generator() -> AsyncIterator[bytes]:
        large = Large()
        held.append(weakref.ref(large))
        try:
            while full:
                yield bytes(1_000_000)
            yield b"x"
            await gate.wait()
        finally:
            steps("closed")

    served = await serving(streaming(generator, format="bytes"))
    peer = await served.connect(receive_buffer=16384)
    await peer.send(get())
    await peer.until(b"\r\n\r\n")
    await settle()
    gc.collect()
    gc.disable()
    try:
        await end(served, peer, None, gate)
        await steps.reach("closed")
        await gone(served)
        await settle()
        assert held[0]() is None
    finally:
        gc.enable()
