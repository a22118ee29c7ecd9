"""The checks that move money: a decision of risk, and one payment of a test order at the engine.

At most one payment of the order can succeed, and what is left open is reversed.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from cashier.conformance.asking import HttpAsking, shape_faults, with_unknown_field
from cashier.conformance.exchange import Exchange
from cashier.conformance.rules import (
    CHALLENGE,
    DECISION,
    KEY_REUSED,
    LATE_ARRIVAL,
    LOOK_UP,
    ORDER_BUSY,
    RESEND,
    REVERSE,
    REVERSE_UNKNOWN,
    SAME_KEY,
    SCHEMA,
    SUBMIT,
    TOLERANCE,
    Rule,
)
from cashier.conformance.subject import READ_SOURCES
from cashier.domain.engine_contract import (
    EngineAnswered,
    EngineKeyReused,
    EnginePayment,
    EngineStatus,
    NeverArrived,
    OrderHasLiveAttempt,
    ReversalReason,
    Sealed,
    Submission,
)
from cashier.domain.legs import EngineLeg
from cashier.domain.money import Money
from cashier.domain.pay_method import Kind
from cashier.domain.payment_request import Device
from cashier.domain.risk_contract import (
    Accepted,
    Challenged,
    Expired,
    Inquiry,
    NoChallenge,
    NoResend,
    Passed,
    Rejected,
    WrongAnswer,
)
from cashier.sources.engine import (
    parse_look_up,
    parse_reverse,
    parse_submit,
    reverse_request,
    submit_request,
)
from cashier.sources.risk import (
    Decision,
    Verification,
    decide_request,
    parse_decision,
    parse_resend,
    parse_verification,
    resend_request,
    verify_request,
)
from cashier.wire.transport import Response

_LIVE = (EngineStatus.PROCESSING, EngineStatus.ACTION_REQUIRED, EngineStatus.USER_PAYING)
_WRONG_ANSWER = "conform-wrong"


class TrialPayment(Struct, frozen=True, kw_only=True):
    """What may be paid. `legs` add up to what the order costs. `seals`: of `[sources.engine]`.

    `otp`: the answer to a challenge; None: without one.
    """

    order_id: str
    user_id: str
    merchant_id: str
    amount: Money
    legs: tuple[EngineLeg, ...]
    kind: Kind
    seals: bool = True
    otp: str | None = None

    def inquiry(self, payment_id: str) -> Inquiry:
        return Inquiry(
            payment_id=payment_id,
            order_id=self.order_id,
            user_id=self.user_id,
            merchant_id=self.merchant_id,
            amount=self.amount,
            kind=self.kind,
            device=Device(),
        )

    def submission(self, payment_id: str, decision_id: str) -> Submission:
        return Submission(
            payment_id=payment_id,
            order_id=self.order_id,
            user_id=self.user_id,
            merchant_id=self.merchant_id,
            fingerprint=f"conform_{payment_id}",
            amount=self.amount,
            legs=self.legs,
            decision_id=decision_id,
            alternatives=(),
        )


Decide = Callable[[str], Awaitable[str]]
"""Takes a payment id; returns the id of the decision that clears it. Raises `NotCleared`."""


class NotCleared(Exception):
    """Risk does not clear the test payment. The text says why, and what to do."""


def new_payment_id() -> str:
    return f"pay_conform_{uuid.uuid4().hex}"


async def decide(asking: HttpAsking, test: TrialPayment, payment_id: str) -> str:
    """The id of a decision that clears a payment, after its challenge if it has one."""
    exchange = await asking.ask(decide_request(test.inquiry(payment_id)))
    match parse_decision(exchange.outcome, payment_id):
        case Accepted(decision_id):
            return decision_id
        case Challenged(decision_id, challenge) if test.otp is not None:
            verification = await asking.ask(verify_request(challenge.challenge_id, payment_id, test.otp))
            if isinstance(parse_verification(verification.outcome, payment_id), Passed):
                return decision_id
            raise NotCleared("risk does not take --otp as the answer to its challenge")
        case Challenged():
            raise NotCleared("risk challenges this payment: give --otp, or a payment that it accepts")
        case Rejected():
            raise NotCleared("risk rejects this payment: name another order, user or amount")
    raise NotCleared("risk gives no decision about this payment")


class RiskChecks:
    """Risk: one decision, one wrong answer if it challenges, and calls about no challenge."""

    def __init__(self, asking: HttpAsking, test: TrialPayment) -> None:
        self._asking = asking
        self._test = test

    async def run(self) -> None:
        payment_id = new_payment_id()
        exchange = await self._asking.ask(with_unknown_field(decide_request(self._test.inquiry(payment_id))))
        decision = parse_decision(exchange.outcome, payment_id)
        self._asking.ledger.tried(DECISION, TOLERANCE, SCHEMA)
        if _is_refused(exchange):
            strict, payment_id = exchange, new_payment_id()
            exchange = await self._asking.ask(decide_request(self._test.inquiry(payment_id)))
            decision = parse_decision(exchange.outcome, payment_id)
            if not _is_refused(exchange):
                self._asking.find(TOLERANCE, f"an unknown field is answered {strict.came}", strict)
        match decision:
            case Challenged(_, challenge):
                await self._wrong_answer(challenge.challenge_id, payment_id, challenge.attempts_left)
            case Accepted() | Rejected():
                pass
            case _:
                _find_shape_or_outcome(self._asking, DECISION, exchange, Decision, decision)
        await self._no_challenge(payment_id)

    async def _wrong_answer(self, challenge_id: str, payment_id: str, attempts_left: int) -> None:
        exchange = await self._asking.ask(verify_request(challenge_id, payment_id, _WRONG_ANSWER))
        verification = parse_verification(exchange.outcome, payment_id)
        self._asking.ledger.tried(CHALLENGE)
        match verification:
            case WrongAnswer(left) if left < attempts_left:
                pass
            case WrongAnswer():
                self._asking.find(CHALLENGE, "a wrong answer leaves as many attempts as before", exchange)
            case Passed():
                self._asking.find(CHALLENGE, "a wrong answer passes", exchange)
            case Expired() | NoChallenge():
                self._asking.find(CHALLENGE, "a challenge that was just made is expired or unknown", exchange)
            case _:
                _find_shape_or_outcome(self._asking, CHALLENGE, exchange, Verification, verification)

    async def _no_challenge(self, payment_id: str) -> None:
        unknown = f"conform_{uuid.uuid4().hex}"
        exchange = await self._asking.ask(verify_request(unknown, payment_id, _WRONG_ANSWER))
        verification = parse_verification(exchange.outcome, payment_id)
        self._asking.ledger.tried(CHALLENGE, RESEND)
        if isinstance(verification, Passed):
            self._asking.find(CHALLENGE, "a challenge that does not exist passes", exchange)
        elif not isinstance(verification, NoChallenge):
            self._asking.find(CHALLENGE, f"no 404 for an unknown challenge: {exchange.came}", exchange)
        exchange = await self._asking.ask(resend_request(unknown, payment_id))
        resent = parse_resend(exchange.outcome, payment_id)
        if not isinstance(resent, NoResend):
            what = getattr(getattr(resent, "error", None), "detail", "sent again")
            self._asking.find(RESEND, f"no 404 for an unknown challenge: {what}", exchange)


class EngineChecks:
    """The engine: a reverse before its payment, and one payment with all that may follow."""

    def __init__(self, asking: HttpAsking, test: TrialPayment, decide: Decide) -> None:
        self._asking = asking
        self._ledger = asking.ledger
        self._test = test
        self._decide = decide

    async def run(self) -> None:
        """Raises `GivenUp` and `NotCleared`."""
        await self._reverse_before_arrival()
        submission = self._test.submission(payment_id := new_payment_id(), await self._decide(payment_id))
        payment = await self._submit_twice(submission)
        if payment is None:
            await self._reverse_quietly(payment_id)
            return
        await self._same_and_other_body(submission)
        payment = await self._look_up(submission) or payment
        await self._second_payment(payment)
        await self._reverse(payment)

    async def _reverse_before_arrival(self) -> None:
        payment_id = new_payment_id()
        for _ in range(2):
            exchange = await self._asking.ask(self._reversal(payment_id, ReversalReason.CANCELLED))
            outcome = self._reversed(exchange, payment_id)
            self._ledger.tried(REVERSE_UNKNOWN)
            match outcome:
                case Sealed() | NeverArrived():
                    pass
                case EngineAnswered(payment):
                    what = f"200 {payment.status.value} for a payment that never arrived"
                    self._asking.find(REVERSE_UNKNOWN, what, exchange)
                    return
                case _:
                    self._find_shape_or_outcome(REVERSE_UNKNOWN, exchange, outcome)
                    return
        if not self._test.seals:
            self._ledger.note(LATE_ARRIVAL, "seals = false: the engine takes what arrives after its reverse")
            return
        submission = self._test.submission(payment_id, await self._decide(payment_id))
        exchange = await self._asking.ask(submit_request(submission))
        late = parse_submit(exchange.outcome, payment_id, self._test.order_id)
        self._ledger.tried(LATE_ARRIVAL)
        if isinstance(late, EngineAnswered) and late.payment.status is not EngineStatus.FAILED:
            self._asking.find(LATE_ARRIVAL, f"{late.payment.status.value} although it was reversed before", exchange)
            await self._reverse_quietly(payment_id)
        elif not isinstance(late, EngineAnswered):
            self._asking.find(LATE_ARRIVAL, f"no FAILED payment, but {exchange.came}", exchange)

    async def _submit_twice(self, submission: Submission) -> EnginePayment | None:
        """The same submit on two connections at the same time: one payment, or None."""
        connections = [self._asking.new_connection() for _ in range(2)]
        try:
            exchanges = await asyncio.gather(
                *(self._asking.ask(submit_request(submission), connection=each) for each in connections)
            )
        finally:
            for each in connections:
                each.close()
        self._ledger.tried(SUBMIT, SAME_KEY, SCHEMA)
        outcomes = [self._submitted(exchange, submission) for exchange in exchanges]
        payments = [outcome.payment for outcome in outcomes if isinstance(outcome, EngineAnswered)]
        for exchange, outcome in zip(exchanges, outcomes, strict=True):
            if not isinstance(outcome, EngineAnswered):
                rule = SAME_KEY if payments else SUBMIT
                self._find_shape_or_outcome(rule, exchange, outcome)
        if payments and payments[0].status is EngineStatus.FAILED:
            code = payments[0].failure.code if payments[0].failure else "no code"
            self._ledger.note(SUBMIT, f"the test payment is FAILED ({code}): --leg and --amount must fit the order")
        return payments[0] if payments else None

    async def _same_and_other_body(self, submission: Submission) -> None:
        exchange = await self._asking.ask(with_unknown_field(submit_request(submission)))
        outcome = self._submitted(exchange, submission)
        self._ledger.tried(SAME_KEY, TOLERANCE)
        if not isinstance(outcome, EngineAnswered):
            plain = await self._asking.ask(submit_request(submission))
            tolerant = not isinstance(self._submitted(plain, submission), EngineAnswered)
            rule, what = (SAME_KEY, "a repeated submit") if tolerant else (TOLERANCE, "an unknown field")
            self._asking.find(rule, f"{what} is answered {exchange.came}", exchange)
        other = replace(submission, fingerprint=f"{submission.fingerprint}_other")
        exchange = await self._asking.ask(submit_request(other))
        outcome = self._submitted(exchange, submission)
        self._ledger.tried(KEY_REUSED)
        if not isinstance(outcome, EngineKeyReused):
            self._asking.find(KEY_REUSED, f"another fingerprint is answered {exchange.came}", exchange)

    async def _look_up(self, submission: Submission) -> EnginePayment | None:
        payment_id = submission.payment_id
        inputs = {"payment_id": payment_id, "order_id": self._test.order_id}
        exchange = await self._asking.read(READ_SOURCES["engine"], inputs, exists=None)
        outcome = parse_look_up(exchange.outcome, payment_id, self._test.order_id)
        self._ledger.tried(LOOK_UP)
        if not isinstance(outcome, EngineAnswered):
            what = "404 for a payment that was submitted" if isinstance(outcome, NeverArrived) else outcome.error.detail
            self._asking.find(LOOK_UP, what, exchange)
            return None
        for name in ("fingerprint", "amount", "user_id", "merchant_id"):
            reported = getattr(outcome.payment, name)
            if reported is not None and reported != getattr(submission, name):
                self._asking.find(LOOK_UP, f"{name} is not that of the submit", exchange)
        return outcome.payment

    async def _second_payment(self, first: EnginePayment) -> None:
        """Another payment of the same order."""
        if first.status is EngineStatus.FAILED:
            self._ledger.note(ORDER_BUSY, "the test payment failed, so its order is free")
            return
        payment_id = new_payment_id()
        submission = self._test.submission(payment_id, await self._decide(payment_id))
        exchange = await self._asking.ask(submit_request(submission))
        outcome = self._submitted(exchange, submission)
        self._ledger.tried(ORDER_BUSY)
        match outcome:
            case OrderHasLiveAttempt(busy_with) if busy_with == first.payment_id:
                return
            case OrderHasLiveAttempt():
                self._asking.find(ORDER_BUSY, "ORDER_BUSY names another payment than the live one", exchange)
            case EngineAnswered(payment) if payment.status is EngineStatus.FAILED and first.status not in _LIVE:
                return
            case EngineAnswered(payment):
                what = f"a second payment is {payment.status.value} while the first is {first.status.value}"
                self._asking.find(ORDER_BUSY, what, exchange)
                await self._reverse_quietly(payment_id)
            case _:
                self._find_shape_or_outcome(ORDER_BUSY, exchange, outcome)

    async def _reverse(self, payment: EnginePayment) -> None:
        """Twice, for different reasons: the first one counts."""
        expected = EngineStatus.FAILED if payment.status in _LIVE else payment.status
        for reason in (ReversalReason.CANCELLED, ReversalReason.EXPIRED):
            exchange = await self._asking.ask(self._reversal(payment.payment_id, reason))
            outcome = self._reversed(exchange, payment.payment_id)
            self._ledger.tried(REVERSE)
            if not isinstance(outcome, EngineAnswered):
                self._find_shape_or_outcome(REVERSE, exchange, outcome, "404 for a payment that exists")
                return
            reversed_payment = outcome.payment
            if reversed_payment.status is not expected:
                what = f"{reversed_payment.status.value} after the reverse of a {payment.status.value} payment"
                self._asking.find(REVERSE, what, exchange)
            elif payment.status in _LIVE and reversed_payment.reversal_reason not in (None, ReversalReason.CANCELLED):
                self._asking.find(REVERSE, "reversal_reason is not that of the first reverse", exchange)

    async def _reverse_quietly(self, payment_id: str) -> None:
        """Leave nothing open that may exist after an answer which says otherwise."""
        await self._asking.ask(self._reversal(payment_id, ReversalReason.CANCELLED))

    def _reversal(self, payment_id: str, reason: ReversalReason) -> Any:
        return reverse_request(payment_id, self._test.order_id, reason)

    def _reversed(self, exchange: Exchange, payment_id: str) -> Any:
        return parse_reverse(exchange.outcome, payment_id, self._test.order_id, seals=self._test.seals)

    def _submitted(self, exchange: Exchange, submission: Submission) -> Any:
        return parse_submit(exchange.outcome, submission.payment_id, submission.order_id)

    def _find_shape_or_outcome(self, rule: Rule, exchange: Exchange, outcome: Any, otherwise: str = "") -> None:
        _find_shape_or_outcome(self._asking, rule, exchange, EnginePayment, outcome, otherwise)


def _is_refused(exchange: Exchange) -> bool:
    """Whether the service found the request itself wrong."""
    return isinstance(exchange.outcome, Response) and 400 <= exchange.outcome.status < 500


def _find_shape_or_outcome(
    asking: HttpAsking, rule: Rule, exchange: Exchange, wanted: type[Struct], outcome: Any, otherwise: str = ""
) -> None:
    """Each wrong field of a 200; else what the outcome is."""
    response = exchange.outcome
    faults: list[str] = []
    if isinstance(response, Response) and response.status == 200:
        faults = list(shape_faults(response.body, wanted))
    for fault in faults:
        asking.find(SCHEMA, fault, exchange)
    if not faults:
        error = getattr(outcome, "error", None)
        text = error.detail if error is not None else otherwise or f"answered {exchange.came}"
        asking.find(rule, text, exchange)
