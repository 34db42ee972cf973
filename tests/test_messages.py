"""The values between a connection and a handler."""

import asyncio
import dataclasses
import math
import re
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Any

import pytest

from rawstream.errors import AnswerError, BodyTooLarge, HTTPError
from rawstream.messages import (
    Every,
    Headers,
    Query,
    Request,
    RequestHead,
    Response,
    ResponseHead,
    Stream,
    pairs,
)


class Pieces:
    """A request's body in pieces; an exception among them is raised in its turn, a future is awaited."""

    def __init__(self, *pieces: Any) -> None:
        self.pieces = [*pieces]
        self.trailers = Headers()
        self.waits = asyncio.Event()

    async def read(self) -> bytes:
        if not self.pieces:
            self.trailers = Headers([("Digest", "abc")])
            return b""
        piece = self.pieces.pop(0)
        if isinstance(piece, Exception):
            raise piece
        if isinstance(piece, asyncio.Future):
            self.waits.set()
            piece = await piece
        assert isinstance(piece, bytes)
        return piece


def request(*pieces: Any, path: str = "/", query: str = "", headers: Headers | None = None) -> Request:
    head = RequestHead("POST", path, path, query, headers or Headers(), "1.0")
    return Request(head, ("127.0.0.1", 5), "id-1", asyncio.Event(), Pieces(*pieces))


# -- headers and queries -----------------------------------------------------------------------------------------------

FIELDS = [("Accept", "text/plain"), ("X-One", "1"), ("accept", "text/html"), ("ACCEPT", "*/*")]


def test_header_names_compare_without_case() -> None:
    headers = Headers(FIELDS)
    for name in ("x-one", "X-One", "X-ONE"):
        assert headers[name] == headers.get(name) == "1"
        assert name in headers
    assert "x-two" not in headers
    assert headers.get("x-two") is None


def test_a_repeated_header_is_joined_and_each_of_it_can_be_had() -> None:
    headers = Headers(FIELDS)
    assert headers["accept"] == "text/plain, text/html, */*"
    assert headers.get_all("Accept") == ["text/plain", "text/html", "*/*"]
    assert headers.get_all("X-Two") == []


def test_headers_are_iterated_in_lower_case_each_name_once() -> None:
    headers = Headers(FIELDS)
    assert list(headers) == ["accept", "x-one"]
    assert len(headers) == 2
    assert dict(headers) == {"accept": "text/plain, text/html, */*", "x-one": "1"}


def test_headers_keep_the_pairs_as_they_came() -> None:
    headers = Headers(iter(FIELDS))
    assert headers.pairs == tuple(FIELDS)
    assert repr(Headers(FIELDS[:2])) == "Headers([('Accept', 'text/plain'), ('X-One', '1')])"


def test_a_header_that_is_not_there_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        Headers(FIELDS)["x-two"]


def test_what_get_all_gave_may_be_changed() -> None:
    headers = Headers(FIELDS)
    headers.get_all("accept").clear()
    assert headers["accept"] == "text/plain, text/html, */*"


def test_a_name_that_is_no_text_is_not_there() -> None:
    assert 5 not in Headers(FIELDS)  # type: ignore[comparison-overlap]
    assert None not in Query([("a", "1")])


def test_headers_and_queries_are_values() -> None:
    assert Headers(FIELDS) == Headers(tuple(FIELDS))
    assert hash(Headers(FIELDS)) == hash(Headers(tuple(FIELDS)))
    assert Headers(FIELDS) != Headers(FIELDS[:1])
    assert Headers([("a", "1")]) != Query([("a", "1")])
    assert Headers([("a", "1")]) != {"a": "1"}
    assert Headers() == Headers([])
    assert not Headers()


