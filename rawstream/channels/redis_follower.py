"""Follows logs in Redis, however many: one task, with two connections, one to hear of logs and one to read them.

Each append publishes to a channel of Redis (Pub/Sub) that has the name of its stream: so a delivery costs the same,
however many logs are followed. What is published is no more than a hint to read on after the last entry that was
delivered. So a hint too many costs a look, and those that are lost with their connection are made up for by reading
all logs when it is made anew. (One XREAD of all streams at once takes 4 ms for a thousand, in each delivery.)
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from redis.asyncio.connection import AbstractConnection

from rawstream.errors import StoreUnavailable

from .log import Deliver, Entry, Id
from .redis_commands import PATIENCE, Commands, exchange, log, pauses, said

_SILENCE = 10.0  # seconds after which Redis is asked whether it is still there
_PAGE = 256  # entries that one XREAD may bring, so that the loop is held for a few milliseconds
_LOGS = 64  # in one XREAD

# Of logs, whose keys are pairs: which one it is, and its last id; nothing of it if somebody else has written there.
_LASTS = """
local found = {}
for i = 1, #KEYS, 2 do
  local kind, meta = redis.call('TYPE', KEYS[i]).ok, redis.pcall('HMGET', KEYS[i + 1], 'born', 'last')
  local ours = (kind == 'stream' or kind == 'none') and not meta.err
  table.insert(found, ours and {meta[1] or '', meta[2] or '0-0'} or false)
