"""Results of the studies as data: figures with their spread, tables, charts, notes.

Written as JSON and read back by the report.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

import msgspec

T = TypeVar("T")


class Figure(msgspec.Struct, frozen=True):
    """One figure, measured in several rounds.

    The median counts; the spread shows its reliability.
    """

    rounds: tuple[float, ...]

    @classmethod
    def of(cls, *rounds: float) -> Figure:
        return cls(rounds)

    @classmethod
    def by_round(cls, rounds: Iterable[float]) -> Figure:
        return cls(tuple(rounds))

    @property
    def median(self) -> float:
        return statistics.median(self.rounds)

    @property
    def low(self) -> float:
        return min(self.rounds)

    @property
    def high(self) -> float:
        return max(self.rounds)

    def over(self, other: Figure) -> Figure:
        """Divide round by round: rounds of the same number were measured side by side."""
        return Figure(tuple(mine / its for mine, its in zip(self.rounds, other.rounds, strict=True)))


# The value that a column shows of one round, by the column's name.
Columns: TypeAlias = Mapping[str, Callable[[T], float]]


def figures(rounds: Sequence[T], columns: Columns[T]) -> dict[str, Figure]:
    """Figures of all rounds, by column."""
    return {name: Figure.by_round(map(value, rounds)) for name, value in columns.items()}


def slope(points: Iterable[tuple[float, float]]) -> float:
    """Slope of the least-squares line, in y per x."""
    return statistics.linear_regression(*zip(*points, strict=True)).slope


class Row(msgspec.Struct, frozen=True):
    """`figures` by column. The column name includes the unit, as in "p99 ms".

    A row may omit columns.
    """

    label: str
    figures: Mapping[str, Figure]
    note: str = ""


class Table(msgspec.Struct, frozen=True):
    title: str
    rows: Sequence[Row]
    note: str = ""


class Line(msgspec.Struct, frozen=True):
    """`points`: x and the figure measured there. `ours`: drawn with emphasis."""

    label: str
    points: Sequence[tuple[float, Figure]]
    ours: bool = False


class LineChart(msgspec.Struct, frozen=True, tag="lines"):
    title: str
    x_title: str
    y_title: str
    lines: Sequence[Line]
    x_logarithmic: bool = False
    y_logarithmic: bool = False
    # Horizontal reference lines, such as the deadline.
    marks: Mapping[str, float] = {}


class BarChart(msgspec.Struct, frozen=True, tag="bars"):
    """Bars side by side, one of every group for each label. `ours`: labels drawn with emphasis."""

    title: str
    y_title: str
    labels: Sequence[str]
    groups: Mapping[str, Sequence[Figure | None]]
    ours: Sequence[str] = ()
    y_logarithmic: bool = False
    marks: Mapping[str, float] = {}


class Span(msgspec.Struct, frozen=True):
    """A bar in the row `label`. `ours`: drawn with emphasis."""

    label: str
    start: float
    end: float
    ours: bool = False


class Timeline(msgspec.Struct, frozen=True, tag="timeline"):
    """Spans in rows, in the order in which the labels come first. `unit`: of the times."""

    title: str
    unit: str
    spans: Sequence[Span]


Drawing: TypeAlias = LineChart | BarChart | Timeline


class Finding(msgspec.Struct, frozen=True):
    """Results of one study.

    `key`: figures for bars and models, by a stable dotted name such as "cpu_us.nginx_lua". `notes`:
    failures, absences and limits of the figures. The suite sets the rest: `about` says what was
    measured and how, `failed` is the reason if nothing was.
    """

    title: str
    key: Mapping[str, Figure] = {}
    tables: Sequence[Table] = ()
    drawings: Sequence[Drawing] = ()
    notes: Sequence[str] = ()
    name: str = ""
    about: str = ""
    seconds: float = 0.0
    at: str = ""
    failed: str = ""


class Machine(msgspec.Struct, frozen=True):
    processor: str
    cores: int
    kernel: str
    versions: Mapping[str, str]


class Results(msgspec.Struct, frozen=True):
    """One run of the suite. `at`: ISO 8601, UTC. `quick`: too short for meaningful figures."""

    at: str
    command: str
    quick: bool
    machine: Machine
    findings: Sequence[Finding]


def without_non_finite(finding: Finding) -> Finding:
    """Remove non-finite figures (a percentile of nothing, a division by zero), with a note.

    JSON cannot carry them, and a chart has no place for them. One such round removes a whole key
    figure, so that a bar is not judged by the remaining rounds.
    """
    notes: list[str] = []

    def cleaned(value: Any, where: str) -> Any:
        """The value without non-finite figures and marks; None for a figure without a round."""
        match value:
            case Figure():
                finite = tuple(filter(math.isfinite, value.rounds))
                if not finite or len(finite) < len(value.rounds):
                    missing = len(value.rounds) - len(finite)
                    notes.append(f"{where}: no number in {missing} of {len(value.rounds)} rounds.")
                return Figure(finite) if finite else None
            case Table() | LineChart() | BarChart():
                parts = ("rows",) if isinstance(value, Table) else ("lines", "groups", "marks")
                changed = {name: cleaned(getattr(value, name), value.title) for name in parts if hasattr(value, name)}
                return msgspec.structs.replace(value, **changed)
            case Row():
                return msgspec.structs.replace(value, figures=cleaned(value.figures, f"{where}, {value.label}"))
            case Line():
                points = [(x, cleaned(figure, f"{where}, {value.label} at {x:g}")) for x, figure in value.points]
                return msgspec.structs.replace(value, points=[(x, figure) for x, figure in points if figure])
            case dict():
                parts_by_name = {name: cleaned(part, f"{where}, {name}") for name, part in value.items()}
                return {name: part for name, part in parts_by_name.items() if part is not None}
            case list() | tuple():
                return [cleaned(part, where) for part in value]
            case float():
                return value if math.isfinite(value) else None
        return value

    key = {name: figure for name, figure in finding.key.items() if cleaned(figure, name) == figure}
    tables, drawings = cleaned(finding.tables, ""), cleaned(finding.drawings, "")
    return msgspec.structs.replace(finding, key=key, tables=tables, drawings=drawings, notes=[*finding.notes, *notes])
