"""What is made of a body's bytes: unpacked, as text, lines, JSON, events. Each of them cut anywhere, in linear time."""

from __future__ import annotations

import gzip
import json
import random
import zlib
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rawstream import json_array
from rawstream.errors import ContentError, IncompleteResponse, ItemTooLarge, RemoteError, StreamFailed
from rawstream.inflate import unpack
from rawstream.items import EventData, Events, JsonLines, Lines, Reader, Text
from rawstream.json_array import JsonArray
from rawstream.sse import Event

pytestmark = pytest.mark.either_loop
steady = settings(max_examples=60, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
MUCH = 1 << 20


def read(reader: Reader[Any], pieces: Iterable[bytes]) -> list[Any]:
    """All that comes; an error is the last of it."""
    found: list[Any] = []
    try:
        for piece in pieces:
            found += reader.feed(piece)  # += takes what comes before an error too
        found += reader.end()
    except RemoteError as error:
        found.append(type(error))
    return found


def every_way(data: bytes) -> Iterable[list[bytes]]:
    yield [data]
    yield [data[at : at + 1] for at in range(len(data))]
    for place in range(1, len(data)):
        yield [data[:place], data[place:]]


def check(make: Callable[[], Reader[Any]], data: bytes, expected: list[Any]) -> None:
    for pieces in every_way(data):
        assert read(make(), pieces) == expected, pieces


# -- JSON arrays -------------------------------------------------------------------------------------------------------


def array() -> JsonArray:
    return JsonArray(MUCH)


texts = st.text(st.sampled_from('ab"\\[]{},:\n\u2028是😀'), max_size=6)
scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), texts)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3))


@given(items=st.lists(values, max_size=5), ascii=st.booleans(), indent=st.sampled_from([None, 1]))
@steady
def test_the_items_of_an_array_are_those_that_json_finds(items: list[Any], ascii: bool, indent: int | None) -> None:
    data = json.dumps(items, ensure_ascii=ascii, indent=indent).encode()
    assert read(array(), [data]) == items
    assert read(array(), [data[at : at + 1] for at in range(len(data))]) == items
    assert read(array(), [data[at : at + 7] for at in range(0, len(data), 7)]) == items


@given(
    items=st.lists(values, min_size=1, max_size=4),
    place=st.integers(0, 500),
    junk=st.sampled_from([*'[]{},:"\\ 1ex.-', ""]),
)
@steady
def test_what_is_no_json_is_an_error_however_it_is_cut(items: list[Any], place: int, junk: str) -> None:
    """The items before it come all the same."""
    text = json.dumps(items, ensure_ascii=False)
    place %= len(text)
    data = (text[:place] + junk + text[place + 1 :]).encode()
    whole = read(array(), [data])
    try:
        value = json.loads(data)
    except ValueError:
        assert whole[-1] is ContentError
    else:
        assert whole == (value if isinstance(value, list) else [value])
    assert read(array(), [data[at : at + 1] for at in range(len(data))]) == whole
    assert read(array(), [data[at : at + 5] for at in range(0, len(data), 5)]) == whole


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"[]", []),
        (b" \r\n[\t] \n", []),
        (b"\xef\xbb\xbf[1]", [1]),
        (b'{"a": [1]}', [{"a": [1]}]),
        (b" 12 ", [12]),
        (b"12", [12]),
        (b'"a"', ["a"]),
        (b"null", [None]),
        (b"", [ContentError]),
        (b"[", [ContentError]),
        (b"[1", [ContentError]),
        (b"[1,", [1, ContentError]),
        (b"[1,]", [1, ContentError]),
        (b"[,1]", [ContentError]),
        (b"[1 2]", [1, ContentError]),
        (b"[1],", [1, ContentError]),
        (b"[1][2]", [1, ContentError]),
        (b'[{"a":1}{"a":2}]', [{"a": 1}, ContentError]),
        (b"[1]x", [1, ContentError]),
        (b"{}{}", [{}, ContentError]),
        (b"]", [ContentError]),
        (b"[}", [ContentError]),
        (b'["a', [ContentError]),
        (b'["a\\', [ContentError]),
        (b'["\\x"]', [ContentError]),
        (b'["a\nb"]', [ContentError]),
        (b"[NaN]", [ContentError]),
        (b"[-Infinity]", [ContentError]),
        (b"[01]", [ContentError]),
        (b"[1.]", [ContentError]),
        (b"[1,\xff]", [1, ContentError]),
        (b'["\xe6\x98"]', [ContentError]),
        (b"[1]\xe6", [1, ContentError]),
        (b"<html>", [ContentError]),
    ],
)
def test_arrays_and_what_is_none(data: bytes, expected: list[Any]) -> None:
    check(array, data, expected)


