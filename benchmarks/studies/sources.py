"""Cost of one more source: CPU of consultations of 1 to 32 sources over real sockets.

The fan-out as the service builds it, without domain and HTTP server: a plan, the scatter, and for
each source its own pipeline with every mechanism but the cache (breaker, limiter, hedge, retry,
adaptive timeout, late answers), its own connections, and each answer decoded and checked. Every
source is a card centre with answers of about 1 kB; each consultation asks about another user.
Sixteen consultations are in flight at any time, in this process on core 0; one lean upstream on
core 1 answers for all sources. CPU is user and system time of this process divided by
consultations, including the loop that starts them.

Interleaved with it runs the simplest code for the same: a tuned aiohttp session, one `gather` of
the requests, the same decoding, one timeout around all. It has none of the mechanisms.

The cost of one more source is the slope of the least-squares line through the six sizes, by round.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from random import Random
from typing import NamedTuple

import aiohttp
import uvloop

from benchmarks.lab import Lab
from benchmarks.lab.in_process import use_service_gc
from benchmarks.lab.process import PROGRAM_CORE, cpu_s, pinned
from benchmarks.lab.upstream import FIRST_USER, start_upstream
from benchmarks.results import Figure, Finding, Line, LineChart, Row, Table, slope
from cashier.consultation.source_pipeline import SourcePipeline
from cashier.consultation.source_table import SOURCE_SPECS, SourceBinding
from cashier.fanout.ask import Ask
from cashier.fanout.load_shedding import DegradationLadder
from cashier.fanout.plan import Plan
from cashier.fanout.s3fifo import S3FifoStore
from cashier.fanout.scatter import Timing, scatter
from cashier.fanout.timer_wheel import TimerWheel
from cashier.settings.schema import Settings, SourceSettings, SourcesSettings
from cashier.source_errors import Missing
from cashier.sources.card import CARD
from cashier.sources.source_upstream import WireUpstream
from cashier.wire.http1 import Http1Client
from cashier.wire.transport import CallHeaders

SIZES = (1, 2, 4, 8, 16, 32)
AT_ONCE = 16
USERS = 1_000
INTERVAL_S, WARM_S = 0.6, 0.4
QUICK_S = 0.12
# Long enough that nothing times out: the study measures work, not waiting.
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

# Asks all sources about one user. Returns whether all have answered.
Consult = Callable[[str], Awaitable[bool]]


class FanoutVariant(NamedTuple):
    """One implementation with `sources` sources. `extra`: hedged and retried calls so far."""

    name: str
    sources: int
    consult: Consult
    extra: Callable[[], int]


class VariantRound(NamedTuple):
    """One interval. `extra`: share of calls beyond the first to each source."""

    cpu_us: float
    consultations: int
    failed: int
    extra: float
    upstream_busy: float


class Chains:
    """A fixed number of consultations in flight, each followed by the next."""

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
    with pinned(PROGRAM_CORE), start_upstream(lab, users=USERS) as upstream:
        rounds_by_variant = uvloop.run(measure_variants(lab, upstream.urls["card"], upstream.pid))
    return finding(rounds_by_variant)


async def measure_variants(lab: Lab, url: str, upstream_pid: int) -> dict[str, dict[int, list[VariantRound]]]:
    rounds_by_variant: dict[str, dict[int, list[VariantRound]]] = {}
    async with AsyncExitStack() as opened:
        variants = [
            await opened.enter_async_context(variant(url, sources))
            for sources in SIZES
            for variant in (cashier_fanout, aiohttp_gather)
        ]
        use_service_gc()
        for variant in variants:
            await measure_interval(variant, QUICK_S if lab.quick else WARM_S, 0.0, upstream_pid)
        for _ in lab.turns("sources"):
            for variant in variants:
                result = await measure_interval(variant, 0.02, QUICK_S if lab.quick else INTERVAL_S, upstream_pid)
                rounds_by_variant.setdefault(variant.name, {}).setdefault(variant.sources, []).append(result)
    return rounds_by_variant


async def measure_interval(variant: FanoutVariant, warm_s: float, seconds: float, upstream_pid: int) -> VariantRound:
    """Measure between two moments at which all chains are running."""
    chains = Chains(variant.consult, seed=variant.sources)
    await asyncio.sleep(warm_s)
    start_s, upstream_s = time.perf_counter(), cpu_s(upstream_pid)
    mine_s, consultations, failed, extra = time.process_time(), chains.consultations, chains.failed, variant.extra()
    await asyncio.sleep(seconds)
    mine_s = time.process_time() - mine_s
    lasted_s, upstream_s = time.perf_counter() - start_s, cpu_s(upstream_pid) - upstream_s
    consultations = chains.consultations - consultations
    failed, extra = chains.failed - failed, variant.extra() - extra
    await chains.end()
    count = max(1, consultations)
    return VariantRound(
        mine_s / count * 1e6, consultations, failed, extra / (count * variant.sources), upstream_s / max(lasted_s, 1e-9)
    )


@asynccontextmanager
async def cashier_fanout(url: str, sources: int) -> AsyncIterator[FanoutVariant]:
    """Each source with its own connections and pipeline, built as in a service."""
    [spec] = [spec for spec in SOURCE_SPECS if spec.source is CARD]
    settings = Settings(sources=SourcesSettings(card=SourceSettings(url, timeout_ms=TIMEOUT_MS, cache=False)))
    wires = [Http1Client([url]) for _ in range(sources)]
    wheel = TimerWheel()
    pipelines = [
        SourcePipeline(spec, WireUpstream(CARD, wire), settings, DegradationLadder(), S3FifoStore(1), wheel=wheel)
        for wire in wires
    ]

    def ask(index: int, binding: SourceBinding) -> Ask:
        common = (f"card_{index}", spec.importance, spec.needs, TIMEOUT_MS, binding.start)
        return Ask(*common, fallback=binding.fallback, current_timeout=binding.current_timeout)

    bindings = [pipeline.binding() for pipeline in pipelines]
    plan = Plan([ask(index, binding) for index, binding in enumerate(bindings)], inputs=spec.needs)

    async def consult(user_id: str) -> bool:
        deadline_ns = time.perf_counter_ns() + DEADLINE_NS
        gathered = await scatter(plan, {"user_id": user_id}, CALL_HEADERS, deadline_ns=deadline_ns, timing=TIMING)
        return not any(isinstance(answer, Missing) for answer in gathered.answers.values())

    for wire in wires:
        await wire.open()
    try:
        counts = [pipeline.guard.counts for pipeline in pipelines]
        yield FanoutVariant(
            "cashier", sources, consult, lambda: sum(each.hedges.value + each.retries.value for each in counts)
        )
    finally:
        for pipeline in pipelines:
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


def finding(rounds_by_variant: Mapping[str, Mapping[int, list[VariantRound]]]) -> Finding:
    cpu = {
        name: {size: Figure.by_round(each.cpu_us for each in rounds) for size, rounds in sizes.items()}
        for name, sizes in rounds_by_variant.items()
    }
    cost = {name: per_source(sizes) for name, sizes in cpu.items()}
    ours, aiohttp_cost = cost.values()
    busy = {
        size: Figure.by_round(each.upstream_busy for each in rounds)
        for size, rounds in rounds_by_variant["cashier"].items()
    }
    rows = [
        Row(
            f"{size} source{'s' * (size > 1)}",
            {**{f"{name} CPU µs": sizes[size] for name, sizes in cpu.items()}, "upstream busy": busy[size]},
        )
        for size in SIZES
    ]
    lines = [
        Line(name, [(float(size), each) for size, each in sizes.items()], ours=name == "cashier")
        for name, sizes in cpu.items()
    ]
    return Finding(
        "Cost of one more source",
        key={
            "sources.cost_us": ours,
            "sources.cost_us_aiohttp": aiohttp_cost,
            "sources.cost_ratio_aiohttp": ours.over(aiohttp_cost),
        },
        tables=[
            Table("CPU of one more source", [Row(name, {"CPU µs": each}) for name, each in cost.items()]),
            Table("CPU of one consultation", rows),
        ],
        drawings=[LineChart("CPU of one consultation by number of sources", "sources", "CPU µs", lines)],
        notes=list(notes(rounds_by_variant)),
    )


def per_source(sizes: Mapping[int, Figure]) -> Figure:
    """One slope per round."""
    rounds = zip(*(each.rounds for each in sizes.values()), strict=True)
    return Figure.by_round(slope(list(zip(map(float, sizes), each, strict=True))) for each in rounds)


def notes(rounds_by_variant: Mapping[str, Mapping[int, list[VariantRound]]]) -> Iterator[str]:
    everything = {
        name: [each for rounds in sizes.values() for each in rounds] for name, sizes in rounds_by_variant.items()
    }
    for name, rounds in everything.items():
        total = sum(each.consultations for each in rounds)
        if failed := sum(each.failed for each in rounds):
            yield f"{name}: {failed:,} of {total:,} consultations lacked an answer, which makes them cheaper."
    extra = max(each.extra for each in everything["cashier"])
    yield f"Hedges and retries are in our figures: at most {extra:.1%} more calls in an interval."
    if max(each.upstream_busy for rounds in everything.values() for each in rounds) > 0.9:
        yield (
            "The upstream was busy above 90 % in some interval. The CPU figures are valid; only the rate was limited "
            "by it."
        )
