"""`POST /v1/why`: explains to an operator what a consultation would answer now."""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec
from starlette.requests import Request

from cashier.consultation.answer import NotOpen
from cashier.domain.explanation.evidence import WhyRequest
from cashier.domain.explanation.schema import Explanation
from cashier.web import codec
from cashier.web.problem import ProblemCode, RequestRefused
from cashier.web.request_guard import RequestGuard
from cashier.web.request_headers import read_request_id, read_traceparent
from cashier.web.response import RETRY_AFTER_1

# An explanation costs as much as twenty to fifty consultations. Five a second are a percent or so
# of a worker, and more than operators type.
MOST_PER_S = 5
MOST_AT_ONCE = 4

_decoder = msgspec.json.Decoder(WhyRequest)
_WHY_REQUEST = msgspec.inspect.type_info(WhyRequest)


class WhyEndpoint:
    """Serves explanations to operators, a bounded number of them."""

    def __init__(self, guard: RequestGuard, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._guard = guard
        self._clock_s = clock_s
        self._under_way = 0
        # Requests that are still allowed, at the time of the last one.
        self._allowance = float(MOST_PER_S)
        self._last_s = clock_s()

    def __repr__(self) -> str:
        return f"<WhyEndpoint {self._guard!r} under_way={self._under_way}>"

    async def __call__(self, request: Request) -> Explanation:
        """Raises `RequestRefused`."""
        headers: dict[bytes, bytes] = dict(request.scope["headers"])
        service = self._guard.service()
        caller = self._guard.admit_operator(headers)
        self._guard.refuse_other_origins(headers)
        question = codec.decode(await self._guard.json(request, headers), _decoder, _WHY_REQUEST)
        caller.require_own(question)
        self._take()
        self._under_way += 1
        try:
            # A caller of one merchant is no operator of the platform: see `Cashier.why`.
            return await service.why(
                question,
                internals=not caller.is_bound,
                request_id=read_request_id(headers),
                traceparent=read_traceparent(headers),
            )
        except NotOpen:
            raise RequestRefused(ProblemCode.NOT_READY, "The service is not open.", headers=RETRY_AFTER_1) from None
        finally:
            self._under_way -= 1

    def _take(self) -> None:
        """Count a request. Raises `RequestRefused`: OVERLOADED."""
        now_s = self._clock_s()
        self._allowance = min(MOST_PER_S, self._allowance + (now_s - self._last_s) * MOST_PER_S)
        self._last_s = now_s
        if self._under_way >= MOST_AT_ONCE or self._allowance < 1:
            raise RequestRefused(
                ProblemCode.OVERLOADED,
                f"At most {MOST_AT_ONCE} explanations at once and {MOST_PER_S} a second are made by a worker.",
                headers=RETRY_AFTER_1,
            )
        self._allowance -= 1
