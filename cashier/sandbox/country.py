"""The countries of the sandbox: named merchants, users, orders and channels in `worlds/*.toml`.

A file states records in the contract's fields, with these abbreviations: an amount is a number of
minor units of the country's currency; a time is `{hours = n}` after the start of the world; a
record's id is its key; `[[channels]]` states what its `rails` share; a quota names the fields of
its scope directly and writes `daily` and `monthly` as `[limit, used]`.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from datetime import timedelta
from importlib.resources import files
from typing import Any

from msgspec import Struct

from cashier.sandbox.records import Json, SimulatedUser, money, record

_AMOUNTS = frozenset(("amount", "paid", "available", "threshold", "amount_off", "cap", "min", "max", "fixed_cost"))
_AMOUNTS |= {"single", "single_max", "limit", "used"}
_QUOTA_SCOPE = ("kind", "bank", "channel_id", "card_id")
# A user's lists, and the type of their records.
_HOLDINGS = {
    "cards": "card",
    "agreements": "agreement",
    "accounts": "account",
    "promotions": "promotion",
    "boosts": "boost",
}


class Country(Struct, frozen=True, kw_only=True):
    """One country: its time zone, merchants, users, orders and channels."""

    code: str
    utc_offset_h: int
    merchants: list[Json]
    users: list[SimulatedUser]
    orders: list[Json]
    channels: list[Json]


def load_country(name: str) -> Country:
    """The country of `worlds/<name>.toml`."""
    raw = tomllib.loads(files("cashier.sandbox").joinpath("worlds", f"{name}.toml").read_text("utf-8"))
    for user in raw["users"].values():
        user["quotas"] = [_quota(fields) for fields in user["quotas"]] if "quotas" in user else None
    table = _expand(raw, raw["currency"])
    code = table["code"]
    return Country(
        code=code,
        utc_offset_h=table["utc_offset_h"],
        merchants=[
            record("merchant", merchant_id=merchant_id, country=code, **fields)
            for merchant_id, fields in table["merchants"].items()
        ],
        users=[_user(user_id, code, fields) for user_id, fields in table["users"].items()],
        orders=[
            record("order", order_id=order_id, country=code, **fields) for order_id, fields in table["orders"].items()
        ],
        channels=list(_channels(table["channels"], table["currency"])),
    )


def _quota(fields: Json) -> Json:
    scope = {name: fields.pop(name) for name in _QUOTA_SCOPE if name in fields}
    for period in ("daily", "monthly"):
        if period in fields:
            fields[period] = dict(zip(("limit", "used"), fields[period], strict=True))
    return {"scope": scope, **fields}


def _expand(value: Any, currency: str) -> Any:
    """Replace abbreviated amounts and times in `value`."""
    match value:
        case {"hours": hours}:
            return timedelta(hours=hours)
        case dict():
            return {
                name: money(currency, part) if name in _AMOUNTS else _expand(part, currency)
                for name, part in value.items()
            }
        case list():
            return [_expand(part, currency) for part in value]
    return value


def _user(user_id: str, country: str, fields: Json) -> SimulatedUser:
    usage = [{"kind": kind, "count": count} for kind, count in fields.pop("usage", {}).items()]
    quotas = fields.pop("quotas")
    holdings = {
        name: [record(record_type, **holding) for holding in fields.pop(name)]
        for name, record_type in _HOLDINGS.items()
        if name in fields
    }
    member = record("member", user_id=user_id, country=country, usage=usage, **fields)
    return SimulatedUser(member=member, quotas=quotas, **holdings)


def _channels(groups: list[Json], currency: str) -> Iterator[Json]:
    for group in groups:
        rails = group.pop("rails")
        for channel_id, fields in rails.items():
            yield record("channel", channel_id=channel_id, currencies=[currency], **group | fields)
