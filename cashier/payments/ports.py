"""Ports of acceptance: risk, engine, acquirer and the uncached consultation.

Each service port has a closed set of results and raises nothing.
`call_headers` reach the wire unread. Budgets are whole milliseconds, at least 1.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from msgspec import Struct

from cashier.consultation.flow import ConsultationWithCase
from cashier.domain.engine_contract import LookUpOutcome, ReverseOutcome, Submission, SubmitOutcome
from cashier.domain.order import ConsultRequest
from cashier.domain.order_result import AcquirerResult
from cashier.domain.risk_contract import ChallengeVerification, Inquiry, RiskDecision


class RiskPort(Protocol):
    """Never retries: a decision may send a text message, and risk counts every answer."""

    async def decide(self, inquiry: Inquiry, call_headers: Any, budget_ms: int) -> RiskDecision: ...

    async def verify(
        self, challenge_id: str, payment_id: str, value: str, call_headers: Any, budget_ms: int
    ) -> ChallengeVerification: ...


class EnginePort(Protocol):
    """Sends a submit once. May repeat look-ups and reversals within their budget."""

    async def submit(self, submission: Submission, call_headers: Any, budget_ms: int) -> SubmitOutcome: ...

    async def look_up(self, payment_id: str, order_id: str, call_headers: Any, budget_ms: int) -> LookUpOutcome: ...

    async def reverse(self, payment_id: str, order_id: str, call_headers: Any, budget_ms: int) -> ReverseOutcome: ...


class AcquirerPort(Protocol):
    async def result(self, order_id: str, call_headers: Any, budget_ms: int) -> AcquirerResult: ...


# A whole consultation from fresh answers; no cache is read or written. Raises `ConsultError`.
ConsultUncached = Callable[[ConsultRequest, Any], Awaitable[ConsultationWithCase]]


class PaymentPorts(Struct, frozen=True):
    risk: RiskPort
    engine: EnginePort
    acquirer: AcquirerPort
