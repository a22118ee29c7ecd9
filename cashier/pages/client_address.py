"""The payer's address, for the risk service: what the trusted gateways say, and no more."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from typing import TypeAlias

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
# Gateways in a row. A longer chain is forged.
_MOST_HOPS = 16


def client_address(peer: str | None, headers: Mapping[bytes, bytes], proxies: Sequence[Network]) -> str | None:
    """The nearest address that is no trusted proxy; None if it is unknown.

    `peer`: of the connection. Each proxy adds the address of its own peer at the end of
    `X-Forwarded-For`, so the list counts from its end, and what a stranger wrote before that does
    not count. Without a trusted peer the header is a claim of anyone.
    """
    hops = headers.get(b"x-forwarded-for", b"").decode("latin-1").split(",")[-_MOST_HOPS:]
    address = peer
    for hop in reversed(hops):
        if not _is_trusted(address, proxies):
            break
        parsed = _parsed(hop.strip())
        if parsed is None:
            break
        address = parsed
    return address


def _is_trusted(address: str | None, proxies: Sequence[Network]) -> bool:
    if address is None:
        return False
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    return any(parsed in network for network in proxies)


def _parsed(hop: str) -> str | None:
    """An address in its usual form; some gateways add a port or brackets."""
    if hop.count(":") == 1:
        hop = hop.partition(":")[0]
    elif hop.startswith("["):
        hop = hop[1:].partition("]")[0]
    try:
        address = ipaddress.ip_address(hop)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)
