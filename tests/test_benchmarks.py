"""The benchmarks around the load: statistics, turns, report, plots, command line, and a small run of the real thing."""

import dataclasses
import io
import itertools
import json
import math
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks import cli, report
from benchmarks.answer import Event, WrongAnswer
from benchmarks.peers import PEERS, Peer
from benchmarks.process import DidNotStart, Server, Usage, core_busy_ns, cpu_ns, peak_bytes, tree
from benchmarks.progress import Progress
from benchmarks.settings import QUICK, Settings
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
)
READER = {"read_us": 5.0, "echo_us": 15.0}
ABOUT: dict[str, object] = {
    "machine": {"processor": "a processor", "cores": 2},
    "versions": {"python": "3.11.7", "uvloop": None},
    "reader": READER,
}


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
    assert peak_bytes(os.getpid()) > 1_000_000
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


# -- the command line --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "required"),
        (["speed"], "invalid choice: 'speed'"),
        (["latency", "--peers", "rawstream,apache"], "no peer 'apache'; there are: floor, rawstream,"),
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
    assert {workload.name for each in COMMANDS.values() for workload in each} == {"paced", "burst", "first", "flush"}


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


@pytest.mark.parametrize("name", [peer.name for peer in PEERS if peer.name != "rawstream"])
def test_every_peer_answers_rightly(name: str) -> None:
    peer = BY_NAME[name]
    with Server(peer.module, peer.arguments, CORES[0]) as server:
        for workload in (each for command in COMMANDS.values() for each in command):
            if workload.name in peer.workloads:
                for contender in workload.contenders(peer):
                    workload.check(server, contender, TINY)
