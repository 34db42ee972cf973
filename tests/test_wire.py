"""HTTP/1.1 in memory: both roles against bytes written out by hand, and against each other.

Each exchange runs three ways: whole, byte by byte, and with the bytes of something else behind it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st
from shadow import shadowed

from rawstream.errors import AnswerError, HeadTooLarge, LocalError, ProtocolError, RemoteError, TargetTooLong
from rawstream.fields import Headers
from rawstream.framing import CLOSED, NEED_DATA, Data, End, Frame, chunked, until_close
from rawstream.messages import RequestHead, ResponseHead
from rawstream.wire import ClientWire, ServerWire

Cut = Callable[[bytes], list[bytes]]


def whole(data: bytes) -> list[bytes]:
    return [data]


def byte_by_byte(data: bytes) -> list[bytes]:
    return [data[place : place + 1] for place in range(len(data))]


CUTS = [whole, byte_by_byte]
cut_both_ways = pytest.mark.parametrize("cut", CUTS)


def note(seen: list[Any], event: Any) -> None:
    """Add the event to those seen before. The pieces of a body are put together."""
    if not isinstance(event, Data):
        seen.append(event)
    elif seen and isinstance(seen[-1], bytes):
        seen[-1] += event.data
    else:
        seen.append(event.data)


def events(side: ServerWire | ClientWire, pieces: Iterable[bytes]) -> list[Any]:
    """What `side` makes of the pieces, up to the end of the message."""
    seen: list[Any] = []
    for piece in pieces:
        side.feed(piece)
        while (event := side.receive()) is not NEED_DATA and event is not CLOSED:
            note(seen, event)
            if isinstance(event, End):
                break
    return seen


def head(target: str = "/", *fields: tuple[str, str], method: str = "GET", version: str = "1.1") -> RequestHead:
    path, _, query = target.partition("?")
    return RequestHead(method, target, path, query, Headers([("Host", "a"), *fields]), version)


def received(data: bytes, **limits: int) -> ServerWire:
    """A server's side that has received the head of `data`."""
    server = ServerWire(**limits)
    server.feed(data)
    assert isinstance(server.receive(), RequestHead)
    return server


def asked(method: str = "GET") -> ClientWire:
    """A client's side that has sent its request."""
    client = ClientWire()
    client.request(method, "/", [("Host", "a")])
    return client


END = End()
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
GET_1_0 = b"GET / HTTP/1.0\r\nHost: a\r\n\r\n"
HEAD = b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"


# -- exchanges ---------------------------------------------------------------------------------------------------------


def whole_response(status: int, fields: list[tuple[str, str]], body: bytes) -> Callable[[ServerWire], bytes]:
    return lambda server: server.respond(status, fields, body)


def stream(*payloads: bytes, status: int = 200) -> Callable[[ServerWire], bytes]:
    def answer(server: ServerWire) -> bytes:
        data, frame = server.start(server.prepare(status, [("X", "y")]))
        return data + b"".join(map(frame, payloads)) + server.end()

    return answer


@dataclass
class Exchange:
    """A request, what the server's side sees of it, what it answers, and what the client's side sees of that."""

    asks: tuple[Any, ...]  # of ClientWire.request
    request: bytes
    seen_by_server: list[Any]
    answers: Callable[[ServerWire], bytes]
    response: bytes
    seen_by_client: list[Any]
    reusable: bool = True
    ended_by_close: bool = False


OK = "HTTP/1.1"
HOST = ("Host", "a")
X = ("X", "y")

EXCHANGES = {
    "a whole response": Exchange(
        ("GET", "/a%20b?c=d&e", [HOST, ("Accept", "text/plain")]),
        b"GET /a%20b?c=d&e HTTP/1.1\r\nHost: a\r\nAccept: text/plain\r\n\r\n",
        [head("/a%20b?c=d&e", ("Accept", "text/plain")), END],
        whole_response(200, [("Content-Type", "text/plain"), ("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")], b"hello"),
        b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n"
        b"Content-Length: 5\r\n\r\nhello",
        [
            ResponseHead(
                200,
                "OK",
                Headers(
                    [
                        ("Content-Type", "text/plain"),
                        ("Set-Cookie", "a=1"),
                        ("Set-Cookie", "b=2"),
                        ("Content-Length", "5"),
                    ]
                ),
                "1.1",
            ),
            b"hello",
            END,
        ],
    ),
    "an empty response": Exchange(
        ("DELETE", "/", [HOST]),
        b"DELETE / HTTP/1.1\r\nHost: a\r\n\r\n",
        [head(method="DELETE"), END],
        whole_response(404, [], b""),
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
        [ResponseHead(404, "Not Found", Headers([("Content-Length", "0")]), "1.1"), END],
    ),
    "a status without a phrase": Exchange(
        ("GET", "/", [HOST]),
        GET,
        [head(), END],
        whole_response(299, [], b""),
        b"HTTP/1.1 299 \r\nContent-Length: 0\r\n\r\n",
        [ResponseHead(299, "", Headers([("Content-Length", "0")]), "1.1"), END],
    ),
    "a request with a body": Exchange(
        ("POST", "/", [HOST], b"hello\r\n\r\n"),
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhello\r\n\r\n",
        [head("/", ("Content-Length", "9"), method="POST"), b"hello\r\n\r\n", END],
        whole_response(200, [], b"ok"),
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        [ResponseHead(200, "OK", Headers([("Content-Length", "2")]), "1.1"), b"ok", END],
    ),
    "a POST without a body": Exchange(
        ("POST", "/", [HOST]),
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
        [head("/", ("Content-Length", "0"), method="POST"), END],
        whole_response(204, [X], b""),
        b"HTTP/1.1 204 No Content\r\nX: y\r\n\r\n",
        [ResponseHead(204, "No Content", Headers([X]), "1.1"), END],
    ),
    "not modified": Exchange(
        ("GET", "/", [HOST]),
        GET,
        [head(), END],
        whole_response(304, [X], b""),
        b"HTTP/1.1 304 Not Modified\r\nX: y\r\n\r\n",
        [ResponseHead(304, "Not Modified", Headers([X]), "1.1"), END],
    ),
    "the head of a whole response": Exchange(
        ("HEAD", "/", [HOST]),
        HEAD,
        [head(method="HEAD"), END],
        whole_response(200, [], b"hello"),
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
        [ResponseHead(200, "OK", Headers([("Content-Length", "5")]), "1.1"), END],
    ),
    "a stream": Exchange(
        ("GET", "/", [HOST]),
        GET,
        [head(), END],
        stream(b"hello", b"", "是".encode() * 6, b"\r\n0\r\n\r\n"),
        b"HTTP/1.1 200 OK\r\nX: y\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"5\r\nhello\r\n12\r\n" + "是".encode() * 6 + b"\r\n7\r\n\r\n0\r\n\r\n\r\n0\r\n\r\n",
        [
            ResponseHead(200, "OK", Headers([X, ("Transfer-Encoding", "chunked")]), "1.1"),
            b"hello" + "是".encode() * 6 + b"\r\n0\r\n\r\n",
            END,
        ],
    ),
    "a stream of nothing": Exchange(
        ("GET", "/", [HOST]),
        GET,
        [head(), END],
        stream(b"", b"", status=201),
        b"HTTP/1.1 201 Created\r\nX: y\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        [ResponseHead(201, "Created", Headers([X, ("Transfer-Encoding", "chunked")]), "1.1"), END],
    ),
    "the head of a stream": Exchange(
        ("HEAD", "/", [HOST]),
        HEAD,
        [head(method="HEAD"), END],
        stream(),
        b"HTTP/1.1 200 OK\r\nX: y\r\nTransfer-Encoding: chunked\r\n\r\n",
        [ResponseHead(200, "OK", Headers([X, ("Transfer-Encoding", "chunked")]), "1.1"), END],
    ),
    "a stream that must not have a body": Exchange(
        ("GET", "/", [HOST]),
        GET,
        [head(), END],
        stream(status=204),
        b"HTTP/1.1 204 No Content\r\nX: y\r\n\r\n",
        [ResponseHead(204, "No Content", Headers([X]), "1.1"), END],
    ),
    "the client closes": Exchange(
        ("GET", "/", [HOST, ("Connection", "close")]),
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        [head("/", ("Connection", "close")), END],
        whole_response(200, [], b"hello"),
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello",
        [ResponseHead(200, "OK", Headers([("Content-Length", "5"), ("Connection", "close")]), "1.1"), b"hello", END],
        reusable=False,
    ),
    "the server closes": Exchange(
        ("GET", "/", [HOST]),
        GET,
        [head(), END],
        whole_response(503, [("Connection", "close")], b""),
        b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
        [
            ResponseHead(
                503, "Service Unavailable", Headers([("Connection", "close"), ("Content-Length", "0")]), "1.1"
            ),
            END,
        ],
        reusable=False,
    ),
    "options of the server as a whole": Exchange(
        ("OPTIONS", "*", [HOST]),
        b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
        [head("*", method="OPTIONS"), END],
        whole_response(204, [("Allow", "GET")], b""),
        b"HTTP/1.1 204 No Content\r\nAllow: GET\r\n\r\n",
        [ResponseHead(204, "No Content", Headers([("Allow", "GET")]), "1.1"), END],
    ),
    "fields in Latin-1": Exchange(
        ("GET", "/", [HOST, ("X", "caf\xe9")]),
        b"GET / HTTP/1.1\r\nHost: a\r\nX: caf\xe9\r\n\r\n",
        [head("/", ("X", "caf\xe9")), END],
        whole_response(204, [("X", "caf\xe9")], b""),
        b"HTTP/1.1 204 No Content\r\nX: caf\xe9\r\n\r\n",
        [ResponseHead(204, "No Content", Headers([("X", "caf\xe9")]), "1.1"), END],
    ),
    "an upgrade that is offered and ignored": Exchange(
        ("GET", "/", [HOST, ("Connection", "Upgrade"), ("Upgrade", "websocket")]),
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        [head("/", ("Connection", "Upgrade"), ("Upgrade", "websocket")), END],
        stream(b"hello"),
        b"HTTP/1.1 200 OK\r\nX: y\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        [ResponseHead(200, "OK", Headers([X, ("Transfer-Encoding", "chunked")]), "1.1"), b"hello", END],
    ),
}

