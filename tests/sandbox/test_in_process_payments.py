"""The in-process payment services behave as over sockets, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from cashier.domain.engine_contract import (
    EngineAnswered,
    NeverArrived,
    OutcomeUnknown,
    Submission,
)
from cashier.domain.money import Money
from cashier.domain.risk_contract import Challenged, Passed, WrongAnswer
from cashier.sandbox import Weather, World, parse_profile, weather_named
from cashier.source_errors import Garbled, Overloaded, SourceError, TimedOut, Unanswered, Unreachable
from cashier.sources.acquirer import AcquirerClient
from cashier.sources.engine import EngineClient
from cashier.sources.idempotent_retry import RetrySettings
from cashier.sources.risk import RiskClient
from cashier.wire.in_process import InProcessTransport
from cashier.wire.transport import CallHeaders, Request, Response
from tests.support.sandbox_payments import inquiry, loop_clock, sandbox_call, submission

pytestmark = pytest.mark.virtual_time

CALL_HEADERS = CallHeaders("r-1")
PRICE = Money("CNY", 12_800)
WITHIN_MS = 2000


class PaymentClients:
    """The clients of the three services of one world. Without retries, to test the first answer."""

    def __init__(self) -> None:
        self.world = World(seed=7, clock=loop_clock())
        self.weather: Weather = weather_named("still", seed=7)
        self.transport = InProcessTransport(sandbox_call(self.world, self.weather))
        self.risk, self.engine, self.acquirer = (
            RiskClient(self.transport),
            EngineClient(self.transport, RetrySettings(attempts=1)),
            AcquirerClient(self.transport),
        )

    def plan_fault(self, source: str, fault: str, on: str | None = None) -> None:
        profile = {"next": [{"fault": fault, "on": on}]}
        self.weather.change(source, parse_profile(source, profile, self.weather.start(source)))

    async def cleared_submission(self) -> Submission:
        decided = await self.risk.decide(inquiry(), CALL_HEADERS, WITHIN_MS)
        assert isinstance(decided, Challenged)
        challenge_id = decided.challenge.challenge_id
        assert await self.risk.verify(challenge_id, "pay_1", "000000", CALL_HEADERS, WITHIN_MS) == WrongAnswer(2)
        assert await self.risk.verify(challenge_id, "pay_1", "246810", CALL_HEADERS, WITHIN_MS) == Passed()
        return submission(decided.decision_id)

    async def look_up(self) -> Any:
        return await self.engine.look_up("pay_1", "o_1001", CALL_HEADERS, WITHIN_MS)


@asynccontextmanager
async def payment_clients() -> AsyncIterator[PaymentClients]:
    clients = PaymentClients()
    yield clients
    await clients.transport.close()


@pytest.mark.parametrize(
    ("fault", "error", "taken"),
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
async def test_a_fault_appears_as_it_would_on_a_socket(fault: str, error: type[SourceError], taken: bool) -> None:
    async with payment_clients() as clients:
        cleared = await clients.cleared_submission()
        clients.plan_fault("engine", fault, "submit")
        outcome = await clients.engine.submit(cleared, CALL_HEADERS, WITHIN_MS)
        assert isinstance(outcome, OutcomeUnknown)
        assert type(outcome.error) is error
        assert outcome.error.sent
        assert isinstance(await clients.look_up(), EngineAnswered if taken else NeverArrived)


async def test_every_service_has_its_own_weather() -> None:
    async with payment_clients() as clients:
        for source in ("risk", "acquirer"):
            clients.plan_fault(source, "overload")
        # Less than Retry-After, so there is no second attempt.
        decided = await clients.risk.decide(inquiry(), CALL_HEADERS, 500)
        assert isinstance(decided, Unanswered)
        assert isinstance(decided.error, Overloaded)
        assert decided.error.retry_after_s == 1
        assert isinstance(await clients.acquirer.result("o_1001", CALL_HEADERS, 500), Unanswered)
        assert await clients.look_up() == NeverArrived()


async def test_an_unknown_path_is_a_404_with_its_code() -> None:
    async with payment_clients() as clients:
        outcome: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        clients.transport.send(Request("/orders/o_1001"), CALL_HEADERS, 100, outcome.set_result)
        answer = await outcome
        assert isinstance(answer, Response)
        assert (answer.status, msgspec.json.decode(answer.body)) == (404, {"code": "NO_SUCH_PATH"})
