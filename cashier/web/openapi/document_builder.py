"""Builds the document: all schemas and all paths with their operations."""

from __future__ import annotations

from typing import Any

import msgspec

from cashier.consultation.flow import Consultation
from cashier.domain.order import ConsultRequest
from cashier.domain.payment_request import PaymentRequest
from cashier.domain.payment_resource import Payment
from cashier.fanout.l2.interface import Invalidated
from cashier.web.invalidate_endpoint import Invalidation
from cashier.web.openapi.components import HEADERS, Schemas
from cashier.web.openapi.consult_operation import consult_operation
from cashier.web.openapi.other_operations import invalidate_operation, simple_operation
from cashier.web.openapi.payment_operations import payment_paths
from cashier.web.payment_requests import Cancellation, ChallengeAnswer
from cashier.web.problem import Problem

VERSION = "1"
_STRUCTS = (
    ConsultRequest,
    Consultation,
    Problem,
    Invalidation,
    Invalidated,
    PaymentRequest,
    ChallengeAnswer,
    Cancellation,
    Payment,
)


def document(body_limit_bytes: int, *, secured: bool) -> bytes:
    """The document as JSON. Paths are relative to its URL, so any mount point works."""
    references, components = msgspec.json.schema_components(_STRUCTS, ref_template="#/components/schemas/{name}")
    # A constraint that the struct's type cannot express.
    components["Invalidation"]["oneOf"] = [{"required": ["key"]}, {"required": ["prefix"]}]
    schemas: Schemas = dict(zip((struct.__name__ for struct in _STRUCTS), references, strict=True))
    operations: dict[str, Any] = {
        "/v1/consult": {"post": consult_operation(schemas, body_limit_bytes, secured=secured)},
        "/v1/invalidate": {"post": invalidate_operation(schemas, body_limit_bytes, secured=secured)},
        **payment_paths(schemas, body_limit_bytes, secured=secured),
        "/healthz": {"get": simple_operation("healthz", "Liveness: the process answers.", None)},
        "/readyz": {"get": simple_operation("readyz", "Readiness: the service accepts requests.", schemas["Problem"])},
        "/openapi.json": {"get": simple_operation("openapi", "This document.", None)},
    }
    openapi: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": "cashier",
            "version": VERSION,
            "description": "Payment methods of an order, and payment by one of them.",
        },
        "servers": [{"url": "."}],
        "paths": operations,
        "components": {"schemas": components, "headers": HEADERS},
    }
    if secured:
        openapi["components"]["securitySchemes"] = {
            "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}
        }
    return msgspec.json.encode(openapi)
