"""The transport, over a fake of asyncio's whose buffers and losses are moved by hand."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import random
import socket
import struct
from collections.abc import Callable
from typing import Any

import pytest
from support import Clock, Peer, Steps, in_background, settle

from rawstream.config import Limits, Timeouts
from rawstream.deadlines import Deadlines
from rawstream.errors import Disconnected, ReadTimeout, Stalled
from rawstream.transport import Transport
from rawstream.turns import TURN, Turns

pytestmark = pytest.mark.usefixtures("orderly")


class FakeSocket:
    """Keeps the options that are set."""

    def __init__(self, family: int = socket.AF_INET) -> None:
        self.family = family
        self.options: list[tuple[int, int, bytes]] = []
        self.error = 0

    def setsockopt(self, *option: Any) -> None:
        self.options.append(option)

    def getsockopt(self, *option: Any) -> int:
        return self.error


RESET = (socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


class MemoryTransport(asyncio.Transport):
    """asyncio's side: what is written stays in the buffer until `take` takes it."""

    def __init__(self, **extra: Any) -> None:
        self.sock = FakeSocket()
        super().__init__({"socket": self.sock, "peername": ("192.0.2.1", 4711), **extra})
        self.protocol: Any = None
        self.written: list[bytes] = []
        self.waiting = 0
        self.paused = False
        self.limits: tuple[int, int] = (0, 0)
        self.reading = True
        self.ended_by = ""
        self.half_closable = True

    def write(self, data: Any) -> None:
        assert not self.ended_by, f"written after {self.ended_by}"
        self.written.append(bytes(data))
        self.waiting += len(data)
        if self.waiting > self.limits[0] and not self.paused:
            self.paused = True
            self.protocol.pause_writing()

    def take(self, count: int) -> None:
        """The kernel takes so many bytes of what waits."""
        self.waiting -= count
        if self.waiting <= self.limits[1] and self.paused:
            self.paused = False
            self.protocol.resume_writing()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        assert high is not None
        self.limits = high, high // 4 if low is None else low

    def get_write_buffer_size(self) -> int:
        return self.waiting

    def pause_reading(self) -> None:
        assert self.reading
        self.reading = False

    def resume_reading(self) -> None:
        assert not self.reading
        self.reading = True

    def can_write_eof(self) -> bool:
        return self.half_closable

    def write_eof(self) -> None:
        self.ended_by = "write_eof"

    def is_closing(self) -> bool:
        return self.ended_by in ("close", "abort")

    def close(self) -> None:
        assert not self.is_closing(), "asyncio's TLS transport breaks when it is closed twice"
        self.ended_by = "close"

    def abort(self) -> None:
        self.ended_by = "abort"


class Made:
    """A transport under test, asyncio's below it, and what it told above."""

    def __init__(self, limits: Limits, timeouts: Timeouts, extra: dict[str, Any]) -> None:
        self.told = Steps()
        self.below = MemoryTransport(**extra)
        deadlines = Deadlines(asyncio.get_running_loop())
        self.transport = Transport(
            limits, timeouts, deadlines, lambda _: self.told("connected"), lambda _: self.told("lost")
        )
        self.below.protocol = self.transport
        self.transport.connection_made(self.below)
        self.deadlines = deadlines


@pytest.fixture
async def make() -> Any:
    """Makes transports, and forgets their deadlines in the end."""
    made: list[Made] = []

    def factory(limits: Limits | None = None, timeouts: Timeouts | None = None, **extra: Any) -> Made:
        made.append(Made(limits or Limits(), timeouts or Timeouts(), extra))
        return made[-1]

    yield factory
    for each in made:
        each.deadlines.close()


Make = Callable[..., Made]


# -- what it tells, and sets -------------------------------------------------------------------------------------------


async def test_a_connection_is_told_when_it_is_made_and_when_it_is_lost(make: Make) -> None:
    made = make()
    assert made.told.done == ["connected"]
    made.transport.connection_lost(None)
    assert made.told.done == ["connected", "lost"]


async def test_the_write_buffer_gets_the_high_water_mark_of_the_limits(make: Make) -> None:
    assert make(Limits(high_water=1000)).below.limits == (1000, 250)


async def test_the_client_is_its_address_and_port(make: Make) -> None:
    assert make(peername=("2001:db8::1", 4711, 0, 0)).transport.client == ("2001:db8::1", 4711)


@pytest.mark.parametrize("peername", ["", "/run/a.sock", b"", None])
async def test_a_client_on_a_unix_socket_has_no_address(make: Make, peername: object) -> None:
    assert make(peername=peername).transport.client is None


async def test_tls_is_where_there_is_an_ssl_context(make: Make) -> None:
    assert not make().transport.tls
    assert make(sslcontext=object()).transport.tls


# -- reading -----------------------------------------------------------------------------------------------------------


async def test_what_came_before_it_was_asked_for_is_read_at_once_and_together(make: Make) -> None:
    made = make()
    made.transport.data_received(b"one ")
    made.transport.data_received(b"two")
    assert await made.transport.read(1) == b"one two"


