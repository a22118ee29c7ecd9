"""What came of the requests of one interval of load: counts, latencies, how busy the load was. Sends nothing."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from benchmarks.lab.histogram import Histogram

# In the place of its status: a refusal (503 OVERLOADED), told apart from the 503 of a consultation that began and came to nothing.
REFUSED = -503
# Cut off by the other side.
LOST = 0
# Found no connection in time.
NEVER_SENT = -1
OK = 200


class RequestOutcome(NamedTuple):
    """One request: when it was meant to go out, which of the requests it was, its status or one of the above, its latency from then on."""

    due_s: float
    request: int
    status: int
    latency_s: float


class LoadInterval:
    """One interval. `histogram`: of those answered with 200. `outcomes`: each single one, where they were asked for.

    `late`: how late the load itself sent, of open arrivals that found a connection; it is part of their latency. `wrong`: what was wrong
    with the answers of those that were looked at.
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
        return f"Stretch({self.per_s:.0f}/s, {dict(self.statuses)}, {self.histogram!r}, load {self.load_busy:.0%})"

    @property
    def answered(self) -> int:
        return self.statuses[OK]

    @property
    def refused(self) -> int:
        return self.statuses[REFUSED]

    @property
    def failed(self) -> int:
        """Neither answered nor refused: other statuses, cut off, never sent."""
        return self.statuses.total() - self.answered - self.refused

    @property
    def per_s(self) -> float:
        """Answered."""
        return self.answered / self.seconds if self.seconds else 0.0

    def at(self, quantile: float) -> float:
        """Latency of those answered, in ms."""
        return self.histogram.at(quantile)

    def add(self, other: LoadInterval) -> None:
        """Take in a interval that was measured apart."""
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
