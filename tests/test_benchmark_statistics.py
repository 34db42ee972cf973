"""The statistics of the benchmarks, what makes a sample noisy, and the targets that a run is held against."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
from benchmark_sizes import BY_NAME

from benchmarks import noise
from benchmarks.summary import curve, histogram, luck, median_curve, percentile, ratio, spread
from benchmarks.syscalls import _LINE, per_unit
from benchmarks.targets import TARGETS, verdicts
from benchmarks.turns import Entry, Outcome
from benchmarks.workload import Column, Contender, Sample, Workload, alone
from benchmarks.workloads import COMMANDS

pytestmark = pytest.mark.either_loop


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


@pytest.mark.parametrize(("rounds", "others", "ways"), [(1, 1, 2), (3, 3, 20), (4, 5, 126), (5, 5, 252)])
def test_luck_is_one_of_all_the_ways_to_deal_the_rounds(rounds: int, others: int, ways: int) -> None:
    dealt = list(itertools.combinations(range(rounds + others), rounds))
    assert luck(rounds, others) == 1 / len(dealt) == 1 / ways
    assert sum(min(mine) >= others for mine in dealt) == 1, "only one has all of the highest"


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
    assert found.iqr == 2
    assert spread([7]).as_json() == {"median": 7, "low": 7, "high": 7, "quartile1": 7, "quartile3": 7, "iqr": 0}
    with pytest.raises(ValueError):
        spread([])


def test_a_ratio_is_taken_round_by_round() -> None:
    """The third round was slow for both: the ratio does not see it."""
    found = ratio([10, 20, 300], [5, 10, 100])
    assert found is not None
    assert (found.median, found.low, found.high, found.rounds) == (2, 2, 3, 3)
    assert ratio([1, 2], [0, 0]) is None


@pytest.mark.parametrize(
    ("rounds", "inside", "confidence"),
    [(1, 0, 0.0), (2, 0, 0.5), (3, 0, 0.75), (5, 0, 0.9375), (7, 0, 0.984375), (9, 1, 0.9609375), (20, 5, 0.95861)],
)
def test_a_ratios_interval_is_as_narrow_as_its_confidence_allows(rounds: int, inside: int, confidence: float) -> None:
    """By the tables of the sign test; with 1 inside, the lowest and the highest are left out."""
    found = ratio(range(1, rounds + 1), [1] * rounds)
    assert found is not None
    assert (found.low, found.high) == (1 + inside, rounds - inside)
    assert found.confidence == pytest.approx(confidence, abs=1e-5)


# -- how quiet the machine was -----------------------------------------------------------------------------------------


def test_a_quiet_sample_has_no_reason() -> None:
    assert noise.reasons(noise.LIMITS) == ()
    assert noise.reasons({}) == ()


@pytest.mark.parametrize("name", noise.LIMITS)
def test_each_limit_has_its_words(name: str) -> None:
    (why,) = noise.reasons({name: noise.LIMITS[name] * 2})
    assert any(digit in why for digit in "0123456789")


def test_a_noisy_sample_says_why() -> None:
    assert noise.reasons({"noise": 0.3, "steal": 0.0, "calibration_apart": 1.4}) == (
        "others took 30% of the server's core",
        "a core was 1.40 times slower or quicker than usual",
    )


def test_a_reader_that_is_always_busy_limits() -> None:
    assert noise.reader_limited({"reader_busy": 0.95})
    assert not noise.reader_limited({"reader_busy": 0.5})
    assert not noise.reader_limited({})


def test_the_worse_of_several_calibrations_counts() -> None:
    found = noise.worst([noise.Calibration(5, 0.3), noise.Calibration(9, 0.1)])
    assert found == noise.Calibration(9, 0.3)


# -- system calls ------------------------------------------------------------------------------------------------------


def test_the_table_of_strace_is_read() -> None:
    table = """% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 60.00    0.000300           1       300           sendto
 40.00    0.000200           2       100        12 recvfrom
