"""Risk, engine and acquirer: requests, and the outcome of every answer and of none.

Transports are scripted, time is virtual.
"""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from typing import Any, assert_never

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cashier.domain import engine_contract, order_result, risk_contract
from cashier.domain.engine_contract import (
    EngineAnswered,
    EngineKeyReused,
    EnginePayment,
    EngineStatus,
    NeverArrived,
    NotSent,
    OrderHasLiveAttempt,
    OutcomeUnknown,
    Sealed,
    Submission,
)
from cashier.domain.legs import EngineLeg, EngineLegType
from cashier.domain.money import Money
from cashier.domain.next_action import Await
from cashier.domain.pay_method import Kind
from cashier.domain.payment_request import Device
from cashier.domain.status_mapping import acquirer_report, engine_report
from cashier.domain.upstream_report import AcquirerReport, AcquirerReportStatus, EngineReport, EngineReportStatus
from cashier.source_errors import (
    Garbled,
    Overloaded,
    Shed,
    SourceError,
    TimedOut,
    Unanswered,
    Unreachable,
    WrongIdentity,
)
from cashier.sources import acquirer, engine, risk
from cashier.sources.idempotent_retry import RetrySettings
from cashier.wire.transport import CallHeaders, OnResponse, Request, Response, TransportCall

SECRET = "4111111111111111"
CALL_HEADERS = CallHeaders("r-1")
PAID = {"payment_id": "pay_1", "status": "SUCCEEDED"}
UNKNOWN = {"code": "PAYMENT_UNKNOWN"}
AT = "2026-11-23T12:00:00+00:00"
LEG = EngineLeg(
    type=EngineLegType.CHANNEL, id="ch_1", channel_id="ch_1", instrument_id=SECRET, amount=Money("CNY", 100)
)
SUBMISSION = Submission(
    payment_id="pay_1",
    order_id="o_1",
    user_id="u_1",
    merchant_id="m_1",
    fingerprint="f",
    amount=LEG.amount,
    legs=(LEG,),
    alternatives=(),
    decision_id="d_1",
    auth_code=SECRET,
)
INQUIRY = risk_contract.Inquiry(
    payment_id="pay_1", order_id="o_1", user_id="u_1", merchant_id="m_1", amount=Money("CNY", 100), kind=Kind.CARD,
    instrument_id=SECRET, device=Device(),
)  # fmt: skip
CHALLENGE = {
    "challenge_id": "c_1",
    "type": "SMS_OTP",
    "render_value": "138****1234",
    "attempts_left": 3,
    "expires_at": AT,
}
CHALLENGED = {"decision": "CHALLENGE", "decision_id": "d_1", "challenge": CHALLENGE}
ORDER = {"order_id": "o_1", "status": "PAID", "payment_id": "pay_1", "paid": {"currency": "CNY", "value": 100}}


def answer(status: int, body: Any) -> Response:
    return Response(status, body if isinstance(body, bytes) else json.dumps(body).encode())


def submitted(response: Response | SourceError) -> engine_contract.SubmitOutcome:
    return engine.parse_submit(response, "pay_1", "o_1")


def looked_up(response: Response | SourceError) -> engine_contract.LookUpOutcome:
    return engine.parse_look_up(response, "pay_1", "o_1")


def reversed_(response: Response | SourceError) -> engine_contract.ReverseOutcome:
    return engine.parse_reverse(response, "pay_1", "o_1")


class Scripted:
    """Answers the n-th call with the n-th of these, later calls not at all."""

    addresses = ("scripted",)

    def __init__(self, *answers: Response | SourceError | None) -> None:
        self.answers = list(answers)
        self.requests: list[Request] = []

    async def open(self) -> None: ...

    async def is_reachable(self) -> bool:
        return True

    async def close(self) -> None: ...

    def send(
        self, request: Request, call_headers: CallHeaders, budget_ms: int, on_response: OnResponse, avoid: int = 0
    ) -> TransportCall:
        self.requests.append(request)
        outcome = self.answers.pop(0) if self.answers else None
        if outcome is not None:
            asyncio.get_running_loop().call_soon(on_response, outcome)
        return Sent()


class Sent:
    address_index = 0
    sent = True

    def abandon(self) -> None: ...