async def test_a_reader_waits_for_what_comes(make: Make) -> None:
    made = make()
    reader = in_background(made.transport.read(60))
    await settle()
    assert not reader.done()
    made.transport.data_received(b"here")
    assert await reader == b"here"


async def test_what_comes_before_the_woken_reader_runs_is_read_too(make: Make) -> None:
    made = make()
    reader = in_background(made.transport.read(60))
    await settle()
    made.transport.data_received(b"one ")
    made.transport.data_received(b"two")
    assert await reader == b"one two"


async def test_the_end_of_the_peers_sending_reads_as_nothing_again_and_again(make: Make) -> None:
    made = make()
    reader = in_background(made.transport.read(60))
    await settle()
    assert made.transport.eof_received() is True
    assert await reader == b""
    assert await made.transport.read(60) == b""


async def test_under_tls_the_end_of_the_peers_sending_ends_the_connection(make: Make) -> None:
    assert make(sslcontext=object()).transport.eof_received() is False


async def test_what_came_before_the_end_is_read_before_it(make: Make) -> None:
    made = make()
    made.transport.data_received(b"last words")
    made.transport.eof_received()
    assert await made.transport.read(60) == b"last words"
    assert await made.transport.read(60) == b""


async def test_a_lost_connection_wakes_its_reader(make: Make) -> None:
    made = make()
    reader = in_background(made.transport.read(60))
    await settle()
    made.transport.connection_lost(ConnectionResetError())
    with pytest.raises(Disconnected):
        await reader


async def test_what_came_before_the_loss_is_read_before_it_is_told(make: Make) -> None:
    made = make()
    made.transport.data_received(b"last words")
    made.transport.connection_lost(None)
    assert await made.transport.read(60) == b"last words"
    with pytest.raises(Disconnected):
        await made.transport.read(60)


async def test_silence_is_a_read_timeout_and_loses_nothing(make: Make, clock: Clock) -> None:
    made = make()
    reader = in_background(made.transport.read(3))
    await clock.advance(2.875)
    assert not reader.done()
    await clock.advance(0.5)
    with pytest.raises(ReadTimeout):
        await reader
    made.transport.data_received(b"late")
    assert await made.transport.read(3) == b"late"


async def test_a_reader_can_be_hurried(make: Make, clock: Clock) -> None:
    made = make()
    reader = in_background(made.transport.read(60))
    await settle()
    made.transport.hurry(3)
    await clock.advance(2.875)
    assert not reader.done()
    await clock.advance(0.5)
    with pytest.raises(ReadTimeout):
        await reader


async def test_hurrying_hits_the_reading_under_way_and_no_other(make: Make, clock: Clock) -> None:
    made = make()
    made.transport.hurry(3)  # nobody reads
    first = in_background(made.transport.read(60))
    await settle()
    made.transport.hurry(3)
    made.transport.data_received(b"one")
    assert await first == b"one"
    second = in_background(made.transport.read(60))
    await clock.advance(6)
    assert not second.done()
    made.transport.data_received(b"two")
    assert await second == b"two"


async def test_a_timeout_that_is_due_with_the_data_does_not_take_it_away(make: Make) -> None:
    made = make()
    reader = in_background(made.transport.read(60))
    await settle()
    made.transport.data_received(b"just in time")
    made.transport._read_too_late()
    assert await reader == b"just in time"
    made.transport._read_too_late()  # and where nobody reads, it hits nobody


async def test_a_cancelled_read_loses_nothing(make: Make) -> None:
    made = make()
    reader = in_background(made.transport.read(60))
    await settle()
    made.transport.data_received(b"kept")
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    assert await made.transport.read(60) == b"kept"


async def test_the_loss_of_a_connection_whose_reader_was_just_woken_or_cancelled_is_no_trouble(make: Make) -> None:
    made = make()
    reader = in_background(made.transport.read(60))
    await settle()
    made.transport.data_received(b"kept")
    made.transport.eof_received()
    made.transport.connection_lost(None)
    assert await reader == b"kept"


# -- how much is held --------------------------------------------------------------------------------------------------


async def test_reading_pauses_when_more_of_a_body_is_held_than_allowed_and_resumes_when_it_was_read(make: Make) -> None:
    made = make(Limits(held=10))
    made.transport.data_received(b"x" * 10)
    assert made.below.reading
    made.transport.data_received(b"y")
    assert not made.below.reading
    assert await made.transport.read(60) == b"x" * 10 + b"y"
    assert made.below.reading
    made.transport.data_received(b"x" * 10)
    assert made.below.reading


async def test_a_reader_who_waits_gets_all_that_comes_at_once(make: Make) -> None:
    made = make(Limits(held=10))
    reader = in_background(made.transport.read(60))
    await settle()
    made.transport.data_received(b"x" * 100)
    assert made.below.reading
    assert await reader == b"x" * 100


