"""The peers of the benchmarks: each answers rightly in every workload in which it takes part, in each of its ways.

A peer whose program is not on this machine (cc, go, nginx with nchan, node) is left out here, as in a run.
"""

from __future__ import annotations

import resource
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from benchmark_sizes import BY_NAME, CORES, TINY, need

from benchmarks.answer import HeldBack, WrongAnswer
from benchmarks.certificate import certificate
from benchmarks.load import Transfer
from benchmarks.peers import PEERS, Peer
from benchmarks.process import Server
from benchmarks.workload import Contender, Workload
from benchmarks.workloads import COMMANDS, PACED_GZIP
from benchmarks.workloads import paced as paced_workload

WORKLOADS = [workload for command in COMMANDS.values() for workload in command]
HOLDS_BACK = {("aiohttp", "paced-gzip")}
"""Who takes part, and is found out: its compression has no flush."""


@pytest.fixture(autouse=True)
def files() -> Iterator[None]:
    """A run allows itself as many open files as it can get; the other tests shall not have them."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def ways(peer: Peer) -> list[Transfer]:
    """In which ways a peer serves: each is a process of its own."""
    found = {
        contender.transfer
        for workload in WORKLOADS
        if workload.name in peer.workloads
        for contender in workload.contenders(peer)
    }
    return sorted(found, key=lambda way: way.arguments)


@pytest.mark.parametrize(
    ("name", "way"),
    [pytest.param(peer.name, way, id=" ".join([peer.name, *way.arguments])) for peer in PEERS for way in ways(peer)],
)
def test_every_peer_answers_rightly(name: str, way: Transfer) -> None:
    peer = BY_NAME[name]
    need(Contender(peer, transfer=way))
    with Server(peer.module, (*peer.arguments, *way.arguments), CORES[0]) as server:
        for workload in WORKLOADS:
            for contender in workload.contenders(peer) if workload.name in peer.workloads else ():
                if contender.transfer == way:
                    answers_rightly(server, workload, contender)


def answers_rightly(server: Server, workload: Workload, contender: Contender) -> None:
    if (contender.peer.name, workload.name) in HOLDS_BACK:
        with pytest.raises(HeldBack):
            workload.check(server, contender, TINY)
    else:
        workload.check(server, contender, TINY)


def test_a_peer_that_does_not_compress_is_wrong_where_that_is_asked_for() -> None:
    peer = BY_NAME["floor"]
    (zipped,) = PACED_GZIP.contenders(peer)
    with (
        Server(peer.module, peer.arguments, CORES[0]) as server,
        pytest.raises(WrongAnswer, match="content coding is none instead of gzip"),
    ):
        paced_workload.check(server, zipped, TINY)


@pytest.mark.either_loop
def test_a_peer_names_only_workloads_that_there_are() -> None:
    known = {workload.name for workload in WORKLOADS}
    for peer in PEERS:
        assert peer.cannot.keys() | peer.workloads <= known
        assert not peer.cannot.keys() & peer.workloads, "what it cannot do it does not take part in"


@pytest.mark.either_loop
def test_every_workload_has_rawstream_and_others() -> None:
    for workload in WORKLOADS:
        taking_part = [peer for peer in PEERS if workload.name in peer.workloads]
        assert any(peer.is_ours for peer in taking_part), workload.name
        assert sum(not peer.is_ours and not peer.is_floor for peer in taking_part) >= 2, workload.name


@pytest.mark.either_loop
def test_the_certificate_is_made_once_and_serves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.certificate._FILE", tmp_path / "localhost.pem")
    monkeypatch.setattr("benchmarks.certificate.CACHE", tmp_path)
    made = certificate()
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(made)
    before = made.read_bytes()
    assert certificate().read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["localhost.pem"]
