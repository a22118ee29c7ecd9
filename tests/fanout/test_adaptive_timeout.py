"""The adaptive timeout: its speed, its bounds, and its immediate return to the ceiling."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given

from cashier.fanout.adaptive_timeout import AdaptiveTimeout
from cashier.fanout.latency_histogram import NEVER_NS

MS_NS = 1_000_000


def learned(*, ceiling_ms: int = 100, share_ms: float = 10, lessons: int = 30) -> AdaptiveTimeout:
    timeout = AdaptiveTimeout(ceiling_ms, learning=True)
    for _ in range(lessons):
        timeout.learn(1_000, round(share_ms * MS_NS), 500)
    return timeout


def test_a_step_lowers_the_timeout_by_a_fifth_down_to_a_tenth_above_the_quantile() -> None:
    timeout = AdaptiveTimeout(100, learning=True)
    seen = []
    for _ in range(14):
        timeout.learn(1_000, 10 * MS_NS, 500)
        seen.append(timeout.timeout_ms)
    assert seen[:4] == [80, 64, 51, 41]
    assert seen[-1] == 11


def test_a_step_raises_the_timeout_by_a_tenth() -> None:
    timeout = learned(share_ms=20)
    assert timeout.timeout_ms == 22
    seen = []
    for _ in range(3):
        timeout.learn(1_000, 90 * MS_NS, 500)
        seen.append(timeout.timeout_ms)
    assert seen == [24, 27, 29]


def test_the_timeout_stays_above_five_ms_and_below_a_lower_ceiling() -> None:
    assert learned(share_ms=0.1).timeout_ms == 5
    assert learned(ceiling_ms=3, share_ms=0.1).timeout_ms == 3
    assert learned(ceiling_ms=1, share_ms=0.1).timeout_ms == 1


def test_with_too_few_calls_the_timeout_stays_at_its_ceiling() -> None:
    timeout = learned()
    timeout.learn(99, 10 * MS_NS, 500)
    assert timeout.timeout_ms == 100


def test_with_an_unknown_quantile_the_timeout_grows_towards_the_ceiling() -> None:
    timeout = learned(share_ms=20)
    timeout.learn(1_000, NEVER_NS, 500)
    assert timeout.timeout_ms == 24


@pytest.mark.parametrize(
    ("calls", "cut", "gives_way"), [(1_000, 10, False), (1_000, 11, True), (20, 1, False), (20, 2, True)]
)
def test_more_than_one_timeout_in_a_hundred_restores_the_ceiling_at_once(calls: int, cut: int, gives_way: bool) -> None:
    timeout = learned()
    for _ in range(cut):
        timeout.count_timeout()
    timeout.learn(1_000, 10 * MS_NS, calls)
    assert timeout.timeout_ms == (100 if gives_way else 11)
    timeout.learn(1_000, 10 * MS_NS, calls)
    assert timeout.timeout_ms == (80 if gives_way else 11), "earlier timeouts were counted again"


def test_with_learning_off_the_timeout_stays_at_its_ceiling() -> None:
    timeout = AdaptiveTimeout(100, learning=False)
    timeout.learn(1_000, 10 * MS_NS, 500)
    assert timeout.timeout_ms == 100


def test_a_new_ceiling_keeps_the_learned_timeout() -> None:
    timeout = learned(share_ms=20)
    timeout.reconfigure(300, learning=True)
    assert timeout.timeout_ms == 22
    timeout.reconfigure(15, learning=True)
    assert timeout.timeout_ms == 15
    timeout.reconfigure(200, learning=False)
    assert timeout.timeout_ms == 200
    assert repr(timeout) == "<AdaptiveTimeout 200 of 200 ms>"


@given(
    st.integers(1, 2_000),
    st.lists(st.tuples(st.integers(0, 300), st.integers(0, 10**10) | st.just(NEVER_NS), st.integers(0, 5))),
)
def test_the_timeout_is_always_whole_and_within_its_bounds(
    ceiling_ms: int, lessons: list[tuple[int, int, int]]
) -> None:
    timeout = AdaptiveTimeout(ceiling_ms, learning=True)
    for count, share_ns, cut in lessons:
        for _ in range(cut):
            timeout.count_timeout()
        timeout.learn(count, share_ns, 100)
        assert min(5, ceiling_ms) <= timeout.timeout_ms <= ceiling_ms
