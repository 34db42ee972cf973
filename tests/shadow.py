"""A second h11 connection beside every streamed response: it sends the same, and the bytes are compared.

`rawstream.wire` frames a stream's payloads without h11. Here h11 itself is given each head, payload and end, so that
the two can be seen to agree in every test that streams anything. Differences are collected and told when the block
ends: an exception in the midst of it could be swallowed by the server under test.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from unittest.mock import patch
from weakref import WeakKeyDictionary

import h11

from rawstream import exchange, wire
from rawstream.fields import Headers
from rawstream.framing import Frame
from rawstream.messages import RequestHead
from rawstream.wire import PreparedHead, ServerWire


def answering(head: RequestHead) -> h11.Connection:
    """An h11 connection that has received this request's head, and may answer it."""
    lines = [f"{head.method} {head.target} HTTP/{head.http_version}"]
    lines += [f"{name}: {value}" for name, value in head.headers.pairs]
    connection = h11.Connection(h11.SERVER)
    connection.receive_data("".join(line + "\r\n" for line in [*lines, ""]).encode("latin-1"))
    assert type(connection.next_event()) is h11.Request
    return connection


class _Shadows:
    """What has been seen of each connection, and what differed."""

    def __init__(self) -> None:
        self.differences: list[str] = []
        self._heads: WeakKeyDictionary[ServerWire, RequestHead] = WeakKeyDictionary()
        self._shadows: WeakKeyDictionary[ServerWire, h11.Connection] = WeakKeyDictionary()
        self._old = answering(RequestHead("GET", "/", "/", "", Headers(), "1.0"))
        self._old.send(h11.Response(status_code=200, headers=[]))

    def _compare(self, what: str, data: bytes, shadow: h11.Connection, event: h11.Event) -> None:
        try:
            expected = shadow.send(event)
        except h11.LocalProtocolError as error:
            self.differences.append(f"{what}: {data!r}, but h11 refuses it: {error}")
        else:
            if data != expected:
                self.differences.append(f"{what}: {data!r}, but h11 sends {expected!r}")

    def received(self, server: ServerWire, head: RequestHead) -> None:
        self._heads[server] = head

    def started(self, server: ServerWire, head: PreparedHead, data: bytes, frame: Frame) -> Frame:
        shadow = self._shadows[server] = answering(self._heads[server])
        self._compare("head", data, shadow, head)
        if frame is wire.until_close:
            # The core asks which of the two frames it has got, and this one is watched already.
            return frame
        return self.watching(frame, shadow)

    def watching(self, frame: Frame, shadow: h11.Connection) -> Frame:
        def watched(payload: bytes) -> bytes:
            data = frame(payload)
            self._compare("frame", data, shadow, h11.Data(data=payload))
            return data

        return watched

    def watched_until_close(self) -> Frame:
        """`until_close` for all HTTP/1.0 connections, beside one that h11 never sees end."""
        return self.watching(wire.until_close, self._old)

    def ended(self, server: ServerWire, data: bytes) -> None:
        self._compare("end", data, self._shadows[server], h11.EndOfMessage())


@contextmanager
def shadowed(server_wire: type[ServerWire] = ServerWire) -> Iterator[None]:
    """A block in which everything that is streamed is sent by h11, too. Fails at its end if anything differed."""
    shadows = _Shadows()
    receive: Callable[[ServerWire], object] = server_wire.receive
    start, end = server_wire.start, server_wire.end

    def watched_receive(self: ServerWire) -> object:
        event = receive(self)
        if isinstance(event, RequestHead):
            shadows.received(self, event)
        return event

    def watched_start(self: ServerWire, head: PreparedHead) -> tuple[bytes, Frame]:
        data, frame = start(self, head)
        return data, shadows.started(self, head, data, frame)

    def watched_end(self: ServerWire) -> bytes:
        data = end(self)
        shadows.ended(self, data)
        return data

    until_close = shadows.watched_until_close()
    with (
        patch.object(server_wire, "receive", watched_receive),
        patch.object(server_wire, "start", watched_start),
        patch.object(server_wire, "end", watched_end),
        patch.object(wire, "until_close", until_close),
        patch.object(exchange, "until_close", until_close),
    ):
        yield
    assert not shadows.differences, "\n".join(shadows.differences)
