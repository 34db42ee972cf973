"""Read, write and drain, each with its deadline, over an asyncio Protocol: the only code that knows its transports.

It owns what is received and not yet read, whether the peer may be written to, and when the peer counts as gone.
It never parses and never decides what to answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from typing import cast

from . import sockets
from .config import Limits, Timeouts
from .deadlines import GRAIN, Deadline, Deadlines
from .errors import Disconnected, ReadTimeout, RemoteError, Stalled
from .inbox import LINES, Inbox
from .turns import NO_WORK, Turns
from .watch import Watch


class Transport(asyncio.Protocol):
    """One connection to a peer. `connected` is called when it is there, `lost` when it is gone for good."""

    __slots__ = (
        "__weakref__", "_body_ended", "_connected", "_deadlines", "_direct", "_drained", "_ended", "_fd", "_gone",
        "_inbox", "_left", "_left_at", "_limits", "_loop", "_lost", "_readable", "_reading", "_stall", "_timeouts",
        "_transport", "_turns", "_work", "client", "dropping", "sent", "watched", "when_writable",
        "writable", "writes",
    )  # fmt: skip

    def __init__(
        self,
        limits: Limits,
        timeouts: Timeouts,
        deadlines: Deadlines,
        connected: Callable[[Transport], None],
        lost: Callable[[Transport], None],
    ) -> None:
        self._limits = limits
        self._timeouts = timeouts
        self._deadlines = deadlines
        self._connected, self._lost = connected, lost
        self._work = NO_WORK  # by who reads here, with what was read
        self._loop = asyncio.get_running_loop()
        self._turns = Turns.of(self._loop)
        self._transport: asyncio.Transport = None  # type: ignore[assignment]  # set by connection_made
        self._inbox = Inbox()
        self._ended = False  # the peer ended its side, or the connection is lost: nothing more will be received
        self._gone = False  # nothing more can be sent
        self._reading, self._body_ended = True, False
        self._readable: asyncio.Future[None] | None = None
        self._drained: asyncio.Future[None] | None = None
        self._stall: Deadline | None = None
        self._left = 0  # bytes that had left the write buffer when that was last looked at ...
        self._left_at = 0.0  # ... and found to have grown
        self._fd = -1  # the socket, if we may send on it ourselves ...
        self._direct = -1  # ... and when: not while asyncio's transport has something to send
        self.dropping = False
        """More of next requests came than is held: it was dropped, and so is what follows."""
        self.watched: Watch | None = None
        self.writable = False
        """False while the peer is behind, and when it is gone."""
        self.when_writable: Callable[[], None] | None = None
        """Called each time that the peer may be written to again."""
        self.client: tuple[str, int] | None = None
        """The peer's address and port; None on a Unix socket."""
        self.sent = 0
        """Bytes written."""
        self.writes = 0
        """Calls of `write`, while the peer was there."""

    # -- asyncio's callbacks -----------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but its type
        self.writable = True
        # asyncio's own mark of 64 KiB would let a reader who stopped reading hold so much, and be noticed so late.
        self._transport.set_write_buffer_limits(self._limits.high_water)
        # Where no TLS, tap or other loop is in between. (On Windows a socket is no file.)
        if type(transport).__module__ == "asyncio.selector_events" and os.name == "posix":
            self._fd = self._direct = transport.get_extra_info("socket").fileno()
        peer = transport.get_extra_info("peername")  # now: uvloop asks the socket, which may be closed later
        self.client = (peer if len(peer) == 2 else peer[:2]) if isinstance(peer, tuple) else None
        self._connected(self)

    def data_received(self, data: bytes) -> None:
        if self.dropping:
            return
        self._inbox.add(data)
        if self._readable is not None and not self._readable.done():
            self._readable.set_result(None)
        elif len(self._inbox) > self._limits.held:
            if self._body_ended:
                # With reading paused, a FIN or RST behind all this would go unnoticed. So it is read on and dropped;
                # since a request may be lost in it, this connection takes no more of them.
                self._inbox.clear()
                self.dropping = True
            else:
                self._read_on()

    def eof_received(self) -> bool:
        self._ended = True
        if sockets.was_reset(self._transport.get_extra_info("socket")):  # see there: it is no end
            self._transport.abort()
            return False
        self._wake(self._readable)
        if self.watched is not None:
            self.watched.lost(eof=True)
        # True: our side stays open, a short answer can still be sent. TLS has no half-closed connections.
        return not self.tls

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended = self._gone = True
        self.writable = False
        self._fd = self._direct = -1  # from now on it may be another's
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None
        self._wake(self._readable)
        self._wake(self._drained)
        if self.watched is not None:
            self.watched.lost(eof=False)
        self._lost(self)

    def pause_writing(self) -> None:
        self.writable = False

    def resume_writing(self) -> None:
        if not self._gone:
            self.writable = True
        self._wake(self._drained)
        if self.when_writable is not None:
            self._loop.call_soon(self._tell_writable)  # asyncio's transport breaks when a write fails in here

    def _tell_writable(self) -> None:
        if self.when_writable is not None and self.writable:
            self.when_writable()

    @staticmethod
    def _wake(waiting: asyncio.Future[None] | None) -> None:
        if waiting is not None and not waiting.done():
            waiting.set_result(None)

    # -- in ----------------------------------------------------------------------------------------------------------

    async def read(self, seconds: float, lines: float = LINES) -> bytes:
        """What has come, a piece of at most so many `lines` at a time; b"" at the end. Cancelling loses nothing.

        Raises ReadTimeout after `seconds` of nothing, and Disconnected if all is lost.
        """
        if self._inbox:
            self._work = await self._turns.go_on(self._work)  # who sends much shall not keep the others waiting
        elif not (self._ended or self.dropping):
            readable = self._readable = self._loop.create_future()
            deadline = self._deadlines.after(seconds, self._read_too_late)
            try:
                await readable
            finally:
                deadline.cancel()
                if self._readable is readable:  # else another one reads since
                    self._readable = None
        if not self._inbox and self._gone:
            raise Disconnected("the connection was lost")
        piece = self._inbox.take(lines)
        self._read_on()
        return piece

    def _read_on(self) -> None:
        """Go on receiving if there is room, or pause."""
        wanted = self._body_ended or len(self._inbox) <= self._limits.held
        if wanted is not self._reading and not self._transport.is_closing():
            self._reading = wanted
            (self._transport.resume_reading if wanted else self._transport.pause_reading)()

    @property
    def body_ended(self) -> bool:
        """What comes in belongs to a next request, and somebody works for this one, who shall hear of a loss."""
        return self._body_ended

    @body_ended.setter
    def body_ended(self, ended: bool) -> None:
        self._body_ended = ended
        self._read_on()

    def hurry(self, seconds: float) -> None:
        """Let the reading under way wait for no longer than `seconds` from now."""
        if (readable := self._readable) is not None:
            self._deadlines.after(seconds, lambda: self._read_too_late(readable))

    def _read_too_late(self, which: asyncio.Future[None] | None = None) -> None:
        readable = self._readable
        if readable is not None and which in (None, readable) and not readable.done():
            readable.set_exception(ReadTimeout("nothing came in time"))

    def watch(self, told: Callable[[], None], eof: bool = False) -> Watch:
        """A `with` block in which the loss of the peer (with `eof`, also the end of its sending) cancels the task.

        Raises Disconnected when that has happened already, and when it happens; `told` is called when it happens.
        """
        return Watch(self, eof, told)

    def check(self, eof: bool = False) -> None:
        """Raise Disconnected if the peer is gone (with `eof`, also if it ended its sending)."""
        if self._gone or self._transport.is_closing() or (eof and self._ended):
            raise Disconnected("the peer is gone")

    # -- out ---------------------------------------------------------------------------------------------------------

    def write(self, data: bytes | memoryview) -> bool:
        """Send `data` now, as far as the socket takes it; never waits. Nothing happens if the peer is gone.

        Returns `writable`.
        """
        if self._direct >= 0:  # asyncio's transport would do the same, at four times the price
            try:
                sent = os.write(self._direct, data)
            except OSError:
                sent = 0  # it meets this too, and knows what to do
            self.sent += sent
            if sent == len(data):
                self.writes += 1
                return True
            self._direct = -1
            return self._hand_over(memoryview(data)[sent:])
        if self._transport.is_closing():
            return False
        if self._fd >= 0 and not self._transport.get_write_buffer_size():
            self._direct = self._fd  # it has caught up
            return self.write(data)
        return self._hand_over(data)

    def _hand_over(self, data: bytes | memoryview) -> bool:
        if self._stall is None:  # then all that was sent before has left
            self._left, self._left_at = self.sent, self._loop.time()
            self._stall = self._deadlines.after(self._timeouts.write_stall / 4, self._look_for_stall)
        self.sent += len(data)
        self.writes += 1
        self._transport.write(data)
        return self.writable

    async def drain(self) -> None:
        """Wait until the peer may be written to. Raises Disconnected if it is gone."""
        while not self.writable and not self._gone:
            self._drained = self._loop.create_future()
            try:
                await self._drained
            finally:
                self._drained = None
        if self._gone:
            raise Disconnected("the connection was lost")

    def _look_for_stall(self) -> None:
        """A stall is a write buffer that does not shrink: nothing has left it for `write_stall` seconds."""
        self._stall = None
        waiting = self._transport.get_write_buffer_size()
        if not waiting:
            return
        now, left = self._loop.time(), self.sent - waiting
        if left > self._left:
            self._left, self._left_at = left, now
        elif now - self._left_at >= self._timeouts.write_stall:
            if self.watched is not None:
                self.watched.interrupt(Stalled("the peer takes nothing"))
            self.abort()
            return
        self._stall = self._deadlines.after(self._timeouts.write_stall / 4, self._look_for_stall)

    # -- the end -----------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Send what waits to be sent, under the same deadline, and close."""
        if not self._transport.is_closing():  # asyncio's TLS transport breaks when it is closed twice
            self._fd = self._direct = -1
            self._transport.close()

    async def linger(self, seconds: float, end_ours: bool = True) -> None:
        """Close so that the peer gets to read our last words, although it may still be sending.

        Closing with bytes unread makes the kernel reset the connection, and the peer's kernel drop what it has not
        read (RFC 9112 section 9.6). So what comes is dropped, for `seconds` at most, until the peer ends its side; ours
        ends first if `end_ours`.
        """
        try:
            if end_ours and self._transport.can_write_eof() and not self._transport.is_closing():
                with contextlib.suppress(OSError):  # the peer is gone, and this is told in a moment
                    self._transport.write_eof()
            self.dropping = False
            until = self._loop.time() + seconds
            with contextlib.suppress(RemoteError):
                while self._loop.time() < until and await self.read(until - self._loop.time()):
                    self._inbox.clear()
                    self._read_on()
        finally:
            self.close()

    def close_by_reset(self) -> None:
        """Let closing reset the connection: to an HTTP/1.0 client its end is a proper end."""
        if not self._gone:
            sockets.reset_when_closed(self._transport.get_extra_info("socket"))

    def abort(self) -> None:
        """Reset the connection at once; what waits to be sent is dropped, here and in the kernel."""
        if not self._gone:  # asyncio's transport breaks when it is aborted after its end
            self.close_by_reset()
            self._fd = self._direct = -1
            self._transport.abort()

    @property
    def unread(self) -> bool:
        """More has come than was read: it is held still, or was dropped, and more of it may be on its way."""
        return self.dropping or bool(self._inbox)

    @property
    def tls(self) -> bool:
        """The peer speaks TLS."""
        return self._transport.get_extra_info("sslcontext") is not None

    def soon(self, callback: Callable[[], None]) -> Deadline:
        """Call back in a while, with others."""
        return self._deadlines.after(GRAIN, callback)

    def later(self, seconds: float, callback: Callable[[], None]) -> asyncio.TimerHandle:
        """Call back after so many seconds, exactly: for the few short delays that a reader would see."""
        return self._loop.call_later(seconds, callback)
