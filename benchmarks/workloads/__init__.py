"""The workloads, and which command runs which."""

from benchmarks.workload import Workload
from benchmarks.workloads.burst import BURST
from benchmarks.workloads.first import FIRST
from benchmarks.workloads.flush import FLUSH
from benchmarks.workloads.paced import PACED

COMMANDS: dict[str, tuple[Workload, ...]] = {"latency": (PACED, BURST, FIRST), "flush": (FLUSH,)}
"""The workloads of each command, in the order in which they run."""
