"""The cache: ages of answers, shared fetches, and no return of older or invalidated answers."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from cashier.fanout.ask import SourceStatus
from cashier.fanout.cache_lifetime import CacheSettings
from cashier.fanout.guarded_source import Mechanisms
from cashier.source_errors import BreakerOpen, Unreachable
from tests.fanout.cache_rig import REFUSES, SILENT, Rig, numbered
from tests.fanout.scripted_upstream import Asker, Reply, ScriptedCall, pass_ms
from tests.support.virtual_time import clock_ns, run_in_virtual_time

pytestmark = pytest.mark.virtual_time

# Ages of answers


async def test_a_fresh_answer_is_served_at_once_without_a_call() -> None:
    rig = Rig()
    assert await rig.answer() == ("u_1 #1", SourceStatus.FRESH, 0)
    await pass_ms(3_000)
    asker = rig.ask()
    assert (asker.outcome, asker.status, asker.age_ms) == ("u_1 #1", SourceStatus.CACHED, 3_100)
    assert asker.call is None
    assert (rig.calls, rig.cache.hits.value, rig.cache.misses.value) == (1, 1, 1)


async def test_a_stale_answer_is_served_at_once_and_refreshed_once_in_the_background() -> None:
    rig = Rig()
    await rig.answer()
    await pass_ms(20_000)
    askers = [rig.ask() for _ in range(5)]
    assert {(asker.outcome, asker.status, asker.age_ms) for asker in askers} == {("u_1 #1", SourceStatus.STALE, 20_100)}
    assert (rig.calls, rig.cache.served_stale.value) == (2, 5)
    await pass_ms(20)
    assert (await rig.answer())[:2] == ("u_1 #2", SourceStatus.CACHED)
    assert rig.calls == 2


async def test_an_older_answer_is_the_fallback_if_no_new_one_can_be_had() -> None:
    rig = Rig()
    known = {"key": "u_1"}
    assert rig.cache.fallback(known) is None
    await rig.answer()
    await pass_ms(61_000)
    rig.upstream.set_script(REFUSES)
    assert isinstance((await rig.answer())[0], Unreachable)
    assert rig.cache.fallback(known) == ("u_1 #1", 61_200)
    await pass_ms(540_000)
    assert rig.cache.fallback(known) is None


async def test_not_found_is_cached_for_its_own_time() -> None:
    rig = Rig(Reply(10, None, not_found=True))
    assert await rig.answer() == (None, SourceStatus.FRESH, 0)
    await pass_ms(1_800)
    assert (await rig.answer())[1] is SourceStatus.CACHED
    await pass_ms(200)
    assert (await rig.answer())[1] is SourceStatus.FRESH
    assert rig.calls == 2


async def test_an_answer_that_took_long_is_refreshed_early() -> None:
    early = 0
    for seed in range(30):
        rig = Rig(numbered(90), policy=CacheSettings(1))
        rig.cache._random = Random(seed)
        await rig.answer()
        while rig.calls == 1:
            asker = rig.ask()
            early += rig.calls == 2 and asker.status is SourceStatus.CACHED
            await pass_ms(10)
    assert early > 20


async def test_an_answer_that_is_too_old_on_arrival_evicts_the_older_one() -> None:
    rig = Rig(numbered(90), policy=CacheSettings(0.05))
    assert (await rig.answer())[0] == "u_1 #1"
    assert len(rig.cache) == len(rig.store) == 0
    rig.cache.settings = CacheSettings(0.5, 600)
    await rig.answer()
    rig.cache.settings = CacheSettings(0.05)
    await pass_ms(1_000)
    assert (await rig.answer())[1] is SourceStatus.STALE
    await pass_ms(100)
    assert len(rig.cache) == len(rig.store) == 0


async def test_failures_are_not_cached() -> None:
    rig = Rig(REFUSES)
    for _ in range(2):
        assert isinstance((await rig.answer())[0], Unreachable)
    assert (rig.calls, len(rig.cache), len(rig.store)) == (2, 0, 0)


async def test_under_load_a_fallback_is_served_without_a_call() -> None:
    rig = Rig()
    await rig.answer()
    rig.ladder.serve_stale = True
    await pass_ms(300_000)
    asker = rig.ask()
    assert (asker.outcome, asker.status, rig.calls) == ("u_1 #1", SourceStatus.STALE, 1)
    await pass_ms(300_000)
    assert (await rig.answer())[:2] == ("u_1 #2", SourceStatus.FRESH)


async def test_an_evicted_answer_is_fetched_again() -> None:
    rig = Rig(capacity=3)
    for index in range(10):
        await rig.answer(f"u_{index}")
    assert len(rig.cache) == len(rig.store) == 3
    assert (await rig.answer("u_0"))[:2] == ("u_0 #2", SourceStatus.FRESH)


# Shared fetches


async def test_a_thousand_asks_for_a_cold_key_make_one_call() -> None:
    rig = Rig()
    askers = [rig.ask() for _ in range(1_000)]
    await pass_ms(4)
    askers.append(rig.ask())
    await pass_ms(10)
    assert {asker.outcome for asker in askers} == {"u_1 #1"}
    assert rig.calls == 1
    assert (askers[0].age_ms, askers[-1].age_ms) == (0, 4)
    assert (rig.cache.misses.value, rig.cache.joined.value) == (1, 1_000)


@given(st.lists(st.integers(0, 20), min_size=1, max_size=60), st.data())
def test_abandoning_a_waiter_does_not_disturb_the_others(leave_after_ms: list[int], data: st.DataObject) -> None:
    stays = data.draw(st.integers(0, len(leave_after_ms) - 1))

    async def main() -> None:
        rig = Rig(numbered(10))
        loop = asyncio.get_running_loop()
        askers = [rig.ask() for _ in leave_after_ms]
        for index, (asker, after_ms) in enumerate(zip(askers, leave_after_ms, strict=True)):
            if index != stays:
                loop.call_later(after_ms / 1000, asker.leave)
        await pass_ms(30)
        assert askers[stays].outcome == "u_1 #1"
        assert all(asker.answered or asker.left for asker in askers)
        assert rig.calls == 1
        assert rig.upstream.abandoned == []

    run_in_virtual_time(main())


async def test_the_answer_of_an_abandoned_fetch_is_cached() -> None:
    rig = Rig(numbered(50))
    askers = [rig.ask(waits_ms=20) for _ in range(3)]
    await pass_ms(60)
    assert all(asker.left for asker in askers)
    assert (await rig.answer())[:2] == ("u_1 #1", SourceStatus.CACHED)
    assert rig.guard.counts.late_answers.value == 1


async def test_an_ask_does_not_join_an_abandoned_fetch_and_the_younger_answer_stays() -> None:
    rig = Rig(numbered(90))
    rig.ask(waits_ms=20)
    await pass_ms(30)
    rig.upstream.set_script(Reply(5, "younger"))
    assert (await rig.answer())[0] == "younger"
    await pass_ms(100)
    assert rig.upstream.in_flight == []
    assert (await rig.answer())[0] == "younger"


async def test_a_fetch_older_than_its_timeout_is_not_joined() -> None:
    """A hot key always has a waiter: one hanging call must not delay all later asks."""
    rig = Rig(SILENT)
    for _ in range(20):
        rig.ask()
        await pass_ms(5)
    rig.upstream.set_script(Reply(5, "well"))
    late_comer = rig.ask()
    await pass_ms(10)
    assert late_comer.outcome == "well"
    assert rig.calls == 2


async def test_a_hanging_refresh_is_not_joined_for_ever() -> None:
    rig = Rig()
    await rig.answer()
    await pass_ms(59_800)
    rig.upstream.set_script(SILENT)
    assert rig.ask().status is SourceStatus.STALE
    rig.upstream.set_script(Reply(5, "well"))
    await pass_ms(150)
    assert (await rig.answer())[0] == "well"


async def test_a_fetch_whose_call_could_not_be_made_is_not_joined() -> None:
    def broken(call: ScriptedCall) -> Reply:
        raise KeyError("user_id")

    rig = Rig(broken)
    for _ in range(2):
        with pytest.raises(KeyError):
            rig.cache.start({"key": "u_1"}, "headers", 100, lambda *_: None)
    rig.upstream.set_script(Reply(5, "well"))
    assert (await rig.answer())[0] == "well"


async def test_a_refusal_of_the_guard_reaches_all_waiters_at_once() -> None:
    rig = Rig(mechanisms=Mechanisms())
    breaker = rig.guard.endpoints[0].breaker
    while breaker.closed:
        breaker.record_failure(clock_ns(), clock_ns())
    assert [rig.ask().error_type for _ in range(2)] == [BreakerOpen] * 2
    assert "0 answers, 0 fetches" in repr(rig.cache)


async def test_the_callback_of_one_waiter_may_abandon_another() -> None:
    rig = Rig()
    second: list[Asker] = []
    first = Asker()

    def done(outcome: Any, status: SourceStatus = SourceStatus.FRESH, age_ms: int = 0) -> None:
        first.done(outcome, status, age_ms)
        second[0].leave()

    rig.cache.start({"key": "u_1"}, "headers", 100, done)
    second.append(rig.ask())
    third = rig.ask()
    await pass_ms(20)
    assert (first.answered, second[0].left, third.answered) == (True, True, True)
