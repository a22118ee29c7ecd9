"""`POST /v1/consult`, directly on ASGI because it is the hot path."""

from __future__ import annotations

import asyncio
from time import perf_counter_ns, time
from typing import Any, cast

import structlog
from msgspec.structs import replace
from starlette.types import Receive, Scope, Send

from cashier.consultation.answer import Consultation, NotOpen, OrderUnknown, RequiredSourceUnavailable
from cashier.domain.order import ConsultRequest
from cashier.fanout.ask import SourceStatus
from cashier.web.admission_queue import AdmissionQueue
from cashier.web.auth import BearerAuth
from cashier.web.caller import ANYONE, TokenScope
from cashier.web.codec import decode_request, encode_consultation, encode_numbered_consultation
from cashier.web.cross_origin import AllowedOrigins
from cashier.web.disconnect_watch import DisconnectWatch, WatchedRequest
from cashier.web.ports import ConsultService
from cashier.web.problem import Headers, Problem, ProblemCode, RequestRefused
from cashier.web.problem_text import localized
from cashier.web.rate_limit import CallerLimits
from cashier.web.request_headers import (
    declared_length_exceeds,
    is_json,
    read_request_id,
    read_timeout_ms,
    read_traceparent,
)
from cashier.web.response import (
    ACCEPTED,
    CLOSE,
    RETRY_AFTER_1,
    ApiResponse,
    HeaderList,
    problem_response,
    response_headers,
    send_response,
    send_unread,
)
from cashier.web.sse import EventFormat, EventStream, accepts_event_stream

_log = structlog.get_logger("cashier.web")

_OUT_OF_TIME = (SourceStatus.TIMEOUT, SourceStatus.SKIPPED)


def _end(seq: int, last: Consultation) -> dict[str, Any]:
    """DEADLINE: a source ran out of time. COMPLETE: nothing more can change."""
    # An answer that is not degraded misses nothing: for a walk-in, sources are SKIPPED.
    open_question = last.blocked is None and last.degraded
    out_of_time = open_question and any(source.status in _OUT_OF_TIME for source in last.sources)
    return {"seq": seq, "reason": "DEADLINE" if out_of_time else "COMPLETE"}


# `answer` for each better consultation, then `end`. A slow reader skips consultations: the next one
# is the newest when it is requested. The stream ends by the deadline and sends no heartbeats.
_EVENTS = EventFormat[Consultation](
    event=b"answer",
    encode=encode_numbered_consultation,
    end=_end,
    sources=lambda consultation: consultation.sources,
    refusal_for=lambda _: None,
    failure_log="consultation failed in its stream",
    failure_detail="The consultation failed. See the log under this request id.",
    heartbeat=None,
)


class ClientDisconnected(Exception):
    """The client has disconnected; no response can reach it."""


def _refusal_for(error: Exception, request_id: str) -> RequestRefused:
    match error:
        case RequestRefused():
            return error
        case OrderUnknown():
            return RequestRefused(ProblemCode.ORDER_UNKNOWN, "The acquirer knows no order with this order_id.")
        case NotOpen():
            return RequestRefused(ProblemCode.NOT_READY, "The service is not open.", headers=RETRY_AFTER_1)
        case RequiredSourceUnavailable():
            detail = f"No usable answer from {', '.join(error.failed)}, which a consultation requires."
            return RequestRefused(
                ProblemCode.REQUIRED_SOURCE_UNAVAILABLE, detail, sources=error.sources, headers=RETRY_AFTER_1
            )
    _log.error("consultation failed", request_id=request_id, exc_info=error)
    return RequestRefused(ProblemCode.INTERNAL, "The consultation failed. See the log under this request id.")


