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

from cashier.web.openapi import document

from .process import Served, Talk, asking

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
    amount = case.body.get("amount")
    numbers = (case.body.get("deadline_ms"), amount.get("value") if isinstance(amount, dict) else None)
    return not any(isinstance(number, float) for number in numbers)


@pytest.mark.parametrize(
    ("path", "method", "mode"),
    [
        ("/v1/consult", "POST", GenerationMode.POSITIVE),
        ("/v1/consult", "POST", GenerationMode.NEGATIVE),
        ("/v1/invalidate", "POST", GenerationMode.POSITIVE),
        ("/v1/invalidate", "POST", GenerationMode.NEGATIVE),
        ("/healthz", "GET", GenerationMode.POSITIVE),
        ("/readyz", "GET", GenerationMode.POSITIVE),
        ("/openapi.json", "GET", GenerationMode.POSITIVE),
    ],
)
def test_the_server_does_what_its_document_says(server: Served, path: str, method: str, mode: GenerationMode) -> None:
    strategy: st.SearchStrategy[Any] = DESCRIBED[path][method].as_strategy(generation_mode=mode)
    statuses = set()

    @BOUNDED
    @given(strategy.filter(plain_integers))
    def ask(case: Any) -> None:
        statuses.add(case.call_and_validate(base_url=f"http://127.0.0.1:{server.port}", checks=CHECKS).status_code)

    ask()
    if mode is GenerationMode.POSITIVE:
        assert statuses == {200}
    else:
        assert 200 not in statuses
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
