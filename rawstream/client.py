"""A client for streams: one request on one connection, and its response while it arrives.

    async with rawstream.fetch("http://127.0.0.1:8000/stream") as response:
        async for item in response.items():
            print(item)

It is built on the same `wire` and `transport` as the server. The life of a response: `outgoing` makes the request,
`dial` the connection, and `fetching` asks and is answered. The way of a byte from then on: it is received (`dial`), the
framing is taken off, which makes an `Arrival` (`incoming`); all else is made of arrivals: they are unpacked
(`inflate`) and read as text, lines, items or events (`items`, `json_array`). `reconnecting` asks again and again.

For pooled connections, redirects, cookies, proxies and uploads there is httpx.
"""

from __future__ import annotations

from ssl import SSLContext
from typing import Any

from .errors import LocalError
from .fetched import ClientResponse
from .fetching import ClientLimits, ClientTimeouts, Fetch
from .fields import Pairs
from .outgoing import UNSET, given, parse, request
from .reconnecting import Backoff, EventSource
from .wire import ClientWire

__all__ = ["Backoff", "ClientLimits", "ClientResponse", "ClientTimeouts", "EventSource", "events", "fetch"]


def fetch(
    url: str,
    *,
    method: str | None = None,
    headers: Pairs = (),
    json: Any = UNSET,
    data: bytes | str | None = None,
    timeouts: ClientTimeouts | None = None,
    limits: ClientLimits | None = None,
    uds: str | None = None,
    ssl: SSLContext | None = None,
    http_version: str = "1.1",
    check: bool = True,
) -> Fetch:
    """Ask for a URL: `async with fetch(url) as response:`, and then read the response while it arrives.

    url: http or https. `name:password@` in it is sent as Basic authorization. A fragment is dropped.
    method: GET, or POST where there is a body. headers: pairs, or a mapping. Accept-Encoding is not sent unless you do:
        much of what compresses on the way holds a stream back.
    json: any value, sent as JSON (None is one). data: bytes or str, sent as they are.
    timeouts, limits: see there. uds: the path of a Unix socket to connect to, whatever host the URL names.
    ssl: for https, instead of one that trusts the system's authorities. http_version: "1.1" or "1.0".
    check: raise where the status is not 200 to 299; False leaves it to you.

    Raises LocalError at once for arguments that cannot be sent. All that the server does wrong is a FetchError: the
    block begins with ConnectFailed, ResponseTimeout, BadResponse, IncompleteResponse, StatusError or its kind
    Redirected. (Redirects are not followed: where a URL leads is yours to trust.) Leaving the block early, or
    cancelling, closes the connection at once.
    """
    target = parse(url)
    if ssl is not None and not isinstance(ssl, SSLContext):
        raise LocalError(f"ssl is an ssl.SSLContext, not {ssl!r}")
    timeouts, limits = timeouts or ClientTimeouts(), limits or ClientLimits()
    wire = ClientWire(limits.head)
    sent = request(wire, target, method, headers, json, data, http_version)
    return Fetch(target, wire, sent, timeouts, limits, uds, ssl, check)


def events(
    url: str,
    *,
    last_event_id: str | None = "",
    backoff: Backoff | None = None,
    method: str | None = None,
    headers: Pairs = (),
    json: Any = UNSET,
    data: bytes | str | None = None,
    timeouts: ClientTimeouts | None = None,
    limits: ClientLimits | None = None,
    uds: str | None = None,
    ssl: SSLContext | None = None,
) -> EventSource:
    """Follow a stream of server-sent events for as long as it goes on, as a browser's EventSource does:

        async with events(url) as source:
            async for event in source:
                print(event.data)

    When the connection ends, or is cut, it is made again, with the id of the last event: a server that keeps its events
    goes on behind it. last_event_id: where to begin, as an event's `id`. backoff: when to try again, and for how long.
    The others are as for `fetch`.

    It ends when the server says so: by status 204, or with rawstream's event `stream-end`, which comes as the last. It
    raises StatusError where the server refuses (but 408, 425, 429, 500, 502, 503 and 504, which are tried again, not
    before the time that Retry-After tells), ContentError where it sends no text/event-stream, or an id that no field
    can carry, BadResponse where it speaks no HTTP, and GaveUp where none of `backoff.attempts` in a row brought an
    event, or a connection that stood for 30 s. Raises LocalError as `fetch` does.
    """
    theirs = given(headers)

    def ask(last: str) -> Fetch:
        own = [("Cache-Control", "no-store")] if "cache-control" not in theirs else []
        if "accept" not in theirs:
            own.append(("Accept", "text/event-stream"))
        if last := last.strip(" \t"):  # which a field's value cannot have at its ends
            # WHATWG HTML 9.2.4: as UTF-8; the wire writes fields as Latin-1.
            own.append(("Last-Event-ID", last.encode().decode("latin-1")))
        return fetch(
            url,
            method=method,
            headers=[*theirs.pairs, *own],
            json=json,
            data=data,
            timeouts=timeouts,
            limits=limits,
            uds=uds,
            ssl=ssl,
        )

    begin = last_event_id or ""
    ask(begin)  # raises now what is wrong with the arguments
    return EventSource(ask, url, begin, backoff or Backoff())
