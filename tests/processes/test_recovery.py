"""Loops that feed themselves over sockets: all upstreams die at once, and the shared cache.

Ten seconds after they are back, the service answers as before, and nothing was done by hand. The
wait is for timers of the service; what the machine does in that time is compared with itself.
`fanout/test_recovery` tests the other loops in virtual time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from itertools import count
from statistics import median
from typing import Any, NamedTuple

import msgspec
import pytest

from cashier import Cashier, ConsultRequest
from cashier.consultation.answer import RequiredSourceUnavailable
from cashier.consultation.source_table import SOURCE_NAMES
from cashier.domain.pay_method import Availability
from cashier.fanout.retry_budget import LEAST_PER_S
from cashier.sandbox import World
from cashier.sandbox.generated_population import FIRST_NUMBER
from tests.fanout.l2.valkey_server import until, valkey_server
from tests.support.command_processes import Command, running

pytestmark = pytest.mark.processes

WORLD = World()
CALLERS = 4
ROUND = 60
USERS = 40  # so that caches matter
WITHIN_S = 10.0
# Beyond what a busy machine needs.
PATIENT_MS = 900
numbers = count()


class Round(NamedTuple):
    """`good`: the share of consultations in which every method is decided. `p50_ms`: of those."""

    good: float
    p50_ms: float


@asynccontextmanager
async def cashier_over(url: str, **more: Mapping[str, Any]) -> AsyncIterator[Cashier]:
    source = {"url": url, "timeout_ms": PATIENT_MS}
    config = {
        "consult": {"deadline_ms": PATIENT_MS + 100},
        "sources": dict.fromkeys(SOURCE_NAMES, source),
        "tokens": {"secrets": ["s" * 32]},
        # The callers share this loop.
        "shed": {"enabled": False},
        **more,
    }
    async with Cashier(config=config) as cashier:
        yield cashier


async def consulted(cashier: Cashier) -> float | None:
    """How many ms a consultation took; None if something was missing in it."""
    number = FIRST_NUMBER + next(numbers) % USERS
    request = msgspec.convert(WORLD.population.generated.consult_request(number), ConsultRequest)
    began_s = time.perf_counter()
    try:
        consultation = await cashier.consult(request)
    except RequiredSourceUnavailable:
        await asyncio.sleep(0.01)  # a caller that comes again
        return None
    took_ms = (time.perf_counter() - began_s) * 1_000
    undetermined = any(each.availability is Availability.UNDETERMINED for each in consultation.methods)
    return None if undetermined else took_ms


async def a_round(cashier: Cashier) -> Round:
    async def caller() -> list[float | None]:
        return [await consulted(cashier) for _ in range(ROUND // CALLERS)]

    took = [each for calls in await asyncio.gather(*(caller() for _ in range(CALLERS))) for each in calls]
    good = [each for each in took if each is not None]
    return Round(len(good) / len(took), median(good) if good else float("inf"))


async def usual_round(cashier: Cashier) -> Round:
    """Of a warm service."""
    await a_round(cashier)
    rounds = [await a_round(cashier) for _ in range(3)]
    assert [each.good for each in rounds] == [1.0] * 3
    return max(rounds, key=lambda each: each.p50_ms)


async def assert_recovers(cashier: Cashier, usual: Round) -> None:
    """The first healthy round begins within ten seconds."""
    back_s = time.monotonic()
    while True:
        began_s = time.monotonic()
        now = await a_round(cashier)
        if now.good == 1.0 and now.p50_ms < 3 * usual.p50_ms:
            assert began_s - back_s <= WITHIN_S
            return
        assert began_s - back_s <= WITHIN_S, (usual, now)


def assert_budget_kept(cashier: Cashier, began_s: float) -> None:
    windows = 1 + int((time.monotonic() - began_s) / 10)
    for pipeline in cashier.pipelines.values():
        counts, share_bps = pipeline.guard.counts, pipeline.guard.mechanisms.extra_bps
        extra = counts.hedges.value + counts.retries.value
        assert extra <= counts.first_calls.value * share_bps / 10_000 + windows * 10 * LEAST_PER_S, pipeline


async def address(sandbox: Command) -> str:
    return await asyncio.to_thread(sandbox.address, "Sandbox on")


async def test_a_service_recovers_from_the_loss_of_all_connections_to_its_sources() -> None:
    began_s = time.monotonic()
    with running("sandbox", "--port", "0", "--weather", "fixed") as sandbox:
        url = await address(sandbox)
        async with cashier_over(url) as cashier:
            usual = await usual_round(cashier)
            sandbox.kill()
            while (await a_round(cashier)).good:
                pass
            breakers = [endpoint.breaker for each in cashier.pipelines.values() for endpoint in each.guard.endpoints]
            while all(breaker.closed for breaker in breakers):
                await a_round(cashier)
            await asyncio.to_thread(sandbox.wait)
            with running("sandbox", "--port", url.rpartition(":")[2].rstrip("/"), "--weather", "fixed") as again:
                await address(again)
                await assert_recovers(cashier, usual)
            assert_budget_kept(cashier, began_s)


async def test_a_service_recovers_from_the_loss_of_its_shared_cache() -> None:
    """Nothing is lost meanwhile: each miss is a call, and calls for one key are shared."""
    began_s = time.monotonic()
    with valkey_server() as valkey, running("sandbox", "--port", "0", "--weather", "fixed") as sandbox:
        url = await address(sandbox)
        async with cashier_over(url, cache={"shared": valkey.url}) as cashier:
            level = cashier.pipelines["card"].cache.l2
            assert level is not None
            await until(lambda: level.reachable and level.coherent)
            usual = await usual_round(cashier)
            valkey.kill()
            while level.reachable:
                assert (await a_round(cashier)).good == 1.0
            firsts = calls(cashier)
            assert (await a_round(cashier)).good == 1.0
            assert calls(cashier) - firsts <= ROUND * len(SOURCE_NAMES)
            valkey.start()
            await assert_recovers(cashier, usual)
            await until(lambda: level.reachable and level.coherent)
            await assert_recovers(cashier, usual)
        assert_budget_kept(cashier, began_s)


def calls(cashier: Cashier) -> int:
    return sum(pipeline.guard.counts.first_calls.value for pipeline in cashier.pipelines.values())
