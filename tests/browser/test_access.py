"""What a browser really sends, and what then comes of it: pages of other sites, our own forms, a rebound name."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest
from playwright.async_api import Page

from rawstream import Request, Response, Router

from .conftest import REBOUND, Hosting, OpenPage

pytestmark = pytest.mark.asyncio(loop_scope="session")

HTML = [("Content-Type", "text/html; charset=utf-8")]


class Orders:
    """A server that does something when it is sent a POST, and counts how often."""

    def __init__(self) -> None:
        self.router = Router()
        self.taken: list[tuple[str | None, str | None]] = []
        self.router.get("/")(self.page)
        self.router.post("/orders")(self.take)

    async def page(self, request: Request) -> Response:
        """A page with a form, which keeps its address to itself."""
        body = b"<!doctype html><link rel=icon href=data:,><form method=post action=/orders><button>Buy</button></form>"
        return Response(200, [*HTML, ("Referrer-Policy", "no-referrer")], body)

    async def take(self, request: Request) -> Response:
        """What it was sent by whom."""
        self.taken.append((request.headers.get("origin"), request.headers.get("sec-fetch-site")))
        return Response(200, HTML, b"<!doctype html><link rel=icon href=data:,>thank you")  # or its icon is asked for


async def visited(url: str, hosting: Hosting, open_page: OpenPage) -> Page:
    """A page of another site, with a form that buys something at `url`."""
    router = Router()

    @router.get("/")
    async def page(request: Request) -> Response:
        form = f"<form method=post action={url}/orders enctype=text/plain><button>Win</button></form>"
        return Response(200, HTML, f"<!doctype html><link rel=icon href=data:,>{form}".encode())

    # Another port is another origin, but the same site; localhost beside 127.0.0.1 is another site.
    address = (await hosting(router)).replace("127.0.0.1", "localhost")
    return await open_page(address, expect_errors=True)


async def test_a_form_of_another_site_does_nothing(hosting: Hosting, open_page: OpenPage) -> None:
    """No preflight comes before it, and the user's cookies go with it: this is cross-site request forgery."""
    orders = Orders()
    page = await visited(await hosting(orders.router), hosting, open_page)
    async with page.expect_navigation() as navigation:
        await page.click("button")
    answer = await navigation.value
    assert answer is not None
    assert answer.status == 403
    assert orders.taken == []


async def test_a_script_of_another_site_does_nothing(hosting: Hosting, open_page: OpenPage) -> None:
    orders = Orders()
    url = await hosting(orders.router)
    page = await visited(url, hosting, open_page)
    await page.evaluate("(url) => fetch(url, { method: 'POST', mode: 'no-cors', body: 'x' })", f"{url}/orders")
    assert orders.taken == []


async def test_a_page_of_a_listed_origin_may_send_and_read(hosting: Hosting, open_page: OpenPage) -> None:
    """With a preflight, with cookies, and the names of its requests can be read."""
    orders = Orders()
    page = await visited("http://127.0.0.1:9", hosting, open_page)
    origin = await page.evaluate("() => location.origin")
    url = await hosting(orders.router, allowed_origins=[origin])
    ask = """async (url) => {
      const init = { method: "POST", credentials: "include", headers: { "X-Cart": "1" } };
      const [good, bad] = [await fetch(`${url}/orders`, init), await fetch(`${url}/nothing`, init)];
      return [good.status, await good.text(), bad.status, bad.headers.has("X-Request-Id")];
    }"""
    status, text, other, named = await page.evaluate(ask, url)
    assert (status, other, named) == (200, 404, True)
    assert text.endswith("thank you")
    assert orders.taken == [(origin, "cross-site")]


async def test_our_own_form_may_send_though_its_origin_is_hidden(hosting: Hosting, open_page: OpenPage) -> None:
    """Under Referrer-Policy: no-referrer a form has the Origin "null" even at home; Sec-Fetch-Site tells that it is."""
    orders = Orders()
    page = await open_page(await hosting(orders.router))
    await page.click("button")
    await page.wait_for_url("**/orders")
    assert orders.taken == [("null", "same-origin")]


async def test_a_name_that_was_rebound_to_us_is_not_answered(hosting: Hosting, open_page: OpenPage) -> None:
    """To the browser the page is of that name's origin, and so is this server: Host alone tells."""
    orders = Orders()
    port = urlsplit(await hosting(orders.router)).port
    page = await open_page("about:blank", expect_errors=True)
    answer = await page.goto(f"http://{REBOUND}:{port}/")
    assert answer is not None
    assert answer.status == 421
    status = await page.evaluate("() => fetch('/orders', { method: 'POST' }).then((answer) => answer.status)")
    assert status == 421
    assert orders.taken == []
