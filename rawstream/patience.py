"""How long one request may take: the whole of it, a stream's first item, and the end of a handler that was told to end.

All of these are reasons to interrupt the handler, or to interrupt it again; none is a reason to answer.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

from .config import Timeouts
from .deadlines import Deadline, Deadlines
from .driving import close
from .errors import LocalError, Unavailable
from .messages import Request
from .pump import Pump
from .transport import Transport

log = logging.getLogger("rawstream")

_RETRY_AFTER = 5  # seconds after which it is worth to come back; service.NoRoom says the same


class Overdue(Unavailable):
    """The answer, or its first item, took longer than `Timeouts` allows (503)."""

    def __init__(self) -> None:
        super().__init__("this takes too long", _RETRY_AFTER)


class Patience:
    """The deadlines of one request, from its head until `end`."""

    __slots__ = ("_deadlines", "_due", "_request", "_task", "_timeouts", "_told", "_transport")

    def __init__(self, request: Request, transport: Transport, deadlines: Deadlines, timeouts: Timeouts) -> None:
        self._request = request
        self._transport = transport
        self._deadlines = deadlines
        self._timeouts = timeouts
        self._task = asyncio.current_task()
        self._due: list[Deadline] = []
        self._told = False
        if timeouts.request is not None:
            self._due.append(deadlines.after(timeouts.request, self._too_late))

    def first_item(self, pump: Pump) -> None:
        """A stream begins: its first item is due."""
        if self._timeouts.first_item is not None:
            look = partial(self._look_for_first_item, pump)
            self._due.append(self._deadlines.after(self._timeouts.first_item, look))

    def told(self) -> None:
        """The handler was told to end, or its iterator to close."""
        if not self._told:
            self._told = True
            self._due.append(self._deadlines.after(self._timeouts.clean_up, self._insist))

    async def close(self, iterator: AsyncIterator[Any]) -> None:
        """A stream ends: let its iterator clean up. What that raises that is no Exception comes out as a LocalError."""
        self.told()
        try:
            await close(iterator)
        except (Exception, asyncio.CancelledError, GeneratorExit, KeyboardInterrupt):
            raise  # a generator swallows a GeneratorExit of its own: this one is for us
        except BaseException as exc:
            raise LocalError(f"the iterator raised {type(exc).__name__} in its clean-up") from exc

    def end(self) -> None:
        """The request has ended."""
        for deadline in self._due:
            deadline.cancel()

    def _look_for_first_item(self, pump: Pump) -> None:
        if not (pump.taken or pump.parts):
            self._too_late()

    def _too_late(self) -> None:
        if self._transport.watched is not None:
            self._transport.watched.interrupt(Overdue())

    def _insist(self) -> None:
        assert self._task is not None, "a request lives in its connection's task"
        request, seconds = self._request, self._timeouts.clean_up
        log.error(
            "%s %s %s has not ended %g s after it was told to; its connection is cut, and it is told again",
            request.id, request.method, request.head.target, seconds,
        )  # fmt: skip
        self._transport.abort()
        self._task.cancel()
