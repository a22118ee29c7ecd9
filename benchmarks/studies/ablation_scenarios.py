"""The scenario of each mechanism for the ablation, and the figures that show its effect.

All else has its defaults, except: answers are not cached where a call must be made to be measured,
and if two mechanisms do the same job the other one is off in both columns, as each scenario says.
The first line of each function is its description in the report.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, TypeAlias

from benchmarks.lab.batching_load import PATHS
from benchmarks.lab.in_process_rig import InProcessBench
from benchmarks.lab.process import LOAD_CORE, process, python
from benchmarks.lab.upstream_control import SOURCE_NAMES
from cashier import Cashier
from cashier.consultation.source_table import known_inputs
from cashier.fanout.ask import Importance, SourceStatus
from cashier.fanout.batch import Batch
from cashier.source_errors import SourceError
from cashier.wire.transport import CallHeaders

Figures: TypeAlias = dict[str, float]
CALL_HEADERS = CallHeaders("ablation")


async def cache(bench: InProcessBench, on: bool) -> Figures:
    """Customers who return within seconds, 400/s; every source takes 3 ms"""
    await bench.behave(3)
    async with bench.cashier({} if on else {"cache": False}) as cashier:
        return await cost(bench, cashier, 400)


async def batch(bench: InProcessBench, on: bool) -> Figures:
    """1,000/s, nothing cached; every source takes 5 ms, six of the eight take batches"""
    await bench.behave(5)
    other = {name: {"batch": {"path": path}} for name, path in PATHS.items()} if on else {}
    async with bench.cashier({"cache": False}, **other) as cashier:
        return await cost(bench, cashier, 1_000)


async def cost(bench: InProcessBench, cashier: Cashier, per_s: float) -> Figures:
    await bench.run(cashier, per_s / 4, 0.4)  # opens connections and warms the code
    await bench.run(cashier, per_s, 0.5)
    calls = first_calls(cashier)
    arrivals = await bench.run(cashier, per_s, 1)
    made = first_calls(cashier) - calls
    return {
        "calls per consultation": made / arrivals.consultations,
        "CPU µs per consultation": arrivals.cpu_us,
        "p50 ms": arrivals.at(0.5),
        "p99 ms": arrivals.at(0.99),
    }


def first_calls(cashier: Cashier) -> int:
    """First calls of all sources. A batch is one."""
    guards = [pipeline.guard for pipeline in cashier.pipelines.values()]
    return sum(
        guard.upstream.calls if isinstance(guard.upstream, Batch) else guard.counts.first_calls for guard in guards
    )


async def stale(bench: InProcessBench, on: bool) -> Figures:
    """Answers are fresh for 0.5 s, then stale for 2 s or not at all; sources take 30 ms, 300/s"""
    await bench.behave(30)
    cached = {"fresh_s": 0.5, "stale_s": 2.5 if on else 0}
    async with bench.cashier({"cache": cached}) as cashier:
        hot = bench.of(40)
        await hot.run(cashier, 300, 1.2)
        arrivals = await hot.run(cashier, 300, 2)
    return {"p50 ms": arrivals.at(0.5), "p90 ms": arrivals.at(0.9), "p99 ms": arrivals.at(0.99)}


async def single_flight(bench: InProcessBench, on: bool) -> Figures:
    """1,000 consultations at once ask for the same uncached channels (limiter off, bounded by the
    pool)
    """
    answered: Counter[bool] = Counter()

    def done(outcome: Any, status: SourceStatus = SourceStatus.FRESH, age_ms: int = 0) -> None:
        answered[not isinstance(outcome, SourceError)] += 1

    await bench.behave(3)
    async with bench.cashier({"limiter": False, "timeout_ms": 900}, consult={"deadline_ms": 1_000}) as cashier:
        pipeline = cashier.pipelines["channel"]
        start = pipeline.cache.start if on else pipeline.guard.start
        known = known_inputs(bench.requests[0])
        for _ in range(1_000):
            start(known, CALL_HEADERS, 900, done)
        while answered.total() < 1_000:  # noqa: ASYNC110 - callbacks count, on this loop
            await asyncio.sleep(0.01)
        calls = (await bench.seen()).calls["channel"]
    return {"calls": calls, "answered of 1,000": answered[True]}


async def hedge(bench: InProcessBench, on: bool) -> Figures:
    """8 ms, one call in a hundred takes twelve times as long; 150/s, nothing cached"""
    await bench.behave(8, straggling_bps=100)
    async with bench.cashier({"cache": False, "hedge": on}) as cashier:
        await bench.run(cashier, 150, 1.2)
        before = (await bench.seen()).calls
        arrivals = await bench.run(cashier, 150, 2.2)
        calls = sum((await bench.seen()).calls.values()) - sum(before.values())
    return {
        "p50 ms": arrivals.at(0.5),
        "p95 ms": arrivals.at(0.95),
        "p99 ms": arrivals.at(0.99),
        "extra calls %": 100 * (calls / arrivals.consultations / len(SOURCE_NAMES) - 1),
    }


async def breaker(bench: InProcessBench, on: bool) -> Figures:
    """The quota service hangs for good, 100/s; from the second second on (limiter off)"""
    await bench.behave(3)
    async with bench.cashier({"limiter": False}, quota={"breaker": on}) as cashier:
        await bench.run(cashier, 100, 1)
        await bench.behave(3, hanging=("quota",))
        await bench.run(cashier, 100, 1.7)
        before = (await bench.seen()).calls["quota"]
        arrivals = await bench.run(cashier, 100, 1)
        calls = (await bench.seen()).calls["quota"] - before
    return {
        "p50 ms": arrivals.at(0.5),
        "p99 ms": arrivals.at(0.99),
        "calls to it %": 100 * calls / arrivals.consultations,
    }


async def adaptive_timeout(bench: InProcessBench, on: bool) -> Figures:
    """The quota service hangs after 3.6 s at 200/s: the first second; ceiling 100 ms (breaker,
    limiter off)
    """
    await bench.behave(3, straggling_bps=20)
    async with bench.cashier({"cache": False, "breaker": False, "limiter": False, "adaptive_timeout": on}) as cashier:
        before = await bench.run(cashier, 200, 3.6)
        await bench.behave(3, hanging=("quota",))
        arrivals = await bench.run(cashier, 200, 0.8)
    judged = [
        pipeline.name for pipeline in cashier.pipelines.values() if pipeline.spec.importance is not Importance.REQUIRED
    ]
    given_up = sum(before.share(name, SourceStatus.TIMEOUT) for name in judged) / len(judged)
    return {"p50 ms": arrivals.at(0.5), "p99 ms": arrivals.at(0.99), "given up wrongly, of 10,000": 10_000 * given_up}


async def grace(bench: InProcessBench, on: bool) -> Figures:
    """Marketing takes 50 ms, the others 3, nothing cached: waits 15 ms longer for it, or 100 ms;
    100/s
    """
    await bench.behave(3, marketing=50)
    consult = {"grace_ms": 15 if on else 100}
    # The breaker would end the wait as well and hide the effect of the grace.
    async with bench.cashier(
        {"cache": False}, consult=consult, marketing={"breaker": False, "timeout_ms": 100}
    ) as cashier:
        await bench.run(cashier, 100, 0.5)
        arrivals = await bench.run(cashier, 100, 1)
    return {
        "p50 ms": arrivals.at(0.5),
        "p99 ms": arrivals.at(0.99),
        "with promotions %": 100 * arrivals.share("marketing", SourceStatus.FRESH),
    }


async def limiter(bench: InProcessBench, on: bool) -> Figures:
    """The quota service suddenly takes 300 ms, three times its ceiling; 300/s (breaker off)"""
    await bench.behave(3)
    async with bench.cashier({"cache": False, "breaker": False}, quota={"limiter": on}) as cashier:
        (endpoint,) = cashier.pipelines["quota"].guard.endpoints
        await bench.run(cashier, 300, 0.8)
        await bench.behave(3, quota=300)
        first, _ = await asyncio.gather(
            peak_of(lambda: endpoint.in_flight, bench.scale * 2), bench.run(cashier, 300, 2)
        )
        later, arrivals = await asyncio.gather(
            peak_of(lambda: endpoint.in_flight, bench.scale), bench.run(cashier, 300, 1)
        )
    return {"calls at once, first 2 s": first, "calls at once, later": later, "p50 ms": arrivals.at(0.5)}


async def peak_of(count: Callable[[], int], seconds: float) -> int:
    """The largest count seen in samples every few ms."""
    loop = asyncio.get_running_loop()
    peak, until_s = 0, loop.time() + seconds
    while loop.time() < until_s:
        peak = max(peak, count())
        await asyncio.sleep(0.003)
    return peak


async def late(bench: InProcessBench, on: bool) -> Figures:
    """Marketing takes 60 ms, the others 3: all wait the grace of 15 ms for it in vain; 100/s"""
    await bench.behave(3, marketing=60)
    async with bench.cashier(marketing={"late": on}) as cashier:
        await bench.run(cashier, 100, 0.5)
        opened, harvested = (await bench.seen()).opened, cashier.pipelines["marketing"].guard.counts.late_answers
        arrivals = await bench.run(cashier, 100, 1.2)
        opened = (await bench.seen()).opened - opened - 1  # without the control connection
        harvested = cashier.pipelines["marketing"].guard.counts.late_answers - harvested
    return {
        "connections per 1,000": 1_000 * opened / arrivals.consultations,
        "answers kept per 1,000": 1_000 * harvested / arrivals.consultations,
        "with promotions %": 100
        * arrivals.share("marketing", SourceStatus.FRESH, SourceStatus.CACHED, SourceStatus.STALE),
    }


async def retry(bench: InProcessBench, on: bool) -> Figures:
    """Weather `stormy` of the sandbox: one call in ten fails in some way; 50/s, nothing cached"""
    words = python("cashier", "sandbox", "--port", "0", "--weather", "stormy")
    with process(LOAD_CORE, *words, log=bench.lab.directory / "sandbox.log") as sandbox:
        stormy = bench._replace(urls=dict.fromkeys(SOURCE_NAMES, sandbox.first_line.rpartition(" ")[2]))
        async with stormy.cashier({"cache": False, "retry": on}) as cashier:
            await bench.run(cashier, 50, 0.4, stormy=True)
            arrivals = await bench.run(cashier, 50, 2.4, stormy=True)
            counts = [pipeline.guard.counts for pipeline in cashier.pipelines.values()]
    return {
        "without an answer %": 100 * arrivals.lost / arrivals.consultations,
        "retries per 100 calls": 100 * sum(each.retries for each in counts) / sum(each.first_calls for each in counts),
    }


class Mechanism(NamedTuple):
    """`shown`: the figure in the chart, of which less is better."""

    name: str
    shown: str
    measure: Callable[[InProcessBench, bool], Awaitable[Figures]]

    @property
    def about(self) -> str:
        return (self.measure.__doc__ or "").partition("\n")[0]


MECHANISMS = (
    Mechanism("cache", "calls per consultation", cache),
    Mechanism("stale while fetched anew", "p90 ms", stale),
    Mechanism("single flight", "calls", single_flight),
    Mechanism("hedge", "p99 ms", hedge),
    Mechanism("breaker", "p50 ms", breaker),
    Mechanism("adaptive timeout", "p50 ms", adaptive_timeout),
    Mechanism("grace", "p50 ms", grace),
    Mechanism("limiter", "calls at once, later", limiter),
    Mechanism("late answers", "connections per 1,000", late),
    Mechanism("retry", "without an answer %", retry),
    Mechanism("batch", "calls per consultation", batch),
)
