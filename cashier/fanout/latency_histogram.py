"""Sketch: how long the calls of a source have taken of late, as counts in buckets. One feeds timeout, hedge, deadline sense and metrics.

Buckets are a sixteenth of an octave wide, so a quantile is at most 6.3 % or 1 µs too high, never too low. Three windows of ten seconds:
the last twenty to thirty seconds count (Finagle's WindowedPercentileHistogram). No clock is read here.
"""

from __future__ import annotations

import sys
from bisect import bisect_left
from collections.abc import Iterable
from itertools import accumulate

NEVER_NS = sys.maxsize
WINDOW_NS = 10_000_000_000
_WINDOWS = 3
_LONGEST_US = (1 << 26) - 1  # 67 s: no call of a consultation is waited for so long
_SIZE = 369
_CUT = _SIZE - 1  # the last bucket: longer than we waited


def bucket(us: int) -> int:
    """The index of the bucket for a latency in µs."""
    if us < 32:
        return max(us, 0)
    us = min(us, _LONGEST_US)
    shift = us.bit_length() - 5
    return (shift << 4) + (us >> shift)


def longest_ns(index: int) -> int:
    """The upper bound of a bucket; NEVER_NS for that of the calls that were not waited for."""
    if index >= _CUT:
        return NEVER_NS
    if index < 32:
        return (index + 1) * 1_000
    return ((index & 15) + 17 << (index >> 4) - 1) * 1_000


class LatencyHistogram:
    """Counts of one source. `took` and `cut` while calls end, `quantiles` once a second."""

    __slots__ = ("_counts", "_turn_ns", "_windows")

    def __init__(self) -> None:
        self._windows = [[0] * _SIZE for _ in range(_WINDOWS)]
        self._counts = self._windows[0]
        self._turn_ns = 0

    def took(self, ns: int) -> None:
        """A call was answered after so long, however late, and also where another answer had been faster."""
        self._counts[bucket(ns // 1_000)] += 1

    def cut(self) -> None:
        """A call was given up: it would have taken longer than we waited."""
        self._counts[_CUT] += 1

    def quantiles(self, shares: Iterable[float], now_ns: int) -> tuple[int, tuple[int, ...]]:
        """How many calls count now, and for each share the ns within which so many of them ended. NEVER_NS where that is not known."""
        self._turn(now_ns)
        sums = list(accumulate(map(sum, zip(*self._windows, strict=True))))
        count = sums[-1]
        if not count:
            return 0, tuple(NEVER_NS for _ in shares)
        return count, tuple(longest_ns(bisect_left(sums, share * count)) for share in shares)

    def _turn(self, now_ns: int) -> None:
        """Forget the oldest window once the newest is full; after a long silence all of them."""
        if not self._turn_ns:
            self._turn_ns = now_ns + WINDOW_NS
        turns = 0
        while now_ns >= self._turn_ns and turns < _WINDOWS:
            self._windows.insert(0, [0] * _SIZE)
            self._windows.pop()
            self._turn_ns += WINDOW_NS
            turns += 1
        self._counts = self._windows[0]
        if now_ns >= self._turn_ns:
            self._turn_ns = now_ns + WINDOW_NS

    def __repr__(self) -> str:
        return f"<Sketch of {sum(map(sum, self._windows))} calls>"
