"""The verdict on an answer of which nobody knows when it was sent: from the pattern of what came, and it says so.

What cannot be known is not held against anybody. An origin that thinks for three seconds and then says all looks like a
proxy that held it for three seconds; one that speaks in bursts looks like a proxy that flushes by the clock. Accused is
only what an origin would hardly do: to tear messages at the same size each time, to send events with the end alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from http import HTTPStatus
from itertools import pairwise
from statistics import median

from rawstream.fetched import JSON_LINES
from rawstream.terminal import size

from .arrivals import EVENTS, PROSE, Recording
from .bursts import STEP, TOGETHER, Burst, are_instant, are_torn, bursts, fixed_size, pause, threshold
from .findings import Finding, plural, seconds

_MOMENT = 0.3  # seconds: of what was over sooner, nothing can be said
_NOTICED = 0.05  # seconds: shorter pauses no reader notices
_FLUSH = 0.02  # of the time before it: a buffer that is flushed takes no longer
_FLOW = 8  # reads: what comes in so many, and not at once, is no buffer either
_MANY = 3  # messages at once that make one think
_IDLE = 2.5  # times the usual pause: a longer silence before a cut is one
_RUSH = 600_000  # bytes a second: what comes faster is gathered by who reads it, 256 KiB at a time
_STRUCTURED = {EVENTS, "application/json-seq", *JSON_LINES}
"""Types of streams in which a message ends where a line does, or with an empty one."""
_GIVEN_UP = {408, 502, 504, 524}
"""Statuses of a proxy that lost patience (524 is Cloudflare's)."""


def infer(recording: Recording) -> Finding:
    """How an answer without marks came."""
    if recording.ending == "failed" or not 200 <= recording.status < 300:
        return _no_answer(recording)
    found = bursts(recording.pieces)
    if recording.ending == "cut":
        return replace(_cut(recording, found), inferred=True)
    if not found:
        return replace(_nothing(recording), inferred=True)
    if _is_document(recording):
        if "content-length" in recording.headers and len(found) >= _MANY and pause(found) >= _NOTICED:
            return Finding("streams", "streams, though its length was known beforehand", inferred=True)
        return Finding("no stream", f"is no stream: {_size(recording)} of {recording.content_type or 'no type'}")
    if len(found) == 1 or _nearly_all_last(found, recording):
        return replace(_at_once(recording, found), inferred=True)
    return replace(_paced(recording, found), inferred=True)


def _no_answer(recording: Recording) -> Finding:
    if recording.status in _GIVEN_UP and recording.ended_at >= 1:
        words = f"cut after {seconds(recording.ended_at)} idle: a proxy answered {recording.status}"
        return Finding("cut", words, inferred=True, seconds=recording.ended_at)
    if recording.status and not 200 <= recording.status < 300:
        return Finding("failed", recording.error or _refused(recording))
    return Finding("failed", recording.error or "there was no answer")


def _refused(recording: Recording) -> str:
    """What a status that is no success means for who asked."""
    words = f"answered {recording.status}"
    try:
        words += f" {HTTPStatus(recording.status).phrase}"
    except ValueError:
        pass  # one of nobody's
    if recording.status in (301, 302, 303, 307, 308) and recording.redirect:
        return f"{words}: it leads to {recording.redirect}, so probe that"
    if recording.status in (401, 403):
        return f"{words}: --header 'Authorization: ...' may help"
    if recording.status == 405 and "allow" in recording.headers:
        return f"{words}: it allows {recording.headers['allow']}; --data asks by POST"
    return words


def _cut(recording: Recording, found: list[Burst]) -> Finding:
    silence = recording.silence
    usual = max([pause(found), *(after.at - before.pieces[-1].at for before, after in _pairs(found))])
    if silence >= _MOMENT and silence > _IDLE * pause(found) and silence >= 0.9 * usual:
        words = f"cut after {seconds(silence)} idle"
        return Finding("cut", words, seconds=silence, notes=("the origin itself may have broken it off",))
    words = f"broke off after {seconds(recording.ended_at)}" + (", in full flow" if found else "")
    return Finding("failed", words, seconds=recording.ended_at, notes=tuple(filter(None, [recording.error])))


def _pairs(found: list[Burst]) -> list[tuple[Burst, Burst]]:
    return list(pairwise(found))


def _nothing(recording: Recording) -> Finding:
    after = seconds(recording.ended_at)
    if recording.status == 204:
        return Finding("no stream", "is no stream: answered 204 No Content")
    if recording.ending == "complete":
        return Finding("unknown", f"ended after {after} without a byte")
    if recording.coding and recording.pieces:
        words = f"brought nothing that can be decoded in {after}: held back by who compresses it, or silent"
        return Finding("unknown", words)
    return Finding("unknown", f"was silent for {after}: nothing to judge by", notes=("--time SECONDS listens longer",))


def _is_document(recording: Recording) -> bool:
    """Whether its type or its length says that it was made before it was sent."""
    kind = recording.content_type
    if kind in _STRUCTURED:
        return False
    streamed = kind in PROSE or kind == "application/json" or not kind or kind.startswith("multipart/")
    return "content-length" in recording.headers or not streamed


def _size(recording: Recording) -> str:
    return size(recording.size)


def _said(recording: Recording) -> str:
    """What came, counted."""
    if recording.messages:
        return plural(recording.messages, "event" if recording.content_type == EVENTS else "line")
    if recording.heartbeats:
        return plural(recording.heartbeats, "heartbeat")
    return _size(recording)


def _nearly_all_last(found: list[Burst], recording: Recording) -> bool:
    """Whether all but a little came with the end."""
    last = found[-1]
    rest = sum(burst.size for burst in found[:-1])
    waited = last.at - found[-2].pieces[-1].at
    at_end = recording.ended_at - last.pieces[-1].at <= 0.1 * last.at and recording.ending == "complete"
    many = last.messages >= _MANY or (not recording.messages and last.size >= 1024)
    return at_end and many and rest <= 0.1 * recording.size and waited >= 0.7 * last.at


def _at_once(recording: Recording, found: list[Burst]) -> Finding:
    """Of one burst, or one that counts."""
    last = found[-1]
    if last.spread > max(2 * TOGETHER, _FLUSH * last.at):
        if last.spread >= _MOMENT or (last.at >= _MOMENT and len(last.pieces) >= _FLOW):
            return Finding("streams", "streams: it flows without a pause")
        return Finding("unknown", f"was over in {seconds(recording.ended_at)}: too short to judge by")
    if recording.ending == "stopped":
        silent = seconds(recording.ended_at - last.pieces[-1].at)
        return Finding("unknown", f"brought {_said(recording)} at once, then nothing for {silent}: nothing to judge by")
    if last.at < _MOMENT:
        return Finding("unknown", f"brought {_said(recording)} in {seconds(recording.ended_at)}: too short to judge by")
    if recording.ended_at - last.pieces[-1].at > 0.25 * last.at:
        return Finding("unknown", f"brought {_said(recording)} at once after {seconds(last.at)}: nothing to judge by")
    notes = [f"{_said(recording)} came at once after {seconds(last.at)}, with the end"]
    if "content-length" in recording.headers:
        notes.append("Content-Length says that somebody had all of it before he sent any")
    if recording.content_type == "application/json" or (last.messages < _MANY and not recording.undecoded):
        return Finding("unknown", f"came at once after {seconds(last.at)}: a slow answer, or one that was held back")
    notes.append("an origin that computes for so long, then sends all at once, would look the same")
    return Finding("held", "held until the end", seconds=last.at, notes=tuple(notes))


def _paced(recording: Recording, found: list[Burst]) -> Finding:
    """Of bursts with pauses between."""
    each = pause(found)
    if not are_instant(found) or each < _NOTICED:
        return Finding("streams", "streams: it flows without long pauses")
    if median(burst.size for burst in found) > _RUSH * each:
        return Finding("streams", "streams: it flows as fast as it is read")
    flushed = found if _is_whole(recording) else found[:-1]
    batch, torn = fixed_size(flushed), are_torn(flushed)
    structured = recording.content_type in _STRUCTURED
    messages = _messages(found)
    # A buffer is not full at once: a first burst that comes early is the origin's own, and so are the like of it.
    filled = found[0].at > 0.5 * each
    if torn and structured and (messages >= 2 or batch) and len(flushed) >= 2:
        return _batches(flushed, batch, each, "each ends inside a message, where no origin would flush")
    if torn and structured and messages >= 2 and flushed[0].size % STEP == 0:  # it is alone, before the rest
        return _batches(flushed, flushed[0].size, each, "the first ends inside a message, where no origin would flush")
    if torn and batch and not structured and recording.content_type != "application/octet-stream":
        if messages >= 2:
            return _batches(flushed, batch, each, "each ends inside a line, where few origins flush")
        if filled and not recording.messages:
            return _batches(flushed, batch, each, f"each has exactly {size(batch)}, and few origins cut it so")
    if not torn and filled and (limit := threshold(flushed)):
        return _batches(flushed, limit, each, f"each was sent as soon as it had {size(limit)}")
    if messages >= 2:
        notes = (
            f"about {plural(messages, 'whole message')} a burst, one each {seconds(each)}",
            "a proxy that flushes by the clock would look the same",
        )
        return Finding("streams", "streams, in bursts that look like the origin's own", notes=notes)
    if recording.messages == 0 and recording.heartbeats:
        return Finding("streams", f"streams: {_said(recording)} and nothing else, one each {seconds(each)}")
    return Finding("streams", "streams", seconds=0.0)


def _messages(found: Sequence[Burst]) -> int:
    """How many the usual burst has."""
    return sorted(burst.messages for burst in found)[len(found) // 2]


def _is_whole(recording: Recording) -> bool:
    """Whether the last burst ended before we stopped: then it is one like the others."""
    return recording.ending == "stopped" and recording.silence > TOGETHER


def _batches(flushed: list[Burst], batch: int | None, each: float, why: str) -> Finding:
    usual = batch or round(median(burst.size for burst in flushed))
    words = f"arrives in batches of {'' if batch else 'about '}{size(usual)}, one each {seconds(each)}"
    return Finding("batches", words, batch=usual, period=each, seconds=each, notes=(why,))


def compared(finding: Finding, recording: Recording, other: Recording) -> Finding:
    """The same URL was asked in two ways, and the `other` answer streamed: what this one's pauses then mean."""
    if finding.kind == "streams" and recording.coding and not other.coding:
        return _gathered(finding, recording, other)
    if finding.kind not in ("unknown", "held", "no stream") and not recording.timed_out:
        return finding
    if recording.content_type not in ("", other.content_type):
        return finding  # of another type it may be another thing: a whole document, made when it was asked for
    paced = bursts(other.pieces)
    first = recording.first_byte
    if len(paced) < _MANY or not paced[-1].at:
        return finding
    waited = recording.ended_at if first is None else first
    came = bursts(recording.pieces)
    enough = min(2 * paced[min(4, len(paced) - 1)].at, paced[-1].at)
    if len(came) <= 1 and waited >= enough and waited > paced[0].at + 2 * pause(paced):
        notes = ("asked in another way the same stream came bit by bit",)
        words = "held until the end" if recording.ending == "complete" else f"held back for {seconds(waited)} or more"
        return Finding("held", words, inferred=True, seconds=waited, notes=notes)
    return finding


def _gathered(finding: Finding, recording: Recording, other: Recording) -> Finding:
    """Bursts of whole messages may be the origin's own; but not where each came alone when it was not compressed."""
    mine, theirs = bursts(recording.pieces), bursts(other.pieces)
    if recording.content_type != other.content_type or len(mine) < 2 or len(theirs) < _MANY:
        return finding
    each = pause(mine)
    if _messages(mine) < _MANY or _messages(theirs) > 1 or not are_instant(mine) or each < _IDLE * pause(theirs):
        return finding
    notes = ("asked for uncompressed, each message of the same stream came alone",)
    words = f"arrives in batches, one each {seconds(each)}"
    return Finding("batches", words, inferred=True, period=each, seconds=each, notes=notes)
