"""Transfers: ids of the engine's own, found by a search for the beginning of our reference.

There is no reverse. A transfer is cancelled by its own id; a reference without one is barred.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import quote, urlencode

from cashier.payments.ports import Submission
from cashier.source_errors import Garbled, WrongIdentity
from cashier.wire.transport import Request, Response

from .amounts import decimal, money
from .times import from_epoch

statuses = frozenset((200, 201, 409))
STATES = {10: "PROCESSING", 20: "ACTION_REQUIRED", 21: "USER_PAYING", 50: "SUCCEEDED", 60: "FAILED"}
FINAL = ("SUCCEEDED", "FAILED")
Call = Callable[[Request], Awaitable[Response]]


async def submit(submission: Submission, call: Call) -> dict[str, Any]:
    body = json.dumps(transfer_of(submission)).encode()
    response = await call(Request("/transfers", "POST", body))
    made = response.json()
    if response.status == 201:
        return payment(made)
    if response.status == 409 and made["problem"] == "order-locked":
        return {"code": "ORDER_BUSY", "payment_id": made["by"]}
    if response.status == 409 and made["problem"] == "reference-taken":
        return {"code": "KEY_REUSED"}
    raise Garbled(f"status {response.status} to a transfer")


async def look_up(payment_id: str, order_id: str, call: Call) -> dict[str, Any] | None:
    transfer = await found(payment_id, call)
    return None if transfer is None else payment(transfer)


async def reverse(payment_id: str, order_id: str, call: Call) -> dict[str, Any]:
    transfer = await found(payment_id, call)
    if transfer is None:
        barred = await call(Request(f"/barred/{quote(payment_id, safe='')}", "PUT"))
        # With 409 it arrived just now: the next attempt finds it.
        if barred.status != 200 or barred.json()["barred"] != payment_id:
            raise Garbled("the reference could not be barred")
        return {"code": "PAYMENT_UNKNOWN"}
    if payment(transfer)["status"] in FINAL:
        return payment(transfer)
    cancelled = await call(Request(f"/transfers/{quote(transfer['id'], safe='')}/cancellation", "POST"))
    return payment(cancelled.json())


async def found(payment_id: str, call: Call) -> dict[str, Any] | None:
    transfers = (await call(Request(f"/transfers?{urlencode({'reference': payment_id})}"))).json()["found"]
    if not all(transfer["reference"].startswith(payment_id) for transfer in transfers):
        raise WrongIdentity("transfers that were not searched for")
    exact = [transfer for transfer in transfers if transfer["reference"] == payment_id]
    if len(exact) > 1:
        raise Garbled("two transfers with one reference")
    return exact[0] if exact else None


def payment(transfer: Any) -> dict[str, Any]:
    why, accepted, until = (transfer.get(name) for name in ("why", "acceptedAt", "payUntil"))
    method_id, option_id = transfer.get("way", (None, None))
    total = transfer.get("total")
    todo = [{"type": kind, **fields} for kind, fields in transfer.get("todo", {}).items()]
    return {
        "payment_id": transfer["reference"],
        "order_id": transfer.get("order"),
        "fingerprint": transfer.get("digest"),
        "submitted_at": None if accepted is None else from_epoch(accepted / 1000),
        "user_id": transfer.get("payer"),
        "merchant_id": transfer.get("payee"),
        "method_id": method_id,
        "option_id": option_id,
        "amount": total and money(*reversed(total.split(" "))),
        "expires_at": None if until is None else from_epoch(until / 1000),
        "status": STATES[transfer["state"]],
        "failure": why and {"code": why[0], "text": why[1]},
        "next_action": todo[0] if todo else None,
    }


def transfer_of(submission: Submission) -> dict[str, Any]:
    parts = [
        {
            "from": leg.type.lower(),
            "id": leg.id,
            "sum": decimal(leg.amount),
            "via": leg.channel_id,
            "with": leg.instrument_id,
            "plan": leg.term_id,
        }
        for leg in submission.legs
    ]
    return {
        "reference": submission.payment_id,
        "order": submission.order_id,
        "payer": submission.user_id,
        "payee": submission.merchant_id,
        "digest": submission.fingerprint,
        "clearance": submission.decision_id,
        "currency": submission.amount.currency,
        "parts": parts,
        "fallbacks": list(submission.alternatives),
        "scanned": submission.auth_code,
        "comeBackTo": submission.return_url,
        "way": [submission.method_id, submission.option_id],
    }