async def test_reading_pauses_also_while_the_woken_reader_has_not_run_yet(make: Make) -> None:
    """uvloop can give many pieces in one turn of the loop."""
    made = make(Limits(held=10))
    reader = in_background(made.transport.read(60))
    await settle()
    made.transport.data_received(b"x" * 100)
    made.transport.data_received(b"y")
    assert not made.below.reading
    assert await reader == b"x" * 100 + b"y"
    assert made.below.reading


async def test_too_much_of_a_next_request_is_dropped_while_reading_goes_on(make: Make) -> None:
    made = make(Limits(held=10))
    made.transport.body_ended = True
    made.transport.data_received(b"x" * 10)
    made.transport.data_received(b"y")
    made.transport.data_received(b"z")
    assert made.below.reading
    made.transport.body_ended = False
    assert await made.transport.read(60) == b""
    made.transport.data_received(b"never again")
    assert await made.transport.read(60) == b""


async def test_where_somebody_begins_to_work_reading_goes_on_so_that_a_loss_is_noticed(make: Make) -> None:
    made = make(Limits(held=10))
    made.transport.data_received(b"x" * 11)
    assert not made.below.reading
    made.transport.body_ended = True
    assert made.below.reading
    made.transport.data_received(b"y")
    assert made.transport.dropping


async def test_what_is_held_when_the_work_ends_is_not_dropped_for_what_comes_then(make: Make) -> None:
    """Between two requests nobody works for the peer: then it is made to wait."""
    made = make(Limits(held=10))
    made.transport.data_received(b"x" * 11)
    made.transport.body_ended = True
    made.transport.body_ended = False
    assert not made.below.reading
    assert await made.transport.read(60) == b"x" * 11
    assert made.below.reading
    assert not made.transport.dropping


async def test_who_reads_for_long_lets_others_run(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(Turns.of(asyncio.get_running_loop()), "_clock", lambda: now)
    made = make(Limits(held=1_000_000))
    waiting = in_background(made.transport.read(60))
    await settle()
    made.transport.data_received(b"x" * 100_000)
    await waiting
    for _ in range(3):
        with pytest.raises(StopIteration):
            made.transport.read(60).send(None)
    now += TURN
    reading = made.transport.read(60)
    reading.send(None)  # it waits, for its turn
    reading.close()
    assert await made.transport.read(60)


# -- watching for the loss of the peer ---------------------------------------------------------------------------------


async def wait(made: Made, eof: bool) -> None:
    with made.transport.watch(lambda: made.told("interrupted"), eof=eof):
        await asyncio.get_running_loop().create_future()


@pytest.mark.parametrize("eof", [True, False])
async def test_the_loss_of_the_connection_is_told_to_who_works_for_the_peer(make: Make, eof: bool) -> None:
    made = make()
    task = in_background(wait(made, eof))
    await settle()
    made.transport.connection_lost(None)
    with pytest.raises(Disconnected):
        await task
    assert made.told.done == ["connected", "interrupted", "lost"]


async def test_the_end_of_the_peers_sending_is_told_to_who_asked_for_it(make: Make) -> None:
    made = make()
    task = in_background(wait(made, eof=True))
    await settle()
    made.transport.eof_received()
    with pytest.raises(Disconnected):
        await task
    task = in_background(wait(made, eof=False))
    await settle()
    made.transport.eof_received()
    await settle()
    assert not task.done()
    made.transport.connection_lost(None)
    with pytest.raises(Disconnected):
        await task


@pytest.mark.parametrize("end", ["connection_lost", "close", "abort"])
async def test_nothing_is_begun_for_a_peer_that_is_gone_or_to_which_we_close(make: Make, end: str) -> None:
    made = make()
    getattr(made.transport, end)(*[None] * (end == "connection_lost"))
    with pytest.raises(Disconnected), made.transport.watch(lambda: None):
        pytest.fail("it began")


async def test_what_counts_the_end_of_sending_is_not_begun_after_it(make: Make) -> None:
    made = make()
    made.transport.eof_received()
    made.transport.check()
    with pytest.raises(Disconnected):
        made.transport.check(eof=True)


async def test_a_loss_in_the_midst_of_ones_own_time_out_is_told_at_once_and_cancels_soon_after_it(
    make: Make, clock: Clock
) -> None:
    made, gate = make(), asyncio.Event()

    async def work() -> None:
        with made.transport.watch(lambda: made.told("interrupted")):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0):
                    try:
                        await asyncio.get_running_loop().create_future()
                    finally:
                        await gate.wait()
                        made.told("cleared up")
            await asyncio.get_running_loop().create_future()

    task = in_background(work())
    await settle()
    made.transport.connection_lost(None)
    await clock.advance(2)
    gate.set()
    await settle()
    assert not task.done()
    await clock.advance(0.5)
    with pytest.raises(Disconnected):
        await task
    assert made.told.done == ["connected", "interrupted", "lost", "cleared up"]


