"""The pump: what it writes and when, and where each exception goes. Most tests run as tasks on both event loops; some
drive the pump's coroutine by hand, as a loop would, where the exact moment matters.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import sys
import time
import weakref
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Coroutine, Generator, Iterator
from typing import Any

import pytest
from hypothesis import given, settings, strategies
from support import Wait, forever, settle

from rawstream.driving import close
from rawstream.errors import Disconnected, ItemError
from rawstream.pump import GATHER, TURN, Pump
from rawstream.sink import Way

Log = list[Any]


@pytest.fixture(autouse=True)
def a_slow_machine_flushes_no_sooner() -> None:
    """Nor here, where the clock is moved by hand."""


class Gone(Disconnected):
    """The reader is gone."""


class Failed(Exception):
    """Something of the handler's failed."""


class Clock:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Timer:
    """What `Sink.later` gives."""

    def __init__(self, log: Log, seconds: float, callback: Callable[[], None]) -> None:
        self._log, self.seconds, self.due = log, seconds, callback
        self.cancelled = False

    def cancel(self) -> str:
        self.cancelled = True
        return "what cancel() returns is nobody's business"


class Sink:
    """Writes down what is done to it. A test makes it fall behind and catch up, or lose its reader."""

    def __init__(self, log: Log | None = None) -> None:
        self.log: Log = [] if log is None else log
        self.writable = True
        self.chunks = 0
        self.timers: list[Timer] = []
        self.on_write: Callable[[bytes], None] = lambda payload: None
        self._caught_up: asyncio.Future[None] | None = None
        self._reader_gone = False

    def write(self, payload: bytes) -> bool:
        self.log.append(payload)
        self.on_write(payload)
        return self.writable

    def way(self) -> Way:
        assert self.written, "the first is written by `write`, which may have to begin the body"

        def frame(part: bytes) -> bytes:
            assert part, "an empty piece would end a chunked body"
            return part

        return frame, self

    async def drain(self) -> None:
        self.log.append("drain")
        if self._reader_gone:
            raise Gone
        self._caught_up = asyncio.get_running_loop().create_future()
        await self._caught_up

    def catch_up(self) -> None:
        assert self._caught_up is not None
        self.writable = True
        self._caught_up.set_result(None)

    def lose_reader(self) -> None:
        self._reader_gone, self.writable = True, False
        if self._caught_up is not None:
            self._caught_up.set_exception(Gone())

    def later(self, seconds: float, callback: Callable[[], None]) -> Timer:
        self.timers.append(Timer(self.log, seconds, callback))
        return self.timers[-1]

    @property
    def written(self) -> list[bytes]:
        """The writes that had something in them."""
        return [entry for entry in self.log if isinstance(entry, bytes) and entry]


def encode(item: str) -> bytes:
    if item == "unfit":
        raise Failed
    return item.encode()


def pump(iterator: AsyncIterable[str], sink: Sink, **options: Any) -> Pump:
    """A Pump of strings; time stands still unless the test has a clock of its own."""
    return Pump(iterator, encode, sink, **{"clock": Clock(), **options})


LONE = ["1", "2", "3"]  # as many items as have to come one by one for the pump to move them so


def start(running: Awaitable[Any]) -> asyncio.Task[Any]:
    async def run() -> Any:
        return await running

    return asyncio.get_running_loop().create_task(run())


async def owned(pump: Pump) -> int:
    """What a connection does with a pump; gives how many cancellations are left over when it has ended."""
    await pump.run()
    task = asyncio.current_task()
    assert task is not None
    return task.cancelling()


