"""The simulator on the very visits that were measured, so that what it says can be held against what was counted."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from random import Random
from typing import NamedTuple

from benchmarks.capacity.calibration import TOOK_MS, Measured
from benchmarks.capacity.fleet import Seen, at_rest
from benchmarks.capacity.simulated_worker import Worker
from benchmarks.capacity.traffic import Asked, Traffic
from cashier.sandbox.generated_users import MERCHANTS


class Foretold(NamedTuple):
    """Of one round, for each consultation."""

    calls: float
    shared: float
    cpu_us: float


def replayed(found: Measured, prices: Mapping[str, float]) -> list[Foretold]:
    """One for each round. Nobody else shares the cache, and every user always asks for the same order."""
    mechanisms = found.setting.mechanisms
    worker = Worker(mechanisms, TOOK_MS, Random(1), {}, float("inf"))
    visits = sorted(found.visits)
    foretold, at = [], 0
    for one in found.rounds:
        before, warm = None, 0
        while at < len(visits) and visits[at].at_s < one.ended_s:
            visit = visits[at]
            if before is None and visit.at_s >= one.began_s:
                before, warm = {name: copy(counts) for name, counts in worker.counts().items()}, worker.consultations
            worker.consult(
                Asked(
                    visit.at_s - visits[0].at_s,
                    True,
                    visit.which,
                    visit.which % MERCHANTS,
                    0,
                    visit.which,
                    float("-inf"),
                )
            )
            at += 1
        assert before is not None, "a round without a visit"
        counts = {name: counts.less(before[name]) for name, counts in worker.counts().items()}
        seen = Seen(worker.consultations - warm, counts)
        done, cpu_us = at_rest(seen, mechanisms, prices, Traffic(took_ms=TOOK_MS), one.spent.stretch.per_s)
        foretold.append(Foretold(sum(done.calls.values()), done.work["get"] + done.work["put"], cpu_us))
    return foretold
