"""Reads that came together, as bursts; and what a buffer's flush looks like from outside. No I/O.

Without sending times nothing is certain. But who flushes when a buffer is full does not know where a message ends, and
flushes at the same size each time; who has something to say flushes where it ends, at any size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from .arrivals import Piece

TOGETHER = 0.010
"""Seconds: what comes closer than this came together, since a busy machine may take that long to read twice."""

_BREAK = 5.0  # times: gaps between bursts are at least so much longer than those inside
_INSTANT = 0.15  # of the pause before it: no longer than this does a burst take that was flushed at once
_ALIKE = 0.02  # of the median: sizes that differ by no more are the same
_LARGER = 1.6  # times the usual message is what the last one of a burst may be
_SMALL = 16  # messages: of so many, one is small beside the buffer
STEP = 1024  # bytes: sizes of buffers are multiples of it


@dataclass(frozen=True, slots=True)
class Burst:
    """Pieces that came together."""

    pieces: tuple[Piece, ...]

    @property
    def at(self) -> float:
        """When it came."""
        return self.pieces[0].at

    @property
    def spread(self) -> float:
        """Seconds from its first to its last piece."""
        return self.pieces[-1].at - self.pieces[0].at

    @property
    def size(self) -> int:
        """Its bytes."""
        return sum(piece.size for piece in self.pieces)

    @property
    def messages(self) -> int:
        """How many messages ended in it."""
        return sum(piece.messages for piece in self.pieces)

    @property
    def whole(self) -> bool:
        """Whether its end is the end of a message."""
        return self.pieces[-1].whole


def bursts(pieces: Sequence[Piece]) -> list[Burst]:
    """The pieces that say something, in bursts. Where no break between short and long gaps shows, TOGETHER is it."""
    pieces = [piece for piece in pieces if piece.size]
    gaps = sorted(after.at - before.at for before, after in pairwise(pieces))
    limit = TOGETHER
    steps = [
        (gap / max(below, TOGETHER), math.sqrt(max(below, TOGETHER) * gap))
        for below, gap in zip([0.0, *gaps], gaps, strict=False)
        if gap > TOGETHER
    ]
    if steps and max(steps)[0] >= _BREAK:
        limit = max(steps)[1]
    grouped = _grouped(pieces, limit)
    return grouped if are_instant(grouped) else _grouped(pieces, TOGETHER)


def _grouped(pieces: Sequence[Piece], limit: float) -> list[Burst]:
    groups: list[list[Piece]] = []
    for piece in pieces:
        if groups and piece.at - groups[-1][-1].at <= limit:
            groups[-1].append(piece)
        else:
            groups.append([piece])
    return [Burst(tuple(group)) for group in groups]


def are_instant(found: Sequence[Burst]) -> bool:
    """Whether nearly all came in no time, as a flushed buffer does. A flow without pauses does not."""
    total = sum(burst.size for burst in found)
    instant = 0
    for place, burst in enumerate(found):
        before = burst.at - (found[place - 1].pieces[-1].at if place else 0.0)
        after = found[place + 1].at - burst.pieces[-1].at if place + 1 < len(found) else 0.0
        if burst.spread <= max(2 * TOGETHER, _INSTANT * max(before, after)):
            instant += burst.size
    return instant >= 0.8 * total


def pause(found: Sequence[Burst]) -> float:
    """The usual time between two bursts; 0.0 if there is but one."""
    between = [after.at - before.pieces[-1].at for before, after in pairwise(found)]
    return median(between) if between else 0.0


# What follows is asked of bursts that somebody chose to end: not of the last one, if that ended with the stream.


def are_torn(flushed: Sequence[Burst]) -> bool:
    """Whether most bursts end inside a message."""
    return sum(not burst.whole for burst in flushed) > len(flushed) / 2


def fixed_size(flushed: Sequence[Burst]) -> int | None:
    """The size of all bursts, the first perhaps aside, if it is that of a buffer; at least two must have it."""
    sizes = [burst.size for burst in flushed]
    if len(sizes) > 2 and not _alike(sizes):
        sizes = sizes[1:]
    if len(sizes) < 2 or not _alike(sizes):
        return None
    size = round(median(sizes) / STEP) * STEP
    return size if size and abs(median(sizes) - size) <= _ALIKE * size else None


def _alike(sizes: Sequence[int]) -> bool:
    return max(sizes) - min(sizes) <= _ALIKE * median(sizes)


def threshold(flushed: Sequence[Burst]) -> int | None:
    """The number of bytes at which each burst was flushed, with the message that reached it.

    Every burst is at least as large, and larger by less than a message. That is chance where all bursts
    have as many messages; so they must not, or the number must be that of a buffer and messages be small beside it.
    """
    inner = [burst for burst in flushed if burst.messages]
    if len(inner) < 2 or not all(burst.whole for burst in inner):
        return None
    sizes, counts = [burst.size for burst in inner], [burst.messages for burst in inner]
    message = sum(sizes) / sum(counts)
    power = 1 << (min(sizes).bit_length() - 1)
    last = message if max(sizes) == min(sizes) else _LARGER * message
    if power >= STEP and min(counts) >= _SMALL and max(sizes) - power < last:
        return power
    varied = len(set(counts)) > 1 and len(inner) >= 4 and min(counts) >= 4
    return min(sizes) if varied and max(sizes) - min(sizes) < _LARGER * message and min(sizes) >= STEP else None
