"""Charts of the results, by matplotlib: for the page, and the picture for the README.

Ours has the strong colour. The spread of the rounds is a band around a line, a thin line on a bar.
"""

from __future__ import annotations

import io
import re
from itertools import count
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

from benchmarks.results import BarChart, Drawing, Figure, Line, LineChart, Results, Timeline

OURS, MARK, INK = "#d9480f", "#8a3d8f", "#1c2430"
QUIET = ("#8494a8", "#5f8fb4", "#6f9c86", "#a08fb8", "#b39a62", "#5b6677")
OPACITIES = (1.0, 0.55, 0.3)
# With more points a line has no markers.
MARKED = 16
# Charts are drawn for light paper. The filter inverts lightness and keeps hues.
DARK = "@media (prefers-color-scheme: dark) { svg { filter: invert(0.9) hue-rotate(180deg); } }"
# A single extreme round may leave the chart above this multiple of the highest median.
HEADROOM = 2.0
# The picture: what a consultation costs and how long it takes, on quiet days above bad ones.
PICTURED = ("cost", "latency", "stragglers", "hang")


def inline_svg(drawing: Drawing, name: str) -> str:
    """An `<svg>` element in which text stays text. `name`: seed of its ids, unique on the page."""
    height = _height(drawing)
    with mpl.rc_context({**_SETTINGS, "svg.fonttype": "none", "svg.hashsalt": name}):
        canvas = Canvas(figsize=(10, height), layout="constrained")
        draw(drawing, canvas.add_subplot())
        written = io.StringIO()
        metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        canvas.savefig(written, format="svg", transparent=True, metadata=metadata)
    # The ids of groups are not referenced and repeat in every chart.
    body = re.sub(r'<g id="[^"]*"', "<g", written.getvalue().partition("<svg")[2].partition(">")[2])
    return f'<svg viewBox="0 0 720 {72 * height:g}" role="img">{body.replace("xlink:href", "href")}'


def _height(drawing: Drawing) -> float:
    match drawing:
        case LineChart():
            return 3.8
        case BarChart():
            return 1.4 + 0.3 * len(drawing.labels) * max(1, len(drawing.groups))
    return 1.4 + 0.3 * len({span.label for span in drawing.spans})


def draw_picture(results: Results, file: Path) -> bool:
    """Draw the first charts of `PICTURED`. False unless all of these studies have results."""
    charts = {finding.name: finding.drawings[0] for finding in results.findings if finding.drawings}
    if not charts.keys() >= {*PICTURED}:
        return False
    with mpl.rc_context({**_SETTINGS, "svg.fonttype": "path", "svg.hashsalt": "picture"}):
        layout = ConstrainedLayoutEngine(w_pad=0.2, h_pad=0.2)
        canvas = Canvas(figsize=(1200 / 72, 820 / 72), layout=layout, facecolor="#ffffff")
        for name, axes in zip(PICTURED, canvas.subplots(2, 2).flat, strict=True):
            draw(charts[name], axes)
        file.parent.mkdir(parents=True, exist_ok=True)
        svg = file.suffix == ".svg"
        canvas.savefig(file, dpi=72 if svg else 144, metadata={"Date": None} if svg else None)
    if svg:
        file.write_text(file.read_text("utf-8").replace("</style>", f"{DARK}</style>", 1), "utf-8")
    return True


def draw(drawing: Drawing, axes: Axes) -> None:
    axes.set_title(drawing.title, loc="left", fontweight="bold", pad=12)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    match drawing:
        case BarChart():
            _bars(drawing, axes)
        case LineChart():
            _lines(drawing, axes)
        case Timeline():
            _spans(drawing, axes)
            return
    if len(axes.get_legend_handles_labels()[1]) > 1 or drawing.marks:
        axes.legend(fontsize=10, frameon=False)


_SETTINGS: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 12,
    "text.color": INK,
    "text.parse_math": False,
    "axes.axisbelow": True,
    "axes.titlesize": 14,
    "grid.color": "#e3e6ea",
}


