"""A subscriber: a place in a channel's log, and the sink of a connection that is written what comes after it.

The connection's task sleeps on one future while its reader keeps up: each entry is then written by the channel's
fan-out, with `advance`, the same bytes to all. A reader that does not keep up is left where it is: nothing is kept for
it. It goes on from the tail when its socket takes more, or, where that begins later by now, from the log.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from rawstream.errors import Stalled, StoreUnavailable
from rawstream.formats import JsonLines, ServerSentEvents
from rawstream.sink import Out, Way

from .cursor import After, Gap, Place
from .log import Id
from .tail import Piece, Tail, View, as_event, as_line

if TYPE_CHECKING:
    from .channel import Channel

_AGAIN = 1.0  # seconds, and up to as many more, after which a log that could not be read is asked again
_EVENTS, _LINES = ServerSentEvents(), JsonLines()  # for what is said beside the log's entries


class Sink(Protocol):
    """Where a feed writes to: what a pump writes to, for bytes that are framed already."""

    @property
    def writable(self) -> bool: ...
    def write(self, payload: bytes) -> bool: ...  # b"": the head may leave
    def way(self) -> Way: ...  # once the head has left
    def beat(self) -> None: ...  # a comment, where the format has one
    def first_chunk(self) -> None: ...  # it leaves
    def when_writable(self, call: Callable[[], None] | None) -> None: ...  # None: not any more
    async def drain(self) -> None: ...  # waits until writable; raises when the reader is gone


class Feed:
    """One subscriber's stream: to its connection it is what pumps instead of an iterator, and the stream's encoder.

    after: where it begins; found: where that is in the log, if it was looked up already.
    """

    __slots__ = (
        "_begun", "_channel", "_encoder", "_ended", "_gap", "_lost", "_number", "_out", "_parked", "_place", "_ready",
        "_sink", "_tail", "_view", "heartbeat", "over",
    )  # fmt: skip
    taken = 1  # a channel may be silent for long: no first item is overdue
    _sink: Sink
    _tail: Tail
    _view: View
    _out: Out

    def __init__(self, channel: Channel, lines: bool, after: After, found: Place | None = None) -> None:
        self._channel = channel
        self._encoder = _LINES if lines else _EVENTS
        self._place = after  # the last entry that was written, or counts as read
        self._number = found.id.n if found else -1  # its number
        self._lost = found is None  # it must be looked up
        self._gap = found.gap if found else None
        self._parked: asyncio.Future[None] | None = None
        self.heartbeat = self._encoder.heartbeat
        self._begun = False  # a piece was written
        self._ended = False  # the last one of the log was
        self.over = False
        """Nothing more will be written."""
        self._ready = False  # it waits for what comes next

    # -- what the request's cycle and sink call ----------------------------------------------------------------------

    def __aiter__(self) -> Feed:
        return self

    async def __anext__(self) -> Any:
        """No items come this way: see `__pump__`."""
        raise StopAsyncIteration

    def __pump__(self, sink: Sink) -> Feed:
        """Write to `sink` from now on. Returns what is to `run`."""
        self._sink = sink
        return self

    async def run(self) -> None:
        """Until the log has ended, or the server closes. Raises Disconnected when the reader is gone."""
        self._sink.write(b"")
        self._sink.beat()  # some proxies hold a head back until a first byte of the body comes
        try:
            while not self.over:
                try:
                    await self._catch_up()
                except StoreUnavailable:
                    self._sink.beat()  # nobody else does, as long as the log cannot be followed
                    await self._park(_AGAIN * (1 + random.random()))
                else:
                    await self._park()
                self._unpark()
        finally:
            self._unpark()
            self._channel.leave(self)

    def take(self) -> bytes:
        """What is left to be written in the end: nothing."""
        return b""

    async def aclose(self) -> None:
        """There is nothing to close: `run` has left the channel."""

    def encode(self, item: Any) -> bytes:
        """No items come this way."""
        return b""

    def end(self) -> bytes:
        """If the log has ended, it has said so itself."""
        return b""

    def error(self, status: int, message: str) -> bytes:
        """What tells that the stream breaks off here."""
        return self._encoder.error(status, message)

    def closing(self, retry: int) -> bytes:
        """The server closes: this ends now. Its reader will come back with its place, but not after the log's end."""
        self.finish()
        return b"" if self._ended else self._encoder.closing(retry)

    # -- what the channel calls --------------------------------------------------------------------------------------

    def advance(self) -> None:
        """Write what the tail has after its place, as far as the reader takes it."""
        while self._ready and (piece := self._view[self._number]) is not None:
            if not self._send(piece):
                self._ready = False
                self._sink.when_writable(self._go_on)
            elif piece.newest:
                return
        if self._ready and not self._tail.reaches(self._number):
            self._wake()

    def beat(self) -> None:
        """Nothing has come for a while."""
        if self._ready:
            self._sink.beat()

    def doubt(self) -> None:
        """The log may not be the one that it was: its place must be looked up."""
        self._lost, self._ready = True, False
        self._wake()

    def finish(self) -> None:
        """Nothing more will be written."""
        self.over, self._ready = True, False
        self._wake()

    # -- from here on for itself -------------------------------------------------------------------------------------

    def _send(self, piece: Piece) -> bool:
        """Returns whether more may be written."""
        sent, self._place, ends, _ = piece
        self._number = self._place.n
        if not self._begun:
            self._begin()
        if ends:
            self._ended = True
            self.finish()
        return self._out.write(sent) and not ends

    async def _catch_up(self) -> None:
        """Read the log until the tail has the rest, however long the reader takes. Raises StoreUnavailable."""
        self._tail = await self._channel.join(self)
        form = as_line if self._encoder is _LINES else as_event
        framing, self._out = self._sink.way()
        self._view = self._tail.view(form, framing)
        if self._gap is not None:
            self._tell(self._gap)
        if self._lost or self._number > self._tail.last.n:  # or the log that it was found in is gone
            await self._look_up()
        while not self.over:
            if not self._sink.writable:
                await self._sink.drain()
            if self._tail.reaches(self._number):
                return
            assert isinstance(self._place, Id), "it was looked up"
            entries = await self._channel.page(self._place)
            if entries and entries[0].id.n == self._number + 1:
                all(map(self._send, self._view.pieces(entries)))  # as many as the reader takes
            else:
                await asyncio.sleep(0)  # a log that changes all the time shall not keep the others waiting
                await self._look_up()
            del entries  # the reader may take long

    async def _look_up(self) -> None:
        """Find its place in the log, and say what is missing there. Raises StoreUnavailable, or Stalled."""
        began = self._number >= 0
        self._lost = False  # now: while it is looked up, doubt may come again
        try:
            self._place, gap, over = await self._channel.locate(self._place)
        except BaseException:
            self._lost = True
            raise
        self._number = self._place.n
        if over:
            self.finish()
        if gap is not None:
            if began and self._channel.behind == "cut":
                raise Stalled("the reader fell behind what the channel holds")
            self._tell(gap)

    def _tell(self, gap: Gap) -> None:
        self._gap = None
        if not self._begun:
            self._begin()
        self._out.write(self._view.made(gap.entry))

    def _begin(self) -> None:
        self._begun = True
        self._sink.first_chunk()

    def _park(self, seconds: float | None = None) -> asyncio.Future[None]:
        """To wait for what `advance` cannot do. Without `seconds`, `advance` is called from now on."""
        loop = asyncio.get_running_loop()
        parked = self._parked = loop.create_future()  # and no coroutine: thousands stand here
        if self.over or (self._lost and seconds is None):
            self._wake()
        elif seconds is None:
            self._go_on()
        else:
            loop.call_later(seconds, self._wake)
        return parked

    def _unpark(self) -> None:
        """No more calls of `advance`."""
        self._parked = None
        self._ready = False
        self._sink.when_writable(None)

    def _go_on(self) -> None:
        """Write what there is, and then what comes."""
        self._ready = not (self._lost or self.over)
        self.advance()

    def _wake(self) -> None:
        if self._parked is not None and not self._parked.done():
            self._parked.set_result(None)
