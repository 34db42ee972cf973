"""`slowhttptest` against `python -m rawstream`: is the demo still there for others while so many clients are slow?

slowhttptest opens connections that are slow in one of three ways, and asks for the page itself every second (its
probe). It says "service available: YES" as long as the probe is answered within its time. Exit status 1 says that it
once was not, or that slowhttptest could not be run.
"""

import contextlib
import json
import re
import resource
import shutil
import subprocess
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.machine import machine, versions
from benchmarks.process import ROOT
from benchmarks.progress import Progress
from benchmarks.report import FORMAT, Json

HELP = "slow heads, slow bodies and slow readers (the Debian package slowhttptest): is the demo still answering?"
PINNED = False
CONNECTIONS = 1000
SECONDS = 30
RATE = 50
"""New connections a second: slowhttptest's own choice."""

_PROBE_SECONDS = 3
"""For the answer to slowhttptest's own request."""

_COLOURS = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_STATUS = re.compile(
    r"status on (?P<second>\d+)th second:\s+initializing:\s+\d+\s+pending:\s+\d+\s+connected:\s+(?P<connected>\d+)\s+"
    r"error:\s+(?P<error>\d+)\s+closed:\s+(?P<closed>\d+)\s+service available:\s+(?P<available>YES|NO)"
)


@dataclass(frozen=True, slots=True)
class Mode:
    """One way to be slow: slowhttptest's options for it, and what it asks for."""

    name: str
    options: tuple[str, ...]
    path: str


MODES = (
    Mode("slow heads", ("-H", "-i", "1"), "/healthz"),
    Mode("slow bodies", ("-B", "-i", "1", "-s", "8192"), "/stream"),
    Mode("slow reading", ("-X", "-w", "512", "-y", "1024", "-n", "1", "-z", "32", "-k", "3"), "/bulk?rows=5000"),
)
"""Slowloris, "R U Dead Yet?", and a receive window of less than a packet: 230 KB are asked for three times, of which
server and kernel hold 50 KB. (The probe asks for the same; for more it would take a while itself.)"""


def _limits() -> None:
    """Let this process and those that it starts have as many files as they may."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


@contextlib.contextmanager
def demo(*options: str) -> Iterator[str]:
    """`python -m rawstream` as a process of its own; gives its address."""
    command = [sys.executable, "-m", "rawstream", "--port", "0", *options]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, preexec_fn=_limits) as process:
        assert process.stderr is not None, "started with a pipe"
        line = process.stderr.readline()
        try:
            if " listening on " not in line:
                raise RuntimeError(line + process.stderr.read())
            yield line.partition(" listening on ")[2].split()[0]
        finally:
            process.terminate()
            process.communicate()


def attack(mode: Mode, url: str, connections: int, seconds: int) -> list[Json]:
    """Run slowhttptest; the state that it told, each five seconds."""
    program = shutil.which("slowhttptest")
    if program is None:
        raise FileNotFoundError("slowhttptest is not installed (on Debian: apt-get install slowhttptest)")
    command = [program, "-c", str(connections), "-r", str(RATE), "-l", str(seconds), "-p", str(_PROBE_SECONDS)]
    done = subprocess.run(
        [*command, *mode.options, "-v", "1", "-u", url + mode.path],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=seconds + 60,
        check=False,
        preexec_fn=_limits,
    )
    return read_states(done.stdout)


def read_states(output: str) -> list[Json]:
    """What slowhttptest told while it ran."""
    states = [
        {
            "second": int(found["second"]),
            **{name: int(found[name]) for name in ("connected", "error", "closed")},
            "available": found["available"] == "YES",
        }
        for found in _STATUS.finditer(_COLOURS.sub("", output))
    ]
    if not states:
        raise ValueError(f"slowhttptest told no state, but: {output[-400:]}")
    return states


def add_options(parser: ArgumentParser) -> None:
    """The options of the command that are its own."""
    parser.add_argument("--connections", type=int, default=CONNECTIONS, metavar="N", help=f"slow ones ({CONNECTIONS})")
    parser.add_argument(
        "--seconds", type=int, default=SECONDS, metavar="N", help=f"for each way to be slow ({SECONDS})"
    )


def main(options: Namespace) -> int:
    """Run the command; gives the exit status."""
    if min(options.connections, options.seconds) < 1:
        print("--connections and --seconds are numbers of at least 1", file=sys.stderr)
        return 2
    result: Json = {
        "format": FORMAT,
        "command": "slowhttptest",
        "began": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": versions(),
        "connections": options.connections,
        "seconds": options.seconds,
        "modes": {},
    }
    progress = Progress(len(MODES), sys.stderr)
    try:
        for mode in MODES:
            progress.step(mode.name)
            with demo() as url:
                result["modes"][mode.name] = attack(mode, url, options.connections, options.seconds)
    except (OSError, ValueError) as exc:
        print(f"\n{exc}", file=sys.stderr)
        return 1
    finally:
        progress.close()
    path: Path = options.output / "slowhttptest.json"
    path.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(table(result["modes"]))
    print(f"\nWritten: {path}")
    return 0 if all(available(states) for states in result["modes"].values()) else 1


def available(states: Sequence[Json]) -> bool:
    """Whether every probe was answered."""
    return all(state["available"] for state in states)


def table(modes: Json) -> str:
    """The result for the terminal."""
    lines = [f"{'':14}{'connected at most':>20}{'closed by the server':>22}{'errors':>8}  service available"]
    for name, states in modes.items():
        most, last = max(state["connected"] for state in states), states[-1]
        told = (
            "YES"
            if available(states)
            else "NO at second " + ", ".join(str(state["second"]) for state in states if not state["available"])
        )
        lines.append(f"{name:14}{most:>20}{last['closed']:>22}{last['error']:>8}  {told}")
    return "\n".join(lines)
