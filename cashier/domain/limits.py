"""Limits: what an instrument may carry, tested on what it will really pay. Of all that apply the tightest wins."""

from __future__ import annotations

from collections.abc import Sequence

from cashier.domain.facts import Channel, Period, Quota
from cashier.domain.method import Limits, ReasonCode, Remedy, RemedyType
from cashier.domain.money import BPS, Money, share_half_up
from cashier.domain.refusal import Refusal

UNLIMITED = Limits(None, None, None)


def left(quotas: Sequence[Quota], channel_id: str | None, card_id: str | None) -> Limits:
    """The tightest of the quotas whose scope covers this channel and card. A scope covers whatever it does not narrow."""
    single: Money | None = None
    daily: Money | None = None
    monthly: Money | None = None
    for quota in quotas:
        scope = quota.scope
        if (scope.card_id is None or scope.card_id == card_id) and (scope.channel_id is None or scope.channel_id == channel_id):
            single = _tighter(single, quota.single)
            daily = _tighter(daily, _remaining(quota.daily))
            monthly = _tighter(monthly, _remaining(quota.monthly))
    return Limits(single, daily, monthly)


def _remaining(period: Period | None) -> Money | None:
    return None if period is None else Money(period.limit.currency, max(0, period.limit.value - period.used.value))


def _tighter(one: Money | None, other: Money | None) -> Money | None:
    if one is None or other is None:
        return one or other
    return other if other.value < one.value else one


def beyond(limits: Limits, payable: int, setter: str = "quota") -> Refusal | None:
    """More than may pass? Single first, then the day, then the month. `setter`: the source of the limit on a single payment."""
    single, daily, monthly = limits.single, limits.daily_remaining, limits.monthly_remaining
    if single is not None and payable > single.value:
        return _too_much(ReasonCode.ABOVE_SINGLE_LIMIT, setter, single)
    if daily is not None and payable > daily.value:
        return _too_much(ReasonCode.DAILY_LIMIT_EXCEEDED, "quota", daily)
    if monthly is not None and payable > monthly.value:
        return _too_much(ReasonCode.MONTHLY_LIMIT_EXCEEDED, "quota", monthly)
    return None


def _too_much(code: ReasonCode, source: str, limit: Money) -> Refusal:
    return Refusal(code, source, Remedy(RemedyType.REDUCE_AMOUNT, limit) if limit.value else None, limit)


def below_min(channel: Channel, payable: int) -> Refusal | None:
    """Less than the channel carries? Nothing at all is no payment through it, and never too little."""
    return too_little(channel) if 0 < payable < channel.min.value else None


def too_little(channel: Channel) -> Refusal:
    return Refusal(ReasonCode.BELOW_MIN, "channel", None, channel.min)


def smallest_carried(channel_min: int, fee_bps: int) -> int:
    """The smallest amount before the fee that, with it, reaches the channel's minimum."""
    if not fee_bps:
        return channel_min
    amount = max(0, channel_min * BPS // (BPS + fee_bps) - 2)
    while amount + share_half_up(amount, fee_bps) < channel_min:
        amount += 1
    return amount
