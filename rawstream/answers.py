"""What goes out for an answer: the fields of its head, its format, and the words for a failure. No I/O."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from email.utils import formatdate

from . import formats
from .encoding import accepts_gzip
from .errors import HTTPError, RawstreamError, phrase
from .fields import Headers, Pairs, pairs
from .formats import Format
from .messages import Response, Stream

Fields = list[tuple[str, str]]

_LONGEST = 300  # characters of a message to a client
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def fields(own: Pairs, defaults: Iterable[tuple[str, str]] = ()) -> Fields:
    """The handler's own fields, after Date and those `defaults` that it did not name."""
    own = pairs(own)
    named = [name.lower() for name, _ in own]
    return [*[field for field in (("Date", _date()), *defaults) if field[0].lower() not in named], *own]


_date_cache = (0, "")


def _date() -> str:
    """The Date field's value (RFC 9110 section 6.6.1), made once a second."""
    global _date_cache
    now = int(time.time())
    if _date_cache[0] != now:
        _date_cache = now, formatdate(now, usegmt=True)
    return _date_cache[1]


@dataclass(frozen=True, slots=True)
class Representation:
    """How a stream is sent to one client."""

    format: Format
    fields: Fields
    gzip: bool


def represent(stream: Stream, asked: Headers) -> Representation:
    """The format that this client is sent, and the response's fields. Raises NotAcceptable or LocalError."""
    if stream.format is None:
        form = formats.negotiate(asked.get("accept"))
        defaults = [("Content-Type", form.content_type), ("Vary", "Accept"), *form.headers]
    else:
        form = formats.fixed(stream.format)
        defaults = [("Content-Type", form.content_type), *form.headers]
    own = fields(stream.headers, defaults)
    gzip = False
    if stream.gzip and not any(name.lower() == "content-encoding" for name, _ in own):
        own.append(("Vary", "Accept-Encoding"))
        if gzip := accepts_gzip(asked.get("accept-encoding")):
            own.append(("Content-Encoding", "gzip"))
    return Representation(form, own, gzip)


def verdict(error: Exception) -> tuple[int, str]:
    """The status for an error, and what the client may know of it: nothing, where our side is at fault."""
    return (error.status, error.public) if isinstance(error, RawstreamError) else (500, "")


def _shown(message: str) -> str:
    """A message may quote what the client sent, at any length and with any characters: a line of it will do."""
    shown = _CONTROLS.sub(_escape, message[: _LONGEST + 1].encode(errors="replace").decode())
    return shown if len(shown) <= _LONGEST else shown[: _LONGEST - 1] + "…"


def _escape(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode("ascii")


def failure(error: Exception, request_id: str, accept: str | None = None) -> Response:
    """The answer to a request that failed: a line of text, or JSON for those who ask for it. Raises AnswerError."""
    status, message = verdict(error)
    message = _shown(message)
    own = [*(pairs(error.headers) if isinstance(error, HTTPError) else ()), ("X-Request-Id", request_id)]
    if formats.prefers_json(accept):
        own.insert(0, ("Content-Type", "application/json; charset=utf-8"))
        text = json.dumps({"status": status, "error": message or phrase(status)}, separators=(",", ":"))
    else:
        text = " ".join(filter(None, (str(status), phrase(status)))) + (f": {message}" if message else "")
    answer = Response.text(text + "\n", status, own)  # which looks at the error's own fields, before we do
    return answer if _varies(answer) else replace(answer, headers=[*pairs(answer.headers), ("Vary", "Accept")])


def _varies(answer: Response) -> bool:
    """Whether it says already that it depends on Accept (RFC 9110 section 12.5.5)."""
    told = ",".join(str(value) for name, value in pairs(answer.headers) if name.lower() == "vary")
    return not {"accept", "*"}.isdisjoint(part.strip().lower() for part in told.split(","))
