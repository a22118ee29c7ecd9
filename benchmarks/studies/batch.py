"""Batching: calls and CPU saved, latency added.

First the whole `Cashier` with batching on, at three rates, for customers without cached answers:
calls to the sources per consultation. Six of the eight sources take batches; channels and merchants
are cached by default. The deadline is half a second, so that timeouts do not affect the count. Then
six sources alone, without guard or cache: each key as a call of its own, or in batches; CPU and
added latency per key.

This process runs on core 0, arrivals included. The upstream runs on core 1, each source at its own
address; it answers after 5 ms and counts. Arrivals are random, latency counts from the due time,
CPU is this process's user and system time. Rounds interleave.
"""

from __future__ import annotations

import asyncio
import gc
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from random import Random
from typing import Any, NamedTuple

import msgspec
import uvloop

from benchmarks.lab.batching_load import PATHS, KeyLoadResult, run_interval, upstreams
from benchmarks.lab.in_process_load import Arrivals, run_arrivals
from benchmarks.lab.process import PROGRAM_CORE, pinned
from benchmarks.lab.run_queue import LIMIT, RunQueueWait
from benchmarks.lab.study_run import Lab
from benchmarks.lab.upstream import LeanUpstream, start_upstream
from benchmarks.lab.upstream_control import SOURCE_NAMES, Behaviour
from benchmarks.lean_upstream import FIRST_USER
from benchmarks.results import Figure, Finding, Line, LineChart, Row, Table
from cashier import Cashier, ConsultRequest
from cashier.consultation.source_table import known_inputs
from cashier.fanout.ask import SourceStatus
from cashier.fanout.batch import BatchPolicy
from cashier.sandbox import World
from cashier.web.server import GC_THRESHOLD

DELAY_MS = 5
DEADLINE_MS, PATIENT_MS = 500, 450
RATES = (500, 1_000, 2_000)
ROUNDS = 3
INTERVAL_S = 0.8
WARM_S = 0.2
# Enough that no customer returns at the highest rate. The first ones are for the warm-up.
USERS, WARMING = 2_600, 600
QUICK_USERS, QUICK_INTERVAL_S = 1_200, 0.2
# With more incomplete consultations than this, few calls only mean that calls were not made.
MOST_INCOMPLETE_PERCENT = 1.0


class CashierRound(NamedTuple):
    """The `Cashier`, over one interval. `calls`, `keys`: as counted by the sources."""

    arrivals: Arrivals
    calls: int
    keys: int
    waiting: RunQueueWait

    @property
    def calls_each(self) -> float:
        """NaN if calls were not made, or if this process lacked the core to make them in time."""
        return self.calls / self.arrivals.consultations if self.sound else math.nan

    @property
    def sound(self) -> bool:
        return self.incomplete_percent <= MOST_INCOMPLETE_PERCENT and not self.waiting.too_long

    @property
    def keys_a_batch(self) -> float:
        """Approximate: includes the few calls of the two sources without batches."""
        return self.keys / max(1, self.calls)

    @property
    def incomplete_percent(self) -> float:
        """Consultations without one of the sources, or without an answer."""
        missing = max(
            1 - self.arrivals.share(name, SourceStatus.FRESH, SourceStatus.CACHED, SourceStatus.STALE)
            for name in SOURCE_NAMES
        )
        return 100 * missing


class SixSourcesRound(NamedTuple):
    """The same keys at the six sources, over one interval."""

    alone: KeyLoadResult
    gathered: KeyLoadResult
    calls: int


class BatchRounds(NamedTuple):
    """By rate, in rounds."""

    cashier: Mapping[float, list[CashierRound]]
    six_sources: Mapping[float, list[SixSourcesRound]]


def measure(lab: Lab) -> Finding:
    start_s = time.perf_counter()
    users = QUICK_USERS if lab.quick else USERS
    with pinned(PROGRAM_CORE), start_upstream(lab, users=users) as sources:
        rounds_by_rate = uvloop.run(measure_rates(lab, sources, users))
    return finding(rounds_by_rate, time.perf_counter() - start_s)