# The submit


def test_a_submit_has_its_key_and_the_fields_of_the_contract_and_is_unsafe() -> None:
    request = engine.submit_request(SUBMISSION)
    assert (request.method, request.target, request.safe) == ("POST", "/payments", False)
    assert request.headers == (("Idempotency-Key", "pay_1"),)
    leg = {
        "type": "CHANNEL",
        "id": "ch_1",
        "channel_id": "ch_1",
        "instrument_id": SECRET,
        "amount": {"currency": "CNY", "value": 100},
    }
    parties = {"payment_id": "pay_1", "order_id": "o_1", "user_id": "u_1", "merchant_id": "m_1"}
    rest: dict[str, Any] = {"fingerprint": "f", "amount": leg["amount"], "legs": [leg], "alternatives": []}
    rest |= {"decision_id": "d_1", "auth_code": SECRET}
    assert json.loads(request.body) == parties | rest


@pytest.mark.parametrize("status", ["PROCESSING", "USER_PAYING", "SUCCEEDED", "FAILED"])
def test_an_answer_to_a_submit_has_the_status_of_the_payment(status: str) -> None:
    outcome = submitted(answer(200, {"payment_id": "pay_1", "status": status}))
    assert isinstance(outcome, EngineAnswered)
    assert outcome.payment.status == status


def test_a_busy_order_names_the_live_attempt_and_a_reused_key_is_reported() -> None:
    assert submitted(answer(409, {"code": "ORDER_BUSY", "payment_id": "pay_9"})) == OrderHasLiveAttempt("pay_9")
    assert submitted(answer(422, {"code": "KEY_REUSED"})) == EngineKeyReused()


@pytest.mark.parametrize(
    "error", [Unreachable("refused", sent=False), Shed("full"), TimedOut("in the queue", sent=False)]
)
def test_a_submit_that_certainly_never_left_was_not_sent(error: SourceError) -> None:
    assert submitted(error) == NotSent(error)


SCRIPT_REDIRECT = {"type": "REDIRECT", "method": "GET", "url": "javascript:alert(1)"}
NO_ANSWERS = [
    Unreachable("reset"),
    TimedOut("late"),
    Garbled("nonsense"),
    answer(500, b"oops"),
    answer(502, b"<html>"),
    answer(503, {}),
    answer(429, {}),
    answer(404, UNKNOWN),
    answer(404, b""),
    answer(400, {"code": "MALFORMED"}),
    answer(201, PAID),
    answer(200, b'{"payment_id": "pay_1", "sta'),
    answer(200, b""),
    answer(200, []),
    answer(200, {"payment_id": "pay_2", "status": "FAILED"}),
    answer(200, {**PAID, "order_id": "o_2"}),
    answer(200, {**PAID, "status": "MAYBE"}),
    answer(200, {**PAID, "failure": {"code": "X", "text": "x"}}),
    answer(200, {**PAID, "status": "ACTION_REQUIRED"}),
    answer(200, {**PAID, "status": "ACTION_REQUIRED", "next_action": {"type": "DANCE"}}),
    answer(200, {**PAID, "status": "ACTION_REQUIRED", "next_action": SCRIPT_REDIRECT}),
    answer(409, {"code": "ORDER_BUSY"}),
    answer(409, {"code": "ORDER_BUSY", "payment_id": "pay_1"}),
    answer(409, {"code": "CONFLICT", "payment_id": "pay_9"}),
    answer(422, {"code": "ORDER_UNKNOWN"}),
    answer(422, b""),
]  # fmt: skip


@pytest.mark.parametrize("response", NO_ANSWERS, ids=repr)
def test_a_submit_without_a_credible_answer_is_unknown_and_never_failed(response: Response | SourceError) -> None:
    assert isinstance(submitted(response), OutcomeUnknown)


@pytest.mark.parametrize("response", [None, *NO_ANSWERS, Unreachable("refused", sent=False)], ids=repr)
async def test_a_submit_is_sent_once_regardless_of_the_answer(response: Response | SourceError | None) -> None:
    transport = Scripted(response, answer(200, PAID))
    outcome = await engine.EngineClient(transport).submit(SUBMISSION, CALL_HEADERS, 1)
    assert isinstance(outcome, OutcomeUnknown | NotSent)
    assert len(transport.requests) == 1


