"""The command line of the benchmarks: what is planned, kept and shown, also of a run that was cut short."""

from __future__ import annotations

import dataclasses
import errno
import io
import itertools
import json
import os
import resource
import select
import signal
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from benchmark_results import BY_NAME, entry, fake, kept, outcome, paced

import benchmarks.__main__
from benchmarks import cli, page, report, session, turns
from benchmarks.output import NotWritable, claimed
from benchmarks.peers import PEERS
from benchmarks.plan import Plan, turn_seconds
from benchmarks.process import ROOT, Server, tree
from benchmarks.progress import Progress, in_words
from benchmarks.settings import QUICK, Settings
from benchmarks.syscalls import Strace, tracer
from benchmarks.turns import Outcome, enter
from benchmarks.workload import Contender, Sample
from benchmarks.workloads import scale

CORES = sorted(os.sched_getaffinity(0))
SETTINGS = dataclasses.replace(QUICK, server_core=CORES[0], load_core=CORES[-1])


@pytest.fixture(autouse=True)
def files() -> Iterator[None]:
    """A run allows itself as many open files as it can get; the other tests shall not have them."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


# -- options -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "required"),
        (["speed"], "invalid choice: 'speed'"),
        (["latency", "--peers", "rawstream,apache"], "no peer 'apache'; there are: floor, floor-c, rawstream,"),
        (["latency", "--peers", ""], "no peer ''"),
        (["latency", "--workloads", "flush"], "no workload 'flush'; there are: paced, burst, first"),
        (["all", "--rounds", "0"], "'0' is not a number of at least 1"),
        (["all", "--rounds", "²"], "'²' is not a number of at least 1"),
        (["flush", "--peers", "node"], "nobody takes part: of these workloads (flush), none is for these peers: node"),
        (["all", "--minutes", "soon"], "'soon' is not a number"),
        (["all", "--from", "/nowhere/all.json"], "can't read /nowhere/all.json: No such file or directory"),
        (["flush", "--server-core", "x"], "'x' is not the number of a core"),
        (["flush", "--server-core", "9999"], "there is no core 9999"),
        (["flush", "--output", "/proc/nowhere"], "can't write results to /proc/nowhere"),
        (["flush", "--output", "/proc"], "can't write results to /proc: "),
    ],
)
def test_a_wrong_option_is_one_clear_line_and_status_2(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2
    assert words in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("option", [["--seconds", "0"], ["--connections", "-5"]])
def test_slowhttptest_needs_somebody_for_some_time(
    option: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["slowhttptest", *option, "--output", str(tmp_path)]) == 2
    assert capsys.readouterr().err == "--connections and --seconds are numbers of at least 1\n"


def test_a_peer_that_is_named_twice_takes_part_once() -> None:
    options = cli._parser().parse_args(["latency", "--peers", "rawstream,rawstream", "--workloads", "paced,paced"])
    assert [each.name for each in (*options.peers, *options.workloads)] == ["rawstream", "paced"]


def test_where_results_cannot_be_written_is_known_before_anything_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "measure", lambda *_: pytest.fail("measured"))
    (tmp_path / "latency.json").mkdir()
    with pytest.raises(SystemExit) as caught:
        cli.main(["latency", "--output", str(tmp_path)])
    assert caught.value.code == 2
    words = f"can't write results to {tmp_path / 'latency.json'}: Is a directory"
    assert words in capsys.readouterr().err.splitlines()[-1]


def test_a_second_run_that_would_overwrite_the_first_does_not_begin(tmp_path: Path) -> None:
    with claimed(tmp_path, "all"), pytest.raises(NotWritable, match="another run writes to "), claimed(tmp_path, "all"):
        pass
    with claimed(tmp_path, "all"):
        assert list(tmp_path.iterdir()) == [], "nothing is left behind"


def test_what_cannot_be_written_in_the_end_is_printed_all_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "all.html")

    monkeypatch.setattr(page, "write", full)
    assert cli._show(paced(rawstream=[20.0]), tmp_path, keep=True) == 1
    told = capsys.readouterr()
    assert "| **rawstream** | **20 µs** |" in told.out
    assert told.err == "can't write results to all.html: No space left on device\n"
    assert (tmp_path / "all.json").exists()


def test_all_is_every_workload_of_every_command() -> None:
    others = [workload for command, workloads in cli.COMMANDS.items() if command != "all" for workload in workloads]
    assert list(cli.COMMANDS["all"]) == others
    assert {"paced", "burst", "fanout", "idle", "slow", "scale"} <= {workload.name for workload in others}


def test_rawstream_runs_in_its_own_way_where_it_is_scaled() -> None:
    (scale,) = cli.COMMANDS["scale"]
    assert cli.entered(scale, [BY_NAME["aiohttp"]]).entries == []
    modules = {each.contender.peer.module for each in cli.entered(scale, [BY_NAME["rawstream"]]).entries}
    assert modules == {"benchmarks.peers.rawstream_workers"}


def test_a_kept_result_is_shown_again_without_measuring(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = kept(paced(rawstream=[20.0, 21.0, 22.0], aiohttp=[30.0, 31.0, 32.0]), tmp_path / "all.json")
    before = path.read_bytes()
    assert cli.main(["all", "--from", str(path), "--output", str(tmp_path / "shown")]) == 0
    out = capsys.readouterr().out
    assert "| **rawstream** | **21 µs** | **50 µs** |" in out
    assert "1.48×" in out
    names = {found.name for found in (tmp_path / "shown").iterdir()}
    assert {"all.html", "all.md", "paced-cpu-per-chunk-us.svg", "paced-latency.svg"} <= names
    assert "all.json" not in names
    assert path.read_bytes() == before


# -- a plan ------------------------------------------------------------------------------------------------------------


def planned(*names: str) -> list[Outcome]:
    entries = [entry("rawstream", {"cpu_per_chunk_us": []}), entry("aiohttp", {"cpu_per_chunk_us": []})]
    return [outcome(*entries, workload=fake(name)) for name in names]


def test_the_plan_is_told_before_it_is_run() -> None:
    outcomes = planned("paced", "idle")
    settings = dataclasses.replace(Settings(), rounds=4, count_calls=False)
    one, other = (2 * turn_seconds(each.workload, settings) for each in outcomes)
    whole = Plan(outcomes, settings)
    assert (whole.turns, whole.seconds) == (16, 4 * (one + other))
    assert whole.text().splitlines() == [
        f"This takes about {in_words(whole.seconds)}: 4 rounds, each of",
        f"  paced    2 contenders, {one:.0f} s",
        f"  idle     2 contenders, {other:.0f} s",
    ]
    head, *_ = Plan(outcomes, settings, limit=20).text().splitlines()
    assert head == "This takes 20 s: as many rounds as there is time for, up to 4 rounds, each of"
    assert Plan(outcomes, settings, limit=3600).text() == whole.text()


def test_turns_that_count_system_calls_are_planned_too() -> None:
    outcomes = [dataclasses.replace(each, workload=dataclasses.replace(each.workload, counts_calls=True))
                for each in planned("paced")]  # fmt: skip
    with_calls, without = (
        Plan(outcomes, dataclasses.replace(Settings(), count_calls=count)) for count in (True, False)
    )
    assert with_calls.turns - without.turns == (2 if tracer() else 0)
    assert (with_calls.text().splitlines()[-1].startswith("and turns that count")) == bool(tracer())


def test_every_workload_has_an_expected_time() -> None:
    for workload in cli.COMMANDS["all"]:
        assert 0.5 < turn_seconds(workload, QUICK) < 10, workload.name
    paced, *_ = cli.COMMANDS["all"]
    assert turn_seconds(paced, dataclasses.replace(QUICK, paced_seconds=60.0)) > 60


def complete(command: str, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """What is planned where every peer and a tracer is installed, and cores are enough for two workers."""
    monkeypatch.setattr(turns, "missing", lambda _: [])
    monkeypatch.setattr(turns, "missing_programs", lambda _: [])
    monkeypatch.setattr(turns, "tracer", Strace)
    monkeypatch.setattr(scale, "_CORES", {0, 1, 2, 3})
    plan = Plan([cli.entered(workload, PEERS) for workload in cli.COMMANDS[command]], settings)
    states = {entry.state for outcome in plan.outcomes for entry in outcome.entries}
    assert states <= {"measured", "cannot"}
    return plan


@pytest.mark.parametrize("command", [command for command in cli.COMMANDS if command != "all"])
def test_a_quick_look_takes_a_minute_at_most(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert complete(command, QUICK, monkeypatch).seconds <= 60


def test_three_rounds_of_everything_fit_into_the_time_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = dataclasses.replace(Settings(), rounds=report.ENOUGH_ROUNDS)
    assert complete("all", settings, monkeypatch).seconds <= 0.85 * cli.MINUTES * 60, "and the first ones take longer"


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
    assert stream.getvalue() == "[1/2] 10 s  A\n[2/2] 20 s, 20 s left  B\n"


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


def test_what_is_left_is_told_by_what_the_turns_were_expected_to_take() -> None:
    """One turn of 10 s and two of 100 s; the first took twice as long."""
    stream, now = io.StringIO(), [0.0]
    progress = Progress(3, stream, lambda: now[0], expected=210.0)
    progress.each = 10.0
    progress.step("short")
    now[0], progress.each = 20.0, 100.0
    progress.step("long")
    now[0] = 120.0
    progress.step("long again")
    assert stream.getvalue().splitlines()[1:] == [
        "[2/3] 20 s, 7 min left  long",
        "[3/3] 120 s, 2 min left  long again",
    ]


def test_no_more_is_left_than_the_limit_allows_and_turns_can_be_dropped() -> None:
    stream, now = io.StringIO(), [0.0]
    progress = Progress(4, stream, lambda: now[0], limit=25.0)
    progress.step("A")
    now[0] = 10.0
    progress.step("B")
    progress.drop(1)
    now[0] = 20.0
    progress.step("C")
    assert stream.getvalue().splitlines() == ["[1/4] 0 s  A", "[2/4] 10 s, 15 s left  B", "[3/3] 20 s, 5 s left  C"]


# -- a run -------------------------------------------------------------------------------------------------------------


def of(measure: Callable[[Server, Contender, Settings], Sample], rounds: int = 1, limit: float | None = None) -> Plan:
    """A run of one contender that is a server of nothing, in two workloads."""
    floor = dataclasses.replace(BY_NAME["floor"], workloads=frozenset({"one", "two"}))
    workloads = [dataclasses.replace(fake(name), measure=measure) for name in ("one", "two")]
    settings = dataclasses.replace(SETTINGS, rounds=rounds)
    return Plan([enter(workload, [floor]) for workload in workloads], settings, limit)


def test_every_workload_has_a_round_before_any_has_another() -> None:
    stream, count = io.StringIO(), itertools.count(1)
    found = session.measure("all", of(lambda *_: Sample({"cpu_per_chunk_us": next(count)}), rounds=2), stream)
    assert json.loads(json.dumps(found)) == found
    assert found["workloads"]["one"]["contenders"]["floor"]["summary"]["cpu_per_chunk_us"]["median"] == 2.0
    assert "interrupted" not in found
    steps = [line.partition(" s")[2].split("  ")[1] for line in stream.getvalue().splitlines()]
    assert steps == [f"{name}: floor (bare send loop) (round {n})" for n in (1, 2) for name in ("one", "two")]


def test_from_the_fourth_round_on_the_shortest_workload_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """So as many as possible have all their rounds when the time is up."""
    seconds, now, rounds = {"one": 10.0, "two": 1.0}, [0.0], []

    def play_round(outcome: Outcome, number: int, *_: object) -> None:
        now[0] += seconds[outcome.workload.name]
        rounds.append((outcome.workload.name, number))

    monkeypatch.setattr(session, "play_round", play_round)
    monkeypatch.setattr(session, "time", types.SimpleNamespace(monotonic=lambda: now[0]))
    session.measure("all", of(lambda *_: Sample({}), rounds=5, limit=50), io.StringIO())
    early = [(name, n) for n in (1, 2, 3) for name in ("one", "two")]
    assert rounds == [*early, ("two", 4), ("two", 5), ("one", 4)]


def test_a_fault_of_the_benchmarks_does_not_take_what_was_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    turns = itertools.count(1)

    def measure(*_: object) -> Sample:
        if next(turns) == 2:
            raise RuntimeError("nobody had thought of this")
        return Sample({"cpu_per_chunk_us": 3.0, "noise": 0.0})

    monkeypatch.setattr(cli, "_plan", lambda *_: of(measure))
    assert cli.main(["all", "--output", str(tmp_path)]) == 1
    words = "in round 1 of two, by RuntimeError: nobody had thought of this. The rest was not measured."
    assert words in capsys.readouterr().err
    found = json.loads((tmp_path / "all.json").read_text("utf-8"))
    assert found["workloads"]["one"]["contenders"]["floor"]["samples"]


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_whatever_ends_a_run_from_outside_leaves_a_result_and_no_server(ending: int, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks", "latency", "--quick", "--rounds", "9", "--workloads", "first"]
    options = ["--peers", "floor", "--output", str(tmp_path)]
    with subprocess.Popen(
        [*command, *options], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as run:
        assert run.stderr is not None
        while not run.stderr.readline().startswith("[2/"):
            pass  # the second turn: the first is a result
        while not (pids := tree(run.pid)[1:]):
            pass  # it looks at the machine, and then starts the server
        servers = [os.pidfd_open(pid) for pid in pids]
        run.send_signal(ending)
        out, err = run.communicate(timeout=60)
    assert (run.returncode, err.splitlines()[-1].startswith("Interrupted after ")) == (130, True)
    assert "Traceback" not in err
    assert "floor (bare send loop)" in out
    assert json.loads((tmp_path / "latency.json").read_text("utf-8"))["workloads"]["first"]["contenders"]["floor"][
        "samples"
    ]
    ended, _, _ = select.select(servers, [], [], 30)
    assert ended == servers
    for server in servers:
        os.close(server)


def test_an_interruption_before_there_is_a_result_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted() -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(cli, "main", interrupted)
    assert benchmarks.__main__.run() == 130
    assert capsys.readouterr().err == "Interrupted before there was a result.\n"


def test_a_reader_that_reads_no_further_is_no_fault(tmp_path: Path) -> None:
    path = kept(paced(rawstream=[20.0]), tmp_path / "all.json")
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "benchmarks", "compare", str(path), str(path)]
    try:
        done = subprocess.run(command, cwd=ROOT, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=60)
    finally:
        os.close(writer)
    assert done.returncode == 141
    assert "Traceback" not in done.stderr
    assert "Broken" not in done.stderr


def test_an_interruption_while_system_calls_are_counted_says_that_all_rounds_are_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(session, "count_calls", interrupted)
    found = session.measure("all", of(lambda *_: Sample({"cpu_per_chunk_us": 1.0})), io.StringIO())
    assert found["interrupted"].endswith("with all rounds over, while the system calls of one were counted.")


def test_rounds_for_which_there_is_no_time_are_left_out() -> None:
    found = session.measure(
        "all", of(lambda *_: Sample({"cpu_per_chunk_us": 1.0}), rounds=50, limit=0.01), io.StringIO()
    )
    assert report.rounds_of(found) == (1, 1)


def test_what_was_measured_before_an_interruption_is_kept_and_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    turns = itertools.count(1)

    def measure(*_: object) -> Sample:
        if next(turns) == 2:
            raise KeyboardInterrupt
        return Sample({"cpu_per_chunk_us": 3.0, "noise": 0.0})

    monkeypatch.setattr(cli, "_plan", lambda *_: of(measure))
    assert cli.main(["all", "--output", str(tmp_path)]) == 130
    told = capsys.readouterr()
    assert "in round 1 of two. The rest was not measured." in told.err
    assert "floor (bare send loop): no turn yet" in told.out
    found = json.loads((tmp_path / "all.json").read_text("utf-8"))
    assert found["interrupted"].endswith("in round 1 of two.")
    assert found["workloads"]["one"]["contenders"]["floor"]["samples"]
    source = (tmp_path / "all.html").read_text("utf-8")
    assert "This run was interrupted after" in source
    assert "no turn yet" in source
    assert os.sched_getaffinity(0) == set(CORES)
