"""The sandbox's function for tests means what the sandbox on sockets means, and takes no time of ours."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from cashier.domain.acquirer_contract import OrderResult, ResultStatus
from cashier.domain.engine_contract import (
    EngineAnswered,
    EngineStatus,
    NeverArrived,
    OutcomeUnknown,
    Sealed,
    Submission,
)
from cashier.domain.legs import EngineLeg, EngineLegType
from cashier.domain.money import Money
from cashier.domain.pay_method import Kind
from cashier.domain.payment_request import Device
from cashier.domain.risk_contract import Challenged, Inquiry, Passed, WrongAnswer
from cashier.sandbox import Weather, World, parse_profile, weather_named
from cashier.sandbox.fault_effects import REDELIVERY_DELAY
from cashier.source_errors import Garbled, Overloaded, SourceError, TimedOut, Unanswered, Unreachable
from cashier.sources.acquirer import AcquirerClient
from cashier.sources.engine import EngineClient
from cashier.sources.retry import RetrySettings
from cashier.sources.risk import RiskClient
from cashier.wire.in_process import InProcessTransport
from cashier.wire.transport import CallHeaders, Request, Response
from tests.support.sandbox_payments import NOON, loop_clock, sandbox_call

pytestmark = pytest.mark.looptime

CALL_HEADERS = CallHeaders("r-1")
PRICE = Money("CNY", 12_800)
WITHIN_MS = 2000


class Paying:
    """The three services of one world, over one local wire. Looked up once: what is tested is the first answer."""

    def __init__(self) -> None:
        self.world = World(seed=7, clock=loop_clock())
        self.weather: Weather = weather_named("still", seed=7)
        self.wire = InProcessTransport(sandbox_call(self.world, self.weather))
        self.risk, self.engine, self.acquirer = (
            RiskClient(self.wire),
            EngineClient(self.wire, RetrySettings(attempts=1)),
            AcquirerClient(self.wire),
        )

    def befall(self, source: str, fault: str, on: str | None = None) -> None:
        told = {"next": [{"fault": fault, "on": on}]}
        self.weather.change(source, parse_profile(source, told, self.weather.start(source)))

    async def cleared(self) -> Submission:
        decided = await self.risk.decide(_inquiry(), CALL_HEADERS, WITHIN_MS)
        assert isinstance(decided, Challenged)
        challenge_id = decided.challenge.challenge_id
        assert await self.risk.verify(challenge_id, "pay_1", "000000", CALL_HEADERS, WITHIN_MS) == WrongAnswer(2)
        assert await self.risk.verify(challenge_id, "pay_1", "246810", CALL_HEADERS, WITHIN_MS) == Passed()
        return _submission(decided.decision_id)

    async def looked_up(self) -> Any:
        return await self.engine.look_up("pay_1", "o_1001", CALL_HEADERS, WITHIN_MS)


@asynccontextmanager
async def a_world() -> AsyncIterator[Paying]:
    paying = Paying()
    yield paying
    await paying.wire.close()


async def test_a_payment_goes_from_a_challenge_to_the_acquirers_word() -> None:
    async with a_world() as paying:
        answered = await paying.engine.submit(await paying.cleared(), CALL_HEADERS, WITHIN_MS)
        assert isinstance(answered, EngineAnswered)
        payment = answered.payment
        assert (payment.status, payment.order_id, payment.fingerprint, payment.submitted_at) == (
            EngineStatus.SUCCEEDED,
            "o_1001",
            "f",
            NOON,
        )
        assert await paying.looked_up() == answered
        assert await paying.engine.reverse("pay_2", "o_1001", CALL_HEADERS, WITHIN_MS) == Sealed()
        result = await paying.acquirer.result("o_1001", CALL_HEADERS, WITHIN_MS)
        assert isinstance(result, OrderResult)
        assert (result.status, result.payment_id, result.paid) == (ResultStatus.PAID, "pay_1", PRICE)
        assert paying.world.audit() == []


@pytest.mark.parametrize(
    ("fault", "seen", "taken"),
    [
        ("reset", Unreachable, True),
        ("truncate", Unreachable, True),
        ("hang", TimedOut, True),
        ("garbage", Garbled, True),
        ("error", Unreachable, False),
        ("overload", Overloaded, False),
        ("cut", Unreachable, False),
        ("swallow", TimedOut, False),
    ],
)
async def test_the_weather_is_seen_as_the_wire_would_see_it(fault: str, seen: type[SourceError], taken: bool) -> None:
    async with a_world() as paying:
        submission = await paying.cleared()
        paying.befall("engine", fault, "submit")
        outcome = await paying.engine.submit(submission, CALL_HEADERS, WITHIN_MS)
        assert isinstance(outcome, OutcomeUnknown)
        assert type(outcome.error) is seen
        assert outcome.error.sent
        assert isinstance(await paying.looked_up(), EngineAnswered if taken else NeverArrived)


async def test_what_is_held_up_arrives_when_its_time_has_come() -> None:
    async with a_world() as paying:
        submission = await paying.cleared()
        paying.befall("engine", "arrives_late", "submit")
        assert isinstance(await paying.engine.submit(submission, CALL_HEADERS, WITHIN_MS), OutcomeUnknown)
        assert await paying.looked_up() == NeverArrived()
        await asyncio.sleep(REDELIVERY_DELAY.total_seconds())
        assert isinstance(await paying.looked_up(), EngineAnswered)


async def test_every_service_has_its_own_weather() -> None:
    async with a_world() as paying:
        for source in ("risk", "acquirer"):
            paying.befall(source, "overload")
        decided = await paying.risk.decide(
            _inquiry(), CALL_HEADERS, 500
        )  # less than it is told to wait: it is not asked again
        assert isinstance(decided, Unanswered)
        assert isinstance(decided.error, Overloaded)
        assert decided.error.retry_after_s == 1
        assert isinstance(await paying.acquirer.result("o_1001", CALL_HEADERS, 500), Unanswered)
        assert await paying.looked_up() == NeverArrived()


async def test_a_path_that_is_none_is_a_404_with_its_code() -> None:
    async with a_world() as paying:
        told: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        paying.wire.send(Request("/orders/o_1001"), CALL_HEADERS, 100, told.set_result)
        answer = await told
        assert isinstance(answer, Response)
        assert (answer.status, msgspec.json.decode(answer.body)) == (404, {"code": "NO_SUCH_PATH"})


def _inquiry() -> Inquiry:
    return Inquiry(
        payment_id="pay_1",
        order_id="o_1001",
        user_id="u_1",
        merchant_id="m_1",
        amount=PRICE,
        kind=Kind.BALANCE,
        device=Device(),
    )


def _submission(decision_id: str) -> Submission:
    return Submission(
        payment_id="pay_1",
        order_id="o_1001",
        user_id="u_1",
        merchant_id="m_1",
        fingerprint="f",
        legs=(EngineLeg(type=EngineLegType.BALANCE, id="acc_2", amount=PRICE),),
        alternatives=(),
        decision_id=decision_id,
    )
