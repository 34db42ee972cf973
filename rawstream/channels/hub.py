"""All channels and runs of one store: the one thing that a program makes, `Hub("redis://…")`."""

from __future__ import annotations

import asyncio
import contextlib
import math
import secrets
from collections.abc import AsyncIterator, Coroutine
from functools import partial
from types import TracebackType
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit
from weakref import WeakSet, WeakValueDictionary

from rawstream.driving import close
from rawstream.errors import LocalError, NotFound, StoreUnavailable
from rawstream.turns import NO_WORK, Turns

from .channel import EVENT, Behind, Channel
from .log import ERROR, Retention, Store, checked_name
from .memory import MemoryStore
from .runs import LEASE, TTL, Owner, Run, attend
from .slices import Slices

_FOR_EVER = math.inf  # the lease of a run that cannot outlive its store
_LONGEST = 1e9  # seconds, 31 years: every store can add as much to the time

_open: WeakSet[Hub] = WeakSet()


class Hub:
    """The channels and runs of one store.

    url: "memory:" (this process, forgotten with it), "sqlite:///file" (this process, kept; four slashes for an absolute
        path) or "redis://host:port/db" (any number of processes and machines; needs the extra `redis`). Each may be
        followed by how much is held of each channel, as in "memory:?entries=1000&age=3600": see `Retention`.
    event_size: bytes of an event's data, as JSON text, beyond which it is refused; 1 or more.

    It connects when it is first used, or by `async with`, which closes it too. It belongs to the event loop in which it
    is open; after `close` it may be used again, in another one too. Open it around the server: `async with hub,
    serve(router):`. Raises LocalError for a URL that is none of these, and for another size.
    """

    def __init__(self, url: str = "memory:", *, event_size: int = EVENT) -> None:
        if type(event_size) is not int or event_size < 1:
            raise LocalError(f"event_size is a whole number of bytes, 1 or more, not {event_size!r}")
        self._store = _store(url)
        self._open: asyncio.Task[None] | None = None
        self._channels: WeakValueDictionary[str, Channel] = WeakValueDictionary()
        self._behind: dict[str, Behind] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self.url = url
        self.event_size = event_size
        self.slices = Slices()
        """In which all channels write to their subscribers."""
        self._work = NO_WORK  # of all who catch up
        self.owners: dict[str, Owner] = {}
        """The runs at work in this process."""

    @property
    def shared(self) -> bool:
        """Other processes may use the same store."""
        return self._store.shared

    @property
    def is_open_here(self) -> bool:
        """It was opened in the running loop, and not closed."""
        return self._open is not None and self._open.get_loop() is asyncio.get_running_loop()

    async def __aenter__(self) -> Hub:
        await self.store()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End the runs of this process and all that reads here, and let go of the store."""
        await asyncio.sleep(0)  # what was just begun can then be closed
        owners = [owner.task for owner in self.owners.values()]
        for owner in owners:
            owner.cancel()
        if owners:
            await asyncio.wait(owners, timeout=LEASE)
        for channel in list(self._channels.values()):
            channel.finish()
        for task in list(self._tasks):
            task.cancel()
        _open.discard(self)
        opening, self._open = self._open, None
        if opening is not None:
            if not opening.done():
                opening.cancel()
                await asyncio.wait({opening})
            await self._store.close()

    # -- for everybody -----------------------------------------------------------------------------------------------

    def channel(self, name: str, *, behind: Behind | None = None) -> Channel:
        """The channel of this name, which need not exist yet; see `Channel` for `behind`. Raises BadName (400)."""
        checked_name(name)
        if behind is not None:
            if behind not in ("gap", "cut", "latest"):
                raise LocalError(f'behind is "gap", "cut" or "latest", not {behind!r}')
            self._behind[name] = behind
        if (channel := self._channels.get(name)) is None:
            channel = self._channels[name] = Channel(self, name)
        channel.behind = self._behind.get(name, "gap")
        return channel

    async def channels(self) -> list[str]:
        """The names of all channels that hold something. Raises StoreUnavailable."""
        return [name for name in await (await self.store()).names() if "/" not in name]

    async def run(
        self, iterator: AsyncIterator[Any], id: str | None = None, *, ttl: float = TTL, linger: float | None = None
    ) -> Run:
        """Let `iterator` (an async generator, say) fill a channel of its own, whoever reads it, and return the run.

        id: its name; None makes one. An id that is known, at work or ended, is attached to: `iterator` is then closed
            without having begun, and the run says so: not `begun`.
        ttl: seconds for which it can be read after its end; 600 if another process ends it since this one is dead.
        linger: stop it when nobody has read it for so many seconds; None lets it work without readers. Both are above
            0, and at most 1e9.

        Raises BadName (400), StoreUnavailable (503), and LocalError for what is no async iterator, for other seconds,
        and if the hub is open in another event loop. Cancelling it closes `iterator`.
        """
        _check_iterator(iterator)
        try:
            _check_seconds("ttl", ttl)
            if linger is not None:
                _check_seconds("linger", linger)
            name = secrets.token_hex(16) if id is None else checked_name(id)
            store, token, channel = await self.store(), secrets.token_hex(8), self.run_channel(name)
            try:
                begun = await store.begin(channel.log, token, LEASE if store.shared else _FOR_EVER)
            except BaseException:
                await asyncio.shield(self.spawn(_undo(store, channel.log, token)))
                raise
        except BaseException:
            await close(iterator)
            raise
        if not begun:
            await close(iterator)
            return Run(self, channel, ttl)
        owner = self.owners[name] = Owner(self, store, channel, iterator, token, ttl, linger)
        owner.task.add_done_callback(lambda task: self._forget(name, owner))
        return Run(self, channel, ttl, begun=True)

    async def find(self, id: str) -> Run:
        """The run of this id, wherever it works. Raises NotFound (404), BadName (400) and StoreUnavailable (503)."""
        channel = self.run_channel(id)
        if await (await self.store()).state(channel.log) is None:
            raise NotFound(f"there is no run {id}")
        return Run(self, channel)

    def _forget(self, name: str, owner: Owner) -> None:
        if self.owners.get(name) is owner:
            del self.owners[name]

    # -- for channels and runs ---------------------------------------------------------------------------------------

    async def store(self) -> Store:
        """The store, open in the running loop. Raises StoreUnavailable, and LocalError if it is open in another."""
        loop = asyncio.get_running_loop()
        if self._open is None or (self._open.done() and (self._open.cancelled() or self._open.exception())):
            self._open = loop.create_task(self._store.open())
        elif (other := self._open.get_loop()) is not loop and not other.is_closed():
            where = "use it there, by asyncio.run_coroutine_threadsafe, say, or close it there first"
            raise LocalError(f"this hub is open in another event loop, and belongs to one at a time: {where}")
        if not self._open.done():
            await asyncio.shield(self._open)
            _open.add(self)
        return self._store

    async def turn(self) -> None:
        """Let others go on, if all who catch up have had a millisecond together in this turn of the loop."""
        self._work = await Turns.of(asyncio.get_running_loop()).go_on(self._work)

    def unfollow(self, log: str) -> None:
        """Nobody reads this log here any more."""
        self._store.unfollow(log)

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """A task that ends with the hub."""
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def run_channel(self, name: str) -> Channel:
        """The channel of a run, which need not be there. Raises BadName (400)."""
        checked_name(name)
        channel = self._channels.get(f"run/{name}")
        if channel is None:
            channel = self._channels[f"run/{name}"] = Channel(self, name, attend=partial(attend, self.owners))
        return channel


def _check_iterator(iterator: object) -> None:
    if hasattr(iterator, "__aiter__"):
        return
    if asyncio.iscoroutine(iterator):
        iterator.close()  # else Python would say that it was never awaited
    what = type(iterator).__name__ + (": call it, and give what it returns" if callable(iterator) else "")
    raise LocalError(f"a run takes an async iterator (an async generator, say), not {what}")


def _check_seconds(name: str, seconds: object) -> None:
    if type(seconds) not in (int, float) or not 0 < seconds <= _LONGEST:  # type: ignore[operator]
        raise LocalError(f"a run's {name} is a number of seconds, above 0 and at most {_LONGEST:.0f}, not {seconds!r}")


async def _undo(store: Store, log: str, token: str) -> None:
    """Forget a run that may have begun although nobody will drive it."""
    with contextlib.suppress(StoreUnavailable):
        if await store.end(log, ERROR, "{}", token=token, ttl=LEASE):
            await store.remove(log)


def _store(url: object) -> Store:
    """The store that a URL names."""
    try:
        parts = urlsplit(url) if isinstance(url, str) else None
    except ValueError:
        parts = None
    if not isinstance(url, str) or parts is None or parts.fragment:
        raise _no_store(url)
    ours = {"entries": int, "bytes": int, "age": float, "logs": int}
    given = parse_qsl(parts.query, keep_blank_values=True)
    try:
        retention = Retention(**{name: ours[name](value) for name, value in given if name in ours})
    except ValueError as exc:
        raise LocalError(f"how much is held is told in numbers, as in memory:?entries=1000: {exc}") from exc
    rest = urlencode([(name, value) for name, value in given if name not in ours])
    if parts.scheme in ("redis", "rediss", "unix"):
        try:
            from .redis import RedisStore
        except ImportError as exc:
            raise LocalError("redis:// needs redis-py: pip install 'redis>=8'") from exc
        return RedisStore(urlunsplit(parts._replace(query=rest)), retention)
    if not rest and parts.scheme == "memory" and not parts.netloc + parts.path:
        return MemoryStore(retention)
    if parts.scheme == "sqlite" and parts.path == "/:memory:":  # to SQLite no file; to us it would be one of this name
        raise LocalError('what no file keeps is the store "memory:", not "sqlite:///:memory:"')
    if not rest and url.lower().startswith("sqlite:///") and len(parts.path) > 1:
        from .sqlite import SqliteStore

        return SqliteStore(parts.path[1:], retention)
    raise _no_store(url)


def _no_store(url: object) -> LocalError:
    shown = "this URL" if "@" in str(url) else repr(url)  # there may be a password inside
    return LocalError(f'a store is "memory:", "sqlite:///file" or "redis://host:port/db", not {shown}')


async def close_all() -> None:
    """Close all hubs that are open in this loop: for a program that cannot know them."""
    for hub in [*_open]:
        if hub.is_open_here:
            await hub.close()