@pytest.mark.parametrize("item", ['"a"', '{"a":[1,"]"]}', "[[]]", '""', '"\\""'])
def test_an_item_is_there_with_its_last_character(item: str) -> None:
    reader = array()
    assert [*reader.feed(f"[{item}".encode())] == [json.loads(item)]
    assert [*reader.feed(f",{item[:-1]}".encode())] == []
    assert [*reader.feed(item[-1].encode())] == [json.loads(item)]


@pytest.mark.parametrize("item", ["12", "1.5", "-1e3", "true", "null"])
def test_a_number_or_a_word_waits_for_what_follows(item: str) -> None:
    reader = array()
    assert [*reader.feed(f"[{item}".encode())] == []
    assert [*reader.feed(b",")] == [json.loads(item)]


def test_too_deep_and_too_long_is_an_error() -> None:
    check_once = [b"[" * 20_000, b"[" + b"[" * 10_000 + b"]" * 10_001, b"[" + b"1" * 10_000 + b"]"]
    for data in check_once:
        assert read(array(), [data]) == [ContentError]


def steps_of(pieces: list[bytes]) -> int:
    """How many characters are looked at, counted where it costs: in the search for items and their ends, and in
    parsing."""

    steps = 0

    def count(text: str, place: int = 0) -> None:
        nonlocal steps
        steps += len(text) - place

    class Extent(json_array.Extent):
        __slots__ = ()

        def feed(self, text: str, place: int = 0) -> int:
            count(text, place)
            return super().feed(text, place)

    class Decoder:
        def raw_decode(self, text: str, place: int) -> Any:
            count(text, place)
            return decoder.raw_decode(text, place)

        def decode(self, text: str) -> Any:
            count(text)
            return decoder.decode(text)

    class Pattern:
        def match(self, text: str, place: int) -> Any:
            count(text, place)
            return complete.match(text, place)

    decoder, complete = json_array.DECODER, json_array.COMPLETE
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_array, "Extent", Extent)
        patch.setattr(json_array, "DECODER", Decoder())
        patch.setattr(json_array, "COMPLETE", Pattern())
        read(array(), pieces)
    return steps


@pytest.mark.parametrize("item", ['"' + 'x\\"y' * 5000 + '"', '{"a":[' + '{"b":"c"},' * 2000 + "1]}"])
def test_a_large_item_in_small_pieces_is_looked_through_once(item: str) -> None:
    data = f"[{item}]".encode()
    for size in (10, 1000):
        pieces = [data[at : at + size] for at in range(0, len(data), size)]
        assert steps_of(pieces) < 2 * len(data) + 100 + 3 * size


def test_many_small_items_are_parsed_together() -> None:
    data = f"[{'1.5,' * 500}1]".encode()
    assert steps_of([data]) < 5 * len(data), "one by one, each would count all that it might look at"


def test_items_that_cannot_be_parsed_together_are_not_tried_so_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    tried, complete = [], json_array.COMPLETE

    class Pattern:
        def match(self, text: str, place: int) -> Any:
            tried.append(place)
            return complete.match(text, place)

    monkeypatch.setattr(json_array, "COMPLETE", Pattern())
    assert read(array(), [b"[" + b"1," * 500 + b",1]"]) == [1] * 500 + [ContentError]
    assert tried == [1]


