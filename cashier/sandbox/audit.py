"""The audit: compares the ledger with what was agreed. Entries and terms in, violations out.

It trusts neither engine nor acquirer and computes everything from the entries alone.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

from msgspec import Struct

from cashier.sandbox.ledger import MOVEMENTS, OUTCOMES, RETURNS, LedgerEntry

_BPS = 10_000


class AuditTerms(Struct, frozen=True, kw_only=True):
    """What was agreed before any money moved. Values in minor units.

    `prices`: by order. `opening`: balance at the start of the world, by user and account.
    `fees_bps`: by channel, of instalments by `channel/term`, all that it ever charged; what is
    missing charges no fee. `steps`: by channel, what the amounts that it carries are multiples of,
    now or before; 1 if missing. `live`: payments still under way.
    """

    prices: Mapping[str, int]
    opening: Mapping[tuple[str | None, str], int]
    fees_bps: Mapping[str, Collection[int]]
    steps: Mapping[str, Collection[int]] = {}
    live: Collection[str]


class PaymentEntries(Struct, frozen=True):
    """The entries of one payment, in order, up to where the engine forgot it."""

    payment_id: str
    entries: Sequence[LedgerEntry]

    @property
    def order_id(self) -> str:
        return self.entries[0].order_id

    @property
    def outcomes(self) -> list[str]:
        """Those that count: a correction annuls the ones before it."""
        outcomes: list[str] = []
        for entry in self.entries:
            if entry.what == "CORRECTED":
                outcomes.clear()
            elif entry.what in OUTCOMES:
                outcomes.append(entry.what)
        return outcomes

    @property
    def movements(self) -> list[LedgerEntry]:
        return [entry for entry in self.entries if entry.what in MOVEMENTS]

    @property
    def paid(self) -> list[LedgerEntry]:
        return [entry for entry in self.entries if entry.what == "ORDER_PAID"]

    def is_live(self, terms: AuditTerms) -> bool:
        return self.payment_id in terms.live and self.entries[-1].what != "FORGOTTEN"

    def kept(self, *source_types: str) -> int:
        """Net amount taken from funding sources of these types."""
        return sum(entry.moved for entry in self.movements if str(entry.source).startswith(source_types))


def audit(entries: Sequence[LedgerEntry], terms: AuditTerms) -> list[str]:
    """One sentence per violation, empty if there is none. Can run at any time."""
    by_payment: dict[tuple[str, int], list[LedgerEntry]] = defaultdict(list)
    forgotten: Counter[str] = Counter()
    for entry in entries:
        by_payment[entry.payment_id, forgotten[entry.payment_id]].append(entry)
        forgotten[entry.payment_id] += entry.what == "FORGOTTEN"
    payments = [PaymentEntries(payment_id, own) for (payment_id, _), own in by_payment.items()]
    violations = [violation for payment in payments for rule in _PAYMENT_RULES for violation in rule(payment, terms)]
    return violations + [violation for rule in _LEDGER_RULES for violation in rule(entries, terms)]


def fee_on(carried: int, fee_bps: int, step: int = 1) -> int:
    """Fee on an amount that a channel carries, in minor units.

    Halves round up, then the channel's step rounds down.
    """
    return (carried * fee_bps + _BPS // 2) // _BPS // step * step


def _one_outcome(payment: PaymentEntries, terms: AuditTerms) -> Iterator[str]:
    expected = 0 if payment.is_live(terms) else 1
    if len(payment.outcomes) != expected:
        yield f"{payment.payment_id} has the outcomes {payment.outcomes}, not {expected} of them"


def _refused_took_nothing(payment: PaymentEntries, terms: AuditTerms) -> Iterator[str]:
    if "REFUSED" in payment.outcomes and (payment.movements or payment.paid):
        yield f"{payment.payment_id} was refused and has entries"


def _unpaid_keeps_nothing(payment: PaymentEntries, terms: AuditTerms) -> Iterator[str]:
    """A payment that ended without paying its order has returned all it took to each source."""
    if payment.is_live(terms) or payment.paid:
        return
    kept: Counter[str] = Counter()
    for entry in payment.movements:
        kept[str(entry.source)] += entry.moved
    for source, value in kept.items():
        if value:
            yield f"{payment.payment_id} did not pay its order and keeps {value} of {source}"


def _paid_is_the_price(payment: PaymentEntries, terms: AuditTerms) -> Iterator[str]:
    """Money taken is the order amount less discounts plus the channel's fee, exactly."""
    if not payment.paid:
        return
    if payment.outcomes != ["SUCCEEDED"]:
        yield f"{payment.payment_id} paid {payment.order_id} and is {payment.outcomes}"
    money, discounts, carried = (
        payment.kept(*source_types) for source_types in (("BALANCE", "CHANNEL"), ("PROMOTION",), ("CHANNEL",))
    )
    price = terms.prices[payment.order_id]
    fee = money + discounts - price
    steps = terms.steps.get(_charged_channel(payment), (1,))
    quoted = (fee_on(carried - fee, fee_bps, step) for fee_bps in _quoted_bps(payment, terms) for step in steps)
    if fee not in quoted:
        paid = f"{money} after discounts of {discounts} for an order of {price}"
        yield f"{payment.payment_id} took {paid}, which leaves a wrong fee of {fee}"
    if payment.paid[0].amount.value != money:
        yield f"{payment.payment_id} took {money} and the acquirer recorded {payment.paid[0].amount.value}"


