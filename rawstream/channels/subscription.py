"""What a handler returns to let its client read a channel. It becomes a stream when the request's cycle calls it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from rawstream.errors import LocalError, StoreUnavailable
from rawstream.formats import EVENTS, negotiate
from rawstream.messages import Request, Response, Stream

from .cursor import EARLIEST, After, position
from .feed import Feed

if TYPE_CHECKING:
    from .channel import Channel

_VARY = (("Vary", "Accept"),)
_FORMATS = tuple(replace(form, head=0.0) for form in EVENTS)  # whose heads leave at once


class Subscription:
    """A response that is settled by the request: where it begins, and in which format."""

    def __init__(self, channel: Channel, after: After, replay: Literal["earliest"] | int | None) -> None:
        if not (replay in (None, EARLIEST) or (type(replay) is int and replay >= 0)):
            raise LocalError(f'replay is how many events, "earliest" or None, not {replay!r}')
        self._channel = channel
        self._after = after
        self._replay = replay  # where those begin who have seen nothing

    async def __call__(self, request: Request) -> Response | Stream:
        """The stream for this request, or 204 for who has seen the end.

        Raises BadEventId (400), NotAcceptable (406), and NotFound for a run that is not there (any more).
        """
        form = negotiate(request.headers.get("accept"), _FORMATS)
        after = position(_seen(request)) or self._after or self._replay or None
        try:
            place = await self._channel.locate(after)
        except StoreUnavailable:  # the stream begins all the same: EventSource, if answered 503, would never come back
            feed, gap = Feed(self._channel, form.name != "sse", after), None
        else:
            if place.over:
                return Response(204)  # which lets EventSource stop
            feed, gap = Feed(self._channel, form.name != "sse", place.id, place), place.gap
        if gap is None:
            return Stream(feed, form, heartbeat=None, headers=_VARY)
        missing = "unknown" if gap.missing is None else str(gap.missing)
        return Stream(feed, form, heartbeat=None, headers=[*_VARY, ("Stream-Gap", missing)])


def _seen(request: Request) -> str | None:
    """The last event that the client has seen: EventSource says it in a header, which nobody else may be able to."""
    header = request.last_event_id
    return header if header is not None else request.query.get("last_event_id") or None
