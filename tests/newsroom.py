"""Servers, publishers and subscribers that are cut again and again, and an account of what each of them was told.

Clients are on bare sockets and parse for themselves what they are sent: nothing of rawstream is among them.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import signal
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import cast
from unittest import mock

import processes
import uvloop
from processes import Running, running

CHANNEL = "/channels/news"
LINES = "application/x-ndjson"
BEGINNING = b"0-0"
"""The id before the first of any log: who begins there is told of everything that it misses."""

_PROGRAM = """
from rawstream import Hub, Response, Router
from rawstream.channels.http import add_channels

hub = Hub({url!r})
router = Router()
add_channels(router, hub)


@router.delete("/channels/{{name}}")
async def close(request):
    await hub.channel(request.params["name"]).close()
    return Response(204)
"""

_EVENT = re.compile(rb"(?:event: (.+)\n)?data: (.*)\n(?:id: (\d+-\d+)\n)?(?:retry: \d+\n)?\n")
_LINE = re.compile(rb'\{"id":"(\d+-\d+)","event":"([^"]+)","data":(.*)\}\n')
_ID = re.compile(rb"(\d+)-(\d+)")


def number(id: bytes) -> int:
    """The n of `<ms>-<n>`."""
    match = _ID.fullmatch(id)
    assert match is not None, id
    return int(match[2])


class Servers:
    """So many processes that serve the channels of one store, each on a port that it keeps through kills."""

    def __init__(self, directory: Path, url: str, count: int) -> None:
        (directory / "news_program.py").write_text(_PROGRAM.format(url=url))
        self._directory = directory
        self._stacks = [ExitStack() for _ in range(count)]
        self._running = [self._start(index, 0) for index in range(count)]
        self.ports = [each.port for each in self._running]
        self.said = ""

    def _start(self, index: int, port: int) -> Running:
        loop = ("asyncio", "uvloop")[index % 2]
        arguments = ("serve", "news_program:router", "--port", str(port), "--loop", loop)
        started = self._stacks[index].enter_context(running(*arguments, cwd=self._directory))
        assert started.port, started.before
        return started

    def restart(self, index: int) -> None:
        """As by a power cut, and then again."""
        self._running[index].signal(signal.SIGKILL)
        self.said += self._running[index].end()[1]
        self._stacks[index].close()
        self._running[index] = self._start(index, self.ports[index])

    def close(self) -> None:
        """As by a power cut, and what they said until then."""
        for each in self._running:
            each.signal(signal.SIGKILL)
            self.said += each.end()[1]

    def clear(self) -> None:
        for stack in self._stacks:
            stack.close()


@contextmanager
def served(directory: Path, url: str, count: int, patience: float) -> Iterator[Servers]:
    """Servers that are gone after so many seconds."""
    with mock.patch.object(processes, "PATIENCE", patience + 20):
        servers = Servers(directory, url, count)
        try:
            yield servers
        finally:
            servers.clear()


class Account:
    """What became of each event, by what publishers were answered, and by what subscribers were sent."""

    def __init__(self, dice: random.Random, ports: list[int]) -> None:
        self.dice = dice
        self.ports = ports
        self.acknowledged: dict[bytes, str] = {}
        """What was published, by the id that its publisher was answered."""
        self.sent: tuple[dict[bytes, bytes], ...] = ({}, {})
        """The data of each entry by its id: in server-sent events, and in lines. All subscribers were sent the same."""
        self.faults: list[str] = []
        self.counts: Counter[str] = Counter()
        self.stop: Callable[[], object] = lambda: None
        """Called with a fault: there is nothing to go on for."""
        self._milestones: list[tuple[int, asyncio.Event]] = []

    def fault(self, what: str) -> None:
        self.faults.append(what)
        self.stop()

    def answered(self, id: bytes, payload: str) -> None:
        if id in self.acknowledged:
            self.fault(f"{id!r} was answered for {self.acknowledged[id]} and for {payload}")
        self.acknowledged[id] = payload
        while self._milestones and self._milestones[0][0] <= len(self.acknowledged):
            self._milestones.pop(0)[1].set()

    async def published(self, count: int) -> None:
        """Wait until so many events are acknowledged; one waits for a smaller count first."""
        reached = asyncio.Event()
        self._milestones = sorted([*self._milestones, (count, reached)], key=lambda each: each[0])
        if count > len(self.acknowledged):
            await reached.wait()


class Subscriber(asyncio.Protocol):
    """A client that comes back with the last id that it has, however often it is cut."""

    def __init__(self, account: Account, lines: bool, bytes_a_life: float, away: float) -> None:
        self._account = account
        self._lines = lines
        self._bytes_a_life = bytes_a_life
        self._away = away
        self._sent = account.sent[lines]
        self._transport: asyncio.Transport
        self._over: asyncio.Future[None]
        self._raw = b""  # of the coding
        self._body = b""  # of an entry whose end has not come
        self._head = False
        self._left = 0  # bytes until the connection is cut
        self.last = BEGINNING
        self.received = 0
        self.missing: list[int | None] = []
        self.ended = False
        self.joined: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def run(self) -> None:
        """Until the log has ended."""
        loop, dice = asyncio.get_running_loop(), self._account.dice
        while not self.ended:
            self._over = loop.create_future()
            with suppress(OSError):
                await loop.create_connection(lambda: self, "127.0.0.1", dice.choice(self._account.ports))
                try:
                    await self._over
                finally:
                    self._transport.abort()
            self._account.counts["connections"] += 1
            if not self.ended:
                await asyncio.sleep(dice.uniform(0.01, self._away))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one, but does not inherit from it
        self._raw, self._body, self._head = b"", b"", True
        self._left = int(self._account.dice.expovariate(1 / self._bytes_a_life)) + 1
        place = self.last.decode()
        if self._lines:
            asked = (
                f"GET {CHANNEL}?last_event_id={place} HTTP/1.1\r\nHost: test\r\nAccept: application/x-ndjson\r\n\r\n"
            )
        else:
            asked = f"GET {CHANNEL} HTTP/1.1\r\nHost: test\r\nLast-Event-ID: {place}\r\n\r\n"
        self._transport.write(asked.encode())

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._over.done():
            self._over.set_result(None)

    def data_received(self, data: bytes) -> None:
        self._take_bytes(data[: self._left])
        self._left -= len(data)
        if self._left <= 0 or self.ended:
            self._account.counts["cuts"] += not self.ended
            self._transport.abort()

    def _take_bytes(self, data: bytes) -> None:
        raw = self._raw + data
        if self._head:
            head, end, raw = raw.partition(b"\r\n\r\n")
            if not end:
                self._raw = head
                return
            self._head = False
            self._welcome(head)
        at = 0
        while (line := raw.find(b"\r\n", at)) >= 0:
            end_of_chunk = line + 2 + int(raw[at:line], 16)
            if len(raw) < end_of_chunk + 2:
                break
            self._body += raw[line + 2 : end_of_chunk]
            at = end_of_chunk + 2
        self._raw = raw[at:]
        self._take_lines() if self._lines else self._take_events()

    def _welcome(self, head: bytes) -> None:
        if not head.startswith(b"HTTP/1.1 200 "):
            self._account.fault(head.decode())
        if not self.joined.done():
            self.joined.set_result(None)

    def _take_events(self) -> None:
        whole, end, self._body = self._body.rpartition(b"\n\n")
        found = _EVENT.findall(whole + end)
        if len(found) + whole.count(b":\n\n") + (whole[-2:] == b"\n:" or whole == b":") < (whole + end).count(b"\n\n"):
            self._account.fault(f"no events: {whole!r}")
        for event, data, id in found:
            self._take(event or b"message", id, data)

    def _take_lines(self) -> None:
        whole, end, self._body = self._body.rpartition(b"\n")
        found = _LINE.findall(whole + end)
        if len(found) < (whole + end).count(b"\n"):
            self._account.fault(f"no lines: {whole!r}")
        for id, event, data in found:
            self._take(event, id, data)

    def _take(self, event: bytes, id: bytes, data: bytes) -> None:
        if event == b"stream-gap":
            self._miss(id, json.loads(data))
            return
        if number(id) != number(self.last) + 1 or self.ended:
            self._account.fault(f"{id!r} {event!r} came after {self.last!r}")
        self.last = id
        if self._sent.setdefault(id, data) != data:
            self._account.fault(f"{id!r} is {data!r} and {self._sent[id]!r}")
        if event == b"stream-end":
            self.ended = True
        else:
            self.received += 1

    def _miss(self, to: bytes, gap: dict[str, str | int | None]) -> None:
        missing = gap["missing"]
        assert missing is None or isinstance(missing, int)
        told = missing is None or 0 < missing == number(to) - number(self.last)
        if not told or gap["after"] != self.last.decode():
            self._account.fault(f"{gap} to {to!r} came after {self.last!r}")
        self.missing.append(missing)
        self.last = to


def body(payload: str, index: int) -> str:
    """What is published, as JSON: a text, or an object."""
    return json.dumps(payload) if index % 2 else f'{{"news":"{payload}"}}'


class Publisher:
    """A client that publishes one event after the other, each with a key, again and again until it is acknowledged."""

    def __init__(self, account: Account, name: str, cuts: float) -> None:
        self._account = account
        self._name = name
        self._cuts = cuts  # how often it does not wait for the answer
        self._streams: dict[int, tuple[asyncio.StreamReader, asyncio.StreamWriter]] = {}

    async def run(self, count: int) -> None:
        try:
            for index in range(count):
                payload = f"{self._name}/{index}"
                self._account.answered(await self._publish(payload, index), payload)
        finally:
            for port in [*self._streams]:
                self._drop(port)

    async def _publish(self, payload: str, index: int) -> bytes:
        sent = body(payload, index)
        request = (
            f"POST {CHANNEL} HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(sent)}\r\nIdempotency-Key: {payload}\r\n\r\n{sent}"
        )
        dice, counts = self._account.dice, self._account.counts
        while True:
            port = dice.choice(self._account.ports)
            try:
                head, answer = await self._exchange(port, request.encode(), dice.random() < self._cuts)
            except (OSError, EOFError):
                counts["publications that broke"] += 1
                self._drop(port)
                await asyncio.sleep(dice.uniform(0, 0.05))
                continue
            if head.startswith(b"HTTP/1.1 201 "):
                return json.loads(answer)["id"].encode()  # type: ignore[no-any-return]
            if not head.startswith(b"HTTP/1.1 503 "):
                self._account.fault(f"{head!r} {answer!r}")
            counts["publications that were refused"] += 1
            await asyncio.sleep(dice.uniform(0.01, 0.1))

    async def _exchange(self, port: int, request: bytes, cut: bool) -> tuple[bytes, bytes]:
        if port not in self._streams:
            self._streams[port] = await asyncio.open_connection("127.0.0.1", port)
        reader, writer = self._streams[port]
        writer.write(request)
        if cut:
            await asyncio.sleep(self._account.dice.uniform(0, 0.01))
            raise EOFError
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"\r\nContent-Length: (\d+)\r\n", head)
        assert length is not None, head
        answer = await reader.readexactly(int(length[1]))
        if b"\r\nConnection: close\r\n" in head:
            self._drop(port)
        return head, answer

    def _drop(self, port: int) -> None:
        if port in self._streams:
            self._streams.pop(port)[1].close()


async def close_channel(ports: list[int]) -> None:
    """Let the log end: so that each subscriber ends that has all of it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", ports[0])
    writer.write(f"DELETE {CHANNEL} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n".encode())
    answer = await reader.read()
    assert answer.startswith(b"HTTP/1.1 204 "), answer
    writer.close()


