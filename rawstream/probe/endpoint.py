"""What a probe likes to find behind a URL: a stream whose every chunk says when it was sent.

    from rawstream.probe import handler

    router.get("/probe")(handler)
    router.post("/probe")(handler)

Each chunk is a line of JSON: an event's data, a line of NDJSON or of plain text, as Accept says.

    {"rawstream-probe":3,"of":16,"after":0.200391,"monotonic":8123.200391,"wall":1760000000.200391,"pad":"xxx…"}

`after` is in seconds since the handler was called, by the monotonic clock: clocks of two machines differ, but what
passes on them does not. The first chunk also says what arrived here of the request (`got`: the HTTP version and the
names of the fields, and the values of those three that tell of proxies), and which fields the handler set (`set`).

Unasked, it sets no field that keeps a proxy from holding it back: other applications do not set them either.
"""

from __future__ import annotations

import asyncio
import json
import math
import random
import string
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, fields
from typing import Any

from rawstream import formats
from rawstream.errors import HTTPError
from rawstream.messages import Request, Stream
from rawstream.sse import Event

_BY_NAME = {form.media_type: form for form in formats.NEGOTIATED}
_TEXT, _NDJSON = _BY_NAME["text/plain"], _BY_NAME["application/x-ndjson"]
# The usual one without its fields, which would hide what is looked for.
_SSE = formats.Format("sse", "text/event-stream", formats.ServerSentEvents, head=0.0)

_ALPHABET = string.ascii_letters + string.digits + "-_"
_TELLING = ("via", "accept-encoding", "connection")


@dataclass(frozen=True)
class Schedule:
    """What the query may ask for.

    count: chunks, 1 to 10000. interval: seconds from one to the next, 0 to 10. size: bytes of each, at least, 0 to
    65536. fill: what makes them so large, "random" or "same" (which compresses well). idle: seconds of silence before
    the last chunk, 0 to 3600. heartbeat: seconds of silence after which a comment is sent (SSE only), 0 for never, to
    60. accel: "no" says `X-Accel-Buffering: no`. transform: "no" says `Cache-Control: no-transform`.
    """

    count: int = 16
    interval: float = 0.1
    size: int = 160
    fill: str = "same"
    idle: float = 0.0
    heartbeat: float = 0.0
    accel: str = ""
    transform: str = ""

    @classmethod
    def read(cls, query: Any) -> Schedule:
        """Check a query; what else stands in it is left alone. Raises HTTPError 400, which says what is right."""
        given = {name: query[name] for name in (field.name for field in fields(cls)) if name in query}
        return cls(**{name: _CHECKS[name](name, text) for name, text in given.items()})


def _number(least: float, most: float, kind: type[int] | type[float]) -> Callable[[str, str], Any]:
    def check(name: str, text: str) -> Any:
        try:
            number = kind(text) if text.isascii() and "_" not in text else math.nan
        except ValueError:
            number = math.nan
        if not least <= number <= most:
            what = "a whole number" if kind is int else "a number"
            raise HTTPError(400, f"{name} is {what} from {least} to {most}, not {text!r}")
        return number

    return check


def _one_of(*choices: str) -> Callable[[str, str], str]:
    def check(name: str, text: str) -> str:
        if text not in choices:
            raise HTTPError(400, f"{name} is {' or '.join(map(repr, choices))}, not {text!r}")
        return text

    return check


_CHECKS: dict[str, Callable[[str, str], Any]] = {
    "count": _number(1, 10_000, int),
    "interval": _number(0, 10, float),
    "size": _number(0, 65_536, int),
    "fill": _one_of("same", "random"),
    "idle": _number(0, 3600, float),
    "heartbeat": _number(0, 60, float),
    "accel": _one_of("", "no"),
    "transform": _one_of("", "no"),
}


async def handler(request: Request) -> Stream:
    """A stream for probes, for any method; `Schedule` has the settings, which stand in the query.

    A client that comes back with Last-Event-ID gets the chunks after that one. Raises HTTPError 400 for wrong settings,
    NotAcceptable (406) for an Accept without text/plain, application/x-ndjson and text/event-stream.
    """
    began = time.monotonic()
    schedule = Schedule.read(request.query)
    form = formats.negotiate(request.headers.get("accept"), (_TEXT, _NDJSON, _SSE))
    headers = []
    if schedule.accel:
        headers.append(("X-Accel-Buffering", "no"))
    if schedule.transform:
        headers.append(("Cache-Control", "no-transform"))
    last = request.last_event_id or ""
    first = int(last) + 1 if last.isascii() and last.isdigit() and len(last) <= 9 else 1
    extra = {"got": _got(request), "set": dict([("Content-Type", form.content_type), ("Vary", "Accept"), *headers])}
    chunks = _chunks(schedule, began, first, extra, request.closing)
    items = _items(chunks, form.name)
    own = [*headers, ("Vary", "Accept")]  # others may add to it
    return Stream(items, format=form, heartbeat=schedule.heartbeat or None, headers=own, head=0.0)


def _got(request: Request) -> dict[str, Any]:
    """Names of fields alone, with few exceptions: a proxy may have added a secret."""
    told = {name: request.headers[name] for name in _TELLING if name in request.headers}
    return {"version": request.http_version, "method": request.method, "fields": sorted(request.headers), **told}


async def _items(chunks: AsyncIterator[tuple[int, str]], name: str) -> AsyncIterator[Any]:
    async for number, text in chunks:
        if name == "sse":
            yield Event(text, id=str(number))
        else:
            # What the format sends as it is: NDJSON would make a JSON string of a str.
            yield json.loads(text) if name == "ndjson" else text + "\n"


async def _chunks(
    schedule: Schedule, began: float, first: int, extra: dict[str, Any], closing: asyncio.Event
) -> AsyncIterator[tuple[int, str]]:
    """Number and text of each chunk, at its time: a late one does not make the next one late."""
    start = time.monotonic()
    for place, number in enumerate(range(first, schedule.count + 1)):
        due = start + place * schedule.interval + (schedule.idle if number == schedule.count else 0.0)
        if await _is_closing(closing, due):
            return
        yield number, _stamped(schedule, number, began, extra if place == 0 else {})


async def _is_closing(closing: asyncio.Event, due: float) -> bool:
    """Wait until it is due, or the server closes."""
    rest = due - time.monotonic()
    if rest > 0:
        try:
            async with asyncio.timeout(rest):
                await closing.wait()
        except TimeoutError:
            pass
    return closing.is_set()


def _stamped(schedule: Schedule, number: int, began: float, extra: dict[str, Any]) -> str:
    now = time.monotonic()
    value = {
        "rawstream-probe": number,
        "of": schedule.count,
        "after": round(now - began, 6),
        "monotonic": round(now, 6),
        "wall": round(time.time(), 6),
        **extra,
        "pad": "",
    }
    text = json.dumps(value, separators=(",", ":"))
    missing = max(schedule.size - len(text) - 1, 0)
    pad = "".join(random.choices(_ALPHABET, k=missing)) if schedule.fill == "random" else "x" * missing
    return text.removesuffix('"}') + pad + '"}'
