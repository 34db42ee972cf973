"""`idle`: 10,000 open streams of server-sent events that say nothing.

Each peer takes part with the subscribers of a channel, and rawstream, where that is another thing, also with streams
whose handler has sent one event and waits for something that does not come.

Measured:

* memory of the server for each connection: (RSS with all of them, after one delivery to each - RSS with none) / N.
  None means after some connections have come and gone, so what a first connection costs once is not counted.
* what the kernel's socket buffers hold for each, at both ends (`/proc/net/sockstat`; the whole machine's)
* CPU time of the server to open each, and while they are idle: the share of a core in a second without heartbeats
* CPU time of the server to send each subscriber of the channel an event after that. rawstream sends each a heartbeat
  after 15 s of silence, which costs as much: of 10,000 at 20 µs each, 1.3 % of a core. The others send none here.
"""

import time
from collections.abc import Sequence

from benchmarks.answer import WrongAnswer
from benchmarks.channel import check_channel
from benchmarks.peers import Peer
from benchmarks.process import Server, Window, socket_bytes, usage
from benchmarks.settings import Settings
from benchmarks.subscribers import Subscribers, possible
from benchmarks.workload import Column, Contender, Sample, Workload

HANDLER = "handler streams"
_SETTLE = 0.3  # seconds for what follows an opening or a delivery to be done
_FEW = 50  # connections that come and go before memory is looked at


def contenders(peer: Peer) -> Sequence[Contender]:
    """The subscribers of a channel, and of rawstream the streams of handlers: elsewhere both are the same."""
    subscribers = Contender(peer)
    return (subscribers, Contender(peer, "/idle", HANDLER)) if peer.name == "rawstream" else (subscribers,)


def path(contender: Contender) -> str:
    """What is opened."""
    return contender.query or "/fanout"


def check(server: Server, contender: Contender, settings: Settings) -> None:
    """The channel, and some streams that come and go."""
    check_channel(server, contender, settings)
    with Subscribers(server.port, path(contender)) as crowd:
        crowd.join(min(_FEW, settings.idle_connections), settings.timeout)
        _deliver(crowd, contender, settings.timeout)


def measure(server: Server, contender: Contender, settings: Settings) -> Sample:
    """Open all, deliver once, look, and wait."""
    count = possible(settings.idle_connections)
    time.sleep(_SETTLE)
    empty, buffers = server.resident_bytes(), socket_bytes()
    with Subscribers(server.port, path(contender)) as crowd:
        before = usage(server, settings.server_core)
        crowd.join(count, settings.timeout)
        _deliver(crowd, contender, settings.timeout)
        opening = usage(server, settings.server_core) - before
        crowd.run(time.monotonic_ns() + int(_SETTLE * 1e9))
        full, held = server.resident_bytes(), socket_bytes()
        with Window(server, settings.server_core) as window:
            crowd.run(window.began + int(settings.idle_seconds * 1e9))
        woken = {} if contender.query else _wake(server, crowd, settings)
    return Sample(
        metrics={
            "memory_per_connection_bytes": (full - empty) / count,
            "kernel_per_connection_bytes": max(held - buffers, 0) / count,
            "cpu_per_opening_us": opening.server / count / 1e3,
            "idle_cpu": window.used.server / window.used.wall,
            **woken,
            "empty_bytes": empty,
            "connections": count,
            **window.metrics(count),
        }
    )


def _wake(server: Server, crowd: Subscribers, settings: Settings) -> dict[str, float]:
    """What one more event costs, when nothing of these streams is in any cache any more."""
    before = usage(server, settings.server_core)
    crowd.publish()
    crowd.settle(settings.timeout)
    return {"cpu_per_wake_us": (usage(server, settings.server_core) - before).server / crowd.count / 1e3}


def _deliver(crowd: Subscribers, contender: Contender, timeout: float) -> None:
    """One event to each: published to the channel, or the first of each handler."""
    if not contender.query:
        crowd.publish()
        crowd.settle(timeout)
        return
    until = time.monotonic() + timeout
    while crowd.own < crowd.count:
        if time.monotonic() > until:
            raise WrongAnswer(f"{crowd.own} of {crowd.count} streams brought their event")
        crowd.turn(0.1)
    if crowd.own > crowd.count:
        raise WrongAnswer(f"{crowd.own} events in {crowd.count} streams that have one each")


IDLE = Workload(
    name="idle",
    title="idle: 10,000 streams that say nothing",
    contenders=contenders,
    check=check,
    measure=measure,
    unit="connection",
    columns=(
        Column("memory_per_connection_bytes", "bytes/connection", ratio=True),
        Column("kernel_per_connection_bytes", "in socket buffers"),
        Column("cpu_per_opening_us", "CPU/opening µs"),
        Column("idle_cpu", "idle CPU %", scale=100, digits=2),
        Column("cpu_per_wake_us", "CPU/event then µs", digits=1),
        Column("empty_bytes", "server alone MiB", scale=2**-20, digits=1),
        Column("connections", "connections"),
    ),
)
