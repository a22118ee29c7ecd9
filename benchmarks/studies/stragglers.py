"""One call in a hundred takes twelve times as long: what hedging makes of it.

`cashier serve` on core 0, its eight sources and the load on core 1. Every source takes 8 ms, each with dice of its own that make one
call in a hundred take 96; so one consultation in thirteen meets a straggler. Nothing is cached. Two services, one with hedging and one
without, all else as it ships, take turns: 250 consultations a second at random, latency from when each was meant to go out. Calls are
counted by the sources. Percentiles of a round are of some 800 consultations; the 99.9th is of all rounds together, for one has too few.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack
from typing import NamedTuple

import uvloop

from benchmarks.lab.histogram import Histogram
from benchmarks.lab.lab import Lab
from benchmarks.lab.load import Load, loaded
from benchmarks.lab.load_results import Stretch
from benchmarks.lab.process import LOAD_CORE, cpu_s, pinned
from benchmarks.lab.requests import consultations, consulted
from benchmarks.lab.run_queue import Waiting
from benchmarks.lab.service import Served, service
from benchmarks.lab.upstream import Upstream, upstream
from benchmarks.lab.upstream_control import STRAGGLING, Behaviour
from benchmarks.results import Figure, Finding, Line, Lines, Row, Table
from cashier.consultation.plan import SOURCE_NAMES

DELAY_MS = 8
STRAGGLING_BPS = 100
PER_S = 250
# The sketch behind the hedge is looked at once a second, and has to have seen some hundred calls.
LEARN_S = 2.5
STRETCH_S = 3.2
USERS = 1_000
PERCENTILES = (50.0, 90.0, 95.0, 99.0)
RARE = 99.9
WAYS = ("without hedges", "with hedges")


class Taken(NamedTuple):
    """One stretch. `calls`: that the sources saw."""

    stretch: Stretch
    calls: int
    upstream_busy: float

    @property
    def arrived(self) -> int:
        return self.stretch.statuses.total()

    @property
    def extra_percent(self) -> float:
        return 100 * (self.calls / (self.arrived * len(SOURCE_NAMES)) - 1)


class Tried(NamedTuple):
    """One way, over all rounds."""

    rounds: Sequence[Taken]

    @property
    def extra_percent(self) -> Figure:
        return Figure.of(*(each.extra_percent for each in self.rounds))

    def at(self, percentile: float) -> Figure:
        if percentile < RARE:
            return Figure.of(*(each.stretch.at(percentile / 100) for each in self.rounds))
        together = Histogram()
        for each in self.rounds:
            together.add(each.stretch.histogram)
        return Figure.of(together.at(percentile / 100))


def measure(lab: Lab) -> Finding:
    began_s = time.perf_counter()
    behaviour = Behaviour(dict.fromkeys(SOURCE_NAMES, DELAY_MS), dict.fromkeys(SOURCE_NAMES, STRAGGLING_BPS))
    users = lab.count(USERS)
    with ExitStack() as opened:
        opened.enter_context(pinned(LOAD_CORE))
        sources = opened.enter_context(upstream(lab, users=users, behaviour=behaviour))
        served = [
            opened.enter_context(service(lab, sources.urls, each=f"hedge = {hedge}")) for hedge in ("false", "true")
        ]
        waiting = Waiting()
        tried = uvloop.run(stretches(lab, sources, served, consultations(users), waiting))
    return found(tried, waiting, time.perf_counter() - began_s)


async def stretches(
    lab: Lab, sources: Upstream, served: Sequence[Served], requests: Sequence[bytes], waiting: Waiting
) -> dict[str, Tried]:
    kept: dict[str, list[Taken]] = {way: [] for way in WAYS}
    async with AsyncExitStack() as opened:
        # More connections than are ever busy at once, and the same arrivals for both.
        loads = [
            await opened.enter_async_context(loaded(one.port, requests, connections=64, check=consulted))
            for one in served
        ]
        for load in loads:
            await load.open(PER_S, lab.seconds(LEARN_S))
        for turn in range(lab.rounds):
            lab.say(f"stragglers: round {turn + 1} of {lab.rounds}")
            for way, load, one in zip(WAYS, loads, served, strict=True):
                await load.open(PER_S, lab.seconds(0.3))  # it had a rest while the other one was asked
                with waiting.of(one.pid):
                    kept[way].append(await taken(load, sources, lab.seconds(STRETCH_S)))
    return {way: Tried(rounds) for way, rounds in kept.items()}


async def taken(load: Load, sources: Upstream, seconds: float) -> Taken:
    # Asked while no load runs: it blocks this loop.
    calls, used_s = sum(sources.seen().calls.values()), cpu_s(sources.pid)
    stretch = await load.open(PER_S, seconds)
    busy = (cpu_s(sources.pid) - used_s) / stretch.seconds
    return Taken(stretch, sum(sources.seen().calls.values()) - calls, busy)


def found(tried: Mapping[str, Tried], waiting: Waiting, seconds: float) -> Finding:
    without, hedged = (tried[way] for way in WAYS)
    lines = [
        Line(way, [(x, each.at(x)) for x in (*PERCENTILES, RARE)], ours=each is hedged) for way, each in tried.items()
    ]
    return Finding(
        "stragglers",
        f"One call in a hundred is {STRAGGLING} × slower",
        (__doc__ or "").strip(),
        seconds,
        key={
            "stragglers.p99_ratio": hedged.at(99).over(without.at(99)),
            "stragglers.p999_ratio": hedged.at(RARE).over(without.at(RARE)),
            "stragglers.p99_ms": hedged.at(99),
            "stragglers.extra_calls_percent": hedged.extra_percent,
        },
        tables=[
            Table(
                "Latency of a consultation, and calls beyond one to each source",
                [row(way, each) for way, each in tried.items()],
            )
        ],
        drawings=[
            Lines(
                "Latency by percentile", "percentile", "ms", lines, marks={"a straggling call": STRAGGLING * DELAY_MS}
            ),
        ],
        notes=list(notes(tried, waiting)),
    )


def row(way: str, tried: Tried) -> Row:
    latencies = {f"p{percentile:g} ms": tried.at(percentile) for percentile in (*PERCENTILES, RARE)}
    return Row(way, {**latencies, "extra calls %": tried.extra_percent})


def notes(tried: Mapping[str, Tried], waiting: Waiting) -> Iterator[str]:
    everything = [each for one in tried.values() for each in one.rounds]
    for way, one in tried.items():
        arrived, failed = (
            sum(each.arrived for each in one.rounds),
            sum(each.arrived - each.stretch.answered for each in one.rounds),
        )
        if failed:
            yield f"{way}: {failed:,} of {arrived:,} consultations were not answered, and are in no percentile."
    yield waiting.note("The service")
    late = max(each.stretch.load_busy for each in everything)
    yield f"The load's process was busy {late:.0%} of its core at most, the sources' {max(each.upstream_busy for each in everything):.0%}."
    yield (
        "Marketing may only improve an offer: where it straggles the answer goes out 15 ms after the others, with hedges and without, so "
        "its stragglers count for little in either figure."
    )
