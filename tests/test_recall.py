"""The wire that recalls what h11 said before, beside h11 itself and beside the wire that asks it each time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import cycle, repeat
from typing import Any

import h11
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rawstream.errors import AnswerError, LocalError, RemoteError
from rawstream.framing import CLOSED, NEED_DATA, Data, End
from rawstream.messages import RequestHead
from rawstream.recall import RecallingWire
from rawstream.wire import ServerWire

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
GET_1_0 = b"GET / HTTP/1.0\r\nHost: a\r\n\r\n"
HEAD = b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
X = ("X", "y")


def received(data: bytes) -> RecallingWire:
    """A server's side that has received the head of `data`."""
    server = RecallingWire()
    server.feed(data)
    assert isinstance(server.receive(), RequestHead)
    return server


# -- answers that were given before ------------------------------------------------------------------------------------

TO_GET = b" / HTTP/1.1\r\nHost: a\r\n"
BY_METHOD = [method + TO_GET + b"\r\n" for method in (b"GET", b"HEAD", b"POST", b"DELETE", b"OPTIONS")]
BY_FIELD = [
    b"GET" + TO_GET + field + b"\r\n\r\n"
    for field in (
        b"Connection: keep-alive", b"connection: Keep-Alive", b"Connection: close", b"Connection: keep-alive, close",
        b"Connection: x", b"Connection: upgrade\r\nUpgrade: websocket", b"Upgrade: h2c", b"Content-Length: 0",
        b"Expect: 100-continue", b"Expect: 100-continue\r\nContent-Length: 0",
        b"Transfer-Encoding: chunked\r\n\r\n0",
    )
]  # fmt: skip
BY_VERSION = [GET_1_0, b"GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n", GET.replace(b"1.1", b"1.2")]
ANSWERS: list[tuple[int, list[tuple[str, str]], bytes]] = [
    (200, [X], b"hello"),
    (200, [X], b""),
    (200, [("Connection", "close")], b"hello"),
    (200, [("Content-Length", "5")], b"hello"),
    (204, [X], b""),
    (304, [("ETag", '"a"')], b""),
    (500, [("connection", "x, Close")], b"no"),
]


def as_h11_has_it(request: bytes, status: int, fields: list[tuple[str, str]], body: bytes) -> tuple[bytes, bool]:
    """What h11 by itself answers, and whether it would take another request."""
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(request)
    asked = connection.next_event()
    assert isinstance(asked, h11.Request)
    assert type(connection.next_event()) is h11.EndOfMessage
    if status not in (204, 304):
        fields = [*fields, ("Content-Length", str(len(body)))]
    reason = {200: b"OK", 204: b"No Content", 304: b"Not Modified", 500: b"Internal Server Error"}[status]
    sent = connection.send(h11.Response(status_code=status, headers=fields, reason=reason))
    if body and asked.method != b"HEAD":
        sent += connection.send(h11.Data(data=body))
    sent += connection.send(h11.EndOfMessage())
    return sent, connection.our_state is connection.their_state is h11.DONE


@pytest.mark.parametrize("answer", ANSWERS, ids=lambda answer: f"{answer[0]} {answer[1][0][0]} {len(answer[2])}")
@pytest.mark.parametrize("request_", [*BY_METHOD, *BY_FIELD, *BY_VERSION])
def test_who_is_answered_as_others_were_is_answered_as_by_h11(
    request_: bytes, answer: tuple[int, list[tuple[str, str]], bytes]
) -> None:
    for before in (GET, HEAD, request_):
        received(before).respond(*answer)
    server = received(request_ + b"GET")
    while not server.request_ended:
        assert isinstance(server.receive(), End)
    assert (server.respond(*answer), server.reusable) == as_h11_has_it(request_, *answer)
    assert not server.answerable
    assert server.request_ended


