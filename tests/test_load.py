"""The load generator and its parsers, against answers whose bytes, cuts and times are known."""

import itertools
import socket
import ssl
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pytest
import trustme

from benchmarks.answer import (
    AnswerParser,
    Chunk,
    Event,
    HeldBack,
    Read,
    WrongAnswer,
    check_arrival,
    check_events,
    check_head,
    events_of,
    parse,
)
from benchmarks.load import PLAIN, Load, Transfer, answer_length, ask, keep_asking, reader_cost, request, segments_in

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n"
SHORT = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
LAST = b"0\r\n\r\n"


def event(stamp: int) -> bytes:
    return b"data: %018d\n\n" % stamp


def chunk(payload: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(payload), payload)


STREAM = HEAD + chunk(event(1)) + chunk(event(2) + event(3)) + LAST


def whole(data: bytes) -> list[bytes]:
    return [data]


def byte_by_byte(data: bytes) -> list[bytes]:
    return [bytes([byte]) for byte in data]


def in_threes(data: bytes) -> list[bytes]:
    return [data[at : at + 3] for at in range(0, len(data), 3)]


def at_times(pieces: Sequence[bytes], times: Iterator[int] | None = None) -> list[Read]:
    return [Read(now, piece) for now, piece in zip(times or itertools.count(100), pieces, strict=False)]


every_way = pytest.mark.parametrize("cut", [whole, byte_by_byte, in_threes])


# -- taking an answer apart --------------------------------------------------------------------------------------------


@every_way
def test_an_answer_in_chunks_is_read_however_it_is_cut(cut: Callable[[bytes], list[bytes]]) -> None:
    answer = parse(at_times(cut(STREAM)))
    assert (answer.status, answer.complete, answer.rest) == (200, True, b"")
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert [chunk.payload for chunk in answer.chunks] == [event(1), event(2) + event(3)]


@every_way
def test_an_answer_with_a_length_is_read_however_it_is_cut(cut: Callable[[bytes], list[bytes]]) -> None:
    answer = parse(at_times(cut(SHORT + b"trailing")))
    assert (answer.body, answer.complete, answer.rest) == (b"ok", True, b"trailing")


def test_bytes_after_the_last_chunk_stay_in_rest() -> None:
    answer = parse(at_times([STREAM + b"HTTP/1.1 400"]))
    assert answer.complete
    assert answer.rest == b"HTTP/1.1 400"


def test_a_chunk_arrives_with_the_read_that_brings_its_last_byte() -> None:
    first, second = chunk(event(1)), chunk(event(2))
    reads = [Read(10, HEAD + first[:5]), Read(20, first[5:] + second + first[:-1]), Read(30, first[-1:])]
    assert parse(reads).chunks == [Chunk(20, event(1)), Chunk(20, event(2)), Chunk(30, event(1))]


def test_a_chunk_may_have_an_extension_and_leading_zeros() -> None:
    assert parse(at_times([HEAD + b"0002;name=value\r\nok\r\n" + LAST])).body == b"ok"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"SSH-2.0-OpenSSH\r\n\r\n", "not a status line"),
        (b"HTTP/1.1 OK\r\n\r\n", "not a status line"),
        (b"HTTP/1.1 200 OK\r\nnonsense\r\n\r\n", "not a header field"),
        (b"HTTP/1.1 200 OK\r\n\r\n", "neither a Content-Length nor chunks"),
        (HEAD + b"data: 1\r\n", "not the length of a chunk"),
        (HEAD + b"2\r\nokay\r\n", "does not end after 2 bytes"),
    ],
)
def test_what_is_not_http_is_a_wrong_answer(data: bytes, words: str) -> None:
    with pytest.raises(WrongAnswer, match=words):
        parse(at_times([data]))


def test_an_event_across_chunks_arrives_with_the_last_of_them() -> None:
    answer = AnswerParser()
    answer.chunks = [Chunk(10, event(1) + event(2)[:7]), Chunk(20, event(2)[7:-1]), Chunk(30, b"\n" + event(3))]
    found = events_of(answer)
    assert found.events == [Event(1, 10), Event(2, 30), Event(3, 30)]
    assert [found.events[1].latency, found.others, found.rest] == [28, [], b""]


def test_other_events_are_told_apart() -> None:
    answer = AnswerParser()
    answer.chunks = [Chunk(10, b": comment\n\n" + event(1) + b"data: 17\n\n" + b"data: unfinis")]
    found = events_of(answer)
    assert (found.events, found.others, found.rest) == ([Event(1, 10)], [b": comment", b"data: 17"], b"data: unfinis")


