"""Many subscribers of one channel in one epoll loop, with who publishes to them.

Cheap enough not to be what is measured: for each read a `read`, a look-up and a clock. All subscribers of a channel get
the same bytes, so what has been taken apart once (the numbers of the events in it) is looked up for all the others;
only what was cut somewhere is taken apart for itself. Each subscriber must get each event once and in order, and this
is looked at with each read.

Events are published by a `POST` on a kept connection, so it is the same for all peers. The event is a stamp, the time
of the `POST` in 18 digits, and perhaps padding; the stamp is how its arrival is known.
"""

import os
import re
import resource
import select
import socket
import time
from collections.abc import Callable
from typing import Self

from benchmarks.answer import WrongAnswer
from benchmarks.load import request
from benchmarks.requests import STAMP_BYTES, Probe, Publisher, connect

BATCH = 64
"""Reads between two looks at the clock and the probe: some 0.2 ms."""

_READ_BYTES = 65_536
_EVENT = re.compile(rb"data: ?(\d{18})[^\r\n]*\r?\n")
_KNOWN = 256  # different reads that are remembered; in step with each other, subscribers need one
_SPARE_FILES = 200
_AT_ONCE = 200  # subscribers that have asked and not been answered yet: no peer's backlog runs over
_ESTABLISHED = 1  # the first byte of Linux's struct tcp_info


