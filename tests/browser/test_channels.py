"""The news feed of the page: what is published in one tab is seen in others, and what is cut goes on without loss."""

from __future__ import annotations

import re
import signal
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.async_api import Page, Route, expect
from processes import running

from rawstream import Hub
from rawstream.demo import build

from .conftest import PAGE, Hosting, Lines, OpenPage

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def subscribe(page: Page) -> None:
    """Subscribe, and wait until the log is followed."""
    await page.click("#subscribe .primary")
    await is_subscribed(page)


async def is_subscribed(page: Page) -> None:
    await expect(page.locator("#subscribe .status")).to_contain_text("Subscribed to news")


async def publish(page: Page, text: str, repeat: int = 1) -> None:
    """Publish as a user does, and wait until it is done."""
    await page.fill("#publish [name=text]", text)
    await page.fill("#publish [name=repeat]", str(repeat))
    await page.fill("#publish [name=delay]", "0")
    await page.click("#publish .primary")
    await expect(page.locator("#publish .status")).to_contain_text(
        "Published: 1 event, with the id" if repeat == 1 else f"Published: {repeat} events, the last with the id"
    )


async def news(page: Page) -> list[tuple[str, str]]:
    """What the log shows of events: their numbers, and what they say."""
    rows = await page.locator("#feed .log li").evaluate_all(
        "(rows) => rows.map((row) => [...row.children].slice(1).map((cell) => cell.textContent))"
    )
    return [(kind, text) for kind, text in rows if kind.startswith("#")]


async def shows(page: Page, **figures: str) -> None:
    for figure, value in figures.items():
        await expect(page.locator(f"#feed [data-figure={figure}]")).to_have_text(value)


async def lost_nothing(page: Page, received: int, reconnects: int) -> None:
    await shows(page, received=str(received), missing="0", told="0", repeated="0", reconnects=str(reconnects))
    await expect(page.locator("#feed dd:is(.bad, .told)")).to_have_count(0)


async def second_tab(page: Page) -> Page:
    tab = await page.context.new_page()
    await tab.goto(page.url)
    return tab


async def test_what_one_tab_publishes_the_other_sees_in_order(hub: Hub, hosting: Hosting, open_page: OpenPage) -> None:
    first = await open_page(await hosting(build(hub)))
    second = await second_tab(first)
    await subscribe(first)
    await publish(second, "before", 3)
    await subscribe(second)
    await lost_nothing(second, 3, 0)
    await publish(first, "after", 30)
    wanted = [(f"#{n}", f"before ({n})") for n in (1, 2, 3)] + [(f"#{n + 3}", f"after ({n})") for n in range(1, 31)]
    for page in (first, second):
        await lost_nothing(page, 33, 0)
        assert await news(page) == wanted


async def test_from_disk(hub: Hub, hosting: Hosting, open_page: OpenPage) -> None:
    """With the origin "null": a preflight for the key, and EventSource across origins."""
    page = await open_page(f"{PAGE.as_uri()}?server={await hosting(build(hub), allowed_origins=['null'])}")
    await subscribe(page)
    await publish(page, "hello")
    await lost_nothing(page, 1, 0)


async def test_from_disk_where_things_are_kept_it_is_told_the_way_in(
    hub: Hub, hosting: Hosting, open_page: OpenPage
) -> None:
    """As with --store: the server lets no page of the origin "null" in, so not a word of it can be read."""
    url = await hosting(build(hub))
    page = await open_page(f"{PAGE.as_uri()}?server={url}", expect_errors=True)
    await expect(page.locator("#server")).to_have_text(f"{url} does not let this page in")
    await expect(page.locator("#shut")).to_contain_text(f"--allowed-origin null. Open {url} instead")
    await expect(page.locator("#help")).to_be_hidden()
    for part in ("publish", "subscribe"):
        await page.click(f"#{part} .primary")
        await expect(page.locator(f"#{part} .status")).to_contain_text("does not let pages of the origin null in")
    await expect(page.locator("#subscribe .cut")).to_be_disabled()


async def test_cut_by_the_page_goes_on_after_what_it_saw(hub: Hub, hosting: Hosting, open_page: OpenPage) -> None:
    """What it says on the button: the request is aborted, and a new one has ?last_event_id=, here at once."""
    page = await open_page(await hosting(build(hub)))
    await subscribe(page)
    await publish(page, "one")
    await lost_nothing(page, 1, 0)
    await page.get_by_role("button", name="Cut my connection").click()
    await expect(page.locator("#subscribe .status")).to_contain_text("It goes on in 5 s")
    await publish(page, "two", 5)
    await shows(page, received="1")
    async with page.expect_request(re.compile(r"last_event_id=[0-9]+-1$")):
        await page.click("#subscribe .primary")
    await lost_nothing(page, 6, 1)