# -- checking an answer ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", [b"", chunk(b"event: stream-end\ndata: {}\nid: stream-end\n\n")])
def test_a_right_answer_passes_the_check(end: bytes) -> None:
    answer = parse(at_times([HEAD + chunk(event(1) + event(2)) + end + LAST]))
    assert check_events(answer, 2) == [Event(1, 100), Event(2, 100)]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (STREAM.replace(b"200 OK", b"500 Oh"), "status 500 instead of 200"),
        (STREAM.replace(b"text/event-stream", b"text/html"), "Content-Type text/html"),
        (STREAM.replace(b"Transfer-Encoding", b"Content-Encoding: gzip\r\nTransfer-Encoding"), "coding is gzip"),
        (SHORT.replace(b"Content-Length", b"Content-Type: text/event-stream\r\nContent-Length"), "not chunked"),
        (STREAM[:-1], "cut before its end"),
        (STREAM + b"more", "bytes after the end"),
        (HEAD + chunk(event(1) + event(2)) + LAST, "2 events instead of 3"),
        (HEAD + chunk(event(1) + event(3) + event(2)) + LAST, "out of order"),
        (HEAD + chunk(event(1) + b"data: hello\n\n") + LAST, "another kind: b'data: hello'"),
        (HEAD + chunk(event(1) + event(2)[:-1]) + LAST, "has no end"),
    ],
)
def test_a_wrong_answer_is_named(data: bytes, words: str) -> None:
    with pytest.raises(WrongAnswer, match=words):
        check_events(parse(at_times([data])), 3)


def test_the_head_alone_can_be_checked() -> None:
    check_head(parse(at_times([HEAD + chunk(event(1))])))


ZIPPED = HEAD.replace(b"Transfer-Encoding", b"Content-Encoding: gzip\r\nTransfer-Encoding")


def zipped(*events: bytes, end: bool = True) -> bytes:
    """A gzip stream in chunks: each event with a flush, as a server sends it that holds nothing back."""
    deflate = zlib.compressobj(wbits=31)
    pieces = [chunk(deflate.compress(each) + deflate.flush(zlib.Z_SYNC_FLUSH)) for each in events]
    return ZIPPED + b"".join(pieces) + (chunk(deflate.flush()) if end else b"") + LAST


@every_way
def test_a_compressed_stream_is_decoded_chunk_by_chunk(cut: Callable[[bytes], list[bytes]]) -> None:
    answer = parse(at_times(cut(zipped(event(1), event(2)))))
    assert [found.stamped for found in check_events(answer, 2, "gzip")] == [1, 2]
    assert [found.payload for found in answer.chunks] == [event(1), event(2), b""]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (STREAM, "coding is none instead of gzip"),
        (ZIPPED + chunk(event(1)) + LAST, "not gzip"),
        (zipped(event(1), end=False), "does not end where the answer ends"),
        (zipped(event(1))[: -len(LAST)] + chunk(b"more") + LAST, "does not end where the answer ends"),
    ],
)
def test_what_is_not_compressed_as_it_says_is_named(data: bytes, words: str) -> None:
    with pytest.raises(WrongAnswer, match=words):
        check_events(parse(at_times([data])), 1, "gzip")


def test_who_holds_events_back_is_found_and_a_slow_moment_is_forgiven() -> None:
    ms = 1_000_000
    check_arrival([Event(n * 20 * ms, n * 20 * ms + (90 * ms if n == 2 else ms)) for n in range(6)], 0.02)
    with pytest.raises(HeldBack, match="5 of 6 events came only when later ones were due"):
        check_arrival([Event(n * 20 * ms, 115 * ms) for n in range(6)], 0.02)


# -- a server of known behaviour ---------------------------------------------------------------------------------------


@contextmanager
def server(*answers: Sequence[bytes], linger: bool = False) -> Iterator[int]:
    """Answers the requests of one connection after the other, each with its pieces, each piece a segment of its own.

    With `linger` the connections stay open until the test ends.
    """
    failures: list[BaseException] = []
    kept: list[socket.socket] = []

    def serve() -> None:
        try:
            for pieces in answers:
                sock, _ = listener.accept()
                kept.append(sock)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                request = b""
                while not request.endswith(b"\r\n\r\n"):
                    request += sock.recv(1000)
                for piece in pieces:
                    sock.sendall(piece)
                if not linger:
                    sock.shutdown(socket.SHUT_WR)
        except BaseException as exc:
            failures.append(exc)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            thread.join(10)
            for sock in kept:
                sock.close()
    assert not failures
    assert not thread.is_alive()


