"""Every error of rawstream, as one tree; each knows the HTTP status it is answered with.

    RawstreamError
    ├── LocalError               our side's misuse: what a handler or a program did. Answered 500, told to the log.
    │   ├── AnswerError          a handler answered with something that cannot be sent
    │   ├── ItemError            an item that the stream's format cannot hold
    │   └── EventError           a field that a server-sent event cannot carry
    ├── RemoteError              the peer's bytes, or its silence
    │   ├── ProtocolError        bytes that are not HTTP/1.1 as the RFCs have it (400, 501, 505)
    │   ├── HeadTooLarge         431
    │   ├── TargetTooLong        414
    │   ├── BodyTooLarge         413
    │   ├── ReadTimeout          408
    │   ├── Disconnected         nobody is there any more: nothing is answered
    │   │   └── Stalled          or somebody who takes nothing
    │   └── FetchError           what a server did to the client, be that a handler which asks it
    │       ├── ConnectFailed    the client did not reach the server
    │       ├── IncompleteResponse   ... or lost it before the end of its response
    │       ├── ResponseTimeout  ... or it did not go on in time (a ReadTimeout too)
    │       ├── BadResponse      bytes that are no HTTP/1.1, or a head that is too large (a ProtocolError too)
    │       ├── StatusError      another status than 200 to 299
    │       │   └── Redirected   ... and names another place
    │       ├── ContentError     a response's body that is not what its header fields say
    │       │   └── ItemTooLarge     or has an item larger than the client takes
    │       ├── StreamFailed     a server told, in a stream that it had begun, that it failed
    │       └── GaveUp           the client tried again and again to follow a stream
    └── HTTPError                raised by a handler to answer with a status and a reason
        ├── NotFound             404
        ├── MethodNotAllowed     405, with Allow
        ├── NotAcceptable        406
        ├── BadName              400: no name that a channel or a run can have
        ├── BadEventId           400: no id that an event can have
        ├── ChannelEnded         409: nothing can be published there
        ├── EventTooLarge        413
        └── Unavailable          503: not now
            └── StoreUnavailable     what keeps the channels cannot be reached, is full or broken
                └── OutcomeUnknown   ... and nobody knows whether it did what was asked

Foreign exceptions are translated into these at one border each (h11's in `wire`), always `from` the original.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from http import HTTPStatus


def phrase(status: int) -> str:
    """The reason phrase that RFC 9110 section 15 gives for `status`, or "" where it gives none."""
    return _PHRASES.get(status, "")


_PHRASES = {status.value: status.phrase for status in HTTPStatus} | {
    413: "Content Too Large",  # before Python 3.13, HTTPStatus has the names of RFC 7231 for these four
    414: "URI Too Long",
    416: "Range Not Satisfiable",
    422: "Unprocessable Content",
}


class RawstreamError(Exception):
    """The root: catching it catches every error that rawstream itself raises."""

    status = 500

    @property
    def public(self) -> str:
        """What the peer may be told: here nothing, the text is for the log."""
        return ""


class LocalError(RawstreamError):
    """Our side's misuse: the handler or the program did what cannot be done. The text says what would be right."""


class AnswerError(LocalError, TypeError):
    """A handler answered with something that is neither a response nor a stream, or cannot be sent as one."""


class ItemError(LocalError, ValueError):
    """An item that the stream's format cannot hold: of which type, why, and its index in the stream (from 0)."""

    def __init__(self, kind: str, problem: str) -> None:
        super().__init__(kind, problem)
        self.kind = kind
        self.problem = problem
        self.index: int | None = None  # the pump counts, and says it; an encoder does not know

    def __str__(self) -> str:
        return f"{'an item' if self.index is None else f'item {self.index}'} ({self.kind}) {self.problem}"


class EventError(LocalError, ValueError):
    """A field that a server-sent event cannot carry (WHATWG HTML 9.2.6): a line break in `id`, say."""


class RemoteError(RawstreamError):
    """The peer sent what it must not, or did not send what it must."""

    status = 400
    of_peer = False
    """Set where it comes of reading the request's body. What a handler raises else is its own failure."""

    def __init__(self, message: str = "", status: int | None = None) -> None:
        super().__init__(message)
        if status is not None:
            self.status = status

    @property
    def public(self) -> str:
        """The whole text: the peer caused it, and may know."""
        return str(self)


class ProtocolError(RemoteError):
    """Bytes that are not HTTP/1.1 (RFC 9112), or ask for what is not implemented (501) or not spoken (505)."""


class HeadTooLarge(RemoteError):
    """The request's head is larger, or has more fields, than `Limits` allows (431)."""

    status = 431


class TargetTooLong(RemoteError):
    """The request's target is longer than `Limits.target` allows (414)."""

    status = 414


class BodyTooLarge(RemoteError):
    """The request's body is larger than `Limits.body` allows (413)."""

    status = 413


class ReadTimeout(RemoteError):
    """The peer did not send in time what it had begun (408)."""

    status = 408


class Disconnected(RemoteError):
    """The peer is gone: there is nobody to answer."""


class Stalled(Disconnected):
    """The peer took nothing of what was sent to it for `Timeouts.write_stall` seconds: it was cut."""


class FetchError(RemoteError):
    """A server did to the client what it must not: all that `fetch` and `events` raise, but for our own misuse.

    In a handler that asks another server and passes on what comes, `except FetchError` is that server's failure, and
    never that of the handler's own peer: that it has left is a `Disconnected`.
    """


