"""Places: which of them a call should avoid, and which is slow beside its siblings."""

from __future__ import annotations

from random import Random

import pytest

from cashier.fanout.breaker import BreakerSettings
from cashier.fanout.endpoint import Endpoint, avoid_for_second_call, unavailable, update_slow_marks
from cashier.fanout.limiter import LimiterSettings

MS_NS = 1_000_000
NOW_NS = 1_000_000_000_000
LEASE_NS = 200 * MS_NS
CEILING_NS = 100 * MS_NS


def place(*, limit: int = 10) -> Endpoint:
    made = Endpoint("a place", CEILING_NS, BreakerSettings(), LimiterSettings(start=limit), Random(1))
    made.breaker.roll(NOW_NS)
    return made


def places(count: int) -> tuple[Endpoint, ...]:
    return tuple(place() for _ in range(count))


def break_it(sick: Endpoint) -> None:
    while sick.breaker.closed:
        sick.record_failure(NOW_NS, NOW_NS, counted=False, overload=False)


def fill(full: Endpoint) -> None:
    full.in_flight = full.limiter.limit


def test_all_well_nothing_is_avoided() -> None:
    assert unavailable(places(3), NOW_NS, LEASE_NS) == (0, False)


def test_the_sick_and_the_full_are_avoided() -> None:
    three = places(3)
    break_it(three[0])
    assert unavailable(three, NOW_NS, LEASE_NS) == (0b001, False)
    fill(three[2])
    assert unavailable(three, NOW_NS, LEASE_NS) == (0b101, True)
    break_it(three[1])
    assert unavailable(three, NOW_NS, LEASE_NS) == (0b111, True)


def test_a_place_whose_trial_is_due_gets_one_call_alone() -> None:
    three = places(3)
    break_it(three[1])
    due_ns = three[1].breaker.probe_due_ns
    assert unavailable(three, due_ns - 1, LEASE_NS) == (0b010, False)
    assert unavailable(three, due_ns, LEASE_NS) == (0b101, False)
    assert unavailable(three, due_ns, LEASE_NS) == (0b010, False)


def test_two_trials_that_are_due_go_out_one_after_the_other() -> None:
    three = places(3)
    break_it(three[0])
    break_it(three[2])
    due_ns = max(three[0].breaker.probe_due_ns, three[2].breaker.probe_due_ns)
    assert [unavailable(three, due_ns, LEASE_NS)[0] for _ in range(3)] == [0b110, 0b011, 0b101]


def test_a_second_call_goes_elsewhere_and_never_to_the_sick_or_full() -> None:
    three = places(3)
    assert avoid_for_second_call(three, three[1]) == 0b010
    break_it(three[0])
    assert avoid_for_second_call(three, three[1]) == 0b011
    fill(three[2])
    assert avoid_for_second_call(three, three[1]) is None


def test_where_there_is_one_place_a_second_call_goes_there_unless_it_is_sick_or_full() -> None:
    [sole] = places(1)
    assert avoid_for_second_call([sole], sole) == 0
    fill(sole)
    assert avoid_for_second_call([sole], sole) is None
    sole.in_flight = 0
    break_it(sole)
    assert avoid_for_second_call([sole], sole) is None


@pytest.mark.parametrize(
    ("latencies_ms", "slow_ms"),
    [
        ((2, 2, 90), 7),
        ((30, 2, 40), 90),
        ((10, 20, 90), 60),
        ((50, 60, 70), 100),
        ((0, 0, 0), 100),
        ((0, 4, 0), 12),
        ((0, 4, 30), 12),
    ],
)
def test_slow_is_three_times_the_usual_and_five_ms_more_and_never_beyond_the_ceiling(
    latencies_ms: tuple[int, ...], slow_ms: int
) -> None:
    three = places(3)
    for each, latency_ms in zip(three, latencies_ms, strict=True):
        each.latency_ns = latency_ms * MS_NS
    update_slow_marks(three, CEILING_NS)
    assert [each.slow_ns for each in three] == [slow_ms * MS_NS] * 3


def test_a_place_that_is_left_alone_is_no_measure_for_its_siblings() -> None:
    three = places(3)
    for each, latency_ms in zip(three, (1, 20, 30), strict=True):
        each.latency_ns = latency_ms * MS_NS
    break_it(three[0])
    update_slow_marks(three, CEILING_NS)
    assert three[1].slow_ns == 60 * MS_NS


def test_alone_it_is_slow_at_the_ceiling_only() -> None:
    [sole] = places(1)
    sole.latency_ns = MS_NS
    update_slow_marks([sole], CEILING_NS)
    assert sole.slow_ns == CEILING_NS


def test_an_answer_at_the_mark_counts_as_a_failure_and_one_before_as_a_success() -> None:
    one = place()
    one.record_answer(NOW_NS, NOW_NS + CEILING_NS - 1, counted=False)
    one.record_answer(NOW_NS, NOW_NS + CEILING_NS, counted=False)
    one.record_answer(NOW_NS, NOW_NS + CEILING_NS, counted=True)
    assert repr(one) == "<a place: 0 in flight, <Breaker closed: 1 bad, 1 good>, <Limiter 10>>"


def test_its_latency_follows_its_calls_by_a_sixteenth() -> None:
    one = place()
    one.record_answer(NOW_NS, NOW_NS + 16 * MS_NS, counted=False)
    assert one.latency_ns == 16 * MS_NS
    one.record_answer(NOW_NS, NOW_NS + 32 * MS_NS, counted=False)
    assert one.latency_ns == 17 * MS_NS


@pytest.mark.parametrize(
    ("limit", "others", "grows"),
    [(10, 3, False), (10, 4, True), (1, 0, True), (2, 0, True), (3, 0, False), (3, 1, True)],
)
def test_its_limit_grows_only_while_half_of_it_is_used(limit: int, others: int, grows: bool) -> None:
    """The call that was answered counts, and is under way no more: a limit of one would never grow again."""
    one = place(limit=limit)
    one.in_flight = others
    for _ in range(limit):
        one.record_answer(NOW_NS, NOW_NS + MS_NS, counted=False)
    assert (one.limiter.limit > limit) is grows


def test_what_is_lost_cuts_its_limit_and_what_is_merely_slow_does_not() -> None:
    one = place()
    one.record_failure(NOW_NS, NOW_NS, counted=False, overload=False)
    assert one.limiter.limit == 10
    one.record_failure(NOW_NS, NOW_NS, counted=True, overload=True)
    assert one.limiter.limit == 9
    assert one.breaker.failures == 1, "counted twice"


def test_while_it_is_left_alone_its_limit_stays() -> None:
    one = place()
    break_it(one)
    for _ in range(20):
        one.record_failure(NOW_NS, NOW_NS, counted=False, overload=True)
    assert one.limiter.limit == 10


def test_healed_it_may_have_as_many_calls_as_at_the_start() -> None:
    sick = place(limit=10)
    for moment_ns in range(NOW_NS, NOW_NS + 4):
        sick.record_failure(moment_ns, moment_ns, counted=True, overload=True)
    assert sick.limiter.limit < 10
    break_it(sick)
    trial_ns = sick.breaker.probe_due_ns
    assert sick.breaker.admits(trial_ns, LEASE_NS)
    sick.record_answer(trial_ns, trial_ns + MS_NS, counted=False)
    assert sick.breaker.closed
    assert sick.limiter.limit == 10
