"""Clients that read a channel over a real socket, by h11 and the decoder; and whether what they got adds up."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterable
from typing import Any, NamedTuple

import h11
from support import Peer, Served, request, until

from rawstream.channels import Channel
from rawstream.channels.feed import Feed
from rawstream.channels.log import Id
from rawstream.sse import Decoder

SSE, NDJSON = "text/event-stream", "application/x-ndjson"


class Told(NamedTuple):
    """An event as a client sees it; "message" is the name of one without a name."""

    id: str
    event: str
    data: Any


class Subscriber:
    """A client that has asked for a channel."""

    def __init__(self, peer: Peer, method: str) -> None:
        self.peer = peer
        self.status = 0
        self.headers: dict[str, str] = {}
        self.ended = False
        """Properly."""
        self.retry: int | None = None
        self.body = b""
        """All of it, as it came."""
        self._h11 = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
        self._h11.send(h11.Request(method=method, target="/", headers=[("Host", "test")]))
        self._h11.send(h11.EndOfMessage())
        self._decoder = Decoder()
        self._line = b""
        self._told: list[Told] = []

    @classmethod
    async def of(
        cls,
        served: Served,
        target: str = "/",
        *fields: str,
        method: str = "GET",
        version: str = "1.1",
        receive_buffer: int | None = None,
    ) -> Subscriber:
        """A client of this server, whose answer has begun."""
        peer = await served.connect(receive_buffer)
        await peer.send(request(target, *fields, method=method, version=version))
        subscriber = cls(peer, method)
        while not subscriber.status:
            assert await subscriber._more() or subscriber.status, peer.ending
        return subscriber

    async def _more(self) -> bool:
        """Read what has come; False at the end of the answer, or of the connection."""
        if self.ended:
            return False
        more = await self.peer._more()
        data, self.peer._held = self.peer._held, b""
        if data or self.peer.ending == "end":
            self._h11.receive_data(data)
            self._look()
        return more and not self.ended

    def _look(self) -> None:
        while (event := self._h11.next_event()) is not h11.NEED_DATA:
            match event:
                case h11.Response(status_code=status, headers=headers):
                    self.status = status
                    self.headers = {name.decode(): value.decode() for name, value in headers}
                case h11.Data(data=data):
                    self._take(bytes(data))
                case h11.EndOfMessage():
                    self.ended = True
                    return
                case _:
                    return

    def _take(self, data: bytes) -> None:
        self.body += data
        if self.status != 200:
            return
        if self.headers["content-type"] == SSE:
            for event in self._decoder.feed(data):
                self.retry = event.retry or self.retry
                self._told.append(Told(event.id or "", event.event or "message", json.loads(event.data)))
        else:
            *lines, self._line = (self._line + data).split(b"\n")
            self._told += [Told(**json.loads(line)) for line in lines]

    async def take(self, count: int) -> list[Told]:
        """The next events."""
        while len(self._told) < count:
            assert await self._more() or len(self._told) >= count, f"{self.peer.ending} after {len(self._told)} events"
        told, self._told = self._told[:count], self._told[count:]
        return told

    async def data(self, count: int) -> list[Any]:
        """The data of the next events."""
        return [told.data for told in await self.take(count)]

    async def until_end(self) -> list[Told]:
        """The events up to the end of the answer, be it proper (`ended`) or not."""
        try:
            while await self._more():
                pass
        except h11.RemoteProtocolError:
            pass  # cut off
        told, self._told = self._told, []
        return told

    def widen(self) -> None:
        """It reads on, and fast: with a small window the kernels take their time."""
        self.peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)

    def here(self) -> list[Told]:
        """What has come already, without waiting."""
        data = self.peer.here()
        if data:
            self._h11.receive_data(data)
            self._look()
        told, self._told = self._told, []
        return told


def keeping_up(channel: Channel) -> int:
    """How many subscribers are written to on the spot."""
    return sum(isinstance(member, Feed) and member._ready for member in channel._members)


async def ready(channel: Channel, count: int = 1) -> None:
    """So many subscribers wait for what comes."""
    await until(lambda: keeping_up(channel) == count)


def account(told: Iterable[Told]) -> tuple[int, int]:
    """The numbers of the first and the last entry. Each is the next one, or those between were told to be missing."""
    first = number = None
    for id, event, data in told:
        if event == "stream-gap":
            number = Id.parse(data["after"]).n if number is None else number
            assert data["missing"] > 0
            number += data["missing"]
        else:
            number = Id.parse(id).n if number is None else number + 1
        assert number == Id.parse(id).n
        first = number if first is None else first
    assert first is not None
    assert number is not None
    return first, number
