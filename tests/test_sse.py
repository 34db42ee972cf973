"""Server-sent events in both directions, by the text of WHATWG HTML section 9.2 ("the text" below).

Every stream is decoded whole, byte by byte, cut in two at each place, with empty pieces between, and with the beginning
of more behind it.
"""

import dataclasses
import enum
import pickle
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from types import FrameType
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from rawstream import sse
from rawstream.errors import EventError
from rawstream.sse import Decoder, Event, encode

BOM = b"\xef\xbb\xbf"

# The same examples on every run, however fast the machine.
steady = settings(derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def byte_by_byte(stream: bytes) -> list[bytes]:
    return [stream[at : at + 1] for at in range(len(stream))]


def every_way(stream: bytes) -> Iterator[list[bytes]]:
    """The pieces in which `stream` may arrive. What trails has no line end, so it can mean nothing yet."""
    yield [stream]
    yield byte_by_byte(stream)
    yield [piece for byte in byte_by_byte(stream) for piece in (b"", byte, b"")]
    for cut in range(1, len(stream)):
        yield [stream[:cut], stream[cut:]]
    yield [stream + b"data: trailing"]
    yield [*byte_by_byte(stream), *byte_by_byte(b"data: trailing")]


def check(stream: bytes, *events: Event, last_event_id: str = "", retry: int | None = None) -> None:
    """`stream` gives these events, and leaves this id and retry time, however it is cut."""
    for pieces in every_way(stream):
        decoder = Decoder()
        found = [event for piece in pieces for event in decoder.feed(piece)]
        assert (found, decoder.last_event_id, decoder.retry) == ([*events], last_event_id, retry), pieces


# -- decoding: the examples of the text --------------------------------------------------------------------------------


def test_example_three_messages() -> None:
    """Section 9.2.1."""
    check(
        b"data: This is the first message.\n\n"
        b"data: This is the second message, it\ndata: has two lines.\n\n"
        b"data: This is the third message.\n\n",
        Event("This is the first message."),
        Event("This is the second message, it\nhas two lines."),
        Event("This is the third message."),
    )


def test_example_add_and_remove() -> None:
    """Section 9.2.1: event types."""
    check(
        b"event: add\ndata: 73857293\n\nevent: remove\ndata: 2153\n\nevent: add\ndata: 113411\n\n",
        Event("73857293", "add"),
        Event("2153", "remove"),
        Event("113411", "add"),
    )


def test_example_stock() -> None:
    """Section 9.2.6: one event, its data in three lines."""
    check(b"data: YHOO\ndata: +2\ndata: 10\n\n", Event("YHOO\n+2\n10"))


def test_example_test_stream() -> None:
    """Section 9.2.6: a comment; an id; an id without a value, which resets it; one space of two is dropped."""
    check(
        b": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n",
        Event("first event", id="1"),
        Event("second event", id=""),
        Event(" third event"),
        last_event_id="",
    )


def test_example_test_stream_after_its_first_two_blocks() -> None:
    check(b": test stream\n\ndata: first event\nid: 1\n\n", Event("first event", id="1"), last_event_id="1")


def test_example_two_empty_data() -> None:
    """Section 9.2.6: data may be empty, or one line break; the last block has no end, and is discarded."""
    check(b"data\n\ndata\ndata\n\ndata:", Event(""), Event("\n"))


def test_example_space_after_the_colon() -> None:
    """Section 9.2.6: these two events are the same."""
    check(b"data:test\n\ndata: test\n\n", Event("test"), Event("test"))


# -- decoding: the rules of sections 9.2.5 and 9.2.6 -------------------------------------------------------------------


def test_an_empty_stream_has_no_events() -> None:
    check(b"")


def test_one_leading_byte_order_mark_is_dropped() -> None:
    check(BOM + b"data: x\n\n", Event("x"))


def test_only_one_byte_order_mark_is_dropped() -> None:
    """The second makes the field's name another one."""
    check(BOM + BOM + b"data: x\n\ndata: y\n\n", Event("y"))


def test_a_byte_order_mark_later_on_is_text() -> None:
    check(b"data: x\n\n" + BOM + b"data: y\n\ndata: " + BOM + b"\n\n", Event("x"), Event("\ufeff"))


@pytest.mark.parametrize("beginning", [BOM[:1], BOM[:2], b"\xef\xbb\xbe"])
def test_what_only_begins_like_a_byte_order_mark_is_kept(beginning: bytes) -> None:
    check(beginning + b"data: x\n\ndata: y\n\n", Event("y"))


def test_a_byte_order_mark_alone_has_no_events() -> None:
    check(BOM)
    check(BOM + b"\n\n")


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
def test_lines_end_in_lf_cr_or_crlf(end: bytes) -> None:
    lines = [b"event: e", b"data: 1", b"data: 2", b"id: 7", b"", b"data: 3", b"", b""]
    check(end.join(lines), Event("1\n2", "e", "7"), Event("3"), last_event_id="7")


@pytest.mark.parametrize(
    "ends",
    [b"\r\n\n", b"\n\r\n", b"\r\n\r", b"\r\r\n", b"\n\r", b"\n\n", b"\r\r", b"\r\n\r\n", b"\r\n\n\r\n\n", b"\r\n\n\n"],
)
def test_line_ends_may_be_mixed(ends: bytes) -> None:
    """CRLF is one line end, any two of the others are two, also where the LF of a CRLF comes with the next bytes."""
    check(b"data: x" + ends + b"data: y" + ends, Event("x"), Event("y"))


def test_crlf_is_no_empty_line() -> None:
    check(b"data: 1\r\ndata: 2\r\n\r\n", Event("1\n2"))


def test_lf_and_then_cr_are_two_line_ends() -> None:
    check(b"data: 1\n\rdata: 2\n\r", Event("1"), Event("2"))


def test_a_final_cr_ends_its_line_at_once() -> None:
    """Whether a LF follows need not be known: waiting for it would hold the event back."""
    decoder = Decoder()
    assert decoder.feed(b"data: x\r\r") == [Event("x")]
    assert decoder.feed(b"\ndata: y\r\n\r") == [Event("y")]


@pytest.mark.parametrize("character", ["\v", "\f", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029"])
def test_no_other_character_ends_a_line(character: str) -> None:
    check(f"data: a{character}b\n\n".encode(), Event(f"a{character}b"))


def test_leading_and_repeated_empty_lines_mean_nothing() -> None:
    check(b"\n\r\n\r\n\ndata: x\n\n\n\n\r\rdata: y\n\n", Event("x"), Event("y"))


def test_comments_are_ignored() -> None:
    check(b":\n: a comment\n:data: x\ndata: y\n:\n\n:\n\n", Event("y"))


def test_unknown_fields_are_ignored() -> None:
    check(b"foo: bar\nfoo\ndata: x\nDATA: y\nData: y\ndata : y\n data: y\ndatax: y\ndat: y\n\n", Event("x"))


def test_a_line_without_a_colon_is_a_field_with_an_empty_value() -> None:
    check(b"data: x\ndata\nevent\nid\nretry\n\n", Event("x\n", id=""))


def test_a_value_keeps_everything_after_the_first_colon_but_one_space() -> None:
    check(b"data:  a: b : c: \ndata:\tx\ndata::\n\n", Event(" a: b : c: \n\tx\n:"))


def test_an_event_without_data_is_not_dispatched() -> None:
    check(b"event: ping\n\n")


def test_the_name_of_an_event_without_data_is_forgotten() -> None:
    check(b"event: ping\n\ndata: x\n\n", Event("x"))


def test_the_last_name_counts() -> None:
    check(b"event: a\nevent: b\ndata: x\n\n", Event("x", "b"))


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b"event: e\ndata: d\nid: 1\n\n", [Event("d", "e", "1")]),
        (b"event:e\ndata:d\nid:1\n\n", [Event("d", "e", "1")]),
        (b"event:  e\ndata:  d\nid:  1\n\n", [Event(" d", " e", " 1")]),
        (b"event: \ndata: d\n\n", [Event("d")]),
        (b"event: e\ndata: \n\n", [Event("", "e")]),
        (b"event: e\ndata: d\nid: \n\n", [Event("d", "e", "")]),
        (b"event: e\ndata: d\nid: 1\0\n\n", [Event("d", "e")]),
        (b"event: e\0\ndata: d\0\n\n", [Event("d\0", "e\0")]),
        (b"data: d\nevent: e\n\n", [Event("d", "e")]),
        (b"id: 1\nevent: e\ndata: d\n\n", [Event("d", "e", "1")]),
        (b"data: d\ndata: e\n\n", [Event("d\ne")]),
        (b"event: e\nevent: f\ndata: d\n\n", [Event("d", "f")]),
        (b"event: e\r\ndata: d\r\nid: 1\r\n\r\n", [Event("d", "e", "1")]),
        (b"event: e\ndata: d\nid: 1\n\r\n", [Event("d", "e", "1")]),
        (b"data: d\r\r\ndata: e\n\n", [Event("d"), Event("e")]),
        (b"retry: 5\ndata: d\n\n", [Event("d", retry=5)]),
        (b"data: d\nid: 1\nretry: 5\n\n", [Event("d", id="1", retry=5)]),
        (b": comment\ndata: d\n\n", [Event("d")]),
        (BOM + b"data: d\n\n" + BOM + b"data: e\n\ndata: f\n\n", [Event("d"), Event("f")]),
        (b"data: \xe8\xbf\n\ndata: e\n\n", [Event("\ufffd"), Event("e")]),
    ],
)
def test_nearly_plain_events_mean_what_the_text_says(stream: bytes, events: list[Event]) -> None:
    """Each alone, behind a plain event and before one."""
    plain = b"event: p\ndata: q\nid: 0\n\n"
    for whole in (stream, stream + plain) if stream.startswith(BOM) else (stream, plain + stream, stream + plain):
        expected, last_event_id, retry = by_the_text(whole)
        assert [event for event in expected if event != Event("q", "p", "0")] == events
        check(whole, *expected, last_event_id=last_event_id, retry=retry)