Trouble = Callable[[Account], Coroutine[None, None, None]]


def told(
    servers: Servers,
    seed: int,
    count: int,
    readers: int,
    trouble: Trouble,
    patience: float,
    publishers: int = 20,
    lives: float = 5.0,
    away: float = 0.1,
) -> tuple[Account, list[Subscriber]]:
    """The account of `count` events, and so many `readers`, once all of them were told all of it.

    trouble: what happens meanwhile. lives: connections of each reader, or about so many, if it is sent all.
    away: seconds, at most, for which it then does not come back.
    """  # fmt: skip
    print(f"NEWSROOM_SEED={seed}")
    account = Account(random.Random(seed), servers.ports)

    async def main() -> list[Subscriber]:
        made = [Subscriber(account, index % 2 == 1, 60.0 * count / lives, away) for index in range(readers)]
        working = asyncio.ensure_future(publish_all(account, made, count, publishers, trouble))
        account.stop = working.cancel
        with suppress(asyncio.CancelledError):
            async with asyncio.timeout(patience):
                await working
        await asyncio.sleep(0.05)  # uvloop does not end with a connection that is not closed yet
        return made

    began = time.monotonic()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        subscribers = runner.run(main())
    took, received = time.monotonic() - began, sum(each.received for each in subscribers)
    gaps = [gap for each in subscribers for gap in each.missing]
    print(f"{took:.1f} s", dict(account.counts), {"received": received, "gaps": len(gaps)})
    assert account.faults == []
    return account, subscribers


