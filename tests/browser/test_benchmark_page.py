"""The page of the benchmarks in a real browser: on a phone, at night, and without a network."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from playwright.async_api import Browser

sys.path.append(str(Path(__file__).parents[1]))

from benchmark_results import crowd, entry, outcome, result

from benchmarks import page
from benchmarks.syscalls import Syscalls

pytestmark = pytest.mark.asyncio(loop_scope="session")

# Of all words that are shown in drawings: those that lie across each other, or outside of their drawing.
COLLISIONS = """() => [...document.querySelectorAll("figure svg")].filter(svg => svg.clientWidth).flatMap(svg => {
  const frame = svg.getBoundingClientRect()
  const boxes = [...svg.querySelectorAll("text")].map(text => [text.textContent, text.getBoundingClientRect()])
  const outside = boxes.filter(([, box]) => box.left < frame.left - 1 || box.right > frame.right + 1)
  const meet = (a, b) => Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1
    && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 4
  const across = boxes.flatMap(([one, a], n) =>
    boxes.slice(n + 1).filter(([, b]) => meet(a, b)).map(([other]) => [one, other]))
  return [...outside.map(([words]) => [words]), ...across]
})"""


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of a page with twenty contenders whose figures are close together."""
    floor = entry("floor", {"cpu_per_chunk_us": [19.0, 19.0, 19.0]})
    many = crowd(20)
    for each in many:
        each.syscalls = Syscalls("strace", 2.5, {"epoll_pwait": 1.0})
    found = result(outcome(floor, *many))
    path, *_ = page.write(found, tmp_path_factory.mktemp("page"))
    return path.as_uri()


@pytest.mark.parametrize("width", [1280, 390])
async def test_no_words_collide_and_nothing_scrolls_sideways(browser: Browser, shown: str, width: int) -> None:
    context = await browser.new_context(viewport={"width": width, "height": 900})
    tab = await context.new_page()
    asked: list[str] = []
    tab.on("request", lambda request: asked.append(request.url))
    await tab.goto(shown)
    assert await tab.evaluate("document.documentElement.scrollWidth") <= width
    assert await tab.evaluate(COLLISIONS) == []
    assert asked == [shown], "nothing else is loaded"
    await context.close()


async def test_the_page_is_dark_at_night_and_white_on_paper(browser: Browser, shown: str) -> None:
    context = await browser.new_context(color_scheme="dark")
    tab = await context.new_page()
    await tab.goto(shown)
    color = "getComputedStyle(document.body).backgroundColor"
    assert await tab.evaluate(color) == "rgb(18, 22, 28)"
    await tab.emulate_media(media="print")
    assert await tab.evaluate(color) == "rgb(255, 255, 255)"
    await context.close()