def test_a_head_that_was_sent_before_is_not_written_again(monkeypatch: pytest.MonkeyPatch) -> None:
    for before in (GET, HEAD):
        received(before).respond(200, [("X", "again")], b"hello")
    monkeypatch.setattr(h11.Connection, "send", lambda *_: pytest.fail("written again"))
    expected = b"HTTP/1.1 200 OK\r\nX: again\r\nContent-Length: 5\r\n\r\n"
    assert received(GET).respond(200, [("X", "again")], b"world") == expected + b"world"
    assert received(HEAD).respond(200, [("X", "again")], b"world") == expected


def test_requests_that_came_together_are_answered_one_by_one() -> None:
    server = received(GET + HEAD + GET + CHUNKED + b"2\r\nhi\r\n0\r\n\r\n" + GET)
    answers = [server.respond(200, [X], b"a")]
    for body in (b"b", b"c", b"d", b"e"):
        assert server.reusable
        server.next_cycle()
        assert not server.reusable
        assert server.answerable
        assert isinstance(server.receive(), RequestHead)
        while not server.request_ended:
            assert isinstance(server.receive(), Data | End)
        answers.append(server.respond(200, [X], body))
    fields = b"HTTP/1.1 200 OK\r\nX: y\r\nContent-Length: 1\r\n\r\n"
    assert answers == [fields + b"a", fields, fields + b"c", fields + b"d", fields + b"e"]


def test_an_answer_that_was_given_is_not_given_twice() -> None:
    for _ in range(2):
        server = received(GET)
        server.respond(200, [X], b"once")
        assert server.reusable
        with pytest.raises((h11.LocalProtocolError, LocalError)):
            server.respond(200, [X], b"twice")
        assert not server.reusable
        assert not server.answerable


def test_a_streams_head_that_was_sent_before_is_not_written_again() -> None:
    first = received(GET)
    head, _ = first.start(first.prepare(200, [("X", "stream")]))  # and it has not ended
    server = received(GET)
    data, frame = server.start(server.prepare(200, [("X", "stream")]))
    assert data == head == b"HTTP/1.1 200 OK\r\nX: stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert frame(b"hello") == b"5\r\nhello\r\n"
    assert not server.answerable
    assert not server.reusable
    assert server.end() == b"0\r\n\r\n"
    assert server.reusable
    assert server._h11.our_state is h11.SEND_RESPONSE, "it was not told"


def test_fields_that_are_none_are_refused_as_ever() -> None:
    fields: Any = [("X", ["y"])]
    for _ in range(2):
        with pytest.raises(AnswerError, match="pairs of str"):
            received(GET).respond(200, fields, b"")


# -- requests that were here before ------------------------------------------------------------------------------------


def known(request: bytes = GET) -> RecallingWire:
    """A server's side that has answered this request, and waits for the next."""
    server = received(request)
    server.respond(200, [X], b"hello")
    server.next_cycle()
    return server


def test_h11_is_not_given_the_same_request_again(monkeypatch: pytest.MonkeyPatch) -> None:
    server, other = known(), known(HEAD)
    monkeypatch.setattr(h11.Connection, "receive_data", lambda *_: pytest.fail("given again"))
    for _ in range(3):
        for side, asked, body in ((server, GET, b"hello"), (other, HEAD, b"")):
            assert not side.begun
            side.feed(asked)
            assert side.begun
            event = side.receive()
            assert isinstance(event, RequestHead)
            assert (event.method.encode(), event.target) == (asked[: asked.index(b" ")], "/")
            assert side.request_ended
            assert side.answerable
            assert side.respond(200, [X], b"hello").partition(b"\r\n\r\n")[2] == body
            assert not side.answerable
            assert side.reusable
            side.next_cycle()


@pytest.mark.parametrize("first", [1, 3, 10, len(GET) - 2])
def test_a_request_that_came_in_pieces_is_not_taken_for_its_first_piece(first: int) -> None:
    server = RecallingWire()
    server.feed(GET[:first])
    assert server.receive() is NEED_DATA
    server.feed(GET[first:])
    assert isinstance(server.receive(), RequestHead)
    server.respond(200, [X], b"hello")
    server.next_cycle()
    server.feed(GET[:first])
    assert server.receive() is NEED_DATA
    server.feed(GET[first:])
    assert isinstance(server.receive(), RequestHead)


