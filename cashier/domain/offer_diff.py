"""What has changed between the offer that a payer accepted and the same offer now. The eighth way to differ, not being able to tell, is in
`unverified` and comes first: what nobody could check has not changed, it is unknown.

The payer is held to the price that they saw. So whatever differs is a change, also a lower price, and also a method that they were never
offered: with each goes a fresh answer to choose from. Parts of a price are compared with the offer, its total with what the payer expects.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Protocol, TypeAlias

from msgspec import Struct

from cashier.domain.money import Currency, Money
from cashier.domain.order import Blocked, OrderStatus
from cashier.domain.pay_method import Amounts, Availability, Kind, Option, PayMethod, Reason, ReasonCode
from cashier.domain.pay_method import LegType as ShareType
from cashier.domain.payment_request import PaymentChoice


class ChangeType(StrEnum):
    """In the order in which they are told: what stops everything first, the price last."""

    ORDER_STATE = "ORDER_STATE"
    CARD_UNBOUND = "CARD_UNBOUND"
    METHOD_CLOSED = "METHOD_CLOSED"
    BALANCE_SHORT = "BALANCE_SHORT"
    LIMIT_REACHED = "LIMIT_REACHED"
    PROMOTION_GONE = "PROMOTION_GONE"
    PRICE_CHANGED = "PRICE_CHANGED"


Value: TypeAlias = Money | str | None


class Change(Struct, frozen=True, kw_only=True, rename={"before": "from", "after": "to"}):
    """`from` and `to` (here `before` and `after`): amounts, or codes where no amount changed; null where there was, or is, nothing.
    `subject`: what of the payment it is about, an id, `fee` or `order`; null for the payment as a whole. `reason`: why it is no use now."""

    what: ChangeType
    before: Value
    after: Value
    subject: str | None = None
    reason: ReasonCode | None = None


class OfferRow(Protocol):
    """A price as the consult token has it: minor units, None where it was not known. `options`: those that cost something else."""

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


class AcceptedOffer(Struct, frozen=True):
    """What was offered: the order's amount then, and the row of the chosen method, None where that was not offered."""

    amount: Money
    row: OfferRow | None


class CurrentOffer(Struct, frozen=True):
    """A fresh consultation. `blocked`: why the order cannot be paid at all. `silent`: the sources that did not answer."""

    amount: Money
    methods: Sequence[PayMethod]
    blocked: Blocked | None = None
    silent: Collection[str] = ()


_AVAILABLE, _UNDETERMINED = Availability.AVAILABLE, Availability.UNDETERMINED
_COMPLETED = f"+{Kind.QUICK_PAY}"
_BY_REASON: Mapping[ReasonCode, ChangeType] = {
    ReasonCode.CARD_UNBOUND: ChangeType.CARD_UNBOUND,
    ReasonCode.BALANCE_INSUFFICIENT: ChangeType.BALANCE_SHORT,
    ReasonCode.BELOW_MIN: ChangeType.LIMIT_REACHED,
    ReasonCode.ABOVE_SINGLE_LIMIT: ChangeType.LIMIT_REACHED,
    ReasonCode.DAILY_LIMIT_EXCEEDED: ChangeType.LIMIT_REACHED,
    ReasonCode.MONTHLY_LIMIT_EXCEEDED: ChangeType.LIMIT_REACHED,
}
_ORDER = {what: place for place, what in enumerate(ChangeType)}


def unverified(chosen: PaymentChoice, before: AcceptedOffer, now: CurrentOffer) -> tuple[str, ...]:
    """The sources whose silence leaves it open whether the payment may be made, or at what price. Empty: nothing is open.

    Marketing may only improve an offer, but the payer was promised this one: where it has promotions, its silence is no discount lost.
    """
    if now.blocked is not None:
        return ()
    open_ways = [way for way in _ways(chosen, now.methods) if way.availability is _UNDETERMINED]
    found = {way.reason.source for way in open_ways if way.reason is not None and way.reason.source is not None}
    if "marketing" in now.silent and (
        chosen.promotion_ids or (before.row is not None and _promotions(before.row, chosen.option_id))
    ):
        found.add("marketing")
    return tuple(sorted(found))


