"""The OpenAPI 3.1 document, generated from the structs that the codec reads and writes, so that it says what the door does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import msgspec

from cashier.consult import Consultation
from cashier.domain.order import ConsultRequest
from cashier.fanout.second_level import Invalidated
from cashier.web.example import ANSWER, REQUEST
from cashier.web.headers import LONGEST_MS
from cashier.web.invalidating import Invalidation
from cashier.web.problem import KNOWN, Code, Fault, Problem, problem

VERSION = "1"
_EVERY_ANSWER = ("x-request-id", "server-timing", "cache-control")
_EVERY_PAGE = ("x-request-id", "cache-control")
_HEADERS: dict[str, dict[str, Any]] = {
    "x-request-id": {"description": "The caller's, where it was sane, else made.", "schema": {"type": "string", "maxLength": 64}},
    "server-timing": {"description": "The whole and every source, in milliseconds.", "schema": {"type": "string"}},
    "cache-control": {"schema": {"const": "no-store"}},
    "retry-after": {"description": "Seconds.", "schema": {"type": "string", "pattern": "^[0-9]+$"}},
    "allow": {"schema": {"type": "string"}},
    "www-authenticate": {"schema": {"type": "string"}},
}
_CONSULT_PROBLEMS = (
    Code.MALFORMED,
    Code.ORDER_UNKNOWN,
    Code.BODY_TIMEOUT,
    Code.TOO_LARGE,
    Code.UNSUPPORTED_MEDIA_TYPE,
    Code.INVALID,
    Code.INTERNAL,
    Code.OVERLOADED,
    Code.REQUIRED_SOURCE_UNAVAILABLE,
)
_INVALIDATE_PROBLEMS = (
    Code.MALFORMED,
    Code.BODY_TIMEOUT,
    Code.TOO_LARGE,
    Code.UNSUPPORTED_MEDIA_TYPE,
    Code.INVALID,
    Code.INTERNAL,
    Code.NOT_READY,
)
_REQUEST_ID = {
    "name": "X-Request-Id",
    "in": "header",
    "description": "Taken over where it is 1 to 64 of `A-Za-z0-9_.:-`; otherwise ignored and made.",
    "schema": {"type": "string"},
}
_EITHER = ("key is required, or prefix in its place", (Fault("key", "MISSING", "is required, or prefix in its place"),))
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
Details: TypeAlias = Mapping[Code, tuple[str, tuple[Fault, ...]]]
_DETAILS: Details = {
    Code.INVALID: (
        "amount.value must be from 0 to 9007199254740991",
        (Fault("amount.value", "OUT_OF_RANGE", "must be from 0 to 9007199254740991"),),
    ),
}


def document(body_limit_bytes: int, *, secured: bool) -> bytes:
    """The document as JSON. Its paths are relative to where it was found, so it holds under any mount."""
    (request, answer, trouble, told, done), schemas = msgspec.json.schema_components(
        (ConsultRequest, Consultation, Problem, Invalidation, Invalidated), ref_template="#/components/schemas/{name}"
    )
    # What its type does not say.
    schemas["Invalidation"]["oneOf"] = [{"required": ["key"]}, {"required": ["prefix"]}]
    components: dict[str, Any] = {"schemas": schemas, "headers": _HEADERS}
    whole: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": "cashier", "version": VERSION, "description": "Which ways to pay are there, now, for this order?"},
        "servers": [{"url": "."}],
        "paths": {
            "/v1/consult": {"post": _consult(request, answer, trouble, body_limit_bytes, secured=secured)},
            "/v1/invalidate": {"post": _invalidate(told, done, trouble, body_limit_bytes, secured=secured)},
            "/healthz": {"get": _page("healthz", "Whether the process lives.", {"type": "object"}, None)},
            "/readyz": {"get": _page("readyz", "Whether it wants to be asked.", {"type": "object"}, trouble)},
            "/openapi.json": {"get": _page("openapi", "This document.", {"type": "object"}, None)},
        },
        "components": components,
    }
    if secured:
        components["securitySchemes"] = {"bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}}
    return msgspec.json.encode(whole)


def _consult(
    request: dict[str, Any], answer: dict[str, Any], trouble: dict[str, Any], body_limit_bytes: int, *, secured: bool
) -> dict[str, Any]:
    codes = (*_CONSULT_PROBLEMS, *((Code.UNAUTHENTICATED, Code.FORBIDDEN) if secured else ()))
    operation: dict[str, Any] = {
        "operationId": "consult",
        "summary": "Ask which ways to pay there are, what each costs, and why it can or cannot be used.",
        "description": f"At most {body_limit_bytes} bytes. Integers have no fraction, not even .0. Of a key that comes twice"
        " the last counts; unknown fields are ignored. With text/event-stream in Accept the answers come as events.",
        "parameters": _parameters(),
        "requestBody": {"required": True, "content": {"application/json": {"schema": request, "example": REQUEST}}},
        "responses": {
            "200": {
                "description": "The consultation ran. An order that cannot be paid is an answer too.",
                "headers": _headers(*_EVERY_ANSWER),
                "content": {"application/json": {"schema": answer, "example": ANSWER}, "text/event-stream": _EVENTS},
            },
            **_problems(codes, trouble, _EVERY_ANSWER, _DETAILS),
        },
    }
    if secured:
        operation["security"] = [{"bearer": []}]
    return operation


def _invalidate(
    told: dict[str, Any], done: dict[str, Any], trouble: dict[str, Any], body_limit_bytes: int, *, secured: bool
) -> dict[str, Any]:
    codes = (*_INVALIDATE_PROBLEMS, *((Code.UNAUTHENTICATED, Code.FORBIDDEN) if secured else ()))
    operation: dict[str, Any] = {
        "operationId": "invalidate",
        "summary": "Say that something changed, so that what is remembered of it is dropped.",
        "description": f"At most {body_limit_bytes} bytes. Either a key or a prefix; an empty prefix is all of the source. The worker that"
        " is asked drops it before it answers. With a shared cache (`reach` is `ALL_WORKERS`) the others are told then, which is a"
        " matter of milliseconds; otherwise every worker has to be told.",
        "parameters": [_REQUEST_ID],
        "requestBody": {"required": True, "content": {"application/json": {"schema": told, "example": {"source": "card", "key": "u_1"}}}},
        "responses": {
            "200": {
                "description": "It is gone. Nothing was remembered: `dropped` is 0.",
                "headers": _headers(*_EVERY_PAGE),
                "content": {"application/json": {"schema": done, "example": {"source": "card", "dropped": 1, "reach": "ALL_WORKERS"}}},
            },
            **_problems(codes, trouble, _EVERY_PAGE, {Code.INVALID: _EITHER}),
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
            "description": f"How long the caller waits. The smallest of this, `deadline_ms` and {LONGEST_MS} counts.",
            "schema": {"type": "integer", "minimum": 1},
        },
        _REQUEST_ID,
        {
            "name": "X-Priority",
            "in": "header",
            "description": "Who goes first when there is more to do than can be done: critical, high, normal or low. Anybody may ask for"
            " less than its product stands for (SCAN is high, STANDARD_CASHIER normal, EMBEDDED_CASHIER low); more counts only from a"
            " caller whose bearer token was verified before. Another word counts as none.",
            "schema": {"type": "string"},
        },
        {"name": "traceparent", "in": "header", "description": "W3C Trace Context.", "schema": {"type": "string"}},
    ]


def _problems(codes: tuple[Code, ...], schema: dict[str, Any], every: tuple[str, ...], details: Details) -> dict[str, Any]:
    """By status; two codes of one status share its entry, each with its example."""
    found: dict[str, Any] = {}
    for code in sorted(codes, key=lambda each: KNOWN[each][0]):
        status, title = KNOWN[code]
        entry = found.setdefault(
            str(status),
            {
                "description": title,
                "headers": _headers(*every, *_also(code)),
                "content": {"application/problem+json": {"schema": schema, "examples": {}}},
            },
        )
        detail, errors = details.get(code, (f"{title}.", ()))
        example = msgspec.to_builtins(problem(code, detail, errors))
        entry["content"]["application/problem+json"]["examples"][code.value] = {"value": example}
    return found


def _also(code: Code) -> tuple[str, ...]:
    match code:
        case Code.UNAUTHENTICATED | Code.FORBIDDEN:
            return ("www-authenticate",)
        case Code.REQUIRED_SOURCE_UNAVAILABLE | Code.NOT_READY | Code.OVERLOADED:
            return ("retry-after",)
        case _:
            return ()


def _headers(*names: str) -> dict[str, Any]:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _page(name: str, summary: str, schema: dict[str, Any], trouble: dict[str, Any] | None) -> dict[str, Any]:
    answer = {
        "description": summary,
        "headers": _headers(*_EVERY_PAGE),
        "content": {"application/json": {"schema": schema}},
    }
    unready = {
        "503": {
            "description": "It starts, or it stops.",
            "headers": _headers(*_EVERY_PAGE, "retry-after"),
            "content": {"application/problem+json": {"schema": trouble}},
        }
    }
    return {"operationId": name, "summary": summary, "security": [], "responses": {"200": answer, **(unready if trouble else {})}}
