"""Ports of acceptance: risk, engine, acquirer and the uncached consultation.

Each service port has a closed set of results. `RiskPort`, `EnginePort` and `AcquirerPort` may also
be implemented by the embedding program, and handed to `Cashier(sources=…)`: all types that an
implementation needs are names of this module. Such an object is checked and contained by
`cashier.sources.service_object`, so that for acceptance every port raises nothing.

`call_headers`: `request_id` and `traceparent` (None without tracing) of the caller's request, for
logs. Budgets are whole milliseconds, at least 1; the result is not awaited any longer.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeAlias

from msgspec import Struct

from cashier.consultation.answer import ConsultationWithCase
from cashier.domain.engine_contract import (
    EngineAnswered,
    EngineFailure,
    EngineKeyReused,
    EnginePayment,
    EngineStatus,
    LookUpOutcome,
    NeverArrived,
    NotSent,
    OrderHasLiveAttempt,
    OutcomeUnknown,
    ReversalReason,
    ReverseOutcome,
    Sealed,
    Submission,
    SubmitOutcome,
)
from cashier.domain.legs import EngineLeg, EngineLegType
from cashier.domain.money import Money
from cashier.domain.next_action import Await, DisplayCode, DisplayQr, DisplayVa, Redirect, Sdk
from cashier.domain.order import ConsultRequest
from cashier.domain.order_result import AcquirerResult, NoOrder, OrderResult, ResultStatus
from cashier.domain.pay_method import Kind
from cashier.domain.payment_request import Device
from cashier.domain.risk_contract import (
    Accepted,
    Challenged,
    ChallengeResend,
    ChallengeType,
    ChallengeVerification,
    Expired,
    Inquiry,
    NoChallenge,
    NoResend,
    Passed,
    Rejected,
    Resent,
    RiskChallenge,
    RiskDecision,
    WrongAnswer,
)
from cashier.source_errors import Garbled, Overloaded, SourceError, TimedOut, Unanswered, Unreachable

__all__ = [
    "Accepted",
    "AcquirerPort",
    "AcquirerResult",
    "Await",
    "ChallengeResend",
    "ChallengeType",
    "ChallengeVerification",
    "Challenged",
    "ConsultUncached",
    "Device",
    "DisplayCode",
    "DisplayQr",
    "DisplayVa",
    "EngineAnswered",
    "EngineFailure",
    "EngineKeyReused",
    "EngineLeg",
    "EngineLegType",
    "EnginePayment",
    "EnginePort",
    "EngineStatus",
    "Expired",
    "Garbled",
    "Inquiry",
    "Kind",
    "LookUpOutcome",
    "Money",
    "NeverArrived",
    "NoChallenge",
    "NoOrder",
    "NoResend",
    "NotSent",
    "OrderHasLiveAttempt",
    "OrderResult",
    "OutcomeUnknown",
    "Overloaded",
    "Passed",
    "PaymentPort",
    "PaymentPorts",
    "Redirect",
    "Rejected",
    "Resent",
    "ResultStatus",
    "ReversalReason",
    "ReverseOutcome",
    "RiskChallenge",
    "RiskDecision",
    "RiskPort",
    "Sdk",
    "Sealed",
    "SourceError",
    "Submission",
    "SubmitOutcome",
    "TimedOut",
    "Unanswered",
    "Unreachable",
    "WrongAnswer",
]


class RiskPort(Protocol):
    """Never retries: a decision may send a text message, and risk counts every answer."""

    async def decide(self, inquiry: Inquiry, call_headers: Any, budget_ms: int) -> RiskDecision: ...

    async def verify(
        self, challenge_id: str, payment_id: str, value: str, call_headers: Any, budget_ms: int
    ) -> ChallengeVerification:
        """`value` is the payer's code or password."""

    async def resend(self, challenge_id: str, payment_id: str, call_headers: Any, budget_ms: int) -> ChallengeResend:
        """Send the code of a challenge again. May be left out: then no code is sent again."""


class EnginePort(Protocol):
    """Sends a submit once. May repeat look-ups and reversals within their budget."""

    async def submit(self, submission: Submission, call_headers: Any, budget_ms: int) -> SubmitOutcome:
        """`NotSent` only if the engine certainly received nothing; in doubt `OutcomeUnknown`."""

    async def look_up(self, payment_id: str, order_id: str, call_headers: Any, budget_ms: int) -> LookUpOutcome: ...

    async def reverse(self, payment_id: str, order_id: str, call_headers: Any, budget_ms: int) -> ReverseOutcome:
        """`Sealed` only if the engine will refuse the payment from now on.

        A method that takes a keyword `reason` is given the `ReversalReason`, or None.
        """


class ReasonedEnginePort(EnginePort, Protocol):
    """The engine as acceptance calls it: a reversal has a reason, which not every port takes."""

    async def reverse(
        self,
        payment_id: str,
        order_id: str,
        call_headers: Any,
        budget_ms: int,
        *,
        reason: ReversalReason | None = None,
    ) -> ReverseOutcome: ...


class AcquirerPort(Protocol):
    async def result(self, order_id: str, call_headers: Any, budget_ms: int) -> AcquirerResult: ...


PaymentPort: TypeAlias = RiskPort | EnginePort | AcquirerPort

# A whole consultation from fresh answers; no cache is read or written. Raises `ConsultError`.
ConsultUncached = Callable[[ConsultRequest, Any], Awaitable[ConsultationWithCase]]


class PaymentPorts(Struct, frozen=True):
    risk: RiskPort
    engine: ReasonedEnginePort
    acquirer: AcquirerPort
