"""Who holds a stream back, from what the answers show, and the line of configuration that mends it. No I/O.

There are three kinds of evidence, the strongest first:

1. What an experiment changed. A proxy that lets go when the answer says `X-Accel-Buffering: no` is nginx, or one that
   does as nginx does; one that holds only what it compresses is a compressor.
2. What only one program does: the first ten bytes of its gzip streams, the HTTP version it speaks to the origin.
3. What the fields say: `Server`, `Via`, `X-Varnish`, ... They tell who is on the way, not who is guilty. So they name
   only somebody who is known to hold streams back in the way that was seen.

Who has none of these against him is not accused; the culprit is then "unknown".
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rawstream.fields import Headers
from rawstream.terminal import size

from .findings import Case

UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Culprit:
    """Who it is likely to be; `evidence` says why, `mend` what to write, a line each."""

    name: str
    evidence: tuple[str, ...] = ()
    mend: tuple[str, ...] = ()


# The programs that name themselves, and the fields by which they do. The first group of a pattern is a name.
_PARTIES: tuple[tuple[str, str, str], ...] = (
    ("server", r"\b(nginx|openresty|tengine|angie)\b", "nginx"),
    ("server", r"\bcloudflare\b", "Cloudflare"),
    ("server", r"\bapache(?!-coyote)\b", "Apache"),
    ("server", r"\bcaddy\b", "Caddy"),
    ("server", r"\benvoy\b", "Envoy"),
    ("server", r"\bhaproxy\b", "HAProxy"),
    ("server", r"\bmicrosoft-(?:iis|azure)", "IIS"),
    ("server", r"\bakamai", "Akamai"),
    ("server", r"\bcloudfront\b", "CloudFront"),
    ("server", r"\blitespeed\b", "LiteSpeed"),
    ("server", r"\b(?:uvicorn|hypercorn|daphne|granian)\b", "ASGI server"),
    ("server", r"\b(?:gunicorn|waitress|werkzeug|cheroot)\b", "WSGI server"),
    ("via", r"\bvarnish\b", "Varnish"),
    ("via", r"\bcaddy\b", "Caddy"),
    ("via", r"\bcloudfront\b", "CloudFront"),
    ("via", r"\bsquid\b", "Squid"),
    ("via", r"\bvegur\b", "Heroku"),
    ("via", r"\bgoogle\b", "Google load balancer"),
    ("via", r"\bhaproxy\b", "HAProxy"),
    ("via", r"\bapache\b", "Apache"),
    ("via", r"\bnginx\b", "nginx"),
    ("cf-ray", r"", "Cloudflare"),
    ("x-varnish", r"", "Varnish"),
    ("x-amz-cf-id", r"", "CloudFront"),
    ("x-amzn-requestid", r"", "AWS API Gateway"),
    ("x-envoy-upstream-service-time", r"", "Envoy"),
    ("x-azure-ref", r"", "Azure Front Door"),
    ("x-vercel-id", r"", "Vercel"),
    ("fly-request-id", r"", "Fly.io"),
    ("akamai-grn", r"", "Akamai"),
    ("x-litespeed-cache", r"", "LiteSpeed"),
)


def parties(headers: Headers) -> dict[str, str]:
    """Who says to be on the way, each with the field that says so."""
    found: dict[str, str] = {}
    for name, pattern, party in _PARTIES:
        value = headers.get(name)
        if value is not None and re.search(pattern, value, re.IGNORECASE):
            found.setdefault(party, f"{name.title()}: {value}" if pattern else f"a field {name.title()}")
    return found


_GO_ZERO = b"\x00\x09\x6e\x88"  # Go's zero time as seconds since 1970, modulo 2 ** 32


def gzip_maker(head: bytes) -> str:
    """Whose the first ten bytes of a gzip stream are (RFC 1952: MTIME, OS), or "": zlib's are those of many."""
    if len(head) < 10 or head[:3] != b"\x1f\x8b\x08":
        return ""
    time, system = head[4:8], head[9]
    if system == 255 and time in (bytes(4), _GO_ZERO):
        return "Go's gzip, as Caddy and Traefik use it"
    if system == 255:
        return "Python's gzip module, as Starlette's GZipMiddleware before 1.5 uses it"
    return ""


