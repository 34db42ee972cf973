"""What a response's body is made of: text, lines, JSON, events, out of bytes that are cut anywhere. No I/O.

Each decoder takes the next bytes with `feed`, which gives what is complete by then, and is told of the end with `end`,
which gives what that completes. All of them take time that is linear in the bytes, however these are cut; and what is
not complete may not be larger than `limit` bytes: what is complete before it is given out first. (A JSON array has a
module of its own.)
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any, AnyStr, Generic, Protocol, TypeVar

from .errors import ContentError, ItemTooLarge, StreamFailed
from .formats import CONTROL
from .sse import Decoder, Event

T_co = TypeVar("T_co", covariant=True)

_ERROR = CONTROL + "error"
_OURS = (_ERROR, CONTROL + "end", CONTROL + "gap", CONTROL + "closing")  # other names with `stream-` are not ours


class Reader(Protocol[T_co]):
    """Makes something of bytes."""

    def feed(self, data: bytes) -> Iterable[T_co]:
        """What the next bytes complete. Raises ContentError, once what is before the fault was taken."""

    def end(self) -> Iterable[T_co]:
        """What the end completes. Raises ContentError if something is missing."""


class Bytes(Reader[bytes]):
    """The bytes themselves."""

    def feed(self, data: bytes) -> Iterable[bytes]:
        return (data,) if data else ()

    def end(self) -> Iterable[bytes]:
        return ()


class Text(Reader[str]):
    """Text, as far as it has come: a character that is cut waits for its rest. What is no text becomes U+FFFD.

    charset: as Content-Type names it. Raises ContentError for one that is unknown. A byte order mark is no text.
    """

    def __init__(self, charset: str = "utf-8") -> None:
        try:
            b"    ".decode(charset, "replace")  # refuses those of Python's codecs that are no charsets
            if codecs.lookup(charset).name == "utf-8":
                charset = "utf-8-sig"
            self._decoder = codecs.getincrementaldecoder(charset)("replace")
        except (LookupError, ValueError) as exc:
            raise ContentError(f"the response's text is in a charset that is not known: {charset[:40]!r}") from exc

    def feed(self, data: bytes) -> Iterable[str]:
        text = self._decoder.decode(data)
        return (text,) if text else ()

    def end(self) -> Iterable[str]:
        text = self._decoder.decode(b"", True)
        return (text,) if text else ()


def fault(error: ContentError) -> Iterator[Any]:
    """Gives out nothing, and raises this: for `chain`, behind what is complete."""
    yield from ()
    raise error


class _Cut(Generic[AnyStr]):
    """Cuts text, or bytes, that come in parts, at each `newline`. What follows the last one may have `limit` bytes."""

    def __init__(self, newline: AnyStr, limit: int) -> None:
        self._newline: AnyStr = newline
        self._limit = limit
        self._parts: list[AnyStr] = []  # of the line that is under way
        self._size = 0  # its bytes so far

    def feed(self, part: AnyStr, size: int) -> Iterable[AnyStr]:
        """The lines that end in the next part, which is so many bytes. Raises ItemTooLarge behind them."""
        lines = part.split(self._newline)
        self._parts.append(lines[0])
        self._size += size
        rest = lines.pop()
        if lines:
            lines[0] = self.end()
            self._parts.append(rest)
            self._size = len(rest)
        if self._size > self._limit:
            return chain(lines, fault(ItemTooLarge(f"a line of the response has more than {self._limit} bytes")))
        return lines

    def end(self) -> AnyStr:
        """What there is of the line that is under way."""
        line = self._newline[:0].join(self._parts)
        self._parts.clear()
        return line


class Lines(Reader[str]):
    """Lines without their ends, which are LF or CR LF. A last line needs no end."""

    def __init__(self, text: Text, limit: int) -> None:
        self._text = text
        self._cut = _Cut("\n", limit)
        self._last = ""  # character: a CR may have come before its LF

    def feed(self, data: bytes) -> Iterable[str]:
        text = "".join(self._text.feed(data))
        lines = self._cut.feed(text, len(data))
        has_cr = "\r" in text or self._last == "\r"
        self._last = text[-1:] or self._last
        return (line.removesuffix("\r") for line in lines) if has_cr else lines

    def end(self) -> Iterable[str]:
        last = self._cut.end() + "".join(self._text.end())
        return (last.removesuffix("\r"),) if last else ()


class JsonLines(Reader[Any]):
    """One JSON value a line, as NDJSON and JSON Lines have it; empty lines are skipped.

    What our own server says at the end of a stream that failed (`{"stream-error": ...}`) is raised as StreamFailed.
    """

    def __init__(self, limit: int) -> None:
        self._cut = _Cut(b"\n", limit)  # which in UTF-8 is never a part of another character
        self._count = 0
        self._begun = False

    def feed(self, data: bytes) -> Iterator[Any]:
        return self._values(self._cut.feed(data, len(data)))

    def end(self) -> Iterator[Any]:
        return self._values([self._cut.end()])

    def _values(self, lines: Iterable[bytes]) -> Iterator[Any]:
        for line in lines:
            if not self._begun:
                self._begun = True
                line = line.removeprefix(codecs.BOM_UTF8)
            if not line or line.isspace():
                continue
            try:
                text = line.decode()
            except UnicodeDecodeError as exc:
                raise ContentError(f"item {self._count} of the response is not UTF-8, as JSON is: {exc}") from exc
            value = load(text, self._count)
            self._count += 1
            if type(value) is dict and len(value) == 1 and _ERROR in value:
                raise failure(value[_ERROR])
            yield value


class Events(Reader[Event]):
    """Server-sent events (WHATWG HTML section 9.2), with those that our own server has for control."""

    def __init__(self, limit: int, decoder: Decoder | None = None) -> None:
        self._decoder = decoder or Decoder()
        self._limit = limit
        self._size = 0  # bytes since an event has ended, or a comment
        self._last = b""  # byte: an empty line may come in two pieces

    def feed(self, data: bytes) -> Iterable[Event]:
        seen = self._last + data
        ends = max(seen.rfind(b"\n\n"), seen.rfind(b"\n\r"), seen.rfind(b"\r\r"))
        self._size = self._size + len(data) if ends < 0 else len(seen) - ends
        self._last = seen[-1:]
        events = self._decoder.feed(data)
        if self._size > self._limit:
            return chain(events, fault(ItemTooLarge(f"an event of the response has more than {self._limit} bytes")))
        return events

    def end(self) -> Iterable[Event]:
        return ()  # "If the file ends in the middle of an event, the incomplete event is not dispatched."


class EventData(Reader[str]):
    """The data of server-sent events; those that our own server has for control are not among them.

    Its `stream-error` is raised as StreamFailed.
    """

    def __init__(self, limit: int) -> None:
        self._events = Events(limit)

    def feed(self, data: bytes) -> Iterator[str]:
        for event in self._events.feed(data):
            if event.event not in _OURS:
                yield event.data
            elif event.event == _ERROR:
                raise failure(_told(event.data))

    def end(self) -> Iterable[str]:
        return ()


def _told(data: str) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        return data


def failure(told: Any) -> StreamFailed:
    """What our server tells of a stream that failed, as an exception."""
    if not isinstance(told, dict):
        told = {"error": told}
    status = told.get("status")
    message = told.get("error") or "it does not say why"
    return StreamFailed(f"the server broke off its stream: {message}", status if isinstance(status, int) else 500)


def load(text: str, index: int) -> Any:
    """`text` as a JSON value, the item of this index. Raises ContentError."""
    try:
        return DECODER.decode(text)
    except (ValueError, RecursionError) as exc:
        why = exc if isinstance(exc, json.JSONDecodeError) else "too deeply nested, or too long a number"
        raise ContentError(f"item {index} of the response is not JSON: {why}") from exc


def _no_constant(name: str) -> Any:
    raise json.JSONDecodeError(f"{name} is Python's, not JSON's", name, 0)


DECODER = json.JSONDecoder(parse_constant=_no_constant)
"""JSON as RFC 8259 has it."""
