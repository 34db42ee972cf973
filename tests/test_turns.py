"""Turns of the loop: who has worked for a millisecond waits for others who have, and one goes on in each turn."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Coroutine
from typing import Any

import pytest
from support import in_background

from rawstream.turns import NO_WORK, TURN, Turns

pytestmark = pytest.mark.usefixtures("orderly")


class Now:
    """A clock moved by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def waits(step: Coroutine[Any, Any, Any]) -> bool:
    """Whether it does not go on at once."""
    try:
        step.send(None)
    except StopIteration:
        return False
    step.close()
    return True


async def test_who_begins_or_has_not_worked_for_long_goes_on_at_once() -> None:
    now = Now()
    turns = Turns(now)
    assert not waits(turns.go_on(NO_WORK))
    work = await turns.go_on(NO_WORK)
    now.now += TURN * 3 / 4
    assert await turns.go_on(work) == work
    assert not waits(turns.go_on(work))


async def test_who_has_worked_for_long_lets_others_run_and_then_has_as_much_time_again() -> None:
    now = Now()
    turns = Turns(now)
    work = await turns.go_on(NO_WORK)
    for _ in range(3):
        now.now += TURN
        assert waits(turns.go_on(work))
        work = await turns.go_on(work)
        now.now += TURN * 3 / 4
        assert not waits(turns.go_on(work))
        now.now += TURN / 4
        assert waits(turns.go_on(work))


async def test_who_gave_way_for_another_reason_goes_on_at_once() -> None:
    """However long that was, and however many stand in the queue."""
    now = Now()
    turns = Turns(now)
    work = await turns.go_on(NO_WORK)
    others = [in_background(worked(turns, 1, [])) for _ in range(5)]
    await asyncio.sleep(0)
    now.now += 5
    assert not waits(turns.go_on(work))
    await asyncio.gather(*others)


async def worked(turns: Turns, number: int, went_on: list[int]) -> None:
    """Work that is always too long."""
    work = NO_WORK
    for _ in range(4):
        work = await turns.go_on(work)
        went_on.append(number)


async def test_one_goes_on_in_each_turn_of_the_loop_in_the_order_in_which_they_came() -> None:
    time = itertools.count()
    turns = Turns(lambda: next(time))
    went_on: list[int] = []
    tasks = [in_background(worked(turns, number, went_on)) for number in range(5)]
    await asyncio.sleep(0)
    assert went_on == [*range(5)]  # each begins
    seen: list[int] = [5]
    while len(went_on) < 20:
        await asyncio.sleep(0)
        seen.append(len(went_on))
    assert max(after - before for before, after in itertools.pairwise(seen)) == 1
    assert went_on == [*range(5)] * 4
    await asyncio.gather(*tasks)


async def test_who_is_cancelled_while_it_waits_keeps_nobody() -> None:
    time = itertools.count()
    turns = Turns(lambda: next(time))
    went_on: list[int] = []
    first, second, third = (in_background(worked(turns, number, went_on)) for number in range(3))
    await asyncio.sleep(0)
    first.cancel()
    second.cancel()
    await third
    assert went_on == [0, 1, 2, 2, 2, 2]
    await asyncio.gather(first, second, return_exceptions=True)
    await worked(turns, 3, went_on)  # and the queue begins anew
    assert went_on[6:] == [3] * 4


async def test_all_in_a_loop_share_them() -> None:
    loop = asyncio.get_running_loop()
    assert Turns.of(loop) is Turns.of(loop)


def test_each_loop_has_its_own() -> None:
    first, second = asyncio.new_event_loop(), asyncio.new_event_loop()
    try:
        assert Turns.of(first) is not Turns.of(second)
    finally:
        first.close()
        second.close()
