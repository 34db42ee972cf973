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
from .backlog import Backlog
from .config import Limits, Timeouts
from .deadlines import GRAIN, Deadline, Deadlines
from .errors import Disconnected, ReadTimeout, RemoteError, Stalled
from .inbox import LINES, Inbox
from .turns import NO_WORK, Turns
from .watch import Watch

_PLAIN = ("asyncio.selector_events._SelectorSocketTransport", "uvloop.loop.TCPTransport", "uvloop.loop.UnixTransport")
"""Around these we may send on the socket ourselves, while they have nothing to send: no TLS or tap is in between.
(But on Windows a socket is no file.)"""


class Transport(asyncio.Protocol):
    """One connection to a peer. `connected` is called when it is there, `lost` when it is gone for good."""

    __slots__ = (
        "__weakref__", "_backlog", "_body_ended", "_connected", "_deadlines", "_direct", "_drained", "_ended",
        "_fd", "_gone", "_inbox", "_limits", "_loop", "_lost", "_readable", "_reading", "_timeouts", "_transport",
        "_turns", "_work", "client", "dropping", "sent", "watched", "when_writable", "writable", "writes",
    )  # fmt: skip

    def __init__(
        self,
        limits: Limits,
        timeouts: Timeouts,
        deadlines: Deadlines,
        connected: Callable[[Transport], None],
        lost: Callable[[Transport], None],
    ) -> None:
        self._limits, self._timeouts, self._deadlines = limits, timeouts, deadlines
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
        self._backlog: Backlog | None = None  # once there is any
        self._fd = -1  # the socket, if we may send on it ourselves ...
        self._direct = -1  # ... and when: not while the loop's transport has something to send
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
        if f"{type(transport).__module__}.{type(transport).__name__}" in _PLAIN and os.name == "posix":
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
        self._let_go()
        self._ended = self._gone = True
        self.writable = False
        if self._backlog is not None and self._backlog.forget() and isinstance(exc, TimeoutError):
            self._stalled()  # the kernel has seen it before us (TCP_USER_TIMEOUT)
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
        """Send `data`, as far as the socket takes it now; never waits. Nothing happens if the peer is gone.

        Returns `writable`.
        """
        if self._direct < 0:
            if self._transport.is_closing():
                return False
            if self._fd >= 0 and not self._transport.get_write_buffer_size():
                self._direct = self._fd  # it has caught up
        self.sent += len(data)
        self.writes += 1
        if self._direct < 0:
            return self._keep(data)
        try:
            # asyncio's transport would do the same, at four times the price; uvloop's may wait until the turn ends.
            sent = os.write(self._direct, data)
        except OSError:
            sent = 0  # it meets this too, and knows what to do
        return True if sent == len(data) else self._keep(memoryview(data)[sent:])

    def _keep(self, rest: bytes | memoryview) -> bool:
        """Let the loop's transport send what the socket does not take now. Returns `writable`."""
        self._direct = -1
        if self._transport.is_closing():
            return False
        if self._backlog is None:
            self._backlog = Backlog(self._transport, self._deadlines, self._timeouts.write_stall, self._stalled)
        self._backlog.add(rest)
        return self.writable

    def _stalled(self) -> None:
        if self.watched is not None:
            self.watched.interrupt(Stalled("the peer takes nothing"))
        self.abort()

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

    # -- the end -----------------------------------------------------------------------------------------------------

    def _let_go(self) -> None:
        """Of the socket: it is about to be closed, and its number may soon be another's."""
        self._fd = self._direct = -1

    def close(self) -> None:
        """Send what waits to be sent, under the same deadline, and close."""
        if not self._transport.is_closing():  # asyncio's TLS transport breaks when it is closed twice
            self._let_go()
            self._transport.close()

    async def linger(self, seconds: float, end_ours: bool = True) -> None:
        """Close so that the peer gets to read our last words, although it may still be sending.

        Closing with bytes unread makes the kernel reset the connection, and the peer's kernel drop what it has not
        read (RFC 9112 section 9.6). So what comes is dropped, for `seconds` at most, until the peer ends its side; ours
        ends first if `end_ours`.
        """
        try:
            if end_ours and self._transport.can_write_eof() and not self._transport.is_closing():
                self._let_go()
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
            self._let_go()
            self.close_by_reset()
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
