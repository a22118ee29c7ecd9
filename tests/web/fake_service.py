"""A fake `ConsultService`, and a consultation of 29 methods with discounts, options and legs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

from cashier.consultation.answer import Consultation, OrderSummary
from cashier.domain.explanation.evidence import WhyRequest
from cashier.domain.explanation.schema import Explanation
from cashier.domain.money import Money
from cashier.domain.order import ConsultRequest, Product, Terminal
from cashier.domain.pay_method import (
    Amounts,
    Availability,
    Discount,
    Health,
    Instrument,
    Kind,
    Leg,
    LegType,
    Limits,
    NextAction,
    Option,
    PayMethod,
    Reason,
    ReasonCode,
    Remedy,
    RemedyType,
)
from cashier.fanout.ask import Importance, SourceReport, SourceStatus
from cashier.fanout.l2.interface import Invalidated, Reach
from cashier.fanout.reachability import Reachability, SourceReachability
from cashier.metrics.store import Store
from cashier.web import CashierFactory, PaymentsPort
from tests.domain.builders import CATALOG, one_of_each
from tests.domain.explanation.evidence import explained

ASKED = ConsultRequest(
    order_id="o_1001",
    user_id="u_1",
    merchant_id="m_1",
    product=Product.STANDARD_CASHIER,
    terminal=Terminal.APP,
    amount=Money("CNY", 12800),
)
BODY = (
    b'{"order_id": "o_1001", "user_id": "u_1", "merchant_id": "m_1", "amount": {"currency": "CNY", "value": 12800},'
    b' "product": "STANDARD_CASHIER", "terminal": "APP", "country": "CN", "locale": "zh-CN", "deadline_ms": 150}'
)
NOW = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)
ORDER_AMOUNT = Money("CNY", 12800)


def cny(value: int) -> Money:
    return Money("CNY", value)


def amounts(off: int = 0, fee: int = 0) -> Amounts:
    discounts = (Discount("p_1", "10 off 100", cny(off)),) if off else ()
    return Amounts(ORDER_AMOUNT, cny(fee), discounts, cny(ORDER_AMOUNT.value - off + fee))


def method(number: int) -> PayMethod:
    """Every fifth is undetermined, every seventh refused, every third has a discount."""
    availability, reason = Availability.AVAILABLE, None
    if number % 5 == 4:
        availability, reason = (
            Availability.UNDETERMINED,
            Reason(ReasonCode.SOURCE_TIMEOUT, "Try again.", "quota", Remedy(RemedyType.RETRY)),
        )
    elif number % 7 == 6:
        remedy = Remedy(RemedyType.REDUCE_AMOUNT, amount=cny(10000))
        availability, reason = (
            Availability.UNAVAILABLE,
            Reason(ReasonCode.ABOVE_SINGLE_LIMIT, "Too much at once.", "quota", remedy),
        )
    return PayMethod(
        method_id=f"QUICK_PAY:c_{number}",
        kind=Kind.QUICK_PAY,
        title="CMB credit card (1014)",
        icon="bank/cmb",
        instrument=Instrument(
            id=f"c_{number}", bank="CMB", bank_name="招商银行", last4="1014", type="CREDIT", brand="UNIONPAY"
        ),
        availability=availability,
        reason=reason,
        amount=amounts(off=1000 if number % 3 == 0 else 0, fee=number),
        limits=Limits(cny(2_000_000), cny(4_880_000), None),
        options=(),
        health=Health.UP,
        preferred=number == 0,
        rank=number + 1,
        rank_reasons=("LAST_USED", "SAVES:1000"),
        next_action=NextAction.CHALLENGE,
        required_fields=(),
        expires_in_s=None,
    )


def balance_with_card() -> PayMethod:
    part = Option("c_1", "with card (1014)", Availability.AVAILABLE, None, amounts(fee=7))
    same = Option("c_2", "with card (2020)", Availability.AVAILABLE, None, amounts())
    legs = (
        Leg(LegType.BALANCE, "a_1", cny(5000)),
        Leg(LegType.CHANNEL, "ch_9", cny(7800)),
    )
    return PayMethod(
        method_id="BALANCE:a_1",
        kind=Kind.BALANCE,
        title="Balance",
        icon="balance",
        instrument=Instrument(id="a_1", type="BALANCE", available=cny(5000)),
        availability=Availability.AVAILABLE,
        reason=None,
        amount=amounts(),
        limits=None,
        options=(part, same),
        health=Health.UP,
        preferred=False,
        rank=30,
        rank_reasons=(),
        next_action=NextAction.NONE,
        required_fields=("password",),
        expires_in_s=None,
        legs=legs,
    )


METHODS = (*(method(number) for number in range(28)), balance_with_card())
SOURCES = tuple(
    SourceReport(name, importance, status, 0.0, 7.4, 0)
    for name, importance, status in (
        ("order", Importance.REQUIRED, SourceStatus.FRESH),
        ("merchant", Importance.REQUIRED, SourceStatus.CACHED),
        ("member", Importance.REQUIRED, SourceStatus.STALE),
        ("card", Importance.GATING, SourceStatus.FRESH),
        ("balance", Importance.GATING, SourceStatus.FRESH),
        ("channel", Importance.GATING, SourceStatus.CACHED),
        ("quota", Importance.GATING, SourceStatus.TIMEOUT),
        ("marketing", Importance.ENRICHING, SourceStatus.FRESH),
    )
)


REACHABILITY = (
    *(SourceReachability(report.name, report.importance, Reachability.REACHABLE) for report in SOURCES),
    SourceReachability("engine", None, Reachability.NOT_CONFIGURED),
)


def consultation(order_id: str = "o_1001") -> Consultation:
    return Consultation(
        consult_token="token",
        consulted_at=NOW,
        expires_at=NOW + timedelta(minutes=5),
        order=OrderSummary(order_id, "Tea", ORDER_AMOUNT, NOW + timedelta(minutes=30)),
        payable=True,
        blocked=None,
        degraded=True,
        sources=SOURCES,
        methods=METHODS,
    )


class FakeService:
    """Answers from memory and records its calls. Clear `open` to block, set `raises` to fail."""

    def __init__(self, payments: PaymentsPort | None = None) -> None:
        self.ready = self.sources_reached = True
        self.payments = payments
        self.metrics = Store()
        self.catalog = CATALOG
        self.calls: list[tuple[ConsultRequest, str, str | None]] = []
        self.since_ns: list[int] = []
        self.questions: list[tuple[WhyRequest, bool]] = []
        self.invalidated: list[tuple[str, str | None, str | None]] = []
        self.raises: Exception | None = None
        self.open = asyncio.Event()
        self.open.set()
        self.entered = asyncio.Event()
        self.cancelled = asyncio.Event()

    def reachability(self) -> tuple[SourceReachability, ...]:
        return REACHABILITY

    async def consult(
        self,
        request: ConsultRequest,
        *,
        request_id: str,
        traceparent: str | None = None,
        since_ns: int | None = None,
        decoded: bool = False,
    ) -> Consultation:
        self.calls.append((request, request_id, traceparent))
        if since_ns is not None:
            self.since_ns.append(since_ns)
        self.entered.set()
        if self.raises is not None:
            raise self.raises
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return consultation(request.order_id)

    async def stream(
        self, request: ConsultRequest, *, request_id: str, traceparent: str | None = None
    ) -> AsyncGenerator[Consultation, None]:
        yield await self.consult(request, request_id=request_id, traceparent=traceparent)

    async def why(
        self,
        question: WhyRequest,
        *,
        internals: bool = True,
        request_id: str | None = None,
        traceparent: str | None = None,
    ) -> Explanation:
        if self.raises is not None:
            raise self.raises
        self.questions.append((question, internals))
        self.entered.set()
        await self.open.wait()
        return explained(one_of_each())

    async def ainvalidate(self, source: str, *, key: str | None = None, prefix: str | None = None) -> Invalidated:
        if self.raises is not None:
            raise self.raises
        self.invalidated.append((source, key, prefix))
        return Invalidated(source, 3, Reach.THIS_WORKER)


def opener(service: FakeService, events: list[str]) -> CashierFactory:
    @asynccontextmanager
    async def open_service() -> AsyncIterator[FakeService]:
        events.append("opened")
        try:
            yield service
        finally:
            events.append("closed")

    return open_service
