"""The heart: drive an async iterator, and flush before it waits.

*A byte never waits for the next byte.* Items that come without a wait between them are gathered. They leave as one
write when the iterator waits; or sooner, if `gather` bytes are together or a millisecond has passed. No delay is added.

The rule for exceptions, cancellation among them: one that arrives while a step of the iterator is pending is thrown
into that step; one between two steps is thrown in at the iterator's `yield` (`athrow`). So `asyncio.timeout()` and task
groups work inside a generator, and across its `yield`s; but not across those of one that it iterates over (PEP 789).
"""

from __future__ import annotations

import time
import types
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator
from typing import Any

from .driving import before_wait, let_the_loop_run
from .errors import Disconnected, ItemError
from .sink import Sink

GATHER = 16 * 1024  # bytes that are worth a system call: as many as a TLS record holds (RFC 8446 section 5.1)
TURN = 0.001  # seconds for which an iterator may keep the loop: no reader notices, and a hundred streams still flow


class Pump:
    """Moves the items of `iterator`, as `encode` makes them bytes, to `sink`.

    gather: bytes at which to flush; hold: seconds for which bytes may wait for more, 0 for flush before wait.
    """

    def __init__(
        self, iterator: AsyncIterator[Any], encode: Callable[[Any], bytes], sink: Sink,
        gather: int = GATHER, hold: float = 0.0, clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._iterator, self._encode, self._sink = iterator, encode, sink
        self._most, self._hold, self._clock = gather, hold, clock
        self._timer: Any = None
        self.parts: list[bytes] = []  # gathered
        self.taken = 0  # items that were sent
        self._keeps_up, self._alone = True, False  # when the iterator last waited: the reader did; one item had come
        self._until = clock() + TURN  # when the loop has to run; 0.0 if it has run since the last item

    @types.coroutine
    def run(self) -> Generator[Any, Any, None]:
        """Until the iterator ends; what it gave last is left for `take`. Raises what it, `encode` and `drain` raise."""
        encode, parts, most = self._encode, self.parts, self._most
        try:
            while (yield from before_wait(self._gather(), self._waits)):
                iterator, (frame, out), passed, writable = self._iterator, self._sink.way(), 0, True
                part: Any = parts.pop()  # it came alone, after a wait: from here on, the shortest way
                try:
                    while writable and part and len(part) < most:
                        try:
                            step: Any = anext(iterator)
                            try:
                                waits_for = step.send(None)
                            except StopIteration as ready:
                                item = ready.value
                            else:
                                writable, part = out.write(frame(part)), None
                                passed += 1
                                try:
                                    waits_for = yield waits_for
                                except BaseException as error:
                                    step, waits_for = before_wait(step, self._waits, error), None
                                item = yield from step  # where it waits again, nothing is left to be flushed
                        except StopAsyncIteration:
                            return
                        part, last = encode(item), part
                        if last is not None:  # no wait was between the two: gather
                            parts.append(last)
                            break
                finally:
                    self._keeps_up, self.taken = writable, self.taken + passed
                    if part is not None:
                        parts.append(part)
                    part = last = item = step = None  # while it gathers, nothing of this is kept
        except ItemError as error:
            error.index = self.taken + len(parts)
            raise
        finally:
            self._disarm()

    def take(self) -> bytes:
        """What is gathered, and from now on is not."""
        payload = b"".join(self.parts)
        self.taken += len(self.parts)
        self.parts.clear()
        return payload

    async def _gather(self) -> bool:
        """Until the iterator has ended, or (True) gives one item at a time."""
        encode, parts, most, clock, size = self._encode, self.parts, self._most, self._clock, sum(map(len, self.parts))
        if size >= most or not self._keeps_up:
            size = await self._turn()
        elif len(parts) > 1:
            self._until = clock() + TURN
        async for item in self._iterator:
            part = encode(item)
            parts.append(part)
            size += len(part)
            if size >= most or not (until := self._until) or clock() >= until:
                size = sum(map(len, parts))  # what came before a wait has left
                if size >= most or self._until or not self._keeps_up:
                    size = await self._turn()
                elif len(parts) > 1:
                    self._until = clock() + TURN
                elif self._alone and isinstance(self._iterator, types.AsyncGeneratorType):
                    return True
        return False

    async def _turn(self) -> int:
        """Let the loop run, unless it just has, and the reader catch up. Returns how many bytes are left."""
        while True:
            try:
                if sum(map(len, self.parts)) >= self._most:
                    self._flush()
                if self._until != 0.0:
                    await let_the_loop_run()  # a wait, too: what is not held is flushed before it
                self._keeps_up, self._until = True, self._clock() + TURN
                if not self._sink.writable:
                    await self._sink.drain()
                return sum(map(len, self.parts))
            except BaseException as error:
                if isinstance(error, GeneratorExit) or not isinstance(self._iterator, AsyncGenerator):
                    raise  # this coroutine is being closed, or the iterator has no `yield`
                try:
                    item = await self._iterator.athrow(error)
                except StopAsyncIteration:
                    return 0
                if isinstance(error, Disconnected):
                    raise  # it was told, and goes on: closing it will end it
            self.parts.append(self._encode(item))

    def _waits(self) -> None:
        self._until, self._alone = 0.0, len(self.parts) == 1 and self.parts != [b""] and not self._hold
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
