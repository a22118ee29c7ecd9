"""What a source's mechanisms cost: an answer from the cache, and a live call that is guarded, beyond one that is not.

The upstream answers with the next turn of the loop and takes no time of its own. On uvloop; each round makes a thousand calls. Read `min`
and divide: budgets are 1 µs for a hit, and 8 µs for what the guard adds to a call (`guarded` less `unguarded`). `missed` has the cache in
front of it as well, with a question that it has not been asked before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import pytest
import uvloop
from pytest_benchmark.fixture import BenchmarkFixture

from cashier.fanout.ask import Importance, Known, PendingCall, SourceStatus, Start
from cashier.fanout.cache import Cache
from cashier.fanout.guard import Guard, Mechanisms
from cashier.fanout.load_shedding import DegradationLadder
from cashier.fanout.s3fifo import S3FifoStore
from cashier.fanout.ttl import CacheSettings
from cashier.fanout.upstream import OnAnswer, UpstreamCall, unguarded

CALLS = 1_000
# As many under way at once, as a consultation and its neighbours have.
AT_ONCE = 10
ANSWER = {"cards": ["c_1", "c_2"]}
NOBODY: Known = {"user_id": "u_1"}


class Call:
    """A call under way: it ends with the next turn of the loop."""

    __slots__ = ("work",)
    address_index = 0

    def __init__(self, work: asyncio.Handle) -> None:
        self.work = work

    def abandon(self) -> None:
        self.work.cancel()


class AtOnce:
    """An upstream of one place."""

    addresses = ("here",)

    def call(self, known: Known, call_headers: Any, budget_ms: int, on_answer: OnAnswer, avoid: int = 0) -> UpstreamCall:
        return Call(asyncio.get_running_loop().call_soon(on_answer, ANSWER))

    def parse_stored(self, not_found: bool, body: bytes, known: Known) -> Any:
        return ANSWER


class Asker:
    """Asks so often, some questions at once, and tells when all are answered."""

    def __init__(self, start: Start, question: Callable[[], Known]) -> None:
        self._start = start
        self._question = question
        self._ended: asyncio.Future[None] | None = None
        self._left = self._answers_left = 0

    async def ask(self, times: int) -> None:
        self._ended = asyncio.get_running_loop().create_future()
        self._left = self._answers_left = times
        for _ in range(AT_ONCE):
            self._next()
        await self._ended

    def _next(self) -> None:
        if self._left:
            self._left -= 1
            self._start(self._question(), None, 100, self.done)

    def done(self, outcome: Any, status: SourceStatus = SourceStatus.FRESH, age_ms: int = 0) -> None:
        assert outcome is ANSWER
        self._answers_left -= 1
        if self._answers_left:
            self._next()
        elif self._ended is not None:
            self._ended.set_result(None)


def guard() -> Guard:
    return Guard("card", AtOnce(), 100, Mechanisms(), DegradationLadder(), Importance.GATING)


def cache() -> Cache:
    return Cache(guard(), lambda known: known["user_id"], CacheSettings(fresh_s=3_600), S3FifoStore(100_000))


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = uvloop.new_event_loop()
    yield loop
    loop.close()


@pytest.mark.parametrize("way", ["unguarded", "guarded", "missed"])
def test_a_live_call(benchmark: BenchmarkFixture, loop: asyncio.AbstractEventLoop, way: str) -> None:
    users = count()
    question: Callable[[], Known] = lambda: NOBODY  # noqa: E731 - one of two, side by side
    if way == "unguarded":
        start = unguarded(AtOnce())
    elif way == "guarded":
        start = guard().start
    else:
        start = cache().start
        question = lambda: {"user_id": next(users)}  # noqa: E731
    asker = Asker(start, question)
    benchmark.extra_info["calls_per_round"] = CALLS
    benchmark.pedantic(  # type: ignore[no-untyped-call] # pytest-benchmark leaves it untyped
        lambda: loop.run_until_complete(asker.ask(CALLS)), rounds=60, warmup_rounds=5
    )


def test_a_cache_hit(benchmark: BenchmarkFixture, loop: asyncio.AbstractEventLoop) -> None:
    found = cache()
    hits = 0

    def done(outcome: Any, status: SourceStatus = SourceStatus.FRESH, age_ms: int = 0) -> None:
        nonlocal hits
        hits += status is SourceStatus.CACHED

    async def ask() -> PendingCall | None:
        return found.start(NOBODY, None, 100, done)

    def hit_often() -> None:
        start = found.start
        for _ in range(CALLS):
            start(NOBODY, None, 100, done)

    loop.run_until_complete(ask())
    loop.run_until_complete(asyncio.sleep(0.01))
    benchmark.extra_info["calls_per_round"] = CALLS
    benchmark.pedantic(hit_often, rounds=100, warmup_rounds=5)  # type: ignore[no-untyped-call] # as above
    assert hits
    assert hits % CALLS == 0
