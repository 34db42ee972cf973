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
from email.utils import formatdate
from typing import Literal

from . import formats, observe
from .config import Limits, Timeouts
from .deadlines import Deadlines
from .errors import AnswerError, Disconnected, HTTPError, RawstreamError, ReadTimeout, RemoteError, phrase
from .exchange import RequestBody, StreamSink
from .formats import Format
from .messages import Every, Handler, Headers, Request, RequestHead, Response, Stream, pairs
from .pump import GATHER, Pump, close
from .transport import Transport
from .wire import CLOSED, NEED_DATA, ServerWire

log = logging.getLogger("rawstream")

_PROCESS = secrets.token_hex(3)
_numbers = itertools.count(1)


_TIME_TO_READ = 1.0  # seconds, at most; with 50 ms Chromium's pages had read the reason in 10 of 10 tries


class _Cut(Exception):
    """A response broke off after its head had left: nothing more can follow on this connection."""

    def __init__(self, told: bool = False) -> None:
        super().__init__()
        self.told = told  # the reader was told why


class Connection:
    """Serves one peer with `handler`, until either side has enough."""

    def __init__(
        self,
        transport: Transport,
        handler: Handler,
        limits: Limits,
        timeouts: Timeouts,
        deadlines: Deadlines,
        closing: asyncio.Event,
    ) -> None:
        self._transport = transport
        self._handler = handler
        self._limits = limits
        self._timeouts = timeouts
        self._deadlines = deadlines
        self._closing = closing
        self._client = transport.client
        self._wire = ServerWire(limits.head, limits.headers)
        self._sink: StreamSink | None = None  # where the stream under way is written
        self._status = 0  # what the request under way was answered with
        self.idle = True
        """No request has begun, or the last is answered."""

    async def run(self) -> None:
        """The whole life. Cancelling it closes the generator at work, and the connection."""
        transport, wire = self._transport, self._wire
        try:
            patience = self._timeouts.head
            while (head := await self._read_head(patience)) is not None:
                await self._serve(head)
                await transport.drain()
                if self._closing.is_set() or not wire.reusable:
                    break
                wire.next_cycle()
                if wire.begun:
                    await asyncio.sleep(0)  # who sends many requests at once shall not keep the others waiting
                patience = self._timeouts.keep_alive
            await self._finish()
        except _Cut as cut:
            # A browser that learns that a body is cut drops what its page has not read yet: the reason, for example.
            await transport.linger(min(_TIME_TO_READ, self._timeouts.linger) if cut.told else 0.0, end_ours=False)
        except Disconnected:
            transport.abort()
        except RemoteError as error:
            await self._refuse(error)
        except BaseException:
            transport.abort()
            raise

    def begin_closing(self) -> None:
        """The server closes: an idle connection goes at once, a stream tells its reader."""
        if self.idle:
            self._transport.close()
        elif self._sink is not None:
            self._sink.tell_closing()

    # -- a request ---------------------------------------------------------------------------------------------------

    async def _read_head(self, patience: float) -> RequestHead | None:
        """The next request's head; None when no more will come, or none has begun in `patience` seconds."""
        transport, wire = self._transport, self._wire
        transport.body_ended = False
        self.idle = not wire.begun
        clock = asyncio.get_running_loop().time
        until = clock() + (patience if self.idle else self._timeouts.head)
        while (event := wire.receive()) is NEED_DATA:
            try:
                data = await transport.read(until - clock())
            except ReadTimeout:
                if self.idle:
                    return None
                raise
            if self.idle and data:
                self.idle = False
                until = clock() + self._timeouts.head
            wire.feed(data)
        if event is CLOSED:
            return None
        assert isinstance(event, RequestHead), "h11 begins each cycle with a request"
        self.idle = False
        return event

    async def _serve(self, head: RequestHead) -> None:
        transport = self._transport
        body = RequestBody(transport, self._wire, head.headers, self._limits.body, self._timeouts.body)
        request = Request(head, self._client, f"{_PROCESS}-{next(_numbers)}", self._closing, body)
        began, sent, outcome = time.monotonic(), transport.sent, "cut"
        self._status = 0
        try:
            answer = await self._ask(request)
            if isinstance(answer, Stream):
                await self._stream(request, answer)
                body.skip()
            else:
                self._respond(answer, body)
            outcome = "complete"
        except Disconnected:
            outcome = "client gone"
            raise
        except asyncio.CancelledError:
            outcome = "cancelled"
            raise
        except Exception as error:
            self._fail(request, body, error)
            outcome = "complete"
        finally:
            observe.served(request, self._status, transport.sent - sent, time.monotonic() - began, outcome)

    async def _ask(self, request: Request) -> Response | Stream:
        """What the handler answers."""
        if request.method == "GET" and request.last_event_id == formats.END_ID:
            # EventSource comes back when a stream has ended; 204 is how it is told to stop (WHATWG HTML 9.2.3).
            return _nothing_more(request)
        with self._transport.watch():
            answer = self._handler(request)
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

    def _respond(self, answer: Response, body: RequestBody) -> None:
        body.skip()
        own = pairs(answer.headers)
        fields = [*own] if "date" in Headers(own) else [("Date", _date()), *own]
        if self._closing.is_set() or not self._wire.request_ended:
            fields.append(("Connection", "close"))
        data = self._wire.respond(answer.status, fields, answer.body)
        self._status = answer.status
        self._transport.write(data)

    # -- a stream ----------------------------------------------------------------------------------------------------

    async def _stream(self, request: Request, stream: Stream) -> None:
        iterator = aiter(stream.iterator)
        try:
            form, fields = _represent(request, stream)
            head = self._wire.prepare(stream.status, fields)
            self._status = stream.status
            if request.method == "HEAD" or stream.status in (204, 304):
                self._transport.write(self._wire.start(head)[0] + self._wire.end())
                return
            encoder = form.encoder()
            sink = self._sink = StreamSink(self._transport, self._wire, self._deadlines, head, encoder, form, stream)
            if self._closing.is_set():
                sink.tell_closing()
            pump = Pump(iterator, encoder.encode, sink, *_gathering(stream.flush))
            try:
                with self._transport.watch(eof=True):
                    await pump.run()
                sink.finish(pump.take() + encoder.end())
            except Disconnected:
                raise
            except Exception as error:
                if self._wire.answerable:
                    raise  # it becomes a status
                _log_failure(request, error)
                status, message = _verdict(error)
                told = encoder.error(status, message or phrase(status))
                sink.break_off(pump.take() + told)
                raise _Cut(bool(told)) from error
            finally:
                self._sink = None
                sink.close()
        finally:
            await close(iterator)

    # -- failures ----------------------------------------------------------------------------------------------------

    def _fail(self, request: Request, body: RequestBody, error: Exception) -> None:
        """Answer a failure with a status, or where a head has left, with the end of the connection."""
        if isinstance(error, _Cut):
            raise error
        _log_failure(request, error)
        if not self._wire.answerable:
            raise _Cut from error
        try:
            self._respond(_error_response(error), body)
        except Exception as unsendable:  # the fields of the handler's own HTTPError; this one has none
            self._fail(request, body, unsendable)

    async def _refuse(self, error: RemoteError) -> None:
        """Answer what is no request, as well as can be, and close."""
        assert self._wire.answerable, "what goes wrong once a request is here is told by _fail"
        answer = _error_response(error)
        fields = [("Date", _date()), *pairs(answer.headers), ("Connection", "close")]
        self._transport.write(self._wire.respond(answer.status, fields, answer.body))
        await self._transport.linger(self._timeouts.linger)

    async def _finish(self) -> None:
        if self._wire.request_ended or self.idle:
            self._transport.close()
        else:
            await self._transport.linger(self._timeouts.linger)


