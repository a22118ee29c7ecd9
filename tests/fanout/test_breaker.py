"""The breaker: when it opens, its probes, and its recovery."""

from __future__ import annotations

from random import Random

import hypothesis.strategies as st
import pytest
from hypothesis import given

from cashier.fanout.breaker import Breaker, BreakerSettings

SECOND_NS = 1_000_000_000
LONG = BreakerSettings(open_max_s=30)
LEASE_NS = 200_000_000
STARTED_NS = 1_000 * SECOND_NS


class Steady(Random):
    """Random numbers from the middle of the range: no jitter."""

    def uniform(self, a: float, b: float) -> float:
        return (a + b) / 2


def closed_breaker(settings: BreakerSettings | None = None, random: Random | None = None) -> Breaker:
    breaker = Breaker(settings or BreakerSettings(), random or Steady())
    breaker.roll(STARTED_NS)
    return breaker


def open_breaker(
    settings: BreakerSettings | None = None, random: Random | None = None, now_ns: int = STARTED_NS
) -> Breaker:
    breaker = closed_breaker(settings, random)
    break_it(breaker, now_ns)
    return breaker


def is_closed(breaker: Breaker) -> bool:
    """A function, because the type checker does not see the change."""
    return breaker.closed


def break_it(breaker: Breaker, now_ns: int) -> None:
    for _ in range(1_000):
        if not breaker.closed:
            return
        breaker.record_failure(now_ns, now_ns)
    raise AssertionError("it does not open")


def pause_s(breaker: Breaker, now_ns: int) -> float:
    return (breaker.probe_due_ns - now_ns) / SECOND_NS


def fail_a_probe(breaker: Breaker) -> int:
    """Fail the next probe when it is due. Returns that time."""
    now_ns = breaker.probe_due_ns
    assert breaker.admits(now_ns, LEASE_NS)
    breaker.record_failure(now_ns, now_ns)
    return now_ns


def pass_a_probe(breaker: Breaker) -> int:
    now_ns = breaker.probe_due_ns
    assert breaker.admits(now_ns, LEASE_NS)
    breaker.record_success(now_ns, now_ns)
    assert breaker.closed
    return now_ns


def test_an_outage_opens_it_before_it_outweighs_ten_good_seconds() -> None:
    breaker = closed_breaker()
    for second in range(10):
        breaker.roll(STARTED_NS + second * SECOND_NS)
        breaker.successes += 500
    stopped_ns = STARTED_NS + 10 * SECOND_NS
    now_ns = stopped_ns
    while breaker.closed:
        now_ns += 2_000_000
        breaker.record_failure(now_ns, now_ns)
    assert now_ns - stopped_ns <= 2 * SECOND_NS


def test_a_short_stall_of_a_busy_source_does_not_open_it() -> None:
    breaker = closed_breaker()
    breaker.successes += 500
    breaker.roll(STARTED_NS + SECOND_NS)
    for _ in range(75):  # 150 ms of 500 a second
        breaker.record_failure(STARTED_NS + SECOND_NS, STARTED_NS + SECOND_NS)
    assert breaker.closed


@pytest.mark.parametrize(
    ("good", "bad", "opens"), [(0, 19, False), (0, 20, True), (10, 10, True), (11, 10, False), (100, 99, False)]
)
def test_it_opens_when_half_of_at_least_twenty_calls_failed(good: int, bad: int, opens: bool) -> None:
    breaker = closed_breaker()
    breaker.successes += good
    for _ in range(bad):
        assert breaker.closed
        breaker.record_failure(STARTED_NS, STARTED_NS)
    assert breaker.closed is not opens


def test_calls_older_than_ten_seconds_do_not_count() -> None:
    breaker = closed_breaker()
    breaker.successes += 100
    for _ in range(19):
        breaker.record_failure(STARTED_NS, STARTED_NS)
    assert repr(breaker) == "<Breaker closed: 19 bad, 100 good>"
    breaker.roll(STARTED_NS + 9 * SECOND_NS)
    assert repr(breaker) == "<Breaker closed: 19 bad, 100 good>"
    breaker.roll(STARTED_NS + 10 * SECOND_NS)
    assert repr(breaker) == "<Breaker closed: 0 bad, 0 good>"


