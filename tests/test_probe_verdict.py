"""The verdict from arrivals alone: made-up streams, through made-up buffers."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Iterable

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from rawstream.fields import Headers
from rawstream.probe.arrivals import Mark, Piece, Recording
from rawstream.probe.bursts import bursts, fixed_size, threshold
from rawstream.probe.findings import Finding, seconds
from rawstream.probe.inference import compared, infer
from rawstream.probe.verdict import judge
from rawstream.terminal import size as size_of

steady = settings(max_examples=60, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])

SSE = Headers([("Content-Type", "text/event-stream"), ("Server", "nginx/1.22"), ("Via", "1.1 varnish")])
TEXT = Headers([("Content-Type", "text/plain")])
BARE = Headers([("Content-Type", "text/event-stream")])

# -- streams whose chunks say when they were sent ----------------------------------------------------------------------


def stamped(
    sent: list[float], arrived: list[float], size: int = 100, ending: str = "complete", end: float | None = None
) -> Recording:
    """Chunks of `size` bytes, each with the time at which it was sent and that at which it came."""
    marks = tuple(
        Mark(place + 1, len(sent), before, after, (place + 1) * size)
        for place, (before, after) in enumerate(zip(sent, arrived, strict=False))
    )
    pieces = tuple(Piece(mark.arrived, size, size, 1) for mark in marks)
    ended = max([*arrived, 0.0]) if end is None else end
    return Recording(200, SSE, head_at=0.0, pieces=pieces, marks=marks, ended_at=ended, ending=ending)  # type: ignore[arg-type]


def paced(count: int = 16, step: float = 0.1) -> list[float]:
    return [step * place for place in range(count)]


def at_once(sent: list[float]) -> list[float]:
    return [time + 0.002 for time in sent]


def by_the_end(sent: list[float]) -> list[float]:
    return [sent[-1] + 0.002] * len(sent)


def by_number(number: int) -> Callable[[list[float]], list[float]]:
    """A buffer for so many chunks."""

    def arrived(sent: list[float]) -> list[float]:
        last = len(sent) - 1
        return [sent[min(place - place % number + number - 1, last)] + 0.002 for place in range(len(sent))]

    return arrived


def one_behind(sent: list[float]) -> list[float]:
    return [after + 0.002 for after in [*sent[1:], sent[-1]]]


WAYS = {
    "streams": at_once,
    "held": by_the_end,
    "batches": by_number(4),
}


@pytest.mark.parametrize("kind", WAYS)
def test_a_stream_is_what_its_arrivals_make_it(kind: str) -> None:
    assert judge(stamped(paced(), WAYS[kind](paced()))).kind == kind


@steady
@given(
    kind=st.sampled_from(sorted(WAYS)),
    scale=st.floats(0.3, 300),
    delay=st.floats(0, 20),
    count=st.integers(10, 80),
    seed=st.integers(0, 2**16),
)
def test_slowness_jitter_distance_and_names_change_no_verdict(
    kind: str, scale: float, delay: float, count: int, seed: int
) -> None:
    """The origin pauses as it likes, and each chunk is up to a tenth of a pause late."""
    rnd = random.Random(seed)
    sent = [0.0]
    for _ in range(count - 1):
        sent.append(sent[-1] + 0.1 * scale * rnd.uniform(0.7, 1.4))
    arrived = [time + delay + 0.01 * scale * rnd.random() for time in WAYS[kind](sent)]
    arrived = [max(arrived[: place + 1]) for place in range(count)]
    recording = stamped(sent, arrived)
    assert judge(recording).kind == kind
    assert judge(dataclasses.replace(recording, headers=BARE)) == judge(recording)


@steady
@given(st.integers(2, 12), st.floats(0.02, 2))
def test_batches_are_found_whatever_their_size(number: int, step: float) -> None:
    sent = paced(number * 5 + 1, step)
    finding = judge(stamped(sent, by_number(number)(sent), size=1000))
    assert finding.kind == "batches"
    exact, power = number * 1000, 1 << (number * 1000).bit_length() - 1
    assert finding.batch == (power if exact - power < 1000 <= power / 4 else exact)
    assert finding.words.startswith(f"arrives in batches of {size_of(finding.batch)}, one each ")


@pytest.mark.parametrize("buffer", [2048, 4096, 8192, 65536])
def test_a_buffer_that_lets_go_behind_a_whole_chunk_is_told_by_its_size(buffer: int) -> None:
    sent = paced(buffer // 300 * 6, 0.01)
    assert judge(stamped(sent, by_number(-(-buffer // 300))(sent), size=300)).batch == buffer


def test_chunks_cut_by_a_buffer_not_much_larger_than_they_are_all_late() -> None:
    """Each is complete only when one or two more have come."""
    sent = paced(30)
    ends = [1531 * (place + 1) for place in range(30)]
    full = [
        next(time for time, held in zip(sent, ends, strict=True) if held >= -(-end // 2000) * 2000) for end in ends[:-2]
    ]
    recording = stamped(sent, [*full, sent[-1], sent[-1]])
    assert judge(recording).kind == "batches"


def test_a_line_that_is_too_slow_is_no_buffer() -> None:
    """Each chunk is later than the one before, and the last most of all."""
    sent = paced(30)
    assert judge(stamped(sent, [1.6 * time for time in sent])).kind == "streams"


def test_a_line_so_slow_that_nearly_all_comes_behind_the_last_sending_holds_nothing() -> None:
    """But who waits for the end does, though he let some go at first."""
    slowly = [1.0 * place for place in range(16)]
    assert judge(stamped(paced(), slowly)).kind == "streams"
    assert judge(stamped(paced(), [0.0, 0.1, *[1.5] * 14])).words == "held until the end"


def test_what_is_gathered_with_its_framing_is_measured_with_it() -> None:
    sent = paced(33)
    recording = stamped(sent, by_number(8)(sent), size=500)
    pieces = tuple(dataclasses.replace(piece, wire=512) for piece in recording.pieces)
    assert judge(recording).batch == 4000
    assert judge(dataclasses.replace(recording, pieces=pieces)).batch == 4096


@steady
@example(1, 12)
@given(st.integers(0, 15), st.integers(1, 10))
def test_a_machine_that_stands_still_once_holds_nothing_back(start: int, length: int) -> None:
    sent = paced()
    wakes = sent[min(start + length, 15)]
    arrived = [max(time, wakes) if start <= place < start + length else time for place, time in enumerate(sent)]
    assert judge(stamped(sent, arrived)).kind == "streams"


def test_the_longest_wait_of_what_streams_is_told_with_all_that_waited() -> None:
    together = [max(time, 0.76) if time > 0.15 else time for time in paced()]
    assert judge(stamped(paced(), together)).notes == ("6 chunks came together, the first of them 0.6 s late",)
    alone = [*paced(15), 3.0]
    assert judge(stamped(paced(), alone)).notes == ("one chunk was 1.5 s late",)


def test_bursts_of_the_origins_own_are_no_batches() -> None:
    sent = [place // 5 * 1.0 + place % 5 * 0.0001 for place in range(30)]
    assert judge(stamped(sent, [time + 0.001 for time in sent])).kind == "streams"
    assert judge(stamped(sent, [place // 5 + 0.001 for place in range(30)])).kind == "streams"


def test_a_buffer_behind_an_origin_with_bursts_is_found() -> None:
    sent = [place // 5 * 1.0 + place % 5 * 0.0001 for place in range(40)]
    assert judge(stamped(sent, by_number(10)(sent))).kind == "batches"


def test_each_chunk_waiting_for_the_next_is_told() -> None:
    finding = judge(stamped(paced(), one_behind(paced())))
    assert (finding.kind, finding.words) == ("batches", "arrives one chunk late: each waits for the next one")


def test_a_long_way_alone_is_no_holding_back_but_is_told() -> None:
    finding = judge(stamped(paced(), [time + 3 for time in paced()]))
    assert finding.kind == "streams"
    assert finding.notes == ("every chunk takes 3.0 s to come",)


def test_chunks_older_than_the_request_came_from_a_cache() -> None:
    finding = judge(stamped(paced(), [0.002] * 16))
    assert finding.kind == "unknown"
    assert "cache" in finding.words


def test_nothing_can_be_held_back_that_was_sent_at_once() -> None:
    sent = [0.001 * place for place in range(5)]
    assert judge(stamped(sent, [0.006] * 5)).kind == "unknown"


def test_two_chunks_that_come_together_tell_nothing_and_two_that_do_not_stream() -> None:
    assert judge(stamped([0.0, 0.1], [0.1, 0.1])).kind == "unknown"
    assert judge(stamped([0.0, 0.1], [0.0, 0.1])).kind == "streams"


@steady
@given(st.floats(1, 100))
def test_what_is_cut_in_a_silence_is_cut_for_it(scale: float) -> None:
    recording = stamped([0.0, 0.1 * scale, 5 * scale], [0.0, 0.1 * scale], ending="cut", end=1.1 * scale)
    finding = judge(recording)
    assert (finding.kind, finding.words) == ("cut", f"cut after {seconds(scale)} idle")
    assert finding.notes == ("chunk 2 of 3 was the last to come",)


def test_what_breaks_off_in_full_flow_was_not_cut_for_its_silence() -> None:
    recording = stamped(paced(), paced(10), ending="cut", end=0.95)
    assert judge(recording).kind == "failed"


def test_a_stream_that_we_left_is_held_back_if_all_came_at_once() -> None:
    finding = judge(stamped(paced(), by_the_end(paced()), ending="stopped", end=5.0))
    assert finding.words == "arrives in batches: the first 16 chunks at once after 1.5 s"


# -- streams of which nobody knows -------------------------------------------------------------------------------------


def recorded(
    pieces: Iterable[tuple[float, int, int, bool]], headers: Headers = SSE, ending: str = "complete", **how: float
) -> Recording:
    """Reads: time, bytes, messages, and whether the last message is whole."""
    made = tuple(Piece(at, size, size, messages, 0, whole) for at, size, messages, whole in pieces)
    ended = how.pop("end", made[-1].at if made else 8.0)
    return Recording(200, headers, head_at=0.0, pieces=made, ended_at=ended, ending=ending)  # type: ignore[arg-type]


def flushed(size: int, every: float = 0.5, count: int = 8, headers: Headers = SSE) -> Recording:
    """A buffer of exactly this size."""
    full = [(every * (place + 1), size, size // 120, False) for place in range(count)]
    return recorded([*full, (every * (count + 0.4), size // 3, size // 360, True)], headers)


@steady
@given(size=st.integers(300, 100_000), scale=st.floats(0.2, 60))
def test_messages_torn_at_each_flush_are_a_buffers_doing(size: int, scale: float) -> None:
    finding = infer(flushed(size, scale))
    assert (finding.kind, finding.inferred) == ("batches", True)
    assert infer(dataclasses.replace(flushed(size, scale), headers=BARE)) == finding


def test_one_torn_flush_counts_if_it_is_as_large_as_a_buffer() -> None:
    """A stream that fills a buffer once, and ends with the rest of it. At any other size it may be chance."""
    filled, odd = (infer(flushed(size, count=1)) for size in (32768, 32700))
    assert filled.words.startswith("arrives in batches of 32 KiB, ")
    assert odd.kind == "streams"


@pytest.mark.parametrize("size", [1024, 4096, 8192, 16384, 65536])
def test_the_size_of_a_buffer_is_told(size: int) -> None:
    assert infer(flushed(size)).words == f"arrives in batches of {size_of(size)}, one each 0.5 s"
    assert infer(flushed(size, headers=TEXT)).kind == "batches"


@steady
@given(seed=st.integers(0, 2**16), scale=st.floats(0.5, 100), number=st.integers(1, 3))
def test_a_slow_or_jittery_origin_is_not_accused(seed: int, scale: float, number: int) -> None:
    """One to three whole messages at any time, of any size."""
    rnd = random.Random(seed)
    at, pieces = 0.0, []
    for _ in range(30):
        at += scale * rnd.expovariate(8)
        count = rnd.randint(1, number)
        pieces.append((at, sum(rnd.randint(20, 400) for _ in range(count)), count, True))
    assert infer(recorded(pieces, end=at + scale)).kind == "streams"


@steady
@given(st.integers(2, 40), st.floats(0.2, 10), st.booleans(), st.integers(30, 300))
def test_bursts_that_an_origin_makes_itself_are_not_accused(number: int, every: float, late: bool, size: int) -> None:
    """An accident only would give each the size of a buffer: a power of two, and less than a message more."""
    pieces = [(every * (place + late), number * size, number, True) for place in range(6)]
    power = 1 << ((number * size).bit_length() - 1)
    assume(number * size - power >= size or number * size < 1024)
    finding = infer(recorded(pieces))
    assert finding.kind == "streams"
    assert finding.inferred


def test_a_buffer_that_flushes_behind_a_message_is_known_by_its_threshold() -> None:
    rnd = random.Random(7)
    pieces = []
    for place in range(8):
        sizes = [rnd.randint(60, 200)]
        while sum(sizes) < 5000:
            sizes.append(rnd.randint(60, 200))
        pieces.append((0.5 * (place + 1), sum(sizes), len(sizes), True))
    finding = infer(recorded(pieces))
    assert finding.kind == "batches"
    assert 4800 < (finding.batch or 0) < 5200


def test_a_buffer_is_not_full_at_once() -> None:
    """Bursts that are just larger than 4 KiB: the first one comes too early to have been gathered, or it does not."""
    early = [(0.5 * place, 32 * 130, 32, True) for place in range(6)]
    late = [(0.5 + at, size, messages, whole) for at, size, messages, whole in early]
    assert infer(recorded(early)).kind == "streams"
    assert infer(recorded(late)).words == "arrives in batches of 4 KiB, one each 0.5 s"


def test_two_full_buffers_are_enough_where_we_stopped_listening() -> None:
    """Nothing of the third has come, so the second was let go as the first was: not by an end."""
    full = [(3.5 * place, 4000, 40, False) for place in (1, 2)]
    listened = recorded(full, ending="stopped", end=8.0)
    assert infer(listened).words == "arrives in batches of about 3.9 KiB, one each 3.5 s"
    # But it counts only if it was whole when we stopped: the rest of it might have been under way.
    assert infer(dataclasses.replace(listened, ended_at=7.0)).kind == "streams"
    assert infer(recorded(full)).kind == "streams"


def test_text_without_lines_is_in_batches_where_each_fills_a_buffer() -> None:
    prose = [(2.3 * place, 4096, 0, False) for place in (1, 2, 3)]
    assert infer(recorded(prose, TEXT, "stopped", end=8.0)).words == "arrives in batches of 4 KiB, one each 2.3 s"
    # Who begins at once has gathered nothing.
    early = [(at - 2.3, size, messages, whole) for at, size, messages, whole in prose]
    assert infer(recorded(early, TEXT, "stopped", end=8.0)).kind == "streams"
    odd = [(at, size + place * 100, messages, whole) for place, (at, size, messages, whole) in enumerate(prose)]
    assert infer(recorded(odd, TEXT, "stopped", end=8.0)).kind == "streams"


def test_a_flood_is_gathered_by_its_reader_alone() -> None:
    """Who reads 256 KiB at a time, and looks at them, finds as much again."""
    size = 261_129
    flood = [(size * place / 3_000_000, size, size // 12, False) for place in range(1, 30)]
    assert infer(recorded(flood, ending="stopped")).kind == "streams"


def test_all_events_with_the_end_are_held_and_it_says_that_it_infers() -> None:
    finding = infer(recorded([(3.0, 2000, 20, True), (3.001, 300, 3, True)]))
    assert (finding.kind, finding.inferred) == ("held", True)
    assert "would look the same" in finding.notes[-1]


def test_who_thinks_for_long_and_then_speaks_fast_is_not_accused() -> None:
    finding = infer(recorded([(3 + 0.004 * place, 40, 1, True) for place in range(40)]))
    assert finding.words == "streams: it flows without a pause"


@pytest.mark.parametrize(
    "pieces",
    [
        [(0.01, 100, 1, True)],  # over at once
        [(3.0, 100, 1, True)],  # one event, late: thought about
        [(0.01, 1000, 20, True)],  # many, at once
    ],
)
def test_what_cannot_be_told_is_said_to_be_so(pieces: list[tuple[float, int, int, bool]]) -> None:
    assert infer(recorded(pieces)).kind == "unknown"


def test_a_replay_and_then_silence_cannot_be_told() -> None:
    assert infer(recorded([(0.01, 5000, 50, True)], ending="stopped", end=8.0)).kind == "unknown"


def test_silence_cannot_be_told() -> None:
    assert infer(recorded([], ending="stopped", end=8.0)).words == "was silent for 8.0 s: nothing to judge by"


def test_heartbeats_alone_are_a_stream() -> None:
    pieces = tuple(Piece(1.0 * place, 3, 3, 0, 1) for place in range(6))
    finding = infer(Recording(200, SSE, pieces=pieces, ended_at=6.0, ending="stopped"))
    assert (finding.kind, finding.words) == ("streams", "streams: 6 heartbeats and nothing else, one each 1.0 s")


def test_a_fast_flow_is_a_stream() -> None:
    pieces = [(0.002 * place, 65536, 600, False) for place in range(500)]
    assert infer(recorded(pieces)).kind == "streams"


@pytest.mark.parametrize(
    "headers",
    [
        Headers([("Content-Type", "text/html")]),
        Headers([("Content-Length", "900")]),
        Headers([("Content-Type", "image/png")]),
    ],
)
def test_a_document_is_no_stream(headers: Headers) -> None:
    assert infer(recorded([(2.0, 900, 9, True)], headers)).kind == "no stream"


def test_what_comes_bit_by_bit_streams_even_if_its_length_was_known() -> None:
    headers = Headers([("Content-Type", "text/plain"), ("Content-Length", "40960")])
    assert infer(flushed(4096, headers=headers)).kind == "streams"


def test_a_slow_answer_in_json_is_not_accused() -> None:
    headers = Headers([("Content-Type", "application/json"), ("Transfer-Encoding", "chunked")])
    assert infer(recorded([(2.0, 9000, 0, True)], headers)).kind == "unknown"


def test_a_cut_in_the_usual_pauses_is_no_idle_cut() -> None:
    pieces = [(0.5 * place, 100, 1, True) for place in range(6)]
    assert infer(recorded(pieces, ending="cut", end=2.9)).kind == "failed"
    assert infer(recorded(pieces, ending="cut", end=9.0)).words == "cut after 6.5 s idle"


def test_a_gateway_that_gave_up_cut_it() -> None:
    finding = infer(Recording(504, TEXT, ended_at=60.0))
    assert finding.words == "cut after 60.0 s idle: a proxy answered 504"


@pytest.mark.parametrize(
    ("status", "headers", "words"),
    [
        (404, (), "answered 404 Not Found"),
        (401, (), "answered 401 Unauthorized: --header 'Authorization: ...' may help"),
        (405, [("Allow", "POST")], "answered 405 Method Not Allowed: it allows POST; --data asks by POST"),
        (599, (), "answered 599"),
    ],
)
def test_a_refusal_is_told_with_what_would_help(status: int, headers: list[tuple[str, str]], words: str) -> None:
    assert infer(Recording(status, Headers(headers))).words == words


def test_an_answer_without_content_is_no_stream() -> None:
    finding = infer(Recording(204, ended_at=0.01))
    assert (finding.kind, finding.words) == ("no stream", "is no stream: answered 204 No Content")


def test_a_redirect_is_told_with_the_url_that_it_leads_to() -> None:
    finding = infer(Recording(302, redirect="http://a/there"))
    assert finding.words == "answered 302 Found: it leads to http://a/there, so probe that"
    assert infer(Recording(302)).words == "answered 302 Found"


# -- one way against another -------------------------------------------------------------------------------------------

STEADY = recorded([(0.2 * place, 100, 1, True) for place in range(20)])


@pytest.mark.parametrize("ending", ["complete", "stopped"])
def test_silence_where_another_way_streams_is_holding_back(ending: str) -> None:
    silent = recorded([], ending="stopped", end=4.0)
    whole = recorded([(3.9, 2000, 20, True)], ending=ending, end=4.0)
    unanswered = Recording(ended_at=4.0, ending="failed", timed_out=True)
    for recording in (silent, whole, unanswered):
        assert compared(infer(recording), recording, STEADY).kind == "held"


def test_a_short_text_that_a_compressor_has_gathered_is_held_though_it_has_a_length() -> None:
    steady = dataclasses.replace(STEADY, headers=TEXT)
    headers = Headers([("Content-Type", "text/plain"), ("Content-Encoding", "gzip"), ("Content-Length", "90")])
    gathered = recorded([(4.0, 2000, 20, True)], headers)
    finding = infer(gathered)
    assert finding.kind == "no stream"
    assert compared(finding, gathered, steady).kind == "held"


@pytest.mark.parametrize("kind", ["application/json", "text/html"])
def test_what_is_of_another_type_is_another_thing(kind: str) -> None:
    """Many give a stream to who accepts events, and a whole document to others, as late as the stream would end."""
    document = recorded([(4.0, 2000, 20, True)], Headers([("Content-Type", kind)]))
    finding = infer(document)
    assert compared(finding, document, STEADY) == finding


def packed(pieces: Iterable[tuple[float, int, int, bool]]) -> Recording:
    return dataclasses.replace(recorded(pieces, ending="stopped", end=4.0), coding="gzip")


def test_whole_messages_that_come_five_at_a_time_only_where_they_are_compressed_are_gathered() -> None:
    gathered = packed([(0.98 * place, 500, 5, True) for place in (1, 2, 3)])
    finding = infer(gathered)
    assert finding.kind == "streams"
    assert compared(finding, gathered, STEADY).words == "arrives in batches, one each 1.0 s"
    # But not where the stream itself has bursts, or came twice in two moments.
    assert compared(finding, gathered, recorded([(0.98 * place, 500, 5, True) for place in (1, 2, 3)])) == finding
    some = packed([(0.4 * place, 200, 2, True) for place in range(1, 9)])
    assert compared(infer(some), some, STEADY).kind == "streams"


def test_what_is_over_sooner_than_the_other_is_not_held() -> None:
    short = recorded([(0.01, 100, 1, True)])
    finding = infer(short)
    assert compared(finding, short, STEADY) == finding


# -- parts -------------------------------------------------------------------------------------------------------------


def test_reads_are_one_burst_where_the_pauses_are_much_longer() -> None:
    pieces = [Piece(1.0 * place + 0.03 * part, 100, 100) for place in range(5) for part in range(4)]
    assert [len(burst.pieces) for burst in bursts(pieces)] == [4] * 5


def test_one_long_pause_does_not_make_bursts_of_a_steady_flow() -> None:
    times = [0.05 * place for place in range(20)] + [4 + 0.05 * place for place in range(20)]
    assert len(bursts([Piece(at, 100, 100) for at in times])) == 40


@pytest.mark.parametrize(
    ("sizes", "found"), [([4096] * 4, 4096), ([4096, 4100, 4090], 4096), ([4096], None), ([1500] * 4, None)]
)
def test_a_fixed_size_is_that_of_a_buffer(sizes: list[int], found: int | None) -> None:
    made = bursts([Piece(1.0 * place, size, size) for place, size in enumerate(sizes)])
    assert fixed_size(made) == found


def test_a_threshold_needs_more_than_chance() -> None:
    same = [Piece(1.0 * place, 1500, 1500, 5) for place in range(5)]
    assert threshold(bursts(same)) is None


@pytest.mark.parametrize(
    ("value", "words"),
    [(0.0004, "0 ms"), (0.04, "40 ms"), (0.0999, "0.1 s"), (1.55, "1.6 s"), (99.9, "100 s"), (3600, "3600 s")],
)
def test_seconds_as_people_say_them(value: float, words: str) -> None:
    assert seconds(value) == words


def test_only_three_kinds_are_bad() -> None:
    kinds = ("streams", "batches", "held", "cut", "unknown", "no stream", "failed")
    assert [kind for kind in kinds if Finding(kind, "").bad] == ["batches", "held", "cut"]  # type: ignore[arg-type]
