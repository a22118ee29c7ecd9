"""The script of the pages in a real browser, over an application that does what a test says."""

from __future__ import annotations

import gzip
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

import pytest

from cashier.pages.scripts import scripts
from tests.pages.script_server import ScriptServer, at, checkout, row
from tests.support.browser import chromium, opened

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.peers]

_SHIFTS = """
window.shifts = 0;
new PerformanceObserver((list) => { for (const entry of list.getEntries()) window.shifts += entry.value; })
  .observe({ type: "layout-shift", buffered: true });
"""
_VISIBILITY = """
window.pretendHidden = (hidden) => {
  Object.defineProperty(document, "hidden", { configurable: true, get: () => hidden });
  document.dispatchEvent(new Event("visibilitychange"));
};
"""
# The driver's clock does not go on beyond a navigation.
_FAST = """
const [timeout, interval, now, opened] = [setTimeout, setInterval, Date.now, Date.now()];
window.setTimeout = (call, ms) => timeout(call, ms / 10);
window.setInterval = (call, ms) => interval(call, ms / 10);
Date.now = () => opened + 10 * (now() - opened);
"""


@pytest.fixture(scope="module")
def browser(request: pytest.FixtureRequest) -> Iterator[Browser]:
    with chromium(request) as launched:
        yield launched


@pytest.fixture(scope="module")
def running() -> Iterator[tuple[ScriptServer, str]]:
    server = ScriptServer()
    with server.running() as address:
        yield server, address


@pytest.fixture
def server(running: tuple[ScriptServer, str]) -> Iterator[ScriptServer]:
    server, _ = running
    server.reset()
    yield server
    server.hold = False
    server.cut()


@pytest.fixture
def address(running: tuple[ScriptServer, str]) -> str:
    return running[1]


def until(condition: Callable[[], bool], page: Page) -> None:
    """The driver runs while the page waits."""
    for _ in range(600):
        if condition():
            return
        page.wait_for_timeout(50)
    raise AssertionError("it did not happen")


def open_followed(page: Page, server: ScriptServer, address: str) -> None:
    page.goto(address)
    until(lambda: server.readers > 0, page)


def order_of_rows(page: Page) -> Any:
    return page.evaluate("[...document.querySelectorAll('.row')].map((row) => row.id)")


def status(page: Page) -> str:
    return page.locator("#status").inner_text()


def test_rows_improve_where_they_are_and_keep_focus_and_choice(
    browser: Browser, server: ScriptServer, address: str
) -> None:
    server.content = checkout(row("a", state="checked"), row("b", state="disabled"), rest=(row("c"),))
    with opened(browser) as (page, wrong):
        page.add_init_script(_SHIFTS)
        open_followed(page, server, address)
        page.locator("#a-pick").check()
        page.locator("#a-pick").focus()
        page.evaluate("window.first = document.getElementById('a')")
        page.wait_for_timeout(600)  # a shift so soon after an input does not count
        server.show(
            checkout(row("b"), row("d", state="checked"), row("a", amount="¥9.00"), rest=(row("c"), row("e", "VA")))
        )
        page.get_by_text("a ¥9.00").wait_for()
        assert order_of_rows(page) == ["a", "b", "c", "d", "e"]
        assert page.evaluate("document.getElementById('a') === window.first")
        assert page.evaluate("document.activeElement.id") == "a-pick"
        assert page.locator("#a-pick").is_checked()
        assert page.locator("#b-pick").is_enabled()
        assert page.get_by_role("button", name="Pay ¥9.00").is_visible()
        assert page.evaluate("window.shifts") < 0.001, "text that gets shorter is no shift"
        assert wrong == []


def test_a_row_takes_the_place_of_the_one_it_replaces(browser: Browser, server: ScriptServer, address: str) -> None:
    server.content = checkout(row("cards", "QUICK_PAY", state="disabled"), row("b", "VA"))
    with opened(browser) as (page, wrong):
        open_followed(page, server, address)
        server.show(checkout(row("b", "VA"), row("c_1", "QUICK_PAY"), rest=(row("c_2", "QUICK_PAY"),)))
        page.locator("#c_1").wait_for()
        assert order_of_rows(page) == ["c_1", "b", "c_2"]
        assert page.locator("#c_2").is_hidden(), "the rest is folded"
        assert wrong == []


