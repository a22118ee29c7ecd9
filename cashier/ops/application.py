"""The ASGI application of the operations port.

A part of it is a function that takes the `OperationsState` and returns routes: add it to `ROUTES`.
What runs beside the requests is an asynchronous context manager of the state, in `SERVICES`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import TypeAlias, cast

import anyio
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from cashier.ops.access import AccessGuard
from cashier.ops.aggregation import WorkerStores
from cashier.ops.collector import collecting
from cashier.ops.metrics_endpoint import metrics_routes
from cashier.ops.record_store import RecordStore
from cashier.settings.schema import Configuration
from cashier.web.auth import BearerAuth

FOLD_S = 5.0


class OperationsState:
    """What the parts of the port share. They all run on the port's event loop.

    `run_directory`: shared with the workers; None if there is no place for one. `auth`: None on a
    loopback address, where every local user is an operator. `stopping`: ends streams.
    """

    def __init__(
        self, config: Configuration, run_directory: Path | None, auth: BearerAuth | None, stopping: asyncio.Event
    ) -> None:
        self.config = config
        self.run_directory = run_directory
        self.auth = auth
        self.stores = WorkerStores(run_directory)
        self.records = RecordStore()
        self.stopping = stopping


Routes: TypeAlias = Callable[[OperationsState], Sequence[BaseRoute]]
Service: TypeAlias = Callable[[OperationsState], AbstractAsyncContextManager[None]]


def _health_routes(_state: OperationsState) -> Sequence[BaseRoute]:
    async def healthz(_request: Request) -> Response:
        """Any response proves that the port's event loop runs."""
        return PlainTextResponse("ok\n")

    return (Route("/healthz", healthz),)


@asynccontextmanager
async def _folding(state: OperationsState) -> AsyncIterator[None]:
    """Fold workers that have ended also where no scrape does it: their files take memory."""

    async def fold() -> None:
        while True:
            await anyio.sleep(FOLD_S)
            state.stores.fold_ended()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(fold)
        yield
        tasks.cancel_scope.cancel()


ROUTES: tuple[Routes, ...] = (_health_routes, lambda state: metrics_routes(state.stores))
SERVICES: tuple[Service, ...] = (_folding, lambda state: collecting(state.run_directory, state.records))


def application(state: OperationsState) -> Starlette:
    routes = [route for routes_of in ROUTES for route in routes_of(state)]
    starlette = Starlette(
        routes=routes,
        middleware=[Middleware(AccessGuard, auth=state.auth)],
        exception_handlers={HTTPException: _http_error},
    )
    starlette.router.redirect_slashes = False
    return starlette


async def _http_error(_request: Request, error: Exception) -> Response:
    """In plain text, without anything of the request."""
    refused = cast("HTTPException", error)  # registered for this type only
    texts = {404: "There is nothing at this path.", 405: "The method is not allowed on this path."}
    text = texts.get(refused.status_code, refused.detail)
    return PlainTextResponse(f"{text}\n", refused.status_code, headers=refused.headers)
