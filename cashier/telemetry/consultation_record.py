"""Makes the record of a consultation from its end, and judges whether something was wrong."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any

from cashier.consultation.answer import Consultation
from cashier.consultation.end import ConsultationEnd, ConsultationOutcome
from cashier.domain.order import Order
from cashier.domain.pay_method import Availability, PayMethod
from cashier.fanout.ask import SourceStatus
from cashier.fanout.ask_state import PendingAsk
from cashier.fanout.timeline import AskTimeline, CallTimeline
from cashier.source_errors import SourceError
from cashier.telemetry.records import CallRecord, ConsultationRecord, MethodRecord, SourceRecord, Verdict
from cashier.web.problem import ProblemCode

_BPS = 10_000
# Of the text of a failure, which an upstream may have written in part.
LONGEST_DETAIL = 300
_AVAILABLE, _UNDETERMINED = Availability.AVAILABLE, Availability.UNDETERMINED
_PROBLEMS = {
    ConsultationOutcome.ORDER_UNKNOWN: ProblemCode.ORDER_UNKNOWN,
    ConsultationOutcome.UNAVAILABLE: ProblemCode.REQUIRED_SOURCE_UNAVAILABLE,
    ConsultationOutcome.ERROR: ProblemCode.INTERNAL,
}
_FAILED = frozenset({ConsultationOutcome.UNAVAILABLE, ConsultationOutcome.ERROR})


def is_good(end: ConsultationEnd, slow_bps: int) -> bool:
    """Whether there is no verdict. For every consultation, so it only compares."""
    consultation = end.consultation
    return (
        end.error is None
        and consultation is not None
        and not consultation.degraded
        and (end.ended_ns - end.started_ns) * _BPS <= slow_bps * (end.deadline_ns - end.started_ns)
        and not _any_undetermined(consultation.methods)
    )


def verdicts_of(end: ConsultationEnd, slow_bps: int) -> Iterator[Verdict]:
    """What was wrong. An answer that the caller did not wait for is judged by its time only."""
    if end.outcome in _FAILED:
        yield Verdict.FAILED
    consultation = end.consultation
    if end.error is None and consultation is not None:
        if consultation.degraded:
            yield Verdict.DEGRADED
        if _any_undetermined(consultation.methods):
            yield Verdict.UNDETERMINED
    if end.ended_ns > end.deadline_ns:
        yield Verdict.LATE
    elif (end.ended_ns - end.started_ns) * _BPS > slow_bps * (end.deadline_ns - end.started_ns):
        yield Verdict.SLOW


def _any_undetermined(methods: Sequence[PayMethod]) -> bool:
    """The ranking puts undetermined methods right after the available ones."""
    for method in methods:
        if method.availability is not _AVAILABLE:
            return method.availability is _UNDETERMINED
    return False


def consultation_record(
    end: ConsultationEnd,
    timelines: Sequence[AskTimeline],
    verdicts: tuple[Verdict, ...],
    worker: int,
    trace_id: str | None,
    facts: Any,
) -> ConsultationRecord:
    """`timelines`: of `end.asks`. `worker`, `trace_id`, `facts` as in the record."""
    request, zero_ns = end.request, end.started_ns
    currency, country = _market(end)
    problem = _PROBLEMS.get(end.outcome)
    blocked = None if end.consultation is None else end.consultation.blocked
    return ConsultationRecord(
        started_at=end.now - timedelta(microseconds=(end.asked_ns - zero_ns) // 1_000),
        request_id=end.call_headers.request_id,
        worker=worker,
        order_id=request.order_id,
        product=request.product.value,
        terminal=request.terminal.value,
        deadline_ms=_ms(end.deadline_ns - zero_ns),
        elapsed_ms=_ms(end.ended_ns - zero_ns),
        outcome=end.outcome,
        verdicts=verdicts,
        trace_id=trace_id,
        currency=currency,
        country=country,
        waited_ms=_ms(end.asked_ns - zero_ns),
        streamed=end.streamed,
        recheck=end.recheck,
        sources=tuple(
            _source(pending, timeline, zero_ns, end.ended_ns)
            for pending, timeline in zip(end.asks, timelines, strict=True)
        ),
        methods=_methods(end.consultation),
        blocked=None if blocked is None else blocked.code.value,
        problem=None if problem is None else problem.value,
        facts=facts,
    )


def _market(end: ConsultationEnd) -> tuple[str | None, str | None]:
    """Currency and country: the order's, or those that the caller claimed."""
    order = None if end.gathered is None else end.gathered.answers.get("order")
    if isinstance(order, Order):
        return order.amount.currency, order.country
    claimed = end.request.amount
    return None if claimed is None else claimed.currency, end.request.country


def _source(pending: PendingAsk, timeline: AskTimeline, zero_ns: int, ended_ns: int) -> SourceRecord:
    error = timeline.error
    until_ns = ended_ns if pending.status is None else pending.ended_ns
    never_started = pending.status is None and timeline.timeout_ns is None
    started_ns = until_ns if never_started else pending.started_ns
    return SourceRecord(
        name=pending.ask.name,
        importance=pending.ask.importance,
        status=pending.status or SourceStatus.PENDING,
        started_ms=_ms(started_ns - zero_ns),
        elapsed_ms=_ms(until_ns - started_ns),
        timeout_ms=None if timeline.timeout_ns is None else _ms(timeline.timeout_ns),
        age_ms=pending.age_ms,
        reason=_reason(error),
        detail=_detail(error),
        flags=timeline.flags,
        calls=tuple(_call(call, zero_ns) for call in timeline.calls),
    )


def _call(call: CallTimeline, zero_ns: int) -> CallRecord:
    return CallRecord(
        endpoint=call.endpoint,
        kind=call.kind,
        started_ms=_ms(call.started_ns - zero_ns),
        ended_ms=None if call.ended_ns is None else _ms(call.ended_ns - zero_ns),
        outcome=call.outcome,
        reason=_reason(call.error),
        detail=_detail(call.error),
    )


def _methods(consultation: Consultation | None) -> tuple[MethodRecord, ...]:
    if consultation is None:
        return ()
    return tuple(
        MethodRecord(
            kind=method.kind,
            availability=method.availability,
            rank=method.rank,
            reason=None if method.reason is None else method.reason.code,
            source=None if method.reason is None else method.reason.source,
        )
        for method in consultation.methods
    )


def _reason(error: SourceError | None) -> str | None:
    return None if error is None else error.reason.value


def _detail(error: SourceError | None) -> str | None:
    return None if error is None else error.detail[:LONGEST_DETAIL]


def _ms(ns: int) -> float:
    return (ns + 5_000) // 10_000 / 100
