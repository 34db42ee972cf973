"""The command line: as a process where signals, descriptors or bytes matter, and otherwise as a call of main()."""

from __future__ import annotations

import contextlib
import functools
import http.client
import json
import logging
import os
import re
import resource
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography.hazmat.primitives import serialization
from processes import ROOT, ask, read_rest, read_until, running

import rawstream
from rawstream import cli, observe, sockets
from rawstream.options import read

ENDLESS = '''
"""A stream that does not care whether the server closes."""
import asyncio
import sys

async def handler(request):
    try:
        yield "x"
        await asyncio.get_running_loop().create_future()
    finally:
        print("finally", file=sys.stderr, flush=True)
'''


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with modules to serve, and in it the current one."""
    (tmp_path / "endless.py").write_text(ENDLESS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


# -- a process of its own ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_it_serves_the_demo_and_says_where(loop: str) -> None:
    with running("--port", "0", "--loop", loop) as server:
        assert re.fullmatch(
            rf"rawstream {re.escape(rawstream.__version__)} listening on http://127\.0\.0\.1:\d+ \({loop}\)",
            server.first_line,
        )
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        connection.request("GET", "/healthz")
        assert connection.getresponse().read() == b"ok\n"
        connection.close()
        server.signal(signal.SIGTERM)
        assert server.end() == (0, "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_signal_ends_it_with_a_stream_open_which_is_told(number: int, loop: str) -> None:
    with running("--port", "0", "--loop", loop) as server, server.connect() as client:
        client.sendall(b"GET /clock HTTP/1.1\r\nHost: test\r\n\r\n")
        read_until(client, b"event: tick")
        server.signal(number)
        assert server.line() == "closing: waiting up to 5 s for 1 open connection; Ctrl-C again cuts"
        told = read_rest(client)
        assert b"event: stream-closing\n" in told
        assert told.endswith(b"0\r\n\r\n")
        assert server.end() == (0, "")


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_second_signal_cuts_what_is_still_open(project: Path, loop: str) -> None:
    arguments = ["serve", "endless:handler", "--port", "0", "--loop", loop, "--timeout-grace", "600"]
    with running(*arguments, cwd=project) as server, server.connect() as client, server.connect() as other:
        for sock in (client, other):
            sock.sendall(b"GET / HTTP/1.1\r\nHost: test\r\nAccept: text/plain\r\n\r\n")
            read_until(sock, b"1\r\nx\r\n")
        server.signal(signal.SIGINT)
        assert server.line() == "closing: waiting up to 600 s for 2 open connections; Ctrl-C again cuts"
        server.signal(signal.SIGINT)
        assert read_rest(client) == b""
        assert server.end() == (0, "finally\nfinally\n")


def test_after_the_grace_time_it_cuts_by_itself(project: Path) -> None:
    with running("serve", "endless:handler", "--port", "0", "--timeout-grace", "0.1", cwd=project) as server:
        with server.connect() as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: test\r\nAccept: text/plain\r\n\r\n")
            read_until(client, b"1\r\nx\r\n")
            server.signal(signal.SIGTERM)
            assert read_rest(client) == b""
        status, said = server.end()
        assert status == 0
        assert said.endswith("finally\n")


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_nothing_is_waited_for_when_all_connections_are_idle(loop: str) -> None:
    with running("--port", "0", "--loop", loop) as server, server.connect() as client:
        client.sendall(b"GET /healthz HTTP/1.1\r\nHost: test\r\n\r\n")
        read_until(client, b"ok\n")
        server.signal(signal.SIGTERM)
        assert read_rest(client) == b""
        assert server.end() == (0, "")


def test_wire_prints_every_byte_in_and_out_with_time_and_direction(project: Path) -> None:
    Path("plain.py").write_text(
        "from rawstream import Response\nasync def handler(request):\n    return Response.text('ok\\n')\n"
    )
    with running("serve", "plain:handler", "--port", "0", "--wire", cwd=project) as server:
        with server.connect() as client:
            port = client.getsockname()[1]
            ask(client)
        server.signal(signal.SIGTERM)
        status, said = server.end()
    assert status == 0
    said = re.sub(r"^ *\d+\.\d{6} #1 ", "TIME #1 ", said, flags=re.MULTILINE)
    said = re.sub(r"Date: [^\\]+", "Date: ", said)
    said = re.sub(r"sent \d+ B", "sent N B", said)
    assert said.replace("TIME #1 <-- ended our side\n", "") == (  # before it is closed, as a connection may be
        f"TIME #1 --- connected from 127.0.0.1:{port}\n"
        "TIME #1 --> received 49 B\n"
        "    GET / HTTP/1.1\\r\\n\n"
        "    Host: test\\r\\n\n"
        "    Connection: close\\r\\n\n"
        "    \\r\\n\n"
        "TIME #1 <-- sent N B\n"
        "    HTTP/1.1 200 OK\\r\\n\n"
        "    Date: \\r\\n\n"
        "    Content-Type: text/plain; charset=utf-8\\r\\n\n"
        "    Content-Length: 3\\r\\n\n"
        "    Connection: close\\r\\n\n"
        "    \\r\\n\n"
        "    ok\\n\n"
        "TIME #1 --- closed\n"
    )


def test_the_access_log_has_a_line_for_each_request() -> None:
    with running("--port", "0", "--access-log") as server:
        with server.connect() as client:
            client.sendall(b"GET /healthz HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
            sent = len(read_rest(client))
        pattern = (
            rf'127\.0\.0\.1 - - \[[^]]+\] "GET /healthz HTTP/1\.1" 200 {sent} 0\.\d{{3}}s complete [0-9a-f]{{6}}-1'
        )
        assert re.fullmatch(pattern, server.line())
        server.signal(signal.SIGTERM)
        assert server.end() == (0, "")


def test_the_access_log_may_be_json_and_a_bare_one_may_stand_before_the_command(project: Path) -> None:
    for option in (["--access-log", "json"], ["--access-log=json"], ["--access-log"]):
        with running(*option, "serve", "endless:handler", "--port", "0", cwd=project) as server:
            with server.connect() as client:
                client.sendall(b"BREW / HTTP/1.1\r\n\r\n")  # no Host: 400
                read_rest(client)
            line = server.line()
            if option == ["--access-log"]:
                assert line.startswith("127.0.0.1 - - [")
            else:
                assert json.loads(line)["status"] == 400
            server.signal(signal.SIGTERM)
            assert server.end() == (0, "")


def test_without_the_access_log_requests_are_not_logged_but_failures_are(project: Path) -> None:
    Path("broken.py").write_text("async def handler(request):\n    raise ZeroDivisionError('why')\n")
    with running("serve", "broken:handler", "--port", "0", cwd=project) as server:
        with server.connect() as client:
            client.sendall(b"GET /path HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
            assert read_rest(client).endswith(b"\r\n\r\n500 Internal Server Error\n")
        server.signal(signal.SIGTERM)
        status, said = server.end()
    assert status == 0
    assert re.match(r"ERROR: [0-9a-f]{6}-1 GET /path failed\nTraceback \(most recent call last\):\n", said)
    assert said.endswith("ZeroDivisionError: why\n")


def test_it_listens_on_a_unix_socket_and_removes_its_file(project: Path) -> None:
    with running("--uds", "a.sock", cwd=project) as server:
        assert " listening on unix:a.sock (" in server.first_line
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(60)
            client.connect("a.sock")
            client.sendall(b"GET /healthz HTTP/1.1\r\nHost: test\r\n\r\n")
            read_until(client, b"ok\n")
        server.signal(signal.SIGTERM)
        assert server.end() == (0, "")
    assert not Path("a.sock").exists()


def test_it_takes_over_an_inherited_socket_so_that_a_restart_loses_no_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, contextlib.ExitStack() as clients:
        descriptor = listener.fileno()
        for _ in range(2):
            client = clients.enter_context(socket.create_connection(listener.getsockname(), timeout=60))
            client.sendall(b"GET /healthz HTTP/1.1\r\nHost: test\r\n\r\n")  # nobody serves yet
            with running("--fd", str(descriptor), pass_fds=[descriptor]) as server:
                assert server.port == listener.getsockname()[1]
                read_until(client, b"ok\n")
                server.signal(signal.SIGTERM)
                assert server.end() == (0, "")


def test_it_ends_although_a_handler_does_not(project: Path) -> None:
    Path("deaf.py").write_text(
        "import asyncio\n"
        "async def handler(request):\n"
        "    yield 'x'\n"
        "    while True:\n"
        "        try:\n"
        "            await asyncio.sleep(3600)\n"
        "        except asyncio.CancelledError:\n"
        "            pass\n"
    )
    arguments = ["serve", "deaf:handler", "--port", "0", "--timeout-grace", "0"]
    with running(*arguments, cwd=project) as server, server.connect() as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: test\r\nAccept: text/plain\r\n\r\n")
        read_until(client, b"1\r\nx\r\n")
        server.signal(signal.SIGTERM)
        status, said = server.end()
    assert status == 1
    assert said.endswith("\nending all the same, with handlers at work that were told to end\n")


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("left", ["threads", "tasks", "generators"])
def test_it_ends_although_what_a_handler_began_does_not(project: Path, left: str, loop: str) -> None:
    Path("forever.py").write_text(
        "import asyncio, contextlib, threading\n"
        "from rawstream import Response\n"
        "async def tasks():\n"
        "    while True:\n"
        "        with contextlib.suppress(asyncio.CancelledError):\n"
        "            await asyncio.sleep(3600)\n"
        "begun = threading.Event()\n"
        "def wait():\n"
        "    begun.set()\n"
        "    threading.Event().wait()\n"
        "async def threads():\n"
        "    await asyncio.to_thread(wait)\n"
        "async def generators():\n"
        "    try:\n"
        "        yield\n"
        "    finally:\n"
        "        await asyncio.sleep(3600)\n"
        "async def handler(request):\n"
        f"    handler.kept = it = {left}()\n"
        f"    {'await anext(it)' if left == 'generators' else 'handler.task = asyncio.create_task(it)'}\n"
        f"    {'await asyncio.to_thread(begun.wait)' if left == 'threads' else 'await asyncio.sleep(0)'}\n"
        "    return Response.text('ok')\n"
    )
    arguments = ["serve", "forever:handler", "--port", "0", "--loop", loop]
    with running(*arguments, cwd=project) as server, server.connect() as client:
        assert ask(client).endswith(b"ok")
        server.signal(signal.SIGTERM)
        assert server.end() == (1, f"ending all the same, with {left} at work that were told to end\n")


def test_threads_and_tasks_that_end_when_told_to_keep_their_last_words(project: Path) -> None:
    Path("brief.py").write_text(
        "import asyncio, sys, threading\n"
        "from rawstream import Response\n"
        "begun, told = threading.Event(), threading.Event()\n"
        "def thread():\n"
        "    begun.set()\n"
        "    told.wait()\n"
        "    print('the thread ends', file=sys.stderr, flush=True)\n"
        "async def task():\n"
        "    try:\n"
        "        await asyncio.to_thread(thread)\n"
        "    finally:\n"
        "        await asyncio.to_thread(told.set)\n"
        "async def handler(request):\n"
        "    handler.kept = asyncio.create_task(task())\n"
        "    await asyncio.to_thread(begun.wait)\n"  # one that has not begun would be cancelled
        "    return Response.text('ok')\n"
    )
    with running("serve", "brief:handler", "--port", "0", cwd=project) as server, server.connect() as client:
        assert ask(client).endswith(b"ok")
        server.signal(signal.SIGTERM)
        assert server.end() == (0, "the thread ends\n")


def test_it_may_open_as_many_files_as_the_hard_limit_allows(project: Path) -> None:
    Path("limit.py").write_text(
        "import resource\n"
        "from rawstream import Response\n"
        "async def handler(request):\n"
        "    return Response.text(repr(resource.getrlimit(resource.RLIMIT_NOFILE)))\n"
    )
    lower = "import resource as r, sys; r.setrlimit(r.RLIMIT_NOFILE, (99, 777))"
    start = "-c", f"{lower}; from rawstream.cli import main; sys.exit(main())"
    with running("serve", "limit:handler", "--port", "0", cwd=project, start=start) as server:
        with server.connect() as client:
            assert ask(client).endswith(b"\r\n\r\n(777, 777)")
        server.signal(signal.SIGTERM)
        assert server.end() == (0, "")


@pytest.mark.parametrize("in_one_file", [True, False])
def test_it_serves_https(project: Path, in_one_file: bool) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    if in_one_file:
        certificate.private_key_and_cert_chain_pem.write_to_path("both.pem")
        arguments = ["--certfile", "both.pem"]
    else:
        certificate.cert_chain_pems[0].write_to_path("chain.pem")
        certificate.private_key_pem.write_to_path("key.pem")
        arguments = ["--certfile", "chain.pem", "--keyfile", "key.pem"]
    context = ssl.create_default_context()
    authority.configure_trust(context)
    with running("--port", "0", *arguments, cwd=project) as server:
        assert " listening on https://127.0.0.1:" in server.first_line
        connection = http.client.HTTPSConnection("127.0.0.1", server.port, timeout=10, context=context)
        connection.request("GET", "/healthz")
        assert connection.getresponse().read() == b"ok\n"
        connection.close()
        server.signal(signal.SIGTERM)
        assert server.end() == (0, "")


def test_it_serves_a_handler_of_ones_own_from_the_current_directory(project: Path) -> None:
    Path("mine.py").write_text(
        "from rawstream import Router\n"
        "class Application:\n"
        "    router = Router()\n"
        "@Application.router.get('/count')\n"
        "async def count(request):\n"
        "    for number in range(3):\n"
        "        yield number\n"
    )
    with running("serve", "mine:Application.router", "--port", "0", cwd=project) as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        connection.request("GET", "/count")
        assert connection.getresponse().read() == b"[0,1,2]"
        connection.close()
        server.signal(signal.SIGTERM)
        assert server.end() == (0, "")


@pytest.mark.parametrize("position", ["before", "after"])
def test_an_option_may_stand_before_the_command_or_after_it(project: Path, position: str) -> None:
    command = ["serve", "endless:handler"]
    option = ["--port", "0"]
    with running(*(option + command if position == "before" else command + option), cwd=project) as server:
        server.signal(signal.SIGTERM)
        assert server.end() == (0, "")


def test_a_wrong_option_is_one_line_and_exit_status_2() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "rawstream", "--speed"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "python -m rawstream: unrecognized arguments: --speed (--help shows all options)\n"


# -- in this process ---------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def untouched(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """main() sets up logging and the import path for its process; here they are put back."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = set(sys.modules)
    files = resource.getrlimit(resource.RLIMIT_NOFILE)
    loggers = [logging.getLogger(name) for name in ("rawstream", "rawstream.access", "rawstream.wire")]
    states = [(logger, logger.level, logger.propagate, logger.handlers) for logger in loggers]
    yield
    for logger, level, propagate, handlers in states:
        logger.setLevel(level)
        logger.propagate, logger.handlers = propagate, handlers
    for name in set(sys.modules) - before:
        del sys.modules[name]
    resource.setrlimit(resource.RLIMIT_NOFILE, files)
    observe.access_log("common")


