"""Takes an HTTP/1.1 answer apart, and the stamped events in it. No I/O, and no clock.

The load keeps what each `recv` returned together with its time; these parsers run after the measurement. A piece of
the answer counts as arrived with the read that brought its last byte.
"""

import itertools
import sys
import zlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from benchmarks.settings import EVENT_BYTES

_STAMPED = EVENT_BYTES - 2
"""Length of a stamped event without its empty line."""


class WrongAnswer(Exception):
    """The peer sent something else than what the workload asks for."""


class HeldBack(WrongAnswer):
    """The right bytes, but not when they were sent: a stream that does not flow."""


class Read(NamedTuple):
    """What one `recv` returned, and when (nanoseconds of the monotonic clock)."""

    arrived: int
    data: bytes


class Chunk(NamedTuple):
    """One chunk of the body, without its framing, and when its last byte arrived (nanoseconds)."""

    arrived: int
    payload: bytes


class Event(NamedTuple):
    """When an event was yielded, and when its last byte was read (both in nanoseconds)."""

    stamped: int
    arrived: int

    @property
    def latency(self) -> int:
        """Nanoseconds from `yield` to `read`."""
        return self.arrived - self.stamped


class AnswerParser:
    """Reads one answer, however its bytes are cut. Bytes after its end stay in `rest`.

    With `until_close`, it may also be one that ends with its connection: then `body` has all that came so far.
    """

    def __init__(self, until_close: bool = False) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.chunks: list[Chunk] = []
        self.complete = False
        self.rest = b""
        self._in_head = True
        self._left: int | None = None
        self._until_close = until_close

    @property
    def body(self) -> bytes:
        """The whole body so far."""
        return b"".join(chunk.payload for chunk in self.chunks)

    def feed(self, read: Read) -> None:
        """Take the next read. Raises `WrongAnswer` when it is not HTTP."""
        self.rest = self.rest + read.data if self.rest else read.data
        if self._in_head and not self._head():
            return
        if not self.complete:
            if self._left is None:
                self._chunks(read.arrived)
            else:
                self._counted(read.arrived)

    def _head(self) -> bool:
        end = self.rest.find(b"\r\n\r\n")
        if end < 0:
            return False
        status, *fields = self.rest[:end].decode("latin-1").split("\r\n")
        version, code, *_ = [*status.split(" ", 2), "", ""]
        if version != "HTTP/1.1" or len(code) != 3 or not code.isdigit():
            raise WrongAnswer(f"not a status line of HTTP/1.1: {status[:60]!r}")
        self.status = int(code)
        for field in fields:
            name, colon, value = field.partition(":")
            if not colon:
                raise WrongAnswer(f"not a header field: {field[:60]!r}")
            self.headers[name.strip().lower()] = value.strip()
        self.rest = self.rest[end + 4 :]
        self._in_head = False
        if self.headers.get("transfer-encoding", "").lower() != "chunked":
            length = self.headers.get("content-length", "")
            if not length and self._until_close:
                length = str(sys.maxsize)
            if not length.isdigit():
                raise WrongAnswer("the answer has neither a Content-Length nor chunks")
            self._left = int(length)
        return True

    def _counted(self, arrived: int) -> None:
        assert self._left is not None, "only called with a Content-Length"
        payload, self.rest = self.rest[: self._left], self.rest[self._left :]
        self._left -= len(payload)
        self.complete = self._left == 0
        if payload:
            self.chunks.append(Chunk(arrived, payload))

    def _chunks(self, arrived: int) -> None:
        data, at, append = self.rest, 0, self.chunks.append
        while (line_end := data.find(b"\r\n", at)) >= 0:
            line = data[at:line_end].partition(b";")[0]
            try:
                length = int(line, 16)
            except ValueError:
                raise WrongAnswer(f"not the length of a chunk: {line[:40]!r}") from None
            start = line_end + 2
            end = start + length
            if len(data) < end + 2:
                break
            if data[end : end + 2] != b"\r\n":
                raise WrongAnswer(f"a chunk of {length} bytes does not end after {length} bytes")
            at = end + 2
            if length == 0:
                self.complete = True
                break
            append(Chunk(arrived, data[start:end]))
        self.rest = data[at:]


