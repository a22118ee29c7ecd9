"""All endpoints other than `POST /v1/consult`, on Starlette, and the responses to unknown paths."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import cast

import anyio
import msgspec
import orjson
import structlog
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import Scope

from cashier.fanout.ask import Importance
from cashier.fanout.reachability import Reachability
from cashier.web import request_headers
from cashier.web.health import HealthCheck, Readiness, ReadinessReport
from cashier.web.invalidate_endpoint import InvalidateEndpoint
from cashier.web.openapi import document
from cashier.web.openapi.page import Page, render_page
from cashier.web.payment_endpoints import PaymentOperation
from cashier.web.problem import Problem, ProblemCode, RequestRefused, encode_problem, make_problem
from cashier.web.session_endpoint import SessionEndpoint
from cashier.web.why_endpoint import WhyEndpoint

_log = structlog.get_logger("cashier.web")

SESSIONS_PATH = "/v1/cashier-sessions"
TILLS_PATH = "/v1/till-sessions"


def other_endpoints(
    health: HealthCheck,
    body_limit_bytes: int,
    invalidate_endpoint: InvalidateEndpoint,
    why_endpoint: WhyEndpoint,
    session_endpoint: SessionEndpoint,
    payment_routes: Sequence[Route],
    *,
    secured: bool,
) -> Starlette:
    """Build the Starlette application. `secured`: the OpenAPI document requires a bearer token."""

    async def healthz(request: Request) -> Response:
        return _json(request, msgspec.json.encode(health.liveness))

    async def readyz(request: Request) -> Response:
        report = health.report()
        if report.status is Readiness.READY:
            return _json(request, msgspec.json.encode(report))
        return _problem(request, _not_ready(report), {"retry-after": "1"})

    async def invalidate(request: Request) -> Response:
        return _json(request, msgspec.json.encode(await invalidate_endpoint(request)))

    async def why(request: Request) -> Response:
        return _json(request, msgspec.json.encode(await why_endpoint(request)))

    async def sessions(request: Request) -> Response:
        return _json(request, msgspec.json.encode(await session_endpoint.open_session(request)))

    async def tills(request: Request) -> Response:
        return _json(request, msgspec.json.encode(await session_endpoint.open_till(request)))

    @cache
    def openapi_document() -> bytes:
        return document(body_limit_bytes, secured=secured)

    async def openapi(request: Request) -> Response:
        return _json(request, openapi_document())

    page: Page | None = None
    page_lock = anyio.Lock()

    async def docs(request: Request) -> Response:
        nonlocal page
        async with page_lock:
            if page is None:
                # Takes some tenths of a second, so beside the event loop.
                page = await run_in_threadpool(render_page, orjson.loads(openapi_document()), "openapi.json")
        return Response(page.body, media_type="text/html", headers=_headers(request) | page.headers)

    routes = [Route("/healthz", healthz), Route("/readyz", readyz)]
    routes += [Route("/openapi.json", openapi), Route("/docs", docs)]
    routes += [Route("/v1/invalidate", invalidate, methods=["POST"]), Route("/v1/why", why, methods=["POST"])]
    routes += [Route(SESSIONS_PATH, sessions, methods=["POST"]), Route(TILLS_PATH, tills, methods=["POST"])]
    routes += payment_routes
    starlette = Starlette(
        routes=routes,
        exception_handlers={HTTPException: _http_error, RequestRefused: _refusal, Exception: _internal_error},
    )
    # An unknown path is 404. Starlette would redirect to the path with or without a trailing slash.
    starlette.router.redirect_slashes = False
    return starlette


def methods_of(starlette: Starlette, scope: Scope) -> tuple[str, ...]:
    """The methods of the path in `scope`; none if there is nothing at it."""
    for route in starlette.routes:
        if isinstance(route, Route) and route.matches(scope)[0] is not Match.NONE:
            # The route of a payment operation accepts every method.
            operation = route.endpoint
            return (operation.method,) if isinstance(operation, PaymentOperation) else tuple(route.methods or ())
    return ()


def _not_ready(report: ReadinessReport) -> Problem:
    waits_for = ""
    if report.status is Readiness.CONNECTING:
        required = [row for row in report.sources if row.importance is Importance.REQUIRED]
        missing = [row.name for row in required if row.state is not Reachability.REACHABLE]
        waits_for = f" to its sources; not connected: {', '.join(missing) or 'none'}"
    return make_problem(ProblemCode.NOT_READY, f"The service is {report.status}{waits_for}.", readiness=report)


async def _http_error(request: Request, error: Exception) -> Response:
    if isinstance(error, HTTPException) and error.status_code == 405:
        allowed = dict(error.headers or {})
        problem = make_problem(ProblemCode.METHOD_NOT_ALLOWED, "The method is not allowed on this path.")
        return _problem(request, problem, allowed)
    return _problem(request, make_problem(ProblemCode.NOT_FOUND, "There is nothing at this path."), {})


async def _refusal(request: Request, error: Exception) -> Response:
    refused = cast("RequestRefused", error)  # registered for this type only
    headers = _headers(request) | {name.decode("ascii"): value.decode("ascii") for name, value in refused.headers}
    return Response(
        encode_problem(refused.problem), refused.problem.status, media_type="application/problem+json", headers=headers
    )


async def _internal_error(request: Request, error: Exception) -> Response:
    problem = make_problem(ProblemCode.INTERNAL, "The request failed. See the log under this request id.")
    response = _problem(request, problem, {})
    _log.error("request failed", request_id=response.headers["x-request-id"], exc_info=error)
    return response


def _json(request: Request, body: bytes) -> Response:
    return Response(body, media_type="application/json", headers=_headers(request))


def _problem(request: Request, problem: Problem, extra_headers: dict[str, str]) -> Response:
    headers = {**_headers(request), **extra_headers}
    return Response(encode_problem(problem), problem.status, media_type="application/problem+json", headers=headers)


def _headers(request: Request) -> dict[str, str]:
    return {
        "x-request-id": request_headers.read_request_id(dict(request.scope["headers"])),
        "cache-control": "no-store",
    }
