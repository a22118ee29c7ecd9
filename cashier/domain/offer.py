"""Offer: one way to pay under consideration, and the quote for a channel that could carry it."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from cashier.domain.case import CURRENCY_NOT_SUPPORTED, Case, Line
from cashier.domain.facts import Channel, ChannelStatus
from cashier.domain.limits import Bound, below_min, beyond
from cashier.domain.method import Amounts, Instrument, Leg, Limits, Option, ReasonCode, Remedy, RemedyType
from cashier.domain.money import BPS
from cashier.domain.refusal import Refusal

NO_CHANNEL = Refusal(ReasonCode.NO_CHANNEL, "channel")
CHANNEL_CLOSED = Refusal(ReasonCode.CHANNEL_CLOSED, "channel")
_CHANNEL_PRODUCT = Refusal(ReasonCode.PRODUCT_NOT_SUPPORTED, "channel")
_CHANNEL_TERMINAL = Refusal(ReasonCode.TERMINAL_NOT_SUPPORTED, "channel")
_OPEN, _CLOSED = ChannelStatus.OPEN, ChannelStatus.CLOSED


class Quote(Struct, frozen=True, gc=False):
    """What one road would cost and may carry, and what speaks against it. Without a channel nothing of it may be known."""

    refusal: Refusal | None
    amounts: Amounts | None = None
    limits: Limits | None = None
    channel: Channel | None = None
    legs: tuple[Leg, ...] = ()


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
    """What the channel itself refuses, whatever the amount."""
    request = case.request
    if channel.products is not None and request.product not in channel.products:
        return _CHANNEL_PRODUCT
    if request.terminal not in channel.terminals:
        return _CHANNEL_TERMINAL
    if case.currency not in channel.currencies or not bounded(case, channel):
        return CURRENCY_NOT_SUPPORTED
    status = channel.status
    if status is _OPEN:
        return None
    if status is _CLOSED:
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
    ceiling: Bound | None = None,
) -> Quote:
    """The best quote over these channels. A `refusal` found before stands, whatever the channels say; the figures are shown."""
    if not channels:
        return Quote(refusal or line.case.channel_gap or NO_CHANNEL)
    if len(channels) == 1:
        found = quote(line, channels[0], bank, card_id, ceiling)
    else:
        found = best_quote([quote(line, channel, bank, card_id, ceiling) for channel in channels])
    return found if refusal is None else Quote(refusal, found.amounts, found.limits, found.channel)


def quote(line: Line, channel: Channel, bank: str | None, card_id: str | None, ceiling: Bound | None) -> Quote:
    """One channel's quote. `ceiling` is one more limit on a single payment, an agreement's."""
    case = line.case
    refusal = channel_refusal(case, channel)
    if not bounded(case, channel):
        return Quote(refusal, channel=channel)
    amounts = line.amounts(bank, channel)
    payable = amounts.payable.value
    if not line.quotas and ceiling is None:  # most ways: the channel's own bounds and nobody else's
        limits = Limits(channel.max, None, None)
        if refusal is None and channel.min.value <= payable <= channel.max.value:
            return Quote(case.quota_gap, amounts, limits, channel)
    space = line.room(bank, channel.channel_id, card_id).within(Bound(channel.max, "channel"))
    if ceiling is not None:
        space = space.within(ceiling)
    if refusal is None:
        refusal = below_min(channel, payable) or beyond(space, payable) or case.quota_gap
    return Quote(refusal, amounts, space.shown(), channel)


def best_quote(quotes: list[Quote]) -> Quote:
    """The road to take: usable, then undetermined, then the one that got furthest; among equals the cheapest, for the payer first."""
    return quotes[0] if len(quotes) == 1 else min(quotes, key=_preference)


def _preference(quote: Quote) -> tuple[int, int, int, int, int, str]:
    refusal, channel = quote.refusal, quote.channel
    if refusal is None:
        standing, hope = 0, 0
    else:
        standing, hope = (1, 0) if refusal.undetermined else (2, -refusal.hope)
    payable = quote.amounts.payable.value if quote.amounts else 0
    if channel is None:
        return (standing, hope, payable, 0, 0, "")
    return (standing, hope, payable, cost_bps(channel, payable), -channel.success_bps, channel.channel_id)


def cost_bps(channel: Channel, payable: int) -> int:
    """What the channel costs us, in basis points of what it carries."""
    if channel.fixed_cost is None or not payable:
        return channel.cost_bps
    return channel.cost_bps + channel.fixed_cost.value * BPS // payable
