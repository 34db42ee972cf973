"""One request on one connection: made, asked, answered, and closed, whatever happens."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass, fields
from ssl import SSLContext
from types import TracebackType
from urllib.parse import urljoin

from .dial import Line
from .errors import Disconnected, FetchError, IncompleteResponse, LocalError, Redirected, ResponseTimeout, StatusError
from .fetched import ClientResponse
from .incoming import Incoming
from .messages import ResponseHead
from .outgoing import Target
from .wire import ClientWire

_TOLD = 4096  # bytes of the body that a StatusError shows
_TOLD_IN = 2.0  # seconds for them


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientTimeouts:
    """How long a client waits, in seconds; None is without end. For all of a response there is `asyncio.timeout`.

    Raises ValueError for a value that is not a number above 0, or None.
    """

    connect: float | None = 10.0
    """For the connection: the look-up of the name, TCP and TLS together."""

    head: float | None = 60.0
    """For the whole head of the response, from the request on. Long, since some servers think first."""

    idle: float | None = 60.0
    """For the next bytes of the body. Servers that stream send heartbeats much sooner, rawstream's own each 15 s."""

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if value is not None and (type(value) not in (int, float) or not value > 0):
                raise ValueError(f"ClientTimeouts.{each.name} is a number of seconds above 0, or None, not {value!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientLimits:
    """How much a server may send that has to be held in memory at once, in bytes.

    Raises ValueError for a value that is not a positive whole number.
    """

    head: int = 64 * 1024
    """The response's line and header fields; the trailers likewise."""

    item: int = 16 * 1024 * 1024
    """A line, an item or an event; and what `body()` gives."""

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if type(value) is not int or value < 1:
                raise ValueError(f"ClientLimits.{each.name} is a positive whole number of bytes, not {value!r}")


class Fetch:
    """What `fetch` gives: `async with` it. The connection is made when the block begins, and closed when it ends."""

    def __init__(
        self,
        target: Target,
        wire: ClientWire,
        request: bytes,
        timeouts: ClientTimeouts,
        limits: ClientLimits,
        uds: str | None,
        context: SSLContext | None,
        check: bool,
    ) -> None:
        self._target = target
        self._wire = wire
        self._request = request
        self._timeouts = timeouts
        self._limits = limits
        self._uds = uds
        self._context = context
        self._check = check
        self._response: ClientResponse | None = None
        self._begun = False

    async def __aenter__(self) -> ClientResponse:
        if self._begun:
            raise LocalError("one fetch is one request: call fetch again for another")
        self._begun = True
        line = Line()
        try:
            self._response = response = await self._ask(line)
            if self._check and not 200 <= response.status < 300:
                raise await _refusal(response)
        except BaseException:
            await line.close(properly=False)
            raise
        return response

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        assert self._response is not None, "it was entered"
        await self._response.close()

    async def _ask(self, line: Line) -> ClientResponse:
        began = time.monotonic()
        await line.open(self._target, self._uds, self._context, self._timeouts.connect)
        connected = time.monotonic()
        line.write(self._request)
        incoming, limit = Incoming(self._wire, self._limits.head), self._timeouts.head
        try:
            async with asyncio.timeout(limit):
                head, behind = await _head(line, incoming)
        except TimeoutError as exc:
            raise ResponseTimeout(f"no head of a response came within {limit} s (ClientTimeouts.head)") from exc
        except (Disconnected, IncompleteResponse) as exc:
            perhaps = "" if self._target.tls else " (it speaks TLS, perhaps: https://)"
            raise IncompleteResponse(f"the server closed the connection without an answer{perhaps}") from exc
        idle, item = self._timeouts.idle, self._limits.item
        response = ClientResponse(line, incoming, head, behind, self._target.url, idle, item)
        response.began, response.connected, response.head_at = began, connected, behind[0]
        return response


async def _head(line: Line, incoming: Incoming) -> tuple[ResponseHead, tuple[float, bytes]]:
    """The head; when the last of it was read, and what came behind it."""
    while True:
        when, data = await line.read(None)
        if (found := incoming.head(data)) is not None:
            head, behind = found
            return head, (when, behind)


async def _refusal(response: ClientResponse) -> StatusError:
    """The error for a status that is no success, with what the server says to it, if it does so in time."""
    told = b""
    with contextlib.suppress(FetchError, TimeoutError):
        async with asyncio.timeout(_TOLD_IN):
            async for piece in response.chunks():
                told += piece
                if len(told) >= _TOLD:
                    break
    about = response.status, response.reason, response.headers, told[:_TOLD], response.url
    location = response.headers.get("location")
    if location is not None and response.status < 400:
        with contextlib.suppress(ValueError):  # it is no URL
            return Redirected(*about, urljoin(response.url, location))
    return StatusError(*about)
