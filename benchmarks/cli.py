"""The command line: `python -m benchmarks` with one of `COMMANDS`, `soak` or `slowhttptest`."""

import argparse
import dataclasses
import json
import os
import sys
import time
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Protocol

from benchmarks import report, slowhttp
from benchmarks.load import reader_cost
from benchmarks.machine import machine, missing, programs, versions
from benchmarks.peers import PEERS, Peer
from benchmarks.process import ROOT
from benchmarks.progress import Progress
from benchmarks.settings import QUICK, Settings
from benchmarks.soak import run as soak
from benchmarks.subscribers import raise_files
from benchmarks.turns import count_turns, enter, run
from benchmarks.workload import Workload
from benchmarks.workloads import COMMANDS


class Other(Protocol):
    """A command that measures nothing, but shows whether rawstream holds: a module with these."""

    HELP: str
    PINNED: bool
    """Whether server and load have a core each."""

    def add_options(self, parser: argparse.ArgumentParser) -> None: ...

    def main(self, options: argparse.Namespace) -> int: ...


OTHERS: dict[str, Other] = {"soak": soak, "slowhttptest": slowhttp}
RESULTS = ROOT / "benchmarks" / "results"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure how chunks travel.")
    names = ", ".join(peer.name for peer in PEERS)
    commands = parser.add_subparsers(dest="command", required=True, metavar="{" + ",".join([*COMMANDS, *OTHERS]) + "}")
    for command, workloads in COMMANDS.items():
        known = ", ".join(workload.name for workload in workloads)
        sub = commands.add_parser(command, help=f"the workloads {known}", description=f"Runs the workloads {known}.")
        sub.add_argument("--quick", action="store_true", help="one round of short samples, within a minute")
        sub.add_argument("--rounds", type=_positive, metavar="N", help="how often each peer takes its turn (3)")
        sub.add_argument("--peers", type=_peers, default=PEERS, metavar="A,B", help=f"only these peers ({names})")
        sub.add_argument(
            "--workloads",
            type=partial(_workloads, workloads),
            default=workloads,
            metavar="A,B",
            help=f"only these workloads ({known})",
        )
        _add_output(sub)
        _add_cores(sub)
    for command, module in OTHERS.items():
        sub = commands.add_parser(command, help=module.HELP, description=module.HELP)
        module.add_options(sub)
        _add_output(sub)
        if module.PINNED:
            _add_cores(sub)
    return parser


def _add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output", type=Path, default=RESULTS, metavar="DIR", help=f"where results go ({RESULTS})")


def _add_cores(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--server-core", type=_core, metavar="N", help="core of the servers (the first)")
    parser.add_argument("--load-core", type=_core, metavar="N", help="core of the load (the second)")


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least 1")
    return int(text)


def _core(text: str) -> int:
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not the number of a core")
    return int(text)


def _peers(text: str) -> tuple[Peer, ...]:
    known = {peer.name: peer for peer in PEERS}
    return tuple(known[name] for name in _names(text, known, "peer"))


def _workloads(all_: Sequence[Workload], text: str) -> tuple[Workload, ...]:
    known = {workload.name: workload for workload in all_}
    return tuple(known[name] for name in _names(text, known, "workload"))


def _names(text: str, known: Collection[str], kind: str) -> list[str]:
    names = [name for name in text.split(",") if name]
    for name in names or [""]:
        if name not in known:
            raise argparse.ArgumentTypeError(f"no {kind} {name!r}; there are: {', '.join(known)}")
    return names


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; gives the exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if sys.platform != "linux":
        parser.error("the benchmarks run on Linux only (cores, process clocks, epoll)")
    cores = sorted(os.sched_getaffinity(0))
    for name, core in (("server_core", cores[0]), ("load_core", cores[1 % len(cores)])):
        if (asked := getattr(options, name, None)) is not None and asked not in cores:
            parser.error(f"there is no core {asked} for this process; there are: {', '.join(map(str, cores))}")
        setattr(options, name, core if asked is None else asked)
    try:
        options.output.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        parser.error(f"can't write results to {options.output}: {exc.strerror}")
    if options.command in OTHERS:
        return OTHERS[options.command].main(options)
    settings = dataclasses.replace(
        QUICK if options.quick else Settings(), server_core=options.server_core, load_core=options.load_core
    )
    if options.rounds:
        settings = dataclasses.replace(settings, rounds=options.rounds)
    result = measure(options.command, options.workloads, options.peers, settings)
    print(report.tables(result, options.workloads))
    print("\nWritten: " + ", ".join(str(path) for path in write(result, options.output)))
    return 0


def measure(command: str, workloads: Sequence[Workload], peers: Sequence[Peer], settings: Settings) -> report.Json:
    """Run the workloads and give the result as JSON."""
    about: report.Json = {
        "began": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": {**versions(), **programs()},
        "reader": reader_cost(),
    }
    raise_files()
    outcomes = [enter(workload, peers) for workload in workloads]
    progress = Progress(count_turns(outcomes, settings.rounds), sys.stderr)
    began = time.monotonic()
    try:
        for outcome in outcomes:
            run(outcome, settings, progress)
    finally:
        progress.close()
    about["seconds"] = round(time.monotonic() - began, 1)
    return report.build(command, outcomes, settings, about)


def write(result: report.Json, directory: Path) -> list[Path]:
    """Write the JSON and, where matplotlib is installed, the plots; gives the files."""
    path = directory / f"{result['command']}.json"
    path.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    if missing(["matplotlib"]):
        print("No plots: matplotlib is not installed.", file=sys.stderr)
        return [path]
    from benchmarks.plots import draw

    return [path, *draw(result, directory)]
