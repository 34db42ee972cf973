"""Several processes on the same sockets: the parent, which serves nothing itself, and what ties a worker to it.

The parent makes the listening sockets and starts the workers, which inherit them. It starts again who dies, passes
signals on, and ends when all have ended. A pair of sockets ties each worker to it: over it the worker tells that it
serves, the parent that it shall cut, and its end tells each side that the other has gone, however that came about.
Nobody polls.

What ends a service (systemd, a terminal, `kill -- -group`) often signals every process of it. Then a worker has SIGTERM
twice, from there and from the parent: so a second one is nothing to it, and to cut is the parent's to say.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence

from .server import Server
from .sockets import inherited

_FIRST_DELAY = 0.1  # seconds before a worker that died is started again; each time it doubles ...
_LONGEST_DELAY = 10.0  # ... up to this, so that one that cannot live costs little ...
_LIVED = 10.0  # ... and it begins anew with one that had lived for so long
_PATIENCE = 5.0  # seconds beyond the grace time (or after a second signal) in which a worker has to end

_CANNOT_START = 2  # the exit status of the command line; it has told why, in a line
_SERVES = b"."
_CUT = b"!"
_HELD_BACK = signal.SIGINT, signal.SIGHUP  # they may come before a worker is able to take them


class Worker:
    """A worker's own side: which one it is, the sockets it serves on, and its line to the parent.

    handed: what `Workers` wrote on its command line: its number, and descriptors.
    """

    def __init__(self, handed: str) -> None:
        self.number, line, *descriptors = map(int, handed.split(","))
        self.sockets = [inherited(descriptor) for descriptor in descriptors]
        self._line = socket.socket(fileno=line)
        self._line.set_inheritable(False)
        # A Ctrl-C reaches the whole process group, and is the parent's to pass on. Not SIG_IGN: what is started here
        # would inherit that.
        for held_back in _HELD_BACK:
            signal.signal(held_back, lambda *_: None)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _HELD_BACK)

    def serves(self, server: Server) -> None:
        """Tell the parent that `server` serves. SIGTERM closes it, and so does the parent's end. The parent may cut."""
        loop = asyncio.get_running_loop()

        def close() -> None:
            if not server.closing.is_set():  # a second time would cut
                server.begin_closing()

        def told() -> None:
            word = b""
            with contextlib.suppress(ConnectionResetError):  # the parent is gone, and had not read all
                word = self._line.recv(1)
            close()
            if word == _CUT:
                server.begin_closing()
            else:
                loop.remove_reader(self._line)

        loop.add_signal_handler(signal.SIGTERM, close)
        loop.add_reader(self._line, told)
        with contextlib.suppress(OSError):
            self._line.send(_SERVES)

    def has_served(self) -> None:
        """Nothing is left to be ended: a signal that comes now would only find asyncio's loop half closed."""
        for late in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(late, signal.SIG_IGN)

    def close(self) -> None:
        """Let go of all that was handed over, when no loop uses it any more."""
        for sock in (self._line, *self.sockets):
            sock.close()


