"""What a store on Redis does beyond the contract: with a real one that is paused, killed, full, or not heard."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import shutil
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from redis_server import RedisServer, running_redis
from stores import LONG, Heard, WallClock, appended, everything
from support import Failures, in_background

from rawstream.channels import redis, redis_commands
from rawstream.channels.log import END, START, Entry, Id, Retention
from rawstream.channels.redis import RedisStore
from rawstream.channels.redis_commands import exchange
from rawstream.errors import ChannelEnded, LocalError, OutcomeUnknown, StoreUnavailable

Open = Callable[..., Awaitable[RedisStore]]


def clients(server: RedisServer) -> list[str]:
    """The connections of stores."""
    return [line for line in server.ask("CLIENT", "LIST").decode().splitlines() if " name=rawstream " in line]


def calls(server: RedisServer, command: str) -> int:
    """How often a command was called since the counts were reset."""
    found = re.search(rf"cmdstat_{re.escape(command)}:calls=(\d+)", server.ask("INFO", "commandstats").decode())
    return int(found[1]) if found else 0


async def reached(condition: Callable[[], bool]) -> None:
    """Wait until it is so, where only Redis could tell when."""
    while not condition():  # noqa: ASYNC110 - nothing here is told by Redis
        await asyncio.sleep(0.002)


@pytest.fixture
async def opened(orderly: None) -> AsyncIterator[Open]:
    """Opens stores on a URL, and closes them."""
    stores: list[RedisStore] = []

    async def open_store(url: str, retention: Retention | None = None, **options: Any) -> RedisStore:
        store = RedisStore(url, retention, **options)
        stores.append(store)
        await store.open()
        return store

    yield open_store
    for store in stores:
        await store.close()


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    """One that a test may kill; what it has acknowledged is on disk."""
    with running_redis() as server:
        yield server


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call is given up soon."""
    monkeypatch.setattr(redis_commands, "PATIENCE", 0.2)


class Proxy:
    """Stands before a Redis, and loses the next `losses` replies to a script: it cuts the connection instead."""

    def __init__(self, server: RedisServer) -> None:
        self.losses = 0
        self.url = ""
        self._behind = server.port
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Proxy:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"redis://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await asyncio.gather(*self._tasks)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        behind, to_behind = await asyncio.open_connection("127.0.0.1", self._behind)
        asked: list[bytes] = []

        async def answer() -> None:
            while data := await behind.read(65536):
                if self.losses and b"EVALSHA" in asked[-1]:
                    self.losses -= 1
                    writer.transport.abort()
                    return
                writer.write(data)

        answering = in_background(answer())
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                asked.append(data)
                to_behind.write(data)
        to_behind.close()
        await answering
        for each in (to_behind, writer):
            each.close()
            with contextlib.suppress(ConnectionError):
                await each.wait_closed()


@pytest.fixture
async def proxy(orderly: None, redis_server: RedisServer) -> AsyncIterator[Proxy]:
    async with Proxy(redis_server) as proxy:
        yield proxy


# -- replies that are lost -------------------------------------------------------------------------------------------


async def test_an_append_without_a_key_is_not_repeated_when_its_reply_is_lost(proxy: Proxy, opened: Open) -> None:
    store = await opened(proxy.url)
    await store.append("a", "1")
    proxy.losses = 1
    with pytest.raises(OutcomeUnknown):
        await store.append("a", "2")
    assert [entry.data for entry in await everything(store, "a")] == ["1", "2"]
    assert (await store.append("a", "3")).n == 3


async def test_an_append_with_a_key_is_repeated_until_there_is_a_reply(proxy: Proxy, opened: Open) -> None:
    store = await opened(proxy.url)
    await store.append("a", "1")
    proxy.losses = 3
    assert (await store.append("a", "2", key="k")).n == 2
    assert proxy.losses == 0
    assert [entry.data for entry in await everything(store, "a")] == ["1", "2"]


