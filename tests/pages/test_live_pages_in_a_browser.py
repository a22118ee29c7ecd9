"""The standard cashier with its script in a real browser, over the demonstration."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.browser import chromium, opened, wait_for_last_price
from tests.support.command_processes import running

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.peers]
OTP = "246810"


class Demo:
    """`shop`: the page of the sandbox's shop; `sandbox`: its address."""

    def __init__(self, shop: str) -> None:
        self.shop = shop
        self.sandbox = shop.removesuffix("/shop")

    def change_weather(self, source: str, profile: dict[str, Any] | None) -> None:
        body = None if profile is None else json.dumps(profile).encode()
        method = "DELETE" if profile is None else "PUT"
        request = urllib.request.Request(f"{self.sandbox}/weather/{source}", body, method=method)
        urllib.request.urlopen(request).close()


@pytest.fixture(scope="module")
def browser(request: pytest.FixtureRequest) -> Iterator[Browser]:
    with chromium(request) as launched:
        yield launched


@pytest.fixture
def demo() -> Iterator[Demo]:
    with running("demo", "--weather", "still") as command:
        for line in command.process.stdout or ():
            if line.strip().endswith("/shop"):
                yield Demo(line.split()[-1])
                break


def buy(page: Page, demo: Demo) -> None:
    page.goto(demo.shop)
    page.get_by_role("button", name="Buy", exact=True).first.click()
    page.locator("#methods").wait_for()


def choose(page: Page, method_id: str) -> None:
    wait_for_last_price(page)
    page.locator(f"[value='{method_id}']:enabled").check(force=True)


def test_a_hanging_source_is_being_checked_and_its_methods_come_by_themselves(browser: Browser, demo: Demo) -> None:
    demo.change_weather("quota", {"faults": {"hang": 10_000}})
    try:
        with opened(browser, locale="en-GB") as (page, wrong):
            buy(page, demo)
            page.locator("[value='QUICK_PAY:c_2']:disabled").wait_for(state="attached")
            page.locator(".row.checking").first.wait_for(state="attached")
            page.evaluate("window.notReloaded = true")
            demo.change_weather("quota", None)
            page.locator("[value='QUICK_PAY:c_2']:enabled").wait_for(state="attached")
            assert page.evaluate("window.notReloaded"), "in place"
            assert wrong == []
    finally:
        demo.change_weather("quota", None)


def test_a_bank_page_that_is_paid_in_another_tab_shows_here_as_it_happens(browser: Browser, demo: Demo) -> None:
    with opened(browser, locale="en-GB") as (page, wrong):
        buy(page, demo)
        choose(page, "WALLET:ALIPAY")
        page.locator("[data-payable]").wait_for()
        page.locator("#pay .primary").click()
        onwards = page.get_by_role("link", name="Continue to pay")
        onwards.wait_for()
        page.evaluate("window.notReloaded = true")
        bank = page.context.new_page()
        bank.goto(onwards.get_attribute("href") or "")
        bank.locator("button.primary").click()
        bank.close()
        page.get_by_role("heading", name="Paid").wait_for()
        assert wrong == []


def test_a_checkout_in_a_second_tab_shows_the_payment_once_it_is_looked_at(browser: Browser, demo: Demo) -> None:
    with opened(browser, locale="en-GB") as (page, _):
        buy(page, demo)
        second = page.context.new_page()
        second.goto(page.url)
        second.locator("#methods").wait_for()
        choose(page, "QUICK_PAY:c_2")
        page.locator("#pay .primary").click()
        page.locator("#answer").fill(OTP)
        page.locator("form.answer .primary").click()
        page.get_by_role("heading", name="Paid").wait_for()
        second.evaluate("dispatchEvent(new Event('online'))")
        second.get_by_role("heading", name="Paid").wait_for()


def test_coupons_are_declined_in_place(browser: Browser, demo: Demo) -> None:
    with opened(browser, locale="en-GB") as (page, wrong):
        buy(page, demo)
        choose(page, "WALLET:ALIPAY")
        before = page.locator("[data-payable]").inner_text()
        page.evaluate("window.notReloaded = true")
        page.locator("#coupons summary").click()
        for box in page.locator("#coupons input:checked").all():
            box.uncheck(force=True)
        for _ in range(200):
            if page.locator("[data-payable]").inner_text() != before:
                break
            page.wait_for_timeout(50)
        assert page.locator("[data-payable]").inner_text().endswith("128.00")
        assert page.locator("[value='WALLET:ALIPAY']").is_checked(), "the choice is kept"
        assert page.evaluate("window.notReloaded")
        assert page.url.endswith("?coupons=none")
        assert wrong == []
