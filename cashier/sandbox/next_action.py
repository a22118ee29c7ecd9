"""The next action of a payer, by the kind of the channel. Shapes are those of the contract."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from cashier.sandbox.records import Json

# Kinds whose payer confirms in an app.
_APPS = frozenset({"WALLET", "INSTALMENT"})
# Usual lifetimes of a request to pay.
ACTION_LIFETIMES = {
    "CARD": timedelta(minutes=15),
    "NET_BANKING": timedelta(minutes=30),
    "WALLET": timedelta(minutes=14),
    "INSTALMENT": timedelta(minutes=14),
    "VA": timedelta(hours=24),
    "OTC": timedelta(hours=48),
    "MERCHANT_QR": timedelta(hours=2),
}


class ActionRequest(NamedTuple):
    """The payment that an action is for. `page`: URL of its bank page, None if no server runs."""

    channel: Json
    payment_id: str
    amount: Json
    expires_at: str
    page: str | None


def next_action(channel: Json, payment_id: str, amount: Json, until: datetime, page: str | None = None) -> Json:
    """The action for a kind that the payer completes elsewhere, valid `until` then."""
    expires_at = until.astimezone(UTC).isoformat(timespec="seconds")
    return _ACTIONS[channel["kind"]](
        ActionRequest(channel=channel, payment_id=payment_id, amount=amount, expires_at=expires_at, page=page)
    )


def _redirect(request: ActionRequest) -> Json:
    host = _host(request.channel)
    url = request.page or f"https://{host}.example/pay/{request.payment_id}"
    action = {"type": "REDIRECT", "method": "GET", "url": url}
    return action | {"applink": f"{host}://pay/{request.payment_id}"} if request.channel["kind"] in _APPS else action


def _virtual_account(request: ActionRequest) -> Json:
    return {
        "type": "DISPLAY_VA",
        "bank": request.channel["provider"],
        "account_no": f"88{_digits(request.payment_id, 14)}",
        "account_name": "Cashier sandbox",
        "amount": request.amount,
        "expires_at": request.expires_at,
    }


def _counter_code(request: ActionRequest) -> Json:
    code = _digits(request.payment_id, 12)
    institution = request.channel["provider_name"]
    action = {
        "type": "DISPLAY_CODE",
        "code": code,
        "barcode": code,
        "institution": institution,
        "expires_at": request.expires_at,
    }
    return action | {"instructions_url": request.page} if request.page else action


def _merchant_code(request: ActionRequest) -> Json:
    code = request.page or f"https://{_host(request.channel)}.example/qr/{request.payment_id}"
    return {"type": "DISPLAY_QR", "data": code, "expires_at": request.expires_at}


def _host(channel: Json) -> str:
    provider: str = channel["provider"]
    return provider.lower().replace("_", "-")


def _digits(payment_id: str, length: int) -> str:
    """Digits derived from a payment id: the same in every process."""
    return str(int.from_bytes(payment_id.encode(), "big") % (10**length - 1)).zfill(length)


_ACTIONS: dict[str, Callable[[ActionRequest], Json]] = {
    "CARD": _redirect,
    "NET_BANKING": _redirect,
    "WALLET": _redirect,
    "INSTALMENT": _redirect,
    "VA": _virtual_account,
    "OTC": _counter_code,
    "MERCHANT_QR": _merchant_code,
}
