"""Parts that the operations of the document share: headers, parameters, problems with examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import msgspec

from cashier.web.problem import STATUS_AND_TITLE, FieldProblem, Problem, ProblemCode, make_problem

# References by the name of the struct.
Schemas: TypeAlias = Mapping[str, dict[str, Any]]
# Examples of problems whose detail says more than their title.
ProblemExamples: TypeAlias = Mapping[ProblemCode, Problem]

API_HEADERS = ("x-request-id", "server-timing", "cache-control")
BASIC_HEADERS = ("x-request-id", "cache-control")
HEADERS: dict[str, dict[str, Any]] = {
    "x-request-id": {
        "description": "The caller's id if it is valid, else a new one.",
        "schema": {"type": "string", "maxLength": 64},
    },
    "server-timing": {"description": "Duration in total and by source, in milliseconds.", "schema": {"type": "string"}},
    "cache-control": {"schema": {"const": "no-store"}},
    "retry-after": {"description": "Seconds.", "schema": {"type": "string", "pattern": "^[0-9]+$"}},
    "allow": {"schema": {"type": "string"}},
    "www-authenticate": {"schema": {"type": "string"}},
}
REQUEST_ID = {
    "name": "X-Request-Id",
    "in": "header",
    "description": "Used if it is 1 to 64 of `A-Za-z0-9_.:-`; otherwise replaced by a new id.",
    "schema": {"type": "string"},
}
TRACEPARENT = {"name": "traceparent", "in": "header", "description": "W3C Trace Context.", "schema": {"type": "string"}}

_RETRY_AFTER = frozenset(
    {
        ProblemCode.REQUIRED_SOURCE_UNAVAILABLE,
        ProblemCode.NOT_READY,
        ProblemCode.OVERLOADED,
        ProblemCode.IN_FLIGHT,
        ProblemCode.CHECK_UNAVAILABLE,
        ProblemCode.ENGINE_UNAVAILABLE,
    }
)


def headers(*names: str) -> dict[str, Any]:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def invalid_field(field: str, code: str, message: str) -> Problem:
    """An INVALID problem of one field."""
    return make_problem(ProblemCode.INVALID, f"{field} {message}", (FieldProblem(field, code, message),))


def problems(
    codes: Sequence[ProblemCode], schema: dict[str, Any], common_headers: tuple[str, ...], examples: ProblemExamples
) -> dict[str, Any]:
    """Responses by status. An entry has an example per code and the headers that all codes have."""
    responses: dict[str, Any] = {}
    for status in sorted({STATUS_AND_TITLE[code][0] for code in codes}):
        of_status = [code for code in codes if STATUS_AND_TITLE[code][0] == status]
        extra_headers = set.intersection(*(set(_extra_headers(code)) for code in of_status))
        responses[str(status)] = {
            "description": "; ".join(STATUS_AND_TITLE[code][1] for code in of_status),
            "headers": headers(*common_headers, *sorted(extra_headers)),
            "content": {
                "application/problem+json": {
                    "schema": schema,
                    "examples": {code.value: _example(code, examples) for code in of_status},
                }
            },
        }
    return responses


def secured_codes(*, secured: bool) -> tuple[ProblemCode, ...]:
    return (ProblemCode.UNAUTHENTICATED, ProblemCode.FORBIDDEN) if secured else ()


def _example(code: ProblemCode, examples: ProblemExamples) -> dict[str, Any]:
    return {"value": msgspec.to_builtins(examples.get(code) or make_problem(code, f"{STATUS_AND_TITLE[code][1]}."))}


def _extra_headers(code: ProblemCode) -> tuple[str, ...]:
    if code in _RETRY_AFTER:
        return ("retry-after",)
    return ("www-authenticate",) if code in (ProblemCode.UNAUTHENTICATED, ProblemCode.FORBIDDEN) else ()
