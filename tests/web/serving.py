"""A real server process for tests: `python -m web.serving WORKERS DELAY_MS DRAIN_S`. Prints its port when it has one.

The engine behind it answers after the delay, and does not open where that is negative. An order `o_hang` never is answered, and its end
is printed; an order `o_block` holds up the whole loop for a moment.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from cashier.consultation.flow import Consultation
from cashier.domain.order import ConsultRequest
from cashier.domain.payment_resource import Payment
from cashier.fanout.l2.interface import Invalidated, Reach
from cashier.web import CashierApp, owning_app
from cashier.web.server import ServerSettings, serve

from .offers import consultation
from .payments import LIVE, PAID, FakePayments


def say(word: str) -> None:
    sys.stdout.write(word + "\n")
    sys.stdout.flush()


class Forthcoming(FakePayments):
    """Whatever is asked is answered at once, and who follows sees a payment come to its end."""

    async def follow(
        self, payment_id: str, payment_token: str, *, request_id: str | None = None, traceparent: str | None = None
    ) -> AsyncGenerator[Payment, None]:
        yield LIVE
        yield PAID


class Slow:
    ready = True

    def __init__(self, delay_ms: int) -> None:
        self.payments = Forthcoming()
        self._delay_s = delay_ms / 1000

    async def consult(
        self, request: ConsultRequest, *, request_id: str, traceparent: str | None = None, since_ns: int | None = None
    ) -> Consultation:
        if request.order_id == "o_hang":
            say(f"asked {request_id}")
            try:
                await asyncio.Event().wait()
            finally:
                say(f"over {request_id}")
        if request.order_id == "o_block":
            say("blocked")
            time.sleep(0.5)  # noqa: ASYNC251 - that is the point
        await asyncio.sleep(self._delay_s)
        return consultation(request.order_id)

    async def stream(
        self, request: ConsultRequest, *, request_id: str, traceparent: str | None = None
    ) -> AsyncGenerator[Consultation, None]:
        """One answer at once, and one more when `consult` has it."""
        yield consultation(request.order_id)
        yield await self.consult(request, request_id=request_id, traceparent=traceparent)

    def invalidate(self, source: str, *, key: str | None = None, prefix: str | None = None) -> Invalidated:
        return Invalidated(source, 0, Reach.THIS_WORKER)


@asynccontextmanager
async def open_slow(delay_ms: int) -> AsyncIterator[Slow]:
    if delay_ms < 0:
        raise RuntimeError("no engine today")
    yield Slow(delay_ms)
    say("closed")


def build(delay_ms: int) -> CashierApp:
    return owning_app(partial(open_slow, delay_ms), body_timeout_s=0.5)


if __name__ == "__main__":
    workers, delay_ms, drain_s = (int(word) for word in sys.argv[1:])
    serve(
        ServerSettings(port=0, workers=workers, drain_s=drain_s),
        partial(build, delay_ms),
        lambda _host, port: say(str(port)),
    )
