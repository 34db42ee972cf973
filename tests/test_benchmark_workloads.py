"""What the workloads make of what they read, and each of them once for real, as small as can be."""

from __future__ import annotations

import dataclasses
import math
import resource
import types
from collections.abc import Iterator
from typing import Any

import pytest
from benchmark_sizes import BY_NAME, TINY, need, play

from benchmarks.answer import Event, Read, WrongAnswer, parse
from benchmarks.machine import missing_programs
from benchmarks.peers import Peer
from benchmarks.process import Usage
from benchmarks.settings import QUICK
from benchmarks.syscalls import Strace
from benchmarks.turns import Outcome, enter
from benchmarks.workload import Sample, Workload
from benchmarks.workloads import COMMANDS, FLUSH, PACED, PACED_GZIP, PACED_TLS
from benchmarks.workloads import burst as burst_workload
from benchmarks.workloads import flush as flush_workload
from benchmarks.workloads import paced as paced_workload

BY_WORKLOAD = {workload.name: workload for command in COMMANDS.values() for workload in command}


@pytest.fixture(autouse=True)
def files() -> Iterator[None]:
    """A run allows itself as many open files as it can get; the other tests shall not have them."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def frame(stamp: int) -> bytes:
    """An event in a chunk of its own."""
    return b"1a\r\ndata: %018d\n\n\r\n" % stamp


def window(began: int, ended: int, **used: int) -> Any:
    """A window that was measured before."""
    usage = Usage(wall=ended - began, **used)
    return types.SimpleNamespace(
        began=began, span=range(began, ended), used=usage, metrics=lambda units: {**usage.shares(), **usage.per(units)}
    )


def test_paced_measures_in_its_window_and_against_the_intended_time() -> None:
    """Two streams, an event each 10 ms; of one, everything after the first event is 5 ms behind its time."""
    ms = 1_000_000
    prompt = [Event(n * 10 * ms, n * 10 * ms + 1000) for n in range(10)]
    behind = [Event(0, 1000), *(Event(n * 10 * ms + 5 * ms, n * 10 * ms + 5 * ms + 1000) for n in range(1, 10))]
    found = paced_workload._summarise([prompt, behind], window(5 * ms, 85 * ms, server=3_200_000), 0.01)
    assert found.metrics["chunks"] == 15
    assert math.isclose(found.metrics["delivered"], 15 / 16)
    assert found.metrics["latency_p50_us"] == found.metrics["latency_p999_us"] == 1.0
    assert found.metrics["intended_p50_us"] == 1.0
    assert found.metrics["intended_p99_us"] == 5001.0
    assert math.isclose(found.metrics["cpu_per_chunk_us"], 3200 / 15)


def test_what_is_overdue_when_the_window_ends_counts_as_late() -> None:
    """A stall that has not ended by then would show in `delivered` alone."""
    ms = 1_000_000
    stalled = [Event(n * 10 * ms, n * 10 * ms + 1000) for n in range(5)]  # the fifth at 40 ms, and then nothing
    found = paced_workload._summarise([stalled], window(0, 95 * ms), 0.01)
    assert found.curves["intended"][-1] == (1.0, 45_000.0), "the sixth was due at 50 ms"
    assert found.metrics["latency_p999_us"] == 1.0
    assert found.metrics["chunks"] == 5


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (frame(1) + frame(1), "an event came twice"),
        (frame(2) + frame(1), "the events are out of order"),
        (frame(1) + b"10\r\ngata: nonsense\n\n\r\n", "an event of another kind: b'gata: nonsense'"),
        (frame(1) + b"0\r\n\r\n", "a stream ended in the middle of the measurement"),
    ],
)
def test_what_is_timed_is_checked_too(data: bytes, words: str) -> None:
    for reads in ([Read(5, HEAD + data)], [Read(5, HEAD), Read(6, data)]):
        with pytest.raises(WrongAnswer, match=words):
            paced_workload._events(reads, "")
        with pytest.raises(WrongAnswer, match=words):
            burst_workload._begun(parse(reads))


def test_paced_without_events_in_its_window_is_wrong() -> None:
    with pytest.raises(WrongAnswer, match="no event came"):
        paced_workload._summarise([[Event(1, 2)]], window(10, 20), 0.01)


def test_a_stream_that_a_server_has_not_come_to_is_not_delivered() -> None:
    streams = [
        paced_workload._events([], ""),
        paced_workload._events([Read(15, HEAD + frame(12))], ""),
    ]
    found = paced_workload._summarise(streams, window(10, 20), 1e-8)
    assert found.metrics["delivered"] == 0.5
    assert found.timeline == []


def test_flush_shows_a_typical_group() -> None:
    groups = [[Event(start, start + wait)] for start, wait in [(0, 9_000_000), (20, 2_000_000), (40, 1_000_000)]]
    assert flush_workload._typical(groups) == [Event(20, 2_000_020)]


def test_a_group_is_told_by_its_yields_and_reads() -> None:
    group = [Event(0, 500_000), Event(100_000, 500_000), Event(200_000, 900_000)]
    assert flush_workload._timeline(group) == [(0.0, 0), (0.1, 0), (0.2, 0), (0.5, 2), (0.9, 1)]


def test_a_burst_that_was_left_counts_by_what_came() -> None:
    answer = parse([Read(5, HEAD + frame(1) + frame(2)), Read(9, frame(3)[:4])])
    assert burst_workload._begun(answer) == [Event(1, 5), Event(2, 5)]
    with pytest.raises(WrongAnswer, match="no event came"):
        burst_workload._begun(parse([Read(5, HEAD)]))


# -- for real ----------------------------------------------------------------------------------------------------------


DIFFERENCES = {"held_per_slow_bytes", "growth_per_slow_bytes", "memory_per_connection_bytes"}
"""Of memory, which a process may also have given back."""


def measured(workload: str | Workload, *names: str) -> dict[str, Sample]:
    """A tiny run; every peer has to take part. Gives the sample of each contender."""
    outcome = turn(workload, [BY_NAME[name] for name in names], TINY)
    states = {entry.contender.name: entry.state + entry.reason for entry in outcome.entries}
    assert set(states.values()) == {"measured"}, states
    found = {entry.contender.name: entry.samples[0] for entry in outcome.entries}
    for sample in found.values():
        assert not outcome.workload.counts_calls or sample.units > 0
        assert all(map(math.isfinite, sample.metrics.values())), sample.metrics
        assert all(value >= 0 or name in DIFFERENCES for name, value in sample.metrics.items()), sample.metrics
        assert sample.metrics.keys() >= {
            "server_busy", "reader_busy", "noise", "steal", "load_preempted_per_s", "voluntary_switches",
            "involuntary_switches", "peak_memory_bytes", "calibration_apart", "calibration_taken",
        }  # fmt: skip
    return found


def turn(workload: str | Workload, peers: list[Peer], settings: Any) -> Outcome:
    known = BY_WORKLOAD[workload] if isinstance(workload, str) else workload
    outcome = enter(known, peers)
    for entry in outcome.entries:
        need(entry.contender)
    play(outcome, settings)
    return outcome


@pytest.mark.parametrize("workload", [PACED, PACED_TLS, PACED_GZIP], ids=lambda workload: workload.name)
def test_paced_of_rawstream(workload: Workload) -> None:
    metrics = measured(workload, "rawstream")["rawstream"].metrics
    assert metrics["chunks"] > 0
    assert 0 < metrics["latency_p50_us"] <= metrics["latency_p999_us"]
    assert ("bytes_per_event" in metrics) == (workload is PACED_GZIP)


def test_burst_of_rawstream() -> None:
    found = measured("burst", "rawstream")["rawstream"]
    assert found.metrics["events_per_s"] > 0
    assert found.units == 500


def test_first_of_rawstream() -> None:
    assert measured("first", "rawstream")["rawstream"].metrics["requests_per_s"] > 0


def test_flush_of_rawstream_in_each_policy() -> None:
    all_six = FLUSH.contenders(BY_NAME["rawstream"])
    assert [contender.name for contender in all_six[3:]] == [f"{each.name}, Nagle" for each in all_six[:3]]
    found = measured(dataclasses.replace(FLUSH, contenders=lambda _: all_six[:3]), "rawstream")
    assert found["rawstream/each item"].metrics["events_per_chunk"] <= 1
    assert found["rawstream/before wait"].metrics["events_per_chunk"] > 1


@pytest.mark.parametrize(("workload", "count"), [("fanout", 4), ("fanout-many", 6)])
def test_fanout_of_rawstream(workload: str, count: int) -> None:
    found = measured(workload, "rawstream")["rawstream"].metrics
    assert found["subscribers"] == count
    assert 0 < found["first_p50_us"] <= found["last_p50_us"]
    assert found["intended_last_p50_us"] >= found["last_p50_us"], "an event is never published before it is due"
    assert found["deliveries_per_s"] > 0
    assert {"lag_p99_us", "fast_lag_p99_us", "answer_p99_us"} <= found.keys()


def test_idle_of_rawstream() -> None:
    found = measured("idle", "rawstream")
    assert found.keys() == {"rawstream", "rawstream/handler streams"}
    for sample in found.values():
        assert sample.metrics["connections"] == 5
        assert sample.metrics["empty_bytes"] > 1_000_000


def test_slow_of_rawstream() -> None:
    found = measured("slow", "rawstream")["rawstream"]
    assert found.metrics["others_p99_us"] > 0
    assert found.metrics["intended_p99_us"] >= found.metrics["others_p99_us"]
    assert found.metrics["cut"] == 0
    assert len(found.timeline) > 1, "memory over time"


@pytest.mark.parametrize("name", ["paced", "fanout"])
def test_the_system_calls_of_a_workload_are_counted(name: str) -> None:
    if missing_programs([Strace.tool]):
        pytest.skip("strace is not installed")
    peer = BY_NAME["floor-c" if name == "fanout" else "floor"]
    outcome = turn(name, [peer], dataclasses.replace(TINY, count_calls=True))
    if outcome.syscalls_missing:
        pytest.skip(outcome.syscalls_missing)
    found = outcome.entries[0].syscalls
    assert found is not None
    # Of the few paced ones, some of those that came in a busy machine's window were sent before it.
    assert found.by_name["sendto"] >= (0.9 if name == "fanout" else 0.1), "an event has a send of its own"


def test_quick_is_one_round_and_counts_no_system_calls() -> None:
    assert (QUICK.rounds, QUICK.count_calls) == (1, False)
    assert BY_WORKLOAD.keys() == {
        "paced", "paced-tls", "paced-gzip", "burst", "first", "flush", "fanout", "fanout-many", "idle", "slow",
    }  # fmt: skip


def test_a_turn_that_counts_system_calls_is_no_larger_than_any_other() -> None:
    for settings in (TINY, QUICK):
        small = dataclasses.asdict(settings.counting())
        assert all(small[name] <= size for name, size in dataclasses.asdict(settings).items())
