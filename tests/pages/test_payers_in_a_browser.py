"""Payers pay in a real browser, over the demonstration: on a phone, by keyboard, without a script,
by a slow network."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.support.browser import chromium, opened, wait_for_last_price
from tests.support.command_processes import running

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.peers]

OTP = "246810"
PHONE = {"width": 360, "height": 640}
PAID = {"zh-CN": "支付成功", "ar": "تم الدفع", "en": "Paid"}
# Round trip, rate and processor of a cheap phone in the field.
SLOW = {"offline": False, "latency": 150, "downloadThroughput": 1.6e6 / 8, "uploadThroughput": 0.75e6 / 8}
SLOWER_CPU = 4
FIRST_METHODS_MS = 1000
RESPONSE_MS = 200
BYTES = 30 * 1024
TOUCHES = {
    "a method": "#methods .row.available:not(:has(> :checked)) label >> nth=0",
    "the coupons": "#coupons summary",
    "the rest": "#others summary",
    "pay": "#pay .primary",
}
# What is shorter than the threshold is no entry.
_RESPONSES = """
globalThis.responses = [];
new PerformanceObserver((list) => responses.push(...list.getEntries().map((each) => each.duration)))
    .observe({ type: "event", durationThreshold: 16 });"""
_PAINTED = "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done, 100))))"


@pytest.fixture(scope="module")
def browser(request: pytest.FixtureRequest) -> Iterator[Browser]:
    with chromium(request) as launched:
        yield launched


def demonstration() -> Iterator[str]:
    """The address of the sandbox's shop."""
    with running("demo", "--weather", "still") as command:
        for line in command.process.stdout or ():
            if line.strip().endswith("/shop"):
                yield line.split()[-1]
                break


shop = pytest.fixture(demonstration, scope="module")
# Where no payment has spent a coupon.
fresh_shop = pytest.fixture(demonstration)


def buy(page: Page, shop: str, *, scripts: bool = True) -> None:
    page.goto(shop)
    page.get_by_role("button", name="Buy", exact=True).first.click()
    wait_for_last_price(page, scripts=scripts)


def tab_to(page: Page, selector: str) -> None:
    for _ in range(60):
        if page.locator(selector).evaluate("element => element === document.activeElement"):
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"the keyboard does not reach {selector}")


def test_in_chinese_on_a_phone_with_a_finger(browser: Browser, shop: str) -> None:
    with opened(browser, viewport=PHONE, is_mobile=True, has_touch=True, locale="zh-CN") as (page, wrong):
        buy(page, shop)
        assert page.locator("html").get_attribute("lang") == "zh-CN"
        page.locator("label", has_text="招商银行").first.tap()
        page.locator("#pay .primary").tap()
        page.locator("#answer").fill(OTP)
        page.locator("form.answer .primary").tap()
        page.get_by_role("heading", name=PAID["zh-CN"]).wait_for()
        assert wrong == []


def test_in_arabic_by_the_keyboard_only(browser: Browser, shop: str) -> None:
    with opened(browser, viewport=PHONE, locale="ar") as (page, wrong):
        buy(page, shop)
        assert page.locator("html").get_attribute("dir") == "rtl"
        tab_to(page, "#methods input:checked")
        page.keyboard.press("ArrowDown")
        page.keyboard.press("ArrowUp")
        assert page.locator("#methods input:checked").get_attribute("value") == "QUICK_PAY:c_2"
        tab_to(page, "#pay .primary")
        page.keyboard.press("Enter")
        page.locator("#answer").wait_for()
        tab_to(page, "#answer")
        page.keyboard.type(OTP)
        page.keyboard.press("Enter")
        page.get_by_role("heading", name=PAID["ar"]).wait_for()
        assert wrong == []


def test_without_a_script(browser: Browser, shop: str) -> None:
    with opened(browser, viewport=PHONE, locale="en-GB", java_script_enabled=False) as (page, wrong):
        buy(page, shop, scripts=False)
        page.locator("#others summary").click()
        page.locator("label", has_text="China Merchants Bank credit card").first.click()
        page.locator("#pay .primary").click()
        page.locator("#answer").fill(OTP)
        page.locator("form.answer .primary").click()
        page.get_by_role("heading", name=PAID["en"]).wait_for()
        assert wrong == []


def test_a_screen_reader_hears_each_method_with_its_price_and_why_one_is_refused(browser: Browser, shop: str) -> None:
    with opened(browser, viewport=PHONE, locale="en-GB") as (page, _):
        buy(page, shop)
        page.locator("#others summary").click()
        tree = page.locator("#methods").aria_snapshot()
        assert tree.startswith('- group "Choose how to pay"')
        chosen = next(line for line in tree.splitlines() if "radio" in line and "[checked]" in line)
        for part in ("China Merchants Bank credit card (1014)", "CN¥", "Last used"):
            assert part in chosen
        refused = page.locator(".row.unavailable input").first
        why = page.locator(f"#{refused.get_attribute('aria-describedby')}")
        assert why.inner_text().strip()