def test_an_empty_name_is_no_name() -> None:
    check(b"event: a\nevent:\ndata: x\n\n", Event("x"))


def test_fields_come_in_any_order() -> None:
    check(b"retry: 5\nid: 1\ndata: x\nevent: e\ndata: y\n\n", Event("x\ny", "e", "1", 5), last_event_id="1", retry=5)


def test_the_id_persists_from_event_to_event() -> None:
    """`last_event_id` stays, although the later events have no `id` field of their own."""
    check(b"id: 7\ndata: x\n\ndata: y\n\ndata: z\n\n", Event("x", id="7"), Event("y"), Event("z"), last_event_id="7")


def test_an_id_without_data_counts() -> None:
    check(b"id: 7\n\n", last_event_id="7")


def test_an_id_counts_only_from_the_end_of_its_block() -> None:
    """The event was not dispatched: a client that reconnects now must get it again."""
    check(b"id: 1\ndata: x\n\nid: 2\ndata: y\n", Event("x", id="1"), last_event_id="1")


def test_an_id_with_nul_is_ignored() -> None:
    check(
        b"id: 1\ndata: x\n\nid: 2\0\ndata: y\n\nid: \0\nid: 3\nid: 4\0\ndata: z\n\n",
        Event("x", id="1"),
        Event("y"),
        Event("z", id="3"),
        last_event_id="3",
    )


