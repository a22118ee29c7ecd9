"""Hedged calls: the winning attempt, delivery of one outcome, retries, and balanced counts."""

from __future__ import annotations

import pytest

from cashier.fanout.guarded_source import Mechanisms
from cashier.fanout.load_shedding import DegradationLadder
from cashier.source_errors import Garbled, Overloaded, SourceError, Unreachable
from tests.fanout.scripted_upstream import (
    Reply,
    ScriptedUpstream,
    ask,
    assert_consistent,
    assert_nothing_left,
    first_then,
    guarded,
    pass_ms,
    set_hedge_delay,
)
from tests.support.virtual_time import clock_ns

pytestmark = pytest.mark.virtual_time

DOWN = Reply(1, Unreachable("refused"))
SILENT = Reply(None)


async def test_the_first_answer_wins_and_the_second_only_trains_the_histogram() -> None:
    upstream = ScriptedUpstream(first_then(Reply(60, "slow"), Reply(5, "fast")))
    guard = guarded(upstream)
    set_hedge_delay(guard)
    asker = ask(guard.start)
    await pass_ms(30)
    assert (asker.outcome, round(asker.took_ms)) == ("fast", 25)
    assert (
        guard.counts.hedges.value,
        guard.counts.hedges_won.value,
        guard.counts.late_calls.value,
        guard.late_calls,
    ) == (
        1,
        1,
        1,
        1,
    )
    assert repr(guard.latencies) == "<LatencyHistogram of 1 calls>"
    await pass_ms(40)
    assert [call.answered for call in upstream.calls] == [True, True], "the slower attempt was cancelled"
    assert repr(guard.latencies) == "<LatencyHistogram of 2 calls>"
    assert (guard.late_calls, guard.counts.late_answers.value) == (0, 0)
    assert_consistent(guard, upstream)
    guard.close()
    assert_nothing_left(guard, upstream)


async def test_the_first_attempt_may_win_over_its_hedge() -> None:
    upstream = ScriptedUpstream(first_then(Reply(22, "first"), Reply(50, "second")))
    guard = guarded(upstream)
    set_hedge_delay(guard)
    asker = ask(guard.start)
    await pass_ms(80)
    assert asker.outcome == "first"
    assert (guard.counts.hedges.value, guard.counts.hedges_won.value) == (1, 0)


async def test_a_hedge_has_the_remaining_budget_and_another_address() -> None:
    upstream = ScriptedUpstream(first_then(Reply(60), Reply(5)), places=3)
    guard = guarded(upstream)
    set_hedge_delay(guard)
    ask(guard.start, waits_ms=90)
    await pass_ms(25)
    first, second = upstream.calls
    assert (first.budget_ms, second.budget_ms) == (90, 70)
    assert second.address_index != first.address_index
    assert second.avoid == 1 << first.address_index


async def test_if_both_attempts_fail_one_error_is_delivered_once() -> None:
    upstream = ScriptedUpstream(first_then(Reply(30, Garbled("first")), Reply(20, Garbled("second"))))
    guard = guarded(upstream)
    set_hedge_delay(guard)
    asker = ask(guard.start)
    await pass_ms(35)
    assert not asker.answered, "the hedge may still answer"
    await pass_ms(10)
    assert asker.outcome.detail == "first"
    assert guard.endpoints[0].breaker.failures == 2
    assert_consistent(guard, upstream)


async def test_a_failed_hedge_leaves_the_first_attempt_its_time() -> None:
    guard = guarded(ScriptedUpstream(first_then(Reply(50, "first"), DOWN)))
    set_hedge_delay(guard)
    asker = ask(guard.start)
    await pass_ms(60)
    assert (asker.outcome, guard.counts.hedges.value, guard.counts.retries.value) == ("first", 1, 0)


async def test_a_fast_failure_is_retried_on_another_address_at_once() -> None:
    upstream = ScriptedUpstream(first_then(DOWN, Reply(5)), places=2)
    guard = guarded(upstream)
    asker = ask(guard.start)
    await pass_ms(10)
    assert round(asker.took_ms) == 6
    assert (guard.counts.retries.value, guard.counts.hedges.value, guard.counts.hedges_won.value) == (1, 0, 0)
    assert [call.address_index for call in upstream.calls] in ([0, 1], [1, 0])


@pytest.mark.parametrize(
    ("error", "places", "again"),
    [
        (Unreachable(""), 1, True),
        (Overloaded(""), 1, False),
        (Garbled(""), 1, False),
        (Unreachable(""), 2, True),
        (Overloaded(""), 2, True),
        (Garbled(""), 2, True),
    ],
)
async def test_a_refused_or_garbled_answer_is_not_retried_on_the_same_address(
    error: SourceError, places: int, again: bool
) -> None:
    upstream = ScriptedUpstream(first_then(Reply(1, error), Reply(1)), places)
    asker = ask(guarded(upstream).start)
    await pass_ms(10)
    assert len(upstream.calls) == 1 + again
    assert asker.error_type is (None if again else type(error))


async def test_there_is_at_most_one_extra_call() -> None:
    upstream = ScriptedUpstream(DOWN, places=3)
    asker = ask(guarded(upstream).start)
    await pass_ms(10)
    assert asker.error_type is Unreachable
    assert len(upstream.calls) == 2


@pytest.mark.parametrize("off", ["retry", "budget", "ladder", "time"])
async def test_a_forbidden_extra_call_fails_no_ask(off: str) -> None:
    upstream = ScriptedUpstream(first_then(Reply(30, Unreachable("")), Reply(1)))
    ladder = DegradationLadder()
    guard = guarded(upstream, Mechanisms(retry=off != "retry"), ladder=ladder)
    if off == "budget":
        while guard.retry_budget.take(clock_ns()):
            pass
    ladder.hedging = off != "ladder"
    asker = ask(guard.start, waits_ms=30 if off == "time" else 100)
    if off == "time" and asker.timer is not None:
        asker.timer.cancel()
    await pass_ms(40)
    assert asker.error_type is Unreachable
    assert len(upstream.calls) == 1
    upstream.set_script(Reply(1, "well"))
    asker = ask(guard.start)
    await pass_ms(5)
    assert asker.outcome == "well"
