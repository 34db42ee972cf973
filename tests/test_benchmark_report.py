"""What the benchmarks keep as JSON, and show on a terminal."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from benchmark_results import dropped, entry, fake, kept, outcome, paced, result

from benchmarks import metrics, report
from benchmarks.kept import Unreadable, read
from benchmarks.workload import Column


def test_the_json_holds_every_sample_and_its_summary() -> None:
    found = paced(aiohttp=[30.0, 33.0, 60.0], rawstream=[20.0, 22.0, 20.0])
    assert found["format"] == report.FORMAT
    assert found["settings"]["paced_readers"] == 200
    part = found["workloads"]["paced"]
    assert part["baseline"] == "rawstream"
    assert [column["metric"] for column in part["columns"]] == ["cpu_per_chunk_us"]
    aiohttp = part["contenders"]["aiohttp"]
    assert [sample["cpu_per_chunk_us"] for sample in aiohttp["samples"]] == [30.0, 33.0, 60.0]
    assert aiohttp["summary"]["cpu_per_chunk_us"]["median"] == 33.0
    assert aiohttp["ratios"]["cpu_per_chunk_us"]["median"] == 1.5
    assert aiohttp["curves"]["latency"][0] == [0.0, 20.0]
    assert aiohttp["noisy"] == [[], [], []]
    assert aiohttp["reader_limited"] is False


def test_the_table_shows_ratios_and_names_who_is_missing() -> None:
    ours, theirs = ({"cpu_per_chunk_us": values} for values in ([20.0, 22.0, 20.0], [30.0, 33.0, 60.0]))
    nobody = dropped("uvicorn", "missing", "not installed: uvicorn")
    text = report.tables(result(outcome(entry("aiohttp", theirs), entry("rawstream", ours), nobody)))
    lines = text.splitlines()
    assert any("aiohttp" in line and "33.0 (30.0–60.0)" in line and "1.50×" in line for line in lines)
    assert any("rawstream" in line and "20.0 (20.0–22.0)" in line and "1.00×" in line for line in lines)
    assert "uvicorn (httptools, uvloop) + Starlette: missing (not installed: uvicorn)" in text
    assert "5.0 µs a read" in text
    assert "3 rounds" in text
    assert "\nTargets\n  met    paced: " in text
    assert "noisy" not in text.lower()
    assert "may be the limit" not in text


def test_the_report_says_when_the_run_was_noisy() -> None:
    disturbed = entry(
        "aiohttp", {"cpu_per_chunk_us": [30.0, 31.0, 32.0]}, noisy=("others took 30% of the server's core",)
    )
    text = report.tables(result(outcome(disturbed, entry("rawstream", {"cpu_per_chunk_us": [20.0, 20.0, 20.0]}))))
    assert "Noisy: 3 of 6 samples (3 × others took … of the server's core)" in text
    assert "\nTargets (in a noisy run: don't trust a verdict)\n" in text


def test_the_report_says_when_the_cores_were_mostly_slow() -> None:
    mostly = result(outcome(entry("rawstream", {"calibration_us": [600.0, 1100.0, 1150.0, 1200.0, 1250.0]})))
    assert "The cores were mostly 1.9 times slower than at their best" in report.tables(mostly)
    steady = result(outcome(entry("rawstream", {"calibration_us": [600.0, 610.0, 620.0]})))
    assert "than at their best" not in report.tables(steady)


def test_the_report_says_how_far_an_interval_is_to_be_trusted() -> None:
    found = result(
        outcome(entry("rawstream", {"cpu_per_chunk_us": [1.0] * 5})),
        outcome(entry("rawstream", {"cpu_per_chunk_us": [1.0] * 3}), workload=fake("other")),
    )
    assert "the interval of a ratio holds the true one with 75% to 94%" in report.tables(found)


def test_the_report_says_when_the_reader_may_be_the_limit() -> None:
    text = report.tables(result(outcome(entry("rawstream", {"cpu_per_chunk_us": [20.0], "reader_busy": [0.95]}))))
    assert "may be the limit, for: rawstream (paced)" in text


def test_the_report_says_who_was_not_busy_when_it_should_be() -> None:
    entries = [entry("rawstream", {"fast_server_busy": [0.7]}), entry("aiohttp", {"fast_server_busy": [0.97]})]
    found = result(outcome(*entries, workload=fake("fast")))
    (note,) = [line for line in report.notes(found) if "could have gone faster" in line]
    assert note.endswith(": rawstream (fast).")


def test_a_metric_that_only_some_have_is_left_open_for_the_others() -> None:
    workload = fake("lag", Column("lag_p99_us", "lag p99 µs", ratio=True))
    entries = [entry("rawstream", {"cpu_per_chunk_us": [1.0]}), entry("aiohttp", {"lag_p99_us": [70.0]})]
    lines = report.tables(result(outcome(*entries, workload=workload))).splitlines()
    assert any(line.split() == ["rawstream", "–"] for line in lines)
    assert any("70 (70–70)" in line and line.endswith("–") for line in lines)


def test_without_rawstream_the_first_peer_is_the_base() -> None:
    found = outcome(entry("aiohttp", {"cpu_per_chunk_us": [2.0]}), entry("floor", {"cpu_per_chunk_us": [1.0]}))
    assert report.baseline(found.measured) is found.entries[0]
    assert report.baseline([]) is None


def test_a_run_without_any_answer_still_reports() -> None:
    found = result(outcome(dropped("aiohttp", "wrong", "status 500 instead of 200")))
    assert "aiohttp: wrong (status 500 instead of 200)" in report.tables(found)
    assert report.rounds_of(found) == (0, 0)


def test_who_had_no_turn_before_an_interruption_is_named() -> None:
    late = entry("aiohttp", {"cpu_per_chunk_us": []})
    found = result(outcome(entry("rawstream", {"cpu_per_chunk_us": [20.0]}), late), interrupted="after 9 s, in paced.")
    text = report.tables(found)
    assert "aiohttp: no turn yet" in text
    assert "Interrupted: after 9 s, in paced." in text


def test_workloads_may_have_had_different_numbers_of_rounds() -> None:
    found = result(
        outcome(entry("rawstream", {"cpu_per_chunk_us": [1.0] * 5})),
        outcome(entry("rawstream", {"cpu_per_chunk_us": [1.0] * 3}), workload=fake("other")),
    )
    assert report.rounds_of(found) == (3, 5)
    assert report.rounds_in_words(found) == "3 to 5 rounds"
    assert report.rounds_in_words(paced(rawstream=[1.0])) == "1 round"


def test_what_was_kept_is_read_again(tmp_path: Path) -> None:
    found = paced(rawstream=[20.0])
    assert read(kept(found, tmp_path / "a.json")) == found


def changed(**others: object) -> str:
    """A result with some of its parts replaced."""
    return json.dumps(paced(rawstream=[20.0]) | others)


EMPTY: dict[str, object] = {"title": "", "unit": "", "columns": [], "contenders": {}}
HALF = {"title": "", "peer": "", "variant": "", "state": "measured", "samples": []}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "can't read"),
        ("{", "is no JSON: "),
        ("[1]", "is not a result of the benchmarks"),
        ('{"results": []}', "is not a result of the benchmarks"),
        (json.dumps({"format": 1, "workloads": {}, "settings": {}}), "has format 1, and this reads format"),
        (json.dumps({"format": 2, "workloads": {}, "settings": {}}), "benchmarks: there is no command"),
        (changed(workloads=[]), "benchmarks: workloads is no object"),
        (changed(targets={}), "benchmarks: targets is no list"),
        (changed(targets=[{}]), "benchmarks: there is no targets.0.text"),
        (changed(machine={"processor": "a", "cores": "2"}), "benchmarks: machine.cores is '2'"),
        (changed(workloads={"paced": {}}), "benchmarks: there is no workloads.paced.title"),
        (changed(workloads={"x": EMPTY | {"contenders": {"a": {}}}}), "there is no workloads.x.contenders.a.title"),
        (changed(workloads={"x": EMPTY | {"contenders": {"a": HALF}}}), "there is no workloads.x.contenders.a.noisy"),
    ],
)
def test_what_is_no_result_is_told_in_a_line(content: str | None, words: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    if content is not None:
        path.write_text(content, "utf-8")
    with pytest.raises(Unreadable) as caught:
        read(path)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


# -- what the name of a metric tells -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("metric", "value", "shown"),
    [
        ("latency_p50_us", 0.0, "0 µs"),
        ("latency_p50_us", 32.54, "32.5 µs"),
        ("latency_p50_us", 999.7, "1 ms"),
        ("latency_p50_us", 1_234_000.0, "1.23 s"),
        ("memory_bytes", 5.0, "5 B"),
        ("memory_bytes", 8 * 1024, "8 KiB"),
        ("memory_bytes", 27.5 * 2**20, "27.5 MiB"),
        ("growth_per_slow_bytes", -2048, "-2 KiB"),
        ("events_per_s", 307_361.0, "307,361/s"),
        ("events_per_s", 1_600_000.0, "1.6 M/s"),
        ("idle_cpu", 0.0123, "1.2%"),
        ("reader_busy", 0.5, "50%"),
        ("others_p99_ratio", 1.25, "1.25"),
        ("reads", 33_567.0, "33,567"),
    ],
)
def test_a_value_is_shown_with_its_unit(metric: str, value: float, shown: str) -> None:
    assert metrics.show(metric, value) == shown


def test_of_a_rate_more_is_better_and_of_a_cost_less() -> None:
    assert metrics.more_is_better("events_per_s")
    assert metrics.more_is_better("delivered")
    assert not metrics.more_is_better("cpu_per_chunk_us")


def test_what_says_how_a_sample_was_taken_is_not_the_servers() -> None:
    assert metrics.is_of_the_server("latency_p99_us")
    assert not any(map(metrics.is_of_the_server, ["noise", "reader_busy", "connections", "events_per_chunk"]))


def test_a_metric_without_a_name_of_its_own_is_called_as_it_is() -> None:
    assert metrics.name("cpu_per_chunk_us") == "CPU time for each chunk"
    assert metrics.name("something_new_us") == "something new us"
