"""Keys that arrive at six sources, each as a call of its own or gathered into batches. No engine, no cache, no guard: the batch alone.

Also where the lean upstream takes batches. Compares nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import cycle
from random import Random
from typing import Any

from benchmarks.lab.arrivals import arrive_at_random
from benchmarks.lab.histogram import Histogram
from cashier.consultation.plan import SOURCE_SPECS
from cashier.fanout.ask import Known
from cashier.fanout.batch import Batch, BatchPolicy
from cashier.fanout.upstream import Upstream
from cashier.source_errors import SourceError
from cashier.sources.batch_call import BatchWireUpstream
from cashier.sources.source_upstream import WireUpstream
from cashier.wire.http1 import Http1Client
from cashier.wire.transport import CallHeaders

# The channels are the same for nearly everybody and the merchants few: a cache does more for them.
PATHS = {
    "order": "/batch/orders",
    "member": "/batch/members",
    "card": "/batch/cards",
    "balance": "/batch/balances",
    "quota": "/batch/quotas",
    "marketing": "/batch/promotions",
}
SOURCES = {question.source.name: question.source for question in SOURCE_SPECS}
BUDGET_MS = 100
CALL_HEADERS = CallHeaders("batch-bench")
# What has not been answered by then never will be.
REST_S = 2.0


class KeyLoadResult:
    """What came of those of one interval. `failed`: came to nothing. `cpu_us`: of this process, each."""

    def __init__(self) -> None:
        self.latencies = Histogram()
        self.asked = self.ended = self.failed = 0
        self.cpu_us = 0.0

    def ask(self, upstream: Upstream, known: Known, due_s: float) -> None:
        def on_answer(outcome: Any, not_found: bool = False, body: bytes | None = None) -> None:
            self.ended += 1
            self.failed += isinstance(outcome, SourceError)
            self.latencies.record(time.perf_counter() - due_s)

        self.asked += 1
        upstream.call(known, CALL_HEADERS, BUDGET_MS, on_answer)


@asynccontextmanager
async def upstreams(urls: Mapping[str, str], numbers: BatchPolicy | None) -> AsyncIterator[list[Upstream]]:
    """Without `numbers` each key is a call."""
    wires = {name: Http1Client([urls[name]]) for name in PATHS}
    for wire in wires.values():
        await wire.open()
    try:
        if numbers:
            yield [Batch(BatchWireUpstream(SOURCES[name], wire, PATHS[name]), numbers) for name, wire in wires.items()]
        else:
            yield [WireUpstream(SOURCES[name], wire) for name, wire in wires.items()]
    finally:
        for wire in wires.values():
            await wire.close()


async def run_interval(
    asked: Sequence[Upstream], known: Sequence[Known], per_s: float, seconds: float, random: Random
) -> KeyLoadResult:
    """So many customers a second on average, each with one key for every source. Returns when all have been answered."""
    found, customers, used_s = KeyLoadResult(), cycle(known), time.process_time()

    def arrive(due_s: float) -> None:
        customer = next(customers)
        for upstream in asked:
            found.ask(upstream, customer, due_s)

    await arrive_at_random(per_s, seconds, random, arrive)
    until_s = time.perf_counter() + REST_S
    while found.ended < found.asked and time.perf_counter() < until_s:  # noqa: ASYNC110 - callbacks count, on this loop
        await asyncio.sleep(0.002)
    found.failed += found.asked - found.ended
    found.cpu_us = (time.process_time() - used_s) / max(1, found.asked) * 1e6
    return found