end
return found
"""


@dataclass(slots=True, eq=False)
class _Followed:
    """A log that is followed: which one it is, and the last id that was delivered."""

    name: str
    deliver: Deliver
    born: bytes
    last: bytes
    readable: bool = True


class Follower:
    """Delivers what is appended to the logs that are followed. `keys`: of a log, those of its stream and the rest."""

    def __init__(self, commands: Commands, keys: Callable[[str], list[str]]) -> None:
        self._commands = commands
        self._keys = keys
        self._followed: dict[bytes, _Followed] = {}  # by their streams' keys
        self._left: set[bytes] = set()  # that are still subscribed to
        self._some = asyncio.Event()  # is followed, or was; made anew for each loop
        self._hearing: AbstractConnection | None = None  # while it is open
        self._task: asyncio.Task[None] | None = None

    def open(self) -> None:
        """Begin, in this loop, when something is followed."""
        self._some = asyncio.Event()
        self._task = asyncio.create_task(self._follow_all(), name="rawstream-redis")

    async def close(self) -> None:
        """Deliver nothing any more."""
        self._followed.clear()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def follow(self, name: str, deliver: Deliver) -> Id:
        """Deliver what is appended to this log after the id that is returned. Raises StoreUnavailable."""
        keys = self._keys(name)
        (known,) = await self._commands.ask("EVALSHA", _LASTS, 2, *keys)
        if known is None:
            raise StoreUnavailable("the channels' store is broken")
        key = keys[0].encode()
        self._followed[key] = _Followed(name, deliver, *known)
        self._left.discard(key)
        self._some.set()
        with contextlib.suppress(Exception):  # whatever it is, the task sees it too, and subscribes to all again
            async with asyncio.timeout(PATIENCE):
                await self._tell("SUBSCRIBE", key)
        return id_of(known[1])

    def unfollow(self, name: str) -> None:
        """Deliver no more of this log."""
        key = self._keys(name)[0].encode()
        if self._followed.pop(key, None):
            self._left.add(key)

    async def _tell(self, *command: object) -> None:
        """Say it on the connection that hears, if that is open: in one piece, in the order of the calls."""
        if self._hearing is not None and self._hearing.is_connected:  # else it would connect, and hear of nothing
            await self._hearing.send_command(*command, check_health=False)

    async def _follow_all(self) -> None:
        """The one task of all followers: what is heard of is read, connection after connection."""
        lost, pausing = False, pauses()
        await self._some.wait()
        while True:
            hearing, reading = self._commands.connection(), self._commands.connection()
            try:
                async with asyncio.timeout(PATIENCE):
                    await hearing.connect()  # type: ignore[no-untyped-call]
                    await reading.connect()  # type: ignore[no-untyped-call]
                    await self._look(reading, [*self._followed])
                    self._left.clear()
                    self._hearing = hearing
                    # One at least, which is no log's: where nothing is subscribed to, PING has another reply.
                    await self._tell("SUBSCRIBE", self._keys("")[0], *self._followed)
                if lost:
                    log.warning("Redis is back: deliveries go on")
                lost, pausing = False, pauses()
                waiting: dict[bytes, None] = {}  # logs in which there is something to read
                while True:
                    await self._hear(hearing, waiting)
                    async with asyncio.timeout(PATIENCE):
                        await self._page(reading, waiting)
                        if self._left:
                            left, self._left = self._left, set()
                            await self._tell("UNSUBSCRIBE", *left)
            except Exception as exc:  # whatever it is, it is of use only to go on
                if not lost:
                    log.warning("Redis is lost, nothing is delivered: %s", said(exc))
                lost = True
            finally:
                self._hearing = None
                await hearing.disconnect()
                await reading.disconnect()
            await asyncio.sleep(next(pausing))

    async def _hear(self, hearing: AbstractConnection, waiting: dict[bytes, None]) -> None:
        """Of logs in which there is something new: wait for one if none is waiting, and take what else there is."""
        while not waiting or (len(waiting) < _LOGS and await hearing.can_read()):
            try:
                async with asyncio.timeout(_SILENCE):
                    kind, key, *_ = await hearing.read_response(disconnect_on_error=False)
            except TimeoutError:  # is anybody there?
                await self._tell("PING", "")
                async with asyncio.timeout(PATIENCE):
                    kind, key, *_ = await hearing.read_response(disconnect_on_error=False)
            if kind in (b"message", b"subscribe") and key in self._followed:
                waiting[key] = None  # also when it is subscribed to: it may have grown before
            elif self._left:
                return

    async def _page(self, reading: AbstractConnection, waiting: dict[bytes, None]) -> None:
        """Deliver a page of what waits."""
        logs = {key: self._followed[key] for key in waiting if key in self._followed}
        waiting.clear()
        if strange := [key for key, each in logs.items() if not each.readable]:
            await self._look(reading, strange)
        logs = {key: each for key, each in logs.items() if each.readable}
        if not logs:
            return
        count = max(1, _PAGE // len(logs))
        cursors = [each.last for each in logs.values()]
        begun = []
        for key, raw in await exchange(reading, "XREAD", "COUNT", count, "STREAMS", *logs, *cursors) or []:
            each = logs[key]
            if len(raw) == count:
                waiting[key] = None  # there may be more
            if self._followed.get(key) is each:  # still, and from the same place
                each.last = raw[-1][0]  # first, so that nothing comes twice, nor stands in the way of the next
                entries = [entry_of(one) for one in raw]
                each.deliver(entries)
                begun += [key for entry in entries if entry.id.n == 1]
        if begun:
            await self._look(reading, begun)

    async def _look(self, connection: AbstractConnection, names: list[bytes]) -> None:
        """Which logs are these now? One that is behind its follower is another, or has lost its newest entries."""
        followed = [self._followed[key] for key in names if key in self._followed]
        keys = [key for each in followed for key in self._keys(each.name)]
        found = await exchange(connection, "EVALSHA", _LASTS, len(keys), *keys)
        for each, known in zip(followed, found, strict=True):
            each.readable = known is not None
            if known is None:
                self._commands.tell(StoreUnavailable(f"somebody else wrote where the channel {each.name} is"))
            else:
                if id_of(known[1]) < id_of(each.last):
                    each.last = known[1] if known[0] == each.born else b"0-0"
                each.born = known[0]


def id_of(raw: bytes) -> Id:
    """An id as Redis has it."""
    ms, _, n = raw.partition(b"-")
    return Id(int(ms), int(n))


def entry_of(raw: list[Any]) -> Entry:
    """An entry as Redis has it. Raises StoreUnavailable."""
    try:
        at, (_, data, *event) = raw
        return Entry(id_of(at), event[1].decode() if event else None, data.decode())
    except ValueError as exc:  # somebody else's
        raise StoreUnavailable("the channels' store is broken") from exc
