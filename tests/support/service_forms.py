"""Risk, engine and acquirer in other forms than a function: as a port object, and by an adapter.

Both pass the contract's requests to a function, such as that of a sandbox, so that tests written
for the function show that the forms are equivalent.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import msgspec

from cashier.payments.ports import (
    AcquirerResult,
    ChallengeResend,
    ChallengeVerification,
    Inquiry,
    LookUpOutcome,
    ReversalReason,
    ReverseOutcome,
    RiskDecision,
    Submission,
    SubmitOutcome,
)
from cashier.sources import acquirer, engine, risk
from cashier.sources.service_adapter import AdapterCalls, AdapterTransport, ServiceAdapter
from cashier.sources.service_object import local_transport
from cashier.wire.in_process import InProcessTransport, LocalFunction
from cashier.wire.transport import Request, Transport

_encode = msgspec.json.Encoder().encode


class PortObject:
    """All three ports over one function of whole requests."""

    def __init__(self, function: LocalFunction) -> None:
        self._function = function

    async def decide(self, inquiry: Inquiry, call_headers: Any, budget_ms: int) -> RiskDecision:
        return risk.parse_decision(await self._function(risk.decide_request(inquiry)), inquiry.payment_id)

    async def verify(
        self, challenge_id: str, payment_id: str, value: str, call_headers: Any, budget_ms: int
    ) -> ChallengeVerification:
        request = risk.verify_request(challenge_id, payment_id, value)
        return risk.parse_verification(await self._function(request), payment_id)

    async def resend(self, challenge_id: str, payment_id: str, call_headers: Any, budget_ms: int) -> ChallengeResend:
        return risk.parse_resend(await self._function(risk.resend_request(challenge_id, payment_id)), payment_id)

    async def submit(self, submission: Submission, call_headers: Any, budget_ms: int) -> SubmitOutcome:
        response = await self._function(engine.submit_request(submission))
        return engine.parse_submit(response, submission.payment_id, submission.order_id)

    async def look_up(self, payment_id: str, order_id: str, call_headers: Any, budget_ms: int) -> LookUpOutcome:
        response = await self._function(engine.look_up_request(payment_id, order_id))
        return engine.parse_look_up(response, payment_id, order_id)

    async def reverse(
        self,
        payment_id: str,
        order_id: str,
        call_headers: Any,
        budget_ms: int,
        *,
        reason: ReversalReason | None = None,
    ) -> ReverseOutcome:
        response = await self._function(engine.reverse_request(payment_id, order_id, reason))
        return engine.parse_reverse(response, payment_id, order_id)

    async def result(self, order_id: str, call_headers: Any, budget_ms: int) -> AcquirerResult:
        return acquirer.parse_result(await self._function(acquirer.result_request(order_id)), order_id)


class ContractAdapter:
    """The functions of all three adapters, for services that speak the contract."""

    statuses = (200, 404, 409, 422)

    async def decide(self, inquiry: Inquiry, call: AdapterCalls) -> Any:
        return (await call(Request("/risk/decisions", "POST", _encode(inquiry)))).json()

    async def verify(self, challenge_id: str, payment_id: str, value: str, call: AdapterCalls) -> Any:
        path = f"/risk/challenges/{quote(challenge_id, safe='')}/verify"
        body = _encode({"payment_id": payment_id, "value": value})
        return (await call(Request(path, "POST", body))).json()

    async def resend(self, challenge_id: str, payment_id: str, call: AdapterCalls) -> Any:
        path = f"/risk/challenges/{quote(challenge_id, safe='')}/resend"
        return (await call(Request(path, "POST", _encode({"payment_id": payment_id})))).json()

    async def submit(self, submission: Submission, call: AdapterCalls) -> Any:
        key = (("Idempotency-Key", submission.payment_id),)
        return (await call(Request("/payments", "POST", _encode(submission), headers=key))).json()

    async def look_up(self, payment_id: str, order_id: str, call: AdapterCalls) -> Any:
        return (await call(Request(f"/payments/{payment_id}"))).json()

    async def reverse(
        self, payment_id: str, order_id: str, call: AdapterCalls, reason: ReversalReason | None = None
    ) -> Any:
        body = b"" if reason is None else _encode({"reason": reason})
        return (await call(Request(f"/payments/{payment_id}/reverse", "POST", body))).json()

    async def result(self, order_id: str, call: AdapterCalls) -> Any:
        return (await call(Request(f"/orders/{order_id}/result"))).json()


def as_port_object(service: str, function: LocalFunction) -> Transport:
    return local_transport(service, PortObject(function))


class _OwnedTransport(AdapterTransport):
    """Closes its inner transport, which the wiring owns otherwise."""

    async def close(self) -> None:
        await super().close()
        await self._transport.close()


def by_adapter(service: str, function: LocalFunction) -> Transport:
    return _OwnedTransport(ServiceAdapter(service, "contract", ContractAdapter()), InProcessTransport(function))
