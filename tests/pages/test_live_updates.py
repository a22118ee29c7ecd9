"""Updates of open pages: what the streams send, without a browser."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from random import Random
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from starlette.types import Message

from cashier.consultation.source_table import SOURCE_NAMES
from cashier.pages.page_updates import MOST_STREAMS
from cashier.web.disconnect_watch import SWEEP_S
from tests.pages.page_shop import PageShop, page_shop
from tests.pages.payer_browser import Document, PayerBrowser
from tests.payments.checkout import REQUIRED

pytestmark = pytest.mark.virtual_time
CASE = "chinese_shop"
STREAM = {"accept": "text/event-stream"}
JSON = {"accept": "application/json"}


class Events:
    """Of a stream that is open. `head`: its first message."""

    def __init__(self) -> None:
        self.head: Message = {}
        self._arrived: asyncio.Queue[tuple[str, Any]] = asyncio.Queue()
        self._text = ""

    def take(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.head = message
            return
        self._text += message.get("body", b"").decode()
        *whole, self._text = self._text.split("\n\n")
        for event in whole:
            fields = dict(line.split(": ", 1) for line in event.splitlines())
            self._arrived.put_nowait((fields["event"], json.loads(fields["data"])))

    async def any(self) -> tuple[str, Any]:
        return await self._arrived.get()

    async def next(self, name: str) -> Any:
        """The data of the next event of this name."""
        while True:
            event, data = await self._arrived.get()
            if event == name:
                return data

    @property
    def headers(self) -> dict[str, str]:
        return {name.decode(): value.decode() for name, value in self.head["headers"]}


@asynccontextmanager
async def following(browser: PayerBrowser, address: str) -> AsyncIterator[Events]:
    events, gone, parts = Events(), asyncio.Event(), urlsplit(address)
    requests: list[Message] = [{"type": "http.request", "body": b"", "more_body": False}]
    cookies = "; ".join(f"{name}={value}" for name, value in browser._cookies_for(parts.path))
    scope = {
        "type": "http",
        "method": "GET",
        "scheme": "http",
        "path": parts.path,
        "root_path": "",
        "query_string": parts.query.encode(),
        "headers": [
            (name.encode(), value.encode()) for name, value in {**browser.headers, **STREAM, "cookie": cookies}.items()
        ],
        "client": (browser.client, 50_000),
    }

    async def receive() -> Message:
        if requests:
            return requests.pop()
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        events.take(message)

    async def serve() -> None:
        await browser.application(scope, receive, send)

    serving = asyncio.create_task(serve())
    try:
        yield events
    finally:
        gone.set()
        await serving
        await asyncio.sleep(2 * SWEEP_S)  # the watch for disconnects has ended too


def live_address(document: Document) -> str:
    return next(values["data-live"] for tag, values in document.tags if tag == "main")


async def test_a_checkout_improves_as_its_sources_answer() -> None:
    async with page_shop({"first_answer_ms": 100}) as shop:
        shop.checkout.inject("quota", "hang", always=True)
        browser = await shop.payer(CASE)
        assert "row checking" in browser.document.html
        shop.checkout.clear_faults()
        async with following(browser, live_address(browser.document)) as events:
            while 'class="row checking"' in (await events.next("update"))["html"]:
                pass
            assert await events.next("end") == {"retry_ms": None}


async def test_an_update_never_knows_less_than_the_one_before() -> None:
    async with page_shop({"first_answer_ms": 100}) as shop:
        browser = await shop.payer(CASE)
        shop.cashier.invalidate("quota", prefix="")
        shop.checkout.inject("quota", "hang")
        checking = []
        async with following(browser, live_address(browser.document)) as events:
            while (event := await events.any())[0] != "end":
                if event[0] == "update" and "html" in event[1]:
                    checking.append(event[1]["html"].count('class="row checking"'))
        assert checking == sorted(set(checking), reverse=True), "each knows more"


def reprice_address(document: Document) -> str:
    return next(values["data-reprice"] for tag, values in document.tags if tag == "form" and "data-reprice" in values)


def missing_in(document: Document) -> set[str]:
    """The sources that the page is without."""
    return set(filter(None, dict(parse_qsl(urlsplit(live_address(document)).query)).get("missing", "").split(",")))


def price_in(document: Document, method_id: str) -> str | None:
    radios = (values for tag, values in document.tags if tag == "input" and values.get("value") == method_id)
    return next((values.get("data-amount") for values in radios), None)


async def improved(shop: PageShop, browser: PayerBrowser) -> None:
    """Follow the open page to the stream's end. What is held answers after the first update."""
    async with following(browser, live_address(browser.document)) as events:
        while (event := await events.any())[0] != "end":
            shop.release()
            if event[0] == "update" and "html" in event[1]:
                later = Document(event[1]["html"])
                assert missing_in(later) <= missing_in(browser.document), "it never knows less"
                browser.document = later


