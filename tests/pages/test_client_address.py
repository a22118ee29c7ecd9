"""The payer's address: what trusted gateways say, and nothing that a stranger wrote."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

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
        (f"::ffff:{PAYER}", None, PAYER),
        ("::ffff:10.0.0.1", PAYER, PAYER),
        ("::FFFF:10.0.0.1", f"{PAYER}, ::ffff:10.0.0.2", PAYER),
        ("2001:db8::1%eth0", "2A00:0::7", "2a00::7"),
        ("10.0.0.1", "fe80::1%<script>", "fe80::1"),
        ("10.0.0.1", "[2a00::7]", "2a00::7"),
        ("10.0.0.1", "[2a00::7", "10.0.0.1"),
        ("10.0.0.1", "203.0.113.7:port", "10.0.0.1"),
        ("10.0.0.1", f"{PAYER}:1:2", "10.0.0.1"),
        ("10.0.0.1", "010.0.0.9", "10.0.0.1"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", f"{PAYER},", "10.0.0.1"),
        ("10.0.0.1", "9" * 5000, "10.0.0.1"),
        ("somewhere.example", PAYER, None),
    ],
)
def test_the_nearest_address_that_is_no_gateway(peer: str | None, forwarded: str | None, address: str | None) -> None:
    headers = [] if forwarded is None else [(b"x-forwarded-for", forwarded.encode())]
    assert client_address(peer, headers, PROXIES) == address
    assert client_address(peer, headers, ()) == client_address(peer, [], PROXIES)


@given(
    st.ip_addresses(),
    st.lists(st.ip_addresses() | st.text("0123456789abcdef.:[]%,; ", max_size=20), max_size=3),
    st.lists(st.sampled_from(["10.0.0.2", "::ffff:10.9.9.9", "[2001:db8::5]:443", "10.1.1.1:8080"]), max_size=4),
    st.data(),
)
def test_what_a_stranger_writes_before_its_own_address_does_not_count(
    payer: Any, forged: list[Any], gateways: list[str], data: st.DataObject
) -> None:
    """However gateways split the list into lines."""
    own = client_address(str(payer), [], ())
    assume(own is not None and not any(ipaddress.ip_address(own) in network for network in PROXIES))
    hops = [*map(str, forged), str(payer), *gateways]
    breaks = data.draw(st.lists(st.booleans(), min_size=len(hops), max_size=len(hops)))
    lines: list[str] = []
    for hop, starts_line in zip(hops, breaks, strict=True):
        if starts_line or not lines:
            lines.append(hop)
        else:
            lines[-1] += f", {hop}"
    headers = [(b"x-forwarded-for", line.encode()) for line in lines]
    assert client_address("10.0.0.1", headers, PROXIES) == own