------ ----------- ----------- --------- --------- ----------------
100.00    0.000500           1       400        12 total
"""
    assert [(match["name"], match["calls"]) for match in _LINE.finditer(table)] == [
        ("sendto", "300"), ("recvfrom", "100"), ("total", "400"),
    ]  # fmt: skip


def test_system_calls_are_told_for_each_unit_and_rare_ones_by_their_sum_only() -> None:
    found = per_unit("strace", {"sendto": 1000, "epoll_wait": 500, "mmap": 3}, 1000)
    assert found.as_json() == {"tool": "strace", "per_unit": 1.503, "by_name": {"sendto": 1.0, "epoll_wait": 0.5}}
    assert per_unit("perf", {"": 250}, 100).as_json() == {"tool": "perf", "per_unit": 2.5, "by_name": {}}


# -- targets -----------------------------------------------------------------------------------------------------------


def sample(**metrics: float) -> Sample:
    return Sample({"latency_p50_us": 1.0, **metrics})


def entry_of(peer: str, *samples: Sample) -> Entry:
    return Entry(Contender(BY_NAME[peer]), samples=list(samples))


def outcome_of(*entries: Entry, name: str = "paced") -> Outcome:
    column = Column("cpu_per_chunk_us", "CPU/chunk µs")
    workload = Workload(name, "a fake", alone, lambda *_: None, lambda *_: sample(), (column,))
    return Outcome(workload, list(entries))


def test_targets_are_held_against_the_best_peer_of_the_run() -> None:
    outcome = outcome_of(
        entry_of("floor", sample(cpu_per_chunk_us=5, latency_p50_us=1)),
        entry_of("rawstream", sample(cpu_per_chunk_us=20, latency_p50_us=30)),
        entry_of("aiohttp", sample(cpu_per_chunk_us=25, latency_p50_us=20)),
        entry_of("uvicorn-h11", sample(cpu_per_chunk_us=21, latency_p50_us=90)),
        entry_of("go", sample(cpu_per_chunk_us=18, latency_p50_us=25)),
    )
    found = [(each.target.metric, each.against, round(each.ratio, 2), each.met) for each in verdicts([outcome])]
    assert found == [
        ("cpu_per_chunk_us", "uvicorn (h11, asyncio) + Starlette", 0.95, True),
        ("cpu_per_chunk_us", "aiohttp", 0.8, True),
        ("latency_p50_us", "Go's net/http", 1.2, False),
    ]
    assert verdicts([outcome])[2].text().startswith("MISSED paced: latency_p50_us of rawstream is 1.20 × Go")


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


@pytest.mark.parametrize(
    ("costs", "met", "sure"),
    [((16, 17, 18, 19, 19), True, True), ((16, 17, 18, 19, 22), True, False), ((21, 22, 23, 24, 25), False, True)],
)
def test_a_verdict_is_sure_when_every_round_says_the_same(costs: Sequence[float], met: bool, sure: bool) -> None:
    """The ratio is made round by round: what slows a round slows both."""
    slow = [1, 2, 1, 3, 1]
    ours, theirs = (
        [sample(cpu_per_chunk_us=cost * n) for cost, n in zip(values, slow, strict=True)]
        for values in (costs, [20] * 5)
    )
    outcome = outcome_of(entry_of("rawstream", *ours), entry_of("uvicorn", *theirs))
    (found,) = (each for each in verdicts([outcome]) if each.target.metric == "cpu_per_chunk_us")
    assert (found.met, found.sure) == (met, sure)
    assert (found.low, found.ratio, found.high) == (costs[0] / 20, costs[2] / 20, costs[4] / 20)


def test_fewer_than_five_rounds_make_no_verdict_sure() -> None:
    three = [entry_of(name, *[sample(cpu_per_chunk_us=cost)] * 3) for name, cost in (("rawstream", 1), ("uvicorn", 9))]
    assert [found.sure for found in verdicts([outcome_of(*three)])] == [False]


def test_without_a_peer_there_is_no_verdict() -> None:
    assert verdicts([outcome_of(entry_of("rawstream", sample(cpu_per_chunk_us=20, latency_p50_us=30)))]) == []


def test_every_target_is_of_a_workload_and_peers_that_exist() -> None:
    workloads = {workload.name for each in COMMANDS.values() for workload in each}
    assert {target.workload for target in TARGETS} <= workloads
    assert {name for target in TARGETS for name in target.theirs} <= BY_NAME.keys()
