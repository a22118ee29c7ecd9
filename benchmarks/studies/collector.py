"""Pauses of the garbage collector while the caches fill.

The whole `Cashier` with its default caches, without time limits, for customers who are all new:
what stays of each in the caches is new to the collector. Compared: the collector of
`cashier serve`, which freezes what survives, and one with the same threshold only. The interval is
too short to reach the threshold, so that one collects at the end: fewer objects than in production,
where the pause is longer in proportion.

This process runs on core 0, the upstream on core 1. A pause is the CPU time of a
collection.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from random import Random
from typing import Any, NamedTuple

import uvloop

from benchmarks.lab import Lab
from benchmarks.lab.in_process import InProcessBench, Tally, consult_requests, use_service_gc
from benchmarks.lab.process import PROGRAM_CORE, pinned
from benchmarks.lab.upstream import LeanUpstream, start_upstream
from benchmarks.results import Columns, Finding, Row, Table, figures
from cashier import Cashier, ConsultRequest
from cashier.consultation.answer import ConsultError
from cashier.web.server import GC_THRESHOLD, freeze_survivors

ROUNDS = 3
# The first customers are for the warm-up.
USERS, WARMING, QUICK_USERS = 4_000, 400, 600
CONCURRENT = 16
# As uvicorn's main loop.
TICK_S = 0.1
EACH = {"timeout_ms": 50_000, "adaptive_timeout": False, "limiter": False, "breaker": False}
CONSULT = {"deadline_ms": 60_000, "max_deadline_ms": 60_000, "grace_ms": 50_000}


class CollectorRound(NamedTuple):
    """`pauses_ms`: of each collection. `young`: the largest number of new objects before one."""

    consultations: int
    lost: int
    pauses_ms: Sequence[float]
    young: int

    def at_ms(self, share: float) -> float:
        ordered = sorted(self.pauses_ms)
        return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0


COLUMNS: Columns[CollectorRound] = {
    "new customers": lambda each: each.consultations,
    "pauses": lambda each: len(each.pauses_ms),
    "new objects, at most": lambda each: each.young,
    "p50 ms": lambda each: each.at_ms(0.5),
    "p99.9 ms": lambda each: each.at_ms(0.999),
    "longest ms": lambda each: each.at_ms(1),
    "CPU µs per consultation": lambda each: sum(each.pauses_ms) * 1000 / max(1, each.consultations),
}


@contextmanager
def counted_pauses(young: list[int], pauses_ms: list[float]) -> Iterator[None]:
    began_ns = 0

    def count(phase: str, _: dict[str, Any]) -> None:
        nonlocal began_ns
        if phase == "start":
            young.append(gc.get_count()[0])
            began_ns = time.thread_time_ns()
        else:
            pauses_ms.append((time.thread_time_ns() - began_ns) / 1e6)

    gc.callbacks.append(count)
    try:
        yield
    finally:
        gc.callbacks.remove(count)


async def freeze_regularly() -> None:
    while True:
        await asyncio.sleep(TICK_S)
        freeze_survivors()


async def measure_round(bench: InProcessBench, *, freezes: bool) -> CollectorRound:
    young, pauses_ms = [0], list[float]()
    async with bench.cashier(EACH, consult=CONSULT) as cashier:
        await consult_all(cashier, bench.requests[:WARMING])
        use_service_gc()
        with counted_pauses(young, pauses_ms):
            freezing = asyncio.create_task(freeze_regularly()) if freezes else None
            lost = await consult_all(cashier, bench.requests[WARMING:])
            if freezing is None:
                gc.collect(0)
            else:
                freezing.cancel()
    return CollectorRound(len(bench.requests) - WARMING, lost, pauses_ms, max(young))


async def consult_all(cashier: Cashier, requests: Sequence[ConsultRequest]) -> int:
    """The number of consultations without an answer."""
    fresh, lost = iter(requests), 0

    async def one_after_the_other() -> None:
        nonlocal lost
        for request in fresh:
            try:
                await cashier.consult(request)
            except ConsultError:
                lost += 1

    await asyncio.gather(*(one_after_the_other() for _ in range(CONCURRENT)))
    return lost


async def measure_rounds(lab: Lab, upstream: LeanUpstream) -> tuple[list[CollectorRound], list[CollectorRound]]:
    requests = consult_requests(QUICK_USERS if lab.quick else USERS)
    frozen, threshold = list[CollectorRound](), list[CollectorRound]()
    for turn in lab.turns("collector", ROUNDS):
        for rounds, freezes in ((frozen, True), (threshold, False)):
            bench = InProcessBench(lab, upstream, upstream.urls, requests, Random(turn), Tally())
            rounds.append(await measure_round(bench, freezes=freezes))
    return frozen, threshold


def measure(lab: Lab) -> Finding:
    with pinned(PROGRAM_CORE), start_upstream(lab, users=USERS) as upstream:
        frozen, threshold = uvloop.run(measure_rounds(lab, upstream))
    served, compared = figures(frozen, COLUMNS), figures(threshold, COLUMNS)
    lost, total = (sum(each) for each in zip(*((one.lost, one.consultations) for one in frozen), strict=True))
    return Finding(
        "Pauses of the garbage collector",
        key={"collector.pause_p999_ms": served["p99.9 ms"], "collector.cpu_us": served["CPU µs per consultation"]},
        tables=[
            Table(
                f"New customers, {CONCURRENT} at a time, default caches",
                [Row("as the service", served), Row("threshold only, collected at the end", compared)],
            )
        ],
        notes=[
            f"With the threshold only, a pause comes after {GC_THRESHOLD:,} new objects.",
            *([f"{lost:,} of {total:,} consultations had no answer."] if lost else []),
        ],
    )
