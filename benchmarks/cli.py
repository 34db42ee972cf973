"""The command line: `python -m benchmarks all`, one of `COMMANDS`, `compare`, `soak` or `slowhttptest`."""

import argparse
import dataclasses
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Protocol

from benchmarks import compare, kept, page, report, session, slowhttp
from benchmarks.options import core, known_names, positive
from benchmarks.output import NotWritable, claimed
from benchmarks.page.tables import markdown
from benchmarks.peers import PEERS, Peer
from benchmarks.plan import Plan
from benchmarks.process import ROOT
from benchmarks.settings import QUICK, Settings
from benchmarks.soak import run as soak
from benchmarks.turns import Outcome, enter
from benchmarks.workload import Workload
from benchmarks.workloads import COMMANDS as OF_PEERS
from benchmarks.workloads import scale

COMMANDS: dict[str, tuple[Workload, ...]] = {**OF_PEERS, "scale": (scale.SCALE,)}
COMMANDS["all"] = tuple(workload for workloads in COMMANDS.values() for workload in workloads)
"""The workloads of each command, in the order in which they run."""

MINUTES = 30
"""What `all` may take."""


class Other(Protocol):
    """A command that measures nothing: a module with these."""

    HELP: str
    PINNED: bool
    """Whether server and load have a core each."""

    def add_options(self, parser: argparse.ArgumentParser) -> None: ...

    def main(self, options: argparse.Namespace) -> int: ...


OTHERS: dict[str, Other] = {"soak": soak, "slowhttptest": slowhttp}
RESULTS = ROOT / "benchmarks" / "results"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure how chunks travel.")
    known = ",".join([*COMMANDS, "compare", *OTHERS])
    commands = parser.add_subparsers(dest="command", required=True, metavar="{" + known + "}")
    for command, workloads in COMMANDS.items():
        _add_workloads(commands, command, workloads)
    compare.add_options(commands.add_parser("compare", help=compare.HELP))
    for command, module in OTHERS.items():
        sub = commands.add_parser(command, help=module.HELP, description=module.HELP)
        module.add_options(sub)
        _add_output(sub)
        if module.PINNED:
            _add_cores(sub)
    return parser


def _add_workloads(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", command: str, workloads: Sequence[Workload]
) -> None:
    known, peers = ", ".join(each.name for each in workloads), ", ".join(peer.name for peer in PEERS)
    what = "everything, within half an hour" if command == "all" else f"the workloads {known}"
    sub = commands.add_parser(command, help=what, description=f"Runs {what}, and writes JSON and a page with pictures.")
    sub.add_argument("--quick", action="store_true", help="one round of short samples: for a look")
    sub.add_argument(
        "--rounds", type=positive, metavar="N", help=f"how often each peer takes its turn ({Settings().rounds})"
    )
    minutes = MINUTES if command == "all" else None
    sub.add_argument(
        "--minutes",
        type=positive,
        default=minutes,
        metavar="N",
        help=f"as many rounds as end within that ({minutes or 'no limit'})",
    )
    sub.add_argument("--peers", type=_peers, default=PEERS, metavar="A,B", help=f"only these peers ({peers})")
    sub.add_argument(
        "--workloads",
        type=partial(_workloads, workloads),
        default=workloads,
        metavar="A,B",
        help=f"only these workloads ({known})",
    )
    sub.add_argument(
        "--from", type=_result, dest="shown", metavar="FILE.json", help="measure nothing: show a result that was kept"
    )
    _add_output(sub)
    _add_cores(sub)


def _add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output", type=Path, default=RESULTS, metavar="DIR", help=f"where results go ({RESULTS})")


