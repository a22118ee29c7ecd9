"""Campaigns, by a search engine: a POST that reads, JSON lines, and errors as one of the lines."""

from __future__ import annotations

import json
from datetime import datetime

from aiohttp import web

from cashier.sandbox.records import Json
from tests.company.services.records import BANK_NUMBERS, Records, decimal


def routes(records: Records) -> list[web.RouteDef]:
    async def search(request: web.Request) -> web.Response:
        query = await request.json()
        currency, _, total = query["basket"].partition(" ")
        value = str(int(total.replace(".", "")))
        held = records.read(
            "marketing", user_id=query["customer"], merchant_id=query["shop"], currency=currency, value=value
        )
        if held is None:
            return lines([{"line": "end", "customer": query["customer"], "hits": 0}])
        hits = [*map(offer, held["promotions"]), *map(push, held["boosts"])]
        return lines([*hits, {"line": "end", "customer": held["user_id"], "hits": len(hits)}])

    return [web.post("/campaigns/_search", search)]


def lines(rows: list[Json]) -> web.Response:
    text = "".join(f"{json.dumps(row)}\n" for row in rows)
    return web.Response(text=text, content_type="application/x-ndjson")


def offer(held: Json) -> Json:
    row = {"line": "offer", "id": held["promotion_id"], "sort": held["type"].lower(), "headline": held["title"]}
    row |= {"minSpend": amount(held["threshold"]), "pool": held["group"], "means": held["kinds"]}
    row["combinable"] = "yes" if held["stackable"] else "no"
    if "amount_off" in held:
        row["off"] = amount(held["amount_off"])
    if "percent_off_bps" in held:
        row["off"] = f"{held['percent_off_bps'] / 100:.2f} %"
    if "cap" in held:
        row["atMost"] = amount(held["cap"])
    if "banks" in held:
        row["bankNos"] = [BANK_NUMBERS[bank] for bank in held["banks"]]
    if "expires_at" in held:
        row["until"] = int(datetime.fromisoformat(held["expires_at"]).timestamp() * 1000)
    return row


def push(held: Json) -> Json:
    return {"line": "push", "means": held["kind"], "by": f"{held['weight_bps'] / 100:.2f} %", "slogan": held["label"]}


def amount(money: Json) -> str:
    return f"{money['currency']} {decimal(money)}"
