"""What is recorded of a traced operation while it runs: its steps and its upstream calls.

Only traced operations have these objects. Spans are made of them when the operation has ended.
Times are those of `time.perf_counter_ns`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

from cashier.source_errors import SourceError
from cashier.telemetry.records import ConsultationRecord
from cashier.telemetry.span import Attributes
from cashier.telemetry.trace_context import TraceContext
from cashier.wire.transport import CallHeaders

MakeHeaders: TypeAlias = Callable[[str | None, str | None], CallHeaders]
"""Takes request id and traceparent of a caller."""

# Beyond these an operation runs on untraced: an event stream may poll for a quarter of an hour.
MOST_STEPS = 60
MOST_CALLS = 60
# Steps that end after the operation was exported, such as the worker's own polls of a payment.
MOST_LATE_STEPS = 20


class TracedCall:
    """One request to an upstream. `context`: the span that its traceparent names.

    `address`: where it was sent. `ended_ns`: None while it is in flight. Then it has the `status`
    of its HTTP answer, or an `error`; neither if it was abandoned.
    """

    __slots__ = ("address", "context", "ended_ns", "error", "method", "source", "started_ns", "status")

    def __init__(self, source: str, method: str, context: TraceContext) -> None:
        self.source = source
        self.method = method
        self.context = context
        self.address = ""
        self.started_ns = time.perf_counter_ns()
        self.ended_ns: int | None = None
        self.status: int | None = None
        self.error: SourceError | None = None


class TracedStep:
    """A whole operation, or a step of it. `error` as in `Span`.

    `context`: its span. `calls`: those made for it, without those of its own `steps`. `record`: of
    a step that is a consultation, with its zero, `record_zero_ns`.
    """

    __slots__ = (
        "attributes", "calls", "context", "ended_ns", "error", "has_ended", "name", "operation", "record",
        "record_zero_ns", "started_ns", "steps",
    )  # fmt: skip

    def __init__(self, name: str, context: TraceContext, operation: TracedOperation) -> None:
        self.operation = operation
        self.name = name
        self.context = context
        self.started_ns = self.ended_ns = time.perf_counter_ns()
        self.has_ended = False
        self.attributes: Attributes = {}
        self.error: str | None = None
        self.calls: list[TracedCall] = []
        self.steps: list[TracedStep] = []
        self.record: ConsultationRecord | None = None
        self.record_zero_ns = 0

    def call_headers(self, request_id: str) -> TracedCallHeaders:
        context = self.context
        return TracedCallHeaders(
            request_id=request_id, traceparent=context.traceparent, tracestate=context.tracestate, step=self
        )

    def begin_call(self, source: str, method: str) -> TracedCall | None:
        """None beyond the bound: such a call is not recorded, neither here nor upstream."""
        if len(self.calls) >= MOST_CALLS:
            return None
        call = TracedCall(source, method, self.context.child())
        self.calls.append(call)
        return call

    def begin_step(self, name: str) -> TracedStep | None:
        """None beyond the bound, as for a call."""
        if not self.operation.admits_step(self):
            return None
        step = TracedStep(name, self.context.child(), self.operation)
        if not self.operation.ended:
            self.steps.append(step)
        return step

    def end(self) -> None:
        self.ended_ns = time.perf_counter_ns()
        self.has_ended = True
        self.operation.step_ended(self)


OnLateStep: TypeAlias = Callable[[TracedStep], None]


class TracedOperation:
    """What all steps of an operation share. `caller`: the span that it continues, if any.

    `on_late_step` is set when the operation has ended; then it takes each further step that ends.
    """

    __slots__ = ("_late_left", "caller", "on_late_step")

    def __init__(self, caller: TraceContext | None) -> None:
        self.caller = caller
        self.on_late_step: OnLateStep | None = None
        self._late_left = MOST_LATE_STEPS

    @property
    def ended(self) -> bool:
        return self.on_late_step is not None

    def admits_step(self, parent: TracedStep) -> bool:
        if not self.ended:
            return len(parent.steps) < MOST_STEPS
        self._late_left -= 1
        return self._late_left >= 0

    def step_ended(self, step: TracedStep) -> None:
        if self.on_late_step is not None:
            self.on_late_step(step)


@contextmanager
def contained() -> Iterator[None]:
    """Report a bug of tracing to the event loop: it must cost no payment and no answer."""
    try:
        yield
    except Exception as bug:  # noqa: BLE001 - whatever it is, the payer has a right to the result
        asyncio.get_running_loop().call_exception_handler({"message": "cashier: tracing raised", "exception": bug})


class TracedCallHeaders(CallHeaders, frozen=True, kw_only=True):
    """The headers of a traced operation's calls. Each call replaces the traceparent by its own."""

    step: TracedStep

    def untraced(self) -> CallHeaders:
        """For calls beyond the bounds. Upstreams record nothing of them either."""
        context = TraceContext(self.step.context.trace_id, self.step.context.span_id, sampled=False)
        return CallHeaders(self.request_id, context.traceparent, self.tracestate)
