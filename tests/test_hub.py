"""Hubs: the store that a URL names, channels by name, and what becomes of all of it when a hub closes."""

from __future__ import annotations

import asyncio
import gc
import re
import sys
import tomllib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from hubs import KINDS, Hubs, counting, endless, told, url
from redis_server import RedisServer
from stores import in_memory
from support import Failures, Serving, get, in_background, until
from unsteady import hub_of

from rawstream import Event, Hub, Request
from rawstream.channels.hub import close_all
from rawstream.channels.log import Retention
from rawstream.channels.memory import MemoryStore
from rawstream.channels.redis import RedisStore
from rawstream.channels.sqlite import SqliteStore
from rawstream.errors import BadName, EventTooLarge, LocalError, NotFound, StoreUnavailable, Unavailable

pytestmark = pytest.mark.either_loop


@pytest.fixture(params=KINDS)
async def hubs(request: pytest.FixtureRequest, orderly: None) -> AsyncIterator[Hubs]:
    """Of each kind."""
    redis = request.getfixturevalue("redis_server").url if request.param == "redis" else ""
    with in_memory() as directory:
        hubs = Hubs(url(request.param, directory, redis))
        yield hubs
        await hubs.close()


# -- the store that a URL names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "kind", "shared"),
    [
        ("memory:", MemoryStore, False),
        ("memory:?entries=5&bytes=100&age=0.5&logs=7", MemoryStore, False),
        ("sqlite:///news.db", SqliteStore, False),
        ("sqlite:////tmp/news.db", SqliteStore, False),
        ("sqlite:///news.db?entries=5", SqliteStore, False),
        ("redis://localhost", RedisStore, True),
        ("redis://localhost:6380/2", RedisStore, True),
        ("redis://localhost:6380/2?entries=5&socket_connect_timeout=2", RedisStore, True),
        ("rediss://user:secret@localhost/0?age=60", RedisStore, True),
        ("unix:///run/redis.sock?db=3&entries=10", RedisStore, True),
    ],
)
def test_a_url_names_a_store(url: str, kind: type, shared: bool) -> None:
    hub = Hub(url)
    assert type(hub._store) is kind
    assert hub.shared is shared
    assert hub.url == url


def test_without_a_url_it_is_memory() -> None:
    assert Hub().url == "memory:"


@pytest.mark.parametrize(
    "url",
    [
        "", "memory", "memory:x", "memory:/x", "memory://host", "memory:?events=5", "sqlite:",
        "sqlite:news.db", "sqlite:///", "sqlite://", "sqlite://news.db", "sqlite://host/news.db", "sqlite:///a?mode=ro",
        "redis", "http://localhost", "file:///x", "postgres://localhost", "redis://localhost:port",
        "redis://localhost:99999", "redis://localhost?nonsense=1", "redis://localhost?db=x", "sqlite:/news.db",
        "memory:?entries=0", "memory:?entries=-1", "memory:?entries=1.5", "memory:?entries=many", "memory:?entries=",
        "memory:?bytes=0", "memory:?age=0", "memory:?age=-1", "memory:?age=x", "memory:?age=nan", "memory:?age=inf",
        "memory:?logs=0", "sqlite:///a?entries=0", "redis://localhost?entries=x", "memory:#x", "sqlite:///a#x",
        "redis://[::1", "sqlite:///:memory:", "sqlite:///:memory:?entries=5", "SQLITE:///:memory:",
    ],
)  # fmt: skip
def test_what_names_no_store_is_a_mistake_of_the_program(url: str) -> None:
    with pytest.raises(LocalError):
        Hub(url)


def test_a_database_in_memory_is_the_other_store() -> None:
    with pytest.raises(LocalError, match='"memory:"'):
        Hub("sqlite:///:memory:")


@pytest.mark.parametrize("size", ["x", None, 0, -1, 1.5, True])
def test_a_size_that_no_event_can_have_is_refused(size: Any) -> None:
    with pytest.raises(LocalError, match="event_size is a whole number of bytes, 1 or more, not "):
        Hub(event_size=size)


@pytest.mark.parametrize("url", [None, b"memory:"])
def test_what_is_no_text_is_no_url(url: Any) -> None:
    with pytest.raises(LocalError):
        Hub(url)


def test_a_redis_without_its_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rawstream.channels.redis", None)
    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (needed,) = project["optional-dependencies"]["redis"]
    with pytest.raises(LocalError, match=f"pip install '{re.escape(needed)}'$"):
        Hub("redis://localhost")


def test_a_wrong_url_is_not_told_with_its_password() -> None:
    with pytest.raises(LocalError) as caught:
        Hub("redis://user:secret@localhost?entries=x")
    assert "secret" not in str(caught.value)


