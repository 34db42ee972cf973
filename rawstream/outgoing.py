"""What the client asks: a URL, fields and a body, checked, and made into a request. No I/O.

What a browser would mend silently (spaces or line ends in a URL) is refused here: in a program it is a mistake.
"""

from __future__ import annotations

import base64
import json
import re
from typing import Any, NamedTuple
from urllib.parse import SplitResult, quote, unquote_to_bytes, urlsplit

from .errors import LocalError
from .fields import Headers, Pairs, pairs
from .wire import ClientWire

_PORTS = {"http": 80, "https": 443}
_FORBIDDEN = re.compile(r"[\x00-\x20\x7f\\]")
_BEYOND_ASCII = re.compile(r"[^\x00-\x7f]+")


class Target(NamedTuple):
    """Where a URL leads (RFC 3986), and what is asked for there (RFC 9112 section 3.2).

    url: as it was given, without a fragment or a password. host: a name or an address, as the resolver takes it.
    authority: the Host field. path: with the query, percent-encoded. authorization: the Authorization field for the
    name and the password in the URL, or None.
    """

    url: str
    tls: bool
    host: str
    port: int
    authority: str
    path: str
    authorization: str | None


def parse(url: str) -> Target:
    """An http or https URL, taken apart. Raises LocalError that says what is wrong with it."""
    if not isinstance(url, str):
        raise LocalError(f"a URL is a str, not {type(url).__name__}")
    if found := _FORBIDDEN.search(url):
        raise LocalError(f"a URL cannot hold {found[0]!r}: percent-encode it (urllib.parse.quote), in {url!r}")
    try:
        parts = urlsplit(url)
        port = parts.port
        host = _host(parts)
    except ValueError as exc:
        raise LocalError(f"{url!r} is no URL: {exc}") from exc
    if parts.scheme not in _PORTS:
        raise LocalError(f"a URL begins with http:// or https://, not {url!r}")
    if not host:
        raise LocalError(f"a URL has a host: {url!r} has none")
    if port == 0:
        raise LocalError(f"a port is 1 to 65535, in {url!r}")
    name = f"[{host.partition('%')[0]}]" if ":" in host else host  # RFC 6874: a zone means something only here
    authority = name if port in (None, _PORTS[parts.scheme]) else f"{name}:{port}"
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    shown = f"{parts.scheme}://{authority}{path}"
    path = _BEYOND_ASCII.sub(lambda match: quote(match[0]), path)
    return Target(shown, parts.scheme == "https", host, port or _PORTS[parts.scheme], authority, path, _basic(parts))


def _host(parts: SplitResult) -> str:
    host = (parts.hostname or "").replace("%25", "%")
    if ":" in host or host.isascii():
        return host
    return host.encode("idna").decode("ascii")  # a UnicodeError is a ValueError


def _basic(parts: SplitResult) -> str | None:
    """RFC 7617, with UTF-8."""
    if parts.username is None and parts.password is None:
        return None
    pair = unquote_to_bytes(parts.username or "") + b":" + unquote_to_bytes(parts.password or "")
    return "Basic " + base64.b64encode(pair).decode("ascii")


class Unset:
    """The type of what stands for "not given", where None is a value."""


UNSET = Unset()
_OURS = ("connection", "content-length", "transfer-encoding", "upgrade")


def request(
    wire: ClientWire,
    target: Target,
    method: str | None,
    headers: Pairs,
    value: Any,
    data: bytes | str | None,
    version: str,
) -> bytes:
    """The bytes of a whole request, whose response `wire` is ready for then. Raises LocalError."""
    body, kind = _body(value, data)
    if method is None:
        method = "GET" if body is None else "POST"
    if version not in ("1.1", "1.0"):
        raise LocalError(f'http_version is "1.1" or "1.0", not {version!r}')
    sent = wire.request(method, target.path, _fields(target, given(headers), kind), body or b"")
    # h11 writes HTTP/1.1 always. Neither a method nor a target has a space, so this is the end of the first line.
    return sent if version == "1.1" else sent.replace(b" HTTP/1.1\r\n", b" HTTP/1.0\r\n", 1)


def _body(value: Any, data: bytes | str | None) -> tuple[bytes | None, str | None]:
    """A request's body and its Content-Type."""
    if value is not UNSET:
        if data is not None:
            raise LocalError("a request has json or data, not both")
        try:
            text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
            return text.encode(), "application/json"
        except (TypeError, ValueError, RecursionError) as exc:
            raise LocalError(f"json cannot be sent: {exc}") from exc
    if isinstance(data, str):
        try:
            return data.encode(), "text/plain; charset=utf-8"
        except UnicodeEncodeError as exc:
            raise LocalError(f"data cannot be sent as UTF-8: {exc}") from exc
    if data is not None and not isinstance(data, bytes):
        raise LocalError(f"data is bytes or str, not {type(data).__name__}; json= sends other values")
    return data, None


def given(headers: Pairs) -> Headers:
    """The fields that the caller gave, in whichever way. Raises LocalError."""
    try:
        return Headers(pairs(headers))
    except (AttributeError, TypeError, ValueError) as exc:
        raise LocalError(f"headers are pairs of str, or a mapping, not {headers!r}") from exc


def _fields(target: Target, theirs: Headers, kind: str | None) -> list[tuple[str, str]]:
    for name in _OURS:
        if name in theirs:
            raise LocalError(f"the field {name} is not the caller's to say: a request has a connection of its own")
    ours = {
        "Host": target.authority,
        "User-Agent": "rawstream",
        "Accept": "*/*",
        "Authorization": target.authorization,
        "Content-Type": kind,
    }
    fields = [(name, value) for name, value in ours.items() if value is not None and name not in theirs]
    return [*fields, *theirs.pairs, ("Connection", "close")]
