"""The answer of a consultation, and the errors in its place."""

from __future__ import annotations

from datetime import datetime

from msgspec import Struct

from cashier.domain.consultation_case import ConsultationCase
from cashier.domain.money import Money
from cashier.domain.order import Blocked, Country
from cashier.domain.pay_method import PayMethod
from cashier.fanout.ask import SourceReport


class OrderSummary(Struct, frozen=True, omit_defaults=True):
    """`merchant_name`: for the payer. It and `country` are absent for an order of another party."""

    order_id: str
    title: str
    amount: Money
    expires_at: datetime
    merchant_name: str | None = None
    country: Country | None = None


class Blockage(Struct, frozen=True):
    """Why the order cannot be paid."""

    code: Blocked
    message: str


class Consultation(Struct, frozen=True):
    """The answer, in the shape of the wire.

    `payable`: the order may be paid, by one of `methods`. `degraded`: an answer of at least one
    source is missing.
    """

    consult_token: str
    consulted_at: datetime
    expires_at: datetime
    order: OrderSummary
    payable: bool
    blocked: Blockage | None
    degraded: bool
    sources: tuple[SourceReport, ...]
    methods: tuple[PayMethod, ...]


class ConsultationWithCase(Struct, frozen=True):
    """A consultation and the case it was assembled from, for acceptance.

    `case`: None if the order cannot be paid. `silent`: the sources without an answer.
    `names_user`: the order belongs to one user.
    """

    consultation: Consultation
    case: ConsultationCase | None
    silent: tuple[str, ...]
    names_user: bool


class ConsultError(Exception):
    """A consultation without an answer.

    An order that cannot be paid is an answer, see `Blockage`.
    """


class OrderUnknown(ConsultError):
    """The acquirer has no such order."""

    def __init__(self, order_id: str) -> None:
        super().__init__(f"The acquirer knows no order {order_id}.")
        self.order_id = order_id


class NotOpen(ConsultError, RuntimeError):
    """The `Cashier` is not open: before `async with`, or after it."""


class RequiredSourceUnavailable(ConsultError):
    """A required source did not answer. `sources`: the reports of all sources that were called."""

    def __init__(self, sources: tuple[SourceReport, ...], failed: tuple[str, ...]) -> None:
        super().__init__(f"No answer from {', '.join(failed)}, which every consultation requires.")
        self.sources = sources
        self.failed = failed
