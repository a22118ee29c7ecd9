"""A `Cashier` in this process over sources in another one that simulate any behaviour."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from random import Random
from typing import Any, NamedTuple

from benchmarks.lab.in_process_load import Arrivals, run_arrivals
from benchmarks.lab.process import cpu_s
from benchmarks.lab.run_queue import RunQueueWait
from benchmarks.lab.study_run import Lab
from benchmarks.lab.upstream import LeanUpstream
from benchmarks.lab.upstream_control import SOURCE_NAMES, Behaviour, UpstreamCounts
from cashier import Cashier, ConsultRequest

# A quick run only checks that everything works: nothing is learned in such a short time.
QUICK_SCALE = 0.08


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

    def of(self, customers: int) -> InProcessBench:
        """The same bench with the first `customers` customers."""
        return self._replace(requests=self.requests[:customers])

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
        async with Cashier(
            config={"sources": sources, "consult": consult or {}, "tokens": {"secrets": ["b" * 32]}}
        ) as cashier:
            yield cashier

    async def run(self, cashier: Cashier, per_s: float, seconds: float, *, stormy: bool = False) -> Arrivals:
        """`stormy`: consultations without an answer are expected and do not count as lost."""
        start_s, used_s = time.perf_counter(), cpu_s(self.upstream.pid)
        tally, customers = self.tally, iter(lambda: self.random.choice(self.requests), None)
        with tally.waiting.of(os.getpid()):
            arrivals = await run_arrivals(cashier, customers, per_s, seconds * self.scale, self.random)
        lasted_s = time.perf_counter() - start_s
        if not self.lab.quick:  # its clock of 10 ms is too coarse for a quick run
            tally.busiest = max(tally.busiest, (cpu_s(self.upstream.pid) - used_s) / lasted_s)
        if not stormy:
            tally.consultations += arrivals.consultations
            tally.lost += arrivals.lost
        return arrivals
