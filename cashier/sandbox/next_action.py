"""What a payer is asked to do next, by the kind of the channel that takes the money. Shapes are those of the contract."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from cashier.sandbox.contract_shapes import Json

# The usual lives of such a request to pay.
ACTION_LIFETIMES = {
    "CARD": timedelta(minutes=15),
    "NET_BANKING": timedelta(minutes=30),
    "WALLET": timedelta(minutes=14),
    "VA": timedelta(hours=24),
    "OTC": timedelta(hours=48),
    "MERCHANT_QR": timedelta(hours=2),
}


class ActionRequest(NamedTuple):
    """What the payer is asked for. `page` is the address of the sandbox's own bank page for it, None where no server runs."""

    channel: Json
    payment_id: str
    amount: Json
    expires_at: str
    page: str | None


def next_action(channel: Json, payment_id: str, amount: Json, until: datetime, page: str | None = None) -> Json:
    """The action for a kind whose payer has yet to act elsewhere, `until` its end."""
    expires_at = until.astimezone(UTC).isoformat(timespec="seconds")
    return _ACTIONS[channel["kind"]](ActionRequest(channel, payment_id, amount, expires_at, page))


def _redirect(asked: ActionRequest) -> Json:
    host = _host(asked.channel)
    url = asked.page or f"https://{host}.example/pay/{asked.payment_id}"
    action = {"type": "REDIRECT", "method": "GET", "url": url}
    return action | {"applink": f"{host}://pay/{asked.payment_id}"} if asked.channel["kind"] == "WALLET" else action


def _virtual_account(asked: ActionRequest) -> Json:
    return {
        "type": "DISPLAY_VA",
        "bank": asked.channel["provider"],
        "account_no": f"88{_digits(asked.payment_id, 14)}",
        "account_name": "Cashier sandbox",
        "amount": asked.amount,
        "expires_at": asked.expires_at,
    }


def _counter_code(asked: ActionRequest) -> Json:
    code = _digits(asked.payment_id, 12)
    institution = asked.channel["provider_name"]
    action = {
        "type": "DISPLAY_CODE",
        "code": code,
        "barcode": code,
        "institution": institution,
        "expires_at": asked.expires_at,
    }
    return action | {"instructions_url": asked.page} if asked.page else action


def _merchant_code(asked: ActionRequest) -> Json:
    code = asked.page or f"https://{_host(asked.channel)}.example/qr/{asked.payment_id}"
    return {"type": "DISPLAY_QR", "data": code, "expires_at": asked.expires_at}


def _host(channel: Json) -> str:
    provider: str = channel["provider"]
    return provider.lower().replace("_", "-")


def _digits(payment_id: str, length: int) -> str:
    """Digits that stand for a payment: the same for the same payment, in every process."""
    return str(int.from_bytes(payment_id.encode(), "big") % (10**length - 1)).zfill(length)


_ACTIONS: dict[str, Callable[[ActionRequest], Json]] = {
    "CARD": _redirect,
    "NET_BANKING": _redirect,
    "WALLET": _redirect,
    "VA": _virtual_account,
    "OTC": _counter_code,
    "MERCHANT_QR": _merchant_code,
}
