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
import gc
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from random import Random
from typing import NamedTuple

import aiohttp
import uvloop

from benchmarks.lab.process import PROGRAM_CORE, cpu_s, pinned
from benchmarks.lab.study_run import Lab
from benchmarks.lab.trend import slope
from benchmarks.lab.upstream import start_upstream
from benchmarks.lean_upstream import FIRST_USER
from benchmarks.results import Figure, Finding, Line, LineChart, Row, Table
from cashier.consultation.source_pipeline import SourcePipeline
from cashier.consultation.source_table import SOURCE_SPECS
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
    start_s = time.perf_counter()
    with pinned(PROGRAM_CORE), start_upstream(lab, users=USERS) as upstream:
        rounds_by_variant = uvloop.run(measure_variants(lab, upstream.urls["card"], upstream.pid))
    return finding(rounds_by_variant, time.perf_counter() - start_s)


async def measure_variants(lab: Lab, url: str, upstream_pid: int) -> dict[str, dict[int, list[VariantRound]]]:
    rounds_by_variant: dict[str, dict[int, list[VariantRound]]] = {}
    async with AsyncExitStack() as opened:
        variants = [
            await opened.enter_async_context(variant(url, sources))
            for sources in SIZES
            for variant in (cashier_fanout, aiohttp_gather)
        ]
        with service_gc_settings():
            for variant in variants:
                await measure_interval(variant, QUICK_S if lab.quick else WARM_S, 0.0, upstream_pid)
            for turn in range(lab.rounds):
                lab.report(f"sources: round {turn + 1} of {lab.rounds}")
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
    pipelines = [
        SourcePipeline(spec, WireUpstream(CARD, wire), settings, DegradationLadder(), S3FifoStore(1)) for wire in wires
    ]
    bindings = [pipeline.binding() for pipeline in pipelines]
    asks = [
        Ask(
            f"card_{index}",
            spec.importance,
            spec.needs,
            TIMEOUT_MS,
            binding.start,
            fallback=binding.fallback,
            current_timeout=binding.current_timeout,
        )
        for index, binding in enumerate(bindings)
    ]
    plan = Plan(asks, inputs=spec.needs)

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
            lambda: sum(pipeline.guard.counts.hedges + pipeline.guard.counts.retries for pipeline in pipelines),
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


@contextmanager
def service_gc_settings() -> Iterator[None]:
    """Garbage collector settings of the service, for both variants."""
    usual = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD, 10, 10)
    try:
        yield
    finally:
        gc.set_threshold(*usual)
        gc.unfreeze()


def finding(rounds_by_variant: Mapping[str, Mapping[int, list[VariantRound]]], seconds: float) -> Finding:
    cost = {name: per_source(sizes) for name, sizes in rounds_by_variant.items()}
    ours, aiohttp_cost = cost.values()
    cpu = {
        name: {size: Figure.of(*(each.cpu_us for each in rounds)) for size, rounds in sizes.items()}
        for name, sizes in rounds_by_variant.items()
    }
    return Finding(
        "sources",
        "Cost of one more source",
        (__doc__ or "").strip(),
        seconds,
        key={
            "sources.cost_us": ours,
            "sources.cost_us_aiohttp": aiohttp_cost,
            "sources.cost_ratio_aiohttp": ours.over(aiohttp_cost),
        },
        tables=[
            Table("CPU of one more source", [Row(name, {"CPU µs": each}) for name, each in cost.items()]),
            Table("CPU of one consultation", [row(size, rounds_by_variant) for size in SIZES]),
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
        notes=list(notes(rounds_by_variant)),
    )


def per_source(sizes: Mapping[int, list[VariantRound]]) -> Figure:
    """One slope per round."""
    rounds = zip(*sizes.values(), strict=True)
    return Figure.of(
        *(slope([(float(size), each.cpu_us) for size, each in zip(sizes, usages, strict=True)]) for usages in rounds)
    )


def row(size: int, rounds_by_variant: Mapping[str, Mapping[int, list[VariantRound]]]) -> Row:
    figures = {
        f"{name} CPU µs": Figure.of(*(each.cpu_us for each in sizes[size])) for name, sizes in rounds_by_variant.items()
    }
    busy = Figure.of(*(each.upstream_busy for each in rounds_by_variant["cashier"][size]))
    return Row(f"{size} source{'s' * (size > 1)}", {**figures, "upstream busy": busy})


def notes(rounds_by_variant: Mapping[str, Mapping[int, list[VariantRound]]]) -> Iterator[str]:
    for name, sizes in rounds_by_variant.items():
        everything = [each for rounds in sizes.values() for each in rounds]
        failed, consultations = sum(each.failed for each in everything), sum(each.consultations for each in everything)
        if failed:
            yield f"{name}: {failed:,} of {consultations:,} consultations lacked an answer, which makes them cheaper."
    extra = max(each.extra for rounds in rounds_by_variant["cashier"].values() for each in rounds)
    yield f"Hedges and retries are in our figures: at most {extra:.1%} more calls in an interval."
    if any(
        each.upstream_busy > 0.9 for sizes in rounds_by_variant.values() for rounds in sizes.values() for each in rounds
    ):
        yield (
            "The upstream was busy above 90 % in some interval. The CPU figures are valid; only the rate was limited "
            "by it."
        )
