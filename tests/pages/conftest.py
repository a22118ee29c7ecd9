"""The shop of most page tests."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.pages.page_shop import PageShop, page_shop


@pytest.fixture
async def shop() -> AsyncIterator[PageShop]:
    async with page_shop() as opened:
        yield opened
