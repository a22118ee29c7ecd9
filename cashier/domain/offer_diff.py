"""Differences between the offer that a payer accepted and the same offer now.

The payer pays the price that they saw or chooses again. So every difference is a change, also a
lower price or a method that was never offered. The parts of a price are compared with the offer,
the total with the payer's expectation. After a choice of promotions that the offer did not price,
the total alone is compared. A promotion is gone only if it applied, may count and does not apply
any more. `unverified` comes first: what a silent source leaves open is no change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Protocol, TypeAlias

from msgspec import Struct

from cashier.domain.kinds import KINDS, Listing
from cashier.domain.money import Currency, Money
from cashier.domain.order import Blocked, OrderStatus
from cashier.domain.pay_method import (
    Amounts,
    Availability,
    InstalmentTerms,
    Kind,
    Option,
    PayMethod,
    Reason,
    ReasonCode,
)
from cashier.domain.pay_method import LegType as ShareType
from cashier.domain.payment_request import PaymentChoice
from cashier.domain.split_payment import ID_SUFFIX


class ChangeType(StrEnum):
    """Most serious first; changes are listed in this order."""

    ORDER_STATE = "ORDER_STATE"
    CARD_UNBOUND = "CARD_UNBOUND"
    METHOD_CLOSED = "METHOD_CLOSED"
    BALANCE_SHORT = "BALANCE_SHORT"
    LIMIT_REACHED = "LIMIT_REACHED"
    PROMOTION_GONE = "PROMOTION_GONE"
    PRICE_CHANGED = "PRICE_CHANGED"


Value: TypeAlias = Money | str | None


class Change(Struct, frozen=True, kw_only=True, rename={"before": "from", "after": "to"}):
    """`from` and `to`: amounts, or codes if no amount changed; null if there was or is nothing.

    `subject`: an id, `fee`, `order`, or of instalments `count` or `apr_bps`, whose values are
    numbers as texts; null for the payment as a whole. `reason`: why it is unusable now. `message`:
    for the payer, never to be parsed.
    """

    what: ChangeType
    before: Value
    after: Value
    subject: str | None = None
    reason: ReasonCode | None = None
    message: str | None = None


class OfferRow(Protocol):
    """A price in the consult token: minor units, None if unknown.

    `options`: only those with another price, or with `terms`: a number of instalments and the
    annual rate in basis points.
    """

    @property
    def id(self) -> str: ...
    @property
    def payable(self) -> int | None: ...
    @property
    def fee(self) -> int | None: ...
    @property
    def promotions(self) -> Sequence[tuple[str, int]]: ...
    @property
    def legs(self) -> Sequence[tuple[str, str, int]]: ...
    @property
    def options(self) -> Sequence[OfferRow]: ...
    @property
    def terms(self) -> tuple[int, int] | None: ...


class AcceptedOffer(Struct, frozen=True):
    """The order's amount then, and the row of the chosen method; None if it was not offered."""

    amount: Money
    row: OfferRow | None


def _no_values(_: Amounts) -> Mapping[str, Money]:
    return {}


class CurrentOffer(Struct, frozen=True):
    """A fresh consultation.

    `blocked`: why the order cannot be paid at all. `promotion_gap` and `applying_values`: as in
    `ConsultationCase`. `combine`: a card may complete a balance.
    """

    amount: Money
    methods: Sequence[PayMethod]
    blocked: Blocked | None = None
    promotion_gap: str | None = None
    combine: bool = True
    applying_values: Callable[[Amounts], Mapping[str, Money]] = _no_values

    @property
    def free(self) -> PayMethod | None:
        """The method that takes the place of all others where nothing is to pay.

        No GATING source can refuse it.
        """
        return next((method for method in self.methods if method.kind in _FREE_KINDS), None)


_AVAILABLE, _UNDETERMINED = Availability.AVAILABLE, Availability.UNDETERMINED
_CARD_PREFIXES = tuple(f"{kind}:" for kind, row in KINDS.items() if row.listing is Listing.PER_CARD)
_FREE_KINDS = frozenset(kind for kind, row in KINDS.items() if row.listing is Listing.NOTHING_TO_PAY)
_BY_REASON: Mapping[ReasonCode, ChangeType] = {
    ReasonCode.CARD_UNBOUND: ChangeType.CARD_UNBOUND,
    ReasonCode.BALANCE_INSUFFICIENT: ChangeType.BALANCE_SHORT,
    ReasonCode.AMOUNT_NOT_CARRIABLE: ChangeType.LIMIT_REACHED,
    ReasonCode.BELOW_MIN: ChangeType.LIMIT_REACHED,
    ReasonCode.ABOVE_SINGLE_LIMIT: ChangeType.LIMIT_REACHED,
    ReasonCode.DAILY_LIMIT_EXCEEDED: ChangeType.LIMIT_REACHED,
    ReasonCode.MONTHLY_LIMIT_EXCEEDED: ChangeType.LIMIT_REACHED,
}
_ORDER = {what: index for index, what in enumerate(ChangeType)}


