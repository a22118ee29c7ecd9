"""The whole way from a link to a result, in a browser without JavaScript."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from markupsafe import Markup

from cashier import pages
from cashier.domain.pay_method import Availability
from cashier.pages import qr
from cashier.web.application import app
from cashier.wire.transport import Request, Response
from tests.pages.page_shop import BACK, PageShop, page_shop
from tests.payments.checkout import OTP

pytestmark = pytest.mark.virtual_time
CASE = "chinese_shop"
ORDER = "/cashier/o_1001"
WALLET, OTHER = "WALLET:ALIPAY", "WALLET:WECHAT_PAY"
# Case, method, option, and the view of its payment.
KINDS: list[tuple[str, str, str | None, str]] = [
    (CASE, "QUICK_PAY:c_2", None, "challenge"),
    (CASE, "AGREEMENT:ag_1", None, "result"),
    ("balance_is_enough", "BALANCE:acc_1", None, "result"),
    (CASE, WALLET, None, "action"),
    ("on_a_computer", "NET_BANKING", "CMB", "action"),
    ("indonesian_shop", "VA", "BCA", "action"),
    ("japanese_shop", "OTC", "LAWSON", "action"),
    ("nothing_to_pay", "FREE", None, "result"),
]


async def test_each_page_names_the_merchant(shop: PageShop) -> None:
    browser = await shop.payer(CASE)
    assert "Spruce Books" in browser.document.text
    await browser.choose("AGREEMENT:ag_1")
    assert browser.document.view == "result"
    assert "Spruce Books" in browser.document.text


async def test_times_are_by_the_clock_of_the_order_if_the_shop_names_no_country(shop: PageShop) -> None:
    browser = await shop.payer(CASE, country=None)
    assert "UTC" not in browser.document.text


async def test_what_is_refused_has_a_heading_and_only_help_that_a_payer_can_follow(shop: PageShop) -> None:
    browser = await shop.payer(CASE)
    refused = browser.document.text.partition("暂不可用")[2]
    assert "今日额度不足" in refused
    assert "最多可付" not in refused, "the amount is the order's"


async def test_a_link_becomes_a_cookie_and_a_clean_address(shop: PageShop) -> None:
    browser = await shop.payer(CASE)
    assert browser.address == "/cashier/o_1001"
    assert [answer.status for answer in browser.answers] == [303, 200]
    assert browser.document.view == "checkout"
    assert "token=" not in browser.document.html
    assert BACK in browser.document.links


@pytest.mark.parametrize(("case", "method_id", "option_id", "view"), KINDS)
async def test_each_kind_is_paid_from_the_page(
    shop: PageShop, case: str, method_id: str, option_id: str | None, view: str
) -> None:
    browser = await shop.payer(case)
    order_id = browser.address.rpartition("/")[2]
    await browser.choose(method_id, option_id)
    assert browser.address == f"/cashier/{order_id}/payment"
    assert browser.document.view == view
    if view == "challenge":
        await browser.submit("/challenge", value=OTP)
    if view == "action":
        shop.settle(browser)
        await browser.submit("/payment")
    for _ in range(3):
        await asyncio.sleep(3)
        await browser.reload()
    assert "good" in browser.document.state
    assert len(shop.checkout.payments_that_paid(order_id)) == 1
    assert BACK in browser.document.links


async def test_instalments_show_their_terms_and_are_chosen(shop: PageShop) -> None:
    browser = await shop.payer("in_instalments")
    (method_id,) = {
        value for name, value, can in browser.document.form("/pay").choices if value.startswith("INSTALMENT") and can
    }
    consultation = await shop.checkout.consult("in_instalments")
    method = next(each for each in consultation.methods if each.method_id == method_id)
    option = next(each for each in method.options if each.availability is Availability.AVAILABLE)
    await browser.choose(method_id, option.option_id)
    assert browser.document.view == "action"
    assert option.amount is not None
    assert shop.checkout.submissions[-1]["amount"]["value"] == option.amount.payable.value


def draw_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Virtual time does not wait for threads."""

    async def run_here(draw: Callable[[str], Markup], content: str) -> Markup:
        return draw(content)

    monkeypatch.setattr(qr, "to_thread", SimpleNamespace(run_sync=run_here))


