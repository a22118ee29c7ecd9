"""The simulator on the very outcomes that were measured, so that what it says can be held against what was counted."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from random import Random
from typing import NamedTuple

from benchmarks.capacity.calibration import TOOK_MS, SettingResult
from benchmarks.capacity.fleet import WorkerCounts, steady_state
from benchmarks.capacity.simulated_worker import SimulatedWorker
from benchmarks.capacity.traffic import SimulatedConsultation, Traffic
from cashier.sandbox.generated_users import MERCHANTS


class Prediction(NamedTuple):
    """Of one round, for each consultation."""

    calls: float
    shared: float
    cpu_us: float


def replay(found: SettingResult, prices: Mapping[str, float]) -> list[Prediction]:
    """One for each round. Nobody else shares the cache, and every user always asks for the same order."""
    mechanisms = found.setting.mechanisms
    worker = SimulatedWorker(mechanisms, TOOK_MS, Random(1), {}, float("inf"))
    outcomes = sorted(found.outcomes)
    predictions, at = [], 0
    for one in found.rounds:
        before, warm = None, 0
        while at < len(outcomes) and outcomes[at].due_s < one.ended_s:
            outcome = outcomes[at]
            if before is None and outcome.due_s >= one.start_s:
                before, warm = {name: copy(counts) for name, counts in worker.counts().items()}, worker.consultations
            worker.consult(
                SimulatedConsultation(
                    outcome.due_s - outcomes[0].due_s,
                    True,
                    outcome.request,
                    outcome.request % MERCHANTS,
                    0,
                    outcome.request,
                    float("-inf"),
                )
            )
            at += 1
        assert before is not None, "a round without a outcome"
        counts = {name: counts.less(before[name]) for name, counts in worker.counts().items()}
        seen = WorkerCounts(worker.consultations - warm, counts)
        done, cpu_us = steady_state(seen, mechanisms, prices, Traffic(took_ms=TOOK_MS), one.usage.interval.per_s)
        predictions.append(Prediction(sum(done.calls.values()), done.work["get"] + done.work["put"], cpu_us))
    return predictions