def test_what_comes_behind_a_request_that_came_again_is_not_lost() -> None:
    server = known()
    server.feed(GET)
    server.feed(HEAD)
    for method in ("GET", "HEAD"):
        event = server.receive()
        assert isinstance(event, RequestHead)
        assert event.method == method
        server.respond(200, [X], b"hello")
        server.next_cycle()
    assert server.receive() is NEED_DATA


def test_the_end_of_a_request_that_came_again_can_be_received() -> None:
    for server in (known(), RecallingWire()):
        server.feed(GET)
        assert isinstance(server.receive(), RequestHead)
        assert server.receive() == End()
        assert server.request_ended
        server.feed(b"")
        assert server.respond(200, [X], b"received").endswith(b"received")
        assert server.reusable


def test_what_one_request_said_cannot_be_changed_for_the_next() -> None:
    server = known()
    server.feed(GET)
    event = server.receive()
    assert isinstance(event, RequestHead)
    with pytest.raises(AttributeError):
        event.headers.pairs = ()  # type: ignore[misc]  # which is what is tested
    with pytest.raises(AttributeError):
        event.path = "/admin"  # type: ignore[misc]


def test_of_a_large_head_and_while_a_stream_goes_on_nothing_is_kept() -> None:
    large = GET[:-2] + b"X: " + b"x" * 1000 + b"\r\n\r\n"
    assert known(large)._known is None
    server = known()
    assert server._known is not None
    server.feed(GET)
    server.receive()
    server.start(server.prepare(200, []))
    assert server._known is None


# -- the same as without recall ----------------------------------------------------------------------------------------

REQUESTS = [
    GET, HEAD, GET_1_0, GET.replace(b"/ ", b"/a?b=c "), GET.replace(b"/ ", b"http://b/ "),
    b"\r\n" + GET, b"\r\n\r\n" + GET, b"\r" + GET, b"\r\n\r" + GET, b"\n" + GET,
    GET[:-2] + b"Connection: keep-alive\r\n\r\n", GET[:-2] + b"Connection: close\r\n\r\n",
    GET[:-2] + b"Content-Length: 0\r\n\r\n", GET[:-2] + b"Expect: 100-continue\r\n\r\n",
    GET[:-2] + b"X:y\r\n\r\n", GET[:-2] + b"X\r\n\r\n", GET[:-2] + b"X: " + b"x" * 1000 + b"\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\n\r\n", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi",
    CHUNKED + b"2\r\nhi\r\n0\r\n\r\n", CHUNKED + b"0\r\n\r\n", CHUNKED[:-2] + b"\r\nno\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", GET[:3], GET[3:], b"\r\n", b"",
]  # fmt: skip
Answers = tuple[str, int, tuple[tuple[str, str], ...], bytes]
WAYS = ("twice", "end", "a stream behind it", "stream", "stream, ended twice", "stream, and an answer in it")
answers = st.tuples(
    st.sampled_from(("respond",) * 4 + ("stream",) * 2 + WAYS),
    st.sampled_from([200, 200, 200, 204, 304, 500]),
    st.sampled_from([(), (), (X,), (("Connection", "close"),), (("Content-Length", "5"),)]),
    st.sampled_from([b"hello", b"hello", b"", b"hi"]),
)


@st.composite
def pieces(draw: st.DrawFn) -> list[bytes]:
    """What comes on a connection: some requests, each several times, whole, cut, or two together."""
    some = draw(st.lists(st.sampled_from(REQUESTS), min_size=1, max_size=3))
    came: list[bytes] = []
    for request, place in draw(st.lists(st.tuples(st.sampled_from(some), st.integers(-3, 30)), max_size=8)):
        if place == -1 and came:
            came[-1] += request
        elif place < 1:
            came.append(request)
        else:
            came += [request[:place], request[place:]]
    return [piece for piece in came if piece]


