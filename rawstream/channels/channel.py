"""A channel: publish to a log, and hand each of its entries to all who read it, however many and however slow."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

from rawstream.errors import EventError, EventTooLarge, ItemError, NotFound
from rawstream.formats import CONTROL, JsonLines
from rawstream.sse import Event, encode

from .cursor import PAGE, After, Place, locate, position
from .log import END, START, Entry, Id, State, Store
from .reader import Reader
from .subscription import Subscription
from .tail import Tail

if TYPE_CHECKING:
    from .hub import Hub

log = logging.getLogger("rawstream")

Behind: TypeAlias = Literal["gap", "cut", "latest"]
Attend: TypeAlias = "Callable[[Store, Channel], Coroutine[Any, Any, None]]"

TTL = 3600.0
"""Seconds for which a channel that was closed can be read."""

HEARTBEAT = 15.0
"""Seconds of silence after which subscribers are sent a comment: one timer for all of them."""

EVENT = 256 * 1024
"""Bytes of an event's data, as JSON, beyond which it is refused."""

_STEP = 8  # writes to sockets, of some 10 microseconds each, before the clock is looked at
_NAME = 256  # characters of an event's name, or of a key

_to_line = JsonLines().encode


class Member(Protocol):
    """Who reads a channel in this process."""

    def advance(self) -> None: ...  # something came; also called when it has left already
    def beat(self) -> None: ...  # nothing came for HEARTBEAT seconds
    def doubt(self) -> None: ...  # the log may not be the one that it was
    def finish(self) -> None: ...  # nothing more will come


