"""Every state of the pages in a real browser: axe, width, policy, in both themes and directions."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from msgspec.structs import replace

from cashier.pages.asset_store import PREFIX, AssetStore
from cashier.pages.rendering import Rendering
from cashier.pages.texts import PAGE_TEXTS
from cashier.pages.views import CheckoutView, MethodRow, State
from tests.pages.gallery import LOCALES, gallery, rendering
from tests.support.browser import chromium, opened, overflows, violations

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Route

pytestmark = [pytest.mark.peers]

PHONE, DESKTOP = {"width": 360, "height": 740}, {"width": 1280, "height": 900}
# A window of 1280 by 1024 at 400 %.
ZOOMED = {"width": 320, "height": 256}
NARROW = {"width": 320, "height": 568}
# The strictest that the pages are served with.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
ORIGIN = "http://127.0.0.1:1"
LOADED = ("checkout", "checkout-instalments", "otp", "qr", "account", "result-paid", "problem", "till")
LIVE = "/live"
_SHIFTS = """
globalThis.shifts = [];
new PerformanceObserver((list) => shifts.push(...list.getEntries().map((each) => each.value)))
    .observe({ type: "layout-shift", buffered: true });"""


@pytest.fixture(scope="module")
def browser(request: pytest.FixtureRequest) -> Iterator[Browser]:
    with chromium(request) as launched:
        yield launched


class Served:
    """The gallery of one language, at `/NAME`, without a server."""

    def __init__(self, page: Page, locale: str) -> None:
        self._page = page
        self._renderer: Rendering
        self._assets: AssetStore
        self._renderer, self._assets = rendering()
        self.states = {name: (surroundings, view) for name, surroundings, view in gallery(locale)}
        # Addresses that end so are answered once `release` is called.
        self.late: tuple[str, ...] = ()
        self._held: list[Route] = []
        # What a page hears that follows `LIVE`.
        self.news: CheckoutView | None = None
        page.route("**/*", self._answer)

    def _answer(self, route: Route) -> None:
        if route.request.url.endswith(self.late):
            self._held.append(route)
        else:
            self._send(route)

    def _send(self, route: Route) -> None:
        path = urlsplit(route.request.url).path
        if path.startswith(PREFIX):
            asset = self._assets.by_name[path.removeprefix(PREFIX)]
            route.fulfill(body=asset.body, content_type=asset.media_type)
        elif path == LIVE and self.news is not None:
            route.fulfill(body=self._events(self.news), content_type="text/event-stream")
        elif path[1:] in self.states:
            headers = {"Content-Security-Policy": POLICY}
            route.fulfill(body=self.document(path[1:]), content_type="text/html; charset=utf-8", headers=headers)
        else:
            route.fulfill(status=404)

    def _events(self, view: CheckoutView) -> str:
        surroundings, _ = self.states["checkout"]
        update = {"view": "checkout", "now": surroundings.now, "html": self._renderer.main(surroundings, view)}
        return f'event: update\ndata: {json.dumps(update)}\n\nevent: end\ndata: {{"retry_ms": null}}\n\n'

    def document(self, name: str) -> str:
        """Once a page has led on by itself, it stays."""
        return self._renderer.page(*self.states[name]).replace(" data-go", "")

    def open(self, name: str) -> None:
        self._page.goto(f"{ORIGIN}/{name}", wait_until="commit" if self.late else "load")

    def release(self) -> None:
        for _ in range(600):
            if self._held:
                break
            self._page.wait_for_timeout(50)
        self._send(self._held.pop())


def small_targets(page: Page) -> Any:
    """Controls that a finger may miss: lower than 44 px, and not within a text."""
    return page.evaluate("""() => [...document.querySelectorAll("button, a, summary, label, input:not([type=hidden])")]
        .filter((it) => it.checkVisibility() && !it.closest(".hint, .notice, .skip"))
        // A choice is its label; a field is itself.
        .filter((it) => it.tagName !== "LABEL" || /radio|checkbox/.test(it.control?.type))
        .filter((it) => it.tagName !== "INPUT" || !/radio|checkbox/.test(it.type))
        .map((it) => [it.outerHTML.slice(0, 120), it.getBoundingClientRect().height])
        .filter(([html, height]) => height > 0 && height < 43.5)""")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("locale", "size"), [("zh-CN", PHONE), ("ar", DESKTOP)])
def test_axe_finds_nothing_in_any_state(browser: Browser, locale: str, size: dict[str, int], scheme: str) -> None:
    with opened(browser, viewport=size, color_scheme=scheme, reduced_motion="reduce") as (page, wrong):
        served = Served(page, locale)
        for name in served.states:
            served.open(name)
            assert violations(page) == [], name
        assert wrong == []


@pytest.mark.parametrize("locale", LOCALES)
@pytest.mark.parametrize("size", [PHONE, DESKTOP, ZOOMED], ids=["phone", "desktop", "zoomed"])
def test_nothing_is_wider_than_its_window_and_every_target_is_large(
    browser: Browser, locale: str, size: dict[str, int]
) -> None:
    with opened(browser, viewport=size) as (page, wrong):
        served = Served(page, locale)
        for name in served.states:
            served.open(name)
            assert not overflows(page), name
            assert small_targets(page) == [], name
        assert wrong == []


def shifts(page: Page) -> Any:
    """Once what moves has been painted."""
    page.wait_for_load_state("load")
    page.wait_for_timeout(150)
    return page.evaluate("shifts")


@pytest.mark.parametrize("size", [PHONE, DESKTOP], ids=["phone", "desktop"])
def test_nothing_moves_while_a_page_loads(browser: Browser, size: dict[str, int]) -> None:
    with opened(browser, viewport=size) as (page, _):
        page.add_init_script(_SHIFTS)
        served = Served(page, "id")
        for name in served.states:
            served.open(name)
            assert shifts(page) == [], name


SIZES = [("ar", NARROW), ("en", PHONE), ("zh-CN", DESKTOP)]


@pytest.mark.parametrize("late", [".css", ".js"])
@pytest.mark.parametrize(("locale", "size"), SIZES, ids=["narrow", "phone", "desktop"])
def test_nothing_moves_when_style_or_script_come_late(
    browser: Browser, locale: str, size: dict[str, int], late: str
) -> None:
    with opened(browser, viewport=size) as (page, _):
        page.add_init_script(_SHIFTS)
        served = Served(page, locale)
        served.late = (late,)
        for name in LOADED:
            served.open(name)
            page.wait_for_timeout(150)  # to paint what it can
            served.release()
            assert shifts(page) == [], name


class _Halves(BaseHTTPRequestHandler):
    """Sends a document without its last language, and the rest once it may."""

    documents: dict[str, bytes]
    rest: threading.Event

    def do_GET(self) -> None:
        body = self.documents[self.path]
        cut = body.rindex(b"<li>")
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[:cut])
        self.wfile.flush()
        self.rest.wait(30)
        self.wfile.write(body[cut:])

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def halves(served: Served) -> Iterator[tuple[str, threading.Event]]:
    """The origin of the documents; and what lets their rest go."""
    rest = threading.Event()
    documents = {f"/{name}": served.document(name).encode() for name in LOADED}
    handler = type("Halves", (_Halves,), {"documents": documents, "rest": rest})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}", rest
        finally:
            rest.set()
            server.shutdown()


@pytest.mark.parametrize(("locale", "size"), SIZES, ids=["narrow", "phone", "desktop"])
def test_nothing_moves_when_a_document_comes_in_parts(browser: Browser, locale: str, size: dict[str, int]) -> None:
    """Also on a busy machine, where a browser paints before it has parsed all."""
    with opened(browser, viewport=size) as (page, _):
        page.add_init_script(_SHIFTS)
        served = Served(page, locale)
        with halves(served) as (origin, rest):
            page.route(f"{origin}/*", lambda route: route.continue_())
            for name in LOADED:
                rest.clear()
                page.goto(f"{origin}/{name}", wait_until="commit")
                page.locator("footer li").nth(4).wait_for(state="attached")
                page.wait_for_timeout(150)
                assert page.evaluate("performance.getEntriesByType('paint').length") == 0, "not in parts"
                rest.set()
                assert shifts(page) == [], name


def being_checked(row: MethodRow) -> MethodRow:
    """The row before its sources have answered."""
    return replace(row, state=State.CHECKING, badges=(), hint=None, options=(), remedy_link=None, checked=False)


def placed(page: Page) -> Any:
    """Top and height of each row that is seen, and the top of what it begins with."""
    return page.evaluate("""() => [...document.querySelectorAll("#methods .row")].filter((it) => it.checkVisibility())
        .map((row) => [row.id, row.getBoundingClientRect().height, ...[row, ...row.querySelectorAll(".tile, .main")]
        .map((it) => it.getBoundingClientRect().top)].map((it) => typeof it === "number" ? Math.round(it) : it))""")


@pytest.mark.parametrize("locale", ["zh-CN", "en", "ar"])
@pytest.mark.parametrize("size", [NARROW, PHONE, DESKTOP], ids=["narrow", "phone", "desktop"])
@pytest.mark.parametrize("refused", [0, 1], ids=["remedy", "reason"])
def test_late_answers_move_neither_rows_nor_their_titles(
    browser: Browser, locale: str, size: dict[str, int], refused: int
) -> None:
    with opened(browser, viewport=size) as (page, wrong):
        served = Served(page, locale)
        surroundings, view = served.states["checkout"]
        assert isinstance(view, CheckoutView)
        rows = (view.recommended[0], view.refused[refused], *view.recommended[2:])
        served.news = replace(view, recommended=rows, refused=())
        before = replace(served.news, recommended=tuple(map(being_checked, rows)))
        served.states["checkout"] = replace(surroundings, live=LIVE), before
        served.late = (LIVE,)
        served.open("checkout")
        page.wait_for_load_state("load")
        places = placed(page)
        served.release()
        page.locator("#m-1.available").wait_for(state="attached")
        assert placed(page) == places
        assert wrong == []


@pytest.mark.parametrize("locale", LOCALES)
@pytest.mark.parametrize("coupons", [True, False], ids=["some", "none"])
def test_coupons_or_none_come_in_the_place_that_was_kept_for_them(browser: Browser, locale: str, coupons: bool) -> None:
    with opened(browser, viewport=NARROW) as (page, wrong):
        served = Served(page, locale)
        surroundings, view = served.states["checkout"]
        assert isinstance(view, CheckoutView)
        served.news = view if coupons else replace(view, coupons=None)
        before = replace(view, coupons=None, checking_coupons=True)
        served.states["checkout"] = replace(surroundings, live=LIVE), before
        served.late = (LIVE,)
        served.open("checkout")
        page.wait_for_load_state("load")
        row, height = page.locator("#coupons"), "row => row.getBoundingClientRect().height"
        place = row.evaluate(height)
        served.release()
        if coupons:
            row.locator(".busy").wait_for(state="detached")
        else:
            row.get_by_text(PAGE_TEXTS[locale].coupons_empty).wait_for()
        assert row.evaluate(height) == place
        assert wrong == []


@pytest.mark.parametrize("locale", LOCALES)
def test_buttons_of_choices_are_in_the_middle_of_their_labels(browser: Browser, locale: str) -> None:
    with opened(browser, viewport=DESKTOP) as (page, _):
        served = Served(page, locale)
        for name in ("checkout", "checkout-instalments"):
            served.open(name)
            page.wait_for_load_state("load")
            lines = page.evaluate("""() => [...document.querySelectorAll(":is(.row, .option) > input + label")]
                .filter((it) => it.checkVisibility()).map((label) => [label.previousElementSibling, label]
                .map((it) => it.getBoundingClientRect()).map((box) => (box.top + box.bottom) / 2))""")
            assert lines
            assert [each for each in lines if abs(each[0] - each[1]) > 1] == [], name


@pytest.mark.parametrize("locale", LOCALES)
@pytest.mark.parametrize("size", [NARROW, PHONE], ids=["narrow", "phone"])
def test_a_code_to_show_stays_in_sight_while_a_scanner_may_type(
    browser: Browser, locale: str, size: dict[str, int]
) -> None:
    with opened(browser, viewport=size) as (page, _):
        Served(page, locale).open("sale-code")
        page.locator("#code:focus").wait_for()
        assert page.evaluate("scrollY") == 0


def test_zoomed_in_nothing_covers_what_has_the_focus(browser: Browser) -> None:
    with opened(browser, viewport=ZOOMED) as (page, _):
        served = Served(page, "en")
        served.open("checkout")
        assert page.evaluate("getComputedStyle(document.querySelector('.order')).position") == "static"
        assert page.evaluate("getComputedStyle(document.querySelector('.paybar')).position") == "static"


def test_the_choice_is_seen_in_forced_colours(browser: Browser) -> None:
    with opened(browser, viewport=PHONE, forced_colors="active") as (page, _):
        served = Served(page, "en")
        served.open("checkout")
        outlines = page.locator(".row").evaluate_all("rows => rows.map((row) => getComputedStyle(row).outlineStyle)")
        assert len([each for each in outlines if each != "none"]) == 1
