"""The store that many processes share: the contract of `log` on Redis Streams, from Redis 6.2 on; not on a Cluster.

What is one step is one script. Of a log Redis holds `<prefix>log:<name>`, its stream, and `<prefix>meta:<name>`, what
else there is to know; `<prefix>names` lists the logs by the time at which they expire. `<prefix>key:<name>/<key>`, the
key of an append, says of which log of that name it was, and its id.

One task, with one connection, follows all logs: by one XREAD that blocks; CLIENT UNBLOCK wakes it for a new name.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from redis.asyncio.connection import AbstractConnection

from rawstream.errors import ChannelEnded, OutcomeUnknown, StoreUnavailable

from .log import KEY_SECONDS, Deliver, Entry, Id, Retention, State
from .redis_commands import PATIENCE, Commands, exchange, log, pauses, said

_BLOCK = 10.0  # seconds that one XREAD waits in Redis: no reply that much later, and PATIENCE, is a lost connection
_PAGE = 256  # entries that one XREAD may bring, so that the loop is held for a few milliseconds

# Times are milliseconds. `nonce` is the caller's: by it a call that is repeated knows its own log, and its own end.
_STEP = """
local stream, meta, names, key = unpack(KEYS)
local act, name, nonce, token, life, ms, limit, age = unpack(ARGV)
local born, last, owner, ended, lease, read =
  unpack(redis.call('HMGET', meta, 'born', 'last', 'owner', 'ended', 'lease', 'read'))
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function make()
  born, last = nonce, '0-0'
  redis.call('ZADD', names, 'inf', name)
  redis.call('HSET', meta, 'born', born, 'last', last)
end
local function add()
  local at, n = string.match(last, '(%d+)-(%d+)')
  if tonumber(ms) > tonumber(at) then at = ms end
  last = at .. '-' .. string.format('%.0f', n + 1)
  redis.call('XADD', stream, 'MAXLEN', '~', limit, last, unpack(ARGV, 9))
  if age ~= '' then redis.call('XTRIM', stream, 'MINID', string.format('%.0f', math.max(0, ms - age))) end
  redis.call('HSET', meta, 'last', last)
end

if act == 'append' then
  local of, first = string.match(key and redis.call('GET', key) or '', '(%S+) (%S+)')
  if born and of == born then return first end
  if ended or (owner or '') ~= token then return false end
  if not born then make() end
  add()
  if key then redis.call('SET', key, born .. ' ' .. last, 'PX', life) end
  return last
elseif act == 'end' or act == 'overdue' then
  if ended == nonce then return 1 end
  if not born or ended or (token ~= '' and token ~= owner) then return 0 end
  if act == 'overdue' and (not lease or tonumber(lease) >= now) then return 0 end
  add()
  redis.call('HSET', meta, 'ended', nonce)
  for _, each in ipairs({stream, meta}) do redis.call('PEXPIRE', each, life) end
  redis.call('ZREMRANGEBYSCORE', names, '-inf', now)
  redis.call('ZADD', names, now + life, name)
  return 1
elseif act == 'begin' then
  if born then return born == nonce and 1 or 0 end
  make()
  redis.call('HSET', meta, 'owner', token, 'lease', now + life)
  return 1
elseif act == 'remove' then
  redis.call('ZREM', names, name)
  return redis.call('DEL', stream, meta)
elseif act == 'names' then
  return redis.call('ZRANGEBYSCORE', names, '(' .. now, '+inf')
end
if not born then return false end
if act == 'attend' then return redis.call('HSET', meta, 'read', now) end
if act == 'renew' and owner == token and not ended then
  lease = now + life
  redis.call('HSET', meta, 'lease', lease)
