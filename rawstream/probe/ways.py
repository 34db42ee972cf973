"""The ways in which a probe asks for a URL. Values alone: nothing here asks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

EVENTS = ("Accept", "text/event-stream")
PLAIN = ("Accept", "text/plain, */*;q=0.5")
BROWSER = ("Accept-Encoding", "gzip, deflate, br, zstd")
"""What a browser accepts. What has one of the last two is not decoded here, and judged by its pattern."""


@dataclass(frozen=True, slots=True)
class Way:
    """A request: its short name, and what makes it different. `settings` are for our own handler behind the URL."""

    name: str
    headers: tuple[tuple[str, str], ...] = (EVENTS,)
    method: str = "GET"
    http_version: str = "1.1"
    settings: Mapping[str, str] = field(default_factory=dict)

    def url(self, url: str) -> str:
        """The URL with the settings in its query, where they replace those that it has."""
        if not self.settings:
            return url
        parts = urlsplit(url)
        kept = [(key, value) for key, value in parse_qsl(parts.query, True) if key not in self.settings]
        return urlunsplit(parts._replace(query=urlencode([*kept, *self.settings.items()])))


FIRST = Way("events")
"""Asks as EventSource does."""

_LARGER = {"size": "1500"}  # bytes: some compress only what is larger than 500 or 1000

STAMPED = (
    Way("text", (PLAIN,)),
    Way("events (gzip)", (EVENTS, BROWSER), settings=_LARGER),
    Way("text (gzip)", (PLAIN, BROWSER), settings=_LARGER),
    Way("POST", method="POST"),
    Way("HTTP/1.0", http_version="1.0"),
)
"""Where our handler is behind, after FIRST: all at once, since each tells what became of it alone."""

FOREIGN = (
    Way("events (gzip)", (EVENTS, BROWSER)),
    Way("any type", (("Accept", "*/*"),)),
    Way("HTTP/1.0", http_version="1.0"),
)
"""Elsewhere, after FIRST: one after the other, since a server that answers one at a time would seem to hold back."""

ANY = Way("any type", (("Accept", "*/*"),))
POST = Way("POST", method="POST")


def fresh(way: Way, token: str) -> Way:
    """The same, but that no cache has an answer for it."""
    return Way(way.name, way.headers, way.method, way.http_version, {**way.settings, "fresh": token})


def slower(way: Way, step: float) -> Way:
    """The same with three times the pauses: what a busy machine gathers falls apart then, what a buffer does stays."""
    settings = {**way.settings, "interval": f"{min(3 * step, 10):.3f}", "count": "12"}
    return Way(way.name, way.headers, way.method, way.http_version, settings)


def released(way: Way) -> Way:
    """The same with the field by which nginx is told not to buffer."""
    return Way("X-Accel-Buffering: no", way.headers, way.method, way.http_version, {**way.settings, "accel": "no"})


def volume(way: Way) -> Way:
    """So much that buffers overflow, which shows how large they are; it does not shrink by compression."""
    settings = {**way.settings, "count": "192", "interval": "0.01", "size": "700", "fill": "random"}
    return Way("128 KiB", way.headers, way.method, way.http_version, settings)


def idle(seconds: float, heartbeat: float = 0.0) -> Way:
    """Three chunks, of which the last comes after a silence, which heartbeats may fill."""
    settings = {"count": "3", "idle": f"{seconds:g}"}
    if heartbeat:
        return Way("idle, with heartbeats", settings={**settings, "heartbeat": f"{heartbeat:.2f}"})
    return Way(f"idle for {seconds:g} s", settings=settings)


def resume(last: str) -> Way:
    """Come back, as EventSource does."""
    return Way("resume", (EVENTS, ("Last-Event-ID", last)))
