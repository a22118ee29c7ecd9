"""Payments as traces: each operation in its caller's trace, and all of them in the payment's own.

The id of a payment's own trace follows from the payment's id, so all requests about it meet there,
whichever workers serve them. An operation without a caller's trace is traced there alone. With one
it is traced in the caller's, with all its steps; the payment's own trace then has one span for it,
and a link leads from each of the two to the other.

The submit that makes the payment is the root of the payment's own trace.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from functools import partial
from random import random
from typing import Any, TypeVar

from cashier.domain.payment_id import payment_id as derived_payment_id
from cashier.domain.payment_request import AttemptRequest, PaymentRequest
from cashier.domain.payment_resource import FoundPayment, Payment
from cashier.domain.payment_state import FINAL
from cashier.payments.attempt import validated
from cashier.payments.attempt_recovery import ReplacedPayment
from cashier.payments.flow import PaymentFlow
from cashier.telemetry.consultation_spans import consultation_attributes, consultation_error, source_spans
from cashier.telemetry.operation_spans import UnixClock, route_attributes, step_spans
from cashier.telemetry.settings import TelemetrySettings
from cashier.telemetry.span import Attributes, Span, SpanEvent, SpanKind
from cashier.telemetry.span_exporter import BuildSpans
from cashier.telemetry.trace_context import TraceContext, payment_root, sampled_share_bps
from cashier.telemetry.traced_ports import DECIDE, RECHECK, SUBMIT, code_of
from cashier.telemetry.traced_step import MakeHeaders, TracedOperation, TracedStep, contained
from cashier.tokens.payment_state_token import PaymentClaims
from cashier.wire.transport import CallHeaders

_PAYMENT = "/v1/payments/{payment_id}"
_SUBMIT = "POST /v1/payments"
_ANSWER = f"POST {_PAYMENT}/challenge"
_CANCEL = f"POST {_PAYMENT}/cancel"
_LOOK = f"GET {_PAYMENT}"
_FOLLOW = f"GET {_PAYMENT}/events"
_FIND = "GET /v1/orders/{order_id}/payment"
_RESUME = f"POST {_PAYMENT}/resume"
_REPLACE = f"POST {_PAYMENT}/replace"

# Looks at one payment that a worker traces in full. Of the later ones it traces number 16, 32, 64
# and so on, and, without steps, those that find a change.
LOOKS_IN_FULL = 10
_MOST_LOOKED_AT = 10_000
# Of one event stream.
_MOST_STATUSES = 50
# When it was, by `time.perf_counter_ns`, and what.
_Event = tuple[int, Attributes]

Returned = TypeVar("Returned", Payment, ReplacedPayment)


class PaymentTracing:
    """Decides about the operations of payments, and exports them.

    `status_of`: the HTTP status that an error becomes. `settings`: replaced by a reload.
    """

    def __init__(
        self,
        put: Callable[[BuildSpans], None],
        settings: TelemetrySettings,
        status_of: Callable[[Exception], int],
    ) -> None:
        self._put = put
        self.settings = settings
        self._status_of = status_of
        self._live: dict[str, TracedStep] = {}
        self._looks: OrderedDict[str, int] = OrderedDict()

    def traced(self, plain: MakeHeaders) -> MakeHeaders:
        """Make the headers of an operation's calls. A traced one is found by its traceparent."""

        def call_headers(request_id: str | None, traceparent: str | None) -> CallHeaders:
            headers = plain(request_id, traceparent)
            step = self._live.get(headers.traceparent or "")
            return headers if step is None else step.call_headers(headers.request_id)

        return call_headers

    @contextmanager
    def operation(
        self, name: str, payment_id: str | None, traceparent: str | None, request_id: str | None
    ) -> Iterator[PaymentOperation]:
        """Trace what runs meanwhile, with the traceparent of the result."""
        caller = None if traceparent is None else TraceContext.parse(traceparent)
        own_root = None if payment_id is None else payment_root(payment_id)
        if not self._samples(caller, own_root):
            yield PaymentOperation(traceparent)
            return
        step = TracedStep(name, _context(caller, own_root), TracedOperation(caller))
        in_full = name != _LOOK or payment_id is None or self._looks_in_full(payment_id)
        operation = PaymentOperation(step.context.traceparent if in_full else traceparent, step)
        if request_id is not None:
            step.attributes["cashier.request_id"] = request_id
        if in_full:
            self._live[step.context.traceparent] = step
        try:
            yield operation
        except BaseException as error:
            with contained():
                operation.raised(error, self._status_of)
            raise
        finally:
            self._live.pop(step.context.traceparent, None)
            step.end()
            if in_full or operation.is_news:
                with contained():
                    self._export(step, operation, payment_id)

    def _samples(self, caller: TraceContext | None, own_root: TraceContext | None) -> bool:
        if caller is not None:
            return caller.sampled
        if own_root is None:  # of an order: there is no payment yet whose requests must agree
            return random() * 10_000 < self.settings.payment_sample_bps
        return sampled_share_bps(own_root.trace_id) < self.settings.payment_sample_bps

    def _looks_in_full(self, payment_id: str) -> bool:
        looks = self._looks.pop(payment_id, 0) + 1
        self._looks[payment_id] = looks
        if len(self._looks) > _MOST_LOOKED_AT:
            self._looks.popitem(last=False)
        return looks <= LOOKS_IN_FULL or looks & (looks - 1) == 0

    def _export(self, step: TracedStep, operation: PaymentOperation, payment_id: str | None) -> None:
        payment_id = payment_id or operation.payment_id
        own_root = None if payment_id is None else payment_root(payment_id)
        if payment_id is not None:
            step.attributes["cashier.payment.id"] = payment_id
        places = _places(step, own_root)
        (context, _), *_ = places
        step.operation.on_late_step = lambda late: self._put(partial(_late_spans, late, context))
        # Those that still run become spans when they end: the caller has left, or waits no longer.
        steps = tuple(part for part in step.steps if part.has_ended)
        self._put(partial(_operation_spans, step, steps, tuple(operation.events), places))