class Channel:
    """One channel of a hub; made by `hub.channel(name)`.

    behind: what becomes of a subscriber that falls behind what the log holds. "gap": it is told what is missing, and
    goes on with the oldest; "cut": its connection is cut (`read`, which has none, is told); "latest": it is only ever
    sent the newest.
    """

    def __init__(self, hub: Hub, name: str, behind: Behind = "gap", attend: Attend | None = None) -> None:
        self._hub = hub
        self._attend = attend  # for a run: what is to be done while it has readers
        self._attending: asyncio.Task[None] | None = None
        self._joining = asyncio.Lock()
        self._tail: Tail | None = None  # while it is followed
        self._early: list[Entry] = []  # delivered before the tail could be made
        self._members: dict[Member, bool] = {}  # and whether it counts as a subscriber
        self._fanning_out = False
        self._beat: asyncio.TimerHandle | None = None
        self._spoke = 0.0  # when something was last sent, in the loop's time
        self.read_by: Callable[[int], None] | None = None
        """For a run's owner: told when the first subscriber comes, and when the last one leaves."""
        self.log = name if attend is None else f"run/{name}"
        """Its name in the store."""
        self.name = name
        self._behind: Behind = behind
        self.subscribers = 0
        """How many read it, in this process."""

    @property
    def behind(self) -> Behind:
        """What becomes of a subscriber that falls behind."""
        return self._behind

    @behind.setter
    def behind(self, behind: Behind) -> None:
        self._behind = behind
        if self._tail is not None:
            self._tail.latest = behind == "latest"

    # -- for everybody -----------------------------------------------------------------------------------------------

    async def publish(self, data: Any, event: str | None = None, key: str | None = None) -> str:
        """Append an event to the log, and return its id.

        data: anything that JSON can hold; a `str` is sent as it is in server-sent events. event: its name, None for
        "message". key: makes it safe to publish again after a failure: one that was used in the last 10 minutes
        publishes nothing, and returns the first id.

        Raises ItemError or EventError for what cannot be published, EventTooLarge (413), ChannelEnded (409),
        StoreUnavailable and OutcomeUnknown (503), and LocalError if the hub is open in another event loop. Cancelling
        it leaves open whether the event is published.
        """
        if isinstance(data, Event):
            raise ItemError("Event", "is published as publish(event.data, event.event); the log gives the id")
        text = checked_data(data, event, self._hub.event_size)
        _check_key(key)
        store = await self._hub.store()
        id = await store.append(self.log, text, event, key=key)
        if self._fanning_out:
            await asyncio.sleep(0)  # who publishes in a loop shall not keep the readers waiting
        else:
            await self._hub.turn()  # nor all others
        return str(id)

    def subscribe(self, after: object = None, replay: Literal["earliest"] | int | None = None) -> Subscription:
        """A response for a handler: `return channel.subscribe()`.

        It begins after what the client has seen, which it says in Last-Event-ID or in `?last_event_id=`. If it says
        nothing: after `after`, an event's id or "earliest"; or else `replay` says how much of the log comes first:
        "earliest" for all, or how many events, None for none. Accept chooses server-sent events or JSON lines.

        Raises BadEventId (400) for what is no id.
        """
        return Subscription(self, position(after), replay)

    def read(self, after: object = None) -> AsyncGenerator[Event, None]:
        """The events after `after` (an id, "earliest", or None for what comes next), as they come: `async for`.

        It begins with the first step of the `async for`. It ends with the channel, whose last event is `stream-end` or
        `stream-error`. What the log does not hold any more is told by an event `stream-gap`. Raises BadEventId (400);
        StoreUnavailable (503): nothing is lost by reading on after the last id; Unavailable (503) if the hub closes
        before the end; NotFound for a run that is not there (any more).
        """
        return Reader(self).events(position(after))

    async def state(self) -> State | None:
        """What the log holds; None if nothing was ever published. Raises StoreUnavailable."""
        return await (await self._hub.store()).state(self.log)

    async def close(self) -> None:
        """End the channel: subscribers are told (`stream-end`), and nothing can be published any more.

        What it holds can be read for an hour. Raises StoreUnavailable. Closing it again does nothing.
        """
        await (await self._hub.store()).end(self.log, END, "{}", ttl=TTL)

    # -- for its readers ---------------------------------------------------------------------------------------------

    async def locate(self, after: After) -> Place:
        """Where a reader goes on. Raises StoreUnavailable, and NotFound for a run that is not there (any more)."""
        store = await self._hub.store()
        tail = self._tail
        delivered = tail.last if tail is not None else START
        state = await store.state(self.log)
        last = START if state is None else state.last
        if tail is not None and tail.last == delivered and last.n < delivered.n:
            tail.restart(last)  # the log was removed, and perhaps begun again
            for member in [*self._members]:
                member.doubt()
        if state is None and self._attend is not None:
            raise NotFound(f"there is no run {self.name}")
        if self.behind == "latest" and after != last:
            after = 1
        return await locate(store, self.log, after, state)

    async def page(self, after: Id) -> list[Entry]:
        """What comes next in the log. Raises StoreUnavailable."""
        entries = await (await self._hub.store()).read(self.log, after, PAGE)
        await self._hub.turn()  # to make bytes of a page and write them takes a millisecond, and many may read
        return entries

    async def join(self, member: Member, subscriber: bool = True) -> Tail:
        """Follow the log for this member, too. Raises StoreUnavailable; in any case `leave` is due."""
        if member not in self._members:
            self._members[member] = subscriber
            self._count(subscriber)
        async with self._joining:  # one of those who come together asks the store for all
            if self._tail is None:
                self._tail = await self._follow()
            return self._tail

    def leave(self, member: Member) -> None:
        """It reads no more."""
        self._count(-self._members.pop(member, 0))
        if not self._members and self._tail is not None:
            self._tail = None
            self._hub.unfollow(self.log)
            self._fall_silent()

    def _fall_silent(self) -> None:
        if self._beat is not None:
            self._beat.cancel()
        if self._attending is not None:
            self._attending.cancel()

    def _count(self, more: int) -> None:
        self.subscribers += more
        if more and self.read_by is not None and self.subscribers in (0, more):
            self.read_by(self.subscribers)

    async def _follow(self) -> Tail:
        store = await self._hub.store()
        self._early.clear()
        try:
            last = await store.follow(self.log, self._deliver)
        except BaseException:
            store.unfollow(self.log)
            raise
        tail = Tail(last, self.behind == "latest")
        tail.extend([entry for entry in self._early if entry.id.n > last.n])
        self._spoke = asyncio.get_running_loop().time()
        self._look_for_silence()
        if self._attend is not None:
            self._attending = self._hub.spawn(self._attend(store, self))
        return tail

    def _deliver(self, entries: list[Entry]) -> None:
        if self._tail is None:
            self._early += entries
            return
        if not self._tail.extend(entries):
            for member in [*self._members]:
                member.doubt()
        self._spoke = asyncio.get_running_loop().time()
        if not self._fanning_out:
            self._fanning_out = True
            self._hub.slices.add(self._fan_out())

    def _look_for_silence(self) -> None:
        loop = asyncio.get_running_loop()
        if (silence := loop.time() - self._spoke) >= HEARTBEAT:
            self._spoke, silence = loop.time(), 0.0
            self._hub.slices.add(self._beats())
        self._beat = loop.call_later(HEARTBEAT - silence, self._look_for_silence)

    def _beats(self) -> Iterator[None]:
        for member in [*self._members]:
            member.beat()
            yield

    def _fan_out(self) -> Iterator[None]:
        """Let all who keep up write what has come; a step is some writes."""
        last = None
        while self._tail is not None and self._tail.last != last:
            last = self._tail.last
            members = [*self._members]
            for start in range(0, len(members), _STEP):
                for member in members[start : start + _STEP]:
                    try:
                        member.advance()
                    except Exception:
                        log.exception("a subscriber of %s failed, and is let go", self.name)
                        member.finish()
                yield
        self._fanning_out = False

    def finish(self) -> None:
        """The hub closes: let all readers go."""
        for member in [*self._members]:
            member.finish()
        self._tail = None
        self._joining = asyncio.Lock()  # it is of one loop, and the next may be another
        self._fall_silent()


def checked_data(data: Any, event: str | None, most: int = EVENT) -> str:
    """Data as JSON text. Raises ItemError, EventError for an event's name that cannot be, EventTooLarge."""
    if event is not None:
        encode(Event(None, event))  # line breaks, other types, and what UTF-8 cannot carry are refused
        if event.startswith(CONTROL):
            raise EventError(f"an event's name does not begin with {CONTROL!r}, as rawstream's own do")
        if len(event) > _NAME:
            raise EventError(f"an event's name has at most {_NAME} characters, not {len(event)}")
    encoded = _to_line(data)[:-1]
    if len(encoded) > most:
        raise EventTooLarge(f"an event's data has at most {most} bytes as JSON here, not {len(encoded)}")
    return encoded.decode()


def _check_key(key: object) -> None:
    if key is None:
        return
    if not (isinstance(key, str) and 0 < len(key) <= _NAME):
        raise EventError(f"a key is a str of 1 to {_NAME} characters, not {key!r}")
    try:
        key.encode()
    except UnicodeEncodeError as exc:
        raise EventError(f"a key is text that UTF-8 can carry, which {key!r} is not: {exc.reason}") from exc