async def test_what_a_url_says_of_how_much_is_held_is_so(hubs: Hubs) -> None:
    hub = await hubs("?entries=3")
    for n in range(500):
        await hub.channel("news").publish(n)
    state = await hub.channel("news").state()
    assert state is not None
    assert state.last.n == 500
    assert 3 <= state.entries < 300  # of a Redis, which drops what is old in blocks


async def test_an_event_may_be_as_large_as_the_hub_says() -> None:
    async with Hub(event_size=10) as hub:
        await hub.channel("news").publish("12345678")
        with pytest.raises(EventTooLarge):
            await hub.channel("news").publish("123456789")


# -- channels by name --------------------------------------------------------------------------------------------------


async def test_a_name_is_one_channel_as_long_as_anybody_has_it(hubs: Hubs) -> None:
    hub = await hubs()
    news = hub.channel("news")
    assert hub.channel("news") is news
    assert hub.channel("other") is not news
    del news
    assert "news" not in hub._channels


@pytest.mark.parametrize("name", ["", "a/b", "run/job", ".news", "-", "a" * 129, "a b", "a\n", None, 5])
async def test_a_name_that_cannot_be_is_refused(name: Any) -> None:
    with pytest.raises(BadName) as caught:
        Hub().channel(name)
    shown = repr(name) if isinstance(name, str) else f"of the type {type(name).__name__}"
    assert str(caught.value).endswith(f", not {shown}")


async def test_channels_are_those_that_hold_something_and_no_runs(hubs: Hubs) -> None:
    hub = await hubs()
    assert await hub.channels() == []
    for name in ("b", "a", "run", "c:d"):
        await hub.channel(name).publish(1)
    hub.channel("empty")
    assert (await told(await hub.run(counting(1), "job")))[-1] == ("stream-end", {})
    assert await hub.channels() == ["a", "b", "c:d", "run"]


async def test_what_becomes_of_who_falls_behind_is_settled_by_name(orderly: None) -> None:
    hub = Hub()
    assert hub.channel("news").behind == "gap"
    assert hub.channel("prices", behind="latest").behind == "latest"
    assert hub.channel("prices").behind == "latest"
    assert hub.channel("news", behind="cut").behind == "cut"
    assert hub.channel("news", behind="gap").behind == "gap"
    assert hub.channel("others").behind == "gap"


@pytest.mark.parametrize("behind", ["", "newest", 5, True])
def test_no_other_policy_is_known(behind: Any) -> None:
    hub = Hub()
    with pytest.raises(LocalError):
        hub.channel("news", behind=behind)
    assert hub.channel("news").behind == "gap"


# -- opening and closing -----------------------------------------------------------------------------------------------


async def test_a_hub_opens_when_it_is_first_used(tmp_path: Path, orderly: None) -> None:
    hub = Hub(f"sqlite:///{tmp_path}/news.db")
    assert [*tmp_path.iterdir()] == []
    await asyncio.gather(*(hub.channel("news").publish(n) for n in range(10)))
    state = await hub.channel("news").state()
    assert state is not None
    assert state.last.n == 10
    await hub.close()


async def test_a_store_that_cannot_be_opened_is_tried_again_with_the_next_use(
    tmp_path: Path, orderly: None, failures: Failures
) -> None:
    place = tmp_path / "later"
    hub = Hub(f"sqlite:///{place}/news.db")
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            await hub.channel("news").publish(1)
    failures.records.clear()
    place.mkdir()
    assert (await hub.channel("news").publish(1)).endswith("-1")
    await hub.close()


async def test_who_is_cancelled_while_it_opens_keeps_others_from_nothing(tmp_path: Path, orderly: None) -> None:
    hub = Hub(f"sqlite:///{tmp_path}/news.db")
    first = in_background(hub.store())
    second = in_background(hub.store())
    await asyncio.sleep(0)
    first.cancel()
    assert await second is hub._store
    assert first.cancelled()
    await hub.close()


async def test_close_lets_all_go_that_read(hubs: Hubs, serving: Serving) -> None:
    hub = await hubs()
    news = hub.channel("news")

    async def subscribe(request: Request) -> Any:
        return news.subscribe()

    served = await serving(subscribe)
    peer = await served.ask(get("/"))
    seen: list[Event] = []
    reader = in_background(_all(news.read("earliest"), seen))
    await until(lambda: news.subscribers == 2)
    await news.publish("last")
    await peer.until(b"data: last\n")
    await until(lambda: bool(seen))
    await hub.close()
    assert await peer.until(b"0\r\n\r\n")
    with pytest.raises(Unavailable):
        await reader
    assert [event.data for event in seen] == ["last"]
    assert news.subscribers == 0


async def _all(reader: AsyncIterator[Event], seen: list[Event]) -> None:
    async for event in reader:
        seen.append(event)  # noqa: PERF401 - each as it comes


