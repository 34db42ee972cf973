"""What the tests of the benchmarks share: the peers by name, the cores there are, and the sizes of a tiny run."""

from __future__ import annotations

import io
import os

import pytest
from support import absent

from benchmarks.machine import missing, missing_programs
from benchmarks.peers import PEERS
from benchmarks.progress import Progress
from benchmarks.settings import Settings
from benchmarks.turns import Outcome, count_calls, play_round
from benchmarks.workload import Contender

BY_NAME = {peer.name: peer for peer in PEERS}
CORES = sorted(os.sched_getaffinity(0))
TINY = Settings(
    rounds=1,
    count_calls=False,
    server_core=CORES[0],
    load_core=CORES[-1],
    paced_readers=2,
    paced_interval=0.01,
    paced_warmup=0.0,
    paced_seconds=0.3,
    burst_events=500,
    burst_warmup=20,
    burst_seconds=20.0,
    first_connections=2,
    first_warmup=1,
    short_connections=2,
    short_warmup=0.01,
    short_seconds=0.2,
    flush_groups=3,
    flush_size=4,
    flush_wait=0.002,
    fanout_subscribers=4,
    fanout_interval=0.01,
    fanout_seconds=0.1,
    fanout_fast_seconds=0.05,
    many_subscribers=6,
    many_interval=0.01,
    many_seconds=0.1,
    many_fast_seconds=0.05,
    idle_connections=5,
    idle_seconds=0.05,
    slow_subscribers=4,
    slow_stalled=2,
    slow_interval=0.01,
    slow_seconds=0.1,
)


def play(outcome: Outcome, settings: Settings) -> None:
    """All rounds of a workload, and the turns that count its system calls."""
    progress = Progress(1, io.StringIO())
    for number in range(settings.rounds):
        play_round(outcome, number + 1, settings, progress)
    count_calls(outcome, settings, progress)


def need(contender: Contender) -> None:
    """Leave a test whose peer is not here. What the extra `bench` installs has to be there on a build machine."""
    if programs := missing_programs(contender.peer.programs):
        pytest.skip("not installed: " + ", ".join(programs))
    if distributions := missing(contender.requires):
        absent("not installed: " + ", ".join(distributions))
