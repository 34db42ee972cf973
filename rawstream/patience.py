"""How long one request may take: the whole of it, a stream's first item, and the end of a handler that was told to end.

All of these are reasons to interrupt the handler, or to interrupt it again; none is a reason to answer.
"""

from __future__ import annotations

import asyncio
import logging

from .config import Timeouts
from .deadlines import Deadline, Deadlines
from .errors import Unavailable
from .messages import Request
from .pump import Pump
from .transport import Transport

log = logging.getLogger("rawstream")


class Overdue(Unavailable):
    """The answer, or its first item, took longer than `Timeouts` allows (503)."""


class Patience:
    """The deadlines of one request, from its head until `end`."""

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

            def look() -> None:
                if not (pump.taken or pump.parts):
                    self._too_late()

            self._due.append(self._deadlines.after(self._timeouts.first_item, look))

    def told(self) -> None:
        """The handler was told to end, or its iterator to close."""
        if not self._told:
            self._told = True
            self._due.append(self._deadlines.after(self._timeouts.clean_up, self._insist))

    def end(self) -> None:
        """The request has ended."""
        for deadline in self._due:
            deadline.cancel()

    def _too_late(self) -> None:
        if self._transport.watched is not None:
            self._transport.watched.interrupt(Overdue("this takes too long"))

    def _insist(self) -> None:
        assert self._task is not None, "a request lives in its connection's task"
        request, seconds = self._request, self._timeouts.clean_up
        log.error(
            "%s %s %s has not ended %g s after it was told to; its connection is cut, and it is told again",
            request.id, request.method, request.head.target, seconds,
        )  # fmt: skip
        self._transport.abort()
        self._task.cancel()
