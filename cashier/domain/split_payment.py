"""Split payment (组合支付): a balance gives what it has, one card pays the rest.

Each card that could complete the balance is an option. A promotion applies if it allows both kinds.
The fee is on what the card's channel carries. If the rest is below that channel's minimum, the
balance gives less. If that channel carries only multiples of a step, the balance gives the odd
rest. Both give something: otherwise a promotion for cards would apply without a card.
"""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct, structs

from cashier.domain.bound_cards import BoundCard, BoundCards
from cashier.domain.facts import Account, Channel
from cashier.domain.kind_assessment import KindAssessment
from cashier.domain.limits import below_minimum, over_limit, smallest_carried, unclear_limit
from cashier.domain.money import Money, in_steps_down, in_steps_up, stepped_fee
from cashier.domain.offer import NO_CHANNEL, Offer, channel_limits, unclear_limit_over
from cashier.domain.offered_kinds import CHANNEL_MAINTENANCE, OfferedChannel
from cashier.domain.pay_method import Amounts, Kind, Leg, LegType, ReasonCode, Remedy, RemedyType
from cashier.domain.quote import Quote, best_quote
from cashier.domain.reason_text import option, sorted_options
from cashier.domain.refusal import Refusal

KINDS = frozenset((Kind.BALANCE, Kind.QUICK_PAY))
# Of the method's id, after the id of the account's own method.
ID_SUFFIX = f"+{Kind.QUICK_PAY}"


class SplitAmounts(Struct, frozen=True, gc=False):
    """The price and its shares. `from_balance` is 0 where no split is possible.

    `refusal`: why there is none, although there is something to pay. `from_card` is then the card's
    share after the top-up that it names.
    """

    amounts: Amounts
    from_balance: Money
    from_card: Money
    refusal: Refusal | None


