"""gzip: each piece readable on arrival, small state, who is sent it; and over sockets, curl and httpx."""

from __future__ import annotations

import asyncio
import gzip
import json
import subprocess
import sys
import zlib
from collections.abc import AsyncIterator

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import Clock, Failures, Peer, Served, Serving, get, request, settle

from rawstream import Every, Request, Stream, Timeouts
from rawstream.encoding import TAIL, Gzip, accepts_gzip

SSE = "text/event-stream"

steady = settings(derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])

MARK = b"\x00\x00\xff\xff"
"""What a sync flush ends with: the length of an empty stored block (RFC 1951 section 3.2.4)."""


def reader() -> zlib._Decompress:
    """What a client decodes gzip with."""
    return zlib.decompressobj(31)


def words(count: int) -> list[bytes]:
    """Events of a chat: 340 bytes each, of which few are new."""
    return [
        b"id: %d\nevent: token\ndata: " % number
        + json.dumps(
            {
                "id": "chatcmpl-9f8a7bBZqKx2m1nO0pQ3rS4tU5vW6",
                "object": "chat.completion.chunk",
                "created": 1763800000,
                "model": "example-1-2026-08-06",
                "service_tier": "default",
                "system_fingerprint": "fp_44709d6fcb",
                "choices": [{"index": 0, "delta": {"content": f"word{number} "}, "logprobs": None, "finish": None}],
            }
        ).encode()
        + b"\n\n"
        for number in range(count)
    ]


# -- the stream --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "events",
    [
        [b"data: %d\n\n" % number for number in range(1000)],
        words(100),
        [b"x"] * 1000,
        [bytes([number]) * size for number, size in enumerate([1, TAIL - 1, TAIL, TAIL + 1, 1, 4096, 70_000, 3, TAIL])],
    ],
    ids=["small", "alike", "single bytes", "around the size of the tail"],
)
def test_each_event_can_be_decoded_when_it_arrives(events: list[bytes]) -> None:
    stream, client = Gzip(), reader()
    for event in events:
        assert client.decompress(stream.compress(event)) == event
    assert client.decompress(stream.finish(b"")) == b""
    assert client.eof


pieces = st.lists(
    st.one_of(
        st.binary(max_size=40),
        st.binary(max_size=6000),
        st.sampled_from(words(3)),
        st.builds(lambda piece, times: piece * times, st.binary(max_size=300), st.integers(0, 40)),
    ),
    max_size=12,
)


@steady
@given(pieces, st.one_of(st.just(b""), st.binary(max_size=3000)))
def test_whatever_the_pieces_they_are_one_gzip_file(parts: list[bytes], last: bytes) -> None:
    stream, client = Gzip(), reader()
    sent = b""
    for part in parts:
        data = stream.compress(part)
        assert client.decompress(data) == part
        sent += data
    end = stream.finish(last)
    assert client.decompress(end) == last
    assert client.eof, "the checksum and the length were right"
    assert client.unused_data == b""
    assert gzip.decompress(sent + end) == b"".join(parts) + last


@steady
@given(pieces)
def test_a_reader_may_get_it_byte_by_byte(parts: list[bytes]) -> None:
    stream, client = Gzip(), reader()
    for part in parts:
        assert b"".join(client.decompress(bytes([byte])) for byte in stream.compress(part)) == part


def test_a_piece_is_flushed_once() -> None:
    stream = Gzip()
    for event in words(50):
        data = stream.compress(event)
        assert data.endswith(MARK)
        assert data.count(MARK) == 1


def test_an_empty_piece_is_no_bytes() -> None:
    stream, client = Gzip(), reader()
    assert stream.compress(b"") == b""
    assert client.decompress(stream.compress(b"a")) == b"a"
    assert stream.compress(b"") == b""
    assert client.decompress(stream.finish(b"b")) == b"b"
    assert client.eof


def test_a_stream_without_pieces_is_an_empty_gzip_file() -> None:
    assert gzip.decompress(Gzip().finish(b"")) == b""
    assert gzip.decompress(Gzip().finish(b"all at once")) == b"all at once"


