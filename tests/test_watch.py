"""Who is cancelled when a peer is gone, or has waited long enough, and what then comes out."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import weakref
from collections.abc import Callable, Iterator

import pytest
from support import Steps, forever, in_background, settle

from rawstream.errors import Disconnected, LocalError, Stalled
from rawstream.watch import Watch

pytestmark = pytest.mark.usefixtures("orderly")


class Line:
    """What can be lost. Who wants to be called back soon is when the test says so."""

    def __init__(self) -> None:
        self.watched: Watch | None = None
        self.due: list[Callable[[], None]] = []
        self.steps = Steps()
        self._gone = self._ended = False

    def check(self, eof: bool) -> None:
        if self._gone or (eof and self._ended):
            raise Disconnected("the peer is gone")

    def soon(self, callback: Callable[[], None]) -> None:
        self.due.append(callback)

    def watch(self, eof: bool = False, name: str = "told") -> Watch:
        return Watch(self, eof, lambda: self.steps(name))

    def lose(self) -> None:
        self._gone = True
        if self.watched is not None:
            self.watched.lost(eof=False)

    def end(self) -> None:
        self._ended = True
        if self.watched is not None:
            self.watched.lost(eof=True)

    def interrupt(self, reason: Exception) -> None:
        assert self.watched is not None
        self.watched.interrupt(reason)

    def call_back(self) -> None:
        due, self.due = self.due, []
        for callback in due:
            callback()


async def wait(line: Line, eof: bool = False) -> None:
    with line.watch(eof):
        try:
            await forever()
        finally:
            line.steps("finally")


class Large:
    """What a generator may hold in a local variable."""


@pytest.fixture
def no_collection() -> Iterator[None]:
    """What dies now dies because nothing refers to it."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


# -- the loss of the peer ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("eof", [True, False])
async def test_the_loss_of_the_peer_cancels_what_is_watched_and_comes_out_as_disconnected(eof: bool) -> None:
    line = Line()
    task = in_background(wait(line, eof))
    await settle()
    line.lose()
    with pytest.raises(Disconnected) as raised:
        await task
    assert isinstance(raised.value.__cause__, asyncio.CancelledError)
    assert line.steps.done == ["told", "finally"]
    assert task.cancelling() == 0
    assert line.watched is None


async def test_the_end_of_the_peers_sending_counts_where_it_is_asked_for() -> None:
    line = Line()
    task = in_background(wait(line, eof=True))
    await settle()
    line.end()
    with pytest.raises(Disconnected):
        await task


async def test_the_end_of_the_peers_sending_does_not_count_elsewhere() -> None:
    line = Line()
    task = in_background(wait(line))
    await settle()
    line.end()
    await settle()
    assert line.steps.done == []
    line.lose()
    with pytest.raises(Disconnected):
        await task


async def test_end_and_loss_together_cancel_once() -> None:
    line = Line()
    task = in_background(wait(line, eof=True))
    await settle()
    line.end()
    line.lose()
    assert line.due == []
    with pytest.raises(Disconnected):
        await task
    assert line.steps.done == ["told", "finally"]
    assert task.cancelling() == 0


@pytest.mark.parametrize("eof", [True, False])
async def test_what_was_cancelled_is_let_go_of_at_once(no_collection: None, eof: bool) -> None:
    """No cycle of references from the error to itself keeps the local variables of what was cancelled."""
    line = Line()
    held: list[weakref.ref[Large]] = []

    async def holding() -> None:
        large = Large()
        held.append(weakref.ref(large))
        await forever()

    async def watched() -> None:
        with contextlib.suppress(Disconnected), line.watch(eof):
            await holding()

    task = in_background(watched())
    await settle()
    line.lose()
    await task
    assert held[0]() is None


async def test_nothing_is_begun_for_a_peer_that_is_gone() -> None:
    line = Line()
    line.lose()
    with pytest.raises(Disconnected), line.watch():
        pytest.fail("it began")
    assert line.watched is None


async def test_what_counts_the_end_of_sending_is_not_begun_after_it() -> None:
    line = Line()
    line.end()
    with pytest.raises(Disconnected), line.watch(eof=True):
        pytest.fail("it began")
    with line.watch():
        begun = True
    assert begun


