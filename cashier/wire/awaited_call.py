"""An awaited call: for single requests off the hot path, above all those that move money."""

from __future__ import annotations

import asyncio

from cashier.source_errors import SourceError, TimedOut
from cashier.wire.transport import CallHeaders, Request, Response, Transport


async def send_and_wait(
    transport: Transport, request: Request, call_headers: CallHeaders, budget_ms: int
) -> Response | SourceError:
    """Return the answer or its error; `TimedOut` after `budget_ms`, which is at least 1.

    Never raises for a fault of the network. When the budget ends or the caller is cancelled, the
    call is abandoned and a later answer is dropped. An unsafe request must then be looked up,
    unless the error's `sent` is False; a cancelled call must always be treated as sent.
    """
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[Response | SourceError] = loop.create_future()

    def on_response(response: Response | SourceError) -> None:
        if not outcome.done():
            outcome.set_result(response)

    def give_up() -> None:
        # Abandoned here, not when the waiter wakes: in between, the request might still be sent.
        sent = call.sent
        call.abandon()
        on_response(TimedOut(f"no answer within {budget_ms} ms", sent=sent))

    call = transport.send(request, call_headers, budget_ms, on_response)
    timer = loop.call_later(budget_ms / 1000, give_up)
    try:
        return await outcome
    finally:
        timer.cancel()
        call.abandon()
