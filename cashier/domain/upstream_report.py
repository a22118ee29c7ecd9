"""What engine and acquirer report about a payment, as far as its status depends on it.

`status_mapping` makes the reports, `status_resolution` decides by them.
"""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

from cashier.domain.engine_contract import ReversalReason
from cashier.domain.money import Money
from cashier.domain.next_action import Action

# The failure code of a payment that the engine was asked to reverse.
REVERSED = "REVERSED"


class EngineReportStatus(StrEnum):
    """`SEALED`: the payment never arrived, and the engine was asked to reverse it.

    `UNSEALED`: as `SEALED`, but the engine cannot refuse it, so it may still arrive. `SILENT`: no
    readable answer.
    """

    PROCESSING = "PROCESSING"
    ACTION_REQUIRED = "ACTION_REQUIRED"
    USER_PAYING = "USER_PAYING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    NEVER_ARRIVED = "NEVER_ARRIVED"
    SEALED = "SEALED"
    UNSEALED = "UNSEALED"
    SILENT = "SILENT"


class AcquirerReportStatus(StrEnum):
    """The status of the order. `SILENT`: no readable answer."""

    PENDING = "PENDING"
    PAYING = "PAYING"
    PAID = "PAID"
    CLOSED = "CLOSED"
    CLOSED_REFUNDING = "CLOSED_REFUNDING"
    REFUNDED = "REFUNDED"
    SILENT = "SILENT"


class Arrived(Struct, frozen=True):
    """Money that arrived for a payment of `due`, in one currency. `returned`: what goes back."""

    received: Money
    returned: Money
    due: Money

    @property
    def kept(self) -> Money:
        return Money(self.due.currency, self.received.value - self.returned.value)


class EngineReport(Struct, frozen=True):
    """`failure_code` and `refused_promotion` with FAILED, `next_action` with ACTION_REQUIRED.

    `reversal_reason`: the first one, if the payment was reversed and the engine reports it.
    `received`, `returned` as in `EnginePayment`.
    """

    status: EngineReportStatus
    failure_code: str | None = None
    next_action: Action | None = None
    reversal_reason: ReversalReason | None = None
    received: Money | None = None
    returned: Money | None = None
    refused_promotion: str | None = None

    def arrived(self, due: Money | None) -> Arrived | None:
        """What arrived for a payment of `due`. None: nothing, or the engine does not say.

        Sums in another currency, and more returned than received, say nothing.
        """
        if due is None or self.received is None or not self.received.value or self.received.currency != due.currency:
            return None
        returned = Money(due.currency, 0) if self.returned is None else self.returned
        if returned.currency != due.currency or returned.value > self.received.value:
            return None
        return Arrived(self.received, returned, due)

    @property
    def reversed_because(self) -> ReversalReason | None:
        """Why the payment ended, if a reversal ended it."""
        return self.reversal_reason if self.status is EngineReportStatus.SEALED or self.was_reversed else None

    @property
    def was_reversed(self) -> bool:
        """The engine ended it before any money was taken."""
        return self.status is EngineReportStatus.FAILED and (
            self.failure_code == REVERSED or (self.failure_code is None and self.reversal_reason is not None)
        )


class AcquirerReport(Struct, frozen=True):
    """`payment_id`: the payment whose money the status is about, if reported.

    `closed_reason`: set if the order was ever closed. `paid`: the amount, if reported; it decides
    nothing.
    """

    status: AcquirerReportStatus
    payment_id: str | None = None
    closed_reason: str | None = None
    paid: Money | None = None