end
local oldest = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
lease, read = lease and not ended and tostring(lease - now) or '', read and tostring(now - read) or ''
return {oldest and oldest[1] or '', last, redis.call('XLEN', stream), ended and 1 or 0, lease, read}
"""

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

    deliver: Deliver
    born: bytes
    last: bytes
    readable: bool = True


class RedisStore:
    """Logs in Redis, under keys that begin with `prefix`. `now` is the wall clock for ids; leases go by that of Redis.

    At least the newest `retention.entries` of a log are held, however large; the old ones go when one is appended.
    """

    shared = True

    def __init__(
        self,
        url: str,
        retention: Retention | None = None,
        *,
        now: Callable[[], float] = time.time,
        prefix: str = "rawstream:",
    ) -> None:
        self._commands = Commands(url)
        self._retention, self._now, self._prefix = retention or Retention(), now, prefix
        self._followed: dict[str, _Followed] = {}
        self._some = asyncio.Event()  # is followed; made anew for each loop
        self._added = self._seen = 0  # names that were followed; those of them with which the follower reads
        self._active = 1  # logs that had something when it last read
        self._blocked: int | None = None  # its connection, as Redis numbers it
        self._follower: asyncio.Task[None] | None = None

    async def open(self) -> None:
        self._some = asyncio.Event()
        await self._commands.open()
        self._follower = asyncio.create_task(self._follow_all(), name="rawstream-redis")

    async def close(self) -> None:
        self._followed.clear()
        if self._follower is not None:
            self._follower.cancel()
            await asyncio.wait([self._follower])
        await self._commands.close()

    async def append(
        self, name: str, data: str, event: str | None = None, *, key: str | None = None, token: str | None = None
    ) -> Id:
        found = await self._step("append", name, token, KEY_SECONDS, *self._entry(event, data), key=key)
        if found is None:
            raise ChannelEnded
        return _id(found)

    async def end(
        self, name: str, event: str, data: str, *, token: str | None = None, overdue: bool = False, ttl: float
    ) -> bool:
        act = "overdue" if overdue else "end"
        return bool(await self._step(act, name, token, ttl, *self._entry(event, data)))

    async def read(self, name: str, after: Id, limit: int) -> list[Entry]:
        raw = await self._commands.ask("XRANGE", self._keys(name)[0], f"({after}", "+", "COUNT", limit)
        return [_entry(one) for one in raw]

    async def newest(self, name: str, count: int) -> list[Entry]:
        raw = await self._commands.ask("XREVRANGE", self._keys(name)[0], "+", "-", "COUNT", count)
        return [_entry(one) for one in reversed(raw)]

    async def state(self, name: str) -> State | None:
        return _state(await self._step("state", name))

    async def names(self) -> list[str]:
        return sorted(name.decode() for name in await self._step("names", ""))

    async def trim(self, name: str, before: Id) -> None:
        await self._commands.ask("XTRIM", self._keys(name)[0], "MINID", str(before))

    async def remove(self, name: str) -> None:
        await self._step("remove", name)

    async def follow(self, name: str, deliver: Deliver) -> Id:
        (known,) = await self._commands.ask("EVALSHA", _LASTS, 2, *self._keys(name)[:2])
        if known is None:
            raise StoreUnavailable("the channels' store is broken")
        self._followed[name] = _Followed(deliver, *known)
        self._added += 1
        self._some.set()
        await self._wake()
        return _id(known[1])

    def unfollow(self, name: str) -> None:
        self._followed.pop(name, None)
        if not self._followed:
            self._some.clear()

    # -- runs --------------------------------------------------------------------------------------------------------

    async def begin(self, name: str, token: str, lease: float) -> bool:
        return bool(await self._step("begin", name, token, lease))

    async def renew(self, name: str, token: str, lease: float) -> State | None:
        return _state(await self._step("renew", name, token, lease))

    async def attend(self, name: str) -> None:
        await self._step("attend", name)

    # -- commands ----------------------------------------------------------------------------------------------------

    def _keys(self, name: str) -> list[str]:
        return [f"{self._prefix}log:{name}", f"{self._prefix}meta:{name}", f"{self._prefix}names"]

    def _entry(self, event: str | None, data: str) -> list[object]:
        """What the script is told of an entry: the time, how many are held and for how long, and its fields."""
        age = "" if self._retention.age is None else int(self._retention.age * 1000)
        fields = ["data", data] if event is None else ["data", data, "event", event]
        return [int(self._now() * 1000), self._retention.entries, age, *fields]

    async def _step(
        self, act: str, name: str, token: str | None = None, life: float = 0.0, *entry: object, key: str | None = None
    ) -> Any:
        """One step of the script. Only an append without a key is not the same when it is repeated."""
        keys = self._keys(name) + ([] if key is None else [f"{self._prefix}key:{name}/{key}"])
        arguments = (act, name, uuid.uuid4().hex, token or "", int(life * 1000), *entry)
        again, unknown = act != "append" or key is not None, OutcomeUnknown if act == "append" else StoreUnavailable
        return await self._commands.ask("EVALSHA", _STEP, len(keys), *keys, *arguments, again=again, unknown=unknown)

    # -- following ---------------------------------------------------------------------------------------------------

    async def _wake(self) -> None:
        """Have the follower read with the names of now. It may be on its way into the block: so until it does."""
        wanted = self._added
        for pause in pauses(0.001):
            if self._seen >= wanted or self._blocked is None:
                return
            with contextlib.suppress(StoreUnavailable):
                if await self._commands.ask("CLIENT", "UNBLOCK", self._blocked):
                    return
            await asyncio.sleep(pause)

    async def _follow_all(self) -> None:
        """The one task of all followers: page after page, and connection after connection."""
        lost, pausing = False, pauses()
        while True:
            await self._some.wait()
            connection = self._commands.connection()
            try:
                async with asyncio.timeout(PATIENCE):
                    await connection.connect()  # type: ignore[no-untyped-call]
                    self._blocked = await exchange(connection, "CLIENT", "ID")
                    await self._look(connection, [*self._followed])
                    await self._page(connection)
                if lost:
                    log.warning("Redis is back: deliveries go on")
                lost, pausing = False, pauses()
                while True:
                    await self._some.wait()
                    async with asyncio.timeout(_BLOCK + PATIENCE):
                        await self._page(connection, "BLOCK", int(_BLOCK * 1000))
            except Exception as exc:  # whatever it is, it is of use only to go on
                if not lost:
                    log.warning("Redis is lost, nothing is delivered: %s", said(exc))
                lost = True
            finally:
                self._blocked = None
                await connection.disconnect()
            await asyncio.sleep(next(pausing))

    async def _page(self, connection: AbstractConnection, *block: object) -> None:
        """Deliver what there is, or comes first."""
        if strange := [name for name, each in self._followed.items() if not each.readable]:
            await self._look(connection, strange)
        self._seen = self._added
        followed = {name: each for name, each in self._followed.items() if each.readable}
        if not followed:
            await asyncio.sleep(1 if self._followed else 0)
            return
        reading = {self._keys(name)[0].encode(): name for name in followed}
        count = max(1, _PAGE // (self._active if block else len(reading)))
        cursors = (each.last for each in followed.values())
        reply = await exchange(connection, "XREAD", "COUNT", count, *block, "STREAMS", *reading, *cursors) or []
        self._active, begun = max(1, len(reply)), []
        for key, raw in reply:
            each = followed[reading[key]]
            if self._followed.get(reading[key]) is each:  # still, and from the same place
                each.last = raw[-1][0]  # first, so that nothing comes twice, nor stands in the way of the next
                entries = [_entry(one) for one in raw]
                each.deliver(entries)
                begun += [reading[key] for entry in entries if entry.id.n == 1]
        if begun:
            await self._look(connection, begun)

    async def _look(self, connection: AbstractConnection, names: list[str]) -> None:
        """Which logs are these now? One that is behind its follower is another, or has lost its newest entries."""
        followed = [(name, self._followed[name]) for name in names if name in self._followed]
        keys = [key for name, _ in followed for key in self._keys(name)[:2]]
        found = await exchange(connection, "EVALSHA", _LASTS, len(keys), *keys)
        for (name, each), known in zip(followed, found, strict=True):
            each.readable = known is not None
            if known is None:
                self._commands.tell(StoreUnavailable(f"somebody else wrote where the channel {name} is"))
            else:
                if _id(known[1]) < _id(each.last):
                    each.last = known[1] if known[0] == each.born else b"0-0"
                each.born = known[0]


def _id(raw: bytes) -> Id:
    ms, _, n = raw.partition(b"-")
    return Id(int(ms), int(n))


def _entry(raw: list[Any]) -> Entry:
    try:
        at, (_, data, *event) = raw
        return Entry(_id(at), event[1].decode() if event else None, data.decode())
    except ValueError as exc:  # somebody else's
        raise StoreUnavailable("the channels' store is broken") from exc


def _state(raw: list[Any] | None) -> State | None:
    if raw is None:
        return None
    oldest, last, entries, ended, *times = raw
    seconds = [float(each) / 1000 if each else None for each in times]
    return State(_id(oldest) if oldest else None, _id(last), entries, bool(ended), *seconds)
