"""The handlers behind `python -m rawstream` and its page: what a user would write, with the public names alone.

GET /           the page
POST /stream    a text, one character each half second, in the format that Accept asks for; settings in a JSON body
GET /stream     the same for EventSource, settings in the query
GET /clock      endless server-sent events, one a second
GET /bulk       many rows, as fast as the reader takes them
GET /healthz    "ok"
"""

from __future__ import annotations

import asyncio
import functools
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rawstream import Event, Every, Request, Response, Router, Stream, errors

TEXT = "这是一个完整的测试数据；为了测试IAsyncEnumerable<T>的使用"
ROWS = 100_000
MAX_ROWS = 10_000_000
MAX_TEXT = 100_000  # characters

router = Router()


@router.get("/")
async def page(request: Request) -> Response:
    """The page, read anew each time, so that who changes it needs only to reload."""
    headers = [("Content-Type", "text/html; charset=utf-8"), ("Cache-Control", "no-cache")]
    return Response(200, headers, await asyncio.to_thread(_page_file().read_bytes))


def _page_file() -> Path:
    """Beside this module in an installed package, at the top of the repository in a checkout."""
    here = Path(__file__).parent
    return next(path for path in (here / "demo.html", here.parent / "demo.html") if path.exists())


@router.get("/healthz")
async def healthz(request: Request) -> Response:
    """For whoever asks whether the server is up."""
    return Response.text("ok\n")


@dataclass(frozen=True)
class Settings:
    """What a client may set for /stream.

    text: what is typed out. delay: seconds after each character, 0 to 10. repeat: how often the text comes, 1 to 1000.
    buffer: bytes that are gathered before they are flushed, 0 to 1 MiB: 0 flushes each character, more shows what a
    buffering proxy does.
    """

    text: str = TEXT
    delay: float = 0.5
    repeat: int = 1
    buffer: int = 0

    @classmethod
    def read(cls, given: object) -> Settings:
        """Check what a client sent. Raises HTTPError 400, which says what would be right."""
        if not isinstance(given, Mapping):
            raise errors.HTTPError(400, 'the settings are a JSON object, as in {"text": "hello", "delay": 0.1}')
        unknown = sorted(set(given) - {"text", "delay", "repeat", "buffer"})
        if unknown:
            raise errors.HTTPError(400, f"there is no setting {unknown[0]!r}: use text, delay, repeat, buffer")
        text = given.get("text", TEXT)
        _require(isinstance(text, str) and len(text) <= MAX_TEXT, f"text is a string of at most {MAX_TEXT} characters")
        settings = cls(**given)
        _require(_within(settings.delay, 0, 10), "delay is a number of seconds from 0 to 10")
        _require(_within(settings.repeat, 1, 1000, int), "repeat is a whole number from 1 to 1000")
        _require(_within(settings.buffer, 0, 2**20, int), "buffer is a whole number of bytes from 0 to 1048576")
        try:
            settings.text.encode()
        except UnicodeEncodeError:
            raise errors.HTTPError(400, "text holds half a surrogate pair") from None
        return settings


def _require(true: bool, otherwise: str) -> None:
    if not true:
        raise errors.HTTPError(400, otherwise)


def _within(value: object, least: float, most: float, kind: type | tuple[type, ...] = (int, float)) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool) and least <= value <= most  # type: ignore[operator]


def _query_number(text: str) -> Any:
    """A number from a query; what is none stays text, and is refused with the other wrong settings."""
    for kind in (int, float):
        try:
            number = kind(text)
        except ValueError:
            continue
        return number if math.isfinite(number) else text
    return text


async def typed_out(settings: Settings) -> AsyncIterator[str]:
    """The text, one character each `delay` seconds."""
    for _ in range(settings.repeat):
        for character in settings.text:
            yield character
            await asyncio.sleep(settings.delay)


def _typed_out(request: Request, settings: Settings) -> Stream:
    flush = Every(bytes=settings.buffer, seconds=60) if settings.buffer else None
    return Stream(typed_out(settings), flush=flush, headers=_from_disk(request))


def _from_disk(request: Request) -> list[tuple[str, str]]:
    """The page works when opened from disk too; its origin is then "null", and that one may read the streams."""
    if request.headers.get("origin") != "null":
        return []
    return [("Access-Control-Allow-Origin", "null"), ("Vary", "Accept, Origin")]


def for_the_page(handler: Callable[[Request], Awaitable[Stream]]) -> Callable[[Request], Awaitable[Stream]]:
    """Lets a page from disk read the refusals, too."""

    @functools.wraps(handler)
    async def refusing_readably(request: Request) -> Stream:
        try:
            return await handler(request)
        except errors.HTTPError as refusal:
            raise errors.HTTPError(refusal.status, refusal.detail, _from_disk(request)) from refusal

    return refusing_readably


@router.post("/stream")
@for_the_page
async def stream(request: Request) -> Stream:
    """The text, typed out; settings in a JSON body."""
    return _typed_out(request, Settings.read(await request.json() if await request.body() else {}))


@router.get("/stream")
@for_the_page
async def stream_for_event_source(request: Request) -> Stream:
    """The same, settings in the query: EventSource can send no body."""
    query = {name: value if name == "text" else _query_number(value) for name, value in request.query.items()}
    return _typed_out(request, Settings.read(query))


@router.get("/clock")
async def clock(request: Request) -> Stream:
    """Events without an end. A client that comes back goes on after the last one it saw."""
    last = request.last_event_id or ""
    first = int(last) + 1 if last.isascii() and last.isdigit() and len(last) <= 15 else 1
    return Stream(_ticks(first, request.closing), format="sse", headers=_from_disk(request))


async def _ticks(number: int, closing: asyncio.Event) -> AsyncIterator[Event]:
    while not closing.is_set():
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        yield Event({"n": number, "now": now}, event="tick", id=str(number), retry=2000)
        number += 1
        try:
            async with asyncio.timeout(1):
                await closing.wait()
        except TimeoutError:
            pass


@router.get("/bulk")
@for_the_page
async def bulk(request: Request) -> Stream:
    """Rows, as fast as the reader takes them: it never waits, and it never fills the memory."""
    count = _query_number(request.query.get("rows", str(ROWS)))
    _require(_within(count, 0, MAX_ROWS, int), f"rows is a whole number from 0 to {MAX_ROWS}")
    return Stream(_rows(count), headers=_from_disk(request))


async def _rows(count: int) -> AsyncIterator[dict[str, Any]]:
    for number in range(count):
        yield {"row": number, "name": f"item-{number}", "value": number / 2}


async def preflight(request: Request) -> Response:
    """What a browser asks before it lets a page from disk send JSON here (Fetch standard, CORS-preflight)."""
    headers = [("Allow", "GET, HEAD, OPTIONS, POST" if request.path == "/stream" else "GET, HEAD, OPTIONS")]
    if request.headers.get("origin") == "null":
        headers += [
            ("Access-Control-Allow-Origin", "null"),
            ("Access-Control-Allow-Methods", "GET, POST"),
            ("Access-Control-Allow-Headers", "Accept, Content-Type, Last-Event-ID"),
            ("Access-Control-Max-Age", "600"),
            ("Vary", "Origin"),
        ]
    return Response(204, headers)


for _path in ("/stream", "/clock", "/bulk"):
    router.route("OPTIONS", _path)(preflight)
