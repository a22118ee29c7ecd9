"""Offer: one way to pay under consideration, and how the channels that could carry it are quoted."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from cashier.domain.case import Case
from cashier.domain.facts import Channel, ChannelStatus
from cashier.domain.limits import below_min, beyond
from cashier.domain.line import CURRENCY_NOT_SUPPORTED, Line
from cashier.domain.method import Instrument, Limits, Option, ReasonCode, Remedy, RemedyType
from cashier.domain.money import Money
from cashier.domain.quote import Quote, best_quote
from cashier.domain.refusal import Refusal

NO_CHANNEL = Refusal(ReasonCode.NO_CHANNEL, "channel")
CHANNEL_CLOSED = Refusal(ReasonCode.CHANNEL_CLOSED, "channel")
_CHANNEL_PRODUCT = Refusal(ReasonCode.PRODUCT_NOT_SUPPORTED, "channel")
_CHANNEL_TERMINAL = Refusal(ReasonCode.TERMINAL_NOT_SUPPORTED, "channel")
_OPEN, _CLOSED = ChannelStatus.OPEN, ChannelStatus.CLOSED


class Offer(Struct, frozen=True, gc=False):
    """One way to pay, complete but for its rank and its words."""

    method_id: str
    line: Line
    title: str
    icon: str
    instrument: Instrument | None
    quote: Quote
    options: tuple[Option, ...] = ()


def bounded(case: Case, channel: Channel) -> bool:
    """Whether the channel's limits speak the order's currency. One without bounds is not one to send money through."""
    return channel.min.currency == case.currency == channel.max.currency


def channel_refusal(case: Case, channel: Channel) -> Refusal | None:
    """What the channel itself refuses, whatever the amount. None only for one that is bounded."""
    products = channel.products
    if products is not None and case.product not in products:
        return _CHANNEL_PRODUCT
    if case.terminal not in channel.terminals:
        return _CHANNEL_TERMINAL
    if case.currency not in channel.currencies or not channel.min.currency == case.currency == channel.max.currency:
        return CURRENCY_NOT_SUPPORTED
    return None if channel.status is _OPEN else _not_open(case, channel)


def _not_open(case: Case, channel: Channel) -> Refusal:
    if channel.status is _CLOSED:
        return CHANNEL_CLOSED
    ends = channel.until is not None and channel.until > case.now
    remedy = Remedy(RemedyType.WAIT_UNTIL, until=channel.until) if ends else Remedy(RemedyType.RETRY)
    return Refusal(ReasonCode.CHANNEL_MAINTENANCE, "channel", remedy)


def over(
    line: Line,
    channels: Sequence[Channel],
    bank: str | None,
    refusal: Refusal | None,
    *,
    card_id: str | None = None,
    ceiling: Money | None = None,
) -> Quote:
    """The best quote over these channels. A `refusal` found before stands, whatever the channels say; the figures are shown."""
    if len(channels) == 1:
        found = quote(line, channels[0], bank, card_id, ceiling)
    elif channels:
        found = best_quote([quote(line, channel, bank, card_id, ceiling) for channel in channels])
    else:
        return Quote(refusal or line.case.channel_gap or NO_CHANNEL)
    return found if refusal is None else Quote(refusal, found.amounts, found.limits, found.channel)


def quote(line: Line, channel: Channel, bank: str | None, card_id: str | None, ceiling: Money | None) -> Quote:
    """One channel's quote. `bank` decides promotions; None where it shows only in paying. `ceiling`: what an agreement allows at once."""
    refusal = channel_refusal(line.case, channel)
    if refusal is not None and not bounded(line.case, channel):
        return Quote(refusal, channel=channel)
    if ceiling is not None or line.quotas is not None:
        return _limited(line, channel, bank, refusal, card_id, ceiling)
    # Nobody sets a limit but the channel itself, and then channels of the same figures have the same verdict: mostly there is one.
    key = (bank if bank in line.named_banks else None, channel.min.value, channel.max.value, channel.fee_bps)
    verdict = line.verdicts.get(key)
    if verdict is None:
        verdict = line.verdicts[key] = _limited(line, channel, bank, None, None, None)
    return Quote(refusal or verdict.refusal, verdict.amounts, verdict.limits, channel)


def _limited(line: Line, channel: Channel, bank: str | None, refusal: Refusal | None, card_id: str | None, ceiling: Money | None) -> Quote:
    amounts = line.amounts(bank, channel.min.value, line.fee_bps(channel))
    limits, setter = within(line, channel, card_id, ceiling)
    if refusal is None:
        payable = amounts.payable.value
        refusal = below_min(channel, payable) or beyond(limits, payable, setter) or line.case.quota_gap
    return Quote(refusal, amounts, limits, channel)


def within(line: Line, channel: Channel, card_id: str | None, ceiling: Money | None = None) -> tuple[Limits, str]:
    """What may pass over this channel, and who set the limit on a single payment."""
    single, setter = channel.max, "channel"
    if ceiling is not None and ceiling.value < single.value:
        single, setter = ceiling, "card"
    if line.quotas is None:
        return Limits(single, None, None), setter
    left = line.left(channel.provider, channel.channel_id, card_id)
    if left.single is not None and left.single.value <= single.value:
        return left, "quota"
    return Limits(single, left.daily_remaining, left.monthly_remaining), setter
