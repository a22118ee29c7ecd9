"""Spans of a traced operation, made after its end, outside of the event loop.

The span of a step that called an upstream has the id that the first call carried, so that what the
upstream does is below it. Further calls are spans of their own below that, and events in it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from urllib.parse import urlsplit

from cashier.telemetry.span import Attributes, Span, SpanEvent, SpanKind
from cashier.telemetry.traced_step import TracedCall, TracedStep


class UnixClock:
    """Turns `time.perf_counter_ns` into ns since 1970."""

    def __init__(self) -> None:
        self._offset_ns = time.time_ns() - time.perf_counter_ns()

    def ns(self, perf_counter_ns: int) -> int:
        return perf_counter_ns + self._offset_ns


def route_attributes(name: str) -> Attributes:
    """Of a span that is named by method and route, as the conventions demand."""
    method, _, route = name.partition(" ")
    return {"http.request.method": method, "http.route": route}


def call_attributes(call: TracedCall) -> Attributes:
    """By the conventions of OpenTelemetry for HTTP clients, without the path: it names users."""
    attributes: Attributes = {"http.request.method": call.method, **address_attributes(call.address)}
    if call.status is not None:
        attributes["http.response.status_code"] = call.status
    if call.error is not None:
        attributes["error.type"] = call.error.reason.value
    elif call.status is not None and call.status >= 400 and call.status != 404:
        attributes["error.type"] = str(call.status)
    return attributes


def address_attributes(address: str) -> Attributes:
    """Of the URL of an upstream, or another name of an address."""
    try:
        parts = urlsplit(address)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = None
    if not host:
        return {"server.address": address} if address else {}
    return {"server.address": host, "server.port": port or (443 if parts.scheme == "https" else 80)}


def step_spans(step: TracedStep, parent_id: str, clock: UnixClock) -> Iterator[Span]:
    """Of a step that called one service: one span, and one for each further call."""
    calls, started_ns, ended_ns = step.calls, step.started_ns, step.ended_ns
    further = calls[1:]
    context = calls[0].context if calls else step.context
    yield Span(
        context=context,
        parent_id=parent_id,
        name=step.name,
        kind=SpanKind.CLIENT if calls else SpanKind.INTERNAL,
        started_ns=clock.ns(started_ns),
        ended_ns=clock.ns(ended_ns),
        attributes={**(call_attributes(calls[-1]) if calls else {}), **step.attributes},
        events=tuple(SpanEvent("retry", clock.ns(call.started_ns), call_attributes(call)) for call in further),
        error=step.error,
    )
    yield from further_call_spans(step.name, further, ["retry"] * len(further), context.span_id, ended_ns, clock)


def further_call_spans(
    name: str, calls: Sequence[TracedCall], kinds: Sequence[str], parent_id: str, ended_ns: int, clock: UnixClock
) -> Iterator[Span]:
    """Spans of the calls after the first one. `ended_ns`: the end of their parent."""
    for number, (call, kind) in enumerate(zip(calls, kinds, strict=True), 1):
        ended = min(ended_ns if call.ended_ns is None else call.ended_ns, ended_ns)
        attributes = call_attributes(call)
        if kind == "retry":
            attributes["http.request.resend_count"] = number
        yield Span(
            context=call.context,
            parent_id=parent_id,
            name=f"{name} {kind}",
            kind=SpanKind.CLIENT,
            started_ns=clock.ns(min(call.started_ns, ended)),
            ended_ns=clock.ns(ended),
            attributes=attributes,
            error=None if call.error is None else call.error.reason.value,
        )