def far_away() -> int:
    """A time by which every test has ended, in nanoseconds of the monotonic clock."""
    return time.monotonic_ns() + 20_000_000_000


@pytest.mark.parametrize("linger", [False, True])
@every_way
def test_the_load_reads_an_answer_to_its_end(cut: Callable[[bytes], list[bytes]], linger: bool) -> None:
    """The end is seen even if the connection stays open, and however the last chunk is cut."""
    with server(cut(STREAM), linger=linger) as port, Load() as load:
        reader = load.ask(port, "/any")
        load.run(far_away())
        assert reader.ended
        assert b"".join(read.data for read in reader.reads) == STREAM


@pytest.mark.parametrize("read_bytes", [1, 2, 5, 7, 1000])
def test_the_load_sees_the_end_with_reads_of_any_size(read_bytes: int) -> None:
    with server([STREAM], linger=True) as port, Load(read_bytes=read_bytes) as load:
        reader = load.ask(port, "/any")
        load.run(far_away())
        assert [len(read.data) for read in reader.reads[:-1]] == [read_bytes] * (len(reader.reads) - 1)
        assert check_events(parse(reader.reads), 3)


def test_a_head_that_ends_in_a_zero_is_not_the_end() -> None:
    """`…: 0` and an empty line has the bytes of a last chunk, but no line of its own."""
    head = HEAD[:-2] + b"X-Items: 0\r\n\r\n"
    with server([head, STREAM[len(HEAD) :]]) as port, Load(read_bytes=len(head)) as load:
        reader = load.ask(port, "/any")
        load.run(far_away())
        assert len(check_events(parse(reader.reads), 3)) == 3


def test_a_transfer_says_how_it_is_asked_for() -> None:
    assert PLAIN.arguments == ()
    assert Transfer(tls=True, gzip=True).arguments == ("--tls", "--gzip")
    assert b"Accept-Encoding: gzip\r\n" in request("/", Transfer(gzip=True).coding)
    assert b"Accept-Encoding" not in request("/", PLAIN.coding)


def test_the_load_reads_an_answer_under_tls_record_by_record() -> None:
    """First come session tickets, which are no part of it. Then more than one record may wait in the socket."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("localhost").configure_cert(context)
    answer = HEAD + b"".join(chunk(event(n)) for n in range(2000)) + LAST
    looked = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            plain, _ = listener.accept()
            with context.wrap_socket(plain, server_side=True) as end:
                end.recv(65_536)
                looked.wait()
                for at in range(0, len(answer), 7000):
                    end.sendall(answer[at : at + 7000])

        thread = threading.Thread(target=serve)
        thread.start()
        with Load(read_bytes=16_384, transfer=Transfer(tls=True)) as load:
            reader = load.ask(listener.getsockname()[1], "/")
            load.turn(10)
            before = len(reader.reads), reader.ended
            looked.set()
            assert before == (0, False)
            load.run(far_away())
        thread.join()
    assert reader.ended
    assert b"".join(read.data for read in reader.reads) == answer
    assert len(reader.reads) >= len(answer) // 7000


def test_many_readers_are_read_at_once() -> None:
    with server(*[[STREAM]] * 20, linger=True) as port, Load() as load:
        readers = [load.ask(port, f"/{n}") for n in range(20)]
        load.run(far_away())
        assert all(check_events(parse(reader.reads), 3) for reader in readers)


def test_the_time_of_a_read_is_taken_after_it() -> None:
    """With a clock that moves by hand: each event's latency is what the clock says, not the machine."""
    ours, theirs = socket.socketpair()
    times = iter([0, 5, 1_000, 3_000])
    with theirs, Load(clock=lambda: next(times)) as load:
        reader = load.add(ours)
        for pieces in (HEAD, chunk(event(900)), chunk(event(2_500)) * 2 + LAST):
            theirs.sendall(pieces)
            load.turn(1)
        assert reader.ended
        events = check_events(parse(reader.reads), 3)
        assert [event.latency for event in events] == [100, 500, 500]
        assert reader.asked == 0


def test_a_run_ends_at_its_time() -> None:
    ours, theirs = socket.socketpair()
    ticks = itertools.count(0, 1_000_000)
    with theirs, Load(clock=lambda: next(ticks)) as load:
        reader = load.add(ours)
        load.run(10_000_000)
        assert not reader.ended
        assert next(ticks) == 11_000_000


