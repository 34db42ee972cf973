"""The arrivals as an SVG: for each way a row of sendings, a row of arrivals, and strokes between. No I/O.

A stream that is not held back is a row of upright strokes; one that is held until the end is a fan. Light or dark as
the reader's system is (CSS, `prefers-color-scheme`).
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Sequence
from xml.sax.saxutils import escape

from rawstream.terminal import size

from .arrivals import Recording
from .findings import Case, seconds

_WIDTH, _LEFT, _RIGHT, _ROW, _TOP = 900, 230, 30, 62, 92
_STYLE = """
svg { font: 13px system-ui, sans-serif; background: #fff; }
text { fill: #1f2328; } .small { fill: #59636e; font-size: 11px; }
.axis { stroke: #d1d9e0; } .sent { stroke: #818b98; } .join { stroke: #54aeff; stroke-opacity: .7; fill: none; }
.came { fill: #0969da; } .bad .came { fill: #cf222e; } .bad .join { stroke: #ff8182; } .end { stroke: #59636e; }
@media (prefers-color-scheme: dark) {
  svg { background: #0d1117; } text { fill: #f0f6fc; } .small { fill: #9198a1; }
  .axis { stroke: #3d444d; } .sent { stroke: #9198a1; } .join { stroke: #1f6feb; }
  .came { fill: #4493f8; } .bad .came { fill: #f85149; } .bad .join { stroke: #b62324; } .end { stroke: #9198a1; }
}
"""


def svg(title: str, line: str, cases: Sequence[Case]) -> str:
    """The whole file, as text; the texts may hold any characters."""
    drawn = [case for case in cases if case.recording.ending != "failed"]
    span = max((case.recording.ended_at for case in drawn), default=0.0) or 1.0
    height = _TOP + _ROW * len(drawn) + 34
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}" '
        f'role="img" aria-label="{_text(line)}">',
        f"<style>{_STYLE}</style>",
        *(
            f'<text x="16" y="{26 + 19 * place}" font-weight="600" font-size="15">{_text(part)}</text>'
            for place, part in enumerate(textwrap.wrap(line, 105)[:2])
        ),
        f'<text x="16" y="64" class="small">{_text(title)}</text>',
        *_axis(span, _TOP, height - 26),
    ]
    for place, case in enumerate(drawn):
        parts += _row(case, _TOP + _ROW * place, span)
    return "\n".join([*parts, "</svg>\n"])


def _text(text: str) -> str:
    """XML 1.0 has no way to write most control characters (section 2.2)."""
    return escape("".join(one if one.isprintable() else "\ufffd" for one in text), {'"': "&quot;"})


def _x(at: float, span: float) -> float:
    return round(_LEFT + (_WIDTH - _LEFT - _RIGHT) * min(max(at / span, 0), 1), 1)


def _axis(span: float, top: int, bottom: int) -> Iterator[str]:
    step = _step(span)
    for number in range(int(span / step + 1e-9) + 1):
        x = _x(number * step, span)
        yield f'<line class="axis" x1="{x}" y1="{top - 8}" x2="{x}" y2="{bottom}"/>'
        yield f'<text class="small" x="{x}" y="{bottom + 16}" text-anchor="middle">{number * step:g} s</text>'


def _step(span: float) -> float:
    """1, 2 or 5 times a power of ten, so that there are at most eight."""
    step = 1e-3
    while span / step > 8:
        step *= 2.5 if f"{step:e}"[0] == "2" else 2
    return float(f"{step:.3g}")


def _row(case: Case, y: int, span: float) -> Iterator[str]:
    recording = case.recording
    yield f'<g class="{"bad" if case.finding.bad else "good"}">'
    yield f'<text x="16" y="{y + 18}">{_text(case.way.name)}</text>'
    yield f'<text class="small" x="16" y="{y + 34}">{_text(_short(case.finding.words))}</text>'
    yield from _joins(recording, y, span)
    most = max((piece.size for piece in recording.pieces), default=1) or 1
    for piece in recording.pieces:
        if piece.size:
            radius = round(2 + 3 * (piece.size / most) ** 0.5, 1)
            told = f"{size(piece.size)} at {seconds(piece.at)}"
            where = f'cx="{_x(piece.at, span)}" cy="{y + 40}" r="{radius}"'
            yield f'<circle class="came" {where}><title>{told}</title></circle>'
    x = _x(recording.ended_at, span)
    if recording.ending != "stopped":
        yield f'<line class="end" x1="{x}" y1="{y + 32}" x2="{x}" y2="{y + 48}"/>'
    yield "</g>"


def _short(words: str) -> str:
    """What finds room before the axis."""
    return textwrap.shorten(re.split("[,:]", words)[0], 36, placeholder=" …")


def _joins(recording: Recording, y: int, span: float) -> Iterator[str]:
    """A stroke from each sending to its arrival."""
    if not recording.marks:
        return
    least = min(mark.arrived - mark.sent for mark in recording.marks)
    for mark in recording.marks:
        sent, came = _x(mark.sent + least, span), _x(mark.arrived, span)
        yield f'<line class="sent" x1="{sent}" y1="{y}" x2="{sent}" y2="{y + 8}"/>'
        yield f'<line class="join" x1="{sent}" y1="{y + 8}" x2="{came}" y2="{y + 40}"/>'
