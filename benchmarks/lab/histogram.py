"""Latencies in an HDR histogram: 1 µs to 60 s, three significant digits."""

from __future__ import annotations

from hdrh.histogram import HdrHistogram  # type: ignore[import-untyped]  # ships no types

LOWEST_US, HIGHEST_US, DIGITS = 1, 60_000_000, 3


class Histogram:
    """Records seconds, returns milliseconds. Every quantile of an empty one is NaN."""

    def __init__(self) -> None:
        self._counts = HdrHistogram(LOWEST_US, HIGHEST_US, DIGITS)

    def __repr__(self) -> str:
        return f"Histogram({self.count} values, p50 {self.at(0.5):.3g} ms, p99 {self.at(0.99):.3g} ms)"

    @property
    def count(self) -> int:
        count: int = self._counts.total_count
        return count

    def record(self, seconds: float) -> None:
        self._counts.record_value(min(HIGHEST_US, max(LOWEST_US, round(seconds * 1e6))))

    def add(self, other: Histogram) -> None:
        self._counts.add(other._counts)

    def at(self, quantile: float) -> float:
        """In ms."""
        value_ms: float = self._counts.get_value_at_percentile(quantile * 100) / 1000
        return value_ms if self.count else float("nan")
