"""What somebody can do with what they stole from an embedded cashier: each cell of its table."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from cashier import pages
from tests.pages.page_shop import PageShop
from tests.pages.payer_browser import Document, PageAnswer
from tests.pages.test_embedded import BASE, CARD, CASE, Script
from tests.payments.checkout import OTP

pytestmark = pytest.mark.virtual_time
WALLET = "WALLET:ALIPAY"
README = (Path(pages.__file__).parent / "README.md").read_text("utf-8")
ELSEWHERE = "https://elsewhere.example"


class Victim(NamedTuple):
    """`source`: of what the element showed when things were stolen."""

    script: Script
    link: str
    source: Document


class Thief:
    """A program, which sends what it likes, or with `browser_headers` a script of a page."""

    def __init__(self, shop: PageShop) -> None:
        self.browser = shop.browser()
        self.session = self.payment = ""
        self.source = Document("")
        self.browser_headers: dict[str, str] = {}

    async def send(self, method: str, address: str, fields: list[tuple[str, str]] | None = None) -> dict[str, Any]:
        """The update where it leads to; empty for a refusal, or for what a browser keeps back."""
        answer = await self.browser.send(method, address, fields, headers=self._headers())
        if answer.status >= 400 or not self._can_read(answer):
            return {}
        self.payment = answer.headers.get("x-cashier-payment", self.payment)
        update: dict[str, Any] = json.loads(answer.body)
        return await self.send("GET", update["location"]) if "location" in update else update

    async def post(self, address: str, ending: str, attempt: str, **values: str) -> None:
        """With the best form: what the service shows, a stolen one, or one made up."""
        shown = Document((await self.send("GET", address)).get("html", ""))
        forms = (form for form in (*shown.forms, *self.source.forms) if form.action.endswith(ending))
        form = next(forms, None)
        fields = [("form_token", "0" * 80), ("attempt", attempt)] if form is None else form.fields
        sent = [(name, value) for name, value in fields if name not in values]
        await self.send("POST", BASE + ending, [*sent, *values.items()])

    def _headers(self) -> dict[str, str]:
        tokens = {"authorization": self.session and f"Bearer {self.session}", "x-cashier-payment": self.payment}
        return {"sec-fetch-site": "same-origin", **tokens, **self.browser_headers}

    def _can_read(self, answer: PageAnswer) -> bool:
        origin = self.browser_headers.get("origin")
        return origin is None or answer.headers.get("access-control-allow-origin") == origin


async def steal(thing: str, shop: PageShop, victim: Victim, thief: Thief) -> None:
    script = victim.script
    match thing:
        case "link, within ten minutes":
            thief.session = victim.link.partition("token=")[2]
        case "link, later":
            await asyncio.sleep(601)
            thief.session = victim.link.partition("token=")[2]
        case "token of the session":
            thief.session = script.session
        case "token of the payment":
            thief.payment = script.payment
        case "both tokens, and the code":
            thief.session, thief.payment = script.session, script.payment
        case "both tokens, in a script of the shop":
            thief.session, thief.payment = script.session, script.payment
            thief.browser_headers = {"origin": script.origin, "sec-fetch-site": "cross-site"}
        case "both tokens, on a page of another origin":
            thief.session, thief.payment = script.session, script.payment
            thief.browser_headers = {"origin": ELSEWHERE, "sec-fetch-site": "cross-site"}
        case "token of another order":
            other = Script(shop, shop.link(CASE, order_id="o_1001", user_id="u_1"))
            await other.load("/cashier-embed/o_1001")
            thief.session = other.session
        case "token of another user":
            other = Script(shop, shop.link(CASE, user_id="u_2"))
            await other.load(BASE)
            thief.session, thief.payment = other.session, script.payment
        case "source of the element, with its form tokens":
            thief.source = victim.source
        case "ids of order and payment":
            pass
        case _:
            raise AssertionError(thing)


async def sees_methods(shop: PageShop, victim: Victim, thief: Thief) -> bool:
    return Document((await thief.send("GET", BASE)).get("html", "")).has_form("/pay")


async def pays(shop: PageShop, victim: Victim, thief: Thief) -> bool:
    await thief.post(BASE, "/pay", "", method=WALLET)
    return shop.checkout.count("submit") == 1


async def sees_payment(shop: PageShop, victim: Victim, thief: Thief) -> bool:
    return (await thief.send("GET", f"{BASE}/payment")).get("view") == "action"


async def answers(shop: PageShop, victim: Victim, thief: Thief) -> bool:
    await thief.post(f"{BASE}/payment", "/challenge", victim.script.payment.partition(":")[0], value=OTP)
    return bool(shop.checkout.payments_that_paid("o_1020"))


async def cancels(shop: PageShop, victim: Victim, thief: Thief) -> bool:
    for step in ("/cancel", "/replace"):
        await thief.post(f"{BASE}/payment", step, victim.script.payment.partition(":")[0])
    await victim.script.load(f"{BASE}/payment")
    return bool(victim.script.update["view"] == "result")


async def sees_result(shop: PageShop, victim: Victim, thief: Thief) -> bool:
    return (await thief.send("GET", f"{BASE}/payment")).get("outcome") == "paid"


async def opens_page(shop: PageShop, victim: Victim, thief: Thief) -> bool:
    page = "/cashier/o_1020"
    await thief.browser.open(f"{page}?token={thief.session}")
    if thief.browser.document.view == "checkout":
        return True
    thief.browser.cookies[page, "cashier-session"] = f"1~{thief.session}"
    return (await thief.browser.send("GET", page)).status == 200


class Deed(NamedTuple):
    """`pays_by`: the victim's payment before; None: there is none. `settled`: it is paid."""

    attempt: Callable[[PageShop, Victim, Thief], Awaitable[bool]]
    pays_by: str | None
    settled: bool = False