def test_a_query_has_the_last_value_of_a_name_and_all_of_them() -> None:
    query = Query([("a", "1"), ("A", "2"), ("a", "3")])
    assert query["a"] == "3"
    assert query.get_all("a") == ["1", "3"]
    assert list(query) == ["a", "A"]
    assert len(query) == 2
    assert query.get("b", "none") == "none"
    assert repr(query) == "Query([('a', '1'), ('A', '2'), ('a', '3')])"
    with pytest.raises(KeyError):
        query["b"]


@pytest.mark.parametrize(
    "given",
    [
        [("A", "1"), ("b", "2")],
        (("A", "1"), ("b", "2")),
        {"A": "1", "b": "2"},
        iter([("A", "1"), ("b", "2")]),
        Headers([("A", "1"), ("b", "2")]),
    ],
    ids=["list", "tuple", "mapping", "iterator", "Headers"],
)
def test_header_fields_can_be_given_in_many_ways(given: Any) -> None:
    assert pairs(given) == (("A", "1"), ("b", "2"))


def test_headers_as_header_fields_keep_what_is_repeated() -> None:
    assert pairs(Headers(FIELDS)) == tuple(FIELDS)


def test_the_pairs_of_query_are_not_joined() -> None:
    assert Query([("a", "1"), ("a", "2")]).pairs == (("a", "1"), ("a", "2"))


# -- a request ---------------------------------------------------------------------------------------------------------


def test_a_request_shows_what_its_head_said() -> None:
    headers = Headers([("Host", "example.org")])
    head = RequestHead("DELETE", "/a?b=c", "/a", "b=c", headers, "1.0")
    closing = asyncio.Event()
    asked = Request(head, None, "id-1", closing, Pieces())
    assert (asked.method, asked.path, asked.http_version) == ("DELETE", "/a", "1.0")
    assert asked.query == Query([("b", "c")])
    assert asked.headers is headers
    assert (asked.client, asked.id, asked.closing, asked.params) == (None, "id-1", closing, {})
    assert asked.scheme == "http"
    assert Request(head, None, "id-1", closing, Pieces(), scheme="https").scheme == "https"


@pytest.mark.parametrize(
    ("wire", "path"),
    [
        ("/", "/"),
        ("/a%20b", "/a b"),
        ("/%E8%BF%99", "/这"),
        ("/a+b", "/a+b"),
        ("/a%2Fb", "/a/b"),
        ("/%FF", "/\ufffd"),
        ("/%", "/%"),
        ("*", "*"),
    ],
)
def test_the_path_is_percent_decoded(wire: str, path: str) -> None:
    assert request(path=wire).path == path


@pytest.mark.parametrize(
    ("wire", "query"),
    [
        ("", []),
        ("a=1", [("a", "1")]),
        ("a=1&b=2&a=3", [("a", "1"), ("b", "2"), ("a", "3")]),
        ("a", [("a", "")]),
        ("a=&=b&&c", [("a", ""), ("", "b"), ("c", "")]),
        ("a=x+y%2Bz", [("a", "x y+z")]),
        ("%E8%BF%99=%26", [("这", "&")]),
        ("a=1;b=2", [("a", "1;b=2")]),
        ("a=b=c", [("a", "b=c")]),
        ("a=%FF%", [("a", "\ufffd%")]),
    ],
)
def test_the_query_is_percent_decoded(wire: str, query: list[tuple[str, str]]) -> None:
    assert request(query=wire).query == Query(query)


@pytest.mark.parametrize(
    ("field", "last"),
    [
        ("7", "7"),
        ("", ""),
        ("1-é".encode().decode("latin-1"), "1-é"),
        ("这".encode().decode("latin-1"), "这"),
        ("\xff", "\ufffd"),
    ],
)
def test_the_last_event_id_is_utf_8(field: str, last: str) -> None:
    """Header fields are read as Latin-1, but EventSource sends UTF-8."""
    assert request(headers=Headers([("Last-Event-ID", field)])).last_event_id == last


def test_a_new_client_has_no_last_event_id() -> None:
    assert request().last_event_id is None


