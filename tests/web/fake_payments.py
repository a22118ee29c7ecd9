"""A fake `PaymentsPort`: returns or raises what the test sets, records calls and cancellations."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from datetime import timedelta
from typing import Any, NamedTuple

from msgspec.structs import replace

from cashier.domain.next_action import Redirect
from cashier.domain.order import Product, Terminal
from cashier.domain.pay_method import Kind
from cashier.domain.payment_message import Message, MessageCode
from cashier.domain.payment_request import AttemptRequest, PaymentChoice, PaymentMeans, PaymentRequest
from cashier.domain.payment_resource import ChallengeSent, FoundPayment, Payment, RouteTaken, StreamTicket
from cashier.domain.payment_state import PaymentStatus
from cashier.payments.attempt_recovery import ReplacedPayment
from cashier.tokens.jws import TokenRefused
from cashier.tokens.payment_state_token import PaymentClaims
from tests.web.fake_service import NOW, cny, consultation

ID = "pay_" + "a2" * 13
PAYMENT_PATH = f"/v1/payments/{ID}"
TOKEN = "aaa.bbb.ccc"
TICKET = "ddd.eee.fff"
SUBMIT: dict[str, Any] = {
    "consult_token": "c.t.s",
    "order_id": "o_1001",
    "user_id": "u_1",
    "merchant_id": "m_1",
    "product": "STANDARD_CASHIER",
    "terminal": "APP",
    "method_id": "QUICK_PAY:c_2",
    "promotion_ids": ["p_1"],
    "expected_payable": {"currency": "CNY", "value": 11800},
    "device": {"ip": "203.0.113.7", "device_id": "d_1"},
}
BODY = json.dumps(SUBMIT).encode()
LIVE = Payment(
    payment_id=ID,
    order_id="o_1001",
    status=PaymentStatus.PROCESSING,
    amount=cny(11800),
    challenge=None,
    next_action=Redirect(method="GET", url="https://bank.example/pay"),
    route=RouteTaken(rule="cheapest_healthy", channel_id="ch_1", alternatives=("ch_2",)),
    message=Message(MessageCode.PROCESSING, "It is on its way."),
    poll_after_ms=1000,
    payment_token=TOKEN,
    expires_at=NOW + timedelta(minutes=30),
)
CHOICE = PaymentChoice(
    order_id="o_1001",
    user_id="u_1",
    merchant_id="m_1",
    product=Product.STANDARD_CASHIER,
    terminal=Terminal.APP,
    method_id="QUICK_PAY:c_2",
    expected_payable=cny(11800),
)
CLAIMS = PaymentClaims(
    iat=0,
    exp=1,
    payment_id=ID,
    kind=Kind.QUICK_PAY,
    chosen=CHOICE,
    expires_at=1,
    order_amount=cny(12800),
    sent_at=0,
    means=PaymentMeans(),
    fingerprint="f",
)
FOUND = FoundPayment(
    payment_id=ID,
    order_id="o_1001",
    status=LIVE.status,
    method_id="WALLET:ALIPAY",
    option_id=None,
    kind=Kind.WALLET,
    amount=LIVE.amount,
    next_action=LIVE.next_action,
    message=LIVE.message,
    poll_after_ms=1000,
    expires_at=LIVE.expires_at,
    can_resume=True,
)
REPLACED = ReplacedPayment(
    payment_id=ID,
    order_id="o_1001",
    status=PaymentStatus.CLOSED,
    amount=LIVE.amount,
    message=Message(MessageCode.CANCELLED, "You cancelled it."),
    payment_token=TOKEN,
    expires_at=LIVE.expires_at,
    consultation=consultation(),
)
ATTEMPT: dict[str, Any] = {name: SUBMIT[name] for name in ("order_id", "user_id", "merchant_id", "product", "terminal")}
PAID = replace(LIVE, status=PaymentStatus.SUCCEEDED, next_action=None, poll_after_ms=None)


class RecordedCall(NamedTuple):
    operation: str
    args: tuple[Any, ...]
    request_id: str | None
    traceparent: str | None


class FakePayments:
    """Returns or raises `outcome`, once `open` is set. Queries without `wait_ms` do not wait."""

    def __init__(self, outcome: Payment | Exception = LIVE) -> None:
        self.outcome = outcome
        self.calls: list[RecordedCall] = []
        self.open = asyncio.Event()
        self.open.set()
        self.entered = asyncio.Event()
        self.waiting = 0
        self.cancelled: list[str] = []
        self.stopped = False
        self.closed = asyncio.Event()
        self._updates: asyncio.Queue[Payment | Exception | None] = asyncio.Queue()

    def publish(self, *updates: Payment | Exception | None) -> None:
        """Send updates to the event stream; None ends it."""
        for update in updates:
            self._updates.put_nowait(update)

    async def submit(
        self,
        request: PaymentRequest,
        idempotency_key: str,
        *,
        request_id: str | None = None,
        traceparent: str | None = None,
    ) -> Payment:
        return await self._respond(RecordedCall("submit", (request, idempotency_key), request_id, traceparent))

    async def answer(
        self,
        payment_id: str,
        payment_token: str,
        value: str,
        *,
        request_id: str | None = None,
        traceparent: str | None = None,
    ) -> Payment:
        return await self._respond(RecordedCall("answer", (payment_id, payment_token, value), request_id, traceparent))

    async def resend(
        self, payment_id: str, payment_token: str, *, request_id: str | None = None, traceparent: str | None = None
    ) -> ChallengeSent:
        await self._respond(RecordedCall("resend", (payment_id, payment_token), request_id, traceparent))
        return ChallengeSent(resend_after_s=60, sent=True)

    async def cancel(
        self, payment_id: str, payment_token: str, *, request_id: str | None = None, traceparent: str | None = None
    ) -> Payment:
        return await self._respond(RecordedCall("cancel", (payment_id, payment_token), request_id, traceparent))

    async def look(
        self,
        payment_id: str,
        payment_token: str,
        *,
        wait_ms: int = 0,
        request_id: str | None = None,
        traceparent: str | None = None,
    ) -> Payment:
        return await self._respond(
            RecordedCall("look", (payment_id, payment_token, wait_ms), request_id, traceparent), waits=wait_ms > 0
        )

    async def follow(
        self, payment_id: str, payment_token: str, *, request_id: str | None = None, traceparent: str | None = None
    ) -> AsyncGenerator[Payment, None]:
        self.calls.append(RecordedCall("follow", (payment_id, payment_token), request_id, traceparent))
        self.entered.set()
        self.closed.clear()
        try:
            while (update := await self._updates.get()) is not None:
                if isinstance(update, Exception):
                    raise update
                yield update
        finally:
            self.closed.set()

    async def find(
        self,
        order_id: str,
        *,
        merchant_id: str,
        user_id: str,
        locale: str | None = None,
        request_id: str | None = None,
        traceparent: str | None = None,
    ) -> FoundPayment:
        await self._respond(
            RecordedCall("find", (order_id, merchant_id, user_id, locale), request_id, traceparent), waits=False
        )
        return FOUND

    async def resume(
        self,
        payment_id: str,
        request: AttemptRequest,
        *,
        request_id: str | None = None,
        traceparent: str | None = None,
    ) -> Payment:
        return await self._respond(RecordedCall("resume", (payment_id, request), request_id, traceparent))

    async def replace(
        self,
        payment_id: str,
        request: AttemptRequest,
        *,
        request_id: str | None = None,
        traceparent: str | None = None,
    ) -> ReplacedPayment:
        await self._respond(RecordedCall("replace", (payment_id, request), request_id, traceparent))
        return REPLACED

    def choice_of(self, payment_id: str, payment_token: str) -> PaymentChoice:
        return self._read_token(payment_id, payment_token).chosen

    def issue_stream_ticket(self, payment_id: str, payment_token: str) -> StreamTicket:
        self.calls.append(RecordedCall("issue_stream_ticket", (payment_id, payment_token), None, None))
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return StreamTicket(ticket=TICKET, expires_at=self.outcome.expires_at)

    def read_stream_ticket(self, payment_id: str, ticket: str) -> PaymentClaims:
        if ticket != TICKET:
            raise TokenRefused("TOKEN_MALFORMED")
        return self._read_token(payment_id, ticket)

    def follow_claims(
        self, claims: PaymentClaims, *, request_id: str | None = None, traceparent: str | None = None
    ) -> AsyncGenerator[Payment, None]:
        return self.follow(claims.payment_id, TICKET, request_id=request_id, traceparent=traceparent)

    def _read_token(self, payment_id: str, payment_token: str) -> PaymentClaims:
        """A token belongs to the payment of `CLAIMS`, whatever it is."""
        if payment_id != ID:
            raise TokenRefused("TOKEN_OTHER_PAYMENT")
        return CLAIMS

    def stop_waiting(self) -> None:
        self.stopped = True
        self.open.set()
        self.publish(None)

    async def _respond(self, call: RecordedCall, *, waits: bool = True) -> Payment:
        self.calls.append(call)
        self.entered.set()
        if waits:
            self.waiting += 1
            try:
                await self.open.wait()
            except asyncio.CancelledError:
                self.cancelled.append(call.operation)
                raise
            finally:
                self.waiting -= 1
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome
