"""One order is paid once: several tabs, links, devices and workers, old forms and lost answers."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from msgspec import structs

from cashier import pages
from cashier.web.application import app
from tests.pages.page_shop import PageShop, page_shop
from tests.pages.payer_browser import HtmlForm, PayerBrowser
from tests.payments.checkout import OTP, SharedStore

pytestmark = pytest.mark.virtual_time
CASE, ORDER_ID = "chinese_shop", "o_1001"
ORDER = f"/cashier/{ORDER_ID}"
STEPS, AT_ONCE = 12, 3


class Payers:
    """Browsers of one payer, who does anything in any order, several things at once.

    `forms`: every form that any of them has seen, with its browser: the back button brings it up.
    """

    def __init__(self, shop: PageShop, seed: int) -> None:
        self.shop = shop
        self.random = random.Random(seed)
        other = shop.checkout.workers[1]
        settings = shop.cashier.config.settings
        changed = structs.replace(other.config.settings, pages=settings.pages, merchants=settings.merchants)
        other.reload(structs.replace(other.config, settings=changed))
        self.workers = [shop.application, app(other, pages=pages.app(other, shop.checkout.world.clock))]
        self.link = shop.link(CASE)
        self.browsers: list[PayerBrowser] = []
        self.forms: list[tuple[PayerBrowser, HtmlForm]] = []

    async def act(self) -> None:
        await self.random.choice(
            (self.new_browser, self.look, self.send, self.send, self.send, self.lose, self.settle)
        )()

    async def new_browser(self) -> None:
        """By the same link, or by another one of the same order."""
        browser = self.shop.browser()
        self.browsers.append(browser)
        await self._open(browser, self.random.choice((self.link, self.shop.link(CASE))))

    async def look(self) -> None:
        if self.browsers:
            browser = self.random.choice(self.browsers)
            await self._open(browser, self.random.choice((ORDER, f"{ORDER}/payment", self.link)))

    async def send(self) -> None:
        """A form, however old it is. Its answer may be lost."""
        if not self.forms:
            return
        browser, form = self.random.choice(self.forms[-12:])
        values = self._values(form)
        if values is None:
            return
        browser.application = self.random.choice(self.workers)
        cookies = dict(browser.cookies)
        answer = await browser.post(form, values)
        assert answer.status != 500
        if self.random.random() < 0.3:
            browser.cookies = cookies
        elif answer.status == 303:
            await self._open(browser, answer.location)

    async def lose(self) -> None:
        """A browser that is closed, or an engine whose next answer does not come."""
        if self.random.random() < 0.5:
            self.shop.checkout.inject("engine", "reset", on=self.random.choice(("submit", "look_up")))
        elif self.browsers:
            self.browsers.remove(self.random.choice(self.browsers))

    async def settle(self) -> None:
        """In the wallet, or at the bank."""
        live = self.shop.checkout.world.acquirer.live_attempt(ORDER_ID)
        if live is not None:
            self.shop.checkout.world.engine.settle(live, self.random.choice(("SUCCEEDED", "FAILED")))

    def _values(self, form: HtmlForm) -> dict[str, str] | None:
        if form.method == "GET":
            return None
        if form.action.endswith("/challenge"):
            return {"value": self.random.choice((OTP, OTP, "000000"))}
        if not form.action.endswith("/pay"):
            return {}
        methods = [value for name, value, can in form.choices if name == "method" and can]
        return {"method": self.random.choice(methods)} if methods else None

    async def _open(self, browser: PayerBrowser, url: str) -> None:
        browser.application = self.random.choice(self.workers)
        answer = await browser.open(url)
        assert answer.status != 500
        self.forms += [(browser, form) for form in browser.document.forms]


@pytest.mark.parametrize("seed", range(5))
async def test_whatever_a_payer_does_the_order_is_paid_once(seed: int) -> None:
    async with page_shop(workers=2, store=SharedStore()) as shop:
        payers = Payers(shop, seed)
        await payers.new_browser()
        for _ in range(STEPS):
            await asyncio.gather(*(payers.act() for _ in range(AT_ONCE)))
            await asyncio.sleep(payers.random.choice((0, 0, 1, 30)))
        shop.checkout.clear_faults()
        assert len(shop.checkout.payments_that_paid(ORDER_ID)) <= 1
        await asyncio.sleep(120)
        await assert_all_see_the_same(shop, payers)


async def assert_all_see_the_same(shop: PageShop, payers: Payers) -> None:
    """At the end a new device sees the order as the acquirer has it."""
    browser = shop.browser()
    await browser.open(payers.link)
    result: Any = shop.checkout.world.acquirer.result(ORDER_ID)
    paid = result["status"] == "PAID"
    assert ("state good" in browser.document.html) is paid
    assert browser.document.has_form("/pay") is (result["status"] == "PENDING")
    assert shop.checkout.count("submit") >= paid
