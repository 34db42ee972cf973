"""From the findings in each way to one verdict, one culprit and one exit status. No I/O."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from rawstream.terminal import size

from .arrivals import changed
from .culprits import Culprit, accuse
from .findings import Case, Finding, Kind, seconds

_ALIKE = 1.4  # times: periods that differ by less are one


@dataclass(frozen=True, slots=True)
class Conclusion:
    """What a probe has found. `line` is the verdict in words, `exit` what a program returns for it."""

    kind: Kind
    line: str
    inferred: bool
    culprit: Culprit | None
    batch: int | None = None
    notes: tuple[str, ...] = ()

    @property
    def exit(self) -> int:
        """0 it streams, 1 it is held back, 2 it could not be told."""
        if self.kind == "streams":
            return 0
        return 1 if self.kind in ("batches", "held", "cut") else 2


def conclude(cases: Sequence[Case]) -> Conclusion:
    """The verdict on all ways together; at least one was asked."""
    main = [case for case in cases if not case.way.trial]
    bad = [case for case in main if case.finding.bad]
    good = [case for case in main if case.finding.kind == "streams"]
    if bad:
        finding = _sharpened(bad[0], cases)
        line = finding.words + _when(bad, good)
        return Conclusion(finding.kind, line, finding.inferred, accuse(cases), finding.batch, finding.notes)
    if good:
        finding = good[0].finding
        return Conclusion("streams", finding.words, finding.inferred, None, notes=finding.notes)
    finding = main[0].finding
    return Conclusion(finding.kind, finding.words, False, None, notes=finding.notes)


def _when(bad: Sequence[Case], good: Sequence[Case]) -> str:
    """In which ways, if not in all."""
    idle = [case for case in bad if case.finding.kind == "cut"]
    if not good or len(idle) == len(bad):
        return ""
    if all(case.is_compressed for case in bad) and not any(case.is_compressed for case in good):
        return f" where it is compressed ({bad[0].recording.coding or 'gzip'}), and streams where it is not"
    return f" for {_list([case.way.name for case in bad])}, not for {_list([case.way.name for case in good])}"


def _list(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _sharpened(case: Case, cases: Sequence[Case]) -> Finding:
    """With what trials have shown: the size of the batches, or that they come by the clock."""
    finding = case.finding
    trials = {other.way.trial: other.finding for other in cases if other.finding.kind == "batches"}
    large, slow = trials.get("volume"), trials.get("pace")
    if finding.kind == "held" and slow is not None and slow.period:
        return _by_the_clock(slow)  # fewer bytes came in more batches: it is not their number that counts
    if finding.kind == "cut" or large is None:
        return finding
    if finding.kind == "batches":
        if _is_alike(finding, large) and (large.batch is None or large.batch >= 2 * (finding.batch or 1)):
            return _by_the_clock(finding)
        return replace(finding, batch=finding.batch or large.batch)
    if large.batch is None:
        return replace(finding, notes=(*finding.notes, f"a larger stream {large.words}"))
    buffer = size(large.batch)
    notes = (*finding.notes, f"what is shorter than {buffer} is held until its end")
    return replace(finding, kind="batches", words=f"arrives in batches of {buffer}", batch=large.batch, notes=notes)


def _is_alike(finding: Finding, large: Finding) -> bool:
    """Whether batches come as often of a larger stream."""
    return finding.period > 0 and 1 / _ALIKE < large.period / finding.period < _ALIKE


def _by_the_clock(finding: Finding) -> Finding:
    words = f"arrives in batches, one each {seconds(finding.period)}, of whatever has gathered"
    return replace(finding, words=words, batch=None, notes=finding.notes[:-1])  # without the number of chunks in each


def fields(cases: Sequence[Case]) -> tuple[list[str], list[str]]:
    """The fields that somebody added to what our handler sent, and those that were removed or changed; by name."""
    added: dict[str, None] = {}
    removed: dict[str, None] = {}
    for case in cases:
        if case.recording.sent:
            more, less = changed(case.recording.sent, case.recording.headers)
            added.update(dict.fromkeys(more))
            removed.update(dict.fromkeys(less))
    return [name for name in added if name.lower() not in _FRAMING], list(removed)


_FRAMING = {"date", "connection", "transfer-encoding", "content-length", "keep-alive"}
"""Fields that every server sets for itself."""
