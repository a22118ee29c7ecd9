"""A server process of known capacity: `python -m tests.support.overload_server COST_MS`. Prints its
port.

Each consultation blocks the event loop for `COST_MS` on every machine.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from cashier.consultation.answer import Consultation
from cashier.domain.order import ConsultRequest
from cashier.fanout.load_shedding import DegradationLadder
from cashier.fanout.loop_lag import LoopLagMonitor
from cashier.web import CashierApp, owning_app
from cashier.web.serve import serve
from cashier.web.server import ServerSettings
from tests.web.fake_service import FakeService, consultation


class BusyService(FakeService):
    def __init__(self, cost_ms: float) -> None:
        super().__init__()
        self._half_s = cost_ms / 2000

    async def consult(self, request: ConsultRequest, **_: Any) -> Consultation:
        self._block()
        await asyncio.sleep(0.005)  # an upstream's answer
        self._block()
        return consultation(request.order_id)

    def _block(self) -> None:
        until_s = time.perf_counter() + self._half_s
        while time.perf_counter() < until_s:
            pass


@asynccontextmanager
async def open_service(cost_ms: float, ladder: DegradationLadder) -> AsyncIterator[BusyService]:
    monitor = LoopLagMonitor(ladder)
    monitor.start()
    try:
        yield BusyService(cost_ms)
    finally:
        monitor.stop()


def build(cost_ms: float) -> CashierApp:
    ladder = DegradationLadder()
    return owning_app(partial(open_service, cost_ms, ladder), ladder=ladder)


if __name__ == "__main__":

    def announce(_host: str, port: int) -> None:
        sys.stdout.write(f"{port}\n")
        sys.stdout.flush()

    serve(ServerSettings(port=0, shutdown_delay_s=0), partial(build, float(sys.argv[1])), announce)
