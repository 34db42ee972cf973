"""Items to body bytes, and which format a client is sent.

A format is a content type and an encoder; a stream has an encoder of its own, since a JSON array must know its first
item. Nothing here waits or writes: the pump asks for the bytes of an item, the stream's sink for those of the end.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from . import sse
from .errors import EventError, ItemError, LocalError, NotAcceptable

CONTROL = "stream-"
"""How the names of rawstream's own events begin; users' events may not."""

END_ID = "stream-end"
"""The id of the last event of a finished SSE stream. A client that comes back with it needs nothing more."""


class Encoder(Protocol):
    """Makes the bytes of one stream's items; `b""` from any of these sends nothing."""

    heartbeat: bytes
    """What keeps a silent stream alive."""

    def encode(self, item: Any) -> bytes:
        """The bytes of the next item. Raises ItemError if the format cannot hold it."""

    def end(self) -> bytes:
        """What comes after the last item."""

    def error(self, status: int, message: str) -> bytes:
        """What tells that the stream breaks off here."""

    def closing(self, retry: int) -> bytes:
        """What tells that the server is going to close, and after how many milliseconds to come back."""


class _Plain(Encoder):
    """What every encoder begins with: nothing after the items, nothing in band."""

    heartbeat = b""

    def end(self) -> bytes:
        return b""

    def error(self, status: int, message: str) -> bytes:
        return b""

    def closing(self, retry: int) -> bytes:
        return b""