def test_while_open_it_admits_one_probe_after_the_pause() -> None:
    breaker = open_breaker()
    due_ns = STARTED_NS + 2 * SECOND_NS
    assert not breaker.admits(due_ns - 1, LEASE_NS)
    assert breaker.admits(due_ns, LEASE_NS)
    assert not any(breaker.admits(due_ns + passed_ns, LEASE_NS) for passed_ns in (0, 1, LEASE_NS - 1))


def test_after_the_lease_of_a_probe_without_outcome_another_may_start() -> None:
    breaker = open_breaker()
    first_ns = STARTED_NS + 2 * SECOND_NS
    assert breaker.admits(first_ns, LEASE_NS)
    assert breaker.admits(first_ns + LEASE_NS, LEASE_NS)
    breaker.record_success(first_ns, first_ns + LEASE_NS + 1)
    assert not is_closed(breaker), "a probe past its lease closed it"
    breaker.record_success(first_ns + LEASE_NS, first_ns + LEASE_NS + 2)
    assert is_closed(breaker)


def test_a_successful_probe_closes_it_and_resets_the_counts() -> None:
    breaker = open_breaker()
    now_ns = pass_a_probe(breaker)
    assert breaker.admits(now_ns, LEASE_NS)
    for _ in range(19):
        breaker.record_failure(now_ns, now_ns)
    assert is_closed(breaker)


def test_calls_from_before_the_opening_never_count_again() -> None:
    breaker = open_breaker()
    breaker.record_success(STARTED_NS, STARTED_NS + 1)
    assert not is_closed(breaker)
    assert breaker.admits(breaker.probe_due_ns, LEASE_NS)
    probe_ns = STARTED_NS + 2 * SECOND_NS
    breaker.record_success(STARTED_NS, probe_ns + 1)
    assert not is_closed(breaker), "a call from before the opening closed it"
    breaker.record_failure(STARTED_NS, probe_ns + 1)
    breaker.record_success(probe_ns, probe_ns + 2)
    assert is_closed(breaker), "a call from before the opening ended the probe"
    for _ in range(100):
        breaker.record_failure(STARTED_NS, probe_ns + 3)
    assert is_closed(breaker), "calls from before the opening opened it again"


def test_the_pause_grows_by_half_up_to_its_bound() -> None:
    breaker = open_breaker(LONG)
    now_ns = STARTED_NS
    seen = []
    for _ in range(9):
        seen.append(round(pause_s(breaker, now_ns), 2))
        now_ns = fail_a_probe(breaker)
    assert seen == [2.0, 3.0, 4.5, 6.75, 10.12, 15.19, 22.78, 30.0, 30.0]


def test_an_address_may_be_down_for_weeks() -> None:
    breaker = open_breaker()
    for _ in range(5_000):
        now_ns = fail_a_probe(breaker)
    assert pause_s(breaker, now_ns) == 5, "a recovery is noticed within seconds"
    pass_a_probe(breaker)


@given(st.integers(0, 30), st.integers(0, 1 << 32))
def test_the_pause_has_a_jitter_of_a_tenth_within_its_bound(failures: int, seed: int) -> None:
    breaker = open_breaker(LONG, Random(seed))
    now_ns = STARTED_NS
    for _ in range(failures):
        now_ns = fail_a_probe(breaker)
    middle_s = 2 * 1.5**failures
    assert 0.9 * min(middle_s, 30) <= pause_s(breaker, now_ns) <= min(30, 1.1 * middle_s) + 1e-9


@pytest.mark.parametrize(("closed_s", "next_pause_s"), [(29, 4.5), (31, 2.0)])
def test_after_half_a_minute_closed_the_pause_is_short_again(closed_s: int, next_pause_s: float) -> None:
    breaker = open_breaker()
    fail_a_probe(breaker)
    now_ns = pass_a_probe(breaker) + closed_s * SECOND_NS
    break_it(breaker, now_ns)
    assert pause_s(breaker, now_ns) == pytest.approx(next_pause_s)


def test_without_settings_it_never_opens() -> None:
    breaker = Breaker(None, Steady())
    for _ in range(100):
        breaker.record_failure(STARTED_NS, STARTED_NS)
    assert breaker.closed


def test_turned_off_while_open_it_closes() -> None:
    breaker = open_breaker()
    breaker.reconfigure(None)
    assert breaker.admits(STARTED_NS, LEASE_NS)
    assert repr(breaker) == "<Breaker closed: 0 bad, 0 good>"


