"""Seeing a coroutine wait: `before_wait` does what `await` does, and calls in between."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
from support import Wait, forever, settle

from rawstream.driving import before_wait

Log = list[Any]


class Failed(Exception):
    """Something failed."""


async def plainly(coroutine: Coroutine[Any, Any, Any]) -> Any:
    return await coroutine


async def by_before_wait(coroutine: Coroutine[Any, Any, Any]) -> Any:
    return await before_wait(coroutine, lambda: None)


async def nested(coroutine: Coroutine[Any, Any, Any]) -> Any:
    return await before_wait(by_before_wait(coroutine), lambda: None)


async def returns_at_once() -> str:
    return "value"


async def fails_at_once() -> None:
    raise Failed("at once")


async def echoes() -> list[Any]:
    return [await Wait("first"), await Wait("second")]


async def fails_after_a_wait() -> None:
    await Wait("first")
    raise Failed("later")


async def catches() -> list[Any]:
    caught: list[Any] = []
    for place in ("first", "second"):
        try:
            caught.append(await Wait(place))
        except Exception as error:
            caught.append(str(error))
    return caught


async def clears_up() -> None:
    try:
        await Wait("first")
    finally:
        await Wait("clearing up")


SEND, THROW, CLOSE = "send", "throw", "close"


@pytest.mark.parametrize("how", [by_before_wait, nested])
@pytest.mark.parametrize("script", [(), (SEND,), (SEND, SEND), (THROW,), (THROW, SEND), (THROW, THROW), (CLOSE,)])
@pytest.mark.parametrize(
    "body", [returns_at_once, fails_at_once, echoes, fails_after_a_wait, catches, clears_up], ids=lambda f: f.__name__
)
def test_before_wait_does_what_await_does(
    body: Callable[[], Coroutine[Any, Any, Any]],
    script: tuple[str, ...],
    how: Callable[[Coroutine[Any, Any, Any]], Coroutine[Any, Any, Any]],
) -> None:
    def drive(coroutine: Coroutine[Any, Any, Any]) -> Iterator[Any]:
        """All that a driver sees: what is handed up, and how it ends."""
        try:
            yield coroutine.send(None)
            for number, action in enumerate(script):
                match action:
                    case "send":
                        yield coroutine.send(number)
                    case "throw":
                        yield coroutine.throw(Failed(f"thrown {number}"))
                    case "close":
                        yield coroutine.close()
        except StopIteration as done:
            yield "returned", done.value
        except Failed as error:
            yield "failed", str(error)
        except RuntimeError:
            yield "ignored GeneratorExit"
        finally:
            for _ in range(2):  # `clears_up` waits once more
                with contextlib.suppress(RuntimeError):
                    coroutine.close()

    assert list(drive(how(body()))) == list(drive(plainly(body())))


def test_before_wait_calls_once_before_each_wait_and_hands_the_same_object_up() -> None:
    log: Log = []
    first, second = object(), object()

    async def body() -> str:
        log.append("begins")
        log.append(await Wait(first))
        log.append(await Wait(second))
        return "value"

    driver = before_wait(body(), lambda: log.append("call"))
    assert log == []
    assert driver.send(None) is first
    assert log == ["begins", "call"]
    assert driver.send("one") is second
    assert log == ["begins", "call", "one", "call"]
    with pytest.raises(StopIteration) as done:
        driver.send("two")
    assert done.value.value == "value"
    assert log == ["begins", "call", "one", "call", "two"]


def test_before_wait_calls_before_a_wait_that_follows_an_exception() -> None:
    log: Log = []
    driver = before_wait(catches(), lambda: log.append("call"))
    assert driver.send(None) == "first"
    assert driver.throw(Failed("thrown")) == "second"
    assert log == ["call", "call"]
    with pytest.raises(StopIteration) as done:
        driver.throw(Failed("again"))
    assert done.value.value == ["thrown", "again"]
    assert log == ["call", "call"]


def test_nested_before_waits_call_from_the_inside_out() -> None:
    log: Log = []

    async def inner() -> None:
        await before_wait(echoes(), lambda: log.append("inner"))

    driver = before_wait(inner(), lambda: log.append("outer"))
    assert driver.send(None) == "first"
    assert log == ["inner", "outer"]
    assert driver.send(1) == "second"
    assert log == ["inner", "outer", "inner", "outer"]
    driver.close()


def test_what_the_call_raises_is_thrown_into_the_coroutine_instead_of_the_wait() -> None:
    failures = iter([Failed("told"), None])

    def call() -> None:
        if failure := next(failures):
            raise failure

    driver = before_wait(catches(), call)
    assert driver.send(None) == "second"
    with pytest.raises(StopIteration) as done:
        driver.send("sent")
    assert done.value.value == ["told", "sent"]


async def test_before_wait_passes_a_cancellation_on() -> None:
    log: Log = []

    async def body() -> str:
        try:
            await forever()
        except asyncio.CancelledError:
            log.append("told")
        await asyncio.sleep(0)
        return "value"

    async def outer() -> Any:
        return await before_wait(body(), lambda: log.append("call"))

    task = asyncio.create_task(outer())
    await settle()
    task.cancel()
    assert await task == "value"
    assert log == ["call", "told", "call"]


def test_an_error_arrives_where_the_coroutine_waits_already() -> None:
    log: Log = []
    waiting = catches()
    assert waiting.send(None) == "first"
    driver = before_wait(waiting, lambda: log.append("call"), Failed("arrived"))
    assert driver.send(None) == "second"
    assert log == ["call"]
    with pytest.raises(StopIteration) as done:
        driver.send("sent")
    assert done.value.value == ["arrived", "sent"]
