"""Rows of a waterfall: nothing is drawn outside, nothing that took time is invisible, nothing that was never asked is drawn."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cashier.fanout.ask import Importance, SourceReport, SourceStatus
from cashier.fanout.timeline import TimelineRow, timeline_rows


def report(started_ms: float, elapsed_ms: float, status: SourceStatus = SourceStatus.FRESH) -> SourceReport:
    return SourceReport("card", Importance.GATING, status, started_ms, elapsed_ms, 0)


def bars(reports: list[SourceReport], scale_ms: float, width: int) -> list[tuple[int, int]]:
    return [(row.column, row.length) for row in timeline_rows(reports, scale_ms, width)]


def test_a_bar_begins_where_its_ask_started_and_is_as_long_as_it_took() -> None:
    assert bars([report(0, 50), report(50, 25), report(75, 25)], 100, 40) == [(0, 20), (20, 10), (30, 10)]


def test_a_row_tells_name_class_status_and_times() -> None:
    assert timeline_rows([report(10.11, 20.22, SourceStatus.CACHED)], 100, 10) == (
        TimelineRow("card", Importance.GATING, SourceStatus.CACHED, 10.11, 30.33, column=1, length=3),
    )


def test_a_cached_answer_that_took_no_time_still_shows() -> None:
    assert bars([report(0, 0, SourceStatus.CACHED), report(100, 0)], 100, 10) == [(0, 1), (9, 1)]


def test_what_was_never_asked_has_no_bar() -> None:
    assert bars([report(40, 0, SourceStatus.SKIPPED), report(40, 20, SourceStatus.SKIPPED)], 100, 10) == [
        (4, 0),
        (4, 2),
    ]


def test_a_report_past_the_scale_stretches_it_for_all() -> None:
    assert bars([report(0, 100), report(0, 200)], 100, 10) == [(0, 5), (0, 10)]


def test_rows_of_nothing_and_of_no_time() -> None:
    assert timeline_rows([], 100, 10) == ()
    assert bars([report(0, 0)], 0, 10) == [(0, 1)]


def test_a_waterfall_without_columns_is_refused() -> None:
    with pytest.raises(ValueError, match="0 columns"):
        timeline_rows([], 100, 0)


times = st.floats(0, 5_000, allow_nan=False).map(lambda ms: round(ms, 2))


@given(st.lists(st.builds(report, times, times), max_size=8), times, st.integers(1, 200))
def test_every_bar_is_inside_and_none_is_lost(reports: list[SourceReport], scale_ms: float, width: int) -> None:
    for row in timeline_rows(reports, scale_ms, width):
        assert row.column >= 0
        assert row.length >= 1
        assert row.column + row.length <= width