class PaymentOperation:
    """One call of the payment flow, while it runs. `step`: None if it is not traced.

    `is_news`: it failed, or the payment's status differs from the one that its token has.
    """

    def __init__(self, traceparent: str | None, step: TracedStep | None = None) -> None:
        self.traceparent = traceparent
        self.step = step
        self.is_news = False
        self.payment_id: str | None = None
        self.events: list[_Event] = []

    def returned(self, payment: Returned, payment_token: str | None = None) -> Returned:
        """Note the result. Without a change it has the `payment_token` that was handed in."""
        if self.step is not None:
            self.is_news = payment.payment_token != payment_token
            with contained():
                self.step.attributes |= _payment_attributes(payment)
        return payment

    def streamed(self, payment: Payment) -> Payment:
        """Note one result of several."""
        if self.step is not None:
            with contained():
                self.step.attributes |= {**_payment_attributes(payment), "http.response.status_code": 200}
            if len(self.events) < _MOST_STATUSES:
                self.events.append((time.perf_counter_ns(), {"cashier.payment.status": payment.status.value}))
        return payment

    def found(self, found: FoundPayment) -> FoundPayment:
        if self.step is not None:
            self.payment_id = found.payment_id
            self.step.attributes |= {
                "cashier.order_id": found.order_id,
                "cashier.payment.status": found.status.value,
                "cashier.payment.kind": found.kind.value,
                "http.response.status_code": 200,
            }
        return found

    def raised(self, error: BaseException, status_of: Callable[[Exception], int]) -> None:
        """A refusal is no error of ours: it has a code, and the span no error."""
        step, code = self.step, code_of(type(error))
        if step is None:
            return
        self.is_news = True
        if not isinstance(error, Exception):  # cancelled, or a stream that was closed
            step.attributes["cashier.outcome"] = "ABANDONED"
            return
        status = status_of(error)
        step.attributes["error.type"] = code
        step.attributes["http.response.status_code"] = status
        silent = getattr(error, "silent", ())
        if silent:
            step.attributes["cashier.silent"] = ",".join(silent)
        if status >= 500:
            step.error = code