@pytest.mark.parametrize("depth", range(1, 9))
def test_items_are_the_same_however_deep_they_are_and_however_many_come_together(depth: int) -> None:
    item = json.loads('{"a":[",]}",' * depth + "1" + "]}" * depth)
    items = [item, 1, "x,y", item, [], {}] * 40
    data = json.dumps(items, indent=depth % 2 or None).encode()
    assert read(array(), [data]) == items
    assert read(array(), [data[at : at + 700] for at in range(0, len(data), 700)]) == items


@pytest.mark.parametrize(
    ("text", "elements", "rest"),
    [
        ('1, "a]" ,{"a": [1,\n 2]}, [] ]', ["1", '"a]"', '{"a": [1,\n 2]}', "[]"], ""),
        ("12", [], "12"),
        ("12 ", ["12"], ""),
        ("1,,2]", ["1", "2"], ""),
        ('{"a":', [], '{"a":'),
        ("]", [], ""),
        ("}x:y,", ["}", "x:y"], ""),
        ('"\\""', ['"\\""'], ""),
    ],
)
def test_the_texts_of_elements_are_as_they_were_sent(text: str, elements: list[str], rest: str) -> None:
    for pieces in every_way(text.encode()):
        reader = json_array.Elements()
        assert [element for piece in pieces for element in reader.feed(piece.decode())] == elements
        assert reader.end() == rest


def test_an_item_has_a_limit() -> None:
    assert read(JsonArray(100), [b'["', *[b"x" * 10] * 20]) == [ItemTooLarge]
    assert read(JsonArray(100), [b"[1,", b"1", *[b"1" * 10] * 20]) == [1, ItemTooLarge]
    assert len(read(JsonArray(100), [b"[1", *[b",12345678"] * 200, b"]"])) == 201


# -- text and lines ----------------------------------------------------------------------------------------------------


def test_text_is_safe_across_cuts() -> None:
    for pieces in every_way("a是😀é".encode()):
        found = read(Text(), pieces)
        assert "".join(found) == "a是😀é"
        assert all(found)


def test_what_is_no_text_is_replaced() -> None:
    assert "".join(read(Text(), [b"a\xff", b"b\xe6\x98"])) == "a\ufffdb\ufffd"


@pytest.mark.parametrize("charset", ["utf-8", "UTF8", "utf-16"])
def test_a_byte_order_mark_is_no_text_but_at_the_beginning(charset: str) -> None:
    for pieces in every_way("\ufeffa\ufeff".encode("utf-16-le" if charset == "utf-16" else charset)):
        assert "".join(read(Text(charset), pieces)) == "a\ufeff"
    assert read(Lines(Text(), MUCH), [b"\xef\xbb\xbfa\nb"]) == ["a", "b"]


def test_the_charset_counts() -> None:
    assert "".join(read(Text("GB18030"), [b"\xd5", b"\xe2"])) == "这"
    assert read(Text("iso-8859-1"), [b"\xe9"]) == ["é"]


@pytest.mark.parametrize("charset", ["nonsense", "hex", "rot13", "zlib", "a\0b"])
def test_an_unknown_charset_is_an_error(charset: str) -> None:
    with pytest.raises(ContentError, match="charset"):
        Text(charset)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", []),
        (b"a", ["a"]),
        (b"a\n", ["a"]),
        (b"a\r\nb\n\nc\r", ["a", "b", "", "c"]),
        (b"a\rb\n", ["a\rb"]),
        (b"\r\r\n", ["\r"]),
        ("是\u2028\x0b\x85\n😀".encode(), ["是\u2028\x0b\x85", "😀"]),
    ],
)
def test_lines(data: bytes, expected: list[str]) -> None:
    check(lambda: Lines(Text(), MUCH), data, expected)


def test_a_line_has_a_limit() -> None:
    assert read(Lines(Text(), 100), [b"a\n", *[b"x" * 10] * 20]) == ["a", ItemTooLarge]
    assert len(read(Lines(Text(), 100), [b"x" * 10 + b"\n"] * 200)) == 200


