"""Lines with the spread of their rounds as bands and their names at their ends."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes

from benchmarks.report.inline_svg import (
    SMALL,
    Key,
    Size,
    draw_empty,
    place,
    remove_frame,
    short_number,
    ticks,
    width_of,
)
from benchmarks.report.line_labels import End, axes_shares, draw_mark, label_ends
from benchmarks.report.palette import Palette
from benchmarks.results import Figure, Line, LineChart

_DASHES: Sequence[Any] = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)))
_MARKED = 16
# Longer names stand above the chart, in the page's legend.
_LABEL_MOST = 230


class _Pen(NamedTuple):
    colour: str
    dash: Any
    width: float


def size(narrow: bool) -> Size:
    return Size(340, 280, True) if narrow else Size(860, 340, False)


def keys(lines: LineChart, palette: Palette) -> list[Key]:
    if len(lines.lines) < 2:
        return []
    crowded = _longest(lines) > _LABEL_MOST
    return [Key(line.label, pen.colour, dashed=pen.dash != "-", always=crowded) for line, pen in _pens(lines, palette)]


def count_undrawable(lines: LineChart) -> int:
    """Number of points that a logarithmic axis cannot show."""
    return sum(len(line.points) - len(_points(lines, line)) for line in lines.lines)


def draw(lines: LineChart, axes: Axes, palette: Palette, size: Size) -> None:
    visible = [line for line in lines.lines if _points(lines, line)]
    if not visible:
        return draw_empty(axes, palette)
    direct = len(visible) > 1 and not size.narrow and _longest(lines) <= _LABEL_MOST
    place(axes, size, left=_left(lines), right=20 + _longest(lines) if direct else 18, top=22, bottom=46)
    remove_frame(axes, palette, "y")
    _scales(axes, lines)
    for line, pen in _pens(lines, palette):
        _line(axes, _points(lines, line), pen, 3 if line.ours else 2)
    _limits(axes, lines)
    _marks(axes, lines, palette)
    ticks(axes, "x", lines.x_logarithmic, size.narrow, _measured_at(axes, lines, size))
    ticks(axes, "y", lines.y_logarithmic, size.narrow)
    axes.set_xlabel(lines.x_title, fontsize=SMALL, labelpad=6)
    axes.text(
        0, 1, lines.y_title, transform=axes.transAxes, fontsize=SMALL, color=palette.muted, va="bottom", ha="left"
    )
    if direct:
        label_ends(axes, list(_ends(lines, palette)), size)
    return None


def _longest(lines: LineChart) -> float:
    return max((width_of(line.label) for line in lines.lines), default=0)


def _scales(axes: Axes, lines: LineChart) -> None:
    if _percentiles(lines):
        axes.set_xscale("function", functions=(_nines, _percentile))
    elif lines.x_logarithmic:
        axes.set_xscale("log")
    if lines.y_logarithmic:
        axes.set_yscale("log")


def _percentiles(lines: LineChart) -> bool:
    """True for percentiles, where every further nine gets the same room: 90, 99, 99.9."""
    return lines.x_title.lower().startswith("percentile") and all(
        0 <= x < 100 for line in lines.lines for x, _ in line.points
    )


def _nines(percentile: Any) -> Any:
    return -np.log10(np.clip(1 - np.asarray(percentile) / 100, 1e-9, None))


def _percentile(nines: Any) -> Any:
    return 100 * (1 - 10 ** -np.asarray(nines))


def _pens(lines: LineChart, palette: Palette) -> Iterator[tuple[Line, _Pen]]:
    ours = others = 0
    for line in lines.lines:
        if line.ours or len(lines.lines) == 1:
            yield line, _Pen(palette.ours, _DASHES[ours % len(_DASHES)], 2.6)
            ours += 1
        else:
            colours = palette.quiet
            yield line, _Pen(colours[others % len(colours)], _DASHES[others // len(colours) % len(_DASHES)], 1.8)
            others += 1


def _points(lines: LineChart, line: Line) -> list[tuple[float, Figure]]:
    """Visible points in order of x."""
    visible = (
        (x, figure)
        for x, figure in line.points
        if (x > 0 or not lines.x_logarithmic) and (figure.median > 0 or not lines.y_logarithmic)
    )
    return sorted(visible, key=lambda point: point[0])


def _line(axes: Axes, points: Sequence[tuple[float, Figure]], pen: _Pen, layer: int) -> None:
    if not points:
        return
    at = [x for x, _ in points]
    middle = [figure.median for _, figure in points]
    marker = "o" if len(points) <= _MARKED else ""
    axes.plot(
        at,
        middle,
        color=pen.colour,
        linestyle=pen.dash,
        linewidth=pen.width,
        marker=marker,
        markersize=4.5,
        zorder=layer,
    )
    low, high = [figure.low for _, figure in points], [figure.high for _, figure in points]
    if len(points) == 1:
        axes.vlines(at, low, high, color=pen.colour, linewidth=1.2, zorder=layer)
    elif low != high:
        axes.fill_between(at, low, high, color=pen.colour, alpha=0.16, linewidth=0, zorder=1)


def _limits(axes: Axes, lines: LineChart) -> None:
    """Scale to the medians and marks.

    A single extreme round may leave the chart, a median never.
    """
    points = [point for line in lines.lines for point in _points(lines, line)]
    middles = [figure.median for _, figure in points]
    reached = [*middles, *(level for level in lines.marks.values() if level > 0 or not lines.y_logarithmic)] or [1.0]
    top = max(reached)
    highest = max(top, *(min(2 * top, figure.high) for _, figure in points))
    if lines.y_logarithmic:
        low = min(reached)
        axes.set_ylim(low / 1.4, max(highest, low * 2) * 1.3)
    else:
        lowest = min(0.0, *reached)
        room = 0.1 * ((highest - lowest) or 1)
        axes.set_ylim(lowest - (room if lowest < 0 else 0), highest + room)
    at = [x for x, _ in points]
    if at and min(at) == max(at):
        only = at[0]
        axes.set_xlim((only / 2, only * 2) if lines.x_logarithmic else (only - 1, only + 1))
    elif at and not _percentiles(lines):
        axes.margins(x=0.02)
        axes.autoscale(axis="x")


def _marks(axes: Axes, lines: LineChart, palette: Palette) -> None:
    points = [(x, figure.median) for line in lines.lines for x, figure in _points(lines, line)]
    for name, level in lines.marks.items():
        if level > 0 or not lines.y_logarithmic:
            draw_mark(axes, name, level, points, palette)


def _measured_at(axes: Axes, lines: LineChart, size: Size) -> list[float]:
    """The x values if they are few, reduced to as many as are legible."""
    at = sorted({x for line in lines.lines for x, _ in _points(lines, line)})
    if not 0 < len(at) <= 12:
        return []
    box = axes.get_position()
    pixels = [x * box.width * size.width for x, _ in axes_shares(axes, [(x, 1.0) for x in at])]
    # From the ends inwards, because the range matters most.
    chosen = [0]
    for index in [len(at) - 1, *range(1, len(at) - 1)]:
        if all(
            abs(pixels[index] - pixels[other])
            > width_of(short_number(at[index]) + short_number(at[other]), SMALL) / 2 + 8
            for other in chosen
        ):
            chosen.append(index)
    return sorted(at[index] for index in chosen)


def _ends(lines: LineChart, palette: Palette) -> Iterator[End]:
    for line, pen in _pens(lines, palette):
        if points := _points(lines, line):
            yield End(points[-1][0], points[-1][1].median, line.label, pen.colour, line.ours)


def _left(lines: LineChart) -> float:
    longest = max(
        (short_number(figure.median) for line in lines.lines for _, figure in line.points), key=len, default="0"
    )
    return 22 + width_of(longest, SMALL)
