"""The payment endpoints: from a request to the payments port and back to a response.

A browser's `EventSource` sends no headers, so a stream ticket in the URL takes their place. It
permits to follow one payment and nothing else. `EventSource` reconnects whenever a stream ends,
until it gets 204.

A submit, a challenge answer and a cancellation run to their end even if the client disconnects or
the server stops. A long poll and an event stream end with their client.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from time import perf_counter_ns
from typing import Any, NamedTuple, TypeAlias

import msgspec
import structlog
from msgspec.structs import replace
from starlette.requests import Request
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from cashier.domain.payment_request import AttemptRequest, PaymentChoice, PaymentRequest
from cashier.domain.payment_resource import Payment
from cashier.domain.payment_state import FINAL
from cashier.tokens.jws import TokenRefused
from cashier.web import payment_requests
from cashier.web.caller import ANYONE, Caller, TokenScope
from cashier.web.disconnect_watch import DisconnectWatch, WatchedRequest
from cashier.web.payment_problems import refusal_for
from cashier.web.payment_requests import FindRequest
from cashier.web.ports import ConsultService, PaymentsPort
from cashier.web.problem import Headers, Problem, ProblemCode, RequestRefused
from cashier.web.request_guard import RequestGuard
from cashier.web.request_headers import read_request_id, read_traceparent
from cashier.web.response import ApiResponse, problem_response, send_response, send_unread
from cashier.web.sse import HEARTBEAT, EventFormat, EventStream

_log = structlog.get_logger("cashier.web")

PAYMENTS_PATH = "/v1/payments"
ORDER_PAYMENT_PATH = "/v1/orders/{order_id}/payment"
# The id of the event after which there is nothing to reconnect for.
_END_ID = b"end"
_NO_REFERRER = (b"referrer-policy", b"no-referrer")
# Tickets whose stream has ended, for clients that reconnect without Last-Event-ID. Per worker.
_MAX_ENDED = 10_000
_NOTHING_LEFT = ApiResponse(204, b"")


class OwnedAttempt(NamedTuple):
    """Whose attempt a payer wants to find or to take over, and the language for it."""

    order_id: str
    user_id: str
    merchant_id: str
    locale: str | None


class PaymentCall:
    """One request in progress. `watched` is set if it ends with its client.

    `choice`: reads the order, user, merchant and locale, once the request names them.
    """

    __slots__ = ("choice", "headers", "raw_headers", "request", "request_id", "started_ns", "traceparent", "watched")

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self.started_ns = perf_counter_ns()
        self.request = Request(scope, receive)
        self.raw_headers: list[tuple[bytes, bytes]] = scope["headers"]
        self.headers = dict(self.raw_headers)
        self.request_id = read_request_id(self.headers)
        self.traceparent = read_traceparent(self.headers)
        self.watched: WatchedRequest | None = None
        self.choice: Callable[[], PaymentChoice | PaymentRequest | OwnedAttempt] | None = None

    def __repr__(self) -> str:
        return f"<PaymentCall {self.request_id}>"

    @property
    def payment_id(self) -> str:
        """Raises `RequestRefused`: NOT_FOUND."""
        return payment_requests.read_payment_id(self.request.path_params["payment_id"])

    @property
    def locale(self) -> str | None:
        """The payer's, if it can be read."""
        try:
            return None if self.choice is None else self.choice().locale
        except TokenRefused:
            return None


Serve: TypeAlias = Callable[[PaymentCall], Awaitable[ApiResponse | EventStream[Payment]]]


