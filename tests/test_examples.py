"""examples/ does what it says: each program is started by the commands of its docstring, used, and ended by Ctrl-C.

What examples/README.md shows of a program is what these commands print, but for figures that are never the same twice.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import importlib.util
import json
import os
import re
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from processes import Running, running
from redis_server import RedisServer
from support import Failures, Peer, Serving, Steps, absent, get, settle

import rawstream
from rawstream import Event, Request, Router, Stream, errors, fetch

EXAMPLES = Path(__file__).parent.parent / "examples"
PROGRAMS = {path.stem: path for path in sorted(EXAMPLES.glob("*.py"))}
README = (EXAMPLES / "README.md").read_text(encoding="utf-8")

# What differs from run to run. Elsewhere it is the time in the ids of a log.
FIGURES = {
    "tail": r"(?<=^id: )\d+",
    "ticker": r"\d+(\.\d+)?",
    "camera": r"\d+",
    "embed": r'\d+|"[0-9a-f]{8}"',
}

# Their tests begin with what the README shows, and go on with the programs that then run.
USED_FURTHER = {"embed", "jobs", "news", "tail"}

# The programs are processes of their own: on which loop their client runs says nothing of them.
pytestmark = pytest.mark.either_loop


def commands(program: str) -> list[str]:
    """The commands of a program's docstring."""
    docstring = ast.get_docstring(ast.parse(PROGRAMS[program].read_text(encoding="utf-8")))
    assert docstring is not None
    return re.findall(r"^    \$ (.*)$", docstring, re.MULTILINE)


def shown(program: str) -> list[tuple[str, str]]:
    """The commands of a program's part of the README, each with what it prints."""
    part = README.partition(f"\n## {program}.py")[2].partition("\n## ")[0]
    (block,) = re.findall(r"^```console\n(.*?)^```$", part, re.MULTILINE | re.DOTALL)
    return re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block, re.MULTILINE)


