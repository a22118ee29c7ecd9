"""Addresses in a configuration."""

from __future__ import annotations

import pytest

from cashier.wire.address_parser import UpstreamAddress, parse_address, parse_addresses
from cashier.wire.aiohttp_client import AiohttpClient
from cashier.wire.http1 import Http1Client


@pytest.mark.parametrize(
    ("url", "address", "authority"),
    [
        ("http://card", UpstreamAddress("http://card", "card", 80, ""), "card"),
        (
            "http://10.0.0.1:9100/v1/",
            UpstreamAddress("http://10.0.0.1:9100/v1/", "10.0.0.1", 9100, "/v1"),
            "10.0.0.1:9100",
        ),
        ("https://card", UpstreamAddress("https://card", "card", 443, "", tls=True), "card"),
        ("https://card:80", UpstreamAddress("https://card:80", "card", 80, "", tls=True), "card:80"),
        ("http://[::1]:81", UpstreamAddress("http://[::1]:81", "::1", 81, ""), "[::1]:81"),
        (
            "unix:/run/card.sock",
            UpstreamAddress("unix:/run/card.sock", "localhost", 0, "", socket_path="/run/card.sock"),
            "localhost",
        ),
    ],
)
def test_an_address_is_parsed(url: str, address: UpstreamAddress, authority: str) -> None:
    assert parse_address(url) == address
    assert parse_address(url).authority == authority


@pytest.mark.parametrize(
    "url",
    [
        "", "card", "card:9100", "ftp://card", "http://", "http:///path", "http://card:0", "http://card:70000",
        "http://card:x", "//card", "http://card?a=1",
        "http://card#a", "http://card/a b", "http://card/\r\nX: 1", "http://kärtchen", "http://a..b",
        "unix:", "unix:relative.sock", "unix:/", "unix:/" + "x" * 107, "unix:/a\0b", "http://user:secret@card",
    ],
)  # fmt: skip
def test_an_invalid_address_is_named_with_the_supported_forms(url: str) -> None:
    with pytest.raises(ValueError, match="supported are http://host") as refused:
        parse_address(url)
    assert "secret" not in str(refused.value)
    assert url.rpartition("@")[2].encode("unicode_escape").decode()[:5] in str(refused.value)


SECRET = "hunter2"


@pytest.mark.parametrize(
    "url",
    [
        f"http://user:{SECRET}@card/?key={SECRET}", f"http://card:9100/?key={SECRET}", f"http://card#{SECRET}",
        f"http://{SECRET}@card:0", f"http://u:p@{SECRET}@card/x y", f"ftp://u:{SECRET}@card",
        f"http://u:pa/{SECRET}@card", f"http://u:pa?{SECRET}@card", f"unix:rel?token={SECRET}",
        f"http://u:{SECRET}%40card/", f"http:/u:{SECRET}@card", f"http://card/?mail=a@{SECRET}",
        f"http://u:{SECRET}@card:99999/", f"http://u:{SECRET}@[::1", f"http://u:{SECRET}/", f"http://[{SECRET}@card",
    ],
)  # fmt: skip
def test_what_may_be_a_secret_in_an_address_is_not_repeated(url: str) -> None:
    with pytest.raises(ValueError, match="supported are http://host") as refused:
        parse_address(url)
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize("transport", [Http1Client, AiohttpClient])
def test_every_transport_refuses_a_bad_address_and_no_address(
    transport: type[Http1Client] | type[AiohttpClient],
) -> None:
    with pytest.raises(ValueError, match="gopher://card"):
        transport(["http://card", "gopher://card"])
    with pytest.raises(ValueError, match="no address given"):
        transport([])


def test_addresses_keep_their_order() -> None:
    assert [address.host for address in parse_addresses(("http://b", "http://a"))] == ["b", "a"]
