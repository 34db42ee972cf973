"""A response whose head has come, and its body while it arrives, as bytes, text, lines, items or events."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from itertools import chain
from typing import Any, Generic, TypeVar

from .dial import Line
from .errors import (
    ContentError,
    Disconnected,
    IncompleteResponse,
    ItemTooLarge,
    LocalError,
    ReadTimeout,
    ResponseTimeout,
    StreamFailed,
)  # fmt: skip
from .fields import Headers
from .incoming import Arrival, Incoming
from .inflate import Unpack, unpack
from .items import Bytes, EventData, Events, JsonLines, Lines, Reader, Text
from .json_array import JsonArray
from .messages import ResponseHead
from .sse import Decoder, Event

T = TypeVar("T")

JSON_LINES = (
    "application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonlines",
    "application/stream+json",
)  # fmt: skip
_CHARSET = re.compile(r';[ \t]*charset="?([^\s;"]+)', re.IGNORECASE)


class _Flow(Generic[T], AsyncIterator[T]):
    """One by one what comes several at a time. An object, not a generator: it needs no closing."""

    __slots__ = ("_batch", "_more")

    def __init__(self, more: Callable[[], Awaitable[Iterable[T] | None]]) -> None:
        self._more = more
        self._batch: Iterator[T] = iter(())

    async def __anext__(self) -> T:
        try:
            for item in self._batch:
                return item
            while (batch := await self._more()) is not None:
                self._batch = iter(batch)
                for item in self._batch:
                    return item
        except (ContentError, StreamFailed) as error:
            self._fail(error)
            raise
        raise StopAsyncIteration

    def _fail(self, error: ContentError | StreamFailed) -> None:
        """Behind a fault nothing is given out, and no end looks like a proper one."""

        async def again() -> None:
            raise error

        self._batch, self._more = iter(()), again


class ClientResponse:
    """A response whose head has come, and whose body comes while it is asked for.

    The body is read once, in one of the ways below. All of them raise ResponseTimeout, and IncompleteResponse where
    it is cut before its end; so who sees the end has seen all. Cancelling the wait for the next piece loses nothing.
    """

    def __init__(
        self,
        line: Line,
        incoming: Incoming,
        head: ResponseHead,
        behind: tuple[float, bytes],
        url: str,
        idle: float | None,
        limit: int,
    ) -> None:
        self._line: Line | None = line
        self._incoming = incoming
        self._idle = idle
        self._limit = limit
        self._behind = behind  # when the last of the head was read, and what of the body came with it
        self._way = ""  # in which the body is read
        self._at_end = False  # and its reader was told so
        self.status = head.status
        self.reason = head.reason
        self.headers = head.headers
        self.http_version = head.http_version
        """ "1.1" or "1.0"."""
        self.url = url
        """What was asked for."""
        self.peer = line.peer
        """The server's address and port; None on a Unix socket."""
        self.received = 0
        """Bytes of the body that came, with their framing."""
        self.began = self.connected = self.head_at = 0.0
        """When connecting began, when it was done, and when the head was here, by `time.monotonic()`."""

    @property
    def content_type(self) -> str:
        """The media type of the body, without parameters, in lower case; "" if the server does not say."""
        return str(self.headers.get("content-type", "")).partition(";")[0].strip().lower()

    @property
    def trailers(self) -> Headers:
        """The fields that came after a chunked body; empty until it has been read to its end."""
        return self._incoming.trailers

    def abort(self) -> None:
        """Cut the connection at once, without waiting until it is gone: for who cannot `await`."""
        line, self._line = self._line, None
        if line is not None:
            line.abort()

    async def close(self) -> None:
        """Close the connection, if this was not done; leaving the `async with` does it."""
        line, self._line = self._line, None
        if line is not None:
            await line.close(properly=self._incoming.ended)

    # -- the body, in one of these ways ------------------------------------------------------------------------------

    def arrivals(self) -> AsyncIterator[Arrival]:
        """What each read from the socket brought: when, how many bytes, and which pieces of the body, as they were sent
        (Content-Encoding is not undone). All other ways are built on this one."""
        self._choose("arrivals()")
        return _Flow(self._arrival)

    def chunks(self) -> AsyncIterator[bytes]:
        """The body's bytes as they come. Two chunks of a chunked body are never joined; one that the network cuts
        comes in parts. gzip and deflate are undone; raises ContentError for another Content-Encoding."""
        return self._read("chunks()", None)

    def text(self) -> AsyncIterator[str]:
        """The body as text, as it comes, in the charset of its Content-Type (UTF-8 where that names none). A character
        that is cut waits for its rest; what is no text becomes U+FFFD. Raises ContentError for an unknown charset."""
        return self._read("text()", Text(self._charset()))

    def lines(self) -> AsyncIterator[str]:
        """The lines of the body as text, without their ends (LF or CR LF). Raises as `text` does, and ItemTooLarge."""
        return self._read("lines()", Lines(Text(self._charset()), self._limit))

    def items(self) -> AsyncIterator[Any]:
        """The items of a stream, by its Content-Type:

        application/json (and `+json`): the items of the array, each as soon as its last character is here; what is no
            array is one item.
        application/x-ndjson, application/jsonl: the JSON values of the lines.
        text/event-stream: the data of the events, as str; not of those that rawstream has for control (`stream-...`).

        Raises ContentError for another type, and for what is no JSON; ItemTooLarge; and StreamFailed where a rawstream
        server tells that the stream failed.
        """
        return self._read("items()", self._item_reader())

    def events(self, decoder: Decoder | None = None) -> AsyncIterator[Event]:
        """The events of a text/event-stream, all of them. Raises ContentError for another type; ItemTooLarge.

        decoder: one of your own, which then tells the last id and the `retry` time, also of events without data."""
        if self.content_type != "text/event-stream":
            raise ContentError(f"{self._kind()} has no events: those are in text/event-stream")
        return self._read("events()", Events(self._limit, decoder))

    async def body(self) -> bytes:
        """The whole body; gzip and deflate are undone. Raises ItemTooLarge if it is larger than `limits.item`."""
        pieces, size, limit = [], 0, self._limit
        async for piece in self._read("body()", Bytes()):
            pieces.append(piece)
            size += len(piece)
            if size > limit:
                raise ItemTooLarge(f"the body has more than {limit} bytes: read it as it comes, with chunks()")
        return b"".join(pieces)

    # -- how it comes ------------------------------------------------------------------------------------------------

    def _choose(self, way: str) -> None:
        if self._way:
            raise LocalError(f"this body is read by {self._way} already: it comes once, {way} would find nothing")
        self._way = way

    def _read(self, way: str, reader: Reader[Any] | None) -> AsyncIterator[Any]:
        content = unpack(self.headers.get("content-encoding", ""))
        self._choose(way)
        return _Flow(lambda: self._more(content, reader))

    async def _more(self, content: Unpack, reader: Reader[T] | None) -> Iterable[T] | Iterable[bytes] | None:
        """What the next arrival brings. `chain` and `map` take the next step only when it is asked for."""
        arrival = await self._arrive()
        if arrival is None:
            return self._ending(content, reader)
        if reader is None:
            return chain.from_iterable(map(content.feed, arrival.pieces))
        # Put together: who reads them does not care for chunks, and many small ones cost more.
        return chain.from_iterable(map(reader.feed, content.feed(b"".join(arrival.pieces))))

    def _ending(self, content: Unpack, reader: Reader[T] | None) -> Iterable[T] | None:
        """What the end brings, the first time that it is come to."""
        if self._at_end:
            return None
        content.end()
        self._at_end = True
        return () if reader is None else reader.end()

    async def _arrival(self) -> Iterable[Arrival] | None:
        arrival = await self._arrive()
        return None if arrival is None else (arrival,)

    async def _arrive(self) -> Arrival | None:
        """The next arrival, None behind the last."""
        incoming, idle = self._incoming, self._idle
        if (line := self._line) is None:
            raise LocalError("this response is closed: read it inside its `async with`")
        if incoming.fault is not None:
            raise incoming.fault
        if incoming.ended:
            return None
        try:
            when, data = self._behind
            if data:
                self._behind = when, b""
            else:
                when, data = await line.read(idle)
        except ReadTimeout as exc:
            raise ResponseTimeout(f"nothing more of the response came within {idle} s (ClientTimeouts.idle)") from exc
        except Disconnected as exc:
            raise IncompleteResponse("the connection was reset before the response ended") from exc
        arrival = incoming.arrival(when, data)
        self.received += arrival.received
        return arrival if arrival.received else None  # the end of the connection ends the response, or raises

    def _charset(self) -> str:
        match = _CHARSET.search(self.headers.get("content-type", ""))
        return match[1] if match else "utf-8"

    def _kind(self) -> str:
        return (
            f"a response of type {self.content_type[:80]}" if self.content_type else "a response without Content-Type"
        )

    def _item_reader(self) -> Reader[Any]:
        kind, limit = self.content_type, self._limit
        if self.status == 204:
            return Bytes()  # none
        if kind in JSON_LINES:
            return JsonLines(limit)
        if kind == "application/json" or kind.endswith("+json"):
            return JsonArray(limit)
        if kind == "text/event-stream":
            return EventData(limit)
        raise ContentError(f"{self._kind()} has no items: read it by chunks(), text() or lines()")
