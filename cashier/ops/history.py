"""The numbers of all workers during the last minutes: rates, quantiles and trends.

They are differences of snapshots that this process keeps. No worker is asked.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from msgspec import Struct

from cashier.metrics.families import BUCKET_BOUNDS_NS
from cashier.metrics.snapshot import HistogramValue, Snapshot

# Between two samples. Rates and quantiles are of the last `WINDOW_S`; trends of the last
# `MOST_POINTS` samples, five minutes.
STEP_S = 5.0
WINDOW_S = 30.0
MOST_POINTS = 60
# A sample per step within the window, and the one before it.
_SAMPLES = int(WINDOW_S / STEP_S) + 2
_MS_NS = 1_000_000
_NOTHING = HistogramValue((0,) * (len(BUCKET_BOUNDS_NS) + 1), 0)

Labels = tuple[str, ...]

# Metrics that the port itself reads. `ANSWERS`: of a source, by status and reason.
CONSULTATIONS = "cashier_consultation_duration_seconds"
ANSWERS = "cashier_source_answers_total"
DURATIONS = "cashier_source_duration_seconds"

# Outcomes of a consultation without an answer, by our fault or a source's.
FAILED_OUTCOMES = frozenset({"unavailable", "error"})
# Statuses of an ask that brought an answer, and of one that was not needed or came too late.
GOOD = frozenset({"FRESH", "CACHED", "STALE"})
NEUTRAL = frozenset({"SKIPPED", "PENDING"})


class Quantiles(Struct, frozen=True):
    """In ms, from buckets: 1000 means a second or more. None without values."""

    p50_ms: float | None = None
    p95_ms: float | None = None
    p99_ms: float | None = None


class TrendPoint(Struct, frozen=True):
    """One step: rate per second, p99 in ms, and the share of bad ends from 0 to 1."""

    rate: float
    p99_ms: float | None
    bad: float


class Window(NamedTuple):
    """What was counted from one snapshot to a later one, `span_s` apart."""

    before: Snapshot
    after: Snapshot
    span_s: float

    def counted(self, name: str) -> Iterator[tuple[Labels, int]]:
        """By labels, how much a counter grew."""
        before = self.before.get(name, {})
        for labels, value in self.after.get(name, {}).items():
            if isinstance(value, int):
                was = before.get(labels, 0)
                yield labels, max(0, value - was) if isinstance(was, int) else value

    def recorded(self, name: str) -> Iterator[tuple[Labels, HistogramValue]]:
        """By labels, what a histogram took."""
        before = self.before.get(name, {})
        for labels, value in self.after.get(name, {}).items():
            if isinstance(value, HistogramValue):
                was = before.get(labels)
                yield labels, _less(value, was) if isinstance(was, HistogramValue) else value

    def per_s(self, count: float) -> float:
        return count / self.span_s if self.span_s > 0 else 0.0


class SnapshotHistory:
    """`take`: the numbers of all workers now. `clock_s`: monotonic."""

    def __init__(self, take: Callable[[], Snapshot], clock_s: Callable[[], float] = time.monotonic) -> None:
        self._take = take
        self._clock_s = clock_s
        self._samples: deque[tuple[float, Snapshot]] = deque(maxlen=_SAMPLES)
        # By the name of a source; of consultations under the empty name.
        self.trends: dict[str, deque[TrendPoint]] = {}

    def __repr__(self) -> str:
        return f"<SnapshotHistory of {len(self._samples)} samples, {len(self.trends)} trends>"

    def sample(self) -> None:
        """Keep the present numbers. Call it every `STEP_S`."""
        now_s, snapshot = self._clock_s(), self._take()
        if self._samples:
            last_s, last = self._samples[-1]
            self._note_trends(Window(last, snapshot, now_s - last_s))
        self._samples.append((now_s, snapshot))

    def window(self) -> Window | None:
        """From `WINDOW_S` ago, or the first sample, to now. None before the first sample."""
        if not self._samples:
            return None
        now_s = self._clock_s()
        before_s, before = next(
            (sample for sample in self._samples if sample[0] >= now_s - WINDOW_S), self._samples[-1]
        )
        return Window(before, self._take(), now_s - before_s)

    def _note_trends(self, window: Window) -> None:
        durations = sources_of(window.recorded(DURATIONS))
        counts: dict[str, list[tuple[Labels, int]]] = {}
        for labels, count in window.counted(ANSWERS):
            counts.setdefault(labels[0], []).append((labels, count))
        for source, answers in counts.items():
            self._note(source, window, sum(count for _, count in answers), durations.get(source), bad_share(answers))
        consultations = list(window.recorded(CONSULTATIONS))
        total = together(value for _, value in consultations)
        failed = sum(value.count for labels, value in consultations if labels[1] in FAILED_OUTCOMES)
        self._note("", window, total.count, total, failed / total.count if total.count else 0.0)

    def _note(self, name: str, window: Window, count: int, durations: HistogramValue | None, bad: float) -> None:
        points = self.trends.setdefault(name, deque(maxlen=MOST_POINTS))
        points.append(
            TrendPoint(round(window.per_s(count), 2), quantile_ms(durations or _NOTHING, 0.99), round(bad, 4))
        )


def bad_share(answers: Sequence[tuple[Labels, int]]) -> float:
    """Of the asks that needed an answer, the share without one; `answers` as in `ANSWERS`."""
    needed = [(labels[1], count) for labels, count in answers if labels[1] not in NEUTRAL]
    total = sum(count for _, count in needed)
    return sum(count for status, count in needed if status not in GOOD) / total if total else 0.0


def sources_of(recorded: Iterator[tuple[Labels, HistogramValue]]) -> dict[str, HistogramValue]:
    """The sums by the first label."""
    sums: dict[str, HistogramValue] = {}
    for labels, value in recorded:
        sums[labels[0]] = sums[labels[0]].plus(value) if labels[0] in sums else value
    return sums


def sum_by(counted: Iterable[tuple[Labels, int]], place: int) -> dict[str, int]:
    """The sums by the label in that place."""
    sums: dict[str, int] = {}
    for labels, count in counted:
        sums[labels[place]] = sums.get(labels[place], 0) + count
    return sums


def together(values: Iterator[HistogramValue]) -> HistogramValue:
    total = _NOTHING
    for value in values:
        total = total.plus(value)
    return total


def quantiles(value: HistogramValue) -> Quantiles:
    return Quantiles(quantile_ms(value, 0.5), quantile_ms(value, 0.95), quantile_ms(value, 0.99))


def quantile_ms(value: HistogramValue, share: float) -> float | None:
    """Interpolated within its bucket. None without values; the largest bound beyond it."""
    rank, below, passed = share * value.count, 0, 0.0
    if not value.count:
        return None
    for bound_ns, count in zip(BUCKET_BOUNDS_NS, value.counts, strict=False):
        if count and passed + count >= rank:
            return round((below + (bound_ns - below) * (rank - passed) / count) / _MS_NS, 2)
        passed, below = passed + count, bound_ns
    return BUCKET_BOUNDS_NS[-1] / _MS_NS


def _less(value: HistogramValue, was: HistogramValue) -> HistogramValue:
    counts = tuple(max(0, now - then) for now, then in zip(value.counts, was.counts, strict=True))
    return HistogramValue(counts, max(0, value.sum_ns - was.sum_ns))
