"""What the name of a metric tells: its unit, which way is better, and whether it is the server's own.

Every metric ends in its unit, and every part that shows or compares one reads it from there, so that a new metric of a
workload is shown and compared without being entered in a list.
"""

_ABOUT_THE_RUN = frozenset(
    {
        "server_busy", "fast_server_busy", "reader_busy", "reader_us", "noise", "steal", "load_preempted_per_s",
        "calibration_apart", "calibration_taken", "connections", "subscribers", "workers", "chunks", "reads", "cut",
        "published", "kernel_per_connection_bytes", "memory_without_bytes", "without_p50_us", "without_p99_us",
    }
)  # fmt: skip
"""What says how a sample was taken, or what it was compared with: not how good the server was."""

_GATHERED = frozenset({"events_per_chunk", "chunks_per_read", "segment_bytes", "reads_per_group", "chunks_per_wakeup"})
"""How a server gathers: that is neither better nor worse."""

_SHARES = frozenset({"idle_cpu", "delivered", "published"})


def is_of_the_server(metric: str) -> bool:
    """Whether more or less of this makes a server better or worse."""
    return metric not in _ABOUT_THE_RUN and metric not in _GATHERED


def more_is_better(metric: str) -> bool:
    """Which way is better."""
    return metric.endswith("_per_s") or metric in ("delivered", "published")


def show(metric: str, value: float) -> str:
    """A value of this metric as people read it, with its unit."""
    if metric.endswith("_us"):
        return duration(value)
    if metric.endswith("_bytes"):
        return size(value)
    if metric.endswith("_per_s"):
        return f"{thousands(value)}/s"
    if metric.endswith(("busy", "cpu", "noise", "steal", "taken")) or metric in _SHARES:
        return f"{value:.{1 if value < 0.1 else 0}%}"
    return thousands(value)


def duration(us: float) -> str:
    """A time, given in microseconds, in the unit that suits it and with three digits at most."""
    for unit, factor in (("s", 1e6), ("ms", 1e3), ("µs", 1.0)):
        if us >= factor * 0.9995:
            return f"{digits(us / factor)} {unit}"
    return "0 µs" if us < 0.0005 else f"{digits(us)} µs"


def size(count: float) -> str:
    """A number of bytes, in the unit that suits it."""
    for unit, factor in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if abs(count) >= factor:
            return f"{digits(count / factor)} {unit}"
    return f"{digits(count)} B"


def grain(metric: str, high: float) -> float:
    """What counts as 1 on an axis of this metric that goes up to `high`: 1024 where it is in KiB."""
    if not metric.endswith("_bytes"):
        return 1.0
    return next((float(factor) for factor in (2**30, 2**20, 2**10) if high >= factor), 1.0)


def thousands(value: float) -> str:
    """A plain number; a million and more in millions."""
    if abs(value) >= 1e6:
        return f"{digits(value / 1e6)} M"
    return f"{value:,.0f}" if abs(value) >= 1000 else digits(value)


def digits(value: float) -> str:
    """Three digits that count, and no zeros behind the point."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    if abs(value) < 0.0005:
        return "0"
    written = f"{value:.{1 if abs(value) >= 10 else 2 if abs(value) >= 0.1 else 3}f}"
    return written.rstrip("0").rstrip(".") if "." in written else written


def times(value: float) -> str:
    """A ratio."""
    return f"{value:,.0f}×" if value >= 100 else f"{value:.1f}×" if value >= 10 else f"{value:.2f}×"


NAMES = {
    "cpu_per_chunk_us": "CPU time for each chunk",
    "cpu_per_event_us": "CPU time for each event",
    "cpu_per_delivery_us": "CPU time for each delivery",
    "net_cpu_per_delivery_us": "CPU time for each delivery, without the publishing",
    "cpu_per_publish_us": "CPU time to publish an event",
    "fast_cpu_per_delivery_us": "CPU time for each delivery, as fast as it goes",
    "cpu_per_request_us": "CPU time for each short request",
    "cpu_per_varied_us": "CPU time for each short request, each another",
    "cpu_per_opening_us": "CPU time to open a stream",
    "latency_p50_us": "latency, p50",
    "latency_p99_us": "latency, p99",
    "latency_p999_us": "latency, p99.9",
    "intended_p50_us": "lateness against the intended time, p50",
    "intended_p99_us": "lateness against the intended time, p99",
    "intended_p999_us": "lateness against the intended time, p99.9",
    "intended_last_p50_us": "lateness at the last subscriber, p50",
    "intended_last_p99_us": "lateness at the last subscriber, p99",
    "first_p50_us": "time to the first, p50",
    "first_p99_us": "time to the first, p99",
    "last_p50_us": "latency to the last subscriber, p50",
    "last_p99_us": "latency to the last subscriber, p99",
    "lag_p99_us": "lag of the loop, p99",
    "fast_lag_p99_us": "lag of the loop at full speed, p99",
    "answer_p50_us": "a short request meanwhile, p50",
    "answer_p99_us": "a short request meanwhile, p99",
    "events_per_s": "events a second",
    "requests_per_s": "short requests a second",
    "varied_per_s": "short requests a second, each another",
    "request_p99_us": "a short request, p99",
    "deliveries_per_s": "deliveries a second",
    "memory_per_connection_bytes": "memory for each stream",
    "kernel_per_connection_bytes": "kernel's buffers for each stream",
    "empty_bytes": "memory of the server alone",
    "memory_bytes": "memory of the server",
    "memory_without_bytes": "memory of the server without slow readers",
    "peak_memory_bytes": "peak memory",
    "idle_cpu": "CPU while idle, between heartbeats",
    "cpu_per_wake_us": "CPU time to send each stream an event after the silence",
    "others_p50_us": "latency of the others, p50",
    "others_p99_us": "latency of the others, p99",
    "others_p99_ratio": "others' p99, with slow readers ÷ without",
    "held_per_slow_bytes": "memory held for each slow reader",
    "growth_per_slow_bytes": "memory still growing for each slow reader",
    "voluntary_switches": "voluntary context switches",
    "involuntary_switches": "involuntary context switches",
    "chunks_per_wakeup": "chunks each time the server wakes up",
    "chunks_per_read": "chunks in a read",
    "events_per_chunk": "events in a chunk",
    "segment_bytes": "bytes in a write",
    "reads_per_group": "reads for a group",
    "delivered": "events delivered of those due",
    "server_busy": "server busy",
    "reader_busy": "reader busy",
    "noise": "taken by others",
    "steal": "taken by the hypervisor",
}  # fmt: skip
"""What people call the metrics."""


def name(metric: str) -> str:
    """What people call it."""
    return NAMES.get(metric, metric.replace("_", " "))