def test_a_stream_that_is_not_finished_is_all_there_and_seen_to_be_cut() -> None:
    stream, client = Gzip(), reader()
    data = stream.compress(b"one") + stream.compress(b"two")
    assert client.decompress(data) == b"onetwo"
    assert not client.eof
    with pytest.raises(EOFError):
        gzip.decompress(data)


def test_a_stream_may_be_longer_than_its_trailer_can_tell() -> None:
    """ISIZE is the length modulo 2 ** 32: a stream that runs for days passes that."""
    stream = Gzip()
    stream._size = 2**32 - 3
    assert stream.finish(b"12345")[-4:] == (2).to_bytes(4, "little")


def test_events_that_resemble_the_last_become_small() -> None:
    """Events longer than the 250 bytes that zlib's smallest window can look back."""
    stream, events = Gzip(), words(200)
    assert 300 < len(events[0]) < 400
    assert sum(map(len, events)) > 10 * sum(len(stream.compress(event)) for event in events)


def test_a_piece_may_refer_to_more_than_the_last() -> None:
    """What came a kilobyte ago comes again, with something else between."""
    stream = Gzip()
    one, other = (b"".join(b"%08x" % (seed * number % 2**32) for number in range(60)) for seed in (2654435761, 40503))
    assert len(one) == len(other) == 480
    for text in (one, other):
        assert len(stream.compress(text)) > 200
    for text in (one, other, one):
        assert len(stream.compress(text)) < 30


def test_a_text_of_one_kind_becomes_small_however_long_it_is() -> None:
    assert len(Gzip().compress(b"".join(words(3000)))) < 3000 * 340 / 10


MEASURE = """
import os
import random
from rawstream.encoding import Gzip

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

def write(stream):
    for size in (300, 5000, 20):
        stream.compress(random.randbytes(size))

write(Gzip())
before = resident()
streams = [Gzip() for _ in range(2000)]
for stream in streams:
    write(stream)
print((resident() - before) / len(streams))
"""


def test_a_stream_holds_little_memory_between_its_pieces() -> None:
    """Measured from outside: zlib's own memory is unknown to tracemalloc. A compressor that was kept takes 9 KB."""
    output = subprocess.run([sys.executable, "-c", MEASURE], check=True, capture_output=True, text=True).stdout
    assert 1000 < float(output) < 4500


# -- who is sent it ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "accepts"),
    [
        (None, False),
        ("", False),
        ("gzip", True),
        ("GZip", True),
        ("x-gzip", True),
        ("gzip, deflate, br, zstd", True),  # Chromium
        ("deflate, gzip, br, zstd", True),  # curl --compressed
        ("br;q=1.0, gzip;q=0.8, *;q=0.1", True),
        ("gzip;q=0", False),
        ("gzip;q=0.0", False),
        ("gzip;q=0.000", False),
        ("gzip;q=0.001", True),
        ("gzip;q=1", True),
        ("gzip;q=1.000", True),
        ("gzip ; Q=0.5", True),
        ("\tgzip\t;\tq=0.5\t", True),
        ("x-gzip;q=0", False),
        ("*", True),
        ("*;q=0", False),
        ("*, gzip;q=0", False),
        ("gzip;q=0, *", False),
        ("*, x-gzip;q=0", False),
        ("*;q=0, gzip", True),
        ("br, *;q=0.1", True),
        ("br", False),
        ("identity", False),
        ("identity;q=0", False),
        ("identity;q=0, gzip;q=0.1", True),
        ("identity, gzip", True),
        ("identity;q=1, gzip;q=0.5", False),
        ("identity;q=0.5, gzip;q=1", True),
        ("identity;q=0.5, *;q=0.2", False),
        ("identity, gzip;q=0, *", False),
        ("gzip, gzip;q=0", True),
        ("gzip;q=0, gzip", False),
        ("gzip;q=2", False),
        ("gzip;q=1.001", False),
        ("gzip;q=0.5000", False),
        ("gzip;q=-1", False),
        ("gzip;q=nan", False),
        ("gzip;q=", False),
        ("gzip;q", False),
        ("gzip;level=9", False),
        ("gzip q=1", False),
        ("gzipped", False),
        ("pgzip", False),
        ('"gzip"', False),
        ("gzip;q=x, gzip", True),
        (",, ;q=1, é, gzip", True),
    ],
)
def test_gzip_is_for_those_who_ask_for_it(field: str | None, accepts: bool) -> None:
    assert accepts_gzip(field) is accepts