def _lines(chart: LineChart, axes: Axes) -> None:
    axes.grid(axis="y")
    if chart.x_title == "percentile":
        # Every further nine has the same room: 90, 99, 99.9.
        axes.set_xscale("function", functions=(_nines, lambda nines: 100 * (1 - 10 ** -np.asarray(nines))))
        axes.xaxis.set_major_locator(FixedLocator(sorted({x for line in chart.lines for x, _ in line.points})))
        axes.xaxis.set_major_formatter(FuncFormatter(_plain))
    elif chart.x_logarithmic:
        _make_logarithmic(axes, "x")
    if chart.y_logarithmic:
        _make_logarithmic(axes, "y")
    ours, others, middles, undrawable = count(), count(), list(chart.marks.values()), 0
    for line in chart.lines:
        points = _drawable(chart, line)
        undrawable += len(line.points) - len(points)
        strong = line.ours or len(chart.lines) == 1
        nth = next(ours if strong else others)
        colour, style = (OURS, ("-", "--", ":", "-.")[nth % 4]) if strong else (QUIET[nth % len(QUIET)], "-")
        at, middle = [x for x, _ in points], [figure.median for _, figure in points]
        low, high = [figure.low for _, figure in points], [figure.high for _, figure in points]
        marker = "o" if len(points) <= MARKED else ""
        axes.plot(at, middle, style, color=colour, lw=2.6 if strong else 1.8, marker=marker, ms=5, label=line.label)
        axes.fill_between(at, low, high, color=colour, alpha=0.16, lw=0)
        axes.vlines(at if len(at) == 1 else [], low[:1], high[:1], color=colour)
        middles += middle
    for name, level in chart.marks.items():
        axes.axhline(level, color=MARK, lw=1.1, ls="--", label=_mark_label(name, level))
    if not chart.y_logarithmic:
        axes.set_ylim(bottom=min(0.0, *middles, 0.0))
    if middles and axes.get_ylim()[1] > HEADROOM * max(middles) > 0:
        axes.set_ylim(top=HEADROOM * max(middles))
    missing = f" ({undrawable} points are zero or less and have no place on these axes)" if undrawable else ""
    axes.set_xlabel(chart.x_title + missing)
    axes.set_ylabel(chart.y_title)


def _drawable(chart: LineChart, line: Line) -> list[tuple[float, Figure]]:
    """In order of x. A logarithmic axis has no place for zero."""
    drawable = (
        (x, figure)
        for x, figure in line.points
        if (x > 0 or not chart.x_logarithmic) and (figure.median > 0 or not chart.y_logarithmic)
    )
    return sorted(drawable, key=lambda point: point[0])


def _bars(chart: BarChart, axes: Axes) -> None:
    axes.grid(axis="x")
    if chart.y_logarithmic:
        _make_logarithmic(axes, "x")
    thick = 0.8 / max(1, len(chart.groups))
    for group, (name, figures) in enumerate(chart.groups.items()):
        for row, (label, figure) in enumerate(zip(chart.labels, figures, strict=True)):
            at, strong = row + (group + 0.5) * thick - 0.4, label in chart.ours or not chart.ours
            several = len(chart.groups) > 1 and not chart.ours
            colour = QUIET[(group + 1) % len(QUIET)] if several else OURS if strong else QUIET[0]
            alpha = 1.0 if several else OPACITIES[min(group, 2)]
            if figure is None or (chart.y_logarithmic and figure.median <= 0):
                text = "not measured" if figure is None else _plain(figure.median)
                axes.annotate(text, (0, at), (4, 0), ("axes fraction", "data"), "offset points", va="center")
                continue
            title = name if row == 0 and len(chart.groups) > 1 else None
            if chart.y_logarithmic:  # without a zero the length of a bar means nothing
                axes.plot(figure.median, at, "o", color=colour, alpha=alpha, ms=9, label=title)
            else:
                axes.barh(at, figure.median, 0.9 * thick, color=colour, alpha=alpha, label=title)
            axes.hlines(at, figure.low, figure.high, color=INK, lw=1.2)
            beyond = max(figure.median, figure.high)
            axes.annotate(_plain(figure.median), (beyond, at), (7, 0), textcoords="offset points", va="center")
    for name, level in chart.marks.items():
        axes.axvline(level, color=MARK, lw=1.1, ls="--", label=_mark_label(name, level))
    axes.set_yticks(range(len(chart.labels)), chart.labels)
    for tick in axes.get_yticklabels():
        if tick.get_text() in chart.ours:
            tick.set(color=OURS, fontweight="bold")
    axes.set_ylim(len(chart.labels) - 0.4, -0.6)
    axes.margins(x=0.12)
    axes.set_xlabel(chart.y_title)


def _spans(timeline: Timeline, axes: Axes) -> None:
    axes.grid(axis="x")
    labels = list(dict.fromkeys(span.label for span in timeline.spans))
    for span in timeline.spans:
        at, width = labels.index(span.label), span.end - span.start
        axes.barh(at, width, 0.7, left=span.start, color=OURS if span.ours else QUIET[0])
    for at, label in enumerate(labels):
        mine = [span for span in timeline.spans if span.label == label]
        lasted = "  +  ".join(_plain(span.end - span.start) for span in mine)
        axes.annotate(lasted, (mine[-1].end, at), (7, 0), textcoords="offset points", va="center")
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.margins(x=0.12)
    axes.set_xlim(left=0)
    axes.set_xlabel(timeline.unit)


def _make_logarithmic(axes: Axes, which: str) -> None:
    (axes.set_xscale if which == "x" else axes.set_yscale)("log", nonpositive="mask")
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(_plain))


def _nines(percentile: Any) -> Any:
    return -np.log10(np.clip(1 - np.asarray(percentile) / 100, 1e-9, None))


def _plain(value: float, _: object = None) -> str:
    """A number without an exponent, briefly."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{float(f'{value:.3g}'):g}"


def _mark_label(name: str, level: float) -> str:
    return name if _plain(level) in name else f"{name}: {_plain(level)}"
