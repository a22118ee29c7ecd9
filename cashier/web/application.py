"""The ASGI application: `POST /v1/consult` directly on ASGI, everything else through Starlette.

Runs on any ASGI server and can be mounted under any path. It receives an open service, or a factory
that opens one; it does not know how a service is built.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from time import perf_counter_ns, time
from typing import TypeAlias

from starlette.types import Receive, Scope, Send

from cashier.fanout.load_shedding import DegradationLadder
from cashier.metrics.store import Store
from cashier.web.admission_queue import AdmissionQueue
from cashier.web.auth import BearerAuth
from cashier.web.consult_endpoint import ConsultEndpoint
from cashier.web.cross_origin import AllowedOrigins
from cashier.web.endpoint_path import CONSULT_PATH
from cashier.web.endpoints import methods_of, other_endpoints
from cashier.web.health import HealthCheck
from cashier.web.http_metrics import HttpMetrics
from cashier.web.invalidate_endpoint import InvalidateEndpoint
from cashier.web.overload_response import PRIORITIES, RefusalTexts, scope_priority, send_refusal
from cashier.web.payment_endpoints import PaymentEndpoints
from cashier.web.ports import ConsultService, PagesPort
from cashier.web.problem import ProblemCode, RequestRefused
from cashier.web.rate_limit import CallerLimits
from cashier.web.request_guard import RequestGuard
from cashier.web.request_headers import read_request_id
from cashier.web.response import HeaderList, problem_response, send_response
from cashier.web.session_endpoint import SessionEndpoint
from cashier.web.why_endpoint import WhyEndpoint

CashierFactory: TypeAlias = Callable[[], AbstractAsyncContextManager[ConsultService]]

BODY_LIMIT_BYTES = 65_536
BODY_TIMEOUT_S = 10.0
# Scope key of a request that the connection has admitted already.
ADMITTED = "cashier.admitted"
# Scope key of the function that decides whether a page may consult.
ADMITS_PAGE = "cashier.admits_page"
_PAGE_PRIORITY = PRIORITIES[b"normal"]


class CashierApp:
    """The ASGI application.

    A stopping server sets `draining`, which turns `/readyz` to 503, and then calls `stop_waiting`.
    `ladder` decides on admission under overload: here, or earlier in a connection that knows this
    application. Only consultations are refused; payments and health checks never are.
    `body_limit_bytes` and `body_timeout_s` limit the request body, here or in that connection.
    `trusts_named_payers`, `pages`, `limits`: see `app`. `metrics`: where to count.
    """

    def __init__(
        self,
        service: ConsultService | None,
        open_service: CashierFactory | None,
        bearer_auth: BearerAuth | None,
        body_limit_bytes: int,
        body_timeout_s: float,
        ladder: DegradationLadder | None = None,
        origins: AllowedOrigins | None = None,
        *,
        trusts_named_payers: bool = False,
        metrics: Store | None = None,
        pages: PagesPort | None = None,
        limits: CallerLimits | None = None,
    ) -> None:
        self.metrics = metrics = metrics or Store()
        self.http_metrics = HttpMetrics(metrics)
        self.draining = False
        # Whether the server writes a line for each request: see `access_log`.
        self.access_log = False
        self.ladder = ladder
        self.body_limit_bytes = body_limit_bytes
        self.body_timeout_s = body_timeout_s
        self._bearer_auth = bearer_auth
        self._service = service
        self._open_service = open_service
        self.queue = AdmissionQueue(ladder, metrics)
        self.refusal_texts = RefusalTexts(lambda: self._service)
        self.origins = origins = origins or AllowedOrigins({})
        self._consult_endpoint = ConsultEndpoint(
            bearer_auth, origins, body_limit_bytes, body_timeout_s, self.queue, limits
        )
        guard = RequestGuard(
            lambda: self._service,
            bearer_auth,
            origins,
            body_limit_bytes,
            body_timeout_s,
            trusts_named_payers=trusts_named_payers,
            limits=limits,
        )
        self._pages = pages
        self._payment_endpoints = PaymentEndpoints(guard, body_timeout_s, lambda: self.draining)
        self._health = HealthCheck(lambda: self._service, lambda: self.draining)
        self._other_endpoints = other_endpoints(
            self._health,
            body_limit_bytes,
            InvalidateEndpoint(guard),
            WhyEndpoint(guard),
            SessionEndpoint(guard, pages),
            self._payment_endpoints.routes(),
            secured=guard.secured,
        )

    def __repr__(self) -> str:
        return f"<CashierApp {self._health.readiness} {self._consult_endpoint!r} {self._payment_endpoints!r}>"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            if scope["path"].endswith("\n"):
                # Starlette's patterns end with `$`, which passes over one line break, but not two.
                scope = {**scope, "path": scope["path"] + "\n"}
            if self._pages is not None and self._pages.serves(scope["path"].removeprefix(scope.get("root_path", ""))):
                await self._pages({**scope, ADMITS_PAGE: self.admits_page}, receive, send)
                return
            if self.origins.configured:
                headers = dict(scope["headers"])
                if (origin := headers.get(b"origin")) is not None:
                    send = self.origins.readable(origin, send)
                    if scope["method"] == "OPTIONS" and b"access-control-request-method" in headers:
                        await self._preflight(scope, headers, send)
                        return
            if _is_consult(scope):
                await self._consult(scope, receive, send)
                return
        elif scope["type"] == "lifespan":
            await self._run_lifespan(receive, send)
            return
        await self._other_endpoints(scope, receive, send)

    def is_verified(self, authorization: bytes) -> bool:
        """As `BearerAuth.is_verified`. Always true without authentication."""
        return self._bearer_auth is None or self._bearer_auth.is_verified(authorization, time())

    def stop_waiting(self) -> None:
        """Answer all long polls with the present state. Call in the event loop at server stop."""
        payments = self._service.payments if self._service is not None else None
        if payments is not None:
            payments.stop_waiting()

    async def _preflight(self, scope: Scope, headers: dict[bytes, bytes], send: Send) -> None:
        """Answer at any time: the request itself may still be refused."""
        started_ns = perf_counter_ns()
        try:
            methods = ("POST",) if _is_consult(scope) else methods_of(self._other_endpoints, scope)
            if not methods:
                raise RequestRefused(ProblemCode.NOT_FOUND, "There is nothing at this path.")
            response = self.origins.preflight(headers[b"origin"], methods)
        except RequestRefused as refused:
            response = problem_response(refused)
        await send_response(send, response, read_request_id(headers), started_ns)

    async def _consult(self, scope: Scope, receive: Receive, send: Send) -> None:
        ladder = self.ladder
        if ladder is None:
            await self._consult_endpoint.serve(self._service, scope, receive, send)
        elif (
            ADMITTED not in scope and self.limits_admission and not self.admits(scope_priority(scope, self.is_verified))
        ):
            await send_refusal(scope, send, self.refusal_texts)
        else:
            await self._consult_endpoint.serve(self._service, scope, receive, send)
            ladder.answered += 1

    @property
    def limits_admission(self) -> bool:
        """Whether each consultation must pass `admits` first."""
        return self.ladder is not None and (self.ladder.refusing or self.queue.waiting)

    def admits(self, priority: int) -> bool:
        """Whether a consultation of this priority is admitted. Counts it: call once per request."""
        ladder = self.ladder
        if ladder is None:
            return True
        if self.queue.is_too_long(priority):
            return False
        return not ladder.refusing or ladder.admits(priority, perf_counter_ns())

    def admits_page(self) -> bool:
        """Whether a page may consult, as a caller of normal priority. Call once per page."""
        return not self.limits_admission or self.admits(_PAGE_PRIORITY)

    async def respond(
        self, headers: dict[bytes, bytes], body: bytes, receive: Receive
    ) -> tuple[int, HeaderList, bytes] | None:
        """Status, headers and body for an admitted consultation that was received completely.

        The request must not ask for an event stream. `receive` reports a disconnect; None if the
        client has disconnected.
        """
        response = await self._consult_endpoint.respond(self._service, headers, body, receive)
        if self.ladder is not None:
            self.ladder.answered += 1
        if response is not None and b"origin" in headers:
            response[1].extend(self.origins.response_headers(headers[b"origin"]))
        return response

    async def _run_lifespan(self, receive: Receive, send: Send) -> None:
        """The ASGI lifespan. Closes only a service that it opened, and its pages."""
        await receive()
        if self._open_service is None:
            await send({"type": "lifespan.startup.complete"})
            await receive()
        else:
            async with self._open_service() as service:
                self._service = service
                await send({"type": "lifespan.startup.complete"})
                await receive()
                self._service = None
                if self._pages is not None:
                    await self._pages.close()
        await send({"type": "lifespan.shutdown.complete"})


def _is_consult(scope: Scope) -> bool:
    path = scope["path"]
    # In a mounted application `path` includes the mount point, which is `root_path`.
    return bool(path == CONSULT_PATH or path == scope.get("root_path", "") + CONSULT_PATH)


def app(
    cashier: ConsultService,
    *,
    bearer_auth: BearerAuth | None = None,
    body_limit_bytes: int = BODY_LIMIT_BYTES,
    body_timeout_s: float = BODY_TIMEOUT_S,
    ladder: DegradationLadder | None = None,
    origins: AllowedOrigins | None = None,
    trusts_named_payers: bool = False,
    pages: PagesPort | None = None,
    limits: CallerLimits | None = None,
) -> CashierApp:
    """An application on an open cashier, which stays open: `app.mount("/pay", web.app(cashier))`.

    Without `bearer_auth` every caller is admitted. A body over `body_limit_bytes`, or incomplete
    after `body_timeout_s`, is refused. With a `ladder` the application sheds load; the ladder's
    owner must call its `tick`. `origins`: pages of other origins that may call it.
    `trusts_named_payers`: without `bearer_auth`, a caller that names a payer sees and takes over
    that payer's attempts. Only where no stranger reaches it. `pages`: served beside the API, from
    `cashier.pages.app`. `limits`: of users and merchants, in this process.
    """
    return CashierApp(
        cashier,
        None,
        bearer_auth,
        body_limit_bytes,
        body_timeout_s,
        ladder,
        origins,
        trusts_named_payers=trusts_named_payers,
        metrics=cashier.metrics,
        pages=pages,
        limits=limits,
    )


def owning_app(
    open_cashier: CashierFactory,
    *,
    bearer_auth: BearerAuth | None = None,
    body_limit_bytes: int = BODY_LIMIT_BYTES,
    body_timeout_s: float = BODY_TIMEOUT_S,
    ladder: DegradationLadder | None = None,
    origins: AllowedOrigins | None = None,
    trusts_named_payers: bool = False,
    metrics: Store | None = None,
    pages: PagesPort | None = None,
    limits: CallerLimits | None = None,
) -> CashierApp:
    """An application that opens its cashier at server start and closes it at server stop.

    `metrics`: where the cashier counts, and so the application.
    """
    return CashierApp(
        None,
        open_cashier,
        bearer_auth,
        body_limit_bytes,
        body_timeout_s,
        ladder,
        origins,
        trusts_named_payers=trusts_named_payers,
        metrics=metrics,
        pages=pages,
        limits=limits,
    )