def late_sources(seed: int) -> list[str]:
    """Each one alone, and some together. Without the others there is no page yet."""
    optional = [name for name in SOURCE_NAMES if name not in REQUIRED]
    return optional[seed : seed + 1] or Random(seed).sample(optional, 3)


@pytest.mark.parametrize("seed", range(12))
async def test_what_answers_late_reaches_an_open_page(seed: int) -> None:
    """Also where every method could be chosen before, such as discounts."""
    async with page_shop() as prompt:
        price = price_in((await prompt.payer(CASE)).document, "WALLET:ALIPAY")
    async with page_shop({"first_answer_ms": 20}) as shop:
        shop.hold(*late_sources(seed))
        browser = await shop.payer(CASE)
        assert missing_in(browser.document) >= set(late_sources(seed))
        await improved(shop, browser)
        assert missing_in(browser.document) == set()
        assert price_in(browser.document, "WALLET:ALIPAY") == price
        assert 'class="busy"' not in browser.document.html
        await browser.choose("WALLET:ALIPAY")
        assert browser.document.view == "action"


@pytest.mark.parametrize("seed", range(12))
async def test_a_payer_who_is_faster_than_the_sources_agrees_once_more_at_most(seed: int) -> None:
    """The page after the first press knows more than the first answer to the updates after it."""
    async with page_shop({"first_answer_ms": 20}) as shop:
        late = late_sources(seed)
        shop.hold(*late)
        browser = await shop.payer(CASE)
        if price_in(browser.document, "WALLET:ALIPAY") is None:
            await improved(shop, browser)
        pressed = asyncio.create_task(browser.choose("WALLET:ALIPAY"))
        await asyncio.sleep(1)
        shop.release()
        await pressed
        if browser.document.view == "checkout":
            for source in late:
                shop.cashier.invalidate(source, prefix="")
            shop.hold(*late)
            price = price_in(browser.document, "WALLET:ALIPAY")
            await improved(shop, browser)
            assert price_in(browser.document, "WALLET:ALIPAY") == price
            await browser.choose("WALLET:ALIPAY")
        assert browser.document.view == "action"
        assert shop.checkout.count("submit") == 1


async def test_a_page_without_an_answer_of_marketing_says_so_and_asks_again() -> None:
    async with page_shop({"first_answer_ms": 100}) as shop:
        shop.checkout.inject("marketing", "hang", always=True)
        browser = await shop.payer(CASE)
        assert '<details class="coupons"' in browser.document.html, "they come in place"
        async with following(browser, live_address(browser.document)) as events:
            assert (await events.next("end"))["retry_ms"] > 0
        shop.checkout.clear_faults()
        await improved(shop, browser)
        assert 'name="coupon"' in browser.document.html


async def test_what_stays_undetermined_is_asked_for_again() -> None:
    async with page_shop({"first_answer_ms": 100}) as shop:
        shop.checkout.inject("quota", "hang", always=True)
        browser = await shop.payer(CASE)
        async with following(browser, live_address(browser.document)) as events:
            assert 'class="row checking"' in (await events.next("update"))["html"]
            while (event := await events.any())[0] == "beat":
                pass
            assert event[0] == "end", "nothing changed, so nothing is rendered again"
            assert event[1]["retry_ms"] > 0
        answer = await browser.send("GET", live_address(browser.document), headers=JSON)
        assert json.loads(answer.body)["poll_after_ms"] > 0


async def test_an_update_is_the_page_itself(shop: PageShop) -> None:
    browser = await shop.payer(CASE)
    answer = await browser.send("GET", live_address(browser.document), headers=JSON)
    update = json.loads(answer.body)
    assert update["view"] == browser.document.view
    before, after = browser.document, Document(update["html"])
    assert [form.action for form in after.forms] == [form.action for form in before.forms]
    assert [choice[1] for form in after.forms for choice in form.choices] == [
        choice[1] for form in before.forms for choice in form.choices
    ]
    assert f"<title>{update['title']}</title>".replace("'", "&#39;") in before.html


async def test_an_updated_page_can_be_paid(shop: PageShop) -> None:
    browser = await shop.payer(CASE)
    answer = await browser.send("GET", live_address(browser.document), headers=JSON)
    browser.document = Document(json.loads(answer.body)["html"])
    await browser.choose("QUICK_PAY:c_2")
    assert browser.document.view == "challenge"