def test_nul_elsewhere_is_text() -> None:
    check(b"event: a\0b\ndata: c\0d\n\n", Event("c\0d", "a\0b"))


@pytest.mark.parametrize(("digits", "retry"), [("0", 0), ("2000", 2000), ("007", 7), ("9" * 15, 999_999_999_999_999)])
def test_retry_is_ascii_digits(digits: str, retry: int) -> None:
    check(f"retry: {digits}\ndata: x\n\n".encode(), Event("x", retry=retry), retry=retry)


@pytest.mark.parametrize(
    "value",
    ["", "-1", "+1", "1.0", "1e3", "1 ", " 1", "0x10", "1_000", "ten", "٣", "１００", "²", "৭", "1٣", "१०", "Ⅷ"],
)
def test_retry_with_anything_else_is_ignored(value: str) -> None:
    check(f"retry: 5\n\nretry: {value}\ndata: x\n\n".encode(), Event("x"), retry=5)


@pytest.mark.parametrize("digits", [16, 5000])
def test_a_retry_time_of_ages_is_ignored(digits: int) -> None:
    """The text has no limit, but Python's int() has one, and so has every timer."""
    decoder = Decoder()
    assert decoder.feed(b"retry: " + b"1" * digits + b"\ndata: x\n\n") == [Event("x")]
    assert decoder.retry is None


