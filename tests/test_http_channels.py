"""Channels and jobs over HTTP: every route on real sockets, what each answers, and what attackers send."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any
from urllib.parse import quote

import pytest
from support import Clock, Peer, Served, Serving, chunk, in_background, request, until
from unsteady import Staged

from rawstream import Event, Hub, Request, Router, Timeouts, errors
from rawstream.channels.http import add_channels, add_jobs, checked_token
from rawstream.channels.log import Entry, Id, State
from rawstream.channels.memory import MemoryStore
from rawstream.errors import LocalError
from rawstream.fields import Headers

LINES = "Accept: application/x-ndjson"
JSON, TEXT = "Content-Type: application/json", "Content-Type: text/plain"
MOST = 256 * 1024

SSE_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-store, no-transform\r\n"
    b"X-Accel-Buffering: no\r\nVary: Accept\r\nTransfer-Encoding: chunked\r\n\r\n"
)
LINES_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nVary: Accept\r\nTransfer-Encoding: chunked\r\n\r\n"
)


class Answer:
    """A whole response."""

    def __init__(self, head: bytes, body: bytes) -> None:
        first, *fields = head.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
        self.status = int(first.split(" ")[1])
        self.headers = Headers((name, value) for name, _, value in (field.partition(": ") for field in fields))
        self.body = body.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def id(self) -> str:
        """That of what was published."""
        assert self.status == 201, self.body
        id = self.json["id"]
        assert isinstance(id, str)
        return id


class Api:
    """A server with channels, and a job, and its clients."""

    def __init__(self, served: Served) -> None:
        self.served = served

    async def ask(self, method: str, target: str, *fields: str, body: bytes = b"") -> Answer:
        """A whole response, on a connection of its own."""
        peer = await self.served.ask(request(target, *fields, method=method, body=body))
        head = await peer.head()
        length = Answer(head, b"").headers.get("content-length", "0")
        return Answer(head, await exactly(peer, 0 if method == "HEAD" else int(length)))

    async def post(self, target: str, body: str | bytes, *fields: str) -> Answer:
        return await self.ask("POST", target, *fields, body=body.encode() if isinstance(body, str) else body)

    async def read(self, target: str, *fields: str) -> Peer:
        """Who reads a stream, whose head has come; a server-sent one's first comment too."""
        peer = await self.served.ask(request(target, *fields))
        head = await peer.head()
        assert head.startswith(b"HTTP/1.1 200 "), head
        if b"event-stream" in head:
            await peer.expect(chunk(b":\n\n"))
        return peer

    async def lines(self, target: str, count: int, *fields: str) -> list[Any]:
        """The first entries that a reader of JSON lines is sent; a text among them as it is."""
        peer = await self.read(target, LINES, *fields)
        found: list[Any] = []
        while len(found) < count:
            size = int(await peer.until(b"\r\n"), 16)
            found += [json.loads(line) for line in (await exactly(peer, size + 2)).splitlines() if line]
        peer.close()
        return found


async def exactly(peer: Peer, count: int) -> bytes:
    """So many bytes that have come, or come yet."""
    while len(peer._held) < count:
        assert await peer._more(), peer.ending
    data, peer._held = peer._held[:count], peer._held[count:]
    return data


async def two_steps(request: Request) -> AsyncIterator[Any]:
    """A job in two steps, or one that never ends, or one that is refused."""
    wish = await request.text()
    if wish == "no":
        raise errors.HTTPError(422, "not this")

    async def work() -> AsyncIterator[Any]:
        yield Event({"step": 1}, event="progress")
        if wish == "endless":
            await asyncio.get_running_loop().create_future()
        yield "done"

    return work()


@pytest.fixture
async def hub(orderly: None) -> AsyncIterator[Hub]:
    """It is closed after its server."""
    async with Hub() as hub:
        yield hub


@pytest.fixture
async def make(hub: Hub, serving: Serving) -> Callable[..., Any]:
    """`api = await make(publish_token="secret", allowed_origins=[...])`."""

    async def make(
        publish_token: str | None = None, subscribe_token: str | None = None, of: Hub | None = None, **options: Any
    ) -> Api:
        router = Router()
        add_channels(router, of or hub, publish_token=publish_token, subscribe_token=subscribe_token)
        add_jobs(router, of or hub, two_steps, publish_token=publish_token, subscribe_token=subscribe_token)
        return Api(await serving(router, timeouts=Timeouts(grace=0.01), **options))

    return make


@pytest.fixture
async def api(make: Callable[..., Any]) -> Api:
    """One that everybody may use."""
    made: Api = await make()
    return made


# -- subscribing -------------------------------------------------------------------------------------------------------


async def test_a_subscriber_is_sent_what_is_published_byte_for_byte(api: Api) -> None:
    peer = await api.served.ask(request("/channels/news"))
    await peer.expect_head(SSE_HEAD)
    await peer.expect(chunk(b":\n\n"))
    first = (await api.post("/channels/news", '{"a": "\\u00e9"}', JSON)).id
    await peer.expect(chunk(f'data: {{"a":"é"}}\nid: {first}\n\n'.encode()))
    second = (await api.post("/channels/news?event=greeting", "two\nlines", TEXT)).id
    await peer.expect(chunk(f"event: greeting\ndata: two\ndata: lines\nid: {second}\n\n".encode()))


async def test_json_lines_have_what_an_event_has(api: Api) -> None:
    peer = await api.served.ask(request("/channels/news", LINES))
    await peer.expect_head(LINES_HEAD)
    id = (await api.post("/channels/news?event=x", "[1, 2]", JSON)).id
    await peer.expect(chunk(f'{{"id":"{id}","event":"x","data":[1,2]}}\n'.encode()))


