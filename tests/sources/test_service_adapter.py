"""Adapters of risk, engine and acquirer: their calls, their answers, and what is never sent twice.

The transport is scripted, time is virtual.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest

from cashier.domain.engine_contract import (
    EngineAnswered,
    EngineKeyReused,
    NeverArrived,
    NotSent,
    OrderHasLiveAttempt,
    OutcomeUnknown,
    Sealed,
)
from cashier.domain.order_result import NoOrder, OrderResult
from cashier.domain.risk_contract import Accepted, NoChallenge, Passed, Rejected
from cashier.settings.loader import configuration
from cashier.settings.schema import ConfigurationError
from cashier.source_errors import Overloaded, Shed, SourceError, Unanswered, Unreachable
from cashier.sources.acquirer import AcquirerClient
from cashier.sources.engine import EngineClient
from cashier.sources.idempotent_retry import RetrySettings
from cashier.sources.risk import RiskClient
from cashier.sources.service_adapter import AdapterCalls, AdapterTransport, ServiceAdapter
from cashier.wire.transport import OnResponse, Request, Response
from cashier.wiring.upstreams import bare_upstreams

from .test_payment_services import CALL_HEADERS, CHALLENGED, INQUIRY, PAID, SUBMISSION

pytestmark = pytest.mark.looptime

PAY = Request("/pay", "POST", b"{}")
TOKEN = Request("/oauth/token", "POST", b"grant_type=client_credentials", read_only=True)
OK = Response(200, b'{"token": "t"}')
Submit = Callable[[AdapterCalls], Awaitable[Any]]


class Wire:
    """Answers the n-th request with the n-th of these; None: never. `unsent`: of those never."""

    addresses = ("there",)

    def __init__(self, *responses: Response | SourceError | None, unsent: bool = False) -> None:
        self.responses = list(responses)
        self.requests: list[Request] = []
        self.budgets: list[int] = []
        self.abandoned: list[Request] = []
        self._sent = not unsent

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def is_reachable(self) -> bool:
        return True

    def send(self, request: Request, call_headers: Any, budget_ms: int, on_response: OnResponse, avoid: int = 0) -> Any:
        assert call_headers is CALL_HEADERS
        self.requests.append(request)
        self.budgets.append(budget_ms)
        response = self.responses.pop(0)
        if response is not None:
            asyncio.get_running_loop().call_later(0.01, on_response, response)
        return SimpleNamespace(address_index=0, sent=self._sent, abandon=lambda: self.abandoned.append(request))


def engine_of(wire: Wire, **functions: Any) -> EngineClient:
    missing: Any = {"look_up": look_up_nothing, "submit": look_up_nothing}
    adapter = ServiceAdapter("engine", "my.engine", SimpleNamespace(**{**missing, **functions}))
    return EngineClient(AdapterTransport(adapter, wire), RetrySettings(attempts=2))


async def look_up_nothing(*arguments: Any) -> None: ...


async def submitted(wire: Wire, submit: Submit, budget_ms: int = 1000) -> Any:
    async def function(submission: Any, call: AdapterCalls) -> Any:
        assert submission is SUBMISSION
        return await submit(call)

    return await engine_of(wire, submit=function).submit(SUBMISSION, CALL_HEADERS, budget_ms)


def detail(outcome: Any) -> str:
    return str(outcome.error.detail)


async def test_a_token_may_be_fetched_before_the_one_call_that_pays() -> None:
    async def submit(call: AdapterCalls) -> Any:
        token = (await call(TOKEN)).json()["token"]
        await call(Request("/price"))
        await call(Request("/pay", "POST", headers=(("Authorization", f"Bearer {token}"),)))
        return PAID

    wire = Wire(OK, OK, OK)
    assert isinstance(await submitted(wire, submit), EngineAnswered)
    assert [request.target for request in wire.requests] == ["/oauth/token", "/price", "/pay"]
    assert wire.requests[2].headers == (("Authorization", "Bearer t"),)
    assert wire.budgets[0] > wire.budgets[1] > wire.budgets[2] > 0
    assert not any(request.safe for request in wire.requests if request.method == "POST"), "the wire repeats none"


@pytest.mark.parametrize("second", [PAY, Request("/pay", "PUT"), Request("/pay", safe=False)])
async def test_a_second_call_that_may_change_something_is_refused(second: Request) -> None:
    async def submit(call: AdapterCalls) -> Any:
        await call(PAY)
        await call(second)
        return PAID

    wire = Wire(OK, OK)
    outcome = await submitted(wire, submit)
    assert isinstance(outcome, OutcomeUnknown)
    assert "a second call that may change something within one submit" in detail(outcome)
    assert len(wire.requests) == 1


@pytest.mark.parametrize("first", [Unreachable("refused", sent=False), Unreachable("lost"), OK])
async def test_a_second_attempt_of_the_adapters_own_is_refused_also_after_a_failed_one(
    first: Response | SourceError,
) -> None:
    async def submit(call: AdapterCalls) -> Any:
        for _ in range(3):
            try:
                await call(PAY)
            except SourceError as error:
                last = error
        raise last

    wire = Wire(first, OK, OK)
    outcome = await submitted(wire, submit)
    assert len(wire.requests) == 1
    never_left = isinstance(first, SourceError) and not first.sent
    assert isinstance(outcome, NotSent if never_left else OutcomeUnknown)


async def test_an_adapter_that_tries_for_ever_ends_with_its_budget() -> None:
    async def submit(call: AdapterCalls) -> Any:
        while True:
            try:
                return await call(PAY)
            except SourceError:
                continue

    wire = Wire(Unreachable("lost"))
    assert isinstance(await submitted(wire, submit), OutcomeUnknown)
    assert len(wire.requests) == 1


async def test_two_calls_at_once_send_one() -> None:
    async def submit(call: AdapterCalls) -> Any:
        await asyncio.gather(call(PAY), call(PAY))
        return PAID

    wire = Wire(OK, OK)
    assert isinstance(await submitted(wire, submit), OutcomeUnknown)
    assert len(wire.requests) == 1


@pytest.mark.parametrize(
    ("responses", "expected"),
    [
        ((Unreachable("no token"),), NotSent),
        ((Response(503, b"", 1.0),), NotSent),
        ((OK, Unreachable("refused", sent=False)), NotSent),
        ((OK, Shed("too many calls")), NotSent),
        ((OK, Unreachable("lost")), OutcomeUnknown),
        ((OK, Overloaded("busy")), OutcomeUnknown),
        ((OK, Response(500, b"")), OutcomeUnknown),
        ((OK, Response(302, b"")), OutcomeUnknown),
        ((OK, Response(200, b"not JSON")), OutcomeUnknown),
    ],
)
async def test_only_a_call_that_may_have_paid_leaves_the_outcome_unknown(responses: Any, expected: type) -> None:
    async def submit(call: AdapterCalls) -> Any:
        await call(TOKEN)
        return (await call(PAY)).json()

    assert isinstance(await submitted(Wire(*responses), submit), expected)


async def test_a_timeout_counts_as_sent_only_if_the_paying_call_may_have_left() -> None:
    async def submit(call: AdapterCalls) -> Any:
        await call(TOKEN)
        await call(PAY)
        return PAID

    assert isinstance(await submitted(Wire(None), submit), NotSent)
    assert isinstance(await submitted(Wire(OK, None, unsent=True), submit), NotSent)
    late = Wire(OK, None)
    assert isinstance(await submitted(late, submit), OutcomeUnknown)
    assert late.abandoned[-1].target == "/pay"


async def test_an_adapter_that_outlives_its_submit_sends_nothing_more() -> None:
    ended = asyncio.Event()

    async def submit(call: AdapterCalls) -> Any:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            with pytest.raises(Unreachable, match="after the end of submit"):
                await call(PAY)
            ended.set()

    wire = Wire(OK)
    assert isinstance(await submitted(wire, submit, 50), NotSent)
    await ended.wait()
    assert wire.requests == []


async def test_a_caller_that_is_cancelled_cancels_the_adapter_and_its_call() -> None:
    async def submit(call: AdapterCalls) -> Any:
        await call(PAY)

    wire = Wire(None)
    waiting = asyncio.create_task(submitted(wire, submit))
    await asyncio.sleep(0.1)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert wire.abandoned == wire.requests


async def test_an_answer_before_the_end_of_the_own_call_is_none() -> None:
    background: list[asyncio.Task[Any]] = []

    async def submit(call: AdapterCalls) -> Any:
        background.append(asyncio.create_task(call(PAY)))
        await asyncio.sleep(0)
        return PAID

    outcome = await submitted(Wire(None), submit)
    assert isinstance(outcome, OutcomeUnknown)
    assert "returned before its call ended" in detail(outcome)
    with pytest.raises(Unreachable, match="ended before its call"):
        await background[0]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (PAID, EngineAnswered),
        ({"code": "ORDER_BUSY", "payment_id": "pay_2"}, OrderHasLiveAttempt),
        ({"code": "KEY_REUSED"}, EngineKeyReused),
        ({**PAID, "code": 0}, EngineAnswered),
        ({"code": "ORDER_BUSY", "payment_id": "pay_1"}, NotSent),
        ({"code": "DECLINED"}, NotSent),
        ({**PAID, "payment_id": "pay_2"}, NotSent),
        ({**PAID, "order_id": "o_2"}, NotSent),
        (None, NotSent),
    ],
)
async def test_what_a_submit_returns_is_read_as_the_contracts_answer(answer: Any, expected: type) -> None:
    async def submit(call: AdapterCalls) -> Any:
        return answer

    assert isinstance(await submitted(Wire(), submit), expected)


@pytest.mark.parametrize(
    ("answer", "looked_up", "reversed_"),
    [
        (PAID, EngineAnswered, EngineAnswered),
        (None, NeverArrived, Unanswered),
        ({"code": "PAYMENT_UNKNOWN"}, NeverArrived, Sealed),
        ({"code": "TOO_MANY"}, Unanswered, Unanswered),
        ({}, Unanswered, Unanswered),
    ],
)
async def test_what_a_query_returns_is_read_as_the_contracts_answer(
    answer: Any, looked_up: type, reversed_: type
) -> None:
    async def function(payment_id: str, order_id: str, call: AdapterCalls) -> Any:
        assert (payment_id, order_id) == ("pay_1", "o_1")
        return answer

    client = engine_of(Wire(), look_up=function, reverse=function)
    assert isinstance(await client.look_up("pay_1", "o_1", CALL_HEADERS, 1000), looked_up)
    assert isinstance(await client.reverse("pay_1", "o_1", CALL_HEADERS, 1000), reversed_)


async def test_a_query_may_post_often_and_is_repeated_as_a_whole() -> None:
    async def look_up(payment_id: str, order_id: str, call: AdapterCalls) -> Any:
        await call(PAY)
        await call(PAY)
        return PAID

    wire = Wire(OK, Unreachable("lost"), OK, OK)
    outcome = await engine_of(wire, look_up=look_up).look_up("pay_1", "o_1", CALL_HEADERS, 5000)
    assert isinstance(outcome, EngineAnswered)
    assert len(wire.requests) == 4


async def test_an_engine_without_a_reverse_leaves_the_payment_as_it_is() -> None:
    reported: list[str] = []
    adapter = ServiceAdapter("engine", "my.engine", SimpleNamespace(submit=look_up_nothing, look_up=look_up_nothing))
    client = EngineClient(
        AdapterTransport(adapter, Wire()), RetrySettings(attempts=1), lambda _, error: reported.append(error.detail)
    )
    assert isinstance(await client.reverse("pay_1", "o_1", CALL_HEADERS, 1000), Unanswered)
    assert reported == ["adapter my.engine has no function reverse"]


async def test_risk_and_acquirer_answer_in_the_contracts_shape() -> None:
    async def decide(inquiry: Any, call: AdapterCalls) -> Any:
        return decision

    async def verify(challenge_id: str, payment_id: str, value: str, call: AdapterCalls) -> Any:
        return verification

    async def result(order_id: str, call: AdapterCalls) -> Any:
        return order

    risk = RiskClient(
        AdapterTransport(ServiceAdapter("risk", "r", SimpleNamespace(decide=decide, verify=verify)), Wire())
    )
    acquirer = AcquirerClient(AdapterTransport(ServiceAdapter("acquirer", "a", SimpleNamespace(result=result)), Wire()))
    decision: Any = {"decision": "ACCEPT", "decision_id": "d_1"}
    assert await risk.decide(INQUIRY, CALL_HEADERS, 100) == Accepted("d_1")
    decision = {"decision": "REJECT", "decision_id": "d_1", "code": "R7"}
    assert await risk.decide(INQUIRY, CALL_HEADERS, 100) == Rejected("d_1", "R7")
    decision = {**decision, "payment_id": "pay_2"}
    assert isinstance(await risk.decide(INQUIRY, CALL_HEADERS, 100), Unanswered)
    verification: Any = {"status": "PASSED", "attempts_left": 2}
    assert await risk.verify("c_1", "pay_1", "1", CALL_HEADERS, 100) == Passed()
    verification = None
    assert await risk.verify("c_1", "pay_1", "1", CALL_HEADERS, 100) == NoChallenge()
    order: Any = {"order_id": "o_1", "status": "PAYING"}
    assert isinstance(await acquirer.result("o_1", CALL_HEADERS, 1000), OrderResult)
    order = None
    assert await acquirer.result("o_1", CALL_HEADERS, 1000) == NoOrder()


async def test_a_challenge_that_nothing_can_verify_is_no_decision() -> None:
    async def decide(inquiry: Any, call: AdapterCalls) -> Any:
        return CHALLENGED

    risk = RiskClient(AdapterTransport(ServiceAdapter("risk", "r", SimpleNamespace(decide=decide)), Wire()))
    outcome = await risk.decide(INQUIRY, CALL_HEADERS, 100)
    assert isinstance(outcome, Unanswered)
    assert detail(outcome) == "a challenge, but adapter r has no function verify"


async def test_declared_statuses_arrive_and_others_mean_what_they_mean_in_the_contract() -> None:
    async def look_up(payment_id: str, order_id: str, call: AdapterCalls) -> Any:
        return {202: PAID, 404: None}[(await call(Request("/q"))).status]

    for status, expected in ((202, EngineAnswered), (404, NeverArrived), (200, Unanswered), (503, Unanswered)):
        wire = Wire(*2 * [Response(status, b"")])
        client = engine_of(wire, look_up=look_up, statuses={202, 404})
        outcome = await client.look_up("pay_1", "o_1", CALL_HEADERS, 1000)
        assert isinstance(outcome, expected)
        if status == 503:
            assert isinstance(outcome, Unanswered)
            assert isinstance(outcome.error, Overloaded)


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ("look_up = None\nasync def submit(s, call): ...", "has no function look_up"),
        ("async def submit(s): ...\nasync def look_up(p, o, call): ...", "submit of adapter"),
        ("def submit(s, call): ...\nasync def look_up(p, o, call): ...", "is not an async function"),
        ("statuses = 'x'\nasync def submit(s, call): ...\nasync def look_up(p, o, call): ...", "statuses"),
    ],
)
def test_an_adapter_that_cannot_work_is_a_fault_at_start(source: str, fault: str, tmp_path: Any) -> None:
    (tmp_path / "broken_engine.py").write_text(source)
    service = {"url": "http://127.0.0.1:1"}
    sources = {"risk": service, "acquirer": service, "engine": {**service, "adapter": "broken_engine"}}
    names = ("order", "merchant", "member", "card", "balance", "channel", "quota")
    table = {"sources": {**dict.fromkeys(names, service), **sources}}
    config = configuration(table, "test", beside=tmp_path)
    with pytest.raises(ConfigurationError, match=fault):
        bare_upstreams(config, {}, lambda name, transport: transport, lambda name, body: None)
