"""A payer of the company: what reaches a browser through the HTTP interface of the cashier."""

from __future__ import annotations

import json
from typing import Any

from cashier import Cashier, web
from cashier.sandbox import CASES
from cashier.sandbox.records import Json
from tests.web.asgi_client import JSON, call

OTP = "246810"
_ORDER_FIELDS = ("order_id", "user_id", "merchant_id", "product", "terminal", "country", "locale")


def timeless(answer: Json) -> list[Json] | None:
    """The methods without what is left of the order, which falls by the second."""
    methods = answer.get("methods")
    return None if methods is None else [method | {"expires_in_s": None} for method in methods]


class Payer:
    """Each request returns the status and the body. A 500 never reaches a payer."""

    def __init__(self, cashier: Cashier) -> None:
        self._application = web.app(cashier, trusts_named_payers=True)

    async def consult(self, case: str, **fields: Any) -> tuple[int, Any]:
        return await self._exchange("POST", "/v1/consult", {**CASES[case].request, **fields})

    async def choose(
        self, case: str, method_id: str, option_id: str | None = None, means: Json | None = None, **fields: Any
    ) -> Json:
        """The submit of a method, as the page of a shop makes it from a consultation."""
        _, consultation = await self.consult(case, **fields)
        method = next(each for each in consultation["methods"] if each["method_id"] == method_id)
        option = next((each for each in method["options"] if each["option_id"] == option_id), method)
        amount = option["amount"] or method["amount"]
        asked = {**CASES[case].request, **fields}
        return {
            **{name: asked[name] for name in _ORDER_FIELDS if name in asked},
            "method_id": method_id,
            "option_id": option_id,
            "expected_payable": amount["payable"],
            "promotion_ids": [discount["promotion_id"] for discount in amount["discounts"]],
            "consult_token": consultation["consult_token"],
            **(means or {}),
        }

    async def submit(self, choice: Json, key: str = "k-1") -> tuple[int, Any]:
        return await self._exchange("POST", "/v1/payments", choice, {"Idempotency-Key": key})

    async def answer(self, payment: Json, value: str = OTP) -> tuple[int, Any]:
        body = {"payment_token": payment["payment_token"], "value": value}
        return await self._exchange("POST", f"/v1/payments/{payment['payment_id']}/challenge", body)

    async def resend(self, payment: Json) -> tuple[int, Any]:
        path = f"/v1/payments/{payment['payment_id']}/challenge/resend"
        return await self._exchange("POST", path, None, token(payment))

    async def look(self, payment: Json, wait_ms: int = 0) -> tuple[int, Any]:
        path = f"/v1/payments/{payment['payment_id']}"
        return await self._exchange("GET", path, None, token(payment), f"wait_ms={wait_ms}")

    async def cancel(self, payment: Json) -> tuple[int, Any]:
        return await self._exchange("POST", f"/v1/payments/{payment['payment_id']}/cancel", None, token(payment))

    async def find(self, case: str, **fields: Any) -> tuple[int, Any]:
        asked = {**CASES[case].request, **fields}
        query = f"merchant_id={asked['merchant_id']}&user_id={asked['user_id']}"
        return await self._exchange("GET", f"/v1/orders/{asked['order_id']}/payment", None, None, query)

    async def take_over(self, case: str, payment: Json, action: str) -> tuple[int, Any]:
        """`action`: resume or replace."""
        asked = {name: value for name, value in CASES[case].request.items() if name in _ORDER_FIELDS}
        return await self._exchange("POST", f"/v1/payments/{payment['payment_id']}/{action}", asked)

    async def _exchange(
        self, method: str, path: str, body: Any, extra: Json | None = None, query: str = ""
    ) -> tuple[int, Any]:
        headers = {**JSON, **(extra or {})}
        content = b"" if body is None else json.dumps(body).encode()
        response = await call(
            self._application,
            content,
            method=method,
            path=path,
            headers={**JSON, **(headers or {})},
            query=query.encode(),
        )
        assert response.status not in (None, 500)
        return response.status or 0, response.json


def token(payment: Json) -> dict[str, str]:
    return {"X-Payment-Token": payment["payment_token"]}
