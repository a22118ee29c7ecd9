"""Limits, as a table: column names and rows, scopes as text, micros, and 204 for "no limits"."""

from __future__ import annotations

from aiohttp import web

from cashier.sandbox.records import Json
from tests.company.services.records import BANK_NUMBERS, Records, decimal


def routes(records: Records) -> list[web.RouteDef]:
    async def query(request: web.Request) -> web.Response:
        form = await request.post()
        held = records.read("quota", user_id=str(form["subject"]), currency=str(form["ccy"]))
        if held is None:
            return web.Response(status=204)
        rows = [row for each in held["quotas"] for row in windows(each)]
        columns = ["scope", "window", "cap", "spent"]
        return web.json_response({"subject": held["user_id"], "ccy": form["ccy"], "columns": columns, "rows": rows})

    return [web.post("/limits/query", query)]


def windows(quota: Json) -> list[list[object]]:
    scope = quota["scope"]
    parts = [scope["kind"]]
    if "bank" in scope:
        parts.append(f"bank={BANK_NUMBERS[scope['bank']]}")
    parts += [f"{name}={scope[f'{name}_id']}" for name in ("channel", "card") if f"{name}_id" in scope]
    text = ";".join(parts)
    rows: list[list[object]] = []
    if "single" in quota:
        rows.append([text, "each", micros(quota["single"]), None])
    for name, window in (("daily", "1d"), ("monthly", "1m")):
        if name in quota:
            rows.append([text, window, micros(quota[name]["limit"]), micros(quota[name]["used"])])
    return rows


def micros(money: Json) -> int:
    return int(decimal(money).scaleb(6))
