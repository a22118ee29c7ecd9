"""One worker and two: the cost of sharing, the gain of a second one, and how evenly two share.

Upstream and load need about a third of the service's CPU, and this machine has two cores in all. So
two workers cannot answer twice as much here, and no figure here says how the service scales beyond
it. The study answers:

- Does sharing cost? CPU of a consultation with one worker and with two, at one offered rate of open
  arrivals.
- What does the second one bring? The ratio of answered consultations in closed loops over the same
  connections; beside it the maximum here: two cores, shared by service, upstream and load, divided
  by the CPU of all three per consultation.
- How evenly do they share? The busier worker's part of the CPU of both; a half is even. A kept
  connection stays with its worker. So for few connections and for many.

Services and load may run on both cores, the upstream on the second. Both services run all the time,
one of them idle. All eight sources are live, without time limits or refusals. A figure shows what
other programs took of the two cores: if that is much, the ratio of answered consultations means
nothing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import NamedTuple

import uvloop

from benchmarks.lab import Lab
from benchmarks.lab.cpu_usage import OTHERS_LIMIT, interval_doubts
from benchmarks.lab.load import open_load
from benchmarks.lab.load_results import LoadInterval
from benchmarks.lab.process import cpu_s, pinned, tree
from benchmarks.lab.requests import check_consultation, consultations
from benchmarks.lab.service import CONSULT, EACH, Served, start_service
from benchmarks.lab.upstream import LeanUpstream, start_upstream
from benchmarks.results import BarChart, Columns, Figure, Finding, Row, Table, figures

WORKERS = (1, 2)
TITLES = {1: "one worker", 2: "two workers"}
USERS = 1_000
FEW, MANY = 8, 64
WARM_S, QUICK_WARM_S = 0.6, 0.2
INTERVAL_S = 1.2
# Share of the closed-loop throughput of one worker: nothing queues.
OFFERED = 0.4
_CORES = os.cpu_count() or 1
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


class SharedUsage(NamedTuple):
    """One interval. `cpu_us`: of the service, `all_us`: with upstream and load, per consultation.

    `busier`: part of the busier worker, 1 for a sole one. `others`: cores taken by other programs.
    """

    cpu_us: float
    all_us: float
    per_s: float
    p99_ms: float
    busier: float
    others: float
    interval: LoadInterval


class WorkersRound(NamedTuple):
    """At the offered rate, and in closed loops over many and over few connections."""

    offered: SharedUsage
    many: SharedUsage
    few: SharedUsage


async def measure_usage(loading: Awaitable[LoadInterval], served: Served, upstream: LeanUpstream) -> SharedUsage:
    def clocks() -> tuple[float, ...]:
        return time.perf_counter(), machine_busy_s(), cpu_s(upstream.pid), time.process_time()

    before, start = by_worker(served.pid), clocks()
    interval = await loading
    after, ended = by_worker(served.pid), clocks()
    lasted_s, machine_s, *lab_s = (now - then for now, then in zip(ended, start, strict=True))
    used = [after[worker] - before.get(worker, 0.0) for worker in after]
    requests, all_s = max(1, interval.statuses.total()), sum(used) + sum(lab_s)
    return SharedUsage(
        sum(used) / requests * 1e6,
        all_s / requests * 1e6,
        interval.per_s,
        interval.at(0.99),
        max(used) / max(sum(used), 1e-9),
        max(0.0, machine_s - all_s) / lasted_s,
        interval,
    )


def by_worker(pid: int) -> dict[int, float]:
    """CPU of each process of the service, including its nearly idle parent."""
    parent, *workers = tree(pid)
    used = {worker: cpu_s(worker) for worker in workers}
    return {parent: cpu_s(parent) - sum(used.values()), **used}


def machine_busy_s() -> float:
    """CPU time of all cores since boot, including the time stolen by the host."""
    line = Path("/proc/stat").read_text().partition("\n")[0]
    user, nice, system, _idle, _waiting, *rest = (int(field) for field in line.split()[1:9])
    return (user + nice + system + sum(rest)) * _TICK_S


COLUMNS: Columns[SharedUsage] = {
    "consultations/s": lambda each: each.per_s,
    "CPU µs": lambda each: each.cpu_us,
    "CPU µs with upstream and load": lambda each: each.all_us,
    "p99 ms": lambda each: each.p99_ms,
    "busier worker": lambda each: each.busier,
    "other programs, cores": lambda each: each.others,
}
# The rows of each number of workers, and the place of their intervals in a round.
INTERVALS = ("offered rate", f"closed loop, {MANY} connections", f"closed loop, {FEW} connections")


def measure(lab: Lab) -> Finding:
    users = lab.count(USERS)
    with (
        pinned(None),
        start_upstream(lab, users=users) as upstream,
        start_service(lab, upstream.urls, each=EACH, other=CONSULT, core=None) as one,
        start_service(lab, upstream.urls, each=EACH, other=CONSULT, core=None, workers=2) as two,
    ):
        return finding(uvloop.run(measure_rounds(lab, upstream, {1: one, 2: two}, consultations(users))))


async def measure_rounds(
    lab: Lab, upstream: LeanUpstream, services: Mapping[int, Served], requests: Sequence[bytes]
) -> dict[int, list[WorkersRound]]:
    seconds = lab.seconds(INTERVAL_S)
    rounds_by_workers: dict[int, list[WorkersRound]] = {workers: [] for workers in services}
    async with AsyncExitStack() as opened:
        loads = {
            workers: await opened.enter_async_context(
                open_load(served.port, requests, connections=MANY, check=check_consultation)
            )
            for workers, served in services.items()
        }
        for load in loads.values():
            await load.closed(QUICK_WARM_S if lab.quick else WARM_S)
        per_s = max(1.0, OFFERED * (await loads[1].closed(seconds)).per_s)
        for _ in lab.turns(f"workers, {per_s:.0f} a second offered"):
            for workers, served in services.items():
                offered = await measure_usage(loads[workers].open(per_s, seconds), served, upstream)
                many = await measure_usage(loads[workers].closed(seconds), served, upstream)
                # Reconnected in each round, because the assignment to workers is random.
                async with open_load(served.port, requests, connections=FEW) as load:
                    few = await measure_usage(load.closed(seconds / 2), served, upstream)
                rounds_by_workers[workers].append(WorkersRound(offered, many, few))
    return rounds_by_workers


def finding(rounds_by_workers: Mapping[int, Sequence[WorkersRound]]) -> Finding:
    one, two = (
        [figures([each[place] for each in rounds_by_workers[workers]], COLUMNS) for place in range(len(INTERVALS))]
        for workers in WORKERS
    )
    cost = two[0]["CPU µs"].over(one[0]["CPU µs"])
    brought = two[1]["consultations/s"].over(one[1]["consultations/s"])
    most = Figure.by_round(
        (_CORES - after.many.others) * 1e6 / after.many.all_us / before.many.per_s
        for before, after in zip(rounds_by_workers[1], rounds_by_workers[2], strict=True)
    )
    names = ("offered", "closed, many", "closed, few")
    shares = {name: each["busier worker"] for name, each in zip(names, two, strict=True)}
    cpu_us = {"service": [one[0]["CPU µs"], two[0]["CPU µs"]]}
    ratios = [
        Row("CPU of a consultation, same offered rate", {"ratio": cost}),
        Row("answered in a closed loop", {"ratio": brought}, f"{MANY} connections"),
        Row("the maximum on two cores", {"ratio": most}, "upstream, load and other programs take a part of them"),
    ]
    rows = [
        Row(f"{TITLES[workers]}, {label}", each)
        for workers, intervals in zip(WORKERS, (one, two), strict=True)
        for label, each in zip(INTERVALS, intervals, strict=True)
    ]
    cpu_title, share_title = (
        "CPU of a consultation at one offered rate",
        "How two workers share: part of the busier one",
    )
    busier = {"busier worker": list(shares.values())}
    return Finding(
        "One worker and two",
        key={
            "workers.cpu_ratio": cost,
            "workers.throughput_ratio": brought,
            "workers.throughput_ratio_most": most,
            "workers.busier": shares["closed, many"],
            "workers.busier_few": shares["closed, few"],
        },
        tables=[Table("Two workers beside one", ratios), Table("Each interval", rows)],
        drawings=[
            BarChart(cpu_title, "CPU µs", [*TITLES.values()], cpu_us, ours=[TITLES[2]]),
            BarChart(share_title, "part of the work", list(shares), busier, marks={"even": 0.5}),
        ],
        notes=list(notes(rounds_by_workers, shares)),
    )


def notes(rounds_by_workers: Mapping[int, Sequence[WorkersRound]], shares: Mapping[str, Figure]) -> Iterator[str]:
    for workers, rounds in rounds_by_workers.items():
        yield from interval_doubts(TITLES[workers], [usage.interval for each in rounds for usage in each])
    yield (
        "Two cores can show whether a second worker costs anything, but not whether n workers do n times the work of "
        "one."
    )
    others = max(usage.others for rounds in rounds_by_workers.values() for each in rounds for usage in each)
    if others > OTHERS_LIMIT:
        yield f"Other programs took up to {others:.2f} of a core: the ratio of answered consultations is not reliable."
    worst = max(each.high for each in shares.values())
    if worst > 0.7:
        yield f"At worst one of the two did {worst:.0%} of the work, because it had accepted most of the connections."
