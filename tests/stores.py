"""Stores of each kind, on a wall clock that is moved by hand; a follower to wait for; and a plain model of a store."""

from __future__ import annotations

import asyncio
import importlib
import itertools
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rawstream.channels.log import KEY_SECONDS, ORPHAN_SECONDS, START, Entry, Id, Retention, State, Store
from rawstream.errors import ChannelEnded

KINDS = ["memory", "sqlite", "redis"]

LONG = 1000.0
"""Seconds that no test takes."""

_numbers = itertools.count(1)


@contextmanager
def in_memory() -> Iterator[Path]:
    """A directory that no disk is behind, where there is such a thing: the disk may have much to do for others."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as directory:
        yield Path(directory)


class WallClock:
    """The time, in seconds."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now

    @property
    def ms(self) -> int:
        return int(self.now * 1000)


class Heard:
    """A follower: what was delivered to it, in its order."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()

    def __call__(self, entries: list[Entry]) -> None:
        assert asyncio.get_running_loop() is self._loop
        assert entries
        self.entries += entries
        self._changed.set()

    async def reach(self, entries: list[Entry]) -> None:
        """Wait until exactly these were delivered."""
        while len(self.entries) < len(entries):
            self._changed.clear()
            await self._changed.wait()
        assert self.entries == entries


class Stores:
    """Makes stores of one kind, and closes those that it opened."""

    def __init__(self, kind: str, directory: Path, redis: str) -> None:
        self.kind = kind
        self.clock = WallClock()
        self._directory = directory
        self._redis = redis
        self._open: list[Store] = []

    @property
    def by_hand(self) -> bool:
        """Leases and lives go by the clock of the test; those of Redis by its own."""
        return self.kind != "redis"

    @property
    def short(self) -> float:
        """Seconds that a test can let pass."""
        return 60.0 if self.by_hand else 0.03

    async def passes(self, seconds: float) -> None:
        """Let time pass: that of the store."""
        self.clock.now += seconds
        if not self.by_hand:
            await asyncio.sleep(seconds)

    def module(self) -> Any:
        return importlib.import_module(f"rawstream.channels.{self.kind}")

    async def open(self, retention: Retention | None = None, place: str | None = None) -> Store:
        """A store that is open: an empty one, or one that was opened at `place` before."""
        place = place or f"store{next(_numbers)}"
        kind, retention = self.module(), retention or Retention()
        store: Store
        if self.kind == "memory":
            store = kind.MemoryStore(retention, now=self.clock)
        elif self.kind == "sqlite":
            store = kind.SqliteStore(str(self._directory / place), retention, now=self.clock)
        else:
            store = kind.RedisStore(self._redis, retention, now=self.clock, prefix=f"{place}:")
        await store.open()
        self._open.append(store)
        return store

    async def close(self, store: Store) -> None:
        self._open.remove(store)
        await store.close()

    async def end(self) -> None:
        for store in [*self._open]:
            await self.close(store)


async def appended(store: Store, name: str, *data: str) -> list[Entry]:
    """The entries of `data`, which are appended one after the other."""
    return [Entry(await store.append(name, each), None, each) for each in data]


async def everything(store: Store, name: str) -> list[Entry]:
    """All that is held."""
    return await store.read(name, START, 1_000_000)


async def state(store: Store, name: str) -> State:
    """The state of a log that is there."""
    found = await store.state(name)
    assert found is not None
    return found


# -- the model -------------------------------------------------------------------------------------------------------


@dataclass
class ModelLog:
    owner: str | None = None
    due: float = 0.0
    removal: float | None = None
    attended: float | None = None
    first: int | None = None
    last: Id = START
    held: list[Entry] = field(default_factory=list)
    keys: list[tuple[str, float, Id]] = field(default_factory=list)


class Model:
    """What a store does, as plainly as it can be written. It has the methods of a store, but they do not wait."""

    def __init__(self, retention: Retention, clock: WallClock) -> None:
        self._retention = retention
        self._clock = clock
        self._logs: dict[str, ModelLog] = {}
        self.history: dict[str, list[Entry]] = {}
        """All that was ever appended, by name."""

    def _is_over(self, log: ModelLog) -> bool:
        if log.removal is None:
            return log.owner is not None and log.due + ORPHAN_SECONDS <= self._clock.now
        return log.removal <= self._clock.now

    def _look(self) -> dict[str, ModelLog]:
        now, kept = self._clock.now, self._retention
        self._logs = {name: log for name, log in self._logs.items() if not self._is_over(log)}
        for log in self._logs.values():
            ages = [now - entry.id.ms / 1000 for entry in log.held]
            sizes = [len(entry.data.encode()) for entry in log.held]
            log.held = [
                entry
                for index, entry in enumerate(log.held)
                if entry.id == log.last
                or (
                    len(log.held) - index <= kept.entries
                    and sum(sizes[index:]) <= kept.bytes
                    and (kept.age is None or ages[index] <= kept.age)
                )
            ]
        return self._logs

    def _add(self, name: str, log: ModelLog, event: str | None, data: str) -> Id:
        log.last = Id(max(self._clock.ms, log.last.ms), log.last.n + 1)
        log.first = log.last.ms if log.first is None else log.first
        entry = Entry(log.last, event, data)
        log.held.append(entry)
        self.history.setdefault(name, []).append(entry)
        self._look()
        return log.last

    def append(self, name: str, data: str, event: str | None, key: str | None, token: str | None) -> Id:
        log = self._look().get(name)
        if log is not None and key is not None:
            for known, used, first in log.keys:
                if known == key and self._clock.now - used < KEY_SECONDS:
                    return first
        if (log.owner if log else None) != token or (log is not None and log.removal is not None):
            raise ChannelEnded
        log = self._logs.setdefault(name, ModelLog())
        last = self._add(name, log, event, data)
        if key is not None:
            log.keys = [(key, self._clock.now, last), *log.keys]
        return last

    def end(self, name: str, event: str, data: str, token: str | None, overdue: bool, ttl: float) -> bool:
        log, now = self._look().get(name), self._clock.now
        if log is None or log.removal is not None:
            return False
        if (token is not None and token != log.owner) or (overdue and not (log.owner and log.due < now)):
            return False
        log.removal = now + ttl
        self._add(name, log, event, data)
        return True

    def read(self, name: str, after: Id, limit: int) -> list[Entry]:
        log = self._look().get(name)
        return [entry for entry in log.held if entry.id > after][:limit] if log else []

    def newest(self, name: str, count: int) -> list[Entry]:
        log = self._look().get(name)
        return log.held[-count:] if log else []

    def state(self, name: str) -> State | None:
        log, now = self._look().get(name), self._clock.now
        return (
            log
            if log is None
            else State(
                oldest=log.held[0].id if log.held else None,
                last=log.last,
                entries=len(log.held),
                ended=log.removal is not None,
                lease=log.due - now if log.owner and log.removal is None else None,
                read=None if log.attended is None else now - log.attended,
                first=log.first,
            )
        )

    def names(self) -> list[str]:
        return sorted(self._look())

    def trim(self, name: str, before: Id) -> None:
        log = self._look().get(name)
        if log:
            log.held = [entry for entry in log.held if entry.id >= before]

    def remove(self, name: str) -> None:
        self._logs.pop(name, None)

    def begin(self, name: str, token: str, lease: float) -> bool:
        if name in self._look():
            return False
        self._logs[name] = ModelLog(token, self._clock.now + lease)
        return True

    def renew(self, name: str, token: str, lease: float) -> State | None:
        log = self._look().get(name)
        if log and log.owner == token:
            log.due = self._clock.now + lease
        return self.state(name)

    def attend(self, name: str) -> None:
        log = self._look().get(name)
        if log:
            log.attended = self._clock.now
