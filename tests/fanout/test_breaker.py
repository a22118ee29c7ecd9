"""The breaker: when it opens, who may try then, and that it always finds its way back."""

from __future__ import annotations

from random import Random

import hypothesis.strategies as st
import pytest
from hypothesis import given

from cashier.fanout.breaker import Breaker, BreakerSettings

SECOND_NS = 1_000_000_000
LEASE_NS = 200_000_000
BEGAN_NS = 1_000 * SECOND_NS


class Steady(Random):
    """Dice that always fall in the middle: no jitter."""

    def uniform(self, a: float, b: float) -> float:
        return (a + b) / 2


def closed_breaker(settings: BreakerSettings | None = None, random: Random | None = None) -> Breaker:
    breaker = Breaker(settings or BreakerSettings(), random or Steady())
    breaker.roll(BEGAN_NS)
    return breaker


def open_breaker(
    settings: BreakerSettings | None = None, random: Random | None = None, now_ns: int = BEGAN_NS
) -> Breaker:
    breaker = closed_breaker(settings, random)
    break_it(breaker, now_ns)
    return breaker


def is_closed(breaker: Breaker) -> bool:
    """A function, because it changes where a type checker cannot see it."""
    return breaker.closed


def break_it(breaker: Breaker, now_ns: int) -> None:
    for _ in range(1_000):
        if not breaker.closed:
            return
        breaker.record_failure(now_ns, now_ns)
    raise AssertionError("it does not open")


def pause_s(breaker: Breaker, now_ns: int) -> float:
    return (breaker.probe_due_ns - now_ns) / SECOND_NS


def fail_a_trial(breaker: Breaker) -> int:
    """As soon as one may be made. Returns when."""
    now_ns = breaker.probe_due_ns
    assert breaker.admits(now_ns, LEASE_NS)
    breaker.record_failure(now_ns, now_ns)
    return now_ns


def pass_a_trial(breaker: Breaker) -> int:
    now_ns = breaker.probe_due_ns
    assert breaker.admits(now_ns, LEASE_NS)
    breaker.record_success(now_ns, now_ns)
    assert breaker.closed
    return now_ns


def test_what_stops_altogether_need_not_outweigh_ten_good_seconds() -> None:
    breaker = closed_breaker()
    for second in range(10):
        breaker.roll(BEGAN_NS + second * SECOND_NS)
        breaker.successes += 500
    stopped_ns = BEGAN_NS + 10 * SECOND_NS
    now_ns = stopped_ns
    while breaker.closed:
        now_ns += 2_000_000
        breaker.record_failure(now_ns, now_ns)
    assert now_ns - stopped_ns <= 2 * SECOND_NS


def test_a_stall_of_a_busy_source_is_no_stop() -> None:
    breaker = closed_breaker()
    breaker.successes += 500
    breaker.roll(BEGAN_NS + SECOND_NS)
    for _ in range(75):  # 150 ms of 500 a second
        breaker.record_failure(BEGAN_NS + SECOND_NS, BEGAN_NS + SECOND_NS)
    assert breaker.closed


@pytest.mark.parametrize(
    ("good", "bad", "opens"), [(0, 19, False), (0, 20, True), (10, 10, True), (11, 10, False), (100, 99, False)]
)
def test_it_opens_when_half_of_at_least_twenty_calls_failed(good: int, bad: int, opens: bool) -> None:
    breaker = closed_breaker()
    breaker.successes += good
    for _ in range(bad):
        assert breaker.closed
        breaker.record_failure(BEGAN_NS, BEGAN_NS)
    assert breaker.closed is not opens


def test_calls_of_more_than_ten_seconds_ago_do_not_count() -> None:
    breaker = closed_breaker()
    breaker.successes += 100
    for _ in range(19):
        breaker.record_failure(BEGAN_NS, BEGAN_NS)
    assert repr(breaker) == "<Breaker closed: 19 bad, 100 good>"
    breaker.roll(BEGAN_NS + 9 * SECOND_NS)
    assert repr(breaker) == "<Breaker closed: 19 bad, 100 good>"
    breaker.roll(BEGAN_NS + 10 * SECOND_NS)
    assert repr(breaker) == "<Breaker closed: 0 bad, 0 good>"


def test_open_it_admits_nobody_until_the_pause_is_over_and_then_one() -> None:
    breaker = open_breaker()
    due_ns = BEGAN_NS + 2 * SECOND_NS
    assert not breaker.admits(due_ns - 1, LEASE_NS)
    assert breaker.admits(due_ns, LEASE_NS)
    assert not any(breaker.admits(due_ns + passed_ns, LEASE_NS) for passed_ns in (0, 1, LEASE_NS - 1))


def test_a_trial_that_never_ends_has_a_lease_and_then_another_may_try() -> None:
    breaker = open_breaker()
    first_ns = BEGAN_NS + 2 * SECOND_NS
    assert breaker.admits(first_ns, LEASE_NS)
    assert breaker.admits(first_ns + LEASE_NS, LEASE_NS)
    breaker.record_success(first_ns, first_ns + LEASE_NS + 1)
    assert not is_closed(breaker), "the trial whose lease is over says nothing any more"
    breaker.record_success(first_ns + LEASE_NS, first_ns + LEASE_NS + 2)
    assert is_closed(breaker)


