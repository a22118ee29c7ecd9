"""Whatever happens to it, the engine keeps its promises: five hundred drawn lives of it, each some seconds of virtual time.

A failure names its schedule. To play that one again, or more of them than usual:

    SCHEDULE=4711 pytest tests/fanout/test_schedules.py
    SCHEDULES=50000 pytest tests/fanout/test_schedules.py
"""

from __future__ import annotations

import os
from collections import Counter

import pytest

from .schedules import play

FROM = int(os.environ.get("SCHEDULE", "0"))
COUNT = 1 if "SCHEDULE" in os.environ else int(os.environ.get("SCHEDULES", "500"))
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


@pytest.mark.parametrize("first", range(FROM, FROM + COUNT, PART))
def test_whatever_happens_every_promise_is_kept(first: int) -> None:
    found: Counter[str] = Counter()
    count = min(PART, FROM + COUNT - first)
    for seed in range(first, first + count):
        found.update(play(seed))
    if count == PART:
        assert [name for name in OCCASIONS if not found[name]] == []


def test_the_same_schedule_comes_to_the_same() -> None:
    assert play(3) == play(3)
