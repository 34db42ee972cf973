"""The store in a SQLite file, where it is more than the contract: kills, locks, full disks, damage, and its thread."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from processes import ROOT
from stores import Heard, WallClock, appended, everything, in_memory, state
from support import Failures, in_background, settle

from rawstream.channels import sqlite as sqlite_store
from rawstream.channels.log import END, ERROR, Entry, Id, Retention
from rawstream.channels.sqlite import SqliteStore
from rawstream.errors import ChannelEnded, StoreUnavailable

pytestmark = [pytest.mark.usefixtures("failures"), pytest.mark.either_loop]


@pytest.fixture
def path() -> Iterator[str]:
    """What is killed here is a process, never the machine: so a disk would add nothing but waiting."""
    with in_memory() as directory:
        yield str(directory / "channels.db")


@contextlib.asynccontextmanager
async def opened(path: str, retention: Retention | None = None, **options: Any) -> Any:
    store = SqliteStore(path, retention, **options)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


async def refused(store: SqliteStore) -> str:
    """What the public is told about a store that does not open."""
    with pytest.raises(StoreUnavailable) as caught:
        await store.open()
    assert caught.value.status == 503
    return caught.value.public


async def fails(store: SqliteStore, name: str = "a", **options: Any) -> str:
    """What the public is told about an append that fails."""
    with pytest.raises(StoreUnavailable) as caught:
        await store.append(name, "1", **options)
    return caught.value.public


def told(failures: Failures) -> list[str]:
    """What the log was told."""
    messages = [record.getMessage() for record in failures.records]
    failures.records.clear()
    return messages


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("rawstream-sqlite")]


async def ask(store: SqliteStore, statement: str) -> list[Any]:
    """Ask SQLite itself, on the store's connection."""
    return await store._database.do(lambda db: db.execute(statement).fetchall())


