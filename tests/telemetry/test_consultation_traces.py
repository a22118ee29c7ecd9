"""Traces of consultations: what the collector receives, and what the upstreams are sent."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing, suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cashier import Cashier, OrderUnknown, RequiredSourceUnavailable
from cashier.caller_trace import CallerTrace
from cashier.consultation.source_table import SOURCE_NAMES
from cashier.fanout.ask import Importance, SourceStatus
from cashier.fanout.timeline import CallKind, CallOutcome, Flag
from cashier.telemetry.consultation_spans import source_spans
from cashier.telemetry.operation_spans import UnixClock
from cashier.telemetry.records import CallRecord, SourceRecord
from cashier.telemetry.trace_context import TraceContext
from cashier.telemetry.traced_step import TracedOperation, TracedStep
from tests.telemetry.collector import until
from tests.telemetry.rig import consult_request, rig, tree
from tests.telemetry.sample_records import record

CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
UNSAMPLED = CALLER[:-2] + "00"
ASKED = 1 + len(SOURCE_NAMES)


async def test_a_consultation_is_one_span_with_one_below_it_for_each_source() -> None:
    async with rig() as shop:
        consultation = await shop.consult()
        spans = await shop.spans(ASKED)
    root, *asks = spans
    assert (root.name, root.kind, root.parent_id, root.error) == ("POST /v1/consult", "SERVER", None, None)
    assert {span.name for span in asks} == set(SOURCE_NAMES)
    assert {(span.trace_id, span.parent_id, span.kind) for span in asks} == {(root.trace_id, root.span_id, "CLIENT")}
    attributes = root.attributes
    assert (attributes["http.request.method"], attributes["http.route"]) == ("POST", "/v1/consult")
    assert (attributes["http.response.status_code"], attributes["cashier.verdicts"]) == (200, "SAMPLED")
    assert (attributes["cashier.outcome"], attributes["cashier.deadline_ms"]) == ("COMPLETE", 20_000)
    assert (attributes["cashier.request_id"], attributes["cashier.order_id"]) == ("r-1", consultation.order.order_id)
    counted = sum(attributes[f"cashier.methods.{kind}"] for kind in ("available", "unavailable", "undetermined"))
    assert counted == len(consultation.methods) > 0
    card = next(span for span in asks if span.name == "card")
    assert card.attributes["cashier.source.status"] == "FRESH"
    assert card.attributes["http.response.status_code"] == 200
    assert card.attributes["server.address"] == "127.0.0.1"
    assert card.resource["service.name"] == "cashier"


async def test_times_lie_within_those_of_the_parent() -> None:
    async with rig() as shop:
        await shop.consult(traceparent=CALLER)
        spans = await shop.spans(ASKED)
    pairs = list(tree(spans))
    assert len(pairs) == len(SOURCE_NAMES)
    for span, parent in pairs:
        assert parent.started_ns <= span.started_ns <= span.ended_ns <= parent.ended_ns


MS = st.floats(-5, 50).map(lambda ms: round(ms, 2))


@given(MS, MS, st.integers(0, 40_000_000))
def test_no_span_of_a_source_ends_before_it_begins(started_ms: float, elapsed_ms: float, took_ns: int) -> None:
    """The times of a record are rounded, so a source may seem to start after the end of all."""
    step = TracedStep("POST /v1/consult", TraceContext.root(), TracedOperation(None))
    step.record_zero_ns = step.started_ns
    step.ended_ns = step.started_ns + took_ns
    source = SourceRecord("card", Importance.GATING, SourceStatus.PENDING, started_ms, elapsed_ms)
    clock = UnixClock()
    [span] = source_spans(step, record(sources=(source,)), clock)
    assert clock.ns(step.started_ns) <= span.started_ns <= span.ended_ns <= clock.ns(step.ended_ns)


async def test_the_callers_trace_is_continued_and_each_call_carries_its_own_span() -> None:
    async with rig(sample_bps=0) as shop:
        await shop.consult(traceparent=CALLER)
        root, *asks = await shop.spans(ASKED)
        sent = {request.name: request for request in shop.requests}
    assert (root.trace_id, root.parent_id) == (CALLER[3:35], CALLER[36:52])
    assert {span.name: (span.trace_id, span.span_id) for span in asks} == {
        name: request.span for name, request in sent.items()
    }
    assert {request.headers["traceparent"][-2:] for request in sent.values()} == {"01"}
    assert {request.headers["x-request-id"] for request in sent.values()} == {"r-1"}


async def test_what_the_caller_does_not_sample_passes_unchanged_and_leaves_no_span() -> None:
    async with rig(sample_bps=10_000) as shop:
        await shop.consult(traceparent=UNSAMPLED)
        assert {request.headers["traceparent"] for request in shop.requests} == {UNSAMPLED}
        await shop.consult("chinese_shop", traceparent=CALLER)
        spans = await shop.spans()
    assert {span.trace_id for span in spans} == {CALLER[3:35]}
    assert len([span for span in spans if span.kind == "SERVER"]) == 1


@pytest.mark.parametrize("caller", [CALLER, UNSAMPLED])
async def test_a_tracestate_goes_with_every_call_in_the_callers_trace(caller: str) -> None:
    async with rig(sample_bps=0) as shop:
        await shop.consult(traceparent=CallerTrace(caller, "rojo=1"))
        assert {request.name for request in shop.requests} == set(SOURCE_NAMES)
        assert {request.headers["tracestate"] for request in shop.requests} == {"rojo=1"}


async def test_a_tracestate_without_a_valid_traceparent_is_dropped_though_we_trace() -> None:
    async with rig(sample_bps=10_000) as shop:
        await shop.consult(traceparent=CallerTrace(CALLER.upper(), "rojo=1"))
        assert all("traceparent" in request.headers for request in shop.requests)
        assert not any("tracestate" in request.headers for request in shop.requests)


async def test_without_a_callers_trace_the_configured_share_is_traced() -> None:
    async with rig(sample_bps=0) as shop:
        await shop.consult()
        assert not any("traceparent" in request.headers for request in shop.requests)
    assert shop.collector.spans == []


@pytest.mark.parametrize(
    "header",
    [
        "",
        "garbage",
        CALLER.upper(),
        CALLER + "0",
        CALLER + "-00",
        "ff" + CALLER[2:],
        "00-" + "0" * 32 + CALLER[35:],
        CALLER[:36] + "0" * 16 + "-01",
        "00-ä\r\nX-Injected: 1",
    ],
)
async def test_an_invalid_header_is_ignored(header: str) -> None:
    async with rig(sample_bps=0) as shop:
        await shop.consult(traceparent=header)
        assert not any({"traceparent", "x-injected"} & set(request.headers) for request in shop.requests)
    assert shop.collector.spans == []


async def test_a_header_of_a_later_version_is_continued() -> None:
    async with rig(sample_bps=0) as shop:
        await shop.consult(traceparent=f"cc{CALLER[2:]}-what-will-be")
        root, *_ = await shop.spans(ASKED)
        assert {request.headers["traceparent"][:3] for request in shop.requests} == {"00-"}
    assert (root.trace_id, root.parent_id) == (CALLER[3:35], CALLER[36:52])


async def test_a_cached_answer_has_a_span_without_a_call() -> None:
    async with rig() as shop:
        await shop.consult()
        await shop.spans(ASKED)
        shop.collector.spans.clear()
        await shop.consult()
        spans = await shop.spans(ASKED)
    (merchant,) = (span for span in spans if span.name == "merchant")
    assert (merchant.kind, merchant.attributes["cashier.source.status"]) == ("INTERNAL", "CACHED")
    assert merchant.attributes["cashier.cache"] == "hit"
    assert "http.request.method" not in merchant.attributes


async def test_a_retry_is_an_event_and_a_span_of_its_own_under_the_sources() -> None:
    async with rig() as shop:
        shop.profile("quota", {"next": ["error"]})
        await shop.consult()
        spans = await shop.spans(ASKED + 1)
        sent = [request.span for request in shop.requests if request.name == "quota"]
    (quota,) = (span for span in spans if span.name == "quota")
    (retry,) = (span for span in spans if span.name == "quota retry")
    assert quota.error is None
    assert [(name, attributes.get("error.type")) for name, _, attributes in quota.events] == [
        ("call failed", "STATUS_5XX"),
        ("retry", None),
    ] or [name for name, _, _ in quota.events] == ["retry", "call failed"]
    assert (retry.parent_id, retry.kind, retry.attributes["http.request.resend_count"]) == (quota.span_id, "CLIENT", 1)
    assert sent == [(quota.trace_id, quota.span_id), (retry.trace_id, retry.span_id)]
    assert quota.started_ns <= retry.started_ns <= retry.ended_ns <= quota.ended_ns


async def test_a_hedge_is_an_event_and_a_span_of_its_own() -> None:
    """The trace is built of a slow first call and a second one beside it."""
    now_ns = time.perf_counter_ns()
    step = TracedStep("POST /v1/consult", TraceContext.root(), TracedOperation(None))
    step.started_ns, step.ended_ns = now_ns, now_ns + 20_000_000
    step.record_zero_ns = now_ns
    first, second = (step.begin_call("card", "GET") for _ in range(2))
    assert first is not None
    assert second is not None
    first.started_ns, second.started_ns, second.ended_ns = now_ns, now_ns + 5_000_000, now_ns + 9_000_000
    second.status = 200
    calls = (
        CallRecord("http://10.0.0.1:1", CallKind.FIRST, 0.0, None, CallOutcome.UNFINISHED),
        CallRecord("http://10.0.0.2:1", CallKind.HEDGE, 5.0, 9.0, CallOutcome.ANSWERED),
    )
    flags = (Flag.HEDGE_SENT, Flag.HEDGE_WON, Flag.LATE)
    source = SourceRecord("card", Importance.GATING, SourceStatus.FRESH, 0.0, 9.0, flags=flags, calls=calls)
    consultation = record(sources=(source,))
    card, hedge = source_spans(step, consultation, UnixClock())
    assert card.attributes["cashier.source.flags"] == "HS,HW,LA"
    assert [(event.name, event.attributes["server.address"]) for event in card.events] == [("hedge", "10.0.0.2")]
    assert (hedge.name, hedge.parent_id) == ("card hedge", card.context.span_id)
    assert (card.context, hedge.context) == (first.context, second.context)
    assert hedge.started_ns - card.started_ns == 5_000_000
    assert hedge.ended_ns == card.ended_ns


async def test_a_source_that_fails_has_the_reason() -> None:
    async with rig(sources={"quota": {"url": "http://127.0.0.1:9", "retry": False}}) as shop:
        await shop.consult()
        spans = await shop.spans(ASKED)
    (quota,) = (span for span in spans if span.name == "quota")
    assert (quota.error, quota.attributes["error.type"]) == ("REFUSED", "REFUSED")
    assert quota.attributes["server.port"] == 9
    root = spans[0]
    assert root.error is None, "an answer without the quotas is an answer"


async def test_a_consultation_without_an_answer_is_traced_too() -> None:
    async with rig(sources={"member": {"url": "http://127.0.0.1:9", "retry": False}}) as shop:
        with pytest.raises(RequiredSourceUnavailable):
            await shop.consult()
        spans = await shop.spans(2)
    assert (spans[0].attributes["cashier.outcome"], spans[0].error) == ("UNAVAILABLE", "UNAVAILABLE")
    assert next(span for span in spans if span.name == "member").error == "REFUSED"


async def test_an_unknown_order_is_no_error() -> None:
    async with rig() as shop:
        with pytest.raises(OrderUnknown):
            await shop.consult(order_id="o_unknown")
        root, *_ = await shop.spans(2)
    assert (root.attributes["cashier.outcome"], root.error) == ("ORDER_UNKNOWN", None)


async def test_a_streamed_consultation_is_traced_as_one() -> None:
    async with rig() as shop:
        async with aclosing(shop.cashier.stream(consult_request(), traceparent=CALLER)) as answers:
            assert [answer async for answer in answers]
        root, *asks = await shop.spans(ASKED)
    assert (root.attributes["cashier.streamed"], root.trace_id) == (True, CALLER[3:35])
    assert {span.name for span in asks} == set(SOURCE_NAMES)


async def test_a_consultation_that_its_caller_leaves_is_traced() -> None:
    async with rig() as shop:
        shop.profile("order", {"latency": {"shape": "constant", "ms": 5_000}})
        consulting = asyncio.create_task(shop.consult())
        await until(lambda: bool(shop.requests))
        consulting.cancel()
        with suppress(asyncio.CancelledError):
            await consulting
        root, *_ = await shop.spans()
    assert (root.attributes["cashier.outcome"], root.error) == ("ABANDONED", None)


async def test_the_spans_of_the_last_consultations_are_exported_at_the_close() -> None:
    async with rig() as shop:
        await shop.consult()
    assert len(shop.collector.spans) == ASKED


async def test_it_can_be_opened_again() -> None:
    async with rig() as shop:
        cashier: Cashier = shop.cashiers.pop()
        await cashier.__aexit__(None, None, None)
        async with cashier:
            shop.cashiers.append(cashier)
            await shop.consult()
        assert len(shop.collector.spans) == ASKED
        await cashier.__aenter__()
