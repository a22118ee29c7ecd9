"""The payment endpoints: from a request to the payments port and back to a response.

A submit, a challenge answer and a cancellation run to their end even if the client disconnects or
the server stops. A long poll and an event stream end with their client.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import perf_counter_ns
from typing import Any, TypeAlias

import msgspec
import structlog
from starlette.requests import Request
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from cashier.domain.pan import looks_issued
from cashier.domain.payment_resource import Payment
from cashier.domain.payment_state import FINAL
from cashier.web import payment_requests
from cashier.web.disconnect_watch import DisconnectWatch, WatchedRequest
from cashier.web.payment_problems import refusal_for
from cashier.web.ports import PaymentsPort
from cashier.web.problem import ProblemCode, RequestRefused
from cashier.web.request_guard import RequestGuard
from cashier.web.request_headers import read_request_id, read_traceparent
from cashier.web.response import ApiResponse, problem_response, response_headers
from cashier.web.sse import EventFormat, EventStream

_log = structlog.get_logger("cashier.web")

PAYMENTS_PATH = "/v1/payments"


class PaymentCall:
    """One request in progress. `watched` is set if it ends with its client."""

    __slots__ = ("headers", "raw_headers", "request", "request_id", "started_ns", "traceparent", "watched")

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self.started_ns = perf_counter_ns()
        self.request = Request(scope, receive)
        self.raw_headers: list[tuple[bytes, bytes]] = scope["headers"]
        self.headers = dict(self.raw_headers)
        self.request_id = _read_request_id(self.headers)
        self.traceparent = read_traceparent(self.headers)
        self.watched: WatchedRequest | None = None

    def __repr__(self) -> str:
        return f"<PaymentCall {self.request_id}>"

    @property
    def payment_id(self) -> str:
        """Raises `RequestRefused`: NOT_FOUND."""
        return payment_requests.read_payment_id(self.request.path_params["payment_id"])


Serve: TypeAlias = Callable[[PaymentCall], Awaitable[ApiResponse | EventStream[Payment]]]


class PaymentOperation:
    """One endpoint as an ASGI application. All its responses carry the same headers."""

    def __init__(self, method: str, serve: Serve, disconnect_watch: DisconnectWatch) -> None:
        self._method = method
        self._serve = serve
        self._disconnect_watch = disconnect_watch

    def __repr__(self) -> str:
        return f"<PaymentOperation {self._method}>"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        call = PaymentCall(scope, receive)
        try:
            response = await self._respond(call)
            if isinstance(response, EventStream) and call.watched is not None:
                await response.send(send, call.watched, call.started_ns)
        finally:
            if call.watched is not None:
                self._disconnect_watch.leave(call.watched)
        if isinstance(response, ApiResponse):
            headers = response_headers(response, call.request_id, call.started_ns)
            await send({"type": "http.response.start", "status": response.status, "headers": headers})
            await send({"type": "http.response.body", "body": response.body})

    async def _respond(self, call: PaymentCall) -> ApiResponse | EventStream[Payment] | None:
        """None if the client has disconnected."""
        try:
            if call.request.method != self._method:
                raise RequestRefused(
                    ProblemCode.METHOD_NOT_ALLOWED,
                    f"Only {self._method} is allowed.",
                    headers=((b"allow", self._method.encode()),),
                )
            return await self._serve(call)
        except RequestRefused as refused:
            return problem_response(refused)
        except asyncio.CancelledError:
            if call.watched is None or not call.watched.absorb_cancellation():
                raise
            return None
        except Exception as error:  # noqa: BLE001 - outside the table it is a bug, whose text must not reach the caller
            refusal = refusal_for(error)
            if refusal is None:
                _log.exception("payment request failed", request_id=call.request_id)
                refusal = RequestRefused(ProblemCode.INTERNAL, "The request failed. See the log under this request id.")
            return problem_response(refusal)


class PaymentEndpoints:
    """Serves payments. `is_stopping` reports a server stop."""

    def __init__(self, guard: RequestGuard, body_timeout_s: float, is_stopping: Callable[[], bool]) -> None:
        self._guard = guard
        self._disconnect_watch = DisconnectWatch(body_timeout_s)
        self._is_stopping = is_stopping
        # `payment` for each visible change, then `end`.
        self._events = EventFormat[Payment](
            event=b"payment",
            encode=lambda _, payment: msgspec.json.encode(payment),
            end=self._end,
            sources=lambda _: (),
            refusal_for=refusal_for,
            failure_log="payment stream failed",
            failure_detail="The stream of the payment failed. See the log under this request id.",
            has_heartbeats=True,
        )

    def __repr__(self) -> str:
        return f"<PaymentEndpoints {self._guard!r} {self._disconnect_watch!r}>"

    def routes(self) -> list[Route]:
        """Accept every method, so that a wrong one gets the same headers as any other refusal."""
        payment_path = PAYMENTS_PATH + "/{payment_id}"
        operations = {
            PAYMENTS_PATH: PaymentOperation("POST", self._submit, self._disconnect_watch),
            payment_path: PaymentOperation("GET", self._look, self._disconnect_watch),
            f"{payment_path}/challenge": PaymentOperation("POST", self._answer, self._disconnect_watch),
            f"{payment_path}/cancel": PaymentOperation("POST", self._cancel, self._disconnect_watch),
            f"{payment_path}/events": PaymentOperation("GET", self._follow, self._disconnect_watch),
        }
        return [Route(path, operation) for path, operation in operations.items()]

    async def _submit(self, call: PaymentCall) -> ApiResponse:
        payments = self._payments(call)
        key = payment_requests.read_idempotency_key(call.raw_headers)
        request = payment_requests.decode_submit(await self._guard.json(call.request, call.headers))
        return _response(await payments.submit(request, key, request_id=call.request_id, traceparent=call.traceparent))

    async def _answer(self, call: PaymentCall) -> ApiResponse:
        payments, payment_id = self._payments(call), call.payment_id
        answer = payment_requests.decode_challenge_answer(await self._guard.json(call.request, call.headers))
        call_headers = {"request_id": call.request_id, "traceparent": call.traceparent}
        return _response(await payments.answer(payment_id, answer.payment_token, answer.value, **call_headers))

    async def _cancel(self, call: PaymentCall) -> ApiResponse:
        payments, payment_id = self._payments(call), call.payment_id
        cancellation = payment_requests.decode_cancellation(await self._guard.json_or_empty(call.request, call.headers))
        token = payment_requests.read_payment_token(
            call.raw_headers, cancellation.payment_token, secured=self._guard.secured
        )
        return _response(
            await payments.cancel(payment_id, token, request_id=call.request_id, traceparent=call.traceparent)
        )

    async def _look(self, call: PaymentCall) -> ApiResponse:
        payments, payment_id = self._payments(call), call.payment_id
        token = payment_requests.read_payment_token(call.raw_headers, None, secured=self._guard.secured)
        wait_ms = payment_requests.read_wait_ms(call.request.query_params.getlist("wait_ms"))
        await self._end_with_client(call)
        call_headers = {"request_id": call.request_id, "traceparent": call.traceparent}
        return _response(await payments.look(payment_id, token, wait_ms=wait_ms, **call_headers))

    async def _follow(self, call: PaymentCall) -> EventStream[Payment]:
        payments, payment_id = self._payments(call), call.payment_id
        token = payment_requests.read_payment_token(call.raw_headers, None, secured=self._guard.secured)
        await self._end_with_client(call)
        updates = payments.follow(payment_id, token, request_id=call.request_id, traceparent=call.traceparent)
        return await EventStream.start(updates, call.request_id, self._events)

    def _end(self, _: int, last: Payment) -> dict[str, Any]:
        if last.status in FINAL:
            return {"reason": "FINAL"}
        return {"reason": "STOPPING" if self._is_stopping() else "TIMEOUT"}

    def _payments(self, call: PaymentCall) -> PaymentsPort:
        payments = self._guard.admit(call.headers).payments
        if payments is None:
            raise RequestRefused(ProblemCode.PAYMENTS_NOT_CONFIGURED, "This service does not take payments.")
        return payments

    async def _end_with_client(self, call: PaymentCall) -> None:
        """Let a disconnect cancel the call. Reads the body first: the disconnect follows it."""
        await self._guard.body(call.request, call.headers)
        call.watched = self._disconnect_watch.enter(call.request.receive)
        call.watched.body_complete = True


def _response(payment: Payment) -> ApiResponse:
    return ApiResponse(200 if payment.status in FINAL else 202, msgspec.json.encode(payment))


def _read_request_id(headers: dict[bytes, bytes]) -> str:
    """Replace an id that looks like a card number: ids are logged and sent upstream."""
    request_id = read_request_id(headers)
    return read_request_id({}) if looks_issued(request_id) else request_id
