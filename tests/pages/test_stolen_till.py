"""What somebody can do with what they stole from a till: each cell of the table in the README."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from cashier import pages
from tests.pages.payer_browser import Document, PayerBrowser
from tests.pages.till_shop import TillShop, till_shop

pytestmark = pytest.mark.virtual_time
README = (Path(pages.__file__).parent / "README.md").read_text("utf-8")
TILL = "/cashier-till/m_5/till-1"


class Victim:
    """A till with a sale whose code is shown. `source`: of that page."""

    def __init__(self, browser: PayerBrowser, link: str) -> None:
        self.browser = browser
        self.link = link
        self.sale = browser.address
        self.source: Document = browser.document

    def cookies(self, name: str) -> dict[tuple[str, str], str]:
        return {key: value for key, value in self.browser.cookies.items() if name in key[1]}


@pytest.fixture
async def shop() -> AsyncIterator[TillShop]:
    async with till_shop() as opened:
        yield opened


async def steal(thing: str, shop: TillShop, victim: Victim, thief: PayerBrowser) -> None:
    match thing:
        case "link, within ten minutes":
            await thief.open(victim.link)
        case "link, later":
            await asyncio.sleep(601)
            await thief.open(victim.link)
        case "till cookie":
            thief.cookies |= victim.cookies("session")
        case "payment cookie of a sale":
            thief.cookies |= victim.cookies("payment")
        case "both cookies":
            thief.cookies |= victim.browser.cookies
        case "cookie of another till":
            other = await shop.till(terminal_id="till-2")
            thief.cookies |= {(TILL, name): value for (_, name), value in other.cookies.items()}
        case "source of a page, with its form tokens":
            thief.document = victim.source
        case "printed code":
            await thief.open("/cashier-code/m_5")
        case _:
            raise AssertionError(thing)


async def post(thief: PayerBrowser, address: str, ending: str, **values: str) -> None:
    """With the best form that the thief has."""
    stolen = thief.document.forms
    await thief.open(address)
    form = next((form for form in (*thief.document.forms, *stolen) if form.action.endswith(ending)), None)
    fields = [("form_token", "0" * 64), ("attempt", "")] if form is None else form.fields
    await thief.send("POST", f"{address}{ending}", [*fields, *values.items()])


async def creates_orders(shop: TillShop, victim: Victim, thief: PayerBrowser) -> bool:
    before = len(shop.sales)
    for address in (TILL, *([thief.address] if thief.address.startswith("/cashier-code") else [])):
        await thief.open(address)
        for form in thief.document.forms:
            await thief.post(form, {"amount": "5"})
    return len(shop.sales) > before


async def charges(shop: TillShop, victim: Victim, thief: PayerBrowser) -> bool:
    await victim.browser.submit("/cancel")
    await post(thief, victim.sale, "/scan", code="134567890123456781")
    return shop.status(victim.browser) == "PAID"


async def sees(shop: TillShop, victim: Victim, thief: PayerBrowser) -> bool:
    await thief.open(victim.sale)
    return "<svg viewBox" in thief.document.html.partition('class="qr')[2]


async def cancels(shop: TillShop, victim: Victim, thief: PayerBrowser) -> bool:
    await post(thief, victim.sale, "/cancel")
    return shop.status(victim.browser) == "PENDING"


DEEDS: dict[str, Callable[[TillShop, Victim, PayerBrowser], Awaitable[bool]]] = {
    "create orders": creates_orders,
    "charge a payer's code": charges,
    "see the code of a sale": sees,
    "end a payment": cancels,
}


def table() -> list[tuple[str, str, bool]]:
    text = README.partition("### What somebody can do with what they stole from a till")[2]
    heading, *rows = re.findall(r"^\| (.*) \|$", text.partition("## ")[0], re.MULTILINE)
    deeds = heading.split(" | ")[1:]
    assert deeds == list(DEEDS)
    cells = [row.split(" | ") for row in rows if not row.startswith("-")]
    return [(row[0], deed, can == "yes") for row in cells for deed, can in zip(deeds, row[1:], strict=True)]


@pytest.mark.parametrize(("thing", "deed", "can"), table())
async def test_each_cell(shop: TillShop, thing: str, deed: str, can: bool) -> None:
    link = shop.link()
    browser = PayerBrowser(shop.application)
    await browser.open(link)
    await browser.submit("/sales", amount="5", note="")
    await shop.show_code(browser)
    victim, thief = Victim(browser, link), PayerBrowser(shop.application)
    await steal(thing, shop, victim, thief)
    assert await DEEDS[deed](shop, victim, thief) is can
