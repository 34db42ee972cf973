"""`first`: connect, ask, first chunk; and short requests on 32 kept connections.

The first chunk: one connection after the other. The handler yields one event at once and another 1 ms later, so a
server that holds the first back is seen. Measured from before `connect` to the return of the `recv` that brought the
first event: p50, p99.

Short requests: each of 32 connections asks for `/short` again as soon as it has its answer. Requests a second, and
CPU time of the server for each. The next request waits for the answer to the last, so a slow server is asked less: the
rate is what counts, and the times of the answers (p99) are those of a server that is never without work. Then the same
with requests that differ: a server may know a request that it has just seen, and not every client asks the same again.
"""

from functools import partial

from benchmarks.answer import WrongAnswer, check_events
from benchmarks.load import answer_length, ask, keep_asking
from benchmarks.process import Server, Window
from benchmarks.settings import Settings
from benchmarks.summary import curve, percentile
from benchmarks.workload import Column, Contender, Sample, Workload, alone


def check(server: Server, contender: Contender, settings: Settings) -> None:
    """One answer of each kind."""
    _, answer, _ = ask(server.port, "/first", settings.timeout)
    check_events(answer, 2)
    _, answer, _ = ask(server.port, "/short", settings.timeout)
    if answer.status != 200 or answer.body != b"ok":
        raise WrongAnswer(f"/short answered {answer.status} {answer.body[:40]!r} instead of 200 b'ok'")


def measure(server: Server, contender: Contender, settings: Settings) -> Sample:
    """First the first chunks, then the short requests."""
    for _ in range(settings.first_warmup):
        _first_event(server.port, settings.timeout)
    latencies = sorted(_first_event(server.port, settings.timeout) for _ in range(settings.first_connections))

    length = answer_length(server.port, "/short", settings.timeout)
    asking = partial(keep_asking, server.port, "/short", settings.short_connections, length=length)
    asking(settings.short_warmup)
    with Window(server, settings.server_core) as window:
        seen = asking(settings.short_seconds)
    with Window(server, settings.server_core) as varied:
        others = asking(settings.short_seconds, same=False)
    if not (seen.answers and others.answers):
        raise WrongAnswer("no short request was answered")
    answers = sorted(seen.answers)
    return Sample(
        metrics={
            "first_p50_us": percentile(latencies, 0.5),
            "first_p99_us": percentile(latencies, 0.99),
            "requests_per_s": len(answers) / seen.wall * 1e9,
            "request_p99_us": percentile(answers, 0.99) / 1e3,
            "cpu_per_request_us": window.used.server / len(answers) / 1e3,
            "varied_per_s": len(others.answers) / others.wall * 1e9,
            "cpu_per_varied_us": varied.used.server / len(others.answers) / 1e3,
            **window.metrics(len(answers)),
        },
        curves={"first": curve(latencies)},
        calls=window.used.calls,
        units=len(answers),
    )


def _first_event(port: int, timeout: float) -> float:
    """Microseconds from before `connect` to the first event."""
    started, answer, _ = ask(port, "/first", timeout)
    return (check_events(answer, 2)[0].arrived - started) / 1e3


FIRST = Workload(
    name="first",
    title="first: time to the first chunk; short requests on 32 kept connections",
    contenders=alone,
    check=check,
    measure=measure,
    unit="request",
    counts_calls=True,
    columns=(
        Column("first_p50_us", "first p50 µs", ratio=True),
        Column("first_p99_us", "first p99 µs"),
        Column("requests_per_s", "requests/s", ratio=True),
        Column("request_p99_us", "request p99 µs"),
        Column("cpu_per_request_us", "CPU/request µs", digits=1),
        Column("varied_per_s", "each another/s", ratio=True),
        Column("cpu_per_varied_us", "CPU/another µs", digits=1),
        Column("reader_busy", "reader busy %", scale=100),
    ),
)
