"""Every route of the demo, byte for byte."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import re
import runpy
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support import (
    JSON_HEAD,
    LAST_CHUNK,
    NDJSON_HEAD,
    SSE_HEAD,
    TEXT_HEAD,
    Clock,
    Served,
    Serving,
    chunk,
    get,
    request,
)  # fmt: skip

from rawstream import Hub, demo

PAGE = Path(__file__).parent.parent / "demo.html"
SSE = "text/event-stream"
STREAM_END = b"2b\r\nevent: stream-end\ndata: {}\nid: stream-end\n\n\r\n"
CORS = b"Access-Control-Allow-Origin: null\r\nAccess-Control-Expose-Headers: X-Request-Id\r\nVary: Origin\r\n"


def post(body: str = "", *fields: str, target: str = "/stream") -> bytes:
    return request(target, *fields, method="POST", body=body.encode())


async def refusal(serving: Serving, data: bytes) -> str:
    """The line that a request is refused with, and that it is a 400."""
    peer = await (await serving(demo.router)).ask(data)
    head, body = await peer.response()
    assert head.startswith(b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n")
    return body.decode()


# -- the text, typed out -----------------------------------------------------------------------------------------------

WIDE = "这是一个完整的测试数据；为了测试"
NARROW = "IAsyncEnumerable<T>"
END = "的使用"


def test_the_text_is_the_reference_text() -> None:
    assert demo.TEXT == WIDE + NARROW + END


def frames(wide: bytes, narrow: bytes) -> bytes:
    """The reference text, a chunk each character: `wide` for one of three bytes, `narrow` for one of one byte."""
    return b"".join(
        [wide % character.encode() for character in WIDE]
        + [narrow % character.encode() for character in NARROW]
        + [wide % character.encode() for character in END]
    )


@pytest.mark.parametrize(
    ("accept", "head", "body"),
    [
        (None, JSON_HEAD, frames(b'6\r\n,"%b"\r\n', b'4\r\n,"%b"\r\n').replace(b",", b"[", 1) + b"1\r\n]\r\n"),
        ("application/x-ndjson", NDJSON_HEAD, frames(b'6\r\n"%b"\n\r\n', b'4\r\n"%b"\n\r\n')),
        (SSE, SSE_HEAD, frames(b"b\r\ndata: %b\n\n\r\n", b"9\r\ndata: %b\n\n\r\n") + STREAM_END),
        ("text/plain", TEXT_HEAD, frames(b"3\r\n%b\r\n", b"1\r\n%b\r\n")),
    ],
    ids=["JSON", "JSON lines", "SSE", "text"],
)
async def test_the_text_is_streamed_a_chunk_each_character(
    serving: Serving, accept: str | None, head: bytes, body: bytes
) -> None:
    peer = await (await serving(demo.router)).ask(post('{"delay": 0}', *([f"Accept: {accept}"] if accept else [])))
    assert await peer.head() == head
    await peer.expect(body + b"0\r\n\r\n")


async def test_it_begins_and_ends_as_asp_net_core_does(serving: Serving) -> None:
    peer = await (await serving(demo.router)).ask(post('{"text": "这是", "delay": 0}'))
    assert await peer.head() == JSON_HEAD
    await peer.expect('6\r\n["这"\r\n6\r\n,"是"\r\n1\r\n]\r\n0\r\n\r\n'.encode())


async def test_without_settings_a_character_comes_each_half_second(serving: Serving, clock: Clock) -> None:
    peer = await (await serving(demo.router)).ask(post())
    await clock.advance(0)
    assert await peer.piece() == JSON_HEAD + '6\r\n["这"\r\n'.encode()
    for character in "是一个":
        await clock.advance(0.375)
        assert peer.here() == b""
        await clock.advance(0.125)
        assert peer.here() == f'6\r\n,"{character}"\r\n'.encode()


async def test_http_1_0_gets_it_as_it_is(serving: Serving) -> None:
    data = request("/stream", version="1.0", method="POST", body=b'{"text": "ab", "delay": 0}')
    peer = await (await serving(demo.router)).ask(data)
    assert await peer.head() == JSON_HEAD.replace(b"Transfer-Encoding: chunked", b"Connection: close")
    assert await peer.rest() == b'["a","b"]'


async def test_an_empty_text_is_an_empty_array(serving: Serving) -> None:
    peer = await (await serving(demo.router)).ask(post('{"text": ""}'))
    assert await peer.head() == JSON_HEAD
    await peer.expect(b"2\r\n[]\r\n0\r\n\r\n")


async def test_the_text_can_come_again_and_again(serving: Serving) -> None:
    data = post('{"text": "ab", "delay": 0, "repeat": 3}', "Accept: text/plain")
    peer = await (await serving(demo.router)).ask(data)
    assert await peer.head() == TEXT_HEAD
    await peer.expect(b"1\r\na\r\n1\r\nb\r\n" * 3 + LAST_CHUNK)


async def test_a_buffer_gathers_as_a_proxy_would(serving: Serving) -> None:
    data = post('{"text": "abcdefgh", "delay": 0, "buffer": 3}', "Accept: text/plain")
    peer = await (await serving(demo.router)).ask(data)
    assert await peer.head() == TEXT_HEAD
    await peer.expect(b"3\r\nabc\r\n3\r\ndef\r\n2\r\ngh\r\n" + LAST_CHUNK)


async def test_event_source_gets_it_by_query(serving: Serving) -> None:
    peer = await (await serving(demo.router)).ask(get("/stream?text=%E8%BF%99+1&delay=0&repeat=1&buffer=0", SSE))
    assert await peer.head() == SSE_HEAD
    await peer.expect(
        "b\r\ndata: 这\n\n\r\n9\r\ndata:  \n\n\r\n9\r\ndata: 1\n\n\r\n".encode() + STREAM_END + LAST_CHUNK
    )


async def test_a_delay_in_a_query_may_have_a_fraction(serving: Serving, clock: Clock) -> None:
    peer = await (await serving(demo.router)).ask(get("/stream?text=ab&delay=0.25", "text/plain"))
    await clock.advance(0)
    assert await peer.piece() == TEXT_HEAD + b"1\r\na\r\n"
    await clock.advance(0.125)
    assert peer.here() == b""
    await clock.advance(0.125)
    assert peer.here() == b"1\r\nb\r\n"


async def test_a_text_that_looks_like_a_number_stays_a_text(serving: Serving) -> None:
    peer = await (await serving(demo.router)).ask(get("/stream?text=17&delay=0", "text/plain"))
    assert await peer.head() == TEXT_HEAD
    await peer.expect(b"1\r\n1\r\n1\r\n7\r\n" + LAST_CHUNK)


NUMBERS = {
    "delay": "delay is a number of seconds from 0 to 10",
    "repeat": "repeat is a whole number from 1 to 1000",
    "buffer": "buffer is a whole number of bytes from 0 to 1048576",
}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("delay", "-0.1"),
        ("delay", "10.1"),
        ("delay", '"1"'),
        ("delay", "null"),
        ("delay", "true"),
        ("repeat", "0"),
        ("repeat", "1001"),
        ("repeat", "1.5"),
        ("repeat", "true"),
        ("buffer", "-1"),
        ("buffer", "1048577"),
        ("buffer", "0.5"),
    ],
)
async def test_a_wrong_number_is_refused_with_a_line_that_says_what_is_right(
    serving: Serving, name: str, value: str
) -> None:
    line = f"400 Bad Request: {NUMBERS[name]}\n"
    assert await refusal(serving, post(f'{{"{name}": {value}}}')) == line


@pytest.mark.parametrize(
    ("name", "value"),
    [("delay", "soon"), ("delay", ""), ("delay", "nan"), ("delay", "inf"), ("repeat", "1e3"), ("buffer", "-1")],
)
async def test_a_wrong_number_in_a_query_is_refused_likewise(serving: Serving, name: str, value: str) -> None:
    assert await refusal(serving, get(f"/stream?{name}={value}")) == f"400 Bad Request: {NUMBERS[name]}\n"


@pytest.mark.parametrize(
    ("body", "line"),
    [
        ("[]", '400 Bad Request: the settings are a JSON object, as in {"text": "hello", "delay": 0.1}\n'),
        ("1", '400 Bad Request: the settings are a JSON object, as in {"text": "hello", "delay": 0.1}\n'),
        ('{"speed": 1}', "400 Bad Request: there is no setting 'speed': use text, delay, repeat, buffer\n"),
        ('{"text": 1}', "400 Bad Request: text is a string of at most 100000 characters\n"),
        (
            '{"text": "' + "x" * 100_001 + '"}',
            "400 Bad Request: text is a string of at most 100000 characters\n",
        ),
        (r'{"text": "\ud800"}', "400 Bad Request: text holds half a surrogate pair\n"),
        ("{", "400 Bad Request: the body is not JSON: "),
        ("NaN", "400 Bad Request: the body is not JSON: "),
    ],
)
async def test_other_wrong_settings_are_refused_with_a_line(serving: Serving, body: str, line: str) -> None:
    assert (await refusal(serving, post(body))).startswith(line)


async def test_a_wrong_setting_in_a_query_is_refused(serving: Serving) -> None:
    line = "400 Bad Request: there is no setting 'speed': use text, delay, repeat, buffer\n"
    assert await refusal(serving, get("/stream?speed=1")) == line


async def test_the_longest_text_and_the_largest_numbers_are_taken(serving: Serving) -> None:
    peer = await (await serving(demo.router)).ask(
        post('{"text": "' + "x" * 100_000 + '", "delay": 10, "repeat": 1000, "buffer": 1048576}')
    )
    await asyncio.sleep(0)
    peer.close()


# -- the clock ---------------------------------------------------------------------------------------------------------


def tick(number: int) -> re.Pattern[bytes]:
    return re.compile(
        rb'[0-9a-f]+\r\nevent: tick\ndata: \{"n":%d,"now":"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"\}\n'
        rb"id: %d\nretry: 2000\n\n\r\n" % (number, number)
    )


CLOCK_HEAD = SSE_HEAD.replace(b"Vary: Accept\r\n", b"")


async def test_the_clock_ticks_each_second(serving: Serving, clock: Clock) -> None:
    peer = await (await serving(demo.router)).ask(get("/clock"))
    assert await peer.head() == CLOCK_HEAD
    assert tick(1).fullmatch(await peer.until(b"\n\n\r\n"))
    for number in (2, 3):
        await clock.advance(0.875)
        assert peer.here() == b""
        await clock.advance(0.125)
        assert tick(number).fullmatch(peer.here())


@pytest.mark.parametrize(
    ("last", "first"),
    [("17", 18), ("0", 1), ("x", 1), ("-3", 1), ("1.5", 1), ("", 1), ("\xb2", 1), ("9" * 16, 1), ("9" * 15, 10**15)],
)
async def test_the_clock_goes_on_after_the_last_event_that_was_seen(serving: Serving, last: str, first: int) -> None:
    peer = await (await serving(demo.router)).ask(get("/clock", None, f"Last-Event-ID: {last}"))
    assert await peer.head() == CLOCK_HEAD
    assert tick(first).fullmatch(await peer.until(b"\n\n\r\n"))


async def test_the_clock_stops_when_the_server_closes_and_sends_its_readers_back(serving: Serving) -> None:
    served = await serving(demo.router)
    peer = await served.ask(get("/clock"))
    await peer.until(b"\n\n\r\n")
    served.server.close()
    told = await peer.rest()
    assert re.fullmatch(rb"2c\r\nevent: stream-closing\ndata: \{\}\nretry: \d{4}\n\n\r\n0\r\n\r\n", told)


# -- many rows ---------------------------------------------------------------------------------------------------------


async def test_rows_come_in_the_format_that_is_asked_for(serving: Serving) -> None:
    served = await serving(demo.router)
    peer = await served.ask(get("/bulk?rows=2"))
    assert await peer.head() == JSON_HEAD
    await peer.expect(
        chunk(b'[{"row":0,"name":"item-0","value":0.0},{"row":1,"name":"item-1","value":0.5}]') + LAST_CHUNK
    )
    peer = await served.ask(get("/bulk?rows=1", "application/x-ndjson"))
    assert await peer.head() == NDJSON_HEAD
    await peer.expect(chunk(b'{"row":0,"name":"item-0","value":0.0}\n') + LAST_CHUNK)


async def test_no_rows_are_an_empty_array(serving: Serving) -> None:
    peer = await (await serving(demo.router)).ask(get("/bulk?rows=0"))
    assert await peer.head() == JSON_HEAD
    await peer.expect(b"2\r\n[]\r\n" + LAST_CHUNK)


async def test_without_a_number_there_are_100000_rows(serving: Serving) -> None:
    peer = await (await serving(demo.router)).ask(get("/bulk", "application/x-ndjson", version="1.0"))
    await peer.head()
    rows = (await peer.rest()).splitlines()
    assert len(rows) == 100_000
    assert rows[-1] == b'{"row":99999,"name":"item-99999","value":49999.5}'


@pytest.mark.parametrize("rows", ["-1", "10000001", "many", "1.5", "", "true"])
async def test_a_wrong_number_of_rows_is_refused(serving: Serving, rows: str) -> None:
    line = "400 Bad Request: rows is a whole number from 0 to 10000000\n"
    assert await refusal(serving, get(f"/bulk?rows={rows}")) == line


# -- the page, and whether it is up ------------------------------------------------------------------------------------


async def page_policy(serving: Serving, target: str = "/") -> dict[str, str]:
    """The page's Content-Security-Policy: what each directive allows."""
    head, _ = await (await (await serving(demo.router)).ask(get(target))).response()
    policy = re.search(rb"\r\nContent-Security-Policy: (.*)\r\n", head)
    assert policy is not None
    return {name: allowed for name, _, allowed in (each.partition(" ") for each in policy[1].decode().split("; "))}


