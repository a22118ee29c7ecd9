"""Brand: name, logo and colour of the pages. Colours are moved until they can be read.

The contrast is that of WCAG 2.2: at least 4.5 between a text and its ground, and 3 between a button
and its ground.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from cashier.settings.pages import BrandSettings

Rgb: TypeAlias = tuple[int, int, int]

_WHITE: Rgb = (255, 255, 255)
_BLACK: Rgb = (0, 0, 0)
# A little darker than any ground of the light theme in `page.css`, and lighter than any of the dark
# one, both with a tint of the colour.
LIGHT_GROUND: Rgb = (0xE9, 0xEE, 0xF5)
DARK_GROUND: Rgb = (0x22, 0x28, 0x31)
_TEXT, _BUTTON = 4.5, 3.0
# Black on a colour that is only just light enough looks like an error.
_BLACK_TEXT = 7.0


def style_sheet(brand: BrandSettings) -> str:
    """The custom properties of the colour, for both themes."""
    color = _parsed(brand.color)
    light, dark = _properties(color, LIGHT_GROUND, _BLACK), _properties(color, DARK_GROUND, _WHITE)
    return f":root{{{light}}}@media (prefers-color-scheme:dark){{:root{{{dark}}}}}"


def contrast(one: Rgb, other: Rgb) -> float:
    """1 to 21, as WCAG 2.2 defines it."""
    darker, lighter = sorted((_luminance(one), _luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def _properties(color: Rgb, ground: Rgb, towards: Rgb) -> str:
    accent = _moved(color, towards, lambda each: contrast(each, ground) >= _TEXT)
    fill = _moved(color, towards, lambda each: contrast(each, ground) >= _BUTTON and _text_on(each) is not None)
    return f"--accent:{_hex(accent)};--fill:{_hex(fill)};--on-fill:{_hex(_text_on(fill) or _BLACK)}"


def _text_on(fill: Rgb) -> Rgb | None:
    """White where it can be read, else black; None for a colour that suits neither."""
    if contrast(_WHITE, fill) >= _TEXT:
        return _WHITE
    return _BLACK if contrast(_BLACK, fill) >= _BLACK_TEXT else None


def _moved(color: Rgb, towards: Rgb, suits: Callable[[Rgb], bool]) -> Rgb:
    """The nearest colour on the way to `towards` that suits."""
    steps = (_mixed(color, towards, step / 50) for step in range(51))
    return next((each for each in steps if suits(each)), towards)


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
