"""An orderly end with many streams open: everybody is told, nobody is kept, and it takes no longer than it may."""

from __future__ import annotations

import asyncio
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from subprocess import PIPE

import pytest
from support import (
    LAST_CHUNK,
    Clock,
    Peer,
    Serving,
    Steps,
    chunk,
    get,
    settle,
    until,
)

from rawstream import Request, Response, Stream, Timeouts

SSE = "text/event-stream"
NDJSON = "application/x-ndjson"
CLOSING = re.compile(rb"event: stream-closing\ndata: \{\}\nretry: ([0-9]+)\n\n")


class Crowd:
    """A handler of all kinds of streams, which counts those that are open."""

    def __init__(self) -> None:
        self.open = 0

    async def __call__(self, request: Request) -> Stream | Response:
        match request.path:
            case "/endless":
                return Stream(self.endless())
            case "/polite":
                return Stream(self.polite(request))
            case "/busy":
                return Stream(self.busy())
            case "/silent":
                return Stream(self.silent())
            case _:
                self.open += 1
                try:
                    await asyncio.get_running_loop().create_future()
                finally:
                    self.open -= 1
                raise AssertionError

    async def endless(self) -> AsyncIterator[str]:
        self.open += 1
        try:
            yield "x"
            await asyncio.get_running_loop().create_future()
        finally:
            self.open -= 1

    async def polite(self, request: Request) -> AsyncIterator[str]:
        self.open += 1
        try:
            yield "x"
            await request.closing.wait()
            yield "goodbye"
        finally:
            self.open -= 1

    async def busy(self) -> AsyncIterator[str]:
        self.open += 1
        try:
            while True:
                yield "x" * 1_000
                await asyncio.sleep(0.25)
        finally:
            self.open -= 1

    async def silent(self) -> AsyncIterator[str]:
        self.open += 1
        try:
            await asyncio.get_running_loop().create_future()
            yield "x"
        finally:
            self.open -= 1


async def read_out(peer: Peer) -> bytes:
    told = await peer.rest()
    peer.close()
    return told


@pytest.mark.usefixtures("many_files")
async def test_a_thousand_open_streams_of_all_kinds_end_within_the_grace_time_and_nobody_hangs(
    serving: Serving, clock: Clock
) -> None:
    asyncio.get_running_loop().set_debug(False)  # its checks cost more than what is tested
    crowd = Crowd()
    served = await serving(crowd, timeouts=Timeouts(grace=3))
    kinds = ["/endless", "/polite", "/busy", "/silent", "/short"]
    peers = [await served.ask(get(kinds[number % 5], [SSE, NDJSON][number % 2])) for number in range(1_000)]
    await until(lambda: crowd.open == 1_000)
    assert served.server.busy == 1_000
    readers = [asyncio.get_running_loop().create_task(read_out(peer)) for peer in peers[:900]]  # the others do not read
    draining = served.server.close()
    began = clock.time()
    while not draining.done():
        clock.set(clock.time() + 0.25)
        await settle()
        assert clock.time() - began <= 3 + 1
    assert (crowd.open, served.server.connections) == (0, 0)
    told = await asyncio.gather(*readers)
    for number, said in enumerate(told):
        event_stream, kind = number % 2 == 0, kinds[number % 5]
        assert said.endswith(LAST_CHUNK) == (kind == "/polite"), (kind, said[-100:])
        if event_stream and kind != "/short":
            assert CLOSING.search(said), kind
        if kind == "/polite":
            assert b"goodbye" in said
            assert b"stream-end" not in said  # so EventSource comes back
    for peer in peers[900:]:
        await read_out(peer)
        assert peer.ending


async def test_readers_are_sent_back_at_times_of_their_own(serving: Serving) -> None:
    """All of them at once would be an attack on the server that takes over."""
    crowd = Crowd()
    served = await serving(crowd)
    peers = [await served.ask(get("/polite", SSE)) for _ in range(60)]
    await until(lambda: crowd.open == 60)
    await served.server.close()
    retries = []
    for peer in peers:
        match = CLOSING.search(await peer.rest())
        assert match is not None
        retries.append(int(match[1]))
    assert len(set(retries)) > 40  # of 4,001 values: 60 draws with fewer than 41 different ones do not happen
    assert all(1_000 <= retry <= 5_000 for retry in retries)
    assert max(retries) - min(retries) > 2_000


async def test_who_does_not_read_does_not_hold_the_closing_up(serving: Serving, clock: Clock) -> None:
    steps = Steps()

    async def items() -> AsyncIterator[bytes]:
        try:
            while True:
                yield bytes(100_000)
        finally:
            steps("closed")

    async def handler(request: Request) -> Stream:
        return Stream(items(), format="bytes")

    served = await serving(handler, timeouts=Timeouts(grace=3, write_stall=60))
    peers = [await served.connect(receive_buffer=16384) for _ in range(20)]
    for peer in peers:
        await peer.send(get())
        await peer.until(b"\r\n\r\n")
    draining = served.server.close()
    await clock.advance(3.25)
    assert draining.done()
    assert steps.done == ["closed"] * 20
    for peer in peers:
        await peer.rest()
        assert peer.ending == "reset"


