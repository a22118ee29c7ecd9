"""One call in a hundred takes twelve times as long: the effect of hedging.

`cashier serve` runs on core 0, its eight sources and the load on core 1. Every source takes 8 ms,
with independent random numbers that make one call in a hundred take 96; so one consultation in
thirteen meets a straggler. Nothing is cached. Two services, one with hedging and one without, all
else by default, alternate: 250 consultations a second at random, latency from the due time. The
sources count the calls. Percentiles of a round are of some 800 consultations; the 99.9th is of all
rounds together.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack
from typing import NamedTuple

import uvloop

from benchmarks.lab.histogram import Histogram
from benchmarks.lab.load import Load, open_load
from benchmarks.lab.load_results import LoadInterval
from benchmarks.lab.process import LOAD_CORE, cpu_s, pinned
from benchmarks.lab.requests import check_consultation, consultations
from benchmarks.lab.run_queue import RunQueueWait
from benchmarks.lab.service import Served, start_service
from benchmarks.lab.study_run import Lab
from benchmarks.lab.upstream import LeanUpstream, start_upstream
from benchmarks.lab.upstream_control import SOURCE_NAMES, STRAGGLING, Behaviour
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
SERVICES = ("without hedges", "with hedges")


class StragglerRound(NamedTuple):
    """One interval. `calls`: as counted by the sources."""

    interval: LoadInterval
    calls: int
    upstream_busy: float

    @property
    def arrived(self) -> int:
        return self.interval.statuses.total()

    @property
    def extra_percent(self) -> float:
        return 100 * (self.calls / (self.arrived * len(SOURCE_NAMES)) - 1)


class ServiceRounds(NamedTuple):
    """One service over all rounds."""

    rounds: Sequence[StragglerRound]

    @property
    def extra_percent(self) -> Figure:
        return Figure.of(*(each.extra_percent for each in self.rounds))

    def at(self, percentile: float) -> Figure:
        if percentile < RARE:
            return Figure.of(*(each.interval.at(percentile / 100) for each in self.rounds))
        total = Histogram()
        for each in self.rounds:
            total.add(each.interval.histogram)
        return Figure.of(total.at(percentile / 100))


def measure(lab: Lab) -> Finding:
    start_s = time.perf_counter()
    behaviour = Behaviour(dict.fromkeys(SOURCE_NAMES, DELAY_MS), dict.fromkeys(SOURCE_NAMES, STRAGGLING_BPS))
    users = lab.count(USERS)
    with ExitStack() as opened:
        opened.enter_context(pinned(LOAD_CORE))
        sources = opened.enter_context(start_upstream(lab, users=users, behaviour=behaviour))
        served = [
            opened.enter_context(start_service(lab, sources.urls, each=f"hedge = {hedge}"))
            for hedge in ("false", "true")
        ]
        waiting = RunQueueWait()
        services = uvloop.run(measure_services(lab, sources, served, consultations(users), waiting))
    return finding(services, waiting, time.perf_counter() - start_s)


async def measure_services(
    lab: Lab, sources: LeanUpstream, served: Sequence[Served], requests: Sequence[bytes], waiting: RunQueueWait
) -> dict[str, ServiceRounds]:
    rounds_by_service: dict[str, list[StragglerRound]] = {name: [] for name in SERVICES}
    async with AsyncExitStack() as opened:
        # More connections than are ever busy, and the same arrivals for both services.
        loads = [
            await opened.enter_async_context(open_load(one.port, requests, connections=64, check=check_consultation))
            for one in served
        ]
        for load in loads:
            await load.open(PER_S, lab.seconds(LEARN_S))
        for turn in range(lab.rounds):
            lab.report(f"stragglers: round {turn + 1} of {lab.rounds}")
            for name, load, one in zip(SERVICES, loads, served, strict=True):
                await load.open(PER_S, lab.seconds(0.3))  # it was idle during the other's interval
                with waiting.of(one.pid):
                    rounds_by_service[name].append(await measure_round(load, sources, lab.seconds(INTERVAL_S)))
    return {name: ServiceRounds(rounds) for name, rounds in rounds_by_service.items()}


async def measure_round(load: Load, sources: LeanUpstream, seconds: float) -> StragglerRound:
    # Read while no load runs, because it blocks this loop.
    calls, used_s = sum(sources.seen().calls.values()), cpu_s(sources.pid)
    interval = await load.open(PER_S, seconds)
    busy = (cpu_s(sources.pid) - used_s) / interval.seconds
    return StragglerRound(interval, sum(sources.seen().calls.values()) - calls, busy)


def finding(services: Mapping[str, ServiceRounds], waiting: RunQueueWait, seconds: float) -> Finding:
    without, hedged = (services[name] for name in SERVICES)
    lines = [
        Line(name, [(x, each.at(x)) for x in (*PERCENTILES, RARE)], ours=each is hedged)
        for name, each in services.items()
    ]
    return Finding(
        "stragglers",
        f"One call in a hundred is {STRAGGLING} × slower",
        (__doc__ or "").strip(),
        seconds,
        key={
            "stragglers.p99_ratio": hedged.at(99).over(without.at(99)),
            "stragglers.p999_ratio": hedged.at(RARE).over(without.at(RARE)),
            "stragglers.p99_ms": hedged.at(99),
            "stragglers.extra_calls_percent": hedged.extra_percent,
        },
        tables=[
            Table(
                "Latency of a consultation, and calls beyond one to each source",
                [row(name, each) for name, each in services.items()],
            )
        ],
        drawings=[
            LineChart(
                "Latency by percentile", "percentile", "ms", lines, marks={"a straggling call": STRAGGLING * DELAY_MS}
            ),
        ],
        notes=list(notes(services, waiting)),
    )


def row(name: str, services: ServiceRounds) -> Row:
    latencies = {f"p{percentile:g} ms": services.at(percentile) for percentile in (*PERCENTILES, RARE)}
    return Row(name, {**latencies, "extra calls %": services.extra_percent})


def notes(services: Mapping[str, ServiceRounds], waiting: RunQueueWait) -> Iterator[str]:
    everything = [each for one in services.values() for each in one.rounds]
    for name, one in services.items():
        arrived, failed = (
            sum(each.arrived for each in one.rounds),
            sum(each.arrived - each.interval.answered for each in one.rounds),
        )
        if failed:
            yield f"{name}: {failed:,} of {arrived:,} consultations were not answered and are in no percentile."
    yield waiting.note("The service")
    late = max(each.interval.load_busy for each in everything)
    yield (
        f"The load's process was busy {late:.0%} of its core at most, the sources' "
        f"{max(each.upstream_busy for each in everything):.0%}."
    )
    yield (
        "Marketing only improves an offer: if it straggles, the answer goes out 15 ms after the others, with and "
        "without hedges, so its "
        "stragglers hardly affect either figure."
    )
