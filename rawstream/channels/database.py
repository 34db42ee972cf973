"""A SQLite file in a thread of its own, for one process at a time. Knows nothing of logs.

What is to be done is queued in the loop's thread; all that waits together is one transaction, so that the disk is
synced once for all of it. Nothing is answered before that transaction is committed.

The file is locked by SQLite itself (locking_mode EXCLUSIVE): the lock goes with the process however that ends, a child
that was forked does not hold it, and nothing else reads the file meanwhile. Each failure is StoreUnavailable, which
names no path; the log is told the file, the reason, and what to do. What SQLite cannot be given is no failure of the
file, and its error comes back as it is.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import sqlite3
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from sqlite3 import Connection
from typing import Any, TypeVar

from rawstream.errors import HTTPError, OutcomeUnknown, StoreUnavailable

log = logging.getLogger("rawstream")

T = TypeVar("T")

_TOGETHER = 256  # calls in one transaction: of the largest events that a hub takes by default, 64 MiB
_TELL_SECONDS = 60.0  # after which a failure that goes on is told to the log again

_DAMAGED = ("is damaged", "stop, and restore the file, recover it (.recover of sqlite3) or move it away")
_SHUT = ("cannot be opened", "its directory must exist, and this process must be allowed to read, write and lock both")
_KINDS = {
    sqlite3.SQLITE_BUSY: ("is in use", "another process has this file open: end that one, or name another file"),
    sqlite3.SQLITE_FULL: ("is full", "make room on its disk; it goes on by itself then"),
    sqlite3.SQLITE_CORRUPT: _DAMAGED,
    sqlite3.SQLITE_NOTADB: _DAMAGED,
    sqlite3.SQLITE_CANTOPEN: _SHUT,
    sqlite3.SQLITE_READONLY: _SHUT,
    sqlite3.SQLITE_PERM: _SHUT,
    sqlite3.SQLITE_IOERR_LOCK: _SHUT,  # a file that may only be read cannot be locked
}
_GONE = ("is gone", "its file was removed or replaced while in use: put it back, or restart")
_OTHER = ("fails", "look at its disk, and at the limits of this process")


class Trouble(Exception):
    """What SQLite does not see: what it is, for everybody, and what to do about it, for the log."""


_FAILURES = (sqlite3.Error, OSError, MemoryError, Trouble)
"""What the file, its disk or the machine may be to blame for. Everything else is a mistake of the caller, or ours."""


def _code(error: BaseException) -> int:
    """SQLite's primary result code; 0 if it is none of its errors."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _kind(error: Exception) -> tuple[str, str]:
    detailed: int = getattr(error, "sqlite_errorcode", 0)
    return _KINDS.get(detailed) or _KINDS.get(_code(error), _OTHER)


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


@dataclass(slots=True, eq=False)
class _Call:
    """Something that is to be done in the thread, for who waits for the future."""

    work: Callable[[Connection], Any]
    done: Callable[[Any], None] | None
    unkeyed: bool
    future: asyncio.Future[Any]
    result: Any = None
    error: Exception | None = None


