"""Many subscribers of one channel, who publishes to them, and how a peer's channel is checked."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import resource
import socket
import threading
import time
import types
from collections.abc import Iterator

import pytest
from benchmark_sizes import BY_NAME, CORES, TINY, need

from benchmarks import channel
from benchmarks.answer import Read, WrongAnswer, parse
from benchmarks.channel import check_channel, check_stream, data_of, latencies_of
from benchmarks.process import Server
from benchmarks.requests import Publisher, connect, numbered
from benchmarks.subscribers import Subscribers, possible
from benchmarks.workload import alone


@pytest.fixture(autouse=True)
def files() -> Iterator[None]:
    """A run allows itself as many open files as it can get; the other tests shall not have them."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def frame(stamp: int) -> bytes:
    """A chunk with an event, as a channel may send it."""
    event = b"id: 1-%d\ndata: %018d\n\n" % (stamp, stamp)
    return b"%x\r\n%b\r\n" % (len(event), event)


@pytest.fixture
def crowd() -> Iterator[Subscribers]:
    with Subscribers(0) as subscribers:
        yield subscribers


def subscriber(crowd: Subscribers) -> socket.socket:
    """Subscribe; gives the server's end."""
    ours, theirs = socket.socketpair()
    crowd.add(ours)
    return theirs


def test_subscribers_are_counted_event_by_event(crowd: Subscribers) -> None:
    with subscriber(crowd) as first, subscriber(crowd) as second:
        for stamp in (7, 8):
            crowd.expect(stamp)
        first.send(frame(7) + frame(8))
        crowd.turn(1)
        assert [crowd.complete(stamp) for stamp in (7, 8)] == [False, False]
        second.send(frame(7))
        crowd.turn(1)
        assert [crowd.complete(stamp) for stamp in (7, 8)] == [True, False]
        second.send(frame(8))
        crowd.settle(1)
    assert [len(arrived) for arrived in crowd.arrivals.values()] == [2, 2]
    assert (crowd.missing, crowd.doubled) == (0, 0)


def test_an_event_may_be_cut_anywhere(crowd: Subscribers) -> None:
    with subscriber(crowd) as whole, subscriber(crowd) as cut:
        for stamp in (123_456_789_012_345_678, 123_456_789_012_345_679):
            crowd.expect(stamp)
            whole.send(frame(stamp))
            crowd.turn(1)
            for byte in frame(stamp):
                cut.send(bytes([byte]))
                crowd.turn(1)
            assert crowd.complete(stamp)
    assert (crowd.missing, crowd.doubled) == (0, 0)


def test_what_is_missing_or_comes_twice_is_counted(crowd: Subscribers) -> None:
    with subscriber(crowd) as good, subscriber(crowd) as bad:
        for stamp in (1, 2, 3):
            crowd.expect(stamp)
            good.send(frame(stamp))
            crowd.turn(1)
        for stamp in (1, 1, 3):
            bad.send(frame(stamp))
            crowd.turn(1)
    assert (crowd.missing, crowd.doubled) == (1, 1)


def test_a_dropped_event_is_told_before_its_latency_is_looked_for(crowd: Subscribers) -> None:
    with subscriber(crowd) as end:
        for stamp in (7, 8):
            crowd.expect(stamp)
        end.send(frame(8))
        crowd.turn(1)
    with pytest.raises(WrongAnswer, match="1 events were missing, and 0 came twice"):
        latencies_of(crowd, [7, 8])


@pytest.mark.parametrize("answered", [b"soon", b"12 <html>"])
def test_a_lag_that_is_no_number_is_wrong(answered: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = types.SimpleNamespace(status=200, body=answered)
    monkeypatch.setattr(channel, "ask", lambda *_: (0, answer, []))
    with pytest.raises(WrongAnswer, match=r"/lag answered .* instead of numbers"):
        channel.lags(0, BY_NAME["rawstream"], 1)


def test_a_subscriber_that_comes_later_misses_nothing(crowd: Subscribers) -> None:
    crowd.expect(1)
    with subscriber(crowd) as late:
        crowd.expect(2)
        late.send(frame(2))
        crowd.settle(1)
    assert (crowd.missing, crowd.doubled) == (0, 0)


def test_an_event_that_nobody_published_is_wrong(crowd: Subscribers) -> None:
    with subscriber(crowd) as stranger:
        stranger.send(frame(5))
        with pytest.raises(WrongAnswer, match="not published"):
            crowd.turn(1)


def test_a_subscriber_that_is_cut_off_is_wrong(crowd: Subscribers) -> None:
    subscriber(crowd).close()
    with pytest.raises(WrongAnswer, match="cut off"):
        crowd.turn(1)


def test_an_event_that_does_not_come_is_wrong(crowd: Subscribers) -> None:
    with subscriber(crowd):
        crowd.expect(1)
        with pytest.raises(WrongAnswer, match="reached 0 of 1"):
            crowd.settle(0)


def test_there_are_no_more_subscribers_than_files() -> None:
    assert possible(3) == 3
    assert possible(10**9) < 10**9


def test_a_publisher_waits_for_its_whole_answer_and_no_other() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        publisher = Publisher(listener.getsockname()[1], 24)
        end, _ = listener.accept()
        with publisher.sock, end:
            stamp = publisher.publish()
            assert end.recv(1000).endswith(b"Content-Length: 24\r\n\r\n%018d......" % stamp)
            for piece in (b"HTTP/1.1 201 Created\r\nContent-Len", b"gth: 2\r\n\r\no", b"k"):
                assert publisher.waiting
                publisher.feed(piece)
            assert not publisher.waiting
            publisher.waiting = True
            publisher.feed(b"HTTP/1.1 202 \r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n")
            assert publisher.waiting
            publisher.feed(b"0\r\n\r\n")
            assert not publisher.waiting
            with pytest.raises(WrongAnswer, match="publishing was answered"):
                publisher.feed(b"HTTP/1.1 404 Not Found\r\n\r\n")
            with pytest.raises(WrongAnswer, match="closed"):
                publisher.feed(b"")


def test_many_clients_come_from_several_addresses() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        addresses = []
        for number in (0, 4_999, 5_000, 14_999):
            with connect(listener.getsockname()[1], number) as sock:
                addresses.append(sock.getsockname()[0])
    assert addresses == ["127.0.0.1", "127.0.0.1", "127.0.0.2", "127.0.0.3"]


def test_a_subscription_that_is_not_answered_200_is_wrong() -> None:
    peer = BY_NAME["aiohttp"]
    need(alone(peer)[0])
    with (
        Server(peer.module, peer.arguments, CORES[0]) as server,
        Subscribers(server.port, "/nothing") as crowd,
        pytest.raises(WrongAnswer, match=r"answered b'HTTP/1\.1 404"),
    ):
        crowd.join(1, 5)


def test_a_subscription_that_is_not_answered_is_wrong() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        Subscribers(listener.getsockname()[1]) as crowd,
        pytest.raises(WrongAnswer, match="no answer for 0 s: 2 of 2 subscribers wait"),
    ):
        crowd.join(2, 0)