def raise_files() -> int:
    """Allow as many open files as the system lets us, for the peers too, which inherit it; gives how many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def possible(count: int) -> int:
    """`count`, or as many connections as there may be open files."""
    return min(count, raise_files() - _SPARE_FILES)


class Subscribers:
    """Subscribers of one channel. Use it as a context manager; leaving it closes the connections."""

    def __init__(self, port: int, path: str = "/fanout", size: int = STAMP_BYTES) -> None:
        self.arrivals: dict[int, list[int]] = {}
        """When each event arrived (nanoseconds), in the order of the arrivals, by its stamp."""
        self.missing = 0
        self.doubled = 0
        self.own = 0
        """Events that came to one subscriber only, where each stream has its own."""
        self.probe: Probe | None = None
        self._port = port
        self._request = request(path)
        self._size = size
        self._socks: dict[int, socket.socket] = {}
        self._stalled: list[socket.socket] = []
        self._next: dict[int, int] = {}  # which event a connection expects, by its file
        self._rest: dict[int, bytes] = {}  # what was cut, by its file
        self._shared = path == "/fanout"
        self._known: dict[bytes, tuple[int, ...]] = {}
        self._lists: list[list[int]] = []  # of `arrivals`, by number
        self._numbers: dict[int, int] = {}  # by stamp
        self._epoll = select.epoll()
        self._publisher: Publisher | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for sock in [*self._socks.values(), *self._stalled]:
            sock.close()
        if self._publisher is not None:
            self._publisher.sock.close()
        if self.probe is not None:
            self.probe.close()
        self._epoll.close()

    @property
    def count(self) -> int:
        """How many read."""
        return len(self._socks)

    def join(self, count: int, timeout: float) -> None:
        """Open more subscriptions, and wait for their heads. Raises `WrongAnswer` if none comes for `timeout` s."""
        heads: dict[int, bytes] = {}
        until = time.monotonic() + timeout
        with select.epoll() as epoll:
            opened = 0
            while opened < count or heads:
                while opened < count and len(heads) < _AT_ONCE:
                    sock = connect(self._port, len(self._socks))
                    sock.send(self._request)
                    self._socks[sock.fileno()] = sock
                    heads[sock.fileno()] = b""
                    epoll.register(sock, select.EPOLLIN)
                    opened += 1
                if time.monotonic() > until:
                    raise WrongAnswer(f"no answer for {timeout:.0f} s: {len(heads)} of {opened} subscribers wait")
                for fd, _ in epoll.poll(1):
                    heads[fd] += self._recv(fd)
                    if (rest := _after_head(heads[fd])) is None:
                        continue
                    del heads[fd]
                    epoll.unregister(fd)
                    self.add(self._socks[fd], rest)
                    until = time.monotonic() + timeout

    def add(self, sock: socket.socket, rest: bytes = b"") -> None:
        """Read from a subscription that is open; `rest` is what came behind its head."""
        fd = sock.fileno()
        self._socks[fd] = sock
        self._next[fd] = len(self._lists)
        self._rest[fd] = b""
        for number in self._parse(fd, rest):
            self._arrived(fd, number, time.monotonic_ns())
        self._epoll.register(fd, select.EPOLLIN)

    def join_stalled(self, count: int, timeout: float, receive: int = 4096) -> None:
        """Open subscriptions that read no more than their heads."""
        for _ in range(count):
            sock = connect(self._port, len(self._socks), receive)
            self._stalled.append(sock)
            sock.settimeout(timeout)
            sock.send(self._request)
            head = b""
            while _after_head(head) is None:
                if not (data := sock.recv(1)):
                    raise WrongAnswer("a subscriber was answered nothing")
                head += data

    def cut_off(self) -> int:
        """How many of those that read nothing have been cut off, as their kernel sees it."""
        return sum(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] != _ESTABLISHED for sock in self._stalled)

    def leave(self, count: int) -> None:
        """Close some of those that read."""
        for fd in list(self._socks)[:count]:
            self._epoll.unregister(fd)
            self._socks.pop(fd).close()
            del self._next[fd], self._rest[fd]

    @property
    def idle(self) -> bool:
        """Whether the publisher has its answer."""
        return self._publisher is None or not self._publisher.waiting

    def publish(self) -> int:
        """Have an event published; gives its stamp. The publisher must be `idle`."""
        if self._publisher is None:
            self._publisher = Publisher(self._port, self._size)
            self._epoll.register(self._publisher.sock, select.EPOLLIN)
        assert not self._publisher.waiting, "one event at a time"
        stamp = self._publisher.publish()
        self.expect(stamp)
        return stamp

    def expect(self, stamp: int) -> None:
        """The next event has this stamp."""
        self._numbers[stamp] = len(self._lists)
        self._lists.append([])
        self.arrivals[stamp] = self._lists[-1]

    def turn(self, seconds: float) -> None:
        """Wait up to `seconds` for something to read, and read once from up to `BATCH` connections that have it."""
        clock, read, known, rest, expected, lists = (
            time.monotonic_ns, os.read, self._known, self._rest, self._next, self._lists,
        )  # fmt: skip
        for fd, _ in self._epoll.poll(seconds, BATCH):
            try:
                data = read(fd, _READ_BYTES)
                numbers = known.get(data)
                if numbers is None or rest[fd]:
                    numbers = self._take(fd, data)
            except ConnectionError:
                numbers = self._take(fd, b"")
            now = clock()
            for number in numbers:
                if expected[fd] == number:
                    expected[fd] = number + 1
                    lists[number].append(now)
                else:
                    self._arrived(fd, number, now)
        if self.probe is not None:
            self.probe.look(clock())

    def complete(self, stamp: int) -> bool:
        """Whether this event has reached all who read."""
        return len(self.arrivals[stamp]) >= len(self._socks)

    def run(self, until: int) -> None:
        """Read until the clock shows `until` (nanoseconds)."""
        while (left := until - time.monotonic_ns()) > 0:
            self.turn(left / 1e9 if self.probe is None else min(left / 1e9, 0.001))

    def publish_every(self, interval: float, seconds: float, each: Callable[[], None] = lambda: None) -> dict[int, int]:
        """Publish at a steady rate; gives the time when each event was due, by its stamp (both in nanoseconds).

        What is due while the last is not answered yet is published as soon as it is. If that takes twice the time, the
        rest is left out.
        """
        start, stamps = time.monotonic_ns(), {}
        give_up = start + int(2 * seconds * 1e9)
        for number in range(round(seconds / interval)):
            due = start + int(number * interval * 1e9)
            self.run(due)
            while not self.idle and time.monotonic_ns() < give_up:
                self.turn(0.001)
            if not self.idle:
                break
            stamps[self.publish()] = due
            each()
        self.run(start + int(seconds * 1e9))
        return stamps

    def publish_freely(self, seconds: float, ahead: int = 2) -> list[int]:
        """Publish as fast as it goes: the next one as soon as fewer than `ahead` are on their way to somebody."""
        until, stamps = time.monotonic_ns() + int(seconds * 1e9), []
        under_way: list[int] = []
        while time.monotonic_ns() < until:
            while under_way and self.complete(under_way[0]):
                del under_way[0]
            if self.idle and len(under_way) < ahead:
                under_way.append(self.publish())
                stamps.append(under_way[-1])
            self.turn(0.001 if self.probe is not None else 0.1)
        return stamps

    def settle(self, timeout: float) -> None:
        """Read until everybody has the last event, and the publisher its answer.

        Raises `WrongAnswer` if that takes too long.
        """
        until = time.monotonic() + timeout
        while not self.idle or (self._lists and len(self._lists[-1]) < len(self._socks)):
            if time.monotonic() > until:
                raise WrongAnswer(f"an event reached {len(self._lists[-1])} of {len(self._socks)} subscribers")
            self.turn(0.1)

    def _recv(self, fd: int) -> bytes:
        try:
            data = os.read(fd, _READ_BYTES)
        except ConnectionError:
            data = b""
        if not data:
            raise WrongAnswer("a subscriber was cut off")
        return data

    def _take(self, fd: int, data: bytes) -> tuple[int, ...]:
        """What `turn` did not know."""
        if self._publisher is not None and fd == self._publisher.sock.fileno():
            if data or self._publisher.waiting:
                self._publisher.feed(data)
            else:  # a kept connection may be closed when nothing comes for a while: the next event gets another
                self._publisher.sock.close()
                self._publisher = None
            return ()
        if not data:
            raise WrongAnswer("a subscriber was cut off")
        fresh = not self._rest[fd]
        numbers = self._parse(fd, data)
        if fresh and not self._rest[fd] and self._shared:
            if len(self._known) >= _KNOWN:
                self._known.clear()
            self._known[data] = numbers
        return numbers

    def _parse(self, fd: int, data: bytes) -> tuple[int, ...]:
        data = self._rest[fd] + data
        found, end = [], 0
        for match in _EVENT.finditer(data):
            end = match.end()
            if not self._shared:
                self.own += 1
                continue
            number = self._numbers.get(int(match[1]))
            if number is None:
                raise WrongAnswer(f"an event that was not published: {match[0][:60]!r}")
            found.append(number)
        # What ends with a line cuts no stamp in two.
        self._rest[fd] = b"" if data.endswith(b"\n") else data[end:]
        return tuple(found)

    def _arrived(self, fd: int, number: int, now: int) -> None:
        """An event, which may be another than the one that is due."""
        due = self._next[fd]
        if number < due:
            self.doubled += 1
            return
        self.missing += number - due
        self._next[fd] = number + 1
        self._lists[number].append(now)


def _after_head(data: bytes) -> bytes | None:
    """What follows the head, None while it is not complete. Raises `WrongAnswer` for another answer than 200."""
    head, end, rest = data.partition(b"\r\n\r\n")
    if not end:
        return None
    if not head.startswith(b"HTTP/1.1 200"):
        raise WrongAnswer(f"a subscription was answered {head[:80]!r}")
    return rest
