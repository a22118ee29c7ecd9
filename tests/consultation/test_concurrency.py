"""Two thousand consultations a second on real sockets, and how little their sources have to see of it."""

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
from cashier.consultation.plan import SOURCE_NAMES
from cashier.fanout.batch import Batch
from cashier.sandbox.generated_users import FIRST
from tests.consultation.test_degradation_on_sockets import DEADLINE_MS, PATIENT_MS, request
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
    """A process whose answers are made ahead: at such a rate the sandbox would be what is measured."""
    words = [sys.executable, "-m", "benchmarks.lean_upstream", "--users", str(users), "--delay-ms", "5"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as child:
        assert child.stdout is not None
        try:
            yield f"http://127.0.0.1:{json.loads(child.stdout.readline())['order']}"
        finally:
            child.terminate()


def calls(cashier: Cashier) -> int:
    upstreams = [pipeline.guard.upstream for pipeline in cashier.pipelines.values()]
    single = [
        pipeline.guard.counts.first_calls
        for pipeline in cashier.pipelines.values()
        if not isinstance(pipeline.guard.upstream, Batch)
    ]
    return sum(upstream.calls for upstream in upstreams if isinstance(upstream, Batch)) + sum(single)


def test_two_thousand_consultations_a_second_of_distinct_users_cost_one_and_a_half_calls_each() -> None:
    users, per_s = 2_000, 2_000

    async def ask(url: str) -> float:
        batched = {name: {"batch": {"path": path}} for name, path in BATCHES.items()}
        sources = {name: {"url": url, "timeout_ms": PATIENT_MS, **batched.get(name, {})} for name in SOURCE_NAMES}
        config = {"consult": {"deadline_ms": DEADLINE_MS}, "sources": sources, "tokens": {"secrets": ["s" * 32]}}
        asked = [request(n) for n in range(FIRST, FIRST + users)]
        async with Cashier(config=config) as cashier:
            await cashier.consult(asked.pop())  # merchants and channels are cached from here on
            before, began = calls(cashier), time.perf_counter()
            under_way = set()
            for index, each in enumerate(asked):
                await asyncio.sleep(max(0.0, began + index / per_s - time.perf_counter()))
                under_way.add(asyncio.create_task(cashier.consult(each)))
            for answer in await asyncio.gather(*under_way):
                assert not answer.degraded
            return (calls(cashier) - before) / len(asked)

    with lean_upstream(users) as url:
        each = uvloop.run(ask(url))
    assert each <= 1.5
