"""`fanout` and `fanout-many`: 1,000 and 15,000 subscribers of one channel; each event goes to all of them.

Events are published by a `POST` of the load, whose time is the stamp in the event, the same way for all peers. First
at a steady rate: 20 events a second, and for 15,000 subscribers two (20 would be 300,000 deliveries a second, more
than a core of any server makes). Then as fast as it goes: the next event as soon as fewer than two are on their way to
somebody. At last the same once more, with a short request each 10 ms on a connection of its own.

Measured before anybody subscribes: CPU time of the server for each event that is published, to nobody: what the `POST`
costs. It is a part of all that follows, but for "net".

Measured at the steady rate:

* CPU time of the server, with all its processes, for each delivery
* latency from the `POST` to the `read` of the first and of the last subscriber of each event: p50, p99
* latency of the last subscriber from the time when the event was *due*. An event that is due while the last publish is
  not answered yet is published late, not left out, so a server that falls behind can't choose what is measured.
* the lag of the server's loop, where it has one that can be asked: how late its timers are, p99 (for half as long
  again, since a timer each 10 ms would count among the CPU time of the deliveries)

As fast as it goes: deliveries a second, and CPU time for each; who is given both events in one write counts as two.
With short requests: how long accepting and answering one takes meanwhile (p50, p99), and the lag of the loop.

Each subscriber must get each event once and in order; a peer that misses or doubles one is not timed.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from benchmarks.channel import Audience, check_channel, check_delivered, lags, latencies_of
from benchmarks.process import Server, Window, usage
from benchmarks.requests import Probe
from benchmarks.settings import Settings
from benchmarks.subscribers import Subscribers, possible
from benchmarks.summary import curve, percentile
from benchmarks.workload import Column, Contender, Sample, Workload, alone

_PUBLISHED = 50  # events before anybody subscribes


def few(settings: Settings) -> Audience:
    """The sizes of `fanout`."""
    return Audience(
        settings.fanout_subscribers,
        settings.fanout_interval,
        settings.fanout_seconds,
        settings.fanout_fast_seconds,
    )


def many(settings: Settings) -> Audience:
    """The sizes of `fanout-many`."""
    return Audience(
        settings.many_subscribers, settings.many_interval, settings.many_seconds, settings.many_fast_seconds
    )


def measure(sizes: Callable[[Settings], Audience], server: Server, contender: Contender, settings: Settings) -> Sample:
    """All three rates, one after the other, with the same subscribers."""
    audience = sizes(settings)
    with Subscribers(server.port) as crowd:
        nobody = _nobody(server, crowd, settings)
        crowd.join(possible(audience.subscribers), settings.timeout)
        _warm_up(crowd, settings.timeout)
        sample = _steady(server, crowd, audience, settings)
        steady = sample.metrics
        lags(server.port, contender.peer, settings.timeout)  # from now on, since asking costs something
        crowd.publish_every(audience.interval, audience.seconds / 2)
        crowd.settle(settings.timeout)
        net = steady["cpu_per_delivery_us"] - nobody["cpu_per_publish_us"] / crowd.count
        steady["net_cpu_per_delivery_us"] = max(net, 0.0)
        steady |= _lag("lag", server, contender, settings)
        fast = _fast(server, crowd, audience, settings)
        probed = _probed(server, crowd, audience, settings)
        probed |= _lag("fast_lag", server, contender, settings)
        check_delivered(crowd)
        busy = max(steady["reader_busy"], fast.pop("reader_busy"))
        more = {"reader_busy": busy, "subscribers": crowd.count}
        return replace(sample, metrics={**nobody, **steady, **fast, **probed, **more})


def _nobody(server: Server, crowd: Subscribers, settings: Settings) -> dict[str, float]:
    before = usage(server, settings.server_core)
    stamps = crowd.publish_every(settings.publish_interval, _PUBLISHED * settings.publish_interval)
    crowd.settle(settings.timeout)
    used = usage(server, settings.server_core) - before
    return {"cpu_per_publish_us": used.server / len(stamps) / 1e3}


def _warm_up(crowd: Subscribers, timeout: float) -> None:
    for _ in range(3):
        crowd.publish()
        crowd.settle(timeout)


def _steady(server: Server, crowd: Subscribers, audience: Audience, settings: Settings) -> Sample:
    with Window(server, settings.server_core) as window:
        stamps = crowd.publish_every(audience.interval, audience.seconds)
        crowd.settle(settings.timeout)
    used = window.used
    firsts, lasts = latencies_of(crowd, list(stamps))
    late = sorted((crowd.arrivals[stamp][-1] - due) / 1e3 for stamp, due in stamps.items())
    deliveries = len(stamps) * crowd.count
    metrics = {
        "cpu_per_delivery_us": used.server / deliveries / 1e3,
        "first_p50_us": percentile(firsts, 0.5),
        "first_p99_us": percentile(firsts, 0.99),
        "last_p50_us": percentile(lasts, 0.5),
        "last_p99_us": percentile(lasts, 0.99),
        "intended_last_p50_us": percentile(late, 0.5),
        "intended_last_p99_us": percentile(late, 0.99),
        "published": len(stamps) / round(audience.seconds / audience.interval),
        "reader_us": used.load / deliveries / 1e3,
        **window.metrics(deliveries),
    }
    return Sample(metrics, {"first": curve(firsts), "last": curve(lasts)}, calls=used.calls, units=deliveries)


def _fast(server: Server, crowd: Subscribers, audience: Audience, settings: Settings) -> dict[str, float]:
    before = usage(server, settings.server_core)
    stamps = crowd.publish_freely(audience.fast_seconds)
    crowd.settle(settings.timeout)
    used = usage(server, settings.server_core) - before
    deliveries = len(stamps) * crowd.count
    return {
        "deliveries_per_s": deliveries / used.wall * 1e9,
        "fast_cpu_per_delivery_us": used.server / deliveries / 1e3,
        "fast_server_busy": used.server / used.wall,
        "reader_busy": used.load / used.wall,
    }


def _probed(server: Server, crowd: Subscribers, audience: Audience, settings: Settings) -> dict[str, float]:
    crowd.probe = Probe(server.port, settings.probe_interval)
    crowd.publish_freely(audience.fast_seconds)
    crowd.settle(settings.timeout)
    crowd.probe.close()
    times = sorted(time / 1e3 for time in crowd.probe.times)
    crowd.probe = None
    return {"answer_p50_us": percentile(times, 0.5), "answer_p99_us": percentile(times, 0.99)}


def _lag(name: str, server: Server, contender: Contender, settings: Settings) -> dict[str, float]:
    found = lags(server.port, contender.peer, settings.timeout)
    return {f"{name}_p99_us": percentile(found, 0.99)} if found else {}


_COLUMNS = (
    Column("subscribers", "subscribers"),
    Column("cpu_per_delivery_us", "CPU/delivery µs", digits=2, ratio=True),
    Column("net_cpu_per_delivery_us", "net", digits=2),
    Column("cpu_per_publish_us", "CPU/publish µs"),
    Column("published", "published %", scale=100),
    Column("first_p50_us", "first p50 µs"),
    Column("last_p50_us", "last p50 µs"),
    Column("last_p99_us", "last p99 µs"),
    Column("intended_last_p99_us", "late p99 µs"),
    Column("lag_p99_us", "lag p99 µs"),
    Column("deliveries_per_s", "fast: deliveries/s", ratio=True),
    Column("fast_cpu_per_delivery_us", "fast: CPU/delivery µs", digits=2),
    Column("fast_lag_p99_us", "fast: lag p99 µs"),
    Column("answer_p99_us", "fast: answer p99 µs"),
    Column("reader_busy", "reader busy %", scale=100),
)

FANOUT = Workload(
    name="fanout",
    title="fanout: 1,000 subscribers of one channel, 20 events a second; then as fast as it goes",
    contenders=alone,
    check=check_channel,
    measure=partial(measure, few),
    unit="delivery",
    counts_calls=True,
    columns=_COLUMNS,
)

FANOUT_MANY = Workload(
    name="fanout-many",
    title="fanout-many: 15,000 subscribers of one channel, 2 events a second; then as fast as it goes",
    contenders=alone,
    check=check_channel,
    measure=partial(measure, many),
    unit="delivery",
    columns=_COLUMNS,
)
"""The same with many subscribers; `--quick` has fewer."""