async def test_the_page_is_served(serving: Serving) -> None:
    page = PAGE.read_bytes()
    head, body = await (await (await serving(demo.router)).ask(get())).response()
    assert re.fullmatch(
        rb"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nCache-Control: no-cache\r\n"
        rb"Content-Security-Policy: [^\r]+\r\nX-Content-Type-Options: nosniff\r\nReferrer-Policy: no-referrer\r\n"
        rb"Content-Length: %d\r\n\r\n" % len(page),
        head,
    )
    assert body == page


async def test_only_the_pages_own_script_and_style_run(serving: Serving) -> None:
    """They are named by their hashes; nothing else is allowed that is not listed here."""

    def digest(tag: str) -> str:
        inside = PAGE.read_text("utf-8").partition(f"<{tag}>")[2].partition(f"</{tag}>")[0]
        return f"'sha256-{base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()}'"

    assert await page_policy(serving) == {
        "default-src": "'none'",
        "script-src": digest("script"),
        "style-src": digest("style"),
        "img-src": "data:",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }


@pytest.mark.parametrize(
    ("server", "allowed"),
    [
        ("http://127.0.0.1:9000", "http://127.0.0.1:9000"),
        ("https://stream.example/", "https://stream.example"),
        ("HTTP://Example.org", "HTTP://Example.org"),
        ("http://[::1]:9000", "http:"),
        ("https%3A%2F%2Fstream.example", "https://stream.example"),
    ],
)
async def test_the_page_may_talk_to_the_server_that_its_address_names(
    serving: Serving, server: str, allowed: str
) -> None:
    assert (await page_policy(serving, f"/?server={server}"))["connect-src"] == f"'self' {allowed}"


