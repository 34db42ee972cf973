"""`python -m rawstream get`: what is asked, what is shown, and how it ends.

Most of it runs in a thread, with a pipe or a pseudo-terminal for its output; as a process where signals count.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gzip
import os
import pty
import re
import select
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import tty
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import trustme
from canned import MakeCanned, answer
from processes import ROOT
from support import Failures, Served, Serving, until

from rawstream import Event, Request, Response, Stream, Timeouts, cli
from rawstream.get import add_options

pytestmark = pytest.mark.either_loop  # that of the server: `get` has its own

SSE = "text/event-stream"
PACKED = gzip.compress(b"text", mtime=0)  # the same in each process: it names tests


class Output:
    """The reading end of a pipe or of a pseudo-terminal."""

    def __init__(self, terminal: bool) -> None:
        self._descriptor, self.other = pty.openpty() if terminal else os.pipe()
        if terminal:
            tty.setraw(self.other)  # or it would write CR LF for each LF
        os.set_blocking(self._descriptor, False)
        self._held = b""

    async def _more(self) -> bool:
        loop = asyncio.get_running_loop()
        while True:
            try:
                data = os.read(self._descriptor, 65536)
            except BlockingIOError:
                readable = asyncio.Event()
                loop.add_reader(self._descriptor, readable.set)
                try:
                    await readable.wait()
                finally:
                    loop.remove_reader(self._descriptor)
            except OSError:  # EIO: nobody has the terminal any more
                return False
            else:
                self._held += data
                return bool(data)

    async def expect(self, text: str | bytes) -> None:
        """Exactly this is printed next."""
        expected = text.encode() if isinstance(text, str) else text
        while len(self._held) < len(expected) and expected.startswith(self._held):
            assert await self._more(), self._held
        got, self._held = self._held[: len(expected)], self._held[len(expected) :]
        assert got == expected

    async def full(self) -> None:
        """It holds as much as it can, and nobody reads it."""
        await until(lambda: not select.select([], [self.other], [], 0)[1])

    async def line(self) -> str:
        """The next line, without its end."""
        while b"\n" not in self._held:
            assert await self._more(), self._held
        line, _, self._held = self._held.partition(b"\n")
        return line.decode()

    async def rest(self) -> str:
        """What comes until its end."""
        while await self._more():
            pass
        data, self._held = self._held, b""
        return data.decode()

    def close(self) -> None:
        os.close(self._descriptor)


class Getting(Output):
    """`get` at work in a thread."""

    def __init__(self, arguments: tuple[str, ...], terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(terminal)
        self._stdout = open(self.other, "w")  # noqa: SIM115 - closed when the command has ended
        self._said = tempfile.TemporaryFile("w+")  # noqa: SIM115 - with a descriptor, as stderr has
        monkeypatch.setattr(sys, "stdout", self._stdout)
        monkeypatch.setattr(sys, "stderr", self._said)
        self._status = asyncio.ensure_future(asyncio.to_thread(self._run, arguments))

    def _run(self, arguments: tuple[str, ...]) -> int | str | None:
        try:
            return cli.main(["get", *arguments])
        except SystemExit as exc:  # argparse's way
            return exc.code
        finally:
            self._stdout.close()

    async def end(self, printed: str = "") -> tuple[int | str | None, str]:
        """It prints this and no more; its exit status, and what it says on stderr."""
        assert await self.rest() == printed
        return await self.ended()

    async def ended(self) -> tuple[int | str | None, str]:
        """It ends, whether anybody reads its output or not; its exit status, and what it says on stderr."""
        status = await self._status
        self._said.seek(0)
        return status, self._said.read()

    async def leave(self) -> None:
        """Nobody reads its output any more: it ends, if it has not."""
        self.close()
        await self._status
        self._said.close()


Get = Callable[..., Getting]


@pytest.fixture
async def get(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Get]:
    """`get(argument, ..., terminal=False)`: run it."""
    started: list[Getting] = []
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")

    def start(*arguments: str, terminal: bool = False) -> Getting:
        started.append(Getting(arguments, terminal, monkeypatch))
        return started[-1]

    yield start
    for each in started:
        await each.leave()


class Fed:
    """A handler that streams what a test feeds it, and knows who asked."""

    def __init__(self, **options: Any) -> None:
        self.requests: list[Request] = []
        self.bodies: list[bytes] = []
        self._options = options
        self._items: asyncio.Queue[Any] = asyncio.Queue()
        self.closed = asyncio.Event()

    def feed(self, item: Any) -> None:
        """The next item; an exception to fail with; None to end."""
        self._items.put_nowait(item)

    async def __call__(self, request: Request) -> Stream:
        self.requests.append(request)
        self.bodies.append(await request.body())
        return Stream(self._stream(), **self._options)

    async def _stream(self) -> AsyncIterator[Any]:
        try:
            while (item := await self._items.get()) is not None:
                if isinstance(item, Exception):
                    raise item
                yield item
        finally:
            self.closed.set()


def place(served: Served, path: str = "") -> str:
    """Its URL, as one types it."""
    return f"localhost:{served.server.addresses[0][1]}{path}"


# -- what is shown -----------------------------------------------------------------------------------------------------


async def test_to_a_pipe_go_the_bytes_as_they_come(serving: Serving, get: Get) -> None:
    fed = Fed(format="sse")
    getting = get(place(await serving(fed)))
    for item, sent in (
        ("one\x1b", "data: one\x1b\n\n"),
        (Event("two", "tick", "2"), "event: tick\ndata: two\nid: 2\n\n"),
    ):
        fed.feed(item)
        await getting.expect(sent)
    fed.feed(None)
    assert await getting.end("event: stream-end\ndata: {}\nid: stream-end\n\n") == (0, "")
    assert fed.requests[0].headers.get("accept") == "*/*"


@pytest.mark.parametrize(
    ("form", "items"),
    [
        ("sse", [("one\x1b", "one\\x1b\n"), (Event("a\nb", "tick", "2"), "tick #2 a\n  b\n"), ({"n": 1}, '{"n":1}\n')]),
        ("json", [("一", '"一"\n'), ({"n": 1}, '{"n":1}\n'), ([1, 2], "[1,2]\n")]),
        ("ndjson", [("一", '"一"\n'), ({"n": 1}, '{"n":1}\n')]),
        ("text", [("typed ", "typed "), ("out\n", "out\n"), ("一\x1b[2J", "一\\x1b[2J")]),
        ("bytes", [(b"a\xe4\xb8", "a"), (b"\x80b", "一b"), (b"\xff", "\\xff")]),
    ],
)
async def test_on_a_terminal_each_item_is_shown_readable_while_the_stream_goes_on(
    serving: Serving, get: Get, form: str, items: list[tuple[Any, str]]
) -> None:
    fed = Fed(format=form)
    getting = get(place(await serving(fed)), terminal=True)
    for item, shown in items:
        fed.feed(item)
        await getting.expect(shown)
    fed.feed(None)
    end = {"sse": "stream-end #stream-end {}\n", "text": "\n", "bytes": "\n"}  # a prompt begins on its own line
    assert await getting.end(end.get(form, "")) == (0, "")


async def test_raw_is_raw_on_a_terminal_too(serving: Serving, get: Get) -> None:
    fed = Fed(format="text")
    getting = get("--raw", place(await serving(fed)), terminal=True)
    fed.feed("a\x1b[0m")
    await getting.expect("a\x1b[0m")
    fed.feed(None)
    assert await getting.end() == (0, "")


@pytest.mark.parametrize(
    ("arguments", "accept", "shown"),
    [
        (["--events"], SSE, "tick #1 {\"n\":1}\nstream-end #stream-end {}\n"),
        (["--items"], "application/x-ndjson, application/json;q=0.9, */*;q=0.1", '{"n":1}\n'),
        (["--text"], "text/plain, */*;q=0.1", '{"n":1}'),
        (["--items", "-H", "Accept: application/json"], "application/json", '{"n":1}\n'),
        (["--items", "-H", f"ACCEPT:{SSE}"], SSE, '{"n":1}\n'),
        (["--text", "-H", f"Accept: {SSE}"], SSE,
         'event: tick\ndata: {"n":1}\nid: 1\n\nevent: stream-end\ndata: {}\nid: stream-end\n\n'),
    ],
)  # fmt: skip
async def test_a_form_is_asked_for_and_shown_in_a_pipe_too(
    serving: Serving, get: Get, arguments: list[str], accept: str, shown: str
) -> None:
    fed = Fed()
    getting = get(*arguments, place(await serving(fed)))
    fed.feed(Event({"n": 1}, "tick", "1"))
    fed.feed(None)
    assert await getting.end(shown) == (0, "")
    assert fed.requests[0].headers.get_all("accept") == [accept]


async def test_a_failure_told_in_events_is_told_where_only_items_are_shown(
    serving: Serving, get: Get, failures: Failures
) -> None:
    fed = Fed(format="sse")
    getting = get("--items", place(await serving(fed, timeouts=Timeouts(linger=0, grace=60))))
    fed.feed("one")
    await getting.expect("one\n")
    fed.feed(RuntimeError("boom"))
    assert await getting.end() == (4, "rawstream: the server broke off its stream: Internal Server Error\n")
    assert str(failures.take()) == "boom"


async def test_the_head_is_shown_if_it_is_wanted(serving: Serving, get: Get) -> None:
    async def handler(request: Request) -> Response:
        return Response(
            200, [("Content-Type", "text/plain"), ("X-Odd", "a\x9bb"), ("X-Two", "1"), ("X-Two", "2")], b"body"
        )

    served = await serving(handler)
    for terminal, odd in ((False, "a\x9bb"), (True, "a\\x9bb")):
        getting = get("-i", place(served), terminal=terminal)
        await getting.expect("HTTP/1.1 200 OK\nDate: ")
        await getting.line()
        assert (await getting.rest()).rstrip("\n") == (
            f"Content-Type: text/plain\nX-Odd: {odd}\nX-Two: 1\nX-Two: 2\nContent-Length: 4\nConnection: close\n\nbody"
        )


GUTTER = re.compile(r"^ *(?:[0-9.]+ m?s) +([0-9.]+ (?:Ki)?B|head|end) \| ", re.MULTILINE)


async def test_timing_shows_what_came_together_and_says_in_the_end_how_long_it_took(serving: Serving, get: Get) -> None:
    fed = Fed(format="sse")
    getting = get("--timing", place(await serving(fed)))
    fed.feed("one")
    assert GUTTER.sub(r"\1 | ", await getting.line()) == "11 B | one"
    fed.feed("two")
    fed.feed("three")
    fed.feed(None)
    assert GUTTER.sub(r"\1 | ", await getting.line()) == "67 B | two"
    status, said = await getting.end("                  | three\n                  | stream-end #stream-end {}\n")
    assert status == 0
    assert re.fullmatch(r"rawstream: 2 pieces, 78 B in [0-9.]+ m?s; longest wait [0-9.]+ m?s\n", said)


async def test_colours_are_for_terminals(serving: Serving, get: Get, monkeypatch: pytest.MonkeyPatch) -> None:
    async def handler(request: Request) -> Stream:
        return Stream(once(Event("\x1b", "tick")), format="sse")

    served = await serving(handler)

    async def shown(terminal: bool, **environment: str) -> str:
        for name in ("NO_COLOR", "TERM"):
            monkeypatch.setenv(name, environment.get(name, ""))
        return await get("--timing", place(served), terminal=terminal).rest()

    assert "\x1b[1;36mtick\x1b[0m \x1b[31m\\x1b\x1b[0m\n" in await shown(True)
    assert re.match(r"\x1b\[(?:2|32|33)m *[0-9.]+ m?s\x1b\[0m \x1b\[2m", await shown(True))
    for plain in (shown(True, NO_COLOR="1"), shown(True, TERM="dumb")):
        assert "| tick \\x1b\n" in await plain
    assert "| tick \x1b\n" in await shown(False), "to a pipe, what was sent"


async def once(item: Any) -> AsyncIterator[Any]:
    yield item


async def test_gzip_is_taken_if_it_is_asked_for_and_undone(serving: Serving, get: Get) -> None:
    fed = Fed(format="text", gzip=True)
    getting = get("--compressed", place(await serving(fed)))
    fed.feed("one")
    await getting.expect("one")
    fed.feed(None)
    assert await getting.end() == (0, "")
    assert fed.requests[0].headers.get("accept-encoding") == "gzip"


# -- what is asked -----------------------------------------------------------------------------------------------------

FORM, JSON = "application/x-www-form-urlencoded", "application/json"


@pytest.mark.parametrize(
    ("arguments", "method", "content_type", "body"),
    [
        ([], "GET", None, b""),
        (["-X", "DELETE"], "DELETE", None, b""),
        (["-d", '{"n": 1}'], "POST", JSON, b'{"n": 1}'),
        (["-d", "a=1", "-d", "b=2"], "POST", FORM, b"a=1&b=2"),
        (["-d", "@body.json", "-X", "PUT"], "PUT", JSON, b'["\xe4\xb8\x80"]\n'),
        (["-d", "x", "-H", "content-type: text/plain"], "POST", "text/plain", b"x"),
        (["-d", ""], "POST", FORM, b""),
    ],
)
async def test_a_body_makes_a_post_of_json_or_of_a_form(
    serving: Serving, get: Get, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    arguments: list[str], method: str, content_type: str | None, body: bytes,
) -> None:  # fmt: skip
    (tmp_path / "body.json").write_bytes(b'["\xe4\xb8\x80"]\n')
    monkeypatch.chdir(tmp_path)
    fed = Fed()
    getting = get(*arguments, place(await serving(fed)), "-H", "X-Mine: a: b")
    fed.feed(None)
    assert await getting.end("[]") == (0, "")
    assert (fed.requests[0].method, fed.bodies) == (method, [body])
    assert fed.requests[0].headers.get("content-type") == content_type
    assert fed.requests[0].headers.get("x-mine") == "a: b"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["ftp://x"], "argument URL: a URL begins with http:// or https://, not ftp://"),
        ([":1", "-H", "no colon"], "argument -H/--header: a header is \"Name: value\", not 'no colon'"),
        ([":1", "-m", "0"], "argument -m/--max-time: a time is a number of seconds above 0, not '0'"),
        ([":1", "-m", "soon"], "argument -m/--max-time: a time is a number of seconds above 0, not 'soon'"),
        ([":1", "--raw", "--items"], "argument --items: not allowed with argument --raw"),
        ([":1", "-d", "@no/such"], "argument -d/--data: @no/such cannot be read: No such file or directory"),
        ([], "the following arguments are required: URL"),
        ([":1", "--speed", "x"], "unrecognized arguments: --speed x"),
    ],
)
async def test_arguments_that_cannot_be_are_told_in_one_line(get: Get, arguments: list[str], line: str) -> None:
    told = f"python -m rawstream get: {line} (--help shows all options)\n"
    assert await get(*arguments).end() == (2, told)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([":1", "--raw", "--timing"],
         "--raw and --timing exclude each other: one changes nothing, the other writes between"),
        ([":1", "--resume", "-i"],
         "--resume shows events, from more than one response: --text, --raw and --include do not go with it"),
        ([":1", "--resume", "--raw"],
         "--resume shows events, from more than one response: --text, --raw and --include do not go with it"),
        ([":0"], "a port is 1 to 65535, in 'http://localhost:0'"),
    ],
)  # fmt: skip
async def test_what_does_not_go_together_is_told(get: Get, arguments: list[str], line: str) -> None:
    assert await get(*arguments).end() == (2, f"rawstream: {line}\n")


async def test_a_unix_socket_is_connected_to(serving: Serving, get: Get, tmp_path: Path) -> None:
    fed = Fed()
    await serving(fed, host=None, unix=tmp_path / "a.sock")
    getting = get("--unix-socket", str(tmp_path / "a.sock"), "/path")
    fed.feed(None)
    assert await getting.end("[]") == (0, "")
    assert fed.requests[0].path == "/path"
    assert fed.requests[0].headers.get("host") == "localhost"


async def test_a_certificate_is_checked_unless_it_is_told_not_to_be(serving: Serving, get: Get, tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)

    async def handler(request: Request) -> Response:
        return Response.text("hello\n")

    url = f"https://{place(await serving(handler, ssl=context))}"
    assert await get("-k", url).end("hello\n") == (0, "")
    assert await get("--cacert", str(tmp_path / "authority.pem"), url).end("hello\n") == (0, "")
    status, said = await get(url).end()
    assert status == 3
    assert said.startswith("rawstream: no TLS with localhost port ")
    assert said.endswith("; --cacert FILE trusts an authority of your own, and -k any certificate\n")
    assert said.count("\n") == 1


# -- how it ends -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "fields", "line"),
    [
        (404, [], "404 Not Found"),
        (503, [], "503 Service Unavailable"),
        (302, [("Location", "http://[")], "302 Found, to http://[: a redirect is not followed"),
    ],
)
async def test_another_status_than_success_is_told_with_the_body_shown(
    serving: Serving, get: Get, status: int, fields: list[tuple[str, str]], line: str
) -> None:
    async def handler(request: Request) -> Response:
        return Response(status, [("Content-Type", "text/plain"), *fields], b"why\n")

    getting = get("--events", place(await serving(handler)))
    assert await getting.end("why\n") == (1, f"rawstream: {line}\n")


async def test_where_a_redirect_leads_is_told_in_full(serving: Serving, get: Get) -> None:
    async def handler(request: Request) -> Response:
        return Response(302, [("Location", "../there?x")])

    url = place(await serving(handler))
    told = f"rawstream: 302 Found, to http://{url}/there?x: a redirect is not followed\n"
    assert await get(f"{url}/here/now").end() == (1, told)


@pytest.mark.parametrize("terminal", [False, True])
async def test_a_stream_that_is_cut_is_told_after_what_came(
    serving: Serving, get: Get, failures: Failures, terminal: bool
) -> None:
    fed = Fed(format="json")
    getting = get(place(await serving(fed, timeouts=Timeouts(linger=0, grace=60))), terminal=terminal)
    fed.feed("one")
    fed.feed(2)
    await getting.expect('"one"\n' if terminal else '["one",2')
    fed.feed(RuntimeError("boom"))
    status, said = await getting.end("2\n" if terminal else "")
    assert status == 4
    assert re.fullmatch(r"rawstream: the connection .+ before the response .+\n", said)
    assert str(failures.take()) == "boom"


async def test_no_answer_is_told_in_a_line(get: Get, serving: Serving) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    status, said = await get(f"localhost:{port}").end()
    assert status == 3
    assert said.startswith(f"rawstream: no connection to localhost port {port}: ")
    assert said.count("\n") == 1
    served = await serving(Fed())
    status, said = await get(f"https://{place(served)}").end()
    assert status == 3
    assert said.startswith("rawstream: no TLS with localhost port ")
    assert said.endswith(": what answers there speaks none (http://, perhaps)\n")


async def test_max_time_ends_what_has_no_end(serving: Serving, get: Get) -> None:
    fed = Fed(format="text")
    fed.feed("x")
    getting = get("-m", "0.3", place(await serving(fed)), terminal=True)
    status, said = await getting.end("x\n")
    assert (status, said) == (5, "rawstream: --max-time of 300 ms was over\n")
    await fed.closed.wait()


async def endless(request: Request) -> AsyncIterator[str]:
    """More than anything holds."""
    while True:
        yield "x" * 999 + "\n"  # no multiple of what a pipe has room for


@pytest.mark.parametrize("terminal", [False, True])
async def test_max_time_ends_it_while_nobody_reads_its_output(serving: Serving, get: Get, terminal: bool) -> None:
    getting = get("--text", "-m", "0.3", place(await serving(endless)), terminal=terminal)
    assert await getting.ended() == (5, "rawstream: --max-time of 300 ms was over\n")


async def test_a_slow_reader_gets_all_of_it(serving: Serving, get: Get) -> None:
    body = b"".join(b"%d\n" % number for number in range(200_000))

    async def handler(request: Request) -> Response:
        return Response(200, [("Content-Type", "text/plain")], body)

    getting = get(place(await serving(handler)))
    await getting.full()
    assert await getting.end(body.decode()) == (0, "")


@pytest.mark.parametrize(
    ("arguments", "printed"),
    [(["--raw"], PACKED), (["--raw", "--compressed"], PACKED), ([], b"text"), (["--compressed"], b"text")],
)
async def test_raw_leaves_a_content_encoding_which_is_undone_else(
    canned: MakeCanned, get: Get, arguments: list[str], printed: bytes
) -> None:
    getting = get(*arguments, canned(answer(PACKED, "Content-Encoding: gzip")).url)
    await getting.expect(printed)
    assert await getting.end() == (0, "")


async def test_an_encoding_that_is_not_known_can_be_printed_raw_and_is_told_else(canned: MakeCanned, get: Get) -> None:
    server = canned(answer(b"\x8b\x00brotli", "Content-Encoding: br"))
    getting = get("--raw", server.url)
    await getting.expect(b"\x8b\x00brotli")
    assert await getting.end() == (0, "")
    assert await get(server.url).end() == (
        7,
        "rawstream: the body's Content-Encoding is br, and only gzip and deflate are undone here: "
        "--raw prints the bytes as they come\n",
    )


async def test_a_body_that_is_not_compressed_as_it_says_is_told_behind_what_was_right(
    canned: MakeCanned, get: Get
) -> None:
    """If only its end is missing, it was cut."""
    getting = get(canned(answer(PACKED + b"text", "Content-Encoding: gzip")).url)
    assert await getting.end("text") == (7, "rawstream: the response has bytes behind the end of its gzip\n")
    getting = get(canned(answer(PACKED[:-1], "Content-Encoding: gzip")).url)
    assert await getting.end("text") == (4, "rawstream: the response ends before its gzip does\n")


@pytest.mark.parametrize(
    ("form", "kind", "body", "printed"),
    [
        ("events", "text/html", b"<p>", "<p>"),
        ("events", "text/plain", b"data: a\n\n", "data: a\n\n"),
        ("events", "application/json", b"[1,2]", "1\n2\n"),
        ("items", "text/html", b"<p>", "<p>"),
    ],
)
async def test_what_was_not_asked_for_is_told(
    canned: MakeCanned, get: Get, form: str, kind: str, body: bytes, printed: str
) -> None:
    getting = get(f"--{form}", canned(answer(body, kind=kind)).url)
    assert await getting.end(printed) == (0, f"rawstream: no {form} were sent, but {kind}\n")


async def test_resume_needs_an_event_stream(canned: MakeCanned, get: Get) -> None:
    getting = get("--resume", canned(answer(b"<p>", kind="text/html")).url)
    line = "rawstream: a response of type text/html has no events: those are in text/event-stream\n"
    assert await getting.end() == (7, line)


async def test_resume_goes_on_after_a_cut_until_the_stream_ends(serving: Serving, get: Get, failures: Failures) -> None:
    fed = Fed(format="sse")
    served = await serving(fed, timeouts=Timeouts(linger=0, grace=60))
    getting = get("--resume", place(served), terminal=True)
    fed.feed(Event("one", id="1", retry=1))
    await getting.expect("#1 retry=1 one\n")
    fed.feed(RuntimeError("boom"))
    await getting.line()  # the stream-error
    fed.feed(Event("two\nlines", "tick", id="2"))
    await getting.expect("tick #2 two\n  lines\n")
    fed.feed(None)
    status, said = await getting.end("stream-end #stream-end {}\n")
    assert status == 0
    assert re.fullmatch(r"rawstream: the connection ended: again in [0-9.]+ m?s\n", said)
    assert [request.last_event_id for request in fed.requests] == [None, "1"]
    assert str(failures.take()) == "boom"


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [([], "data: one\nid: 8\n\nevent: stream-end\ndata: {}\nid: stream-end\n\n"), (["--items"], "one\n")],
)
async def test_resume_begins_where_it_is_told_to_and_goes_to_a_pipe_as_events(
    serving: Serving, get: Get, arguments: list[str], shown: str
) -> None:
    fed = Fed(format="sse")
    getting = get("--resume", *arguments, "-H", "Last-Event-ID: 7", place(await serving(fed)))
    fed.feed(Event("one", id="8"))
    fed.feed(None)
    assert await getting.end(shown) == (0, "")
    assert [request.headers.get_all("last-event-id") for request in fed.requests] == [["7"]]


async def test_resume_ends_where_there_is_nothing_to_go_on_with(serving: Serving, get: Get) -> None:
    async def handler(request: Request) -> Response:
        return Response(404)

    status, said = await get("--resume", place(await serving(handler))).end()
    assert status == 1
    assert said.startswith("rawstream: ")
    assert "404 Not Found" in said
    assert said.count("\n") == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has it")
async def test_output_that_cannot_be_written_is_told(
    serving: Serving, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    served = await serving(Fed(format="sse"))
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert await asyncio.to_thread(cli.main, ["get", "-i", place(served)]) == 6
    assert capfd.readouterr().err == "rawstream: the output cannot be written: No space left on device\n"


# -- a process of its own ----------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def process(output: Output, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """`python -m rawstream get`, as a user starts it. Who reads its output to the end lets go of `output.other`."""
    running = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "rawstream", "get", *arguments,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error", "TERM": "xterm"},
        stdin=subprocess.DEVNULL, stdout=output.other, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        yield running
    finally:
        with contextlib.suppress(ProcessLookupError):
            running.kill()
        await running.wait()


async def ended(running: asyncio.subprocess.Process) -> tuple[int, str]:
    """Its exit status, and what it said on stderr."""
    _, said = await running.communicate()
    assert running.returncode is not None
    return running.returncode, said.decode()


async def test_ctrl_c_ends_it_by_its_signal_without_a_word(serving: Serving) -> None:
    fed = Fed(format="text")
    served = await serving(fed)
    output = Output(terminal=True)
    async with process(output, place(served)) as running:
        fed.feed("typed")
        await output.expect("typed")
        os.close(output.other)
        running.send_signal(signal.SIGINT)
        assert await output.rest() == "\n"
        assert await ended(running) == (-signal.SIGINT, ""), "what a shell calls 130, and ends its loops for"
    await fed.closed.wait()
    output.close()


async def test_ctrl_c_ends_it_while_nobody_reads_its_output(serving: Serving) -> None:
    """As when `less` shows the first page and is not asked for another."""
    served = await serving(endless)
    output = Output(terminal=False)
    async with process(output, place(served)) as running:
        await output.full()
        running.send_signal(signal.SIGINT)
        assert await ended(running) == (-signal.SIGINT, "")
    os.close(output.other)
    output.close()


async def test_it_ends_with_its_reader_and_not_only_when_there_is_more(serving: Serving) -> None:
    """`get URL | head -1`, with a stream that is quiet from then on: text has no heartbeat."""
    fed = Fed(format="text")
    served = await serving(fed)
    output = Output(terminal=False)
    async with process(output, place(served)) as running:
        fed.feed("one\n")
        await output.expect("one\n")
        os.close(output.other)
        output.close()
        assert await ended(running) == (141, "")
    await fed.closed.wait()


_DEAF = """
import socket, sys, threading
from rawstream.cli import main
socket.getaddrinfo = lambda *arguments, **options: threading.Event().wait()
raise SystemExit(main(["get", "-m", "0.1", "http://name.example"]))
"""


async def test_a_slow_look_up_of_a_name_is_not_waited_for() -> None:
    """It is in a thread, which nobody can cancel and Python would join."""
    running = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _DEAF,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        async with asyncio.timeout(60):
            assert await ended(running) == (5, "rawstream: --max-time of 100 ms was over\n")
    finally:
        with contextlib.suppress(ProcessLookupError):
            running.kill()
        await running.wait()


# -- its page ----------------------------------------------------------------------------------------------------------


def test_the_page_names_every_option_and_every_exit_status() -> None:
    parser = argparse.ArgumentParser()
    add_options(parser)
    page = (ROOT / "docs" / "get.md").read_text("utf-8")
    options = {action.option_strings[-1] for action in parser._actions if action.option_strings} - {"--help"}
    short = {"--request": "-X", "--header": "-H", "--data": "-d", "--include": "-i"}
    assert {option for option in options if f"`{short.get(option, option)}" not in page} == set()
    assert [int(status) for status in re.findall(r"^\| (\d+) \|", page, re.MULTILINE)] == EXIT_STATUSES
    assert all(re.search(rf"\b{status} ", parser.epilog or "") for status in EXIT_STATUSES)


EXIT_STATUSES = [0, 1, 2, 3, 4, 5, 6, 7, 130, 141]
