"""The tap that shows every byte."""

import asyncio
import logging
import re
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from rawstream import tap


class Records(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@pytest.fixture
def wire() -> Iterator[Records]:
    logger, records = logging.getLogger("rawstream.wire"), Records()
    before = logger.level
    logger.setLevel(logging.DEBUG)
    logger.addHandler(records)
    yield records
    logger.removeHandler(records)
    logger.setLevel(before)


# -- bytes for a person ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b"", []),
        (b"abc", ["abc"]),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", ["GET / HTTP/1.1\\r\\n", "Host: a\\r\\n", "\\r\\n"]),
        (b"data: x\n\n", ["data: x\\n", "\\n"]),
        (b"a\rb\n", ["a\\rb\\n"]),
        ("6\r\n这是\r\n".encode(), ["6\\r\\n", "这是\\r\\n"]),
        ("这".encode()[:2], ["\\xe8\\xbf"]),
        (b"\xff\x00\x1b[31m\t\x7f", ["\\xff\\x00\\x1b[31m\\t\\x7f"]),
        ("\u2028\u202e\u200b".encode(), ["\\u2028\\u202e\\u200b"]),
        ("🙂 é".encode(), ["🙂 é"]),
        ("\U000e0001".encode(), ["\\U000e0001"]),
    ],
)
def test_bytes_are_shown_line_by_line_with_what_cannot_be_seen_escaped(data: bytes, lines: list[str]) -> None:
    assert tap.readable(data) == lines


def test_nothing_that_is_shown_moves_the_cursor() -> None:
    shown = tap.readable(bytes(range(256)) + "".join(map(chr, range(0x80, 0x3000))).encode())
    assert all(line.isprintable() for line in shown)


# -- the tap -----------------------------------------------------------------------------------------------------------


class Calls:
    """Notes each call of a method, with its arguments."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def note(self, *call: Any) -> None:
        self.calls.append(call)

    def take(self) -> list[tuple[Any, ...]]:
        calls = [*self.calls]
        self.calls.clear()
        return calls


class FakeTransport(Calls, asyncio.Transport):
    """Takes all that can be called on a transport, and answers with what is known."""

    def __init__(self, peer: object = ("192.0.2.7", 4711)) -> None:
        Calls.__init__(self)
        self.peer = peer
        self.closing = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"peername": self.peer, "socket": "the socket"}.get(name, default)

    def write(self, data: Any) -> None:
        self.note("write", bytes(data))

    def write_eof(self) -> None:
        self.note("write_eof")

    def can_write_eof(self) -> bool:
        return True

    def abort(self) -> None:
        self.note("abort")

    def close(self) -> None:
        self.note("close")
        self.closing = True

    def is_closing(self) -> bool:
        return self.closing

    def pause_reading(self) -> None:
        self.note("pause_reading")

    def resume_reading(self) -> None:
        self.note("resume_reading")

    def get_write_buffer_size(self) -> int:
        return 17

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self.note("set_write_buffer_limits", high, low)


class FakeProtocol(Calls, asyncio.Protocol):
    """Notes what a transport tells it."""

    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.note("data_received", data)

    def eof_received(self) -> bool | None:
        self.note("eof_received")
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self.note("connection_lost", exc)

    def pause_writing(self) -> None:
        self.note("pause_writing")

    def resume_writing(self) -> None:
        self.note("resume_writing")


class Tapped:
    """A protocol and a transport with the tap between them."""

    def __init__(self, records: Records, transport: FakeTransport | None = None) -> None:
        self.records = records
        self.real = transport or FakeTransport()
        self.protocol = FakeProtocol()
        self.tap = tap.tapped(self.protocol)
        self.tap.connection_made(self.real)
        self.connected = self.lines()

    def lines(self) -> list[str]:
        """What was logged since the last look, without the times and the connection's number."""
        lines = [re.sub(r"^ *\d+\.\d{6} #\d+ ", "", line) for line in self.records.lines]
        self.records.lines.clear()
        return lines


@pytest.fixture
def tapped(wire: Records) -> Tapped:
    return Tapped(wire)


def test_while_the_wire_log_is_off_there_is_no_tap() -> None:
    protocol = FakeProtocol()
    assert tap.tapped(protocol) is protocol


def test_a_line_has_the_time_the_connections_number_and_the_direction(
    wire: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tap, "_START", 100.0)
    times = iter([100.0, 100.25, 113.5])
    monkeypatch.setattr(tap, "time", SimpleNamespace(monotonic=lambda: next(times)))
    tapped = tap.tapped(FakeProtocol())
    tapped.connection_made(FakeTransport())
    tapped.data_received(b"hello\r\nyou")
    tapped.connection_lost(None)
    number = re.search(r"#\d+", wire.lines[0])
    assert number is not None
    assert wire.lines == [
        f" 0.000000 {number[0]} --- connected from 192.0.2.7:4711",
        f" 0.250000 {number[0]} --> received 10 B\n    hello\\r\\n\n    you",
        f"13.500000 {number[0]} --- closed",
    ]


