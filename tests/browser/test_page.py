"""The page as a whole: from disk, in two languages, in light and dark, on a phone, by keyboard, for a screen reader."""

from __future__ import annotations

import re
import socket

import pytest
from playwright.async_api import Page, expect

from rawstream.demo import router as routes

from .conftest import PAGE, Hosting, OpenPage

pytestmark = pytest.mark.asyncio(loop_scope="session")

PANELS = ("typed", "compare", "events", "publish", "job", "bulk")


async def run_all(page: Page) -> None:
    """Run every panel to its end, so that everything that can be shown is shown."""
    await page.get_by_role("switch").check()
    await page.click("#subscribe .primary")
    for panel in PANELS:
        name, value = ("rows", "2000") if panel == "bulk" else ("delay", "0.01")
        await page.fill(f"#{panel} [name={name}]", value)
        await page.click(f"#{panel} .primary")
    for panel in PANELS:
        await expect(page.locator(f"#{panel} .status")).to_have_attribute("data-state", "done")
    await expect(page.locator("#feed .log")).to_contain_text("Hello, 世界")


# -- where it talks to -------------------------------------------------------------------------------------------------


async def test_from_disk_with_a_server_in_the_address(demo: str, open_page: OpenPage) -> None:
    """Opened as a file, all panels work with another origin: preflights, null origin, EventSource too."""
    page = await open_page(f"{PAGE.as_uri()}?server={demo}")
    await expect(page.locator("#server")).to_have_text(f"{demo} answers")
    await expect(page.locator("#help")).to_be_hidden()
    await run_all(page)


async def test_from_disk_shows_the_words_of_the_server(demo: str, open_page: OpenPage) -> None:
    """An error's answer needs its CORS field too, or the page can't tell it from no answer at all."""
    page = await open_page(f"{PAGE.as_uri()}?server={demo}", expect_errors=True)
    await page.fill("#typed [name=text]", "x" * 100_001)
    await page.click("#typed .primary")
    words = "The server answered: 400 text is a string of at most 100000 characters"
    await expect(page.locator("#typed .status")).to_have_text(words)


async def test_from_disk_asks_the_usual_address(open_page: OpenPage) -> None:
    page = await open_page(PAGE.as_uri(), expect_errors=True)
    await expect(page.locator("#server")).to_contain_text("http://127.0.0.1:8000")


async def test_no_server_is_said_with_the_way_to_start_one(open_page: OpenPage) -> None:
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))  # bound but not listening: nobody answers there, and nobody else can take it
        address = f"http://127.0.0.1:{unheard.getsockname()[1]}"
        page = await open_page(f"{PAGE.as_uri()}?server={address}", expect_errors=True)
        await expect(page.locator("#server")).to_have_text(f"{address} does not answer")
        await expect(page.locator("#help pre")).to_have_text("make run")
        await expect(page.locator("#help")).to_contain_text("python -m rawstream")
        await page.click("#typed .primary")
        await expect(page.locator("#typed .status")).to_contain_text("No answer from the server")
        await page.get_by_role("button", name="Check again").click()
        await expect(page.locator("#help")).to_be_visible()


@pytest.mark.parametrize(
    "asked",
    [
        "nonsense",
        "ftp://127.0.0.1",
        "javascript:alert(1)",
        "http://user:pw@127.0.0.1:9",
        "http://127.0.0.1:9/path",
        "//x",
    ],
)
async def test_what_is_no_server_address_is_refused(asked: str, demo: str, open_page: OpenPage) -> None:
    page = await open_page(f"{demo}?server={asked}")
    await expect(page.locator("#server")).to_have_text(f"Not a server address: {asked}. Using {demo}")


async def test_it_asks_nobody_else(demo: str, open_page: OpenPage) -> None:
    """No CDN, no font, no counter: every request of the page goes to its server."""
    page = await open_page("about:blank")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    await page.goto(demo)
    await run_all(page)
    assert len(asked) >= 6
    assert [url for url in asked if not url.startswith((demo, "data:"))] == []


VIOLATIONS = """
  window.violations = [];
  addEventListener("securitypolicyviolation", (e) => violations.push(`${e.effectiveDirective} ${e.blockedURI}`), true);
"""


async def violations(page: Page) -> list[str]:
    return await page.evaluate("() => violations")


async def test_it_works_under_its_own_policy(demo: str, open_page: OpenPage) -> None:
    """The server sends the page with a Content-Security-Policy that allows its own script, style and server alone."""
    page = await open_page("about:blank")
    await page.add_init_script(VIOLATIONS)
    answer = await page.goto(demo)
    assert answer is not None
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "unsafe" not in answer.headers["content-security-policy"]
    await run_all(page)
    await page.get_by_role("button", name="中文").click()
    await page.get_by_role("button", name="深色").click()
    await page.fill("#typed [name=delay]", "11")
    await page.click("#typed .primary")
    await expect(page.locator("#typed .status")).to_have_attribute("data-state", "failed")
    await page.locator("#events label:has([value=clock])").click()
    await page.click("#events .primary")
    await expect(page.locator("#events .status")).to_have_attribute("data-state", "busy")
    await page.click("#events .stop")
    margin = "(title) => getComputedStyle(title).marginTop"
    assert await page.locator("h1").evaluate(margin) == "0px", "styles are applied"
    assert await violations(page) == []


