"""Flights that nobody waits for any more, and those that take too long: what is learned from them, and that all counts come out even."""

from __future__ import annotations

import asyncio
import gc
import weakref
from random import Random
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from cashier.fanout.guard import Guard, Mechanisms
from cashier.fanout.hedge import HedgeSettings
from cashier.fanout.hedged_call import MAX_LATE_CALLS, HedgedCall
from cashier.fanout.limiter import LimiterSettings
from cashier.source_errors import Garbled, Overloaded, Unreachable
from tests.fanout.scripted_upstream import (
    MS_NS,
    Asker,
    Reply,
    ScriptedCall,
    ScriptedUpstream,
    ask,
    assert_consistent,
    assert_nothing_left,
    clock_ns,
    first_then,
    guarded,
    pass_ms,
    run_in_virtual_time,
    set_hedge_delay,
    set_timers,
)

SILENT = Reply(None)
WIDE = LimiterSettings(start=1_000, most=1_000)


class Marker:
    """Something that only a question holds."""


def test_abandoned_it_runs_on_unheard_and_its_answer_is_learned_from() -> None:
    async def main() -> None:
        upstream = ScriptedUpstream(Reply(120))
        guard = guarded(upstream)
        asker = ask(guard.start, waits_ms=50)
        await pass_ms(60)
        assert asker.gone
        assert guard.timers.late_calls == 1
        await pass_ms(70)
        assert upstream.abandoned == []
        assert (guard.timers.late_calls, guard.counts.late_calls, guard.counts.late_answers) == (0, 1, 0)
        assert repr(guard.latencies) == "<LatencyHistogram of 1 calls>"
        await pass_ms(100)
        assert set_timers() == []

    run_in_virtual_time(main)


def kept(guard: Guard, waits_ms: int = 50) -> tuple[list[Any], HedgedCall]:
    """A call whose answer is of use also to nobody in particular, abandoned after so long."""
    heard: list[Any] = []
    flight = guard.call(
        {},
        "trip",
        100,
        waits_ms,
        lambda outcome, not_found=False, body=None: heard.append((outcome, not_found, body)),
        deliver_late=True,
    )
    assert isinstance(flight, HedgedCall)
    asyncio.get_running_loop().call_later(waits_ms / 1000, flight.abandon)
    return heard, flight


@pytest.mark.parametrize("fate", [Reply(60), Reply(30, Unreachable(""))], ids=["slow", "failing"])
def test_for_nobody_no_second_call_is_made(fate: Reply) -> None:
    async def main() -> None:
        upstream = ScriptedUpstream(fate)
        guard = guarded(upstream)
        set_hedge_delay(guard)
        kept(guard, waits_ms=10)
        await pass_ms(100)
        assert len(upstream.legs) == 1

    run_in_virtual_time(main)


@pytest.mark.parametrize("outcome", ["an answer", Garbled("")])
def test_a_kept_one_is_heard_once_although_it_was_abandoned(outcome: Any) -> None:
    async def main() -> None:
        guard = guarded(ScriptedUpstream(Reply(120, outcome, not_found=True, body=b"a body")))
        heard, flight = kept(guard)
        await pass_ms(300)
        flight.abandon()
        assert heard == [(outcome, True, b"a body")] if outcome == "an answer" else heard == [(outcome, False, None)]
        assert guard.counts.late_answers == (outcome == "an answer")
        assert guard.timers.late_calls == 0

    run_in_virtual_time(main)


def test_a_kept_one_that_never_ends_is_cut_at_twice_the_ceiling_and_told() -> None:
    async def main() -> None:
        upstream = ScriptedUpstream(SILENT)
        guard = guarded(upstream)
        heard, _ = kept(guard)
        await pass_ms(199)
        assert upstream.abandoned == heard == []
        await pass_ms(3)
        [(outcome, _, _)] = heard
        assert isinstance(outcome, Unreachable)
        assert upstream.under_way == []
        assert_nothing_left(guard, upstream)

    run_in_virtual_time(main)


def test_one_that_somebody_still_waits_for_is_cut_at_twice_the_ceiling_too() -> None:
    async def main() -> None:
        upstream = ScriptedUpstream(SILENT)
        guard = guarded(upstream)
        asker = ask(guard.start, waits_ms=1_000)
        await pass_ms(205)
        assert asker.refused is Unreachable
        assert_nothing_left(guard, upstream)

    run_in_virtual_time(main)


