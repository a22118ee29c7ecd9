"""What all tests need of pytest itself."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
from contextlib import suppress

import pytest
from hypothesis import settings

# How many examples of every property. Each rule is met by the few; the many are for what only chance finds.
FEW = 25
MANY = 400


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--proof",
        type=int,
        default=0,
        metavar="TIMES",
        help="draw many and fresh cases instead of few that are always the same: properties, histories, schedules; TIMES as many",
    )


def pytest_configure(config: pytest.Config) -> None:
    times: int = config.getoption("proof")
    drawn = settings(deadline=None, database=None, print_blob=True)
    settings.register_profile("few", drawn, derandomize=True, max_examples=FEW)
    settings.register_profile("many", drawn, derandomize=False, max_examples=MANY * max(1, times))
    settings.load_profile("many" if times else "few")
    compile_once(config)


def compile_once(config: pytest.Config) -> None:
    """Compile once what many started processes import, also where Python was told to leave no bytecode beside the sources."""
    cache = getattr(config, "cache", None)  # it can be switched off
    if not sys.dont_write_bytecode or cache is None:
        return
    with suppress(OSError):  # a checkout that cannot be written to is only slower
        kept = str(cache.mkdir("bytecode"))
        sys.dont_write_bytecode, sys.pycache_prefix = False, kept
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        os.environ["PYTHONPYCACHEPREFIX"] = kept


def pytest_collection_finish(session: pytest.Session) -> None:
    """Say that no event loop is set in this thread, and that what has been imported and gathered stays.

    looptime asks the policy for the loop of every test, also of those that are not async. As long as nobody has set one, or none, the
    policy makes one for the asking, which nobody closes: a ResourceWarning in whatever test the collector happens to run in.

    Modules and thousands of tests are a heap that no collection makes smaller, and that every full one would look through.
    """
    asyncio.set_event_loop(None)
    gc.collect()
    gc.freeze()
