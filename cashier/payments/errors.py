"""Why an acceptance came to no payment. Each is raised with nothing sent to the engine by the call that raises it, but for `InFlight`."""

from __future__ import annotations

from msgspec import Struct

from cashier.consultation.flow import Consultation
from cashier.domain.offer_diff import Change
from cashier.fanout.ask import SourceReport


class AcceptError(Exception):
    """A submit, or an answer to a challenge, that was not taken further."""


class FieldFault(Struct, frozen=True):
    """What is wrong with one field of the request, by its path. The value is not repeated."""

    field: str
    code: str
    message: str


class Invalid(AcceptError):
    """Fields that are missing for this way to pay, or that hold what they may not."""

    def __init__(self, faults: tuple[FieldFault, ...]) -> None:
        super().__init__("; ".join(f"{fault.field} {fault.message}" for fault in faults))
        self.faults = faults


class KeyReused(AcceptError):
    """The idempotency key belongs to a payment with another body."""


class InFlight(AcceptError):
    """The same submit is under way, here at a stop or elsewhere, and has not come to an end while it was waited for. It may be sent."""


class OrderBusy(AcceptError):
    """Another attempt on the order lives."""

    def __init__(self, payment_id: str) -> None:
        super().__init__(f"Payment {payment_id} is under way for this order.")
        self.payment_id = payment_id


class ConsultChanged(AcceptError):
    """What the payer agreed to is not what it is now. `consultation` is a fresh one to choose from."""

    def __init__(self, changes: tuple[Change, ...], consultation: Consultation) -> None:
        super().__init__(", ".join(change.what for change in changes))
        self.changes = changes
        self.consultation = consultation


class RiskRejected(AcceptError):
    """The risk service refuses the payment. Its reason is for operators: see `code`, which no payer is told."""

    def __init__(self, code: str | None) -> None:
        super().__init__(code or "no reason told")
        self.code = code


class CheckUnavailable(AcceptError):
    """A check that may refuse money could not be made. `silent`: who did not answer; `sources`: reports of all that were asked."""

    def __init__(self, silent: tuple[str, ...], sources: tuple[SourceReport, ...] = ()) -> None:
        super().__init__(f"No usable answer from {', '.join(silent)}.")
        self.silent = silent
        self.sources = sources


class EngineUnavailable(AcceptError):
    """The payment engine could not be reached, or did not say whether it has the payment. Nothing was sent by this call; an earlier one
    with the same key may have been."""


class TooManyPayments(AcceptError):
    """As many payments are under way in this worker as it takes on."""