def _ways(chosen: PaymentChoice, methods: Sequence[PayMethod]) -> Iterator[PayMethod | Option]:
    """The chosen way: the method's option, or itself. Where it cannot be named because somebody is silent, the kind in its place."""
    method = _method(chosen, methods)
    if method is not None:
        yield _option(chosen, method) or method
        return
    name = chosen.method_id
    kinds = {name.partition(":")[0], name.removesuffix(_COMPLETED)}
    if name.endswith(_COMPLETED):
        kinds.add(Kind.QUICK_PAY)
    yield from (method for method in methods if method.method_id in kinds)


def changes(chosen: PaymentChoice, before: AcceptedOffer, now: CurrentOffer) -> tuple[Change, ...]:
    """Everything that differs, the most serious first. Empty: the payer gets what they saw, at the price that they expect.

    Says nothing of what could not be determined; ask `unverified` first.
    """
    if now.blocked is not None:
        return (Change(what=ChangeType.ORDER_STATE, before=OrderStatus.PENDING, after=now.blocked),)
    method, found = _method(chosen, now.methods), list[Change]()
    if method is not None:
        found += [*_usable(chosen, before, method), *_priced(chosen, before, method)]
    elif not any(way.availability is _UNDETERMINED for way in _ways(chosen, now.methods)):
        found.append(_gone(chosen, before, now.methods))
    if before.amount != now.amount:
        found.append(Change(what=ChangeType.PRICE_CHANGED, before=before.amount, after=now.amount, subject="order"))
    return tuple(sorted(found, key=lambda change: (_ORDER[change.what], change.subject or "")))


def _method(chosen: PaymentChoice, methods: Sequence[PayMethod]) -> PayMethod | None:
    return next((method for method in methods if method.method_id == chosen.method_id), None)


def _gone(chosen: PaymentChoice, before: AcceptedOffer, methods: Sequence[PayMethod]) -> Change:
    """A method that is not there any more, or never was. A card that the card centre does not tell is unbound."""
    name = chosen.method_id
    if before.row is not None and name.endswith(_COMPLETED):
        return _no_longer_completed(name.removesuffix(_COMPLETED), before.row, before.amount.currency, methods)
    return _missing(name, before, is_card=before.row is not None and name.startswith(f"{Kind.QUICK_PAY}:"))


def _missing(subject: str, before: AcceptedOffer, *, is_card: bool) -> Change:
    what, reason = (
        (ChangeType.CARD_UNBOUND, ReasonCode.CARD_UNBOUND)
        if is_card
        else (ChangeType.METHOD_CLOSED, ReasonCode.NOT_OFFERED)
    )
    return Change(
        what=what, before=None if before.row is None else _AVAILABLE, after=None, subject=subject, reason=reason
    )


def _no_longer_completed(alone_id: str, row: OfferRow, currency: Currency, methods: Sequence[PayMethod]) -> Change:
    """A balance and a card that are none any more: the account has run dry or holds enough now, or no card is left to complete it."""
    alone = next((method for method in methods if method.method_id == alone_id), None)
    left = None if alone is None or alone.instrument is None else alone.instrument.available
    short = alone is not None and alone.reason is not None and alone.reason.code is ReasonCode.BALANCE_INSUFFICIENT
    if short and left is not None and not left.value:
        gave = next((value for sort, _, value in row.legs if sort == ShareType.BALANCE), 0)
        return Change(
            what=ChangeType.BALANCE_SHORT,
            before=Money(currency, gave),
            after=left,
            subject=alone_id,
            reason=ReasonCode.BALANCE_INSUFFICIENT,
        )
    what, reason = (
        (ChangeType.CARD_UNBOUND, ReasonCode.CARD_UNBOUND)
        if short
        else (ChangeType.METHOD_CLOSED, ReasonCode.NOT_OFFERED)
    )
    return Change(what=what, before=_AVAILABLE, after=None, subject=row.id, reason=reason)


def _usable(chosen: PaymentChoice, before: AcceptedOffer, method: PayMethod) -> Iterator[Change]:
    """Whether the option can be used, or the method where there is none. A method that is out of the question has no options to miss."""
    option = _option(chosen, method)
    way: PayMethod | Option = option or method
    if way.availability is Availability.UNAVAILABLE and way.reason is not None:
        yield _refused(
            way.reason, chosen.expected_payable, method, method.method_id if option is None else option.option_id
        )
    elif option is None and chosen.option_id is not None and method.availability is not _UNDETERMINED:
        yield _missing(chosen.option_id, before, is_card=method.method_id.endswith(_COMPLETED))


