"""Bad days on real sockets: sources that hang, straggle, die and come back, and what the mechanisms make of it, all together.

The engine and its upstreams share this loop, except where a process has to die. What is asserted are counts, ratios and orders with wide
margins, because the machine may be slow; what a mechanism decides to the millisecond is tested in virtual time, beside it.
"""

from __future__ import annotations

import asyncio
import gc
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import count
from statistics import median
from typing import Any, NamedTuple

import msgspec
import pytest
from aiohttp import web

from cashier import Cashier, ConsultRequest
from cashier.consultation.flow import Consultation
from cashier.consultation.plan import SOURCE_NAMES
from cashier.domain.pay_method import Availability, Kind
from cashier.fanout.ask import SourceStatus
from cashier.sandbox import SOURCES, Fault, Weather, World, create_app
from cashier.sandbox.generated_users import FIRST
from cashier.sandbox.weather import BPS, NO_STRAGGLERS, Constant, Forecast, Stragglers
from tests.support.command_processes import running

pytestmark = pytest.mark.timing

WORLD = World()
# Above all that a slow machine may need; what hangs or is late on purpose gets less.
PATIENT_MS = 900
DEADLINE_MS = 1_000
# For what comes by itself, sooner or later.
SOON_S = 60.0
HANGING = Forecast(Constant(0), faults={Fault.HANG: BPS})
users = count(FIRST)


@pytest.fixture(autouse=True, scope="module")
def _settled() -> None:
    """As the service does once it is warm: with all that the other tests have left on the heap, a collection stops a busy machine's loop
    for more than a second, and that is nobody's bad day but ours."""
    gc.collect()
    gc.freeze()


class Counting(Weather):
    """A weather that counts on whom it falls: the calls that came, by source."""

    def __init__(self, start: Mapping[str, Forecast]) -> None:
        super().__init__(start, seed=3)
        self.calls: Counter[str] = Counter()

    def draw(self, source: str) -> Any:
        self.calls[source] += 1
        return super().draw(source)


class Sandbox(NamedTuple):
    """A sandbox on this loop. `peers`: the connections over which it was asked something."""

    url: str
    weather: Counting
    peers: set[Any]


@asynccontextmanager
async def sandbox(ms: float = 3, stragglers: Stragglers = NO_STRAGGLERS) -> AsyncIterator[Sandbox]:
    weather = Counting(dict.fromkeys(SOURCES, Forecast(Constant(ms), stragglers)))
    peers: set[Any] = set()

    @web.middleware
    async def noting(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        assert request.transport is not None
        peers.add(request.transport.get_extra_info("peername"))
        return await handler(request)

    app = create_app(WORLD, weather)
    app.middlewares.append(noting)
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, backlog=1024).start()
        yield Sandbox(f"http://127.0.0.1:{runner.addresses[0][1]}", weather, peers)
    finally:
        await runner.cleanup()


def engine(upstream: Sandbox, each: Mapping[str, Any] | None = None, **other: Mapping[str, Any]) -> Cashier:
    """All sources there, asked live and patiently; `each` changes all of them, `other` single ones."""
    usual = {"url": upstream.url, "timeout_ms": PATIENT_MS, "cache": False, **(each or {})}
    sources = {name: {**usual, **other.get(name, {})} for name in SOURCE_NAMES}
    return Cashier(
        config={"consult": {"deadline_ms": DEADLINE_MS}, "sources": sources, "tokens": {"secrets": ["s" * 32]}}
    )


class Told(NamedTuple):
    consultation: Consultation
    took_ms: float

    def status(self, name: str) -> SourceStatus:
        return next(report.status for report in self.consultation.sources if report.name == name)


def request(n: int) -> ConsultRequest:
    return msgspec.convert(WORLD.cast.crowd.consult_request(n), ConsultRequest)


async def consult(cashier: Cashier, n: int | None = None) -> Told:
    """For somebody who has not been here before, unless it is said for whom."""
    asked = request(next(users) if n is None else n)
    began = time.perf_counter()
    return Told(await cashier.consult(asked), (time.perf_counter() - began) * 1000)