def unverified(chosen: PaymentChoice, accepted: AcceptedOffer, current: CurrentOffer) -> tuple[str, ...]:
    """The sources whose silence leaves open whether the payment is allowed, or its price.

    Empty if none. The source of the promotions counts if the accepted price may contain some: its
    silence does not mean that they are gone.
    """
    if current.blocked is not None:
        return ()
    undetermined = [entry for entry in _entries(chosen, current) if entry.availability is _UNDETERMINED]
    sources = {
        entry.reason.source for entry in undetermined if entry.reason is not None and entry.reason.source is not None
    }
    if current.promotion_gap is not None and _counts_on_promotions(chosen, accepted, current):
        sources.add(current.promotion_gap)
    return tuple(sorted(sources))


def _counts_on_promotions(chosen: PaymentChoice, accepted: AcceptedOffer, current: CurrentOffer) -> bool:
    """Whether promotions are named or priced; chosen ones may explain any other price."""
    priced = () if accepted.row is None else _promotions(accepted.row, chosen.option_id)
    named = (*chosen.promotion_ids, *(promotion_id for promotion_id, _ in priced))
    if any(chosen.may_count(promotion_id) for promotion_id in named):
        return True
    prices = [entry.amount.payable for entry in _entries(chosen, current) if entry.amount is not None]
    return bool(chosen.chosen_promotions) and chosen.expected_payable not in prices


def _entries(chosen: PaymentChoice, current: CurrentOffer) -> Iterator[PayMethod | Option]:
    """The chosen option or method.

    If a silent source keeps it from being listed, the kinds in its place.
    """
    methods, method_id = current.methods, chosen.method_id
    method = _method(chosen, methods)
    if method is not None:
        yield _option(chosen, method) or method
        return
    if method_id.endswith(ID_SUFFIX) and not current.combine:
        return
    kinds = {method_id.partition(":")[0], method_id.removesuffix(ID_SUFFIX)}
    if method_id.endswith(ID_SUFFIX):
        kinds.add(Kind.QUICK_PAY)
    yield from (method for method in methods if method.method_id in kinds)


def changes(chosen: PaymentChoice, accepted: AcceptedOffer, current: CurrentOffer) -> tuple[Change, ...]:
    """All differences, most serious first.

    Empty: the payer gets the accepted offer at the expected price. Does not cover what could not be
    determined: call `unverified` first.
    """
    if current.blocked is not None:
        return (Change(what=ChangeType.ORDER_STATE, before=OrderStatus.PENDING, after=current.blocked),)
    method, found = _method(chosen, current.methods), list[Change]()
    if method is not None:
        found += [*_usability_changes(chosen, accepted, method), *_price_changes(chosen, accepted, current, method)]
    elif not any(entry.availability is _UNDETERMINED for entry in _entries(chosen, current)):
        found += _method_gone(chosen, accepted, current)
    if accepted.amount != current.amount:
        found.append(
            Change(what=ChangeType.PRICE_CHANGED, before=accepted.amount, after=current.amount, subject="order")
        )
    return tuple(sorted(found, key=lambda change: (_ORDER[change.what], change.subject or "")))


def _method(chosen: PaymentChoice, methods: Sequence[PayMethod]) -> PayMethod | None:
    return next((method for method in methods if method.method_id == chosen.method_id), None)


def _method_gone(chosen: PaymentChoice, accepted: AcceptedOffer, current: CurrentOffer) -> Iterator[Change]:
    """A method that is not listed any more, or never was.

    A card that is no longer listed is unbound, unless no method is listed because nothing is to
    pay. Where something is to pay again, the promotions that paid for the order are gone.
    """
    method_id, free = chosen.method_id, current.free
    if free is not None:
        yield _entry_gone(method_id, accepted, is_card=False)
        if free.amount is not None and free.amount.payable != chosen.expected_payable:
            yield Change(what=ChangeType.PRICE_CHANGED, before=chosen.expected_payable, after=free.amount.payable)
    elif accepted.row is not None and method_id.endswith(ID_SUFFIX):
        yield _split_gone(method_id.removesuffix(ID_SUFFIX), accepted.row, accepted.amount.currency, current)
    else:
        is_card = accepted.row is not None and method_id.startswith(_CARD_PREFIXES)
        yield _entry_gone(method_id, accepted, is_card=is_card)
        if method_id in _FREE_KINDS and accepted.row is not None:
            yield from _free_promotions_gone(chosen, accepted.row, accepted.amount.currency, current)