class TracedPaymentFlow(PaymentFlow):
    """The payment flow with each of its operations as a span."""

    def __init__(self, tracing: PaymentTracing, **parts: Any) -> None:
        super().__init__(**parts)
        self._tracing = tracing

    async def submit(
        self,
        request: PaymentRequest,
        idempotency_key: str,
        *,
        request_id: str | None = None,
        traceparent: str | None = None,
    ) -> Payment:
        request = validated(request, idempotency_key)
        payment_id = derived_payment_id(request.merchant_id, request.order_id, idempotency_key)
        with self._tracing.operation(_SUBMIT, payment_id, traceparent, request_id) as operation:
            submit = super().submit(request, idempotency_key, request_id=request_id, traceparent=operation.traceparent)
            return operation.returned(await submit)

    async def answer(
        self,
        payment_id: str,
        payment_token: str,
        value: str,
        *,
        request_id: str | None = None,
        traceparent: str | None = None,
    ) -> Payment:
        with self._tracing.operation(_ANSWER, payment_id, traceparent, request_id) as operation:
            answer = super().answer(
                payment_id, payment_token, value, request_id=request_id, traceparent=operation.traceparent
            )
            return operation.returned(await answer)

    async def cancel(
        self, payment_id: str, payment_token: str, *, request_id: str | None = None, traceparent: str | None = None
    ) -> Payment:
        with self._tracing.operation(_CANCEL, payment_id, traceparent, request_id) as operation:
            cancel = super().cancel(payment_id, payment_token, request_id=request_id, traceparent=operation.traceparent)
            return operation.returned(await cancel)

    async def look(
        self,
        payment_id: str,
        payment_token: str,
        *,
        wait_ms: int = 0,
        request_id: str | None = None,
        traceparent: str | None = None,
    ) -> Payment:
        with self._tracing.operation(_LOOK, payment_id, traceparent, request_id) as operation:
            look = super().look(
                payment_id, payment_token, wait_ms=wait_ms, request_id=request_id, traceparent=operation.traceparent
            )
            return operation.returned(await look, payment_token)

    async def follow(
        self, payment_id: str, payment_token: str, *, request_id: str | None = None, traceparent: str | None = None
    ) -> AsyncGenerator[Payment, None]:
        with self._tracing.operation(_FOLLOW, payment_id, traceparent, request_id) as operation:
            updates = super().follow(
                payment_id, payment_token, request_id=request_id, traceparent=operation.traceparent
            )
            async with aclosing(updates):
                async for payment in updates:
                    yield operation.streamed(payment)

    async def follow_claims(
        self, claims: PaymentClaims, *, request_id: str | None = None, traceparent: str | None = None
    ) -> AsyncGenerator[Payment, None]:
        with self._tracing.operation(_FOLLOW, claims.payment_id, traceparent, request_id) as operation:
            updates = super().follow_claims(claims, request_id=request_id, traceparent=operation.traceparent)
            async with aclosing(updates):
                async for payment in updates:
                    yield operation.streamed(payment)

    async def find(
        self,
        order_id: str,
        *,
        merchant_id: str,
        user_id: str,
        locale: str | None = None,
        request_id: str | None = None,
        traceparent: str | None = None,
    ) -> FoundPayment:
        with self._tracing.operation(_FIND, None, traceparent, request_id) as operation:
            find = super().find(
                order_id,
                merchant_id=merchant_id,
                user_id=user_id,
                locale=locale,
                request_id=request_id,
                traceparent=operation.traceparent,
            )
            return operation.found(await find)

    async def resume(
        self,
        payment_id: str,
        request: AttemptRequest,
        *,
        request_id: str | None = None,
        traceparent: str | None = None,
    ) -> Payment:
        with self._tracing.operation(_RESUME, payment_id, traceparent, request_id) as operation:
            resume = super().resume(payment_id, request, request_id=request_id, traceparent=operation.traceparent)
            return operation.returned(await resume)

    async def replace(
        self,
        payment_id: str,
        request: AttemptRequest,
        *,
        request_id: str | None = None,
        traceparent: str | None = None,
    ) -> ReplacedPayment:
        with self._tracing.operation(_REPLACE, payment_id, traceparent, request_id) as operation:
            replaced = await super().replace(
                payment_id, request, request_id=request_id, traceparent=operation.traceparent
            )
            return operation.returned(replaced)


