"""Hubs on each kind of store, which are closed in the end; several on one Redis stand for several processes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from rawstream import Hub
from rawstream.channels.runs import Run

KINDS = ["memory", "sqlite", "redis"]


class Hubs:
    """`hub = await hubs()`: another one at the same place, if the store is shared."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._open: list[Hub] = []

    async def __call__(self, query: str = "") -> Hub:
        hub = Hub(self.url + query)
        await hub.store()
        self._open.append(hub)
        return hub

    async def close(self) -> None:
        for hub in self._open:
            await hub.close()


def url(kind: str, directory: Path, redis: str) -> str:
    return {"memory": "memory:", "sqlite": f"sqlite:///{directory}/hub.db", "redis": redis}[kind]


async def told(run: Run, after: object = "earliest") -> list[tuple[str | None, Any]]:
    """What a reader is told until the end: names and data."""
    return [(event.event, event.data) async for event in run.read(after)]


async def counting(*items: Any) -> AsyncIterator[Any]:
    """These, each after a turn of the loop."""
    for item in items:
        await asyncio.sleep(0)
        yield item


async def endless(*items: Any) -> AsyncIterator[Any]:
    """These, and then nothing ever."""
    for item in items:
        yield item
    await asyncio.get_running_loop().create_future()