async def measure_rates(lab: Lab, sources: LeanUpstream, users: int) -> BatchRounds:
    crowd = World().population.generated
    requests = [
        msgspec.convert(crowd.consult_request(n), ConsultRequest) for n in range(FIRST_USER, FIRST_USER + users)
    ]
    gc.freeze()  # as in the service after its warm-up
    gc.set_threshold(GC_THRESHOLD, 10, 10)
    rounds_by_rate = BatchRounds({rate: [] for rate in RATES}, {rate: [] for rate in RATES})
    for turn in range(min(ROUNDS, lab.rounds)):
        lab.report(f"batch: round {turn + 1} of {min(ROUNDS, lab.rounds)}")
        for rate in RATES:
            rounds_by_rate.cashier[rate].append(await cashier_round(lab, sources, requests, rate, Random(turn)))
            rounds_by_rate.six_sources[rate].append(await six_sources_round(lab, sources, requests, rate, turn))
    return rounds_by_rate


def interval_s(lab: Lab) -> float:
    return QUICK_INTERVAL_S if lab.quick else INTERVAL_S


async def reset(sources: LeanUpstream) -> None:
    """Reset the counts of the sources."""
    await asyncio.to_thread(sources.behave, Behaviour(dict.fromkeys(SOURCE_NAMES, DELAY_MS)))


async def cashier_round(
    lab: Lab, sources: LeanUpstream, requests: Sequence[ConsultRequest], rate: float, random: Random
) -> CashierRound:
    async with Cashier(config=batch_configuration(sources)) as cashier:
        warming = iter(requests[:WARMING])
        await run_arrivals(cashier, warming, rate / 4, WARM_S, random)  # opens the connections
        await run_arrivals(cashier, warming, rate, WARM_S / 2, random)
        await reset(sources)
        waiting = RunQueueWait()
        with waiting.of(os.getpid()):
            arrivals = await run_arrivals(cashier, iter(requests[WARMING:]), rate, interval_s(lab), random)
        seen = await asyncio.to_thread(sources.seen)
    return CashierRound(arrivals, sum(seen.calls.values()), sum(seen.keys.values()), waiting)


def batch_configuration(sources: LeanUpstream) -> dict[str, Any]:
    """Batches where the upstream takes them, and generous time limits, so that all calls count."""
    batches = {name: {"batch": {"path": path}} for name, path in PATHS.items()}
    return {
        "sources": {
            name: {"url": sources.urls[name], "timeout_ms": PATIENT_MS, **batches.get(name, {})}
            for name in SOURCE_NAMES
        },
        "consult": {"deadline_ms": DEADLINE_MS},
        "tokens": {"secrets": ["b" * 32]},
    }


async def six_sources_round(
    lab: Lab, sources: LeanUpstream, requests: Sequence[ConsultRequest], rate: float, seed: int
) -> SixSourcesRound:
    keys = [known_inputs(each) for each in requests]
    loads: list[KeyLoadResult] = []
    for policy in (None, BatchPolicy()):
        async with upstreams(sources.urls, policy) as six:
            await run_interval(six, keys, rate, min(WARM_S, interval_s(lab)), Random(seed))
            await reset(sources)
            loads.append(await run_interval(six, keys, rate, interval_s(lab), Random(seed)))
            calls = sum((await asyncio.to_thread(sources.seen)).calls.values())
    alone, gathered = loads
    return SixSourcesRound(alone, gathered, calls)


