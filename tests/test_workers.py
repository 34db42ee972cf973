"""Several processes on one socket: started, started again, told to end, and never left behind."""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import socket
import ssl
import threading
from pathlib import Path

import pytest
import trustme
from processes import Running, ask, read_rest, read_until, running
from redis_server import RedisServer

LOOPS = ["asyncio", "uvloop"]

MODULE = """
import asyncio
import os
import sys

from rawstream import Response, Router

if os.path.exists("broken"):
    os._exit(3)

router = Router()

@router.get("/")
async def who(request):
    return Response.text(str(os.getpid()))

@router.get("/polite")
async def polite(request):
    yield f"{os.getpid()}\\n"
    await request.closing.wait()
    yield "bye"

@router.get("/patient")
async def patient(request):
    yield f"{os.getpid()}\\n"
    await request.closing.wait()
    yield "closing"
    while not os.path.exists("enough"):
        await asyncio.sleep(0.01)
    yield "bye"

@router.get("/stubborn")
async def stubborn(request):
    yield f"{os.getpid()}\\n"
    await asyncio.get_running_loop().create_future()
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a module to serve, and in it the current one."""
    (tmp_path / "module.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def workers(count: int, *arguments: str) -> list[str]:
    """The arguments for so many workers that serve the module."""
    return ["serve", "module:router", "--workers", str(count), *arguments]


def on(port: int = 0) -> list[str]:
    return ["--port", str(port)]


def opened(sock: socket.socket, target: str) -> int:
    """Open a stream; the process that serves it."""
    sock.sendall(f"GET {target} HTTP/1.1\r\nHost: test\r\nAccept: text/plain\r\n\r\n".encode())
    answer = read_until(sock, b"\n\r\n")
    return int(answer.split(b"\r\n\r\n")[1].split(b"\r\n")[1])


def are_gone(processes: list[int]) -> bool:
    """They have ended, or do within ten seconds; whether anybody has taken note of it does not matter."""
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            descriptor = os.pidfd_open(process)
            ended, _, _ = select.select([descriptor], [], [], 10)
            os.close(descriptor)
            if not ended:
                return False
    return True


def served_by(port: int) -> int:
    with socket.create_connection(("127.0.0.1", port), timeout=60) as sock:
        return int(ask(sock).rpartition(b"\r\n\r\n")[2])


def until_refused(server: Running) -> None:
    """Wait until the last of the processes, be it the parent, has closed the listening socket."""
    with pytest.raises(ConnectionRefusedError):
        while True:
            with server.connect() as late:
                read_rest(late)


# -- the start ---------------------------------------------------------------------------------------------------------


def test_workers_say_who_they_are_and_the_parent_where_they_listen(project: Path) -> None:
    with running(*workers(3, "--loop", "asyncio"), *on()) as server:
        assert sorted(line.rpartition(" ")[0] for line in server.before) == [
            "worker 1 of 3: pid", "worker 2 of 3: pid", "worker 3 of 3: pid",
        ]  # fmt: skip
        assert server.first_line.endswith(" (asyncio, 3 workers)")
        assert len({*server.workers, server.process.pid}) == 4
        assert served_by(server.port) in server.workers
        server.signal(signal.SIGTERM)
        assert server.end() == (0, "")
        assert are_gone(server.workers)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (
            "import absent",
            "rawstream: module 'failing' cannot be imported: No module named 'absent' ({file}, line 1)\n",
        ),
        ("import os; os._exit(7)", "rawstream: a worker ended before it served (with status 7)\n"),
    ],
)
def test_a_module_that_does_not_let_a_worker_start_is_told_once(project: Path, source: str, said: str) -> None:
    Path("failing.py").write_text(source)
    with running("serve", "failing:router", "--workers", "2", *on()) as server:
        status, rest = server.end()
    assert status == 2
    assert "".join(f"{line}\n" for line in [*server.before, server.first_line] if line) + rest == said.format(
        file=project / "failing.py"
    )


