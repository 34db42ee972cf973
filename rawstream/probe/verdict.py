"""The verdict on one answer whose chunks say when they were sent. From timing alone: no field is looked at here.

A chunk's delay is what has passed between its sending and its arrival, each counted from the request: so it holds the
way of the request too, which is the same for all chunks. What a chunk was delayed beyond the least delayed one,
it was held. What decides is order: a chunk that was still under way when the next one was sent did not stream. One such
chunk may be chance, a busy machine; a buffer does it to most of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from statistics import median, quantiles

from rawstream.terminal import size

from .arrivals import Mark, Recording
from .findings import Finding, plural, seconds

_TOGETHER = 0.25  # of the time between two sendings: who arrives closer than that arrived together
_LEAST = 0.015  # seconds: less is what any machine may take, and no reader notices
_NEARLY_ALL = 0.8
_END = 0.1  # of the time of sending: who arrives so shortly before the last is sent arrives at the end
_IDLE = 3.0  # times: a silence before a cut is so much longer than the pauses before it
_LATE = 1.0  # seconds for which every chunk alike may be under way before it is worth a word
_SAME = 0.03  # of the median: batches whose sizes differ by no more are of one size, if _MOST do
_MOST = 0.6
_ROUND = 0.004  # of the size: how near a multiple of 1 KiB is


def judge(recording: Recording) -> Finding:
    """How the chunks of this answer came; it has two or more marks."""
    marks = recording.marks
    if min(mark.arrived - mark.sent for mark in marks) < -0.05:
        return Finding("unknown", "was answered by a cache: its chunks are older than the request")
    if recording.ending == "cut":
        return _cut(recording, marks)
    if marks[-1].sent - marks[0].sent < _LEAST:
        return Finding("unknown", "was all sent at once: nothing could be held back")
    groups = together(marks)
    if len(marks) == 2 and len(groups) == 1:
        return Finding("unknown", "is too short to judge by: its two chunks came together")
    held = _held(marks)
    late = _lateness(recording)
    if len(marks) > 2 and _at_the_end(marks):
        if recording.ending == "complete":
            return Finding("held", "held until the end", seconds=max(held), notes=late)
        words = f"arrives in batches: the first {plural(len(marks), 'chunk')} at once after {seconds(marks[0].arrived)}"
        return Finding("batches", words, seconds=max(held), notes=late)
    if _in_batches(groups) and max(held) > _LEAST:
        return _batches(groups, held, late, recording)
    if len(marks) > 4 and _one_behind(marks, held):
        step = median(_steps(marks))
        words = "arrives one chunk late: each waits for the next one"
        return Finding("batches", words, seconds=step, notes=late)
    if len(marks) > 4 and _behind(marks, held) and 2 * max(map(len, groups)) <= len(marks):
        words = "arrives late: each chunk waits for one or more after it"
        return Finding("batches", words, seconds=median(held), notes=late)
    pause = _pause(groups, held) if max(held) > max(_LATE / 2, 2 * median(_steps(marks))) else ()
    return Finding("streams", "streams", seconds=median(held), notes=(*late, *pause))


def _steps(marks: Sequence[Mark]) -> list[float]:
    return [after.sent - before.sent for before, after in pairwise(marks)] or [0.0]


def _held(marks: Sequence[Mark]) -> list[float]:
    """Seconds for which each was delayed more than the least delayed one."""
    least = min(mark.arrived - mark.sent for mark in marks)
    return [mark.arrived - mark.sent - least for mark in marks]


def unevenness(marks: Sequence[Mark]) -> float:
    """Seconds by which the delays of the middle half differ: none where all wait alike, half a period for a clock."""
    low, _, high = quantiles((mark.arrived - mark.sent for mark in marks), n=4)
    return high - low


def together(marks: Sequence[Mark]) -> list[list[Mark]]:
    """The marks in groups of which each arrived together, though its chunks were sent one after the other."""
    groups = [[marks[0]]]
    for before, after in pairwise(marks):
        if after.arrived - before.arrived <= _TOGETHER * (after.sent - before.sent):
            groups[-1].append(after)
        else:
            groups.append([after])
    return groups


def _at_the_end(marks: Sequence[Mark]) -> bool:
    """Whether nearly none came before the last one had been sent, and most came together.

    A line that is slower than the stream brings nearly all of it as late, but one chunk after the other.
    """
    least = min(mark.arrived - mark.sent for mark in marks)
    last, span = marks[-1].sent, marks[-1].sent - marks[0].sent
    late = sum(mark.arrived - least >= last - _END * span for mark in marks[:-1])
    largest = max(map(len, together(marks)))
    return span > _LEAST and late >= _NEARLY_ALL * (len(marks) - 1) and 2 * largest >= len(marks)


def _in_batches(groups: Sequence[Sequence[Mark]]) -> bool:
    """Whether most came in groups, and most groups are more than one: a machine that stood still makes one group."""
    large = [group for group in groups if len(group) > 1]
    inner = groups[1:-1] or groups
    return (
        len(large) >= 2
        and 2 * sum(map(len, large)) > sum(map(len, groups))
        and 2 * sum(len(group) > 1 for group in inner) >= len(inner)
    )


def _one_behind(marks: Sequence[Mark], held: Sequence[float]) -> bool:
    """Whether each comes when the next one is sent, and the last at once."""
    waits = [abs(held[place] - step) <= _TOGETHER * step and step > _LEAST for place, step in enumerate(_steps(marks))]
    return sum(waits) >= _NEARLY_ALL * len(waits)


def _behind(marks: Sequence[Mark], held: Sequence[float]) -> bool:
    """Whether nearly each comes no sooner than the next one is sent, and the last at once: no slow line does that."""
    waits = [held[place] >= (1 - _TOGETHER) * step > _LEAST for place, step in enumerate(_steps(marks))]
    return sum(waits) >= _NEARLY_ALL * len(waits) and held[-1] <= _TOGETHER * median(_steps(marks))


def _batches(
    groups: Sequence[Sequence[Mark]], held: Sequence[float], late: tuple[str, ...], recording: Recording
) -> Finding:
    sizes = _sizes(groups, recording)
    batch = round(median(sizes))
    # What is compressed is gathered compressed: that its batches are alike unpacked would be chance.
    fixed = (
        not recording.coding
        and len(sizes) >= 2
        and sum(abs(one - batch) <= _SAME * batch for one in sizes) >= _MOST * len(sizes)
    )
    # The last is no measure: it comes with the end. What was gathered for the first began with the first chunk; when it
    # comes tells a clock's period only if that began then, too.
    if fixed:
        batch = _rounded(batch, median(after.end - before.end for before, after in pairwise(recording.marks)))
    times = [group[-1].arrived for group in groups[:-1]]
    if len(times) == 1:
        times.insert(0, groups[0][0].arrived - held[0])
    each = median([after - before for before, after in pairwise(times)])
    usual = round(median(len(group) for group in groups[:-1]))
    words = f"arrives in batches of {'' if fixed else 'about '}{size(batch)}, one each {seconds(each)}"
    note = f"{plural(usual, 'chunk')} a batch"
    return Finding("batches", words, False, batch if fixed else None, each, max(held), (*late, note))


def _sizes(groups: Sequence[Sequence[Mark]], recording: Recording) -> list[int]:
    """Bytes of each batch but the last, which ends where the stream does. A batch may end inside a chunk.

    Who knows nothing of HTTP gathers its framing too: with it the sizes count where that makes them round.
    """
    starts = [group[0].arrived for group in groups[1:]]
    before = [[piece for piece in recording.pieces if piece.at < start] for start in starts]
    body = [after - size for size, after in pairwise([0, *(sum(piece.size for piece in part) for part in before)])]
    wire = [after - size for size, after in pairwise([0, *(sum(piece.wire for piece in part) for part in before)])]
    return wire if _is_round(median(wire)) and not _is_round(median(body)) else body


def _rounded(size: int, chunk: float) -> int:
    """The buffer's size: one that lets go behind a whole chunk is smaller than its batches, by less than a chunk."""
    if _is_round(size):
        return round(size / 1024) * 1024
    power = 1 << (size.bit_length() - 1)
    return power if power >= 1024 and size - power < chunk <= power / 4 else size


