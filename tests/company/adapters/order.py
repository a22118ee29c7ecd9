"""Orders by SOAP. A fault comes with status 200, so each answer has to be looked into."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from cashier.source_errors import Garbled, Overloaded
from cashier.wire.transport import Request, Response

from .amounts import money
from .times import from_epoch

STATES = {"OPEN": "PENDING", "IN_PAYMENT": "PAYING", "SETTLED": "PAID", "WITHDRAWN": "CLOSED", "RETURNED": "REFUNDED"}
SALES = {"WEB": "STANDARD_CASHIER", "IN_APP": "EMBEDDED_CASHIER", "TILL": "SCAN"}
ENVELOPE = (
    '<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body><GetOrder xmlns="urn:shop">'
    "<Number>{}</Number></GetOrder></s:Body></s:Envelope>"
)


def request(asked: Mapping[str, Any]) -> Request:
    body = ENVELOPE.format(escape(asked["order_id"])).encode()
    headers = (("Content-Type", "text/xml; charset=utf-8"), ("SOAPAction", '"urn:shop:GetOrder"'))
    return Request("/OrderService", "POST", body, headers=headers)


def parse(response: Response, asked: Mapping[str, Any]) -> dict[str, Any] | None:
    root = ElementTree.fromstring(response.body)  # noqa: S314 - a service of our own
    fault = root.findtext(".//faultcode")
    if fault == "Client.NoSuchOrder":
        return None
    if fault == "Server.Busy":
        raise Overloaded("the SOAP fault Server.Busy")
    order = root.find(".//{urn:shop}Order")
    if fault or order is None:
        raise Garbled(f"the SOAP fault {fault}" if fault else "neither an order nor a fault")
    field = {element.tag.removeprefix("{urn:shop}"): element.text or "" for element in order}
    total = order.find("{urn:shop}Total")
    return {
        "order_id": field["Number"],
        "merchant_id": field["Shop"],
        "user_id": field.get("Buyer"),
        "status": STATES[field["State"]],
        "amount": money("" if total is None else total.get("currency", ""), field["Total"]),
        "product": SALES[field["Sales"]],
        "country": field["Country"],
        "category": field["Category"],
        "title": field["Subject"],
        "expires_at": from_epoch(int(field["ValidUntil"]) / 1000),
    }
