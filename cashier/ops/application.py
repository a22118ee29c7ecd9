"""The ASGI application of the operations port.

A part of it is a function that takes the `OperationsState` and returns routes: add it to `ROUTES`.
What runs beside the requests is an asynchronous context manager of the state, in `SERVICES`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TypeAlias, cast

import anyio
import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from cashier.metrics.store import Store
from cashier.ops.access import AccessGuard
from cashier.ops.aggregation import WorkerStores
from cashier.ops.collector import collecting
from cashier.ops.console.routes import Console
from cashier.ops.console.sandbox_weather import SandboxWeather
from cashier.ops.console.sign_in import sign_in_routes
from cashier.ops.console.weather import weather_routes
from cashier.ops.history import STEP_S
from cashier.ops.host_guard import HostGuard
from cashier.ops.live_state import LiveState
from cashier.ops.metrics_endpoint import metrics_routes
from cashier.ops.overview_endpoint import overview_routes
from cashier.ops.record_store import RecordStore
from cashier.ops.records_endpoint import records_routes
from cashier.ops.replay_view import replay_view
from cashier.ops.security_headers import SecurityHeaders
from cashier.ops.site_guard import SiteGuard
from cashier.settings.schema import Configuration
from cashier.web.auth import BearerAuth

_log = structlog.get_logger("cashier.ops")

FOLD_S = 5.0
# How often a failure of the same round is reported.
REPORT_S = 60.0


class OperationsState:
    """What the parts of the port share. They all run on the port's event loop.

    `run_directory`: shared with the workers; None if there is no place for one. `auth`: None on a
    loopback address, where every local user is an operator. `stopping`: ends streams. `own`: see
    `WorkerStores`.
    """

    def __init__(
        self,
        config: Configuration,
        run_directory: Path | None,
        auth: BearerAuth | None,
        stopping: asyncio.Event,
        own: Store | None = None,
    ) -> None:
        self.config = config
        self.run_directory = run_directory
        self.auth = auth
        self.stores = WorkerStores(run_directory, own)
        self.records = RecordStore()
        self.stopping = stopping
        self.live = LiveState(
            self.stores.snapshot,
            self.records.states.values,
            self.records.records,
            stopping,
            self.records.payments,
            self.records.steps.steps,
        )


Routes: TypeAlias = Callable[[OperationsState], Sequence[BaseRoute]]
Service: TypeAlias = Callable[[OperationsState], AbstractAsyncContextManager[None]]


def _health_routes(_state: OperationsState) -> Sequence[BaseRoute]:
    async def healthz(_request: Request) -> Response:
        """Any response proves that the port's event loop runs."""
        return PlainTextResponse("ok\n")

    return (Route("/healthz", healthz),)


def _console_routes(state: OperationsState) -> Sequence[BaseRoute]:
    sandbox = state.config.settings.operations.sandbox
    console = Console(state.live, partial(replay_view, config=state.config), with_weather=bool(sandbox))
    routes = [*console.routes()]
    if state.auth is not None:
        routes += sign_in_routes(console, state.auth, state.live.sessions)
    if sandbox:
        routes += weather_routes(console, SandboxWeather(sandbox), state.live.sessions)
    return routes


@asynccontextmanager
async def _repeating(act: Callable[[], None], every_s: float) -> AsyncIterator[None]:
    """Call it meanwhile. A failure, such as for lack of open files, must not end the port."""

    async def repeat() -> None:
        reported_s = -REPORT_S
        while True:
            try:
                act()
            except Exception as error:  # noqa: BLE001 - the next time it may work
                now_s = time.monotonic()
                if now_s - reported_s >= REPORT_S:
                    reported_s = now_s
                    _log.error("a round of the operations port failed", exc_info=error)
            await anyio.sleep(every_s)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(repeat)
        yield
        tasks.cancel_scope.cancel()


ROUTES: tuple[Routes, ...] = (
    _health_routes,
    lambda state: metrics_routes(state.stores),
    lambda state: overview_routes(state.live),
    lambda state: records_routes(state.records),
    _console_routes,
)
SERVICES: tuple[Service, ...] = (
    # Fold workers that have ended also where no scrape does it: their files take memory.
    lambda state: _repeating(state.stores.fold_ended, FOLD_S),
    # Keep the numbers of the last minutes, for rates and quantiles.
    lambda state: _repeating(state.live.history.sample, STEP_S),
    lambda state: collecting(state.run_directory, state.records),
)


def application(state: OperationsState) -> Starlette:
    settings = state.config.settings.operations
    routes = [route for routes_of in ROUTES for route in routes_of(state)]
    starlette = Starlette(
        routes=routes,
        middleware=[
            Middleware(SecurityHeaders),
            Middleware(HostGuard, hosts=(settings.host, *settings.hosts)),
            Middleware(SiteGuard),
            Middleware(AccessGuard, auth=state.auth, sessions=state.live.sessions),
        ],
        exception_handlers={HTTPException: _http_error, ClientDisconnect: _client_left},
    )
    starlette.router.redirect_slashes = False
    return starlette


async def _client_left(_request: Request, _error: Exception) -> Response:
    """Before the end of its form: it gets nothing, and that is no line of the log."""
    return Response(status_code=400)


async def _http_error(_request: Request, error: Exception) -> Response:
    """In plain text, without anything of the request."""
    refused = cast("HTTPException", error)  # registered for this type only
    texts = {404: "There is nothing at this path.", 405: "The method is not allowed on this path."}
    text = texts.get(refused.status_code, refused.detail)
    return PlainTextResponse(f"{text}\n", refused.status_code, headers=refused.headers)