async def test_a_code_is_drawn_for_a_walk_in(shop: PageShop, monkeypatch: pytest.MonkeyPatch) -> None:
    draw_here(monkeypatch)
    browser = await shop.payer("walk_in")
    await browser.choose("MERCHANT_QR:ALIPAY")
    assert browser.document.view == "action"
    assert "<svg viewBox=" in browser.document.html
    shop.settle(browser)
    await browser.submit("/payment")
    assert "good" in browser.document.state


async def test_a_payment_names_its_method_as_it_was_chosen(shop: PageShop) -> None:
    browser = await shop.payer(CASE, locale="en")
    await browser.choose("QUICK_PAY:c_2")
    assert "China Merchants Bank credit card (1014)" in browser.document.text
    await browser.submit("/challenge", value=OTP)
    assert "China Merchants Bank credit card (1014)" in browser.document.text
    twin = shop.browser()
    await twin.open(shop.link(CASE, locale="en"))
    assert "1014" not in twin.document.text, "another browser has the kind alone"


# Choices


async def test_without_a_choice_the_page_asks_for_one_and_keeps_the_rest(shop: PageShop) -> None:
    browser = await shop.payer(CASE)
    answer = await browser.submit("/pay", method="")
    assert (answer.status, browser.document.view) == (422, "checkout")
    assert 'href="#methods"' in browser.document.html
    await browser.choose(WALLET)
    assert browser.document.view == "action"


async def test_a_method_with_banks_needs_one(shop: PageShop) -> None:
    browser = await shop.payer("on_a_computer")
    answer = await browser.submit("/pay", method="NET_BANKING")
    assert (answer.status, browser.document.view) == (422, "checkout")
    assert shop.checkout.count("submit") == 0
    assert ("method", "NET_BANKING") in browser.document.form("/pay").fields, "the choice is kept"


async def test_coupons_are_chosen_and_declined_by_address(shop: PageShop) -> None:
    browser = await shop.payer(CASE)
    form = browser.document.form("/cashier/o_1001")
    names = [value for name, value, _ in form.choices if name == "coupon"]
    assert names
    best = {value for name, value in form.fields if name == "coupon"}
    await browser.submit("/cashier/o_1001", coupons="none")
    assert "coupons=none" in browser.address
    assert {value for name, value in browser.document.form("/cashier/o_1001").fields if name == "coupon"} == set()
    await browser.choose(WALLET)
    (sent,) = shop.checkout.submissions
    assert sent["amount"]["value"] == 12_800
    assert not any(leg["type"] == "PROMOTION" for leg in sent["legs"])
    assert best


@pytest.mark.parametrize("locale", ["zh-TW", "ar"])
async def test_another_language_keeps_the_choice_of_coupons(shop: PageShop, locale: str) -> None:
    browser = await shop.payer(CASE)
    coupons = [value for name, value, _ in browser.document.form(ORDER).choices if name == "coupon"]
    for choice in ("coupons=none", f"coupon={coupons[0]}", f"coupon={coupons[-1]}"):
        await browser.open(f"{ORDER}?{choice}")
        assert choice in browser.address
        before = dict(browser.document.form("/pay").fields)
        await browser.open(next(link for link in browser.document.links if link.endswith(f"locale={locale}")))
        assert f'lang="{locale}"' in browser.document.html
        after = dict(browser.document.form("/pay").fields)
        assert [after.get(name) for name in ("coupon", "coupons")] == [
            before.get(name) for name in ("coupon", "coupons")
        ]
        assert choice.partition("=")[2] in (after.get("coupon"), after.get("coupons"))


async def test_a_changed_price_is_shown_and_agreed_to_once_more(shop: PageShop) -> None:
    browser = await shop.payer(CASE)
    shop.checkout.reprice("o_1001", 13_000)
    answer = await browser.choose(WALLET)
    assert (answer.status, browser.document.view) == (409, "checkout")
    assert "notice warning" in browser.document.html
    assert "130.00" in browser.document.text
    assert shop.checkout.count("submit") == 0
    await browser.choose(WALLET)
    assert browser.document.view == "action"
    shop.settle(browser)
    await browser.submit("/payment")
    assert "good" in browser.document.state


