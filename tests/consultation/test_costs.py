"""The costs of one consultation in calls, timers, writes and memory must not grow unnoticed.

These are counts, not seconds: equal in every run, and nearly equal from Python 3.11 to 3.13.
`tests.support.consultation_costs` takes them. After an intended change print them anew:
`COSTS=print python -m pytest -n 0 tests/consultation/test_costs.py -s`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from functools import cache

import msgspec
import pytest

from tests.support.command_processes import ROOT

# A larger change must be intended. The slack also covers versions of Python and of libraries.
SLACK = 0.05
# Half a call or timer: for small counts 5 % is less than one in twenty consultations can cause.
SLACK_OF_FEW = 0.5

# Live: all sources are called. Cached: a returning customer with the default caches.
# "functions" are entries into Python functions (a coroutine once per wake-up). "C functions" are
# called from Python; each counts for the part whose code it is, or whose code calls it. The server
# is uvicorn.
BASELINE: dict[str, tuple[float, float]] = {
    "C functions, all": (651.7, 532.14),
    "C functions, consult": (59.18, 48.18),
    "C functions, domain": (281.12, 278.12),
    "C functions, encode": (45.88, 45.88),
    "C functions, fanout": (91.83, 62.28),
    "C functions, libraries": (12.6, 12.6),
    "C functions, sources": (32, 11),
    "C functions, web": (41.08, 41.08),
    "C functions, wire": (88, 33),
    "functions, all": (741.88, 570.12),
    "functions, consult": (42.8, 42.8),
    "functions, domain": (274.02, 269.02),
    "functions, encode": (22.4, 22.4),
    "functions, fanout": (185.77, 122.02),
    "functions, libraries": (12.8, 12.8),
    "functions, sources": (60, 22),
    "functions, web": (40.08, 40.08),
    "functions, wire": (104, 39),
    "loop, tasks": (1, 1),
    "loop, futures": (1, 1),
    "loop, callbacks": (4, 4),
    "loop, timers": (3.88, 2.88),
    "clock reads": (50.4, 31.03),
    "writes, to the client": (1, 1),
    "writes, to sources": (8, 3.2),
    "memory, objects held": (206, 182),
    "memory, KiB at most": (91, 88),
    "memory, garbage": (0, 0),
}


@cache
def counts() -> dict[str, dict[str, float]]:
    command = [sys.executable, "-m", "tests.support.consultation_costs"]
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return msgspec.json.decode(done.stdout, type=dict[str, dict[str, float]])


def grown(column: int, measured: dict[str, float]) -> Iterator[str]:
    for name, now in measured.items():
        before = BASELINE.get(name, (0, 0))[column]
        if now > before * (1 + SLACK) + (SLACK_OF_FEW if before else 0):
            yield difference(name, now, before)


def shrunk(column: int, measured: dict[str, float]) -> Iterator[str]:
    """Work that moved between parts shows in both lists."""
    for name, costs in BASELINE.items():
        now, before = measured.get(name, 0.0), costs[column]
        if now < before * (1 - SLACK) - SLACK_OF_FEW:
            yield difference(name, now, before)


def difference(name: str, now: float, before: float) -> str:
    percent = f", {now / before - 1:+.1%}" if before else ""
    return f"  {name}: {now:g} instead of {before:g} ({now - before:+.4g}{percent})"


@pytest.mark.parametrize(("column", "kind"), [(0, "live"), (1, "cached")])
def test_a_consultation_costs_no_more_than_the_baseline(column: int, kind: str) -> None:
    measured = counts()[kind]
    if os.environ.get("COSTS") == "print":
        if column == 0:
            print_baseline()
        return
    dearer = list(grown(column, measured))
    if dearer:
        cheaper = list(shrunk(column, measured)) or ["  nothing"]
        pytest.fail("\n".join([f"a {kind} consultation costs more:", *dearer, "and less:", *cheaper]), pytrace=False)


def print_baseline() -> None:
    """Print a new `BASELINE` with the changes as comments."""
    live, cached = counts()["live"], counts()["cached"]
    for name in live | cached:
        now, before = (live.get(name, 0.0), cached.get(name, 0.0)), BASELINE.get(name, (0.0, 0.0))
        change = "" if now == before else f"  # was {before[0]:g}, {before[1]:g}"
        sys.stdout.write(f'\n    "{name}": ({now[0]:g}, {now[1]:g}),{change}')
    sys.stdout.write("\n")


def test_a_grown_cost_is_reported_with_its_difference() -> None:
    now = {name: costs[0] for name, costs in BASELINE.items()}
    assert list(grown(0, now)) == list(shrunk(0, now)) == []
    assert next(grown(0, {"functions, wire": now["functions, wire"] + 30})).startswith("  functions, wire: ")
    assert "+1" in next(grown(0, {"loop, tasks": now["loop, tasks"] + 1}))
    assert list(grown(0, {"memory, garbage": 0.1}))
    assert "-30" in next(shrunk(0, {**now, "functions, wire": now["functions, wire"] - 30}))
