"""The routes of payments: from a request to what takes payments through, and back. How they are taken through is not known here.

A submit, an answer to a challenge and a cancellation are never broken off, whether their client leaves or the server stops. Who only looks
or follows is let go as soon as nobody is there to hear.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import perf_counter_ns
from typing import TypeAlias

import msgspec
import structlog
from starlette.requests import Request
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from cashier.domain.pan import looks_issued
from cashier.domain.payment_resource import Payment
from cashier.domain.payment_state import FINAL
from cashier.web import payment_requests as read
from cashier.web.disconnect_watch import DisconnectWatch, WatchedRequest
from cashier.web.payment_problems import refusal_for
from cashier.web.payment_stream import PaymentStream
from cashier.web.payments_port import PaymentsPort
from cashier.web.problem import ProblemCode, RequestRefused
from cashier.web.request_guard import RequestGuard
from cashier.web.request_headers import read_request_id, read_traceparent
from cashier.web.response import ApiResponse, problem_response, response_headers

_log = structlog.get_logger("cashier.web")

PAYMENTS_PATH = "/v1/payments"


class PaymentCall:
    """One request under way. `visit`: where it is let go when its client leaves."""

    __slots__ = ("began_ns", "headers", "identity", "raw", "request", "traceparent", "visit")

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self.began_ns = perf_counter_ns()
        self.request = Request(scope, receive)
        self.raw: list[tuple[bytes, bytes]] = scope["headers"]
        self.headers = dict(self.raw)
        self.identity = _identity(self.headers)
        self.traceparent = read_traceparent(self.headers)
        self.visit: WatchedRequest | None = None

    def __repr__(self) -> str:
        return f"<Call {self.identity}>"

    @property
    def payment_id(self) -> str:
        """Raises `RequestRefused`: NOT_FOUND."""
        return read.read_payment_id(self.request.path_params["payment_id"])


Serve: TypeAlias = Callable[[PaymentCall], Awaitable[ApiResponse | PaymentStream]]


class PaymentOperation:
    """One route as an ASGI application. Whatever becomes of a call is told with the same headers."""

    def __init__(self, method: str, act: Serve, vigil: DisconnectWatch) -> None:
        self._method = method
        self._act = act
        self._vigil = vigil

    def __repr__(self) -> str:
        return f"<Operation {self._method}>"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        call = PaymentCall(scope, receive)
        try:
            told = await self._told(call)
            if isinstance(told, PaymentStream) and call.visit is not None:
                await told.tell(send, call.visit, call.began_ns)
        finally:
            if call.visit is not None:
                self._vigil.leave(call.visit)
        if isinstance(told, ApiResponse):
            headers = response_headers(told, call.identity, call.began_ns)
            await send({"type": "http.response.start", "status": told.status, "headers": headers})
            await send({"type": "http.response.body", "body": told.body})

    async def _told(self, call: PaymentCall) -> ApiResponse | PaymentStream | None:
        """None: nobody is left to hear."""
        try:
            if call.request.method != self._method:
                allowed = ((b"allow", self._method.encode()),)
                raise RequestRefused(
                    ProblemCode.METHOD_NOT_ALLOWED, "This is asked for with another method.", headers=allowed
                )
            return await self._act(call)
        except RequestRefused as known:
            return problem_response(known)
        except asyncio.CancelledError:
            if call.visit is None or not call.visit.forgives():
                raise
            return None
        except Exception as error:  # noqa: BLE001 - whatever is not in the table is our bug, and its text must not leave the house
            known_as = refusal_for(error)
            if known_as is None:
                _log.exception("payment request failed", request_id=call.identity)
                known_as = RequestRefused(
                    ProblemCode.INTERNAL, "The request failed. The log has it under this request id."
                )
            return problem_response(known_as)


class PaymentEndpoints:
    """Serves payments. `stopping`: whether the server stops. `body_timeout_s` bounds what is read, as everywhere."""

    def __init__(self, admission: RequestGuard, body_timeout_s: float, stopping: Callable[[], bool]) -> None:
        self._admission = admission
        self._vigil = DisconnectWatch(body_timeout_s)
        self._stopping = stopping

    def __repr__(self) -> str:
        return f"<Paying {self._admission!r} {self._vigil!r}>"

    def routes(self) -> list[Route]:
        """Every method comes here, so that another one is refused like anything else."""
        one = PAYMENTS_PATH + "/{payment_id}"
        operations = {
            PAYMENTS_PATH: PaymentOperation("POST", self._submit, self._vigil),
            one: PaymentOperation("GET", self._look, self._vigil),
            f"{one}/challenge": PaymentOperation("POST", self._answer, self._vigil),
            f"{one}/cancel": PaymentOperation("POST", self._cancel, self._vigil),
            f"{one}/events": PaymentOperation("GET", self._follow, self._vigil),
        }
        return [Route(path, operation) for path, operation in operations.items()]

    async def _submit(self, call: PaymentCall) -> ApiResponse:
        payments = self._payments(call)
        key = read.read_idempotency_key(call.raw)
        request = read.decode_submit(await self._admission.json(call.request, call.headers))
        return _answer(await payments.submit(request, key, request_id=call.identity, traceparent=call.traceparent))

    async def _answer(self, call: PaymentCall) -> ApiResponse:
        payments, payment_id = self._payments(call), call.payment_id
        told = read.decode_challenge_answer(await self._admission.json(call.request, call.headers))
        call_headers = {"request_id": call.identity, "traceparent": call.traceparent}
        return _answer(await payments.answer(payment_id, told.payment_token, told.value, **call_headers))

    async def _cancel(self, call: PaymentCall) -> ApiResponse:
        payments, payment_id = self._payments(call), call.payment_id
        told = read.decode_cancellation(await self._admission.json_or_nothing(call.request, call.headers))
        token = read.read_payment_token(call.raw, told.payment_token, secured=self._admission.secured)
        return _answer(await payments.cancel(payment_id, token, request_id=call.identity, traceparent=call.traceparent))

    async def _look(self, call: PaymentCall) -> ApiResponse:
        payments, payment_id = self._payments(call), call.payment_id
        token = read.read_payment_token(call.raw, None, secured=self._admission.secured)
        wait_ms = read.read_wait_ms(call.request.query_params.getlist("wait_ms"))
        await self._only_while_there(call)
        call_headers = {"request_id": call.identity, "traceparent": call.traceparent}
        return _answer(await payments.look(payment_id, token, wait_ms=wait_ms, **call_headers))

    async def _follow(self, call: PaymentCall) -> PaymentStream:
        payments, payment_id = self._payments(call), call.payment_id
        token = read.read_payment_token(call.raw, None, secured=self._admission.secured)
        await self._only_while_there(call)
        shown = payments.follow(payment_id, token, request_id=call.identity, traceparent=call.traceparent)
        return await PaymentStream.begun(shown, call.identity, self._stopping)

    def _payments(self, call: PaymentCall) -> PaymentsPort:
        payments = self._admission.admit(call.headers).payments
        if payments is None:
            raise RequestRefused(ProblemCode.PAYMENTS_NOT_CONFIGURED, "This service consults and takes no payments.")
        return payments

    async def _only_while_there(self, call: PaymentCall) -> None:
        """From here on the call ends with its client. What it sent for a body is read first: behind it that it left would go unheard."""
        await self._admission.body(call.request, call.headers)
        call.visit = self._vigil.enter(call.request.receive)
        call.visit.whole = True


def _answer(payment: Payment) -> ApiResponse:
    return ApiResponse(200 if payment.status in FINAL else 202, msgspec.json.encode(payment))


def _identity(headers: dict[bytes, bytes]) -> str:
    """The caller's, unless it is a card number: it is logged, and told to every service that is asked."""
    identity = read_request_id(headers)
    return read_request_id({}) if looks_issued(identity) else identity