each_exchange = pytest.mark.parametrize("exchange", EXCHANGES.values(), ids=EXCHANGES.keys())


@cut_both_ways
@each_exchange
def test_both_roles_agree_on_the_bytes_of_an_exchange(exchange: Exchange, cut: Cut) -> None:
    client, server = ClientWire(), ServerWire()
    request = client.request(*exchange.asks)
    assert request == exchange.request
    assert events(server, cut(request)) == exchange.seen_by_server
    assert server.request_ended
    assert server.answerable
    response = exchange.answers(server)
    assert response == exchange.response
    assert not server.answerable
    assert server.reusable is exchange.reusable
    assert events(client, cut(response)) == exchange.seen_by_client
    client.feed(b"")
    assert client.receive() is CLOSED


@each_exchange
def test_bytes_behind_a_request_are_kept_for_the_next(exchange: Exchange) -> None:
    server = ServerWire()
    assert events(server, [exchange.request + b"PUT /next HTTP/1.1\r\nHo"]) == exchange.seen_by_server
    assert server.request_ended
    assert exchange.answers(server) == exchange.response
    if exchange.reusable:
        server.next_cycle()
        assert events(server, [b"st: a\r\n\r\n"]) == [head("/next", method="PUT"), END]


@each_exchange
def test_bytes_behind_a_response_are_no_part_of_it(exchange: Exchange) -> None:
    client = ClientWire()
    client.request(*exchange.asks)
    assert events(client, [exchange.response + b"HTTP/1.1 500 ..."])[: len(exchange.seen_by_client)] == (
        exchange.seen_by_client
    )


def test_a_connection_is_used_again_and_again() -> None:
    server = ServerWire()
    for number in range(3):
        assert events(server, [b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % number]) == [head(f"/{number}"), END]
        assert server.respond(204, [], b"") == b"HTTP/1.1 204 No Content\r\n\r\n"
        server.next_cycle()
        assert server.answerable
        assert not server.request_ended
        assert not server.reusable
        assert server.receive() is NEED_DATA


def test_next_cycle_before_the_end_of_request_and_response_is_the_callers_mistake() -> None:
    server = received(GET)
    with pytest.raises(AssertionError):
        server.next_cycle()
    assert server.receive() == END
    with pytest.raises(AssertionError):
        server.next_cycle()


def test_a_response_before_the_end_of_the_request_leaves_the_connection_not_reusable_until_that_has_come() -> None:
    server = received(POST + b"Content-Length: 5\r\n\r\nhe")
    assert server.respond(413, [], b"") == b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\n\r\n"
    assert not server.request_ended
    assert not server.reusable
    assert events(server, [b"llo"]) == [b"hello", END]
    assert server.reusable


# -- HTTP/1.0 ----------------------------------------------------------------------------------------------------------


@cut_both_ways
def test_a_stream_to_an_http_1_0_client_is_ended_by_the_end_of_the_connection(cut: Cut) -> None:
    server = ServerWire()
    assert events(server, cut(GET_1_0)) == [head(version="1.0"), END]
    data, frame = server.start(server.prepare(200, [X]))
    assert data == b"HTTP/1.1 200 OK\r\nX: y\r\nConnection: close\r\n\r\n"
    assert [frame(b"hello"), frame(b""), frame(b"\r\n0\r\n\r\n")] == [b"hello", b"", b"\r\n0\r\n\r\n"]
    assert server.end() == b""
    assert not server.reusable
    client = asked()
    response = data + b"hello\r\n0\r\n\r\n"
    fields = Headers([X, ("Connection", "close")])
    assert events(client, cut(response)) == [ResponseHead(200, "OK", fields, "1.1"), b"hello\r\n0\r\n\r\n"]
    client.feed(b"")
    assert client.receive() == END
    assert client.receive() is CLOSED


