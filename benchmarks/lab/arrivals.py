"""Consultations that arrive at an engine in this process, at random at a fixed rate, and what became of them. Builds no engine.

Latency counts from when each was due, however late our own loop was with it.
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
    """Tells `arrive` when it is due, in `time.perf_counter()`, so many times a second on average. Returns when the last has come."""
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
        while timer:  # noqa: ASYNC110 - the loop may be late with the last of them
            await asyncio.sleep(max(0.001, until_s - time.perf_counter()))


class Arrivals:
    """`lost`: consultations without an answer. `statuses`: of those with one, by source. `cpu_us`: of this process, each."""

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
        """In ms, of all, answered or not."""
        return self.latencies.at(quantile)

    def share(self, name: str, *statuses: SourceStatus) -> float:
        return sum(self.statuses[name, status] for status in statuses) / max(1, self.consultations)

    async def come(self, per_s: float, seconds: float, random: Random) -> None:
        """Returns when all have been answered."""
        loop, used_s = asyncio.get_running_loop(), time.process_time()

        def arrive(due_s: float) -> None:
            self._consultations.append(loop.create_task(self._consult(due_s, next(self._requests))))

        await arrive_at_random(per_s, seconds, random, arrive)
        await asyncio.gather(*self._consultations)
        self.cpu_us = (time.process_time() - used_s) / max(1, self.consultations) * 1e6

    async def _consult(self, due_s: float, request: ConsultRequest) -> None:
        try:
            found = await self._cashier.consult(request)
            self.statuses.update((report.name, report.status) for report in found.sources)
        except ConsultError:
            self.lost += 1
        self.latencies.record(time.perf_counter() - due_s)


async def run_arrivals(
    cashier: Cashier, requests: Iterator[ConsultRequest], per_s: float, seconds: float, random: Random
) -> Arrivals:
    """So many a second on average, for so long. `requests` has enough of them."""
    found = Arrivals(cashier, requests)
    await found.come(per_s, seconds, random)
    return found
