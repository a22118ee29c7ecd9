"""The services that take payments, and the recheck, as steps of a traced operation.

Calls for operations that are not traced pass through unchanged.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from cashier.consultation.answer import ConsultationWithCase, ConsultError
from cashier.domain.engine_contract import (
    EngineAnswered,
    LookUpOutcome,
    ReversalReason,
    ReverseOutcome,
    Submission,
    SubmitOutcome,
)
from cashier.domain.order import ConsultRequest
from cashier.domain.order_result import AcquirerResult, OrderResult
from cashier.domain.risk_contract import (
    Challenged,
    ChallengeResend,
    ChallengeVerification,
    Inquiry,
    Rejected,
    RiskDecision,
)
from cashier.logs.code_word import code_word
from cashier.payments.ports import AcquirerPort, ConsultUncached, PaymentPorts, ReasonedEnginePort, RiskPort
from cashier.source_errors import SourceError
from cashier.telemetry.span import Attributes
from cashier.telemetry.traced_step import TracedCallHeaders, TracedStep, contained

# The names of the steps.
RECHECK, DECIDE, VERIFY, RESEND = "recheck", "risk decide", "risk verify", "risk resend"
SUBMIT, LOOK_UP, REVERSE, RESULT = "engine submit", "engine look up", "engine reverse", "acquirer result"

Outcome = TypeVar("Outcome")


def traced_ports(ports: PaymentPorts) -> PaymentPorts:
    return PaymentPorts(
        risk=_TracedRisk(ports.risk), engine=_TracedEngine(ports.engine), acquirer=_TracedAcquirer(ports.acquirer)
    )


def traced_recheck(consult_uncached: ConsultUncached) -> ConsultUncached:
    async def consult(request: ConsultRequest, call_headers: Any) -> ConsultationWithCase:
        return await _traced(RECHECK, call_headers, lambda headers: consult_uncached(request, headers))

    return consult


class _TracedRisk:
    def __init__(self, risk: RiskPort) -> None:
        self._risk = risk

    async def decide(self, inquiry: Inquiry, call_headers: Any, budget_ms: int) -> RiskDecision:
        return await _traced(DECIDE, call_headers, lambda headers: self._risk.decide(inquiry, headers, budget_ms))

    async def verify(
        self, challenge_id: str, payment_id: str, value: str, call_headers: Any, budget_ms: int
    ) -> ChallengeVerification:
        return await _traced(
            VERIFY, call_headers, lambda headers: self._risk.verify(challenge_id, payment_id, value, headers, budget_ms)
        )

    async def resend(self, challenge_id: str, payment_id: str, call_headers: Any, budget_ms: int) -> ChallengeResend:
        return await _traced(
            RESEND, call_headers, lambda headers: self._risk.resend(challenge_id, payment_id, headers, budget_ms)
        )


class _TracedEngine:
    def __init__(self, engine: ReasonedEnginePort) -> None:
        self._engine = engine

    async def submit(self, submission: Submission, call_headers: Any, budget_ms: int) -> SubmitOutcome:
        channels = [leg.channel_id for leg in submission.legs if leg.channel_id is not None]
        route: Attributes = {"cashier.route.channels": ",".join(channels)} if channels else {}
        return await _traced(
            SUBMIT, call_headers, lambda headers: self._engine.submit(submission, headers, budget_ms), route
        )

    async def look_up(self, payment_id: str, order_id: str, call_headers: Any, budget_ms: int) -> LookUpOutcome:
        return await _traced(
            LOOK_UP, call_headers, lambda headers: self._engine.look_up(payment_id, order_id, headers, budget_ms)
        )

    async def reverse(
        self,
        payment_id: str,
        order_id: str,
        call_headers: Any,
        budget_ms: int,
        *,
        reason: ReversalReason | None = None,
    ) -> ReverseOutcome:
        def reverse(headers: Any) -> Awaitable[ReverseOutcome]:
            return self._engine.reverse(payment_id, order_id, headers, budget_ms, reason=reason)

        why: Attributes = {} if reason is None else {"cashier.reversal.reason": reason.value}
        return await _traced(REVERSE, call_headers, reverse, why)


class _TracedAcquirer:
    def __init__(self, acquirer: AcquirerPort) -> None:
        self._acquirer = acquirer

    async def result(self, order_id: str, call_headers: Any, budget_ms: int) -> AcquirerResult:
        return await _traced(RESULT, call_headers, lambda headers: self._acquirer.result(order_id, headers, budget_ms))


async def _traced(
    name: str, call_headers: Any, ask: Callable[[Any], Awaitable[Outcome]], attributes: Attributes | None = None
) -> Outcome:
    if call_headers.__class__ is not TracedCallHeaders:
        return await ask(call_headers)
    step = call_headers.step.begin_step(name)
    if step is None:
        return await ask(call_headers.untraced())
    step.attributes.update(attributes or {})
    try:
        outcome = await ask(step.call_headers(call_headers.request_id))
    except BaseException as error:
        step.attributes["cashier.outcome"] = code_of(type(error))
        if not isinstance(error, ConsultError):
            step.error = code_of(type(error))
        step.end()
        raise
    with contained():
        _describe(step, outcome)
    step.end()
    return outcome


def _describe(step: TracedStep, outcome: object) -> None:
    """The outcome's name, and the codes in it. No text of an upstream, no amount, no user."""
    if isinstance(outcome, ConsultationWithCase):
        return  # it has a record
    attributes = step.attributes
    attributes["cashier.outcome"] = code_of(type(outcome))
    match outcome:
        case EngineAnswered(payment):
            attributes["cashier.engine.status"] = payment.status.value
            if payment.failure is not None:
                attributes["cashier.engine.failure"] = code_word(payment.failure.code)
        case OrderResult(status=status):
            attributes["cashier.acquirer.status"] = status.value
        case Challenged(challenge=challenge):
            attributes["cashier.challenge.type"] = challenge.type.value
        case Rejected(code=code) if code is not None:
            attributes["cashier.risk.code"] = code_word(code)
    error = getattr(outcome, "error", None)
    if isinstance(error, SourceError):
        step.error = attributes["error.type"] = error.reason.value


def code_of(kind: type) -> str:
    """`ORDER_UNKNOWN` of `OrderUnknown`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", kind.__name__).upper()