async def test_other_formats_than_those_that_carry_ids_are_not_acceptable(api: Api) -> None:
    for accept in ["application/json", "text/html", "text/event-stream;q=0, application/x-ndjson;q=0"]:
        answer = await api.ask("GET", "/channels/news", f"Accept: {accept}")
        assert answer.status == 406, accept
        assert "text/event-stream, application/x-ndjson, application/jsonl" in answer.body


async def test_who_comes_back_goes_on_after_what_it_has_seen(api: Api) -> None:
    ids = [(await api.post("/channels/news", f"{n}", TEXT)).id for n in range(4)]
    for target, field, expected in [
        ("", f"Last-Event-ID: {ids[1]}", ["2", "3"]),
        (f"?last_event_id={ids[2]}", "X: y", ["3"]),
        ("?last_event_id=earliest", "X: y", ["0", "1", "2", "3"]),
        ("", "Last-Event-ID: earliest", ["0", "1", "2", "3"]),
        (f"?last_event_id={ids[2]}", f"Last-Event-ID: {ids[0]}", ["1", "2", "3"]),  # the header wins
        ("?last_event_id=nonsense", f"Last-Event-ID: {ids[2]}", ["3"]),
    ]:
        found = await api.lines(f"/channels/news{target}", len(expected), field)
        assert [each["data"] for each in found] == expected


async def test_a_place_that_the_log_does_not_hold_is_told_in_a_field_and_in_the_stream(api: Api, hub: Hub) -> None:
    ids = [(await api.post("/channels/news", f"{n}", TEXT)).id for n in range(4)]
    await (await hub.store()).trim("news", Id.parse(ids[3]))
    peer = await api.served.ask(request("/channels/news", f"Last-Event-ID: {ids[0]}"))
    assert b"\r\nStream-Gap: 2\r\n" in await peer.head()
    await peer.expect(chunk(b":\n\n"))
    assert f'event: stream-gap\ndata: {{"missing":2,"after":"{ids[0]}"}}\n'.encode() in await peer.until(b"\n\n")


async def test_an_id_that_cannot_be_is_refused(api: Api) -> None:
    for id in [
        "x", "1", "1-", "-1", "1--1", "-1-1", "1-1-1", "1.5-1", "1-1 ", " 1-1", "+1-1", "0x1-1", "1_0-1", "\uff11-1",
        "1-" + "1" * 16, "latest", "Earliest", "1-1\0", "1-1\n",
    ]:  # fmt: skip
        answer = await api.ask("GET", f"/channels/news?last_event_id={quote(id)}")
        assert (answer.status, "<milliseconds>-<number>" in answer.body) == (400, True), id
        assert 'or "earliest"' in answer.body
        if id.isprintable() and id == id.strip():
            field = f"Last-Event-ID: {id.encode().decode('latin-1')}"
            assert (await api.ask("GET", "/channels/news", field)).status == 400, id


async def test_an_empty_id_is_none(api: Api) -> None:
    """As EventSource sends none when it has seen none."""
    await api.post("/channels/news", "before", TEXT)
    peer = await api.read("/channels/news?last_event_id=")
    id = (await api.post("/channels/news", "after", TEXT)).id
    await peer.expect(chunk(f"data: after\nid: {id}\n\n".encode()))


async def test_who_has_seen_the_end_is_told_not_to_come_back(api: Api, hub: Hub) -> None:
    await api.post("/channels/news", "one", TEXT)
    peer = await api.read("/channels/news")
    await hub.channel("news").close()
    told = await peer.until(b"\n\n")
    assert b"event: stream-end\n" in told
    await peer.until(b"0\r\n\r\n")
    last = told.partition(b"id: ")[2].strip().decode()
    answer = await api.ask("GET", "/channels/news", f"Last-Event-ID: {last}")
    assert (answer.status, answer.body) == (204, "")
    # Who has not seen it is told.
    assert [each["event"] for each in await api.lines("/channels/news", 1)] == ["stream-end"]


async def test_head_says_what_get_would_and_reads_nothing(api: Api, hub: Hub) -> None:
    peer = await api.served.ask(request("/channels/news", method="HEAD") + request("/channels/news/info"))
    await peer.expect_head(SSE_HEAD)
    head, body = await peer.response()
    assert Answer(head, body).json["subscribers"] == 0


# -- names -------------------------------------------------------------------------------------------------------------


async def test_names_that_can_be(api: Api) -> None:
    for name in ["a", "info", "a.b:c@d~e-f_g", "新闻", "_", "0", "x" * 128, "ä" * 128, "run", "café"]:
        id = (await api.post(f"/channels/{quote(name)}", "text", TEXT)).id
        known = (await api.ask("GET", f"/channels/{quote(name)}/info")).json
        assert (known["name"], known["last"]) == (name, id)
    assert (await api.ask("GET", "/channels/%61/info")).json["name"] == "a"


