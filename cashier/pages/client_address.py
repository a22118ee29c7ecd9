"""The payer's address, for the risk service: what the trusted gateways say, and no more."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence
from typing import TypeAlias

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
# Gateways in a row. A longer chain is forged.
_MOST_HOPS = 16
# Some gateways add a port, and write an IPv6 address in brackets then.
_HOP = re.compile(r"(?P<v4>[0-9.]{7,15})(?::[0-9]{1,5})?|\[(?P<v6>[0-9A-Fa-f:.]{2,45})\](?::[0-9]{1,5})?")


def client_address(peer: str | None, headers: Iterable[tuple[bytes, bytes]], proxies: Sequence[Network]) -> str | None:
    """The nearest address that is no trusted proxy; None if it is unknown.

    `peer`: of the connection. Each proxy adds the address of its own peer at the end of
    `X-Forwarded-For`, in its last line or in a line of its own, so the list counts from its end,
    and what a stranger wrote before that does not count. Without a trusted peer the header is a
    claim of anyone.
    """
    lines = [value.decode("latin-1") for name, value in headers if name == b"x-forwarded-for"]
    address = _parsed(peer or "")
    for hop in reversed(",".join(lines).split(",")[-_MOST_HOPS:]):
        if address is None or not any(address in network for network in proxies):
            break
        nearer = _parsed(hop.strip())
        if nearer is None:
            break
        address = nearer
    return None if address is None else str(address)


def _parsed(text: str) -> Address | None:
    """An address as gateways and sockets write it. A zone is of one machine, and says nothing."""
    match = _HOP.fullmatch(text)
    plain = text.partition("%")[0] if match is None else match["v4"] or match["v6"]
    try:
        address = ipaddress.ip_address(plain)
    except ValueError:
        return None
    # A socket that takes both kinds of addresses writes an IPv4 address so.
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address