class Terminal:
    """Where a user types commands. A port that a command names stands for the free one that the program got."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.ports: dict[str, int] = {}
        self._started = contextlib.ExitStack()
        self.programs: list[Running] = []

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        self._started.close()

    def start(self, command: str, **environment: str) -> Running:
        """A command that goes on in the background: `python ... --port N &`."""
        words = shlex.split(self._here(command.removesuffix("&")))
        while "=" in words[0]:
            name, _, value = words.pop(0).partition("=")
            environment[name] = value
        assert words.pop(0) == "python"
        port = words.index("--port") + 1
        asked, words[port] = words[port], "0"
        with pytest.MonkeyPatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            program = self._started.enter_context(running(start=tuple(words), cwd=self.directory))
        self.ports[asked] = program.port
        self.programs.append(program)
        return program

    def printed(self, command: str, lines: int | None) -> str:
        """What a command prints: so many lines of it, or all, and then it must have ended well."""
        shell = ["sh", "-c", self._here(command)]
        with subprocess.Popen(
            shell, cwd=self.directory, stdout=subprocess.PIPE, text=True, start_new_session=True
        ) as process:
            assert process.stdout is not None
            if lines is None:
                output = process.stdout.read()
                assert process.wait() == 0
                return output
            output = "".join(process.stdout.readline() for _ in range(lines))
            os.killpg(process.pid, signal.SIGKILL)
            return output

    def interrupt(self) -> None:
        """Ctrl-C: all programs end in order, the last one first, and have nothing to say."""
        for program in reversed(self.programs):
            program.signal(signal.SIGINT)
            assert program.end() == (0, "")

    def _here(self, command: str) -> str:
        """The command with the ports of now."""
        for asked, port in self.ports.items():
            command = re.sub(rf"\blocalhost:{asked}\b", f"127.0.0.1:{port}", command)
        return command


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    """In a directory with the examples alone."""
    if shutil.which("curl") is None:
        absent("curl is not installed: `make system-packages` installs it")
    for path in PROGRAMS.values():
        shutil.copy(path, tmp_path)
    with Terminal(tmp_path) as terminal:
        yield terminal


def url(program: Running, target: str = "/") -> str:
    return f"http://127.0.0.1:{program.port}{target}"


@contextlib.asynccontextmanager
async def events(url: str, last_event_id: str = "") -> AsyncIterator[AsyncIterator[Event]]:
    """The events of one response, without coming back."""
    headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": last_event_id} if last_event_id else {})
    async with fetch(url, headers=headers) as response:
        yield response.events()


async def some(stream: AsyncIterator[Event], count: int) -> list[tuple[str | None, str]]:
    """The names and the data of the next events."""
    return [(event.event, event.data) for event in [await anext(stream) for _ in range(count)]]


async def refusal(url: str, **options: Any) -> tuple[int, str]:
    """The status and the text of an answer that is no success."""
    async with fetch(url, check=False, **options) as response:
        return response.status, (await response.body()).decode().strip()


# -- all of them -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_has_at_most_100_lines_and_needs_only_public_names(program: str) -> None:
    text = PROGRAMS[program].read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 100
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            assert {name.name.split(".")[0] for name in node.names} <= sys.stdlib_module_names
        elif isinstance(node, ast.ImportFrom) and node.module == "rawstream":
            assert {name.name for name in node.names} <= set(rawstream.__all__)
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None
            assert node.module.split(".")[0] in sys.stdlib_module_names or node.module == "rawstream.channels.http"


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_readme_lists_a_program_links_it_and_shows_the_commands_of_its_docstring(program: str) -> None:
    assert f"\n| [{program}.py](#{program}py) |" in README
    assert f"\nThe program: [`{program}.py`]({program}.py).\n" in README
    assert [command for command, _ in shown(program)] == commands(program)


def masked(program: str, output: str) -> str:
    """Without the figures that differ from run to run."""
    return re.sub(FIGURES.get(program, r"\b\d{13}(?=-\d)"), "~", output.rstrip("\n"), flags=re.MULTILINE)


def as_shown(program: str, terminal: Terminal) -> list[Running]:
    """Type the commands that the README shows of a program; they print what it shows. The programs that now run."""
    for command, output in shown(program):
        if command.startswith("redis-server "):
            continue  # there is one of the tests' own
        if command.endswith(" &"):
            terminal.start(command)
            continue
        begun = output.removesuffix("...\n")
        printed = terminal.printed(command, None if begun == output else begun.count("\n"))
        assert masked(program, printed) == masked(program, begun), command
    return terminal.programs


@pytest.mark.parametrize("program", sorted(PROGRAMS.keys() - USED_FURTHER))
def test_the_commands_print_what_the_readme_shows(program: str, terminal: Terminal) -> None:
    as_shown(program, terminal)
    terminal.interrupt()


# -- each of them ------------------------------------------------------------------------------------------------------


class StandIn:
    """An OpenAI-compatible API whose tokens the test gives one by one; anything else than a str is sent as it is."""

    def __init__(self) -> None:
        self.tokens: asyncio.Queue[Any] = asyncio.Queue()
        self.asked: list[tuple[Any, str | None]] = []
        self.steps = Steps()
        self.router = Router()
        self.router.post("/v1/chat/completions")(self.completions)

    async def completions(self, request: Request) -> Stream:
        asked = await request.json()
        self.asked.append((asked, request.headers.get("authorization")))
        if asked["messages"][-1]["content"] == "too many":
            raise errors.HTTPError(429, "slow down", [("Retry-After", "1")])
        return Stream(self.events(), format="bytes", headers={"Content-Type": "text/event-stream"})

    async def events(self) -> AsyncIterator[bytes]:
        try:
            while (token := await self.tokens.get()) is not None:
                if isinstance(token, Exception):
                    raise token
                if isinstance(token, str):
                    token = {"choices": [{"index": 0, "delta": {"content": token}}]}
                yield b"data: " + json.dumps(token).encode() + b"\n\n"
        finally:
            self.steps("over")


def talk(text: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}]}


@pytest.fixture
async def api(serving: Serving) -> tuple[StandIn, str]:
    """A stand-in, and its base URL."""
    api = StandIn()
    served = await serving(api.router)
    return api, "http://{}:{}/v1".format(*served.server.addresses[0])


async def test_chat_relays_a_token_while_the_next_is_made_and_who_leaves_ends_the_request_to_the_api(
    terminal: Terminal, api: tuple[StandIn, str]
) -> None:
    model, base_url = api
    command = commands("chat")[1].partition(" ")[2]
    chat = terminal.start(command, OPENAI_BASE_URL=base_url, OPENAI_API_KEY="secret", OPENAI_MODEL="stand-in")
    asking = fetch(url(chat, "/chat"), json=talk("Hello"), headers={"Accept": "text/plain"})
    await model.tokens.put({"choices": [{"index": 0, "delta": {"role": "assistant", "content": None}}]})
    await model.tokens.put("这")
    async with asking as response:
        text = response.text()
        assert await anext(text) == "这"
        await model.tokens.put("是")
        assert await anext(text) == "是"
        assert model.steps.done == []
    await model.steps.reach("over")
    assert model.asked == [({"model": "stand-in", "stream": True, **talk("Hello")}, "Bearer secret")]
    terminal.interrupt()


async def test_chat_tells_what_fails_by_a_status_before_the_first_token_and_in_the_stream_after_it(
    terminal: Terminal, api: tuple[StandIn, str], failures: Failures
) -> None:
    model, base_url = api
    chat = terminal.start(commands("chat")[1].partition(" ")[2], OPENAI_BASE_URL=base_url)
    said = (502, "502 Bad Gateway: the model's API failed")
    assert await refusal(url(chat, "/chat"), json=talk("too many")) == said
    assert model.asked[0][1] is None, "there is no key"
    headers = {"Accept": "application/x-ndjson"}
    lost = RuntimeError("lost")
    for ending in (lost, None, {"error": {"message": "out of memory"}}):  # cut, ended without [DONE], told
        await model.tokens.put("Hello")
        async with fetch(url(chat, "/chat"), json=talk("Hi"), headers=headers) as response:
            items = response.items()
            assert await anext(items) == "Hello"
            await model.tokens.put(ending)
            with pytest.raises(errors.StreamFailed, match="the model's API failed"):
                await anext(items)
    assert failures.take() is lost
    assert (await refusal(url(chat, "/chat"), json=[]))[0] == 422
    chat.signal(signal.SIGINT)
    status, said_by_it = chat.end()
    assert status == 0
    assert [line.split()[0] for line in said_by_it.splitlines()] == ["429", "the", "it", '{"error":']


async def test_tail_follows_a_file_through_rotation_and_truncation(terminal: Terminal) -> None:
    (program,) = as_shown("tail", terminal)
    path = terminal.directory / "app.log"
    path.write_text("one\ntwo\nthree\nunfin")
    async with events(url(program, "/?lines=2")) as lines, events(url(program)) as news:
        two = await anext(lines)
        assert two.data == "two"
        assert await some(lines, 1) == [(None, "three")]
        with path.open("a") as log:
            log.write("ished\n")
            log.flush()
            assert await some(lines, 1) == await some(news, 1) == [(None, "unfinished")]
            path.rename(path.with_name("app.log.1"))
            path.touch()  # as logrotate does, before it tells the writer
            log.write("late\n")
            log.flush()
            assert await some(lines, 1) == await some(news, 1) == [(None, "late")]
            log.write("last")
        path.write_text("a line of the new file\n")
        turned = [(None, "last"), ("rotated", "app.log"), (None, "a line of the new file")]
        assert await some(lines, 3) == await some(news, 3) == turned
        async with events(url(program), two.id or "") as again:
            assert await some(again, 6) == [(None, "three"), (None, "unfinished"), (None, "late"), *turned]
        path.write_text("short\n")  # which truncates it first
        assert await some(lines, 2) == [("restart", "app.log"), (None, "short")]
    terminal.interrupt()


async def test_tail_tells_a_reader_that_its_place_is_gone_and_refuses_what_is_none(terminal: Terminal) -> None:
    path = terminal.directory / "app.log"
    path.write_text("one\ntwo\n")
    path.with_name("app.log.current").symlink_to("nowhere")  # among the files that it looks through
    program = terminal.start(commands("tail")[1])
    inode = path.stat().st_ino
    for place in (f"{inode}-3", f"{inode}-99", f"{inode + 1}-0"):  # within a line, behind the end, another file's
        async with events(url(program), place) as lines:
            assert await some(lines, 3) == [("restart", "app.log"), (None, "one"), (None, "two")]
    assert await refusal(url(program), headers={"Last-Event-ID": "x"}) == (400, "400 Bad Request: no id of a line: x")
    assert (await refusal(url(program, "/?lines=-1")))[0] == 400
    path.unlink()
    assert await refusal(url(program)) == (404, "404 Not Found: there is no app.log")
    terminal.interrupt()


async def test_tail_sends_a_long_line_in_parts_between_characters_and_goes_on_at_the_beginning_of_one(
    terminal: Terminal,
) -> None:
    path = terminal.directory / "app.log"
    long = "a" + "é" * 40_000  # its 65536th byte is the first one of a character
    path.write_text("one\n")
    program = terminal.start(commands("tail")[1])
    async with events(url(program)) as lines:
        with path.open("a") as log:
            log.write(f"{long}\ntwo\n{long}")
        path.rename(path.with_name("app.log.1"))
        path.write_text("a new file\n")
        seen = [await anext(lines) for _ in range(7)]
    begin, rest, two, last, end, *_ = seen
    assert begin.data + rest.data == last.data + end.data == long
    assert (two.data, seen[5].event, seen[6].data) == ("two", "rotated", "a new file")
    assert begin.id is last.id is end.id is None, "where only a part has come"
    for place, after in ((rest.id, seen[2:]), (two.id, seen[3:])):
        async with events(url(program), place or "") as again:
            assert [await anext(again) for _ in after] == after
    terminal.interrupt()


async def test_a_job_is_read_on_where_its_reader_was_and_begun_once(terminal: Terminal) -> None:
    (program,) = as_shown("jobs", terminal)
    begin = {"json": {"below": 1_000_000}, "headers": {"Idempotency-Key": "k"}}
    found = []
    for _ in range(2):
        async with fetch(url(program, "/jobs"), **begin) as response:
            found.append((response.status, json.loads(await response.body())["location"]))
    (_, job), _ = found
    assert found == [(201, job), (200, job)]
    async with events(url(program, job)) as watched:
        first = [await anext(watched) for _ in range(3)]
    async with events(url(program, job), first[-1].id or "") as watched:
        rest = [event async for event in watched]
    async with events(url(program, job)) as late:
        assert [event async for event in late] == first + rest
    assert [event.event for event in first + rest] == [*["progress"] * 10, "result", "stream-end"]
    assert json.loads(rest[-2].data) == {"below": 1_000_000, "primes": 78498}
    terminal.interrupt()


async def test_a_job_is_stopped_for_all_who_watch_it(terminal: Terminal) -> None:
    program = terminal.start(commands("jobs")[0])
    async with fetch(url(program, "/jobs"), json={"below": 10**10}) as response:
        job = response.headers["location"]
    async with events(url(program, job)) as one, events(url(program, job)) as another:
        async with fetch(url(program, job), method="DELETE"):
            pass
        for watched in (one, another):
            assert [(event.event, event.data) async for event in watched] == [("stream-end", '{"stopped":true}')]
    assert (await refusal(url(program, "/jobs"), json={"below": "many"}))[0] == 422
    terminal.interrupt()


async def slow_and_fast(
    program: Running, target: str, numbers: re.Pattern[bytes], enough: int
) -> tuple[list[int], int]:
    """The numbers that a reader gets that read nothing while another read `enough` bytes, and the other's last."""
    slow = await Peer.connect(("127.0.0.1", program.port), receive_buffer=4096)
    await slow.send(get(target))
    head = await slow.until(b"\r\n\r\n")
    async with fetch(url(program, target)) as response:
        here, last = b"", 0
        async for piece in response.chunks():
            here = here[-100:] + piece
            last = max([last, *map(int, numbers.findall(here))])
            if response.received > enough:
                break
    data = head
    while max(map(int, numbers.findall(data)), default=0) < last:
        data += await slow.until(b"\r\n")
    slow.close()
    return [int(number) for number in numbers.findall(data)], last


