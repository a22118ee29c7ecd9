"""Builders of the contract's records. The countries' data are written with them.

A duration in a record is relative to the start of the world; `resolve_times` makes it a time.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

from msgspec import Struct

Json = dict[str, Any]

APP_AND_WEB = ("APP", "H5", "PC", "SDK", "MINI_PROGRAM")
EVERYWHERE = (*APP_AND_WEB, "POS")


class SimulatedUser(Struct, frozen=True, kw_only=True):
    """The upstreams' records of one user. None: that service does not know the user (404)."""

    member: Json
    cards: list[Json] | None = None
    agreements: tuple[Json, ...] = ()
    accounts: list[Json] | None = None
    promotions: list[Json] | None = None
    boosts: tuple[Json, ...] = ()
    quotas: list[Json] | None = None


class Country(Struct, frozen=True, kw_only=True):
    """One country: its time zone, merchants, users, orders and channels."""

    code: str
    utc_offset_h: int
    merchants: tuple[Json, ...]
    users: tuple[SimulatedUser, ...]
    orders: tuple[Json, ...]
    channels: tuple[Json, ...]


def money(currency: str, value: int) -> Json:
    """`value` in minor units."""
    return {"currency": currency, "value": value}


def merchant(
    merchant_id: str,
    name: str,
    *,
    country: str,
    mcc: str,
    kinds: tuple[str, ...],
    products: tuple[str, ...],
    status: str = "ACTIVE",
) -> Json:
    return {
        "merchant_id": merchant_id,
        "name": name,
        "status": status,
        "country": country,
        "mcc": mcc,
        "products": products,
        "kinds": kinds,
    }


def member(
    user_id: str,
    *,
    country: str,
    usage: dict[str, int],
    kyc_level: int = 3,
    status: str = "ACTIVE",
    last_used: tuple[str, str] | None = None,
) -> Json:
    """`usage`: payments by kind. `last_used`: a kind and the instrument's id."""
    record = {
        "user_id": user_id,
        "status": status,
        "country": country,
        "kyc_level": kyc_level,
        "usage": [{"kind": kind, "count": count} for kind, count in usage.items()],
    }
    if last_used:
        record["last_used"] = {"kind": last_used[0], "instrument_id": last_used[1]}
    return record


def card(
    card_id: str, bank: str, bank_name: str, card_type: str, brand: str, last4: str, expiry: str, status: str = "ACTIVE"
) -> Json:
    return {
        "card_id": card_id,
        "bank": bank,
        "bank_name": bank_name,
        "type": card_type,
        "brand": brand,
        "last4": last4,
        "expiry": expiry,
        "status": status,
    }


def agreement(
    agreement_id: str, merchant_id: str, channel_id: str, *, single_max: Json | None = None, status: str = "ACTIVE"
) -> Json:
    record = {"agreement_id": agreement_id, "merchant_id": merchant_id, "channel_id": channel_id, "status": status}
    return _with(record, single_max=single_max)


def account(account_id: str, account_type: str, available: Json, status: str = "ACTIVE") -> Json:
    return {"account_id": account_id, "type": account_type, "status": status, "available": available}


def promotion(
    promotion_id: str,
    promotion_type: str,
    title: str,
    threshold: Json,
    *,
    group: str,
    stackable: bool = True,
    kinds: tuple[str, ...] = (),
    **optional: Any,
) -> Json:
    """`optional`: `amount_off`, or `percent_off_bps` with `cap`; `banks`, `expires_at`."""
    record = {
        "promotion_id": promotion_id,
        "type": promotion_type,
        "title": title,
        "threshold": threshold,
        "kinds": kinds,
        "group": group,
        "stackable": stackable,
    }
    return _with(record, **optional)


def boost(kind: str, weight_bps: int, label: str) -> Json:
    return {"kind": kind, "weight_bps": weight_bps, "label": label}


def channel(
    channel_id: str,
    kind: str,
    provider: str,
    provider_name: str,
    carries: tuple[Json, Json],
    *,
    cost_bps: int,
    success_bps: int = 9_900,
    terminals: tuple[str, ...] = APP_AND_WEB,
    status: str = "OPEN",
    **optional: Any,
) -> Json:
    """`carries`: minimum and maximum of one payment.

    `optional`: `until, fixed_cost, fee_bps, products, brands, card_types`.
    """
    record = {
        "channel_id": channel_id,
        "kind": kind,
        "provider": provider,
        "provider_name": provider_name,
        "status": status,
        "currencies": [carries[0]["currency"]],
        "min": carries[0],
        "max": carries[1],
        "cost_bps": cost_bps,
        "success_bps": success_bps,
        "terminals": terminals,
    }
    return _with(record, **optional)


def quota(
    scope: Json,
    *,
    single: Json | None = None,
    daily: tuple[Json, Json] | None = None,
    monthly: tuple[Json, Json] | None = None,
) -> Json:
    """`daily`, `monthly`: the limit and how much of it is used."""
    periods = {
        name: {"limit": pair[0], "used": pair[1]} for name, pair in (("daily", daily), ("monthly", monthly)) if pair
    }
    return _with({"scope": scope}, single=single) | periods


def order(
    order_id: str,
    merchant_id: str,
    user_id: str | None,
    amount: Json,
    title: str,
    *,
    country: str,
    category: str,
    **optional: Any,
) -> Json:
    """`optional`: `product, status, expires_at`; result: `payment_id, paid, closed_reason`."""
    record = {
        "order_id": order_id,
        "merchant_id": merchant_id,
        "status": "PENDING",
        "amount": amount,
        "product": "STANDARD_CASHIER",
        "country": country,
        "category": category,
        "title": title,
        "expires_at": timedelta(hours=24),
    }
    return _with(record, user_id=user_id, **optional)


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


def _with(record: Json, **optional: Any) -> Json:
    """Add the fields that have a value: in the contract a missing field is absent, not null."""
    return record | {name: value for name, value in optional.items() if value is not None}
