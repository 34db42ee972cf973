"""What RFC 9112 asks of a request and h11 lets pass, or leaves to its user. No I/O, and h11 stays the one who parses.

This module only refuses. Leniency does no harm to a server that stands alone. Behind a proxy that reads the same bytes
in another way, it lets one request travel inside another ("request smuggling"). So whatever two readers could take for
different things is refused, even where the RFC would allow to mend it:

* in heads: lines that end with a bare LF, fields folded over several lines, control characters, a Content-Length that
  is repeated or a list, transfer codings around or beside `chunked`;
* in chunked bodies: sizes with white space around them, bare CR, LF and controls in extensions, and trailers that would
  frame or route a message. Extensions and trailers count against one allowance, so that nobody is led through gigabytes
  of them for a few bytes of a body.

And h11 is given a head, and nothing behind it until that is taken: what follows a refused one is never looked at.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from .errors import HeadTooLarge, ProtocolError, RemoteError
from .fields import Headers

_ORDINARY = bytes({*b"\t\r\n", *range(0x20, 0x7F), *range(0x80, 0x100)})  # all that a head is made of
_EMPTY_LINES = re.compile(rb"(?:\r\n)*")
_LENGTH = re.compile(rb"\ncontent-length:[ \t]*[0-9]+[ \t]*\r\n", re.IGNORECASE)
_CODINGS = re.compile(rb"\ntransfer-encoding:([^\r\n]*)", re.IGNORECASE)
_ABSOLUTE_FORM = re.compile(r"https?://(?P<host>[^/?#]+)(?P<path>/[^?#]*)?(?:\?(?P<query>[^#]*))?", re.IGNORECASE)
# RFC 3986 section 3.2, without user information: a registered name or IPv4 address, or an IP literal; and a port. Or
# nothing at all. (`++` does not give back what it has matched: a long wrong name takes no longer than a right one.)
_HOST = re.compile(r"(?:(?:[A-Za-z0-9._~!$&'()*+,;=-]++|%[0-9A-Fa-f]{2})++|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?|")
# 16 digits are 2**64 bytes, more than anybody sends. h11 would take white space behind them, and bare CRs.
_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,16})(;[\t\x20-\x7e\x80-\xff]*)?\r\n")
_LONGEST_SIZE = 18  # bytes of such a line without an extension
_NOT_IN_TRAILERS = (b"content-length", b"transfer-encoding", b"host")
_TOO_MUCH = "a chunked body has fewer bytes of extensions and trailers here"

# What h11 says, by how it begins, and what the peer is told: h11 quotes the bytes, as Python writes them.
_TOLD = {
    "continuation line": "a header field stands on one line",
    "illegal header line": "a header field is a name, a colon and a value",
    "conflicting Content-Length": "Content-Length is one whole number",
    "bad Content-Length": "Content-Length is one whole number",
    "illegal chunk header": "a chunk begins with its size in hexadecimal digits, and a line's end",
    "malformed chunk footer": "a chunk is as long as its size says",
}
_REQUEST_LINE = "a request begins with a line of method, target and version, with one space between"
_TOLD_OF_REQUESTS = _TOLD | {
    "illegal request line": _REQUEST_LINE,
    "no request line": _REQUEST_LINE,
    "Missing mandatory Host": "a request has a Host field",
    "Found multiple Host": "a request has one Host field",
}
_STATUS_LINE = "a response begins with a line of version and status"
_TOLD_OF_RESPONSES = _TOLD | {
    "illegal request line": _STATUS_LINE,  # h11 says it of a response that begins with a control character, too
    "illegal status line": _STATUS_LINE,
    "no response line": _STATUS_LINE,
    "InformationalResponse status_code": "a response has a status from 100 on",
    "Received server _SWITCH": "a response changes the protocol (101) only if that was asked for",
    "Only Transfer-Encoding": "a response has no transfer coding but chunked",
    "multiple Transfer-Encoding": "a response has no transfer coding but chunked, and that once",
}


def in_plain_words(said: str, of_response: bool) -> str:
    """What the peer is told where h11 said this of a response, or a request."""
    table = _TOLD_OF_RESPONSES if of_response else _TOLD_OF_REQUESTS
    return next((told for begin, told in table.items() if said.startswith(begin)), "this is not HTTP/1.1")


def check_head(head: bytes | bytearray, headers: Headers, version: str) -> None:
    """Refuse a request's head, in which h11 has found these fields. Raises ProtocolError."""
    lines = head.count(b"\r\n")
    if head.count(b"\n") != lines:
        # RFC 9112 section 2.2 would allow to take a bare LF for a line's end; not all who stand before us do.
        raise ProtocolError("each line of a request's head ends with CR LF")
    if lines != len(headers.pairs) + 2:  # a line each, the request line and the empty one
        if b"\n " in head or b"\n\t" in head:
            raise ProtocolError("a header field stands on one line")
        raise ProtocolError("a request has Content-Length once")  # h11 makes one of those that are equal
    if head.translate(None, _ORDINARY):
        raise ProtocolError("a header field has no control characters")
    if version != "1.0" and "host" not in headers:
        raise ProtocolError("a request has a Host field")  # h11 asks it of 1.1 only, not of 1.2
    if "content-length" in headers and not _LENGTH.search(head):
        raise ProtocolError("Content-Length is one whole number")  # of a list, h11 makes one number
    if "transfer-encoding" in headers:
        # RFC 9112 section 6.1: either of these may be an attempt to smuggle a request past a proxy.
        if "content-length" in headers:
            raise ProtocolError("a request has Content-Length or Transfer-Encoding, not both")
        if version == "1.0":
            raise ProtocolError("an HTTP/1.0 request cannot have Transfer-Encoding")


