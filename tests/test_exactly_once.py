"""Each subscriber is sent each event exactly once and in order, or is told what it misses: on real processes.

NEWSROOM_SEED=n in the environment repeats a run, as far as processes can be repeated. NEWSROOM=full lets the runs on
Redis have 10,000 events and 300 subscribers.
"""

from __future__ import annotations

import asyncio
import os
import random
from pathlib import Path

import pytest
from newsroom import Account, Servers, Trouble, held_once, number, seen, served, told
from redis_server import RedisServer, running_redis

FULL = os.environ.get("NEWSROOM") == "full"
PATIENCE = 600.0 if FULL else 150.0
EVENTS, READERS = (10_000, 300) if FULL else (1_200, 60)


@pytest.fixture
def seed() -> int:
    return int(os.environ.get("NEWSROOM_SEED") or random.randrange(1_000_000))


def restart(servers: Servers, *moments: tuple[float, int], of: int = EVENTS) -> Trouble:
    """As soon as this part `of` all events is acknowledged, this server is killed, and started again."""

    async def trouble(account: Account) -> None:
        for part, index in moments:
            await account.published(int(part * of))
            await asyncio.to_thread(servers.restart, index)

    return trouble


def test_with_three_servers_of_which_one_is_killed(tmp_path: Path, redis_server: RedisServer, seed: int) -> None:
    with served(tmp_path, f"{redis_server.url}?entries={EVENTS + 1}", 3, PATIENCE) as servers:
        account, subscribers = told(servers, seed, EVENTS, READERS, restart(servers, (0.3, 1), (0.6, 2)), PATIENCE)
        servers.close()
    assert {(each.received, *each.missing) for each in subscribers} == {(EVENTS,)}
    *ids, end = seen(account)
    assert [number(id) for id in (*ids, end)] == [*range(1, EVENTS + 2)]
    held_once(account, ids)
    assert "Traceback" not in servers.said


def test_with_a_redis_that_is_killed_too(tmp_path: Path, seed: int) -> None:
    """Each entry is on its disk before it is acknowledged."""

    with running_redis() as redis, served(tmp_path, f"{redis.url}?entries={EVENTS + 1}", 3, PATIENCE) as servers:

        async def trouble(account: Account) -> None:
            for part in (0.3, 0.7):
                await account.published(int(part * EVENTS))
                redis.kill()
                await asyncio.to_thread(redis.start)
            await asyncio.to_thread(servers.restart, 0)

        account, subscribers = told(servers, seed, EVENTS, READERS, trouble, PATIENCE)
        servers.close()
    assert {(each.received, *each.missing) for each in subscribers} == {(EVENTS,)}
    *ids, end = seen(account)
    assert [number(id) for id in (*ids, end)] == [*range(1, EVENTS + 2)]
    held_once(account, ids)
    assert "Traceback" not in servers.said


def test_with_a_redis_that_holds_little(tmp_path: Path, redis_server: RedisServer, seed: int) -> None:
    """Who stays away for long misses something, and is told exactly how much."""
    with served(tmp_path, f"{redis_server.url}?entries=200", 3, PATIENCE) as servers:
        trouble = restart(servers, (0.5, 1))
        account, subscribers = told(servers, seed, EVENTS, READERS, trouble, PATIENCE, away=1.0)
        servers.close()
    for each in subscribers:
        assert each.received + sum(gap or 0 for gap in each.missing) == EVENTS
        assert None not in each.missing
    assert sum(len(each.missing) for each in subscribers) > READERS // 10
    held_once(account, sorted(account.acknowledged, key=number))
    assert sorted(map(number, account.acknowledged)) == [*range(1, EVENTS + 1)]
    assert "Traceback" not in servers.said


FEW = 600
"""Events where one process has to do it all."""


@pytest.mark.parametrize("entries", [FEW + 1, 50])
def test_with_sqlite_whose_process_is_killed(tmp_path: Path, seed: int, entries: int) -> None:
    with served(tmp_path, f"sqlite:///news.db?entries={entries}", 1, PATIENCE) as servers:
        trouble = restart(servers, (0.3, 0), (0.6, 0), of=FEW)
        account, subscribers = told(servers, seed, FEW, 30, trouble, PATIENCE)
        servers.close()
    for each in subscribers:
        assert each.received + sum(gap or 0 for gap in each.missing) == FEW
        assert None not in each.missing
        assert entries <= FEW or not each.missing
    held_once(account, sorted(account.acknowledged, key=number))
    assert sorted(map(number, account.acknowledged)) == [*range(1, FEW + 1)]
    assert "Traceback" not in servers.said


def test_with_a_memory_that_is_forgotten(tmp_path: Path, seed: int) -> None:
    """What was missed of a log that is gone nobody can count: it is told that something may be missing."""
    with served(tmp_path, "memory:", 1, PATIENCE) as servers:
        account, subscribers = told(servers, seed, FEW, 30, restart(servers, (0.5, 0), of=FEW), PATIENCE)
        servers.close()
    ids = seen(account)
    again = max(index for index, id in enumerate(ids) if number(id) == 1)
    assert [number(id) for id in ids] == [*range(1, again + 1), *range(1, len(ids) - again + 1)]
    for each in subscribers:
        assert each.last == ids[-1]
        before = each.received - len(ids[again:-1])  # of the log that is gone
        assert (each.missing == [None] and 0 < before <= again) or (each.missing == [] and before == 0)
    held_once(account, [id for id in ids if id in account.acknowledged])
    assert {*ids[again:-1]} <= account.acknowledged.keys()
    assert "Traceback" not in servers.said