_COMPRESSES = {
    "nginx": ("nginx's gzip", ("gzip off;", "# or, in the answer: X-Accel-Buffering: no")),
    "Apache": ("Apache's mod_deflate", ("SetEnvIf Request_URI ^/stream no-gzip=1",)),
    "Caddy": ("Caddy's encode", ("@whole not path /stream*", "encode @whole gzip")),
    "Python": (
        "GZipMiddleware",
        (
            "pip install 'starlette>=1.5'   # which flushes each chunk",
            "# or, in the answer: Content-Encoding: identity   # which keeps the middleware away",
        ),
    ),
}
_BUFFERS = {
    "nginx": ("proxy_buffering off;", "# or, in the answer: X-Accel-Buffering: no"),
    "Caddy": ("flush_interval -1   # in reverse_proxy, and no buffer_responses or response_buffers there",),
    "HAProxy": ("# remove: http-response wait-for-body",),
    "Apache": (
        "ProxyPass / http://127.0.0.1:8000/ flushpackets=on   # and no filter that gathers (mod_ext_filter, ...)",
    ),
    "Varnish": ("set beresp.do_stream = true;   # in vcl_backend_response",),
    "Squid": ("# Squid cannot be told: keep streams away from it",),
    "AWS API Gateway": ("# set the integration's response transfer mode to STREAM",),
    "IIS": ('<serverRuntime ... />  # and responseBufferLimit="0" for the handler or ARR\'s proxy',),
    "WSGI server": ("# serve the stream from a worker that streams; look for middleware that joins the body",),
}
_CUTS = {
    "nginx": ("proxy_read_timeout 1h;",),
    "Apache": ("ProxyTimeout 3600",),
    "Caddy": ("transport http { read_timeout 1h }   # in reverse_proxy",),
    "HAProxy": ("timeout server 1h", "timeout client 1h"),
    "Varnish": ("set beresp.between_bytes_timeout = 1h;   # in vcl_backend_response",),
}
_HEARTBEAT = "send a heartbeat more often: Stream(..., heartbeat={})"


def accuse(cases: Sequence[Case]) -> Culprit | None:
    """Who it is, given every way that was asked; None where nothing is wrong."""
    bad = [case for case in cases if case.finding.bad and case.way.trial != "heartbeat"]
    if not bad:
        return None
    if all(case.finding.kind == "cut" for case in bad):
        return _cutter(bad, cases)
    held = [case for case in bad if case.finding.kind != "cut"]
    present: dict[str, str] = {}
    for case in cases:
        present = {**parties(case.recording.headers), **present}
    if _only_compressed(cases, held):
        return _compressor(cases, held, present)
    return _buffer(cases, held, present)


def _only_compressed(cases: Sequence[Case], held: Sequence[Case]) -> bool:
    """Whether only what was compressed is held, and the like of it came well without."""
    plain = [case for case in cases if not case.is_compressed and case.finding.kind == "streams"]
    return bool(plain) and all(case.is_compressed for case in held)


def _compressor(cases: Sequence[Case], held: Sequence[Case], present: Mapping[str, str]) -> Culprit:
    first = held[0].recording
    evidence = [f"only what is compressed ({first.coding or 'gzip'}) is held back"]
    maker = gzip_maker(first.coding_head)
    if _lets_go(cases):
        evidence.append("with X-Accel-Buffering: no in the answer it streams: only nginx looks at that")
        return _named("nginx", _COMPRESSES, [*evidence, *_told(present, "nginx")])
    if maker:
        evidence.append(f"the stream begins as that of {maker}")
    if maker.startswith("Python"):
        return _named("Python", _COMPRESSES, evidence)
    if maker.startswith("Go") and "Caddy" in present:
        return _named("Caddy", _COMPRESSES, [*evidence, *_told(present, "Caddy")])
    named = [party for party in ("nginx", "Apache") if party in present and not maker]
    if len(named) == 1 and not (named[0] == "nginx" and _tried(cases)):
        return _named(named[0], _COMPRESSES, [*evidence, *_told(present, named[0])])
    return Culprit(UNKNOWN, (*evidence, *_others(present)), ("# compress no streams, or flush after each piece",))


def _named(party: str, known: Mapping[str, tuple[str, tuple[str, ...]]], evidence: Sequence[str]) -> Culprit:
    name, mend = known[party]
    return Culprit(name, tuple(evidence), mend)


_ACCEL = "X-Accel-Buffering"


def _tried(cases: Sequence[Case]) -> list[Case]:
    """Those for which nginx was told not to buffer. To ask for it is not enough: a proxy may drop the query."""
    return [case for case in cases if _ACCEL in case.recording.sent]


def _lets_go(cases: Sequence[Case]) -> bool:
    """Whether what was held streams then."""
    return any(case.finding.kind == "streams" for case in _tried(cases))


def _are_most_held(cases: Sequence[Case], held: Sequence[Case]) -> bool:
    """Whether more ways are held than stream: of a line that loses packets some are, by chance."""
    streams = [case for case in cases if case.finding.kind == "streams" and not case.way.trial]
    return len(streams) < len([case for case in held if not case.way.trial])


