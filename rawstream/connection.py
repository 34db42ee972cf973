"""The life of one connection, and of one chunk.

A connection is one task that reads a head, runs the handler, sends what it answers, and starts again. The way of a
chunk through it, from `yield` to the socket:

1. The handler's generator yields an item.                                              (your code)
2. The stream's encoder makes bytes of it: `data: …`, `,"是"`, a line.                    formats
3. The pump gathers them until the generator waits, and then writes.                      pump
4. The sink puts the response's head before the first of them, and frames them.           exchange, wire
5. The transport hands them to the socket; if the reader is behind, the pump waits.       transport

The generator is closed in one place, `_stream`'s `finally`, whatever happened and whether it ever started. Failures
become a status as long as no head has left; later ones are told in the stream, where its format can, and the connection
is cut without the end of the body, so that every client can tell "cut" from "complete".
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import secrets
import time
from typing import Any

from . import answers, formats, observe
from .encoding import Gzip
from .errors import AnswerError, Disconnected, HTTPError, ReadTimeout, RemoteError, Stalled, phrase
from .exchange import RequestBody, StreamSink, pump_for
from .formats import Encoder
from .messages import Request, RequestHead, Response, Stream
from .observe import Record
from .patience import Overdue, Patience
from .pump import Pump
from .service import NoRoom, Service
from .transport import Transport
from .wire import CLOSED, NEED_DATA, ServerWire

log = logging.getLogger("rawstream")

_ids = map(f"{secrets.token_hex(3)}-{{}}".format, itertools.count(1))

_PIECE = 64 * 1024  # bytes of a body handed over at once, so that a reader who stops holds no more of a large one
_TIME_TO_READ = 1.0  # seconds, at most; with 50 ms Chromium's pages had read the reason in 10 of 10 tries

# Seconds for which a server that closes waits for requests that are on their way: a client that was accepted just now
# has been promised an answer (Go's http.Server waits 5 s for those), one that keeps a connection must expect its end.
_FIRST, _AGAIN = 1.0, 0.1


class _Cut(Exception):
    """A response broke off after its head had left: nothing more can follow on this connection."""

    def __init__(self, told: bool = False) -> None:
        super().__init__()
        self.told = told  # the reader was told why


class Connection:
    """Serves one peer, until either side has enough."""

    __slots__ = ("_began", "_granted", "_requests", "_service", "_sink", "_transport", "_wire", "idle", "task")

    def __init__(self, transport: Transport, service: Service) -> None:
        self._transport = transport
        self._service = service
        self._wire = ServerWire(service.limits.head, service.limits.headers, service.limits.target)
        self._sink: StreamSink | None = None  # where the stream under way is written
        self._granted: tuple[tuple[str, str], ...] = ()  # fields that let a page of another origin read the answer
        self._requests = 0  # how many there were
        self._began = time.monotonic()  # a request did, with its first byte
        self.task: asyncio.Task[None] | None = None
        """Which runs it."""
        self.idle = True
        """No request has begun, or the last is answered."""

    async def run(self) -> None:
        """The whole life. Cancelling it closes the generator at work, and the connection."""
        transport, wire, timeouts = self._transport, self._wire, self._service.timeouts
        try:
            patience = timeouts.head
            while (head := await self._read_head(patience)) is not None:
                await self._serve(head)
                await transport.drain()
                if not wire.reusable:
                    break
                wire.next_cycle()
                transport.body_ended = False
                if wire.begun:
                    await asyncio.sleep(0)  # who sends many requests at once shall not keep the others waiting
                patience = timeouts.keep_alive
            await self._finish()
        except _Cut as cut:
            # A browser that learns that a body is cut drops what its page has not read yet: the reason, for example.
            await transport.linger(min(_TIME_TO_READ, timeouts.linger) if cut.told else 0.0, end_ours=False)
        except Disconnected:
            transport.abort()
        except RemoteError as error:
            await self._refuse(error, "head")
        except BaseException:
            transport.abort()
            raise

    async def turn_away(self, reason: observe.Reason) -> None:
        """There is no room for this connection: say so, and close it."""
        try:
            await self._refuse(NoRoom("too many connections are open"), reason)
        except BaseException:
            self._transport.abort()
            raise

    def begin_closing(self) -> None:
        """The server closes: an idle connection goes, a stream tells its reader."""
        if self.idle:
            self._transport.hurry(self._last_call)
        elif self._sink is not None:
            self._sink.tell_closing()

    @property
    def _last_call(self) -> float:
        return _AGAIN if self._requests else _FIRST

    # -- a request ---------------------------------------------------------------------------------------------------

    async def _read_head(self, patience: float) -> RequestHead | None:
        """The next request's head; None when no more will come, or none has begun in `patience` seconds."""
        transport, wire = self._transport, self._wire
        self.idle, self._began = not wire.begun, time.monotonic()
        if self._service.closing.is_set():
            patience = min(patience, self._last_call)
        clock = asyncio.get_running_loop().time
        until = clock() + (patience if self.idle else self._service.timeouts.head)
        while (event := wire.receive()) is NEED_DATA:
            try:
                data = await transport.read(until - clock())
            except ReadTimeout:
                if self.idle:
                    return None
                raise
            if self.idle and data:
                self.idle, self._began = False, time.monotonic()
                until = clock() + self._service.timeouts.head
            if not data and transport.unread:
                return None  # it is we who dropped the rest of this request
            wire.feed(data)
        if event is CLOSED:
            return None
        assert isinstance(event, RequestHead), "h11 begins each cycle with a request"
        self.idle = False
        self._requests += 1
        return event

    async def _serve(self, head: RequestHead) -> None:
        service, transport = self._service, self._transport
        body = RequestBody(transport, self._wire, head.headers, service.limits.body, service.timeouts.body)
        client, scheme = service.access.peer(transport.client, transport.tls, head.headers)
        request = Request(head, client, next(_ids), service.closing, body, scheme=scheme)
        record = Record(request, time.monotonic(), client=client, writer=transport)
        observe.began(record)
        self._granted = ()
        patience = Patience(request, transport, service.deadlines, service.timeouts)
        try:
            body.check()
            answer = await self._ask(request, patience)
            if isinstance(answer, Stream):
                await self._stream(request, answer, record, patience)
                body.skip()
            else:
                await self._respond(answer, body, record)
            record.outcome = "complete"
        except Disconnected as error:
            record.outcome = "stalled" if isinstance(error, Stalled) else "client gone"
            raise
        except asyncio.CancelledError:
            record.outcome = "cancelled"
            raise
        except Exception as error:
            record.outcome = _outcome(error, self._wire.answerable)
            await self._fail(request, body, error, record)
        finally:
            body.end()
            patience.end()
            observe.ended(record)

    async def _ask(self, request: Request, patience: Patience) -> Response | Stream:
        """What the handler answers."""
        access = self._service.access
        granted = access.admit(request.head, request.scheme)
        if (preflight := access.preflight(request.head)) is not None:
            return preflight
        self._granted = granted
        if request.method == "GET" and request.last_event_id == formats.END_ID:
            # EventSource comes back when a stream has ended; 204 is how it is told to stop (WHATWG HTML 9.2.3).
            return Response(204)
        with self._transport.watch(patience.told):
            answer: Any = self._service.handler
            while callable(answer) and not isinstance(answer, type):  # a handler may leave it to another one
                answer = answer(request)
                if hasattr(answer, "__await__"):
                    answer = await answer
        if isinstance(answer, Response | Stream):
            return answer
        if hasattr(answer, "__aiter__"):
            return Stream(answer)
        raise AnswerError(
            f"a handler returns a Response or a Stream, or is an async generator that yields items; "
            f"for {request.method} {request.path} it returned {type(answer).__name__}"
        )

    async def _respond(self, answer: Response, body: RequestBody, record: Record) -> None:
        body.skip()
        own = [*answers.fields(answer.headers), *self._granted, *self._last_words(self._wire.request_ended)]
        head, data = self._wire.respond_apart(answer.status, own, answer.body)
        record.status = answer.status
        self._transport.write(head + data[:_PIECE])
        for start in range(_PIECE, len(data), _PIECE):
            with self._transport.watch(lambda: None):  # the handler has ended: there is nobody else to tell
                await asyncio.sleep(0)  # who takes all of it at once shall not keep the others waiting
                await self._transport.drain()
            self._transport.write(memoryview(data)[start : start + _PIECE])

    def _last_words(self, read: bool = True) -> tuple[tuple[str, str], ...]:
        """What tells the peer that this is the last answer here; `read`: its request was. A stream may yet read it."""
        more = self._requests < self._service.limits.requests and read and not self._transport.dropping
        return () if more and not self._service.closing.is_set() else (("Connection", "close"),)

    # -- a stream ----------------------------------------------------------------------------------------------------

    async def _stream(self, request: Request, stream: Stream, record: Record, patience: Patience) -> None:
        iterator: Any = aiter(stream.iterator)
        try:
            if (begun := self._begin(request, stream, iterator, record)) is None:
                return
            sink, pump = begun
            try:
                patience.first_item(pump)
                with self._transport.watch(patience.told, eof=True):
                    await pump.run()
                sink.finish(pump.take())
            except Disconnected:
                raise
            except Exception as error:
                if self._wire.answerable:
                    raise  # it becomes a status
                _log_failure(request, error)
                status, message = answers.verdict(error)
                raise _Cut(sink.break_off(pump.take(), status, message or phrase(status))) from error
            finally:
                self._sink = None
                sink.close()
                self._service.end_stream()
        finally:
            await patience.close(iterator)

    def _begin(self, request: Request, stream: Stream, iterator: Any, record: Record) -> tuple[StreamSink, Pump] | None:
        """The way of the items to the wire. None if there is none: then the head has left, and that was all."""
        service = self._service
        sent_as = answers.represent(stream, request.headers)
        head = self._wire.prepare(stream.status, [*sent_as.fields, *self._granted, *self._last_words()])
        if request.method == "HEAD" or stream.status in (204, 304):
            record.status = stream.status
            self._transport.write(self._wire.start(head)[0] + self._wire.end())
            return None
        # Who pumps by itself, a channel's reader, encodes by itself too.
        encoder: Encoder = iterator if hasattr(iterator, "__pump__") else sent_as.format.encoder()
        gzip = Gzip() if sent_as.gzip else None
        service.begin_stream(record)
        record.status = stream.status
        sink = self._sink = StreamSink(
            self._transport, self._wire, service.deadlines, head, encoder, sent_as.format, stream, record, gzip
        )
        if service.closing.is_set():
            sink.tell_closing()
        return sink, pump_for(stream, iterator, encoder, sink)

    # -- failures ----------------------------------------------------------------------------------------------------

    async def _fail(self, request: Request, body: RequestBody, error: Exception, record: Record) -> None:
        """Answer a failure with a status, or where a head has left, with the end of the connection."""
        if isinstance(error, _Cut):
            raise error
        _log_failure(request, error)
        if not self._wire.answerable:
            raise _Cut from error
        accept = request.headers.get("accept")
        try:
            await self._respond(answers.failure(error, request.id, accept), body, record)
        except AnswerError as unsendable:  # the fields of the handler's own HTTPError; this one has none
            _log_failure(request, unsendable)
            await self._respond(answers.failure(unsendable, request.id, accept), body, record)

    async def _refuse(self, error: Exception, reason: observe.Reason) -> None:
        """Answer what is no request, or not to be served, as well as can be, and close."""
        assert self._wire.answerable, "what goes wrong once a request is here is told by _fail"
        number = next(_ids)
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


def _outcome(error: Exception, answerable: bool) -> observe.Outcome:
    """How a request ended that failed; `answerable`: before its head, so that a status says it all."""
    if isinstance(error, _Cut) and isinstance(error.__cause__, Exception):
        error = error.__cause__
    if isinstance(error, Overdue):
        return "timeout"
    if isinstance(error, NoRoom):
        return "refused"
    return "complete" if answerable and isinstance(error, RemoteError | HTTPError) else "error"


def _log_failure(request: Request, error: Exception) -> None:
    """What went wrong on our side, in full; what the peer or a handler's own HTTPError said is no failure of ours."""
    if not isinstance(error, RemoteError | HTTPError):
        log.error("%s %s %s failed", request.id, request.method, request.head.target, exc_info=error)
