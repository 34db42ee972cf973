"""One connection of a client that does exactly what it is told, and the requests and checks that the clients share."""

import asyncio
import contextlib
import itertools
import socket
import struct
from typing import Self

from benchmarks.answer import AnswerParser, Read, WrongAnswer
from benchmarks.load import HOST

_READ_BYTES = 65_536
DRIP = 0.1
"""Seconds between two bytes of a slow client."""

_MOST_AFTER_STALL = 16 * 1024 * 1024
"""Bytes. Buffers between server and client hold less: who gets more of a flood was not cut."""

_sources = itertools.cycle(f"127.0.1.{n}" for n in range(1, 33))
"""Where connections come from, in turns: one address has ports for a few hundred short connections a second only."""


class Client:
    """One connection, of which nothing happens by itself. Use it in a `with` block, which closes it."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._rest = b""
        self._loop = asyncio.get_running_loop()

    @classmethod
    async def connect(cls, port: int, receive_buffer: int | None = None) -> Self:
        """Connect to the server on `port`."""
        sock = socket.socket()
        try:
            sock.setblocking(False)
            if receive_buffer is not None:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            sock.bind((next(_sources), 0))
            client = cls(sock)
            await client._loop.sock_connect(sock, (HOST, port))
        except BaseException:
            sock.close()
            raise
        return client

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._sock.close()

    async def send(self, data: bytes) -> None:
        """Send all of it."""
        await self._loop.sock_sendall(self._sock, data)

    async def read(self, size: int = _READ_BYTES) -> bytes:
        """What has come; b"" at the end."""
        return await self._loop.sock_recv(self._sock, size)

    async def answer(self) -> AnswerParser:
        """One whole answer."""
        parser = AnswerParser()
        data = self._rest
        while True:
            if data:
                parser.feed(Read(0, data))
            if parser.complete:
                self._rest = parser.rest
                return parser
            if not (data := await self.read()):
                raise WrongAnswer("the connection was closed before the end of the answer")

    async def until_end(self, most: int = _MOST_AFTER_STALL) -> bytes:
        """What comes until the server has ended the connection, by FIN or RST: the first 4 KiB of it."""
        begin, size = b"", 0
        with contextlib.suppress(ConnectionError):
            while data := await self.read():
                begin, size = (begin + data)[:4096], size + len(data)
                if size > most:
                    raise WrongAnswer("was not cut")
        return begin

    async def drip(self, data: bytes) -> bytes:
        """Send this byte by byte until the server has had enough; what it answered."""
        ended = asyncio.ensure_future(self.until_end())
        try:
            for byte in itertools.cycle(data):
                with contextlib.suppress(ConnectionError):
                    await self.send(bytes([byte]))
                if (await asyncio.wait([ended], timeout=DRIP))[0]:
                    break
            return ended.result()
        finally:
            ended.cancel()

    def finish(self) -> None:
        """End our side (FIN), and go on reading."""
        self._sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Vanish with a RST."""
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._sock.close()


def get(target: str, accept: str = "*/*") -> bytes:
    """The bytes of a GET."""
    return f"GET {target} HTTP/1.1\r\nHost: {HOST}\r\nAccept: {accept}\r\n\r\n".encode("ascii")


def post(target: str, length: int) -> bytes:
    """The head of a POST with a body of so many bytes."""
    return f"POST {target} HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {length}\r\n\r\n".encode("ascii")


def body_of(answer: AnswerParser) -> bytes:
    """The body of an answer that says that all is well."""
    if answer.status != 200:
        raise WrongAnswer(f"status {answer.status} instead of 200: {answer.body[:80]!r}")
    return answer.body


def expect(got: object, expected: object) -> None:
    """Raise `WrongAnswer` unless both are the same."""
    if got != expected:
        raise WrongAnswer(f"{str(got)[:80]!r} instead of {str(expected)[:80]!r}")
