"""The table of operations is what the code asks for and accepts."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl, quote

import msgspec
import pytest

from cashier.consultation.source_table import SOURCE_SPECS
from cashier.contract import OPERATIONS, Operation
from cashier.contract.examples import examples
from cashier.domain.engine_contract import EngineAnswered, ReversalReason, Submission
from cashier.domain.money import Money
from cashier.domain.order_result import OrderResult
from cashier.domain.risk_contract import Challenged, Inquiry, Resent, WrongAnswer
from cashier.payments import ports
from cashier.source_errors import SourceError, WrongIdentity
from cashier.sources.acquirer import parse_result, result_request
from cashier.sources.engine import (
    look_up_request,
    parse_look_up,
    parse_reverse,
    parse_submit,
    reverse_request,
    submit_request,
)
from cashier.sources.risk import (
    decide_request,
    parse_decision,
    parse_resend,
    parse_verification,
    resend_request,
    verify_request,
)
from cashier.sources.source import parse_response
from cashier.wire.transport import Request, Response

EXAMPLES = examples()
VALUES: dict[str, Any] = {
    "order_id": "o_1001",
    "user_id": "u_1",
    "merchant_id": "m_1",
    "currency": "CNY",
    "country": "CN",
    "amount": Money("CNY", 12_800),
    "value": "12800",
    "challenge_id": "chl_1",
    "payment_id": "pay_1",
}
SOURCES = {spec.source.name: spec.source for spec in SOURCE_SPECS}
SUBMISSION = msgspec.convert(EXAMPLES["engine_submit"]["body"], Submission)
INQUIRY = msgspec.convert(EXAMPLES["risk_decide"]["body"], Inquiry)
# By operation: the request of the code, how it reads an answer, and what a good one becomes.
PAYMENT_SERVICES: dict[str, tuple[Request, Callable[[Response], Any], type]] = {
    "risk_decide": (decide_request(INQUIRY), lambda answer: parse_decision(answer, "pay_1"), Challenged),
    "risk_verify": (
        verify_request("chl_1", "pay_1", "246810"),
        lambda answer: parse_verification(answer, "pay_1"),
        WrongAnswer,
    ),
    "risk_resend": (resend_request("chl_1", "pay_1"), lambda answer: parse_resend(answer, "pay_1"), Resent),
    "engine_submit": (
        submit_request(SUBMISSION),
        lambda answer: parse_submit(answer, "pay_1", "o_1001"),
        EngineAnswered,
    ),
    "engine_look_up": (
        look_up_request("pay_1", "o_1001"),
        lambda answer: parse_look_up(answer, "pay_1", "o_1001"),
        EngineAnswered,
    ),
    "engine_reverse": (
        reverse_request("pay_1", "o_1001", ReversalReason.CANCELLED),
        lambda answer: parse_reverse(answer, "pay_1", "o_1001"),
        EngineAnswered,
    ),
    "acquirer_result": (result_request("o_1001"), lambda answer: parse_result(answer, "o_1001"), OrderResult),
}
BY_OPERATION = pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.operation_id)


def real_request(operation: Operation) -> Request:
    if operation.source in SOURCES:
        return SOURCES[operation.source].request(VALUES)
    return PAYMENT_SERVICES[operation.operation_id][0]


def read(operation: Operation, status: int, body: Any) -> Any:
    answer = Response(status, body if isinstance(body, bytes) else json.dumps(body).encode())
    if operation.source in SOURCES:
        return parse_response(SOURCES[operation.source], answer, VALUES)
    return PAYMENT_SERVICES[operation.operation_id][1](answer)


def error_in(outcome: Any) -> SourceError | None:
    """Outcomes of payment services carry the error that they stand for."""
    return outcome if isinstance(outcome, SourceError) else getattr(outcome, "error", None)


@BY_OPERATION
def test_the_request_is_what_the_code_sends(operation: Operation) -> None:
    request = real_request(operation)
    path, _, query = request.target.partition("?")
    filled = {name: quote(str(VALUES[name]), safe=":@") for name in operation.path_parameters}
    assert (request.method, path) == (operation.method, operation.path.format(**filled))
    assert dict(parse_qsl(query)) == {name: VALUES[name] for name in operation.query}
    assert dict(request.headers) == {name: value.format(**VALUES) for name, value in operation.headers.items()}
    assert request.safe is operation.repeatable


@BY_OPERATION
def test_the_body_is_what_the_code_sends(operation: Operation) -> None:
    request = real_request(operation)
    if operation.body is None:
        assert request.body == b""
    else:
        assert json.loads(request.body) == EXAMPLES[operation.operation_id]["body"]
        assert msgspec.json.encode(msgspec.json.decode(request.body, type=operation.body)) == request.body


@BY_OPERATION
def test_the_example_of_an_answer_is_understood(operation: Operation) -> None:
    outcome = read(operation, 200, example_of(operation))
    assert error_in(outcome) is None
    if operation.source not in SOURCES:
        assert isinstance(outcome, PAYMENT_SERVICES[operation.operation_id][2])


@BY_OPERATION
def test_an_answer_about_another_subject_is_discarded(operation: Operation) -> None:
    for field in operation.echoes:
        assert isinstance(error_in(read(operation, 200, example_of(operation) | {field: "another"})), WrongIdentity)
    required = {field.encode_name for field in msgspec.structs.fields(operation.answer) if field.required}
    assert {name for name in required if name in ("user_id", "payment_id")} <= operation.echoes.keys()


@BY_OPERATION
def test_a_status_means_something_exactly_if_the_table_has_it(operation: Operation) -> None:
    for status in (200, 201, 204, 301, 400, 404, 409, 410, 422, 429, 500, 503):
        body = EXAMPLES[operation.operation_id].get(str(status), {"code": "NOT_FOUND"})
        understood = error_in(read(operation, status, body)) is None
        assert understood is (status in operation.answers), status


@BY_OPERATION
def test_the_batch_form_takes_what_the_code_sends(operation: Operation) -> None:
    source = SOURCES.get(operation.source)
    parameters = None if source is None else source.parameters
    assert operation.batch == (None if parameters is None else tuple(parameters(VALUES)))
    if operation.batch is not None:
        assert set(operation.batch) == {*operation.path_parameters, *operation.query}


def test_each_method_of_the_ports_is_an_operation() -> None:
    for source, port in (("risk", ports.RiskPort), ("engine", ports.EnginePort), ("acquirer", ports.AcquirerPort)):
        methods = {name for name, _ in inspect.getmembers(port, inspect.isfunction) if not name.startswith("_")}
        assert {operation.name for operation in OPERATIONS if operation.source == source} == methods


def test_each_example_is_of_an_operation_and_each_body_has_one() -> None:
    for operation in OPERATIONS:
        bodies = {"body"} if operation.body is not None else set()
        answers = {str(status) for status, struct in operation.answers.items() if struct is not None}
        assert EXAMPLES[operation.operation_id].keys() == bodies | answers
    assert EXAMPLES.keys() == {operation.operation_id for operation in OPERATIONS}


def example_of(operation: Operation) -> dict[str, Any]:
    """One that names the subject of `VALUES`."""
    example: dict[str, Any] = EXAMPLES[operation.operation_id]["200"]
    return example
