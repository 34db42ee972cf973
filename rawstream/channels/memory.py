"""The store that keeps logs in this process, and forgets them with it: the contract of `log`, with no I/O and no wait.

Nothing here awaits, so each method is one step for all others. What is over (an entry's age, a key's time, an ended
log's time to live) goes when its log is next looked at: there is no timer and no task.
"""

from __future__ import annotations

import math
import time
from bisect import bisect_left, bisect_right
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from heapq import heappop, heappush
from operator import attrgetter

from rawstream.errors import ChannelEnded, StoreUnavailable

from .log import KEY_SECONDS, ORPHAN_SECONDS, START, Deliver, Entry, Id, Retention, State

_BY_ID = attrgetter("id")


@dataclass(slots=True, eq=False)
class _Log:
    """One log. Times are those of the store's clock, in seconds."""

    owner: str | None = None
    """The token of the run whose log it is."""
    due: float = math.inf
    """When the owner's lease runs out."""
    removal: float | None = None
    """When it is forgotten; None if it has not ended."""
    attended: float | None = None
    first: int | None = None
    last: Id = START
    entries: deque[Entry] = field(default_factory=deque)
    bytes: int = 0
    keys: OrderedDict[str, Id] = field(default_factory=OrderedDict)

    @property
    def over(self) -> float:
        """When it is forgotten, whether or not somebody ends it before."""
        return self.due + ORPHAN_SECONDS if self.removal is None else self.removal


