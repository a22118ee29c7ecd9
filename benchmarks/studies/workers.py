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
  connection stays with its worker, and the kernel gives a new one to the first worker that accepts,
  not to the one with the fewest. So for few connections and for many.

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

from benchmarks.lab.cpu_usage import incomplete_note, unanswered_note
from benchmarks.lab.load import Load, open_load
from benchmarks.lab.load_results import LoadInterval
from benchmarks.lab.no_limits import CONSULT, EACH
from benchmarks.lab.process import cpu_s, pinned, tree
from benchmarks.lab.requests import check_consultation, consultations
from benchmarks.lab.service import Served, start_service
from benchmarks.lab.study_run import Lab
from benchmarks.lab.upstream import LeanUpstream, start_upstream
from benchmarks.results import BarChart, Figure, Finding, Row, Table

WORKERS = (1, 2)
USERS = 1_000
FEW, MANY = 8, 64
WARM_S, QUICK_WARM_S = 0.6, 0.2
INTERVAL_S = 1.2
# Share of the closed-loop throughput of one worker: nothing queues.
OFFERED = 0.4
# Part of a core taken by others above which a ratio of throughputs means little.
OTHERS_LIMIT = 0.1
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


class WorkerLoad(NamedTuple):
    """Load on a service with one worker or two."""

    load: Load
    served: Served
    upstream: LeanUpstream

    async def open(self, per_s: float, seconds: float) -> SharedUsage:
        return await self._usage(self.load.open(per_s, seconds))

    async def closed(self, seconds: float) -> SharedUsage:
        return await self._usage(self.load.closed(seconds))

    async def _usage(self, loading: Awaitable[LoadInterval]) -> SharedUsage:
        start_s, machine_s = time.perf_counter(), machine_busy_s()
        before, upstream_cpu_s, load_cpu_s = self._by_worker(), cpu_s(self.upstream.pid), time.process_time()
        interval = await loading
        after = self._by_worker()
        upstream_cpu_s, load_cpu_s = cpu_s(self.upstream.pid) - upstream_cpu_s, time.process_time() - load_cpu_s
        machine_s, lasted_s = machine_busy_s() - machine_s, time.perf_counter() - start_s
        used = [after[worker] - before.get(worker, 0.0) for worker in after]
        requests = max(1, interval.statuses.total())
        all_s = sum(used) + upstream_cpu_s + load_cpu_s
        return SharedUsage(
            sum(used) / requests * 1e6,
            all_s / requests * 1e6,
            interval.per_s,
            interval.at(0.99),
            max(used) / max(sum(used), 1e-9),
            max(0.0, machine_s - all_s) / lasted_s,
            interval,
        )

    def _by_worker(self) -> dict[int, float]:
        """CPU of each process of the service, including its nearly idle parent."""
        processes = tree(self.served.pid)
        used = {pid: cpu_s(pid) for pid in processes[1:]}
        return {processes[0]: cpu_s(processes[0]) - sum(used.values()), **used}


def machine_busy_s() -> float:
    """CPU time of all cores since boot, including the time stolen by the host."""
    user, nice, system, _idle, _waiting, *rest = (
        int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    )
    return (user + nice + system + sum(rest)) * _TICK_S


def measure(lab: Lab) -> Finding:
    start_s = time.perf_counter()
    users = lab.count(USERS)
    with (
        pinned(None),
        start_upstream(lab, users=users) as upstream,
        start_service(lab, upstream.urls, each=EACH, other=CONSULT, core=None) as one,
        start_service(lab, upstream.urls, each=EACH, other=CONSULT, core=None, workers=2) as two,
    ):
        rounds_by_workers = uvloop.run(
            measure_rounds(lab, upstream, dict(zip(WORKERS, (one, two), strict=True)), consultations(users))
        )
    return finding(rounds_by_workers, time.perf_counter() - start_s)


async def measure_rounds(
    lab: Lab, upstream: LeanUpstream, services: Mapping[int, Served], requests: Sequence[bytes]
) -> dict[int, list[WorkersRound]]:
    seconds = lab.seconds(INTERVAL_S)
    rounds_by_workers: dict[int, list[WorkersRound]] = {workers: [] for workers in services}
    async with AsyncExitStack() as opened:

        async def connected(served: Served) -> WorkerLoad:
            load = await opened.enter_async_context(
                open_load(served.port, requests, connections=MANY, check=check_consultation)
            )
            sharing = WorkerLoad(load, served, upstream)
            await sharing.closed(QUICK_WARM_S if lab.quick else WARM_S)
            return sharing

        many = {workers: await connected(served) for workers, served in services.items()}
        per_s = max(1.0, OFFERED * (await many[WORKERS[0]].closed(seconds)).per_s)
        for turn in range(lab.rounds):
            lab.report(f"workers: round {turn + 1} of {lab.rounds}, {per_s:.0f} a second offered")
            for workers, served in services.items():
                offered, most = await many[workers].open(per_s, seconds), await many[workers].closed(seconds)
                # Reconnected in each round, because the assignment to workers is random.
                async with open_load(served.port, requests, connections=FEW) as few:
                    rounds_by_workers[workers].append(
                        WorkersRound(offered, most, await WorkerLoad(few, served, upstream).closed(seconds / 2))
                    )
    return rounds_by_workers