@pytest.mark.parametrize(
    ("shown", "sent", "price"),
    [
        ("", [("coupons", "none")], "¥128.00"),
        ("?coupons=none", [], "¥113.00"),
        ("?coupons=none", [("coupon", "p_3")], "¥125.12"),
        ("?coupon=p_3", [("coupon", "p_3"), ("coupon", "p_1")], "¥115.12"),
    ],
)
async def test_a_choice_of_coupons_that_the_offer_has_not_is_agreed_to_first(
    shop: PageShop, shown: str, sent: list[tuple[str, str]], price: str
) -> None:
    browser = await shop.payer("chinese_shop")
    await browser.open(f"{ORDER}{shown}")
    form = browser.document.form("/pay")
    form.fields = [field for field in form.fields if field[0] not in ("coupon", "coupons")] + sent
    answer = await browser.choose("WALLET:ALIPAY")
    assert (answer.status, browser.document.view) == (409, "checkout")
    assert shop.checkout.count("submit") == 0
    await browser.choose("WALLET:ALIPAY")
    assert browser.document.view == "action"
    assert price in browser.document.text


async def test_an_offer_that_ran_out_is_asked_for_again(shop: PageShop) -> None:
    browser = await shop.payer(CASE)
    await asyncio.sleep(901)
    answer = await browser.choose(WALLET)
    assert browser.document.view == "checkout"
    assert answer.status in (200, 409)
    assert shop.checkout.count("submit") == 0


@pytest.mark.parametrize(("silent", "status"), [("quota", 503)])
async def test_a_silent_check_sends_nothing_and_can_be_repeated(shop: PageShop, silent: str, status: int) -> None:
    browser = await shop.payer(CASE)
    shop.checkout.silent.add(silent)
    answer = await browser.choose(WALLET)
    assert (answer.status, browser.document.view) == (status, "checkout")
    assert shop.checkout.count("submit") == 0
    assert "busy" in browser.document.html, "what is silent is being checked, and no error"
    shop.checkout.silent.clear()
    await browser.reload()
    await browser.choose(WALLET)
    assert browser.document.view == "action"


async def test_a_rejection_offers_the_other_methods(shop: PageShop) -> None:
    browser = await shop.payer("listed_by_risk")
    method_id = next(value for name, value, can in browser.document.form("/pay").choices if can and name == "method")
    answer = await browser.choose(method_id)
    assert (answer.status, browser.document.view) == (402, "checkout")
    assert 'role="alert"' in browser.document.html
    assert "USER_LISTED" not in browser.document.html


# Undetermined


async def test_a_hanging_source_is_shown_as_checking_with_a_way_to_look_again(shop: PageShop) -> None:
    shop.checkout.silent.add("quota")
    browser = await shop.payer(CASE)
    assert browser.document.view == "checkout"
    assert 'class="row checking"' in browser.document.html
    assert browser.document.html.count('/cashier/o_1001"') >= 1
    assert "查询中" in browser.document.text
    assert "重试" not in browser.document.text, "a source that hangs is no fault of the payer's"
    assert ("button", {"class": "primary", "disabled": ""}) in browser.document.tags, "nothing can be paid yet"
    shop.checkout.silent.clear()
    await browser.reload()
    assert 'class="row checking"' not in browser.document.html


async def test_a_silent_required_source_is_a_page_that_looks_again_by_itself(shop: PageShop) -> None:
    shop.checkout.silent.add("order")
    browser = await shop.payer(CASE)
    assert browser.answers[-1].status == 503
    assert browser.document.view == "problem"
    assert '<noscript><meta http-equiv="refresh"' in browser.document.html
    assert 'data-reload-after="5"' in browser.document.html
    assert "仍在查询" in browser.document.text
    assert browser.answers[-1].headers["retry-after"] == "5"
    shop.checkout.silent.clear()
    await browser.reload()
    assert browser.document.view == "checkout"


# Orders that cannot be paid


@pytest.mark.parametrize("case", ["order_closed", "order_expired", "user_frozen", "merchant_suspended", "order_paid"])
async def test_an_order_that_cannot_be_paid_says_why_and_has_no_form(shop: PageShop, case: str) -> None:
    browser = await shop.payer(case)
    assert browser.document.view == "checkout"
    assert not browser.document.has_form("/pay")
    assert "state" in browser.document.state


async def test_an_unknown_order_is_not_found(shop: PageShop) -> None:
    browser = await shop.payer("order_unknown")
    assert (browser.answers[-1].status, browser.document.view) == (404, "problem")


