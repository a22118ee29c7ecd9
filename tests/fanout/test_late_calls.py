"""Late and slow calls: their effect on the statistics, and balanced counts."""

from __future__ import annotations

import asyncio
import gc
import weakref
from random import Random
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from cashier.fanout.guard import Guard
from cashier.fanout.guarded_source import Mechanisms
from cashier.fanout.hedge import HedgeSettings
from cashier.fanout.hedged_call import MAX_LATE_CALLS, HedgedFetch
from cashier.fanout.limiter import LimiterSettings
from cashier.source_errors import Garbled, Overloaded, Unreachable
from tests.fanout.scripted_upstream import (
    Asker,
    Reply,
    ScriptedCall,
    ScriptedUpstream,
    ask,
    assert_consistent,
    assert_nothing_left,
    first_then,
    guarded,
    pass_ms,
    set_hedge_delay,
)
from tests.support.virtual_time import MS_NS, clock_ns, run_in_virtual_time, timers_set

pytestmark = pytest.mark.virtual_time

SILENT = Reply(None)
WIDE = LimiterSettings(start=1_000, most=1_000)


class Marker:
    """A value that only the request refers to."""


async def test_an_abandoned_call_runs_on_and_trains_the_histogram() -> None:
    upstream = ScriptedUpstream(Reply(120))
    guard = guarded(upstream)
    asker = ask(guard.start, waits_ms=50)
    await pass_ms(60)
    assert asker.left
    assert guard.late_calls == 1
    await pass_ms(70)
    assert upstream.abandoned == []
    assert (guard.late_calls, guard.counts.late_calls.value, guard.counts.late_answers.value) == (0, 1, 0)
    assert repr(guard.latencies) == "<LatencyHistogram of 1 calls>"
    await pass_ms(100)
    assert timers_set() == []


def call_with_late_delivery(guard: Guard, waits_ms: int = 50) -> tuple[list[Any], HedgedFetch]:
    """A call that delivers late, abandoned after `waits_ms`. Returns its outcomes and the call."""
    outcomes: list[Any] = []
    call = guard.call(
        HedgedFetch,
        {},
        "headers",
        100,
        waits_ms,
        lambda outcome, not_found=False, body=None: outcomes.append((outcome, not_found, body)),
    )
    assert isinstance(call, HedgedFetch)
    asyncio.get_running_loop().call_later(waits_ms / 1000, call.abandon)
    return outcomes, call


@pytest.mark.parametrize("reply", [Reply(60), Reply(30, Unreachable(""))], ids=["slow", "failing"])
async def test_a_call_without_a_waiter_gets_no_second_attempt(reply: Reply) -> None:
    upstream = ScriptedUpstream(reply)
    guard = guarded(upstream)
    set_hedge_delay(guard)
    call_with_late_delivery(guard, waits_ms=10)
    await pass_ms(100)
    assert len(upstream.calls) == 1


@pytest.mark.moves("cashier_late_answers_total")
@pytest.mark.parametrize("outcome", ["an answer", Garbled("")])
async def test_a_late_answer_is_delivered_once_on_request(outcome: Any) -> None:
    guard = guarded(ScriptedUpstream(Reply(120, outcome, not_found=True, body=b"a body")))
    outcomes, call = call_with_late_delivery(guard)
    await pass_ms(300)
    call.abandon()
    assert outcomes == [(outcome, True, b"a body")] if outcome == "an answer" else outcomes == [(outcome, False, None)]
    assert guard.counts.late_answers.value == (outcome == "an answer")
    assert guard.late_calls == 0


async def test_a_late_call_without_an_answer_is_cancelled_at_twice_the_ceiling_and_delivers_an_error() -> None:
    upstream = ScriptedUpstream(SILENT)
    guard = guarded(upstream)
    outcomes, _ = call_with_late_delivery(guard)
    await pass_ms(199)
    assert upstream.abandoned == outcomes == []
    await pass_ms(3)
    [(outcome, _, _)] = outcomes
    assert isinstance(outcome, Unreachable)
    assert upstream.in_flight == []
    assert_nothing_left(guard, upstream)


async def test_an_awaited_call_lasts_as_long_as_its_caller_waits() -> None:
    """A payment waits longer than a consultation: `check_ms` may be many times the ceiling."""
    upstream = ScriptedUpstream(Reply(700))
    guard = guarded(upstream)
    asker = ask(guard.start, waits_ms=1_000)
    await pass_ms(690)
    assert asker.error_type is None
    assert upstream.abandoned == []
    await pass_ms(20)
    assert asker.answered_ns is not None
    assert asker.error_type is None
    assert_nothing_left(guard, upstream)