def _free_promotions_gone(
    chosen: PaymentChoice, row: OfferRow, currency: Currency, current: CurrentOffer
) -> Iterator[Change]:
    """The promotions that brought the order to 0 and that apply to no method now."""
    still: set[str] = set()
    for method in current.methods:
        if method.amount is not None:
            still.update(discount.promotion_id for discount in method.amount.discounts)
            still.update(current.applying_values(method.amount))
    for promotion_id, value in row.promotions:
        if promotion_id not in still and chosen.may_count(promotion_id):
            before = Money(currency, value)
            yield Change(what=ChangeType.PROMOTION_GONE, before=before, after=None, subject=promotion_id)


def _entry_gone(subject: str, accepted: AcceptedOffer, *, is_card: bool) -> Change:
    what, reason = (
        (ChangeType.CARD_UNBOUND, ReasonCode.CARD_UNBOUND)
        if is_card
        else (ChangeType.METHOD_CLOSED, ReasonCode.NOT_OFFERED)
    )
    return Change(
        what=what, before=None if accepted.row is None else _AVAILABLE, after=None, subject=subject, reason=reason
    )


def _split_gone(alone_id: str, row: OfferRow, currency: Currency, current: CurrentOffer) -> Change:
    """A split payment ends if the account is empty or has enough, or if no card completes it."""
    alone = next((method for method in current.methods if method.method_id == alone_id), None)
    available = None if alone is None or alone.instrument is None else alone.instrument.available
    short = alone is not None and alone.reason is not None and alone.reason.code is ReasonCode.BALANCE_INSUFFICIENT
    if short and current.combine and available is not None and not available.value:
        from_balance = next((value for leg_type, _, value in row.legs if leg_type == ShareType.BALANCE), 0)
        return Change(
            what=ChangeType.BALANCE_SHORT,
            before=Money(currency, from_balance),
            after=available,
            subject=alone_id,
            reason=ReasonCode.BALANCE_INSUFFICIENT,
        )
    what, reason = (
        (ChangeType.CARD_UNBOUND, ReasonCode.CARD_UNBOUND)
        if short and current.combine
        else (ChangeType.METHOD_CLOSED, ReasonCode.NOT_OFFERED)
    )
    return Change(what=what, before=_AVAILABLE, after=None, subject=row.id, reason=reason)


def _usability_changes(chosen: PaymentChoice, accepted: AcceptedOffer, method: PayMethod) -> Iterator[Change]:
    """Of the option, or of the method without one.

    An undetermined method lists no options, so none is missing.
    """
    option = _option(chosen, method)
    entry: PayMethod | Option = option or method
    if entry.availability is Availability.UNAVAILABLE and entry.reason is not None:
        yield _refused(
            entry.reason, chosen.expected_payable, method, method.method_id if option is None else option.option_id
        )
    elif option is None and chosen.option_id is not None and method.availability is not _UNDETERMINED:
        yield _entry_gone(chosen.option_id, accepted, is_card=method.method_id.endswith(ID_SUFFIX))


def _refused(reason: Reason, expected: Money, method: PayMethod, subject: str) -> Change:
    """For a balance and a limit: the amount to pay, and the amount that is possible."""
    what = _BY_REASON.get(reason.code, ChangeType.METHOD_CLOSED)
    before: Value = expected
    after: Value = None if reason.remedy is None else reason.remedy.amount
    if what is ChangeType.BALANCE_SHORT:
        after = None if method.instrument is None else method.instrument.available
    elif what is not ChangeType.LIMIT_REACHED:
        before, after = _AVAILABLE, Availability.UNAVAILABLE
    return Change(what=what, before=before, after=after, subject=subject, reason=reason.code)


def _price_changes(
    chosen: PaymentChoice, accepted: AcceptedOffer, current: CurrentOffer, method: PayMethod
) -> Iterator[Change]:
    """Of the total and its parts, also for an unusable method with a price.

    A missing option has no price.
    """
    option = _option(chosen, method)
    amounts = method.amount if option is None else option.amount
    row = _row(accepted.row, chosen.option_id)
    if amounts is None or (option is None and chosen.option_id is not None):
        return
    currency, expected, payable = accepted.amount.currency, chosen.expected_payable, amounts.payable
    if row is None or row.payable is None:
        yield Change(what=ChangeType.PRICE_CHANGED, before=None, after=payable)
    elif payable != expected:
        yield Change(what=ChangeType.PRICE_CHANGED, before=expected, after=payable)
    yield from _promotions_lost(chosen, row, amounts, currency, current.applying_values(amounts))
    if row is not None and option is not None and option.terms is not None and row.terms is not None:
        yield from _term_changes(row.terms, option.terms)
    if accepted.row is not None and row is not None and row.payable is not None and _same_choice(chosen, row, amounts):
        yield from _price_part_changes(row, currency, amounts)
        yield from _leg_changes(chosen, accepted.row, currency, method)