def finding(rounds_by_workers: Mapping[int, Sequence[WorkersRound]], seconds: float) -> Finding:
    one, two = (rounds_by_workers[workers] for workers in WORKERS)
    cost = figure([each.offered.cpu_us for each in two]).over(figure([each.offered.cpu_us for each in one]))
    brought = figure([each.many.per_s for each in two]).over(figure([each.many.per_s for each in one]))
    most = figure(
        [
            (_CORES - after.many.others) * 1e6 / after.many.all_us / before.many.per_s
            for before, after in zip(one, two, strict=True)
        ]
    )
    busier = {"offered": "offered", "closed, many": "many", "closed, few": "few"}
    shares = {label: figure([getattr(each, name).busier for each in two]) for label, name in busier.items()}
    return Finding(
        "workers",
        "One worker and two",
        (__doc__ or "").strip(),
        seconds,
        key={
            "workers.cpu_ratio": cost,
            "workers.throughput_ratio": brought,
            "workers.throughput_ratio_most": most,
            "workers.busier": shares["closed, many"],
            "workers.busier_few": shares["closed, few"],
        },
        tables=[
            Table(
                "Two workers beside one",
                [
                    Row("CPU of a consultation, same offered rate", {"ratio": cost}),
                    Row("answered in a closed loop", {"ratio": brought}, f"{MANY} connections"),
                    Row(
                        "the maximum on two cores",
                        {"ratio": most},
                        "upstream, load and other programs take a part of them",
                    ),
                ],
            ),
            Table("Each interval", [row for workers in WORKERS for row in rows(workers, rounds_by_workers[workers])]),
        ],
        drawings=list(drawings(rounds_by_workers, shares)),
        notes=list(notes(rounds_by_workers, shares)),
    )


def drawings(
    rounds_by_workers: Mapping[int, Sequence[WorkersRound]], shares: Mapping[str, Figure]
) -> Iterator[BarChart]:
    yield BarChart(
        "CPU of a consultation at one offered rate",
        "CPU µs",
        [workers_label(workers) for workers in WORKERS],
        {"service": [figure([each.offered.cpu_us for each in rounds_by_workers[workers]]) for workers in WORKERS]},
        ours=[workers_label(WORKERS[-1])],
    )
    yield BarChart(
        "How two workers share: part of the busier one",
        "part of the work",
        list(shares),
        {"busier worker": list(shares.values())},
        marks={"even": 0.5},
    )


def figure(values: Sequence[float]) -> Figure:
    return Figure.of(*values)


def workers_label(workers: int) -> str:
    return "one worker" if workers == 1 else "two workers"


def rows(workers: int, rounds: Sequence[WorkersRound]) -> Iterator[Row]:
    for label, usages in (
        ("offered rate", [each.offered for each in rounds]),
        (f"closed loop, {MANY} connections", [each.many for each in rounds]),
        (f"closed loop, {FEW} connections", [each.few for each in rounds]),
    ):
        yield Row(
            f"{workers_label(workers)}, {label}",
            {
                "consultations/s": figure([each.per_s for each in usages]),
                "CPU µs": figure([each.cpu_us for each in usages]),
                "CPU µs with upstream and load": figure([each.all_us for each in usages]),
                "p99 ms": figure([each.p99_ms for each in usages]),
                "busier worker": figure([each.busier for each in usages]),
                "other programs, cores": figure([each.others for each in usages]),
            },
        )


def notes(rounds_by_workers: Mapping[int, Sequence[WorkersRound]], shares: Mapping[str, Figure]) -> Iterator[str]:
    for workers, rounds in rounds_by_workers.items():
        intervals = [usage.interval for each in rounds for usage in each]
        for note in (unanswered_note(intervals), incomplete_note(intervals)):
            if note:
                yield f"{workers_label(workers)}: {note}."
    yield (
        "Two cores can show whether a second worker costs anything, but not whether n workers do n times the work of "
        "one."
    )
    others = max(usage.others for rounds in rounds_by_workers.values() for each in rounds for usage in each)
    if others > OTHERS_LIMIT:
        yield f"Other programs took up to {others:.2f} of a core: the ratio of answered consultations is not reliable."
    worst = max(shares.values(), key=lambda each: each.high)
    if worst.high > 0.7:
        yield (
            f"At worst one of the two did {worst.high:.0%} of the work, because it had accepted most of the "
            "connections."
        )
