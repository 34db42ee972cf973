"""Items to bytes, byte for byte; and which format an Accept field asks for."""

import enum
import json
import math
import types
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rawstream import errors
from rawstream.fields import Headers
from rawstream.formats import (
    ASCII_JSON,
    BYTES,
    END_ID,
    JSON,
    NEGOTIATED,
    Encoder,
    Format,
    JsonArray,
    JsonLines,
    Raw,
    ServerSentEvents,
    Text,
    fixed,
    negotiate,
    prefers_json,
)
from rawstream.sse import Event

# The same examples on every run, however fast the machine.
steady = settings(derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def encoded(encoder: Encoder, items: Iterable[Any]) -> list[bytes]:
    """What each item is, and after them the end."""
    return [*(encoder.encode(item) for item in items), encoder.end()]


@dataclass
class Point:
    x: int
    y: float | None = None


@dataclass(frozen=True, slots=True)
class Line:
    name: str
    points: list[Point] = field(default_factory=list)


class Colour(str, enum.Enum):  # noqa: UP042  # the older way, in which str() gives the member's name
    RED = "red"


class Level(enum.IntEnum):
    LOW = 1


class Name(str):
    __slots__ = ()


class Items(list[int]):
    """A list of a kind of its own."""


# An item, and what it is as JSON, as the data of an event, and as text.
SAME_EVERYWHERE = [
    pytest.param(item, text, id=text)
    for item, text in [
        (0, "0"),
        (-7, "-7"),
        (2**70, "1180591620717411303424"),
        (0.5, "0.5"),
        (1e100, "1e+100"),
        (-0.0, "-0.0"),
        (True, "true"),
        (False, "false"),
        (None, "null"),
        ({}, "{}"),
        ([], "[]"),
        ({"a": 1, "b": [1, 2.5, None, True]}, '{"a":1,"b":[1,2.5,null,true]}'),
        ({"这": "是"}, '{"这":"是"}'),
        ({1: 2, None: 3, 0.5: 4, False: 5}, '{"1":2,"null":3,"0.5":4,"false":5}'),
        (["a", ["b", ["c"]]], '["a",["b",["c"]]]'),
        ((1, (2,)), "[1,[2]]"),
        (Items([1, 2]), "[1,2]"),
        (Point(1), '{"x":1,"y":null}'),
        (Line("l", [Point(1, 0.5), Point(2)]), '{"name":"l","points":[{"x":1,"y":0.5},{"x":2,"y":null}]}'),
        ({"nested": Line("l")}, '{"nested":{"name":"l","points":[]}}'),
        (Level.LOW, "1"),
        ({"colour": Colour.RED}, '{"colour":"red"}'),
        ({"text": 'quote " backslash \\ line\nend \t \x00 \x7f \u2028'},
         '{"text":"quote \\" backslash \\\\ line\\nend \\t \\u0000 \x7f \u2028"}'),
    ]
]  # fmt: skip


@pytest.mark.parametrize(("item", "text"), SAME_EVERYWHERE)
def test_an_item_that_is_no_text_is_json_in_every_format(item: object, text: str) -> None:
    data = text.encode()
    assert encoded(JsonArray(), [item]) == [b"[" + data, b"]"]
    assert encoded(JsonLines(), [item]) == [data + b"\n", b""]
    assert encoded(ServerSentEvents(), [item])[0] == b"data: " + data + b"\n\n"
    assert encoded(Text(), [item]) == [data, b""]


# A text, and what it is as JSON and as an event.
TEXTS = [
    ("", b'""', b"data: \n\n"),
    ("a", b'"a"', b"data: a\n\n"),
    ("这", b'"\xe8\xbf\x99"', b"data: \xe8\xbf\x99\n\n"),
    ("🙂", b'"\xf0\x9f\x99\x82"', b"data: \xf0\x9f\x99\x82\n\n"),
    ('"', b'"\\""', b'data: "\n\n'),
    (" ", b'" "', b"data:  \n\n"),
    ("\n", b'"\\n"', b"data: \ndata: \n\n"),
    ("\r", b'"\\r"', b"data: \ndata: \n\n"),
    ("a\r\nb", b'"a\\r\\nb"', b"data: a\ndata: b\n\n"),
    ("a\0b", b'"a\\u0000b"', b"data: a\0b\n\n"),
    (Colour.RED, b'"red"', b"data: red\n\n"),
    (Name("x\ny"), b'"x\\ny"', b"data: x\ndata: y\n\n"),
]


@pytest.mark.parametrize(("text", "as_json", "as_event"), TEXTS)
def test_a_text_is_json_in_json_and_itself_elsewhere(text: str, as_json: bytes, as_event: bytes) -> None:
    assert JsonArray().encode(text) == b"[" + as_json
    assert JsonLines().encode(text) == as_json + b"\n"
    assert ServerSentEvents().encode(text) == as_event
    assert Text().encode(text) == text.encode()


@pytest.mark.parametrize(("text", "as_json", "as_event"), TEXTS)
def test_an_event_elsewhere_is_its_data(text: str, as_json: bytes, as_event: bytes) -> None:
    event = Event(text, "name", "7", 5, "comment")
    assert JsonArray().encode(event) == b"[" + as_json
    assert JsonLines().encode(event) == as_json + b"\n"
    assert Text().encode(event) == text.encode()
    assert ServerSentEvents().encode(event) == b": comment\nevent: name\n" + as_event[:-1] + b"id: 7\nretry: 5\n\n"


@pytest.mark.parametrize(("item", "text"), [param for param in SAME_EVERYWHERE if param.values[0] is not None])
def test_the_data_of_an_event_may_be_anything(item: object, text: str) -> None:
    event = Event(item, "name")
    assert JsonLines().encode(event) == text.encode() + b"\n"
    assert Text().encode(event) == text.encode()
    assert ServerSentEvents().encode(event) == b"event: name\ndata: " + text.encode() + b"\n\n"


# -- each format as a whole --------------------------------------------------------------------------------------------


def test_a_json_array_has_its_bracket_with_the_first_item_and_the_commas_before_the_others() -> None:
    assert encoded(JsonArray(), "这是一") == [b'["\xe8\xbf\x99"', b',"\xe6\x98\xaf"', b',"\xe4\xb8\x80"', b"]"]


def test_an_empty_json_array() -> None:
    assert encoded(JsonArray(), []) == [b"[]"]


def test_a_json_array_in_ascii() -> None:
    assert encoded(JsonArray(ascii=True), ["é🙂", {"这": 1}]) == [b'["\\u00e9\\ud83d\\ude42"', b',{"\\u8fd9":1}', b"]"]


def test_json_lines() -> None:
    assert encoded(JsonLines(), ["a\nb", 1, None]) == [b'"a\\nb"\n', b"1\n", b"null\n", b""]
    assert encoded(JsonLines(), []) == [b""]


def test_server_sent_events_end_with_an_event_that_stops_the_reconnecting() -> None:
    end = b"event: stream-end\ndata: {}\nid: stream-end\n\n"
    assert encoded(ServerSentEvents(), ["a", 1]) == [b"data: a\n\n", b"data: 1\n\n", end]
    assert encoded(ServerSentEvents(), []) == [end]
    assert END_ID == "stream-end"


def test_text_has_nothing_between() -> None:
    assert encoded(Text(), ["a", "b\n", 1, ["c"], ""]) == [b"a", b"b\n", b"1", b'["c"]', b"", b""]


@pytest.mark.parametrize("item", [b"\0\xff", bytearray(b"\0\xff"), memoryview(b"\0\xff"), memoryview(b"\0-\xff-")[::2]])
def test_bytes_are_sent_as_they_are(item: bytes) -> None:
    encoder = Raw()
    data = encoder.encode(item)
    assert (type(data), data) == (bytes, b"\0\xff")
    assert encoder.encode(b"") == b""
    assert encoder.end() == b""


def test_what_tells_that_a_stream_breaks_off() -> None:
    assert ServerSentEvents().error(500, "Internal Server Error") == (
        b'event: stream-error\ndata: {"status":500,"error":"Internal Server Error"}\n\n'
    )
    assert JsonLines().error(404, "a\udcff\n") == b'{"stream-error":{"status":404,"error":"a?\\n"}}\n'
    assert JsonLines().error(413, 'a "这"') == b'{"stream-error":{"status":413,"error":"a \\"\xe8\xbf\x99\\""}}\n'


def test_formats_without_a_place_for_it_tell_nothing() -> None:
    for kind in (JsonArray, Text, Raw):
        assert kind().error(500, "Internal Server Error") == b""
    for encoder in (JsonArray(), JsonLines(), Text(), Raw()):
        assert encoder.closing(2000) == b""
        assert encoder.heartbeat == b""


def test_a_heartbeat_is_a_comment() -> None:
    assert ServerSentEvents.heartbeat == b":\n\n"


def test_after_the_closing_event_the_end_is_no_end_so_that_the_client_comes_back() -> None:
    encoder = ServerSentEvents()
    assert encoder.closing(2000) == b"event: stream-closing\ndata: {}\nretry: 2000\n\n"
    assert encoder.end() == b""
    assert ServerSentEvents().end() != b""


# -- events without data -----------------------------------------------------------------------------------------------

SILENT = [
    (Event(None, comment="still here"), b": still here\n\n"),
    (Event(None, id="7"), b"id: 7\n\n"),
    (Event(None, retry=5), b"retry: 5\n\n"),
    (Event(None, "ping"), b"event: ping\n\n"),
]


@pytest.mark.parametrize(("event", "data"), SILENT)
def test_an_event_without_data_is_nothing_where_there_are_no_events(event: Event, data: bytes) -> None:
    assert ServerSentEvents().encode(event) == data
    assert encoded(JsonArray(), [event]) == [b"", b"[]"]
    assert encoded(JsonArray(), [event, 1, event, 2]) == [b"", b"[1", b"", b",2", b"]"]
    assert encoded(JsonLines(), [event, 1]) == [b"", b"1\n", b""]
    assert encoded(Text(), [event, "a"]) == [b"", b"a", b""]
    assert encoded(fixed("bytes").encoder(), [event, b"a"]) == [b"", b"a", b""]


# -- what cannot be sent -----------------------------------------------------------------------------------------------

CIRCLE: list[Any] = []
CIRCLE.append({"around": CIRCLE})

DEEP: list[Any] = []
for _ in range(100_000):
    DEEP = [DEEP]


@dataclass
class Cyclic:
    own: Any = None


CYCLIC = Cyclic()
CYCLIC.own = [CYCLIC]

# An item, its type, and what is wrong with it.
NOT_JSON = [
    pytest.param(item, kind, words, id=f"{kind}: {words[:30]}")
    for item, kind, words in [
        (math.nan, "float", "Out of range float values are not JSON compliant"),
        (math.inf, "float", "Out of range float values are not JSON compliant"),
        ({"deep": [-math.inf]}, "dict", "Out of range float values are not JSON compliant"),
        ({math.nan: 1}, "dict", "Out of range float values are not JSON compliant"),
        ({1, 2}, "set", "set is not a JSON type"),
        ([1, {2}], "list", "set is not a JSON type"),
        ({"a": object()}, "dict", "object is not a JSON type"),
        (Point, "type", "type is not a JSON type"),
        (Line("l", [{3}]), "Line", "set is not a JSON type"),  # type: ignore[list-item]
        (1j, "complex", "complex is not a JSON type"),
        ({(1, 2): 3}, "dict", "keys must be str, int, float, bool or None, not tuple"),
        (CIRCLE, "list", "Circular reference detected"),
        (CYCLIC, "Cyclic", "Circular reference detected"),
        (DEEP, "list", "maximum recursion depth exceeded"),
        (10**5000, "int", "Exceeds the limit"),
        (b"x", "bytes", 'bytes is not a JSON type; bytes are sent by Stream(..., format="bytes")'),
        (bytearray(b"x"), "bytearray", 'not a JSON type; bytes are sent by Stream(..., format="bytes")'),
        (memoryview(b"x"), "memoryview", 'not a JSON type; bytes are sent by Stream(..., format="bytes")'),
        ({"raw": b"x"}, "dict", 'bytes is not a JSON type; bytes are sent by Stream(..., format="bytes")'),
    ]
]
JSON_ENCODERS = [JsonArray, JsonLines, ServerSentEvents, Text]


@pytest.mark.parametrize("encoder", JSON_ENCODERS)
@pytest.mark.parametrize(("item", "kind", "words"), NOT_JSON)
def test_what_json_cannot_hold_is_named_with_its_type(
    encoder: type[Encoder], item: object, kind: str, words: str
) -> None:
    stream = encoder()
    for good in ("a", Event(None), 1):
        stream.encode(good)
    with pytest.raises(errors.ItemError) as caught:
        stream.encode(item)
    assert str(caught.value).startswith(f"an item ({kind}) cannot be sent as JSON: ")
    assert words in str(caught.value)
    assert isinstance(caught.value.__cause__, TypeError | ValueError | RecursionError)


@pytest.mark.parametrize("encoder", JSON_ENCODERS)
@pytest.mark.parametrize(
    ("item", "message"),
    [
        ([{1}], "an item (list) cannot be sent as JSON: set is not a JSON type"),
        (
            b"x",
            "an item (bytes) cannot be sent as JSON: "
            'bytes is not a JSON type; bytes are sent by Stream(..., format="bytes")',
        ),
    ],
)
def test_the_whole_text_of_such_an_error(encoder: type[Encoder], item: object, message: str) -> None:
    with pytest.raises(errors.ItemError) as caught:
        encoder().encode(item)
    assert str(caught.value) == message


@pytest.mark.parametrize("encoder", JSON_ENCODERS)
@pytest.mark.parametrize(("item", "kind", "words"), NOT_JSON)
def test_what_json_cannot_hold_cannot_be_in_an_event_either(
    encoder: type[Encoder], item: object, kind: str, words: str
) -> None:
    stream = encoder()
    with pytest.raises(errors.ItemError, match=r"^an item "):
        stream.encode(Event(item))


@pytest.mark.parametrize("encoder", JSON_ENCODERS)
@pytest.mark.parametrize(
    ("item", "kind"),
    [
        ("a\ud83d", "str"),
        ("\udc00\n", "str"),
        (["\ud83d"], "list"),
        ({"\ud83d": 1}, "dict"),
        (Line("\ud83d"), "Line"),
    ],
)
def test_half_a_surrogate_pair_is_named_with_its_type(encoder: type[Encoder], item: object, kind: str) -> None:
    stream = encoder()
    stream.encode("a")
    with pytest.raises(errors.ItemError) as caught:
        stream.encode(item)
    assert str(caught.value).startswith(f"an item ({kind})")
    assert "cannot carry" in str(caught.value)


def test_half_a_surrogate_pair_in_ascii_json_is_an_escape() -> None:
    """Where nothing but ASCII is written, it is no trouble: JSON can say it (RFC 8259 section 8.2)."""
    assert JsonArray(ascii=True).encode("\ud83d") == b'["\\ud83d"'


@pytest.mark.parametrize("name", ["event", "id", "comment"])
def test_half_a_surrogate_pair_in_an_events_other_fields(name: str) -> None:
    with pytest.raises(
        errors.ItemError, match=r"^an item \(Event\) cannot be sent as an event: .*cannot carry '\\ud83d'$"
    ):
        ServerSentEvents().encode(Event("x", **{name: "\ud83d"}))  # type: ignore[arg-type]


@pytest.mark.parametrize("item", ["x", None, 1, {"a": b"x"}, [b"x"], Event("x")])
def test_a_stream_of_bytes_takes_only_bytes(item: object) -> None:
    encoder = Raw()
    encoder.encode(b"first")
    with pytest.raises(errors.ItemError) as caught:
        encoder.encode(item)
    kind = type(item).__name__
    assert str(caught.value) == f'an item ({kind}) is not bytes, which a stream with format="bytes" takes'


@pytest.mark.parametrize("encoder", JSON_ENCODERS)
@pytest.mark.parametrize("name", ["stream-", "stream-end", "stream-error", "stream-mine"])
@pytest.mark.parametrize("data", ["x", {"a": 1}, None])
def test_events_named_like_rawstreams_own_are_refused_in_every_format(
    encoder: type[Encoder], name: str, data: object
) -> None:
    stream = encoder()
    stream.encode(1)
    with pytest.raises(errors.ItemError) as caught:
        stream.encode(Event(data, name))
    assert str(caught.value) == f"an item (Event) has the name {name!r}: those with 'stream-' are rawstream's own"


@pytest.mark.parametrize("encoder", JSON_ENCODERS)
def test_the_id_that_ends_a_stream_is_refused_in_every_format(encoder: type[Encoder]) -> None:
    """A client that came back with it would be told that there is nothing more."""
    with pytest.raises(errors.ItemError, match=r"^an item \(Event\) has the id 'stream-end'"):
        encoder().encode(Event("x", id="stream-end"))
    assert encoder().encode(Event("x", id="stream-end-1"))


@pytest.mark.parametrize("name", ["stream", "streams-x", "Stream-end", "my-stream-end", "", " stream-end"])
def test_other_names_are_the_users(name: str) -> None:
    assert ServerSentEvents().encode(Event("x", name)) == b"event: " + name.encode() + b"\ndata: x\n\n"


def test_an_item_error_is_ours_and_is_not_told_to_the_peer() -> None:
    with pytest.raises(errors.LocalError) as caught:
        JsonArray().encode(object())
    assert (caught.value.status, caught.value.public) == (500, "")


def test_an_item_that_failed_leaves_the_array_as_it_was() -> None:
    encoder = JsonArray()
    with pytest.raises(errors.ItemError, match=r"^an item "):
        encoder.encode(object())
    assert [encoder.encode(1), encoder.end()] == [b"[1", b"]"]


# -- any JSON value ----------------------------------------------------------------------------------------------------

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=20,
)


