"""Objects with a port's methods: how they are recognised, and what ends them. Time is virtual."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from cashier.core import Cashier
from cashier.domain.engine_contract import EngineAnswered, EnginePayment, EngineStatus, NotSent, OutcomeUnknown
from cashier.settings.schema import ConfigurationError
from cashier.source_errors import Garbled, Shed, Unanswered, Unreachable
from cashier.sources.engine import EngineClient
from cashier.sources.idempotent_retry import RetrySettings
from cashier.sources.service_object import ObjectTransport
from cashier.wire.in_process import InProcessTransport
from cashier.wire.transport import Request

from .test_payment_services import CALL_HEADERS, SUBMISSION

pytestmark = pytest.mark.looptime

PAYMENT = EngineAnswered(EnginePayment(payment_id="pay_1", status=EngineStatus.SUCCEEDED))
SOURCES = ("order", "merchant", "member", "card", "balance", "channel", "quota")


class Engine:
    """Waits for `released`, and counts what started, ended and was cancelled."""

    def __init__(self) -> None:
        self.released = asyncio.Event()
        self.events: list[str] = []

    async def submit(self, submission: Any, call_headers: Any, budget_ms: int) -> Any:
        return await self._wait("submit")

    async def look_up(self, payment_id: str, order_id: str, call_headers: Any, budget_ms: int) -> Any:
        return await self._wait("look_up")

    async def reverse(self, payment_id: str, order_id: str, call_headers: Any, budget_ms: int) -> Any:
        return await self._wait("reverse")

    async def _wait(self, operation: str) -> Any:
        self.events.append(f"{operation} started")
        try:
            await self.released.wait()
        except asyncio.CancelledError:
            self.events.append(f"{operation} cancelled")
            raise
        self.events.append(f"{operation} ended")
        return PAYMENT


def client_of(engine: Any) -> tuple[EngineClient, ObjectTransport]:
    transport = ObjectTransport("engine", engine)
    return EngineClient(transport, RetrySettings(attempts=1)), transport


async def test_a_submit_runs_to_its_end_after_its_budget_and_a_look_up_is_cancelled() -> None:
    engine = Engine()
    client, transport = client_of(engine)
    assert isinstance(await client.submit(SUBMISSION, CALL_HEADERS, 50), OutcomeUnknown)
    assert isinstance(await client.look_up("pay_1", "o_1", CALL_HEADERS, 50), Unanswered)
    await asyncio.sleep(0)
    assert engine.events == ["submit started", "look_up started", "look_up cancelled"]
    engine.released.set()
    await asyncio.sleep(0)
    assert engine.events[-1] == "submit ended"
    await transport.close()


async def test_a_stop_waits_a_second_for_what_may_move_money() -> None:
    engine = Engine()
    client, transport = client_of(engine)
    waiting = asyncio.create_task(client.submit(SUBMISSION, CALL_HEADERS, 60_000))
    await asyncio.sleep(0.1)
    started_s = asyncio.get_running_loop().time()
    await transport.close()
    assert asyncio.get_running_loop().time() - started_s == pytest.approx(1, abs=0.1)
    assert isinstance(await waiting, OutcomeUnknown)
    assert engine.events == ["submit started", "submit cancelled"]
    assert isinstance(await client.submit(SUBMISSION, CALL_HEADERS, 1000), NotSent)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (Unreachable("refused", sent=False), NotSent),
        (Shed("own limit"), NotSent),
        (Unreachable("lost"), OutcomeUnknown),
        (Garbled("odd"), OutcomeUnknown),
        (ConnectionRefusedError("refused"), OutcomeUnknown),
    ],
)
async def test_only_a_stated_error_means_that_nothing_was_sent(error: Exception, expected: type) -> None:
    class Failing(Engine):
        async def submit(self, submission: Any, call_headers: Any, budget_ms: int) -> Any:
            raise error

    reported: list[str] = []
    transport = ObjectTransport("engine", Failing())
    client = EngineClient(transport, on_failure=lambda address, fault: reported.append(fault.cause))
    assert isinstance(await client.submit(SUBMISSION, CALL_HEADERS, 1000), expected)
    assert len(reported) == 1
    assert reported[0] in ("UNREACHABLE", "GARBLED"), "the log leaves out what was not asked"


async def test_an_object_receives_ids_and_its_budget() -> None:
    received: list[Any] = []

    class Asked(Engine):
        async def look_up(self, *arguments: Any) -> Any:
            received.append(arguments)
            return PAYMENT

    client, _ = client_of(Asked())
    assert await client.look_up("pay_1", "o_1", CALL_HEADERS, 500) == PAYMENT
    ((payment_id, order_id, call_headers, budget_ms),) = received
    assert (payment_id, order_id, call_headers.request_id) == ("pay_1", "o_1", "r-1")
    assert 490 <= budget_ms <= 500


def engine_without(name: str) -> Any:
    members = {method: getattr(Engine, method) for method in ("submit", "look_up", "reverse") if method != name}
    return type("Partial", (), members)()


def engine_with(name: str, method: Any) -> Any:
    return type("Odd", (Engine,), {name: method})()


@pytest.mark.parametrize(
    ("engine", "fault"),
    [
        (lambda: engine_without("reverse"), "the object Partial has no function reverse"),
        (lambda: Engine, "is the class Engine; an object of it is needed"),
        (
            lambda: engine_with("submit", lambda *arguments: PAYMENT),
            "submit of the object Odd is not an async function",
        ),
        (lambda: engine_with("look_up", Engine.submit), "look_up of the object Odd does not take 4 arguments"),
        (lambda: 5, "takes an object with submit and look_up and reverse, or an async function, not int"),
    ],
)
async def test_an_object_that_cannot_work_is_a_fault_at_start(engine: Any, fault: str) -> None:
    async def function(**inputs: Any) -> Any: ...

    async def service(request: Request) -> Any: ...

    services = {"risk": service, "acquirer": service, "engine": engine()}
    with pytest.raises(ConfigurationError, match=fault):
        Cashier(sources={**dict.fromkeys(SOURCES, function), **services})


@pytest.mark.parametrize("result", [None, 200, {"status": 200}, Garbled("x")])
async def test_a_function_that_returns_no_response_is_garbled(result: Any) -> None:
    async def service(request: Request) -> Any:
        return result

    client = EngineClient(InProcessTransport(service), RetrySettings(attempts=1))
    submitted = await client.submit(SUBMISSION, CALL_HEADERS, 1000)
    assert isinstance(submitted, OutcomeUnknown)
    assert isinstance(submitted.error, Garbled)
    assert isinstance(await client.look_up("pay_1", "o_1", CALL_HEADERS, 1000), Unanswered)
