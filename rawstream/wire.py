"""HTTP/1.1 on h11: bytes in, events out, and back. All protocol state lives here, in h11. No I/O, no asyncio.

This is the only module that imports h11. h11 parses and writes every head, chooses the framing, writes every end and
knows what may come next; beside it we keep `_refused` and `_bodiless` alone, which it does not tell. Two things are
ours: what h11 leaves to its user, most of it in `strict`; and `start`, which hands out a pure function for the pieces
of a stream's body, at a tenth of `h11.Data`.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from typing import Final, TypeAlias

import h11

from .errors import AnswerError, HeadTooLarge, LocalError, ProtocolError, RemoteError, TargetTooLong, phrase
from .fields import decoded, encoded
from .framing import CLOSED, NEED_DATA, BodyEvent, Closed, Data, End, Frame, chunked, until_close
from .messages import RequestHead, ResponseHead
from .strict import Intake, bad_codings, check_head, in_plain_words, resolve

PreparedHead: TypeAlias = h11.Response

_END: Final = End()  # without trailers, as is this:
_END_OF_MESSAGE: Final = h11.EndOfMessage()
_LONGEST_METHOD = 32  # bytes; of those that are registered with IANA none has more than 17
_ACCEPT = re.compile(rb"\r\naccept:([^\r\n]{0,1000})", re.IGNORECASE)


class ServerWire:
    """The server's side of one connection.

    max_head: bytes a request's head may have, and likewise a chunked body's extensions and trailers; max_headers: how
    many fields; max_target: bytes of the target.
    The caller feeds bytes, takes events with `receive`, answers with `respond`, or with `start` and frames and `end`,
    and then, where `reusable`, calls `next_cycle`. RemoteError tells that the peer is at fault: answer it and close.
    """

    __slots__ = ("__weakref__", "_bodiless", "_h11", "_intake", "_max_head", "_max_headers", "_max_target", "_refused")

    def __init__(self, max_head: int = 16 * 1024, max_headers: int = 100, max_target: int = 8 * 1024) -> None:
        self._max_head = max_head
        self._max_headers = max_headers
        self._max_target = max_target
        self._begin()

    def _begin(self) -> None:
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=self._max_head)
        self._intake = Intake(self._max_head, self._max_headers)
        self._refused = False  # RemoteError was raised: of those that are not its own h11 does not know
        self._bodiless = False  # the request is a HEAD: h11 knows, but tells only by refusing the body's data

    # -- in ----------------------------------------------------------------------------------------------------------

    def feed(self, data: bytes) -> None:
        """Take what the peer sent; b"" says that it will send no more."""
        if (admitted := self._intake.admit(data)) is not None:
            self._h11.receive_data(admitted)

    def receive(self) -> RequestHead | BodyEvent | Closed:
        """The next event, or NEED_DATA. Raises RemoteError; the connection is then good for one answer only."""
        if not self._intake.begun:
            return NEED_DATA
        if self._refused:
            raise ProtocolError("nothing is read after an error")
        try:
            event = _next_event(self._h11)
            if type(event) is h11.Request:
                return self._head(event)
            if event is h11.NEED_DATA and (fault := self._intake.fault) is not None:
                raise fault
        except RemoteError as error:
            self._refused = True
            raise self._more_exactly(error) from error.__cause__
        return _body_event(event)

    def _head(self, event: h11.Request) -> RequestHead:
        if event.http_version[:2] != b"1.":
            raise ProtocolError(f"this server speaks HTTP/1.1, not HTTP/{event.http_version.decode()}", 505)
        version = "1.0" if event.http_version == b"1.0" else "1.1"
        headers = decoded(event.headers.raw_items())
        check_head(self._intake.head, headers, version)
        if len(self._intake.head) > self._max_head:
            raise self._head_too_large()
        if (count := len(headers.pairs)) > self._max_headers:
            raise HeadTooLarge(f"a request has at most {self._max_headers} header fields here, not {count}")
        if len(event.target) > self._max_target:
            raise self._target_too_long()
        if len(event.method) > _LONGEST_METHOD:
            raise ProtocolError("this server knows no method with so long a name", 501)
        self._bodiless = event.method == b"HEAD"
        method, target = event.method.decode("ascii"), event.target.decode("ascii")
        path, query, headers = resolve(method, target, headers)
        for behind in self._intake.take("transfer-encoding" in headers):
            self._h11.receive_data(behind)
        return RequestHead(method, target, path, query, headers, version)

    def _more_exactly(self, error: RemoteError) -> RemoteError:
        """What is wrong with a head that h11 refused, from its bytes."""
        if self._intake.taken or not isinstance(error.__cause__, h11.RemoteProtocolError):
            return error
        head = self._intake.head
        if isinstance(error, HeadTooLarge):
            words = head.partition(b"\r\n")[0].split(b" ")
            if len(words) > 1 and len(words[1]) > self._max_target:
                return self._target_too_long()
            return self._head_too_large()
        return bad_codings(head) if error.status == 501 else error

    def _head_too_large(self) -> HeadTooLarge:
        return HeadTooLarge(f"a request's head has at most {self._max_head} bytes here")

    def _target_too_long(self) -> TargetTooLong:
        return TargetTooLong(f"a request's target has at most {self._max_target} bytes here")

    # -- out ---------------------------------------------------------------------------------------------------------

    def go_ahead(self) -> bytes:
        """`100 Continue` if the client waits for it before it sends its body, else b""."""
        if not self._h11.they_are_waiting_for_100_continue:
            return b""
        return self._h11.send(h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue"))

    def prepare(self, status: int, headers: Iterable[tuple[str, str]]) -> PreparedHead:
        """The checked head of a stream, to be given to `start`. Raises AnswerError for fields that cannot be sent."""
        head = _response(status, tuple(headers))
        if any(name == b"content-length" for name, _ in head.headers):
            raise AnswerError("a stream chooses its own framing: it takes no Content-Length")
        return head

    def start(self, head: PreparedHead) -> tuple[bytes, Frame]:
        """The bytes of a stream's head, and the function that makes the bytes of a payload."""
        data = self._h11.send(head)
        return data, chunked if self._h11.their_http_version != b"1.0" else until_close

    def end(self) -> bytes:
        """The bytes that end the body of what `start` began."""
        return self._h11.send(_END_OF_MESSAGE)

    def respond(self, status: int, headers: Iterable[tuple[str, str]], body: bytes) -> bytes:
        """A whole response; to a HEAD its head alone. Raises AnswerError for fields that cannot be sent."""
        return b"".join(self.respond_apart(status, headers, body))

    def respond_apart(self, status: int, headers: Iterable[tuple[str, str]], body: bytes) -> tuple[bytes, bytes]:
        """The same as its head and its body, which is not copied: many may be sent a large one at the same time."""
        length = () if status in (204, 304) else (("Content-Length", str(len(body))),)
        head = self._h11.send(_response(status, (*headers, *length)))
        data = self._h11.send(h11.Data(data=body)) if body and not self._bodiless else b""
        return head, data + self._h11.send(_END_OF_MESSAGE)

    # -- where the two sides stand -----------------------------------------------------------------------------------

    @property
    def begun(self) -> bool:
        """The first byte of a request has come."""
        return self._intake.begun

    @property
    def accept(self) -> str | None:
        """What Accept says in a head that is refused, as far as it has come: how the refusal is to be told."""
        match = _ACCEPT.search(self._intake.head)
        return match[1].decode("latin-1") if match else None

    @property
    def line(self) -> str:
        """The first line of a head that is refused, as far as it has come: for the log, which escapes it."""
        return self._intake.head[:200].partition(b"\r\n")[0].decode("latin-1")

    @property
    def request_ended(self) -> bool:
        """The whole request has been received: what comes now belongs to a next one."""
        return not self._refused and self._h11.their_state not in (h11.IDLE, h11.SEND_BODY, h11.ERROR)

    @property
    def answerable(self) -> bool:
        """No head of an answer has left yet, so that one still can."""
        return self._h11.our_state in (h11.IDLE, h11.SEND_RESPONSE)

    @property
    def reusable(self) -> bool:
        """Request and response are complete, and neither side asked for the connection to close."""
        return not self._refused and self._h11.our_state is h11.DONE and self._h11.their_state is h11.DONE

    def next_cycle(self) -> None:
        """Go on to the next request, whose first bytes may be here already."""
        assert self.reusable, "only the caller's mistake could ask for it earlier"
        held, closed = self._h11.trailing_data
        # A new h11 connection (3 µs), not start_next_cycle(): empty lines before the held bytes are skipped as others.
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
            head = h11.Request(method=method, target=target, headers=encoded(fields))
            data = self._h11.send(head)
            if body:
                data += self._h11.send(h11.Data(data=body))
            return data + self._h11.send(_END_OF_MESSAGE)
        except (h11.LocalProtocolError, ValueError, TypeError, AttributeError) as exc:
            raise LocalError(f"this request cannot be sent: {exc}") from exc

    def feed(self, data: bytes) -> None:
        """Take what the server sent; b"" says that it will send no more."""
        self._h11.receive_data(data)

    def receive(self) -> ResponseHead | BodyEvent | Closed:
        """The next event, or NEED_DATA; informational responses are skipped. Raises RemoteError."""
        event = _next_event(self._h11)
        while type(event) is h11.InformationalResponse:
            event = _next_event(self._h11)
        if type(event) is h11.Response:
            version, reason = event.http_version.decode("ascii"), event.reason.decode("latin-1")
            return ResponseHead(event.status_code, reason, decoded(event.headers.raw_items()), version)
        return _body_event(event)


