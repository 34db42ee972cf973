"""What can be found of one answer, and how it is said. No I/O."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .arrivals import Recording
from .ways import BROWSER, Way

Kind = Literal["streams", "batches", "held", "cut", "unknown", "no stream", "failed"]


@dataclass(frozen=True, slots=True)
class Finding:
    """How one answer came, in words that follow its name, and in numbers.

    inferred: there were no sending times. batch: bytes of a batch, where all are of one size. period: seconds from one
    batch to the next, 0.0 if there is none. seconds: how long the first of it was held back; of what streams, the
    median of that; for what was cut, the silence before.
    """

    kind: Kind
    words: str
    inferred: bool = False
    batch: int | None = None
    period: float = 0.0
    seconds: float = 0.0
    notes: tuple[str, ...] = ()

    @property
    def bad(self) -> bool:
        """Whether somebody keeps the stream from its reader."""
        return self.kind in ("batches", "held", "cut")


@dataclass(frozen=True, slots=True)
class Case:
    """One way of asking, what came of it, and what was found."""

    way: Way
    recording: Recording
    finding: Finding

    @property
    def is_compressed(self) -> bool:
        """Whether what came was compressed, or would have been: of an answer that did not even begin nobody says so."""
        return bool(self.recording.coding) or (self.recording.timed_out and BROWSER in self.way.headers)


def seconds(value: float) -> str:
    """Seconds as people say them: "1.6 s", "40 ms"."""
    if value < 0.0995:
        return f"{value * 1000:.0f} ms"
    return f"{value:.1f} s" if value < 99.5 else f"{value:.0f} s"


def plural(number: int, name: str) -> str:
    """ "1 chunk", "2 chunks"."""
    return f"{number} {name}{'' if number == 1 else 's'}"
