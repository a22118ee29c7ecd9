"""Merchants of the old host: form-encoded answers with return codes and bit masks."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, urlencode

from cashier.source_errors import Garbled
from cashier.sources.adapter_settings import AdapterSettings
from cashier.wire.transport import Request, Response

PRODUCTS = ("STANDARD_CASHIER", "EMBEDDED_CASHIER", "SCAN")
KINDS = (
    "QUICK_PAY", "AGREEMENT", "CARD", "NET_BANKING", "VA", "OTC", "WALLET", "BALANCE", "MERCHANT_QR", "CONSUMER_QR",
    "INSTALMENT",
)  # fmt: skip


class Merchants:
    def __init__(self, settings: AdapterSettings) -> None:
        login = b64encode(settings.options["login"].encode()).decode()
        self._headers = (("Authorization", f"Basic {login}"), ("X-Api-Key", settings.options["api_key"]))

    def request(self, asked: Mapping[str, Any]) -> Request:
        return Request(f"/shop?{urlencode({'id': asked['merchant_id']})}", headers=self._headers)

    def parse(self, response: Response, asked: Mapping[str, Any]) -> dict[str, Any] | None:
        field = dict(parse_qsl(response.body.decode("ascii"), strict_parsing=True))
        if field["rc"] == "14":
            return None
        if field["rc"] != "00":
            raise Garbled(f"return code {field['rc']}")
        return {
            "merchant_id": field["id"],
            "name": field["nm"],
            "status": {"0": "SUSPENDED", "1": "ACTIVE"}[field["st"]],
            "country": field["ctry"],
            "mcc": field["mcc"],
            "products": named(PRODUCTS, field["prod"]),
            "kinds": named(KINDS, field["meth"]),
        }


def named(names: tuple[str, ...], mask: str) -> list[str]:
    return [name for bit, name in enumerate(names) if int(mask, 16) >> bit & 1]