# -- writing -----------------------------------------------------------------------------------------------------------


async def test_writing_hands_the_bytes_down_at_once_and_counts_them(make: Make) -> None:
    made = make()
    assert made.transport.write(b"one") is True
    assert made.transport.write(b"three") is True
    assert made.below.written == [b"one", b"three"]
    assert made.transport.sent == 8


async def test_writing_to_a_closed_connection_does_nothing(make: Make) -> None:
    made = make()
    made.transport.close()
    assert made.transport.write(b"late") is False
    assert made.below.written == []
    assert made.transport.sent == 0


async def test_a_full_buffer_holds_the_producer_until_a_quarter_of_it_is_left(make: Make) -> None:
    made = make(Limits(high_water=1000))
    made.transport.write(b"x" * 1000)
    assert made.transport.writable
    await made.transport.drain()  # at once
    made.transport.write(b"x")
    assert not made.transport.writable
    producer = in_background(made.transport.drain())
    made.below.take(750)
    await settle()
    assert not producer.done()
    made.below.take(1)
    await producer
    assert made.transport.writable


async def test_a_write_tells_whether_another_may_follow(make: Make) -> None:
    made = make(Limits(high_water=1000))
    assert made.transport.write(b"x" * 1000) is True
    assert made.transport.write(b"x") is False
    made.below.take(1001)
    assert made.transport.write(b"x") is True


async def test_the_loss_of_the_connection_wakes_who_waits_to_write(make: Make) -> None:
    made = make(Limits(high_water=1000))
    made.transport.write(b"x" * 1001)
    producer = in_background(made.transport.drain())
    await settle()
    made.transport.connection_lost(None)
    with pytest.raises(Disconnected):
        await producer
    assert not made.transport.writable


async def test_a_buffer_that_empties_after_the_loss_does_not_make_it_writable(make: Make) -> None:
    made = make(Limits(high_water=1000))
    made.transport.write(b"x" * 1001)
    made.transport.connection_lost(None)
    made.below.take(1001)
    assert not made.transport.writable
    with pytest.raises(Disconnected):
        await made.transport.drain()


async def test_a_producer_that_is_held_twice_waits_twice(make: Make) -> None:
    made = make(Limits(high_water=1000))
    made.transport.write(b"x" * 1001)
    producer = in_background(made.transport.drain())
    await settle()
    made.below.take(1001)
    made.transport.write(b"x" * 1001)
    await settle()
    assert not producer.done()
    made.below.take(1001)
    await producer


async def test_cancelling_a_producer_that_waits_leaves_nothing(make: Make) -> None:
    made = make(Limits(high_water=1000))
    made.transport.write(b"x" * 1001)
    producer = in_background(made.transport.drain())
    await settle()
    producer.cancel()
    made.below.take(1001)
    with pytest.raises(asyncio.CancelledError):
        await producer
    await made.transport.drain()


async def test_soon_calls_back_with_others(make: Make, clock: Clock) -> None:
    made, steps = make(), Steps()
    made.transport.soon(lambda: steps("one"))
    made.transport.soon(lambda: steps("two"))
    never = made.transport.soon(lambda: steps("never"))
    never.cancel()
    assert steps.done == []
    await clock.advance(0.5)
    assert sorted(steps.done) == ["one", "two"]


async def test_later_calls_back_exactly(make: Make, clock: Clock) -> None:
    made, steps = make(), Steps()
    made.transport.later(0.125, lambda: steps("called"))
    never = made.transport.later(0.125, lambda: steps("never"))
    never.cancel()
    assert steps.done == []
    await clock.advance(0.125)
    assert steps.done == ["called"]


# -- a reader that takes nothing ---------------------------------------------------------------------------------------


async def test_a_buffer_that_does_not_shrink_for_the_stall_time_cuts_the_reader(make: Make, clock: Clock) -> None:
    made = make(timeouts=Timeouts(write_stall=4))
    made.transport.write(b"x" * 10)
    await clock.advance(3.75)
    assert made.below.ended_by == ""
    await clock.advance(2)
    assert made.below.ended_by == "abort"
    assert made.below.sock.options == [RESET]


async def test_a_slow_reader_who_takes_something_is_not_cut(make: Make, clock: Clock) -> None:
    made = make(timeouts=Timeouts(write_stall=4))
    made.transport.write(b"x" * 10)
    for _ in range(10):
        await clock.advance(3)
        made.below.take(1)
    await clock.advance(12)
    assert made.below.ended_by == ""


async def test_writing_more_is_no_sign_of_life_of_the_reader(make: Make, clock: Clock) -> None:
    """Heartbeats into a buffer that does not shrink do not keep its reader alive."""
    made = make(timeouts=Timeouts(write_stall=4))
    for _ in range(6):
        made.transport.write(b"x")
        await clock.advance(1)
    assert made.below.ended_by == "abort"


