"""Merchants, by a host of the nineties: form-encoded answers, return codes, bit masks; Basic
authentication, and an API key with a space in it."""

from __future__ import annotations

from base64 import b64encode
from urllib.parse import urlencode

from aiohttp import web

from tests.company.services.records import Records

PRODUCTS = ("STANDARD_CASHIER", "EMBEDDED_CASHIER", "SCAN")
KINDS = (
    "QUICK_PAY", "AGREEMENT", "CARD", "NET_BANKING", "VA", "OTC", "WALLET", "BALANCE", "MERCHANT_QR", "CONSUMER_QR",
    "INSTALMENT",
)  # fmt: skip
PASSWORD = "s3 cret"
API_KEY = "Spruce 42"


def routes(records: Records) -> list[web.RouteDef]:
    async def query(request: web.Request) -> web.Response:
        login = f"Basic {b64encode(f'cashier:{PASSWORD}'.encode()).decode()}"
        if (request.headers.get("Authorization"), request.headers.get("X-Api-Key")) != (login, API_KEY):
            return answer(rc="05", msg="not authorised")
        merchant = records.read("merchant", merchant_id=request.query["id"])
        if merchant is None:
            return answer(rc="14", msg="no such shop")
        return answer(
            rc="00",
            id=merchant["merchant_id"],
            nm=merchant["name"],
            st=str(["SUSPENDED", "ACTIVE"].index(merchant["status"])),
            ctry=merchant["country"],
            mcc=merchant["mcc"],
            prod=bits(PRODUCTS, merchant["products"]),
            meth=bits(KINDS, merchant["kinds"]),
        )

    return [web.get("/cgi-bin/shop", query)]


def answer(**fields: str) -> web.Response:
    return web.Response(text=urlencode(fields), content_type="application/x-www-form-urlencoded")


def bits(names: tuple[str, ...], present: list[str]) -> str:
    return format(sum(1 << names.index(name) for name in present), "x")
