"""The consult flow, on one screen: ask everything, see what came, say which ways to pay there are."""

from __future__ import annotations

from datetime import datetime

from msgspec import Struct

from cashier.domain.method import PayMethod
from cashier.domain.money import Money
from cashier.domain.order import Blocked
from cashier.fanout.ask import SourceReport


class OrderSummary(Struct, frozen=True):
    order_id: str
    title: str
    amount: Money
    expires_at: datetime


class Blockage(Struct, frozen=True):
    code: Blocked
    message: str


class Consultation(Struct, frozen=True):
    """The whole answer, in the shape of the wire. `degraded`: something that would have been asked did not answer in time."""

    consult_token: str
    consulted_at: datetime
    expires_at: datetime
    order: OrderSummary
    payable: bool
    blocked: Blockage | None
    degraded: bool
    sources: tuple[SourceReport, ...]
    methods: tuple[PayMethod, ...]


class ConsultError(Exception):
    """A consultation that has no answer. Everything about the order itself, even that it is paid, is an answer."""


class OrderUnknown(ConsultError):
    """The acquirer has no such order."""

    def __init__(self, order_id: str) -> None:
        super().__init__(f"The acquirer knows no order {order_id}.")
        self.order_id = order_id


class RequiredSourceUnavailable(ConsultError):
    """A source without which nothing can be said did not answer. `sources` are the reports of all that were asked."""

    def __init__(self, sources: tuple[SourceReport, ...], failed: tuple[str, ...]) -> None:
        super().__init__(f"No answer from {', '.join(failed)}, without which nothing can be said about the order.")
        self.sources = sources
        self.failed = failed
