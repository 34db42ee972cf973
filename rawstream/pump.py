"""The heart: drive an async iterator, and flush before it waits.

*A byte never waits for the next byte.* Items that come without a wait between them are gathered. They leave as one
write when the iterator waits; or sooner, if `gather` bytes are together or a millisecond has passed. No delay is added.

How can the pump know that the iterator waits? A coroutine that waits hands an object up, through all that await it, to
the event loop. `before_wait` stands in the way: it drives a coroutine as `await` would, but when such an object comes
past, it calls back first and hands the object up then. Between the two nothing else can happen.

The rule for exceptions, cancellation among them: one that arrives while a step of the iterator is pending is thrown
into that step; one that arrives between two steps is thrown in at the iterator's `yield` (`athrow`). So
`asyncio.timeout()` and task groups work inside a generator, and across its `yield`s.
"""

from __future__ import annotations

import time
import types
from collections.abc import AsyncIterable, Callable, Coroutine, Generator
from typing import Any, Protocol

GATHER = 16 * 1024
"""Bytes that are worth a system call of their own: as many as a TLS record holds (RFC 8446 section 5.1)."""

TURN = 0.001
"""Seconds for which an iterator may keep the loop: no reader notices one, and a hundred streams still flow."""


class Sink(Protocol):
    """Where a pump writes to."""

    @property
    def writable(self) -> bool: ...  # False while the reader is behind, and when it is gone
    def write(self, payload: bytes) -> None: ...  # never waits, never fails; b"" says that the iterator waits
    async def drain(self) -> None: ...  # waits until writable; raises when the reader is gone
    def later(self, seconds: float, callback: Callable[[], None]) -> Any: ...  # has cancel()


class Pump:
    """Moves the items of `iterator`, as `encode` makes them bytes, to `sink`.

    gather: bytes at which to flush; hold: seconds for which bytes may wait for more, 0 for flush before wait.
    """

    def __init__(
        self, iterator: AsyncIterable[Any], encode: Callable[[Any], bytes], sink: Sink,
        gather: int = GATHER, hold: float = 0.0, clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._iterator, self._encode, self._sink = iterator, encode, sink
        self._gather, self._hold, self._clock = gather, hold, clock
        self._parts: list[bytes] = []
        self._size = 0
        self._until = clock() + TURN  # when the loop has to run; 0.0 if it has run since the last item
        self._timer: Any = None

    async def run(self) -> None:
        """Until the iterator ends; what it gave last is left for `take`, so that it can leave together with the end.

        Raises what the iterator and `encode` raise, and what `sink.drain` raises when the reader is gone.
        """
        try:
            await before_wait(self._fill(), self._waits)
        finally:
            self._disarm()

    def take(self) -> bytes:
        """What is gathered, and from now on is not."""
        payload = b"".join(self._parts)
        self._parts.clear()
        self._size = 0
        return payload

    async def _fill(self) -> None:
        iterator: Any = aiter(self._iterator)
        parts, encode, clock = self._parts, self._encode, self._clock
        thrown: BaseException | None = None
        while True:
            try:
                item = await (anext(iterator) if thrown is None else iterator.athrow(thrown))
            except StopAsyncIteration:
                return
            finally:
                thrown = None  # an exception that this frame kept alive would keep this frame alive
            part = encode(item)
            parts.append(part)
            self._size += len(part)
            if self._size >= self._gather or clock() >= self._until:
                try:
                    await self._turn()
                except BaseException as error:
                    if isinstance(error, GeneratorExit) or not hasattr(iterator, "athrow"):
                        raise  # this coroutine is being closed, or the iterator has no `yield` to be told at
                    thrown = error

    async def _turn(self) -> None:
        """Enough is gathered, or the loop has to run, or it has just run: so the reader may be behind, or gone."""
        has_run = self._until == 0.0
        if self._size >= self._gather:
            self._flush()
        if not has_run:
            await _let_the_loop_run()  # a wait, too: what is not held is flushed before it
        self._until = self._clock() + TURN
        if not self._sink.writable:
            await self._sink.drain()

    def _waits(self) -> None:
        self._until = 0.0
        self._sink.write(b"" if self._hold else self.take())
        if self._parts and self._timer is None:
            self._timer = self._sink.later(self._hold, self._flush)

    def _flush(self) -> None:
        self._disarm()
        self._sink.write(self.take())

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


@types.coroutine
def before_wait(coroutine: Coroutine[Any, Any, Any], call: Callable[[], None]) -> Generator[Any, Any, Any]:
    """Drive `coroutine` as `await` would, but do `call()` each time before it waits."""
    resume, value = coroutine.send, None
    while True:
        try:
            waits_for = resume(value)
        except StopIteration as done:
            return done.value
        finally:
            del value  # as in _fill
        try:
            call()
            resume, value = coroutine.send, (yield waits_for)
        except BaseException as error:
            resume, value = coroutine.throw, error
        del waits_for  # a future, perhaps, which holds an exception


@types.coroutine
def _let_the_loop_run() -> Generator[None, None, None]:
    yield


async def close(iterator: AsyncIterable[Any]) -> None:
    """Close `iterator`, if it can be closed, so that its `finally` runs; due also where no pump ever ran."""
    if hasattr(iterator, "aclose"):
        await iterator.aclose()
