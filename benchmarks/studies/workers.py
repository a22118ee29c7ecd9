"""One worker and two: what sharing costs, what a second one brings, and how evenly two share.

Upstream and load need about a third of the CPU that the service does, and here are two cores in all. So two workers
cannot answer twice as much on this machine, whatever the service does, and no figure here says how it scales beyond it. What can be said:

- Does sharing cost? At one offered rate, open arrivals, CPU of a consultation with one worker and with two.
- What does the second one bring? In closed loops over as many connections, the ratio of what is answered; beside it the most that it could
  be here: two cores, shared by service, upstream and load, divided by the CPU that all three together take for a consultation.
- How evenly do they share? The busier worker's part of the CPU of both; a half would be even. A connection is kept, and stays with the
  worker that took it: the kernel gives a new one to whoever looks first, not to whoever has fewer. So for few connections and for many.

Services and load may run on both cores, the upstream on the second. Both services run all the time, one of them idle. All eight sources
are live, and nobody is cut off or refused, however long it takes. What other programs took of the two cores meanwhile is said beside it:
where it is much, the ratio of what is answered is worth nothing.
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
from benchmarks.lab.lab import Lab
from benchmarks.lab.load import Load, open_load
from benchmarks.lab.load_results import LoadInterval
from benchmarks.lab.no_limits import CONSULT, EACH
from benchmarks.lab.process import cpu_s, pinned, tree
from benchmarks.lab.requests import consultations, check_consultation
from benchmarks.lab.service import Served, start_service
from benchmarks.lab.upstream import LeanUpstream, start_upstream
from benchmarks.results import BarChart, Figure, Finding, Row, Table

WORKERS = (1, 2)
USERS = 1_000
FEW, MANY = 8, 64
WARM_S, QUICK_WARM_S = 0.6, 0.2
INTERVAL_S = 1.2
# Of what one worker answers in a closed loop: nobody waits, and two have nothing to share but the work.
OFFERED = 0.4
# Others' part of a core from which on a ratio of throughputs means little.
OTHERS_LIMIT = 0.1
_CORES = os.cpu_count() or 1
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


class SharedUsage(NamedTuple):
    """One interval. CPU in µs a consultation: the service's own, and with upstream and load. `busier`: see above, 1 for a sole worker.

    `others`: how many cores other programs took.
    """

    cpu_us: float
    all_us: float
    per_s: float
    p99_ms: float
    busier: float
    others: float
    interval: LoadInterval


class WorkersRound(NamedTuple):
    """At the offered rate, and in closed loops over many connections and over few."""

    offered: SharedUsage
    many: SharedUsage
    few: SharedUsage


class WorkerLoad(NamedTuple):
    """Connections to a service with one worker or more."""

    load: Load
    served: Served
    upstream: LeanUpstream

    async def open(self, per_s: float, seconds: float) -> SharedUsage:
        return await self._spent(self.load.open(per_s, seconds))

    async def closed(self, seconds: float) -> SharedUsage:
        return await self._spent(self.load.closed(seconds))

    async def _spent(self, loading: Awaitable[LoadInterval]) -> SharedUsage:
        start_s, machine_s = time.perf_counter(), machine_busy_s()
        before, its_s, mine_s = self._by_worker(), cpu_s(self.upstream.pid), time.process_time()
        interval = await loading
        after, its_s, mine_s = self._by_worker(), cpu_s(self.upstream.pid) - its_s, time.process_time() - mine_s
        machine_s, lasted_s = machine_busy_s() - machine_s, time.perf_counter() - start_s
        used = [after[worker] - before.get(worker, 0.0) for worker in after]
        asked = max(1, interval.statuses.total())
        all_s = sum(used) + its_s + mine_s
        return SharedUsage(
            sum(used) / asked * 1e6,
            all_s / asked * 1e6,
            interval.per_s,
            interval.at(0.99),
            max(used) / max(sum(used), 1e-9),
            max(0.0, machine_s - all_s) / lasted_s,
            interval,
        )

    def _by_worker(self) -> dict[int, float]:
        """CPU of each process of the service, its parent among them, which does next to nothing."""
        processes = tree(self.served.pid)
        used = {pid: cpu_s(pid) for pid in processes[1:]}
        return {processes[0]: cpu_s(processes[0]) - sum(used.values()), **used}


def machine_busy_s() -> float:
    """CPU time of everything that runs here so far, of all cores together, and what the host took from us."""
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
        spent = uvloop.run(measure_rounds(lab, upstream, dict(zip(WORKERS, (one, two), strict=True)), consultations(users)))
    return finding(spent, time.perf_counter() - start_s)


async def measure_rounds(
    lab: Lab, upstream: LeanUpstream, those: Mapping[int, Served], requests: Sequence[bytes]
) -> dict[int, list[WorkersRound]]:
    seconds = lab.seconds(INTERVAL_S)
    spent: dict[int, list[WorkersRound]] = {workers: [] for workers in those}
    async with AsyncExitStack() as opened:

        async def connected(served: Served) -> WorkerLoad:
            load = await opened.enter_async_context(open_load(served.port, requests, connections=MANY, check=check_consultation))
            sharing = WorkerLoad(load, served, upstream)
            await sharing.closed(QUICK_WARM_S if lab.quick else WARM_S)
            return sharing

        many = {workers: await connected(served) for workers, served in those.items()}
        per_s = max(1.0, OFFERED * (await many[WORKERS[0]].closed(seconds)).per_s)
        for turn in range(lab.rounds):
            lab.report(f"workers: round {turn + 1} of {lab.rounds}, {per_s:.0f} a second offered")
            for workers, served in those.items():
                offered, most = await many[workers].open(per_s, seconds), await many[workers].closed(seconds)
                async with open_load(
                    served.port, requests, connections=FEW
                ) as few:  # each round anew: chance decides who takes them
                    spent[workers].append(
                        WorkersRound(offered, most, await WorkerLoad(few, served, upstream).closed(seconds / 2))
                    )
    return spent


def finding(spent: Mapping[int, Sequence[WorkersRound]], seconds: float) -> Finding:
    one, two = (spent[workers] for workers in WORKERS)
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
                        "the most that two cores could give",
                        {"ratio": most},
                        "upstream, load and other programs take their part of them",
                    ),
                ],
            ),
            Table("What each did", [row for workers in WORKERS for row in rows(workers, spent[workers])]),
        ],
        drawings=list(drawings(spent, shares)),
        notes=list(notes(spent, shares)),
    )


def drawings(spent: Mapping[int, Sequence[WorkersRound]], shares: Mapping[str, Figure]) -> Iterator[BarChart]:
    yield BarChart(
        "CPU of a consultation at one offered rate",
        "CPU µs",
        [workers_label(workers) for workers in WORKERS],
        {"service": [figure([each.offered.cpu_us for each in spent[workers]]) for workers in WORKERS]},
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


def rows(workers: int, spent: Sequence[WorkersRound]) -> Iterator[Row]:
    for label, those in (
        ("offered rate", [each.offered for each in spent]),
        (f"closed loop, {MANY} connections", [each.many for each in spent]),
        (f"closed loop, {FEW} connections", [each.few for each in spent]),
    ):
        yield Row(
            f"{workers_label(workers)}, {label}",
            {
                "consultations/s": figure([each.per_s for each in those]),
                "CPU µs": figure([each.cpu_us for each in those]),
                "CPU µs with upstream and load": figure([each.all_us for each in those]),
                "p99 ms": figure([each.p99_ms for each in those]),
                "busier worker": figure([each.busier for each in those]),
                "other programs, cores": figure([each.others for each in those]),
            },
        )


def notes(spent: Mapping[int, Sequence[WorkersRound]], shares: Mapping[str, Figure]) -> Iterator[str]:
    for workers, those in spent.items():
        interval = [interval.interval for each in those for interval in each]
        for said in (unanswered_note(interval), incomplete_note(interval)):
            if said:
                yield f"{workers_label(workers)}: {said}."
    yield "Two cores can show whether a second worker costs anything. They cannot show whether n workers do n times the work of one."
    others = max(interval.others for those in spent.values() for each in those for interval in each)
    if others > OTHERS_LIMIT:
        yield f"Other programs took up to {others:.2f} of a core: how much more two workers answered cannot be believed."
    worst = max(shares.values(), key=lambda each: each.high)
    if worst.high > 0.7:
        yield f"At worst one of the two did {worst.high:.0%} of the work, because it had taken most of the connections."
