"""The whole way from a link to a result, in a browser without JavaScript."""

from __future__ import annotations

import pytest

from tests.pages.page_shop import BACK, PageShop
from tests.payments.checkout import OTP

pytestmark = pytest.mark.virtual_time
CASE = "chinese_shop"


async def test_a_link_becomes_a_cookie_and_a_clean_address(shop: PageShop) -> None:
    browser = await shop.payer(CASE)
    assert browser.address == "/cashier/o_1001"
    assert [answer.status for answer in browser.answers] == [303, 200]
    assert browser.document.view == "checkout"
    assert "token" not in browser.document.html.replace("form_token", "").replace("consult_token", "")
    assert BACK in browser.document.links


async def test_a_card_is_paid_by_its_challenge(shop: PageShop) -> None:
    browser = await shop.payer(CASE)
    await browser.choose("QUICK_PAY:c_2")
    assert (browser.address, browser.document.view) == ("/cashier/o_1001/payment", "challenge")
    await browser.submit("/challenge", value=OTP)
    assert browser.document.view == "result"
    assert "good" in browser.document.state
    assert len(shop.checkout.payments_that_paid("o_1001")) == 1
