"""Cards and mandates, in two answers: a base64 blob inside JSON, bank numbers, expiry as MMYY."""

from __future__ import annotations

import json
from base64 import b64encode

from aiohttp import web

from cashier.sandbox.records import Json
from tests.company.services.records import BANK_NUMBERS, Records

STATES = {"ACTIVE": "0", "FROZEN": "4", "UNBOUND": "8", "TERMINATED": "9", "SUSPENDED": "5", "EXPIRED": "7"}


def routes(records: Records) -> list[web.RouteDef]:
    def listing(name: str, row: str) -> web.RouteDef:
        async def read(request: web.Request) -> web.Response:
            held = records.read("card", user_id=request.match_info["holder"])
            if held is None:
                return web.json_response({"err": "no such holder"}, status=404)
            rows = [card(each) if name == "cards" else mandate(each) for each in held[row]]
            return sealed({"holder": held["user_id"], "rows": rows})

        return web.get(f"/holders/{{holder}}/{name}", read)

    return [listing("cards", "cards"), listing("mandates", "agreements")]


def sealed(content: Json) -> web.Response:
    return web.json_response({"enc": "b64json", "blob": b64encode(json.dumps(content).encode()).decode()})


def card(held: Json) -> Json:
    year, month = held["expiry"].split("-")
    return {
        "ref": held["card_id"],
        "bankNo": BANK_NUMBERS[held["bank"]],
        "bankName": held["bank_name"],
        "bankNameEn": held.get("bank_names", {}).get("en"),
        "dc": held["type"][0],
        "scheme": held["brand"],
        "tail": held["last4"],
        "thru": f"{month}{year[2:]}",
        "st": STATES[held["status"]],
    }


def mandate(held: Json) -> Json:
    single = held.get("single_max")
    return {
        "ref": held["agreement_id"],
        "shop": held["merchant_id"],
        "route": held["channel_id"],
        "st": STATES[held["status"]],
        "max": single and f"{single['currency']}{single['value']}",
    }
