"""A page of docs/how-to as somebody follows it: its files are written, its commands typed, what they print is compared.

A block is a file, which says its name in its first line (`# app.py`), or a transcript (`console`). In a transcript a
command begins with `$ ` and goes on behind `> `; one that ends with ` &` runs until the page's end. Below it stands
what it prints: `...` is any text of a line, and alone on a line any lines. Ids, sizes and times vary, and are not
compared.
"""

from __future__ import annotations

import itertools
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PAGES = Path(__file__).parent.parent / "docs" / "how-to"
PATIENCE = 100.0
"""Seconds after which a command is killed, so that the test fails and says what was printed until then."""

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_COMMAND = re.compile(r"^\$ (.*(?:\n> .*)*)\n?((?:(?!\$ ).*\n)*)", re.MULTILINE)
_NAME = re.compile(r"# ([\w.-]+)\n")
_VARIES = [
    (r"\b\d{13}-", "<ms>-"),
    (r"\b[0-9a-f]{32}\b", "<id>"),
    (r"\brawstream \d[\w.]*", "rawstream <version>"),
    (r"\((?:asyncio|uvloop)\b", "(<loop>"),
    (r"//0\.0\.0\.0:", "//127.0.0.1:"),
    (r"\bpid(=\"| )\d+", r"pid\1<pid>"),
    (r"\d\d/\w{3}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}", "<time>"),
    (r"\b\d+ \d+\.\d+s ", "<size> <seconds> "),
    (r"\b[0-9a-f]{6}-(\d+)\b", r"<request>"),
]
_SLOW = re.compile(r"^Executing <.*\n", re.MULTILINE)  # what asyncio's debug mode says of a busy machine
_READERS = "closing: waiting up to "  # whom a server that is ended still has


def ports() -> Iterator[int]:
    """Ports of the loopback address that are free, outside of those that the kernel gives to anybody."""
    for number in itertools.count(os.getpid() * 64):
        try:
            with socket.create_server(("127.0.0.1", port := 10_000 + number % 20_000)):
                pass
        except OSError:
            continue
        yield port


_ports = ports()


