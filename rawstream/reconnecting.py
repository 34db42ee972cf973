"""A stream of server-sent events that goes on over one connection after the other (WHATWG HTML section 9.2)."""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from types import TracebackType

from .errors import (
    BadResponse,
    ConnectFailed,
    ContentError,
    FetchError,
    GaveUp,
    IncompleteResponse,
    LocalError,
    ResponseTimeout,
    StatusError,
)  # fmt: skip
from .fetched import ClientResponse
from .fetching import Fetch
from .formats import CONTROL
from .sse import Decoder, Event

_PASSING = (408, 425, 429, 500, 502, 503, 504)  # statuses that may be others in a moment
_LONGEST_WISH = 24 * 3600.0  # seconds: a server that wants to be left alone for longer is asked once a day
_SHORTEST_WISH = 0.5  # seconds, as Firefox has it: `retry: 0` is no leave to ask a thousand times a second
_STANDS = 30.0  # seconds after which a connection is a good one, though it brought nothing: there may be no news


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """When an event source tries again. Raises ValueError for other values than these."""

    first: float = 1.0
    """Seconds until the first attempt to come back, 0 or more; a server's `retry` sets it, to 0.5 s at least (or this,
    if it is less). It doubles with each attempt that brings nothing, from 0.5 s on ..."""

    longest: float = 30.0
    """... up to so many seconds."""

    jitter: float = 0.5
    """By how much more than that is waited at most, as a part of it, at random: not everybody shall come back at the
    same moment. 0 or more."""

    attempts: int | None = 10
    """How many in a row may bring nothing, 1 or more; None: go on for ever. A connection brings something if an event
    came by it, or if it stood for 30 s."""

    def __post_init__(self) -> None:
        for name in ("first", "longest", "jitter"):
            value = getattr(self, name)
            if type(value) not in (int, float) or not value >= 0:
                raise ValueError(f"Backoff.{name} is a number, 0 or more, not {value!r}")
        if self.attempts is not None and (type(self.attempts) is not int or self.attempts < 1):
            raise ValueError(f"Backoff.attempts is a whole number, 1 or more, or None, not {self.attempts!r}")

    def delay(self, first: float, failures: int) -> float:
        """Seconds to wait after so many `failures` in a row, where the `first` time is this."""
        doubled = max(first, _SHORTEST_WISH) * 2.0 ** min(failures - 1, 60) if failures else first
        delay = max(first, min(doubled, self.longest))
        return delay * (1 + self.jitter * random.random())


