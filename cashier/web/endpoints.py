"""Everything but the hot route: health, readiness, the OpenAPI document, invalidation, the routes that others bring, and what is answered
where there is nothing. Starlette."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from functools import cache
from typing import cast

import msgspec
import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from cashier.web import request_headers
from cashier.web.invalidate_endpoint import InvalidateEndpoint
from cashier.web.openapi import document
from cashier.web.problem import ProblemCode, RequestRefused, encode_problem, make_problem

_log = structlog.get_logger("cashier.web")


class Readiness(Enum):
    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"


def other_endpoints(
    readiness: Callable[[], Readiness],
    body_limit_bytes: int,
    invalidating: InvalidateEndpoint,
    others: Sequence[Route],
    *,
    secured: bool,
) -> Starlette:
    """`readiness` is asked at each request for it. `secured`: the document says that callers need a bearer token."""

    async def healthz(request: Request) -> Response:
        """That it answers at all is the answer: the loop turns."""
        return JSONResponse({"status": "ok"}, headers=_headers(request))

    async def readyz(request: Request) -> Response:
        state = readiness()
        if state is Readiness.READY:
            return JSONResponse({"status": "ready"}, headers=_headers(request))
        return _problem(request, ProblemCode.NOT_READY, f"It is {state.value}.", {"retry-after": "1"})

    async def invalidate(request: Request) -> Response:
        return Response(
            msgspec.json.encode(await invalidating(request)), media_type="application/json", headers=_headers(request)
        )

    @cache
    def described() -> bytes:
        return document(body_limit_bytes, secured=secured)

    async def openapi(request: Request) -> Response:
        return Response(described(), media_type="application/json", headers=_headers(request))

    routes = [Route("/healthz", healthz), Route("/readyz", readyz), Route("/openapi.json", openapi)]
    routes += [Route("/v1/invalidate", invalidate, methods=["POST"]), *others]
    starlette = Starlette(
        routes=routes, exception_handlers={HTTPException: _refused, RequestRefused: _turned_down, Exception: _failed}
    )
    # What is not there is not there: no redirect to a neighbouring spelling.
    starlette.router.redirect_slashes = False
    return starlette


async def _refused(request: Request, error: Exception) -> Response:
    if isinstance(error, HTTPException) and error.status_code == 405:
        return _problem(
            request, ProblemCode.METHOD_NOT_ALLOWED, "This is asked for with another method.", dict(error.headers or {})
        )
    return _problem(request, ProblemCode.NOT_FOUND, "Nothing is served under this path.", {})


async def _turned_down(request: Request, error: Exception) -> Response:
    """What a page raises that knows why."""
    refused = cast("RequestRefused", error)  # as it is registered
    sent = _headers(request) | {name.decode("ascii"): value.decode("ascii") for name, value in refused.headers}
    return Response(
        encode_problem(refused.problem), refused.problem.status, media_type="application/problem+json", headers=sent
    )


async def _failed(request: Request, error: Exception) -> Response:
    answer = _problem(request, ProblemCode.INTERNAL, "The request failed. The log has it under this request id.", {})
    _log.error("request failed", request_id=answer.headers["x-request-id"], exc_info=error)
    return answer


def _problem(request: Request, code: ProblemCode, detail: str, more: dict[str, str]) -> Response:
    what = make_problem(code, detail)
    sent = {**_headers(request), **more}
    return Response(encode_problem(what), what.status, media_type="application/problem+json", headers=sent)


def _headers(request: Request) -> dict[str, str]:
    return {
        "x-request-id": request_headers.read_request_id(dict(request.scope["headers"])),
        "cache-control": "no-store",
    }
