"""Adapters of the services that take payments: their operations in a service's own shape.

An adapter has one async function for each operation, with the arguments of the port's method and a
`call` in the place of its last two. It returns the contract's answer as a mapping.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any

from cashier.domain.risk_contract import Challenged
from cashier.source_errors import FailureReason, Garbled, SourceError, TimedOut, Unreachable
from cashier.sources.acquirer import parse_result
from cashier.sources.adapter import DEFAULT_STATUSES, checked_statuses, error_of_undeclared
from cashier.sources.adapter_settings import checked_request
from cashier.sources.adapter_upstream import MAX_REQUESTS
from cashier.sources.engine import parse_look_up, parse_reverse, parse_submit
from cashier.sources.risk import parse_decision, parse_resend, parse_verification
from cashier.sources.service_answer import fault_of, is_contained, mapping_response
from cashier.sources.service_object import check_method
from cashier.sources.service_request import ServiceRequest
from cashier.wire.in_process import InProcessCall, TaskTransport
from cashier.wire.transport import CallHeaders, OnResponse, Request, Response, Transport, TransportCall

# The functions of an adapter, with the number of their arguments.
_FUNCTIONS = {
    "risk": {"decide": 2, "verify": 4, "resend": 3},
    "engine": {"submit": 2, "look_up": 3, "reverse": 3},
    "acquirer": {"result": 2},
}
# Without `verify` risk can only accept and reject; without `reverse` a payment cannot be ended;
# without `resend` no code is sent again.
_OPTIONAL = ("verify", "resend", "reverse")
# The pace of refusals: an adapter that tries again and again must not stop the event loop.
_REFUSAL_PACE_S = 0.05
_PARSE: dict[str, Callable[..., Any]] = {
    "decide": lambda response, inquiry: parse_decision(response, inquiry.payment_id),
    "verify": lambda response, challenge_id, payment_id, value: parse_verification(response, payment_id),
    "resend": lambda response, challenge_id, payment_id: parse_resend(response, payment_id),
    "submit": lambda response, submission: parse_submit(response, submission.payment_id, submission.order_id),
    "look_up": parse_look_up,
    "reverse": parse_reverse,
    "result": parse_result,
}
# The operations in which at most one call may change something. The others may be repeated.
_ONCE = ("decide", "verify", "resend", "submit")


class ServiceAdapter:
    """The adapter of one service, checked at start. ValueError names what is wrong.

    `statuses`: those that its calls return; others raise as for services of the contract.
    `unopened`: why the service cannot be asked yet; None once `open` has ended.
    """

    def __init__(self, service: str, name: str, adapter: Any) -> None:
        self.source_name = service
        self.name = name
        self.unopened: SourceError | None = None
        whose = f"adapter {name!r}"
        for function, arguments in _FUNCTIONS[service].items():
            if function not in _OPTIONAL or getattr(adapter, function, None) is not None:
                check_method(adapter, function, arguments, whose)
        for function in ("open", "close"):
            if getattr(adapter, function, None) is not None:
                check_method(adapter, function, 0, whose)
        self.open: Callable[..., Any] | None = getattr(adapter, "open", None)
        self.close: Callable[..., Any] | None = getattr(adapter, "close", None)
        self.statuses = checked_statuses(name, getattr(adapter, "statuses", DEFAULT_STATUSES))
        self._adapter = adapter
        self.files = frozenset(
            inspect.unwrap(function).__code__.co_filename
            for function in filter(None, map(self.function, _FUNCTIONS[service]))
            if hasattr(function, "__code__")
        )

    def __repr__(self) -> str:
        return f"<ServiceAdapter {self.name} of {self.source_name}>"

    def function(self, operation: str) -> Callable[..., Any] | None:
        """None for an operation that the service does not have."""
        function: Callable[..., Any] | None = getattr(self._adapter, operation, None)
        return function

    def error_of(self, fault: BaseException, function: str) -> SourceError:
        return fault_of(fault, f"adapter {self.name}: {function}()", sent=False)


class AdapterCalls:
    """The `call` of one operation: `await call(Request(…))` sends over the service's own transport.

    Any number of calls, each with the id, trace and remaining time of the operation; none is
    hedged or retried. In `submit`, `decide`, `verify` and `resend` only one of them may change
    something: a request other than a GET counts as such unless it is made with `read_only=True`,
    and so does a GET with `safe=False`. A second one is refused.

    Raises the `SourceError` of a call without an answer, or with a status that the adapter does not
    declare.
    """

    def __init__(self, adapter: ServiceAdapter, transport: Transport, call: OperationCall) -> None:
        self._name = adapter.name
        self._statuses = adapter.statuses
        self._transport = transport
        self._operation = call.operation
        self._call_headers = call.call_headers
        self._ends_s = asyncio.get_running_loop().time() + call.budget_ms / 1000
        self._in_flight: list[_Exchange] = []
        self.last: Response | None = None
        # What the adapter may raise unchanged.
        self.errors: list[SourceError] = []
        self._over = self._changing = self._sent = False
        self._requests = 0

    @property
    def sent(self) -> bool:
        """Whether the service may have received the call that changes something."""
        return self._sent or any(exchange.sent for exchange in self._in_flight)

    async def __call__(self, request: Request) -> Response:
        try:
            exchange = self._start(request)
        except Exception:
            await asyncio.sleep(_REFUSAL_PACE_S)
            raise
        response = await self._answer(exchange)
        if isinstance(response, Response):
            self.last = response
            if response.status in self._statuses:
                return response
            response = error_of_undeclared(response, self._name)
        self.errors.append(response)
        raise response

    def require_ended(self) -> None:
        """Raise `Garbled` if a call is in flight although its operation has an answer."""
        if self._in_flight:
            early = f"{self._operation} of adapter {self._name} returned before its call ended"
            raise Garbled(early, reason=FailureReason.ADAPTER)

    def end(self) -> None:
        """Give up all calls, and refuse further ones."""
        self._over = True
        self._sent = self.sent
        exchanges, self._in_flight = self._in_flight, []
        for exchange in exchanges:
            exchange.give_up(self._operation)

    def _start(self, request: Request) -> _Exchange:
        """Send a request. Raises for one that must not be sent, `SourceError` with the reason."""
        checked = checked_request(request, self._name)
        changes = self._operation in _ONCE and (
            request.read_only is not True and (request.method != "GET" or not request.safe)
        )
        remaining_ms = int((self._ends_s - asyncio.get_running_loop().time()) * 1000)
        if self._over or remaining_ms < 1:
            raise TimedOut(f"a call after the end of {self._operation}", sent=False)
        if changes and self._changing:
            raise Garbled(
                f"adapter {self._name} made a second call that may change something within one {self._operation}; "
                "one that changes nothing needs read_only=True",
                reason=FailureReason.ADAPTER,
            )
        if self._requests == MAX_REQUESTS:
            endless = f"adapter {self._name} made more than {MAX_REQUESTS} requests within one {self._operation}"
            raise Garbled(endless, reason=FailureReason.ADAPTER)
        self._requests += 1
        self._changing = self._changing or changes
        exchange = _Exchange(changes)
        exchange.call = self._transport.send(checked, self._call_headers, remaining_ms, exchange.on_response)
        self._in_flight.append(exchange)
        return exchange

    async def _answer(self, exchange: _Exchange) -> Response | SourceError:
        try:
            return await exchange.answered
        finally:
            if exchange in self._in_flight:  # else `end` has judged it
                self._in_flight.remove(exchange)
                self._sent = self._sent or exchange.sent
                exchange.call.abandon()


class _Exchange:
    """One request in flight. `changes`: it is the one that may change something."""

    __slots__ = ("answered", "call", "changes")

    call: TransportCall

    def __init__(self, changes: bool) -> None:
        self.changes = changes
        self.answered: asyncio.Future[Response | SourceError] = asyncio.get_running_loop().create_future()

    @property
    def sent(self) -> bool:
        """Whether the service may have received a change."""
        if not self.changes:
            return False
        if not self.answered.done() or self.answered.cancelled():
            return self.call.sent
        response = self.answered.result()
        return not isinstance(response, SourceError) or response.sent

    def on_response(self, response: Response | SourceError) -> None:
        if not self.answered.done():
            self.answered.set_result(response)

    def give_up(self, operation: str) -> None:
        sent = self.call.sent
        self.call.abandon()
        self.on_response(TimedOut(f"{operation} ended before its call", sent=sent))


class OperationCall(InProcessCall):
    """One operation of an adapter. `sent`: whether the service may have received a change."""

    __slots__ = ("calls", "operation")

    calls: AdapterCalls

    def __init__(
        self, request: ServiceRequest, call_headers: CallHeaders, budget_ms: int, on_response: OnResponse
    ) -> None:
        super().__init__(request, call_headers, budget_ms, on_response)
        self.operation = request.operation

    @property
    def sent(self) -> bool:
        return self.calls.sent

    def stop(self) -> None:
        """Nothing is sent from now on; what the adapter does besides is cancelled."""
        self.calls.end()
        self.task.cancel()


class AdapterTransport(TaskTransport):
    """A `Transport` to a payment service of another shape, by an adapter over `transport`.

    Nothing that the adapter does goes further than the outcome of its own operation. Before its
    changing call was started nothing was sent; after that, the payment may exist.
    """

    def __init__(self, adapter: ServiceAdapter, transport: Transport) -> None:
        super().__init__()
        self.addresses = transport.addresses
        self._adapter = adapter
        self._transport = transport

    async def is_reachable(self) -> bool:
        return await self._transport.is_reachable()

    def _new_call(
        self, request: Request, call_headers: CallHeaders, budget_ms: int, on_response: OnResponse
    ) -> InProcessCall:
        assert isinstance(request, ServiceRequest)  # noqa: S101  clients of services send no others
        call = OperationCall(request, call_headers, budget_ms, on_response)
        call.calls = AdapterCalls(self._adapter, self._transport, call)
        return call

    async def _answer(self, call: InProcessCall) -> Response:
        assert isinstance(call, OperationCall)  # noqa: S101  made above
        try:
            return await self._ask(call)
        except BaseException as error:
            if not is_contained(error):
                raise
            name, calls = self._adapter.name, call.calls
            fault = fault_of(error, f"adapter {name}: {call.operation}()", sent=call.sent, files=self._adapter.files)
            if name not in fault.detail and not any(error is passed_on for passed_on in calls.errors):
                fault.detail = f"adapter {name}: {fault.detail}"
            raise fault if calls.last is None else calls.last.discredit(fault) from None
        finally:
            call.calls.end()

    async def _ask(self, call: OperationCall) -> Response:
        if self._adapter.unopened is not None:
            raise self._adapter.unopened
        function = self._adapter.function(call.operation)
        if function is None:
            if call.operation == "resend":
                return Response(404, b"")
            absent = f"adapter {self._adapter.name} has no function {call.operation}"
            raise Unreachable(absent, reason=FailureReason.ADAPTER)
        request = call.request
        assert isinstance(request, ServiceRequest)  # noqa: S101  made above
        answer = await function(*request.arguments, call.calls, **request.known_options(function))
        response = mapping_response(call.operation, answer)
        call.calls.require_ended()
        # The client reads it again; here its faults get the name of the adapter.
        outcome = _PARSE[call.operation](response, *request.arguments)
        error = getattr(outcome, "error", None)
        if isinstance(error, SourceError):
            raise error
        if isinstance(outcome, Challenged) and self._adapter.function("verify") is None:
            absent = f"a challenge, but adapter {self._adapter.name} has no function verify"
            raise Garbled(absent, reason=FailureReason.ADAPTER)
        return response
