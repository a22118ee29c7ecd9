"""What somebody can do with what they stole: each cell of the table in the README of the pages."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from cashier import pages
from tests.pages.page_shop import PageShop
from tests.pages.payer_browser import Document, PayerBrowser
from tests.payments.checkout import OTP

pytestmark = pytest.mark.virtual_time
CASE, ORDER = "chinese_shop", "/cashier/o_1001"
CARD, WALLET = "QUICK_PAY:c_2", "WALLET:ALIPAY"
README = (Path(pages.__file__).parent / "README.md").read_text("utf-8")


class Victim(NamedTuple):
    """`source`: of the page that was open when things were stolen. `return_url`: of a payment."""

    browser: PayerBrowser
    link: str
    source: Document
    return_url: str


def session_of(browser: PayerBrowser) -> dict[tuple[str, str], str]:
    return {key: value for key, value in browser.cookies.items() if key[1] == "cashier-session"}


def payment_of(browser: PayerBrowser) -> dict[tuple[str, str], str]:
    return {key: value for key, value in browser.cookies.items() if "payment" in key[1]}


async def with_link(shop: PageShop, victim: Victim, thief: PayerBrowser) -> None:
    await thief.open(victim.link)


async def with_old_link(shop: PageShop, victim: Victim, thief: PayerBrowser) -> None:
    await asyncio.sleep(601)
    await thief.open(victim.link)


async def with_session(shop: PageShop, victim: Victim, thief: PayerBrowser) -> None:
    thief.cookies |= session_of(victim.browser)


async def with_payment(shop: PageShop, victim: Victim, thief: PayerBrowser) -> None:
    thief.cookies |= payment_of(victim.browser)


async def with_both(shop: PageShop, victim: Victim, thief: PayerBrowser) -> None:
    thief.cookies |= victim.browser.cookies


async def with_another_order(shop: PageShop, victim: Victim, thief: PayerBrowser) -> None:
    other = await shop.payer("balance_is_enough")
    thief.cookies |= {(ORDER, name): value for (_, name), value in session_of(other).items()}


async def with_another_user(shop: PageShop, victim: Victim, thief: PayerBrowser) -> None:
    await thief.open(shop.link(CASE, user_id="u_2"))
    thief.cookies |= payment_of(victim.browser)


async def with_source(shop: PageShop, victim: Victim, thief: PayerBrowser) -> None:
    thief.document = victim.source


async def with_return(shop: PageShop, victim: Victim, thief: PayerBrowser) -> None:
    thief.address = victim.return_url


async def with_ids(shop: PageShop, victim: Victim, thief: PayerBrowser) -> None:
    """They are in the addresses that everybody may guess."""


THINGS: dict[str, Callable[[PageShop, Victim, PayerBrowser], Awaitable[None]]] = {
    "link, within ten minutes": with_link,
    "link, later": with_old_link,
    "session cookie": with_session,
    "payment cookie": with_payment,
    "both cookies, and the code": with_both,
    "session cookie of another order": with_another_order,
    "session cookie of another user": with_another_user,
    "source of a page, with its form tokens": with_source,
    "return address": with_return,
    "ids of order and payment": with_ids,
}


async def post(thief: PayerBrowser, address: str, step: str, attempt: str, **values: str) -> None:
    """With the best form that the thief has: of the page itself, a stolen one, or one made up."""
    stolen = thief.document.forms
    await thief.open(address)
    forms = (form for form in (*thief.document.forms, *stolen) if form.action.endswith(step))
    form = next(forms, None)
    fields = [("form_token", "0" * 64), ("attempt", attempt)] if form is None else form.fields
    sent = [(name, value) for name, value in fields if name not in values]
    await thief.send("POST", f"{ORDER}{step}", [*sent, *values.items()])


async def sees_methods(shop: PageShop, victim: Victim, thief: PayerBrowser) -> bool:
    await thief.open(ORDER)
    return thief.document.has_form("/pay")


async def pays(shop: PageShop, victim: Victim, thief: PayerBrowser) -> bool:
    await post(thief, ORDER, "/pay", "", method=WALLET)
    return shop.checkout.count("submit") == 1


async def sees_payment(shop: PageShop, victim: Victim, thief: PayerBrowser) -> bool:
    await thief.open(f"{ORDER}/payment")
    return thief.document.view == "action"


async def answers(shop: PageShop, victim: Victim, thief: PayerBrowser) -> bool:
    await post(thief, f"{ORDER}/payment", "/challenge", shop.payment_id(victim.browser), value=OTP)
    return bool(shop.checkout.payments_that_paid("o_1001"))


async def cancels(shop: PageShop, victim: Victim, thief: PayerBrowser) -> bool:
    for step in ("/cancel", "/replace"):
        await post(thief, f"{ORDER}/payment", step, shop.payment_id(victim.browser))
    await victim.browser.open(f"{ORDER}/payment")
    return victim.browser.document.view == "result"


async def sees_result(shop: PageShop, victim: Victim, thief: PayerBrowser) -> bool:
    await thief.open(thief.address or f"{ORDER}/payment")
    return thief.document.view == "result" and "good" in thief.document.state


class Deed(NamedTuple):
    """`pays_by`: the victim's payment before; None: there is none. `settled`: it is paid."""

    attempt: Callable[[PageShop, Victim, PayerBrowser], Awaitable[bool]]
    pays_by: str | None
    settled: bool = False


