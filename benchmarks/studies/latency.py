"""Latency by offered load: what a program adds to its slowest source.

One source takes 5 ms, the others 2; all eight are live.

First the peak in terms of CPU: the consultations a second that would fill the program's core, by
the cost in a closed loop. Then open arrivals at random, seeded, at 10 to 90 % of each program's own
peak, latency from the due time. Added latency is latency less the median time for which the slowest
source held its answers back in the same interval. Rounds interleave. The lab's own share is
measured in the same way without a program: the load asks the slowest source directly.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack, ExitStack
from typing import NamedTuple

import uvloop

from benchmarks.lab import Lab
from benchmarks.lab.cpu_usage import CpuUsage, doubts, measure_cpu
from benchmarks.lab.load import Load, open_load
from benchmarks.lab.process import LOAD_CORE, pinned
from benchmarks.lab.requests import consultations
from benchmarks.lab.upstream import FIRST_USER, SOURCE_NAMES, USERS, Behaviour, HoldTimes, LeanUpstream, start_upstream
from benchmarks.peers import OURS, Program, start_programs
from benchmarks.results import Columns, Figure, Finding, Line, LineChart, Row, Table, figures

COMPARED = (OURS, "nginx_lua")
SLOWEST, SLOWEST_MS, OTHER_MS = "balance", 5.0, 2.0
BEHAVIOUR = Behaviour({**dict.fromkeys(SOURCE_NAMES, OTHER_MS), SLOWEST: SLOWEST_MS})
SHARES = (0.1, 0.25, 0.5, 0.75, 0.9)
HALF = 0.5
INTERVAL_S = 2.5
CONNECTIONS = 256
# In flight while looking for the peak. With more, consultations time out on a busy machine.
WIDTH = 16


class Point(NamedTuple):
    """One interval at one rate. `held`: delays of the slowest source."""

    usage: CpuUsage
    held: HoldTimes

    def at(self, quantile: float) -> float:
        return self.usage.interval.at(quantile)

    def added_ms(self, quantile: float) -> float:
        return self.at(quantile) - self.held.p50_ms


LAB_COLUMNS: Columns[Point] = {
    "added p50 ms": lambda each: each.added_ms(0.5),
    "added p99 ms": lambda each: each.added_ms(0.99),
    "sent late p99 ms": lambda each: each.usage.interval.late.at(0.99),
}
COLUMNS: Columns[Point] = {
    "added p50 ms": LAB_COLUMNS["added p50 ms"],
    "added p99 ms": LAB_COLUMNS["added p99 ms"],
    "p50 ms": lambda each: each.at(0.5),
    "p99 ms": lambda each: each.at(0.99),
    "p99.9 ms": lambda each: each.at(0.999),
    "source held p50 ms": lambda each: each.held.p50_ms,
    "source held p99 ms": lambda each: each.held.p99_ms,
    "sent late p99 ms": LAB_COLUMNS["sent late p99 ms"],
    "program busy %": lambda each: 100 * each.usage.program_busy,
    "others on its core %": lambda each: 100 * each.usage.others_busy,
    "load and upstream busy %": lambda each: 100 * each.usage.load_core_busy,
}


class ProgramLatency(NamedTuple):
    """One program: its peak, and the points at each share of it, by round."""

    program: Program
    peak_per_s: float
    points: dict[float, list[Point]]

    @property
    def by_share(self) -> dict[float, dict[str, Figure]]:
        return {share: figures(points, COLUMNS) for share, points in self.points.items()}


def measure(lab: Lab) -> Finding:
    users = lab.count(USERS)
    with pinned(LOAD_CORE), start_upstream(lab, users=users, behaviour=BEHAVIOUR) as upstream, ExitStack() as running:
        programs = start_programs(lab, upstream, running, COMPARED)
        return finding(*uvloop.run(measure_programs(lab, programs, upstream, users)))


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
            peak_per_s = await find_peak(lab, load, program, upstream)
            results.append(ProgramLatency(program, peak_per_s, {share: [] for share in SHARES}))
        directly = await opened.enter_async_context(
            open_load(port(upstream), direct_requests(users), connections=CONNECTIONS)
        )
        for turn in range(lab.rounds):
            lab.report(f"round {turn + 1} of {lab.rounds}: {', '.join(f'{share:.0%}' for share in SHARES)} of the peak")
            floor.append(await measure_point(lab, directly, HALF * results[0].peak_per_s, upstream.pid, upstream))
            for share in SHARES:
                for result in results:
                    load, pid = loads[result.program.name], result.program.served.pid
                    point = await measure_point(lab, load, share * result.peak_per_s, pid, upstream)
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


def finding(results: Sequence[ProgramLatency], floor: Sequence[Point]) -> Finding:
    ours, alone = results[0], figures(floor, LAB_COLUMNS)
    half = ours.by_share[HALF]
    alone_row = Row(f"{HALF * ours.peak_per_s:,.0f} per second", alone)
    note = "The slowest source asked directly: the latency that the lab adds. It is included in every figure above."
    lines = [
        Line(
            f"{result.program.title}, {word}",
            [(share * result.peak_per_s, each[f"{word} ms"]) for share, each in result.by_share.items()],
            ours=result.program.ours,
        )
        for result in results
        for word in ("p50", "p99")
    ]
    return Finding(
        "Latency by offered load",
        key={
            "added_ms.p50": half["added p50 ms"],
            "added_ms.p99": half["added p99 ms"],
            "latency.peak_per_s": Figure.of(ours.peak_per_s),
            "added_ms.lab_p50": alone["added p50 ms"],
            "added_ms.lab_p99": alone["added p99 ms"],
        },
        tables=[*map(table, results), Table("The lab alone, without a program", [alone_row], note)],
        drawings=[
            LineChart(
                "Latency by offered load, slowest source 5 ms",
                "offered per second",
                "ms",
                lines,
                x_logarithmic=True,
                y_logarithmic=True,
                marks={"slowest source": SLOWEST_MS},
            )
        ],
        notes=notes(results),
    )


def table(result: ProgramLatency) -> Table:
    peak_per_s = result.peak_per_s
    rows = [Row(f"{share:.0%}: {share * peak_per_s:,.0f} per second", each) for share, each in result.by_share.items()]
    return Table(f"{result.program.title}, peak {peak_per_s:,.0f} per second", rows)


def notes(results: Sequence[ProgramLatency]) -> list[str]:
    by_title = {
        each.program.title: [one.usage for points in each.points.values() for one in points] for each in results
    }
    here = {result.program.name for result in results}
    return [
        *(text for title, usages in by_title.items() for text in doubts(title, usages)),
        *(f"{name} could not be compared." for name in COMPARED if name not in here),
    ]
