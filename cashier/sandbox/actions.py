"""What a payer is asked to do next, by the kind of the channel that takes the money. Shapes are those of the contract."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from cashier.sandbox.shapes import Json

# The usual lives of such a request to pay.
LIVES = {
    "NET_BANKING": timedelta(minutes=30),
    "WALLET": timedelta(minutes=14),
    "VA": timedelta(hours=24),
    "OTC": timedelta(hours=48),
    "MERCHANT_QR": timedelta(hours=2),
}


def next_action(channel: Json, payment_id: str, amount: Json, now: datetime) -> Json | None:
    """The action for a kind whose payer has yet to act elsewhere; None for every other kind."""
    make = _ACTIONS.get(channel["kind"])
    if make is None:
        return None
    expires_at = (now.astimezone(UTC) + LIVES[channel["kind"]]).isoformat(timespec="seconds")
    return make(channel, payment_id, amount, expires_at)


def _redirect(channel: Json, payment_id: str, amount: Json, expires_at: str) -> Json:
    host = channel["provider"].lower().replace("_", "-")
    action = {"type": "REDIRECT", "method": "GET", "url": f"https://{host}.example/pay/{payment_id}"}
    return action | {"applink": f"{host}://pay/{payment_id}"} if channel["kind"] == "WALLET" else action


def _virtual_account(channel: Json, payment_id: str, amount: Json, expires_at: str) -> Json:
    return {
        "type": "DISPLAY_VA",
        "bank": channel["provider"],
        "account_no": f"88{_digits(payment_id, 14)}",
        "account_name": "Cashier sandbox",
        "amount": amount,
        "expires_at": expires_at,
    }


def _counter_code(channel: Json, payment_id: str, amount: Json, expires_at: str) -> Json:
    code = _digits(payment_id, 12)
    return {"type": "DISPLAY_CODE", "code": code, "barcode": code, "institution": channel["provider_name"], "expires_at": expires_at}


def _merchant_code(channel: Json, payment_id: str, amount: Json, expires_at: str) -> Json:
    host = channel["provider"].lower().replace("_", "-")
    return {"type": "DISPLAY_QR", "data": f"https://{host}.example/qr/{payment_id}", "expires_at": expires_at}


def _digits(payment_id: str, length: int) -> str:
    """Digits that stand for a payment: the same for the same payment, in every process."""
    return str(int.from_bytes(payment_id.encode(), "big") % (10**length - 1)).zfill(length)


_ACTIONS: dict[str, Callable[[Json, str, Json, str], Json]] = {
    "NET_BANKING": _redirect,
    "WALLET": _redirect,
    "VA": _virtual_account,
    "OTC": _counter_code,
    "MERCHANT_QR": _merchant_code,
}
