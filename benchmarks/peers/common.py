"""What every peer's file needs: a socket to listen on, its announcement, the loop, and Nagle's algorithm."""

import argparse
import asyncio
import os
import socket
import ssl
import time
from collections.abc import Callable, Mapping
from contextlib import closing

from benchmarks.certificate import certificate

BACKLOG = 1024
"""Connections that may wait to be accepted: more than any workload opens at once."""


def listening_socket() -> socket.socket:
    """A socket that listens on a free port of the loopback interface.

    It says that it is TCP, as the sockets say that a server opens by itself: asyncio switches Nagle's algorithm off
    only where it knows that. Without it an answer of two small writes takes 40 ms.
    """
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    sock.bind(("127.0.0.1", 0))
    sock.listen(BACKLOG)
    return sock


def inherited_socket() -> socket.socket:
    """The same, to be inherited by the program that this process becomes."""
    sock = listening_socket()
    sock.set_inheritable(True)
    return sock


def announce(port: int) -> None:
    """Tell the benchmark that the peer listens."""
    print(f"PORT {port}", flush=True)


def arguments() -> argparse.ArgumentParser:
    """The arguments that the peers share: which loop, and whether to serve under TLS or to compress."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--loop", choices=("asyncio", "uvloop"), default="asyncio")
    parser.add_argument("--tls", action="store_true", help="serve under TLS")
    parser.add_argument("--gzip", action="store_true", help="compress what may be compressed")
    return parser


def server_context(options: argparse.Namespace) -> ssl.SSLContext | None:
    """What a Python peer serves TLS with, if it is asked to."""
    if not options.tls:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate())
    return context


def loop_factory(name: str) -> Callable[[], asyncio.AbstractEventLoop]:
    """The maker of event loops of this name, for `asyncio.Runner`."""
    if name == "asyncio":
        return asyncio.new_event_loop
    import uvloop

    return uvloop.new_event_loop


class Lateness:
    """A chain of `call_later` that measures how late each call comes: how long the loop was held by something else.

    It begins when it is first asked for: a call each 10 ms costs up to a hundredth of a core, which `idle` would show.
    """

    def __init__(self, interval: float = 0.01) -> None:
        self._interval = interval
        self._due = 0.0
        self._seen: list[float] = []
        self._loop: asyncio.AbstractEventLoop | None = None

    def _ask(self) -> None:
        assert self._loop is not None, "begun"
        self._due = time.monotonic() + self._interval
        self._loop.call_later(self._interval, self._called)

    def _called(self) -> None:
        # uvloop's timers have a grain of 1 ms, and may come early.
        self._seen.append(max(time.monotonic() - self._due, 0.0))
        self._ask()

    def text(self) -> str:
        """All that was seen since the last time, in microseconds, separated by blanks. The first time begins it."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._ask()
        seen, self._seen = self._seen, []
        return " ".join(str(round(seconds * 1e6)) for seconds in seen)


def number(query: Mapping[str, str], name: str) -> int:
    """A whole number from the query."""
    return int(query[name])


def seconds(query: Mapping[str, str], name: str) -> float:
    """A time from the query, in seconds."""
    return float(query[name])


def set_nagle(on: bool) -> None:
    """Let the kernel hold back small writes (or not) on every connection that this process has now.

    The servers offer no setting for it, and have their connections somewhere inside: so the kernel is asked which of
    this process's files are connections.
    """
    for name in os.listdir("/proc/self/fd"):
        try:
            sock = socket.socket(fileno=os.dup(int(name)))
        except OSError:
            continue  # no socket, or the listing itself, which is closed by now
        with closing(sock):
            if sock.family == socket.AF_INET and sock.type == socket.SOCK_STREAM:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, not on)
