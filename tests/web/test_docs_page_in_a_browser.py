"""The page of a document in a real browser: axe, width and policy, in both themes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from cashier.web.openapi.page import render_page
from tests.support.browser import chromium, opened, overflows, violations
from tests.web.test_docs_page import DOCUMENTS

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = [pytest.mark.peers]
ADDRESS = "http://127.0.0.1:1/docs"


@pytest.fixture(scope="module")
def browser(request: pytest.FixtureRequest) -> Iterator[Browser]:
    with chromium(request) as launched:
        yield launched


@pytest.mark.parametrize(("name", "width", "scheme"), [("contract", 360, "dark"), ("api", 1280, "light")])
def test_the_page_is_readable_on_a_phone_and_a_desk(browser: Browser, name: str, width: int, scheme: str) -> None:
    made = render_page(DOCUMENTS[name], "openapi.json")
    with opened(browser, viewport={"width": width, "height": 800}, color_scheme=scheme) as (page, wrong):
        headers = {"content-type": "text/html; charset=utf-8", **made.headers}
        page.route("**/*", lambda route: route.fulfill(status=200, headers=headers, body=made.body))
        page.goto(ADDRESS)
        assert not overflows(page)
        assert violations(page) == []
        page.locator("nav a").last.click()
        page.locator("summary").first.click()
        assert page.locator("details[open] pre").is_visible()
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (background == "rgb(255, 255, 255)") is (scheme == "light")
        assert wrong == []
