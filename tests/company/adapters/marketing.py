"""Campaigns: a search by POST that answers in JSON lines, the last of which counts them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from cashier.source_errors import Garbled
from cashier.wire.transport import Request, Response

from .amounts import bps, decimal, money
from .bank_numbers import PROVIDERS
from .times import from_epoch


def request(asked: Mapping[str, Any]) -> Request:
    basket = f"{asked['amount'].currency} {decimal(asked['amount'])}"
    query = {"customer": asked["user_id"], "shop": asked["merchant_id"], "basket": basket}
    return Request("/campaigns/_search", "POST", json.dumps(query).encode())


def parse(response: Response, asked: Mapping[str, Any]) -> dict[str, Any]:
    *hits, end = (json.loads(line) for line in response.body.splitlines())
    if end["line"] != "end" or end["hits"] != len(hits):
        raise Garbled("a search that broke off")
    if any(hit["line"] not in ("offer", "push") for hit in hits):
        raise Garbled("a line that is neither an offer nor a push")
    return {
        "user_id": end["customer"],
        "promotions": [promotion(hit) for hit in hits if hit["line"] == "offer"],
        "boosts": [boost(hit) for hit in hits if hit["line"] == "push"],
    }


def promotion(hit: Any) -> dict[str, Any]:
    off = hit.get("off", "")
    return {
        "promotion_id": hit["id"],
        "type": hit["sort"].upper(),
        "title": hit["headline"],
        "threshold": amount(hit["minSpend"]),
        "amount_off": amount(off) if off and not off.endswith(" %") else None,
        "percent_off_bps": bps(off.removesuffix(" %")) if off.endswith(" %") else None,
        "cap": amount(hit["atMost"]) if "atMost" in hit else None,
        "kinds": hit["means"],
        "banks": [PROVIDERS.get(number, number) for number in hit["bankNos"]] if "bankNos" in hit else None,
        "group": hit["pool"],
        "stackable": {"yes": True, "no": False}[hit["combinable"]],
        "expires_at": from_epoch(hit["until"] / 1000) if "until" in hit else None,
    }


def boost(hit: Any) -> dict[str, Any]:
    return {"kind": hit["means"], "weight_bps": bps(hit["by"].removesuffix(" %")), "label": hit["slogan"]}


def amount(text: str) -> dict[str, Any]:
    return money(*text.split(" "))
