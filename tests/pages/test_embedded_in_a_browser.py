"""The embedded cashier and the pages in a real browser, over a real service and sandbox."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from cashier.sandbox import parse_profile
from tests.pages.embedding_shop import ANY_SHOP, INDONESIA, EmbeddingShop
from tests.support.browser import chromium, opened, violations, wait_for_last_price

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Frame, Locator, Page, Route

pytestmark = [pytest.mark.peers]
OTP = "246810"


@pytest.fixture(scope="module")
def browser(request: pytest.FixtureRequest) -> Iterator[Browser]:
    with chromium(request) as launched:
        yield launched


@pytest.fixture(scope="module")
def running_shop(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddingShop]:
    """With a service for its origin. Without a browser nothing is started."""
    shop = EmbeddingShop()
    with shop.running(tmp_path_factory.mktemp("service")):
        yield shop


@pytest.fixture
def shop(running_shop: EmbeddingShop) -> EmbeddingShop:
    running_shop.open()
    return running_shop


def seen(page: Page, name: str) -> list[Any]:
    return [detail for kind, detail in page.evaluate("window.seen") if kind == name]


def wait_for_event(page: Page, name: str) -> Any:
    page.wait_for_function("name => window.seen.some(([kind]) => kind === name)", arg=name)
    return seen(page, name)[-1]


def choose(cashier: Locator, method_id: str) -> None:
    wait_for_last_price(cashier.page)
    cashier.locator("#others").evaluate("details => { details.open = true }")
    cashier.locator(f"[value='{method_id}']:enabled").check(force=True)


def pay(cashier: Locator, method_id: str) -> None:
    choose(cashier, method_id)
    cashier.locator("#pay .primary").click()


def answer(cashier: Locator, code: str = OTP) -> None:
    frame = cashier.frame_locator("iframe")
    frame.locator("#answer").fill(code)
    frame.locator("form.answer .primary").click()


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
    def faults() -> set[str]:
        page.wait_for_timeout(300)
        return {each.split(":")[0] for each in violations(page)} - {"landmark-one-main"}

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
        assert faults() == {"region"}, "the shop's own heading is in no landmark"
        cashier.locator("[value='WALLET:ALIPAY']").focus()
        tab_to(".primary")
        page.keyboard.press("Enter")
        cashier.get_by_role("link", name="Continue to pay").wait_for()
        assert faults() == {"region"}
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
        assert page.url == f"{shop.cashier}/cashier/{shop.orders[0]}"


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


# The service goes away


def test_a_form_whose_request_fails_at_once_can_be_sent_again(browser: Browser, shop: EmbeddingShop) -> None:
    with opened(browser) as (page, _):
        page.goto(shop.address)
        cashier = page.locator("cashier-methods")
        choose(cashier, "WALLET:ALIPAY")
        page.evaluate("() => { window.working = fetch; window.fetch = () => Promise.reject(new TypeError()); }")
        cashier.locator("#pay .primary").click()
        assert wait_for_event(page, "error")["code"] == "UNAVAILABLE"
        page.evaluate("() => { window.fetch = working; }")
        cashier.locator("#pay .primary:enabled").click()
        cashier.get_by_role("link", name="Continue to pay").wait_for()


def test_a_service_that_is_killed_and_starts_again_finds_the_page_as_it_was(
    browser: Browser, shop: EmbeddingShop
) -> None:
    other = shop.place()
    with opened(browser) as (page, _):
        page.goto(shop.address)
        cashier, in_wallet = (page.locator(f"#{order}") for order in shop.orders)
        pay(in_wallet, "WALLET:ALIPAY")
        in_wallet.get_by_role("link", name="Continue to pay").wait_for()
        choose(cashier, "QUICK_PAY:c_2")
        shop.kill_service()
        cashier.locator("#pay .primary").click()
        assert wait_for_event(page, "error")["code"] == "UNAVAILABLE"
        assert cashier.get_by_role("status").inner_text() == "Still checking. Nothing is lost."
        shop.settle(other)
        shop.start_service()
        in_wallet.get_by_role("heading", name="Paid").wait_for()
        pay(cashier, "QUICK_PAY:c_2")
        cashier.frame_locator("iframe").locator("#answer").wait_for()
        shop.kill_service()
        answer(cashier)
        shop.start_service()
        cashier.frame_locator("iframe").locator("form.answer .primary:enabled").click()
        cashier.get_by_role("heading", name="Paid").wait_for()
        assert [each["outcome"] for each in seen(page, "result") if each["outcome"] != "processing"] == ["paid"] * 2
        assert shop.in_sandbox(shop.world.audit) == []


def places(page: Page) -> list[float]:
    """Where the rows before the fold and the button to pay begin."""
    begin: list[float] = page.evaluate("""() => {
        const root = document.querySelector("cashier-methods").shadowRoot;
        const shown = [...root.querySelectorAll("[data-rows]")][0].querySelectorAll(".row");
        return [...shown, root.getElementById("paybar")].map((each) => each.getBoundingClientRect().top);
    }""")
    return begin


@pytest.mark.parametrize(
    ("source", "payer", "before", "after"),
    [
        ("quota", "u_1", ".row.checking", "[value='QUICK_PAY:c_2']:checked"),
        ("marketing", "u_100007", "#coupons .busy", ".price s"),  # whose coupons no test spends
    ],
)
@pytest.mark.parametrize("width", [360, 1280])
def test_what_a_hanging_source_knows_comes_by_itself(
    browser: Browser, shop: EmbeddingShop, width: int, source: str, payer: str, before: str, after: str
) -> None:
    shop.open(user_id=payer)
    profile = parse_profile(source, {"faults": {"hang": 10_000}}, shop.weather.start(source))
    shop.in_sandbox(lambda: shop.weather.change(source, profile))
    try:
        with opened(browser, viewport={"width": width, "height": 900}) as (page, wrong):
            page.goto(shop.address)
            cashier = page.locator("cashier-methods")
            cashier.locator(before).first.wait_for(state="attached")
            were_at = places(page)
            shop.in_sandbox(lambda: shop.weather.restore(source))
            cashier.locator(after).first.wait_for(state="attached")
            assert places(page) == were_at, "nothing moves under a finger"
            assert wrong == []
            assert seen(page, "error") == []
    finally:
        shop.in_sandbox(shop.weather.restore)


def test_a_page_that_says_so_tries_again_by_itself(browser: Browser, shop: EmbeddingShop) -> None:
    profile = parse_profile("order", {"faults": {"error": 10_000}}, shop.weather.start("order"))
    shop.in_sandbox(lambda: shop.weather.change("order", profile))
    try:
        with opened(browser) as (page, _):
            page.clock.install()
            page.goto(shop.address)
            page.get_by_text("The page tries again by itself.").wait_for()
            shop.in_sandbox(lambda: shop.weather.restore("order"))
            page.clock.run_for(10_000)
            page.locator("cashier-methods").get_by_role("radio").first.wait_for()
    finally:
        shop.in_sandbox(shop.weather.restore)


def test_a_time_that_ends_is_asked_about_once_however_slow_the_service(browser: Browser, shop: EmbeddingShop) -> None:
    with opened(browser) as (page, _):
        page.clock.install()
        page.goto(shop.address)
        wait_for_last_price(page)
        page.evaluate(
            """() => {
              window.asked = 0;
              window.fetch = (url) => {
                window.asked += /\\/cashier-embed\\/[^/]+$/.test(url.pathname);
                return new Promise(() => {});
              };
            }"""
        )
        page.clock.fast_forward("02:00:01")
        page.clock.run_for(6_000)
        assert page.evaluate("window.asked") == 1


# What payers see


def tab(page: Page, is_there: str, frame: Frame | None = None) -> None:
    """Press Tab until the focus is there. `is_there`: a selector, in the element or the frame."""
    for _ in range(60):
        page.keyboard.press("Tab")
        if frame is None:
            cashier = page.locator("cashier-methods")
            if cashier.locator(is_there).evaluate("element => element.matches(':focus')"):
                return
        elif frame.locator(is_there).evaluate("element => element.matches(':focus') && document.hasFocus()"):
            return
    raise AssertionError(is_there)


def test_in_arabic_by_the_keyboard_only(browser: Browser, shop: EmbeddingShop) -> None:
    shop.locale = "ar"
    with opened(browser, viewport={"width": 360, "height": 740}) as (page, wrong):
        page.goto(shop.address)
        cashier = page.locator("cashier-methods")
        heading = cashier.get_by_role("heading").first
        heading.wait_for()
        assert heading.evaluate("heading => getComputedStyle(heading).direction") == "rtl"
        assert heading.evaluate("heading => heading.closest('[lang]').lang") == "ar"
        cashier.locator("[value='QUICK_PAY:c_2']:enabled").wait_for(state="attached")
        tab(page, "[name=method]:checked")
        page.keyboard.press("ArrowDown")
        page.keyboard.press("ArrowUp")
        assert cashier.locator("[name=method]:checked").get_attribute("value") == "QUICK_PAY:c_2"
        tab(page, "#pay .primary")
        page.keyboard.press("Enter")
        cashier.frame_locator("iframe").locator("#answer").wait_for()
        frame = next(frame for frame in page.frames if frame.parent_frame is not None)
        assert frame.locator("html").get_attribute("dir") == "rtl"
        tab(page, "#answer", frame)
        page.keyboard.type(OTP)
        page.keyboard.press("Enter")
        cashier.get_by_role("heading", name="تم الدفع").wait_for()
        assert wrong == []


def test_a_code_to_scan_is_shown_until_it_is_paid(browser: Browser, shop: EmbeddingShop) -> None:
    shop.open(**ANY_SHOP)
    shop.terminal = "PC"
    with opened(browser) as (page, wrong):
        page.goto(shop.address)
        cashier = page.locator("cashier-methods")
        pay(cashier, "MERCHANT_QR:ALIPAY")
        cashier.locator(".qr svg").wait_for()
        assert cashier.locator(".qr svg").evaluate("svg => svg.getBoundingClientRect().width") > 150
        shop.settle()
        cashier.get_by_role("heading", name="Paid").wait_for()
        assert wrong == []


def test_an_account_number_is_copied_and_a_code_shown(browser: Browser, shop: EmbeddingShop) -> None:
    shop.open(**INDONESIA)
    with opened(browser, permissions=["clipboard-read", "clipboard-write"]) as (page, wrong):
        page.goto(shop.address)
        cashier = page.locator("cashier-methods")
        choose(cashier, "VA")
        cashier.locator("[value='BCA']:enabled").check(force=True)
        cashier.locator("#pay .primary").click()
        copying = cashier.locator("[data-copy]").first
        copying.click()
        assert page.evaluate("navigator.clipboard.readText()") == copying.get_attribute("data-copy")
        cashier.locator("form[action$='/replace'] button").click()
        choose(cashier, "OTC")
        cashier.locator("[value='ALFAMART']:enabled").check(force=True)
        cashier.locator("#pay .primary").click()
        cashier.locator("[data-view=action]").get_by_text("Alfamart").first.wait_for()
        shop.settle()
        # The acquirer is asked about a counter's payment now and then only. It may just have been.
        cashier.locator("form[action$='/payment'] button").evaluate_all("found => found.forEach((it) => it.click())")
        cashier.get_by_role("heading", name="Paid").wait_for()
        assert wrong == []


def test_a_payer_comes_back_from_the_bank_into_the_shops_page(browser: Browser, shop: EmbeddingShop) -> None:
    with opened(browser) as (page, _):
        page.goto(shop.address)
        cashier = page.locator("cashier-methods")
        pay(cashier, "WALLET:ALIPAY")
        cashier.get_by_role("link", name="Continue to pay").click()
        page.wait_for_url("**/bank/**")
        page.locator("button.primary").click()
        page.wait_for_url("**/return?state=*")
        page.get_by_role("heading", name="Paid").wait_for()
        page.locator("main").get_by_role("link", name="Back to the shop").click()
        page.wait_for_url(f"{shop.address}/")
        cashier.get_by_role("heading", name="Paid").wait_for()
        assert wait_for_event(page, "result")["outcome"] == "paid"


# What a shop does


def policy_of(shop: EmbeddingShop, *, frames: bool = True) -> str:
    """What README.md names, and nothing else."""
    framed = f" frame-src {shop.cashier};" if frames else ""
    return (
        f"default-src 'none'; script-src 'self' {shop.cashier}; connect-src {shop.cashier};{framed} img-src data:;"
        " require-trusted-types-for 'script'; trusted-types 'none'"
    )


def test_a_payment_is_made_under_a_strict_policy_of_the_shop(browser: Browser, shop: EmbeddingShop) -> None:
    shop.policy = policy_of(shop)
    with opened(browser) as (page, wrong):
        page.goto(shop.address)
        cashier = page.locator("cashier-methods")
        cashier.get_by_role("radio").first.wait_for()
        assert cashier.locator(".card").first.evaluate("card => getComputedStyle(card).borderTopLeftRadius") != "0px"
        pay(cashier, "QUICK_PAY:c_2")
        answer(cashier)
        cashier.get_by_role("heading", name="Paid").wait_for()
        assert wrong == []


def test_where_a_policy_keeps_the_frame_out_the_link_comes_back(browser: Browser, shop: EmbeddingShop) -> None:
    shop.policy = policy_of(shop, frames=False)
    with opened(browser) as (page, _):
        page.clock.install()
        page.goto(shop.address)
        cashier = page.locator("cashier-methods")
        pay(cashier, "QUICK_PAY:c_2")
        cashier.locator("iframe").wait_for()
        page.clock.fast_forward(10_000)
        page.get_by_role("link", name="Pay on the secure page").click()
        page.locator("#others").wait_for()
        pay(page.locator("main"), "QUICK_PAY:c_2")
        page.locator("#answer").fill(OTP)
        page.locator("form.answer .primary").click()
        page.get_by_role("heading", name="Paid").wait_for()


def test_the_script_may_be_blocked(browser: Browser, shop: EmbeddingShop) -> None:
    with opened(browser) as (page, _):
        page.route("**/cashier.js", lambda route: route.abort())
        page.goto(shop.address)
        page.get_by_role("link", name="Pay on the secure page").click()
        page.get_by_role("radio").first.wait_for()


def test_a_session_that_is_over_goes_on_with_a_renewed_link(browser: Browser, shop: EmbeddingShop) -> None:
    with opened(browser) as (page, _):
        page.goto(shop.address)
        cashier = page.locator("cashier-methods")
        pay(cashier, "WALLET:ALIPAY")
        cashier.get_by_role("link", name="Continue to pay").wait_for()
        # As after hours: neither the session that is kept nor the link of the page is valid.
        page.evaluate("""() => {
            const key = Object.keys(sessionStorage).find((name) => name.startsWith("cashier http"));
            const kept = JSON.parse(sessionStorage.getItem(key));
            sessionStorage.setItem(key, JSON.stringify({ ...kept, session: "over" }));
            const link = document.querySelector("cashier-methods a");
            link.href = link.href.replace(/token=.*/, "token=over");
        }""")
        assert wait_for_event(page, "error") == {"code": "SESSION_EXPIRED"}
        page.evaluate("link => { document.querySelector('cashier-methods a').href = link }", shop.link(shop.orders[0]))
        cashier.get_by_role("link", name="Continue to pay").wait_for()
        shop.settle()
        cashier.get_by_role("heading", name="Paid").wait_for()


@pytest.mark.parametrize("in_place", [True, False])
def test_an_order_of_another_amount_goes_on_with_its_new_link(
    browser: Browser, shop: EmbeddingShop, in_place: bool
) -> None:
    """The session that the script keeps is for the amount before."""
    shop.names_amount = True
    (order_id,) = shop.orders
    with opened(browser) as (page, wrong):
        page.goto(shop.address)
        cashier = page.locator("cashier-methods")
        cashier.get_by_role("radio").first.wait_for()
        shop.reprice(order_id, 13_900)
        if in_place:
            page.evaluate("link => { document.querySelector('cashier-methods a').href = link }", shop.link(order_id))
        else:
            page.reload()
        cashier.locator("#pay").wait_for()
        assert "139.00" in (cashier.locator(".order").text_content() or "")
        pay(cashier, "QUICK_PAY:c_2")
        answer(cashier)
        cashier.get_by_role("heading", name="Paid").wait_for()
        page.reload()
        cashier.get_by_role("heading", name="Paid").wait_for()
        assert wrong == []


def test_two_elements_of_one_page_are_two_orders(browser: Browser, shop: EmbeddingShop) -> None:
    shop.place()
    with opened(browser) as (page, wrong):
        page.goto(shop.address)
        first, second = (page.locator(f"#{order}") for order in shop.orders)
        choose(first, "WALLET:ALIPAY")
        choose(second, "QUICK_PAY:c_2")
        assert first.locator("[name=method]:checked").get_attribute("value") == "WALLET:ALIPAY"
        second.locator("#pay .primary").click()
        answer(second)
        second.get_by_role("heading", name="Paid").wait_for()
        first.locator("#pay .primary").click()
        first.get_by_role("link", name="Continue to pay").wait_for()
        shop.settle()
        first.get_by_role("heading", name="Paid").wait_for()
        assert wrong == []
        page.reload()
        for cashier in (first, second):
            cashier.get_by_role("heading", name="Paid").wait_for()


def test_an_element_that_is_moved_pays_once(browser: Browser, shop: EmbeddingShop) -> None:
    with opened(browser) as (page, wrong):
        page.goto(shop.address)
        cashier = page.locator("cashier-methods")
        cashier.get_by_role("radio").first.wait_for()
        for _ in range(2):
            page.evaluate("""() => {
                const element = document.querySelector("cashier-methods");
                element.remove();
                document.body.prepend(element);
            }""")
        submits: list[str] = []
        page.on("request", lambda sent: submits.append(sent.url) if sent.url.endswith("/pay") else None)
        pay(cashier, "QUICK_PAY:c_2")
        answer(cashier)
        cashier.get_by_role("heading", name="Paid").wait_for()
        assert len(submits) == 1
        assert len(seen(page, "submit")) == 1
        assert wrong == []


def test_it_works_within_another_element_that_gets_it_before_its_link(browser: Browser, shop: EmbeddingShop) -> None:
    """As frameworks do."""
    with opened(browser) as (page, wrong):
        page.goto(shop.address)
        page.evaluate("""() => {
            const link = document.querySelector("cashier-methods a");
            document.querySelector("cashier-methods").remove();
            const outer = document.body.appendChild(document.createElement("div"));
            const inner = outer.attachShadow({ mode: "open" }).appendChild(document.createElement("cashier-methods"));
            setTimeout(() => inner.append(link), 50);
        }""")
        cashier = page.locator("cashier-methods")
        pay(cashier, "QUICK_PAY:c_2")
        answer(cashier)
        cashier.get_by_role("heading", name="Paid").wait_for()
        assert [kind for kind, _ in page.evaluate("window.seen")].count("submit") == 1, "events leave both"
        assert wrong == []
