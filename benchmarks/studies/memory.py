"""What the service holds in memory: for a consultation in flight, for an idle connection, for a cached answer.

Consultations are held in flight by a source that hangs: the balance service never answers, all others have. Up to 2,000 are begun, and at
each step, once the hanging source has all their calls, the private memory of the service is read from /proc. Before that the same
connections are opened and not used yet. What one of them takes is the slope of the least-squares line through the steps. In the end all
callers go away at once, and it is read again: Python keeps much of a heap that has grown once, for the next time.

So that 2,000 can wait: shedding, limiters, hedges and adaptive timeouts are off, deadline and timeouts are a minute, calls may wait for a
connection in any number, and to the balance service there are up to 4,000, one for each that hangs. A consultation in flight is thus the
caller's request, seven answers, and one call with its connection. The buffers of sockets are the kernel's, and not in the figures.

The cache: as by default, filled by users who come for the first time; each leaves three answers (member, cards, promotions).

Each round has services of its own, because a heap that has grown once does not show what fits into it the second time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from itertools import accumulate
from typing import NamedTuple

import uvloop

from benchmarks.lab.footprint import private_kb
from benchmarks.lab.lab import Lab
from benchmarks.lab.load import Load, open_load
from benchmarks.lab.no_limits import CONSULT, EACH
from benchmarks.lab.process import LOAD_CORE, cpu_s, pinned
from benchmarks.lab.requests import consultations
from benchmarks.lab.service import Served, start_service
from benchmarks.lab.trend import slope
from benchmarks.lab.upstream import LeanUpstream, start_upstream
from benchmarks.lab.upstream_control import Behaviour
from benchmarks.results import Figure, Finding, Line, LineChart, Row, Table
from cashier.consultation.plan import SOURCE_NAMES

# Held in flight, step by step; each step is a group of connections of its own.
STEPS, QUICK_STEPS = (250, 250, 500, 1_000), (25, 50)
ROUNDS = 3
USERS = 3_000
WARM_USERS = 200
WARM_S, QUICK_WARM_S = 0.6, 0.2
# The longest that a step may take.
STEP_S = 15.0
CACHE_INTERVAL_S, CACHE_INTERVALS = 0.4, 4
# Answers that a new user leaves in the cache.
ENTRIES = 3
HANGING = "balance"
# A burst of so many connects takes its time.
POOLS = {
    **dict.fromkeys(SOURCE_NAMES, "queue = 4000"),
    HANGING: "connections = 4000\nqueue = 4000\nconnect_timeout_ms = 50000",
}
WIDE = "".join(f"\n[sources.{name}.http1]\n{pool}\n" for name, pool in POOLS.items())

Points = list[tuple[float, float]]


class InFlightMemory(NamedTuple):
    """One round: kB by how many there are. `early`: so many of those that were held ended before the last step was read.

    `after_kb`: when all have gone.
    """

    connections: Points
    in_flight: Points
    early: int
    after_kb: float


class MemoryRound(NamedTuple):
    """`cached`: kB by answers in the cache."""

    held: InFlightMemory
    cached: Points


def measure(lab: Lab) -> Finding:
    start_s = time.perf_counter()
    users = lab.count(USERS)
    rounds = []
    with pinned(LOAD_CORE), start_upstream(lab, users=users) as upstream:
        requests = consultations(users)
        warm, fresh = requests[: min(WARM_USERS, users // 2)], requests[min(WARM_USERS, users // 2) :]
        for turn in range(min(lab.rounds, ROUNDS)):
            lab.report(f"memory: round {turn + 1} of {min(lab.rounds, ROUNDS)}")
            with start_service(lab, upstream.urls, each=f"{EACH}\nhedge = false", other=CONSULT + WIDE) as served:
                holding = uvloop.run(hold_in_flight(lab, served, upstream, warm))
            with start_service(lab, upstream.urls, cached=True) as served:
                cached = uvloop.run(fill_cache(lab, served, warm, fresh))
            rounds.append(MemoryRound(holding, cached))
    return finding(rounds, time.perf_counter() - start_s)


async def hold_in_flight(lab: Lab, served: Served, upstream: LeanUpstream, requests: Sequence[bytes]) -> InFlightMemory:
    steps = QUICK_STEPS if lab.quick else STEPS
    await warm_up(lab, served, requests)
    async with AsyncExitStack() as opened:
        loads = [
            await opened.enter_async_context(open_load(served.port, requests, connections=step, seed=step))
            for step in steps
        ]
        connections = [(0.0, await settled_kb(served.pid))]
        for load, count in zip(loads, accumulate(steps), strict=True):
            await load.arrive(1.0, 0.0)  # nobody arrives, but they are connected
            connections.append((float(count), await settled_kb(served.pid)))
        upstream.behave(Behaviour(hanging=(HANGING,)))
        in_flight = [(0.0, connections[-1][1])]
        waiting = []
        for load, count in zip(loads, accumulate(steps), strict=True):
            waiting.append(asyncio.create_task(load.closed(0.0)))  # one request on each, that nobody answers
            await await_hanging(upstream, loads, count)
            in_flight.append((float(count), await settled_kb(served.pid)))
        early = count_ended(loads)
        for each in waiting:
            each.cancel()
    upstream.behave(Behaviour())
    await asyncio.sleep(0.2)  # until the service has seen that they have gone
    return InFlightMemory(connections, in_flight, early, await settled_kb(served.pid))


async def fill_cache(lab: Lab, served: Served, warm: Sequence[bytes], fresh: Sequence[bytes]) -> Points:
    """By answers in the cache beyond those of the warm-up."""
    await warm_up(lab, served, warm)
    points = [(0.0, await settled_kb(served.pid))]
    users = 0
    async with open_load(served.port, fresh) as load:
        for _ in range(CACHE_INTERVALS):
            users += (await load.closed(lab.seconds(CACHE_INTERVAL_S) / (10 if lab.quick else 1))).answered
            if users > len(fresh):  # they come back, and leave nothing new
                break
            points.append((float(users * ENTRIES), await settled_kb(served.pid)))
    return points


async def warm_up(lab: Lab, served: Served, requests: Sequence[bytes]) -> None:
    async with open_load(served.port, requests) as load:
        await load.closed(QUICK_WARM_S if lab.quick else WARM_S)
    await asyncio.sleep(0.3)  # until what the warm-up alone needed has been given back


async def await_hanging(upstream: LeanUpstream, loads: Sequence[Load], count: int) -> None:
    """Until so many calls hang, or their consultations have ended without. Raises `TimeoutError` where they do neither."""
    until_s = time.perf_counter() + STEP_S
    while (calls := upstream.seen().calls.get(HANGING, 0)) + count_ended(loads) < count:
        if time.perf_counter() > until_s:
            raise TimeoutError(
                f"{calls:,} of {count:,} consultations had come as far as the source that hangs after {STEP_S:.0f} s"
            )
        await asyncio.sleep(0.05)


def count_ended(loads: Sequence[Load]) -> int:
    return sum(each.interval.statuses.total() for each in loads)


async def settled_kb(pid: int) -> float:
    """Once it has nothing to do any more."""
    before_s = -1.0
    until_s = time.perf_counter() + 1.0
    while (now_s := cpu_s(pid)) != before_s and time.perf_counter() < until_s:
        before_s = now_s
        await asyncio.sleep(0.06)
    return private_kb(pid)


def finding(rounds: Sequence[MemoryRound], seconds: float) -> Finding:
    in_flight = Figure.of(*(slope(each.held.in_flight) for each in rounds))
    connection = Figure.of(*(slope(each.held.connections) for each in rounds))
    entry = Figure.of(*(slope(each.cached) for each in rounds if len(each.cached) > 1))
    kb = {"a consultation in flight": in_flight, "an idle connection": connection, "a cached answer": entry}
    at_rest = Figure.of(*(each.held.connections[0][1] / 1_000 for each in rounds))
    return Finding(
        "memory",
        "What the service holds in memory",
        (__doc__ or "").strip(),
        seconds,
        key={
            "memory.kb_per_in_flight": in_flight,
            "memory.kb_per_connection": connection,
            "memory.kb_per_entry": entry,
            "memory.mb_at_rest": at_rest,
        },
        tables=[
            Table("Memory of one more", [Row(name, {"kB": each}) for name, each in kb.items() if each.rounds]),
            Table("Private memory of the service", list(rows([each.held for each in rounds]))),
        ],
        drawings=[
            LineChart(
                "Private memory of the service",
                "how many",
                "MB",
                [
                    Line("consultations in flight", megabytes([each.held.in_flight for each in rounds]), ours=True),
                    Line("idle connections", megabytes([each.held.connections for each in rounds])),
                ],
            )
        ],
        notes=list(notes(rounds)),
    )


def megabytes(rounds: Sequence[Points]) -> list[tuple[float, Figure]]:
    return [(steps[0][0], Figure.of(*(kb / 1_000 for _, kb in steps))) for steps in zip(*rounds, strict=True)]


def rows(rounds: Sequence[InFlightMemory]) -> Iterator[Row]:
    (_, at_rest), *connected = megabytes([each.connections for each in rounds])
    yield Row("after its warm-up", {"MB": at_rest})
    for count, figure in connected:
        yield Row(f"{count:,.0f} connections, idle", {"MB": figure})
    for count, figure in megabytes([each.in_flight for each in rounds])[1:]:
        yield Row(f"the same, with {count:,.0f} consultations in flight", {"MB": figure})
    yield Row("when all have gone", {"MB": Figure.of(*(each.after_kb / 1_000 for each in rounds))})


def notes(rounds: Sequence[MemoryRound]) -> Iterator[str]:
    if early := sum(each.held.early for each in rounds):
        yield f"{early:,} ended before the last step was read, because their call failed: less was in flight than the rows say."
    if few := sum(len(each.cached) < 2 for each in rounds):
        yield f"The cache: no figure in {few} of {len(rounds)} rounds, users came back too soon."
