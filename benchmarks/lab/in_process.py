"""A `Cashier` in this process over the lean upstream in another one, and its random arrivals.

Latency counts from the due time, so a late event loop counts too.
"""

from __future__ import annotations

import asyncio
import gc
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, closing
from functools import partial
from random import Random
from typing import Any, NamedTuple

import msgspec

from benchmarks.lab import Lab
from benchmarks.lab.load_results import Histogram
from benchmarks.lab.precise_timer import PreciseTimer
from benchmarks.lab.process import cpu_s
from benchmarks.lab.process_resources import RunQueueWait
from benchmarks.lab.upstream import FIRST_USER, SOURCE_NAMES, Behaviour, LeanUpstream, UpstreamCounts
from cashier import Cashier, ConsultRequest
from cashier.consultation.answer import ConsultError
from cashier.fanout.ask import SourceStatus
from cashier.sandbox import World
from cashier.web.server import GC_THRESHOLD

# A quick run only checks that everything works: nothing is learned in such a short time.
QUICK_SCALE = 0.08
# Statuses of a source that has answered.
ANSWERED = (SourceStatus.FRESH, SourceStatus.CACHED, SourceStatus.STALE)


def use_service_gc() -> None:
    """Garbage collector settings of the service after its warm-up."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD, 10, 10)


def consult_requests(users: int) -> list[ConsultRequest]:
    crowd = World().population.generated
    return [msgspec.convert(crowd.consult_request(n), ConsultRequest) for n in range(FIRST_USER, FIRST_USER + users)]


async def arrive_at_random(per_s: float, seconds: float, random: Random, arrive: Callable[[float], None]) -> None:
    """Call `arrive` with each due time on the clock of `time.perf_counter()`, `per_s` on average.

    Returns after the last arrival.
    """
    until_s = time.perf_counter() + seconds
    with closing(PreciseTimer(asyncio.get_running_loop())) as timer:

        def arrived(due_s: float) -> None:
            arrive(due_s)
            after(due_s)

        def after(due_s: float) -> None:
            due_s += random.expovariate(per_s)
            if due_s < until_s:
                timer.at(due_s, partial(arrived, due_s))

        after(until_s - seconds)
        while timer:  # noqa: ASYNC110 - the loop may be late with the last arrivals
            await asyncio.sleep(max(0.001, until_s - time.perf_counter()))


class Arrivals:
    """`lost`: consultations without an answer. `statuses`: of the others, by source.

    `cpu_us`: CPU of this process for each consultation. `waiting`: for a core.
    """

    def __init__(self, cashier: Cashier, requests: Iterator[ConsultRequest]) -> None:
        self.latencies = Histogram()
        self.lost = 0
        self.statuses: Counter[tuple[str, SourceStatus]] = Counter()
        self.cpu_us = 0.0
        self.waiting = RunQueueWait()
        self._cashier = cashier
        self._requests = requests
        self._consultations: list[asyncio.Task[None]] = []

    def __repr__(self) -> str:
        return f"Arrivals({self.lost} of {self.consultations} lost, {self.latencies!r})"

    @property
    def consultations(self) -> int:
        return len(self._consultations)

    def at(self, quantile: float) -> float:
        """Latency in ms of all consultations, answered or not."""
        return self.latencies.at(quantile)

    def percentiles(self, *percents: int) -> dict[str, float]:
        return {f"p{percent} ms": self.at(percent / 100) for percent in percents}

    def share(self, name: str, *statuses: SourceStatus) -> float:
        return sum(self.statuses[name, status] for status in statuses) / max(1, self.consultations)

    async def run(self, per_s: float, seconds: float, random: Random) -> None:
        """Return when all are answered."""
        loop, used_s = asyncio.get_running_loop(), time.process_time()

        def arrive(due_s: float) -> None:
            self._consultations.append(loop.create_task(self._consult(due_s, next(self._requests))))

        with self.waiting.of(os.getpid()):
            await arrive_at_random(per_s, seconds, random, arrive)
            await asyncio.gather(*self._consultations)
        self.cpu_us = (time.process_time() - used_s) / max(1, self.consultations) * 1e6

    async def _consult(self, due_s: float, request: ConsultRequest) -> None:
        try:
            consultation = await self._cashier.consult(request)
            self.statuses.update((report.name, report.status) for report in consultation.sources)
        except ConsultError:
            self.lost += 1
        self.latencies.record(time.perf_counter() - due_s)


async def run_arrivals(
    cashier: Cashier, requests: Iterator[ConsultRequest], per_s: float, seconds: float, random: Random
) -> Arrivals:
    """Run `per_s` consultations a second on average. `requests` must not run out."""
    result = Arrivals(cashier, requests)
    await result.run(per_s, seconds, random)
    return result


class Tally:
    """Totals of all runs. `busiest`: the highest share of its core that the upstream used."""

    def __init__(self) -> None:
        self.consultations = self.lost = 0
        self.waiting = RunQueueWait()
        self.busiest = 0.0


class InProcessBench(NamedTuple):
    """`requests`: of the customers. `urls`: of the sources. `random`: the same for off and on."""

    lab: Lab
    upstream: LeanUpstream
    urls: Mapping[str, str]
    requests: Sequence[ConsultRequest]
    random: Random
    tally: Tally

    @property
    def scale(self) -> float:
        return QUICK_SCALE if self.lab.quick else 1.0

    async def behave(
        self, delay_ms: float, *, straggling_bps: int = 0, hanging: tuple[str, ...] = (), **other_ms: float
    ) -> None:
        """Set the delay of all sources, and of some another one."""
        delays_ms = {**dict.fromkeys(SOURCE_NAMES, delay_ms), **other_ms}
        behaviour = Behaviour(delays_ms, dict.fromkeys(SOURCE_NAMES, straggling_bps), hanging)
        await asyncio.to_thread(self.upstream.behave, behaviour)

    async def seen(self) -> UpstreamCounts:
        return await asyncio.to_thread(self.upstream.seen)

    @asynccontextmanager
    async def cashier(
        self,
        each: Mapping[str, Any] | None = None,
        *,
        consult: Mapping[str, Any] | None = None,
        **other: Mapping[str, Any],
    ) -> AsyncIterator[Cashier]:
        """`each`: configuration of all sources; `other`: additions for one of them."""
        sources = {name: {"url": self.urls[name], **(each or {}), **other.get(name, {})} for name in SOURCE_NAMES}
        config = {"sources": sources, "consult": consult or {}, "tokens": {"secrets": ["b" * 32]}}
        async with Cashier(config=config) as cashier:
            yield cashier

    async def run(self, cashier: Cashier, per_s: float, seconds: float, *, stormy: bool = False) -> Arrivals:
        """`stormy`: consultations without an answer are expected and do not count as lost."""
        start_s, used_s, tally = time.perf_counter(), cpu_s(self.upstream.pid), self.tally
        customers = iter(lambda: self.random.choice(self.requests), None)
        arrivals = await run_arrivals(cashier, customers, per_s, seconds * self.scale, self.random)
        tally.waiting.add(arrivals.waiting)
        if not self.lab.quick:  # its clock of 10 ms is too coarse for a quick run
            lasted_s = time.perf_counter() - start_s
            tally.busiest = max(tally.busiest, (cpu_s(self.upstream.pid) - used_s) / lasted_s)
        if not stormy:
            tally.consultations += arrivals.consultations
            tally.lost += arrivals.lost
        return arrivals
