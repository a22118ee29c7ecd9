"""Limits: one row per scope and window. A scope that cannot be read could hide a limit: garbled."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any
from urllib.parse import urlencode

from cashier.source_errors import WrongIdentity
from cashier.wire.transport import Request, Response

from .amounts import money
from .bank_numbers import PROVIDERS

statuses = frozenset((200, 204))
WINDOWS = {"1d": "daily", "1m": "monthly"}


def request(asked: Mapping[str, Any]) -> Request:
    form = urlencode({"subject": asked["user_id"], "ccy": asked["currency"]}).encode()
    return Request("/limits/query", "POST", form, headers=(("Content-Type", "application/x-www-form-urlencoded"),))


def parse(response: Response, asked: Mapping[str, Any]) -> dict[str, Any] | None:
    if response.status == 204:
        return None
    table = response.json()
    if table["ccy"] != asked["currency"]:
        raise WrongIdentity("limits in another currency")
    quotas: dict[str, dict[str, Any]] = {}
    for values in table["rows"]:
        row = dict(zip(table["columns"], values, strict=True))
        quota = quotas.setdefault(row["scope"], {"scope": scope(row["scope"])})
        cap = micros(row["cap"], table["ccy"])
        window = "single" if row["window"] == "each" else WINDOWS[row["window"]]
        if window in quota:
            raise ValueError("two limits for one scope and window")
        quota[window] = cap if window == "single" else {"limit": cap, "used": micros(row["spent"], table["ccy"])}
    return {"user_id": table["subject"], "quotas": list(quotas.values())}


def scope(text: str) -> dict[str, str]:
    kind, *parts = text.split(";")
    found = {"kind": kind}
    for name, value in (part.split("=") for part in parts):
        key = {"bank": "bank", "channel": "channel_id", "card": "card_id"}[name]
        found[key] = PROVIDERS[value] if name == "bank" else value
    return found


def micros(value: int, currency: str) -> dict[str, Any]:
    return money(currency, Decimal(value).scaleb(-6))
