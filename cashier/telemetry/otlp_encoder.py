"""Spans as OTLP protobuf, by the generated messages of `opentelemetry-proto`.

The only module that imports OpenTelemetry. The SDK is not used: its spans cost five times as much
to encode, and its exporter more memory than a worker may use for all of its telemetry.
"""

from __future__ import annotations

from collections.abc import Iterable

from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from cashier.telemetry.span import Attributes, Span

_SCOPE = "cashier"
_SAMPLED = 1


class OtlpEncoder:
    """Encodes exports of one process. `resource`: what all their spans have in common."""

    def __init__(self, resource: Attributes, version: str) -> None:
        self._resource = resource
        self._version = version

    def encode(self, spans: Iterable[Span]) -> bytes:
        """An `ExportTraceServiceRequest`. Several in a row are one: its only field is repeated."""
        request = ExportTraceServiceRequest()
        of_resource = request.resource_spans.add()
        _fill(of_resource.resource.attributes, self._resource)
        of_scope = of_resource.scope_spans.add()
        of_scope.scope.name, of_scope.scope.version = _SCOPE, self._version
        for span in spans:
            _add(of_scope.spans, span)
        return bytes(request.SerializeToString())

    def rejected(self, answer: bytes) -> int:
        """How many spans the collector did not take. 0 for an answer that is not OTLP's."""
        try:
            return int(ExportTraceServiceResponse.FromString(answer).partial_success.rejected_spans)
        except DecodeError:
            return 0


def _add(spans, span: Span) -> None:  # type: ignore[no-untyped-def]
    context = span.context
    added = spans.add(
        trace_id=bytes.fromhex(context.trace_id),
        span_id=bytes.fromhex(context.span_id),
        name=span.name,
        kind=int(span.kind),
        start_time_unix_nano=span.started_ns,
        end_time_unix_nano=span.ended_ns,
        flags=_SAMPLED,
    )
    if span.parent_id is not None:
        added.parent_span_id = bytes.fromhex(span.parent_id)
    _fill(added.attributes, span.attributes)
    for event in span.events:
        added_event = added.events.add(name=event.name, time_unix_nano=event.at_ns)
        _fill(added_event.attributes, event.attributes)
    for link in span.links:
        added.links.add(trace_id=bytes.fromhex(link.trace_id), span_id=bytes.fromhex(link.span_id))
    if span.error is not None:
        added.status.code, added.status.message = Status.STATUS_CODE_ERROR, span.error


def _fill(pairs, attributes: Attributes) -> None:  # type: ignore[no-untyped-def]
    for key, value in attributes.items():
        added = pairs.add(key=key).value
        match value:
            case bool():
                added.bool_value = value
            case int():
                added.int_value = value
            case float():
                added.double_value = value
            case _:
                added.string_value = value
