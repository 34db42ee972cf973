"""Drive what `await` and `async for` drive, and see it wait.

A coroutine that waits hands an object up, through all that await it, to the event loop, which sends None (or throws an
exception) down again when it shall go on. Who stands in the way sees each wait, and needs nothing of the loop.
"""

from __future__ import annotations

import types
from collections.abc import AsyncIterator, Callable, Generator
from typing import Any, Protocol


class Step(Protocol):
    """What `await` drives: a coroutine, or what an async generator's `__anext__` gives."""

    def send(self, value: Any, /) -> Any: ...
    def throw(self, error: BaseException, /) -> Any: ...


@types.coroutine
def before_wait(step: Step, call: Callable[[], None], arrives: BaseException | None = None) -> Generator[Any, Any, Any]:
    """Drive `step` as `await` would, but do `call()` each time before it waits.

    arrives: for a step that waits already, the exception with which that wait ends.
    """
    resume: Callable[[Any], Any] = step.send if arrives is None else step.throw
    value, arrives = arrives, None
    while True:
        try:
            waits_for = resume(value)
        except StopIteration as done:
            return done.value
        finally:
            del value  # an exception that this frame kept alive would keep this frame alive
        try:
            call()
            resume, value = step.send, (yield waits_for)
        except BaseException as error:
            resume, value = step.throw, error
        del waits_for  # a future, perhaps, which holds an exception


@types.coroutine
def let_the_loop_run() -> Generator[None, None, None]:
    """The shortest wait."""
    yield


async def close(iterator: AsyncIterator[Any]) -> None:
    """Close `iterator`, if it can be closed, so that its `finally` runs; due also where no pump ever ran."""
    await iterator.aclose() if hasattr(iterator, "aclose") else None
