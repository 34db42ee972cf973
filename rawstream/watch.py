"""Cancelling what works for a peer, when there is a reason to: the peer is gone, or has waited long enough."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Protocol

from .errors import Disconnected, LocalError


class Watched(Protocol):
    """What can be lost: a transport."""

    watched: Watch | None

    def check(self, eof: bool) -> None: ...  # raises Disconnected if it is lost already
    def soon(self, callback: Callable[[], None]) -> object: ...


class Watch:
    """`with transport.watch():` the task inside is cancelled when the peer is gone, and Disconnected comes out.

    `interrupt` does it for another reason, which then comes out. `told` is called when the task is cancelled so.
    As with `asyncio.timeout`, a cancellation from elsewhere stays one.
    """

    __slots__ = ("_before", "_cancelling", "_eof_counts", "_reason", "_task", "_told", "_transport")

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
        self._before = self._transport.watched
        self._transport.watched = self
        return self

    def lost(self, eof: bool) -> None:
        """The peer ended its side (`eof`), or the connection is lost."""
        if self._eof_counts or not eof:
            self.interrupt(Disconnected("the peer is gone"))

    def interrupt(self, reason: Exception) -> None:
        """Cancel the task inside, so that `reason` comes out."""
        if self._reason is not None or self._transport.watched is not self:
            return
        if self._task.cancelling() > self._cancelling:
            # It is being cancelled already, and a second time would break into its clean-up. But that may be by a
            # time-out of its own, after which it goes on: so look again.
            self._transport.soon(lambda: self.interrupt(reason))
            return
        self._reason = reason
        self._task.cancel()
        self._told()

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self._transport.watched = self._before
        others = (self._task.cancelling() if self._reason is None else self._task.uncancel()) - self._cancelling
        if isinstance(exc, asyncio.CancelledError) and others <= 0:
            raise self._reason or LocalError("the handler raised CancelledError, but nobody had cancelled it") from exc