def test_of_as_many_codings_as_a_head_can_hold_the_first_are_looked_at() -> None:
    assert accepts_gzip("br," * 31 + "gzip," + "x," * 4000)
    assert accepts_gzip("," * 31 + "gzip")
    assert not accepts_gzip("br," * 32 + "gzip")


@steady
@given(st.text(alphabet="gzipx*;q=01.,- \t"))
def test_no_field_makes_trouble(field: str) -> None:
    assert accepts_gzip(field) in (True, False)
    assert accepts_gzip(f"{field},\x00") == accepts_gzip(field)


# -- over sockets ------------------------------------------------------------------------------------------------------


class Watched:
    """Streams of numbered events, of which each is sent only when the reader has seen the one before."""

    def __init__(self, count: int = 4) -> None:
        self.count = count
        self._seen = asyncio.Event()

    async def items(self) -> AsyncIterator[str]:
        for number in range(self.count):
            yield f"event {number} 这是é"
            await self._seen.wait()
            self._seen.clear()

    async def handler(self, request: Request) -> Stream:
        return Stream(self.items(), gzip=True)

    def seen(self) -> None:
        self._seen.set()

    def texts(self, form: str = "data: event %d 这是é\n\n") -> list[str]:
        return [form % number for number in range(self.count)]


class Reading:
    """What a peer that asked gets: a head, and chunks that it decodes as they come."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.fields: dict[str, list[str]] = {}
        self.decoder = reader()

    @classmethod
    async def of(cls, served: Served, data: bytes) -> Reading:
        reading = cls(await served.ask(data))
        head = await reading.peer.head()
        assert head.startswith(b"HTTP/1.1 200 "), head
        for line in head.decode().split("\r\n")[1:-2]:
            name, value = line.split(": ", 1)
            reading.fields.setdefault(name.lower(), []).append(value)
        return reading

    async def raw(self) -> bytes:
        """The payload of the next chunk as it came; b"" for the last one."""
        size = int(await self.peer.until(b"\r\n"), 16)
        data = b""
        while len(data) < size + 2:
            data += await self.peer.until(b"\r\n")
        assert len(data) == size + 2
        return data[:-2]

    async def chunk(self) -> bytes:
        """The text of the next chunk. Fails if that chunk does not bring all that it has."""
        data = await self.raw()
        assert data, "the body has ended"
        return self.decoder.decompress(data)

    async def rest(self) -> bytes:
        """The text until the end of the body, which is a proper one."""
        text = b""
        while data := await self.raw():
            text += self.decoder.decompress(data)
        assert self.decoder.eof
        return text


def ask(accept: str = SSE, method: str = "GET", coding: str | None = "gzip") -> bytes:
    return request("/", f"Accept: {accept}", *([] if coding is None else [f"Accept-Encoding: {coding}"]), method=method)


def varies(fields: dict[str, list[str]]) -> set[str]:
    return {name.strip().lower() for value in fields.get("vary", []) for name in value.split(",")}


async def test_each_event_is_readable_while_the_generator_waits(serving: Serving) -> None:
    watched = Watched()
    reading = await Reading.of(await serving(watched.handler), ask())
    assert reading.fields["content-encoding"] == ["gzip"]
    assert reading.fields["content-type"] == [SSE]
    assert reading.fields["transfer-encoding"] == ["chunked"]
    assert "content-length" not in reading.fields
    assert varies(reading.fields) == {"accept", "accept-encoding"}
    for text in watched.texts():
        assert await reading.chunk() == text.encode()
        watched.seen()
    assert await reading.rest() == b"event: stream-end\ndata: {}\nid: stream-end\n\n"


@pytest.mark.parametrize(
    ("accept", "form", "begin", "end"),
    [
        ("application/json", ',"event %d 这是é"', b"[", b"]"),
        ("application/x-ndjson", '"event %d 这是é"\n', b"", b""),
        ("text/plain", "event %d 这是é", b"", b""),
    ],
)
async def test_so_it_is_in_every_format(serving: Serving, accept: str, form: str, begin: bytes, end: bytes) -> None:
    watched = Watched()
    reading = await Reading.of(await serving(watched.handler), ask(accept))
    assert reading.fields["content-encoding"] == ["gzip"]
    got = []
    for _ in watched.texts():
        got.append(await reading.chunk())
        watched.seen()
    assert b"".join(got) == begin + "".join(watched.texts(form)).encode().removeprefix(b"," if begin else b"")
    assert await reading.rest() == end


async def test_bytes_are_compressed_when_the_handler_says_so(serving: Serving) -> None:
    async def items() -> AsyncIterator[bytes]:
        yield b"\x00\xff" * 1000
        await settle()
        yield b"\x01"

    async def handler(request: Request) -> Stream:
        return Stream(items(), format="bytes", gzip=True)

    reading = await Reading.of(await serving(handler), ask("*/*"))
    assert varies(reading.fields) == {"accept-encoding"}
    assert await reading.rest() == b"\x00\xff" * 1000 + b"\x01"


async def test_a_flush_of_the_pump_is_one_flush_of_gzip(serving: Serving) -> None:
    """Items that are ready together share a chunk, and pay for one flush."""
    seen = asyncio.Event()

    async def items() -> AsyncIterator[str]:
        yield "a"
        yield "b"
        await seen.wait()
        yield "c"

    async def handler(request: Request) -> Stream:
        return Stream(items(), gzip=True)

    reading = await Reading.of(await serving(handler), ask("text/plain"))
    data = await reading.raw()
    assert reading.decoder.decompress(data) == b"ab"
    assert data.endswith(MARK)
    assert data.count(MARK) == 1
    seen.set()
    assert await reading.rest() == b"c"


async def test_items_that_leave_one_by_one_are_readable_one_by_one(serving: Serving) -> None:
    async def items() -> AsyncIterator[str]:
        for text in ("a", "b", "c"):
            yield text

    async def handler(request: Request) -> Stream:
        return Stream(items(), flush="item", gzip=True)

    reading = await Reading.of(await serving(handler), ask("text/plain"))
    assert [await reading.chunk() for _ in range(3)] == [b"a", b"b", b"c"]
    assert await reading.rest() == b""


async def test_what_is_gathered_on_purpose_is_flushed_once(serving: Serving) -> None:
    async def items() -> AsyncIterator[str]:
        for _ in range(10):
            yield "0123456789"
            await asyncio.sleep(0)

    async def handler(request: Request) -> Stream:
        return Stream(items(), flush=Every(bytes=50, seconds=1000), gzip=True)

    reading = await Reading.of(await serving(handler), ask("text/plain"))
    assert await reading.chunk() == b"0123456789" * 5
    assert await reading.rest() == b"0123456789" * 5


async def test_a_stream_without_items_is_a_proper_gzip_file(serving: Serving) -> None:
    async def items() -> AsyncIterator[str]:
        return
        yield

    async def handler(request: Request) -> Stream:
        return Stream(items(), gzip=True)

    reading = await Reading.of(await serving(handler), ask("text/plain"))
    assert await reading.rest() == b""
    reading = await Reading.of(await serving(handler), ask("application/json"))
    assert await reading.rest() == b"[]"


async def test_the_connection_serves_the_next_request(serving: Serving) -> None:
    """And that has a stream of gzip of its own."""

    async def items() -> AsyncIterator[str]:
        yield "once"

    async def handler(request: Request) -> Stream:
        return Stream(items(), gzip=True)

    served = await serving(handler)
    reading = await Reading.of(served, ask("text/plain"))
    assert await reading.rest() == b"once"
    await reading.peer.send(ask("text/plain"))
    again = Reading(reading.peer)
    await again.peer.head()
    assert await again.rest() == b"once"


async def test_the_head_leaves_before_there_is_anything_to_compress(serving: Serving) -> None:
    """EventSource's `open` fires at once; an empty chunk would end the body."""
    go = asyncio.Event()

    async def items() -> AsyncIterator[str]:
        await go.wait()
        yield "x"

    async def handler(request: Request) -> Stream:
        return Stream(items(), gzip=True)

    reading = await Reading.of(await serving(handler), ask())
    assert reading.peer.here() == b""
    go.set()
    assert await reading.rest() == b"data: x\n\nevent: stream-end\ndata: {}\nid: stream-end\n\n"