async def several(cashier: Cashier, times: int, at_once: int = 1) -> list[Told]:
    async def in_turn(share: int) -> list[Told]:
        return [await consult(cashier) for _ in range(share)]

    return [
        told for turns in await asyncio.gather(*(in_turn(times // at_once) for _ in range(at_once))) for told in turns
    ]


async def ended(cashier: Cashier) -> None:
    """Until nothing is under way, awaited or not."""
    async with asyncio.timeout(SOON_S):
        while not idle(cashier):  # noqa: ASYNC110 - the engine tells nobody, because nobody else wants to know
            await asyncio.sleep(0.02)


def idle(cashier: Cashier) -> bool:
    guards = [pipeline.guard for pipeline in cashier.pipelines.values()]
    return not any(guard.timers.late_calls or any(endpoint.in_flight for endpoint in guard.endpoints) for guard in guards)


def middle_ms(found: Sequence[Told]) -> float:
    return median(told.took_ms for told in found)


# A source that hangs


def assert_honest(told: Told) -> None:
    """The quota service was silent, and may refuse cards and balances: none of them can be promised, and it is said why."""
    found = [
        method for method in told.consultation.methods if method.kind in (Kind.QUICK_PAY, Kind.BALANCE, Kind.WALLET)
    ]
    assert not [method.method_id for method in found if method.availability is Availability.AVAILABLE]
    unknown = [method for method in found if method.availability is Availability.UNDETERMINED]
    assert unknown
    assert {method.reason.source for method in unknown if method.reason is not None} == {"quota"}
    assert told.consultation.degraded


async def test_a_hanging_source_costs_its_ceiling_at_first_and_nothing_once_its_breaker_is_open() -> None:
    ceiling_ms = 200
    async with (
        sandbox() as upstream,
        engine(upstream, quota={"timeout_ms": ceiling_ms, "breaker": {"open_s": 0.5}}) as cashier,
    ):
        await several(cashier, 20, at_once=2)
        healthy = await several(cashier, 30)
        assert all(told.status("quota") is SourceStatus.FRESH for told in healthy)

        upstream.weather.change("quota", HANGING)
        hung: list[Told] = []
        while not any(told.status("quota") is SourceStatus.BREAKER_OPEN for told in hung):
            assert len(hung) < 300
            hung += await several(cashier, 10, at_once=10)
        silent = [told for told in hung if told.status("quota") is SourceStatus.TIMEOUT]
        assert len(silent) >= 20  # of fewer calls no breaker says anything
        assert min(told.took_ms for told in silent[:10]) >= ceiling_ms
        assert max(told.took_ms for told in hung) < ceiling_ms + 800
        for told in hung:
            assert_honest(told)

        calls = upstream.weather.calls["quota"]
        broken = await several(cashier, 40)
        assert sum(told.status("quota") is SourceStatus.BREAKER_OPEN for told in broken) >= 35
        assert upstream.weather.calls["quota"] - calls <= 5  # trials
        assert middle_ms(broken) <= 2 * middle_ms(healthy)
        for told in broken:
            assert_honest(told)

        upstream.weather.restore("quota")
        async with asyncio.timeout(SOON_S):
            while (await consult(cashier)).status("quota") is not SourceStatus.FRESH:
                pass
        assert all(told.status("quota") is SourceStatus.FRESH for told in await several(cashier, 20))


# Stragglers


async def test_hedging_halves_the_slowest_consultations_where_one_call_in_a_hundred_straggles_at_an_extra_twentieth_of_the_calls() -> (
    None
):
    straggling = Stragglers(share_bps=100, factor=12)
    async with (
        sandbox(20, straggling) as plain,
        sandbox(20, straggling) as helped,
        engine(plain, {"hedge": False}) as without,
        engine(helped) as hedging,
    ):
        # Enough to be learned from, once a second, and no faster than what is measured: what a call takes here depends on its neighbours.
        await asyncio.gather(several(without, 120, at_once=2), several(hedging, 120, at_once=2))
        await asyncio.sleep(1)
        alone, hedged = await asyncio.gather(several(without, 200, at_once=2), several(hedging, 200, at_once=2))
        await ended(hedging)

    # Of these 7.7 % meet a straggler, so the 96th percentile is theirs, and no stall of this machine's.
    assert slowest(hedged) <= slowest(alone) / 2
    assert slowest(alone) >= 240  # there were stragglers to be helped against
    consultations = 320
    counts = [pipeline.guard.counts for pipeline in hedging.pipelines.values()]
    assert sum(each.first_calls for each in counts) == len(SOURCE_NAMES) * consultations == sum(plain.weather.calls.values())
    extra = sum(each.hedges + each.retries for each in counts)
    assert 0 < extra <= len(SOURCE_NAMES) * consultations * 0.05
    assert sum(helped.weather.calls.values()) == len(SOURCE_NAMES) * consultations + extra


def slowest(found: Sequence[Told]) -> float:
    return sorted(told.took_ms for told in found)[int(len(found) * 0.96)]


# Replicas


async def test_a_slow_replica_is_left_to_itself_and_comes_back_when_it_is_well() -> None:
    async with sandbox() as first, sandbox() as second, sandbox() as third:
        replicas = (first, second, third)
        card = {"url": [each.url for each in replicas], "breaker": {"open_s": 0.5, "calls": 10}}
        async with engine(second, card=card) as cashier:
            assert await share_of_first(cashier, replicas) > 0.2
            first.weather.change("card", Forecast(Constant(150)))
            await until_share(cashier, replicas, lambda share: share < 0.1)
            left_alone = await several(cashier, 40)
            assert sum(told.took_ms > 150 for told in left_alone) <= 4  # trials
            assert all(told.status("card") is SourceStatus.FRESH for told in left_alone)
            first.weather.restore()
            await until_share(cashier, replicas, lambda share: share > 0.2)


async def share_of_first(cashier: Cashier, replicas: Sequence[Sandbox]) -> float:
    """Which share of the card calls goes to the first of the replicas, one consultation after the other: none of them is ever busy."""
    before = [each.weather.calls["card"] for each in replicas]
    await several(cashier, 30)
    made = [each.weather.calls["card"] - calls for each, calls in zip(replicas, before, strict=True)]
    return made[0] / sum(made)


async def until_share(cashier: Cashier, replicas: Sequence[Sandbox], reached: Callable[[float], bool]) -> None:
    async with asyncio.timeout(SOON_S):
        while not reached(await share_of_first(cashier, replicas)):
            pass


async def test_a_dead_replica_costs_no_consultation_its_cards_and_is_asked_again_when_it_is_back() -> None:
    port = free_port()
    async with sandbox() as second, sandbox() as third:
        # Beside one in a process of its own the two on this loop may seem slow, and are to be left alone for nothing less than being dead.
        breaker = {"open_s": 0.5, "failed_bps": 9_500}
        card = {"url": [f"http://127.0.0.1:{port}", second.url, third.url], "breaker": breaker}
        with running("sandbox", "--port", str(port), "--weather", "fixed") as first:
            await asyncio.to_thread(first.address, "Sandbox on")
            async with engine(second, card=card) as cashier:
                first_place = cashier.pipelines["card"].guard.endpoints[0]
                await several(cashier, 60, at_once=4)
                assert first_place.latency_ns  # it has answered
                running_on = asyncio.create_task(several(cashier, 120, at_once=4))
                await asyncio.sleep(0.1)
                first.kill()
                at_the_moment = await running_on
                assert sum(told.status("card") is not SourceStatus.FRESH for told in at_the_moment) <= 8
                after = await several(cashier, 120, at_once=4)
                assert all(told.status("card") is SourceStatus.FRESH for told in after)
                await asyncio.to_thread(first.wait)

                with running("sandbox", "--port", str(port), "--weather", "fixed") as again:
                    await asyncio.to_thread(again.address, "Sandbox on")
                    known = first_place.latency_ns
                    async with asyncio.timeout(SOON_S):
                        while first_place.latency_ns == known:
                            assert all(
                                told.status("card") is SourceStatus.FRESH
                                for told in await several(cashier, 8, at_once=4)
                            )


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


# Late answers


@pytest.mark.parametrize("late", [True, False])
async def test_a_source_slower_than_the_grace_keeps_its_connections_only_where_late_answers_may_run_on(
    late: bool,
) -> None:
    marketing = {"late": late}
    async with (
        sandbox() as upstream,
        sandbox(250) as slow,
        engine(upstream, marketing={"url": slow.url, **marketing}) as cashier,
    ):
        await several(cashier, 20)
        opened = len(slow.peers)
        found = await several(cashier, 50)
        assert all(told.status("marketing") is not SourceStatus.FRESH for told in found)
        assert max(told.took_ms for told in found) < DEADLINE_MS
        if late:
            assert len(slow.peers) - opened <= 10
        else:
            assert len(slow.peers) - opened >= 45
        await ended(cashier)
        assert cashier.pipelines["marketing"].guard.counts.late_answers == 0  # nobody would keep it


async def test_an_answer_that_was_late_serves_the_next_who_asks() -> None:
    marketing = {"cache": {"fresh_s": 60}}
    async with (
        sandbox() as upstream,
        sandbox(250) as slow,
        engine(upstream, marketing={"url": slow.url, **marketing}) as cashier,
    ):
        customer = next(users)
        first = await consult(cashier, customer)
        assert first.status("marketing") is not SourceStatus.FRESH
        await ended(cashier)
        second = await consult(cashier, customer)
        assert second.status("marketing") is SourceStatus.CACHED
        assert slow.weather.calls["marketing"] == 1
        assert cashier.pipelines["marketing"].guard.counts.late_answers == 1
        assert discounted(second) > discounted(first) == 0


def discounted(told: Told) -> int:
    return sum(len(method.amount.discounts) for method in told.consultation.methods if method.amount is not None)


# Callers who go away


async def test_consultations_whose_caller_has_gone_leave_nothing_behind() -> None:
    async with sandbox(200) as upstream, engine(upstream) as cashier:
        await several(cashier, 20, at_once=20)
        tasks, opened = len(asyncio.all_tasks()), len(upstream.peers)
        for _ in range(5):
            going = [asyncio.create_task(consult(cashier)) for _ in range(20)]
            await asyncio.sleep(0.01)
            for each in going:
                each.cancel()
            gone = await asyncio.gather(*going, return_exceptions=True)
            assert all(isinstance(each, asyncio.CancelledError) for each in gone)
            assert not idle(cashier)  # so that there was something to leave behind
            await ended(cashier)
        new = len(upstream.peers) - opened
        assert new <= len(SOURCE_NAMES)
        assert len(asyncio.all_tasks()) <= tasks + new  # the sandbox has one for each connection
        assert all(
            told.status(name) is SourceStatus.FRESH for told in await several(cashier, 5) for name in SOURCE_NAMES
        )
