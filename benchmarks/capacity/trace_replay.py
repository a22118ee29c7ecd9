"""Replay measured requests through the simulator, to compare its predictions with the counts."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from random import Random
from typing import NamedTuple

from benchmarks.capacity.calibration import TOOK_MS, SettingResult
from benchmarks.capacity.fleet import WorkerCounts, steady_state
from benchmarks.capacity.simulated_caches import SimulatedWorker
from benchmarks.capacity.traffic import SimulatedConsultation, Traffic
from cashier.sandbox.generated_population import MERCHANT_COUNT


class Prediction(NamedTuple):
    """One round, per consultation."""

    calls: float
    shared: float
    cpu_us: float


def replay(result: SettingResult, prices: Mapping[str, float]) -> list[Prediction]:
    """Predict each round. No other worker shares the cache, and each user has measured order."""
    mechanisms = result.setting.mechanisms
    worker = SimulatedWorker(mechanisms, TOOK_MS, Random(1), {}, float("inf"))
    outcomes = sorted(result.outcomes)
    predictions, at = [], 0
    for measured in result.rounds:
        before, warm = None, 0
        while at < len(outcomes) and outcomes[at].due_s < measured.ended_s:
            outcome = outcomes[at]
            if before is None and outcome.due_s >= measured.start_s:
                before, warm = {name: copy(counts) for name, counts in worker.counts().items()}, worker.consultations
            worker.consult(
                SimulatedConsultation(
                    outcome.due_s - outcomes[0].due_s,
                    True,
                    outcome.request,
                    outcome.request % MERCHANT_COUNT,
                    0,
                    outcome.request,
                    float("-inf"),
                )
            )
            at += 1
        assert before is not None, "a round without a request"
        counts = {name: counts.less(before[name]) for name, counts in worker.counts().items()}
        seen = WorkerCounts(worker.consultations - warm, counts)
        done, cpu_us = steady_state(seen, mechanisms, prices, Traffic(took_ms=TOOK_MS), measured.usage.interval.per_s)
        predictions.append(Prediction(sum(done.calls.values()), done.work["get"] + done.work["put"], cpu_us))
    return predictions
