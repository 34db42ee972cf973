"""Coarse deadlines, on a loop whose clock is moved by hand."""

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest

from rawstream.deadlines import GRAIN, Deadline, Deadlines


class Timer:
    """What `call_at` gives."""

    def __init__(self, when: float, call: Callable[[], None]) -> None:
        self.when, self.call, self.cancelled = when, call, False

    def cancel(self) -> None:
        self.cancelled = True


class HandLoop:
    """As much of an event loop as deadlines need: a clock, timers, and whom to tell of failures."""

    def __init__(self, now: float) -> None:
        self.now = now
        self.timers: list[Timer] = []
        self.failures: list[dict[str, Any]] = []

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Callable[..., None], *arguments: Any) -> Timer:
        self.timers.append(Timer(when, lambda: callback(*arguments)))
        return self.timers[-1]

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self.failures.append(context)

    @property
    def waiting(self) -> list[Timer]:
        return [timer for timer in self.timers if not timer.cancelled]

    def advance(self, seconds: float) -> None:
        """Let time pass, and call what is due on the way, each at its time."""
        until = self.now + seconds
        while due := [timer for timer in self.waiting if timer.when <= until]:
            timer = min(due, key=lambda timer: timer.when)
            self.timers.remove(timer)
            self.now = max(self.now, timer.when)
            timer.call()
        self.now = until


@pytest.fixture
def loop() -> HandLoop:
    return HandLoop(1000.1)


@pytest.fixture
def deadlines(loop: HandLoop) -> Deadlines:
    return Deadlines(cast(asyncio.AbstractEventLoop, loop))


@pytest.mark.parametrize("now", [0.0, 1000.0, 1000.1, 1000.125, 1000.249, 1000.25, 86400.2])
@pytest.mark.parametrize("seconds", [0.0, 0.001, 0.1, 0.25, 0.26, 10.0, 75.0])
def test_a_deadline_is_never_early_and_at_most_a_grain_late(now: float, seconds: float) -> None:
    loop = HandLoop(now)
    called: list[float] = []
    Deadlines(cast(asyncio.AbstractEventLoop, loop)).after(seconds, lambda: called.append(loop.now))
    loop.advance(100)
    assert len(called) == 1
    assert now + seconds <= called[0] <= now + seconds + GRAIN


def test_a_deadline_that_has_passed_already_is_due_at_once(loop: HandLoop, deadlines: Deadlines) -> None:
    called: list[str] = []
    deadlines.after(-5.0, lambda: called.append("late"))
    loop.advance(0)
    assert called == ["late"]


def test_a_cancelled_deadline_is_not_called(loop: HandLoop, deadlines: Deadlines) -> None:
    called: list[str] = []
    deadlines.after(1.0, lambda: called.append("kept"))
    deadlines.after(1.0, lambda: called.append("cancelled")).cancel()
    loop.advance(2)
    assert called == ["kept"]


def test_cancelling_after_the_call_and_twice_does_nothing(loop: HandLoop, deadlines: Deadlines) -> None:
    called: list[str] = []
    deadline = deadlines.after(1.0, lambda: called.append("called"))
    loop.advance(2)
    deadline.cancel()
    deadline.cancel()
    assert called == ["called"]


def test_what_is_due_within_a_grain_shares_a_timer(loop: HandLoop, deadlines: Deadlines) -> None:
    called: list[int] = []
    for number in range(10_000):
        deadlines.after(10.0, lambda number=number: called.append(number))  # type: ignore[misc]
    assert [timer.when for timer in loop.timers] == [1010.25]
    loop.advance(11)
    assert sorted(called) == list(range(10_000))
    assert loop.timers == []


def test_setting_and_cancelling_again_and_again_makes_no_more_timers(loop: HandLoop, deadlines: Deadlines) -> None:
    """Ten requests a second for two minutes, each under a deadline of 10 s that is never due."""
    for _ in range(1200):
        deadlines.after(10.0, pytest.fail).cancel()
        loop.advance(0.1)
    assert len(loop.timers) <= 10.0 / GRAIN + 1