def conversation(wire: ServerWire, came: list[bytes], given: list[Answers], eager: list[int]) -> list[Any]:
    """All that the caller of a wire sees who answers each request; `eager`: pieces that come before each answer."""
    seen: list[Any] = []
    todo = iter([*came, b""])
    for answer, early in zip(cycle(given), cycle(eager), strict=False):
        try:
            while (event := wire.receive()) is NEED_DATA:
                seen.append(("begun", wire.begun))
                wire.feed(next(todo))
            seen.append(event)
            if event is CLOSED:
                return seen
            body = b""
            while not wire.request_ended:
                if go_ahead := wire.go_ahead():
                    seen.append(go_ahead)
                if (event := wire.receive()) is NEED_DATA:
                    wire.feed(next(todo))
                elif isinstance(event, Data):
                    body += event.data
                else:
                    seen.append((body, event)) if event != End() or body else None
        except StopIteration:
            return [*seen, "no more"]
        except RemoteError as error:
            seen.append((type(error), error.status, str(error)))
            seen.append((wire.accept, wire.line, wire.answerable, wire.begun))
            return [*seen, wire.respond(error.status, [X], b"no"), wire.reusable]
        for piece in [piece for _, piece in zip(range(early), todo, strict=False)]:
            wire.feed(piece)
        seen.append((wire.begun, wire.request_ended, wire.answerable, wire.reusable))
        seen += answered(wire, *answer)
        seen.append((wire.begun, wire.request_ended, wire.answerable, wire.reusable))
        if not wire.reusable:
            return seen
        wire.next_cycle()
        seen.append((wire.request_ended, wire.answerable, wire.reusable))
    return seen


def answered(
    wire: ServerWire, way: str, status: int, fields: tuple[tuple[str, str], ...], body: bytes
) -> Iterator[Any]:
    """What comes out when the request is answered in this way."""
    calls: list[Callable[[], Any]] = [lambda: wire.respond_apart(status, fields, body)]
    if way.startswith("stream"):
        calls = [lambda: wire.start(wire.prepare(status, fields))[0], wire.end]
    if way == "stream, ended twice":
        calls.append(wire.end)
    elif way == "stream, and an answer in it":
        calls.insert(1, lambda: wire.respond(status, fields, body))
    elif way == "twice":
        calls *= 2
    elif way == "end":
        calls = [wire.end]
    elif way == "a stream behind it":
        calls += [lambda: wire.start(wire.prepare(200, ()))[0]]
    for call in calls:
        try:
            yield call()
        except (h11.LocalProtocolError, AnswerError, LocalError) as error:
            yield "an answer that cannot be", isinstance(error, AnswerError)


@given(pieces(), st.lists(answers, min_size=1, max_size=3), st.lists(st.integers(0, 2), min_size=1, max_size=3))
@example([GET] * 3, [("respond", 200, (), b"hello")], [0])
@example([HEAD, HEAD, GET[:-2] + b"X\r\n\r\n"], [("respond", 200, (), b"hello")], [0])
@example([HEAD, HEAD, GET], [("respond", 204, (), b"hello")], [0])
@example([GET, b"\r", GET], [("respond", 200, (), b"hello")], [0])
@example([GET + GET, GET], [("respond", 200, (), b"hello")], [1, 0])
@example([GET, GET], [("stream", 200, (("Connection", "close"),), b"")], [0])
@example([GET, GET, GET], [("respond", 200, (), b"hello")], [1])
@settings(max_examples=1500, derandomize=True, deadline=None)
def test_a_conversation_is_the_same_with_and_without_recall(
    came: list[bytes], given: list[Answers], eager: list[int]
) -> None:
    expected = conversation(ServerWire(), came, given, eager)
    for _ in repeat(None, 2):  # the second time, others were given the same answers
        assert conversation(RecallingWire(), came, given, eager) == expected