def _buffer(cases: Sequence[Case], held: Sequence[Case], present: Mapping[str, str]) -> Culprit:
    evidence = []
    if _lets_go(cases) and _are_most_held(cases, held):
        evidence.append("with X-Accel-Buffering: no in the answer it streams: only nginx looks at that")
        evidence += _old_version(cases)
        return Culprit("nginx", (*evidence, *_told(present, "nginx")), _nginx_lines(cases))
    tried = [] if _lets_go(cases) else _tried(cases)  # where most streams, one more that does shows nothing
    passed_on = any(_ACCEL in case.recording.headers for case in tried)
    if tried:
        evidence.append("X-Accel-Buffering: no in the answer changed nothing")
    batch = next((case.finding.batch for case in held if case.finding.batch), None)
    if passed_on and "nginx" in present:
        evidence.append("it came through, and nginx keeps it to itself: so it is hardly nginx that gathers")
    if tried and not passed_on and _old_version(cases):
        present = {"nginx": "nothing of X-Accel-Buffering, which nginx keeps to itself", **present}
    known = [party for party in _BUFFERS if party in present and not (passed_on and party == "nginx")]
    if not tried and "nginx" in known:
        known = ["nginx"]
        evidence += _batch_of_nginx(batch)
    elif known == ["nginx"]:
        evidence.append("so nginx is told proxy_ignore_headers X-Accel-Buffering, or it is somebody behind it")
    if len(known) == 1:
        mend = _BUFFERS[known[0]]
        if known[0] == "nginx" and tried:
            mend = (*mend[:1], "# and no proxy_ignore_headers X-Accel-Buffering")
        return Culprit(known[0], (*evidence, *_told(present, known[0])), mend)
    evidence += _old_version(cases) + _hints(batch) + _lowered(cases)
    return Culprit(UNKNOWN, (*evidence, *_others(present)), ())


def _nginx_lines(cases: Sequence[Case]) -> tuple[str, ...]:
    if _old_version(cases):
        return (*_BUFFERS["nginx"], "proxy_http_version 1.1;", 'proxy_set_header Connection "";')
    return _BUFFERS["nginx"]


def _old_version(cases: Sequence[Case]) -> list[str]:
    """A proxy that speaks HTTP/1.0 to the origin though we did not."""
    for case in cases:
        if case.recording.got.get("version") == "1.0" and case.recording.asked_version == "1.1":
            return ["it speaks HTTP/1.0 to the origin, as nginx before 1.29.7 does unless told"]
    return []


def _batch_of_nginx(batch: int | None) -> list[str]:
    return [f"batches of {size(batch)} are what its buffers hold"] if batch in (4096, 8192) else []


def _hints(batch: int | None) -> list[str]:
    """What makes batches of this size, as far as it is known; no proof of anything."""
    if batch is None:
        return []
    for sizes, words in (
        ((4096, 8192), "nginx's buffers hold 4 or 8 KiB, and so do those of many programs"),
        ((16384,), "16 KiB is a TLS record, and HAProxy's buffer"),
        ((32768,), "32 KiB is gzip's window, and the buffer of Go's reverse proxies"),
        ((65535, 65536), "64 KiB is HTTP/2's first window for flow control, and many a pipe"),
    ):
        if any(abs(batch - size) <= 0.03 * size for size in sizes):
            return [words]
    return []


def _lowered(cases: Sequence[Case]) -> list[str]:
    """Whether somebody wrote our handler's Content-Type in lower case."""
    ours = [name for case in cases if case.recording.sent for name, _ in case.recording.headers.pairs]
    if "content-type" in ours:
        return ["field names come in lower case, as HAProxy writes them: look for http-response wait-for-body"]
    return []


def _told(present: Mapping[str, str], party: str) -> list[str]:
    return [f"the answer says {present[party]}"] if party in present else []


def _others(present: Mapping[str, str]) -> list[str]:
    return [f"{party} is on the way ({why})" for party, why in present.items()]


def _cutter(cut: Sequence[Case], cases: Sequence[Case]) -> Culprit:
    present: dict[str, Any] = parties(cut[0].recording.headers)
    beaten = [case.way for case in cases if case.way.trial == "heartbeat" and case.finding.kind == "streams"]
    kept = [f"with a heartbeat each {float(way.settings['heartbeat']):g} s it stays open" for way in beaten]
    silence = min(case.finding.seconds for case in cut)
    beat = _HEARTBEAT.format(round(silence / 2) if silence > 4 else round(silence / 2, 1))
    known = [party for party in _CUTS if party in present]
    if len(known) == 1:
        return Culprit(known[0], (*_told(present, known[0]), *kept), (*_CUTS[known[0]], f"# or {beat}"))
    return Culprit(UNKNOWN, (*kept, *_others(present)), (f"# {beat}",))
