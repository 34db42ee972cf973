"""The values that pass between a connection and a handler: requests, responses, streams. All of them are frozen.

Nothing here does I/O; a `Request` gets its body from `exchange.RequestBody`.
"""

from __future__ import annotations

import json
import math
from collections.abc import AsyncIterable, AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias
from urllib.parse import parse_qsl, unquote

from .errors import AnswerError, HTTPError
from .fields import Headers, Pairs, Query, pairs

if TYPE_CHECKING:
    import asyncio


@dataclass(frozen=True, slots=True)
class RequestHead:
    """What a request's head said. `path` and `query` are still percent-encoded; `path` is "*" for `OPTIONS *`."""

    method: str
    target: str
    path: str
    query: str
    headers: Headers
    http_version: str


@dataclass(frozen=True, slots=True)
class ResponseHead:
    """What a response's head said."""

    status: int
    reason: str
    headers: Headers
    http_version: str


_NONE: Mapping[str, str] = MappingProxyType({})


class Body(Protocol):
    """Where a `Request` gets its body from."""

    @property
    def trailers(self) -> Headers:
        """The fields that came after a chunked body; empty until it has been read to its end."""

    async def read(self) -> bytes:
        """The next piece of the body, b"" at its end."""


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """A request as a handler sees it."""

    head: RequestHead
    client: tuple[str, int] | None
    """The peer's address and port; None on a Unix socket."""
    id: str
    """A short name for this request, for logs."""
    closing: asyncio.Event
    """Set when the server begins to close: an endless stream should then come to an end."""
    _body: Body
    params: Mapping[str, str] = field(default_factory=lambda: _NONE)
    """The `{name}` parts of the route, percent-decoded."""
    scheme: str = "http"
    """ "http" or "https": what the client uses, where a trusted proxy tells it."""
    _read: list[bytes] = field(default_factory=list)

    @property
    def method(self) -> str:
        """The method, as it came: methods are case-sensitive (RFC 9110 section 9.1)."""
        return self.head.method

    @property
    def path(self) -> str:
        """The target's path, percent-decoded."""
        return unquote(self.head.path)

    @property
    def query(self) -> Query:
        """The target's query parameters, percent-decoded."""
        return Query(parse_qsl(self.head.query, keep_blank_values=True))

    @property
    def headers(self) -> Headers:
        """The header fields."""
        return self.head.headers

    @property
    def http_version(self) -> str:
        """ "1.1" or "1.0"."""
        return self.head.http_version

    @property
    def last_event_id(self) -> str | None:
        """The id of the last server-sent event that a reconnecting client has seen (WHATWG HTML 9.2.4), or None."""
        value = self.headers.get("last-event-id")
        # EventSource sends the id as UTF-8; header fields are read as Latin-1.
        return None if value is None else value.encode("latin-1").decode("utf-8", "replace")

    @property
    def trailers(self) -> Headers:
        """The fields that came after a chunked body; empty until it has been read to its end."""
        return self._body.trailers

    async def stream(self) -> AsyncIterator[bytes]:
        """The body's bytes as they come: `async for piece in request.stream()`. Can be read once.

        The client is made to wait while the handler does not ask. Raises BodyTooLarge, ReadTimeout, ProtocolError
        or Disconnected; left uncaught they become the right answer.
        """
        while piece := await self._body.read():
            yield piece

    async def body(self) -> bytes:
        """The whole body; asking again gives the same bytes. Raises as `stream` does."""
        pieces = self._read  # kept here, so that who is cancelled and asks again misses none; b"" is the end
        while not pieces or pieces[-1]:
            pieces.append(await self._body.read())
        if len(pieces) > 2:
            pieces[:] = b"".join(pieces), b""
        return pieces[0]

    async def text(self) -> str:
        """The whole body as UTF-8. Raises HTTPError 400 where it is not, else as `stream` does."""
        try:
            return (await self.body()).decode()
        except UnicodeDecodeError as exc:
            raise HTTPError(400, f"the body is not UTF-8 at byte {exc.start}") from exc

    async def json(self) -> Any:
        """The whole body as JSON (RFC 8259). Raises HTTPError 400 where it is not, else as `stream` does."""
        text = await self.text()
        try:
            return json.loads(text, parse_constant=_no_constant)
        except (ValueError, RecursionError) as exc:
            why = exc if isinstance(exc, json.JSONDecodeError) else "too deeply nested, or too long a number"
            raise HTTPError(400, f"the body is not JSON: {why}") from exc


def _no_constant(name: str) -> None:
    raise json.JSONDecodeError(f"{name} is Python's, not JSON's", name, 0)


def _check_status(status: object) -> None:
    if not (isinstance(status, int) and 200 <= status <= 599):
        raise AnswerError(f"a response's status is a whole number from 200 to 599, not {status!r}")


