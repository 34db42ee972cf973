"""Readers that are slow, readers that stop, and readers behind TLS: nobody costs more than he may."""

from __future__ import annotations

import asyncio
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import trustme
from support import (
    LAST_CHUNK,
    NDJSON_HEAD,
    SSE_HEAD,
    Clock,
    Peer,
    Served,
    Serving,
    Steps,
    chunk,
    get,
    settle,
    until,
)

from rawstream import Limits, Request, Stream, Timeouts

SSE = "text/event-stream"
NDJSON = "application/x-ndjson"
ITEM = 64 * 1024


async def small(serving: Serving, handler: Any, **options: Any) -> Served:
    """A server whose sockets hold little."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16384)
    listener.bind(("127.0.0.1", 0))
    listener.listen(1024)
    return await serving(handler, fd=listener.detach(), **options)


class Endless:
    """A handler whose streams give items as fast as they may; it counts the items, and the generators that ended."""

    def __init__(self, size: int = ITEM, waits: bool = False) -> None:
        self.items = self.closed = 0
        self._size = size
        self._waits = waits

    async def __call__(self, request: Request) -> Stream:
        return Stream(self.stream(), format="bytes")

    async def stream(self) -> AsyncIterator[bytes]:
        try:
            while True:
                self.items += 1
                yield bytes(self._size)
                if self._waits:
                    await asyncio.sleep(0)
        finally:
            self.closed += 1


async def until_still(endless: Endless) -> int:
    """How many items were asked for when no more are."""
    count = -1
    while count != endless.items:
        count = endless.items
        for _ in range(3):
            await settle()
    return count


def held(served: Served) -> list[int]:
    """What waits to be sent for each connection, in this process."""
    return [transport._transport.get_write_buffer_size() for transport in served.server._connections]


# -- readers that stop -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("waits", [False, True], ids=["at once", "one at a time"])
@pytest.mark.parametrize(("high_water", "size"), [(16_384, 1_000), (16_384, ITEM), (100_000, 10_000), (1, 100)])
async def test_a_producer_waits_for_its_reader_and_no_more_is_held_than_the_mark_and_one_write(
    serving: Serving, high_water: int, size: int, waits: bool
) -> None:
    endless = Endless(size, waits)
    served = await small(serving, endless, limits=Limits(high_water=high_water))
    peer = await served.connect(receive_buffer=16384)
    await peer.send(get())
    await peer.until(b"\r\n\r\n")
    asked = await until_still(endless)
    [waiting] = held(served)
    one_write = max(size, 16 * 1024 + size) + 100  # a flush gathers 16 KiB and ends with the item that passes them
    assert 0 < waiting <= high_water + one_write
    # The items that the generator got to are in the kernel's buffers, in ours, or in the hand of the pump.
    taken = len(peer.here())
    assert (asked - 2) * size <= taken + 2_000_000 + waiting + one_write
    while endless.items == asked:  # and it goes on when the reader does
        await peer.until(bytes(100))


async def test_a_reader_that_stops_and_goes_on_misses_nothing(serving: Serving, clock: Clock) -> None:
    async def items() -> AsyncIterator[bytes]:
        for number in range(400):
            yield b"%07d\n" % number * 1_000

    async def handler(request: Request) -> Stream:
        return Stream(items(), format="bytes")

    served = await small(serving, handler, timeouts=Timeouts(write_stall=30))
    peer = await served.connect(receive_buffer=16384)
    await peer.send(get(version="1.0"))
    await peer.until(b"\r\n\r\n")
    expected = b"".join(b"%07d\n" % number * 1_000 for number in range(400))
    for part in range(0, len(expected), 800_000):
        await clock.advance(20)
        await peer.expect(expected[part : part + 800_000])
    assert await peer.rest() == b""
    assert peer.ending == "end"


async def test_a_reader_that_takes_nothing_is_cut_and_its_generator_closed(serving: Serving, clock: Clock) -> None:
    endless = Endless()
    served = await small(serving, endless, timeouts=Timeouts(write_stall=6))
    peers = [await served.connect(receive_buffer=16384) for _ in range(20)]
    for peer in peers:
        await peer.send(get())
        await peer.until(b"\r\n\r\n")
    await until_still(endless)
    await clock.advance(5.5)
    assert (endless.closed, served.server.connections) == (0, 20)
    await clock.advance(4)
    assert (endless.closed, served.server.connections) == (20, 0)
    for peer in peers:
        await peer.rest()
        assert peer.ending == "reset"


async def test_a_reader_that_takes_nothing_keeps_no_other_from_its_items(serving: Serving, clock: Clock) -> None:
    endless = Endless()
    gate = asyncio.Event()

    async def handler(request: Request) -> Stream:
        return await endless(request) if request.path == "/endless" else Stream(items(), format="text")

    async def items() -> AsyncIterator[str]:
        for number in range(10):
            yield str(number)
            await asyncio.sleep(1)
        await gate.wait()

    served = await small(serving, handler, timeouts=Timeouts(write_stall=60, grace=60))
    stopped = [await served.connect(receive_buffer=16384) for _ in range(20)]
    for peer in stopped:
        await peer.send(get("/endless"))
    await until_still(endless)
    peer = await served.ask(get("/items"))
    await peer.head()
    for number in range(10):
        await peer.expect(chunk(b"%d" % number))
        await clock.advance(1)


_STOPPED_READERS = """
import asyncio, gc, resource, socket, sys
from rawstream import Limits, Stream, Timeouts, serve

