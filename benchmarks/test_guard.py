"""Cost of one source's mechanisms: a cache hit, and a guarded live call beyond an unguarded one.

The upstream answers in the next turn of the loop and takes no time of its own. On uvloop; each
round makes a thousand calls. Read `min` and divide. Budgets: 1 µs for a hit, and 8 µs for the guard
(`guarded` less `unguarded`). `missed` also has the cache in front, with a new key each time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import pytest
import uvloop
from pytest_benchmark.fixture import BenchmarkFixture

from cashier.fanout.ask import AskCall, Importance, Known, SourceStatus, Start
from cashier.fanout.cache import Cache
from cashier.fanout.cache_lifetime import CacheSettings
from cashier.fanout.guard import Guard
from cashier.fanout.guarded_source import Mechanisms
from cashier.fanout.load_shedding import DegradationLadder
from cashier.fanout.s3fifo import S3FifoStore
from cashier.fanout.upstream_protocol import OnAnswer, UpstreamCall
from tests.support.unguarded import unguarded

CALLS = 1_000
# Calls in flight, as with a consultation and its neighbours.
AT_ONCE = 10
ANSWER = {"cards": ["c_1", "c_2"]}
KNOWN: Known = {"user_id": "u_1"}


class Call:
    """A call in flight. It ends with the next turn of the loop."""

    __slots__ = ("work",)
    address_index = 0

    def __init__(self, work: asyncio.Handle) -> None:
        self.work = work

    def abandon(self) -> None:
        self.work.cancel()


class NextTurnUpstream:
    """An upstream with one address."""

    addresses = ("here",)

    def call(
        self, known: Known, call_headers: Any, budget_ms: int, on_answer: OnAnswer, avoid: int = 0
    ) -> UpstreamCall:
        return Call(asyncio.get_running_loop().call_soon(on_answer, ANSWER))

    def parse_stored(self, not_found: bool, body: bytes, known: Known) -> Any:
        return ANSWER


class CallChain:
    """Makes a number of calls, some at once, and waits for all of them."""

    def __init__(self, start: Start, known: Callable[[], Known]) -> None:
        self._start = start
        self._known = known
        self._finished: asyncio.Future[None] | None = None
        self._left = self._pending = 0

    async def run(self, times: int) -> None:
        self._finished = asyncio.get_running_loop().create_future()
        self._left = self._pending = times
        for _ in range(AT_ONCE):
            self._next()
        await self._finished

    def _next(self) -> None:
        if self._left:
            self._left -= 1
            self._start(self._known(), None, 100, self.done)

    def done(self, outcome: Any, status: SourceStatus = SourceStatus.FRESH, age_ms: int = 0) -> None:
        assert outcome is ANSWER
        self._pending -= 1
        if self._pending:
            self._next()
        elif self._finished is not None:
            self._finished.set_result(None)


def guard() -> Guard:
    return Guard("card", NextTurnUpstream(), 100, Mechanisms(), DegradationLadder(), Importance.GATING)


def cache() -> Cache:
    return Cache(guard(), lambda known: known["user_id"], CacheSettings(fresh_s=3_600), S3FifoStore(100_000))


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = uvloop.new_event_loop()
    yield loop
    loop.close()


@pytest.mark.parametrize("kind", ["unguarded", "guarded", "missed"])
def test_a_live_call(benchmark: BenchmarkFixture, loop: asyncio.AbstractEventLoop, kind: str) -> None:
    users = count()
    known: Callable[[], Known] = lambda: KNOWN  # noqa: E731 - side by side with the other one
    if kind == "unguarded":
        start = unguarded(NextTurnUpstream())
    elif kind == "guarded":
        start = guard().start
    else:
        start = cache().start
        known = lambda: {"user_id": next(users)}  # noqa: E731
    chain = CallChain(start, known)
    benchmark.extra_info["calls_per_round"] = CALLS
    benchmark.pedantic(  # type: ignore[no-untyped-call] # pytest-benchmark has no types
        lambda: loop.run_until_complete(chain.run(CALLS)), rounds=60, warmup_rounds=5
    )


def test_a_cache_hit(benchmark: BenchmarkFixture, loop: asyncio.AbstractEventLoop) -> None:
    hit_cache = cache()
    hits = 0

    def done(outcome: Any, status: SourceStatus = SourceStatus.FRESH, age_ms: int = 0) -> None:
        nonlocal hits
        hits += status is SourceStatus.CACHED

    async def ask() -> AskCall | None:
        return hit_cache.start(KNOWN, None, 100, done)

    def hit_often() -> None:
        start = hit_cache.start
        for _ in range(CALLS):
            start(KNOWN, None, 100, done)

    loop.run_until_complete(ask())
    loop.run_until_complete(asyncio.sleep(0.01))
    benchmark.extra_info["calls_per_round"] = CALLS
    benchmark.pedantic(hit_often, rounds=100, warmup_rounds=5)  # type: ignore[no-untyped-call] # as above
    assert hits
    assert hits % CALLS == 0
