"""How quiet the machine was, and whether a figure is the server's at all.

Before and after each turn a fixed piece of work is done on both cores. It tells two things that no clock of the server
can: whether somebody else had the core (its wall time is more than its CPU time), and whether the core itself was
slower or quicker than it mostly was (the same work took another CPU time: a busy sibling thread, another frequency).
Together with what was seen during the turn, each has a limit; a sample above one of them is noisy, and says why.
"""

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

LIMITS = {
    "noise": 0.05,
    "steal": 0.02,
    "load_preempted_per_s": 100.0,
    "calibration_taken": 0.1,
    "calibration_apart": 1.15,
}
"""The most of each metric that a quiet sample has. On an idle machine they are 0 to 0.01, a few a second, and 1.05."""

_WORDS = {
    "noise": "others took {:.0%} of the server's core",
    "steal": "the hypervisor took {:.0%} of a core",
    "load_preempted_per_s": "the load was interrupted {:.0f} times a second",
    "calibration_taken": "others took {:.0%} of a core beside the turn",
    "calibration_apart": "a core was {:.2f} times slower or quicker than usual",
}

LIMITED = 0.9
"""Of the reader's core: from here on it may be the reader that is measured."""

_LOOPS = 4
_STEPS = 20_000  # about 1 ms


@dataclass(frozen=True, slots=True)
class Calibration:
    """What the fixed work took: the quickest loop's CPU time (nanoseconds), and the share of the time others had."""

    cpu: int
    taken: float


def calibrate(cores: Iterable[int]) -> Calibration:
    """Do the fixed work on each of the cores, and give the worse of them. Comes back to where it was."""
    allowed = os.sched_getaffinity(0)
    try:
        found = [_on(core) for core in cores]
    finally:
        os.sched_setaffinity(0, allowed)
    return worst(found)


def worst(found: Sequence[Calibration]) -> Calibration:
    """The slowest and the most disturbed of several."""
    return Calibration(max(each.cpu for each in found), max(each.taken for each in found))


def _on(core: int) -> Calibration:
    os.sched_setaffinity(0, {core})
    loops = []
    wall = time.perf_counter_ns()
    for _ in range(_LOOPS):
        began = time.thread_time_ns()
        total = 0
        for step in range(_STEPS):
            total += step
        loops.append(time.thread_time_ns() - began)
    wall = time.perf_counter_ns() - wall
    return Calibration(min(loops), max(1 - sum(loops) / wall, 0.0))


def reasons(metrics: Mapping[str, float]) -> tuple[str, ...]:
    """Why a sample is noisy, in words; nothing for a quiet one."""
    return tuple(_WORDS[name].format(metrics[name]) for name, limit in LIMITS.items() if metrics.get(name, 0.0) > limit)


def reader_limited(metrics: Mapping[str, float]) -> bool:
    """Whether the reader was busy all the time, so that a faster server would have looked the same."""
    return metrics.get("reader_busy", 0.0) > LIMITED
