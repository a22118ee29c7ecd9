"""Horizontal bars with readable names, each with its value and the spread of its rounds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

from benchmarks.report.inline_svg import (
    SMALL,
    TEXT,
    Key,
    Size,
    draw_empty,
    mark_label,
    place,
    remove_frame,
    short_number,
    ticks,
    width_of,
)
from benchmarks.report.palette import Palette
from benchmarks.results import BarChart, Figure

_THICK = 16.0
_THIN = 11.0
_BETWEEN = 12.0
_LABEL_MOST = 330
_BOTTOM = 30.0
_OPACITIES = (1.0, 0.55, 0.3)


class _Bar(NamedTuple):
    """`at`: its middle, in pixels from the top of the axes."""

    at: float
    thick: float
    figure: Figure | None
    colour: str
    opacity: float


def size(bars: BarChart, narrow: bool) -> Size:
    height = round(_top(bars) + _BOTTOM + _each(bars, _stacked(bars, narrow)) * max(1, len(bars.labels)))
    return Size(340, height, True) if narrow else Size(860, height, False)


def keys(bars: BarChart, palette: Palette) -> list[Key]:
    if len(bars.groups) < 2:
        return []
    return [
        Key(name, *_paint(bars, "", place, palette), always=True, thick=10) for place, name in enumerate(bars.groups)
    ]


def count_undrawable(bars: BarChart) -> int:
    """Number of figures that a logarithmic axis cannot show."""
    return sum(
        figure is not None and bars.y_logarithmic and figure.median <= 0
        for group in bars.groups.values()
        for figure in group
    )


def draw(bars: BarChart, axes: Axes, palette: Palette, size: Size) -> None:
    if not bars.labels:
        return draw_empty(axes, palette)
    stacked = _stacked(bars, size.narrow)
    left = 8.0 if stacked else 24 + _longest(bars)
    place(axes, size, left=left, right=16, top=_top(bars), bottom=_BOTTOM)
    remove_frame(axes, palette, "x")
    laid = _layout(bars, palette, stacked)
    if bars.y_logarithmic:
        axes.set_xscale("log")
    axes.set_ylim(_each(bars, stacked) * max(1, len(bars.labels)), 0)
    axes.set_xlim(*_limits(bars, [bar.figure for bar in laid], (size.width - left - 16)))
    for bar in laid:
        _bar(axes, bar, bars, palette)
    _labels(axes, bars, palette, stacked)
    _marks(axes, bars, palette)
    ticks(axes, "x", bars.y_logarithmic, size.narrow)
    axes.yaxis.set_major_locator(NullLocator())
    title = (0, 22) if bars.marks else (0, 6)
    axes.annotate(
        bars.y_title,
        (0, 1),
        title,
        xycoords="axes fraction",
        textcoords="offset points",
        fontsize=SMALL,
        color=palette.muted,
    )
    return None


def _top(bars: BarChart) -> float:
    """Room for the title of the axis and the names of marks."""
    return 40 if bars.marks else 24


def _longest(bars: BarChart) -> float:
    return max((width_of(label) for label in bars.labels), default=0)


def _stacked(bars: BarChart, narrow: bool) -> bool:
    """True if each name stands above its bars instead of beside them."""
    return narrow or _longest(bars) > _LABEL_MOST


def _each(bars: BarChart, stacked: bool) -> float:
    """Height of one label with its bars."""
    return _BETWEEN + (TEXT + 4 if stacked else 0) + _thick(bars) * max(1, len(bars.groups))


def _thick(bars: BarChart) -> float:
    return _THICK if len(bars.groups) < 2 else _THIN


def _paint(bars: BarChart, label: str, group: int, palette: Palette) -> tuple[str, float]:
    """Colour and opacity. Without `ours` the groups differ by colour, otherwise by opacity."""
    if not bars.ours and len(bars.groups) > 1:
        return palette.quiet[(group + 1) % len(palette.quiet)], 1.0
    ours = label in bars.ours or not bars.ours
    return palette.ours if ours else palette.quiet[0], _OPACITIES[min(group, len(_OPACITIES) - 1)]


def _layout(bars: BarChart, palette: Palette, stacked: bool) -> list[_Bar]:
    thick, each = _thick(bars), _each(bars, stacked)
    first = _BETWEEN / 2 + (TEXT + 4 if stacked else 0) + thick / 2
    return [
        _Bar(row * each + first + group * thick, thick - 2, figures[row], *_paint(bars, label, group, palette))
        for row, label in enumerate(bars.labels)
        for group, figures in enumerate(bars.groups.values())
    ]


def _limits(bars: BarChart, figures: Sequence[Figure | None], width: float) -> tuple[float, float]:
    visible = [figure for figure in figures if figure is not None and (figure.median > 0 or not bars.y_logarithmic)]
    marks = [mark for mark in bars.marks.values() if mark > 0 or not bars.y_logarithmic]
    reached = [figure.median for figure in visible] + [
        min(figure.high, 1.6 * abs(figure.median)) for figure in visible
    ] + marks or [1.0]
    # Room for the value after the longest bar.
    room = 64 / max(width, 128)
    if bars.y_logarithmic:
        low = min(reached) / 2
        high = max(reached)
        return low, high * (high / low) ** (room / (1 - room))
    low, high = min(0.0, *reached), max(0.0, *reached)
    span = (high - low) or 1.0
    return low - (span * room if low < 0 else 0), low + span / (1 - room)


def _bar(axes: Axes, bar: _Bar, bars: BarChart, palette: Palette) -> None:
    low, _ = axes.get_xlim()
    base = low if bars.y_logarithmic else 0.0
    if bar.figure is None or (bars.y_logarithmic and bar.figure.median <= 0):
        text = "not measured" if bar.figure is None else short_number(bar.figure.median)
        small = min(SMALL, bar.thick)
        axes.annotate(
            text,
            (base, bar.at),
            (4, 0),
            textcoords="offset points",
            va="center_baseline",
            fontsize=small,
            color=palette.muted,
        )
        return
    middle = bar.figure.median
    if bars.y_logarithmic:
        # Without a zero the length of a bar means nothing: draw a dot on a line to its name.
        axes.hlines(bar.at, base, middle, color=bar.colour, linewidth=1.4, alpha=0.5 * bar.opacity)
        axes.plot(
            middle,
            bar.at,
            marker="o",
            markersize=min(11.0, bar.thick - 1),
            color=bar.colour,
            alpha=bar.opacity,
            markeredgewidth=0,
        )
    else:
        axes.barh(bar.at, middle - base, left=base, height=bar.thick, color=bar.colour, alpha=bar.opacity, linewidth=0)
    if bar.figure.low != bar.figure.high:
        axes.hlines(bar.at, max(bar.figure.low, low), bar.figure.high, color=palette.ink, linewidth=1.2, alpha=0.7)
    beyond = max(middle, bar.figure.high if bar.figure.low != bar.figure.high else middle)
    at, aside, align = (
        (beyond, 8 if bars.y_logarithmic else 5, "left") if middle >= 0 else (bar.figure.low, -5, "right")
    )
    axes.annotate(
        short_number(middle),
        (at, bar.at),
        (aside, 0),
        textcoords="offset points",
        va="center_baseline",
        ha=align,
        fontsize=SMALL,
        color=palette.ink,
    )


def _labels(axes: Axes, bars: BarChart, palette: Palette, stacked: bool) -> None:
    each = _each(bars, stacked)
    for row, label in enumerate(bars.labels):
        ours = label in bars.ours
        at = row * each + (_BETWEEN / 2 + TEXT / 2 if stacked else each / 2)
        axes.annotate(
            label,
            (0, at),
            (0 if stacked else -10, 0),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            ha="left" if stacked else "right",
            va="center_baseline",
            color=palette.ours if ours else palette.ink,
            fontweight="bold" if ours else "normal",
            annotation_clip=False,
        )


def _marks(axes: Axes, bars: BarChart, palette: Palette) -> None:
    for name, mark in bars.marks.items():
        if mark <= 0 and bars.y_logarithmic:
            continue
        axes.axvline(mark, color=palette.mark, linewidth=1.1, linestyle=(0, (3, 3)), zorder=3)
        text, at = mark_label(name, mark), ("data", "axes fraction")
        axes.annotate(
            text,
            (mark, 1),
            (0, 5),
            xycoords=at,
            textcoords="offset points",
            fontsize=SMALL,
            color=palette.mark,
            ha="center",
        )
