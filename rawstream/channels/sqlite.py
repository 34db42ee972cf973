"""The store in a SQLite file: the contract of `log`, kept through restarts and kills, for one process at a time.

Each method is work for the database's thread, and refuses before it writes. What is over (an entry's age, a key's time,
an ended log's time to live) is not shown any more, and goes when something of its kind is next added.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import partial
from itertools import chain
from sqlite3 import Connection
from typing import NamedTuple

from rawstream.errors import ChannelEnded

from .database import Database, Trouble
from .log import ERROR, KEY_SECONDS, ORPHAN, ORPHAN_SECONDS, START, Deliver, Entry, Id, Retention, State

_READABLE = 600.0  # seconds, for which the end can be read of a run that died with its process

_APPLICATION = 0x72617773  # "raws"
_VERSIONS = (  # what makes each out of the one before
    (
        f"PRAGMA application_id = {_APPLICATION}",
        """CREATE TABLE logs (
            log TEXT PRIMARY KEY, ms INTEGER NOT NULL, n INTEGER NOT NULL, bytes INTEGER NOT NULL,
            owner TEXT, due REAL, removal REAL, attended REAL
        ) WITHOUT ROWID""",
        "CREATE INDEX removals ON logs (removal) WHERE removal IS NOT NULL",
        """CREATE TABLE entries (
            log TEXT NOT NULL, n INTEGER NOT NULL, ms INTEGER NOT NULL, event TEXT, data TEXT NOT NULL,
            PRIMARY KEY (log, ms, n)
        ) WITHOUT ROWID""",
        """CREATE TABLE keys (
            log TEXT NOT NULL, key TEXT NOT NULL, ms INTEGER NOT NULL, n INTEGER NOT NULL, PRIMARY KEY (log, key)
        ) WITHOUT ROWID""",
        "CREATE INDEX ages ON keys (ms)",
    ),
    ("ALTER TABLE logs ADD COLUMN first INTEGER", "CREATE INDEX leases ON logs (due) WHERE due IS NOT NULL"),
)

# The logs that are forgotten: of which `over` is not later than now.
_OVER = "SELECT log FROM logs WHERE removal <= ? OR (removal IS NULL AND due <= ?)"


class _Log(NamedTuple):
    """A row of `logs`, without its name. Times are those of the store's clock, in seconds."""

    ms: int = 0
    n: int = 0
    bytes: int = 0
    owner: str | None = None
    """The token of the run whose log it is."""
    due: float | None = None
    """When the owner's lease runs out."""
    removal: float | None = None
    """When it is forgotten; None if it has not ended."""
    attended: float | None = None
    first: int | None = None

    @property
    def last(self) -> Id:
        return Id(self.ms, self.n)

    @property
    def over(self) -> float:
        """When it is forgotten, whether or not somebody ends it before."""
        if self.removal is not None:
            return self.removal
        return math.inf if self.due is None else self.due + ORPHAN_SECONDS