class ConsultEndpoint:
    """Serves consultations.

    `body_limit_bytes` and `body_timeout_s` limit the request body. Concurrent consultations start
    in the order of `queue`.
    """

    def __init__(
        self,
        bearer_auth: BearerAuth | None,
        origins: AllowedOrigins,
        body_limit_bytes: int,
        body_timeout_s: float,
        queue: AdmissionQueue,
        limits: CallerLimits | None = None,
    ) -> None:
        self._bearer_auth = bearer_auth
        self._origins = origins
        self._queue = queue
        self._limits = limits
        self._body_limit_bytes = body_limit_bytes
        self._disconnect_watch = DisconnectWatch(body_timeout_s)
        self._buffer = bytearray()

    def __repr__(self) -> str:
        return f"<ConsultEndpoint {self._disconnect_watch!r}>"

    async def serve(self, service: ConsultService | None, scope: Scope, receive: Receive, send: Send) -> None:
        """Send a response or an event stream. To a client that has gone: see `send_unread`."""
        started_ns = perf_counter_ns()
        headers: dict[bytes, bytes] = dict(scope["headers"])
        request_id = read_request_id(headers)
        watched = self._disconnect_watch.enter(receive)
        try:
            response = await self._answer(service, scope["method"], headers, watched, request_id, started_ns)
            if isinstance(response, EventStream):
                await response.send(send, watched, started_ns)
                return
        except ClientDisconnected:
            await send_unread(send)
            return
        finally:
            self._disconnect_watch.leave(watched)
        await send_response(send, response, request_id, started_ns)

    async def respond(
        self, service: ConsultService | None, headers: dict[bytes, bytes], body: bytes, receive: Receive
    ) -> tuple[int, HeaderList, bytes] | None:
        """Status, headers and body for a request with this `body`, and without event stream.

        None if the client has disconnected.
        """
        started_ns = perf_counter_ns()
        request_id = read_request_id(headers)
        watched = self._disconnect_watch.enter(receive)
        try:
            answer = await self._answer(service, "POST", headers, watched, request_id, started_ns, body)
        except ClientDisconnected:
            return None
        finally:
            self._disconnect_watch.leave(watched)
        # Never a stream: the caller has checked Accept.
        response = cast("ApiResponse", answer)
        return response.status, response_headers(response, request_id, started_ns), response.body

    async def _answer(
        self,
        service: ConsultService | None,
        method: str,
        headers: dict[bytes, bytes],
        watched: WatchedRequest,
        request_id: str,
        started_ns: int,
        body: bytes | None = None,
    ) -> ApiResponse | EventStream[Consultation]:
        """`body`: None if it must be received. With it the caller wants no event stream."""
        request: ConsultRequest | None = None

        def localize(problem: Problem) -> tuple[Problem, Headers]:
            return localized(problem, service, None if request is None else request.locale, headers)

        try:
            if service is None:
                raise NotOpen
            request = await self._read_request(method, headers, watched, body)
            if self._limits is not None:
                self._limits.admit(request)
            if not self._queue.try_start():
                await self._queue.wait()
            traceparent = read_traceparent(headers)
            if body is None and accepts_event_stream(headers.get(b"accept")):
                consultations = service.stream(request, request_id=request_id, traceparent=traceparent)
                return await EventStream.start(consultations, request_id, _EVENTS._replace(localize=localize))
            consultation = await service.consult(
                request, request_id=request_id, traceparent=traceparent, since_ns=started_ns, decoded=True
            )
            return ApiResponse(200, encode_consultation(consultation, self._buffer), consultation.sources, ())
        except asyncio.CancelledError:
            if not watched.absorb_cancellation():
                raise
            if watched.disconnected:
                raise ClientDisconnected from None
            refused = RequestRefused(ProblemCode.BODY_TIMEOUT, "The body was not complete in time.", headers=CLOSE)
        except ClientDisconnected:
            raise
        except Exception as error:  # noqa: BLE001 - outside the table it is a bug, whose text must not reach the caller
            refused = _refusal_for(error, request_id)
        return problem_response(refused, localize)

    async def _read_request(
        self, method: str, headers: dict[bytes, bytes], watched: WatchedRequest, body: bytes | None
    ) -> ConsultRequest:
        """Check method and headers before reading the body."""
        if method != "POST":
            raise RequestRefused(
                ProblemCode.METHOD_NOT_ALLOWED, "Only POST is allowed.", headers=((b"allow", b"POST"),)
            )
        caller = ANYONE
        if self._bearer_auth is not None:
            caller = self._bearer_auth.admit(headers.get(b"authorization"), TokenScope.CONSULT, time())
        if not is_json(headers.get(b"content-type")):
            raise RequestRefused(
                ProblemCode.UNSUPPORTED_MEDIA_TYPE, "Content-Type must be application/json.", headers=ACCEPTED
            )
        if headers.get(b"content-encoding", b"identity") != b"identity":
            raise RequestRefused(
                ProblemCode.UNSUPPORTED_MEDIA_TYPE, "The body must not be compressed.", headers=ACCEPTED
            )
        timeout_ms = read_timeout_ms(headers)
        if body is None:
            body = await self._read_body(headers, watched)
        watched.body_complete = True
        if len(body) > self._body_limit_bytes:
            raise self._too_large()
        request = decode_request(body)
        if caller is not ANYONE:
            caller.require_own(request)
        if b"origin" in headers:
            self._origins.require(headers, request.merchant_id)
        if timeout_ms is not None and (request.deadline_ms is None or timeout_ms < request.deadline_ms):
            return replace(request, deadline_ms=timeout_ms)
        return request

    async def _read_body(self, headers: dict[bytes, bytes], watched: WatchedRequest) -> bytes:
        if declared_length_exceeds(headers, self._body_limit_bytes):
            raise self._too_large()
        message = await watched.receive()
        if message["type"] != "http.request":
            raise ClientDisconnected
        body: bytes = message.get("body", b"")
        return await self._read_rest(body, watched.receive) if message.get("more_body", False) else body

    async def _read_rest(self, first: bytes, receive: Receive) -> bytes:
        body, more = bytearray(first), True
        while more:
            if len(body) > self._body_limit_bytes:
                raise self._too_large()
            message = await receive()
            if message["type"] != "http.request":
                raise ClientDisconnected
            body += message.get("body", b"")
            more = message.get("more_body", False)
        return bytes(body)

    def _too_large(self) -> RequestRefused:
        return RequestRefused(ProblemCode.TOO_LARGE, f"The body must not exceed {self._body_limit_bytes} bytes.")
