"""The limits of a source's calls: how many at a time, and how many extra ones."""

from __future__ import annotations

from collections.abc import Sequence

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import given

from cashier.fanout.limiter import UNLIMITED, Limiter, LimiterSettings
from cashier.fanout.retry_budget import RetryBudget


def test_without_settings_there_is_no_limit() -> None:
    limiter = Limiter(None)
    limiter.shrink(1, 2)
    limiter.grow()
    assert limiter.limit == UNLIMITED
    assert repr(limiter) == "<Limiter off>"


def test_concurrent_losses_cut_the_limit_by_a_tenth_once() -> None:
    limiter = Limiter(LimiterSettings(start=100))
    for began in range(100):
        limiter.shrink(began, 100 + began)
    assert limiter.limit == 90
    limiter.shrink(100, 200)
    assert limiter.limit == 81
    assert repr(limiter) == "<Limiter 81>"


@pytest.mark.parametrize(("keys", "cuts"), [("aaaaaaaa", 1), ("abababab", 2), ("abcdefgh", 8), ("a.a.a.a.", 5)])
def test_losses_of_one_key_cut_the_limit_once_in_ten_seconds(keys: str, cuts: int) -> None:
    """A point stands for a loss without a key, which always counts."""
    limiter, limit, now_ns = Limiter(LimiterSettings(start=100)), 100, 1_000_000_000_000
    for _ in range(2):
        for number, key in enumerate(keys):
            limiter.shrink(now_ns + number, now_ns + number + 1, None if key == "." else key)
        for _ in range(cuts):
            limit = limit * 9 // 10
        assert limiter.limit == limit
        now_ns += 10_000_000_000


def test_the_limit_grows_by_one_per_limit_successes() -> None:
    limiter = Limiter(LimiterSettings(start=10))
    for _ in range(9):
        limiter.grow()
    assert limiter.limit == 10
    limiter.grow()
    assert limiter.limit == 11


def test_a_cut_resets_the_credit_for_growth() -> None:
    limiter = Limiter(LimiterSettings(start=10))
    for _ in range(9):
        limiter.grow()
    limiter.shrink(1, 2)
    limiter.grow()
    assert limiter.limit == 9


def test_the_limit_recovers_from_its_lower_bound() -> None:
    limiter = Limiter(LimiterSettings(start=1))
    for _ in range(sum(range(1, 20))):
        limiter.grow()
    assert limiter.limit == 20


def test_after_a_recovery_the_limit_is_small_and_quick_answers_raise_it_to_its_start() -> None:
    limiter = Limiter(LimiterSettings(start=100))
    limiter.restart()
    assert limiter.limit == 10
    for _ in range(90):
        limiter.ramp()
    assert (limiter.limit, limiter.ramp_to) == (100, 100)
    limiter.ramp()
    assert (limiter.limit, limiter.ramp_to) == (100, 0)


def test_after_a_recovery_the_limit_grows_faster_until_the_first_loss_halves_it() -> None:
    limiter = Limiter(LimiterSettings(start=100))
    limiter.restart()
    for _ in range(80):
        limiter.grow()
    assert limiter.limit == 20
    limiter.shrink(1, 2)
    assert limiter.limit == 10
    for _ in range(80):
        limiter.grow()
    assert limiter.limit == 16
    limiter.shrink(3, 4)
    assert limiter.limit == 14


SETTINGS = st.builds(
    lambda start, least, more: LimiterSettings(start, least, least + more),
    st.integers(1, 500),
    st.integers(1, 50),
    st.integers(0, 400),
)


@given(SETTINGS, st.lists(st.booleans(), max_size=200), SETTINGS)
def test_the_limit_always_stays_within_its_bounds(
    numbers: LimiterSettings, losses: list[bool], others: LimiterSettings
) -> None:
    limiter = Limiter(numbers)
    assert numbers.least <= limiter.limit <= numbers.most
    for now, loss in enumerate(losses):
        if loss:
            limiter.shrink(now, now)
        else:
            for _ in range(50):
                limiter.grow()
        assert numbers.least <= limiter.limit <= numbers.most
    limiter.reconfigure(others)
    assert others.least <= limiter.limit <= others.most


def test_new_bounds_keep_the_learned_limit_within_them() -> None:
    limiter = Limiter(LimiterSettings(start=100))
    limiter.reconfigure(LimiterSettings(start=10, most=300))
    assert limiter.limit == 100
    limiter.reconfigure(None)
    assert limiter.limit == UNLIMITED
    limiter.reconfigure(LimiterSettings(start=30))
    assert limiter.limit == 30


def test_crossed_bounds_are_rejected() -> None:
    with pytest.raises(msgspec.ValidationError, match="least = 9 is above most = 3"):
        msgspec.convert({"least": 9, "most": 3}, LimiterSettings)


SECOND_NS = 1_000_000_000
TEN_NS = 10 * SECOND_NS
STEPS = st.lists(st.tuples(st.integers(0, 4 * SECOND_NS), st.integers(0, 400), st.integers(0, 30)), max_size=60)


def lately(moments_ns: Sequence[int], now_ns: int) -> int:
    return sum(now_ns - TEN_NS < each <= now_ns for each in moments_ns)


@given(STEPS, st.integers(0, 10_000), st.integers(0, 10**15))
def test_any_ten_seconds_have_at_most_ten_extra_calls_or_the_share_of_first_calls(
    steps: list[tuple[int, int, int]], share_bps: int, started_ns: int
) -> None:
    budget = RetryBudget(share_bps)
    now_ns = started_ns
    budget.roll(now_ns)
    first_ns: list[int] = []
    extra_ns: list[int] = []
    for passed_ns, firsts, wanted in steps:
        now_ns += passed_ns
        budget.roll(now_ns)
        budget.first_calls += firsts
        first_ns += [now_ns] * firsts
        for _ in range(wanted):
            if budget.take(now_ns):
                extra_ns.append(now_ns)
                assert lately(extra_ns, now_ns) <= max(10, share_bps / 10_000 * lately(first_ns, now_ns))


@pytest.mark.parametrize("began_s", [0, 5, 10**6])
def test_a_quiet_source_gets_ten_extra_calls_in_ten_seconds(began_s: int) -> None:
    budget = RetryBudget(500)
    taken = [budget.take(began_s * SECOND_NS) for _ in range(12)]
    assert taken == [True] * 10 + [False] * 2
    assert not budget.take((began_s + 10) * SECOND_NS)
    assert budget.take((began_s + 11) * SECOND_NS)


def test_the_least_number_of_extra_calls_may_be_another() -> None:
    budget = RetryBudget(500, least_per_s=3)
    assert sum(budget.take(0) for _ in range(100)) == 30


def test_a_busy_source_gets_exactly_its_share() -> None:
    budget = RetryBudget(500)
    budget.first_calls += 1_000
    assert sum(budget.take(0) for _ in range(100)) == 50
    assert repr(budget) == "<RetryBudget 50 extra for 1000 first calls>"


def test_first_calls_count_for_less_than_ten_seconds() -> None:
    budget = RetryBudget(500)
    budget.first_calls += 1_000
    budget.roll(9 * SECOND_NS)
    assert sum(budget.take(9 * SECOND_NS) for _ in range(100)) == 50
    budget.roll(10 * SECOND_NS)
    assert not budget.take(10 * SECOND_NS)
