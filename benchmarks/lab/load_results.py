"""Outcomes of the requests of one interval of load: counts, latencies, how busy the load was."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from hdrh.histogram import HdrHistogram  # type: ignore[import-untyped]  # ships no types

LOWEST_US, HIGHEST_US, DIGITS = 1, 60_000_000, 3

# In place of the status: 503 OVERLOADED, as opposed to the 503 of a consultation that was started.
REFUSED = -503
# The program closed the connection.
LOST = 0
# Found no connection in time.
NEVER_SENT = -1
OK = 200


class Histogram:
    """Records seconds, 1 µs to 60 s; returns milliseconds. Quantiles of an empty one are NaN."""

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


class RequestOutcome(NamedTuple):
    """One request. `request`: its index.

    `status`: or a constant above. `latency_s`: since `due_s`.
    """

    due_s: float
    request: int
    status: int
    latency_s: float


class LoadInterval:
    """One interval of load.

    `histogram`: requests answered with 200. `outcomes`: each request, if kept. `late`: how late the
    load sent open arrivals that found a connection; part of their latency. `wrong`: problems of the
    answers that were checked.
    """

    def __init__(self, *, keep: bool = False) -> None:
        self.seconds = 0.0
        self.load_busy = 0.0
        self.histogram = Histogram()
        self.refusals = Histogram()
        self.late = Histogram()
        self.statuses: Counter[int] = Counter()
        self.outcomes: list[RequestOutcome] = []
        self.looked_at = 0
        self.wrong: list[str] = []
        self._keep = keep

    def __repr__(self) -> str:
        return f"LoadInterval({self.per_s:.0f}/s, {dict(self.statuses)}, {self.histogram!r}, load {self.load_busy:.0%})"

    @property
    def answered(self) -> int:
        return self.statuses[OK]

    @property
    def refused(self) -> int:
        return self.statuses[REFUSED]

    @property
    def failed(self) -> int:
        """Neither answered nor refused: other statuses, lost, never sent."""
        return self.statuses.total() - self.answered - self.refused

    @property
    def per_s(self) -> float:
        """Requests answered per second."""
        return self.answered / self.seconds if self.seconds else 0.0

    def at(self, quantile: float) -> float:
        """Latency of answered requests in ms."""
        return self.histogram.at(quantile)

    def add(self, other: LoadInterval) -> None:
        """Add an interval that was measured separately."""
        if seconds := self.seconds + other.seconds:
            self.load_busy = (self.load_busy * self.seconds + other.load_busy * other.seconds) / seconds
            self.seconds = seconds
        for mine, its in ((self.histogram, other.histogram), (self.refusals, other.refusals), (self.late, other.late)):
            mine.add(its)
        self.statuses += other.statuses
        self.outcomes += other.outcomes
        self.looked_at += other.looked_at
        self.wrong = [*self.wrong, *other.wrong]

    def count(self, outcome: RequestOutcome) -> None:
        self.statuses[outcome.status] += 1
        if outcome.status == OK:
            self.histogram.record(outcome.latency_s)
        elif outcome.status == REFUSED:
            self.refusals.record(outcome.latency_s)
        if self._keep:
            self.outcomes.append(outcome)
