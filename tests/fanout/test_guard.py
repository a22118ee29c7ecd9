"""A guarded source under faults: calls made, their addresses, their cost, and the recovery."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cashier.fanout.ask import Importance, SourceStatus
from cashier.fanout.breaker import BreakerSettings
from cashier.fanout.guard import Guard
from cashier.fanout.guarded_source import Mechanisms
from cashier.fanout.latency_histogram import NEVER_NS
from cashier.fanout.limiter import LimiterSettings
from cashier.fanout.load_shedding import DegradationLadder
from cashier.source_errors import BreakerOpen, Overloaded, Shed, Skipped, Unreachable, WrongIdentity
from tests.fanout.scripted_upstream import (
    Asker,
    Reply,
    Script,
    ScriptedCall,
    ScriptedUpstream,
    ask,
    ask_steadily,
    assert_consistent,
    assert_nothing_left,
    guarded,
    lognormal,
    pass_ms,
    quantile_ms,
)
from tests.support.virtual_time import MS_NS, clock_ns, run_in_virtual_time, timers_set

pytestmark = pytest.mark.virtual_time

# Of the gauge.
CLOSED, HALF_OPEN, OPEN = range(3)
SILENT = Reply(None)
REFUSES = Reply(1, Unreachable("refused"))


def by_place(*fates: Reply) -> Script:
    return lambda call: fates[call.address_index]


def share_to(upstream: ScriptedUpstream, place: int, since: int) -> float:
    calls = upstream.calls[since:]
    return sum(call.address_index == place for call in calls) / len(calls)


def broken(guard: Guard) -> None:
    """Open the breakers of all endpoints."""
    for endpoint in guard.endpoints:
        while endpoint.breaker.closed:
            endpoint.record_failure(clock_ns(), clock_ns(), counted=False, overload=False)


def well(guard: Guard) -> list[bool]:
    return [endpoint.breaker.closed for endpoint in guard.endpoints]


@pytest.mark.moves("cashier_source_calls_not_made_total")
async def test_no_call_is_made_with_less_time_left_than_the_tenth_percentile() -> None:
    upstream = ScriptedUpstream(lognormal(1, median_ms=20))
    guard = guarded(upstream)
    await ask_steadily(guard.start, every_ms=5, for_ms=2_000)
    calls_before = len(upstream.calls)
    assert ask(guard.start, waits_ms=8).error_type is Skipped
    assert len(upstream.calls) == calls_before
    assert guard.counts.skipped.value == 1
    asker = ask(guard.start, waits_ms=60)
    await pass_ms(70)
    assert asker.error_type is None


async def test_one_call_a_second_is_made_without_enough_time_to_notice_a_recovery() -> None:
    upstream = ScriptedUpstream(lognormal(1, median_ms=20))
    guard = guarded(upstream)
    await ask_steadily(guard.start, every_ms=5, for_ms=2_000)
    calls_before = len(upstream.calls)
    await ask_steadily(guard.start, every_ms=50, for_ms=3_000, waits_ms=lambda: 8)
    assert 2 <= len(upstream.calls) - calls_before <= 3


async def test_with_few_calls_recorded_every_call_is_made() -> None:
    guard = guarded(ScriptedUpstream(Reply(20)))
    await ask_steadily(guard.start, every_ms=50, for_ms=4_900)
    assert ask(guard.start, waits_ms=1).error_type is None
    assert guard.hedge.delay_ns == NEVER_NS


@pytest.mark.parametrize(
    "sick",
    [
        pytest.param(Reply(60), id="slow", marks=pytest.mark.proof),
        pytest.param(REFUSES, id="dead"),
        pytest.param(SILENT, id="silent", marks=pytest.mark.proof),
    ],
)
async def test_a_sick_replica_of_three_is_left_out_within_seconds_and_used_again_after_recovery(sick: Reply) -> None:
    upstream = ScriptedUpstream(by_place(Reply(5), sick, Reply(5)), places=3)
    guard = guarded(upstream, Mechanisms(hedge=None))
    await ask_steadily(guard.start, every_ms=10, for_ms=10_000)
    assert well(guard) == [True, False, True]
    since = len(upstream.calls)
    askers = await ask_steadily(guard.start, every_ms=10, for_ms=20_000)
    assert share_to(upstream, 1, since) < 0.01
    assert quantile_ms(askers, 0.99) < 10
    assert well(guard) == [True, False, True]
    upstream.set_script(Reply(5))
    await ask_steadily(guard.start, every_ms=10, for_ms=33_000)
    assert well(guard) == [True] * 3
    since = len(upstream.calls)
    await ask_steadily(guard.start, every_ms=10, for_ms=2_000)
    assert share_to(upstream, 1, since) == pytest.approx(1 / 3, abs=0.03)
    guard.close()
    assert_nothing_left(guard, upstream)


@pytest.mark.moves("cashier_breaker_openings_total", "cashier_breaker_state")
async def test_a_breaker_that_opens_counts_once_and_shows_its_state_until_it_closes() -> None:
    upstream = ScriptedUpstream()
    guard = guarded(upstream, Mechanisms(hedge=None, breaker=BreakerSettings(open_s=1)))
    metrics = guard.endpoints[0].metrics

    def seen() -> tuple[int, float]:
        guard.sample()
        return metrics.openings.value, metrics.breaker_state.value

    ask(guard.start)
    await pass_ms(20)
    assert seen() == (0, CLOSED)
    upstream.set_script(REFUSES)
    broken(guard)
    assert seen() == (1, OPEN)
    guard.probe_soon()
    assert seen() == (1, HALF_OPEN)
    ask(guard.start)
    await pass_ms(20)
    assert seen() == (1, OPEN), "a probe that fails is no opening"
    upstream.set_script(Reply(1))
    await ask_steadily(guard.start, every_ms=50, for_ms=30_000)
    assert seen() == (1, CLOSED)


@pytest.mark.moves("cashier_extra_call_budget_ratio")
async def test_the_budget_gauge_falls_with_extra_calls_and_comes_back() -> None:
    upstream = ScriptedUpstream()
    guard = guarded(upstream, Mechanisms(hedge=None))

    def left() -> float:
        guard.sample()
        return guard.metrics.gauge("cashier_extra_call_budget_ratio", "source").value

    ask(guard.start)
    await pass_ms(20)
    assert left() == 1, "a first call takes nothing"
    upstream.set_script(REFUSES)
    ask(guard.start)
    await pass_ms(20)
    assert guard.counts.retries.value == 1
    assert left() == pytest.approx(0.9)
    await pass_ms(12_000)
    assert left() == 1


@pytest.mark.moves("cashier_source_calls_not_made_total")
async def test_with_all_endpoints_open_calls_are_refused_at_once() -> None:
    upstream = ScriptedUpstream(places=3)
    guard = guarded(upstream)
    broken(guard)
    asker = ask(guard.start)
    assert asker.error_type is BreakerOpen
    assert (upstream.calls, guard.counts.breaker_open.value) == ([], 1)


@pytest.mark.moves("cashier_source_calls_not_made_total")
@pytest.mark.parametrize("places", [1, 2])
async def test_with_all_endpoints_full_calls_are_shed_at_once(places: int) -> None:
    upstream = ScriptedUpstream(Reply(50), places)
    guard = guarded(upstream, Mechanisms(limiter=LimiterSettings(start=3)))
    for _ in range(3 * places):
        assert not ask(guard.start).answered
    assert ask(guard.start).error_type is Shed
    assert guard.counts.at_limit.value == 1
    await pass_ms(55)
    assert not ask(guard.start).answered


async def test_an_open_source_is_probed_even_while_hanging_calls_fill_its_limit() -> None:
    upstream = ScriptedUpstream(SILENT)
    guard = guarded(
        upstream,
        Mechanisms(breaker=BreakerSettings(calls=3, open_s=0.05), limiter=LimiterSettings(start=3)),
        ceiling_ms=100,
    )
    for _ in range(3):
        ask(guard.start)
    await pass_ms(102)
    assert not guard.endpoints[0].breaker.closed
    assert guard.endpoints[0].in_flight >= guard.endpoints[0].limiter.limit
    upstream.set_script(Reply(5, "well"))
    await pass_ms(60)
    asker = ask(guard.start)
    await pass_ms(10)
    assert asker.outcome == "well"
    assert guard.endpoints[0].breaker.closed


@pytest.mark.parametrize("places", [1, 2])
async def test_while_the_probes_hang_no_other_call_is_made(places: int) -> None:
    upstream = ScriptedUpstream(SILENT, places)
    guard = guarded(upstream, Mechanisms(hedge=None))
    broken(guard)
    await pass_ms(3_000)
    probes = [ask(guard.start) for _ in range(places)]
    await pass_ms(50)
    assert ask(guard.start).error_type is BreakerOpen
    assert len(upstream.calls) == places
    assert not any(probe.answered for probe in probes)


async def test_only_enriching_calls_are_dimmed() -> None:
    ladder = DegradationLadder()
    ladder.dim_share = 1.0
    for importance in Importance:
        guard = guarded(ScriptedUpstream(), importance=importance, ladder=ladder)
        dimmed = importance is Importance.ENRICHING
        assert ask(guard.start).error_type is (Shed if dimmed else None)
        assert guard.ladder.dimmed.value == dimmed


async def test_an_unsheddable_call_is_not_dimmed() -> None:
    ladder = DegradationLadder()
    ladder.dim_share = 1.0
    guard = guarded(ScriptedUpstream(), importance=Importance.ENRICHING, ladder=ladder)
    assert ask(guard.start_unsheddable).error_type is None
    assert (guard.counts.first_calls.value, guard.ladder.dimmed.value) == (1, 0)


async def test_an_unsheddable_call_is_made_with_too_little_time_left() -> None:
    guard = guarded(ScriptedUpstream(lognormal(1, median_ms=20)))
    await ask_steadily(guard.start, every_ms=5, for_ms=2_000)
    calls = guard.counts.first_calls.value
    assert ask(guard.start, waits_ms=1).error_type is Skipped
    assert ask(guard.start_unsheddable, waits_ms=1).error_type is None
    assert guard.counts.first_calls.value == calls + 1
    await pass_ms(100)


@pytest.mark.parametrize("importance", list(Importance))
async def test_a_required_source_keeps_its_ceiling_as_timeout(importance: Importance) -> None:
    guard = guarded(ScriptedUpstream(Reply(10)), importance=importance)
    await ask_steadily(guard.start, every_ms=5, for_ms=20_000)
    assert guard.adaptive_timeout.timeout_ms == (100 if importance is Importance.REQUIRED else 11)
    guard.reconfigure(120, Mechanisms())
    assert guard.adaptive_timeout.timeout_ms == (120 if importance is Importance.REQUIRED else 11)


async def test_a_hanging_source_costs_nothing_once_its_breaker_is_open_and_recovers() -> None:
    upstream = ScriptedUpstream(lognormal(1))
    guard = guarded(upstream)
    await ask_steadily(guard.start, every_ms=10, for_ms=10_000)
    upstream.set_script(SILENT)
    askers = await ask_steadily(guard.start, every_ms=10, for_ms=8_000)
    assert quantile_ms(askers[:50], 0.9) > 10
    assert not guard.endpoints[0].breaker.closed
    calls_before = len(upstream.calls)
    askers = await ask_steadily(guard.start, every_ms=10, for_ms=20_000)
    assert len(upstream.calls) - calls_before < 10
    assert sum(asker.error_type is BreakerOpen for asker in askers) > len(askers) - 10
    assert sum(not asker.answered or asker.took_ms > 1 for asker in askers) < 10
    assert_consistent(guard, upstream)
    upstream.set_script(lognormal(2))
    await ask_steadily(guard.start, every_ms=10, for_ms=31_000)
    askers = await ask_steadily(guard.start, every_ms=10, for_ms=2_000)
    assert sum(asker.error_type is None and asker.answered for asker in askers) > 0.98 * len(askers)


@pytest.mark.parametrize("steps", [1, pytest.param(3, marks=pytest.mark.proof)])
async def test_a_learned_timeout_gives_way_when_the_source_becomes_slower(steps: int) -> None:
    """A slower source must not time out for as long as the histogram takes to adapt."""
    upstream = ScriptedUpstream(lognormal(6))
    guard = guarded(upstream, Mechanisms(hedge=None))

    def timeout_ms() -> int:
        return guard.adaptive_timeout.timeout_ms

    await ask_steadily(guard.start, every_ms=4, for_ms=20_000, waits_ms=timeout_ms)
    assert timeout_ms() < 50
    upstream.set_script(lognormal(6 + steps, factor=5))
    await ask_steadily(guard.start, every_ms=4, for_ms=2_500, waits_ms=timeout_ms)
    askers = await ask_steadily(guard.start, every_ms=4, for_ms=1_000, waits_ms=timeout_ms)
    assert sum(asker.answered for asker in askers) > 0.9 * len(askers)


async def test_the_share_of_timeouts_refers_to_all_calls_of_the_second() -> None:
    """This holds even if the budget has started a new second since."""
    guard = guarded(ScriptedUpstream(Reply(1)), Mechanisms(hedge=None))
    await ask_steadily(guard.start, every_ms=2, for_ms=20_000, waits_ms=lambda: 50)
    assert guard.adaptive_timeout.timeout_ms == 5
    guard.learn(clock_ns())
    await ask_steadily(guard.start, every_ms=2, for_ms=900, waits_ms=lambda: 50)
    for _ in range(3):
        guard.adaptive_timeout.count_timeout()
    guard.retry_budget.first_calls = 0
    guard.learn(clock_ns())
    assert guard.adaptive_timeout.timeout_ms == 5


async def test_successes_of_the_first_second_count_when_calls_fail() -> None:
    upstream = ScriptedUpstream(Reply(1))
    guard = guarded(upstream, Mechanisms(retry=False))
    await ask_steadily(guard.start, every_ms=2, for_ms=100)
    upstream.set_script(REFUSES)
    await ask_steadily(guard.start, every_ms=2, for_ms=60)
    assert guard.endpoints[0].breaker.closed
    assert guard.retry_budget.first_calls > 0


async def test_new_settings_keep_the_learned_state() -> None:
    upstream = ScriptedUpstream(lognormal(1))
    guard = guarded(upstream)
    await ask_steadily(guard.start, every_ms=5, for_ms=20_000)
    after_ns, timeout_ms, histogram = guard.hedge.delay_ns, guard.adaptive_timeout.timeout_ms, repr(guard.latencies)
    under_way = ask(guard.start)
    guard.reconfigure(300, Mechanisms(extra_bps=1_000, limiter=LimiterSettings(start=7, most=50)))
    assert abs(guard.adaptive_timeout.timeout_ms - timeout_ms) <= 1
    assert guard.hedge.delay_ns == pytest.approx(after_ns, rel=0.1)
    assert repr(guard.latencies) == histogram
    assert not repr(guard.endpoints[0].breaker).endswith(" 0 good>")
    assert guard.endpoints[0].limiter.limit == 50
    assert guard.endpoints[0].slow_ns == 300 * MS_NS
    await pass_ms(50)
    assert under_way.answered
    guard.reconfigure(300, Mechanisms(hedge=None))
    assert guard.hedge.delay_ns == NEVER_NS


async def test_a_breaker_turned_off_while_open_admits_calls() -> None:
    guard = guarded(ScriptedUpstream())
    broken(guard)
    assert ask(guard.start).error_type is BreakerOpen
    guard.reconfigure(100, Mechanisms(breaker=None))
    assert [ask(guard.start).error_type for _ in range(3)] == [None] * 3


async def test_closing_leaves_no_call_and_no_timer_and_answers_the_waiters() -> None:
    upstream = ScriptedUpstream(SILENT, places=2)
    guard = guarded(upstream)
    guard.hedge.delay_ns = 5 * MS_NS
    waiting = [ask(guard.start, waits_ms=1_000) for _ in range(5)]
    gone = ask(guard.start, waits_ms=20)
    await pass_ms(30)
    late_too = ask(guard.start, waits_ms=1_000)
    guard.close()
    assert all(asker.error_type is Unreachable for asker in [*waiting, late_too])
    assert gone.left
    assert_nothing_left(guard, upstream)


async def test_after_closing_calls_are_refused_even_in_its_own_callbacks() -> None:
    upstream = ScriptedUpstream(SILENT)
    guard = guarded(upstream)
    again: list[Asker] = []

    def done(outcome: object, status: SourceStatus = SourceStatus.FRESH, age_ms: int = 0) -> None:
        again.append(ask(guard.start))

    guard.start({}, "headers", 100, done)
    asker = ask(guard.start)
    await pass_ms(10)
    guard.close()
    await pass_ms(5_000)
    assert [each.error_type for each in [*again, asker, ask(guard.start)]] == [Skipped, Unreachable, Skipped]
    assert len(upstream.calls) == 2
    assert timers_set() == []


async def test_an_idle_guard_has_no_timer() -> None:
    guard = guarded(ScriptedUpstream(Reply(5)))
    await ask_steadily(guard.start, every_ms=1, for_ms=50)
    assert sum("TimerWheel" in repr(timer) for timer in timers_set()) == 1
    await pass_ms(150)
    assert timers_set() == []
    assert repr(guard.wheel) == "<TimerWheel of 0 calls>"
    assert repr(guard).startswith("<Guard of source: <AdaptiveTimeout 100 of 100 ms>")


async def test_calls_that_fail_for_one_payer_do_not_shut_out_the_others() -> None:
    refused = Reply(1, Overloaded("503"))
    upstream = ScriptedUpstream(lambda call: refused if call.known["user_id"] == "u_0" else Reply(1))
    guard = guarded(upstream, subject="user_id")
    for number in range(400):
        asker = ask(guard.start, {"user_id": "u_0" if number % 10 < 6 else f"u_{number}"})
        await pass_ms(2)
        assert (asker.error_type is Overloaded) == (number % 10 < 6)
    assert well(guard) == [True]


@pytest.mark.parametrize("elsewhere", [True, False])
async def test_a_refused_answer_is_retried_if_another_connection_may_do_better(elsewhere: bool) -> None:
    error = WrongIdentity("another payer")
    error.elsewhere = elsewhere
    replies = iter((Reply(1, error), Reply(1)))
    upstream = ScriptedUpstream(lambda _: next(replies))
    asker = ask(guarded(upstream).start)
    await pass_ms(5)
    assert asker.error_type is (None if elsewhere else WrongIdentity)


DOWN = Reply(1, Unreachable("refused"))


def change(guard: Guard, upstream: ScriptedUpstream, addresses: tuple[str, ...]) -> None:
    """As a transport does: the calls in flight take the new indexes at the same time."""
    before, upstream.addresses = upstream.addresses, addresses
    for call in upstream.calls:
        name = before[call.address_index] if call.address_index >= 0 else ""
        call.address_index = addresses.index(name) if name in addresses else -1
    guard.set_addresses(addresses)


async def test_an_address_that_stays_keeps_what_was_learned_and_a_new_one_starts_afresh() -> None:
    upstream = ScriptedUpstream(lambda call: DOWN if call.address_index == 0 else Reply(5), 2)
    guard = guarded(upstream)
    for _ in range(200):
        ask(guard.start)
        await pass_ms(10)
    bad, good = guard.endpoints
    assert (bad.breaker.closed, good.breaker.closed) == (False, True)
    change(guard, upstream, ("address 1", "address 2", "address 0"))
    assert guard.endpoints[0] is good
    assert guard.endpoints[2] is bad
    assert guard.endpoints[1].breaker.closed
    assert not guard.endpoints[2].breaker.closed
    guard.close()


async def test_a_call_to_a_vanished_address_ends_where_it_began() -> None:
    upstream = ScriptedUpstream(Reply(50), 2)
    guard = guarded(upstream)
    askers = [ask(guard.start) for _ in range(4)]
    gone, kept = guard.endpoints
    assert (gone.in_flight, kept.in_flight) == (2, 2)
    change(guard, upstream, ("address 1",))
    assert guard.endpoints == (kept,)
    askers += [ask(guard.start) for _ in range(3)]
    assert (gone.in_flight, kept.in_flight) == (2, 5)
    await pass_ms(60)
    assert [asker.outcome for asker in askers] == ["an answer"] * 7
    assert (gone.in_flight, kept.in_flight) == (0, 0)
    guard.close()


async def test_a_call_that_keeps_an_index_of_before_ends_too() -> None:
    """A transport that has refused a call no longer renumbers it."""
    upstream = ScriptedUpstream(Reply(1, Shed("the queue is full")), 3)
    guard = guarded(upstream)
    askers = [ask(guard.start) for _ in range(3)]
    upstream.addresses = ("address 0", "address 1")
    guard.set_addresses(upstream.addresses)
    await pass_ms(2)
    assert all(isinstance(asker.outcome, Shed) for asker in askers)
    assert not any(endpoint.in_flight for endpoint in guard.endpoints)
    guard.close()


names = st.lists(st.sampled_from([f"address {index}" for index in range(5)]), min_size=1, max_size=5, unique=True)


@given(st.lists(st.tuples(names, st.integers(0, 3), st.integers(0, 40)), min_size=1, max_size=15), st.integers(0, 99))
def test_no_sequence_of_changes_unbalances_the_counts(steps: list[tuple[list[str], int, int]], seed: int) -> None:
    async def main() -> None:
        random = Random(seed)

        def script(_call: ScriptedCall) -> Reply:
            return random.choice([Reply(2), Reply(30), Reply(200), DOWN, Reply(None)])

        upstream = ScriptedUpstream(script, 2)
        guard = guarded(upstream)
        endpoints = set(guard.endpoints)
        askers = []
        for addresses, calls, ms in steps:
            askers += [ask(guard.start) for _ in range(calls)]
            await pass_ms(ms)
            change(guard, upstream, tuple(addresses))
            endpoints |= set(guard.endpoints)
            assert [endpoint.name for endpoint in guard.endpoints] == addresses
        for asker in askers:
            asker.leave()
        await pass_ms(5_000)
        guard.close()
        assert [endpoint.in_flight for endpoint in endpoints] == [0] * len(endpoints)

    run_in_virtual_time(main())
