"""The benchmarks around the load: statistics, turns, report, plots, command line, and a small run of the real thing.

A peer whose program is not on this machine (cc, go, nginx with nchan, node) is left out here, as in a run.
"""

import contextlib
import dataclasses
import io
import itertools
import json
import math
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import types
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks import cli, report
from benchmarks.answer import Event, Read, WrongAnswer, parse
from benchmarks.channel import check_channel, check_stream, data_of
from benchmarks.machine import missing_programs, programs
from benchmarks.peers import PEERS, Peer
from benchmarks.process import (
    ROOT,
    DidNotStart,
    Server,
    Usage,
    core_busy_ns,
    cpu_ns,
    peak_bytes,
    resident_bytes,
    socket_bytes,
    tree,
)
from benchmarks.progress import Progress
from benchmarks.requests import Publisher, connect, numbered
from benchmarks.settings import QUICK, Settings
from benchmarks.subscribers import Subscribers, possible
from benchmarks.summary import curve, histogram, median_curve, percentile, ratio, spread
from benchmarks.targets import TARGETS, verdicts
from benchmarks.turns import Entry, Outcome, count_turns, enter, run
from benchmarks.workload import Column, Contender, Sample, Workload, alone
from benchmarks.workloads import COMMANDS, FLUSH
from benchmarks.workloads import flush as flush_workload
from benchmarks.workloads import paced as paced_workload

