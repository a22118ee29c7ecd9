"""A card that the payer enters: at the vault's own form, for one attempt of one session."""

from __future__ import annotations

from collections.abc import AsyncIterator
from urllib.parse import urlencode

import pytest

from tests.pages.page_shop import PageShop, page_shop
from tests.pages.payer_browser import PageAnswer, PayerBrowser, query_of

pytestmark = pytest.mark.virtual_time
VISA = "tok_visa_1"
VAULT = "https://vault.example/form?client=7"


@pytest.fixture
async def shop() -> AsyncIterator[PageShop]:
    async with page_shop({"vault": {"url": VAULT}}, order_cny={"o_1001": 9_900}) as opened:
        yield opened


def vault_link(browser: PayerBrowser) -> str:
    return next(link for link in browser.document.links if link.startswith("https://vault.example"))


def own_link(browser: PayerBrowser, locale: str) -> str:
    """To the same page in this language."""
    ours = (link for link in browser.document.links if link.startswith("/cashier/"))
    return next(link for link in ours if link.endswith(f"locale={locale}"))


async def enter(browser: PayerBrowser, token: str | None = VISA, link: str = "") -> PageAnswer:
    """At the vault: it sends the browser back."""
    query = query_of(link or vault_link(browser))
    fields = {"state": query["state"]} | ({"card_token": token} if token is not None else {})
    return await browser.open(f"{query['return_url']}?{urlencode(fields)}")


async def test_a_card_is_entered_at_the_vault_and_then_paid_by(shop: PageShop) -> None:
    browser = await shop.payer("chinese_shop")
    await browser.choose("CARD")
    assert browser.document.view == "card"
    query = query_of(vault_link(browser))
    assert (query["client"], query["locale"]) == ("7", "zh-CN")
    assert query["return_url"] == "http://127.0.0.1:8080/cashier/o_1001/card/return"
    assert not any(tag == "input" for tag, _ in browser.document.tags), "no field of ours for a card"
    await enter(browser)
    assert browser.address == "/cashier/o_1001?method=CARD"
    assert "tok_visa" not in browser.document.html
    assert ("method", "CARD") in browser.document.form("/pay").fields, "it is chosen"
    assert "尚未扣款" in browser.document.text, "the payer is asked to confirm"
    assert "在下一页填写" not in browser.document.text
    await browser.choose("CARD")
    assert "good" in browser.document.state
    assert len(shop.checkout.payments_that_paid("o_1001")) == 1


async def test_a_declined_card_is_asked_for_again(shop: PageShop) -> None:
    browser = await shop.payer("chinese_shop")
    await browser.choose("CARD")
    await enter(browser, "tok_declined_1")
    await browser.choose("CARD")
    assert "bad" in browser.document.state
    await browser.open("/cashier/o_1001")
    await browser.choose("CARD")
    assert browser.document.view == "card", "not the declined one once more"
    await enter(browser, "tok_visa_2")
    await browser.choose("CARD")
    assert "good" in browser.document.state


async def test_a_form_with_a_card_that_is_sent_twice_is_one_payment(shop: PageShop) -> None:
    browser = await shop.payer("chinese_shop")
    await browser.choose("CARD")
    await enter(browser)
    form, choice = browser.document.form("/pay"), browser.choice("CARD")
    await browser.post(form, choice)
    await browser.post(form, choice)
    assert shop.checkout.count("submit") == 1


async def test_a_payer_who_gives_up_can_pay_in_another_way(shop: PageShop) -> None:
    browser = await shop.payer("chinese_shop")
    await browser.choose("CARD")
    await enter(browser, None)
    assert browser.document.view == "checkout"
    await browser.choose("CARD")
    assert browser.document.view == "card"
    for none in ("a token with spaces", "4111111111111111", "tok:4111-1111-1111-1111", "x" * 257):
        await enter(browser, none)
        await browser.choose("CARD")
        assert browser.document.view == "card", "a card's number is no token, and goes no further"


async def test_the_card_of_another_session_or_order_is_refused(shop: PageShop) -> None:
    attacker, victim = await shop.payer("chinese_shop"), await shop.payer("chinese_shop")
    await attacker.choose("CARD")
    link = vault_link(attacker)
    assert (await enter(victim, "tok_attackers", link)).status == 403
    await victim.open("/cashier/o_1001")
    await victim.choose("CARD")
    assert victim.document.view == "card"
    own = vault_link(victim)
    moved = own.replace("o_1001", "o_1002")
    other = await shop.payer("balance_is_enough")
    assert (await enter(other, "tok_visa_1", moved)).status == 403
    assert (await enter(victim, "tok_visa_1", own.replace("state=", "state=x"))).status == 403


async def test_without_a_vault_no_card_can_be_entered() -> None:
    async with page_shop() as shop:
        browser = await shop.payer("chinese_shop")
        assert "CARD" not in [value for _, value, _ in browser.document.form("/pay").choices]
        await browser.open("/cashier/o_1001/card?method=CARD")
        assert browser.document.view == "checkout"


@pytest.mark.parametrize("locale", ["zh-TW", "ar"])
async def test_another_language_on_the_way_to_the_vault_keeps_what_the_card_is_for(shop: PageShop, locale: str) -> None:
    """Also after a declined card: the next one is for the attempt that follows."""
    browser = await shop.payer("chinese_shop")
    for token, state in (("tok_declined_1", "bad"), (VISA, "good")):
        await browser.open("/cashier/o_1001")
        await browser.choose("CARD")
        before = browser.address
        await browser.open(own_link(browser, locale))
        assert browser.address == before
        assert f'lang="{locale}"' in browser.document.html
        assert query_of(vault_link(browser))["locale"] == locale
        await enter(browser, token)
        await browser.open(own_link(browser, "en"))
        assert ("method", "CARD") in browser.document.form("/pay").fields
        await browser.choose("CARD")
        assert state in browser.document.state
    assert len(shop.checkout.payments_that_paid("o_1001")) == 1
