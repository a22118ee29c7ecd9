"""Workers that a rate needs, and their calls to upstreams and shared cache, as a fixed point.

More workers mean fewer hits for each. Prices and traffic are inputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from random import Random
from typing import Any, TypeAlias

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from benchmarks.capacity.caches import S_NS, Mechanisms, RateOfKey, SimulatedWorker
from benchmarks.capacity.traffic import Traffic, TrafficStream, Zipf
from benchmarks.lab.upstream import BATCH_PATHS, SOURCE_NAMES
from cashier.fanout.batch import BatchPolicy, gathering_ns

# The mean work of a consultation, or the prices of the same parts in µs. "base": request, domain,
# answer, and every look-up in the worker's own cache (1 µs or less). "wait": waiting for any call,
# with its timer and loop turns, so the first call costs more than the rest. "call": to any source.
# "get", "put": from and to Valkey. "key": in a batch, each key beyond the first.
Work: TypeAlias = Mapping[str, float]
PARTS = ("base", "wait", "call", "get", "put", "key")

# Above this share of a core a consultation mostly waits for it.
UTILISATION = 0.6
# The shared cache: 64 GiB at 1.2 kB per entry, key and overhead included (bodies are compressed).
SHARED_ENTRIES = 64 * 2**30 / 1_200
# A fuller worker is not in equilibrium and has no number of keys per call.
BUSIEST = 0.95
_ROUNDS = 10
# Enough to fill and turn over the main queue of a worker's store, which takes minutes.
_HORIZON_S = 900.0
_WARM_SHARE = 0.6
_NEAR = 0.02
_BATCH_CONSULTATIONS = 4_000


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
    settled: bool

    @property
    def calls_each(self) -> float:
        return sum(self.calls_per_s.values()) / self.per_s


def cost_us(prices: Work, work: Work) -> float:
    return sum(prices[part] * work.get(part, 0.0) for part in PARTS)


def fit_prices(measured: Sequence[tuple[Work, float]]) -> dict[str, float]:
    """Fit by least squares over (work, µs), weighted by 1/µs, so that errors are relative.

    Prices are not negative. Raises ValueError if the intervals cannot separate two parts.
    """
    parts = list(PARTS)
    while True:
        rows = np.array([[work.get(part, 0.0) / us for part in parts] for work, us in measured])
        scale = np.abs(rows).max(axis=0) + 1e-12
        solved, _, rank, _ = np.linalg.lstsq(rows / scale, np.ones(len(rows)), rcond=1e-9)
        if rank < len(parts):
            raise ValueError(f"no interval separates one of {', '.join(parts)} from the others")
        prices = dict(zip(parts, map(float, solved / scale), strict=True))
        least = min(prices, key=lambda part: prices[part])
        if prices[least] >= 0:
            return {part: prices.get(part, 0.0) for part in PARTS}
        parts.remove(least)


def fleet_need(traffic: Traffic, mechanisms: Mechanisms, prices: Work, per_s: float, consultations: int) -> FleetNeed:
    """Start with nothing cached and iterate until the number of workers is the simulated one."""
    workers, holds_s = workers_for(per_s, cost_us(prices, {"base": 1, "wait": 1, "call": len(SOURCE_NAMES)})), 300.0
    careful = False  # coarse simulations suffice until the result is near
    for _ in range(_ROUNDS):
        sample = consultations if careful else consultations // 4
        worker = simulate_worker(traffic, mechanisms, per_s, workers, sample, holds_s)
        work, calls, cpu_us = steady_state(worker, mechanisms, prices, traffic, per_s / workers)
        wanted = workers_for(per_s, cpu_us)
        near = abs(wanted - workers) <= max(1, _NEAR * workers)
        settled = near and careful
        if settled:
            break
        workers, careful = wanted, careful or near
        holds_s = SHARED_ENTRIES / max(1.0, per_s * work["put"])
    looked = [worker.counts[name] for name, lifetime in mechanisms.lifetimes.items() if lifetime.on]
    asked, gets = sum(each.asked for each in looked), sum(each.gets for each in looked)
    return FleetNeed(
        per_s=per_s,
        workers=wanted,
        cores=per_s * cpu_us / 1e6 / UTILISATION,
        cpu_us=cpu_us,
        work=work,
        calls_per_s={name: each * per_s for name, each in calls.items()},
        shared_per_s=(work["get"] + work["put"]) * per_s,
        served=sum(each.hits + each.stale for each in looked) / asked if asked else 0.0,
        found=sum(each.found for each in looked) / gets if gets else 0.0,
        settled=settled,
    )


def workers_for(per_s: float, cpu_us: float) -> int:
    return max(1, math.ceil(per_s * cpu_us / 1e6 / UTILISATION))


def steady_state(
    worker: SimulatedWorker, mechanisms: Mechanisms, prices: Work, traffic: Traffic, per_s: float
) -> tuple[Work, Mapping[str, float], float]:
    """Work, calls to each source, and CPU µs per consultation of a worker at rate `per_s`.

    Keys per call depend on its load, and vice versa.
    """
    cpu_us = UTILISATION * 1e6 / per_s
    for _ in range(3):
        work, calls = dict.fromkeys(PARTS, 0.0) | {"base": 1.0}, {}
        busy_us = min(cpu_us, BUSIEST * 1e6 / per_s)
        for name, counts in worker.counts.items():
            keys, shared = counts.calls / worker.consultations, 1.0
            if mechanisms.batch and name in BATCH_PATHS and keys:
                shared = keys_per_call(round(per_s, 1), round(min(1.0, keys), 3), round(busy_us, 1))
            calls[name] = keys / shared + (keys * traffic.extra_share if mechanisms.hedge else 0.0)
            work["call"] += calls[name]
            work["wait"] = min(1.0, work["wait"] + keys)
            work["key"] += keys - keys / shared
            work["get"] += counts.gets / worker.consultations
            work["put"] += counts.puts / worker.consultations
        cpu_us = cost_us(prices, work)
    return work, calls, cpu_us


def simulate_worker(
    traffic: Traffic, mechanisms: Mechanisms, per_s: float, workers: int, consultations: int, holds_s: float
) -> SimulatedWorker:
    """Simulate a sample of one worker over `_HORIZON_S`; the first three fifths warm it up."""
    random = Random(traffic.seed)
    sample = min(1.0, consultations * workers / per_s / _HORIZON_S)
    stream = TrafficStream(traffic, per_s, workers, sticky=mechanisms.sticky, random=random, sample=sample)
    smaller = replace(mechanisms, entries=max(1, round(mechanisms.entries * sample)))
    worker = SimulatedWorker(smaller, traffic.took_ms, random, other_workers_rates(stream, workers), holds_s)
    warm = False
    for consultation in stream.until(_HORIZON_S):
        if not warm and consultation.at_s > _HORIZON_S * _WARM_SHARE:
            warm = True
            worker.reset_counts()
        worker.consult(consultation)
    assert warm, "too few consultations for a warm-up and a measurement"
    return worker


def other_workers_rates(stream: TrafficStream, workers: int) -> dict[str, RateOfKey]:
    """Rates of other workers for the keys that many users share."""
    elsewhere_per_s = stream.per_s * (1 - 1 / workers)

    def of(ranks: Zipf, rank_of: Callable[[Any], int]) -> RateOfKey:
        return lambda key: elsewhere_per_s * ranks.share(rank_of(key))

    return {"merchant": of(stream.merchants, lambda key: -1 - key), "channel": of(stream.markets, lambda key: key[1])}


@lru_cache(maxsize=512)
def keys_per_call(per_s: float, asking: float, cpu_us: float) -> float:
    """Keys per call by cashier's own batch rule, simulated for one worker of a given load.

    `per_s`: consultations of this worker, of which a share `asking` calls the source live. A turn
    of the loop takes all consultations that arrived during the turn before, and lasts as long as
    their work. Keys of one turn leave together, so a busy worker shares more calls than the rule
    alone.
    """
    random = Random(1)
    source = SimulatedBatch(BatchPolicy())
    waiting, next_s, now_s = 0, 0.0, 0.0
    for _ in range(_BATCH_CONSULTATIONS):
        next_s += random.expovariate(per_s)
        while waiting and now_s < next_s:
            now_s += waiting * cpu_us / 1e6
            keys = sum(random.random() < asking for _ in range(waiting))
            waiting = 0
            source.until(now_s)
            source.gather(keys, now_s)
        now_s = max(now_s, next_s)
        waiting += 1
    return source.keys / source.calls if source.calls else 1.0


class SimulatedBatch:
    """Keys and calls of one source. Times are arguments and never decrease."""

    def __init__(self, policy: BatchPolicy) -> None:
        self.keys = self.calls = 0
        self._policy = policy
        self._gathered = 0
        self._left_s = self._gathers_until_s = 0.0

    def gather(self, keys: int, now_s: float) -> None:
        """Add the keys of one turn, at its end."""
        for _ in range(keys):
            self._gathered += 1
            if self._gathered == self._policy.max:
                self._send(now_s)
        if self._gathered and self._gathers_until_s <= now_s:
            self._send(now_s)

    def until(self, now_s: float) -> None:
        """Send the keys of earlier turns if they are due."""
        if self._gathered and self._gathers_until_s <= now_s:
            self._send(self._gathers_until_s)

    def _send(self, now_s: float) -> None:
        since_ns = round((now_s - self._left_s) * S_NS)
        self._gathers_until_s = now_s + gathering_ns(self._gathered, since_ns, self._policy) / S_NS
        self._left_s = now_s
        self.calls += 1
        self.keys += self._gathered
        self._gathered = 0
