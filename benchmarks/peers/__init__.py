"""The peers: each server is a file of its own that runs as a process and prints `PORT n` when it listens.

Every peer has the same five paths. Their numbers stand in the query:

* `/paced?events=N&interval=S`: an event each `S` seconds, the first at once
* `/burst?events=N`: `N` events with no wait between
* `/first`: one event at once, another 1 ms later
* `/flush?groups=N&size=K&wait=S&nagle=0|1`: `N` groups of `K` events, `S` seconds between the groups
* `/short`: a short answer, `ok`

Those that take part in the workloads with a channel have one, and these paths:

* `/fanout`: subscribe to the channel
* `POST /publish`: publish the body, a line of text; answered when that is done, with any 2xx
* `/idle`: one event at once, and then nothing (where handlers make streams)
* `/lag`: how late the loop was, each 10 ms, since this was last asked (from then on): microseconds, separated by blanks

An event is `data: `, the time of its `yield` in nanoseconds in 18 digits, and an empty line: 26 bytes.
"""

import shutil
from dataclasses import dataclass

_STREAMS = frozenset({"paced", "burst", "first", "flush"})
_CHANNEL = frozenset({"fanout", "fanout-many", "idle", "slow"})
_EVERY = _STREAMS | _CHANNEL
NCHAN = "/usr/lib/nginx/modules/ngx_nchan_module.so"  # where Debian's libnginx-mod-nchan puts it


@dataclass(frozen=True, slots=True)
class Peer:
    """One server as it is measured."""

    name: str
    title: str
    module: str
    arguments: tuple[str, ...] = ()
    requires: tuple[str, ...] = ()
    workloads: frozenset[str] = _EVERY
    programs: tuple[str, ...] = ()
    """Programs that must be there, or files if they are written as a path."""
    tells_lag: bool = True
    """Whether there is `/lag`."""

    @property
    def is_floor(self) -> bool:
        """Whether this is no server but what the kernel alone costs."""
        return self.module in ("benchmarks.peers.floor", "benchmarks.peers.floor_c")

    @property
    def has_handlers(self) -> bool:
        """Whether there is `/idle`: a stream that a handler makes by itself."""
        return "idle" in self.workloads and not self.is_floor and not self.programs

    @property
    def is_ours(self) -> bool:
        """Whether this is rawstream."""
        return self.module == "benchmarks.peers.rawstream_server"


PEERS = (
    Peer(
        "floor",
        "floor (bare send loop)",
        "benchmarks.peers.floor",
        # With a channel it stands in where the one in C cannot be compiled.
        workloads=_STREAMS if shutil.which("cc") else _EVERY,
        tells_lag=False,
    ),
    Peer(
        "floor-c",
        "floor (send loop in C)",
        "benchmarks.peers.floor_c",
        workloads=_CHANNEL,
        programs=("cc",),
        tells_lag=False,
    ),
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
        _STREAMS,
    ),
    Peer(
        "sse-starlette",
        "uvicorn (httptools, uvloop) + sse-starlette",
        "benchmarks.peers.sse_starlette_uvicorn",
        requires=("uvicorn", "httptools", "uvloop", "starlette", "sse-starlette"),
        workloads=_CHANNEL,
    ),
    Peer("aiohttp", "aiohttp", "benchmarks.peers.aiohttp_server", requires=("aiohttp",)),
    Peer(
        "aiohttp-uvloop",
        "aiohttp, uvloop",
        "benchmarks.peers.aiohttp_server",
        ("--loop", "uvloop"),
        ("aiohttp", "uvloop"),
    ),
    Peer("node", "Node's http", "benchmarks.peers.node", workloads=_CHANNEL, programs=("node",)),
    Peer("go", "Go's net/http", "benchmarks.peers.go", workloads=_CHANNEL, programs=("go",), tells_lag=False),
    Peer(
        "nchan",
        "nginx + nchan",
        "benchmarks.peers.nchan",
        workloads=_CHANNEL,
        programs=("nginx", NCHAN),
        tells_lag=False,
    ),
)
"""All peers, in the order in which they take turns."""