# Look-ups and reversals


def test_only_the_engines_own_404_means_never_arrived() -> None:
    assert looked_up(answer(404, UNKNOWN)) == NeverArrived()
    assert isinstance(looked_up(answer(404, b"<html>")), Unanswered)
    assert isinstance(looked_up(answer(404, {"code": "NO_ROUTE"})), Unanswered)


@pytest.mark.parametrize("body", [b"", b"{}", b"<html>", {"code": "NO_ROUTE"}, {"code": 7}])
def test_a_reverse_seals_only_with_a_code_of_the_engine(body: Any) -> None:
    assert reversed_(answer(404, UNKNOWN)) == Sealed()
    assert isinstance(reversed_(answer(404, body)), Unanswered)


def test_a_reverse_after_success_reports_success() -> None:
    outcome = reversed_(answer(200, PAID))
    assert isinstance(outcome, EngineAnswered)
    assert outcome.payment.status is EngineStatus.SUCCEEDED


@pytest.mark.looptime
async def test_status_queries_and_reversals_are_retried_until_answered() -> None:
    bad = (Unreachable("reset"), Overloaded("later", 0.2))
    transport = Scripted(*bad, answer(200, PAID))
    assert isinstance(await engine.EngineClient(transport).look_up("pay_1", "o_1", CALL_HEADERS, 5000), EngineAnswered)
    assert [request.target for request in transport.requests] == ["/payments/pay_1"] * 3
    assert asyncio.get_running_loop().time() >= 0.2
    transport = Scripted(*bad, answer(404, UNKNOWN))
    assert await engine.EngineClient(transport).reverse("pay_1", "o_1", CALL_HEADERS, 5000) == Sealed()
    assert [(request.method, request.target) for request in transport.requests] == [
        ("POST", "/payments/pay_1/reverse")
    ] * 3
    transport = Scripted(*bad, answer(200, ORDER))
    assert isinstance(
        await acquirer.AcquirerClient(transport).result("o_1", CALL_HEADERS, 5000), order_result.OrderResult
    )


@pytest.mark.looptime
async def test_retries_end_with_the_budget_or_the_attempts() -> None:
    loop = asyncio.get_running_loop()
    silent = Scripted()
    outcome = await engine.EngineClient(silent, RetrySettings(attempts=100, attempt_ms=100)).look_up(
        "pay_1", "o_1", CALL_HEADERS, 1000
    )
    assert isinstance(outcome, Unanswered)
    assert isinstance(outcome.error, TimedOut)
    assert loop.time() <= 1.001
    assert len(silent.requests) >= 2
    down = Scripted(*[Unreachable("reset")] * 9)
    assert isinstance(
        await engine.EngineClient(down, RetrySettings(attempts=4)).look_up("pay_1", "o_1", CALL_HEADERS, 60_000),
        Unanswered,
    )
    assert len(down.requests) == 4
    busy, before = Scripted(Overloaded("later", 3600.0)), loop.time()
    assert isinstance(await engine.EngineClient(busy).look_up("pay_1", "o_1", CALL_HEADERS, 5000), Unanswered)
    assert loop.time() - before < 0.1


# Risk


def test_each_decision_has_its_own_outcome() -> None:
    def decided(body: Any) -> risk_contract.RiskDecision:
        return risk.parse_decision(answer(200, body), "pay_1")

    assert decided({"decision": "ACCEPT", "decision_id": "d_1"}) == risk_contract.Accepted("d_1")
    assert decided({"decision": "REJECT", "decision_id": "d_1", "code": "LISTED"}) == risk_contract.Rejected(
        "d_1", "LISTED"
    )
    challenged = decided(CHALLENGED)
    assert isinstance(challenged, risk_contract.Challenged)
    assert challenged.challenge.type is risk_contract.ChallengeType.SMS_OTP


