"""The ledger: what money and promotions really did. Only the engine and the acquirer write, only at the end, and nothing is taken out.

A payment's life in entries:
  * TAKEN: so much left a source (`PROMOTION:p_1`, `BALANCE:acc_1`, `CHANNEL:ch_quick_cmb`). RETURNED: back to it, the attempt is undone.
    REFUNDED: back to it, since it could not pay the order.
  * SUCCEEDED, FAILED or REFUSED: the engine's last word, once. REFUSED means that nothing was ever taken.
  * ORDER_PAID: the acquirer counts the order as paid by this payment, with so much of the payer's own money.
What these must come to is in `audit`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Literal, NamedTuple

from msgspec import Struct, field

from cashier.sandbox.risk import Amount
from cashier.sandbox.world_clock import Clock

EntryType = Literal["TAKEN", "RETURNED", "REFUNDED", "SUCCEEDED", "FAILED", "REFUSED", "ORDER_PAID"]
RETURNS = frozenset({"RETURNED", "REFUNDED"})
MOVEMENTS = RETURNS | {"TAKEN"}
OUTCOMES = frozenset({"SUCCEEDED", "FAILED", "REFUSED"})


class PaymentParties(NamedTuple):
    """Whose payment, for what."""

    payment_id: str
    order_id: str
    user_id: str


class FundingSource(NamedTuple):
    """Where money comes from: a leg's type and id, and the card or agreement behind it where it has one."""

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
    """One line. `source` is set for moves alone."""

    at: datetime
    payment_id: str
    order_id: str
    user_id: str
    what: EntryType
    amount: Amount
    source: str | None = field(default=None, name="from")
    instrument_id: str | None = None

    @property
    def moved(self) -> int:
        """Minor units that left the source; below zero where they went back."""
        return self.amount.value if self.what == "TAKEN" else -self.amount.value


class Ledger:
    """Entries in the order in which they were written, and what of a payment or a payer can be read from them."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._entries: list[LedgerEntry] = []
        self._by_payment: dict[str, list[LedgerEntry]] = {}
        self._moves_by_user: dict[str, list[LedgerEntry]] = {}

    def __repr__(self) -> str:
        return f"Ledger(entries={len(self._entries)}, payments={len(self._by_payment)})"

    @property
    def entries(self) -> tuple[LedgerEntry, ...]:
        return tuple(self._entries)

    def moves_of(self, user_id: str) -> Sequence[LedgerEntry]:
        """All that left a payer's sources and came back to them."""
        return self._moves_by_user.get(user_id, ())

    def move(
        self,
        parties: PaymentParties,
        what: Literal["TAKEN", "RETURNED", "REFUNDED"],
        source: FundingSource,
        amount: Amount,
    ) -> None:
        self._write(parties, what, amount, source)

    def conclude(
        self, parties: PaymentParties, what: Literal["SUCCEEDED", "FAILED", "REFUSED", "ORDER_PAID"], amount: Amount
    ) -> None:
        self._write(parties, what, amount, None)

    def give_back(self, parties: PaymentParties, what: Literal["RETURNED", "REFUNDED"]) -> None:
        """Everything that the payment still holds goes back to where it came from."""
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
            self._moves_by_user.setdefault(entry.user_id, []).append(entry)
