"""The peers: each server is a file of its own that runs as a process and prints `PORT n` when it listens.

Every peer has the same five paths. Their numbers stand in the query:

* `/paced?events=N&interval=S`: an event each `S` seconds, the first at once
* `/burst?events=N`: `N` events with no wait between
* `/first`: one event at once, another 1 ms later
* `/flush?groups=N&size=K&wait=S&nagle=0|1`: `N` groups of `K` events, `S` seconds between the groups
* `/short`: a short answer, `ok`

An event is `data: `, the time of its `yield` in nanoseconds in 18 digits, and an empty line: 26 bytes.
"""

from dataclasses import dataclass

_EVERY = frozenset({"paced", "burst", "first", "flush"})


@dataclass(frozen=True, slots=True)
class Peer:
    """One server as it is measured."""

    name: str
    title: str
    module: str
    arguments: tuple[str, ...] = ()
    requires: tuple[str, ...] = ()
    workloads: frozenset[str] = _EVERY

    @property
    def is_floor(self) -> bool:
        """Whether this is no server but what the kernel alone costs."""
        return self.module == "benchmarks.peers.floor"

    @property
    def is_ours(self) -> bool:
        """Whether this is rawstream."""
        return self.module == "benchmarks.peers.rawstream_server"


PEERS = (
    Peer("floor", "floor (bare send loop)", "benchmarks.peers.floor"),
    Peer("rawstream", "rawstream", "benchmarks.peers.rawstream_server", requires=("rawstream", "h11")),
    Peer(
        "rawstream-uvloop",
        "rawstream, uvloop",
        "benchmarks.peers.rawstream_server",
        ("--loop", "uvloop"),
        ("rawstream", "h11", "uvloop"),
    ),
    Peer(
        "rawstream-h11send",
        "rawstream, each chunk by h11.send",
        "benchmarks.peers.rawstream_server",
        ("--h11-send",),
        ("rawstream", "h11"),
        frozenset({"paced"}),
    ),
    Peer(
        "uvicorn",
        "uvicorn (httptools, uvloop) + Starlette",
        "benchmarks.peers.starlette_uvicorn",
        ("--http", "httptools", "--loop", "uvloop"),
        ("uvicorn", "httptools", "uvloop", "starlette"),
    ),
    Peer(
        "uvicorn-h11",
        "uvicorn (h11, asyncio) + Starlette",
        "benchmarks.peers.starlette_uvicorn",
        ("--http", "h11", "--loop", "asyncio"),
        ("uvicorn", "h11", "starlette"),
    ),
    Peer("aiohttp", "aiohttp", "benchmarks.peers.aiohttp_server", requires=("aiohttp",)),
    Peer(
        "aiohttp-uvloop",
        "aiohttp, uvloop",
        "benchmarks.peers.aiohttp_server",
        ("--loop", "uvloop"),
        ("aiohttp", "uvloop"),
    ),
)
"""All peers, in the order in which they take turns."""