class EventParser:
    """Finds the stamped events in a stream of chunks; an event may lie across chunks.

    `others` holds every other event as bytes (rawstream ends a stream with one of its own).
    """

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.others: list[bytes] = []
        self._rest = b""

    def feed(self, chunk: Chunk) -> None:
        """Take the next chunk."""
        arrived = chunk.arrived
        *parts, self._rest = (self._rest + chunk.payload).split(b"\n\n")
        for part in parts:
            if len(part) == _STAMPED and part.startswith(b"data: ") and part[6:].isdigit():
                self.events.append(Event(int(part[6:]), arrived))
            else:
                self.others.append(part)

    @property
    def rest(self) -> bytes:
        """The beginning of an event that has not ended."""
        return self._rest


def parse(reads: Iterable[Read], until_close: bool = False) -> AnswerParser:
    """Take one answer apart, which may be cut off at its end."""
    parser = AnswerParser(until_close)
    for read in reads:
        parser.feed(read)
    return parser


def events_of(answer: AnswerParser) -> EventParser:
    """Find the events of an answer."""
    parser = EventParser()
    for chunk in answer.chunks:
        parser.feed(chunk)
    return parser


def unzip(answer: AnswerParser) -> None:
    """Put in the place of each chunk what can be decoded of a gzip stream with it. Raises `WrongAnswer`."""
    inflate = zlib.decompressobj(wbits=31)
    try:
        answer.chunks = [Chunk(arrived, inflate.decompress(payload)) for arrived, payload in answer.chunks]
    except zlib.error as exc:
        raise WrongAnswer(f"not gzip: {exc}") from None
    if answer.complete and (not inflate.eof or inflate.unused_data):
        raise WrongAnswer("the gzip stream does not end where the answer ends")


def check_head(answer: AnswerParser, coding: str = "") -> None:
    """Raise `WrongAnswer` unless this is the head of a stream of events in chunks, in this content coding."""
    if not answer.status:
        raise WrongAnswer("no answer came in the time of the measurement")
    if answer.status != 200:
        raise WrongAnswer(f"status {answer.status} instead of 200: {answer.body[:80]!r}")
    kind = answer.headers.get("content-type", "none").partition(";")[0].strip()
    if kind != "text/event-stream":
        raise WrongAnswer(f"Content-Type {kind} instead of text/event-stream")
    if answer.headers.get("transfer-encoding", "").lower() != "chunked":
        raise WrongAnswer("the stream is not chunked")
    if (found := answer.headers.get("content-encoding", "")) != coding:
        raise WrongAnswer(f"the stream's content coding is {found or 'none'} instead of {coding or 'none'}")


def check_events(answer: AnswerParser, count: int, coding: str = "") -> list[Event]:
    """Give the events of a finished stream; raise `WrongAnswer` unless it holds exactly `count`, in order."""
    found = _checked(answer, coding)
    if not answer.complete:
        raise WrongAnswer("the stream was cut before its end")
    if answer.rest:
        raise WrongAnswer(f"bytes after the end of the stream: {answer.rest[:40]!r}")
    if found.rest:
        raise WrongAnswer(f"the last event has no end: {found.rest[:40]!r}")
    if len(found.events) != count:
        raise WrongAnswer(f"{len(found.events)} events instead of {count}")
    return found.events


def check_begun(answer: AnswerParser, coding: str = "") -> list[Event]:
    """Give the events of a stream that was left before its end.

    Raises `WrongAnswer` if it has ended all the same, or if an event came twice or out of order.
    """
    events = _checked(answer, coding).events
    if answer.complete:
        raise WrongAnswer("a stream ended in the middle of the measurement")
    if any(later.stamped == earlier.stamped for earlier, later in itertools.pairwise(events)):
        raise WrongAnswer("an event came twice")
    return events


def _checked(answer: AnswerParser, coding: str) -> EventParser:
    """The events of an answer, all of one kind and in order."""
    check_head(answer, coding)
    if coding:
        unzip(answer)
    found = events_of(answer)
    strangers = [other for other in found.others if not other.startswith(b"event: stream-end")]
    if strangers:
        raise WrongAnswer(f"an event of another kind: {strangers[0][:60]!r}")
    if any(later.stamped < earlier.stamped for earlier, later in itertools.pairwise(found.events)):
        raise WrongAnswer("the events are out of order")
    return found


def check_arrival(events: Sequence[Event], interval: float) -> None:
    """Raise `HeldBack` if most events came after the next one was due: somebody gathers them.

    `interval` is in seconds. One late event is the machine's doing.
    """
    held = sum(event.latency > interval * 1e9 for event in events)
    if held > len(events) // 2:
        raise HeldBack(f"{held} of {len(events)} events came only when later ones were due")