@pytest.mark.parametrize("coding", [None, "", "br", "gzip;q=0", "identity"])
async def test_who_does_not_accept_gzip_is_sent_none(serving: Serving, coding: str | None) -> None:
    watched = Watched(count=1)
    reading = await Reading.of(await serving(watched.handler), ask(coding=coding))
    assert "content-encoding" not in reading.fields
    assert varies(reading.fields) == {"accept", "accept-encoding"}, "a cache must not give this to others"
    assert await reading.raw() == watched.texts()[0].encode()


async def test_nothing_is_compressed_unasked(serving: Serving) -> None:
    async def handler(request: Request) -> AsyncIterator[str]:
        yield "x"

    reading = await Reading.of(await serving(handler), ask("text/plain"))
    assert "content-encoding" not in reading.fields
    assert varies(reading.fields) == {"accept"}
    assert await reading.raw() == b"x"


async def test_what_a_handler_has_encoded_is_not_encoded_again(serving: Serving) -> None:
    async def items() -> AsyncIterator[bytes]:
        yield b"\x0b\x02\x80hello\x03"

    async def handler(request: Request) -> Stream:
        return Stream(items(), format="bytes", gzip=True, headers={"content-encoding": "br"})

    reading = await Reading.of(await serving(handler), ask("*/*", coding="gzip, br"))
    assert reading.fields["content-encoding"] == ["br"]
    assert await reading.raw() == b"\x0b\x02\x80hello\x03"


@pytest.mark.parametrize("coding", ["gzip", None])
async def test_a_head_request_gets_the_same_fields(serving: Serving, coding: str | None) -> None:
    watched = Watched(count=1)
    served = await serving(watched.handler)
    got = await Reading.of(served, ask(coding=coding))
    assert await got.raw() != b""
    watched.seen()
    peer = await served.ask(ask(method="HEAD", coding=coding) + ask(coding=coding))
    head = await peer.head()
    assert head == await peer.head(), "and no body between them"


async def test_heartbeats_are_compressed_too(serving: Serving, clock: Clock) -> None:
    go = asyncio.Event()

    async def items() -> AsyncIterator[str]:
        yield "x"
        await go.wait()
        yield "y"

    async def handler(request: Request) -> Stream:
        return Stream(items(), heartbeat=15, gzip=True)

    reading = await Reading.of(await serving(handler), ask())
    assert await reading.chunk() == b"data: x\n\n"
    for _ in range(2):
        await clock.advance(16)
        assert await reading.chunk() == b":\n\n"
    go.set()
    assert (await reading.rest()).startswith(b"data: y\n\n")


async def test_that_the_server_closes_is_told_in_the_compressed_stream(serving: Serving) -> None:
    watched = Watched(count=1)
    served = await serving(watched.handler)
    reading = await Reading.of(served, ask())
    assert await reading.chunk() == watched.texts()[0].encode()
    served.server.begin_closing()
    assert (await reading.chunk()).startswith(b"event: stream-closing\n")
    watched.seen()
    assert await reading.rest() == b""


async def test_what_is_told_before_the_first_item_is_compressed_with_the_rest(serving: Serving) -> None:
    """The notice waits for the head: it is the first that the reader decodes."""
    go = asyncio.Event()
    waits = asyncio.Event()

    async def items() -> AsyncIterator[str]:
        waits.set()
        await go.wait()
        yield "x"

    async def handler(request: Request) -> Stream:
        return Stream(items(), head="item", gzip=True)

    served = await serving(handler)
    peer = await served.ask(ask())
    await waits.wait()
    served.server.begin_closing()
    go.set()
    await peer.head()
    text = await Reading(peer).rest()
    assert text.startswith(b"event: stream-closing\n")
    assert text.endswith(b"\n\ndata: x\n\n")