def test_a_reset_connection_ends_its_reader() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, Load() as load:
        reader = load.add(socket.create_connection(listener.getsockname()))
        sock, _ = listener.accept()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        sock.close()
        load.run(far_away())
        assert (reader.ended, reader.reads) == (True, [])


# -- asking once, asking again -----------------------------------------------------------------------------------------


@every_way
def test_ask_gives_one_whole_answer(cut: Callable[[bytes], list[bytes]]) -> None:
    ticks = itertools.count(1)
    with server(cut(STREAM), linger=True) as port:
        started, answer, reads = ask(port, "/any", 20, clock=lambda: next(ticks))
    assert started == 1
    assert [read.arrived for read in reads] == list(range(2, len(reads) + 2))
    assert len(check_events(answer, 3)) == 3


def test_ask_names_an_answer_that_breaks_off() -> None:
    with server([STREAM[:-3]]) as port, pytest.raises(WrongAnswer, match="closed before the end"):
        ask(port, "/any", 20)


def test_ask_names_an_answer_that_does_not_come() -> None:
    with server([HEAD], linger=True) as port, pytest.raises(WrongAnswer, match="nothing came for"):
        ask(port, "/any", 0.01)


@contextmanager
def echo(answer: bytes, connections: int, asked: list[list[bytes]] | None = None) -> Iterator[int]:
    """Answers every request of each of its connections in the same way, until they close; `asked` gets each's."""

    def serve(sock: socket.socket) -> None:
        requests: list[bytes] = []
        if asked is not None:
            asked.append(requests)
        with sock:
            try:
                while request := sock.recv(1000):
                    requests.append(request)
                    sock.sendall(answer)
            except ConnectionError:
                pass  # the client left while an answer was on its way

    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            for thread in threads[1:]:
                thread.start()

        threads = [
            threading.Thread(target=accept),
            *(threading.Thread(target=lambda: serve(listener.accept()[0])) for _ in range(connections)),
        ]
        threads[0].start()
        try:
            yield listener.getsockname()[1]
        finally:
            for thread in threads:
                thread.join(10)


def test_kept_connections_are_asked_again_and_again() -> None:
    """By a clock that moves 1 ms at each look, so the number of answers does not depend on the machine."""
    ticks = itertools.count(0, 1_000_000)
    with echo(SHORT, 3) as port:
        seen = keep_asking(port, "/short", 3, 0.1, len(SHORT), clock=lambda: next(ticks))
    assert len(seen.answers) >= 3
    assert all(answer > 0 for answer in seen.answers)
    assert seen.wall >= 100_000_000


@pytest.mark.parametrize("same", [True, False])
def test_requests_on_a_kept_connection_are_the_same_or_each_another(same: bool) -> None:
    """By a clock that moves 1 ms at each look. Three connections, so that they take turns."""
    ticks = itertools.count(0, 1_000_000)
    asked: list[list[bytes]] = []
    with echo(SHORT, 3, asked) as port:
        keep_asking(port, "/short", 3, 0.1, len(SHORT), same, clock=lambda: next(ticks))
    pairs = [pair for requests in asked for pair in itertools.pairwise(requests)]
    assert pairs
    assert {before == after for before, after in pairs} == {same}
    assert len({len(request) for pair in pairs for request in pair}) == 1


@pytest.mark.parametrize(
    ("answer", "words"),
    [(SHORT + b"!", "more than"), (SHORT.replace(b"200 OK", b"500 No"), "answered b'HTTP/1.1 500")],
)
def test_another_answer_on_a_kept_connection_is_named(answer: bytes, words: str) -> None:
    with echo(answer, 1) as port, pytest.raises(WrongAnswer, match=words):
        keep_asking(port, "/short", 1, 10, len(SHORT))


def test_the_length_of_an_answer_counts_its_head() -> None:
    with server([SHORT]) as port:
        assert answer_length(port, "/short", 20) == len(SHORT)


# -- the reader itself -------------------------------------------------------------------------------------------------


def test_the_segments_that_arrived_are_counted() -> None:
    """Each `send` with Nagle's algorithm off is a segment."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
        with ours, theirs:
            theirs.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for _ in range(5):
                theirs.sendall(b"x")
            theirs.shutdown(socket.SHUT_WR)
            while ours.recv(100):
                pass
            assert segments_in(ours) == 5


def test_the_reader_measures_itself() -> None:
    cost = reader_cost(connections=5, turns=3)
    assert cost["read_us"] > 0
    assert cost["echo_us"] > 0
