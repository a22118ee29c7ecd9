"""The pages of `cashier serve`: from a configuration file, and its reload."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from cashier.asgi import configured_app, served_pages
from cashier.core import Cashier
from cashier.settings.loader import load
from cashier.settings.schema import ConfigurationError
from cashier.web.application import app
from cashier.web.endpoint_path import PAGE_PATHS
from cashier.wiring.checks import changes_that_need_a_restart
from tests.pages.page_shop import SHOP, page_shop
from tests.pages.payer_browser import PayerBrowser
from tests.web.asgi_client import JSON, call

SOURCES = ("order", "merchant", "member", "card", "balance", "channel", "quota")
SERVICES = ("risk", "engine", "acquirer")


def written(path: Path, *names: str, **pages: Any) -> str:
    """A configuration with these sources."""
    lines = ['[tokens]\nsecrets = ["' + "s" * 32 + '"]', "[pages]"]
    lines += [f"{key} = {json.dumps(value)}" for key, value in pages.items()]
    lines += ["[merchants.m_1]", 'origins = ["https://shop.example"]', "[sources]"]
    lines += [f'{name}.url = "http://127.0.0.1:9"' for name in names]
    file = path / "cashier.toml"
    file.write_text("\n".join(lines) + "\n")
    return str(file)


def test_pages_need_payments(tmp_path: Path) -> None:
    path = written(tmp_path, *SOURCES, enabled=True)
    with pytest.raises(ConfigurationError, match="pages need payments"):
        configured_app(path)


def test_without_the_key_there_are_no_pages(tmp_path: Path) -> None:
    assert served_pages(Cashier(config=load(written(tmp_path, *SOURCES, *SERVICES)))) is None


async def test_a_shop_gets_a_link_of_the_configured_service(tmp_path: Path) -> None:
    cashier = Cashier(config=load(written(tmp_path, *SOURCES, *SERVICES, enabled=True)))
    async with cashier:
        application = app(cashier, pages=served_pages(cashier))
        wanted = {"order_id": "o_1", "user_id": "u_1", "merchant_id": "m_1", "terminal": "H5"}
        wanted["return_url"] = "https://shop.example/back"
        response = await call(
            application,
            json.dumps(wanted).encode(),
            headers=JSON | {"host": "127.0.0.1:8080"},
            path="/v1/cashier-sessions",
        )
        assert response.status == 200
        assert response.json["url"].startswith("http://127.0.0.1:8080/cashier/o_1?token=")
        wanted["return_url"] = "https://evil.example/back"
        refused = await call(
            application,
            json.dumps(wanted).encode(),
            headers=JSON | {"host": "127.0.0.1:8080"},
            path="/v1/cashier-sessions",
        )
        assert refused.problem() == (422, "INVALID")


async def test_metrics_and_the_access_log_name_each_page() -> None:
    async with page_shop() as shop:
        served = {getattr(route, "path", "") for route in shop.pages._starlette.routes}
    assert served == set(PAGE_PATHS)


def test_a_reload_applies_what_it_can(tmp_path: Path) -> None:
    before = load(written(tmp_path, *SOURCES, *SERVICES, enabled=True))
    changes = ({"session_s": 600}, False), ({"public_url": "http://localhost:1"}, False), ({"brand.name": "B"}, True)
    for changed, restarts in changes:
        after = load(written(tmp_path, *SOURCES, *SERVICES, enabled=True, **changed))
        found = list(changes_that_need_a_restart(before, after))
        assert found == (["[pages] brand has changed"] if restarts else [])


@pytest.mark.virtual_time
@pytest.mark.parametrize("public_url", ["http://127.0.0.1:8080/pay", ""])
@pytest.mark.parametrize("whole", [False, True])
async def test_mounted_in_a_program_the_pages_stay_below_their_path(whole: bool, public_url: str) -> None:
    """Alone, or together with the API."""
    async with page_shop({"public_url": public_url}) as shop:
        mounted = shop.application if whole else shop.pages
        browser = PayerBrowser(Starlette(routes=[Mount("/pay", mounted)]))
        link = urlsplit(shop.link("chinese_shop", mounted_at="/pay"))
        await browser.open(f"{link.path}?{link.query}")
        assert browser.address == "/pay/cashier/o_1001"
        assert {path for path, _ in browser.cookies} == {"/pay/cashier/o_1001"}
        for tag, attributes in browser.document.tags:
            if tag in ("link", "script") and attributes.get("rel") != "expect":
                url = attributes.get("href") or attributes["src"]
                assert (await browser.send("GET", url)).status == 200, url
        await browser.choose("WALLET:ALIPAY")
        assert browser.address == "/pay/cashier/o_1001/payment"
        (sent,) = shop.checkout.submissions
        assert sent["return_url"].startswith("http://127.0.0.1:8080/pay/cashier/o_1001/return?state=")
        shop.settle(browser)
        await browser.open(sent["return_url"].partition("8080")[2])
        assert "good" in browser.document.state


@pytest.mark.virtual_time
@pytest.mark.parametrize("public_url", ["http://127.0.0.1:8080/pay", ""])
async def test_mounted_in_a_program_the_embedded_cashier_finds_its_styles_and_scripts(public_url: str) -> None:
    async with page_shop({"public_url": public_url}) as shop:
        browser = PayerBrowser(Starlette(routes=[Mount("/pay", shop.application)]))
        frame = await browser.send("GET", f"/pay/cashier-embed/o_1020/frame?origin={SHOP}")
        assert frame.status == 200
        named = (attributes.get("src") or attributes.get("href") for _, attributes in frame.document.tags)
        urls = [url for url in named if url]
        token = shop.link("embedded_cashier").partition("token=")[2]
        sent = {"authorization": f"Bearer {token}", "origin": SHOP}
        update = await browser.send("GET", "/pay/cashier-embed/o_1020", headers=sent)
        urls.append(json.loads(update.body)["style"])
        assert len(urls) == 3
        for url in urls:
            assert (await browser.send("GET", url)).status == 200, url
