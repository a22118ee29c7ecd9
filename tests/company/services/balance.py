"""Balances, as CSV with decimal commas and a trailer, signed in a header."""

from __future__ import annotations

from base64 import b64encode
from hashlib import blake2b

from aiohttp import web

from tests.company.services.records import Records, decimal

SIGNING_KEY = b"the treasury's key"
STATES = {"ACTIVE": "open", "FROZEN": "held", "CLOSED": "shut"}
TYPES = {"BALANCE": "current", "MONEY_FUND": "fund", "GIFT": "gift"}
TO_GERMAN = str.maketrans(",.", ".,")


def routes(records: Records) -> list[web.RouteDef]:
    async def accounts(request: web.Request) -> web.Response:
        held = records.read("balance", user_id=request.query["holder"])
        if held is None:
            return signed("holder;none\nend;0\n")
        lines = [f"holder;{held['user_id']}"]
        for account in held["accounts"]:
            available = f"{decimal(account['available']):,}".translate(TO_GERMAN)
            kind, state = TYPES[account["type"]], STATES[account["status"]]
            lines.append(f"{account['account_id']};{kind};{state};{available};{account['available']['currency']}")
        return signed("\n".join([*lines, f"end;{len(lines) - 1}", ""]))

    return [web.get("/export/accounts.csv", accounts)]


def signed(text: str) -> web.Response:
    seal = b64encode(blake2b(text.encode(), key=SIGNING_KEY).digest()).decode()
    return web.Response(text=text, content_type="text/csv", headers={"X-Seal": f"blake2b {seal}"})