def test_retry_counts_at_once_and_without_data() -> None:
    check(b"retry: 3000\n", retry=3000)
    check(b"retry: 3000\n\nretry: 10\n\n", retry=10)


def test_retry_is_the_events_own_only_in_its_block() -> None:
    check(b"retry: 1\n\ndata: x\n\nretry: 2\ndata: y\n\n", Event("x"), Event("y", retry=2), retry=2)


@pytest.mark.parametrize(
    "rest", [b"data: y", b"data: y\n", b"event: e\ndata: y\r", b"dat", b":", b"id: 9\ndata: y\r\n"]
)
def test_an_unfinished_last_event_is_discarded(rest: bytes) -> None:
    for pieces in ([b"data: x\n\n" + rest], byte_by_byte(b"data: x\n\n" + rest)):
        decoder = Decoder()
        assert [event for piece in pieces for event in decoder.feed(piece)] == [Event("x")]
        assert decoder.last_event_id == ""


def test_an_event_comes_with_its_last_byte() -> None:
    decoder = Decoder()
    assert decoder.feed(b"data: x\n") == []
    assert decoder.feed(b"\n") == [Event("x")]


def test_the_stream_is_utf_8() -> None:
    check("event: 事件\ndata: 这是🙂\nid: №1\n\n".encode(), Event("这是🙂", "事件", "№1"), last_event_id="№1")


def test_what_is_not_utf_8_is_replaced() -> None:
    """By the Encoding standard: a replacement character for each longest piece that could have been one."""
    check(b"data: \xff|\xe8\xbf|\xed\xa0\x80|\xf0\x9f\x99\n\n", Event("\ufffd|\ufffd|\ufffd\ufffd\ufffd|\ufffd"))


def test_a_character_that_a_line_end_cuts_off_does_not_swallow_it() -> None:
    check(b"data: \xe8\xbf\ndata: \xf0\r\n\r\n", Event("\ufffd\n\ufffd"))


# -- decoding: anything ------------------------------------------------------------------------------------------------


def by_the_text(stream: bytes) -> tuple[list[Event], str, int | None]:
    """Section 9.2.6 as it stands there, for a stream that is here as a whole."""
    text = stream.decode("utf-8", "replace").removeprefix("\ufeff")
    *lines, _unfinished = re.split("\r\n|\n|\r", text)
    events: list[Event] = []
    data = event_type = last_event_id_buffer = last_event_id = ""
    own_id: str | None = None
    own_retry: int | None = None
    reconnection_time: int | None = None
    for line in lines:
        if line == "":
            last_event_id = last_event_id_buffer
            if data != "":
                events.append(Event(data.removesuffix("\n"), event_type or None, own_id, own_retry))
            data, event_type, own_id, own_retry = "", "", None, None
        elif line.startswith(":"):
            continue
        else:
            field, _, value = line.partition(":")
            value = value[1:] if value.startswith(" ") else value
            if field == "event":
                event_type = value
            elif field == "data":
                data += value + "\n"
            elif field == "id" and "\0" not in value:
                own_id = last_event_id_buffer = value
            elif field == "retry" and re.fullmatch("[0-9]{1,15}", value):
                own_retry = reconnection_time = int(value)
    return events, last_event_id, reconnection_time


tokens = st.sampled_from(
    [
        b"data",
        b"event",
        b"id",
        b"retry",
        b":",
        b": ",
        b" ",
        b"\n",
        b"\r",
        b"\r\n",
        b"\n\n",
        b"\0",
        b"12",
        BOM,
        "这".encode(),
    ]
) | st.binary(max_size=3)


class LineByLine(Decoder):
    """A decoder that takes no event in one step."""

    def _plain(self, data: bytes) -> tuple[list[Event], int]:
        return [], 0


