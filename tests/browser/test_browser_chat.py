"""examples/chat.py in Chromium: its page keeps in order what was said, also when an answer is not waited for."""

from __future__ import annotations

import asyncio
import runpy
from collections.abc import AsyncIterator
from typing import Any

import pytest
from playwright.async_api import Page, expect

from rawstream import Request, Router, Stream

from .conftest import ROOT, Hosting, OpenPage

pytestmark = pytest.mark.asyncio(loop_scope="session")

Tokens = asyncio.Queue[str | None]


async def say(page: Page, text: str) -> None:
    await page.fill("#say", text)
    await page.press("#say", "Enter")


async def test_what_is_said_while_an_answer_comes_ends_it_and_stands_behind_it(
    hosting: Hosting, open_page: OpenPage
) -> None:
    turns: asyncio.Queue[tuple[list[Any], Tokens]] = asyncio.Queue()
    router = Router()
    router.get("/")(runpy.run_path(str(ROOT / "examples" / "chat.py"))["page"])

    @router.post("/chat")
    async def chat(request: Request) -> Stream:
        tokens: Tokens = asyncio.Queue()
        turns.put_nowait(((await request.json())["messages"], tokens))
        return Stream(answer(tokens))

    async def answer(tokens: Tokens) -> AsyncIterator[str]:
        while (token := await tokens.get()) is not None:
            yield token

    page = await open_page(await hosting(router))
    log = page.locator("#log")
    await say(page, "one")
    _, tokens = await turns.get()
    tokens.put_nowait("first")
    await expect(log).to_have_text("You: one\nfirst")
    await say(page, "two")
    await expect(log).to_have_text("You: one\nfirst [stopped]\nYou: two")
    _, tokens = await turns.get()
    for token in ("second", None):
        tokens.put_nowait(token)
    await page.wait_for_function("messages.length === 4")
    await say(page, "three")
    asked, _ = await turns.get()
    assert [message["role"] for message in asked] == ["user", "assistant", "user", "assistant", "user"]
    assert [message["content"] for message in asked] == ["one", "first", "two", "second", "three"]
