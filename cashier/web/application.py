"""The door as an ASGI application: the hot route first, everything else through Starlette. Mountable under any path, on any ASGI server.

Knows nothing of how the engine is built; it is handed one, or a way to open one.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from time import perf_counter_ns, time
from typing import TypeAlias

from starlette.types import Receive, Scope, Send

from cashier.fanout.load_shedding import DegradationLadder
from cashier.web.admission_queue import AdmissionQueue
from cashier.web.auth import BearerAuth
from cashier.web.consult_endpoint import ConsultEndpoint, ConsultService
from cashier.web.endpoints import Readiness, other_endpoints
from cashier.web.invalidate_endpoint import InvalidateEndpoint
from cashier.web.overload_response import scope_priority, send_refusal
from cashier.web.payment_endpoints import PaymentEndpoints
from cashier.web.request_guard import RequestGuard
from cashier.web.response import HeaderList

CashierFactory: TypeAlias = Callable[[], AbstractAsyncContextManager[ConsultService]]

CONSULT_PATH = "/v1/consult"
BODY_LIMIT_BYTES = 65_536
BODY_TIMEOUT_S = 10.0
# In the scope of a request that the connection has let in already.
ADMITTED = "cashier.admitted"


class CashierApp:
    """The ASGI application. `draining` is set by the server that stops: from then on `/readyz` says no. Then it calls `stop_waiting`.

    `ladder` is asked who is let in while there is too much to do: here, or before that by a connection that knows it. Only consultations
    are ever refused: whoever asks for health or pays is not.
    """

    def __init__(
        self,
        engine: ConsultService | None,
        open_cashier: CashierFactory | None,
        doorkeeper: BearerAuth | None,
        body_limit_bytes: int,
        body_timeout_s: float,
        ladder: DegradationLadder | None = None,
    ) -> None:
        self.draining = False
        self.ladder = ladder
        self._doorkeeper = doorkeeper
        self._engine = engine
        self._open_cashier = open_cashier
        self.line = AdmissionQueue(ladder)
        self._consulting = ConsultEndpoint(doorkeeper, body_limit_bytes, body_timeout_s, self.line)
        admission = RequestGuard(lambda: self._engine, doorkeeper, body_limit_bytes, body_timeout_s)
        self._paying = PaymentEndpoints(admission, body_timeout_s, lambda: self.draining)
        others = self._paying.routes()
        self._pages = other_endpoints(
            self._readiness, body_limit_bytes, InvalidateEndpoint(admission), others, secured=admission.secured
        )

    def __repr__(self) -> str:
        return f"<Door {self._readiness().value} {self._consulting!r} {self._paying!r}>"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            path = scope["path"]
            # Mounted, the path comes whole and `root_path` says how much of it is not ours.
            if path == CONSULT_PATH or path == scope.get("root_path", "") + CONSULT_PATH:
                await self._consult(scope, receive, send)
                return
        elif scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        await self._pages(scope, receive, send)

    def knows(self, authorization: bytes) -> bool:
        """Whether the bearer was verified before. Where nobody has to say who he is everybody counts as known."""
        return self._doorkeeper is None or self._doorkeeper.knows(authorization, time())

    def stop_waiting(self) -> None:
        """Who waits for a payment to move is answered with what is known of it. To be called in the loop, when the server stops."""
        payments = self._engine.payments if self._engine is not None else None
        if payments is not None:
            payments.stop_waiting()

    async def _consult(self, scope: Scope, receive: Receive, send: Send) -> None:
        ladder = self.ladder
        if ladder is None:
            await self._consulting.serve(self._engine, scope, receive, send)
        elif ADMITTED not in scope and self.crowded and not self.admits(scope_priority(scope, self.knows)):
            await send_refusal(scope, send)
        else:
            await self._consulting.serve(self._engine, scope, receive, send)
            ladder.answered += 1

    @property
    def crowded(self) -> bool:
        """Whether callers are let in one by one, and have to be asked about: see `admits`."""
        return self.ladder is not None and (self.ladder.refusing or self.line.waiting)

    def admits(self, priority: int) -> bool:
        """Whether one more is let in. To be asked once for each."""
        ladder = self.ladder
        if ladder is None:
            return True
        if self.line.is_too_long(priority):
            return False
        return not ladder.refusing or ladder.admits(priority, perf_counter_ns())

    async def whole(self, headers: dict[bytes, bytes], receive: Receive) -> tuple[int, HeaderList, bytes] | None:
        """The answer to a consultation that has come whole, was let in and wants no stream: status, headers, body. None: nobody waits."""
        answer = await self._consulting.whole(self._engine, headers, receive)
        if self.ladder is not None:
            self.ladder.answered += 1
        return answer

    async def _live(self, receive: Receive, send: Send) -> None:
        """The server's life. An engine that was handed in open is its owner's to close."""
        await receive()
        if self._open_cashier is None:
            await send({"type": "lifespan.startup.complete"})
            await receive()
        else:
            async with self._open_cashier() as engine:
                self._engine = engine
                await send({"type": "lifespan.startup.complete"})
                await receive()
                self._engine = None
        await send({"type": "lifespan.shutdown.complete"})

    def _readiness(self) -> Readiness:
        if self.draining:
            return Readiness.DRAINING
        if self._engine is None or not self._engine.ready:
            return Readiness.STARTING
        return Readiness.READY


def app(
    cashier: ConsultService,
    *,
    doorkeeper: BearerAuth | None = None,
    body_limit_bytes: int = BODY_LIMIT_BYTES,
    body_timeout_s: float = BODY_TIMEOUT_S,
    ladder: DegradationLadder | None = None,
) -> CashierApp:
    """A door to an engine that is open, and stays its owner's: `app.mount("/pay", cashier.web.app(engine))`.

    No `doorkeeper`: everybody may ask. A body larger than `body_limit_bytes` is refused, one not whole after `body_timeout_s` too.
    With a `ladder` callers are refused when there is too much to do; its owner sees to it that it is told the time.
    """
    return CashierApp(cashier, None, doorkeeper, body_limit_bytes, body_timeout_s, ladder)


def owning_app(
    open_cashier: CashierFactory,
    *,
    doorkeeper: BearerAuth | None = None,
    body_limit_bytes: int = BODY_LIMIT_BYTES,
    body_timeout_s: float = BODY_TIMEOUT_S,
    ladder: DegradationLadder | None = None,
) -> CashierApp:
    """A door that opens its engine when the server starts and closes it when the server has stopped (ASGI lifespan)."""
    return CashierApp(None, open_cashier, doorkeeper, body_limit_bytes, body_timeout_s, ladder)
