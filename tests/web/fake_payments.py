"""A fake `PaymentsPort`: returns or raises what the test sets, records calls and cancellations."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from datetime import timedelta
from typing import Any, NamedTuple

from msgspec.structs import replace

from cashier.domain.next_action import Redirect
from cashier.domain.payment_message import Message, MessageCode
from cashier.domain.payment_request import PaymentRequest
from cashier.domain.payment_resource import Payment, RouteTaken
from cashier.domain.payment_state import PaymentStatus
from tests.web.fake_service import NOW, cny

ID = "pay_" + "a2" * 13
PAYMENT_PATH = f"/v1/payments/{ID}"
TOKEN = "aaa.bbb.ccc"
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