def finding(rounds_by_rate: BatchRounds, seconds: float) -> Finding:
    highest = rounds_by_rate.cashier[RATES[-1]]
    calls = {rate: Figure.of(*(each.calls_each for each in rounds)) for rate, rounds in rounds_by_rate.cashier.items()}
    drawing = LineChart(
        "Calls to the sources per consultation, batching on",
        "consultations per second",
        "calls per consultation",
        [Line("calls", list(calls.items()), ours=True)],
        marks={"a call for each source that is not cached": len(PATHS)},
    )
    return Finding(
        "batch",
        "Batching",
        (__doc__ or "").strip(),
        seconds,
        key={
            "batch.calls_per_consultation": calls[RATES[-1]],
            "batch.p99_ms": Figure.of(*(each.arrivals.at(0.99) for each in highest)),
            "batch.cpu_ratio": cpu_ratio(rounds_by_rate.six_sources[RATES[-1]]),
        },
        tables=[
            Table(
                "The whole cashier, batching on, customers without cached answers",
                [cashier_row(rate, rounds) for rate, rounds in rounds_by_rate.cashier.items()],
            ),
            Table(
                "Six sources alone: a call for each key, or batches",
                [six_sources_row(rate, rounds) for rate, rounds in rounds_by_rate.six_sources.items()],
            ),
        ],
        drawings=[drawing],
        notes=list(notes(rounds_by_rate)),
    )


def cashier_row(rate: float, rounds: Sequence[CashierRound]) -> Row:
    figures = {
        "calls per consultation": [each.calls_each for each in rounds],
        "keys per call": [each.keys_a_batch for each in rounds],
        "waited for a core %": [100 * each.waiting.share for each in rounds],
        "p50 ms": [each.arrivals.at(0.5) for each in rounds],
        "p99 ms": [each.arrivals.at(0.99) for each in rounds],
        "CPU µs per consultation": [each.arrivals.cpu_us for each in rounds],
        "incomplete %": [each.incomplete_percent for each in rounds],
    }
    return Row(f"{rate:,} consultations/s", {column: Figure.of(*values) for column, values in figures.items()})


def six_sources_row(rate: float, rounds: Sequence[SixSourcesRound]) -> Row:
    figures = {
        "keys per call": [each.gathered.asked / max(1, each.calls) for each in rounds],
        "p50 ms, a call each": [each.alone.latencies.at(0.5) for each in rounds],
        "p99 ms, a call each": [each.alone.latencies.at(0.99) for each in rounds],
        "p50 ms, batches": [each.gathered.latencies.at(0.5) for each in rounds],
        "p99 ms, batches": [each.gathered.latencies.at(0.99) for each in rounds],
        "CPU µs per key, a call each": [each.alone.cpu_us for each in rounds],
        "CPU µs per key, batches": [each.gathered.cpu_us for each in rounds],
    }
    return Row(f"{rate:,} customers/s", {column: Figure.of(*values) for column, values in figures.items()})


def cpu_ratio(rounds: Sequence[SixSourcesRound]) -> Figure:
    """CPU of a key in a batch ÷ CPU of a single call."""
    return Figure.of(*(each.gathered.cpu_us / each.alone.cpu_us for each in rounds))


def notes(rounds_by_rate: BatchRounds) -> Iterator[str]:
    for rate, rounds in rounds_by_rate.cashier.items():
        if lost := sum(each.arrivals.lost for each in rounds):
            yield (
                f"{rate:,}/s: {lost:,} of {sum(each.arrivals.consultations for each in rounds):,} consultations had "
                "no answer."
            )
        if unsound := sum(not each.sound for each in rounds):
            yield (
                f"{rate:,}/s: in {unsound} of {len(rounds)} rounds over 1 % of the consultations were incomplete, or "
                "this process waited "
                f"for its core more than {LIMIT:.0%} of the time, which makes batches larger. Their calls are not "
                "shown."
            )
    for rate, pairs in rounds_by_rate.six_sources.items():
        keys, failed = (
            sum(each.alone.asked + each.gathered.asked for each in pairs),
            sum(each.alone.failed + each.gathered.failed for each in pairs),
        )
        if failed:
            yield f"{rate:,}/s: {failed:,} of {keys:,} keys failed: the machine was too busy for meaningful figures."
    busy = max(each.arrivals.cpu_us for each in rounds_by_rate.cashier[RATES[-1]]) * RATES[-1] / 1e6
    yield f"At {RATES[-1]:,}/s cashier and arrivals need up to {busy:.0%} of their core" + (
        ": latencies are six at the limit of capacity, and batches are larger for it." if busy > 0.85 else "."
    )
