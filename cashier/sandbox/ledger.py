"""The ledger: every movement of money and promotions. Append-only; only engine and acquirer write.

The entries of a payment:
  * TAKEN: the amount left a funding source (`PROMOTION:p_1`, `BALANCE:acc_1`,
    `CHANNEL:ch_quick_cmb`). RETURNED: back to the source, the attempt is undone. REFUNDED: back to
    the source, since it could not pay the order.
  * SUCCEEDED, FAILED or REFUSED: the engine's final outcome, once. REFUSED: nothing was ever taken.
  * CORRECTED: the outcome so far was wrong, another one follows.
  * FORGOTTEN: the engine no longer has the refused payment. One with this id begins anew.
  * ORDER_PAID: the acquirer counts the order as paid, with this amount of the payer's own money.
`audit` checks them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Literal, NamedTuple

from msgspec import Struct, field

from cashier.sandbox.risk import Amount
from cashier.sandbox.world_clock import Clock

EntryType = Literal[
    "TAKEN", "RETURNED", "REFUNDED", "SUCCEEDED", "FAILED", "REFUSED", "CORRECTED", "FORGOTTEN", "ORDER_PAID"
]
RETURNS = frozenset({"RETURNED", "REFUNDED"})
MOVEMENTS = RETURNS | {"TAKEN"}
OUTCOMES = frozenset({"SUCCEEDED", "FAILED", "REFUSED"})


class PaymentParties(NamedTuple):
    """A payment, its order and its payer. `user_id`: None for a walk-in."""

    payment_id: str
    order_id: str
    user_id: str | None


class FundingSource(NamedTuple):
    """A leg's type and id, such as `BALANCE:acc_1`, and its card, agreement or instalment term."""

    name: str
    instrument_id: str | None = None

    @property
    def type(self) -> str:
        """PROMOTION, BALANCE or CHANNEL."""
        return self.name.partition(":")[0]

    @property
    def id(self) -> str:
        return self.name.partition(":")[2]


class LedgerEntry(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One entry. `source` is set only for movements."""

    at: datetime
    payment_id: str
    order_id: str
    user_id: str | None = None
    what: EntryType
    amount: Amount
    source: str | None = field(default=None, name="from")
    instrument_id: str | None = None

    @property
    def moved(self) -> int:
        """Minor units that left the source; negative if they went back."""
        return self.amount.value if self.what == "TAKEN" else -self.amount.value


class Ledger:
    """Entries in order of writing, indexed by payment and by payer."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._entries: list[LedgerEntry] = []
        self._by_payment: dict[str, list[LedgerEntry]] = {}
        self._movements_by_user: dict[str | None, list[LedgerEntry]] = {}

    def __repr__(self) -> str:
        return f"Ledger(entries={len(self._entries)}, payments={len(self._by_payment)})"

    @property
    def entries(self) -> tuple[LedgerEntry, ...]:
        return tuple(self._entries)

    def movements_of(self, user_id: str | None) -> Sequence[LedgerEntry]:
        """All movements of a payer's funding sources. None: of all walk-ins."""
        return self._movements_by_user.get(user_id, ())

    def move(
        self,
        parties: PaymentParties,
        what: Literal["TAKEN", "RETURNED", "REFUNDED"],
        source: FundingSource,
        amount: Amount,
    ) -> None:
        self._write(parties, what, amount, source)

    def conclude(
        self,
        parties: PaymentParties,
        what: Literal["SUCCEEDED", "FAILED", "REFUSED", "CORRECTED", "FORGOTTEN", "ORDER_PAID"],
        amount: Amount,
    ) -> None:
        self._write(parties, what, amount, None)

    def give_back(self, parties: PaymentParties, what: Literal["RETURNED", "REFUNDED"]) -> None:
        """Move everything that the payment still holds back to its sources."""
        held: Counter[tuple[FundingSource, str]] = Counter()
        for entry in self._by_payment.get(parties.payment_id, ()):
            if entry.source:
                held[FundingSource(entry.source, entry.instrument_id), entry.amount.currency] += entry.moved
        for (source, currency), value in held.items():
            if value:
                self.move(parties, what, source, Amount(currency, value))

    def _write(self, parties: PaymentParties, what: EntryType, amount: Amount, source: FundingSource | None) -> None:
        entry = LedgerEntry(
            at=self._clock(),
            payment_id=parties.payment_id,
            order_id=parties.order_id,
            user_id=parties.user_id,
            what=what,
            amount=amount,
            source=source.name if source else None,
            instrument_id=source.instrument_id if source else None,
        )
        self._entries.append(entry)
        self._by_payment.setdefault(entry.payment_id, []).append(entry)
        if source:
            self._movements_by_user.setdefault(entry.user_id, []).append(entry)