async def test_nothing_else_runs_there(demo: str, open_page: OpenPage) -> None:
    """What was smuggled into the page would neither run, nor load, nor send anything away, nor show it in a frame."""
    page = await open_page("about:blank", expect_errors=True)
    await page.add_init_script(VIOLATIONS)
    await page.goto(demo)
    await page.evaluate("""async () => {
      const add = (name, properties) => document.body.append(Object.assign(document.createElement(name), properties));
      const seen = new Promise((resolve) => addEventListener("securitypolicyviolation", () => {
        if (violations.length === 6) resolve();
      }));
      add("script", { textContent: "window.smuggled = true;" });
      add("style", { textContent: "h1 { margin-top: 7px; }" });
      document.querySelector("h1").setAttribute("onclick", "window.smuggled = true;");
      document.querySelector("h1").click();
      add("img", { src: "/healthz" });
      add("iframe", { src: "/healthz" });
      fetch("http://127.0.0.1:9/").catch(() => {});
      await seen;
    }""")
    assert await page.evaluate("() => window.smuggled") is None
    assert sorted(await violations(page)) == sorted(
        [
            "script-src-elem inline",
            "script-src-attr inline",
            "style-src-elem inline",
            f"img-src {demo}/healthz",
            f"frame-src {demo}/healthz",
            "connect-src http://127.0.0.1:9/",
        ]
    )


async def test_a_page_of_one_server_talks_to_another_that_allows_it(
    demo: str, hosting: Hosting, open_page: OpenPage
) -> None:
    """The policy lets the page reach the server that the address names, and that one lets it in by its origin."""
    other = await hosting(routes, allowed_origins=[demo])
    page = await open_page("about:blank")
    await page.add_init_script(VIOLATIONS)
    await page.goto(f"{demo}?server={other}")
    await expect(page.locator("#server")).to_have_text(f"{other} answers")
    await run_all(page)
    assert await violations(page) == []


async def test_a_page_of_one_server_is_not_let_into_another_that_does_not(
    demo: str, hosting: Hosting, open_page: OpenPage
) -> None:
    page = await open_page(f"{demo}?server={await hosting(routes)}", expect_errors=True)
    await page.click("#typed .primary")
    await expect(page.locator("#typed .status")).to_contain_text("No answer from the server")


# -- language and colours ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("locale", "lang", "word"), [("zh-CN", "zh-CN", "开始"), ("zh-TW", "zh-CN", "开始"), ("de-DE", "en", "Start")]
)
async def test_language_follows_the_browser(locale: str, lang: str, word: str, demo: str, open_page: OpenPage) -> None:
    page = await open_page(demo, locale=locale)
    await expect(page.locator("html")).to_have_attribute("lang", lang)
    await expect(page.locator("#typed .primary")).to_have_text(word)


async def test_language_switch_is_complete_and_remembered(demo: str, open_page: OpenPage) -> None:
    page = await open_page(demo)
    await run_all(page)
    await page.get_by_role("button", name="中文").click()
    await expect(page.locator("html")).to_have_attribute("lang", "zh-CN")
    await expect(page).to_have_title("rawstream：看一个流如何到达")
    await expect(page.locator("#typed .status")).to_contain_text("完成：")
    await expect(page.locator("#typed figcaption")).to_contain_text("最长间隔")
    await expect(page.locator("#events .log li").first).to_contain_text("流已打开")
    await expect(page.get_by_role("group", name="回答").first).to_be_visible()
    untold = "(all) => all.filter((e) => !e.textContent.trim() && e.offsetParent).map((e) => e.dataset.t)"
    assert await page.locator("[data-t]").evaluate_all(untold) == []
    await page.reload()
    await expect(page.locator("#typed .primary")).to_have_text("开始")
    await page.get_by_role("button", name="English").click()
    await expect(page.locator("html")).to_have_attribute("lang", "en")
    await expect(page.locator("#typed .primary")).to_have_text("Start")


