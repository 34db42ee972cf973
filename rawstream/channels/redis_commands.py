"""Commands to Redis, and what became of each: redis-py is known here alone, and its exceptions end here.

A command has a connection to itself, lent from a few, and one deadline over all that is tried. What is tried again is
decided here, and nothing is by redis-py: a command whose reply is lost may have been done.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from redis import exceptions
from redis.asyncio.connection import AbstractConnection, ConnectionPool, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from rawstream.errors import LocalError, StoreUnavailable

PATIENCE = 5.0
"""Seconds for one call, with all that is tried again; a Redis that is paused is told as one that is away."""

_CONNECTIONS = 16  # more are no faster, since one thread reads them all
_LONGEST_PAUSE = 1.0  # seconds between attempts
_TOLD_AGAIN = 60.0  # seconds until the same trouble is worth a line in the log again

log = logging.getLogger("rawstream")


class Commands:
    """Raises LocalError for what is no `redis://`, `rediss://` or `unix://` URL."""

    def __init__(self, url: str) -> None:
        # Replies are taken raw, as RESP 2 has them.
        ours = {"protocol": 2, "decode_responses": False, "socket_timeout": None, "retry": Retry(NoBackoff(), 0)}
        options: dict[str, Any] = {"client_name": "rawstream"}
        try:
            self._pool = ConnectionPool(**{**options, **parse_url(url), **ours})
            self.connection()  # options in the URL that are none are found here
        except (TypeError, ValueError) as exc:
            raise LocalError(f"no URL of a Redis: {exc}") from exc
        self._open = False
        self._idle: list[AbstractConnection] = []
        self._places = asyncio.Semaphore(_CONNECTIONS)
        self._told: dict[str, float] = {}

    async def open(self) -> None:
        """Be ready for commands, in this loop."""
        self._places = asyncio.Semaphore(_CONNECTIONS)
        self._open = True
        await self.ask("PING")

    async def close(self) -> None:
        """What is on its way ends with its reply; nothing else is sent."""
        self._open = False
        while self._idle:
            await self._idle.pop().disconnect()

    async def ask(
        self, *command: object, again: bool = True, unknown: Callable[[], StoreUnavailable] = StoreUnavailable
    ) -> Any:
        """The reply to a command. `again`: if the connection is lost before that, the command is sent again.

        Raises `unknown` if it may have been done, and StoreUnavailable if not.
        """
        sent, pausing = False, pauses()
        try:
            async with asyncio.timeout(PATIENCE):
                while True:
                    before = sent
                    try:
                        async with self._lent() as connection:
                            sent = True
                            return await exchange(connection, *command)
                    except (exceptions.ResponseError, exceptions.AuthenticationError):  # a reply: it was not done
                        sent = before
                        raise
                    except (exceptions.ConnectionError, OSError) as exc:
                        sent = before if isinstance(exc, exceptions.BusyLoadingError) else sent
                        if not (sent and again):
                            raise
                    await asyncio.sleep(next(pausing))
        except (exceptions.RedisError, OSError) as exc:
            self.tell(exc)
            if sent:
                raise unknown() from exc
            if isinstance(exc, exceptions.ResponseError):
                full = isinstance(exc, exceptions.OutOfMemoryError)
                raise StoreUnavailable(f"the channels' store is {'full' if full else 'broken'}") from exc
            raise StoreUnavailable from exc

    def connection(self) -> AbstractConnection:
        """One that is not open yet, and belongs to the caller."""
        return self._pool.make_connection()  # type: ignore[no-any-return, no-untyped-call]

    @contextlib.asynccontextmanager
    async def _lent(self) -> AsyncIterator[AbstractConnection]:
        """A connection, as long as there are not too many."""
        async with self._places:
            if not self._open:
                raise StoreUnavailable("the channels' store is closed")
            connection = self._idle.pop() if self._idle else self.connection()
            try:
                if connection.is_connected and await connection.can_read():  # what there is to read is its end
                    await connection.disconnect()
                await connection.connect()  # type: ignore[no-untyped-call]
                yield connection
            finally:
                if connection.is_connected and self._open:
                    self._idle.append(connection)
                else:
                    await connection.disconnect()

    def tell(self, exc: Exception) -> None:
        """Put a trouble into the log, but not each time that it is met."""
        kind = f"{type(exc).__name__} {str(exc).partition(' ')[0]}"
        if time.monotonic() >= self._told.get(kind, 0.0):
            self._told[kind] = time.monotonic() + _TOLD_AGAIN
            answered = isinstance(exc, exceptions.AuthenticationError)  # which redis-py takes for a lost connection
            lost = isinstance(exc, exceptions.ConnectionError | OSError) and not answered
            log.log(logging.WARNING if lost else logging.ERROR, "Redis: %s", said(exc))


async def exchange(connection: AbstractConnection, *command: Any) -> Any:
    """The reply to a command. A script that Redis does not know by its hash, and so has not run, is sent in full."""
    if command[0] == "EVALSHA":
        sha = hashlib.sha1(command[1].encode()).hexdigest()
        await connection.send_command("EVALSHA", sha, *command[2:])
        try:
            return await connection.read_response()
        except exceptions.NoScriptError:
            command = ("EVAL", *command[1:])
    await connection.send_command(*command)
    return await connection.read_response()


def pauses(pause: float = 0.02) -> Iterator[float]:
    """Seconds between attempts: doubled from each to the next, and never the same for two who wait."""
    while True:
        yield pause * random.uniform(0.5, 1)
        pause = min(pause * 2, _LONGEST_PAUSE)


def said(exc: Exception) -> str:
    """What is wrong, for the log."""
    return str(exc) or f"no reply within {PATIENCE:g} s"