def test_requests_are_told_apart_and_frozen() -> None:
    first, second = request(), request()
    assert first != second
    assert len({first, second, first}) == 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        first.id = "other"  # type: ignore[misc]


# -- a request's body --------------------------------------------------------------------------------------------------


async def test_the_body_comes_in_pieces() -> None:
    asked = request(b"a", b"bc", b"d")
    assert [piece async for piece in asked.stream()] == [b"a", b"bc", b"d"]
    assert [piece async for piece in asked.stream()] == []


@pytest.mark.parametrize("pieces", [(), (b"abc",), (b"a", b"bc"), (b"a", b"b", b"c")])
async def test_the_whole_body_can_be_asked_for_again(pieces: tuple[bytes, ...]) -> None:
    asked = request(*pieces)
    whole = b"".join(pieces)
    assert await asked.body() == whole
    assert await asked.body() == whole
    assert await asked.text() == whole.decode()


async def test_a_body_that_has_come_is_not_asked_for_again() -> None:
    """What comes after it on the connection belongs to another request."""
    asked = request(b"a", b"b", b"", b"another request's")
    assert [await asked.body(), await asked.body(), await asked.text()] == [b"ab", b"ab", "ab"]


async def test_the_rest_of_a_body_that_was_begun_in_pieces() -> None:
    asked = request(b"a", b"b", b"c")
    stream = asked.stream()
    assert await anext(stream) == b"a"
    assert await asked.body() == b"bc"
    assert [piece async for piece in stream] == []


async def test_who_is_cancelled_and_asks_for_the_body_again_misses_nothing() -> None:
    late: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
    body = Pieces(b"a", b"b", late, b"c")
    asked = dataclasses.replace(request(), _body=body)
    first = asyncio.create_task(asked.body())
    await body.waits.wait()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert await asked.body() == b"abc"


async def test_what_the_connection_raises_comes_out_of_each_way_to_read() -> None:
    for read in (Request.body, Request.text, Request.json):
        with pytest.raises(BodyTooLarge, match="too much"):
            await read(request(b"a", BodyTooLarge("too much")))
    pieces: list[bytes] = []
    with pytest.raises(BodyTooLarge, match="too much"):
        async for piece in request(b"a", BodyTooLarge("too much")).stream():
            pieces.append(piece)  # noqa: PERF401  # a comprehension would lose those before the error
    assert pieces == [b"a"]


async def test_trailers_are_there_when_the_body_has_been_read() -> None:
    asked = request(b"a")
    assert asked.trailers == Headers()
    await asked.body()
    assert asked.trailers == Headers([("Digest", "abc")])


async def test_text_is_utf_8_however_the_body_is_cut() -> None:
    data = "这是".encode()
    assert await request(*[data[at : at + 1] for at in range(len(data))]).text() == "这是"


async def test_a_body_that_is_not_utf_8_is_a_400_that_says_where() -> None:
    for read in (Request.text, Request.json):
        with pytest.raises(HTTPError) as caught:
            await read(request(b'"ab', b'\xff"'))
        assert (caught.value.status, caught.value.detail) == (400, "the body is not UTF-8 at byte 3")


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b"null", None),
        (b' {"a": [1, 2.5, true]}\n', {"a": [1, 2.5, True]}),
        (b'"\xe8\xbf\x99\\u662f"', "这是"),
        (b"-0", 0),
    ],
)
async def test_json(body: bytes, value: object) -> None:
    assert await request(body).json() == value


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{",
        b"{'a': 1}",
        b"[1,]",
        b"1 2",
        b"nul",
        b'"\n"',
        b"NaN",
        b"[Infinity]",
        b'{"a": -Infinity}',
        b"\xef\xbb\xbf{}",
    ],
)
async def test_a_body_that_is_not_json_is_a_400_that_says_why(body: bytes) -> None:
    with pytest.raises(HTTPError, match=r"^the body is not JSON: .") as caught:
        await request(body).json()
    assert caught.value.status == 400
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize(
    "body",
    [
        b"1" * 9000,
        b'{"a": [-%b]}' % (b"1" * 9000),
        b"[" * 200_000,
        b"[" * 200_000 + b"]" * 200_000,
        b'{"a":' * 200_000 + b"1" + b"}" * 200_000,
    ],
    ids=["digits", "digits in an object", "open arrays", "arrays", "objects"],
)
async def test_json_that_is_too_much_is_a_400_that_does_not_speak_of_python(body: bytes) -> None:
    """What Python says of it names its own limits, and the functions that change them."""
    with pytest.raises(HTTPError) as caught:
        await request(body).json()
    assert caught.value.status == 400
    assert re.search(r"nested|number", caught.value.public)
    assert not re.search(r"(?i)python|recursion|sys|int_|maximum|exceed", caught.value.public)
    assert caught.value.__cause__ is not None


