"""The reports of a scatter as rows of a waterfall, scaled to a width in characters.

Rendering is the caller's.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import ceil

from msgspec import Struct

from cashier.fanout.ask import Importance, SourceReport, SourceStatus


class TimelineRow(Struct, frozen=True):
    """One ask: start and end in ms, and as columns: leave `column` blank, then fill `length`.

    A started ask fills at least one column, one that never started none. `column + length` is at
    most the width.
    """

    name: str
    importance: Importance
    status: SourceStatus
    start_ms: float
    end_ms: float
    column: int
    length: int


def timeline_rows(reports: Iterable[SourceReport], scale_ms: float, width: int) -> tuple[TimelineRow, ...]:
    """Return one row per report, in order.

    `width` columns represent `scale_ms`: the deadline or the total.

    If a report ends later than `scale_ms`, the scale grows for all rows: no bar is cut.
    Raises ValueError for a width below 1.
    """
    if width < 1:
        raise ValueError(f"a waterfall of {width} columns has no room for a bar")
    reports = tuple(reports)
    total_ms = max([scale_ms, *(report.started_ms + report.elapsed_ms for report in reports)])
    return tuple(_row(report, total_ms, width) for report in reports)


def _row(report: SourceReport, total_ms: float, width: int) -> TimelineRow:
    start_ms = report.started_ms
    end_ms = round(start_ms + report.elapsed_ms, 2)
    first, last = _columns(start_ms, end_ms, total_ms, width)
    never_started = report.status is SourceStatus.SKIPPED and report.elapsed_ms == 0
    length = 0 if never_started else last - first
    return TimelineRow(
        name=report.name,
        importance=report.importance,
        status=report.status,
        start_ms=start_ms,
        end_ms=end_ms,
        column=first,
        length=length,
    )


def _columns(start_ms: float, end_ms: float, total_ms: float, width: int) -> tuple[int, int]:
    """Return the first column and the one after the last: every column touched, at least one."""
    if total_ms <= 0:
        return 0, 1
    first = min(int(start_ms / total_ms * width), width - 1)
    return first, min(max(ceil(end_ms / total_ms * width), first + 1), width)
