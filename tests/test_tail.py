"""The end of a log: what is held of it, and the bytes that all readers share."""

from __future__ import annotations

import json
import random
import tracemalloc
from collections.abc import Callable

import pytest

from rawstream.channels.log import START, Entry, Id
from rawstream.channels.tail import BYTES, ENTRIES, PIECE, Tail, as_event, as_line
from rawstream.framing import chunked, until_close
from rawstream.sse import Decoder, Event


def entry(n: int, data: str = "", event: str | None = None) -> Entry:
    return Entry(Id(1000 + n, n), event, data or str(n))


def entries(first: int, last: int, data: str = "") -> list[Entry]:
    return [entry(n, data) for n in range(first, last + 1)]


def tail_of(*held: Entry, latest: bool = False) -> Tail:
    """A tail that was begun before the first of these, and has seen them."""
    tail = Tail(Id(held[0].id.ms, held[0].id.n - 1), latest)
    assert tail.extend(held)
    return tail


def numbers(found: list[Entry]) -> list[int]:
    return [entry.id.n for entry in found]


# -- the two forms ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "event", "sent"),
    [
        ('"word"', None, b"data: word\nid: 1007-7\n\n"),
        ('"two\\nlines\\r\\nthree\\rfour"', None, b"data: two\ndata: lines\ndata: three\ndata: four\nid: 1007-7\n\n"),
        ('"\u8fd9\\u662f"', None, "data: 这是\nid: 1007-7\n\n".encode()),
        ('""', None, b"data: \nid: 1007-7\n\n"),
        ('"\\""', "said", b'event: said\ndata: "\nid: 1007-7\n\n'),
        ('{"a":1}', "tick", b'event: tick\ndata: {"a":1}\nid: 1007-7\n\n'),
        ("[]", None, b"data: []\nid: 1007-7\n\n"),
        ("null", None, b"data: null\nid: 1007-7\n\n"),
        ("12", "", b"event: \ndata: 12\nid: 1007-7\n\n"),
        ('"half', None, b'data: "half\nid: 1007-7\n\n'),
    ],
    ids=["text", "lines", "chinese", "empty", "quote", "object", "array", "null", "no name", "damaged"],
)
def test_an_event_has_text_as_it_is_and_other_data_as_json(data: str, event: str | None, sent: bytes) -> None:
    assert as_event(entry(7, data, event)) == sent


def test_what_an_event_stream_brings_is_what_was_appended() -> None:
    sent = as_event(entry(7, json.dumps("a\nb"), "tick"))
    assert Decoder().feed(sent) == [Event("a\nb", "tick", "1007-7")]


@pytest.mark.parametrize("data", ['"text"', '{"a":[1,null]}', '"two\\nlines"', '"\u8fd9"'])
@pytest.mark.parametrize("event", [None, "tick", 'a "name"', "名"])
def test_a_line_has_id_name_and_data(data: str, event: str | None) -> None:
    sent = as_line(entry(7, data, event))
    assert sent.count(b"\n") == 1
    assert json.loads(sent) == {"id": "1007-7", "event": event or "message", "data": json.loads(data)}


def test_a_line_has_its_fields_in_this_order() -> None:
    assert as_line(entry(7, '"\u8fd9"', "名")) == '{"id":"1007-7","event":"名","data":"这"}\n'.encode()


# -- what is held ----------------------------------------------------------------------------------------------------


def test_a_tail_begins_empty_and_reaches_who_has_seen_the_last() -> None:
    tail = Tail(Id(5, 9))
    assert tail.newest is None
    assert tail.last == Id(5, 9)
    assert tail.reaches(9)
    assert not tail.reaches(8)
    assert tail.after(9) == tail.after(8) == []


def test_what_follows_is_held() -> None:
    tail = tail_of(*entries(4, 6))
    assert tail.extend(entries(7, 7))
    assert (tail.last, tail.newest) == (Id(1007, 7), entry(7))
    assert tail.reaches(3)
    assert not tail.reaches(2)
    assert tail.after(2) == []
    assert numbers(tail.after(3)) == [4, 5, 6, 7]
    assert numbers(tail.after(6)) == [7]
    assert tail.after(7) == []


def test_nothing_comes_after_a_place_that_the_tail_has_not_come_to_yet() -> None:
    """A reader of the log may be ahead of what is delivered."""
    tail = tail_of(*entries(4, 6))
    assert tail.reaches(9)
    assert tail.after(9) == []
    tail.extend(entries(7, 9))
    assert tail.after(9) == []
    tail.extend(entries(10, 10))
    assert numbers(tail.after(9)) == [10]


