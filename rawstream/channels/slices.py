"""Long work in short slices, so that the loop accepts, reads and looks at its timers in between."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator

log = logging.getLogger("rawstream")

SLICE = 0.002  # seconds: some 200 writes to sockets, and less than anybody notices
STEPS = 16  # at most, in a slice: uvloop's transport, under TLS, notes what is written, and sends it when the turn ends


class Slices:
    """Runs generators a step at a time, in turn; a turn of the loop has one slice for all of them together."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._work: deque[Iterator[None]] = deque()

    def add(self, steps: Iterator[None]) -> None:
        """Begin at once if nothing else is under way. The steps never wait and never fail."""
        self._work.append(steps)
        if len(self._work) == 1:
            self._slice()

    def _slice(self) -> None:
        clock, work = self._clock, self._work
        until, steps = clock() + SLICE, 0
        while work:
            try:
                for _ in work[0]:
                    steps += 1
                    if steps == STEPS or clock() >= until:
                        work.rotate(-1)
                        asyncio.get_running_loop().call_soon(self._slice)
                        return
            except Exception:
                log.exception("work in slices failed; the others go on")
            work.popleft()
