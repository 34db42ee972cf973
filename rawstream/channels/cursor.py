"""A reader's place in a log: where it goes on after what a client has seen, and what is missing there.

Nothing is lost without a word: each entry that is given out follows the one before it, or a `Gap` comes between them.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias

from rawstream.errors import LocalError

from .log import START, Entry, Id, State, Store, told

EARLIEST = "earliest"
"""As an id: all that the log holds."""

After: TypeAlias = Id | Literal["earliest"] | int | None
"""Where a reader begins: after an entry, with the oldest, with the newest so many, or (None) with what comes next."""

PAGE = 100  # entries that are read from the log at once: as many as fill a socket's buffer if they are small


class Gap(NamedTuple):
    """Entries that a reader was due, and that the log does not hold."""

    after: Id
    """The last that it has."""
    to: Id
    """After which it goes on."""
    missing: int | None
    """How many; None if that cannot be known: its ids are not this log's."""

    @property
    def entry(self) -> Entry:
        """What the reader is told. Its id lets it go on behind the gap if it reconnects right after it."""
        return Entry(self.to, "stream-gap", told(missing=self.missing, after=str(self.after)))


def position(after: object) -> After:
    """`after` as it was given: an id, its text, "earliest" or None. Raises BadEventId (400) or LocalError."""
    if after is None or after == EARLIEST or isinstance(after, Id):
        return after  # type: ignore[return-value]  # == narrows nothing
    if not isinstance(after, str):
        raise LocalError(f'after is an event\'s id, "earliest" or None, not {after!r}')
    return Id.parse(after)


def _oldest(state: State) -> Id:
    """The place before all that is held."""
    return Id(state.oldest.ms, state.oldest.n - 1) if state.oldest is not None else state.last


class Place(NamedTuple):
    """Where a reader is in a log."""

    id: Id
    """After this entry."""
    gap: Gap | None = None
    """What it has to be told first."""
    over: bool = False
    """It has seen the end, and nothing more will come."""


async def locate(store: Store, name: str, after: After, state: State | None) -> Place:
    """Where to go on in a log whose `state` was just asked for. Raises StoreUnavailable."""
    state = state or State(None, START, 0)
    oldest = _oldest(state)
    if after is None:
        return await _back(store, name, 1, state) if state.ended else Place(state.last)  # the end is told to all
    if isinstance(after, int):
        return await _back(store, name, after, state)
    if not isinstance(after, Id):
        return Place(oldest)
    if after == state.last:
        return Place(after, over=state.ended)
    before = state.first is not None and START < after < (state.first, 0)  # it was seen in a log before this one
    if after.n <= oldest.n and after.ms <= oldest.ms and not before:
        missing = oldest.n - after.n
        return Place(oldest, Gap(after, oldest, missing)) if missing else Place(after)
    if oldest.n < after.n < state.last.n:
        held = await store.read(name, Id(after.ms, after.n - 1), 1)
        if held and held[0].id == after:
            return Place(after)
        now = await store.state(name)
        if now is None or now.first != state.first or after.n <= _oldest(now).n:  # removed or trimmed while we looked
            return await locate(store, name, after, now)
    return Place(oldest, Gap(after, oldest, None))


async def _back(store: Store, name: str, count: int, state: State) -> Place:
    """Before the newest `count` entries."""
    newest = await store.newest(name, count + 1)
    if len(newest) > count:
        return Place(newest[0].id)
    return Place(Id(newest[0].id.ms, newest[0].id.n - 1)) if newest else Place(state.last, over=state.ended)
