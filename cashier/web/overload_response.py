"""Refuses consultations under overload: on our own connections, or over ASGI.

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

from collections.abc import Callable, Mapping

from starlette.types import Scope, Send

from cashier.domain.catalog import Catalog
from cashier.domain.locale_match import MAX_HEADER
from cashier.fanout.load_shedding import PRIORITY_NAMES
from cashier.web.cross_origin import AllowedOrigins
from cashier.web.ports import ConsultService
from cashier.web.problem import PROBLEM_TYPE, Headers, ProblemCode, encode_problem, make_problem
from cashier.web.problem_text import localized
from cashier.web.request_headers import read_request_id

LOW, NORMAL, HIGH, CRITICAL = range(4)
PRIORITIES = {name.encode(): priority for priority, name in enumerate(PRIORITY_NAMES)}
RETRY_AFTER_S = 1
DETAIL = "The service is overloaded. The request was not processed."

# `BearerAuth.is_verified`, for the value of an Authorization header.
IsVerified = Callable[[bytes], bool]

_PRODUCTS = ((b'"SCAN"', HIGH), (b'"EMBEDDED_CASHIER"', LOW))

_PROBLEM = make_problem(ProblemCode.OVERLOADED, DETAIL)
_RESPONSE = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\ncontent-length: %d\r\n"
    b"retry-after: %d\r\ncache-control: no-store\r\nserver-timing: total;dur=0.0\r\nx-request-id: %b\r\n%b\r\n%b"
)
# Accept-Language values whose refusal is kept. Browsers send few different ones.
_MAX_LANGUAGES = 256


class RefusalTexts:
    """The refusal in the languages that callers accept, each encoded once per catalog."""

    def __init__(self, service: Callable[[], ConsultService | None]) -> None:
        self._service = service
        self._catalog: Catalog | None = None
        self._known: dict[bytes, tuple[bytes, Headers]] = {}

    def __repr__(self) -> str:
        return f"<RefusalTexts languages={len(self._known)}>"

    def for_caller(self, headers: Mapping[bytes, bytes]) -> tuple[bytes, Headers]:
        """The body and its Content-Language, by Accept-Language: the request is not parsed."""
        service = self._service()
        catalog = None if service is None else service.catalog
        if catalog is not self._catalog or len(self._known) >= _MAX_LANGUAGES:
            self._known.clear()
            self._catalog = catalog
        accepted = headers.get(b"accept-language", b"")[:MAX_HEADER]
        known = self._known.get(accepted)
        if known is None:
            problem, language = localized(_PROBLEM, service, None, headers)
            known = self._known[accepted] = encode_problem(problem), language
        return known


def request_priority(headers: Mapping[bytes, bytes], body: bytes, is_verified: IsVerified) -> int:
    """The priority by X-Priority, or by the product that the body names."""
    default = NORMAL
    for product, priority in _PRODUCTS:
        if product in body:
            default = priority
            break
    return resolve_priority(headers.get(b"x-priority"), headers.get(b"authorization"), default, is_verified)


def encode_refusal(
    headers: Mapping[bytes, bytes], origins: AllowedOrigins, texts: RefusalTexts, *, closes: bool
) -> bytes:
    """The complete response to a request with these headers.

    A page of an allowed origin can read it.
    """
    request_id = read_request_id(headers).encode("ascii")
    origin = headers.get(b"origin") if origins.configured else None
    body, extra = texts.for_caller(headers)
    if origin is not None:
        extra = (*extra, *origins.response_headers(origin))
    lines = b"".join(map(b"%b: %b\r\n".__mod__, extra))
    if closes:
        lines += b"connection: close\r\n"
    return _RESPONSE % (len(body), RETRY_AFTER_S, request_id, lines, body)


def resolve_priority(claim: bytes | None, authorization: bytes | None, default: int, is_verified: IsVerified) -> int:
    """LOW to CRITICAL. `claim` is the value of X-Priority, `default` the priority without it."""
    claimed = default if claim is None else PRIORITIES.get(claim.lower(), default)
    if claimed <= default or is_verified(authorization or b""):
        return claimed
    return default


def scope_priority(scope: Scope, is_verified: IsVerified) -> int:
    """The priority by headers alone, by default normal: the product is in the body."""
    return request_priority(dict(scope["headers"]), b"", is_verified)


async def send_refusal(scope: Scope, send: Send, texts: RefusalTexts) -> None:
    """The same response over ASGI."""
    request_headers = dict(scope["headers"])
    body, language = texts.for_caller(request_headers)
    headers = [
        PROBLEM_TYPE,
        (b"content-length", b"%d" % len(body)),
        (b"retry-after", b"%d" % RETRY_AFTER_S),
        (b"cache-control", b"no-store"),
        (b"server-timing", b"total;dur=0.0"),
        (b"x-request-id", read_request_id(request_headers).encode("ascii")),
        *language,
    ]
    await send({"type": "http.response.start", "status": 503, "headers": headers})
    await send({"type": "http.response.body", "body": body})
