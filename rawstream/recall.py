"""The short way for a request that came before, and for an answer that was given before: h11 is not asked again.

What h11 makes of a head depends on its bytes alone, and what it writes for one on the fields. So of a *plain* request
(of HTTP/1.1, without a body, by who keeps the connection) three things are known without it:

* that it ends with its head;
* what it says, if its bytes are those of this connection's last: who polls asks the same again and again;
* the head of an answer, if h11 wrote one for the same status and fields before, on any connection.

Where one of them is not so, h11 is told what it has missed, and all goes the usual way.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import TypeAlias

from .errors import LocalError
from .framing import LAST_CHUNK, BodyEvent, Closed, Frame, chunked
from .messages import RequestHead
from .wire import PreparedHead, ServerWire

_Known: TypeAlias = tuple[bytes, RequestHead]  # the bytes of a request, and what they say
_SMALL = 1024  # bytes: what is larger is not kept; browsers send 500 to 1,000
_SPECIAL = frozenset({"content-length", "transfer-encoding", "expect", "upgrade"})  # with these none is plain


class RecallingWire(ServerWire):
    """A ServerWire that does the same, and asks h11 less. Whether it does the same is held against the other."""

    __slots__ = ("_again", "_came", "_goes_on", "_known", "_plain", "_streams")

    def __init__(self, max_head: int = 16 * 1024, max_headers: int = 100, max_target: int = 8 * 1024) -> None:
        self._known: _Known | None = None  # the last request, if it was plain and is answered by no stream
        super().__init__(max_head, max_headers, max_target)

    def _begin(self) -> None:
        super()._begin()
        self._came = b""  # the piece that a request begins with, if it is small
        self._again: _Known | None = None  # the last request came again, and h11 was not given it
        self._plain = False  # the request is plain, and h11 was not asked for its end
        self._goes_on: bool | None = None  # it was answered without h11: whether another may follow
        self._streams = False  # it is being answered so, by a stream

    # -- in ----------------------------------------------------------------------------------------------------------

    def feed(self, data: bytes) -> None:
        """Take what the peer sent; b"" says that it will send no more."""
        if self._again is not None:
            self._give()
        elif self._intake.fresh:
            if self._known is not None and data == self._known[0]:
                self._again = self._known
                return
            self._came = data if len(data) <= _SMALL else b""
        super().feed(data)

    def receive(self) -> RequestHead | BodyEvent | Closed:
        """The next event, or NEED_DATA. Raises RemoteError; the connection is then good for one answer only."""
        if self._again is not None:
            if not self._plain:
                head = self._again[1]
                self._plain, self._bodiless = True, head.method == "HEAD"
                return head
            self._give()
        self._plain = False
        event = super().receive()
        if type(event) is RequestHead:
            came, self._came, self._plain = self._came, b"", _is_plain(event)
            # A copy: what asyncio hands on lies where its next buffer, of 256 KiB, would have its place.
            self._known = (bytes(memoryview(came)), event) if self._plain and _is_one(came) else None
        return event

    def _give(self) -> None:
        """Give h11 the request that came again, up to where we are."""
        assert self._again is not None
        came, self._again = self._again[0], None
        super().feed(came)
        if self._plain:
            super().receive()

    # -- out ---------------------------------------------------------------------------------------------------------

    def start(self, head: PreparedHead) -> tuple[bytes, Frame]:
        """The bytes of a stream's head, and the function that makes the bytes of a payload."""
        self._known = None  # a stream may stay for long
        begun = None  # what has no body ends with its head: that is left to h11
        if self._may_recall() and not self._bodiless and head.status_code not in (204, 304):
            begun = _begun(head.status_code, tuple(head.headers.raw_items()))
        if begun:
            self._goes_on, self._streams = False, True
            return begun[0], chunked
        self._catch_up()
        data, frame = super().start(head)
        if begun is not None and all(name != b"connection" for name, _ in head.headers):
            begun.append(data)
        return data, frame

    def end(self) -> bytes:
        """The bytes that end the body of what `start` began."""
        if self._streams:
            self._goes_on, self._streams = True, False
            return LAST_CHUNK
        self._catch_up()
        return super().end()

    def respond_apart(self, status: int, headers: Iterable[tuple[str, str]], body: bytes) -> tuple[bytes, bytes]:
        """The head and the body of a whole answer; see there."""
        fields, written = tuple(headers), None
        if self._may_recall():
            try:
                written = _written(status, fields, len(body), self._bodiless)
            except TypeError:
                pass  # these are no fields, which is told in a moment
        if written:
            head, self._goes_on = written[0]
            return head, b"" if self._bodiless else body
        self._catch_up()
        head, data = super().respond_apart(status, fields, body)
        if written is not None:
            written.append((head, self.reusable))
        return head, data

    def _may_recall(self) -> bool:
        """The request is plain, and h11 need not know of an answer to it."""
        return self._plain and self._goes_on is None

    def _catch_up(self) -> None:
        """Let h11 know of the request under way, all of which is here: it is to write what comes now."""
        if self._goes_on is not None:
            self._goes_on = self._streams = False
            raise LocalError("the request is answered: no more can be sent")
        if self._again is not None:
            self._give()
        if self._plain:
            self._plain = False
            super().receive()  # its end

    # -- where the two sides stand -----------------------------------------------------------------------------------

    @property
    def begun(self) -> bool:
        """The first byte of a request has come."""
        return self._again is not None or super().begun

    @property
    def request_ended(self) -> bool:
        """The whole request has been received: what comes now belongs to a next one."""
        return self._plain or super().request_ended

    @property
    def answerable(self) -> bool:
        """No head of an answer has left yet, so that one still can."""
        return self._goes_on is None and super().answerable

    @property
    def reusable(self) -> bool:
        """Request and response are complete, and neither side asked for the connection to close."""
        return super().reusable if self._goes_on is None else self._goes_on

    def next_cycle(self) -> None:
        """Go on to the next request, whose first bytes may be here already."""
        if self._again is None:
            super().next_cycle()
            return
        assert self.reusable, "only the caller's mistake could ask for it earlier"
        # h11 stands where it stood
        self._again, self._plain, self._goes_on, self._bodiless = None, False, None, False


def _is_one(came: bytes) -> bool:
    """Whether the piece that a plain request begins with is all of it, and no more."""
    return came.endswith(b"\r\n\r\n") and came.index(b"\r\n\r\n") == len(came) - 4


def _is_plain(head: RequestHead) -> bool:
    connection = head.headers.get("connection", "keep-alive")
    return head.http_version == "1.1" and head.headers.lacks(_SPECIAL) and connection.lower() == "keep-alive"


@functools.lru_cache(maxsize=128)  # most answers of a second have the same fields: 10 µs to write
def _written(status: int, fields: tuple[tuple[str, str], ...], length: int, bodiless: bool) -> list[tuple[bytes, bool]]:
    """A place for the head that h11 writes for such an answer to a plain request, and whether it goes on after it."""
    return []


@functools.lru_cache(maxsize=128)  # 35 µs to write, most of it for the fields that h11 adds
def _begun(status: int, fields: tuple[tuple[bytes, bytes], ...]) -> list[bytes]:
    """A place for the head of such a stream to a plain request, after which the connection goes on."""
    return []
