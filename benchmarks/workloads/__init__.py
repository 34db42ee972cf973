"""The workloads, and which command runs which."""

from benchmarks.workload import Workload
from benchmarks.workloads.burst import BURST
from benchmarks.workloads.fanout import FANOUT, FANOUT_MANY
from benchmarks.workloads.first import FIRST
from benchmarks.workloads.flush import FLUSH
from benchmarks.workloads.idle import IDLE
from benchmarks.workloads.paced import PACED, PACED_GZIP, PACED_TLS
from benchmarks.workloads.slow import SLOW

COMMANDS: dict[str, tuple[Workload, ...]] = {
    "latency": (PACED, BURST, FIRST),
    "tls": (PACED_TLS,),
    "gzip": (PACED_GZIP,),
    "flush": (FLUSH,),
    "fanout": (FANOUT, FANOUT_MANY),
    "idle": (IDLE,),
    "slow": (SLOW,),
}
"""The workloads of each command, in the order in which they run."""
