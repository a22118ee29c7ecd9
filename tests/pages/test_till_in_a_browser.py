"""A till, its printed code and the vault's form in a real browser, over the demonstration."""

from __future__ import annotations

import json
import re
import urllib.request
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.browser import chromium, opened, overflows, wait_for_last_price
from tests.support.command_processes import running

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.peers]
# A code is used once.
CODES = {True: "134567890123456781", False: "134567890123456782"}
NEVER_CODE = "134567890123456789"


class Demo:
    """The addresses that the demonstration prints."""

    def __init__(self, text: str) -> None:
        self.till = re.findall(r"http://\S+/shop/till", text)[0]
        self.code = re.findall(r"http://\S+/cashier-code/\S+", text)[0]
        self.sandbox = re.findall(r"(http://\S+)/shop", text)[0]

    def settle(self, page: Page) -> None:
        """The payer of the sale that is open pays in the wallet."""
        order_id = page.url.rpartition("/sales/")[2].partition("?")[0]
        with urllib.request.urlopen(f"{self.sandbox}/orders/{order_id}/result") as answer:
            payment_id: Any = json.load(answer)["payment_id"]
        body = json.dumps({"result": "SUCCEEDED"}).encode()
        address = f"{self.sandbox}/payments/{payment_id}/settle"
        urllib.request.urlopen(urllib.request.Request(address, body, method="POST")).close()


@pytest.fixture(scope="module")
def browser(request: pytest.FixtureRequest) -> Iterator[Browser]:
    with chromium(request) as launched:
        yield launched


@pytest.fixture(scope="module")
def demo() -> Iterator[Demo]:
    with running("demo", "--weather", "still") as command:
        text = ""
        for line in command.process.stdout or ():
            text += line
            if "/cashier-code/" in line:
                yield Demo(text)
                break


def type_line(page: Page, text: str) -> None:
    """As a cashier or a scanner types: into what has the focus, with Enter at the end."""
    page.locator("input:focus").wait_for()  # a page that has loaded gives it with its first frame
    page.keyboard.type(text)
    page.keyboard.press("Enter")


def sell(page: Page, demo: Demo, amount: str) -> None:
    page.goto(demo.till)
    type_line(page, amount)
    page.wait_for_url("**/sales/**")


@pytest.mark.parametrize("with_script", [True, False])
def test_a_till_is_worked_by_keyboard_and_scanner_alone(browser: Browser, demo: Demo, with_script: bool) -> None:
    with opened(browser, locale="en-GB", java_script_enabled=with_script) as (page, wrong):
        sell(page, demo, "12.50")
        type_line(page, CODES[with_script])
        page.get_by_role("heading", name="Paid", exact=True).wait_for()
        if with_script:
            page.keyboard.press("Enter")
        else:
            page.get_by_role("link", name="Next sale").click()
        page.wait_for_url("**/till-1")
        type_line(page, "3")
        page.wait_for_url("**/sales/**")
        assert wrong == []


@pytest.mark.parametrize("with_script", [True, False])
def test_after_what_was_refused_the_field_has_the_focus_again(browser: Browser, demo: Demo, with_script: bool) -> None:
    """Else what is scanned next goes nowhere."""
    with opened(browser, locale="en-GB", java_script_enabled=with_script) as (page, _):
        page.goto(demo.till)
        type_line(page, "0")
        page.locator(".notice.error").wait_for()
        page.locator("#amount:focus").wait_for()
        page.locator("#amount").fill("")
        type_line(page, "4")
        page.wait_for_url("**/sales/**")
        type_line(page, "12")
        page.locator(".notice.error").wait_for()
        page.locator("#code:focus").wait_for()
        type_line(page, f"{5 + with_script}34567890123456783")
        page.get_by_role("heading", name="Paid", exact=True).wait_for()


@pytest.mark.parametrize("with_script", [True, False])
def test_the_screen_shows_that_the_payer_has_paid(browser: Browser, demo: Demo, with_script: bool) -> None:
    with opened(browser, locale="en-GB", java_script_enabled=with_script) as (page, wrong):
        sell(page, demo, "5")
        page.get_by_role("button", name="Alipay").click()
        page.locator(".qr svg").wait_for()
        if with_script:
            page.evaluate("window.notReloaded = true")
        demo.settle(page)
        page.get_by_role("heading", name="Paid", exact=True).wait_for()
        if with_script:
            assert page.evaluate("window.notReloaded"), "in place"
            page.keyboard.press("Enter")
            page.wait_for_url("**/till-1")
        assert wrong == []


def test_a_payer_who_confirms_is_waited_for(browser: Browser, demo: Demo) -> None:
    with opened(browser, locale="en-GB") as (page, wrong):
        sell(page, demo, "6")
        type_line(page, NEVER_CODE)
        page.get_by_role("heading", name="The payer confirms").wait_for()
        demo.settle(page)
        page.get_by_role("heading", name="Paid", exact=True).wait_for()
        assert wrong == []


@pytest.mark.parametrize("locale", ["zh-CN", "ar"])
def test_a_walk_in_pays_by_the_printed_code_on_a_phone(browser: Browser, demo: Demo, locale: str) -> None:
    with opened(browser, locale=locale, viewport={"width": 360, "height": 740}) as (page, wrong):
        page.goto(demo.code)
        type_line(page, "8")
        page.locator("#methods").wait_for()
        wait_for_last_price(page)
        page.locator("[value='WALLET:ALIPAY']:enabled").check(force=True)
        page.locator("#pay .primary").click()
        page.locator("a[rel=noreferrer]").last.wait_for()
        bank = page.context.new_page()
        bank.goto(page.locator("a[rel=noreferrer]").last.get_attribute("href") or "")
        bank.locator("button.primary").click()
        bank.close()
        page.locator(".sign.good").wait_for()
        assert not overflows(page)
        assert wrong == []


def test_a_card_is_entered_at_the_vault(browser: Browser, demo: Demo) -> None:
    with opened(browser, locale="en-GB") as (page, wrong):
        page.goto(f"{demo.sandbox}/shop")
        page.get_by_role("button", name="Buy", exact=True).first.click()
        page.locator("#methods").wait_for()
        wait_for_last_price(page)
        page.locator("#others summary").click()
        page.locator("[value='CARD']:enabled").check(force=True)
        page.locator("#pay .primary").click()
        page.get_by_role("button", name="Use this card").click()  # the script has led there
        page.wait_for_url("**?method=CARD")
        assert page.locator("[value='CARD']").is_checked()
        page.locator("#pay .primary").click()
        page.locator("section.state, form.answer").first.wait_for()
        assert wrong == []
