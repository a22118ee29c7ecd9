"""A call that is awaited: for what is asked one at a time and off the hot path, above all for what moves money."""

from __future__ import annotations

import asyncio

from cashier.source_errors import SourceError, TimedOut
from cashier.wire.transport import CallHeaders, Request, Response, Transport


async def send_and_wait(
    transport: Transport, request: Request, call_headers: CallHeaders, budget_ms: int
) -> Response | SourceError:
    """The answer, or what came in its place; `TimedOut` after `budget_ms`, which is at least 1. Never raises for what a network does.

    Whoever stops waiting, by the budget or by cancellation, abandons the call: an answer that comes later is heard by nobody. What is
    not safe has to be looked up then, unless the error's `sent` is False; a call that was cancelled may always have been sent.
    """
    loop = asyncio.get_running_loop()
    told: asyncio.Future[Response | SourceError] = loop.create_future()

    def reply(outcome: Response | SourceError) -> None:
        if not told.done():
            told.set_result(outcome)

    def give_up() -> None:
        # Abandoned here and not when the waiter wakes: in between it might still be sent.
        sent = exchange.sent
        exchange.abandon()
        reply(TimedOut(f"no answer within {budget_ms} ms", sent=sent))

    exchange = transport.send(request, call_headers, budget_ms, reply)
    timer = loop.call_later(budget_ms / 1000, give_up)
    try:
        return await told
    finally:
        timer.cancel()
        exchange.abandon()
