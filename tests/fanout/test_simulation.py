"""Whatever happens to it, the engine keeps its promises: drawn lives of it, each some seconds of virtual time.

A hundred by default, five hundred where `proof` is among the markers, and more with `--proof=TIMES`. A failure names its schedule. To
play that one again:

    SCHEDULE=4711 pytest tests/fanout/test_simulation.py
"""

from __future__ import annotations

import os
from collections import Counter

import pytest

from tests.fanout.simulation import run_simulation

FROM = int(os.environ.get("SCHEDULE", "0"))
COUNT = 500
PART = 100
# What is to come to pass in any hundred schedules, so that a promise is not kept for want of occasion.
OCCASIONS = (
    *("FRESH", "CACHED", "STALE", "TIMEOUT", "ERROR", "GARBLED", "WRONG_IDENTITY", "SHED", "BREAKER_OPEN", "SKIPPED"),
    *(
        "first_calls",
        "hedges",
        "hedges_won",
        "retries",
        "late_calls",
        "late_answers",
        "skipped",
        "breaker_open",
        "at_limit",
        "dimmed",
    ),
    *("hits", "misses", "joined", "served_stale", "evictions", "shelf_hits", "shelf_lies"),
)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "first" in metafunc.fixturenames:
        count = 1 if "SCHEDULE" in os.environ else COUNT * max(1, metafunc.config.getoption("proof"))
        parts = [(first, min(PART, FROM + count - first)) for first in range(FROM, FROM + count, PART)]
        more = [pytest.param(*part, marks=pytest.mark.proof) for part in parts[1:]]
        metafunc.parametrize(("first", "count"), [*parts[:1], *more])


def test_whatever_happens_every_promise_is_kept(first: int, count: int) -> None:
    found: Counter[str] = Counter()
    for seed in range(first, first + count):
        found.update(run_simulation(seed))
    if count == PART:
        assert [name for name in OCCASIONS if not found[name]] == []


def test_the_same_schedule_comes_to_the_same() -> None:
    assert run_simulation(3) == run_simulation(3)
