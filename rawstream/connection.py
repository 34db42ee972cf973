"""The life of one connection, and of one chunk.

A connection is a task that reads a head, runs the handler, sends what it answers, and starts again. The way of a
chunk through it, from `yield` to the socket:

1. The handler's generator yields an item.                                              (your code)
2. The stream's encoder makes bytes of it: `data: …`, `,"是"`, a line.                    formats
3. The pump gathers them until the generator waits, and then writes.                      pump
4. The sink puts the head before the first of them, compresses if asked to, and frames.   exchange, encoding, wire
5. The transport hands them to the socket; if the reader is behind, the pump waits.       transport

Each wait of the generator goes up to the task, and each wake-up down again, through all that awaits it. So the pump is
run by the connection's own coroutine, and what a request needs before and after its items is done by its `cycle`.
"""

from __future__ import annotations

import asyncio
import contextvars
import time

from . import answers, observe
from .cycle import Cut, Cycle, new_id
from .errors import Disconnected, ReadTimeout, RemoteError
from .framing import CLOSED, NEED_DATA
from .messages import RequestHead
from .observe import Record
from .recall import RecallingWire
from .service import NoRoom, Service
from .transport import Transport

_TIME_TO_READ = 1.0  # seconds, at most; with 50 ms Chromium's pages had read the reason in 10 of 10 tries

# Seconds for which a server that closes waits for requests that are on their way: a client that was accepted just now
# has been promised an answer (Go's http.Server waits 5 s for those), one that keeps a connection must expect its end.
_FIRST, _AGAIN = 1.0, 0.1


class Connection:
    """Serves one peer, until either side has enough."""

    __slots__ = ("_began", "_clock", "_cycle", "_requests", "_service", "_transport", "_wire", "idle", "task")

    def __init__(self, transport: Transport, service: Service) -> None:
        self._transport = transport
        self._service = service
        self._wire = RecallingWire(service.limits.head, service.limits.headers, service.limits.target)
        self._cycle: Cycle | None = None  # the request under way
        self._requests = 0  # how many there were
        self._began = time.monotonic()  # a request did, with its first byte
        self._clock = asyncio.get_running_loop().time  # what deadlines go by
        self.task: asyncio.Task[bool] | None = None
        """Which runs it now."""
        self.idle = True
        """No request has begun, or the last is answered."""

    async def run(self) -> bool:
        """The whole life. Cancelling it closes the generator at work, and the connection.

        True: a request left context variables behind in this task. They are not for the next one, which may be another
        user's, by way of a proxy: it is to be served by another `run`, in another task.
        """
        transport, wire, timeouts = self._transport, self._wire, self._service.timeouts
        most, context = self._service.limits.requests, contextvars.copy_context()
        try:
            patience = timeouts.keep_alive if self._requests else timeouts.head
            while (head := await self._read_head(patience)) is not None:
                async with Cycle(head, transport, wire, self._service, self._requests >= most) as self._cycle:
                    if (pump := await self._cycle.answer()) is not None:
                        with self._cycle.watch():
                            await pump.run()
                self._cycle = pump = head = None  # of it, `recall` alone may keep something till the next one
                if not transport.writable:
                    await transport.drain()
                if not wire.reusable:
                    break
                wire.next_cycle()
                transport.body_ended = False
                if _differ(context, contextvars.copy_context()):
                    return True
                if wire.begun:
                    await asyncio.sleep(0)  # who sends many requests at once shall not keep the others waiting
                patience = timeouts.keep_alive
            await self._finish()
        except Cut as cut:
            # A browser that learns that a body is cut drops what its page has not read yet: the reason, for example.
            await transport.linger(min(_TIME_TO_READ, timeouts.linger) if cut.told else 0.0, end_ours=False)
        except Disconnected:
            transport.abort()
        except RemoteError as error:
            await self._refuse(error, "head")
        except BaseException:
            transport.abort()
            raise
        return False

    async def turn_away(self, reason: observe.Reason) -> bool:
        """There is no room for this connection: say so, and close it. False, as from `run`: this is its whole life."""
        try:
            await self._refuse(NoRoom("too many connections are open"), reason)
        except BaseException:
            self._transport.abort()
            raise
        return False

    def begin_closing(self) -> None:
        """The server closes: an idle connection goes, a stream tells its reader."""
        if self.idle:
            self._transport.hurry(self._last_call)
        elif self._cycle is not None:
            self._cycle.tell_closing()

    @property
    def _last_call(self) -> float:
        """Seconds for which a request is waited for while the server closes."""
        return _AGAIN if self._requests else _FIRST

    # -- a request ---------------------------------------------------------------------------------------------------

    async def _read_head(self, patience: float) -> RequestHead | None:
        """The next request's head; None when no more will come, or none has begun in `patience` seconds."""
        transport, wire = self._transport, self._wire
        self.idle, self._began = not wire.begun, time.monotonic()
        if self._service.closing.is_set():
            patience = min(patience, self._last_call)
        until = self._clock() + (patience if self.idle else self._service.timeouts.head)
        while (event := wire.receive()) is NEED_DATA:
            try:
                data = await transport.read(until - self._clock())
            except ReadTimeout:
                if self.idle:
                    return None
                raise
            if self.idle and data:
                self.idle, self._began = False, time.monotonic()
                until = self._clock() + self._service.timeouts.head
            if not data and transport.unread:
                return None  # it is we who dropped the rest of this request
            wire.feed(data)
        if event is CLOSED:
            return None
        assert isinstance(event, RequestHead), "h11 begins each cycle with a request"
        self.idle = False
        self._requests += 1
        return event

    # -- what is no request --------------------------------------------------------------------------------------------

    async def _refuse(self, error: Exception, reason: observe.Reason) -> None:
        """Answer what is no request, or not to be served, as well as can be, and close."""
        assert self._wire.answerable, "what goes wrong once a request is here is told by its Cycle"
        number = new_id()
        answer = answers.failure(error, number, self._wire.accept)
        own = [*answers.fields(answer.headers), ("Connection", "close")]
        data = self._wire.respond(answer.status, own, answer.body)
        record = Record(None, self._began, answer.status, sent=len(data), outcome="refused", id=number)
        record.client, record.line, record.reason = self._transport.client, self._wire.line, answers.verdict(error)[1]
        self._transport.write(data)
        observe.refused(reason)
        observe.ended(record)
        await self._transport.linger(self._service.timeouts.linger)

    async def _finish(self) -> None:
        # Our end first in any case: who sends a next request just now reads a proper end and not a reset.
        if self._transport.dropping:
            observe.refused("pipelined")
        rest_comes = self._transport.unread or not (self._wire.request_ended or self.idle)
        await self._transport.linger(self._service.timeouts.linger if rest_comes else 0.0)


def _differ(before: contextvars.Context, after: contextvars.Context) -> bool:
    """Whether a variable was set or unset. By identity: what `==` of the program's values does is its own affair."""
    return len(before) != len(after) or any(after.get(var, after) is not value for var, value in before.items())