def _promotions_lost(
    chosen: PaymentChoice, row: OfferRow | None, amounts: Amounts, currency: Currency, applying: Mapping[str, Money]
) -> Iterator[Change]:
    """Of the promotions in the accepted price and those that the payer names, as far as chosen.

    One that applies and does not count, because others save more, is a part of another price.
    """
    accepted_values = {} if row is None else dict(row.promotions)
    applied = {discount.promotion_id for discount in amounts.discounts}
    for promotion_id in sorted({*accepted_values, *chosen.promotion_ids} - applied):
        if chosen.may_count(promotion_id):
            before = Money(currency, accepted_values[promotion_id]) if promotion_id in accepted_values else None
            if promotion_id not in applying:
                yield Change(what=ChangeType.PROMOTION_GONE, before=before, after=None, subject=promotion_id)
            elif chosen.chosen_promotions is None:
                before = before or applying[promotion_id]
                yield Change(what=ChangeType.PRICE_CHANGED, before=before, after=None, subject=promotion_id)


def _same_choice(chosen: PaymentChoice, row: OfferRow, amounts: Amounts) -> bool:
    """False if the row is the price of another choice of promotions: its parts say nothing."""
    if chosen.chosen_promotions is None:
        return True
    accepted = {promotion_id for promotion_id, _ in row.promotions}
    applied = {discount.promotion_id for discount in amounts.discounts}
    return applied <= accepted <= set(chosen.chosen_promotions)


def _price_part_changes(row: OfferRow, currency: Currency, amounts: Amounts) -> Iterator[Change]:
    """Of the discounts that apply now, and of the fee."""
    accepted_values = dict(row.promotions)
    for discount in amounts.discounts:
        value = accepted_values.get(discount.promotion_id)
        before = None if value is None else Money(currency, value)
        if before != discount.amount:
            yield Change(
                what=ChangeType.PRICE_CHANGED, before=before, after=discount.amount, subject=discount.promotion_id
            )
    accepted_fee = Money(currency, row.fee or 0)
    if accepted_fee != amounts.fee:
        yield Change(what=ChangeType.PRICE_CHANGED, before=accepted_fee, after=amounts.fee, subject="fee")


def _term_changes(accepted: tuple[int, int], terms: InstalmentTerms) -> Iterator[Change]:
    """Of what a payer by instalments agreed to beside the total. Numbers as texts."""
    for subject, before, after in zip(("count", "apr_bps"), accepted, (terms.count, terms.apr_bps), strict=True):
        if before != after:
            yield Change(what=ChangeType.PRICE_CHANGED, before=str(before), after=str(after), subject=subject)


def _leg_changes(chosen: PaymentChoice, row: OfferRow, currency: Currency, method: PayMethod) -> Iterator[Change]:
    """Of each instrument's part. A balance that gives less is short, even at the same total.

    The offered split is that with the method's own choice of card. With another card only the
    balance is compared.
    """
    accepted_amounts = {(leg_type, leg_id): Money(currency, value) for leg_type, leg_id, value in row.legs}
    current_amounts = {(str(leg.type), leg.id): leg.amount for leg in method.legs}
    for leg_type, leg_id in sorted({*accepted_amounts, *current_amounts}):
        before, after = accepted_amounts.get((leg_type, leg_id)), current_amounts.get((leg_type, leg_id))
        if (
            chosen.option_id is not None
            and leg_type == ShareType.CHANNEL
            and (before is None or after is None or leg_id != chosen.option_id)
        ):
            continue
        if before != after:
            short = (
                leg_type == ShareType.BALANCE and before is not None and (after is None or after.value < before.value)
            )
            yield Change(
                what=ChangeType.BALANCE_SHORT if short else ChangeType.PRICE_CHANGED,
                before=before,
                after=after,
                subject=leg_id,
            )


def _option(chosen: PaymentChoice, method: PayMethod) -> Option | None:
    return next((option for option in method.options if option.option_id == chosen.option_id), None)


def _row(row: OfferRow | None, option_id: str | None) -> OfferRow | None:
    """An option without a row of its own has its method's price."""
    if row is None or option_id is None:
        return row
    return next((option for option in row.options if option.id == option_id), row)


def _promotions(row: OfferRow, option_id: str | None) -> Sequence[tuple[str, int]]:
    option_row = _row(row, option_id)
    return () if option_row is None else option_row.promotions
