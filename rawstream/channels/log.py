"""What a channel is made of: a log, its entries and their ids; and the contract that every store keeps.

A channel is a log: entries that are appended, numbered, read from any place, and in the end trimmed. A store keeps logs
by name, knows nothing of subscribers, and waits for none. Everything that is told to readers is in the log, the end of
a channel or a run too: so who comes late is told the same as who was there.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from rawstream.errors import BadEventId, BadName, LocalError

END, ERROR = "stream-end", "stream-error"
"""The names of an entry that ends its log: it is the last, and no other is appended after it."""

KEY_SECONDS = 600.0
"""How long an append's key is remembered: a client that heard nothing has repeated it by then, or given up."""

ORPHAN = '{"status":500,"error":"the process that ran it is gone"}'
"""The data of the ERROR that ends a run for its owner."""

ORPHAN_SECONDS = 3600.0
"""How long a run is held after its lease has run out, for a reader who ends it, or its owner if that is back. Owner and
store may be cut off from each other for as long."""

_DIGITS = 15  # of each number in an id: more than any clock or log needs, and an exact integer in JavaScript
_ID = re.compile(rf"([0-9]{{1,{_DIGITS}}})-([0-9]{{1,{_DIGITS}}})")
_NAME = re.compile(r"\w[\w.:@~-]{0,127}")


class Id(NamedTuple):
    """An entry's id, `<ms>-<n>`: `n` grows by exactly one an entry, from 1; `ms`, the time of the append, never falls.

    So ids are in the order of the log, and a gap is seen, and counted, by who knows the id before it.
    """

    ms: int
    n: int

    def __str__(self) -> str:
        return f"{self.ms}-{self.n}"

    @classmethod
    def parse(cls, text: str) -> Id:
        """The id that a client sent back. Raises BadEventId (400)."""
        match = _ID.fullmatch(text)
        if match is None:
            known = "an event's id is <milliseconds>-<number>, as in 1700000000000-42"
            raise BadEventId(f'{known}, or "earliest" for all that is held, not {text!r}')
        return cls(int(match[1]), int(match[2]))


START = Id(0, 0)
"""Before the first entry of any log."""


class Entry(NamedTuple):
    """What was appended. `data` is JSON text; `event` is the event's name, None for "message"."""

    id: Id
    event: str | None
    data: str

    @property
    def ends(self) -> bool:
        """It is the end of its log."""
        return self.event in (END, ERROR)