def failed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line that main() ends with, and that its status is 2."""
    try:
        status: object = cli.main(arguments)
    except SystemExit as exc:  # argparse's way
        status = exc.code
    said = capsys.readouterr()
    assert (status, said.out) == (2, "")
    assert said.err.count("\n") == 1, said.err
    return said.err.rstrip("\n")


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        cli.main(["--version"])
    assert raised.value.code == 0
    assert capsys.readouterr().out == f"rawstream {rawstream.__version__}\n"


@pytest.mark.parametrize("arguments", [["--help"], ["serve", "--help"]])
def test_help_shows_every_option_with_its_default(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        cli.main(arguments)
    assert raised.value.code == 0
    shown = capsys.readouterr().out
    for option in (
        "--host", "--port", "--uds", "--fd", "--certfile", "--keyfile", "--loop", "--workers", "--access-log", "--wire",
        "--allowed-host", "--allowed-origin", "--trusted-proxy", "--store", "--publish-token", "--subscribe-token",
        "--allow-open-publish",
        "--limit-connections", "--limit-connections-per-client", "--limit-streams", "--limit-requests",
        "--limit-target", "--limit-head", "--limit-headers", "--limit-body", "--limit-held", "--limit-high-water",
        "--timeout-head", "--timeout-body", "--timeout-keep-alive", "--timeout-request", "--timeout-first-item",
        "--timeout-write-stall", "--timeout-grace", "--timeout-linger",
    ):  # fmt: skip
        assert f"{option} " in shown or f"{option}\n" in shown
    shown = " ".join(shown.split())
    assert "(default: 75.0)" in shown
    assert re.search(r"--limit-streams N [^()]+ \(default: none\)", shown)
    assert "--is-worker" not in shown


def test_help_lists_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    listed = capsys.readouterr().out.partition("\ncommands:\n")[2].partition("\n\n")[0]
    assert re.findall(r"^    (\w+) ", listed, re.MULTILINE) == ["serve", "get", "probe"]


@pytest.mark.parametrize("tool", ["get", "probe"])
def test_a_command_that_asks_a_server_has_its_own_help_and_no_option_of_a_server(
    capsys: pytest.CaptureFixture[str], tool: str
) -> None:
    with pytest.raises(SystemExit) as raised:
        cli.main([tool, "--help"])
    assert raised.value.code == 0
    assert f"usage: python -m rawstream {tool} " in (shown := capsys.readouterr().out)
    assert "--port" not in shown
    assert failed(capsys, "--port", "1", tool, "localhost:2") == (
        f"python -m rawstream: --port is for a server, and {tool} is none: write {tool} first, and its own options "
        "then (--help shows all options)"
    )


def test_an_option_of_a_command_is_not_taken_for_the_beginning_of_a_servers() -> None:
    """`--time` begins several of theirs."""
    options = read(["probe", "--time", "3", "--idle", "1", "http://127.0.0.1:1"])
    assert (options.time, options.idle) == (3, 1)


def test_a_server_loads_no_command_that_asks_one() -> None:
    program = "import sys; from rawstream.options import read; read(['--uds', 'x']); print(*sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert "rawstream.options" in loaded
    assert not {"rawstream.get", "rawstream.probe"} & {*loaded}


def serve_one_request(arguments: list[str]) -> bytes:
    """main() with an inherited socket; the answer to one request, after which SIGTERM ends it."""
    answers: list[bytes] = []

    def ask() -> None:
        with socket.create_connection(address, timeout=60) as client:
            client.sendall(b"GET /healthz HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
            answers.append(read_rest(client))
        os.kill(os.getpid(), signal.SIGTERM)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
        thread = threading.Thread(target=ask)
        thread.start()  # the kernel accepts; the server takes it over
        assert cli.main(["--fd", str(os.dup(listener.fileno())), *arguments]) == 0
        thread.join()
    return answers[0]


@pytest.mark.parametrize(("loop", "used"), [("asyncio", "asyncio"), ("uvloop", "uvloop"), ("auto", "uvloop")])
def test_it_ends_with_status_0(capsys: pytest.CaptureFixture[str], loop: str, used: str) -> None:
    assert serve_one_request(["--loop", loop]).endswith(b"\r\n\r\nok\n")
    said = capsys.readouterr().err
    assert said.startswith(f"rawstream {rawstream.__version__} listening on http://127.0.0.1:")
    assert said.endswith(f" ({used})\n")


def test_without_uvloop_auto_is_asyncio(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", None)
    serve_one_request([])
    assert capsys.readouterr().err.endswith(" (asyncio)\n")


def taken(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Any:
    """The options that a server is started with."""
    options: list[Any] = []

    async def serve(handler: Any, given: Any, worker: Any) -> int:
        options.append(given)
        return 0

    monkeypatch.setattr(cli, "_serve", serve)
    assert cli.main(arguments) == 0
    return options[0]


def test_limits_and_timeouts_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    options = taken(monkeypatch, "--limit-body", "5", "--limit-streams", "6", "--timeout-write-stall", "0.5")
    assert options.limits == rawstream.Limits(body=5, streams=6)
    assert options.timeouts == rawstream.Timeouts(write_stall=0.5)


def test_who_may_ask_is_taken_from_before_the_command_and_after_it(
    monkeypatch: pytest.MonkeyPatch, project: Path
) -> None:
    options = taken(
        monkeypatch, "--allowed-host", "a.test", "--trusted-proxy", "unix", "serve", "endless:handler",
        "--allowed-host", "b.test", "--allowed-host", "*.c.test", "--allowed-origin", "https://app.test",
    )  # fmt: skip
    assert options.access == {
        "allowed_hosts": ["a.test", "b.test", "*.c.test"],
        "allowed_origins": ["https://app.test"],
        "trusted_proxies": ["unix"],
    }


def test_the_demo_lets_its_page_be_opened_from_disk(monkeypatch: pytest.MonkeyPatch, project: Path) -> None:
    assert taken(monkeypatch).access["allowed_origins"] == ["null"]
    assert taken(monkeypatch, "--store", "sqlite:///kept.db").access["allowed_origins"] == []
    assert taken(monkeypatch, "--allowed-origin", "https://a.test").access["allowed_origins"] == ["https://a.test"]
    assert taken(monkeypatch, "serve", "endless:handler").access["allowed_origins"] == []
    assert taken(monkeypatch, "serve", "endless:handler").access["allowed_hosts"] is None


def test_one_worker_is_no_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    assert taken(monkeypatch, "--workers", "1").workers == 1


def test_a_ctrl_c_before_the_server_took_the_signal_is_the_shells_status_130(monkeypatch: pytest.MonkeyPatch) -> None:
    async def serve(handler: Any, options: Any, worker: Any) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_serve", serve)
    assert cli.main([]) == 130


def test_several_addresses_are_all_named() -> None:
    assert cli._url(("::1", 80), False) == "http://[::1]:80"
    assert cli._url(("127.0.0.1", 80), True) == "https://127.0.0.1:80"


def test_a_port_in_use(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert failed(capsys, "--port", str(port)) == (
            f"rawstream: cannot listen on 127.0.0.1:{port}: "
            "it is in use already; choose another one, or stop who uses it"
        )


def test_an_address_of_another_machine(capsys: pytest.CaptureFixture[str]) -> None:
    line = failed(capsys, "--host", "192.0.2.1", "--port", "0")
    assert line == "rawstream: cannot listen on 192.0.2.1:0: Cannot assign requested address"


def test_a_unix_socket_that_cannot_be(capsys: pytest.CaptureFixture[str], project: Path) -> None:
    line = failed(capsys, "--uds", "nowhere/a.sock")
    assert line == "rawstream: cannot listen on nowhere/a.sock: No such file or directory"


def test_a_descriptor_that_is_no_socket(capsys: pytest.CaptureFixture[str]) -> None:
    line = failed(capsys, "--fd", "9999")
    assert line == "rawstream: cannot listen on file descriptor 9999: file descriptor 9999 is not an open socket"


def test_a_socket_that_does_not_listen(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as sock:
        number = sock.fileno()
        assert failed(capsys, "--fd", str(number)) == (
            f"rawstream: cannot listen on file descriptor {number}: "
            f"file descriptor {number} is not a listening stream socket"
        )


@pytest.mark.parametrize(
    ("arguments", "ways"),
    [
        (["--fd", "3", "--uds", "a.sock"], "--fd and --uds"),
        (["--port", "80", "--fd", "3"], "--fd and --port"),
        (["--fd", "3", "--host", "localhost", "--port", "80"], "--fd and --host"),
        (["--uds", "a.sock", "--port", "80"], "--uds and --port"),
        (["--fd", "3", "--uds", "a.sock", "serve", "m:h", "--workers", "2"], "--fd and --uds"),
    ],
)
def test_ways_to_listen_that_exclude_each_other(
    capsys: pytest.CaptureFixture[str], arguments: list[str], ways: str
) -> None:
    assert failed(capsys, *arguments) == f"rawstream: {ways} exclude each other: each says where to listen"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--port", "65536"], "argument --port: a port is a number from 0 to 65535, not '65536'"),
        (["--port", "-1"], "argument --port: a port is a number from 0 to 65535, not '-1'"),
        (["--port", "http"], "argument --port: a port is a number from 0 to 65535, not 'http'"),
        (["--fd", "x"], "argument --fd: invalid int value: 'x'"),
        (["--limit-body", "x"], "argument --limit-body: invalid int value: 'x'"),
        (["--limit-streams", "1.5"], "argument --limit-streams: invalid int value: '1.5'"),
        (["--timeout-request", "x"], "argument --timeout-request: invalid float value: 'x'"),
        (["--workers", "0"], "argument --workers: a number of processes is 1 or more, not '0'"),
        (["--workers", "many"], "argument --workers: a number of processes is 1 or more, not 'many'"),
    ],
)
def test_values_that_cannot_be(capsys: pytest.CaptureFixture[str], arguments: list[str], line: str) -> None:
    assert failed(capsys, *arguments) == f"python -m rawstream: {line} (--help shows all options)"


def test_a_loop_that_there_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    assert failed(capsys, "--loop", "trio").startswith("python -m rawstream: argument --loop: invalid choice: 'trio'")


def test_a_command_that_there_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    assert "invalid choice: 'dance'" in failed(capsys, "dance")


def test_serve_without_a_handler(capsys: pytest.CaptureFixture[str]) -> None:
    assert failed(capsys, "serve") == (
        "python -m rawstream serve: the following arguments are required: MODULE:HANDLER (--help shows all options)"
    )


@pytest.mark.parametrize(
    ("option", "line"),
    [
        ("--limit-body", "is a positive whole number, not 0"),
        ("--limit-connections-per-client", "is a positive whole number, not 0"),
        ("--timeout-keep-alive", "is a number of seconds, above 0 and at most 1000000, not 0.0"),
    ],
)
def test_limits_that_cannot_be(capsys: pytest.CaptureFixture[str], option: str, line: str) -> None:
    assert failed(capsys, option, "0") == f"rawstream: {option} {line}"
    assert failed(capsys, option, "0", "--workers", "2") == f"rawstream: {option} {line}"


@pytest.mark.parametrize(
    ("option", "value"),
    [("--allowed-host", "http://a.test/"), ("--allowed-origin", "*"), ("--trusted-proxy", "nobody")],
)
def test_who_may_ask_that_cannot_be(capsys: pytest.CaptureFixture[str], option: str, value: str) -> None:
    assert value in failed(capsys, option, value)


def test_uvloop_that_is_not_installed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", None)
    said = failed(capsys, "--loop", "uvloop")
    assert said == "rawstream: uvloop is not installed: pip install uvloop, or --loop asyncio"


@pytest.mark.parametrize("name", ["endless", ":handler", "endless:", ""])
def test_a_handler_that_is_not_named_as_one(capsys: pytest.CaptureFixture[str], project: Path, name: str) -> None:
    assert failed(capsys, "serve", name) == (
        f"rawstream: name a handler as module:handler, as in 'serve mymodule:router', not {name!r}"
    )


@pytest.mark.parametrize("name", ["absent", "absent.inner"])
def test_a_module_that_is_not_there(capsys: pytest.CaptureFixture[str], project: Path, name: str) -> None:
    assert failed(capsys, "serve", f"{name}:handler") == (
        f"rawstream: there is no module 'absent' in {project} or among the installed ones"
    )


def test_a_module_that_imports_what_is_not_there(capsys: pytest.CaptureFixture[str], project: Path) -> None:
    Path("needy.py").write_text("\nimport absent_dependency\n")
    assert failed(capsys, "serve", "needy:handler") == (
        "rawstream: module 'needy' cannot be imported: No module named 'absent_dependency' "
        f"({project / 'needy.py'}, line 2)"
    )


def test_a_module_that_fails(capsys: pytest.CaptureFixture[str], project: Path) -> None:
    Path("failing.py").write_text("x = 1 / 0\n")
    assert failed(capsys, "serve", "failing:handler") == (
        f"rawstream: module 'failing' cannot be imported: ZeroDivisionError: division by zero "
        f"({project / 'failing.py'}, line 1)"
    )


def test_a_module_that_fails_in_several_lines(capsys: pytest.CaptureFixture[str], project: Path) -> None:
    Path("failing.py").write_text("raise ValueError('one\\ntwo')\n")
    assert failed(capsys, "serve", "failing:handler").startswith(
        "rawstream: module 'failing' cannot be imported: ValueError: one"
    )


def test_a_module_that_is_no_python(capsys: pytest.CaptureFixture[str], project: Path) -> None:
    Path("garbled.py").write_text("def handler(:\n")
    line = failed(capsys, "serve", "garbled:handler")
    assert line == ("rawstream: module 'garbled' cannot be imported: SyntaxError: invalid syntax (garbled.py, line 1)")


def test_a_module_that_exits(capsys: pytest.CaptureFixture[str], project: Path) -> None:
    Path("leaving.py").write_text("raise SystemExit('no key is set')\n")
    assert failed(capsys, "serve", "leaving:handler") == (
        f"rawstream: module 'leaving' cannot be imported: SystemExit: no key is set ({project / 'leaving.py'}, line 1)"
    )


def test_a_handler_that_is_not_in_its_module(capsys: pytest.CaptureFixture[str], project: Path) -> None:
    assert failed(capsys, "serve", "endless:absent") == "rawstream: module 'endless' has no 'absent'"


def test_a_handler_that_cannot_be_called(capsys: pytest.CaptureFixture[str], project: Path) -> None:
    assert failed(capsys, "serve", "endless:__name__") == (
        "rawstream: endless:__name__ is no handler but a str: a function or a Router is one"
    )


def test_a_mistake_in_a_module_is_told_with_the_modules_own_line(
    capsys: pytest.CaptureFixture[str], project: Path
) -> None:
    Path("mistaken.py").write_text("from rawstream import Router\n\nRouter().get('nope')\n")
    assert failed(capsys, "serve", "mistaken:router") == (
        "rawstream: module 'mistaken' cannot be imported: LocalError: a route's path begins with /: 'nope' "
        f"({project / 'mistaken.py'}, line 3)"
    )


@pytest.mark.parametrize("name", ["./bad.py:ok", ".bad:ok", "bad-name:ok", ":ok", "bad:"])
def test_what_cannot_be_a_module_is_told_how_to_be_named(capsys: pytest.CaptureFixture[str], name: str) -> None:
    assert failed(capsys, "serve", name).startswith("rawstream: name a handler as module:handler, ")


def test_no_host_is_not_all_hosts(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["--host", ""])
    assert ended.value.code == 2
    assert "argument --host: a host is a name or an address" in capsys.readouterr().err


def test_a_key_without_a_certificate(capsys: pytest.CaptureFixture[str]) -> None:
    assert failed(capsys, "--keyfile", "key.pem") == "rawstream: --keyfile needs --certfile"


def test_a_certificate_that_is_not_there(capsys: pytest.CaptureFixture[str], project: Path) -> None:
    assert failed(capsys, "--certfile", "absent.pem") == (
        "rawstream: the certificate or key absent.pem cannot be read: No such file or directory"
    )


def test_a_key_that_is_not_there(capsys: pytest.CaptureFixture[str], project: Path) -> None:
    Path("chain.pem").touch()
    assert failed(capsys, "--certfile", "chain.pem", "--keyfile", "absent.pem") == (
        "rawstream: the certificate or key absent.pem cannot be read: No such file or directory"
    )


def test_an_encrypted_key_does_not_wait_for_a_password(capsys: pytest.CaptureFixture[str], project: Path) -> None:
    certificate = trustme.CA().issue_cert("localhost")
    key = serialization.load_pem_private_key(certificate.private_key_pem.bytes(), None)
    secret = serialization.BestAvailableEncryption(b"secret")
    form = serialization.PrivateFormat.PKCS8
    Path("key.pem").write_bytes(key.private_bytes(serialization.Encoding.PEM, form, secret))
    certificate.cert_chain_pems[0].write_to_path("chain.pem")
    line = failed(capsys, "--certfile", "chain.pem", "--keyfile", "key.pem")
    assert line.startswith("rawstream: the private key is encrypted: ")


def test_a_certificate_that_is_none(capsys: pytest.CaptureFixture[str], project: Path) -> None:
    Path("text.pem").write_text("no certificate")
    line = failed(capsys, "--certfile", "text.pem")
    assert line.startswith("rawstream: text.pem has no certificate in PEM format that can be used (")


def test_a_key_that_is_none(capsys: pytest.CaptureFixture[str], project: Path) -> None:
    trustme.CA().issue_cert("localhost").cert_chain_pems[0].write_to_path("chain.pem")
    Path("text.pem").write_text("no key")
    line = failed(capsys, "--certfile", "chain.pem", "--keyfile", "text.pem")
    assert line.startswith("rawstream: text.pem has no private key in PEM format that can be used (")
    line = failed(capsys, "--certfile", "chain.pem")
    assert line.startswith("rawstream: chain.pem has no private key in PEM format that can be used (")


def test_a_key_of_another_certificate(capsys: pytest.CaptureFixture[str], project: Path) -> None:
    authority = trustme.CA()
    authority.issue_cert("localhost").cert_chain_pems[0].write_to_path("chain.pem")
    authority.issue_cert("localhost").private_key_pem.write_to_path("key.pem")
    assert failed(capsys, "--certfile", "chain.pem", "--keyfile", "key.pem") == (
        "rawstream: the key in key.pem is not that of the certificate in chain.pem"
    )


# -- channels and jobs -------------------------------------------------------------------------------------------------

NEEDS_NO_TOKEN = "listen on 127.0.0.1, or let everybody by --allow-open-publish"


def sent(sock: socket.socket, method: str, target: str, *fields: str, body: str = "") -> bytes:
    """A request's answer, at whose end the server closes."""
    head = "".join(f"{field}\r\n" for field in ["Host: test", "Connection: close", *fields])
    sock.sendall(f"{method} {target} HTTP/1.1\r\n{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
    return read_rest(sock)


def test_tokens_are_taken_from_the_environment_and_the_command_line_goes_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert taken(monkeypatch).tokens == {"publish_token": None, "subscribe_token": None}
    monkeypatch.setenv("RAWSTREAM_PUBLISH_TOKEN", "p1")
    monkeypatch.setenv("RAWSTREAM_SUBSCRIBE_TOKEN", "s1")
    assert taken(monkeypatch).tokens == {"publish_token": "p1", "subscribe_token": "s1"}
    options = taken(monkeypatch, "--publish-token", "p2")
    assert options.tokens == {"publish_token": "p2", "subscribe_token": "s1"}
    assert options.hub.url == "memory:"
    assert taken(monkeypatch, "--store", "memory:?entries=5").hub.url == "memory:?entries=5"


@pytest.mark.parametrize("token", ["", "two words", "p\u00e4"])
def test_a_token_that_cannot_be_is_refused_and_not_shown(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    """An empty one too: it may be a variable that was to hold one."""
    what = "a token is made of ASCII letters, digits and - . _ ~ + / (and = at its end), and not empty"
    assert failed(capsys, "--publish-token", token) == f"rawstream: --publish-token: {what}"
    monkeypatch.setenv("RAWSTREAM_SUBSCRIBE_TOKEN", token)
    assert failed(capsys) == f"rawstream: RAWSTREAM_SUBSCRIBE_TOKEN: {what}"


@pytest.mark.parametrize(
    "arguments",
    [["--store", "memory:"], ["--publish-token", ""], ["--subscribe-token", "s"], ["--allow-open-publish"]],
)
def test_what_is_for_the_demo_alone_is_refused_with_a_handler_of_ones_own(
    capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    line = f"rawstream: {arguments[0]} is for the demo: a handler of yours makes its own Hub"
    assert failed(capsys, *arguments, "serve", "m:h") == line
    assert failed(capsys, "serve", "m:h", *arguments) == line


def test_tokens_of_the_environment_do_not_matter_to_a_handler_of_ones_own(
    monkeypatch: pytest.MonkeyPatch, project: Path
) -> None:
    monkeypatch.setenv("RAWSTREAM_PUBLISH_TOKEN", "")
    options = taken(monkeypatch, "serve", "endless:handler", "--workers", "1")
    assert (options.hub, options.tokens) == (None, None)


@pytest.mark.parametrize("store", [[], ["--store", "memory:"], ["--store", "sqlite:///news.db"]])
def test_several_workers_need_a_store_that_they_can_share(
    capsys: pytest.CaptureFixture[str], project: Path, store: list[str]
) -> None:
    assert failed(capsys, "--workers", "2", *store) == (
        "rawstream: with --workers 2, channels and jobs need a store that processes can share: "
        "--store redis://host:port/db"
    )
    assert [*Path().glob("*.db*")] == []


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_publishing_is_not_opened_to_other_machines_unless_it_is_told_to_be(
    capsys: pytest.CaptureFixture[str], host: str
) -> None:
    line = failed(capsys, "--host", host, "--port", "0")
    assert line.startswith(f"rawstream: on {host} anybody could publish: give a token (RAWSTREAM_PUBLISH_TOKEN or ")
    assert line.endswith(NEEDS_NO_TOKEN)


def test_publishing_is_not_opened_by_an_inherited_socket_either(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("0.0.0.0", 0)) as listener:
        line = failed(capsys, "--fd", str(os.dup(listener.fileno())), "--subscribe-token", "s")
    assert line.endswith(NEEDS_NO_TOKEN)


@pytest.mark.parametrize("how", ["--publish-token=p", "--allow-open-publish", "environment"])
def test_other_machines_are_served_with_a_token_or_when_it_is_told_to(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    if how == "environment":
        monkeypatch.setenv("RAWSTREAM_PUBLISH_TOKEN", "p")
    with socket.create_server(("0.0.0.0", 0)) as listener:
        port = listener.getsockname()[1]
        monkeypatch.setattr(sockets, "bound", functools.partial(_bound, listener))
        arguments = ["--host", "0.0.0.0", "--port", "0", *([how] if how != "environment" else [])]
        thread = threading.Thread(target=_ask_and_end, args=[port])
        thread.start()
        assert cli.main(arguments) == 0
        thread.join()
    assert " listening on http://0.0.0.0:" in capsys.readouterr().err


async def _bound(listener: socket.socket, hosts: list[str], port: int) -> list[socket.socket]:
    return [listener.dup()]


def _ask_and_end(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
        ask(client, "/healthz")
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize(
    ("url", "line"),
    [
        ("nothing", 'a store is "memory:", "sqlite:///file" or "redis://host:port/db", not \'nothing\''),
        ("memory:?entries=0", "a store's entries is a positive whole number, not 0"),
        (
            "sqlite:///nowhere/news.db",
            "the channels' store cannot be opened: sqlite:///nowhere/news.db (unable to open database file)",
        ),
        ("sqlite:///garbage.db", "the channels' store is damaged: sqlite:///garbage.db (file is not a database)"),
    ],
)
def test_a_store_that_cannot_be_opened_is_told_in_one_line(
    capsys: pytest.CaptureFixture[str], project: Path, url: str, line: str
) -> None:
    Path("garbage.db").write_text("no database" * 100)
    assert failed(capsys, "--port", "0", "--store", url) == f"rawstream: {line}"


def test_a_redis_that_is_not_there_is_told_without_its_password(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    line = failed(capsys, "--port", "0", "--store", f"redis://user:secret@127.0.0.1:{port}/0?password=secret")
    assert line.startswith(f"rawstream: the channels' store cannot be reached: redis://127.0.0.1:{port}/0 (")
    assert "secret" not in line


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_what_was_published_is_there_after_a_restart_and_a_job_that_was_cut_says_so(project: Path, loop: str) -> None:
    arguments = ["--port", "0", "--loop", loop, "--store", "sqlite:///news.db"]
    with running(*arguments, cwd=project) as server:
        with server.connect() as client:
            answer = sent(client, "POST", "/channels/news", "Content-Type: text/plain", body="kept")
        assert answer.startswith(b"HTTP/1.1 201 ")
        with server.connect() as client:
            location = re.search(rb"\r\nLocation: (.*)\r\n", sent(client, "POST", "/jobs", body='{"delay": 10}'))
        assert location is not None
        server.signal(signal.SIGTERM)
        assert server.end() == (0, "")
    with running(*arguments, cwd=project) as server:
        with server.connect() as client:
            client.sendall(b"GET /channels/news?last_event_id=earliest HTTP/1.1\r\nHost: test\r\n\r\n")
            assert read_until(client, b"\nid: ").partition(b"data: ")[2].startswith(b"kept\n")
        with server.connect() as client:
            told = sent(client, "GET", location[1].decode())
            assert b'event: stream-error\ndata: {"status":503,"error":"the server that ran it has closed"}' in told
        server.signal(signal.SIGTERM)
        assert server.end() == (0, "")


@pytest.mark.parametrize("form", ["common", "json"])
def test_a_token_is_in_no_line_of_the_access_log(project: Path, form: str) -> None:
    tokens = {"RAWSTREAM_PUBLISH_TOKEN": "publish-secret", "RAWSTREAM_SUBSCRIBE_TOKEN": "subscribe-secret"}
    with pytest.MonkeyPatch.context() as environment:
        for name, value in tokens.items():
            environment.setenv(name, value)
        with running("--port", "0", "--access-log", form, cwd=project) as server:
            for field, status in [
                ("X: y", 401),
                ("Authorization: Bearer publish-secreT", 403),
                ("Authorization: Bearer publish-secret", 201),
            ]:
                with server.connect() as client:
                    answer = sent(client, "POST", "/channels/news", field, "Content-Type: text/plain", body="x")
                    assert answer.startswith(f"HTTP/1.1 {status} ".encode())
            with server.connect() as client:
                answer = sent(client, "GET", "/channels/news/info", "Cookie: rawstream-subscribe=subscribe-secret")
                assert answer.startswith(b"HTTP/1.1 200 ")
            server.signal(signal.SIGTERM)
            status, said = server.end()
    assert status == 0
    assert said.count("/channels/news") == 4
    assert "secre" not in said
