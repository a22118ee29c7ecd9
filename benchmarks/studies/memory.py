"""Memory of the service: for a consultation in flight, an idle connection, a cached answer.

Consultations are held in flight by a source that hangs: the balance service never answers, all
others have answered. Up to 2,000 are started in steps. At each step, once the hanging source has
all their calls, the private memory of the service is read from /proc. Before that the same
connections are opened without a request. The figure for one is the slope of the least-squares line
through the steps. At the end all callers disconnect at once, and memory is read again: Python keeps
much of a heap that has grown.

So that 2,000 can wait, load shedding, limiters, hedges and adaptive timeouts are off, deadline and
timeouts are a minute, any number of calls may wait for a connection, and the balance service may
have up to 4,000 connections. A consultation in flight is thus the caller's request, seven answers,
and one call with its connection. Socket buffers are the kernel's and not included.

The cache: as by default, filled by new users; each leaves three answers (member, cards,
promotions).

Each round starts new services, because a heap that has grown once hides later growth.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from itertools import accumulate
from typing import NamedTuple

import uvloop

from benchmarks.lab import Lab
from benchmarks.lab.load import Load, open_load
from benchmarks.lab.process import LOAD_CORE, cpu_s, pinned
from benchmarks.lab.process_resources import private_kb
from benchmarks.lab.requests import consultations
from benchmarks.lab.service import CONSULT, EACH, Served, start_service
from benchmarks.lab.upstream import SOURCE_NAMES, Behaviour, LeanUpstream, start_upstream
from benchmarks.results import Figure, Finding, Line, LineChart, Row, Table, slope

# Held in flight, step by step. Each step is a group of connections.
STEPS, QUICK_STEPS = (250, 250, 500, 1_000), (25, 50)
ROUNDS = 3
USERS = 3_000
WARM_USERS = 200
WARM_S, QUICK_WARM_S = 0.6, 0.2
# The longest that a step may take.
STEP_S = 15.0
CACHE_INTERVAL_S, CACHE_INTERVALS = 0.4, 4
# Answers of a new user in the cache.
ENTRIES = 3
HANGING = "balance"
# Many connects at once take time.
POOLS = {
    **dict.fromkeys(SOURCE_NAMES, "queue = 4000"),
    HANGING: "connections = 4000\nqueue = 4000\nconnect_timeout_ms = 50000",
}
WIDE = "".join(f"\n[sources.{name}.http1]\n{pool}\n" for name, pool in POOLS.items())

Points = list[tuple[float, float]]


class InFlightMemory(NamedTuple):
    """One round: kB by count. `early`: consultations that ended before the last step was read.

    `after_kb`: after all callers have disconnected.
    """

    connections: Points
    in_flight: Points
    early: int
    after_kb: float


class MemoryRound(NamedTuple):
    """`cached`: kB by cached answers."""

    held: InFlightMemory
    cached: Points


def measure(lab: Lab) -> Finding:
    users = lab.count(USERS)
    rounds = []
    with pinned(LOAD_CORE), start_upstream(lab, users=users) as upstream:
        requests = consultations(users)
        warm, fresh = requests[: min(WARM_USERS, users // 2)], requests[min(WARM_USERS, users // 2) :]
        for _ in lab.turns("memory", ROUNDS):
            with start_service(lab, upstream.urls, each=f"{EACH}\nhedge = false", other=CONSULT + WIDE) as served:
                holding = uvloop.run(hold_in_flight(lab, served, upstream, warm))
            with start_service(lab, upstream.urls, cached=True) as served:
                cached = uvloop.run(fill_cache(lab, served, warm, fresh))
            rounds.append(MemoryRound(holding, cached))
    return finding(rounds)


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
            await load.arrive(1.0, 0.0)  # connects without requests
            connections.append((float(count), await settled_kb(served.pid)))
        upstream.behave(Behaviour(hanging=(HANGING,)))
        in_flight = [(0.0, connections[-1][1])]
        waiting = []
        for load, count in zip(loads, accumulate(steps), strict=True):
            # One request on each connection, never answered.
            waiting.append(asyncio.create_task(load.closed(0.0)))
            await await_hanging(upstream, loads, count)
            in_flight.append((float(count), await settled_kb(served.pid)))
        early = count_ended(loads)
        for each in waiting:
            each.cancel()
    upstream.behave(Behaviour())
    await asyncio.sleep(0.2)  # until the service has seen the disconnects
    return InFlightMemory(connections, in_flight, early, await settled_kb(served.pid))


async def fill_cache(lab: Lab, served: Served, warm: Sequence[bytes], fresh: Sequence[bytes]) -> Points:
    """Memory by answers in the cache beyond those of the warm-up."""
    await warm_up(lab, served, warm)
    points = [(0.0, await settled_kb(served.pid))]
    users = 0
    async with open_load(served.port, fresh) as load:
        for _ in range(CACHE_INTERVALS):
            users += (await load.closed(lab.seconds(CACHE_INTERVAL_S) / (10 if lab.quick else 1))).answered
            if users > len(fresh):  # returning users add no answers
                break
            points.append((float(users * ENTRIES), await settled_kb(served.pid)))
    return points


async def warm_up(lab: Lab, served: Served, requests: Sequence[bytes]) -> None:
    async with open_load(served.port, requests) as load:
        await load.closed(QUICK_WARM_S if lab.quick else WARM_S)
    await asyncio.sleep(0.3)  # until temporary memory of the warm-up is released


async def await_hanging(upstream: LeanUpstream, loads: Sequence[Load], count: int) -> None:
    """Wait until `count` calls hang or their consultations have ended. Raises `TimeoutError`."""
    until_s = time.perf_counter() + STEP_S
    while (calls := upstream.seen().calls.get(HANGING, 0)) + count_ended(loads) < count:
        if time.perf_counter() > until_s:
            raise TimeoutError(
                f"{calls:,} of {count:,} consultations had reached the hanging source after {STEP_S:.0f} s"
            )
        await asyncio.sleep(0.05)


def count_ended(loads: Sequence[Load]) -> int:
    return sum(each.interval.statuses.total() for each in loads)


async def settled_kb(pid: int) -> float:
    """Private memory once the service is idle."""
    before_s = -1.0
    until_s = time.perf_counter() + 1.0
    while (now_s := cpu_s(pid)) != before_s and time.perf_counter() < until_s:
        before_s = now_s
        await asyncio.sleep(0.06)
    return private_kb(pid)


def finding(rounds: Sequence[MemoryRound]) -> Finding:
    held = [each.held for each in rounds]
    in_flight = Figure.by_round(slope(each.in_flight) for each in held)
    connection = Figure.by_round(slope(each.connections) for each in held)
    entry = Figure.by_round(slope(each.cached) for each in rounds if len(each.cached) > 1)
    kb = {"a consultation in flight": in_flight, "an idle connection": connection, "a cached answer": entry}
    lines = [
        Line("consultations in flight", megabytes([each.in_flight for each in held]), ours=True),
        Line("idle connections", megabytes([each.connections for each in held])),
    ]
    return Finding(
        "What the service holds in memory",
        key={
            "memory.kb_per_in_flight": in_flight,
            "memory.kb_per_connection": connection,
            "memory.kb_per_entry": entry,
            "memory.mb_at_rest": Figure.by_round(each.connections[0][1] / 1_000 for each in held),
        },
        tables=[
            Table("Memory of one", [Row(name, {"kB": each}) for name, each in kb.items() if each.rounds]),
            Table("Private memory of the service", list(rows(held))),
        ],
        drawings=[LineChart("Private memory of the service", "count", "MB", lines)],
        notes=list(notes(rounds)),
    )


def megabytes(rounds: Sequence[Points]) -> list[tuple[float, Figure]]:
    return [(steps[0][0], Figure.by_round(kb / 1_000 for _, kb in steps)) for steps in zip(*rounds, strict=True)]


def rows(rounds: Sequence[InFlightMemory]) -> Iterator[Row]:
    (_, at_rest), *connected = megabytes([each.connections for each in rounds])
    yield Row("after the warm-up", {"MB": at_rest})
    for count, figure in connected:
        yield Row(f"{count:,.0f} connections, idle", {"MB": figure})
    for count, figure in megabytes([each.in_flight for each in rounds])[1:]:
        yield Row(f"the same, with {count:,.0f} consultations in flight", {"MB": figure})
    after = Figure.by_round(each.after_kb / 1_000 for each in rounds)
    yield Row("after all callers have disconnected", {"MB": after})


def notes(rounds: Sequence[MemoryRound]) -> Iterator[str]:
    if early := sum(each.held.early for each in rounds):
        yield (
            f"{early:,} ended before the last step was read because their call failed: the rows overstate what was "
            "in flight."
        )
    if few := sum(len(each.cached) < 2 for each in rounds):
        yield f"The cache: no figure in {few} of {len(rounds)} rounds, because users returned too soon."