def test_a_whole_response_to_an_http_1_0_client_has_a_length_and_closes() -> None:
    server = received(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    assert server.receive() == END
    assert server.respond(200, [], b"hello") == (
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello"
    )
    assert not server.reusable


def test_the_head_of_a_stream_to_an_http_1_0_client() -> None:
    server = received(b"HEAD / HTTP/1.0\r\n\r\n")
    data, _ = server.start(server.prepare(200, []))
    assert data + server.end() == b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"


@cut_both_ways
def test_an_http_1_0_request_needs_no_host_and_may_have_a_body(cut: Cut) -> None:
    request = b"POST / HTTP/1.0\r\nContent-Length: 5\r\n\r\nhello"
    expected = RequestHead("POST", "/", "/", "", Headers([("Content-Length", "5")]), "1.0")
    assert events(ServerWire(), cut(request)) == [expected, b"hello", END]


@cut_both_ways
def test_a_minor_version_that_is_to_come_counts_as_1_1(cut: Cut) -> None:
    server = ServerWire()
    assert events(server, cut(b"GET / HTTP/1.2\r\nHost: a\r\n\r\n")) == [head(), END]
    data, frame = server.start(server.prepare(200, []))
    assert data == b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert frame(b"hello") == b"5\r\nhello\r\n"


# -- bodies of requests ------------------------------------------------------------------------------------------------


@cut_both_ways
@pytest.mark.parametrize(
    ("sent", "body", "trailers"),
    [
        (b"0\r\n\r\n", b"", []),
        (b"5\r\nhello\r\n0\r\n\r\n", b"hello", []),
        (b"5\r\nhello\r\n7\r\n, world\r\n0\r\n\r\n", b"hello, world", []),
        (b"A\r\n0123456789\r\n00a\r\n0123456789\r\n000\r\n\r\n", b"01234567890123456789", []),
        (b"5;name=value;other=\"a;b\"\r\nhello\r\n0;last\r\n\r\n", b"hello", []),
        (b"5\r\nhello\r\n0\r\nX-Sum: 5d41\r\nX-Sum: 402a\r\n\r\n", b"hello", [("X-Sum", "5d41"), ("X-Sum", "402a")]),
        (b"4\r\n\r\n\r\n\r\n0\r\n\r\n", b"\r\n\r\n", []),
    ],
    ids=["empty", "one chunk", "two chunks", "hexadecimal", "extensions", "trailers", "line ends as data"],
)  # fmt: skip
def test_a_chunked_body_and_its_trailers(sent: bytes, body: bytes, trailers: list[tuple[str, str]], cut: Cut) -> None:
    server = ServerWire()
    chunked_head = head("/", ("Transfer-Encoding", "chunked"), method="POST")
    end = End(Headers(trailers))
    assert events(server, cut(CHUNKED + sent)) == [chunked_head, *([body] if body else []), end]
    assert server.request_ended
    again = ServerWire()
    assert events(again, [CHUNKED + sent + GET])[-1] == end, "what follows is no trailer"
    again.respond(204, [], b"")
    again.next_cycle()
    assert again.receive() == head()


def test_where_the_sender_cut_its_chunks_is_told() -> None:
    server = received(CHUNKED + b"5\r\nhello\r\n6\r\n, ")
    assert server.receive() == Data(b"hello", chunk_start=True, chunk_end=True)
    assert server.receive() == Data(b", ", chunk_start=True, chunk_end=False)
    assert server.receive() is NEED_DATA
    server.feed(b"wor")
    assert server.receive() == Data(b"wor")
    server.feed(b"l\r\n0\r\n\r\n")
    assert server.receive() == Data(b"l", chunk_start=False, chunk_end=True)
    assert server.receive() == END


def test_data_is_bytes_and_comes_as_it_arrives() -> None:
    server = received(POST + b"Content-Length: 5\r\n\r\nhe")
    event = server.receive()
    assert event == Data(b"he")
    assert isinstance(event, Data)
    assert type(event.data) is bytes
    assert server.receive() is NEED_DATA
    assert not server.request_ended
    server.feed(b"llo" + GET)
    assert server.receive() == Data(b"llo")
    assert server.receive() == END
    assert server.receive() is NEED_DATA, "the rest is for the next cycle"


@cut_both_ways
@pytest.mark.parametrize("length", [b"5", b" 5", b"\t5 ", b"05", b"00000000000000000005"])
def test_a_content_length_is_decimal_digits_with_white_space_around_them(length: bytes, cut: Cut) -> None:
    server = ServerWire()
    request = POST + b"Content-Length:" + length + b"\r\n\r\nhello"
    digits = length.strip().decode()
    assert events(server, cut(request)) == [head("/", ("Content-Length", digits), method="POST"), b"hello", END]


# -- Expect: 100-continue ----------------------------------------------------------------------------------------------

EXPECTS = POST + b"Expect: 100-Continue\r\nContent-Length: 5\r\n\r\n"


@cut_both_ways
def test_a_client_that_waits_is_told_to_go_ahead_once(cut: Cut) -> None:
    server = ServerWire()
    assert server.go_ahead() == b""
    assert len(events(server, cut(EXPECTS))) == 1
    assert server.go_ahead() == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert server.answerable
    assert server.go_ahead() == b""
    assert events(server, cut(b"hello")) == [b"hello", END]
    assert server.respond(204, [], b"") == b"HTTP/1.1 204 No Content\r\n\r\n"
    assert server.reusable


def test_a_client_that_sent_its_body_unasked_is_not_told() -> None:
    server = received(EXPECTS + b"he")
    assert server.receive() == Data(b"he")
    assert server.go_ahead() == b""


def test_a_client_that_got_its_answer_is_not_told() -> None:
    server = received(EXPECTS)
    server.respond(403, [], b"")
    assert server.go_ahead() == b""
    assert not server.reusable, "nobody knows whether it will send its body"


def test_who_does_not_wait_is_not_told() -> None:
    assert received(POST + b"Content-Length: 5\r\n\r\n").go_ahead() == b""
    assert received(b"POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n").go_ahead() == b""


@cut_both_ways
def test_a_client_skips_informational_responses(cut: Cut) -> None:
    client = ClientWire()
    client.request("POST", "/", [HOST, ("Expect", "100-continue")], b"hello")
    before = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    response = b"HTTP/1.1 204 No Content\r\n\r\n"
    assert events(client, cut(before + response)) == [ResponseHead(204, "No Content", Headers(), "1.1"), END]


# -- pipelining and empty lines ----------------------------------------------------------------------------------------

PIPELINED = (
    b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\n"
    b"\r\n\r\n"
    b"POST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n\r\n\r\n\r"
    b"\r\n"
    b"POST /3 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nA: b\r\n\r\n"
    b"GET /4 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
)
PIPELINED_EVENTS = [
    head("/1"),
    END,
    head("/2", ("Content-Length", "5"), method="POST"),
    b"\r\n\r\n\r",
    END,
    head("/3", ("Transfer-Encoding", "chunked"), method="POST"),
    b"hello",
    End(Headers([("A", "b")])),
    head("/4", ("Connection", "close")),
    END,
]


def served(pieces: Iterable[bytes]) -> tuple[list[Any], bytes]:
    """What a server sees, and what it says if it answers each request with its path."""
    server = ServerWire()
    seen: list[Any] = []
    said = path = b""
    for piece in pieces:
        server.feed(piece)
        while (event := server.receive()) is not NEED_DATA:
            note(seen, event)
            if isinstance(event, RequestHead):
                path = event.path.encode()
            if isinstance(event, End):
                said += server.respond(200, [], path)
                if not server.reusable:
                    break
                server.next_cycle()
    return seen, said


def test_pipelined_requests_are_answered_one_after_the_other() -> None:
    seen, said = served([PIPELINED])
    assert seen == PIPELINED_EVENTS
    assert said == (
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n/1"
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n/2"
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n/3"
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n/4"
    )


@pytest.mark.parametrize("place", range(1, len(PIPELINED)))
def test_pipelined_requests_may_be_cut_anywhere(place: int) -> None:
    assert served([PIPELINED[:place], PIPELINED[place:]])[0] == PIPELINED_EVENTS


def test_pipelined_requests_byte_by_byte() -> None:
    assert served(byte_by_byte(PIPELINED))[0] == PIPELINED_EVENTS


@cut_both_ways
@pytest.mark.parametrize("lines", [1, 2, 1000])
def test_empty_lines_before_a_request_are_skipped(lines: int, cut: Cut) -> None:
    """RFC 9112 section 2.2."""
    server = ServerWire(max_head=64)
    assert events(server, cut(b"\r\n" * lines + GET)) == [head(), END]
    server.respond(204, [], b"")
    server.next_cycle()
    assert events(server, cut(b"\r\n" * lines + GET)) == [head(), END]


def test_half_an_empty_line_waits_for_its_other_half() -> None:
    server = ServerWire()
    server.feed(b"\r\n\r")
    assert server.receive() is NEED_DATA
    server.feed(b"\n")
    assert server.receive() is NEED_DATA
    assert not server.begun
    server.feed(b"\r")
    assert server.receive() is NEED_DATA
    server.feed(b"\nG")
    assert server.receive() is NEED_DATA
    assert server.begun
    server.feed(GET[1:])
    assert server.receive() == head()


@cut_both_ways
@pytest.mark.parametrize("lead", [b"\r", b"\n", b" ", b"\r\n\n", b"\r\n "])
def test_only_whole_empty_lines_are_skipped(lead: bytes, cut: Cut) -> None:
    with pytest.raises(ProtocolError) as caught:
        events(ServerWire(), cut(lead + GET))
    assert caught.value.status == 400


@cut_both_ways
def test_empty_lines_inside_a_body_are_data(cut: Cut) -> None:
    server = ServerWire()
    request = POST + b"Content-Length: 4\r\n\r\n\r\n\r\n"
    assert events(server, cut(request)) == [head("/", ("Content-Length", "4"), method="POST"), b"\r\n\r\n", END]


@pytest.mark.parametrize("before", [b"", b"\r\n", b"\r\n\r\n\r"])
def test_the_end_of_the_connection_between_two_requests_is_no_error(before: bytes) -> None:
    server = ServerWire()
    for piece in (before, b""):
        server.feed(piece)
    assert server.receive() is CLOSED
    assert server.receive() is CLOSED


@pytest.mark.parametrize("between", [b"", b"\r\n"])
def test_an_end_that_came_before_the_answer_is_told_after_it(between: bytes) -> None:
    server = received(GET + between)
    assert server.receive() == END
    server.feed(b"")
    server.respond(204, [], b"")
    server.next_cycle()
    assert server.receive() is CLOSED


# -- the end at every point --------------------------------------------------------------------------------------------


def up_to_the_end(side: ServerWire | ClientWire, data: bytes) -> list[Any]:
    """What `side` makes of these bytes and the end of the connection; an error is the last entry."""
    if data:
        side.feed(data)
    side.feed(b"")
    seen: list[Any] = []
    try:
        while (event := side.receive()) is not CLOSED:
            assert event is not NEED_DATA, "there is nothing to come"
            seen.append(event)
    except RemoteError as error:
        return [*seen, (type(error), error.status, str(error))]
    return seen


CUT_OFF = (ProtocolError, 400, "the connection ended before the message did")
WITH_LENGTH = POST + b"Content-Length: 5\r\n\r\nhello"
WITH_CHUNKS = CHUNKED + b"5\r\nhello\r\n0\r\nA: b\r\n\r\n"


@pytest.mark.parametrize("request_bytes", [GET, WITH_LENGTH, WITH_CHUNKS], ids=["no body", "length", "chunks"])
def test_a_request_that_is_cut_off_anywhere_is_told_from_one_that_is_complete(request_bytes: bytes) -> None:
    assert up_to_the_end(ServerWire(), b"") == []
    for place in range(1, len(request_bytes)):
        server = ServerWire()
        seen = up_to_the_end(server, request_bytes[:place])
        assert seen[-1] == CUT_OFF
        assert not any(isinstance(event, End) for event in seen)
        assert bool(seen[:-1]) == (b"\r\n\r\n" in request_bytes[:place]), "the head is told as soon as it is whole"
        assert server.answerable
        assert not server.request_ended
    complete = up_to_the_end(ServerWire(), request_bytes)
    assert isinstance(complete[-1], End)


@pytest.mark.parametrize(
    "response",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nA: b\r\n\r\n",
    ],
    ids=["length", "chunks"],
)
def test_a_response_that_is_cut_off_anywhere_is_told_from_one_that_is_complete(response: bytes) -> None:
    for place in range(1, len(response)):
        seen = up_to_the_end(asked(), response[:place])
        assert seen[-1] == CUT_OFF
        assert not any(isinstance(event, End) for event in seen)
    assert isinstance(up_to_the_end(asked(), response)[-1], End)