class ConnectFailed(FetchError):
    """The client got no connection: the name is unknown, nobody listens, TLS failed, or it took too long."""


class IncompleteResponse(FetchError):
    """The connection ended before the response did: something is missing."""


class ResponseTimeout(FetchError, ReadTimeout):
    """The response's head, or more of its body, did not come within `ClientTimeouts`."""


class BadResponse(FetchError, ProtocolError):
    """A response that is not HTTP/1.1 (RFC 9112), or has a head larger than `ClientLimits` allows."""


class StatusError(FetchError):
    """A server answered the client with a `status` that is no success (RFC 9110 section 15).

    `reason` is its phrase, `headers` the response's fields (a mapping without case), `body` how its body begins.
    """

    def __init__(self, status: int, reason: str, headers: Mapping[str, str], body: bytes, url: str) -> None:
        said = " ".join(body.decode("utf-8", "replace").split())
        super().__init__(f"{status} {reason or phrase(status)} from {url}{said and f': {said[:200]}'}", status)
        self.reason = reason
        self.headers = headers
        self.body = body


class Redirected(StatusError):
    """A server answered the client that what it asks for is elsewhere, at `location`, an absolute URL."""

    def __init__(
        self, status: int, reason: str, headers: Mapping[str, str], body: bytes, url: str, location: str
    ) -> None:
        super().__init__(status, reason, headers, b"", url)
        self.args = (f"{status} {reason or phrase(status)} from {url}: ask at {location}, if that is to be trusted",)
        self.body = body
        self.location = location


class ContentError(FetchError):
    """A response's body is not what its header fields say: no JSON, say, or compressed in a way we do not know."""


class ItemTooLarge(ContentError):
    """A line, an item or an event of a response is larger than the client takes."""


class StreamFailed(FetchError):
    """A server told, in a stream that it had begun, that it failed: the text is its own, `status` what it would be."""


class GaveUp(FetchError):
    """The client tried to follow a stream, and too many attempts in a row brought nothing; the cause is the last."""


class HTTPError(RawstreamError):
    """Raised by a handler, until the head of its stream has left, to answer with a status.

    `status` is 400 to 599, `detail` a line for the client, `headers` more fields for the
    response, as pairs or a mapping.
    Raises ValueError for another status, TypeError for a detail that is no text.
    """

    def __init__(
        self, status: int, detail: str = "", headers: Iterable[tuple[str, str]] | Mapping[str, str] = ()
    ) -> None:
        if status not in range(400, 600):
            raise ValueError(f"HTTPError takes a status from 400 to 599, not {status!r}; return a Response for others")
        if not isinstance(detail, str):
            raise TypeError(
                f"an HTTPError's detail is a str, not {type(detail).__name__}; return a Response for others"
            )
        super().__init__(detail or phrase(status))
        self.status = int(status)  # an HTTPStatus is welcome too
        self.detail = detail
        self.headers = tuple(headers.items() if isinstance(headers, Mapping) else headers)

    @property
    def public(self) -> str:
        """The detail, which is meant for the client."""
        return self.detail


class NotFound(HTTPError):
    """There is nothing at this path (404)."""

    def __init__(self, detail: str = "") -> None:
        super().__init__(404, detail)


class MethodNotAllowed(HTTPError):
    """The path is there, but not for this method (405); `allow` goes into the Allow field (RFC 9110 10.2.1)."""

    def __init__(self, allow: Iterable[str]) -> None:
        methods = ", ".join(allow)
        super().__init__(405, f"this path takes {methods}", [("Allow", methods)])


class NotAcceptable(HTTPError):
    """None of the formats that can be sent is one that the client accepts (406)."""

    def __init__(self, detail: str = "") -> None:
        super().__init__(406, detail)


class Unavailable(HTTPError):
    """Not now: the server is full, an answer took too long, or the hub was closed under a reader (503).

    `retry_after`: seconds after which it is worth to come back (RFC 9110 section 10.2.3); None says nothing of it.
    """

    def __init__(self, detail: str = "", retry_after: int | None = None) -> None:
        super().__init__(503, detail, [] if retry_after is None else [("Retry-After", str(retry_after))])


class BadName(HTTPError):
    """No name that a channel or a run can have (400)."""

    def __init__(self, detail: str = "") -> None:
        super().__init__(400, detail)


class BadEventId(HTTPError):
    """No id that an event of a channel can have (400)."""

    def __init__(self, detail: str = "") -> None:
        super().__init__(400, detail)


class ChannelEnded(HTTPError):
    """The channel or run has ended, or belongs to another: nothing can be published there (409)."""

    def __init__(self, detail: str = "the channel has ended") -> None:
        super().__init__(409, detail)


class EventTooLarge(HTTPError):
    """An event is larger than its hub allows (413)."""

    def __init__(self, detail: str = "") -> None:
        super().__init__(413, detail)


class StoreUnavailable(Unavailable):
    """What keeps the channels cannot be reached, is full or broken (503)."""

    def __init__(self, detail: str = "the channels' store cannot be reached", retry_after: int | None = 5) -> None:
        super().__init__(detail, retry_after)


class OutcomeUnknown(StoreUnavailable):
    """The store may have taken the event, or not: only a key makes it safe to publish it again (503)."""

    def __init__(self) -> None:
        super().__init__("it may have been published or not; a key would make it safe to publish it again", None)