async def test_names_that_cannot_be_are_refused_everywhere(api: Api, hub: Hub) -> None:
    for name in [
        "..", ".", "%2e%2e", "a%2Fb", "run%2Fx", "%2F", "a%5Cb", "x" * 129, "-a", "a%20b", "a%00",
        "a%0D%0ASet-Cookie:x", "a,b", "%E2%82", "%ED%A0%80", "a%2523", "*", "~a", "%F0%9F%98%80", "a;b",
        "%22%3Cscript%3E",
    ]:  # fmt: skip
        for method, target in [
            ("GET", f"/channels/{name}"), ("POST", f"/channels/{name}"), ("GET", f"/channels/{name}/info"),
            ("GET", f"/jobs/{name}"), ("DELETE", f"/jobs/{name}"),
        ]:  # fmt: skip
            answer = await api.ask(method, target)
            assert (answer.status, answer.body[:48]) == (400, "400 Bad Request: a name is 1 to 128 letters, dig"), name
            assert "set-cookie" not in answer.headers
    assert await hub.channels() == []


async def test_other_paths_are_not_there(api: Api) -> None:
    for target in [
        "/channels", "/channels/", "/channels//info", "/channels/a/b", "/channels/a/info/", "/jobs/",
        "/channels/a/../b", "/Channels/a",
    ]:  # fmt: skip
        assert (await api.ask("GET", target)).status == 404, target


async def test_a_run_is_no_channel_and_a_channel_no_run(api: Api) -> None:
    id = (await api.post("/jobs", "endless")).id
    assert (await api.ask("GET", f"/channels/{id}/info")).json["events"] == 0
    await api.post("/channels/news", "x", TEXT)
    assert (await api.ask("GET", "/jobs/news")).status == 404


# -- publishing --------------------------------------------------------------------------------------------------------


PUBLISHABLE: list[tuple[Any, ...]] = [
    (JSON, '{"a": [1, null]}', {"a": [1, None]}),
    (JSON, '"text"', "text"),
    (JSON, " null ", None),
    (JSON, "1e2", 100.0),
    (JSON, "9007199254740993", 9007199254740993),
    (JSON, '"\\ud83d\\ude00"', "😀"),
    ("Content-Type: application/json; charset=utf-8", '"é"', "é"),
    ("Content-Type: Application/JSON;Charset=UTF-8", '"é"', "é"),
    ('Content-Type: application/json; charset="utf-8"', "1", 1),
    ("Content-Type: application/vnd.api+json", "1", 1),
    ("Content-Type: application/ld+json; profile=x", "1", 1),
    (TEXT, '{"a": 1}', '{"a": 1}'),
    (TEXT, "", ""),
    ("Content-Type: text/markdown; charset=us-ascii", "# a", "# a"),
    ("Content-Type:", "plain", "plain"),
    ("X-Content-Type: application/json", "[", "["),
    (TEXT, "a\r\nb\0\u2028\ufeff", "a\r\nb\0\u2028\ufeff"),
    (TEXT, "\ufeffa", "\ufeffa"),
]


async def test_json_and_text_are_published_as_what_they_are(api: Api) -> None:
    for number, (field, body, data) in enumerate(PUBLISHABLE):
        answer = await api.post(f"/channels/{number}", body, field)
        assert answer.headers["content-type"] == "application/json; charset=utf-8"
        [found] = await api.lines(f"/channels/{number}?last_event_id=earliest", 1)
        assert found == {"id": answer.id, "event": "message", "data": data}
        # In server-sent events too it is one event, whatever is in it.
        peer = await api.read(f"/channels/{number}?last_event_id=earliest")
        assert (await peer.until(b"\n\n")).endswith(f"\nid: {answer.id}\n\n".encode())


async def test_other_types_and_charsets_are_refused(api: Api, hub: Hub) -> None:
    for type in [
        "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/octet-stream",
        "application/jsonp", "json", "text", "text/", "text/*", "*/*", "image/svg+xml", "text/plain, application/json",
        "application/json/x", "application/json; charset=utf-16", "text/plain; charset=iso-8859-1",
        'text/plain; charset="gb18030"', "text/plain; charset=", "text/plain; a=b; CHARSET = latin1", "+json",
        "application/+json", "text/plain\xe9",
    ]:  # fmt: skip
        answer = await api.post("/channels/news", "1", f"Content-Type: {type}")
        assert (answer.status, answer.headers["accept"]) == (415, "application/json, text/*"), type
    assert await hub.channels() == []


GARBLED: list[tuple[Any, ...]] = [
    (JSON, b""),
    (JSON, b"{"),
    (JSON, b'{"a": 1} x'),
    (JSON, b"NaN"),
    (JSON, b"[-Infinity]"),
    (JSON, b"1e999"),
    (JSON, b'"\\ud800"'),
    (JSON, b'{"\\udfff": 1}'),
    (JSON, b"'a'"),
    (JSON, b"\xef\xbb\xbf1"),
    (JSON, b'"\xff"'),
    (JSON, '"é"'.encode("latin-1")),
    (JSON, '"a"'.encode("utf-16")),
    (JSON, b"[" * 100_000),
    (JSON, b"1" * 10_000),
    (JSON, b'"a\nb"'),
    (TEXT, b"\xff"),
    (TEXT, b"\xed\xa0\x80"),
    (TEXT, b"a\xc0\x80"),
    ("Content-Type: text/plain; charset=us-ascii", b"\x80"),
]


async def test_bodies_that_are_not_what_they_say_are_refused_and_logged_nowhere(api: Api, hub: Hub) -> None:
    for field, body in GARBLED:
        answer = await api.post("/channels/news", body, field)
        assert (answer.status, answer.body[:26]) == (400, "400 Bad Request: the body "), body
    assert await hub.channels() == []


