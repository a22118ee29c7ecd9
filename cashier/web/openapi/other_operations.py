"""Invalidation, health checks and the document itself in the OpenAPI document."""

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
_EXAMPLES = {ProblemCode.INVALID: invalid_field("key", "MISSING", "is required unless prefix is given")}


def invalidate_operation(schemas: Schemas, body_limit_bytes: int, *, secured: bool) -> dict[str, Any]:
    request = {"schema": schemas["Invalidation"], "example": {"source": "card", "key": "u_1"}}
    response = {"schema": schemas["Invalidated"], "example": {"source": "card", "dropped": 1, "reach": "ALL_WORKERS"}}
    operation: dict[str, Any] = {
        "operationId": "invalidate",
        "summary": "Drop cached answers of a source.",
        "description": f"At most {body_limit_bytes} bytes. Either `key` or `prefix`; an empty prefix means every key"
        " of the source. The worker that serves the request drops the entries before it responds. With a shared"
        " cache (`reach` is `ALL_WORKERS`) the other workers follow within milliseconds; otherwise send the request"
        " to every worker.",
        "parameters": [REQUEST_ID],
        "requestBody": {"required": True, "content": {"application/json": request}},
        "responses": {
            "200": {
                "description": "The entries were dropped. `dropped` is 0 if none was cached.",
                "headers": headers(*BASIC_HEADERS),
                "content": {"application/json": response},
            },
            **problems((*_PROBLEMS, *secured_codes(secured=secured)), schemas["Problem"], BASIC_HEADERS, _EXAMPLES),
        },
    }
    if secured:
        operation["security"] = [{"bearer": []}]
    return operation


def simple_operation(name: str, summary: str, problem_schema: dict[str, Any] | None) -> dict[str, Any]:
    """An operation without parameters. With `problem_schema` it has a 503 while not ready."""
    response = {
        "description": summary,
        "headers": headers(*BASIC_HEADERS),
        "content": {"application/json": {"schema": {"type": "object"}}},
    }
    unready = {
        "503": {
            "description": "The service is starting or stopping.",
            "headers": headers(*BASIC_HEADERS, "retry-after"),
            "content": {"application/problem+json": {"schema": problem_schema}},
        }
    }
    return {
        "operationId": name,
        "summary": summary,
        "security": [],
        "responses": {"200": response, **(unready if problem_schema else {})},
    }
