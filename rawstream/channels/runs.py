"""A run: a generator that fills a channel, detached from any connection. It ends when it ends, or is stopped.

It is driven by the same pump as a stream, into another sink: each item is appended to the log, and the pump waits for
it as it waits for a slow reader. All that is known of a run is in the store: who owns it, for how long that counts
(the lease), and how it ended. So any process can attach to it, stop it, and see that its owner is dead.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from rawstream.answers import verdict
from rawstream.driving import close
from rawstream.errors import ChannelEnded, Disconnected, ItemError, NotFound, StoreUnavailable, phrase
from rawstream.pump import Pump
from rawstream.sink import Way
from rawstream.sse import Event

from .channel import Channel, checked_data
from .log import END, ERROR, ORPHAN, Store, told
from .subscription import Subscription
from .tail import Tail

if TYPE_CHECKING:
    from .hub import Hub

log = logging.getLogger("rawstream")

LEASE = 15.0
"""Seconds after which a run whose owner says nothing counts as dead. Its owner says something three times as often."""

TTL = 600.0
"""Seconds for which a run can be read after its end, if nothing else is said."""

_AGAIN = 0.5  # seconds, and up to as many more, after which a store that could not be reached is tried again
_STUBBORN = 10.0  # seconds for which `stop` waits for a generator that was told to end
STOPPED = told(stopped=True)


class Run:
    """A run, as any process sees it; made by `hub.run` and `hub.find`."""

    def __init__(self, hub: Hub, channel: Channel, ttl: float = TTL, begun: bool = False) -> None:
        self._hub = hub
        self._ttl = ttl
        self.id = channel.name
        self.channel = channel
        self.begun = begun
        """By the `hub.run` that returned it: of all who begin a run of one id, one alone does."""

    def subscribe(self, after: object = None, replay: Literal["earliest"] | int | None = "earliest") -> Subscription:
        """A response for a handler, as `Channel.subscribe`; who has seen nothing gets all of it."""
        return self.channel.subscribe(after, replay)

    def read(self, after: object = "earliest") -> AsyncGenerator[Event, None]:
        """Its events, as `Channel.read`, from the first on."""
        return self.channel.read(after)

    async def stop(self) -> None:
        """End it: its readers are told (`stream-end`), and its generator is closed, in whatever process it is.

        Here it waits until the generator is closed, for 10 s at most. Stopping it again does nothing. The `ttl` that it
        was begun with is known in its own process only; elsewhere it is 600 s, or what `hub.run` was given there.
        Raises StoreUnavailable.
        """
        store = await self._hub.store()
        owner = self._hub.owners.get(self.id)
        await store.end(self.channel.log, END, STOPPED, ttl=owner.ttl if owner is not None else self._ttl)
        await self.wait_closed()

    async def wait_closed(self) -> None:
        """Wait until its generator is closed, if that runs in this process."""
        if (owner := self._hub.owners.get(self.id)) is not None:
            await owner.closed()


class Owner:
    """What drives a run's generator, in the process in which it began: its pump's sink, and a member of its channel.

    linger: seconds after which it is stopped if nobody reads it.
    """

    def __init__(
        self, hub: Hub, store: Store, channel: Channel, iterator: AsyncIterator[Any], token: str, ttl: float,
        linger: float | None,
    ) -> None:  # fmt: skip
        self._hub = hub
        self._store = store
        self._channel = channel
        self._log = channel.log
        self._iterator = iterator
        self._token = token
        self._linger = linger
        self._alone: asyncio.TimerHandle | None = None  # when nobody has read it for too long
        self._appended = 0
        self._waiting: deque[bytes] = deque()  # to be appended
        self._tail: Tail | None = None
        self._over = False  # it has its end, or is being given it
        self.ttl = ttl
        """Seconds for which the run can be read after its end, whoever ends it here."""
        self.task = asyncio.create_task(self._run(), name=f"rawstream: run {channel.name}")

    async def closed(self) -> None:
        """Wait until the generator is closed, a while at most."""
        _, late = await asyncio.wait({self.task}, timeout=_STUBBORN)
        if late:
            log.error("run %s has not ended %g s after it was told to; left behind", self._channel.name, _STUBBORN)

    async def _run(self) -> None:
        keeper = asyncio.create_task(self._keep(), name=f"rawstream: lease of run {self._channel.name}")
        try:
            try:
                await self._follow()
                self._channel.read_by = self.read_by
                self.read_by(self._channel.subscribers)
                pump = Pump(self._iterator, self._encode, self, gather=1)
                await pump.run()
                self.write(pump.take())
                await self.drain()
            finally:
                await close(self._iterator)
        except GeneratorExit:
            raise  # the loop is gone
        except BaseException as error:
            await self._broke_off(error)
        else:
            await self._end(END, {})
        finally:
            keeper.cancel()
            self._disarm()
            if self._channel.read_by == self.read_by:
                self._channel.read_by = None
            self._channel.leave(self)

    async def _follow(self) -> None:
        """Follow the log, however long the store cannot be reached. Raises Disconnected if the run has ended."""
        while self._tail is None:
            try:
                self._tail = await self._channel.join(self, subscriber=False)
                if await self._is_ended():
                    raise Disconnected("the run was ended")
            except StoreUnavailable:
                self._tail = None
                await asyncio.sleep(_AGAIN * (1 + random.random()))

    async def _broke_off(self, error: BaseException) -> None:
        if self._over and isinstance(error, asyncio.CancelledError | Disconnected):
            return  # somebody ended it
        if isinstance(error, asyncio.CancelledError) and self._cancelled():
            await self._end(ERROR, {"status": 503, "error": "the server that ran it has closed"}, patient=False)
            raise error
        status, message = verdict(error) if isinstance(error, Exception) else (500, "")
        log.error("run %s failed", self._channel.name, exc_info=error)
        await self._end(ERROR, {"status": status, "error": message or phrase(status)})
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise error

    def _cancelled(self) -> bool:
        """The task was cancelled; else the iterator raised CancelledError, which is as good as any other error."""
        return self.task.cancelling() > 0

    async def _end(self, event: str, data: dict[str, Any], patient: bool = True) -> None:
        """Record the end, however long the store cannot be reached if `patient`."""
        self._over = True
        while True:
            try:
                await self._store.end(self._log, event, told(**data), token=self._token, ttl=self.ttl)
                return
            except StoreUnavailable as error:
                if not patient:  # its readers learn it when the lease runs out
                    log.error("the end of run %s cannot be recorded: %s", self._channel.name, error)
                    return
                await asyncio.sleep(_AGAIN * (1 + random.random()))

    async def _is_ended(self) -> bool:
        state = await self._store.state(self._log)
        self._over = self._over or state is None or state.ended
        return self._over

    async def _keep(self) -> None:
        """Say again and again that this process is alive; who hears that the run was ended stops."""
        while self._store.shared:
            await asyncio.sleep(LEASE / 3)
            with contextlib.suppress(StoreUnavailable):
                state = await self._store.renew(self._log, self._token, LEASE)
                if state is None or state.ended:
                    self._stop()

    def _stop(self) -> None:
        if not self._over:
            self._over = True
            self.task.cancel()

    # -- the pump's sink ---------------------------------------------------------------------------------------------

    @property
    def writable(self) -> bool:
        """Nothing waits to be appended."""
        return not self._waiting

    def write(self, payload: bytes) -> bool:
        """An item, which `drain` appends; b"" is none."""
        if payload:
            self._waiting.append(payload)
        return not self._waiting

    async def drain(self) -> None:
        """Append what waits, however long the store cannot be reached. Raises Disconnected if the run was ended."""
        while self._waiting:
            event, _, data = self._waiting[0].decode().partition("\n")
            # Each append has a key of its own, so that it can be tried again, and by who was cancelled, too.
            key = f"{self._token}-{self._appended}"
            try:
                await self._store.append(self._log, data, event or None, key=key, token=self._token)
            except ChannelEnded as error:
                self._over = True
                raise Disconnected("the run was ended") from error
            except StoreUnavailable:
                await asyncio.sleep(_AGAIN * (1 + random.random()))
            else:
                self._waiting.popleft()
                self._appended += 1

    def way(self) -> Way:
        """An item is stored as it is."""
        return bytes, self

    def later(self, seconds: float, callback: Callable[[], None]) -> None:
        """Never needed: nothing is held back."""

    # -- the channel's member ----------------------------------------------------------------------------------------

    def advance(self) -> None:
        """Something was appended: perhaps its end, by who stopped it."""
        newest = self._tail.newest if self._tail else None
        if newest is not None and newest.ends:
            self._stop()

    def beat(self) -> None:
        """Nothing was appended for a while."""

    def doubt(self) -> None:
        """The log may be gone, or its end have been missed."""
        _ = self._hub.spawn(self._stop_if_ended())

    async def _stop_if_ended(self) -> None:
        with contextlib.suppress(StoreUnavailable):
            if not self._over and await self._is_ended():
                self.task.cancel()

    def finish(self) -> None:
        """The hub closes, which cancels the task."""

    # -- nobody reads ------------------------------------------------------------------------------------------------

    def read_by(self, subscribers: int) -> None:
        """So many read it here now."""
        self._disarm()
        if self._linger is not None and not subscribers:
            self._alone = asyncio.get_running_loop().call_later(self._linger, self._nobody_reads)

    def _disarm(self) -> None:
        if self._alone is not None:
            self._alone.cancel()
            self._alone = None

    def _nobody_reads(self) -> None:
        self._alone = None
        _ = self._hub.spawn(self._stop_if_alone())

    async def _stop_if_alone(self) -> None:
        """Nobody reads it here: look whether it is so in other processes, which tell the store of their readers."""
        ended = False
        with contextlib.suppress(StoreUnavailable):
            state = await self._store.state(self._log)
            elsewhere = self._store.shared and state is not None and state.read is not None and state.read < LEASE
            if not elsewhere and not self._channel.subscribers:
                ended = await self._store.end(self._log, END, STOPPED, token=self._token, ttl=self.ttl)
        if not ended and not self._over:
            self.read_by(self._channel.subscribers)

    def _encode(self, item: Any) -> bytes:
        """An item as the store takes it: the event's name, and the data as JSON, which has no line breaks."""
        event = item if isinstance(item, Event) else Event(item)
        if event.id is not None:
            raise ItemError("Event", f"has the id {event.id!r}, but the events of a run get theirs from the log")
        if event.data is None and isinstance(item, Event):
            return b""
        data = checked_data(event.data, event.event, self._hub.event_size)
        return (event.event or "").encode() + b"\n" + data.encode()


async def attend(owners: Mapping[str, Owner], store: Store, channel: Channel) -> None:
    """While this process follows a run: say that it has readers, and end it for its owner, should that be dead.

    It counts as dead at the second look: who was cut off from the store together with us says so first.
    """
    overdue = False
    while True:
        seconds = LEASE / 3
        with contextlib.suppress(StoreUnavailable):
            if channel.subscribers:
                await store.attend(channel.log)
            state = await store.state(channel.log)
            if state is None:
                with contextlib.suppress(NotFound):
                    await channel.locate(None)  # which tells all readers that it is gone
            lease = state.lease if state is not None else None
            if overdue and lease is not None and lease < 0 and channel.name not in owners:
                await store.end(channel.log, ERROR, ORPHAN, overdue=True, ttl=TTL)
            overdue = lease is not None and lease < 0
            if lease is not None:
                seconds = min(seconds, max(lease, 0.0) + _AGAIN)
        await asyncio.sleep(seconds)
