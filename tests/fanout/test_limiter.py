"""The limiter: its bounds, its growth, and one cut per loss."""

from __future__ import annotations

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import given

from cashier.fanout.limiter import UNLIMITED, Limiter, LimiterSettings


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
