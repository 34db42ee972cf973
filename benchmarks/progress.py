"""Shows how far a run is, and how long it will still take: a bar on a terminal, plain lines elsewhere."""

import math
import time
from collections.abc import Callable
from typing import TextIO

_WIDTH = 24


class Progress:
    """Counts the turns of a run on a text stream.

    total: how many turns. expected: what all of them together are expected to take, and `each` what the turns from now
    on are; what has been taken so far then says how much longer or shorter the rest will take. Without it, all turns
    count alike. limit: the seconds in which all will have ended, since turns are dropped for that.
    """

    def __init__(
        self,
        total: int,
        stream: TextIO,
        clock: Callable[[], float] = time.monotonic,
        expected: float | None = None,
        limit: float | None = None,
    ) -> None:
        self.each = 1.0
        self._total = total
        self._expected = expected or float(total)
        self._limit = math.inf if limit is None else limit
        self._stream = stream
        self._clock = clock
        self._started = clock()
        self._done = 0
        self._passed = 0.0  # the part of what is expected that lies behind
        self._now = 0.0  # what the present turn is expected to take
        self._width = 0

    def step(self, what: str) -> None:
        """Say what runs now; the turn before it is done."""
        elapsed = self._clock() - self._started
        self._passed += self._now
        self._now = self.each
        share = min(self._passed / self._expected, 1.0)
        left = ""
        if share:
            rest = min(elapsed / share - elapsed, self._limit - elapsed)
            left = f", {in_words(max(rest, 0.0))} left"
        if self._stream.isatty():
            filled = int(_WIDTH * share)
            self._draw(f"[{'█' * filled}{'·' * (_WIDTH - filled)}] {self._done}/{self._total}{left}  {what}")
        else:
            print(f"[{self._done + 1}/{self._total}] {elapsed:.0f} s{left}  {what}", file=self._stream, flush=True)
        self._done += 1

    def drop(self, turns: int) -> None:
        """So many turns, each as long as `each`, will not be."""
        self._total -= turns
        self._expected = max(self._expected - turns * self.each, self._passed + self._now)

    def close(self) -> None:
        """Take the bar away."""
        if self._stream.isatty():
            self._draw("")
            self._stream.write("\r")
            self._stream.flush()

    def _draw(self, line: str) -> None:
        self._stream.write("\r" + line.ljust(self._width))
        self._stream.flush()
        self._width = len(line)


def in_words(seconds: float) -> str:
    """A time as it is told to somebody who waits."""
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"
