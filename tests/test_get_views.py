"""How a stream is shown: however its bytes are cut, and whatever a server sends to the terminal."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rawstream.errors import StreamFailed
from rawstream.get.views import Data, Events, Gutter, Json, Lines, Text, View
from rawstream.terminal import Style

PLAIN = Style()
TERMINAL = Style(safe=True)
COLOURED = Style(colours=True, safe=True)


def shown(view: View, *pieces: bytes) -> list[str]:
    """What is shown after each piece, and at the end."""
    return [*map(view.feed, pieces), view.end()]


def in_all_ways(make: Callable[[], View], body: bytes) -> str:
    """What is shown of a body in one piece, which is the same byte by byte."""
    whole = "".join(shown(make(), body))
    assert "".join(shown(make(), *(bytes([byte]) for byte in body))) == whole
    return whole


# -- text --------------------------------------------------------------------------------------------------------------


def test_text_is_shown_at_once_and_half_a_character_waits_for_its_other_half() -> None:
    body = "a这".encode()
    assert shown(Text(TERMINAL), body[:1], body[1:2], body[2:3], body[3:], b"no line end") == [
        "a", "", "", "这", "no line end", "",
    ]  # fmt: skip


def test_what_is_no_character_is_shown_as_its_bytes() -> None:
    assert in_all_ways(lambda: Text(TERMINAL), b"a\xffb\xe8\xbf") == "a\\xffb\\xe8\\xbf"


def test_a_charset_is_minded_and_one_that_is_none_is_utf_8() -> None:
    assert in_all_ways(lambda: Text(TERMINAL, "iso-8859-1"), b"\xe4") == "ä"
    assert in_all_ways(lambda: Text(TERMINAL, "utf-16-le"), "这".encode("utf-16-le")) == "这"
    for charset in ("no-such", "hex", "a\0b", ""):
        assert in_all_ways(lambda charset=charset: Text(TERMINAL, charset), "这".encode()) == "这"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("sent", "seen"),
    [
        ("\x1b[2J", "\\x1b[2J"),
        ("\x07\x08\x7f", "\\x07\\x08\\x7f"),
        ("\x9b31m", "\\x9b31m"),
        ("over\rwritten", "over\\x0dwritten"),
        ("\u202egpj.exe", "\\u202egpj.exe"),
        ("\x00", "\\x00"),
        ("tab\tand\nline", "tab\tand\nline"),
        ("这 é \U0001f600", "这 é \U0001f600"),
    ],
)
@pytest.mark.parametrize("make", [Text, Lines, Json])
def test_a_terminal_gets_no_control_characters_of_the_servers(make: Any, sent: str, seen: str) -> None:
    body = f"{sent}\n".encode()
    assert in_all_ways(lambda: make(TERMINAL), body) == seen + "\n"
    assert in_all_ways(lambda: make(PLAIN), body) == sent + "\n"


def test_escaped_characters_are_coloured_so_that_they_differ_from_text_that_looks_the_same() -> None:
    assert COLOURED.clean("\x1b \\x1b") == "\x1b[31m\\x1b\x1b[0m \\x1b"


def test_line_ends_of_two_characters_are_one_however_they_are_cut() -> None:
    assert in_all_ways(lambda: Text(TERMINAL), b"a\r\nb\r\r\nc\r") == "a\nb\\x0d\nc\\x0d"


@settings(max_examples=50, derandomize=True, deadline=None)
@given(st.text())
def test_plain_text_is_shown_as_it_is_but_for_its_line_ends(text: str) -> None:
    assert in_all_ways(lambda: Text(PLAIN), text.encode()) == text.replace("\r\n", "\n")


# -- items -------------------------------------------------------------------------------------------------------------


def test_an_item_of_an_array_is_shown_as_soon_as_it_is_whole() -> None:
    """That is before the comma, but for numbers, of which there may be more."""
    assert shown(Json(TERMINAL), b'["a"', b',"b', b'"', b", 1", b"2 ,{}", b" ,3]", b"\n") == [
        '"a"\n', "", '"b"\n', "", "12\n{}\n", "3\n", "", "",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("body", "items"),
    [
        ("[]", []),
        (" [ ] \n", []),
        ("[[1,[2]],{}]", ["[[1,[2]]".removeprefix("["), "{}"]),
        ('[{"a]": "b,\\"]"}, "\\\\", "]"]', ['{"a]": "b,\\"]"}', '"\\\\"', '"]"']),
        ('[\n  {\n    "a b": [1,\r\n 2]\n  },\n  1.10\n]', ['{"a b":[1,2]}', "1.10"]),
        ("\ufeff[1e400, 123456789012345678901234567890]", ["1e400", "123456789012345678901234567890"]),
        ('["这是", null]', ['"这是"', "null"]),
        ('[1, 2, {"cut": "he', ["1", "2", '{"cut": "he']),
    ],
)
def test_the_items_of_an_array_are_lines_and_as_they_were_sent(body: str, items: list[str]) -> None:
    assert in_all_ways(lambda: Json(TERMINAL), body.encode()) == "".join(f"{item}\n" for item in items)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@settings(max_examples=50, derandomize=True, deadline=None)
@given(st.lists(values), st.sampled_from([None, 2]), st.booleans())
def test_every_array_is_shown_item_by_item(items: list[Any], indent: int | None, ascii_only: bool) -> None:
    body = json.dumps(items, indent=indent, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    lines = "".join(shown(Json(PLAIN), *(body[at : at + 3] for at in range(0, len(body), 3)))).split("\n")
    assert [json.loads(line) for line in lines[:-1]] == items
    assert lines[-1] == ""


def test_json_that_is_no_array_is_shown_as_it_comes() -> None:
    assert shown(Json(TERMINAL), b' {"text', b'":\n "typed', b' out"}') == ['{"text', '":\n "typed', ' out"}', ""]


def test_lines_are_shown_when_they_are_whole_without_the_empty_ones() -> None:
    assert shown(Lines(TERMINAL), b'{"a', b'": 1}\n\n[', b"]\r\n", b"\n", b"cut") == [
        "", '{"a": 1}\n', "[]\n", "", "", "cut\n",
    ]  # fmt: skip


# -- events ------------------------------------------------------------------------------------------------------------

EVENTS = b": hello\n\nevent: tick\ndata: {}\nid: 4\nretry: 20\n\ndata: two\ndata: lines\n\nid: 5\n\ndata: cut"


def test_an_event_is_a_line_and_more_lines_of_data_are_indented() -> None:
    assert in_all_ways(lambda: Events(TERMINAL), EVENTS) == "tick #4 retry=20 {}\ntwo\n  lines\n"


def test_the_data_of_events_may_stand_alone() -> None:
    assert in_all_ways(lambda: Data(TERMINAL), EVENTS) == "{}\ntwo\nlines\n"


def test_what_came_before_a_failure_is_shown_also_if_it_came_together_with_it() -> None:
    view = Data(TERMINAL)
    assert view.feed(b'data: one\n\nevent: stream-error\ndata: {"error":"no"}\n\n') == "one\n"
    assert isinstance(view.failed, StreamFailed)


def test_names_are_coloured_and_so_is_an_error() -> None:
    assert shown(Events(COLOURED), b"event: tick\nid: 1\ndata: x\n\n", b"event: stream-error\ndata: y\n\n") == [
        "\x1b[1;36mtick\x1b[0m \x1b[2m#1\x1b[0m x\n", "\x1b[1;31mstream-error\x1b[0m y\n", "",
    ]  # fmt: skip


def test_a_terminal_gets_no_control_characters_from_any_field_of_an_event() -> None:
    body = b"event: \x1b[1m\nid: \x07\ndata: \x9b\x1b]0;title\x07\n\n"
    assert in_all_ways(lambda: Events(TERMINAL), body) == "\\x1b[1m #\\x07 \\x9b\\x1b]0;title\\x07\n".replace(
        "\\x9b",
        "\ufffd",  # a byte that is no UTF-8
    )


# -- the gutter --------------------------------------------------------------------------------------------------------


def beside(gutter: Gutter, *parts: bytes, when: float) -> str:
    """What stands there once a piece has come, of which these are the parts."""
    return "".join(gutter.feed(parts, sum(map(len, parts)), when))


def test_the_gutter_tells_how_long_each_piece_was_waited_for_and_its_size() -> None:
    gutter = Gutter(Events(TERMINAL), TERMINAL, began=100.0)
    assert gutter.head("HTTP/1.1 200 OK\nA: b\n", 100.0021) == (
        "  2.1 ms     head | HTTP/1.1 200 OK\n"
        "                  | A: b\n"
    )  # fmt: skip
    assert beside(gutter, b"data: one\n\ndata: two\ndata: lines\n\ndata: th", when=100.5031) == (
        "  501 ms     42 B | one\n"
        "                  | two\n"
        "                  |   lines\n"
    )  # fmt: skip
    assert beside(gutter, b"ree", when=103.0031) == "  2.50 s      3 B | ...\n"
    assert beside(gutter, b"\n\n", when=103.0031) == "  0.0 ms      2 B | three\n"
    assert gutter.end(104.0) == ""
    assert gutter.summary() == "3 pieces, 47 B in 4.00 s; longest wait 2.50 s"


def test_a_piece_has_one_time_and_its_own_size_however_much_it_unpacks_to() -> None:
    gutter = Gutter(Lines(TERMINAL), TERMINAL, began=0)
    assert "".join(gutter.feed((b"one\ntw", b"o", b"\nthree\n"), 5, 0.2)) == (
        "  200 ms      5 B | one\n"
        "                  | two\n"
        "                  | three\n"
    )  # fmt: skip
    assert "".join(gutter.feed((), 3, 0.2)) == "  0.0 ms      3 B | ...\n"
    assert gutter.summary() == "2 pieces, 8 B in 200 ms; longest wait 200 ms"


def test_the_gutter_shows_what_the_end_leaves() -> None:
    gutter = Gutter(Lines(TERMINAL), TERMINAL, began=0)
    assert beside(gutter, b"cut", when=0.2) == "  200 ms      3 B | ...\n"
    assert gutter.end(0.5) == "  300 ms      end | cut\n"
    assert gutter.summary() == "1 piece, 3 B in 500 ms; longest wait 200 ms"


@pytest.mark.parametrize(("waited", "colour"), [(0.0, "2"), (0.2, "32"), (5.0, "33")])
def test_a_wait_has_the_colour_of_its_length(waited: float, colour: str) -> None:
    told = beside(Gutter(Text(COLOURED), COLOURED, began=0), b"x", when=waited)
    assert told.startswith(f"\x1b[{colour}m")
    assert told.endswith(" \x1b[2m|\x1b[0m x\n")
