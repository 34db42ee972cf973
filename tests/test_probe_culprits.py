"""The probe against real proxies: each culprit is named, no good one is accused, and docs/probe.md shows it."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import starlette as starlette_package
from culprits import (
    batches,
    by_the_clock,
    far,
    haproxy,
    impatient,
    nameless,
    nginx,
    old_gzip,
    one_behind,
    relay,
    starlette,
    todays_gzip,
    whole,
)
from processes import running

from rawstream.probe.conclusion import Conclusion, conclude
from rawstream.probe.hunt import Hunt
from rawstream.probe.measure import Asker

PAGE = Path(__file__).parent.parent / "docs" / "probe.md"

HTTP_1_1 = 'proxy_http_version 1.1; proxy_set_header Connection "";'
GZIP = "gzip on; gzip_types text/plain text/event-stream; gzip_proxied any; gzip_min_length 0;"
VIA = 'http-response set-header Via "1.1 haproxy"'  # RFC 9110 section 7.6.3 wants it; HAProxy does it only if told


@dataclass(frozen=True)
class Around:
    """The way to the server behind: `start(behind, directory)` gives a context in which a port is open."""

    start: Callable[[int, Path], Any]
    idle: float = 0.0


def _nginx(site: str, idle: float = 0.0) -> Around:
    return Around(lambda behind, directory: nginx(behind, directory, site), idle)


def _haproxy(site: str, idle: float = 0.0) -> Around:
    return Around(lambda behind, directory: haproxy(behind, directory, site), idle)


def _relay(move: Any, idle: float = 0.0) -> Around:
    return Around(lambda behind, directory: relay(behind, move), idle)


@contextlib.asynccontextmanager
async def _nameless_nginx(behind: int, directory: Path) -> AsyncIterator[int]:
    with nginx(behind, directory, "") as port:
        async with relay(port, nameless) as stripped:
            yield stripped


AROUND = {
    "nothing": Around(lambda behind, directory: contextlib.nullcontext(behind)),
    "nginx, `proxy_http_version 1.1`": _nginx(HTTP_1_1),
    "nginx, `gzip on` and `proxy_buffering off`": _nginx(f"{HTTP_1_1} {GZIP} proxy_buffering off;"),
    "HAProxy, `option http-no-delay`": _haproxy("option http-no-delay"),
    "HAProxy without it": _haproxy(""),
    "Starlette's GZipMiddleware since 1.5": Around(lambda behind, directory: starlette(behind, todays_gzip())),
    "a way of 0.4 s": _relay(far(0.4)),
    "nginx as installed (HTTP/1.0 to the origin)": _nginx(""),
    "the same, with `Server` and `Via` removed": Around(_nameless_nginx),
    "the same, with `proxy_ignore_headers`": _nginx("proxy_ignore_headers X-Accel-Buffering;"),
    "nginx, `gzip on`": _nginx(f"{HTTP_1_1} {GZIP}"),
    "HAProxy, `http-response wait-for-body`": _haproxy(f"http-response wait-for-body time 20s\n    {VIA}"),
    "Starlette's GZipMiddleware before 1.5": Around(lambda behind, directory: starlette(behind, old_gzip())),
    "nginx, `proxy_read_timeout 1s`": _nginx(f"{HTTP_1_1} proxy_buffering off; proxy_read_timeout 1s;", idle=4),
    "a relay that cuts what is silent for 1 s": _relay(impatient(1), idle=4),
    "a relay that gathers 900 bytes": _relay(batches(900)),
    "a relay that flushes each 0.3 s": _relay(by_the_clock(0.3)),
    "a relay that flushes each 1.2 s": _relay(by_the_clock(1.2)),
    "a relay that flushes each 2 s": _relay(by_the_clock(2)),
    "a relay that is one chunk behind": _relay(one_behind),
    "a relay that waits for the end": _relay(whole),
}


def promised() -> dict[str, tuple[str, str]]:
    """What the page's table says of each: verdict and culprit."""
    rows = re.findall(r"^\| (.+?) \| (.+?) \| (.+?) \|$", PAGE.read_text("utf-8"), re.MULTILINE)
    return {name: (verdict, culprit) for name, verdict, culprit in rows if name in AROUND}


async def probed(name: str, behind: int, directory: Path) -> Conclusion:
    around = AROUND[name]
    async with contextlib.AsyncExitStack() as stack:
        context = around.start(behind, directory)
        enter = stack.enter_async_context if hasattr(context, "__aenter__") else None
        port = await enter(context) if enter and not hasattr(context, "__enter__") else stack.enter_context(context)
        hunt = Hunt(Asker(f"http://127.0.0.1:{port}/probe"), 20.0, around.idle)
        await hunt.run()
        return conclude(hunt.cases)


async def all_probed(names: Collection[str], behind: int, directory: Path, at_a_time: int = 8) -> dict[str, Conclusion]:
    directory.mkdir(mode=0o755)
    room = asyncio.Semaphore(at_a_time)

    async def one(place: int, name: str) -> Conclusion:
        async with room:
            return await probed(name, behind, directory / str(place))

    found = await asyncio.gather(*(one(place, name) for place, name in enumerate(names)))
    return dict(zip(names, found, strict=True))


def short(name: str, conclusion: Conclusion) -> tuple[str, str]:
    """The verdict without its numbers, which a busy machine changes."""
    culprit = conclusion.culprit.name if conclusion.culprit else "none"
    # HAProxy waits for its buffer, which may be a little smaller or larger than what it is sent here.
    if promised()[name][0] == "held back" and conclusion.kind in ("held", "batches"):
        return "held back", culprit
    words = {"batches": "in batches", "held": "held until the end", "cut": "cut when idle"}
    return words.get(conclusion.kind, conclusion.kind), culprit


def test_each_culprit_is_named_and_no_good_one_accused(tmp_path: Path) -> None:
    """One test, in which all proxies run at once: each takes the seconds that its streams take.

    The machine has much else to do meanwhile, and timing is all there is: who is misjudged is asked once more, alone.
    """
    tmp_path.chmod(0o755)
    expected = promised()
    version = tuple(map(int, starlette_package.__version__.split(".")[:2]))
    if version < (1, 5):
        expected["Starlette's GZipMiddleware since 1.5"] = expected["Starlette's GZipMiddleware before 1.5"]
    with running("--port", "0") as server:
        found = asyncio.run(all_probed([*AROUND], server.port, tmp_path / "together"))
        misjudged = [name for name, conclusion in found.items() if short(name, conclusion) != expected[name]]
        assert len(misjudged) <= 2, {name: short(name, found[name]) for name in misjudged}
        found |= asyncio.run(all_probed(misjudged, server.port, tmp_path / "alone", at_a_time=1))
    assert {name: short(name, conclusion) for name, conclusion in found.items()} == expected
    assert not any(conclusion.inferred for conclusion in found.values())