def test_a_response_without_length_ends_with_the_connection_wherever_that_is() -> None:
    response = b"HTTP/1.1 200 OK\r\n\r\nhello"
    for place in range(1, response.index(b"hello")):
        assert up_to_the_end(asked(), response[:place]) == [CUT_OFF]
    for place in range(response.index(b"hello") + 1, len(response) + 1):
        body = Data(response[:place].partition(b"\r\n\r\n")[2])
        assert up_to_the_end(asked(), response[:place]) == [ResponseHead(200, "OK", Headers(), "1.1"), body, END]


def test_the_end_instead_of_a_response_is_an_error() -> None:
    assert up_to_the_end(asked(), b"") == [CUT_OFF]
    assert up_to_the_end(asked(), b"HTTP/1.1 100 Continue\r\n\r\n") == [CUT_OFF]


# -- targets and hosts -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        ("/", "/", ""),
        ("/a/b%2Fc", "/a/b%2Fc", ""),
        ("/?", "/", ""),
        ("/a?b=c?d=/e", "/a", "b=c?d=/e"),
        ("//a/b", "//a/b", ""),
        ("/http://b/c", "/http://b/c", ""),
    ],
)
@cut_both_ways
def test_origin_form(target: str, path: str, query: str, cut: Cut) -> None:
    seen = events(ServerWire(), cut(f"GET {target} HTTP/1.1\r\nHost: a\r\n\r\n".encode()))
    assert seen[0] == RequestHead("GET", target, path, query, Headers([HOST]), "1.1")


@pytest.mark.parametrize(
    ("target", "host", "path", "query"),
    [
        ("http://b", "b", "/", ""),
        ("http://b/", "b", "/", ""),
        ("HTTP://b:80/c/d?e=f", "b:80", "/c/d", "e=f"),
        ("https://b?e", "b", "/", "e"),
        ("http://[::1]:8000/c", "[::1]:8000", "/c", ""),
    ],
)
@cut_both_ways
def test_in_absolute_form_the_targets_host_replaces_the_field(
    target: str, host: str, path: str, query: str, cut: Cut
) -> None:
    """RFC 9112 section 3.2.2."""
    seen = events(ServerWire(), cut(f"GET {target} HTTP/1.1\r\nX: y\r\nhOST: a\r\nZ: z\r\n\r\n".encode()))
    assert seen[0] == RequestHead("GET", target, path, query, Headers([("host", host), X, ("Z", "z")]), "1.1")


@pytest.mark.parametrize(
    "target",
    ["a", "a/b", "*", "?b", "#", "/a#b", "/a?b#c", "http:", "http://", "http:///c", "http://u@b/", "http://b/#c",
     "http://b c/", "ftp://b/", "http://b:c/", "http://[::1/", "b:80", "http://:80/", "http://u:p@b/", "http:/b"],
)  # fmt: skip
@cut_both_ways
def test_other_targets_are_refused(target: str, cut: Cut) -> None:
    server = ServerWire()
    with pytest.raises(ProtocolError) as caught:
        events(server, cut(f"GET {target} HTTP/1.1\r\nHost: a\r\n\r\n".encode()))
    assert caught.value.status == 400
    assert server.answerable


@pytest.mark.parametrize("target", ["b:80", "b", "/", "*", "http://b/"])
@cut_both_ways
def test_there_is_no_connect(target: str, cut: Cut) -> None:
    """In whatever form: h11 would take a 2xx answer to it for the beginning of a tunnel."""
    server = ServerWire()
    with pytest.raises(ProtocolError, match=r"^this server is not a proxy: it has no CONNECT$") as caught:
        events(server, cut(f"CONNECT {target} HTTP/1.1\r\nHost: b:80\r\n\r\n".encode()))
    assert caught.value.status == 501
    assert server.respond(501, [], b"no") == b"HTTP/1.1 501 Not Implemented\r\nContent-Length: 2\r\n\r\nno"


@pytest.mark.parametrize("target", ["*", "/*"])
def test_an_asterisk_is_for_options_only(target: str) -> None:
    seen = events(ServerWire(), [f"OPTIONS {target} HTTP/1.1\r\nHost: a\r\n\r\n".encode()])
    assert seen == [head(target, method="OPTIONS"), END]


@pytest.mark.parametrize(
    "host",
    ["", "a", "a.b-c_d~e", "A.B:8000", "a:", "127.0.0.1:80", "[::1]", "[::1]:80", "[::ffff:1.2.3.4]", "%C3%A9",
     "!$&'()*+,;="],
)  # fmt: skip
def test_hosts_that_are_taken(host: str) -> None:
    server = ServerWire()
    server.feed(f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    assert server.receive() == RequestHead("GET", "/", "/", "", Headers([("Host", host)]), "1.1")


@pytest.mark.parametrize(
    "host",
    ["a b", "a/b", "a?b", "a#b", "a@b", "a:b", "a:80:80", "::1", "[::1", "::1]", "[]", "[g]", "[::1]a", "a\\b", "<a>",
     "a\tb", "\xe9", '"a"', "http://a", "%", "a%2", "%zz", ":80", "a:123456"],
)  # fmt: skip
@cut_both_ways
def test_hosts_that_are_refused(host: str, cut: Cut) -> None:
    with pytest.raises(ProtocolError) as caught:
        events(ServerWire(), cut(f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode("latin-1")))
    assert (caught.value.status, str(caught.value)) == (400, "Host is a name and perhaps a port")


# -- what is refused ---------------------------------------------------------------------------------------------------

REFUSED = {
    "no host": (b"GET / HTTP/1.1\r\n\r\n", 400),
    "two hosts": (b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
    "two hosts, on 1.0": (b"GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", 400),
    "HTTP/2": (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
    "the preface of HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    "HTTP/0.9 with its version": (b"GET / HTTP/0.9\r\n\r\n", 505),
    "HTTP/0.9 as it was": (b"GET /\r\n\r\n", 400),
    "a version of two digits": (b"GET / HTTP/1.10\r\nHost: a\r\n\r\n", 400),
    "a version in lower case": (b"GET / http/1.1\r\nHost: a\r\n\r\n", 400),
    "two spaces": (b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "no method": (b" / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "no target": (b"GET HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "a target in Latin-1": (b"GET /\xe9 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "a method in Latin-1": (b"G\xc9T / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    "a folded line before the first field": (b"GET / HTTP/1.1\r\n X: y\r\nHost: a\r\n\r\n", 400),
    "a folded Host": (b"GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n", 400),
    "a bare CR after the request line": (b"GET / HTTP/1.1\rHost: a\r\n\r\n", 400),
    "a bare CR in a value": (b"GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n", 400),
    "a bare CR before a line end": (b"GET / HTTP/1.1\r\nHost: a\r\nX: a\r\r\n\r\n", 400),
    "a bare CR in a target": (b"GET /\ra HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "NUL in a value": (b"GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n", 400),
    "NUL in a name": (b"GET / HTTP/1.1\r\nHost: a\r\nX\0: a\r\n\r\n", 400),
    "NUL in a target": (b"GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "NUL": (b"\0", 400),
    "a field without a colon": (b"GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n", 400),
    "a field without a name": (b"GET / HTTP/1.1\r\nHost: a\r\n: y\r\n\r\n", 400),
    "a space before the colon": (b"GET / HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n", 400),
    "both lengths": (CHUNKED[:-2] + b"Content-Length: 5\r\n\r\n0\r\n\r\n", 400),
    "both lengths, the other way round": (
        POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    "chunks from an HTTP/1.0 client": (b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "two lengths": (POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n", 400),
    "a list of two lengths": (POST + b"Content-Length: 5, 6\r\n\r\n", 400),
    "a negative length": (POST + b"Content-Length: -1\r\n\r\n", 400),
    "a length with a sign": (POST + b"Content-Length: +1\r\n\r\n", 400),
    "a hexadecimal length": (POST + b"Content-Length: 0x5\r\n\r\n", 400),
    "an empty length": (POST + b"Content-Length:\r\n\r\n", 400),
    "a length of 21 digits": (POST + b"Content-Length: 111111111111111111111\r\n\r\n", 400),
    "another coding": (POST + b"Transfer-Encoding: gzip\r\n\r\n", 400),
    "a list of codings": (POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n", 501),
    "another coding in a field of its own": (
        POST + b"Transfer-Encoding: gzip\r\nX: y\r\ntransfer-encoding: chunked\r\n\r\n",
        501,
    ),
    "chunked before another coding": (POST + b"Transfer-Encoding: chunked, gzip\r\n\r\n", 400),
    "chunked twice": (POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
    "chunked twice in one field": (POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n", 400),
    "identity": (POST + b"Transfer-Encoding: identity\r\n\r\n", 400),
    "something like chunked": (POST + b"Transfer-Encoding: xchunked\r\n\r\n", 400),
    "chunked with a parameter": (POST + b"Transfer-Encoding: chunked;q=1\r\n\r\n", 400),
    "no coding": (POST + b"Transfer-Encoding:\r\n\r\n", 400),
    "no host, on a minor version to come": (b"GET / HTTP/1.2\r\n\r\n", 400),
    "a method longer than any": (b"A" * 33 + b" / HTTP/1.1\r\nHost: a\r\n\r\n", 501),
    "a folded field": (b"GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n \t b\r\n\r\n", 400),
    "a folded Transfer-Encoding": (POST + b"Transfer-Encoding:\r\n\tchunked\r\n\r\n0\r\n\r\n", 400),
    "a line of white space": (b"GET / HTTP/1.1\r\nHost: a\r\n \r\nX: y\r\n\r\n", 400),
    "bare LFs": (b"GET / HTTP/1.1\nHost: a\n\n", 400),
    "one bare LF": (b"GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n", 400),
    "a bare LF at the end of a head": (b"GET / HTTP/1.1\r\nHost: a\r\n\n", 400),
    "a bare LF before the end of a head": (b"GET / HTTP/1.1\r\nHost: a\n\r\n", 400),
    "a bare LF and a fold, which even out the number of lines": (
        b"GET / HTTP/1.1\r\nHost: a\nX: y\r\n z\r\n\r\n",
        400,
    ),
    "a control character in a value": (b"GET / HTTP/1.1\r\nHost: a\r\nX: a\x01b\r\n\r\n", 400),
    "DEL in a value": (b"GET / HTTP/1.1\r\nHost: a\r\nX: a\x7fb\r\n\r\n", 400),
    "equal lengths": (POST + b"Content-Length: 5\r\nX: y\r\ncontent-length: 5\r\n\r\nhello", 400),
    "a list of equal lengths": (POST + b"Content-Length: 5, 5\r\n\r\nhello", 400),
    "two numbers for a length": (POST + b"Content-Length: 5 5\r\n\r\nhello", 400),
    "a length in other digits": (POST + "Content-Length: ٥\r\n\r\nhello".encode(), 400),
    "white space behind a chunk size": (CHUNKED + b"5 \r\n", 400),
    "white space before a chunk extension": (CHUNKED + b"5\t;x\r\n", 400),
    "a chunk size of 17 digits": (CHUNKED + b"00000000000000005\r\n", 400),
    "a bare CR in a chunk extension": (CHUNKED + b"5;a\rb\r\n", 400),
    "NUL in a chunk extension": (CHUNKED + b"5;\0\r\n", 400),
    "a chunk that ends with a bare LF": (CHUNKED + b"5\r\nhello\n0\r\n\r\n", 400),
    "a line without end instead of a chunk's": (CHUNKED + b"5\r\nhello" + b"x" * 17_000, 400),
    "a chunk that ends with two CRs": (CHUNKED + b"5\r\nhello\r\r\n", 400),
    "a bare LF after the last chunk": (CHUNKED + b"0\n\r\n", 400),
    "a bare LF at the end of a chunked body": (CHUNKED + b"0\r\n\n", 400),
    "a bare LF at the end of a trailer": (CHUNKED + b"0\r\nX: y\n\r\n", 400),
    "a folded trailer": (CHUNKED + b"0\r\nX: y\r\n z\r\n\r\n", 400),
    "a control character in a trailer": (CHUNKED + b"0\r\nX: \x01\r\n\r\n", 400),
    "Content-Length in trailers": (CHUNKED + b"0\r\nContent-Length: 5\r\n\r\n", 400),
    "Transfer-Encoding in trailers": (CHUNKED + b"0\r\nX: y\r\ntransfer-encoding: gzip\r\n\r\n", 400),
    "Host in trailers": (CHUNKED + b"0\r\nHOST: b\r\n\r\n", 400),
    "a chunk size that is no number": (CHUNKED + b"x\r\n", 400),
    "a negative chunk size": (CHUNKED + b"-1\r\n", 400),
    "a chunk size with a sign": (CHUNKED + b"+1\r\n", 400),
    "a chunk size with a prefix": (CHUNKED + b"0x5\r\n", 400),
    "a chunk size after a space": (CHUNKED + b" 5\r\n", 400),
    "an empty chunk size": (CHUNKED + b"\r\n", 400),
    "a chunk size with an underscore": (CHUNKED + b"1_0\r\n", 400),
    "a chunk size of 21 digits": (CHUNKED + b"111111111111111111111\r\n", 400),
    "a chunk size with a bare LF": (CHUNKED + b"5\nhello\r\n", 400),
    "a chunk size with a bare CR": (CHUNKED + b"5\rhello\r\n", 400),
    "a chunk extension with a bare LF": (CHUNKED + b"5;a\nhello\r\n", 400),
    "a chunk that is longer than its size": (CHUNKED + b"5\r\nhello!\r\n", 400),
    "a chunk that is shorter than its size": (CHUNKED + b"5\r\nhell\r\n0\r\n\r\n", 400),
    "a trailer without a colon": (CHUNKED + b"0\r\nX\r\n\r\n", 400),
    "a trailer with a bad name": (CHUNKED + b"0\r\nX Y: z\r\n\r\n", 400),
}


@cut_both_ways
@pytest.mark.parametrize(("data", "status"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_no_request_is_refused_with_a_status_that_can_still_be_sent(data: bytes, status: int, cut: Cut) -> None:
    server = ServerWire()
    with pytest.raises(ProtocolError) as caught:
        events(server, cut(data))
    assert caught.value.status == status
    assert re.fullmatch(r"[A-Za-z][A-Za-z0-9 .,:/'*-]+", caught.value.public), "plain words, and nothing of the bytes"
    assert server.answerable
    status_line, *fields, empty, body = server.respond(status, [("Connection", "close")], b"no").split(b"\r\n")
    assert status_line.startswith(b"HTTP/1.1 %d " % status)
    assert sorted(fields) == [b"Connection: close", b"Content-Length: 2"]
    assert (empty, body) == (b"", b"no")
    assert not server.reusable


def test_after_an_error_every_further_look_is_one() -> None:
    server = ServerWire()
    for _ in range(2):
        server.feed(b"\0")
        with pytest.raises(ProtocolError):
            server.receive()
    assert not server.request_ended


def test_an_error_is_told_from_h11s() -> None:
    server = ServerWire()
    server.feed(b"GET / HTTP/1.1\r\nX\r\n\r\n")
    with pytest.raises(ProtocolError, match=r"^a header field is a name, a colon and a value$") as caught:
        server.receive()
    assert isinstance(caught.value.__cause__, h11.RemoteProtocolError)


@cut_both_ways
@pytest.mark.parametrize("name", ["no host", "HTTP/2", "equal lengths", "both lengths", "a target in Latin-1"])
def test_what_follows_a_refused_head_is_never_looked_at(name: str, cut: Cut) -> None:
    server = ServerWire()
    with pytest.raises(ProtocolError):
        events(server, cut(REFUSED[name][0] + GET))
    server.feed(GET)
    with pytest.raises(ProtocolError, match=r"^nothing is read after an error$"):
        server.receive()
    assert not server.request_ended
    server.respond(400, [], b"")
    assert not server.reusable


@cut_both_ways
def test_white_space_around_a_value_is_no_part_of_it(cut: Cut) -> None:
    request = b"GET / HTTP/1.1\r\nHost:a\r\nX: \t y \t \r\nEmpty:\r\n\r\n"
    assert events(ServerWire(), cut(request)) == [head("/", X, ("Empty", "")), END]


# -- limits ------------------------------------------------------------------------------------------------------------


def head_of(size: int) -> bytes:
    """A request's head of exactly so many bytes."""
    request = b"GET / HTTP/1.1\r\nHost: a\r\nX: \r\n\r\n"
    return request.replace(b"X: ", b"X: " + b"x" * (size - len(request)))


@pytest.mark.parametrize("limit", [64, 16 * 1024])
@cut_both_ways
def test_a_head_of_exactly_the_limit_is_taken_and_one_byte_more_is_not(limit: int, cut: Cut) -> None:
    assert len(head_of(limit)) == limit
    assert len(events(ServerWire(max_head=limit), cut(head_of(limit)))) == 2
    server = ServerWire(max_head=limit)
    with pytest.raises(HeadTooLarge) as caught:
        events(server, cut(head_of(limit + 1)))
    assert caught.value.status == 431
    assert server.answerable
    assert server.respond(431, [("Connection", "close")], b"") == (
        b"HTTP/1.1 431 Request Header Fields Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    )


def test_a_head_may_have_16_kib_and_100_fields_by_default() -> None:
    assert len(events(ServerWire(), [head_of(16 * 1024)])) == 2
    with pytest.raises(HeadTooLarge, match=r"^a request's head has at most 16384 bytes here$"):
        events(ServerWire(), [head_of(16 * 1024 + 1)])
    assert len(events(ServerWire(), [GET[:-2] + b"X: y\r\n" * 99 + b"\r\n"])) == 2
    with pytest.raises(HeadTooLarge, match=r"^a request has at most 100 header fields here, not 101$"):
        events(ServerWire(), [GET[:-2] + b"X: y\r\n" * 100 + b"\r\n"])


@pytest.mark.parametrize("place", range(1, 65))
def test_a_head_of_one_byte_too_many_is_refused_however_it_is_cut(place: int) -> None:
    data = head_of(65)
    with pytest.raises(HeadTooLarge):
        events(ServerWire(max_head=64), [data[:place], data[place:]])
    data = head_of(64)
    assert len(events(ServerWire(max_head=64), [data[:place], data[place:]])) == 2


@pytest.mark.parametrize(
    "data", [b"G" * 65, b"GET /" + b"x" * 60, GET[:-2] + b"x" * 64], ids=["method", "target", "name"]
)
@cut_both_ways
def test_a_head_without_end_is_refused_when_it_has_more_than_the_limit(data: bytes, cut: Cut) -> None:
    server = ServerWire(max_head=64)
    with pytest.raises(HeadTooLarge, match=r"^a request's head has at most 64 bytes here$"):
        events(server, cut(data))
    assert server.answerable


def test_the_limit_is_for_the_head_alone() -> None:
    """Neither a body nor a next request that came with it counts."""
    server = ServerWire(max_head=64)
    body = b"x" * 1000
    request = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n" + body
    assert len(request) - 1000 <= 64
    assert events(server, [request + head_of(64) * 3]) == [
        head("/", ("Content-Length", "1000"), method="POST"),
        body,
        END,
    ]
    for _ in range(3):
        server.respond(204, [], b"")
        server.next_cycle()
        assert isinstance(server.receive(), RequestHead)
        assert server.receive() == END


@cut_both_ways
@pytest.mark.parametrize("limit", [64, 1000])
def test_a_target_of_exactly_the_limit_is_taken_and_one_byte_more_is_not(limit: int, cut: Cut) -> None:
    """Also where the head itself has no end, or none that is allowed."""
    fields = b" HTTP/1.1\r\nHost: a\r\n\r\n"
    wires = [ServerWire(max_head=1000 + 30, max_target=limit) for _ in range(4)]
    assert isinstance(events(wires[0], cut(b"GET /" + b"x" * (limit - 1) + fields))[0], RequestHead)
    for wire, data in zip(wires[1:], [b"x" * limit + fields, b"x" * 2000 + fields, b"x" * 2000], strict=True):
        with pytest.raises(TargetTooLong, match=f"^a request's target has at most {limit} bytes here$") as caught:
            events(wire, cut(b"GET /" + data))
        assert caught.value.status == 414
        assert wire.answerable
        assert wire.respond(414, [], b"").startswith(b"HTTP/1.1 414 URI Too Long\r\n")
        assert not wire.reusable


@cut_both_ways
def test_a_target_may_have_8_kib_by_default(cut: Cut) -> None:
    fields = b" HTTP/1.1\r\nHost: a\r\n\r\n"
    assert len(events(ServerWire(), cut(b"GET /" + b"x" * (8 * 1024 - 1) + fields))) == 2
    with pytest.raises(TargetTooLong):
        events(ServerWire(), cut(b"GET /" + b"x" * (8 * 1024) + fields))


@cut_both_ways
def test_more_fields_than_allowed_are_refused(cut: Cut) -> None:
    request = b"GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\n"
    assert events(ServerWire(max_headers=2), cut(request)) == [head("/", X), END]
    server = ServerWire(max_headers=1)
    with pytest.raises(HeadTooLarge, match=r"^a request has at most 1 header fields here, not 2$") as caught:
        events(server, cut(request))
    assert caught.value.status == 431
    assert server.answerable


TOO_MUCH = {
    "a chunk extension without end": b"5;" + b"x" * 64,
    "a chunk extension": b"5;" + b"x" * 64 + b"\r\nhello\r\n0\r\n\r\n",
    "chunk extensions, all together": b"1;1234567\r\nx\r\n" * 9,
    "a trailer without end": b"0\r\nX: " + b"x" * 64,
    "trailers": b"0\r\n" + b"X: 12345\r\n" * 7 + b"\r\n",
    "extensions and trailers together": b"1;" + b"x" * 31 + b"\r\nx\r\n0\r\nX: " + b"x" * 31 + b"\r\n\r\n",
}


@pytest.mark.parametrize("sent", TOO_MUCH.values(), ids=TOO_MUCH.keys())
@cut_both_ways
def test_the_lines_between_chunks_have_a_limit_too(sent: bytes, cut: Cut) -> None:
    server = ServerWire(max_head=64)
    with pytest.raises(HeadTooLarge, match=r"^a chunked body has fewer bytes of extensions and trailers here$"):
        events(server, cut(CHUNKED + sent))
    assert server.answerable
    assert not server.request_ended


@cut_both_ways
@pytest.mark.parametrize("spent", [0, 1])
def test_extensions_and_trailers_of_exactly_the_limit_are_taken_and_one_byte_more_is_not(spent: int, cut: Cut) -> None:
    sent = b"1;1234567\r\nx\r\n" * 5 + b"0\r\nX: " + b"x" * (64 - 5 * 8 - 5 - 2 + spent) + b"\r\n\r\n"
    if spent:
        with pytest.raises(HeadTooLarge):
            events(ServerWire(max_head=64), cut(CHUNKED + sent))
    else:
        assert isinstance(events(ServerWire(max_head=64), cut(CHUNKED + sent))[-1], End)


@cut_both_ways
def test_many_small_chunks_are_no_extensions(cut: Cut) -> None:
    seen = events(ServerWire(max_head=64), cut(CHUNKED + b"0001\r\nx\r\n" * 200 + b"0\r\n\r\n"))
    assert seen[1:] == [b"x" * 200, END]


@cut_both_ways
def test_more_trailers_than_allowed_are_refused(cut: Cut) -> None:
    body = CHUNKED + b"0\r\nX: y\r\nX: z\r\n"
    assert len(events(ServerWire(max_headers=2), cut(body + b"\r\n"))) == 2
    with pytest.raises(HeadTooLarge, match=r"^a request has fewer trailer fields here$") as caught:
        events(ServerWire(max_headers=2), cut(body + b"X: 3\r\n\r\n"))
    assert caught.value.status == 431


@cut_both_ways
def test_what_came_before_a_faulty_chunk_is_told_first(cut: Cut) -> None:
    server, seen = ServerWire(), []
    with pytest.raises(ProtocolError):
        for piece in cut(CHUNKED + b"5\r\nhello\r\n3\r\n, w\r\nx\r\n" + GET):
            server.feed(piece)
            while (event := server.receive()) is not NEED_DATA:
                note(seen, event)
    assert seen[1:] == [b"hello, w"]
    server.feed(b"")
    with pytest.raises(ProtocolError):
        server.receive()


def test_the_end_of_the_connection_does_not_hide_what_was_wrong_before_it() -> None:
    server = received(CHUNKED + b"5 \r\n")
    server.feed(b"")
    with pytest.raises(ProtocolError, match=r"^a chunk begins with its size"):
        server.receive()


# -- what cannot be sent -----------------------------------------------------------------------------------------------

UNSENDABLE: dict[str, Any] = {
    "a line break in a value": [("X", "a\r\nSet-Cookie: b")],
    "a CR in a value": [("X", "a\rb")],
    "an LF in a value": [("X", "a\nb")],
    "NUL in a value": [("X", "a\0b")],
    "space around a value": [("X", " a")],
    "a value beyond Latin-1": [("X", "是")],
    "a name beyond ASCII": [("\xe9", "y")],
    "an empty name": [("", "y")],
    "a colon in a name": [("X:", "y")],
    "a line break in a name": [("X\r\nY", "y")],
    "a name of bytes": [(b"X", "y")],
    "a value that is a number": [("X", 1)],
    "a value that is None": [("X", None)],
    "no pair": [("X",)],
    "a triple": [("X", "y", "z")],
    "no pairs at all": [1],
    "a control character in a value": [("X", "a\x01b")],
    "DEL in a value": [("X", "a\x7fb")],
    "conflicting lengths": [("Content-Length", "7")],
    "a framing of its own": [("Transfer-Encoding", "chunked")],
    "a length that is no number": [("Content-Length", "x")],
}


@pytest.mark.parametrize("fields", UNSENDABLE.values(), ids=UNSENDABLE.keys())
def test_fields_that_cannot_be_sent_are_the_handlers_mistake_and_another_answer_still_can(fields: Any) -> None:
    server = received(GET)
    assert server.receive() == END
    with pytest.raises(AnswerError):
        server.respond(200, fields, b"hello")
    with pytest.raises(AnswerError):
        server.prepare(200, fields)
    assert server.answerable
    assert server.respond(500, [], b"") == b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n"
    assert server.reusable


@pytest.mark.parametrize("name", ["Content-Length", "content-length", "Transfer-Encoding"])
def test_a_stream_takes_no_framing_of_the_handlers(name: str) -> None:
    server = received(GET)
    with pytest.raises(AnswerError, match=r"chooses its own framing|not the handler's to say"):
        server.prepare(200, [(name, "5" if "ength" in name else "chunked")])
    assert server.answerable


@pytest.mark.parametrize("status", [99, 100, 199, 1000])
def test_a_status_that_ends_no_request_is_the_handlers_mistake(status: int) -> None:
    with pytest.raises(AnswerError):
        received(GET).prepare(status, [])


def test_fields_may_come_from_a_generator() -> None:
    assert received(GET).respond(200, (field for field in [X]), b"") == (
        b"HTTP/1.1 200 OK\r\nX: y\r\nContent-Length: 0\r\n\r\n"
    )


def test_one_prepared_head_serves_one_stream_after_the_other() -> None:
    server = received(GET)
    prepared = server.prepare(200, [X])
    for request in (GET, GET_1_0):
        other = received(request)
        assert other.start(prepared)[0].startswith(b"HTTP/1.1 200 OK\r\nX: y\r\n")
    assert server.start(prepared)[0] == b"HTTP/1.1 200 OK\r\nX: y\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("method", "target", "fields"),
    [
        ("GET", "/a b", [HOST]),
        ("GET", "/\xe9", [HOST]),
        ("GET", "", [HOST]),
        ("G T", "/", [HOST]),
        ("GET", "/", []),
        ("GET", "/", [HOST, HOST]),
        ("GET", "/", [HOST, ("X", "a\r\nb")]),
        ("GET", "/", [HOST, ("X", "是")]),
        ("GET", "/", [HOST, ("X", 1)]),
        ("GET", "/", [HOST, ("X",)]),
        ("GET", "/", [HOST, 1]),
        ("POST", "/", [HOST, ("Content-Length", "7")]),
    ],
)
def test_a_request_that_cannot_be_sent_is_the_callers_mistake(method: str, target: str, fields: Any) -> None:
    with pytest.raises(LocalError, match=r"^this request cannot be sent: "):
        ClientWire().request(method, target, fields)


def test_a_wire_of_the_client_has_one_request() -> None:
    client = asked()
    with pytest.raises(LocalError):
        client.request("GET", "/", [HOST])


# -- responses, as a client reads them ---------------------------------------------------------------------------------


@cut_both_ways
def test_a_response_of_an_old_server_is_read(cut: Cut) -> None:
    client = asked()
    assert events(client, cut(b"HTTP/1.0 200\r\nServer: old\r\n\r\nhello")) == [
        ResponseHead(200, "", Headers([("Server", "old")]), "1.0"),
        b"hello",
    ]


@cut_both_ways
def test_a_reason_and_fields_come_as_they_are(cut: Cut) -> None:
    client = asked()
    data = b"HTTP/1.1 404 Gef\xe4llt nicht\r\nx-CASE: \xe9\r\nContent-Length: 0\r\n\r\n"
    expected = ResponseHead(404, "Gef\xe4llt nicht", Headers([("x-CASE", "\xe9"), ("Content-Length", "0")]), "1.1")
    assert events(client, cut(data)) == [expected, END]


@cut_both_ways
def test_trailers_of_a_response(cut: Cut) -> None:
    data = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX: y\r\n\r\n"
    assert events(asked(), cut(data))[1:] == [b"hi", End(Headers([X]))]


@cut_both_ways
@pytest.mark.parametrize(
    "data",
    [b"\r\n", b"HTTP/1.1 20 OK\r\n\r\n", b"HTTP/1.1 abc\r\n\r\n", b"SSH-2.0-x\r\n\r\n", b"\x15\x03\x01\x00\x02",
     b"HTTP/1.1 200 OK\r\nX\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
     b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n"],
)  # fmt: skip
def test_what_is_no_response_is_the_servers_mistake(data: bytes, cut: Cut) -> None:
    with pytest.raises(ProtocolError):
        events(asked(), cut(data))


def test_a_client_has_a_limit_for_a_head_that_does_not_end() -> None:
    client = ClientWire(max_head=64)
    client.request("GET", "/", [HOST])
    with pytest.raises(HeadTooLarge):
        events(client, [b"HTTP/1.1 200 OK\r\nX: " + b"x" * 64])


# -- frames ------------------------------------------------------------------------------------------------------------


def test_an_empty_payload_makes_no_frame() -> None:
    assert chunked(b"") == b""
    assert until_close(b"") == b""


def test_the_size_of_a_chunk_is_hexadecimal_and_counts_bytes() -> None:
    assert chunked(b"x") == b"1\r\nx\r\n"
    assert chunked(b"x" * 10) == b"a\r\nxxxxxxxxxx\r\n"
    assert chunked(b"x" * 255)[:4] == b"ff\r\n"
    assert chunked(b"x" * 65536)[:7] == b"10000\r\n"
    assert chunked("是".encode()) == b"3\r\n\xe6\x98\xaf\r\n"


@given(payloads=st.lists(st.binary(max_size=300)), version=st.sampled_from(["1.1", "1.0"]))
def test_frames_are_what_h11_sends_and_the_whole_stream_too(payloads: list[bytes], version: str) -> None:
    request = f"GET / HTTP/{version}\r\nHost: a\r\n\r\n".encode()
    server = received(request)
    sent, frame = server.start(server.prepare(200, [X]))
    plain = h11.Connection(h11.SERVER)
    plain.receive_data(request)
    plain.next_event()
    expected = plain.send(h11.Response(status_code=200, headers=[X], reason=b"OK"))
    assert sent == expected
    for payload in payloads:
        framed, by_h11 = frame(payload), plain.send(h11.Data(data=payload))
        assert framed == by_h11
        sent += framed
        expected += by_h11
    sent += server.end()
    assert sent == expected + plain.send(h11.EndOfMessage())
    client = asked()
    client.feed(sent)
    client.feed(b"")
    events_ = []
    while (event := client.receive()) is not CLOSED:
        events_.append(event)
    assert b"".join(event.data for event in events_ if isinstance(event, Data)) == b"".join(payloads)
    assert events_[-1] == END


@given(payload=st.binary(max_size=70_000))
def test_a_frame_is_one_chunk(payload: bytes) -> None:
    client = asked()
    client.feed(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(payload) + b"0\r\n\r\n")
    client.receive()
    if payload:
        assert client.receive() == Data(payload, chunk_start=True, chunk_end=True)
    assert client.receive() == END


# -- the shadow, which the other test modules rely on ------------------------------------------------------------------


class Misframing(ServerWire):
    """Frames what h11 would not."""

    def start(self, head: Any) -> tuple[bytes, Frame]:
        data, _ = super().start(head)
        return data, lambda payload: b"%X\r\n%b\r\n" % (len(payload), payload)


class Misheading(ServerWire):
    def start(self, head: Any) -> tuple[bytes, Frame]:
        data, frame = super().start(head)
        return data.replace(b"X: y", b"x: y"), frame


class Unaware(ServerWire):
    """Frames whatever it is given."""

    def start(self, head: Any) -> tuple[bytes, Frame]:
        data, _ = super().start(head)
        return data, chunked


class Misending(ServerWire):
    def end(self) -> bytes:
        return super().end() + b"\r\n"


def streamed(server: ServerWire, *payloads: bytes, request: bytes = GET) -> None:
    server.feed(request)
    server.receive()
    _, frame = server.start(server.prepare(200, [X]))
    for payload in payloads:
        frame(payload)
    server.end()


@pytest.fixture
def wires() -> type[ServerWire]:
    """A class of wires of this test's own, so that its differences are not the whole suite's."""

    class Own(ServerWire):
        pass

    return Own


@pytest.mark.parametrize(
    "request_bytes", [GET, GET_1_0, HEAD, POST + b"Connection: close\r\nContent-Length: 5\r\n\r\n"]
)
def test_the_shadow_agrees_with_streams_as_they_are(wires: type[ServerWire], request_bytes: bytes) -> None:
    with shadowed(wires):
        payloads = [] if request_bytes is HEAD else [b"hello", b"", b"x" * 20]
        streamed(wires(), *payloads, request=request_bytes)


@pytest.mark.parametrize(
    ("wrong", "difference"),
    [
        (Misframing, r"frame: b'C\r\nhello, world\r\n', but h11 sends b'c\r\nhello, world\r\n'"),
        (
            Misheading,
            r"head: b'HTTP/1.1 200 OK\r\nx: y\r\nTransfer-Encoding: chunked\r\n\r\n', "
            r"but h11 sends b'HTTP/1.1 200 OK\r\nX: y\r\nTransfer-Encoding: chunked\r\n\r\n'",
        ),
        (Misending, r"end: b'0\r\n\r\n\r\n', but h11 sends b'0\r\n\r\n'"),
    ],
)
def test_the_shadow_tells_each_difference_at_the_end(wrong: type[ServerWire], difference: str) -> None:
    reached = False
    with pytest.raises(AssertionError) as caught, shadowed(wrong):
        streamed(wrong(), b"hello, world")
        reached = True
    assert reached, "not in the midst of it, where a server would catch it"
    assert str(caught.value) == difference


def test_the_shadow_tells_data_where_none_may_be() -> None:
    with pytest.raises(AssertionError, match=r"^frame: b'5\\r\\nhello\\r\\n', but h11 refuses it"), shadowed(Unaware):
        streamed(Unaware(), b"hello", request=HEAD)


def test_the_shadow_leaves_nothing_behind(wires: type[ServerWire]) -> None:
    before = wires.receive, wires.start, wires.end
    with shadowed(wires):
        assert wires.start is not before[1]
    assert (wires.receive, wires.start, wires.end) == before