def _refused(reason: Reason, expected: Money, method: PayMethod, subject: str) -> Change:
    """For a balance and a limit: what was to be paid, and how much could be."""
    what = _BY_REASON.get(reason.code, ChangeType.METHOD_CLOSED)
    before: Value = expected
    after: Value = None if reason.remedy is None else reason.remedy.amount
    if what is ChangeType.BALANCE_SHORT:
        after = None if method.instrument is None else method.instrument.available
    elif what is not ChangeType.LIMIT_REACHED:
        before, after = _AVAILABLE, Availability.UNAVAILABLE
    return Change(what=what, before=before, after=after, subject=subject, reason=reason.code)


def _priced(chosen: PaymentChoice, before: AcceptedOffer, method: PayMethod) -> Iterator[Change]:
    """The total and its parts. Of what cannot be used the price is compared as well, where it has one; an option that is gone has none."""
    option = _option(chosen, method)
    amounts = method.amount if option is None else option.amount
    row = _row(before.row, chosen.option_id)
    if amounts is None or (option is None and chosen.option_id is not None):
        return
    expected, payable = chosen.expected_payable, amounts.payable
    if row is None or row.payable is None:
        yield Change(what=ChangeType.PRICE_CHANGED, before=None, after=payable)
    elif payable != expected:
        yield Change(what=ChangeType.PRICE_CHANGED, before=expected, after=payable)
    yield from _gone_promotions(chosen, row, amounts, before.amount.currency)
    if before.row is not None and row is not None and row.payable is not None:
        yield from _parts(row, before.amount.currency, amounts)
        yield from _shares(chosen, before.row, before.amount.currency, method)


def _gone_promotions(
    chosen: PaymentChoice, row: OfferRow | None, amounts: Amounts, currency: Currency
) -> Iterator[Change]:
    """Those that were offered with this price, and those that the payer asks for."""
    worth = {} if row is None else dict(row.promotions)
    still = {discount.promotion_id for discount in amounts.discounts}
    for promotion_id in sorted({*worth, *chosen.promotion_ids} - still):
        then = Money(currency, worth[promotion_id]) if promotion_id in worth else None
        yield Change(what=ChangeType.PROMOTION_GONE, before=then, after=None, subject=promotion_id)


def _parts(row: OfferRow, currency: Currency, amounts: Amounts) -> Iterator[Change]:
    """What the price is made of."""
    worth = dict(row.promotions)
    for discount in amounts.discounts:
        then = worth.get(discount.promotion_id)
        if then is None or Money(currency, then) != discount.amount:
            was = None if then is None else Money(currency, then)
            yield Change(
                what=ChangeType.PRICE_CHANGED, before=was, after=discount.amount, subject=discount.promotion_id
            )
    if Money(currency, row.fee or 0) != amounts.fee:
        yield Change(
            what=ChangeType.PRICE_CHANGED, before=Money(currency, row.fee or 0), after=amounts.fee, subject="fee"
        )


def _shares(chosen: PaymentChoice, row: OfferRow, currency: Currency, method: PayMethod) -> Iterator[Change]:
    """Who gave what, and who gives it now. A balance that gives less is short, whatever the total is.

    The split that was offered is with the method's own choice of a card. Of another card's the balance is compared, and no card.
    """
    then = {(sort, name): Money(currency, value) for sort, name, value in row.legs}
    now = {(str(leg.type), leg.id): leg.amount for leg in method.legs}
    for sort, name in sorted({*then, *now}):
        gave, gives = then.get((sort, name)), now.get((sort, name))
        if (
            chosen.option_id is not None
            and sort == ShareType.CHANNEL
            and (gave is None or gives is None or name != chosen.option_id)
        ):
            continue
        if gave != gives:
            less = sort == ShareType.BALANCE and gave is not None and (gives is None or gives.value < gave.value)
            yield Change(
                what=ChangeType.BALANCE_SHORT if less else ChangeType.PRICE_CHANGED,
                before=gave,
                after=gives,
                subject=name,
            )


def _option(chosen: PaymentChoice, method: PayMethod) -> Option | None:
    return next((option for option in method.options if option.option_id == chosen.option_id), None)


def _row(row: OfferRow | None, option_id: str | None) -> OfferRow | None:
    """An option without a row of its own costs what its method does."""
    if row is None or option_id is None:
        return row
    return next((option for option in row.options if option.id == option_id), row)


def _promotions(row: OfferRow, option_id: str | None) -> Sequence[tuple[str, int]]:
    found = _row(row, option_id)
    return () if found is None else found.promotions