DEEDS = {
    "see the methods": Deed(sees_methods, None),
    "pay": Deed(pays, None),
    "see the payment": Deed(sees_payment, WALLET),
    "answer its challenge": Deed(answers, CARD),
    "cancel it": Deed(cancels, WALLET),
    "see the result": Deed(sees_result, WALLET, settled=True),
}


def table() -> list[tuple[str, str, bool]]:
    heading, *rows = re.findall(
        r"^\| (.*) \|$", README.partition("they stole")[2].partition("## Tills")[0], re.MULTILINE
    )
    deeds = heading.split(" | ")[1:]
    assert deeds == list(DEEDS)
    cells = [row.split(" | ") for row in rows if not row.startswith("-")]
    assert [row[0] for row in cells] == list(THINGS)
    return [(row[0], deed, can == "yes") for row in cells for deed, can in zip(deeds, row[1:], strict=True)]


@pytest.mark.parametrize(("thing", "name", "can"), table())
async def test_each_cell(shop: PageShop, thing: str, name: str, can: bool) -> None:
    deed = DEEDS[name]
    link = shop.link(CASE)
    browser = shop.browser()
    await browser.open(link)
    return_url = ""
    if deed.pays_by is not None:
        await browser.choose(deed.pays_by)
        return_url = next((body["return_url"] for body in shop.checkout.submissions), "").partition("8080")[2]
        if deed.settled:
            shop.settle(browser)
            await browser.submit("/payment")
    victim = Victim(browser, link, browser.document, return_url)
    thief = shop.browser()
    await THINGS[thing](shop, victim, thief)
    assert await deed.attempt(shop, victim, thief) is can


async def test_a_form_of_another_site_is_refused_even_with_the_cookies_and_the_token(shop: PageShop) -> None:
    browser = await shop.payer(CASE)
    form = browser.document.form("/pay")
    fields = [*form.fields, ("method", WALLET)]
    for site in ("cross-site", "same-site", "none"):
        answer = await browser.send("POST", form.action, fields, headers={"sec-fetch-site": site})
        assert answer.status == 403
    assert shop.checkout.count("submit") == 0


async def test_a_form_needs_the_token_of_its_own_session_and_attempt(shop: PageShop) -> None:
    browser, other = await shop.payer(CASE), await shop.payer(CASE)
    fields = dict(browser.document.form("/pay").fields) | {"method": WALLET}
    foreign = dict(other.document.form("/pay").fields)["form_token"]
    for changed in ({"form_token": ""}, {"form_token": foreign}, {"attempt": "pay_x"}):
        answer = await browser.send("POST", f"{ORDER}/pay", list((fields | changed).items()))
        assert (answer.status, answer.document.view) == (403, "problem")
    assert shop.checkout.count("submit") == 0


async def test_no_form_is_read_that_is_no_form(shop: PageShop) -> None:
    browser = await shop.payer(CASE)
    fields = browser.document.form("/pay").fields
    too_many = [*fields, *(("x", str(number)) for number in range(300))]
    assert (await browser.send("POST", f"{ORDER}/pay", too_many)).status == 400
    assert (await browser.send("POST", f"{ORDER}/pay", [*fields, ("x", "y" * 70_000)])).status == 413
    assert (await browser.send("POST", f"{ORDER}/pay")).status == 415


async def test_nobody_acts_without_a_session(shop: PageShop) -> None:
    stranger = shop.browser()
    for path in ("", "/payment", "/methods", "/events"):
        answer = await stranger.send("GET", f"{ORDER}{path}")
        assert answer.status in (403, 409), path
        assert "u_1" not in answer.body.decode()
    for path in ("/pay", "/payment", "/challenge", "/challenge/resend", "/cancel", "/replace"):
        answer = await stranger.send("POST", f"{ORDER}{path}", [("form_token", "x")])
        assert (answer.status, answer.document.view) == (403, "problem"), path
    assert shop.checkout.calls == []


async def test_a_page_without_a_session_says_where_to_open_it_again(shop: PageShop) -> None:
    for locale, text in (("en", "go back to the shop"), ("zh-CN", "返回商家"), ("ar", "العودة إلى المتجر")):
        stranger = shop.browser(headers={"accept-language": locale})
        await stranger.open(ORDER)
        assert text in stranger.document.text


async def test_a_session_ends_and_using_it_prolongs_nothing(shop: PageShop) -> None:
    browser = await shop.payer(CASE)
    for _ in range(4):
        await asyncio.sleep(1_900)
        await browser.open(ORDER)
        assert browser.document.view == "checkout"
    await asyncio.sleep(300)
    await browser.open(f"{ORDER}?locale=ja")
    assert browser.answers[-1].status == 403


async def test_a_link_that_is_opened_again_keeps_the_payment(shop: PageShop) -> None:
    """Of a preview, a second click and a lost answer."""
    link = shop.link(CASE)
    browser = shop.browser()
    await browser.open(link)
    await browser.choose(WALLET)
    first = shop.payment_id(browser)
    await browser.open(link)
    assert browser.document.view == "action"
    assert shop.payment_id(browser) == first


async def test_a_changed_session_is_none(shop: PageShop) -> None:
    browser = await shop.payer(CASE)
    key = next(iter(session_of(browser)))
    value = browser.cookies[key]
    for changed in (value[:-4] + "AAAA", value.partition("~")[2], f"2{value[1:]}", f"x{value}", ""):
        browser.cookies[key] = changed
        assert (await browser.send("GET", ORDER)).status == 403
