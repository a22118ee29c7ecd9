"""A transport without a network: each call is an async function in this process.

For embedded use, and for tests in virtual time. It takes whole requests, as a service would. A
source called with its inputs by name is `FunctionUpstream` in `sources.source_upstream`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from cashier.source_errors import SourceError, Unreachable
from cashier.wire.call_completion import deliver
from cashier.wire.transport import CallHeaders, OnResponse, Request, Response

LocalFunction = Callable[[Request], Awaitable[Response]]

# The grace period of closing for started calls that must not be cancelled: they move money, and
# usually complete within milliseconds.
CLOSE_GRACE_S = 1.0


class InProcessTransport:
    """A `Transport` over one function.

    The function may raise a `SourceError`, which is delivered unchanged; `sent` False in it states
    that nothing was done. Any other exception goes to the event loop's exception handler and
    becomes `Unreachable` with `sent` True.

    A call abandoned before the function started never starts it. After that, a GET is cancelled;
    any other call runs to its end, as it would at a service: giving up waiting undoes no payment.
    """

    addresses = ("local",)

    def __init__(self, function: LocalFunction) -> None:
        self._function = function
        self._calls: set[_InProcessCall] = set()
        self._closed = False

    def __repr__(self) -> str:
        return f"<InProcessTransport {len(self._calls)} in flight{', closed' if self._closed else ''}>"

    async def open(self) -> None:
        """Do nothing: there is no connection."""

    async def is_reachable(self) -> bool:
        return True

    def send(
        self, request: Request, call_headers: CallHeaders, budget_ms: int, on_response: OnResponse, avoid: int = 0
    ) -> _InProcessCall:
        """See `Transport`. `call_headers`, `budget_ms` and `avoid` have no meaning here."""
        call = _InProcessCall(request, on_response)
        call.task = asyncio.get_running_loop().create_task(_refuse() if self._closed else self._run(call))
        self._calls.add(call)
        call.task.add_done_callback(lambda _: self._done(call))
        return call

    async def close(self) -> None:
        """End all calls with `Unreachable`; started ones other than GET have `CLOSE_GRACE_S`."""
        self._closed = True
        calls = tuple(self._calls)
        for call in calls:
            call.finish(Unreachable("local: closed", sent=call.sent))
            call.cancel_if_harmless()
        if calls:
            _, late = await asyncio.wait([call.task for call in calls], timeout=CLOSE_GRACE_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _run(self, call: _InProcessCall) -> Response:
        # The function is called inside the task, so that an error of the call itself is reported
        # too.
        call.sent = True
        return await self._function(call.request)

    def _done(self, call: _InProcessCall) -> None:
        self._calls.discard(call)
        if call.task.cancelled():
            call.finish(Unreachable("local: the function was cancelled", sent=call.sent))
            return
        error = call.task.exception()
        if error is None:
            call.finish(call.task.result())
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
            call.finish(Unreachable(f"local: the function raised {type(error).__name__}"))


class _InProcessCall:
    """A `TransportCall` and its task. `sent`: the function was called."""

    __slots__ = ("_on_response", "request", "sent", "task")

    address_index = 0
    task: asyncio.Task[Response]

    def __init__(self, request: Request, on_response: OnResponse) -> None:
        self.request = request
        self.sent = False
        self._on_response: OnResponse | None = on_response

    def finish(self, outcome: Response | SourceError) -> None:
        on_response, self._on_response = self._on_response, None
        if on_response is not None:
            deliver(on_response, outcome)

    def abandon(self) -> None:
        if self._on_response is not None:
            self._on_response = None
            self.cancel_if_harmless()

    def cancel_if_harmless(self) -> None:
        """Cancel the task unless the function was called and may change something."""
        if not self.sent or self.request.method == "GET":
            self.task.cancel()


async def _refuse() -> Response:
    raise Unreachable("local: closed", sent=False)
