"""The ways in which a probe asks for a URL. Values alone: nothing here asks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

EVENTS = ("Accept", "text/event-stream")
PLAIN = ("Accept", "text/plain, */*;q=0.5")
BROWSER = ("Accept-Encoding", "gzip, deflate, br, zstd")
"""What a browser accepts. What has one of the last two is not decoded here, and judged by its pattern."""


Trial = Literal["", "accel", "volume", "pace", "heartbeat"]
"""What a way is a trial of, by which more is learnt of what the others have shown; "" if it is one of those."""


@dataclass(frozen=True, slots=True)
class Way:
    """A request: its short name, and what makes it different. `settings` are for our own handler behind the URL."""

    name: str
    headers: tuple[tuple[str, str], ...] = (EVENTS,)
    method: str = "GET"
    http_version: str = "1.1"
    settings: Mapping[str, str] = field(default_factory=dict)
    trial: Trial = ""

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
    return replace(way, settings={**way.settings, "fresh": token})


_PACES = (2.9, 3.6, 4.4)
"""Times the usual pause. They have no common measure: a clock that is in step with one is not so with the others."""

SLOWEST = 60
"""Times the usual pause: no slow stream takes longer."""


def slower(way: Way, step: float, number: int = 0) -> Way:
    """The same with longer pauses, other ones for each `number`: what a busy machine gathers falls apart then."""
    return replace(
        way, settings={**way.settings, "interval": f"{min(_PACES[number % 3] * step, 10):.3f}", "count": "12"}
    )


def unhurried(way: Way, step: float) -> Way:
    """Fewer bytes in more time: who goes by the clock and not by the bytes lets some of it go before the end."""
    return replace(slower(way, step, 2), name="slowly", trial="pace")


def released(way: Way) -> Way:
    """The same with the field by which nginx is told not to buffer."""
    return replace(way, name="X-Accel-Buffering: no", settings={**way.settings, "accel": "no"}, trial="accel")


def volume(way: Way) -> Way:
    """So much that buffers overflow, which shows how large they are; it does not shrink by compression."""
    settings = {**way.settings, "count": "192", "interval": "0.01", "size": "700", "fill": "random"}
    return replace(way, name="128 KiB", settings=settings, trial="volume")


def idle(seconds: float, heartbeat: float = 0.0) -> Way:
    """Six chunks, of which the last comes after a silence, which heartbeats may fill; pauses to compare it with."""
    settings = {"count": "6", "idle": f"{seconds:g}"}
    if heartbeat:
        settings["heartbeat"] = f"{heartbeat:.2f}"
        return Way("idle, with heartbeats", settings=settings, trial="heartbeat")
    return Way(f"idle for {seconds:g} s", settings=settings)


def resume(last: str, method: str) -> Way:
    """Come back, as EventSource does."""
    return Way("resume", (EVENTS, ("Last-Event-ID", last)), method)
