"""One payment from risk to the acquirer against the sandbox, over real sockets and in process.

The sandbox shares no code with the sources.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from cashier.domain.engine_contract import EngineAnswered, EngineKeyReused, EngineStatus, NeverArrived, Sealed
from cashier.domain.order_result import NoOrder, OrderResult, ResultStatus
from cashier.domain.risk_contract import Challenged, NoChallenge, Passed, WrongAnswer
from cashier.sandbox import World, weather_named
from cashier.sandbox.server import serve
from cashier.sources.acquirer import AcquirerClient
from cashier.sources.engine import EngineClient
from cashier.sources.risk import RiskClient
from cashier.wire.http1 import Http1Client, Http1Settings
from cashier.wire.in_process import InProcessTransport
from cashier.wire.transport import CallHeaders, Transport
from tests.support.sandbox_payments import NOON, PRICE, inquiry, loop_clock, sandbox_call, submission
from tests.wire.client_side import PATIENT

CALL = (CallHeaders("r-1"), 5000)


@pytest.fixture
async def world() -> World:
    return World(seed=7, clock=loop_clock())


@pytest.fixture(params=["sockets", "in process"])
async def transport(request: pytest.FixtureRequest, world: World) -> AsyncIterator[Transport]:
    weather = weather_named("still", seed=7)
    carrier: Transport
    async with serve(port=0, world=world, weather=weather) as port:
        if request.param == "sockets":
            carrier = Http1Client([f"http://127.0.0.1:{port}"], Http1Settings(**PATIENT))
        else:
            carrier = InProcessTransport(sandbox_call(world, weather))
        yield carrier
        await carrier.close()


async def test_a_payment_from_its_challenge_to_the_acquirers_result(transport: Transport, world: World) -> None:
    risk, engine, acquirer = RiskClient(transport), EngineClient(transport), AcquirerClient(transport)
    challenged = await risk.decide(inquiry(), *CALL)
    assert isinstance(challenged, Challenged)
    challenge_id = challenged.challenge.challenge_id
    assert await risk.verify(challenge_id, "pay_1", "000000", *CALL) == WrongAnswer(2)
    assert await risk.verify(challenge_id, "pay_1", "246810", *CALL) == Passed()
    assert await risk.verify("another", "pay_1", "246810", *CALL) == NoChallenge()
    assert await engine.look_up("pay_1", "o_1001", *CALL) == NeverArrived()
    answered = await engine.submit(submission(challenged.decision_id), *CALL)
    assert isinstance(answered, EngineAnswered)
    payment = answered.payment
    assert (payment.status, payment.order_id, payment.fingerprint) == (EngineStatus.SUCCEEDED, "o_1001", "f")
    assert payment.submitted_at is not None
    assert (payment.submitted_at - NOON).total_seconds() < 60
    assert await engine.submit(submission(challenged.decision_id), *CALL) == answered
    assert await engine.submit(submission(challenged.decision_id, "g"), *CALL) == EngineKeyReused()
    assert await engine.look_up("pay_1", "o_1001", *CALL) == answered
    assert await engine.reverse("pay_2", "o_1001", *CALL) == Sealed()
    result = await acquirer.result("o_1001", *CALL)
    assert isinstance(result, OrderResult)
    assert (result.status, result.payment_id, result.paid) == (ResultStatus.PAID, "pay_1", PRICE)
    assert await acquirer.result("o_none", *CALL) == NoOrder()
    assert world.audit() == []
