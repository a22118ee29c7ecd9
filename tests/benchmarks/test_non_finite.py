"""Non-finite figures are removed from a finding before it is written or judged."""

from __future__ import annotations

import msgspec

from benchmarks.non_finite import without_non_finite
from benchmarks.results import BarChart, Figure, Finding, Line, LineChart, Row, Table


def test_non_finite_figures_are_removed_and_noted() -> None:
    nan = float("nan")
    broken = Finding(
        "x",
        "x",
        "",
        1.0,
        key={"good": Figure.of(1.0), "bad": Figure.of(nan), "never": Figure.of(1.0, float("inf")), "empty": Figure(())},
        tables=[Table("t", [Row("r", {"a": Figure.of(1.0, nan), "b": Figure.of(float("inf"))})])],
        drawings=[
            LineChart("l", "x", "y", [Line("one", [(1.0, Figure.of(nan)), (2.0, Figure.of(3.0))])], marks={"m": nan}),
            BarChart("b", "y", ["p", "q", "r"], {"g": [Figure.of(nan), None, Figure.of(1.0)]}),
        ],
    )
    cleaned = without_non_finite(broken)
    assert cleaned.key == {"good": Figure.of(1.0)}
    assert cleaned.tables[0].rows[0].figures == {"a": Figure.of(1.0)}
    lines, bars = cleaned.drawings
    assert isinstance(lines, LineChart)
    assert isinstance(bars, BarChart)
    assert (lines.lines[0].points, lines.marks, bars.groups) == (
        [(2.0, Figure.of(3.0))],
        {},
        {"g": [None, None, Figure.of(1.0)]},
    )
    assert len(cleaned.notes) == 7
    assert "t, r, a: no number in 1 of 2 rounds." in cleaned.notes
    assert "null" not in msgspec.json.encode(cleaned.key).decode()