def test_the_times_of_all_connections_have_one_beginning(wire: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that what happened on two of them can be put in order."""
    times = iter([1e6, 1e6 + 2.5, 1e6 + 4.0])
    monkeypatch.setattr(tap, "time", SimpleNamespace(monotonic=lambda: next(times)))
    first, second = tap.tapped(FakeProtocol()), tap.tapped(FakeProtocol())
    first.connection_made(FakeTransport())
    second.connection_made(FakeTransport())
    first.data_received(b"x")
    stamps = [float(line.split()[0]) for line in wire.lines]
    assert [stamp - stamps[0] for stamp in stamps] == pytest.approx([0.0, 2.5, 4.0])


def test_a_log_handler_that_raises_stops_no_byte(
    wire: Records, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(record: logging.LogRecord) -> None:
        raise ZeroDivisionError("the handler's own")

    monkeypatch.setattr(wire, "emit", fail)
    protocol = FakeProtocol()
    tapped = tap.tapped(protocol)
    tapped.connection_made(FakeTransport())
    tapped.data_received(b"x")
    assert protocol.take() == [("data_received", b"x")]
    assert "ZeroDivisionError: the handler's own" in capsys.readouterr().err


def test_connections_are_told_apart(wire: Records) -> None:
    for _ in range(2):
        tap.tapped(FakeProtocol()).connection_made(FakeTransport())
    first, second = (int(re.findall(r"#(\d+)", line)[0]) for line in wire.lines)
    assert second == first + 1


@pytest.mark.parametrize(
    ("peer", "line"),
    [
        (("192.0.2.7", 4711), "--- connected from 192.0.2.7:4711"),
        (("2001:db8::7", 4711, 0, 0), "--- connected from 2001:db8::7:4711"),
        ("", "--- connected"),
        (None, "--- connected"),
    ],
)
def test_who_connected(wire: Records, peer: object, line: str) -> None:
    assert Tapped(wire, FakeTransport(peer)).connected == [line]


def test_what_is_received_is_shown_and_passed_on(tapped: Tapped) -> None:
    tapped.tap.data_received("这\n".encode())
    assert tapped.lines() == ["--> received 4 B\n    这\\n"]
    assert tapped.protocol.take() == [("data_received", b"\xe8\xbf\x99\n")]


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_what_is_sent_is_shown_and_passed_on(tapped: Tapped, kind: Any) -> None:
    tapped.protocol.transport.write(kind(b"0\r\n\r\n"))
    assert tapped.lines() == ["<-- sent 5 B\n    0\\r\\n\n    \\r\\n"]
    assert tapped.real.take() == [("write", b"0\r\n\r\n")]


def test_several_writes_at_once_are_shown_and_passed_on(tapped: Tapped) -> None:
    tapped.protocol.transport.writelines([b"a", b"b"])
    assert tapped.lines() == ["<-- sent 2 B\n    ab"]
    assert tapped.real.take() == [("write", b"ab")]


def test_what_happens_to_the_connection_is_shown_and_passed_on(tapped: Tapped) -> None:
    error = ConnectionResetError("reset by peer")
    assert tapped.tap.eof_received() is True
    tapped.tap.pause_writing()
    tapped.tap.resume_writing()
    tapped.tap.connection_lost(error)
    assert tapped.lines() == [
        "--> the client ended its side",
        "--- the client is slow: paused",
        "--- the client caught up: resumed",
        "--- lost: reset by peer",
    ]
    names = ["eof_received", "pause_writing", "resume_writing"]
    assert tapped.protocol.take() == [*((name,) for name in names), ("connection_lost", error)]


def test_a_connection_that_closes_in_order(tapped: Tapped) -> None:
    tapped.tap.connection_lost(None)
    assert tapped.lines() == ["--- closed"]
    assert tapped.protocol.take() == [("connection_lost", None)]


def test_our_ends_are_shown_and_passed_on(tapped: Tapped) -> None:
    tapped.protocol.transport.write_eof()
    tapped.protocol.transport.abort()
    assert tapped.lines() == ["<-- ended our side", "<-- cut"]
    assert tapped.real.take() == [("write_eof",), ("abort",)]


def test_everything_else_is_passed_on_in_silence(tapped: Tapped) -> None:
    transport = tapped.protocol.transport
    assert transport.get_extra_info("peername") == ("192.0.2.7", 4711)
    assert transport.get_extra_info("socket") == "the socket"
    assert transport.get_extra_info("sslcontext") is None
    assert transport.get_extra_info("sslcontext", "none") == "none"
    assert transport.get_write_buffer_size() == 17
    assert transport.can_write_eof() is True
    assert transport.is_closing() is False
    transport.set_write_buffer_limits(16_384)
    transport.set_write_buffer_limits(high=1, low=0)
    transport.pause_reading()
    transport.resume_reading()
    transport.close()
    assert transport.is_closing() is True
    assert tapped.real.take() == [
        ("set_write_buffer_limits", 16_384, None),
        ("set_write_buffer_limits", 1, 0),
        ("pause_reading",),
        ("resume_reading",),
        ("close",),
    ]
    assert tapped.lines() == []
