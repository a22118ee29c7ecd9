"""Developer mode: a checkout says which methods are withheld, and why."""

from __future__ import annotations

import pytest

from tests.pages.page_shop import PageShop, page_shop
from tests.pages.payer_browser import PayerBrowser

pytestmark = pytest.mark.virtual_time
CASE = "chinese_shop"


async def opened(shop: PageShop, client: str = "127.0.0.1") -> PayerBrowser:
    browser = shop.browser(client=client)
    await browser.open(shop.link(CASE))
    return browser


async def test_it_names_code_and_source_of_each_withheld_method_and_what_sources_answered() -> None:
    async with page_shop({"developer": True}) as shop:
        browser = await opened(shop)
        text = " ".join(browser.document.text.split())
        assert f"Request {browser.answers[-1].headers['x-request-id']}" in text
        assert "QUICK_PAY:c_4 UNAVAILABLE: CARD_FROZEN by card" in text
        assert "quota FRESH" in text
        assert "BALANCE:acc_1+QUICK_PAY/c_5 UNAVAILABLE: CHANNEL_MAINTENANCE by channel" in text
        assert "WALLET:ALIPAY UNAVAILABLE" not in text


async def test_it_names_a_silent_source_and_methods_without_a_row() -> None:
    async with page_shop({"developer": True, "first_answer_ms": 50}) as shop:
        shop.checkout.inject("quota", "hang", always=True)
        text = " ".join((await opened(shop)).document.text.split())
        assert "QUICK_PAY:c_2 UNDETERMINED: SOURCE_TIMEOUT by quota" in text
        assert "CARD NOT_SHOWN: needs card_token" in text
        assert "quota TIMEOUT" in text


async def test_it_says_what_blocks_an_order() -> None:
    async with page_shop({"developer": True}) as shop:
        browser = shop.browser(client="127.0.0.1")
        await browser.open(shop.link("user_frozen"))
        assert "every method BLOCKED: USER_FROZEN" in " ".join(browser.document.text.split())


@pytest.mark.parametrize(("developer", "client"), [(False, "127.0.0.1"), (True, "203.0.113.7")])
async def test_no_payer_sees_it(developer: bool, client: str) -> None:
    async with page_shop({"developer": developer}) as shop:
        assert "developer" not in (await opened(shop, client)).document.html
