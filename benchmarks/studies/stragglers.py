"""One call in a hundred takes twelve times as long: the effect of hedging, beside gateways.

`cashier serve` runs on core 0, its eight sources and the load on core 1. Every source takes 8 ms,
with independent random numbers that make one call in a hundred take 96; so one consultation in
thirteen meets a straggler. Nothing is cached. Two services, one with hedging and one without, all
else by default, alternate with gateways in nginx + Lua and in Go that have a plain timeout of
150 ms for each call: 250 consultations a second at random, latency from the due time. The sources
count the calls. Percentiles of a round are of some 800 consultations; the 99.9th is of all rounds
together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack
from typing import NamedTuple

import uvloop

from benchmarks.lab import Lab
from benchmarks.lab.cpu_usage import CpuUsage, doubts, measure_cpu
from benchmarks.lab.load import open_load
from benchmarks.lab.load_results import Histogram, LoadInterval
from benchmarks.lab.process import LOAD_CORE, pinned
from benchmarks.lab.process_resources import RunQueueWait
from benchmarks.lab.requests import check_consultation, consultations
from benchmarks.lab.service import start_service
from benchmarks.lab.upstream import SOURCE_NAMES, STRAGGLING, Behaviour, LeanUpstream, start_upstream
from benchmarks.peers import GATEWAYS, Program, start_programs
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
HEDGED, WITHOUT = SERVICES = ("cashier", "cashier, no hedges")
# Of the gateways: the deadline of a consultation by default.
CALL_TIMEOUT_MS = 150


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


class ProgramRounds(NamedTuple):
    """One program's rounds."""

    program: Program
    rounds: list[StragglerRound]

    @property
    def extra_percent(self) -> Figure:
        return Figure.by_round(each.extra_percent for each in self.rounds)

    def latencies(self) -> dict[float, Figure]:
        """In ms, by percentile. The rare one is of all rounds together."""
        total = Histogram()
        for each in self.rounds:
            total.add(each.interval.histogram)
        by_round = {
            percent: Figure.by_round(each.interval.at(percent / 100) for each in self.rounds) for percent in PERCENTILES
        }
        return {**by_round, RARE: Figure.of(total.at(RARE / 100))}


def measure(lab: Lab) -> Finding:
    behaviour = Behaviour(dict.fromkeys(SOURCE_NAMES, DELAY_MS), dict.fromkeys(SOURCE_NAMES, STRAGGLING_BPS))
    users, waiting = lab.count(USERS), RunQueueWait()
    with (
        pinned(LOAD_CORE),
        start_upstream(lab, users=users, behaviour=behaviour) as sources,
        ExitStack() as running,
    ):
        programs = [
            Program(
                name,
                name,
                False,
                check_consultation,
                running.enter_context(start_service(lab, sources.urls, each=each)),
            )
            for name, each in zip(SERVICES, ("hedge = true", "hedge = false"), strict=True)
        ]
        programs += start_programs(lab, sources, running, GATEWAYS, CALL_TIMEOUT_MS)
        return finding(uvloop.run(measure_programs(lab, sources, programs, consultations(users), waiting)), waiting)


async def measure_programs(
    lab: Lab, sources: LeanUpstream, programs: Sequence[Program], requests: Sequence[bytes], waiting: RunQueueWait
) -> list[ProgramRounds]:
    results = [ProgramRounds(program, []) for program in programs]
    async with AsyncExitStack() as opened:
        # More connections than are ever busy, and the same arrivals for all programs.
        loads = [
            await opened.enter_async_context(open_load(each.served.port, requests, connections=64, check=each.check))
            for each in programs
        ]
        for load in loads:
            await load.open(PER_S, lab.seconds(LEARN_S))
        for _ in lab.turns("stragglers"):
            for (program, rounds), load in zip(results, loads, strict=True):
                await load.open(PER_S, lab.seconds(0.3))  # it was idle during the others' intervals
                with waiting.of(program.served.pid):
                    calls = sources.seen().total  # blocks this loop, while no load runs
                    arriving = load.open(PER_S, lab.seconds(INTERVAL_S))
                    usage = await measure_cpu(arriving, program.served.pid, sources.pid)
                    rounds.append(StragglerRound(usage, sources.seen().total - calls))
    return results


def finding(results: Sequence[ProgramRounds], waiting: RunQueueWait) -> Finding:
    latencies = {each.program.name: each.latencies() for each in results}
    hedged, without = latencies[HEDGED], latencies[WITHOUT]
    rows, lines = [], []
    for each in sorted(results, key=lambda each: each.program.name == WITHOUT):  # last
        by_percent = latencies[each.program.name]
        columns = {f"p{percent:g} ms": figure for percent, figure in by_percent.items()}
        columns["hedged p99 ÷ this"] = hedged[99.0].over(by_percent[99.0])
        rows.append(Row(each.program.title, {**columns, "extra calls %": each.extra_percent}))
        lines.append(Line(each.program.title, list(by_percent.items()), ours=each.program.name == HEDGED))
    return Finding(
        f"One call in a hundred is {STRAGGLING} × slower",
        key={
            "stragglers.p99_ratio": hedged[99.0].over(without[99.0]),
            "stragglers.p999_ratio": hedged[RARE].over(without[RARE]),
            "stragglers.p99_ms": hedged[99.0],
            "stragglers.extra_calls_percent": results[0].extra_percent,
            **{
                f"stragglers.p99_ratio.{name}": hedged[99.0].over(latencies[name][99.0])
                for name in GATEWAYS
                if name in latencies
            },
        },
        tables=[Table("Latency of a consultation, and calls beyond one to each source", rows)],
        drawings=[
            LineChart(
                f"A bad day: one call in a hundred {STRAGGLING} × slower",
                "percentile",
                "latency, ms",
                lines,
                marks={"a straggling call": STRAGGLING * DELAY_MS},
            )
        ],
        notes=list(notes(results, waiting)),
    )


def notes(results: Sequence[ProgramRounds], waiting: RunQueueWait) -> Iterator[str]:
    for program, rounds in results:
        yield from doubts(program.title, [each.usage for each in rounds])
    yield waiting.note("The program")
    everything = [each for _, rounds in results for each in rounds]
    load = max(each.interval.load_busy for each in everything)
    upstream = max(each.usage.upstream_busy for each in everything)
    yield f"The load's process was busy {load:.0%} of its core at most, the sources' {upstream:.0%}."
    yield (
        "Marketing only improves an offer: if it straggles, cashier answers 15 ms after the others, with and without "
        "hedges, so its stragglers hardly affect either figure. The gateways wait for all sources."
    )
