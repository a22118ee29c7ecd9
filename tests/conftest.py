"""What all tests need of pytest itself."""

from __future__ import annotations

import asyncio

import pytest


def pytest_collection_finish(session: pytest.Session) -> None:
    """Say that no event loop is set in this thread.

    looptime asks the policy for the loop of every test, also of those that are not async. As long as nobody has set one, or none, the
    policy makes one for the asking, which nobody closes: a ResourceWarning in whatever test the collector happens to run in.
    """
    asyncio.set_event_loop(None)
