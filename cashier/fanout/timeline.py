"""Timeline: the reports of a scatter as rows of a waterfall, scaled to a width in characters. What a row looks like is not decided here."""

from __future__ import annotations

from collections.abc import Iterable
from math import ceil

from msgspec import Struct

from cashier.fanout.ask import Importance, SourceReport, SourceStatus


class TimelineRow(Struct, frozen=True):
    """One ask: from when to when in ms, and as columns: `column` are left free, then `length` filled.

    What took any time fills at least one column; what was never asked fills none. `column + length` is at most the width.
    """

    name: str
    importance: Importance
    status: SourceStatus
    start_ms: float
    end_ms: float
    column: int
    length: int


def timeline_rows(reports: Iterable[SourceReport], scale_ms: float, width: int) -> tuple[TimelineRow, ...]:
    """A row per report, in their order. `scale_ms`, the deadline or the total, is as wide as `width` characters.

    Where a report ends later than that, the scale is stretched so that all are drawn to the same one: a bar is never cut short.
    Raises ValueError for a width below 1.
    """
    if width < 1:
        raise ValueError(f"a waterfall of {width} columns has no room for a bar")
    reports = tuple(reports)
    whole_ms = max([scale_ms, *(report.started_ms + report.elapsed_ms for report in reports)])
    return tuple(_row(report, whole_ms, width) for report in reports)


def _row(report: SourceReport, whole_ms: float, width: int) -> TimelineRow:
    start_ms = report.started_ms
    end_ms = round(start_ms + report.elapsed_ms, 2)
    first, last = _columns(start_ms, end_ms, whole_ms, width)
    never_asked = report.status is SourceStatus.SKIPPED and report.elapsed_ms == 0
    length = 0 if never_asked else last - first
    return TimelineRow(report.name, report.importance, report.status, start_ms, end_ms, first, length)


def _columns(start_ms: float, end_ms: float, whole_ms: float, width: int) -> tuple[int, int]:
    """The first column and the one after the last: every column that is touched, and never none."""
    if whole_ms <= 0:
        return 0, 1
    first = min(int(start_ms / whole_ms * width), width - 1)
    return first, min(max(ceil(end_ms / whole_ms * width), first + 1), width)