async def test_another_partys_order_shows_nothing_of_it(shop: PageShop) -> None:
    browser = await shop.payer("order_user_mismatch")
    assert not browser.document.has_form("/pay")
    assert 'class="order"' not in browser.document.html


async def test_an_order_that_closes_while_the_page_is_open_is_not_paid(shop: PageShop) -> None:
    browser = await shop.payer(CASE)

    orders: Any = shop.checkout.world.population._orders
    orders["o_1001"]["status"] = "CLOSED"
    await browser.choose(WALLET)
    assert browser.document.view == "checkout"
    assert not browser.document.has_form("/pay")
    assert shop.checkout.count("submit") == 0


# More than one of it


async def test_a_double_click_is_one_payment(shop: PageShop) -> None:
    browser = await shop.payer(CASE)
    form, values = browser.document.form("/pay"), browser.choice(WALLET)
    answers = await asyncio.gather(browser.post(form, values), browser.post(form, values))
    assert [answer.status for answer in answers] == [303, 303]
    assert len({submission["payment_id"] for submission in shop.checkout.submissions}) == 1
    await browser.open("/cashier/o_1001")
    assert browser.address == "/cashier/o_1001/payment"


async def test_back_and_the_same_choice_again_is_the_same_payment(shop: PageShop) -> None:
    browser = await shop.payer(CASE)
    form, values = browser.document.form("/pay"), browser.choice(WALLET)
    await browser.choose(WALLET)
    first = shop.payment_id(browser)
    answer = await browser.post(form, values)
    assert answer.location.startswith("/cashier/o_1001/payment")
    assert shop.payment_id(browser) == first


async def test_back_and_another_choice_shows_the_live_attempt(shop: PageShop) -> None:
    browser = await shop.payer(CASE)
    form, values = browser.document.form("/pay"), browser.choice(OTHER)
    await browser.choose(WALLET)
    first = shop.payment_id(browser)
    answer = await browser.post(form, values)
    assert answer.location == f"/cashier/o_1001/payment?attempt={first}"
    await browser.open(answer.location)
    assert browser.document.view == "action"
    assert shop.payment_id(browser) == first
    assert shop.checkout.count("submit") == 1


async def test_a_reload_of_a_settled_order_shows_the_result_never_the_form(shop: PageShop) -> None:
    browser = await shop.payer(CASE)
    await browser.choose(WALLET)
    shop.settle(browser)
    await browser.open("/cashier/o_1001")
    assert browser.address == "/cashier/o_1001/payment"
    assert "good" in browser.document.state


async def test_a_lost_answer_is_met_again_by_a_reload(shop: PageShop) -> None:
    """The submit arrived, the browser never got the answer, and so has no cookie of the payment."""
    browser = await shop.payer(CASE)
    form, values = browser.document.form("/pay"), browser.choice(WALLET)
    cookies = dict(browser.cookies)
    await browser.post(form, values)
    browser.cookies = cookies
    await browser.reload()
    assert browser.address.startswith("/cashier/o_1001/payment")
    assert browser.document.view == "action"
    assert shop.checkout.count("submit") == 1


@pytest.mark.parametrize("locale", [None, "ar", "id"])
@pytest.mark.parametrize(("case", "method_id"), [("walk_in", "MERCHANT_QR:ALIPAY"), ("chinese_shop", "WALLET:ALIPAY")])
async def test_a_lost_answer_is_met_again_by_the_same_press_in_any_language(
    shop: PageShop, monkeypatch: pytest.MonkeyPatch, case: str, method_id: str, locale: str | None
) -> None:
    draw_here(monkeypatch)
    browser = await shop.payer(case)
    checkout, cookies = browser.document, dict(browser.cookies)
    await browser.post(checkout.form("/pay"), browser.choice(method_id))
    browser.cookies = cookies
    if locale is not None:
        await browser.send("GET", f"{browser.address}?locale={locale}")
    browser.document = checkout
    await browser.submit("/pay", browser.choice(method_id))
    assert browser.document.view == "action"
    assert shop.checkout.count("submit") == 1


async def test_a_second_device_with_the_same_link_sees_the_live_attempt(shop: PageShop) -> None:
    link = shop.link(CASE)
    first, second = shop.browser(), shop.browser()
    await first.open(link)
    await first.choose(WALLET)
    await second.open(link)
    assert second.document.view == "action"
    assert shop.payment_id(second) == shop.payment_id(first)
    shop.settle(first)
    await second.submit("/payment")
    assert "good" in second.document.state


