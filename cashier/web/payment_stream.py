"""A payment as server-sent events: `payment` for each visible change, then `end`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from time import perf_counter_ns
from typing import Self

import structlog
from msgspec import json
from starlette.types import Send

from cashier.domain.payment_resource import Payment
from cashier.domain.payment_state import FINAL
from cashier.web.codec import server_timing
from cashier.web.disconnect_watch import WatchedRequest
from cashier.web.payment_problems import refusal_for
from cashier.web.problem import ProblemCode, encode_problem, make_problem
from cashier.web.sse import COMMENT, encode_event, send_events

_log = structlog.get_logger("cashier.web")

# Proxies and mobile networks close a connection that is silent for 30 to 60 seconds.
HEARTBEAT_S = 15.0


class PaymentStream:
    """A stream whose first payment is known. Later errors can only be sent as an event."""

    __slots__ = ("_first", "_is_stopping", "_payments", "_request_id")

    def __init__(
        self, first: Payment, payments: AsyncGenerator[Payment, None], request_id: str, is_stopping: Callable[[], bool]
    ) -> None:
        self._first = first
        self._payments = payments
        self._request_id = request_id
        self._is_stopping = is_stopping

    @classmethod
    async def start(
        cls, payments: AsyncGenerator[Payment, None], request_id: str, is_stopping: Callable[[], bool]
    ) -> Self:
        """Wait for the first payment. An exception before it becomes a problem response.

        `is_stopping` reports a server stop, which also ends `payments`.
        """
        return cls(await anext(payments), payments, request_id, is_stopping)

    async def send(self, send: Send, watched: WatchedRequest, started_ns: int) -> None:
        """Send all events. Stops following if the client disconnects or stops reading."""
        timing = server_timing((perf_counter_ns() - started_ns) / 1e6, ())
        await send_events(self._events(), send, watched, self._request_id, timing)

    async def _events(self) -> AsyncGenerator[bytes, None]:
        event_id, payment = 1, self._first
        async with aclosing(_with_heartbeats(self._payments)) as payments:
            yield encode_event(b"payment", json.encode(payment), event_id)
            try:
                async for update in payments:
                    if update is None:
                        yield COMMENT
                    else:
                        event_id, payment = event_id + 1, update
                        yield encode_event(b"payment", json.encode(payment), event_id)
            except Exception as error:  # noqa: BLE001 - reported to the client without its text
                yield encode_event(b"error", self._encode_error(error))
            else:
                yield encode_event(b"end", json.encode({"reason": self._reason(payment)}))

    def _reason(self, last: Payment) -> str:
        if last.status in FINAL:
            return "FINAL"
        return "STOPPING" if self._is_stopping() else "TIMEOUT"

    def _encode_error(self, error: Exception) -> bytes:
        refusal = refusal_for(error)
        if refusal is not None:
            return encode_problem(refusal.problem)
        _log.error("payment stream failed", request_id=self._request_id, exc_info=error)
        return encode_problem(
            make_problem(ProblemCode.INTERNAL, "The stream of the payment failed. See the log under this request id.")
        )


async def _with_heartbeats(payments: AsyncGenerator[Payment, None]) -> AsyncGenerator[Payment | None, None]:
    """Yield `payments`, and None after each `HEARTBEAT_S` without one. Closes `payments`."""
    pending: asyncio.Task[Payment | None] | None = None
    try:
        while True:
            # A task of its own: cancelling `anext` on a timeout would end the generator.
            pending = asyncio.create_task(_next(payments))
            while not pending.done():
                await asyncio.wait((pending,), timeout=HEARTBEAT_S)
                if not pending.done():
                    yield None
            payment = pending.result()
            if payment is None:
                return
            yield payment
    finally:
        if pending is not None and not pending.done():
            pending.cancel()
            await asyncio.wait((pending,))
        await payments.aclose()


async def _next(payments: AsyncGenerator[Payment, None]) -> Payment | None:
    return await anext(payments, None)
