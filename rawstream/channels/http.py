"""Channels and jobs over HTTP: what the demo serves, and what any router may be given.

A request is looked at in this order: its secret, its name, its type and size, and only then the store. What is wrong
with it is told with a status; what is wrong with the store is told by the store itself, as 503 with Retry-After.
"""

from __future__ import annotations

import hashlib
import hmac
import inspect
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeAlias
from urllib.parse import parse_qsl

from rawstream.errors import (
    EventError,
    EventTooLarge,
    HTTPError,
    ItemError,
    LocalError,
    NotFound,
    OutcomeUnknown,
    Unavailable,
)
from rawstream.messages import Request, Response
from rawstream.routing import Router

from .hub import Hub
from .runs import Run
from .subscription import Subscription

COOKIE = "rawstream-subscribe"
"""The cookie that holds the subscribers' secret where a client cannot set a header, as EventSource cannot."""

Start: TypeAlias = Callable[[Request], Awaitable[AsyncIterator[Any]]]
_Answer: TypeAlias = Callable[[Request], Awaitable[Response | Subscription]]

_KEY = 256  # characters of an Idempotency-Key, as of any key
# A secret that a header (RFC 6750 section 2.1) and a cookie (RFC 6265 section 4.1.1) can both carry as it is.
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")
_CHARSET = re.compile(r"\bcharset *= *(\"?)(?P<name>[^\";]*)\1", re.IGNORECASE)
_TEXT = re.compile(r"text/[a-z0-9.+-]+")
_JSON = re.compile(r"application/(?:[a-z0-9.-]+\+)?json")


def add_channels(
    router: Router, hub: Hub, *, publish_token: str | None = None, subscribe_token: str | None = None
) -> None:
    """Let `router` serve the hub's channels: subscribe, publish, and what there is to know of one.

        GET  /channels/{name}        server-sent events or JSON lines, as Accept asks; goes on after Last-Event-ID
        POST /channels/{name}        publishes JSON or text, `?event=name`; 201 with the id
        GET  /channels/{name}/info   ids and counts

    publish_token, subscribe_token: secrets, without which a request is refused; None lets everybody. They come as
    `Authorization: Bearer`, for a GET also as a cookie. Raises LocalError for a secret that they cannot carry.
    """

    async def subscribe(request: Request) -> Subscription:
        return hub.channel(request.params["name"]).subscribe()

    async def publish(request: Request) -> Response:
        channel = hub.channel(request.params["name"])
        data = await _data(request, hub.event_size)
        try:
            id = await channel.publish(data, _event(request), _key(request))
        except OutcomeUnknown as exc:  # there was no key; who came back after so many seconds would perhaps make two
            unknown = "it may have been published or not; an Idempotency-Key would make repeating safe"
            raise Unavailable(unknown) from exc
        except ItemError as exc:
            raise HTTPError(400, f"the body {exc.problem}") from exc
        except EventError as exc:
            raise HTTPError(400, str(exc)) from exc
        return Response.json({"id": id}, 201)

    async def info(request: Request) -> Response:
        channel = hub.channel(request.params["name"])
        state = await channel.state()
        known = {
            "name": channel.name,
            "oldest": None if state is None or state.oldest is None else str(state.oldest),
            "last": None if state is None else str(state.last),
            "events": 0 if state is None else state.entries,
            "subscribers": channel.subscribers,
            "ended": state is not None and state.ended,
        }
        return Response.json(known, headers=[("Cache-Control", "no-store")])

    reader, writer = _Guard(subscribe_token, COOKIE), _Guard(publish_token)
    router.get("/channels/{name}")(reader.before(subscribe))
    router.post("/channels/{name}")(writer.before(publish))
    router.get("/channels/{name}/info")(reader.before(info))