def test_deadlines_far_away_that_are_cancelled_leave_no_timers(loop: HandLoop, deadlines: Deadlines) -> None:
    """Two requests a second for a quarter of an hour, each with an hour's time that it does not need, beside a few that
    last.
    """
    called: list[int] = []
    for number in range(1800):
        deadlines.after(3600.0, pytest.fail).cancel()
        if number % 180 == 0:
            deadlines.after(3600.0, lambda number=number: called.append(number))  # type: ignore[misc]
        loop.advance(0.5)
    assert len(loop.waiting) == len(deadlines._buckets) <= 100
    loop.advance(3600)
    assert called == [*range(0, 1800, 180)]
    assert loop.waiting == []


def test_timers_that_are_shared_by_requests_at_once_are_not_made_anew(loop: HandLoop, deadlines: Deadlines) -> None:
    """Thousands of requests a second, each with deadlines of several kinds, cost a timer for each kind and grain."""
    for _ in range(1_000):
        for seconds in (5.0, 10.0, 75.0, 3600.0):
            deadlines.after(seconds, pytest.fail).cancel()
    assert len(loop.timers) == 4


def test_many_that_last_are_not_looked_through_again_and_again(loop: HandLoop, deadlines: Deadlines) -> None:
    looks: list[int] = []
    drop = deadlines._drop_empty
    deadlines._drop_empty = lambda: (looks.append(len(deadlines._buckets)), drop())  # type: ignore[method-assign,assignment,func-returns-value]
    for _ in range(14_400):
        deadlines.after(3600.0, lambda: None)
        loop.now += 0.25
    assert len(loop.timers) == 14_400
    assert sum(looks) <= 2 * 14_400


def test_a_callback_may_cancel_another_that_is_due_with_it(loop: HandLoop, deadlines: Deadlines) -> None:
    called: list[str] = []
    both: dict[str, Deadline] = {}

    def cancel_other(own: str, other: str) -> None:
        called.append(own)
        both[other].cancel()

    both["first"] = deadlines.after(1.0, lambda: cancel_other("first", "second"))
    both["second"] = deadlines.after(1.0, lambda: cancel_other("second", "first"))
    loop.advance(2)
    assert called in (["first"], ["second"])


def test_a_callback_may_set_the_next_deadline(loop: HandLoop, deadlines: Deadlines) -> None:
    called: list[float] = []

    def beat() -> None:
        called.append(loop.now)
        if len(called) < 4:
            deadlines.after(0.0, beat)

    deadlines.after(0.0, beat)
    loop.advance(10)
    assert called == [1000.25, 1000.5, 1000.75, 1001.0]


def test_a_callback_that_fails_is_told_to_the_loop_and_keeps_none_of_the_others_back(
    loop: HandLoop, deadlines: Deadlines
) -> None:
    called: list[int] = []
    error = OSError("broken")

    def fail() -> None:
        raise error

    for number in range(10):
        deadlines.after(1.0, lambda number=number: called.append(number))  # type: ignore[misc]
        deadlines.after(1.0, fail)
    loop.advance(2)
    assert sorted(called) == list(range(10))
    assert loop.failures == [{"message": "a deadline's callback failed", "exception": error}] * 10


def test_close_forgets_all(loop: HandLoop, deadlines: Deadlines) -> None:
    kept = [deadlines.after(seconds, pytest.fail) for seconds in (0.1, 1.0, 1.0, 10.0)]
    deadlines.close()
    assert loop.waiting == []
    loop.advance(20)
    for deadline in kept:
        deadline.cancel()


def test_after_close_the_same_time_can_be_set_again(loop: HandLoop, deadlines: Deadlines) -> None:
    called: list[str] = []
    deadlines.after(1.0, pytest.fail)
    deadlines.close()
    deadlines.after(1.0, lambda: called.append("again"))
    loop.advance(2)
    assert called == ["again"]


async def test_on_a_real_loop() -> None:
    deadlines = Deadlines(asyncio.get_running_loop())
    deadlines.after(0.0, pytest.fail).cancel()
    due = asyncio.Event()
    deadlines.after(0.0, due.set)
    await due.wait()
    deadlines.close()
