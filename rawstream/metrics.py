"""The counts in Prometheus' text format: `router.get("/metrics")(metrics)`. Needs the extra `metrics`.

They are read when somebody asks, so that open streams are in them as they are at that moment, and a request costs
nothing more for being counted here. They are kept in a registry of their own, not in prometheus-client's global one;
a program registers what it measures itself in `registry`, and both come out together.

Counts belong to a process. With `--workers` each request for /metrics reaches one worker, whichever accepts it, and
shows that worker's counts alone: `rawstream_process_info{pid="…"}` tells which. Figures that jump between processes
cannot be added up or turned into rates, so there run one process a port, and let Prometheus scrape each of them.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from itertools import accumulate

from . import observe
from .messages import Request, Response

try:
    from prometheus_client import CollectorRegistry
    from prometheus_client.exposition import choose_encoder
    from prometheus_client.metrics_core import (
        CounterMetricFamily,
        GaugeMetricFamily,
        HistogramMetricFamily,
        InfoMetricFamily,
        Metric,
    )
except ImportError as exc:
    raise ImportError("the metrics need prometheus-client: pip install prometheus-client") from exc

registry = CollectorRegistry()
"""What `metrics` shows. Metrics of one's own may be registered here too: `Counter(..., registry=registry)`."""


async def metrics(request: Request) -> Response:
    """Answer with everything in `registry`, as OpenMetrics if `Accept` asks for that, else as plain text."""
    accept = request.headers.get("accept", "")
    try:
        # A version that is accepted comes back in the answer's Content-Type, where only such characters can be.
        encode, content_type = choose_encoder(accept if accept.isascii() and accept.isprintable() else "")
    except TypeError:  # its version is no version
        encode, content_type = choose_encoder("")
    headers = [("Content-Type", content_type), ("Vary", "Accept"), ("Cache-Control", "no-store")]
    return Response(200, headers, encode(registry))


class _Counts:
    """prometheus-client's view of `observe.counts`, and of the streams that are open."""

    def collect(self) -> Iterator[Metric]:
        """Each metric, as it is now."""
        open_streams = [*observe.open_streams]
        yield InfoMetricFamily("rawstream_process", "Whose counts these are.", {"pid": str(os.getpid())})
        yield from _connections()
        yield from _requests()
        yield from _streams(open_streams)
        yield from _stream_counts(open_streams)


def _connections() -> Iterator[Metric]:
    counts = observe.counts
    yield GaugeMetricFamily("rawstream_connections", "Connections that are open.", counts.connections)
    yield CounterMetricFamily("rawstream_accepted_connections", "Connections there have been.", counts.accepted)
    yield _labelled("rawstream_refused", "What was refused, and why.", "reason", counts.refused.items())


def _requests() -> Iterator[Metric]:
    counts = observe.counts
    yield GaugeMetricFamily("rawstream_requests_open", "Requests under way, streams included.", counts.under_way)
    requests = CounterMetricFamily(
        "rawstream_requests", "Requests that have ended, streams included.", labels=["method", "status"]
    )
    for (method, status), number in counts.requests.items():
        requests.add_metric([method, status], number)
    yield requests
    yield _histogram("rawstream_request", "How long a request took that was no stream.", counts.request_seconds)


def _streams(open_streams: list[observe.Record]) -> Iterator[Metric]:
    counts = observe.counts
    paused = sum(record.writer is not None and not record.writer.writable for record in open_streams)
    yield GaugeMetricFamily("rawstream_streams", "Streams that are open.", len(open_streams))
    yield GaugeMetricFamily("rawstream_streams_paused", "Open streams whose reader is behind.", paused)
    yield _labelled("rawstream_streams_ended", "Streams that have ended, and how.", "how", counts.streams_ended.items())
    yield _histogram("rawstream_first_chunk", "From a request's head to its stream's first chunk.", counts.first_chunk)
    yield _histogram("rawstream_stream", "How long streams lived that have ended.", counts.stream_seconds)
    yield _histogram("rawstream_write_stall", "How long producers waited for their readers.", counts.write_stall)


def _stream_counts(open_streams: list[observe.Record]) -> Iterator[Metric]:
    """What streams add to while they are open. When one ends, its part moves over into the counts: nothing is lost."""
    counts = observe.counts
    chunks = counts.chunks + sum(record.chunks_so_far for record in open_streams)
    sent = counts.sent + sum(record.sent_so_far for record in open_streams)
    yield CounterMetricFamily("rawstream_stream_chunks", "Pieces of body written in streams.", chunks)
    yield CounterMetricFamily("rawstream_sent_bytes", "Bytes sent, heads and framing included.", sent)


def _labelled(name: str, text: str, label: str, numbers: Iterable[tuple[str, int]]) -> Metric:
    family = CounterMetricFamily(name, text, labels=[label])
    for value, number in numbers:
        family.add_metric([value], number)
    return family


def _histogram(name: str, text: str, histogram: observe.Histogram) -> Metric:
    """Its unit, seconds, is added to the name. Prometheus' buckets count all that lies below their bound."""
    bounds = [*map(str, histogram.bounds), "+Inf"]
    buckets = [*zip(bounds, accumulate(histogram.buckets), strict=True)]
    return HistogramMetricFamily(name, text, buckets, histogram.sum, unit="seconds")


registry.register(_Counts())