def test_a_place_that_cannot_be_had_is_told_by_the_parent(project: Path) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as other,
        running(*workers(2), *on(other.getsockname()[1])) as server,
    ):
        assert server.end() == (2, "")
        [line] = server.before
        assert line.endswith(": it is in use already; choose another one, or stop who uses it")


def test_workers_serve_https_on_an_inherited_socket(project: Path) -> None:
    authority = trustme.CA()
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path("both.pem")
    context = ssl.create_default_context()
    authority.configure_trust(context)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        place = ["--fd", str(listener.fileno()), "--certfile", "both.pem"]
        with running(*workers(2, *place), pass_fds=[listener.fileno()]) as server:
            assert " listening on https://127.0.0.1:" in server.first_line
            with context.wrap_socket(server.connect(), server_hostname="127.0.0.1") as client:
                assert int(ask(client).rpartition(b"\r\n\r\n")[2]) in server.workers
            server.signal(signal.SIGTERM)
            assert server.end() == (0, "")


def test_workers_on_a_unix_socket_log_requests_and_bytes_and_the_parent_removes_its_file(project: Path) -> None:
    with running(*workers(2, "--uds", "a.sock", "--access-log", "--wire")) as server:
        assert " listening on unix:a.sock (" in server.first_line
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(60)
            client.connect("a.sock")
            assert int(ask(client).rpartition(b"\r\n\r\n")[2]) in server.workers
        server.signal(signal.SIGTERM)
        status, said = server.end()
    assert status == 0
    assert said.count('"GET / HTTP/1.1" 200 ') == 1
    assert said.count(" --> received ") == 1
    assert not Path("a.sock").exists()


# -- death -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loop", LOOPS)
def test_a_worker_that_is_killed_comes_back_and_the_others_go_on_serving(project: Path, loop: str) -> None:
    stop = threading.Event()
    answers: list[int] = []
    comers: list[int] = []

    def load() -> None:
        while not stop.is_set():
            try:
                answers.append(served_by(server.port))
            except (OSError, ValueError):
                pass  # the one that was killed had it

    with running(*workers(2, "--loop", loop), *on()) as server:
        threads = [threading.Thread(target=load) for _ in range(4)]
        for thread in threads:
            thread.start()
        try:
            for pid in server.workers:
                os.kill(pid, signal.SIGKILL)
                assert re.fullmatch(
                    r"worker [12] of 2 ended \(by SIGKILL\); it is started again in 0.1 s", server.line()
                )
                comers.append(int(server.line().rpartition(": pid ")[2]))
        finally:
            stop.set()
            for thread in threads:
                thread.join(20)
        assert {*answers} <= {*server.workers, *comers}
        for pid in comers:  # each of those that are alive serves
            while served_by(server.port) != pid:
                pass
        server.signal(signal.SIGTERM)
        assert server.end() == (0, "")
        assert are_gone([*server.workers, *comers])


def test_a_worker_that_dies_again_and_again_is_started_less_and_less_often(project: Path) -> None:
    with running(*workers(2), *on()) as server:
        first, second = server.workers
        Path("broken").touch()
        os.kill(second, signal.SIGKILL)
        number = server.before.index(f"worker 2 of 2: pid {second}") + 1
        assert server.line() == f"worker {number} of 2 ended (by SIGKILL); it is started again in 0.1 s"
        assert server.line() == "worker 2 of 2 ended (with status 3); it is started again in 0.2 s"
        assert served_by(server.port) == first
        assert server.line() == "worker 2 of 2 ended (with status 3); it is started again in 0.4 s"
        Path("broken").unlink()
        assert server.line().startswith("worker 2 of 2: pid ")
        server.signal(signal.SIGTERM)
        assert server.end() == (0, "")


def test_a_module_that_breaks_later_ends_all_of_them(project: Path) -> None:
    with running(*workers(2), *on()) as server:
        Path("module.py").write_text("1 / 0")
        os.kill(server.workers[0], signal.SIGKILL)
        assert server.line().endswith("ended (by SIGKILL); it is started again in 0.1 s")
        status, said = server.end()
    assert status == 2
    assert said.startswith("rawstream: module 'module' cannot be imported: ZeroDivisionError: division by zero")
    assert said.count("\n") == 1
    assert are_gone(server.workers)