plain = st.builds(
    lambda name, data, last: (b"event: %b\n" % name if name else b"") + b"data: %b\n" % data + last + b"\n",
    st.sampled_from([b"", b"e", b" ", b"\0"]) | st.binary(max_size=3),
    st.binary(max_size=4),
    st.sampled_from([b"", b"id: 1\n", b"id: \n", b"id: 2\0\n", b"id: \xff\n", b"retry: 1\n"]),
)


@steady
@given(st.lists(st.tuples(plain, tokens).map(b"".join) | plain, max_size=8).map(b"".join), st.data())
def test_plain_events_among_others_mean_the_same_in_one_step_and_line_by_line(stream: bytes, data: Any) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    pieces = [stream[start:end] for start, end in pairwise([0, *cuts, len(stream)])]
    quick, slow = Decoder(), LineByLine()
    for piece in pieces:
        assert quick.feed(piece) == slow.feed(piece)
        assert (quick.last_event_id, quick.retry) == (slow.last_event_id, slow.retry)
    assert (slow.last_event_id, slow.retry) == by_the_text(stream)[1:]


@steady
@example([b"data: x\r", b"\n", b"\n"])
@example([b"\xef", b"", b"\xbb", b"data"])
@given(st.lists(st.lists(tokens, max_size=6).map(b"".join), max_size=30))
def test_any_bytes_in_any_pieces_mean_what_the_text_says(pieces: list[bytes]) -> None:
    decoder = Decoder()
    events = [event for piece in pieces for event in decoder.feed(piece)]
    assert (events, decoder.last_event_id, decoder.retry) == by_the_text(b"".join(pieces))


class Texts:
    """The texts that one owner of names holds: a frame, or a decoder."""

    def __init__(self) -> None:
        self.before: dict[str, tuple[Any, int]] = {}

    def grown(self, names: dict[str, Any]) -> int:
        """The length of the texts that were not there before. A list is known by itself, and then grows at its end."""
        grown = 0
        now: dict[str, tuple[Any, int]] = {
            name: (value, len(value)) for name, value in names.items() if isinstance(value, bytes | str | list)
        }
        for name, (value, length) in now.items():
            known, known_length = self.before.get(name, (None, 0))
            if known is not value:
                known_length = 0
            if isinstance(value, list):
                grown += sum(len(text) for text in value[known_length:] if isinstance(text, bytes | str))
            elif known is not value:
                grown += length
        self.before = now
        return grown


def work(pieces: Iterable[bytes]) -> int:
    """How much a decoder does for these pieces: calls, and the length of each text that any of them brings into being.

    A decoder that joins what it holds with each new piece, or looks at it again, makes or keeps ever longer texts.
    """
    decoder, own, done = Decoder(), Texts(), 0
    frames: dict[FrameType, Texts] = {}

    def count(frame: FrameType, kind: str, argument: object) -> None:
        nonlocal done
        if frame.f_code.co_filename == sse.__file__:
            done += 1 + frames.setdefault(frame, Texts()).grown({**frame.f_locals}) + own.grown(vars(decoder))
            if kind == "return":
                del frames[frame]

    sys.setprofile(count)
    try:
        for piece in pieces:
            decoder.feed(piece)
    finally:
        sys.setprofile(None)
    return done


@pytest.mark.parametrize("cut", [lambda stream: [stream], byte_by_byte], ids=["whole", "byte by byte"])
@pytest.mark.parametrize(
    "stream",
    [
        lambda n: b"data: " + b"x" * n + b"\n\n",
        lambda n: b"data: " + b"x" * n,
        lambda n: b"data: x\n" * n + b"\n",
        lambda n: b"data: x\n\n" * n,
        lambda n: b"id: x\n" * n,
        lambda n: b":\n" * n,
        lambda n: b"\n" * n,
        lambda n: b"\r" * n,
        lambda n: b"\r\n" * n,
        lambda n: BOM * n,
        lambda n: "data: 这\n\n".encode() * n,
        lambda n: b"retry: " + b"1" * n + b"\n",
        lambda n: b":" * n + b"\n",
    ],
    ids=[
        "a long line", "an endless line", "many lines", "many events", "many ids", "comments", "LF", "CR", "CRLF",
        "BOM", "wide characters", "digits", "colons",
    ],
)  # fmt: skip
def test_decoding_takes_linear_work(stream: Any, cut: Any) -> None:
    assert work(cut(stream(800))) <= 4.2 * work(cut(stream(200)))


