"""Refusal: why a payment method cannot be used, before its text.

A rule returns a refusal or None.
"""

from __future__ import annotations

from msgspec import Struct

from cashier.domain.money import Money
from cashier.domain.pay_method import Availability, ReasonCode, Remedy, RemedyType
from cashier.domain.text_form import Form
from cashier.source_errors import Missing, MissingCause

_SILENT = frozenset(
    (ReasonCode.SOURCE_TIMEOUT, ReasonCode.SOURCE_ERROR, ReasonCode.SOURCE_OVERLOADED, ReasonCode.SOURCE_PENDING)
)
_UNDETERMINED = {
    MissingCause.TIMEOUT: ReasonCode.SOURCE_TIMEOUT,
    MissingCause.OVERLOADED: ReasonCode.SOURCE_OVERLOADED,
    MissingCause.SHED: ReasonCode.SOURCE_OVERLOADED,
    MissingCause.PENDING: ReasonCode.SOURCE_PENDING,
}
_RETRY = Remedy(RemedyType.RETRY)
# Enum members for the hot path: before Python 3.12 each look-up on an enum class costs a call.
AVAILABLE, UNDETERMINED, UNAVAILABLE = Availability.AVAILABLE, Availability.UNDETERMINED, Availability.UNAVAILABLE
# Best first.
AVAILABILITIES = (AVAILABLE, UNDETERMINED, UNAVAILABLE)
AVAILABILITY_RANK = {availability: rank for rank, availability in enumerate(AVAILABILITIES)}
# Of a refused method. Tables, because thirty methods of an answer would each cost calls.
AVAILABILITY_BY_CODE = {code: UNDETERMINED if code in _SILENT else UNAVAILABLE for code in ReasonCode}
RANK_BY_CODE = {code: AVAILABILITY_RANK[availability] for code, availability in AVAILABILITY_BY_CODE.items()}
# Of several refusals, the smallest is the nearest to usable: undetermined, then the latest check.
NEARNESS_BY_CODE = {
    code: (RANK_BY_CODE[code], 0 if code in _SILENT else -position) for position, code in enumerate(ReasonCode)
}


class Refusal(Struct, frozen=True, gc=False):
    """`source` refused or was silent.

    `amount`: the minimum, the limit or the rest that the text names. `form`: of the text, where the
    code alone does not say enough.
    """

    code: ReasonCode
    source: str | None = None
    remedy: Remedy | None = None
    amount: Money | None = None
    form: Form = Form.GENERAL

    @property
    def undetermined(self) -> bool:
        """True if no source refused and one that could refuse is silent."""
        return self.code in _SILENT


def silence_refusal(missing: Missing) -> Refusal:
    """The refusal of a method that a silent source could refuse.

    No remedy while the answer is pending.
    """
    remedy = None if missing.cause is MissingCause.PENDING else _RETRY
    return Refusal(_UNDETERMINED.get(missing.cause, ReasonCode.SOURCE_ERROR), missing.source, remedy)


def unclear_refusal(source: str) -> Refusal:
    """The refusal of a method whose row in this source's answer cannot be understood."""
    return silence_refusal(Missing(source, MissingCause.GARBLED))


def availability(refusal: Refusal | None) -> Availability:
    """Never AVAILABLE while a source that could refuse is silent: its silence is a refusal too."""
    return AVAILABLE if refusal is None else AVAILABILITY_BY_CODE[refusal.code]
