"""The inbox: bytes go in as they come, and out in pieces that cost little to parse."""

from __future__ import annotations

import math
import random

import pytest

from rawstream.inbox import LINES, Inbox

PIECE = 16 * 1024


def filled(*parts: bytes) -> Inbox:
    inbox = Inbox()
    for part in parts:
        inbox.add(part)
    return inbox


def taken(inbox: Inbox, lines: float = LINES) -> list[bytes]:
    pieces = []
    while inbox:
        pieces.append(inbox.take(lines))
    return pieces


def test_an_empty_one_gives_nothing_again_and_again() -> None:
    inbox = Inbox()
    assert (len(inbox), inbox.take(), inbox.take()) == (0, b"", b"")


def test_what_came_in_parts_is_taken_together() -> None:
    inbox = filled(b"some ", b"thing")
    assert len(inbox) == 10
    assert inbox.take() == b"some thing"
    assert len(inbox) == 0


def test_a_piece_has_as_many_bytes_as_it_may() -> None:
    assert [len(piece) for piece in taken(filled(b"x" * (2 * PIECE + 1)))] == [PIECE, PIECE, 1]


def test_a_piece_has_no_more_lines_than_it_may() -> None:
    pieces = taken(filled(b"1\r\nx\r\n" * 1000))
    assert b"".join(pieces) == b"1\r\nx\r\n" * 1000
    assert max(piece.count(b"\r\n") for piece in pieces) <= LINES
    assert len(pieces) < 100


def test_lines_between_long_ones_are_counted_where_they_are() -> None:
    data = b"x" * 10_000 + b"1\r\nx\r\n" * 1000 + b"x" * 10_000
    pieces = taken(filled(data))
    assert b"".join(pieces) == data
    assert max(piece.count(b"\r\n") for piece in pieces) <= LINES


def test_who_says_that_lines_cost_nothing_gets_large_pieces() -> None:
    assert [len(piece) for piece in taken(filled(b"\r\n" * PIECE), math.inf)] == [PIECE, PIECE]


def test_lines_that_frame_nothing_do_not_count() -> None:
    """In chunks and heads a lone LF ends no line; text has many of them."""
    assert [len(piece) for piece in taken(filled(b"\n" * PIECE))] == [PIECE]


def test_what_comes_while_some_is_left_follows_it() -> None:
    inbox = filled(b"x" * PIECE + b"rest")
    inbox.take()
    inbox.add(b"new")
    assert len(inbox) == 7
    assert b"".join(taken(inbox)) == b"restnew"


def test_what_is_dropped_is_gone() -> None:
    inbox = filled(b"x" * PIECE + b"rest")
    inbox.take()
    inbox.add(b"new")
    inbox.clear()
    assert (len(inbox), inbox.take()) == (0, b"")
    inbox.add(b"later")
    assert inbox.take() == b"later"


@pytest.mark.parametrize("seed", range(20))
def test_nothing_is_lost_or_turned_round(seed: int) -> None:
    dice = random.Random(seed)
    inbox, came, went = Inbox(), b"", b""
    for _ in range(50):
        if dice.random() < 0.5:
            part = dice.choice([b"1\r\nx\r\n", b"text\n", b"\x00"]) * dice.randrange(5000)
            inbox.add(part)
            came += part
        else:
            went += inbox.take(dice.choice([LINES, math.inf]))
        assert len(inbox) == len(came) - len(went)
    assert went + b"".join(taken(inbox)) == came
