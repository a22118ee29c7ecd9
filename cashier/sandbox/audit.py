"""The audit: holds the ledger against what was agreed, and says in sentences what is wrong. Pure: entries and terms in, complaints out.

It trusts neither engine nor acquirer: it counts everything again from the entries alone.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

from msgspec import Struct

from cashier.sandbox.ledger import RETURNS, MOVEMENTS, OUTCOMES, LedgerEntry

_BPS = 10_000


class AuditTerms(Struct, frozen=True, kw_only=True):
    """What was agreed before anything moved. Values in minor units.

    `prices`: by order. `opening`: by user and account, at the start of the world. `fees_bps`: by channel; a channel that is not there
    charges no fee. `live`: the payments that are still under way.
    """

    prices: Mapping[str, int]
    opening: Mapping[tuple[str, str], int]
    fees_bps: Mapping[str, int]
    live: Collection[str]


class PaymentEntries(Struct, frozen=True):
    """The entries of one payment."""

    payment_id: str
    entries: Sequence[LedgerEntry]

    @property
    def order_id(self) -> str:
        return self.entries[0].order_id

    @property
    def verdicts(self) -> list[str]:
        return [entry.what for entry in self.entries if entry.what in OUTCOMES]

    @property
    def moves(self) -> list[LedgerEntry]:
        return [entry for entry in self.entries if entry.what in MOVEMENTS]

    @property
    def paid(self) -> list[LedgerEntry]:
        return [entry for entry in self.entries if entry.what == "ORDER_PAID"]

    def kept(self, *sorts: str) -> int:
        """Taken and not given back, of sources of these sorts."""
        return sum(entry.moved for entry in self.moves if str(entry.source).startswith(sorts))


def audit(entries: Sequence[LedgerEntry], terms: AuditTerms) -> list[str]:
    """What is wrong, one sentence each; nothing where all is right. It may be asked at any time, not only when all has ended."""
    by_payment: dict[str, list[LedgerEntry]] = defaultdict(list)
    for entry in entries:
        by_payment[entry.payment_id].append(entry)
    payments = [PaymentEntries(payment_id, own) for payment_id, own in by_payment.items()]
    complaints = [complaint for payment in payments for rule in _OF_A_PAYMENT for complaint in rule(payment, terms)]
    return complaints + [complaint for rule in _OF_THE_WHOLE for complaint in rule(entries, terms)]


def fee_on(carried: int, fee_bps: int) -> int:
    """What a payer adds to an amount that a channel carries: halves are rounded up."""
    return (carried * fee_bps + _BPS // 2) // _BPS


def _one_verdict(payment: PaymentEntries, terms: AuditTerms) -> Iterator[str]:
    expected = 0 if payment.payment_id in terms.live else 1
    if len(payment.verdicts) != expected:
        yield f"{payment.payment_id} has the verdicts {payment.verdicts}, not {expected} of them"


def _refused_took_nothing(payment: PaymentEntries, terms: AuditTerms) -> Iterator[str]:
    if "REFUSED" in payment.verdicts and (payment.moves or payment.paid):
        yield f"{payment.payment_id} was refused and has entries"


def _unpaid_keeps_nothing(payment: PaymentEntries, terms: AuditTerms) -> Iterator[str]:
    """Whatever ended without paying the order has given back to each source what it took there."""
    if payment.payment_id in terms.live or payment.paid:
        return
    kept: Counter[str] = Counter()
    for entry in payment.moves:
        kept[str(entry.source)] += entry.moved
    for source, value in kept.items():
        if value:
            yield f"{payment.payment_id} did not pay its order and keeps {value} of {source}"


def _paid_is_the_price(payment: PaymentEntries, terms: AuditTerms) -> Iterator[str]:
    """Money taken is the order less its discounts plus the fee of its channel, exactly."""
    if not payment.paid:
        return
    if payment.verdicts != ["SUCCEEDED"]:
        yield f"{payment.payment_id} paid {payment.order_id} and is {payment.verdicts}"
    money, discounts, carried = (
        payment.kept(*sorts) for sorts in (("BALANCE", "CHANNEL"), ("PROMOTION",), ("CHANNEL",))
    )
    fee = money + discounts - terms.prices[payment.order_id]
    if fee != fee_on(carried - fee, _quoted_bps(payment, terms)):
        yield f"{payment.payment_id} took {money} after {discounts} off for an order of {terms.prices[payment.order_id]}: no fee is {fee}"
    if payment.paid[0].amount.value != money:
        yield f"{payment.payment_id} took {money} and the acquirer was told of {payment.paid[0].amount.value}"


def _quoted_bps(payment: PaymentEntries, terms: AuditTerms) -> int:
    quoted = next(
        (str(entry.source).partition(":")[2] for entry in payment.moves if str(entry.source).startswith("CHANNEL:")), ""
    )
    return terms.fees_bps.get(quoted, 0)


def _nothing_comes_back_that_was_not_taken(payment: PaymentEntries, terms: AuditTerms) -> Iterator[str]:
    held: Counter[str] = Counter()
    for entry in payment.moves:
        held[str(entry.source)] += entry.moved
        if held[str(entry.source)] < 0:
            yield f"{payment.payment_id} gave back to {entry.source} what it had not taken"


def _refunds_are_of_what_did_not_pay(payment: PaymentEntries, terms: AuditTerms) -> Iterator[str]:
    """Before a payment pays its order money may come and go back; from then on the order keeps it, but for what came too much."""
    if payment.paid and any(
        entry.what in RETURNS for entry in payment.entries[payment.entries.index(payment.paid[0]) :]
    ):
        yield f"{payment.payment_id} paid {payment.order_id} and gave back afterwards"


def _an_order_is_paid_once(entries: Sequence[LedgerEntry], terms: AuditTerms) -> Iterator[str]:
    paid = Counter(entry.order_id for entry in entries if entry.what == "ORDER_PAID")
    for order_id, count in paid.items():
        if count > 1:
            yield f"{order_id} was paid {count} times"


def _a_promotion_is_used_once(entries: Sequence[LedgerEntry], terms: AuditTerms) -> Iterator[str]:
    """At no time do two payments hold the same promotion of the same payer."""
    used: dict[tuple[str, str], set[str]] = defaultdict(set)
    for entry in entries:
        if entry.source and entry.source.startswith("PROMOTION:"):
            holders = used[entry.user_id, entry.source]
            if entry.what != "TAKEN":
                holders.discard(entry.payment_id)
            elif holders:
                yield f"{entry.source} of {entry.user_id} is used by {entry.payment_id} and by {', '.join(sorted(holders))}"
            holders.update({entry.payment_id} if entry.what == "TAKEN" else ())


def _balances_stay_in_bounds(entries: Sequence[LedgerEntry], terms: AuditTerms) -> Iterator[str]:
    """An account never holds less than nothing, nor more than it began with."""
    left = dict(terms.opening)
    for entry in entries:
        if entry.source and entry.source.startswith("BALANCE:"):
            account = (entry.user_id, entry.source.partition(":")[2])
            left[account] = left.get(account, 0) - entry.moved
            if not 0 <= left[account] <= terms.opening.get(account, 0):
                yield f"{account[1]} of {account[0]} holds {left[account]} of {terms.opening.get(account, 0)} after {entry.payment_id}"


_OF_A_PAYMENT: tuple[Callable[[PaymentEntries, AuditTerms], Iterator[str]], ...] = (
    _one_verdict,
    _refused_took_nothing,
    _unpaid_keeps_nothing,
    _paid_is_the_price,
    _nothing_comes_back_that_was_not_taken,
    _refunds_are_of_what_did_not_pay,
)
_OF_THE_WHOLE: tuple[Callable[[Sequence[LedgerEntry], AuditTerms], Iterator[str]], ...] = (
    _an_order_is_paid_once,
    _a_promotion_is_used_once,
    _balances_stay_in_bounds,
)
