"""The histogram: its quantiles against the true ones, its windows, and timeouts."""

from __future__ import annotations

import itertools
import math

import hypothesis.strategies as st
from hypothesis import given

from cashier.fanout.latency_histogram import NEVER_NS, WINDOW_NS, LatencyHistogram, bucket_bound_ns, bucket_index

LONGEST_NS = ((1 << 26) - 1) * 1_000
SHARES = (0.1, 0.5, 0.95, 0.999, 1.0)


def sketch_of(*took_ns: int) -> LatencyHistogram:
    histogram = LatencyHistogram()
    for ns in took_ns:
        histogram.record(ns)
    return histogram


@given(st.integers(0, LONGEST_NS))
def test_the_bound_of_a_bucket_is_less_than_a_sixteenth_above_its_values(ns: int) -> None:
    bound_ns = bucket_bound_ns(bucket_index(ns // 1_000))
    assert ns < bound_ns <= max(ns * 1.0625, ns + 1_000) + 1_000


@given(st.lists(st.integers(0, LONGEST_NS), min_size=1, max_size=300), st.sampled_from(SHARES))
def test_a_quantile_is_at_most_a_sixteenth_above_the_true_one_and_never_below(took_ns: list[int], share: float) -> None:
    count, (found_ns,) = sketch_of(*took_ns).quantiles((share,), 1)
    true_ns = sorted(took_ns)[math.ceil(share * len(took_ns)) - 1]
    assert count == len(took_ns)
    assert true_ns < found_ns <= max(true_ns * 1.063, true_ns + 1_000) + 1_000


def test_buckets_have_no_gaps() -> None:
    indices = [bucket_index(us) for us in range(1 << 14)]
    assert all(after - before in (0, 1) for before, after in itertools.pairwise(indices))
    assert all(bucket_bound_ns(index) < bucket_bound_ns(index + 1) for index in range(bucket_index(1 << 25)))


def test_a_very_long_latency_counts_in_the_last_bucket_of_answers() -> None:
    count, (found_ns,) = sketch_of(10**15).quantiles((1.0,), 1)
    assert (count, found_ns) == (1, bucket_bound_ns(bucket_index(10**9)))
    assert found_ns < NEVER_NS


def test_a_clock_that_is_set_back_does_no_harm() -> None:
    assert sketch_of(-5_000_000).quantiles((1.0,), 1) == (1, (1_000,))


def test_without_calls_no_quantile_is_known() -> None:
    assert LatencyHistogram().quantiles((0.5, 0.9), 1) == (0, (NEVER_NS, NEVER_NS))


def test_a_quantile_among_timeouts_is_unknown() -> None:
    histogram = sketch_of(*[1_000_000] * 98)
    histogram.record_timeout()
    histogram.record_timeout()
    assert histogram.quantiles((0.98, 0.99), 1) == (100, (bucket_bound_ns(bucket_index(1_000)), NEVER_NS))


@given(st.integers(0, 3 * WINDOW_NS), st.integers(0, 5 * WINDOW_NS))
def test_a_call_counts_for_twenty_to_thirty_seconds(called_ns: int, later_ns: int) -> None:
    """Quantiles are read once a second, as in a guard."""
    histogram = LatencyHistogram()
    started_ns = 7 * WINDOW_NS
    for now_ns in range(started_ns, started_ns + called_ns, 1_000_000_000):
        histogram.quantiles((), now_ns)
    histogram.record(1)
    for now_ns in range(started_ns + called_ns, started_ns + called_ns + later_ns, 1_000_000_000):
        histogram.quantiles((), now_ns)
    count, _ = histogram.quantiles((), started_ns + called_ns + later_ns)
    if later_ns <= 2 * WINDOW_NS - 1_000_000_000:
        assert count == 1
    if later_ns > 3 * WINDOW_NS:
        assert count == 0


def test_after_a_long_silence_all_windows_are_empty_and_a_new_one_starts() -> None:
    histogram = sketch_of(1, 2, 3)
    histogram.quantiles((), 5)
    assert histogram.quantiles((), 100 * WINDOW_NS)[0] == 0
    histogram.record(1)
    second_ns = WINDOW_NS // 10
    counts = [histogram.quantiles((), 100 * WINDOW_NS + seconds * second_ns)[0] for seconds in range(31)]
    assert counts == [1] * 30 + [0]
    assert repr(histogram) == "<LatencyHistogram of 0 calls>"
