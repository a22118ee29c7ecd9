"""A till from its link to the next sale, in a browser without JavaScript."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from tests.pages.payer_browser import PayerBrowser
from tests.pages.test_live_updates import JSON, following, live_address
from tests.pages.till_shop import TillShop, till_shop

pytestmark = pytest.mark.virtual_time
CODE, PENDING_CODE, NEVER_CODE = "134567890123456781", "134567890123456788", "134567890123456789"


@pytest.fixture
async def shop() -> AsyncIterator[TillShop]:
    async with till_shop() as opened:
        yield opened


def attributes(browser: PayerBrowser, tag: str, **wanted: str) -> dict[str, str]:
    return next(values for name, values in browser.document.tags if name == tag and wanted.items() <= values.items())


async def test_a_payers_code_is_charged_from_the_link_to_the_next_sale(shop: TillShop) -> None:
    browser = await shop.till()
    assert browser.address == "/cashier-till/m_5/till-1"
    assert "autofocus" in attributes(browser, "input", name="amount")
    await browser.submit("/sales", amount="12.50", note="Two buns")
    assert browser.address.startswith("/cashier-till/m_5/till-1/sales/o_sale_")
    assert "¥12.50" in browser.document.text
    assert "Two buns" in browser.document.text
    assert "autofocus" in attributes(browser, "input", name="code"), "a scanner types into it"
    await shop.scan(browser, CODE)
    assert "good" in browser.document.html
    assert shop.status(browser) == "PAID"
    assert CODE not in browser.document.html
    assert not browser.document.has_form("/scan")
    assert "data-focus" in attributes(browser, "a", href="/cashier-till/m_5/till-1")
    (entry,) = [entry for entry in shop.checkout.entries if entry.what == "ORDER_PAID"]
    assert entry.amount.value == 1_250
    assert shop.sales[0][0].terminal_id == "till-1"


async def test_what_is_still_being_checked_is_asked_for_again(shop: TillShop) -> None:
    """Many tills have no button to load a page again."""
    shop.checkout.silent.add("channel")
    browser = await shop.sale()
    assert browser.document.view == "sale"
    assert not browser.document.has_form("/scan")
    assert browser.address in browser.document.links
    refresh = attributes(browser, "meta", **{"http-equiv": "refresh"})["content"]
    shop.checkout.silent.clear()
    await browser.open(refresh.partition("url=")[2])
    await shop.scan(browser, CODE)
    assert shop.status(browser) == "PAID"


async def test_a_payer_who_confirms_is_waited_for(shop: TillShop) -> None:
    browser = await shop.sale()
    await shop.scan(browser, PENDING_CODE)
    assert "sign wait" in browser.document.html
    assert attributes(browser, "meta", **{"http-equiv": "refresh"})["content"].endswith(browser.address)
    assert not browser.document.has_form("/scan"), "nothing else is charged meanwhile"
    for _ in range(20):
        await asyncio.sleep(2)
        await browser.reload()
        if "sign good" in browser.document.html:
            break
    assert shop.status(browser) == "PAID"


async def test_a_payer_who_never_confirms_is_reversed_and_another_code_is_taken(shop: TillShop) -> None:
    browser = await shop.sale()
    await shop.scan(browser, NEVER_CODE)
    await asyncio.sleep(50)
    await browser.reload()
    assert shop.status(browser) == "PENDING"
    assert browser.document.has_form("/scan")
    assert "notice warning" in browser.document.html, "how the first one ended"
    await shop.scan(browser, CODE)
    assert shop.status(browser) == "PAID"
    assert len(shop.checkout.payments_that_paid(shop.order_id(browser))) == 1


async def test_the_cashier_stops_a_payment(shop: TillShop) -> None:
    browser = await shop.sale()
    await shop.scan(browser, NEVER_CODE)
    await browser.submit("/cancel")
    assert shop.status(browser) == "PENDING"
    assert browser.document.has_form("/scan")


async def test_a_code_on_the_screen_is_paid_by_the_payer(shop: TillShop) -> None:
    browser = await shop.sale()
    await shop.show_code(browser)
    html = browser.document.html
    assert "<svg viewBox=" in html
    assert '<noscript><meta http-equiv="refresh"' in html
    assert attributes(browser, "main")["data-live"] == f"{browser.address}/events"
    assert browser.document.has_form("/scan"), "the payer may show a code instead"
    shop.settle(browser)
    await browser.reload()
    assert "sign good" in browser.document.html
    assert shop.status(browser) == "PAID"
    assert "data-live" not in attributes(browser, "main")


async def test_a_payers_code_in_place_of_the_one_on_the_screen_is_charged_once(shop: TillShop) -> None:
    browser = await shop.sale()
    await shop.show_code(browser)
    shown = shop.checkout.world.acquirer.live_attempt(shop.order_id(browser))
    await shop.scan(browser, CODE)
    assert shop.status(browser) == "PAID"
    (paid,) = shop.checkout.payments_that_paid(shop.order_id(browser))
    assert paid != shown
    late = shop.checkout.world.engine.settle(shown or "", "SUCCEEDED")
    assert late.body["failure"]["code"] == "REVERSED", "the code on the screen is closed"


async def test_a_code_that_was_paid_just_before_another_is_scanned_charges_nothing_more(shop: TillShop) -> None:
    browser = await shop.sale()
    await shop.show_code(browser)
    shop.settle(browser)
    await shop.scan(browser, CODE)
    assert "sign good" in browser.document.html
    assert len(shop.checkout.payments_that_paid(shop.order_id(browser))) == 1
    assert shop.checkout.count("submit") == 1


async def test_a_double_scan_a_reload_and_a_second_tab_are_one_payment(shop: TillShop) -> None:
    browser = await shop.sale()
    form = browser.document.form("/scan")
    first, second = await asyncio.gather(browser.post(form, {"code": CODE}), browser.post(form, {"code": f" {CODE} "}))
    assert (first.status, second.status) == (303, 303)
    await browser.post(form, {"code": CODE})
    assert len(shop.checkout.payments_that_paid(browser.address.rpartition("/")[2])) == 1
    assert shop.checkout.count("submit") == 1
    await browser.reload()
    assert "sign good" in browser.document.html


async def test_another_code_on_an_old_form_charges_nothing(shop: TillShop) -> None:
    browser = await shop.sale()
    form = browser.document.form("/scan")
    await browser.post(form, {"code": NEVER_CODE})
    answer = await browser.post(form, {"code": CODE})
    assert (answer.status, answer.location) == (303, browser.address)
    assert shop.checkout.count("submit") == 1


async def test_another_browser_of_the_till_sees_how_a_sale_stands(shop: TillShop) -> None:
    browser = await shop.sale()
    await shop.scan(browser, NEVER_CODE)
    address = browser.address
    again = await shop.till()
    await again.open(address)
    assert "sign wait" in again.document.html, "the order is being paid"
    shop.settle(browser)
    await asyncio.sleep(61)
    await again.open(address)
    assert "sign good" in again.document.html


async def test_a_sale_is_created_once_however_often_its_form_is_sent(shop: TillShop) -> None:
    browser = await shop.till()
    form = browser.document.form("/sales")
    answers = [await browser.post(form, {"amount": "5", "note": ""}) for _ in range(3)]
    assert len({answer.location for answer in answers}) == 1
    changed = await browser.post(form, {"amount": "6", "note": ""})
    assert changed.location != answers[0].location
    await browser.reload()
    another = await browser.post(browser.document.form("/sales"), {"amount": "5", "note": ""})
    assert another.location != answers[0].location, "the next sale of the same amount"


async def test_an_order_is_asked_for_in_the_trace_of_the_browser_if_it_is_valid(shop: TillShop) -> None:
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    for traceparent in (parent, "ä"):
        browser = await shop.till()
        browser.headers |= {"traceparent": traceparent, "tracestate": "rojo=1"}
        assert (await browser.post(browser.document.form("/sales"), {"amount": "5", "note": ""})).status == 303
    sent = [(headers.traceparent, headers.tracestate) for headers in shop.call_headers]
    assert sent == [(parent, "rojo=1"), (None, None)]


@pytest.mark.parametrize("amount", ["", "0", "12,5", "-1", "<b>", "1" * 40])
async def test_what_is_no_amount_is_said_at_its_field(shop: TillShop, amount: str) -> None:
    browser = await shop.till()
    answer = await browser.submit("/sales", amount=amount, note="<i>")
    assert answer.status == 422
    assert attributes(browser, "input", name="amount")["aria-invalid"] == "true"
    assert "notice error" in browser.document.html
    assert "<i>" not in browser.document.html
    assert shop.sales == []


async def test_a_card_number_in_the_wrong_field_goes_nowhere(shop: TillShop) -> None:
    browser = await shop.till()
    await browser.submit("/sales", amount="5", note="4111 1111 1111 1111")
    assert shop.sales[0][0].note is None
    again = await shop.till()
    await again.submit("/sales", amount="x", note="4111111111111111")
    assert "4111" not in again.document.html


async def test_the_address_of_a_refused_form_can_be_loaded(shop: TillShop) -> None:
    browser = await shop.till()
    await browser.submit("/sales", amount="x", note="")
    await browser.reload()
    assert browser.address == "/cashier-till/m_5/till-1"
    sale = await shop.sale()
    address = sale.address
    for step in ("scan", "code", "cancel"):
        await sale.open(f"{address}/{step}")
        assert sale.address == address


async def test_a_sale_without_an_order_can_be_tried_again_with_the_same_key(shop: TillShop) -> None:
    browser = await shop.till()
    form = browser.document.form("/sales")
    shop.out_of_order = True
    assert (await browser.post(form, {"amount": "5", "note": ""})).status == 503
    shop.out_of_order = False
    assert (await browser.post(form, {"amount": "5", "note": ""})).status == 303
    assert shop.sales[0] == shop.sales[1]


@pytest.mark.parametrize("code", ["", "123", "付款码一二三四五六", "a" * 257])
async def test_what_is_no_code_is_said_and_not_sent(shop: TillShop, code: str) -> None:
    browser = await shop.sale()
    await shop.scan(browser, code)
    assert "notice error" in browser.document.html
    assert shop.checkout.count("submit") == 0


async def test_a_code_that_was_used_is_refused_and_another_is_taken(shop: TillShop) -> None:
    first = await shop.sale()
    await shop.scan(first, CODE)
    second = await shop.sale()
    await shop.scan(second, CODE)
    assert "notice warning" in second.document.html
    assert shop.status(second) == "PENDING"
    await shop.scan(second, "134567890123456782")
    assert shop.status(second) == "PAID"


async def test_the_screen_follows_the_payment_as_it_happens(shop: TillShop) -> None:
    browser = await shop.sale()
    await shop.show_code(browser)
    async with following(browser, live_address(browser.document)) as events:
        first = await events.next("update")
        assert first["view"] == "sale"
        assert "<svg" in first["html"]
        shop.settle(browser)
        last = await events.next("update")
        assert "sign good" in last["html"]
        assert 'href="/cashier-till/m_5/till-1"' in last["html"]
        assert await events.next("end") == {"retry_ms": None}
    assert events.headers["content-security-policy"].startswith("default-src 'none'")


async def test_a_code_that_nobody_paid_loads_the_page_again(shop: TillShop) -> None:
    browser = await shop.sale()
    await shop.show_code(browser)
    async with following(browser, live_address(browser.document)) as events:
        await events.next("update")
        shop.settle(browser, "FAILED")
        again = await events.next("update")
        assert again["view"] == ""
        assert "html" not in again
    await browser.reload()
    assert browser.document.has_form("/scan")


async def test_a_browser_without_events_asks_for_the_state(shop: TillShop) -> None:
    browser = await shop.sale()
    await shop.scan(browser, PENDING_CODE)
    answer = await browser.send("GET", live_address(browser.document), headers=JSON)
    update = json.loads(answer.body)
    assert update["poll_after_ms"] > 0
    assert "sign wait" in update["html"]
    stranger = await shop.till()
    assert (await stranger.send("GET", f"{browser.address}/events", headers=JSON)).status == 403


async def test_an_order_of_another_merchant_is_neither_shown_nor_paid(shop: TillShop) -> None:
    browser = await shop.till()
    await browser.open("/cashier-till/m_5/till-1/sales/o_1022")
    assert "A pot of tea" not in browser.document.text
    assert not browser.document.has_form("/scan")
    await browser.open("/cashier-till/m_5/till-1/sales/o_none")
    assert browser.document.view == "problem"


async def test_a_till_needs_its_own_session(shop: TillShop) -> None:
    stranger = PayerBrowser(shop.application)
    assert (await stranger.open("/cashier-till/m_5/till-1")).status == 403
    browser = await shop.till()
    assert (await browser.open("/cashier-till/m_5/till-2")).status == 403
    other = PayerBrowser(shop.application)
    link = shop.link("till-2").replace("till-2", "till-1")
    assert (await other.open(link)).status == 403
    sale = await shop.sale()
    stolen = sale.address
    assert (await stranger.open(stolen)).status == 403


async def test_a_form_of_another_till_or_site_does_nothing(shop: TillShop) -> None:
    browser, other = await shop.sale(), await shop.sale(terminal_id="till-2")
    form = browser.document.form("/scan")
    form.fields = other.document.form("/scan").fields
    assert (await browser.post(form, {"code": CODE})).status == 403
    own = await shop.sale()
    cross = await own.send(
        "POST", own.document.form("/scan").action, [("code", CODE)], headers={"sec-fetch-site": "cross-site"}
    )
    assert cross.status == 403
    assert shop.checkout.count("submit") == 0


async def test_a_till_in_use_stays_open_and_an_idle_one_closes(shop: TillShop) -> None:
    browser = await shop.till()
    for _ in range(3):
        shop.checkout.world.clock.advance(timedelta(hours=20))
        assert (await browser.reload()).status == 200
    shop.checkout.world.clock.advance(timedelta(hours=25))
    assert (await browser.reload()).status == 403


async def test_the_cookies_of_ended_sales_go_and_a_closed_browser_goes_on(shop: TillShop) -> None:
    browser = await shop.sale()
    await shop.show_code(browser)
    live = browser.answers[-1].set_cookies
    shop.settle(browser)
    await browser.reload()
    ended = browser.answers[-1].set_cookies
    assert ["Max-Age=7200" in cookie for cookie in live] == [True]
    assert ["Max-Age=600" in cookie for cookie in ended] == [True]
    till = await shop.till()
    assert all("Max-Age=86400" in cookie for answer in till.answers for cookie in answer.set_cookies)


async def test_the_till_speaks_the_language_that_is_chosen(shop: TillShop) -> None:
    browser = await shop.till(locale="zh-CN")
    assert "新收款" in browser.document.text
    await browser.open(f"{browser.address}?locale=ar")
    assert browser.address == "/cashier-till/m_5/till-1"
    assert attributes(browser, "html")["dir"] == "rtl"
    await browser.submit("/sales", amount="١٢٫٥", note="")
    assert shop.sales[0][0].amount.value == 1_250


async def test_the_printed_code_is_a_page_of_the_till(shop: TillShop) -> None:
    browser = await shop.till()
    await browser.open("/cashier-till/m_5/till-1/code")
    assert "Breakfast <Stall>" in browser.document.text
    assert "http://127.0.0.1:8080/cashier-code/m_5" in browser.document.text
    assert "<svg viewBox=" in browser.document.html


@pytest.mark.parametrize("locale", ["zh-CN", "ar"])
async def test_the_printed_code_speaks_the_language_that_is_chosen(shop: TillShop, locale: str) -> None:
    browser = await shop.till()
    await browser.open("/cashier-till/m_5/till-1/code")
    await browser.open(next(link for link in browser.document.links if link.endswith(f"locale={locale}")))
    assert browser.address == "/cashier-till/m_5/till-1/code"
    assert attributes(browser, "html")["lang"] == locale


# Orders that are not what was asked for


async def test_an_order_of_another_amount_is_refused_in_words(shop: TillShop) -> None:
    browser = await shop.till()
    shop.orders_cost = 500
    for asked in ("12.50", "0.01", "99,999.00", "5.01"):
        answer = await browser.submit("/sales", amount=asked, note="")
        assert answer.status == 409
        assert "¥5.00" in browser.document.text
        assert f"¥{asked}" in browser.document.text
        assert browser.document.has_form("/sales"), "the next sale"


async def test_an_order_whose_amount_changes_is_not_charged(shop: TillShop) -> None:
    """Not by its page, and not by a form that was open before."""
    browser = await shop.sale("12.50")
    page, forms = browser.address, browser.document.forms
    population: Any = shop.checkout.world.population
    population._orders[shop.order_id(browser)]["amount"]["value"] = 500
    await browser.open(page)
    assert "¥5.00" in browser.document.text
    assert "¥12.50" in browser.document.text
    assert not browser.document.forms
    for form in forms:
        await browser.open((await browser.post(form, {"code": CODE})).location)
        assert "¥12.50" in browser.document.text
    assert shop.checkout.count("submit") == 0


async def test_an_order_that_was_paid_before_is_not_the_next_sale(shop: TillShop) -> None:
    """Else the till would say "paid" to a payer who has not paid."""
    first = await shop.sale("5")
    await shop.scan(first, CODE)
    assert shop.status(first) == "PAID"
    shop.orders_are = shop.order_id(first)
    for browser in (first, await shop.till()):
        for amount in ("5", "12.50"):
            await browser.open("/cashier-till/m_5/till-1")
            assert (await browser.submit("/sales", amount=amount, note="")).status == 409
            assert "sign good" not in browser.document.html


async def test_an_order_of_another_merchant_or_product_is_not_sold_and_not_shown(shop: TillShop) -> None:
    for order_id in ("o_1001", "o_1020"):
        shop.orders_are = order_id
        browser = await shop.till()
        assert (await browser.submit("/sales", amount="128.00", note="")).status == 409
        assert "reading lamp" not in browser.document.text
        assert browser.document.has_form("/sales")


async def test_a_sale_form_that_is_sent_again_leads_to_its_sale(shop: TillShop) -> None:
    browser = await shop.till()
    form = browser.document.form("/sales")
    await browser.submit("/sales", amount="5", note="")
    sale = browser.address
    for _ in range(2):
        assert (await browser.post(form, {"amount": "5", "note": ""})).location == sale
        await browser.open(sale)
        if browser.document.has_form("/code"):
            await shop.show_code(browser)


async def test_a_service_that_does_not_answer_for_now_keeps_the_sale_and_its_amount(shop: TillShop) -> None:
    browser = await shop.till()
    shop.checkout.silent.add("order")
    await browser.submit("/sales", amount="12.50", note="")
    assert browser.answers[-1].status == 503
    shop.checkout.silent.clear()
    population: Any = shop.checkout.world.population
    population._orders[shop.order_id(browser)]["amount"]["value"] = 500
    await browser.open(browser.address)
    assert "¥5.00" in browser.document.text
    assert not browser.document.has_form("/scan")


async def test_another_browser_of_the_till_sees_the_order_as_it_is(shop: TillShop) -> None:
    browser, other = await shop.sale("12.50"), await shop.till()
    await other.open(browser.address)
    assert "¥12.50" in other.document.text
    assert other.document.has_form("/scan")


async def test_a_changed_cookie_of_the_amount_is_none(shop: TillShop) -> None:
    browser = await shop.sale("12.50")
    key = next(key for key in browser.cookies if key[1] == "cashier-asked")
    for kept in ("", "CNY", "CNY:-1", "CNY:1e9", "XXX:5", "CNY:\u00b2", f"CNY:{'9' * 5000}", "~", ":"):
        browser.cookies[key] = f"1~{kept}"
        await browser.reload()
        assert browser.document.has_form("/scan"), kept