@pytest.mark.parametrize(
    "server",
    [
        *["", "*", "http://*", "http://*.example", "http:", "https://", "ftp://x.example", "javascript:alert(1)"],
        *["http://x.example%20*", "http://x.example;script-src%20*", "http://x.example/path", "http://u:p@x.example"],
        *["http://x.example%0D%0AX:%20y", "http://x.example%00", "http://[::1]%20*", "'unsafe-inline'"],
    ],
)
async def test_and_to_nobody_else(serving: Serving, server: str) -> None:
    policy = await page_policy(serving, f"/?server={server}")
    assert policy["connect-src"] == "'self'"
    assert len(policy) == 8


async def test_a_page_whose_lines_end_in_cr_lf_has_the_hashes_that_a_browser_takes(
    serving: Serving, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "demo.html").write_bytes(PAGE.read_bytes().replace(b"\n", b"\r\n"))
    before = await page_policy(serving)
    monkeypatch.setattr(demo, "__file__", str(tmp_path / "demo.py"))
    assert await page_policy(serving) == before


async def test_in_an_installed_package_the_page_stands_beside_the_module(
    serving: Serving, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "demo.html").write_text("the page")
    monkeypatch.setattr(demo, "__file__", str(tmp_path / "demo.py"))
    peer = await (await serving(demo.router)).ask(get())
    assert (await peer.response())[1] == b"the page"


