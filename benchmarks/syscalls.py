"""Counts a server's system calls, by `strace -c` or else by `perf stat`: in turns of their own, which are not timed.

strace stops the server at each call, so what is counted under it is a small load: a rate at which the server is not
late all the time. perf counts without stopping anybody, but not by name.
"""

import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

TOOLS = ("strace", "perf")
_LINE = re.compile(r"^ *[\d.]+ +[\d.]+ +\d+ +(?P<calls>\d+) +(?:\d+ +)?(?P<name>\w+)$", re.MULTILINE)
_PERF = re.compile(r"^(?P<calls>\d+),", re.MULTILINE)
_END_SECONDS = 30.0  # for a tool to let go of the server and tell what it has counted


class NotTraced(Exception):
    """The tool is there, but may not look at the server."""


class Tracer(Protocol):
    """Counts from `start` to `stop`."""

    tool: str

    def start(self, pids: Sequence[int]) -> None: ...

    def stop(self) -> dict[str, int]: ...


@dataclass(frozen=True, slots=True)
class Syscalls:
    """System calls for each unit of a workload (a chunk, an event, a request, a delivery)."""

    tool: str
    per_unit: float
    by_name: dict[str, float] = field(default_factory=dict)
    """Of each name, most first; only strace knows them."""

    def as_json(self) -> dict[str, object]:
        """The same as a JSON object."""
        return {"tool": self.tool, "per_unit": self.per_unit, "by_name": self.by_name}


def tracer() -> "Tracer | None":
    """The first tool that is there, or None."""
    if shutil.which("strace"):
        return Strace()
    return Perf() if shutil.which("perf") else None


class Strace:
    """`strace -c -f -p`: every process and thread of the server is stopped at each of its calls."""

    tool = "strace"

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._file = ""

    def start(self, pids: Sequence[int]) -> None:
        """Attach to the processes, and wait until that is done. Raises `NotTraced`."""
        descriptor, self._file = tempfile.mkstemp(prefix="rawstream-strace-")
        os.close(descriptor)
        of_pids = [word for pid in pids for word in ("-p", str(pid))]
        self._process = subprocess.Popen(
            ["strace", "-c", "-f", "-o", self._file, *of_pids], stderr=subprocess.PIPE, text=True
        )
        assert self._process.stderr is not None, "started with a pipe"
        attached = 0
        while attached < len(pids):
            line = self._process.stderr.readline()
            attached += " attached" in line
            if not line or "attach: " in line:
                self.stop()
                raise NotTraced(f"strace could not attach: {line.strip() or 'it ended'}")

    def stop(self) -> dict[str, int]:
        """Let go of the server; gives the calls of each name, most first."""
        assert self._process is not None, "started before it is stopped"
        _interrupt(self._process)
        path = Path(self._file)
        calls = {match["name"]: int(match["calls"]) for match in _LINE.finditer(path.read_text("utf-8"))}
        path.unlink()
        calls.pop("total", None)
        return dict(sorted(calls.items(), key=lambda call: -call[1]))


class Perf:
    """`perf stat -e raw_syscalls:sys_enter`: the kernel counts."""

    tool = "perf"

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def start(self, pids: Sequence[int]) -> None:
        """Begin to count, and wait until perf says that it does. Raises `NotTraced`."""
        commands, tell = os.pipe()
        told, answers = os.pipe()
        command = ["perf", "stat", "-x", ",", "-e", "raw_syscalls:sys_enter", "-p", ",".join(map(str, pids))]
        control = ["--delay", "-1", "--control", f"fd:{commands},{answers}"]
        self._process = subprocess.Popen(
            [*command, *control], stderr=subprocess.PIPE, text=True, pass_fds=(commands, answers)
        )
        os.close(commands)
        os.close(answers)
        with open(tell, "wb", buffering=0) as to_perf, open(told, "rb", buffering=0) as from_perf:
            try:
                to_perf.write(b"enable\n")
                begun = from_perf.read(3)
            except BrokenPipeError:
                begun = b""
        if begun != b"ack":
            raise NotTraced(f"perf did not begin: {_interrupt(self._process).strip()[-120:]}")

    def stop(self) -> dict[str, int]:
        """End; gives all calls under no name. Raises `NotTraced`."""
        assert self._process is not None, "started before it is stopped"
        said = _interrupt(self._process)
        found = _PERF.search(said)
        if found is None:
            raise NotTraced(f"perf counted nothing: {said.strip()[-120:]}")
        return {"": int(found["calls"])}


def _interrupt(process: subprocess.Popen[str]) -> str:
    """End a tool as Ctrl-C does; gives its stderr. Raises `NotTraced` if it does not end."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
    try:
        _, said = process.communicate(timeout=_END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise NotTraced(f"it did not end within {_END_SECONDS:.0f} s") from None
    return said


def per_unit(tool: str, calls: dict[str, int], units: int) -> Syscalls:
    """What was counted, for each of so many units."""
    by_name = {name: count / units for name, count in calls.items() if name and count / units >= 0.01}
    return Syscalls(tool, sum(calls.values()) / units, by_name)
