"""A reader in Python: the same log, the same place in it, and the same words for what is missing, as events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING

from rawstream.errors import Unavailable
from rawstream.sse import Event

from .cursor import After
from .log import Entry, Id

if TYPE_CHECKING:
    from .channel import Channel


class Reader:
    """A member of a channel that is told when something came, and takes it when it is ready to."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._news = asyncio.Event()
        self._lost = True
        self._over = False

    async def events(self, after: After) -> AsyncGenerator[Event, None]:
        """What comes after `after`, until the log ends. Raises Unavailable if the hub closes before that."""
        channel, place = self._channel, after
        try:
            tail = await channel.join(self)
            while not self._over:
                self._news.clear()
                if self._lost or not isinstance(place, Id):
                    self._lost = False
                    await asyncio.sleep(0)  # a log that changes all the time shall not keep the others waiting
                    place, gap, over = await channel.locate(place)
                    if gap is not None:
                        yield _event(gap.entry)
                    if over:
                        return
                entries = tail.after(place.n)
                if not tail.reaches(place.n):
                    entries = await channel.page(place)
                    self._lost = self._lost or not entries or entries[0].id.n != place.n + 1
                elif not entries:
                    await self._news.wait()
                for entry in [] if self._lost else entries:
                    place = entry.id
                    yield _event(entry)
                    if entry.ends:
                        return
            # To end here would be to say that the log has ended, and half of it be taken for all.
            raise Unavailable("the hub was closed: what comes next can be read after the last id, when it is open")
        finally:
            channel.leave(self)

    def advance(self) -> None:
        """Something came."""
        self._news.set()

    def beat(self) -> None:
        """Nothing came."""

    def doubt(self) -> None:
        """The log may not be the one that it was."""
        self._lost = True
        self._news.set()

    def finish(self) -> None:
        """Nothing more will come."""
        self._over = True
        self._news.set()


def _event(entry: Entry) -> Event:
    return Event(json.loads(entry.data), entry.event, str(entry.id))