@steady
@given(st.lists(json_values))
def test_any_json_values_can_be_read_from_a_json_array(values: list[Any]) -> None:
    assert json.loads(b"".join(encoded(JsonArray(), values))) == values
    assert json.loads(b"".join(encoded(JsonArray(ascii=True), values)).decode("ascii")) == values


@steady
@given(st.lists(json_values))
def test_any_json_values_can_be_read_line_by_line(values: list[Any]) -> None:
    *lines, rest = b"".join(encoded(JsonLines(), values)).split(b"\n")
    assert [json.loads(line) for line in lines] == values
    assert rest == b""


# -- negotiation -------------------------------------------------------------------------------------------------------

ALL = "application/json, application/x-ndjson, application/jsonl, text/event-stream, text/plain"
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"


@pytest.mark.parametrize(
    ("accept", "name"),
    [
        # none, or nothing in it
        (None, "json"),
        ("", "json"),
        (" \t ", "json"),
        (",", "json"),
        (" , ,, ", "json"),
        # each by its name
        ("application/json", "json"),
        ("application/x-ndjson", "ndjson"),
        ("application/jsonl", "jsonl"),
        ("text/event-stream", "sse"),
        ("text/plain", "text"),
        ("Text/Event-Stream", "sse"),
        ("  text/plain  ", "text"),
        # wildcards
        ("*/*", "json"),
        ("application/*", "json"),
        ("text/*", "sse"),
        (BROWSER, "json"),
        ("image/png, */*;q=0.1", "json"),
        # q-values
        ("application/json;q=0.5, text/plain", "text"),
        ("application/json;q=0.5, text/plain;q=0.6", "text"),
        ("application/json;q=0.501, text/plain;q=0.5", "json"),
        ("text/plain;q=0.001", "text"),
        ("text/plain;q=1.000, application/json;q=0.999", "text"),
        ("text/plain;q=1., application/json;q=0.", "text"),
        ("text/plain; q=0.5 , application/json ; q=0.4", "text"),
        ("text/plain;Q=0.1, text/event-stream;q=0.2", "sse"),
        ("*/*;q=0.5, text/plain;q=0.1", "json"),
        ("text/*;q=0.9, */*;q=0.8", "sse"),
        ("text/*;q=0.7, */*;q=0.8", "json"),
        # what is named most exactly decides about a type
        ("text/*, text/event-stream;q=0.1", "text"),
        ("text/event-stream;q=0.1, text/*", "text"),
        ("*/*, application/*;q=0.2", "sse"),
        ("*/*, text/*;q=0.5, text/plain;q=0.9, application/*;q=0.3", "text"),
        ("*/*;q=0.1, text/plain;q=0.9", "text"),
        # not acceptable is what has 0
        ("application/json;q=0, */*", "ndjson"),
        ("*/*, application/json;q=0.000", "ndjson"),
        ("application/*;q=0, */*", "sse"),
        ("application/*;q=0, text/event-stream;q=0, */*;q=0.1", "text"),
        ("application/json;q=0, application/*", "ndjson"),
        # ties: first what is named more exactly, then what is named first, then what we have first
        ("*/*, text/plain", "text"),
        ("text/plain, */*", "text"),
        ("text/*, application/json", "json"),
        ("text/event-stream, */*", "sse"),
        ("text/plain, text/event-stream", "text"),
        ("text/event-stream, text/plain", "sse"),
        ("application/x-ndjson, application/json", "ndjson"),
        ("application/jsonl, application/x-ndjson", "jsonl"),
        ("text/*, application/*", "sse"),
        ("application/*, text/*", "json"),
        # the first of a type that is named twice
        ("text/plain;q=0.1, application/json;q=0.5, text/plain", "json"),
        # parameters
        ("text/plain;charset=utf-8", "text"),
        ("application/json;charset=utf-8;q=0.1, text/plain;q=0.2;extension=1", "text"),
        ("application/json;version, text/plain;q=0.5", "json"),
        ("text/plain;;q=0.3;, application/json;q=0.2", "text"),
        ("text/plain;q=0.1;q=0.9, application/json;q=0.5", "json"),
        # malformed members are as if they were not there
        ("text/plain;q=2, application/json;q=0.1", "json"),
        ("text/plain;q=-1, application/json;q=0.1", "json"),
        ("text/plain;q=1.001, application/json;q=0.1", "json"),
        ("text/plain;q=0.1234, application/json;q=0.1", "json"),
        ("text/plain;q=.5, application/json;q=0.1", "text"),  # old Java writes it so, and means 0.5
        ("text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2", "json"),  # what old Java sends
        ("text/plain;q=, application/json;q=0.1", "json"),
        ("text/plain;q, application/json;q=0.1", "json"),
        ("text/plain;q=high, application/json;q=0.1", "json"),
        ('text/plain;q="0.5", application/json;q=0.1', "text"),
        ('text/plain;q="0.5, application/json;q=0.1', "json"),
        ("text/plain;q=nan, application/json;q=0.1", "json"),
        ("text/plain;q=1e0, application/json;q=0.1", "json"),
        ("text, /plain, text/, /, text//plain, text/pl ain, application/json;q=0.1", "json"),
        ("*, text/plain;q=0.5", "json"),
        ("*/plain, application/json;q=0.1", "json"),
        ("text/plain/*, application/json;q=0.1", "json"),
    ],
)
def test_negotiation(accept: str | None, name: str) -> None:
    assert negotiate(accept).name == name


