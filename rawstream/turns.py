"""Turns of the loop for those whose work comes in many pieces, so that everybody else waits for one of them at most."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import TypeAlias
from weakref import WeakKeyDictionary

TURN = 0.001  # seconds of work after which somebody else shall run; the pump has the same

Work: TypeAlias = tuple[int, float]
"""In which turn somebody works, and until when."""

NO_WORK: Work = -1, 0.0
"""Of who has not begun: it was in no turn that there is."""


class Turns:
    """Whoever works for a millisecond without giving way queues up. In each turn of the loop one of the queue goes on.

    A `sleep(0)` would let all of them go on in each turn: others would wait for as many milliseconds as they are.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._queue: deque[asyncio.Future[None]] = deque()  # while there is anybody, `_call` is about to be called
        self._number = 0  # of this turn, as far as anybody works
        self._ends = False  # `_end` is about to be called

    @classmethod
    def of(cls, loop: asyncio.AbstractEventLoop) -> Turns:
        """Those of this loop, which all connections in it share."""
        if loop not in _all:
            _all[loop] = cls()
        return _all[loop]

    async def go_on(self, work: Work) -> Work:
        """Go on with `work`, what this gave the last time; after others who do, if it has had its time in this turn."""
        number, until = work
        if number == self._number:
            if self._clock() < until:
                return work
            await self._others()
        if not self._ends:
            self._ends = True
            asyncio.get_running_loop().call_soon(self._end)
        return self._number, self._clock() + TURN

    def _end(self) -> None:
        self._ends = False
        self._number += 1

    async def _others(self) -> None:
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append(place)
        if len(self._queue) == 1:
            place.get_loop().call_soon(self._call)
        await place

    def _call(self) -> None:
        place = self._queue.popleft()
        if not place.done():  # else it was cancelled
            place.set_result(None)
        if self._queue:
            place.get_loop().call_soon(self._call)


_all: WeakKeyDictionary[asyncio.AbstractEventLoop, Turns] = WeakKeyDictionary()
