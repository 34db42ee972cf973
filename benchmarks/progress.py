"""Shows how far a run is: a bar on a terminal, plain lines elsewhere."""

import time
from collections.abc import Callable
from typing import TextIO

_WIDTH = 24


class Progress:
    """Counts the turns of a run on a text stream."""

    def __init__(self, total: int, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._total = total
        self._stream = stream
        self._clock = clock
        self._started = clock()
        self._done = 0
        self._width = 0

    def step(self, what: str) -> None:
        """Say what runs now; the turn before it is done."""
        elapsed = self._clock() - self._started
        if self._stream.isatty():
            filled = _WIDTH * self._done // self._total
            left = f", {elapsed / self._done * (self._total - self._done):.0f} s left" if self._done else ""
            self._draw(f"[{'█' * filled}{'·' * (_WIDTH - filled)}] {self._done}/{self._total}{left}  {what}")
        else:
            print(f"[{self._done + 1}/{self._total}] {elapsed:.0f} s  {what}", file=self._stream, flush=True)
        self._done += 1

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
