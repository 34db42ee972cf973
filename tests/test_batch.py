"""The writes of one turn of the loop: together, in order, and each only where its socket takes it."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator

import pytest

from rawstream.batch import Batch
from rawstream.turns import Turns

pytestmark = [pytest.mark.usefixtures("orderly"), pytest.mark.either_loop]


class Sender:
    """One end of a pair of sockets, and what was kept for it."""

    def __init__(self) -> None:
        self.near, self.far = socket.socketpair()
        self.near.setblocking(False)
        self.far.setblocking(False)
        self.kept: list[bytes] = []

    def keep(self, rest: bytes | memoryview) -> None:
        self.kept.append(bytes(rest))

    def here(self) -> bytes:
        return self.far.recv(1 << 20)


@pytest.fixture
def senders() -> Iterator[tuple[Sender, Sender]]:
    both = Sender(), Sender()
    yield both
    for sender in both:
        sender.near.close()
        sender.far.close()


def add(batch: Batch, sender: Sender, data: bytes) -> None:
    batch.append((sender.near.fileno(), data, sender))


async def test_a_loop_has_one_which_is_its_own() -> None:
    loop = asyncio.get_running_loop()
    assert Turns.of(loop).batch is Turns.of(loop).batch
    other = asyncio.new_event_loop()
    assert Turns.of(other).batch is not Turns.of(loop).batch
    other.close()


async def test_all_leaves_in_order(senders: tuple[Sender, Sender], monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = senders
    order: list[bytes] = []
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: order.append(data) or write(fd, data))
    batch = Batch()
    for sender, data in [(one, b"a"), (two, b"b"), (one, b"c"), (two, b"d")]:
        add(batch, sender, data)
    batch.leave()
    assert order == [b"a", b"b", b"c", b"d"]
    assert (one.here(), two.here()) == (b"ac", b"bd")
    assert not batch
    batch.leave()
    assert len(order) == 4


async def test_what_a_socket_does_not_take_is_kept_and_so_is_all_that_follows(senders: tuple[Sender, Sender]) -> None:
    one, two = senders
    batch, much = Batch(), bytes(range(256)) * 10_000
    add(batch, one, much)
    add(batch, two, b"of another")
    add(batch, one, b"behind it")
    batch.leave()
    rest, behind = one.kept
    assert 0 < len(rest) < len(much)
    assert much.endswith(rest)
    assert behind == b"behind it"
    assert (two.here(), two.kept) == (b"of another", [])


async def test_who_cannot_be_sent_to_keeps_all_and_the_others_get_theirs(senders: tuple[Sender, Sender]) -> None:
    one, two = senders
    one.far.close()
    batch = Batch()
    add(batch, one, b"nobody hears this")
    add(batch, two, b"of another")
    batch.leave()
    assert one.kept == [b"nobody hears this"]
    assert two.here() == b"of another"