async def test_close_ends_runs_that_are_read(hubs: Hubs) -> None:
    hub = await hubs()
    run = await hub.run(endless(1), "job")
    seen: list[Event] = []
    reader = in_background(_all(run.read(), seen))
    await until(lambda: bool(seen))
    await hub.close()
    (outcome,) = await asyncio.gather(reader, return_exceptions=True)
    # Where the store is far away, the hub may have closed before it brought the end.
    assert seen[-1].event == "stream-error" or isinstance(outcome, Unavailable)
    assert seen[0].data == 1
    assert hub.owners == {}


async def _first(reader: Any) -> Event:
    event: Event = await anext(reader)
    await reader.aclose()
    return event


async def test_close_again_does_nothing(hubs: Hubs) -> None:
    hub = await hubs()
    await hub.channel("news").publish(1)
    await hub.close()
    await hub.close()


async def test_a_hub_that_was_never_used_can_be_closed() -> None:
    await Hub("redis://localhost:1").close()


async def test_after_close_it_may_be_used_again(hubs: Hubs) -> None:
    hub = await hubs()
    news = hub.channel("news")
    await news.publish(1)
    await hub.close()
    await news.publish(2)
    reader = news.read("earliest")
    held = [(await anext(reader)).data]
    if held == [1]:
        held.append((await anext(reader)).data)
    await reader.aclose()  # type: ignore[attr-defined]
    assert held == ([2] if hub.url == "memory:" else [1, 2])
    assert await told(await hub.run(counting(3))) == [(None, 3), ("stream-end", {})]


def test_a_hub_serves_one_loop_after_the_other(
    tmp_path: Path, redis_server: RedisServer, kind: str, make_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    hub = Hub(url(kind, tmp_path, redis_server.url))

    async def use() -> None:
        async with asyncio.timeout(60), hub:
            news = hub.channel("news")
            readers = [in_background(_first(news.read())) for _ in range(4)]
            await until(lambda: news.subscribers == 4)
            while not all(reader.done() for reader in readers):
                await news.publish("x")
                await asyncio.sleep(0)
            assert {(await each).data for each in readers} == {"x"}
            assert await told(await hub.run(counting(1))) == [(None, 1), ("stream-end", {})]
            await asyncio.gather(*(news.publish(n) for n in range(50)))

    for _ in range(3):
        with asyncio.Runner(loop_factory=make_loop) as runner:
            runner.run(use())


async def test_another_loop_is_refused_while_it_is_open(hubs: Hubs) -> None:
    hub = await hubs()
    await hub.channel("news").publish(1)
    generator = counting(1)

    async def elsewhere() -> None:
        news = hub.channel("news")
        for use in (news.publish(2), news.state(), anext(news.read("earliest")), hub.run(generator)):
            with pytest.raises(LocalError, match="open in another event loop"):
                await use

    await asyncio.to_thread(asyncio.run, elsewhere())
    with pytest.raises(StopAsyncIteration):
        await anext(generator)
    state = await hub.channel("news").state()
    assert state is not None
    assert state.last.n == 1


def test_a_hub_in_memory_that_was_left_open_outlives_its_loop() -> None:
    """As one of a module does, that several programs run one after the other, or several tests."""
    news = Hub().channel("news")
    ids = [asyncio.run(news.publish(n)) for n in range(2)]
    assert [id.rpartition("-")[2] for id in ids] == ["1", "2"]


def test_without_a_loop_nothing_is_left_to_be_awaited(kind: str, tmp_path: Path) -> None:
    hub, generator = Hub(url(kind, tmp_path, "redis://localhost:1")), counting(1)
    for use in (hub.run(generator), hub.channel("news").publish(1)):
        with pytest.raises(RuntimeError, match="no running event loop"):
            use.send(None)
    gc.collect()  # what was never awaited warns, and warnings are errors


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["asyncio", "uvloop"])
def make_loop(request: pytest.FixtureRequest) -> Callable[[], asyncio.AbstractEventLoop]:
    if request.param == "asyncio":
        return asyncio.SelectorEventLoop
    import uvloop

    return uvloop.new_event_loop  # type: ignore[no-any-return]


async def test_a_store_without_room_refuses_a_run_and_its_generator_is_closed(orderly: None) -> None:
    async with hub_of(MemoryStore(Retention(logs=1))) as hub:
        await hub.channel("news").publish(1)
        generator = counting(1)
        with pytest.raises(StoreUnavailable):
            await hub.run(generator, "job")
        with pytest.raises(StopAsyncIteration):
            await anext(generator)
        with pytest.raises(NotFound):
            await hub.find("job")
        assert hub.owners == {}


def test_closing_all_hubs_leaves_those_of_other_loops() -> None:
    """Such a one cannot be waited for: a program may have left it when its loop ended."""
    left = Hub()

    async def use() -> None:
        await left.channel("news").publish(1)

    async def close() -> None:
        async with asyncio.timeout(60):
            await close_all()

    asyncio.run(use())
    asyncio.run(close())
    assert left._open is not None
    asyncio.run(left.close())
