"""Labels within a line chart: names at the ends of lines, names of marks where there is room."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.axes import Axes

from benchmarks.report.inline_svg import SMALL, Size, mark_label
from benchmarks.report.palette import Palette

_APART = 15
_ASIDE = 8


class End(NamedTuple):
    """The end of a line, in the units of the axes."""

    x: float
    y: float
    label: str
    colour: str
    bold: bool


def axes_shares(axes: Axes, points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Positions of points as shares of the axes' width and height."""
    shares = axes.transAxes.inverted().transform(axes.transData.transform(points))
    return [(float(x), float(y)) for x, y in shares]


def label_ends(axes: Axes, ends: Sequence[End], size: Size) -> None:
    """Place each name as near to the end of its line as the other names allow."""
    box = axes.get_position()
    width, height = box.width * size.width, box.height * size.height
    by_x: dict[int, list[tuple[float, End]]] = defaultdict(list)
    for end, (x, y) in zip(ends, axes_shares(axes, [(end.x, end.y) for end in ends]), strict=True):
        by_x[round(x * width)].append((y * height, end))
    for at_x, entries in by_x.items():
        entries.sort(key=lambda each: each[0])
        for (_, end), at_y in zip(entries, _apart([y for y, _ in entries], height), strict=True):
            weight = "bold" if end.bold else "normal"
            at = ((at_x + _ASIDE) / width, at_y / height)
            axes.text(
                *at, end.label, transform=axes.transAxes, color=end.colour, va="center", fontweight=weight, zorder=5
            )


def draw_mark(axes: Axes, name: str, level: float, points: Sequence[tuple[float, float]], palette: Palette) -> None:
    """Draw a thin line at a level, with its name at the end where the points are farther away."""
    axes.axhline(level, color=palette.mark, linewidth=1.1, linestyle=(0, (3, 3)), zorder=1.5)
    (_, height), *positions = axes_shares(axes, [(points[0][0], level), *points])
    left = [abs(y - height) for x, y in positions if x < 0.3]
    right = [abs(y - height) for x, y in positions if x > 0.7]
    leftmost = min(left, default=1.0) >= min(right, default=1.0)
    axes.annotate(
        mark_label(name, level),
        (0 if leftmost else 1, level),
        (4 if leftmost else -4, 3),
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
        fontsize=SMALL,
        color=palette.mark,
        ha="left" if leftmost else "right",
        zorder=4,
    )


def _apart(wanted: Sequence[float], height: float) -> list[float]:
    """The positions nearest to the wanted ones, in order, at a legible distance from each other."""
    groups: list[list[float]] = []
    for at in wanted:
        groups.append([at])
        while (
            len(groups) > 1
            and _middle(groups[-1]) - _middle(groups[-2]) < _APART * (len(groups[-1]) + len(groups[-2])) / 2
        ):
            last = groups.pop()
            groups[-1] += last
    positions = [
        _middle(group) + _APART * (place - (len(group) - 1) / 2) for group in groups for place in range(len(group))
    ]
    over = max(0.0, positions[-1] - height) if positions else 0.0
    return [at - over for at in positions]


def _middle(group: Sequence[float]) -> float:
    return sum(group) / len(group)
