"""Balance and one card together (组合支付): the balance gives what it has, the card the rest.

Which card is the second level: each that could complete it is an option. A promotion counts when it allows both kinds. The fee is on what
the card's channel carries. Where the rest would be less than that channel carries, the balance gives less. Each of the two gives something,
or a promotion for paying by a card could be had without paying by it.
"""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from cashier.domain.card_offers import BoundCard
from cashier.domain.facts import Account, Channel
from cashier.domain.kind_assessment import KindAssessment
from cashier.domain.limits import beyond, smallest_carried, too_little
from cashier.domain.money import Money, share_half_up
from cashier.domain.offer import NO_CHANNEL, Offer, within
from cashier.domain.pay_method import Amounts, Kind, Leg, LegType, Remedy, RemedyType
from cashier.domain.quote import Quote, best_quote
from cashier.domain.reason_text import option, ordered
from cashier.domain.refusal import Refusal
from cashier.domain.storefront_channel import StorefrontChannel

KINDS = frozenset((Kind.BALANCE, Kind.QUICK_PAY))


class SplitAmounts(Struct, frozen=True, gc=False):
    """What it costs in all, and who gives what of that. The balance nothing where that cannot be: then it is no combined payment."""

    amounts: Amounts
    from_balance: Money
    from_card: Money


class SplitCandidate:
    """One account that falls short, and what a card would have to add.

    The account's own quotas are not asked again: alone it would have had to carry more, and was only found to hold too little.
    """

    __slots__ = ("_coupons", "_splits", "account", "line")

    def __init__(self, line: KindAssessment, account: Account) -> None:
        self.line = line
        self.account = account
        self._coupons = line.case.coupons.of(KINDS)
        self._splits: dict[tuple[str | None, int, int], SplitAmounts] = {}

    def over(self, held: BoundCard) -> Quote:
        """The best quote with this card, without its legs: most cards are only options."""
        if len(held.roads) == 1:
            return self._quote(held, held.roads[0])
        if not held.roads:
            return Quote(self.line.case.channel_gap or NO_CHANNEL)
        return best_quote([self._quote(held, road) for road in held.roads])

    def with_legs(self, held: BoundCard, quote: Quote) -> Quote:
        """And what each of the two gives. Nobody gives anything where nothing is to pay or the balance can have no part."""
        channel = quote.channel
        if channel is None or quote.amounts is None:
            return quote
        split = self._split(
            held.card.bank, channel.min.value, self.line.terms.fee_bps if channel.fee_bps is None else channel.fee_bps
        )
        if not split.from_balance.value:
            return quote
        legs = (
            Leg(LegType.BALANCE, self.account.account_id, split.from_balance),
            Leg(LegType.CHANNEL, held.card.card_id, split.from_card),
        )
        return Quote(quote.refusal, quote.amounts, None, channel, legs)

    def _quote(self, held: BoundCard, road: StorefrontChannel) -> Quote:
        case, channel = self.line.case, road.channel
        refusal = None if road.refusal is None else road.refused(case.now)
        if not road.bounded:
            return Quote(refusal, channel=channel)
        split = self._split(held.card.bank, channel.min.value, road.fee_bps)
        if refusal is None:
            refusal = self._refusal(held, channel, split) or case.quota_gap
        return Quote(refusal, split.amounts, None, channel)

    def _refusal(self, held: BoundCard, channel: Channel, split: SplitAmounts) -> Refusal | None:
        if not split.from_balance.value:
            return too_little(channel) if split.amounts.payable.value else None
        carried = split.from_card.value
        limits, setter = within(self.line, channel, held.card.card_id)
        return _together(beyond(limits, carried, setter), split)

    def _split(self, bank: str, channel_min: int, fee_bps: int) -> SplitAmounts:
        case = self.line.case
        key = (bank if bank in self._coupons.banks else None, channel_min, fee_bps)
        found = self._splits.get(key)
        if found is None:
            least = smallest_carried(max(1, channel_min), fee_bps)
            discounts = self._coupons.best(bank, least + 1)
            rest = case.amount.value - discounts.total
            carried = min(rest, max(rest - self.account.available.value, least))
            fee = share_half_up(carried, fee_bps)
            found = self._splits[key] = SplitAmounts(
                case.priced(discounts, fee), Money(case.currency, rest - carried), Money(case.currency, carried + fee)
            )
        return found


def _together(refusal: Refusal | None, split: SplitAmounts) -> Refusal | None:
    """The card may carry so much: the payment may be that and what the balance gives."""
    if refusal is None or refusal.amount is None:
        return refusal
    most = Money(refusal.amount.currency, refusal.amount.value + split.from_balance.value)
    return Refusal(refusal.code, refusal.source, Remedy(RemedyType.REDUCE_AMOUNT, most), refusal.amount)


def offers(
    balance: KindAssessment, line: KindAssessment, account: Account, alone: Offer, cards: list[BoundCard]
) -> Iterator[Offer]:
    """At most one: the account with the best of the cards. Nothing where no card is good of itself. `line` is that of QUICK_PAY."""
    good = [held for held in cards if held.refusal is None]
    if not good or not account.available.value or line.refusal is not None:
        return
    case, completion = line.case, SplitCandidate(line, account)
    quotes = [completion.over(held) for held in good]
    best = best_quote(quotes)
    chosen = good[next(index for index, quote in enumerate(quotes) if quote is best)]
    options = ordered(
        [option(case, held.card.card_id, held.title, quote) for held, quote in zip(good, quotes, strict=True)]
    )
    title = case.wording.combined.format(account=alone.title, card=chosen.title)
    quote = completion.with_legs(chosen, best)
    yield Offer(f"{alone.method_id}+QUICK_PAY", balance, title, alone.icon, alone.instrument, quote, options)
