"""The shop of most payment tests."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.payments.checkout import Checkout, checkout


@pytest.fixture
async def shop() -> AsyncIterator[Checkout]:
    """With one worker, without a shared store, and with default settings."""
    async with checkout() as opened:
        yield opened
