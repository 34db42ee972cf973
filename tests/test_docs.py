"""docs/channels.md tells the truth: its code is run, block by block, and does what the text says."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from support import in_background, until

from rawstream import Hub, Server, errors, events, fetch

DOC = Path(__file__).parent.parent / "docs" / "channels.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```$", DOC.read_text(), re.MULTILINE | re.DOTALL)
PROGRAM, READING, RUNS, JOBS = BLOCKS

Use = Callable[[str, Hub], Awaitable[None]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, orderly: None) -> Callable[..., Awaitable[None]]:
    """`await run(use, *blocks)`: the program, with further blocks, calls `use` with its URL and its hub."""

    async def run(use: Use, *further: str, **given: Any) -> None:
        monkeypatch.chdir(tmp_path)
        assert PROGRAM.count("port=8000, signals=True") == PROGRAM.count("await server.wait_closed()") == 1
        first = PROGRAM.replace("port=8000, signals=True", "port=0").replace("server.wait_closed()", "use(server)")

        async def with_url(server: Server) -> None:
            await use("http://{}:{}".format(*server.addresses[0][:2]), names["hub"])

        names: dict[str, Any] = {"__name__": "program", "use": with_url, **given}
        for number, block in enumerate((first, *further)):
            exec(compile(block, f"{DOC.name}, block {number}", "exec"), names)
        await names["main"]()

    return run


async def asked(url: str, value: Any) -> tuple[int, Any]:
    """The answer to a POST."""
    async with fetch(url, json=value, check=False) as response:
        return response.status, [item async for item in response.items()]


async def read(url: str) -> list[tuple[str | None, Any]]:
    """A stream's events, to its end."""
    async with events(url, last_event_id="earliest") as source:
        return [(event.event, event.data) async for event in source]


async def test_what_is_published_comes_to_who_subscribes_and_to_who_reads_in_python(
    run: Callable[..., Awaitable[None]],
) -> None:
    reading = "async def reading(hub, last_id, event=None):\n" + textwrap.indent(READING, "    ") + "    return event\n"
    names: dict[str, Any] = {}
    exec(reading, names)

    async def use(url: str, hub: Hub) -> None:
        status, (answer,) = await asked(f"{url}/news", {"title": "first"})
        assert (status, [*answer]) == (201, ["id"])
        reader = in_background(names["reading"](hub, answer["id"]))
        await until(lambda: hub.channel("news").subscribers == 1)
        await hub.channel("news").close()
        assert (await reader).event == "stream-end"
        assert await read(f"{url}/news") == [("headline", '{"title":"first"}'), ("stream-end", "{}")]

    await run(use)


async def test_a_run_can_be_followed_by_who_knows_its_id(run: Callable[..., Awaitable[None]]) -> None:
    async def answer(question: str) -> Any:
        yield question

    async def use(url: str, hub: Hub) -> None:
        status, (begun,) = await asked(f"{url}/answers", "why?")
        assert status == 201
        assert await read(f"{url}/answers/{begun['id']}") == [(None, '"why?"'), ("stream-end", "{}")]

    await run(use, RUNS, answer=answer)


async def test_jobs_come_from_what_start_returns(run: Callable[..., Awaitable[None]]) -> None:
    async def use(url: str, hub: Hub) -> None:
        status, (begun,) = await asked(f"{url}/jobs", 2)
        assert status == 201
        steps = [(None, f'{{"step":{n},"of":2}}') for n in (1, 2)]
        assert await read(url + begun["location"]) == [*steps, ("stream-end", "{}")]
        with pytest.raises(errors.StatusError, match="give the number of steps"):
            async with fetch(f"{url}/jobs", json=0):
                pass
        assert (await asked(f"{url}/channels/other", "text"))[0] == 201

    await run(use, JOBS)
