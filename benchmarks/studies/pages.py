"""The price of the pages: CPU of one page, weight, and what busy pages do to consultations.

CPU: a checkout, and one update of it, less the consultation that each of them makes, which is
measured as `/v1/consult` of the same orders. Closed loops, in slices one after another.

Busy pages: `/v1/consult` in open arrivals at a quarter of the service's core, alone; with payers on
the pages; and, instead of them, with as many more consultations as cost the same CPU, because any
work on the core delays the rest of it. Each payer loads a checkout and follows its updates to their
end, on connections of their own; every fourth has a QR code drawn. Rounds interleave. Sources take
5 ms, the slowest 25.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import NamedTuple

import uvloop

from benchmarks.lab import Lab
from benchmarks.lab.cpu_usage import CpuUsage, doubts, measure_cpu
from benchmarks.lab.load import Load, open_load
from benchmarks.lab.load_results import LoadInterval
from benchmarks.lab.payers import UPDATE, OpenPage, Visitors, open_checkouts, open_tills, weights
from benchmarks.lab.process import LOAD_CORE, exact_cpu_s, pinned
from benchmarks.lab.requests import check_consultation, consultations
from benchmarks.lab.service import Served, start_service
from benchmarks.lab.upstream import SOURCE_NAMES, Behaviour, LeanUpstream, start_upstream
from benchmarks.results import Columns, Figure, Finding, Row, Table, figures

USERS = 400
# Each has a code that is drawn once.
MERCHANTS = 400
SLICES, SLICE_S = 8, 0.25
INTERVAL_S = 8.0
CONNECTIONS, WIDTH = 128, 16
SLOWEST = "balance"
BEHAVIOUR = Behaviour({**dict.fromkeys(SOURCE_NAMES, 5.0), SLOWEST: 25.0})
# Of the core, for consultations; and the payers beside them.
SHARE = 0.25
PAYERS_PER_S = 20.0
CONSULTATION, CHECKOUT, CHANGE = "consultation", "checkout", "update of a checkout"
ALONE, BUSY, INSTEAD = "alone", "with pages busy", "with as much CPU of consultations instead"


class Costs(NamedTuple):
    """CPU in µs of one request, in one round."""

    by_request: dict[str, float]

    def beyond(self, request: str) -> float:
        return self.by_request[request] - self.by_request[CONSULTATION]


class Interval(NamedTuple):
    """Consultations of one interval, and the payers beside them."""

    usage: CpuUsage
    payers: int
    unanswered: int

    def at(self, quantile: float) -> float:
        return self.usage.interval.at(quantile)


COLUMNS: Columns[Interval] = {
    "p50 ms": lambda each: each.at(0.5),
    "p99 ms": lambda each: each.at(0.99),
    "p99.9 ms": lambda each: each.at(0.999),
    "consultations a second": lambda each: each.usage.interval.per_s,
    "payers a second": lambda each: each.payers / each.usage.interval.seconds,
    "program busy %": lambda each: 100 * each.usage.program_busy,
    "others on its core %": lambda each: 100 * each.usage.others_busy,
    "load and upstream busy %": lambda each: 100 * each.usage.load_core_busy,
}


def measure(lab: Lab) -> Finding:
    users, merchants = lab.count(USERS), [f"m_code_{number}" for number in range(lab.count(MERCHANTS))]
    with (
        pinned(LOAD_CORE),
        start_upstream(lab, users=users, behaviour=BEHAVIOUR) as upstream,
        start_service(lab, upstream.urls, other=settings(upstream, merchants)) as served,
    ):
        checkouts, tills = open_checkouts(served.port, users), open_tills(served.port, merchants)
        bytes_by_part = weights(served.port, checkouts[0])
        return finding(*uvloop.run(measure_service(lab, served, upstream, checkouts, tills)), bytes_by_part)


def settings(upstream: LeanUpstream, merchants: Sequence[str]) -> str:
    """Pages need payments, which nobody makes here, and tills need somebody who creates orders."""
    url = upstream.urls[SLOWEST]
    services = "".join(f'[sources.{name}]\nurl = "{url}"\n' for name in ("risk", "engine", "acquirer"))
    codes = "".join(f'[pages.codes.{each}]\nname = "Shop"\ncurrency = "CNY"\n' for each in merchants)
    return f'{services}[pages]\nenabled = true\norder_url = "{url}/orders"\n{codes}'


async def measure_service(
    lab: Lab, served: Served, upstream: LeanUpstream, checkouts: Sequence[OpenPage], tills: Sequence[OpenPage]
) -> tuple[list[Costs], dict[str, list[Interval]]]:
    requests = {
        CONSULTATION: consultations(len(checkouts)),
        CHECKOUT: [page.request() for page in checkouts],
        CHANGE: [page.request(below="/methods", accept=UPDATE) for page in checkouts],
    }
    checks = {CONSULTATION: check_consultation}
    async with AsyncExitStack() as opened:
        loads = {
            name: await opened.enter_async_context(
                open_load(served.port, each, connections=CONNECTIONS, check=checks.get(name))
            )
            for name, each in requests.items()
        }
        costs = [await measure_costs(lab, loads, served.pid) for _ in lab.turns("cost of a page")]
        by_request = {name: Figure.by_round(each.by_request[name] for each in costs).median for name in loads}
        visitors = Visitors(served.port, checkouts, tills)
        by_arm = await measure_busy(lab, loads[CONSULTATION], visitors, by_request, served.pid, upstream.pid)
    return costs, by_arm


async def measure_costs(lab: Lab, loads: dict[str, Load], pid: int) -> Costs:
    """The first slice of each warms it up."""
    used_s, answered = dict.fromkeys(loads, 0.0), dict.fromkeys(loads, 0)
    for turn in range(SLICES + 1):
        for name, load in loads.items():
            before_s = exact_cpu_s(pid)
            interval = await load.closed(lab.seconds(SLICE_S), width=WIDTH)
            if turn:
                used_s[name] += exact_cpu_s(pid) - before_s
                answered[name] += interval.answered
    return Costs({name: used_s[name] / max(1, answered[name]) * 1e6 for name in loads})


async def measure_busy(
    lab: Lab, load: Load, visitors: Visitors, cpu_us: dict[str, float], pid: int, upstream: int
) -> dict[str, list[Interval]]:
    per_s = SHARE / cpu_us[CONSULTATION] * 1e6
    instead_per_s = per_s + PAYERS_PER_S * (cpu_us[CHECKOUT] + cpu_us[CHANGE]) / cpu_us[CONSULTATION]
    arms = {ALONE: (per_s, 0.0), BUSY: (per_s, PAYERS_PER_S), INSTEAD: (instead_per_s, 0.0)}
    found: dict[str, list[Interval]] = {name: [] for name in arms}
    await load.open(per_s, lab.seconds(1.0))
    for turn in lab.turns(f"{per_s:,.0f} consultations a second, {PAYERS_PER_S:g} payers"):
        for name in list(arms)[:: -1 if turn % 2 else 1]:
            rate_per_s, payers_per_s = arms[name]
            payers, unanswered = visitors.payers, visitors.unanswered
            run = beside(lab, load, visitors, rate_per_s, payers_per_s)
            usage = await measure_cpu(run, pid, upstream)
            found[name].append(Interval(usage, visitors.payers - payers, visitors.unanswered - unanswered))
    return found


async def beside(lab: Lab, load: Load, visitors: Visitors, per_s: float, payers_per_s: float) -> LoadInterval:
    seconds = lab.seconds(INTERVAL_S)
    if not payers_per_s:
        return await load.open(per_s, seconds)
    interval, _ = await asyncio.gather(load.open(per_s, seconds), visitors.arrive(payers_per_s, seconds))
    return interval


def finding(costs: Sequence[Costs], by_arm: dict[str, list[Interval]], bytes_by_part: dict[str, int]) -> Finding:
    cost_rows = {name: figures(costs, cost_columns(name)) for name in (CONSULTATION, CHECKOUT, CHANGE)}
    busy = {name: figures(intervals, COLUMNS) for name, intervals in by_arm.items()}
    kib = {name: Figure.of(size / 1024) for name, size in bytes_by_part.items()}
    kib["together"] = Figure.of(sum(bytes_by_part.values()) / 1024)
    return Finding(
        "The price of the pages",
        key={
            "pages.checkout_us": cost_rows[CHECKOUT]["beyond the consultation µs"],
            "pages.update_us": cost_rows[CHANGE]["beyond the consultation µs"],
            "pages.p50_ratio": busy[BUSY]["p50 ms"].over(busy[ALONE]["p50 ms"]),
            "pages.p99_ratio": busy[BUSY]["p99 ms"].over(busy[ALONE]["p99 ms"]),
            "pages.p99_ratio_instead": busy[INSTEAD]["p99 ms"].over(busy[ALONE]["p99 ms"]),
            "pages.kib": kib["together"],
        },
        tables=[
            Table("CPU of one request", [Row(name, columns) for name, columns in cost_rows.items()]),
            Table("Consultations beside the pages", [Row(name, columns) for name, columns in busy.items()]),
            Table("Weight in gzip", [Row(name, {"KiB": figure}) for name, figure in kib.items()]),
        ],
        notes=notes(by_arm),
    )


def cost_columns(request: str) -> Columns[Costs]:
    return {
        "CPU µs": lambda each: each.by_request[request],
        "beyond the consultation µs": lambda each: each.beyond(request),
    }


def notes(by_arm: dict[str, list[Interval]]) -> list[str]:
    unanswered = sum(each.unanswered for intervals in by_arm.values() for each in intervals)
    return [
        *(text for name, intervals in by_arm.items() for text in doubts(name, [each.usage for each in intervals])),
        *([f"{unanswered:,} pages, streams or codes were not answered with 200."] if unanswered else []),
    ]
