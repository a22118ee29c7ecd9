"""Offer: one payment method before ranking, and the quotes of the channels that could carry it."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from cashier.domain.facts import Channel
from cashier.domain.kind_assessment import KindAssessment
from cashier.domain.limits import below_minimum, not_carriable, over_limit, tightest_limits, unclear_limit
from cashier.domain.money import Money
from cashier.domain.offered_kinds import CHANNEL_MAINTENANCE, OfferedChannel, OfferedKind
from cashier.domain.pay_method import Instrument, Limits, Option, ReasonCode
from cashier.domain.quote import Quote, best_quote
from cashier.domain.refusal import Refusal

NO_CHANNEL = Refusal(ReasonCode.NO_CHANNEL, "channel")


class Offer(Struct, frozen=True, gc=False):
    """One payment method without its rank and its reason text. Refers to no payer's case.

    Built by position: keywords cost 15 ns more (msgspec 0.23), thirty times per answer.
    """

    method_id: str
    offered: OfferedKind
    title: str
    icon: str
    instrument: Instrument | None
    quote: Quote
    options: tuple[Option, ...] = ()


def best_quote_over(
    assessment: KindAssessment,
    channels: Sequence[OfferedChannel],
    bank: str | None,
    refusal: Refusal | None,
    card_id: str | None = None,
    ceiling: Money | None = None,
) -> Quote:
    """The best quote over these channels.

    A given `refusal` replaces the quote's own and keeps its figures.
    """
    if len(channels) == 1:
        best = quote(assessment, channels[0], bank, card_id, ceiling)
    elif channels:
        best = best_quote([quote(assessment, channel, bank, card_id, ceiling) for channel in channels])
    else:
        return Quote(refusal or assessment.case.channel_gap or NO_CHANNEL)
    return best if refusal is None else Quote(refusal, best.amounts, best.limits, best.channel)


def quotes_by_provider(assessment: KindAssessment) -> list[Quote]:
    """The best quote of each provider, for any instrument."""
    refusal = assessment.refusal
    if assessment.quotas is not None or assessment.case.unclear_quotas:
        return [
            best_quote_over(assessment, provider.channels, provider.provider, refusal)
            for provider in assessment.providers.values()
        ]
    # The channels alone set limits here. Open channels of one price key then share a quote, and
    # most kinds have a single price key.
    shared: dict[tuple[object, ...], Quote] = {}
    promotion_banks = assessment.promotions.banks
    quotes = []
    for provider_id, provider in assessment.providers.items():
        channel = provider.sole_open_channel
        if channel is None:
            quotes.append(best_quote_over(assessment, provider.channels, provider_id, refusal))
            continue
        bank = provider_id if provider_id in promotion_banks else None
        key = (bank, channel.price_key, channel.channel.max.value)
        found = shared.get(key)
        if found is None:
            found = shared[key] = quote(assessment, channel, provider_id, None, None)
        quotes.append(Quote(refusal or found.refusal, found.amounts, found.limits, channel.channel))
    return quotes


def quote(
    assessment: KindAssessment,
    offered: OfferedChannel,
    bank: str | None,
    card_id: str | None,
    ceiling: Money | None,
) -> Quote:
    """Quote one channel.

    `bank` decides which promotions apply; None if it becomes known only during the payment.
    `ceiling`: an agreement's limit on a single payment.
    """
    channel = offered.channel
    refusal = offered.refusal
    if refusal is CHANNEL_MAINTENANCE:
        refusal = assessment.maintenance_refusal(channel.until)
    if not offered.limits_in_currency:
        return Quote(refusal, None, None, channel)
    amounts = assessment.amounts(bank, offered.price_key)
    limits, limit_source = (
        channel_limits(assessment, offered, card_id)
        if ceiling is None
        else _limits_under_ceiling(assessment, channel, ceiling)
    )
    if refusal is None:
        payable = amounts.payable.value
        refusal = (
            not_carriable(channel, payable, limits)
            if payable % channel.step
            else below_minimum(channel)
            if 0 < payable < channel.min.value
            else over_limit(limits, payable, limit_source, least=channel.min.value, step=channel.step)
            or assessment.case.quota_gap
        )
        if refusal is None and assessment.case.unclear_quotas:
            refusal = unclear_limit_over(assessment, channel, card_id)
    return Quote(refusal, amounts, limits, channel)


def unclear_limit_over(assessment: KindAssessment, channel: Channel, card_id: str | None) -> Refusal | None:
    """An undetermined refusal if an unclear quota could concern a payment over this channel."""
    unclear = assessment.case.unclear_quotas
    return unclear_limit(unclear, assessment.kind, channel.provider, channel.channel_id, card_id)


def channel_limits(assessment: KindAssessment, offered: OfferedChannel, card_id: str | None) -> tuple[Limits, str]:
    """The limits of a payment over this channel, and the source of the limit on a single payment.

    Cached in the assessment: a card is quoted by itself and again as part of a split payment.
    """
    if assessment.quotas is None:
        return offered.limits, "channel"
    channel = offered.channel
    key = (channel.provider, channel.channel_id, card_id)
    limits = assessment.limits_cache.get(key)
    if limits is None:
        limits = assessment.limits_cache[key] = tightest_limits(
            assessment.quotas_for(channel.provider), channel.channel_id, card_id, channel.max, "channel"
        )
    return limits


def _limits_under_ceiling(assessment: KindAssessment, channel: Channel, ceiling: Money) -> tuple[Limits, str]:
    single, limit_source = (ceiling, "card") if ceiling.value < channel.max.value else (channel.max, "channel")
    return tightest_limits(assessment.quotas_for(channel.provider), channel.channel_id, None, single, limit_source)