# -- the end -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loop", LOOPS)
def test_sigterm_lets_all_workers_drain(project: Path, loop: str) -> None:
    with running(*workers(2, "--loop", loop), *on()) as server, server.connect() as client:
        opened(client, "/polite")
        server.signal(signal.SIGTERM)
        assert read_rest(client).endswith(b"bye\r\n0\r\n\r\n")
        status, said = server.end()
        assert status == 0
        assert re.fullmatch(r"worker [12]: closing: waiting up to 5 s for 1 open connection; Ctrl-C again cuts\n", said)
        assert are_gone(server.workers)


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_reaches_the_whole_group_is_one_and_not_two(
    project: Path, number: signal.Signals, loop: str
) -> None:
    """A terminal's Ctrl-C does that, and systemd with its KillMode=control-group."""
    with running(*workers(2, "--loop", loop), *on()) as server, server.connect() as client:
        opened(client, "/patient")
        os.killpg(server.process.pid, number)
        assert read_until(client, b"closing\r\n").endswith(b"closing\r\n")
        Path("enough").touch()
        assert read_rest(client).endswith(b"bye\r\n0\r\n\r\n")
        assert server.end()[0] == 0
        assert are_gone(server.workers)


@pytest.mark.parametrize("loop", LOOPS)
def test_a_second_sigterm_to_the_whole_group_cuts(project: Path, loop: str) -> None:
    with running(*workers(2, "--loop", loop, "--timeout-grace", "600"), *on()) as server, server.connect() as client:
        opened(client, "/stubborn")
        os.killpg(server.process.pid, signal.SIGTERM)
        assert "closing: waiting up to 600 s" in server.line()
        until_refused(server)  # else the parent may not have taken the first, and two that wait are one
        os.killpg(server.process.pid, signal.SIGTERM)
        assert read_rest(client) == b""
        assert server.end() == (0, "")
        assert are_gone(server.workers)


def test_sigterm_to_a_worker_alone_lets_its_streams_end_and_another_takes_its_place(project: Path) -> None:
    with running(*workers(2), *on()) as server, server.connect() as client:
        pid = opened(client, "/patient")
        for _ in range(2):
            os.kill(pid, signal.SIGTERM)
        read_until(client, b"closing\r\n")
        Path("enough").touch()
        assert read_rest(client).endswith(b"bye\r\n0\r\n\r\n")
        assert re.search(r"worker [12]: closing: ", server.line())
        assert re.fullmatch(r"worker [12] of 2 ended \(with status 0\); it is started again in 0.1 s", server.line())
        assert re.fullmatch(r"worker [12] of 2: pid \d+", server.line())
        server.signal(signal.SIGTERM)
        assert server.end() == (0, "")


def test_while_workers_drain_connections_are_refused_and_a_second_signal_cuts(project: Path) -> None:
    with running(*workers(2, "--timeout-grace", "600"), *on()) as server, server.connect() as client:
        opened(client, "/stubborn")
        server.signal(signal.SIGTERM)
        assert "closing: waiting up to 600 s" in server.line()
        until_refused(server)
        server.signal(signal.SIGINT)
        assert read_rest(client) == b""
        assert server.end() == (0, "")
        assert are_gone(server.workers)


def test_a_worker_that_does_not_end_is_killed(project: Path) -> None:
    """The other has gone before, and is long not started again: how fast it would end does not matter here."""
    times = "workers._PATIENCE, workers._FIRST_DELAY = 0.2, 600.0"
    start = "-c", f"from rawstream import cli, workers; {times}; raise SystemExit(cli.main())"
    with running(*workers(2, "--timeout-grace", "0"), *on(), start=start) as server:
        stuck, other = server.workers
        os.kill(other, signal.SIGKILL)
        assert server.line() == "worker 2 of 2 ended (by SIGKILL); it is started again in 600 s"
        os.kill(stuck, signal.SIGSTOP)
        server.signal(signal.SIGTERM)
        assert server.end() == (1, "killing 1 worker that did not end\n")
        assert are_gone([stuck, other])