async def test_what_ended_before_the_loss_is_left_alone() -> None:
    line = Line()
    with line.watch() as watch:
        pass
    line.lose()
    watch.interrupt(Stalled())
    await settle()
    assert line.steps.done == []


async def test_a_task_that_takes_the_cancellation_for_an_end_ends_well() -> None:
    """And time-outs of its own work on, which count the cancellations."""
    line = Line()

    async def work() -> str:
        with line.watch(), contextlib.suppress(asyncio.CancelledError):
            await forever()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0):
                await forever()
        return "done"

    task = in_background(work())
    await settle()
    line.lose()
    assert await task == "done"
    assert line.steps.done == ["told"]


async def test_an_error_while_being_cancelled_comes_out_as_it_is() -> None:
    line = Line()

    async def fail() -> None:
        with line.watch():
            try:
                await forever()
            finally:
                raise OSError("the disk is full")

    task = in_background(fail())
    await settle()
    line.lose()
    with pytest.raises(OSError, match="the disk is full"):
        await task
    assert task.cancelling() == 0


# -- other reasons -----------------------------------------------------------------------------------------------------


async def test_an_interrupt_comes_out_as_its_reason() -> None:
    line = Line()
    task = in_background(wait(line))
    await settle()
    reason = TimeoutError("this takes too long")
    line.interrupt(reason)
    with pytest.raises(TimeoutError) as raised:
        await task
    assert raised.value is reason
    assert isinstance(reason.__cause__, asyncio.CancelledError)
    assert line.steps.done == ["told", "finally"]
    assert task.cancelling() == 0


async def test_of_several_reasons_the_first_comes_out() -> None:
    """A reader who takes nothing is cut, whereupon the connection is lost."""
    line = Line()
    task = in_background(wait(line))
    await settle()
    line.interrupt(Stalled("the peer takes nothing"))
    line.lose()
    with pytest.raises(Stalled):
        await task
    assert line.steps.done == ["told", "finally"]


# -- cancellations from elsewhere --------------------------------------------------------------------------------------


async def test_a_cancellation_from_elsewhere_stays_one() -> None:
    line = Line()
    task = in_background(wait(line, eof=True))
    await settle()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert line.steps.done == ["finally"]
    assert line.watched is None


async def test_a_cancellation_from_elsewhere_after_the_loss_stays_one() -> None:
    line = Line()
    task = in_background(wait(line))
    await settle()
    line.lose()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_loss_does_not_break_into_the_clean_up_after_a_cancellation_from_elsewhere() -> None:
    line, gate = Line(), asyncio.Event()

    async def work() -> None:
        with line.watch():
            try:
                await forever()
            finally:
                await gate.wait()
                line.steps("cleaned up")

    task = in_background(work())
    await settle()
    task.cancel()
    await settle()
    line.lose()
    await settle()
    line.call_back()
    await settle()
    gate.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert line.steps.done == ["told", "cleaned up"]
    line.call_back()  # too late for anybody
    assert line.due == []
    assert line.steps.done == ["told", "cleaned up"]


async def test_a_loss_in_the_clean_up_after_ones_own_time_out_cancels_what_follows_it() -> None:
    line, gate = Line(), asyncio.Event()

    async def work() -> None:
        with line.watch():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0):
                    try:
                        await forever()
                    finally:
                        line.steps("clears up")
                        await gate.wait()
                        line.steps("cleared up")
            await wait_on()

    async def wait_on() -> None:
        line.steps("goes on")
        await forever()

    task = in_background(work())
    await line.steps.reach("clears up")
    line.lose()
    await settle()
    line.call_back()  # it still clears up: try again
    await settle()
    assert len(line.due) == 1
    assert line.steps.done == ["clears up", "told"]
    gate.set()
    await line.steps.reach("clears up", "told", "cleared up", "goes on")
    line.call_back()
    with pytest.raises(Disconnected):
        await task
    assert line.steps.done == ["clears up", "told", "cleared up", "goes on"]
    assert task.cancelling() == 0


async def test_of_a_task_that_swallowed_a_cancellation_it_is_told_once_at_once_so_that_somebody_insists() -> None:
    """As libraries did before there was `uncancel`: it seems to be cancelled for ever."""
    line = Line()

    async def work() -> None:
        with line.watch():
            with contextlib.suppress(asyncio.CancelledError):
                await forever()
            line.steps("goes on")
            await forever()

    task = in_background(work())
    await settle()
    task.cancel()
    await line.steps.reach("goes on")
    line.interrupt(Stalled("the peer takes nothing"))
    line.lose()
    for _ in range(3):
        line.call_back()
        await settle()
        assert len(line.due) == 1
    assert line.steps.done == ["goes on", "told"]
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    line.call_back()
    assert line.due == []