class SplitCandidate:
    """An account that is too low, and its quotes with each card.

    The account's own quotas are not tested again: the account passed them for a larger amount, and
    was refused only because its balance is too low.
    """

    __slots__ = ("_promotions", "_splits", "account", "assessment")

    def __init__(self, quick_pay: KindAssessment, account: Account) -> None:
        self.assessment = quick_pay
        self.account = account
        self._promotions = quick_pay.case.promotions.usable_with(KINDS)
        self._splits: dict[tuple[str | None, int, int, int], SplitAmounts] = {}

    def quote(self, bound: BoundCard) -> Quote:
        """The best quote with this card, without legs: most cards remain options."""
        if len(bound.channels) == 1:
            return self._quote_channel(bound, bound.channels[0])
        if not bound.channels:
            return Quote(self.assessment.case.channel_gap or NO_CHANNEL)
        return best_quote([self._quote_channel(bound, channel) for channel in bound.channels])

    def with_legs(self, bound: BoundCard, quote: Quote) -> Quote:
        """Add the legs. There are none if nothing is to pay or the balance can give nothing."""
        channel = quote.channel
        if channel is None or quote.amounts is None:
            return quote
        fee_bps = self.assessment.terms.fee_bps if channel.fee_bps is None else channel.fee_bps
        split = self._split(bound.card.bank, channel, fee_bps)
        if not split.from_balance.value:
            return quote
        legs = (
            Leg(LegType.BALANCE, self.account.account_id, split.from_balance),
            Leg(LegType.CHANNEL, bound.card.card_id, split.from_card),
        )
        return Quote(quote.refusal, quote.amounts, None, channel, legs)

    def _quote_channel(self, bound: BoundCard, offered: OfferedChannel) -> Quote:
        case, channel = self.assessment.case, offered.channel
        refusal = offered.refusal
        if refusal is CHANNEL_MAINTENANCE:
            refusal = self.assessment.maintenance_refusal(channel.until)
        if not offered.limits_in_currency:
            return Quote(refusal, channel=channel)
        split = self._split(bound.card.bank, channel, offered.fee_bps)
        if refusal is None:
            refusal = self._refusal(bound, offered, split) or case.quota_gap
            if refusal is None and case.unclear_quotas:
                refusal = unclear_limit_over(self.assessment, channel, bound.card.card_id) or unclear_limit(
                    case.unclear_quotas, Kind.BALANCE, None, None, None
                )
        return Quote(refusal, split.amounts, None, channel)

    def _refusal(self, bound: BoundCard, offered: OfferedChannel, split: SplitAmounts) -> Refusal | None:
        channel, refusal = offered.channel, split.refusal
        if refusal is None and not split.from_balance.value:
            return None
        limits, limit_source = channel_limits(self.assessment, offered, bound.card.card_id)
        over = over_limit(limits, split.from_card.value, limit_source, least=channel.min.value, step=channel.step)
        if refusal is None:
            return _for_whole_payment(over, split)
        # A top-up does not help if the card's limits would refuse its share after it.
        return refusal if over is None else structs.replace(refusal, remedy=None)

    def _split(self, bank: str, channel: Channel, fee_bps: int) -> SplitAmounts:
        case, step = self.assessment.case, channel.step
        key = (bank if bank in self._promotions.banks else None, channel.min.value, fee_bps, step)
        split = self._splits.get(key)
        if split is None:
            card_min = in_steps_up(smallest_carried(max(1, channel.min.value), fee_bps, step), step)
            discounts = self._promotions.best(bank, card_min + 1, step)
            rest = case.amount.value - discounts.total
            carried = min(rest, max(in_steps_up(rest - self.account.available.value, step), card_min))
            fee = stepped_fee(carried, fee_bps, step)
            refusal, from_card = None, carried + fee
            if 0 < carried == rest:
                refusal = self._no_split(channel, rest, card_min)
                carried_then = in_steps_down(rest - 1, step)
                from_card = carried_then + stepped_fee(carried_then, fee_bps, step)
            split = self._splits[key] = SplitAmounts(
                case.price(discounts, fee),
                Money(case.currency, rest - carried),
                Money(case.currency, from_card),
                refusal,
            )
        return split

    def _no_split(self, channel: Channel, rest: int, card_min: int) -> Refusal:
        """The rest is too low for both, or the balance cannot give what is odd in it."""
        if rest <= card_min:
            return below_minimum(channel)
        odd = rest - in_steps_down(rest - 1, channel.step)
        shortfall = Money(self.assessment.case.currency, odd - self.account.available.value)
        step = Money(channel.min.currency, channel.step)
        return Refusal(ReasonCode.AMOUNT_NOT_CARRIABLE, "channel", Remedy(RemedyType.TOP_UP, shortfall), step)


def _for_whole_payment(refusal: Refusal | None, split: SplitAmounts) -> Refusal | None:
    """Raise the remedy by the balance's share: the limit is the card's, the remedy the whole's."""
    if refusal is None or refusal.remedy is None or refusal.remedy.amount is None:
        return refusal
    from_card = refusal.remedy.amount
    payable_max = Money(from_card.currency, from_card.value + split.from_balance.value)
    return Refusal(refusal.code, refusal.source, Remedy(RemedyType.REDUCE_AMOUNT, payable_max), refusal.amount)


def offers(balance: KindAssessment, cards: BoundCards, account: Account, alone: Offer) -> Iterator[Offer]:
    """At most one: the account with the best card.

    None if every card is refused. `alone`: the account's own offer.
    """
    usable = [bound for bound in cards.cards if bound.refusal is None]
    if not usable or not account.available.value or cards.assessment.refusal is not None:
        return
    case, candidate = balance.case, SplitCandidate(cards.assessment, account)
    quotes = [candidate.quote(bound) for bound in usable]
    best = best_quote(quotes)
    chosen = usable[next(index for index, quote in enumerate(quotes) if quote is best)]
    options = sorted_options(
        [option(case, bound.card.card_id, bound.title, quote) for bound, quote in zip(usable, quotes, strict=True)]
    )
    title = case.wording.combined.format(account=alone.title, card=chosen.title)
    quote = candidate.with_legs(chosen, best)
    yield Offer(alone.method_id + ID_SUFFIX, alone.offered, title, alone.icon, alone.instrument, quote, options)