def bad_codings(head: bytes | bytearray) -> ProtocolError:
    """Why the transfer codings of this head are refused (RFC 9112 section 6.3 and 6.1)."""
    codings = [coding.strip().lower() for coding in b",".join(_CODINGS.findall(head)).split(b",")]
    if codings[-1] != b"chunked" or codings.count(b"chunked") > 1:
        return ProtocolError("the transfer codings of a request end with chunked, which is there once")
    return ProtocolError("this server knows no transfer coding but chunked", 501)


def resolve(method: str, target: str, headers: Headers) -> tuple[str, str, Headers]:
    """Path, query and headers for a target in any of its forms (RFC 9112 section 3.2). Raises ProtocolError."""
    if not _HOST.fullmatch(headers.get("host", "")):
        raise ProtocolError("Host is a name and perhaps a port")
    if method == "CONNECT":
        raise ProtocolError("this server is not a proxy: it has no CONNECT", 501)
    if target.startswith("/") and "#" not in target:
        path, _, query = target.partition("?")
        return path, query, headers
    if target == "*" and method == "OPTIONS":
        return "*", "", headers
    if (match := _ABSOLUTE_FORM.fullmatch(target)) and _HOST.fullmatch(match["host"]):
        # Section 3.2.2: the target's host replaces the field, whatever that said.
        others = [(name, value) for name, value in headers.pairs if name.lower() != "host"]
        return match["path"] or "/", match["query"] or "", Headers([("host", match["host"]), *others])
    raise ProtocolError("a request's target is a path that begins with /")


class Intake:
    """What of the bytes received h11 may see, and when: one head, and its body only when `take` says so.

    max_head: bytes that a head may have, and likewise a chunked body's extensions and trailers; max_headers: how many
    trailers.
    """

    __slots__ = ("_behind", "_chunks", "_lead", "_max_head", "_max_headers", "head", "taken")

    def __init__(self, max_head: int, max_headers: int) -> None:
        self._max_head = max_head
        self._max_headers = max_headers
        self._lead: bytes | None = b""  # what came of empty lines before a request; None once its first byte is here
        self.head = bytearray()
        """What came of the head, as far as h11 cares to know: a byte more than is allowed."""
        self._behind: list[bytes] | None = None  # what came behind the head's end
        self.taken = False
        """The head was in order."""
        self._chunks: ChunkedBody | None = None

    @property
    def begun(self) -> bool:
        """The first byte of a request has come."""
        return self._lead is None

    @property
    def fresh(self) -> bool:
        """Nothing has come yet, but for whole empty lines."""
        return self._lead == b""

    @property
    def fault(self) -> RemoteError | None:
        """What is wrong with the body where `admit` stopped."""
        return None if self._chunks is None else self._chunks.fault

    def admit(self, data: bytes) -> bytes | None:
        """What h11 may see of `data` now, None for nothing. b"" is the end of the connection, here as there."""
        if self.taken:
            return data if self._chunks is None else self._chunks.admit(data)
        if self._lead is not None and data and (self._lead or data[:1] == b"\r"):
            # RFC 9112 section 2.2: a server SHOULD ignore at least one empty line before a request.
            data = self._lead + data
            data = data[_EMPTY_LINES.match(data).end() :]  # type: ignore[union-attr]  # it matches "" at least
            if data in (b"", b"\r"):
                self._lead = data
                return None
        self._lead = None
        if self._behind is not None:
            self._behind.append(data)
            return None
        return self._admit_head(data) if data else b""

    def _admit_head(self, data: bytes) -> bytes | None:
        head, seen = self.head, len(self.head)
        head += data
        end = head.find(b"\r\n\r\n", max(0, seen - 3)) + 4
        if end >= 4:
            self._behind = [bytes(head[end:])] if len(head) > end else []
            del head[end:]
        # With one byte too many h11 refuses a head in the same way whether it came whole or in pieces.
        del head[self._max_head + 1 :]
        return data if len(head) == seen + len(data) else bytes(head[seen:]) or None

    def take(self, chunked: bool) -> list[bytes]:
        """Call this when the head is in order: what h11 may see of what came behind it."""
        self.taken = True
        self.head.clear()  # a stream may stay for long
        if chunked:
            self._chunks = ChunkedBody(self._max_head, self._max_headers)
        behind, self._behind = self._behind or [], None
        return [admitted for data in behind if (admitted := self.admit(data)) is not None]


