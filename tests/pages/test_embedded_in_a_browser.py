"""The embedded cashier and the pages in a real browser, over a real service and sandbox."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cashier.consultation.source_table import SOURCE_NAMES
from cashier.settings.schema import SERVICES
from tests.pages.embedding_shop import EmbeddingShop
from tests.support.browser import chromium, opened
from tests.support.command_processes import running

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page, Route

pytestmark = [pytest.mark.peers]
OTP = "246810"


@pytest.fixture(scope="module")
def browser(request: pytest.FixtureRequest) -> Iterator[Browser]:
    with chromium(request) as launched:
        yield launched


@pytest.fixture
def sandbox() -> Iterator[str]:
    with running("sandbox", "--port", "0", "--weather", "still") as command:
        yield command.address("Sandbox on")


@pytest.fixture
def shop(tmp_path: Path, sandbox: str) -> Iterator[EmbeddingShop]:
    """With a service for its origin."""
    embedding = EmbeddingShop()
    with embedding.running() as address:
        sources = {f"sources.{name}": {"url": sandbox} for name in (*SOURCE_NAMES, *SERVICES)}
        tables: dict[str, dict[str, Any]] = {
            "server": {"port": 0, "shutdown_delay_s": 0},
            "operations": {"enabled": False},
            "pages": {"enabled": True, "first_answer_ms": 200},
            "merchants.m_1": {"origins": [address]},
            **sources,
        }
        path = tmp_path / "cashier.toml"
        path.write_text(
            "".join(
                f"[{name}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in table.items())
                for name, table in tables.items()
            )
        )
        with running("serve", "--config", str(path)) as command:
            embedding.cashier = command.address("Serving on")
            yield embedding


def seen(page: Page, name: str) -> list[Any]:
    return [detail for kind, detail in page.evaluate("window.seen") if kind == name]


def choose(cashier: Locator, method_id: str) -> None:
    """Once its sources have answered."""
    cashier.locator(f"[value='{method_id}']:enabled").check(force=True)


def test_a_card_is_paid_in_a_page_of_a_shop(browser: Browser, shop: EmbeddingShop) -> None:
    with opened(browser, viewport={"width": 360, "height": 740}) as (page, wrong):
        page.goto(shop.address)
        cashier = page.locator("cashier-methods")
        cashier.get_by_role("radio").first.wait_for()
        assert page.get_by_text("Pay on the secure page").is_hidden(), "the element takes its place"
        for method in ("WALLET:ALIPAY", "QUICK_PAY:c_2"):
            choose(cashier, method)
        assert seen(page, "choice") == [{"method": "WALLET:ALIPAY"}, {"method": "QUICK_PAY:c_2"}]
        cashier.locator(".primary").click()
        frame = cashier.frame_locator("iframe")
        frame.locator("#answer").wait_for()
        assert cashier.locator("#answer").count() == 0, "no page of a shop has the field"
        frame.locator("#answer").fill(OTP)
        frame.locator(".primary").click()
        cashier.get_by_role("heading", name="Paid").wait_for()
        assert seen(page, "result")[-1]["outcome"] == "paid"
        assert wrong == []
        page.reload()
        page.locator("cashier-methods").get_by_role("heading", name="Paid").wait_for()


def test_axe_finds_nothing_and_the_keyboard_is_enough(browser: Browser, shop: EmbeddingShop) -> None:
    from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]

    def faults() -> list[str]:
        page.wait_for_timeout(300)
        return [each["id"] for each in Axe().run(page).response["violations"] if each["id"] != "landmark-one-main"]

    def tab_to(selector: str) -> None:
        for _ in range(40):
            page.keyboard.press("Tab")
            if cashier.locator(selector).evaluate("element => element.matches(':focus')"):
                return
        raise AssertionError(selector)

    with opened(browser) as (page, _):
        page.goto(shop.address)
        cashier = page.locator("cashier-methods")
        choose(cashier, "WALLET:ALIPAY")
        assert faults() == ["region"], "the shop's own heading is in no landmark"
        cashier.locator("[value='WALLET:ALIPAY']").focus()
        tab_to(".primary")
        page.keyboard.press("Enter")
        cashier.get_by_role("link", name="Continue to pay").wait_for()
        assert faults() == ["region"]
        tab_to("form[action$='/replace'] button")
        page.keyboard.press("Enter")
        cashier.get_by_role("radio").first.wait_for()


def test_a_wrong_code_is_said_in_the_frame(browser: Browser, shop: EmbeddingShop) -> None:
    with opened(browser) as (page, _):
        page.goto(shop.address)
        cashier = page.locator("cashier-methods")
        choose(cashier, "QUICK_PAY:c_2")
        cashier.locator(".primary").click()
        frame = cashier.frame_locator("iframe")
        frame.locator("#answer").fill("000000")
        frame.locator(".primary").click()
        frame.locator("[role=alert]").wait_for()
        frame.locator("#answer").fill(OTP)
        frame.locator(".primary").click()
        cashier.get_by_role("heading", name="Paid").wait_for()


def test_a_bank_is_visited_by_the_whole_page_unless_the_shop_objects(browser: Browser, shop: EmbeddingShop) -> None:
    with opened(browser) as (page, _):
        page.goto(shop.address)
        cashier = page.locator("cashier-methods")
        choose(cashier, "WALLET:ALIPAY")
        cashier.locator(".primary").click()
        onwards = cashier.get_by_role("link", name="Continue to pay")
        onwards.wait_for()
        page.evaluate(
            "window.objects = (event) => event.preventDefault(); document.addEventListener('cashier-redirect', objects)"
        )
        onwards.click()
        assert seen(page, "redirect")[-1]["url"] == onwards.get_attribute("href")
        assert page.url.startswith(shop.address)
        page.evaluate("document.removeEventListener('cashier-redirect', objects)")
        onwards.click()
        page.wait_for_url("**/bank/**")
        page.go_back()
        cashier.get_by_role("link", name="Continue to pay").wait_for()


def test_without_the_script_the_link_of_the_shop_remains(browser: Browser, shop: EmbeddingShop) -> None:
    shop.has_script = False
    with opened(browser) as (page, _):
        page.goto(shop.address)
        page.get_by_role("link", name="Pay on the secure page").click()
        page.get_by_role("radio").first.wait_for()
        assert page.url == f"{shop.cashier}/cashier/o_1020"


def test_without_the_service_the_link_of_the_shop_remains(browser: Browser, shop: EmbeddingShop) -> None:
    with opened(browser) as (page, _):
        page.route("**/cashier-embed/**", lambda route: route.abort())
        page.goto(shop.address)
        page.get_by_role("link", name="Pay on the secure page").wait_for()
        for _ in range(100):
            if seen(page, "error"):
                break
            page.wait_for_timeout(50)
        assert seen(page, "error")[0]["code"] == "UNAVAILABLE"
        assert page.get_by_role("link", name="Pay on the secure page").is_visible()


def test_a_frame_without_an_answer_asks_again(browser: Browser, shop: EmbeddingShop) -> None:
    with opened(browser) as (page, _):
        page.goto(shop.address)
        cashier = page.locator("cashier-methods")
        choose(cashier, "QUICK_PAY:c_2")
        lost: list[str] = []

        def lose_first(route: Route) -> None:
            if route.request.frame.parent_frame is None or lost:
                route.continue_()
            else:
                lost.append(route.request.url)
                route.abort()

        page.route("**/cashier-embed/*/payment", lose_first)
        cashier.locator(".primary").click()
        cashier.frame_locator("iframe").locator("#answer").wait_for()
        assert len(lost) == 1


def test_it_works_under_a_strict_policy_of_the_shop(browser: Browser, shop: EmbeddingShop) -> None:
    shop.policy = (
        f"default-src 'none'; script-src 'self' {shop.cashier}; connect-src {shop.cashier}; frame-src {shop.cashier};"
        " img-src data:; require-trusted-types-for 'script'; trusted-types 'none'"
    )
    with opened(browser) as (page, wrong):
        page.goto(shop.address)
        cashier = page.locator("cashier-methods")
        cashier.get_by_role("radio").first.wait_for()
        assert cashier.locator(".card").first.evaluate("card => getComputedStyle(card).borderTopLeftRadius") != "0px"
        assert wrong == []


def test_a_shop_sets_colour_and_parts(browser: Browser, shop: EmbeddingShop) -> None:
    with opened(browser) as (page, _):
        page.goto(shop.address)
        cashier = page.locator("cashier-methods")
        button = cashier.locator(".primary")
        button.wait_for()
        page.evaluate("document.querySelector('cashier-methods').style.setProperty('--cashier-fill', 'rgb(1, 2, 3)')")
        assert button.evaluate("button => getComputedStyle(button).backgroundColor") == "rgb(1, 2, 3)"
        page.add_style_tag(content="cashier-methods::part(button) { letter-spacing: 7px }")
        assert button.evaluate("button => getComputedStyle(button).letterSpacing") == "7px"


def test_it_is_dark_only_where_the_shop_is(browser: Browser, shop: EmbeddingShop) -> None:
    shades = []
    for scheme in ("normal", "light dark"):
        with opened(browser, color_scheme="dark") as (page, _):
            page.add_init_script(
                "document.addEventListener('DOMContentLoaded', () => {"
                f" document.documentElement.style.colorScheme = '{scheme}' }})"
            )
            page.goto(shop.address)
            heading = page.locator("cashier-methods").get_by_role("heading").first
            heading.wait_for()
            shades.append(heading.evaluate("heading => getComputedStyle(heading).color"))
    light, dark = (sum(map(int, re.findall(r"\d+", shade)[:3])) for shade in shades)
    assert light < 200
    assert dark > 600


def test_a_message_of_another_page_moves_nothing(browser: Browser, shop: EmbeddingShop) -> None:
    with opened(browser) as (page, _):
        page.goto(shop.address)
        cashier = page.locator("cashier-methods")
        choose(cashier, "QUICK_PAY:c_2")
        cashier.locator(".primary").click()
        cashier.frame_locator("iframe").locator("#answer").wait_for()
        page.evaluate("postMessage({ cashier: 1, type: 'moved', payment: 'pay_x:y' }, '*')")
        page.wait_for_timeout(300)
        assert cashier.locator("iframe").count() == 1
