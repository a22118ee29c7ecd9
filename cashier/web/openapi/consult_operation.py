"""`POST /v1/consult` in the document."""

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
from cashier.web.openapi.consultation_examples import ANSWER, REQUEST
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
    ProblemCode.OVERLOADED,
    ProblemCode.REQUIRED_SOURCE_UNAVAILABLE,
)
_DETAILS = {ProblemCode.INVALID: invalid_field("amount.value", "OUT_OF_RANGE", "must be from 0 to 9007199254740991")}
# OpenAPI 3.1 has no words for the events of a stream; a client reads them as text.
_EVENTS = {
    "schema": {
        "type": "string",
        "description": "Server-sent events. `answer`, as soon as there is a usable one and whenever there is a better one: data is a whole"
        " Consultation with `seq`, which is also the id and rises from 1. Then `end`: `seq` is the last of these, `reason` is COMPLETE,"
        " or DEADLINE where a source was given up because time was up. Or, in place of `end`, `error`: data is a Problem. What goes wrong"
        " before the first answer is answered as a problem with its status.",
    },
    "example": 'event: end\ndata: {"seq":2,"reason":"COMPLETE"}\n\n',
}


def consult_operation(schemas: Schemas, body_limit_bytes: int, *, secured: bool) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": "consult",
        "summary": "Ask which ways to pay there are, what each costs, and why it can or cannot be used.",
        "description": f"At most {body_limit_bytes} bytes. Integers have no fraction, not even .0. Of a key that comes twice"
        " the last counts; unknown fields are ignored. With text/event-stream in Accept the answers come as events.",
        "parameters": _parameters(),
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": schemas["ConsultRequest"], "example": REQUEST}},
        },
        "responses": {
            "200": {
                "description": "The consultation ran. An order that cannot be paid is an answer too.",
                "headers": headers(*API_HEADERS),
                "content": {
                    "application/json": {"schema": schemas["Consultation"], "example": ANSWER},
                    "text/event-stream": _EVENTS,
                },
            },
            **problems((*_PROBLEMS, *secured_codes(secured=secured)), schemas["Problem"], API_HEADERS, _DETAILS),
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
            "description": f"How long the caller waits. The smallest of this, `deadline_ms` and {MAX_TIMEOUT_MS} counts.",
            "schema": {"type": "integer", "minimum": 1},
        },
        REQUEST_ID,
        {
            "name": "X-Priority",
            "in": "header",
            "description": "Who goes first when there is more to do than can be done: critical, high, normal or low. Anybody may ask for"
            " less than its product stands for (SCAN is high, STANDARD_CASHIER normal, EMBEDDED_CASHIER low); more counts only from a"
            " caller whose bearer token was verified before. Another word counts as none.",
            "schema": {"type": "string"},
        },
        TRACEPARENT,
    ]
