"""Who takes a turn, when, and what comes of it."""

from __future__ import annotations

import dataclasses
import os
import signal
from typing import Any

import pytest
from benchmark_sizes import BY_NAME, CORES, TINY, play

from benchmarks import turns as turns_module
from benchmarks.answer import HeldBack, WrongAnswer
from benchmarks.peers import Peer
from benchmarks.process import Server, Window
from benchmarks.settings import Settings
from benchmarks.syscalls import NotTraced
from benchmarks.turns import counting_turns, enter
from benchmarks.workload import Column, Contender, Sample, Workload, alone

pytestmark = pytest.mark.either_loop


def sample(**metrics: float) -> Sample:
    return Sample({"noise": 0.0, "reader_busy": 0.1, "latency_p50_us": 1.0, **metrics})


def fake(name: str = "paced", **others: Any) -> Workload:
    """A workload that gives each peer samples without a server's help, in the order of the turns."""
    column = Column("cpu_per_chunk_us", "CPU/chunk µs", digits=1, ratio=True)
    values = {"check": lambda *_: None, "measure": lambda *_: sample(cpu_per_chunk_us=1.0), **others}
    return Workload(name=name, title=f"{name}: a fake", contenders=alone, columns=(column,), **values)


def test_peers_take_turns() -> None:
    order: list[str] = []

    def measure(server: Server, contender: Contender, settings: Settings) -> Sample:
        order.append(contender.name)
        return sample()

    outcome = enter(fake(measure=measure), [BY_NAME["floor"], Peer("again", "again", "benchmarks.peers.floor")])
    play(outcome, dataclasses.replace(TINY, rounds=2))
    assert order == ["floor", "again", "floor", "again"]
    assert [len(entry.samples) for entry in outcome.measured] == [2, 2]
    assert os.sched_getaffinity(0) == set(CORES)


@pytest.mark.parametrize(
    ("raised", "state"),
    [(WrongAnswer("2 events instead of 3"), "wrong"), (HeldBack("7 of 8 events came late"), "held back")],
)
def test_a_peer_that_is_wrong_or_holds_events_back_is_told_apart_and_not_timed(raised: Exception, state: str) -> None:
    def check(server: Server, contender: Contender, settings: Settings) -> None:
        raise raised

    outcome = enter(fake(check=check), [BY_NAME["floor"]])
    play(outcome, TINY)
    (entry,) = outcome.entries
    assert (entry.state, entry.reason, entry.samples) == (state, str(raised), [])


@pytest.mark.parametrize("raised", [ZeroDivisionError("division by zero"), IndexError("list index out of range")])
def test_what_nobody_had_thought_of_in_a_peer_ends_that_peer_only(raised: Exception) -> None:
    def measure(server: Server, contender: Contender, settings: Settings) -> Sample:
        if contender.name == "floor":
            raise raised
        return sample()

    outcome = enter(fake(measure=measure), [BY_NAME["floor"], Peer("again", "again", "benchmarks.peers.floor")])
    play(outcome, TINY)
    odd, again = outcome.entries
    assert (odd.state, odd.reason) == ("wrong", f"{type(raised).__name__}: {raised}")
    assert again.state == "measured"


def test_a_peer_that_ends_in_mid_run_is_told_with_its_status() -> None:
    def measure(server: Server, contender: Contender, settings: Settings) -> Sample:
        os.kill(server.pid, signal.SIGKILL)
        raise ConnectionResetError("Connection reset by peer")

    outcome = enter(fake(measure=measure), [BY_NAME["floor"]])
    play(outcome, TINY)
    assert (outcome.entries[0].state, outcome.entries[0].reason) == ("ended", "signal 9")


def test_a_peer_that_turns_wrong_loses_what_it_has() -> None:
    answers = iter([sample(), WrongAnswer("cut before its end")])

    def measure(server: Server, contender: Contender, settings: Settings) -> Sample:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    outcome = enter(fake(measure=measure), [BY_NAME["floor"]])
    play(outcome, dataclasses.replace(TINY, rounds=3))
    assert outcome.measured == []
    assert outcome.entries[0].reason == "cut before its end"


