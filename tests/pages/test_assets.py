"""Assets: their names, their compression, and that an installed package has them."""

from __future__ import annotations

import gzip
import re
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

from cashier.pages.asset_store import AssetStore
from cashier.settings.pages import BrandSettings

ROOT = Path(__file__).parents[2]


def test_a_name_changes_with_its_content_only() -> None:
    one, same, other = (AssetStore(BrandSettings(color=color)) for color in ("#1456f0", "#1456f0", "#00875a"))
    assert one.url("page.css") == same.url("page.css") != other.url("page.css")
    assert one.url("icon.svg") == other.url("icon.svg")
    assert re.fullmatch(r"/cashier-assets/[0-9a-f]{12}\.page\.css", one.url("page.css"))


def test_an_asset_is_compressed_once_and_unchanged() -> None:
    for asset in AssetStore(BrandSettings()).by_name.values():
        assert asset.gzipped is not None
        assert gzip.decompress(asset.gzipped) == asset.body


@pytest.mark.proof
def test_the_wheel_has_templates_texts_scripts_and_assets(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(ROOT)],
        check=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    packed = set(ZipFile(wheel).namelist())
    wanted = {str(file.relative_to(ROOT)) for file in (ROOT / "cashier" / "pages").rglob("*.*")}
    assert {name for name in wanted if "__pycache__" not in name} <= packed