async def test_two_devices_that_choose_the_same_at_once_are_one_payment(shop: PageShop) -> None:
    link = shop.link(CASE)
    devices = [shop.browser(), shop.browser()]
    for device in devices:
        await device.open(link)
    await asyncio.gather(*(device.choose(WALLET) for device in devices))
    assert shop.payment_id(devices[0]) == shop.payment_id(devices[1])
    assert len({submission["payment_id"] for submission in shop.checkout.submissions}) == 1


async def test_a_payment_that_began_elsewhere_takes_the_place_of_an_open_challenge(shop: PageShop) -> None:
    link = shop.link(CASE)
    first, second = shop.browser(), shop.browser()
    for device in (first, second):
        await device.open(link)
    await first.choose("QUICK_PAY:c_2")
    await second.choose(WALLET)
    await first.submit("/challenge", value=OTP)
    assert first.document.view == "action"
    assert shop.payment_id(first) == shop.payment_id(second)
    shop.settle(second)
    for device in (first, second):
        await device.submit("/payment")
        assert "good" in device.document.state
    assert len(shop.checkout.payments_that_paid("o_1001")) == 1


# Ending it


async def test_a_cancelled_payment_can_be_paid_in_another_way(shop: PageShop) -> None:
    browser = await shop.payer(CASE)
    await browser.choose("QUICK_PAY:c_2")
    await browser.submit("/cancel")
    assert "calm" in browser.document.state
    await browser.open("/cashier/o_1001")
    await browser.choose(WALLET)
    shop.settle(browser)
    await browser.submit("/payment")
    assert "good" in browser.document.state


async def test_a_replaced_payment_leads_back_to_the_methods(shop: PageShop) -> None:
    browser = await shop.payer(CASE)
    await browser.choose(WALLET)
    first = shop.payment_id(browser)
    await browser.submit("/replace")
    assert (browser.address, browser.document.view) == ("/cashier/o_1001", "checkout")
    await browser.choose(WALLET)
    assert shop.payment_id(browser) != first, "the same choice is a new attempt"
    shop.settle(browser)
    await browser.submit("/payment")
    assert "good" in browser.document.state


async def test_a_declined_payment_can_be_tried_again_by_the_same_method(shop: PageShop) -> None:
    browser = await shop.payer(CASE)
    await browser.choose(WALLET)
    shop.settle(browser, "FAILED")
    await browser.submit("/payment")
    assert "bad" in browser.document.state
    assert "/cashier/o_1001" in browser.document.links
    await browser.open("/cashier/o_1001")
    await browser.choose(WALLET)
    assert browser.document.view == "action"


async def test_a_form_of_an_attempt_that_is_over_changes_nothing(shop: PageShop) -> None:
    browser = await shop.payer(CASE)
    await browser.choose(WALLET)
    old = browser.document.form("/replace")
    await browser.submit("/replace")
    await browser.choose(OTHER)
    second = shop.payment_id(browser)
    await browser.post(old, {})
    await browser.open("/cashier/o_1001/payment")
    assert shop.payment_id(browser) == second
    assert browser.document.view == "action"


# Challenges


async def test_a_wrong_code_says_so_and_the_right_one_passes(shop: PageShop) -> None:
    browser = await shop.payer(CASE)
    await browser.choose("QUICK_PAY:c_2")
    await browser.submit("/challenge", value="000000")
    assert browser.document.view == "challenge"
    assert 'id="fault"' in browser.document.html
    await browser.submit("/challenge", value=f" {OTP} ")
    assert "good" in browser.document.state


def challenged_by(shop: PageShop, **fields: str) -> None:
    """The risk service asks for another type of challenge."""

    async def decide(request: Request) -> Response:
        body = json.loads((await shop.checkout._sandbox(request)).body)
        body["challenge"] |= fields
        return Response(200, json.dumps(body).encode())

    shop.checkout.replies["decide"] = decide


async def test_an_empty_answer_is_none(shop: PageShop) -> None:
    browser = await shop.payer(CASE)
    await browser.choose("QUICK_PAY:c_2")
    for _ in range(4):
        await browser.submit("/challenge", value=" ")
    assert shop.checkout.count("verify") == 0
    await browser.submit("/challenge", value=OTP)
    assert "good" in browser.document.state


