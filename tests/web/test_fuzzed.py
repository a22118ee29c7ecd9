"""The running server against its own description: whatever schemathesis thinks of, it is answered as the document says, never by a 5xx."""

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

from .process import Served, Talk, asking

pytestmark = pytest.mark.proof

ONE = "/v1/payments/{payment_id}"
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
    """JSON Schema calls 1.0 an integer. The door does not, and says so where it describes the body."""
    if not isinstance(case.body, dict):
        return True
    amounts = (case.body.get("amount"), case.body.get("expected_payable"))
    numbers = (case.body.get("deadline_ms"), *(amount.get("value") for amount in amounts if isinstance(amount, dict)))
    return not any(isinstance(number, float) for number in numbers)


def beyond_words(case: Any) -> bool:
    """What a schema cannot say: that a card number may be nowhere, and that the token of a cancellation is in one of two places."""
    told = case.body if isinstance(case.body, dict) else {}
    if case.path.endswith("/cancel") and not (told.get("payment_token") or (case.headers or {}).get("X-Payment-Token")):
        return False
    return not case.path.startswith("/v1/payments") or not payment_pan_fields(told)


@pytest.mark.parametrize(
    ("path", "method", "mode"),
    [
        ("/v1/consult", "POST", GenerationMode.POSITIVE),
        ("/v1/consult", "POST", GenerationMode.NEGATIVE),
        ("/v1/invalidate", "POST", GenerationMode.POSITIVE),
        ("/v1/invalidate", "POST", GenerationMode.NEGATIVE),
        ("/v1/payments", "POST", GenerationMode.POSITIVE),
        ("/v1/payments", "POST", GenerationMode.NEGATIVE),
        (f"{ONE}/challenge", "POST", GenerationMode.POSITIVE),
        (f"{ONE}/challenge", "POST", GenerationMode.NEGATIVE),
        (f"{ONE}/cancel", "POST", GenerationMode.POSITIVE),
        (ONE, "GET", GenerationMode.POSITIVE),
        (ONE, "GET", GenerationMode.NEGATIVE),
        (f"{ONE}/events", "GET", GenerationMode.POSITIVE),
        ("/healthz", "GET", GenerationMode.POSITIVE),
        ("/readyz", "GET", GenerationMode.POSITIVE),
        ("/openapi.json", "GET", GenerationMode.POSITIVE),
    ],
)
def test_the_server_does_what_its_document_says(server: Served, path: str, method: str, mode: GenerationMode) -> None:
    strategy: st.SearchStrategy[Any] = DESCRIBED[path][method].as_strategy(generation_mode=mode)
    # This tool takes the schema of an event stream for that of each event. What is in a stream is looked at where streams are.
    checks = [check for check in CHECKS if not (path.endswith("/events") and check is response_schema_conformance)]
    statuses = set()

    @settings(BOUNDED, max_examples=20 if "payments" in path else 60)
    @given(
        strategy.filter(plain_integers).filter(beyond_words)
        if mode is GenerationMode.POSITIVE
        else strategy.filter(plain_integers)
    )
    def ask(case: Any) -> None:
        statuses.add(case.call_and_validate(base_url=f"http://127.0.0.1:{server.port}", checks=checks).status_code)

    ask()
    if mode is GenerationMode.POSITIVE:
        assert statuses <= {200, 202}
    else:
        # Something else in the place of `wait_ms` may come to be no `wait_ms` at all, and unknown parameters are ignored.
        assert method == "GET" or statuses.isdisjoint({200, 202})
        assert 422 in statuses


@BOUNDED
@given(st.binary(max_size=300))
def test_any_bytes_as_a_body_are_refused_in_words(server: Served, body: bytes) -> None:
    assert server.ask(asking(body)).status in (400, 422)


@BOUNDED
@given(st.binary(min_size=1, max_size=300))
def test_any_bytes_as_a_request_leave_the_server_standing(server: Served, noise: bytes) -> None:
    with Talk(server.port) as talk:
        talk.say(noise + b"\r\n\r\n")
        talk.say(asking())
    assert server.ask(asking()).status == 200
