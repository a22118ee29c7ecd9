"""Nobody makes a consultation dearer without knowing: what one takes in calls, timers, writes and memory, against what it took.

Counts, not seconds: they are the same in every run, and nearly so from Python 3.11 to 3.13. How they are come by is in `costs`.
Where it has become dearer for a good reason, or cheaper, take them anew: `COSTS=print python -m pytest tests/consultation/test_costs.py -s`.
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

# More than this is a change that somebody has to want. It also covers what versions of Python and of libraries differ by.
SLACK = 0.05
# Half a call, half a timer: of few things five per cent is less than one in twenty consultations can make.
SLACK_OF_FEW = 0.5

# A consultation with all eight sources live, and one of a customer who comes back, with the caches as they are by default.
# "functions" are entries into Python functions (a coroutine is entered once a wake-up), "C functions" are called from Python, each counted
# in the part whose code it is, or whose code calls it. The server is uvicorn.
TAKEN: dict[str, tuple[float, float]] = {
    "C functions, all": (711.01, 566.6),
    "C functions, consult": (21, 15),
    "C functions, domain": (326.38, 323.38),
    "C functions, encode": (45.88, 45.88),
    "C functions, fanout": (127.07, 72.65),
    "C functions, libraries": (11.6, 11.6),
    "C functions, sources": (33, 12),
    "C functions, web": (50.08, 50.08),
    "C functions, wire": (96, 36),
    "functions, all": (1055.46, 779),
    "functions, consult": (17, 22),
    "functions, domain": (425.84, 420.84),
    "functions, encode": (21.4, 21.4),
    "functions, fanout": (288.34, 159.88),
    "functions, libraries": (11.8, 11.8),
    "functions, server": (4, 4),
    "functions, sources": (81, 38),
    "functions, web": (38.08, 38.08),
    "functions, wire": (168, 63),
    "loop, tasks": (1, 1),
    "loop, futures": (1, 1),
    "loop, callbacks": (4, 4),
    "loop, timers": (11.88, 6.08),
    "clock reads": (64.4, 45.24),
    "writes, to the client": (1, 1),
    "writes, to sources": (8, 3.2),
    "memory, objects held": (218, 183),
    "memory, KiB at most": (69, 65),
    "memory, garbage": (0, 0),
}


@cache
def counted() -> dict[str, dict[str, float]]:
    words, environment = (
        [sys.executable, "-m", "tests.support.consultation_costs"],
        {**os.environ, "PYTHONHASHSEED": "0"},
    )
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return msgspec.json.decode(done.stdout, type=dict[str, dict[str, float]])


def grown(which: int, found: dict[str, float]) -> Iterator[str]:
    for what, now in found.items():
        taken = TAKEN.get(what, (0, 0))[which]
        if now > taken * (1 + SLACK) + (SLACK_OF_FEW if taken else 0):
            yield told(what, now, taken)


def shrunk(which: int, found: dict[str, float]) -> Iterator[str]:
    """Work that went from one part to another shows in both lists."""
    for what, (live, cached) in TAKEN.items():
        now, taken = found.get(what, 0.0), (live, cached)[which]
        if now < taken * (1 - SLACK) - SLACK_OF_FEW:
            yield told(what, now, taken)


def told(what: str, now: float, taken: float) -> str:
    return (
        f"  {what}: {now:g} where it took {taken:g} ({now - taken:+.4g}{f', {now / taken - 1:+.1%}' if taken else ''})"
    )


@pytest.mark.parametrize(("which", "kind"), [(0, "live"), (1, "cached")])
def test_a_consultation_costs_no_more_than_it_did(which: int, kind: str) -> None:
    found = counted()[kind]
    if os.environ.get("COSTS") == "print":
        if which == 0:
            print_anew()
        return
    dearer = list(grown(which, found))
    if dearer:
        cheaper = list(shrunk(which, found)) or ["  nothing"]
        pytest.fail(
            "\n".join([f"a {kind} consultation is dearer in", *dearer, "and cheaper in", *cheaper]), pytrace=False
        )


def print_anew() -> None:
    """In the place of `TAKEN`, with what has changed beside it."""
    live, cached = counted()["live"], counted()["cached"]
    for what in live | cached:
        now, before = (live.get(what, 0.0), cached.get(what, 0.0)), TAKEN.get(what, (0.0, 0.0))
        change = "" if now == before else f"  # was {before[0]:g}, {before[1]:g}"
        sys.stdout.write(f'\n    "{what}": ({now[0]:g}, {now[1]:g}),{change}')
    sys.stdout.write("\n")


def test_a_cost_that_has_grown_is_named_with_by_how_much() -> None:
    now = {what: taken[0] for what, taken in TAKEN.items()}
    assert list(grown(0, now)) == list(shrunk(0, now)) == []
    assert next(grown(0, {"functions, wire": now["functions, wire"] + 30})).startswith("  functions, wire: ")
    assert "+1" in next(grown(0, {"loop, tasks": now["loop, tasks"] + 1}))
    assert list(grown(0, {"memory, garbage": 0.1}))
    assert "-30" in next(shrunk(0, {**now, "functions, wire": now["functions, wire"] - 30}))