@pytest.mark.parametrize(
    "accept",
    [
        "image/png",
        "text/html",
        "application/xml, image/*",
        "*/*;q=0",
        "text/plain;q=0",
        "text/*;q=0, application/*;q=0",
        "*/*;q=0.000, text/html",
        "json",
        "text/plain;q=2",
        "text/plain2",
        "xtext/plain",
    ],
)
def test_nothing_acceptable_is_406_and_says_what_there_is(accept: str) -> None:
    with pytest.raises(errors.NotAcceptable) as caught:
        negotiate(accept)
    assert (caught.value.status, caught.value.public) == (406, f"this can be sent as {ALL}")


def test_several_accept_fields_are_one() -> None:
    headers = Headers([("Accept", "text/plain;q=0.5"), ("accept", "image/png"), ("ACCEPT", "text/event-stream;q=0.6")])
    assert negotiate(headers["accept"]).name == "sse"


@pytest.mark.parametrize("other", ["a/b", "", "*", "nonsense", "text/html;q=0.5"])
def test_of_as_many_ranges_as_a_head_can_hold_the_first_are_looked_at(other: str) -> None:
    """Each takes its time, and a browser sends ten."""
    assert negotiate(f"{other}," * 31 + "text/plain," + "a/b," * 4000).name == "text"
    assert prefers_json("a/b," * 31 + "application/json")
    assert not prefers_json("a/b," * 32 + "application/json")
    with pytest.raises(errors.NotAcceptable):
        negotiate("a/b," * 32 + "*/*")


