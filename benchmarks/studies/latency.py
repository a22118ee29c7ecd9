"""Latency by offered load: what a program adds to its slowest source.

One source takes 5 ms, the others 2; all eight are live.

First the peak in terms of CPU: the consultations a second that would fill the program's core, by
the cost in a closed loop. Then open arrivals at random, seeded, at 10 to 90 % of each program's own
peak, latency from the due time. Added latency is latency less the median time for which the slowest
source held its answers back in the same interval. Rounds interleave. The lab's own share is
measured in the same way without a program: the load asks the slowest source directly.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack, ExitStack
from typing import NamedTuple

import uvloop

from benchmarks.lab import Lab
from benchmarks.lab.cpu_usage import CpuUsage, disturbance_note, incomplete_note, measure_cpu, unanswered_note
from benchmarks.lab.load import Load, open_load
from benchmarks.lab.process import LOAD_CORE, pinned
from benchmarks.lab.programs import OURS, Program, start_programs
from benchmarks.lab.requests import USERS, consultations
from benchmarks.lab.upstream import LeanUpstream, start_upstream
from benchmarks.lab.upstream_control import SOURCE_NAMES, Behaviour, HoldTimes
from benchmarks.lean_upstream import FIRST_USER
from benchmarks.results import Figure, Finding, Line, LineChart, Row, Table

COMPARED = (OURS, "nginx_lua")
SLOWEST, SLOWEST_MS, OTHER_MS = "balance", 5.0, 2.0
BEHAVIOUR = Behaviour({**dict.fromkeys(SOURCE_NAMES, OTHER_MS), SLOWEST: SLOWEST_MS})
SHARES = (0.1, 0.25, 0.5, 0.75, 0.9)
HALF = 0.5
INTERVAL_S = 2.5
CONNECTIONS = 256
# In flight while looking for the peak. With more, consultations time out on a busy machine.
WIDTH = 16
CROWDED = 0.8


class Point(NamedTuple):
    """One interval at one rate. `held`: delays of the slowest source."""

    usage: CpuUsage
    held: HoldTimes

    def added_ms(self, quantile: float) -> float:
        return self.usage.interval.at(quantile) - self.held.p50_ms


class ProgramLatency(NamedTuple):
    """One program: its peak, and the points at each share of it, by round."""

    program: Program
    peak_per_s: float
    points: dict[float, list[Point]]

    def added(self, share: float, quantile: float) -> Figure:
        return added(self.points[share], quantile)

    def at(self, share: float, quantile: float) -> Figure:
        return Figure(tuple(point.usage.interval.at(quantile) for point in self.points[share]))

    def load_core_busy(self, share: float) -> float:
        return statistics.median(point.usage.load_core_busy for point in self.points[share])

    @property
    def everything(self) -> list[Point]:
        return [point for points in self.points.values() for point in points]


def measure(lab: Lab) -> Finding:
    start_s = time.perf_counter()
    users = lab.count(USERS)
    with pinned(LOAD_CORE), start_upstream(lab, users=users, behaviour=BEHAVIOUR) as upstream, ExitStack() as running:
        programs = start_programs(lab, upstream, running, COMPARED)
        results, floor = uvloop.run(measure_programs(lab, programs, upstream, users))
    return finding(results, floor, time.perf_counter() - start_s)


async def measure_programs(
    lab: Lab, programs: Sequence[Program], upstream: LeanUpstream, users: int
) -> tuple[list[ProgramLatency], list[Point]]:
    """Measure every program, and the lab alone at half of our peak."""
    requests, results, floor = consultations(users), [], []
    async with AsyncExitStack() as opened:
        loads: dict[str, Load] = {}
        for program in programs:
            load = await opened.enter_async_context(
                open_load(program.served.port, requests, connections=CONNECTIONS, check=program.check)
            )
            loads[program.name] = load
            results.append(
                ProgramLatency(program, await find_peak(lab, load, program, upstream), {share: [] for share in SHARES})
            )
        directly = await opened.enter_async_context(
            open_load(port(upstream), direct_requests(users), connections=CONNECTIONS)
        )
        for turn in range(lab.rounds):
            lab.report(f"round {turn + 1} of {lab.rounds}: {', '.join(f'{share:.0%}' for share in SHARES)} of the peak")
            floor.append(await measure_point(lab, directly, HALF * results[0].peak_per_s, upstream.pid, upstream))
            for share in SHARES:
                for result in results:
                    point = await measure_point(
                        lab, loads[result.program.name], share * result.peak_per_s, result.program.served.pid, upstream
                    )
                    result.points[share].append(point)
    return results, floor


def port(upstream: LeanUpstream) -> int:
    return int(upstream.urls[SLOWEST].rpartition(":")[2])


def direct_requests(users: int) -> list[bytes]:
    """The requests that a program sends to the slowest source."""
    return [
        b"GET /members/u_%d/balances HTTP/1.1\r\nHost: x\r\n\r\n" % n for n in range(FIRST_USER, FIRST_USER + users)
    ]


async def find_peak(lab: Lab, load: Load, program: Program, upstream: LeanUpstream) -> float:
    """Consultations per second that would fill the program's core."""
    await load.open(100, lab.seconds(0.5))
    await load.closed(lab.seconds(1.5), width=WIDTH)
    usage = await measure_cpu(load.closed(lab.seconds(2.0), width=WIDTH), program.served.pid, upstream.pid)
    per_s = 1e6 / usage.cpu_us
    lab.report(f"{program.title}: {usage.cpu_us:,.0f} µs per consultation, so at most {per_s:,.0f}/s")
    return per_s


