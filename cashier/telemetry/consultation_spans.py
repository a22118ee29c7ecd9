"""Spans of a consultation, from its record and the calls that were traced: one for each source.

No user or merchant, no amount, nothing that an upstream or a caller wrote.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cashier.consultation.end import ConsultationOutcome
from cashier.domain.pay_method import Availability
from cashier.fanout.ask import SourceStatus
from cashier.fanout.timeline import CallKind, Flag
from cashier.telemetry.operation_spans import (
    UnixClock,
    address_attributes,
    call_attributes,
    further_call_spans,
)
from cashier.telemetry.records import CallRecord, ConsultationRecord, SourceRecord
from cashier.telemetry.span import Attributes, Span, SpanEvent, SpanKind
from cashier.telemetry.traced_step import TracedCall, TracedStep
from cashier.web.problem import STATUS_AND_TITLE, ProblemCode

_MS_NS = 1_000_000
_FAILED = frozenset({ConsultationOutcome.UNAVAILABLE, ConsultationOutcome.ERROR})
# The statuses that are no fault of anything: an answer, or one that could change nothing any more.
_FINE = frozenset(
    {SourceStatus.FRESH, SourceStatus.CACHED, SourceStatus.STALE, SourceStatus.SKIPPED, SourceStatus.PENDING}
)
# The first that applies says what the cache did.
_CACHE = (
    (Flag.FALLBACK, "fallback"),
    (Flag.STALE, "stale"),
    (Flag.SECOND_LEVEL, "second_level"),
    (Flag.CACHED, "hit"),
    (Flag.SHARED_FETCH, "shared"),
)


def consultation_attributes(record: ConsultationRecord) -> Attributes:
    attributes: Attributes = {
        "cashier.request_id": record.request_id,
        "cashier.order_id": record.order_id,
        "cashier.product": record.product,
        "cashier.terminal": record.terminal,
        "cashier.outcome": record.outcome.value,
        "cashier.verdicts": ",".join(record.verdicts),
        "cashier.deadline_ms": record.deadline_ms,
        "cashier.waited_ms": record.waited_ms,
        "cashier.streamed": record.streamed,
    }
    if record.blocked is not None:
        attributes["cashier.blocked"] = record.blocked
    if record.problem is not None:
        attributes["cashier.problem"] = record.problem
    for availability in Availability:
        count = sum(method.availability is availability for method in record.methods)
        attributes[f"cashier.methods.{availability.value.lower()}"] = count
    return attributes


def answer_attributes(record: ConsultationRecord) -> Attributes:
    """Of a consultation that a request asked for, not the recheck of a payment."""
    if record.outcome is ConsultationOutcome.ABANDONED:
        return {}
    status = 200 if record.problem is None else STATUS_AND_TITLE[ProblemCode(record.problem)][0]
    return {"http.response.status_code": status}


def consultation_error(record: ConsultationRecord) -> str | None:
    return record.outcome.value if record.outcome in _FAILED else None


def source_spans(step: TracedStep, record: ConsultationRecord, clock: UnixClock) -> Iterator[Span]:
    """One below `step` for each source, and one for each further call."""
    for source in record.sources:
        calls = [call for call in step.calls if call.source == source.name]
        yield from _source_spans(step, source, calls, step.record_zero_ns, clock)


def _source_spans(
    step: TracedStep, source: SourceRecord, calls: Sequence[TracedCall], zero_ns: int, clock: UnixClock
) -> Iterator[Span]:
    # The times of a record are rounded: a source that never started may begin beyond the end.
    started_ns = min(max(zero_ns + round(source.started_ms * _MS_NS), step.started_ns), step.ended_ns)
    ended_ns = min(max(started_ns, started_ns + round(source.elapsed_ms * _MS_NS)), step.ended_ns)
    context = calls[0].context if calls else step.context.child()
    yield Span(
        context=context,
        parent_id=step.context.span_id,
        name=source.name,
        kind=SpanKind.CLIENT if calls else SpanKind.INTERNAL,
        started_ns=clock.ns(started_ns),
        ended_ns=clock.ns(ended_ns),
        attributes=_attributes(source, calls),
        events=tuple(_events(source, zero_ns, clock)),
        error=None if source.status in _FINE else source.reason or source.status.value,
    )
    kinds = [call.kind.value.lower() for call in source.calls[1:]]
    if len(calls) != len(source.calls):  # an adapter makes several requests for one call
        kinds = ["request"] * (len(calls) - 1)
    yield from further_call_spans(source.name, calls[1:], kinds, context.span_id, ended_ns, clock)


def _attributes(source: SourceRecord, calls: Sequence[TracedCall]) -> Attributes:
    attributes: Attributes = {
        "cashier.source": source.name,
        "cashier.source.class": source.importance.value,
        "cashier.source.status": source.status.value,
        "cashier.source.flags": ",".join(source.flags),
        "cashier.cache": next((name for flag, name in _CACHE if flag in source.flags), "none"),
    }
    if source.timeout_ms is not None:
        attributes["cashier.source.timeout_ms"] = source.timeout_ms
    if source.age_ms:
        attributes["cashier.source.age_ms"] = source.age_ms
    if source.reason is not None:
        attributes["error.type"] = source.reason
    if source.calls:
        attributes |= address_attributes(source.calls[0].endpoint)
    if calls:
        attributes = {**call_attributes(calls[0]), **attributes}
    return attributes


def _events(source: SourceRecord, zero_ns: int, clock: UnixClock) -> Iterator[SpanEvent]:
    """A hedge or a retry when it was sent, and the failure of each call."""
    for call in source.calls:
        if call.kind is not CallKind.FIRST:
            yield _event(call.kind.value.lower(), call, call.started_ms, zero_ns, clock)
        if call.reason is not None and call.ended_ms is not None:
            yield _event("call failed", call, call.ended_ms, zero_ns, clock)


def _event(name: str, call: CallRecord, at_ms: float, zero_ns: int, clock: UnixClock) -> SpanEvent:
    attributes = address_attributes(call.endpoint)
    if call.reason is not None:
        attributes["error.type"] = call.reason
    return SpanEvent(name, clock.ns(zero_ns + round(at_ms * _MS_NS)), attributes)
