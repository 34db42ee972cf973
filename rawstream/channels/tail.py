"""The end of a log, as a process that follows it holds it: the newest entries, and their bytes, each made once.

Readers that keep up are served from here, all with the same bytes. Who is farther behind reads the log.
"""

from __future__ import annotations

import contextlib
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from rawstream import sse
from rawstream.framing import Frame

from .log import Entry, Id

ENTRIES = 1_000
BYTES = 1024 * 1024
"""How much a tail holds: what a reader misses that is behind for some seconds."""

PIECE = 64 * 1024  # bytes of data that are written at once: what a socket's buffer takes
_MEMORY = 64  # pieces remembered: readers that keep up have one place in common, and few others lag in step


def as_event(entry: Entry) -> bytes:
    """A server-sent event: text as it is, any other data as JSON."""
    data = entry.data
    if data.startswith('"'):
        with contextlib.suppress(ValueError):  # a store that is damaged
            data = json.loads(data)
    return sse.encode(sse.Event(data, entry.event, str(entry.id)))


def as_line(entry: Entry) -> bytes:
    """A line of JSON, with what an event has beside its data."""
    name = json.dumps(entry.event or "message", ensure_ascii=False)
    return f'{{"id":"{entry.id}","event":{name},"data":{entry.data}}}\n'.encode()


class Piece(NamedTuple):
    """Some entries as they are sent, the last of them, whether the log ends with it, and whether it is the newest."""

    sent: bytes
    last: Id
    ends: bool
    newest: bool


class View(dict[int, Piece | None]):
    """A tail in one form and framing: the same bytes for all who read it so.

    `view[number]` is what comes after the entry of this number, or the first part of it; None at the end, or if the
    tail begins later. It is made when it is first asked for.
    """

    __slots__ = ("_form", "_framing", "_made", "_tail")

    def __init__(self, tail: Tail, form: Callable[[Entry], bytes], framing: Frame) -> None:
        self._tail = tail
        self._form = form
        self._framing = framing
        self._made: dict[int, bytes] = {}  # entries, by their number

    def __missing__(self, number: int) -> Piece | None:
        entries = self._tail.after(number)
        piece = self._piece(map(self._bytes_of, entries), entries[-1]) if entries else None
        if len(self) >= _MEMORY:
            self.clear()
        self[number] = piece
        return piece

    def _piece(self, made: Iterable[bytes], last: Entry) -> Piece:
        ends = last.event is not None and last.ends
        return Piece(self._framing(b"".join(made)), last.id, ends, last.id == self._tail.last)

    def made(self, entry: Entry) -> bytes:
        """An entry as it is sent."""
        return self._framing(self._form(entry))

    def pieces(self, entries: Sequence[Entry]) -> Iterator[Piece]:
        """Entries from the log, which the tail need not have, in pieces of about PIECE bytes."""
        rest = entries
        while rest:
            count = _count(rest)
            yield self._piece(map(self._form, rest[:count]), rest[count - 1])
            rest = rest[count:]

    def _bytes_of(self, entry: Entry) -> bytes:
        made = self._made.get(entry.id.n)
        if made is None:
            made = self._made[entry.id.n] = self._form(entry)
        return made

    def forget(self) -> None:
        """The numbers are not those of before any more."""
        self.clear()
        self._made.clear()

    def drop(self, number: int) -> None:
        """The tail does not hold this entry any more."""
        self._made.pop(number, None)

    def changed(self) -> None:
        """The tail has grown: no piece reaches to its end now."""
        self.clear()


class Tail:
    """The newest entries of a log, from `last` on. `latest`: only the newest of all is worth reading."""

    def __init__(self, last: Id, latest: bool = False) -> None:
        self.latest = latest
        self._entries: deque[Entry] = deque()
        self._views: dict[tuple[Callable[[Entry], bytes], Frame], View] = {}
        self._size = 0
        self.last = last
        """The id of the newest."""

    @property
    def newest(self) -> Entry | None:
        """The newest entry, if it was seen."""
        return self._entries[-1] if self._entries else None

    def extend(self, entries: Sequence[Entry]) -> bool:
        """These were appended. Returns whether they follow what is here; else that is forgotten, and a tail begins."""
        follows = True
        for entry in entries:
            if entry.id.n != self.last.n + 1:
                follows = False
                self.restart(entry.id)
            self._entries.append(entry)
            self._size += len(entry.data)
            self.last = entry.id
        while len(self._entries) > 1 and (self.latest or len(self._entries) > ENTRIES or self._size > BYTES):
            gone = self._entries.popleft()
            self._size -= len(gone.data)
            for view in self._views.values():
                view.drop(gone.id.n)
        for view in self._views.values():
            view.changed()
        return follows

    def restart(self, last: Id) -> None:
        """What was here is of a log that is gone; the one that is there now ends with `last`."""
        self._entries.clear()
        self._size = 0
        self.last = last
        for view in self._views.values():
            view.forget()

    @property
    def _first(self) -> int:
        return self._entries[0].id.n if self._entries else self.last.n + 1

    def reaches(self, number: int) -> bool:
        """Whether all that comes after this entry is here, or will come here."""
        if self.latest:
            return bool(self._entries) or number == self.last.n
        return number >= self._first - 1

    def after(self, number: int) -> list[Entry]:
        """The entries after this one, about PIECE bytes of them; [] if there are none, or the tail begins later."""
        if number >= self.last.n or not self._entries:
            return []
        if self.latest:
            return [self._entries[-1]]
        start = number + 1 - self._first
        if start < 0:
            return []
        entries = [*islice(self._entries, start, None)]
        return entries[: _count(entries)]

    def view(self, form: Callable[[Entry], bytes], framing: Frame) -> View:
        """What readers of this form and framing share."""
        key = form, framing
        if key not in self._views:
            self._views[key] = View(self, form, framing)
        return self._views[key]


def _count(entries: Sequence[Entry]) -> int:
    """How many of these make a piece: one at least."""
    size = 0
    for count, entry in enumerate(entries):
        size += len(entry.data)
        if count and size > PIECE:
            return count
    return len(entries)