@pytest.mark.parametrize("waits_ms", [250, 1_000])
async def test_a_call_whose_caller_leaves_after_twice_the_ceiling_ends_at_once(waits_ms: int) -> None:
    upstream = ScriptedUpstream(SILENT)
    guard = guarded(upstream)
    asker = ask(guard.start, waits_ms=waits_ms)
    await pass_ms(waits_ms - 5)
    assert not asker.left
    assert upstream.abandoned == []
    await pass_ms(10)
    assert len(upstream.abandoned) == 1
    assert_nothing_left(guard, upstream)


async def test_beyond_the_bound_of_late_calls_the_next_is_cancelled_at_once() -> None:
    upstream = ScriptedUpstream(SILENT)
    guard = guarded(upstream, Mechanisms(breaker=None, limiter=None))
    for _ in range(MAX_LATE_CALLS + 3):
        ask(guard.start, waits_ms=100)
    await pass_ms(101)
    assert guard.late_calls == MAX_LATE_CALLS
    assert len(upstream.abandoned) == 3
    assert_consistent(guard, upstream)
    await pass_ms(105)
    assert_nothing_left(guard, upstream)


async def test_the_slower_attempt_of_a_hedged_call_becomes_a_late_call() -> None:
    upstream = ScriptedUpstream(first_then(SILENT, Reply(5)))
    guard = guarded(upstream, Mechanisms(breaker=None))
    guard.retry_budget.first_calls = 10_000
    set_hedge_delay(guard)
    askers = [ask(guard.start) for _ in range(1)]
    await pass_ms(30)
    assert all(asker.answered for asker in askers)
    assert guard.late_calls == 1
    await pass_ms(180)
    assert_nothing_left(guard, upstream)


@pytest.mark.parametrize("runs_on", [True, False])
async def test_calls_to_a_hanging_source_count_as_failures_with_or_without_late_calls(runs_on: bool) -> None:
    """This includes calls that are cancelled at once: they have no outcome later."""
    guard = guarded(ScriptedUpstream(SILENT), Mechanisms(late=runs_on, limiter=WIDE))
    for _ in range(60):
        ask(guard.start)
    await pass_ms(110)
    assert not guard.endpoints[0].breaker.closed
    assert guard.endpoints[0].limiter.limit == 900


async def test_calls_to_a_hanging_source_count_as_failures_even_with_a_shorter_timeout() -> None:
    guard = guarded(ScriptedUpstream(SILENT), Mechanisms(late=False, limiter=WIDE))
    guard.adaptive_timeout.timeout_ms = 30
    for _ in range(60):
        ask(guard.start, waits_ms=30)
    await pass_ms(40)
    assert not guard.endpoints[0].breaker.closed


async def test_a_failed_attempt_does_not_count_as_slow_during_its_retry() -> None:
    guard = guarded(ScriptedUpstream(first_then(Reply(1, Unreachable("")), SILENT), places=2))
    ask(guard.start)
    await pass_ms(150)
    assert sorted(endpoint.breaker.failures for endpoint in guard.endpoints) == [0, 1]


async def test_abandoning_early_is_no_failure_of_the_source() -> None:
    guard = guarded(ScriptedUpstream(SILENT), Mechanisms(late=False))
    for _ in range(60):
        ask(guard.start, waits_ms=20)
    await pass_ms(110)
    assert guard.endpoints[0].breaker.failures == 0
    assert guard.endpoints[0].limiter.limit == LimiterSettings().start


async def test_a_slow_call_that_then_fails_is_one_failure() -> None:
    guard = guarded(ScriptedUpstream(Reply(150, Unreachable(""))))
    ask(guard.start)
    await pass_ms(160)
    assert guard.endpoints[0].breaker.failures == 1


async def test_a_slow_call_that_is_then_answered_is_one_failure_and_no_success() -> None:
    guard = guarded(ScriptedUpstream(Reply(150)))
    ask(guard.start)
    await pass_ms(160)
    assert (guard.endpoints[0].breaker.failures, guard.endpoints[0].breaker.successes) == (1, 0)


