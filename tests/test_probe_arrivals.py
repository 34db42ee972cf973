"""The record of an answer, made from its bytes however they are cut."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rawstream.errors import ContentError
from rawstream.fields import Headers
from rawstream.probe.arrivals import Chunk, Ending, Mark, Recorder, Recording, changed

steady = settings(max_examples=60, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])

STAMP = b'{"rawstream-probe":%d,"of":3,"after":%s,"got":{"version":"1.0"},"set":{"A":"b"},"pad":"xx"}'
EVENTS = b"".join(b"id: %d\ndata: %b\n\n" % (n, STAMP % (n, b"0.%d" % n)) for n in (1, 2, 3))


def recorder(content_type: str = "text/event-stream", **more: str) -> Recorder:
    headers = [("Content-Type", content_type), *((name.replace("_", "-"), value) for name, value in more.items())]
    return Recorder(200, Headers(headers), "1.1", 0.001, 0.002)


def record(pieces: list[bytes], of: Recorder, ending: Ending = "complete") -> Recording:
    for place, piece in enumerate(pieces):
        of.body(float(place), piece)
    return of.end(float(len(pieces)), ending)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    bounds = [0, *sorted(place % len(data) for place in places), len(data)]
    return [data[start:end] for start, end in pairwise(bounds) if start < end]


@steady
@given(st.lists(st.integers(0, 10_000), max_size=12))
def test_stamps_are_found_however_the_stream_is_cut(places: list[int]) -> None:
    recording = record(cut(EVENTS, places), recorder())
    assert [(mark.number, mark.of, mark.sent) for mark in recording.marks] == [(1, 3, 0.1), (2, 3, 0.2), (3, 3, 0.3)]
    assert recording.messages == 3
    assert recording.ids == ("1", "3")
    assert recording.got == {"version": "1.0"}
    assert recording.sent == {"A": "b"}
    assert recording.size == len(EVENTS)
    assert recording.ending == "complete"


@steady
@given(st.lists(st.integers(0, 10_000), max_size=8), st.sampled_from(["gzip", "deflate"]))
def test_what_is_compressed_is_seen_as_it_was(places: list[int], coding: str) -> None:
    packed = gzip.compress(EVENTS) if coding == "gzip" else zlib.compress(EVENTS)
    recording = record(cut(packed, places), recorder(Content_Encoding=coding))
    assert len(recording.marks) == 3
    assert recording.size == len(EVENTS)
    assert sum(piece.raw for piece in recording.pieces) == len(packed)
    assert recording.coding_head == packed[:10]


def test_what_is_not_gzip_is_an_error() -> None:
    with pytest.raises(ContentError):
        recorder(Content_Encoding="gzip").body(0.0, b"no, this is not gzip")


def test_what_unpacks_to_very_much_is_unpacked_in_pieces() -> None:
    packed = gzip.compress(bytes(50_000_000))
    tracemalloc.start()
    recording = record([packed], recorder(Content_Encoding="gzip"))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert recording.size == 50_000_000
    assert most < 5_000_000


def test_a_coding_that_is_not_known_leaves_sizes_and_times() -> None:
    recording = record([b"\x0b\x02", b"\x80"], recorder(Content_Encoding="br"))
    assert recording.undecoded
    assert (recording.size, recording.messages, recording.marks) == (3, 0, ())


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_may_end_in_any_way_and_between_reads(end: str) -> None:
    text = f"data: a{end}{end}: beat{end}{end}data: b{end}{end}".encode()
    recording = record([text[place : place + 1] for place in range(len(text))], recorder())
    assert (recording.messages, recording.heartbeats) == (2, 1)


def test_it_is_seen_whether_a_read_ends_with_a_message() -> None:
    recording = record([b"data: a\n\n", b"data: b\n", b"\nda", b"ta: c\n\n"], recorder())
    assert [piece.whole for piece in recording.pieces] == [True, False, False, True]
    assert [piece.messages for piece in recording.pieces] == [1, 0, 1, 1]


def test_lines_of_text_are_messages_too() -> None:
    recording = record([b"one\ntw", b"o\n"], recorder("text/plain"))
    assert [(piece.messages, piece.whole) for piece in recording.pieces] == [(1, False), (1, True)]


def test_an_end_before_the_last_stamp_is_a_cut() -> None:
    """Where only the connection's close marks the end, nothing else would tell."""
    assert record([EVENTS[:150]], recorder()).ending == "cut"
    assert record([EVENTS[:150]], recorder(), "stopped").ending == "stopped"


@pytest.mark.parametrize(
    "line",
    [
        b'{"rawstream-probe":"x","of":3,"after":1}',
        b'{"rawstream-probe":1,"of":3}',
        b'{"rawstream-probe":1',
        b'{"rawstream-probe":1,"of":3,"after":"soon"}',
        b"x" * 400_000,
    ],
)
def test_what_only_looks_like_a_stamp_is_none(line: bytes) -> None:
    assert record([b"data: " + line + b"\n\n"], recorder()).marks == ()


def test_a_stream_without_stamps_is_not_kept() -> None:
    """Megabytes without a line's end."""
    of = recorder("text/plain")
    for place in range(64):
        of.body(float(place), b"x" * 65536)
    assert of.end(64.0, "stopped").size == 64 * 65536


def test_times_are_told_from_what_came() -> None:
    of = recorder()
    of.body(1.0, b"")
    of.body(2.0, b"data: x\n\n")
    of.chunk(2.0, 9)
    recording = of.end(5.0, "stopped")
    assert recording.first_byte == 2.0
    assert recording.silence == 3.0
    assert recording.chunks == (Chunk(2.0, 9),)
    assert recording.content_type == "text/event-stream"


def test_a_stamp_knows_where_its_chunk_ends() -> None:
    of = recorder("text/plain")
    of.body(0.5, STAMP % (1, b"0.25") + b"\n")
    assert of.marks == [Mark(1, 3, 0.25, 0.5, len(STAMP % (1, b"0.25")) + 1)]


def test_fields_that_came_and_went_are_found_by_name() -> None:
    headers = Headers([("server", "x"), ("content-type", "text/plain"), ("Gone-Wrong", "2")])
    assert changed({"Content-Type": "text/plain", "X-Accel-Buffering": "no", "Gone-Wrong": "1"}, headers) == (
        ["server"],
        ["X-Accel-Buffering", "Gone-Wrong"],
    )


def test_a_list_to_which_somebody_added_is_not_changed() -> None:
    headers = Headers([("Vary", "Accept-Encoding, Accept"), ("vary", "Origin")])
    assert changed({"Vary": "Accept"}, headers) == ([], [])
    assert changed({"Vary": "Accept, Cookie"}, headers) == ([], ["Vary"])
