"""Who is named for which evidence, and the verdict on all ways together."""

from __future__ import annotations

import gzip
import zlib
from dataclasses import replace
from typing import Any

import pytest

from rawstream.fields import Headers
from rawstream.probe.arrivals import Mark, Recording
from rawstream.probe.conclusion import conclude, fields
from rawstream.probe.culprits import accuse, gzip_maker, parties
from rawstream.probe.findings import Case, Finding
from rawstream.probe.ways import BROWSER, Trial, Way

STREAMS = Finding("streams", "streams")
HELD = Finding("held", "held until the end", seconds=1.5)
BATCHES = Finding("batches", "arrives in batches of 4 KiB, one each 0.1 s", batch=4096, seconds=0.2)
CUT = Finding("cut", "cut after 9.0 s idle", seconds=9.0)
MARK = Mark(1, 2, 0.0, 0.0, 10)
SENT = {"Content-Type": "x"}


def case(
    finding: Finding,
    *headers: tuple[str, str],
    coding: str = "",
    coding_head: bytes = b"",
    name: str = "events",
    version: str = "1.1",
    trial: Trial = "",
    told: bool = True,
    **settings: str,
) -> Case:
    """A case; `told` is whether the handler got the settings."""
    got: dict[str, Any] = {"version": version}
    recording = Recording(
        200,
        Headers(headers),
        marks=(MARK,),
        coding=coding,
        coding_head=coding_head,
        got=got,
        sent={"Content-Type": "x"} | ({"X-Accel-Buffering": "no"} if trial == "accel" and told else {}),
    )
    return Case(Way(name, settings=settings, trial=trial), recording, finding)


NGINX = ("Server", "nginx/1.22.1")
GZIP = {"coding": "gzip", "name": "events (gzip)"}
RELEASED = case(STREAMS, trial="accel")
NOT_RELEASED = case(HELD, trial="accel")
PASSED_ON = case(HELD, ("X-Accel-Buffering", "no"), trial="accel")


def name(*cases: Case) -> str:
    culprit = accuse(cases)
    return "" if culprit is None else culprit.name


def test_nobody_is_accused_of_a_stream() -> None:
    assert accuse([case(STREAMS, NGINX)]) is None


@pytest.mark.parametrize("finding", [HELD, BATCHES])
def test_who_lets_go_for_x_accel_buffering_is_nginx_whatever_it_says(finding: Finding) -> None:
    assert name(case(finding), RELEASED) == "nginx"
    assert name(case(finding, ("Server", "cloudflare")), RELEASED) == "nginx"


def test_of_a_line_on_which_most_ways_stream_it_tells_nothing_that_one_more_does() -> None:
    culprit = accuse([case(STREAMS), case(STREAMS, name="text"), case(BATCHES, name="POST"), RELEASED])
    assert culprit is not None
    assert (culprit.name, culprit.evidence[0][:5]) == ("unknown", "nginx")
    assert not any("X-Accel" in why for why in culprit.evidence)


def test_without_evidence_the_culprit_is_unknown() -> None:
    assert name(case(HELD)) == "unknown"
    assert name(case(HELD), NOT_RELEASED) == "unknown"
    assert name(case(BATCHES)) == "unknown"
    assert name(case(CUT)) == "unknown"


@pytest.mark.parametrize(
    ("field", "culprit"),
    [
        (NGINX, "nginx"),
        (("Server", "openresty/1.21"), "nginx"),
        (("Server", "Caddy"), "Caddy"),
        (("Via", "1.1 Caddy"), "Caddy"),
        (("Via", "1.1 haproxy"), "HAProxy"),
        (("Via", "1.1 varnish (Varnish/7.1)"), "Varnish"),
        (("Server", "Apache/2.4.71 (Debian)"), "Apache"),
        (("Server", "Apache-Coyote/1.1"), "unknown"),
        (("Server", "uvicorn"), "unknown"),
        (("CF-RAY", "1"), "unknown"),
        (("X-Served-By", "nginx"), "unknown"),
    ],
)
def test_a_field_names_who_is_known_to_hold_back(field: tuple[str, str], culprit: str) -> None:
    assert name(case(HELD, field)) == culprit


def test_of_two_who_might_be_it_neither_is_accused_and_both_are_told() -> None:
    culprit = accuse([case(HELD, ("Server", "Caddy"), ("Via", "1.1 varnish")), NOT_RELEASED])
    assert culprit is not None
    assert culprit.name == "unknown"
    assert "Caddy is on the way (Server: Caddy)" in culprit.evidence
    assert "Varnish is on the way (Via: 1.1 varnish)" in culprit.evidence