def _context(caller: TraceContext | None, own_root: TraceContext | None) -> TraceContext:
    """The span of an operation in the trace that its calls belong to."""
    parent = caller or own_root
    return TraceContext.root() if parent is None else parent.child()


# A span and its parent: where an operation shows.
_Place = tuple[TraceContext, str | None]


def _places(step: TracedStep, own_root: TraceContext | None) -> tuple[_Place, ...]:
    """In the trace that its calls belong to, with its steps; and in the payment's own."""
    caller = step.operation.caller
    places: list[_Place] = []
    if caller is not None:
        places.append((step.context, caller.span_id))
    elif own_root is None or own_root.trace_id != step.context.trace_id:
        places.append((step.context, None))
    if own_root is not None:
        places.append(_place_in_own_trace(step, own_root))
    return tuple(places)


def _place_in_own_trace(step: TracedStep, root: TraceContext) -> _Place:
    """The root is the submit that made the payment. A refused one made none, and is below none."""
    if step.name != _SUBMIT:
        return root.child(), root.span_id
    if "error.type" in step.attributes:
        return root.child(), None
    made = any(part.name in (DECIDE, SUBMIT) for part in step.steps)
    return (root, None) if made else (root.child(), root.span_id)


def _operation_spans(
    step: TracedStep, steps: Sequence[TracedStep], events: tuple[_Event, ...], places: tuple[_Place, ...]
) -> list[Span]:
    clock = UnixClock()
    spans = [
        Span(
            context=context,
            parent_id=parent_id,
            name=step.name,
            kind=SpanKind.INTERNAL if number else SpanKind.SERVER,
            started_ns=clock.ns(step.started_ns),
            ended_ns=clock.ns(step.ended_ns),
            attributes={**route_attributes(step.name), **step.attributes},
            events=tuple(SpanEvent("status", clock.ns(at_ns), attributes) for at_ns, attributes in events),
            links=tuple(other for other, _ in places if other is not context),
            error=step.error,
        )
        for number, (context, parent_id) in enumerate(places)
    ]
    return [*spans, *_step_spans(steps, spans[0].context.span_id, clock)]


def _step_spans(steps: Sequence[TracedStep], parent_id: str, clock: UnixClock) -> Iterator[Span]:
    """The steps of an operation, each with what is below it."""
    for step in steps:
        if step.name == RECHECK:
            yield from _recheck_spans(step, parent_id, clock)
        else:
            yield from step_spans(step, parent_id, clock)


def _recheck_spans(step: TracedStep, parent_id: str, clock: UnixClock) -> Iterator[Span]:
    record = step.record
    yield Span(
        context=step.context,
        parent_id=parent_id,
        name=step.name,
        kind=SpanKind.INTERNAL,
        started_ns=clock.ns(step.started_ns),
        ended_ns=clock.ns(step.ended_ns),
        attributes={**({} if record is None else consultation_attributes(record)), **step.attributes},
        error=step.error if record is None else consultation_error(record),
    )
    if record is not None:
        yield from source_spans(step, record, clock)


def _late_spans(step: TracedStep, operation: TraceContext) -> list[Span]:
    return list(_step_spans([step], operation.span_id, UnixClock()))


def _payment_attributes(payment: Payment | ReplacedPayment) -> Attributes:
    attributes: Attributes = {
        "cashier.order_id": payment.order_id,
        "cashier.payment.status": payment.status.value,
        "cashier.payment.message": payment.message.code.value,
        "http.response.status_code": 200 if payment.status in FINAL else 202,
    }
    if payment.challenge is not None:
        attributes["cashier.challenge.type"] = str(payment.challenge.type)
        attributes["cashier.challenge.attempts_left"] = payment.challenge.attempts_left
    if payment.next_action is not None:
        attributes["cashier.next_action"] = code_of(type(payment.next_action))
    if payment.route is not None:
        attributes["cashier.route.rule"] = payment.route.rule
        attributes["cashier.route.channel"] = payment.route.channel_id or ""
        attributes["cashier.route.alternatives"] = len(payment.route.alternatives)
    return attributes
