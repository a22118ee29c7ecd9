"""The access log: one line per request after its response, without what a caller chose to send.

The path is that of the endpoint, the client is not named, and there is no query. Requests that are
refused under overload, or that are no HTTP, are counted by metrics only.
"""

from __future__ import annotations

from collections.abc import Mapping
from time import perf_counter_ns

import structlog

from cashier.web.endpoint_path import OTHER, endpoint_path
from cashier.web.problem import PROBLEM_TYPE, problem_code_in
from cashier.web.request_parser import RequestHead

_log = structlog.get_logger("cashier.access")

_METHODS = frozenset((b"GET", b"POST", b"HEAD", b"OPTIONS", b"PUT", b"DELETE", b"PATCH"))


class AccessEntry:
    """One request. `sent`: call with each write of its response."""

    __slots__ = ("_bytes", "_code", "_is_problem", "_request", "_request_id", "_started_ns", "_status")

    def __init__(self, request: RequestHead) -> None:
        self._request = request
        self._started_ns = perf_counter_ns()
        self._status = self._bytes = 0
        self._request_id = ""
        self._code: str | None = None
        self._is_problem = False

    def head(self, status: int, headers: Mapping[bytes, bytes]) -> None:
        self._status = status
        self._is_problem = headers.get(PROBLEM_TYPE[0]) == PROBLEM_TYPE[1]
        self._request_id = headers.get(b"x-request-id", b"").decode("ascii", "replace")

    def sent(self, data: bytes) -> None:
        self._bytes += len(data)
        if self._is_problem and self._code is None:
            self._code = problem_code_in(data)

    def write(self, *, complete: bool) -> None:
        request = self._request
        _log.info(
            "request answered" if complete else "request not answered",
            method=request.method.decode("ascii") if request.method in _METHODS else OTHER,
            endpoint=endpoint_path(request.target),
            status=self._status or None,
            code=self._code,
            elapsed_ms=round((perf_counter_ns() - self._started_ns) / 1e6, 2),
            bytes=self._bytes,
            request_id=self._request_id or None,
        )
