"""Text for people."""

from __future__ import annotations

import io
import pty

import pytest

from rawstream.terminal import Style, duration, on_one_line, size

pytestmark = pytest.mark.either_loop


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
