"""Deadlines that share timers. Ten thousand silent connections have ten thousand deadlines; a timer each would cost the
event loop a heap of them, and a push and a pop for every request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

GRAIN = 0.25
"""Seconds to which a deadline is exact: everything that is due within one shares a timer of the loop."""

_SPARE = 64  # buckets that may be empty; then they are looked for, so rarely that it costs a deadline next to nothing


class Deadline:
    """One callback that is due; `cancel` forgets it."""

    __slots__ = ("_bucket", "callback")

    def __init__(self, bucket: set[Deadline], callback: Callable[[], None]) -> None:
        self._bucket = bucket
        self.callback = callback

    def cancel(self) -> None:
        """Do not call. May be called at any time, also after the callback."""
        self._bucket.discard(self)


class Deadlines:
    """Coarse deadlines that share timers: setting one, and cancelling it, costs a set's entry and no timer."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._buckets: dict[int, tuple[set[Deadline], asyncio.TimerHandle]] = {}
        self._most = _SPARE  # buckets until the empty ones are looked for

    def after(self, seconds: float, callback: Callable[[], None]) -> Deadline:
        """Call `callback` after `seconds`, never earlier, and at most GRAIN later."""
        tick = int((self._loop.time() + seconds) / GRAIN) + 1
        if tick not in self._buckets:
            if len(self._buckets) >= self._most:
                self._drop_empty()
            self._buckets[tick] = set(), self._loop.call_at(tick * GRAIN, self._due, tick)
        bucket = self._buckets[tick][0]
        deadline = Deadline(bucket, callback)
        bucket.add(deadline)
        return deadline

    def _drop_empty(self) -> None:
        """Of an hour's deadlines that are cancelled at once, 14,400 buckets and timers would be left."""
        for tick in [tick for tick, (bucket, _) in self._buckets.items() if not bucket]:
            self._buckets.pop(tick)[1].cancel()
        self._most = 2 * len(self._buckets) + _SPARE

    def _due(self, tick: int) -> None:
        bucket, _ = self._buckets.pop(tick)
        while bucket:
            deadline = bucket.pop()
            try:
                deadline.callback()
            except Exception as error:  # the others are due all the same
                self._loop.call_exception_handler({"message": "a deadline's callback failed", "exception": error})

    def close(self) -> None:
        """Forget all of them."""
        for _, timer in self._buckets.values():
            timer.cancel()
        self._buckets.clear()