def test_the_first_rows_come_in_the_order_of_the_server_with_its_choice(
    browser: Browser, server: ScriptServer, address: str
) -> None:
    with opened(browser) as (page, wrong):
        open_followed(page, server, address)
        server.show(checkout(row("a"), row("b", amount="¥7.00", state="checked"), rest=(row("c"),)))
        page.locator("#a").wait_for()
        assert order_of_rows(page) == ["a", "b", "c"]
        assert page.locator("#b-pick").is_checked()
        assert page.get_by_role("button", name="Pay ¥7.00").is_visible()
        assert wrong == []


def test_what_was_said_after_a_press_stays_and_so_does_the_choice(
    browser: Browser, server: ScriptServer, address: str
) -> None:
    def notice(text: str) -> str:
        return f'<div id="notice"{"" if text else " hidden"}>{text}</div>'

    server.content = checkout(row("a"), row("b"), before=notice("The price has changed."))
    with opened(browser) as (page, wrong):
        page.goto(address)
        page.locator("#b-pick").check()
        for text, shown in (("", "The price has changed."), ("A card is entered.", "A card is entered.")):
            server.show(checkout(row("a"), row("b", amount=f"¥{len(text)}.00"), before=notice(text)))
            page.get_by_text(f"b ¥{len(text)}.00").wait_for()
            assert page.get_by_text(shown).is_visible()
            assert page.locator("#b-pick").is_checked()
        assert wrong == []


def test_what_an_update_says_that_it_knows_is_followed_next(
    browser: Browser, server: ScriptServer, address: str
) -> None:
    server.live = "/events?missing=marketing"
    server.content = checkout(row("a"))
    with opened(browser) as (page, _):
        page.goto(address)
        page.get_by_text("a ¥10.00").wait_for()
        server.live = "/events?missing="
        server.show(checkout(row("a", amount="¥8.00")))
        page.get_by_text("a ¥8.00").wait_for()
        page.evaluate("dispatchEvent(new Event('online'))")
        until(lambda: server.followed[-1] == "/events?missing=", page)


def test_a_choice_that_is_refused_is_given_up_and_said(browser: Browser, server: ScriptServer, address: str) -> None:
    server.content = checkout(row("a"), row("b"))
    with opened(browser) as (page, wrong):
        open_followed(page, server, address)
        page.locator("#a-pick").check()
        server.show(checkout(row("a", state="disabled"), row("b", state="checked")))
        page.get_by_text("Choose again").wait_for()
        assert not page.locator("#a-pick").is_checked()
        assert not page.locator("#b-pick").is_checked(), "the payer chooses"
        assert page.evaluate("document.activeElement.id") == "a-pick", "the focus stays"
        page.locator("#b-pick").check()
        assert page.locator("#a-pick").is_disabled()
        assert status(page) == ""
        assert wrong == []


def test_the_details_of_a_choice_that_comes_late_open_once_it_is_touched(
    browser: Browser, server: ScriptServer, address: str
) -> None:
    server.content = checkout(row("a", state="checking"), row("b"))
    with opened(browser) as (page, wrong):
        open_followed(page, server, address)
        server.show(checkout(row("a", state="checked"), row("b")))
        page.locator("#a-pick:checked").wait_for()
        assert page.locator("#a").get_attribute("data-folded") == ""
        page.locator("label[for=a-pick]").click()
        assert page.locator("#a").get_attribute("data-folded") is None
        assert wrong == []


@pytest.mark.parametrize("preferred", ["", "checked"])
def test_where_only_folded_rows_can_be_chosen_a_press_unfolds_them(
    browser: Browser, server: ScriptServer, address: str, preferred: str
) -> None:
    """Else the press does nothing, or pays by a method that is not in view."""

    def shown(state: str, rest: str) -> str:
        rows = checkout(row("a", state=state), row("b", state=state), rest=(row("c", state=rest), row("d", state=rest)))
        return rows.replace('type="radio"', 'type="radio" required')

    server.content = shown("checking", "checking")
    with opened(browser) as (page, wrong):
        open_followed(page, server, address)
        server.show(shown("disabled", "").replace('data-amount="¥10.00">', f'data-amount="¥10.00" {preferred}>', 1))
        page.locator("#c-pick:enabled").wait_for(state="attached")
        assert page.locator("#others").get_attribute("open") is None, "nothing moves by itself"
        page.locator("#pay button").click()
        page.locator("#c-pick:focus").wait_for()
        assert page.locator("#c-pick").is_visible()
        assert (server.sent, wrong) == ([], [])
        page.locator("#c-pick").check()
        page.locator("#pay button").click()
        page.get_by_role("heading", name="Paid").wait_for()


