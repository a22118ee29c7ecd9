"""Faulty sources on real sockets: a dead replica, late answers, cancelled callers.

Service and upstreams share this loop, except where a process must die. Assertions are counts,
ratios and orders with wide margins, because the machine may be slow. `test_degradation` tests the
other faults, and the exact timing, in virtual time.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from itertools import count
from typing import Any, NamedTuple

import msgspec
import pytest
from aiohttp import web

from cashier import Cashier, ConsultRequest
from cashier.consultation.answer import Consultation
from cashier.consultation.source_table import SOURCE_NAMES
from cashier.fanout.ask import SourceStatus
from cashier.sandbox import SOURCES, Weather, World, create_app
from cashier.sandbox.generated_population import FIRST_NUMBER
from cashier.sandbox.weather import Constant, FaultProfile
from tests.support.command_processes import running
from tests.support.scripted_service import served

pytestmark = pytest.mark.timing

WORLD = World()
# More than a slow machine needs. Sources that hang or are late on purpose get less.
PATIENT_MS = 9_000
CONSULT = {"deadline_ms": 10_000, "max_deadline_ms": 10_000, "grace_ms": 9_000}
# For events that come by themselves, sooner or later.
SOON_S = 60.0
users = count(FIRST_NUMBER)


class CountingWeather(Weather):
    """Counts the calls of each source."""

    def __init__(self, start: Mapping[str, FaultProfile]) -> None:
        super().__init__(start, seed=3)
        self.calls: Counter[str] = Counter()

    def draw(self, source: str) -> Any:
        self.calls[source] += 1
        return super().draw(source)


class Sandbox(NamedTuple):
    """A sandbox on this loop. `peers`: the connections that sent it a request."""

    url: str
    weather: CountingWeather
    peers: set[Any]


@asynccontextmanager
async def sandbox(ms: float = 3) -> AsyncIterator[Sandbox]:
    weather = CountingWeather(dict.fromkeys(SOURCES, FaultProfile(Constant(ms))))
    peers: set[Any] = set()

    @web.middleware
    async def record_peer(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        assert request.transport is not None
        peers.add(request.transport.get_extra_info("peername"))
        return await handler(request)

    app = create_app(WORLD, weather)
    app.middlewares.append(record_peer)
    async with served(app) as url:
        yield Sandbox(url, weather, peers)


def cashier_over(
    upstream: Sandbox,
    settings: Mapping[str, Any] | None = None,
    *,
    consult: Mapping[str, int] = CONSULT,
    **by_source: Mapping[str, Any],
) -> Cashier:
    """Uncached, with long timeouts. `settings` apply to all sources, `by_source` to single ones."""
    common = {"url": upstream.url, "timeout_ms": PATIENT_MS, "cache": False, **(settings or {})}
    sources = {name: {**common, **by_source.get(name, {})} for name in SOURCE_NAMES}
    return Cashier(config={"consult": consult, "sources": sources, "tokens": {"secrets": ["s" * 32]}})


class TimedConsultation(NamedTuple):
    consultation: Consultation
    took_ms: float

    def status(self, name: str) -> SourceStatus:
        return next(report.status for report in self.consultation.sources if report.name == name)


def request(n: int) -> ConsultRequest:
    return msgspec.convert(WORLD.population.generated.consult_request(n), ConsultRequest)


async def consult(cashier: Cashier, n: int | None = None) -> TimedConsultation:
    """Consult for user number `n`, or for a new one."""
    consult_request = request(next(users) if n is None else n)
    started_s = time.perf_counter()
    return TimedConsultation(await cashier.consult(consult_request), (time.perf_counter() - started_s) * 1000)


async def consult_often(cashier: Cashier, times: int, at_once: int = 1) -> list[TimedConsultation]:
    async def in_turn(share: int) -> list[TimedConsultation]:
        return [await consult(cashier) for _ in range(share)]

    shares = await asyncio.gather(*(in_turn(times // at_once) for _ in range(at_once)))
    return [consulted for share in shares for consulted in share]


async def wait_until_idle(cashier: Cashier) -> None:
    """Wait until no call is under way, late ones included."""
    async with asyncio.timeout(SOON_S):
        while not idle(cashier):  # noqa: ASYNC110 - no event reports this
            await asyncio.sleep(0.02)


def idle(cashier: Cashier) -> bool:
    guards = [pipeline.guard for pipeline in cashier.pipelines.values()]
    return not any(guard.late_calls or any(endpoint.in_flight for endpoint in guard.endpoints) for guard in guards)


# Replicas


async def test_a_dead_replica_costs_no_cards_and_is_used_again_after_its_return() -> None:
    port = free_port()
    async with sandbox() as second, sandbox() as third:
        # Beside a replica in another process the two on this loop may seem slow. Only a dead one
        # may be avoided.
        breaker = {"open_s": 0.5, "failed_bps": 9_500}
        card = {"url": [f"http://127.0.0.1:{port}", second.url, third.url], "breaker": breaker}
        with running("sandbox", "--port", str(port), "--weather", "fixed") as first:
            await asyncio.to_thread(first.address, "Sandbox on")
            async with cashier_over(second, card=card) as cashier:
                first_endpoint = cashier.pipelines["card"].guard.endpoints[0]
                await consult_often(cashier, 60, at_once=4)
                assert first_endpoint.latency_ns  # it has answered
                load = asyncio.create_task(consult_often(cashier, 120, at_once=4))
                await asyncio.sleep(0.1)
                first.kill()
                during_the_kill = await load
                assert sum(consulted.status("card") is not SourceStatus.FRESH for consulted in during_the_kill) <= 8
                after = await consult_often(cashier, 120, at_once=4)
                assert all(consulted.status("card") is SourceStatus.FRESH for consulted in after)
                await asyncio.to_thread(first.wait)

                with running("sandbox", "--port", str(port), "--weather", "fixed") as again:
                    await asyncio.to_thread(again.address, "Sandbox on")
                    latency_before_ns = first_endpoint.latency_ns
                    async with asyncio.timeout(SOON_S):
                        while first_endpoint.latency_ns == latency_before_ns:
                            assert all(
                                consulted.status("card") is SourceStatus.FRESH
                                for consulted in await consult_often(cashier, 8, at_once=4)
                            )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


# Late answers


@pytest.mark.parametrize("late", [True, False])
async def test_a_source_slower_than_the_grace_keeps_its_connections_only_with_late_answers(
    late: bool,
) -> None:
    marketing = {"late": late}
    async with (
        sandbox() as upstream,
        sandbox(250) as slow,
        cashier_over(
            upstream, consult={**CONSULT, "grace_ms": 15}, marketing={"url": slow.url, **marketing}
        ) as cashier,
    ):
        await consult_often(cashier, 20)
        opened = len(slow.peers)
        consultations = await consult_often(cashier, 50)
        assert all(consulted.status("marketing") is not SourceStatus.FRESH for consulted in consultations)
        assert max(consulted.took_ms for consulted in consultations) < CONSULT["deadline_ms"]
        if late:
            assert len(slow.peers) - opened <= 10
        else:
            assert len(slow.peers) - opened >= 45
        await wait_until_idle(cashier)
        assert cashier.pipelines["marketing"].guard.counts.late_answers.value == 0, "uncached, so not kept"


# Cancelled callers


async def test_cancelled_consultations_leave_nothing_behind() -> None:
    async with sandbox(200) as upstream, cashier_over(upstream) as cashier:
        await consult_often(cashier, 20, at_once=20)
        tasks, opened = len(asyncio.all_tasks()), len(upstream.peers)
        for _ in range(5):
            consultations = [asyncio.create_task(consult(cashier)) for _ in range(20)]
            await asyncio.sleep(0.01)
            for task in consultations:
                task.cancel()
            results = await asyncio.gather(*consultations, return_exceptions=True)
            assert all(isinstance(result, asyncio.CancelledError) for result in results)
            assert not idle(cashier)  # there is something to leave behind
            await wait_until_idle(cashier)
        new = len(upstream.peers) - opened
        assert new <= len(SOURCE_NAMES)
        assert len(asyncio.all_tasks()) <= tasks + new  # one sandbox task per connection
        assert all(
            consulted.status(name) is SourceStatus.FRESH
            for consulted in await consult_often(cashier, 5)
            for name in SOURCE_NAMES
        )
