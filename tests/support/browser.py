"""Debian's Chromium, driven by playwright. Notes what a page reports as wrong."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


_OWN = r"http://(127\.0\.0\.1|localhost):"


def program() -> str | None:
    return shutil.which("chromium") or shutil.which("chromium-browser")


@contextmanager
def chromium(request: pytest.FixtureRequest) -> Iterator[Browser]:
    """Skips, or fails with `--require-programs`, where browser or driver is missing."""
    missing = "Chromium is not installed" if program() is None else ""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        missing = "playwright is not installed"
    if missing:
        (pytest.fail if request.config.getoption("--require-programs") else pytest.skip)(missing)
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program(), args=["--no-sandbox", "--disable-gpu"])
        try:
            yield browser
        finally:
            browser.close()


def wait_for_last_price(page: Page, *, scripts: bool = True) -> None:
    """Until a checkout knows all that its sources have to say: before, its prices may change."""
    page.locator("#methods").first.wait_for()
    complete = page.locator("[data-live$='missing=']").first
    for _ in range(0 if scripts else 50):
        if complete.count():
            break
        page.reload()
    complete.wait_for(state="attached")


def overflows(page: Page) -> bool:
    """Whether the page is wider than its window."""
    # Without its style sheet every page is: an element is found before the sheet has come.
    page.wait_for_load_state("load")
    return bool(page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth"))


def violations(page: Page) -> list[str]:
    """What axe finds: its rule and the beginning of the element."""
    from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]

    page.wait_for_load_state("load")
    found = Axe().run(page).response["violations"]
    return [f"{each['id']}: {node['html'][:160]}" for each in found for node in each["nodes"]]


@contextmanager
def opened(browser: Browser, **options: Any) -> Iterator[tuple[Page, list[str]]]:
    """A page in a context of its own, and what it reports: errors, broken policies, other hosts."""
    wrong: list[str] = []
    context = browser.new_context(**options)
    context.set_default_timeout(30_000)
    page = context.new_page()
    page.on("console", lambda message: wrong.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on(
        "request",
        lambda sent: None if "//127.0.0.1:" in sent.url or "//localhost:" in sent.url else wrong.append(sent.url),
    )
    try:
        yield page, wrong
    finally:
        context.close()
