"""What an operator can see of a running server: its counts, and the access log.

The server and each request's cycle tell it what happens, in one call; it decides nothing. The counts belong to the
process and are plain numbers: everything runs in the loop's thread, so there are no locks. The access log is a logger
and is switched on as loggers are: `rawstream.access` at INFO. While it is off it costs one look at its level.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import time
import traceback
from bisect import bisect_left
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, Protocol, TypeAlias, get_args

from .errors import LocalError
from .messages import Request

access = logging.getLogger("rawstream.access")

# -- counts ------------------------------------------------------------------------------------------------------------

# Seconds: upper bounds of the buckets. Prometheus' own defaults, and what lies below and above them.
_MOMENTS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_LIVES = (0.1, 1.0, 10.0, 60.0, 300.0, 900.0, 3600.0, 14400.0, 86400.0)  # streams live from moments to days

# A client may invent methods; the counts shall not grow with them.
_METHODS = frozenset({"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"})
_CLASSES = ("none", "1xx", "2xx", "3xx", "4xx", "5xx")  # by the status' first digit; 0 is a request not answered

Outcome: TypeAlias = Literal["complete", "client gone", "stalled", "timeout", "cancelled", "error", "refused", "cut"]
"""How a request ends. "complete": all of the answer was sent. "client gone": nobody was there to read it. "stalled":
its reader took nothing for too long. "timeout": it took too long. "cancelled": the server closed. "error": the handler
failed. "refused": it was not let in. "cut": none of these."""

Reason: TypeAlias = Literal["connections", "connections_per_client", "streams", "pipelined", "head"]
"""What is refused: by one of the limits, requests that were sent ahead of their turn, or a head that is no request."""

log = logging.getLogger("rawstream")

_REFUSED: dict[Reason, str] = {
    "connections": "connections are refused: there are as many as Limits.connections, or open files, allow",
    "connections_per_client": "connections are refused: a client has as many as Limits.connections_per_client allows",
    "streams": "streams are refused: there are as many as Limits.streams allows",
    "pipelined": "requests were dropped: a client sent more of them ahead of their turn than Limits.held allows",
}
_SELDOM = 10.0  # seconds between two lines that say the same


@dataclass(slots=True, eq=False)
class Histogram:
    """How many values fell between which bounds. A value that is a bound counts below it."""

    bounds: tuple[float, ...]
    buckets: list[int] = field(init=False)
    """A count for each bound, and one for what lies above the last."""
    sum: float = 0.0

    def __post_init__(self) -> None:
        self.buckets = [0] * (len(self.bounds) + 1)

    def add(self, value: float) -> None:
        """Count a value."""
        self.buckets[bisect_left(self.bounds, value)] += 1
        self.sum += value


@dataclass(slots=True, eq=False)
class Counts:
    """What has happened since the process began. Streams still open are in `open_streams`, and not in here yet."""

    connections: int = 0
    """Open now."""
    accepted: int = 0
    """Connections there have been."""
    under_way: int = 0
    """Requests begun and not ended."""
    requests: dict[tuple[str, str], int] = field(default_factory=dict)
    """Requests ended, by method ("other" for those that HTTP does not define) and class of status ("2xx", "none")."""
    request_seconds: Histogram = field(default_factory=lambda: Histogram(_MOMENTS))
    """How long a request took that was not answered with a stream."""
    stream_seconds: Histogram = field(default_factory=lambda: Histogram(_LIVES))
    """How long one took that was."""
    first_chunk: Histogram = field(default_factory=lambda: Histogram(_MOMENTS))
    """Seconds from a request's head to its stream's first chunk."""
    write_stall: Histogram = field(default_factory=lambda: Histogram(_MOMENTS))
    """Seconds for which a producer waited for its reader, each time it did."""
    chunks: int = 0
    """Pieces of body in all streams."""
    sent: int = 0
    """Bytes sent, heads and framing included, what TLS adds not."""
    streams_ended: dict[Outcome, int] = field(default_factory=lambda: dict.fromkeys(get_args(Outcome), 0))
    refused: dict[Reason, int] = field(default_factory=lambda: dict.fromkeys(get_args(Reason), 0))


class Writer(Protocol):
    """The way to a client, as far as it is looked at: the transport."""

    sent: int
    """Bytes written, through the connection's whole life."""
    writable: bool
    """False while the reader is behind."""


class Counter(Protocol):
    """Who knows how many pieces of a stream's body were written."""

    @property
    def chunks(self) -> int:
        """Heartbeats are none."""


@dataclass(slots=True, eq=False)
class Record:
    """One request's story, from `began` to `ended`. Its cycle fills it in, or of a refused head the connection."""

    request: Request | None
    """None: it never became one, its head was refused. Then nothing need be said before `ended`."""
    began: float
    """By time.monotonic(), as `first`."""
    status: int = 0
    """0 while nothing is answered."""
    streaming: bool = False
    first: float | None = None
    """When the first piece of a stream's body was written."""
    chunks: int = 0
    """Pieces of a stream's body written, heartbeats not; known when it has ended."""
    sent: int = 0
    """Bytes sent for it, head and framing included; known when it has ended."""
    outcome: Outcome = "cut"
    client: tuple[str, int] | None = None
    id: str = "-"
    """Of what never became a request: the one that its refusal carries."""
    line: str = ""
    """The first line of that, as far as it came."""
    reason: str = ""
    """And why it was refused, as its client was told."""
    writer: Writer | None = None
    """Where what is sent can be seen before the end."""
    before: int = 0
    """What the writer had sent for others."""
    counter: Counter | None = None
    """Where the pieces can be seen before the end."""

    @property
    def sent_so_far(self) -> int:
        """Bytes sent for it until now. For use before it has ended."""
        return self.sent if self.writer is None else self.writer.sent - self.before

    @property
    def chunks_so_far(self) -> int:
        """Pieces of a stream's body written until now."""
        return self.chunks if self.counter is None else self.counter.chunks