def _add_cores(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--server-core", type=core, metavar="N", help="core of the servers (the first)")
    parser.add_argument("--load-core", type=core, metavar="N", help="core of the load (the second)")


def _result(text: str) -> report.Json:
    try:
        return kept.read(Path(text))
    except kept.Unreadable as exc:
        raise argparse.ArgumentTypeError(str(exc)) from None


def _peers(text: str) -> tuple[Peer, ...]:
    known = {peer.name: peer for peer in PEERS}
    return tuple(known[name] for name in known_names(text, known, "peer"))


def _workloads(all_: Sequence[Workload], text: str) -> tuple[Workload, ...]:
    known = {workload.name: workload for workload in all_}
    return tuple(known[name] for name in known_names(text, known, "workload"))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; gives the exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.command == "compare":
        return compare.main(options)
    shown: report.Json | None = getattr(options, "shown", None)
    if shown is not None:
        return _show(shown, options.output, keep=False)
    _check_machine(parser, options)
    planned = None if options.command in OTHERS else _plan(parser, options)
    try:
        with claimed(options.output, options.command):
            if planned is None:
                return OTHERS[options.command].main(options)
            print(planned.text(), file=sys.stderr)
            return _show(session.measure(options.command, planned), options.output, keep=True)
    except NotWritable as exc:
        parser.error(str(exc))


def _show(result: report.Json, directory: Path, *, keep: bool) -> int:
    """Write a result, its JSON too if that is to be kept; then print it, even where it can't be written."""
    written: list[Path] = []
    failed = ""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if keep:
            written.append(kept.write(result, directory))
        written += page.write(result, directory)
    except OSError as exc:
        failed = f"can't write results to {exc.filename or directory}: {exc.strerror}"
    print(report.tables(result))
    print("\n" + markdown(result))
    if failed:
        print(failed, file=sys.stderr)
        return 1
    texts = [path for path in written if path.suffix != ".svg"]
    print("\n".join(f"Written: {path}" for path in texts), f"and {len(written) - len(texts)} pictures beside them")
    if interrupted := result.get("interrupted"):
        print(f"Interrupted {interrupted} The rest was not measured.", file=sys.stderr)
        return 1 if "fault" in result else 130  # as a shell says it of a program that Ctrl-C has ended
    return 0


def _check_machine(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    if sys.platform != "linux":
        parser.error("the benchmarks run on Linux only (cores, process clocks, epoll)")
    cores = sorted(os.sched_getaffinity(0))
    for name, usual in (("server_core", cores[0]), ("load_core", cores[1 % len(cores)])):
        if (asked := getattr(options, name, None)) is not None and asked not in cores:
            parser.error(f"there is no core {asked} for this process; there are: {', '.join(map(str, cores))}")
        setattr(options, name, usual if asked is None else asked)


def _plan(parser: argparse.ArgumentParser, options: argparse.Namespace) -> Plan:
    settings = dataclasses.replace(
        QUICK if options.quick else Settings(), server_core=options.server_core, load_core=options.load_core
    )
    if options.rounds:
        settings = dataclasses.replace(settings, rounds=options.rounds)
    plan = _planned(options.workloads, options.peers, settings, options.minutes * 60 if options.minutes else None)
    if not any(outcome.entries for outcome in plan.outcomes):
        peers, workloads = (", ".join(each.name for each in part) for part in (options.peers, options.workloads))
        parser.error(f"nobody takes part: of these workloads ({workloads}), none is for these peers: {peers}")
    return plan


def _planned(
    workloads: Sequence[Workload], peers: Sequence[Peer], settings: Settings, seconds: float | None = None
) -> Plan:
    return Plan([entered(workload, peers) for workload in workloads], settings, seconds)


def measure(command: str, workloads: Sequence[Workload], peers: Sequence[Peer], settings: Settings) -> report.Json:
    """Run the workloads with these sizes, and give the result as JSON."""
    return session.measure(command, _planned(workloads, peers, settings))


def entered(workload: Workload, peers: Sequence[Peer]) -> Outcome:
    """A workload with those of `peers` that take part. In `scale` rawstream is run in another way."""
    if workload is scale.SCALE:
        names = {peer.name for peer in peers}
        peers = [peer for peer in scale.PEERS if peer.name in names]
    return enter(workload, peers)
