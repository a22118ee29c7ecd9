"""Contract of the acquirer's result: the state of an order, which is authoritative for the payer.

`sources.acquirer` makes the call.
"""

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
    """`payment_id`: the attempt that is live or that paid, not necessarily the caller's."""

    order_id: str
    status: ResultStatus
    payment_id: Id | None = None
    paid: Money | None = None
    closed_reason: str | None = None


class NoOrder(Struct, frozen=True):
    """The acquirer does not know the order."""


AcquirerResult: TypeAlias = OrderResult | NoOrder | Unanswered