@pytest.mark.usefixtures("impatient")
async def test_who_repeats_a_key_later_is_told_the_first_id(proxy: Proxy, opened: Open) -> None:
    store = await opened(proxy.url)
    await store.append("a", "1")
    proxy.losses = 1_000_000
    with pytest.raises(OutcomeUnknown):
        await store.append("a", "2", key="k")
    proxy.losses = 0
    assert (await store.append("a", "2", key="k")).n == 2
    assert len(await everything(store, "a")) == 2


async def test_what_a_lost_reply_told_of_a_run_is_told_by_the_next(proxy: Proxy, opened: Open) -> None:
    """It began, and it ended, by this very call; and by another it does not."""
    store = await opened(proxy.url)
    await store.append("a", "1")
    proxy.losses = 1
    assert await store.begin("run", "token", LONG)
    assert not await store.begin("run", "token", LONG)
    proxy.losses = 1
    assert await store.end("run", END, "null", token="token", ttl=LONG)
    assert not await store.end("run", END, "null", token="token", ttl=LONG)
    assert len(await everything(store, "run")) == 1


async def test_an_end_that_was_known_before_a_loss_is_told(proxy: Proxy, opened: Open) -> None:
    store = await opened(proxy.url)
    await store.append("a", "1")
    await store.end("a", END, "null", ttl=LONG)
    proxy.losses = 1
    with pytest.raises(ChannelEnded):
        await store.append("a", "2", key="k")


async def test_a_redis_that_refuses_connections_has_done_nothing(opened: Open, own_redis: RedisServer) -> None:
    store = await opened(own_redis.url)
    await store.append("a", "1")
    await asyncio.to_thread(own_redis.kill)
    await reached(lambda: all(each._reader.at_eof() for each in store._commands._idle))  # type: ignore[union-attr]
    for key in (None, "k"):
        with pytest.raises(StoreUnavailable) as caught:
            await store.append("a", "2", key=key)
        assert type(caught.value) is StoreUnavailable
        assert str(own_redis.port) not in caught.value.public
    await asyncio.to_thread(own_redis.start)
    assert (await store.append("a", "2")).n == 2


async def test_a_script_that_redis_has_forgotten_runs_once(redis_server: RedisServer, opened: Open) -> None:
    store = await opened(redis_server.url)
    await store.append("a", "1")
    redis_server.ask("SCRIPT", "FLUSH")
    assert (await store.append("a", "2")).n == 2
    assert (await store.append("a", "3")).n == 3