def test_a_choice_that_is_being_checked_comes_back(browser: Browser, server: ScriptServer, address: str) -> None:
    server.content = checkout(row("a"), row("b", state="checked"))
    with opened(browser) as (page, _):
        open_followed(page, server, address)
        page.locator("#a-pick").check()
        server.show(checkout(row("a", state="checking", amount="¥9.00"), row("b", state="checked")))
        page.get_by_text("a ¥9.00").wait_for()
        assert not page.locator("#b-pick").is_checked()
        assert status(page) == ""
        page.locator("#b-pick").focus()
        server.show(checkout(row("a", amount="¥8.00"), row("b", state="checked")))
        page.get_by_text("a ¥8.00").wait_for()
        assert page.locator("#a-pick").is_checked()


def test_a_row_that_is_gone_keeps_its_place_and_cannot_be_chosen(
    browser: Browser, server: ScriptServer, address: str
) -> None:
    server.content = checkout(row("a"), row("b"), rest=(row("c"),))
    with opened(browser) as (page, _):
        open_followed(page, server, address)
        server.show(checkout(row("b", amount="¥2.00")))
        page.get_by_text("b ¥2.00").wait_for()
        assert order_of_rows(page) == ["a", "b"]
        assert page.locator("#a-pick").is_disabled()


def test_an_option_has_the_last_word_on_the_amount_within_its_method(
    browser: Browser, server: ScriptServer, address: str
) -> None:
    options = (
        '<input type="radio" id="three" name="plan" data-amount="¥10.30">'
        '<input type="radio" id="six" name="plan" data-amount="¥10.60" checked>'
    )
    server.content = checkout(row("a"), row("plan", "INSTALMENT", more=options))
    server.live = None
    with opened(browser) as (page, _):
        page.goto(address)
        page.locator("#a-pick").check()
        assert page.get_by_role("button", name="Pay ¥10.00").is_visible()
        page.locator("#plan-pick").check()
        assert page.get_by_role("button", name="Pay ¥10.60").is_visible()
        page.locator("#three").check()
        assert page.get_by_role("button", name="Pay ¥10.30").is_visible()


def test_typed_text_and_opened_details_are_kept(browser: Browser, server: ScriptServer, address: str) -> None:
    content = '<h1>One</h1><input id="answer" value=""><details id="d"><summary>More</summary>x</details>'
    server.content, server.view = content, "challenge"
    with opened(browser) as (page, _):
        open_followed(page, server, address)
        page.locator("#answer").fill("12")
        page.locator("summary").click()
        page.locator("#answer").focus()
        server.show(content.replace("One", "Two"), "challenge")
        page.get_by_role("heading", name="Two").wait_for()
        page.keyboard.type("3")
        assert page.locator("#answer").input_value() == "123"
        assert page.locator("#d").get_attribute("open") is not None


def test_another_kind_of_page_loads_the_page_again(browser: Browser, server: ScriptServer, address: str) -> None:
    server.content = checkout(row("a"))
    with opened(browser) as (page, wrong):
        open_followed(page, server, address)
        server.content, server.view, server.live = "<h1>Paid</h1>", "result", None
        server.show("<h1>Never shown</h1>", "result")
        page.get_by_role("heading", name="Paid").wait_for()
        assert server.loads == 2
        assert wrong == []


def test_a_page_and_a_stream_that_disagree_do_not_turn_round_and_round(
    browser: Browser, server: ScriptServer, address: str
) -> None:
    with opened(browser) as (page, _):
        open_followed(page, server, address)
        until(lambda: server.show("", "result") is not None and server.loads > 1, page)
        until(lambda: server.readers > 0, page)
        started, before = time.monotonic(), server.loads
        until(lambda: server.show("", "result") is not None and server.loads > before, page)
        assert time.monotonic() - started > 1.5


