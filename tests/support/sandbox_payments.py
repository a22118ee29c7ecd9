"""Risk, engine and acquirer of the sandbox as a function of transport `local`, for virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import unquote

import msgspec

from cashier.domain.engine_contract import Submission
from cashier.domain.legs import EngineLeg, EngineLegType
from cashier.domain.money import Money
from cashier.domain.pay_method import Kind
from cashier.domain.payment_request import Device
from cashier.domain.risk_contract import Inquiry
from cashier.sandbox import Fault, InjectedFault, LocalPayments, Weather, World
from cashier.sandbox.upstream_answer import UpstreamAnswer, error_answer
from cashier.source_errors import Unreachable
from cashier.wire.transport import Request, Response

NOON = datetime(2026, 11, 2, 12, 0, tzinfo=UTC)


PRICE = Money("CNY", 12_800)


def inquiry() -> Inquiry:
    return Inquiry(
        payment_id="pay_1",
        order_id="o_1001",
        user_id="u_1",
        merchant_id="m_1",
        amount=PRICE,
        kind=Kind.BALANCE,
        device=Device(ip="192.0.2.1"),
    )


def submission(decision_id: str, fingerprint: str = "f") -> Submission:
    return Submission(
        payment_id="pay_1",
        order_id="o_1001",
        user_id="u_1",
        merchant_id="m_1",
        fingerprint=fingerprint,
        amount=PRICE,
        legs=(EngineLeg(type=EngineLegType.BALANCE, id="acc_2", amount=PRICE),),
        alternatives=(),
        decision_id=decision_id,
    )


def loop_clock(start: datetime = NOON) -> Callable[[], datetime]:
    """The time of day by this loop's clock, which looptime advances.

    Call it in the test itself: the clock jumps between the set-up of fixtures and the test.
    """
    loop = asyncio.get_running_loop()
    start_s = loop.time()
    return lambda: start + timedelta(seconds=loop.time() - start_s)


def sandbox_call(world: World, weather: Weather) -> Callable[[Request], Awaitable[Response]]:
    """A function of transport `local`. The weather appears as a 500, a 503, a lost connection or a
    hang."""
    payments = LocalPayments(world, weather)

    async def call(request: Request) -> Response:
        try:
            answer = await _dispatch(payments, request)
        except InjectedFault as trouble:
            return _failure(trouble)
        return Response(answer.status, answer.encoded)

    return call


async def _dispatch(payments: LocalPayments, request: Request) -> UpstreamAnswer:
    match request.method, [unquote(part) for part in request.target.split("/")[1:]]:
        case "POST", ["risk", "decisions"]:
            return await payments.decide(_body(request))
        case "POST", ["risk", "challenges", challenge_id, "verify"]:
            return await payments.verify(challenge_id, _body(request))
        case "POST", ["risk", "challenges", challenge_id, "resend"]:
            return await payments.resend(challenge_id, _body(request))
        case "POST", ["payments"]:
            return await payments.submit(_body(request), dict(request.headers).get("Idempotency-Key", ""))
        case "GET", ["payments", payment_id]:
            return await payments.look_up(payment_id)
        case "POST", ["payments", payment_id, "reverse"]:
            return await payments.reverse(payment_id, _body(request) if request.body else None)
        case "GET", ["orders", order_id, "result"]:
            return await payments.result(order_id)
    return error_answer(404, "NO_SUCH_PATH")


def _body(request: Request) -> Any:
    return msgspec.json.decode(request.body)


def _failure(trouble: InjectedFault) -> Response:
    match trouble.fault:
        case Fault.ERROR:
            return Response(500, b'{"code": "INTERNAL"}')
        case Fault.OVERLOAD:
            return Response(503, b'{"code": "OVERLOADED"}', trouble.retry_after_s)
    raise Unreachable(f"the connection was lost: {trouble.fault.value}")