class EventSource(AsyncIterator[Event]):
    """What `events` gives: an async iterator of Event. `async with` it, and leaving the block closes its connection.

    Cancelling the wait for the next event loses nothing: it can be asked for again.
    """

    def __init__(self, ask: Callable[[str], Fetch], url: str, last_event_id: str, backoff: Backoff) -> None:
        self._ask = ask
        self._url = url
        self._backoff = backoff
        self._attempt: asyncio.Task[ClientResponse] | None = None  # that is under way
        self._response: ClientResponse | None = None
        self._events: AsyncIterator[Event] | None = None
        self._decoder = Decoder(last_event_id)
        self._first = backoff.first
        self._failures = 0  # attempts in a row that brought nothing
        self._due = 0.0  # when the next attempt is, in the loop's time ...
        self._good_from = math.inf  # ... and from when on this one has brought something
        self._over = False
        self.last_event_id = last_event_id
        """The id of the last event that was given out; what a next `events(url, last_event_id=...)` goes on behind."""

    async def __aenter__(self) -> EventSource:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection; there will be no more events."""
        self._over = True
        await self._hang_up()

    def __del__(self) -> None:
        # Whoever breaks out of an `async for` without an `async with` leaves it open.
        with contextlib.suppress(RuntimeError):  # the loop is closed, and all that was in it
            if self._attempt is not None:
                _drop(self._attempt)
            if self._response is not None:
                self._response.abort()

    async def _hang_up(self) -> None:
        if (attempt := self._attempt) is not None:
            self._attempt = None
            _drop(attempt)
            await asyncio.wait([attempt])
        response, self._response, self._events = self._response, None, None
        if response is not None:
            await response.close()

    async def __anext__(self) -> Event:
        try:
            while not self._over:
                try:
                    if self._events is None:
                        await self._connect()
                    elif (event := await anext(self._events, None)) is not None:
                        return self._given(event)
                    else:
                        await self._come_back(None)
                except (BadResponse, ConnectFailed, IncompleteResponse, ResponseTimeout, StatusError) as error:
                    await self._come_back(error)
        except FetchError:
            await self.close()
            raise
        await self.close()
        raise StopAsyncIteration

    async def _connect(self) -> None:
        """The next attempt, when its time has come."""
        loop = asyncio.get_running_loop()
        if (wait := self._due - loop.time()) > 0:
            await asyncio.sleep(wait)
        # A task of its own: who waits for the next event for a short time only, again and again, gets there too.
        attempt = self._attempt = self._attempt or loop.create_task(self._request().__aenter__())
        await asyncio.wait([attempt])
        self._attempt = None
        if attempt.cancelled():
            return  # by `close`
        response = self._response = attempt.result()
        self._good_from = loop.time() + _STANDS
        if response.status in (204, 205):
            self._over = True
            return
        if response.status != 200:
            raise StatusError(response.status, response.reason, response.headers, b"", response.url)
        self._decoder = Decoder(self.last_event_id)
        self._events = response.events(self._decoder)

    def _request(self) -> Fetch:
        try:
            return self._ask(self.last_event_id)
        except LocalError as exc:  # the other arguments were looked at before, and this one is the server's
            raise ContentError(f"the id of an event cannot be sent back: {self.last_event_id[:80]!r}") from exc

    def _given(self, event: Event) -> Event:
        if event.id is not None:
            self.last_event_id = event.id
        self._good_from = 0.0
        # What our server says last: asking again would bring a 204.
        self._over = event.event == CONTROL + "end"
        return event

    async def _come_back(self, error: FetchError | None) -> None:
        """The connection has ended, by this error perhaps, or there was none: see when to try again."""
        if isinstance(error, StatusError) and error.status not in _PASSING:
            raise error
        if isinstance(error, BadResponse) and self._events is None:
            raise error  # who speaks no HTTP will not learn it; in the midst of a stream it is damage on the way
        now = asyncio.get_running_loop().time()
        good, self._good_from = now >= self._good_from, math.inf
        # Also of events without data, which were not given out.
        self.last_event_id = self._decoder.last_event_id
        if self._decoder.retry is not None:
            shortest = min(self._backoff.first, _SHORTEST_WISH)
            self._first = min(max(self._decoder.retry / 1000, shortest), _LONGEST_WISH)
        self._failures = 0 if good else self._failures + 1
        if self._failures == self._backoff.attempts:
            raise GaveUp(
                f"{self._failures} attempts in a row to follow {self._url} brought nothing, "
                f"at last: {error or 'a response without an event'}"
            ) from error
        delay = self._backoff.delay(self._first, self._failures)
        if isinstance(error, StatusError):
            delay = max(delay, _retry_after(error))
        self._due = now + delay
        await self._hang_up()


def _drop(attempt: asyncio.Task[ClientResponse]) -> None:
    """Nobody wants what this attempt has brought, or is about to bring."""
    if not attempt.done():
        attempt.add_done_callback(_drop)
        attempt.cancel()
    elif not attempt.cancelled() and attempt.exception() is None:
        attempt.result().abort()


def _retry_after(error: StatusError) -> float:
    """The seconds that Retry-After asks for (RFC 9110 section 10.2.3), 0 if it does not."""
    value = str(error.headers.get("retry-after", "")).strip()
    if value.isascii() and value.isdigit():
        return min(float(value[:15]), _LONGEST_WISH)
    with contextlib.suppress(TypeError, ValueError, OverflowError):
        return min(max(0.0, parsedate_to_datetime(value).timestamp() - time.time()), _LONGEST_WISH)
    return 0.0