async def test_a_slow_replica_that_then_times_out_is_overload() -> None:
    guard = guarded(ScriptedUpstream(SILENT, places=2))
    for endpoint in guard.endpoints:
        endpoint.latency_ns = MS_NS
    guard.learn(clock_ns())
    ask(guard.start)
    await pass_ms(50)
    slow = next(endpoint for endpoint in guard.endpoints if endpoint.in_flight)
    assert (slow.breaker.failures, slow.limiter.limit) == (1, LimiterSettings().start)
    await pass_ms(55)
    assert (slow.breaker.failures, slow.limiter.limit) == (1, LimiterSettings().start * 9 // 10)


async def test_a_call_is_charged_to_its_final_address() -> None:
    upstream = ScriptedUpstream(Reply(30), places=2)
    guard = guarded(upstream)
    ask(guard.start)
    [call] = upstream.calls
    first, call.address_index = call.address_index, 1 - call.address_index
    await pass_ms(40)
    assert [endpoint.in_flight for endpoint in guard.endpoints] == [0, 0]
    assert (guard.endpoints[first].breaker.successes, guard.endpoints[1 - first].breaker.successes) == (0, 1)


async def test_a_hedge_avoids_the_final_address_of_its_call() -> None:
    upstream = ScriptedUpstream(first_then(Reply(60), Reply(5)), places=2)
    guard = guarded(upstream)
    set_hedge_delay(guard)
    ask(guard.start)
    [call] = upstream.calls
    call.address_index = 1 - call.address_index
    await pass_ms(22)
    assert upstream.calls[1].address_index != call.address_index
    assert_consistent(guard, upstream)
    await pass_ms(50)
    assert_consistent(guard, upstream)


async def test_a_bug_in_one_call_does_not_stop_the_timers_of_the_others() -> None:
    upstream = ScriptedUpstream(SILENT)
    guard = guarded(upstream)
    bugs: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: bugs.append(context["exception"]))
    set_hedge_delay(guard)
    ask(guard.start)
    await pass_ms(5)

    def broken(call: ScriptedCall) -> Reply:
        raise KeyError("user_id")

    upstream.set_script(broken)
    await pass_ms(20)
    assert [type(bug) for bug in bugs] == [KeyError]
    assert_consistent(guard, upstream)
    await pass_ms(200)
    assert_nothing_left(guard, upstream)


@pytest.mark.parametrize("mode", ["answered", "hedged", "both fail", "late", "cut"])
def test_an_ended_call_leaves_no_reference_cycle(mode: str) -> None:
    async def main() -> None:
        reply = {"both fail": Reply(30, Garbled("")), "late": Reply(120), "cut": SILENT, "hedged": Reply(50)}.get(
            mode, Reply(1)
        )
        upstream = ScriptedUpstream(reply)
        guard = guarded(upstream)
        set_hedge_delay(guard)
        question = {"about": Marker()}
        held = weakref.ref(question["about"])
        ask(guard.start, question)
        del question
        await pass_ms(250)
        upstream.calls.clear()  # the script refers to them
        assert held() is None

    gc.collect()
    gc.disable()
    try:
        run_in_virtual_time(main())
    finally:
        gc.enable()


CALLS = st.lists(
    st.tuples(
        st.integers(0, 30),  # ms after the previous one
        st.sampled_from([1, 5, 20, 60, 99, 130, 190, 250, None]),
        st.sampled_from(["an answer", Unreachable(""), Overloaded(""), Garbled("")]),
        st.integers(1, 120),  # ms that the ask waits
    ),
    min_size=1,
    max_size=60,
)


@given(CALLS, st.integers(1, 3), st.booleans(), st.booleans(), st.integers(0, 1 << 32))
def test_every_waiter_gets_one_outcome_and_all_counts_return_to_zero(
    calls: list[tuple[int, int | None, Any, int]], places: int, late: bool, coarse: bool, seed: int
) -> None:
    random = Random(seed)

    def script(call: ScriptedCall) -> Reply:
        if random.random() < 0.5:
            call.address_index = random.randrange(places)
        _, after_ms, outcome, _ = random.choice(calls)
        return Reply(after_ms, outcome)

    async def main() -> None:
        upstream = ScriptedUpstream(script, places)
        guard = guarded(upstream, Mechanisms(late=late, hedge=HedgeSettings(), limiter=LimiterSettings(start=10)))
        askers: list[tuple[Asker, int]] = []
        outcomes_by_call: list[list[Any]] = []
        for pause_ms, _, _, waits_ms in calls:
            await pass_ms(pause_ms)
            set_hedge_delay(guard, random.choice([5, 20, 50]))
            if random.random() < 0.7:
                askers.append((ask(guard.start, waits_ms=waits_ms), waits_ms))
            elif any(
                endpoint.breaker.closed and endpoint.in_flight < endpoint.limiter.limit for endpoint in guard.endpoints
            ):
                outcomes, _ = call_with_late_delivery(guard, waits_ms)
                outcomes_by_call.append(outcomes)
            assert guard.late_calls <= MAX_LATE_CALLS
            assert sum(endpoint.in_flight for endpoint in guard.endpoints) == len(upstream.in_flight)
        await pass_ms(250)
        assert all(asker.answered or asker.left for asker, _ in askers)
        assert all(asker.took_ms <= waits_ms + 1 for asker, waits_ms in askers if asker.answered)
        assert [len(outcomes) for outcomes in outcomes_by_call] == [1] * len(outcomes_by_call)
        assert_nothing_left(guard, upstream)

    run_in_virtual_time(main(), coarse=coarse)
