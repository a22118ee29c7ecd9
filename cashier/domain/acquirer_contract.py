"""What became of an order, as the acquirer says: its word is what the payer is told. How it is asked is in `sources.acquirer`."""

from __future__ import annotations

from enum import StrEnum
from typing import TypeAlias

from msgspec import Struct

from cashier.domain.money import Money
from cashier.domain.order import Id
from cashier.source_errors import Unanswered


class ResultStatus(StrEnum):
    PENDING = "PENDING"
    PAYING = "PAYING"
    PAID = "PAID"
    CLOSED = "CLOSED"
    CLOSED_REFUNDING = "CLOSED_REFUNDING"
    REFUNDED = "REFUNDED"


class OrderResult(Struct, frozen=True, kw_only=True):
    """`payment_id`: the attempt that lives or that paid, which need not be the one that somebody asks for."""

    order_id: str
    status: ResultStatus
    payment_id: Id | None = None
    paid: Money | None = None
    closed_reason: str | None = None


class NoOrder(Struct, frozen=True):
    """The acquirer knows no such order."""


AcquirerResult: TypeAlias = OrderResult | NoOrder | Unanswered