@dataclass(frozen=True, slots=True)
class Response:
    """A whole response, sent with its Content-Length.

    status: 200 to 599. headers: pairs of field name and value, or a mapping; Content-Length and Date are added.
    body: bytes. Raises AnswerError for other types, and for a body where the status has none (204, 304).
    """

    status: int = 200
    headers: Pairs = ()
    body: bytes = b""

    def __post_init__(self) -> None:
        _check_status(self.status)
        if type(self.body) is not bytes:
            kind = type(self.body).__name__
            raise AnswerError(f"a Response's body is bytes, not {kind}; see Response.text and Response.json")
        if self.body and self.status in (204, 304):
            raise AnswerError(f"a response with status {self.status} has no body (RFC 9110 section 6.4.1)")

    @classmethod
    def text(cls, text: str, status: int = 200, headers: Pairs = ()) -> Response:
        """`text` as UTF-8 `text/plain`, or as the Content-Type that `headers` names.

        Raises AnswerError, and UnicodeEncodeError for half a surrogate pair.
        """
        return cls(status, _typed("text/plain; charset=utf-8", headers), text.encode())

    @classmethod
    def json(cls, value: Any, status: int = 200, headers: Pairs = ()) -> Response:
        """`value` as JSON (RFC 8259). Raises TypeError or ValueError for what it cannot hold, else as `text` does."""
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        return cls(status, _typed("application/json; charset=utf-8", headers), text.encode())


def _typed(content_type: str, headers: Pairs) -> Pairs:
    try:
        own = pairs(headers)
        named = "content-type" in [name.lower() for name, _ in own]
    except (AttributeError, TypeError, ValueError) as exc:
        raise AnswerError(f"a response's headers are pairs of str, or a mapping, not {headers!r}") from exc
    return own if named else [("Content-Type", content_type), *own]


@dataclass(frozen=True, slots=True)
class Every:
    """Gather on purpose, for bulk data: flush at `bytes` gathered, or `seconds` after the first of them, if sooner.

    bytes: 1 or more. seconds: above 0. Raises AnswerError for other values.
    """

    bytes: int = 64 * 1024
    seconds: float = 0.05

    def __post_init__(self) -> None:
        if type(self.bytes) is not int or self.bytes < 1:
            raise AnswerError(f"Every(bytes=) is a whole number, 1 or more, not {self.bytes!r}")
        if not (_is_number(self.seconds) and self.seconds > 0):
            raise AnswerError(f"Every(seconds=) is a number above 0, not {self.seconds!r}")


@dataclass(frozen=True, slots=True)
class Stream:
    """A response whose items leave as they are yielded.

    iterator: an async generator or any async iterable. It is closed (`aclose()`) when the stream ends for whatever
        reason, also if it never started; nothing should be claimed before its first line runs.
    format: "json", "ndjson", "jsonl", "sse", "text" or "bytes", or a `formats.Format`; None lets Accept choose.
    flush: None flushes whenever the iterator waits, "item" after each item, `Every(...)` gathers.
    heartbeat: seconds of silence after which an SSE stream sends a comment line; None for never.
    head: when the response's head leaves if no item has come: "suspend", as soon as the iterator waits (SSE's default);
        "item", only with the first item; or after that many seconds (others: 1). Until then errors become a status.
    gzip: compress for clients that accept it, with a flush for each flush; 2 KB more for a stream, 10 µs more a flush.
    headers: more header fields, as pairs or a mapping. status: 200 to 599.

    Raises AnswerError for other values.
    """

    iterator: AsyncIterable[Any]
    format: Any = None
    flush: Literal["item"] | Every | None = None
    heartbeat: float | None = 15.0
    head: Literal["suspend", "item"] | float | None = None
    gzip: bool = False
    headers: Pairs = ()
    status: int = 200

    def __post_init__(self) -> None:
        _check_status(self.status)
        if not hasattr(self.iterator, "__aiter__"):
            kind = type(self.iterator).__name__
            raise AnswerError(f"a Stream takes an async iterator (an async generator, say), not {kind}")
        if self.flush is not None and self.flush != "item" and not isinstance(self.flush, Every):
            raise AnswerError(f'flush is None, "item" or Every(bytes=..., seconds=...), not {self.flush!r}')
        if self.heartbeat is not None and not (_is_number(self.heartbeat) and 0 < self.heartbeat < math.inf):
            raise AnswerError(f"heartbeat is a number of seconds above 0, or None, not {self.heartbeat!r}")
        if self.head not in (None, "suspend", "item") and not (_is_number(self.head) and float(self.head) >= 0):
            raise AnswerError(f'head is None, "suspend", "item" or a number of seconds, not {self.head!r}')


def _is_number(value: object) -> bool:
    return type(value) in (int, float)


Answer: TypeAlias = Response | Stream
Handler: TypeAlias = Callable[[Request], Any]
"""`async def handler(request)` that returns a Response or a Stream, or an async generator that yields items."""
