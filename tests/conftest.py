"""Both event loops for every asynchronous test, a server that is looked after, and nothing left behind."""

from __future__ import annotations

import asyncio
import logging
import resource
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
import uvloop
from canned import canned  # noqa: F401  # a fixture
from redis_server import redis_running, redis_server  # noqa: F401  # fixtures
from shadow import shadowed
from support import ByHandLoop, Clock, Failures, Serving, absent, settle, watchdog
from unsteady import hub, news, store  # noqa: F401  # fixtures

from rawstream.recall import RecallingWire
from rawstream.wire import ServerWire

# asyncio's debug mode tells of each callback that took long: how fast the machine is concerns no test.
logging.getLogger("asyncio").addFilter(lambda record: not str(record.msg).startswith("Executing "))


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """asyncio's loop and uvloop's; for a test that moves the `clock` asyncio's alone, which lets itself be moved."""
    if "clock" in getattr(item, "fixturenames", ()):
        return {"by hand": ByHandLoop}
    both = {"asyncio": asyncio.SelectorEventLoop, "uvloop": uvloop.new_event_loop}
    if item.get_closest_marker("either_loop") is None:
        return both
    # What knows nothing of sockets is the same on both: half of those tests are run on each.
    loop = sorted(both)[zlib.crc32(item.nodeid.encode()) % 2]
    return {loop: both[loop]}


@pytest.fixture(autouse=True)
def shadow() -> Iterator[None]:
    """Everything that is streamed is compared with what h11 itself would send."""
    with shadowed(ServerWire), shadowed(RecallingWire):
        yield


@pytest.fixture(autouse=True)
def a_slow_machine_flushes_no_sooner(monkeypatch: pytest.MonkeyPatch) -> None:
    """Items that are ready together share a chunk unless a millisecond has passed; here that never is the case.

    A module whose tests are about that millisecond has a fixture of this name that does nothing.
    """
    monkeypatch.setattr("rawstream.pump.TURN", 60.0)


@pytest.fixture
async def clock() -> Clock:
    """The loop's time, which passes by `await clock.advance(seconds)` and not otherwise."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, ByHandLoop)
    return Clock(loop)


@pytest.fixture
def failures() -> Iterator[Failures]:
    """The errors that rawstream logs: `failures.take()` those that are expected, in their order."""
    handler = Failures()
    logger = logging.getLogger("rawstream")
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)
    assert [record.getMessage() for record in handler.records] == []


@pytest.fixture
async def orderly(failures: Failures) -> AsyncIterator[None]:
    """No task is left behind, no callback failed, and no test waits for ever."""
    loop = asyncio.get_running_loop()
    troubles: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: troubles.append(context))
    before = asyncio.all_tasks()
    with watchdog():
        yield
        await settle()
    left = asyncio.all_tasks() - before - {asyncio.current_task()}
    assert left == set()
    assert troubles == []


@pytest.fixture
async def serving(orderly: None) -> AsyncIterator[Serving]:
    """`served = await serving(handler)`, then `peer = await served.connect()`; all of it is closed after the test."""
    serving = Serving()
    yield serving
    await serving.end()


@pytest.fixture
def many_files() -> Iterator[None]:
    """A thousand connections are two thousand open files here."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4_096
    if hard != resource.RLIM_INFINITY and hard < wanted:
        absent(f"this process may open {hard} files at most")
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