async def test_a_stall_is_timed_from_the_last_progress(make: Make, clock: Clock) -> None:
    made = make(timeouts=Timeouts(write_stall=4))
    made.transport.write(b"x" * 10)
    await clock.advance(3)
    made.below.take(9)
    await clock.advance(3.75)
    assert made.below.ended_by == ""
    await clock.advance(3)
    assert made.below.ended_by == "abort"


async def test_an_emptied_buffer_is_looked_after_again_with_the_next_write(make: Make, clock: Clock) -> None:
    made = make(timeouts=Timeouts(write_stall=4))
    made.transport.write(b"x")
    made.below.take(1)
    await clock.advance(20)
    made.transport.write(b"x" * 2)
    await clock.advance(3.75)
    assert made.below.ended_by == ""
    await clock.advance(2)
    assert made.below.ended_by == "abort"


async def test_closing_stays_under_the_stall_time(make: Make, clock: Clock) -> None:
    made = make(timeouts=Timeouts(write_stall=4))
    made.transport.write(b"x")
    made.transport.close()
    assert made.below.ended_by == "close"
    await clock.advance(6)
    assert made.below.ended_by == "abort"


async def test_a_lost_connection_is_not_looked_after_any_more(make: Make, clock: Clock) -> None:
    made = make(timeouts=Timeouts(write_stall=4))
    made.transport.write(b"x")
    made.transport.connection_lost(None)
    await clock.advance(20)
    assert made.below.ended_by == ""


async def test_who_works_for_a_reader_that_takes_nothing_is_told_that(make: Make, clock: Clock) -> None:
    made = make(timeouts=Timeouts(write_stall=4))
    task = in_background(wait(made, eof=True))
    made.transport.write(b"x")
    await clock.advance(6)
    made.transport.connection_lost(None)  # which follows the abort
    with pytest.raises(Stalled):
        await task
    assert made.told.done == ["connected", "interrupted", "lost"]


async def test_who_waits_for_a_reader_that_takes_nothing_is_told_so(make: Make, clock: Clock) -> None:
    made = make(Limits(high_water=1000), Timeouts(write_stall=4))

    async def work() -> None:
        with made.transport.watch(lambda: None):
            made.transport.write(b"x" * 1001)
            await made.transport.drain()

    task = in_background(work())
    await clock.advance(3.5)
    assert not task.done()
    await clock.advance(2)
    made.transport.connection_lost(None)
    with pytest.raises(Stalled):
        await task


# -- ends --------------------------------------------------------------------------------------------------------------


async def test_closing_again_does_nothing(make: Make) -> None:
    made = make()
    made.transport.close()
    made.transport.close()
    assert made.below.ended_by == "close"


async def test_a_close_by_reset_lets_what_waits_out_first(make: Make) -> None:
    made = make()
    made.transport.close_by_reset()
    assert made.below.ended_by == ""
    assert made.below.sock.options == [RESET]
    made.transport.close()
    assert made.below.ended_by == "close"


async def test_an_abort_drops_what_waits(make: Make) -> None:
    made = make()
    made.transport.abort()
    assert made.below.ended_by == "abort"
    assert made.below.sock.options == [RESET]


async def test_a_unix_socket_has_no_reset(make: Make) -> None:
    made = make(socket=FakeSocket(socket.AF_UNIX))
    made.transport.abort()
    assert made.below.ended_by == "abort"
    assert made.below.get_extra_info("socket").options == []


async def test_a_transport_without_a_socket_is_aborted_too(make: Make) -> None:
    made = make(socket=None)
    made.transport.abort()
    assert made.below.ended_by == "abort"


async def test_a_lost_connection_is_not_reset(make: Make) -> None:
    made = make()
    made.transport.connection_lost(None)
    made.transport.abort()
    assert made.below.sock.options == []


async def test_lingering_ends_our_side_and_drops_what_comes_until_the_peer_ends(make: Make) -> None:
    made = make()
    made.transport.data_received(b"unread")
    lingering = in_background(made.transport.linger(60))
    await settle()
    assert made.below.ended_by == "write_eof"
    made.transport.data_received(b"x" * 100_000)
    made.transport.data_received(b"x" * 100_000)
    await settle()
    assert made.below.ended_by == "write_eof"
    assert made.below.reading
    made.transport.eof_received()
    await lingering
    assert made.below.ended_by == "close"


async def test_lingering_ends_when_the_connection_is_lost(make: Make) -> None:
    made = make()
    lingering = in_background(made.transport.linger(60))
    await settle()
    made.transport.connection_lost(None)
    await lingering
    assert made.below.ended_by == "close"


async def test_lingering_waits_so_long_for_a_silent_peer(make: Make, clock: Clock) -> None:
    made = make()
    lingering = in_background(made.transport.linger(2))
    await clock.advance(1.875)
    assert not lingering.done()
    await clock.advance(0.5)
    await lingering
    assert made.below.ended_by == "close"