def test_no_target_is_hidden_behind_what_sticks(browser: Browser, shop: str) -> None:
    """WCAG 2.2, 2.4.11: what has the focus is seen, at least in part."""
    with opened(browser, viewport=PHONE, locale="en-GB") as (page, _):
        buy(page, shop)
        page.locator("#others summary").click()
        for _ in range(40):
            page.keyboard.press("Tab")
            seen = page.evaluate("""() => {
                const it = document.activeElement;
                if (it === document.body) return true;
                const box = (it.labels?.[0] ?? it).getBoundingClientRect();
                const sticking = it.closest(".order, .paybar, .skip");
                const top = document.querySelector(".order").getBoundingClientRect().bottom;
                const bottom = document.querySelector(".paybar").getBoundingClientRect().top;
                return Boolean(sticking) || (box.bottom > top && box.top < bottom) || box.top >= bottom + 70;
            }""")
            assert seen, page.evaluate("document.activeElement.outerHTML.slice(0, 200)")


def loaded(page: Page) -> list[tuple[str, int]]:
    """The path and the compressed bytes of what the page's own address loads."""
    session = page.context.new_cdp_session(page)
    session.send("Network.enable")
    session.send("Network.setCacheDisabled", {"cacheDisabled": True})
    session.send("Network.emulateNetworkConditions", SLOW)
    session.send("Emulation.setCPUThrottlingRate", {"rate": SLOWER_CPU})
    urls: dict[str, str] = {}
    sizes: list[tuple[str, int]] = []
    session.on("Network.requestWillBeSent", lambda sent: urls.update({sent["requestId"]: sent["request"]["url"]}))
    session.on(
        "Network.loadingFinished",
        lambda done: sizes.append((urls.get(done["requestId"], ""), int(done["encodedDataLength"]))),
    )
    page.goto(page.url)
    page.locator("[data-payable]").wait_for()
    # The icon of the tab and the event stream are apart; the page before has ended too.
    return [(url, size) for url, size in sizes if url and not url.endswith(".icon.svg") and "/methods" not in url]


def test_by_a_slow_network_the_first_methods_come_within_a_second_in_three_requests(
    browser: Browser, shop: str
) -> None:
    times = []
    for _ in range(3):
        with opened(browser, viewport=PHONE, locale="en-GB") as (page, wrong):
            buy(page, shop)
            sizes = loaded(page)
            assert len(sizes) == 3, sizes
            assert sum(size for _, size in sizes) <= BYTES, sizes
            times.append(page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime"))
            assert page.locator(".row.available").count() >= 3
            assert wrong == []
    # The best of three: what a busy machine adds is not the page's.
    assert min(times) <= FIRST_METHODS_MS, times


def response_times_ms(page: Page) -> dict[str, float]:
    """From each touch to the paint that follows it. After the press of "pay" the page stays."""
    page.route("**/pay", lambda route: route.fulfill(status=204))
    page.evaluate(_RESPONSES)
    page.context.new_cdp_session(page).send("Emulation.setCPUThrottlingRate", {"rate": SLOWER_CPU})
    times: dict[str, float] = {}
    for name, selector in TOUCHES.items():
        page.evaluate("responses.length = 0")
        target = page.locator(selector)
        target.scroll_into_view_if_needed()
        box = target.bounding_box()
        assert box is not None
        # Unlike `Locator.tap` it does not wait for the page that a form leads to.
        page.touchscreen.tap(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        page.evaluate(_PAINTED)
        assert page.evaluate("performance.eventCounts.get('pointerup')") == len(times) + 1, name
        times[name] = max(page.evaluate("responses"), default=0.0)
    assert page.evaluate("document.querySelector('#pay .primary').ariaBusy") == "true"
    return times


def test_on_a_slow_processor_each_touch_is_answered_within_200_ms(browser: Browser, fresh_shop: str) -> None:
    tries = []
    for _ in range(3):
        with opened(browser, viewport=PHONE, is_mobile=True, has_touch=True, locale="en-GB") as (page, wrong):
            buy(page, fresh_shop)
            tries.append(response_times_ms(page))
            assert wrong == []
    # The best of three, as above.
    best = {name: min(each[name] for each in tries) for name in TOUCHES}
    assert max(best.values()) <= RESPONSE_MS, tries
