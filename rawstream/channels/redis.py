"""The store that many processes share: the contract of `log` on Redis Streams, from Redis 6.2 on; not on a Cluster.

What is one step is one script. Of a log Redis holds `<prefix>log:<name>`, its stream, and `<prefix>meta:<name>`, what
else there is to know; `<prefix>names` lists the logs by the time at which they expire. `<prefix>key:<name>/<key>`, the
key of an append, says of which log of that name it was, and its id. All of them expire, but those of a channel that
has not ended: those of a run too, if its process died, and nobody ever reads it. Who follows the log hears of each
append by PUBLISH.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from functools import partial
from typing import Any

from rawstream.errors import ChannelEnded, OutcomeUnknown, StoreUnavailable

from .log import KEY_SECONDS, ORPHAN_SECONDS, Deliver, Entry, Id, Retention, State
from .redis_commands import Commands
from .redis_follower import Follower, entry_of, id_of

# Times are milliseconds. `nonce` is the caller's: by it a call that is repeated knows its own log, and its own end.
# `orphaned`: for how long a run is held when its lease has run out.
_STEP = """
local stream, meta, names, key = unpack(KEYS)
local act, name, nonce, token, life, orphaned, ms, limit, age = unpack(ARGV)
local born, first, last, owner, ended, lease, read =
  unpack(redis.call('HMGET', meta, 'born', 'first', 'last', 'owner', 'ended', 'lease', 'read'))
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function make()
  born, last = nonce, '0-0'
  redis.call('ZADD', names, 'inf', name)
  redis.call('HSET', meta, 'born', born, 'last', last)
end
local function expire(at)
  for _, each in ipairs({stream, meta}) do redis.call('PEXPIREAT', each, at) end
  redis.call('ZREMRANGEBYSCORE', names, '-inf', now)
  redis.call('ZADD', names, at, name)
end
local function hold()
  lease = now + life
  redis.call('HSET', meta, 'lease', lease)
  expire(lease + orphaned)
end
local function add()
  redis.call('PUBLISH', stream, '') -- first: who may not do it shall have done nothing
  local at, n = string.match(last, '(%d+)-(%d+)')
  if tonumber(ms) > tonumber(at) then at = ms end
  last = at .. '-' .. string.format('%.0f', n + 1)
  redis.call('XADD', stream, 'MAXLEN', '~', limit, last, unpack(ARGV, 10))
  if age ~= '' then redis.call('XTRIM', stream, 'MINID', string.format('%.0f', math.max(0, ms - age))) end
  first = first or at
  redis.call('HSET', meta, 'first', first, 'last', last)
end

if act == 'append' then
  local of, id = string.match(key and redis.call('GET', key) or '', '(%S+) (%S+)')
  if born and of == born then return id end
  if ended or (owner or '') ~= token then return false end
  if not born then make() end
  add()
  if owner then redis.call('PEXPIREAT', stream, lease + orphaned) end -- it is new, perhaps
  if key then redis.call('SET', key, born .. ' ' .. last, 'PX', life) end
  return last
elseif act == 'end' or act == 'overdue' then
  if ended == nonce then return 1 end
  if not born or ended or (token ~= '' and token ~= owner) then return 0 end
  if act == 'overdue' and (not lease or tonumber(lease) >= now) then return 0 end
  add()
  redis.call('HSET', meta, 'ended', nonce)
  expire(now + life)
  return 1
elseif act == 'begin' then
  if born then return born == nonce and 1 or 0 end
  make()
  redis.call('HSET', meta, 'owner', token)
  hold()
  return 1
elseif act == 'remove' then
  redis.call('ZREM', names, name)
  return redis.call('DEL', stream, meta)
elseif act == 'names' then
  return redis.call('ZRANGEBYSCORE', names, '(' .. now, '+inf')
end
if not born then return false end
if act == 'attend' then return redis.call('HSET', meta, 'read', now) end
if act == 'renew' and owner == token and not ended then hold() end
local oldest = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
lease, read = lease and not ended and tostring(lease - now) or '', read and tostring(now - read) or ''
return {oldest and oldest[1] or '', last, redis.call('XLEN', stream), ended and 1 or 0, lease, read, first or ''}
"""

_KEYED = partial(StoreUnavailable, "outcome unknown: publish it again with the same key, and it will be there once")


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
        self._follower = Follower(self._commands, lambda name: self._keys(name)[:2])

    async def open(self) -> None:
        await self._commands.open()
        self._follower.open()

    async def close(self) -> None:
        await self._follower.close()
        await self._commands.close()

    async def append(
        self, name: str, data: str, event: str | None = None, *, key: str | None = None, token: str | None = None
    ) -> Id:
        found = await self._step("append", name, token, KEY_SECONDS, *self._entry(event, data), key=key)
        if found is None:
            raise ChannelEnded
        return id_of(found)

    async def end(
        self, name: str, event: str, data: str, *, token: str | None = None, overdue: bool = False, ttl: float
    ) -> bool:
        act = "overdue" if overdue else "end"
        return bool(await self._step(act, name, token, ttl, *self._entry(event, data)))

    async def read(self, name: str, after: Id, limit: int) -> list[Entry]:
        raw = await self._commands.ask("XRANGE", self._keys(name)[0], f"({after}", "+", "COUNT", limit)
        return [entry_of(one) for one in raw]

    async def newest(self, name: str, count: int) -> list[Entry]:
        raw = await self._commands.ask("XREVRANGE", self._keys(name)[0], "+", "-", "COUNT", count)
        return [entry_of(one) for one in reversed(raw)]

    async def state(self, name: str) -> State | None:
        return _state(await self._step("state", name))

    async def names(self) -> list[str]:
        return sorted(name.decode() for name in await self._step("names", ""))

    async def trim(self, name: str, before: Id) -> None:
        await self._commands.ask("XTRIM", self._keys(name)[0], "MINID", str(before))

    async def remove(self, name: str) -> None:
        await self._step("remove", name)

    async def follow(self, name: str, deliver: Deliver) -> Id:
        return await self._follower.follow(name, deliver)

    def unfollow(self, name: str) -> None:
        self._follower.unfollow(name)

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
        times = int(life * 1000), int(ORPHAN_SECONDS * 1000)
        arguments = (act, name, uuid.uuid4().hex, token or "", *times, *entry)
        again = act != "append" or key is not None
        unknown = OutcomeUnknown if not again else StoreUnavailable if key is None else _KEYED
        return await self._commands.ask("EVALSHA", _STEP, len(keys), *keys, *arguments, again=again, unknown=unknown)


def _state(raw: list[Any] | None) -> State | None:
    if raw is None:
        return None
    oldest, last, entries, ended, *times, first = raw
    lease, read = (float(each) / 1000 if each else None for each in times)
    return State(
        oldest=id_of(oldest) if oldest else None,
        last=id_of(last),
        entries=entries,
        ended=bool(ended),
        lease=lease,
        read=read,
        first=int(first) if first else None,
    )
