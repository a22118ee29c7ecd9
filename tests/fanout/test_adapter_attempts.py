"""Second attempts of calls whose requests are made by an adapter: only where all were GETs."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from cashier.fanout.ask import Importance
from cashier.fanout.guard import Guard
from cashier.fanout.guarded_source import Mechanisms
from cashier.fanout.load_shedding import DegradationLadder
from cashier.source_errors import SourceError, Unreachable
from cashier.sources.adapter_upstream import AdapterUpstream
from cashier.wire.transport import Request
from tests.sources.adapter_rig import HEADERS, KNOWN, OK, AnsweringTransport, adapter_of, form_1
from tests.wire.client_side import until


def sequence(*methods: str) -> SimpleNamespace:
    async def answer(asked: Any, call: Any) -> Any:
        for method in methods:
            await call(Request("/", method))

    return SimpleNamespace(answer=answer)


def single(method: str) -> SimpleNamespace:
    return form_1(request=lambda asked: Request("/", method))


def guard_of(adapter: Any, transport: AnsweringTransport) -> Guard:
    upstream = AdapterUpstream(adapter_of(adapter), transport)
    return Guard("card", upstream, 5000, Mechanisms(), DegradationLadder(), Importance.GATING)


@pytest.mark.parametrize(
    ("adapter", "methods"),
    [
        (single("GET"), ["GET", "GET"]),
        (single("POST"), ["POST"]),
        (sequence("GET"), ["GET", "GET"]),
        (sequence("POST"), ["POST"]),
    ],
)
async def test_a_failed_call_is_retried_only_after_gets(adapter: Any, methods: list[str]) -> None:
    transport = AnsweringTransport(Unreachable("refused"))
    guard = guard_of(adapter, transport)
    ended: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    guard.start(KNOWN, HEADERS, 5000, lambda outcome, *_: ended.set_result(outcome))
    assert isinstance(await ended, SourceError)
    assert [request.method for request in transport.requests] == methods
    guard.close()


@pytest.mark.parametrize(
    ("adapter", "methods"),
    [
        (single("GET"), ["GET", "GET"]),
        (single("PUT"), ["PUT"]),
        (sequence("GET"), ["GET", "GET"]),
        (sequence("POST"), ["POST"]),
    ],
)
async def test_a_slow_call_is_hedged_only_after_gets(adapter: Any, methods: list[str]) -> None:
    transport = AnsweringTransport(None)
    guard = guard_of(adapter, transport)
    call: Any = guard.start(KNOWN, HEADERS, 5000, lambda *_: None)
    await until(lambda: bool(transport.requests))
    call.hedge(guard.clock_ns())
    for _ in range(5):
        await asyncio.sleep(0)
    assert [request.method for request in transport.requests] == methods
    call.abandon()
    guard.close()


async def test_a_hedge_sends_nothing_but_gets_and_its_end_does_not_hide_the_first_failure() -> None:
    transport = AnsweringTransport(None)
    guard = guard_of(sequence("GET", "POST"), transport)
    ended: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    call: Any = guard.start(KNOWN, HEADERS, 5000, lambda outcome, *_: ended.set_result(outcome))
    await until(lambda: bool(transport.requests))
    transport.answer_with(OK)
    call.hedge(guard.clock_ns())
    await until(lambda: call.extra is not None and call.extra.call is None)
    assert [request.method for request in transport.requests] == ["GET", "GET"]
    assert not ended.done()
    down = Unreachable("refused")
    transport.callbacks[0](down)
    assert await ended is down
    guard.close()
