"""The workload `scale`: the same work spread over more connections, on one worker and on two."""

from __future__ import annotations

import dataclasses
import math
import os
import resource
import types
from collections.abc import Iterator

import pytest

from benchmarks.answer import WrongAnswer
from benchmarks.peers.rawstream_workers import worker
from benchmarks.process import Server
from benchmarks.settings import Settings
from benchmarks.workload import Contender
from benchmarks.workloads import scale

CORES = sorted(os.sched_getaffinity(0))
SMALL = Settings(
    rounds=1,
    server_core=CORES[0],
    load_core=CORES[-1],
    paced_warmup=0.1,
    paced_seconds=0.4,
    idle_connections=20,
)


@pytest.fixture(autouse=True)
def files() -> Iterator[None]:
    """A run allows itself as many open files as it can get; the other tests shall not have them."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def named(variant: str, monkeypatch: pytest.MonkeyPatch, cores: set[int]) -> Contender:
    monkeypatch.setattr(scale, "_CORES", cores)
    return next(each for each in scale.contenders(scale.PEERS[0]) if each.variant == variant)


def test_each_size_takes_part_with_one_worker_and_with_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scale, "_CORES", {0, 1, 2})
    found = [each for peer in scale.PEERS for each in scale.contenders(peer)]
    assert [each.variant for each in found[:2]] == ["1 connection, 1 worker", "10 connections, 1 worker"]
    assert found[8].name == "rawstream/10,000 connections, 2 workers"
    assert found[8].arguments == ("--loop", "asyncio", "--workers", "2")
    assert found[-1].name == "rawstream-uvloop/10,000 connections, 1 worker"
    assert len({each.name for each in found}) == 3 * len(scale.SIZES) - 1, "two workers need two connections"


def test_two_workers_need_a_core_beside_that_of_the_load(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scale, "_CORES", {0, 1})
    assert {each.query.partition(",")[2] for each in scale.contenders(scale.PEERS[0])} == {"1"}
    monkeypatch.setattr(scale, "_CORES", {0, 1, 5})
    assert scale._cores(dataclasses.replace(SMALL, server_core=1, load_core=0), 2) == [1, 5]


def test_one_worker_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    contender = named("100 connections, 1 worker", monkeypatch, set(CORES))
    with Server(contender.peer.module, contender.arguments, CORES[0]) as server:
        scale.check(server, contender, SMALL)
        sample = scale.measure(server, contender, SMALL)
    found = sample.metrics
    assert all(math.isfinite(value) for value in found.values())
    assert (found["connections"], found["workers"], found["busiest_share"]) == (20, 1, 1.0), "as many as there may be"
    assert "memory_per_connection_bytes" not in found, "too few to tell"
    assert found["cpu_per_chunk_us"] > 0
    assert found["latency_p50_us"] <= found["latency_p99_us"]
    assert found["chunks_per_wakeup"] > 0
    assert sample.units > 0
    assert {column.metric for column in scale.SCALE.columns} <= found.keys() | {"memory_per_connection_bytes"}


def test_two_workers_both_serve_and_have_a_core_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there are fewer than three cores they share one: then nothing is said about speed."""
    contender = named("10 connections, 2 workers", monkeypatch, {*CORES, *range(3)})
    cores = [CORES[0], CORES[1 % len(CORES)]]
    monkeypatch.setattr(scale, "_cores", lambda settings, count: cores[:count])
    with Server(contender.peer.module, contender.arguments, CORES[0]) as server:
        scale.check(server, contender, SMALL)
        workers = scale._workers(server, 2, SMALL)
        assert sorted(core for each in workers for core in os.sched_getaffinity(each)) == sorted(cores)
        sample = scale.measure(server, contender, SMALL)
    assert sample.metrics["workers"] == 2
    assert 0.5 <= sample.metrics["busiest_share"] <= 1
    assert sample.metrics["memory_bytes"] > 2 * 10_000_000


def test_a_worker_that_never_answers_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = types.SimpleNamespace(status=200, body=b"4711")
    monkeypatch.setattr(scale, "ask", lambda *_: (0, answer, []))
    server = types.SimpleNamespace(port=1)
    with pytest.raises(WrongAnswer, match="only 1 of 2 workers answered"):
        scale._workers(server, 2, dataclasses.replace(SMALL, timeout=0.0))  # type: ignore[arg-type]
    answer.status = 503
    with pytest.raises(WrongAnswer, match="/worker answered 503 instead of 200"):
        scale._workers(server, 2, SMALL)  # type: ignore[arg-type]


async def test_a_worker_names_itself_and_closes() -> None:
    answer = await worker(None)  # type: ignore[arg-type]
    assert answer.body == str(os.getpid()).encode()
    assert ("Connection", "close") in [*answer.headers]