def _json_default(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    raw = isinstance(value, bytes | bytearray | memoryview)
    hint = '; bytes are sent by Stream(..., format="bytes")' if raw else ""
    raise TypeError(f"{type(value).__name__} is not a JSON type{hint}")


def _json_encoder(ascii: bool) -> Callable[[Any], str]:
    compact = (",", ":")
    return json.JSONEncoder(ensure_ascii=ascii, allow_nan=False, separators=compact, default=_json_default).encode


_to_json = _json_encoder(ascii=False)


def _utf8(item: Any, to_text: Callable[[Any], str]) -> bytes:
    try:
        return to_text(item).encode()
    except UnicodeEncodeError as exc:
        raise ItemError(_kind(item), f"has {exc.object[exc.start]!r}, which UTF-8 cannot carry") from exc
    except (TypeError, ValueError, RecursionError) as exc:
        raise ItemError(_kind(item), f"cannot be sent as JSON: {exc}") from exc


def _told(message: str) -> str:
    """A message as UTF-8 can carry it: it may quote a file's name, say, with half a surrogate pair."""
    return message.encode(errors="replace").decode()


def _kind(item: object) -> str:
    return type(item).__name__


def _data(item: Any) -> Any:
    """What an item is in a format without events: an Event is its data."""
    if isinstance(item, sse.Event):
        _check_name(item)
        return item.data
    return item


def _check_name(event: sse.Event) -> None:
    if event.event is not None and event.event.startswith(CONTROL):
        raise ItemError(_kind(event), f"has the name {event.event!r}: those with {CONTROL!r} are rawstream's own")
    if event.id == END_ID:
        raise ItemError(_kind(event), f"has the id {END_ID!r}, which says that a stream has ended")


def _is_silent(item: Any) -> bool:
    """An Event without data (a comment, an id) is nothing in a format without events."""
    return isinstance(item, sse.Event) and item.data is None


class JsonArray(_Plain):
    """`[` item `,` item … `]`, as ASP.NET Core streams an `IAsyncEnumerable<T>`; RFC 8259.

    `[` leaves with the first item: a failure before it can still become a proper status.
    """

    def __init__(self, ascii: bool = False) -> None:
        self._to_json = _json_encoder(ascii) if ascii else _to_json
        self._open = b"["

    def encode(self, item: Any) -> bytes:
        data = _data(item)
        if _is_silent(item):
            return b""
        text = self._open + _utf8(data, self._to_json)
        self._open = b","
        return text

    def end(self) -> bytes:
        return b"]" if self._open == b"," else b"[]"


class JsonLines(_Plain):
    """One JSON value a line."""

    @staticmethod
    def encode(item: Any) -> bytes:
        data = _data(item)
        return b"" if _is_silent(item) else _utf8(data, _to_json) + b"\n"

    def error(self, status: int, message: str) -> bytes:
        return _to_json({"stream-error": {"status": status, "error": _told(message)}}).encode() + b"\n"


class ServerSentEvents(_Plain):
    """One event an item; a `str` is the event's data as it is, any other value is JSON."""

    heartbeat = b":\n\n"
    _finished = sse.encode(sse.Event("{}", "stream-end", END_ID))

    @staticmethod
    def encode(item: Any) -> bytes:
        if type(item) is str and "\n" not in item and "\r" not in item:
            try:
                return f"data: {item}\n\n".encode()  # most items: text of one line
            except UnicodeEncodeError:
                pass  # told below
        event = item if isinstance(item, sse.Event) else sse.Event(item)
        _check_name(event)
        # An Event without data stays without; a None that was yielded is JSON's null.
        if not isinstance(event.data, str) and (event.data is not None or event is not item):
            event = dataclasses.replace(event, data=_utf8(event.data, _to_json).decode())
        try:
            return sse.encode(event)
        except EventError as exc:
            raise ItemError(_kind(item), f"cannot be sent as an event: {exc}") from exc

    def end(self) -> bytes:
        return self._finished

    def error(self, status: int, message: str) -> bytes:
        return sse.encode(sse.Event(_to_json({"status": status, "error": _told(message)}), "stream-error"))

    def closing(self, retry: int) -> bytes:
        # A stream that ends now may have ended because of this, and its reader shall come back: no "finished" for it.
        self._finished = b""
        return sse.encode(sse.Event("{}", "stream-closing", retry=retry))


class Text(_Plain):
    """The items' own text with nothing between; a `str` as it is, any other value as JSON."""

    @staticmethod
    def encode(item: Any) -> bytes:
        data = _data(item)
        if _is_silent(item):
            return b""
        # str.__str__: str() of an enumeration's member may be its name, where all other formats send its value.
        return _utf8(data, str.__str__ if isinstance(data, str) else _to_json)


class Raw(_Plain):
    """Bytes as they are."""

    @staticmethod
    def encode(item: Any) -> bytes:
        data = _data(item)
        if _is_silent(item):
            return b""
        if not isinstance(data, bytes | bytearray | memoryview):
            raise ItemError(_kind(item), 'is not bytes, which a stream with format="bytes" takes')
        return bytes(data)


@dataclass(frozen=True, slots=True)
class Format:
    """A format that `Stream(format=...)` takes: a name, the Content-Type it is sent with, and an encoder a stream.

    `headers` go out with it; `head` is the default of `Stream(head=...)` in seconds.
    """

    name: str
    content_type: str
    encoder: Callable[[], Encoder]
    headers: tuple[tuple[str, str], ...] = ()
    head: float = 1.0

    @property
    def media_type(self) -> str:
        """The content type without its parameters."""
        return self.content_type.partition(";")[0]


_SSE_HEADERS = (
    ("Cache-Control", "no-store, no-transform"),  # a proxy that compressed the stream would hold it back
    ("X-Accel-Buffering", "no"),  # nginx: do not gather
)

JSON = Format("json", "application/json; charset=utf-8", JsonArray)
_NDJSON = Format("ndjson", "application/x-ndjson", JsonLines)
_JSONL = Format("jsonl", "application/jsonl", JsonLines)
_SSE = Format("sse", "text/event-stream", ServerSentEvents, _SSE_HEADERS, head=0.0)
NEGOTIATED = (JSON, _NDJSON, _JSONL, _SSE, Format("text", "text/plain; charset=utf-8", Text))
"""What Accept may choose from; the first of those that the client wants equally is sent."""
EVENTS = (_SSE, _NDJSON, _JSONL)
"""What it may choose from where each item has an id to come back with."""

BYTES = Format("bytes", "application/octet-stream", Raw)
ASCII_JSON = Format("ascii-json", "application/json; charset=utf-8", lambda: JsonArray(ascii=True))
"""A JSON array in which everything beyond ASCII is written as \\uXXXX."""

_BY_NAME = {form.name: form for form in (*NEGOTIATED, BYTES, ASCII_JSON)}


def fixed(form: object) -> Format:
    """The format that a handler fixed, by name or as a Format. Raises LocalError for one that does not exist."""
    if isinstance(form, Format):
        return form
    found = _BY_NAME.get(form) if isinstance(form, str) else None
    if found is None:
        raise LocalError(f"a Stream's format is one of {', '.join(_BY_NAME)}, or a Format, not {form!r}")
    return found


_QVALUE = re.compile(r'("?)(?P<value>0?\.[0-9]{1,3}|0\.?|1(?:\.0{0,3})?)\1')  # and ".2", which old Java sends
_RANGE = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]+/[!#$%&'*+.^_`|~0-9a-z-]+")
_MEMBERS = 32  # of an Accept, and of one's parameters, that are looked at: browsers send ten


def negotiate(accept: str | None, among: Sequence[Format] = NEGOTIATED) -> Format:
    """The format for an Accept field (RFC 9110 section 12.5.1); the first for None and "".

    The highest quality wins; of equal ones the type that was named most exactly, then the one that was named first,
    then the first that we have. Parameters other than `q` are ignored, malformed members too, and all after the 32nd.
    Raises NotAcceptable.
    """
    if accept is None or not accept.strip(" \t,"):
        return among[0]
    ranges = _media_ranges(accept)
    best: tuple[tuple[float, int, int], Format] | None = None
    for form in among:
        matches = [
            (exactness, -place, quality)
            for place, (name, quality) in enumerate(ranges)
            if (exactness := _exactness(name, form.media_type))
        ]
        if not matches:
            continue
        exactness, place, quality = max(matches)  # "the most specific reference has precedence"
        rank = (quality, exactness, place)
        if quality > 0 and (best is None or rank > best[0]):
            best = rank, form
    if best is None:
        raise NotAcceptable("this can be sent as " + ", ".join(form.media_type for form in among))
    return best[1]


def prefers_json(accept: str | None) -> bool:
    """Whether a client that may be sent text or JSON asks for JSON: names it, and does not want text more."""
    wanted = dict(_media_ranges(accept or ""))
    quality = wanted.get(JSON.media_type, 0.0)
    return quality > 0 and quality >= wanted.get("text/plain", wanted.get("text/*", wanted.get("*/*", 0.0)))


def _media_ranges(accept: str) -> list[tuple[str, float]]:
    members = accept.lower().split(",", _MEMBERS)[:_MEMBERS]
    return [parsed for member in members if (parsed := _media_range(member)) is not None]


def _media_range(member: str) -> tuple[str, float] | None:
    name, *parameters = (part.strip() for part in member.split(";", _MEMBERS)[:_MEMBERS])
    if name == "*":
        name = "*/*"  # RFC 2616 knew no such range either, but old Java sends it
    if not _RANGE.fullmatch(name):
        return None
    for parameter in parameters:
        key, _, value = parameter.partition("=")
        if key.strip() == "q":
            match = _QVALUE.fullmatch(value.strip())
            return (name, float(match["value"])) if match else None
    return name, 1.0


def _exactness(media_range: str, media_type: str) -> int:
    """How exactly the range names the type: 3 in full, 2 by `type/*`, 1 by `*/*`, 0 not at all."""
    if media_range == media_type:
        return 3
    if media_range == media_type.partition("/")[0] + "/*":
        return 2
    return 1 if media_range == "*/*" else 0
