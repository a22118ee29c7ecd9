"""Faults of `[pages]`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cashier.settings.pages import (
    MAX_LOGO_BYTES,
    BrandSettings,
    CodeSettings,
    LinksSettings,
    PagesSettings,
    VaultSettings,
    pages_faults,
)
from cashier.web.auth import AuthSettings
from cashier.web.server import ServerSettings

BEYOND = ServerSettings(host="0.0.0.0")
JWT = AuthSettings(mode="jwt")
PUBLIC = {"public_url": "https://pay.example.com", "trusted_proxies": ("10.0.0.0/8", "2001:db8::/32")}


def faults(auth: AuthSettings | None = None, server: ServerSettings | None = None, **settings: Any) -> list[str]:
    return list(
        pages_faults(PagesSettings(**{"enabled": True, **settings}), auth or AuthSettings(), server or ServerSettings())
    )


def test_on_loopback_nothing_else_is_needed() -> None:
    assert faults() == []


def test_beyond_loopback_everything_is_needed() -> None:
    assert faults(JWT, BEYOND, **PUBLIC) == []
    assert faults(server=BEYOND, enabled=False) == []


@given(
    st.sampled_from(["127.0.0.1", "localhost", "::1", "0.0.0.0", "", "10.0.0.7", "pay.internal"]),
    st.sampled_from(["", "http://localhost:8080", "http://127.0.0.1", "https://[::1]/x", "https://pay.example.com/x"]),
    st.sampled_from([(), ("127.0.0.1/32",)]),
    st.sampled_from([AuthSettings(), AuthSettings(insecure=True), JWT]),
    st.booleans(),
)
def test_whoever_is_reached_by_others_needs_everything(
    host: str, public_url: str, proxies: tuple[str, ...], auth: AuthSettings, enabled: bool
) -> None:
    """By its own address, or by that of a gateway beside it."""
    reached = host not in ("127.0.0.1", "localhost", "::1") or "pay.example.com" in public_url
    found = faults(auth, ServerSettings(host=host), public_url=public_url, trusted_proxies=proxies, enabled=enabled)
    wanted = {
        '[auth] mode = "jwt"': auth is not JWT,
        "[pages] public_url is missing": not public_url,
        "[pages] trusted_proxies is missing": not proxies,
    }
    expected = [text for text, is_missing in wanted.items() if is_missing and reached and enabled]
    assert len(found) == len(expected)
    for text, fault in zip(expected, found, strict=True):
        assert text in fault


@pytest.mark.parametrize("insecure", [False, True])
def test_beyond_loopback_mode_none_is_refused_even_where_the_api_may_have_it(insecure: bool) -> None:
    (fault,) = faults(AuthSettings(mode="none", insecure=insecure), BEYOND, **PUBLIC)
    assert '[auth] mode = "jwt"' in fault


@pytest.mark.parametrize("key", PUBLIC)
def test_beyond_loopback_each_key_is_required(key: str) -> None:
    (fault,) = faults(JWT, BEYOND, **{name: value for name, value in PUBLIC.items() if name != key})
    assert f"[pages] {key} is missing" in fault


def test_payers_need_encryption() -> None:
    (fault,) = faults(JWT, public_url="http://pay.example.com", trusted_proxies=("127.0.0.1/32",))
    assert "https" in fault
    assert faults(public_url="http://localhost:8080") == []


@pytest.mark.parametrize("network", ["0.0.0.0/0", "::/0", "gateway", "10.0.0.1/8"])
def test_a_network_that_trusts_all_or_is_none_is_a_fault(network: str) -> None:
    (fault,) = faults(trusted_proxies=(network,))
    assert network in fault


NO_PUBLIC_URLS = (
    "pay.example.com",
    "https://pay.example.com/",
    "https://pay.example.com?x=1",
    "https://pay.example.com#x",
    "https://user@pay.example.com",
    "ftp://pay.example.com",
    "https://pay.example.com\n",
    "https://a;b/",
)


@pytest.mark.parametrize("url", NO_PUBLIC_URLS)
def test_a_public_url_is_an_origin_with_a_path_at_most(url: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"public_url": url}, PagesSettings)


def test_a_printed_code_belongs_to_a_merchant_and_needs_a_service_that_creates_orders() -> None:
    code = CodeSettings(name="Stall", currency="CNY")
    assert faults(order_url="http://127.0.0.1:9100/orders", codes={"m_5": code}) == []
    assert "order_url is missing" in faults(codes={"m_5": code})[0]
    (fault,) = faults(order_url="http://127.0.0.1:9100/orders", codes={"m_5": CodeSettings(name="S", currency="XXQ")})
    assert "XXQ" in fault
    (fault,) = faults(order_url="http://127.0.0.1:9100/orders", codes={"a merchant": code})
    assert "no merchant_id" in fault


@pytest.mark.parametrize("url", ["javascript:alert(1)", "//wallet.example", "https://", "https://a b"])
def test_a_link_is_a_web_address(url: str) -> None:
    for struct in (LinksSettings, VaultSettings, PagesSettings):
        key = {LinksSettings: "top_up", VaultSettings: "url", PagesSettings: "order_url"}[struct]
        assert msgspec.convert({key: "https://wallet.example/top-up"}, struct)
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert({key: url}, struct)


@pytest.mark.parametrize(
    ("url", "wrong"),
    [
        ("https://shop.example/orders?key=k#x", None),
        ("https://shop.example", None),
        ("https://[2001:db8::1]:8443/orders", None),
        ("https://user:secret@shop.example/orders", "user and password"),
        ("https://shop.example:99999/orders", "port"),
        ("https://[::1/orders", ""),
        ("https://[zz]/orders", ""),
        ("https://?key=secret", ""),
    ],
)
def test_the_service_of_orders_has_an_address_that_can_be_called(url: str, wrong: str | None) -> None:
    found = faults(order_url=url)
    assert bool(found) is (wrong is not None)
    for fault in found:
        assert fault.startswith("[pages] order_url: ")
        assert wrong is not None
        assert wrong in fault
        assert "secret" not in fault


@pytest.mark.parametrize(
    ("name", "size", "wrong"),
    [
        ("mark.svg", 10, None),
        ("MARK.PNG", MAX_LOGO_BYTES, None),
        ("mark.gif", 10, "neither"),
        ("mark.png", MAX_LOGO_BYTES + 1, "would delay each page"),
    ],
)
def test_a_logo_is_a_small_svg_or_png(tmp_path: Path, name: str, size: int, wrong: str | None) -> None:
    (tmp_path / name).write_bytes(bytes(size))
    found = faults(brand=BrandSettings(logo=str(tmp_path / name)))
    assert found == [] if wrong is None else len(found) == 1 and wrong in found[0]


def test_a_logo_that_is_not_there_is_a_fault(tmp_path: Path) -> None:
    (fault,) = faults(brand=BrandSettings(logo=str(tmp_path / "mark.svg")))
    assert "cannot be read" in fault


@pytest.mark.parametrize("server", [BEYOND, ServerSettings()])
def test_developer_mode_is_refused_where_payers_reach_the_pages(server: ServerSettings) -> None:
    fault = next(iter(faults(JWT, server, **PUBLIC, developer=True)))
    assert fault.startswith("[pages] developer:")
    assert faults(developer=True) == []