# -- a peer's channel --------------------------------------------------------------------------------------------------


def test_the_data_of_a_body_is_found_in_any_spelling() -> None:
    body = b": hi\n\nid: 1\nevent: tick\ndata: a\n\ndata:b\r\n\r\nretry: 5\n\n"
    assert data_of(body) == [b"a", b"b"]


@pytest.mark.parametrize(
    ("body", "words"), [(b"data: a\n", "has no end"), (b"date: a\n\n", "not a field"), (b"what\n\n", "not a field")]
)
def test_what_is_no_event_is_wrong(body: bytes, words: str) -> None:
    with pytest.raises(WrongAnswer, match=words):
        data_of(body)


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (b"404 Not Found\r\nContent-Length: 0", "status 404"),
        (b"200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked", "text/plain"),
        (b"200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 9", "length"),
        (b"200 OK\r\nContent-Type: text/event-stream\r\nContent-Encoding: gzip", "encoded"),
    ],
)
def test_a_channel_without_the_right_head_is_wrong(head: bytes, words: str) -> None:
    with pytest.raises(WrongAnswer, match=words):
        check_stream(parse([Read(0, b"HTTP/1.1 %b\r\n\r\n" % head)], until_close=True))


def test_a_stream_may_end_with_its_connection() -> None:
    answer = parse(
        [Read(0, b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata"), Read(1, b": x\n\n")], True
    )
    check_stream(answer)
    assert (answer.body, answer.complete) == (b"data: x\n\n", False)


def test_a_peer_that_never_says_that_it_has_published_is_given_up() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    with socket.create_server(("127.0.0.1", 0)) as listener, contextlib.ExitStack() as ends:

        def subscribed() -> None:
            for _ in range(3):
                ends.enter_context(end := listener.accept()[0])
                end.send(head)

        thread = threading.Thread(target=subscribed)
        thread.start()
        server = types.SimpleNamespace(port=listener.getsockname()[1])
        with pytest.raises(TimeoutError):
            check_channel(server, alone(BY_NAME["floor"])[0], dataclasses.replace(TINY, timeout=0.2))  # type: ignore[arg-type]
        thread.join()


def test_a_stamp_is_padded_to_the_size_of_its_event() -> None:
    assert numbered(5, 20) == b"000000000000000005.."


class Publishing:
    """A server that answers each request on one connection, when it is told to."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]

    def accept(self) -> socket.socket:
        end, _ = self.listener.accept()
        return end


@pytest.fixture
def publishing() -> Iterator[Publishing]:
    server = Publishing()
    with server.listener:
        yield server


NO_CONTENT = b"HTTP/1.1 204 No Content\r\n\r\n"


def test_an_event_is_due_when_its_time_comes_however_late_it_is_published(publishing: Publishing) -> None:
    """The answer to the first comes when others are due: those are published late, and not left out."""

    def answer() -> None:
        with publishing.accept() as end, contextlib.suppress(ConnectionResetError):
            end.recv(65_536)
            time.sleep(0.05)
            end.send(NO_CONTENT)
            while end.recv(65_536):
                end.send(NO_CONTENT)

    thread = threading.Thread(target=answer)
    thread.start()
    with Subscribers(publishing.port) as crowd:
        published = crowd.publish_every(0.01, 0.2)
    thread.join()
    stamps, dues = list(published), list(published.values())
    assert len(dues) >= 2
    assert {later - earlier for earlier, later in itertools.pairwise(dues)} == {10_000_000}
    assert all(stamp >= due for stamp, due in published.items())
    assert stamps[1] - dues[1] > 10_000_000, "it waited for the answer to the first"


def test_a_publisher_whose_connection_was_closed_meanwhile_gets_another(publishing: Publishing) -> None:
    with Subscribers(publishing.port) as crowd:
        crowd.publish()
        with publishing.accept() as end:
            end.recv(65_536)
            end.send(NO_CONTENT)
            crowd.settle(10)
        crowd.turn(10)
        crowd.publish()
        with publishing.accept() as end:
            assert end.recv(65_536).startswith(b"POST /publish")
            end.send(NO_CONTENT)
            crowd.settle(10)


def test_a_publisher_that_is_cut_off_before_its_answer_is_wrong(publishing: Publishing) -> None:
    with Subscribers(publishing.port) as crowd:
        crowd.publish()
        publishing.accept().close()
        with pytest.raises(WrongAnswer, match="publisher's connection was closed"):
            crowd.settle(10)
