"""One request and its answer, a cycle of the connection (h11's word for it): begun, failed, ended.

What a chunk passes again and again is not here but in `Connection.run`: a wake-up goes from the task to the pump, past
all that waits for the end.

The generator is closed in one place, `_end_stream`, whatever happened and whether it ever started. Failures become a
status as long as no head has left; later ones are told in the stream, where its format can, and the connection is cut
without the end of the body, so that every client can tell "cut" from "complete".
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import secrets
import time
from types import TracebackType
from typing import Any

from . import answers, formats, observe
from .encoding import Gzip
from .errors import AnswerError, Disconnected, HTTPError, LocalError, RemoteError, Stalled, phrase
from .exchange import RequestBody, StreamSink, pump_for
from .formats import Encoder
from .messages import Request, RequestHead, Response, Stream
from .observe import Record
from .patience import Overdue, Patience
from .pump import Pump
from .service import NoRoom, Service
from .transport import Transport
from .watch import Watch
from .wire import ServerWire

log = logging.getLogger("rawstream")

new_id = map(f"{secrets.token_hex(3)}-{{}}".format, itertools.count(1)).__next__
"""A name for the next request, as 9f3c01-17: its process, by chance, and its number there."""

_PIECE = 64 * 1024  # bytes of a body handed over at once, so that a reader who stops holds no more of a large one


class Cut(Exception):
    """A response broke off after its head had left: nothing more can follow on this connection."""

    def __init__(self, told: bool = False) -> None:
        super().__init__()
        self.told = told  # the reader was told why


class Cycle:
    """`async with Cycle(...) as cycle:` what `answer` gives is to be run in it; the rest is done by its end.

    last: no more requests are taken here after this one. Raises Disconnected and Cut; every other failure is answered.
    """

    __slots__ = (
        "_body", "_granted", "_iterator", "_last", "_patience", "_pump", "_record", "_request", "_service", "_sink",
        "_transport", "_wire",
    )  # fmt: skip

    def __init__(self, head: RequestHead, transport: Transport, wire: ServerWire, service: Service, last: bool) -> None:
        self._transport, self._wire, self._service, self._last = transport, wire, service, last
        self._body = RequestBody(transport, wire, head.headers, service.limits.body, service.timeouts.body)
        client, scheme = service.access.peer(transport.client, transport.tls, head.headers)
        self._request = Request(head, client, new_id(), service.closing, self._body, scheme=scheme)
        self._record = Record(self._request, time.monotonic(), client=client, writer=transport)
        self._granted: tuple[tuple[str, str], ...] = ()  # fields that let a page of another origin read the answer
        self._iterator: Any = None  # the stream's, which is to be closed
        self._sink: StreamSink | None = None  # where it is written
        self._pump: Pump | None = None  # what moves it
        observe.began(self._record)
        self._patience = Patience(self._request, transport, service.deadlines, service.timeouts)

    async def __aenter__(self) -> Cycle:
        return self

    async def answer(self) -> Pump | None:
        """Ask the handler, and send what it answers; of a stream only what comes before its items.

        Returns what moves the items, to be run in a `watch`; None if that was all.
        """
        self._body.check()
        answer = await self._ask()
        if isinstance(answer, Stream):
            return self._begin_stream(answer)
        await self._respond(answer)
        return None

    def watch(self) -> Watch:
        """Cancels the stream when its reader is gone."""
        return self._transport.watch(self._patience.told, eof=True)

    def tell_closing(self) -> None:
        """The server closes: a stream tells its reader."""
        if self._sink is not None:
            self._sink.tell_closing()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        record = self._record
        try:
            await self._end_stream(error)
            record.outcome = "complete"
        except Disconnected as gone:
            record.outcome = "stalled" if isinstance(gone, Stalled) else "client gone"
            raise
        except asyncio.CancelledError as cancelled:
            record.outcome = "cancelled"
            if self._is_wanted():
                record.outcome = "error"
                _log_failure(self._request, _stray(cancelled))
            raise
        except Exception as failure:
            record.outcome = _outcome(failure, self._wire.answerable)
            await self._fail(failure)
        finally:
            self._body.end()
            self._patience.end()
            observe.ended(record)
            del error, traceback  # which hold this frame: the cycle would keep the generator's locals
        return True

    def _is_wanted(self) -> bool:
        """The server does not close, and the reader is there."""
        with contextlib.suppress(Disconnected):
            self._transport.check()
            return not self._service.closing.is_set()
        return False

    # -- a response --------------------------------------------------------------------------------------------------

    async def _ask(self) -> Response | Stream:
        """What the handler answers."""
        access, request = self._service.access, self._request
        granted = access.admit(request.head, request.scheme)
        if (preflight := access.preflight(request.head)) is not None:
            return preflight
        self._granted = granted
        if request.method == "GET" and request.last_event_id == formats.END_ID:
            # EventSource comes back when a stream has ended; 204 is how it is told to stop (WHATWG HTML 9.2.3).
            return Response(204)
        with self._transport.watch(self._patience.told):
            answer: Any = self._service.handler
            while True:
                answer = answer(request)
                if hasattr(answer, "__await__"):
                    answer = await answer
                if not _is_handler(answer):  # else it is left to another one
                    break
        if isinstance(answer, (Response, Stream)):
            return answer
        if hasattr(answer, "__aiter__"):
            return Stream(answer)
        raise AnswerError(
            f"a handler returns a Response or a Stream, or is an async generator that yields items; "
            f"for {request.method} {request.path} it returned {type(answer).__name__}"
        )

    async def _respond(self, answer: Response) -> None:
        self._body.skip()
        own = [*answers.fields(answer.headers), *self._granted, *self._last_words(self._wire.request_ended)]
        head, data = self._wire.respond_apart(answer.status, own, answer.body)
        self._record.status = answer.status
        self._transport.write(head + data[:_PIECE])
        for start in range(_PIECE, len(data), _PIECE):
            with self._transport.watch(lambda: None):  # the handler has ended: there is nobody else to tell
                await asyncio.sleep(0)  # who takes all of it at once shall not keep the others waiting
                await self._transport.drain()
            self._transport.write(memoryview(data)[start : start + _PIECE])

    def _last_words(self, read: bool = True) -> tuple[tuple[str, str], ...]:
        """What tells the peer that this is the last answer here; `read`: its request was. A stream may yet read it."""
        more = not self._last and read and not self._transport.dropping
        return () if more and not self._service.closing.is_set() else (("Connection", "close"),)

    # -- a stream ----------------------------------------------------------------------------------------------------

    def _begin_stream(self, stream: Stream) -> Pump | None:
        """The way of the items to the wire. None if there is none: then the head has left, and that was all."""
        iterator: Any = aiter(stream.iterator)
        if not hasattr(iterator, "__aiter__"):  # `async for` needs none: the pump's gets such an iterator by itself
            iterator = stream.iterator
        self._iterator = iterator
        service, record = self._service, self._record
        sent_as = answers.represent(stream, self._request.headers)
        head = self._wire.prepare(stream.status, [*sent_as.fields, *self._granted, *self._last_words()])
        if self._request.method == "HEAD" or stream.status in (204, 304):
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
        pump = self._pump = pump_for(stream, iterator, encoder, sink)
        self._patience.first_item(pump)
        return pump

    async def _end_stream(self, error: BaseException | None) -> None:
        """Write the end of a stream, or why it has none, and close its iterator. Raises `error`, as what it counts."""
        if self._iterator is None:
            if error is not None:
                raise error
            return
        try:
            self._last_write(error)
        finally:
            del error  # its traceback holds this frame
            await self._patience.close(self._iterator)
        self._body.skip()

    def _last_write(self, error: BaseException | None) -> None:
        sink, pump, self._sink = self._sink, self._pump, None
        try:
            if error is not None:
                raise error
            if sink is not None and pump is not None:
                sink.finish(pump.take())  # an encoder of the user's own may fail
        except Disconnected:
            raise
        except Exception as failure:
            if sink is None or pump is None or self._wire.answerable:
                raise  # it becomes a status
            _log_failure(self._request, failure)
            status, message = answers.verdict(failure)
            raise Cut(sink.break_off(pump.take(), status, message or phrase(status))) from failure
        finally:
            del error  # its traceback holds this frame
            if sink is not None:
                sink.close()
                self._service.end_stream()

    # -- failures ----------------------------------------------------------------------------------------------------

    async def _fail(self, error: Exception) -> None:
        """Answer a failure with a status, or where a head has left, with the end of the connection."""
        if isinstance(error, Cut):
            raise error
        request = self._request
        _log_failure(request, error)
        if not self._wire.answerable:
            raise Cut from error
        accept = request.headers.get("accept")
        try:
            await self._respond(answers.failure(error, request.id, accept))
        except AnswerError as unsendable:  # the fields of the handler's own HTTPError; this one has none
            _log_failure(request, unsendable)
            await self._respond(answers.failure(unsendable, request.id, accept))


def _is_handler(answer: object) -> bool:
    """Called, it has the answer; but what can be iterated is one, although it may be called too."""
    return callable(answer) and not isinstance(answer, type) and not hasattr(answer, "__aiter__")


def _stray(cancelled: asyncio.CancelledError) -> LocalError:
    """The reason, as far as it is known, when a request was cancelled that nobody had a reason to cancel."""
    error = LocalError(
        "cancelled, and not by the server: perhaps by a time-out or a task group in a generator that another one "
        "yields through, which is not told of it there (PEP 789); or the program ends and did not close the server"
    )
    error.__cause__ = cancelled
    return error


def _outcome(error: Exception, answerable: bool) -> observe.Outcome:
    """How a request ended that failed; `answerable`: before its head, so that a status says it all."""
    if isinstance(error, Cut) and isinstance(error.__cause__, Exception):
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