@pytest.mark.parametrize(
    "batch",
    [[entry(9)], [entry(6)], [entry(1)], [entry(7), entry(9)]],
    ids=["a hole", "told again", "from the start again", "a hole within"],
)
def test_what_does_not_follow_begins_the_tail_anew(batch: list[Entry]) -> None:
    tail = tail_of(*entries(4, 6))
    assert not tail.extend(batch)
    first = batch[-1].id.n
    assert tail.last.n == first
    assert tail.reaches(first - 1)
    assert not tail.reaches(first - 2)
    assert numbers(tail.after(first - 1)) == [first]
    assert tail.extend([entry(first + 1)])


def test_a_tail_holds_a_number_of_entries() -> None:
    tail = tail_of(*entries(1, 3 * ENTRIES, "0"))
    first = 2 * ENTRIES + 1
    assert tail.reaches(first - 1)
    assert not tail.reaches(first - 2)
    assert numbers(tail.after(first - 1)) == [*range(first, 3 * ENTRIES + 1)]


def test_a_tail_holds_a_number_of_bytes() -> None:
    tail = tail_of(*entries(1, 100, "x" * (BYTES // 10)))
    assert tail.reaches(90)
    assert not tail.reaches(89)


def test_a_tail_holds_the_newest_entry_however_large_it_is() -> None:
    tail = tail_of(entry(1), entry(2, "x" * 2 * BYTES))
    assert numbers(tail.after(1)) == [2]
    assert tail.extend([entry(3)])
    assert not tail.reaches(1)
    assert numbers(tail.after(2)) == [3]


def test_what_was_forgotten_with_a_hole_counts_no_more() -> None:
    tail = tail_of(*entries(1, 9, "x" * (BYTES // 10)))
    tail.extend(entries(21, 30, "x" * (BYTES // 10)))
    assert tail.reaches(20)


def test_entries_are_given_out_a_piece_at_a_time() -> None:
    tail = tail_of(*entries(1, 10, "x" * (PIECE // 4)))
    assert numbers(tail.after(0)) == [1, 2, 3, 4]
    assert numbers(tail.after(8)) == [9, 10]


def test_an_entry_larger_than_a_piece_is_a_piece() -> None:
    tail = tail_of(*entries(1, 3, "x" * 2 * PIECE))
    assert numbers(tail.after(0)) == [1]
    assert numbers(tail.after(1)) == [2]


# -- only the latest -------------------------------------------------------------------------------------------------


def test_after_any_place_comes_the_latest_alone() -> None:
    tail = tail_of(*entries(4, 6), latest=True)
    assert tail.reaches(-1)
    assert numbers(tail.after(-1)) == numbers(tail.after(0)) == numbers(tail.after(5)) == [6]
    assert tail.after(6) == []


def test_a_tail_of_the_latest_holds_no_other() -> None:
    tail = tail_of(*entries(1, 50), latest=True)
    tail.latest = False
    assert numbers(tail.after(49)) == [50]
    assert not tail.reaches(48)


def test_a_tail_of_the_latest_that_has_seen_nothing_reaches_who_has_seen_the_last() -> None:
    tail = Tail(Id(5, 9), latest=True)
    assert tail.reaches(9)
    assert not tail.reaches(8)
    assert tail.after(8) == []


def test_the_latest_never_goes_back() -> None:
    """A reader of the log may be ahead of what is delivered."""
    tail = tail_of(*entries(4, 6), latest=True)
    assert tail.after(9) == []


# -- the bytes that are shared ---------------------------------------------------------------------------------------


def test_readers_of_one_form_and_framing_share_a_view() -> None:
    tail = Tail(START)
    view = tail.view(as_event, chunked)
    assert tail.view(as_event, chunked) is view
    assert tail.view(as_line, chunked) is not view
    assert tail.view(as_event, until_close) is not view


@pytest.mark.parametrize("form", [as_event, as_line])
def test_a_piece_is_all_that_comes_after_a_place_in_one_frame(form: Callable[[Entry], bytes]) -> None:
    tail = tail_of(*entries(4, 6))
    body = b"".join(map(form, entries(5, 6)))
    assert tail.view(form, chunked)[4] == (b"%x\r\n%b\r\n" % (len(body), body), Id(1006, 6), False, True)
    assert tail.view(form, until_close)[4] == (body, Id(1006, 6), False, True)


def test_a_piece_says_whether_the_log_ends_with_it_and_whether_it_is_the_newest() -> None:
    large = entry(1, '"' + "x" * PIECE + '"')
    tail = tail_of(large, entry(2))
    view = tail.view(as_line, until_close)
    assert view[0] == (as_line(large), Id(1001, 1), False, False)
    end = Entry(Id(1003, 3), "stream-end", "{}")
    tail.extend([end])
    assert view[2] == (as_line(end), Id(1003, 3), True, True)


def test_there_is_no_piece_at_the_end_nor_before_the_tail() -> None:
    view = tail_of(*entries(4, 6)).view(as_event, chunked)
    assert view[6] is view[2] is view[7] is None


def test_a_piece_is_made_once_for_all_who_are_at_one_place() -> None:
    made: list[int] = []

    def form(entry: Entry) -> bytes:
        made.append(entry.id.n)
        return as_line(entry)

    tail = tail_of(*entries(1, 3))
    view = tail.view(form, chunked)
    piece = view[1]
    assert piece is not None
    assert view[1] is piece
    assert made == [2, 3]
    assert view[0] is not None
    assert made == [2, 3, 1], "an entry is made once, whatever piece it is in"
    tail.extend([entry(4)])
    grown = view[1]
    assert grown is not None
    assert (grown.last, grown.newest) == (Id(1004, 4), True)
    assert made == [2, 3, 1, 4]


def test_what_was_remembered_is_forgotten_when_numbers_begin_again() -> None:
    tail = tail_of(entry(1, '"old"'), entry(2, '"old"'))
    view = tail.view(as_event, until_close)
    assert view[0] is not None
    tail.extend([entry(1, '"new"'), entry(2, '"new"')])
    assert view[0] == (as_event(entry(1, '"new"')) + as_event(entry(2, '"new"')), Id(1002, 2), False, True)


def test_places_without_end_are_not_remembered_without_end() -> None:
    tail = tail_of(*entries(1, 1000, "x" * 1000))
    view = tail.view(as_line, chunked)
    for number in range(1000):
        assert view[number] is not None
    tracemalloc.start()
    for number in range(1000):
        assert view[number] is not None
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 130 * PIECE


def test_the_bytes_of_entries_are_held_no_longer_than_the_entries() -> None:
    tail = Tail(START)
    view = tail.view(as_line, chunked)
    tracemalloc.start()
    for number in range(200):
        tail.extend([entry(number + 1, '"' + "x" * 100_000 + '"')])
        assert view[number] is not None
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 4 * BYTES


def test_entries_are_made_again_where_they_were_forgotten() -> None:
    tail = Tail(START)
    view = tail.view(as_line, until_close)
    for n in range(1, 4 * ENTRIES):
        tail.extend([entry(n)])
        assert view[n - 1] == (as_line(entry(n)), entry(n).id, False, True)
    rest = b"".join(map(as_line, entries(3 * ENTRIES + 1, 4 * ENTRIES - 1)))
    assert view[3 * ENTRIES] == (rest, tail.last, False, True)


def test_entries_of_the_log_are_framed_in_pieces() -> None:
    view = Tail(START).view(as_line, chunked)
    page = entries(1, 6, '"' + "x" * (PIECE // 3) + '"')
    pieces = list(view.pieces(page))
    assert [piece.last.n for piece in pieces] == [2, 4, 6]
    body = as_line(page[0]) + as_line(page[1])
    assert pieces[0].sent == b"%x\r\n%b\r\n" % (len(body), body)
    assert list(view.pieces([])) == []


def test_one_entry_is_framed_alone() -> None:
    gap = Entry(Id(5, 5), "stream-gap", "{}")
    body = b"event: stream-gap\ndata: {}\nid: 5-5\n\n"
    assert Tail(START).view(as_event, chunked).made(gap) == b"%x\r\n%b\r\n" % (len(body), body)


@pytest.mark.parametrize("seed", range(8))
def test_each_reader_gets_what_follows_its_place_however_the_tail_grows(seed: int) -> None:
    dice = random.Random(seed)
    tail, appended = Tail(START), 0
    views = [tail.view(form, until_close) for form in (as_event, as_line)]
    readers = dict.fromkeys(range(6), 0)
    for _ in range(300):
        if dice.random() < 0.3:
            more = dice.randrange(1, 200)
            size = dice.choice([1, 100, 9000])
            tail.extend(entries(appended + 1, appended + more, '"' + "x" * size + '"'))
            appended += more
        reader = dice.choice([*readers])
        piece = views[reader % 2][readers[reader]]
        if piece is None:
            if not tail.reaches(readers[reader]):
                readers[reader] = tail.last.n
            assert readers[reader] == appended
            continue
        got = piece.sent.count(b"\n\n" if reader % 2 == 0 else b"\n")
        assert piece.last.n == readers[reader] + got
        assert tail.after(readers[reader])[0].id.n == readers[reader] + 1
        readers[reader] = piece.last.n
