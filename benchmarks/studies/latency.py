"""Latency by offered load, and on a quiet day: what a program adds to its slowest source.

One source takes 5 ms, the others 2; all eight are live.

First the peak in terms of CPU: the consultations a second that would fill the program's core, by
the cost in a closed loop. Then open arrivals at random, seeded, at 10 to 90 % of each program's own
peak, latency from the due time. Added latency is latency less the median time for which the slowest
source held its answers back in the same interval. Rounds interleave. The lab's own share is
measured in the same way without a program: the load asks the slowest source directly.

The quiet day: 150 consultations a second for each program, far below the capacity of all.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack, ExitStack
from typing import NamedTuple

import uvloop

from benchmarks.lab import Lab
from benchmarks.lab.cpu_usage import CROWDED, CpuUsage, doubts, measure_cpu
from benchmarks.lab.load import Load, open_load
from benchmarks.lab.process import LOAD_CORE, pinned
from benchmarks.lab.requests import consultations
from benchmarks.lab.upstream import FIRST_USER, SOURCE_NAMES, USERS, Behaviour, HoldTimes, LeanUpstream, start_upstream
from benchmarks.peers import GATEWAYS, OURS, Program, start_programs
from benchmarks.results import Columns, Figure, Finding, Line, LineChart, Row, Table, figures

COMPARED = (OURS, *GATEWAYS)
# With our fan-out and a bare merge: it shows how much of a difference is the payment work.
QUIET_PROGRAMS = (*COMPARED, "own_fanout")
QUIET_PER_S, QUIET_S = 150, 6.0
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
LOAD_CORE_BUSY = "load and upstream busy %"
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
    LOAD_CORE_BUSY: lambda each: 100 * each.usage.load_core_busy,
}


P50_MORE, P99_RATIO = "our p50 − its, ms", "our p99 ÷ its"


class ProgramLatency(NamedTuple):
    """One program and its peak.

    `points`: by share of the peak and round. `quiet`: of the quiet day, by round.
    """

    program: Program
    peak_per_s: float
    points: dict[float, list[Point]]
    quiet: list[Point]

    @property
    def by_share(self) -> dict[float, dict[str, Figure]]:
        return {share: figures(points, COLUMNS) for share, points in self.points.items()}


def measure(lab: Lab) -> Finding:
    users = lab.count(USERS)
    with pinned(LOAD_CORE), start_upstream(lab, users=users, behaviour=BEHAVIOUR) as upstream, ExitStack() as running:
        programs = start_programs(lab, upstream, running, QUIET_PROGRAMS)
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
            shares = SHARES if program.name in COMPARED else ()
            results.append(ProgramLatency(program, peak_per_s, {share: [] for share in shares}, []))
        directly = await opened.enter_async_context(
            open_load(port(upstream), direct_requests(users), connections=CONNECTIONS)
        )
        for turn in range(lab.rounds):
            lab.report(f"round {turn + 1} of {lab.rounds}: {', '.join(f'{share:.0%}' for share in SHARES)} of the peak")
            floor.append(await measure_point(lab, directly, HALF * results[0].peak_per_s, upstream.pid, upstream))
            for result in results:
                load, pid = loads[result.program.name], result.program.served.pid
                result.quiet.append(await measure_point(lab, load, QUIET_PER_S, pid, upstream, QUIET_S))
            for share in SHARES:
                for result in results:
                    if share in result.points:
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


async def measure_point(
    lab: Lab, load: Load, per_s: float, pid: int, upstream: LeanUpstream, seconds: float = INTERVAL_S
) -> Point:
    upstream.behave(BEHAVIOUR)  # blocks while no request waits
    usage = await measure_cpu(load.open(per_s, lab.seconds(seconds)), pid, upstream.pid)
    return Point(usage, upstream.seen().held[SLOWEST])


def finding(results: Sequence[ProgramLatency], floor: Sequence[Point]) -> Finding:
    ours, alone = results[0], figures(floor, LAB_COLUMNS)
    half = ours.by_share[HALF]
    alone_row = Row(f"{HALF * ours.peak_per_s:,.0f} per second", alone)
    note = "The slowest source asked directly: the latency that the lab adds. It is included in every figure above."
    return Finding(
        "Latency by offered load",
        key={
            "added_ms.p50": half["added p50 ms"],
            "added_ms.p99": half["added p99 ms"],
            "latency.peak_per_s": Figure.of(ours.peak_per_s),
            "added_ms.lab_p50": alone["added p50 ms"],
            "added_ms.lab_p99": alone["added p99 ms"],
            **{
                f"latency.{key}.{result.program.name}": quiet(results[0], result)[column]
                for result in results[1:]
                for key, column in (("quiet_p50_more_ms", P50_MORE), ("quiet_p99_ratio", P99_RATIO))
            },
        },
        tables=[
            *(table(result) for result in results if result.points),
            quiet_table(results),
            Table("The lab alone, without a program", [alone_row], note),
        ],
        drawings=[drawing(results, word) for word in ("p99", "p50")],
        notes=notes(results),
    )


def drawing(results: Sequence[ProgramLatency], word: str) -> LineChart:
    lines = [
        Line(
            result.program.title,
            [
                (share * result.peak_per_s, each[f"{word} ms"])
                for share, each in result.by_share.items()
                if each[LOAD_CORE_BUSY].median < 100 * CROWDED  # else these are the load's latencies
            ],
            ours=result.program.ours,
        )
        for result in results
        if result.points
    ]
    return LineChart(
        f"A quiet day: {word} by load",
        "consultations per second",
        "latency, ms",
        lines,
        x_logarithmic=True,
        y_logarithmic=True,
        marks={"slowest source": SLOWEST_MS},
    )


def table(result: ProgramLatency) -> Table:
    peak_per_s = result.peak_per_s
    rows = [Row(f"{share:.0%}: {share * peak_per_s:,.0f} per second", each) for share, each in result.by_share.items()]
    return Table(f"{result.program.title}, peak {peak_per_s:,.0f} per second", rows)


def quiet(ours: ProgramLatency, other: ProgramLatency) -> dict[str, Figure]:
    """The columns of the other one, with ours compared."""
    mine, its = figures(ours.quiet, COLUMNS), figures(other.quiet, COLUMNS)
    more = zip(mine["p50 ms"].rounds, its["p50 ms"].rounds, strict=True)
    return {
        **its,
        P50_MORE: Figure.by_round(my_ms - its_ms for my_ms, its_ms in more),
        P99_RATIO: mine["p99 ms"].over(its["p99 ms"]),
    }


def quiet_table(results: Sequence[ProgramLatency]) -> Table:
    rows = [Row(result.program.title, quiet(results[0], result)) for result in results]
    return Table(f"A quiet day: {QUIET_PER_S} per second for each", rows)


def notes(results: Sequence[ProgramLatency]) -> list[str]:
    by_title = {
        each.program.title: [one.usage for points in (*each.points.values(), each.quiet) for one in points]
        for each in results
    }
    here = {result.program.name for result in results}
    return [
        *(text for title, usages in by_title.items() for text in doubts(title, usages)),
        *(f"{name} could not be compared." for name in QUIET_PROGRAMS if name not in here),
    ]
