"""Work in slices, on a clock that each step moves."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from support import Failures, settle

from rawstream.channels.slices import SLICE, Slices

pytestmark = pytest.mark.usefixtures("orderly")


class Work:
    """Steps that take time by a clock of their own, and are written down."""

    def __init__(self) -> None:
        self.now = 50.0
        self.done: list[str] = []
        self.slices = Slices(lambda: self.now)

    def steps(self, *names: str, seconds: float) -> Iterator[None]:
        for name in names:
            self.now += seconds
            self.done.append(name)
            yield

    def each_turn(self, turns: int) -> None:
        """Write down that the loop has run something else."""
        self.done.append("|")
        if turns > 1:
            asyncio.get_running_loop().call_soon(self.each_turn, turns - 1)


@pytest.fixture
async def work() -> Work:
    return Work()


async def test_short_work_is_done_at_once(work: Work) -> None:
    work.slices.add(work.steps("a", "b", "c", seconds=SLICE / 4))
    assert work.done == ["a", "b", "c"]


async def test_long_work_goes_on_in_the_next_turn_of_the_loop(work: Work) -> None:
    work.slices.add(work.steps("a", "b", "c", "d", "e", seconds=SLICE * 0.6))
    assert work.done == ["a", "b"]
    await asyncio.sleep(0)
    assert work.done == ["a", "b", "c", "d"]
    await asyncio.sleep(0)
    assert work.done == ["a", "b", "c", "d", "e"]


async def test_a_step_that_takes_long_ends_its_slice(work: Work) -> None:
    work.slices.add(work.steps("a", "b", seconds=1.0))
    assert work.done == ["a"]
    await settle()
    assert work.done == ["a", "b"]


async def test_other_callbacks_run_between_two_slices(work: Work) -> None:
    asyncio.get_running_loop().call_soon(work.each_turn, 3)
    work.slices.add(work.steps("a", "b", "c", seconds=SLICE))
    await settle()
    assert work.done == ["a", "|", "b", "|", "c", "|"]


async def test_two_works_have_their_slices_in_turn(work: Work) -> None:
    work.slices.add(work.steps("a1", "a2", "a3", seconds=SLICE))
    work.slices.add(work.steps("b1", "b2", "b3", seconds=SLICE))
    assert work.done == ["a1"], "what comes later waits for its turn"
    await settle()
    assert work.done == ["a1", "a2", "b1", "a3", "b2", "b3"]


async def test_all_works_together_have_one_slice_a_turn(work: Work) -> None:
    work.slices.add(work.steps("a1", "a2", "a3", seconds=SLICE))
    work.slices.add(work.steps("b1", "b2", "b3", seconds=SLICE * 0.6))
    asyncio.get_running_loop().call_soon(work.each_turn, 4)
    await settle()
    assert work.done == ["a1", "a2", "|", "b1", "b2", "|", "a3", "|", "b3", "|"]


async def test_a_work_that_ends_within_a_slice_leaves_the_rest_to_the_next(work: Work) -> None:
    work.slices.add(work.steps("a1", "a2", seconds=SLICE))
    work.slices.add(work.steps("b1", seconds=SLICE / 4))
    work.slices.add(work.steps("c1", "c2", seconds=SLICE / 4))
    await asyncio.sleep(0)
    assert work.done == ["a1", "a2"]
    await asyncio.sleep(0)
    assert work.done == ["a1", "a2", "b1", "c1", "c2"]


async def test_work_that_fails_is_logged_and_the_others_go_on(failures: Failures, work: Work) -> None:
    def failing() -> Iterator[None]:
        yield
        raise ZeroDivisionError

    work.slices.add(work.steps("a1", "a2", seconds=SLICE))
    work.slices.add(failing())
    work.slices.add(work.steps("b", seconds=SLICE / 4))
    await settle()
    assert work.done == ["a1", "a2", "b"]
    (record,) = failures.records
    assert record.exc_info is not None
    assert record.exc_info[0] is ZeroDivisionError
    failures.records.clear()


async def test_work_without_steps_is_no_work(work: Work) -> None:
    work.slices.add(iter(()))
    work.slices.add(work.steps("a", seconds=SLICE / 4))
    assert work.done == ["a"]


async def test_work_that_comes_when_all_is_done_begins_at_once(work: Work) -> None:
    work.slices.add(work.steps("a1", "a2", seconds=SLICE))
    await settle()
    work.slices.add(work.steps("b", seconds=SLICE))
    assert work.done == ["a1", "a2", "b"]


async def test_work_that_a_step_adds_waits_for_that_step(work: Work) -> None:
    def adding() -> Iterator[None]:
        work.slices.add(work.steps("b", seconds=0.0))
        work.done.append("a")
        yield

    work.slices.add(adding())
    assert work.done == ["a", "b"]
