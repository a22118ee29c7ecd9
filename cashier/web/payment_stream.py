"""A payment as server-sent events: `payment` each time that it shows something else, then `end`. Written as in `events`, read elsewhere."""

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

# Proxies and carriers' networks close what is silent for half a minute or a minute.
HEARTBEAT_S = 15.0


class PaymentStream:
    """A stream whose first payment is there: from here on whatever goes wrong has to be told in it."""

    __slots__ = ("_first", "_identity", "_payments", "_stopping")

    def __init__(
        self, first: Payment, payments: AsyncGenerator[Payment, None], identity: str, stopping: Callable[[], bool]
    ) -> None:
        self._first = first
        self._payments = payments
        self._identity = identity
        self._stopping = stopping

    @classmethod
    async def begun(cls, payments: AsyncGenerator[Payment, None], identity: str, stopping: Callable[[], bool]) -> Self:
        """Waits for the first payment. What is raised instead of it may still be answered as a problem.

        `identity`: of the request. `stopping`: whether the server stops, which may be why there is no more to come.
        """
        return cls(await anext(payments), payments, identity, stopping)

    async def tell(self, send: Send, visit: WatchedRequest, began_ns: int) -> None:
        """Send everything, until the end or until the client has gone or stopped reading; then nobody follows any more."""
        await send_events(
            self._events(), send, visit, self._identity, server_timing((perf_counter_ns() - began_ns) / 1e6, ())
        )

    async def _events(self) -> AsyncGenerator[bytes, None]:
        number, payment = 1, self._first
        async with aclosing(_beating(self._payments)) as payments:
            yield encode_event(b"payment", json.encode(payment), number)
            try:
                async for shown in payments:
                    if shown is None:
                        yield COMMENT
                    else:
                        number, payment = number + 1, shown
                        yield encode_event(b"payment", json.encode(payment), number)
            except Exception as error:  # noqa: BLE001 - whatever it is, the client has to be told, and its text must not leave the house
                yield encode_event(b"error", self._what_broke(error))
            else:
                yield encode_event(b"end", json.encode({"reason": self._reason(payment)}))

    def _reason(self, last: Payment) -> str:
        if last.status in FINAL:
            return "FINAL"
        return "STOPPING" if self._stopping() else "TIMEOUT"

    def _what_broke(self, error: Exception) -> bytes:
        known = refusal_for(error)
        if known is not None:
            return encode_problem(known.problem)
        _log.error("a payment could not be followed further", request_id=self._identity, exc_info=error)
        return encode_problem(
            make_problem(
                ProblemCode.INTERNAL, "The payment cannot be followed further. The log has it under this request id."
            )
        )


async def _beating(payments: AsyncGenerator[Payment, None]) -> AsyncGenerator[Payment | None, None]:
    """The same, and None whenever nothing has come for `HEARTBEAT_S`. Closes them when it is closed."""
    coming: asyncio.Task[Payment | None] | None = None
    try:
        while True:
            # A task of its own, because who gives up waiting for a generator's next ends the generator.
            coming = asyncio.create_task(_next(payments))
            while not coming.done():
                await asyncio.wait((coming,), timeout=HEARTBEAT_S)
                if not coming.done():
                    yield None
            shown = coming.result()
            if shown is None:
                return
            yield shown
    finally:
        if coming is not None and not coming.done():
            coming.cancel()
            await asyncio.wait((coming,))
        await payments.aclose()


async def _next(payments: AsyncGenerator[Payment, None]) -> Payment | None:
    return await anext(payments, None)
