"""What is counted at the edge: requests by how they were answered, problems, open connections.

Of our own server only: where another one serves the application, that one counts.
"""

from __future__ import annotations

from functools import partial

from cashier.metrics.store import Counter, Store
from cashier.web.endpoint_path import CONSULT_PATH, ENDPOINT_PATHS, OTHER, endpoint_path
from cashier.web.problem import ProblemCode, problem_code_in

# By the first digit of a status, as a byte.
_STATUS_CLASSES = {ord(digit): f"{digit}xx" for digit in "2345"}
_FIRST_OF_PROBLEMS = ord("4")
_STATUS_AT = len(b"HTTP/1.1 ")
# A page, or the answer to a HEAD, says by its status alone that there was a bug.
_BUG = b"HTTP/1.1 500 "
_UNANSWERED = 0
_CONSULT_TARGET = CONSULT_PATH.encode("ascii")
_ERROR_EVENT = b"event: error\n"


class HttpMetrics:
    """The counters of one worker. A response costs less than a microsecond, a problem about one."""

    __slots__ = ("_consultations", "_problems", "_requests", "connections")

    def __init__(self, metrics: Store) -> None:
        requests = partial(metrics.counter, "cashier_http_requests_total")
        self._requests = {
            path: {
                _UNANSWERED: requests(path, "none"),
                **{digit: requests(path, status) for digit, status in _STATUS_CLASSES.items()},
            }
            for path in (*ENDPOINT_PATHS, OTHER)
        }
        self._consultations = self._requests[CONSULT_PATH]
        self._problems = {code.value: metrics.counter("cashier_http_problems_total", code) for code in ProblemCode}
        self.connections = metrics.gauge("cashier_http_connections")

    def count_response(self, target: bytes, begin: bytes) -> None:
        """`target`: of the request; empty if none was read. `begin`: what is written first."""
        status = begin[_STATUS_AT]
        counter = self._of(target)[status]
        counter.cells[counter.index] += 1
        if status >= _FIRST_OF_PROBLEMS:
            self._count_problem(begin)

    def count_events(self, events: bytes) -> None:
        """A later part of an event stream: it may end with a problem."""
        if _ERROR_EVENT in events:
            self._count_problem(events)

    def count_unanswered(self, target: bytes) -> None:
        self._of(target)[_UNANSWERED].add()

    def _of(self, target: bytes) -> dict[int, Counter]:
        return self._consultations if target == _CONSULT_TARGET else self._requests[endpoint_path(target)]

    def _count_problem(self, written: bytes) -> None:
        code = problem_code_in(written)
        if code is None and written.startswith(_BUG):
            code = ProblemCode.INTERNAL.value
        counter = self._problems.get(code or "")
        if counter is not None:
            counter.add()
