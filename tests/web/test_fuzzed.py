"""Schemathesis against a running server: all responses conform to the document, none is 5xx."""

from __future__ import annotations

import json
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from cashier.domain.pan import payment_pan_fields
from cashier.web.openapi import document
from tests.web.server_process import RawClient, ServerProcess, consult_request

pytestmark = pytest.mark.proof

PAYMENT_PATH = "/v1/payments/{payment_id}"
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
DESCRIBED = schemathesis.openapi.from_dict(json.loads(document(65_536, secured=False)))
BOUNDED = settings(
    max_examples=60,
    derandomize=True,
    deadline=None,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


def plain_integers(case: Any) -> bool:
    """JSON Schema accepts 1.0 as an integer; the application does not, and documents that."""
    if not isinstance(case.body, dict):
        return True
    amounts = (case.body.get("amount"), case.body.get("expected_payable"))
    numbers = (case.body.get("deadline_ms"), *(amount.get("value") for amount in amounts if isinstance(amount, dict)))
    return not any(isinstance(number, float) for number in numbers)


def satisfies_unwritten_rules(case: Any) -> bool:
    """Constraints that the document does not express in schemas.

    No card number; a token, where it has two places; a user, unless the product is SCAN. A
    generated ticket is never a genuine one.
    """
    body = case.body if isinstance(case.body, dict) else {}
    token = (case.headers or {}).get("X-Payment-Token")
    if case.path.endswith("/cancel") and not (body.get("payment_token") or token):
        return False
    if case.path.endswith("/events") and (not token or "ticket" in (case.query or {})):
        return False
    if "product" in body and body.get("user_id") is None and body["product"] != "SCAN":
        return False
    return not case.path.startswith("/v1/payments") or not payment_pan_fields(body)


@pytest.mark.parametrize(
    ("path", "method", "mode"),
    [
        ("/v1/consult", "POST", GenerationMode.POSITIVE),
        ("/v1/consult", "POST", GenerationMode.NEGATIVE),
        ("/v1/invalidate", "POST", GenerationMode.POSITIVE),
        ("/v1/invalidate", "POST", GenerationMode.NEGATIVE),
        ("/v1/payments", "POST", GenerationMode.POSITIVE),
        ("/v1/payments", "POST", GenerationMode.NEGATIVE),
        (f"{PAYMENT_PATH}/challenge", "POST", GenerationMode.POSITIVE),
        (f"{PAYMENT_PATH}/challenge", "POST", GenerationMode.NEGATIVE),
        (f"{PAYMENT_PATH}/cancel", "POST", GenerationMode.POSITIVE),
        (PAYMENT_PATH, "GET", GenerationMode.POSITIVE),
        (PAYMENT_PATH, "GET", GenerationMode.NEGATIVE),
        (f"{PAYMENT_PATH}/events", "GET", GenerationMode.POSITIVE),
        (f"{PAYMENT_PATH}/stream-ticket", "POST", GenerationMode.POSITIVE),
        (f"{PAYMENT_PATH}/stream-ticket", "POST", GenerationMode.NEGATIVE),
        ("/healthz", "GET", GenerationMode.POSITIVE),
        ("/readyz", "GET", GenerationMode.POSITIVE),
        ("/openapi.json", "GET", GenerationMode.POSITIVE),
    ],
)
def test_the_server_conforms_to_its_document(
    server: ServerProcess, path: str, method: str, mode: GenerationMode
) -> None:
    strategy: st.SearchStrategy[Any] = DESCRIBED[path][method].as_strategy(generation_mode=mode)
    # Schemathesis applies the schema of an event stream to each event. The stream tests check
    # events.
    checks = [check for check in CHECKS if not (path.endswith("/events") and check is response_schema_conformance)]
    statuses = set()

    @settings(BOUNDED, max_examples=20 if "payments" in path else 60)
    @given(
        strategy.filter(plain_integers).filter(satisfies_unwritten_rules)
        if mode is GenerationMode.POSITIVE
        else strategy.filter(plain_integers)
    )
    def check_case(case: Any) -> None:
        statuses.add(case.call_and_validate(base_url=f"http://127.0.0.1:{server.port}", checks=checks).status_code)

    check_case()
    if mode is GenerationMode.POSITIVE:
        assert statuses <= {200, 202}
    else:
        # A negative case may omit `wait_ms` or send unknown parameters, which are ignored.
        # A stream ticket has no body.
        assert method == "GET" or path.endswith("/stream-ticket") or statuses.isdisjoint({200, 202})
        assert 422 in statuses


@BOUNDED
@given(st.binary(max_size=300))
def test_any_bytes_as_a_body_are_refused_with_a_problem(server: ServerProcess, body: bytes) -> None:
    assert server.request(consult_request(body)).status in (400, 422)


@BOUNDED
@given(st.binary(min_size=1, max_size=300))
def test_any_bytes_as_a_request_leave_the_server_working(server: ServerProcess, noise: bytes) -> None:
    with RawClient(server.port) as client:
        client.send(noise + b"\r\n\r\n")
        client.send(consult_request())
    assert server.request(consult_request()).status == 200