def _is_round(size: float) -> bool:
    near = round(size / 1024) * 1024
    return near > 0 and abs(size - near) <= _ROUND * near


def _cut(recording: Recording, marks: Sequence[Mark]) -> Finding:
    silence = recording.silence
    missing = f"chunk {marks[-1].number} of {marks[-1].of} was the last to come"
    if silence > max(_IDLE * median(_steps(marks)), _LEAST):
        return Finding("cut", f"cut after {seconds(silence)} idle", seconds=silence, notes=(missing,))
    words = f"broke off after {seconds(recording.ended_at)}, in full flow"
    return Finding("failed", words, seconds=recording.ended_at, notes=(missing, recording.error))


def _pause(groups: Sequence[Sequence[Mark]], held: Sequence[float]) -> tuple[str, ...]:
    """A word on the longest wait of what streams else."""
    worst, group = max(held), max(groups, key=lambda group: group[0].arrived - group[0].sent)
    if len(group) == 1:
        return (f"one chunk was {seconds(worst)} late",)
    return (f"{len(group)} chunks came together, the first of them {seconds(worst)} late",)


def _lateness(recording: Recording) -> tuple[str, ...]:
    """A word where every chunk alike takes long."""
    least = min(mark.arrived - mark.sent for mark in recording.marks) - recording.connected
    return (f"every chunk takes {seconds(least)} to come",) if least > _LATE else ()
