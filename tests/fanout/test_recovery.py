"""Loops that can feed themselves: pushed over, they are healthy ten seconds after the cause.

The upstream serves what has arrived although its caller has left, and callers that fail come again.
So trouble keeps itself alive unless a mechanism ends it. What is healthy: `is_healthy`.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from functools import partial
from random import Random
from statistics import median
from typing import Any

import pytest

from cashier.fanout.ask import AskCall, Importance, Known, OnOutcome
from cashier.fanout.cache import Cache
from cashier.fanout.cache_lifetime import CacheSettings
from cashier.fanout.guard import Guard
from cashier.fanout.guarded_source import Mechanisms
from cashier.fanout.load_shedding import DegradationLadder
from cashier.fanout.retry_budget import LEAST_PER_S, RetryBudget
from cashier.fanout.s3fifo import S3FifoStore
from cashier.fanout.timeline import CallKind
from cashier.source_errors import SourceError, Unanswered, Unreachable
from cashier.sources.idempotent_retry import RetrySettings, further_attempts, retry_until_answered
from tests.fanout.queueing_upstream import AGAIN_S, AGAIN_TIMES, Crowd, Health, QueueingUpstream
from tests.fanout.simulated_event_loop import SimulatedEventLoop
from tests.support.virtual_time import clock_ns

pytestmark = pytest.mark.virtual_time

WAITS_MS = 100
WITHIN_S = 10
USUAL_S = 4
TROUBLE_S = 4

Trouble = Callable[[QueueingUpstream], None]


def fails(upstream: QueueingUpstream) -> None:
    upstream.failure = Unreachable("reset")


def is_slow(upstream: QueueingUpstream) -> None:
    upstream.slowness = 3


def loses_all_connections(upstream: QueueingUpstream) -> None:
    upstream.drop_connections()
    upstream.refuses = True


def works(upstream: QueueingUpstream) -> None:
    upstream.failure, upstream.slowness, upstream.refuses = None, 1.0, False


def source(upstream: QueueingUpstream) -> Guard:
    return Guard(
        "source",
        upstream,
        WAITS_MS,
        Mechanisms(),
        DegradationLadder(),
        Importance.GATING,
        clock_ns=clock_ns,
        random=Random(1),
    )


async def pushed_over(
    crowd: Crowd, cause: Callable[[], None], end_of_cause: Callable[[], None]
) -> tuple[Health, Health]:
    """The usual health, and that of the last of ten seconds after the cause, which must be felt."""
    usual = await crowd.come(USUAL_S)
    assert usual.goodput > 0.99, usual
    cause()
    in_trouble = await crowd.come(TROUBLE_S)
    assert in_trouble.goodput < 0.9, in_trouble
    end_of_cause()
    return usual, await crowd.come(WITHIN_S)


def is_healthy(usual: Health, now: Health) -> bool:
    return now.goodput > 0.99 and now.p50_ms < max(1.0, 1.5 * usual.p50_ms)


def assert_budget_kept(guard: Guard, upstream: QueueingUpstream) -> None:
    """Of any ten seconds, so of all: see `RetryBudget`."""
    counts = guard.counts
    extra = counts.hedges.value + counts.retries.value
    windows = -(-(USUAL_S + TROUBLE_S + WITHIN_S) // 10)
    assert upstream.calls == counts.first_calls.value + extra
    share = counts.first_calls.value * guard.mechanisms.extra_bps / 10_000
    assert extra <= share + windows * 10 * LEAST_PER_S


@pytest.mark.parametrize("places", [1, 2])
@pytest.mark.parametrize("trouble", [fails, is_slow, loses_all_connections])
async def test_a_source_is_healthy_again_after_its_trouble(trouble: Trouble, places: int) -> None:
    """Retries, hedges, limits and breakers, with four times the load of callers that come again."""
    upstream = QueueingUpstream(servers=3, service_ms=10, places=places)
    guard = source(upstream)
    crowd = Crowd(guard.start, 200, WAITS_MS)
    usual, now = await pushed_over(crowd, partial(trouble, upstream), partial(works, upstream))
    assert is_healthy(usual, now), (usual, now)
    assert_budget_kept(guard, upstream)
    guard.close()


async def test_a_cache_that_is_emptied_under_load_fills_again() -> None:
    """All of 400 answers are dropped, as after a gap of invalidations, while the source is slow."""
    upstream = QueueingUpstream(servers=3, service_ms=10)
    guard = source(upstream)
    cache = Cache(
        guard,
        lambda known: known["key"],
        CacheSettings(30, 60, 600, 2),
        S3FifoStore(1_000),
        clock_ns=clock_ns,
        random=Random(1),
    )
    crowd = Crowd(cache.start, 400, WAITS_MS, key_of=lambda number: f"u_{number * 7 % 400}")

    def cause() -> None:
        is_slow(upstream)
        cache.drop()

    usual, now = await pushed_over(crowd, cause, partial(works, upstream))
    assert is_healthy(usual, now), (usual, now)
    assert_budget_kept(guard, upstream)
    guard.close()


def test_shedding_ends_although_refused_callers_come_again() -> None:
    """The loop can answer 1,250 callers a second; a peak brings twice that for three seconds."""
    refused: Counter[int] = Counter()  # by tenth of a second, of those that will come again

    def per_s(now_ms: float) -> float:
        peak = 2_500.0 if 2_000 <= now_ms < 5_000 else 800.0
        again = refused[int(now_ms / 100 - 10 * AGAIN_S)] * AGAIN_TIMES / (AGAIN_TIMES + 1) * 10
        return min(5_000.0, peak + again)

    seen = 0
    loop = SimulatedEventLoop(DegradationLadder(), per_s, seed=1)
    for until_ms in range(100, 16_000, 100):
        loop.run(until_ms)
        refused.update(int(each.at_ms / 100) for each in loop.called[seen:] if not each.admitted)
        seen = len(loop.called)
    in_trouble = loop.between(4_000, 5_000)
    assert sum(not each.admitted for each in in_trouble) > 0.3 * len(in_trouble)
    usual, now = loop.between(1_000, 2_000), loop.between(14_000, 16_000)
    assert all(each.admitted for each in now)
    assert median(each.waited_ms for each in now) < 1.5 * median(each.waited_ms for each in usual)


async def looked_up(
    upstream: QueueingUpstream, further: RetryBudget | None, known: Known, budget_ms: int, done: OnOutcome
) -> None:
    async def attempt(left_ms: int, _: CallKind) -> str | Unanswered:
        answered: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        call = upstream.call(known, None, left_ms, lambda outcome, *_: answered.set_result(outcome))
        try:
            async with asyncio.timeout(left_ms / 1_000):
                outcome = await answered
        except TimeoutError:
            return Unanswered(Unreachable("silent"))
        finally:
            call.abandon()
        return Unanswered(outcome) if isinstance(outcome, SourceError) else outcome

    outcome = await retry_until_answered(attempt, budget_ms, RetrySettings(), further)
    done(outcome.error if isinstance(outcome, Unanswered) else outcome)


class LookUp(AskCall):
    def __init__(self, task: asyncio.Task[None]) -> None:
        self.task = task

    def abandon(self) -> None:
        self.task.cancel()


@pytest.mark.parametrize("budgeted", [True, False])
async def test_look_ups_of_payments_do_not_keep_an_engine_overloaded(budgeted: bool) -> None:
    """Without a budget, three attempts of each would: the load is half of its capacity."""
    engine, further = QueueingUpstream(servers=6, service_ms=30), further_attempts() if budgeted else None
    tasks: set[asyncio.Task[None]] = set()

    def look(known: Known, call_headers: Any, budget_ms: int, done: OnOutcome) -> AskCall:
        task = asyncio.get_running_loop().create_task(looked_up(engine, further, known, budget_ms, done))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        return LookUp(task)

    crowd = Crowd(look, 100, 2_000, again=0)

    def cause() -> None:
        engine.slowness = 10

    usual, now = await pushed_over(crowd, cause, partial(works, engine))
    assert is_healthy(usual, now) is budgeted, (usual, now)
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)