async def test_the_page_of_an_issuer_is_a_link_and_then_confirmed(shop: PageShop) -> None:
    challenged_by(shop, type="THREE_DS", render_value="https://issuer.example/3ds?x=1")
    browser = await shop.payer(CASE)
    await browser.choose("QUICK_PAY:c_2")
    assert "https://issuer.example/3ds?x=1" in browser.document.links
    await browser.submit("/challenge")
    assert [body["value"] for name, body in shop.checkout.bodies if name == "verify"] == ["confirmed"]


@pytest.mark.parametrize(
    "fields", [{"type": "BIOMETRIC"}, {"type": "THREE_DS"}, {"type": "THREE_DS", "render_value": "javascript:alert(1)"}]
)
async def test_what_is_confirmed_elsewhere_is_only_looked_at(shop: PageShop, fields: dict[str, str]) -> None:
    challenged_by(shop, **fields)
    browser = await shop.payer(CASE)
    await browser.choose("QUICK_PAY:c_2")
    assert browser.document.view == "challenge"
    assert not browser.document.has_form("/challenge")
    assert "javascript:alert(1)" not in browser.document.links
    await browser.submit("/payment")
    assert browser.document.view == "challenge"
    assert shop.checkout.count("verify") == 0


async def test_a_spent_challenge_ends_in_a_result_with_another_way(shop: PageShop) -> None:
    browser = await shop.payer(CASE)
    await browser.choose("QUICK_PAY:c_2")
    for _ in range(3):
        if browser.document.has_form("/challenge"):
            await browser.submit("/challenge", value="000000")
    assert "bad" in browser.document.state
    assert "/cashier/o_1001" in browser.document.links
    await browser.open("/cashier/o_1001")
    await browser.choose(WALLET)
    assert browser.document.view == "action"


async def test_a_code_is_sent_again(shop: PageShop) -> None:
    browser = await shop.payer(CASE)
    await browser.choose("QUICK_PAY:c_2")
    assert re.search(r'data-enable-after="(59|60)"', browser.document.html), "counted from the start"
    await asyncio.sleep(61)
    await browser.reload()
    assert "data-enable-after" not in browser.document.html
    await browser.submit("/challenge/resend")
    assert browser.document.view == "challenge"
    assert 'role="status"' in browser.document.html
    await browser.submit("/challenge", value=OTP)
    assert "good" in browser.document.state


async def test_answers_are_bounded_per_payment(shop: PageShop) -> None:
    """Another link, session or device has no further ones."""
    first = await shop.payer(CASE)
    await first.choose("QUICK_PAY:c_2")
    second = await shop.payer(CASE)
    second.cookies |= {key: value for key, value in first.cookies.items() if "payment" in key[1]}
    await second.open("/cashier/o_1001/payment")
    assert first.cookies != second.cookies
    statuses = []
    for number in range(11):
        for browser in (first, second):
            answer = await browser.post(browser.document.form("/challenge"), {"value": f"{number:06}"})
            statuses.append(answer.status)
    assert statuses[:20] == [303] * 20
    assert statuses[20:] == [429, 429]


async def test_a_restarted_service_knows_the_session_and_the_payment() -> None:
    """Nothing of a page is kept in the service."""
    async with page_shop() as shop:
        browser = await shop.payer(CASE)
        await browser.choose(WALLET)
        browser.application = app(shop.cashier, pages=pages.app(shop.cashier, shop.checkout.world.clock))
        await browser.reload()
        assert browser.document.view == "action"


# Overload


async def test_under_overload_a_page_is_refused_and_looks_again_and_a_payment_is_taken(shop: PageShop) -> None:
    browser = await shop.payer(CASE)
    shop.application.admits_page = lambda: False  # type: ignore[method-assign]
    shop.checkout.reset_counts()
    loaded = await browser.send("GET", "/cashier/o_1001")
    assert (loaded.status, loaded.document.view, loaded.headers["retry-after"]) == (503, "problem", "5")
    assert '<noscript><meta http-equiv="refresh"' in loaded.document.html
    assert (await browser.send("GET", "/cashier/o_1001/methods")).status == 503
    assert shop.checkout.calls == []
    await browser.choose(WALLET)
    assert browser.document.view == "action"
    shop.settle(browser)
    await browser.submit("/payment")
    assert "good" in browser.document.state
