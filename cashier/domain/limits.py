"""Limits: what an instrument may carry, tested on what it will really pay. Of all that apply the tightest wins."""

from __future__ import annotations

from collections.abc import Sequence

from cashier.domain.facts import Channel, Period, Quota
from cashier.domain.money import BPS, Money, share_half_up
from cashier.domain.pay_method import Limits, ReasonCode, Remedy, RemedyType
from cashier.domain.refusal import Refusal


def tightest(
    quotas: Sequence[Quota], channel_id: str | None, card_id: str | None, single: Money | None, setter: str
) -> tuple[Limits, str]:
    """What the quotas whose scope covers this channel and card leave, where `setter` allows `single` at once; and who is the tightest
    there. A scope covers whatever it does not narrow."""
    daily: Money | None = None
    monthly: Money | None = None
    for quota in quotas:
        scope, its = quota.scope, quota.single
        if (scope.card_id is None or scope.card_id == card_id) and (
            scope.channel_id is None or scope.channel_id == channel_id
        ):
            if its is not None and (
                single is None or its.value < single.value or (its.value == single.value and setter != "quota")
            ):
                single, setter = its, "quota"
            if quota.daily is not None:
                daily = _tighter(daily, quota.daily)
            if quota.monthly is not None:
                monthly = _tighter(monthly, quota.monthly)
    return Limits(single, daily, monthly), setter


def _tighter(left: Money | None, period: Period) -> Money:
    remaining = max(0, period.limit.value - period.used.value)
    return left if left is not None and left.value <= remaining else Money(period.limit.currency, remaining)


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