def test_new_settings_keep_it_open_and_apply_to_the_next_opening() -> None:
    breaker = open_breaker()
    breaker.reconfigure(BreakerSettings(open_s=10, open_max_s=30))
    assert pause_s(breaker, STARTED_NS) == 2
    assert pause_s(breaker, fail_a_probe(breaker)) == 15
    assert "opened 2 times" in repr(breaker)


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["pass", "fail", "work", "ask", "old failure", "old success"]), st.integers(0, 3 * SECOND_NS)
    ),
    max_size=80,
)


@given(EVENTS, st.integers(0, 1 << 32))
def test_there_is_one_probe_at_a_time_and_a_success_always_closes_it(events: list[tuple[str, int]], seed: int) -> None:
    breaker = open_breaker(LONG, Random(seed))
    now_ns = STARTED_NS
    probe_ns = -LEASE_NS
    for what, passed_ns in events:
        now_ns += passed_ns
        if what == "ask" and not breaker.closed and breaker.admits(now_ns, LEASE_NS):
            assert now_ns >= probe_ns + LEASE_NS, "two probes at a time"
            probe_ns = now_ns
        elif what == "work":
            breaker.record_success(probe_ns, now_ns)
        elif what == "fail":
            breaker.record_failure(probe_ns, now_ns)
            probe_ns = probe_ns if breaker.closed else -LEASE_NS
        elif what.startswith("old"):
            was_closed = breaker.closed
            (breaker.record_failure if what == "old failure" else breaker.record_success)(STARTED_NS - 1, now_ns)
            assert breaker.closed is was_closed
    if not breaker.closed:
        assert breaker.probe_due_ns <= now_ns + 30 * SECOND_NS
        pass_a_probe(breaker)


def is_open_after(outcomes: str, keys: str, start: Breaker | None = None) -> bool:
    """Record a call each 10 ms: `+` succeeded, `-` failed. Its key is a letter, `.` for none."""
    breaker = start or closed_breaker()
    now_ns = STARTED_NS
    for outcome, key in zip(outcomes, keys, strict=True):
        now_ns += 10_000_000
        breaker.roll(now_ns)
        if outcome == "+":
            breaker.successes += 1
        else:
            breaker.record_failure(now_ns, now_ns, None if key == "." else key)
    return not breaker.closed


@pytest.mark.parametrize(
    ("outcomes", "keys", "opens"),
    [
        ("+" * 100 + "-" * 110, "." * 100 + "a" * 110, False),  # while others may still succeed
        ("+" * 100 + "-" * 210, "." * 100 + "a" * 210, True),  # nothing does for more than a second
        ("------++++" * 10, "aaaaaabcde" * 10, False),  # one payer, six of ten
        ("---------+" * 50, "aaaaaaaaab" * 50, False),
        ("------++++" * 10, "......bcde" * 10, True),  # no key: every failure counts
        ("-" * 19, "a" * 19, False),
        ("-" * 20, "a" * 20, True),  # no other payer succeeds
        ("-" * 26, "abcdefghijklmnopqrstuvwxyz", True),
        ("+" * 26 + "-" * 26, "abcdefghijklmnopqrstuvwxyz" * 2, True),  # as many keys as successes
    ],
)
def test_failures_of_one_key_count_once_unless_nothing_succeeds(outcomes: str, keys: str, opens: bool) -> None:
    assert is_open_after(outcomes, keys) is opens


def test_opened_by_few_keys_it_lets_another_one_probe_at_once() -> None:
    """One payer who retries before anyone else comes must not shut out those who come then."""
    breaker = closed_breaker()
    assert is_open_after("-" * 20, "ab" * 10, breaker)
    now_ns = STARTED_NS + SECOND_NS
    assert not breaker.admits(now_ns, LEASE_NS, "a")
    assert not breaker.admits(now_ns, LEASE_NS)
    assert breaker.admits(now_ns, LEASE_NS, "c")
    assert not breaker.admits(now_ns, LEASE_NS, "d"), "one probe at a time"
    breaker.record_success(now_ns, now_ns)
    assert is_closed(breaker)


def test_few_probes_of_other_keys_precede_the_pause_and_none_prolongs_it() -> None:
    breaker = closed_breaker()
    assert is_open_after("-" * 20, "a" * 20, breaker)
    due_ns, now_ns, probes = breaker.probe_due_ns, STARTED_NS + SECOND_NS, 0
    for number in range(100):
        if breaker.admits(now_ns, LEASE_NS, f"u_{number}"):
            probes += 1
            breaker.record_failure(now_ns, now_ns, f"u_{number}")
    assert 0 < probes <= 8
    assert breaker.probe_due_ns == due_ns


