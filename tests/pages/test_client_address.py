"""The payer's address: what trusted gateways say, and nothing that a stranger wrote."""

from __future__ import annotations

import ipaddress

import pytest

from cashier.pages.client_address import client_address

PROXIES = (ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("2001:db8::/32"))
PAYER = "203.0.113.7"


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        (PAYER, None, PAYER),
        (PAYER, "198.51.100.1", PAYER),
        ("10.0.0.1", None, "10.0.0.1"),
        ("10.0.0.1", PAYER, PAYER),
        ("10.0.0.1", f"198.51.100.1, {PAYER}", PAYER),
        ("10.0.0.1", f"198.51.100.1, {PAYER}, 10.0.0.2", PAYER),
        ("2001:db8::1", "2a00::7", "2a00::7"),
        ("10.0.0.1", f"{PAYER}:40000", PAYER),
        ("10.0.0.1", "[2a00::7]:40000", "2a00::7"),
        ("10.0.0.1", f"::ffff:{PAYER}", PAYER),
        ("10.0.0.1", "unknown", "10.0.0.1"),
        ("10.0.0.1", "<script>", "10.0.0.1"),
        ("10.0.0.1", f"{PAYER}, nonsense", "10.0.0.1"),
        ("10.0.0.1", ", ".join([PAYER, *["10.0.0.2"] * 20]), "10.0.0.2"),
        (None, PAYER, None),
    ],
)
def test_the_nearest_address_that_is_no_gateway(peer: str | None, forwarded: str | None, address: str | None) -> None:
    headers = {} if forwarded is None else {b"x-forwarded-for": forwarded.encode()}
    assert client_address(peer, headers, PROXIES) == address
    assert client_address(peer, headers, ()) == peer