def test_of_events_that_have_come_whole_nothing_stays() -> None:
    decoder = Decoder()
    decoder.feed(b"data: x\n\n")
    size = len(pickle.dumps(vars(decoder)))
    for _ in range(1000):
        decoder.feed(b"data: x\n\n")
    assert len(pickle.dumps(vars(decoder))) == size


def test_empty_pieces_cost_nothing_later() -> None:
    once, often = [b"data: x"], [b"data: x"] + [b""] * 1000
    assert work([*often, b"\n\n"]) - work([*once, b"\n\n"]) == work(often) - work(once)


# -- encoding ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("event", "data"),
    [
        (Event("hello"), b"data: hello\n\n"),
        (Event(""), b"data: \n\n"),
        (Event(" x "), b"data:  x \n\n"),
        (Event(":x"), b"data: :x\n\n"),
        (Event("这"), b"data: \xe8\xbf\x99\n\n"),
        (Event("\ufeff"), b"data: \xef\xbb\xbf\n\n"),
        (Event("a\0b"), b"data: a\0b\n\n"),
        (Event("x", "add"), b"event: add\ndata: x\n\n"),
        (Event("x", id="7"), b"data: x\nid: 7\n\n"),
        (Event("x", id=""), b"data: x\nid: \n\n"),
        (Event("x", retry=0), b"data: x\nretry: 0\n\n"),
        (Event("x", retry=2000), b"data: x\nretry: 2000\n\n"),
        (Event("x", comment="why"), b": why\ndata: x\n\n"),
        (Event(None), b"\n"),
        (Event(None, comment="why"), b": why\n\n"),
        (Event(None, comment=""), b": \n\n"),
        (Event(None, id="7"), b"id: 7\n\n"),
        (Event(None, retry=5), b"retry: 5\n\n"),
        (Event(None, "ping"), b"event: ping\n\n"),
    ],
)
def test_the_bytes_of_an_event(event: Event, data: bytes) -> None:
    assert encode(event) == data


def test_fields_come_in_the_order_comment_event_data_id_retry() -> None:
    event = Event("1\n2", "name", "7", 5, "why\nnot")
    assert encode(event) == b": why\n: not\nevent: name\ndata: 1\ndata: 2\nid: 7\nretry: 5\n\n"


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n"])
def test_each_line_of_data_is_a_field(end: str) -> None:
    assert encode(Event(f"a{end}b{end}{end}c")) == b"data: a\ndata: b\ndata: \ndata: c\n\n"
    assert encode(Event(f"{end}a{end}")) == b"data: \ndata: a\ndata: \n\n"
    assert encode(Event(None, comment=f"a{end}b")) == b": a\n: b\n\n"


def test_a_line_break_in_a_comment_cannot_begin_a_field() -> None:
    assert encode(Event(None, comment="x\r\rdata: y")) == b": x\n: \n: data: y\n\n"


def test_no_other_character_breaks_a_line_of_data() -> None:
    text = "a\vb\fc\x1cd\x85e\u2028f\u2029g"
    assert encode(Event(text)) == b"data: " + text.encode() + b"\n\n"


class Name(str):
    """A str of a kind of its own."""

    __slots__ = ()


def test_a_kind_of_str_is_a_str() -> None:
    assert encode(Event(Name("a\nb"), Name("e"), Name("1"))) == b"event: e\ndata: a\ndata: b\nid: 1\n\n"


@pytest.mark.parametrize("data", [b"x", 1, 0, True, {}, ["x"], object])
def test_encode_takes_only_text(data: object) -> None:
    with pytest.raises(EventError, match=f"^data is a str or None here, not {type(data).__name__}:"):
        encode(Event(data))


@pytest.mark.parametrize("field", ["data", "event", "id", "comment"])
def test_half_a_surrogate_pair_is_refused(field: str) -> None:
    values: dict[str, Any] = {"data": "x", field: "a\ud83d"}
    with pytest.raises(EventError, match=r"^an event is UTF-8, which cannot carry '\\ud83d'$"):
        encode(Event(**values))


