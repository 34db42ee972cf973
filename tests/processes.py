"""`python -m rawstream ...` in processes of its own, of which none is left behind."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import rawstream

ROOT = Path(rawstream.__file__).parent.parent
PATIENCE = 150.0
"""Seconds after which all is killed, so that who reads a line that never comes reads an end."""


class Running:
    """A command that runs, from when it said where it listens (or had to end)."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.before: list[str] = []
        """The lines that it said before."""
        while " listening on " not in (line := self.line()) and line:
            self.before.append(line)
        self.first_line = line

    def line(self) -> str:
        """The next line on stderr, without its end; empty at the end of the process and of its workers."""
        assert self.process.stderr is not None
        return self.process.stderr.readline().rstrip("\n")

    @property
    def port(self) -> int:
        match = re.search(r":(\d+) \(", self.first_line)
        assert match is not None, [*self.before, self.first_line]
        return int(match[1])

    @property
    def workers(self) -> list[int]:
        """The process ids of the workers."""
        return [int(found[1]) for line in self.before if (found := re.fullmatch(r"worker \d+ of \d+: pid (\d+)", line))]

    def connect(self) -> socket.socket:
        """A connection to it, on which nothing waits for longer than ten seconds."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=60)

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def end(self) -> tuple[int, str]:
        """Its exit status, and what else it and its workers said until all of them had ended."""
        assert self.process.stderr is not None
        rest = self.process.stderr.read()
        return self.process.wait(10), rest


@contextlib.contextmanager
def running(
    *arguments: str, cwd: Path | None = None, start: tuple[str, ...] = ("-m", "rawstream"), **options: Any
) -> Iterator[Running]:
    """Start it; in the end, it and its workers are gone. `start` is what Python is told to run."""
    with subprocess.Popen(
        [sys.executable, *start, *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # then its process id is that of its group, in which its workers are too
        **options,
    ) as process:

        def kill_all() -> None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)

        timer = threading.Timer(PATIENCE, kill_all)
        timer.start()
        try:
            yield Running(process)
            assert timer.is_alive(), "it had to be killed"
        finally:
            kill_all()
            timer.cancel()
            timer.join()


def read_until(sock: socket.socket, mark: bytes) -> bytes:
    """Everything up to `mark`, and what came with it."""
    data = b""
    while mark not in data:
        piece = sock.recv(65536)
        assert piece, data
        data += piece
    return data


def read_rest(sock: socket.socket) -> bytes:
    """Everything until the connection's end, be it proper or a reset."""
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := sock.recv(65536):
            data += piece
    return data


def ask(sock: socket.socket, target: str = "/") -> bytes:
    """A request's answer, at whose end the server closes."""
    sock.sendall(f"GET {target} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n".encode())
    return read_rest(sock)