def test_of_as_many_parameters_as_a_head_can_hold_the_first_are_looked_at() -> None:
    assert negotiate("text/plain" + ";a=b" * 30 + ";q=0.1, text/event-stream;q=0.2").name == "sse"
    assert negotiate("text/plain" + ";a=b" * 4000 + ";q=0.1, text/event-stream;q=0.2").name == "text"


# -- the words for a failure: text or JSON -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "accept",
    [
        "application/json",
        "Application/JSON ; charset=utf-8",
        "application/json;q=0.1",
        "application/json, text/plain, */*",  # axios
        "text/plain, application/json",
        "text/plain;q=0.5, application/json;q=0.5",
        "text/plain;q=0.5, application/json",
        "text/html, application/json",
        "text/event-stream, application/json",
    ],
)
def test_a_client_that_names_json_and_does_not_want_text_more_prefers_it(accept: str) -> None:
    assert prefers_json(accept)


@pytest.mark.parametrize(
    "accept",
    [
        None,
        "",
        "*/*",
        "application/*",
        "text/plain",
        "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
        "text/event-stream",
        "application/x-ndjson",
        "application/problem+json",
        "application/json;q=0",
        "application/json;q=0.4, text/plain;q=0.5",
        "application/json;q=much",
        "json",
    ],
)
def test_other_clients_are_told_in_text(accept: str | None) -> None:
    assert not prefers_json(accept)