async def test_cut_by_the_page_goes_on_by_itself(hub: Hub, hosting: Hosting, open_page: OpenPage) -> None:
    page = await open_page("about:blank")
    await page.clock.install()
    await page.goto(await hosting(build(hub)))
    await subscribe(page)
    await page.click("#subscribe .cut")
    await hub.channel("news").publish("meanwhile")
    await page.clock.run_for(5_000)
    await lost_nothing(page, 1, 1)


async def test_unsubscribed_goes_on_where_it_left(hub: Hub, hosting: Hosting, open_page: OpenPage) -> None:
    page = await open_page(await hosting(build(hub)))
    await subscribe(page)
    await publish(page, "one")
    await page.get_by_role("button", name="Unsubscribe").click()
    await expect(page.locator("#subscribe .primary")).to_be_focused()
    await expect(page.locator("#subscribe .cut")).to_be_disabled()
    await publish(page, "two")
    await subscribe(page)
    await lost_nothing(page, 2, 1)
    await page.fill("#subscribe [name=channel]", "weather")
    await page.click("#subscribe .primary")
    await expect(page.locator("#subscribe .status")).to_have_text("Subscribed to weather")
    await shows(page, received="0", reconnects="0")


async def test_reloaded_it_goes_on_where_it_was(hub: Hub, hosting: Hosting, open_page: OpenPage) -> None:
    page = await open_page(await hosting(build(hub)))
    await subscribe(page)
    await publish(page, "one", 3)
    await lost_nothing(page, 3, 0)
    await page.goto("about:blank")
    for n in range(4):
        await hub.channel("news").publish(f"meanwhile {n}")
    await page.go_back()
    await lost_nothing(page, 7, 1)
    assert await news(page) == [(f"#{n + 4}", f"meanwhile {n}") for n in range(4)]
    await page.reload()
    await is_subscribed(page)
    await publish(page, "last")
    await lost_nothing(page, 8, 2)


async def test_offline_it_loses_nothing(hub: Hub, hosting: Hosting, line: Lines, open_page: OpenPage) -> None:
    network, url = await line(await hosting(build(hub)))
    page = await open_page(url, expect_errors=True)
    await subscribe(page)
    await publish(page, "one")
    await lost_nothing(page, 1, 0)
    await page.context.set_offline(True)
    network.cut()
    await expect(page.locator("#subscribe .status")).to_contain_text("the page reconnects by itself")
    for n in range(10):
        await hub.channel("news").publish(f"offline {n}")
    await page.context.set_offline(False)
    await lost_nothing(page, 11, 1)


async def test_the_connection_lost_the_page_comes_back(
    hub: Hub, hosting: Hosting, line: Lines, open_page: OpenPage
) -> None:
    network, url = await line(await hosting(build(hub)))
    page = await open_page(url, expect_errors=True)
    await subscribe(page)
    await publish(page, "one", 3)
    await lost_nothing(page, 3, 0)
    network.cut()
    await hub.channel("news").publish("meanwhile")
    await lost_nothing(page, 4, 1)


async def test_a_network_that_is_back_may_have_lost_the_connection_unseen(
    hub: Hub, hosting: Hosting, open_page: OpenPage
) -> None:
    """No byte says so: the page asks anew."""
    page = await open_page(await hosting(build(hub)), expect_errors=True)
    await subscribe(page)
    await publish(page, "one")
    await lost_nothing(page, 1, 0)
    await page.context.set_offline(True)
    await page.wait_for_function("!navigator.onLine")
    await page.context.set_offline(False)
    await lost_nothing(page, 1, 1)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_the_server_restarted_nothing_is_lost(number: int, tmp_path: Path, open_page: OpenPage) -> None:
    store = ["--store", f"sqlite:///{tmp_path / 'news.db'}"]
    with running("--port", "0", *store) as server:
        page = await open_page(f"http://127.0.0.1:{server.port}", expect_errors=True)
        port = str(server.port)
        await subscribe(page)
        await publish(page, "before", 3)
        server.signal(number)
        server.process.wait(10)
        await expect(page.locator("#subscribe .status")).to_contain_text("the page reconnects by itself")
        await expect(page.locator("#server")).to_contain_text("does not answer")
        await expect(page.locator("#help")).to_be_visible()
    async with Hub(f"sqlite:///{tmp_path / 'news.db'}") as hub:
        await hub.channel("news").publish("between")
    with running("--port", port, *store):
        await lost_nothing(page, 4, 1)
        await expect(page.locator("#server")).to_contain_text(f":{port} answers")
        await expect(page.locator("#help")).to_be_hidden()
        await publish(page, "after")
        await lost_nothing(page, 5, 1)


