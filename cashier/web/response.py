"""An answer in one piece: what every answer of the consultation and of payments has for headers, and a problem as one."""

from __future__ import annotations

from time import perf_counter_ns
from typing import NamedTuple

from cashier.fanout.ask import SourceReport
from cashier.web.codec import server_timing
from cashier.web.problem import PROBLEM_TYPE, Headers, RequestRefused, encode_problem

_JSON = (b"content-type", b"application/json")
NO_STORE = (b"cache-control", b"no-store")
RETRY_AFTER_1 = ((b"retry-after", b"1"),)

HeaderList = list[tuple[bytes, bytes]]


class ApiResponse(NamedTuple):
    """What is answered. `extra`: headers beside those that every answer has."""

    status: int
    body: bytes
    sources: tuple[SourceReport, ...] = ()
    extra: Headers = ()


def problem_response(refused: RequestRefused) -> ApiResponse:
    what = refused.problem
    asked = what.sources or (what.consultation.sources if what.consultation is not None else ())
    return ApiResponse(what.status, encode_problem(what), asked, refused.headers)


def response_headers(answer: ApiResponse, identity: str, began_ns: int) -> HeaderList:
    """`identity`: of the request."""
    return [
        _JSON if answer.status < 300 else PROBLEM_TYPE,
        (b"content-length", b"%d" % len(answer.body)),
        (b"x-request-id", identity.encode("ascii")),
        (b"server-timing", server_timing((perf_counter_ns() - began_ns) / 1e6, answer.sources)),
        NO_STORE,
        *answer.extra,
    ]
