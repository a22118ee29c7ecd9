"""The templates, from fixture views."""

from __future__ import annotations

import pytest

from tests.pages.gallery import LOCALES, gallery, rendering


@pytest.mark.parametrize("locale", LOCALES)
def test_every_state_is_rendered_in_every_language(locale: str) -> None:
    renderer, _ = rendering()
    for name, page, view in gallery(locale):
        document = renderer.page(page, view)
        assert f'<html lang="{locale}"' in document, name
        assert renderer.main(page, view) in document, name