class PaymentOperation:
    """One endpoint as an ASGI application. All its responses carry the same headers.

    `localize`: a problem of this call, in the payer's language.
    """

    def __init__(
        self,
        method: str,
        serve: Serve,
        disconnect_watch: DisconnectWatch,
        localize: Callable[[PaymentCall, Problem], tuple[Problem, Headers]],
    ) -> None:
        self.method = method
        self._serve = serve
        self._localize = localize
        self._disconnect_watch = disconnect_watch

    def __repr__(self) -> str:
        return f"<PaymentOperation {self.method}>"

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
            await send_response(send, response, call.request_id, call.started_ns)
        elif response is None:
            await send_unread(send)

    async def _respond(self, call: PaymentCall) -> ApiResponse | EventStream[Payment] | None:
        """None if the client has disconnected."""
        try:
            if call.request.method != self.method:
                raise RequestRefused(
                    ProblemCode.METHOD_NOT_ALLOWED,
                    f"Only {self.method} is allowed.",
                    headers=((b"allow", self.method.encode()),),
                )
            return await self._serve(call)
        except RequestRefused as refused:
            return problem_response(refused, partial(self._localize, call))
        except asyncio.CancelledError:
            if call.watched is None or not call.watched.absorb_cancellation():
                raise
            return None
        except Exception as error:  # noqa: BLE001 - outside the table it is a bug, whose text must not reach the caller
            refusal = refusal_for(error)
            if refusal is None:
                _log.exception("payment request failed", request_id=call.request_id)
                refusal = RequestRefused(ProblemCode.INTERNAL, "The request failed. See the log under this request id.")
            return problem_response(refusal, partial(self._localize, call))


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
            heartbeat=HEARTBEAT,
            end_id=lambda last: _END_ID if last.status in FINAL else None,
        )
        self._events_by_ticket = self._events._replace(
            encode=lambda _, payment: _encode_without_token(payment), headers=(_NO_REFERRER,)
        )
        self._ended: dict[str, None] = {}

    def __repr__(self) -> str:
        return f"<PaymentEndpoints {self._guard!r} {self._disconnect_watch!r}>"

    def routes(self) -> list[Route]:
        """Accept every method, so that a wrong one gets the same headers as any other refusal."""
        payment_path = PAYMENTS_PATH + "/{payment_id}"
        operation = partial(PaymentOperation, disconnect_watch=self._disconnect_watch, localize=self._localized)
        operations = {
            PAYMENTS_PATH: operation("POST", self._submit),
            payment_path: operation("GET", self._look),
            f"{payment_path}/challenge": operation("POST", self._answer),
            f"{payment_path}/challenge/resend": operation("POST", self._resend),
            f"{payment_path}/cancel": operation("POST", self._cancel),
            f"{payment_path}/events": operation("GET", self._follow),
            f"{payment_path}/stream-ticket": operation("POST", self._issue_ticket),
            f"{payment_path}/resume": operation("POST", self._resume),
            f"{payment_path}/replace": operation("POST", self._replace),
            ORDER_PAYMENT_PATH: operation("GET", self._find),
        }
        return [Route(path, endpoint) for path, endpoint in operations.items()]

    def _localized(self, call: PaymentCall, problem: Problem) -> tuple[Problem, Headers]:
        return self._guard.localized(problem, call.locale, call.headers)

    async def _submit(self, call: PaymentCall) -> ApiResponse:
        payments, caller = self._admit(call)
        key = payment_requests.read_idempotency_key(call.raw_headers)
        request = payment_requests.decode_submit(await self._guard.json(call.request, call.headers))
        call.choice = lambda: request
        self._guard.require_own(caller, call.headers, call.choice)
        self._guard.limit(request)
        return _response(await payments.submit(request, key, request_id=call.request_id, traceparent=call.traceparent))

    async def _answer(self, call: PaymentCall) -> ApiResponse:
        (payments, caller), payment_id = self._admit(call), call.payment_id
        answer = payment_requests.decode_challenge_answer(await self._guard.json(call.request, call.headers))
        self._require_own(call, caller, payments, answer.payment_token)
        call_headers = {"request_id": call.request_id, "traceparent": call.traceparent}
        return _response(await payments.answer(payment_id, answer.payment_token, answer.value, **call_headers))

    async def _resend(self, call: PaymentCall) -> ApiResponse:
        (payments, caller), payment_id = self._admit(call), call.payment_id
        token = payment_requests.read_payment_token(call.raw_headers, None, secured=self._guard.secured)
        self._require_own(call, caller, payments, token)
        await self._guard.body(call.request, call.headers)
        sent = await payments.resend(payment_id, token, request_id=call.request_id, traceparent=call.traceparent)
        return ApiResponse(200, msgspec.json.encode(sent))

    async def _cancel(self, call: PaymentCall) -> ApiResponse:
        (payments, caller), payment_id = self._admit(call), call.payment_id
        cancellation = payment_requests.decode_cancellation(await self._guard.json_or_empty(call.request, call.headers))
        token = payment_requests.read_payment_token(
            call.raw_headers, cancellation.payment_token, secured=self._guard.secured
        )
        self._require_own(call, caller, payments, token)
        return _response(
            await payments.cancel(payment_id, token, request_id=call.request_id, traceparent=call.traceparent)
        )

    async def _look(self, call: PaymentCall) -> ApiResponse:
        (payments, caller), payment_id = self._admit(call), call.payment_id
        token = payment_requests.read_payment_token(call.raw_headers, None, secured=self._guard.secured)
        wait_ms = payment_requests.read_wait_ms(call.request.query_params.getlist("wait_ms"))
        self._require_own(call, caller, payments, token)
        await self._end_with_client(call)
        call_headers = {"request_id": call.request_id, "traceparent": call.traceparent}
        return _response(await payments.look(payment_id, token, wait_ms=wait_ms, **call_headers))

    async def _issue_ticket(self, call: PaymentCall) -> ApiResponse:
        (payments, caller), payment_id = self._admit(call), call.payment_id
        token = payment_requests.read_payment_token(call.raw_headers, None, secured=self._guard.secured)
        self._require_own(call, caller, payments, token)
        await self._guard.body(call.request, call.headers)
        ticket = payments.issue_stream_ticket(payment_id, token)
        return ApiResponse(200, msgspec.json.encode(ticket), extra=(_NO_REFERRER,))

    async def _follow(self, call: PaymentCall) -> ApiResponse | EventStream[Payment]:
        tickets = call.request.query_params.getlist("ticket")
        if tickets:
            return await self._follow_by_ticket(call, payment_requests.read_ticket(tickets))
        (payments, caller), payment_id = self._admit(call), call.payment_id
        token = payment_requests.read_payment_token(call.raw_headers, None, secured=self._guard.secured)
        self._require_own(call, caller, payments, token)
        if call.headers.get(b"last-event-id") == _END_ID:
            return _NOTHING_LEFT
        await self._end_with_client(call)
        updates = payments.follow(payment_id, token, request_id=call.request_id, traceparent=call.traceparent)
        events = self._events._replace(localize=partial(self._localized, call))
        return await EventStream.start(updates, call.request_id, events)

    async def _find(self, call: PaymentCall) -> ApiResponse:
        payments, caller = self._admit(call)
        query = call.request.query_params.multi_items()
        request = payment_requests.read_find_request(call.request.path_params["order_id"], query)
        user_id = self._require_payer(call, caller, request)
        await self._end_with_client(call)
        found = await payments.find(
            request.order_id,
            merchant_id=request.merchant_id,
            user_id=user_id,
            locale=request.locale,
            request_id=call.request_id,
            traceparent=call.traceparent,
        )
        return ApiResponse(200, msgspec.json.encode(found))

    async def _resume(self, call: PaymentCall) -> ApiResponse:
        (payments, caller), payment_id = self._admit(call), call.payment_id
        request = await self._attempt_request(call, caller)
        return _response(
            await payments.resume(payment_id, request, request_id=call.request_id, traceparent=call.traceparent)
        )

    async def _replace(self, call: PaymentCall) -> ApiResponse:
        (payments, caller), payment_id = self._admit(call), call.payment_id
        request = await self._attempt_request(call, caller)
        call_headers = {"request_id": call.request_id, "traceparent": call.traceparent}
        return ApiResponse(200, msgspec.json.encode(await payments.replace(payment_id, request, **call_headers)))

    async def _attempt_request(self, call: PaymentCall, caller: Caller) -> AttemptRequest:
        """The request of the caller's own payer."""
        request = payment_requests.decode_attempt_request(await self._guard.json(call.request, call.headers))
        return replace(request, user_id=self._require_payer(call, caller, request))

    def _require_payer(self, call: PaymentCall, caller: Caller, request: AttemptRequest | FindRequest) -> str:
        """The payer that the caller is. Nothing but the caller's authentication says so."""
        user_id = self._guard.payer_of(caller, request.user_id)
        owned = OwnedAttempt(request.order_id, user_id, request.merchant_id, request.locale)
        call.choice = lambda: owned
        self._guard.require_own(caller, call.headers, call.choice)
        return user_id

    async def _follow_by_ticket(self, call: PaymentCall, ticket: str) -> ApiResponse | EventStream[Payment]:
        payments, payment_id = _payments(self._guard.service()), call.payment_id
        claims = payments.read_stream_ticket(payment_id, ticket)
        call.choice = lambda: claims.chosen
        self._guard.require_own(ANYONE, call.headers, call.choice)
        last_event_id = call.headers.get(b"last-event-id")
        if last_event_id == _END_ID or (not last_event_id and _signature(ticket) in self._ended):
            return _NOTHING_LEFT
        await self._end_with_client(call)
        updates = payments.follow_claims(claims, request_id=call.request_id, traceparent=call.traceparent)
        events = self._events_by_ticket._replace(
            end=partial(self._end_ticket, ticket), localize=partial(self._localized, call)
        )
        return await EventStream.start(updates, call.request_id, events)

    def _end_ticket(self, ticket: str, number: int, last: Payment) -> dict[str, Any]:
        if last.status in FINAL:
            if len(self._ended) >= _MAX_ENDED:
                del self._ended[next(iter(self._ended))]
            self._ended[_signature(ticket)] = None
        return self._end(number, last)

    def _end(self, _: int, last: Payment) -> dict[str, Any]:
        if last.status in FINAL:
            return {"reason": "FINAL"}
        return {"reason": "STOPPING" if self._is_stopping() else "TIMEOUT"}

    def _admit(self, call: PaymentCall) -> tuple[PaymentsPort, Caller]:
        service = self._guard.service()
        caller = self._guard.admit(call.headers, TokenScope.PAY)
        return _payments(service), caller

    def _require_own(self, call: PaymentCall, caller: Caller, payments: PaymentsPort, payment_token: str) -> None:
        """The token alone says whose payment it is."""
        call.choice = lambda: payments.choice_of(call.payment_id, payment_token)
        self._guard.require_own(caller, call.headers, call.choice)

    async def _end_with_client(self, call: PaymentCall) -> None:
        """Let a disconnect cancel the call. Reads the body first: the disconnect follows it."""
        await self._guard.body(call.request, call.headers)
        call.watched = self._disconnect_watch.enter(call.request.receive)
        call.watched.body_complete = True


def _payments(service: ConsultService) -> PaymentsPort:
    if service.payments is None:
        raise RequestRefused(ProblemCode.PAYMENTS_NOT_CONFIGURED, "This service does not take payments.")
    return service.payments


def _encode_without_token(payment: Payment) -> bytes:
    """For the holder of a ticket: it permits to read, not to act."""
    fields: dict[str, Any] = msgspec.to_builtins(payment)
    del fields["payment_token"]
    return msgspec.json.encode(fields)


def _signature(ticket: str) -> str:
    return ticket.rpartition(".")[2]


def _response(payment: Payment) -> ApiResponse:
    return ApiResponse(200 if payment.status in FINAL else 202, msgspec.json.encode(payment))
