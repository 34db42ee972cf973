"""Asks in one way, and records what comes. The only module of the probe that knows the client."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from rawstream.asking import advice, leads_to
from rawstream.client import ClientResponse, ClientTimeouts, fetch
from rawstream.errors import ConnectFailed, IncompleteResponse, LocalError, ReadTimeout, RemoteError
from rawstream.incoming import Arrival

from .arrivals import Recorder, Recording
from .ways import Way

_CONNECT = 10.0  # seconds


class Unreachable(Exception):
    """Nobody is there, or it is no URL: asking in another way would help nothing. The text is one line."""


@dataclass(frozen=True, slots=True)
class Limits:
    """When to stop: after `seconds` from the request, or once `enough` says so, which is asked after each read."""

    seconds: float
    enough: Callable[[Recorder, float], bool] = lambda recorder, now: False


@dataclass(frozen=True, slots=True)
class Asker:
    """Asks for one URL. `data` is the body of what is no GET; `headers` go with every request.

    context: for https, instead of one that trusts the system's authorities. uds: the path of a Unix socket to connect
    to, whatever host the URL names.
    """

    url: str
    headers: tuple[tuple[str, str], ...] = ()
    data: bytes = b""
    context: ssl.SSLContext | None = None
    uds: str | None = None

    async def ask(self, way: Way, limits: Limits) -> Recording:
        """What came, however it ended. Raises Unreachable; cancelling it closes the connection."""
        timeouts = ClientTimeouts(connect=_CONNECT, head=limits.seconds, idle=None)
        own = {name.lower() for name, _ in way.headers}
        headers = [*way.headers, *(field for field in self.headers if field[0].lower() not in own)]
        data = self.data if way.method not in ("GET", "HEAD") else None
        began = time.monotonic()
        try:
            async with fetch(
                way.url(self.url), method=way.method, headers=headers, data=data, timeouts=timeouts, uds=self.uds,
                ssl=self.context, http_version=way.http_version, check=False,
            ) as response:  # fmt: skip
                location = response.headers.get("location")
                redirect = leads_to(response.url, location) if location else ""
                recording = await _listen(response, limits)
                return replace(recording, asked_version=way.http_version, redirect=redirect)
        except (LocalError, ConnectFailed) as exc:
            raise Unreachable(_line(exc) + advice(exc)) from exc
        except ReadTimeout:
            error = f"no answer came within {limits.seconds:g} s, not even its head: held back, or a slow origin"
            return replace(_failed(began, error), timed_out=True)
        except (RemoteError, OSError) as exc:
            return _failed(began, _line(exc))


def _line(exc: BaseException) -> str:
    return " ".join(str(exc).split()) or type(exc).__name__


def _failed(began: float, error: str) -> Recording:
    return Recording(ended_at=time.monotonic() - began, ending="failed", error=error)


async def _listen(response: ClientResponse, limits: Limits) -> Recording:
    """Read until the end, or until it is enough."""
    start = response.connected
    recorder = Recorder(
        response.status, response.headers, response.http_version, start - response.began, response.head_at - start
    )
    chunks = _Chunks(recorder)
    try:
        async with asyncio.timeout(max(limits.seconds - (time.monotonic() - start), 0.01)):
            async for arrival in response.arrivals():
                at = arrival.time - start
                chunks.add(arrival, at)
                if arrival.pieces:
                    recorder.body(at, b"".join(arrival.pieces), arrival.received)
                if limits.enough(recorder, at):
                    return recorder.end(at, "stopped")
    except TimeoutError:
        return recorder.end(time.monotonic() - start, "stopped")
    except (IncompleteResponse, ReadTimeout) as exc:
        return recorder.end(time.monotonic() - start, "cut", _line(exc))
    except RemoteError as exc:
        return recorder.end(time.monotonic() - start, "failed", f"the body cannot be read: {_line(exc)}")
    return recorder.end(time.monotonic() - start, "complete")


class _Chunks:
    """Puts the parts of chunks together that the network has cut, for their sizes."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._begun = 0

    def add(self, arrival: Arrival, at: float) -> None:
        if not arrival.chunked:
            return
        for place, piece in enumerate(arrival.pieces):
            self._begun += len(piece)
            if not (arrival.unfinished and place == len(arrival.pieces) - 1):
                self._recorder.chunk(at, self._begun)
                self._begun = 0