async def test_each_word_is_there_in_both_languages(demo: str, open_page: OpenPage) -> None:
    """No key without words, no words without a key; placeholders and code are the same on both sides."""
    page = await open_page(demo)
    (
        words,
        used,
    ) = await page.evaluate("""() => [WORDS, [...document.querySelectorAll("script")].map((s) => s.text).join("")
      + document.body.innerHTML]""")
    for key, (english, chinese) in words.items():
        assert english, key
        assert chinese, key
        assert sorted(re.findall(r"\{\d\}", english)) == sorted(re.findall(r"\{\d\}", chinese)), key
        assert sorted(re.findall(r"`[^`]+`", english)) == sorted(re.findall(r"`[^`]+`", chinese)), key
        script = used.replace(f'"{key}": [', "")
        assert key.startswith("failed-") or f'"{key}"' in script or f".{key}" in script, f"{key} is said nowhere"


async def background(page: Page) -> str:
    return await page.evaluate("() => getComputedStyle(document.body).backgroundColor")


async def test_colours_follow_the_system_until_chosen(demo: str, open_page: OpenPage) -> None:
    page = await open_page(demo)
    light = await background(page)
    await page.emulate_media(color_scheme="dark")
    dark = await background(page)
    assert light != dark
    await page.get_by_role("button", name="Light").click()
    assert await background(page) == light
    await page.reload()
    assert await background(page) == light, "remembered, though the system is dark"
    await page.get_by_role("button", name="Dark").click()
    assert await background(page) == dark