# -- the formats there are ---------------------------------------------------------------------------------------------


def test_the_formats_there_are() -> None:
    assert [(form.name, form.content_type, form.media_type) for form in (*NEGOTIATED, BYTES, ASCII_JSON)] == [
        ("json", "application/json; charset=utf-8", "application/json"),
        ("ndjson", "application/x-ndjson", "application/x-ndjson"),
        ("jsonl", "application/jsonl", "application/jsonl"),
        ("sse", "text/event-stream", "text/event-stream"),
        ("text", "text/plain; charset=utf-8", "text/plain"),
        ("bytes", "application/octet-stream", "application/octet-stream"),
        ("ascii-json", "application/json; charset=utf-8", "application/json"),
    ]


def test_only_server_sent_events_have_fields_of_their_own_and_show_their_head_at_once() -> None:
    for form in (*NEGOTIATED, BYTES, ASCII_JSON):
        if form.name == "sse":
            fields = (("Cache-Control", "no-store, no-transform"), ("X-Accel-Buffering", "no"))
            assert (form.headers, form.head) == (fields, 0.0)
        else:
            assert (form.headers, form.head) == ((), 1.0)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("json", b'["\xc3\xa9"]'),
        ("ascii-json", b'["\\u00e9"]'),
        ("ndjson", b'"\xc3\xa9"\n'),
        ("jsonl", b'"\xc3\xa9"\n'),
        ("text", b"\xc3\xa9"),
        ("sse", b"data: \xc3\xa9\n\nevent: stream-end\ndata: {}\nid: stream-end\n\n"),
    ],
)
def test_a_format_can_be_fixed_by_name(name: str, data: bytes) -> None:
    form = fixed(name)
    assert form.name == name
    assert b"".join(encoded(form.encoder(), ["é"])) == data


def test_bytes_can_be_fixed_by_name() -> None:
    assert encoded(fixed("bytes").encoder(), [b"\xff"]) == [b"\xff", b""]


def test_a_stream_has_an_encoder_of_its_own() -> None:
    assert [JSON.encoder().encode(1), JSON.encoder().encode(1)] == [b"[1", b"[1"]


def test_a_format_of_ones_own_can_be_fixed() -> None:
    form = Format("csv", "text/csv; charset=utf-8", Text)
    assert fixed(form) is form
    assert form.media_type == "text/csv"


@pytest.mark.parametrize("form", ["html", "", "JSON", 1, None, ["json"], Text, types.SimpleNamespace(name="json")])
def test_a_format_that_does_not_exist_is_an_error_that_names_those_that_do(form: object) -> None:
    with pytest.raises(errors.LocalError) as caught:
        fixed(form)
    names = "json, ndjson, jsonl, sse, text, bytes, ascii-json"
    assert str(caught.value) == f"a Stream's format is one of {names}, or a Format, not {form!r}"
