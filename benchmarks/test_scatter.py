"""Cost of the scatter itself: eight asks, two of which wait for the first. Sources take no time.

On uvloop. Each round runs a few hundred consultations in one `run_until_complete`, so that entering
the loop does not count. Budgets per consultation: 60 µs with a task per source, 15 µs by callback,
8 µs if everything answers at once.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import uvloop
from pytest_benchmark.fixture import BenchmarkFixture

from cashier.fanout.ask import Ask, AskCall, Importance, Known, OnOutcome, Start
from cashier.fanout.plan import Plan
from cashier.fanout.scatter import ScatterResult, Timing, scatter

CONSULTATIONS = 200
TIMING = Timing(grace_ns=15_000_000, reserve_ns=2_000_000)
CLAIMS = {"order_id": "o_1", "user_id": "u_1", "merchant_id": "m_1", "amount": 12_800}
ANSWER = {"currency": "CNY", "country": "CN"}


class Call(AskCall):
    """A call in flight: a handle or a task."""

    __slots__ = ("work",)

    def __init__(self, work: asyncio.Handle | asyncio.Task[None]) -> None:
        self.work = work

    def abandon(self) -> None:
        self.work.cancel()


def at_once(known: Known, call_headers: Any, budget_ms: int, done: OnOutcome) -> AskCall | None:
    done(ANSWER)
    return None


def by_callback(known: Known, call_headers: Any, budget_ms: int, done: OnOutcome) -> AskCall | None:
    return Call(asyncio.get_running_loop().call_soon(done, ANSWER))


async def answer(done: OnOutcome) -> None:
    done(ANSWER)


def by_task(known: Known, call_headers: Any, budget_ms: int, done: OnOutcome) -> AskCall | None:
    return Call(asyncio.get_running_loop().create_task(answer(done)))


def eight_asks(start: Start) -> Plan:
    """Plan a consultation: asks with claimed inputs start at once, the others after the order."""
    return Plan(
        [
            Ask("order", Importance.REQUIRED, ("order_id",), 120, start, gives=("currency", "country"), reveal=dict),
            Ask("merchant", Importance.REQUIRED, ("merchant_id",), 80, start),
            Ask("member", Importance.REQUIRED, ("user_id",), 80, start),
            Ask("card", Importance.GATING, ("user_id",), 80, start),
            Ask("balance", Importance.GATING, ("user_id",), 80, start),
            Ask("channel", Importance.GATING, ("currency", "country"), 80, start),
            Ask("quota", Importance.GATING, ("user_id", "currency"), 80, start),
            Ask("marketing", Importance.ENRICHING, ("user_id", "amount"), 60, start),
        ],
        inputs=[*CLAIMS, "currency", "country"],
    )


async def consult(plan: Plan, known: Known, times: int) -> ScatterResult:
    """Run `times` consultations and return the last result."""
    for _ in range(times):
        deadline_ns = time.perf_counter_ns() + 150_000_000
        gathered = await scatter(plan, known, None, deadline_ns=deadline_ns, timing=TIMING, conclusive=still_open)
    return gathered


def still_open(answers: Mapping[str, Any]) -> bool:
    return False


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = uvloop.new_event_loop()
    yield loop
    loop.close()


@pytest.mark.parametrize("claims", [pytest.param(CLAIMS | ANSWER, id="claimed"), pytest.param(CLAIMS, id="from-order")])
@pytest.mark.parametrize("start", [at_once, by_callback, by_task])
def test_scatter_over_eight_sources(
    benchmark: BenchmarkFixture, loop: asyncio.AbstractEventLoop, start: Start, claims: Known
) -> None:
    plan = eight_asks(start)
    benchmark.extra_info["consultations_per_round"] = CONSULTATIONS
    gathered = benchmark.pedantic(  # type: ignore[no-untyped-call] # pytest-benchmark has no types
        lambda: loop.run_until_complete(consult(plan, claims, CONSULTATIONS)), rounds=100, warmup_rounds=5
    )
    assert gathered.answers == dict.fromkeys((ask.name for ask in plan.asks), ANSWER)
