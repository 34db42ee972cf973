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
from redis_server import RedisServer, be_patient, running_redis
from stores import LONG, Heard, WallClock, appended, everything
from support import Failures, in_background

from rawstream.channels import redis_commands, redis_follower
from rawstream.channels.log import END, ERROR, ORPHAN_SECONDS, START, Entry, Id, Retention
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
def own_redis(monkeypatch: pytest.MonkeyPatch) -> Iterator[RedisServer]:
    """One that a test may kill; what it has acknowledged is on disk."""
    be_patient(monkeypatch)
    with running_redis() as server:
        yield server


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """From now on a call is given up after so many seconds."""
    return lambda seconds: monkeypatch.setattr(redis_commands, "PATIENCE", seconds)


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


async def test_who_repeats_a_key_later_is_told_the_first_id(
    proxy: Proxy, opened: Open, patience: Callable[[float], None]
) -> None:
    store = await opened(proxy.url)
    await store.append("a", "1")
    proxy.losses = 1_000_000
    patience(0.5)
    with pytest.raises(StoreUnavailable, match="again with the same key") as caught:
        await store.append("a", "2", key="k")
    assert type(caught.value) is StoreUnavailable
    assert dict(caught.value.headers) == {"Retry-After": "5"}
    proxy.losses = 0
    patience(15.0)
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


async def test_a_paused_redis_holds_nobody_up(
    own_redis: RedisServer, opened: Open, patience: Callable[[float], None]
) -> None:
    store, heard = await opened(own_redis.url), Heard()
    entries = await appended(store, "a", "1")
    await store.follow("a", heard)
    own_redis.pause()
    patience(0.5)
    with pytest.raises(OutcomeUnknown):
        await store.append("a", "2")
    with pytest.raises(StoreUnavailable) as caught:
        await store.append("a", "3", key="k")  # its connection could not be opened
    assert type(caught.value) is StoreUnavailable
    with pytest.raises(StoreUnavailable):
        await store.state("a")
    own_redis.resume()
    patience(15.0)
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


