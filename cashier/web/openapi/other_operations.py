"""Invalidation, and the pages that take nothing and say one thing."""

from __future__ import annotations

from typing import Any

from cashier.web.openapi.components import (
    BASIC_HEADERS,
    REQUEST_ID,
    Schemas,
    headers,
    invalid_field,
    problems,
    secured_codes,
)
from cashier.web.problem import ProblemCode

_PROBLEMS = (
    ProblemCode.MALFORMED,
    ProblemCode.BODY_TIMEOUT,
    ProblemCode.TOO_LARGE,
    ProblemCode.UNSUPPORTED_MEDIA_TYPE,
    ProblemCode.INVALID,
    ProblemCode.INTERNAL,
    ProblemCode.NOT_READY,
)
_DETAILS = {ProblemCode.INVALID: invalid_field("key", "MISSING", "is required, or prefix in its place")}


def invalidate_operation(schemas: Schemas, body_limit_bytes: int, *, secured: bool) -> dict[str, Any]:
    told = {"schema": schemas["Invalidation"], "example": {"source": "card", "key": "u_1"}}
    done = {"schema": schemas["Invalidated"], "example": {"source": "card", "dropped": 1, "reach": "ALL_WORKERS"}}
    operation: dict[str, Any] = {
        "operationId": "invalidate",
        "summary": "Say that something changed, so that what is remembered of it is dropped.",
        "description": f"At most {body_limit_bytes} bytes. Either a key or a prefix; an empty prefix is all of the source. The worker that"
        " is asked drops it before it answers. With a shared cache (`reach` is `ALL_WORKERS`) the others are told then, which is a"
        " matter of milliseconds; otherwise every worker has to be told.",
        "parameters": [REQUEST_ID],
        "requestBody": {"required": True, "content": {"application/json": told}},
        "responses": {
            "200": {
                "description": "It is gone. Nothing was remembered: `dropped` is 0.",
                "headers": headers(*BASIC_HEADERS),
                "content": {"application/json": done},
            },
            **problems((*_PROBLEMS, *secured_codes(secured=secured)), schemas["Problem"], BASIC_HEADERS, _DETAILS),
        },
    }
    if secured:
        operation["security"] = [{"bearer": []}]
    return operation


def simple_operation(name: str, summary: str, trouble: dict[str, Any] | None) -> dict[str, Any]:
    """`trouble`: the schema of what is said instead while it starts or stops; None: nothing is."""
    answer = {
        "description": summary,
        "headers": headers(*BASIC_HEADERS),
        "content": {"application/json": {"schema": {"type": "object"}}},
    }
    unready = {
        "503": {
            "description": "It starts, or it stops.",
            "headers": headers(*BASIC_HEADERS, "retry-after"),
            "content": {"application/problem+json": {"schema": trouble}},
        }
    }
    return {
        "operationId": name,
        "summary": summary,
        "security": [],
        "responses": {"200": answer, **(unready if trouble else {})},
    }
