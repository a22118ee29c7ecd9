"""What operations of the document have in common: headers, parameters, problems with their examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import msgspec

from cashier.web.problem import STATUS_AND_TITLE, FieldProblem, Problem, ProblemCode, make_problem

# By the name of the struct.
Schemas: TypeAlias = Mapping[str, dict[str, Any]]
# What an example of a problem says, where it says more than its title.
Details: TypeAlias = Mapping[ProblemCode, Problem]

API_HEADERS = ("x-request-id", "server-timing", "cache-control")
BASIC_HEADERS = ("x-request-id", "cache-control")
HEADERS: dict[str, dict[str, Any]] = {
    "x-request-id": {
        "description": "The caller's, where it was sane, else made.",
        "schema": {"type": "string", "maxLength": 64},
    },
    "server-timing": {"description": "The whole and every source, in milliseconds.", "schema": {"type": "string"}},
    "cache-control": {"schema": {"const": "no-store"}},
    "retry-after": {"description": "Seconds.", "schema": {"type": "string", "pattern": "^[0-9]+$"}},
    "allow": {"schema": {"type": "string"}},
    "www-authenticate": {"schema": {"type": "string"}},
}
REQUEST_ID = {
    "name": "X-Request-Id",
    "in": "header",
    "description": "Taken over where it is 1 to 64 of `A-Za-z0-9_.:-`; otherwise ignored and made.",
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
    """An INVALID of one field."""
    return make_problem(ProblemCode.INVALID, f"{field} {message}", (FieldProblem(field, code, message),))


def problems(
    codes: Sequence[ProblemCode], schema: dict[str, Any], every: tuple[str, ...], details: Details
) -> dict[str, Any]:
    """By status; codes of one status share its entry, each with its example, and with the headers that all of them have."""
    found: dict[str, Any] = {}
    for status in sorted({STATUS_AND_TITLE[code][0] for code in codes}):
        same = [code for code in codes if STATUS_AND_TITLE[code][0] == status]
        also = set.intersection(*(set(_also(code)) for code in same))
        found[str(status)] = {
            "description": "; ".join(STATUS_AND_TITLE[code][1] for code in same),
            "headers": headers(*every, *sorted(also)),
            "content": {
                "application/problem+json": {
                    "schema": schema,
                    "examples": {code.value: _example(code, details) for code in same},
                }
            },
        }
    return found


def secured_codes(*, secured: bool) -> tuple[ProblemCode, ...]:
    return (ProblemCode.UNAUTHENTICATED, ProblemCode.FORBIDDEN) if secured else ()


def _example(code: ProblemCode, details: Details) -> dict[str, Any]:
    return {"value": msgspec.to_builtins(details.get(code) or make_problem(code, f"{STATUS_AND_TITLE[code][1]}."))}


def _also(code: ProblemCode) -> tuple[str, ...]:
    if code in _RETRY_AFTER:
        return ("retry-after",)
    return ("www-authenticate",) if code in (ProblemCode.UNAUTHENTICATED, ProblemCode.FORBIDDEN) else ()
