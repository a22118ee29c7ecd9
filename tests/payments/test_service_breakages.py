"""Broken objects and adapters of risk, engine and acquirer.

Each breakage at each operation, before and after the operation took effect: never an error that is
ours, never a second submit, and never a status that the ledger contradicts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from itertools import product
from typing import Any

import pytest

from cashier.domain.engine_contract import EngineAnswered, EnginePayment, NotSent, OutcomeUnknown
from cashier.domain.order_result import OrderResult
from cashier.domain.payment_resource import Payment
from cashier.domain.payment_state import PaymentStatus
from cashier.domain.risk_contract import Accepted, Challenged, WrongAnswer
from cashier.payments.errors import AcceptError, CheckUnavailable, EngineUnavailable
from cashier.source_errors import Garbled, Overloaded, Unanswered, Unreachable
from cashier.sources.service_adapter import AdapterTransport, ServiceAdapter
from cashier.sources.service_object import local_transport
from cashier.wire.in_process import InProcessTransport, LocalFunction
from cashier.wire.transport import Transport
from cashier.wiring import upstreams
from tests.payments.checkout import Checkout, checkout
from tests.support.service_forms import ContractAdapter, PortObject

pytestmark = pytest.mark.virtual_time

CASE, METHOD = "balance_is_enough", "BALANCE:acc_1"
SECRET = "4111111111111111"
OPERATIONS = ("decide", "submit", "look_up", "reverse", "result", "verify")
Breakage = Callable[[], Awaitable[Any]]


def returns(make: Callable[[], Any]) -> Breakage:
    async def breakage() -> Any:
        return make()

    return breakage


def raises(make: Callable[[], BaseException]) -> Breakage:
    async def breakage() -> Any:
        raise make()

    return breakage


async def never() -> Any:
    await asyncio.Event().wait()


async def ignores_its_cancellation() -> Any:
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        return {"status": "SUCCEEDED"}


async def cancels_itself() -> Any:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(0)


class Lying(dict[str, Any]):
    def items(self) -> Any:
        raise RuntimeError(SECRET)


def recursive() -> dict[str, Any]:
    value: dict[str, Any] = {"status": "SUCCEEDED"}
    value["self"] = value
    return value


def wrong(struct: Any, *values: Any, **fields: Any) -> Any:
    return lambda: struct(*values, **fields)


ILL_TYPED: Any = {"payment_id": 5, "status": [SECRET]}
PAID_BY_ANOTHER: Any = {"payment_id": "pay_another", "status": "SUCCEEDED"}
RETURNED: dict[str, Callable[[], Any]] = {
    "none": lambda: None,
    "a coroutine": never,
    "a number": lambda: 7,
    "a text": lambda: SECRET,
    "nothing in it": dict,
    "a code that is none": lambda: {"code": [SECRET]},
    "an unknown code": lambda: {"code": SECRET},
    "recursive": recursive,
    "huge": lambda: {"payment_id": "x" * (5 << 20), "status": "SUCCEEDED"},
    "not a number": lambda: {"status": float("nan")},
    "lazy": lambda: (part for part in "abc"),
    "lying": lambda: Lying(status="SUCCEEDED"),
    "a payment of another": lambda: PAID_BY_ANOTHER,
    "an answered payment of another": lambda: EngineAnswered(EnginePayment(**PAID_BY_ANOTHER)),
    "a payment of wrong types": wrong(EngineAnswered, EnginePayment(**ILL_TYPED)),
    "no payment": wrong(EngineAnswered, None),
    "an unknown error": wrong(OutcomeUnknown, SECRET),
    "an error without a reason": wrong(Unanswered, Overloaded(None, float("nan"))),  # type: ignore[arg-type]
    "a decision of wrong types": wrong(Accepted, 5),
    "no challenge": wrong(Challenged, "d_1", None),
    "too many attempts": wrong(WrongAnswer, 10**30),
    "an order of another": wrong(OrderResult, order_id="o_another", status="PAID"),
    "an order of wrong types": wrong(OrderResult, order_id=5, status="WON"),
}
RAISED: dict[str, Callable[[], BaseException]] = {
    "ValueError": lambda: ValueError(SECRET),
    "KeyError": lambda: KeyError(SECRET),
    "OSError": lambda: ConnectionRefusedError(SECRET),
    "a group": lambda: BaseExceptionGroup("group", [SystemExit(1), ValueError(SECRET)]),
    "SystemExit": lambda: SystemExit(1),
    "CancelledError": asyncio.CancelledError,
    "Garbled": lambda: Garbled(5),  # type: ignore[arg-type]
    "Overloaded": lambda: Overloaded("\x1b[31m", float("inf")),
}
BREAKAGES: dict[str, Breakage] = {
    **{f"returns {name}": returns(make) for name, make in RETURNED.items()},
    **{f"raises {name}": raises(make) for name, make in RAISED.items()},
    "hangs": never,
    "ignores its cancellation": ignores_its_cancellation,
    "cancels itself": cancels_itself,
}


class Broken:
    """One operation is broken. `late`: after the real one took effect. `calls`: of that one."""

    def __init__(self, operation: str, breakage: Breakage, *, late: bool) -> None:
        self.operation, self.breakage, self.late = operation, breakage, late
        self.healed = False
        self.calls = 0

    def around(self, real: Any) -> Any:
        broken = self

        def method(name: str) -> Any:
            async def call(self: Any, *arguments: Any) -> Any:
                function = getattr(real, name)
                if name != broken.operation or broken.healed:
                    return await function(*arguments)
                broken.calls += 1
                if broken.late:
                    await function(*arguments)
                return await broken.breakage()

            return call

        members = {name: method(name) for name in OPERATIONS}
        return type("Company", (), {**members, "statuses": (200, 404, 409, 422)})()


def break_objects(monkeypatch: pytest.MonkeyPatch, broken: Broken) -> None:
    def transport(service: str, function: LocalFunction) -> Transport:
        return local_transport(service, broken.around(PortObject(function)))

    monkeypatch.setattr(upstreams, "local_transport", transport)


def break_adapters(monkeypatch: pytest.MonkeyPatch, broken: Broken) -> None:
    def transport(service: str, function: LocalFunction) -> Transport:
        adapter = ServiceAdapter(service, "company", broken.around(ContractAdapter()))
        return AdapterTransport(adapter, InProcessTransport(function))

    monkeypatch.setattr(upstreams, "local_transport", transport)


def reasons(shop: Checkout, source: str) -> list[str]:
    return [report.reason for report in shop.workers[0].failures if report.source == source]


async def outcome_of_paying(shop: Checkout) -> Payment | AcceptError:
    request = await shop.new_request(CASE, METHOD)
    try:
        return await shop.submit(request)
    except AcceptError as refusal:
        return refusal


FORMS = {"object": break_objects, "adapter": break_adapters}


def cases(*dimensions: Any) -> list[Any]:
    """All combinations; most of them in the long run only, but each breakage in the short one."""
    return [
        pytest.param(*case, marks=() if index % 5 == 0 else pytest.mark.proof)
        for index, case in enumerate(product(*dimensions, BREAKAGES))
    ]


@pytest.mark.parametrize(("form", "late", "name"), cases(FORMS, (False, True)))
async def test_a_broken_submit_is_sent_once_and_never_failed(
    form: str, late: bool, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = Broken("submit", BREAKAGES[name], late=late)
    FORMS[form](monkeypatch, broken)
    async with checkout() as shop:
        outcome = await outcome_of_paying(shop)
        assert broken.calls == 1
        if late or form == "object":
            assert isinstance(outcome, Payment)
            assert outcome.status is PaymentStatus.PROCESSING
        else:  # the adapter has made no call: nothing was sent
            assert isinstance(outcome, EngineUnavailable)
        assert reasons(shop, "engine")
        assert not any(SECRET in reason for reason in reasons(shop, "engine"))
        broken.healed = True
        if late:
            assert isinstance(outcome, Payment)
            assert (await shop.look(outcome)).status is PaymentStatus.SUCCEEDED
        assert shop.count("submit") == int(late)


@pytest.mark.parametrize(("form", "late", "name"), cases(FORMS, (False, True)))
async def test_a_broken_decision_sends_nothing(
    form: str, late: bool, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = Broken("decide", BREAKAGES[name], late=late)
    FORMS[form](monkeypatch, broken)
    async with checkout() as shop:
        assert isinstance(await outcome_of_paying(shop), CheckUnavailable)
        assert (broken.calls, shop.count("submit")) == (1, 0)
        assert reasons(shop, "risk")
        assert not any(SECRET in reason for reason in reasons(shop, "risk"))


@pytest.mark.parametrize(("form", "operation", "name"), cases(FORMS, ("look_up", "result")))
async def test_a_broken_query_says_nothing_about_money(
    form: str, operation: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = Broken(operation, BREAKAGES[name], late=True)
    FORMS[form](monkeypatch, broken)
    # "There is none" is an answer, and of an adapter None says so. It says nothing about money.
    is_answer = name == "returns none" and form == "adapter"
    async with checkout() as shop:
        broken.healed = True
        payment = await shop.pay(CASE, METHOD)
        assert payment.status is PaymentStatus.SUCCEEDED
        broken.healed = False
        looked_at = await shop.look(payment)
        assert looked_at.status in (PaymentStatus.SUCCEEDED, PaymentStatus.PROCESSING)
        source = "engine" if operation == "look_up" else "acquirer"
        assert bool(reasons(shop, source)) is not is_answer
        assert not any(SECRET in reason for reason in reasons(shop, source))


async def test_an_object_that_states_that_nothing_was_sent_is_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    refused = Unreachable("refused", sent=False)
    for breakage in (returns(wrong(NotSent, Unreachable("refused"))), raises(lambda: refused)):
        broken = Broken("submit", breakage, late=False)
        break_objects(monkeypatch, broken)
        async with checkout() as shop:
            assert isinstance(await outcome_of_paying(shop), EngineUnavailable)
            assert reasons(shop, "engine") == ["refused"]
            broken.healed = True
            assert (await shop.pay(CASE, METHOD)).status is PaymentStatus.SUCCEEDED
