"""What takes payments through, for tests: it says what it is told to say, and remembers what it was asked and who went away."""

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

from .offers import NOW, cny

ID = "pay_" + "a2" * 13
ONE = f"/v1/payments/{ID}"
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


class Asked(NamedTuple):
    what: str
    args: tuple[Any, ...]
    request_id: str | None
    traceparent: str | None


class FakePayments:
    """`told` is the answer, or what is raised. Who comes while `open` is not set waits for it; looks that do not wait do not."""

    def __init__(self, told: Payment | Exception = LIVE) -> None:
        self.told = told
        self.asked: list[Asked] = []
        self.open = asyncio.Event()
        self.open.set()
        self.entered = asyncio.Event()
        self.waiting = 0
        self.cancelled: list[str] = []
        self.stopped = False
        self.closed = asyncio.Event()
        self._shown: asyncio.Queue[Payment | Exception | None] = asyncio.Queue()

    def show(self, *shown: Payment | Exception | None) -> None:
        """To who follows; None is the end."""
        for each in shown:
            self._shown.put_nowait(each)

    async def submit(
        self,
        request: PaymentRequest,
        idempotency_key: str,
        *,
        request_id: str | None = None,
        traceparent: str | None = None,
    ) -> Payment:
        return await self._say(Asked("submit", (request, idempotency_key), request_id, traceparent))

    async def answer(
        self,
        payment_id: str,
        payment_token: str,
        value: str,
        *,
        request_id: str | None = None,
        traceparent: str | None = None,
    ) -> Payment:
        return await self._say(Asked("answer", (payment_id, payment_token, value), request_id, traceparent))

    async def cancel(
        self, payment_id: str, payment_token: str, *, request_id: str | None = None, traceparent: str | None = None
    ) -> Payment:
        return await self._say(Asked("cancel", (payment_id, payment_token), request_id, traceparent))

    async def look(
        self,
        payment_id: str,
        payment_token: str,
        *,
        wait_ms: int = 0,
        request_id: str | None = None,
        traceparent: str | None = None,
    ) -> Payment:
        return await self._say(
            Asked("look", (payment_id, payment_token, wait_ms), request_id, traceparent), waits=wait_ms > 0
        )

    async def follow(
        self, payment_id: str, payment_token: str, *, request_id: str | None = None, traceparent: str | None = None
    ) -> AsyncGenerator[Payment, None]:
        self.asked.append(Asked("follow", (payment_id, payment_token), request_id, traceparent))
        self.entered.set()
        self.closed.clear()
        try:
            while (each := await self._shown.get()) is not None:
                if isinstance(each, Exception):
                    raise each
                yield each
        finally:
            self.closed.set()

    def stop_waiting(self) -> None:
        self.stopped = True
        self.open.set()
        self.show(None)

    async def _say(self, asked: Asked, *, waits: bool = True) -> Payment:
        self.asked.append(asked)
        self.entered.set()
        if waits:
            self.waiting += 1
            try:
                await self.open.wait()
            except asyncio.CancelledError:
                self.cancelled.append(asked.what)
                raise
            finally:
                self.waiting -= 1
        if isinstance(self.told, Exception):
            raise self.told
        return self.told