async def test_a_slow_reader_of_the_ticker_gets_the_newest_prices_and_no_backlog(terminal: Terminal) -> None:
    program = terminal.start(commands("ticker")[0].replace("3 --every 0.2", "500 --every 0.001"))
    numbers, last = await slow_and_fast(program, "/prices", re.compile(rb'"n":(\d+),'), 180_000)
    assert numbers == sorted(numbers)
    before, after = max(pairwise(numbers), key=lambda pair: pair[1] - pair[0])
    assert after >= last, "it is sent nothing that was old when it began to read"
    assert after - before > 5
    assert (await refusal(url(program, "/prices/none")))[0] == 404
    terminal.interrupt()


async def test_a_slow_reader_of_the_camera_gets_the_newest_frame(terminal: Terminal) -> None:
    program = terminal.start(commands("camera")[0].replace("--fps 10", "--fps 1000"))
    numbers, last = await slow_and_fast(program, "/camera", re.compile(rb"\r\nFrame: (\d+)\r\n"), 400_000)
    before, after = max(pairwise(numbers), key=lambda pair: pair[1] - pair[0])
    assert after >= last
    assert after - before > 10
    terminal.interrupt()


def readings(path: Path, rows: int) -> Path:
    """The example's database with so many rows."""
    export = module("export")
    export.make_example(path, rows)
    return path