@pytest.mark.parametrize(
    "hostile",
    [
        "<script>window.hacked = 1</script>",
        '<img src="/nothing" onerror="window.hacked = 1">',
        '<a href="javascript:window.hacked=1">x</a>',
        '<iframe src="/"></iframe>',
        "<p>unclosed",
        "<p class=plain>x</p>",
        "</p>",
    ],
)
def test_html_that_no_template_writes_changes_nothing(
    browser: Browser, server: ScriptServer, address: str, hostile: str
) -> None:
    server.content = checkout(row("a"))
    with opened(browser) as (page, wrong):
        open_followed(page, server, address)
        server.show(f"{hostile}<h1>Shown</h1>")
        until(lambda: bool(wrong), page)
        assert page.locator("#a").is_visible()
        assert page.get_by_text("Shown").count() == 0
        wrong.clear()
        server.show("<h1>Well &lt;b&gt; &amp; &#34;good&#34;</h1>")
        page.get_by_role("heading", name='Well <b> & "good"').wait_for()
        assert page.evaluate("window.hacked") is None


def test_a_drawing_is_built_as_one(browser: Browser, server: ScriptServer, address: str) -> None:
    with opened(browser) as (page, wrong):
        open_followed(page, server, address)
        server.show('<svg viewBox="0 0 8 8" width="80"><path d="M0 0h8v8H0z"/></svg><noscript><p>no</p></noscript>')
        page.locator("svg path").wait_for()
        assert page.evaluate("document.querySelector('path').getBBox().width") == 8
        assert page.get_by_text("no").count() == 0
        assert wrong == []


def test_a_form_is_sent_once_and_its_button_recovers(browser: Browser, server: ScriptServer, address: str) -> None:
    server.content, server.hold = checkout(row("a", state="checked")), True
    with opened(browser) as (page, _):
        open_followed(page, server, address)
        # The driver would wait for the navigation, so the page itself says how it looks meanwhile.
        look = page.evaluate(
            """async () => {
              const form = document.getElementById("pay");
              for (const _ of [1, 2, 3]) form.requestSubmit();
              await new Promise((resolve) => setTimeout(resolve, 50));
              const button = form.querySelector("button");
              return [button.disabled, button.ariaBusy];
            }"""
        )
        assert look == [True, "true"]
        server.hold = False
        page.get_by_role("heading", name="Paid").wait_for()
        assert len(server.sent) == 1
        page.go_back()
        page.get_by_role("button", name="Pay ¥10.00").wait_for()
        assert page.locator("#pay button").is_enabled()
        page.evaluate("dispatchEvent(new PageTransitionEvent('pageshow', { persisted: true }))")
        page.locator("#pay button").click()
        page.get_by_role("heading", name="Paid").wait_for()
        assert len(server.sent) == 2


def test_the_countdown_runs_by_the_clock_of_the_server(browser: Browser, server: ScriptServer, address: str) -> None:
    server.content, server.live = (
        f'<time data-expires-at="{at(125)}"></time><time data-expires-at="{at(2e5)}"></time>',
        None,
    )
    with opened(browser) as (page, _):
        page.add_init_script("const real = Date.now; Date.now = () => real() + 3600000;")
        page.goto(address)
        page.get_by_text("2:0").wait_for()
        assert page.locator("time").last.inner_text() == "", "days are no countdown"


def test_long_times_are_said_in_hours_and_minutes(browser: Browser, server: ScriptServer, address: str) -> None:
    ends = (at(86_000), at(3_700), at(1_799), at(545))
    server.content, server.live = "".join(f'<time data-expires-at="{end}"></time>' for end in ends), None
    with opened(browser) as (page, _):
        page.goto(address)
        hours, hour, minutes, seconds = page.locator("time").all_inner_texts()
        assert (hours, hour, minutes) == ("23 h 53 min left", "1 h 1 min left", "29 min left")
        assert seconds.startswith("9:0")


def test_a_page_that_waits_is_loaded_again_by_itself(browser: Browser, server: ScriptServer, address: str) -> None:
    server.content, server.live, server.reload_after_s = "<h1>Still checking</h1>", None, 5
    with opened(browser) as (page, _):
        page.clock.install()
        page.goto(address)
        server.content, server.reload_after_s = "<h1>Here it is</h1>", 0
        page.clock.run_for(4_900)
        assert server.loads == 1
        page.clock.run_for(6_000)
        page.get_by_role("heading", name="Here it is").wait_for()


