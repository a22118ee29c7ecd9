"""One call in a hundred takes twelve times as long: the effect of hedging.

`cashier serve` runs on core 0, its eight sources and the load on core 1. Every source takes 8 ms,
with independent random numbers that make one call in a hundred take 96; so one consultation in
thirteen meets a straggler. Nothing is cached. Two services, one with hedging and one without, all
else by default, alternate: 250 consultations a second at random, latency from the due time. The
sources count the calls. Percentiles of a round are of some 800 consultations; the 99.9th is of all
rounds together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import NamedTuple

import uvloop

from benchmarks.lab import Lab
from benchmarks.lab.cpu_usage import CpuUsage, doubts, measure_cpu
from benchmarks.lab.load import open_load
from benchmarks.lab.load_results import Histogram, LoadInterval
from benchmarks.lab.process import LOAD_CORE, pinned
from benchmarks.lab.process_resources import RunQueueWait
from benchmarks.lab.requests import check_consultation, consultations
from benchmarks.lab.service import Served, start_service
from benchmarks.lab.upstream import SOURCE_NAMES, STRAGGLING, Behaviour, LeanUpstream, start_upstream
from benchmarks.results import Figure, Finding, Line, LineChart, Row, Table

DELAY_MS = 8
STRAGGLING_BPS = 100
PER_S = 250
# The hedge reads its latency statistics once a second and needs some hundred calls in them.
LEARN_S = 2.5
INTERVAL_S = 3.2
USERS = 1_000
PERCENTILES = (50.0, 90.0, 95.0, 99.0)
RARE = 99.9
WITHOUT, HEDGED = SERVICES = ("without hedges", "with hedges")


class StragglerRound(NamedTuple):
    """One interval. `calls`: as counted by the sources."""

    usage: CpuUsage
    calls: int

    @property
    def interval(self) -> LoadInterval:
        return self.usage.interval

    @property
    def arrived(self) -> int:
        return self.interval.statuses.total()

    @property
    def extra_percent(self) -> float:
        return 100 * (self.calls / (self.arrived * len(SOURCE_NAMES)) - 1)


def measure(lab: Lab) -> Finding:
    behaviour = Behaviour(dict.fromkeys(SOURCE_NAMES, DELAY_MS), dict.fromkeys(SOURCE_NAMES, STRAGGLING_BPS))
    users, waiting = lab.count(USERS), RunQueueWait()
    with (
        pinned(LOAD_CORE),
        start_upstream(lab, users=users, behaviour=behaviour) as sources,
        start_service(lab, sources.urls, each="hedge = false") as without,
        start_service(lab, sources.urls, each="hedge = true") as hedged,
    ):
        run = measure_services(lab, sources, (without, hedged), consultations(users), waiting)
        return finding(uvloop.run(run), waiting)


async def measure_services(
    lab: Lab, sources: LeanUpstream, served: Sequence[Served], requests: Sequence[bytes], waiting: RunQueueWait
) -> dict[str, list[StragglerRound]]:
    rounds_by_service: dict[str, list[StragglerRound]] = {name: [] for name in SERVICES}
    async with AsyncExitStack() as opened:
        # More connections than are ever busy, and the same arrivals for both services.
        loads = [
            await opened.enter_async_context(open_load(one.port, requests, connections=64, check=check_consultation))
            for one in served
        ]
        for load in loads:
            await load.open(PER_S, lab.seconds(LEARN_S))
        for _ in lab.turns("stragglers"):
            for name, load, one in zip(SERVICES, loads, served, strict=True):
                await load.open(PER_S, lab.seconds(0.3))  # it was idle during the other's interval
                with waiting.of(one.pid):
                    calls = sources.seen().total  # blocks this loop, while no load runs
                    usage = await measure_cpu(load.open(PER_S, lab.seconds(INTERVAL_S)), one.pid, sources.pid)
                    rounds_by_service[name].append(StragglerRound(usage, sources.seen().total - calls))
    return rounds_by_service


def latencies(rounds: Sequence[StragglerRound]) -> dict[float, Figure]:
    """By percentile. The rare one is of all rounds together."""
    total = Histogram()
    for each in rounds:
        total.add(each.interval.histogram)
    by_round = {
        percentile: Figure.by_round(each.interval.at(percentile / 100) for each in rounds) for percentile in PERCENTILES
    }
    return {**by_round, RARE: Figure.of(total.at(RARE / 100))}


def finding(rounds_by_service: Mapping[str, Sequence[StragglerRound]], waiting: RunQueueWait) -> Finding:
    by_service = {name: latencies(rounds) for name, rounds in rounds_by_service.items()}
    extra = {name: Figure.by_round(each.extra_percent for each in rounds) for name, rounds in rounds_by_service.items()}
    without, hedged = by_service[WITHOUT], by_service[HEDGED]
    rows = [
        Row(name, {**{f"p{percent:g} ms": each for percent, each in by_percent.items()}, "extra calls %": extra[name]})
        for name, by_percent in by_service.items()
    ]
    lines = [Line(name, list(each.items()), ours=name == HEDGED) for name, each in by_service.items()]
    marks = {"a straggling call": STRAGGLING * DELAY_MS}
    return Finding(
        f"One call in a hundred is {STRAGGLING} × slower",
        key={
            "stragglers.p99_ratio": hedged[99.0].over(without[99.0]),
            "stragglers.p999_ratio": hedged[RARE].over(without[RARE]),
            "stragglers.p99_ms": hedged[99.0],
            "stragglers.extra_calls_percent": extra[HEDGED],
        },
        tables=[Table("Latency of a consultation, and calls beyond one to each source", rows)],
        drawings=[LineChart("Latency by percentile", "percentile", "ms", lines, marks=marks)],
        notes=list(notes(rounds_by_service, waiting)),
    )


def notes(rounds_by_service: Mapping[str, Sequence[StragglerRound]], waiting: RunQueueWait) -> Iterator[str]:
    for name, rounds in rounds_by_service.items():
        yield from doubts(name, [each.usage for each in rounds])
    yield waiting.note("The service")
    everything = [each for rounds in rounds_by_service.values() for each in rounds]
    load = max(each.interval.load_busy for each in everything)
    upstream = max(each.usage.upstream_busy for each in everything)
    yield f"The load's process was busy {load:.0%} of its core at most, the sources' {upstream:.0%}."
    yield (
        "Marketing only improves an offer: if it straggles, the answer goes out 15 ms after the others, with and "
        "without hedges, so its stragglers hardly affect either figure."
    )
