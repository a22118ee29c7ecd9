"""Whole consultations with faulty sources and all default mechanisms.

In virtual time, over the sandbox's world. A test changes the behaviour of a source while it runs.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, NamedTuple, Self

import pytest

from cashier.consultation.answer import Consultation, RequiredSourceUnavailable
from cashier.consultation.source_pipeline import SourcePipeline
from cashier.consultation.source_table import SOURCE_NAMES, SOURCE_SPECS
from cashier.domain.pay_method import Availability
from cashier.fanout.ask import SourceStatus
from cashier.fanout.cache_lifetime import CacheSettings
from cashier.fanout.limiter import LimiterSettings
from cashier.fanout.load_shedding import DegradationLadder
from cashier.fanout.s3fifo import S3FifoStore
from cashier.sandbox import LocalUpstreams, World, weather_named
from cashier.settings.schema import Settings, SourceSettings, SourcesSettings
from cashier.sources.source_upstream import FunctionUpstream
from cashier.wire.transport import CallHeaders
from tests.consultation.test_flow import HANGS, could_refuse, methods_by_id, statuses
from tests.support.virtual_consultation import Behaviour, flow_of, request, with_behaviours
from tests.support.virtual_time import timers_set

pytestmark = pytest.mark.virtual_time

GATING = ("card", "balance", "channel", "quota")
REQUIRED = ("order", "merchant", "member")
UNCACHED = {"order": 1, "balance": 1, "quota": 1}
# A consultation without a slow source, and some loop turns.
AT_ONCE_MS = 3
# One for all worlds: their records have times in whole seconds.
STARTED_AT = datetime.now(UTC)


class TimedConsultation(NamedTuple):
    consultation: Consultation
    after_ms: float
    calls: Counter[str]

    @property
    def statuses(self) -> dict[str, SourceStatus]:
        return statuses(self.consultation)


class FaultyFlow:
    """A consultation flow whose sources a test controls.

    `behaviours` may change at any time; a source without one answers after 1 ms.
    `unbound`: cards that no longer exist. `unknown`: sources that answer "not found".
    """

    def __init__(self, settings: Settings | None = None) -> None:
        settings = settings or Settings()
        loop = asyncio.get_running_loop()
        self.behaviours: dict[str, Behaviour] = {}
        self.calls: Counter[str] = Counter()
        self.unbound: set[str] = set()
        self.unknown: set[str] = set()
        self.ladder = DegradationLadder()
        self._upstreams = LocalUpstreams(World(clock=lambda: STARTED_AT), weather_named("still"))
        store = S3FifoStore(1_000)
        self.pipelines = {
            spec.source.name: SourcePipeline(
                spec,
                FunctionUpstream(spec.source, self._function(spec.source.name), spec.needs),
                settings,
                self.ladder,
                store,
                clock_ns=lambda: round(loop.time() * 1e9),
            )
            for spec in SOURCE_SPECS
        }
        bindings = {name: pipeline.binding() for name, pipeline in self.pipelines.items()}
        self._consult = flow_of(bindings, settings.consult)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Check that no timer or call is left. The loop itself checks for tasks."""
        for pipeline in self.pipelines.values():
            pipeline.close()
        for _ in range(3):  # a cancelled task takes a turn or two to end
            await asyncio.sleep(0)
        if error is None:
            assert timers_set() == []
            assert [
                endpoint.in_flight for pipeline in self.pipelines.values() for endpoint in pipeline.guard.endpoints
            ] == [0] * len(self.pipelines)

    def _function(self, name: str) -> Callable[..., Awaitable[Any]]:
        async def body(**inputs: Any) -> Any:
            answer = None if name in self.unknown else await self._upstreams[name](**inputs)
            if name == "card" and answer is not None:
                return {**answer, "cards": [card for card in answer["cards"] if card["card_id"] not in self.unbound]}
            return answer

        return with_behaviours(name, body, self.behaviours, self.calls)

    async def ask(self, case: str = "chinese_shop", **fields: Any) -> TimedConsultation:
        """`calls`: all upstream calls that started meanwhile."""
        loop = asyncio.get_running_loop()
        started_s, before = loop.time(), self.calls.copy()
        consultation = await self._consult(request(case, **fields), CallHeaders("test"))
        return TimedConsultation(consultation, (loop.time() - started_s) * 1000, self.calls - before)

    async def ask_often(self, times: int) -> list[TimedConsultation]:
        return await asyncio.gather(*(self.ask() for _ in range(times)))

    def record_latencies(self, name: str, after_ms: int) -> None:
        """Record 200 calls of this latency."""
        guard = self.pipelines[name].guard
        for _ in range(200):
            guard.latencies.record(after_ms * 1_000_000)
        guard.learn(guard.clock_ns())


