"""A peer as a process: started on its own core, asked for its CPU time and memory, ended.

Context switches are summed over all its threads, from `/proc/<pid>/task/*/status`.

CPU time comes from the process clock (`clock_getcpuclockid(3)`): the sum of `utime` and `stime` of
`/proc/<pid>/stat`, but counted in nanoseconds instead of ticks of 10 ms.
"""

import os
import resource
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Self

from benchmarks.syscalls import Tracer

ROOT = Path(__file__).resolve().parent.parent
_START_SECONDS = 120.0  # some peers are compiled when they first start
_END_SECONDS = 10.0  # from the end of its output to its own
_TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")


class DidNotStart(Exception):
    """The peer ended, or said nothing, before it told its port."""


class Server:
    """One running peer. Use it as a context manager; leaving it ends the process."""

    def __init__(self, module: str, arguments: Sequence[str], core: int, tracer: Tracer | None = None) -> None:
        self._command = [sys.executable, "-m", module, *arguments]
        self._core = core
        self._tracer = tracer
        self._process: subprocess.Popen[str] | None = None
        self._errors: IO[str] | None = None
        self.port = 0

    def __enter__(self) -> Self:
        self._errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        self._process = subprocess.Popen(
            [sys.executable, "-c", _PINNED, str(self._core), *self._command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
        )
        try:
            self.port = self._read_port()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None, "entered before it is left"
        assert self._errors is not None, "opened before the process starts"
        # Killed, not asked to stop: how a server stops is not measured here, and waiting costs each round a while.
        # Parents first: nginx's replaces a worker that dies.
        for pid in tree(self._process.pid):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._errors.close()

    @property
    def pid(self) -> int:
        """The process id."""
        assert self._process is not None, "only known once it runs"
        return self._process.pid

    def _read_port(self) -> int:
        assert self._process is not None, "started before it is read"
        assert self._process.stdout is not None, "started with a pipe"
        ready, _, _ = select.select([self._process.stdout], [], [], _START_SECONDS)
        word, _, port = (self._process.stdout.readline() if ready else "").partition(" ")
        if word == "PORT" and port.strip().isdigit():
            return int(port)
        if word:
            raise DidNotStart(f"said {f'{word} {port}'.strip()[:60]!r} instead of its port")
        if not ready:
            raise DidNotStart(self.last_error() or f"said nothing for {_START_SECONDS:.0f} s")
        raise DidNotStart(self.last_error() or self.ended(_END_SECONDS) or "closed its output without telling its port")

    def ended(self, seconds: float) -> str:
        """How it ended, if it does so within `seconds`: "status 3", "signal 9"; nothing if it still runs."""
        assert self._process is not None, "only asked once it runs"
        try:
            status = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return ""
        return f"signal {-status}" if status < 0 else f"status {status}"

    def last_error(self) -> str:
        """The last line that the process wrote to its stderr, or nothing."""
        assert self._errors is not None, "opened before the process starts"
        self._errors.seek(0)
        lines = self._errors.read().strip().splitlines()
        return lines[-1] if lines else ""

    def count_calls(self) -> None:
        """From now on count its system calls, in a turn that is for that."""
        if self._tracer is not None:
            self._tracer.start(tree(self.pid))

    def calls(self) -> dict[str, int]:
        """The system calls since then, by name; nothing in any other turn."""
        return {} if self._tracer is None else self._tracer.stop()

    def cpu_ns(self) -> int:
        """CPU time of the process and of its children, user and system, in nanoseconds."""
        return sum(cpu_ns(pid) for pid in tree(self.pid))

    def peak_bytes(self) -> int:
        """The most memory that was resident at once (VmHWM), summed over the processes, in bytes."""
        return sum(peak_bytes(pid) for pid in tree(self.pid))

    def resident_bytes(self) -> int:
        """The memory that is resident now (RSS), summed over the processes, in bytes."""
        return sum(resident_bytes(pid) for pid in tree(self.pid))


# Pins itself, then becomes the peer: the same process id, and every thread of the peer inherits the core. It is killed
# when the benchmark ends, however that ends: prctl(PR_SET_PDEATHSIG, SIGKILL). That does not reach the processes which
# it starts itself (granian's and nginx's workers): they end with `__exit__`, and outlive a benchmark that is killed.
_PINNED = (
    "import ctypes, os, sys; ctypes.CDLL(None).prctl(1, 9); "
    "os.sched_setaffinity(0, {int(sys.argv[1])}); os.execv(sys.argv[2], sys.argv[2:])"
)


def tree(pid: int) -> list[int]:
    """`pid` and all its descendants."""
    found = [pid]
    try:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            for child in (thread / "children").read_text("ascii").split():
                found += tree(int(child))
    except (FileNotFoundError, ProcessLookupError):
        pass  # it ended meanwhile
    return found


def cpu_ns(pid: int) -> int:
    """CPU time of one process with all its threads, in nanoseconds."""
    # The clock id of a process, as the C library makes it: the inverted pid, and 2 for "counted by the scheduler".
    return time.clock_gettime_ns(~pid << 3 | 2)


def peak_bytes(pid: int) -> int:
    """The most memory that was resident at once, in bytes."""
    for line in Path(f"/proc/{pid}/status").read_text("utf-8").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise ProcessLookupError(f"process {pid} has no memory left to count")


def resident_bytes(pid: int) -> int:
    """The memory that is resident now, in bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def socket_bytes() -> int:
    """What all TCP sockets of this machine hold in the kernel's buffers, in bytes (in pages, at both ends)."""
    for line in Path("/proc/net/sockstat").read_text("ascii").splitlines():
        words = line.split()
        if words[0] == "TCP:":
            return int(words[words.index("mem") + 1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def switches(pid: int) -> tuple[int, int]:
    """How often the threads of a process have given up their core, voluntarily (they waited) and involuntarily."""
    voluntary = involuntary = 0
    for status in Path(f"/proc/{pid}/task").glob("*/status"):
        try:
            lines = status.read_text("utf-8").splitlines()
        except (FileNotFoundError, ProcessLookupError):
            continue  # the thread ended meanwhile
        for line in lines:
            name, _, count = line.partition(":")
            if name == "voluntary_ctxt_switches":
                voluntary += int(count)
            elif name == "nonvoluntary_ctxt_switches":
                involuntary += int(count)
    return voluntary, involuntary


def core_busy_ns(core: int) -> int:
    """How long a core has worked for anybody, or was taken away by the hypervisor, in nanoseconds (of 10 ms each)."""
    user, nice, system, _idle, _iowait, irq, softirq, steal = _ticks(core)
    return (user + nice + system + irq + softirq + steal) * _TICK_NS


def stolen_ns(core: int) -> int:
    """How long the hypervisor has taken a core away, in nanoseconds (of 10 ms each)."""
    return _ticks(core)[-1] * _TICK_NS


def _ticks(core: int) -> list[int]:
    for line in Path("/proc/stat").read_text("ascii").splitlines():
        name, *ticks = line.split()
        if name == f"cpu{core}":
            return [int(tick) for tick in ticks[:8]]
    raise LookupError(f"there is no core {core}")


@dataclass(frozen=True, slots=True)
class Usage:
    """What was used up to a moment, or (by `-`) between two. Times are in nanoseconds, switches are counted."""

    wall: int = 0
    server: int = 0
    load: int = 0
    server_core: int = 0
    stolen: int = 0
    """What the hypervisor took of the server's core and of the load's, together."""
    voluntary: int = 0
    involuntary: int = 0
    preempted: int = 0
    """Involuntary context switches of the load."""
    calls: Mapping[str, int] = field(default_factory=dict)
    """System calls by name, in a turn in which they are counted."""

    def __sub__(self, earlier: "Usage") -> "Usage":
        return Usage(
            self.wall - earlier.wall,
            self.server - earlier.server,
            self.load - earlier.load,
            self.server_core - earlier.server_core,
            self.stolen - earlier.stolen,
            self.voluntary - earlier.voluntary,
            self.involuntary - earlier.involuntary,
            self.preempted - earlier.preempted,
            self.calls,
        )

    def shares(self) -> dict[str, float]:
        """How busy server and reader were, and what disturbed them (shares of the time, 0 to 1)."""
        wall = max(self.wall, 1)
        others = self.server_core - self.server
        # One tick of /proc/stat is 10 ms: less than that is not a finding.
        noise = others / wall if others > 2 * _TICK_NS else 0.0
        steal = self.stolen / wall if self.stolen > _TICK_NS else 0.0
        return {
            "server_busy": self.server / wall,
            "reader_busy": self.load / wall,
            "noise": noise,
            "steal": steal,
            "load_preempted_per_s": self.preempted / wall * 1e9,
        }

    def per(self, units: int) -> dict[str, float]:
        """The server's context switches for each of so many chunks, events, requests or deliveries."""
        return {"voluntary_switches": self.voluntary / units, "involuntary_switches": self.involuntary / units}


def usage(server: Server, core: int) -> Usage:
    """What the server, this process and the server's core have used so far."""
    pids = tree(server.pid)
    counted = [switches(pid) for pid in pids]
    load = os.sched_getaffinity(0)
    cores = {core, *load} if len(load) == 1 else {core}
    preempted = resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw
    return Usage(
        stolen=sum(stolen_ns(each) for each in cores),
        voluntary=sum(voluntary for voluntary, _ in counted),
        involuntary=sum(involuntary for _, involuntary in counted),
        preempted=preempted,
        server_core=core_busy_ns(core),
        load=time.process_time_ns(),
        server=server.cpu_ns(),
        wall=time.monotonic_ns(),
    )


class Window:
    """The time in which something is measured. Use it as a context manager; `used` is there afterwards.

    In a turn that counts system calls, they are counted from its beginning to its end.
    """

    def __init__(self, server: Server, core: int) -> None:
        self._server = server
        self._core = core
        self._before = Usage()
        self.used = Usage()

    def __enter__(self) -> Self:
        self._server.count_calls()
        self._before = usage(self._server, self._core)
        return self

    def __exit__(self, *_: object) -> None:
        used = usage(self._server, self._core) - self._before
        self.used = replace(used, calls=self._server.calls())

    @property
    def began(self) -> int:
        """When it began, on the monotonic clock (nanoseconds)."""
        return self._before.wall

    @property
    def span(self) -> range:
        """From its beginning to its end (nanoseconds)."""
        return range(self.began, self.began + self.used.wall)

    def metrics(self, units: int) -> dict[str, float]:
        """What every workload tells of its window, in which the server has made so many units."""
        return {**self.used.shares(), **self.used.per(units)}