async def test_what_is_not_held_any_more_is_told(hosting: Hosting, open_page: OpenPage) -> None:
    async with Hub("memory:?entries=3") as hub:
        page = await open_page(await hosting(build(hub)))
        await subscribe(page)
        await publish(page, "seen")
        await shows(page, received="1")
        await page.click("#subscribe .cut")
        await publish(page, "many", 10)
        await page.click("#subscribe .primary")
        await shows(page, received="4", missing="0", told="7", repeated="0", reconnects="1")
        await expect(page.locator("#feed .log")).to_contain_text("7 events are no longer held; the server said so")
        await expect(page.locator("#feed dd.told")).to_have_text("7")
        await page.close()


async def test_who_comes_late_is_told_what_is_not_held(hosting: Hosting, open_page: OpenPage) -> None:
    async with Hub("memory:?entries=3") as hub:
        page = await open_page(await hosting(build(hub)))
        await publish(page, "many", 10)
        await subscribe(page)
        await shows(page, received="3", missing="0", told="7", repeated="0")
        await page.close()


async def test_another_log_under_the_same_name_is_told(hosting: Hosting, open_page: OpenPage) -> None:
    """The server restarted with its channels in memory: how many are missing, it cannot know."""
    async with Hub() as first, Hub() as second:
        page = await open_page(await hosting(build(first)))
        await subscribe(page)
        await publish(page, "one", 3)
        await shows(page, received="3")
        await page.click("#subscribe .cut")
        other = await hosting(build(second))
        await page.route(
            "**/channels/**", lambda route: route.continue_(url=route.request.url.replace(*ports(page, other)))
        )
        await page.click("#subscribe .primary")
        await shows(page, told="?")
        await second.channel("news").publish("new")
        await shows(page, received="4", missing="0", told="?")
        await page.close()


def ports(page: Page, other: str) -> tuple[str, str]:
    return f":{urlsplit(page.url).port}/", f":{urlsplit(other).port}/"


async def test_events_with_names_of_their_own_are_shown_when_they_come(
    hub: Hub, hosting: Hosting, open_page: OpenPage
) -> None:
    """EventSource would keep them to itself: nobody listens for names that nobody knows before."""
    page = await open_page(await hosting(build(hub)))
    await subscribe(page)
    channel = hub.channel("news")
    for n in range(1, 4):
        await channel.publish(f"second {n}", "note")
    await lost_nothing(page, 3, 0)
    await channel.publish("one")
    await channel.publish({"usd": 7}, "price")
    await channel.publish("an event of this name is no failure", "error")
    await channel.publish("two")
    await lost_nothing(page, 7, 0)
    texts = [*(f"note: second {n}" for n in (1, 2, 3)), "one", 'price: {"usd":7}']
    texts += ["error: an event of this name is no failure", "two"]
    assert await news(page) == [(f"#{n}", text) for n, text in enumerate(texts, 1)]
    await is_subscribed(page)


async def test_the_end_of_a_channel(hub: Hub, hosting: Hosting, open_page: OpenPage) -> None:
    page = await open_page(await hosting(build(hub)))
    await subscribe(page)
    await publish(page, "one")
    await hub.channel("news").close()
    await expect(page.locator("#subscribe .status")).to_have_text("The channel has ended")
    await expect(page.locator("#subscribe .status")).to_have_attribute("data-state", "done")
    await expect(page.locator("#subscribe .stop")).to_be_disabled()


async def test_a_name_that_cannot_be_is_told_in_the_words_of_the_server(
    hub: Hub, hosting: Hosting, open_page: OpenPage
) -> None:
    """The same, whether the refusal is a line (as for a stream) or JSON."""
    page = await open_page(await hosting(build(hub)), expect_errors=True)
    await page.fill("#subscribe [name=channel]", "no name")
    for part in ("subscribe", "publish"):
        await page.click(f"#{part} .primary")
        await expect(page.locator(f"#{part} .status")).to_contain_text("The server answered: 400 a name is")


async def test_the_cookie_of_a_subscriber_is_enough(hub: Hub, hosting: Hosting, open_page: OpenPage) -> None:
    url = await hosting(build(hub, publish_token="p", subscribe_token="s"))
    page = await open_page("about:blank")
    await page.context.add_cookies([{"name": "rawstream-subscribe", "value": "s", "url": url}])
    await page.goto(url)
    await subscribe(page)
    await hub.channel("news").publish("for members")
    await lost_nothing(page, 1, 0)
    await expect(page.locator("#tokens")).to_be_hidden()