@pytest.fixture
async def flow() -> AsyncIterator[FaultyFlow]:
    async with FaultyFlow() as opened:
        yield opened


async def healthy_consultation() -> TimedConsultation:
    async with FaultyFlow() as flow:
        return await flow.ask()


async def broken(flow: FaultyFlow, name: str) -> list[TimedConsultation]:
    """Let the source hang until its breaker opens."""
    flow.behaviours[name] = HANGS
    timeouts = []
    while flow.pipelines[name].guard.endpoints[0].breaker.closed:
        timeouts.append(await flow.ask())
        assert len(timeouts) < 200, "the breaker never opens"
    return timeouts


async def full(flow: FaultyFlow, name: str) -> Any:
    """Fill its limiter with calls that never end."""
    flow.behaviours[name] = HANGS
    flow.pipelines[name].guard.endpoints[0].limiter.reconfigure(LimiterSettings(start=1, most=1))
    await flow.ask()


async def too_slow(flow: FaultyFlow, name: str) -> Any:
    """Make its latency longer than the next consultation's budget."""
    flow.record_latencies(name, 90)


@pytest.mark.parametrize("name", [*GATING, "marketing"])
async def test_a_hanging_source_costs_its_timeout_until_its_breaker_opens(flow: FaultyFlow, name: str) -> None:
    waited = await broken(flow, name)
    assert {consulted.statuses[name] for consulted in waited} == {SourceStatus.TIMEOUT}
    assert max(consulted.after_ms for consulted in waited) <= (15 if name == "marketing" else 100) + AT_ONCE_MS
    # 20 calls, and those that started before the last of them timed out.
    assert sum(consulted.calls[name] for consulted in waited) <= 26
    consulted = await flow.ask()
    assert consulted.statuses[name] is SourceStatus.BREAKER_OPEN
    assert consulted.calls[name] == 0
    assert consulted.after_ms <= AT_ONCE_MS


@pytest.mark.parametrize("name", GATING)
@pytest.mark.parametrize(
    ("fault", "status", "deadline_ms"),
    [(broken, SourceStatus.BREAKER_OPEN, 150), (full, SourceStatus.SHED, 150), (too_slow, SourceStatus.SKIPPED, 50)],
)
async def test_no_method_is_available_that_an_uncalled_source_could_refuse(
    flow: FaultyFlow,
    name: str,
    fault: Callable[[FaultyFlow, str], Awaitable[Any]],
    status: SourceStatus,
    deadline_ms: int,
) -> None:
    healthy = await healthy_consultation()
    await fault(flow, name)
    consulted = await flow.ask(deadline_ms=deadline_ms)
    assert consulted.statuses[name] is status
    assert consulted.calls[name] == 0
    assert consulted.consultation.degraded
    assert consulted.after_ms <= AT_ONCE_MS
    refusable = {method.method_id for method in healthy.consultation.methods if name in could_refuse(method)}
    assert refusable & available(healthy)
    assert not refusable & available(consulted)
    silenced = [method for method in consulted.consultation.methods if name in could_refuse(method)]
    assert Availability.AVAILABLE not in {method.availability for method in silenced}
    assert name in {method.reason.source for method in silenced if method.reason is not None}


