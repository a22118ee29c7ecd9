"""A source behind a balancer that pins connections to backends, some of which are sick."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from cashier.fanout.ask import Importance
from cashier.fanout.breaker import BreakerSettings
from cashier.fanout.guard import Guard
from cashier.fanout.guarded_source import Mechanisms
from cashier.fanout.limiter import LimiterSettings
from cashier.fanout.load_shedding import DegradationLadder
from cashier.source_errors import SourceError
from cashier.sources.member import MEMBER
from cashier.sources.source_upstream import WireUpstream
from cashier.wire.aiohttp_client import AiohttpClient, AiohttpSettings
from cashier.wire.http1 import Http1Client, Http1Settings
from cashier.wire.transport import CallHeaders, Request, Transport
from tests.support.pinned_backends import Fault, PinnedBackends, pinned_backends
from tests.wire.client_side import PATIENT, RecordedCall

BACKENDS = 4
CALLERS = 4
# Longer than any stall of a busy machine.
PATIENCE_MS = 20_000
ERRORS = [
    Fault.ERROR, Fault.UNAVAILABLE, Fault.OVERLOADED, Fault.RATE_LIMITED, Fault.FORBIDDEN, Fault.GARBLES, Fault.NO_JSON,
    Fault.UNKNOWN_PATH, Fault.SHIFTED, Fault.RESETS,
]  # fmt: skip
# Faults that one record may have while all others are well.
ONE_RECORD = [fault for fault in ERRORS if fault is not Fault.SHIFTED] + [Fault.WRONG_USER]
ENDS_CONNECTION = (Fault.GARBLES, Fault.WRONG_USER, Fault.RESETS)
HEALTHY = [Fault.ONE_ANSWER, Fault.HTTP_1_0, Fault.SLOW]


class Member:
    """The member source over one address, and its outcomes by call."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self.guard = Guard(
            "member",
            WireUpstream(MEMBER, transport),
            PATIENCE_MS,
            Mechanisms(hedge=None, breaker=BreakerSettings(open_s=0.1)),
            DegradationLadder(),
            Importance.GATING,
            subject="user_id",
        )
        self._number = 0

    async def ask(self, user: str | None = None) -> Any:
        self._number += 1
        user = user or f"u_{self._number}"
        outcome: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        headers = CallHeaders(f"r-{self._number}")
        self.guard.start({"user_id": user}, headers, PATIENCE_MS, lambda answer, *_: outcome.set_result(answer))
        answer = await outcome
        assert isinstance(answer, SourceError) or answer.user_id == user, "an answer about another payer"
        return answer

    async def lost(self, calls: int) -> int:
        """Make the calls, some at a time, and return how many failed."""

        async def caller() -> int:
            return sum([isinstance(await self.ask(), SourceError) for _ in range(calls // CALLERS)])

        return sum(await asyncio.gather(*(caller() for _ in range(CALLERS))))


@contextlib.asynccontextmanager
async def member(client: str, backends: PinnedBackends, connections: int = 64) -> AsyncIterator[Member]:
    url = f"http://127.0.0.1:{backends.port}"
    transport: Transport = (
        Http1Client([url], Http1Settings(connections, **PATIENT))
        if client == "http1"
        else AiohttpClient([url], AiohttpSettings(connections, **PATIENT))
    )
    await transport.open()
    source = Member(transport)
    try:
        yield source
    finally:
        source.guard.close()
        await transport.close()


@pytest.mark.parametrize("client", ["http1", "aiohttp"])
@pytest.mark.parametrize("fault", ERRORS, ids=lambda fault: fault.name)
async def test_one_sick_backend_of_four_soon_costs_nothing(client: str, fault: Fault) -> None:
    async with pinned_backends(BACKENDS) as backends, member(client, backends) as source:
        assert await source.lost(80) == 0
        backends.faults[1] = fault
        lost = await source.lost(80)
        assert lost <= 12, "more than a few first calls were lost"
        assert await source.lost(120) <= 3, "more than the first calls on new connections were lost"
        backends.faults[1] = Fault.NONE
        assert await source.lost(80) == 0


@pytest.mark.parametrize("client", ["http1", "aiohttp"])
@pytest.mark.parametrize("fault", HEALTHY, ids=lambda fault: fault.name)
async def test_a_backend_that_is_merely_unusual_costs_nothing(client: str, fault: Fault) -> None:
    async with pinned_backends(BACKENDS) as backends, member(client, backends) as source:
        backends.faults[1] = fault
        assert await source.lost(80) == 0


async def test_a_slow_backend_soon_gets_few_calls() -> None:
    async with pinned_backends(BACKENDS) as backends, member("http1", backends) as source:
        await source.lost(80)
        backends.faults[1] = Fault.SLOW
        await source.lost(80)
        served = backends.served[1]
        await source.lost(200)
        assert backends.served[1] - served <= 20


async def test_two_sick_backends_of_four_soon_cost_nothing() -> None:
    async with pinned_backends(BACKENDS) as backends, member("http1", backends) as source:
        await source.lost(80)
        backends.faults[0] = backends.faults[1] = Fault.ERROR
        await source.lost(80)
        assert await source.lost(120) == 0


@pytest.mark.parametrize("fault", [Fault.ERROR, Fault.GARBLES, Fault.SHIFTED], ids=lambda fault: fault.name)
async def test_a_source_that_is_sick_as_a_whole_is_not_stormed_and_recovers(fault: Fault) -> None:
    async with pinned_backends(BACKENDS) as backends, member("http1", backends) as source:
        loop = asyncio.get_running_loop()
        await source.lost(80)
        began_s = loop.time()
        backends.faults[:] = [fault] * BACKENDS
        assert await source.lost(400) == 400
        seconds = 1 + int(loop.time() - began_s)
        assert len([moment_s for moment_s in backends.connects if moment_s >= began_s]) <= 4 + 2 * seconds
        backends.faults[:] = [Fault.NONE] * BACKENDS
        async with asyncio.timeout(30):
            while isinstance(await source.ask(), SourceError):  # noqa: ASYNC110 - of a clock that no test moves
                await asyncio.sleep(0.01)
        assert await source.lost(40) == 0


async def test_with_a_single_connection_a_sick_backend_is_left_within_seconds() -> None:
    async with pinned_backends(BACKENDS) as backends, member("http1", backends, connections=1) as source:
        await source.ask()
        sick = next(index for index, served in enumerate(backends.served) if served)
        backends.faults[sick] = Fault.ERROR
        async with asyncio.timeout(30):
            while isinstance(await source.ask(), SourceError):  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.01)
        assert backends.open <= 2


@pytest.mark.parametrize("client", ["http1", "aiohttp"])
@pytest.mark.parametrize("fault", ONE_RECORD, ids=lambda fault: fault.name)
async def test_failures_of_one_payer_do_not_shut_out_the_others(client: str, fault: Fault) -> None:
    async with pinned_backends(BACKENDS) as backends, member(client, backends) as source:
        backends.user_faults["u_poisoned"] = fault

        async def caller() -> None:
            for number in range(60):
                poisoned = number % 10 < 6
                assert isinstance(await source.ask("u_poisoned" if poisoned else None), SourceError) == poisoned

        assert await source.lost(8) == 0
        await asyncio.gather(*(caller() for _ in range(CALLERS)))
        endpoint = source.guard.endpoints[0]
        assert source.guard.counts.breaker_open.value == source.guard.counts.at_limit.value == 0
        assert endpoint.limiter.limit >= LimiterSettings().start * 0.8
        if fault not in ENDS_CONNECTION:
            assert len(backends.connects) <= 2 + 3 * 4 * CALLERS, "one bad record closes connections"


@pytest.mark.parametrize("fault", ONE_RECORD, ids=lambda fault: fault.name)
async def test_one_payer_who_fails_before_others_come_does_not_keep_them_out(fault: Fault) -> None:
    async with pinned_backends(BACKENDS) as backends, member("http1", backends) as source:
        backends.user_faults["u_poisoned"] = fault
        for _ in range(30):
            assert isinstance(await source.ask("u_poisoned"), SourceError)
        assert not isinstance(await source.ask(), SourceError)
        assert await source.lost(8) == 0


@pytest.mark.parametrize("fault", [*ERRORS, Fault.HTTP_1_0, Fault.ONE_ANSWER], ids=lambda fault: fault.name)
@pytest.mark.parametrize("client", ["http1", "aiohttp"])
async def test_no_post_is_ever_sent_twice_to_sick_backends(client: str, fault: Fault) -> None:
    async with pinned_backends(BACKENDS) as backends, member(client, backends) as source:
        backends.faults[:2] = [fault, fault]
        for number in range(60):
            body = b'{"payment":%d}' % number
            call = RecordedCall(source.transport, Request("/payments", "POST", body, safe=False))
            await call.outcome()
        assert len(backends.keys) == len(set(backends.keys))
        assert len(backends.keys) >= 30