counts = Counts()
open_streams: set[Record] = set()
_told: dict[Reason, float] = {}  # when that was last told


def connected() -> None:
    """A connection is open."""
    counts.connections += 1
    counts.accepted += 1


def disconnected() -> None:
    """It is closed."""
    counts.connections -= 1


def refused(reason: Reason) -> None:
    """A connection, a stream or a head was refused. What an operator could change is told, now and then."""
    counts.refused[reason] += 1
    now = time.monotonic()
    if reason in _REFUSED and now - _told.get(reason, -_SELDOM) >= _SELDOM:
        _told[reason] = now
        tell(log, logging.WARNING, f"{_REFUSED[reason]} ({counts.refused[reason]} until now)")


def paused(seconds: float) -> None:
    """A producer has waited so long for its reader."""
    counts.write_stall.add(seconds)


def began(record: Record) -> None:
    """A request's head is here."""
    if record.writer is not None:
        record.before = record.writer.sent
    counts.under_way += 1


def streams(record: Record) -> None:
    """It is answered with a stream, whose iterator now begins."""
    record.streaming = True
    open_streams.add(record)


def first_chunk(record: Record) -> None:
    """The stream's first piece of body is written."""
    record.first = time.monotonic()
    counts.first_chunk.add(record.first - record.began)


def ended(record: Record) -> None:
    """Nothing more will be sent for it: count it, and log it."""
    seconds = time.monotonic() - record.began
    method = "other"
    if (request := record.request) is not None:
        counts.under_way -= 1
        if (known := request.head.method) in _METHODS:
            method = known
    if record.writer is not None:
        record.sent = record.writer.sent - record.before
    record.chunks, record.counter = record.chunks_so_far, None
    counts.sent += record.sent
    kind = method, _CLASSES[record.status // 100]
    try:
        counts.requests[kind] += 1
    except KeyError:
        counts.requests[kind] = 1
    if record.streaming:
        open_streams.discard(record)
        counts.chunks += record.chunks
        counts.streams_ended[record.outcome] += 1
        counts.stream_seconds.add(seconds)
    elif request is not None:
        counts.request_seconds.add(seconds)
    if access.isEnabledFor(logging.INFO):
        tell(access, logging.INFO, _line(record, seconds))


def tell(logger: logging.Logger, level: int, line: str) -> None:
    """Log a line. A program's log handler or filter may raise; as with logging's own, only stderr hears of it."""
    try:
        logger.log(level, "%s", line)
    except Exception:
        if logging.raiseExceptions and sys.stderr:
            traceback.print_exc()


# -- the access log ----------------------------------------------------------------------------------------------------

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_UNQUOTABLE = re.compile(r"[^ !#-\[\]-~]")  # all but what is printable ASCII, less the quote and the backslash
_UNSEPARABLE = re.compile(r"[^!#-\[\]-~]")  # also the space


def _common(record: Record, seconds: float) -> str:
    """The common log format, and after it how long it took, how it ended, and the request's id."""
    now = time.localtime()
    # The month is written by hand: %b would follow the locale, which this format does not.
    stamp = f"{now.tm_mday:02}/{_MONTHS[now.tm_mon - 1]}/{now.tm_year}:" + time.strftime("%H:%M:%S %z", now)
    line, name = record.line or "-", record.id
    if (request := record.request) is not None:
        line = f"{request.head.method} {request.head.target} HTTP/{request.head.http_version}"
        name = request.id
    return (
        f'{_UNSEPARABLE.sub(_escape, _host(record))} - - [{stamp}] "{_UNQUOTABLE.sub(_escape, line)}" '
        f"{record.status or '-'} {record.sent} {seconds:.3f}s {record.outcome} {_UNSEPARABLE.sub(_escape, name)}"
    )


def _escape(found: re.Match[str]) -> str:
    character = found[0]
    return {'"': '\\"', " ": "\\x20"}.get(character) or character.encode("unicode_escape").decode("ascii")


def _json(record: Record, seconds: float) -> str:
    """An object on a line of its own, all ASCII: JSON's escapes leave nothing that could end the line."""
    request = record.request
    entry: dict[str, Any] = {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "client": _host(record),
        "method": request and request.head.method,
        "target": request and request.head.target,
        "version": request and request.head.http_version,
        "status": record.status or None,
        "bytes": record.sent,
        "duration": round(seconds, 6),
    }
    if record.streaming:
        entry["first_chunk"] = None if record.first is None else round(record.first - record.began, 6)
        entry["chunks"] = record.chunks
    if request is None:
        entry["line"] = record.line or None
        entry["reason"] = record.reason
    entry["ended"] = record.outcome
    entry["id"] = request.id if request else record.id
    entry["user_agent"] = request and request.headers.get("user-agent")
    entry["referer"] = request and request.headers.get("referer")
    return json.dumps(entry)


def _host(record: Record) -> str:
    return record.client[0] if record.client else "unix"


_LINES = {"common": _common, "json": _json}
_line = _common


def access_log(format: Literal["common", "json"]) -> None:
    """Choose what a line of the access log looks like, for the whole process.

    "common": the common log format, then how long it took, how it ended, and the request's id. "json": an object a
    line. Either is written when a request ends, and its time is that of the end. Raises LocalError for other formats.
    """
    global _line
    if format not in _LINES:
        raise LocalError(f'the access log is written as "common" or "json", not {format!r}')
    _line = _LINES[format]