def test_nginx_that_ignores_the_field_is_known_by_its_name_or_by_what_it_keeps() -> None:
    assert name(case(BATCHES, NGINX), case(BATCHES, NGINX, trial="accel")) == "nginx"
    swallowed = case(BATCHES, trial="accel")
    assert name(case(BATCHES, version="1.0"), swallowed) == "nginx"
    assert name(case(BATCHES), swallowed) == "unknown"  # any proxy may drop a field


def test_nginx_is_not_accused_where_the_field_that_it_keeps_to_itself_came_through() -> None:
    culprit = accuse([case(HELD, NGINX), PASSED_ON])
    assert culprit is not None
    assert culprit.name == "unknown"
    assert "nginx is on the way (Server: nginx/1.22.1)" in culprit.evidence
    assert any("keeps it to itself" in why for why in culprit.evidence)
    assert name(case(HELD, NGINX, ("Via", "1.1 varnish")), PASSED_ON) == "Varnish"


def test_an_experiment_counts_only_if_the_handler_got_to_know_of_it() -> None:
    """Proxies may drop the query."""
    unheard = case(HELD, NGINX, trial="accel", told=False)
    culprit = accuse([case(HELD, NGINX), unheard])
    assert culprit is not None
    assert culprit.name == "nginx"
    assert not any("changed nothing" in why for why in culprit.evidence)
    assert name(case(HELD), case(STREAMS, trial="accel", told=False)) == "unknown"


def test_the_line_that_mends_nginx_knows_of_the_old_version() -> None:
    culprit = accuse([case(HELD, version="1.0"), RELEASED])
    assert culprit is not None
    assert "proxy_http_version 1.1;" in culprit.mend
    culprit = accuse([case(HELD), RELEASED])
    assert culprit is not None
    assert culprit.mend == ("proxy_buffering off;", "# or, in the answer: X-Accel-Buffering: no")


# -- compressors -------------------------------------------------------------------------------------------------------


def python_gzip() -> bytes:
    return gzip.compress(b"x", mtime=1_700_000_000)


@pytest.mark.parametrize(
    ("head", "maker"),
    [
        (python_gzip(), "Python's"),
        (bytes.fromhex("1f8b080000096e8800ff"), "Go's"),
        (bytes.fromhex("1f8b080000000000 00ff"), "Go's"),
        (bytes.fromhex("1f8b0800000000000403"), ""),  # nginx's, and HAProxy's
        (zlib.compress(b"x", wbits=31), ""),
        (b"\x1f\x8b\x08", ""),
        (b"<!DOCTYPE html>", ""),
    ],
)
def test_a_gzip_stream_tells_who_made_it(head: bytes, maker: str) -> None:
    assert gzip_maker(head[:10]).startswith(maker) if maker else gzip_maker(head[:10]) == ""


def test_only_what_is_compressed_is_held_so_it_is_the_compressor() -> None:
    plain = case(STREAMS)
    assert name(plain, case(HELD, NGINX, **GZIP), case(STREAMS, trial="accel", **GZIP)) == "nginx's gzip"
    assert name(plain, case(HELD, **GZIP), case(STREAMS, trial="accel", **GZIP)) == "nginx's gzip"
    assert name(plain, case(HELD, coding_head=python_gzip()[:10], **GZIP)) == "GZipMiddleware"
    assert name(plain, case(HELD, ("Server", "Apache/2.4"), **GZIP)) == "Apache's mod_deflate"
    go = bytes.fromhex("1f8b080000096e8800ff")
    assert name(plain, case(HELD, ("Server", "Caddy"), coding_head=go, **GZIP)) == "Caddy's encode"
    assert name(plain, case(HELD, coding_head=go, **GZIP)) == "unknown"
    assert name(plain, case(HELD, **GZIP)) == "unknown"


def test_a_browser_that_gets_no_answer_where_others_get_a_stream_has_a_compressor_before_it() -> None:
    silent = Case(Way("events (gzip)", (BROWSER,)), Recording(ending="failed", timed_out=True), HELD)
    conclusion = conclude([case(STREAMS, NGINX), silent])
    assert conclusion.line == "held until the end where it is compressed (gzip), and streams where it is not"
    assert conclusion.culprit is not None
    assert conclusion.culprit.name == "nginx's gzip"


