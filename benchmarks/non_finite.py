"""Remove non-finite figures (a percentile of nothing, a division by zero), with a note.

JSON cannot carry them, and a chart has no place for them. One such round removes a whole key
figure, so that a bar is not judged by the remaining rounds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import msgspec

from benchmarks.results import BarChart, Drawing, Figure, Finding, Line, Table


def without_non_finite(finding: Finding) -> Finding:
    filtering = _Filter()
    return msgspec.structs.replace(
        finding,
        key={name: figure for name, figure in finding.key.items() if filtering.figure(figure, name) is figure},
        tables=[filtering.table(table) for table in finding.tables],
        drawings=[filtering.drawing(drawing) for drawing in finding.drawings],
        # Evaluated last, because the filter collects notes while it works.
        notes=[*finding.notes, *filtering.notes],
    )


class _Filter:
    def __init__(self) -> None:
        self.notes: list[str] = []

    def figure(self, figure: Figure, where: str) -> Figure | None:
        finite = tuple(value for value in figure.rounds if math.isfinite(value))
        if finite and len(finite) == len(figure.rounds):
            return figure
        self.notes.append(f"{where}: no number in {len(figure.rounds) - len(finite)} of {len(figure.rounds)} rounds.")
        return Figure(finite) if finite else None

    def figures(self, by_name: Mapping[str, Figure], where: str) -> dict[str, Figure]:
        filtered = {name: self.figure(figure, f"{where}{name}") for name, figure in by_name.items()}
        return {name: figure for name, figure in filtered.items() if figure is not None}

    def table(self, table: Table) -> Table:
        rows = [
            msgspec.structs.replace(row, figures=self.figures(row.figures, f"{table.title}, {row.label}, "))
            for row in table.rows
        ]
        return msgspec.structs.replace(table, rows=rows)

    def drawing(self, drawing: Drawing) -> Drawing:
        where = f"{drawing.title}, "
        marks = {name: mark for name, mark in drawing.marks.items() if math.isfinite(mark)}
        if isinstance(drawing, BarChart):
            groups = {
                name: [
                    figure and self.figure(figure, f"{where}{label}, {name}")
                    for label, figure in zip(drawing.labels, group, strict=True)
                ]
                for name, group in drawing.groups.items()
            }
            return msgspec.structs.replace(drawing, groups=groups, marks=marks)
        return msgspec.structs.replace(drawing, lines=[self.line(line, where) for line in drawing.lines], marks=marks)

    def line(self, line: Line, where: str) -> Line:
        points = ((x, self.figure(figure, f"{where}{line.label} at {x:g}")) for x, figure in line.points)
        return msgspec.structs.replace(
            line, points=[(x, figure) for x, figure in points if figure is not None and math.isfinite(x)]
        )