@pytest.mark.parametrize(
    "response",
    [
        Unreachable("refused", sent=False),
        answer(404, {"code": "NOT_FOUND"}),
        answer(503, {}),
        answer(200, {"decision": "ACCEPT"}),
        answer(200, {"decision": "PERHAPS", "decision_id": "d_1"}),
        answer(200, {"decision": "CHALLENGE", "decision_id": "d_1"}),
        answer(200, {**CHALLENGED, "decision": "ACCEPT"}),
        answer(200, {**CHALLENGED, "challenge": {**CHALLENGE, "challenge_id": "../../x"}}),
        answer(200, {"decision": "ACCEPT", "decision_id": "d_1", "payment_id": "pay_2"}),
    ],
    ids=repr,
)
def test_an_incredible_decision_counts_as_unanswered(response: Response | SourceError) -> None:
    assert isinstance(risk.parse_decision(response, "pay_1"), Unanswered)


def test_each_verification_has_its_own_outcome() -> None:
    def verified(status: int, body: Any) -> risk_contract.ChallengeVerification:
        return risk.parse_verification(answer(status, body), "pay_1")

    assert verified(200, {"status": "PASSED", "attempts_left": 3}) == risk_contract.Passed()
    assert verified(200, {"status": "FAILED", "attempts_left": 0}) == risk_contract.WrongAnswer(0)
    assert verified(200, {"status": "EXPIRED", "attempts_left": 0}) == risk_contract.Expired()
    assert verified(404, {"code": "CHALLENGE_UNKNOWN"}) == risk_contract.NoChallenge()
    for outcome in (
        verified(404, b"<html>"),
        verified(200, {"status": "PASSED"}),
        verified(500, b""),
        verified(200, b""),
    ):
        assert isinstance(outcome, Unanswered)


@pytest.mark.parametrize("response", [None, Unreachable("reset"), answer(503, {})], ids=repr)
async def test_requests_to_risk_are_never_repeated(response: Response | SourceError | None) -> None:
    transport = Scripted(response)
    assert isinstance(await risk.RiskClient(transport).decide(INQUIRY, CALL_HEADERS, 1), Unanswered)
    transport.answers = [response]
    assert isinstance(await risk.RiskClient(transport).verify("c_1", "pay_1", "246810", CALL_HEADERS, 1), Unanswered)
    assert [(request.target, request.safe) for request in transport.requests] == [
        ("/risk/decisions", False),
        ("/risk/challenges/c_1/verify", False),
    ]


# The acquirer


@pytest.mark.parametrize("status", list(order_result.ResultStatus))
def test_every_status_of_the_acquirer_is_read(status: str) -> None:
    result = acquirer.parse_result(answer(200, {**ORDER, "status": status}), "o_1")
    assert isinstance(result, order_result.OrderResult)
    assert (result.status, result.paid) == (status, Money("CNY", 100))


def test_another_order_or_an_unknown_status_counts_as_unanswered() -> None:
    other = acquirer.parse_result(answer(200, {**ORDER, "order_id": "o_2"}), "o_1")
    assert isinstance(other, Unanswered)
    assert isinstance(other.error, WrongIdentity)
    assert isinstance(acquirer.parse_result(answer(200, {**ORDER, "status": "HALF_PAID"}), "o_1"), Unanswered)
    assert acquirer.parse_result(answer(404, {"code": "ORDER_UNKNOWN"}), "o_1") == order_result.NoOrder()


# Reports for the domain


def test_every_status_maps_to_a_report_and_every_error_to_silence() -> None:
    for status in EngineStatus:
        payment = EnginePayment(
            payment_id="pay_1",
            status=status,
            failure=engine_contract.EngineFailure("X", "x") if status == "FAILED" else None,
            next_action=Await(poll_after_ms=1, until=datetime(2026, 11, 23, tzinfo=UTC))
            if status == "ACTION_REQUIRED"
            else None,
        )
        code = "X" if status == "FAILED" else None
        assert engine_report(EngineAnswered(payment)) == EngineReport(
            EngineReportStatus(status), code, payment.next_action
        )
    silent = Unreachable("reset")
    assert (
        engine_report(OutcomeUnknown(silent))
        == engine_report(Unanswered(silent))
        == EngineReport(EngineReportStatus.SILENT)
    )
    assert [engine_report(NeverArrived()).status, engine_report(Sealed()).status] == [
        EngineReportStatus.NEVER_ARRIVED,
        EngineReportStatus.SEALED,
    ]
    for result in order_result.ResultStatus:
        report = order_result.OrderResult(order_id="o_1", status=result, payment_id="pay_1", closed_reason="C")
        assert acquirer_report(report) == AcquirerReport(AcquirerReportStatus(result), "pay_1", "C")
    assert (
        acquirer_report(order_result.NoOrder())
        == acquirer_report(Unanswered(silent))
        == AcquirerReport(AcquirerReportStatus.SILENT)
    )