async def test_it_tells_that_it_is_up(serving: Serving) -> None:
    peer = await (await serving(demo.router)).ask(get("/healthz"))
    assert await peer.response() == (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nCache-Control: no-store\r\n"
        b"Content-Length: 3\r\n\r\n",
        b"ok\n",
    )


async def test_while_the_server_closes_it_tells_that_it_is_not(serving: Serving) -> None:
    """Whoever balances load then sends its requests elsewhere."""
    served = await serving(demo.router)
    peer = await served.ask(get("/healthz") + get("/healthz")[:-2])
    assert (await peer.response())[1] == b"ok\n"
    served.server.close()  # it closes connections where nothing has begun; here a second request has
    await peer.send(b"\r\n")
    assert await peer.response() == (
        b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\nCache-Control: no-store\r\n"
        b"Connection: close\r\nContent-Length: 8\r\n\r\n",
        b"closing\n",
    )


async def test_it_tells_its_metrics(serving: Serving) -> None:
    head, body = await (await (await serving(demo.router)).ask(get("/metrics"))).response()
    assert head.startswith(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=")
    assert b"# HELP rawstream_" in body


async def test_without_prometheus_client_it_tells_how_to_get_metrics(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)  # as if it were not installed
    monkeypatch.delitem(sys.modules, "rawstream.metrics", raising=False)
    without = runpy.run_path(demo.__file__, run_name="demo_without_metrics")
    head, body = await (await (await serving(without["router"])).ask(get("/metrics"))).response()
    assert head.startswith(b"HTTP/1.1 501 Not Implemented\r\n")
    assert body == b"501 Not Implemented: metrics need prometheus-client: pip install prometheus-client\n"


async def test_anything_else_is_404(serving: Serving) -> None:
    peer = await (await serving(demo.router)).ask(get("/nothing"))
    assert (await peer.response())[1] == b"404 Not Found: nothing is at /nothing\n"


async def test_another_method_is_405_with_those_that_there_are(serving: Serving) -> None:
    peer = await (await serving(demo.router)).ask(request("/stream", method="PUT"))
    head, body = await peer.response()
    assert b"\r\nAllow: GET, HEAD, OPTIONS, POST\r\n" in head
    assert body == b"405 Method Not Allowed: this path takes GET, HEAD, OPTIONS, POST\n"


@pytest.mark.parametrize("target", ["/stream", "/bulk"])
async def test_head_of_a_stream_starts_nothing(serving: Serving, target: str) -> None:
    peer = await (await serving(demo.router)).ask(request(target, method="HEAD"))
    assert await peer.head() == JSON_HEAD


# -- channels and jobs -------------------------------------------------------------------------------------------------


@pytest.fixture
async def hub(orderly: None) -> AsyncIterator[Hub]:
    """It is closed after its server."""
    async with Hub() as hub:
        yield hub


async def begun(served: Served, body: str) -> str:
    """The path of a job that was begun."""
    head, answer = await (await served.ask(post(body, target="/jobs"))).response()
    assert head.startswith(b"HTTP/1.1 201 Created\r\n")
    location = json.loads(answer)["location"]
    assert isinstance(location, str)
    return location


async def test_a_job_tells_how_far_it_is_and_its_result(hub: Hub, serving: Serving) -> None:
    served = await serving(demo.build(hub))
    location = await begun(served, '{"steps": 3, "delay": 0}')
    peer = await served.ask(get(location, "application/x-ndjson"))
    await peer.head()
    told = await peer.until(b"0\r\n\r\n")
    entries = [json.loads(line) for line in told.splitlines() if line.startswith(b"{")]
    assert [(entry["event"], entry["data"]) for entry in entries] == [
        ("progress", {"step": 1, "of": 3, "percent": 33}),
        ("progress", {"step": 2, "of": 3, "percent": 66}),
        ("progress", {"step": 3, "of": 3, "percent": 100}),
        ("result", {"steps": 3}),
        ("stream-end", {}),
    ]


async def test_without_settings_a_job_has_20_steps_of_half_a_second(hub: Hub, serving: Serving, clock: Clock) -> None:
    served = await serving(demo.build(hub))
    peer = await served.ask(get(await begun(served, ""), "application/x-ndjson"))
    await peer.head()
    await clock.advance(0.375)
    assert peer.here() == b""
    for step in range(1, 21):
        await clock.advance(0.5)
        assert f'"data":{{"step":{step},"of":20,"percent":{5 * step}}}'.encode() in peer.here()
    assert hub.owners == {}


async def test_a_job_goes_on_when_its_reader_has_gone_and_can_be_stopped(
    hub: Hub, serving: Serving, clock: Clock
) -> None:
    served = await serving(demo.build(hub))
    location = await begun(served, '{"steps": 1000, "delay": 1}')
    peer = await served.ask(get(location, "application/x-ndjson"))
    await clock.advance(1.5)
    peer.reset()
    await clock.advance(2)
    peer = await served.ask(get(location, "application/x-ndjson"))
    await peer.head()
    await clock.advance(0.25)
    assert re.findall(rb'"step":(\d+)', peer.here()) == [b"1", b"2", b"3"]
    stopped = await served.ask(request(location, method="DELETE"))
    assert (await stopped.head()).startswith(b"HTTP/1.1 204 ")
    assert b'"stream-end","data":{"stopped":true}' in await peer.until(b"0\r\n\r\n")


async def test_wrong_settings_of_a_job_are_refused_with_a_line(hub: Hub, serving: Serving) -> None:
    served = await serving(demo.build(hub))
    steps, delay = "steps is a whole number from 1 to 1000", "delay is a number of seconds from 0 to 10"
    for body, line in [
        ('{"steps": 0}', steps), ('{"steps": 1001}', steps), ('{"steps": 1.5}', steps), ('{"steps": true}', steps),
        ('{"steps": "1"}', steps), ('{"steps": null}', steps), ('{"delay": -1}', delay), ('{"delay": 10.1}', delay),
        ('{"delay": "1"}', delay), ('{"delay": true}', delay), ('{"delay": 1e999}', delay),
        ('{"speed": 1}', "there is no setting 'speed': use steps, delay"),
        ("[]", 'the settings are a JSON object, as in {"steps": 20, "delay": 0.1}'),
    ]:  # fmt: skip
        _, answer = await (await served.ask(post(body, target="/jobs"))).response()
        assert answer.decode() == f"400 Bad Request: {line}\n", body
    assert await (await hub.store()).names() == []


async def test_the_demo_serves_channels_with_the_tokens_that_it_was_given(hub: Hub, serving: Serving) -> None:
    served = await serving(demo.build(hub, publish_token="p", subscribe_token="s"))
    for method, target, token, status in [
        ("POST", "/channels/news", "p", 201), ("POST", "/channels/news", "s", 403), ("POST", "/jobs", "s", 403),
        ("GET", "/channels/news/info", "s", 200), ("GET", "/channels/news", "p", 403), ("GET", "/jobs/x", "p", 403),
    ]:  # fmt: skip
        body = b"{}" if method == "POST" else b""
        fields = f"Authorization: Bearer {token}", "Content-Type: application/json"
        head = await (await served.ask(request(target, *fields, method=method, body=body))).head()
        assert head.startswith(f"HTTP/1.1 {status} ".encode()), (method, target)


async def test_a_page_from_disk_may_publish_and_subscribe(hub: Hub, serving: Serving) -> None:
    served = await serving(demo.build(hub), allowed_origins=FROM_DISK)
    assert CORS in await (await served.ask(get("/channels/news", SSE, "Origin: null"))).head()
    assert CORS in await (await served.ask(post("x", "Origin: null", target="/channels/news"))).head()


async def test_a_program_may_serve_the_demos_router_as_it_is(serving: Serving) -> None:
    peer = await (await serving(demo.router)).ask(get("/channels/news/info"))
    assert b'"name":"news"' in (await peer.response())[1]


# -- the page opened from disk -----------------------------------------------------------------------------------------

FROM_DISK = ("null",)  # what `python -m rawstream` allows


@pytest.mark.parametrize("target", ["/stream", "/clock", "/bulk"])
async def test_a_page_from_disk_may_read_the_streams(serving: Serving, target: str) -> None:
    served = await serving(demo.router, allowed_origins=FROM_DISK)
    assert CORS in await (await served.ask(get(target, SSE, "Origin: null"))).head()


async def test_a_page_from_disk_may_read_a_posted_stream(serving: Serving) -> None:
    served = await serving(demo.router, allowed_origins=FROM_DISK)
    assert CORS in await (await served.ask(post('{"text": ""}', "Origin: null"))).head()


@pytest.mark.parametrize("data", [post("{", "Origin: null"), get("/bulk?rows=x", None, "Origin: null")])
async def test_a_page_from_disk_may_read_a_refusal(serving: Serving, data: bytes) -> None:
    served = await serving(demo.router, allowed_origins=FROM_DISK)
    head = await (await served.ask(data)).head()
    assert head.startswith(b"HTTP/1.1 400 ")
    assert CORS in head


@pytest.mark.parametrize("origin", ["http://127.0.0.1:8000", "https://example.org", "NULL", ""])
@pytest.mark.parametrize("target", ["/stream", "/clock", "/bulk"])
async def test_no_other_page_may(serving: Serving, origin: str, target: str) -> None:
    served = await serving(demo.router, allowed_origins=FROM_DISK)
    assert b"Access-Control" not in await (await served.ask(get(target, SSE, f"Origin: {origin}"))).head()
    assert (await (await served.ask(post("", f"Origin: {origin}"))).head()).startswith(b"HTTP/1.1 403 ")


async def test_a_preflight_of_a_page_from_disk_is_granted(serving: Serving) -> None:
    served = await serving(demo.router, allowed_origins=FROM_DISK)
    fields = "Origin: null", "Access-Control-Request-Method: POST", "Access-Control-Request-Headers: content-type"
    peer = await served.ask(request("/stream", *fields, method="OPTIONS"))
    assert await peer.head() == (
        b"HTTP/1.1 204 No Content\r\nAccess-Control-Allow-Origin: null\r\nAccess-Control-Allow-Methods: POST\r\n"
        b"Access-Control-Allow-Headers: content-type\r\nAccess-Control-Max-Age: 600\r\n"
        b"Vary: Origin, Access-Control-Request-Method, Access-Control-Request-Headers\r\n\r\n"
    )


async def test_a_preflight_of_another_page_is_not(serving: Serving) -> None:
    served = await serving(demo.router, allowed_origins=FROM_DISK)
    fields = "Origin: https://example.org", "Access-Control-Request-Method: POST"
    head = await (await served.ask(request("/stream", *fields, method="OPTIONS"))).head()
    assert head.startswith(b"HTTP/1.1 204 ")
    assert b"Access-Control" not in head
