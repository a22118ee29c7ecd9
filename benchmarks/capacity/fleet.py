"""Workers that a rate needs, and their calls to upstreams and shared cache, as a fixed point.

More workers mean fewer hits for each. Prices and traffic are inputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from copy import copy
from random import Random
from typing import Any, NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from benchmarks.capacity.batching import keys_per_call
from benchmarks.capacity.cost_model import Work, cost_us
from benchmarks.capacity.simulated_caches import CacheCounts, Mechanisms, RateOfKey, SimulatedWorker
from benchmarks.capacity.traffic import Traffic, TrafficStream, Zipf
from benchmarks.lab.upstream_control import SOURCE_NAMES

# Above this share of a core a consultation mostly waits for it.
UTILISATION = 0.6
# The shared cache: 64 GiB at 1.2 kB per entry, key and overhead included (bodies are compressed).
SHARED_ENTRIES = 64 * 2**30 / 1_200
BATCHED = ("order", "member", "card", "balance", "quota", "marketing")
# A fuller worker is not in equilibrium and has no number of keys per call.
BUSIEST = 0.95
_ROUNDS = 10
# Enough to fill and turn over the main queue of a worker's store, which takes minutes.
_HORIZON_S = 900.0
_WARM_SHARE = 0.6
_NEAR = 0.02


class WorkerCounts(Struct, frozen=True):
    """Counts of one simulated worker, by source."""

    consultations: int
    counts: Mapping[str, CacheCounts]

    def per_consultation(self, name: str, what: str) -> float:
        """A count of one source per consultation."""
        return float(getattr(self.counts[name], what)) / self.consultations


class FleetNeed(Struct, frozen=True):
    """The whole fleet. `calls_per_s`: by source. `settled`: another round would change nothing.

    `served`: share of look-ups in workers' caches that were answered. `found`: share of the reads
    from the shared cache that hit.
    """

    per_s: float
    workers: int
    cores: float
    cpu_us: float
    work: Work
    calls_per_s: Mapping[str, float]
    shared_per_s: float
    served: float
    found: float
    rounds: int
    settled: bool

    @property
    def calls(self) -> float:
        return sum(self.calls_per_s.values())


class WorkPerConsultation(NamedTuple):
    """Per consultation: its work, and the calls to each source."""

    work: Work
    calls: Mapping[str, float]


def fleet_need(
    traffic: Traffic, mechanisms: Mechanisms, prices: Mapping[str, float], per_s: float, consultations: int
) -> FleetNeed:
    """Start with nothing cached and iterate until the number of workers is the simulated one."""
    workers, holds_s = workers_for(per_s, cost_us(prices, {"base": 1, "wait": 1, "call": len(SOURCE_NAMES)})), 300.0
    careful = False  # coarse simulations suffice until the result is near
    for turn in range(1, _ROUNDS + 1):
        worker = simulate_worker(
            traffic, mechanisms, per_s, workers, consultations if careful else consultations // 4, holds_s
        )
        done, cpu_us = steady_state(worker, mechanisms, prices, traffic, per_s / workers)
        wanted = workers_for(per_s, cpu_us)
        near = abs(wanted - workers) <= max(1, _NEAR * workers)
        settled = near and careful
        if settled or turn == _ROUNDS:
            break
        workers, careful = wanted, careful or near
        holds_s = SHARED_ENTRIES / max(1.0, per_s * done.work["put"])
    looked = [worker.counts[name] for name, lifetime in mechanisms.lifetimes.items() if lifetime.on]
    asked, gets = sum(each.asked for each in looked), sum(each.gets for each in looked)
    return FleetNeed(
        per_s=per_s,
        workers=wanted,
        cores=per_s * cpu_us / 1e6 / UTILISATION,
        cpu_us=cpu_us,
        work=done.work,
        calls_per_s={name: calls * per_s for name, calls in done.calls.items()},
        shared_per_s=(done.work["get"] + done.work["put"]) * per_s,
        served=sum(each.hits + each.stale for each in looked) / asked if asked else 0.0,
        found=sum(each.found for each in looked) / gets if gets else 0.0,
        rounds=turn,
        settled=settled,
    )


def workers_for(per_s: float, cpu_us: float) -> int:
    return max(1, math.ceil(per_s * cpu_us / 1e6 / UTILISATION))


def steady_state(
    worker: WorkerCounts, mechanisms: Mechanisms, prices: Mapping[str, float], traffic: Traffic, per_s: float
) -> tuple[WorkPerConsultation, float]:
    """Work and CPU of a worker at rate `per_s`.

    Keys per call depend on its load, and vice versa.
    """
    cpu_us = UTILISATION * 1e6 / per_s
    for _ in range(3):
        done = work_per_consultation(worker, mechanisms, traffic, per_s, cpu_us)
        cpu_us = cost_us(prices, done.work)
    return done, cpu_us


def work_per_consultation(
    worker: WorkerCounts, mechanisms: Mechanisms, traffic: Traffic, per_s: float, cpu_us: float
) -> WorkPerConsultation:
    work: dict[str, float] = {"base": 1.0, "wait": 0.0, "call": 0.0, "get": 0.0, "put": 0.0, "key": 0.0}
    calls: dict[str, float] = {}
    busy_us = min(cpu_us, BUSIEST * 1e6 / per_s)
    for name in SOURCE_NAMES:
        keys = worker.per_consultation(name, "calls")
        shared = 1.0
        if mechanisms.batch and name in BATCHED and keys:
            shared = keys_per_call(round(per_s, 1), round(min(1.0, keys), 3), round(busy_us, 1), traffic.took_ms)
        extra = keys * traffic.extra_share if mechanisms.hedge else 0.0
        calls[name] = keys / shared + extra
        work["call"] += calls[name]
        work["wait"] = min(1.0, work["wait"] + keys)
        work["key"] += keys - keys / shared
        work["get"] += worker.per_consultation(name, "gets")
        work["put"] += worker.per_consultation(name, "puts")
    return WorkPerConsultation(work, calls)


def simulate_worker(
    traffic: Traffic, mechanisms: Mechanisms, per_s: float, workers: int, consultations: int, holds_s: float
) -> WorkerCounts:
    """Simulate a sample of one worker over `_HORIZON_S`; the first three fifths warm it up."""
    random = Random(traffic.seed)
    sample = min(1.0, consultations * workers / per_s / _HORIZON_S)
    stream = TrafficStream(traffic, per_s, workers, sticky=mechanisms.sticky, random=random, sample=sample)
    smaller = replace(mechanisms, entries=max(1, round(mechanisms.entries * sample)))
    worker = SimulatedWorker(smaller, traffic.took_ms, random, other_workers_rates(stream, workers), holds_s)
    warm: Mapping[str, CacheCounts] | None = None
    before = 0
    for consultation in stream.until(_HORIZON_S):
        if warm is None and consultation.at_s > _HORIZON_S * _WARM_SHARE:
            warm, before = {name: copy(counts) for name, counts in worker.counts().items()}, worker.consultations
        worker.consult(consultation)
    assert warm is not None, "too few consultations for a warm-up and a measurement"
    return WorkerCounts(
        worker.consultations - before, {name: counts.less(warm[name]) for name, counts in worker.counts().items()}
    )


def other_workers_rates(stream: TrafficStream, workers: int) -> dict[str, RateOfKey]:
    """Rates of other workers for the keys that many users share."""
    elsewhere_per_s = stream.per_s * (1 - 1 / workers)

    def of(ranks: Zipf, rank_of: Callable[[Any], int]) -> RateOfKey:
        return lambda key: elsewhere_per_s * ranks.share(rank_of(key))

    return {"merchant": of(stream.merchants, lambda key: -1 - key), "channel": of(stream.markets, lambda key: key[1])}