@contextlib.contextmanager
def child(program: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A process with a store of its own. It is killed in the end."""
    with subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        timer = threading.Timer(30, process.kill)
        timer.start()
        try:
            yield process
            assert timer.is_alive(), "it had to be killed"
        finally:
            process.kill()
            timer.cancel()
            timer.join()


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().rstrip("\n")


# -- kill -9 -----------------------------------------------------------------------------------------------------------

PREAMBLE = """
import asyncio, sys
from rawstream.channels.log import END, START, Id, Retention
from rawstream.channels.sqlite import SqliteStore
def say(*words): print(*words, flush=True)
store = SqliteStore(sys.argv[1], Retention(entries=10**6))
"""

APPENDS = """
async def write(name):
    while True:
        say(name, await store.append(name, '"' + "x" * 300 + '"'))
async def main():
    await store.open()
    await asyncio.gather(*(write(f"log{number % 3}") for number in range(8)))
asyncio.run(main())
"""

LIVES = """
async def live(run):
    await store.begin(run, "token", 60)
    ids = [await store.append(run, str(n), token="token") for n in range(5)]
    say("appended", run)
    await store.trim(run, ids[2])
    say("trimmed", run)
    await store.end(run, END, "null", ttl=10**6)
    say("ended", run)
async def main():
    for time in range(10**6):
        await store.open()
        say("open", time)
        await asyncio.gather(*(live(f"{sys.argv[2]}.{time}.{number}") for number in range(4)))
        await store.close()
asyncio.run(main())
"""


def kill_after(program: str, lines: int, *arguments: str) -> list[list[str]]:
    """Run it until it has said so much, kill it in the midst of what it does, and return all that it said."""
    with child(PREAMBLE + program, *arguments) as process:
        said = [line(process) for _ in range(lines)]
        process.kill()
        assert process.stdout is not None
        rest = process.stdout.read()
        assert process.wait() == -9
    whole, _, _ = rest.rpartition("\n")
    return [each.split() for each in [*said, *whole.split("\n")] if each]


async def checked(path: str) -> dict[str, list[Entry]]:
    """All logs, which have no holes and end where their state says, in a file that is sound."""
    logs = {}
    async with opened(path, Retention(entries=10**6)) as store:
        assert await ask(store, "PRAGMA integrity_check") == [("ok",)]
        for name in await store.names():
            entries = logs[name] = await everything(store, name)
            found = await state(store, name)
            assert [entry.id.n for entry in entries] == [*range(found.last.n - len(entries) + 1, found.last.n + 1)]
            assert [entry.id for entry in entries] == sorted(entry.id for entry in entries)
            assert found.entries == len(entries)
            [(size,)] = await ask(store, f"SELECT bytes FROM logs WHERE log = '{name}'")
            assert size == sum(len(entry.data) for entry in entries)
    return logs


def test_what_was_acknowledged_survives_kills(path: str) -> None:
    acknowledged: dict[str, set[str]] = {}
    for _ in range(12):
        for name, id in kill_after(APPENDS, random.randint(1, 300), path):
            assert id not in acknowledged.setdefault(name, set())
            acknowledged[name].add(id)
        logs = asyncio.run(checked(path))
        for name, ids in acknowledged.items():
            assert ids <= {str(entry.id) for entry in logs[name]}


def test_opening_trimming_and_ending_survive_kills(path: str) -> None:
    """What was said is so; a run that was begun has its end, from itself or from the next that opened the file."""
    for time in range(10):
        said = kill_after(LIVES, random.randint(1, 40), path, str(time))
        logs = asyncio.run(checked(path))
        assert all(entries[-1].ends for entries in logs.values())
        for step, run in said:
            if step == "appended":
                assert [entry.data for entry in logs[run] if not entry.ends][-3:] == ["2", "3", "4"]
            elif step == "trimmed":
                assert logs[run][0].id.n == 3
            elif step == "ended":
                assert logs[run][-1].event == END


# -- one process at a time ---------------------------------------------------------------------------------------------

HOLDS = """
async def main():
    await store.open()
    await store.begin("run", "token", 60)
    await store.append("run", "1", token="token")
    say("open")
    sys.stdin.read()
    await store.close()
asyncio.run(main())
"""


async def test_another_process_does_not_get_the_file(path: str, orderly: None, failures: Failures) -> None:
    with child(PREAMBLE + HOLDS, path) as process:
        assert line(process) == "open"
        assert await refused(SqliteStore(path, patience=0)) == "the channels' store is in use"
        [message] = told(failures)
        assert path in message
        assert "another process has this file open: end that one" in message
        assert threads() == []


@pytest.mark.parametrize("killed", [True, False])
async def test_who_waits_gets_the_file_when_the_other_process_ends(path: str, orderly: None, killed: bool) -> None:
    """Killed or not; and the run that it had is ended, for readers to see."""
    with child(PREAMBLE + HOLDS, path) as process:
        assert line(process) == "open"
        store = SqliteStore(path, patience=1000)
        opening = in_background(store.open())
        await settle()
        assert not opening.done()
        assert process.stdin is not None
        process.kill() if killed else process.stdin.close()
        await opening
        first, last = await everything(store, "run")
        assert (first.data, last.event) == ("1", ERROR)
        await store.close()


async def test_who_waits_for_the_file_may_be_cancelled(path: str, orderly: None) -> None:
    async with opened(path):
        opening = in_background(SqliteStore(path, patience=1000).open())
        await settle()
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
    async with opened(path) as store:
        await store.append("a", "1")


async def test_a_commit_is_synced_to_the_disk(path: str, orderly: None) -> None:
    """Which a kill of the process alone would not show."""
    async with opened(path) as store:
        assert await ask(store, "PRAGMA journal_mode") == [("wal",)]
        assert await ask(store, "PRAGMA synchronous") == [(2,)]  # FULL


async def test_a_store_may_be_opened_again_after_it_was_closed(path: str, orderly: None) -> None:
    store = SqliteStore(path)
    for number in range(1, 4):
        await store.open()
        assert (await store.append("a", "1")).n == number
        await store.close()


# -- what is opened ----------------------------------------------------------------------------------------------------


async def test_opening_ends_the_runs_of_before(path: str, orderly: None) -> None:
    clock = WallClock()
    async with opened(path, now=clock) as store:
        await store.begin("run", "token", 1000)
        await store.append("run", "1", token="token")
        await store.begin("silent", "token", 1000)
        await store.append("channel", "1")
        await store.begin("ended", "token", 1000)
        await store.end("ended", END, "null", ttl=1000)
    async with opened(path, now=clock) as store:
        gone = '{"status":500,"error":"the process that ran it is gone"}'
        last = Entry(Id(clock.ms, 2), ERROR, gone)
        assert (await everything(store, "run"))[1:] == [last]
        assert await everything(store, "silent") == [Entry(Id(clock.ms, 1), ERROR, gone)]
        assert len(await everything(store, "channel")) == len(await everything(store, "ended")) == 1
        with pytest.raises(ChannelEnded):
            await store.append("run", "2", token="token")
        clock.now += 599
        assert (await state(store, "run")).ended
        clock.now += 1
        assert await store.names() == ["channel", "ended"]


async def test_what_is_over_leaves_the_file(path: str, orderly: None) -> None:
    clock = WallClock()
    async with opened(path, now=clock) as store:
        await store.append("a", "1", key="key")
        await store.end("a", END, "null", ttl=5)
        clock.now += 5
        await store.append("b", "1", key="key")
        assert await ask(store, "SELECT log FROM logs UNION ALL SELECT log FROM entries") == [("b",), ("b",)]
        clock.now += 601
        await store.append("b", "2", key="another")
        assert await ask(store, "SELECT log, key FROM keys") == [("b", "another")]


async def test_a_file_of_an_older_version_is_brought_up_to_date(path: str, orderly: None) -> None:
    clock = WallClock()
    with contextlib.closing(sqlite3.connect(path)) as db:
        for statement in sqlite_store._VERSIONS[0]:
            db.execute(statement)
        db.execute("PRAGMA user_version = 1")
        db.execute("INSERT INTO logs VALUES ('a', ?, 1, 1, NULL, NULL, NULL, NULL)", (clock.ms,))
        db.execute("INSERT INTO entries VALUES ('a', 1, ?, NULL, '1')", (clock.ms,))
        db.commit()
    for number in (2, 3):
        async with opened(path, now=clock) as store:
            assert (await state(store, "a")).last.n == number - 1
            assert (await store.append("a", "2")).n == number
            assert (await state(store, "a")).first == clock.ms
            assert await ask(store, "PRAGMA user_version") == [(2,)]


async def test_what_is_over_is_found_by_indices(path: str, orderly: None) -> None:
    """However many channels there are, one more is made at once."""
    async with opened(path) as store:
        plan = await ask(store, "EXPLAIN QUERY PLAN " + sqlite_store._OVER.replace("?", "1.0"))
        used = [row[3].partition(" USING INDEX ")[2].partition(" ")[0] for row in plan if " logs " in row[3]]
        assert used == ["removals", "leases"], plan


async def test_the_file_of_a_newer_version_is_refused(path: str, orderly: None, failures: Failures) -> None:
    async with opened(path) as store:
        await ask(store, "PRAGMA user_version = 3")
    assert await refused(SqliteStore(path)) == "the channels' store is of a newer version"
    assert told(failures) == [
        f"the channels' store {path} is of a newer version: use the rawstream that wrote it, or name another file"
    ]


async def test_the_database_of_something_else_is_refused_and_left_as_it_is(
    path: str, orderly: None, failures: Failures
) -> None:
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE logs (log)")
    before = Path(path).read_bytes()
    assert await refused(SqliteStore(path)) == "the channels' store is a database of something else"
    assert path in told(failures)[0]
    assert Path(path).read_bytes() == before


@contextlib.contextmanager
def unprivileged() -> Iterator[Path]:
    """A directory, and no right to write in it: root has it everywhere."""
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o755)
        root = os.geteuid() == 0
        try:
            yield Path(directory)
        finally:
            if root:
                os.seteuid(0)


def drop_rights() -> None:
    if os.geteuid() == 0:
        os.seteuid(65534)


async def test_a_file_that_cannot_be_written_is_refused(orderly: None, failures: Failures) -> None:
    with unprivileged() as directory:
        path = str(directory / "channels.db")
        async with opened(path):
            pass
        os.chmod(path, 0o444)
        drop_rights()
        assert await refused(SqliteStore(path)) == "the channels' store cannot be opened"
        assert f"{path} cannot be opened" in told(failures)[0]


async def test_a_directory_that_is_missing_or_cannot_be_written_is_refused(
    tmp_path: Path, orderly: None, failures: Failures
) -> None:
    assert await refused(SqliteStore(str(tmp_path / "none" / "a.db"))) == "the channels' store cannot be opened"
    assert await refused(SqliteStore(str(tmp_path))) == "the channels' store cannot be opened"
    with unprivileged() as directory:
        os.chmod(directory, 0o555)
        drop_rights()
        assert await refused(SqliteStore(str(directory / "a.db"))) == "the channels' store cannot be opened"
    assert [message.endswith("be allowed to read, write and lock both") for message in told(failures)] == [True] * 3


@pytest.mark.parametrize("damage", ["garbage", "truncated", "header"])
async def test_a_damaged_file_is_refused(path: str, damage: str, orderly: None, failures: Failures) -> None:
    async with opened(path) as store:
        await appended(store, "a", *(str(number) * 1000 for number in range(20)))
    whole = Path(path).read_bytes()
    Path(path).write_bytes(
        {"garbage": os.urandom(20_000), "truncated": whole[:10_000], "header": b"?" + whole[1:]}[damage]
    )
    assert await refused(SqliteStore(path)) == "the channels' store is damaged"
    assert path in told(failures)[0]
    assert threads() == []


# -- bad days ----------------------------------------------------------------------------------------------------------


async def test_damage_within_harms_what_is_there_and_nothing_else(path: str, orderly: None, failures: Failures) -> None:
    async with opened(path) as store:
        await appended(store, "a", *(str(number) * 1000 for number in range(200)))
    whole = bytearray(Path(path).read_bytes())
    third = len(whole) // 3 // 4096 * 4096
    whole[third : 2 * third] = b"\xff" * third
    Path(path).write_bytes(whole)
    async with opened(path) as store:
        reads = [everything(store, "a") for _ in range(3)]
        first, *others, last = await asyncio.gather(
            store.append("b", "1"), *reads, store.append("b", "2"), return_exceptions=True
        )
        assert [str(error) for error in others if isinstance(error, StoreUnavailable)] == [
            "the channels' store is damaged"
        ] * 3
        assert [entry.id for entry in await everything(store, "b")] == [first, last]
    [message] = told(failures)
    assert f"{path} is damaged (database disk image is malformed): stop, and restore the file" in message


async def test_a_full_store_refuses_until_there_is_room(path: str, orderly: None, failures: Failures) -> None:
    """Readers read on, and what finds room is appended."""
    async with opened(path) as store:
        entries = await appended(store, "a", "1")
        [(pages,)] = await ask(store, "PRAGMA page_count")
        await ask(store, f"PRAGMA max_page_count = {pages}")
        large = "2" * 100_000
        answers = await asyncio.gather(*(store.append("a", large) for _ in range(5)), return_exceptions=True)
        assert [str(answer) for answer in answers] == ["the channels' store is full"] * 5
        assert [type(answer) for answer in answers] == [StoreUnavailable] * 5
        assert await everything(store, "a") == entries
        _, last = await asyncio.gather(store.append("a", large), store.append("a", "3"), return_exceptions=True)
        assert last.n == 2
        await ask(store, "PRAGMA max_page_count = 10000")
        assert (await store.append("a", large)).n == 3
    [message] = told(failures)
    assert message.startswith(f"the channels' store {path} is full (database or disk is full): make room on its disk")


FILLS = """
import os
async def main():
    await store.open()
    kept, refusals = [], set()
    for _ in range(50):
        answers = await asyncio.gather(*(store.append("a", "x" * 5000) for _ in range(20)), return_exceptions=True)
        kept += [answer for answer in answers if isinstance(answer, Id)]
        refusals |= {f"{type(answer).__name__}: {answer}" for answer in answers if not isinstance(answer, Id)}
    say(len(kept) > 10, refusals)
    say([entry.id for entry in await store.read("a", START, 10**6)] == kept)
    await store.close()
    await store.open()
    say((await store.state("a")).entries == len(kept))
    os.remove(sys.argv[2])
    say((await store.append("a", "1")).n == len(kept) + 1)
    await store.close()
asyncio.run(main())
"""


def test_a_full_disk_takes_nothing_until_there_is_room(tmp_path: Path) -> None:
    """A real one, where this process may make one. It is certain that what was refused is not there."""
    script = 'mount -t tmpfs -o size=3m none "$1" && head -c 500000 /dev/zero > "$1/ballast" && shift && exec "$@"'
    program = [sys.executable, "-c", PREAMBLE + FILLS, str(tmp_path / "a.db"), str(tmp_path / "ballast")]
    found = subprocess.run(
        ["unshare", "--map-root-user", "--mount", "sh", "-c", script, "sh", str(tmp_path), *program],
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"},
        capture_output=True,
        text=True,
        timeout=30,
    )
    if not found.stdout and ("unshare:" in found.stderr or "mount:" in found.stderr):
        pytest.skip(found.stderr)
    refusals = {"StoreUnavailable: the channels' store is full"}
    assert found.stdout.splitlines() == [f"True {refusals}", "True", "True", "True"], found.stderr


LIMITED = """
import resource, signal, os
from rawstream.errors import OutcomeUnknown
async def attempt(**options):
    try:
        say(await store.append("a", '"' + "x" * 100_000 + '"', **options))
    except Exception as error:
        say(type(error).__name__, *([] if type(error) is OutcomeUnknown else [str(error)]))
async def main():
    await store.open()
    await store.append("a", "1")
    size = os.path.getsize(sys.argv[1] + "-wal")
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 50_000, unlimited[1]))
    await attempt()
    await attempt(key="key")
    say(len(await store.read("a", START, 10)))
    resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    id = await store.append("a", "2", key="key")
    say(id.n)
    await store.close()
