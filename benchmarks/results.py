"""What the studies found, as data: figures with their spread, tables, drawings, notes. Written as JSON, read back by the report.

Measures nothing and draws nothing.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import msgspec


class Figure(msgspec.Struct, frozen=True):
    """One figure, measured in several rounds. What counts is the median; the spread says how far to trust it."""

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
        """The ratio, round by round: rounds of the same number were measured side by side."""
        return Figure(tuple(mine / its for mine, its in zip(self.rounds, other.rounds, strict=True)))

    def __str__(self) -> str:
        middle = f"{self.median:,.4g}" if abs(self.median) < 10_000 else f"{self.median:,.0f}"
        return middle if self.low == self.high else f"{middle} ({self.low:.3g}–{self.high:.3g})"


class Row(msgspec.Struct, frozen=True):
    """`figures` by column; a column's name says its unit, as in "p99 ms". A column that a row has nothing for is left out."""

    label: str
    figures: Mapping[str, Figure]
    note: str = ""


class Table(msgspec.Struct, frozen=True):
    title: str
    rows: Sequence[Row]
    note: str = ""


class Line(msgspec.Struct, frozen=True):
    """`points`: x, and what was measured there. `ours`: drawn so that it is seen first."""

    label: str
    points: Sequence[tuple[float, Figure]]
    ours: bool = False


class LineChart(msgspec.Struct, frozen=True, tag="lines"):
    """Something that changes with something else."""

    title: str
    x_title: str
    y_title: str
    lines: Sequence[Line]
    x_logarithmic: bool = False
    y_logarithmic: bool = False
    # Horizontal lines to hold it against, such as the deadline.
    marks: Mapping[str, float] = {}


class BarChart(msgspec.Struct, frozen=True, tag="bars"):
    """Several things side by side, each with one bar of every group. `ours`: labels that are seen first."""

    title: str
    y_title: str
    labels: Sequence[str]
    groups: Mapping[str, Sequence[Figure | None]]
    ours: Sequence[str] = ()
    y_logarithmic: bool = False
    marks: Mapping[str, float] = {}


Drawing: TypeAlias = LineChart | BarChart


class Finding(msgspec.Struct, frozen=True):
    """What one study found.

    `about`: what was done and how, in plain sentences. `key`: the figures that bars and models read, by a stable dotted name such as
    "cpu_us.nginx_lua". `notes`: what went wrong, what was absent, what limits the figures.
    """

    name: str
    title: str
    about: str
    seconds: float
    key: Mapping[str, Figure] = {}
    tables: Sequence[Table] = ()
    drawings: Sequence[Drawing] = ()
    notes: Sequence[str] = ()
    # When it was measured (the suite fills it in), and why it was not: both may be told by another run than the rest.
    at: str = ""
    failed: str = ""


class Machine(msgspec.Struct, frozen=True):
    processor: str
    cores: int
    kernel: str
    versions: Mapping[str, str]


class Results(msgspec.Struct, frozen=True):
    """A run of the suite. `at`: ISO 8601, UTC. `quick`: too short to mean anything."""

    at: str
    command: str
    quick: bool
    machine: Machine
    findings: Sequence[Finding]
