"""Results of orders, as the history of an order's states in words of its own, newest last."""

from __future__ import annotations

from aiohttp import web

from cashier.sandbox.records import Json
from tests.company.services.records import Records, decimal


def routes(records: Records) -> list[web.RouteDef]:
    async def history(request: web.Request) -> web.Response:
        order_id = request.match_info["order"]
        result = records.read("acquirer", order_id=order_id)
        if result is None:
            return web.json_response({"order": order_id, "entries": []})
        return web.json_response({"order": result["order_id"], "entries": entries(result)})

    return [web.get("/journal/{order}", history)]


def entries(result: Json) -> list[Json]:
    last: Json = {"became": WORDS[result["status"]]}
    if "payment_id" in result:
        last["through"] = result["payment_id"]
    if "paid" in result:
        last["received"] = f"{decimal(result['paid'])} {result['paid']['currency']}"
    if "closed_reason" in result:
        last["because"] = result["closed_reason"]
    return [{"became": "placed"}, last] if last["became"] != "placed" else [last]


WORDS = {
    "PENDING": "placed",
    "PAYING": "under payment",
    "PAID": "settled",
    "CLOSED": "withdrawn",
    "CLOSED_REFUNDING": "settled too late",
    "REFUNDED": "sent back",
}