asyncio.run(main())
"""


def test_a_commit_that_fails_leaves_open_whether_it_was_done_and_is_told_so(path: str) -> None:
    """Here it was not: a file may grow no further. With a key it is safe to ask again."""
    with child(PREAMBLE + LIMITED, path) as process:
        output, _ = process.communicate()
        assert output.splitlines() == [
            "OutcomeUnknown",
            "StoreUnavailable the channels' store fails",
            "1",
            "2",
        ]
        assert process.returncode == 0
    assert [entry.data for entry in asyncio.run(checked(path))["a"]] == ["1", "2"]


@pytest.mark.parametrize("suffix", ["", "-wal"])
@pytest.mark.parametrize("replaced", [True, False])
async def test_a_file_that_goes_while_in_use_is_noticed_and_may_come_back(
    path: str, suffix: str, replaced: bool, orderly: None, failures: Failures
) -> None:
    async with opened(path) as store:
        await store.append("a", "1")
        os.rename(path + suffix, path + ".away")
        if replaced:
            shutil.copy(path + ".away", path + suffix)
        assert [await fails(store), await fails(store)] == ["the channels' store is gone"] * 2
        [message] = told(failures)
        assert message.startswith(f"the channels' store {path} is gone: its file was removed or replaced while in use")
        os.replace(path + ".away", path + suffix)
        assert (await store.append("a", "2")).n == 2
    assert len((await checked(path))["a"]) == 2


async def test_an_interruption_is_one_failure(path: str, orderly: None, failures: Failures) -> None:
    async with opened(path) as store:
        interruptions: list[int] = []
        await store._database.do(
            lambda db: db.set_progress_handler(lambda: interruptions.pop() if interruptions else 0, 1)
        )
        interruptions.append(1)
        assert await fails(store) == "the channels' store fails"
        assert f"{path} fails (interrupted)" in told(failures)[0]
        assert (await store.append("a", "1")).n == 1


async def test_a_failure_that_goes_on_is_told_to_the_log_again_after_a_while(
    path: str, orderly: None, failures: Failures, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rawstream.channels.database._TELL_SECONDS", 0.0)
    async with opened(path) as store:
        os.rename(path, path + ".away")
        for _ in range(3):
            await fails(store)
            assert len(told(failures)) == 1
        os.rename(path + ".away", path)


# -- group commit ------------------------------------------------------------------------------------------------------


async def traced(store: SqliteStore) -> list[str]:
    """The statements that SQLite runs from now on."""
    statements: list[str] = []
    await store._database.do(lambda db: db.set_trace_callback(statements.append))
    return statements


async def test_what_waits_together_is_one_transaction(path: str, orderly: None) -> None:
    async with opened(path) as store:
        statements = await traced(store)
        ids = await asyncio.gather(*(store.append(f"log{n % 2}", str(n)) for n in range(100)))
        assert [id.n for id in ids] == [1 + n // 2 for n in range(100)]
        assert statements.count("COMMIT") == 2  # that of asking for the trace is the first
        assert sum(statement.startswith("INSERT INTO entries") for statement in statements) == 100


async def test_what_comes_during_a_commit_waits_for_the_next(path: str, orderly: None) -> None:
    """And nothing is acknowledged before its commit."""
    async with opened(path) as store:
        committing, go_on = threading.Event(), threading.Event()

        def trace(statement: str) -> None:
            if statement == "COMMIT":
                committing.set()
                go_on.wait(20)

        await store._database.do(lambda db: db.set_trace_callback(None))
        heard = Heard()
        await store.follow("a", heard)
        tracing = store._database.do(lambda db: db.set_trace_callback(trace))
        first = in_background(store.append("a", "1"))
        await asyncio.to_thread(committing.wait, 20)
        others = [in_background(store.append("a", str(n))) for n in range(2, 5)]
        await settle()
        assert not first.done()
        assert heard.entries == []
        go_on.set()
        assert [id.n for id in await asyncio.gather(first, *others)] == [1, 2, 3, 4]
        assert heard.entries == await everything(store, "a")
        await tracing


async def test_a_refusal_takes_nobody_with_it(path: str, orderly: None) -> None:
    async with opened(path) as store:
        await store.begin("run", "token", 60)
        await appended(store, "ended", "1")
        await store.end("ended", END, "null", ttl=60)
        statements = await traced(store)
        answers = await asyncio.gather(
            store.append("a", "1"),
            store.append("ended", "2"),
            store.append("run", "2", token="another"),
            store.append("run", "1", token="token"),
            store.append("new", "1", token="token"),
            store.append("a", "2"),
            return_exceptions=True,
        )
        assert [type(answer) for answer in answers] == [Id, ChannelEnded, ChannelEnded, Id, ChannelEnded, Id]
        assert statements.count("COMMIT") == 2
        assert [len(await everything(store, name)) for name in ("a", "ended", "run", "new")] == [2, 2, 1, 0]


async def test_what_sqlite_cannot_take_takes_nobody_with_it(path: str, orderly: None, failures: Failures) -> None:
    """And is told as what it is: no disk is to blame."""
    async with opened(path) as store:
        first, error, last = await asyncio.gather(
            store.append("a", "1"), store.append("a", "\ud800"), store.append("a", "2"), return_exceptions=True
        )
        assert isinstance(error, UnicodeEncodeError)
        assert [entry.id for entry in await everything(store, "a")] == [first, last]
    assert failures.records == []


async def test_following_begins_where_it_was_asked_for_among_appends_that_wait_together(
    path: str, orderly: None
) -> None:
    async with opened(path) as store:
        heard = Heard()
        first, last, second = await asyncio.gather(
            store.append("a", "1"), store.follow("a", heard), store.append("a", "2")
        )
        assert last == first
        assert [entry.id for entry in heard.entries] == [second]


async def test_a_cancelled_append_leaves_no_hole(path: str, orderly: None) -> None:
    """Whether it waited, was on its way, or was done; what is in the log was delivered."""
    async with opened(path) as store:
        heard = Heard()
        await store.follow("a", heard)
        for turns in range(20):
            appends = [in_background(store.append("a", f"{turns}.{n}")) for n in range(10)]
            for _ in range(turns):
                await asyncio.sleep(0)
            for append in appends[::2]:
                append.cancel()
            await asyncio.gather(*appends, return_exceptions=True)
        kept = {append.result() for append in appends if not append.cancelled()}
        entries = await everything(store, "a")
        assert [entry.id.n for entry in entries] == [*range(1, len(entries) + 1)]
        assert kept <= {entry.id for entry in entries}
        assert heard.entries == entries


async def test_a_cancelled_follower_hears_nothing(path: str, orderly: None) -> None:
    async with opened(path) as store:
        for turns in range(4):
            heard = Heard()
            following = in_background(store.follow("a", heard))
            for _ in range(turns):
                await asyncio.sleep(0)
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
            if following.cancelled():
                await store.append("a", "1")
                assert heard.entries == []
            store.unfollow("a")


async def test_the_write_ahead_log_stays_bounded(path: str, orderly: None) -> None:
    async with opened(path, Retention(entries=100)) as store:
        sizes = []
        for _ in range(20):
            await asyncio.gather(*(store.append("a", "x" * 20_000) for _ in range(50)))
            sizes.append(os.path.getsize(path + "-wal"))
        assert max(sizes) < 12 * 1024 * 1024, "20 MB were appended"
        assert os.path.getsize(path) < 8 * 1024 * 1024, "2 MB are held"


# -- the end -----------------------------------------------------------------------------------------------------------


async def test_closing_does_what_is_queued_and_leaves_nothing(path: str, orderly: None) -> None:
    store = SqliteStore(path)
    files = len(os.listdir("/proc/self/fd"))
    await store.open()
    go_on = threading.Event()
    held = store._database.do(lambda db: go_on.wait(20))
    appends = [in_background(store.append("a", str(n))) for n in range(300)]
    await settle()
    closing = in_background(store.close())
    await settle()
    assert await fails(store) == "the channels' store is closed"
    go_on.set()
    assert await held
    assert [id.n for id in await asyncio.gather(*appends)] == [*range(1, 301)]
    await closing
    await store.close()
    assert await fails(store) == "the channels' store is closed"
    assert threads() == []
    assert os.listdir(Path(path).parent) == ["channels.db"], "the write-ahead log went into the file"
    assert len(os.listdir("/proc/self/fd")) == files
    assert len((await checked(path))["a"]) == 300


async def test_a_close_that_is_cancelled_goes_on(path: str, orderly: None) -> None:
    store = SqliteStore(path)
    await store.open()
    go_on = threading.Event()
    held = store._database.do(lambda db: go_on.wait(20))
    append = in_background(store.append("a", "1"))
    await settle()
    closing = in_background(store.close())
    await settle()
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    go_on.set()
    assert await held
    assert (await append).n == 1
    await store.close()
    assert threads() == []


async def test_a_store_that_was_never_opened_is_closed(path: str, orderly: None) -> None:
    store = SqliteStore(path)
    assert await fails(store) == "the channels' store is closed"
    await store.close()
    assert os.listdir(Path(path).parent) == []
