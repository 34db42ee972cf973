"""The clients of a soak: good, bad, slow and vanishing ones. Each visit ends with an outcome, or with `WrongAnswer`.

A good client checks every byte that it is answered. A bad one must be refused, a slow one cut by the deadline that is
meant for it; one that vanishes has nothing to check: what it leaves behind shows in the server's `/state`.
"""

import asyncio
import contextlib
import hashlib
import json
import os
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

from benchmarks.answer import AnswerParser, Read, WrongAnswer
from benchmarks.soak.attacks import GARBAGE, OVERSIZED, SMUGGLING
from benchmarks.soak.client import DRIP, Client, body_of, expect, get, post
from benchmarks.soak.server import PIECE, TIMEOUTS

_SMALL_BUFFER = 4096
"""A receive buffer in which the kernel hides little from the server."""


# -- good --------------------------------------------------------------------------------------------------------------


async def _read_events(port: int) -> str:
    count = random.randrange(1, 40)
    with await Client.connect(port) as client:
        await client.send(get(f"/events?n={count}", "text/event-stream"))
        body = body_of(await client.answer())
    events = "".join(f"data: {n}\nid: {n}\n\n" for n in range(count))
    expect(body.decode(), events + "event: stream-end\ndata: {}\nid: stream-end\n\n")
    return "complete"


async def _read_items(port: int) -> str:
    count = random.randrange(5000)
    with await Client.connect(port) as client:
        await client.send(get(f"/items?n={count}", "application/json"))
        expect(json.loads(body_of(await client.answer())), list(range(count)))
    return "complete"


async def _keep_alive(port: int) -> str:
    with await Client.connect(port) as client:
        for n in range(20):
            await client.send(get(f"/number/{n}"))
            expect(body_of(await client.answer()), str(n).encode())
    return "complete"


async def _pipeline(port: int) -> str:
    with await Client.connect(port) as client:
        await client.send(b"".join(get(f"/number/{n}") for n in range(10)) + get("/items?n=3"))
        for n in range(10):
            expect(body_of(await client.answer()), str(n).encode())
        expect(json.loads(body_of(await client.answer())), [0, 1, 2])
    return "complete"


async def _upload(port: int) -> str:
    data = os.urandom(random.randrange(1, 300_000))
    with await Client.connect(port) as client:
        await client.send(post("/digest", len(data)))
        await client.send(data)
        expect(body_of(await client.answer()), hashlib.sha256(data).hexdigest().encode())
    return "complete"


async def _read_patiently(port: int) -> str:
    """Slow, but never for as long as `write_stall`: it must get everything."""
    pieces = 4
    with await Client.connect(port, 4 * _SMALL_BUFFER) as client:
        await client.send(get(f"/flood?pieces={pieces}"))
        parser = AnswerParser()
        while not parser.complete:
            if not (data := await client.read(2 * _SMALL_BUFFER)):
                raise WrongAnswer("a reader that went on reading was cut")
            parser.feed(Read(0, data))
            await asyncio.sleep(0.02)
    expect(body_of(parser), PIECE * pieces)
    return "complete"


# -- bad ---------------------------------------------------------------------------------------------------------------


async def refused(port: int, data: bytes) -> str:
    """Send this: it must be answered with a refusal, and with nothing else, and the connection be closed."""
    with await Client.connect(port) as client:
        with contextlib.suppress(ConnectionError):
            await client.send(data)
        answer = await client.until_end()
    return refusal(answer)


def refusal(answer: bytes) -> str:
    """What became of one who had to be refused."""
    if not answer:
        return "closed"
    status = answer[9:12].decode("ascii", "replace")
    if answer.count(b"HTTP/1.1 ") != 1 or not answer.startswith((b"HTTP/1.1 4", b"HTTP/1.1 5")):
        raise WrongAnswer(f"was not refused: {answer[:80]!r}")
    return f"refused {status}"


def _one_of(corpus: tuple[bytes, ...]) -> Callable[[int], Awaitable[str]]:
    return lambda port: refused(port, random.choice(corpus))


# -- slow --------------------------------------------------------------------------------------------------------------


async def _drip_head(port: int) -> str:
    with await Client.connect(port) as client:
        await client.send(b"GET /smuggled HTTP/1.1\r\n")
        return refusal(await client.drip(b"X: x\r\n"))


async def _say_nothing(port: int) -> str:
    with await Client.connect(port) as client:
        return refusal(await client.until_end())