@pytest.mark.parametrize("is_over", [False, True])
def test_without_a_network_a_page_keeps_what_it_shows_and_is_loaded_again_with_one(
    browser: Browser, server: ScriptServer, address: str, is_over: bool
) -> None:
    server.content, server.live = "<h1>Still checking</h1>", None
    if is_over:
        server.content += f'<time data-expires-at="{at(5)}"></time>'
    else:
        server.reload_after_s = 5
    with opened(browser) as (page, _):
        page.add_init_script(_FAST)
        page.goto(address)
        page.context.set_offline(True)
        page.evaluate("new Promise((resolve) => setTimeout(resolve, 20000))")
        assert page.get_by_role("heading", name="Still checking").is_visible()
        server.content, server.reload_after_s = "<h1>Here it is</h1>", 0
        page.context.set_offline(False)
        page.get_by_role("heading", name="Here it is").wait_for()
        assert server.loads == 2


def test_a_page_that_waits_is_not_loaded_in_the_place_of_an_answer(
    browser: Browser, server: ScriptServer, address: str
) -> None:
    server.content, server.live = '<form id="pay" method="post" action="/pay"></form>', None
    server.reload_after_s = 5
    with opened(browser) as (page, _):
        page.clock.install()
        page.goto(address)
        # The driver would wait for the navigation of a form that is really sent.
        page.evaluate("document.getElementById('pay').dataset.sent = ''")
        page.clock.run_for(30_000)
        assert server.loads == 1
        server.content, server.reload_after_s = "<h1>Here it is</h1>", 0
        page.evaluate("delete document.getElementById('pay').dataset.sent")
        page.clock.run_for(12_000)
        page.get_by_role("heading", name="Here it is").wait_for()


def test_the_heading_of_refused_methods_is_there_while_one_is_refused(
    browser: Browser, server: ScriptServer, address: str
) -> None:
    heading = "<h2 data-heads hidden>Not now</h2>"
    server.content = f'{heading}<ul><li class="row unavailable">A card</li></ul>{heading}<ul></ul>'
    with opened(browser) as (page, _):
        page.goto(address)
        page.get_by_role("heading", name="Not now").wait_for()
        assert page.locator("h2").last.is_hidden()


def test_the_end_is_announced_before_and_loads_the_page_again(
    browser: Browser, server: ScriptServer, address: str
) -> None:
    server.content = f'<time data-expires-at="{at(64)}"></time><p data-warn-before="60" hidden>A minute is left</p>'
    server.live = None
    with opened(browser) as (page, _):
        page.clock.install()
        page.goto(address)
        assert status(page) == ""
        assert page.locator("[data-warn-before]").is_hidden()
        page.clock.run_for(10_000)
        assert status(page) == "A minute is left"
        assert page.locator("[data-warn-before]").is_visible()
        server.content = "<h1>Expired</h1>"
        page.clock.run_for(60_000)
        page.get_by_role("heading", name="Expired").wait_for()
        assert server.loads == 2


def test_a_value_is_copied(browser: Browser, server: ScriptServer, address: str) -> None:
    server.content = (
        '<button type="button" data-copy="6222 0210" data-copied-text="Copied" hidden>'
        "<span data-label>Copy</span></button>"
    )
    server.live = None
    with opened(browser, permissions=["clipboard-read", "clipboard-write"]) as (page, wrong):
        page.goto(address)
        page.get_by_role("button", name="Copy").click()
        page.get_by_role("button", name="Copied").wait_for()
        assert status(page) == "Copied"
        assert page.evaluate("navigator.clipboard.readText()") == "6222 0210"
        assert wrong == []


@pytest.mark.parametrize(
    ("pasted", "code"),
    [(" 123 456 ", "123456"), ("12-34\u201356", "123456"), ("١٢٣٤٥٦", "123456"), ("１２３４５６", "123456")],
)
def test_a_code_is_pasted_as_it_was_copied(
    browser: Browser, server: ScriptServer, address: str, pasted: str, code: str
) -> None:
    server.content, server.live = '<input id="answer" autocomplete="one-time-code" maxlength="6">', None
    with opened(browser, permissions=["clipboard-read", "clipboard-write"]) as (page, _):
        page.goto(address)
        page.evaluate("(text) => navigator.clipboard.writeText(text)", pasted)
        page.locator("#answer").focus()
        page.keyboard.press("Control+V")
        assert page.locator("#answer").input_value() == code


