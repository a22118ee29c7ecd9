"""Batching: calls to the sources per consultation.

The whole `Cashier` with batching on, at three rates, for customers without cached answers. Six of
the eight sources take batches; channels and merchants are cached by default. The deadline is half a
second, so that timeouts do not affect the count. The study `ablation` has the CPU that batches save
and the latency that they add.

This process runs on core 0, arrivals included. The upstream runs on core 1, each source at its own
address; it answers after 5 ms and counts. Arrivals are random, latency counts from the due time,
CPU is this process's user and system time. Rounds interleave.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from random import Random
from typing import NamedTuple

import uvloop

from benchmarks.lab import Lab
from benchmarks.lab.in_process import (
    ANSWERED,
    Arrivals,
    InProcessBench,
    Tally,
    consult_requests,
    run_arrivals,
    use_service_gc,
)
from benchmarks.lab.process import PROGRAM_CORE, pinned
from benchmarks.lab.process_resources import WAITING_LIMIT
from benchmarks.lab.upstream import BATCH_PATHS, SOURCE_NAMES, LeanUpstream, start_upstream
from benchmarks.results import Columns, Finding, Line, LineChart, Row, Table, figures

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


class BatchRound(NamedTuple):
    """One interval. `calls`, `keys`: as counted by the sources."""

    arrivals: Arrivals
    calls: int
    keys: int

    @property
    def calls_each(self) -> float:
        """NaN if calls were not made, or if this process lacked the core to make them in time."""
        return self.calls / self.arrivals.consultations if self.sound else math.nan

    @property
    def sound(self) -> bool:
        return self.incomplete_percent <= MOST_INCOMPLETE_PERCENT and not self.arrivals.waiting.too_long

    @property
    def incomplete_percent(self) -> float:
        """Consultations without one of the sources, or without an answer."""
        return 100 * max(1 - self.arrivals.share(name, *ANSWERED) for name in SOURCE_NAMES)


COLUMNS: Columns[BatchRound] = {
    "calls per consultation": lambda each: each.calls_each,
    # Approximate: includes the few calls of the two sources without batches.
    "keys per call": lambda each: each.keys / max(1, each.calls),
    "waited for a core %": lambda each: 100 * each.arrivals.waiting.share,
    "p50 ms": lambda each: each.arrivals.at(0.5),
    "p99 ms": lambda each: each.arrivals.at(0.99),
    "CPU µs per consultation": lambda each: each.arrivals.cpu_us,
    "incomplete %": lambda each: each.incomplete_percent,
}


def measure(lab: Lab) -> Finding:
    with pinned(PROGRAM_CORE), start_upstream(lab, users=QUICK_USERS if lab.quick else USERS) as upstream:
        rounds_by_rate = uvloop.run(measure_rates(lab, upstream))
    by_rate = {rate: figures(rounds, COLUMNS) for rate, rounds in rounds_by_rate.items()}
    calls = [(float(rate), each["calls per consultation"]) for rate, each in by_rate.items()]
    rows = [Row(f"{rate:,} consultations/s", each) for rate, each in by_rate.items()]
    return Finding(
        "Batching",
        key={
            "batch.calls_per_consultation": by_rate[RATES[-1]]["calls per consultation"],
            "batch.p99_ms": by_rate[RATES[-1]]["p99 ms"],
        },
        tables=[Table("The whole cashier, batching on, customers without cached answers", rows)],
        drawings=[
            LineChart(
                "Calls to the sources per consultation, batching on",
                "consultations per second",
                "calls per consultation",
                [Line("calls", calls, ours=True)],
                marks={"a call for each source that is not cached": len(BATCH_PATHS)},
            )
        ],
        notes=list(notes(rounds_by_rate)),
    )


async def measure_rates(lab: Lab, upstream: LeanUpstream) -> dict[int, list[BatchRound]]:
    requests = consult_requests(QUICK_USERS if lab.quick else USERS)
    use_service_gc()
    rounds: dict[int, list[BatchRound]] = {rate: [] for rate in RATES}
    for turn in lab.turns("batch", ROUNDS):
        for rate in RATES:
            bench = InProcessBench(lab, upstream, upstream.urls, requests, Random(turn), Tally())
            rounds[rate].append(await measure_round(bench, rate))
    return rounds


async def measure_round(bench: InProcessBench, rate: int) -> BatchRound:
    batches = {name: {"batch": {"path": path}} for name, path in BATCH_PATHS.items()}
    consult = {"deadline_ms": DEADLINE_MS}
    async with bench.cashier({"timeout_ms": PATIENT_MS}, consult=consult, **batches) as cashier:
        warming = iter(bench.requests[:WARMING])
        await run_arrivals(cashier, warming, rate / 4, WARM_S, bench.random)  # opens connections
        await run_arrivals(cashier, warming, rate, WARM_S / 2, bench.random)
        await bench.behave(DELAY_MS)  # resets the counts
        fresh, seconds = iter(bench.requests[WARMING:]), QUICK_INTERVAL_S if bench.lab.quick else INTERVAL_S
        arrivals = await run_arrivals(cashier, fresh, rate, seconds, bench.random)
        seen = await bench.seen()
    return BatchRound(arrivals, seen.total, sum(seen.keys.values()))


def notes(rounds_by_rate: Mapping[int, Sequence[BatchRound]]) -> Iterator[str]:
    for rate, rounds in rounds_by_rate.items():
        if lost := sum(each.arrivals.lost for each in rounds):
            total = sum(each.arrivals.consultations for each in rounds)
            yield f"{rate:,}/s: {lost:,} of {total:,} consultations had no answer."
        if unsound := sum(not each.sound for each in rounds):
            yield (
                f"{rate:,}/s: in {unsound} of {len(rounds)} rounds over 1 % of the consultations were incomplete, or "
                f"this process waited for its core more than {WAITING_LIMIT:.0%} of the time, which makes batches "
                "larger. Their calls are not shown."
            )
    busy = max(each.arrivals.cpu_us for each in rounds_by_rate[RATES[-1]]) * RATES[-1] / 1e6
    limit = ": latencies are those at the limit of capacity, and batches are larger for it" if busy > 0.85 else ""
    yield f"At {RATES[-1]:,}/s cashier and arrivals need up to {busy:.0%} of their core{limit}."