async def _keep_idle(port: int) -> str:
    with await Client.connect(port) as client:
        await client.send(get("/number/1"))
        expect(body_of(await client.answer()), b"1")
        expect(await client.until_end(), b"")
    return "closed"


async def _stop_uploading(port: int) -> str:
    with await Client.connect(port) as client:
        await client.send(post("/digest", 1000) + b"x" * 10)
        return refusal(await client.until_end())


async def _drip_body(port: int) -> str:
    """Slow, but never for as long as the deadline: it must be answered."""
    with await Client.connect(port) as client:
        await client.send(post("/digest", 10))
        for _ in range(10):
            await client.send(b"x")
            await asyncio.sleep(DRIP)
        expect(body_of(await client.answer()), hashlib.sha256(b"x" * 10).hexdigest().encode())
    return "complete"


async def _read_by_bytes(port: int) -> str:
    with await Client.connect(port, _SMALL_BUFFER) as client:
        await client.send(get("/flood"))
        for _ in range(round(4 * TIMEOUTS.write_stall / DRIP)):
            await client.read(1)
            await asyncio.sleep(DRIP)
        await client.until_end()
    return "cut"


async def _stop_reading(port: int) -> str:
    with await Client.connect(port, _SMALL_BUFFER) as client:
        await client.send(get("/flood"))
        await asyncio.sleep(4 * TIMEOUTS.write_stall)
        await client.until_end()
    return "cut"


# -- vanishing ---------------------------------------------------------------------------------------------------------


async def _reset_in_the_middle(port: int) -> str:
    with await Client.connect(port) as client:
        await client.send(get(random.choice(["/flood", "/events?n=100000"])))
        await client.read()
        client.reset()
    return "left"


async def _finish_early(port: int) -> str:
    """Who ends its side after asking for a stream counts as gone."""
    with await Client.connect(port) as client:
        await client.send(get("/events?n=100000"))
        client.finish()
        await client.until_end()
    return "cut"


async def _leave_before_the_head(port: int) -> str:
    with await Client.connect(port) as client:
        await client.send(get("/number/1")[: random.randrange(20)])
        if random.random() < 0.5:
            client.reset()
    return "left"


async def _leave_while_uploading(port: int) -> str:
    with await Client.connect(port) as client:
        await client.send(post("/digest", 1_000_000) + bytes(random.randrange(100_000)))
        if random.random() < 0.5:
            client.reset()
    return "left"


async def _leave_while_waiting(port: int) -> str:
    with await Client.connect(port) as client:
        await client.send(get("/wait"))
        await asyncio.sleep(0.01)
        client.reset()
    return "left"


async def _leave_unread(port: int) -> str:
    with await Client.connect(port) as client:
        await client.send(b"".join(get(f"/number/{n}") for n in range(50)))
        if random.random() < 0.5:
            client.reset()
    return "left"


# -- all of them -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of client: what it does on a visit, and how many of it are there at once."""

    group: Literal["good", "bad", "slow", "vanishing"]
    name: str
    visit: Callable[[int], Awaitable[str]]
    at_once: int = 3


KINDS = (
    Kind("good", "events to the end", _read_events, 8),
    Kind("good", "a JSON array", _read_items),
    Kind("good", "20 requests, one connection", _keep_alive),
    Kind("good", "11 requests at once", _pipeline),
    Kind("good", "an upload", _upload),
    Kind("good", "256 KiB, read slowly", _read_patiently),
    Kind("good", "a body, sent slowly", _drip_body),
    Kind("bad", "garbage", _one_of(GARBAGE)),
    Kind("bad", "smuggling", _one_of(SMUGGLING)),
    Kind("bad", "an oversized head", _one_of(OVERSIZED)),
    Kind("slow", "a head without an end", _drip_head, 8),
    Kind("slow", "no head at all", _say_nothing, 4),
    Kind("slow", "no second request", _keep_idle, 4),
    Kind("slow", "a body that stops", _stop_uploading, 8),
    Kind("slow", "a byte now and then", _read_by_bytes, 8),
    Kind("slow", "no reading at all", _stop_reading, 8),
    Kind("vanishing", "RST in a stream", _reset_in_the_middle, 4),
    Kind("vanishing", "FIN after the request", _finish_early),
    Kind("vanishing", "before the head's end", _leave_before_the_head),
    Kind("vanishing", "in an upload", _leave_while_uploading),
    Kind("vanishing", "before the answer", _leave_while_waiting),
    Kind("vanishing", "50 answers unread", _leave_unread),
)
"""All kinds, in the order of the table."""
