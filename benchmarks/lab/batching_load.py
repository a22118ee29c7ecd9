"""Keys that arrive at six sources, each as a call of its own or in batches. No guard, no cache.

Also the paths at which the lean upstream takes batches.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import cycle
from random import Random
from typing import Any

from benchmarks.lab.histogram import Histogram
from benchmarks.lab.in_process_load import arrive_at_random
from cashier.consultation.source_table import SOURCE_SPECS
from cashier.fanout.ask import Known
from cashier.fanout.batch import Batch, BatchPolicy
from cashier.fanout.upstream_protocol import Upstream
from cashier.source_errors import SourceError
from cashier.sources.batch_call import BatchWireUpstream
from cashier.sources.source_upstream import WireUpstream
from cashier.wire.http1 import Http1Client
from cashier.wire.transport import CallHeaders

# Channels are shared by nearly all users and merchants are few: a cache does more for them.
PATHS = {
    "order": "/batch/orders",
    "member": "/batch/members",
    "card": "/batch/cards",
    "balance": "/batch/balances",
    "quota": "/batch/quotas",
    "marketing": "/batch/promotions",
}
SOURCES = {spec.source.name: spec.source for spec in SOURCE_SPECS}
BUDGET_MS = 100
CALL_HEADERS = CallHeaders("batch-bench")
# Calls without an answer after this time have failed.
REST_S = 2.0


class KeyLoadResult:
    """Outcome of one interval.

    `failed`: calls without a usable answer. `cpu_us`: CPU for each key.
    """

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
async def upstreams(urls: Mapping[str, str], policy: BatchPolicy | None) -> AsyncIterator[list[Upstream]]:
    """Connect to the six sources. Without `policy` each key is a call."""
    wires = {name: Http1Client([urls[name]]) for name in PATHS}
    for wire in wires.values():
        await wire.open()
    try:
        if policy:
            yield [Batch(BatchWireUpstream(SOURCES[name], wire, PATHS[name]), policy) for name, wire in wires.items()]
        else:
            yield [WireUpstream(SOURCES[name], wire) for name, wire in wires.items()]
    finally:
        for wire in wires.values():
            await wire.close()


async def run_interval(
    upstreams: Sequence[Upstream], known: Sequence[Known], per_s: float, seconds: float, random: Random
) -> KeyLoadResult:
    """Ask every source for the key of each of `per_s` customers a second on average.

    Returns when all are answered.
    """
    result, customers, used_s = KeyLoadResult(), cycle(known), time.process_time()

    def arrive(due_s: float) -> None:
        customer = next(customers)
        for upstream in upstreams:
            result.ask(upstream, customer, due_s)

    await arrive_at_random(per_s, seconds, random, arrive)
    until_s = time.perf_counter() + REST_S
    while result.ended < result.asked and time.perf_counter() < until_s:  # noqa: ASYNC110 - callbacks count
        await asyncio.sleep(0.002)
    result.failed += result.asked - result.ended
    result.cpu_us = (time.process_time() - used_s) / max(1, result.asked) * 1e6
    return result
