"""The handlers behind `python -m rawstream` and its page: what a user would write, with the public names alone.

GET /           the page
POST /stream    a text, one character each half second, in the format that Accept asks for; settings in a JSON body
GET /stream     the same for EventSource, settings in the query
GET /clock      endless server-sent events, one a second
GET /bulk       many rows, as fast as the reader takes them
GET /channels/{name}    a feed of news; POST publishes, GET /channels/{name}/info tells ids and counts
POST /jobs      a long job, which works on by itself; GET /jobs/{id} follows it, DELETE stops it
GET /probe      chunks that say when they were sent, for `python -m rawstream probe`; POST too
GET /healthz    "ok", or 503 "closing" while the server closes
GET /metrics    counts for Prometheus, where the extra `metrics` is installed

A page opened from disk has the origin "null"; to work for it, the server is told `allowed_origins=["null"]`, as the
command line does where nothing is kept.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import math
import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rawstream import Event, Every, Hub, Request, Response, Router, Stream, errors
from rawstream.channels.http import add_channels, add_jobs
from rawstream.probe import handler as probe

try:
    from rawstream.metrics import metrics as _metrics
except ImportError:  # the extra is not installed
    _metrics = None  # type: ignore[assignment]

TEXT = "这是一个完整的测试数据；为了测试IAsyncEnumerable<T>的使用"
ROWS = 100_000
MAX_ROWS = 10_000_000
MAX_TEXT = 100_000  # characters


async def page(request: Request) -> Response:
    """The page, read anew each time, so that who changes it needs only to reload."""
    body = await asyncio.to_thread(_page_file().read_bytes)
    headers = [
        ("Content-Type", "text/html; charset=utf-8"),
        ("Cache-Control", "no-cache"),
        ("Content-Security-Policy", _policy(body, request.query.get("server", ""))),
        ("X-Content-Type-Options", "nosniff"),
        ("Referrer-Policy", "no-referrer"),
    ]
    return Response(200, headers, body)


# A server that the page may be told to talk to; CSP has no way to write an IPv6 address, so there the scheme must do.
_SERVER = re.compile(
    r"(?P<name>https?://[a-z0-9.-]+(?::[0-9]+)?)/?|(?P<scheme>https?:)//\[[0-9a-f:.]+\](?::[0-9]+)?/?", re.IGNORECASE
)


def _policy(page: bytes, server: str) -> str:
    """A policy (CSP level 3) under which only the page's own script and style run, each known by its hash.

    They talk to this server, and to the one that the address names: `?server=http://127.0.0.1:9000`.
    """
    named = _SERVER.fullmatch(server)
    return "; ".join(
        [
            "default-src 'none'",
            f"script-src {_hashes(b'script', page)}",
            f"style-src {_hashes(b'style', page)}",
            "img-src data:",
            f"connect-src 'self' {named['name'] or named['scheme']}" if named else "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        ]
    )


def _hashes(tag: bytes, page: bytes) -> str:
    """What each `tag` of the page holds, as CSP names it. A browser reads each line end as LF."""
    inside = re.findall(rb"<%b>(.*?)</%b>" % (tag, tag), page.replace(b"\r\n", b"\n"), re.DOTALL)
    return " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(text).digest()).decode()}'" for text in inside)


def _page_file() -> Path:
    """Beside this module in an installed package, at the top of the repository in a checkout."""
    here = Path(__file__).parent
    return next(path for path in (here / "demo.html", here.parent / "demo.html") if path.exists())


async def healthz(request: Request) -> Response:
    """For whoever asks whether to send requests here: not any more, once the server closes."""
    closing = request.closing.is_set()
    return Response.text("closing\n" if closing else "ok\n", 503 if closing else 200, [("Cache-Control", "no-store")])


async def metrics(request: Request) -> Response:
    """Counts of all requests and streams of this process, for Prometheus."""
    if _metrics is None:
        raise errors.HTTPError(501, "metrics need prometheus-client: pip install prometheus-client")
    return await _metrics(request)


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
        settings = cls(**_named(given, '{"text": "hello", "delay": 0.1}', "text", "delay", "repeat", "buffer"))
        text: object = settings.text  # what JSON holds there, until it is checked
        _require(isinstance(text, str) and len(text) <= MAX_TEXT, f"text is a string of at most {MAX_TEXT} characters")
        _require(_within(settings.delay, 0, 10), "delay is a number of seconds from 0 to 10")
        _require(_within(settings.repeat, 1, 1000, int), "repeat is a whole number from 1 to 1000")
        _require(_within(settings.buffer, 0, 2**20, int), "buffer is a whole number of bytes from 0 to 1048576")
        try:
            settings.text.encode()
        except UnicodeEncodeError:
            raise errors.HTTPError(400, "text holds half a surrogate pair") from None
        return settings


def _named(given: object, example: str, *names: str) -> Mapping[str, Any]:
    """What a client sent, if it is an object with none but these names."""
    if not isinstance(given, Mapping):
        raise errors.HTTPError(400, f"the settings are a JSON object, as in {example}")
    unknown = sorted(set(given) - {*names})
    if unknown:
        raise errors.HTTPError(400, f"there is no setting {unknown[0]!r}: use {', '.join(names)}")
    return given


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


def _typed_out(settings: Settings) -> Stream:
    return Stream(typed_out(settings), flush=Every(bytes=settings.buffer, seconds=60) if settings.buffer else None)


async def stream(request: Request) -> Stream:
    """The text, typed out; settings in a JSON body."""
    return _typed_out(Settings.read(await request.json() if await request.body() else {}))


async def stream_for_event_source(request: Request) -> Stream:
    """The same, settings in the query: EventSource can send no body."""
    query = {name: value if name == "text" else _query_number(value) for name, value in request.query.items()}
    return _typed_out(Settings.read(query))


async def clock(request: Request) -> Stream:
    """Events without an end. A client that comes back goes on after the last one it saw."""
    last = request.last_event_id or ""
    first = int(last) + 1 if last.isascii() and last.isdigit() and len(last) <= 15 else 1
    return Stream(_ticks(first, request.closing), format="sse")


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


async def bulk(request: Request) -> Stream:
    """Rows, as fast as the reader takes them: it never waits, and it never fills the memory."""
    count = _query_number(request.query.get("rows", str(ROWS)))
    _require(_within(count, 0, MAX_ROWS, int), f"rows is a whole number from 0 to {MAX_ROWS}")
    return Stream(_rows(count))


async def _rows(count: int) -> AsyncIterator[dict[str, Any]]:
    for number in range(count):
        yield {"row": number, "name": f"item-{number}", "value": number / 2}


@dataclass(frozen=True)
class Job:
    """What a client may set for /jobs: 1 to 1000 steps, each of which takes `delay` seconds, 0 to 10."""

    steps: int = 20
    delay: float = 0.5

    @classmethod
    def read(cls, given: object) -> Job:
        """Check what a client sent. Raises HTTPError 400, which says what would be right."""
        job = cls(**_named(given, '{"steps": 20, "delay": 0.1}', "steps", "delay"))
        _require(_within(job.steps, 1, 1000, int), "steps is a whole number from 1 to 1000")
        _require(_within(job.delay, 0, 10), "delay is a number of seconds from 0 to 10")
        return job


async def start_job(request: Request) -> AsyncIterator[Event]:
    """The job that a client asks for, not begun yet; settings in a JSON body."""
    return work(Job.read(await request.json() if await request.body() else {}))


async def work(job: Job) -> AsyncIterator[Event]:
    """A job that takes its time, and tells how far it is."""
    for step in range(1, job.steps + 1):
        await asyncio.sleep(job.delay)
        yield Event({"step": step, "of": job.steps, "percent": 100 * step // job.steps}, event="progress")
    yield Event({"steps": job.steps}, event="result")


def build(hub: Hub, publish_token: str | None = None, subscribe_token: str | None = None) -> Router:
    """All routes, over this hub. The tokens are those of `add_channels`."""
    router = Router()
    router.get("/")(page)
    router.post("/stream")(stream)
    router.get("/stream")(stream_for_event_source)
    router.get("/clock")(clock)
    router.get("/bulk")(bulk)
    router.get("/probe")(probe)
    router.post("/probe")(probe)
    router.get("/healthz")(healthz)
    router.get("/metrics")(metrics)
    add_channels(router, hub, publish_token=publish_token, subscribe_token=subscribe_token)
    add_jobs(router, hub, start_job, publish_token=publish_token, subscribe_token=subscribe_token)
    return router


router = build(Hub())
"""What a program may serve as it is: with channels in memory, and for everybody."""
