"""pytest configuration of all tests: example counts, bytecode, garbage collection."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
from collections.abc import Callable, Generator
from contextlib import suppress

import pytest
from hypothesis import settings
from hypothesis.internal.conjecture import providers

from tests.support.seeds import draws_fresh_cases
from tests.support.virtual_time import VirtualLoop

# Examples per property. The few reach every rule; the many search for rare cases.
FEW = 25
MANY = 400


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--proof",
        type=int,
        default=0,
        metavar="TIMES",
        help="draw many new cases (properties, histories, schedules) instead of few fixed ones, TIMES as many",
    )
    parser.addoption(
        "--fixed-seeds",
        action="store_true",
        help="with --proof: draw the same cases in every run",
    )
    parser.addoption(
        "--require-programs",
        action="store_true",
        help="fail, instead of skip, where nginx, HAProxy, Caddy, Envoy or Chromium is missing",
    )


def pytest_configure(config: pytest.Config) -> None:
    times: int = config.getoption("proof")
    base = settings(deadline=None, database=None, print_blob=True)
    settings.register_profile("few", base, derandomize=True, max_examples=FEW)
    fixed = not draws_fresh_cases(config)
    settings.register_profile("many", base, derandomize=fixed, max_examples=MANY * max(1, times))
    settings.load_profile("many" if times else "few")
    if fixed:
        # Else it draws constants of the modules that happen to be loaded by the tests before.
        providers.__dict__["is_local_module_file"] = lambda _: False
    compile_once(config)


def compile_once(config: pytest.Config) -> None:
    """Keep bytecode for the processes that tests start, also where Python writes none beside the
    sources."""
    cache = getattr(config, "cache", None)  # None with -p no:cacheprovider
    if not sys.dont_write_bytecode or cache is None:
        return
    with suppress(OSError):  # a read-only checkout is only slower
        directory = str(cache.mkdir("bytecode"))
        sys.dont_write_bytecode, sys.pycache_prefix = False, directory
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        os.environ["PYTHONPYCACHEPREFIX"] = directory


def pytest_asyncio_loop_factories(item: pytest.Item) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    virtual = item.get_closest_marker("virtual_time") is not None
    return {"asyncio": VirtualLoop if virtual else asyncio.new_event_loop}


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collect no garbage, which is a third of the time of all imports, and set no event loop.

    looptime asks the policy for a loop in every test. If none was ever set, the policy makes one
    that is never closed, which is a ResourceWarning in some later test.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        asyncio.set_event_loop(None)
        gc.enable()


@pytest.fixture(autouse=True, scope="module")
def _frozen_heap() -> None:
    """Exempt all that was there before the module from garbage collection, as a warm service does.

    Searching it takes a second, in each collection that a test makes or happens to trigger.
    """
    gc.collect()
    gc.freeze()
