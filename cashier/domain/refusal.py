"""Refusal: why a way to pay cannot be used, before it is put into anybody's words. Rules return one, or nothing."""

from __future__ import annotations

from msgspec import Struct

from cashier.domain.money import Money
from cashier.domain.pay_method import Availability, ReasonCode, Remedy, RemedyType
from cashier.source_errors import Missing, MissingCause

_SILENT = frozenset(
    (ReasonCode.SOURCE_TIMEOUT, ReasonCode.SOURCE_ERROR, ReasonCode.SOURCE_OVERLOADED, ReasonCode.SOURCE_PENDING)
)
_PRECEDENCE = {code: index for index, code in enumerate(ReasonCode)}
_UNDETERMINED = {
    MissingCause.TIMEOUT: ReasonCode.SOURCE_TIMEOUT,
    MissingCause.OVERLOADED: ReasonCode.SOURCE_OVERLOADED,
    MissingCause.SHED: ReasonCode.SOURCE_OVERLOADED,
    MissingCause.PENDING: ReasonCode.SOURCE_PENDING,
}
_RETRY = Remedy(RemedyType.RETRY)
# Members that the hot path names are named once: before Python 3.12 each look-up on an enum class costs a call.
AVAILABLE, UNDETERMINED, UNAVAILABLE = Availability.AVAILABLE, Availability.UNDETERMINED, Availability.UNAVAILABLE
# Which comes first, of whatever has an availability.
AVAILABILITIES = (AVAILABLE, UNDETERMINED, UNAVAILABLE)
STANDING = {availability: standing for standing, availability in enumerate(AVAILABILITIES)}


class Refusal(Struct, frozen=True, gc=False):
    """`amount` is what the text speaks of: the minimum, the limit, what is left. `source` is who said so, or who was silent."""

    code: ReasonCode
    source: str | None = None
    remedy: Remedy | None = None
    amount: Money | None = None

    @property
    def undetermined(self) -> bool:
        """True where nobody refused and somebody who could did not answer."""
        return self.code in _SILENT

    @property
    def hope(self) -> int:
        """How near to usable: of several roads to one method, the one that got furthest says why it cannot be used."""
        return _PRECEDENCE[self.code]


def silence(missing: Missing) -> Refusal:
    """What a silent source means for a way that it could refuse. While its answer may still come there is nothing to be done about it."""
    remedy = None if missing.cause is MissingCause.PENDING else _RETRY
    return Refusal(_UNDETERMINED.get(missing.cause, ReasonCode.SOURCE_ERROR), missing.source, remedy)


def availability(refusal: Refusal | None) -> Availability:
    """Never AVAILABLE where somebody who could refuse is silent: that silence is a refusal too, of its own sort."""
    if refusal is None:
        return AVAILABLE
    return UNDETERMINED if refusal.undetermined else UNAVAILABLE
