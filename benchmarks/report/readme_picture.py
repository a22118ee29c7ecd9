"""The picture for the README: cost beside the peers, and latency by load.

1200 × 420, SVG or PNG.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from benchmarks.report import chart_figure
from benchmarks.report.inline_svg import Size, settings
from benchmarks.report.palette import LIGHT
from benchmarks.results import BarChart, Drawing, LineChart, Results

WIDTH, HEIGHT = 1200, 420
_MARGIN = 24


def missing(results: Results) -> str:
    """The reason why there can be no picture, or an empty string."""
    return "" if len(_drawings(results)) == 2 else "no picture: it needs results of both studies, `cost` and `latency`"


def draw(results: Results, file: Path) -> None:
    drawings = _drawings(results)
    with mpl.rc_context({**settings(LIGHT, "picture"), "svg.fonttype": "path"}):
        figure = Figure(figsize=(WIDTH / 72, HEIGHT / 72), dpi=72, facecolor="#ffffff")
        panel_width = WIDTH / len(drawings)
        for place, drawing in enumerate(drawings):
            _panel(figure, drawing, place * panel_width + _MARGIN, panel_width - 2 * _MARGIN)
        file.parent.mkdir(parents=True, exist_ok=True)
        metadata = {"Date": None} if file.suffix == ".svg" else None
        figure.savefig(file, dpi=144 if file.suffix == ".png" else 72, metadata=metadata)


def _drawings(results: Results) -> list[Drawing]:
    """The first bar chart of `cost` and the first line chart of `latency`."""
    named = {finding.name: finding for finding in results.findings}
    bars = [drawing for drawing in named["cost"].drawings if isinstance(drawing, BarChart)] if "cost" in named else []
    lines = (
        [drawing for drawing in named["latency"].drawings if isinstance(drawing, LineChart)]
        if "latency" in named
        else []
    )
    return [*bars[:1], *lines[:1]]


def _panel(figure: Figure, drawing: Drawing, left: float, width: float) -> None:
    figure.text(left / WIDTH, 1 - 30 / HEIGHT, drawing.title, fontsize=16, fontweight="bold", va="center")
    axes = figure.add_axes((0, 0, 1, 1))
    height = HEIGHT - 52
    chart_figure.draw(drawing, axes, LIGHT, Size(round(width), height, False))
    box = axes.get_position()
    axes.set_position(
        (
            (left + box.x0 * width) / WIDTH,
            box.y0 * height / HEIGHT,
            box.width * width / WIDTH,
            box.height * height / HEIGHT,
        )
    )
