"""Objects with the methods of a port of `cashier.payments.ports`, as transports of their service.

Nothing that an object does goes further than the outcome of its own operation.
"""

from __future__ import annotations

import inspect
from typing import Any

from cashier.source_errors import SourceError
from cashier.sources.service_answer import fault_of, is_contained, outcome_response
from cashier.sources.service_request import ServiceRequest
from cashier.wire.in_process import InProcessCall, InProcessTransport, TaskTransport
from cashier.wire.transport import Response

# The methods of each port, and the number of their arguments.
PORT_METHODS = {
    "risk": {"decide": 3, "verify": 5},
    "engine": {"submit": 3, "look_up": 4, "reverse": 4},
    "acquirer": {"result": 3},
}
# Those that an object may leave out. What they ask for is then not there: a 404.
_OPTIONAL_METHODS = {"risk": {"resend": 4}}


def has_port_methods(service: str, value: Any) -> bool:
    """True for an object with at least one method of the port of this service."""
    return any(callable(getattr(value, name, None)) for name in PORT_METHODS[service])


def local_transport(service: str, value: Any) -> TaskTransport:
    """The transport over what stands for a service in this process. ValueError if it cannot."""
    if has_port_methods(service, value):
        return ObjectTransport(service, value)
    if not callable(value):
        methods = " and ".join(PORT_METHODS[service])
        raise ValueError(f"takes an object with {methods}, or an async function, not {type(value).__name__}")
    return InProcessTransport(value)


class ObjectTransport(TaskTransport):
    """A `Transport` over an object. Raises ValueError for one that cannot be a port.

    A `SourceError` that a method raises is the outcome, and `sent` False in that of `submit` states
    that nothing was sent. After any other exception, and after a result that is no outcome, the
    payment may exist.
    """

    def __init__(self, service: str, value: Any) -> None:
        super().__init__()
        self._object = value
        self._name = type(value).__name__
        if inspect.isclass(value):
            raise ValueError(f"is the class {value.__name__}; an object of it is needed")
        for method, arguments in PORT_METHODS[service].items():
            check_method(value, method, arguments, f"the object {self._name}")
        for method, arguments in _OPTIONAL_METHODS.get(service, {}).items():
            if getattr(value, method, None) is not None:
                check_method(value, method, arguments, f"the object {self._name}")

    async def _answer(self, call: InProcessCall) -> Response:
        request = call.request
        assert isinstance(request, ServiceRequest)  # noqa: S101  clients of services send no others
        operation = request.operation
        try:
            method = getattr(self._object, operation, None)
            if method is None:
                return Response(404, b"")
            options = request.known_options(method)
            outcome = await method(*request.arguments, call.call_headers, call.budget_ms, **options)
            return outcome_response(operation, outcome)
        except BaseException as error:
            if not is_contained(error):
                raise
            nothing_sent = isinstance(error, SourceError) and error.sent is False
            raise fault_of(error, f"{operation} of {self._name}", sent=not nothing_sent) from None


def check_method(value: Any, name: str, arguments: int, whose: str) -> None:
    """Raise ValueError unless `value` has this async function with room for the arguments."""
    method = getattr(value, name, None)
    if not callable(method):
        raise ValueError(f"{whose} has no function {name}")
    if inspect.isroutine(method) and not inspect.iscoroutinefunction(method):
        raise ValueError(f"{name} of {whose} is not an async function")
    try:
        signature = inspect.signature(method)
    except (TypeError, ValueError):
        return  # a callable that does not say what it takes
    try:
        signature.bind(*range(arguments))
    except TypeError:
        raise ValueError(f"{name} of {whose} does not take {arguments} arguments, but {signature}") from None
