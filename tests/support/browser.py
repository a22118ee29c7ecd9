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
