"""The writes of one turn of the loop, which leave together when it is over."""

from __future__ import annotations

import os
from typing import Protocol, TypeAlias

MOST = 256  # writes that wait: who writes as long as he may shall hear that he may not
SMALL = 1024  # bytes: what is larger costs more than a reader's waking, and is not worth holding


class Sender(Protocol):
    """Whose socket it is."""

    def keep(self, rest: bytes | memoryview, /) -> object:
        """Take what the socket did not; then all that follows. It never waits, and raises nothing: others are next."""


Write: TypeAlias = tuple[int, "bytes | memoryview", Sender]
"""A socket's descriptor, which stays open until this has left, and what is to be sent on it."""


class Batch(list[Write]):
    """What is written in this turn of the loop. With the first, `leave` is due at its end.

    A write to a socket whose reader sleeps wakes the reader, which costs more than the write. Where one process reads
    many of the sockets, as a proxy does, the first of several writes in a row wakes it, and the others find it awake.
    The price is that the turn's first write waits for its last.
    """

    def leave(self) -> None:
        """Send it all: the turn is over, or somebody has a reason not to wait for that."""
        writes = self[:]
        self.clear()
        behind: set[Sender] = set()
        for socket, data, sender in writes:
            try:
                sent = 0 if behind and sender in behind else os.write(socket, data)
            except OSError:
                sent = 0  # the loop's transport meets this too, and knows what to do
            if sent < len(data):
                behind.add(sender)
                sender.keep(memoryview(data)[sent:])