@pytest.mark.parametrize("name", GATING)
async def test_a_source_recovers_by_itself(flow: FaultyFlow, name: str) -> None:
    healthy = await healthy_consultation()
    await broken(flow, name)
    assert (await flow.ask()).statuses[name] is SourceStatus.BREAKER_OPEN
    del flow.behaviours[name]
    await asyncio.sleep(2.3)  # two seconds and the jitter
    consulted = await flow.ask()
    assert consulted.statuses[name] is SourceStatus.FRESH
    assert consulted.consultation.methods == healthy.consultation.methods
    assert {(await flow.ask()).statuses[name] for _ in range(5)} <= {SourceStatus.FRESH, SourceStatus.CACHED}


@pytest.mark.parametrize("name", ["order", "quota"])
async def test_latencies_learned_from_a_slow_source_do_not_keep_it_from_being_called_again(
    flow: FaultyFlow, name: str
) -> None:
    """Its only known latency is beyond every deadline."""
    flow.behaviours[name] = Behaviour(150)
    for _ in range(2):
        await asyncio.gather(*(flow.ask() for _ in range(100)), return_exceptions=True)
        await asyncio.sleep(0.1)
    await asyncio.sleep(1)
    del flow.behaviours[name]
    await asyncio.sleep(2.3)
    assert (await flow.ask()).statuses[name] is SourceStatus.FRESH


async def test_a_failed_trial_costs_one_consultation_its_timeout_and_lengthens_the_pause(flow: FaultyFlow) -> None:
    await broken(flow, "quota")
    await asyncio.sleep(2.3)
    waits = [consulted.after_ms > AT_ONCE_MS for consulted in await flow.ask_often(20)]
    assert sum(waits) == 1
    await asyncio.sleep(2.3)  # the second pause is three seconds
    assert (await flow.ask()).statuses["quota"] is SourceStatus.BREAKER_OPEN


async def test_hanging_marketing_costs_the_grace_and_no_method(flow: FaultyFlow) -> None:
    healthy = await healthy_consultation()
    flow.behaviours["marketing"] = HANGS
    consulted = await flow.ask()
    assert consulted.statuses["marketing"] is SourceStatus.TIMEOUT
    assert consulted.after_ms <= Settings().consult.grace_ms + AT_ONCE_MS
    assert available(consulted) == available(healthy)


async def test_under_load_marketing_is_shed_and_costs_no_method(flow: FaultyFlow) -> None:
    healthy = await healthy_consultation()
    flow.ladder.dim_share = 1.0
    consulted = await flow.ask()
    assert consulted.statuses["marketing"] is SourceStatus.SHED
    assert consulted.calls["marketing"] == 0
    assert available(consulted) == available(healthy)


@pytest.mark.parametrize("name", REQUIRED)
async def test_a_required_source_is_retried_at_once(flow: FaultyFlow, name: str) -> None:
    flow.behaviours[name] = Behaviour(2, "unreachable")
    asyncio.get_running_loop().call_later(0.001, flow.behaviours.pop, name)
    consulted = await flow.ask()
    assert consulted.statuses[name] is SourceStatus.FRESH
    assert consulted.calls[name] == 2
    assert consulted.after_ms <= 2 + AT_ONCE_MS
    assert not consulted.consultation.degraded


@pytest.mark.parametrize("name", REQUIRED)
async def test_a_failed_required_source_is_called_twice_at_most(flow: FaultyFlow, name: str) -> None:
    flow.behaviours[name] = Behaviour(1, "unreachable")
    with pytest.raises(RequiredSourceUnavailable):
        await flow.ask()
    assert flow.calls[name] == 2


