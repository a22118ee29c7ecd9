"""Assets: the style sheet, the scripts and the icons, with names that change with their content.

They are compressed once at start. A name with a hash may be cached for ever.
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Mapping
from functools import lru_cache
from importlib.resources import files
from pathlib import Path

from msgspec import Struct

from cashier.pages.brand import style_sheet
from cashier.pages.element_style import element_style
from cashier.pages.scripts import scripts
from cashier.settings.pages import BrandSettings

PREFIX = "/cashier-assets/"
_MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
}


class Asset(Struct, frozen=True):
    """`gzipped`: None where compressing saves nothing."""

    name: str
    media_type: str
    body: bytes
    gzipped: bytes | None


class AssetStore:
    """Addresses are below the path that the pages are mounted under. Raises OSError if the logo
    cannot be read.
    """

    def __init__(self, brand: BrandSettings) -> None:
        packaged = {file.name: file.read_bytes() for file in files("cashier.pages").joinpath("assets").iterdir()}
        packaged |= scripts()
        packaged["element.css"] = element_style(style_sheet(brand), packaged["page.css"].decode()).encode()
        packaged["page.css"] = style_sheet(brand).encode() + packaged["page.css"]
        if brand.logo:
            packaged[f"logo{Path(brand.logo).suffix.lower()}"] = Path(brand.logo).read_bytes()
        assets = {name: _asset(name, body) for name, body in packaged.items()}
        self._urls = {name: f"{PREFIX}{asset.name}" for name, asset in assets.items()}
        self.by_name: Mapping[str, Asset] = {asset.name: asset for asset in assets.values()}

    def url(self, name: str) -> str:
        """The address of the asset with this plain name, such as `page.css`."""
        return self._urls[name]

    def asset(self, name: str) -> Asset:
        """The asset with this plain name."""
        return self.by_name[self._urls[name].rpartition("/")[2]]

    @property
    def logo(self) -> str | None:
        """The address of the brand's logo."""
        return next((url for name, url in self._urls.items() if name.startswith("logo.")), None)


@lru_cache(maxsize=64)
def _asset(name: str, body: bytes) -> Asset:
    """Keyed by all that it is made of: stores of the same brand share it."""
    gzipped = gzip.compress(body, 9, mtime=0)
    return Asset(
        f"{hashlib.sha256(body).hexdigest()[:12]}.{name}",
        _MEDIA_TYPES[Path(name).suffix],
        body,
        gzipped if len(gzipped) < len(body) else None,
    )