def step(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Drive as a loop does, up to the next wait; gives what is waited for."""
    return coroutine.send(None)


def finish(coroutine: Coroutine[Any, Any, Any], value: Any = None) -> Any:
    """Drive to the end."""
    with pytest.raises(StopIteration) as done:
        coroutine.send(value)
    return done.value.value


# -- flush before wait -------------------------------------------------------------------------------------------------


def test_what_is_gathered_is_written_before_the_wait_is_handed_up() -> None:
    async def items() -> AsyncIterator[str]:
        yield "a"
        yield "b"
        await Wait("first")
        yield "c"
        await Wait("second")
        yield "d"

    sink = Sink()
    gathering = pump(items(), sink)
    running = gathering.run()
    assert sink.log == []
    assert step(running) == "first"
    assert sink.log == [b"ab"]
    assert step(running) == "second"
    assert sink.log == [b"ab", b"c"]
    finish(running)
    assert sink.log == [b"ab", b"c"]
    assert gathering.take() == b"d"
    assert gathering.take() == b""


async def test_a_generator_can_wait_for_the_reaction_to_its_last_item() -> None:
    seen = asyncio.Event()

    async def items() -> AsyncIterator[str]:
        yield "question"
        await seen.wait()
        yield "answer"

    sink = Sink()
    sink.on_write = lambda payload: seen.set()
    gathering = pump(items(), sink)
    await gathering.run()
    assert sink.log == [b"question"]
    assert gathering.take() == b"answer"


async def test_the_first_wait_is_told_with_an_empty_write() -> None:
    gate = asyncio.Event()

    async def items() -> AsyncIterator[str]:
        await gate.wait()
        yield "a"

    sink = Sink()
    gathering = pump(items(), sink)
    task = start(gathering.run())
    await settle()
    assert sink.log == [b""]
    gate.set()
    await task
    assert sink.log == [b""]
    assert gathering.take() == b"a"


def test_every_wait_is_told_also_when_nothing_came_since_the_last() -> None:
    async def items() -> AsyncIterator[str]:
        yield "a"
        await Wait(1)
        await Wait(2)
        yield "b"
        await Wait(3)

    sink = Sink()
    running = pump(items(), sink).run()
    assert [step(running), step(running), step(running)] == [1, 2, 3]
    finish(running)
    assert sink.log == [b"a", b"", b"b"]


async def test_items_without_a_wait_are_left_for_the_end_to_take() -> None:
    async def items() -> AsyncIterator[str]:
        yield "a"
        yield "b"

    sink = Sink()
    gathering = pump(items(), sink)
    await gathering.run()
    assert sink.log == []
    assert gathering.take() == b"ab"


async def test_an_empty_iterator_ends_without_a_write() -> None:
    async def items() -> AsyncIterator[str]:
        return
        yield

    sink = Sink()
    gathering = pump(items(), sink)
    await gathering.run()
    assert sink.log == []
    assert gathering.take() == b""


async def test_an_item_that_is_encoded_as_nothing_writes_nothing() -> None:
    async def items() -> AsyncIterator[str]:
        yield ""
        await asyncio.sleep(0)
        yield ""

    sink = Sink()
    gathering = pump(items(), sink)
    await gathering.run()
    assert sink.log == [b""]
    assert gathering.take() == b""


async def test_as_many_bytes_as_gather_are_written_and_the_loop_runs() -> None:
    log: Log = []

    async def items() -> AsyncIterator[str]:
        for item in ("aaa", "bbb", "cc", "ddd", "eee", "fff", "g"):
            log.append(item)
            if item == "cc":
                asyncio.get_running_loop().call_soon(log.append, "loop")
            yield item

    gathering = pump(items(), Sink(log), gather=8)
    await gathering.run()
    # 8 bytes are enough, 6 are not; then the pump's own rest, which is a wait like any other.
    assert log == ["aaa", "bbb", "cc", b"aaabbbcc", b"", "loop", "ddd", "eee", "fff", b"dddeeefff", b"", "g"]
    assert gathering.take() == b"g"


async def test_what_is_gathered_can_exceed_gather_by_one_item_only() -> None:
    async def items() -> AsyncIterator[str]:
        for size in (7, 100, 8, 1):
            yield "x" * size

    sink = Sink()
    gathering = pump(items(), sink, gather=8)
    await gathering.run()
    assert [len(payload) for payload in sink.written] == [107, 8]
    assert gathering.take() == b"x"


async def test_by_default_16_kib_are_gathered() -> None:
    assert GATHER == 16384

    async def items() -> AsyncIterator[str]:
        yield "x" * 16383
        yield "y"
        yield "z"

    sink = Sink()
    gathering = Pump(items(), str.encode, sink, clock=Clock())
    await gathering.run()
    assert sink.written == [b"x" * 16383 + b"y"]
    assert gathering.take() == b"z"


# -- a millisecond -----------------------------------------------------------------------------------------------------


async def test_an_iterator_that_never_waits_shows_its_items_each_millisecond_and_lets_the_loop_run() -> None:
    assert TURN == 0.001
    log: Log = []
    clock = Clock()

    async def items() -> AsyncIterator[str]:
        for item in "abcdefgh":
            asyncio.get_running_loop().call_soon(log.append, f"loop after {item}")
            clock.now += 0.0004
            yield item

    gathering = pump(items(), Sink(log), clock=clock)
    await gathering.run()
    await settle()
    loop = [f"loop after {item}" for item in "abcdefgh"]
    assert log == [b"abc", *loop[:3], b"def", *loop[3:6], *loop[6:]]
    assert gathering.take() == b"gh"


async def test_a_millisecond_counts_from_when_it_is_full() -> None:
    clock = Clock()
    clock.now = 0.0  # so that the sums are exact

    async def items() -> AsyncIterator[str]:
        yield "a"
        clock.now = 0.0009999
        yield "b"
        clock.now = 0.001
        yield "c"
        yield "d"

    sink = Sink()
    gathering = pump(items(), sink, clock=clock)
    await gathering.run()
    assert sink.log == [b"abc"]
    assert gathering.take() == b"d"


async def test_time_in_which_the_iterator_waited_does_not_count() -> None:
    clock = Clock()

    async def items() -> AsyncIterator[str]:
        yield "a"
        await asyncio.sleep(0)
        clock.now += 3600
        yield "b"
        clock.now += 0.0009
        yield "c"
        await asyncio.sleep(0)
        clock.now += 3600
        yield "d"
        yield "e"
        clock.now += 0.0011
        yield "f"
        yield "g"

    sink = Sink()
    gathering = pump(items(), sink, clock=clock)
    await gathering.run()
    assert sink.log == [b"a", b"bc", b"def"]
    assert gathering.take() == b"g"


async def test_items_that_come_alone_need_no_clock() -> None:
    looks = 0

    def clock() -> float:
        nonlocal looks
        looks += 1
        return 1000.0

    async def items() -> AsyncIterator[str]:
        for item in "abc":
            await asyncio.sleep(0)
            yield item

    sink = Sink()
    await pump(items(), sink, clock=clock).run()
    assert sink.written == [b"a", b"b"]
    assert looks == 1, "when it began"


async def test_the_clock_is_the_monotonic_one() -> None:
    """An iterator that computes until a real millisecond has passed is interrupted, however fast the machine is."""

    async def items() -> AsyncIterator[str]:
        began = time.monotonic()
        yield "a"
        while time.monotonic() < began + 2 * TURN:
            pass
        yield "b"
        yield "c"

    sink = Sink()
    gathering = Pump(items(), str.encode, sink)
    await gathering.run()
    assert b"".join(sink.written) + gathering.take() == b"abc"
    assert sink.written[0] in (b"a", b"ab")


# -- items that come one by one ----------------------------------------------------------------------------------------


class Disguised:
    """A generator that does not look like one, so that its items are always gathered."""

    def __init__(self, iterator: AsyncIterator[str]) -> None:
        self._iterator = iterator

    def __aiter__(self) -> AsyncIterator[str]:
        return self

    async def __anext__(self) -> str:
        return await anext(self._iterator)


ITEMS = strategies.sampled_from(["a", "bcd", "0123456789", "0123456789abcdef", "", "unfit"])
# Items, of which there is mostly one, and what arrives at the wait after them: nothing, or one of two failures.
ROUNDS = strategies.tuples(
    strategies.one_of(ITEMS.map(lambda item: [item]), strategies.lists(ITEMS, max_size=3)),
    strategies.sampled_from([None, None, None, "failure", "loss"]),
)


@settings(max_examples=500, derandomize=True, deadline=None)
@given(rounds=strategies.lists(ROUNDS, max_size=12), behind=strategies.sets(strategies.integers(1, 9), max_size=3))
def test_the_shortest_way_of_lone_items_does_what_gathering_does(
    rounds: list[tuple[list[str], str | None]], behind: set[int]
) -> None:
    """The same writes at the same moments, the same exceptions in the same places, the same left in the end."""

    async def items(log: Log) -> AsyncIterator[str]:
        try:
            for number, (together, arrives) in enumerate(rounds):
                for item in together:
                    yield item
                    log.append("resumed")
                try:
                    await Wait((number, arrives))
                except Failed:
                    log.append("caught")
                except Gone:
                    log.append("told")
                    raise
        finally:
            log.append("finally")

    def driven(kind: Callable[[AsyncIterator[str]], AsyncIterable[str]]) -> Log:
        log: Log = []

        class Slow(Sink):
            async def drain(self) -> None:
                await Wait("drain")
                self.writable = True

        sink = Slow(log)

        def fall_behind(payload: bytes) -> None:
            sink.writable = len(sink.written) not in behind

        sink.on_write = fall_behind
        gathering = pump(kind(items(log)), sink, gather=16)
        running = gathering.run()
        try:
            waits_for = running.send(None)
            while True:
                log.append(waits_for)
                match waits_for:
                    case (int(), "failure"):
                        waits_for = running.throw(Failed())
                    case (int(), "loss"):
                        waits_for = running.throw(Gone())
                    case _:
                        waits_for = running.send(None)
        except StopIteration:
            log.append("ended")
        except (Failed, Gone) as error:
            log.append(type(error))
        return [entry for entry in log if entry != b""] + [gathering.taken, gathering.take()]

    assert driven(lambda iterator: iterator) == driven(Disguised)


@pytest.mark.usefixtures("no_gc")
async def test_what_a_lone_items_generator_waited_for_is_not_kept_while_it_waits_on() -> None:
    refs: list[weakref.ref[asyncio.Future[None]]] = []

    async def items() -> AsyncIterator[str]:
        for item in LONE:
            await asyncio.sleep(0)
            yield item
        future = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(future.set_result, None)
        refs.append(weakref.ref(future))
        await future
        del future
        await forever()

    task = start(pump(items(), Sink()).run())
    await settle()
    assert [ref() for ref in refs] == [None]
    task.cancel()
    await asyncio.wait([task])


@pytest.mark.usefixtures("no_gc")
async def test_an_exception_that_a_lone_items_generator_has_dealt_with_is_over() -> None:
    seen: Log = []
    refs: list[weakref.ref[Canary]] = []

    async def helper() -> None:
        canary = Canary()
        refs.append(weakref.ref(canary))
        await forever()

    async def items() -> AsyncIterator[str]:
        for item in LONE:
            await asyncio.sleep(0)
            yield item
        try:
            await helper()
        except asyncio.CancelledError:
            seen.append("told")
        seen.append(sys.exc_info()[1])
        await asyncio.sleep(0)
        seen.append([ref() for ref in refs])
        raise Failed

    task = start(pump(items(), Sink()).run())
    await settle()
    task.cancel()
    with pytest.raises(Failed) as failed:
        await task
    assert seen == ["told", None, [None]]
    assert failed.value.__context__ is None


async def unfit_after_lone_ones(together: bool) -> AsyncIterator[str]:
    for item in LONE:
        await asyncio.sleep(0)
        yield item
    if not together:
        await asyncio.sleep(0)
    yield "unfit"


@pytest.mark.parametrize("together", [False, True])
async def test_what_the_encoder_raises_at_a_lone_item_comes_out_as_it_is(together: bool) -> None:
    def strict(item: str) -> bytes:
        if item == "unfit":
            raise StopAsyncIteration
        return item.encode()

    iterator = unfit_after_lone_ones(together)
    with pytest.raises(StopAsyncIteration) as raised:
        pumping = Pump(iterator, strict, Sink(), clock=Clock()).run()
        while True:
            pumping.send(None)
    assert raised.value.__context__ is None
    await close(iterator)


@pytest.mark.usefixtures("no_gc")
async def test_lone_items_are_not_kept_while_others_are_gathered() -> None:
    made: list[bytes] = []

    def encode(item: str) -> bytes:
        made.append(item.encode() * 2)  # those of a single byte are kept by Python
        return made[-1]

    async def items() -> AsyncIterator[str]:
        for item in [*LONE, "x" * GATHER]:
            await asyncio.sleep(0)
            yield item
        for _ in range(3):
            yield "a"
            yield "b"
            await asyncio.sleep(0)
        await forever()

    sink = Sink()
    task = start(Pump(items(), encode, sink, clock=Clock()).run())
    await settle()
    assert len(made) == 10
    sink.log.clear()
    made.append(LONE[0].encode() * 2)  # which nobody but this list has
    assert [sys.getrefcount(made[number]) for number in range(8)] == [sys.getrefcount(made[-1])] * 8
    task.cancel()
    await asyncio.wait([task])


def test_after_some_items_one_by_one_those_that_come_together_are_gathered_again() -> None:
    async def items() -> AsyncIterator[str]:
        for item in LONE:
            await Wait("before")
            yield item
        yield "a"
        yield "b"
        await Wait("after")
        yield "c"
        await Wait("end")

    sink = Sink()
    running = pump(items(), sink).run()
    assert [step(running) for _ in range(5)] == ["before"] * 3 + ["after", "end"]
    finish(running)
    assert sink.written == [b"1", b"2", b"3ab", b"c"]


async def test_a_lone_item_is_there_for_the_end_when_its_generator_fails() -> None:
    async def items() -> AsyncIterator[str]:
        for item in LONE:
            await asyncio.sleep(0)
            yield item
        raise Failed

    sink = Sink()
    gathering = pump(items(), sink)
    with pytest.raises(Failed):
        await gathering.run()
    assert sink.written == [b"1", b"2"]
    assert (gathering.taken, gathering.take(), gathering.taken) == (2, b"3", 3)


@pytest.mark.parametrize("together", [False, True])
async def test_a_lone_item_that_cannot_be_encoded_is_told_its_index(together: bool) -> None:
    def strict(item: str) -> bytes:
        if item == "unfit":
            raise ItemError("str", "does not fit")
        return item.encode()

    iterator = unfit_after_lone_ones(together)
    gathering = Pump(iterator, strict, Sink(), clock=Clock())
    with pytest.raises(ItemError, match=r"^item 3 \(str\) does not fit$"):
        await gathering.run()
    await close(iterator)
    assert gathering.take() == (b"3" if together else b"")


def test_a_lone_item_that_two_waits_follow_is_written_before_the_first() -> None:
    async def items() -> AsyncIterator[str]:
        for item in LONE:
            await Wait("first")
            await Wait("second")
            await Wait("third")
            yield item

    sink = Sink()
    running = pump(items(), sink).run()
    handed = []
    with pytest.raises(StopIteration):
        while True:
            handed.append((step(running), b"".join(sink.written)))
    assert handed == [
        (wait, written)
        for written in (b"", b"1", b"12")
        for wait in ("first", "second", "third")
    ]  # fmt: skip


# -- flush="item" ------------------------------------------------------------------------------------------------------


async def test_with_gather_1_each_item_has_its_own_write_and_the_loop_runs_between() -> None:
    log: Log = []

    async def items() -> AsyncIterator[str]:
        for item in "abc":
            asyncio.get_running_loop().call_soon(log.append, f"loop after {item}")
            yield item

    gathering = pump(items(), Sink(log), gather=1)
    await gathering.run()
    assert log == [b"a", b"", "loop after a", b"b", b"", "loop after b", b"c", b"", "loop after c"]
    assert gathering.take() == b""


async def test_with_gather_1_an_item_is_written_at_once_when_the_loop_has_just_run() -> None:
    log: Log = []

    async def items() -> AsyncIterator[str]:
        await asyncio.sleep(0)
        asyncio.get_running_loop().call_soon(log.append, "loop")
        for item in "abc":
            log.append(f"asked for {item}")
            yield item

    gathering = pump(items(), Sink(log), gather=1)
    await gathering.run()
    assert log == [
        b"", "asked for a", b"a", "asked for b", b"b", b"", "loop", "asked for c", b"c", b"",
    ]  # fmt: skip


# -- flush=Every(...) --------------------------------------------------------------------------------------------------


async def test_held_bytes_stay_through_waits_until_their_time_is_over() -> None:
    gates = [asyncio.Event() for _ in range(3)]

    async def items() -> AsyncIterator[str]:
        for item, gate in zip("abc", gates, strict=True):
            yield item
            await gate.wait()
        yield "d"

    sink = Sink()
    gathering = pump(items(), sink, gather=100, hold=0.25)
    task = start(gathering.run())
    await settle()
    assert sink.log == [b""]
    assert [timer.seconds for timer in sink.timers] == [0.25]
    gates[0].set()
    await settle()
    assert sink.log == [b"", b""]
    assert len(sink.timers) == 1, "the time counts from the first of the bytes that are held"
    sink.timers[0].due()
    assert sink.log == [b"", b"", b"ab"]
    gates[1].set()
    await settle()
    assert sink.log == [b"", b"", b"ab", b""]
    assert [timer.seconds for timer in sink.timers] == [0.25, 0.25]
    gates[2].set()
    await task
    assert sink.log == [b"", b"", b"ab", b""]
    assert sink.timers[1].cancelled, "the end takes what is held"
    assert gathering.take() == b"cd"


async def test_an_item_is_held_also_where_all_come_one_by_one() -> None:
    sink = Sink()
    fed: asyncio.Queue[str] = asyncio.Queue()

    async def items() -> AsyncIterator[str]:
        while True:
            yield await fed.get()

    task = start(pump(items(), sink, hold=0.25).run())
    for number, item in enumerate(LONE):
        fed.put_nowait(item)
        await settle()
        assert len(sink.written) == number
        sink.timers[number].due()
        assert sink.written[number:] == [item.encode()]
    task.cancel()
    await asyncio.wait([task])


async def test_a_wait_with_nothing_held_sets_no_timer() -> None:
    async def items() -> AsyncIterator[str]:
        await asyncio.sleep(0)
        yield "a"

    sink = Sink()
    gathering = pump(items(), sink, gather=100, hold=0.25)
    await gathering.run()
    assert sink.log == [b""]
    assert sink.timers == []
    assert gathering.take() == b"a"


async def test_held_bytes_are_bounded_by_gather_and_leave_without_their_timer() -> None:
    log: Log = []

    async def items() -> AsyncIterator[str]:
        for item in ("aaa", "bbb", "cc", "dddd", "eeee", "f"):
            log.append(item)
            yield item
            await asyncio.sleep(0)

    sink = Sink(log)
    gathering = pump(items(), sink, gather=8, hold=0.25)
    await gathering.run()
    assert log == [
        "aaa", b"", "bbb", b"", "cc", b"aaabbbcc", b"",
        "dddd", b"", "eeee", b"ddddeeee", b"",
        "f", b"",
    ]  # fmt: skip
    assert [timer.cancelled for timer in sink.timers] == [True, True, True]
    assert gathering.take() == b"f"


async def test_an_iterator_that_never_waits_lets_the_loop_run_but_its_bytes_are_held() -> None:
    log: Log = []
    clock = Clock()

    async def items() -> AsyncIterator[str]:
        for item in "abc":
            asyncio.get_running_loop().call_soon(log.append, f"loop after {item}")
            clock.now += 0.0011
            yield item

    sink = Sink(log)
    gathering = pump(items(), sink, gather=100, hold=0.25, clock=clock)
    await gathering.run()
    assert log == [b"", "loop after a", b"", "loop after b", b"", "loop after c"]
    assert len(sink.timers) == 1, "a rest of the pump's own starts the time, too"
    assert gathering.take() == b"abc"


@pytest.mark.parametrize("ending", ["failure", "cancellation", "encode"])
async def test_no_timer_outlives_the_pump(ending: str) -> None:
    gate = asyncio.Event()

    async def items() -> AsyncIterator[str]:
        yield "a"
        await gate.wait()
        if ending == "failure":
            raise Failed
        yield "unfit"

    sink = Sink()
    gathering = pump(items(), sink, gather=100, hold=0.25)
    task = start(gathering.run())
    await settle()
    if ending == "cancellation":
        task.cancel()
    gate.set()
    await asyncio.wait([task])
    if ending == "cancellation":
        assert task.cancelled()
    else:
        assert isinstance(task.exception(), Failed)
    assert [timer.cancelled for timer in sink.timers] == [True]
    assert gathering.take() == b"a"


# -- a reader who is behind --------------------------------------------------------------------------------------------


async def test_a_full_buffer_stops_the_iterator_until_the_reader_has_caught_up() -> None:
    log: Log = []

    async def items() -> AsyncIterator[str]:
        for item in ("aaaa", "bbbb", "cccc", "dddd", "e"):
            log.append(item)
            yield item

    sink = Sink(log)
    sink.writable = False
    gathering = pump(items(), sink, gather=8)
    task = start(gathering.run())
    await settle()
    # The empty writes are the pump's own waits: one for the loop, one for the reader.
    first = ["aaaa", "bbbb", b"aaaabbbb", b"", "drain", b""]
    assert log == first
    sink.catch_up()
    sink.writable = False  # and at once behind again
    await settle()
    second = ["cccc", "drain", b"cccc"]
    assert log == first + second
    sink.catch_up()
    await task
    assert log == first + second + ["dddd", "e"]
    assert gathering.take() == b"dddde"


async def test_where_the_write_before_a_wait_was_too_much_one_item_is_held_and_no_more_is_asked_for() -> None:
    log: Log = []
    sink = Sink(log)

    def fall_behind(payload: bytes) -> None:
        sink.writable = payload != b"a"

    sink.on_write = fall_behind

    async def items() -> AsyncIterator[str]:
        yield "a"
        await asyncio.sleep(0)
        for item in "bcd":
            log.append(item)
            yield item
        await forever()

    gathering = pump(items(), sink)
    task = start(gathering.run())
    await settle()
    assert log == [b"a", "b", "drain", b"b"]
    sink.catch_up()
    await settle()
    assert log == [b"a", "b", "drain", b"b", "c", "d", b"cd"]
    task.cancel()
    await asyncio.wait([task])


async def test_a_reader_who_keeps_up_is_not_looked_after_at_the_item_after_a_wait() -> None:
    """The usual case. The loop has just run, and the next write says whether it was too much."""
    log: Log = []

    async def items() -> AsyncIterator[str]:
        for item in "abc":
            await asyncio.sleep(0)
            yield item

    sink = Sink(log)
    gathering = pump(items(), sink)
    await gathering.run()
    assert log == [b"", b"a", b"b"]
    assert gathering.take() == b"c"


async def test_a_millisecond_without_a_wait_also_looks_after_the_reader() -> None:
    log: Log = []
    clock = Clock()

    async def items() -> AsyncIterator[str]:
        for item in "abcd":
            log.append(item)
            clock.now += 0.0006
            yield item

    sink = Sink(log)
    sink.writable = False
    gathering = pump(items(), sink, clock=clock)
    task = start(gathering.run())
    await settle()
    assert log == ["a", "b", b"ab", "drain", b""]
    clock.now += 3600
    sink.catch_up()
    await task
    assert log == ["a", "b", b"ab", "drain", b"", "c", "d"], "time in which the reader was behind does not count"
    assert gathering.take() == b"cd"


async def test_with_gather_1_the_reader_is_looked_after_at_each_item() -> None:
    log: Log = []
    sink = Sink(log)

    def fall_behind(payload: bytes) -> None:
        sink.writable = payload != b"b"

    async def items() -> AsyncIterator[str]:
        for item in "abc":
            log.append(item)
            await asyncio.sleep(0)
            yield item

    sink.on_write = fall_behind
    gathering = pump(items(), sink, gather=1)
    task = start(gathering.run())
    await settle()
    assert log == ["a", b"", b"a", "b", b"", b"b", "drain", b""]
    sink.catch_up()
    await task
    assert log == ["a", b"", b"a", "b", b"", b"b", "drain", b"", "c", b"", b"c"]


async def test_held_bytes_wait_for_a_reader_who_is_behind_under_their_timer() -> None:
    async def items() -> AsyncIterator[str]:
        yield "aaaa"
        yield "bbbb"
        await asyncio.sleep(0)
        yield "c"
        yield "d"

    sink = Sink()
    sink.writable = False
    gathering = pump(items(), sink, gather=8, hold=0.25)
    task = start(gathering.run())
    await settle()
    assert sink.log == [b"aaaabbbb", b"", "drain", b""]
    assert sink.timers == []
    sink.catch_up()
    sink.writable = False
    await settle()
    assert sink.log == [b"aaaabbbb", b"", "drain", b"", b"", "drain", b""]
    assert [timer.seconds for timer in sink.timers] == [0.25]
    sink.catch_up()
    await task
    assert gathering.take() == b"cd"


# -- a reader who is gone ----------------------------------------------------------------------------------------------


async def test_the_loss_of_the_reader_is_told_at_the_yield() -> None:
    log: Log = []

    async def items() -> AsyncIterator[str]:
        try:
            yield "a"
            log.append("asked")
        except Gone:
            log.append("told")
            raise
        finally:
            log.append("finally")

    sink = Sink(log)
    sink.writable = False
    gathering = pump(items(), sink, gather=1)
    task = start(gathering.run())
    await settle()
    sink.lose_reader()
    with pytest.raises(Gone):
        await task
    assert log == [b"a", b"", "drain", b"", "told", "finally"]


async def test_a_generator_that_swallows_the_loss_of_its_reader_is_told_once_and_left_to_be_closed() -> None:
    log: Log = []

    async def items() -> AsyncIterator[str]:
        try:
            for item in "abc":
                try:
                    yield item
                except Gone:
                    log.append("told")
        finally:
            log.append("closed")

    sink = Sink(log)
    sink.lose_reader()
    iterator = items()
    with pytest.raises(Gone):
        await pump(iterator, sink, gather=1).run()
    assert log == [b"a", b"", "drain", "told"]
    await close(iterator)
    assert log[4:] == ["closed"]


async def test_a_generator_that_ends_on_the_loss_of_its_reader_ends_the_pump() -> None:
    async def items() -> AsyncIterator[str]:
        with contextlib.suppress(Gone):
            yield "a"

    sink = Sink()
    sink.lose_reader()
    await pump(items(), sink, gather=1).run()
    assert sink.log == [b"a", b"", "drain"]


async def test_a_failure_to_wait_for_the_reader_that_is_no_loss_may_be_swallowed() -> None:
    """A time-out of the generator's own, say, which is held across its `yield`."""
    sink = Sink()
    sink.writable = False

    async def items() -> AsyncIterator[str]:
        with contextlib.suppress(asyncio.CancelledError):
            yield "a"
        yield "b"
        yield "c"

    gathering = pump(items(), sink, gather=1)
    task = start(gathering.run())
    await settle()
    task.cancel()
    await settle()
    assert sink.written == [b"a", b"b"]
    assert not task.done()
    sink.catch_up()
    await task
    assert sink.written == [b"a", b"b", b"c"]


# -- iterators of every kind -------------------------------------------------------------------------------------------


class Plain:
    """An async iterator that is no generator; `__anext__` is what a subclass makes of `_next`."""

    def __init__(self, items: str) -> None:
        self._items = iter(items)
        self.asked = 0

    def __aiter__(self) -> Any:
        return self

    def _next(self) -> str:
        self.asked += 1
        for item in self._items:
            return item
        raise StopAsyncIteration


class WithCoroutines(Plain):
    async def __anext__(self) -> str:
        await asyncio.sleep(0)
        return self._next()


class WithReadyCoroutines(Plain):
    async def __anext__(self) -> str:
        return self._next()


class WithFutures(Plain):
    def __anext__(self) -> asyncio.Future[str]:
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        item = self._next()  # raises StopAsyncIteration before there is anything to await
        loop.call_soon(future.set_result, item)
        return future


class WithFailingFutures(Plain):
    def __anext__(self) -> asyncio.Future[str]:
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        try:
            loop.call_soon(future.set_result, self._next())
        except StopAsyncIteration as error:
            loop.call_soon(future.set_exception, error)
        return future


class OwnAwaitable:
    def __init__(self, plain: Plain) -> None:
        self._plain = plain

    def __await__(self) -> Generator[Any, Any, str]:
        yield from asyncio.sleep(0).__await__()
        return self._plain._next()


class WithOwnAwaitables(Plain):
    def __anext__(self) -> Awaitable[str]:
        return OwnAwaitable(self)


class Iterable(Plain):
    """Not an iterator: it gives one."""

    async def __aiter__(self) -> AsyncIterator[str]:
        for item in self._items:
            await asyncio.sleep(0)
            yield item


@pytest.mark.parametrize("kind", [WithCoroutines, WithFutures, WithFailingFutures, WithOwnAwaitables, Iterable])
async def test_any_async_iterable_is_pumped_and_flushed_before_each_wait(kind: type[Plain]) -> None:
    sink = Sink()
    gathering = pump(kind("abc"), sink)
    await gathering.run()
    # To learn of the end, a coroutine or awaitable of these waits once more; the iterator with futures need not.
    assert b"".join([*sink.written, gathering.take()]) == b"abc"
    assert sink.log[:3] == [b"", b"a", b"b"]
    assert sink.log[3:] == ([b"c"] if kind in (WithCoroutines, WithFailingFutures, WithOwnAwaitables) else [])


async def test_a_plain_iterator_that_never_waits_is_gathered() -> None:
    sink = Sink()
    gathering = pump(WithReadyCoroutines("abc"), sink)
    await gathering.run()
    assert sink.log == []
    assert gathering.take() == b"abc"


@pytest.mark.parametrize("kind", [WithCoroutines, WithFutures, WithOwnAwaitables])
async def test_cancelling_a_pending_step_of_a_plain_iterator_cancels_it(kind: type[Plain]) -> None:
    iterator = kind("abc")
    sink = Sink()
    gathering = pump(iterator, sink)
    task = start(gathering.run())

    def cancel(payload: bytes) -> None:
        if payload == b"a":
            asyncio.get_running_loop().call_soon(task.cancel)

    sink.on_write = cancel
    with pytest.raises(asyncio.CancelledError):
        await task
    assert sink.log == [b"", b"a"]
    assert gathering.take() == b""


async def test_between_two_steps_an_iterator_without_athrow_is_told_nothing() -> None:
    iterator = WithReadyCoroutines("abc")
    sink = Sink()
    sink.writable = False
    gathering = pump(iterator, sink, gather=1)
    task = start(gathering.run())
    await settle()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert iterator.asked == 1
    assert sink.log == [b"a", b"", "drain", b""]


async def test_the_failure_of_an_iterator_comes_out_as_it_is_and_what_it_gave_before_can_be_taken() -> None:
    failure = Failed()

    async def items() -> AsyncIterator[str]:
        yield "a"
        yield "b"
        raise failure

    sink = Sink()
    gathering = pump(items(), sink)
    with pytest.raises(Failed) as caught:
        await gathering.run()
    assert caught.value is failure
    assert gathering.take() == b"ab"


async def test_what_is_not_awaitable_is_a_type_error() -> None:
    class Wrong(Plain):
        def __anext__(self) -> str:
            return "a"

    with pytest.raises(TypeError, match=r"await|'async for' received an invalid object"):
        await pump(Wrong("a"), Sink()).run()


# -- where exceptions go: cancellation ---------------------------------------------------------------------------------


class Scene:
    """A generator that is cancelled at one of the places where the pump can be, and does `reacts` about it."""

    def __init__(self, place: str, reacts: str) -> None:
        self.place, self.reacts = place, reacts
        self.log: Log = []
        self.sink = Sink(self.log)
        self.pump = pump(self.items(), self.sink, gather=GATHER if place == "one by one" else 1)
        self.task = start(owned(self.pump))

    async def items(self) -> AsyncIterator[str]:
        try:
            try:
                match self.place:
                    case "before the first item":
                        self._cancel_soon()
                        await forever()
                    case "one by one":
                        for item in LONE:
                            await asyncio.sleep(0)
                            yield item
                        self._cancel_soon()
                        await forever()
                    case "step":
                        yield "a"
                        self._cancel_soon()
                        await forever()
                    case "rest":
                        self._cancel_soon()
                        yield "a"
                    case "drain":
                        self.sink.writable = False
                        asyncio.get_running_loop().call_soon(self._cancel_soon)
                        yield "a"
                self.log.append("not cancelled")
            except asyncio.CancelledError:
                self.log.append("told")
                self.sink.writable = True
                if self.reacts == "raises":
                    raise
                if self.reacts == "fails":
                    raise Failed from None
                if self.reacts == "yields on":
                    for item in "bc":
                        yield item
                        await asyncio.sleep(0)
        finally:
            self.log.append("finally")

    def _cancel_soon(self) -> None:
        asyncio.get_running_loop().call_soon(self.task.cancel)

    @property
    def written(self) -> list[bytes]:
        """What was, before the cancellation and after it: a write each."""
        lone = len(LONE) if self.place == "one by one" else 1 if self.place != "before the first item" else 0
        return self.sink.written[lone:]

    async def end(self) -> str:
        await asyncio.wait([self.task])
        if self.task.cancelled():
            return "cancelled"
        error = self.task.exception()
        return "ended" if error is None else type(error).__name__


PLACES = ["before the first item", "step", "one by one", "rest", "drain"]


@pytest.mark.parametrize("place", PLACES)
async def test_a_cancellation_is_thrown_into_the_generator_where_it_stands(place: str) -> None:
    scene = Scene(place, "raises")
    assert await scene.end() == "cancelled"
    assert scene.log[-2:] == ["told", "finally"]
    assert scene.written == []


@pytest.mark.parametrize("place", PLACES)
async def test_a_generator_that_catches_a_cancellation_and_ends_ends_the_stream(place: str) -> None:
    scene = Scene(place, "ends")
    assert await scene.end() == "ended"
    assert scene.log[-2:] == ["told", "finally"]
    assert scene.task.result() == 1, "that is between the generator and whoever cancelled"


@pytest.mark.parametrize("place", PLACES)
async def test_a_generator_that_catches_a_cancellation_may_yield_on(place: str) -> None:
    scene = Scene(place, "yields on")
    assert await scene.end() == "ended"
    assert scene.written == [b"b", b"c"]
    told = scene.log.index("told")
    assert [entry for entry in scene.log[told:] if entry != b""] == ["told", b"b", b"c", "finally"]


@pytest.mark.parametrize("place", PLACES)
async def test_a_generator_may_make_another_failure_of_a_cancellation(place: str) -> None:
    scene = Scene(place, "fails")
    assert await scene.end() == "Failed"
    assert scene.log[-2:] == ["told", "finally"]


async def test_a_cancellation_during_the_write_before_a_wait_reaches_that_wait() -> None:
    log: Log = []

    async def items() -> AsyncIterator[str]:
        yield "a"
        try:
            await forever()
        except asyncio.CancelledError:
            log.append("told")
            raise

    sink = Sink(log)
    gathering = pump(items(), sink)
    task = start(gathering.run())

    def cancel(payload: bytes) -> None:
        task.cancel()

    sink.on_write = cancel
    with pytest.raises(asyncio.CancelledError):
        await task
    assert log == [b"a", "told"]


async def test_a_cancellation_while_the_generator_clears_up_reaches_it_there() -> None:
    log: Log = []

    async def items() -> AsyncIterator[str]:
        try:
            yield "a"
        finally:
            try:
                await forever()
            except asyncio.CancelledError:
                log.append("hurried")
                raise

    sink = Sink(log)
    sink.writable = False
    gathering = pump(items(), sink, gather=1)
    task = start(gathering.run())
    await settle()
    task.cancel()
    await settle()
    assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert log == [b"a", b"", "drain", b"", b"", "hurried"]


# -- where exceptions go: timeouts and task groups ---------------------------------------------------------------------


async def test_a_timeout_inside_a_step_is_the_generators_own() -> None:
    log: Log = []

    async def items() -> AsyncIterator[str]:
        yield "a"
        try:
            async with asyncio.timeout(0):
                await forever()
        except TimeoutError:
            log.append("timeout")
        yield "b"

    sink = Sink(log)
    gathering = pump(items(), sink)
    assert await start(owned(gathering)) == 0
    assert log == [b"a", "timeout"]
    assert gathering.take() == b"b"


@pytest.mark.parametrize("place", ["step", "rest", "drain"])
async def test_a_timeout_held_across_a_yield_becomes_a_timeout_error_in_the_generator(place: str) -> None:
    log: Log = []
    sink = Sink(log)
    left_over: list[int] = []

    async def items() -> AsyncIterator[str]:
        try:
            async with asyncio.timeout(None) as timeout:

                def expire() -> None:
                    timeout.reschedule(asyncio.get_running_loop().time())

                match place:
                    case "step":
                        yield "a"
                        asyncio.get_running_loop().call_soon(expire)
                        await forever()
                    case "rest":
                        expire()
                        yield "a"
                    case "drain":
                        sink.writable = False
                        asyncio.get_running_loop().call_soon(expire)
                        yield "a"
                log.append("not expired")
        except TimeoutError:
            log.append("timeout")
            sink.writable = True
            task = asyncio.current_task()
            assert task is not None
            left_over.append(task.cancelling())
        yield "b"
        await asyncio.sleep(0)
        yield "c"

    gathering = pump(items(), sink, gather=1)
    assert await start(owned(gathering)) == 0
    assert left_over == [0]
    assert sink.written == [b"a", b"b", b"c"]
    assert "timeout" in log
    assert "not expired" not in log


@pytest.mark.parametrize("place", ["step", "drain"])
async def test_a_timeout_that_the_generator_leaves_uncaught_fails_the_stream(place: str) -> None:
    sink = Sink()
    sink.writable = place == "step"

    async def items() -> AsyncIterator[str]:
        async with asyncio.timeout(0):
            yield "a"
            await forever()

    with pytest.raises(TimeoutError):
        await pump(items(), sink, gather=1).run()
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


@pytest.mark.parametrize("place", ["step", "rest", "drain"])
async def test_a_task_group_held_across_yields_ends_with_its_childs_failure(place: str) -> None:
    log: Log = []
    sink = Sink(log)
    fail = asyncio.Event()

    async def failing() -> None:
        await fail.wait()
        raise Failed

    async def sibling() -> None:
        try:
            await forever()
        finally:
            await asyncio.sleep(0)
            log.append("sibling ended")

    async def items() -> AsyncIterator[str]:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(failing())
                group.create_task(sibling())
                yield "a"
                sink.writable = place != "drain"
                if place == "rest":
                    fail.set()
                yield "b"
                await forever()
        except* Failed as failures:
            log.append(failures.exceptions)
        finally:
            log.append("finally")

    gathering = pump(items(), sink, gather=1)
    task = start(owned(gathering))
    await settle()
    if place != "rest":
        assert not task.done()
        assert sink.log[-1] in (b"", "drain")
        fail.set()
    assert await task == 0
    sibling_ended, failures, end = log[-3:]
    assert (sibling_ended, end) == ("sibling ended", "finally")
    assert [type(failure) for failure in failures] == [Failed]
    assert sink.written == [b"a", b"b"]


async def test_a_task_groups_failure_that_is_left_uncaught_comes_out_as_a_group() -> None:
    async def failing() -> None:
        raise Failed

    async def items() -> AsyncIterator[str]:
        async with asyncio.TaskGroup() as group:
            group.create_task(failing())
            yield "a"

    sink = Sink()
    sink.writable = False
    task = start(pump(items(), sink, gather=1).run())
    with pytest.raises(ExceptionGroup) as caught:
        await task
    assert [type(error) for error in caught.value.exceptions] == [Failed]


# -- where exceptions go: encode, close --------------------------------------------------------------------------------


async def test_what_cannot_be_encoded_fails_the_pump_and_the_generator_is_not_resumed() -> None:
    log: Log = []

    async def items() -> AsyncIterator[str]:
        try:
            yield "a"
            yield "b"
            yield "unfit"
            log.append("resumed")
        finally:
            log.append("finally")

    iterator = items()
    sink = Sink(log)
    gathering = pump(iterator, sink)
    with pytest.raises(Failed):
        await gathering.run()
    assert log == []
    assert gathering.take() == b"ab"
    await close(iterator)
    assert log == ["finally"]


@pytest.mark.parametrize("gather", [1, 2, 100])
async def test_an_item_that_cannot_be_encoded_is_told_its_index_in_the_stream(gather: int) -> None:
    """Whether those before it were sent already or are gathered still."""

    def strict(item: str) -> bytes:
        if item == "unfit":
            raise ItemError("str", "does not fit")
        return item.encode()

    async def items() -> AsyncIterator[str]:
        for item in ("a", "b", "c", "unfit"):
            yield item

    iterator = items()
    with pytest.raises(ItemError, match=r"^item 3 \(str\) does not fit$"):
        await Pump(iterator, strict, Sink(), gather=gather, clock=Clock()).run()
    await close(iterator)


def test_closing_the_coroutine_ends_a_pending_step() -> None:
    log: Log = []

    async def items() -> AsyncIterator[str]:
        yield "a"
        try:
            await Wait("for ever")
        except BaseException as error:
            log.append(type(error))
            raise

    running = pump(items(), Sink(log)).run()
    assert step(running) == "for ever"
    running.close()
    assert log == [b"a", GeneratorExit]


@pytest.mark.parametrize("place", ["rest", "drain"])
def test_closing_the_coroutine_between_two_steps_leaves_the_generator_to_be_closed(place: str) -> None:
    log: Log = []

    class Behind(Sink):
        async def drain(self) -> None:
            await Wait("drain")

    async def items() -> AsyncIterator[str]:
        try:
            yield "a"
        finally:
            await Wait("clearing up")
            log.append("finally")

    iterator = items()
    sink = Behind()
    sink.writable = False
    running = pump(iterator, sink, gather=1).run()
    assert step(running) is None
    if place == "drain":
        assert step(running) == "drain"
    running.close()
    assert log == []
    closing = close(iterator)
    assert step(closing) == "clearing up"
    finish(closing)
    assert log == ["finally"]


async def test_a_pump_whose_task_never_starts_leaves_nothing_behind() -> None:
    log: Log = []

    async def items() -> AsyncIterator[str]:
        log.append("started")
        yield "a"

    iterator = items()
    sink = Sink(log)
    gathering = pump(iterator, sink, hold=0.25)
    task = asyncio.create_task(owned(gathering))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await close(iterator)
    assert log == []
    assert sink.timers == []
    assert gathering.take() == b""


async def test_the_generator_runs_in_the_context_of_the_task() -> None:
    user: contextvars.ContextVar[str] = contextvars.ContextVar("user", default="nobody")

    async def items() -> AsyncIterator[str]:
        yield user.get()
        user.set("set by the generator")
        await asyncio.sleep(0)
        yield user.get()

    async def connection() -> str:
        user.set("set by the connection")
        await gathering.run()
        return user.get()

    sink = Sink()
    gathering = pump(items(), sink)
    assert await start(connection()) == "set by the generator"
    assert sink.log == [b"set by the connection"]
    assert gathering.take() == b"set by the generator"
    assert user.get() == "nobody"


# -- nothing is kept alive ---------------------------------------------------------------------------------------------


@pytest.fixture
def no_gc() -> Iterator[None]:
    """Without the collector, what is in a reference cycle stays."""
    gc.disable()
    yield
    gc.enable()


class Canary:
    """Lives as long as the frame that holds it."""


@pytest.mark.parametrize("reacts", ["raises", "fails", "ends", "yields on"])
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.usefixtures("no_gc")
async def test_a_cancelled_pump_is_in_no_reference_cycle(place: str, reacts: str) -> None:
    scene = Scene(place, reacts)
    await scene.end()
    ref = weakref.ref(scene.pump)
    # The scene's own task knows the scene.
    del scene.pump, scene.task, scene
    await settle()
    assert ref() is None


@pytest.mark.usefixtures("no_gc")
@pytest.mark.parametrize("kind", ["step", "future", "lone item's future", "encode", "drain", "plain"])
async def test_a_failed_pump_is_in_no_reference_cycle(kind: str) -> None:
    canaries: list[weakref.ref[Canary]] = []
    sink = Sink()

    def failing_future() -> asyncio.Future[None]:
        future = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(future.set_exception, Failed())
        return future

    async def items() -> AsyncIterator[str]:
        canary = Canary()
        canaries.append(weakref.ref(canary))
        yield "a"
        match kind:
            case "step":
                raise Failed
            case "future":
                await failing_future()
            case "lone item's future":
                for item in LONE:
                    await asyncio.sleep(0)
                    yield item
                await failing_future()
            case "encode":
                yield "unfit"
            case "drain" | "plain":
                sink.lose_reader()
                await asyncio.sleep(0)
                yield "b"

    async def connection() -> None:
        iterator = items()
        try:
            await pump(Disguised(iterator) if kind == "plain" else iterator, sink).run()
        finally:
            await close(iterator)

    task = start(connection())
    await asyncio.wait([task])
    error = task.exception()
    assert isinstance(error, Failed | Gone)
    ref = weakref.ref(error)
    del task, error
    await settle()
    assert ref() is None
    assert [canary() for canary in canaries] == [None]


@pytest.mark.usefixtures("no_gc")
async def test_an_exception_that_the_generator_has_dealt_with_is_not_kept_while_it_waits_on() -> None:
    refs: list[weakref.ref[BaseException]] = []

    async def items() -> AsyncIterator[str]:
        for _ in range(2):
            try:
                await forever()
            except asyncio.CancelledError as error:
                refs.append(weakref.ref(error))
        yield "a"

    task = start(pump(items(), Sink()).run())
    await settle()
    task.cancel()
    await settle()
    assert [ref() for ref in refs] == [None]
    task.cancel()
    await task


# -- close -------------------------------------------------------------------------------------------------------------


async def test_close_runs_the_finally_of_a_generator_that_stands_at_a_yield() -> None:
    log: Log = []

    async def items() -> AsyncIterator[str]:
        try:
            yield "a"
        finally:
            await asyncio.sleep(0)
            log.append("finally")

    iterator = items()
    assert await anext(iterator) == "a"
    await close(iterator)
    assert log == ["finally"]
    await close(iterator)
    assert log == ["finally"]


async def test_close_ends_a_generator_that_never_started() -> None:
    log: Log = []

    async def items() -> AsyncIterator[str]:
        log.append("started")
        yield "a"

    iterator = items()
    await close(iterator)
    with pytest.raises(StopAsyncIteration):
        await anext(iterator)
    assert log == []


async def test_close_calls_aclose_once_and_lets_its_failure_out() -> None:
    class Closable(WithCoroutines):
        closed = 0

        async def aclose(self) -> None:
            self.closed += 1
            raise Failed

    iterator = Closable("")
    with pytest.raises(Failed):
        await close(iterator)
    assert iterator.closed == 1


async def test_close_leaves_an_iterator_without_aclose_alone() -> None:
    iterator = WithCoroutines("abc")
    await close(iterator)
    assert iterator.asked == 0