BY_NAME = {peer.name: peer for peer in PEERS}
CORES = sorted(os.sched_getaffinity(0))
TINY = Settings(
    rounds=1,
    server_core=CORES[0],
    load_core=CORES[-1],
    paced_readers=2,
    paced_interval=0.01,
    paced_warmup=0.0,
    paced_seconds=0.3,
    burst_events=500,
    burst_warmup=20,
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
READER = {"read_us": 5.0, "echo_us": 15.0}
ABOUT: dict[str, object] = {
    "machine": {"processor": "a processor", "cores": 2},
    "versions": {"python": "3.11.7", "uvloop": None},
    "reader": READER,
}


@pytest.fixture(autouse=True)
def files() -> Iterator[None]:
    """A run allows itself as many open files as it can get; the other tests shall not have them."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


# -- statistics --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("share", "value"), [(0, 1), (0.01, 1), (0.011, 2), (0.07, 7), (0.5, 50), (0.99, 99), (0.999, 100), (1, 100)]
)
def test_a_percentile_is_a_value_that_was_seen(share: float, value: int) -> None:
    assert percentile(range(1, 101), share) == value


def test_a_percentile_of_one_value_is_that_value() -> None:
    assert [percentile([7], share) for share in (0, 0.5, 1)] == [7, 7, 7]


@pytest.mark.parametrize(("values", "share"), [([], 0.5), ([1], -0.1), ([1], 1.1)])
def test_a_percentile_needs_values_and_a_share(values: Sequence[float], share: float) -> None:
    with pytest.raises(ValueError):
        percentile(values, share)


def test_a_curve_ends_at_the_extremes_and_shows_the_tail() -> None:
    points = curve(list(range(1000, 0, -1)))
    assert points[0] == (0.0, 1)
    assert points[-1] == (1.0, 1000)
    assert dict(points)[0.5] == 500
    assert [point for point in points if point[0] > 0.999], "more than one point beyond p99.9"
    assert points == sorted(points)
    assert curve([]) == []


def test_curves_are_joined_point_by_point() -> None:
    assert median_curve([[(0.0, 1), (1.0, 5)], [(0.0, 3), (1.0, 9)], [(0.0, 2), (1.0, 7)]]) == [(0.0, 2), (1.0, 7)]


def test_a_histogram_counts_an_edge_with_what_follows_it() -> None:
    assert histogram([1, 9, 10, 99, 100, 5000], (10, 100)) == [2, 2, 2]
    assert histogram([], (10,)) == [0, 0]


def test_a_spread_has_median_range_and_quartiles() -> None:
    found = spread([4, 1, 3, 2, 5])
    assert (found.low, found.quartile1, found.median, found.quartile3, found.high) == (1, 2, 3, 4, 5)
    assert spread([7]).as_json() == {"median": 7, "low": 7, "high": 7, "quartile1": 7, "quartile3": 7}
    with pytest.raises(ValueError):
        spread([])


def test_a_ratio_is_taken_round_by_round() -> None:
    """The third round was slow for both: the ratio does not see it."""
    found = ratio([10, 20, 300], [5, 10, 100])
    assert found is not None
    assert (found.median, found.low, found.high) == (2, 2, 3)
    assert ratio([1, 2], [0, 0]) is None


# -- processes ---------------------------------------------------------------------------------------------------------


def test_the_cpu_time_of_a_process_is_that_of_its_clock() -> None:
    before = time.process_time_ns()
    seen = cpu_ns(os.getpid())
    assert before <= seen <= time.process_time_ns()


def test_memory_and_processes_are_found() -> None:
    assert tree(os.getpid())[0] == os.getpid()
    assert peak_bytes(os.getpid()) >= resident_bytes(os.getpid()) > 1_000_000
    assert socket_bytes() >= 0
    assert core_busy_ns(CORES[0]) > 0


def test_a_core_that_is_not_there_is_named() -> None:
    with pytest.raises(LookupError, match="no core 9999"):
        core_busy_ns(9999)


def test_usage_tells_what_others_took() -> None:
    second = 1_000_000_000
    quiet = Usage(2 * second, second, second // 2, second + 10_000_000) - Usage(0, 0, 0, 0)
    assert quiet.shares() == {"server_busy": 0.5, "reader_busy": 0.25, "noise": 0.0}
    noisy = Usage(2 * second, second, 0, second + second // 2) - Usage(0, 0, 0, 0)
    assert noisy.shares()["noise"] == 0.25


def test_a_peer_that_ends_at_once_says_why() -> None:
    with pytest.raises(DidNotStart, match="No module named"), Server("benchmarks.peers.nobody", (), CORES[0]):
        pass


def test_leaving_a_server_ends_its_children_too() -> None:
    with Server("benchmarks.peers.floor", (), CORES[0]) as server:
        assert tree(server.pid) == [server.pid]
        pid = server.pid
    assert not Path(f"/proc/{pid}").exists()


def test_a_server_does_not_outlive_a_run_that_is_killed() -> None:
    code = "\n".join(
        [
            "import os, signal",
            "from benchmarks.process import Server",
            f"server = Server('benchmarks.peers.floor', (), {CORES[0]}).__enter__()",
            "print(server.pid, flush=True)",
            "os.kill(os.getpid(), signal.SIGKILL)",
        ]
    )
    killed = subprocess.run([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    try:
        ended = os.pidfd_open(int(killed.stdout))
    except ProcessLookupError:
        return  # already
    ready, _, _ = select.select([ended], [], [], 30)
    os.close(ended)
    assert ready


def test_programs_and_files_are_looked_for() -> None:
    assert missing_programs(["no-such-program", "/no/such/file", "env", "/proc"]) == [
        "no-such-program",
        "/no/such/file",
    ]
    assert programs().keys() == {"cc", "go", "nginx", "node"}


# -- progress ----------------------------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_plain_lines_where_no_terminal_is() -> None:
    stream, clock = io.StringIO(), itertools.count(0, 10)
    progress = Progress(2, stream, lambda: next(clock))
    progress.step("A")
    progress.step("B")
    progress.close()
    assert stream.getvalue() == "[1/2] 10 s  A\n[2/2] 20 s  B\n"


def test_progress_is_a_bar_on_a_terminal_and_leaves_nothing_behind() -> None:
    stream, clock = Terminal(), itertools.count(0, 10)
    progress = Progress(2, stream, lambda: next(clock))
    progress.step("a long name")
    progress.step("B")
    progress.close()
    _, first, second, empty, _ = stream.getvalue().split("\r")
    assert first == f"[{'·' * 24}] 0/2  a long name"
    assert second == f"[{'█' * 12}{'·' * 12}] 1/2, 20 s left  B".ljust(len(first))
    assert empty.strip() == ""


# -- turns -------------------------------------------------------------------------------------------------------------


def sample(**metrics: float) -> Sample:
    return Sample(
        {"noise": 0.0, "reader_busy": 0.1, "latency_p50_us": 1.0, **metrics}, {"latency": [(0.0, 1.0), (1.0, 9.0)]}
    )


def fake(name: str = "paced", **others: Any) -> Workload:
    """A workload that gives each peer samples without a server's help, in the order of the turns."""
    column = Column("cpu_per_chunk_us", "CPU/chunk µs", digits=1, ratio=True)
    values = {"check": lambda *_: None, "measure": lambda *_: sample(cpu_per_chunk_us=1.0), **others}
    return Workload(name=name, title=f"{name}: a fake", contenders=alone, columns=(column,), **values)


def quiet(total: int = 1) -> Progress:
    return Progress(total, io.StringIO())


def test_peers_take_turns() -> None:
    order: list[str] = []

    def measure(server: Server, contender: Contender, settings: Settings) -> Sample:
        order.append(contender.name)
        return sample()

    outcome = enter(fake(measure=measure), [BY_NAME["floor"], Peer("again", "again", "benchmarks.peers.floor")])
    assert count_turns([outcome], 2) == 4
    run(outcome, Settings(rounds=2, server_core=CORES[0], load_core=CORES[-1]), quiet())
    assert order == ["floor", "again", "floor", "again"]
    assert [len(entry.samples) for entry in outcome.measured] == [2, 2]
    assert os.sched_getaffinity(0) == set(CORES)


def test_a_peer_that_is_wrong_is_not_timed() -> None:
    def check(server: Server, contender: Contender, settings: Settings) -> None:
        raise WrongAnswer("2 events instead of 3")

    outcome = enter(fake(check=check), [BY_NAME["floor"]])
    run(outcome, TINY, quiet())
    (entry,) = outcome.entries
    assert (entry.state, entry.reason, entry.samples) == ("wrong", "2 events instead of 3", [])


def test_a_peer_that_turns_wrong_loses_what_it_has() -> None:
    answers = iter([sample(), WrongAnswer("cut before its end")])

    def measure(server: Server, contender: Contender, settings: Settings) -> Sample:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    outcome = enter(fake(measure=measure), [BY_NAME["floor"]])
    run(outcome, Settings(rounds=3, server_core=CORES[0], load_core=CORES[-1]), quiet())
    assert outcome.measured == []
    assert outcome.entries[0].reason == "cut before its end"


def test_a_peer_that_is_not_installed_is_entered_as_missing() -> None:
    stranger = Peer("stranger", "a stranger", "benchmarks.peers.floor", requires=("no-such-server", "h11"))
    outcome = enter(fake(), [stranger])
    assert (outcome.entries[0].state, outcome.entries[0].reason) == ("missing", "not installed: no-such-server")
    assert count_turns([outcome], 3) == 0
    run(outcome, TINY, quiet())
    assert outcome.measured == []


def test_a_peer_that_does_not_start_is_named() -> None:
    outcome = enter(fake(), [Peer("broken", "broken", "benchmarks.peers.nobody")])
    run(outcome, TINY, quiet())
    assert outcome.entries[0].state == "failed"
    assert "No module named" in outcome.entries[0].reason


def test_a_peer_takes_part_where_it_says() -> None:
    assert [entry.contender.name for entry in enter(fake("burst"), [BY_NAME["rawstream-h11send"]]).entries] == []


# -- report ------------------------------------------------------------------------------------------------------------


def entry_of(peer: str, *samples: Sample) -> Entry:
    return Entry(Contender(BY_NAME[peer]), samples=list(samples))


def outcome_of(*entries: Entry, name: str = "paced") -> Outcome:
    return Outcome(fake(name), list(entries))


def paced_result(noise: float = 0.0, busy: float = 0.1) -> report.Json:
    missing = Entry(Contender(BY_NAME["uvicorn"]))
    missing.drop("missing", "not installed: uvicorn")
    outcome = outcome_of(
        entry_of("aiohttp", *(sample(cpu_per_chunk_us=value, noise=noise) for value in (30.0, 33.0, 60.0))),
        entry_of("rawstream", *(sample(cpu_per_chunk_us=value, reader_busy=busy) for value in (20.0, 22.0, 20.0))),
        missing,
    )
    return report.build("latency", [outcome], Settings(), ABOUT)


def test_the_json_holds_every_sample_and_its_summary() -> None:
    result = paced_result()
    assert json.loads(json.dumps(result)) == result
    assert result["format"] == report.FORMAT
    assert result["settings"]["paced_readers"] == 200
    part = result["workloads"]["paced"]
    assert part["baseline"] == "rawstream"
    aiohttp = part["contenders"]["aiohttp"]
    assert [found["cpu_per_chunk_us"] for found in aiohttp["samples"]] == [30.0, 33.0, 60.0]
    assert aiohttp["summary"]["cpu_per_chunk_us"]["median"] == 33.0
    assert aiohttp["ratios"]["cpu_per_chunk_us"] == {
        "median": 1.5, "low": 1.5, "high": 3.0, "quartile1": 1.5, "quartile3": 2.25,
    }  # fmt: skip
    assert aiohttp["curves"]["latency"] == [[0.0, 1.0], [1.0, 9.0]]
    assert part["contenders"]["uvicorn"]["state"] == "missing"


def test_the_table_shows_ratios_and_names_who_is_missing() -> None:
    text = report.tables(paced_result(), [fake()])
    lines = text.splitlines()
    assert any("aiohttp" in line and "33.0 (30.0–60.0)" in line and "1.50×" in line for line in lines)
    assert any("rawstream" in line and "20.0 (20.0–22.0)" in line and "1.00×" in line for line in lines)
    assert "uvicorn (httptools, uvloop) + Starlette: missing (not installed: uvicorn)" in text
    assert "5.0 µs a read" in text
    assert "\nTargets\n  met    paced: cpu_per_chunk_us of rawstream is 0.61 × aiohttp" in text
    assert "noisy" not in text.lower()
    assert "may be the limit" not in text


def test_the_report_says_when_the_run_was_noisy_or_the_reader_the_limit() -> None:
    text = report.tables(paced_result(noise=0.3, busy=0.95), [fake()])
    assert "Noisy: in 3 of 6 samples" in text
    assert "\nTargets (in a noisy run: don't trust a verdict)\n" in text
    assert "may be the limit, for: rawstream (paced)" in text


def test_a_metric_that_only_some_have_is_left_open_for_the_others() -> None:
    column = Column("lag_p99_us", "lag p99 µs", ratio=True)
    workload = dataclasses.replace(fake("lag"), columns=(column,))
    ours, theirs = entry_of("rawstream", sample(cpu_per_chunk_us=1.0)), entry_of("aiohttp", sample(lag_p99_us=70.0))
    result = report.build("fanout", [Outcome(workload, [ours, theirs])], Settings(), ABOUT)
    lines = report.tables(result, [workload]).splitlines()
    assert any(line.split() == ["rawstream", "–"] for line in lines)
    assert any("70 (70–70)" in line and line.endswith("–") for line in lines)


def test_the_report_says_who_was_not_busy_when_it_should_be() -> None:
    entries = [entry_of("rawstream", sample(fast_server_busy=0.7)), entry_of("aiohttp", sample(fast_server_busy=0.97))]
    result = report.build("fanout", [Outcome(fake("fast"), entries)], Settings(), ABOUT)
    (note,) = [line for line in report.tables(result, []).splitlines() if "could have gone faster" in line]
    assert note.endswith(": rawstream (fast).")


def test_without_rawstream_the_first_peer_is_the_base() -> None:
    outcome = outcome_of(entry_of("aiohttp", sample(cpu_per_chunk_us=2.0)), entry_of("floor", sample()))
    assert report.baseline(outcome.measured) is outcome.entries[0]
    assert report.baseline([]) is None


def test_a_run_without_any_answer_still_reports() -> None:
    entry = Entry(Contender(BY_NAME["aiohttp"]))
    entry.drop("wrong", "status 500 instead of 200")
    result = report.build("latency", [outcome_of(entry)], Settings(rounds=1), ABOUT)
    assert "aiohttp: wrong (status 500 instead of 200)" in report.tables(result, [fake()])


# -- targets -----------------------------------------------------------------------------------------------------------


def test_targets_are_held_against_the_best_peer_of_the_run() -> None:
    outcome = outcome_of(
        entry_of("floor", sample(cpu_per_chunk_us=5, latency_p50_us=1)),
        entry_of("rawstream", sample(cpu_per_chunk_us=20, latency_p50_us=30)),
        entry_of("aiohttp", sample(cpu_per_chunk_us=25, latency_p50_us=20)),
        entry_of("uvicorn-h11", sample(cpu_per_chunk_us=21, latency_p50_us=90)),
    )
    found = [(each.target.metric, each.against, round(each.ratio, 2), each.met) for each in verdicts([outcome])]
    assert found == [
        ("cpu_per_chunk_us", "uvicorn (h11, asyncio) + Starlette", 0.95, True),
        ("cpu_per_chunk_us", "aiohttp", 0.8, True),
        ("latency_p50_us", "aiohttp", 1.5, False),
    ]
    assert verdicts([outcome])[2].text().startswith("MISSED paced: latency_p50_us of rawstream is 1.50 × aiohttp")


def test_a_rate_is_held_against_the_highest() -> None:
    outcome = outcome_of(
        entry_of("rawstream", sample(events_per_s=1500, latency_p50_us=1)),
        entry_of("aiohttp", sample(events_per_s=500, latency_p50_us=5)),
        entry_of("aiohttp-uvloop", sample(events_per_s=800, latency_p50_us=9)),
        name="burst",
    )
    rate, latency = verdicts([outcome])
    assert (rate.against, rate.met) == ("aiohttp, uvloop", False)
    assert (latency.against, latency.met) == ("aiohttp, uvloop", True), "the latency of the peer with the best rate"


def test_a_fan_out_is_held_against_the_floor_and_each_kind_of_peer() -> None:
    cost = {"rawstream": 9.0, "floor-c": 6.0, "nchan": 12.0, "go": 10.0, "aiohttp": 20.0, "uvicorn": 17.0}
    entries = [entry_of(name, sample(cpu_per_delivery_us=value)) for name, value in cost.items()]
    found = [(each.against, each.target.wanted, each.met) for each in verdicts([outcome_of(*entries, name="fanout")])]
    assert found == [
        ("floor (send loop in C)", 1.5, True),
        ("Go's net/http", 1.0, True),
        ("uvicorn (httptools, uvloop) + Starlette", 0.5, False),
    ]


def test_a_plain_limit_is_held_against_its_own_variant() -> None:
    peer = BY_NAME["rawstream"]
    outcome = outcome_of(
        Entry(Contender(peer), samples=[sample(memory_per_connection_bytes=8_000)]),
        Entry(Contender(peer, "/idle", "handler streams"), samples=[sample(memory_per_connection_bytes=13_000)]),
        name="idle",
    )
    subscribers, handlers = verdicts([outcome])
    assert (subscribers.ours, subscribers.met) == ("rawstream", True)
    assert (handlers.ours, handlers.met) == ("rawstream, handler streams", False)
    assert handlers.text().endswith("rawstream, handler streams is 13,000 (wanted ≤ 12,288)")


def test_without_a_peer_there_is_no_verdict() -> None:
    assert verdicts([outcome_of(entry_of("rawstream", sample(cpu_per_chunk_us=20, latency_p50_us=30)))]) == []


def test_every_target_is_of_a_workload_and_peers_that_exist() -> None:
    workloads = {workload.name for each in COMMANDS.values() for workload in each}
    assert {target.workload for target in TARGETS} <= workloads
    assert {name for target in TARGETS for name in target.theirs} <= BY_NAME.keys()


# -- what the workloads make of their events ---------------------------------------------------------------------------


def test_paced_measures_in_its_window_and_against_the_intended_time() -> None:
    """Two streams, an event each 10 ms; of one, everything after the first event is 5 ms behind its time."""
    ms = 1_000_000
    prompt = [Event(n * 10 * ms, n * 10 * ms + 1000) for n in range(10)]
    behind = [Event(0, 1000), *(Event(n * 10 * ms + 5 * ms, n * 10 * ms + 5 * ms + 1000) for n in range(1, 10))]
    found = paced_workload._summarise([prompt, behind], range(5 * ms, 85 * ms), 0.01, 3_200_000, {})
    assert found.metrics["chunks"] == 15
    assert math.isclose(found.metrics["delivered"], 15 / 16)
    assert found.metrics["latency_p50_us"] == found.metrics["latency_p999_us"] == 1.0
    assert found.metrics["intended_p50_us"] == 1.0
    assert found.metrics["intended_p99_us"] == 5001.0
    assert math.isclose(found.metrics["cpu_per_chunk_us"], 3200 / 15)


def test_paced_without_events_in_its_window_is_wrong() -> None:
    with pytest.raises(WrongAnswer, match="no event came"):
        paced_workload._summarise([[Event(1, 2)]], range(10, 20), 0.01, 0, {})


def test_flush_shows_a_typical_group() -> None:
    groups = [[Event(start, start + wait)] for start, wait in [(0, 9_000_000), (20, 2_000_000), (40, 1_000_000)]]
    assert flush_workload._typical(groups) == [Event(20, 2_000_020)]


def test_a_group_is_told_by_its_yields_and_reads() -> None:
    group = [Event(0, 500_000), Event(100_000, 500_000), Event(200_000, 900_000)]
    assert flush_workload._timeline(group) == [(0.0, 0), (0.1, 0), (0.2, 0), (0.5, 2), (0.9, 1)]


# -- subscribers -------------------------------------------------------------------------------------------------------


def frame(stamp: int) -> bytes:
    """A chunk with an event, as a channel may send it."""
    event = b"id: 1-%d\ndata: %018d\n\n" % (stamp, stamp)
    return b"%x\r\n%b\r\n" % (len(event), event)


@pytest.fixture
def crowd() -> Iterator[Subscribers]:
    with Subscribers(0) as subscribers:
        yield subscribers


def subscriber(crowd: Subscribers) -> socket.socket:
    """Subscribe; gives the server's end."""
    ours, theirs = socket.socketpair()
    crowd.add(ours)
    return theirs


def test_subscribers_are_counted_event_by_event(crowd: Subscribers) -> None:
    with subscriber(crowd) as first, subscriber(crowd) as second:
        for stamp in (7, 8):
            crowd.expect(stamp)
        first.send(frame(7) + frame(8))
        crowd.turn(1)
        assert [crowd.complete(stamp) for stamp in (7, 8)] == [False, False]
        second.send(frame(7))
        crowd.turn(1)
        assert [crowd.complete(stamp) for stamp in (7, 8)] == [True, False]
        second.send(frame(8))
        crowd.settle(1)
    assert [len(arrived) for arrived in crowd.arrivals.values()] == [2, 2]
    assert (crowd.missing, crowd.doubled) == (0, 0)


def test_an_event_may_be_cut_anywhere(crowd: Subscribers) -> None:
    with subscriber(crowd) as whole, subscriber(crowd) as cut:
        for stamp in (123_456_789_012_345_678, 123_456_789_012_345_679):
            crowd.expect(stamp)
            whole.send(frame(stamp))
            crowd.turn(1)
            for byte in frame(stamp):
                cut.send(bytes([byte]))
                crowd.turn(1)
            assert crowd.complete(stamp)
    assert (crowd.missing, crowd.doubled) == (0, 0)


def test_what_is_missing_or_comes_twice_is_counted(crowd: Subscribers) -> None:
    with subscriber(crowd) as good, subscriber(crowd) as bad:
        for stamp in (1, 2, 3):
            crowd.expect(stamp)
            good.send(frame(stamp))
            crowd.turn(1)
        for stamp in (1, 1, 3):
            bad.send(frame(stamp))
            crowd.turn(1)
    assert (crowd.missing, crowd.doubled) == (1, 1)


def test_a_subscriber_that_comes_later_misses_nothing(crowd: Subscribers) -> None:
    crowd.expect(1)
    with subscriber(crowd) as late:
        crowd.expect(2)
        late.send(frame(2))
        crowd.settle(1)
    assert (crowd.missing, crowd.doubled) == (0, 0)


def test_an_event_that_nobody_published_is_wrong(crowd: Subscribers) -> None:
    with subscriber(crowd) as stranger:
        stranger.send(frame(5))
        with pytest.raises(WrongAnswer, match="not published"):
            crowd.turn(1)


def test_a_subscriber_that_is_cut_off_is_wrong(crowd: Subscribers) -> None:
    subscriber(crowd).close()
    with pytest.raises(WrongAnswer, match="cut off"):
        crowd.turn(1)


def test_an_event_that_does_not_come_is_wrong(crowd: Subscribers) -> None:
    with subscriber(crowd):
        crowd.expect(1)
        with pytest.raises(WrongAnswer, match="reached 0 of 1"):
            crowd.settle(0)


def test_there_are_no_more_subscribers_than_files() -> None:
    assert possible(3) == 3
    assert possible(10**9) < 10**9


def test_a_publisher_waits_for_its_whole_answer_and_no_other() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        publisher = Publisher(listener.getsockname()[1], 24)
        end, _ = listener.accept()
        with publisher.sock, end:
            stamp = publisher.publish()
            assert end.recv(1000).endswith(b"Content-Length: 24\r\n\r\n%018d......" % stamp)
            for piece in (b"HTTP/1.1 201 Created\r\nContent-Len", b"gth: 2\r\n\r\no", b"k"):
                assert publisher.waiting
                publisher.feed(piece)
            assert not publisher.waiting
            publisher.waiting = True
            publisher.feed(b"HTTP/1.1 202 \r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n")
            assert publisher.waiting
            publisher.feed(b"0\r\n\r\n")
            assert not publisher.waiting
            with pytest.raises(WrongAnswer, match="publishing was answered"):
                publisher.feed(b"HTTP/1.1 404 Not Found\r\n\r\n")
            with pytest.raises(WrongAnswer, match="closed"):
                publisher.feed(b"")


def test_many_clients_come_from_several_addresses() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        addresses = []
        for number in (0, 4_999, 5_000, 14_999):
            with connect(listener.getsockname()[1], number) as sock:
                addresses.append(sock.getsockname()[0])
    assert addresses == ["127.0.0.1", "127.0.0.1", "127.0.0.2", "127.0.0.3"]


def test_a_subscription_that_is_not_answered_200_is_wrong() -> None:
    peer = BY_NAME["aiohttp"]
    with (
        Server(peer.module, peer.arguments, CORES[0]) as server,
        Subscribers(server.port, "/nothing") as crowd,
        pytest.raises(WrongAnswer, match=r"answered b'HTTP/1\.1 404"),
    ):
        crowd.join(1, 5)


def test_a_subscription_that_is_not_answered_is_wrong() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        Subscribers(listener.getsockname()[1]) as crowd,
        pytest.raises(WrongAnswer, match="no answer for 0 s: 2 of 2 subscribers wait"),
    ):
        crowd.join(2, 0)


