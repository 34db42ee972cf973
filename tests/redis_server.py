"""A Redis of the tests' own: started, paused, killed, and started again at the same place."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import absent

PATIENCE = 60.0
"""Seconds until it is up, at the latest."""


class RedisServer:
    """One on a port of the loopback address, with its files in `directory`; each entry is on disk before its reply."""

    def __init__(self, directory: Path, *options: str) -> None:
        program = shutil.which("redis-server", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/bin")
        if program is None:
            absent("redis-server is not installed: `make system-packages` installs it")
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]
        self.directory = directory
        self._command = [
            program, "--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(directory), "--save", "",
            "--appendonly", "yes", "--appendfsync", "always", "--logfile", "log", *options,
        ]  # fmt: skip
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Until it answers, be it with an error."""
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                if not self.ask("PING").startswith(b"-LOADING"):
                    return
            except OSError:
                assert self._process.poll() is None, "it has ended"
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def ask(self, *command: str) -> bytes:
        """The first bytes of the reply to a command, which is sent on a connection of its own."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE) as sock:
            parts = [each.encode() for each in command]
            sock.sendall(b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts))
            reply = sock.recv(1 << 20)
            while not reply.endswith(b"\r\n"):
                reply += sock.recv(1 << 20)
            return reply

    def kill(self) -> None:
        """At once, as by a power cut; also if it is paused."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        """It keeps its connections, and does nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)


@contextlib.contextmanager
def running_redis(*options: str) -> Iterator[RedisServer]:
    """One that runs; `options` are those of its command line. In the end, it and its files are gone."""
    with tempfile.TemporaryDirectory(prefix="redis") as directory:
        server = RedisServer(Path(directory), *options)
        try:
            server.start()
            yield server
        finally:
            server.kill()


@pytest.fixture(scope="session")
def redis_running() -> Iterator[RedisServer]:
    """One for all tests of this process, which keeps nothing on disk."""
    with running_redis("--appendonly", "no") as server:
        yield server


def be_patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stores wait for their Redis, which may have to wait for a processor, almost as long as a test may take."""
    for module in ("redis_commands", "redis_follower"):
        monkeypatch.setattr(f"rawstream.channels.{module}.PATIENCE", 15.0)


@pytest.fixture
def redis_server(redis_running: RedisServer, monkeypatch: pytest.MonkeyPatch) -> RedisServer:
    """The same, and it is empty."""
    assert redis_running.ask("FLUSHALL") == b"+OK\r\n"
    be_patient(monkeypatch)
    return redis_running
