"""What the tests of the door share: one running server for all that do not stop it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .process import Served, served


@pytest.fixture(scope="session")
def server() -> Iterator[Served]:
    with served() as running:
        yield running
