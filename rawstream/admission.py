"""Who finds room: how many connections are open, in all and from each address. Counts, and nothing else."""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Hashable

from .config import Limits
from .observe import Reason

_OWN_FILES = 64  # descriptors that are not connections: listeners, logs, what handlers open


class Admission:
    """The connections of one server, as far as they are counted.

    A connection that finds no room is told so, and takes some itself while it is: up to a tenth more than there is, and
    16.
    """

    def __init__(self, limits: Limits) -> None:
        self._room = min(limits.connections, max(1, (_open_files() - _OWN_FILES) * 9 // 10))
        self._each = limits.connections_per_client or math.inf
        self._clients: Counter[str] = Counter()
        self._places: dict[Hashable, str] = {}  # who is in, and from which address, if that counts
        self._open = 0

    def enter(self, who: Hashable, client: tuple[str, int] | None) -> Reason | None:
        """A connection has come. Returns which limit it breaks, or None; `leave` is due in any case."""
        self._open += 1
        if client is not None and self._each is not math.inf:
            address = self._places[who] = client[0]
            self._clients[address] += 1
            if self._clients[address] > self._each:
                return "connections_per_client"
        return "connections" if self._open > self._room else None

    def leave(self, who: Hashable) -> None:
        """A connection that entered is gone."""
        self._open -= 1
        if (address := self._places.pop(who, None)) is not None:
            self._clients[address] -= 1
            if not self._clients[address]:
                del self._clients[address]

    @property
    def overrun(self) -> bool:
        """There are too many even to be told that there is no room."""
        return self._open > self._room + self._room // 10 + 16


def _open_files() -> int:
    """How many files this process may open."""
    if sys.platform == "win32":
        return sys.maxsize
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft
