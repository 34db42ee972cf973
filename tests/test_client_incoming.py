"""A response off the wire: what is made of its chunks is what h11 makes of them, however they are cut."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any

import h11
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rawstream.errors import BadResponse, FetchError, IncompleteResponse
from rawstream.fields import Headers
from rawstream.incoming import Arrival, Incoming
from rawstream.wire import ClientWire

pytestmark = pytest.mark.either_loop
steady = settings(max_examples=60, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def asked(method: str = "GET", **limits: int) -> Incoming:
    wire = ClientWire(**limits)
    wire.request(method, "/", [("Host", "a")])
    return Incoming(wire, **limits)


def begun(head: bytes = HEAD) -> Incoming:
    incoming = asked()
    assert incoming.head(head) is not None
    return incoming


Outcome = tuple[list[bytes], Any]


def received(pieces: list[bytes]) -> Outcome:
    """The chunks put together of their parts, and how it ended: with trailers, or the kind of an error."""
    incoming, chunks, unfinished = begun(), [b""], True
    try:
        for piece in [*pieces, b""]:
            if incoming.fault is not None:
                raise incoming.fault
            if incoming.ended:
                break
            arrival = incoming.arrival(1.0, piece)
            assert (arrival.received, arrival.chunked) == (len(piece), True)
            for number, data in enumerate(arrival.pieces):
                assert data
                if number or not arrival.continues:
                    chunks.append(b"")
                chunks[-1] += data
            unfinished = arrival.unfinished
    except FetchError as error:
        return chunks[1:], type(error)
    assert not unfinished
    return chunks[1:], incoming.trailers.pairs


def received_by_h11(pieces: list[bytes]) -> Outcome:
    """The same, by h11 alone."""
    connection = h11.Connection(h11.CLIENT)
    connection.send(h11.Request(method="GET", target="/", headers=[("Host", "a")]))
    connection.send(h11.EndOfMessage())
    connection.receive_data(HEAD)
    connection.next_event()
    chunks: list[bytes] = []
    try:
        for piece in [*pieces, b""]:
            connection.receive_data(piece)
            while (event := connection.next_event()) is not h11.NEED_DATA:
                if type(event) is h11.EndOfMessage:
                    return chunks, tuple((name.decode(), value.decode()) for name, value in event.headers.raw_items())
                assert type(event) is h11.Data
                if event.chunk_start:
                    chunks.append(b"")
                chunks[-1] += event.data
    except h11.RemoteProtocolError:
        return chunks, IncompleteResponse if not piece else BadResponse
    raise AssertionError("an end is one")


def cut_at(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted({place % (len(data) + 1) for place in places} - {0, len(data)}), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


@st.composite
def chunked(draw: st.DrawFn) -> bytes:
    """A chunked body as servers write it, be they old or odd."""
    body = b""
    for data in draw(st.lists(st.binary(min_size=1, max_size=40), max_size=8)):
        size = draw(st.sampled_from([b"%x", b"%X", b"%04x", b"%x ", b"%x;a=b", b'%x;a="b" '])) % len(data)
        body += size + b"\r\n" + data + b"\r\n"
    return body + draw(st.sampled_from([b"0\r\n\r\n", b"000\r\nA: b\r\n\r\n", b"0;x\r\n\r\n"]))


places = st.lists(st.integers(0, 400), max_size=12)


@given(body=chunked(), cuts=places)
@steady
def test_chunks_are_those_that_h11_sees_however_they_are_cut(body: bytes, cuts: list[int]) -> None:
    expected = received_by_h11([body])
    assert expected[1] not in (IncompleteResponse, BadResponse)
    assert received([body]) == expected
    assert received(cut_at(body, cuts)) == expected
    assert received([body[at : at + 1] for at in range(len(body))]) == expected


@given(body=chunked(), cuts=places, place=st.integers(0, 400))
@steady
def test_a_cut_is_a_cut_wherever_it_is(body: bytes, cuts: list[int], place: int) -> None:
    body = body[: place % len(body)]
    expected = received_by_h11([body])
    assert expected[1] is IncompleteResponse
    assert received(cut_at(body, cuts)) == expected


@given(
    body=chunked(),
    cuts=places,
    place=st.integers(0, 400),
    junk=st.sampled_from([b"\n", b"\r", b"x", b"1", b"\0", b"-"]),
)
@steady
def test_what_h11_refuses_is_refused(body: bytes, cuts: list[int], place: int, junk: bytes) -> None:
    """What comes before is given out; and where it is no chunk, h11 says so."""
    place %= len(body)
    body = body[:place] + junk + body[place + 1 :]
    chunks, ending = received_by_h11([body])
    found = received([body])
    assert (found[1] in (IncompleteResponse, BadResponse)) == (ending in (IncompleteResponse, BadResponse))
    if ending not in (IncompleteResponse, BadResponse):
        assert found == (chunks, ending)
    again = received(cut_at(body, cuts))
    assert (b"".join(again[0]), again[1]) == (b"".join(found[0]), found[1])


def test_an_arrival_tells_what_it_is() -> None:
    incoming = begun()
    assert incoming.arrival(1.5, b"3\r\nabc\r\n2\r\nx") == Arrival(1.5, 12, [b"abc", b"x"], True, False, True)
    assert incoming.arrival(1.5, b"y\r\n1") == Arrival(1.5, 4, [b"y"], True, True, False)
    assert incoming.arrival(2.5, b"\r\n") == Arrival(2.5, 2, [], True, False, False)
    assert incoming.arrival(2.5, b"z") == Arrival(2.5, 1, [b"z"], True, False, False)
    assert not incoming.ended
    assert incoming.arrival(3.5, b"\r\n0\r\nA: b\r\n\r\n") == Arrival(3.5, 13, [], True, False, False)
    assert incoming.ended
    assert incoming.trailers == Headers([("A", "b")])


@pytest.mark.parametrize("footer", [b"X", b"\n", b"\rX", b"X\r\n"])
def test_a_chunk_longer_than_it_says_is_the_servers_mistake(footer: bytes) -> None:
    incoming = begun()
    assert incoming.arrival(1.0, b"3\r\nabc" + footer).pieces == [b"abc"]
    assert isinstance(incoming.fault, BadResponse)
    incoming = begun()
    incoming.arrival(1.0, b"3\r\nabc")
    with pytest.raises(BadResponse):
        for byte in footer:
            incoming.arrival(1.0, bytes([byte]))


def test_a_size_line_that_does_not_end_takes_no_memory() -> None:
    incoming = begun()
    with pytest.raises(BadResponse):
        for _ in range(100):
            incoming.arrival(1.0, b"1;" + b"x" * 1000)


@pytest.mark.parametrize("cuts", [[], [1], [20], range(100)])
@pytest.mark.parametrize("end", [b"\r\n", b"\n"])
def test_a_head_is_found_behind_informational_ones_and_what_follows_is_kept(end: bytes, cuts: Any) -> None:
    data = b"HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n".replace(
        b"\r\n", end
    )
    incoming, behind = asked(), b""
    head = None
    for piece in cut_at(data + b"hello", list(cuts)):
        if head is None:
            if (found := incoming.head(piece)) is not None:
                head, behind = found
        else:
            behind += piece
    assert head is not None
    assert (head.status, behind) == (200, b"hello")
    assert incoming.arrival(1.0, b"hello") == Arrival(1.0, 5, [b"hello"])
    assert incoming.ended


@pytest.mark.parametrize(
    ("method", "head"),
    [("HEAD", HEAD), ("GET", b"HTTP/1.1 204 No Content\r\n\r\n"), ("GET", HEAD.replace(b"200 OK", b"304 Not Modified")),
     ("GET", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")],
)  # fmt: skip
def test_a_response_without_a_body_has_ended_with_its_head(method: str, head: bytes) -> None:
    incoming = asked(method)
    assert incoming.head(head) is not None
    assert incoming.ended


def test_without_length_or_chunks_the_end_of_the_connection_is_the_end() -> None:
    incoming = begun(b"HTTP/1.0 200 OK\r\n\r\n")
    assert incoming.arrival(1.0, b"5\r\n") == Arrival(1.0, 3, [b"5\r\n"])
    assert not incoming.ended
    incoming.arrival(1.0, b"")
    assert incoming.ended


@pytest.mark.parametrize("data", [b"", b"HTT", b"HTTP/1.1 200 OK\r\nA: b\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"])
def test_a_head_that_is_cut_is_incomplete(data: bytes) -> None:
    incoming = asked()
    assert not data or incoming.head(data) is None
    with pytest.raises(IncompleteResponse):
        incoming.head(b"")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"SSH-2.0-x\r\n\r\n", "a response begins with a line of version and status"),
        (b"\x00\x00\x06\x04", "a response begins with a line of version and status"),
        (b"\x15\x03\x01\x00\x02", "the server answered with no HTTP (it speaks TLS, perhaps: https://)"),
        (b"HTTP/1.1 200 OK\r\nX\r\n\r\n", "a header field is a name, a colon and a value"),
        (b"HTTP/1.1 099 x\r\n\r\n", "a response has a status from 100 on"),
        (
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
            "a response changes the protocol (101) only if that was asked for",
        ),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            "a response has no transfer coding but chunked",
        ),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
            "a response has no transfer coding but chunked, and that once",
        ),
    ],
)
def test_what_is_no_head_is_the_servers_mistake_and_is_told(data: bytes, words: str) -> None:
    with pytest.raises(BadResponse, match=f"^{re.escape(words)}$"):
        asked().head(data)


def test_a_head_has_a_limit() -> None:
    incoming = asked(max_head=100)
    with pytest.raises(BadResponse, match="the response's head has more than 100 bytes"):
        for _ in range(20):
            incoming.head(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 10)
    whole = b"HTTP/1.1 103 x\r\nA: b\r\n\r\nHTTP/1.1 200 OK\r\nX: %b\r\n\r\n"
    assert asked(max_head=100).head(whole % (b"x" * 76))
    with pytest.raises(BadResponse, match="the response's head has more than 100 bytes"):
        asked(max_head=100).head(whole % (b"x" * 77))