class Page:
    """A page, and the directory in which it is followed. `with Page(...) as page: page.follow()`."""

    def __init__(self, name: str, directory: Path) -> None:
        text = (PAGES / f"{name}.md").read_text("utf-8")
        self.directory = directory
        self.environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin:/sbin",
            "PYTHONPATH": str(PAGES.parent.parent),
            "PYTHONASYNCIODEBUG": "1",
            "PYTHONUNBUFFERED": "1",
            "PYTHONWARNINGS": "error",
            "NO_PROXY": "*",
        }
        self.pass_fds: list[int] = []
        self.files: dict[str, str] = {}
        self.transcripts: list[str] = []
        for kind, block in _BLOCK.findall(text):
            if kind == "console":
                assert block.startswith("$ "), f"no command: {block}"
                self.transcripts.append(block)
            else:
                name_of = _NAME.match(block)
                assert name_of, f"a block that nobody runs: {block}"
                self.files[name_of[1]] = block
        assert text.count("```") == 2 * (len(self.files) + len(self.transcripts)), "two files of one name"
        said = set(re.findall(r"(?:\blocalhost|127\.0\.0\.1|port=|--port |listen |\[::\]):?(\d{4})\b", text))
        self.ports = {documented: str(next(_ports)) for documented in sorted(said | {"8000"})}
        self.used: set[str] = set()
        self.running: list[subprocess.Popen[str]] = []
        """What was started, and ends with the page."""

    def __enter__(self) -> Page:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        said = [self._ended(process) for process in reversed(self.running)]
        if kind is None:
            assert not any(said), f"more is said than is shown: {said}"
            assert {*self.files} - self.used == set(), "files that nobody uses"

    # -- what stands on it -------------------------------------------------------------------------------------------

    def file(self, name: str) -> str:
        """The text of one of its files, which is used by that."""
        self.used.add(name)
        return self.here(self.files[name])

    def write(self) -> None:
        """Write all files, and set out those that commands name as used."""
        for name, text in self.files.items():
            (self.directory / name).write_text(self.here(text))
            module = name.removesuffix(".py")
            if any(re.search(rf"\b{re.escape(name)}\b|\b{module}:\w", each) for each in self.transcripts):
                self.used.add(name)

    def here(self, text: str) -> str:
        """The text with this test's ports."""
        return re.sub(r"\b\d{4}\b", lambda found: self.ports.get(found[0], found[0]), text)

    def commands(self) -> list[tuple[str, str]]:
        """Each command, and what is shown below it."""
        return [found for each in self.transcripts for found in _COMMAND.findall(each)]

    # -- following it ------------------------------------------------------------------------------------------------

    def follow(self) -> None:
        """Write its files, and type its commands."""
        self.write()
        for command, shown in self.commands():
            self.type(command, shown)

    def type(self, command: str, shown: str) -> None:
        """Type one command, and compare what it prints with what is shown."""
        typed = self._typed(command)
        if assigned := re.fullmatch(r"(\w+)=\$\((.*)\)", typed):
            self.environment[assigned[1]] = self._printed(assigned[2], anything=False).rstrip("\n")
            return
        if typed.endswith(" &"):
            self.start(typed.removesuffix(" &"), shown)
            return
        deadline = time.monotonic() + PATIENCE
        while not _matches(shown, printed := self._printed(typed, bool(shown))):
            # What somebody else writes into a file comes in its own time.
            alive = command.startswith("cat ") and all(process.poll() is None for process in self.running)
            if not alive or time.monotonic() > deadline:
                raise AssertionError(f"$ {command}\n{printed}")
            time.sleep(0.02)

    def start(self, command: str, shown: str = "", **options: Any) -> subprocess.Popen[str]:
        """Start what goes on running, until it has printed as many lines as are shown."""
        process = subprocess.Popen(
            ["bash", "-c", f"exec env {command}"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            **{**self._how(), "start_new_session": True, **options},
        )  # fmt: skip
        self.running.append(process)
        timer = threading.Timer(PATIENCE, process.kill)
        timer.start()
        try:
            assert process.stdout is not None
            said = (line for line in iter(process.stdout.readline, "") if not _SLOW.match(line))
            lines = list(itertools.islice(said, len(shown.splitlines())))
        finally:
            timer.cancel()
            timer.join()
        if not _matches(shown, printed := self._there("".join(lines))):
            process.kill()
            raise AssertionError(f"$ {command}\n{printed}{process.stdout.read()}")
        return process

    def _printed(self, typed: str, anything: bool) -> str:
        done = subprocess.run(
            ["bash", "-c", typed], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=PATIENCE, **self._how()
        )
        assert anything or done.returncode == 0, done.stdout
        return self._there(done.stdout)

    def _how(self) -> dict[str, Any]:
        return {
            "cwd": self.directory, "env": self.environment, "pass_fds": self.pass_fds, "stdin": subprocess.DEVNULL,
            "text": True,
        }  # fmt: skip

    def _typed(self, command: str) -> str:
        """A command as it is typed here: on loopback addresses, and on this test's ports."""
        command = command.replace("\n> ", "\n").replace("0.0.0.0", "127.0.0.1")
        if not re.search(r"--(port|fd|uds) |socket-activate", command):
            command = re.sub(r"(-m rawstream serve \S+)", r"\1 --port 8000", command)
        return self.here(command)

    def _there(self, text: str) -> str:
        """What is printed here, as it would be there."""
        text = _SLOW.sub("", text)
        for documented, port in self.ports.items():
            text = re.sub(rf"\b{port}\b", documented, text)
        return text.replace(str(self.directory), "/srv/app")

    def _ended(self, process: subprocess.Popen[str]) -> str:
        """End it in order; what it said that is not shown."""
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        timer = threading.Timer(PATIENCE, process.kill)
        timer.start()
        said, _ = process.communicate()
        timer.cancel()
        timer.join()
        lines = [line for line in _SLOW.sub("", said).splitlines(keepends=True) if not line.startswith(_READERS)]
        return "".join(lines) + (f"exit status {process.returncode}" if process.returncode else "")


def _matches(shown: str, printed: str) -> bool:
    """Whether this is what is shown, but for what varies."""
    pattern = ""
    for line in _masked(shown).rstrip().splitlines():
        parts = map(re.escape, line.split("..."))
        pattern += r"(?:[^\n]*\n)*" if line == "..." else r"[^\n]*".join(parts) + r"\n"
    return re.fullmatch(pattern, f"{_masked(printed).rstrip()}\n".lstrip("\n")) is not None


def _masked(text: str) -> str:
    for varying, mask in _VARIES:
        text = re.sub(varying, mask, text)
    return text