CONTRAST = """() => {
  const channels = (colour) => {
    const [r, g, b, a = 1] = colour.match(/[\\d.]+/g).map(Number);
    return { r, g, b, a };
  };
  const light = ({ r, g, b }) => [r, g, b].map((v) => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const poor = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node; (node = walker.nextNode()); ) {
    const element = node.parentElement;
    if (!node.data.trim() || !element.getClientRects().length || element.closest("script, :disabled")) continue;
    const style = getComputedStyle(element);
    let behind = element, ground;
    for (; behind; behind = behind.parentElement) {
      ground = channels(getComputedStyle(behind).backgroundColor);
      if (ground.a === 1) break;
    }
    const [a, b] = [light(channels(element instanceof SVGElement ? style.fill : style.color)), light(ground)];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) poor.push(`${ratio.toFixed(2)} ${element.tagName} ${node.data.trim().slice(0, 20)}`);
  }
  return poor;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_contrast_is_enough(scheme: str, demo: str, open_page: OpenPage) -> None:
    """WCAG AA: 4.5 to 1 for every text on the page, with all that a run shows, and with an error."""
    page = await open_page(demo, color_scheme=scheme, expect_errors=True)
    await run_all(page)
    await page.fill("#typed [name=text]", "x" * 100_001)
    await page.fill("#compare [name=delay]", "11")
    for panel in ("typed", "compare"):
        await page.click(f"#{panel} .primary")
        await expect(page.locator(f"#{panel} .status")).to_have_attribute("data-state", "failed")
    assert await page.evaluate(CONTRAST) == []


# -- hands and eyes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("locale", "width"), [("zh-CN", 360), ("en-US", 320), ("en-US", 768)])
async def test_nothing_is_wider_than_the_screen(locale: str, width: int, demo: str, open_page: OpenPage) -> None:
    page = await open_page(demo, locale=locale, viewport={"width": width, "height": 740})
    await run_all(page)
    assert await page.evaluate("() => document.documentElement.scrollWidth") <= width
    beyond = await page.evaluate(
        """(width) => [...document.querySelectorAll("button, input, label, dd, dt, h2, .status, svg, .choice")]
          .filter((e) => e.getClientRects().length && e.getBoundingClientRect().right > width)
          .map((e) => e.outerHTML)""",
        width,
    )
    assert beyond == []
    small = await page.locator("button, .check, .choice label").evaluate_all(
        """(all) => all.filter((e) => e.getClientRects().length && e.getBoundingClientRect().height < 36)
          .map((e) => e.outerHTML)"""
    )
    assert small == [], "too small for a finger"


@pytest.mark.parametrize("locale", ["zh-CN", "en-US"])
async def test_a_name_in_a_sentence_is_in_one_piece_and_within_it(locale: str, demo: str, open_page: OpenPage) -> None:
    page = await open_page(demo, locale=locale)
    await page.evaluate("() => document.querySelectorAll('main [hidden]').forEach((e) => { e.hidden = false; })")
    for width in range(320, 800, 20):
        await page.set_viewport_size({"width": width, "height": 740})
        names = page.locator("p code").filter(visible=True)
        assert await names.count() > 10
        broken = await names.evaluate_all("""(all) => all.filter((e) =>
          e.getClientRects().length > 1 && !e.textContent.includes("//") ||
          e.getBoundingClientRect().right > e.closest("p").getBoundingClientRect().right)
          .map((e) => e.textContent)""")
        assert broken == [], width


async def test_a_chunk_s_bytes_are_as_large_as_its_figures(demo: str, open_page: OpenPage) -> None:
    page = await open_page(demo)
    await page.check("#show-bytes")
    await page.click("#typed .primary")
    line = page.locator("#bytes li").first
    await expect(line).to_be_visible()
    sizes = await line.locator("*").evaluate_all("(all) => all.map((e) => getComputedStyle(e).fontSize)")
    assert len(sizes) > 2
    assert len({*sizes}) == 1


async def test_by_keyboard_alone(demo: str, open_page: OpenPage) -> None:
    """Tab through every control in the order of the page; an arrow chooses, Enter starts, Space stops."""
    page = await open_page(demo)
    await page.evaluate("() => { document.querySelector('#typed [name=delay]').value = 5; }")
    seen: list[str] = []
    for _ in range(60):
        await page.keyboard.press("Tab")
        name, outlined = await page.evaluate("""() => {
          const active = document.activeElement;
          const shown = active.type === "radio" ? active.nextElementSibling : active;
          const own = active.name || active.id || active.className || active.tagName;
          return [active.closest("section")?.id + " " + own,
                  getComputedStyle(shown).outlineStyle !== "none"];
        }""")
        if name == "undefined BODY":
            break
        assert outlined, f"the focus on {name} is not seen"
        seen.append(name)
        if name == "typed format":
            await page.keyboard.press("ArrowRight")
        if name == "typed primary":
            await page.keyboard.press("Enter")
            await expect(page.locator("#typed .status")).to_contain_text("application/x-ndjson")
            await expect(page.locator("#typed .primary")).to_be_focused()
        if name == "typed stop":
            await page.keyboard.press("Space")
            await expect(page.locator("#typed .status")).to_have_text("Stopped by you")
            await expect(page.locator("#typed .primary")).to_be_focused()
    wanted = ["undefined language", "undefined theme", "typed text", "typed delay", "typed repeat", "typed format"]
    wanted += ["typed primary", "typed stop", "typed show-bytes", "compare delay", "compare primary", "events source"]
    wanted += ["events delay", "events primary", "events polite", "feed channel", "feed primary", "feed text"]
    wanted += ["feed repeat", "feed delay", "job steps", "job delay", "job primary"]
    wanted += ["bulk rows", "bulk format", "bulk primary"]
    in_order = [name for name in dict.fromkeys(seen) if name in wanted]
    assert in_order == wanted
    assert seen.count("feed primary") == 2, "Subscribe and Publish"


async def test_every_control_and_plot_has_a_name(demo: str, open_page: OpenPage) -> None:
    page = await open_page(demo)
    await run_all(page)
    session = await page.context.new_cdp_session(page)
    nodes = (await session.send("Accessibility.getFullAXTree"))["nodes"]
    named = {
        "button",
        "textbox",
        "spinbutton",
        "radio",
        "checkbox",
        "switch",
        "progressbar",
        "image",
        "region",
        "group",
    }
    roles: dict[str, int] = {}
    for node in nodes:
        role = node.get("role", {}).get("value")
        if node["ignored"] or role not in named:
            continue
        roles[role] = roles.get(role, 0) + 1
        assert node.get("name", {}).get("value", "").strip(), node
    assert roles.keys() >= {"button", "textbox", "spinbutton", "radio", "switch", "progressbar", "image", "region"}
    plots = await page.get_by_role("img").evaluate_all(
        "(all) => all.map((e) => document.getElementById(e.getAttribute('aria-labelledby')).textContent)"
    )
    assert len(plots) == 5
    assert all(re.search(r"arrival", text) for text in plots), plots
    ids = await page.locator("[id]").evaluate_all("(all) => all.map((e) => e.id)")
    assert len(ids) == len(set(ids))


async def test_only_status_lines_speak(demo: str, open_page: OpenPage) -> None:
    """A character a half second read aloud would be torture: what grows is not live, and no status changes per item."""
    page = await open_page(demo)
    live = await page.locator("[aria-live], [role=status], [role=log], [role=alert], output").evaluate_all(
        "(all) => all.map((e) => e.className)"
    )
    assert live == ["server", *["status"] * (len(PANELS) + 1)]
    await page.evaluate("""() => {
      window.said = [];
      new MutationObserver(() => said.push(document.querySelector("#typed .status").textContent))
        .observe(document.querySelector("#typed .status"), { childList: true, subtree: true, characterData: true });
    }""")
    await page.fill("#typed [name=delay]", "0.01")
    await page.click("#typed .primary")
    await expect(page.locator("#typed .status")).to_have_attribute("data-state", "done")
    assert len(await page.evaluate("() => said")) == 3, "connecting, streaming, complete"


async def test_less_motion_for_those_who_ask(demo: str, open_page: OpenPage) -> None:
    page = await open_page(demo, reduced_motion="reduce")
    await page.click("#typed .primary")
    await expect(page.locator("#typed .status")).to_have_attribute("data-state", "busy")
    assert await page.evaluate("() => document.getAnimations().length") == 0
    await page.click("#typed .stop")
