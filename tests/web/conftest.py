"""What the tests of the door share: one running server for all that do not stop it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from .process import Served, served


def pytest_collection_finish(session: pytest.Session) -> None:
    """Say that no event loop is set in this thread.

    looptime asks the policy for the loop of every test, also of those that are not async. As long as nobody has set one, or none, the
    policy makes one for the asking, which nobody closes: a ResourceWarning in whatever test the collector happens to run in.
    """
    asyncio.set_event_loop(None)


@pytest.fixture(scope="session")
def server() -> Iterator[Served]:
    with served() as running:
        yield running
