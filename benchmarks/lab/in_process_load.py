"""Consultations that arrive at a `Cashier` in this process, at random, and their outcomes.

Latency counts from the due time, so a late event loop counts too.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from random import Random

from benchmarks.lab.histogram import Histogram
from benchmarks.lab.precise_timer import PreciseTimer
from cashier import Cashier, ConsultRequest
from cashier.consultation.flow import ConsultError
from cashier.fanout.ask import SourceStatus


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

    `cpu_us`: CPU of this process for each consultation.
    """

    def __init__(self, cashier: Cashier, requests: Iterator[ConsultRequest]) -> None:
        self.latencies = Histogram()
        self.lost = 0
        self.statuses: Counter[tuple[str, SourceStatus]] = Counter()
        self.cpu_us = 0.0
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

    def share(self, name: str, *statuses: SourceStatus) -> float:
        return sum(self.statuses[name, status] for status in statuses) / max(1, self.consultations)

    async def run(self, per_s: float, seconds: float, random: Random) -> None:
        """Return when all are answered."""
        loop, used_s = asyncio.get_running_loop(), time.process_time()

        def arrive(due_s: float) -> None:
            self._consultations.append(loop.create_task(self._consult(due_s, next(self._requests))))

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
