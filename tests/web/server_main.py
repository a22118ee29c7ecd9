"""A server process for tests: `python -m tests.web.server_main SETTINGS DELAY_MS [FOLDER]`.

`SETTINGS`: `[server]` as JSON. Prints its port once it accepts connections. Its service answers
after the delay and does not open if the delay is negative. The order `o_hang` is never answered,
and its start and end are printed; `o_held` is answered once its worker has the signal to stop, and
its start is printed; `o_block` blocks the event loop for half a second; `o_worker` has the worker
print its process id.

With `FOLDER` each worker prints `opening PID` and waits for a file `open` in it, then fails if
there is `broken`, or is not the first where there is `only_one`.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from cashier.consultation.answer import Consultation
from cashier.domain.explanation.evidence import WhyRequest
from cashier.domain.explanation.schema import Explanation
from cashier.domain.order import ConsultRequest
from cashier.domain.payment_resource import Payment
from cashier.fanout.l2.interface import Invalidated, Reach
from cashier.fanout.reachability import SourceReachability
from cashier.logs import configure_logs
from cashier.metrics.store import Store
from cashier.web import CashierApp, owning_app
from cashier.web.serve import serve
from cashier.web.server import ServerSettings
from tests.domain.builders import CATALOG
from tests.web.fake_payments import LIVE, PAID, FakePayments
from tests.web.fake_service import REACHABILITY, consultation


def print_line(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


class ImmediatePayments(FakePayments):
    """Answers every call at once, and follows a payment to its end."""

    async def follow(
        self, payment_id: str, payment_token: str, *, request_id: str | None = None, traceparent: str | None = None
    ) -> AsyncGenerator[Payment, None]:
        yield LIVE
        yield PAID


class SlowService:
    ready = sources_reached = True
    catalog = CATALOG

    def __init__(self, delay_ms: int, stops: Callable[[], bool]) -> None:
        self.payments = ImmediatePayments()
        self.metrics = Store()
        self._delay_s = delay_ms / 1000
        self._stops = stops

    def reachability(self) -> tuple[SourceReachability, ...]:
        return REACHABILITY

    async def consult(self, request: ConsultRequest, *, request_id: str, **_: Any) -> Consultation:
        if request.order_id == "o_hang":
            print_line(f"started {request_id}")
            try:
                await asyncio.Event().wait()
            finally:
                print_line(f"ended {request_id}")
        if request.order_id == "o_held":
            print_line("held")
            while not self._stops():  # noqa: ASYNC110 - a signal sets no event of the loop
                await asyncio.sleep(0.01)
        if request.order_id == "o_worker":
            print_line(str(os.getpid()))
        if request.order_id == "o_block":
            print_line("blocked")
            time.sleep(0.5)  # noqa: ASYNC251 - blocks the loop on purpose
        await asyncio.sleep(self._delay_s)
        return consultation(request.order_id)

    async def stream(
        self, request: ConsultRequest, *, request_id: str, traceparent: str | None = None
    ) -> AsyncGenerator[Consultation, None]:
        """One consultation at once, and the result of `consult`."""
        yield consultation(request.order_id)
        yield await self.consult(request, request_id=request_id, traceparent=traceparent)

    async def why(
        self,
        question: WhyRequest,
        *,
        internals: bool = True,
        request_id: str | None = None,
        traceparent: str | None = None,
    ) -> Explanation:
        raise NotImplementedError

    async def ainvalidate(self, source: str, *, key: str | None = None, prefix: str | None = None) -> Invalidated:
        return Invalidated(source, 0, Reach.THIS_WORKER)


@asynccontextmanager
async def open_slow_service(
    delay_ms: int, folder: Path | None, stops: Callable[[], bool]
) -> AsyncIterator[SlowService]:
    if folder is not None:
        print_line(f"opening {os.getpid()}")
        while not (folder / "open").exists():  # noqa: ASYNC110 - another process makes it
            await asyncio.sleep(0.01)
        if (folder / "only_one").exists():
            (folder / "taken").mkdir()
        if (folder / "broken").exists():
            raise RuntimeError("no service today")
    if delay_ms < 0:
        raise RuntimeError("no service today")
    yield SlowService(delay_ms, stops)
    print_line("closed")


def build(delay_ms: int, folder: Path | None) -> CashierApp:
    application = owning_app(lambda: open_slow_service(delay_ms, folder, lambda: application.draining))
    return application


if __name__ == "__main__":
    configure_logs()
    serve(
        msgspec.json.decode(sys.argv[1], type=ServerSettings),
        partial(build, int(sys.argv[2]), Path(sys.argv[3]) if sys.argv[3:] else None),
        lambda _host, port: print_line(str(port)),
    )
