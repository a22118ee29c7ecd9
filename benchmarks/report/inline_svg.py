"""Charts as inline SVG: text stays text, in the page's font, colours and size.

One unit of a chart is one CSS pixel at its natural width, so each chart comes in two widths and the
page shows the one that fits.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Sequence
from html import escape
from typing import Any, NamedTuple

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullLocator

from benchmarks.report.palette import PAGE, Palette, use_css_properties

_PER_INCH = 72
TEXT = 12.0
SMALL = 11.0


class Size(NamedTuple):
    width: int
    height: int
    narrow: bool


class Key(NamedTuple):
    """Legend entry of a colour. `always`: also if the chart has room for direct labels."""

    label: str
    colour: str
    opacity: float = 1.0
    dashed: bool = False
    always: bool = False
    thick: int = 3


def settings(palette: Palette, name: str) -> dict[Any, Any]:
    """`name`: seed of the element ids, so that they are stable and unique within the page."""
    return {
        "svg.fonttype": "none",
        "svg.hashsalt": name,
        "font.family": "DejaVu Sans",
        "font.size": TEXT,
        "text.color": palette.ink,
        "text.parse_math": False,
        "axes.edgecolor": palette.grid,
        "axes.labelcolor": palette.muted,
        "axes.unicode_minus": True,
        "xtick.color": palette.muted,
        "ytick.color": palette.muted,
    }


def inline_svg(draw: Callable[[Axes, Palette, Size], object], size: Size, title: str, name: str) -> str:
    """Draw one axes and return an `<svg>` element."""
    with mpl.rc_context(settings(PAGE, name)):
        figure = Figure(figsize=(size.width / _PER_INCH, size.height / _PER_INCH), dpi=_PER_INCH)
        draw(figure.add_axes((0, 0, 1, 1)), PAGE, size)
        written = io.StringIO()
        no_metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(written, format="svg", transparent=True, metadata=no_metadata)
    body = written.getvalue().partition("<svg")[2].partition(">")[2]
    # The ids of groups are not referenced and repeat in every chart.
    body = re.sub(r'<g id="[^"]*"', "<g", body).replace("xlink:href", "href")
    # Use the page's font instead of the one that measured the text.
    body = re.sub(r"(font: [\d.]+px) [^;\"]*", r"\1 var(--font)", body)
    body = re.sub(r"font-family: [^;\"]*", "font-family: var(--font)", body)
    kind = "narrow" if size.narrow else "wide"
    attributes = f'class="{kind}" viewBox="0 0 {size.width} {size.height}" role="img" aria-label="{escape(title)}"'
    return f"<svg {attributes}>{use_css_properties(body)}"


def place(axes: Axes, size: Size, left: float, right: float, top: float, bottom: float) -> None:
    """Margins in pixels."""
    width, height = size.width, size.height
    axes.set_position((left / width, bottom / height, 1 - (left + right) / width, 1 - (top + bottom) / height))


def remove_frame(axes: Axes, palette: Palette, grid: str) -> None:
    """Remove the frame and draw a light grid along one axis behind the data."""
    for side in axes.spines.values():
        side.set_visible(False)
    axes.set_axisbelow(True)
    axes.grid(True, axis=grid, color=palette.grid, linewidth=1)  # type: ignore[arg-type]  # "x" or "y"
    axes.tick_params(length=0, labelsize=SMALL, pad=6)
    axes.patch.set_alpha(0)


def short_number(value: float) -> str:
    """Format a number briefly for a chart."""
    places = 0 if abs(value) >= 100 or value == int(value) else 1
    text = f"{value:,.{places}f}" if not places or abs(value) >= 10 else f"{value:.3g}"
    return text.replace("-", "−", 1)


def mark_label(name: str, mark: float) -> str:
    """Label of a mark: its name, with its value unless the name includes it."""
    return name if short_number(mark) in name else f"{name}: {short_number(mark)}"


def draw_empty(axes: Axes, palette: Palette) -> None:
    axes.set_axis_off()
    axes.text(0.5, 0.5, "nothing was measured", transform=axes.transAxes, ha="center", va="center", color=palette.muted)


def ticks(axes: Axes, which: str, logarithmic: bool, narrow: bool, exactly: Sequence[float] = ()) -> None:
    """Set a few plain ticks. `exactly`: only these."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    low, high = axes.get_xlim() if which == "x" else axes.get_ylim()
    if exactly:
        axis.set_major_locator(FixedLocator(list(exactly)))
    elif logarithmic:
        decades = math.log10(high / low)
        axis.set_major_locator(
            LogLocator(subs=(1, 2, 5) if decades < (1.5 if narrow and which == "x" else 2.5) else (1,))
        )
    else:
        axis.set_major_locator(MaxNLocator(6 if which == "y" else 4 if narrow else 9, steps=[1, 2, 5, 10]))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: short_number(float(f"{value:.6g}"))))


def width_of(text: str, size: float = TEXT) -> float:
    """Approximate width in pixels, rather too large."""
    return len(text) * size * 0.56
