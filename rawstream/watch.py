"""Cancelling what works for a peer, when there is a reason to: the peer is gone, or has waited long enough.

It is also the border at which a handler's exceptions that are not what they look like become a LocalError.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Protocol

from .errors import Disconnected, LocalError, RemoteError, Stalled


class Watched(Protocol):
    """What can be lost: a transport."""

    watched: Watch | None

    def check(self, eof: bool) -> None: ...  # raises Disconnected if it is lost already
    def soon(self, callback: Callable[[], None]) -> object: ...


class Watch:
    """`with transport.watch():` the task inside is cancelled when the peer is gone, and Disconnected comes out.

    `interrupt` does it for another reason, which then comes out. `told` is called when the task is cancelled so.
    As with `asyncio.timeout`, a cancellation from elsewhere stays one.

    What a handler raises may not be of this connection (Disconnected, while the peer is there), or no Exception at all:
    GeneratorExit, SystemExit, or the panic of a library in Rust. That is its failure, and comes out as a LocalError.
    """

    __slots__ = ("_before", "_cancelling", "_eof_counts", "_pending", "_reason", "_task", "_told", "_transport")

    def __init__(self, transport: Watched, eof_counts: bool, told: Callable[[], None]) -> None:
        self._transport = transport
        self._eof_counts = eof_counts
        self._told = told

    def __enter__(self) -> Watch:
        self._transport.check(self._eof_counts)
        task = asyncio.current_task()
        assert task is not None, "a connection lives in its task"
        self._task, self._cancelling = task, task.cancelling()
        self._reason: Exception | None = None
        self._pending = False  # there is a reason, but the task is being cancelled already
        self._before = self._transport.watched
        self._transport.watched = self
        return self

    def lost(self, eof: bool) -> None:
        """The peer ended its side (`eof`), or the connection is lost."""
        if self._eof_counts or not eof:
            self.interrupt(Disconnected("the peer is gone"))

    def interrupt(self, reason: Exception) -> None:
        """Cancel the task inside, so that `reason` comes out."""
        if self._reason is None and not self._pending and self._transport.watched is self:
            self._told()
            self._cancel(reason)

    def _cancel(self, reason: Exception) -> None:
        self._pending = self._transport.watched is self and self._task.cancelling() > self._cancelling
        if self._pending:
            # It is being cancelled already, and a second time would break into its clean-up. But that may be by a
            # time-out of its own, after which it goes on: so look again. (One that swallowed a cancellation without
            # `uncancel` looks the same for ever: who is `told` has to see to it.)
            self._transport.soon(lambda: self._cancel(reason))
        elif self._transport.watched is self:
            self._reason = reason
            self._task.cancel()

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self._transport.watched = self._before
        others = (self._task.cancelling() if self._reason is None else self._task.uncancel()) - self._cancelling
        match exc:
            case None | KeyboardInterrupt() | Stalled():
                return  # who falls behind is there, and cut all the same
            case asyncio.CancelledError():
                if others <= 0:
                    reason, self._reason = self._reason, None
                    try:
                        raise reason or self._fault("CancelledError, but nobody had cancelled it") from exc
                    finally:
                        del reason  # its traceback holds this frame: the cycle would keep the generator's locals
            case Disconnected():
                if self._present():
                    raise self._fault("Disconnected, but the peer is there") from exc
            case RemoteError() if not exc.of_peer:
                raise self._fault(f"{type(exc).__name__} of its own; HTTPError answers with a status") from exc
            case GeneratorExit() if not self._runs():
                return  # the task is thrown away, with its loop
            case BaseException() if not isinstance(exc, Exception):
                raise self._fault(f"{type(exc).__name__}, which is no Exception") from exc

    @staticmethod
    def _fault(what: str) -> LocalError:
        return LocalError(f"the handler raised {what}")

    def _present(self) -> bool:
        try:
            self._transport.check(self._eof_counts)
        except Disconnected:
            return False
        return True

    def _runs(self) -> bool:
        try:
            return asyncio.current_task() is self._task
        except RuntimeError:  # no loop runs
            return False
