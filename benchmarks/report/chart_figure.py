"""One chart in the page: its title, its legend, and the SVG in both widths."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from matplotlib.axes import Axes

from benchmarks.report import bar_chart, line_chart
from benchmarks.report.inline_svg import Key, Size, inline_svg
from benchmarks.report.palette import PAGE, Palette, use_css_properties
from benchmarks.results import BarChart, Drawing


def figure(drawing: Drawing, name: str) -> str:
    return (
        f"<figure><figcaption>{escape(drawing.title)}</figcaption>{_keys(keys(drawing, PAGE))}"
        f"{_drawn(drawing, name, narrow=False)}{_drawn(drawing, name, narrow=True)}{_unseen(drawing)}</figure>"
    )


def draw(drawing: Drawing, axes: Axes, palette: Palette, size: Size) -> None:
    if isinstance(drawing, BarChart):
        bar_chart.draw(drawing, axes, palette, size)
    else:
        line_chart.draw(drawing, axes, palette, size)


def keys(drawing: Drawing, palette: Palette) -> list[Key]:
    return bar_chart.keys(drawing, palette) if isinstance(drawing, BarChart) else line_chart.keys(drawing, palette)


def _drawn(drawing: Drawing, name: str, narrow: bool) -> str:
    size = bar_chart.size(drawing, narrow) if isinstance(drawing, BarChart) else line_chart.size(narrow)
    width = "narrow" if narrow else "wide"
    return inline_svg(
        lambda axes, palette, size: draw(drawing, axes, palette, size), size, drawing.title, f"{name}-{width}"
    )


def _keys(shown: Sequence[Key]) -> str:
    if not shown:
        return ""
    always = " always" if any(key.always for key in shown) else ""
    return f'<ul class="keys{always}">{"".join(f"<li>{_swatch(key)}{escape(key.label)}</li>" for key in shown)}</ul>'


def _swatch(key: Key) -> str:
    dash = ' stroke-dasharray="4 2"' if key.dashed else ""
    stroke = f'stroke="{key.colour}" stroke-width="{key.thick}" stroke-opacity="{key.opacity}"{dash}'
    line = f'<line x1="0" x2="18" y1="5" y2="5" {stroke}/>'
    return use_css_properties(f'<svg viewBox="0 0 18 10" aria-hidden="true">{line}</svg>')


def _unseen(drawing: Drawing) -> str:
    count = (
        bar_chart.count_undrawable(drawing) if isinstance(drawing, BarChart) else line_chart.count_undrawable(drawing)
    )
    return (
        f'<p class="aside">{count} points are zero or less and cannot be shown on a logarithmic axis.</p>'
        if count
        else ""
    )