async def test_an_error_is_told_in_the_compressed_stream_which_is_then_cut(
    serving: Serving, failures: Failures
) -> None:
    seen = asyncio.Event()

    async def items() -> AsyncIterator[str]:
        yield "x"
        await seen.wait()
        yield "y"
        raise RuntimeError("boom")

    async def handler(request: Request) -> Stream:
        return Stream(items(), gzip=True)

    served = await serving(handler, timeouts=Timeouts(linger=0, grace=60))
    reading = await Reading.of(served, ask())
    assert await reading.chunk() == b"data: x\n\n"
    seen.set()
    told = b'event: stream-error\ndata: {"status":500,"error":"Internal Server Error"}\n\n'
    assert await reading.chunk() == b"data: y\n\n" + told
    assert await reading.peer.rest() == b""
    assert not reading.decoder.eof, "neither coding has its end: this is no whole answer"
    assert str(failures.take()) == "boom"


async def test_an_error_before_the_head_is_a_plain_answer(serving: Serving, failures: Failures) -> None:
    async def items() -> AsyncIterator[str]:
        raise RuntimeError("boom")
        yield

    async def handler(request: Request) -> Stream:
        return Stream(items(), gzip=True)

    peer = await (await serving(handler)).ask(ask())
    head, body = await peer.response()
    assert head.startswith(b"HTTP/1.1 500 ")
    assert b"content-encoding" not in head.lower()
    assert body == b"500 Internal Server Error\n"
    assert str(failures.take()) == "boom"


async def test_a_client_of_http_1_0_gets_gzip_until_the_close(serving: Serving) -> None:
    watched = Watched(count=2)
    peer = await (await serving(watched.handler)).ask(get("/", SSE, "Accept-Encoding: gzip", version="1.0"))
    head = await peer.head()
    assert b"\r\nContent-Encoding: gzip\r\n" in head
    assert b"Transfer-Encoding" not in head
    decoder = reader()
    for text in watched.texts():
        assert decoder.decompress(await peer.until(MARK)) == text.encode()
        watched.seen()
    assert decoder.decompress(await peer.rest()).startswith(b"event: stream-end\n")
    assert decoder.eof


# -- clients of others -------------------------------------------------------------------------------------------------


async def curl(served: Served, *options: str) -> asyncio.subprocess.Process:
    """`curl --compressed -N` that accepts events. Where curl is missing this fails: `make system-packages`."""
    host, port = served.server.addresses[0]
    command = [
        "curl",
        "--silent",
        "--noproxy",
        "*",
        "--compressed",
        "-N",
        "-H",
        f"Accept: {SSE}",
        *options,
        f"http://{host}:{port}/",
    ]
    return await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)


async def test_curl_prints_each_event_while_the_generator_waits(serving: Serving) -> None:
    watched = Watched()
    process = await curl(await serving(watched.handler), "--write-out", "%header{content-encoding}")
    assert process.stdout is not None
    for text in watched.texts():
        assert await process.stdout.readexactly(len(text.encode())) == text.encode()
        watched.seen()
    assert await process.stdout.read() == b"event: stream-end\ndata: {}\nid: stream-end\n\ngzip"
    assert await process.wait() == 0


async def test_curl_prints_why_a_stream_broke_off_and_knows_that_it_did(serving: Serving, failures: Failures) -> None:
    async def items() -> AsyncIterator[str]:
        yield "x"
        await settle()
        raise RuntimeError("boom")

    async def handler(request: Request) -> Stream:
        return Stream(items(), gzip=True)

    process = await curl(await serving(handler, timeouts=Timeouts(linger=0, grace=60)))
    assert process.stdout is not None
    told = b'event: stream-error\ndata: {"status":500,"error":"Internal Server Error"}\n\n'
    assert await process.stdout.read() == b"data: x\n\n" + told
    assert await process.wait() == 18, "CURLE_PARTIAL_FILE"
    assert str(failures.take()) == "boom"


async def test_httpx_gives_each_line_while_the_generator_waits(serving: Serving) -> None:
    watched = Watched()
    host, port = (await serving(watched.handler)).server.addresses[0]
    async with (
        httpx.AsyncClient(trust_env=False) as client,
        client.stream("GET", f"http://{host}:{port}/", headers={"Accept": SSE}) as response,
    ):
        assert response.headers["content-encoding"] == "gzip"
        lines = response.aiter_lines()
        for text in watched.texts():
            assert await anext(lines) == text.removesuffix("\n\n")
            assert await anext(lines) == ""
            watched.seen()
        assert [line async for line in lines] == ["event: stream-end", "data: {}", "id: stream-end", ""]
