"""What a workload is: one shape for all of them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks.load import PLAIN, Transfer
from benchmarks.peers import Peer
from benchmarks.process import Server
from benchmarks.settings import Settings
from benchmarks.summary import Curve


@dataclass(frozen=True, slots=True)
class Contender:
    """A peer in one of the variants that a workload knows, told apart by the end of the query."""

    peer: Peer
    query: str = ""
    variant: str = ""
    transfer: Transfer = PLAIN

    @property
    def arguments(self) -> tuple[str, ...]:
        """What the peer's module is run with."""
        return (*self.peer.arguments, *self.transfer.arguments)

    @property
    def requires(self) -> tuple[str, ...]:
        """The distributions that must be there."""
        return (*self.peer.requires, "trustme") if self.transfer.tls else self.peer.requires

    @property
    def name(self) -> str:
        """Unique within a workload; the key in the JSON."""
        return f"{self.peer.name}/{self.variant}" if self.variant else self.peer.name

    @property
    def title(self) -> str:
        """For people."""
        return f"{self.peer.title}, {self.variant}" if self.variant else self.peer.title


@dataclass(frozen=True, slots=True)
class Sample:
    """What one turn of one contender gave.

    A metric's name ends in its unit. `curves` are distributions, for plots; `timeline` is the beginning of one
    reader's stream: the time in ms since the first yield, and how many events came with that read (0: a yield); in
    `slow` it is the server's memory in bytes.
    """

    metrics: dict[str, float]
    curves: dict[str, Curve] = field(default_factory=dict)
    timeline: list[tuple[float, int]] = field(default_factory=list)
    histogram: list[int] = field(default_factory=list)
    calls: Mapping[str, int] = field(default_factory=dict)
    """The server's system calls by name, in a turn that counts them,"""
    units: int = 0
    """and the chunks, events, requests or deliveries of that time."""
    noisy: tuple[str, ...] = ()
    """Why the machine was not quiet (`noise.reasons`)."""


@dataclass(frozen=True, slots=True)
class Column:
    """A metric in the table on the terminal. With `ratio`, it is compared with the first contender of rawstream."""

    metric: str
    heading: str
    scale: float = 1.0
    digits: int = 0
    ratio: bool = False

    def text(self, value: float) -> str:
        """The value as it is shown."""
        return f"{value * self.scale:,.{self.digits}f}"


@dataclass(frozen=True, slots=True)
class Workload:
    """One workload: who takes part, how its answers are checked, how it is measured, what is shown."""

    name: str
    title: str
    contenders: Callable[[Peer], Sequence[Contender]]
    check: Callable[[Server, Contender, Settings], None]
    measure: Callable[[Server, Contender, Settings], Sample]
    columns: tuple[Column, ...]
    unit: str = "chunk"
    """What is counted: context switches and system calls are for each of these."""
    counts_calls: bool = False
    """Whether its samples have `calls`."""


def alone(peer: Peer) -> Sequence[Contender]:
    """The contenders of a workload without variants."""
    return (Contender(peer),)