def add_jobs(
    router: Router, hub: Hub, start: Start, *, publish_token: str | None = None, subscribe_token: str | None = None
) -> None:
    """Let `router` serve runs of the hub, whose items come from `start(request)`.

        POST   /jobs        begins one: 201 with its id; with an Idempotency-Key that began one, 200 with that one's
        GET    /jobs/{id}   its events, from the first on, or after Last-Event-ID
        DELETE /jobs/{id}   stops it

    start: a coroutine function that returns an async iterator (an async generator, say), or raises HTTPError, before
    anything has begun. Who knows the id may read: one that was made here cannot be guessed, one made from a key is as
    good as the key. Raises LocalError if `start` is an async generator itself.
    """
    if inspect.isasyncgenfunction(start):
        raise LocalError("start is a coroutine function that returns an async generator, not one itself")

    async def begin(request: Request) -> Response:
        key = _key(request)
        # The key itself may be anything, and is nobody else's business; ids are seen in addresses and logs.
        id = None if key is None else hashlib.sha256(key.encode()).hexdigest()[:32]
        run = None if id is None else await _found(hub, id)
        if run is None:
            run = await hub.run(await start(request), id)
        location = f"/jobs/{run.id}"
        known = {"id": run.id, "location": location}
        return Response.json(known, 201 if run.begun else 200, [("Location", location)])

    async def follow(request: Request) -> Subscription:
        return hub.run_channel(request.params["id"]).subscribe(replay="earliest")

    async def stop(request: Request) -> Response:
        await (await hub.find(request.params["id"])).stop()
        return Response(204)

    reader, writer = _Guard(subscribe_token, COOKIE), _Guard(publish_token)
    router.post("/jobs")(writer.before(begin))
    router.get("/jobs/{id}")(reader.before(follow))
    router.delete("/jobs/{id}")(writer.before(stop))


async def _found(hub: Hub, id: str) -> Run | None:
    try:
        return await hub.find(id)
    except NotFound:
        return None


# -- what a request says -----------------------------------------------------------------------------------------------


def _key(request: Request) -> str | None:
    key: str | None = request.headers.get("idempotency-key")
    if key is not None and not 0 < len(key) <= _KEY:
        raise HTTPError(400, f"an Idempotency-Key has 1 to {_KEY} characters")
    return key


def _event(request: Request) -> str | None:
    """The event's name, which is UTF-8, as a body is."""
    try:
        given = parse_qsl(request.head.query, keep_blank_values=True, errors="strict")
    except UnicodeDecodeError as exc:
        raise HTTPError(400, "the query is not UTF-8") from exc
    return dict(given).get("event") or None


async def _data(request: Request, most: int) -> Any:
    """What is to be published. A body that is too large is refused before it is read, if it says how large it is."""
    given = request.headers.get("content-type") or "text/plain"
    media_type = given.partition(";")[0].strip().lower()
    read = request.text if _TEXT.fullmatch(media_type) else request.json if _JSON.fullmatch(media_type) else None
    charset = _CHARSET.search(given.partition(";")[2])
    if read is None or (charset is not None and charset["name"].strip().lower() not in ("utf-8", "utf8", "us-ascii")):
        detail = f"publish application/json or text/plain, in UTF-8 (the field Content-Type), not {given}"
        raise HTTPError(415, detail, [("Accept", "application/json, text/*")])
    if int(request.headers.get("content-length", "0")) > most or len(await request.body()) > most:
        raise EventTooLarge(f"an event has at most {most} bytes here")
    return await read()


# -- who may -----------------------------------------------------------------------------------------------------------


class _Guard:
    """Who has the secret. It is compared in constant time, and never told: not to the client, not to a log.

    cookie: the name of one that may hold it too.
    """

    def __init__(self, token: str | None, cookie: str | None = None) -> None:
        self._token = None if token is None else checked_token(token).encode()
        self._cookie = cookie

    def before(self, handler: _Answer) -> _Answer:
        """The handler, for those who have the secret; for all, if there is none."""
        if self._token is None:
            return handler

        async def guarded(request: Request) -> Response | Subscription:
            self._admit(request)
            return await handler(request)

        return guarded

    def _admit(self, request: Request) -> None:
        assert self._token is not None, "all are let"
        # The header's word counts alone: a cookie is sent by a browser whether or not it is meant.
        shown = _bearer(request) or (_cookies(request, self._cookie) if self._cookie else [])
        if not shown:
            raise HTTPError(401, "this needs a token (Authorization: Bearer ...)", [("WWW-Authenticate", "Bearer")])
        if not any(hmac.compare_digest(token.encode("latin-1"), self._token) for token in shown):
            raise HTTPError(403, "this is not the token")


def checked_token(token: str) -> str:
    """A secret that can be sent. Raises LocalError, which does not show it."""
    if not _TOKEN.fullmatch(token):
        raise LocalError("a token is made of ASCII letters, digits and - . _ ~ + / (and = at its end), and not empty")
    return token


def _bearer(request: Request) -> list[str]:
    """What the field Authorization says. Two such fields are joined by a comma, which no token has."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return [token.strip()] if scheme.lower() == "bearer" else []


def _cookies(request: Request, name: str) -> list[str]:
    """All of that name: a browser sends one for each path and domain."""
    pairs = (part.partition("=") for field in request.headers.get_all("cookie") for part in field.split(";"))
    return [value.strip() for key, _, value in pairs if key.strip() == name]