async def test_lingering_does_not_go_on_with_a_peer_that_never_stops_sending(make: Make, clock: Clock) -> None:
    made = make()
    lingering = in_background(made.transport.linger(2))
    await clock.advance(1.875)
    made.transport.data_received(b"more")
    await settle()
    assert not lingering.done()
    clock.set(1002.0)
    for _ in range(10):  # more of it in each turn of the loop
        made.transport.data_received(b"more")
        await asyncio.sleep(0)
    assert lingering.done()
    await lingering
    assert made.below.ended_by == "close"


async def test_lingering_also_reads_on_where_something_was_dropped(make: Make) -> None:
    made = make(Limits(held=10))
    made.transport.body_ended = True
    made.transport.data_received(b"x" * 100)
    made.transport.body_ended = False
    lingering = in_background(made.transport.linger(60))
    await settle()
    assert made.below.ended_by == "write_eof"
    made.transport.eof_received()
    await lingering
    assert made.below.ended_by == "close"


async def test_where_there_is_no_half_close_lingering_only_waits(make: Make) -> None:
    """TLS has none."""
    made = make()
    made.below.half_closable = False
    lingering = in_background(made.transport.linger(60))
    await settle()
    assert made.below.ended_by == ""
    made.transport.eof_received()
    await lingering
    assert made.below.ended_by == "close"


async def test_lingering_can_keep_our_side_open(make: Make) -> None:
    made = make()
    lingering = in_background(made.transport.linger(60, end_ours=False))
    await settle()
    assert made.below.ended_by == ""
    made.transport.eof_received()
    await lingering
    assert made.below.ended_by == "close"


async def test_lingering_for_no_time_closes(make: Make) -> None:
    made = make()
    await made.transport.linger(0, end_ours=False)
    assert made.below.ended_by == "close"


async def test_lingering_that_is_cancelled_closes(make: Make) -> None:
    made = make()
    lingering = in_background(made.transport.linger(60))
    await settle()
    lingering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await lingering
    assert made.below.ended_by == "close"


async def test_lingering_on_a_connection_that_is_being_closed_ends_with_it(make: Make) -> None:
    made = make()
    made.transport.abort()
    lingering = in_background(made.transport.linger(60))
    await settle()
    assert made.below.ended_by == "abort"
    made.transport.connection_lost(None)
    await lingering
    assert made.below.ended_by == "abort"


# -- over real sockets -------------------------------------------------------------------------------------------------


@pytest.fixture
async def pair() -> Any:
    """A transport on a real connection, and the peer at its other end."""
    loop = asyncio.get_running_loop()
    connected: asyncio.Future[Transport] = loop.create_future()
    lost = asyncio.Event()
    deadlines = Deadlines(loop)
    limits, timeouts = Limits(), Timeouts()
    server = await loop.create_server(
        lambda: Transport(limits, timeouts, deadlines, connected.set_result, lambda _: lost.set()), "127.0.0.1", 0
    )
    peer = await Peer.connect(server.sockets[0].getsockname()[:2])
    transport = await connected
    yield transport, peer
    transport.abort()
    await lost.wait()
    peer.close()
    server.close()
    deadlines.close()


async def test_a_real_reset_delivers_what_was_written_and_then_resets(pair: tuple[Transport, Peer]) -> None:
    transport, peer = pair
    transport.write(b"last words")
    transport.close_by_reset()
    transport.close()
    assert await peer.rest() == b"last words"
    assert peer.ending == "reset"


async def test_a_real_abort_resets(pair: tuple[Transport, Peer]) -> None:
    transport, peer = pair
    transport.abort()
    assert await peer.rest() == b""
    assert peer.ending == "reset"


async def test_a_real_close_ends(pair: tuple[Transport, Peer]) -> None:
    transport, peer = pair
    transport.write(b"last words")
    transport.close()
    assert await peer.rest() == b"last words"
    assert peer.ending == "end"


async def test_real_lingering_lets_the_peer_read_although_it_sends(pair: tuple[Transport, Peer]) -> None:
    transport, peer = pair
    await peer.send(b"x" * 100_000)
    transport.write(b"last words")
    lingering = in_background(transport.linger(60))
    assert await peer.rest() == b"last words"
    assert peer.ending == "end"
    await peer.send(b"x" * 100_000)
    peer.finish()
    await lingering


async def test_a_real_vanished_peer_is_noticed_by_who_only_waits(pair: tuple[Transport, Peer]) -> None:
    transport, peer = pair
    steps = Steps()

    async def wait() -> None:
        with transport.watch(lambda: steps("told")):
            await asyncio.get_running_loop().create_future()

    task = in_background(wait())
    await settle()
    peer.reset()
    with pytest.raises(Disconnected):
        await task
    assert steps.done == ["told"]


# -- sending on the socket itself --------------------------------------------------------------------------------------