async def test_a_server_with_tokens_is_given_them(hub: Hub, hosting: Hosting, open_page: OpenPage) -> None:
    """Asked for when they are missed; never in an address, never in storage."""
    page = await open_page(
        await hosting(build(hub, publish_token="p-123", subscribe_token="s-123")), expect_errors=True
    )
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    for part in ("subscribe", "publish"):
        await page.click(f"#{part} .primary")
        await expect(page.locator(f"#{part} .status")).to_contain_text("The server answered: 401 this needs a token")
    await page.get_by_label("Token to publish").fill("p-1234")
    await page.get_by_label("Token to subscribe").fill("s-123")
    await page.get_by_role("button", name="Use").click()
    await is_subscribed(page)  # what was refused is tried again
    await expect(page.locator("#publish .status")).to_contain_text("The server answered: 403 this is not the token")
    await page.get_by_label("Token to publish").fill("p-123")
    await page.get_by_role("button", name="Use").click()
    await expect(page.locator("#publish .status")).to_contain_text("Published: 1 event")
    await expect(page.locator("#publish .primary")).to_be_focused()
    await expect(page.locator("#tokens")).to_be_hidden()
    await lost_nothing(page, 1, 0)
    await page.reload()
    await is_subscribed(page)
    assert not [url for url in asked if "123" in url.partition("/channels")[2]]
    kept = await page.evaluate("() => JSON.stringify([{ ...localStorage }, { ...sessionStorage }])")
    assert "-123" not in kept.replace("news", "")


async def test_publishing_again_after_a_lost_answer_publishes_once(
    hub: Hub, hosting: Hosting, open_page: OpenPage
) -> None:
    """All attempts carry the same key."""
    page = await open_page(await hosting(build(hub)), expect_errors=True)
    await subscribe(page)
    keys: list[str | None] = []

    async def lose(route: Route) -> None:
        keys.append(route.request.headers.get("idempotency-key"))
        if len(keys) == 1:
            await route.fetch()  # the server did it, but nobody hears of that
            await route.abort()
        else:
            await route.continue_()

    await page.route(re.compile("/channels/news$"), lose)
    await publish(page, "once")
    await publish(page, "next")
    await lost_nothing(page, 2, 0)
    assert keys[0] == keys[1] != keys[2]


async def test_a_burst_says_nothing_to_a_screen_reader(hub: Hub, hosting: Hosting, open_page: OpenPage) -> None:
    page = await open_page(await hosting(build(hub)))
    await subscribe(page)
    await page.evaluate("""() => {
      window.said = [];
      for (const status of document.querySelectorAll("#feed .status")) {
        new MutationObserver(() => said.push(status.textContent)).observe(status, { childList: true, subtree: true });
      }
    }""")
    await publish(page, "many", 50)
    await lost_nothing(page, 50, 0)
    assert len(await page.evaluate("() => said")) <= 3, "connecting, publishing, published"


async def test_a_feed_at_rest_moves_nothing(hub: Hub, hosting: Hosting, open_page: OpenPage) -> None:
    """What is animated for ever costs a tenth of a processor for as long as a quiet channel is followed."""
    page = await open_page(await hosting(build(hub)))
    await subscribe(page)
    animated = "() => document.getAnimations().map((each) => each.effect.getComputedTiming().endTime)"
    assert all(time is not None and time <= 10_000 for time in await page.evaluate(animated))


async def test_one_event_is_one_event_in_both_languages(hub: Hub, hosting: Hosting, open_page: OpenPage) -> None:
    page = await open_page(await hosting(build(hub)))
    await publish(page, "one")
    await page.click("#language")
    await expect(page.locator("#publish .status")).to_contain_text(re.compile("^已发布 1 个事件，id 是 [0-9]+-1$"))


TALLY = """(ids) => {
  const tally = new rawstream.Tally();
  const skipped = ids.map(([event, id, data]) => tally.add({ event, id, data: JSON.stringify(data) }));
  const { last, received, missing, told, unknown, repeated } = tally;
  return [skipped, { last, received, missing, told, unknown, repeated }];
}"""


async def test_every_hole_is_counted(demo: str, open_page: OpenPage) -> None:
    page = await open_page(demo)
    ids = [["message", "5-2", 1], ["message", "5-3", 1], ["message", "9-7", 1], ["message", "5-3", 1]]
    assert await page.evaluate(TALLY, ids) == [
        [1, 0, 3, -1],
        {"last": "9-7", "received": 3, "missing": 4, "told": 0, "unknown": False, "repeated": 1},
    ]
    ids = [["message", "5-1", 1], ["stream-gap", "6-4", {"missing": 3}], ["message", "7-5", 1]]
    ids += [["stream-gap", "0-0", {"missing": None}], ["message", "9-1", 1]]
    assert await page.evaluate(TALLY, ids) == [
        [0, 0, 0, 0, 0],
        {"last": "9-1", "received": 3, "missing": 0, "told": 3, "unknown": True, "repeated": 0},
    ]