# -- a peer's channel --------------------------------------------------------------------------------------------------


def test_the_data_of_a_body_is_found_in_any_spelling() -> None:
    body = b": hi\n\nid: 1\nevent: tick\ndata: a\n\ndata:b\r\n\r\nretry: 5\n\n"
    assert data_of(body) == [b"a", b"b"]


@pytest.mark.parametrize(
    ("body", "words"), [(b"data: a\n", "has no end"), (b"date: a\n\n", "not a field"), (b"what\n\n", "not a field")]
)
def test_what_is_no_event_is_wrong(body: bytes, words: str) -> None:
    with pytest.raises(WrongAnswer, match=words):
        data_of(body)


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (b"404 Not Found\r\nContent-Length: 0", "status 404"),
        (b"200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked", "text/plain"),
        (b"200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 9", "length"),
        (b"200 OK\r\nContent-Type: text/event-stream\r\nContent-Encoding: gzip", "encoded"),
    ],
)
def test_a_channel_without_the_right_head_is_wrong(head: bytes, words: str) -> None:
    with pytest.raises(WrongAnswer, match=words):
        check_stream(parse([Read(0, b"HTTP/1.1 %b\r\n\r\n" % head)], until_close=True))


def test_a_stream_may_end_with_its_connection() -> None:
    answer = parse(
        [Read(0, b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata"), Read(1, b": x\n\n")], True
    )
    check_stream(answer)
    assert (answer.body, answer.complete) == (b"data: x\n\n", False)


def test_a_peer_that_never_says_that_it_has_published_is_given_up() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    with socket.create_server(("127.0.0.1", 0)) as listener, contextlib.ExitStack() as ends:

        def subscribed() -> None:
            for _ in range(3):
                ends.enter_context(end := listener.accept()[0])
                end.send(head)

        thread = threading.Thread(target=subscribed)
        thread.start()
        server = types.SimpleNamespace(port=listener.getsockname()[1])
        with pytest.raises(TimeoutError):
            check_channel(server, alone(BY_NAME["floor"])[0], dataclasses.replace(TINY, timeout=0.2))  # type: ignore[arg-type]
        thread.join()


def test_a_stamp_is_padded_to_the_size_of_its_event() -> None:
    assert numbered(5, 20) == b"000000000000000005.."


# -- the command line --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "required"),
        (["speed"], "invalid choice: 'speed'"),
        (["latency", "--peers", "rawstream,apache"], "no peer 'apache'; there are: floor, floor-c, rawstream,"),
        (["latency", "--peers", ""], "no peer ''"),
        (["latency", "--workloads", "flush"], "no workload 'flush'; there are: paced, burst, first"),
        (["latency", "--rounds", "0"], "'0' is not a number of at least 1"),
        (["latency", "--rounds", "many"], "'many' is not a number"),
        (["flush", "--server-core", "x"], "'x' is not the number of a core"),
        (["flush", "--server-core", "9999"], "there is no core 9999"),
        (["flush", "--output", "/proc/nowhere"], "can't write results to /proc/nowhere"),
    ],
)
def test_a_wrong_option_is_one_clear_line_and_status_2(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2
    assert words in capsys.readouterr().err.splitlines()[-1]


def test_quick_is_one_round_of_all_workloads() -> None:
    assert QUICK.rounds == 1
    assert {workload.name for each in COMMANDS.values() for workload in each} == {
        "paced", "burst", "first", "flush", "fanout", "fanout-many", "idle", "slow",
    }  # fmt: skip


# -- the real thing, small ---------------------------------------------------------------------------------------------


def small(command: str, *names: str, workloads: Sequence[Workload] = ()) -> report.Json:
    """A whole run with tiny sizes; every peer has to take part."""
    workloads = workloads or COMMANDS[command]
    result = cli.measure(command, workloads, [BY_NAME[name] for name in names], TINY)
    states = {
        (name, key): found["state"] + found.get("reason", "")
        for name, part in result["workloads"].items()
        for key, found in part["contenders"].items()
    }
    assert set(states.values()) == {"measured"}, states
    return result


def test_latency_of_rawstream(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = small("latency", "rawstream")
    for name, part in result["workloads"].items():
        for contender in part["contenders"].values():
            assert all(math.isfinite(value) and value >= 0 for value in contender["samples"][0].values()), name
    burst = result["workloads"]["burst"]["contenders"]["rawstream"]["samples"][0]
    assert burst["events_per_s"] > 0
    assert burst["peak_memory_bytes"] > 1_000_000
    text = report.tables(result, COMMANDS["latency"])
    assert "short requests" in text
    written = [path.name for path in cli.write(result, tmp_path)]
    assert written == [
        "latency.json",
        "paced-latency.svg",
        "paced-timeline.svg",
        "burst-latency.svg",
        "burst-timeline.svg",
        "first-latency.svg",
    ]
    assert json.loads((tmp_path / "latency.json").read_text("utf-8")) == json.loads(json.dumps(result))
    assert (tmp_path / "burst-latency.svg").read_text("utf-8").startswith("<?xml")


def test_flush_of_rawstream_in_each_policy(tmp_path: Path) -> None:
    all_six = FLUSH.contenders(BY_NAME["rawstream"])
    assert [contender.name for contender in all_six[3:]] == [f"{each.name}, Nagle" for each in all_six[:3]]
    result = small("flush", "rawstream", workloads=[dataclasses.replace(FLUSH, contenders=lambda _: all_six[:3])])
    contenders = result["workloads"]["flush"]["contenders"]
    each_item = contenders["rawstream/each item"]["samples"][0]
    assert each_item["events_per_chunk"] <= 1
    before_wait = contenders["rawstream/before wait"]["samples"][0]
    assert before_wait["events_per_chunk"] > 1
    assert [path.name for path in cli.write(result, tmp_path)] == ["flush.json", "flush-timeline.svg", "flush-gaps.svg"]


def test_fanout_of_rawstream(tmp_path: Path) -> None:
    result = small("fanout", "rawstream")
    for name, count in (("fanout", 4), ("fanout-many", 6)):
        found = result["workloads"][name]["contenders"]["rawstream"]["samples"][0]
        assert all(math.isfinite(value) and value >= 0 for value in found.values()), name
        assert found["subscribers"] == count
        assert 0 < found["first_p50_us"] <= found["last_p50_us"]
        assert found["deliveries_per_s"] > 0
        assert {"lag_p99_us", "fast_lag_p99_us", "answer_p99_us"} <= found.keys()
    assert [path.name for path in cli.write(result, tmp_path)] == [
        "fanout.json",
        "fanout-cpu.svg",
        "fanout-latency.svg",
        "fanout-many-cpu.svg",
        "fanout-many-latency.svg",
    ]


def test_idle_of_rawstream(tmp_path: Path) -> None:
    result = small("idle", "rawstream")
    contenders = result["workloads"]["idle"]["contenders"]
    assert contenders.keys() == {"rawstream", "rawstream/handler streams"}
    for contender in contenders.values():
        assert contender["samples"][0]["connections"] == 5
        assert contender["samples"][0]["empty_bytes"] > 1_000_000
    assert [path.name for path in cli.write(result, tmp_path)] == ["idle.json", "idle-memory.svg"]


def test_slow_of_rawstream(tmp_path: Path) -> None:
    result = small("slow", "rawstream")
    found = result["workloads"]["slow"]["contenders"]["rawstream"]
    assert found["samples"][0]["others_p99_us"] > 0
    assert found["samples"][0]["cut"] == 0
    assert len(found["timeline"]) > 5, "memory over time"
    written = [path.name for path in cli.write(result, tmp_path)]
    assert written == ["slow.json", "slow-latency.svg", "slow-memory.svg"]


@pytest.mark.parametrize("name", [peer.name for peer in PEERS if peer.name != "rawstream"])
def test_every_peer_answers_rightly(name: str) -> None:
    peer = BY_NAME[name]
    if absent := missing_programs(peer.programs):
        pytest.skip("not installed: " + ", ".join(absent))
    with Server(peer.module, peer.arguments, CORES[0]) as server:
        for workload in (each for command in COMMANDS.values() for each in command):
            if workload.name in peer.workloads:
                for contender in workload.contenders(peer):
                    workload.check(server, contender, TINY)
