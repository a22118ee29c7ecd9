"""Brand: name, logo and colour of the pages. Colours are moved until they can be read.

The contrast is that of WCAG 2.2: at least 4.5 between a text and its ground.
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

from msgspec import Meta, Struct

Rgb: TypeAlias = tuple[int, int, int]

_WHITE: Rgb = (255, 255, 255)
_BLACK: Rgb = (0, 0, 0)
# The darkest ground of the light theme and the lightest of the dark one: `page.css` has the same.
LIGHT_GROUND: Rgb = (0xF1, 0xF4, 0xF9)
DARK_GROUND: Rgb = (0x22, 0x28, 0x31)
MIN_CONTRAST = 4.5


class Brand(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[pages.brand]`. `logo`: the path of an SVG or PNG file; without one the name is shown."""

    name: Annotated[str, Meta(min_length=1, max_length=40)] = "Cashier"
    color: Annotated[str, Meta(pattern=r"^#[0-9a-fA-F]{6}(?![\s\S])")] = "#1456f0"
    logo: str | None = None


def style_sheet(brand: Brand) -> str:
    """The custom properties of the colour, for both themes."""
    color = _parsed(brand.color)
    light = _readable(color, LIGHT_GROUND, _BLACK)
    dark = _readable(color, DARK_GROUND, _WHITE)
    return f":root{{{_properties(light)}}}@media (prefers-color-scheme:dark){{:root{{{_properties(dark)}}}}}"


def contrast(one: Rgb, other: Rgb) -> float:
    """1 to 21, as WCAG 2.2 defines it."""
    darker, lighter = sorted((_luminance(one), _luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def _properties(accent: Rgb) -> str:
    on_accent = max((_WHITE, (0x0B, 0x0F, 0x14)), key=lambda text: contrast(text, accent))
    return f"--accent:{_hex(accent)};--on-accent:{_hex(on_accent)}"


def _readable(color: Rgb, ground: Rgb, towards: Rgb) -> Rgb:
    """The nearest colour on the way to `towards` that can be read on the ground."""
    steps = (_mixed(color, towards, step / 50) for step in range(51))
    return next((each for each in steps if contrast(each, ground) >= MIN_CONTRAST), towards)


def _mixed(one: Rgb, other: Rgb, share: float) -> Rgb:
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(one, other, strict=True))
    return (red, green, blue)


def _luminance(color: Rgb) -> float:
    linear = [
        value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in (c / 255 for c in color)
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _parsed(color: str) -> Rgb:
    return (int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16))


def _hex(color: Rgb) -> str:
    return "#{:02x}{:02x}{:02x}".format(*color)