@dataclass(frozen=True, slots=True)
class State:
    """What a store knows of one log, at one moment."""

    oldest: Id | None
    """Of the entries that are held; None if none are."""
    last: Id
    """Of the last entry that was appended, held or not; START if none ever was."""
    entries: int
    """How many are held."""
    ended: bool = False
    """The last entry is an end."""
    lease: float | None = None
    """A run's: seconds until its owner counts as dead, negative if it does; None if it is no run, or has ended."""
    read: float | None = None
    """Seconds since a process last told, by `attend`, that it has readers; None if none did."""
    first: int | None = None
    """The time in the id of the first entry that was appended, held or not; None if that is not known, or none was."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """How much of each log is held: at least the newest entry, and older ones as long as all of these allow it.

    entries: how many. bytes: of their data, in all. age: seconds since their append; None for no limit.
    logs: how many logs a store holds that forgets them with its process; a further one is refused.
    """

    entries: int = 10_000
    bytes: int = 16 * 1024 * 1024
    age: float | None = None
    logs: int = 10_000

    def __post_init__(self) -> None:
        for name, kinds in (("entries", (int,)), ("bytes", (int,)), ("age", (int, float)), ("logs", (int,))):
            value = getattr(self, name)
            if (value is None and name == "age") or (type(value) in kinds and 0 < value < math.inf):
                continue
            raise LocalError(f"a store's {name} is a positive {'' if name == 'age' else 'whole '}number, not {value!r}")


Deliver = Callable[[list[Entry]], None]
"""Takes entries that were appended: in order, and each once. Never waits, never fails."""


class Store(Protocol):
    """Logs by name. `memory`, `sqlite` and `redis` keep this contract, and one test suite holds them to it.

    Each coroutine raises StoreUnavailable (503) if the store cannot be reached, is full or broken, and says in its
    public text nothing of where it is. Cancelling one leaves open whether it was done.
    """

    shared: bool
    """Other processes may use it at the same time."""

    async def open(self) -> None:
        """Make it usable; due before all else. Runs whose process died with a store of its own are ended here."""

    async def close(self) -> None:
        """Let go of everything; nothing is delivered any more."""

    async def append(
        self, name: str, data: str, event: str | None = None, *, key: str | None = None, token: str | None = None
    ) -> Id:
        """Append an entry, and return its id. It will be held when the process or the store dies now, if it can be.

        key: one that was used for this log in the last KEY_SECONDS returns the id of then, and appends nothing.
        token: of the run that appends; a log that a run owns takes entries from nobody else.

        Never tried again after a failure that leaves open whether it was done: without a `key`, that is told by
        OutcomeUnknown. Raises ChannelEnded (409) if the log has ended, or belongs to another.
        """

    async def end(
        self, name: str, event: str, data: str, *, token: str | None = None, overdue: bool = False, ttl: float
    ) -> bool:
        """Append the entry that ends the log, if it has not ended: compare and append, in one step.

        event: END or ERROR. token: only if this run owns it. overdue: only if it is a run whose lease has run out.
        ttl: seconds after which the log is removed. Returns whether it was appended; a log that is not there is not
        made, and False is returned.
        """

    async def read(self, name: str, after: Id, limit: int) -> list[Entry]:
        """The oldest entries that are held of those after `after`, at most `limit`; [] if there are none."""

    async def newest(self, name: str, count: int) -> list[Entry]:
        """The newest entries that are held, at most `count`, the oldest of them first."""

    async def state(self, name: str) -> State | None:
        """What is known of a log; None if it is not there."""

    async def names(self) -> list[str]:
        """Of all logs, sorted."""

    async def trim(self, name: str, before: Id) -> None:
        """Hold no entries before `before` any more."""

    async def remove(self, name: str) -> None:
        """Forget a log, with its ids."""

    async def follow(self, name: str, deliver: Deliver) -> Id:
        """Deliver what is appended from now on, whoever appends it; returns the last id before that.

        A log that is not there yet may be followed. One follower a name; deliveries go on, without loss, when a store
        that could not be reached is back. Entries that it lost meanwhile are seen by their numbers.
        """

    def unfollow(self, name: str) -> None:
        """Deliver no more of this log."""

    # -- runs --------------------------------------------------------------------------------------------------------

    async def begin(self, name: str, token: str, lease: float) -> bool:
        """Make a log that the run `token` owns, for `lease` seconds; False if there is a log already.

        It is removed ORPHAN_SECONDS after its lease has run out, should nobody have ended it by then.
        """

    async def renew(self, name: str, token: str, lease: float) -> State | None:
        """The run is alive for `lease` more seconds, unless it has ended or is not the owner. Returns `state`."""

    async def attend(self, name: str) -> None:
        """This process has readers of this log; said again every few seconds while it has."""


def checked_name(name: object) -> str:
    """A channel's name: 1 to 128 letters, digits and `_ . : @ ~ -`, the first no sign. Raises BadName (400)."""
    if isinstance(name, str) and _NAME.fullmatch(name):
        return name
    shown = repr(name) if isinstance(name, str) else f"of the type {type(name).__name__}"
    raise BadName(f"a name is 1 to 128 letters, digits and _ . : @ ~ -, the first none of . : @ ~ -, not {shown}")


def told(**data: Any) -> str:
    """The data of an entry of rawstream's own, as JSON text. It may quote what UTF-8 cannot carry, and does carry."""
    return json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode(errors="replace").decode()
