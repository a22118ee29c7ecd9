"""Balances: CSV with decimal commas. The seal in a header is checked before anything is read."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from hashlib import blake2b
from hmac import compare_digest
from typing import Any
from urllib.parse import urlencode

from cashier.source_errors import Garbled
from cashier.sources.adapter_settings import AdapterSettings
from cashier.wire.transport import Request, Response

from .amounts import money

TYPES = {"current": "BALANCE", "fund": "MONEY_FUND", "gift": "GIFT"}
STATES = {"open": "ACTIVE", "held": "FROZEN", "shut": "CLOSED"}
FROM_GERMAN = str.maketrans(",.", ".,")


class Balances:
    def __init__(self, settings: AdapterSettings) -> None:
        self._key = settings.options["key"].encode()

    def request(self, asked: Mapping[str, Any]) -> Request:
        return Request(
            f"/export/accounts.csv?{urlencode({'holder': asked['user_id']})}", headers=(("Accept", "text/csv"),)
        )

    def parse(self, response: Response, asked: Mapping[str, Any]) -> dict[str, Any] | None:
        seal = b64encode(blake2b(response.body, key=self._key).digest()).decode()
        if not compare_digest(response.headers.get("X-Seal", "").encode(), f"blake2b {seal}".encode()):
            raise Garbled("an answer without a valid seal")
        first, *rows, last = (line.split(";") for line in response.body.decode("utf-8").splitlines())
        if last != ["end", str(len(rows))] or first[0] != "holder":
            raise Garbled("an incomplete export")
        if first[1] == "none":
            return None
        return {"user_id": first[1], "accounts": [account(*row) for row in rows]}


def account(account_id: str, kind: str, state: str, available: str, currency: str) -> dict[str, Any]:
    return {
        "account_id": account_id,
        "type": TYPES[kind],
        "status": STATES.get(state, state),
        "available": money(currency, available.translate(FROM_GERMAN)),
    }
