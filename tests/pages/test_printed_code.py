"""A walk-in payer and the printed code of a merchant."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from cashier import pages
from cashier.domain.order import Product, Terminal
from cashier.pages.order_creation import CreatedOrder, Sale
from cashier.sandbox.risk import Amount
from cashier.sandbox.shop import OrderBody
from cashier.web.application import app
from cashier.wire.transport import CallHeaders
from tests.pages.payer_browser import PayerBrowser
from tests.pages.till_shop import TillShop, till_shop

pytestmark = pytest.mark.virtual_time
ADDRESS = "/cashier-code/m_5"


@pytest.fixture
async def shop() -> AsyncIterator[TillShop]:
    async with till_shop() as opened:
        yield opened


async def test_a_walk_in_enters_an_amount_and_pays_in_a_wallet(shop: TillShop) -> None:
    browser = PayerBrowser(shop.application)
    await browser.open(ADDRESS)
    assert "Breakfast <Stall>" in browser.document.text
    await browser.submit("/m_5", amount="8")
    assert browser.address.startswith("/cashier/o_sale_")
    assert browser.document.view == "checkout"
    await browser.choose("WALLET:ALIPAY")
    assert browser.document.view == "action"
    order_id = browser.address.split("/")[2]
    payment_id = shop.checkout.world.acquirer.live_attempt(order_id)
    assert shop.checkout.world.engine.settle(payment_id or "", "SUCCEEDED").status == 200
    await browser.reload()
    assert "good" in browser.document.state
    sale, _ = shop.sales[0]
    assert (sale.merchant_id, sale.amount.value, sale.terminal_id) == ("m_5", 800, None)


async def test_a_walk_in_waits_for_no_coupons(shop: TillShop) -> None:
    shop.checkout.silent.add("channel")
    browser = PayerBrowser(shop.application)
    await browser.open(ADDRESS)
    await browser.submit("/m_5", amount="8")
    assert "busy" in browser.document.html, "the methods are being checked"
    assert "coupons" not in browser.document.html


async def in_wallet(shop: TillShop) -> tuple[PayerBrowser, str, str]:
    """A walk-in who is at the wallet: their browser, payment and return address."""
    browser = PayerBrowser(shop.application)
    await browser.open(ADDRESS)
    await browser.submit("/m_5", amount="8")
    await browser.choose("WALLET:ALIPAY")
    payment_id = shop.checkout.world.acquirer.live_attempt(browser.address.split("/")[2])
    return browser, payment_id or "", shop.checkout.submissions[-1]["return_url"]


async def test_a_walk_in_who_returns_in_another_browser_sees_whether_it_is_paid(shop: TillShop) -> None:
    browser, payment_id, address = await in_wallet(shop)
    other = PayerBrowser(shop.application)
    assert (await other.open(address)).status == 503
    assert 'http-equiv="refresh"' in other.document.html, "not known yet: it looks again"
    assert shop.checkout.world.engine.settle(payment_id, "SUCCEEDED").status == 200
    assert (await other.reload()).status == 200
    assert "Paid" in other.document.text
    assert other.document.forms == []
    await browser.open(address)
    assert "good" in browser.document.state


async def test_a_walk_in_may_reload_go_back_and_have_a_second_tab(shop: TillShop) -> None:
    browser, payment_id, _ = await in_wallet(shop)
    checkout = browser.address.removesuffix("/payment")
    for _ in range(2):
        await browser.open(checkout)
        assert browser.document.view == "action", "never the methods while it is being paid"
    assert shop.checkout.world.engine.settle(payment_id, "SUCCEEDED").status == 200
    for address in (checkout, f"{checkout}/payment"):
        await browser.open(address)
        assert "good" in browser.document.state
    assert len(shop.checkout.submissions) == 1


async def test_a_second_tab_of_a_walk_in_pays_once(shop: TillShop) -> None:
    browser = PayerBrowser(shop.application)
    await browser.open(ADDRESS)
    await browser.submit("/m_5", amount="8")
    form, values = browser.document.form("/pay"), browser.choice("WALLET:ALIPAY")
    await browser.choose("WALLET:ALIPAY")
    answer = await browser.post(form, values)
    assert answer.status == 303
    await browser.open(answer.location)
    assert browser.document.view == "action"
    assert len({sent["payment_id"] for sent in shop.checkout.submissions}) == 1


async def test_a_form_that_is_sent_twice_is_one_order(shop: TillShop) -> None:
    browser = PayerBrowser(shop.application)
    await browser.open(ADDRESS)
    form = browser.document.form("/m_5")
    first, second = await browser.post(form, {"amount": "8"}), await browser.post(form, {"amount": "8"})
    assert first.location.partition("?")[0] == second.location.partition("?")[0]


async def test_only_a_configured_merchant_has_a_code(shop: TillShop) -> None:
    for path in ("/cashier-code/m_2", "/cashier-code/a%20b", "/cashier-code/"):
        assert (await PayerBrowser(shop.application).open(path)).status == 404


async def test_orders_of_one_address_are_bounded_and_others_go_on(shop: TillShop) -> None:
    greedy, other = PayerBrowser(shop.application), PayerBrowser(shop.application, client="203.0.113.8")
    statuses = []
    for _ in range(8):
        await greedy.open(ADDRESS)
        statuses.append((await greedy.post(greedy.document.form("/m_5"), {"amount": "8"})).status)
    assert statuses == [303] * 6 + [429] * 2
    assert len(shop.sales) == 6
    await other.open(ADDRESS)
    assert (await other.post(other.document.form("/m_5"), {"amount": "8"})).status == 303


async def test_a_subscriber_is_one_address_also_with_ipv6(shop: TillShop) -> None:
    statuses = []
    for number in range(8):
        browser = PayerBrowser(shop.application, client=f"2001:db8::{number:x}")
        await browser.open(ADDRESS)
        statuses.append((await browser.post(browser.document.form("/m_5"), {"amount": "8"})).status)
    assert statuses == [303] * 6 + [429] * 2


async def test_a_name_that_is_not_ours_makes_no_link(shop: TillShop) -> None:
    browser = PayerBrowser(shop.application, headers={"host": "evil.example"})
    await browser.open(ADDRESS)
    assert (await browser.post(browser.document.form("/m_5"), {"amount": "8"})).status == 421


async def test_an_order_of_another_amount_is_not_paid(shop: TillShop) -> None:
    async def dearer(sale: Sale, idempotency_key: str, call_headers: CallHeaders) -> CreatedOrder:
        dear = OrderBody(merchant_id="m_5", amount=Amount("CNY", 80_000))
        return CreatedOrder(shop.checkout.world.shop.create(dear, idempotency_key).body["order_id"])

    served = pages.app(shop.cashier, shop.checkout.world.clock, dearer)
    browser = PayerBrowser(app(shop.cashier, pages=served))
    await browser.open(ADDRESS)
    assert (await browser.submit("/m_5", amount="8")).status == 409
    assert "¥800.00" in browser.document.text
    assert "¥8.00" in browser.document.text
    assert not browser.document.has_form("/pay")


async def test_an_order_that_was_paid_before_is_not_shown_as_paid(shop: TillShop) -> None:
    """Else a phone would show "paid" to a merchant who has not been paid."""
    till = await shop.sale("8")
    await shop.scan(till, "134567890123456781")
    assert shop.status(till) == "PAID"
    shop.orders_are = shop.order_id(till)
    browser = PayerBrowser(shop.application)
    await browser.open(ADDRESS)
    for amount in ("8", "5"):
        assert (await browser.submit("/m_5", amount=amount)).status == 409
        assert "state good" not in browser.document.html
        assert browser.document.has_form("/m_5")


@pytest.mark.parametrize(
    ("site", "origin", "status"),
    [
        ("cross-site", "", 403),
        ("same-site", "http://127.0.0.1:8080", 403),
        ("none", "", 403),
        ("", "https://evil.example", 403),
        ("", "http://127.0.0.1:8081", 403),
        ("", "https://127.0.0.1:8080", 403),
        ("", "http://127.0.0.1:8080", 303),
        ("", "null", 303),
        ("", "", 303),
        ("same-origin", "null", 303),
    ],
)
async def test_no_other_site_creates_orders(shop: TillShop, site: str, origin: str, status: int) -> None:
    """Older browsers say no site. The origin of our own forms is `null`: pages are no referrers."""
    browser = PayerBrowser(shop.application)
    headers = {"sec-fetch-site": site, "origin": origin}
    answer = await browser.send("POST", ADDRESS, [("amount", "8"), ("sale", "x")], headers=headers)
    assert answer.status == status
    assert len(shop.sales) == (status == 303)


@pytest.mark.parametrize("amount", ["", "0", "free", "<script>"])
async def test_what_is_no_amount_is_said(shop: TillShop, amount: str) -> None:
    browser = PayerBrowser(shop.application)
    await browser.open(ADDRESS)
    assert (await browser.submit("/m_5", amount=amount)).status == 422
    assert "notice error" in browser.document.html
    assert "<script>" not in browser.document.html
    assert shop.sales == []


async def test_without_an_order_the_payer_can_try_again(shop: TillShop) -> None:
    shop.out_of_order = True
    browser = PayerBrowser(shop.application)
    await browser.open(f"{ADDRESS}?locale=zh-CN")
    assert (await browser.submit("?locale=zh-CN", amount="8")).status == 503
    assert "未能创建订单" in browser.document.text


async def test_the_order_is_paid_as_a_walk_ins_on_a_phone(shop: TillShop) -> None:
    browser = PayerBrowser(shop.application)
    await browser.open(ADDRESS)
    answer = await browser.post(browser.document.form("/m_5"), {"amount": "8"})
    order_id = answer.location.split("/")[-1].partition("?")[0]
    token = answer.location.partition("?token=")[2]
    now_s = shop.checkout.world.clock().timestamp()
    claims = shop.cashier.tokens.pages.read_link(token, order_id, now_s)
    assert (claims.user_id, claims.product, claims.terminal) == (None, Product.SCAN, Terminal.H5)
