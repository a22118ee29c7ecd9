"""A merchant with a till and a printed code, in virtual time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from markupsafe import Markup

from cashier import pages
from cashier.domain.page_session import TillRequest
from cashier.pages import qr
from cashier.pages.order_creation import CreatedOrder, OrderNotCreated, Sale
from cashier.sandbox.risk import Amount
from cashier.sandbox.shop import OrderBody
from cashier.settings.loader import configuration
from cashier.web.application import app
from cashier.wire.transport import CallHeaders
from tests.pages.page_shop import SCOPE, SETTINGS
from tests.pages.payer_browser import PageAnswer, PayerBrowser
from tests.payments.checkout import Checkout, checkout

MERCHANT, TILL = "m_5", "till-1"
CODES = {MERCHANT: {"name": "Breakfast <Stall>", "currency": "CNY"}}


class TillShop:
    """`sales`: those that were asked for, with their keys; `call_headers`: of each.

    `out_of_order`: no order is created. `orders_cost`: the minor units of each new order, whatever
    was asked for. `orders_are`: always this one.
    """

    def __init__(self, opened: Checkout, settings: Mapping[str, Any]) -> None:
        self.checkout = opened
        self.cashier = opened.workers[0]
        self.sales: list[tuple[Sale, str]] = []
        self.call_headers: list[CallHeaders] = []
        self.out_of_order = False
        self.orders_cost: int | None = None
        self.orders_are: str | None = None
        config = self.cashier.config
        table = {"pages": {**SETTINGS, "codes": CODES, "order_url": "http://127.0.0.1:1/orders", **settings}}
        parsed = configuration(table, "the till of a test").settings.pages
        changed = msgspec.structs.replace(config.settings, pages=parsed)
        self.cashier.reload(msgspec.structs.replace(config, settings=changed))
        self.pages = pages.app(self.cashier, opened.world.clock, self.create_order)
        self.application = app(self.cashier, pages=self.pages)

    async def create_order(self, sale: Sale, idempotency_key: str, call_headers: CallHeaders) -> CreatedOrder:
        self.sales.append((sale, idempotency_key))
        self.call_headers.append(call_headers)
        if self.out_of_order:
            raise OrderNotCreated
        if self.orders_are is not None:
            return CreatedOrder(self.orders_are)
        order = msgspec.convert(msgspec.to_builtins(sale), OrderBody)
        if self.orders_cost is not None:
            order = msgspec.structs.replace(order, amount=Amount("CNY", self.orders_cost))
        answer = self.checkout.world.shop.create(order, idempotency_key)
        return CreatedOrder(answer.body["order_id"])

    def link(self, terminal_id: str = TILL, **fields: Any) -> str:
        wanted = TillRequest(merchant_id=MERCHANT, terminal_id=terminal_id, currency="CNY", **fields)
        return self.pages.open_till(wanted, SCOPE).url

    async def till(self, **fields: Any) -> PayerBrowser:
        """The browser of a till that has been opened."""
        browser = PayerBrowser(self.application)
        await browser.open(self.link(**fields))
        return browser

    async def sale(self, amount: str = "12.50", **fields: Any) -> PayerBrowser:
        """With a sale of this amount open."""
        browser = await self.till(**fields)
        await browser.submit("/sales", amount=amount, note="")
        return browser

    async def scan(self, browser: PayerBrowser, code: str) -> PageAnswer:
        return await browser.submit("/scan", code=code)

    async def show_code(self, browser: PayerBrowser, method_id: str = "MERCHANT_QR:ALIPAY") -> PageAnswer:
        form = next(form for form in browser.document.forms if ("method", method_id) in form.fields)
        return await browser._follow(await browser.post(form, {}), form.action)

    def order_id(self, browser: PayerBrowser) -> str:
        return browser.address.partition("/sales/")[2].partition("?")[0]

    def settle(self, browser: PayerBrowser, result: Any = "SUCCEEDED") -> None:
        """The payer pays, or declines, in the wallet."""
        payment_id = self.checkout.world.acquirer.live_attempt(self.order_id(browser))
        assert payment_id is not None
        assert self.checkout.world.engine.settle(payment_id, result).status == 200

    def status(self, browser: PayerBrowser) -> str:
        """Of the order at the acquirer."""
        result = self.checkout.world.acquirer.result(self.order_id(browser))
        assert result is not None
        return str(result["status"])


@asynccontextmanager
async def till_shop(settings: Mapping[str, Any] | None = None, **options: Any) -> AsyncIterator[TillShop]:
    """`settings`: of `[pages]`. `options`: of `checkout`."""
    with pytest.MonkeyPatch.context() as patched:
        # Virtual time does not wait for threads.
        patched.setattr(qr, "to_thread", _Here())
        async with checkout(**options) as opened:
            yield TillShop(opened, settings or {})


class _Here:
    async def run_sync(self, function: Callable[[str], Markup], content: str) -> Markup:
        return function(content)
