"""What a probe has found, for people (80 columns of text) and for machines (JSON). No I/O."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from itertools import pairwise
from statistics import median
from typing import Any

from rawstream.terminal import BOLD, GREEN, RED, YELLOW, Style, on_one_line, size

from .arrivals import Recording
from .conclusion import Conclusion, fields
from .culprits import parties
from .findings import Case, plural, seconds
from .picture import picture

_HEADING = ("asked for", "head", "first", "pause", "longest", "a read", "a chunk")
_WIDTHS = (24, 8, 8, 9, 9, 10, 9)


def text(url: str, cases: Sequence[Case], conclusion: Conclusion, resumed: str, style: Style) -> str:
    """The whole report; the verdict stands last, where a terminal shows it."""
    lines = [on_one_line(url), _method(cases), ""]
    drawn = picture(cases, min(style.width, 120), not style.blocks)
    if drawn:
        lines += [*drawn, "", *_table(cases), ""]
    lines += _facts(cases, resumed)
    lines += _verdict(conclusion, style)
    return "\n".join(lines) + "\n"


def _method(cases: Sequence[Case]) -> str:
    if any(case.recording.marks for case in cases):
        return "Each chunk says when it was sent: what follows is measured."
    return "Nobody knows when this was sent: what follows is inferred from how it came."


def _table(cases: Sequence[Case]) -> Iterator[str]:
    yield _columns(_HEADING)
    for case in cases:
        if case.recording.ending != "failed":
            name = case.way.name if len(case.way.name) < _WIDTHS[0] else case.way.name[: _WIDTHS[0] - 2] + "…"
            yield _columns((name, *_measures(case.recording)))


def _columns(cells: Sequence[str]) -> str:
    first, *rest = zip(cells, _WIDTHS, strict=True)
    return f"{first[0]:{first[1]}}" + "".join(f"{cell:>{width}}" for cell, width in rest)


def _measures(recording: Recording) -> list[str]:
    gaps = _gaps(recording)
    reads = [piece.size for piece in recording.pieces if piece.size]
    sizes = [chunk.size for chunk in recording.chunks if chunk.size]
    return [
        _time(recording.head_at),
        _time(recording.first_byte),
        _time(median(gaps) if gaps else None),
        _time(max(gaps, default=None)),
        size(median(reads)) if reads else "-",
        size(median(sizes)) if sizes else "-",
    ]


def _gaps(recording: Recording) -> list[float]:
    times = [piece.at for piece in recording.pieces if piece.size]
    return [after - before for before, after in pairwise(times)]


def _time(value: float | None) -> str:
    return "-" if value is None else seconds(value)


def _facts(cases: Sequence[Case], resumed: str) -> list[str]:
    lines = []
    beats = max(case.recording.heartbeats for case in cases)
    if beats:
        lines.append(_fact("heartbeats", str(beats)))
    if resumed:
        lines.append(_fact("resume", on_one_line(resumed)))
    added, removed = fields(cases)
    if added:
        lines.append(_fact("added", on_one_line(", ".join(added))))
    if removed:
        lines.append(_fact("changed", on_one_line(", ".join(removed))))
    on_the_way = {party: why for case in cases for party, why in parties(case.recording.headers).items()}
    lines += [_fact("on the way", on_one_line(f"{party} ({why})")) for party, why in on_the_way.items()]
    untold = [case for case in cases if case.finding.kind in _UNTOLD]
    if len(untold) < len(cases):  # else the verdict says it
        lines += [
            _fact(_UNTOLD[case.finding.kind], on_one_line(f"{case.way.name}: {case.finding.words}")) for case in untold
        ]
    return [*lines, ""] if lines else []


_UNTOLD = {"failed": "failed", "unknown": "cannot tell"}


def _fact(name: str, value: str) -> str:
    return textwrap.fill(value, 80, initial_indent=f"{name:12}", subsequent_indent=" " * 12)


def _verdict(conclusion: Conclusion, style: Style) -> list[str]:
    colour = {0: GREEN, 1: RED}.get(conclusion.exit, YELLOW)
    head, *more = _paragraph("Verdict", verdict(conclusion))
    lines = [style.paint(line, BOLD, colour) for line in (head, *more)]
    for note in conclusion.notes:
        lines += _paragraph("", note)
    culprit = conclusion.culprit
    if culprit is not None:
        lines += [style.paint(line, BOLD) for line in _paragraph("Culprit", culprit.name)]
        for why in culprit.evidence:
            lines += _paragraph("", on_one_line(why))
        for place, line in enumerate(culprit.mend):
            lines.append(f"{'Mend' if place == 0 else '':9}{line}")
    return lines


def verdict(conclusion: Conclusion) -> str:
    """The verdict in one line."""
    words = on_one_line(conclusion.line)
    return f"{words} (inferred)" if conclusion.inferred else words


def _paragraph(name: str, words: str) -> list[str]:
    return textwrap.wrap(words, 80, initial_indent=f"{name:9}", subsequent_indent=" " * 9) or [name]


def data(url: str, cases: Sequence[Case], conclusion: Conclusion, resumed: str) -> dict[str, Any]:
    """The same for machines: JSON's types alone. Times are seconds since the request, sizes bytes."""
    added, removed = fields(cases)
    culprit = conclusion.culprit
    return {
        "url": url,
        "verdict": conclusion.kind,
        "line": verdict(conclusion),
        "inferred": conclusion.inferred,
        "batch": conclusion.batch,
        "notes": list(conclusion.notes),
        "culprit": None if culprit is None else culprit.name,
        "evidence": [] if culprit is None else list(culprit.evidence),
        "mend": [] if culprit is None else list(culprit.mend),
        "exit": conclusion.exit,
        "resume": resumed,
        "fields": {"added": added, "changed": removed},
        "ways": [_way(case) for case in cases],
    }


def _way(case: Case) -> dict[str, Any]:
    recording = case.recording
    gaps = _gaps(recording)
    return {
        "name": case.way.name,
        "settings": dict(case.way.settings),
        "verdict": case.finding.kind,
        "words": case.finding.words,
        "inferred": case.finding.inferred,
        "notes": list(case.finding.notes),
        "status": recording.status,
        "headers": [list(pair) for pair in recording.headers.pairs],
        "connect": _rounded(recording.connected),
        "head": _rounded(recording.head_at),
        "first_byte": _rounded(recording.first_byte),
        "pause": {"usual": _rounded(median(gaps)), "longest": _rounded(max(gaps))} if gaps else None,
        "end": {"at": _rounded(recording.ended_at), "how": recording.ending, "error": recording.error},
        "messages": recording.messages,
        "heartbeats": recording.heartbeats,
        "size": recording.size,
        "reads": [[_rounded(piece.at), piece.size] for piece in recording.pieces],
        "chunks": [[_rounded(chunk.at), chunk.size] for chunk in recording.chunks],
        "sent": [[_rounded(mark.sent), _rounded(mark.arrived)] for mark in recording.marks],
        "arrived_there": dict(recording.got),
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)


def told(conclusion: Conclusion, cases: Sequence[Case]) -> str:
    """How much was seen, for who has broken it off."""
    return f"broken off after {plural(len(cases), 'request')}: {verdict(conclusion)}"
