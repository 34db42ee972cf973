"""The soak and slowhttptest: what they call a failure, clients that notice one, and small runs of the real thing."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import os
import re
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from support import absent

from benchmarks import cli, slowhttp
from benchmarks.answer import WrongAnswer
from benchmarks.process import Server
from benchmarks.slowhttp import MODES, Mode
from benchmarks.soak import report
from benchmarks.soak.client import Client, get
from benchmarks.soak.clients import KINDS, Kind, refusal
from benchmarks.soak.run import Tally, at_rest, left_over, state, visit, visits

CORE = min(os.sched_getaffinity(0))
SWIFT = [kind for kind in KINDS if kind.group != "slow"]


# -- what is a failure -------------------------------------------------------------------------------------------------

AT_REST = {"memory_bytes": 30_000_000, "objects": 20_000, "smuggled": 0}
NOTHING: dict[str, Any] = {"tasks": {}, "generators": {}, "sockets": 0}


def result() -> dict[str, Any]:
    """A run in which everything was right."""
    tally = Tally()
    for kind in KINDS:
        tally.outcomes[kind.name]["complete"] += 7
    part = {
        "warm_up_seconds": 2.0,
        "seconds": 6.0,
        "clients": tally.as_json(),
        "began": {**AT_REST, "left": NOTHING},
        "under_load": [{**AT_REST, "memory_bytes": 33_000_000}],
        "ended": {**AT_REST, "memory_bytes": 31_000_000, "left": NOTHING},
        "last_error": "",
    }
    return {
        "loops": {"asyncio": copy.deepcopy(part)},
        "versions": {"python": "3.11.7", "uvloop": None},
        "machine": {"processor": "a processor", "cores": 2},
        "failures": [],
    }


def test_a_run_in_which_everything_is_right_passes() -> None:
    passed = result()
    assert report.failures(passed) == []
    text = report.tables(passed)
    assert "\nPassed.\n" in text
    assert "soak: asyncio, 6 s after 2 s of warm-up" in text
    assert "asyncio: memory, MB       30.0             33.0        31.0  +3.3%  0, 0, 0" in text
    assert "  events to the end                 7      0  7 complete" in text


@pytest.mark.parametrize(
    ("where", "value", "line"),
    [
        (("clients", "smuggling", "wrong"), {"was not refused": 2}, "2 × bad client (smuggling): was not refused"),
        (("clients", "smuggling", "outcomes"), {}, "no bad client came (smuggling)"),
        (("ended", "objects"), 21_001, "objects grew from 20,000 to 21,001, by 5.0% (allowed: 5%)"),
        (
            ("began", "memory_bytes"),
            25_000_000,
            "memory_bytes grew from 25,000,000 to 31,000,000, by 24.0% (allowed: 5%)",
        ),
        (("ended", "left"), NOTHING | {"sockets": 1}, "sockets left after all clients had (the end): 1"),
        (("began", "left"), NOTHING | {"tasks": {"a": 2}}, "tasks left after all clients had (the warm-up): {'a': 2}"),
        (("ended", "smuggled"), 1, "1 smuggled requests were served"),
        (("last_error",), "OSError: no", "the server logged: OSError: no"),
    ],
)
def test_each_thing_that_is_wrong_fails_the_run(where: tuple[str, ...], value: object, line: str) -> None:
    failed = result()
    part = failed["loops"]["asyncio"]
    for key in where[:-1]:
        part = part[key]
    part[where[-1]] = value
    assert report.failures(failed) == [f"asyncio: {line}"]
    failed["failures"] = report.failures(failed)
    assert f"FAILED\n  asyncio: {line}" in report.tables(failed)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["soak", "--seconds", "7"], "'7' is not a number of seconds of at least 8"),
        (["soak", "--loop", "trio"], "invalid choice: 'trio'"),
        (["soak", "--server-core", "9999"], "there is no core 9999"),
        (["slowhttptest", "--connections", "many"], "invalid int value: 'many'"),
    ],
)
def test_a_wrong_option_is_one_clear_line(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2
    assert words in capsys.readouterr().err.splitlines()[-1]


# -- clients that notice -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.group in ("good", "bad")], ids=lambda kind: kind.name)
def test_a_client_notices_a_server_that_says_ok_to_everything(kind: Kind) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(65536)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    async def run() -> Tally:
        tally = Tally()
        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            await visit(kind, server.sockets[0].getsockname()[1], tally)
        return tally

    tally = asyncio.run(run())
    assert tally.outcomes[kind.name].total() == 0
    assert tally.wrong[kind.name].total() == 1


def test_a_refusal_is_one_answer_with_a_status_that_refuses() -> None:
    bad = b"HTTP/1.1 400 Bad Request\r\n\r\n"
    assert refusal(bad) == "refused 400"
    assert refusal(b"") == "closed"
    for answer in (b"HTTP/1.1 200 OK\r\n\r\n", bad + bad, b"garbage"):
        with pytest.raises(WrongAnswer):
            refusal(answer)


# -- the real thing, small ---------------------------------------------------------------------------------------------


@pytest.fixture(params=["asyncio", "uvloop"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with Server("benchmarks.soak.server", ("--loop", request.param), CORE) as server:
        yield server


def test_after_a_second_of_visits_every_answer_was_right_and_nothing_is_left(server: Server) -> None:
    async def run() -> tuple[Tally, Any]:
        tally = Tally()
        fresh = await state(server.port)
        await visits(server.port, 1.0, tally, SWIFT)
        return tally, await at_rest(server.port, fresh)

    tally, rest = asyncio.run(run())
    assert {name: dict(wrong) for name, wrong in tally.wrong.items() if wrong} == {}
    assert all(tally.outcomes[kind.name] for kind in SWIFT)
    assert rest["left"] == NOTHING
    assert rest["smuggled"] == 0
    assert server.last_error() == ""


def test_what_is_open_is_seen(server: Server) -> None:
    async def run() -> Any:
        fresh = await state(server.port)
        with await Client.connect(server.port) as stays:
            await stays.send(get("/flood"))
            await stays.read()
            return left_over(await state(server.port), fresh)

    left = asyncio.run(run())
    assert list(left.pop("tasks").values()) == [1]
    assert left == {"generators": {"flood": 1}, "sockets": 1}


# -- slowhttptest ------------------------------------------------------------------------------------------------------

STATUS = """
\x1b[0mSun Nov 22 14:48:13 2026:\x1b[1;32m
slow HTTP test status on \x1b[0;32m5\x1b[1;32mth second:

\x1b[1;32minitializing:\x1b[1;32m        0
\x1b[1;32mpending:     \x1b[1;32m        1
\x1b[1;32mconnected:   \x1b[1;32m        20
\x1b[1;32merror:       \x1b[1;32m        3
\x1b[1;32mclosed:      \x1b[1;32m        4
\x1b[1;32mservice available:\x1b[1;32m   \x1b[1;3%im%s\x1b[0m
"""


def test_what_slowhttptest_tells_is_read() -> None:
    states = slowhttp.read_states(STATUS % (2, "YES") + STATUS % (1, "NO"))
    seen = {"second": 5, "connected": 20, "error": 3, "closed": 4}
    assert states == [{**seen, "available": True}, {**seen, "available": False}]
    assert not slowhttp.available(states)
    assert slowhttp.available(states[:1])
    assert (
        slowhttp.table({"slow heads": states})
        .splitlines()[1]
        .endswith("  20                     4       3  NO at second 5")
    )
    with pytest.raises(ValueError, match="told no state, but: usage"):
        slowhttp.read_states("usage")


def test_without_slowhttptest_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(FileNotFoundError, match="apt-get install slowhttptest"):
        slowhttp.attack(MODES[0], "http://127.0.0.1", 1, 1)


def test_the_demo_answers_while_slowhttptest_is_slow_in_all_its_ways() -> None:
    """Small and short, but all at once. On a build machine its absence is a failure, elsewhere a reason to skip."""
    if shutil.which("slowhttptest") is None:
        absent("slowhttptest is not installed: `make system-packages` installs it")

    with slowhttp.demo() as url, ThreadPoolExecutor() as pool:

        def attack(mode: Mode) -> list[Any]:
            return slowhttp.attack(mode, url, connections=30, seconds=5)

        found = dict(zip([mode.name for mode in MODES], pool.map(attack, MODES), strict=True))
    for name, states in found.items():
        assert states[-1]["second"] >= 5, name
        assert states[-1]["connected"] + states[-1]["closed"] == 30, name
        assert slowhttp.available(states), name


# -- the page ----------------------------------------------------------------------------------------------------------

ROOT = Path(__file__).parent.parent


def test_every_test_that_the_page_names_is_there() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", (ROOT / "docs" / "reliability.md").read_text("utf-8"))
    assert len(named) > 50
    gone = [
        f"{file}::{name}"
        for file, name in named
        if not (ROOT / file).exists() or not re.search(rf"^(async )?def {name}\(", (ROOT / file).read_text(), re.M)
    ]
    assert gone == []


def test_the_page_names_a_test_for_every_promise() -> None:
    page = (ROOT / "docs" / "reliability.md").read_text("utf-8")
    promises = re.findall(r"^\| promise \|.*\n\|[-|]+\|\n((?:\|.*\n)+)", page, re.MULTILINE)
    assert len(promises) > 5
    assert [row for table in promises for row in table.splitlines() if "::" not in row] == []