def test_no_more_than_so_many_run_on_and_the_next_is_cut_at_once() -> None:
    async def main() -> None:
        upstream = ScriptedUpstream(SILENT)
        guard = guarded(upstream, Mechanisms(breaker=None, limiter=None))
        for _ in range(MAX_LATE_CALLS + 3):
            ask(guard.start, waits_ms=100)
        await pass_ms(101)
        assert guard.timers.late_calls == MAX_LATE_CALLS
        assert len(upstream.abandoned) == 3
        assert_consistent(guard, upstream)
        await pass_ms(105)
        assert_nothing_left(guard, upstream)

    run_in_virtual_time(main)


def test_a_hedges_loser_is_among_those_that_run_on() -> None:
    async def main() -> None:
        upstream = ScriptedUpstream(first_then(SILENT, Reply(5)))
        guard = guarded(upstream, Mechanisms(breaker=None))
        guard.retry_budget.first_calls = 10_000
        set_hedge_delay(guard)
        askers = [ask(guard.start) for _ in range(1)]
        await pass_ms(30)
        assert all(asker.heard for asker in askers)
        assert guard.timers.late_calls == 1
        await pass_ms(180)
        assert_nothing_left(guard, upstream)

    run_in_virtual_time(main)


@pytest.mark.parametrize("runs_on", [True, False])
def test_a_source_that_hangs_is_counted_as_failed_whether_or_not_its_calls_run_on(runs_on: bool) -> None:
    """Also those that are cut at once: of them nothing is heard afterwards."""

    async def main() -> None:
        guard = guarded(ScriptedUpstream(SILENT), Mechanisms(late=runs_on, limiter=WIDE))
        for _ in range(60):
            ask(guard.start)
        await pass_ms(110)
        assert not guard.endpoints[0].breaker.closed
        assert guard.endpoints[0].limiter.limit == 900

    run_in_virtual_time(main)


def test_a_source_that_hangs_is_counted_as_failed_also_where_less_than_the_ceiling_is_waited() -> None:
    async def main() -> None:
        guard = guarded(ScriptedUpstream(SILENT), Mechanisms(late=False, limiter=WIDE))
        guard.adaptive_timeout.timeout_ms = 30
        for _ in range(60):
            ask(guard.start, waits_ms=30)
        await pass_ms(40)
        assert not guard.endpoints[0].breaker.closed

    run_in_virtual_time(main)


def test_what_has_failed_already_does_not_count_as_slow_while_its_retry_is_under_way() -> None:
    async def main() -> None:
        guard = guarded(ScriptedUpstream(first_then(Reply(1, Unreachable("")), SILENT), places=2))
        ask(guard.start)
        await pass_ms(150)
        assert sorted(endpoint.breaker.failures for endpoint in guard.endpoints) == [0, 1]

    run_in_virtual_time(main)


def test_leaving_early_is_no_failure_of_the_source() -> None:
    async def main() -> None:
        guard = guarded(ScriptedUpstream(SILENT), Mechanisms(late=False))
        for _ in range(60):
            ask(guard.start, waits_ms=20)
        await pass_ms(110)
        assert guard.endpoints[0].breaker.failures == 0
        assert guard.endpoints[0].limiter.limit == LimiterSettings().start

    run_in_virtual_time(main)


def test_a_call_that_is_slow_and_then_fails_is_one_failure() -> None:
    async def main() -> None:
        guard = guarded(ScriptedUpstream(Reply(150, Unreachable(""))))
        ask(guard.start)
        await pass_ms(160)
        assert guard.endpoints[0].breaker.failures == 1

    run_in_virtual_time(main)


def test_a_call_that_is_slow_and_is_then_answered_is_one_failure_and_no_success() -> None:
    async def main() -> None:
        guard = guarded(ScriptedUpstream(Reply(150)))
        ask(guard.start)
        await pass_ms(160)
        assert (guard.endpoints[0].breaker.failures, guard.endpoints[0].breaker.successes) == (1, 0)

    run_in_virtual_time(main)


def test_a_replica_that_is_slow_beside_the_others_and_then_times_out_is_a_loss() -> None:
    async def main() -> None:
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

    run_in_virtual_time(main)


def test_a_call_answers_for_the_place_where_it_went_in_the_end() -> None:
    async def main() -> None:
        upstream = ScriptedUpstream(Reply(30), places=2)
        guard = guarded(upstream)
        ask(guard.start)
        [leg] = upstream.legs
        first, leg.address_index = leg.address_index, 1 - leg.address_index
        await pass_ms(40)
        assert [endpoint.in_flight for endpoint in guard.endpoints] == [0, 0]
        assert (guard.endpoints[first].breaker.successes, guard.endpoints[1 - first].breaker.successes) == (0, 1)

    run_in_virtual_time(main)


