"""Results of the studies as data: figures with their spread, tables, charts, notes.

Written as JSON and read back by the report.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import msgspec


class Figure(msgspec.Struct, frozen=True):
    """One figure, measured in several rounds.

    The median counts; the spread shows its reliability.
    """

    rounds: tuple[float, ...]

    @classmethod
    def of(cls, *rounds: float) -> Figure:
        return cls(rounds)

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

    def __str__(self) -> str:
        middle = f"{self.median:,.4g}" if abs(self.median) < 10_000 else f"{self.median:,.0f}"
        return middle if self.low == self.high else f"{middle} ({self.low:.3g}–{self.high:.3g})"


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


Drawing: TypeAlias = LineChart | BarChart


class Finding(msgspec.Struct, frozen=True):
    """Results of one study.

    `about`: what was measured and how. `key`: figures for bars and models, by a stable dotted name
    such as "cpu_us.nginx_lua". `notes`: failures, absences and limits of the figures.
    """

    name: str
    title: str
    about: str
    seconds: float
    key: Mapping[str, Figure] = {}
    tables: Sequence[Table] = ()
    drawings: Sequence[Drawing] = ()
    notes: Sequence[str] = ()
    # `at` is set by the suite; `failed` is the reason if nothing was measured.
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
