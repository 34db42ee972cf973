"""What nobody thought of: mutations of requests and responses, on both wires and on a whole server over real sockets.

Nothing but RemoteError may come out of a wire, and how its bytes are cut may not change what comes out. A server may
not log an error, hang, or answer with anything but HTTP; and it may serve no request that a reader who knows nothing
but RFC 9112, and takes it strictly, does not find. The searches are the same each time. What they have found once
stands in test_attacks by name.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import uvloop
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import Failures, Peer
from test_attacks import answers

from rawstream import Request, Response, Server, Timeouts, serve
from rawstream.errors import RemoteError
from rawstream.framing import CLOSED, NEED_DATA, Data, End
from rawstream.wire import ClientWire, ServerWire

# -- mutations ---------------------------------------------------------------------------------------------------------

REQUESTS = [
    b"GET / HTTP/1.1\r\nHost: test\r\n\r\n",
    b"GET /a?b=c HTTP/1.1\r\nHost: test\r\nAccept: */*\r\nConnection: close\r\n\r\n",
    b"GET http://test/x HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET / HTTP/1.0\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\nhello",
    b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 36\r\n\r\nGET /secret HTTP/1.1\r\nHost: test\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n1\r\n!\r\n0\r\nX: y\r\n\r\n",
]
RESPONSES = [
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX: y\r\n\r\n",
    b"HTTP/1.0 200\r\n\r\nhello",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\nX: y\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
]
# Where two readers may differ, and what has been used to smuggle.
BAITS = [
    b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b"\x0b", b"\x1c", b"\x7f", b"\x85", b"\xa0", b"\xff", b":", b",", b";",
    b"0", b"0\r\n\r\n", b"\r\n\r\n", b"\n\n", b"\r\n ", b"chunked", b"Chunked", b"identity, ", b", chunked", b"x", b"+",
    b"-", b"0x", b"5", b"f" * 17, b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2.0", b"1.2", b"Content-Length: 5\r\n",
    b"Content-Length: 0\r\n", b"content-length:5\r\n", b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: \r\n",
    b"Host: test\r\n", b"Host: a b\r\n", b"X: y\n", b"X : y\r\n", b" X: y\r\n", b"Connection: close\r\n",
    b"Expect: 100-continue\r\n", b"Upgrade: x\r\n", b"HEAD", b"CONNECT", b"OPTIONS *", b"*", b"http://", b"https://a@b",
    b"//", b"#", b"%00", b"GET /secret HTTP/1.1\r\n", b"y" * 300,
]  # fmt: skip


_SEAM = re.compile(rb"\b|\r|\n|$")


@st.composite
def mutated(draw: st.DrawFn, originals: list[bytes]) -> bytes:
    """One or several of the originals behind each other, with a few bytes changed, most likely at their seams."""
    data = b"".join(draw(st.lists(st.sampled_from(originals), min_size=1, max_size=3)))
    for _ in range(draw(st.integers(0, 4))):
        seams = [match.start() for match in _SEAM.finditer(data)]
        place = draw(st.sampled_from(seams) | st.integers(0, len(data)))
        bait = draw(st.sampled_from(BAITS) | st.binary(max_size=3))
        gone = draw(st.integers(0, 2) | st.just(len(bait)))
        data = data[:place] + bait + data[place + gone :]
    return data


@st.composite
def cut(draw: st.DrawFn, data: st.SearchStrategy[bytes]) -> tuple[bytes, list[bytes]]:
    """Bytes, and the same in pieces."""
    whole = draw(data)
    places = draw(st.lists(st.integers(0, len(whole)), max_size=6).map(sorted) | st.just([*range(len(whole))]))
    pieces = [whole[begin:end] for begin, end in zip([0, *places], [*places, len(whole)], strict=True)]
    return whole, [piece for piece in pieces if piece]


Outcome = list[Any]


def note(seen: Outcome, event: Any) -> None:
    """Add an event; pieces of a body are put together, since they come as they arrive."""
    if isinstance(event, Data) and seen and isinstance(seen[-1], bytes):
        seen[-1] += event.data
    else:
        seen.append(event.data if isinstance(event, Data) else event)


def served(wire: ServerWire, pieces: list[bytes]) -> Outcome:
    """All that comes out of a server's wire that answers each request; an error is the last of it."""
    seen: Outcome = []
    try:
        for piece in [*pieces, b""]:
            wire.feed(piece)
            while (event := wire.receive()) is not NEED_DATA:
                note(seen, event)
                if event is CLOSED:
                    return seen
                if isinstance(event, End):
                    assert wire.answerable
                    wire.respond(204, [], b"")
                    if not wire.reusable:
                        return seen
                    wire.next_cycle()
        raise AssertionError("after the end there is nothing to wait for")
    except RemoteError as error:
        trouble = error
    assert wire.answerable
    assert wire.respond(trouble.status, [], b"").startswith(b"HTTP/1.1 %d " % trouble.status)
    assert not wire.reusable
    return [*seen, (type(trouble), trouble.status, str(trouble))]


