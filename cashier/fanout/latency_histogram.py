"""The recent latencies of a source as counts in buckets.

Feeds timeout, hedge, deadline check and metrics.

A bucket is a sixteenth of an octave wide: a quantile is at most 6.3 % or 1 µs too high, never too
low. Three windows of ten seconds cover the last twenty to thirty seconds (Finagle's
WindowedPercentileHistogram). The caller passes the time.
"""

from __future__ import annotations

import sys
from bisect import bisect_left
from collections.abc import Iterable
from itertools import accumulate

NEVER_NS = sys.maxsize
WINDOW_NS = 10_000_000_000
_WINDOWS = 3
_LONGEST_US = (1 << 26) - 1  # 67 s, beyond any wait of a consultation
_SIZE = 369
_TIMEOUTS = _SIZE - 1  # the last bucket: longer than the wait


def bucket_index(us: int) -> int:
    """Return the bucket of a latency in µs."""
    if us < 32:
        return us if us > 0 else 0
    if us > _LONGEST_US:
        return _TIMEOUTS - 1
    shift = us.bit_length() - 5
    return (shift << 4) + (us >> shift)


def bucket_bound_ns(index: int) -> int:
    """Return the upper bound of a bucket; NEVER_NS for the bucket of timeouts."""
    if index >= _TIMEOUTS:
        return NEVER_NS
    if index < 32:
        return (index + 1) * 1_000
    return ((index & 15) + 17 << (index >> 4) - 1) * 1_000


class LatencyHistogram:
    """The counts of one source. Record each call, read `quantiles` once a second."""

    __slots__ = ("_counts", "_rotate_ns", "_windows")

    def __init__(self) -> None:
        self._windows = [[0] * _SIZE for _ in range(_WINDOWS)]
        self._counts = self._windows[0]
        self._rotate_ns = 0

    def record(self, ns: int) -> None:
        """Count an answered call, also a late one and one that a faster attempt superseded."""
        self._counts[bucket_index(ns // 1_000)] += 1

    def record_timeout(self) -> None:
        """Count a call that was cancelled: its latency exceeds the wait."""
        self._counts[_TIMEOUTS] += 1

    def quantiles(self, shares: Iterable[float], now_ns: int) -> tuple[int, tuple[int, ...]]:
        """Return the number of calls, and for each share the ns within which it ended.

        NEVER_NS if that is unknown.
        """
        self._rotate(now_ns)
        sums = list(accumulate(map(sum, zip(*self._windows, strict=True))))
        count = sums[-1]
        if not count:
            return 0, tuple(NEVER_NS for _ in shares)
        return count, tuple(bucket_bound_ns(bisect_left(sums, share * count)) for share in shares)

    def _rotate(self, now_ns: int) -> None:
        """Drop the oldest window once the newest is full; after a long silence drop all of them."""
        if not self._rotate_ns:
            self._rotate_ns = now_ns + WINDOW_NS
        turns = 0
        while now_ns >= self._rotate_ns and turns < _WINDOWS:
            self._windows.insert(0, [0] * _SIZE)
            self._windows.pop()
            self._rotate_ns += WINDOW_NS
            turns += 1
        self._counts = self._windows[0]
        if now_ns >= self._rotate_ns:
            self._rotate_ns = now_ns + WINDOW_NS

    def __repr__(self) -> str:
        return f"<LatencyHistogram of {sum(map(sum, self._windows))} calls>"
