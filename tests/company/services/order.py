"""Orders, by SOAP: one endpoint, faults in a 200, thousands separators, epoch milliseconds."""

from __future__ import annotations

from datetime import datetime
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from aiohttp import web

from cashier.sandbox.records import Json
from tests.company.services.records import Records, decimal

STATES = {"PENDING": "OPEN", "PAYING": "IN_PAYMENT", "PAID": "SETTLED", "CLOSED": "WITHDRAWN", "REFUNDED": "RETURNED"}
SALES = {"STANDARD_CASHIER": "WEB", "EMBEDDED_CASHIER": "IN_APP", "SCAN": "TILL"}


def routes(records: Records) -> list[web.RouteDef]:
    async def get_order(request: web.Request) -> web.Response:
        number = ElementTree.fromstring(await request.text()).findtext(".//{urn:shop}Number", "")  # noqa: S314
        order = records.read("order", order_id=number)
        return envelope(fault("Client.NoSuchOrder") if order is None else element(order))

    return [web.post("/soap/OrderService", get_order)]


def envelope(body: str) -> web.Response:
    space = "http://schemas.xmlsoap.org/soap/envelope/"
    text = f'<?xml version="1.0"?><s:Envelope xmlns:s="{space}"><s:Body>{body}</s:Body></s:Envelope>'
    return web.Response(text=text, content_type="text/xml")


def fault(code: str) -> str:
    return f"<s:Fault><faultcode>{code}</faultcode><faultstring>See the manual.</faultstring></s:Fault>"


def element(order: Json) -> str:
    buyer = f"<Buyer>{order['user_id']}</Buyer>" if "user_id" in order else ""
    until_ms = int(datetime.fromisoformat(order["expires_at"]).timestamp() * 1000)
    return (
        f'<Order xmlns="urn:shop"><Number>{order["order_id"]}</Number><Shop>{order["merchant_id"]}</Shop>{buyer}'
        f"<State>{STATES[order['status']]}</State>"
        f'<Total currency="{order["amount"]["currency"]}">{decimal(order["amount"]):,}</Total>'
        f"<Sales>{SALES[order['product']]}</Sales><Country>{order['country']}</Country>"
        f"<Category>{order['category']}</Category><Subject>{escape(order['title'])}</Subject>"
        f"<ValidUntil>{until_ms}</ValidUntil></Order>"
    )
