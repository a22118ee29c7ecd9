"""Whatever the colour of a brand, its texts and buttons can be read."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cashier.pages.asset_store import AssetStore
from cashier.pages.brand import Rgb, contrast, style_sheet
from cashier.settings.pages import BrandSettings

CSS = (Path(__file__).parents[2] / "cashier" / "pages" / "assets" / "page.css").read_text()
COLORS = st.integers(0, 0xFFFFFF).map(lambda number: f"#{number:06x}")


def rgb(color: str) -> Rgb:
    if len(color) == 4:
        color = "#" + "".join(digit * 2 for digit in color[1:])
    return (int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16))


def themes(text: str) -> list[dict[str, Rgb]]:
    """The colours of the light theme and of the dark one."""
    found = re.findall(r":root\s*\{([^}]*)\}", text)[:2]
    return [{name: rgb(value) for name, value in re.findall(r"--([\w-]+):\s*(#\w+);?", block)} for block in found]


def tinted(accent: Rgb, surface: Rgb, share: float) -> Rgb:
    red, green, blue = (round(b + (a - b) * share) for a, b in zip(accent, surface, strict=True))
    return (red, green, blue)


@given(COLORS)
def test_any_colour_is_readable_on_every_ground_of_both_themes(color: str) -> None:
    shares = [int(share) / 100 for share in re.findall(r"--tint: color-mix\(in srgb, var\(--accent\) (\d+)%", CSS)]
    for own, theme, share in zip(themes(style_sheet(BrandSettings(color=color))), themes(CSS), shares, strict=True):
        for ground in (theme["ground"], theme["surface"], tinted(own["accent"], theme["surface"], share)):
            assert contrast(own["accent"], ground) >= 4.5
        for ground in (theme["ground"], theme["surface"]):
            assert contrast(own["fill"], ground) >= 3
        assert contrast(own["on-fill"], own["fill"]) >= 4.5


def test_the_texts_of_both_themes_are_readable() -> None:
    for theme in themes(CSS):
        for ground in ("ground", "surface"):
            for text in ("ink", "soft", "good", "warn", "bad"):
                assert contrast(theme[text], theme[ground]) >= 4.5, (text, ground)
            assert contrast(theme["edge"], theme[ground]) >= 3


def test_a_colour_that_is_readable_is_not_changed() -> None:
    assert "--fill:#1456f0" in style_sheet(BrandSettings(color="#1456f0"))


@pytest.mark.parametrize("color", ["red", "#fff", "#12345g", "#123456;}*{", "#123456\n"])
def test_a_colour_that_is_none_is_refused(color: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"color": color}, BrandSettings)


def test_a_logo_is_an_asset(tmp_path: Path) -> None:
    path = tmp_path / "Mark.SVG"
    path.write_text("<svg/>")
    assets = AssetStore(BrandSettings(logo=str(path)))
    assert assets.logo == assets.url("logo.svg")
    assert assets.asset("logo.svg").media_type == "image/svg+xml"
