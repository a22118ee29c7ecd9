"""Routes by JSON:API with included providers. A 304 stands for the last answer."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any
from urllib.parse import urlencode

from cashier.source_errors import Garbled, WrongIdentity
from cashier.sources.adapter_settings import AdapterSettings
from cashier.wire.transport import Request, Response

from .amounts import bps, money

STATES = {"up": "OPEN", "down": "CLOSED", "paused": "MAINTENANCE"}


class Channels:
    statuses = frozenset((200, 304))

    def __init__(self, settings: AdapterSettings) -> None:
        self._known: dict[str, tuple[str, dict[str, Any]]] = {}

    def request(self, asked: Mapping[str, Any]) -> Request:
        tag, _ = self._known.get(market(asked), ("", {}))
        query = {"filter[currency]": asked["currency"], "filter[country]": asked["country"]}
        headers = (("Accept", "application/vnd.api+json"), *((("If-None-Match", tag),) if tag else ()))
        return Request(f"/routes?{urlencode(query)}", headers=headers)

    def parse(self, response: Response, asked: Mapping[str, Any]) -> dict[str, Any]:
        tag = response.headers["ETag"]
        if response.status == 304:
            known_tag, known = self._known[market(asked)]
            if tag != known_tag:
                raise Garbled("a 304 for an answer that is not the last one")
            return known
        listing = response.json()
        if listing["meta"]["market"] != market(asked):
            raise WrongIdentity("routes of another market")
        if listing["meta"]["total"] != len(listing["data"]):
            raise Garbled("an incomplete list of routes")
        providers = {each["id"]: each["attributes"] for each in listing["included"] if each["type"] == "provider"}
        mapping = {"channels": [channel(each, providers) for each in listing["data"]]}
        self._known[market(asked)] = tag, mapping
        return mapping


def market(asked: Mapping[str, Any]) -> str:
    return f"{asked['country']}/{asked['currency']}"


def channel(route: Any, providers: Mapping[str, Any]) -> dict[str, Any]:
    field = route["attributes"]
    provider = providers[route["relationships"]["provider"]["data"]["id"]]
    return {
        "channel_id": route["id"],
        "kind": field["means"],
        "provider": provider["code"],
        "provider_name": provider["name"],
        "provider_names": {"en": provider["nameEn"]},
        "status": STATES.get(field["state"], field["state"]),
        "until": field["resumesAt"],
        "currencies": field["currencies"],
        "min": amount(field["limits"]["from"]),
        "max": amount(field["limits"]["to"]),
        "cost_bps": bps(field["costPercent"]),
        "fixed_cost": field["costFixed"] and amount(field["costFixed"]),
        "fee_bps": None if field["feePercent"] is None else bps(field["feePercent"]),
        "success_bps": bps(field["successPercent"]),
        "terminals": field["terminals"],
        "products": field["products"],
        "brands": field["schemes"],
        "card_types": field["cardTypes"],
        "step": 1 if field["grain"] is None else field["grain"],
        "terms": field["plans"] and [term(plan) for plan in field["plans"]],
    }


def term(plan: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "term_id": plan["id"],
        "count": plan["times"],
        "fee_bps": bps(plan["feePercent"]),
        "apr_bps": bps(plan["yearPercent"]),
    }


def amount(parts: Any) -> dict[str, Any]:
    return money(parts["currency"], Decimal(parts["units"]) + Decimal(parts["nanos"]).scaleb(-9))