def module(program: str) -> Any:
    """A program as a module."""
    spec = importlib.util.spec_from_file_location(program, PROGRAMS[program])
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


async def test_an_export_has_all_rows_and_is_compressed_for_who_asks(terminal: Terminal) -> None:
    program = terminal.start(commands("export")[0].replace("100000", "5000"))
    for encoding in ("identity", "gzip"):
        async with fetch(url(program, "/readings"), headers={"Accept-Encoding": encoding}) as response:
            assert response.headers.get("content-encoding", "identity") == encoding
            ids = [row["id"] async for row in response.items()]
        assert ids == [*range(1, 5001)]
    terminal.interrupt()


async def test_an_export_lets_others_write_when_its_reader_leaves(terminal: Terminal) -> None:
    database = readings(terminal.directory / "example.db", 100_000)
    program = terminal.start(commands("export")[0])
    peer = await Peer.connect(("127.0.0.1", program.port), receive_buffer=4096)
    await peer.send(get("/readings"))
    await peer.until(b'{"id":1,')
    impatient = contextlib.closing(sqlite3.connect(database, timeout=0))
    with impatient as writer, pytest.raises(sqlite3.OperationalError, match="locked"):
        writer.execute("BEGIN EXCLUSIVE")
    peer.close()
    with contextlib.closing(sqlite3.connect(database, timeout=60)) as writer:
        writer.execute("BEGIN EXCLUSIVE")
        writer.rollback()
    terminal.interrupt()


