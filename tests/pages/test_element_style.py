"""The style sheet of the element, from that of the pages."""

from __future__ import annotations

from cashier.pages.asset_store import AssetStore
from cashier.pages.brand import style_sheet
from cashier.pages.element_style import element_style
from cashier.settings.pages import BrandSettings

PAGE = """
:root { color-scheme: light dark; --ink: #121821; }
body { margin: 0; }
.top, main, .foot { padding: 0; } main:focus { outline: none; } .frame main { margin: 0; }
.row { grid-template: "tile main price" "tile main" / auto; } .main { grid-area: main; grid-row: main-start; }
"""


def test_selectors_of_a_document_become_those_of_the_element() -> None:
    sheet = element_style("", PAGE)
    assert ":root" not in sheet
    assert "body" not in sheet
    assert ":host { margin: 0; }" in sheet
    assert ".top, [data-view], .foot" in sheet
    assert "[data-view]:focus" in sheet
    assert ".frame [data-view] {" in sheet


def test_areas_and_classes_keep_their_names() -> None:
    sheet = element_style("", PAGE)
    assert '"tile main price" "tile main" / auto' in sheet
    assert ".main { grid-area: main; grid-row: main-start; }" in sheet


def test_the_colour_of_the_brand_can_be_replaced_and_the_theme_is_the_shops() -> None:
    sheet = element_style(style_sheet(BrandSettings(color="#0a7f00")), PAGE)
    assert "--brand-fill:#0a7f00" in sheet
    assert "--fill: var(--cashier-fill, var(--brand-fill))" in sheet
    assert "color-scheme: light dark" not in sheet


def test_the_packaged_sheet_has_it() -> None:
    body = AssetStore(BrandSettings()).asset("element.css").body.decode()
    assert "iframe.challenge" in body
    assert body.count("{") == body.count("}")