async def measure_point(lab: Lab, load: Load, per_s: float, pid: int, upstream: LeanUpstream) -> Point:
    upstream.behave(BEHAVIOUR)  # blocks while no request waits
    usage = await measure_cpu(load.open(per_s, lab.seconds(INTERVAL_S)), pid, upstream.pid)
    return Point(usage, upstream.seen().held[SLOWEST])


def finding(results: Sequence[ProgramLatency], floor: Sequence[Point], seconds: float) -> Finding:
    ours = results[0]
    return Finding(
        name="latency",
        title="Latency by offered load",
        about=__doc__ or "",
        seconds=seconds,
        key={**key(ours), "added_ms.lab_p50": added(floor, 0.5), "added_ms.lab_p99": added(floor, 0.99)},
        tables=[*map(table, results), lab_alone(ours, floor)],
        drawings=[drawing(results)],
        notes=notes(results),
    )


def added(points: Sequence[Point], quantile: float) -> Figure:
    return Figure(tuple(point.added_ms(quantile) for point in points))


def lab_alone(ours: ProgramLatency, floor: Sequence[Point]) -> Table:
    row = Row(
        f"{HALF * ours.peak_per_s:,.0f} per second",
        {
            "added p50 ms": added(floor, 0.5),
            "added p99 ms": added(floor, 0.99),
            "sent late p99 ms": Figure(tuple(point.usage.interval.late.at(0.99) for point in floor)),
        },
    )
    note = "The slowest source asked directly: the latency that the lab adds. It is included in every figure above."
    return Table("The lab alone, without a program", [row], note)


def key(ours: ProgramLatency) -> dict[str, Figure]:
    return {
        "added_ms.p50": ours.added(HALF, 0.5),
        "added_ms.p99": ours.added(HALF, 0.99),
        "latency.peak_per_s": Figure.of(ours.peak_per_s),
    }


def table(result: ProgramLatency) -> Table:
    rows = [
        Row(f"{share:.0%}: {share * result.peak_per_s:,.0f} per second", columns(result, share)) for share in SHARES
    ]
    return Table(f"{result.program.title}, peak {result.peak_per_s:,.0f} per second", rows)


def columns(result: ProgramLatency, share: float) -> dict[str, Figure]:
    points = result.points[share]
    return {
        "added p50 ms": result.added(share, 0.5),
        "added p99 ms": result.added(share, 0.99),
        "p50 ms": result.at(share, 0.5),
        "p99 ms": result.at(share, 0.99),
        "p99.9 ms": result.at(share, 0.999),
        "source held p50 ms": Figure(tuple(point.held.p50_ms for point in points)),
        "source held p99 ms": Figure(tuple(point.held.p99_ms for point in points)),
        "sent late p99 ms": Figure(tuple(point.usage.interval.late.at(0.99) for point in points)),
        "program busy %": Figure(tuple(100 * point.usage.program_busy for point in points)),
        "others on its core %": Figure(tuple(100 * point.usage.others_busy for point in points)),
        "load and upstream busy %": Figure(tuple(100 * point.usage.load_core_busy for point in points)),
    }


def drawing(results: Sequence[ProgramLatency]) -> LineChart:
    lines = [
        Line(f"{result.program.title}, {word}", line(result, quantile), ours=result.program.ours)
        for result in results
        for word, quantile in (("p50", 0.5), ("p99", 0.99))
    ]
    return LineChart(
        "Latency by offered load, slowest source 5 ms",
        "offered per second",
        "ms",
        lines,
        x_logarithmic=True,
        y_logarithmic=True,
        marks={"slowest source": SLOWEST_MS},
    )


def line(result: ProgramLatency, quantile: float) -> list[tuple[float, Figure]]:
    return [(share * result.peak_per_s, result.at(share, quantile)) for share in SHARES]


def notes(results: Sequence[ProgramLatency]) -> list[str]:
    texts = []
    for result in results:
        title = result.program.title
        intervals = [point.usage.interval for point in result.everything]
        doubts = (
            unanswered_note(intervals),
            incomplete_note(intervals),
            disturbance_note([point.usage for point in result.everything]),
        )
        texts += [f"{title}: {doubt}." for doubt in doubts if doubt]
        crowded = [f"{share:.0%}" for share in SHARES if result.load_core_busy(share) > CROWDED]
        if crowded:
            texts.append(
                f"{title}, at {', '.join(crowded)} of the peak: load and upstream took more than {CROWDED:.0%} of "
                "their core. "
                "Their latencies are limited by them."
            )
    texts += absent(results)
    return texts


def absent(results: Sequence[ProgramLatency]) -> list[str]:
    here = {result.program.name for result in results}
    return [f"{name} could not be compared." for name in COMPARED if name not in here]
