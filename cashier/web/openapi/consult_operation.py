"""`POST /v1/consult` in the OpenAPI document."""

from __future__ import annotations

from typing import Any

from cashier.web.openapi.components import (
    API_HEADERS,
    REQUEST_ID,
    TRACEPARENT,
    Schemas,
    headers,
    invalid_field,
    problems,
    secured_codes,
)
from cashier.web.openapi.consultation_examples import REQUEST, RESPONSE
from cashier.web.problem import ProblemCode
from cashier.web.request_headers import MAX_TIMEOUT_MS

_PROBLEMS = (
    ProblemCode.MALFORMED,
    ProblemCode.ORDER_UNKNOWN,
    ProblemCode.BODY_TIMEOUT,
    ProblemCode.TOO_LARGE,
    ProblemCode.UNSUPPORTED_MEDIA_TYPE,
    ProblemCode.INVALID,
    ProblemCode.INTERNAL,
    ProblemCode.NOT_READY,
    ProblemCode.OVERLOADED,
    ProblemCode.REQUIRED_SOURCE_UNAVAILABLE,
)
_EXAMPLES = {ProblemCode.INVALID: invalid_field("amount.value", "OUT_OF_RANGE", "must be from 0 to 9007199254740991")}
# OpenAPI 3.1 cannot describe the events of a stream, so the schema is text.
_EVENTS = {
    "schema": {
        "type": "string",
        "description": "Server-sent events. `answer`: data is a complete Consultation with `seq`, a counter from 1"
        " that is also the event id; sent as soon as a usable consultation exists and again for each better one."
        " `end`: `seq` is the last counter, `reason` is COMPLETE, or DEADLINE if a source ran out of time. `error`"
        " in place of `end`: data is a Problem. An error before the first `answer` is an ordinary problem response.",
    },
    "example": 'event: end\ndata: {"seq":2,"reason":"COMPLETE"}\n\n',
}


def consult_operation(schemas: Schemas, body_limit_bytes: int, *, secured: bool) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": "consult",
        "summary": "Return the payment methods of an order, with price and availability.",
        "description": f"At most {body_limit_bytes} bytes. Integers have no fraction, not even .0. The last of"
        " duplicate keys counts; unknown fields are ignored. With text/event-stream in Accept the response is an"
        " event stream.",
        "parameters": _parameters(),
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": schemas["ConsultRequest"], "example": REQUEST}},
        },
        "responses": {
            "200": {
                "description": "The consultation. An order that cannot be paid has `payable` false and `blocked`.",
                "headers": headers(*API_HEADERS),
                "content": {
                    "application/json": {"schema": schemas["Consultation"], "example": RESPONSE},
                    "text/event-stream": _EVENTS,
                },
            },
            **problems((*_PROBLEMS, *secured_codes(secured=secured)), schemas["Problem"], API_HEADERS, _EXAMPLES),
        },
    }
    if secured:
        operation["security"] = [{"bearer": []}]
    return operation


def _parameters() -> list[dict[str, Any]]:
    return [
        {
            "name": "X-Request-Timeout-Ms",
            "in": "header",
            "description": "The caller's timeout. The smallest of this, `deadline_ms`, the configured deadline and"
            f" {MAX_TIMEOUT_MS} applies.",
            "schema": {"type": "integer", "minimum": 1},
        },
        REQUEST_ID,
        {
            "name": "X-Priority",
            "in": "header",
            "description": "Priority under overload: critical, high, normal or low. The default follows from the"
            " product: SCAN is high, STANDARD_CASHIER normal, EMBEDDED_CASHIER low. Every caller may ask for less;"
            " more counts only if the caller's bearer token was verified before. Other values are ignored.",
            "schema": {"type": "string"},
        },
        TRACEPARENT,
    ]