def test_a_hedge_goes_elsewhere_than_where_its_call_went_in_the_end() -> None:
    async def main() -> None:
        upstream = ScriptedUpstream(first_then(Reply(60), Reply(5)), places=2)
        guard = guarded(upstream)
        set_hedge_delay(guard)
        ask(guard.start)
        [leg] = upstream.legs
        leg.address_index = 1 - leg.address_index
        await pass_ms(22)
        assert upstream.legs[1].address_index != leg.address_index
        assert_consistent(guard, upstream)
        await pass_ms(50)
        assert_consistent(guard, upstream)

    run_in_virtual_time(main)


def test_a_bug_in_one_call_does_not_leave_the_others_unwatched() -> None:
    async def main() -> None:
        upstream = ScriptedUpstream(SILENT)
        guard = guarded(upstream)
        bugs: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, told: bugs.append(told["exception"]))
        set_hedge_delay(guard)
        ask(guard.start)
        await pass_ms(5)

        def broken(leg: ScriptedCall) -> Reply:
            raise KeyError("user_id")

        upstream.does(broken)
        await pass_ms(20)
        assert [type(bug) for bug in bugs] == [KeyError]
        assert_consistent(guard, upstream)
        await pass_ms(200)
        assert_nothing_left(guard, upstream)

    run_in_virtual_time(main)


@pytest.mark.parametrize("way", ["answered", "hedged", "both fail", "late", "cut"])
def test_a_flight_that_is_over_leaves_no_cycle(way: str) -> None:
    async def main() -> None:
        fate = {"both fail": Reply(30, Garbled("")), "late": Reply(120), "cut": SILENT, "hedged": Reply(50)}.get(
            way, Reply(1)
        )
        upstream = ScriptedUpstream(fate)
        guard = guarded(upstream)
        set_hedge_delay(guard)
        question = {"about": Marker()}
        held = weakref.ref(question["about"])
        ask(guard.start, question)
        del question
        await pass_ms(250)
        upstream.legs.clear()  # the script's memory of them
        assert held() is None

    gc.collect()
    gc.disable()
    try:
        run_in_virtual_time(main)
    finally:
        gc.enable()


CALLS = st.lists(
    st.tuples(
        st.integers(0, 30),  # ms after the one before
        st.sampled_from([1, 5, 20, 60, 99, 130, 190, 250, None]),
        st.sampled_from(["an answer", Unreachable(""), Overloaded(""), Garbled("")]),
        st.integers(1, 120),  # ms it waits
    ),
    min_size=1,
    max_size=60,
)


@given(CALLS, st.integers(1, 3), st.booleans(), st.booleans(), st.integers(0, 1 << 32))
def test_whatever_calls_do_everybody_is_told_once_and_all_counts_come_out_even(
    calls: list[tuple[int, int | None, Any, int]], places: int, late: bool, coarse: bool, seed: int
) -> None:
    random = Random(seed)

    def script(leg: ScriptedCall) -> Reply:
        if random.random() < 0.5:
            leg.address_index = random.randrange(places)
        _, after_ms, outcome, _ = random.choice(calls)
        return Reply(after_ms, outcome)

    async def main() -> None:
        upstream = ScriptedUpstream(script, places)
        guard = guarded(upstream, Mechanisms(late=late, hedge=HedgeSettings(), limiter=LimiterSettings(start=10)))
        askers: list[tuple[Asker, int]] = []
        kept_ones: list[list[Any]] = []
        for pause_ms, _, _, waits_ms in calls:
            await pass_ms(pause_ms)
            set_hedge_delay(guard, random.choice([5, 20, 50]))
            if random.random() < 0.7:
                askers.append((ask(guard.start, waits_ms=waits_ms), waits_ms))
            elif any(
                endpoint.breaker.closed and endpoint.in_flight < endpoint.limiter.limit for endpoint in guard.endpoints
            ):
                heard, _ = kept(guard, waits_ms)
                kept_ones.append(heard)
            assert guard.timers.late_calls <= MAX_LATE_CALLS
            assert sum(endpoint.in_flight for endpoint in guard.endpoints) == len(upstream.under_way)
        await pass_ms(250)
        assert all(asker.heard or asker.gone for asker, _ in askers)
        assert all(asker.took_ms <= waits_ms + 1 for asker, waits_ms in askers if asker.heard)
        assert [len(heard) for heard in kept_ones] == [1] * len(kept_ones)
        assert_nothing_left(guard, upstream)

    run_in_virtual_time(main, coarse=coarse)
