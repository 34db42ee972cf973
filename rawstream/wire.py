"""HTTP/1.1 on h11: bytes in, events out, and back. All protocol state lives here, in h11. No I/O, no asyncio.

This is the only module that imports h11. h11 parses every head, writes every head, chooses the framing, writes every
end and knows what may come next; we ask it, and keep no state beside it. Two things are ours:

* What h11 leaves to its user (RFC 9112): empty lines before a request, the forms of a target, the versions we speak,
  what is in Host, and Content-Length beside Transfer-Encoding.
* `frame`. Once the head of a stream is out, the bytes of a piece of its body depend on nothing but that piece, so
  `start` hands out a pure function for it. It gives what h11 would send for `h11.Data`, for a tenth of the price, and
  one encoded frame can go to any number of connections.
"""

from __future__ import annotations

import enum
import functools
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

import h11

from .errors import AnswerError, HeadTooLarge, LocalError, ProtocolError, phrase
from .messages import Headers, RequestHead, ResponseHead

Frame: TypeAlias = Callable[[bytes], bytes]
PreparedHead: TypeAlias = h11.Response
ByteFields: TypeAlias = list[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Data:
    """A piece of a body; whether it begins and ends a chunk of the chunked coding as the sender cut it."""

    data: bytes
    chunk_start: bool = False
    chunk_end: bool = False


@dataclass(frozen=True, slots=True)
class End:
    """The end of a message, and the trailer fields that came after a chunked body."""

    trailers: Headers = field(default_factory=Headers)


class _Signal(enum.Enum):
    NEED_DATA = "feed more bytes first"
    CLOSED = "the peer ended the connection between two messages"


_END: Final = End()
NEED_DATA: Final = _Signal.NEED_DATA
CLOSED: Final = _Signal.CLOSED
BodyEvent: TypeAlias = Data | End | Literal[_Signal.NEED_DATA]


def chunked(payload: bytes) -> bytes:
    """`payload` as one chunk (RFC 9112 section 7.1). An empty one makes no chunk: that would end the body."""
    return b"%x\r\n%b\r\n" % (len(payload), payload) if payload else b""


def until_close(payload: bytes) -> bytes:
    """`payload` as it is: to an HTTP/1.0 client the end of the connection is the end of the body."""
    return payload


_EMPTY_LINES = re.compile(rb"(?:\r\n)*")
_ORIGIN_FORM = re.compile(r"(?P<path>/[^?#]*)(?:\?(?P<query>[^#]*))?")
_ABSOLUTE_FORM = re.compile(r"https?://(?P<host>[^/?#]+)(?P<path>/[^?#]*)?(?:\?(?P<query>[^#]*))?", re.IGNORECASE)
# RFC 3986 section 3.2, without user information: a registered name or IPv4 address, or an IP literal; and a port.
_HOST = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=%-]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]*)?")