def test_a_peer_that_is_not_installed_is_entered_as_missing() -> None:
    stranger = Peer("stranger", "a stranger", "benchmarks.peers.floor", requires=("no-such-server", "h11"))
    outcome = enter(fake(), [stranger])
    assert (outcome.entries[0].state, outcome.entries[0].reason) == ("missing", "not installed: no-such-server")
    assert outcome.racing == []
    play(outcome, TINY)
    assert outcome.measured == []


def test_a_peer_that_does_not_start_is_named() -> None:
    outcome = enter(fake(), [Peer("broken", "broken", "benchmarks.peers.nobody")])
    play(outcome, TINY)
    assert outcome.entries[0].state == "failed"
    assert "No module named" in outcome.entries[0].reason


def test_a_peer_takes_part_where_it_says() -> None:
    assert [entry.contender.name for entry in enter(fake("burst"), [BY_NAME["rawstream-h11send"]]).entries] == []


def test_what_a_peer_has_no_such_thing_for_is_named() -> None:
    peer = Peer("mute", "a mute", "benchmarks.peers.floor", workloads=frozenset(), cannot={"paced": "says nothing"})
    (entry,) = enter(fake(), [peer]).entries
    assert (entry.state, entry.reason, entry.samples) == ("cannot", "says nothing", [])


def test_every_sample_tells_memory_and_how_quiet_the_machine_was() -> None:
    outcome = enter(fake(), [BY_NAME["floor"]])
    play(outcome, dataclasses.replace(TINY, rounds=2))
    (entry,) = outcome.entries
    assert all(found.metrics["calibration_apart"] >= 1.0 for found in entry.samples), "from the median"
    assert all(found.metrics["peak_memory_bytes"] > 1_000_000 for found in entry.samples)
    assert all(0 <= found.metrics["calibration_taken"] < 1 for found in entry.samples)


def test_a_sample_above_a_limit_is_noisy() -> None:
    outcome = enter(fake(measure=lambda *_: sample(steal=0.5)), [BY_NAME["floor"]])
    play(outcome, TINY)
    assert "the hypervisor took 50% of a core" in outcome.entries[0].samples[0].noisy


class Counting:
    """A tracer that finds the same calls in each window."""

    tool = "counting"

    def start(self, pids: object) -> None: ...

    def stop(self) -> dict[str, int]:
        return {"sendto": 30, "epoll_wait": 10}


class Forbidden(Counting):
    def start(self, pids: object) -> None:
        raise NotTraced("not allowed")


def counted(server: Server, contender: Contender, settings: Settings) -> Sample:
    with Window(server, settings.server_core) as window:
        pass
    return Sample({}, calls=window.used.calls, units=10)


COUNTED = dataclasses.replace(TINY, count_calls=True)


@pytest.mark.parametrize("tracer", [Counting, Forbidden, None])
def test_system_calls_are_counted_in_a_turn_of_their_own(
    tracer: type[Counting] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns_module, "tracer", (lambda: None) if tracer is None else tracer)
    outcome = enter(dataclasses.replace(fake(measure=counted), counts_calls=True), [BY_NAME["floor"]])
    assert counting_turns(outcome, COUNTED) == (1 if tracer else 0)
    play(outcome, COUNTED)
    (entry,) = outcome.entries
    assert len(entry.samples) == 1, "that turn is not timed"
    if tracer is Counting:
        assert entry.syscalls is not None
        assert entry.syscalls.by_name == {"sendto": 3.0, "epoll_wait": 1.0}
        assert outcome.syscalls_missing == ""
    else:
        assert entry.syscalls is None
        assert outcome.syscalls_missing == (
            f"{entry.contender.title}: not allowed" if tracer else "neither of these is installed: strace, perf"
        )


def test_where_system_calls_are_not_asked_for_nobody_has_another_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns_module, "tracer", Counting)
    outcome = enter(dataclasses.replace(fake(measure=counted), counts_calls=True), [BY_NAME["floor"]])
    assert counting_turns(outcome, TINY) == 0
    play(outcome, TINY)
    assert outcome.entries[0].syscalls is None
