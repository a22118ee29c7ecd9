"""A shop that sends payers to our pages, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from cashier import pages
from cashier.core import Cashier
from cashier.domain.page_session import SessionRequest
from cashier.pages import Pages
from cashier.sandbox import CASES
from cashier.settings.loader import configuration
from cashier.web.application import app
from tests.pages.payer_browser import HOST, PayerBrowser
from tests.payments.checkout import Checkout, checkout

SHOP = "https://shop.example"
BACK = f"{SHOP}/back"
SCOPE = {"type": "http", "scheme": "http", "root_path": "", "headers": [(b"host", HOST.encode())]}
SETTINGS = {"first_answer_ms": 20_000}


class PageShop:
    """`checkout`: the service and its upstreams."""

    def __init__(self, checkout: Checkout, cashier: Cashier, served: Pages) -> None:
        self.checkout = checkout
        self.cashier = cashier
        self.pages = served
        self.application = app(cashier, pages=served)

    def link(self, case: str, mounted_at: str = "", **fields: Any) -> str:
        """Of a case's order, as the shop's back end gets it."""
        names = ("order_id", "user_id", "merchant_id", "product", "terminal", "country", "locale")
        request = {name: CASES[case].request[name] for name in names if name in CASES[case].request}
        body = {**request, "return_url": BACK, **fields}
        wanted = msgspec.convert({name: value for name, value in body.items() if value is not None}, SessionRequest)
        return self.pages.open_session(wanted, {**SCOPE, "root_path": mounted_at}).url

    def browser(self, **options: Any) -> PayerBrowser:
        return PayerBrowser(self.application, **options)

    async def payer(self, case: str, **fields: Any) -> PayerBrowser:
        """A browser with the checkout of this case open."""
        browser = self.browser()
        await browser.open(self.link(case, **fields))
        return browser

    def hold(self, *sources: str) -> None:
        """They answer once they are released."""
        self.checkout.held.update((name, asyncio.Event()) for name in sources)

    def release(self) -> None:
        for event in self.checkout.held.values():
            event.set()

    def settle(self, browser: PayerBrowser, result: Any = "SUCCEEDED", paid: int | None = None) -> None:
        """The payer pays at the bank, in the wallet or at the counter."""
        assert self.checkout.world.engine.settle(self.payment_id(browser), result, paid).status == 200

    def payment_id(self, browser: PayerBrowser) -> str:
        """Of the browser's payment."""
        held = next(value for (_, name), value in browser.cookies.items() if name.endswith("cashier-payment"))
        return held.partition("~")[2].partition(":")[0]


@asynccontextmanager
async def page_shop(settings: Mapping[str, Any] | None = None, **options: Any) -> AsyncIterator[PageShop]:
    """`settings`: of `[pages]`. `options`: of `checkout`."""
    async with checkout(**options) as opened:
        cashier = opened.workers[0]
        table = {
            "pages": {**SETTINGS, **(settings or {})},
            "merchants": {name: {"origins": [SHOP]} for name in ("m_1", "m_2", "m_3", "m_62", "m_81", "m_965")},
        }
        parsed = configuration(table, "the pages of a test").settings
        config = cashier.config
        changed = msgspec.structs.replace(config.settings, pages=parsed.pages, merchants=parsed.merchants)
        cashier.reload(msgspec.structs.replace(config, settings=changed))
        yield PageShop(opened, cashier, pages.app(cashier, opened.world.clock))
