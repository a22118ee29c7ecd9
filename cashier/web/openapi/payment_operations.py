"""The five payment operations in the OpenAPI document."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cashier.domain.payment_id import PAYMENT_ID
from cashier.domain.payment_request import IDEMPOTENCY_KEY
from cashier.payments.settings import LONGEST_WAIT_MS
from cashier.web.openapi.components import (
    API_HEADERS,
    REQUEST_ID,
    TRACEPARENT,
    Schemas,
    headers,
    problems,
    secured_codes,
)
from cashier.web.openapi.payment_examples import (
    CANCELLATION,
    CHALLENGE_ANSWER,
    FINAL_PAYMENT,
    LIVE_PAYMENT,
    PROBLEMS,
    SUBMIT,
)
from cashier.web.payment_endpoints import PAYMENTS_PATH
from cashier.web.payment_requests import KEY_HEADER, TOKEN_HEADER
from cashier.web.problem import ProblemCode

_COMMON_CODES = (ProblemCode.INVALID, ProblemCode.INTERNAL, ProblemCode.PAYMENTS_NOT_CONFIGURED, ProblemCode.NOT_READY)
_BODY_CODES = (
    ProblemCode.MALFORMED,
    ProblemCode.BODY_TIMEOUT,
    ProblemCode.TOO_LARGE,
    ProblemCode.UNSUPPORTED_MEDIA_TYPE,
)
_TOKEN_CODES = (
    ProblemCode.TOKEN_MALFORMED,
    ProblemCode.TOKEN_TAMPERED,
    ProblemCode.TOKEN_UNKNOWN_KEY,
    ProblemCode.TOKEN_WRONG_TYPE,
    ProblemCode.TOKEN_EXPIRED,
)
_SUBMIT_CODES = (ProblemCode.TOKEN_OTHER_ORDER, ProblemCode.TOKEN_OTHER_USER)
_PROGRESS_CODES = (
    ProblemCode.RISK_REJECTED,
    ProblemCode.ORDER_UNKNOWN,
    ProblemCode.CONSULT_CHANGED,
    ProblemCode.ORDER_BUSY,
    ProblemCode.IN_FLIGHT,
    ProblemCode.KEY_REUSED,
    ProblemCode.CHECK_UNAVAILABLE,
    ProblemCode.ENGINE_UNAVAILABLE,
    ProblemCode.OVERLOADED,
)
_ADDRESSED_CODES = (ProblemCode.NOT_FOUND, ProblemCode.TOKEN_OTHER_PAYMENT)
_QUERY_CODES = (ProblemCode.KEY_REUSED, ProblemCode.OVERLOADED)

_KEY_PARAMETER = {
    "name": KEY_HEADER,
    "in": "header",
    "required": True,
    "description": "Identifies the payment of this merchant and order: a repetition with the same key and body"
    " returns the same payment. The header must occur once.",
    "schema": {"type": "string", "pattern": rf"^{IDEMPOTENCY_KEY}(?![\s\S])"},
}
_ID_PARAMETER = {
    "name": "payment_id",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "pattern": rf"^{PAYMENT_ID}(?![\s\S])"},
}
_WAIT_PARAMETER = {
    "name": "wait_ms",
    "in": "query",
    "description": "Long poll: respond once the payment is final or differs from the state in the token, or after"
    " this time.",
    "schema": {"type": "integer", "minimum": 0, "maximum": LONGEST_WAIT_MS, "default": 0},
}
_EVENTS = {
    "schema": {
        "type": "string",
        "description": "Server-sent events. `payment`, at once and after each visible change: data is a complete"
        " Payment, the event id counts from 1. `end`: `reason` is FINAL, TIMEOUT (the longest stream is over) or"
        " STOPPING (the server stops); after the last two reconnect with the latest token. `error` in place of"
        " `end`: data is a Problem. A comment line every 15 seconds keeps the connection open. An error before the"
        " first `payment` is an ordinary problem response.",
    },
    "example": 'event: end\ndata: {"reason":"FINAL"}\n\n',
}


class _PaymentOperations:
    """Builds the operations from the document's schemas and settings."""

    def __init__(self, schemas: Schemas, body_limit_bytes: int, *, secured: bool) -> None:
        self._schemas = schemas
        self._limit = f"At most {body_limit_bytes} bytes."
        self._secured = secured

    def operation(
        self,
        name: str,
        summary: str,
        description: str,
        parameters: Sequence[dict[str, Any]],
        responses: dict[str, Any],
        codes: Sequence[ProblemCode],
    ) -> dict[str, Any]:
        operation = {
            "operationId": name,
            "summary": summary,
            "description": description,
            "parameters": [*parameters, REQUEST_ID, TRACEPARENT],
            "responses": {
                **responses,
                **problems(
                    (*codes, *_COMMON_CODES, *secured_codes(secured=self._secured)),
                    self._schemas["Problem"],
                    API_HEADERS,
                    PROBLEMS,
                ),
            },
        }
        return operation | {"security": [{"bearer": []}]} if self._secured else operation

    def body(self, struct: str, example: dict[str, Any], *, required: bool = True) -> dict[str, Any]:
        return {
            "required": required,
            "content": {"application/json": {"schema": self._schemas[struct], "example": example}},
        }

    def responses(self) -> dict[str, Any]:
        return {
            "200": self._payment("The payment is final.", FINAL_PAYMENT),
            "202": self._payment("The payment is not final yet.", LIVE_PAYMENT),
        }

    def token(self, *, required: bool) -> dict[str, Any]:
        """Without authentication of callers, Authorization may carry the payment token instead."""
        alternative = "" if self._secured else " `Authorization: Bearer` is accepted instead."
        return {
            "name": TOKEN_HEADER,
            "in": "header",
            "required": required,
            "description": f"The latest `payment_token` of the payment.{alternative} Never in the URL, because URLs"
            " are logged.",
            "schema": {"type": "string", "pattern": "^[!-~]+$"},
        }

    def submit(self) -> dict[str, Any]:
        description = (
            f"{self._limit} Integers have no fraction, not even .0. Unknown fields are ignored, but a card number in"
            " any field is refused. Every check is made again; if the offer differs from the accepted one, the"
            " response is CONSULT_CHANGED with a fresh consultation."
        )
        codes = (*_BODY_CODES, *_TOKEN_CODES, *_SUBMIT_CODES, *_PROGRESS_CODES)
        summary = "Pay an order with a payment method of a consultation, once per key."
        operation = self.operation("pay", summary, description, [_KEY_PARAMETER], self.responses(), codes)
        return operation | {"requestBody": self.body("PaymentRequest", SUBMIT)}

    def answer(self) -> dict[str, Any]:
        codes = (*_BODY_CODES, *_ADDRESSED_CODES, *_TOKEN_CODES, *_PROGRESS_CODES)
        summary = "Answer the challenge of a payment and continue it."
        operation = self.operation("answerChallenge", summary, self._limit, [_ID_PARAMETER], self.responses(), codes)
        return operation | {"requestBody": self.body("ChallengeAnswer", CHALLENGE_ANSWER)}

    def cancel(self) -> dict[str, Any]:
        description = (
            f"{self._limit} The token is in a header or in the body. The response has the present state, which may"
            " be SUCCEEDED."
        )
        summary = "Cancel a payment for the payer."
        parameters = [_ID_PARAMETER, self.token(required=False)]
        operation = self.operation(
            "cancel",
            summary,
            description,
            parameters,
            self.responses(),
            (*_BODY_CODES, *_ADDRESSED_CODES, *_TOKEN_CODES, *_QUERY_CODES),
        )
        return operation | {"requestBody": self.body("Cancellation", CANCELLATION, required=False)}

    def look(self) -> dict[str, Any]:
        parameters = [_ID_PARAMETER, self.token(required=True), _WAIT_PARAMETER]
        codes = (*_ADDRESSED_CODES, *_TOKEN_CODES, *_QUERY_CODES, ProblemCode.TOO_LARGE, ProblemCode.BODY_TIMEOUT)
        return self.operation(
            "look", "Query a payment, or wait until it changes.", "", parameters, self.responses(), codes
        )

    def follow(self) -> dict[str, Any]:
        description = "In browsers use `fetch`: EventSource cannot send the token's header, and URLs are logged."
        parameters = [_ID_PARAMETER, self.token(required=True)]
        response = {
            "description": "The event stream.",
            "headers": headers(*API_HEADERS),
            "content": {"text/event-stream": _EVENTS},
        }
        codes = (*_ADDRESSED_CODES, *_TOKEN_CODES, *_QUERY_CODES, ProblemCode.TOO_LARGE, ProblemCode.BODY_TIMEOUT)
        return self.operation(
            "follow", "Follow a payment until it is final.", description, parameters, {"200": response}, codes
        )

    def _payment(self, description: str, example: dict[str, Any]) -> dict[str, Any]:
        content = {"application/json": {"schema": self._schemas["Payment"], "example": example}}
        return {"description": description, "headers": headers(*API_HEADERS), "content": content}


def payment_paths(schemas: Schemas, body_limit_bytes: int, *, secured: bool) -> dict[str, Any]:
    operations = _PaymentOperations(schemas, body_limit_bytes, secured=secured)
    payment_path = PAYMENTS_PATH + "/{payment_id}"
    return {
        PAYMENTS_PATH: {"post": operations.submit()},
        payment_path: {"get": operations.look()},
        f"{payment_path}/challenge": {"post": operations.answer()},
        f"{payment_path}/cancel": {"post": operations.cancel()},
        f"{payment_path}/events": {"get": operations.follow()},
    }