def test_what_is_complete_comes_before_what_is_too_large_in_the_same_piece() -> None:
    too_large = b"x" * 200
    assert read(Lines(Text(), 100), [b"a\nb\r\n" + too_large]) == ["a", "b", ItemTooLarge]
    assert read(JsonLines(100), [b'1\n2\n"' + too_large]) == [1, 2, ItemTooLarge]
    assert read(JsonArray(100), [b'[1,2,"' + too_large]) == [1, 2, ItemTooLarge]
    assert read(Events(100), [b"data: a\n\ndata: " + too_large]) == [Event("a"), ItemTooLarge]
    assert read(EventData(100), [b"data: a\n\ndata: " + too_large]) == ["a", ItemTooLarge]


# -- JSON lines --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b'{"a":1}\n\n[2]\r\n  \n"x"', [{"a": 1}, [2], "x"]),
        (b"1\nx\n2\n", [1, ContentError]),
        (b"1\nNaN\n", [1, ContentError]),
        (b'1\n{"stream-error":{"status":503,"error":"gone"}}\n', [1, StreamFailed]),
        (b'{"stream-error":1,"a":2}\n', [{"stream-error": 1, "a": 2}]),
        (b"\xef\xbb\xbf1\n2\n", [1, 2]),
        (b"1\n\xef\xbb\xbf2\n", [1, ContentError]),
        ('"是"\n'.encode() + b'"\xe6\x98"\n1\n', ["是", ContentError]),
        (b'1\n"\xed\xa0\x80"\n', [1, ContentError]),
        (b"1\n\xff", [1, ContentError]),
    ],
)
def test_json_lines(data: bytes, expected: list[Any]) -> None:
    check(lambda: JsonLines(MUCH), data, expected)


def test_an_item_that_is_no_utf_8_or_no_json_is_named_by_its_index() -> None:
    for data, what in ((b"\xff", "UTF-8, as JSON is: .* position 0"), (b"x", "JSON: Expecting value")):
        with pytest.raises(ContentError, match=rf"^item 2 of the response is not {what}"):
            [*JsonLines(MUCH).feed(b"0\n\n1\n" + data + b"\n")]
    with pytest.raises(ContentError, match=r"^item 2 of the response is not UTF-8, as JSON is$"):
        [*array().feed(b'[0,1,"\xff"]')]


@pytest.mark.parametrize(
    ("told", "message", "status"),
    [
        (b'{"status":503,"error":"gone"}', "the server broke off its stream: gone", 503),
        (b'{"status":"x"}', "the server broke off its stream: it does not say why", 500),
        (b'"gone"', "the server broke off its stream: gone", 500),
    ],
)
def test_a_stream_that_failed_says_why(told: bytes, message: str, status: int) -> None:
    with pytest.raises(StreamFailed) as raised:
        [*JsonLines(MUCH).feed(b'{"stream-error":' + told + b"}\n")]
    assert (str(raised.value), raised.value.status) == (message, status)
    with pytest.raises(StreamFailed) as raised:
        [*EventData(MUCH).feed(b"event: stream-error\ndata: " + told + b"\n\n")]
    assert (str(raised.value), raised.value.status) == (message, status)


# -- events ------------------------------------------------------------------------------------------------------------


def test_the_data_of_events_are_items_and_control_is_not() -> None:
    data = (
        b"data: a\n\nevent: x\ndata: b\ndata: c\n\n:\n\nevent: stream-gap\ndata: {}\n\n"
        b"event: stream-end\nid: stream-end\ndata: {}\n\n"
    )
    check(lambda: EventData(MUCH), data, ["a", "b\nc"])
    assert [event.event for event in read(Events(MUCH), [data])] == [None, "x", "stream-gap", "stream-end"]
    foreign = b"event: stream-\ndata: 1\n\nevent: stream-start\ndata: 2\n\nevent: stream-ended\ndata: 3\n\n"
    closing = b"event: stream-closing\nretry: 5\ndata: {}\n\n"
    check(lambda: EventData(MUCH), foreign + closing, ["1", "2", "3"])
    check(lambda: EventData(MUCH), b"data: a\n\nevent: stream-error\ndata: no JSON\n\n", ["a", StreamFailed])


