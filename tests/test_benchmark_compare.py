"""`python -m benchmarks compare`: what it calls a change, and what its exit status is."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path

import pytest
from benchmark_results import dropped, entry, fake, kept, outcome, paced, result

from benchmarks import cli, report
from benchmarks.changes import Wanted, changes
from benchmarks.targets import TARGETS
from benchmarks.workload import Column

STEADY = [20.0, 20.2, 20.4, 20.6, 20.8]


@pytest.fixture
def compare(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> object:
    """Compares two results: exit status, output, errors."""

    def run(before: report.Json, after: report.Json, *options: str) -> tuple[int, str, str]:
        one, other = kept(before, tmp_path / "a.json"), kept(after, tmp_path / "b.json")
        status = cli.main(["compare", str(one), str(other), *options])
        found = capsys.readouterr()
        return status, found.out, found.err

    return run


def scaled(values: Sequence[float], factor: float) -> list[float]:
    return [value * factor for value in values]


def rates(*values: float) -> report.Json:
    workload = fake("burst", Column("events_per_s", "events/s", ratio=True))
    return result(outcome(entry("rawstream", {"events_per_s": values}), workload=workload))


def test_the_same_twice_is_no_change(compare) -> None:
    found = paced(rawstream=STEADY)
    status, out, err = compare(found, found)
    assert (status, out, err) == (0, "No figure has changed past the threshold.\n1 unchanged\n", "")


def test_a_cost_that_rose_is_worse_and_fails(compare) -> None:
    status, out, _ = compare(paced(rawstream=STEADY), paced(rawstream=scaled(STEADY, 1.3)))
    assert status == 1
    (line,) = [line for line in out.splitlines() if "WORSE" in line]
    assert " ".join(line.split()) == (
        "rawstream CPU time for each chunk 20.4 µs (20 µs–20.8 µs) → 26.5 µs (26 µs–27 µs) +30.0% WORSE"
    )
    assert "rawstream got worse in 1 of the figures that decide." in out


def test_a_cost_that_fell_is_better(compare) -> None:
    status, out, _ = compare(paced(rawstream=STEADY), paced(rawstream=scaled(STEADY, 0.7)))
    assert (status, "better" in out, "-30.0%" in out) == (0, True, True)


def test_of_a_rate_less_is_worse(compare) -> None:
    assert compare(rates(*scaled(STEADY, 2)), rates(*STEADY))[0] == 1
    assert compare(rates(*STEADY), rates(*scaled(STEADY, 2)))[0] == 0


def test_a_change_below_the_threshold_is_none(compare) -> None:
    before, after = paced(rawstream=STEADY), paced(rawstream=scaled(STEADY, 1.08))
    assert compare(before, after)[0] == 0
    assert compare(before, after, "--threshold", "5%")[0] == 1
    assert compare(before, after, "--threshold", "8.5")[0] == 0


def test_a_change_within_the_spread_of_the_rounds_is_unsure(compare) -> None:
    status, out, _ = compare(paced(rawstream=[10, 15, 20, 25, 30]), paced(rawstream=[15, 20, 25, 30, 35]))
    assert (status, "unsure" in out, "+25.0%" in out) == (0, True, True)


def test_rounds_must_not_overlap_at_all(compare) -> None:
    assert compare(paced(rawstream=[20, 20, 20, 20, 26]), paced(rawstream=[25, 27, 27, 27, 28]))[0] == 0
    assert compare(paced(rawstream=[20, 20, 20, 20, 24]), paced(rawstream=[25, 27, 27, 27, 28]))[0] == 1


@pytest.mark.parametrize(("before", "after", "status"), [(3, 3, 0), (4, 4, 0), (3, 5, 0), (4, 5, 1), (5, 4, 1)])
def test_fewer_rounds_decide_nothing_and_it_says_so(before: int, after: int, status: int, compare) -> None:
    """Dealt at random, three and three are apart one time in 20, four and four in 70, four and five in 126."""
    found, out, err = compare(paced(rawstream=[20] * before), paced(rawstream=[90] * after))
    assert (found, "unsure" in out) == (status, status == 0)
    assert ("not enough rounds to tell in paced: " in err) == (status == 0)


# -- what is chance, and what is not -----------------------------------------------------------------------------------


FIGURES = sorted({(target.workload, target.metric) for target in TARGETS})
ALL = Wanted()


def run(chance: random.Random, noise: float, times: float = 1.0) -> report.Json:
    """Five rounds of every figure that decides, on both loops; each value is off by some `noise`."""
    parts = {workload: [metric for name, metric in FIGURES if name == workload] for workload, _ in FIGURES}
    return result(
        *(
            outcome(
                *(
                    entry(peer, {name: [chance.lognormvariate(0, noise) * times for _ in range(5)] for name in figures})
                    for peer in ("rawstream", "rawstream-uvloop")
                ),
                workload=fake(workload, *(Column(metric, metric) for metric in figures)),
            )
            for workload, figures in parts.items()
        )
    )


@pytest.mark.parametrize("noise", [0.03, 0.1, 0.3])
def test_two_runs_of_the_same_rarely_fail(noise: float) -> None:
    chance = random.Random(1)
    failed = 0
    for _ in range(40):
        before, after = run(chance, noise), run(chance, noise)
        failed += any(map(ALL.decides, changes(before, after, ALL)))
    assert failed <= 0.2 * 40, "each of 28 figures one time in 252, if nothing but noise is left of all of them"


@pytest.mark.parametrize(("noise", "times"), [(0.01, 1.12), (0.03, 1.2)])
def test_five_rounds_find_what_got_worse_by_so_much(noise: float, times: float) -> None:
    chance = random.Random(1)
    missed = 0
    for _ in range(40):
        before, after = (
            paced(rawstream=[chance.gauss(20 * each, 20 * noise) for _ in range(5)]) for each in (1, times)
        )
        missed += not any(map(ALL.decides, changes(before, after, ALL)))
    assert missed <= 4


def test_what_no_target_names_is_shown_and_decides_only_where_it_is_asked_for(compare) -> None:
    workload = fake("paced", Column("latency_p99_us", "p99"))
    before, after = (
        result(outcome(entry("rawstream", {"latency_p99_us": values}), workload=workload))
        for values in (STEADY, scaled(STEADY, 2))
    )
    status, out, _ = compare(before, after)
    assert (status, "WORSE" in out) == (0, True)
    assert "rawstream got worse in 1 of its figures; none decides, and of so many some do by chance." in out
    assert compare(before, after, "--metrics", "latency_p99_us")[0] == 1


def test_who_no_longer_keeps_up_fails(compare) -> None:
    workload = fake("paced", Column("delivered", "delivered"))
    before, after = (
        result(outcome(entry("rawstream", {"delivered": values}), workload=workload))
        for values in ([1.0, 1.0, 0.99, 1.0, 1.01], [0.5, 0.51, 0.52, 0.53, 0.54])
    )
    assert compare(before, after)[0] == 1


# -- what is gone ------------------------------------------------------------------------------------------------------


def test_who_is_broken_after_is_named_and_fails_if_it_is_rawstream(compare) -> None:
    before = paced(rawstream=STEADY, aiohttp=STEADY)
    broken = outcome(
        dropped("rawstream", "wrong", "7 events instead of 8"), entry("aiohttp", {"cpu_per_chunk_us": STEADY})
    )
    status, out, _ = compare(before, result(broken))
    assert status == 1
    assert out.startswith("Gone: paced: rawstream (wrong: 7 events instead of 8)\n")
    assert "Something of rawstream is gone." in out
    assert compare(before, result(broken), "--peers", "aiohttp")[0] == 0
    status, out, _ = compare(before, paced(rawstream=STEADY))
    assert (status, out.splitlines()[0]) == (0, "Gone: paced: aiohttp (did not take part)")
    alone = outcome(dropped("rawstream", "failed", "did not start: no"))
    assert compare(paced(rawstream=STEADY), result(alone))[0] == 1, "even where nothing is left to compare"
    late = outcome(entry("rawstream", {"cpu_per_chunk_us": []}))
    assert "Gone: paced: rawstream (had no turn)\n" in compare(paced(rawstream=STEADY), result(late))[1]


def test_a_workload_that_is_gone_is_one_line(compare) -> None:
    ours, theirs = (entry(name, {"cpu_per_chunk_us": STEADY}) for name in ("rawstream", "aiohttp"))
    both = result(outcome(ours, theirs), outcome(ours, theirs, workload=fake("other")))
    status, out, _ = compare(both, result(outcome(ours, theirs)))
    assert (status, [line for line in out.splitlines() if "Gone" in line]) == (1, ["Gone: other: all of it"])
    assert compare(both, result(outcome(ours, theirs)), "--workloads", "paced")[0] == 0
    assert compare(result(outcome(ours, theirs)), both)[0] == 0, "what is new is no loss"


def test_another_server_that_got_worse_fails_nothing(compare) -> None:
    before = paced(rawstream=STEADY, aiohttp=STEADY)
    status, out, _ = compare(before, paced(rawstream=STEADY, aiohttp=scaled(STEADY, 2)))
    assert (status, "WORSE" in out) == (0, True)


def test_what_slowed_everybody_down_is_no_change_relative_to_the_floor(compare) -> None:
    before = paced(rawstream=STEADY, floor=[5.0] * 5)
    after = paced(rawstream=scaled(STEADY, 1.5), floor=[7.5] * 5)
    assert compare(before, after)[0] == 1
    status, out, _ = compare(before, after, "--relative-to", "floor", "--all")
    assert status == 0
    assert "4.08× (4.00×–4.16×)  → 4.08× (4.00×–4.16×)" in out


def test_what_is_not_above_nothing_has_no_ratio(compare) -> None:
    workload = fake("other", Column("growth_per_slow_bytes", "growing"))
    before, after = (
        result(outcome(entry("rawstream", {"growth_per_slow_bytes": values}), workload=workload))
        for values in ([0.0] * 5, [500.0] * 5)
    )
    status, out, _ = compare(before, after, "--all")
    assert (status, "–  unsure" in out) == (0, True)
    assert "–  unchanged" in compare(before, before, "--all")[1]


def test_what_has_not_changed_is_shown_when_asked_for(compare) -> None:
    found = paced(rawstream=STEADY)
    assert "+0.0%  unchanged" in compare(found, found, "--all")[1]


def test_only_some_of_it_can_be_compared(compare) -> None:
    before = paced(rawstream=STEADY, aiohttp=STEADY)
    after = paced(rawstream=scaled(STEADY, 2), aiohttp=STEADY)
    assert compare(before, after, "--peers", "aiohttp")[0] == 0
    assert compare(before, after, "--metrics", "latency_p50_us")[0] == 0
    assert compare(before, after, "--workloads", "paced")[0] == 1
    status, _, err = compare(before, after, "--relative-to", "go", "--peers", "aiohttp")
    assert status == 2
    (line,) = err.splitlines()
    assert line.startswith("Nothing to compare with --peers aiohttp --relative-to go: ")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--workloads", "paced,pacde"], "no workload 'pacde' in either result; there are: paced"),
        (["--peers", "rawstream,apache"], "no peer 'apache' in either result; there are: rawstream"),
        (
            ["--metrics", "cpu_per_chunk_us,cpu"],
            "no metric 'cpu' in either result; there are: cpu_per_chunk_us, latency",
        ),
    ],
)
def test_a_name_that_stands_in_no_result_is_an_error(options: list[str], words: str, compare) -> None:
    status, out, err = compare(paced(rawstream=STEADY), paced(rawstream=STEADY), *options)
    assert (status, out) == (2, "")
    assert err.startswith(words)


def test_results_of_different_workloads_have_nothing_in_common(compare) -> None:
    status, _, err = compare(paced(rawstream=STEADY), rates(1, 2, 3))
    (line,) = err.splitlines()
    assert status == 2
    assert line.endswith("a.json has paced; " + line.split("; ")[1])
    assert line.endswith("b.json has burst")


@pytest.mark.parametrize("content", ["", "[]", json.dumps({"format": 1, "workloads": {}, "settings": {}})])
def test_what_is_no_result_ends_with_status_2(content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, bad = kept(paced(rawstream=STEADY), tmp_path / "a.json"), tmp_path / "b.json"
    bad.write_text(content, "utf-8")
    assert cli.main(["compare", str(good), str(bad)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{bad} ")


def test_another_machine_version_or_size_and_noise_are_told(compare) -> None:
    noisy = outcome(entry("rawstream", {"cpu_per_chunk_us": STEADY}, noisy=("others took 9% of a core",)))
    before = paced(rawstream=STEADY)
    after = result(
        noisy,
        machine={"processor": "another", "cores": 2, "system": "Linux 6", "architecture": "x86_64"},
        versions={"python": "3.13.0", "uvloop": None, "aiohttp": "3.12"},
        interrupted="after 9 s, in the workload burst.",
    )
    after["settings"]["paced_seconds"] = 1.0
    status, _, err = compare(before, after)
    assert status == 0
    assert err.splitlines() == [
        "Careful: other machine: processor a processor → another",
        "Careful: other versions: aiohttp none → 3.12, python 3.11.7 → 3.13.0",
        f"Careful: other sizes: paced_seconds {before['settings']['paced_seconds']} → 1.0",
        "Careful: the run after was noisy in 5 of 5 samples",
        "Careful: the run after was interrupted after 9 s, in the workload burst.",
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("much", "'much' is not a percentage"),
        ("-5%", "at least 0"),
        ("nan", ""),
        ("0.05", "'0.05' is less than 1 %: write 0.05% if that is meant, else 5%"),
    ],
)
def test_a_threshold_is_a_percentage(text: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["compare", "a.json", "b.json", f"--threshold={text}"])
    assert caught.value.code == 2
    assert words in capsys.readouterr().err
