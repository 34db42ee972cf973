"""The peers: each server is a file of its own that runs as a process and prints `PORT n` when it listens.

Every peer has those of these paths that its workloads need. Their numbers stand in the query:

* `/paced?events=N&interval=S`: an event each `S` seconds, the first at once; compressed where the peer is run with
  `--gzip`
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

Not every peer is in every workload, since a run of all of them has to end within half an hour: where two differ in what
the workload does not touch (aiohttp's two loops under TLS, say), one of them stands for both.
"""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rawstream-benchmarks"
"""For what is made once: compiled peers, a certificate."""

NCHAN = "/usr/lib/nginx/modules/ngx_nchan_module.so"  # where Debian's libnginx-mod-nchan puts it

_STREAMS = frozenset({"paced", "burst", "first"})
_FANOUT = frozenset({"fanout", "fanout-many"})
_CHANNEL = _FANOUT | {"idle", "slow"}
_FLUSH = frozenset({"flush"})
_TLS = frozenset({"paced-tls"})
_GZIP = frozenset({"paced-gzip"})
_EVERY = _STREAMS | _CHANNEL | _FLUSH | _TLS | _GZIP


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
    cannot: Mapping[str, str] = field(default_factory=dict)
    """The workloads for which there is nothing in it, and why: a report names them."""

    @property
    def is_floor(self) -> bool:
        """Whether this is no server but what the kernel alone costs."""
        return self.module in ("benchmarks.peers.floor", "benchmarks.peers.floor_c")

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
        workloads=_EVERY - _CHANNEL if shutil.which("cc") else _EVERY - {"idle", "slow"},
        tells_lag=False,
    ),
    Peer(
        "floor-c",
        "floor (send loop in C)",
        "benchmarks.peers.floor_c",
        workloads=_FANOUT,
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
        _EVERY,
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
        _EVERY - {"fanout-many"},
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
        "fastapi",
        "uvicorn (httptools, uvloop) + FastAPI's SSE",
        "benchmarks.peers.fastapi_uvicorn",
        requires=("uvicorn", "httptools", "uvloop", "fastapi"),
        workloads=_STREAMS,
    ),
    Peer(
        "sse-starlette",
        "uvicorn (httptools, uvloop) + sse-starlette",
        "benchmarks.peers.sse_starlette_uvicorn",
        requires=("uvicorn", "httptools", "uvloop", "starlette", "sse-starlette"),
        workloads=frozenset({"paced", "burst", "fanout"}),
    ),
    Peer(
        "hypercorn",
        "hypercorn (uvloop) + Starlette",
        "benchmarks.peers.hypercorn_server",
        ("--loop", "uvloop"),
        ("hypercorn", "uvloop", "starlette"),
        _STREAMS | _TLS | {"fanout"},
    ),
    Peer(
        "granian",
        "granian (uvloop) + Starlette",
        "benchmarks.peers.granian_server",
        requires=("granian", "uvloop", "starlette"),
        workloads=_STREAMS | _TLS | {"fanout", "idle"},
    ),
    Peer("aiohttp", "aiohttp", "benchmarks.peers.aiohttp_server", requires=("aiohttp",)),
    Peer(
        "aiohttp-uvloop",
        "aiohttp, uvloop",
        "benchmarks.peers.aiohttp_server",
        ("--loop", "uvloop"),
        ("aiohttp", "uvloop"),
        _STREAMS,
    ),
    Peer(
        "node",
        "Node's http",
        "benchmarks.peers.node",
        workloads=_EVERY - _FLUSH - {"slow"},
        programs=("node",),
    ),
    Peer(
        "go",
        "Go's net/http",
        "benchmarks.peers.go",
        workloads=_EVERY - _FLUSH,
        programs=("go",),
        tells_lag=False,
    ),
    Peer(
        "nchan",
        "nginx + nchan",
        "benchmarks.peers.nchan",
        workloads=_CHANNEL,
        programs=("nginx", NCHAN),
        tells_lag=False,
        cannot=dict.fromkeys(("paced", "burst"), "makes no stream by itself: it hands on what is published"),
    ),
)
"""All peers, in the order in which they take turns."""
