"""What all connections of a server share: the handler, the rules, and the room that is left."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from . import observe
from .access import Access
from .config import Limits, Timeouts
from .deadlines import Deadlines
from .errors import Unavailable
from .messages import Handler

_RETRY_AFTER = 5  # seconds after which a client that found no room may come back


class NoRoom(Unavailable):
    """One of `Limits` is reached (503)."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail, _RETRY_AFTER)


@dataclass(slots=True)
class Service:
    """What all connections of a server share."""

    handler: Handler
    limits: Limits
    timeouts: Timeouts
    deadlines: Deadlines
    access: Access
    closing: asyncio.Event = field(default_factory=asyncio.Event)
    streams: int = 0
    """How many are open."""

    def begin_stream(self, record: observe.Record) -> None:
        """A stream opens, for which `end_stream` is due. Raises NoRoom if there are too many."""
        if self.limits.streams is not None and self.streams >= self.limits.streams:
            observe.refused("streams")
            raise NoRoom("too many streams are open")
        self.streams += 1
        observe.streams(record)

    def end_stream(self) -> None:
        """One has ended."""
        self.streams -= 1
