"""Server-sent events, both directions, without I/O: `Event`, `encode`, `Decoder`.

The format is WHATWG HTML section 9.2, "Server-sent events"; the sections named below are of that text. It is UTF-8,
made of lines; a line is a field (`name: value`) or a comment (`: text`); an empty line ends an event.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from .errors import EventError

_LINE_END = re.compile(rb"\r\n|\n|\r")
_TEXT_LINE_END = re.compile(r"\r\n|\n|\r")  # not str.splitlines(): that also splits at U+2028, VT, FF and others
# Most events are no more than this, as our own server writes them: in one step they take two thirds of the time.
_PLAIN = re.compile(rb"(?:event: ([^\r\n]++)\n)?data: ([^\r\n]*+)\n(?:id: ([^\r\n\0]*+)\n)?\n")
_BOM = b"\xef\xbb\xbf"
_RETRY_DIGITS = 15  # a decoder takes no longer times (31,000 years): int() of thousands of digits is slow, or fails


@dataclass(frozen=True, slots=True)
class Event:
    """One server-sent event.

    data: what the client gets. A `str` is sent as it is (each of its lines as a `data:` line); a stream sends any
        other value as JSON. None sends no `data:` line, so that the client sees no event: for a comment, an id or a
        retry time on its own.
    event: the event's name, None for "message".
    id: what the client sends back as Last-Event-ID when it reconnects.
    retry: how long the client waits before it reconnects, in whole milliseconds, 0 or more.
    comment: a line that every client ignores.

    Raises EventError for what the format cannot carry; nothing is stripped silently.
    """

    data: Any
    event: str | None = None
    id: str | None = None
    retry: int | None = None
    comment: str | None = None

    def __post_init__(self) -> None:
        if self.event is not None:
            _check("event", self.event, "\r\n")
        if self.id is not None:
            _check("id", self.id, "\r\n\0")
        if self.retry is not None and (type(self.retry) is not int or self.retry < 0):
            raise EventError(f"retry is a whole number of milliseconds, 0 or more, not {self.retry!r}")
        if self.comment is not None and not isinstance(self.comment, str):
            raise EventError(f"comment is a str, not {type(self.comment).__name__}")


def _check(name: str, value: object, forbidden: str) -> None:
    if not isinstance(value, str):
        raise EventError(f"{name} is a str, not {type(value).__name__}")
    for character in forbidden:
        if character in value:
            raise EventError(f"{name} cannot hold {character!r}: {value!r}")


def encode(event: Event) -> bytes:
    """The bytes of one event, whose `data` is a `str` or None.

    Fields come in the order comment, event, data, id, retry; an empty line ends them.
    Raises EventError if `data` is something else, or text that UTF-8 cannot carry (a lone surrogate).
    """
    data = event.data
    if data is not None and not isinstance(data, str):
        kind = type(data).__name__
        raise EventError(f"data is a str or None here, not {kind}: a Stream turns other values into JSON")
    lines = []
    if event.comment is not None:
        lines += [f": {line}\n" for line in _TEXT_LINE_END.split(event.comment)]
    if event.event is not None:
        lines.append("event: " + event.event + "\n")  # not by format(): an enumeration's member may write its name
    if data is not None:
        # Section 9.2.6: a line break cannot be escaped, so each line of the data is a field of its own,
        # and the client joins them with LF again.
        lines += [f"data: {line}\n" for line in _TEXT_LINE_END.split(data)]
    if event.id is not None:
        lines.append("id: " + event.id + "\n")
    if event.retry is not None:
        lines.append(f"retry: {event.retry}\n")
    lines.append("\n")
    try:
        return "".join(lines).encode()
    except UnicodeEncodeError as exc:
        raise EventError(f"an event is UTF-8, which cannot carry {exc.object[exc.start]!r}") from exc


class Decoder:
    """Turns the bytes of an event stream into events, however the bytes are cut, in linear time.

    `last_event_id` is what a reconnecting client sends as Last-Event-ID (before any, what it was made with); `retry` is
    the last reconnection time of the server in milliseconds, or None. The events given out hold the fields of their own
    block; comments are dropped. An event that the end of the stream leaves unfinished is discarded, as section 9.2.6
    asks: there is nothing to call at the end.
    """

    def __init__(self, last_event_id: str = "") -> None:
        self.last_event_id = last_event_id
        self.retry: int | None = None
        self._bom: bytes | None = b""  # what came of a byte order mark so far; None once that is settled
        self._after_cr = False  # a LF that comes now belongs to the CR before it
        self._line: list[bytes] = []  # the pieces of a line whose end has not come
        self._pending_id = last_event_id  # section 9.2.6's "last event ID buffer": kept from event to event
        self._clear()

    def _clear(self) -> None:
        self._data: list[str] = []
        self._event = ""
        self._id: str | None = None
        self._retry: int | None = None

    def feed(self, data: bytes) -> list[Event]:
        """The events that end in `data`, which is the next piece of the stream, of any length."""
        if self._bom is not None:
            # "If the stream begins with a byte order mark, it is dropped": one, and only there.
            data = self._bom + data
            if len(data) < len(_BOM) and _BOM.startswith(data):
                self._bom = data
                return []
            self._bom = None
            data = data.removeprefix(_BOM)
        if not data:
            return []
        if self._after_cr and data.startswith(b"\n"):
            data = data[1:]
        self._after_cr = data.endswith(b"\r")
        events, place = self._plain(data)
        if place == len(data):
            return events
        first, *rest = _LINE_END.split(data[place:])
        self._line.append(first)
        for piece in rest:
            line = b"".join(self._line)
            self._line = [piece]
            if line:
                self._field(line.decode("utf-8", "replace"))
            elif (event := self._dispatch()) is not None:
                events.append(event)
        return events

    def _plain(self, data: bytes) -> tuple[list[Event], int]:
        """The plain events at the beginning, if nothing is under way, and where they end."""
        events: list[Event] = []
        place = 0
        if any(self._line) or self._data or self._event or self._id is not None or self._retry is not None:
            return events, place
        while match := _PLAIN.match(data, place):
            name, text, last = match.groups()
            if last is not None:
                self._pending_id = last.decode("utf-8", "replace")
            events.append(
                Event(
                    text.decode("utf-8", "replace"),
                    None if name is None else name.decode("utf-8", "replace"),
                    None if last is None else self._pending_id,
                )
            )
            place = match.end()
        if events:
            self.last_event_id = self._pending_id
        return events, place

    def _field(self, line: str) -> None:
        name, colon, value = line.partition(":")
        if colon and not name:
            return  # "If the line starts with a U+003A COLON character: Ignore the line."
        value = value.removeprefix(" ")
        match name:
            case "data":
                self._data.append(value)
            case "event":
                self._event = value
            case "id":
                # "If the field value does not contain U+0000 NULL, then set the last event ID buffer."
                if "\0" not in value:
                    self._id = self._pending_id = value
            case "retry":
                # "If the field value consists of only ASCII digits": str.isdigit() alone would take others too.
                if value.isascii() and value.isdigit() and len(value) <= _RETRY_DIGITS:
                    self._retry = self.retry = int(value)
            case _:
                pass  # "Otherwise: The field is ignored."

    def _dispatch(self) -> Event | None:
        self.last_event_id = self._pending_id
        # "If the data buffer is an empty string, set the event type buffer to the empty string and return."
        event = None
        if self._data:
            event = Event("\n".join(self._data), self._event or None, self._id, self._retry)
        self._clear()
        return event