def test_an_event_has_a_limit_and_heartbeats_are_none() -> None:
    assert read(Events(100), [b"data: a\n\n", *[b"data: 123456789\n"] * 20]) == [Event("a"), ItemTooLarge]
    assert read(Events(100), [b"data: ", *[b"x" * 10] * 20]) == [ItemTooLarge]
    for beat in (b":\n\n", b": still here\r\n\r\n", b":\r\r"):
        assert read(Events(100), [beat] * 200) == []


# -- Content-Encoding --------------------------------------------------------------------------------------------------


def unpacked(coding: str, pieces: Iterable[bytes]) -> bytes:
    content = unpack(coding)
    data = b"".join(part for piece in pieces for part in content.feed(piece))
    content.end()
    return data


RAW = zlib.compressobj(wbits=-15)
PACKED = {
    "": b"hello hello",
    "identity": b"hello hello",
    "gzip": gzip.compress(b"hello ") + gzip.compress(b"hello"),
    " X-GZIP ": gzip.compress(b"hello hello"),
    "deflate": zlib.compress(b"hello hello"),
    "Deflate": RAW.compress(b"hello hello") + RAW.flush(),
    "identity, gzip": gzip.compress(b"hello hello"),
    "gzip,identity": gzip.compress(b"hello hello"),
    "identity, ,identity": b"hello hello",
}


@pytest.mark.parametrize("coding", PACKED)
def test_codings_are_undone_however_they_are_cut(coding: str) -> None:
    for pieces in every_way(PACKED[coding]):
        assert unpacked(coding, pieces) == b"hello hello"
    assert unpacked(coding, []) == b"", "there is no body, to a HEAD say"


@pytest.mark.parametrize("coding", ["gzip", "deflate", "Deflate"])
def test_a_coding_that_is_cut_is_an_incomplete_response_and_what_is_none_an_error(coding: str) -> None:
    for place in range(1, len(PACKED["Deflate"])):
        with pytest.raises(IncompleteResponse, match="ends before"):
            unpacked(coding, [PACKED[coding][:place]])
    with pytest.raises(ContentError):
        unpacked(coding, [b"\xff\xffhello hello"])
    for junk in (b"junk", b"\0", b"\n", b"\x1f", b"\x1fjunk"):
        with pytest.raises((ContentError, IncompleteResponse), match=r"behind the end of its|ends before|is not the"):
            unpacked(coding, [PACKED[coding], junk])
    with pytest.raises(ContentError, match=r"^the response has bytes behind the end of its (gzip|deflate)$"):
        unpacked(coding, [PACKED[coding] + b"\0\0"])


@pytest.mark.parametrize("coding", ["br", "zstd", "gzip, gzip", "compress"])
def test_an_unknown_coding_is_an_error_that_names_it(coding: str) -> None:
    with pytest.raises(ContentError, match=coding):
        unpack(coding)


def test_a_bomb_goes_off_in_pieces() -> None:
    content = unpack("gzip")
    sizes = [len(part) for part in content.feed(gzip.compress(bytes(20 * MUCH)))]
    assert sum(sizes) == 20 * MUCH
    assert max(sizes) <= 64 * 1024


def test_nothing_stays_behind_until_more_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where zlib has read all, and has more to give than a piece: it is as if pieces had no limit."""
    monkeypatch.setattr("rawstream.inflate._PIECE", 7)
    packed = zlib.compress(b"abc" * 1000 + random.Random(0).randbytes(50) + bytes(1000))
    content, unlimited = unpack("deflate"), zlib.decompressobj()
    assert [*content.feed(packed[:1])] == []
    assert b"".join(content.feed(packed[1:2])) == unlimited.decompress(packed[:2])
    for byte in packed[2:]:
        assert b"".join(content.feed(bytes([byte]))) == unlimited.decompress(bytes([byte]))
    content.end()


def test_the_limit_is_for_an_event_also_where_its_empty_line_comes_apart() -> None:
    pieces = [piece for number in range(30) for piece in (b"data: %d\n" % number, b"\n")]
    assert [event.data for event in read(Events(100), pieces)] == [str(number) for number in range(30)]
