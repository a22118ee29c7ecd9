"""Traces of payments: one trace over all requests about a payment, in any worker."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cashier.caller_trace import CallerTrace
from cashier.domain.order_result import NoOrder
from cashier.domain.payment_resource import Payment
from cashier.domain.payment_state import PaymentStatus
from cashier.payments.errors import CheckUnavailable, RiskRejected
from cashier.payments.ports import PaymentPorts
from cashier.telemetry.settings import TelemetrySettings
from cashier.telemetry.span import Span
from cashier.telemetry.span_exporter import BuildSpans
from cashier.telemetry.trace_context import payment_root
from cashier.telemetry.traced_payments import LOOKS_IN_FULL, PaymentTracing
from cashier.telemetry.traced_ports import traced_ports
from cashier.telemetry.traced_step import MOST_LATE_STEPS, TracedOperation, TracedStep
from tests.telemetry.collector import ReceivedSpan, until
from tests.telemetry.rig import OTP, Rig, rig, tree

CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
SUBMIT, ANSWER = "POST /v1/payments", "POST /v1/payments/{payment_id}/challenge"
LOOK, CANCEL = "GET /v1/payments/{payment_id}", "POST /v1/payments/{payment_id}/cancel"
CHALLENGED = ("chinese_shop", "QUICK_PAY:c_2")


async def submit(shop: Rig, case: str, method_id: str, traceparent: str | None = None) -> Payment:
    request = await shop.payment_request(case, method_id)
    return await shop.payments().submit(request, "k1", request_id="r-pay", traceparent=traceparent)


async def ended(shop: Rig) -> list[ReceivedSpan]:
    """All spans, after the workers have closed."""
    await shop.close()
    return shop.collector.spans


def steps(spans: list[ReceivedSpan], parent: ReceivedSpan) -> list[str]:
    below = [span for span in spans if (span.trace_id, span.parent_id) == (parent.trace_id, parent.span_id)]
    return [span.name for span in sorted(below, key=lambda span: span.started_ns)]


async def test_a_submit_is_one_span_with_its_steps_below_it() -> None:
    async with rig(sample_bps=0) as shop:
        payment = await submit(shop, "balance_is_enough", "BALANCE:acc_1")
        spans = await ended(shop)
        sent = {request.span for request in shop.requests}
    (root,) = (span for span in spans if span.name == SUBMIT)
    assert steps(spans, root) == ["engine look up", "recheck", "risk decide", "engine submit", "acquirer result"]
    assert payment.status is PaymentStatus.SUCCEEDED
    assert (root.kind, root.parent_id, root.error) == ("SERVER", None, None)
    own = payment_root(payment.payment_id)
    assert (root.trace_id, root.span_id) == (own.trace_id, own.span_id)
    assert root.attributes["cashier.payment.id"] == payment.payment_id
    assert root.attributes["cashier.payment.status"] == "SUCCEEDED"
    assert root.attributes["cashier.request_id"] == "r-pay"
    assert root.attributes["http.response.status_code"] == 200
    by_name = {span.name: span for span in spans}
    assert by_name["risk decide"].attributes["cashier.outcome"] == "ACCEPTED"
    assert by_name["engine submit"].attributes["cashier.engine.status"] == "SUCCEEDED"
    assert by_name["acquirer result"].attributes["cashier.acquirer.status"] == "PAID"
    assert by_name["engine look up"].attributes["cashier.outcome"] == "NEVER_ARRIVED"
    assert set(steps(spans, by_name["recheck"])) >= {"order", "card", "quota"}
    assert sent == {(span.trace_id, span.span_id) for span in spans if span.kind == "CLIENT"}


async def test_times_lie_within_those_of_the_parent() -> None:
    async with rig(sample_bps=0) as shop:
        await submit(shop, "balance_is_enough", "BALANCE:acc_1")
        spans = await ended(shop)
    pairs = list(tree(spans))
    assert len(pairs) == len(spans) - 1
    for span, parent in pairs:
        assert parent.started_ns <= span.started_ns <= span.ended_ns <= parent.ended_ns


async def test_a_payment_is_one_trace_over_its_requests_in_two_workers() -> None:
    async with rig(workers=2, sample_bps=0) as shop:
        payment = await submit(shop, *CHALLENGED)
        assert payment.status is PaymentStatus.CHALLENGE
        answered = await shop.payments(1).answer(payment.payment_id, payment.payment_token, OTP)
        await shop.payments(0).look(answered.payment_id, answered.payment_token)
        await shop.payments(1).cancel(answered.payment_id, answered.payment_token)
        async with aclosing(shop.payments(0).follow(answered.payment_id, answered.payment_token)) as updates:
            await anext(updates)
        spans = await ended(shop)
    root, *others = [span for span in spans if span.kind == "SERVER"]
    assert root.name == SUBMIT
    assert {span.trace_id for span in spans} == {payment_root(payment.payment_id).trace_id}
    assert {span.name for span in others} == {ANSWER, LOOK, CANCEL, "GET /v1/payments/{payment_id}/events"}
    assert {span.parent_id for span in others} == {root.span_id}
    assert root.attributes["cashier.challenge.type"] == "SMS_OTP"
    assert "engine submit" not in steps(spans, root)
    (answer,) = (span for span in others if span.name == ANSWER)
    assert steps(spans, answer)[:2] == ["engine look up", "risk verify"]
    assert "engine submit" in steps(spans, answer)
    assert answer.attributes["cashier.route.channel"]
    assert len({span.span_id for span in spans}) == len(spans)


async def test_a_request_with_a_trace_is_traced_there_and_linked_with_the_payments_own() -> None:
    async with rig(sample_bps=0, payment_sample_bps=0) as shop:
        payment = await submit(shop, "balance_is_enough", "BALANCE:acc_1", CALLER)
        spans = await ended(shop)
        sent = {request.span for request in shop.requests}
    root = payment_root(payment.payment_id)
    in_callers, in_own = shop.collector.named(SUBMIT)
    assert (in_callers.trace_id, in_callers.parent_id, in_callers.kind) == (CALLER[3:35], CALLER[36:52], "SERVER")
    assert (in_own.trace_id, in_own.span_id, in_own.parent_id) == (root.trace_id, root.span_id, None)
    assert in_own.kind == "INTERNAL"
    assert in_callers.links == ((in_own.trace_id, in_own.span_id),)
    assert in_own.links == ((in_callers.trace_id, in_callers.span_id),)
    assert in_own.attributes == in_callers.attributes
    assert "engine submit" in steps(spans, in_callers)
    assert steps(spans, in_own) == []
    assert {span and span[0] for span in sent} == {CALLER[3:35]}


async def test_what_the_caller_does_not_sample_passes_unchanged() -> None:
    unsampled = CALLER[:-2] + "00"
    async with rig(sample_bps=0) as shop:
        await submit(shop, "balance_is_enough", "BALANCE:acc_1", unsampled)
        assert {request.headers["traceparent"] for request in shop.requests} == {unsampled}
        assert await ended(shop) == []


@pytest.mark.parametrize("caller", [CALLER, CALLER[:-2] + "00"])
async def test_a_tracestate_goes_with_every_call_of_the_payment(caller: str) -> None:
    async with rig(sample_bps=0) as shop:
        await submit(shop, "balance_is_enough", "BALANCE:acc_1", CallerTrace(caller, "rojo=1"))
        assert {"risk", "engine", "acquirer", "order"} <= {request.name for request in shop.requests}
        assert {request.headers.get("tracestate") for request in shop.requests} == {"rojo=1"}


async def test_the_configured_share_of_payments_is_traced() -> None:
    async with rig(sample_bps=0, payment_sample_bps=0) as shop:
        await submit(shop, "balance_is_enough", "BALANCE:acc_1")
        assert not any("traceparent" in request.headers for request in shop.requests)
        assert await ended(shop) == []


async def test_a_refusal_is_no_error_and_a_root_of_its_own() -> None:
    async with rig(sample_bps=0) as shop:
        shop.profile("risk", {"faults": {}})
        with pytest.raises(RiskRejected):
            await submit(shop, "listed_by_risk", "WALLET:ALIPAY")
        spans = await ended(shop)
    (refused,) = (span for span in spans if span.name == SUBMIT)
    assert (refused.parent_id, refused.error) == (None, None)
    assert (refused.attributes["error.type"], refused.attributes["http.response.status_code"]) == ("RISK_REJECTED", 402)
    assert "cashier.risk.code" in next(span for span in spans if span.name == "risk decide").attributes


async def test_a_service_that_fails_shows_in_its_step_and_in_the_operation() -> None:
    async with rig(sample_bps=0, sources={"risk": {"url": "http://127.0.0.1:9"}}) as shop:
        with pytest.raises(CheckUnavailable):
            await submit(shop, "balance_is_enough", "BALANCE:acc_1")
        spans = await ended(shop)
    decide = next(span for span in spans if span.name == "risk decide")
    assert (decide.error, decide.attributes["server.port"]) == ("REFUSED", 9)
    operation = next(span for span in spans if span.name == SUBMIT)
    assert (operation.error, operation.attributes["cashier.silent"]) == ("CHECK_UNAVAILABLE", "risk")


async def test_a_repeated_query_is_an_event_and_a_span_of_its_own() -> None:
    async with rig(sample_bps=0, sources={"engine": {"tries": {"first_wait_ms": 1}}}) as shop:
        request = await shop.payment_request("balance_is_enough", "BALANCE:acc_1")
        shop.profile("engine", {"next": [{"fault": "error", "on": "look_up"}]})
        await shop.payments().submit(request, "k1")
        spans = await ended(shop)
        sent = [request.span for request in shop.requests if request.name == "engine"]
    look = next(span for span in spans if span.name == "engine look up")
    retry = next(span for span in spans if span.name == "engine look up retry")
    assert (retry.parent_id, [name for name, _, _ in look.events]) == (look.span_id, ["retry"])
    assert sent[:2] == [(look.trace_id, look.span_id), (retry.trace_id, retry.span_id)]
    assert look.error is None


async def test_looks_are_bounded_and_the_one_that_finds_the_end_is_there() -> None:
    async with rig(sample_bps=0) as shop:
        payment = await submit(shop, "chinese_shop", "WALLET:ALIPAY")
        assert payment.status is PaymentStatus.ACTION_REQUIRED
        latest = payment
        for _ in range(LOOKS_IN_FULL + 4):
            latest = await shop.payments().look(latest.payment_id, latest.payment_token)
        assert shop.world.engine.settle(payment.payment_id, "SUCCEEDED", None).status == 200
        shop.requests.clear()
        last = await shop.payments().look(latest.payment_id, latest.payment_token)
        spans = await ended(shop)
        assert not any("traceparent" in request.headers for request in shop.requests)
    looks = [span for span in spans if span.name == LOOK]
    assert last.status is PaymentStatus.SUCCEEDED
    assert len(looks) == LOOKS_IN_FULL + 1
    assert [span.attributes["cashier.payment.status"] for span in looks][-1] == "SUCCEEDED"
    assert steps(spans, looks[-1]) == []
    assert steps(spans, looks[0])


async def test_a_found_payment_is_linked_with_the_order_that_was_asked_for() -> None:
    async with rig(sample_bps=0) as shop:
        payment = await submit(shop, "chinese_shop", "WALLET:ALIPAY")
        found = await shop.payments().find(payment.order_id, merchant_id="m_1", user_id="u_1")
        spans = await ended(shop)
    asked, in_own = (span for span in spans if span.name == "GET /v1/orders/{order_id}/payment")
    assert found.payment_id == payment.payment_id
    assert in_own.trace_id == payment_root(payment.payment_id).trace_id != asked.trace_id
    assert asked.links == ((in_own.trace_id, in_own.span_id),)


async def test_a_bug_of_tracing_costs_no_payment(monkeypatch: pytest.MonkeyPatch) -> None:
    def faulty(*_: object) -> None:
        raise ZeroDivisionError

    for place in ("traced_payments._payment_attributes", "traced_payments._places", "traced_ports._describe"):
        monkeypatch.setattr(f"cashier.telemetry.{place}", faulty)
    reported: list[object] = []
    async with rig(sample_bps=0) as shop:
        request = await shop.payment_request("balance_is_enough", "BALANCE:acc_1")
        asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context["exception"]))
        payment = await shop.payments().submit(request, "k1")
    assert payment.status is PaymentStatus.SUCCEEDED
    assert {type(bug) for bug in reported} == {ZeroDivisionError}


# Of each step whether it ends before the operation does.
ENDS = st.lists(st.booleans(), max_size=6)


@given(ENDS, st.booleans(), st.sampled_from([None, CALLER]))
def test_a_step_that_runs_on_when_its_operation_ends_is_exported_once(
    ends: list[bool], built_at_once: bool, caller: str | None
) -> None:
    """Such as a query of the engine that several looks share, of which one gives up."""
    built: list[Span] = []
    put: list[BuildSpans] = []

    def take(build: BuildSpans) -> None:
        if built_at_once:
            built.extend(build())
        else:  # as in the exporter's thread
            put.append(build)

    tracing = PaymentTracing(take, TelemetrySettings(payment_sample_bps=10_000), lambda _: 500)
    begun: list[TracedStep] = []
    with tracing.operation(CANCEL, "pay_1", caller, None) as operation:
        assert operation.step is not None
        for ends_before in ends:
            step = operation.step.begin_step("engine look up")
            assert step is not None
            begun.append(step)
            if ends_before:
                step.end()
    for step, ended_before in zip(begun, ends, strict=True):
        if not ended_before:
            step.end()
    built += [span for build in put for span in build()]
    ids = [(span.context.trace_id, span.context.span_id) for span in built]
    assert len(ids) == len(set(ids))
    looks = {span.context.span_id: span for span in built if span.name == "engine look up"}
    assert looks.keys() == {step.context.span_id for step in begun}
    durations_ns = {span_id: span.ended_ns - span.started_ns for span_id, span in looks.items()}
    assert durations_ns == {step.context.span_id: step.ended_ns - step.started_ns for step in begun}


async def test_the_workers_own_polls_of_a_payment_belong_to_its_submit() -> None:
    async with rig(sample_bps=0, accept={"most_in_background": 10}) as shop:
        payment = await submit(shop, "chinese_shop", "WALLET:ALIPAY")
        assert shop.world.engine.settle(payment.payment_id, "SUCCEEDED", None).status == 200
        before = len(shop.requests)
        await until(lambda: [request.name for request in shop.requests[before:]].count("acquirer") > 0)
        polls = shop.requests[before:]
        await until(lambda: not list(shop.payments().watched()))
        spans = await ended(shop)
    (root,) = (span for span in spans if span.name == SUBMIT)
    below = {(span.trace_id, span.span_id) for span in spans if span.parent_id == root.span_id}
    assert {poll.span for poll in polls} <= below
    late = [span for span in spans if span.started_ns > root.ended_ns]
    assert {span.name for span in late} == {"engine look up", "acquirer result"}


async def test_the_polls_of_a_worker_are_bounded_and_later_ones_are_not_sampled() -> None:
    exported: list[TracedStep] = []
    operation = TracedOperation(None)
    step = TracedStep("POST /v1/payments", payment_root("pay_1"), operation)
    operation.on_late_step = exported.append
    service: Any = FakeService()
    ports = traced_ports(PaymentPorts(risk=service, engine=service, acquirer=service))
    for _ in range(MOST_LATE_STEPS + 3):
        await ports.acquirer.result("o_1", step.call_headers("r-1"), 10)
    assert len(exported) == MOST_LATE_STEPS
    sampled = [headers.traceparent[-2:] for headers in service.received]
    assert sampled == ["01"] * MOST_LATE_STEPS + ["00"] * 3


class FakeService:
    """An acquirer. `received`: the headers of the calls."""

    def __init__(self) -> None:
        self.received: list[Any] = []

    async def result(self, order_id: str, call_headers: Any, budget_ms: int) -> NoOrder:
        self.received.append(call_headers)
        return NoOrder()