class MemoryStore:
    """Logs in memory: at most `retention.logs` of them. `now` is the wall clock, in seconds."""

    shared = False

    def __init__(self, retention: Retention | None = None, *, now: Callable[[], float] = time.time) -> None:
        self._retention = retention or Retention()
        self._room = 0  # as long as it is not open
        self._now = now
        self._logs: dict[str, _Log] = {}
        self._removals: list[tuple[float, str]] = []  # a heap; a log that goes later, or is gone, may still stand in it
        self._followers: dict[str, Deliver] = {}

    async def open(self) -> None:
        """A run that died with its process left nothing here."""
        self._room = self._retention.logs

    async def close(self) -> None:
        self._room = 0  # who comes too late is told so
        self._logs.clear()
        self._removals.clear()
        self._followers.clear()

    async def append(
        self, name: str, data: str, event: str | None = None, *, key: str | None = None, token: str | None = None
    ) -> Id:
        log = self._find(name)
        if log is None:
            if token is not None:
                raise ChannelEnded  # a run's log is made by `begin` alone
            log = self._make(name, _Log())
        if key is not None:
            self._forget_keys(log)
            if key in log.keys:
                return log.keys[key]
        if log.removal is not None or log.owner != token:
            raise ChannelEnded
        last = self._add(name, log, event, data)
        if key is not None:
            log.keys[key] = last
        return last

    async def end(
        self, name: str, event: str, data: str, *, token: str | None = None, overdue: bool = False, ttl: float
    ) -> bool:
        log, now = self._find(name), self._now()
        if log is None or log.removal is not None or (token is not None and log.owner != token):
            return False
        if overdue and (log.owner is None or log.due >= now):
            return False
        log.removal = now + ttl
        self._remove_later(name, log)
        self._add(name, log, event, data)
        return True

    async def read(self, name: str, after: Id, limit: int) -> list[Entry]:
        log = self._find(name)
        if log is None:
            return []
        first = bisect_right(log.entries, after, key=_BY_ID)  # not by `n` alone: of another log's cursor `ms` differs
        return self._slice(log, first, first + limit)

    async def newest(self, name: str, count: int) -> list[Entry]:
        log = self._find(name)
        return [] if log is None else self._slice(log, len(log.entries) - count, len(log.entries))

    async def state(self, name: str) -> State | None:
        log = self._find(name)
        return None if log is None else self._state(log)

    async def names(self) -> list[str]:
        self._sweep()
        return sorted(self._logs)

    async def trim(self, name: str, before: Id) -> None:
        log = self._find(name)
        if log is not None:
            for _ in range(bisect_left(log.entries, before, key=_BY_ID)):
                self._drop(log)

    async def remove(self, name: str) -> None:
        self._logs.pop(name, None)

    async def follow(self, name: str, deliver: Deliver) -> Id:
        self._followers[name] = deliver
        log = self._find(name)
        return START if log is None else log.last

    def unfollow(self, name: str) -> None:
        self._followers.pop(name, None)

    # -- runs --------------------------------------------------------------------------------------------------------

    async def begin(self, name: str, token: str, lease: float) -> bool:
        if self._find(name) is not None:
            return False
        log = self._make(name, _Log(owner=token, due=self._now() + lease))
        self._remove_later(name, log)
        return True

    async def renew(self, name: str, token: str, lease: float) -> State | None:
        log = self._find(name)
        if log is None:
            return None
        if log.owner == token:
            log.due = self._now() + lease
        return self._state(log)

    async def attend(self, name: str) -> None:
        log = self._find(name)
        if log is not None:
            log.attended = self._now()

    # -- within ------------------------------------------------------------------------------------------------------

    def _find(self, name: str) -> _Log | None:
        self._sweep()
        log = self._logs.get(name)
        if log is not None:
            self._retain(log)
        return log

    def _make(self, name: str, log: _Log) -> _Log:
        if not self._room:
            raise StoreUnavailable("the channels' store is closed")
        if len(self._logs) >= self._room:
            most = f"it holds {self._room}, or as many as its URL says (logs=)"
            raise StoreUnavailable(f"the store has no room for another channel: {most}", retry_after=None)
        self._logs[name] = log
        return log

    def _slice(self, log: _Log, first: int, last: int) -> list[Entry]:
        """By indices: to iterate is to walk there from the oldest."""
        return [log.entries[index] for index in range(max(first, 0), min(last, len(log.entries)))]

    def _add(self, name: str, log: _Log, event: str | None, data: str) -> Id:
        log.last = Id(max(int(self._now() * 1000), log.last.ms), log.last.n + 1)
        if log.first is None:
            log.first = log.last.ms
        entry = Entry(log.last, event, data)
        log.entries.append(entry)
        log.bytes += len(data.encode())
        self._retain(log)
        if name in self._followers:
            self._followers[name]([entry])
        return entry.id

    def _retain(self, log: _Log) -> None:
        kept = self._retention
        oldest = 0.0 if kept.age is None else (self._now() - kept.age) * 1000
        while len(log.entries) > 1 and (
            len(log.entries) > kept.entries or log.bytes > kept.bytes or log.entries[0].id.ms < oldest
        ):
            self._drop(log)

    def _drop(self, log: _Log) -> None:
        log.bytes -= len(log.entries.popleft().data.encode())

    def _forget_keys(self, log: _Log) -> None:
        """In the order of their use, which is that of their ids: `ms` never falls."""
        oldest = (self._now() - KEY_SECONDS) * 1000
        while log.keys and next(iter(log.keys.values())).ms < oldest:
            log.keys.popitem(last=False)

    def _remove_later(self, name: str, log: _Log) -> None:
        if log.over < math.inf:
            heappush(self._removals, (log.over, name))

    def _sweep(self) -> None:
        """Forget the logs whose time is over."""
        now = self._now()
        while self._removals and self._removals[0][0] <= now:
            _, name = heappop(self._removals)
            log = self._logs.get(name)
            if log is not None and log.over <= now:
                del self._logs[name]
            elif log is not None:
                self._remove_later(name, log)  # it was renewed, or began again

    def _state(self, log: _Log) -> State:
        now = self._now()
        return State(
            oldest=log.entries[0].id if log.entries else None,
            last=log.last,
            entries=len(log.entries),
            ended=log.removal is not None,
            lease=None if log.owner is None or log.removal is not None else log.due - now,
            read=None if log.attended is None else now - log.attended,
            first=log.first,
        )