class Workers:
    """The parent's side.

    count: how many. arguments: those of the command line, which the workers get too. listening: the sockets, which
    become the parent's. grace: seconds that a worker takes to end. say: tells a line to a person.
    """

    def __init__(
        self,
        count: int,
        arguments: Sequence[str],
        listening: Sequence[socket.socket],
        grace: float,
        say: Callable[[str], object],
    ) -> None:
        self._count = count
        self._arguments = arguments
        self._listening = listening
        self._grace = grace
        self._say = say
        self._lines: dict[asyncio.subprocess.Process, socket.socket] = {}  # of those that live
        self._have_served: set[int] = set()
        self._when_all_serve = ""
        self._one_has_served = asyncio.Event()
        self._stopping = asyncio.Event()
        self._kill_timer: asyncio.TimerHandle | None = None
        self._status = 0

    async def run(self, when_all_serve: str) -> int:
        """Start the workers, say `when_all_serve` when all of them serve, and keep them until a signal ends them.

        Returns the exit status: 0 if all ended in order, 1 if some did not, 2 if none can be started.
        """
        loop = asyncio.get_running_loop()
        for ending in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(ending, self._stop)
        loop.add_signal_handler(signal.SIGHUP, self._pass_on, signal.SIGHUP)
        self._when_all_serve = when_all_serve
        async with asyncio.TaskGroup() as group:
            # One goes first, so that what keeps it from starting is told once and not by each.
            first = group.create_task(self._keep(1))
            waiting = group.create_task(self._one_has_served.wait())
            await asyncio.wait({first, waiting}, return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()
            if not first.done():
                for number in range(2, self._count + 1):
                    group.create_task(self._keep(number))
        if self._kill_timer is not None:
            self._kill_timer.cancel()
        return self._status

    # -- one worker --------------------------------------------------------------------------------------------------

    async def _keep(self, number: int) -> None:
        """Start a worker again whenever it has died."""
        loop = asyncio.get_running_loop()
        delay = _FIRST_DELAY
        while not self._stopping.is_set():
            began = loop.time()
            status, served = await self._live(number)
            if self._stopping.is_set():
                if status not in (0, -signal.SIGTERM):  # SIGTERM itself ends one that does not serve yet
                    self._status = max(self._status, 1)
                return
            if not served and (status == _CANNOT_START or not self._have_served):
                if status != _CANNOT_START:
                    self._say(f"rawstream: a worker ended before it served ({_how(status)})")
                self._status = 2
                self._stop()
                return
            if loop.time() - began >= _LIVED:
                delay = _FIRST_DELAY
            self._say(f"worker {number} of {self._count} ended ({_how(status)}); it is started again in {delay:g} s")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self._stopping.wait()
            delay = min(2 * delay, _LONGEST_DELAY)

    async def _live(self, number: int) -> tuple[int, bool]:
        """A worker's whole life; its exit status, and whether it came to serve."""
        line, theirs = socket.socketpair()
        with line:
            line.setblocking(False)
            with theirs:
                try:
                    process = await self._start(number, theirs.fileno())
                except OSError as exc:  # too many processes, no memory
                    self._say(f"worker {number} of {self._count} cannot be started: {exc.strerror}")
                    return 1, False
            self._lines[process] = line
            if self._stopping.is_set():
                process.terminate()
            served = await _serves(process, line)
            if served:
                self._say(f"worker {number} of {self._count}: pid {process.pid}")
                self._note_serving(number)
            status = await process.wait()
            del self._lines[process]
            return status, served

    async def _start(self, number: int, line: int) -> asyncio.subprocess.Process:
        descriptors = [line, *(sock.fileno() for sock in self._listening)]
        handed = ",".join(map(str, [number, *descriptors]))
        # Blocked signals stay blocked in the worker until it can take them; meant for us, they wait until we unblock.
        signal.pthread_sigmask(signal.SIG_BLOCK, _HELD_BACK)
        try:
            return await asyncio.create_subprocess_exec(
                *_interpreter(), "-m", __package__, "--is-worker", handed, *self._arguments,
                stdin=asyncio.subprocess.DEVNULL, pass_fds=descriptors,
            )  # fmt: skip
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _HELD_BACK)

    def _note_serving(self, number: int) -> None:
        all_before = len(self._have_served) == self._count
        self._have_served.add(number)
        self._one_has_served.set()
        if len(self._have_served) == self._count and not all_before:
            self._say(self._when_all_serve)

    # -- the end -----------------------------------------------------------------------------------------------------

    def _stop(self) -> None:
        """Let all of them drain; a second time, they cut."""
        patience = _PATIENCE if self._stopping.is_set() else self._grace + _PATIENCE
        if self._stopping.is_set():
            for line in self._lines.values():
                with contextlib.suppress(OSError):  # it has gone, or was told a hundred thousand times
                    line.send(_CUT)
        self._stopping.set()
        for sock in self._listening:
            sock.close()  # else who connects now would wait for nobody
        self._pass_on(signal.SIGTERM)  # which also ends those that do not serve yet
        if self._kill_timer is not None:
            self._kill_timer.cancel()
        self._kill_timer = asyncio.get_running_loop().call_later(patience, self._kill)

    def _kill(self) -> None:
        count = len(self._lines)
        self._say(f"killing {count} worker{'s' if count > 1 else ''} that did not end")
        self._pass_on(signal.SIGKILL)

    def _pass_on(self, number: signal.Signals) -> None:
        for process in self._lines:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(number)


async def _serves(process: asyncio.subprocess.Process, line: socket.socket) -> bool:
    """Wait until the worker serves, or has ended. (Its own children may hold its end of the line.)"""
    told = asyncio.ensure_future(asyncio.get_running_loop().sock_recv(line, 1))
    ended = asyncio.ensure_future(process.wait())
    await asyncio.wait({told, ended}, return_when=asyncio.FIRST_COMPLETED)
    for waiting in (told, ended):
        waiting.cancel()
    return told.done() and not told.cancelled() and told.result() == _SERVES


def _interpreter() -> list[str]:
    """Another Python as this one was started: with its -X, -W, -O and so on, as `multiprocessing` has it."""
    return [sys.executable, *subprocess._args_from_interpreter_flags()]  # type: ignore[attr-defined]


def _how(status: int) -> str:
    """What a process's status tells."""
    return f"by {signal.Signals(-status).name}" if status < 0 else f"with status {status}"