async def test_a_choice_of_coupons_changes_the_prices(shop: PageShop) -> None:
    browser = await shop.payer(CASE)
    plain = reprice_address(browser.document)
    with_best, without = [
        json.loads((await browser.send("GET", address, headers=JSON)).body)["html"]
        for address in (plain, f"{plain}?coupons=none")
    ]
    assert 'class="off"' in with_best
    assert 'class="off"' not in without
    assert '<input type="hidden" name="coupons" value="none">' in without, "a submit keeps the choice"


async def test_a_choice_of_coupons_is_answered_also_without_marketing(shop: PageShop) -> None:
    """The open page knows more, but the payer has chosen something else since."""
    browser = await shop.payer(CASE)
    shop.cashier.invalidate("marketing", prefix="")
    shop.checkout.silent.add("marketing")
    answer = await browser.send("GET", f"{reprice_address(browser.document)}?coupons=none", headers=JSON)
    browser.document = Document(json.loads(answer.body)["html"])
    assert price_in(browser.document, "WALLET:ALIPAY") == "¥128.00"
    await browser.choose("WALLET:ALIPAY")
    assert browser.document.view == "action"


async def test_a_payment_is_followed_to_its_end(shop: PageShop) -> None:
    browser = await shop.payer(CASE)
    await browser.choose("WALLET:ALIPAY")
    assert browser.document.view == "action"
    async with following(browser, live_address(browser.document)) as events:
        first = await events.next("update")
        assert (first["view"], "<svg" in first["html"]) == ("action", True)
        shop.settle(browser)
        last = await events.next("update")
        assert last["view"] == "result"
        assert 'class="card state good"' in last["html"]
        assert "data-live" not in last["html"]
        assert await events.next("end") == {"retry_ms": None}
        headers = events.headers
    assert headers["content-type"].startswith("text/event-stream")
    assert headers["cache-control"] == "no-store"
    assert "default-src 'none'" in headers["content-security-policy"]
    assert [name for name, _ in events.head["headers"]].count(b"content-type") == 1


async def test_an_open_page_lives_through_silence(shop: PageShop) -> None:
    browser = await shop.payer(CASE)
    await browser.choose("WALLET:ALIPAY")
    async with following(browser, live_address(browser.document)) as events:
        assert await events.next("beat") == {}


async def test_a_challenge_keeps_what_the_payer_types(shop: PageShop) -> None:
    browser = await shop.payer(CASE)
    await browser.choose("QUICK_PAY:c_2")
    update = json.loads((await browser.send("GET", live_address(browser.document), headers=JSON)).body)
    assert update["view"] == "challenge"
    assert "html" not in update


async def test_a_second_tab_with_the_checkout_is_led_to_the_payment(shop: PageShop) -> None:
    browser = await shop.payer(CASE)
    checkout = live_address(browser.document)
    await browser.choose("QUICK_PAY:c_2")
    update = json.loads((await browser.send("GET", checkout, headers=JSON)).body)
    assert update["view"] not in ("checkout", "challenge", "action", "result")


@pytest.mark.parametrize("ending", ["methods", "events"])
async def test_updates_need_the_session(shop: PageShop, ending: str) -> None:
    stranger = shop.browser()
    for accept in (JSON, STREAM):
        answer = await stranger.send("GET", f"/cashier/o_1001/{ending}", headers=accept)
        assert answer.status == 403
    assert (await (await shop.payer(CASE)).send("GET", f"/cashier/o_1002/{ending}", headers=JSON)).status == 403


async def test_streams_of_one_session_are_bounded_and_those_of_others_go_on(shop: PageShop) -> None:
    """A page without a stream asks from time to time. Each stream that ends makes room."""
    browser, other = await shop.payer(CASE), await shop.payer("indonesian_shop")
    await browser.choose("WALLET:ALIPAY")
    await other.choose("VA", "BCA")
    address = live_address(browser.document)
    async with AsyncExitStack() as opened:
        for _ in range(MOST_STREAMS):
            events = await opened.enter_async_context(following(browser, address))
            await events.next("update")
        assert (await browser.send("GET", address, headers=STREAM)).status == 429
        assert (await browser.send("GET", address, headers=JSON)).status == 200
        async with following(other, live_address(other.document)) as events:
            await events.next("update")
    async with following(browser, address) as events:
        await events.next("update")


async def test_a_stream_that_could_not_start_takes_no_room(shop: PageShop) -> None:
    browser = await shop.payer(CASE)
    for _ in range(MOST_STREAMS + 1):
        assert (await browser.send("GET", "/cashier/o_1001/events", headers=STREAM)).status == 403
    await browser.choose("WALLET:ALIPAY")
    async with following(browser, live_address(browser.document)) as events:
        await events.next("update")
