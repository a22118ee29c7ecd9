"""Refuses consultations under overload, from the bytes of a plain request or from request headers.

A refusal must be so cheap that refusing two of three callers leaves nearly all CPU time to the
third. `DegradationLadder` and `AdmissionQueue` decide; this module reads the priority and writes
the response.

Priority is `X-Priority: critical | high | normal | low`. Without the header, or with another value,
the product decides: SCAN (a payer at a till) is high, STANDARD_CASHIER normal, EMBEDDED_CASHIER
low. Every caller may lower its priority. To raise it a caller needs the bearer token of a service
that an earlier request verified; misuse then shows under the service's name. A payer cannot raise
it. Without authentication every claim counts.
"""

from __future__ import annotations

from collections.abc import Callable

from starlette.types import Scope, Send

from cashier.web.cross_origin import AllowedOrigins
from cashier.web.fast_path_parser import PlainRequest
from cashier.web.problem import PROBLEM_TYPE, ProblemCode, encode_problem, make_problem
from cashier.web.request_headers import read_request_id

LOW, NORMAL, HIGH, CRITICAL = range(4)
PRIORITIES = {b"low": LOW, b"normal": NORMAL, b"high": HIGH, b"critical": CRITICAL}
RETRY_AFTER_S = 1
DETAIL = "The service is overloaded. The request was not processed."

# `BearerAuth.is_verified`, for the value of an Authorization header.
IsVerified = Callable[[bytes], bool]

_PRODUCTS = ((b'"SCAN"', HIGH), (b'"EMBEDDED_CASHIER"', LOW))

_BODY = encode_problem(make_problem(ProblemCode.OVERLOADED, DETAIL))
_RESPONSE = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\ncontent-length: %d\r\n"
    b"retry-after: %d\r\ncache-control: no-store\r\nserver-timing: total;dur=0.0\r\n%%bx-request-id: %%b\r\n\r\n%b"
) % (len(_BODY), RETRY_AFTER_S, _BODY)


def plain_request_priority(request: PlainRequest, is_verified: IsVerified) -> int:
    """The priority by X-Priority, or by the product that the body names."""
    default = NORMAL
    for product, priority in _PRODUCTS:
        if request.data.find(product, request.body) >= 0:
            default = priority
            break
    return resolve_priority(request.header(b"x-priority"), request.header(b"authorization"), default, is_verified)


def encode_refusal(request: PlainRequest, origins: AllowedOrigins) -> bytes:
    """The complete response, which a page of an allowed origin can read."""
    claimed = request.header(b"x-request-id")
    request_id = read_request_id({} if claimed is None else {b"x-request-id": claimed}).encode("ascii")
    origin = request.header(b"origin") if origins.configured else None
    lines = [] if origin is None else [b"%b: %b\r\n" % header for header in origins.response_headers(origin)]
    return _RESPONSE % (b"".join(lines), request_id)


def resolve_priority(claim: bytes | None, authorization: bytes | None, default: int, is_verified: IsVerified) -> int:
    """LOW to CRITICAL. `claim` is the value of X-Priority, `default` the priority without it."""
    claimed = default if claim is None else PRIORITIES.get(claim.lower(), default)
    if claimed <= default or is_verified(authorization or b""):
        return claimed
    return default


def scope_priority(scope: Scope, is_verified: IsVerified) -> int:
    """The priority by headers alone, by default normal: the product is in the body."""
    headers: dict[bytes, bytes] = dict(scope["headers"])
    return resolve_priority(headers.get(b"x-priority"), headers.get(b"authorization"), NORMAL, is_verified)


async def send_refusal(scope: Scope, send: Send) -> None:
    """The same response over ASGI."""
    headers = [
        PROBLEM_TYPE,
        (b"content-length", b"%d" % len(_BODY)),
        (b"retry-after", b"%d" % RETRY_AFTER_S),
        (b"cache-control", b"no-store"),
        (b"server-timing", b"total;dur=0.0"),
        (b"x-request-id", read_request_id(dict(scope["headers"])).encode("ascii")),
    ]
    await send({"type": "http.response.start", "status": 503, "headers": headers})
    await send({"type": "http.response.body", "body": _BODY})
