"""Responses of the consultation and payment endpoints that are not streamed, and their headers."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from time import perf_counter_ns
from typing import NamedTuple, TypeAlias

from starlette.types import Send

from cashier.fanout.ask import SourceReport
from cashier.web.codec import server_timing
from cashier.web.problem import PROBLEM_TYPE, Headers, Problem, RequestRefused, encode_problem

_JSON = (b"content-type", b"application/json")
NO_STORE = (b"cache-control", b"no-store")
RETRY_AFTER_1 = ((b"retry-after", b"1"),)
ACCEPTED = ((b"accept", b"application/json"), (b"accept-encoding", b"identity"))
# A connection cannot be reused after a body that was not read to its end.
CLOSE = ((b"connection", b"close"),)
# What nginx logs for a client that has gone.
_CLIENT_GONE = 499

# A problem in the payer's language, and the headers that say so.
Localize: TypeAlias = Callable[[Problem], tuple[Problem, Headers]]
HeaderList = list[tuple[bytes, bytes]]


class ApiResponse(NamedTuple):
    """`sources` go into Server-Timing. `extra`: headers beside those of every response."""

    status: int
    body: bytes
    sources: tuple[SourceReport, ...] = ()
    extra: Headers = ()


def problem_response(refused: RequestRefused, localize: Localize | None = None) -> ApiResponse:
    problem, language = (refused.problem, ()) if localize is None else localize(refused.problem)
    sources = problem.sources or (problem.consultation.sources if problem.consultation is not None else ())
    return ApiResponse(problem.status, encode_problem(problem), sources, (*refused.headers, *language))


def response_headers(response: ApiResponse, request_id: str, started_ns: int) -> HeaderList:
    # RFC 9110, section 8.6: no Content-Length with 204.
    content = (
        ()
        if response.status == 204
        else (
            _JSON if response.status < 300 else PROBLEM_TYPE,
            (b"content-length", b"%d" % len(response.body)),
        )
    )
    return [
        *content,
        (b"x-request-id", request_id.encode("ascii")),
        (b"server-timing", server_timing((perf_counter_ns() - started_ns) / 1e6, response.sources)),
        NO_STORE,
        *response.extra,
    ]


async def send_response(send: Send, response: ApiResponse, request_id: str, started_ns: int) -> None:
    headers = response_headers(response, request_id, started_ns)
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    await send({"type": "http.response.body", "body": response.body})


async def send_unread(send: Send) -> None:
    """An empty response to a client that has gone. A server drops it.

    Middleware of the program around this application may take an application without a response
    for a bug.
    """
    with suppress(OSError):  # of a server that reports the disconnect here
        await send({"type": "http.response.start", "status": _CLIENT_GONE, "headers": []})
        await send({"type": "http.response.body", "body": b""})
