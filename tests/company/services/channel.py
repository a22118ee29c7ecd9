"""Routes to banks and wallets, as JSON:API with included providers, and 304 for what is known."""

from __future__ import annotations

import json
from hashlib import sha256

from aiohttp import web

from cashier.sandbox.records import Json
from tests.company.services.records import Records, decimal

STATES = {"OPEN": "up", "CLOSED": "down", "MAINTENANCE": "paused"}


def routes(records: Records) -> list[web.RouteDef]:
    async def listing(request: web.Request) -> web.Response:
        currency, country = request.query["filter[currency]"], request.query["filter[country]"]
        held = records.read("channel", currency=currency, country=country)
        channels = held["channels"] if held else []
        meta = {"market": f"{'XX' if 'channel' in records.mistaken else country}/{currency}", "total": len(channels)}
        partners = sorted({partner(each) for each in channels})
        included = [
            {"type": "provider", "id": str(number), "attributes": {"code": code, "name": name, "nameEn": english}}
            for number, (code, name, english) in enumerate(partners)
        ]
        text = json.dumps({"data": [route(each, partners) for each in channels], "included": included, "meta": meta})
        tag = f'"{sha256(text.encode()).hexdigest()[:16]}"'
        if request.headers.get("If-None-Match") == tag:
            return web.Response(status=304, headers={"ETag": tag})
        return web.Response(text=text, content_type="application/vnd.api+json", headers={"ETag": tag})

    return [web.get("/v3/routes", listing)]


def partner(held: Json) -> tuple[str, str, str]:
    return held["provider"], held["provider_name"], held.get("provider_names", {}).get("en", held["provider_name"])


def route(held: Json, partners: list[tuple[str, str, str]]) -> Json:
    attributes = {
        "means": held["kind"],
        "state": STATES[held["status"]],
        "resumesAt": held.get("until"),
        "currencies": held["currencies"],
        "limits": {"from": nanos(held["min"]), "to": nanos(held["max"])},
        "costPercent": percent(held["cost_bps"]),
        "costFixed": nanos(held["fixed_cost"]) if "fixed_cost" in held else None,
        "feePercent": percent(held["fee_bps"]) if "fee_bps" in held else None,
        "successPercent": percent(held["success_bps"]),
        "terminals": held["terminals"],
        "products": held.get("products"),
        "schemes": held.get("brands"),
        "cardTypes": held.get("card_types"),
        "grain": held.get("step"),
        "plans": held.get("terms") and [plan(each) for each in held["terms"]],
    }
    number = partners.index(partner(held))
    related = {"provider": {"data": {"type": "provider", "id": str(number)}}}
    return {"type": "route", "id": held["channel_id"], "attributes": attributes, "relationships": related}


def plan(term: Json) -> Json:
    return {
        "id": term["term_id"],
        "times": term["count"],
        "feePercent": percent(term["fee_bps"]),
        "yearPercent": percent(term["apr_bps"]),
    }


def percent(bps: int) -> str:
    return f"{bps / 100:.2f}"


def nanos(money: Json) -> Json:
    units, rest = divmod(decimal(money), 1)
    return {"currency": money["currency"], "units": str(units), "nanos": int(rest * 10**9)}