DEEDS = {
    "see the methods": Deed(sees_methods, None),
    "pay": Deed(pays, None),
    "see the payment": Deed(sees_payment, WALLET),
    "answer its challenge": Deed(answers, CARD),
    "cancel it": Deed(cancels, WALLET),
    "see the result": Deed(sees_result, WALLET, settled=True),
    "open a page": Deed(opens_page, None),
}


def table() -> list[tuple[str, str, bool]]:
    text = README.partition("### What somebody can do with what they stole from an embedded cashier")[2]
    heading, *rows = re.findall(r"^\| (.*) \|$", text.partition("\n#")[0], re.MULTILINE)
    deeds = heading.split(" | ")[1:]
    assert deeds == list(DEEDS)
    cells = [row.split(" | ") for row in rows if not row.startswith("-")]
    return [(row[0], deed, can == "yes") for row in cells for deed, can in zip(deeds, row[1:], strict=True)]


async def robbed(shop: PageShop, deed: Deed) -> Victim:
    link = shop.link(CASE)
    script = Script(shop, link)
    await script.load(BASE)
    if deed.pays_by is not None:
        await script.submit("/pay", {"method": deed.pays_by})
        if deed.settled:
            payment_id = script.payment.partition(":")[0]
            assert shop.checkout.world.engine.settle(payment_id, "SUCCEEDED").status == 200
            await script.load(f"{BASE}/payment")
    return Victim(script, link, script.document)


@pytest.mark.parametrize(("thing", "name"), [(thing, name) for thing, name, can in table() if can])
async def test_each_cell_with_a_yes(shop: PageShop, thing: str, name: str) -> None:
    victim, thief = await robbed(shop, DEEDS[name]), Thief(shop)
    await steal(thing, shop, victim, thief)
    assert await DEEDS[name].attempt(shop, victim, thief)


@pytest.mark.parametrize("name", DEEDS)
async def test_each_cell_with_a_no(shop: PageShop, name: str) -> None:
    """One thief after another, the one who waits at the end: none leaves a trace."""
    victim = await robbed(shop, DEEDS[name])
    things = [thing for thing, deed, can in table() if deed == name and not can]
    for thing in sorted(things, key=lambda thing: thing == "link, later"):
        thief = Thief(shop)
        await steal(thing, shop, victim, thief)
        assert not await DEEDS[name].attempt(shop, victim, thief), thing


def test_the_table_is_whole() -> None:
    assert len(table()) == 11 * len(DEEDS)


@pytest.mark.parametrize("method", [CARD, "WALLET:WECHAT_PAY", "BALANCE:acc_2"])
async def test_a_token_of_the_session_leads_to_no_payment_of_another_choice(shop: PageShop, method: str) -> None:
    """Neither by the id in an address, nor by the refusal of another payment, which names it."""
    early = Thief(shop)
    script = Script(shop, shop.link(CASE))
    await script.load(BASE)
    early.session = script.session
    form = Document((await early.send("GET", BASE))["html"]).form("/pay")
    await script.submit("/pay", {"method": WALLET})
    assert script.update["view"] == "action"

    fields = [(name, value) for name, value in form.fields if name != "method"]
    busy = await early.send("POST", form.action, [*fields, ("method", method)])
    named = await early.send("GET", f"{BASE}/payment?attempt={script.payment.partition(':')[0]}")
    for seen in (busy, named):
        assert (seen["view"], seen["outcome"]) == ("result", "processing")
        assert not Document(seen["html"]).forms
    assert not early.payment
    assert shop.checkout.count("submit") == 1
