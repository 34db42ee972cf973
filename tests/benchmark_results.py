"""Results of the benchmarks that nobody measured: made up, but through `report.build`, as real ones are."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.peers import PEERS, Peer
from benchmarks.settings import Settings
from benchmarks.turns import Entry, Outcome
from benchmarks.workload import Column, Contender, Sample, Workload, alone

BY_NAME = {peer.name: peer for peer in PEERS}
ABOUT: dict[str, object] = {
    "began": "2026-11-22T20:00:00+00:00",
    "machine": {"processor": "a processor", "cores": 2, "system": "Linux 6", "architecture": "x86_64"},
    "versions": {"python": "3.11.7", "uvloop": None},
    "reader": {"read_us": 5.0, "echo_us": 15.0},
    "seconds": 12.5,
}
COLUMN = Column("cpu_per_chunk_us", "CPU/chunk µs", digits=1, ratio=True)
Values = Mapping[str, Sequence[float]]


def fake(name: str = "paced", *columns: Column) -> Workload:
    """A workload that nobody measures."""
    return Workload(
        name=name,
        title=f"{name}: a fake",
        contenders=alone,
        check=lambda *_: None,
        measure=lambda *_: Sample({}),
        columns=columns or (COLUMN,),
    )


def entry(peer: str | Peer, values: Values, variant: str = "", **others: Any) -> Entry:
    """A contender with a value of each metric in each round; every sample has the same curve of latency."""
    found = BY_NAME[peer] if isinstance(peer, str) else peer
    noisy = others.pop("noisy", ())
    others.setdefault("curves", {"latency": [(0.0, 20.0), (0.5, 50.0), (0.99, 900.0), (0.9999, 2_000.0)]})
    samples = [
        Sample(
            {"noise": 0.0, "reader_busy": 0.1, "latency_p50_us": 50.0, **dict(zip(values, each, strict=True))},
            noisy=noisy,
            **others,
        )
        for each in zip(*values.values(), strict=True)
    ]
    return Entry(Contender(found, variant=variant), samples=samples)


def dropped(peer: str, state: str, reason: str) -> Entry:
    """A contender that has no samples, and why."""
    found = Entry(Contender(BY_NAME[peer]))
    found.drop(state, reason)
    return found


def outcome(*entries: Entry, workload: Workload | None = None) -> Outcome:
    """A workload with what its contenders gave."""
    return Outcome(workload or fake(), list(entries))


def result(*outcomes: Outcome, **about: object) -> report.Json:
    """The JSON of a run, as one reads it from its file."""
    found = report.build("all", outcomes, Settings(), {**ABOUT, **about})
    read: report.Json = json.loads(json.dumps(found))
    return read


def paced(**cpu: Sequence[float]) -> report.Json:
    """A run of `paced` with the CPU time for each chunk in each round; `_` in a name stands for `-`."""
    return result(
        outcome(*(entry(name.replace("_", "-"), {"cpu_per_chunk_us": values}) for name, values in cpu.items()))
    )


def kept(found: report.Json, path: Path) -> Path:
    """The same as a file."""
    path.write_text(json.dumps(found), "utf-8")
    return path


def crowd(count: int) -> list[Entry]:
    """So many contenders, whose names are as long as those of real ones, and whose figures are close together."""
    strangers = (
        Peer(f"stranger{n}", f"stranger number {n} (httptools, uvloop) + a framework", "benchmarks.peers.floor")
        for n in itertools.count()
    )
    return [
        entry(
            peer,
            {"cpu_per_chunk_us": [20.0 + n / 10, 21.0 + n / 10, 22.0 + n / 10]},
            curves={"latency": [(0.5, 50.0 + n / 100), (0.9999, 100.0 + n / 100)]},
        )
        for n, peer in enumerate([BY_NAME["rawstream"], *itertools.islice(strangers, count - 1)])
    ]