@pytest.mark.usefixtures("impatient")
async def test_a_paused_redis_holds_nobody_up(
    own_redis: RedisServer, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, heard = await opened(own_redis.url), Heard()
    entries = await appended(store, "a", "1")
    await store.follow("a", heard)
    own_redis.pause()
    with pytest.raises(OutcomeUnknown):
        await store.append("a", "2")
    with pytest.raises(StoreUnavailable) as caught:
        await store.append("a", "3", key="k")  # its connection could not be opened
    assert type(caught.value) is StoreUnavailable
    with pytest.raises(StoreUnavailable):
        await store.state("a")
    own_redis.resume()
    monkeypatch.setattr(redis_commands, "PATIENCE", 5.0)
    last = await store.append("a", "3", key="k")
    entries = await everything(store, "a")
    assert [entry.data for entry in entries] == ["1", "2", "3"]
    assert entries[-1].id == last
    await heard.reach(entries[1:])


async def test_callers_without_number_share_a_few_connections(redis_server: RedisServer, opened: Open) -> None:
    store = await opened(redis_server.url)
    ids = await asyncio.gather(*(store.append("a", "1") for _ in range(200)))
    assert sorted(each.n for each in ids) == [*range(1, 201)]
    assert len(clients(redis_server)) == redis_commands._CONNECTIONS


async def test_a_cancelled_call_leaves_no_reply_to_the_next(redis_server: RedisServer, opened: Open) -> None:
    store = await opened(redis_server.url)
    for number in range(36):
        calls_ = [in_background(store.append("a", "1")) for _ in range(3)]
        for _ in range(number % 12):
            await asyncio.sleep(0)
        for each in calls_:
            each.cancel()
        await asyncio.wait(calls_)
        assert await store.names() in ([], ["a"])
    entries = await everything(store, "a")
    assert [entry.id.n for entry in entries] == [*range(1, len(entries) + 1)]


# -- following -------------------------------------------------------------------------------------------------------


async def test_one_xread_follows_however_many_logs(redis_server: RedisServer, opened: Open) -> None:
    store = await opened(redis_server.url)
    redis_server.ask("CONFIG", "RESETSTAT")
    heard = {f"log{number}": Heard() for number in range(200)}
    await asyncio.gather(*(store.follow(name, each) for name, each in heard.items()))
    await reached(lambda: [" cmd=xread " in each for each in clients(redis_server)].count(True) == 1)
    before = calls(redis_server, "xread")
    assert before <= 40
    entries = await appended(store, "log7", *map(str, range(5)))
    await heard["log7"].reach(entries)
    assert calls(redis_server, "xread") <= before + 5
    assert all(not each.entries for name, each in heard.items() if name != "log7")


async def test_a_name_that_is_added_wakes_the_reader_wherever_it_is(
    redis_server: RedisServer, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not end its block by itself in the time of this test; while it works it is not in the block."""
    monkeypatch.setattr(redis, "_BLOCK", 1000.0)
    store, other, busy = await opened(redis_server.url), await opened(redis_server.url), Heard()
    await store.follow("busy", busy)
    for number in range(60):
        noise = [in_background(other.append("busy", "0")) for _ in range(number % 3)]
        for _ in range(number % 11):
            await asyncio.sleep(0)
        heard = Heard()
        await store.follow(f"log{number}", heard)
        await asyncio.gather(*noise)
        await heard.reach(await appended(other, f"log{number}", "1"))
    await busy.reach(await everything(store, "busy"))


async def test_a_name_that_is_added_while_the_reader_is_on_its_way_into_the_block_is_read(
    redis_server: RedisServer, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first CLIENT UNBLOCK comes too early, and unblocks nobody."""
    monkeypatch.setattr(redis, "_BLOCK", 1000.0)
    store, first, heard = await opened(redis_server.url), Heard(), Heard()
    redis_server.ask("CONFIG", "RESETSTAT")

    async def late(connection: Any, *command: Any) -> Any:
        if "BLOCK" in command:
            await reached(lambda: calls(redis_server, "client|unblock") > 0)
        return await exchange(connection, *command)

    monkeypatch.setattr(redis, "exchange", late)
    await store.append("a", "1")
    await store.follow("a", first)
    await reached(lambda: store._blocked is not None and store._seen == 1)
    await store.follow("b", heard)
    assert calls(redis_server, "client|unblock") > 0
    await heard.reach(await appended(store, "b", "1"))


async def test_who_follows_again_is_not_told_what_was_read_for_the_one_before(
    redis_server: RedisServer, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, first, again = await opened(redis_server.url), Heard(), Heard()
    following: list[asyncio.Task[Id]] = []

    async def overtaken(connection: Any, *command: Any) -> Any:
        """Between the reply and its delivery somebody else begins to follow."""
        reply = await exchange(connection, *command)
        if command[0] == "XREAD" and reply and not following:
            store.unfollow("a")
            following.append(in_background(store.follow("a", again)))
            await reached(lambda: "a" in store._followed)
        return reply

    monkeypatch.setattr(redis, "exchange", overtaken)
    await store.follow("a", first)
    entries = await appended(store, "a", "1")
    await reached(lambda: bool(following))
    assert await following[0] == entries[-1].id
    await again.reach(await appended(store, "a", "2"))
    assert first.entries == []


async def test_logs_that_have_much_to_tell_do_not_keep_the_others_waiting(
    redis_server: RedisServer, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis, "_PAGE", 10)
    store, other = await opened(redis_server.url), await opened(redis_server.url)
    order: list[str] = []
    heard = Heard()
    await store.follow("much", lambda entries: order.extend(["much"] * len(entries)))
    await store.follow("little", heard)
    blocked = store._followed["much"]
    await asyncio.gather(*(other.append("much", "1") for _ in range(100)))
    await reached(lambda: len(order) == 100)
    blocked.last = b"0-0"  # as if it had been away
    order.clear()
    await store.follow("little", lambda entries: order.extend(["little"] * len(entries)))
    await other.append("little", "1")
    await reached(lambda: len(order) == 101)
    assert "little" in order[:60]


async def test_connections_that_are_killed_lose_nothing(redis_server: RedisServer, opened: Open) -> None:
    store, reader = await opened(redis_server.url), await opened(redis_server.url)
    heard, acknowledged = Heard(), 0
    await reader.follow("a", heard)

    async def write(writer: int) -> list[Id]:
        nonlocal acknowledged
        ids = []
        for number in range(40):
            ids.append(await store.append("a", f"{writer}.{number}", key=f"{writer}.{number}"))
            acknowledged += 1
            if acknowledged % 17 == 0:
                redis_server.ask("CLIENT", "KILL", "TYPE", "normal")
        return ids

    ids = await asyncio.gather(*(write(writer) for writer in range(5)))
    entries = await everything(store, "a")
    assert sorted(chain(*ids)) == [entry.id for entry in entries]
    assert [entry.id.n for entry in entries] == [*range(1, 201)]
    await heard.reach(entries)


async def test_a_redis_that_is_killed_and_restarted_loses_nothing_that_it_acknowledged(
    own_redis: RedisServer, opened: Open
) -> None:
    store, reader = await opened(own_redis.url), await opened(own_redis.url)
    heard, acknowledged = Heard(), 0
    await reader.follow("a", heard)

    async def restart() -> None:
        await asyncio.to_thread(own_redis.kill)
        await asyncio.to_thread(own_redis.start)

    restarts = []

    async def write(writer: int) -> list[Id]:
        nonlocal acknowledged
        ids: list[Id] = []
        while len(ids) < 40:
            key = f"{writer}.{len(ids)}"
            try:
                ids.append(await store.append("a", key, key=key))
            except StoreUnavailable:
                await asyncio.sleep(0.01)
                continue
            acknowledged += 1
            if acknowledged in (50, 130):
                restarts.append(in_background(restart()))
        return ids

    ids = await asyncio.gather(*(write(writer) for writer in range(5)))
    await asyncio.gather(*restarts)
    entries = await everything(store, "a")
    assert sorted(chain(*ids)) == [entry.id for entry in entries]
    assert [entry.id.n for entry in entries] == [*range(1, 201)]
    assert len({entry.data for entry in entries}) == 200
    await heard.reach(entries)


async def test_a_loss_and_its_end_are_told_once(
    own_redis: RedisServer, opened: Open, caplog: pytest.LogCaptureFixture
) -> None:
    store, heard = await opened(own_redis.url), Heard()
    await store.follow("a", heard)
    await heard.reach(await appended(store, "a", "1"))
    own_redis.kill()
    await reached(lambda: "Redis is lost" in caplog.text)
    for _ in range(3):
        with pytest.raises(StoreUnavailable):
            await store.append("a", "2", key="k")
    own_redis.start()
    await reached(lambda: "Redis is back" in caplog.text)
    levels = [record.levelno for record in caplog.records if record.name == "rawstream"]
    assert len(levels) <= 4  # lost, back, and for those who called: the end of a connection, and that it is refused
    assert {*levels} == {logging.WARNING}
    await heard.reach([*heard.entries, *await appended(store, "a", "2")])


async def test_a_log_that_begins_again_is_delivered_from_its_first_entry(own_redis: RedisServer, opened: Open) -> None:
    """Redis came back with nothing, and the clock with an earlier time."""
    clock, heard = WallClock(), Heard()
    store = await opened(own_redis.url, now=clock)
    await store.follow("a", heard)
    entries = await appended(store, "a", "1", "2", "3")
    await heard.reach(entries)
    own_redis.kill()
    shutil.rmtree(own_redis.directory / "appendonlydir")
    clock.now -= 3600
    own_redis.start()
    entries += [Entry(await store.append("a", each, key=each), None, each) for each in "45"]
    assert [entry.id.n for entry in entries] == [1, 2, 3, 1, 2]
    await heard.reach(entries)


async def test_a_log_that_has_lost_its_newest_entries_is_not_told_again(
    own_redis: RedisServer, opened: Open, tmp_path: Path
) -> None:
    """As after a switch to a replica that lagged behind."""
    heard, files = Heard(), own_redis.directory / "appendonlydir"
    store, early = await opened(own_redis.url), Heard()
    await store.follow("another", early)
    await early.reach(await appended(store, "another", "1"))
    await store.follow("a", heard)  # which log it is can be known only when it is there
    entries = await appended(store, "a", "1", "2")
    await heard.reach(entries)
    shutil.copytree(files, tmp_path / "before")
    entries += await appended(store, "a", "3", "4")
    await heard.reach(entries)
    own_redis.kill()
    shutil.rmtree(files)
    shutil.copytree(tmp_path / "before", files)
    own_redis.start()
    entries.append(Entry(await store.append("a", "5", key="5"), None, "5"))
    assert [entry.id.n for entry in entries] == [1, 2, 3, 4, 3]
    await heard.reach(entries)


async def test_nothing_is_left_after_close(redis_server: RedisServer, opened: Open) -> None:
    store = await opened(redis_server.url)
    await store.follow("a", Heard())
    await asyncio.gather(*(store.append("a", "1") for _ in range(50)))
    assert clients(redis_server)
    await store.close()
    await reached(lambda: clients(redis_server) == [])
    await store.close()


# -- a Redis in trouble ----------------------------------------------------------------------------------------------


async def refused(call: Awaitable[Any], failures: Failures, reason: str) -> StoreUnavailable:
    """What the caller is told; the reason is in the log, once."""
    with pytest.raises(StoreUnavailable) as caught:
        await call
    assert type(caught.value) is StoreUnavailable
    messages = [record.getMessage() for record in failures.records]
    assert len(messages) == 1
    assert reason in messages[0]
    return caught.value


async def test_a_full_redis_takes_nothing_and_gives_what_it_has(
    redis_server: RedisServer, opened: Open, failures: Failures
) -> None:
    store = await opened(redis_server.url)
    entries = await appended(store, "a", "1")
    redis_server.ask("CONFIG", "SET", "maxmemory", "1")
    try:
        for name in ("a", "new"):
            error = await refused(store.append(name, "2"), failures, "maxmemory")
            assert error.public == "the channels' store is full"
        assert await everything(store, "a") == entries
        assert await store.names() == ["a"]
    finally:
        redis_server.ask("CONFIG", "SET", "maxmemory", "0")
    assert (await store.append("a", "2")).n == 2
    failures.records.clear()


async def test_a_replica_takes_nothing(redis_server: RedisServer, opened: Open, failures: Failures) -> None:
    store = await opened(redis_server.url)
    entries = await appended(store, "a", "1")
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    redis_server.ask("REPLICAOF", "127.0.0.1", str(port))
    try:
        await refused(store.append("a", "2"), failures, "read only replica")
        assert await everything(store, "a") == entries
    finally:
        redis_server.ask("REPLICAOF", "NO", "ONE")
    failures.records.clear()


async def test_a_wrong_password_is_told_at_once_and_not_shown(
    redis_server: RedisServer, opened: Open, failures: Failures
) -> None:
    url = redis_server.url.replace("//", "//somebody:secret-word@")
    await refused(opened(url), failures, "invalid username-password pair")
    assert "secret-word" not in failures.records[0].getMessage()
    failures.records.clear()


async def test_keys_of_somebody_else_are_an_error_of_their_channel_alone(
    redis_server: RedisServer, opened: Open, failures: Failures
) -> None:
    store, heard, other = await opened(redis_server.url), Heard(), Heard()
    await store.follow("a", heard)
    await store.follow("b", other)
    await heard.reach(await appended(store, "a", "1"))
    redis_server.ask("SET", "rawstream:log:a", "something")
    for call in (store.append("a", "2"), store.read("a", START, 1), store.state("a")):
        error = await refused(call, failures, "WRONGTYPE")
        assert error.public == "the channels' store is broken"
    with pytest.raises(StoreUnavailable, match="broken"):
        await (await opened(redis_server.url)).follow("a", Heard())
    entries = await appended(store, "b", "1")
    await other.reach(entries)
    await other.reach(entries := entries + await appended(store, "b", "2"))
    redis_server.ask("DEL", "rawstream:log:a", "rawstream:meta:a")
    await store.append("a", "3")
    await other.reach(entries + await appended(store, "b", "3"))
    await reached(lambda: len(heard.entries) == 2)
    failures.records.clear()


async def test_entries_of_somebody_else_stop_no_deliveries(
    redis_server: RedisServer, opened: Open, failures: Failures
) -> None:
    store, heard = await opened(redis_server.url), Heard()
    await store.follow("a", heard)
    await heard.reach(await appended(store, "a", "1"))
    redis_server.ask("XADD", "rawstream:log:a", "*", "one", "1", "two", "2", "three", "3")
    await reached(lambda: len(heard.entries) >= 2)
    with pytest.raises(StoreUnavailable, match="broken"):
        redis._entry([b"1-1", [b"data", b"\xff"]])


@pytest.mark.parametrize(
    "url", ["http://localhost", "redis://localhost:port", "redis://localhost?nothing=1", "memory:"]
)
def test_what_is_no_url_of_a_redis_is_refused(url: str) -> None:
    with pytest.raises(LocalError, match="no URL of a Redis"):
        RedisStore(url)


def test_what_the_url_says_of_a_connection_counts_unless_the_store_relies_on_it() -> None:
    store = RedisStore("redis://localhost/3?protocol=3&decode_responses=yes&client_name=mine")
    connection = store._commands.connection()
    assert (connection.db, connection.protocol, connection.client_name) == (3, 2, "mine")


# -- retention -------------------------------------------------------------------------------------------------------


async def test_an_append_drops_what_is_too_old(redis_server: RedisServer, opened: Open) -> None:
    clock = WallClock()
    store = await opened(redis_server.url, Retention(age=10.0), now=clock)
    entries = await appended(store, "a", "1", "2")
    clock.now += 9
    entries += await appended(store, "a", "3")
    assert await everything(store, "a") == entries
    clock.now += 2
    entries += await appended(store, "a", "4")
    assert await everything(store, "a") == entries[2:]
    clock.now += 1000
    await store.end("a", END, "null", ttl=LONG)
    assert [entry.id.n for entry in await everything(store, "a")] == [5], "never the newest"


async def test_who_reads_slower_than_the_log_is_trimmed_sees_it_by_the_numbers(
    redis_server: RedisServer, opened: Open
) -> None:
    store, heard = await opened(redis_server.url), Heard()
    await store.follow("a", heard)
    await heard.reach(await appended(store, "a", "1"))
    redis_server.ask("EVAL", APPEND_AND_TRIM, "0", str(heard.entries[-1].id.ms + 1))
    await reached(lambda: len(heard.entries) == 2)
    assert [entry.id.n for entry in heard.entries] == [1, 5]


APPEND_AND_TRIM = """
for n = 2, 5 do redis.call('XADD', 'rawstream:log:a', ARGV[1] .. '-' .. n, 'data', '1') end
redis.call('XTRIM', 'rawstream:log:a', 'MAXLEN', 1)
"""
