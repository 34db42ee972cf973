"""Stores in whose calls things happen: at a moment that a test chooses, or at any moment; and a hub that has them."""

from __future__ import annotations

import asyncio
import inspect
import itertools
import random
from collections import Counter, defaultdict, deque
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from rawstream.channels import Channel, Hub
from rawstream.channels.log import Deliver, Entry, Id, Retention, State, Store
from rawstream.channels.memory import MemoryStore
from rawstream.errors import StoreUnavailable

Action = Callable[[], Any]


def hub_of(store: Store) -> Hub:
    """A hub that keeps its channels in this store."""
    hub = Hub()
    hub._store = store
    return hub


def away() -> None:
    """As an action: the store cannot be reached."""
    raise StoreUnavailable


class Staged(MemoryStore):
    """A memory store with whose calls `actions` happen, one with each: `before` it looks, or `after` it has.

    Each look at its clock takes a millisecond, so that no two entries have one time.
    """

    def __init__(self, retention: Retention | None = None) -> None:
        clock = itertools.count(1_700_000_000_000)
        super().__init__(retention, now=lambda: next(clock) / 1000)
        self._before: dict[str, deque[Action]] = defaultdict(deque)
        self._after: dict[str, deque[Action]] = defaultdict(deque)
        self.calls: Counter[str] = Counter()

    def before(self, method: str, *actions: Action) -> None:
        self._before[method] += actions

    def after(self, method: str, *actions: Action) -> None:
        self._after[method] += actions

    async def _act(self, actions: deque[Action]) -> None:
        if actions:
            acted = actions.popleft()()
            if inspect.isawaitable(acted):
                await acted

    async def _stage(self, method: str, call: Callable[..., Any], *arguments: Any) -> Any:
        self.calls[method] += 1
        await self._act(self._before[method])
        result = await call(*arguments)
        await self._act(self._after[method])
        return result

    async def state(self, name: str) -> State | None:
        return await self._stage("state", super().state, name)  # type: ignore[no-any-return]

    async def read(self, name: str, after: Id, limit: int) -> list[Entry]:
        return await self._stage("read", super().read, name, after, limit)  # type: ignore[no-any-return]

    async def newest(self, name: str, count: int) -> list[Entry]:
        return await self._stage("newest", super().newest, name, count)  # type: ignore[no-any-return]

    async def follow(self, name: str, deliver: Deliver) -> Id:
        return await self._stage("follow", super().follow, name, deliver)  # type: ignore[no-any-return]


class Unsteady(MemoryStore):
    """A memory store that seems far away: each call takes some turns of the loop, and may fail before or after its
    work; what is appended is delivered late, several at once, and sometimes not at all (the newest always is).
    """

    def __init__(self, dice: random.Random, failures: float = 0.0, losses: float = 0.0, **kept: int) -> None:
        super().__init__(Retention(**kept))
        self._dice = dice
        self._failures = failures
        self._losses = losses
        self._late: dict[str, list[Entry]] = {}

    async def _trouble(self) -> None:
        for _ in range(self._dice.randrange(4)):
            await asyncio.sleep(0)
        if self._dice.random() < self._failures:
            raise StoreUnavailable

    async def append(
        self, name: str, data: str, event: str | None = None, *, key: str | None = None, token: str | None = None
    ) -> Id:
        await self._trouble()
        id = await super().append(name, data, event, key=key, token=token)
        await self._trouble()
        return id

    async def state(self, name: str) -> State | None:
        await self._trouble()
        state = await super().state(name)
        await self._trouble()
        return state

    async def read(self, name: str, after: Id, limit: int) -> list[Entry]:
        await self._trouble()
        entries = await super().read(name, after, limit)
        await self._trouble()
        return entries

    async def newest(self, name: str, count: int) -> list[Entry]:
        await self._trouble()
        entries = await super().newest(name, count)
        await self._trouble()
        return entries

    async def follow(self, name: str, deliver: Deliver) -> Id:
        await self._trouble()
        late = self._late[name] = []

        def take(entries: list[Entry]) -> None:
            late.extend(entries)
            if len(late) == len(entries):
                wait(self._dice.randrange(4))

        def wait(turns: int) -> None:
            asyncio.get_running_loop().call_soon(wait, turns - 1) if turns else hand_over()

        def hand_over() -> None:
            if self._late.get(name) is late:
                kept = [entry for entry in late[:-1] if self._dice.random() >= self._losses] + late[-1:]
                late.clear()
                deliver(kept)

        last = await super().follow(name, take)
        try:
            await self._trouble()
        except StoreUnavailable:
            self.unfollow(name)
            raise
        return last

    def unfollow(self, name: str) -> None:
        self._late.pop(name, None)
        super().unfollow(name)


@pytest.fixture
async def store() -> Staged:
    """That of `hub`."""
    return Staged()


@pytest.fixture
async def hub(store: Staged) -> AsyncIterator[Hub]:
    """One whose store the test decides about."""
    async with hub_of(store) as hub:
        yield hub


@pytest.fixture
async def news(hub: Hub) -> Channel:
    """A channel of it."""
    return hub.channel("news")