def test_a_trial_that_works_closes_it_and_what_was_counted_before_is_forgotten() -> None:
    breaker = open_breaker()
    now_ns = pass_a_trial(breaker)
    assert breaker.admits(now_ns, LEASE_NS)
    for _ in range(19):
        breaker.record_failure(now_ns, now_ns)
    assert is_closed(breaker)


def test_calls_from_before_the_opening_say_nothing_while_it_is_open_nor_after() -> None:
    breaker = open_breaker()
    breaker.record_success(BEGAN_NS, BEGAN_NS + 1)
    assert not is_closed(breaker)
    assert breaker.admits(breaker.probe_due_ns, LEASE_NS)
    trial_ns = BEGAN_NS + 2 * SECOND_NS
    breaker.record_success(BEGAN_NS, trial_ns + 1)
    assert not is_closed(breaker), "it was closed by a call from before its opening"
    breaker.record_failure(BEGAN_NS, trial_ns + 1)
    breaker.record_success(trial_ns, trial_ns + 2)
    assert is_closed(breaker), "its trial was ended by a call from before its opening"
    for _ in range(100):
        breaker.record_failure(BEGAN_NS, trial_ns + 3)
    assert is_closed(breaker), "it was opened again by calls from before its opening"


def test_its_pause_grows_by_half_up_to_its_bound() -> None:
    breaker = open_breaker()
    now_ns = BEGAN_NS
    seen = []
    for _ in range(9):
        seen.append(round(pause_s(breaker, now_ns), 2))
        now_ns = fail_a_trial(breaker)
    assert seen == [2.0, 3.0, 4.5, 6.75, 10.12, 15.19, 22.78, 30.0, 30.0]


def test_an_address_may_be_dead_for_weeks() -> None:
    breaker = open_breaker()
    for _ in range(5_000):
        now_ns = fail_a_trial(breaker)
    assert pause_s(breaker, now_ns) == 30
    pass_a_trial(breaker)


@given(st.integers(0, 30), st.integers(0, 1 << 32))
def test_its_pause_varies_by_a_tenth_and_never_beyond_its_bound(failures: int, seed: int) -> None:
    breaker = open_breaker(random=Random(seed))
    now_ns = BEGAN_NS
    for _ in range(failures):
        now_ns = fail_a_trial(breaker)
    middle_s = 2 * 1.5**failures
    assert 0.9 * min(middle_s, 30) <= pause_s(breaker, now_ns) <= min(30, 1.1 * middle_s) + 1e-9


@pytest.mark.parametrize(("closed_s", "next_pause_s"), [(29, 4.5), (31, 2.0)])
def test_after_half_a_minute_closed_it_begins_with_the_short_pause_again(closed_s: int, next_pause_s: float) -> None:
    breaker = open_breaker()
    fail_a_trial(breaker)
    now_ns = pass_a_trial(breaker) + closed_s * SECOND_NS
    break_it(breaker, now_ns)
    assert pause_s(breaker, now_ns) == pytest.approx(next_pause_s)


def test_without_settings_it_never_opens() -> None:
    breaker = Breaker(None, Steady())
    for _ in range(100):
        breaker.record_failure(BEGAN_NS, BEGAN_NS)
    assert breaker.closed


def test_turned_off_while_it_is_open_it_is_closed() -> None:
    breaker = open_breaker()
    breaker.reconfigure(None)
    assert breaker.admits(BEGAN_NS, LEASE_NS)
    assert repr(breaker) == "<Breaker closed: 0 bad, 0 good>"


def test_other_numbers_leave_it_open_and_hold_from_the_next_time() -> None:
    breaker = open_breaker()
    breaker.reconfigure(BreakerSettings(open_s=10))
    assert pause_s(breaker, BEGAN_NS) == 2
    assert pause_s(breaker, fail_a_trial(breaker)) == 15
    assert "opened 2 times" in repr(breaker)


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["pass", "fail", "work", "ask", "old failure", "old success"]), st.integers(0, 3 * SECOND_NS)
    ),
    max_size=80,
)


@given(EVENTS, st.integers(0, 1 << 32))
def test_whatever_happens_one_call_at_a_time_tries_and_it_never_stays_open_for_good(
    events: list[tuple[str, int]], seed: int
) -> None:
    breaker = open_breaker(random=Random(seed))
    now_ns = BEGAN_NS
    trial_ns = -LEASE_NS
    for what, passed_ns in events:
        now_ns += passed_ns
        if what == "ask" and not breaker.closed and breaker.admits(now_ns, LEASE_NS):
            assert now_ns >= trial_ns + LEASE_NS, "two trials at a time"
            trial_ns = now_ns
        elif what == "work":
            breaker.record_success(trial_ns, now_ns)
        elif what == "fail":
            breaker.record_failure(trial_ns, now_ns)
            trial_ns = trial_ns if breaker.closed else -LEASE_NS
        elif what.startswith("old"):
            was_closed = breaker.closed
            (breaker.record_failure if what == "old failure" else breaker.record_success)(BEGAN_NS - 1, now_ns)
            assert breaker.closed is was_closed
    if not breaker.closed:
        assert breaker.probe_due_ns <= now_ns + 30 * SECOND_NS
        pass_a_trial(breaker)