async def publish_all(
    account: Account, subscribers: list[Subscriber], count: int, publishers: int, trouble: Trouble
) -> None:
    """Publish `count` events to subscribers, with `trouble` meanwhile, until all of them were told all of it."""
    assert count % publishers == 0
    async with asyncio.TaskGroup() as group:
        for each in subscribers:
            group.create_task(each.run())
        await asyncio.gather(*(each.joined for each in subscribers))
        async with asyncio.TaskGroup() as work:
            for index in range(publishers):
                work.create_task(Publisher(account, f"p{index}", cuts=0.01).run(count // publishers))
            work.create_task(trouble(account))
        await close_channel(account.ports)


def held_once(account: Account, ids: list[bytes]) -> None:
    """These entries are those that were published: each once, and those of each publisher in their order."""
    indices: dict[str, list[int]] = {}
    for id in ids:
        name, _, index = account.acknowledged[id].partition("/")
        indices.setdefault(name, []).append(int(index))
        payload = body(account.acknowledged[id], int(index))
        text = json.loads(payload) if payload.startswith('"') else payload
        assert account.sent[0].get(id, text.encode()) == text.encode()
        assert account.sent[1].get(id, payload.encode()) == payload.encode()
    assert all(each == [*range(len(each))] for each in indices.values())
    assert sum(map(len, indices.values())) == len(account.acknowledged)


def seen(account: Account) -> list[bytes]:
    """The ids of all that any subscriber was sent, in the order of the log."""
    return sorted({*account.sent[0], *account.sent[1]}, key=lambda id: [*map(int, id.split(b"-"))])
