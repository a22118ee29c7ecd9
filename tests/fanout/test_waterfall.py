"""Rows of a waterfall: within the width, visible if started, blank if not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cashier.fanout.ask import Importance, SourceReport, SourceStatus
from cashier.fanout.waterfall import TimelineRow, timeline_rows


def report(started_ms: float, elapsed_ms: float, status: SourceStatus = SourceStatus.FRESH) -> SourceReport:
    return SourceReport("card", Importance.GATING, status, started_ms, elapsed_ms, 0)


def bars(reports: list[SourceReport], scale_ms: float, width: int) -> list[tuple[int, int]]:
    return [(row.column, row.length) for row in timeline_rows(reports, scale_ms, width)]


def test_a_bar_shows_the_start_and_duration_of_its_ask() -> None:
    assert bars([report(0, 50), report(50, 25), report(75, 25)], 100, 40) == [(0, 20), (20, 10), (30, 10)]


def test_a_row_has_name_class_status_and_times() -> None:
    assert timeline_rows([report(10.11, 20.22, SourceStatus.CACHED)], 100, 10) == (
        TimelineRow("card", Importance.GATING, SourceStatus.CACHED, 10.11, 30.33, column=1, length=3),
    )


def test_a_cached_answer_without_duration_is_visible() -> None:
    assert bars([report(0, 0, SourceStatus.CACHED), report(100, 0)], 100, 10) == [(0, 1), (9, 1)]


def test_an_ask_that_never_started_has_no_bar() -> None:
    assert bars([report(40, 0, SourceStatus.SKIPPED), report(40, 20, SourceStatus.SKIPPED)], 100, 10) == [
        (4, 0),
        (4, 2),
    ]


def test_a_report_past_the_scale_stretches_it_for_all_rows() -> None:
    assert bars([report(0, 100), report(0, 200)], 100, 10) == [(0, 5), (0, 10)]


def test_no_reports_give_no_rows_and_a_zero_scale_gives_bars() -> None:
    assert timeline_rows([], 100, 10) == ()
    assert bars([report(0, 0)], 0, 10) == [(0, 1)]


def test_a_waterfall_without_columns_is_rejected() -> None:
    with pytest.raises(ValueError, match="0 columns"):
        timeline_rows([], 100, 0)


times = st.floats(0, 5_000, allow_nan=False).map(lambda ms: round(ms, 2))


@given(st.lists(st.builds(report, times, times), max_size=8), times, st.integers(1, 200))
def test_every_bar_is_within_the_width_and_none_is_lost(
    reports: list[SourceReport], scale_ms: float, width: int
) -> None:
    for row in timeline_rows(reports, scale_ms, width):
        assert row.column >= 0
        assert row.length >= 1
        assert row.column + row.length <= width
