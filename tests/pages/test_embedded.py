"""The embedded cashier, as its script sees it: tokens in headers, updates in place of documents."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from cashier.payments.errors import AcceptError, InFlight, KeyReused
from tests.pages.page_shop import BACK, SHOP, PageShop
from tests.pages.payer_browser import Document, PageAnswer, PayerBrowser
from tests.payments.checkout import OTP

pytestmark = pytest.mark.virtual_time
CASE = "embedded_cashier"
BASE = "/cashier-embed/o_1020"
CARD = "QUICK_PAY:c_2"


class Script:
    """What `cashier.js` does: it holds the tokens and follows the addresses."""

    def __init__(self, shop: PageShop, link: str, origin: str = SHOP) -> None:
        self.browser: PayerBrowser = shop.browser()
        self.origin = origin
        self.session = parse_qs(urlsplit(link).query)["token"][0]
        self.payment = ""
        self.update: dict[str, Any] = {}

    async def load(self, address: str, fields: list[tuple[str, str]] | None = None, **headers: str) -> PageAnswer:
        method = "GET" if fields is None else "POST"
        sent = {"authorization": f"Bearer {self.session}", "origin": self.origin, "sec-fetch-site": "cross-site"}
        if self.payment:
            sent["x-cashier-payment"] = self.payment
        answer = await self.browser.send(method, address, fields, headers={**sent, **headers}, cross_site=True)
        self.session = answer.headers.get("x-cashier-session", self.session)
        self.payment = answer.headers.get("x-cashier-payment", self.payment)
        assert not answer.set_cookies
        self.update = json.loads(answer.body)
        if "location" in self.update:
            return await self.load(self.update["location"])
        return answer

    @property
    def document(self) -> Document:
        return Document(self.update["html"])

    async def submit(self, ending: str, values: Mapping[str, str], **headers: str) -> PageAnswer:
        form = self.document.form(ending)
        sent = [(name, value) for name, value in form.fields if name not in values] + list(values.items())
        return await self.load(form.action, sent, **headers)

    async def pay(self) -> PageAnswer:
        await self.load(BASE)
        return await self.submit("/pay", {"method": CARD})


@pytest.fixture
def script(shop: PageShop) -> Script:
    return Script(shop, shop.link(CASE))


async def test_an_order_is_paid_from_a_shops_page(shop: PageShop, script: Script) -> None:
    answer = await script.load(BASE)
    assert (answer.status, script.update["view"]) == (200, "checkout")
    assert all(form.action.startswith(BASE) for form in script.document.forms)
    await script.submit("/pay", {"method": CARD})
    assert script.update["view"] == "challenge"
    await script.submit(
        "/challenge", {"value": OTP}, origin="http://127.0.0.1:8080", **{"sec-fetch-site": "same-origin"}
    )
    assert (script.update["view"], script.update["outcome"]) == ("result", "paid")
    assert script.update["payment_id"] == script.payment.partition(":")[0]
    assert shop.checkout.payments_that_paid("o_1020") == [script.update["payment_id"]]


async def test_a_page_of_the_merchant_can_read_the_answers(script: Script) -> None:
    answer = await script.load(BASE)
    assert answer.headers["access-control-allow-origin"] == SHOP
    exposed = ", ".join(value for name, value in answer.header_list if name == "access-control-expose-headers")
    assert "x-cashier-session" in exposed
    assert "x-cashier-payment" in exposed
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("origin", ["https://elsewhere.example", "null", f"{SHOP}:8443", f"{SHOP}.elsewhere.example"])
async def test_a_page_of_another_origin_is_refused(shop: PageShop, origin: str) -> None:
    thief = Script(shop, shop.link(CASE), origin=origin)
    answer = await thief.load(BASE)
    assert answer.status == 403
    assert "access-control-allow-origin" not in answer.headers
    assert "x-cashier-session" not in answer.headers


async def test_a_link_of_a_standard_cashier_embeds_nothing(shop: PageShop) -> None:
    standard = Script(shop, shop.link("chinese_shop"))
    assert (await standard.load("/cashier-embed/o_1001")).status == 403


async def test_the_script_token_opens_no_page_and_no_other_order(shop: PageShop, script: Script) -> None:
    await script.load(BASE)
    assert script.session.count(".") == 2
    stranger = shop.browser()
    assert (await stranger.send("GET", f"/cashier/o_1020?token={script.session}")).status == 403
    stranger.cookies["/cashier/o_1020", "cashier-session"] = script.session
    assert (await stranger.send("GET", "/cashier/o_1020")).status == 403
    assert (await script.load("/cashier-embed/o_1001")).status == 403


async def test_a_code_is_not_taken_from_a_script_of_the_shop(script: Script) -> None:
    """Nor in a browser that says no site: it says the origin of each script's POST."""
    await script.pay()
    form = script.update
    for site in ("cross-site", "same-site", ""):
        script.update = form
        answer = await script.submit("/challenge", {"value": OTP}, **{"sec-fetch-site": site})
        assert answer.status == 403


