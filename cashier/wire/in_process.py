"""A transport without a network: each call is an async function in this process.

For embedded use, and for tests in virtual time. It takes whole requests, as a service would. A
source called with its inputs by name is `FunctionUpstream` in `sources.source_upstream`; objects
with methods for the operations of a payment service are in `sources.service_object`.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import Any

from cashier.source_errors import FailureReason, Garbled, SourceError, Unreachable
from cashier.wire.call_completion import deliver
from cashier.wire.transport import CallHeaders, OnResponse, Request, Response

LocalFunction = Callable[[Request], Awaitable[Response]]

# The grace period of closing for started calls that must not be cancelled: they move money, and
# usually complete within milliseconds.
CLOSE_GRACE_S = 1.0


class TaskTransport(ABC):
    """A `Transport` whose calls are tasks of this process. `_answer` makes the response of a call.

    `_answer` may raise a `SourceError`, which is delivered unchanged; `sent` False in it states
    that nothing was done. Any other exception goes to the event loop's exception handler and
    becomes `Unreachable` with `sent` True. A result that is no `Response` is `Garbled`.

    A call abandoned before it started never starts. After that, a GET is cancelled; any other call
    runs to its end, as it would at a service: giving up waiting undoes no payment.
    """

    addresses: tuple[str, ...] = ("local",)

    def __init__(self) -> None:
        self._calls: set[InProcessCall] = set()
        self._closed = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {len(self._calls)} in flight{', closed' if self._closed else ''}>"

    async def open(self) -> None:  # noqa: B027  not to be overridden
        """Do nothing: there is no connection."""

    async def is_reachable(self) -> bool:
        return True

    def send(
        self, request: Request, call_headers: CallHeaders, budget_ms: int, on_response: OnResponse, avoid: int = 0
    ) -> InProcessCall:
        """See `Transport`. `avoid` has no meaning here."""
        call = self._new_call(request, call_headers, budget_ms, on_response)
        call.task = asyncio.get_running_loop().create_task(_refuse() if self._closed else self._run(call))
        self._calls.add(call)
        call.task.add_done_callback(lambda _: self._done(call))
        return call

    async def close(self) -> None:
        """End all calls with `Unreachable`; started ones other than GET have `CLOSE_GRACE_S`."""
        self._closed = True
        calls = tuple(self._calls)
        for call in calls:
            call.finish(Unreachable("local: closed", sent=call.sent, reason=FailureReason.CLOSED))
            call.stop()
        if calls:
            _, late = await asyncio.wait([call.task for call in calls], timeout=CLOSE_GRACE_S)
            for task in late:
                task.cancel()
            if late:  # bounded: a function may ignore its cancellation
                await asyncio.wait(late, timeout=CLOSE_GRACE_S)

    async def _run(self, call: InProcessCall) -> Response:
        # The function is called inside the task, so that an error of the call itself is reported
        # too.
        call.started = True
        return await self._answer(call)

    def _new_call(
        self, request: Request, call_headers: CallHeaders, budget_ms: int, on_response: OnResponse
    ) -> InProcessCall:
        return InProcessCall(request, call_headers, budget_ms, on_response)

    @abstractmethod
    async def _answer(self, call: InProcessCall) -> Response: ...

    def _done(self, call: InProcessCall) -> None:
        self._calls.discard(call)
        if call.task.cancelled():
            cancelled = "local: the call was cancelled"
            call.finish(Unreachable(cancelled, sent=call.sent, reason=FailureReason.ADAPTER))
            return
        error = call.task.exception()
        if error is None:
            call.finish(_checked(call.task.result()))
        elif isinstance(error, SourceError):
            call.finish(error)
        else:
            call.task.get_loop().call_exception_handler(
                {
                    "message": "cashier: the function of a local transport raised",
                    "exception": error,
                    "task": call.task,
                }
            )
            raised = f"local: the function raised {type(error).__name__}"
            call.finish(Unreachable(raised, reason=FailureReason.ADAPTER))


class InProcessTransport(TaskTransport):
    """Each call is a call of one function with the request."""

    def __init__(self, function: LocalFunction) -> None:
        super().__init__()
        self._function = function

    async def _answer(self, call: InProcessCall) -> Response:
        return await self._function(call.request)


class InProcessCall:
    """A `TransportCall` and its task."""

    __slots__ = ("_on_response", "budget_ms", "call_headers", "request", "started", "task")

    address_index = 0
    task: asyncio.Task[Response]

    def __init__(self, request: Request, call_headers: CallHeaders, budget_ms: int, on_response: OnResponse) -> None:
        self.request = request
        self.call_headers = call_headers
        self.budget_ms = budget_ms
        self.started = False
        self._on_response: OnResponse | None = on_response

    @property
    def sent(self) -> bool:
        return self.started

    def finish(self, outcome: Response | SourceError) -> None:
        on_response, self._on_response = self._on_response, None
        if on_response is not None:
            deliver(on_response, outcome)

    def abandon(self) -> None:
        if self._on_response is not None:
            self._on_response = None
            self.stop()

    def stop(self) -> None:
        """Cancel the task unless it started and may change something."""
        if not self.started or self.request.method == "GET":
            self.task.cancel()


def _checked(result: Any) -> Response | SourceError:
    """`result`, or `Garbled` for what is no response and would break its reader."""
    if (
        isinstance(result, Response)
        and type(result.status) is int
        and isinstance(result.body, bytes)
        and (
            result.retry_after_s is None
            or (isinstance(result.retry_after_s, int | float) and result.retry_after_s >= 0)
        )
    ):
        return result
    detail = f"local: the function returned no valid Response but {type(result).__name__}"
    return Garbled(detail, reason=FailureReason.ADAPTER)


async def _refuse() -> Response:
    raise Unreachable("local: closed", sent=False, reason=FailureReason.CLOSED)
