"""The heart: drive an async iterator, and flush before it waits.

*A byte never waits for the next byte.* Items that come without a wait between them are gathered. They leave as one
write when the iterator waits; or sooner, if `gather` bytes are together or a millisecond has passed. No delay is added.

How does the pump know? A coroutine that waits hands an object up, through all that await it, to the event loop.
`before_wait` stands in the way: it drives a coroutine as `await` would, and calls back before it passes one on.

The rule for exceptions, cancellation among them: one that arrives while a step of the iterator is pending is thrown
into that step; one that arrives between two steps is thrown in at the iterator's `yield` (`athrow`). So task groups
and `asyncio.timeout()` work inside a generator, and across its `yield`s.
"""

from __future__ import annotations

import time
import types
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Generator
from typing import Any, Protocol

from .errors import Disconnected, ItemError

GATHER = 16 * 1024  # bytes that are worth a system call: as many as a TLS record holds (RFC 8446 section 5.1)
TURN = 0.001  # seconds for which an iterator may keep the loop: no reader notices, and a hundred streams still flow


class Sink(Protocol):
    """Where a pump writes to."""

    @property
    def writable(self) -> bool: ...  # not while the reader is behind, nor when it is gone
    def write(self, payload: bytes) -> bool: ...  # never waits or fails; b"" says that the iterator waits; -> writable
    async def drain(self) -> None: ...  # waits until writable; raises when the reader is gone
    def later(self, seconds: float, callback: Callable[[], None]) -> Any: ...  # has cancel()


class Pump:
    """Moves the items of `iterator`, as `encode` makes them bytes, to `sink`.

    gather: bytes at which to flush; hold: seconds for which bytes may wait for more, 0 for flush before wait.
    """

    def __init__(
        self, iterator: AsyncIterator[Any], encode: Callable[[Any], bytes], sink: Sink,
        gather: int = GATHER, hold: float = 0.0, clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._iterator, self._encode, self._sink = iterator, encode, sink
        self._gather, self._hold, self._clock = gather, hold, clock
        self._timer: Any = None
        self.parts: list[bytes] = []  # gathered
        self.taken = 0  # items that were sent
        self._keeps_up = True  # the reader did when the iterator last waited
        self._until = clock() + TURN  # when the loop has to run; 0.0 if it has run since the last item

    def run(self) -> Awaitable[None]:
        """Until the iterator ends; what it gave last is left for `take`. Raises what it, `encode` and `drain` raise."""
        return before_wait(self._fill(), self._waits)

    def take(self) -> bytes:
        """What is gathered, and from now on is not."""
        payload = b"".join(self.parts)
        self.taken += len(self.parts)
        self.parts.clear()
        return payload

    async def _fill(self) -> None:
        encode, parts, gather, clock, size = self._encode, self.parts, self._gather, self._clock, 0
        try:
            async for item in self._iterator:
                part = encode(item)
                size = size + len(part) if parts else len(part)
                parts.append(part)
                late = (self._until or len(parts) > 1) and clock() >= self._until  # who comes alone needs no clock
                if size >= gather or not self._keeps_up or (late and self._until):
                    await self._turn()
                elif late:
                    self._until = clock() + TURN
        except ItemError as error:
            error.index = self.taken + len(parts)
            raise
        finally:
            self._disarm()

    async def _turn(self) -> None:
        """Let the loop run, unless it just has, and the reader catch up; what arrives meanwhile goes to the `yield`."""
        while True:
            try:
                if sum(map(len, self.parts)) >= self._gather:
                    self._flush()
                if self._until != 0.0:
                    await _let_the_loop_run()  # a wait, too: what is not held is flushed before it
                self._keeps_up, self._until = True, self._clock() + TURN
                if not self._sink.writable:
                    await self._sink.drain()
                return
            except BaseException as error:
                if isinstance(error, GeneratorExit) or not isinstance(self._iterator, AsyncGenerator):
                    raise  # this coroutine is being closed, or the iterator has no `yield`
                try:
                    item = await self._iterator.athrow(error)
                except StopAsyncIteration:
                    return
                if isinstance(error, Disconnected):
                    raise  # it was told, and goes on: closing it will end it
            self.parts.append(self._encode(item))

    def _waits(self) -> None:
        self._until = 0.0
        self._keeps_up = self._sink.write(b"" if self._hold else self.take())
        if self.parts and self._timer is None:
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
            del value  # an exception that this frame kept alive would keep this frame alive
        try:
            call()
            resume, value = coroutine.send, (yield waits_for)
        except BaseException as error:
            resume, value = coroutine.throw, error
        del waits_for  # a future, perhaps, which holds an exception


@types.coroutine
def _let_the_loop_run() -> Generator[None, None, None]:
    yield


async def close(iterator: AsyncIterator[Any]) -> None:
    """Close `iterator`, if it can be closed, so that its `finally` runs; due also where no pump ever ran."""
    await iterator.aclose() if hasattr(iterator, "aclose") else None