class SqliteStore:
    """Logs in the SQLite file `path`. `now` is the wall clock, in seconds.

    patience: seconds for which `open` waits for another process to let go of the file.
    """

    shared = False

    def __init__(
        self,
        path: str,
        retention: Retention | None = None,
        *,
        now: Callable[[], float] = time.time,
        patience: float = 10.0,
    ) -> None:
        self._database = Database(path, self._prepare)
        self._retention = retention or Retention()
        self._now = now
        self._patience = patience
        self._followers: dict[str, Deliver] = {}

    async def open(self) -> None:
        await self._database.open(self._patience)

    async def close(self) -> None:
        await self._database.close()
        self._followers.clear()

    async def append(
        self, name: str, data: str, event: str | None = None, *, key: str | None = None, token: str | None = None
    ) -> Id:
        now = self._now()

        def work(db: Connection) -> Entry | Id:
            log = self._find(db, name, now)
            if log is None and token is not None:
                raise ChannelEnded  # a run's log is made by `begin` alone
            forgotten = (now - KEY_SECONDS) * 1000
            if log is not None and key is not None:
                query = "SELECT ms, n FROM keys WHERE log = ? AND key = ? AND ms >= ?"
                row = db.execute(query, (name, key, forgotten)).fetchone()
                if row is not None:
                    return Id(*row)
            if log is not None and (log.removal is not None or log.owner != token):
                raise ChannelEnded
            entry = self._add(db, name, log or self._make(db, name, _Log(), now), event, data, now)
            if key is not None:
                db.execute("DELETE FROM keys WHERE ms < ?", (forgotten,))
                db.execute("INSERT INTO keys VALUES (?, ?, ?, ?)", (name, key, *entry.id))
            return entry

        done = await self._database.do(work, partial(self._deliver, name), unkeyed=key is None)
        return done.id if isinstance(done, Entry) else done

    async def end(
        self, name: str, event: str, data: str, *, token: str | None = None, overdue: bool = False, ttl: float
    ) -> bool:
        now = self._now()

        def work(db: Connection) -> Entry | None:
            log = self._find(db, name, now)
            if log is None or log.removal is not None or (token is not None and log.owner != token):
                return None
            if overdue and (log.due is None or log.due >= now):
                return None
            return self._end(db, name, log, event, data, now, ttl)

        return await self._database.do(work, partial(self._deliver, name)) is not None

    async def read(self, name: str, after: Id, limit: int) -> list[Entry]:
        return await self._select(name, after, "ms, n", limit)

    async def newest(self, name: str, count: int) -> list[Entry]:
        return (await self._select(name, START, "ms DESC, n DESC", count))[::-1]

    async def state(self, name: str) -> State | None:
        now = self._now()
        return await self._database.do(lambda db: self._state(db, name, now))

    async def names(self) -> list[str]:
        now = self._now()
        query = f"SELECT log FROM logs WHERE log NOT IN ({_OVER}) ORDER BY log"
        return await self._database.do(lambda db: [name for (name,) in db.execute(query, (now, now - ORPHAN_SECONDS))])

    async def trim(self, name: str, before: Id) -> None:
        await self._database.do(lambda db: self._drop(db, name, before))

    async def remove(self, name: str) -> None:
        await self._database.do(lambda db: self._remove(db, name))

    async def follow(self, name: str, deliver: Deliver) -> Id:
        now = self._now()

        def work(db: Connection) -> Id:
            log = self._find(db, name, now)
            return START if log is None else log.last

        def begin(_: Id) -> None:
            if not following.cancelled():
                self._followers[name] = deliver

        following = self._database.do(work, begin)
        return await following

    def unfollow(self, name: str) -> None:
        self._followers.pop(name, None)

    # -- runs --------------------------------------------------------------------------------------------------------

    async def begin(self, name: str, token: str, lease: float) -> bool:
        now = self._now()

        def work(db: Connection) -> bool:
            if self._find(db, name, now) is not None:
                return False
            self._make(db, name, _Log(owner=token, due=now + lease), now)
            return True

        return await self._database.do(work)

    async def renew(self, name: str, token: str, lease: float) -> State | None:
        now = self._now()

        def work(db: Connection) -> State | None:
            if self._find(db, name, now) is not None:
                db.execute("UPDATE logs SET due = ? WHERE log = ? AND owner = ?", (now + lease, name, token))
            return self._state(db, name, now)

        return await self._database.do(work)

    async def attend(self, name: str) -> None:
        now = self._now()

        def work(db: Connection) -> None:
            db.execute("UPDATE logs SET attended = ? WHERE log = ?", (now, name))

        await self._database.do(work)

    # -- within ------------------------------------------------------------------------------------------------------

    def _prepare(self, db: Connection) -> None:
        """The tables as they are now; and no run goes on that went with its process."""
        (application,) = db.execute("PRAGMA application_id").fetchone()
        (version,) = db.execute("PRAGMA user_version").fetchone()
        is_new = (application, version) == (0, 0) and db.execute("SELECT 1 FROM sqlite_master").fetchone() is None
        if application != _APPLICATION and not is_new:
            raise Trouble("is a database of something else", "name another file")
        if version > len(_VERSIONS):
            raise Trouble("is of a newer version", "use the rawstream that wrote it, or name another file")
        for statement in chain(*_VERSIONS[version:]):
            db.execute(statement)
        db.execute(f"PRAGMA user_version = {len(_VERSIONS)}")
        now = self._now()
        self._sweep(db, now)
        for (name,) in db.execute("SELECT log FROM logs WHERE owner IS NOT NULL AND removal IS NULL").fetchall():
            log = self._find(db, name, now)
            assert log is not None, "it has not ended"
            self._end(db, name, log, ERROR, ORPHAN, now, _READABLE)

    def _deliver(self, name: str, done: Entry | Id | None) -> None:
        """`done` is an entry if one was appended."""
        if isinstance(done, Entry) and name in self._followers:
            self._followers[name]([done])

    def _find(self, db: Connection, name: str, now: float) -> _Log | None:
        query = "SELECT ms, n, bytes, owner, due, removal, attended, first FROM logs WHERE log = ?"
        row = db.execute(query, (name,)).fetchone()
        log = None if row is None else _Log(*row)
        return None if log is None or log.over <= now else log

    async def _select(self, name: str, after: Id, order: str, limit: int) -> list[Entry]:
        """The first entries in this order, which is that of the table's key, of those that are held after `after`."""
        now = self._now()

        def work(db: Connection) -> list[Entry]:
            log = self._find(db, name, now)
            if log is None:
                return []
            place = max(after, self._too_old(log, now))
            held = "SELECT ms, n, event, data FROM entries WHERE log = ? AND (ms, n) > (?, ?)"
            rows = db.execute(f"{held} ORDER BY {order} LIMIT ?", (name, *place, limit))
            return [Entry(Id(ms, n), event, data) for ms, n, event, data in rows]

        return await self._database.do(work)

    def _make(self, db: Connection, name: str, log: _Log, now: float) -> _Log:
        self._sweep(db, now)  # one of this name may be among them
        db.execute("INSERT INTO logs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", (name, *log))
        return log

    def _add(self, db: Connection, name: str, log: _Log, event: str | None, data: str, now: float) -> Entry:
        entry = Entry(Id(max(int(now * 1000), log.ms), log.n + 1), event, data)
        log = log._replace(ms=entry.id.ms, n=entry.id.n, bytes=log.bytes + len(data.encode()))
        db.execute("INSERT INTO entries VALUES (?, ?, ?, ?, ?)", (name, log.n, log.ms, event, data))
        change = "UPDATE logs SET ms = ?1, n = ?2, bytes = ?3, first = coalesce(first, ?1) WHERE log = ?4"
        db.execute(change, (log.ms, log.n, log.bytes, name))
        self._retain(db, name, log, now)
        return entry

    def _end(self, db: Connection, name: str, log: _Log, event: str, data: str, now: float, ttl: float) -> Entry:
        db.execute("UPDATE logs SET removal = ? WHERE log = ?", (now + ttl, name))
        return self._add(db, name, log, event, data, now)

    def _retain(self, db: Connection, name: str, log: _Log, now: float) -> None:
        kept, left, too_old, dropped = self._retention, log.bytes, self._too_old(log, now), 0
        query = "SELECT ms, n, length(CAST(data AS BLOB)) FROM entries WHERE log = ? ORDER BY ms, n"
        rows = db.execute(query, (name,))
        for ms, n, size in rows:
            if n == log.n or (log.n - n < kept.entries and left <= kept.bytes and Id(ms, n) > too_old):
                break
            left, dropped = left - size, dropped + 1
        rows.close()
        if dropped:
            self._drop(db, name, Id(ms, n))

    def _too_old(self, log: _Log, now: float) -> Id:
        """Entries up to this one are older than what is held, of which the last always is."""
        age = self._retention.age
        return min(Id(0 if age is None else math.ceil((now - age) * 1000), -1), Id(log.ms, log.n - 1))

    def _drop(self, db: Connection, name: str, before: Id) -> None:
        where = "FROM entries WHERE log = ? AND (ms, n) < (?, ?)"
        size = f"SELECT coalesce(sum(length(CAST(data AS BLOB))), 0) {where}"
        db.execute(f"UPDATE logs SET bytes = bytes - ({size}) WHERE log = ?", (name, *before, name))
        db.execute(f"DELETE {where}", (name, *before))

    def _remove(self, db: Connection, name: str) -> None:
        for table in ("logs", "entries", "keys"):
            db.execute(f"DELETE FROM {table} WHERE log = ?", (name,))

    def _sweep(self, db: Connection, now: float) -> None:
        for (name,) in db.execute(_OVER, (now, now - ORPHAN_SECONDS)).fetchall():
            self._remove(db, name)

    def _state(self, db: Connection, name: str, now: float) -> State | None:
        log = self._find(db, name, now)
        if log is None:
            return None
        query = "SELECT ms, n FROM entries WHERE log = ? AND (ms, n) > (?, ?) ORDER BY ms, n LIMIT 1"
        row = db.execute(query, (name, *self._too_old(log, now))).fetchone()
        return State(
            oldest=None if row is None else Id(*row),
            last=log.last,
            entries=0 if row is None else log.n - row[1] + 1,  # numbers have no holes
            ended=log.removal is not None,
            lease=None if log.due is None or log.removal is not None else log.due - now,
            read=None if log.attended is None else now - log.attended,
            first=log.first,
        )
