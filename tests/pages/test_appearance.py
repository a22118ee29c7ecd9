"""Every state of the pages in a real browser: axe, width, policy, in both themes and directions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from cashier.pages.asset_store import PREFIX, AssetStore
from cashier.pages.rendering import Rendering
from tests.pages.gallery import LOCALES, gallery, rendering
from tests.support.browser import chromium, opened

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Route

pytestmark = [pytest.mark.peers]

PHONE, DESKTOP = {"width": 360, "height": 740}, {"width": 1280, "height": 900}
# A window of 1280 by 1024 at 400 %.
ZOOMED = {"width": 320, "height": 256}
# The strictest that the pages are served with.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
ORIGIN = "http://127.0.0.1:1"


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
        page.route("**/*", self._answer)

    def _answer(self, route: Route) -> None:
        path = route.request.url.removeprefix(ORIGIN)
        if path.startswith(PREFIX):
            asset = self._assets.by_name[path.removeprefix(PREFIX)]
            route.fulfill(body=asset.body, content_type=asset.media_type)
        elif path[1:] in self.states:
            # Once a page has led on by itself, it stays.
            document = self._renderer.page(*self.states[path[1:]]).replace(" data-go", "")
            headers = {"Content-Security-Policy": POLICY}
            route.fulfill(body=document, content_type="text/html; charset=utf-8", headers=headers)
        else:
            route.fulfill(status=404)

    def open(self, name: str) -> None:
        self._page.goto(f"{ORIGIN}/{name}")


def violations(page: Page) -> list[str]:
    from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]

    found = Axe().run(page).response["violations"]
    return [f"{each['id']}: {node['html'][:160]}" for each in found for node in each["nodes"]]


def overflowing(page: Page) -> Any:
    return page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")


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
            assert not overflowing(page), name
            assert small_targets(page) == [], name
        assert wrong == []


@pytest.mark.parametrize("size", [PHONE, DESKTOP], ids=["phone", "desktop"])
def test_nothing_moves_while_a_page_loads(browser: Browser, size: dict[str, int]) -> None:
    with opened(browser, viewport=size) as (page, _):
        page.add_init_script("""
            globalThis.shifts = [];
            new PerformanceObserver((list) => shifts.push(...list.getEntries().map((each) => each.value)))
                .observe({ type: "layout-shift", buffered: true });""")
        served = Served(page, "id")
        for name in served.states:
            served.open(name)
            page.wait_for_timeout(150)
            assert page.evaluate("shifts") == [], name


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
