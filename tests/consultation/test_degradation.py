"""Whole consultations on bad days, with every mechanism on as it is by default: what a sick source costs, and what is said meanwhile.

Virtual time; the sandbox's world, asked through functions of this process that a test makes slow, silent or wrong while it runs.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, NamedTuple, Self

import pytest

from cashier.consultation.flow import Consultation, ConsultFlow, RequiredSourceUnavailable
from cashier.consultation.plan import SOURCE_NAMES, SOURCE_SPECS, consultation_plan, known_inputs
from cashier.consultation.source_pipeline import SourcePipeline
from cashier.domain.pay_method import Availability
from cashier.domain.ranking import Weights
from cashier.fanout.ask import SourceStatus
from cashier.fanout.limiter import LimiterSettings
from cashier.fanout.load_shedding import DegradationLadder
from cashier.fanout.s3fifo import S3FifoStore
from cashier.fanout.ttl import CacheSettings
from cashier.sandbox import LocalUpstreams, World, weather_named
from cashier.settings.schema import Settings, SourceSettings, SourcesSettings
from cashier.sources.source_upstream import FunctionUpstream
from cashier.tokens.token_service import TokenService
from cashier.wire.transport import CallHeaders
from tests.consultation.test_flow import HANGS, by_id, could_refuse, statuses
from tests.fanout.scripted_sources import timers_set
from tests.support.virtual_consultation import CATALOG, FAULTS, Behaviour, request

pytestmark = pytest.mark.looptime

GATING = ("card", "balance", "channel", "quota")
REQUIRED = ("order", "merchant", "member")
UNCACHED = {"order": 1, "balance": 1, "quota": 1}
# What a consultation takes when nobody is slow, and some turns of the loop.
AT_ONCE_MS = 3


class Told(NamedTuple):
    consultation: Consultation
    after_ms: float
    calls: Counter[str]

    @property
    def statuses(self) -> dict[str, SourceStatus]:
        return statuses(self.consultation)


class Day:
    """The engine on one day. `fates` says what each source does, and may be changed at any time; without one it answers after a ms.

    `unbound`: cards that are none any more. `unknown`: sources that answer "there is none".
    """

    def __init__(self, settings: Settings | None = None) -> None:
        settings = settings or Settings()
        loop = asyncio.get_running_loop()
        self.fates: dict[str, Behaviour] = {}
        self.calls: Counter[str] = Counter()
        self.unbound: set[str] = set()
        self.unknown: set[str] = set()
        self.ladder = DegradationLadder()
        self._upstreams = LocalUpstreams(World(), weather_named("still"))
        store = S3FifoStore(1_000)
        self.pipelines = {
            question.source.name: SourcePipeline(
                question,
                FunctionUpstream(question.source, self._function(question.source.name), question.needs),
                settings,
                self.ladder,
                store,
                clock_ns=lambda: round(loop.time() * 1e9),
            )
            for question in SOURCE_SPECS
        }
        self._consult = ConsultFlow(
            consultation_plan({name: pipeline.binding() for name, pipeline in self.pipelines.items()}),
            known_inputs,
            CATALOG,
            Weights(),
            TokenService(["s" * 32]).sign_consult_token,
            settings.consult,
            900,
            lambda: datetime.now(UTC),
            clock_ns=lambda: round(loop.time() * 1e9),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """The end of a day leaves nothing."""
        for pipeline in self.pipelines.values():
            pipeline.close()
        for _ in range(3):  # a cancelled task takes a turn or two to be gone
            await asyncio.sleep(0)
        if error is None:
            assert asyncio.all_tasks() == {asyncio.current_task()}
            assert timers_set() == []
            assert [endpoint.in_flight for pipeline in self.pipelines.values() for endpoint in pipeline.guard.endpoints] == [
                0
            ] * len(self.pipelines)

    def _function(self, name: str) -> Callable[..., Awaitable[Any]]:
        async def answer(**asked: Any) -> Any:
            self.calls[name] += 1
            fate = self.fates.get(name, Behaviour())
            await asyncio.sleep(fate.after_ms / 1000)
            if fate.fault is not None:
                raise FAULTS[fate.fault]()
            body = None if name in self.unknown else await self._upstreams[name](**asked)
            if name == "card" and body is not None:
                return {**body, "cards": [each for each in body["cards"] if each["card_id"] not in self.unbound]}
            return body

        return answer

    async def ask(self, case: str = "chinese_shop", **other: Any) -> Told:
        """`calls`: those that were begun meanwhile, whoever asked for them."""
        loop = asyncio.get_running_loop()
        began_s, before = loop.time(), self.calls.copy()
        found = await self._consult(request(case, **other), CallHeaders("test"))
        return Told(found, (loop.time() - began_s) * 1000, self.calls - before)

    async def ask_often(self, times: int) -> list[Told]:
        return await asyncio.gather(*(self.ask() for _ in range(times)))

    def slow_of_late(self, name: str, after_ms: int) -> None:
        """As if so many calls had taken so long."""
        guard = self.pipelines[name].guard
        for _ in range(200):
            guard.latencies.record(after_ms * 1_000_000)
        guard.learn(guard.clock_ns())


async def fine_day() -> Told:
    async with Day() as day:
        return await day.ask()


async def broken(day: Day, name: str) -> list[Told]:
    """The source hangs for as long as its breaker wants to have seen it."""
    day.fates[name] = HANGS
    told = []
    while day.pipelines[name].guard.endpoints[0].breaker.closed:
        told.append(await day.ask())
        assert len(told) < 200, "its breaker never opens"
    return told


async def full(day: Day, name: str) -> Any:
    """It has as many calls as it bears, and none of them ends."""
    day.fates[name] = HANGS
    day.pipelines[name].guard.endpoints[0].limiter.reconfigure(LimiterSettings(start=1, most=1))
    await day.ask()


async def too_slow(day: Day, name: str) -> Any:
    """It takes longer than the next who asks has time."""
    day.slow_of_late(name, 90)


@pytest.mark.parametrize("name", [*GATING, "marketing"])
async def test_a_hanging_source_costs_one_wait_at_first_and_nothing_once_its_breaker_is_open(name: str) -> None:
    async with Day() as day:
        waited = await broken(day, name)
        assert {told.statuses[name] for told in waited} == {SourceStatus.TIMEOUT}
        assert max(told.after_ms for told in waited) <= (15 if name == "marketing" else 100) + AT_ONCE_MS
        assert (
            sum(told.calls[name] for told in waited) <= 26
        )  # the twenty, and those made before the last of them is seen to be slow
        told = await day.ask()
        assert told.statuses[name] is SourceStatus.BREAKER_OPEN
        assert told.calls[name] == 0
        assert told.after_ms <= AT_ONCE_MS


@pytest.mark.parametrize("name", GATING)
@pytest.mark.parametrize(
    ("trouble", "status", "deadline_ms"),
    [(broken, SourceStatus.BREAKER_OPEN, 150), (full, SourceStatus.SHED, 150), (too_slow, SourceStatus.SKIPPED, 50)],
)
async def test_nothing_is_available_that_a_source_could_refuse_which_is_not_even_asked(
    name: str, trouble: Callable[[Day, str], Awaitable[Any]], status: SourceStatus, deadline_ms: int
) -> None:
    async with Day() as day:
        healthy = await fine_day()
        await trouble(day, name)
        told = await day.ask(deadline_ms=deadline_ms)
        assert told.statuses[name] is status
        assert told.calls[name] == 0
        assert told.consultation.degraded
        assert told.after_ms <= AT_ONCE_MS
        refusable = {method.method_id for method in healthy.consultation.methods if name in could_refuse(method)}
        assert refusable & available(healthy)
        assert not refusable & available(told)
        silenced = [method for method in told.consultation.methods if name in could_refuse(method)]
        assert Availability.AVAILABLE not in {method.availability for method in silenced}
        assert name in {method.reason.source for method in silenced if method.reason is not None}


@pytest.mark.parametrize("name", GATING)
async def test_it_heals_by_itself(name: str) -> None:
    async with Day() as day:
        healthy = await fine_day()
        await broken(day, name)
        assert (await day.ask()).statuses[name] is SourceStatus.BREAKER_OPEN
        del day.fates[name]
        await asyncio.sleep(2.3)  # two seconds, and the jitter
        told = await day.ask()
        assert told.statuses[name] is SourceStatus.FRESH
        assert told.consultation.methods == healthy.consultation.methods
        assert {(await day.ask()).statuses[name] for _ in range(5)} <= {SourceStatus.FRESH, SourceStatus.CACHED}


@pytest.mark.parametrize("name", ["order", "quota"])
async def test_who_began_while_a_source_was_slow_asks_it_again_as_soon_as_its_breaker_does(name: str) -> None:
    """All that is known of it then is that nobody has time to wait for it, which must not keep it from being asked."""
    async with Day() as day:
        day.fates[name] = Behaviour(150)
        for _ in range(2):
            await asyncio.gather(*(day.ask() for _ in range(100)), return_exceptions=True)
            await asyncio.sleep(0.1)
        await asyncio.sleep(1)
        del day.fates[name]
        await asyncio.sleep(2.3)
        assert (await day.ask()).statuses[name] is SourceStatus.FRESH


async def test_a_source_that_is_still_sick_when_it_is_tried_again_costs_one_consultation_its_wait_and_is_left_alone_for_longer() -> (
    None
):
    async with Day() as day:
        await broken(day, "quota")
        await asyncio.sleep(2.3)
        waits = [told.after_ms > AT_ONCE_MS for told in await day.ask_often(20)]
        assert sum(waits) == 1
        await asyncio.sleep(2.3)  # the second pause is three seconds
        assert (await day.ask()).statuses["quota"] is SourceStatus.BREAKER_OPEN


async def test_hanging_marketing_costs_no_more_than_the_grace_and_no_method() -> None:
    async with Day() as day:
        healthy = await fine_day()
        day.fates["marketing"] = HANGS
        told = await day.ask()
        assert told.statuses["marketing"] is SourceStatus.TIMEOUT
        assert told.after_ms <= Settings().consult.grace_ms + AT_ONCE_MS
        assert available(told) == available(healthy)


async def test_while_we_have_too_much_to_do_marketing_is_left_out_and_costs_no_method() -> None:
    async with Day() as day:
        healthy = await fine_day()
        day.ladder.dim_share = 1.0
        told = await day.ask()
        assert told.statuses["marketing"] is SourceStatus.SHED
        assert told.calls["marketing"] == 0
        assert available(told) == available(healthy)


@pytest.mark.parametrize("name", REQUIRED)
async def test_a_required_source_that_fails_once_is_asked_again_at_once(name: str) -> None:
    async with Day() as day:
        day.fates[name] = Behaviour(2, "unreachable")
        asyncio.get_running_loop().call_later(0.001, day.fates.pop, name)
        told = await day.ask()
        assert told.statuses[name] is SourceStatus.FRESH
        assert told.calls[name] == 2
        assert told.after_ms <= 2 + AT_ONCE_MS
        assert not told.consultation.degraded


@pytest.mark.parametrize("name", REQUIRED)
async def test_without_a_required_source_there_is_no_answer_and_it_is_asked_twice_at_most(name: str) -> None:
    async with Day() as day:
        day.fates[name] = Behaviour(1, "unreachable")
        with pytest.raises(RequiredSourceUnavailable):
            await day.ask()
        assert day.calls[name] == 2


@pytest.mark.parametrize("fate", [HANGS, Behaviour(1, "unreachable"), Behaviour(1, "overloaded"), Behaviour(1, "garbled")])
async def test_a_silent_member_service_costs_nothing_while_what_it_said_may_stand_in(fate: Behaviour) -> None:
    async with Day() as day:
        healthy = await day.ask()
        day.fates["member"] = fate
        await asyncio.sleep(60)  # it is not fresh any more, and may be served while a new one is fetched
        told = await day.ask()
        assert told.statuses["member"] is SourceStatus.STALE
        assert told.after_ms <= AT_ONCE_MS
        await asyncio.sleep(1_000)  # it may be served where a new one cannot be had
        told = await day.ask()
        assert told.statuses["member"] is SourceStatus.STALE
        assert age_ms(told, "member") == pytest.approx(1_060_000, abs=200)
        assert not told.consultation.degraded
        assert told.consultation.methods == healthy.consultation.methods
        await asyncio.sleep(1_000)
        with pytest.raises(RequiredSourceUnavailable):
            await day.ask()


async def test_who_comes_back_soon_makes_only_the_calls_that_cannot_be_cached() -> None:
    async with Day() as day:
        first = await day.ask()
        assert first.calls == dict.fromkeys(SOURCE_NAMES, 1)
        second = await day.ask()
        assert second.calls == UNCACHED
        assert second.consultation.methods == first.consultation.methods
        assert {name for name, status in second.statuses.items() if status is SourceStatus.CACHED} == set(
            SOURCE_NAMES
        ) - set(UNCACHED)


async def test_a_hundred_at_once_make_one_call_of_what_can_be_cached() -> None:
    async with Day() as day:
        told = await day.ask_often(100)
        assert {name: count for name, count in day.calls.items() if count < 100} == dict.fromkeys(
            set(SOURCE_NAMES) - set(UNCACHED), 1
        )
        assert all(each.consultation.methods == told[0].consultation.methods for each in told)


async def test_what_was_invalidated_is_seen_by_the_next_who_asks_and_by_nobody_before() -> None:
    async with Day() as day:
        await day.ask()
        day.unbound = {"c_2"}
        assert "QUICK_PAY:c_2" in by_id((await day.ask()).consultation)
        day.pipelines["card"].cache.drop(key="u_1")
        told = await day.ask()
        assert told.calls == {**UNCACHED, "card": 1}
        assert told.statuses["card"] is SourceStatus.FRESH
        assert "QUICK_PAY:c_2" not in by_id(told.consultation)
        assert "QUICK_PAY:c_5" in by_id(told.consultation)


async def test_who_is_known_no_more_is_not_told_of_what_was_kept_of_them_before() -> None:
    """The answer "there is none" may not be kept here; it still is the end of the older one."""
    kept = SourceSettings(url="", cache=CacheSettings(fresh_s=30, stale_s=300, error_s=1_800))
    async with Day(Settings(sources=SourcesSettings(card=kept))) as day:
        await day.ask()
        day.unknown = {"card"}
        await asyncio.sleep(60)
        assert (await day.ask()).statuses["card"] is SourceStatus.STALE
        told = await day.ask()
        assert told.statuses["card"] is SourceStatus.FRESH
        assert "QUICK_PAY:c_2" not in by_id(told.consultation)


async def test_an_answer_that_came_too_late_serves_the_next_who_asks() -> None:
    async with Day() as day:
        day.fates["card"] = Behaviour(150)
        assert (await day.ask()).statuses["card"] is SourceStatus.TIMEOUT
        await asyncio.sleep(0.06)
        told = await day.ask()
        assert told.statuses["card"] is SourceStatus.CACHED
        assert told.calls["card"] == 0


def available(told: Told) -> set[str]:
    return {each.method_id for each in told.consultation.methods if each.availability is Availability.AVAILABLE}


def age_ms(told: Told, name: str) -> int:
    return next(report.age_ms for report in told.consultation.sources if report.name == name)
