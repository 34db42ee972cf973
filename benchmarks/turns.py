"""Lets the peers take turns: A B C, A B C, … each turn in a fresh process. Collects what came of it.

Before and after each turn the machine is looked at (`noise`). When all rounds are done, each peer has one more turn
that is not timed, in which its system calls are counted.
"""

import gc
import os
import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from benchmarks.answer import HeldBack, WrongAnswer
from benchmarks.machine import missing, missing_programs
from benchmarks.noise import Calibration, calibrate, reasons, worst
from benchmarks.peers import Peer
from benchmarks.process import DidNotStart, Server
from benchmarks.progress import Progress
from benchmarks.settings import Settings
from benchmarks.syscalls import TOOLS, NotTraced, Syscalls, Tracer, per_unit, tracer
from benchmarks.workload import Contender, Sample, Workload


@dataclass(slots=True)
class Entry:
    """A contender in a workload: its samples, or why there are none.

    `state` is "measured", "missing" (not installed), "cannot" (there is no such thing in it), "failed" (did not start),
    "ended" (its process did, by itself), "wrong" (its answer was wrong) or "held back" (it was right, but late).
    """

    contender: Contender
    state: str = "measured"
    reason: str = ""
    samples: list[Sample] = field(default_factory=list)
    syscalls: Syscalls | None = None

    def drop(self, state: str, reason: str) -> None:
        """Time this contender no more, and don't trust what it has."""
        self.state, self.reason = state, reason
        self.samples.clear()


@dataclass(slots=True)
class Outcome:
    """All entries of one workload."""

    workload: Workload
    entries: list[Entry]
    syscalls_missing: str = ""
    """Why no system calls were counted."""

    @property
    def measured(self) -> list[Entry]:
        """The entries that have samples."""
        return [entry for entry in self.entries if entry.samples]

    @property
    def racing(self) -> list[Entry]:
        """The entries that take turns: those that are there, and were never wrong."""
        return [entry for entry in self.entries if entry.state == "measured"]


def enter(workload: Workload, peers: Sequence[Peer]) -> Outcome:
    """Set up a workload with the peers that take part in it; who is not installed is entered as missing."""
    outcome = Outcome(workload, [])
    for peer in peers:
        if workload.name in peer.cannot:
            entry = Entry(Contender(peer))
            entry.drop("cannot", peer.cannot[workload.name])
            outcome.entries.append(entry)
        if workload.name not in peer.workloads:
            continue
        for contender in workload.contenders(peer):
            entry = Entry(contender)
            if absent := [*missing(contender.requires), *missing_programs(peer.programs)]:
                entry.drop("missing", "not installed: " + ", ".join(absent))
            outcome.entries.append(entry)
    return outcome


def play_round(outcome: Outcome, number: int, settings: Settings, progress: Progress) -> None:
    """Let each contender that is still in the race have one turn; `number` is told to people."""
    with _quiet(settings.load_core):
        try:
            for entry in outcome.racing:
                progress.step(f"{outcome.workload.name}: {entry.contender.title} (round {number})")
                _turn(outcome.workload, entry, settings)
        finally:
            _judge(outcome)


def counting_turns(outcome: Outcome, settings: Settings) -> int:
    """How many turns `count_calls` will take, if nobody is found wrong before."""
    counts = outcome.workload.counts_calls and settings.count_calls and tracer() is not None
    return len(outcome.racing) if counts else 0


def count_calls(outcome: Outcome, settings: Settings, progress: Progress) -> None:
    """One more turn for each, under strace or perf. What goes wrong there takes nobody's samples away."""
    if not (outcome.workload.counts_calls and settings.count_calls):
        return
    if tracer() is None:
        outcome.syscalls_missing = "neither of these is installed: " + ", ".join(TOOLS)
        return
    failed = []
    with _quiet(settings.load_core):
        for entry in outcome.measured:
            tool = tracer()
            assert tool is not None, "looked for above"
            progress.step(f"{outcome.workload.name}: {entry.contender.title} (system calls, {tool.tool})")
            try:
                entry.syscalls = _counted(outcome.workload, entry.contender, settings.counting(), tool)
            except (NotTraced, DidNotStart, *_STRANGE) as exc:
                failed.append(f"{entry.contender.title}: {_in_words(exc)}")
    outcome.syscalls_missing = "; ".join(failed)


_STRANGE = (WrongAnswer, OSError, ValueError, LookupError, ArithmeticError)
"""What a peer can cause: by an answer that is found to be wrong, by a connection that breaks, or by figures that nobody
had thought of. It takes part no more, and the others go on."""

_END_SECONDS = 1.0
"""Within this, a peer whose connections broke because it ended is seen to have ended."""


def _in_words(exc: Exception) -> str:
    """Why a turn came to nothing; what was not foreseen is told with its kind."""
    foreseen = isinstance(exc, WrongAnswer | NotTraced | DidNotStart | OSError)
    return str(exc) if foreseen else f"{type(exc).__name__}: {exc}"


def _turn(workload: Workload, entry: Entry, settings: Settings) -> None:
    contender = entry.contender
    gc.collect()
    cores = (settings.server_core, settings.load_core)
    before = calibrate(cores)
    try:
        with Server(contender.peer.module, contender.arguments, settings.server_core) as server:
            try:
                workload.check(server, contender, settings)
                sample = workload.measure(server, contender, settings)
                peak = server.peak_bytes()
            except HeldBack as exc:
                entry.drop("held back", str(exc))
                return
            except _STRANGE as exc:
                ended = server.ended(_END_SECONDS)
                words = ended or _in_words(exc)
                words = "; its stderr ends in: ".join(filter(None, [words, server.last_error()]))
                entry.drop("ended" if ended else "wrong", words)
                return
    except DidNotStart as exc:
        entry.drop("failed", f"did not start: {exc}")
        return
    entry.samples.append(_calibrated(sample, worst([before, calibrate(cores)]), peak))


def _calibrated(sample: Sample, machine: Calibration, peak: int) -> Sample:
    """The sample with what every workload has."""
    common = {"calibration_us": machine.cpu / 1e3, "calibration_taken": machine.taken, "peak_memory_bytes": peak}
    return replace(sample, metrics={**sample.metrics, **common})


def _judge(outcome: Outcome) -> None:
    """Say which samples are noisy, now that it is known how quick the machine usually is."""
    samples = [sample for entry in outcome.measured for sample in entry.samples]
    usual = statistics.median([sample.metrics["calibration_us"] for sample in samples] or [0.0])
    for entry in outcome.measured:
        for n, sample in enumerate(entry.samples):
            took = sample.metrics["calibration_us"]
            metrics = {**sample.metrics, "calibration_apart": max(took / usual, usual / took)}
            entry.samples[n] = replace(sample, metrics=metrics, noisy=reasons(metrics))


def _counted(workload: Workload, contender: Contender, settings: Settings, tool: Tracer) -> Syscalls:
    with Server(contender.peer.module, contender.arguments, settings.server_core, tool) as server:
        workload.check(server, contender, settings)
        sample = workload.measure(server, contender, settings)
    return per_unit(tool.tool, dict(sample.calls), sample.units)


@contextmanager
def _quiet(core: int) -> Iterator[None]:
    """Hold this process on its core and its garbage collector still."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        os.sched_setaffinity(0, allowed)