WIRES: list[Callable[[], ServerWire]] = [ServerWire, lambda: ServerWire(max_head=120, max_headers=3, max_target=16)]


@pytest.mark.parametrize("wire", WIRES, ids=["usual limits", "narrow limits"])
@given(data=cut(mutated(REQUESTS)))
@settings(max_examples=200, derandomize=True, deadline=None)
def test_only_remote_errors_come_out_of_a_servers_wire_and_cutting_changes_nothing(
    wire: Callable[[], ServerWire], data: tuple[bytes, list[bytes]]
) -> None:
    whole, pieces = data
    assert served(wire(), pieces) == served(wire(), [whole])


@given(data=cut(st.binary(max_size=200)))
@settings(max_examples=100, derandomize=True, deadline=None)
def test_a_servers_wire_bears_any_bytes(data: tuple[bytes, list[bytes]]) -> None:
    whole, pieces = data
    assert served(ServerWire(), pieces) == served(ServerWire(), [whole])


def answered(pieces: list[bytes]) -> Outcome:
    """All that comes out of a client's wire that has asked."""
    client, seen = ClientWire(max_head=400), []
    client.request("GET", "/", [("Host", "test")])
    try:
        for piece in [*pieces, b""]:
            client.feed(piece)
            while (event := client.receive()) is not NEED_DATA and event is not CLOSED:
                note(seen, event)
                if isinstance(event, End):
                    return seen
    except RemoteError as error:
        return [*seen, (type(error), error.status)]
    return seen


@given(data=cut(mutated(RESPONSES) | st.binary(max_size=100)))
@settings(max_examples=200, derandomize=True, deadline=None)
def test_only_remote_errors_come_out_of_a_clients_wire(data: tuple[bytes, list[bytes]]) -> None:
    whole, pieces = data
    answered([whole])
    answered(pieces)


# -- a reader of its own -----------------------------------------------------------------------------------------------

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_VALUE = rb"[\t\x20-\x7e\x80-\xff]*"
_HEAD = re.compile(
    rb"(?:\r\n)*(?P<method>%b) (?P<target>[\x21-\x7e]+) HTTP/1\.(?P<minor>[0-9])\r\n(?P<fields>(?:%b:%b\r\n)*)\r\n"
    % (_TOKEN, _TOKEN, _VALUE)
)
_HOST = rb"(?:[0-9A-Za-z._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*|\[[0-9A-Fa-f:.]+\]"
_AUTHORITY = re.compile(rb"(?:%b)(?::[0-9]*)?" % _HOST)
_TARGET = re.compile(rb"/[^#]*|[Hh][Tt][Tt][Pp][Ss]?://(?P<authority>[^/?#]+)(?:[/?][^#]*)?")
_CHUNKS = re.compile(rb"(?P<size>[0-9A-Fa-f]+)(?:;%b)?\r\n" % _VALUE)
_TRAILERS = re.compile(rb"(?:(?!(?i:content-length|transfer-encoding|host):)%b:%b\r\n)*\r\n" % (_TOKEN, _VALUE))


def well_formed(data: bytes) -> int:
    """How many requests a strict reader finds in `data` before the first thing that is wrong, or the last request."""
    count = place = 0
    while head := _HEAD.match(data, place):
        fields = [line.partition(b":")[::2] for line in head["fields"].split(b"\r\n")[:-1]]
        values = {
            wanted: [value.strip(b" \t") for name, value in fields if name.lower() == wanted]
            for wanted in (b"host", b"content-length", b"transfer-encoding", b"connection")
        }
        hosts, lengths, codings = values[b"host"], values[b"content-length"], values[b"transfer-encoding"]
        old = head["minor"] == b"0"
        target = _TARGET.fullmatch(head["target"])
        if len(hosts) > 1 or (not hosts and not old) or not all(map(_AUTHORITY.fullmatch, hosts)):
            break
        if head["method"] == b"CONNECT" or not (target or (head["method"], head["target"]) == (b"OPTIONS", b"*")):
            break
        if target and target["authority"] and not _AUTHORITY.fullmatch(target["authority"]):
            break
        if len(lengths) + len(codings) > 1 or (codings and (old or codings[0].lower() != b"chunked")):
            break
        if not all(re.fullmatch(rb"[0-9]+", value) for value in lengths):
            break
        end = end_of_chunks(data, head.end()) if codings else head.end() + int(lengths[0] if lengths else 0)
        if end is None or end > len(data):
            break
        count, place = count + 1, end
        if old or any(option.strip().lower() == b"close" for option in b",".join(values[b"connection"]).split(b",")):
            break
    return count


