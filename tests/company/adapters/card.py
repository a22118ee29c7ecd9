"""Cards and mandates: two answers at once, base64 in JSON, bank numbers, expiry as MMYY."""

from __future__ import annotations

import asyncio
import json
from base64 import b64decode
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import quote

from cashier.source_errors import Garbled, WrongIdentity
from cashier.wire.transport import Request, Response

from .bank_numbers import PROVIDERS

CARD_STATES = {"0": "ACTIVE", "4": "FROZEN", "8": "UNBOUND"}
MANDATE_STATES = {"0": "ACTIVE", "9": "TERMINATED", "5": "SUSPENDED", "7": "EXPIRED"}


async def answer(asked: Mapping[str, Any], call: Callable[[Request], Awaitable[Response]]) -> dict[str, Any] | None:
    holder = quote(asked["user_id"], safe="")
    cards, mandates = await asyncio.gather(
        call(Request(f"/holders/{holder}/cards")), call(Request(f"/holders/{holder}/mandates"))
    )
    if cards.status == mandates.status == 404 and cards.json() == {"err": "no such holder"}:
        return None
    return {
        "user_id": asked["user_id"],
        "cards": [card(row) for row in rows(cards, asked["user_id"])],
        "agreements": [agreement(row) for row in rows(mandates, asked["user_id"])],
    }


def rows(response: Response, holder: str) -> Any:
    envelope = response.json()
    if envelope.get("enc") != "b64json":
        raise Garbled("an answer without a blob")
    content = json.loads(b64decode(envelope["blob"], validate=True))
    if content["holder"] != holder:
        raise WrongIdentity("cards of another holder")
    return content["rows"]


def card(row: Any) -> dict[str, Any]:
    month, year = row["thru"][:2], row["thru"][2:]
    return {
        "card_id": row["ref"],
        # A bank without a channel has no provider here; its cards are not offered.
        "bank": PROVIDERS.get(row["bankNo"], row["bankNo"]),
        "bank_name": row["bankName"],
        "bank_names": row.get("bankNameEn") and {"en": row["bankNameEn"]},
        "type": {"D": "DEBIT", "C": "CREDIT"}[row["dc"]],
        "brand": row["scheme"],
        "last4": row["tail"],
        "expiry": f"20{year}-{month}",
        # A state that the cashier does not know makes this card undetermined, not all of them.
        "status": CARD_STATES.get(row["st"], row["st"]),
    }


def agreement(row: Any) -> dict[str, Any]:
    limit = row["max"]
    return {
        "agreement_id": row["ref"],
        "merchant_id": row["shop"],
        "channel_id": row["route"],
        "status": MANDATE_STATES.get(row["st"], row["st"]),
        "single_max": limit and {"currency": limit[:3], "value": int(limit[3:])},
    }
