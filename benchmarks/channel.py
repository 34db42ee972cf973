"""What the workloads with a channel share: how a peer's channel is checked, and what its subscribers saw."""

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.answer import AnswerParser, WrongAnswer, parse
from benchmarks.load import Load, ask
from benchmarks.peers import Peer
from benchmarks.process import Server
from benchmarks.requests import STAMP_BYTES, Publisher, numbered
from benchmarks.settings import Settings
from benchmarks.subscribers import Subscribers
from benchmarks.workload import Contender

_FIELDS = {b"event", b"id", b"retry"}
"""What an event may have beside its data."""


LAG_INTERVAL = 0.01
"""How often a server's loop is looked at, in seconds."""


@dataclass(frozen=True, slots=True)
class Audience:
    """How many subscribe, how often they are told something (seconds), and for how long at each rate."""

    subscribers: int
    interval: float
    seconds: float
    fast_seconds: float


def check_channel(server: Server, contender: Contender, settings: Settings, size: int = STAMP_BYTES) -> None:
    """Three subscribers and five events: each must get just these bytes, under the right head. Warms up, too."""
    until = time.monotonic_ns() + int(settings.timeout * 1e9)
    sent: list[bytes] = []
    with Load() as load:
        for _ in range(3):
            load.ask(server.port, "/fanout")
        _read(load, until, lambda: all(b"\r\n\r\n" in read for read in _bytes(load)), "heads")
        publisher = Publisher(server.port, size)
        with publisher.sock:
            publisher.sock.settimeout(settings.timeout)
            for _ in range(5):
                sent.append(numbered(publisher.publish(), size))
                while publisher.waiting:
                    publisher.feed(publisher.sock.recv(65_536))
                wanted = sent[-1]
                _read(load, until, lambda: all(wanted in read for read in _bytes(load)), "events")  # noqa: B023
        answers = [parse(reader.reads, until_close=True) for reader in load.readers]
    for answer in answers:
        check_stream(answer)
        if (found := data_of(answer.body)) != sent:
            raise WrongAnswer(f"{len(found)} events instead of {len(sent)}, or others: {found[:1]}")


def _bytes(load: Load) -> list[bytes]:
    return [b"".join(read.data for read in reader.reads) for reader in load.readers]


def _read(load: Load, until: int, done: Callable[[], bool], what: str) -> None:
    while not done():
        if time.monotonic_ns() > until:
            raise WrongAnswer(f"not all {what} came")
        load.turn(0.1)
        if any(reader.ended for reader in load.readers):
            raise WrongAnswer("a subscriber's stream ended")


def check_stream(answer: AnswerParser) -> None:
    """Raise `WrongAnswer` unless this is the head of a stream of events."""
    if answer.status != 200:
        raise WrongAnswer(f"status {answer.status} instead of 200: {answer.body[:80]!r}")
    kind = answer.headers.get("content-type", "none").partition(";")[0].strip()
    if kind != "text/event-stream":
        raise WrongAnswer(f"Content-Type {kind} instead of text/event-stream")
    if "content-length" in answer.headers or "content-encoding" in answer.headers:
        raise WrongAnswer("the stream has a length, or is encoded")


def data_of(body: bytes) -> list[bytes]:
    """The data of each event of a body. Raises `WrongAnswer` for what is no server-sent event."""
    found: list[bytes] = []
    *blocks, rest = re.split(rb"\r?\n\r?\n", body)
    if rest.strip():
        raise WrongAnswer(f"the last event has no end: {rest[:40]!r}")
    for block in blocks:
        for line in block.splitlines():
            name, _, value = line.partition(b":")
            if name == b"data":
                found.append(value.removeprefix(b" "))
            elif name and name not in _FIELDS:
                raise WrongAnswer(f"not a field of an event: {line[:60]!r}")
    return found


def lags(port: int, peer: Peer, timeout: float) -> list[float]:
    """How late the server's loop was each time since this was last asked for: microseconds, sorted.

    Raises `WrongAnswer` where it tells something else.
    """
    if not peer.tells_lag:
        return []
    time.sleep(2 * LAG_INTERVAL)  # so that there is one at least
    _, answer, _ = ask(port, "/lag", timeout)
    if answer.status != 200:
        raise WrongAnswer(f"/lag answered {answer.status}")
    try:
        return sorted(float(word) for word in answer.body.split())
    except ValueError:
        raise WrongAnswer(f"/lag answered {answer.body[:40]!r} instead of numbers") from None


def check_delivered(crowd: Subscribers) -> None:
    """Raise `WrongAnswer` unless each subscriber got each event once."""
    if crowd.missing or crowd.doubled:
        raise WrongAnswer(f"{crowd.missing} events were missing, and {crowd.doubled} came twice")


def latencies_of(crowd: Subscribers, stamps: Sequence[int]) -> tuple[list[float], list[float]]:
    """Of these events: microseconds from the stamp to the first subscriber's `read`, and to the last's; sorted."""
    check_delivered(crowd)
    if not stamps:
        raise WrongAnswer("no event was published in the time of the measurement")
    arrivals = crowd.arrivals
    return (
        sorted((arrivals[stamp][0] - stamp) / 1e3 for stamp in stamps),
        sorted((arrivals[stamp][-1] - stamp) / 1e3 for stamp in stamps),
    )
