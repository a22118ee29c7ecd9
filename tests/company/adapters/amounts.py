"""Amounts of the company's services as money of the contract: whole minor units."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

_DIGITS = {"CNY": 2, "IDR": 2, "JPY": 0, "KWD": 3}
_DECIMAL = re.compile(r"\d{1,12}(\.\d{1,9})?|\d{1,3}(,\d{3}){1,3}(\.\d{1,9})?")


def money(currency: str, amount: str | Decimal) -> dict[str, Any]:
    """Of `12,800.00` or a Decimal. Raises ValueError for what is no amount of the currency."""
    if isinstance(amount, str) and not _DECIMAL.fullmatch(amount):
        raise ValueError("no decimal amount")
    minor = Decimal(str(amount).replace(",", "")).scaleb(_DIGITS[currency])
    if minor != int(minor):
        raise ValueError("a part of a minor unit")
    return {"currency": currency, "value": int(minor)}


def decimal(money: Any) -> str:
    """Of a `Money` of the cashier, without separators: `128.00`."""
    return f"{Decimal(money.value).scaleb(-_DIGITS[money.currency]):f}"


def bps(percent: str) -> int:
    """Of a percentage such as `2.50`."""
    points = Decimal(percent) * 100
    if points != int(points):
        raise ValueError("a part of a basis point")
    return int(points)
