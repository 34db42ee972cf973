"""The two directions of one exchange: the request's body off the wire, and a stream onto it."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Callable
from typing import Any, cast

from . import observe
from .deadlines import Deadline, Deadlines
from .encoding import Gzip
from .errors import BodyTooLarge, LocalError, ProtocolError, RemoteError
from .fields import Headers
from .formats import Encoder, Format
from .framing import Data, End, Frame, until_close
from .inbox import LINES
from .messages import Every, Stream
from .observe import Record
from .pump import GATHER, Pump
from .sink import Way
from .transport import Transport
from .wire import PreparedHead, ServerWire

_FRAMING = 256 * 1024  # bytes by which a body's framing may exceed the body: those of 65,536 chunks of a byte each
_NONE = Headers()
_TOO_LATE = "the request is answered: its body is read before, or not at all"


class RequestBody:
    """The body of the request under way, taken off the wire as the handler asks for it: `limit` bytes at most, and
    after no more than `patience` seconds the next of them."""

    __slots__ = (
        "_fed", "_length", "_limit", "_lines", "_patience", "_piece", "_reader", "_size", "_trailers", "_transport",
        "_trouble", "_wire",
    )  # fmt: skip

    def __init__(self, transport: Transport, wire: ServerWire, headers: Headers, limit: int, patience: float) -> None:
        self._transport = transport
        self._wire = wire
        self._limit = limit
        self._patience = patience
        length = headers.get("content-length")
        self._length = int(length or 0)
        self._lines = LINES if length is None else math.inf  # without framing, nothing costs but bytes
        self._size = 0
        self._fed = 0  # bytes that came behind those that came with the head
        self._piece = b""  # what has come, and was not asked for yet
        self._trailers = _NONE
        self._trouble: RemoteError | None = None  # what came after the piece, if it is no body
        self._reader: asyncio.Task[Any] | None = None
        # Most requests have no body, or have brought it with them: then what comes from now on is a next request's.
        transport.body_ended = wire.request_ended
        if not transport.body_ended:
            self._take()

    @property
    def trailers(self) -> Headers:
        """The fields that came after a chunked body; empty until it has been read to its end."""
        return _NONE if self._piece else self._trailers

    def _take(self) -> None:
        """Take what there is of the body off the wire, up to its end."""
        pieces = [self._piece]
        try:
            while isinstance(event := self._wire.receive(), Data):
                pieces.append(event.data)
            if isinstance(event, End):
                self._trailers = event.trailers
        except RemoteError as error:
            self._trouble = error
        self._piece = b"".join(pieces)
        self._transport.body_ended = self._wire.request_ended

    def check(self) -> None:
        """Raise BodyTooLarge or ProtocolError if it is known by now: then no handler needs to begin."""
        if self._length > self._limit:
            raise BodyTooLarge(f"a request's body has at most {self._limit} bytes here")
        if self._trouble and not self._piece:
            raise self._trouble

    async def read(self) -> bytes:
        """The next piece, b"" at the end. Raises BodyTooLarge, ReadTimeout, ProtocolError or Disconnected.

        Raises LocalError while another task reads it, and when the request is answered: what comes then is not its own.
        """
        if self._is_over():
            raise LocalError(_TOO_LATE)
        if self._reader is not None:
            raise LocalError("another task reads this body already: let one read it, and hand it on")
        self._reader = task = asyncio.current_task()
        assert task is not None, "a handler runs in a task"
        cancelling = task.cancelling()
        try:
            return await self._next()
        except RemoteError as error:
            error.of_peer = True
            raise
        except asyncio.CancelledError:
            if self._is_over() and task.uncancel() <= cancelling:
                raise LocalError(_TOO_LATE) from None
            raise
        finally:
            self._reader = None

    async def _next(self) -> bytes:
        while not (self._piece or self._trouble or self._wire.request_ended):
            if go_ahead := self._wire.go_ahead():
                self._transport.write(go_ahead)
            data = await self._transport.read(self._patience, self._lines)
            self._fed += len(data)
            self._wire.feed(data)
            self._take()
            if self._fed - 2 * (self._size + len(self._piece)) > _FRAMING and not self._wire.request_ended:
                self._trouble = self._trouble or ProtocolError("a chunked body is more than its framing")
        if self._trouble and not self._piece:
            raise self._trouble
        piece, self._piece = self._piece, b""
        self._size += len(piece)
        if self._size > self._limit:
            raise BodyTooLarge(f"a request's body has at most {self._limit} bytes here")
        return piece

    def skip(self) -> None:
        """Drop what the handler did not ask for, as far as it is here."""
        if self._trouble is None and not self._wire.request_ended:
            self._take()
        self._piece = b""

    def end(self) -> None:
        """The request is answered. Who keeps it keeps no connection, and who reads it still is told."""
        if self._reader is not None:
            self._reader.cancel()
        del self._transport, self._wire

    def _is_over(self) -> bool:
        return not hasattr(self, "_wire")


class StreamSink:
    """One stream's way to the wire: holds the head back until it may leave, frames, and keeps the stream alive.
    `close` is due, however the stream ends."""

    __slots__ = (
        "_deadlines", "_encoder", "_frame", "_gzip", "_head", "_heartbeat", "_others", "_patience", "_prelude",
        "_pulse", "_record", "_send", "_silent", "_spoken", "_timer", "_transport", "_wire",
    )  # fmt: skip

    def __init__(
        self, transport: Transport, wire: ServerWire, deadlines: Deadlines, head: PreparedHead,
        encoder: Encoder, form: Format, stream: Stream, record: Record, gzip: Gzip | None,
    ) -> None:  # fmt: skip
        self._transport = transport
        self._wire = wire
        self._deadlines = deadlines
        self._head: PreparedHead | None = head
        self._encoder = encoder
        self._record = record
        self._gzip = gzip
        self._frame: Frame = until_close
        self._send: Frame = until_close  # compressed, perhaps, and framed
        self._patience = _head_patience(form, stream)  # seconds for which the head may wait for the first item
        self._heartbeat = stream.heartbeat if encoder.heartbeat else None
        self._timer: asyncio.TimerHandle | None = None  # when the head leaves at the latest
        self._prelude = b""  # what the reader has to be told first
        self._spoken = 0  # how much had been sent when that was last looked at ...
        self._silent = -1  # ... and for how many halves of a heartbeat there were no more; -1: something just left
        self._pulse: Deadline | None = None
        self._others = 0  # the writes of the transport that were no pieces of this body
        record.counter = self

    @property
    def chunks(self) -> int:
        """Pieces of the body written."""
        return self._transport.writes - self._others if self._head is None else 0

    @property
    def writable(self) -> bool:
        """False while the reader is behind, and when it is gone."""
        return self._transport.writable

    async def drain(self) -> None:
        """Wait until `writable`. Raises Disconnected."""
        began = time.monotonic()
        try:
            await self._transport.drain()
        finally:
            observe.paused(time.monotonic() - began)

    def later(self, seconds: float, callback: Callable[[], None]) -> asyncio.TimerHandle:
        """Call back after so many seconds."""
        return self._transport.later(seconds, callback)

    def write(self, payload: bytes) -> bool:
        """Send a piece of the body. The first takes the head along; b"" says that the generator waits.

        Returns `writable`.
        """
        if not payload:
            return self._wait_for_first() if self._head is not None else self._transport.writable
        if not self.chunks:
            observe.first_chunk(self._record)
        return self._transport.write(self._send(payload) if self._head is None else self._open() + self._send(payload))

    def way(self) -> Way:
        """`write` in two calls, for who writes often, or the same to many: what frames a piece, and where it goes.

        Something was written: the head has left. With the first piece `first_chunk` is due, unless `write` wrote it.
        """
        return self._send, self._transport

    def first_chunk(self) -> None:
        """The first piece of the body leaves."""
        observe.first_chunk(self._record)

    def when_writable(self, call: Callable[[], None] | None) -> None:
        """Call back each time that the reader, which was behind, takes more; None: not any more."""
        self._transport.when_writable = call

    def _wait_for_first(self) -> bool:
        """The generator waits, and has not given anything yet."""
        if self._patience == 0.0:
            self._tell(self._open())
        elif self._timer is None and self._patience != math.inf:
            self._timer = self.later(self._patience, self._lead)
        return self._transport.writable

    def _lead(self) -> None:
        """The head has waited long enough for an item."""
        if self._head is not None:
            self._tell(self._open())

    def _tell(self, data: bytes) -> None:
        """Send what is no piece of the body."""
        before = self._transport.writes
        self._transport.write(data)
        self._others += self._transport.writes - before

    def _open(self) -> bytes:
        assert self._head is not None, "a head leaves once"
        data, frame = self._wire.start(self._head)
        self._frame = self._send = frame
        if self._gzip is not None:
            compress = self._gzip.compress
            self._send = lambda payload: frame(compress(payload))
        self._head = None
        self._others = self._transport.writes
        if self._heartbeat is not None:
            self._pulse = self._deadlines.after(self._heartbeat / 2, self._beat_in_silence)
        return data + self._send(self._prelude)

    def beat(self) -> None:
        """Let the reader, and those between, see that the stream is alive. The head has left."""
        if self.writable:
            self._tell(self._send(self._encoder.heartbeat))

    def _beat_in_silence(self) -> None:
        """Look twice in a heartbeat for silence; so a chunk needs no clock, and silence lasts a heartbeat at most."""
        assert self._heartbeat is not None
        sent = self._transport.sent
        self._silent = self._silent + 1 if sent == self._spoken else 0
        self._spoken = sent
        if self._silent == 1:  # it began up to half a heartbeat before the last look
            self._silent = -1
            self.beat()
        self._pulse = self._deadlines.after(self._heartbeat / 2, self._beat_in_silence)

    def tell_closing(self) -> None:
        """Tell the reader that the server closes, and when to come back: not all at the same time."""
        notice = self._encoder.closing(random.randint(1000, 5000))
        if self._head is None:
            self._tell(self._send(notice))
        else:
            self._prelude = notice

    def finish(self, payload: bytes) -> None:
        """The last items, what the format has after them, and the proper end, in one write."""
        data = b"" if self._head is None else self._open()
        payload += self._encoder.end()
        if payload and not self.chunks:
            observe.first_chunk(self._record)
        send = self._transport.write if payload else self._tell
        if self._gzip is not None:
            payload = self._gzip.finish(payload)
        send(data + self._frame(payload) + self._wire.end())

    def break_off(self, payload: bytes, status: int, message: str) -> bool:
        """The last items, the reason, and no end: the reader can tell that something is missing.

        Returns whether the format could tell the reason.
        """
        told = b""
        try:
            told = self._encoder.error(status, message)
        finally:  # an encoder of the user's own may fail
            self.write(payload + told)
            if self._frame is until_close:
                self._transport.close_by_reset()
        return bool(told)

    def close(self) -> None:
        """No more heartbeats."""
        if self._timer is not None:
            self._timer.cancel()
        if self._pulse is not None:
            self._pulse.cancel()


def pump_for(stream: Stream, iterator: Any, encoder: Encoder, sink: StreamSink) -> Pump:
    """What moves a stream's items to its sink. Who reads a channel moves them itself, for many sinks at once."""
    if hasattr(iterator, "__pump__"):
        return cast(Pump, iterator.__pump__(sink))
    if isinstance(stream.flush, Every):
        return Pump(iterator, encoder.encode, sink, stream.flush.bytes, stream.flush.seconds)
    return Pump(iterator, encoder.encode, sink, 1 if stream.flush == "item" else GATHER)


def _head_patience(form: Format, stream: Stream) -> float:
    match stream.head:
        case None:
            return form.head
        case "suspend":
            return 0.0
        case "item":
            return math.inf
        case seconds:
            return float(seconds)
