"""The hot route, `POST /v1/consult`, straight on ASGI: every line here is paid for by every consultation."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from time import perf_counter_ns, time
from typing import Protocol, cast

import structlog
from msgspec.structs import replace
from starlette.types import Receive, Scope, Send

from cashier.consultation.flow import Consultation, OrderUnknown, RequiredSourceUnavailable
from cashier.domain.order import ConsultRequest
from cashier.fanout.l2.interface import Invalidated
from cashier.web.admission_queue import AdmissionQueue
from cashier.web.auth import BearerAuth
from cashier.web.codec import decode_request, encode_consultation
from cashier.web.consultation_stream import ConsultationStream, accepts_event_stream
from cashier.web.disconnect_watch import DisconnectWatch, WatchedRequest
from cashier.web.payments_port import PaymentsPort
from cashier.web.problem import ProblemCode, RequestRefused
from cashier.web.request_headers import (
    declared_length_exceeds,
    is_json,
    read_request_id,
    read_timeout_ms,
    read_traceparent,
)
from cashier.web.response import RETRY_AFTER_1, ApiResponse, HeaderList, problem_response, response_headers

_log = structlog.get_logger("cashier.web")

# Closing is the safe end for a connection whose body was not read to its end by the time it should have been.
_CLOSE = ((b"connection", b"close"),)
_ACCEPTED = ((b"accept", b"application/json"), (b"accept-encoding", b"identity"))


class ConsultService(Protocol):
    """What stands behind the door."""

    @property
    def ready(self) -> bool:
        """Whether it can be asked."""

    @property
    def payments(self) -> PaymentsPort | None:
        """None: it does nothing but consult."""

    async def consult(
        self,
        request: ConsultRequest,
        *,
        request_id: str,
        traceparent: str | None = None,
        since_ns: int | None = None,
    ) -> Consultation:
        """Ends by the deadline of the request, counted from `since_ns` on the clock of `perf_counter_ns`, or from now.

        Raises `OrderUnknown` and `RequiredSourceUnavailable`.
        """

    def stream(
        self, request: ConsultRequest, *, request_id: str, traceparent: str | None = None
    ) -> AsyncGenerator[Consultation, None]:
        """The same as it unfolds, each answer whole, the last as `consult` gives it. Raises before the first answer only.

        To be closed by who does not take all.
        """

    def invalidate(self, source: str, *, key: str | None = None, prefix: str | None = None) -> Invalidated:
        """What is remembered of one key, or of all that begin with `prefix`, goes. Raises `SourceUnknown`."""


class ClientDisconnected(Exception):
    """Nobody is left to answer."""


class ConsultEndpoint:
    """Serves consultations. `body_limit_bytes` and `body_timeout_s` bound what a caller may send, and for how long.

    Those that come at once begin one after the other, in `line`.
    """

    def __init__(
        self, doorkeeper: BearerAuth | None, body_limit_bytes: int, body_timeout_s: float, line: AdmissionQueue
    ) -> None:
        self._doorkeeper = doorkeeper
        self._line = line
        self._body_limit_bytes = body_limit_bytes
        self._vigil = DisconnectWatch(body_timeout_s)

    def __repr__(self) -> str:
        return f"<Consulting {self._vigil!r}>"

    async def serve(self, engine: ConsultService | None, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, one answer, or a stream of them. Nothing is sent to a client that has gone."""
        began_ns = perf_counter_ns()
        headers: dict[bytes, bytes] = dict(scope["headers"])
        identity = read_request_id(headers)
        visit = self._vigil.enter(receive)
        try:
            answer = await self._answer(engine, scope["method"], headers, visit, identity, began_ns)
            if isinstance(answer, ConsultationStream):
                await answer.tell(send, visit, began_ns)
                return
        except ClientDisconnected:
            return
        finally:
            self._vigil.leave(visit)
        await send(
            {
                "type": "http.response.start",
                "status": answer.status,
                "headers": response_headers(answer, identity, began_ns),
            }
        )
        await send({"type": "http.response.body", "body": answer.body})

    async def whole(
        self, engine: ConsultService | None, headers: dict[bytes, bytes], receive: Receive
    ) -> tuple[int, HeaderList, bytes] | None:
        """Status, headers and body for a request that has come whole and wants no stream. None: nobody is left to answer."""
        began_ns = perf_counter_ns()
        identity = read_request_id(headers)
        visit = self._vigil.enter(receive)
        try:
            answer = await self._answer(engine, "POST", headers, visit, identity, began_ns)
        except ClientDisconnected:
            return None
        finally:
            self._vigil.leave(visit)
        told = cast("ApiResponse", answer)  # a stream was not wanted
        return told.status, response_headers(told, identity, began_ns), told.body

    async def _answer(
        self,
        engine: ConsultService | None,
        method: str,
        headers: dict[bytes, bytes],
        visit: WatchedRequest,
        identity: str,
        began_ns: int,
    ) -> ApiResponse | ConsultationStream:
        try:
            if engine is None:
                raise RequestRefused(ProblemCode.NOT_READY, "The engine is not open.", headers=RETRY_AFTER_1)
            request = await self._request(method, headers, visit)
            if not self._line.enters():
                await self._line.wait()
            if accepts_event_stream(headers.get(b"accept")):
                return await ConsultationStream.begun(
                    engine.stream(request, request_id=identity, traceparent=read_traceparent(headers)), identity
                )
            trace = read_traceparent(headers)
            consultation = await engine.consult(request, request_id=identity, traceparent=trace, since_ns=began_ns)
            return ApiResponse(200, encode_consultation(consultation), consultation.sources, ())
        except RequestRefused as refused:
            return problem_response(refused)
        except OrderUnknown:
            return problem_response(
                RequestRefused(ProblemCode.ORDER_UNKNOWN, "The acquirer knows no order with this order_id.")
            )
        except RequiredSourceUnavailable as silent:
            detail = f"No usable answer from {', '.join(silent.failed)}; nothing can be said without it."
            return problem_response(
                RequestRefused(
                    ProblemCode.REQUIRED_SOURCE_UNAVAILABLE, detail, sources=silent.sources, headers=RETRY_AFTER_1
                )
            )
        except asyncio.CancelledError:
            if not visit.forgives():
                raise
            if visit.gone:
                raise ClientDisconnected from None
            return problem_response(
                RequestRefused(ProblemCode.BODY_TIMEOUT, "The body was not whole in time.", headers=_CLOSE)
            )
        except ClientDisconnected:
            raise
        except Exception:  # noqa: BLE001 - whatever is left is our bug, and its text must not leave the house
            _log.exception("consultation failed", request_id=identity)
            return problem_response(
                RequestRefused(ProblemCode.INTERNAL, "The consultation failed. The log has it under this request id.")
            )

    async def _request(self, method: str, headers: dict[bytes, bytes], visit: WatchedRequest) -> ConsultRequest:
        """Everything that can be refused without a body is, before it is read."""
        if method != "POST":
            raise RequestRefused(
                ProblemCode.METHOD_NOT_ALLOWED, "A consultation is asked for with POST.", headers=((b"allow", b"POST"),)
            )
        if self._doorkeeper is not None:
            self._doorkeeper.admit(headers.get(b"authorization"), time())
        if not is_json(headers.get(b"content-type")):
            raise RequestRefused(
                ProblemCode.UNSUPPORTED_MEDIA_TYPE, "Content-Type must be application/json.", headers=_ACCEPTED
            )
        if headers.get(b"content-encoding", b"identity") != b"identity":
            raise RequestRefused(
                ProblemCode.UNSUPPORTED_MEDIA_TYPE, "The body must not be compressed.", headers=_ACCEPTED
            )
        patience_ms = read_timeout_ms(headers)
        request = decode_request(await self._body(headers, visit))
        if patience_ms is not None and (request.deadline_ms is None or patience_ms < request.deadline_ms):
            return replace(request, deadline_ms=patience_ms)
        return request

    async def _body(self, headers: dict[bytes, bytes], visit: WatchedRequest) -> bytes:
        if declared_length_exceeds(headers, self._body_limit_bytes):
            raise self._too_large()
        message = await visit.receive()
        if message["type"] != "http.request":
            raise ClientDisconnected
        body: bytes = message.get("body", b"")
        if message.get("more_body", False):
            body = await self._rest_of_body(body, visit.receive)
        elif len(body) > self._body_limit_bytes:
            raise self._too_large()
        visit.whole = True
        return body

    async def _rest_of_body(self, first: bytes, receive: Receive) -> bytes:
        body, more = bytearray(first), True
        while more:
            if len(body) > self._body_limit_bytes:
                raise self._too_large()
            message = await receive()
            if message["type"] != "http.request":
                raise ClientDisconnected
            body += message.get("body", b"")
            more = message.get("more_body", False)
        if len(body) > self._body_limit_bytes:
            raise self._too_large()
        return bytes(body)

    def _too_large(self) -> RequestRefused:
        return RequestRefused(
            ProblemCode.TOO_LARGE, f"The body must not be larger than {self._body_limit_bytes} bytes."
        )
