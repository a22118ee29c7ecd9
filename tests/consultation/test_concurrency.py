"""Two thousand consultations a second on real sockets: batching bounds the upstream calls."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import uvloop

from cashier import Cashier
from cashier.consultation.source_table import SOURCE_NAMES
from cashier.fanout.batch import Batch
from cashier.sandbox.generated_population import FIRST_NUMBER
from tests.consultation.test_degradation_on_sockets import CONSULT, PATIENT_MS, request
from tests.support.command_processes import ROOT

pytestmark = pytest.mark.timing

BATCHES = {
    "order": "/batch/orders",
    "member": "/batch/members",
    "card": "/batch/cards",
    "balance": "/batch/balances",
    "quota": "/batch/quotas",
    "marketing": "/batch/promotions",
}


@contextmanager
def lean_upstream(users: int) -> Iterator[str]:
    """An upstream process with prepared answers: at this rate the sandbox would limit."""
    command = [sys.executable, "-m", "benchmarks.lean_upstream", "--users", str(users), "--delay-ms", "5"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as child:
        assert child.stdout is not None
        try:
            yield f"http://127.0.0.1:{json.loads(child.stdout.readline())['order']}"
        finally:
            child.terminate()


def upstream_calls(cashier: Cashier) -> int:
    upstreams = [pipeline.guard.upstream for pipeline in cashier.pipelines.values()]
    single = [
        pipeline.guard.counts.first_calls.value
        for pipeline in cashier.pipelines.values()
        if not isinstance(pipeline.guard.upstream, Batch)
    ]
    return sum(upstream.calls.value for upstream in upstreams if isinstance(upstream, Batch)) + sum(single)


def test_two_thousand_batched_consultations_a_second_cost_at_most_one_and_a_half_calls_each() -> None:
    users, per_s = 2_000, 2_000

    async def measure(url: str) -> float:
        batched = {name: {"batch": {"path": path}} for name, path in BATCHES.items()}
        sources = {name: {"url": url, "timeout_ms": PATIENT_MS, **batched.get(name, {})} for name in SOURCE_NAMES}
        config = {"consult": CONSULT, "sources": sources, "tokens": {"secrets": ["s" * 32]}}
        requests = [request(n) for n in range(FIRST_NUMBER, FIRST_NUMBER + users)]
        async with Cashier(config=config) as cashier:
            await cashier.consult(requests.pop())  # caches merchants and channels
            before, started_s = upstream_calls(cashier), time.perf_counter()
            under_way = set()
            for index, consult_request in enumerate(requests):
                await asyncio.sleep(max(0.0, started_s + index / per_s - time.perf_counter()))
                under_way.add(asyncio.create_task(cashier.consult(consult_request)))
            for answer in await asyncio.gather(*under_way):
                assert not answer.degraded
            return (upstream_calls(cashier) - before) / len(requests)

    with lean_upstream(users) as url:
        calls_each = uvloop.run(measure(url))
    assert calls_each <= 1.5
