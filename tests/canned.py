"""A server that says what it is told to, byte for byte, whatever it is asked: for tests of the client."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import re
import socket
import struct
from collections.abc import AsyncIterator, Callable
from typing import TypeAlias

import pytest


class Then(enum.Enum):
    """What a server does, other than to send."""

    RESET = "reset the connection"
    STAY = "do nothing until the client goes"


Step: TypeAlias = bytes | asyncio.Event | Then
"""What to send, what to wait for, or one of the above. Behind the last the server ends the connection properly."""

CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
LAST = b"0\r\n\r\n"
_LENGTH = re.compile(rb"\r\nContent-Length: (\d+)\r\n")


def body_of(data: bytes) -> bytes:
    """One chunk of the chunked coding."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def answer(body: bytes = b"", *fields: str, status: str = "200 OK", kind: str = "text/plain") -> bytes:
    """A whole response with its Content-Length."""
    lines = [f"HTTP/1.1 {status}", f"Content-Type: {kind}", f"Content-Length: {len(body)}", *fields]
    return "".join(line + "\r\n" for line in [*lines, ""]).encode() + body


class Canned:
    """The server. The first connection gets the first answer, and so on; the last is given again and again."""

    def __init__(self, *answers: tuple[Step, ...] | bytes) -> None:
        self._answers = [(each,) if isinstance(each, bytes) else each for each in answers]
        self._loop = asyncio.get_running_loop()
        self._sock = socket.socket()
        self._sock.bind(("127.0.0.1", 0))
        self._sock.listen()
        self._sock.setblocking(False)
        self.port = self._sock.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.requests: list[bytes] = []
        """What was asked, one after the other."""
        self.gone: list[str] = []
        """How each client ended that Then.STAY waited for: "end" or "reset"."""
        self.noticed = asyncio.Event()
        """Set when another one is `gone`."""
        self._tasks = {self._loop.create_task(self._accept())}

    async def _accept(self) -> None:
        while True:
            sock, _ = await self._loop.sock_accept(self._sock)
            steps = self._answers[min(len(self.requests), len(self._answers) - 1)]
            self._tasks.add(self._loop.create_task(self._answer(sock, steps)))

    async def _answer(self, sock: socket.socket, steps: tuple[Step, ...]) -> None:
        with sock, contextlib.suppress(ConnectionError):
            request = await self._request(sock)
            if not request:
                return
            self.requests.append(request)
            for step in steps:
                if isinstance(step, bytes):
                    await self._loop.sock_sendall(sock, step)
                elif isinstance(step, asyncio.Event):
                    await step.wait()
                elif step is Then.STAY:
                    await self._stay(sock)
                else:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    return

    async def _request(self, sock: socket.socket) -> bytes:
        request, wanted = b"", 1
        while len(request) < wanted:
            data = await self._loop.sock_recv(sock, 65536)
            if not data:
                break
            request += data
            if request.startswith(b"\x16"):
                break  # it speaks TLS, and will be disappointed
            head, end, _ = request.partition(b"\r\n\r\n")
            length = _LENGTH.search(head + b"\r\n")
            wanted = len(head + end) + int(length[1]) if end and length else len(request) + (not end)
        return request

    async def _stay(self, sock: socket.socket) -> None:
        try:
            while await self._loop.sock_recv(sock, 65536):
                pass
            self.gone.append("end")
        except ConnectionResetError:
            self.gone.append("reset")
        self.noticed.set()

    async def close(self) -> None:
        """End it, and what it still has to say."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._sock.close()


MakeCanned: TypeAlias = Callable[..., Canned]


@pytest.fixture
async def canned(orderly: None) -> AsyncIterator[MakeCanned]:
    """`canned(answer, ...)`: a server that gives these answers, one a connection."""
    servers: list[Canned] = []

    def make(*answers: tuple[Step, ...] | bytes) -> Canned:
        servers.append(Canned(*answers))
        return servers[-1]

    yield make
    for server in servers:
        await server.close()