@pytest.mark.parametrize("keys", ["abcdefghijklmnopqrst", "." * 20, "a" * 19 + "."])
def test_opened_by_many_keys_or_without_one_it_lets_none_probe_before_the_pause(keys: str) -> None:
    breaker = closed_breaker()
    assert is_open_after("-" * 20, keys, breaker)
    assert not breaker.admits(STARTED_NS + SECOND_NS, LEASE_NS, "new")


def test_a_key_whose_probe_failed_lets_others_probe_first_for_a_second() -> None:
    """A payer with six of ten calls must not take every probe."""
    breaker = open_breaker()
    now_ns = breaker.probe_due_ns
    assert breaker.admits(now_ns, LEASE_NS, "bad")
    breaker.record_failure(now_ns, now_ns, "bad")
    now_ns = breaker.probe_due_ns
    assert not breaker.admits(now_ns, LEASE_NS, "bad")
    assert not breaker.admits(now_ns + SECOND_NS - 1, LEASE_NS, "bad")
    assert breaker.admits(now_ns + SECOND_NS - 1, LEASE_NS, "other")
    alone = open_breaker()
    assert alone.admits(alone.probe_due_ns, LEASE_NS, "bad")
    alone.record_failure(alone.probe_due_ns, alone.probe_due_ns, "bad")
    assert alone.admits(alone.probe_due_ns + SECOND_NS, LEASE_NS, "bad"), "without others it goes on"


def test_a_key_counts_again_after_ten_seconds() -> None:
    breaker = closed_breaker()
    for second in range(0, 30, 10):
        now_ns = STARTED_NS + second * SECOND_NS
        breaker.roll(now_ns)
        for _ in range(3):
            breaker.record_failure(now_ns, now_ns, "a")
        assert repr(breaker) == "<Breaker closed: 1 bad, 0 good>"


def test_repeated_failures_of_more_than_ten_seconds_ago_do_not_count() -> None:
    breaker = closed_breaker()
    for second in range(0, 100):
        now_ns = STARTED_NS + second * SECOND_NS
        breaker.record_failure(now_ns, now_ns, "a")
        assert is_closed(breaker), "19 failures in ten seconds are too few"


def test_the_memory_for_failing_keys_is_bounded_and_then_every_failure_counts() -> None:
    breaker = closed_breaker(BreakerSettings(calls=10**6))
    for number in range(5_000):
        breaker.record_failure(STARTED_NS, STARTED_NS, f"u_{number}")
    assert len(breaker._failing_keys) <= 1024
    for _ in range(10):
        breaker.record_failure(STARTED_NS, STARTED_NS, "u_4999")
    assert repr(breaker) == "<Breaker closed: 5010 bad, 0 good>"
    breaker.record_failure(STARTED_NS, STARTED_NS + 10 * SECOND_NS, "u_0")
    assert len(breaker._failing_keys) == 1


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans(), st.sampled_from("abc.")), max_size=120))
def test_with_keys_it_opens_no_sooner_than_without(calls: list[tuple[int, bool, str]]) -> None:
    keyed, plain = closed_breaker(), closed_breaker()
    now_ns = STARTED_NS
    for passed_s, good, key in calls:
        now_ns += passed_s * SECOND_NS
        for breaker, name in ((keyed, None if key == "." else key), (plain, None)):
            breaker.roll(now_ns)
            if good and breaker.closed:
                breaker.successes += 1
            elif breaker.closed:
                breaker.record_failure(now_ns, now_ns, name)
        if not plain.closed:
            return
        assert keyed.closed


def test_a_pause_ends_when_something_else_answers_again() -> None:
    breaker = open_breaker(LONG)
    for _ in range(8):
        now_ns = fail_a_probe(breaker)
    assert pause_s(breaker, now_ns) == 30
    breaker.probe_soon(now_ns + SECOND_NS)
    assert breaker.admits(now_ns + SECOND_NS, LEASE_NS)
    assert not breaker.admits(now_ns + SECOND_NS, LEASE_NS), "one probe at a time"
    breaker.record_failure(now_ns + SECOND_NS, now_ns + SECOND_NS)
    assert pause_s(breaker, now_ns + SECOND_NS) == 30


def test_a_closed_breaker_has_no_pause_to_end() -> None:
    breaker = closed_breaker()
    breaker.probe_soon(STARTED_NS)
    assert is_closed(breaker)
