"""The lifetime of a cached answer: its marks in order, within the settings."""

from __future__ import annotations

from random import Random

import hypothesis.strategies as st
import pytest
from hypothesis import given

from cashier.fanout.cache_lifetime import CacheSettings, lifetime

SECOND_NS = 1_000_000_000
BORN_NS = 5_000 * SECOND_NS


@given(
    st.floats(0, 1_000),
    st.floats(0, 1_000),
    st.floats(0, 1_000),
    st.integers(0, 5 * SECOND_NS),
    st.booleans(),
    st.integers(0, 1 << 32),
)
def test_the_marks_are_in_order_and_none_exceeds_the_settings(
    fresh_s: float, stale_s: float, error_s: float, took_ns: int, not_found: bool, seed: int
) -> None:
    policy = CacheSettings(fresh_s, stale_s, error_s, 7.0)
    until = lifetime(policy, BORN_NS, took_ns, not_found=not_found, random=Random(seed))
    assert BORN_NS <= until.early_ns <= until.fresh_ns <= until.stale_ns <= until.error_ns
    if not_found:
        assert until.early_ns == until.error_ns == BORN_NS + 7 * SECOND_NS
    else:
        assert until.fresh_ns <= BORN_NS + round(fresh_s * SECOND_NS)
        assert until.stale_ns <= BORN_NS + round(max(fresh_s, stale_s) * SECOND_NS)
        assert until.error_ns <= BORN_NS + round(max(fresh_s, stale_s, error_s) * SECOND_NS)


def test_answers_fetched_together_expire_up_to_a_tenth_apart() -> None:
    random = Random(1)
    ends_s = [
        (lifetime(CacheSettings(100), BORN_NS, 0, not_found=False, random=random).fresh_ns - BORN_NS) / SECOND_NS
        for _ in range(500)
    ]
    assert 90 <= min(ends_s) < 91
    assert 99 < max(ends_s) <= 100


def test_slow_answers_are_refreshed_earlier() -> None:
    random = Random(1)

    def earlier_ms(took_ms: int) -> float:
        spans = [
            lifetime(CacheSettings(100), BORN_NS, took_ms * 1_000_000, not_found=False, random=random)
            for _ in range(2_000)
        ]
        return sum(each.fresh_ns - each.early_ns for each in spans) / len(spans) / 1e6

    assert earlier_ms(0) == 0
    assert earlier_ms(10) == pytest.approx(10, rel=0.15)
    assert earlier_ms(100) == pytest.approx(100, rel=0.15)


def test_without_configured_times_nothing_is_cached() -> None:
    policy = CacheSettings()
    assert not policy.on
    assert lifetime(policy, BORN_NS, 10, not_found=False, random=Random(1)).error_ns == BORN_NS
    assert lifetime(policy, BORN_NS, 10, not_found=True, random=Random(1)).error_ns == BORN_NS


@pytest.mark.parametrize(
    "policy", [CacheSettings(1), CacheSettings(0, 1), CacheSettings(0, 0, 1), CacheSettings(0, 0, 0, 1)]
)
def test_any_of_the_four_times_turns_it_on(policy: CacheSettings) -> None:
    assert policy.on
    assert policy.faults() == ()


@pytest.mark.parametrize(
    ("policy", "fault"),
    [
        (CacheSettings(10, 5), "stale_s = 5 is below fresh_s = 10"),
        (CacheSettings(10, 20, 15), "error_s = 15 is below"),
        (CacheSettings(10, 0, 5), "error_s = 5 is below"),
    ],
)
def test_contradicting_times_are_reported(policy: CacheSettings, fault: str) -> None:
    [fault] = policy.faults()
    assert fault.startswith(fault)


def test_the_longest_use_is_the_maximum_of_all_times() -> None:
    assert CacheSettings(10, 300, 1_800).longest_s == 1_800
    assert CacheSettings(10).longest_s == 10