item = bytes(64 * 1024)

async def items():
    global asked
    while True:
        asked += 1
        yield bytearray(item).replace(b"no", b"no") and bytes(len(item))  # a new one each time

async def handler(request):
    return Stream(items(), format="bytes")

def resident():
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize()

async def still():
    seen = -1
    while seen != asked:
        seen = asked
        await asyncio.sleep(0.05)

async def connect(address):
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, address)
    await asyncio.get_running_loop().sock_sendall(sock, b"GET / HTTP/1.1\\r\\nHost: test\\r\\n\\r\\n")
    return sock

async def main():
    async with serve(handler, port=0, timeouts=Timeouts(write_stall=60, grace=0)) as server:
        socks = [await connect(server.addresses[0]) for _ in range(5)]
        await still()
        gc.collect()
        before, begun = resident(), asked
        socks += [await connect(server.addresses[0]) for _ in range(100)]
        await still()
        held = [transport._transport.get_write_buffer_size() for transport in server._connections]
        print(len(held), max(held), resident() - before, asked - begun)
        for sock in socks:
            sock.close()

asked = 0
LOOP
"""


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_hundred_readers_who_stopped_reading_endless_streams_do_not_make_the_process_grow(loop: str) -> None:
    """Each stands for no more than what is held for it, however long its stream could be."""
    program = _STOPPED_READERS.replace("LOOP", f"import {loop}; {loop}.run(main())")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    connections, most, grown, asked = map(int, done.stdout.split())
    assert connections == 105
    assert most <= 16 * 1024 + 2 * ITEM
    # A hundred times the mark, a write that passed it, an item in the generator's hand, and the connection itself.
    assert grown < 100 * (16 * 1024 + 4 * ITEM)
    assert asked < 100 * 80  # so many fit into the kernel's buffers


# -- TLS ---------------------------------------------------------------------------------------------------------------

Secure = Callable[..., Awaitable[Served]]


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@pytest.fixture
def secure(serving: Serving, authority: trustme.CA) -> Secure:
    async def start(handler: Any, **options: Any) -> Served:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert("127.0.0.1").configure_cert(context)
        return await serving(handler, ssl=context, **options)

    return start


@pytest.mark.parametrize(
    ("accept", "head", "framed"),
    [(SSE, SSE_HEAD, b"data: %d\n\n"), (NDJSON, NDJSON_HEAD, b"%d\n")],
    ids=["sse", "ndjson"],
)
async def test_each_item_is_seen_under_tls_while_the_generator_waits(
    secure: Secure, trusting: ssl.SSLContext, accept: str, head: bytes, framed: bytes
) -> None:
    asked = asyncio.Queue[int]()

    async def handler(request: Request) -> AsyncIterator[int]:
        while number := await asked.get():
            yield number

    peer = await (await secure(handler)).connect_tls(trusting)
    await peer.send(get(accept=accept))
    for number in range(1, 6):
        asked.put_nowait(number)
        if number == 1:
            assert await peer.head() == head
        await peer.expect(chunk(framed % number))
    asked.put_nowait(0)
    await peer.until(LAST_CHUNK)


async def test_a_blocking_tls_client_of_the_standard_library_sees_each_item(
    secure: Secure, trusting: ssl.SSLContext
) -> None:
    """Not our own client: `ssl.wrap_socket` on a thread."""
    asked = asyncio.Queue[int]()

    async def handler(request: Request) -> AsyncIterator[int]:
        while number := await asked.get():
            yield number

    address = (await secure(handler)).server.addresses[0]
    loop = asyncio.get_running_loop()

    def client() -> bytes:
        told = b""
        with (
            socket.create_connection(address, timeout=60) as sock,
            trusting.wrap_socket(sock, server_hostname="127.0.0.1") as tls,
        ):
            tls.sendall(get(accept=NDJSON))
            for number in (b"1", b"2", b"3"):
                loop.call_soon_threadsafe(asked.put_nowait, int(number))
                while not told.endswith(chunk(number + b"\n")):
                    told += tls.recv(65536)
            loop.call_soon_threadsafe(asked.put_nowait, 0)
            while not told.endswith(LAST_CHUNK):
                told += tls.recv(65536)
        return told

    told = await asyncio.to_thread(client)
    assert told.endswith(chunk(b"1\n") + chunk(b"2\n") + chunk(b"3\n") + LAST_CHUNK)


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")  # it is what must not work
async def test_an_old_version_of_tls_is_refused(serving: Serving, authority: trustme.CA) -> None:
    asyncio.get_running_loop().set_debug(False)  # asyncio would report a handshake that failed
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    served = await serving(Endless(), ssl=context)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_mode = ssl.CERT_NONE
    client.set_ciphers("ALL:@SECLEVEL=0")
    client.minimum_version = ssl.TLSVersion.TLSv1

    def highest(version: ssl.TLSVersion) -> str | None:
        client.maximum_version = version
        with (
            socket.create_connection(served.server.addresses[0], timeout=60) as sock,
            client.wrap_socket(sock) as tls,
        ):
            return tls.version()

    with pytest.raises(ssl.SSLError):
        await asyncio.to_thread(highest, ssl.TLSVersion.TLSv1_1)
    assert await asyncio.to_thread(highest, ssl.TLSVersion.TLSv1_2) == "TLSv1.2"


@pytest.mark.parametrize("leave", [Peer.reset, Peer.close, Peer.finish], ids=["reset", "close", "end of sending"])
@pytest.mark.parametrize("busy", [False, True], ids=["idle", "held by its reader"])
async def test_a_client_that_vanishes_under_tls_closes_the_generator(
    secure: Secure, trusting: ssl.SSLContext, leave: Callable[[Peer], None], busy: bool
) -> None:
    steps = Steps()

    async def items() -> AsyncIterator[bytes]:
        try:
            while True:
                yield bytes(ITEM) if busy else b"x"
                if not busy:
                    await asyncio.get_running_loop().create_future()
        finally:
            steps("closed")

    async def handler(request: Request) -> Stream:
        return Stream(items(), format="bytes")

    served = await secure(handler, timeouts=Timeouts(linger=0.1, grace=60))
    peer = await served.connect_tls(trusting, receive_buffer=16384)
    await peer.send(get())
    await peer.until(b"\r\n\r\n")
    await settle()
    assert steps.done == []
    leave(peer)
    if leave is Peer.finish and busy:  # what is on its way to it is not read: it goes for good
        await settle()
        peer.close()
    await steps.reach("closed")
    await until(lambda: served.server.connections == 0)


async def test_little_is_held_for_stopped_readers_under_tls(secure: Secure, trusting: ssl.SSLContext) -> None:
    endless = Endless(10_000)
    served = await secure(endless)
    peers = [await served.connect_tls(trusting, receive_buffer=16384) for _ in range(5)]
    for peer in peers:
        await peer.send(get())
        await peer.until(b"\r\n\r\n")
    await until_still(endless)
    assert max(held(served)) <= 16_384 + 2 * (16_384 + 10_000)


async def test_a_reader_that_takes_nothing_under_tls_is_cut(secure: Secure, trusting: ssl.SSLContext) -> None:
    endless = Endless()
    served = await secure(endless, timeouts=Timeouts(write_stall=0.2, linger=0.1, grace=60))
    peer = await served.connect_tls(trusting, receive_buffer=16384)
    await peer.send(get())
    await peer.until(b"\r\n\r\n")
    await until(lambda: endless.closed == 1)
    await until(lambda: served.server.connections == 0)


async def test_closing_tells_streams_under_tls_and_ends_them_properly(secure: Secure, trusting: ssl.SSLContext) -> None:
    async def handler(request: Request) -> AsyncIterator[str]:
        yield "x"
        await request.closing.wait()
        yield "goodbye"

    served = await secure(handler)
    peers = [await served.connect_tls(trusting) for _ in range(5)]
    for peer in peers:
        await peer.send(get(accept=SSE))
        await peer.until(b"data: x\n\n")
    draining = served.server.close()
    for peer in peers:
        told = await peer.rest()
        assert b"event: stream-closing\n" in told
        assert told.endswith(b"data: goodbye\n\n\r\n" + LAST_CHUNK)
        assert peer.ending == "end"
    await draining
