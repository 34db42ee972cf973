"""What arrived, and when: the record of one answer, made from its bytes as they were read. No I/O and no clock.

All times are seconds since the request was sent. Sizes are bytes of the body after its content coding was undone: what
an application sees. `Mark`s are the stamps that rawstream's own handler (`rawstream.probe.handler`) puts in each chunk.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from rawstream.errors import ContentError
from rawstream.fields import Headers
from rawstream.inflate import Unpack, unpack

Ending = Literal["complete", "cut", "stopped", "failed"]
"""complete: to its proper end. cut: broken off. stopped: by us, who had seen enough. failed: there was no answer."""


@dataclass(frozen=True, slots=True)
class Piece:
    """What one read of the socket brought: decoded bytes, the same as on the wire, messages and heartbeats that ended.

    `whole` says that the last byte ends a message: whoever flushed here knew where one ends, or was lucky.
    """

    at: float
    size: int
    raw: int
    messages: int = 0
    heartbeats: int = 0
    whole: bool = True
    wire: int = 0
    """Bytes on the wire, with the framing of HTTP; 0 if that is not known."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A stamped chunk: the `number`th of `of`, sent `sent` seconds after the handler got the request."""

    number: int
    of: int
    sent: float
    arrived: float
    end: int
    """Bytes of the body up to and with this chunk."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """A chunk of the chunked transfer coding (RFC 9112 section 7.1), at the time when it was complete."""

    at: float
    size: int


@dataclass(frozen=True, slots=True)
class Recording:
    """One answer. `head_at` is None where none came; `error` says what went wrong where the ending is not proper."""

    status: int = 0
    headers: Headers = field(default_factory=Headers)
    http_version: str = "1.1"
    connected: float = 0.0
    """What connecting took: a round trip, more under TLS."""
    head_at: float | None = None
    pieces: tuple[Piece, ...] = ()
    marks: tuple[Mark, ...] = ()
    chunks: tuple[Chunk, ...] = ()
    ended_at: float = 0.0
    ending: Ending = "complete"
    error: str = ""
    coding: str = ""
    coding_head: bytes = b""
    """The first ten bytes of a gzip stream, which tell who made it (RFC 1952 section 2.3)."""
    undecoded: bool = False
    """The body has a coding that is not undone here (br, zstd): marks and messages in it cannot be seen."""
    ids: tuple[str, ...] = ()
    """The first and the last event id, where there are any."""
    got: Mapping[str, Any] = field(default_factory=dict)
    """What the handler says that arrived there of the request: version, method, fields; empty if it is not ours."""
    sent: Mapping[str, str] = field(default_factory=dict)
    """The fields that the handler says it set."""
    asked_version: str = "1.1"
    redirect: str = ""
    """Where Location leads, in full; empty if there is none."""
    timed_out: bool = False
    """There was no answer in the time that we gave it."""

    @property
    def content_type(self) -> str:
        """The media type alone, in lower case."""
        return str(self.headers.get("content-type", "")).partition(";")[0].strip().lower()

    @property
    def size(self) -> int:
        """Bytes of the body, decoded."""
        return sum(piece.size for piece in self.pieces)

    @property
    def messages(self) -> int:
        """How many events or lines came."""
        return sum(piece.messages for piece in self.pieces)

    @property
    def heartbeats(self) -> int:
        """How many events came that were comments alone."""
        return sum(piece.heartbeats for piece in self.pieces)

    @property
    def first_byte(self) -> float | None:
        """When the first byte of the body came that says something."""
        return next((piece.at for piece in self.pieces if piece.size), None)

    @property
    def silence(self) -> float:
        """How long nothing had come when it ended."""
        last = self.pieces[-1].at if self.pieces else self.head_at
        return self.ended_at - (last or 0.0)


PAUSE = 0.02  # seconds
EVENTS = "text/event-stream"
PROSE = {"text/plain", "application/octet-stream", "text/markdown"}
"""Types of streams in which a message need not end where a line ends."""


class Recorder:
    """Makes a Recording: `body` for what each read brought, `chunk` for each complete chunk, `end` at the end."""

    def __init__(self, status: int, headers: Headers, http_version: str, connected: float, head_at: float) -> None:
        self._head = (status, headers, http_version, connected, head_at)
        kind = str(headers.get("content-type", "")).partition(";")[0].strip().lower()
        self.coding = str(headers.get("content-encoding", "")).strip().lower().replace("identity", "")
        self._unpack = _unpack(self.coding)
        self._lines: _Lines = _Events() if kind == EVENTS else _Lines()
        self._marks = _Marks()
        self._pieces: list[Piece] = []
        self._chunks: list[Chunk] = []
        self._start = b""
        self.pauses = 0
        """How often nothing came for longer than PAUSE."""

    @property
    def marks(self) -> list[Mark]:
        """The stamps found so far."""
        return self._marks.found

    @property
    def pieces(self) -> list[Piece]:
        """What has come so far."""
        return self._pieces

    @property
    def ids(self) -> list[str]:
        """The first and the last event id so far."""
        return self._lines.ids

    def body(self, at: float, data: bytes, received: int = 0) -> None:
        """What a read brought of the body, and how much that was with the framing. Raises ContentError."""
        self._start += data[: 10 - len(self._start)]
        size = len(data) if self._unpack is None else 0
        messages = heartbeats = 0
        for text in self._unpack.feed(data) if self._unpack is not None else ():
            ended, comments = self._lines.feed(text)
            size, messages, heartbeats = size + len(text), messages + ended, heartbeats + comments
            self._marks.feed(at, text)
        if self._pieces and at - self._pieces[-1].at > PAUSE:
            self.pauses += 1
        self._pieces.append(Piece(at, size, len(data), messages, heartbeats, self._lines.whole, received))

    def chunk(self, at: float, size: int) -> None:
        """A chunk of the transfer coding is complete."""
        self._chunks.append(Chunk(at, size))

    def end(self, at: float, ending: Ending, error: str = "") -> Recording:
        """The record, which ended `at`."""
        status, headers, version, connected, head_at = self._head
        if ending == "complete" and _is_short(self._marks.found):
            ending, error = "cut", error or "the end came before the last chunk"  # where only the close marks an end
        ids = tuple(self._lines.ids)
        return Recording(
            status, headers, version, connected, head_at, tuple(self._pieces), tuple(self._marks.found),
            tuple(self._chunks), at, ending, error, self.coding, self._start if self.coding else b"",
            self._unpack is None, ids, self._marks.got, self._marks.set,
        )  # fmt: skip


def _is_short(marks: list[Mark]) -> bool:
    return bool(marks) and marks[-1].number < marks[-1].of


def _unpack(coding: str) -> Unpack | None:
    """What undoes this coding; None where we do not know it, and count the bytes as they come."""
    try:
        return unpack(coding)
    except ContentError:
        return None


_KEPT = 4096  # bytes of a line that has not ended: what field it is, and an id


class _Lines:
    """Counts lines that are not empty, and knows whether one is under way."""

    def __init__(self) -> None:
        self._carry = b""
        self._cr = False
        self.ids: list[str] = []

    @property
    def whole(self) -> bool:
        return not self._carry

    def feed(self, data: bytes) -> tuple[int, int]:
        """How many messages and how many heartbeats end here."""
        if self._cr and data.startswith(b"\n"):
            data = data[1:]
        if not data:
            return 0, 0
        self._cr = data.endswith(b"\r")
        *lines, last = re.split(rb"\r\n|\n|\r", data)
        if lines:
            lines[0] = self._carry + lines[0]
            self._carry = b""
        self._carry = (self._carry + last)[:_KEPT]
        return self._count(lines)

    def _count(self, lines: list[bytes]) -> tuple[int, int]:
        return sum(1 for line in lines if line), 0


class _Events(_Lines):
    """The same for server-sent events, which an empty line ends; one with nothing but a comment is a heartbeat."""

    def __init__(self) -> None:
        super().__init__()
        self._block: set[bytes] = set()

    @property
    def whole(self) -> bool:
        return not self._carry and not self._block

    def _count(self, lines: list[bytes]) -> tuple[int, int]:
        messages = heartbeats = 0
        for line in lines:
            name, _, value = line.partition(b":")
            if line:
                self._block.add(name)
                if name == b"id":
                    self.ids[1:] = [value.removeprefix(b" ").decode("utf-8", "replace")]
                continue
            if b"data" in self._block:
                messages += 1
            elif self._block == {b""}:
                heartbeats += 1
            self._block.clear()
        return messages, heartbeats


MARK = b'{"rawstream-probe":'
"""How the JSON of a stamped chunk begins; it ends with its line."""

_LONGEST = 256 * 1024  # bytes of a chunk of the handler's, at the most


class _Marks:
    """Finds the stamps in a body, however it is cut."""

    def __init__(self) -> None:
        self.found: list[Mark] = []
        self.got: Mapping[str, Any] = {}
        self.set: Mapping[str, str] = {}
        self._carry = b""
        self._passed = 0

    def feed(self, at: float, data: bytes) -> None:
        if not self.found and self._passed > _LONGEST:
            return  # somebody else's stream
        self._carry += data
        *lines, self._carry = self._carry.split(b"\n")
        for line in lines:
            self._passed += len(line) + 1
            if (start := line.find(MARK)) >= 0:
                self._take(at, line[start:])
        if len(self._carry) > _LONGEST:
            self._passed += len(self._carry)
            self._carry = b""

    def _take(self, at: float, text: bytes) -> None:
        try:
            value = json.loads(text)
        except ValueError:
            return
        match value:
            case {"rawstream-probe": int(number), "of": int(of), "after": int() | float() as sent}:
                self.found.append(Mark(number, of, float(sent), at, self._passed))
                self.got, self.set = self.got or value.get("got", {}), self.set or value.get("set", {})


def changed(own: Mapping[str, str], headers: Headers) -> tuple[list[str], list[str]]:
    """The names of the fields that were added and those that were removed or changed, given what the handler sent.

    A list that has grown, as Vary does on its way, is the same field.
    """
    came: dict[str, set[str]] = {}
    for name, value in headers.pairs:
        came.setdefault(name.lower(), set()).update(_members(value))
    wanted = {name.lower() for name in own}
    added = [name for name, _ in headers.pairs if name.lower() not in wanted]
    return added, [name for name, value in own.items() if not _members(value) <= came.get(name.lower(), set())]


def _members(value: str) -> set[str]:
    return {member.strip() for member in value.split(",")}
