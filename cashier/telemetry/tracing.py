"""Tracing of one worker: decides what is traced, and hands over what has ended.

The decision comes first. The caller's `traceparent` decides by its flag *sampled*; without one a
share is traced. What is not traced costs one comparison for each upstream call, and passes the
caller's `traceparent` on unchanged.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from cashier.consultation.end import ConsultationEnd
from cashier.telemetry.consultation_spans import (
    answer_attributes,
    consultation_attributes,
    consultation_error,
    source_spans,
)
from cashier.telemetry.operation_spans import UnixClock, route_attributes
from cashier.telemetry.records import ConsultationRecord
from cashier.telemetry.sampling import Sampling
from cashier.telemetry.settings import TelemetrySettings
from cashier.telemetry.span import Span, SpanKind
from cashier.telemetry.span_exporter import SpanExporter
from cashier.telemetry.trace_context import TraceContext
from cashier.telemetry.traced_payments import PaymentTracing
from cashier.telemetry.traced_step import MakeHeaders, TracedOperation, TracedStep
from cashier.wire.transport import CallHeaders

_CONSULT = "POST /v1/consult"


class Tracing:
    """`payments` decides about the operations of payments. `status_of`: see there."""

    def __init__(
        self, exporter: SpanExporter, settings: TelemetrySettings, status_of: Callable[[Exception], int]
    ) -> None:
        self.exporter = exporter
        self._sampling = Sampling(settings.sample_bps)
        self.payments = PaymentTracing(exporter.put, settings, status_of)

    def reconfigure(self, settings: TelemetrySettings) -> None:
        """Apply other shares."""
        self._sampling.share_bps = settings.sample_bps
        self.payments.settings = settings

    def traced(self, plain: MakeHeaders) -> MakeHeaders:
        """Make the headers of a consultation's calls: `TracedCallHeaders` if it is traced."""

        def call_headers(request_id: str | None, traceparent: str | None) -> CallHeaders:
            headers = plain(request_id, traceparent)
            caller = None if headers.traceparent is None else TraceContext.parse(headers.traceparent)
            if caller is None:
                if not self._sampling.sampled(None):
                    return headers
                context = TraceContext.root()
            elif not caller.sampled:
                return headers
            else:
                context = caller.child()
            return TracedStep(_CONSULT, context, TracedOperation(caller)).call_headers(headers.request_id)

        return call_headers

    def on_traced(self, end: ConsultationEnd, record: ConsultationRecord) -> None:
        """Export a traced consultation. The recheck of a payment is a step of its operation."""
        step: TracedStep = end.call_headers.step
        step.record, step.record_zero_ns = record, end.started_ns
        if not end.recheck:
            step.started_ns, step.ended_ns = end.started_ns, end.ended_ns
            self.exporter.put(partial(_consultation_spans, step, record))


def _consultation_spans(step: TracedStep, record: ConsultationRecord) -> list[Span]:
    clock, caller = UnixClock(), step.operation.caller
    span = Span(
        context=step.context,
        parent_id=None if caller is None else caller.span_id,
        name=step.name,
        kind=SpanKind.SERVER,
        started_ns=clock.ns(step.started_ns),
        ended_ns=clock.ns(step.ended_ns),
        attributes={**route_attributes(step.name), **consultation_attributes(record), **answer_attributes(record)},
        error=consultation_error(record),
    )
    return [span, *source_spans(step, record, clock)]
