"""The five operations of payments in the document."""

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
    DETAILS,
    FINAL_PAYMENT,
    LIVE_PAYMENT,
    SUBMIT,
)
from cashier.web.payment_endpoints import PAYMENTS_PATH
from cashier.web.payment_requests import KEY_HEADER, TOKEN_HEADER
from cashier.web.problem import ProblemCode

_ALWAYS = (ProblemCode.INVALID, ProblemCode.INTERNAL, ProblemCode.PAYMENTS_NOT_CONFIGURED, ProblemCode.NOT_READY)
_BODY = (ProblemCode.MALFORMED, ProblemCode.BODY_TIMEOUT, ProblemCode.TOO_LARGE, ProblemCode.UNSUPPORTED_MEDIA_TYPE)
_TOKEN = (
    ProblemCode.TOKEN_MALFORMED,
    ProblemCode.TOKEN_TAMPERED,
    ProblemCode.TOKEN_UNKNOWN_KEY,
    ProblemCode.TOKEN_WRONG_TYPE,
    ProblemCode.TOKEN_EXPIRED,
)
_OF_SUBMIT = (ProblemCode.TOKEN_OTHER_ORDER, ProblemCode.TOKEN_OTHER_USER)
_TAKEN_FURTHER = (
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
_OF_ONE = (ProblemCode.NOT_FOUND, ProblemCode.TOKEN_OTHER_PAYMENT)
_LOOKED_AT = (ProblemCode.KEY_REUSED, ProblemCode.OVERLOADED)

_KEY_PARAMETER = {
    "name": KEY_HEADER,
    "in": "header",
    "required": True,
    "description": "Names this payment among all of its caller's: the same key with the same body is the same payment, however often it is"
    " sent. Once, in one header.",
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
    "description": "Long poll: come back when it shows something else than the token says, when it is final, or after this.",
    "schema": {"type": "integer", "minimum": 0, "maximum": LONGEST_WAIT_MS, "default": 0},
}
_EVENTS = {
    "schema": {
        "type": "string",
        "description": "Server-sent events. `payment`, at once and each time that it shows something else: data is a whole Payment, the id"
        " rises from 1. Then `end`: `reason` is FINAL, or TIMEOUT where it was followed for long enough, or STOPPING where the server"
        " stops; after these two follow again, with the latest token. Or, in place of `end`, `error`: data is a Problem. A comment line"
        " every 15 seconds keeps the connection open. What goes wrong before the first is answered as a problem with its status.",
    },
    "example": 'event: end\ndata: {"reason":"FINAL"}\n\n',
}


class _Document:
    """What each of the operations is made with."""

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
        answers: dict[str, Any],
        codes: Sequence[ProblemCode],
    ) -> dict[str, Any]:
        found = {
            "operationId": name,
            "summary": summary,
            "description": description,
            "parameters": [*parameters, REQUEST_ID, TRACEPARENT],
            "responses": {
                **answers,
                **problems(
                    (*codes, *_ALWAYS, *secured_codes(secured=self._secured)),
                    self._schemas["Problem"],
                    API_HEADERS,
                    DETAILS,
                ),
            },
        }
        return found | {"security": [{"bearer": []}]} if self._secured else found

    def body(self, struct: str, example: dict[str, Any], *, required: bool = True) -> dict[str, Any]:
        return {
            "required": required,
            "content": {"application/json": {"schema": self._schemas[struct], "example": example}},
        }

    def answers(self) -> dict[str, Any]:
        return {
            "200": self._payment("It is final.", FINAL_PAYMENT),
            "202": self._payment("It goes on.", LIVE_PAYMENT),
        }

    def token(self, *, required: bool) -> dict[str, Any]:
        """The header is the place for it where callers say who they are; elsewhere it is one of two."""
        also = "" if self._secured else " `Authorization: Bearer` is taken in its place."
        return {
            "name": TOKEN_HEADER,
            "in": "header",
            "required": required,
            "description": f"The latest `payment_token` of the payment.{also} Never in the url, which ends in logs.",
            "schema": {"type": "string", "pattern": "^[!-~]+$"},
        }

    def submit(self) -> dict[str, Any]:
        description = (
            f"{self._limit} Integers have no fraction, not even .0; unknown fields are ignored, but a card number in any field is refused."
            " Everything is checked afresh; what is not as the payer agreed to it is CONSULT_CHANGED, with a fresh consultation."
        )
        codes = (*_BODY, *_TOKEN, *_OF_SUBMIT, *_TAKEN_FURTHER)
        summary = "Pay an order by a way to pay that was consulted about. Once for each key."
        found = self.operation("pay", summary, description, [_KEY_PARAMETER], self.answers(), codes)
        return found | {"requestBody": self.body("PaymentRequest", SUBMIT)}

    def answer(self) -> dict[str, Any]:
        codes = (*_BODY, *_OF_ONE, *_TOKEN, *_TAKEN_FURTHER)
        summary = "Answer the challenge of a payment, which goes on with it."
        found = self.operation("answerChallenge", summary, self._limit, [_ID_PARAMETER], self.answers(), codes)
        return found | {"requestBody": self.body("ChallengeAnswer", CHALLENGE_ANSWER)}

    def cancel(self) -> dict[str, Any]:
        description = f"{self._limit} The token is in its header, or in the body. The answer says where the payment stands: it may be paid."
        summary = "Say that the payer wants no more of a payment."
        parameters = [_ID_PARAMETER, self.token(required=False)]
        found = self.operation(
            "cancel", summary, description, parameters, self.answers(), (*_BODY, *_OF_ONE, *_TOKEN, *_LOOKED_AT)
        )
        return found | {"requestBody": self.body("Cancellation", CANCELLATION, required=False)}

    def look(self) -> dict[str, Any]:
        parameters = [_ID_PARAMETER, self.token(required=True), _WAIT_PARAMETER]
        codes = (*_OF_ONE, *_TOKEN, *_LOOKED_AT, ProblemCode.TOO_LARGE, ProblemCode.BODY_TIMEOUT)
        return self.operation(
            "look", "See where a payment stands, or wait until it moves.", "", parameters, self.answers(), codes
        )

    def follow(self) -> dict[str, Any]:
        description = (
            "Read it with `fetch`: the token is in a header, which a browser's EventSource cannot send;"
            " in the url it would end in logs."
        )
        parameters = [_ID_PARAMETER, self.token(required=True)]
        answer = {
            "description": "It is followed.",
            "headers": headers(*API_HEADERS),
            "content": {"text/event-stream": _EVENTS},
        }
        codes = (*_OF_ONE, *_TOKEN, *_LOOKED_AT, ProblemCode.TOO_LARGE, ProblemCode.BODY_TIMEOUT)
        return self.operation(
            "follow", "Follow a payment until it is final.", description, parameters, {"200": answer}, codes
        )

    def _payment(self, description: str, example: dict[str, Any]) -> dict[str, Any]:
        content = {"application/json": {"schema": self._schemas["Payment"], "example": example}}
        return {"description": description, "headers": headers(*API_HEADERS), "content": content}


def payment_paths(schemas: Schemas, body_limit_bytes: int, *, secured: bool) -> dict[str, Any]:
    told = _Document(schemas, body_limit_bytes, secured=secured)
    one = PAYMENTS_PATH + "/{payment_id}"
    return {
        PAYMENTS_PATH: {"post": told.submit()},
        one: {"get": told.look()},
        f"{one}/challenge": {"post": told.answer()},
        f"{one}/cancel": {"post": told.cancel()},
        f"{one}/events": {"get": told.follow()},
    }
