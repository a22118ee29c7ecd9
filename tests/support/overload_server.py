"""A real server process that is easily overloaded: `python -m tests.support.overload_server COST_MS`. Prints its port when it has one.

Each consultation holds up the loop for `COST_MS`, whatever machine it is, so that what the service can do is known beforehand.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from cashier.consultation.flow import Consultation
from cashier.domain.order import ConsultRequest
from cashier.fanout.load_shedding import DegradationLadder, LoopLagMonitor
from cashier.web import CashierApp, owning_app
from cashier.web.server import ServerSettings, serve
from tests.web.fake_service import FakeService, consultation


class BusyService(FakeService):
    def __init__(self, cost_ms: float) -> None:
        super().__init__()
        self._part_s = cost_ms / 2000

    async def consult(
        self, request: ConsultRequest, *, request_id: str, traceparent: str | None = None, since_ns: int | None = None
    ) -> Consultation:
        self._toil()
        await asyncio.sleep(0.005)  # an upstream's answer
        self._toil()
        return consultation(request.order_id)

    def _toil(self) -> None:
        until_s = time.perf_counter() + self._part_s
        while time.perf_counter() < until_s:
            pass


@asynccontextmanager
async def opened(cost_ms: float, ladder: DegradationLadder) -> AsyncIterator[BusyService]:
    pulse = LoopLagMonitor(ladder)
    pulse.start()
    try:
        yield BusyService(cost_ms)
    finally:
        pulse.stop()


def build(cost_ms: float) -> CashierApp:
    ladder = DegradationLadder()
    return owning_app(partial(opened, cost_ms, ladder), ladder=ladder)


if __name__ == "__main__":

    def announce(_host: str, port: int) -> None:
        sys.stdout.write(f"{port}\n")
        sys.stdout.flush()

    serve(ServerSettings(port=0), partial(build, float(sys.argv[1])), announce)
