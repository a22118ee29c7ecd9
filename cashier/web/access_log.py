"""The access log: one line per request after its response, without what a caller chose to send.

The path is that of the endpoint, the client is not named, and there is no query. Requests that are
refused under overload, or that are no HTTP, are counted by metrics only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from time import perf_counter_ns

import structlog

from cashier.domain.pan import looks_issued
from cashier.web.problem import PROBLEM_TYPE
from cashier.web.request_parser import RequestHead

_log = structlog.get_logger("cashier.access")

OTHER = "other"
_METHODS = frozenset((b"GET", b"POST", b"HEAD", b"OPTIONS", b"PUT", b"DELETE", b"PATCH"))
_FIXED = re.compile(rb"/v1/(?:consult|payments|invalidate|why)|/healthz|/readyz|/openapi\.json")
_PAYMENT = re.compile(rb"/v1/payments/[^/]+((?:/(?:challenge|cancel|events|stream-ticket|resume|replace))?)")
_ORDER = re.compile(rb"/v1/orders/[^/]+/payment")
_CODE = re.compile(rb'"code":\s*"([A-Z_]{1,64})"')


def endpoint_of(target: bytes) -> str:
    """The path of the endpoint, with the names of its parameters in their place."""
    path = target.partition(b"?")[0]
    if _FIXED.fullmatch(path):
        return path.decode("ascii")
    if payment := _PAYMENT.fullmatch(path):
        return "/v1/payments/{payment_id}" + payment[1].decode("ascii")
    return "/v1/orders/{order_id}/payment" if _ORDER.fullmatch(path) else OTHER


class AccessEntry:
    """One request. `sent`: call with each write of its response."""

    __slots__ = ("_bytes", "_code", "_is_problem", "_request", "_request_id", "_started_ns", "_status")

    def __init__(self, request: RequestHead) -> None:
        self._request = request
        self._started_ns = perf_counter_ns()
        self._status = self._bytes = 0
        self._request_id = self._code = ""
        self._is_problem = False

    def head(self, status: int, headers: Mapping[bytes, bytes]) -> None:
        self._status = status
        self._is_problem = headers.get(PROBLEM_TYPE[0]) == PROBLEM_TYPE[1]
        self._request_id = headers.get(b"x-request-id", b"").decode("ascii", "replace")

    def sent(self, data: bytes) -> None:
        self._bytes += len(data)
        if self._is_problem and not self._code and (code := _CODE.search(data)):
            self._code = code[1].decode("ascii")

    def write(self, *, complete: bool) -> None:
        request = self._request
        _log.info(
            "request answered" if complete else "request not answered",
            method=request.method.decode("ascii") if request.method in _METHODS else OTHER,
            endpoint=endpoint_of(request.target),
            status=self._status or None,
            code=self._code or None,
            elapsed_ms=round((perf_counter_ns() - self._started_ns) / 1e6, 2),
            bytes=self._bytes,
            # An id that looks like a card number is one, for all that is known.
            request_id=None if looks_issued(self._request_id) else self._request_id or None,
        )