class Kind(str, enum.Enum):  # noqa: UP042  # the older way, in which format() gives the member's name
    TICK = "tick"


@pytest.mark.parametrize("field", ["data", "event", "id", "comment"])
def test_a_member_of_an_enumeration_of_text_is_its_text(field: str) -> None:
    assert encode(Event(**{"data": None, field: Kind.TICK})) == encode(Event(**{"data": None, field: "tick"}))


# -- what an event can be ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["\r", "\n", "\r\n"])
@pytest.mark.parametrize("field", ["event", "id"])
def test_a_line_break_in_event_or_id_is_an_error_and_not_stripped(field: str, end: str) -> None:
    for value in (f"a{end}data: b", f"{end}a", f"a{end}"):
        with pytest.raises(EventError, match=f"^{field} cannot hold "):
            Event("x", **{field: value})  # type: ignore[arg-type]


def test_nul_in_id_is_an_error_and_not_stripped() -> None:
    with pytest.raises(EventError, match=r"^id cannot hold '\\x00': 'a\\x00b'$"):
        Event("x", id="a\0b")


def test_nul_in_event_is_text() -> None:
    assert encode(Event("x", "a\0b")) == b"event: a\0b\ndata: x\n\n"


@pytest.mark.parametrize("retry", [-1, 1.0, 0.5, "5", True, False, b"5", float("inf")])
def test_retry_must_be_a_whole_number_of_milliseconds(retry: Any) -> None:
    with pytest.raises(EventError, match=f"^retry is a whole number of milliseconds, 0 or more, not {retry!r}$"):
        Event("x", retry=retry)


@pytest.mark.parametrize("field", ["event", "id", "comment"])
@pytest.mark.parametrize("value", [7, b"7", ["7"]])
def test_the_other_fields_must_be_text(field: str, value: Any) -> None:
    with pytest.raises(EventError, match=f"^{field} is a str, not {type(value).__name__}$"):
        Event("x", **{field: value})


def test_an_event_is_a_frozen_value() -> None:
    assert Event({"n": 1}, "tick", "1", 5, "c") == Event(data={"n": 1}, event="tick", id="1", retry=5, comment="c")
    assert Event("x") != Event("x", "e")
    assert len({Event("x"), Event("x")}) == 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        Event("x").data = "y"  # type: ignore[misc]


# -- there and back ----------------------------------------------------------------------------------------------------

some = "ab \r\n\0:\v\x85\u2028\ufeff这🙂"
texts = st.text(some) | st.text(st.characters(codec="utf-8"))
names = st.text(sorted({*some} - {*"\r\n"}))
ids = st.text(sorted({*some} - {*"\r\n\0"}))


events_to_send = st.builds(
    Event,
    data=texts | st.none(),
    event=names | st.none(),
    id=ids | st.none(),
    retry=st.integers(0, 10**15 - 1) | st.none(),
    comment=texts | st.none(),
)


def as_received(event: Event) -> Event:
    """Line ends in data become LF, an empty name is none, and comments stay behind."""
    data = event.data.replace("\r\n", "\n").replace("\r", "\n")
    return dataclasses.replace(event, data=data, event=event.event or None, comment=None)


def in_pieces(stream: bytes, cuts: Sequence[int]) -> list[bytes]:
    at = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    return [stream[start:end] for start, end in pairwise(at)]


@steady
@given(st.lists(events_to_send), st.lists(st.integers(0, 2000)))
def test_what_is_encoded_is_decoded_again(events: list[Event], cuts: list[int]) -> None:
    decoder = Decoder()
    pieces = in_pieces(b"".join(encode(event) for event in events), cuts)
    found = [event for piece in pieces for event in decoder.feed(piece)]
    assert found == [as_received(event) for event in events if event.data is not None]
    sent_ids = ["", *(event.id for event in events if event.id is not None)]
    times = [None, *(event.retry for event in events if event.retry is not None)]
    assert (decoder.last_event_id, decoder.retry) == (sent_ids[-1], times[-1])