# -- a response --------------------------------------------------------------------------------------------------------


def test_a_response_is_a_frozen_value() -> None:
    assert Response() == Response(200, (), b"")
    assert Response(404, [("A", "1")], b"x") == Response(status=404, headers=[("A", "1")], body=b"x")
    with pytest.raises(dataclasses.FrozenInstanceError):
        Response().status = 404  # type: ignore[misc]


@pytest.mark.parametrize("status", [200, 204, 304, 404, 599, HTTPStatus.NOT_FOUND])
def test_a_response_and_a_stream_take_these_statuses(status: int) -> None:
    assert Response(status).status == status
    assert Stream(Nothing(), status=status).status == status


@pytest.mark.parametrize("status", [100, 101, 199, 600, 0, -200, 200.0, "200", None, True, HTTPStatus.CONTINUE])
def test_a_response_and_a_stream_refuse_these(status: Any) -> None:
    words = r"a response's status is a whole number from 200 to 599, not "
    with pytest.raises(AnswerError, match=words):
        Response(status)
    with pytest.raises(AnswerError, match=words):
        Stream(Nothing(), status=status)


@pytest.mark.parametrize("body", ["text", None, bytearray(b"x"), {"a": 1}, 5])
def test_a_body_is_bytes(body: Any) -> None:
    with pytest.raises(
        AnswerError, match=rf"^a Response's body is bytes, not {type(body).__name__}; see Response.text"
    ):
        Response(200, (), body)


@pytest.mark.parametrize("status", [204, 304])
def test_some_statuses_have_no_body(status: int) -> None:
    assert Response(status).body == b""
    with pytest.raises(AnswerError, match=rf"^a response with status {status} has no body"):
        Response(status, (), b"x")


def test_a_response_of_text() -> None:
    plain = ("Content-Type", "text/plain; charset=utf-8")
    assert Response.text("这") == Response(200, [plain], b"\xe8\xbf\x99")
    assert Response.text("x", 404, {"A": "1"}) == Response(404, [plain, ("A", "1")], b"x")


def test_a_response_of_json() -> None:
    kind = ("Content-Type", "application/json; charset=utf-8")
    value = {"这": [1, None, "é"]}
    assert Response.json(value) == Response(200, [kind], '{"这":[1,null,"é"]}'.encode())
    assert Response.json([], 201, [("A", "1")]) == Response(201, [kind, ("A", "1")], b"[]")


@pytest.mark.parametrize("name", ["Content-Type", "content-type"])
def test_a_content_type_of_ones_own_is_the_only_one(name: str) -> None:
    own = [(name, "text/html"), ("A", "1")]
    assert pairs(Response.text("x", headers=own).headers) == tuple(own)
    assert pairs(Response.json("x", headers=dict(own)).headers) == tuple(own)