def end_of_chunks(data: bytes, place: int) -> int | None:
    """Where a chunked body ends, None if it does not."""
    while match := _CHUNKS.match(data, place):
        size = int(match["size"], 16)
        if size == 0:
            trailers = _TRAILERS.match(data, match.end())
            return trailers and trailers.end()
        place = match.end() + size
        if data[place : place + 2] != b"\r\n":
            break
        place += 2
    return None


@pytest.mark.parametrize("original", REQUESTS)
def test_the_reader_finds_what_is_well_formed(original: bytes) -> None:
    assert well_formed(original) == 1
    assert all(well_formed(original[:place]) == 0 for place in range(len(original)))
    last = b"close" in original or b"HTTP/1.0" in original
    assert well_formed(original * 3) == (1 if last else 3)
    assert well_formed(b" " + original) == well_formed(original.replace(b"\r\n", b"\n")) == 0


# -- a whole server ----------------------------------------------------------------------------------------------------


class Attacked:
    """A server that answers everything, on a loop of its own."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.troubles: list[Any] = []
        loop.set_exception_handler(lambda _, context: self.troubles.append(context))
        self.log = Failures()
        logging.getLogger("rawstream").addHandler(self.log)
        self.server: Server = loop.run_until_complete(self._serve())

    async def _serve(self) -> Server:
        async def handler(request: Request) -> Response:
            await request.body()
            return Response.text("served\n")

        return await serve(handler, "127.0.0.1", 0, timeouts=Timeouts(grace=0), allowed_hosts=["*"])

    async def ask(self, pieces: list[bytes]) -> tuple[bytes, str]:
        """All that is answered to who sends this and then ends its side, and how the connection ended."""
        peer = await Peer.connect(self.server.addresses[0])
        try:
            async with asyncio.timeout(60):
                # Who sends on after its last answer may find the connection closed.
                with contextlib.suppress(ConnectionResetError, BrokenPipeError):
                    for piece in pieces:
                        await peer.send(piece)
                        await asyncio.sleep(0)
                with contextlib.suppress(OSError):
                    peer.finish()
                return await peer.rest(), peer.ending
        finally:
            peer.close()

    def end(self) -> None:
        self.server.begin_closing()
        self.loop.run_until_complete(self.server.wait_closed())
        logging.getLogger("rawstream").removeHandler(self.log)
        self.loop.close()


@pytest.fixture(scope="module", params=[asyncio.SelectorEventLoop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def attacked(request: pytest.FixtureRequest) -> Iterator[Attacked]:
    attacked = Attacked(request.param())
    yield attacked
    attacked.end()


def statuses(data: bytes) -> list[int]:
    """Those of the answers in `data`, without `100 Continue`."""
    return [status for status, _, _ in answers(data)]


def attack(attacked: Attacked, data: bytes, pieces: list[bytes]) -> None:
    received, ending = attacked.loop.run_until_complete(attacked.ask(pieces))
    assert attacked.log.records == []
    assert attacked.troubles == []
    if ending == "reset":
        assert len(pieces) > 1, "what came at once was read"
        return
    got = statuses(received)
    assert got[:-1] == [200] * (len(got) - 1), "whatever is refused is the last"
    assert got.count(200) <= well_formed(data)
    assert all(status in (200, 400, 403, 408, 413, 414, 421, 431, 501, 505) for status in got)


LIVE = settings(
    max_examples=150, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@given(data=cut(mutated(REQUESTS)))
@LIVE
def test_a_server_serves_no_request_that_a_strict_reader_does_not_find(
    attacked: Attacked, data: tuple[bytes, list[bytes]]
) -> None:
    whole, pieces = data
    attack(attacked, whole, [*pieces[:20], *filter(None, [b"".join(pieces[20:])])])


@given(data=st.binary(max_size=300) | st.lists(st.sampled_from(BAITS), max_size=30).map(b"".join))
@settings(LIVE, max_examples=50)
def test_a_server_bears_any_bytes(attacked: Attacked, data: bytes) -> None:
    attack(attacked, data, [data])
