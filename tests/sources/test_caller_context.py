"""Context variables: functions and adapters see those of their own caller, such as its tenant.

The callbacks of connections and timers have the context of the request that opened or set them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context, ContextVar
from functools import partial
from typing import Any

import pytest

from cashier.fanout.ask import AskCall, Known, OnOutcome
from cashier.fanout.guard import Guard
from cashier.source_errors import Unreachable
from cashier.sources.adapter_upstream import AdapterUpstream
from cashier.sources.balance import BALANCE
from cashier.sources.source_upstream import FunctionUpstream
from cashier.wire.transport import Request, Response
from tests.fanout.scripted_sources import NEVER, ScriptedSource, consult, enriching, gating, required
from tests.fanout.scripted_upstream import Asker, guarded, pass_ms, set_hedge_delay
from tests.sources.adapter_rig import CARDS, HEADERS, KNOWN, OK, AnsweringTransport, adapter_of, form_1, form_2

pytestmark = pytest.mark.virtual_time

TENANT: ContextVar[str] = ContextVar("tenant", default="none")
Run = Callable[..., Any]


def as_tenant(name: str) -> Run:
    """Runs a function in the context of a request of this tenant."""
    context = Context()
    context.run(TENANT.set, name)
    return context.run


class Noting(ScriptedSource):
    """Notes the tenant at its starts. Its answers come on the connection of another tenant."""

    def __init__(self, scripted: ScriptedSource) -> None:
        self.__dict__ |= scripted.__dict__
        self.tenants: list[str] = []

    def start(self, known: Known, call_headers: Any, budget_ms: int, done: OnOutcome) -> AskCall | None:
        self.tenants.append(TENANT.get())
        return super().start(known, call_headers, budget_ms, partial(as_tenant("another"), done))


@pytest.mark.parametrize("first_ms", [5, 20, 60])
@pytest.mark.parametrize("second_ms", [5, 20, NEVER])
async def test_a_source_that_waits_for_another_starts_in_its_own_context(first_ms: int, second_ms: int | None) -> None:
    order = Noting(required("order", gives={"currency": "CNY"}, after_ms=first_ms))
    channel = Noting(gating("channel", needs=("currency",), gives={"fee": 1}, after_ms=second_ms, timeout_ms=30))
    fees = Noting(gating("fees", needs=("fee",)))
    tips = Noting(enriching("tips", needs=("currency",)))
    TENANT.set("own")
    await consult(order, channel, fees, tips)
    assert order.tenants == channel.tenants == tips.tenants == ["own"]
    assert fees.tenants == (["own"] if second_ms else [])


def asked_as(tenant: str, guard: Guard, known: Known) -> Asker:
    asker = Asker()
    asker.call = as_tenant(tenant)(guard.start, known, HEADERS, 100, asker.done)
    return asker


async def test_a_hedged_function_is_called_again_in_the_context_of_its_own_call() -> None:
    tenants: list[tuple[str, str]] = []

    async def balance(user_id: str) -> dict[str, Any]:
        tenants.append((user_id, TENANT.get()))
        await asyncio.sleep(0.05)
        return {"user_id": user_id, "accounts": []}

    guard = guarded(FunctionUpstream(BALANCE, balance, ("user_id",)))
    set_hedge_delay(guard)
    asked_as("first", guard, {"user_id": "u_1"})
    await pass_ms(1)
    asked_as("second", guard, {"user_id": "u_2"})
    await pass_ms(60)
    assert sorted(tenants) == [("u_1", "first")] * 2 + [("u_2", "second")] * 2
    guard.close()


class OthersConnection(AnsweringTransport):
    """Its answers come in the context of another request."""

    def send(self, request: Request, call_headers: Any, budget_ms: int, on_response: Any, avoid: int = 0) -> Any:
        return super().send(request, call_headers, budget_ms, partial(as_tenant("another"), on_response), avoid)


@pytest.mark.parametrize("responses", [(OK,), (Unreachable("reset"), OK)])
@pytest.mark.parametrize("form", [1, 2])
async def test_an_adapter_runs_in_the_context_of_its_call(form: int, responses: tuple[Response, ...]) -> None:
    tenants: list[str] = []

    def noted(value: Any) -> Callable[[Any], Any]:
        def note(_asked: Any) -> Any:
            tenants.append(TENANT.get())
            return value

        return note

    async def answer(asked: Any, call: Any) -> Any:
        noted(None)(asked)
        await call(Request("/"))
        return noted(CARDS)(asked)

    adapter = form_1(noted(CARDS), noted(Request("/"))) if form == 1 else form_2()
    if form == 2:
        adapter.answer = answer
    guard = guarded(AdapterUpstream(adapter_of(adapter), OthersConnection(*responses)))
    asker = asked_as("own", guard, KNOWN)
    await pass_ms(5)
    assert asker.answered
    assert asker.error_type is None
    assert tenants == ["own"] * (1 + len(responses))
    guard.close()