async def test_an_export_fetches_no_more_rows_than_its_reader_takes(
    tmp_path: Path, serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    export, database, total = module("export"), readings(tmp_path / "example.db", 30_000), 30_000
    fetched = 0

    class Counting(sqlite3.Cursor):
        def fetchmany(self, size: int | None = 1) -> list[Any]:
            nonlocal fetched
            rows = super().fetchmany(size)
            fetched += len(rows)
            return rows

    class Connection(sqlite3.Connection):
        def cursor(self, factory: Any = Counting) -> Any:
            return super().cursor(factory)

    monkeypatch.setattr(export, "connect", lambda path: sqlite3.connect(path, factory=Connection))

    async def handler(request: Request) -> Stream:
        return Stream(export.rows(database, "readings"), "jsonl", flush=rawstream.Every())

    served = await serving(handler)
    peer = await served.connect(receive_buffer=4096)
    await peer.send(get())
    received = 0
    while received < total:
        received += (await peer.piece()).count(b"}")
        await settle()
        assert fetched - received < 10_000, "what buffers hold, and some batches"
    assert fetched == total


async def test_news_that_was_published_in_one_process_is_read_on_in_another(
    terminal: Terminal, redis_server: RedisServer
) -> None:
    terminal.ports["6379"] = redis_server.port
    one, other = as_shown("news", terminal)
    async with events(url(other, "/news")) as read:
        async with fetch(url(one, "/news"), json={"title": "first"}) as response:
            assert response.status == 201
        first = await anext(read)
        assert first.data == '{"title":"first"}'
    for _ in range(2):  # it may be sent again
        async with fetch(url(one, "/news"), json={"title": "second"}, headers={"Idempotency-Key": "k"}) as response:
            assert response.status == 201
    async with events(url(one, "/news"), first.id or "") as read, events(url(other, "/news"), first.id or "") as same:
        async with fetch(url(other, "/news"), json={"title": "third"}):
            pass
        rest = [(None, '{"title":"second"}'), (None, '{"title":"third"}')]
        assert await some(read, 2) == await some(same, 2) == rest
    assert (await refusal(url(one, "/news"), json={}))[0] == 422
    terminal.interrupt()


async def test_an_interrupted_program_finishes_its_work_and_tells_all_of_it_before_its_server_closes(
    terminal: Terminal,
) -> None:
    (program,) = as_shown("embed", terminal)
    async with events(url(program, "/work")) as watched:
        seen = [await anext(watched) for _ in range(4)]
        program.signal(signal.SIGINT)
        seen += [event async for event in watched]
    names = [event.event for event in seen]
    end = names.index("stream-end")
    assert set(names[:end]) == {None}
    assert names[end + 1 :] == []
    blocks = [json.loads(event.data)["block"] for event in seen[:end]]
    places = [int((event.id or "").partition("-")[2]) for event in seen]
    assert places == [*range(places[0], places[-1] + 1)], "nothing is missing"
    assert max(blocks) == places[-1] - 1, "all that was begun is done"
    assert program.end() == (0, "")