def _charged_channel(payment: PaymentEntries) -> str:
    """The first channel that took money; empty without one."""
    sources = (str(entry.source).partition(":") for entry in payment.movements)
    return next((channel_id for source_type, _, channel_id in sources if source_type == "CHANNEL"), "")


def _channels_carry_whole_steps(payment: PaymentEntries, terms: AuditTerms) -> Iterator[str]:
    """What paid the order; a transfer of the payer's own may be any sum, and goes back."""
    carried, channel_id = payment.kept("CHANNEL"), _charged_channel(payment)
    if payment.paid and all(carried % step for step in terms.steps.get(channel_id, (1,))):
        yield f"{payment.payment_id} paid {carried} over {channel_id}, which carries multiples of its step only"


def _quoted_bps(payment: PaymentEntries, terms: AuditTerms) -> Collection[int]:
    """By the first movement over a channel: of its term, if it names one."""
    first = next((entry for entry in payment.movements if str(entry.source).startswith("CHANNEL:")), None)
    if first is None:
        return (0,)
    channel_id = str(first.source).partition(":")[2]
    return terms.fees_bps.get(f"{channel_id}/{first.instrument_id}") or terms.fees_bps.get(channel_id, (0,))


def _returns_do_not_exceed_takings(payment: PaymentEntries, terms: AuditTerms) -> Iterator[str]:
    held: Counter[str] = Counter()
    for entry in payment.movements:
        held[str(entry.source)] += entry.moved
        if held[str(entry.source)] < 0:
            yield f"{payment.payment_id} returned to {entry.source} more than it had taken"


def _nothing_returns_after_payment(payment: PaymentEntries, terms: AuditTerms) -> Iterator[str]:
    """Money may come and go until the payment pays its order; afterwards the order keeps it."""
    if payment.paid and any(
        entry.what in RETURNS for entry in payment.entries[payment.entries.index(payment.paid[0]) :]
    ):
        yield f"{payment.payment_id} paid {payment.order_id} and returned money afterwards"


def _an_order_is_paid_once(entries: Sequence[LedgerEntry], terms: AuditTerms) -> Iterator[str]:
    paid = Counter(entry.order_id for entry in entries if entry.what == "ORDER_PAID")
    for order_id, count in paid.items():
        if count > 1:
            yield f"{order_id} was paid {count} times"


def _a_promotion_is_used_once(entries: Sequence[LedgerEntry], terms: AuditTerms) -> Iterator[str]:
    """No two payments hold the same promotion of the same payer at the same time."""
    used: dict[tuple[str | None, str], set[str]] = defaultdict(set)
    for entry in entries:
        if entry.source and entry.source.startswith("PROMOTION:"):
            holders = used[entry.user_id, entry.source]
            if entry.what != "TAKEN":
                holders.discard(entry.payment_id)
            elif holders:
                others = ", ".join(sorted(holders))
                yield f"{entry.source} of {entry.user_id} is used by {entry.payment_id} and by {others}"
            holders.update({entry.payment_id} if entry.what == "TAKEN" else ())


def _balances_stay_in_bounds(entries: Sequence[LedgerEntry], terms: AuditTerms) -> Iterator[str]:
    """An account holds between zero and its opening balance."""
    left = dict(terms.opening)
    for entry in entries:
        if entry.source and entry.source.startswith("BALANCE:"):
            account = (entry.user_id, entry.source.partition(":")[2])
            opening = terms.opening.get(account, 0)
            left[account] = left.get(account, 0) - entry.moved
            if not 0 <= left[account] <= opening:
                yield f"{account[1]} of {account[0]} holds {left[account]} of {opening} after {entry.payment_id}"


_PAYMENT_RULES: tuple[Callable[[PaymentEntries, AuditTerms], Iterator[str]], ...] = (
    _channels_carry_whole_steps,
    _one_outcome,
    _refused_took_nothing,
    _unpaid_keeps_nothing,
    _paid_is_the_price,
    _returns_do_not_exceed_takings,
    _nothing_returns_after_payment,
)
_LEDGER_RULES: tuple[Callable[[Sequence[LedgerEntry], AuditTerms], Iterator[str]], ...] = (
    _an_order_is_paid_once,
    _a_promotion_is_used_once,
    _balances_stay_in_bounds,
)