class Database:
    """The file at `path`. `prepare` makes it what it has to be, in the transaction that opens it, or raises Trouble."""

    def __init__(self, path: str, prepare: Callable[[Connection], None]) -> None:
        self._path = os.path.abspath(path)
        self._prepare = prepare
        self._thread: ThreadPoolExecutor | None = None
        self._closing: asyncio.Task[None] | None = None
        self._waiting: deque[_Call] = deque()
        self._idle = asyncio.Event()
        # These belong to the thread.
        self._db: Connection
        self._places: dict[str, tuple[int, int] | None] = {}  # the files, as they were opened
        self._told: dict[str, float] = {}

    async def open(self, patience: float) -> None:
        """Wait for the lock for at most `patience` seconds. Cancelling it leaves nothing open."""
        loop = asyncio.get_running_loop()
        assert self._thread is None, "it is open"
        thread = ThreadPoolExecutor(1, "rawstream-sqlite")
        until = loop.time() + patience
        try:
            while True:
                busy = await loop.run_in_executor(thread, self._open, loop.time() >= until)
                if not busy:
                    break
                await asyncio.sleep(random.uniform(0.01, 0.05))  # apart from others that wait
        except BaseException as error:
            thread.submit(self._close)
            thread.shutdown(wait=isinstance(error, Exception))  # cancelled, it may take a while to end
            raise
        self._thread, self._closing, self._idle = thread, None, asyncio.Event()
        self._idle.set()

    def do(
        self, work: Callable[[Connection], T], done: Callable[[T], None] | None = None, unkeyed: bool = False
    ) -> asyncio.Future[T]:
        """Queue `work`, which refuses (by an HTTPError) before it writes; its result comes when it is committed.

        done: called then, in the loop's thread and in the order of the calls, also if the future was cancelled.
        unkeyed: it matters whether it was done; OutcomeUnknown says that nobody knows.
        """
        loop = asyncio.get_running_loop()
        if self._thread is None or self._closing is not None:
            raise StoreUnavailable("the channels' store is closed")
        future: asyncio.Future[T] = loop.create_future()
        self._waiting.append(_Call(work, done, unkeyed, future))
        if self._idle.is_set():
            self._idle.clear()
            loop.call_soon(self._next)  # all that is asked for in this turn of the loop comes along
        return future

    async def close(self) -> None:
        """Do what is queued, nothing more, and let go of the file. Cancelled, it goes on alone."""
        if self._thread is None:
            return
        if self._closing is None:
            self._closing = asyncio.get_running_loop().create_task(self._end(self._thread))
        await asyncio.shield(self._closing)

    async def _end(self, thread: ThreadPoolExecutor) -> None:
        await self._idle.wait()
        await asyncio.get_running_loop().run_in_executor(thread, self._close)
        thread.shutdown()  # it has nothing to do any more: this takes no time
        self._thread = None

    def _next(self) -> None:
        calls: list[_Call] = []
        while self._waiting and len(calls) < _TOGETHER:
            call = self._waiting.popleft()
            if not call.future.cancelled():
                calls.append(call)
        if not calls:
            self._idle.set()
            return
        running = asyncio.get_running_loop().run_in_executor(self._thread, self._run, calls)
        running.add_done_callback(partial(self._finish, calls))

    def _finish(self, calls: list[_Call], running: asyncio.Future[None]) -> None:
        self._next()
        running.result()  # the thread catches what is not our own mistake
        for call in calls:
            if call.error is None and call.done is not None:
                call.done(call.result)
            if call.future.done():
                continue  # cancelled
            if call.error is None:
                call.future.set_result(call.result)
            else:
                call.future.set_exception(call.error)

    # -- in the thread -----------------------------------------------------------------------------------------------

    def _open(self, last: bool) -> bool:
        """Open the file; or return True if another process has it, and this was not the last attempt."""
        path = os.path.realpath(self._path)
        try:
            db = sqlite3.connect(path, timeout=0, isolation_level=None)
            try:
                db.execute("PRAGMA locking_mode = EXCLUSIVE")
                db.execute("PRAGMA cell_size_check = ON")  # finds damage early
                db.execute("PRAGMA synchronous = FULL")
                db.execute("BEGIN EXCLUSIVE")  # from here on the file is ours
                self._prepare(db)
                db.execute("COMMIT")
                assert db.execute("PRAGMA journal_mode = WAL").fetchone() == ("wal",), (
                    "a locked file can be changed to it"
                )
                db.execute("PRAGMA journal_size_limit = 4194304")  # bytes that stay after a large transaction
                db.execute("SELECT * FROM sqlite_master").fetchone()  # makes the write-ahead log, whose place is noted
            except BaseException:
                db.close()
                raise
        except Exception as error:
            if _code(error) == sqlite3.SQLITE_BUSY and not last:
                return True
            if not isinstance(error, _FAILURES):
                raise
            raise self._unavailable(error) from error
        self._db = db
        self._places = {place: _identity(place) for place in (path, f"{path}-wal")}
        return False

    def _close(self) -> None:
        """What is in the write-ahead log goes into the file, and the lock is let go."""
        if self._places:
            self._places = {}
            self._db.close()

    def _run(self, calls: list[_Call]) -> None:
        """Do them all in one transaction; or, where one breaks it for the others, each in its own."""
        committing = False
        try:
            if any(_identity(place) != identity for place, identity in self._places.items()):
                raise Trouble(*_GONE)
            self._db.execute("BEGIN")
            for call in calls:
                call.result = call.error = None
                try:
                    call.result = call.work(self._db)
                except HTTPError as refusal:
                    call.error = refusal
            committing = True
            self._db.execute("COMMIT")
        except Exception as error:
            self._roll_back()
            # A commit that failed for another reason than room may turn out as done when the file is next opened.
            unsure = committing and _code(error) != sqlite3.SQLITE_FULL
            if len(calls) > 1 and not unsure:
                for call in calls:
                    self._run([call])
                return
            for call in calls:
                if not isinstance(error, _FAILURES):
                    call.error = error  # of who asked for what SQLite cannot be given
                    continue
                unavailable = self._unavailable(error)
                call.error = OutcomeUnknown() if unsure and call.unkeyed else unavailable
                call.error.__cause__ = error

    def _roll_back(self) -> None:
        try:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
        except sqlite3.Error:
            pass  # there is none any more; else the next BEGIN tells

    def _unavailable(self, error: Exception) -> StoreUnavailable:
        """What who asked is told of a failure. The log is told more, but not each time."""
        now = time.monotonic()
        what, advice = error.args if isinstance(error, Trouble) else _kind(error)
        if now >= self._told.get(what, now):
            self._told[what] = now + _TELL_SECONDS
            why = "" if isinstance(error, Trouble) else f" ({error})"
            log.error("the channels' store %s %s%s: %s", self._path, what, why, advice)
        return StoreUnavailable(f"the channels' store {what}")