def _nothing_more(request: Request) -> Response:
    origin = request.headers.get("origin")
    if origin is None:
        return Response(204)
    # A page of another origin may only see it if it is let to (Fetch, section 3.2), and there is nothing in it to hide.
    allow = [("Access-Control-Allow-Origin", origin), ("Access-Control-Allow-Credentials", "true"), ("Vary", "Origin")]
    return Response(204, allow)


def _represent(request: Request, stream: Stream) -> tuple[Format, list[tuple[str, str]]]:
    """The format that this client is sent, and the response's fields. Raises NotAcceptable or LocalError."""
    own = pairs(stream.headers)
    if stream.format is None:
        form = formats.negotiate(request.headers.get("accept"))
        defaults = [("Date", _date()), ("Content-Type", form.content_type), ("Vary", "Accept"), *form.headers]
    else:
        form = formats.fixed(stream.format)
        defaults = [("Date", _date()), ("Content-Type", form.content_type), *form.headers]
    named = {name.lower() for name, _ in own}
    return form, [field for field in defaults if field[0].lower() not in named] + [*own]


def _gathering(flush: Literal["item"] | Every | None) -> tuple[int, float]:
    """A flush policy as what the pump takes: bytes to gather, seconds to hold."""
    if isinstance(flush, Every):
        return flush.bytes, flush.seconds
    return (1 if flush == "item" else GATHER), 0.0


def _verdict(error: Exception) -> tuple[int, str]:
    """The status for an error, and what the client may know of it."""
    return (error.status, error.public) if isinstance(error, RawstreamError) else (500, "")


def _error_response(error: Exception) -> Response:
    status, message = _verdict(error)
    headers = error.headers if isinstance(error, HTTPError) else ()
    line = f"{status} {phrase(status)}" + (f": {message}" if message else "") + "\n"
    # A detail may quote what the client sent, half a surrogate pair for example.
    return Response.text(line.encode(errors="replace").decode(), status, headers)


def _log_failure(request: Request, error: Exception) -> None:
    """What went wrong on our side, in full; what the peer or a handler's own HTTPError said is no failure of ours."""
    if not isinstance(error, RemoteError | HTTPError):
        log.error("%s %s %s failed", request.id, request.method, request.head.target, exc_info=error)


_date_cache = (0, "")


def _date() -> str:
    """The Date field's value (RFC 9110 section 6.6.1), made once a second."""
    global _date_cache
    now = int(time.time())
    if _date_cache[0] != now:
        _date_cache = now, formatdate(now, usegmt=True)
    return _date_cache[1]