async def test_who_begins_to_watch_in_its_clean_up_is_told_of_the_loss_all_the_same() -> None:
    line = Line()

    async def work() -> None:
        try:
            await forever()
        finally:
            await wait(line)

    task = in_background(work())
    await settle()
    task.cancel()
    await settle()
    line.lose()
    with pytest.raises(Disconnected):
        await task
    assert task.cancelling() == 1


async def test_a_cancelled_error_that_nobody_caused_is_an_error() -> None:
    line = Line()
    with pytest.raises(LocalError, match="nobody had cancelled it"), line.watch():
        raise asyncio.CancelledError


# -- what a handler raises of its own accord ---------------------------------------------------------------------------


@pytest.mark.parametrize("eof", [True, False])
async def test_a_peer_that_is_there_is_not_gone_whatever_a_handler_says(eof: bool) -> None:
    """It had a connection of its own to somebody else, say."""
    line = Line()
    raised = Disconnected("the database is gone")
    with pytest.raises(LocalError, match="Disconnected, but the peer is there") as caught, line.watch(eof):
        raise raised
    assert caught.value.__cause__ is raised


async def test_a_peer_that_is_there_may_be_cut_for_being_slow() -> None:
    line = Line()
    with pytest.raises(Stalled, match="fell behind"), line.watch():
        raise Stalled("it fell behind")


@pytest.mark.parametrize("error", [Disconnected, Stalled])
async def test_of_a_peer_that_is_gone_a_handler_may_say_so(error: type[Disconnected]) -> None:
    line = Line()
    raised = error("the connection was lost")
    with pytest.raises(error) as caught, line.watch():
        line._gone = True
        raise raised
    assert caught.value is raised


class Panic(BaseException):
    """As PyO3 raises it for a panic in Rust."""


@pytest.mark.parametrize("kind", [Panic, SystemExit, GeneratorExit])
async def test_what_is_no_exception_is_a_failure_of_the_handler(kind: type[BaseException]) -> None:
    line = Line()
    raised = kind("why")
    with pytest.raises(LocalError, match=f"{kind.__name__}, which is no Exception") as caught, line.watch():
        raise raised
    assert caught.value.__cause__ is raised
    assert line.watched is None


async def test_a_ctrl_c_is_nobodys_failure() -> None:
    line = Line()
    with pytest.raises(KeyboardInterrupt), line.watch():
        raise KeyboardInterrupt


@pytest.mark.parametrize("by", ["another task", "no task"])
async def test_a_task_may_be_thrown_away(by: str) -> None:
    """As those that are left when their loop is closed: there is nobody to answer then."""
    line = Line()
    coroutine = wait(line)
    task = in_background(coroutine)
    await settle()
    await asyncio.to_thread(coroutine.close) if by == "no task" else coroutine.close()
    assert line.steps.done == ["finally"]
    assert line.watched is None
    task.cancel()
    with pytest.raises(RuntimeError):
        await task


# -- one within another ------------------------------------------------------------------------------------------------


async def test_watches_nest() -> None:
    line = Line()
    with line.watch() as outer:
        assert line.watched is outer
        with line.watch(eof=True) as inner:
            assert line.watched is inner
        assert line.watched is outer
    assert line.watched is None


async def test_of_two_watches_the_inner_tells_the_loss_and_the_outer_lets_it_pass() -> None:
    line = Line()

    async def work() -> None:
        with line.watch(name="outer"), line.watch(name="inner"):
            await forever()

    task = in_background(work())
    await settle()
    line.lose()
    with pytest.raises(Disconnected):
        await task
    assert line.steps.done == ["inner"]
    assert task.cancelling() == 0


async def test_a_loss_after_the_inner_watch_is_the_outers() -> None:
    line = Line()

    async def work() -> None:
        with line.watch(name="outer"):
            with line.watch(name="inner"):
                pass
            await forever()

    task = in_background(work())
    await settle()
    line.lose()
    with pytest.raises(Disconnected):
        await task
    assert line.steps.done == ["outer"]
