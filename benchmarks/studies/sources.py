"""What one more source costs: consultations of 1 to 32 sources, in CPU, over real sockets.

The fan-out as a service puts it together, without domain and door: a plan, the scatter, for each source a stack of its own with every
mechanism on but the cache (breaker, limiter, hedge, retry, adaptive timeout, late answers), its own connections, and each answer decoded
and checked. Every source is a card centre whose answers have about 1 kB; which user is asked about changes with every consultation. Sixteen
consultations are under way at any time, in this process on core 0; one lean upstream answers for all sources, on core 1. CPU is user and
system time of this process divided by consultations; what makes the consultations go round is in it.

Beside it, in turns, what one would write by hand: a tuned aiohttp session, one `gather` of as many requests, the same decoding, one
timeout around all. It has none of the mechanisms.

The cost of one more source is the slope of the least-squares line through the six sizes, one for each round.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from random import Random
from typing import NamedTuple

import aiohttp
import uvloop

from benchmarks.lab.lab import Lab
from benchmarks.lab.process import PROGRAM_CORE, cpu_s, pinned
from benchmarks.lab.trend import slope
from benchmarks.lab.upstream import start_upstream
from benchmarks.lean_upstream import FIRST_USER
from benchmarks.results import Figure, Finding, Line, LineChart, Row, Table
from cashier.consultation.plan import SOURCE_SPECS
from cashier.consultation.source_pipeline import SourcePipeline
from cashier.fanout.ask import Ask
from cashier.fanout.load_shedding import DegradationLadder
from cashier.fanout.plan import Plan
from cashier.fanout.s3fifo import S3FifoStore
from cashier.fanout.scatter import Timing, scatter
from cashier.settings.schema import Settings, SourceSettings, SourcesSettings
from cashier.source_errors import Missing
from cashier.sources.card import CARD
from cashier.sources.source_upstream import WireUpstream
from cashier.web.server import GC_THRESHOLD
from cashier.wire.http1 import Http1Client
from cashier.wire.transport import CallHeaders

SIZES = (1, 2, 4, 8, 16, 32)
AT_ONCE = 16
USERS = 1_000
INTERVAL_S, WARM_S = 0.6, 0.4
QUICK_S = 0.12
# Patient enough that nothing is cut off: what is measured is work, not waiting.
TIMEOUT_MS = 1_000
DEADLINE_NS = 2_000_000_000
TIMING = Timing(grace_ns=15_000_000, reserve_ns=3_000_000)
CALL_HEADERS = CallHeaders("0f3f9c2e-bench")
HEADERS = {
    "X-Caller": "cashier",
    "Accept": "application/json",
    "X-Request-Id": CALL_HEADERS.request_id,
    "X-Deadline-Ms": str(TIMEOUT_MS),
}

# Asks all sources about one user; whether all have answered.
Consult = Callable[[str], Awaitable[bool]]


class FanoutVariant(NamedTuple):
    """One way to ask so many sources. `extra`: calls so far beyond one a source, by hedges and retries."""

    name: str
    sources: int
    consult: Consult
    extra: Callable[[], int]


class VariantRound(NamedTuple):
    """One interval. `extra`: of all its calls, those beyond the first."""

    cpu_us: float
    consultations: int
    failed: int
    extra: float
    upstream_busy: float


class Chains:
    """So many consultations under way, each followed by the next."""

    def __init__(self, consult: Consult, seed: int) -> None:
        self.consultations = self.failed = 0
        self._consult = consult
        self._over = False
        random = Random(seed)
        self._tasks = [asyncio.create_task(self._chain(Random(random.random()))) for _ in range(AT_ONCE)]

    async def _chain(self, random: Random) -> None:
        while not self._over:
            self.failed += not await self._consult(f"u_{FIRST_USER + random.randrange(USERS)}")
            self.consultations += 1

    async def end(self) -> None:
        self._over = True
        await asyncio.gather(*self._tasks)


def measure(lab: Lab) -> Finding:
    start_s = time.perf_counter()
    with pinned(PROGRAM_CORE), start_upstream(lab, users=USERS) as upstream:
        spent = uvloop.run(measure_variants(lab, upstream.urls["card"], upstream.pid))
    return finding(spent, time.perf_counter() - start_s)


async def measure_variants(lab: Lab, url: str, upstream_pid: int) -> dict[str, dict[int, list[VariantRound]]]:
    spent: dict[str, dict[int, list[VariantRound]]] = {}
    async with AsyncExitStack() as opened:
        ways = [await opened.enter_async_context(way(url, sources)) for sources in SIZES for way in (cashier_fanout, aiohttp_gather)]
        with service_gc_settings():
            for way in ways:
                await measure_interval(way, QUICK_S if lab.quick else WARM_S, 0.0, upstream_pid)
            for turn in range(lab.rounds):
                lab.report(f"sources: round {turn + 1} of {lab.rounds}")
                for way in ways:
                    result = await measure_interval(way, 0.02, QUICK_S if lab.quick else INTERVAL_S, upstream_pid)
                    spent.setdefault(way.name, {}).setdefault(way.sources, []).append(result)
    return spent


async def measure_interval(way: FanoutVariant, warm_s: float, seconds: float, upstream_pid: int) -> VariantRound:
    """Counted between two moments at which all chains are under way."""
    chains = Chains(way.consult, seed=way.sources)
    await asyncio.sleep(warm_s)
    start_s, upstream_s = time.perf_counter(), cpu_s(upstream_pid)
    mine_s, consultations, failed, extra = time.process_time(), chains.consultations, chains.failed, way.extra()
    await asyncio.sleep(seconds)
    mine_s = time.process_time() - mine_s
    lasted_s, upstream_s = time.perf_counter() - start_s, cpu_s(upstream_pid) - upstream_s
    consultations = chains.consultations - consultations
    failed, extra = chains.failed - failed, way.extra() - extra
    await chains.end()
    count = max(1, consultations)
    return VariantRound(
        mine_s / count * 1e6, consultations, failed, extra / (count * way.sources), upstream_s / max(lasted_s, 1e-9)
    )


@asynccontextmanager
async def cashier_fanout(url: str, sources: int) -> AsyncIterator[FanoutVariant]:
    """Each source with its own connections, breaker, limiter and statistics, built by what a service builds its own with."""
    [question] = [question for question in SOURCE_SPECS if question.source is CARD]
    settings = Settings(sources=SourcesSettings(card=SourceSettings(url, timeout_ms=TIMEOUT_MS, cache=False)))
    wires = [Http1Client([url]) for _ in range(sources)]
    stacks = [
        SourcePipeline(question, WireUpstream(CARD, wire), settings, DegradationLadder(), S3FifoStore(1))
        for wire in wires
    ]
    ways = [pipeline.binding() for pipeline in stacks]
    asks = [
        Ask(
            f"card_{index}",
            question.importance,
            question.needs,
            TIMEOUT_MS,
            way.start,
            instead=way.instead,
            pace=way.pace,
        )
        for index, way in enumerate(ways)
    ]
    plan = Plan(asks, inputs=question.needs)

    async def consult(user_id: str) -> bool:
        deadline_ns = time.perf_counter_ns() + DEADLINE_NS
        gathered = await scatter(plan, {"user_id": user_id}, CALL_HEADERS, deadline_ns=deadline_ns, timing=TIMING)
        return not any(isinstance(answer, Missing) for answer in gathered.answers.values())

    for wire in wires:
        await wire.open()
    try:
        yield FanoutVariant(
            "cashier",
            sources,
            consult,
            lambda: sum(pipeline.guard.counts.hedges + pipeline.guard.counts.retries for pipeline in stacks),
        )
    finally:
        for pipeline in stacks:
            pipeline.close()
        for wire in wires:
            await wire.close()


@asynccontextmanager
async def aiohttp_gather(url: str, sources: int) -> AsyncIterator[FanoutVariant]:
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(
        url, connector=connector, cookie_jar=aiohttp.DummyCookieJar(), headers=HEADERS
    ) as session:

        async def one(user_id: str) -> object:
            async with session.get(f"/members/{user_id}/cards") as response:
                return CARD.parse(response.status, await response.read(), {"user_id": user_id})

        async def consult(user_id: str) -> bool:
            async with asyncio.timeout(DEADLINE_NS / 1e9):
                answers = await asyncio.gather(*(one(user_id) for _ in range(sources)), return_exceptions=True)
            return not any(isinstance(answer, BaseException) for answer in answers)

        yield FanoutVariant("aiohttp + gather", sources, consult, lambda: 0)


@contextmanager
def service_gc_settings() -> Iterator[None]:
    """The garbage collector as a service sets it, for both ways alike."""
    usual = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD, 10, 10)
    try:
        yield
    finally:
        gc.set_threshold(*usual)
        gc.unfreeze()


def finding(spent: Mapping[str, Mapping[int, list[VariantRound]]], seconds: float) -> Finding:
    cost = {name: per_source(sizes) for name, sizes in spent.items()}
    one, other = cost.values()
    cpu = {
        name: {size: Figure.of(*(each.cpu_us for each in rounds)) for size, rounds in sizes.items()}
        for name, sizes in spent.items()
    }
    return Finding(
        "sources",
        "What one more source costs",
        (__doc__ or "").strip(),
        seconds,
        key={"sources.cost_us": one, "sources.cost_us_aiohttp": other, "sources.cost_ratio_aiohttp": one.over(other)},
        tables=[
            Table("CPU of one more source", [Row(name, {"CPU µs": each}) for name, each in cost.items()]),
            Table("CPU of one consultation", [row(size, spent) for size in SIZES]),
        ],
        drawings=[
            LineChart(
                "CPU of one consultation by number of sources",
                "sources",
                "CPU µs",
                [
                    Line(name, [(float(size), each) for size, each in sizes.items()], ours=name == "cashier")
                    for name, sizes in cpu.items()
                ],
            )
        ],
        notes=list(notes(spent)),
    )


def per_source(sizes: Mapping[int, list[VariantRound]]) -> Figure:
    """One slope a round."""
    rounds = zip(*sizes.values(), strict=True)
    return Figure.of(
        *(slope([(float(size), each.cpu_us) for size, each in zip(sizes, those, strict=True)]) for those in rounds)
    )


def row(size: int, spent: Mapping[str, Mapping[int, list[VariantRound]]]) -> Row:
    figures = {f"{name} CPU µs": Figure.of(*(each.cpu_us for each in sizes[size])) for name, sizes in spent.items()}
    busy = Figure.of(*(each.upstream_busy for each in spent["cashier"][size]))
    return Row(f"{size} source{'s' * (size > 1)}", {**figures, "upstream busy": busy})


def notes(spent: Mapping[str, Mapping[int, list[VariantRound]]]) -> Iterator[str]:
    for name, sizes in spent.items():
        everything = [each for rounds in sizes.values() for each in rounds]
        failed, consultations = sum(each.failed for each in everything), sum(each.consultations for each in everything)
        if failed:
            yield f"{name}: {failed:,} of {consultations:,} consultations lacked an answer, and cost less for it."
    extra = max(each.extra for rounds in spent["cashier"].values() for each in rounds)
    yield f"Hedges and retries are in our figures: in the interval with most of them {extra:.1%} more calls."
    if any(each.upstream_busy > 0.9 for sizes in spent.values() for rounds in sizes.values() for each in rounds):
        yield "The upstream was busy above 90 % in some interval. CPU for each consultation is ours all the same; only the rate was its."