@pytest.mark.parametrize(
    "behaviour", [HANGS, Behaviour(1, "unreachable"), Behaviour(1, "overloaded"), Behaviour(1, "garbled")]
)
async def test_a_silent_member_service_costs_nothing_while_a_stale_answer_may_serve(
    flow: FaultyFlow, behaviour: Behaviour
) -> None:
    healthy = await flow.ask()
    flow.behaviours["member"] = behaviour
    await asyncio.sleep(60)  # stale: served while a new answer is fetched
    consulted = await flow.ask()
    assert consulted.statuses["member"] is SourceStatus.STALE
    assert consulted.after_ms <= AT_ONCE_MS
    await asyncio.sleep(1_000)  # served only after an error
    consulted = await flow.ask()
    assert consulted.statuses["member"] is SourceStatus.STALE
    assert age_ms(consulted, "member") == pytest.approx(1_060_000, abs=200)
    assert not consulted.consultation.degraded
    assert consulted.consultation.methods == healthy.consultation.methods
    await asyncio.sleep(1_000)
    with pytest.raises(RequiredSourceUnavailable):
        await flow.ask()


async def test_a_returning_customer_costs_only_the_uncached_calls(flow: FaultyFlow) -> None:
    first = await flow.ask()
    assert first.calls == dict.fromkeys(SOURCE_NAMES, 1)
    second = await flow.ask()
    assert second.calls == UNCACHED
    assert second.consultation.methods == first.consultation.methods
    assert {name for name, status in second.statuses.items() if status is SourceStatus.CACHED} == set(
        SOURCE_NAMES
    ) - set(UNCACHED)


async def test_a_hundred_concurrent_consultations_share_one_call_of_each_cached_source(flow: FaultyFlow) -> None:
    concurrent = await flow.ask_often(100)
    assert {name: count for name, count in flow.calls.items() if count < 100} == dict.fromkeys(
        set(SOURCE_NAMES) - set(UNCACHED), 1
    )
    assert all(consulted.consultation.methods == concurrent[0].consultation.methods for consulted in concurrent)


async def test_an_invalidation_takes_effect_for_the_next_consultation(flow: FaultyFlow) -> None:
    await flow.ask()
    flow.unbound = {"c_2"}
    assert "QUICK_PAY:c_2" in methods_by_id((await flow.ask()).consultation)
    flow.pipelines["card"].cache.drop(key="u_1")
    consulted = await flow.ask()
    assert consulted.calls == {**UNCACHED, "card": 1}
    assert consulted.statuses["card"] is SourceStatus.FRESH
    assert "QUICK_PAY:c_2" not in methods_by_id(consulted.consultation)
    assert "QUICK_PAY:c_5" in methods_by_id(consulted.consultation)


async def test_a_not_found_answer_evicts_the_older_answer() -> None:
    """The not-found answer itself is not cacheable here."""
    kept = SourceSettings(url="", cache=CacheSettings(fresh_s=30, stale_s=300, error_s=1_800))
    async with FaultyFlow(Settings(sources=SourcesSettings(card=kept))) as flow:
        await flow.ask()
        flow.unknown = {"card"}
        await asyncio.sleep(60)
        assert (await flow.ask()).statuses["card"] is SourceStatus.STALE
        consulted = await flow.ask()
        assert consulted.statuses["card"] is SourceStatus.FRESH
        assert "QUICK_PAY:c_2" not in methods_by_id(consulted.consultation)


async def test_a_late_answer_serves_the_next_consultation(flow: FaultyFlow) -> None:
    flow.behaviours["card"] = Behaviour(150)
    assert (await flow.ask()).statuses["card"] is SourceStatus.TIMEOUT
    await asyncio.sleep(0.06)
    consulted = await flow.ask()
    assert consulted.statuses["card"] is SourceStatus.CACHED
    assert consulted.calls["card"] == 0


def available(consulted: TimedConsultation) -> set[str]:
    return {
        method.method_id for method in consulted.consultation.methods if method.availability is Availability.AVAILABLE
    }


def age_ms(consulted: TimedConsultation, name: str) -> int:
    return next(report.age_ms for report in consulted.consultation.sources if report.name == name)
