"""Lets the peers take turns: A B C, A B C, … each turn in a fresh process. Collects what came of it."""

import gc
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from benchmarks.answer import WrongAnswer
from benchmarks.machine import missing, missing_programs
from benchmarks.peers import Peer
from benchmarks.process import DidNotStart, Server
from benchmarks.progress import Progress
from benchmarks.settings import Settings
from benchmarks.workload import Contender, Sample, Workload


@dataclass(slots=True)
class Entry:
    """A contender in a workload: its samples, or why there are none.

    `state` is "measured", "missing" (not installed), "failed" (did not start) or "wrong" (its answer was wrong).
    """

    contender: Contender
    state: str = "measured"
    reason: str = ""
    samples: list[Sample] = field(default_factory=list)

    def drop(self, state: str, reason: str) -> None:
        """Time this contender no more, and don't trust what it has."""
        self.state, self.reason = state, reason
        self.samples.clear()


@dataclass(slots=True)
class Outcome:
    """All entries of one workload."""

    workload: Workload
    entries: list[Entry]

    @property
    def measured(self) -> list[Entry]:
        """The entries that have samples."""
        return [entry for entry in self.entries if entry.samples]


def enter(workload: Workload, peers: Sequence[Peer]) -> Outcome:
    """Set up a workload with the peers that take part in it; who is not installed is entered as missing."""
    outcome = Outcome(workload, [])
    for peer in peers:
        if workload.name not in peer.workloads:
            continue
        absent = [*missing(peer.requires), *missing_programs(peer.programs)]
        for contender in workload.contenders(peer):
            entry = Entry(contender)
            if absent:
                entry.drop("missing", "not installed: " + ", ".join(absent))
            outcome.entries.append(entry)
    return outcome


def count_turns(outcomes: Sequence[Outcome], rounds: int) -> int:
    """How many steps of progress `run` will report."""
    return rounds * sum(entry.state == "measured" for outcome in outcomes for entry in outcome.entries)


def run(outcome: Outcome, settings: Settings, progress: Progress) -> None:
    """Measure a workload, round by round."""
    with _quiet(settings.load_core):
        for number in range(1, settings.rounds + 1):
            for entry in outcome.entries:
                if entry.state == "measured":
                    progress.step(f"{outcome.workload.name}: {entry.contender.title} (round {number})")
                    _turn(outcome.workload, entry, settings)


def _turn(workload: Workload, entry: Entry, settings: Settings) -> None:
    contender = entry.contender
    gc.collect()
    try:
        with Server(contender.peer.module, contender.peer.arguments, settings.server_core) as server:
            try:
                workload.check(server, contender, settings)
                entry.samples.append(workload.measure(server, contender, settings))
            except (WrongAnswer, OSError) as exc:
                entry.drop("wrong", "; its stderr ends in: ".join(filter(None, [str(exc), server.last_error()])))
    except DidNotStart as exc:
        entry.drop("failed", f"did not start: {exc}")


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
