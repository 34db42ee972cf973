"""A peer as a process, what it uses, and what disturbs it."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from benchmark_sizes import CORES

from benchmarks import syscalls
from benchmarks.load import ask
from benchmarks.machine import missing_programs, programs
from benchmarks.noise import calibrate
from benchmarks.process import (
    ROOT,
    DidNotStart,
    Server,
    Usage,
    Window,
    core_busy_ns,
    cpu_ns,
    peak_bytes,
    resident_bytes,
    socket_bytes,
    switches,
    tree,
)
from benchmarks.syscalls import NotTraced, Perf, Strace

pytestmark = pytest.mark.either_loop


def test_the_cpu_time_of_a_process_is_that_of_its_clock() -> None:
    before = time.process_time_ns()
    seen = cpu_ns(os.getpid())
    assert before <= seen <= time.process_time_ns()


def test_memory_and_processes_are_found() -> None:
    assert tree(os.getpid())[0] == os.getpid()
    now = resident_bytes(os.getpid())  # before the peak, which may rise by what looking costs
    assert peak_bytes(os.getpid()) >= now > 1_000_000
    assert socket_bytes() >= 0
    assert core_busy_ns(CORES[0]) > 0


def test_a_core_that_is_not_there_is_named() -> None:
    with pytest.raises(LookupError, match="no core 9999"):
        core_busy_ns(9999)


def test_usage_tells_what_others_took() -> None:
    second = 1_000_000_000
    before = Usage(wall=7, server=7, load=7, server_core=7, stolen=7, voluntary=7, involuntary=7, preempted=7)
    quiet = Usage(7 + 2 * second, 7 + second, 7 + second // 2, 7 + second + 10_000_000, 7, 7, 7, 7) - before
    assert quiet.shares() == {
        "server_busy": 0.5, "reader_busy": 0.25, "noise": 0.0, "steal": 0.0, "load_preempted_per_s": 0.0,
    }  # fmt: skip
    noisy = Usage(2 * second, second, 0, second + second // 2, stolen=second // 5, preempted=50)
    assert (noisy.shares()["noise"], noisy.shares()["steal"], noisy.shares()["load_preempted_per_s"]) == (0.25, 0.1, 25)


def test_context_switches_are_told_for_each_unit() -> None:
    used = Usage(voluntary=30, involuntary=5)
    assert used.per(10) == {"voluntary_switches": 3.0, "involuntary_switches": 0.5}


def test_a_thread_that_waits_switches_voluntarily() -> None:
    before, _ = switches(os.getpid())
    ready = threading.Event()
    thread = threading.Thread(target=ready.wait)
    thread.start()
    try:
        assert switches(os.getpid())[0] >= before, "those of all threads"
    finally:
        ready.set()
        thread.join()
    assert switches(os.getpid())[0] > 0


def test_a_window_tells_what_was_used_between_its_ends() -> None:
    with Server("benchmarks.peers.floor", (), CORES[0]) as server, Window(server, CORES[0]) as window:
        before = time.monotonic_ns()
        ask(server.port, "/first", 10)
    assert window.began <= before
    assert before in window.span
    metrics = window.metrics(2)
    assert metrics.keys() >= {"server_busy", "reader_busy", "voluntary_switches", "involuntary_switches", "steal"}
    assert 0 < window.used.server < window.used.wall
    assert window.used.calls == {}, "no turn for that"


@pytest.mark.parametrize("tool", [Strace, Perf])
def test_system_calls_are_counted_in_a_window(tool: type[Strace] | type[Perf]) -> None:
    if missing_programs([tool.tool]):
        pytest.skip(f"{tool.tool} is not installed")
    try:
        with Server("benchmarks.peers.floor", (), CORES[0], tool()) as server, Window(server, CORES[0]) as window:
            for _ in range(20):
                ask(server.port, "/first", 10)
    except NotTraced as exc:
        pytest.skip(str(exc))
    assert sum(window.used.calls.values()) >= 40, "two sends at least for each"
    if tool is Strace:
        assert window.used.calls["sendto"] >= 40


def test_who_may_not_be_traced_is_told() -> None:
    if missing_programs(["strace"]):
        pytest.skip("strace is not installed")
    with pytest.raises(NotTraced, match="strace could not attach"):
        Strace().start([2**22 - 1])


def test_a_tool_that_does_not_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(syscalls, "_END_SECONDS", 0.01)
    deaf = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); print(flush=True); signal.pause()"
    with subprocess.Popen(
        [sys.executable, "-c", deaf], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(NotTraced, match="it did not end within 0 s"):
            syscalls._interrupt(process)
        assert process.returncode == -signal.SIGKILL


def test_the_fixed_work_comes_back_to_its_cores() -> None:
    before = os.sched_getaffinity(0)
    found = calibrate(CORES[:2])
    assert os.sched_getaffinity(0) == before
    assert found.cpu > 0
    assert 0 <= found.taken < 1


def test_a_peer_that_ends_at_once_says_why() -> None:
    with pytest.raises(DidNotStart, match="No module named"), Server("benchmarks.peers.nobody", (), CORES[0]):
        pass


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("import os; os._exit(3)", "status 3"),
        ("import os; os.kill(os.getpid(), 9)", "signal 9"),
        ("print('Welcome to my server')", "said 'Welcome to my server' instead of its port"),
    ],
)
def test_a_peer_that_does_not_tell_its_port_is_told_by_what_it_did(
    source: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "odd_peer.py").write_text(source, "utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(DidNotStart, match=f"^{words}$"), Server("odd_peer", (), CORES[0]):
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
