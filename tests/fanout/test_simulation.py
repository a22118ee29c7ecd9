"""Invariants of the fan-out in random simulations, each some seconds of virtual time.

A hundred by default, five hundred with the marker `proof`, more with `--proof=TIMES`. A failure
names its seed. To run that one again:

    SCHEDULE=4711 pytest tests/fanout/test_simulation.py
"""

from __future__ import annotations

import os
from collections import Counter

import pytest

from cashier.fanout.timeline import Flag
from tests.fanout.simulation import run_simulation

FROM = int(os.environ.get("SCHEDULE", "0"))
COUNT = 500
PART = 100
# Events that must occur in any hundred simulations: otherwise an invariant may hold vacuously.
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
    # The meter hides the batches.
    *(flag for flag in Flag if flag is not Flag.BATCHED),
    *("hits", "misses", "joined", "served_stale", "fallbacks", "evictions", "l2_hits", "l2_wrong_keys"),
)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "first" in metafunc.fixturenames:
        count = 1 if "SCHEDULE" in os.environ else COUNT * max(1, metafunc.config.getoption("proof"))
        parts = [(first, min(PART, FROM + count - first)) for first in range(FROM, FROM + count, PART)]
        more = [pytest.param(*part, marks=pytest.mark.proof) for part in parts[1:]]
        metafunc.parametrize(("first", "count"), [*parts[:1], *more])


def test_every_invariant_holds_in_random_simulations(first: int, count: int) -> None:
    counts: Counter[str] = Counter()
    for seed in range(first, first + count):
        counts.update(run_simulation(seed))
    if count == PART:
        assert [name for name in OCCASIONS if not counts[name]] == []


def test_a_simulation_is_deterministic() -> None:
    assert run_simulation(3) == run_simulation(3)
