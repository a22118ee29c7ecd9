"""One payment from risk to the acquirer, over real sockets, against the sandbox.

The sandbox shares no code with the sources.
"""

from __future__ import annotations

from cashier.domain.engine_contract import (
    EngineAnswered,
    EngineKeyReused,
    EngineStatus,
    NeverArrived,
    Sealed,
    Submission,
)
from cashier.domain.legs import EngineLeg, EngineLegType
from cashier.domain.money import Money
from cashier.domain.order_result import NoOrder, OrderResult, ResultStatus
from cashier.domain.pay_method import Kind
from cashier.domain.payment_request import Device
from cashier.domain.risk_contract import Challenged, Inquiry, NoChallenge, Passed, WrongAnswer
from cashier.sandbox.server import serve
from cashier.sandbox.weather_presets import weather_named
from cashier.sandbox.world import World
from cashier.sources.acquirer import AcquirerClient
from cashier.sources.engine import EngineClient
from cashier.sources.risk import RiskClient
from cashier.wire.http1 import Http1Client
from cashier.wire.transport import CallHeaders

CALL_HEADERS = CallHeaders("r-1")
PRICE = Money("CNY", 12_800)
BUDGET_MS = 5000


async def test_a_payment_from_its_challenge_to_the_acquirers_result() -> None:
    async with serve(port=0, world=World(seed=7), weather=weather_named("still", seed=7)) as port:
        transport = Http1Client([f"http://127.0.0.1:{port}"])
        risk, engine, acquirer = RiskClient(transport), EngineClient(transport), AcquirerClient(transport)
        inquiry = Inquiry(
            payment_id="pay_1",
            order_id="o_1001",
            user_id="u_1",
            merchant_id="m_1",
            amount=PRICE,
            kind=Kind.BALANCE,
            device=Device(ip="192.0.2.1"),
        )
        challenged = await risk.decide(inquiry, CALL_HEADERS, BUDGET_MS)
        assert isinstance(challenged, Challenged)
        challenge_id = challenged.challenge.challenge_id
        assert await risk.verify(challenge_id, "pay_1", "000000", CALL_HEADERS, BUDGET_MS) == WrongAnswer(2)
        assert await risk.verify(challenge_id, "pay_1", "246810", CALL_HEADERS, BUDGET_MS) == Passed()
        assert await risk.verify("another", "pay_1", "246810", CALL_HEADERS, BUDGET_MS) == NoChallenge()
        assert await engine.look_up("pay_1", "o_1001", CALL_HEADERS, BUDGET_MS) == NeverArrived()
        submission = submission_of("f", challenged.decision_id)
        answered = await engine.submit(submission, CALL_HEADERS, BUDGET_MS)
        assert isinstance(answered, EngineAnswered)
        assert answered.payment.status is EngineStatus.SUCCEEDED
        assert await engine.submit(submission, CALL_HEADERS, BUDGET_MS) == answered
        assert (
            await engine.submit(submission_of("g", challenged.decision_id), CALL_HEADERS, BUDGET_MS)
            == EngineKeyReused()
        )
        assert await engine.look_up("pay_1", "o_1001", CALL_HEADERS, BUDGET_MS) == answered
        assert await engine.reverse("pay_2", "o_1001", CALL_HEADERS, BUDGET_MS) == Sealed()
        result = await acquirer.result("o_1001", CALL_HEADERS, BUDGET_MS)
        assert isinstance(result, OrderResult)
        assert (result.status, result.payment_id, result.paid) == (ResultStatus.PAID, "pay_1", PRICE)
        assert await acquirer.result("o_none", CALL_HEADERS, BUDGET_MS) == NoOrder()
        await transport.close()


def submission_of(fingerprint: str, decision_id: str) -> Submission:
    return Submission(
        payment_id="pay_1",
        order_id="o_1001",
        user_id="u_1",
        merchant_id="m_1",
        fingerprint=fingerprint,
        legs=(EngineLeg(type=EngineLegType.BALANCE, id="acc_2", amount=PRICE),),
        alternatives=(),
        decision_id=decision_id,
    )
