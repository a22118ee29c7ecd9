"""Who an acceptance asks, as it is handed to it: risk, engine and acquirer, each with a closed set of answers. None of them raises."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from msgspec import Struct

from cashier.consultation.flow import ConsultationWithCase
from cashier.domain.acquirer_contract import Result
from cashier.domain.engine_contract import LookedUp, Reversed, Submission, Submitted
from cashier.domain.order import ConsultRequest
from cashier.domain.risk_contract import Decided, Inquiry, Verified

# `call_headers` goes through to the wire unread; budgets are whole milliseconds, at least 1.


class RiskPort(Protocol):
    """Never asked twice by itself: a decision may send a text message, and an answer to a challenge is counted."""

    async def decide(self, inquiry: Inquiry, call_headers: Any, budget_ms: int) -> Decided: ...

    async def verify(self, challenge_id: str, payment_id: str, value: str, call_headers: Any, budget_ms: int) -> Verified: ...


class EnginePort(Protocol):
    """A submit goes out once; looking up and reversing may be repeated within their budget."""

    async def submit(self, submission: Submission, call_headers: Any, budget_ms: int) -> Submitted: ...

    async def look_up(self, payment_id: str, order_id: str, call_headers: Any, budget_ms: int) -> LookedUp: ...

    async def reverse(self, payment_id: str, order_id: str, call_headers: Any, budget_ms: int) -> Reversed: ...


class AcquirerPort(Protocol):
    async def result(self, order_id: str, call_headers: Any, budget_ms: int) -> Result: ...


# A whole consultation from answers of this moment, cached nowhere. Raises `ConsultError`.
ConsultUncached = Callable[[ConsultRequest, Any], Awaitable[ConsultationWithCase]]


class PaymentPorts(Struct, frozen=True):
    risk: RiskPort
    engine: EnginePort
    acquirer: AcquirerPort
