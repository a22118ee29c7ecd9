"""What discovery finds, a line for each source."""

from __future__ import annotations

from cashier.wire.resolver import Resolution, ResolvedAddress

# Enough to see that it is the right list.
_SHOWN = 8


def discovery_line(source: str, found: Resolution) -> str:
    addresses = found.addresses
    shown = ", ".join(map(_address, addresses[:_SHOWN]))
    more = f" and {len(addresses) - _SHOWN} more" if len(addresses) > _SHOWN else ""
    lives = "" if found.ttl_s is None else f"; they hold for {found.ttl_s:g} s"
    count = "1 address" if len(addresses) == 1 else f"{len(addresses)} addresses"
    return f"[sources.{source}] discover finds {count}: {shown}{more}{lives}"


def discovery_warning(source: str, failure: OSError) -> str:
    reason = failure.strerror or str(failure) or type(failure).__name__
    return f"[sources.{source}] discover finds no address: {reason}; without one the source cannot be called"


def _address(address: ResolvedAddress) -> str:
    host = f"[{address.ip}]" if ":" in address.ip else address.ip
    port = "" if address.port is None else f":{address.port}"
    rank = [f"priority {address.priority}"] if address.priority else []
    if address.weight != 1:
        rank.append(f"weight {address.weight:g}")
    return f"{host}{port} ({', '.join(rank)})" if rank else f"{host}{port}"