def test_where_all_is_held_the_compressor_is_not_blamed() -> None:
    assert name(case(HELD, NGINX), case(HELD, NGINX, coding_head=python_gzip()[:10], **GZIP)) == "nginx"


def test_who_cuts_is_named_by_its_field_and_a_heartbeat_always_helps() -> None:
    culprit = accuse([case(CUT, NGINX)])
    assert culprit is not None
    assert culprit.name == "nginx"
    assert culprit.mend == ("proxy_read_timeout 1h;", "# or send a heartbeat more often: Stream(..., heartbeat=4)")


def test_it_is_told_that_heartbeats_help() -> None:
    culprit = accuse([case(CUT), case(STREAMS, trial="heartbeat", heartbeat="3.00")])
    assert culprit is not None
    assert culprit.evidence == ("with a heartbeat each 3 s it stays open",)


def test_fields_tell_who_is_on_the_way() -> None:
    headers = Headers([("CF-Ray", "8"), ("server", "cloudflare"), ("Via", "1.1 google"), ("X-Varnish", "2")])
    assert parties(headers) == {
        "Cloudflare": "Server: cloudflare",
        "Google load balancer": "Via: 1.1 google",
        "Varnish": "a field X-Varnish",
    }


# -- all ways together -------------------------------------------------------------------------------------------------


def test_it_streams_if_nothing_is_wrong() -> None:
    conclusion = conclude([case(STREAMS), case(Finding("unknown", "too short"), name="POST")])
    assert (conclusion.kind, conclusion.line, conclusion.exit, conclusion.culprit) == ("streams", "streams", 0, None)


def test_the_ways_that_are_held_are_told() -> None:
    conclusion = conclude(
        [case(STREAMS), case(HELD, name="HTTP/1.0"), case(HELD, name="POST"), case(STREAMS, name="text")]
    )
    assert conclusion.line == "held until the end for HTTP/1.0 and POST, not for events and text"
    assert conclusion.exit == 1


def test_what_is_held_where_it_is_compressed_is_said_so() -> None:
    conclusion = conclude([case(STREAMS), case(HELD, **GZIP)])
    assert conclusion.line == "held until the end where it is compressed (gzip), and streams where it is not"


def test_a_larger_stream_tells_how_large_the_batches_are() -> None:
    conclusion = conclude([case(HELD), case(BATCHES, trial="volume")])
    assert (conclusion.kind, conclusion.line, conclusion.batch) == ("batches", "arrives in batches of 4 KiB", 4096)
    assert conclusion.notes == ("what is shorter than 4 KiB is held until its end",)


def test_batches_that_come_by_the_clock_are_told_apart_from_those_by_size() -> None:
    small = Finding("batches", "arrives in batches of 500 B", batch=500, period=0.5, seconds=0.5)
    large = Finding("batches", "arrives in batches of 40 KiB", batch=40960, period=0.52, seconds=0.5)
    by_the_clock = "arrives in batches, one each 0.5 s, of whatever has gathered"
    assert conclude([case(small), case(large, trial="volume")]).line == by_the_clock
    # Not even where the small ones are not of one size, and so have none that could be compared.
    assert conclude([case(replace(small, batch=None)), case(large, trial="volume")]).line == by_the_clock
    by_size = replace(large, batch=500)
    assert conclude([case(small), case(by_size, trial="volume")]).line == small.words


def test_what_is_held_but_comes_in_batches_when_sent_slowly_goes_by_the_clock() -> None:
    slow = Finding("batches", "arrives in batches of about 900 B, one each 2.0 s", period=2.0, notes=("5 a batch",))
    conclusion = conclude([case(HELD), case(HELD, trial="volume"), case(slow, trial="pace")])
    assert (conclusion.kind, conclusion.exit) == ("batches", 1)
    assert conclusion.line == "arrives in batches, one each 2.0 s, of whatever has gathered"
    assert conclusion.notes == ()


def test_trials_change_no_verdict() -> None:
    assert conclude([case(STREAMS), NOT_RELEASED]).kind == "streams"


def test_where_nothing_can_be_told_the_exit_says_so() -> None:
    conclusion = conclude([case(Finding("unknown", "was silent"))])
    assert (conclusion.kind, conclusion.exit, conclusion.inferred) == ("unknown", 2, False)


def test_fields_of_the_framing_are_nobodys_doing() -> None:
    cases = [case(STREAMS, ("Date", "x"), ("Server", "y"), ("Content-Type", "z"))]
    assert fields(cases) == (["Server"], ["Content-Type"])
