"""Colours for the page, light or dark, and for the picture, which is light.

Ours is the strong one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple


class Palette(NamedTuple):
    """`quiet`: the other programs, cyclic."""

    ink: str
    muted: str
    grid: str
    ours: str
    mark: str
    quiet: Sequence[str]


LIGHT = Palette(
    "#1c2430",
    "#667080",
    "#e3e6ea",
    "#d9480f",
    "#8a3d8f",
    ("#8494a8", "#5f8fb4", "#6f9c86", "#a08fb8", "#b39a62", "#5b6677"),
)
DARK = Palette(
    "#e6e9ee",
    "#98a2b0",
    "#2b323c",
    "#ff8a4c",
    "#d59bd9",
    ("#7f8ea1", "#6ea3cb", "#7fb098", "#ab9ac6", "#bfa76f", "#a9b4c2"),
)
# Placeholders, replaced in the SVG by the CSS properties of the page.
PAGE = Palette(
    "#f10001",
    "#f10002",
    "#f10003",
    "#f10004",
    "#f10005",
    ("#f10010", "#f10011", "#f10012", "#f10013", "#f10014", "#f10015"),
)


def properties(palette: Palette) -> Mapping[str, str]:
    """By name of the CSS property."""
    named = {
        "--ink": palette.ink,
        "--muted": palette.muted,
        "--grid": palette.grid,
        "--ours": palette.ours,
        "--mark": palette.mark,
    }
    return {**named, **{f"--quiet-{place}": colour for place, colour in enumerate(palette.quiet)}}


def css(palette: Palette) -> str:
    return "".join(f"{name}:{colour};" for name, colour in properties(palette).items())


def use_css_properties(drawn: str) -> str:
    """Replace the placeholder colours by CSS properties."""
    for name, colour in properties(PAGE).items():
        drawn = drawn.replace(colour, f"var({name})")
    return drawn