@pytest.mark.parametrize("loop", LOOPS)
def test_workers_whose_parent_vanishes_drain_and_end(project: Path, loop: str) -> None:
    with running(*workers(2, "--loop", loop), *on()) as server, server.connect() as client:
        opened(client, "/polite")
        server.signal(signal.SIGKILL)
        assert read_rest(client).endswith(b"bye\r\n0\r\n\r\n")
        assert server.end()[0] == -signal.SIGKILL
        assert are_gone(server.workers)


def test_a_worker_that_starts_when_its_parent_has_vanished_ends(project: Path) -> None:
    Path("waiting.py").write_text(
        "import os, signal\n"
        "from module import router\n"
        "os.kill(os.getppid(), signal.SIGKILL)\n"
    )  # fmt: skip
    with running("serve", "waiting:router", "--workers", "2", *on()) as server:
        assert server.end() == (-signal.SIGKILL, "")


# -- what they share ---------------------------------------------------------------------------------------------------


def asked(server: Running, method: str, target: str, *fields: str, body: str = "") -> bytes:
    """The answer to a request on a connection of its own."""
    head = "".join(f"{field}\r\n" for field in ["Host: test", "Connection: close", *fields])
    with server.connect() as sock:
        sock.sendall(f"{method} {target} HTTP/1.1\r\n{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
        return read_rest(sock)


@pytest.mark.parametrize("loop", LOOPS)
def test_workers_of_the_demo_share_channels_and_jobs_by_a_redis(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch, loop: str
) -> None:
    monkeypatch.setenv("RAWSTREAM_PUBLISH_TOKEN", "secret")
    arguments = ["--workers", "3", "--loop", loop, "--store", redis_server.url, *on()]
    secret, text = "Authorization: Bearer secret", "Content-Type: text/plain"
    with running(*arguments) as server, contextlib.ExitStack() as stack:
        assert asked(server, "POST", "/channels/news", text, body="x").startswith(b"HTTP/1.1 401 ")
        readers = [stack.enter_context(server.connect()) for _ in range(12)]
        for reader in readers:
            reader.sendall(b"GET /channels/news?last_event_id=earliest HTTP/1.1\r\nHost: test\r\n\r\n")
        for number in range(6):
            answer = asked(server, "POST", "/channels/news", text, secret, body=f"news {number}")
            assert answer.startswith(b"HTTP/1.1 201 ")
        for reader in readers:
            told = read_until(reader, b"data: news 5\n")
            assert re.findall(rb"data: news (\d)\n", told) == [b"0", b"1", b"2", b"3", b"4", b"5"]
        answer = asked(server, "POST", "/jobs", secret, body='{"steps": 1000, "delay": 0.01}')
        location = re.search(r"\r\nLocation: (\S+)", answer.decode())
        assert location is not None
        followers = [stack.enter_context(server.connect()) for _ in range(6)]
        for follower in followers:
            follower.sendall(f"GET {location[1]} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
            assert b'data: {"step":1,' in read_until(follower, b"event: progress\n" + b'data: {"step":1,')
        assert asked(server, "DELETE", location[1], secret).startswith(b"HTTP/1.1 204 ")  # in whichever process
        for follower in followers:
            assert b'data: {"stopped":true}' in read_until(follower, b"0\r\n\r\n")
        server.signal(signal.SIGTERM)
        assert server.end()[0] == 0


def test_a_store_that_cannot_be_opened_is_told_once(project: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with running("--workers", "3", "--store", f"redis://127.0.0.1:{port}/0", *on()) as server:
        status, rest = server.end()
    assert status == 2
    [line] = [line for line in [*server.before, server.first_line, *rest.splitlines()] if line]
    assert line.startswith(f"rawstream: the channels' store cannot be reached: redis://127.0.0.1:{port}/0 (")