# All services


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=8)
    | st.sampled_from(["pay_1", "FAILED", AT]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A valid answer with a part replaced, added, removed or cut off."""
    redirect = {"type": "REDIRECT", "method": "GET", "url": "https://bank.example"}
    redirected = {**PAID, "status": "ACTION_REQUIRED", "next_action": redirect}
    body: Any = json.loads(
        json.dumps(
            draw(
                st.sampled_from(
                    [PAID, redirected, CHALLENGED, ORDER, UNKNOWN, {"status": "FAILED", "attempts_left": 1}]
                )
            )
        )
    )
    nested = body
    while any(isinstance(value, dict) for value in nested.values()) and draw(st.booleans()):
        nested = next(value for value in nested.values() if isinstance(value, dict))
    name = draw(st.sampled_from([*nested, "failure", "code", "payment_id"]))
    if draw(st.booleans()):
        nested[name] = draw(JSON)
    else:
        nested.pop(name, None)
    encoded = json.dumps(body).encode()
    return draw(st.sampled_from([encoded, encoded[: draw(st.integers(0, len(encoded)))], draw(st.binary(max_size=20))]))


def is_defined(
    outcome: engine_contract.SubmitOutcome | engine_contract.LookUpOutcome | engine_contract.ReverseOutcome,
) -> bool:
    """A defined outcome with valid content. mypy checks that no outcome is missing here."""
    match outcome:
        case EngineAnswered(payment):
            return payment.payment_id == "pay_1" and isinstance(payment.status, EngineStatus)
        case OrderHasLiveAttempt(payment_id):
            return payment_id != "pay_1"
        case EngineKeyReused() | NeverArrived() | Sealed():
            return True
        case NotSent(error):
            return not error.sent
        case OutcomeUnknown(error) | Unanswered(error):
            return error.sent
    assert_never(outcome)


@given(mutated(), st.sampled_from([200, 200, 200, 404, 409, 422, 500, 503, 429, 302]))
def test_hostile_answers_are_accepted_or_refused_and_never_raise(body: bytes, status: int) -> None:
    response = Response(status, body)
    assert is_defined(submitted(response))
    assert is_defined(looked_up(response))
    assert is_defined(reversed_(response))
    assert isinstance(
        risk.parse_decision(response, "pay_1"),
        risk_contract.Accepted | risk_contract.Rejected | risk_contract.Challenged | Unanswered,
    )
    assert isinstance(
        risk.parse_verification(response, "pay_1"),
        risk_contract.Passed
        | risk_contract.WrongAnswer
        | risk_contract.Expired
        | risk_contract.NoChallenge
        | Unanswered,
    )
    result = acquirer.parse_result(response, "o_1")
    assert isinstance(result, order_result.NoOrder | Unanswered) or (
        isinstance(result, order_result.OrderResult) and result.order_id == "o_1"
    )


def test_no_secret_appears_in_reprs_and_errors() -> None:
    echo = json.dumps({"payment_id": SECRET, "status": SECRET, "next_action": {"type": SECRET}}).encode()
    responses = [Response(status, echo) for status in (200, 404, 409, 422, 500)]
    values = [
        LEG, SUBMISSION, INQUIRY, *responses, engine.submit_request(SUBMISSION), risk.decide_request(INQUIRY),
        risk.verify_request("c_1", "pay_1", SECRET), *map(submitted, responses), *map(looked_up, responses),
        *(risk.parse_verification(response, "pay_1") for response in responses),
        *(risk.parse_decision(response, "pay_1") for response in responses),
    ]  # fmt: skip
    for value in values:
        error = getattr(value, "error", None)
        chained = [getattr(error, name, None) for name in ("__cause__", "__context__")]
        assert SECRET not in f"{value!r} {value} {error!r} {error} {chained!r}"
