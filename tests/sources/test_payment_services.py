"""Risk, engine and acquirer: what is asked, and what every answer, and none, means. Transports are scripted, time is virtual."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from typing import Any, assert_never

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cashier.domain import acquirer_contract, engine_contract, risk_contract
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
from cashier.domain.status_resolution import AcquirerReport, AcquirerReportStatus, EngineReport, EngineReportStatus
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
from cashier.sources.retry import RetrySettings
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
    """Answers the n-th call with the n-th of these; after the last, silence."""

    addresses = ("scripted",)

    def __init__(self, *answers: Response | SourceError | None) -> None:
        self.answers = list(answers)
        self.requests: list[Request] = []

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    def send(
        self, request: Request, call_headers: CallHeaders, budget_ms: int, reply: OnResponse, avoid: int = 0
    ) -> TransportCall:
        self.requests.append(request)
        said = self.answers.pop(0) if self.answers else None
        if said is not None:
            asyncio.get_running_loop().call_soon(reply, said)
        return Sent()


class Sent:
    address_index = 0
    sent = True

    def abandon(self) -> None: ...


# The submit


def test_a_submit_carries_its_key_and_the_contracts_fields_and_is_never_repeated_by_the_wire() -> None:
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
    rest = {"fingerprint": "f", "legs": [leg], "alternatives": [], "decision_id": "d_1", "auth_code": SECRET}
    assert json.loads(request.body) == parties | rest


@pytest.mark.parametrize("status", ["PROCESSING", "USER_PAYING", "SUCCEEDED", "FAILED"])
def test_an_answer_to_a_submit_says_how_it_stands(status: str) -> None:
    outcome = submitted(answer(200, {"payment_id": "pay_1", "status": status}))
    assert isinstance(outcome, EngineAnswered)
    assert outcome.payment.status == status


def test_a_busy_order_names_the_attempt_that_lives_and_a_key_used_for_something_else_is_told() -> None:
    assert submitted(answer(409, {"code": "ORDER_BUSY", "payment_id": "pay_9"})) == OrderHasLiveAttempt("pay_9")
    assert submitted(answer(422, {"code": "KEY_REUSED"})) == EngineKeyReused()


@pytest.mark.parametrize(
    "error", [Unreachable("refused", sent=False), Shed("full"), TimedOut("in the queue", sent=False)]
)
def test_what_certainly_never_left_was_not_sent(error: SourceError) -> None:
    assert submitted(error) == NotSent(error)


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
    answer(200, {**PAID, "status": "ACTION_REQUIRED", "next_action": {"type": "REDIRECT", "method": "GET", "url": "javascript:alert(1)"}}),
    answer(409, {"code": "ORDER_BUSY"}),
    answer(409, {"code": "ORDER_BUSY", "payment_id": "pay_1"}),
    answer(409, {"code": "CONFLICT", "payment_id": "pay_9"}),
    answer(422, {"code": "ORDER_UNKNOWN"}),
    answer(422, b""),
]  # fmt: skip


@pytest.mark.parametrize("said", NO_ANSWERS, ids=repr)
def test_a_submit_whose_answer_cannot_be_believed_is_unknown_and_never_failed(said: Response | SourceError) -> None:
    assert isinstance(submitted(said), OutcomeUnknown)


@pytest.mark.parametrize("said", [None, *NO_ANSWERS, Unreachable("refused", sent=False)], ids=repr)
async def test_a_submit_is_sent_once_whatever_comes(said: Response | SourceError | None) -> None:
    transport = Scripted(said, answer(200, PAID))
    outcome = await engine.EngineClient(transport).submit(SUBMISSION, CALL_HEADERS, 1)
    assert isinstance(outcome, OutcomeUnknown | NotSent)
    assert len(transport.requests) == 1


# Looking up and reversing


def test_only_a_404_of_the_engines_own_means_that_nothing_arrived() -> None:
    assert looked_up(answer(404, UNKNOWN)) == NeverArrived()
    assert isinstance(looked_up(answer(404, b"<html>")), Unanswered)
    assert isinstance(looked_up(answer(404, {"code": "NO_ROUTE"})), Unanswered)


@pytest.mark.parametrize("body", [b"", b"{}", b"<html>", {"code": "NO_ROUTE"}, {"code": 7}])
def test_a_reverse_seals_only_where_the_engine_says_so_itself(body: Any) -> None:
    assert reversed_(answer(404, UNKNOWN)) == Sealed()
    assert isinstance(reversed_(answer(404, body)), Unanswered)


def test_a_reverse_that_comes_too_late_tells_of_the_money() -> None:
    outcome = reversed_(answer(200, PAID))
    assert isinstance(outcome, EngineAnswered)
    assert outcome.payment.status is EngineStatus.SUCCEEDED


@pytest.mark.looptime
async def test_looks_and_polls_are_tried_again_until_they_bring_news() -> None:
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
        await acquirer.AcquirerClient(transport).result("o_1", CALL_HEADERS, 5000), acquirer_contract.OrderResult
    )


@pytest.mark.looptime
async def test_trying_again_ends_with_the_budget_and_with_the_tries() -> None:
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


def test_each_decision_is_one_thing() -> None:
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
    "said",
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
def test_without_a_decision_that_can_be_believed_there_is_none(said: Response | SourceError) -> None:
    assert isinstance(risk.parse_decision(said, "pay_1"), Unanswered)


def test_each_answer_to_a_challenge_is_one_thing() -> None:
    def verified(status: int, body: Any) -> risk_contract.ChallengeVerification:
        return risk.parse_verification(answer(status, body), "pay_1")

    assert verified(200, {"status": "PASSED", "attempts_left": 3}) == risk_contract.Passed()
    assert verified(200, {"status": "FAILED", "attempts_left": 0}) == risk_contract.WrongAnswer(0)
    assert verified(200, {"status": "EXPIRED", "attempts_left": 0}) == risk_contract.Expired()
    assert verified(404, {"code": "CHALLENGE_UNKNOWN"}) == risk_contract.NoChallenge()
    for strange in (
        verified(404, b"<html>"),
        verified(200, {"status": "PASSED"}),
        verified(500, b""),
        verified(200, b""),
    ):
        assert isinstance(strange, Unanswered)


@pytest.mark.parametrize("said", [None, Unreachable("reset"), answer(503, {})], ids=repr)
async def test_risk_is_never_asked_twice(said: Response | SourceError | None) -> None:
    transport = Scripted(said)
    assert isinstance(await risk.RiskClient(transport).decide(INQUIRY, CALL_HEADERS, 1), Unanswered)
    transport.answers = [said]
    assert isinstance(await risk.RiskClient(transport).verify("c_1", "pay_1", "246810", CALL_HEADERS, 1), Unanswered)
    assert [(request.target, request.safe) for request in transport.requests] == [
        ("/risk/decisions", False),
        ("/risk/challenges/c_1/verify", False),
    ]


# The acquirer


@pytest.mark.parametrize("status", list(acquirer_contract.ResultStatus))
def test_the_acquirers_word_on_the_order_is_read(status: str) -> None:
    found = acquirer.parse_result(answer(200, {**ORDER, "status": status}), "o_1")
    assert isinstance(found, acquirer_contract.OrderResult)
    assert (found.status, found.paid) == (status, Money("CNY", 100))


def test_an_order_that_is_anothers_or_of_an_unknown_status_is_no_news() -> None:
    other = acquirer.parse_result(answer(200, {**ORDER, "order_id": "o_2"}), "o_1")
    assert isinstance(other, Unanswered)
    assert isinstance(other.error, WrongIdentity)
    assert isinstance(acquirer.parse_result(answer(200, {**ORDER, "status": "HALF_PAID"}), "o_1"), Unanswered)
    assert acquirer.parse_result(answer(404, {"code": "ORDER_UNKNOWN"}), "o_1") == acquirer_contract.NoOrder()


# In the domain's words


def test_every_status_has_a_word_and_every_silence_is_silence() -> None:
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
        assert engine_report(EngineAnswered(payment)) == EngineReport(EngineReportStatus(status), code, payment.next_action)
    silent = Unreachable("reset")
    assert engine_report(OutcomeUnknown(silent)) == engine_report(Unanswered(silent)) == EngineReport(EngineReportStatus.SILENT)
    assert [engine_report(NeverArrived()).status, engine_report(Sealed()).status] == [
        EngineReportStatus.NEVER_ARRIVED,
        EngineReportStatus.SEALED,
    ]
    for result in acquirer_contract.ResultStatus:
        told = acquirer_contract.OrderResult(order_id="o_1", status=result, payment_id="pay_1", closed_reason="C")
        assert acquirer_report(told) == AcquirerReport(AcquirerReportStatus(result), "pay_1", "C")
    assert (
        acquirer_report(acquirer_contract.NoOrder())
        == acquirer_report(Unanswered(silent))
        == AcquirerReport(AcquirerReportStatus.SILENT)
    )


# For all of them


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
    """A valid answer with something in it replaced, added, left out or cut off."""
    redirect = {"type": "REDIRECT", "method": "GET", "url": "https://bank.example"}
    acting = {**PAID, "status": "ACTION_REQUIRED", "next_action": redirect}
    body: Any = json.loads(
        json.dumps(
            draw(st.sampled_from([PAID, acting, CHALLENGED, ORDER, UNKNOWN, {"status": "FAILED", "attempts_left": 1}]))
        )
    )
    at = body
    while any(isinstance(value, dict) for value in at.values()) and draw(st.booleans()):
        at = next(value for value in at.values() if isinstance(value, dict))
    name = draw(st.sampled_from([*at, "failure", "code", "payment_id"]))
    if draw(st.booleans()):
        at[name] = draw(JSON)
    else:
        at.pop(name, None)
    whole = json.dumps(body).encode()
    return draw(st.sampled_from([whole, whole[: draw(st.integers(0, len(whole)))], draw(st.binary(max_size=20))]))


def judged(outcome: engine_contract.SubmitOutcome | engine_contract.LookUpOutcome | engine_contract.ReverseOutcome) -> bool:
    """Whether the outcome is one of those that there are, and holds what it should. mypy sees that none is forgotten."""
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
def test_hostile_answers_are_valid_or_refused_and_never_an_exception(body: bytes, status: int) -> None:
    response = Response(status, body)
    assert judged(submitted(response))
    assert judged(looked_up(response))
    assert judged(reversed_(response))
    assert isinstance(
        risk.parse_decision(response, "pay_1"),
        risk_contract.Accepted | risk_contract.Rejected | risk_contract.Challenged | Unanswered,
    )
    assert isinstance(
        risk.parse_verification(response, "pay_1"),
        risk_contract.Passed | risk_contract.WrongAnswer | risk_contract.Expired | risk_contract.NoChallenge | Unanswered,
    )
    found = acquirer.parse_result(response, "o_1")
    assert isinstance(found, acquirer_contract.NoOrder | Unanswered) or (
        isinstance(found, acquirer_contract.OrderResult) and found.order_id == "o_1"
    )


def test_no_secret_shows_in_what_may_be_printed_or_logged() -> None:
    echo = json.dumps({"payment_id": SECRET, "status": SECRET, "next_action": {"type": SECRET}}).encode()
    said = [Response(status, echo) for status in (200, 404, 409, 422, 500)]
    things = [
        LEG, SUBMISSION, INQUIRY, *said, engine.submit_request(SUBMISSION), risk.decide_request(INQUIRY),
        risk.verify_request("c_1", "pay_1", SECRET), *map(submitted, said), *map(looked_up, said),
        *(risk.parse_verification(each, "pay_1") for each in said), *(risk.parse_decision(each, "pay_1") for each in said),
    ]  # fmt: skip
    for thing in things:
        error = getattr(thing, "error", None)
        shown = f"{thing!r} {thing} {error!r} {error} {getattr(error, '__cause__', None)!r} {getattr(error, '__context__', None)!r}"
        assert SECRET not in shown
