"""Offer: one way to pay under consideration, and how the roads that could carry it are quoted."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from cashier.domain.facts import Channel
from cashier.domain.kind_assessment import KindAssessment
from cashier.domain.limits import beyond, tightest, too_little
from cashier.domain.money import Money
from cashier.domain.pay_method import Instrument, Limits, Option, ReasonCode
from cashier.domain.quote import Quote, best_quote
from cashier.domain.refusal import Refusal
from cashier.domain.storefront_channel import StorefrontChannel

NO_CHANNEL = Refusal(ReasonCode.NO_CHANNEL, "channel")


class Offer(Struct, frozen=True, gc=False):
    """One way to pay, complete but for its rank and its words."""

    method_id: str
    line: KindAssessment
    title: str
    icon: str
    instrument: Instrument | None
    quote: Quote
    options: tuple[Option, ...] = ()


def over(
    line: KindAssessment,
    roads: Sequence[StorefrontChannel],
    bank: str | None,
    refusal: Refusal | None,
    card_id: str | None = None,
    ceiling: Money | None = None,
) -> Quote:
    """The best quote over these roads. A `refusal` found before stands, whatever the channels say; the figures are shown."""
    if len(roads) == 1:
        found = quote(line, roads[0], bank, card_id, ceiling)
    elif roads:
        found = best_quote([quote(line, road, bank, card_id, ceiling) for road in roads])
    else:
        return Quote(refusal or line.case.channel_gap or NO_CHANNEL)
    return found if refusal is None else Quote(refusal, found.amounts, found.limits, found.channel)


def by_carrier(line: KindAssessment) -> list[Quote]:
    """The best quote of each carrier, whoever pays with whatever."""
    if line.quotas is not None or line.refusal is not None:
        return [over(line, carrier.roads, carrier.provider, line.refusal) for carrier in line.carriers.values()]
    # Nobody sets a limit but the channel itself, and then open roads of the same figures have the same verdict: mostly there is one.
    verdicts: dict[tuple[object, ...], Quote] = {}
    named_banks = line.coupons.banks
    quotes = []
    for provider, carrier in line.carriers.items():
        road = carrier.sole
        if road is None:
            quotes.append(over(line, carrier.roads, provider, None))
            continue
        key = (provider, road.figures) if provider in named_banks else road.figures
        verdict = verdicts.get(key)
        if verdict is None:
            verdict = verdicts[key] = quote(line, road, provider, None, None)
        quotes.append(Quote(verdict.refusal, verdict.amounts, verdict.limits, road.channel))
    return quotes


def quote(
    line: KindAssessment, road: StorefrontChannel, bank: str | None, card_id: str | None, ceiling: Money | None
) -> Quote:
    """One road's quote. `bank` decides promotions; None where it shows only in paying. `ceiling`: what an agreement allows at once."""
    channel = road.channel
    refusal = None if road.refusal is None else road.refused(line.case.now)
    if not road.bounded:
        return Quote(refusal, None, None, channel)
    amounts = line.amounts(bank, channel.min.value, road.fee_bps)
    limits, setter = within(line, channel, card_id) if ceiling is None else _under(ceiling, line, channel)
    if refusal is None:
        payable = amounts.payable.value
        refusal = (
            too_little(channel)
            if 0 < payable < channel.min.value
            else beyond(limits, payable, setter) or line.case.quota_gap
        )
    return Quote(refusal, amounts, limits, channel)


def within(line: KindAssessment, channel: Channel, card_id: str | None) -> tuple[Limits, str]:
    """What may pass over this channel, and who set the limit on a single payment. Found once: a card is asked for itself, and again to
    complete a balance."""
    if line.quotas is None:
        return Limits(channel.max, None, None), "channel"
    key = (channel.provider, channel.channel_id, card_id)
    found = line.bounds.get(key)
    if found is None:
        found = line.bounds[key] = tightest(
            line.covering(channel.provider), channel.channel_id, card_id, channel.max, "channel"
        )
    return found


def _under(ceiling: Money, line: KindAssessment, channel: Channel) -> tuple[Limits, str]:
    """The same where an agreement allows no more than `ceiling` at once."""
    single, setter = (ceiling, "card") if ceiling.value < channel.max.value else (channel.max, "channel")
    return tightest(line.covering(channel.provider), channel.channel_id, None, single, setter)
