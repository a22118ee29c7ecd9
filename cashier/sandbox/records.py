"""The upstreams' records in the contract's shape.

A duration in a record is relative to the start of the world; `resolve_times` makes it a time.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

from msgspec import Struct

Json = dict[str, Any]

# Fields that most records of a type share.
_DEFAULTS: dict[str, Json] = {
    "merchant": {"status": "ACTIVE"},
    "member": {"status": "ACTIVE", "kyc_level": 3, "usage": []},
    "card": {"status": "ACTIVE"},
    "agreement": {"status": "ACTIVE"},
    "account": {"status": "ACTIVE"},
    "promotion": {"kinds": (), "stackable": True},
    "boost": {},
    "channel": {"status": "OPEN", "success_bps": 9_900, "terminals": ("APP", "H5", "PC", "SDK", "MINI_PROGRAM")},
    "order": {"status": "PENDING", "product": "STANDARD_CASHIER", "expires_at": timedelta(hours=24)},
}


class SimulatedUser(Struct, frozen=True, kw_only=True):
    """The upstreams' records of one user. None: that service does not know the user (404)."""

    member: Json
    cards: list[Json] | None = None
    agreements: list[Json] = []
    accounts: list[Json] | None = None
    promotions: list[Json] | None = None
    boosts: list[Json] = []
    quotas: list[Json] | None = None


def record(record_type: str, **fields: Any) -> Json:
    """A record of `record_type`, completed by the fields that most records of the type share."""
    return _DEFAULTS[record_type] | fields


def money(currency: str, value: int) -> Json:
    """`value` in minor units."""
    return {"currency": currency, "value": value}


def resolve_times(value: Any, start: datetime, utc_offset_h: int) -> Any:
    """Replace the durations in `value` by RFC 3339 times after `start`, in that offset."""
    match value:
        case timedelta():
            return (start + value).astimezone(timezone(timedelta(hours=utc_offset_h))).isoformat(timespec="seconds")
        case dict():
            return {name: resolve_times(part, start, utc_offset_h) for name, part in value.items()}
        case list() | tuple():
            return [resolve_times(part, start, utc_offset_h) for part in value]
    return value