def test_a_code_can_be_sent_again_after_a_while(browser: Browser, server: ScriptServer, address: str) -> None:
    server.content = '<button data-enable-after="5">Send a new code <span data-wait></span></button>'
    server.live = None
    with opened(browser) as (page, _):
        page.clock.install()
        page.goto(address)
        button = page.get_by_role("button")
        assert button.is_disabled()
        assert button.inner_text().startswith("Send a new code 0:0")
        page.clock.run_for(6_000)
        assert button.is_enabled()
        assert button.inner_text().strip() == "Send a new code"


def test_without_events_the_page_asks_again_and_again(browser: Browser, server: ScriptServer, address: str) -> None:
    server.stream, server.view = "silent", "action"
    server.content = "<h1>Waiting</h1>"
    with opened(browser) as (page, _):
        page.clock.install()
        page.goto(address)
        until(lambda: len(server.followed) == 1, page)
        server.show("<h1>Still waiting</h1>", "action")
        for _ in range(4):
            page.clock.run_for(10_000)
            page.wait_for_timeout(50)
        page.get_by_role("heading", name="Still waiting").wait_for()
        assert len(server.followed) <= 3
        server.update = {**(server.update or {}), "html": server.main("<h1>Done</h1>", "action"), "poll_after_ms": None}
        page.clock.run_for(5_000)
        page.get_by_role("heading", name="Done").wait_for()
        asked = len(server.asked)
        page.clock.run_for(60_000)
        page.wait_for_timeout(100)
        assert len(server.asked) == asked, "nothing follows"


def test_a_lost_network_is_no_failure_and_is_made_up_for(browser: Browser, server: ScriptServer, address: str) -> None:
    server.content, server.view = "<h1>Waiting</h1>", "action"
    with opened(browser) as (page, _):
        open_followed(page, server, address)
        server.stream = "refused"
        server.cut()
        page.get_by_text("Still checking").wait_for()
        assert page.get_by_role("heading", name="Waiting").is_visible()
        server.show("<h1>Here</h1>", "action")
        page.get_by_role("heading", name="Here").wait_for()
        assert status(page) == "Here", "news is announced"
        assert page.title() == "Now action"


def test_a_form_is_not_sent_into_a_lost_network(browser: Browser, server: ScriptServer, address: str) -> None:
    server.content = checkout(row("a", state="checked"))
    with opened(browser) as (page, _):
        open_followed(page, server, address)
        page.context.set_offline(True)
        page.locator("#pay button").click()
        page.get_by_text("Still checking").wait_for()
        assert page.locator("#pay button").is_enabled()
        page.context.set_offline(False)
        until(lambda: bool(page.evaluate("navigator.onLine")), page)
        page.locator("#pay button").click()
        page.get_by_role("heading", name="Paid").wait_for()
        assert len(server.sent) == 1


def test_a_hidden_page_asks_nothing_and_a_shown_one_at_once(
    browser: Browser, server: ScriptServer, address: str
) -> None:
    with opened(browser) as (page, _):
        page.add_init_script(_VISIBILITY)
        open_followed(page, server, address)
        page.evaluate("pretendHidden(true)")
        until(lambda: server.show("<p>x</p>") is not None and server.readers == 0, page)
        assert len(server.followed) == 1
        page.evaluate("pretendHidden(false)")
        until(lambda: server.readers == 1, page)
        assert len(server.followed) == 2


def test_an_ended_stream_is_followed_again_only_if_something_can_change(
    browser: Browser, server: ScriptServer, address: str
) -> None:
    with opened(browser) as (page, _):
        open_followed(page, server, address)
        server.end(retry_ms=100)
        until(lambda: server.opened == 2, page)
        server.end()
        until(lambda: server.readers == 0, page)
        page.wait_for_timeout(1_500)
        assert len(server.followed) == 2
        assert server.asked == []