class ServerWire:
    """The server's side of one connection.

    max_head: bytes a request's head may have; max_headers: how many fields.
    The caller feeds bytes, takes events with `receive`, answers with `respond`, or with `start` and frames and `end`,
    and then, where `reusable`, calls `next_cycle`. RemoteError tells that the peer is at fault: answer it and close.
    """

    def __init__(self, max_head: int = 16 * 1024, max_headers: int = 100) -> None:
        self._max_head = max_head
        self._max_headers = max_headers
        self._begin()

    def _begin(self) -> None:
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=self._max_head)
        self._lead: bytes | None = b""  # what came of empty lines before a request; None once its first byte is here
        self._bodiless = False  # the request is a HEAD: h11 knows, but tells only by refusing the body's data

    # -- in ----------------------------------------------------------------------------------------------------------

    def feed(self, data: bytes) -> None:
        """Take what the peer sent; b"" says that it will send no more."""
        if self._lead is not None and data:
            # RFC 9112 section 2.2: a server SHOULD ignore at least one empty line before a request.
            data = self._lead + data
            data = data[_EMPTY_LINES.match(data).end() :]  # type: ignore[union-attr]  # it matches "" at least
            if data in (b"", b"\r"):
                self._lead = data
                return
        self._lead = None
        self._h11.receive_data(data)

    def receive(self) -> RequestHead | BodyEvent | Literal[_Signal.CLOSED]:
        """The next event, or NEED_DATA. Raises RemoteError; the connection is then good for one answer only."""
        if self._lead is not None:
            return NEED_DATA
        event = _next_event(self._h11)
        return self._head(event) if type(event) is h11.Request else _body_event(event)

    def _head(self, event: h11.Request) -> RequestHead:
        fields = event.headers.raw_items()
        if len(fields) > self._max_headers:
            raise HeadTooLarge(f"a request has at most {self._max_headers} header fields here, not {len(fields)}")
        # What the head took on the wire: "method target HTTP/1.1", a line for each field, and an empty one.
        size = len(event.method) + len(event.target) + 14 + sum(len(name) + len(value) + 4 for name, value in fields)
        if size > self._max_head:
            raise HeadTooLarge(f"a request's head has at most {self._max_head} bytes here")
        if event.http_version[:2] != b"1.":
            raise ProtocolError(f"this server speaks HTTP/1.1, not HTTP/{event.http_version.decode()}", 505)
        headers = _headers(fields)
        if "transfer-encoding" in headers:
            # RFC 9112 section 6.1: either of these may be an attempt to smuggle a request past a proxy.
            if "content-length" in headers:
                raise ProtocolError("a request has Content-Length or Transfer-Encoding, not both")
            if event.http_version == b"1.0":
                raise ProtocolError("an HTTP/1.0 request cannot have Transfer-Encoding")
        self._bodiless = event.method == b"HEAD"
        method, target = event.method.decode("ascii"), event.target.decode("ascii")
        path, query, headers = _resolve(method, target, headers)
        return RequestHead(method, target, path, query, headers, "1.0" if event.http_version == b"1.0" else "1.1")

    # -- out ---------------------------------------------------------------------------------------------------------

    def go_ahead(self) -> bytes:
        """`100 Continue` if the client waits for it before it sends its body, else b""."""
        if not self._h11.they_are_waiting_for_100_continue:
            return b""
        return self._h11.send(h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue"))

    def prepare(self, status: int, headers: Iterable[tuple[str, str]]) -> PreparedHead:
        """The checked head of a stream, to be given to `start`. Raises AnswerError for fields that cannot be sent."""
        head = _response(status, tuple(headers))
        if any(name in (b"content-length", b"transfer-encoding") for name, _ in head.headers):
            raise AnswerError("a stream chooses its own framing: it takes no Content-Length or Transfer-Encoding")
        return head

    def start(self, head: PreparedHead) -> tuple[bytes, Frame]:
        """The bytes of a stream's head, and the function that makes the bytes of a payload."""
        data = self._h11.send(head)
        return data, chunked if self._h11.their_http_version != b"1.0" else until_close

    def end(self) -> bytes:
        """The bytes that end the body of what `start` began."""
        return self._h11.send(h11.EndOfMessage())

    def respond(self, status: int, headers: Iterable[tuple[str, str]], body: bytes) -> bytes:
        """A whole response; to a HEAD its head alone. Raises AnswerError for fields that cannot be sent."""
        length = () if status in (204, 304) else (("Content-Length", str(len(body))),)
        data = self._h11.send(_response(status, (*headers, *length)))
        if body and not self._bodiless:
            data += self._h11.send(h11.Data(data=body))
        return data + self._h11.send(h11.EndOfMessage())

    # -- where the two sides stand -----------------------------------------------------------------------------------

    @property
    def begun(self) -> bool:
        """The first byte of a request has come."""
        return self._lead is None

    @property
    def request_ended(self) -> bool:
        """The whole request has been received: what comes now belongs to a next one."""
        return self._h11.their_state not in (h11.IDLE, h11.SEND_BODY, h11.ERROR)

    @property
    def answerable(self) -> bool:
        """No head of an answer has left yet, so that one still can."""
        return self._h11.our_state in (h11.IDLE, h11.SEND_RESPONSE)

    @property
    def reusable(self) -> bool:
        """Request and response are complete, and neither side asked for the connection to close."""
        return self._h11.our_state is h11.DONE and self._h11.their_state is h11.DONE

    def next_cycle(self) -> None:
        """Go on to the next request, whose first bytes may be here already."""
        assert self.reusable, "only the caller's mistake could ask for it earlier"
        held, closed = self._h11.trailing_data
        # A new h11 connection (3 µs) rather than start_next_cycle(): so empty lines before the held bytes are skipped
        # where all others are.
        self._begin()
        if held:
            self.feed(held)
        if closed:
            self.feed(b"")


class ClientWire:
    """The client's side of one connection: one request, and its response."""

    def __init__(self, max_head: int = 64 * 1024) -> None:
        self._h11 = h11.Connection(h11.CLIENT, max_incomplete_event_size=max_head)

    def request(self, method: str, target: str, headers: Iterable[tuple[str, str]], body: bytes = b"") -> bytes:
        """The bytes of a whole request. `headers` must have Host (RFC 9112 section 3.2).

        Raises LocalError for what cannot be sent.
        """
        fields = [*headers]
        if body or method in ("POST", "PUT", "PATCH"):
            fields.append(("Content-Length", str(len(body))))
        try:
            head = h11.Request(method=method, target=target, headers=_encoded(fields))
            data = self._h11.send(head)
            if body:
                data += self._h11.send(h11.Data(data=body))
            return data + self._h11.send(h11.EndOfMessage())
        except (h11.LocalProtocolError, ValueError, TypeError, AttributeError) as exc:
            raise LocalError(f"this request cannot be sent: {exc}") from exc

    def feed(self, data: bytes) -> None:
        """Take what the server sent; b"" says that it will send no more."""
        self._h11.receive_data(data)

    def receive(self) -> ResponseHead | BodyEvent | Literal[_Signal.CLOSED]:
        """The next event, or NEED_DATA; informational responses are skipped. Raises RemoteError."""
        event = _next_event(self._h11)
        while type(event) is h11.InformationalResponse:
            event = _next_event(self._h11)
        if type(event) is h11.Response:
            version, reason = event.http_version.decode("ascii"), event.reason.decode("latin-1")
            return ResponseHead(event.status_code, reason, _headers(event.headers.raw_items()), version)
        return _body_event(event)


def _next_event(connection: h11.Connection) -> object:
    try:
        return connection.next_event()
    except h11.RemoteProtocolError as exc:
        if exc.error_status_hint == 431:
            raise HeadTooLarge("the head is larger than is allowed here") from exc
        if "closed connection" in str(exc) or "ConnectionClosed" in str(exc):  # h11 tells it by no other sign
            raise ProtocolError("the connection ended before the message did") from exc
        raise ProtocolError(str(exc), exc.error_status_hint) from exc


def _body_event(event: object) -> BodyEvent | Literal[_Signal.CLOSED]:
    # By type(), since h11's events are of an abstract class, for which isinstance() takes ten times as long.
    kind = type(event)
    if kind is h11.Data:
        assert isinstance(event, h11.Data)
        return Data(bytes(event.data), event.chunk_start, event.chunk_end)
    if kind is h11.EndOfMessage:
        assert isinstance(event, h11.EndOfMessage)
        return End(_headers(event.headers.raw_items())) if event.headers else _END
    return CLOSED if kind is h11.ConnectionClosed else NEED_DATA


def _response(status: int, headers: tuple[tuple[str, str], ...]) -> h11.Response:
    try:
        return _checked_response(status, headers)
    except (h11.LocalProtocolError, ValueError, TypeError, AttributeError) as exc:
        raise AnswerError(f"a response's headers are pairs of str that HTTP allows: {exc}") from exc


@functools.lru_cache(maxsize=128)  # most answers of a second have the same fields, and h11 checks each with care: 15 µs
def _checked_response(status: int, headers: tuple[tuple[str, str], ...]) -> h11.Response:
    return h11.Response(status_code=status, headers=_encoded(headers), reason=phrase(status).encode("ascii"))


def _encoded(headers: Iterable[tuple[str, str]]) -> ByteFields:
    # RFC 9110 section 5.5: field values are bytes, of which only ASCII is sure to be read alike everywhere.
    return [(name.encode("ascii"), value.encode("latin-1")) for name, value in headers]


def _headers(fields: Iterable[tuple[bytes, bytes]]) -> Headers:
    return Headers([(name.decode("ascii"), value.decode("latin-1")) for name, value in fields])


def _resolve(method: str, target: str, headers: Headers) -> tuple[str, str, Headers]:
    """Path, query and headers for a target in any of its forms (RFC 9112 section 3.2). Raises ProtocolError."""
    host = headers.get("host", "")
    if not _HOST.fullmatch(host):
        raise ProtocolError(f"Host is a name and perhaps a port, not {host!r}")
    if method == "CONNECT":
        raise ProtocolError("this server is not a proxy: it has no CONNECT", 501)
    if match := _ORIGIN_FORM.fullmatch(target):
        return match["path"], match["query"] or "", headers
    if target == "*" and method == "OPTIONS":
        return "*", "", headers
    if (match := _ABSOLUTE_FORM.fullmatch(target)) and _HOST.fullmatch(match["host"]):
        # Section 3.2.2: the target's host replaces the field, whatever that said.
        others = [(name, value) for name, value in headers.pairs if name.lower() != "host"]
        return match["path"] or "/", match["query"] or "", Headers([("host", match["host"]), *others])
    raise ProtocolError(f"a request's target is a path that begins with /, not {target!r}")
