"""Balance and one card together (组合支付): the balance gives what it has, the card the rest.

Which card is the second level: each that could complete it is an option. A promotion counts when it allows both kinds. The fee is on what
the card's channel carries. Where the rest would be less than that channel carries, the balance gives less.
"""

from __future__ import annotations

from collections.abc import Iterator

from cashier.domain.cards import BoundCard
from cashier.domain.case import Line
from cashier.domain.facts import Account, Card, Channel
from cashier.domain.limits import Bound, below_min, beyond, smallest_carried, too_little
from cashier.domain.method import Kind, Leg, LegType
from cashier.domain.money import Money, share_half_up
from cashier.domain.offer import NO_CHANNEL, Offer, Quote, best_quote, bounded, channel_refusal
from cashier.domain.options import ordered
from cashier.domain.refusal import Refusal
from cashier.domain.words import option

KINDS = frozenset((Kind.BALANCE, Kind.QUICK_PAY))


def offers(balance: Line, line: Line, account: Account, alone: Offer, cards: list[BoundCard]) -> Iterator[Offer]:
    """At most one: the account with the best of the cards. Nothing where no card is good of itself. `line` is that of QUICK_PAY."""
    case = line.case
    good = [held for held in cards if held.refusal is None]
    if not good or not account.available.value or line.refusal is not None:
        return
    quotes = [_over_card(balance, line, account, held) for held in good]
    best = best_quote(quotes)
    chosen = good[next(index for index, quote in enumerate(quotes) if quote is best)]
    options = ordered([option(case, held.card.card_id, held.title, quote) for held, quote in zip(good, quotes, strict=True)])
    title = case.wording.combined.format(account=alone.title, card=chosen.title)
    yield Offer(f"{alone.method_id}+QUICK_PAY", balance, title, alone.icon, alone.instrument, best, options)


def _over_card(balance: Line, line: Line, account: Account, held: BoundCard) -> Quote:
    if not held.channels:
        return Quote(line.case.channel_gap or NO_CHANNEL)
    return best_quote([_split(balance, line, account, held.card, channel) for channel in held.channels])


def _split(balance: Line, line: Line, account: Account, card: Card, channel: Channel) -> Quote:
    case = line.case
    refusal = channel_refusal(case, channel)
    if not bounded(case, channel):
        return Quote(refusal, channel=channel)
    fee_bps = line.fee_bps(channel)
    least = smallest_carried(channel.min.value, fee_bps)
    discounts = case.discounts(KINDS, card.bank, least)
    rest = case.amount.value - discounts.total
    carried = min(rest, max(rest - account.available.value, least))
    fee = share_half_up(carried, fee_bps)
    from_balance, from_card = rest - carried, carried + fee
    refusal = refusal or _refusal(balance, line, card, channel, from_balance, from_card) or case.quota_gap
    legs = (
        Leg(LegType.BALANCE, account.account_id, Money(case.currency, from_balance)),
        Leg(LegType.CHANNEL, card.card_id, Money(case.currency, from_card)),
    )
    return Quote(refusal, case.priced(discounts, fee), None, channel, legs)


def _refusal(balance: Line, line: Line, card: Card, channel: Channel, from_balance: int, from_card: int) -> Refusal | None:
    """Each part within its own limits, and each a part."""
    if not from_balance:
        return too_little(channel)
    card_room = line.room(card.bank, channel.channel_id, card.card_id).within(Bound(channel.max, "channel"))
    return below_min(channel, from_card) or beyond(card_room, from_card) or beyond(balance.room(None, None, None), from_balance)
