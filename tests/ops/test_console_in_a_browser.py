"""The console in a real browser, over a real service and a real sandbox."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jwt
import pytest

from cashier.consultation.source_table import SOURCE_NAMES
from cashier.ops.console.rendering import PAGES
from cashier.sandbox import CASES
from cashier.settings.schema import SERVICES
from tests.support.browser import chromium, opened, overflows
from tests.support.command_processes import running

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.peers]

PATHS = [*(page.path for page in PAGES), "/weather"]
SECRET = "s" * 40


@pytest.fixture(scope="module")
def browser(request: pytest.FixtureRequest) -> Iterator[Browser]:
    with chromium(request) as launched:
        yield launched


@pytest.fixture(scope="module")
def sandbox() -> Iterator[str]:
    with running("sandbox", "--port", "0", "--weather", "still") as command:
        yield command.address("Sandbox on")


class Service:
    """A service with its console. `url`: of the API."""

    def __init__(self, command: Any) -> None:
        self.url = command.address("Serving on")
        self.console = command.address("Operations on")

    def consult(self, case: str = "chinese_shop", **headers: str) -> Any:
        body = json.dumps({**CASES[case].request, "deadline_ms": 300}).encode()
        request = urllib.request.Request(
            f"{self.url}/v1/consult", body, {"Content-Type": "application/json", **headers}, method="POST"
        )
        with urllib.request.urlopen(request) as response:
            return json.load(response)


def served(directory: Path, sandbox: str, **tables: dict[str, Any]) -> Path:
    """A configuration for this sandbox. `tables`: further ones, and keys of `operations`."""
    operations = {"port": 0, "sandbox": sandbox, **tables.pop("operations", {})}
    sources = {f"sources.{name}": {"url": sandbox, "timeout_ms": 200, "cache": False} for name in SOURCE_NAMES}
    services = {f"sources.{name}": {"url": sandbox} for name in SERVICES}
    consult = {"deadline_ms": 300}
    server = {"port": 0, "shutdown_delay_s": 0}
    every = {"server": server, "operations": operations, "consult": consult, **sources, **services, **tables}
    text = "".join(
        f"[{name}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in table.items())
        for name, table in every.items()
    )
    path = directory / "cashier.toml"
    path.write_text(text)
    return path


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, sandbox: str) -> Iterator[Service]:
    path = served(tmp_path_factory.mktemp("console"), sandbox)
    with running("serve", "--config", str(path)) as command:
        yield Service(command)


@pytest.fixture
def troubled(service: Service, sandbox: str) -> Service:
    """With one consultation that was degraded, so that there is a record."""
    change_weather(sandbox, "quota", {"faults": {"hang": 10_000}})
    service.consult()
    change_weather(sandbox, "quota", None)
    return service


def change_weather(sandbox: str, source: str, profile: Any) -> None:
    method, body = ("DELETE", None) if profile is None else ("PUT", json.dumps(profile).encode())
    request = urllib.request.Request(f"{sandbox}/weather/{source}", body, method=method)
    urllib.request.urlopen(request).close()


def weather_of(sandbox: str, source: str) -> Any:
    with urllib.request.urlopen(f"{sandbox}/weather") as response:
        return json.load(response)[source]


def live(page: Page) -> None:
    """Wait for an update that came while the page was open."""
    for _ in range(300):  # the policy forbids playwright's own polling, which evaluates a text
        if int(page.locator("body").get_attribute("data-updates") or 0) >= 2:
            return
        page.wait_for_timeout(100)
    raise AssertionError("no update came")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_each_page_loads_without_an_error_and_without_another_host(
    browser: Browser, troubled: Service, scheme: str
) -> None:
    with opened(browser, color_scheme=scheme) as (page, wrong):
        for path in PATHS:
            assert page.goto(troubled.console + path).status == 200  # type: ignore[union-attr]
            page.wait_for_load_state("load")
            ground = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
            assert (ground == "rgb(20, 24, 23)") == (scheme == "dark"), "the style sheet applies"
        page.goto(f"{troubled.console}/consultations")
        page.locator(".record h2 a").first.click()
        page.get_by_text("quota: TIMEOUT").first.wait_for(state="attached")
        assert wrong == []


def test_no_page_scrolls_sideways_on_a_phone(browser: Browser, troubled: Service) -> None:
    with opened(browser, viewport={"width": 360, "height": 740}, is_mobile=True, has_touch=True) as (page, wrong):
        for path in PATHS:
            page.goto(troubled.console + path)
            assert not overflows(page), path
        page.goto(f"{troubled.console}/consultations")
        page.locator(".record h2 a").first.click()
        page.get_by_role("heading", name="Waterfall").wait_for()
        assert not overflows(page)
        assert wrong == []


def test_an_update_arrives_without_a_reload_and_keeps_what_the_reader_opened(
    browser: Browser, service: Service, sandbox: str
) -> None:
    with opened(browser) as (page, wrong):
        page.goto(f"{service.console}/consultations")
        page.evaluate("window.notReloaded = true")
        live(page)
        change_weather(sandbox, "balance", {"faults": {"error": 10_000}})
        try:
            service.consult(**{"X-Request-Id": "seen-live-1"})
            page.get_by_text("seen-live-1").wait_for()
        finally:
            change_weather(sandbox, "balance", None)
        assert page.evaluate("window.notReloaded")
        page.goto(f"{service.console}/#source-card")
        assert page.locator("#source-card").get_attribute("open") is not None, "the address names it"
        live(page)
        assert page.locator("#source-card").get_attribute("open") is not None
        assert wrong == []


_SILENT_STREAMS = """
window.streams = [];
window.EventSource = class extends EventTarget {
  constructor() { super(); this.readyState = 1; window.streams.push(this); }
  close() { this.readyState = 2; }
};
window.tell = () => window.streams.at(-1).dispatchEvent(new MessageEvent("parts", { data: "{}" }));
"""


def test_a_stream_that_falls_silent_is_not_live_and_is_opened_again(browser: Browser, service: Service) -> None:
    """The browser does not notice a connection that the network has dropped."""
    with opened(browser) as (page, _):
        page.clock.install()
        page.add_init_script(_SILENT_STREAMS)
        page.goto(service.console)
        said = page.locator("#freshness")
        for _ in range(10):
            page.evaluate("tell()")
            page.clock.run_for(2_000)
            assert said.inner_text() == "Live"
        page.clock.run_for(20_000)
        assert said.inner_text().startswith("Connection lost")
        assert page.evaluate("streams.length > 1 && streams.filter((each) => each.readyState < 2).length === 1")
        page.evaluate("tell()")
        assert said.inner_text() == "Live"
        page.get_by_role("button", name="Pause").click()
        page.clock.run_for(60_000)
        assert said.inner_text() == "Paused"
        assert page.evaluate("streams.every((each) => each.readyState === 2)")


def test_updates_can_be_paused(browser: Browser, service: Service) -> None:
    with opened(browser) as (page, _):
        page.goto(service.console)
        live(page)
        page.get_by_role("button", name="Pause").click()
        page.get_by_text("Paused").wait_for()
        assert page.get_by_role("button", name="Pause").get_attribute("aria-pressed") == "true"


def test_the_keyboard_reaches_everything_and_shows_where_it_is(browser: Browser, service: Service) -> None:
    with opened(browser) as (page, _):
        page.goto(f"{service.console}/runtime")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "Skip to content"
        assert page.evaluate("document.activeElement.getBoundingClientRect().left >= 0"), "it shows when focused"
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.id") == "content"
        page.goto(service.console)
        seen = []
        for _ in range(60):
            page.keyboard.press("Tab")
            where = page.evaluate(
                "[document.activeElement.tagName, document.activeElement.textContent.trim().slice(0, 20),"
                " getComputedStyle(document.activeElement).outlineStyle]"
            )
            assert where[2] != "none" or where[0] == "BODY", where
            seen.append(where[:2])
        assert ["A", "Payments"] in seen
        assert ["BUTTON", "Pause"] in seen
        assert "SUMMARY" in [tag for tag, _ in seen]
        page.locator("#source-member summary").focus()
        page.keyboard.press("Enter")
        assert page.locator("#source-member").get_attribute("open") is not None


def test_without_javascript_a_page_is_whole_and_can_reload_itself(browser: Browser, troubled: Service) -> None:
    with opened(browser, java_script_enabled=False) as (page, _):
        for path in PATHS:
            page.goto(troubled.console + path)
            assert page.locator("main").inner_text().strip()
        page.goto(troubled.console)
        page.locator("#source-order summary").click()
        assert page.locator("#source-order table").first.is_visible()
        page.get_by_role("link", name="Reload every 5 s").click()
        assert page.url.endswith("?refresh=5")
        assert page.locator('meta[http-equiv="refresh"]').count() == 1


def test_the_weather_is_changed_and_restored_by_forms(browser: Browser, service: Service, sandbox: str) -> None:
    with opened(browser) as (page, wrong):
        page.goto(f"{service.console}/weather")
        page.get_by_label("Source").select_option("marketing")
        page.get_by_label("Fault").select_option("error")
        page.get_by_label("Share of calls").select_option("3000")
        page.get_by_role("button", name="Change the weather").click()
        page.get_by_text("error 30 %").wait_for()
        assert weather_of(sandbox, "marketing")["faults"] == {"error": 3_000}
        page.get_by_role("button", name="Restore marketing").click()
        page.get_by_text("error 30 %").wait_for(state="detached")
        assert not weather_of(sandbox, "marketing").get("faults")
        page.get_by_label("Source").select_option("card")
        page.get_by_label("Fault").select_option("slow")
        page.get_by_label("Latency").fill("90")
        page.get_by_role("button", name="Change the weather").click()
        page.get_by_text("constant: 90 ms").wait_for()
        page.get_by_role("button", name="Restore all").click()
        page.get_by_text("constant: 90 ms").wait_for(state="detached")
        assert wrong == []


def test_beyond_loopback_a_token_is_pasted_once(browser: Browser, tmp_path: Path, sandbox: str) -> None:
    auth = {"mode": "jwt", "issuer": "i", "audience": "a", "secret": SECRET}
    path = served(tmp_path, sandbox, operations={"host": "0.0.0.0"}, auth=auth)
    claims = {"iss": "i", "aud": "a", "exp": time.time() + 600, "scope": "operations"}
    with running("serve", "--config", str(path)) as command, opened(browser) as (page, wrong):
        console = Service(command).console.replace("0.0.0.0", "localhost")
        page.goto(f"{console}/runtime")
        page.get_by_role("heading", name="Sign in").wait_for()
        page.get_by_label("Bearer token").fill("nonsense")
        page.get_by_role("button", name="Sign in").click()
        page.get_by_text("Not signed in").wait_for()
        wrong.clear()  # the browser reports the 401
        page.goto(f"{console}/runtime")
        page.get_by_label("Bearer token").fill(jwt.encode(claims, SECRET, "HS256"))
        page.get_by_role("button", name="Sign in").click()
        page.get_by_role("heading", name="Runtime").wait_for()
        live(page)
        (cookie,) = page.context.cookies()
        assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
        page.get_by_role("button", name="Sign out").click()
        page.get_by_role("heading", name="Sign in").wait_for()
        page.goto(f"{console}/payments")
        page.get_by_role("heading", name="Sign in").wait_for()
        assert wrong == []