@pytest.mark.parametrize("headers", [["Retry-After"], [("a", "b", "c")], [(1, "b")], 5, [None]])
def test_what_are_no_header_fields_are_refused_with_what_would_be_right(headers: Any) -> None:
    for make in (Response.text, Response.json):
        with pytest.raises(AnswerError, match=r"^a response's headers are pairs of str, or a mapping, not "):
            make("x", headers=headers)


@pytest.mark.parametrize("value", [math.nan, math.inf, {1}, b"x", object(), "\ud83d", {(1,): 2}])
def test_a_response_of_what_json_cannot_hold_is_an_error(value: object) -> None:
    with pytest.raises((TypeError, ValueError)):
        Response.json(value)


def test_a_response_head_is_a_value() -> None:
    head = ResponseHead(200, "OK", Headers([("A", "1")]), "1.1")
    assert head == ResponseHead(200, "OK", Headers([("A", "1")]), "1.1")
    assert head.headers["a"] == "1"


# -- a stream ----------------------------------------------------------------------------------------------------------


class Nothing:
    """An async iterator, and no generator."""

    def __aiter__(self) -> "Nothing":
        return self

    async def __anext__(self) -> int:
        raise StopAsyncIteration


async def one() -> AsyncIterator[int]:
    yield 1


def test_a_stream_takes_any_async_iterable_and_has_these_defaults() -> None:
    for iterator in (one(), Nothing()):
        stream = Stream(iterator)
        assert stream.iterator is iterator
        assert (stream.format, stream.flush, stream.heartbeat) == (None, None, 15.0)
        assert (stream.head, stream.headers, stream.status) == (None, (), 200)
        assert stream.gzip is False


@pytest.mark.parametrize("iterator", [one, [1, 2], iter("ab"), "ab", None, 5])
def test_what_is_no_async_iterator_is_refused(iterator: Any) -> None:
    with pytest.raises(AnswerError, match=rf"^a Stream takes an async iterator .*, not {type(iterator).__name__}$"):
        Stream(iterator)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("flush", [None, "item", Every(), Every(bytes=1, seconds=0.1)]),
        ("heartbeat", [None, 1, 0.5, 3600]),
        ("head", [None, "suspend", "item", 0, 0.0, 2.5, math.inf]),
        ("gzip", [True, False]),
    ],
)
def test_a_stream_takes_these_settings(name: str, values: list[Any]) -> None:
    for value in values:
        assert getattr(Stream(Nothing(), **{name: value}), name) == value


@pytest.mark.parametrize(
    ("name", "values", "words"),
    [
        ("flush", ["items", "", 0, 1, True, Every, ("item",)], r'flush is None, "item" or Every'),
        ("heartbeat", [0, -1, True, "15", math.nan, math.inf], r"heartbeat is a number of seconds above 0, or None"),
        ("head", ["now", -1, True, False, math.nan, [1], b"item"], r'head is None, "suspend", "item" or a number'),
    ],
)
def test_a_stream_refuses_these(name: str, values: list[Any], words: str) -> None:
    for value in values:
        with pytest.raises(AnswerError, match=rf"^{words}.*, not ") as caught:
            Stream(Nothing(), **{name: value})
        assert str(caught.value).endswith(f", not {value!r}")


def test_every_has_defaults_and_is_a_value() -> None:
    assert Every() == Every(bytes=65_536, seconds=0.05)
    assert Every(1, 2) == Every(bytes=1, seconds=2)


@pytest.mark.parametrize("value", [0, -1, 1.0, True, "1", None])
def test_every_takes_a_positive_number_of_bytes(value: Any) -> None:
    with pytest.raises(AnswerError, match=rf"^Every\(bytes=\) is a whole number, 1 or more, not {value!r}$"):
        Every(bytes=value)


@pytest.mark.parametrize("value", [0, -1, True, "1", None, math.nan])
def test_every_takes_a_positive_number_of_seconds(value: Any) -> None:
    with pytest.raises(AnswerError, match=rf"^Every\(seconds=\) is a number above 0, not {value!r}$"):
        Every(seconds=value)
