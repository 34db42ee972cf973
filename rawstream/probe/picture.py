"""The arrivals as a picture of characters: a line for each way, from left to right the time. No I/O, no colour.

A block is what arrived, as high as it is many bytes; a dot is what had been sent and had not arrived yet.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from .arrivals import Recording
from .findings import Case, seconds

BLOCKS: Final = "▁▂▃▄▅▆▇█"
ASCII: Final = ".:+*#"
"""What is drawn with where the terminal has no blocks; the waiting is then a "-"."""

_NAME = 24  # columns
_ROOM = 14  # columns for the word behind


def strip(recording: Recording, width: int, span: float, ascii: bool = False) -> str:
    """One answer in `width` columns, which are `span` seconds."""
    sizes = [0] * width
    for piece in recording.pieces:
        if piece.size:
            sizes[_column(piece.at, width, span)] += piece.size
    cells = [" "] * width
    for first, last in _waits(recording):
        for column in range(_column(first, width, span), _column(last, width, span)):
            cells[column] = "-" if ascii else "·"
    most = max(sizes, default=0)
    levels = ASCII if ascii else BLOCKS
    for column, size in enumerate(sizes):
        if size:
            cells[column] = levels[min(len(levels) * size // (most + 1), len(levels) - 1)]
    if recording.ending == "cut":
        cells[_column(recording.ended_at, width, span)] = "x" if ascii else "✗"
    return "".join(cells)


def _column(at: float, width: int, span: float) -> int:
    return min(max(int(at / span * width), 0), width - 1) if span else 0


def _waits(recording: Recording) -> list[tuple[float, float]]:
    """From when to when something had been sent and nothing had come."""
    if not recording.marks:
        return []
    least = min(mark.arrived - mark.sent for mark in recording.marks)
    return [(mark.sent + least, mark.arrived) for mark in recording.marks]


def picture(cases: Sequence[Case], width: int = 80, ascii: bool = False) -> list[str]:
    """The lines, none longer than `width` columns, of which 60 are the least."""
    drawn = [case for case in cases if case.recording.ending != "failed"]
    if not drawn:
        return []
    room = max(width, 60) - _NAME - _ROOM - 2
    span = max(case.recording.ended_at for case in drawn) or 1.0
    end = seconds(span)
    lines = [f"{'':{_NAME}} 0 s{end:>{room - 3}}"]
    for case in cases:
        name = case.way.name if len(case.way.name) <= _NAME else case.way.name[: _NAME - 1] + ("." if ascii else "…")
        shown = strip(case.recording, room, span, ascii) if case in drawn else " " * room
        lines.append(f"{name:{_NAME}} {shown} {_WORD[case.finding.kind]}".rstrip())
    return lines


_WORD = {
    "streams": "streams",
    "batches": "in batches",
    "held": "held back",
    "cut": "cut",
    "unknown": "cannot tell",
    "no stream": "no stream",
    "failed": "failed",
}