def test_a_choice_of_coupons_changes_prices_in_place(browser: Browser, server: ScriptServer, address: str) -> None:
    coupons = (
        '<form id="coupons" method="get" action="/" data-reprice="/methods" data-none="coupons=none">'
        '<input type="checkbox" id="p1" name="coupon" value="p_1" checked>'
        '<input type="checkbox" id="p2" name="coupon" value="p_2"><button data-apply>Apply</button></form>'
    )
    server.content = checkout(row("a", state="checked"), before=coupons)
    server.live = None
    with opened(browser) as (page, wrong):
        page.goto(address)
        assert page.get_by_role("button", name="Apply").count() == 0
        page.locator("#p2").check()
        until(lambda: server.readers == 1, page)
        assert server.followed == ["/methods?coupon=p_1&coupon=p_2"]
        server.show(checkout(row("a", amount="¥8.00"), before=coupons))
        page.get_by_role("button", name="Pay ¥8.00").wait_for()
        assert page.locator("#p2").is_checked()
        assert page.url.endswith("/?coupon=p_1&coupon=p_2"), "a reload keeps the choice"
        page.locator("#p1").uncheck()
        page.locator("#p2").uncheck()
        until(lambda: server.followed[-1] == "/methods?coupons=none", page)
        assert wrong == []


@pytest.mark.parametrize(
    ("before", "pressed", "sent"),
    [
        ("", ["p1"], [("coupon", "p_2")]),
        ("", ["p1", "p2"], [("coupons", "none")]),
        ("coupons=none", ["p1", "p2", "p1"], [("coupon", "p_1")]),
        ("coupon=p_1&coupon=p_2", ["p2"], [("coupon", "p_1")]),
    ],
)
def test_a_press_before_the_new_prices_is_about_the_coupons_that_are_chosen(
    browser: Browser, server: ScriptServer, address: str, before: str, pressed: list[str], sent: list[tuple[str, str]]
) -> None:
    coupons = (
        '<form id="coupons" method="get" action="/" data-reprice="/methods" data-none="coupons=none">'
        '<input type="checkbox" id="p1" name="coupon" value="p_1" checked>'
        '<input type="checkbox" id="p2" name="coupon" value="p_2" checked>'
        '<button name="coupons" value="none">Use none</button></form>'
    )
    hidden = [f'<input type="hidden" name="{name}" value="{value}">' for name, value in parse_qsl(f"a=b&{before}")]
    server.content = checkout(row("a", state="checked"), before=coupons).replace(
        "<fieldset", f"{''.join(hidden)}<fieldset", 1
    )
    server.live, server.stream = None, "silent"
    with opened(browser) as (page, _):
        page.goto(address)
        for box in pressed:
            page.locator(f"#{box}").click()
        page.locator("#pay button").click()
        page.get_by_role("heading", name="Paid").wait_for()
        (form,) = server.sent
        assert form == {"a": "b", "method": "a", **dict(sent)}


def test_a_link_is_followed_once_and_not_after_back(browser: Browser, server: ScriptServer, address: str) -> None:
    server.content, server.live = '<a data-go href="/paid">To the bank</a>', None
    with opened(browser) as (page, _):
        page.goto(address)
        page.get_by_role("heading", name="Paid").wait_for()
        page.go_back()
        page.get_by_text("To the bank").wait_for()
        page.wait_for_timeout(300)
        assert page.get_by_text("To the bank").is_visible()


def test_a_code_that_is_read_again_presses_nothing(browser: Browser, server: ScriptServer, address: str) -> None:
    """A cashier who has not seen that a sale is paid would charge its payer again."""
    server.content, server.live = '<h1>Paid</h1><a href="/paid" data-focus>Next sale</a>', None
    with opened(browser) as (page, _):
        page.goto(address)
        page.locator("a:focus").wait_for()
        for code in ("134567890123456781", "z"):
            page.keyboard.type(code)
            page.keyboard.press("Enter")
        assert page.locator("a:focus").inner_text() == "Next sale"
        page.evaluate("new Promise((resolve) => setTimeout(resolve, 400))")
        page.keyboard.press("Enter")
        page.wait_for_url("**/paid")


def test_an_error_gets_the_focus(browser: Browser, server: ScriptServer, address: str) -> None:
    server.content = '<div id="fault" role="alert" tabindex="-1" data-focus>Wrong code</div>'
    with opened(browser) as (page, _):
        open_followed(page, server, address)
        assert page.evaluate("document.activeElement.id") == "fault"


def test_the_script_is_small() -> None:
    assert len(gzip.compress(scripts()["page.js"], 9)) <= 8 * 1024