class Sends:
    """Counts what is sent on one socket around asyncio, and may let it fail."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._write = os.write
        self.sizes: list[tuple[int, int]] = []
        """How much was offered, and how much the socket took."""
        self.fails: list[OSError] = []

    def __call__(self, fd: int, data: bytes) -> int:
        if fd != self._fd:
            return self._write(fd, data)
        if self.fails:
            raise self.fails.pop()
        took = self._write(fd, data)
        self.sizes.append((len(data), took))
        return took


class Line:
    """A transport on a real connection whose kernel holds little, and the other end of it."""

    def __init__(self, kind: str, timeouts: Timeouts) -> None:
        if kind == "tcp":
            with socket.create_server(("127.0.0.1", 0)) as listener:
                self.far = socket.create_connection(listener.getsockname())
                self.near, _ = listener.accept()
        else:
            self.near, self.far = socket.socketpair()
        self.near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
        self.far.setblocking(False)
        self.peer = Peer(self.far)
        self.lost = asyncio.Event()
        self.sends = Sends(self.near.fileno())
        self._deadlines = Deadlines(asyncio.get_running_loop())
        self.transport = Transport(Limits(), timeouts, self._deadlines, lambda _: None, lambda _: self.lost.set())

    async def open(self) -> None:
        await asyncio.get_running_loop().create_connection(lambda: self.transport, sock=self.near)

    async def end(self) -> None:
        self.far.close()
        if not self.lost.is_set():
            self.transport.abort()
        await self.lost.wait()
        await settle()
        self._deadlines.close()


@pytest.fixture(params=["tcp", "unix"])
async def line(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    line = Line(request.param, Timeouts(write_stall=4))
    monkeypatch.setattr(os, "write", line.sends)
    await line.open()
    yield line
    await line.end()


def numbered(size: int, start: int = 0) -> bytes:
    """Bytes in which whatever is lost, repeated or out of order shows."""
    return b"".join(b"%7d\n" % number for number in range(start // 8, (start + size) // 8 + 1))[:size]


async def test_what_is_written_is_there_when_write_returns(line: Line) -> None:
    assert line.transport.write(b"one") is True
    assert line.peer.here() == b"one"
    assert line.transport.write(b"") is True
    assert line.transport.write(b"two") is True
    assert line.peer.here() == b"two"
    assert line.sends.sizes == [(3, 3), (0, 0), (3, 3)]
    assert line.transport.sent == 6


async def test_who_writes_as_long_as_he_may_hears_that_he_may_not(line: Line) -> None:
    """Without a turn of the loop in between."""
    written = 0
    while line.transport.writable:
        written += 1000
        line.transport.write(b"x" * 1000)
    assert written < 1_000_000
    line.transport.close()
    assert len(await line.peer.rest()) == written


@pytest.mark.parametrize("ends", [Transport.close, Transport.abort, lambda transport: transport.connection_lost(None)])
async def test_nothing_is_left_for_a_socket_whose_number_may_soon_be_anothers(
    line: Line, ends: Callable[[Transport], None]
) -> None:
    beneath = line.transport._transport
    line.transport.write(b"one")
    ends(line.transport)
    assert line.sends.sizes == [(3, 3)]
    beneath.abort()


async def test_that_the_kernel_cuts_who_takes_nothing_is_a_stall_and_no_leaving(line: Line) -> None:
    """By TCP_USER_TIMEOUT, before we have looked for it."""
    beneath = line.transport._transport
    with pytest.raises(Stalled), line.transport.watch(lambda: None):
        line.transport.write(b"x" * 1_000_000)
        await settle()
        line.transport.connection_lost(TimeoutError(errno.ETIMEDOUT, "timed out"))
        await asyncio.get_running_loop().create_future()
    beneath.abort()


async def test_that_the_kernel_cuts_who_has_gone_without_a_word_is_a_loss(line: Line) -> None:
    """By its keep-alive, with nothing to be sent."""
    beneath = line.transport._transport
    with pytest.raises(Disconnected), line.transport.watch(lambda: None):
        line.transport.connection_lost(TimeoutError(errno.ETIMEDOUT, "timed out"))
        await asyncio.get_running_loop().create_future()
    beneath.abort()


async def test_bytes_and_order_are_exact_however_much_the_socket_takes(line: Line) -> None:
    chance = random.Random(7)
    received, size = b"", 0
    while size < 2_000_000:
        piece = numbered(8 * chance.choice([1, 30, 700, 3000, 12_000]), size)
        line.transport.write(piece)
        size += len(piece)
        if chance.random() < 0.6:  # or the next meets what is left of this one
            received += line.peer.here()
            await settle()
    line.transport.close()
    received += await line.peer.rest()
    assert received == numbered(size)
    assert line.transport.sent == size
    assert line.peer.ending == "end"
    assert any(offered != took for offered, took in line.sends.sizes), "or this has tested nothing"


async def test_while_something_waits_all_that_follows_waits_behind_it(line: Line, clock: Clock) -> None:
    first = numbered(1_000_000)
    assert line.transport.write(first) is False
    [(_, took)] = line.sends.sizes
    assert 0 < took < len(first)
    received = line.peer.here()  # now the socket would take more
    assert line.transport.write(b"second") is False
    assert len(line.sends.sizes) == 1
    while len(received) < len(first) + 6:
        received += await line.peer.piece()
    assert received == first + b"second"
    await settle()
    assert line.transport.write(b"third") is True
    assert line.sends.sizes[1:] == [(5, 5)]
    assert line.peer.here() == b"third"


async def test_a_socket_that_takes_nothing_at_all_loses_nothing(line: Line) -> None:
    stuffing = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            stuffing += line.near.send(b"x" * 1000)
    line.transport.write(b"after it, ")
    line.transport.write(b"in this order")
    line.transport.close()
    assert await line.peer.rest() == b"x" * stuffing + b"after it, in this order"


@pytest.mark.parametrize("error", [BlockingIOError(), InterruptedError(), OSError(errno.ENOBUFS, "no buffers")])
async def test_an_error_that_passes_loses_nothing(line: Line, error: OSError) -> None:
    line.sends.fails = [error]
    line.transport.write(b"one ")
    line.transport.write(b"two ")
    await settle()
    line.transport.write(b"three")
    line.transport.close()
    assert await line.peer.rest() == b"one two three"


async def test_a_peer_that_is_gone_is_asyncios_to_find_when_a_send_fails(line: Line) -> None:
    steps = Steps()

    async def work() -> None:
        with line.transport.watch(lambda: steps("told")):
            line.far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            line.far.close()  # which the loop has not heard of yet
            line.transport.write(b"one")
            line.transport.write(b"two")
            await asyncio.get_running_loop().create_future()

    with pytest.raises(Disconnected):
        await work()
    assert steps.done == ["told"]
    assert line.transport.write(b"three") is False
    assert line.lost.is_set()
    assert line.sends.sizes == []


async def test_a_write_that_fails_as_soon_as_the_reader_was_behind_is_a_loss_like_any_other(line: Line) -> None:
    def more() -> None:
        line.far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        line.far.close()
        line.transport.write(b"too late")

    line.transport.when_writable = more
    while line.transport.writable:
        line.transport.write(b"x" * 1000)
    while line.far.fileno() != -1:
        line.peer.here()
        await settle()
    await line.lost.wait()


async def test_a_closed_connections_descriptor_may_be_somebody_elses_by_now(line: Line) -> None:
    fd = line.near.fileno()
    line.transport.abort()
    await line.lost.wait()
    await settle()
    near, far = socket.socketpair()
    if far.fileno() == fd:
        near, far = far, near
    with near, far, contextlib.ExitStack() as after:
        if near.fileno() != fd:
            after.callback(os.close, os.dup2(near.fileno(), fd))
        assert line.transport.write(b"secret") is False
        far.setblocking(False)
        with pytest.raises(BlockingIOError):
            far.recv(100)


async def test_aborting_what_has_ended_does_nothing(line: Line) -> None:
    line.transport.write(b"x" * 100_000)
    line.transport.close()
    assert len(await line.peer.rest()) == 100_000
    await line.lost.wait()
    line.transport.abort()
    line.transport.close()


async def test_a_reader_who_is_behind_holds_the_producer_until_it_has_read(line: Line) -> None:
    assert line.transport.writable
    size = 0
    producer = in_background(line.transport.drain())
    await producer
    while producer.done():  # the kernel may take some more a moment later, until there is no room at the reader's
        while line.transport.writable:
            line.transport.write(b"x" * 1000)
            size += 1000
        producer = in_background(line.transport.drain())
        await settle()
    received = 0
    while not producer.done():
        received += len(line.peer.here())
        await settle()
    await producer
    line.transport.close()
    assert received + len(await line.peer.rest()) == size


@pytest.mark.parametrize("line", ["unix"], indirect=True)  # TCP's window has a clock of its own
async def test_a_slow_reader_of_a_real_connection_is_not_cut_and_one_who_stops_is(line: Line, clock: Clock) -> None:
    line.transport.write(b"x" * 400_000)
    for _ in range(5):
        await clock.advance(3)
        assert await line.peer.piece()
    assert not line.lost.is_set()
    await clock.advance(8)
    assert line.lost.is_set()
    assert line.transport.sent == 400_000


async def test_an_end_that_is_a_reset_is_one(make: Make) -> None:
    """Before 0.23, uvloop takes a reset that comes with the last bytes for their end."""
    made = make()
    made.below.sock.error = errno.ECONNRESET
    assert not made.transport.eof_received()
    assert made.below.ended_by == "abort"


@pytest.mark.parametrize("error", [OSError(errno.EBADF, "closed"), ValueError("negative file descriptor")])
async def test_an_end_whose_socket_is_closed_already_is_an_end(make: Make, error: Exception) -> None:
    made = make()

    def closed(*option: Any) -> int:
        raise error

    made.below.sock.getsockopt = closed  # type: ignore[method-assign]
    assert made.transport.eof_received()
    assert made.below.ended_by == ""