def _next_event(connection: h11.Connection) -> object:
    try:
        return connection.next_event()
    except h11.RemoteProtocolError as exc:
        if exc.error_status_hint == 431:
            raise HeadTooLarge("the head is larger than is allowed here") from exc
        said = str(exc)
        if "closed connection" in said or "ConnectionClosed" in said:  # h11 tells it by no other sign
            raise ProtocolError("the connection ended before the message did") from exc
        raise ProtocolError(in_plain_words(said, connection.our_role is h11.CLIENT), exc.error_status_hint) from exc


def _body_event(event: object) -> BodyEvent | Closed:
    # By type(), since h11's events are of an abstract class, for which isinstance() takes ten times as long.
    kind = type(event)
    if kind is h11.Data:
        assert isinstance(event, h11.Data)
        return Data(bytes(event.data), event.chunk_start, event.chunk_end)
    if kind is h11.EndOfMessage:
        assert isinstance(event, h11.EndOfMessage)
        return End(decoded(event.headers.raw_items())) if event.headers else _END
    return CLOSED if kind is h11.ConnectionClosed else NEED_DATA


def _response(status: int, headers: tuple[tuple[str, str], ...]) -> h11.Response:
    try:
        return _checked_response(status, headers)
    except (h11.LocalProtocolError, ValueError, TypeError, AttributeError) as exc:
        raise AnswerError(f"a response's headers are pairs of str that HTTP allows: {exc}") from exc


@functools.lru_cache(maxsize=128)  # most answers of a second have the same fields, and h11 checks each with care: 15 µs
def _checked_response(status: int, headers: tuple[tuple[str, str], ...]) -> h11.Response:
    response = h11.Response(status_code=status, headers=encoded(headers), reason=phrase(status).encode("ascii"))
    framing = {name for name, _ in response.headers} & {b"transfer-encoding", b"content-length"}
    if framing and (status == 204 or b"transfer-encoding" in framing):
        # RFC 9110 section 8.6 and RFC 9112 section 6.1; h11 would send it, and who reads it would wait for a body.
        raise ValueError("how the body is framed is not the handler's to say")
    return response
