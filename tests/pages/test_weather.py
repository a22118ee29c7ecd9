"""What a page says while services fail: still checking, never "failed" or "paid" by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from msgspec import structs

from cashier import pages
from cashier.domain.payment_message import MessageCode
from cashier.pages.payment_view import OUTCOMES
from cashier.pages.views import Outcome
from cashier.web.application import app
from cashier.wire.transport import Request, Response
from tests.pages.page_shop import PageShop, page_shop
from tests.payments.checkout import OTP, SharedStore, connection_refused

pytestmark = pytest.mark.virtual_time
CASE, ORDER = "chinese_shop", "/cashier/o_1001"
CARD, WALLET = "QUICK_PAY:c_2", "WALLET:ALIPAY"
# Each outcome by the mood of its card.
MOODS = {"good": {Outcome.PAID, Outcome.OVERPAID}, "bad": {Outcome.FAILED}}


async def unreadable(request: Request) -> Response:
    return Response(500, b"")


def test_every_message_has_an_outcome_and_only_final_ones_look_final() -> None:
    assert set(OUTCOMES) == set(MessageCode)
    for code in ("PROCESSING", "USER_PAYING", "OUTCOME_UNKNOWN", "CONFIRMING", "CLOSING", "UNDERPAID"):
        assert OUTCOMES[MessageCode(code)] not in MOODS["good"] | MOODS["bad"]


@pytest.mark.parametrize("reply", [unreadable, None])
async def test_a_lost_answer_of_the_engine_is_still_checking_and_then_found(
    shop: PageShop, reply: Callable[[Request], Awaitable[Response]] | None
) -> None:
    """The engine has the payment, and its answer never came."""
    browser = await shop.payer(CASE)
    sandbox = shop.checkout._sandbox

    async def lost(request: Request) -> Response:
        await sandbox(request)
        if reply is not None:
            shop.checkout.replies["look_up"] = reply
        return await unreadable(request)

    shop.checkout.replies["submit"] = lost
    await browser.choose(WALLET)
    if reply is not None:
        assert "wait" in browser.document.state
        assert "http-equiv" in browser.document.html
        await browser.reload()
        assert "wait" in browser.document.state
    shop.checkout.replies.clear()
    await browser.reload()
    assert browser.document.view == "action"
    shop.settle(browser)
    await browser.submit("/payment")
    assert "good" in browser.document.state
    assert shop.checkout.count("submit") == 1


async def test_a_refused_connection_sends_nothing_and_the_same_choice_is_sent_again(shop: PageShop) -> None:
    browser = await shop.payer(CASE)
    shop.checkout.replies["submit"] = shop.checkout.replies["look_up"] = connection_refused
    answer = await browser.choose(WALLET)
    assert (answer.status, browser.document.view) == (503, "checkout")
    assert 'role="alert"' in browser.document.html
    shop.checkout.replies.clear()
    await browser.choose(WALLET)
    assert browser.document.view == "action"


async def test_a_silent_acquirer_confirms_nothing(shop: PageShop) -> None:
    browser = await shop.payer(CASE)
    await browser.choose(WALLET)
    shop.checkout.replies["result"] = unreadable
    shop.settle(browser)
    await browser.reload()
    assert "wait" in browser.document.state
    shop.checkout.replies.clear()
    await browser.reload()
    assert "good" in browser.document.state


async def test_a_silent_risk_service_sends_nothing(shop: PageShop) -> None:
    browser = await shop.payer(CASE)
    shop.checkout.replies["decide"] = unreadable
    answer = await browser.choose(WALLET)
    assert (answer.status, browser.document.view) == (503, "checkout")
    assert shop.checkout.count("submit") == 0


async def test_a_silent_check_of_a_code_leaves_the_challenge_open(shop: PageShop) -> None:
    browser = await shop.payer(CASE)
    await browser.choose(CARD)
    shop.checkout.replies["verify"] = unreadable
    await browser.submit("/challenge", value=OTP)
    assert browser.document.view == "challenge"
    shop.checkout.replies.clear()
    await browser.submit("/challenge", value=OTP)
    assert "good" in browser.document.state


async def test_without_engine_and_acquirer_another_device_learns_nothing_false(shop: PageShop) -> None:
    link = shop.link(CASE)
    first, second = shop.browser(), shop.browser()
    await first.open(link)
    await first.choose(WALLET)
    shop.checkout.replies |= {"result": unreadable, "look_up": unreadable}
    await second.open(link)
    assert (second.answers[-1].status, second.document.view) == (503, "problem")
    assert "http-equiv" in second.document.html
    shop.checkout.replies.clear()
    await second.reload()
    assert second.document.view == "action"


# Orders that change under the payer's hands


async def test_an_order_that_closes_at_the_bank_says_that_money_comes_back(shop: PageShop) -> None:
    browser = await shop.payer(CASE)
    await browser.choose(WALLET)
    shop.checkout.world.acquirer.close("o_1001")
    shop.settle(browser)
    await browser.submit("/payment")
    assert "back" in browser.document.state
    assert ORDER not in browser.document.links, "there is nothing to try again"
    await browser.open(ORDER)
    assert browser.address == f"{ORDER}/payment"


async def test_an_order_that_expires_while_the_page_is_open_is_not_paid(shop: PageShop) -> None:
    browser = await shop.payer(CASE)
    form, values = browser.document.form("/pay"), browser.choice(WALLET)
    await asyncio.sleep(7_000)
    orders: Any = shop.checkout.world.population._orders
    orders["o_1001"]["expires_at"] = shop.checkout.world.clock().isoformat()
    answer = await browser.post(form, values)
    assert answer.document.view == "checkout"
    assert not answer.document.has_form("/pay")
    assert shop.checkout.count("submit") == 0


async def test_a_payment_whose_time_is_over_is_closed_and_the_page_says_so(shop: PageShop) -> None:
    browser = await shop.payer(CASE)
    await browser.choose(WALLET)
    await asyncio.sleep(2_000)
    await browser.reload()
    await asyncio.sleep(60)
    await browser.reload()
    assert browser.document.view == "result"
    assert "good" not in browser.document.state


async def test_transfers_of_another_sum_are_told(shop: PageShop) -> None:
    browser = await shop.payer("indonesian_shop")
    await browser.choose("VA", "BCA")
    shop.settle(browser, paid=100_000)
    await browser.submit("/payment")
    assert browser.document.view == "action"
    assert "notice warning" in browser.document.html
    shop.settle(browser, paid=99_000_000)
    await browser.submit("/payment")
    assert "good" in browser.document.state


# Several workers


async def test_any_worker_serves_any_page() -> None:
    async with page_shop(workers=2, store=SharedStore()) as shop:
        other = shop.checkout.workers[1]
        settings = shop.cashier.config.settings
        changed = structs.replace(other.config.settings, pages=settings.pages, merchants=settings.merchants)
        other.reload(structs.replace(other.config, settings=changed))
        applications = [shop.application, app(other, pages=pages.app(other, shop.checkout.world.clock))]
        browser = await shop.payer(CASE)

        def turn() -> None:
            applications.reverse()
            browser.application = applications[0]

        turn()
        await browser.choose(CARD)
        turn()
        await browser.submit("/challenge", value="000000")
        turn()
        await browser.submit("/challenge", value=OTP)
        turn()
        await browser.reload()
        assert "good" in browser.document.state
        assert len(shop.checkout.payments_that_paid("o_1001")) == 1


async def test_a_double_click_that_meets_two_workers_is_one_payment() -> None:
    async with page_shop(workers=2, store=SharedStore()) as shop:
        other = shop.checkout.workers[1]
        settings = shop.cashier.config.settings
        changed = structs.replace(other.config.settings, pages=settings.pages, merchants=settings.merchants)
        other.reload(structs.replace(other.config, settings=changed))
        browser, twin = await shop.payer(CASE), shop.browser()
        twin.application = app(other, pages=pages.app(other, shop.checkout.world.clock))
        twin.cookies = dict(browser.cookies)
        form, values = browser.document.form("/pay"), browser.choice(WALLET)
        answers = await asyncio.gather(browser.post(form, values), twin.post(form, values))
        assert {answer.status for answer in answers} == {303}
        for each, answer in zip((browser, twin), answers, strict=True):
            await each.open(answer.location)
        assert shop.payment_id(browser) == shop.payment_id(twin)
        assert len({sent["payment_id"] for sent in shop.checkout.submissions}) == 1