class ChunkedBody:
    """Looks at the lines of a chunked body before h11 does (RFC 9112 section 7.1).

    allowance: bytes that its extensions and trailers may have together. fields: how many trailers.
    """

    __slots__ = ("_allowance", "_fields", "_left", "_line", "_next", "fault")

    def __init__(self, allowance: int, fields: int) -> None:
        self._allowance = allowance
        self._fields = fields
        self._left = 0  # bytes of the chunk that are to come
        self._line = b""  # what came of a line
        self._next: Callable[[bytes], None] | None = self._size  # what the next line is; None after the last
        self.fault: RemoteError | None = None
        """What is wrong with the first line that was refused."""

    def admit(self, data: bytes) -> bytes | None:
        """What h11 may see of `data`: all of it, or what comes before a faulty line; None for nothing."""
        if self.fault is not None:
            return None
        place = 0
        while place < len(data) and self._next is not None:
            if self._left:
                step = min(self._left, len(data) - place)
                self._left -= step
                place += step
                continue
            end = data.find(b"\n", place) + 1
            line = self._line + data[place : end or None]
            try:
                if self._next == self._end_of_chunk and not b"\r\n".startswith(line):
                    raise ProtocolError("a chunk is as long as its size says")  # at the first byte that is too many
                free = 2 if self._next == self._trailer else _LONGEST_SIZE  # bytes of a line that costs nothing
                if len(line) > max(self._allowance, free):
                    raise HeadTooLarge(_TOO_MUCH)
                if not end:
                    self._line = line
                    break
                self._line = b""
                self._next(line)
            except RemoteError as error:
                self.fault = error
                return data[:place] or None
            place = end
        return data

    def _size(self, line: bytes) -> None:
        match = _SIZE_LINE.fullmatch(line)
        if match is None:
            raise ProtocolError("a chunk begins with its size in hexadecimal digits, and a line's end")
        self._spend(len(match[2] or b""))
        self._left = int(match[1], 16)
        if self._left:
            self._next = self._end_of_chunk
        else:
            self._spend(2)  # the empty line after the trailers
            self._next = self._trailer

    def _end_of_chunk(self, line: bytes) -> None:
        assert line == b"\r\n", "admit has looked at each byte of it"
        self._next = self._size

    def _trailer(self, line: bytes) -> None:
        if line == b"\r\n":
            self._next = None
            return
        self._spend(len(line))
        self._fields -= 1
        if self._fields < 0:
            raise HeadTooLarge("a request has fewer trailer fields here")
        if not line.endswith(b"\r\n") or line[:1] in b" \t" or line.translate(None, _ORDINARY):
            raise ProtocolError("a trailer field stands on one line, which ends with CR LF")
        if line.partition(b":")[0].lower() in _NOT_IN_TRAILERS:
            raise ProtocolError("a trailer field does not say where a request goes or ends")  # RFC 9110 section 6.5.1

    def _spend(self, size: int) -> None:
        self._allowance -= size
        if self._allowance < 0:
            raise HeadTooLarge(_TOO_MUCH)
