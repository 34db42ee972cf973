"""What becomes of an answer's bytes, without a socket."""

from __future__ import annotations

import argparse
import gzip
from types import SimpleNamespace
from typing import Any

import pytest

from rawstream import Event
from rawstream.fields import Headers
from rawstream.get.screen import Screen
from rawstream.incoming import Arrival
from rawstream.terminal import Style

pytestmark = pytest.mark.either_loop

TERMINAL = Style(safe=True)


def screen(*fields: tuple[str, str], **options: Any) -> Screen:
    """One that has seen a head with these fields, which was asked for at 100 s and came at 101 s."""
    made = Screen(argparse.Namespace(**{"form": None, "timing": False, "include": False, **options}), TERMINAL)
    headers = Headers(fields)
    answer = SimpleNamespace(
        status=200, reason="OK", http_version="1.1", headers=headers, began=100.0, head_at=101.0,
        content_type=headers.get("content-type", ""),
    )  # fmt: skip
    assert made.head(answer) == b""  # type: ignore[arg-type]  # it has all that is looked at
    return made


def arrived(made: Screen, time: float, *pieces: bytes) -> list[str]:
    return [data.decode() for data in made.arrival(Arrival(time, 0, [*pieces]))]


def test_the_times_are_those_of_the_arrivals_and_not_of_the_printing() -> None:
    made = screen(timing=True)
    assert arrived(made, 103.5, b"one\n", b"two\n") == [
        "  3.50 s      4 B | one\n",
        "  0.0 ms      4 B | two\n",
    ]
    assert arrived(made, 103.75, b"three\n") == ["  250 ms      6 B | three\n"]
    assert made.end(103.75) == b""
    assert made.summary() == "3 pieces, 14 B in 3.75 s; longest wait 3.50 s"


def test_the_sizes_are_those_of_what_came_also_if_it_is_unpacked() -> None:
    packed = gzip.compress(b"x" * 100_000 + b"\n", mtime=0)
    made = screen(("Content-Encoding", "gzip"), timing=True)
    first, *others = arrived(made, 101.0, packed)
    assert first.startswith(f"  1.00 s {len(packed):>6} B | xxx")
    assert len(others) == 1, "it is unpacked in pieces that are small enough"
    assert others[0].startswith("                  | xxx")


def test_chunks_that_came_together_are_shown_in_one_go_where_nobody_sees_them() -> None:
    assert arrived(screen(), 101.0, b"one\n", b"two\n") == ["one\ntwo\n"]


def test_events_that_are_resumed_have_the_times_at_which_they_were_given_out() -> None:
    made = Screen(argparse.Namespace(form=None, timing=True, include=False), TERMINAL)
    assert b"".join(made.event(Event("one", id="1"), 100.0, 102.0)) == b"  2.00 s     17 B | #1 one\n"