async def test_an_attempt_without_its_token_is_neither_found_nor_replaced(shop: PageShop, script: Script) -> None:
    await script.load(BASE)
    await script.submit("/pay", {"method": "WALLET:ALIPAY"})
    assert script.update["view"] == "action"
    other = Script(shop, shop.link(CASE))
    await other.load(BASE)
    assert "ALIPAY" not in str(other.update.get("html"))
    payment_id = script.payment.partition(":")[0]
    await other.load(f"{BASE}/payment")
    assert payment_id not in str(other.update)


@pytest.mark.parametrize("refused", [InFlight(), KeyReused()])
async def test_a_payment_that_another_worker_sends_is_known_to_its_script(
    shop: PageShop, script: Script, monkeypatch: pytest.MonkeyPatch, refused: AcceptError
) -> None:
    """Its answer was lost, and the same form is sent again."""
    await script.load(BASE)
    form = script.update
    await script.submit("/pay", {"method": "WALLET:ALIPAY"})
    sent, script.payment, script.update = script.payment, "", form

    async def submit(*_: Any, **__: Any) -> None:
        raise refused

    monkeypatch.setattr(shop.checkout.payments, "submit", submit)
    await script.submit("/pay", {"method": "WALLET:ALIPAY"})
    assert script.update["view"] == "action"
    assert script.payment.partition(":")[0] == sent.partition(":")[0]


async def test_without_a_token_there_is_nothing(shop: PageShop) -> None:
    browser = shop.browser()
    for path in ("", "/methods", "/payment", "/events"):
        assert (await browser.send("GET", BASE + path)).status == 403
    for path in ("/pay", "/challenge", "/cancel", "/replace", "/challenge/resend"):
        assert (await browser.send("POST", BASE + path, [])).status == 403
    assert (await browser.send("GET", f"{BASE}/return?state=x")).status == 404


async def test_updates_of_the_methods_come_for_the_token(script: Script) -> None:
    await script.load(BASE)
    answer = await script.load(f"{BASE}/methods", accept="application/json")
    assert (answer.status, script.update["view"]) == (200, "checkout")
    assert script.document.form("/pay").action == f"{BASE}/pay"


async def test_a_preflight_permits_what_the_script_sends(shop: PageShop) -> None:
    browser = shop.browser()
    asked = {"origin": SHOP, "access-control-request-method": "POST"}
    answer = await browser.send("OPTIONS", f"{BASE}/pay", headers=asked)
    assert answer.status == 204
    assert answer.headers["access-control-allow-origin"] == SHOP
    assert {"authorization", "x-cashier-payment"} <= set(answer.headers["access-control-allow-headers"].split(", "))
    answer = await browser.send("OPTIONS", f"{BASE}/pay", headers={**asked, "origin": "https://elsewhere.example"})
    assert "access-control-allow-origin" not in answer.headers


async def test_only_the_frame_may_be_framed_and_only_by_a_shop(shop: PageShop) -> None:
    browser = shop.browser()
    answer = await browser.send("GET", f"{BASE}/frame?origin={SHOP}")
    assert answer.status == 200
    assert f"frame-ancestors {SHOP}" in answer.headers["content-security-policy"]
    assert "trusted-types 'none'" in answer.headers["content-security-policy"]
    for origin in ("https://elsewhere.example", "*", "https://shop.example; script-src *", ""):
        assert (await browser.send("GET", f"{BASE}/frame?origin={origin}")).status == 404
    page = await (await shop.payer("chinese_shop")).reload()
    assert "frame-ancestors 'none'" in page.headers["content-security-policy"]


async def test_the_script_can_be_loaded_by_any_page_and_is_small(shop: PageShop) -> None:
    browser = shop.browser()
    answer = await browser.send("GET", "/cashier.js", headers={"accept-encoding": "gzip"})
    assert answer.headers["cross-origin-resource-policy"] == "cross-origin"
    assert answer.headers["content-type"].startswith("text/javascript")
    assert len(answer.body) <= 12 * 1024
    again = await browser.send("GET", "/cashier.js", headers={"if-none-match": answer.headers["etag"]})
    assert again.status == 304


async def test_back_from_a_bank_the_result_leads_to_the_page_of_the_shop(shop: PageShop, script: Script) -> None:
    await script.load(BASE)
    await script.submit("/pay", {"method": "WALLET:ALIPAY"})
    address = shop.checkout.submissions[-1]["return_url"]
    other = shop.browser()
    await other.open(address)
    assert other.document.view == "result"
    assert BACK in other.document.links


async def test_an_address_of_a_shop_that_is_too_long_for_banks_is_left_out(shop: PageShop) -> None:
    script = Script(shop, shop.link(CASE, return_url=f"{BACK}?{'x' * 1_900}"))
    await script.load(BASE)
    await script.submit("/pay", {"method": "WALLET:ALIPAY"})
    assert script.update["view"] == "action"
    assert len(shop.checkout.submissions[-1]["return_url"]) < 1_000
