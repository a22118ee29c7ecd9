"""Each mechanism off and on.

The `Cashier` runs in this process on core 0, with random arrivals at a fixed rate; latency counts
from the due time. Its eight sources run on core 1, each at its own address, with simulated
behaviour. Rounds off and on alternate, each with a new `Cashier` and the same arrivals. "Off" turns
off this one mechanism only; if two mechanisms do the same job, the other one is off in both
columns, as the row says. CPU is this process's user and system time, arrivals included.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from random import Random
from typing import Any, NamedTuple, TypeAlias

import uvloop

from benchmarks.lab import Lab
from benchmarks.lab.in_process import ANSWERED, InProcessBench, Tally, consult_requests, use_service_gc
from benchmarks.lab.process import LOAD_CORE, PROGRAM_CORE, pinned, process, python
from benchmarks.lab.upstream import BATCH_PATHS, SOURCE_NAMES, LeanUpstream, start_upstream
from benchmarks.results import BarChart, Figure, Finding, Row, Table
from cashier import Cashier
from cashier.consultation.source_table import known_inputs
from cashier.fanout.ask import Importance, SourceStatus
from cashier.fanout.batch import Batch
from cashier.source_errors import SourceError
from cashier.wire.transport import CallHeaders

USERS = 500
ROUNDS = 3
CALL_HEADERS = CallHeaders("ablation")
Figures: TypeAlias = dict[str, float]

# The scenarios. All else has its defaults, except: answers are not cached where a call must be made
# to be measured, and if two mechanisms do the same job the other one is off in both columns. The
# first line of each docstring is its description in the report.


async def cache(bench: InProcessBench, on: bool) -> Figures:
    """Customers who return within seconds, 400/s; every source takes 3 ms"""
    await bench.behave(3)
    async with bench.cashier({} if on else {"cache": False}) as cashier:
        return await cost(bench, cashier, 400)


async def batch(bench: InProcessBench, on: bool) -> Figures:
    """1,000/s, nothing cached; every source takes 5 ms, six of the eight take batches"""
    await bench.behave(5)
    other = {name: {"batch": {"path": path}} for name, path in BATCH_PATHS.items()} if on else {}
    async with bench.cashier({"cache": False}, **other) as cashier:
        return await cost(bench, cashier, 1_000)


async def cost(bench: InProcessBench, cashier: Cashier, per_s: float) -> Figures:
    await bench.run(cashier, per_s / 4, 0.4)  # opens connections and warms the code
    await bench.run(cashier, per_s, 0.5)
    calls = first_calls(cashier)
    arrivals = await bench.run(cashier, per_s, 1)
    each = (first_calls(cashier) - calls) / arrivals.consultations
    return {"calls per consultation": each, "CPU µs per consultation": arrivals.cpu_us, **arrivals.percentiles(50, 99)}


def first_calls(cashier: Cashier) -> int:
    """First calls of all sources. A batch is one."""
    guards = [pipeline.guard for pipeline in cashier.pipelines.values()]
    return sum(
        guard.upstream.calls.value if isinstance(guard.upstream, Batch) else guard.counts.first_calls.value
        for guard in guards
    )


async def stale(bench: InProcessBench, on: bool) -> Figures:
    """Answers are fresh for 0.5 s, then stale for 2 s or not at all; sources take 30 ms, 300/s"""
    await bench.behave(30)
    async with bench.cashier({"cache": {"fresh_s": 0.5, "stale_s": 2.5 if on else 0}}) as cashier:
        hot = bench._replace(requests=bench.requests[:40])
        await hot.run(cashier, 300, 1.2)
        return (await hot.run(cashier, 300, 2)).percentiles(50, 90, 99)


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
    extra = calls / arrivals.consultations / len(SOURCE_NAMES) - 1
    return {**arrivals.percentiles(50, 95, 99), "extra calls %": 100 * extra}


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
    return {**arrivals.percentiles(50, 99), "calls to it %": 100 * calls / arrivals.consultations}


async def adaptive_timeout(bench: InProcessBench, on: bool) -> Figures:
    """The quota service hangs after 3.6 s at 200/s: the first second; ceiling 100 ms (breaker,
    limiter off)
    """
    await bench.behave(3, straggling_bps=20)
    async with bench.cashier({"cache": False, "breaker": False, "limiter": False, "adaptive_timeout": on}) as cashier:
        before = await bench.run(cashier, 200, 3.6)
        await bench.behave(3, hanging=("quota",))
        arrivals = await bench.run(cashier, 200, 0.8)
    judged = [each.name for each in cashier.pipelines.values() if each.spec.importance is not Importance.REQUIRED]
    given_up = sum(before.share(name, SourceStatus.TIMEOUT) for name in judged) / len(judged)
    return {**arrivals.percentiles(50, 99), "given up wrongly, of 10,000": 10_000 * given_up}


async def grace(bench: InProcessBench, on: bool) -> Figures:
    """Marketing takes 50 ms, the others 3, nothing cached: waits 15 ms longer for it, or 100 ms;
    100/s
    """
    await bench.behave(3, marketing=50)
    consult = {"grace_ms": 15 if on else 100}
    # The breaker would end the wait as well and hide the effect of the grace.
    marketing = {"breaker": False, "timeout_ms": 100}
    async with bench.cashier({"cache": False}, consult=consult, marketing=marketing) as cashier:
        await bench.run(cashier, 100, 0.5)
        arrivals = await bench.run(cashier, 100, 1)
    return {**arrivals.percentiles(50, 99), "with promotions %": 100 * arrivals.share("marketing", SourceStatus.FRESH)}


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
    return {"calls at once, first 2 s": first, "calls at once, later": later, **arrivals.percentiles(50)}


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
        opened, harvested = (await bench.seen()).opened, cashier.pipelines["marketing"].guard.counts.late_answers.value
        arrivals = await bench.run(cashier, 100, 1.2)
        opened = (await bench.seen()).opened - opened - 1  # without the control connection
        harvested = cashier.pipelines["marketing"].guard.counts.late_answers.value - harvested
    return {
        "connections per 1,000": 1_000 * opened / arrivals.consultations,
        "answers kept per 1,000": 1_000 * harvested / arrivals.consultations,
        "with promotions %": 100 * arrivals.share("marketing", *ANSWERED),
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
        "retries per 100 calls": 100
        * sum(each.retries.value for each in counts)
        / sum(each.first_calls.value for each in counts),
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


class MechanismResult(NamedTuple):
    """Figures of all rounds, by name."""

    mechanism: Mechanism
    off: Mapping[str, Figure]
    on: Mapping[str, Figure]

    @property
    def label(self) -> str:
        return f"{self.mechanism.name}: {self.mechanism.shown}"

    @property
    def ratio(self) -> Figure:
        """On ÷ off of the figure in the chart; NaN where "off" is zero."""
        off, on = self.off[self.mechanism.shown], self.on[self.mechanism.shown]
        return Figure.by_round(mine / its if its else math.nan for mine, its in zip(on.rounds, off.rounds, strict=True))

    @property
    def rows(self) -> Iterator[Row]:
        note = self.mechanism.about
        for name, off in self.off.items():
            yield Row(f"{self.mechanism.name}: {name}", {"off": off, "on": self.on[name]}, note)
            note = ""  # only at the first row of a mechanism


def measure(lab: Lab) -> Finding:
    tally = Tally()
    with pinned(PROGRAM_CORE), start_upstream(lab, users=lab.count(USERS)) as upstream:
        results = uvloop.run(measure_mechanisms(lab, upstream, tally))
    labels, ratios = [each.label for each in results], [each.ratio for each in results]
    chart = BarChart(
        "Effect of each mechanism: on ÷ off",
        "on ÷ off, less is better",
        labels,
        {"on ÷ off": ratios},
        ours=labels,
        marks={"no difference": 1.0},
    )
    return Finding(
        "Each mechanism off and on",
        key={f"ablation.{each.mechanism.name.replace(' ', '_')}": each.ratio for each in results},
        tables=[Table("Each mechanism off and on", [row for each in results for row in each.rows])],
        drawings=[chart],
        notes=list(notes(tally)),
    )


async def measure_mechanisms(lab: Lab, upstream: LeanUpstream, tally: Tally) -> list[MechanismResult]:
    requests = consult_requests(lab.count(USERS))
    use_service_gc()
    results = []
    for mechanism in MECHANISMS:
        lab.report(f"ablation: {mechanism.name}")
        rounds: dict[bool, list[Figures]] = {False: [], True: []}
        for turn in range(min(ROUNDS, lab.rounds)):
            for on, measured in rounds.items():
                bench = InProcessBench(lab, upstream, upstream.urls, requests, Random(turn), tally)
                measured.append(await mechanism.measure(bench, on))
        off, on_figures = (
            {name: Figure.by_round(each[name] for each in measured) for name in measured[0]}
            for measured in rounds.values()
        )
        results.append(MechanismResult(mechanism, off, on_figures))
    return results


def notes(tally: Tally) -> Iterator[str]:
    count = f"{tally.consultations:,}"
    if tally.lost:
        yield (
            f"{tally.lost:,} of {count} consultations (without the row on retries) had no answer, which is not "
            "expected: calls that wait for our own loop look like calls of a slow source. Rows with a wide spread mean "
            "nothing."
        )
    else:
        yield f"All {count} consultations were answered, apart from the row on retries, which measures this."
    yield tally.waiting.note("The engine's process")
    if tally.busiest:
        yield f"The sources' process was busy {tally.busiest:.0%} of its core at most."