async def test_a_delivery_costs_the_same_however_many_logs_are_followed(
    redis_server: RedisServer, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is read are the logs in which there is something, on one connection."""
    store = await opened(redis_server.url)
    heard = {f"log{number}": Heard() for number in range(200)}
    await asyncio.gather(*(store.follow(name, each) for name, each in heard.items()))
    entries = [*await appended(store, "log7", "1"), *await appended(store, "log199", "1")]
    await heard["log199"].reach(entries[1:])  # all are subscribed to, and those before it were looked at
    read: list[int] = []

    async def watched(connection: Any, *command: Any) -> Any:
        if command[0] == "XREAD":
            read.append(len(command) - command.index("STREAMS") - 1)
        return await exchange(connection, *command)

    monkeypatch.setattr(redis_follower, "exchange", watched)
    entries += await appended(store, "log7", *map(str, range(5)))
    await heard["log7"].reach([entries[0], *entries[2:]])
    assert 1 <= len(read) <= 7, "one for each hint at most, also for the two from before"
    assert {*read} <= {2, 4}, "a stream, and the last id of it; and log199, if its hint from before is still there"
    assert all(not each.entries for name, each in heard.items() if name not in ("log7", "log199"))


async def test_a_name_that_is_added_wakes_the_reader_wherever_it_is(
    redis_server: RedisServer, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing else wakes it in the time of this test."""
    monkeypatch.setattr(redis_follower, "_SILENCE", 1000.0)
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


async def test_what_is_appended_before_redis_knows_who_follows_is_delivered(
    redis_server: RedisServer, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, other, first, heard = await opened(redis_server.url), await opened(redis_server.url), Heard(), Heard()
    await store.follow("another", first)
    await first.reach(await appended(other, "another", "1"))
    tell, entries = store._follower._tell, await appended(other, "a", "1")

    async def late(*command: object) -> None:
        entries.extend(await appended(other, "a", "2"))
        await tell(*command)

    monkeypatch.setattr(store._follower, "_tell", late)
    assert await store.follow("a", heard) == entries[0].id
    await heard.reach(entries[1:])


async def test_who_follows_while_the_connection_breaks_is_told_all_the_same(
    redis_server: RedisServer, opened: Open
) -> None:
    store, first = await opened(redis_server.url), Heard()
    await store.follow("a", first)
    for number in range(5):
        await appended(store, "a", "1")
        await first.reach(await everything(store, "a"))
        hearing = store._follower._hearing
        assert hearing is not None
        hearing._writer.transport.abort()  # type: ignore[union-attr]
        for _ in range(number):
            await asyncio.sleep(0)
        heard = Heard()
        await store.follow(f"b{number}", heard)
        await heard.reach(await appended(store, f"b{number}", "1"))


async def test_what_is_not_followed_any_more_is_not_subscribed_to_for_ever(
    redis_server: RedisServer, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the logs of runs, of which there are ever new ones: at the latest when Redis is asked whether it is there."""
    monkeypatch.setattr(redis_follower, "_SILENCE", 0.05)
    store, heard = await opened(redis_server.url), Heard()

    def subscribed() -> bytes:
        return redis_server.ask("PUBSUB", "CHANNELS", "rawstream:log:?*")

    for number in range(20):
        await store.follow(f"run{number}", Heard())
    await reached(lambda: subscribed().startswith(b"*20"))
    for number in range(20):
        store.unfollow(f"run{number}")
    await reached(lambda: subscribed().startswith(b"*0"))
    await store.follow("run3", heard)
    await heard.reach(await appended(store, "run3", "1"))
    assert len(clients(redis_server)) <= 2 + redis_commands._CONNECTIONS


async def test_a_redis_that_says_nothing_is_asked_whether_it_is_there_and_goes_on(
    redis_server: RedisServer, opened: Open, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(redis_follower, "_SILENCE", 0.02)
    store, heard = await opened(redis_server.url), Heard()
    await store.follow("a", heard)
    redis_server.ask("CONFIG", "RESETSTAT")
    await reached(lambda: calls(redis_server, "ping") >= 3)
    store.unfollow("a")
    redis_server.ask("CONFIG", "RESETSTAT")
    await reached(lambda: calls(redis_server, "ping") >= 3)
    await store.follow("a", heard)
    await heard.reach(await appended(store, "a", "1"))
    assert "lost" not in caplog.text


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
            await reached(lambda: b"rawstream:log:a" in store._follower._followed)
        return reply

    monkeypatch.setattr(redis_follower, "exchange", overtaken)
    await store.follow("a", first)
    entries = await appended(store, "a", "1")
    await reached(lambda: bool(following))
    assert await following[0] == entries[-1].id
    await again.reach(await appended(store, "a", "2"))
    assert first.entries == []


async def test_logs_that_have_much_to_tell_do_not_keep_the_others_waiting(
    redis_server: RedisServer, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_follower, "_PAGE", 10)
    store, other = await opened(redis_server.url), await opened(redis_server.url)
    order: list[str] = []
    heard = Heard()
    await store.follow("much", lambda entries: order.extend(["much"] * len(entries)))
    await store.follow("little", heard)
    much = b"rawstream:log:much"
    await asyncio.gather(*(other.append("much", "1") for _ in range(100)))
    await reached(lambda: len(order) == 100)
    store._follower._followed[much].last = b"0-0"  # as if it had been away
    order.clear()
    await store._follower._tell("SUBSCRIBE", much)
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
                for kind in ("normal", "pubsub"):
                    redis_server.ask("CLIENT", "KILL", "TYPE", kind)
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
    redis_server.ask("PUBLISH", "rawstream:log:a", "")
    await reached(lambda: len(heard.entries) >= 2)
    with pytest.raises(StoreUnavailable, match="broken"):
        redis_follower.entry_of([b"1-1", [b"data", b"\xff"]])


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


def expiry(server: RedisServer, key: str) -> float:
    """Seconds until it expires; negative if it never does, or is not there."""
    return int(server.ask("PTTL", f"rawstream:{key}").removeprefix(b":")) / 1000


def due(server: RedisServer, name: str) -> list[float]:
    """Seconds until the keys of a log expire."""
    return [expiry(server, f"{kind}:{name}") for kind in ("log", "meta")]


async def test_what_a_run_has_in_redis_always_expires(redis_server: RedisServer, opened: Open) -> None:
    """Whatever its process did last, and whether or not anybody reads it; a channel stays."""
    store, lease = await opened(redis_server.url), 100.0
    await store.begin("run", "token", lease)
    assert lease < expiry(redis_server, "meta:run") <= lease + ORPHAN_SECONDS
    await store.append("run", "1", token="token")
    assert all(lease < each <= lease + ORPHAN_SECONDS for each in due(redis_server, "run"))
    await store.renew("run", "token", 2 * LONG)
    assert all(LONG + ORPHAN_SECONDS < each <= 2 * LONG + ORPHAN_SECONDS for each in due(redis_server, "run"))
    await store.append("run", "2", token="token")
    assert all(LONG + ORPHAN_SECONDS < each <= 2 * LONG + ORPHAN_SECONDS for each in due(redis_server, "run"))
    await store.renew("run", "another", 9 * LONG)
    await store.attend("run")
    await store.end("run", END, "null", ttl=lease)
    assert all(0 < each <= lease for each in due(redis_server, "run"))
    await store.renew("run", "token", LONG)
    assert all(0 < each <= lease for each in due(redis_server, "run"))
    await store.append("channel", "1")
    assert due(redis_server, "channel") == [-0.001, -0.001]


async def test_an_orphan_that_is_ended_can_be_read_for_its_time(redis_server: RedisServer, opened: Open) -> None:
    store = await opened(redis_server.url)
    await store.begin("run", "token", 0.0)
    while not await store.end("run", ERROR, "1", overdue=True, ttl=LONG):
        pass
    assert all(LONG / 2 < each <= LONG for each in due(redis_server, "run"))
    assert [entry.data for entry in await everything(store, "run")] == ["1"]


async def test_names_of_runs_that_have_expired_do_not_gather(redis_server: RedisServer, opened: Open) -> None:
    store = await opened(redis_server.url)
    await store.begin("dead", "token", LONG)
    redis_server.ask("ZADD", "rawstream:names", "1", "dead")  # as if it were long ago
    assert await store.names() == []
    await store.begin("run", "token", LONG)
    assert redis_server.ask("ZCARD", "rawstream:names") == b":1\r\n"


APPEND_AND_TRIM = """
for n = 2, 5 do redis.call('XADD', 'rawstream:log:a', ARGV[1] .. '-' .. n, 'data', '1') end
redis.call('XTRIM', 'rawstream:log:a', 'MAXLEN', 1)
redis.call('PUBLISH', 'rawstream:log:a', '')
"""