@pytest.mark.parametrize(
    ("field", "body"),
    [
        (JSON, b'"' + b"a" * (MOST - 2) + b'"'),
        (TEXT, b"a" * (MOST - 2)),  # as JSON it has two quotes
        (TEXT, b"\n" * ((MOST - 2) // 2)),  # and each of these is two characters
        (JSON, b" " * (MOST - 1) + b"1"),
    ],
)
async def test_an_event_of_256_kib_is_taken_and_one_byte_more_is_not(api: Api, field: str, body: bytes) -> None:
    answer = await api.post("/channels/news", body, field)
    assert answer.status == 201, answer.body
    more = body.replace(b" ", b"  ", 1) if b" " in body else body.replace(body[1:2], body[1:2] * 2, 1)
    answer = await api.post("/channels/news", more, field)
    assert (answer.status, "at most 262144 bytes" in answer.body) == (413, True)
    assert (await api.ask("GET", "/channels/news/info")).json["events"] == 1


async def test_a_body_that_says_that_it_is_too_large_is_not_waited_for(api: Api) -> None:
    peer = await api.served.ask(request("/channels/news", TEXT, f"Content-Length: {MOST + 1}", method="POST"))
    head, body = await peer.response()
    assert head.startswith(b"HTTP/1.1 413 ")
    assert b"at most 262144 bytes" in body


async def test_a_chunked_body_is_taken_up_to_the_same_size(api: Api) -> None:
    head = request("/channels/news", TEXT, "Transfer-Encoding: chunked", method="POST")
    peer = await api.served.ask(head + chunk(b"two ") + chunk(b"pieces") + b"0\r\n\r\n")
    assert Answer(*await peer.response()).status == 201
    await peer.send(head + chunk(b"a" * 65536) * 4 + chunk(b"b") + b"0\r\n\r\n")
    assert Answer(*await peer.response()).status == 413
    spaces = request("/channels/news", JSON, "Transfer-Encoding: chunked", method="POST")
    await peer.send(spaces + chunk(b" " * 65536) * 4 + chunk(b"1") + b"0\r\n\r\n")
    assert Answer(*await peer.response()).status == 413
    [found] = await api.lines("/channels/news?last_event_id=earliest", 1)
    assert found["data"] == "two pieces"


async def test_an_event_may_have_a_name(api: Api) -> None:
    for number, (given, event) in enumerate([
        ("", "message"), ("%C3%A9%20x", "é x"), ("a%00", "a\0"), ("x" * 256, "x" * 256),
        ("id:%20spoofed", "id: spoofed"), ("a&event=b", "b"),
    ]):  # fmt: skip
        id = (await api.post(f"/channels/{number}?event={given}", "x", TEXT)).id
        found = await api.lines(f"/channels/{number}?last_event_id=earliest", 1)
        assert found == [{"id": id, "event": event, "data": "x"}]
    peer = await api.read("/channels/0?last_event_id=earliest")
    assert b"event:" not in await peer.until(b"\n\n")


async def test_names_that_would_break_out_of_an_event_or_are_rawstreams_own_are_refused(api: Api, hub: Hub) -> None:
    for event in [
        "a%0Ab", "a%0D", "%0D%0Adata:%20spoofed%0D%0A%0D%0A", "stream-end", "stream-error", "stream-gap", "stream-",
        "stream-x", "x" * 257,
    ]:  # fmt: skip
        answer = await api.post(f"/channels/news?event={event}", "x", TEXT)
        assert (answer.status, "event" in answer.body) == (400, True), event
        assert ("at most 256" in answer.body, "'stream-'" in answer.body) == (len(event) > 256, "stream-" in event)
    assert await hub.channels() == []


async def test_a_name_that_is_not_utf_8_is_refused_as_such_a_body_is(api: Api, hub: Hub) -> None:
    answer = await api.post("/channels/news?event=%FF", "x", TEXT)
    assert (answer.status, answer.body) == (400, "400 Bad Request: the query is not UTF-8\n")
    assert await hub.channels() == []


async def test_a_key_makes_it_safe_to_publish_again(api: Api) -> None:
    first = await api.post("/channels/news", "one", TEXT, "Idempotency-Key: k")
    again = await api.post("/channels/news", "one", TEXT, "Idempotency-Key: k")
    other = await api.post("/channels/news", "one", TEXT, "Idempotency-Key: K")
    elsewhere = await api.post("/channels/olds", "one", TEXT, "Idempotency-Key: k")
    assert first.id == again.id != other.id
    assert (await api.ask("GET", "/channels/news/info")).json["events"] == 2
    assert elsewhere.id.endswith("-1")


async def test_a_key_that_cannot_be_is_refused(api: Api, hub: Hub) -> None:
    for key in ["", "x" * 257]:
        for target in ["/channels/news", "/jobs"]:
            answer = await api.post(target, "x", TEXT, f"Idempotency-Key: {key}")
            assert (answer.status, answer.body) == (
                400,
                "400 Bad Request: an Idempotency-Key has 1 to 256 characters\n",
            )
    assert await (await hub.store()).names() == []


async def test_any_key_that_a_field_can_carry_is_a_key_and_goes_into_no_answer(api: Api) -> None:
    for key in ["é\xff".encode().decode("latin-1"), '"8e03978e"', "a: b", "x" * 256, "a, b"]:
        for target in ["/channels/news", "/jobs"]:
            answers = [await api.post(target, "x", TEXT, f"Idempotency-Key: {key}") for _ in range(2)]
            assert answers[0].json == answers[1].json
            assert answers[0].headers.get("location", "/jobs/").isascii()
            assert key not in "".join(answers[0].headers.values())
    peer = await api.served.ask(
        request("/channels/news", "Idempotency-Key: a\rSet-Cookie: b", method="POST", body=b"x")
    )
    assert Answer(*await peer.response()).status == 400


async def test_nothing_is_published_after_the_end(api: Api, hub: Hub) -> None:
    await api.post("/channels/news", "x", TEXT)
    await hub.channel("news").close()
    answer = await api.post("/channels/news", "y", TEXT)
    assert (answer.status, answer.body) == (409, "409 Conflict: the channel has ended\n")


async def test_failures_are_told_in_json_to_who_asks_for_it(api: Api) -> None:
    answer = await api.post("/channels/news", "{", JSON, "Accept: application/json")
    assert (answer.status, answer.json["status"]) == (400, 400)


# -- info --------------------------------------------------------------------------------------------------------------


async def test_info_tells_ids_and_counts(api: Api, hub: Hub) -> None:
    answer = await api.ask("GET", "/channels/news/info")
    assert answer.headers["cache-control"] == "no-store"
    assert answer.json == {
        "name": "news", "oldest": None, "last": None, "events": 0, "subscribers": 0, "ended": False,
    }  # fmt: skip
    readers = [await api.read("/channels/news"), await api.read("/channels/news", LINES)]
    await until(lambda: hub.channel("news").subscribers == 2)
    ids = [(await api.post("/channels/news", "x", TEXT)).id for _ in range(3)]
    known = {"name": "news", "oldest": ids[0], "last": ids[2], "events": 3, "subscribers": 2, "ended": False}
    assert (await api.ask("GET", "/channels/news/info")).json == known
    readers[0].reset()
    await until(lambda: hub.channel("news").subscribers == 1)
    store = await hub.store()
    await store.trim("news", Id.parse(ids[1]))
    known |= {"oldest": ids[1], "events": 2, "subscribers": 1}
    assert (await api.ask("GET", "/channels/news/info")).json == known
    await hub.channel("news").close()
    await readers[1].until(b"0\r\n\r\n")
    known = (await api.ask("GET", "/channels/news/info")).json
    assert (known["events"], known["subscribers"], known["ended"]) == (3, 0, True)


async def test_asking_makes_no_channel(api: Api, hub: Hub) -> None:
    await api.ask("GET", "/channels/news/info")
    (await api.read("/channels/other")).close()
    assert await hub.channels() == []


# -- methods and pages -------------------------------------------------------------------------------------------------


async def test_other_methods_are_told_which_there_are(make: Callable[..., Any]) -> None:
    api = await make(publish_token="p", subscribe_token="s")
    for target, allow in [
        ("/channels/news", "GET, HEAD, OPTIONS, POST"),
        ("/channels/news/info", "GET, HEAD, OPTIONS"),
        ("/jobs", "OPTIONS, POST"),
        ("/jobs/x", "DELETE, GET, HEAD, OPTIONS"),
    ]:
        answer = await api.ask("OPTIONS", target)
        assert (answer.status, answer.headers["allow"]) == (204, allow)
        for method in ["PUT", "PATCH", "BREW"]:
            answer = await api.ask(method, target)
            assert (answer.status, answer.headers["allow"]) == (405, allow)


async def test_pages_of_listed_origins_may_publish_and_read_and_those_of_others_may_not(
    make: Callable[..., Any], hub: Hub
) -> None:
    api = await make(publish_token="p", allowed_origins=["https://a.test"])
    ours, token = "Origin: https://a.test", "Authorization: Bearer p"
    asked = "Access-Control-Request-Headers: authorization,content-type,idempotency-key"
    answer = await api.ask("OPTIONS", "/channels/news", ours, "Access-Control-Request-Method: POST", asked)
    assert (answer.status, answer.headers["access-control-allow-origin"]) == (204, "https://a.test")
    assert answer.headers["access-control-allow-headers"] == "authorization, content-type, idempotency-key"
    for fields, status in [((ours, token), 201), ((ours,), 401), ((ours, token + "x"), 403)]:
        answer = await api.post("/channels/news", "x", TEXT, *fields)
        assert (answer.status, answer.headers["access-control-allow-origin"]) == (status, "https://a.test")
    other = "Origin: https://b.test"
    answer = await api.post("/channels/news", "x", TEXT, other, token)
    assert (answer.status, answer.headers.get("access-control-allow-origin")) == (403, None)
    assert "may not send POST here" in answer.body
    answer = await api.ask("DELETE", "/jobs/x", other, token)
    assert "may not send DELETE here" in answer.body
    peer = await api.served.ask(request("/channels/news", other))
    assert b"Access-Control" not in await peer.head()
    assert (await (await hub.store()).state("news")).entries == 1  # type: ignore[union-attr]


# -- who may -----------------------------------------------------------------------------------------------------------

PUBLISH, SUBSCRIBE = "pub-11111111", "sub.22222222=="
PUBLISHING = [("POST", "/channels/news"), ("POST", "/jobs"), ("DELETE", "/jobs/none")]
SUBSCRIBING = [
    ("GET", "/channels/news"), ("HEAD", "/channels/news"), ("GET", "/channels/news/info"), ("GET", "/jobs/none"),
]  # fmt: skip


@pytest.fixture
async def guarded(make: Callable[..., Any]) -> Api:
    made: Api = await make(publish_token=PUBLISH, subscribe_token=SUBSCRIBE)
    return made


async def status(api: Api, method: str, target: str, *fields: str) -> int:
    peer = await api.served.ask(request(target, *fields, method=method, body=b"x" if method == "POST" else b""))
    return int((await peer.head()).split(b" ")[1])


@pytest.mark.parametrize(
    ("requests", "right", "wrong"), [(PUBLISHING, PUBLISH, SUBSCRIBE), (SUBSCRIBING, SUBSCRIBE, PUBLISH)]
)
async def test_a_token_opens_what_it_is_for_and_nothing_else(
    guarded: Api, requests: list[tuple[str, str]], right: str, wrong: str
) -> None:
    for method, target in requests:
        allowed = 404 if "none" in target else 201 if method == "POST" else 200
        assert await status(guarded, method, target, f"Authorization: Bearer {right}") == allowed
        assert await status(guarded, method, target, f"authorization: bearer   {right}") == allowed
        assert await status(guarded, method, target) == 401
        assert await status(guarded, method, target, f"Authorization: Bearer {wrong}") == 403


WRONG: list[tuple[Any, ...]] = [
    ([], 401),
    (["Authorization:"], 401),
    (["Authorization: Basic cHViLTExMTExMTEx"], 401),
    ([f"Authorization: {PUBLISH}"], 401),
    ([f"Authorization: Bearer{PUBLISH}"], 401),
    (["Authorization: Bearer"], 403),
    (["Authorization: Bearer "], 403),
    ([f"Authorization: Bearer {PUBLISH[:-1]}"], 403),
    ([f"Authorization: Bearer {PUBLISH}1"], 403),
    ([f"Authorization: Bearer {PUBLISH.upper()}"], 403),
    ([f"Authorization: Bearer {PUBLISH} {PUBLISH}"], 403),
    ([f"Authorization: Bearer {PUBLISH}, Bearer {PUBLISH}"], 403),
    ([f"Authorization: Bearer {PUBLISH}"] * 2, 403),
    ([f"Authorization: Bearer {PUBLISH}", "Authorization: Bearer x"], 403),
    (["Authorization: Bearer x", f"Authorization: Bearer {PUBLISH}"], 403),
    (["Authorization: Bearer p\xfc\xff\x80"], 403),
    (["Authorization: Bearer " + "x" * 10_000], 403),
    (["Authorization: Bearer *"], 403),
    ([f"Cookie: rawstream-subscribe={PUBLISH}"], 401),
    ([f"Cookie: rawstream-publish={PUBLISH}"], 401),
    ([f"Proxy-Authorization: Bearer {PUBLISH}"], 401),
    ([f"X-Publish-Token: {PUBLISH}"], 401),
]


async def test_what_is_not_the_token_is_refused_and_not_repeated(guarded: Api, hub: Hub) -> None:
    for fields, expected in WRONG:
        for target in ["/channels/news", "/channels/not%20a%20name", "/jobs"]:
            answer = await guarded.post(target, "x", TEXT, *fields)
            assert answer.status == expected
            assert answer.headers.get("www-authenticate") == ("Bearer" if expected == 401 else None)
            assert PUBLISH not in answer.body + "".join(answer.headers.values())
        assert await (await hub.store()).names() == []


async def test_a_token_in_the_address_is_ignored(guarded: Api) -> None:
    for name in ["token", "access_token", "publish_token", "publish-token", "authorization", "bearer"]:
        assert (await guarded.post(f"/channels/news?{name}={PUBLISH}", "x", TEXT)).status == 401
        assert await status(guarded, "GET", f"/channels/news?{name}={SUBSCRIBE}") == 401


COOKIES: list[tuple[Any, ...]] = [
    ([f"Cookie: rawstream-subscribe={SUBSCRIBE}"], 200),
    ([f"Cookie: a=b; rawstream-subscribe={SUBSCRIBE};c=d"], 200),
    ([f"Cookie: rawstream-subscribe=old; rawstream-subscribe={SUBSCRIBE}"], 200),
    (["Cookie: a=b", f"Cookie: rawstream-subscribe={SUBSCRIBE}"], 200),
    ([f"Cookie: rawstream-subscribe={SUBSCRIBE}", "Authorization: Basic YTpi"], 200),
    ([f"Cookie: rawstream-subscribe={SUBSCRIBE}", "Authorization: Bearer x"], 403),
    (["Cookie: rawstream-subscribe=x", f"Authorization: Bearer {SUBSCRIBE}"], 200),
    (["Cookie: rawstream-subscribe="], 403),
    (["Cookie: rawstream-subscribe"], 403),
    ([f"Cookie: rawstream-subscribe={SUBSCRIBE}x"], 403),
    ([f"Cookie: rawstream-subscribe={PUBLISH}"], 403),
    ([f"Cookie: Rawstream-Subscribe={SUBSCRIBE}"], 401),
    ([f"Cookie: x-rawstream-subscribe={SUBSCRIBE}"], 401),
    ([f'Cookie: a="; rawstream-subscribe-{SUBSCRIBE}"'], 401),
    (["Cookie: =; ;;=;\xff"], 401),
]


async def test_for_reading_a_cookie_will_do(guarded: Api) -> None:
    for fields, expected in COOKIES:
        for method, target in SUBSCRIBING[:3]:
            assert await status(guarded, method, target, *fields) == expected


async def test_one_token_alone_leaves_the_other_side_open(make: Callable[..., Any]) -> None:
    api = await make(subscribe_token="s")
    assert await status(api, "POST", "/channels/news") == 201
    assert await status(api, "GET", "/channels/news") == 401
    api = await make(publish_token="p")
    assert await status(api, "POST", "/channels/news") == 401
    assert await status(api, "GET", "/channels/news") == 200


async def test_tokens_are_compared_whole_and_in_constant_time(
    make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[tuple[bytes, bytes]] = []

    def compare_digest(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return one == other

    monkeypatch.setattr("hmac.compare_digest", compare_digest)
    api = await make(publish_token="p")
    assert await status(api, "POST", "/channels/news", "Authorization: Bearer \xe9") == 403
    assert await status(api, "POST", "/channels/news", "Authorization: Bearer p") == 201
    assert compared == [(b"\xe9", b"p"), (b"p", b"p")]


@pytest.mark.parametrize("token", ["", " ", "a b", "a,b", "a;b", "a\r\nb", "ä", '"a"', "=", "a=b", "a\\"])
def test_a_token_that_a_field_or_a_cookie_cannot_carry_is_refused_without_being_shown(token: str) -> None:
    for tokens in [{"publish_token": token}, {"subscribe_token": token}]:
        with pytest.raises(errors.LocalError, match="a token is made of ASCII letters") as raised:
            add_channels(Router(), Hub(), **tokens)
        assert repr(token) not in str(raised.value)
        with pytest.raises(errors.LocalError, match="a token is made of ASCII letters"):
            add_jobs(Router(), Hub(), two_steps, **tokens)
    assert checked_token("aZ09-._~+/==") == "aZ09-._~+/=="


async def test_no_token_comes_into_a_log(guarded: Api, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        logging.getLogger("rawstream.wire").setLevel(logging.WARNING)  # which is there to show every byte
        for method, target in [*PUBLISHING, *SUBSCRIBING]:
            for token in [PUBLISH, SUBSCRIBE, PUBLISH + "\xff"]:
                fields = f"Authorization: Bearer {token}", f"Cookie: rawstream-subscribe={token}"
                await status(guarded, method, target, *fields)
    assert "GET /channels/news" in caplog.text
    assert PUBLISH not in caplog.text
    assert SUBSCRIBE not in caplog.text


# -- jobs --------------------------------------------------------------------------------------------------------------


async def test_a_job_can_be_followed_from_its_first_event_to_its_last(api: Api) -> None:
    answer = await api.post("/jobs", "")
    location = f"/jobs/{answer.id}"
    assert (answer.headers["location"], answer.json) == (location, {"id": answer.id, "location": location})
    assert len(answer.id) == 32
    peer = await api.read(location)
    told = (await peer.until(b"0\r\n\r\n")).decode()
    lines = [line for line in told.splitlines() if line.startswith(("event", "data"))]
    assert lines == ["event: progress", 'data: {"step":1}', "data: done", "event: stream-end", "data: {}"]
    found = await api.lines(location, 3)
    assert [each["event"] for each in found] == ["progress", "message", "stream-end"]
    rest = await api.lines(location, 2, f"Last-Event-ID: {found[0]['id']}")
    assert rest == found[1:]
    assert (await api.ask("GET", location, f"Last-Event-ID: {found[2]['id']}")).status == 204
    assert (await api.ask("GET", location, "Last-Event-ID: x")).status == 400
    assert (await api.ask("GET", location, "Accept: text/html")).status == 406
    assert (await api.ask("HEAD", location)).status == 200


async def test_a_key_makes_it_safe_to_begin_a_job_again(api: Api, hub: Hub) -> None:
    first = await api.post("/jobs", "endless", "Idempotency-Key: k")
    again = await api.post("/jobs", "no", "Idempotency-Key: k")
    assert (first.status, again.status) == (201, 200)
    assert first.json == again.json
    assert again.headers["location"] == first.headers["location"]
    other = await api.post("/jobs", "endless", "Idempotency-Key: other")
    unnamed = [await api.post("/jobs", "endless") for _ in range(2)]
    assert len({first.id, other.id, *(answer.id for answer in unnamed)}) == 4 == len(hub.owners)


async def test_of_those_who_begin_a_job_at_once_with_one_key_one_is_told_that_it_did(api: Api, hub: Hub) -> None:
    """All of them look for it, and find none, before the first begins it."""
    store, all_have_looked = Staged(), asyncio.Barrier(3)
    store.after("state", *[all_have_looked.wait] * 3)
    await store.open()
    hub._store = store
    posts = [in_background(api.post("/jobs", "endless", "Idempotency-Key: k")) for _ in range(3)]
    answers = [await post for post in posts]
    assert sorted(answer.status for answer in answers) == [200, 200, 201]
    assert len({answer.json["id"] for answer in answers}) == len(hub.owners) == 1


async def test_a_job_is_stopped_once_and_its_readers_are_told(api: Api, hub: Hub) -> None:
    answer = await api.post("/jobs", "endless")
    location = answer.headers["location"]
    peer = await api.read(location)
    assert b"progress" in await peer.until(b"\n\n")
    for _ in range(2):
        stopped = await api.ask("DELETE", location)
        assert (stopped.status, stopped.body) == (204, "")
    assert b'event: stream-end\ndata: {"stopped":true}\n' in await peer.until(b"0\r\n\r\n")
    assert hub.owners == {}
    assert [each["event"] for each in await api.lines(location, 2)] == ["progress", "stream-end"]


async def test_a_job_that_is_not_there_is_told_so(api: Api) -> None:
    for id in ["none", "0" * 32]:
        for method in ["GET", "HEAD", "DELETE"]:
            assert (await api.ask(method, f"/jobs/{id}")).status == 404


async def test_a_job_that_is_refused_does_not_begin(api: Api, hub: Hub) -> None:
    answer = await api.post("/jobs", "no", "Idempotency-Key: k")
    assert (answer.status, answer.body) == (422, "422 Unprocessable Content: not this\n")
    assert await (await hub.store()).names() == []
    assert (await api.post("/jobs", "", "Idempotency-Key: k")).status == 201


async def test_who_posts_and_vanishes_leaves_a_job_that_is_at_work_or_none(api: Api, hub: Hub) -> None:
    peer = await api.served.ask(request("/jobs", "Idempotency-Key: k", method="POST", body=b"endless"))
    peer.reset()
    answer = await api.post("/jobs", "endless", "Idempotency-Key: k")
    assert answer.json["id"] in hub.owners


# -- bad days ----------------------------------------------------------------------------------------------------------


class Away(MemoryStore):
    """A store that cannot be reached while it is `away`."""

    away = False

    def _check(self) -> None:
        if self.away:
            raise errors.StoreUnavailable

    async def append(self, *given: Any, **named: Any) -> Id:
        self._check()
        return await super().append(*given, **named)

    async def end(self, *given: Any, **named: Any) -> bool:
        self._check()
        return await super().end(*given, **named)

    async def read(self, name: str, after: Id, limit: int) -> list[Entry]:
        self._check()
        return await super().read(name, after, limit)

    async def state(self, name: str) -> State | None:
        self._check()
        return await super().state(name)

    async def begin(self, *given: Any, **named: Any) -> bool:
        self._check()
        return await super().begin(*given, **named)

    async def follow(self, *given: Any, **named: Any) -> Id:
        self._check()
        return await super().follow(*given, **named)


@pytest.fixture
async def store(hub: Hub) -> Away:
    """The hub's."""
    store = hub._store = Away()
    await store.open()
    return store


async def test_while_the_store_is_away_publishing_is_refused_and_subscribers_stay(
    make: Callable[..., Any], hub: Hub, store: Away
) -> None:
    api = await make()
    peer = await api.read("/channels/news")
    await until(lambda: hub.channel("news").subscribers == 1)
    job = (await api.post("/jobs", "endless")).headers["location"]
    store.away = True
    for method, target in [
        ("POST", "/channels/news"), ("GET", "/channels/news/info"), ("POST", "/jobs"), ("DELETE", job),
    ]:  # fmt: skip
        answer = await api.ask(method, target, body=b"x" if method == "POST" else b"")
        assert (answer.status, answer.headers["retry-after"]) == (503, "5")
        assert answer.body == "503 Service Unavailable: the channels' store cannot be reached\n"
    answer = await api.post("/jobs", "endless", "Idempotency-Key: k")
    assert answer.status == 503
    store.away = False
    id = (await api.post("/channels/news", "back", TEXT)).id
    await peer.expect(chunk(f"data: back\nid: {id}\n\n".encode()))
    assert (await api.post("/jobs", "endless", "Idempotency-Key: k")).status == 201


async def test_who_comes_while_the_store_is_away_is_let_in_and_told_all_of_it_later(
    make: Callable[..., Any], hub: Hub, store: Away, clock: Clock
) -> None:
    api = await make()
    ids = [(await api.post("/channels/news", f"{n}", TEXT)).id for n in range(2)]
    store.away = True
    peer = await api.read("/channels/news", f"Last-Event-ID: {ids[0]}")
    await clock.advance(20)
    assert peer.here().endswith(chunk(b":\n\n"))
    store.away = False
    await clock.advance(2)
    assert peer.here() == chunk(f"data: 1\nid: {ids[1]}\n\n".encode())


async def test_a_redis_that_is_not_there_is_503_and_says_nothing_of_where_it_is(
    make: Callable[..., Any], orderly: None
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    async with asyncio.timeout(60):
        hub = Hub(f"redis://user:pass@127.0.0.1:{port}/0")
        api = await make(of=hub)
        answer = await api.post("/channels/news", "x", TEXT)
        assert (answer.status, answer.headers["retry-after"]) == (503, "5")
        assert answer.body == "503 Service Unavailable: the channels' store cannot be reached\n"
        await hub.close()


async def test_a_store_without_room_is_503(make: Callable[..., Any], serving: Serving) -> None:
    async with Hub("memory:?logs=1") as hub:
        api = await make(of=hub)
        assert (await api.post("/channels/one", "x", TEXT)).status == 201
        for target in ["/channels/two", "/jobs"]:
            answer = await api.post(target, "x", TEXT)
            assert (answer.status, answer.headers.get("retry-after")) == (503, None)
            assert "it holds 1, or as many as its URL says (logs=)" in answer.body
        assert (await api.post("/channels/one", "x", TEXT)).status == 201


async def test_an_outcome_that_nobody_knows_is_no_success(make: Callable[..., Any], hub: Hub, store: Away) -> None:
    """Nor does it ask for another: without a key, that may be a second one."""

    async def append(*given: Any, **named: Any) -> Id:
        raise errors.OutcomeUnknown

    store.append = append  # type: ignore[method-assign]
    answer = await (await make()).post("/channels/news", "x", TEXT)
    assert (answer.status, answer.headers.get("retry-after")) == (503, None)
    told = "it may have been published or not; an Idempotency-Key would make repeating safe"
    assert answer.body == f"503 Service Unavailable: {told}\n"


# -- mistakes of the program -------------------------------------------------------------------------------------------


def test_who_gives_jobs_a_generator_for_a_coroutine_is_told_so() -> None:
    async def start(request: Request) -> AsyncIterator[Any]:
        yield request

    with pytest.raises(LocalError, match="a coroutine function that returns an async generator"):
        add_jobs(Router(), Hub(), start)  # type: ignore[arg-type]
