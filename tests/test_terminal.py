"""What the tools of the command line have in common."""

from __future__ import annotations

import argparse
import io
import pty
from collections.abc import Callable
from typing import Any

import pytest

from rawstream.terminal import Style, duration, header, on_one_line, seconds, size, url

pytestmark = pytest.mark.either_loop


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("http://a/b?c", "http://a/b?c"),
        ("HTTPS://a", "HTTPS://a"),
        ("a.example:8000/b", "http://a.example:8000/b"),
        (":8000/clock", "http://localhost:8000/clock"),
        ("/clock", "http://localhost/clock"),
        ("localhost/?next=ftp://x", "http://localhost/?next=ftp://x"),
    ],
)
def test_a_url_may_be_typed_without_what_goes_without_saying(typed: str, meant: str) -> None:
    assert url(typed) == meant


def test_a_header_is_a_name_and_a_value() -> None:
    assert header("Authorization: Bearer a:b ") == ("Authorization", "Bearer a:b")
    assert header("X-Empty:") == ("X-Empty", "")
    assert header("X: 这")[1].encode("latin-1") == "这".encode()


def test_a_time_is_in_seconds() -> None:
    assert [seconds(text) for text in ("3", "0.5", "1e3")] == [3.0, 0.5, 1000.0]


@pytest.mark.parametrize(
    ("read", "text", "line"),
    [
        (url, "ftp://x", "a URL begins with http:// or https://, not ftp://"),
        (header, "no colon", "a header is \"Name: value\", not 'no colon'"),
        (header, " : x", "a header is \"Name: value\", not ' : x'"),
        *((seconds, text, f"a time is a number of seconds above 0, not {text!r}")
          for text in ("0", "-1", "soon", "", "nan", "inf")),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_told_with_what_would_be_right(read: Callable[[str], Any], text: str, line: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError) as caught:
        read(text)
    assert str(caught.value) == line


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0.0 ms"), (0.0995, "100 ms"), (0.099, "99.0 ms"), (0.9994, "999 ms"), (0.9996, "1.00 s"), (99.99, "99.99 s"),
     (100, "100 s"), (86400, "86400 s")],
)  # fmt: skip
def test_durations_read_well_in_eight_characters(value: float, text: str) -> None:
    assert duration(value) == text
    assert len(text) <= 8


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (12.5, "12 B"), (1023, "1023 B"), (1024, "1 KiB"), (1536, "1.5 KiB"),
     (16384, "16 KiB"), (102_000, "99.6 KiB"), (1_047_000, "1022 KiB"), (1_048_576, "1 MiB"), (5 << 30, "5 GiB"),
     (5000 << 40, "5000 TiB")],
)  # fmt: skip
def test_sizes_read_well_in_eight_characters(count: float, text: str) -> None:
    assert size(count) == text
    assert len(text) <= 8


def test_what_somebody_else_wrote_fits_into_a_message_of_one_line() -> None:
    assert on_one_line("a\r\n  b\x1b[2J\u202ec\x9b 这") == "a b\\x1b[2J\\u202ec\\x9b 这"


@pytest.mark.parametrize(
    ("environment", "colours"),
    [({}, True), ({"NO_COLOR": ""}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)],
)
def test_a_terminal_has_colours_unless_they_are_not_wanted(environment: dict[str, str], colours: bool) -> None:
    ours, theirs = pty.openpty()
    with open(ours, "rb"), open(theirs, "w", encoding="utf-8") as stream:
        style = Style.of(stream, environment)
    assert (style.colours, style.safe, style.blocks) == (colours, True, True)
    assert style.paint("x", "1", "31") == ("\x1b[1;31mx\x1b[0m" if colours else "x")
    assert style.paint("", "1") == ""


def test_what_is_no_terminal_has_neither_colours_nor_anything_to_be_kept_from() -> None:
    stream = io.TextIOWrapper(io.BytesIO(), "ascii")
    style = Style.of(stream, {})
    assert style == Style(colours=False, safe=False, blocks=False, width=80)
    assert style.clean("\x1b") == "\x1b"