async def test_a_second_close_cuts_a_crowd_at_once(serving: Serving) -> None:
    crowd = Crowd()
    served = await serving(crowd)
    peers = [await served.ask(get("/endless", SSE)) for _ in range(100)]
    await until(lambda: crowd.open == 100)
    served.server.close()
    await settle()
    assert crowd.open == 100
    await served.server.close()
    assert crowd.open == 0
    for peer in peers:
        assert CLOSING.search(await peer.rest())
        assert peer.ending == "reset"


async def test_a_third_close_breaks_into_no_clean_up(serving: Serving, clock: Clock) -> None:
    """Somebody leans on Ctrl-C: what generators do after the cut is theirs."""
    steps = Steps()

    async def handler(request: Request) -> AsyncIterator[str]:
        try:
            yield "x"
            await asyncio.get_running_loop().create_future()
        finally:
            await asyncio.sleep(0.5)
            steps("cleaned up")

    served = await serving(handler)
    peer = await served.ask(get(accept="text/plain"))
    await peer.until(chunk(b"x"))
    served.server.close()
    served.server.close()
    await clock.advance(0.25)
    served.server.close()
    await clock.advance(0.375)
    assert steps.done == ["cleaned up"]


async def test_a_stream_that_begins_while_the_server_closes_is_told_at_once(serving: Serving) -> None:
    """Its request was on its way through a slow handler."""
    steps = Steps()

    async def items(request: Request) -> AsyncIterator[str]:
        yield "x"
        await request.closing.wait()

    async def handler(request: Request) -> Stream:
        steps("waits")
        await request.closing.wait()
        return Stream(items(request))

    served = await serving(handler)
    peer = await served.ask(get(accept=SSE))
    await steps.reach("waits")
    await served.server.close()
    told = await peer.rest()
    assert CLOSING.search(told)
    assert told.index(b"stream-closing") < told.index(b"data: x\n")
    assert told.endswith(LAST_CHUNK)


async def test_half_a_head_does_not_hold_the_closing_up(serving: Serving, clock: Clock) -> None:
    """What has not become a request by the end of the grace time will not."""

    async def handler(request: Request) -> Response:
        return Response()

    served = await serving(handler, timeouts=Timeouts(grace=3, head=60, linger=60))
    peers = [await served.ask(data) for data in (b"GET", b"nonsense\r\n\r\n", get()[:-2])]
    await settle()
    draining = served.server.close()
    await clock.advance(3.5)
    assert draining.done()
    for peer in peers:
        await peer.rest()
        assert peer.ending


async def test_a_request_that_arrives_in_the_moment_of_closing_is_answered_or_cut_and_never_hangs(
    serving: Serving,
) -> None:
    async def handler(request: Request) -> Response:
        return Response.text("ok")

    served = await serving(handler)
    peers = [await served.connect() for _ in range(50)]
    await until(lambda: served.server.connections == 50)
    for peer in peers:
        peer.sock.send(get())  # the server has not looked at it yet
    await served.server.close()
    for peer in peers:
        told = await peer.rest()
        assert told == b"" or told.endswith(b"\r\n\r\nok")


_SERVER = """
import asyncio, sys
from rawstream import Stream, Timeouts, serve

async def swallow():
    yield "x"
    while True:
        try:
            await asyncio.sleep(3600)
        except BaseException:
            pass

async def handler(request):
    if request.path == "/stubborn":
        return Stream(swallow(), format="text")
    return Stream(polite(request), format="text")

async def polite(request):
    yield "x"
    await request.closing.wait()
    yield "goodbye"

async def main():
    async with serve(handler, port=0, timeouts=Timeouts(grace=0.5), signals=True) as server:
        print(server.addresses[0][1], flush=True)
        await server.wait_closed()
    print("closed", flush=True)

asyncio.run(main())
"""


def ask(port: int, target: str) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port), timeout=60)
    sock.sendall(get(target))
    while not sock.recv(1, socket.MSG_PEEK):
        pass
    return sock


def test_a_process_ends_on_sigterm_with_streams_open() -> None:
    process = subprocess.Popen([sys.executable, "-c", _SERVER], stdout=PIPE, stderr=PIPE, text=True)
    assert process.stdout is not None
    try:
        port = int(process.stdout.readline())
        socks = [ask(port, "/") for _ in range(20)]
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
        assert time.monotonic() - began < 5
    finally:
        process.kill()
    assert (process.returncode, out, err) == (0, "closed\n", "")
    for sock in socks:
        told = b""
        while data := sock.recv(65536):
            told += data
        assert told.endswith(chunk(b"goodbye") + LAST_CHUNK)
        sock.close()


def test_a_server_with_a_handler_that_will_not_end_closes_and_says_so() -> None:
    """The program's own `asyncio.run` then waits for the task that is left: that is for the program to end."""
    process = subprocess.Popen([sys.executable, "-c", _SERVER], stdout=PIPE, stderr=PIPE, text=True)
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        port = int(process.stdout.readline())
        sock = ask(port, "/stubborn")
        process.send_signal(signal.SIGTERM)
        assert "left behind" in process.stderr.readline()
        assert process.stdout.readline() == "closed\n"
        sock.settimeout(60)
        told = b""
        try:
            while data := sock.recv(65536):
                told += data
        except ConnectionResetError:
            pass
        assert not told.endswith(LAST_CHUNK)
        sock.close()
    finally:
        process.kill()
        process.communicate()
