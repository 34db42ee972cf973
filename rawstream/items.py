"""What a response's body is made of: text, lines, JSON, events, out of bytes that are cut anywhere. No I/O.

Each decoder takes the next bytes with `feed`, which gives what is complete by then, and is told of the end with `end`,
which gives what that completes. All of them take time that is linear in the bytes, however these are cut; and what is
not complete may not be larger than `limit` bytes. (A JSON array has a module of its own.)
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterable, Iterator
from typing import Any, Protocol, TypeVar

from .errors import ContentError, ItemTooLarge, StreamFailed
from .formats import CONTROL
from .sse import Decoder, Event

T_co = TypeVar("T_co", covariant=True)


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

    charset: as Content-Type names it. Raises ContentError for one that is unknown.
    """

    def __init__(self, charset: str = "utf-8") -> None:
        try:
            b"    ".decode(charset, "replace")  # refuses those of Python's codecs that are no charsets
            self._decoder = codecs.getincrementaldecoder(charset)("replace")
        except (LookupError, ValueError) as exc:
            raise ContentError(f"the response's text is in a charset that is not known: {charset[:40]!r}") from exc

    def feed(self, data: bytes) -> Iterable[str]:
        text = self._decoder.decode(data)
        return (text,) if text else ()

    def end(self) -> Iterable[str]:
        text = self._decoder.decode(b"", True)
        return (text,) if text else ()


class Lines(Reader[str]):
    """Lines without their ends, which are LF or CR LF. A last line needs no end."""

    def __init__(self, text: Text, limit: int) -> None:
        self._text = text
        self._limit = limit
        self._parts: list[str] = []  # of the line that is under way
        self._size = 0  # its bytes so far

    def feed(self, data: bytes) -> Iterable[str]:
        self._size += len(data)
        lines: list[str] = []
        for text in self._text.feed(data):
            first, *others = text.split("\n")
            self._parts.append(first)
            if others:
                lines = ["".join(self._parts), *others]
                self._parts = [lines.pop()]
                self._size = len(self._parts[0])
                if "\r" in text or lines[0].endswith("\r"):
                    lines = [line.removesuffix("\r") for line in lines]
        if self._size > self._limit:
            raise ItemTooLarge(f"a line of the response has more than {self._limit} bytes")
        return lines

    def end(self) -> Iterable[str]:
        last = "".join([*self._parts, *self._text.end()])
        return (last.removesuffix("\r"),) if last else ()


class JsonLines(Reader[Any]):
    """One JSON value a line, as NDJSON and JSON Lines have it; empty lines are skipped.

    What our own server says at the end of a stream that failed (`{"stream-error": ...}`) is raised as StreamFailed.
    """

    def __init__(self, limit: int) -> None:
        self._lines = Lines(Text(), limit)
        self._count = 0

    def feed(self, data: bytes) -> Iterator[Any]:
        return self._values(self._lines.feed(data))

    def end(self) -> Iterator[Any]:
        return self._values(self._lines.end())

    def _values(self, lines: Iterable[str]) -> Iterator[Any]:
        for line in lines:
            if not line or line.isspace():
                continue
            value = load(line, f"line {self._count}")
            self._count += 1
            if type(value) is dict and len(value) == 1 and (CONTROL + "error") in value:
                raise failure(value[CONTROL + "error"])
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
        if self._size > self._limit:
            raise ItemTooLarge(f"an event of the response has more than {self._limit} bytes")
        return self._decoder.feed(data)

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
            if event.event is None or not event.event.startswith(CONTROL):
                yield event.data
            elif event.event == CONTROL + "error":
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


def load(text: str, what: str) -> Any:
    """`text` as a JSON value. Raises ContentError."""
    try:
        return _decode(text)
    except (ValueError, RecursionError) as exc:
        why = exc if isinstance(exc, json.JSONDecodeError) else "too deeply nested, or too long a number"
        raise ContentError(f"{what} of the response is not JSON: {why}") from exc


def _no_constant(name: str) -> Any:
    raise json.JSONDecodeError(f"{name} is Python's, not JSON's", name, 0)


DECODER = json.JSONDecoder(parse_constant=_no_constant)
"""JSON as RFC 8259 has it."""
_decode = DECODER.decode
